//! The exit code of `sshsm`, which the help and the README list.

use sshsm_client::Kind;
use std::process::ExitCode;

/// The meaning of the exit code of `sshsm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It failed for a reason that has no code of its own.
    Failed = 1,
    /// The arguments were wrong; nothing was tried.
    Usage = 2,
    /// The device is unreachable or broken.
    Device = 3,
    /// Wrong password, unknown authentication key, or no password.
    Authentication = 4,
    /// A template or a missing right forbids it.
    Refused = 5,
    /// A file could not be read or written.
    File = 6,
    /// The device waited for a touch, which did not come.
    Untouched = 7,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Failed => Self::Failed,
            Kind::Usage => Self::Usage,
            Kind::Device => Self::Device,
            Kind::Authentication => Self::Authentication,
            Kind::Refused => Self::Refused,
            Kind::File => Self::File,
            Kind::Untouched => Self::Untouched,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
