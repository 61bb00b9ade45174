//! Why a command failed: what is printed on stderr, and the exit code.
//!
//! Each layer's error says itself whose fault it is and what to do next ([`Failure`]).

mod exit;
mod file;
mod password;
mod shortfall;

use std::{
    error::Error,
    fmt::{self, Write},
    io,
};

use sshsm_simulator::connector::BindError;

use super::configuration::ConfigurationError;
use crate::{
    backup::BackupError, flash::FlashError, output::causes, provision::ProvisionError,
    quickstart::QuickstartError,
};
use sshsm_ca::{
    audit::AuditError,
    device_address::OpenError,
    issue::IssueError,
    ledger::LedgerError,
    pkcs11::Pkcs11Error,
    signer::SignerError,
    timestamp::{TimestampError, service::ListenError},
};
use sshsm_client::{ClientError, ExchangeError, Failure, Kind, private_session::PrivateSessionError};

pub(crate) use crate::output::line;
pub use exit::Exit;
pub(crate) use file::FileError;
pub(crate) use password::PasswordError;
pub(crate) use shortfall::Shortfall;

/// An error of any layer.
#[derive(Debug)]
pub(crate) struct Source(Box<dyn Failure + Send + Sync>);

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Error for Source {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// One that no command looks into.
    #[error(transparent)]
    Other(Source),
    /// The content of a file or of an object is invalid.
    #[error("{subject}")]
    Content { subject: String, source: Source },
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    #[error("the service failed")]
    Service(#[source] io::Error),
    #[error("{0}")]
    Usage(String),
}

impl From<ExchangeError> for CliError {
    fn from(error: ExchangeError) -> Self {
        Self::Open(error.into())
    }
}

/// Errors that no command looks into.
macro_rules! others {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::other(error)
            }
        })*
    };
}

others!(
    AuditError,
    BackupError,
    ConfigurationError,
    FileError,
    FlashError,
    ListenError,
    PrivateSessionError,
    ProvisionError,
    QuickstartError,
    Shortfall,
    TimestampError,
);

/// A reason in the form of a sentence, or an error from a library that has no kinds.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Reason(Box<dyn Error + Send + Sync>);

impl Failure for Reason {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

impl Failure for CliError {
    fn kind(&self) -> Kind {
        self.layer().map_or_else(|own| own, Failure::kind)
    }

    fn help(&self) -> Option<&'static str> {
        self.layer().ok()?.help()
    }
}

impl CliError {
    /// The error of the layer that failed; the kind of one that is the command line's own.
    fn layer(&self) -> Result<&dyn Failure, Kind> {
        Ok(match self {
            Self::Open(error) => error,
            Self::Client(error) => error,
            Self::Pkcs11(error) => error,
            Self::Signer(error) => error,
            Self::Issue(error) => error,
            Self::Ledger(error) => error,
            Self::Password(error) => error,
            Self::Other(source) | Self::Content { source, .. } => source.0.as_ref(),
            Self::Bind(BindError::Remote(_)) | Self::Usage(_) => return Err(Kind::Usage),
            Self::Bind(BindError::Io { .. }) | Self::Service(_) => return Err(Kind::Failed),
            Self::Output(_) => return Err(Kind::File),
        })
    }

    /// An error that no command looks into.
    pub(crate) fn other(error: impl Failure + Send + Sync + 'static) -> Self {
        Self::Other(Source(Box::new(error)))
    }

    /// An error of a library module about `subject`.
    pub(crate) fn content(subject: impl ToString, source: impl Failure + Send + Sync + 'static) -> Self {
        Self::Content { subject: subject.to_string(), source: Source(Box::new(source)) }
    }

    /// What is wrong with the content of `subject`, as a sentence or from another library.
    pub(crate) fn because(subject: impl ToString, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::content(subject, Reason(reason.into()))
    }

    pub(crate) fn exit(&self) -> Exit {
        self.kind().into()
    }

    /// The error, its causes and the next step, for stderr.
    pub(crate) fn report(&self) -> String {
        // Lines of a cause are indented, so that none of them can be mistaken for one of ours.
        let mut text = format!("error: {}\n", self.to_string().trim_end().replace('\n', "\n  "));
        for cause in causes(self) {
            let _ = writeln!(text, "  because: {}", cause.trim_end().replace('\n', "\n  "));
        }
        if let Some(step) = self.help() {
            let _ = writeln!(text, "  try: {step}");
        }
        text
    }

    /// The error and its causes on one line.
    pub(crate) fn line(&self) -> String {
        line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sshsm_protocol::{Command, DeviceError, ObjectId};

    use super::*;

    fn refused(error: DeviceError) -> CliError {
        ClientError::Device { command: Command::SignSshCertificate, error }.into()
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let lost = ExchangeError::Unreachable { address: "x".into(), source: io::Error::other("gone") };
        let key = ObjectId::DEFAULT_AUTHENTICATION_KEY;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        for (error, code) in [
            (CliError::because("a file", "is odd"), 1),
            (CliError::Usage("both".into()), 2),
            (lost.into(), 3),
            (refused(DeviceError::SessionsFull), 3),
            (ClientError::WrongPassword(key).into(), 4),
            (ClientError::UnknownAuthenticationKey(key).into(), 4),
            (PasswordError::None.into(), 4),
            (refused(DeviceError::SshCaConstraintViolation), 5),
            (Shortfall::Refused { refused: 1, total: 2 }.into(), 5),
            (FileError::read(Path::new("x"), missing()).into(), 6),
            (refused(DeviceError::PresenceTimeout), 7),
            (refused(DeviceError::TemplatesFrozen), 5),
            (CliError::content("x", missing()), 6),
            (refused(DeviceError::ObjectNotFound), 1),
        ] {
            assert_eq!(error.exit() as u8, code, "{error:?}");
        }
    }

    #[test]
    fn whose_fault_it_is_and_what_to_do_is_the_same_through_every_layer() {
        let untouched = || {
            SignerError::from(ClientError::Device {
                command: Command::SignSshCertificate,
                error: DeviceError::PresenceTimeout,
            })
        };
        for error in [
            CliError::from(untouched()),
            IssueError::Signer(untouched()).into(),
            QuickstartError::Issue(IssueError::Signer(untouched())).into(),
            ProvisionError::Signer(untouched()).into(),
        ] {
            assert_eq!(
                (error.exit(), error.help()),
                (Exit::Untouched, Some(sshsm_client::TOUCH)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn of_several_failures_the_gravest_says_the_exit_code() {
        let kinds = [Kind::Refused, Kind::File, Kind::Failed, Kind::Untouched];
        assert_eq!(kinds.into_iter().max().map(Exit::from), Some(Exit::File));
        assert_eq!([Kind::File, Kind::Device, Kind::Authentication].into_iter().max(), Some(Kind::Device));
    }

    #[test]
    fn who_may_not_open_a_port_is_told_of_the_udev_rule() {
        let report = CliError::from(ExchangeError::PortDenied { path: "/dev/ttyACM0".into() }).report();
        assert!(report.contains("/dev/ttyACM0") && report.contains("host/udev/70-sshsm.rules"), "{report}");
    }

    #[test]
    fn a_report_has_the_causes_and_the_next_step() {
        let source = io::Error::other("connection refused");
        let error = CliError::from(ExchangeError::Unreachable { address: "http://h:1".into(), source });
        assert_eq!(
            error.report(),
            "error: no device at http://h:1\n  because: connection refused\n  \
             try: is sshsm-sim or yubihsm-connector running at that address?\n"
        );
        assert_eq!(error.line(), "no device at http://h:1: connection refused");
    }
}
