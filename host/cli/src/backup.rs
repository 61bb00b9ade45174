//! A device's objects in a file, for import into another device; `docs/backup.md` has the format.
//!
//! Every object that its device may export leaves under an AES-256 wrap key that is generated here, is on the
//! device only during the backup, and is then split into shares ([`crate::shares`]): the file contains no
//! secrets. The file names the objects that the device does not export. Restoring imports and never replaces:
//! for an object that already exists it reports whether it is the same.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64ct::{Base64, Encoding};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ssh_key::PublicKey;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, DeviceError, Domains, Label, ObjectId,
    ObjectType,
    object::{ListFilter, NewObject, ObjectInfo, Origin},
    ssh::template::Template,
    wrapped::{NONCE_LENGTH, TAG_LENGTH, WrappedObject},
};
use zeroize::Zeroizing;

use crate::{
    output::shown,
    shares::{self, BackupId, Key, Scheme, Share, ShareError},
};
use sshsm_ca::{device_key, input};
use sshsm_client::{
    ClientError, ExchangeError, Failure, Identity, Kind, Session, found, interruptible::Stop,
    private_session::is_temporary,
};

/// The format's name in a backup file.
pub const FORMAT: &str = "sshsm-backup-1";
/// More than all objects of a device take, in bytes.
const MAX_FILE_LENGTH: usize = 4 * 1024 * 1024;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The device lets nothing go.
    #[error(
        "the device lets no object go: none of the {0} that this authentication key sees is exportable-under-wrap"
    )]
    NothingExportable(usize),
    /// The file cannot be read.
    #[error("cannot read {}", shown(file))]
    Read {
        /// The backup.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a backup, or was changed.
    #[error("{} is not a backup, or is damaged", shown(file))]
    Malformed {
        /// The backup.
        file: PathBuf,
        /// The defect.
        source: Malformed,
    },
    /// The shares make another key, or the backup was changed.
    #[error(
        "the key that the shares make is not that of the backup: one of them is wrong, or the backup was changed after it \
         was made; with one right share more than it takes, a wrong one is named"
    )]
    NotAuthentic,
    /// The authentication key may not bring these objects in.
    #[error("authentication key {key} may not import {}: it lacks their domains, or may not delegate their capabilities", .objects.join(", "))]
    NotPermitted {
        /// The session's.
        key: ObjectId,
        /// The objects that it may not import.
        objects: Vec<String>,
    },
    /// Other objects had the names of some of the backup's.
    #[error("the device has objects that differ from the backup's: {}; they were not changed", .0.join(", "))]
    Different(Vec<String>),
    /// It stopped half-way.
    #[error(
        "restoring stopped half-way; imported so far: {}. Run the same command again to continue; {}",
        .done.join(", "),
        wrap_key.after_an_error()
    )]
    Stopped {
        /// The imported objects.
        done: Vec<String>,
        /// What became of the wrap key on the device.
        wrap_key: WrapKey,
        /// What stopped it.
        source: Box<ClientError>,
    },
    /// A share is wrong, or there are too few.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The device refuses a command.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was told to stop.
    #[error("{}: {}", source, wrap_key.after_an_error())]
    WrapKey {
        /// What became of the wrap key on the device.
        wrap_key: WrapKey,
        /// What stopped it.
        source: Box<ClientError>,
    },
    /// The id does not fit a label.
    #[error("the backup's id does not fit a label")]
    Label,
    /// The operating system gave no key.
    #[error("no random numbers from the operating system: {0}")]
    Entropy(getrandom::Error),
    /// The backup cannot be written down.
    #[error("cannot encode the backup")]
    Encode(#[from] serde_json::Error),
}

impl Failure for BackupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => source.into(),
            Self::NotPermitted { .. } => Kind::Refused,
            Self::Stopped { source, .. } | Self::WrapKey { source, .. } => source.kind(),
            Self::Share(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::NothingExportable(_)
            | Self::Malformed { .. }
            | Self::NotAuthentic
            | Self::Different(_)
            | Self::Label
            | Self::Entropy(_)
            | Self::Encode(_) => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::NothingExportable(_) => Some(
                "make keys that shall have a backup with --exportable; those that are there stay as they are",
            ),
            Self::NotPermitted { .. } => Some("name another authentication key with --auth-key"),
            Self::Different(_) => Some("restore onto another device, or delete them: `sshsm key delete`"),
            Self::Share(error) => error.help(),
            Self::Client(error) => error.help(),
            Self::Read { .. }
            | Self::Malformed { .. }
            | Self::NotAuthentic
            | Self::Stopped { .. }
            | Self::WrapKey { .. }
            | Self::Label
            | Self::Entropy(_)
            | Self::Encode(_) => None,
        }
    }
}

/// Why a file is not a valid backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It is not the JSON of a backup.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Another format, or a later one.
    #[error("its format is {0:?}; this program reads {FORMAT:?}")]
    Format(String),
    /// Its content does not match the checksum.
    #[error("its checksum does not fit its content")]
    Checksum,
    /// A field has an impossible value.
    #[error("{0} makes no sense")]
    Field(&'static str),
}

/// A backup file: JSON, in this order of fields.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    backup: Backup,
    /// SHA-256 of `backup` as compact JSON, in hexadecimal.
    sha256: String,
    /// HMAC-SHA256 of the same bytes, in hexadecimal, under a key derived from the wrap key.
    hmac_sha256: String,
}

/// The contents of a backup file; no secret that can be read without the shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Its name, which the shares have too.
    pub id: String,
    /// When it was made, in RFC 3339's form.
    pub created: String,
    /// The device it was made from.
    pub device: Device,
    /// How many shares make its key.
    pub threshold: u8,
    /// How many shares there are.
    pub shares: u8,
    /// SHA-256 of each share, in hexadecimal: [`Share::commitment`]. Absent from the files of earlier
    /// programs: for those a forged share is detected only among more shares than needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub share_commitments: Vec<String>,
    /// The objects that it restores.
    pub objects: Vec<Exported>,
    /// The objects that the authentication key saw and the device did not export.
    pub not_exported: Vec<NotExported>,
}

/// The device of a [`Backup`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its serial number.
    pub serial: u32,
    /// Its firmware's version, as YubiHSM 2 clients see it.
    pub version: String,
}

/// An object, all but its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Its id.
    pub id: u16,
    /// Its type.
    #[serde(rename = "type")]
    pub object_type: String,
    /// Its algorithm.
    pub algorithm: String,
    /// Its label.
    pub label: String,
    /// The domains that see it.
    pub domains: Vec<u16>,
    /// Its capabilities: 64 bits in hexadecimal, as on the wire.
    pub capabilities: String,
    /// The capabilities that it may delegate: 64 bits in hexadecimal, as on the wire.
    pub delegated_capabilities: String,
    /// The origin of its content: `generated` or `imported`.
    pub origin: String,
}

/// An object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// Its description.
    pub object: Description,
    /// Its OpenSSH public key, if it has one.
    pub public_key: Option<String>,
    /// SHA-256, in hexadecimal, of the content that the device reveals (public key, template, opaque data).
    pub content_sha256: Option<String>,
    /// The answer to EXPORT WRAPPED, in base64.
    pub wrapped: String,
}

/// An object that is not in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotExported {
    /// Its description.
    pub object: Description,
    /// Why the device did not let it go.
    pub reason: String,
}

impl Description {
    fn new(info: &ObjectInfo) -> Self {
        // Without the mark of an object that came in wrapped, as it has after each restoring.
        let origin = Origin::from_code(info.origin.code() & 0x0f);
        Self {
            id: info.id.get(),
            object_type: info.object_type.name().into(),
            algorithm: info.algorithm.name().into(),
            label: info.label.to_string(),
            domains: info.domains.iter().collect(),
            capabilities: format!("{:016x}", info.capabilities.bits()),
            delegated_capabilities: format!("{:016x}", info.delegated_capabilities.bits()),
            origin: origin.unwrap_or(info.origin).name().into(),
        }
    }

    /// Type and id, for people.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {:#06x}", self.object_type, self.id)
    }

    /// Its capabilities.
    #[must_use]
    pub fn capabilities(&self) -> Option<Capabilities> {
        capabilities(&self.capabilities)
    }

    fn object(&self) -> Option<(ObjectId, ObjectType)> {
        Some((ObjectId::new(self.id).ok()?, ObjectType::from_name(&self.object_type)?))
    }

    fn domains(&self) -> Option<Domains> {
        self.domains
            .iter()
            .try_fold(Domains::NONE, |all, &domain| Some(all.union(Domains::single(domain).ok()?)))
    }

    /// Whether a session that may pass on `delegated`, in `domains`, may bring it in.
    fn permitted(&self, domains: Domains, delegated: Capabilities) -> bool {
        let within = |text: &str| capabilities(text).is_some_and(|some| some.is_subset_of(delegated));
        self.domains().is_some_and(|own| own.is_subset_of(domains))
            && within(&self.capabilities)
            && within(&self.delegated_capabilities)
    }

    fn check(&self) -> Result<(), Malformed> {
        self.object().ok_or(Malformed::Field("an object's id or type"))?;
        Algorithm::from_name(&self.algorithm).ok_or(Malformed::Field("an object's algorithm"))?;
        self.domains().ok_or(Malformed::Field("an object's domains"))?;
        let known = self.capabilities().is_some() && capabilities(&self.delegated_capabilities).is_some();
        known.then_some(()).ok_or(Malformed::Field("an object's capabilities"))
    }
}

fn capabilities(text: &str) -> Option<Capabilities> {
    u64::from_str_radix(text, 16).ok().map(Capabilities::from_bits)
}

impl Exported {
    fn wrapped(&self) -> Result<Vec<u8>, Malformed> {
        const SHORTEST: usize = NONCE_LENGTH + WrappedObject::HEADER_LENGTH + TAG_LENGTH;
        let wrapped = Base64::decode_vec(&self.wrapped).ok().filter(|wrapped| wrapped.len() > SHORTEST);
        wrapped.ok_or(Malformed::Field("a wrapped object"))
    }
}

impl Backup {
    /// The backup in the file at `path`, whose checksum is right; whether it is authentic can be checked only
    /// with its key.
    ///
    /// # Errors
    /// [`BackupError::Read`], [`BackupError::Malformed`].
    pub fn load(path: &Path) -> Result<Stored, BackupError> {
        let file = || path.to_owned();
        let bytes = input::read_at_most(path, MAX_FILE_LENGTH)
            .map_err(|source| BackupError::Read { file: file(), source })?;
        Self::parse(&bytes).map_err(|source| BackupError::Malformed { file: file(), source })
    }

    fn parse(bytes: &[u8]) -> Result<Stored, Malformed> {
        let document: Document = serde_json::from_slice(bytes)?;
        if document.format != FORMAT {
            return Err(Malformed::Format(document.format));
        }
        let backup = document.backup;
        if ![0, usize::from(backup.shares)].contains(&backup.share_commitments.len()) {
            return Err(Malformed::Field("its description of the shares"));
        }
        if hexadecimal(&Sha256::digest(serde_json::to_vec(&backup)?)) != document.sha256 {
            return Err(Malformed::Checksum);
        }
        let id = BackupId::parse(&backup.id).ok_or(Malformed::Field("its id"))?;
        let scheme = Scheme::new(backup.threshold, backup.shares);
        let scheme = scheme.map_err(|_| Malformed::Field("its number of shares"))?;
        for object in &backup.objects {
            object.object.check()?;
            object.wrapped()?;
        }
        backup.not_exported.iter().try_for_each(|object| object.object.check())?;
        Ok(Stored { backup, id, scheme, mac: document.hmac_sha256 })
    }

    /// The file's content.
    ///
    /// # Errors
    /// [`BackupError::Encode`].
    pub fn document(&self, key: &Key) -> Result<Vec<u8>, BackupError> {
        let body = serde_json::to_vec(self)?;
        let mac = mac(key, &self.id)?.chain_update(&body).finalize();
        let document = Document {
            format: FORMAT.into(),
            backup: self.clone(),
            sha256: hexadecimal(&Sha256::digest(&body)),
            hmac_sha256: hexadecimal(&mac.into_bytes()),
        };
        let mut bytes = serde_json::to_vec_pretty(&document)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// A backup as it was in its file.
#[derive(Debug)]
pub struct Stored {
    /// Its contents.
    pub backup: Backup,
    /// Its name.
    pub id: BackupId,
    /// What its shares are.
    pub scheme: Scheme,
    mac: String,
}

impl Stored {
    /// Whether a share is one of the original ones, as far as the backup reveals.
    ///
    /// # Errors
    /// [`ShareError::Foreign`], [`ShareError::OtherScheme`], [`ShareError::Forged`].
    pub fn check_share(&self, share: &Share) -> Result<(), ShareError> {
        shares::fits(share, &[], self.id, self.scheme)?;
        let committed = &self.backup.share_commitments;
        if committed.is_empty() {
            return Ok(());
        }
        let place = usize::from(share.number()).checked_sub(1);
        let committed = place.and_then(|place| committed.get(place)).and_then(|text| base16(text));
        if committed.is_some_and(|committed| committed == share.commitment()) {
            Ok(())
        } else {
            Err(ShareError::Forged(share.number()))
        }
    }

    /// The key that `shares` make, if it is this backup's and the backup is unchanged; and the numbers of
    /// shares that do not belong to it, if there are enough without them.
    ///
    /// # Errors
    /// [`BackupError::Share`], [`BackupError::NotAuthentic`].
    pub fn key(&self, shares: &[Share]) -> Result<(Key, Vec<u8>), BackupError> {
        if shares.is_empty() {
            return Err(ShareError::TooFew { needed: self.scheme.threshold(), given: 0 }.into());
        }
        for share in shares {
            self.check_share(share)?;
        }
        let body = serde_json::to_vec(&self.backup)?;
        let given = base16(&self.mac).ok_or(BackupError::NotAuthentic)?;
        let authentic = |key: &Key| {
            mac(key, &self.backup.id).is_ok_and(|mac| mac.chain_update(&body).verify_slice(&given).is_ok())
        };
        shares::recover(shares, authentic)?.ok_or(BackupError::NotAuthentic)
    }
}

/// What authenticates a backup; the wrap key itself is never used for two things.
fn mac(key: &Key, backup: &str) -> Result<Hmac<Sha256>, BackupError> {
    let mut derived = Zeroizing::new([0; 64]); // a block of SHA-256
    let info = [b"sshsm backup 1 authentication ", backup.as_bytes()].concat();
    let expanded = Hkdf::<Sha256>::new(None, key.as_slice()).expand(&info, derived.as_mut());
    expanded.map_err(|_| BackupError::NotAuthentic)?;
    Ok(Hmac::new((&*derived).into()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base16(text: &str) -> Option<Vec<u8>> {
    let digit = |at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The rights that the session's authentication key may use on other objects.
struct Rights {
    key: ObjectId,
    domains: Domains,
    delegated: Capabilities,
}

impl Rights {
    fn of(session: &mut Session<'_>, key: ObjectId) -> Result<Self, ClientError> {
        let info = session.object_info(key, ObjectType::AuthenticationKey)?;
        Ok(Self { key, domains: info.domains, delegated: info.delegated_capabilities })
    }

    /// Keeps a wrap key on the device, with a single capability, while `work` runs. Its id is chosen
    /// beforehand, so that it can be deleted even if the answer to its creation was lost.
    fn with_wrap_key<T>(
        &self,
        session: &mut Session<'_>,
        backup: &str,
        capability: Capability,
        key: &Key,
        keep: bool,
        work: impl FnOnce(&mut Session<'_>, ObjectId) -> Result<T, ClientError>,
    ) -> Result<(Result<T, ClientError>, WrapKey), BackupError> {
        let kind = if keep { KEPT } else { UNFINISHED };
        let mut object = NewObject {
            id: None,
            label: Label::new(&format!("{kind}{backup}")).map_err(|_| BackupError::Label)?,
            domains: self.domains,
            capabilities: Capabilities::of(&[capability]),
            algorithm: Algorithm::Aes256CcmWrap,
        };
        let id = loop {
            let id = sshsm_client::random_id()?;
            object.id = Some(id);
            match session.put_wrap_key(&object, self.delegated, key.as_slice()) {
                Ok(id) => break id,
                // Perhaps in a domain that this session does not see.
                Err(ClientError::Device { error: DeviceError::ObjectExists, .. }) => {}
                Err(error) if error.ends_session() => {
                    return Ok((Err(error), leave(session, id, false)));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let done = work(session, id);
        let wrap_key = leave(session, id, keep && done.is_ok());
        Ok((done, wrap_key))
    }
}

/// The prefix of the label of a wrap key that stays on the device, and of one that does not unless it is left
/// behind.
const KEPT: &str = "sshsm backup ";
const UNFINISHED: &str = "sshsm unfinished ";

/// Deletes the wrap keys left by earlier runs that were interrupted.
///
/// # Errors
/// The device's, except for a refusal to delete one.
pub fn remove_left_behind(session: &mut Session<'_>) -> Result<Vec<(ObjectId, WrapKey)>, ClientError> {
    let filter = ListFilter { object_type: Some(ObjectType::WrapKey), ..ListFilter::default() };
    let mut left = Vec::new();
    for entry in session.list_objects(&filter)? {
        let Some(info) = found(session.object_info(entry.id, entry.object_type))? else { continue };
        if info.label.to_string().starts_with(UNFINISHED) {
            left.push((entry.id, leave(session, entry.id, false)));
        }
    }
    Ok(left)
}

/// What became of the wrap key on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum WrapKey {
    /// It has been deleted.
    Deleted,
    /// It is still there, as was asked for.
    Kept {
        /// Its id.
        id: u16,
    },
    /// It is still there, because the device refused to delete it.
    NotDeleted {
        /// Its id.
        id: u16,
        /// The device's answer.
        reason: String,
    },
}

impl WrapKey {
    fn after_an_error(&self) -> String {
        match self {
            Self::Deleted => "its wrap key is no longer on the device".into(),
            Self::Kept { id } => format!("its wrap key {id:#06x} is still on the device"),
            Self::NotDeleted { id, reason } => format!(
                "its wrap key {id:#06x} may still be on the device ({reason}); the next backup deletes it, or `sshsm key \
                 delete {id:#06x} --type wrap-key`"
            ),
        }
    }
}

fn leave(session: &mut Session<'_>, id: ObjectId, keep: bool) -> WrapKey {
    if keep {
        return WrapKey::Kept { id: id.get() };
    }
    match session.delete_surely(id, ObjectType::WrapKey) {
        Ok(()) => WrapKey::Deleted,
        Err(error) => WrapKey::NotDeleted { id: id.get(), reason: error.to_string() },
    }
}

/// A new backup, and what opens it.
pub struct Created {
    /// The contents of the file.
    pub backup: Backup,
    /// The file's content.
    pub document: Vec<u8>,
    /// The shares of its key, each for a different person.
    pub shares: Vec<Share>,
    /// What became of the key on the device.
    pub wrap_key: WrapKey,
}

/// Exports every object that the device may export; `authentication_key` is the session's.
///
/// # Errors
/// [`BackupError`]; the device then holds what it held before.
pub fn create(
    session: &mut Session<'_>,
    identity: &Identity,
    authentication_key: ObjectId,
    scheme: Scheme,
    keep_wrap_key: bool,
    stop: &Stop,
) -> Result<Created, BackupError> {
    let id = BackupId::random()?;
    let mut key = Key::default();
    getrandom::fill(key.as_mut()).map_err(BackupError::Entropy)?;
    // Before the device is asked for anything: a key that cannot be shared opens nothing.
    let shares = shares::split(&key, id, scheme)?;

    let mut entries = session.list_objects(&ListFilter::default())?;
    entries.sort_by_key(|entry| (entry.object_type, entry.id));
    let mut infos = entries
        .iter()
        .map(|entry| session.object_info(entry.id, entry.object_type))
        .collect::<Result<Vec<_>, _>>()?;
    // The temporary key of this session is not one of the device's objects.
    let own = session.authentication_key();
    infos.retain(|info| {
        (info.object_type, info.id) != (ObjectType::AuthenticationKey, own) || own == authentication_key
    });
    let rights = Rights::of(session, authentication_key)?;
    let (exported, wrap_key) = rights.with_wrap_key(
        session,
        &id.to_string(),
        Capability::ExportWrapped,
        &key,
        keep_wrap_key,
        |session, wrap| export_all(session, &rights, wrap, &infos, stop),
    )?;
    let (objects, not_exported) = match exported {
        Ok(exported) => exported,
        Err(source) => return Err(BackupError::WrapKey { wrap_key, source: Box::new(source) }),
    };
    if objects.is_empty() {
        return Err(BackupError::NothingExportable(infos.len()));
    }
    let backup = Backup {
        id: id.to_string(),
        created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        device: Device { serial: identity.serial, version: identity.version.to_string() },
        threshold: scheme.threshold(),
        shares: scheme.shares(),
        share_commitments: shares.iter().map(|share| hexadecimal(&share.commitment())).collect(),
        objects,
        not_exported,
    };
    let document = backup.document(&key)?;
    Ok(Created { backup, document, shares, wrap_key })
}

/// Ends the work between two objects when the program is told to stop.
fn go_on(session: &Session<'_>, stop: &Stop) -> Result<(), ClientError> {
    match stop.is_told() {
        true => Err(ExchangeError::Stopped { address: session.describe() }.into()),
        false => Ok(()),
    }
}

type Sorted = (Vec<Exported>, Vec<NotExported>);

fn export_all(
    session: &mut Session<'_>,
    rights: &Rights,
    wrap: ObjectId,
    infos: &[ObjectInfo],
    stop: &Stop,
) -> Result<Sorted, ClientError> {
    let (mut exported, mut refused) = (Vec::new(), Vec::new());
    for info in infos {
        go_on(session, stop)?;
        let object = Description::new(info);
        if is_temporary(info) {
            let reason = "it is a temporary key of a command that was interrupted: delete it".into();
            refused.push(NotExported { object, reason });
            continue;
        }
        if !info.capabilities.contains(Capability::ExportableUnderWrap) {
            let reason = "it is not exportable-under-wrap".into();
            refused.push(NotExported { object, reason });
            continue;
        }
        // Without its seed an Ed25519 key still signs, but its public key and content cannot be given to
        // others in full.
        let with_seed = info.algorithm == Algorithm::Ed25519;
        match session.export_wrapped(wrap, info.object_type, info.id, with_seed) {
            Ok(wrapped) => {
                let (content_sha256, public_key) = content(session, info)?;
                let wrapped = Base64::encode_string(&wrapped);
                exported.push(Exported { object, public_key, content_sha256, wrapped });
            }
            Err(ClientError::Device { error: DeviceError::InsufficientPermissions, .. }) => {
                let reason = format!("it may do more than authentication key {} may pass on", rights.key);
                refused.push(NotExported { object, reason });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((exported, refused))
}

/// The digest of the content that the device reveals for an object, and its public key, if it has one.
fn content(
    session: &mut Session<'_>,
    info: &ObjectInfo,
) -> Result<(Option<String>, Option<String>), ClientError> {
    let shown = match info.object_type {
        ObjectType::AsymmetricKey => session.public_key(info.id).map(|key| key.bytes),
        ObjectType::Template => session.template(info.id),
        ObjectType::Opaque => session.opaque(info.id),
        _ => return Ok((None, None)),
    };
    let shown = match shown {
        Ok(bytes) => bytes,
        // A session that may not read it may still back it up.
        Err(ClientError::Device { error: DeviceError::InsufficientPermissions, .. }) => {
            return Ok((None, None));
        }
        Err(error) => return Err(error),
    };
    let algorithm = AsymmetricAlgorithm::from_algorithm(info.algorithm);
    let public_key = algorithm
        .filter(|_| info.object_type == ObjectType::AsymmetricKey)
        .and_then(|algorithm| device_key::ssh_public(algorithm, &shown).ok())
        .and_then(|key| PublicKey::new(key, info.label.to_string()).to_openssh().ok());
    Ok((Some(hexadecimal(&Sha256::digest(&shown))), public_key))
}

/// What restoring does, or did, with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was not there, and would be imported.
    ToImport,
    /// It was not there, and is now.
    Imported,
    /// It was there, and is the same.
    Same,
    /// One with the same description was there, whose content no device reveals.
    Unverified,
    /// Another object has its type and id; it was not changed.
    Different,
}

/// What restoring does with each object of a backup, in its order.
///
/// # Errors
/// [`BackupError::NotPermitted`], or the device's.
pub fn plan(
    session: &mut Session<'_>,
    authentication_key: ObjectId,
    backup: &Backup,
) -> Result<Vec<Outcome>, BackupError> {
    let rights = Rights::of(session, authentication_key)?;
    let outcomes = backup
        .objects
        .iter()
        .map(|object| outcome(session, object))
        .collect::<Result<Vec<_>, ClientError>>()?;
    let forbidden: Vec<String> = backup
        .objects
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == Outcome::ToImport)
        .filter(|(exported, _)| !exported.object.permitted(rights.domains, rights.delegated))
        .map(|(exported, _)| exported.object.name())
        .collect();
    match forbidden.is_empty() {
        true => Ok(outcomes),
        false => Err(BackupError::NotPermitted { key: rights.key, objects: forbidden }),
    }
}

fn outcome(session: &mut Session<'_>, exported: &Exported) -> Result<Outcome, ClientError> {
    let Some((id, object_type)) = exported.object.object() else {
        return Ok(Outcome::Different); // refused when the backup was read
    };
    let Some(info) = found(session.object_info(id, object_type))? else {
        return Ok(Outcome::ToImport);
    };
    if Description::new(&info) != exported.object {
        return Ok(Outcome::Different);
    }
    Ok(match (content(session, &info)?.0, &exported.content_sha256) {
        (Some(there), Some(here)) if there == *here => Outcome::Same,
        (Some(_), Some(_)) => Outcome::Different,
        _ => Outcome::Unverified,
    })
}

/// A rule of a template for which its device remembers signatures. That is in no backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remembered {
    /// `quota`: how many there were.
    Quota,
    /// `serials.increasing`: the last one's number.
    Serials,
    /// `clock`: when the last one was.
    Clock,
}

impl Remembered {
    /// As the template file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Serials => "serials",
            Self::Clock => "clock",
        }
    }

    /// The rules of an imported template that start over; all of them if the session may not read it.
    fn of(session: &mut Session<'_>, exported: &Exported) -> Result<Vec<Self>, ClientError> {
        let Some((id, ObjectType::Template)) = exported.object.object() else { return Ok(Vec::new()) };
        let bytes = match session.template(id) {
            Ok(bytes) => bytes,
            Err(ClientError::Device { error: DeviceError::InsufficientPermissions, .. }) => {
                return Ok(vec![Self::Quota, Self::Serials, Self::Clock]);
            }
            Err(error) => return Err(error),
        };
        // A template that cannot be read signs nothing.
        let Ok(template) = Template::decode(&bytes) else { return Ok(Vec::new()) };
        let rules = template.rules;
        let all = [
            (Self::Quota, rules.quota.is_some()),
            (Self::Serials, rules.increasing_serials),
            (Self::Clock, rules.clock.is_some()),
        ];
        Ok(all.into_iter().filter(|(_, set)| *set).map(|(rule, _)| rule).collect())
    }
}

/// The changes made to a device.
pub struct Restored {
    /// For each object of the backup, in its order.
    pub outcomes: Vec<Outcome>,
    /// For each object of the backup, the state that stayed elsewhere and starts over on this device.
    pub begins_anew: Vec<Vec<Remembered>>,
    /// What became of the key on the device; `None` when there was nothing to import.
    pub wrap_key: Option<WrapKey>,
}

/// Imports every object of a backup that is not on the device; `authentication_key` is the session's.
///
/// # Errors
/// [`BackupError`]; [`BackupError::Stopped`] when something was imported before, and what.
pub fn restore(
    session: &mut Session<'_>,
    authentication_key: ObjectId,
    backup: &Backup,
    key: &Key,
    keep_wrap_key: bool,
    stop: &Stop,
) -> Result<Restored, BackupError> {
    let mut outcomes = plan(session, authentication_key, backup)?;
    if !outcomes.contains(&Outcome::ToImport) {
        let begins_anew = vec![Vec::new(); outcomes.len()];
        return Ok(Restored { outcomes, begins_anew, wrap_key: None });
    }
    let rights = Rights::of(session, authentication_key)?;
    let (imported, wrap_key) = rights.with_wrap_key(
        session,
        &backup.id,
        Capability::ImportWrapped,
        key,
        keep_wrap_key,
        |session, wrap| import_all(session, wrap, backup, &mut outcomes, stop),
    )?;
    match imported {
        Ok(()) => {
            let begins_anew = backup
                .objects
                .iter()
                .zip(&outcomes)
                .map(|(exported, outcome)| match outcome {
                    Outcome::Imported => Remembered::of(session, exported),
                    Outcome::ToImport | Outcome::Same | Outcome::Unverified | Outcome::Different => {
                        Ok(Vec::new())
                    }
                })
                .collect::<Result<_, _>>()?;
            Ok(Restored { outcomes, begins_anew, wrap_key: Some(wrap_key) })
        }
        Err(source) => {
            let source = Box::new(source);
            let done = backup.objects.iter().zip(&outcomes).filter(|(_, done)| **done == Outcome::Imported);
            let done: Vec<String> = done.map(|(exported, _)| exported.object.name()).collect();
            Err(match done.is_empty() {
                true => BackupError::WrapKey { wrap_key, source },
                false => BackupError::Stopped { done, wrap_key, source },
            })
        }
    }
}

fn import_all(
    session: &mut Session<'_>,
    wrap: ObjectId,
    backup: &Backup,
    outcomes: &mut [Outcome],
    stop: &Stop,
) -> Result<(), ClientError> {
    for (exported, outcome) in backup.objects.iter().zip(outcomes) {
        if *outcome != Outcome::ToImport {
            continue;
        }
        go_on(session, stop)?;
        let wrapped = exported.wrapped().map_err(|_| {
            ClientError::Unreachable("an object of the backup that was read without an error before")
        })?;
        match session.import_wrapped(wrap, &wrapped) {
            Ok(_) => *outcome = Outcome::Imported,
            // In a domain that this session does not see.
            Err(ClientError::Device { error: DeviceError::ObjectExists, .. }) => {
                *outcome = Outcome::Different;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
