//! The classification of every error of this program: whose fault it is, and what to do next.
//!
//! Each error decides both for each of its variants, in its own file. The command line turns the kinds into
//! exit codes.

use std::{error::Error, io};

use sshsm_protocol::ssh::{request::RequestError, template::TemplateError};

/// Whose fault a failure is, in order of severity: failures that concern the whole call rank above those of
/// one file, which rank above a negative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A template or a missing right forbids it.
    Refused,
    /// The device waited for a touch, and none came.
    Untouched,
    /// A reason that has no kind of its own.
    Failed,
    /// The arguments or the settings are wrong; nothing was tried.
    Usage,
    /// A file cannot be read or written.
    File,
    /// Wrong password, unknown authentication key, or no password.
    Authentication,
    /// The device is unreachable or broken.
    Device,
}

/// An error that says whose fault it is.
pub trait Failure: Error {
    /// Whose fault it is.
    fn kind(&self) -> Kind;

    /// What to do next with `sshsm`, if the error message does not say it.
    fn help(&self) -> Option<&'static str> {
        None
    }
}

/// The system's refusals concern a file. An error that does not come from the system is one of ours, such as
/// a missing passphrase; and a file that is not text could be read.
impl From<&io::Error> for Kind {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidData => Self::Failed,
            _ => Self::File,
        }
    }
}

impl Failure for io::Error {
    fn kind(&self) -> Kind {
        self.into()
    }
}

/// Content that is malformed.
macro_rules! malformed {
    ($($error:ty),* $(,)?) => {
        $(impl Failure for $error {
            fn kind(&self) -> Kind {
                Kind::Failed
            }
        })*
    };
}

malformed!(RequestError, TemplateError);
