//! The signer and the timestamp source, as the command line and the configuration file name them: the only
//! place that opens them.

use std::{io, path::PathBuf, sync::Mutex};

use clap::Args;
use sha2::{Digest, Sha256};
use ssh_encoding::Encode;
use ssh_key::{PublicKey, public::KeyData};
use sshsm_protocol::{DeviceError, ObjectId, channel::AuthenticationKey, ssh::signature::SignatureAlgorithm};

use super::{
    Context,
    arguments::{CaName, RsaSignature, TemplateName},
    configuration::Authority,
    error::{CliError, FileError, PasswordError},
    ledger,
    notice::listener,
    password::{self, PasswordFile},
    template,
    timestamp_source::{self, TermsArguments, TimestampArguments},
};
use crate::output;
use sshsm_ca::{
    device_address::DeviceAddress,
    files, input, key_file,
    pkcs11::{self, TokenKey, TokenSigner},
    signer::{DeviceSigner, EnforcedBy, Signer},
    template::diff::{self, Direction},
    timestamp::{SourceAddress, TimestampSource},
};
use sshsm_client::{Client, ClientError, Credential, Failure, Kind, Session};

/// A CA, and the timestamp authority for its requests.
#[derive(Debug, Clone, Args)]
pub(super) struct SignerChoice {
    /// The CA: the id of its key on the device, or its name in the configuration file ([ca.NAME]); for a key
    /// on a PKCS#11 token, the id by which its template lists it
    #[arg(short = 's', long = "ca", value_name = "CA")]
    pub(super) ca: Option<CaName>,
    /// The template that the CA key signs under: its id on the device, or, for a key on a PKCS#11 token, its file
    #[arg(short = 't', long, value_name = "TEMPLATE")]
    template: Option<TemplateName>,
    #[command(flatten)]
    timestamp: TimestampArguments,
    /// If no device answers, sign with the token that the configuration names as this CA's fallback: this
    /// program then enforces its template, which must not be looser than the device's was. Must be given on
    /// each call, never in a configuration
    #[arg(long)]
    fallback: bool,
    /// How an RSA CA key signs
    #[arg(long, value_name = "NAME")]
    signature_algorithm: Option<RsaSignature>,
}

impl SignerChoice {
    /// The same of another CA.
    pub(super) fn of(&self, ca: CaName) -> Self {
        Self { ca: Some(ca), ..self.clone() }
    }
}

/// A certificate authority, ready to be opened.
pub(super) struct Ca {
    pub(super) devices: Vec<DeviceAddress>,
    pub(super) timestamp: Option<SourceAddress>,
    terms: TermsArguments,
    authentication_key: ObjectId,
    secret: Mutex<Secret>,
    device_key: Option<PathBuf>,
    key: Option<ObjectId>,
    template: Option<TemplateName>,
    pub(super) public_key: Option<PublicKey>,
    pub(super) algorithm: Option<SignatureAlgorithm>,
    fallback: Option<pkcs11::Uri>,
    fallback_template: Option<TemplateName>,
    /// Whether the fallback was asked for this time.
    fall_back: bool,
}

/// Obtained once, however many sessions it opens.
enum Secret {
    PasswordIn(PasswordFile),
    PrivateKeyIn(PathBuf),
    /// The key derived from the password; the password itself is discarded as soon as possible.
    Key(AuthenticationKey),
    PrivateKey(p256::SecretKey),
}

impl Context {
    /// The selected CA. The command line and the environment override the configuration of that CA, which
    /// overrides that of all commands.
    ///
    /// # Errors
    /// When there is none with that name, or its public key cannot be read.
    pub(super) fn ca(&self, choice: &SignerChoice) -> Result<Ca, CliError> {
        let configured = match &choice.ca {
            Some(CaName::Name(name)) => self.configuration.authority(name).cloned().ok_or_else(|| {
                let known: Vec<_> = self.configuration.authorities().collect();
                CliError::Usage(match known.as_slice() {
                    [] => {
                        format!("there is no CA {name:?}: no configuration file defines one, as [ca.{name}]")
                    }
                    known => {
                        format!("there is no CA {name:?} in the configuration, only {}", known.join(", "))
                    }
                })
            })?,
            _ => Authority::default(),
        };
        let key = match &choice.ca {
            Some(CaName::Id(id)) => Some(*id),
            _ => configured.key.map(|key| key.0),
        };
        let read = |path| {
            key_file::read_public(path).map_err(|error| CliError::content("no public key of the CA", error))
        };
        let explicit = &self.explicit;
        let globals = &self.globals;
        Ok(Ca {
            devices: match configured.device {
                devices if !devices.is_empty() && !explicit.device => devices,
                _ => globals.device.clone(),
            },
            timestamp: choice.timestamp.source.clone().or(configured.timestamp),
            terms: choice.timestamp.terms.clone(),
            authentication_key: match configured.auth_key {
                Some(id) if !explicit.auth_key => id.0,
                _ => globals.auth_key,
            },
            secret: Mutex::new(match (&globals.auth_key_file, configured.password_file) {
                (Some(file), _) => Secret::PrivateKeyIn(file.clone()),
                (None, Some(file)) if !explicit.password_file => {
                    Secret::PasswordIn(PasswordFile { path: Some(file), explicit: false })
                }
                (None, _) => Secret::PasswordIn(PasswordFile {
                    path: globals.password_file.clone(),
                    explicit: explicit.password_file,
                }),
            }),
            device_key: globals.device_key.clone(),
            key,
            template: choice.template.clone().or(configured.template),
            public_key: configured.public_key.as_deref().map(read).transpose()?,
            algorithm: choice.signature_algorithm.or(configured.signature_algorithm).map(Into::into),
            fallback: configured.fallback,
            fallback_template: configured.fallback_template,
            fall_back: choice.fallback,
        })
    }
}

impl Ca {
    /// Opens the holder of the CA key at `device`, lets it be used, and closes it.
    ///
    /// # Errors
    /// When it cannot be opened, is a different CA from the configured one, or `used` fails.
    pub(super) fn with_signer<T>(
        &self,
        device: &DeviceAddress,
        used: impl FnOnce(&mut dyn Signer) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        if let DeviceAddress::Pkcs11(uri) = device {
            return self.with_token(uri, self.template.as_ref(), used);
        }
        let key = self.key()?;
        let template = match &self.template {
            Some(TemplateName::Id(id)) => *id,
            Some(TemplateName::File(file)) => {
                return Err(CliError::Usage(format!(
                    "{device} enforces templates itself: put {} on it with `sshsm template put`, and name its id with -t",
                    output::shown(file)
                )));
            }
            None => return Err(CliError::Usage("name the template: -t ID".into())),
        };
        let mut client = Client::connect(device.open_existing(&listener())?, listener())?;
        let credential = self.credential(device, &mut client)?;
        let mut session = Session::open_with(&mut client, self.authentication_key, &credential)?;
        // Seen now, for the time when the device is away.
        let seen = match &self.fallback {
            Some(_) => readable(session.template(template))?,
            None => None,
        };
        let mut signer = DeviceSigner::new(&mut session, key, template, self.algorithm)?;
        self.insist(&signer)?;
        if let Some(seen) = seen {
            remember(signer.ca_key(), &seen)?;
        }
        used(&mut signer)
    }

    fn key(&self) -> Result<ObjectId, CliError> {
        self.key.ok_or_else(|| CliError::Usage("name the CA key: -s ID".into()))
    }

    fn with_token<T>(
        &self,
        uri: &pkcs11::Uri,
        template: Option<&TemplateName>,
        used: impl FnOnce(&mut dyn Signer) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let key = self.key()?;
        let Some(TemplateName::File(file)) = template else {
            return Err(CliError::Usage(format!(
                "{} stores no templates, this program enforces one: give its file (TOML) with -t",
                uri.identity()
            )));
        };
        let template = template::source::load(file)?;
        let token = TokenKey::open(uri, &mut password::pin)?;
        let name = output::shown(file).to_string();
        let mut signer = TokenSigner::new(token, key, template, name, self.algorithm)?;
        self.insist(&signer)?;
        used(&mut signer)
    }

    /// Uses the token that the configuration names, in place of the devices, if it names one, `--fallback`
    /// asks for it and `failed`, the reasons why each of them could not be opened, shows that none is there.
    /// Otherwise `None`.
    pub(super) fn with_fallback<T>(
        &self,
        failed: &[&CliError],
        used: impl FnOnce(&mut dyn Signer) -> Result<T, CliError>,
    ) -> Option<Result<T, CliError>> {
        let absent = |error: &&CliError| matches!(error, CliError::Open(error) if error.is_absence());
        let (uri, first) = (self.fallback.as_ref()?, failed.first()?);
        if !failed.iter().all(absent) {
            return None;
        }
        if !self.fall_back {
            output::talk(format_args!(
                "the configuration names a fallback, {}, whose template this program enforces: --fallback signs with it",
                uri.identity()
            ));
            return None;
        }
        let template = self.fallback_template.as_ref().or(self.template.as_ref());
        if let Err(error) = self.check_fallback(template) {
            return Some(Err(error));
        }
        output::talk(format_args!(
            "{}\nNO DEVICE ANSWERS: signing with the fallback {}, its template enforced by {}",
            first.line(),
            uri.identity(),
            EnforcedBy::Host
        ));
        Some(self.with_token(uri, template, used))
    }

    /// Refuses a fallback that would sign what the device would not: an attacker who keeps the device away
    /// could force its use.
    fn check_fallback(&self, template: Option<&TemplateName>) -> Result<(), CliError> {
        let (Some(TemplateName::File(file)), Some(public)) = (template, &self.public_key) else {
            // Refused, with its reason, when the token is opened.
            return Ok(());
        };
        let place = seen_template(public.key_data())?;
        let seen = match input::read(&place) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CaError::Fallback(
                    "the device's template was never seen here, so the fallback's cannot be compared with it: \
                     sign once with the device, by an authentication key that may read templates"
                        .into(),
                )
                .into());
            }
            Err(error) => return Err(FileError::read(&place, error).into()),
        };
        let own = template::source::load(file)?;
        let [device, own] = [("of the device, as it was last seen,", &seen[..]), ("of the fallback", &own)]
            .map(|(name, tlv)| template::source::decode(name, tlv));
        let looser = diff::diff(&device?, &own?);
        let looser: Vec<_> = looser
            .iter()
            .filter(|change| change.direction != Direction::Stricter)
            .map(|change| format!("{}: {} on the device, {}", change.rule, change.before, change.after))
            .collect();
        if looser.is_empty() {
            return Ok(());
        }
        Err(CaError::Fallback(format!(
            "the fallback's template {} allows what the device's did not when it was last seen; {}",
            output::shown(file),
            looser.join("; ")
        ))
        .into())
    }

    /// Refuses a CA key that is not the configured one's.
    fn insist(&self, signer: &dyn Signer) -> Result<(), CliError> {
        match &self.public_key {
            Some(wanted) if wanted.key_data() != signer.ca_key() => Err(CaError::Other {
                device: signer.describe(),
                key: signer.key(),
                found: signer.ca_key().fingerprint(ssh_key::HashAlg::Sha256).to_string(),
                wanted: format!(
                    "the configuration requires {}",
                    wanted.fingerprint(ssh_key::HashAlg::Sha256)
                ),
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn credential(&self, device: &DeviceAddress, client: &mut Client) -> Result<Credential, CliError> {
        let mut secret = self.secret.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*secret {
            Secret::PasswordIn(file) => {
                let known = password::read(file, self.authentication_key, &client.describe())?;
                *secret = Secret::Key(AuthenticationKey::from_password(known.as_bytes()));
            }
            Secret::PrivateKeyIn(file) => *secret = Secret::PrivateKey(super::private_key(file)?),
            Secret::Key(_) | Secret::PrivateKey(_) => {}
        }
        match &*secret {
            Secret::PrivateKey(key) => {
                super::known_device(self.device_key.as_deref(), device, client, key.clone())
            }
            Secret::Key(key) => Ok(Credential::Key(key.clone())),
            Secret::PasswordIn(_) | Secret::PrivateKeyIn(_) => Err(PasswordError::None.into()),
        }
    }

    /// Opens the timestamp source.
    ///
    /// # Errors
    /// When none was named, or it cannot be used.
    pub(super) fn timestamp_source(&self) -> Result<Box<dyn TimestampSource + Send>, CliError> {
        let address = self
            .timestamp
            .as_ref()
            .ok_or_else(|| CliError::Usage("name the timestamp authority: --timestamp SOURCE".into()))?;
        timestamp_source::open(address, &self.terms)
    }
}

/// Why a CA key was not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    /// The key is another than the configuration's, or another device's.
    #[error("CA key {key} at {device} is {found}, but {wanted}; nothing was signed with it")]
    Other { device: String, key: String, found: String, wanted: String },
    /// The fallback may not be used.
    #[error("{0}")]
    Fallback(String),
}

impl Failure for CaError {
    fn kind(&self) -> Kind {
        match self {
            Self::Other { .. } => Kind::Failed,
            Self::Fallback(_) => Kind::Refused,
        }
    }
}

impl From<CaError> for CliError {
    fn from(error: CaError) -> Self {
        Self::other(error)
    }
}

/// The template, unless the session may not read it.
fn readable(template: Result<Vec<u8>, ClientError>) -> Result<Option<Vec<u8>>, ClientError> {
    match template {
        Ok(template) => Ok(Some(template)),
        // The signer reports that itself.
        Err(ClientError::Device {
            error: DeviceError::InsufficientPermissions | DeviceError::ObjectNotFound,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the template that a CA key was last seen to sign under is stored.
fn seen_template(ca: &KeyData) -> Result<PathBuf, CliError> {
    let blob = ca.encode_vec().map_err(|error| CliError::because("the CA's public key", error))?;
    let name = format!("templates/{}.tlv", output::hex(&Sha256::digest(&blob)));
    ledger::state_file(&name, "XDG_STATE_HOME or HOME")
}

fn remember(ca: &KeyData, template: &[u8]) -> Result<(), CliError> {
    let place = seen_template(ca)?;
    if input::read(&place).is_ok_and(|seen| seen[..] == *template) {
        return Ok(());
    }
    let failed = |source| FileError::write(&place, source);
    if let Some(folder) = place.parent() {
        files::make_private_directory(folder).map_err(failed)?;
    }
    Ok(files::write_own_secret(&place, template).map_err(failed)?)
}
