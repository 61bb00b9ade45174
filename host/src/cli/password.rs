//! The password of an authentication key: from a file, the environment or the terminal, never from an argument.

use std::{env, io, path::Path};

use sshsm_protocol::ObjectId;
use zeroize::Zeroizing;

use super::{
    error::{CliError, FileError},
    prompt,
};
use crate::{
    input,
    output::shown,
    pkcs11::{PinRequest, error::Tries},
};

/// Reads the password of authentication key `key` of `device`; an option goes before the environment, and that
/// before a prompt.
pub(super) fn read(file: Option<&Path>, key: ObjectId, device: &str) -> Result<Zeroizing<String>, CliError> {
    if let Some(path) = file {
        return from_file(path);
    }
    match from_environment("SSHSM_PASSWORD")? {
        Some(password) => Ok(password),
        None => {
            ask(&format!("Password of authentication key {key} on {device}: "))?.ok_or(CliError::NoPassword)
        }
    }
}

/// Where a new password comes from when no file has it.
pub(super) struct New {
    variable: &'static str,
    questions: [&'static str; 2],
    /// What to do where neither is.
    advice: &'static str,
}

/// Of the authentication key that a command is about.
pub(super) const NEW: New = New {
    variable: "SSHSM_NEW_PASSWORD",
    questions: ["New password: ", "The new password again: "],
    advice: "set SSHSM_NEW_PASSWORD or name a file with --new-password-file",
};

/// Of an authentication key that can sign and nothing else.
pub(super) const SIGNER: New = New {
    variable: "SSHSM_SIGNER_PASSWORD",
    questions: ["Password of the key that signs: ", "The password of the key that signs again: "],
    advice: "set SSHSM_SIGNER_PASSWORD or name a file with --signer-password-file",
};

/// Reads the password that an authentication key is to have; on a terminal it is asked for twice.
pub(super) fn read_new(file: Option<&Path>, new: &New) -> Result<Zeroizing<String>, CliError> {
    let [question, again] = new.questions;
    let password = match file {
        Some(path) => from_file(path)?,
        None => match from_environment(new.variable)? {
            Some(password) => password,
            None => {
                let password = ask(question)?.ok_or(CliError::NoNewPassword(new.advice))?;
                if ask(again)?.as_ref() != Some(&password) {
                    return Err(CliError::PasswordsDiffer);
                }
                password
            }
        },
    };
    if password.is_empty() { Err(CliError::EmptyPassword) } else { Ok(password) }
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

/// The user's PIN of a PKCS#11 token; where one try is left, only what is typed now is tried.
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

/// The content without its final line ending.
fn from_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = input::read_text(path).map_err(|source| FileError::read(path, source))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

fn from_environment(name: &'static str) -> Result<Option<Zeroizing<String>>, CliError> {
    match env::var_os(name).map(std::ffi::OsString::into_string) {
        None => Ok(None),
        Some(Ok(secret)) => Ok(Some(Zeroizing::new(secret))),
        Some(Err(_)) => Err(CliError::NotUtf8(name)),
    }
}

fn ask(question: &str) -> Result<Option<Zeroizing<String>>, CliError> {
    prompt::secret(question).map_err(CliError::Terminal)
}
