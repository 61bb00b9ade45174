//! The configuration file: defaults for options, and certificate authorities by name.
//!
//! TOML. Keys at the top level are options that every command has, by their long names; those of one command
//! are in a table with its name (`[sign]`, `[key.generate]`), and `[ca.NAME]` defines `-s NAME`.
//! `/etc/sshsm/config.toml` is read first, then `$XDG_CONFIG_HOME/sshsm/config.toml`, which overrides it;
//! `--config FILE` or `SSHSM_CONFIG` is read instead of both. Relative paths in a file are relative to its
//! directory. An option on the command line overrides its environment variable, which overrides the files.

use std::{
    any::TypeId,
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Arg, ArgAction, Command};
use serde::{Deserialize, Deserializer, de};
use sshsm_protocol::ObjectId;

use super::arguments::{self, LedgerChoice, RsaSignature, TemplateName};
use crate::output::shown;
use sshsm_ca::{
    device_address::DeviceAddress, files, pkcs11, redact::RedactedAddress, timestamp::SourceAddress,
};
use sshsm_client::{Failure, Kind};

/// The table of certificate authorities; every other table is a command's.
const AUTHORITIES: &str = "ca";

/// The contents of the configuration files.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    files: Vec<PathBuf>,
    settings: Vec<Setting>,
    authorities: BTreeMap<String, Authority>,
}

/// An option of a command.
#[derive(Debug)]
struct Setting {
    file: PathBuf,
    /// Empty for those of every command.
    command: Vec<String>,
    option: String,
    values: Vec<String>,
}

/// A certificate authority: what `sign` and `agent` need to know, apart from the request itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Authority {
    /// The location of its key.
    #[serde(default, deserialize_with = "texts")]
    pub(super) device: Vec<DeviceAddress>,
    #[serde(default, deserialize_with = "text")]
    pub(super) auth_key: Option<Id>,
    pub(super) password_file: Option<PathBuf>,
    /// The CA key's id on the device.
    #[serde(default, deserialize_with = "text")]
    pub(super) key: Option<Id>,
    #[serde(default, deserialize_with = "text")]
    pub(super) template: Option<TemplateName>,
    /// File with the CA's public key; nothing is signed by another one.
    pub(super) public_key: Option<PathBuf>,
    #[serde(default, deserialize_with = "text")]
    pub(super) timestamp: Option<SourceAddress>,
    pub(super) signature_algorithm: Option<RsaSignature>,
    /// The token that signs if no device answers; needs the public key.
    #[serde(default, deserialize_with = "text")]
    pub(super) fallback: Option<pkcs11::Uri>,
    /// The template that it signs under, a file.
    #[serde(default, deserialize_with = "text")]
    pub(super) fallback_template: Option<TemplateName>,
}

/// An object's id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id(pub(super) ObjectId);

impl FromStr for Id {
    type Err = arguments::ArgumentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        arguments::object_id(text).map(Self)
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigurationError {
    #[error("cannot read the configuration file {}", shown(path))]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration file {} is malformed", shown(path))]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error("the configuration file {} has a table [{table}], but there is no such command", shown(path))]
    Command { path: PathBuf, table: String },
    #[error("the configuration file {} sets {option}, which is not an option of {command}", shown(path))]
    Option { path: PathBuf, command: String, option: String },
    #[error(
        "the configuration file {} gives {option} a value that is not a string, number, boolean or list of them",
        shown(path)
    )]
    Value { path: PathBuf, option: String },
    #[error(
        "the configuration file {} gives the CA {ca:?} a fallback but no public-key, so the token could be another CA",
        shown(path)
    )]
    Fallback { path: PathBuf, ca: String },
}

impl Failure for ConfigurationError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => match Kind::from(source) {
                Kind::Failed => Kind::Usage,
                kind => kind,
            },
            Self::Malformed { .. }
            | Self::Command { .. }
            | Self::Option { .. }
            | Self::Value { .. }
            | Self::Fallback { .. } => Kind::Usage,
        }
    }
}

impl Configuration {
    /// Reads the files that exist, or the one that the command line names.
    ///
    /// # Errors
    /// When one cannot be read or is malformed; missing files are not an error, unless named.
    pub(super) fn load(arguments: &[OsString]) -> Result<Self, ConfigurationError> {
        let mut configuration = Self::default();
        if let Some(path) = named(arguments) {
            configuration.read(&path)?;
            return Ok(configuration);
        }
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let user = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        let files = [Some(PathBuf::from("/etc")), user];
        for path in files.into_iter().flatten().map(|directory| directory.join("sshsm/config.toml")) {
            match configuration.read(&path) {
                Err(ConfigurationError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(configuration)
    }

    /// Reads a file over those that were read before.
    fn read(&mut self, path: &Path) -> Result<(), ConfigurationError> {
        let path = path.to_owned();
        let text = files::read_trusted_text(&path)
            .map_err(|source| ConfigurationError::Read { path: path.clone(), source })?;
        self.parse(path, &text)
    }

    /// Applies a file's values over those read before.
    pub(super) fn parse(&mut self, path: PathBuf, text: &str) -> Result<(), ConfigurationError> {
        let malformed =
            |source| ConfigurationError::Malformed { path: path.clone(), source: Box::new(source) };
        let mut table: toml::Table = text.parse().map_err(malformed)?;
        if table.remove(AUTHORITIES).is_some() {
            // Parsed from the text again, so that errors have line and column.
            #[derive(Deserialize)]
            struct Authorities {
                ca: BTreeMap<String, Authority>,
            }
            let Authorities { ca } = toml::from_str(text).map_err(malformed)?;
            let blind = |ca: &Authority| ca.fallback.is_some() && ca.public_key.is_none();
            if let Some((name, _)) = ca.iter().find(|(_, ca)| blind(ca)) {
                return Err(ConfigurationError::Fallback { path, ca: name.clone() });
            }
            let folder = path.parent().unwrap_or(Path::new(""));
            self.authorities.extend(ca.into_iter().map(|(name, ca)| (name, ca.beside(folder))));
        }
        self.settings_of(&path, Vec::new(), table)?;
        self.files.push(path);
        Ok(())
    }

    fn settings_of(
        &mut self,
        file: &Path,
        command: Vec<String>,
        table: toml::Table,
    ) -> Result<(), ConfigurationError> {
        for (option, value) in table {
            let scalar = |value: toml::Value| match value {
                toml::Value::String(text) => Some(text),
                toml::Value::Integer(number) => Some(number.to_string()),
                toml::Value::Boolean(yes) => Some(yes.to_string()),
                _ => None,
            };
            let values = match value {
                toml::Value::Table(table) => {
                    self.settings_of(file, [command.clone(), vec![option]].concat(), table)?;
                    continue;
                }
                toml::Value::Array(values) => values.into_iter().map(scalar).collect::<Option<Vec<_>>>(),
                value => scalar(value).map(|value| vec![value]),
            };
            let values = values
                .ok_or_else(|| ConfigurationError::Value { path: file.to_owned(), option: option.clone() })?;
            self.settings.push(Setting { file: file.to_owned(), command: command.clone(), option, values });
        }
        Ok(())
    }

    /// The files that were read.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The certificate authority of this name.
    pub(super) fn authority(&self, name: &str) -> Option<&Authority> {
        self.authorities.get(name)
    }

    /// The names of all.
    pub(super) fn authorities(&self) -> impl Iterator<Item = &str> {
        self.authorities.keys().map(String::as_str)
    }

    /// Makes the files' values the defaults of the options.
    ///
    /// # Errors
    /// When there is no such command or option.
    pub(super) fn apply(&self, mut tree: Command) -> Result<Command, ConfigurationError> {
        for setting in &self.settings {
            let mut command = &tree;
            for name in &setting.command {
                command = command.find_subcommand(name).ok_or_else(|| ConfigurationError::Command {
                    path: setting.file.clone(),
                    table: setting.command.join("."),
                })?;
            }
            let known = |argument: &Arg| {
                argument.get_long() == Some(setting.option.as_str()) && can_be_preset(argument)
            };
            if !command.get_arguments().any(known) {
                return Err(ConfigurationError::Option {
                    path: setting.file.clone(),
                    command: match setting.command.as_slice() {
                        [] => "every command".into(),
                        names => format!("`sshsm {}`", names.join(" ")),
                    },
                    option: setting.option.clone(),
                });
            }
        }
        tree = each_argument(tree, &[], &mut |path, argument| {
            let of = |setting: &&Setting| {
                setting.command == path && argument.get_long() == Some(setting.option.as_str())
            };
            match self.settings.iter().rev().find(of) {
                Some(setting) => {
                    let folder = setting.file.parent().unwrap_or(Path::new(""));
                    let values = setting.values.iter().map(|value| beside(&argument, value, folder));
                    let values: Vec<_> = values.collect();
                    argument.default_values(values).required(false)
                }
                None => argument,
            }
        });
        Ok(tree)
    }
}

/// Gives every option without an environment variable one: `SSHSM_` and the names of the command and the
/// option.
pub(super) fn with_environment(tree: Command) -> Command {
    each_argument(tree, &[], &mut |path, argument| match argument.get_long() {
        Some(long) if can_be_preset(&argument) && argument.get_env().is_none() => {
            let name = [&["sshsm".to_owned()], path, &[long.to_owned()]].concat().join("_");
            argument.env(name.to_uppercase().replace('-', "_")).hide_env(true)
        }
        _ => {
            // Help would show the variable's value, which may be an address with a secret in it.
            let value = argument.get_env().and_then(env::var_os).unwrap_or_default();
            let value = value.to_string_lossy();
            let secret = RedactedAddress(&value).to_string() != value || value.contains(char::is_control);
            argument.hide_env_values(secret)
        }
    })
}

/// Options that allow something to be lost: each must be given for the one call that it is meant for.
const CONFIRMATIONS: [&str; 3] = ["replace", "allow-empty", "force"];

/// Whether an option may be set other than on the command line. An option that confirms
/// (`--delete-everything`) must be given on the command line itself, and so must the one that permits a
/// fallback.
fn can_be_preset(argument: &Arg) -> bool {
    let flag = !argument.get_action().takes_values();
    match argument.get_action() {
        ArgAction::Help | ArgAction::HelpLong | ArgAction::HelpShort | ArgAction::Version => false,
        _ if argument.get_long().is_some_and(|long| CONFIRMATIONS.contains(&long)) => false,
        _ => {
            !(flag && argument.is_required_set()
                || matches!(argument.get_long(), Some("config" | "fallback")))
        }
    }
}

fn each_argument(tree: Command, path: &[String], change: &mut impl FnMut(&[String], Arg) -> Arg) -> Command {
    let names: Vec<_> = tree.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let tree = tree.mut_args(|argument| change(path, argument));
    names.into_iter().fold(tree, |tree, name| {
        let path = [path, std::slice::from_ref(&name)].concat();
        tree.mut_subcommand(name, |command| each_argument(command, &path, change))
    })
}

/// The file that the command line or the environment names.
fn named(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|argument| argument.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    env::var_os("SSHSM_CONFIG").map(PathBuf::from)
}

/// The value of an option, with its paths relative to `folder`.
fn beside(argument: &Arg, value: &str, folder: &Path) -> OsString {
    let kind = argument.get_value_parser().type_id();
    if kind == TypeId::of::<PathBuf>() {
        return folder.join(value).into_os_string();
    }
    if kind == TypeId::of::<DeviceAddress>()
        && let Ok(address) = value.parse::<DeviceAddress>()
    {
        return address.beside(folder).to_string().into();
    }
    if kind == TypeId::of::<SourceAddress>()
        && let Ok(address) = value.parse::<SourceAddress>()
    {
        return address.beside(folder).to_string().into();
    }
    if kind == TypeId::of::<LedgerChoice>()
        && let Ok(ledger) = value.parse::<LedgerChoice>()
    {
        return ledger.beside(folder).into_os_string();
    }
    value.into()
}

impl Authority {
    /// With relative paths begun at `folder`.
    fn beside(self, folder: &Path) -> Self {
        let path = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        let template = |template| match template {
            TemplateName::File(file) => TemplateName::File(folder.join(file)),
            id => id,
        };
        Self {
            device: self.device.into_iter().map(|device| device.beside(folder)).collect(),
            password_file: path(self.password_file),
            template: self.template.map(template),
            public_key: path(self.public_key),
            timestamp: self.timestamp.map(|source| source.beside(folder)),
            fallback: self.fallback.map(|uri| uri.beside(folder)),
            fallback_template: self.fallback_template.map(template),
            ..self
        }
    }
}

/// A value that is written as text, or as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(u64),
}

impl Text {
    fn parse<T: FromStr<Err: fmt::Display>, E: de::Error>(self) -> Result<T, E> {
        let text = match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        };
        text.parse().map_err(E::custom)
    }
}

fn text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(from: D) -> Result<Option<T>, D::Error> {
    Text::deserialize(from)?.parse().map(Some)
}

/// One, or a list.
fn texts<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(Text),
        Several(Vec<Text>),
    }
    match Texts::deserialize(from)? {
        Texts::One(text) => Ok(vec![text.parse()?]),
        Texts::Several(texts) => texts.into_iter().map(Text::parse).collect(),
    }
}
