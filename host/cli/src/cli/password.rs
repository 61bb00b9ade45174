//! The password of an authentication key: from a file, the environment or the terminal, never from an argument.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use clap::Args;
use sshsm_protocol::ObjectId;
use zeroize::Zeroizing;

use super::{
    error::{CliError, FileError, PasswordError},
    prompt,
};
use crate::{
    output::{self, shown},
    passphrase,
};
use sshsm_ca::{
    files,
    pkcs11::{PinRequest, error::Tries},
};
use sshsm_client::ClientError;

/// The file that a password may come from.
#[derive(Clone, Debug, Default)]
pub(super) struct PasswordFile {
    pub(super) path: Option<PathBuf>,
    /// The command line or the environment names it, not a configuration file.
    pub(super) explicit: bool,
}

/// Reads the password of authentication key `key` of `device`, from the first of: a file named on the command
/// line or in the environment, SSHSM_PASSWORD, a file named in the configuration, a prompt.
pub(super) fn read(file: &PasswordFile, key: ObjectId, device: &str) -> Result<Zeroizing<String>, CliError> {
    match from_file_or_environment(file, "SSHSM_PASSWORD")? {
        Some(password) => Ok(password),
        None => {
            let password = ask(&format!("Password of authentication key {key} on {device}: "))?;
            Ok(password.ok_or(PasswordError::None)?)
        }
    }
}

/// The order for every password: a file named for this call, the variable, a file named in the configuration.
fn from_file_or_environment(
    file: &PasswordFile,
    variable: &'static str,
) -> Result<Option<Zeroizing<String>>, CliError> {
    if let PasswordFile { path: Some(path), explicit: true } = file {
        return from_file(path).map(Some);
    }
    if let Some(password) = from_environment(variable)? {
        return Ok(Some(password));
    }
    file.path.as_deref().map(from_file).transpose()
}

/// Describes a new password.
pub(super) struct New {
    /// The environment variable that may contain it.
    variable: &'static str,
    questions: [&'static str; 2],
    /// What to do if it is not given.
    advice: &'static str,
    /// Its owner, for people.
    whose: &'static str,
}

/// Of the authentication key that a command is about.
pub(super) const NEW: New = New {
    variable: "SSHSM_NEW_PASSWORD",
    questions: ["New password: ", "The new password again: "],
    advice: "--generate makes one; or set SSHSM_NEW_PASSWORD, or name a file with --new-password-file",
    whose: "the authentication key",
};

/// The password that `provision` gives to authentication key 1.
pub(super) const ADMINISTRATOR: New = New { whose: "the administrator, authentication key 1", ..NEW };

/// Of an authentication key that can sign and nothing else.
pub(super) const SIGNER: New = New {
    variable: "SSHSM_SIGNER_PASSWORD",
    questions: ["Password of the key that signs: ", "The password of the key that signs again: "],
    advice: "--generate makes one; or set SSHSM_SIGNER_PASSWORD, or name a file with --signer-password-file",
    whose: "the authentication key that signs",
};

/// How a new password is obtained.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Terms {
    /// Generate a random password of 125 bits, and show it once, on stderr; with a file for the password,
    /// write it there instead, readable by its owner only
    #[arg(long)]
    generate: bool,
    /// Accept a new password of fewer than 12 characters, or the factory password: a single answer from the
    /// device is enough to find such a password elsewhere
    #[arg(long)]
    allow_weak_password: bool,
}

/// What to do with a file that [`Terms::generate`] was to make, and that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// It is an earlier run's, and has the password.
    Read,
    /// It is another password's.
    Refuse,
}

/// The new password of an authentication key: from a file named on the command line or in the environment,
/// the environment, a file named in the configuration, or the terminal, where it is asked for twice; or
/// generated here.
pub(super) fn read_new(
    file: &PasswordFile,
    terms: Terms,
    existing: Existing,
    new: &New,
) -> Result<Zeroizing<String>, CliError> {
    let password =
        if terms.generate { generate(file.path.as_deref(), existing, new)? } else { given(file, new)? };
    match passphrase::check(&password) {
        Err(weakness) if !terms.allow_weak_password => Err(PasswordError::Weak(weakness).into()),
        _ => Ok(password),
    }
}

fn given(file: &PasswordFile, new: &New) -> Result<Zeroizing<String>, CliError> {
    if let Some(password) = from_file_or_environment(file, new.variable)? {
        return Ok(password);
    }
    let [question, again] = new.questions;
    let password = ask(question)?.ok_or(PasswordError::NoNew(new.advice))?;
    if ask(again)?.as_ref() == Some(&password) { Ok(password) } else { Err(PasswordError::Differ.into()) }
}

/// Generates a password and hands it over before any key has it, so that no key ever has one that was lost.
fn generate(file: Option<&Path>, existing: Existing, new: &New) -> Result<Zeroizing<String>, CliError> {
    if from_environment(new.variable)?.is_some() {
        return Err(CliError::Usage(format!("both --generate and {} are there; unset one", new.variable)));
    }
    let password = passphrase::generate().map_err(ClientError::Entropy)?;
    let Some(path) = file else {
        let shown = Zeroizing::new(format!("password of {}, shown this once: {}", new.whose, *password));
        output::talk(shown.as_str());
        return Ok(password);
    };
    let line = Zeroizing::new(format!("{}\n", *password));
    match files::write_new_secret(path, line.as_bytes()) {
        Ok(()) => {
            output::talk(format_args!("password of {} written to {}", new.whose, shown(path)));
            Ok(password)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && existing == Existing::Read => {
            output::talk(format_args!(
                "password of {} taken from {}, which is there",
                new.whose,
                shown(path)
            ));
            from_file(path)
        }
        Err(error) => Err(FileError::write(path, error).into()),
    }
}

/// The passphrase of an encrypted private key file.
pub(super) fn key_passphrase(file: &Path) -> io::Result<Zeroizing<String>> {
    let ask = || match from_environment("SSHSM_KEY_PASSPHRASE")? {
        Some(passphrase) => Ok(Some(passphrase)),
        None => ask(&format!("Passphrase of {}: ", shown(file))),
    };
    match ask() {
        Ok(Some(passphrase)) => Ok(passphrase),
        Ok(None) => Err(io::Error::other("there is no terminal to ask for it; set SSHSM_KEY_PASSPHRASE")),
        Err(error) => Err(io::Error::other(error.line())),
    }
}

/// The user's PIN of a PKCS#11 token; if one try is left, only a PIN typed now is used.
pub(super) fn pin(request: &PinRequest) -> io::Result<Zeroizing<String>> {
    let PinRequest { token, tries } = request;
    let left = match tries {
        Tries::Unknown => String::new(),
        tries => format!(" ({tries})"),
    };
    let ask = || match from_environment("SSHSM_PIN")? {
        Some(_) if *tries == Tries::Final => Ok(None),
        Some(pin) => Ok(Some(pin)),
        None => ask(&format!("PIN of the token {token}{left}: ")),
    };
    match ask() {
        Ok(Some(pin)) => Ok(pin),
        Ok(None) if *tries == Tries::Final => {
            Err(io::Error::other("ONE TRY is left before it is locked; it is kept for a PIN that is typed"))
        }
        Ok(None) => Err(io::Error::other("none was given, and there is no terminal to ask for it")),
        Err(error) => Err(io::Error::other(error.line())),
    }
}

/// The content without its final line ending, which is never nothing.
fn from_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = files::read_secret_text(path).map_err(|source| FileError::read(path, source))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(PasswordError::Empty(format!("the file {}", shown(path))).into());
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn from_environment(name: &'static str) -> Result<Option<Zeroizing<String>>, CliError> {
    match env::var_os(name).map(std::ffi::OsString::into_string) {
        None => Ok(None),
        Some(Ok(secret)) if secret.is_empty() => {
            Err(PasswordError::Empty(format!("the variable {name}")).into())
        }
        Some(Ok(secret)) => Ok(Some(Zeroizing::new(secret))),
        Some(Err(_)) => Err(PasswordError::NotUtf8(name).into()),
    }
}

fn ask(question: &str) -> Result<Option<Zeroizing<String>>, CliError> {
    match prompt::secret(question).map_err(PasswordError::Terminal)? {
        Some(secret) if secret.is_empty() => Err(PasswordError::Empty("the typed password".into()).into()),
        secret => Ok(secret),
    }
}
