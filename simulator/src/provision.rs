//! The contents of a device, declared in TOML: objects, authentication keys, options, and the fate of the
//! factory key. The format and its rules are in `docs/simulator.md`.
//!
//! First every declaration is compared with the device, and a difference is refused without any change; then
//! missing objects are created. A device can therefore be started with the same file any number of times.
//! Everything goes through a session and the device's own commands: a file can declare only what a client
//! could do.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sshsm_client::{ClientError, Session, found};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, Domains, Label, ObjectId, ObjectType,
    channel::AuthenticationKey,
    message,
    object::{NewObject, ObjectHeader, Origin},
    option::{DeviceOption, PresenceMode, TemplateMode, UserPresence},
};
use zeroize::Zeroizing;

use crate::simulator::Simulator;

/// The password of a new device's key 1.
const FACTORY_PASSWORD: &str = "password";

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
        /// The declaration.
        what: String,
        /// The mistake.
        mistake: String,
    },
    /// No session: neither the declared key nor the factory's opens one.
    #[error("no session under key {id} as declared, nor under key 1 with the factory's password")]
    NoSession {
        /// The declared key.
        id: ObjectId,
        /// Why the factory's key opens none.
        source: ClientError,
    },
    /// The device has something that differs from the declaration; nothing was changed.
    #[error(
        "{what} is on the device with another {field} than declared: {device}, not {declared}. Nothing was changed"
    )]
    Differs {
        /// The object or option.
        what: String,
        /// Which of its fields.
        field: &'static str,
        /// The value on the device.
        device: String,
        /// The value in the file.
        declared: String,
    },
    /// The device refused.
    #[error("{what}")]
    Refused {
        /// The attempted action.
        what: String,
        /// The device's answer.
        source: ClientError,
    },
}

struct Credentials {
    id: ObjectId,
    password: Zeroizing<String>,
}

/// An object, and the source of its content.
struct Declared {
    object_type: ObjectType,
    id: ObjectId,
    new: NewObject,
    delegated: Capabilities,
    /// The prefix of the key in an OTP AEAD key; zeros in others, and not used.
    nonce_id: [u8; 4],
    content: Content,
}

enum Content {
    Generate,
    Bytes(Zeroizing<Vec<u8>>),
    Password(Zeroizing<String>),
}

/// One option's entry: `value` of `key`, or of the whole option.
struct Setting {
    option: DeviceOption,
    key: Option<u8>,
    name: String,
    value: Vec<u8>,
}

impl Provision {
    /// Reads a declaration and the files that it names, relative to its directory.
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

    /// Whether the file itself contains passwords or keys, which anyone who reads it then has.
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
    /// Makes the device match the declaration; see [`Provision`].
    ///
    /// # Errors
    ///
    /// [`ProvisionError::Differs`] if the device has something else, which is not modified, and
    /// [`ProvisionError::Refused`] if the device refuses to create something; what was created before stays,
    /// and the next attempt continues from there.
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
            // The values of options are parsed before anything is created; they are set only after that.
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
            provision.options.iter().partition(|setting| setting.option == DeviceOption::AlgorithmToggle);
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
            found(session.delete_object(factory, ObjectType::AuthenticationKey))
                .map_err(|source| refused(format!("deleting {}", named(name)), source))?;
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

    /// The object on the device, if it matches the declaration as far as the device reveals; `None` if there
    /// is none.
    fn compare(&self, session: &mut Session<'_>) -> Result<Option<()>, ProvisionError> {
        let reading = || format!("reading {}", self.name());
        let info = found(session.object_info(self.id, self.object_type));
        let Some(info) = info.map_err(|source| refused(reading(), source))? else { return Ok(None) };
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
        let content = match self.object_type {
            ObjectType::Opaque => session.opaque(self.id),
            ObjectType::Template => session.template(self.id),
            _ => return Ok(Some(())),
        };
        let content = content.map_err(|source| refused(reading(), source))?;
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

    /// An authentication key's password can be checked only by opening a session with it.
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
            Err(ClientError::WrongPassword(_)) => Err(ProvisionError::Differs {
                what: self.name(),
                field: "password",
                device: "another one".into(),
                declared: "the declared one".into(),
            }),
            Err(source) => Err(refused(format!("opening a session under {}", self.name()), source)),
        }
    }

    fn create(&self, session: &mut Session<'_>) -> Result<(), ProvisionError> {
        let (object, delegated, nonce_id) = (ObjectHeader::from(&self.new), self.delegated, self.nonce_id);
        let from_password;
        let content: Option<&[u8]> = match &self.content {
            Content::Generate => None,
            Content::Bytes(bytes) => Some(bytes),
            Content::Password(password) => {
                from_password = AuthenticationKey::from_password(password.as_bytes());
                Some(from_password.as_bytes())
            }
        };
        let made = match (self.object_type, content) {
            (ObjectType::Opaque, Some(content)) => {
                session.send(Command::PutOpaque, &message::PutOpaque { object, content })
            }
            (ObjectType::AuthenticationKey, Some(key)) => {
                let message = message::PutAuthenticationKey { object, delegated, key };
                session.send(Command::PutAuthenticationKey, &message)
            }
            (ObjectType::AsymmetricKey, Some(private)) => {
                session.send(Command::PutAsymmetricKey, &message::PutAsymmetricKey { object, private })
            }
            (ObjectType::AsymmetricKey, None) => {
                session.send(Command::GenerateAsymmetricKey, &message::Generate { object })
            }
            (ObjectType::WrapKey, Some(key)) => {
                session.send(Command::PutWrapKey, &message::PutWrapKey { object, delegated, key })
            }
            (ObjectType::WrapKey, None) => {
                session.send(Command::GenerateWrapKey, &message::GenerateWrapKey { object, delegated })
            }
            (ObjectType::HmacKey, Some(key)) => {
                session.send(Command::PutHmacKey, &message::PutHmacKey { object, key })
            }
            (ObjectType::HmacKey, None) => {
                session.send(Command::GenerateHmacKey, &message::Generate { object })
            }
            (ObjectType::Template, Some(template)) => {
                session.send(Command::PutTemplate, &message::PutTemplate { object, template })
            }
            (ObjectType::OtpAeadKey, Some(key)) => {
                let key = Zeroizing::new([nonce_id.as_slice(), key].concat());
                session.send(Command::PutOtpAeadKey, &message::PutOtpAeadKey { object, key: &key })
            }
            (ObjectType::OtpAeadKey, None) => {
                session.send(Command::GenerateOtpAeadKey, &message::GenerateOtpAeadKey { object, nonce_id })
            }
            (ObjectType::SymmetricKey, Some(key)) => {
                session.send(Command::PutSymmetricKey, &message::PutSymmetricKey { object, key })
            }
            (ObjectType::SymmetricKey, None) => {
                session.send(Command::GenerateSymmetricKey, &message::Generate { object })
            }
            (ObjectType::PublicWrapKey, Some(modulus)) => {
                let message = message::PutPublicWrapKey { object, delegated, modulus };
                session.send(Command::PutPublicWrapKey, &message)
            }
            // Refused when the declaration was read.
            (
                ObjectType::Opaque
                | ObjectType::AuthenticationKey
                | ObjectType::Template
                | ObjectType::PublicWrapKey,
                None,
            ) => {
                return Err(declaration(&self.name(), "the device makes none from its own randomness"));
            }
        };
        made.map_err(|source| refused(format!("making {}", self.name()), source))?;
        Ok(())
    }
}

impl Setting {
    /// Whether the device has another value.
    fn differs(&self, session: &mut Session<'_>) -> Result<bool, ProvisionError> {
        let value = session
            .option(self.option)
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
        session
            .send(Command::SetOption, &message::SetOption::new(self.option, &value))
            .map_err(|source| refused(format!("setting option {}", self.name), source))?;
        Ok(())
    }
}

/// Whether the device makes objects of this type from its own randomness.
const fn can_be_generated(object_type: ObjectType) -> bool {
    match object_type {
        ObjectType::AsymmetricKey
        | ObjectType::WrapKey
        | ObjectType::HmacKey
        | ObjectType::OtpAeadKey
        | ObjectType::SymmetricKey => true,
        ObjectType::Opaque
        | ObjectType::AuthenticationKey
        | ObjectType::Template
        | ObjectType::PublicWrapKey => false,
    }
}

fn change_password(session: &mut Session<'_>, id: ObjectId, password: &str) -> Result<(), ProvisionError> {
    session
        .change_authentication_key(id, &AuthenticationKey::from_password(password.as_bytes()))
        .map_err(|source| refused(format!("changing the password of key {id}"), source))
}

fn named((object_type, id): (ObjectType, ObjectId)) -> String {
    format!("{object_type} {id}")
}

fn refused(what: String, source: ClientError) -> ProvisionError {
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

/// A file's text without the newline that editors add at its end.
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
    /// The object, and whether the text contains a secret of it.
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
            (Some(text), ObjectType::OtpAeadKey) => {
                hex(text)?.try_into().map_err(|_| mistake("a nonce-id has four bytes".into()))?
            }
            (Some(_), _) => return Err(mistake("only OTP AEAD keys have a nonce-id".into())),
            (None, _) => [0; 4],
        };
        let password = object_type == ObjectType::AuthenticationKey
            && algorithm == Algorithm::Aes128YubicoAuthentication;
        let public =
            matches!(object_type, ObjectType::Opaque | ObjectType::Template | ObjectType::PublicWrapKey)
                || algorithm == Algorithm::Ecp256YubicoAuthentication;
        let sources =
            (self.generate, self.value, self.value_file, self.text, (self.password, self.password_file));
        let (content, inline) = match sources {
            (true, None, None, None, (None, None)) if can_be_generated(object_type) => {
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
                option: DeviceOption::AlgorithmToggle,
                key,
                name: format!("algorithm-toggle {name}"),
                value,
            });
        }
        for (name, audit) in self.command_audit {
            // As everywhere else in TOML: words joined by hyphens.
            let command = Command::ALL.iter().find(|command| command.name().replace(' ', "-") == name);
            let command =
                command.ok_or_else(|| declaration("command-audit", &format!("unknown command {name:?}")))?;
            let (key, value) = (Some(command.code()), vec![audit as u8]);
            settings.push(Setting {
                option: DeviceOption::CommandAudit,
                key,
                name: format!("command-audit {name}"),
                value,
            });
        }
        if let Some(audit) = self.force_audit {
            let (key, value) = (None, vec![audit as u8]);
            settings.push(Setting {
                option: DeviceOption::ForceAudit,
                key,
                name: "force-audit".into(),
                value,
            });
        }
        let timeout = self.user_presence_timeout;
        if let Some(name) = self.user_presence {
            let mistake = |mistake: &str| declaration("user-presence", mistake);
            let mode = PresenceMode::from_name(&name)
                .ok_or_else(|| mistake("it is \"off\", \"certificates\" or \"all\""))?;
            let timeout = timeout.unwrap_or(UserPresence::DEFAULT.timeout);
            let value = UserPresence::decode([mode.code(), timeout])
                .ok_or_else(|| mistake("a device cannot be touched in 0 seconds"))?;
            settings.push(Setting {
                option: DeviceOption::UserPresence,
                key: None,
                name: "user-presence".into(),
                value: value.encode().into(),
            });
        } else if timeout.is_some() {
            return Err(declaration("user-presence-timeout", "it requires user-presence"));
        }
        if let Some(name) = self.templates {
            let mode = TemplateMode::from_name(&name)
                .ok_or_else(|| declaration("templates", "they are \"open\" or \"frozen\""))?;
            settings.push(Setting {
                option: DeviceOption::Templates,
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
