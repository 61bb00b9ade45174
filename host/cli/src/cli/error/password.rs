//! A password, passphrase or PIN that is not there or cannot be used.

use std::io;

use crate::passphrase::Weakness;
use sshsm_client::{Failure, Kind};

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("no password was given, and there is no terminal to ask for it")]
    None,
    /// With the places where it may be given.
    #[error("no new password was given, and there is no terminal to ask for it")]
    NoNew(&'static str),
    #[error("the two new passwords differ; nothing was changed")]
    Differ,
    /// It was set by a script with a missing variable, or left empty by mistake: an empty one is never tried.
    #[error("{0} is empty, and an empty password, passphrase or PIN is never used")]
    Empty(String),
    #[error(transparent)]
    Weak(#[from] Weakness),
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("cannot ask on the terminal")]
    Terminal(#[source] io::Error),
}

impl Failure for PasswordError {
    fn kind(&self) -> Kind {
        Kind::Authentication
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::None => Some("set SSHSM_PASSWORD or name a file with --password-file"),
            Self::NoNew(advice) => Some(advice),
            Self::Weak(_) => Some("--generate makes a strong one; --allow-weak-password accepts this one"),
            Self::Differ | Self::Empty(_) | Self::NotUtf8(_) | Self::Terminal(_) => None,
        }
    }
}
