//! What a device shall have in it, declared in TOML: objects, authentication keys, options, and what becomes of the
//! factory's key. The format and its rules are in `docs/simulator.md`.
//!
//! First everything declared is compared with what is there, and a difference is refused with nothing changed; then
//! what is absent is made. So a device can be started with the same file any number of times. All of it goes through a
//! session and the device's own commands: nothing can be declared that a client could not do.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId, ObjectType,
    channel::AuthenticationKey,
    codec::{Reader, Writer},
    frame::MAX_INNER_PAYLOAD,
    object::{NewObject, ObjectInfo, Origin},
    option::{DeviceOption, PresenceMode, TemplateMode, UserPresence},
};
use zeroize::Zeroizing;

use crate::{
    session::{Session, SessionError},
    simulator::Simulator,
};

/// The password of a new device's key 1.
const FACTORY_PASSWORD: &str = "password";
/// Options of SET OPTION, and the values of audit options.
const FORCE_AUDIT: u8 = 1;
const COMMAND_AUDIT: u8 = 3;
const ALGORITHM_TOGGLE: u8 = 4;

/// A declaration, read and found sound. It is not yet known whether the device agrees.
pub struct Provision {
    session: Credentials,
    delete_factory_key: bool,
    objects: Vec<Declared>,
    options: Vec<Setting>,
    inline_secrets: bool,
}

/// What provisioning did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioned {
    /// Objects that were made, in the order of the file.
    pub created: Vec<(ObjectType, ObjectId)>,
    /// Objects that were there already, as declared.
    pub kept: Vec<(ObjectType, ObjectId)>,
}

/// Why a device was not provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A file could not be read: the declaration, or one that it names.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No TOML, or a name or type of value that the format does not have.
    #[error("{} has a mistake", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The mistake, with its line.
        source: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("{what}: {mistake}")]
    Declaration {
        /// What is declared.
        what: String,
        /// What is wrong with it.
        mistake: String,
    },
    /// No session: neither the declared key nor the factory's opens one.
    #[error("no session under key {id} as declared, nor under key 1 with the factory's password")]
    NoSession {
        /// The declared key.
        id: ObjectId,
        /// Why the factory's key opens none.
        source: SessionError,
    },
    /// The device has something else than what is declared; nothing was changed.
    #[error(
        "{what} is on the device with another {field} than declared: {device}, not {declared}. Nothing was changed"
    )]
    Differs {
        /// The object or option.
        what: String,
        /// Which of its fields.
        field: &'static str,
        /// What the device has.
        device: String,
        /// What the file says.
        declared: String,
    },
    /// The device refused.
    #[error("{what}")]
    Refused {
        /// What was tried.
        what: String,
        /// The device's answer.
        source: SessionError,
    },
}

struct Credentials {
    id: ObjectId,
    password: Zeroizing<String>,
}

/// An object, with where its content comes from.
struct Declared {
    object_type: ObjectType,
    id: ObjectId,
    new: NewObject,
    delegated: Capabilities,
    /// What goes before the key in an OTP AEAD key; empty for others.
    nonce_id: Vec<u8>,
    content: Content,
}

enum Content {
    Generate,
    Bytes(Zeroizing<Vec<u8>>),
    Password(Zeroizing<String>),
}

/// One option's entry: `value` of `key`, or of the whole option.
struct Setting {
    option: u8,
    key: Option<u8>,
    name: String,
    value: Vec<u8>,
}

impl Provision {
    /// Reads a declaration and the files that it names, which are sought beside it.
    ///
    /// # Errors
    ///
    /// [`ProvisionError::Read`], [`ProvisionError::Syntax`] and [`ProvisionError::Declaration`].
    pub fn read(path: &Path) -> Result<Self, ProvisionError> {
        let text = read(path)?;
        let text = std::str::from_utf8(&text).map_err(|error| ProvisionError::Read {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let document = toml::from_str(text)
            .map_err(|source| ProvisionError::Syntax { path: path.to_owned(), source: source.into() })?;
        Self::compile(document, path.parent().unwrap_or(Path::new("")))
    }

    /// Whether passwords or keys stand in the file itself, where whoever reads it has them.
    #[must_use]
    pub fn has_inline_secrets(&self) -> bool {
        self.inline_secrets
    }

    fn compile(document: Document, folder: &Path) -> Result<Self, ProvisionError> {
        let mut inline_secrets = false;
        let session = match document.session {
            None => Credentials {
                id: ObjectId::DEFAULT_AUTHENTICATION_KEY,
                password: Zeroizing::new(FACTORY_PASSWORD.into()),
            },
            Some(SessionText { id, password, password_file }) => {
                let mistake = |mistake: &str| declaration("session", mistake);
                let password = match (password, password_file) {
                    (Some(password), None) => {
                        inline_secrets |= *password != FACTORY_PASSWORD;
                        password
                    }
                    (None, Some(file)) => password_in(&folder.join(file))?,
                    _ => return Err(mistake("it needs either a password or a password-file")),
                };
                let id = ObjectId::new(id).map_err(|error| mistake(&error.to_string()))?;
                Credentials { id, password }
            }
        };
        let delete_factory_key = document.factory_key == FactoryKey::Delete;
        if delete_factory_key && session.id == ObjectId::DEFAULT_AUTHENTICATION_KEY {
            return Err(declaration("factory-key", "it cannot be deleted by its own session"));
        }
        let objects = document.object.into_iter().map(|object| {
            object.compile(folder).map(|(declared, inline)| {
                inline_secrets |= inline;
                declared
            })
        });
        let objects = objects.collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = objects.iter().map(|object| (object.object_type, object.id)).collect();
        names.sort_by_key(|(object_type, id)| (object_type.code(), *id));
        if let Some([twice, _]) = names.array_windows().find(|[first, second]| first == second) {
            return Err(declaration(&named(*twice), "it is declared twice"));
        }
        let factory_key = (ObjectType::AuthenticationKey, ObjectId::DEFAULT_AUTHENTICATION_KEY);
        if names.contains(&factory_key) {
            return Err(declaration(
                &named(factory_key),
                "the factory made it: use [session] and factory-key",
            ));
        }
        let session_key = (ObjectType::AuthenticationKey, session.id);
        if session_key != factory_key && !names.contains(&session_key) {
            return Err(declaration(
                "session",
                "its key is not declared, and a new device would not have it",
            ));
        }
        Ok(Self {
            session,
            delete_factory_key,
            objects,
            options: document.options.compile()?,
            inline_secrets,
        })
    }
}

impl Simulator {
    /// Makes the device what is declared; see [`Provision`].
    ///
    /// # Errors
    ///
    /// [`ProvisionError::Differs`] where the device has something else, which is left as it is, and
    /// [`ProvisionError::Refused`] where the device refuses to make something; what was made before stays, and the
    /// next attempt goes on from there.
    pub fn provision(&mut self, provision: &Provision) -> Result<Provisioned, ProvisionError> {
        let factory = ObjectId::DEFAULT_AUTHENTICATION_KEY;
        let declared = &provision.session;
        let as_declared = self.session(declared.id, &declared.password).is_ok();
        let missing = {
            let mut session = self.enter(declared, as_declared)?;
            let mut missing = Vec::new();
            for object in &provision.objects {
                missing.push(object.compare(&mut session)?.is_none());
            }
            // What an option is, is known before anything is made; it is set only after that.
            for setting in &provision.options {
                setting.differs(&mut session)?;
            }
            missing
        };
        for (object, _) in provision.objects.iter().zip(&missing).filter(|(_, missing)| !**missing) {
            object.check_password(self)?;
        }

        let mut session = self.enter(declared, as_declared)?;
        let (toggles, audit): (Vec<_>, Vec<_>) =
            provision.options.iter().partition(|setting| setting.option == ALGORITHM_TOGGLE);
        // Algorithms can only be switched on a device without objects, and auditing begins when all is there.
        for setting in toggles {
            setting.apply(&mut session)?;
        }
        let mut done = Provisioned { created: Vec::new(), kept: Vec::new() };
        for (object, missing) in provision.objects.iter().zip(missing) {
            let name = (object.object_type, object.id);
            if missing {
                object.create(&mut session)?;
                done.created.push(name);
            } else {
                done.kept.push(name);
            }
        }
        for setting in audit {
            setting.apply(&mut session)?;
        }
        if !as_declared && declared.id == factory {
            change_password(&mut session, factory, &declared.password)?;
        }
        if provision.delete_factory_key {
            let name = (ObjectType::AuthenticationKey, factory);
            match session.command(Command::DeleteObject, &name_payload(name)) {
                Ok(_) | Err(SessionError::Device(DeviceError::ObjectNotFound)) => {}
                Err(source) => return Err(refused(format!("deleting {}", named(name)), source)),
            }
        }
        Ok(done)
    }

    fn enter(&mut self, declared: &Credentials, as_declared: bool) -> Result<Session<'_>, ProvisionError> {
        let (id, password) = match as_declared {
            true => (declared.id, declared.password.as_str()),
            false => (ObjectId::DEFAULT_AUTHENTICATION_KEY, FACTORY_PASSWORD),
        };
        self.session(id, password).map_err(|source| ProvisionError::NoSession { id: declared.id, source })
    }
}

impl Declared {
    fn name(&self) -> String {
        named((self.object_type, self.id))
    }

    /// The object on the device, if it is as declared as far as the device tells; `None` where there is none.
    fn compare(&self, session: &mut Session<'_>) -> Result<Option<()>, ProvisionError> {
        let reading = || format!("reading {}", self.name());
        let info = match session.command(Command::GetObjectInfo, &name_payload((self.object_type, self.id))) {
            Ok(info) => info,
            Err(SessionError::Device(DeviceError::ObjectNotFound)) => return Ok(None),
            Err(source) => return Err(refused(reading(), source)),
        };
        let info = ObjectInfo::decode(&mut Reader::new(&info))
            .map_err(|_| refused(reading(), SessionError::Answer))?;
        let differs = |field, device: &dyn fmt::Display, declared: &dyn fmt::Display| {
            let (device, declared) = (device.to_string(), declared.to_string());
            if device == declared {
                Ok(())
            } else {
                Err(ProvisionError::Differs { what: self.name(), field, device, declared })
            }
        };
        let origin = match self.content {
            Content::Generate => Origin::GENERATED,
            _ => Origin::IMPORTED,
        };
        let bits = |capabilities: Capabilities| format!("{:#018x}", capabilities.bits());
        differs("algorithm", &info.algorithm, &self.new.algorithm)?;
        differs("label", &format!("{:?}", info.label), &format!("{:?}", self.new.label))?;
        differs(
            "set of domains",
            &format!("{:#06x}", info.domains.bits()),
            &format!("{:#06x}", self.new.domains.bits()),
        )?;
        differs("set of capabilities", &bits(info.capabilities), &bits(self.new.capabilities))?;
        differs("set of delegated capabilities", &bits(info.delegated_capabilities), &bits(self.delegated))?;
        // An object that came back from a backup under a wrap key is still the one that was made.
        let made = Origin::from_code(info.origin.code() & !0x10).unwrap_or(info.origin);
        differs("origin", &made.name(), &origin.name())?;
        let get = match self.object_type {
            ObjectType::Opaque => Command::GetOpaque,
            ObjectType::Template => Command::GetTemplate,
            _ => return Ok(Some(())),
        };
        let content = session
            .command(get, &self.id.get().to_be_bytes())
            .map_err(|source| refused(reading(), source))?;
        if let Content::Bytes(bytes) = &self.content
            && **bytes != content
        {
            let length = |bytes: &[u8]| format!("{} bytes", bytes.len());
            return Err(ProvisionError::Differs {
                what: self.name(),
                field: "content",
                device: length(&content),
                declared: format!("these {}", length(bytes)),
            });
        }
        Ok(Some(()))
    }

    /// An authentication key tells its password to whoever knows it, and to nobody else.
    fn check_password(&self, device: &mut Simulator) -> Result<(), ProvisionError> {
        let key = match &self.content {
            Content::Password(password) => AuthenticationKey::from_password(password.as_bytes()),
            Content::Bytes(bytes) if self.object_type == ObjectType::AuthenticationKey => {
                match bytes.as_slice().try_into() {
                    Ok(key) => AuthenticationKey::from_bytes(key),
                    Err(_) => return Ok(()), // a public key
                }
            }
            _ => return Ok(()),
        };
        match device.session_with(self.id, &key) {
            Ok(_) => Ok(()),
            Err(SessionError::Channel(_)) => Err(ProvisionError::Differs {
                what: self.name(),
                field: "password",
                device: "another one".into(),
                declared: "the declared one".into(),
            }),
            Err(source) => Err(refused(format!("opening a session under {}", self.name()), source)),
        }
    }

    fn create(&self, session: &mut Session<'_>) -> Result<(), ProvisionError> {
        let (put, generate) = commands(self.object_type);
        let command = match self.content {
            Content::Generate => generate,
            _ => Some(put),
        };
        let making = || format!("making {}", self.name());
        let too_long = || refused(making(), SessionError::Device(DeviceError::WrongLength));
        let mut buffer = Zeroizing::new(vec![0; MAX_INNER_PAYLOAD]);
        let mut writer = Writer::new(&mut buffer);
        let mut write = || {
            self.new.encode(&mut writer)?;
            if self.object_type.has_delegated_capabilities() {
                writer.bytes(&self.delegated.bits().to_be_bytes())?;
            }
            writer.bytes(&self.nonce_id)?;
            match &self.content {
                Content::Generate => Ok(()),
                Content::Bytes(bytes) => writer.bytes(bytes),
                Content::Password(password) => {
                    writer.bytes(AuthenticationKey::from_password(password.as_bytes()).as_bytes())
                }
            }
        };
        write().map_err(|_| too_long())?;
        let command = command.ok_or_else(too_long)?;
        session.command(command, writer.written()).map_err(|source| refused(making(), source))?;
        Ok(())
    }
}

impl Setting {
    /// Whether the device has another value.
    fn differs(&self, session: &mut Session<'_>) -> Result<bool, ProvisionError> {
        let value = session
            .command(Command::GetOption, &[self.option])
            .map_err(|source| refused(format!("reading option {}", self.name), source))?;
        let device = match self.key {
            None => Some(value.as_slice()),
            Some(key) => value.chunks_exact(2).find_map(|pair| pair.strip_prefix(&[key])),
        };
        Ok(device != Some(&self.value))
    }

    fn apply(&self, session: &mut Session<'_>) -> Result<(), ProvisionError> {
        if !self.differs(session)? {
            return Ok(());
        }
        let value: Vec<_> = self.key.iter().chain(&self.value).copied().collect();
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX); // a few bytes
        let payload = [&[self.option, 0, length], value.as_slice()].concat();
        session
            .command(Command::SetOption, &payload)
            .map_err(|source| refused(format!("setting option {}", self.name), source))?;
        Ok(())
    }
}

/// How an object comes to be: by its content, and by the device's own randomness where that is possible.
const fn commands(object_type: ObjectType) -> (Command, Option<Command>) {
    match object_type {
        ObjectType::Opaque => (Command::PutOpaque, None),
        ObjectType::AuthenticationKey => (Command::PutAuthenticationKey, None),
        ObjectType::AsymmetricKey => (Command::PutAsymmetricKey, Some(Command::GenerateAsymmetricKey)),
        ObjectType::WrapKey => (Command::PutWrapKey, Some(Command::GenerateWrapKey)),
        ObjectType::HmacKey => (Command::PutHmacKey, Some(Command::GenerateHmacKey)),
        ObjectType::Template => (Command::PutTemplate, None),
        ObjectType::OtpAeadKey => (Command::PutOtpAeadKey, Some(Command::GenerateOtpAeadKey)),
        ObjectType::SymmetricKey => (Command::PutSymmetricKey, Some(Command::GenerateSymmetricKey)),
        ObjectType::PublicWrapKey => (Command::PutPublicWrapKey, None),
    }
}

fn change_password(session: &mut Session<'_>, id: ObjectId, password: &str) -> Result<(), ProvisionError> {
    let key = AuthenticationKey::from_password(password.as_bytes());
    let algorithm = Algorithm::Aes128YubicoAuthentication.code();
    let payload = Zeroizing::new([&id.get().to_be_bytes()[..], &[algorithm], key.as_bytes()].concat());
    session
        .command(Command::ChangeAuthenticationKey, &payload)
        .map_err(|source| refused(format!("changing the password of key {id}"), source))?;
    Ok(())
}

fn name_payload((object_type, id): (ObjectType, ObjectId)) -> [u8; 3] {
    let [high, low] = id.get().to_be_bytes();
    [high, low, object_type.code()]
}

fn named((object_type, id): (ObjectType, ObjectId)) -> String {
    format!("{object_type} {id}")
}

fn refused(what: String, source: SessionError) -> ProvisionError {
    ProvisionError::Refused { what, source }
}

fn declaration(what: &str, mistake: &str) -> ProvisionError {
    ProvisionError::Declaration { what: what.to_owned(), mistake: mistake.to_owned() }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProvisionError> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| ProvisionError::Read { path: path.to_owned(), source })
}

/// A file's text without the newline that editors put at its end.
fn password_in(path: &Path) -> Result<Zeroizing<String>, ProvisionError> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| declaration(&path.display().to_string(), "a password is UTF-8 text"))?;
    Ok(Zeroizing::new(text.strip_suffix('\n').unwrap_or(text).to_owned()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    session: Option<SessionText>,
    #[serde(default)]
    factory_key: FactoryKey,
    #[serde(default)]
    object: Vec<ObjectText>,
    #[serde(default)]
    options: OptionsText,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum FactoryKey {
    #[default]
    Keep,
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SessionText {
    id: u16,
    password: Option<Zeroizing<String>>,
    password_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ObjectText {
    #[serde(rename = "type")]
    object_type: String,
    id: u16,
    #[serde(default)]
    label: String,
    domains: Set<u16>,
    #[serde(default)]
    capabilities: Set<String>,
    delegated_capabilities: Option<Set<String>>,
    algorithm: Option<String>,
    nonce_id: Option<String>,
    #[serde(default)]
    generate: bool,
    value: Option<Zeroizing<String>>,
    value_file: Option<PathBuf>,
    text: Option<Zeroizing<String>>,
    password: Option<Zeroizing<String>>,
    password_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct OptionsText {
    force_audit: Option<Audit>,
    #[serde(default)]
    command_audit: BTreeMap<String, Audit>,
    #[serde(default)]
    algorithm_toggle: BTreeMap<String, bool>,
    user_presence: Option<String>,
    user_presence_timeout: Option<u8>,
    templates: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Audit {
    Off,
    On,
    Fix,
}

/// `"all"`, `"none"`, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Set<T> {
    Word(Word),
    List(Vec<T>),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    All,
    None,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self::Word(Word::None)
    }
}

impl Set<String> {
    fn capabilities(&self) -> Result<Capabilities, String> {
        match self {
            Self::Word(Word::All) => Ok(Capabilities::ALL),
            Self::Word(Word::None) => Ok(Capabilities::NONE),
            Self::List(names) => names.iter().try_fold(Capabilities::NONE, |set, name| {
                let capability =
                    Capability::from_name(name).ok_or_else(|| format!("unknown capability {name:?}"))?;
                Ok(set.union(Capabilities::of(&[capability])))
            }),
        }
    }
}

impl Set<u16> {
    fn domains(&self) -> Result<Domains, String> {
        match self {
            Self::Word(Word::All) => Ok(Domains::ALL),
            Self::Word(Word::None) => Ok(Domains::NONE),
            Self::List(numbers) => numbers.iter().try_fold(Domains::NONE, |set, number| {
                Domains::single(*number).map(|domain| set.union(domain)).map_err(|error| error.to_string())
            }),
        }
    }
}

impl ObjectText {
    /// The object, and whether a secret of it stands in the text.
    fn compile(self, folder: &Path) -> Result<(Declared, bool), ProvisionError> {
        let what = format!("{} {:#06x}", self.object_type, self.id);
        let mistake = |mistake: String| declaration(&what, &mistake);
        let object_type = ObjectType::from_name(&self.object_type)
            .ok_or_else(|| mistake(format!("unknown type {:?}", self.object_type)))?;
        let id = ObjectId::new(self.id).map_err(|error| mistake(error.to_string()))?;
        let algorithm = match (&self.algorithm, object_type) {
            (Some(name), _) => {
                Algorithm::from_name(name).ok_or_else(|| mistake(format!("unknown algorithm {name:?}")))?
            }
            (None, ObjectType::AuthenticationKey) => Algorithm::Aes128YubicoAuthentication,
            (None, ObjectType::Opaque) => Algorithm::OpaqueData,
            (None, ObjectType::Template) => Algorithm::TemplateSsh,
            (None, _) => return Err(mistake("an algorithm is missing".into())),
        };
        let domains = self.domains.domains().map_err(mistake)?;
        if domains.is_empty() {
            return Err(mistake("it is in no domain".into()));
        }
        let delegated = match (&self.delegated_capabilities, object_type.has_delegated_capabilities()) {
            (Some(_), false) => return Err(mistake("objects of this type delegate no capabilities".into())),
            (Some(set), true) => set.capabilities().map_err(mistake)?,
            (None, _) => Capabilities::NONE,
        };
        let hex = |text: &str| {
            base16ct::mixed::decode_vec(text).map_err(|_| mistake("a value is hexadecimal, in pairs".into()))
        };
        let nonce_id = match (&self.nonce_id, object_type) {
            (None, ObjectType::OtpAeadKey) => return Err(mistake("a nonce-id is missing".into())),
            (Some(text), ObjectType::OtpAeadKey) => hex(text)?,
            (Some(_), _) => return Err(mistake("only OTP AEAD keys have a nonce-id".into())),
            (None, _) => Vec::new(),
        };
        let password = object_type == ObjectType::AuthenticationKey
            && algorithm == Algorithm::Aes128YubicoAuthentication;
        let public =
            matches!(object_type, ObjectType::Opaque | ObjectType::Template | ObjectType::PublicWrapKey)
                || algorithm == Algorithm::Ecp256YubicoAuthentication;
        let sources =
            (self.generate, self.value, self.value_file, self.text, (self.password, self.password_file));
        let (content, inline) = match sources {
            (true, None, None, None, (None, None)) if commands(object_type).1.is_some() => {
                (Content::Generate, false)
            }
            (false, Some(value), None, None, (None, None)) => {
                (Content::Bytes(Zeroizing::new(hex(&value)?)), !public)
            }
            (false, None, Some(file), None, (None, None)) => {
                (Content::Bytes(read(&folder.join(file))?), false)
            }
            (false, None, None, Some(text), (None, None)) => {
                (Content::Bytes(Zeroizing::new(text.as_bytes().to_vec())), !public)
            }
            (false, None, None, None, (Some(text), None)) if password => (Content::Password(text), true),
            (false, None, None, None, (None, Some(file))) if password => {
                (Content::Password(password_in(&folder.join(file))?), false)
            }
            _ => {
                return Err(mistake(
                    "it needs exactly one of generate (keys only), value, value-file, text, password and \
                     password-file (authentication keys only)"
                        .into(),
                ));
            }
        };
        let new = NewObject {
            id: Some(id),
            label: Label::new(&self.label).map_err(|error| mistake(error.to_string()))?,
            domains,
            capabilities: self.capabilities.capabilities().map_err(mistake)?,
            algorithm,
        };
        Ok((Declared { object_type, id, new, delegated, nonce_id, content }, inline))
    }
}

impl OptionsText {
    fn compile(self) -> Result<Vec<Setting>, ProvisionError> {
        let mut settings = Vec::new();
        for (name, enabled) in self.algorithm_toggle {
            let algorithm = Algorithm::from_name(&name)
                .ok_or_else(|| declaration("algorithm-toggle", &format!("unknown algorithm {name:?}")))?;
            let (key, value) = (Some(algorithm.code()), vec![enabled.into()]);
            settings.push(Setting {
                option: ALGORITHM_TOGGLE,
                key,
                name: format!("algorithm-toggle {name}"),
                value,
            });
        }
        for (name, audit) in self.command_audit {
            // In files as everywhere else in TOML: words joined by hyphens.
            let command = Command::ALL.iter().find(|command| command.name().replace(' ', "-") == name);
            let command =
                command.ok_or_else(|| declaration("command-audit", &format!("unknown command {name:?}")))?;
            let (key, value) = (Some(command.code()), vec![audit as u8]);
            settings.push(Setting {
                option: COMMAND_AUDIT,
                key,
                name: format!("command-audit {name}"),
                value,
            });
        }
        if let Some(audit) = self.force_audit {
            let (key, value) = (None, vec![audit as u8]);
            settings.push(Setting { option: FORCE_AUDIT, key, name: "force-audit".into(), value });
        }
        let timeout = self.user_presence_timeout;
        if let Some(name) = self.user_presence {
            let mistake = |mistake: &str| declaration("user-presence", mistake);
            let mode = PresenceMode::from_name(&name)
                .ok_or_else(|| mistake("it is \"off\", \"certificates\" or \"all\""))?;
            let timeout = timeout.unwrap_or(UserPresence::DEFAULT.timeout);
            let value = UserPresence::decode([mode.code(), timeout])
                .ok_or_else(|| mistake("nobody touches a device in 0 seconds"))?;
            settings.push(Setting {
                option: DeviceOption::UserPresence.code(),
                key: None,
                name: "user-presence".into(),
                value: value.encode().into(),
            });
        } else if timeout.is_some() {
            return Err(declaration("user-presence-timeout", "there is no user-presence beside it"));
        }
        if let Some(name) = self.templates {
            let mode = TemplateMode::from_name(&name)
                .ok_or_else(|| declaration("templates", "they are \"open\" or \"frozen\""))?;
            settings.push(Setting {
                option: DeviceOption::Templates.code(),
                key: None,
                name: "templates".into(),
                value: vec![mode.code()],
            });
        }
        Ok(settings)
    }
}

impl fmt::Debug for Provision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provision").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}
