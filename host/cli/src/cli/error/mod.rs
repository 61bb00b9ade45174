//! Why a command failed: what is printed on stderr, what the reader can do next, and the exit code.

use std::{
    error::Error,
    fmt::Write,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::configuration::ConfigurationError;
use sshsm_protocol::{Command, DeviceError, ObjectId, link::LinkError};
use sshsm_simulator::connector::BindError;

use crate::{
    audit::AuditError,
    backup::BackupError,
    device_address::OpenError,
    flash::FlashError,
    issue::IssueError,
    key_file::KeyFileError,
    ledger::LedgerError,
    output::{causes, shown},
    passphrase::Weakness,
    pkcs11::{Pkcs11Error, error::Tries},
    provision::ProvisionError,
    quickstart::QuickstartError,
    secure_boot::BootKeyError,
    shares::ShareError,
    signature::VerifyError,
    signer::SignerError,
    timestamp::{TimestampError, agent_key::AgentKeyError, remote::RemoteError, service::ListenError},
};
use sshsm_client::{
    ClientError, ExchangeError,
    private_session::{PrivateSessionError, SUCCESSOR},
};

pub(crate) use crate::output::line;

/// What the exit code of `sshsm` says.
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
    /// The device waited for a touch, and nobody touched it.
    Untouched = 7,
}

impl Exit {
    /// The graver of two, for a command that went on after a failure: what concerns all that is asked goes before what
    /// concerns one file, and that before an answer that was no.
    pub(crate) fn worst(self, other: Self) -> Self {
        let gravity = |exit| match exit {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Untouched => 2,
            Self::Failed => 3,
            Self::Usage => 4,
            Self::File => 5,
            Self::Authentication => 6,
            Self::Device => 7,
        };
        if gravity(other) > gravity(self) { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {}", shown(path))]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", shown(path))]
    Write { path: PathBuf, source: io::Error },
}

impl FileError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}

const TOUCH: &str = "repeat the command and touch the device while it waits";

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
    Signer(SignerError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("no password was given, and there is no terminal to ask for it")]
    NoPassword,
    #[error("no new password was given, and there is no terminal to ask for it")]
    NoNewPassword(&'static str),
    #[error("the two new passwords differ; nothing was changed")]
    PasswordsDiffer,
    /// It was set by a script whose own variable was missing, or left out by mistake: it is never tried.
    #[error("{0} is empty, and an empty password, passphrase or PIN is never used")]
    EmptySecret(String),
    #[error(transparent)]
    WeakPassword(Weakness),
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("cannot ask on the terminal")]
    Terminal(#[source] io::Error),
    #[error("the certificate in {} is not one that a server would accept", shown(.0))]
    Unverified(PathBuf, #[source] VerifyError),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Timestamp(TimestampError),
    /// Somebody else vouches, or nobody.
    #[error("the timestamp of {} is not signed by {authority}", shown(request))]
    Vouched { request: PathBuf, authority: String },
    #[error("the service failed")]
    Service(#[source] io::Error),
    /// The content of a file or of an object is not what it should be.
    #[error("{subject}")]
    Content { subject: String, source: Box<dyn Error + Send + Sync> },
    #[error(transparent)]
    Quickstart(Box<QuickstartError>),
    #[error(transparent)]
    Provision(Box<ProvisionError>),
    #[error(transparent)]
    PrivateSession(#[from] PrivateSessionError),
    #[error(transparent)]
    Backup(Box<BackupError>),
    #[error(transparent)]
    Flash(Box<FlashError>),
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The key is another than the configuration's, or another device's.
    #[error("CA key {key} at {device} is {found}, and {wanted}; nothing was signed with it")]
    OtherCa { device: String, key: String, found: String, wanted: String },
    /// The fallback may not be used.
    #[error("{0}")]
    Fallback(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A name that is perhaps mistyped.
    #[error("there is no ledger {}; nothing was recorded", shown(.0))]
    NoSuchLedger(PathBuf),
    #[error("the certificate was signed, but cannot be recorded; it was thrown away")]
    NotRecorded(#[source] LedgerError),
    #[error(transparent)]
    Audit(Box<AuditError>),
    #[error("{0}")]
    Findings(String),
    #[error("{refused} of {total} requests refused by the template")]
    Refused { refused: usize, total: usize },
    #[error("the template has {errors} errors and {warnings} warnings")]
    Lint { errors: usize, warnings: usize },
    #[error("the templates differ: {stricter} rules are stricter, {looser} looser, {different} neither")]
    Different { stricter: usize, looser: usize, different: usize },
    #[error("{failed} of {total} template tests failed")]
    Tests { failed: usize, total: usize },
    #[error("{failed} of {total} keys were not signed")]
    NotSigned { failed: usize, total: usize, exit: Exit },
    /// Some of several files; each was named with its reason.
    #[error("{failed} of {total} requests were not {done}")]
    NotAll { failed: usize, total: usize, done: &'static str, exit: Exit },
}

impl From<TimestampError> for CliError {
    fn from(error: TimestampError) -> Self {
        match error {
            TimestampError::Remote(
                RemoteError::Url { .. } | RemoteError::TokenInTheClear { .. } | RemoteError::Token { .. },
            ) => Self::Usage(error.to_string()),
            error => Self::Timestamp(error),
        }
    }
}

/// What the device says is told as such, whoever asked it.
impl From<SignerError> for CliError {
    fn from(error: SignerError) -> Self {
        match error {
            SignerError::Client(error) => Self::Client(error),
            SignerError::Pkcs11(error) | SignerError::Timestamp(TimestampError::Pkcs11(error)) => {
                Self::Pkcs11(error)
            }
            SignerError::Timestamp(error) => error.into(),
            SignerError::Algorithm { .. } => Self::Usage(error.to_string()),
            error => Self::Signer(error),
        }
    }
}

impl From<ExchangeError> for CliError {
    fn from(error: ExchangeError) -> Self {
        Self::Open(error.into())
    }
}

impl From<QuickstartError> for CliError {
    fn from(error: QuickstartError) -> Self {
        match error {
            QuickstartError::Open(error) => error.into(),
            QuickstartError::Client(error) => error.into(),
            QuickstartError::Signer(error) => error.into(),
            QuickstartError::Issue(error) => error.into(),
            QuickstartError::Output(error) => Self::Output(error),
            error => Self::Quickstart(Box::new(error)),
        }
    }
}

impl From<ProvisionError> for CliError {
    fn from(error: ProvisionError) -> Self {
        match error {
            ProvisionError::Client(error) => error.into(),
            ProvisionError::Signer(error) => error.into(),
            ProvisionError::PrivateSession(error) => error.into(),
            error => Self::Provision(Box::new(error)),
        }
    }
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Client(error) => error.into(),
            error => Self::Backup(Box::new(error)),
        }
    }
}

impl From<BootKeyError> for CliError {
    fn from(error: BootKeyError) -> Self {
        match error {
            BootKeyError::File(KeyFileError::Read { path, source }) => {
                FileError::Read { path, source }.into()
            }
            error => Self::content("the boot key cannot be used", error),
        }
    }
}

impl From<IssueError> for CliError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Ledger(error) => error.into(),
            IssueError::NotRecorded(error) => Self::NotRecorded(error),
            IssueError::Signer(error) => error.into(),
        }
    }
}

impl From<AuditError> for CliError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Client(error) => error.into(),
            AuditError::LedgerFailed(error) => error.into(),
            error => Self::Audit(Box::new(error)),
        }
    }
}

impl From<FlashError> for CliError {
    fn from(error: FlashError) -> Self {
        match error {
            FlashError::Exchange(error) => error.into(),
            FlashError::Client(error) => error.into(),
            error => Self::Flash(Box::new(error)),
        }
    }
}

const HALF_CHANGED: &str = "run the same command again, by the same way or another: it goes on from there and deletes 0xfffe. \
                            Or delete that yourself, with whichever password opens the key now: `sshsm key delete 0xfffe --type \
                            authentication-key`; where the key is gone, --auth-key 0xfffe opens the device with the new password";

/// What stopped it, wherever it was.
fn cause(error: &ProvisionError) -> &ProvisionError {
    match error {
        ProvisionError::Stopped { source, .. } => cause(source),
        error => error,
    }
}

impl CliError {
    /// An error of a library module about `subject`.
    pub(crate) fn content(subject: impl ToString, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Content { subject: subject.to_string(), source: source.into() }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Open(OpenError::NotSerial { .. } | OpenError::Token { .. }) => Exit::Usage,
            Self::Open(_) => Exit::Device,
            Self::Client(error) => client_exit(error),
            Self::Pkcs11(error) => pkcs11_exit(error),
            Self::File(_) | Self::Output(_) => Exit::File,
            Self::NoPassword
            | Self::NoNewPassword(_)
            | Self::PasswordsDiffer
            | Self::EmptySecret(_)
            | Self::WeakPassword(_)
            | Self::NotUtf8(_)
            | Self::Terminal(_) => Exit::Authentication,
            Self::Usage(_) | Self::Bind(BindError::Remote(_)) | Self::Listen(ListenError::Insecure(_)) => {
                Exit::Usage
            }
            Self::Bind(BindError::Io { .. })
            | Self::Listen(ListenError::Io { .. })
            | Self::Service(_)
            | Self::Vouched { .. } => Exit::Failed,
            Self::Timestamp(TimestampError::Remote(RemoteError::NotLetIn { .. })) => Exit::Authentication,
            Self::Timestamp(_) => Exit::Failed,
            Self::Quickstart(error) => match error.as_ref() {
                QuickstartError::NotOurs(_) => Exit::Failed,
                QuickstartError::Locked(_) => Exit::Authentication,
                QuickstartError::Refused(_) => Exit::Refused,
                QuickstartError::NotRefused => Exit::Device,
                error => file_or(error, Exit::Failed),
            },
            Self::Provision(error) => match error.as_ref() {
                ProvisionError::Stopped { source, .. } => match source.as_ref() {
                    ProvisionError::Client(error) => client_exit(error),
                    ProvisionError::PrivateSession(PrivateSessionError::HalfChanged { source, .. }) => {
                        client_exit(source)
                    }
                    _ => Exit::Failed,
                },
                ProvisionError::CaKeyNotAllowed { .. }
                | ProvisionError::WhichCaKey { .. }
                | ProvisionError::CannotFreeze
                | ProvisionError::SignerId => Exit::Usage,
                ProvisionError::FactoryPassword | ProvisionError::SamePassword => Exit::Authentication,
                error => file_or(error, Exit::Failed),
            },
            Self::PrivateSession(error) => match error {
                PrivateSessionError::Remote | PrivateSessionError::NoAgreement => Exit::Usage,
                PrivateSessionError::Rights { .. } => Exit::Refused,
                PrivateSessionError::OtherDevice
                | PrivateSessionError::CannotShow
                | PrivateSessionError::OtherKey { .. } => Exit::Authentication,
                PrivateSessionError::HalfChanged { source, .. } => client_exit(source),
            },
            Self::Backup(error) => match error.as_ref() {
                BackupError::Stopped { source, .. } | BackupError::WrapKey { source, .. } => {
                    client_exit(source)
                }
                BackupError::NotPermitted { .. } => Exit::Refused,
                error => file_or(error, Exit::Failed),
            },
            Self::Flash(error) => match error.as_ref() {
                FlashError::NoVolume { .. } | FlashError::NoPort { .. } | FlashError::OtherBoard { .. } => {
                    Exit::Device
                }
                FlashError::NotAFile(_) => Exit::File,
                error => file_or(error, Exit::Failed),
            },
            Self::Content { source, .. } => file_or(source.as_ref(), Exit::Failed),
            Self::Signer(SignerError::Certificate(_) | SignerError::CaKey { .. }) => Exit::Device,
            Self::Signer(_) | Self::OtherCa { .. } => Exit::Failed,
            Self::Ledger(error) => match error {
                LedgerError::WhichCa { .. }
                | LedgerError::Krl(_)
                | LedgerError::None
                | LedgerError::NoRevocation(_) => Exit::Usage,
                LedgerError::Exhausted(_) | LedgerError::Key(_) => Exit::Failed,
                _ => Exit::File,
            },
            Self::NotRecorded(_) | Self::NoSuchLedger(_) => Exit::File,
            Self::Audit(error) => match error.as_ref() {
                AuditError::File { .. } | AuditError::Absent(_) | AuditError::Locked(_) => Exit::File,
                _ => Exit::Failed,
            },
            Self::Findings(_) | Self::Unverified(..) => Exit::Failed,
            Self::Configuration(error) => file_or(error, Exit::Usage),
            Self::Different { .. } => Exit::Failed,
            Self::Refused { .. } | Self::Fallback(_) | Self::Lint { .. } | Self::Tests { .. } => {
                Exit::Refused
            }
            Self::NotSigned { exit, .. } | Self::NotAll { exit, .. } => *exit,
        }
    }

    /// What the reader can do about it.
    fn next_step(&self) -> Option<&'static str> {
        Some(match self {
            Self::Open(OpenError::NoSimulator { .. }) => {
                "check the directory of --device or SSHSM_DEVICE; a command that puts something on the device, such as \
                 `sshsm key generate` or `sshsm provision`, makes a new one"
            }
            Self::Open(OpenError::Exchange(error)) | Self::Client(ClientError::Exchange(error)) => {
                match error {
                    ExchangeError::Unreachable { address, .. } if address.starts_with("serial:") => {
                        "plug the board in; `sshsm device list` shows its port"
                    }
                    ExchangeError::Unreachable { .. } => {
                        "is sshsm-sim or yubihsm-connector running at that address?"
                    }
                    ExchangeError::NoBoard => "plug a board in, or name its port: --device serial:PATH",
                    ExchangeError::PortDenied { .. } => {
                        "install the udev rule host/udev/70-sshsm.rules, then plug the board in again"
                    }
                    ExchangeError::PortInUse { .. } => "end the other program, or wait for it",
                    ExchangeError::NotADevice { .. } => {
                        "`sshsm device list` shows the boards that are plugged in"
                    }
                    ExchangeError::LinkVersion { .. } => "use the sshsm and the firmware of one release",
                    ExchangeError::Link { error: LinkError::Failed, .. } => "`sshsm device log` shows why",
                    ExchangeError::NotAConnector { .. } => "check host and port of --device or SSHSM_DEVICE",
                    ExchangeError::NoDevice { .. } => "plug the device in, or restart the connector",
                    ExchangeError::Interrupted { .. } => {
                        "look with `sshsm key list` before you repeat the command"
                    }
                    _ => return None,
                }
            }
            Self::Unverified(..) => {
                "revoke by --serial, --key-id or --key what you know of it, or believe the file with --unverified"
            }
            Self::Pkcs11(error) => return pkcs11_step(error),
            Self::Client(ClientError::UnknownAuthenticationKey(ObjectId::DEFAULT_AUTHENTICATION_KEY)) => {
                "name another one with --auth-key. If a change of its password was cut short, authentication key 0xfffe has the \
                 new password: repeat that `sshsm provision` or `sshsm authentication-key change`, or open the device with \
                 --auth-key 0xfffe"
            }
            Self::Client(ClientError::UnknownAuthenticationKey(_)) => "name another one with --auth-key",
            Self::Client(ClientError::WrongPassword(SUCCESSOR)) => {
                "give the new password that an earlier run, which was cut short, was to set"
            }
            Self::Client(ClientError::WrongPassword(_)) => {
                "a fresh device has authentication key 1 with the password \"password\""
            }
            Self::Client(ClientError::Device { command, error }) => match (command, error) {
                (_, DeviceError::SessionsFull) => "idle sessions end after 30 seconds; try again then",
                (_, DeviceError::ObjectNotFound) => {
                    "`sshsm key list` shows what this authentication key can see"
                }
                (_, DeviceError::ObjectExists) => {
                    "choose another --id, or leave it out: the device finds a free one"
                }
                (_, DeviceError::PresenceTimeout) => TOUCH,
                (_, DeviceError::TemplatesFrozen) => {
                    "the templates on it still work; only `sshsm device reset`, which deletes every key, ends the freeze"
                }
                (Command::StartBootLoader, DeviceError::NothingToTouch | DeviceError::NoBootLoader) => {
                    "start its boot loader by hand: hold BOOTSEL while you plug it in (nRF52840: press reset twice)"
                }
                (Command::StartBootLoader | Command::RestartDevice, DeviceError::InvalidCommand) => {
                    "a YubiHSM 2, and a device that is as strict, know no such command: unplug it"
                }
                (Command::GetDeviceStatus, DeviceError::InvalidCommand) => {
                    "a YubiHSM 2, and a device that is as strict, do not say which image they run"
                }
                (_, DeviceError::StorageFailed) => "`sshsm device storage` shows how full the device is",
                (Command::SignSshCertificate, DeviceError::InsufficientPermissions) => {
                    "signing needs the capability sign-ssh-certificate on the CA key and on the authentication key"
                }
                (_, DeviceError::InsufficientPermissions) => {
                    "the authentication key, or the object, lacks a capability or a domain"
                }
                _ => return None,
            },
            Self::Signer(SignerError::Missing { .. }) => {
                "`sshsm key list` shows what this authentication key can see"
            }
            Self::Provision(error)
                if matches!(
                    cause(error),
                    ProvisionError::PrivateSession(PrivateSessionError::HalfChanged { .. })
                ) =>
            {
                HALF_CHANGED
            }
            Self::Provision(error) if matches!(cause(error), ProvisionError::OthersInSession { .. }) => {
                "unplug the device and plug it in again, or wait half a minute; then run the same command again"
            }
            Self::Provision(error) if matches!(**error, ProvisionError::CannotFreeze) => {
                "leave --freeze out; who may put templates in the CA key's domain then decides what it signs"
            }
            Self::PrivateSession(error) => match error {
                PrivateSessionError::Remote => {
                    "name the device's public key with --device-key FILE (`sshsm device public-key` prints it at the computer \
                     that the device is plugged into), or do it there; --allow-plain-http does it all the same"
                }
                PrivateSessionError::NoAgreement => {
                    "do it at the computer that the device is plugged into; --allow-plain-http does it all the same"
                }
                PrivateSessionError::Rights { .. } => {
                    "give the device another password first: `sshsm provision`, or `sshsm authentication-key change` with a key \
                     that may put and delete authentication keys"
                }
                PrivateSessionError::OtherDevice => {
                    "at the computer that the device is plugged into, compare `sshsm device public-key` with the file of \
                     --device-key, and look with `sshsm key list` for authentication keys that you did not put there"
                }
                PrivateSessionError::CannotShow => {
                    "do it at the computer that the device is plugged into; without --device-key nothing says which device it is"
                }
                PrivateSessionError::OtherKey { .. } => {
                    "do it at the computer that the device is plugged into, and look there with `sshsm key list` first"
                }
                PrivateSessionError::HalfChanged { .. } => HALF_CHANGED,
            },
            Self::Provision(error) if matches!(**error, ProvisionError::NotFresh(_)) => {
                "take another device, or delete everything on this one: `sshsm device reset`"
            }
            Self::Provision(error) if matches!(cause(error), ProvisionError::NotFresh(_)) => {
                "what it holds is not of this command, and running that again changes nothing about it: delete everything on \
                 the device, `sshsm device reset` (with --auth-key 0xfffe where authentication key 1 is gone), or take another"
            }
            Self::Flash(error) => match error.as_ref() {
                FlashError::ManyVolumes { .. } => "unplug the others, or name the one with --volume",
                FlashError::OldBootLoader { .. } => "update the boot loader first; docs/boards.md says how",
                FlashError::BootLoaderImage => {
                    "copy it to the drive by hand; docs/boards.md says what to heed"
                }
                FlashError::OtherImage { .. } => {
                    "start the boot loader by hand and flash again; --by-hand asks no board"
                }
                _ => return None,
            },
            Self::Backup(error) => match error.as_ref() {
                BackupError::NothingExportable(_) => {
                    "make keys that shall have a backup with --exportable; those that are there stay as they are"
                }
                BackupError::NotPermitted { .. } => "name another authentication key with --auth-key",
                BackupError::Different(_) => {
                    "restore onto another device, or delete them: `sshsm key delete`"
                }
                BackupError::Share(ShareError::TooFew { .. }) => {
                    "name files with --share-file, or run it on a terminal, which asks for the shares"
                }
                _ => return None,
            },
            Self::NoSuchLedger(_) => "check the name; signing makes a new ledger, and so does --new-ledger",
            Self::Timestamp(error) => return timestamp_step(error),
            Self::Ledger(error) | Self::NotRecorded(error) => match error {
                LedgerError::Locked(_) => "wait until the other process has ended",
                LedgerError::Full(_) => "make room on its disk",
                LedgerError::ReadOnly(_) | LedgerError::Open { .. } => {
                    "name a ledger that you may write with --ledger or SSHSM_LEDGER; none works without one"
                }
                LedgerError::Damaged { .. } => {
                    "put a copy in its place; `sqlite3 FILE .recover` saves what can be read"
                }
                LedgerError::NotALedger(_) => "name another file with --ledger; this one was left alone",
                LedgerError::Version { .. } => "use the sshsm that wrote it, or name another with --ledger",
                LedgerError::Absent(_) => "the first `sshsm sign` makes it; --ledger names another",
                LedgerError::NoRevocation(_) => "`sshsm ledger revocations` lists them with their numbers",
                LedgerError::None => "name one with --ledger, or the serial number with -z N",
                LedgerError::WhichCa { .. } => {
                    "name the CA with --ca: its fingerprint or its public key file"
                }
                _ => return None,
            },
            Self::Audit(error) => match error.as_ref() {
                AuditError::OtherDevice { .. } => {
                    "give each device a journal of its own, as without --journal"
                }
                AuditError::Absent(_) => "`sshsm audit log` makes it",
                AuditError::Replaced { .. } => {
                    "find the journal that was there (--journal FILE); `sshsm audit log --accept-break` goes on with this \
                     one, and says so in it for ever"
                }
                AuditError::Ledger { .. } => {
                    "find the ledger that was there (--ledger FILE); `sshsm audit log --accept-break` goes on with this \
                     one, and says so in the journal for ever"
                }
                AuditError::Contradiction { .. } => {
                    "keep the journal as evidence; --accept-break stores the log behind a note of the break"
                }
                AuditError::Locked(_) => "`audit follow` may run; it stores the log already",
                _ => return None,
            },
            Self::NotSigned { exit: Exit::Untouched, .. } => TOUCH,
            Self::NoPassword => "set SSHSM_PASSWORD or name a file with --password-file",
            Self::NoNewPassword(advice) => advice,
            Self::WeakPassword(_) => "--generate makes a strong one; --allow-weak-password accepts this one",
            _ => return None,
        })
    }

    /// The error, its causes and the next step, for stderr.
    pub(crate) fn report(&self) -> String {
        // What a cause has of lines is indented, so that none of them passes for a line of ours.
        let mut text = format!("error: {}\n", self.to_string().trim_end().replace('\n', "\n  "));
        for cause in causes(self) {
            let _ = writeln!(text, "  because: {}", cause.trim_end().replace('\n', "\n  "));
        }
        if let Some(step) = self.next_step() {
            let _ = writeln!(text, "  try: {step}");
        }
        text
    }

    /// The error and its causes on one line.
    pub(crate) fn line(&self) -> String {
        line(self)
    }
}

/// What to do when nobody vouches for the time.
const fn timestamp_step(error: &TimestampError) -> Option<&'static str> {
    Some(match error {
        #[cfg(unix)]
        TimestampError::Agent(error) => match error {
            AgentKeyError::NoAgent | AgentKeyError::Unreachable { .. } => {
                "start an ssh-agent, or name the key's file"
            }
            AgentKeyError::Absent { .. } => {
                "add the key with ssh-add; `ssh-add -l` shows what the agent holds"
            }
            AgentKeyError::Refused { .. } => "unlock the agent, or confirm the use of the key",
            _ => return None,
        },
        TimestampError::Remote(error) => match error {
            RemoteError::Unreachable { .. } | RemoteError::Slow { .. } => {
                "is `sshsm timestamp serve` running there?"
            }
            RemoteError::Tls { .. } => {
                "name whom to trust with --timestamp-ca, and who you are with --timestamp-cert"
            }
            RemoteError::NotLetIn { .. } => {
                "show a token with --timestamp-token-file, or a certificate with --timestamp-cert"
            }
            RemoteError::TooOften { .. } => "wait, and try again",
            RemoteError::Status { .. } | RemoteError::Nonsense { .. } => "check the URL of --timestamp",
            RemoteError::Unavailable { .. } => "have its operator look at its clock",
            RemoteError::Skew { .. } => {
                "set the clock that is wrong; a difference that is known can be allowed with --max-clock-skew"
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// What a device that refuses or fails makes of a command.
fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::UnknownAuthenticationKey(_)
        | ClientError::WrongPassword(_)
        | ClientError::WrongPrivateKey(_) => Exit::Authentication,
        ClientError::Device { error, .. } => match error {
            DeviceError::SshCaConstraintViolation
            | DeviceError::InsufficientPermissions
            | DeviceError::TemplatesFrozen => Exit::Refused,
            DeviceError::AuthenticationFailed => Exit::Authentication,
            DeviceError::PresenceTimeout => Exit::Untouched,
            DeviceError::InvalidSession | DeviceError::SessionsFull | DeviceError::SessionFailed => {
                Exit::Device
            }
            DeviceError::StorageFailed => Exit::Device,
            _ => Exit::Failed,
        },
        ClientError::Exchange(_)
        | ClientError::UndefinedError { .. }
        | ClientError::Nonsense { .. }
        | ClientError::NotAuthentic { .. }
        | ClientError::Ended => Exit::Device,
        _ => Exit::Failed,
    }
}

/// What a token that refuses or fails makes of a command.
fn pkcs11_exit(error: &Pkcs11Error) -> Exit {
    match error {
        Pkcs11Error::NoModule | Pkcs11Error::Algorithm { .. } => Exit::Usage,
        Pkcs11Error::NoUserPin { .. }
        | Pkcs11Error::Locked { .. }
        | Pkcs11Error::FinalTry { .. }
        | Pkcs11Error::WrongPin { .. }
        | Pkcs11Error::PinLength { .. }
        | Pkcs11Error::EmptyPinFile { .. }
        | Pkcs11Error::NoPin { .. } => Exit::Authentication,
        Pkcs11Error::PinFile { .. } => Exit::File,
        Pkcs11Error::MayNotSign { .. } => Exit::Refused,
        Pkcs11Error::NoKey { .. } | Pkcs11Error::ManyKeys { .. } | Pkcs11Error::Kind { .. } => Exit::Failed,
        _ => Exit::Device,
    }
}

fn pkcs11_step(error: &Pkcs11Error) -> Option<&'static str> {
    Some(match error {
        Pkcs11Error::NoModule => {
            "set PKCS11_MODULE_PATH, or end the URI with ?module-path=/usr/lib/softhsm/libsofthsm2.so or your token's"
        }
        Pkcs11Error::ModuleName { .. } => "name its file with module-path",
        Pkcs11Error::Load { .. } | Pkcs11Error::NotAModule { .. } => {
            "check module-path or PKCS11_MODULE_PATH; SoftHSM's is libsofthsm2.so, a YubiKey's libykcs11.so"
        }
        Pkcs11Error::NoToken { .. } => {
            "plug the token in; `sshsm device list` shows the tokens of the module"
        }
        Pkcs11Error::NoKey { .. } | Pkcs11Error::NoPublicKey { .. } => {
            "`sshsm device list` shows the tokens of the module and their keys"
        }
        Pkcs11Error::NoPin { .. } => "set SSHSM_PIN, or name a file with ?pin-source=FILE",
        Pkcs11Error::WrongPin { tries: Tries::Locked, .. } | Pkcs11Error::Locked { .. } => {
            "unlock it with the security officer's PIN (the PUK), with its maker's tool"
        }
        Pkcs11Error::WrongPin { .. } => {
            "look where the PIN comes from before you repeat the command: it was tried once"
        }
        Pkcs11Error::FinalTry { .. } => "unset SSHSM_PIN and leave out pin-source: then you are asked for it",
        Pkcs11Error::MayNotSign { .. } => "make a key with CKA_SIGN, or name another one",
        Pkcs11Error::Gone { .. } => "plug the token in again and repeat the command",
        _ => return None,
    })
}

/// [`Exit::File`] when a file is at the bottom of it.
fn file_or(error: &(dyn Error + 'static), otherwise: Exit) -> Exit {
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    // An error that the system does not know is one of ours, such as a passphrase that nobody gave; and a file that is
    // no text could be read.
    let file = |error: &io::Error| !matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::InvalidData);
    if causes.any(|cause| cause.downcast_ref().is_some_and(file)) { Exit::File } else { otherwise }
}

#[cfg(test)]
mod tests {
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
            (CliError::content("a file", "is odd"), 1),
            (CliError::Usage("both".into()), 2),
            (lost.into(), 3),
            (refused(DeviceError::SessionsFull), 3),
            (ClientError::WrongPassword(key).into(), 4),
            (ClientError::UnknownAuthenticationKey(key).into(), 4),
            (CliError::NoPassword, 4),
            (refused(DeviceError::SshCaConstraintViolation), 5),
            (CliError::Refused { refused: 1, total: 2 }, 5),
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
