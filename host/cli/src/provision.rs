//! Turns a fresh device into a CA token: its own password, a CA key, a template, and an authentication key
//! that can only sign.
//!
//! A device is fresh if it opens with the factory password and holds only that key. The password is replaced
//! first, which lets a later run recognise an interrupted one and continue: objects that are exactly what
//! this would have created are kept, and anything else on the device is refused. Nothing is ever replaced or
//! deleted.
//!
//! Everyone knows the factory password, so anyone may have a session that was opened with it. Provisioning
//! begins and ends as the only client with a session, or fails; if a device does not report its sessions, the
//! record says so.

use std::path::PathBuf;

use serde::Serialize;
use sha2::{Digest, Sha256};
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, DeviceError, Domains, Label, ObjectId,
    ObjectType,
    channel::{AuthenticationKey, Point},
    object::{ListFilter, NewObject, ObjectInfo, Origin},
    option::TemplateMode,
    ssh::template::{Template, TemplateError},
};
use zeroize::Zeroizing;

use crate::{
    authority::{self, CA_CAPABILITIES, FACTORY_PASSWORD, Outcome},
    output::{self, shown},
};
use sshsm_ca::{
    signer::{self, SignerError},
    template::{
        describe,
        file::{self, TemplateFileError},
    },
};
use sshsm_client::{
    Client, ClientError, Credential, Failure, Kind, NewKey, Session, found,
    private_session::{self, Changed, Moment, Opening, PrivateSessionError, SUCCESSOR, Way},
};

/// What `sshsm sign` needs: to sign, and to read the template when it explains a refusal.
pub const SIGNER_CAPABILITIES: Capabilities =
    Capabilities::of(&[Capability::SignSshCertificate, Capability::GetTemplate]);

/// The result to be achieved on the device.
#[derive(Debug)]
pub struct Plan {
    /// Kind of CA key.
    pub algorithm: AsymmetricAlgorithm,
    /// Id of the CA key; without it, the only one that the template names.
    pub ca_key: Option<ObjectId>,
    /// File with the template.
    pub template_file: PathBuf,
    /// Id of the template.
    pub template: ObjectId,
    /// Id of the authentication key that signs.
    pub signer: ObjectId,
    /// Label of everything that is created.
    pub label: Label,
    /// Whether everything that is created may leave the device under a wrap key, as a backup requires.
    pub exportable: bool,
    /// Whether the templates are frozen at the end, so that no other can be put until the device is reset.
    pub freeze: bool,
}

impl Plan {
    /// `capabilities`, and that of leaving the device if requested.
    fn with(&self, capabilities: Capabilities) -> Capabilities {
        match self.exportable {
            true => capabilities.union(Capabilities::of(&[Capability::ExportableUnderWrap])),
            false => capabilities,
        }
    }
}

/// The passwords, and the key, that the device shall have.
pub struct Passwords {
    /// Of authentication key 1, which may do everything.
    pub administrator: Zeroizing<String>,
    /// Of the key that signs.
    pub signer: SignerSecret,
}

/// The secret of the key that signs.
pub enum SignerSecret {
    /// A password.
    Password(Zeroizing<String>),
    /// The private half of this P-256 key, `04 ‖ X ‖ Y`, which the signer keeps.
    PublicKey(Point),
}

impl SignerSecret {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Password(_) => Algorithm::Aes128YubicoAuthentication,
            Self::PublicKey(_) => Algorithm::Ecp256YubicoAuthentication,
        }
    }
}

/// Why a device did not become a CA token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// There is something on the device that is not of this.
    #[error(
        "the device is not fresh; it holds {}: nothing of that was changed",
        .0.join(", ")
    )]
    NotFresh(Vec<String>),
    /// The template does not let the CA key sign.
    #[error("{} lets no CA key {id} sign: write that id into its ca-keys", shown(file))]
    CaKeyNotAllowed {
        /// The template.
        file: PathBuf,
        /// The CA key's id.
        id: ObjectId,
    },
    /// The template names none or several CA keys.
    #[error("{} names {count} CA keys: say with --ca-key which one to create", shown(file))]
    WhichCaKey {
        /// The template.
        file: PathBuf,
        /// How many.
        count: usize,
    },
    /// The file is not a template.
    #[error("{} is malformed", shown(file))]
    Malformed {
        /// The template.
        file: PathBuf,
        /// How.
        source: TemplateError,
    },
    /// The authentication key that signs would be the administrator's.
    #[error("authentication key 0x0001 is the administrator's: give the one that signs another id")]
    SignerId,
    /// The factory's password.
    #[error("a new password is the factory password, which everyone knows")]
    FactoryPassword,
    /// Another client has a session.
    #[error(
        "another client has {} with the device, and may do what its password allows",
        sessions(*count)
    )]
    OthersInSession {
        /// How many sessions.
        count: u8,
    },
    /// The device has no such option.
    #[error("the device cannot freeze its templates")]
    CannotFreeze,
    /// No session is private enough for the new password.
    #[error(transparent)]
    PrivateSession(#[from] PrivateSessionError),
    /// A signer could do everything.
    #[error("both new passwords are the same: a signer could then do everything")]
    SamePassword,
    /// It stopped half-way.
    #[error("provisioning stopped half-way; done so far: {}. Run the same command again to continue", .done.join(", "))]
    Stopped {
        /// What there is now.
        done: Vec<String>,
        /// What stopped it.
        source: Box<ProvisionError>,
    },
    /// The template cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateFileError),
    /// The device refuses a command.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The CA key cannot be shown.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The CA key cannot be written down.
    #[error("cannot encode the CA key")]
    Key(#[from] ssh_key::Error),
}

impl Failure for ProvisionError {
    fn kind(&self) -> Kind {
        match self {
            Self::CaKeyNotAllowed { .. } | Self::WhichCaKey { .. } | Self::CannotFreeze | Self::SignerId => {
                Kind::Usage
            }
            Self::FactoryPassword | Self::SamePassword => Kind::Authentication,
            Self::NotFresh(_) | Self::Malformed { .. } | Self::OthersInSession { .. } | Self::Key(_) => {
                Kind::Failed
            }
            Self::Stopped { source, .. } => source.kind(),
            Self::PrivateSession(error) => error.kind(),
            Self::Template(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Signer(error) => error.kind(),
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotFresh(_) => {
                Some("take another device, or delete everything on this one: `sshsm device reset`")
            }
            Self::CannotFreeze => Some(
                "leave --freeze out; anyone who may put templates in the CA key's domain then decides what it signs",
            ),
            Self::OthersInSession { .. } => Some(
                "unplug the device and plug it in again, or wait half a minute; then run the same command again",
            ),
            Self::Stopped { source, .. } => source.help_half_way(),
            Self::PrivateSession(error) => error.help(),
            Self::Client(error) => error.help(),
            Self::Signer(error) => error.help(),
            Self::CaKeyNotAllowed { .. }
            | Self::WhichCaKey { .. }
            | Self::Malformed { .. }
            | Self::SignerId
            | Self::FactoryPassword
            | Self::SamePassword
            | Self::Template(_)
            | Self::Key(_) => None,
        }
    }
}

impl ProvisionError {
    /// What to do about it if something was done before. [`Self::Stopped`] itself says that running the
    /// command again continues from there.
    fn help_half_way(&self) -> Option<&'static str> {
        match self {
            Self::NotFresh(_) => Some(
                "its contents do not come from this command, and running that again does not change them: delete everything on \
                 the device, `sshsm device reset` (with --auth-key 0xfffe where authentication key 1 is gone), or take another",
            ),
            Self::PrivateSession(error @ PrivateSessionError::HalfChanged { .. }) => error.help(),
            Self::OthersInSession { .. } => self.help(),
            Self::Stopped { source, .. } => source.help_half_way(),
            Self::PrivateSession(
                PrivateSessionError::Remote
                | PrivateSessionError::NoAgreement
                | PrivateSessionError::CannotShow
                | PrivateSessionError::Rights { .. }
                | PrivateSessionError::OtherDevice
                | PrivateSessionError::OtherKey { .. },
            )
            | Self::CaKeyNotAllowed { .. }
            | Self::WhichCaKey { .. }
            | Self::Malformed { .. }
            | Self::SignerId
            | Self::FactoryPassword
            | Self::CannotFreeze
            | Self::SamePassword
            | Self::Template(_)
            | Self::Client(_)
            | Self::Signer(_)
            | Self::Key(_) => None,
        }
    }
}

fn sessions(count: u8) -> String {
    match count {
        1 => "an open session".to_owned(),
        count => format!("{count} open sessions"),
    }
}

/// One thing that was to be done.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What there is now.
    pub what: String,
    /// Whether it was there before.
    pub outcome: Outcome,
}

/// Whether others were in a session with the device, when provisioning began and when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherSessions {
    /// There was none.
    None,
    /// The device does not report it: a YubiHSM 2, or a strict device.
    NotTold,
}

/// How the new password was sent to a device that had the factory password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SentIn {
    /// In a session under the factory's password, which a recording opens.
    FactorySession,
    /// In a session that no recording can decrypt, with the device whose public key was known beforehand.
    PrivateSession,
    /// In a session that no recording opens, with whatever answered.
    PrivateSessionWithUnknownDevice,
}

/// The final state of the device, without secrets.
#[derive(Debug, Serialize)]
pub struct Record {
    /// When this run ended, in RFC 3339's form.
    pub time: String,
    /// The version of this program.
    pub sshsm: &'static str,
    /// The device's address, in the form of `--device`.
    pub device: String,
    /// Its serial number.
    pub serial: u32,
    /// Its firmware's version, as YubiHSM 2 clients see it.
    pub version: String,
    /// The steps taken.
    pub steps: Vec<Step>,
    /// The CA key.
    pub ca_key: CaKey,
    /// The template.
    pub template: StoredTemplate,
    /// Whether templates may still be added and deleted: `open` or `frozen`; null if the device has no such
    /// option.
    pub templates: Option<&'static str>,
    /// Whether others were in a session.
    pub other_sessions: OtherSessions,
    /// How this run sent the administrator's password; null if an earlier run had sent it, and this one only
    /// found it there or continued.
    pub new_password: Option<SentIn>,
    /// Id of the authentication key that may do everything.
    pub administrator: u16,
    /// The authentication key that signs.
    pub signer: Signer,
}

/// The CA key of a [`Record`].
#[derive(Debug, Serialize)]
pub struct CaKey {
    /// Its id.
    pub id: u16,
    /// Its kind.
    pub algorithm: String,
    /// Its line for servers.
    pub public_key: String,
    /// Its fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// The template of a [`Record`].
#[derive(Debug, Serialize)]
pub struct StoredTemplate {
    /// Its id.
    pub id: u16,
    /// SHA-256 of its bytes on the device, in hexadecimal.
    pub sha256: String,
    /// What it allows, in words.
    pub allows: String,
}

/// The authentication key that signs, of a [`Record`].
#[derive(Debug, Serialize)]
pub struct Signer {
    /// Its id.
    pub id: u16,
    /// All its capabilities.
    pub capabilities: Vec<&'static str>,
}

/// An object that the device is to hold, all but its content.
struct Planned {
    object_type: ObjectType,
    id: ObjectId,
    object: NewObject,
    origin: Origin,
}

impl Planned {
    fn is(&self, info: &ObjectInfo) -> bool {
        let NewObject { label, domains, capabilities, algorithm, .. } = self.object;
        (info.object_type, info.id) == (self.object_type, self.id)
            && (info.label, info.domains, info.algorithm) == (label, domains, algorithm)
            && (info.capabilities, info.delegated_capabilities) == (capabilities, Capabilities::NONE)
            && info.origin == self.origin
    }
}

/// A plan that was checked before the device is asked for anything.
struct Checked<'p> {
    plan: &'p Plan,
    ca_key: ObjectId,
    tlv: Vec<u8>,
    allows: String,
    signer_algorithm: Algorithm,
}

impl<'p> Checked<'p> {
    fn new(plan: &'p Plan, passwords: &Passwords) -> Result<Self, ProvisionError> {
        let file = || plan.template_file.clone();
        let tlv = file::load(&plan.template_file)?;
        let template =
            Template::decode(&tlv).map_err(|source| ProvisionError::Malformed { file: file(), source })?;
        let named: Vec<u16> = template.ca_keys.iter().collect();
        let ca_key = match (plan.ca_key, named.as_slice()) {
            (Some(id), _) => id,
            (None, &[only]) => {
                ObjectId::new(only).map_err(|_| ProvisionError::WhichCaKey { file: file(), count: 0 })?
            }
            (None, several) => {
                return Err(ProvisionError::WhichCaKey { file: file(), count: several.len() });
            }
        };
        if !template.ca_keys.contains(ca_key) {
            return Err(ProvisionError::CaKeyNotAllowed { file: file(), id: ca_key });
        }
        if plan.signer == ObjectId::DEFAULT_AUTHENTICATION_KEY {
            return Err(ProvisionError::SignerId);
        }
        let signer = match &passwords.signer {
            SignerSecret::Password(password) => Some(password),
            SignerSecret::PublicKey(_) => None,
        };
        if [Some(&passwords.administrator), signer]
            .iter()
            .flatten()
            .any(|new| new.as_str() == FACTORY_PASSWORD)
        {
            return Err(ProvisionError::FactoryPassword);
        }
        if signer == Some(&passwords.administrator) {
            return Err(ProvisionError::SamePassword);
        }
        let allows = describe(&template);
        Ok(Self { plan, ca_key, tlv, allows, signer_algorithm: passwords.signer.algorithm() })
    }

    /// Whether the plan can be carried out on the device in its present state, which holds at most `planned`
    /// and the key `temporary`.
    fn begin(
        &self,
        session: &mut Session<'_>,
        planned: &[Planned],
        temporary: Option<ObjectId>,
    ) -> Result<(), ProvisionError> {
        refuse_others(session)?;
        if self.plan.freeze && templates(session)?.is_none() {
            return Err(ProvisionError::CannotFreeze);
        }
        refuse_strangers(session, planned, temporary)
    }

    fn objects(&self) -> [Planned; 3] {
        let plan = self.plan;
        let Plan { algorithm, template, signer, label, .. } = *plan;
        let planned = |object_type, id, algorithm, capabilities, origin| Planned {
            object_type,
            id,
            object: authority::object(id, label, algorithm, capabilities),
            origin,
        };
        let ca_key = algorithm.algorithm();
        let authentication = self.signer_algorithm;
        [
            planned(
                ObjectType::AsymmetricKey,
                self.ca_key,
                ca_key,
                plan.with(CA_CAPABILITIES),
                Origin::GENERATED,
            ),
            planned(
                ObjectType::Template,
                template,
                Algorithm::TemplateSsh,
                plan.with(Capabilities::NONE),
                Origin::IMPORTED,
            ),
            planned(
                ObjectType::AuthenticationKey,
                signer,
                authentication,
                plan.with(SIGNER_CAPABILITIES),
                Origin::IMPORTED,
            ),
        ]
    }
}

/// Turns the device at the end of `client` into a CA token; `way` is how the new password reaches a device
/// that has the factory password.
///
/// # Errors
/// [`ProvisionError`]; [`ProvisionError::Stopped`], with the steps taken, if something was done before.
pub fn run(
    client: &mut Client,
    plan: &Plan,
    way: Way,
    passwords: &Passwords,
) -> Result<Record, ProvisionError> {
    let checked = Checked::new(plan, passwords)?;
    let mut steps = Vec::new();
    carry_out(client, &checked, way, passwords, &mut steps).map_err(|source| match steps.is_empty() {
        true => source,
        false => ProvisionError::Stopped {
            done: steps.into_iter().map(|step| step.what).collect(),
            source: Box::new(source),
        },
    })
}

fn carry_out(
    client: &mut Client,
    checked: &Checked<'_>,
    way: Way,
    passwords: &Passwords,
    steps: &mut Vec<Step>,
) -> Result<Record, ProvisionError> {
    let Checked { plan, ca_key, tlv, allows, signer_algorithm } = checked;
    let Plan { algorithm, template, signer, label, .. } = **plan;
    let (device, identity) = (client.describe(), client.identity().clone());
    let administrator = ObjectId::DEFAULT_AUTHENTICATION_KEY;

    let replaced = format!("the factory's password of authentication key {administrator} replaced");
    let (mut session, password) = administer(client, checked, way, &passwords.administrator, steps)?;
    private_session::remove_left_behind(&mut session)?;
    let new_password = match password {
        Password::Found => {
            // An earlier run came this far.
            checked.begin(&mut session, &checked.objects(), None)?;
            steps.push(Step { what: replaced, outcome: Outcome::Kept });
            None
        }
        Password::Replaced(sent) => {
            // What is there now was created by others while the password was the factory's.
            if let Err(error) = checked.begin(&mut session, &[], None) {
                // The next run would mistake it for what an earlier one created, unless it finds the factory
                // password.
                let undone = match &error {
                    ProvisionError::Client(_) => false,
                    _ => give_back(&mut session, administrator),
                };
                if !undone {
                    steps.push(Step { what: replaced, outcome: Outcome::Made });
                }
                return Err(error);
            }
            steps.push(Step { what: replaced, outcome: Outcome::Made });
            sent
        }
    };
    let mut step = |what: String, outcome| steps.push(Step { what, outcome });

    let outcome =
        authority::ensure_ca_key(&mut session, *ca_key, label, algorithm, plan.with(CA_CAPABILITIES))?;
    step(format!("CA key {ca_key} ({algorithm}) generated"), outcome);

    match authority::ensure_template(&mut session, template, label, plan.with(Capabilities::NONE), tlv)? {
        Outcome::Differs => {
            return Err(ProvisionError::NotFresh(vec![format!("another template {template}")]));
        }
        outcome => step(format!("template {template} put"), outcome),
    }

    let outcome = match found(session.object_info(signer, ObjectType::AuthenticationKey))? {
        Some(_) => Outcome::Kept,
        None => {
            let object = authority::object(signer, label, *signer_algorithm, plan.with(SIGNER_CAPABILITIES));
            match &passwords.signer {
                SignerSecret::Password(password) => {
                    let key = AuthenticationKey::from_password(password.as_bytes());
                    session.put_authentication_key(&object, Capabilities::NONE, &key)?;
                }
                SignerSecret::PublicKey(point) => {
                    let [_, coordinates @ ..] = point;
                    session.put_authentication_key(
                        &object,
                        Capabilities::NONE,
                        NewKey::Public(coordinates),
                    )?;
                }
            }
            Outcome::Made
        }
    };
    step(format!("authentication key {signer} for signing put"), outcome);

    // The signer sees what was created: this shows that its password, its domains and the CA key are right.
    // With a private key that is not here, at least its public half's domains and rights were compared.
    let mut session = match &passwords.signer {
        SignerSecret::Password(password) => {
            session.close()?;
            Session::open(client, signer, password)?
        }
        SignerSecret::PublicKey(_) => session,
    };
    let (_, key) = signer::public_key(&mut session, *ca_key)?;
    if session.template(template)? != *tlv {
        return Err(ProvisionError::NotFresh(vec![format!("another template {template}")]));
    }
    session.close()?;

    let mut session = Session::open(client, administrator, &passwords.administrator)?;
    let mut templates = templates(&mut session)?;
    if plan.freeze {
        let outcome = match templates {
            Some(TemplateMode::Frozen) => Outcome::Kept,
            _ => {
                session.freeze_templates()?;
                templates = Some(TemplateMode::Frozen);
                Outcome::Made
            }
        };
        step("templates frozen until the device is reset".into(), outcome);
    }
    // Clients with the factory password lost their sessions when it was changed; no other client has one.
    let other_sessions = refuse_others(&mut session)?;
    // Nor did anyone add something while the password was still the factory's.
    refuse_strangers(&mut session, &checked.objects(), None)?;
    session.close()?;
    let public_key = PublicKey::new(key, label.to_string());
    Ok(Record {
        time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        sshsm: env!("CARGO_PKG_VERSION"),
        device,
        serial: identity.serial,
        version: identity.version.to_string(),
        steps: std::mem::take(steps),
        ca_key: CaKey {
            id: ca_key.get(),
            algorithm: algorithm.to_string(),
            fingerprint: public_key.fingerprint(HashAlg::Sha256).to_string(),
            public_key: public_key.to_openssh()?.trim_end().to_owned(),
        },
        template: StoredTemplate {
            id: template.get(),
            sha256: Sha256::digest(tlv).iter().map(|byte| format!("{byte:02x}")).collect(),
            allows: allows.clone(),
        },
        templates: templates.map(TemplateMode::name),
        other_sessions,
        new_password,
        administrator: administrator.get(),
        signer: Signer {
            id: signer.get(),
            capabilities: plan.with(SIGNER_CAPABILITIES).iter().map(|capability| capability.name()).collect(),
        },
    })
}

/// Restores the factory password of the administrator's key, on a device that cannot be provisioned; returns
/// whether it has it now.
fn give_back(session: &mut Session<'_>, administrator: ObjectId) -> bool {
    let factory = AuthenticationKey::from_password(FACTORY_PASSWORD.as_bytes());
    let undone = session.change_authentication_key(administrator, &factory);
    if let Err(error) = &undone {
        output::talk(format_args!(
            "WARNING: authentication key {administrator} has the new password, and not the factory's again ({error}): do not \
             run the same command again, but reset the device"
        ));
    }
    undone.is_ok()
}

/// The origin of the administrator's password.
enum Password {
    /// It was there.
    Found,
    /// This run replaced the factory password with it; how it was sent, unless an earlier run had sent it.
    Replaced(Option<SentIn>),
}

/// Opens a session with authentication key 1, which then has the new password. If that fails half-way,
/// `steps` has the steps taken.
fn administer<'c>(
    client: &'c mut Client,
    checked: &Checked<'_>,
    way: Way,
    password: &Zeroizing<String>,
    steps: &mut Vec<Step>,
) -> Result<(Session<'c>, Password), ProvisionError> {
    let key = ObjectId::DEFAULT_AUTHENTICATION_KEY;
    if let Way::Closed(reason @ (PrivateSessionError::OtherDevice | PrivateSessionError::CannotShow)) = way {
        return Err(reason.into());
    }
    let new = AuthenticationKey::from_password(password.as_bytes());
    let (mut moment, mut begun) = (Moment::Open, false);
    let check = |session: &mut Session<'_>, now: Moment| {
        moment = now;
        checked.begin(session, &[], now.temporary())
    };
    let replaced = match Session::open_with_key(client, key, &new).map(drop) {
        Ok(()) => return Ok((Session::open_with_key(client, key, &new)?, Password::Found)),
        // Perhaps a run was interrupted when the old key was gone and the new one not there yet.
        Err(ClientError::UnknownAuthenticationKey(_)) => {
            private_session::resume(client, key, &new, check).map(|()| None)
        }
        Err(ClientError::WrongPassword(_)) => match way {
            Way::Private { device, known } => {
                begun = true;
                let credential = Credential::Password(Zeroizing::new(FACTORY_PASSWORD.to_owned()));
                let opening = Opening { key, credential, device, known };
                opening.change(client, &new, check).map(|changed| match changed {
                    Changed::Sent if known => Some(SentIn::PrivateSession),
                    Changed::Sent => Some(SentIn::PrivateSessionWithUnknownDevice),
                    Changed::Resumed => None,
                })
            }
            Way::Open | Way::Closed(_) => {
                let (session, _) = authority::administer(client, None, |session| {
                    if let Way::Closed(reason) = way {
                        return Err(reason.into());
                    }
                    private_session::remove_left_behind(session)?;
                    checked.begin(session, &[], None).map(|()| password.clone())
                })?;
                return Ok((session, Password::Replaced(Some(SentIn::FactorySession))));
            }
        },
        Err(error) => return Err(error.into()),
    };
    match replaced {
        Ok(sent) => Ok((Session::open_with_key(client, key, &new)?, Password::Replaced(sent))),
        Err(error) => {
            let half =
                matches!(error, ProvisionError::PrivateSession(PrivateSessionError::HalfChanged { .. }));
            if half || moment == Moment::Between {
                let what = match moment {
                    Moment::Between => format!(
                        "authentication key {SUCCESSOR} put, with the new password, and authentication key {key} deleted"
                    ),
                    Moment::Open | Moment::Private(_) => {
                        format!("authentication key {SUCCESSOR}, with the new password, possibly put")
                    }
                };
                steps.push(Step { what, outcome: if begun { Outcome::Made } else { Outcome::Kept } });
            }
            Err(error)
        }
    }
}

/// The option's value; `None` if there is none.
fn templates(session: &mut Session<'_>) -> Result<Option<TemplateMode>, ClientError> {
    match session.templates() {
        Ok(mode) => Ok(Some(mode)),
        Err(ClientError::Device { error: DeviceError::InvalidData, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a device that has other sessions than this one.
fn refuse_others(session: &mut Session<'_>) -> Result<OtherSessions, ProvisionError> {
    match session.device_status() {
        Ok(status) => match status.sessions.saturating_sub(1) {
            0 => Ok(OtherSessions::None),
            count => Err(ProvisionError::OthersInSession { count }),
        },
        Err(ClientError::Device { error: DeviceError::InvalidCommand, .. }) => Ok(OtherSessions::NotTold),
        Err(error) => Err(error.into()),
    }
}

/// Refuses a device that holds anything but authentication key 1, the planned objects, and the key
/// `temporary`.
fn refuse_strangers(
    session: &mut Session<'_>,
    planned: &[Planned],
    temporary: Option<ObjectId>,
) -> Result<(), ProvisionError> {
    let mut strangers = Vec::new();
    for entry in session.list_objects(&ListFilter::default())? {
        let info = session.object_info(entry.id, entry.object_type)?;
        let administrator = info.object_type == ObjectType::AuthenticationKey
            && info.id == ObjectId::DEFAULT_AUTHENTICATION_KEY
            && (info.domains, info.capabilities) == (Domains::ALL, Capabilities::ALL);
        let temporary = private_session::is_temporary(&info) && Some(info.id) == temporary;
        if !administrator && !temporary && !planned.iter().any(|planned| planned.is(&info)) {
            strangers.push(format!("{} {}", info.object_type, info.id));
        }
    }
    if strangers.is_empty() { Ok(()) } else { Err(ProvisionError::NotFresh(strangers)) }
}
