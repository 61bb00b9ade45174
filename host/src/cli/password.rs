//! The password of an authentication key: from a file, the environment or the terminal, never from an argument.

use std::{
    env,
    io::{self, IsTerminal},
    path::Path,
};

use sshsm_protocol::ObjectId;
use zeroize::Zeroizing;

use super::error::{CliError, FileError};
use crate::{input, output::shown};

/// Reads the password of authentication key `key` of `device`; an option goes before the environment, and that
/// before a prompt.
pub(super) fn read(file: Option<&Path>, key: ObjectId, device: &str) -> Result<Zeroizing<String>, CliError> {
    if let Some(path) = file {
        return from_file(path);
    }
    match from_environment("SSHSM_PASSWORD")? {
        Some(password) => Ok(password),
        None => prompt(&format!("Password of authentication key {key} on {device}: "))?
            .ok_or(CliError::NoPassword),
    }
}

/// The passphrase of an encrypted private key file.
pub(super) fn key_passphrase(file: &Path) -> io::Result<Zeroizing<String>> {
    let ask = || match from_environment("SSHSM_KEY_PASSPHRASE")? {
        Some(passphrase) => Ok(Some(passphrase)),
        None => prompt(&format!("Passphrase of {}: ", shown(file))),
    };
    match ask() {
        Ok(Some(passphrase)) => Ok(passphrase),
        Ok(None) => Err(io::Error::other("there is no terminal to ask for it; set SSHSM_KEY_PASSPHRASE")),
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

/// Asks on the terminal; `None` where there is none.
fn prompt(question: &str) -> Result<Option<Zeroizing<String>>, CliError> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    rpassword::prompt_password(question)
        .map(|answer| Some(Zeroizing::new(answer)))
        .map_err(CliError::Terminal)
}
