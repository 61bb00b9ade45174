//! The ledger: every certificate that was requested, and everything that was revoked, in one SQLite file.
//!
//! *Guarantees.* A serial number is reserved in the ledger before anything is signed, and no two reservations
//! under one CA get the same one, even if other processes write the ledger or a process is killed at any
//! time. A certificate is recorded before it is handed out. A reserved entry stays forever: as issued,
//! refused or failed, or as reserved, which means that the process ended before it could record more.
//!
//! *Evidence.* Each change of a row is linked to all earlier changes (see `events.rs`), a row about a
//! certificate can be compared with the certificate ([`Ledger::faults`]), and the state of a device's journal
//! when it was last read is stored here ([`KnownJournal`]), as the journal stores the ledger's.
//!
//! *In the file.* The rollback journal with `synchronous = EXTRA`, not the write-ahead log: committed data
//! survives a power cut, at rest the ledger is one file that can be copied, and it works in a home directory
//! on a network. Serial numbers and validities are decimal text of 20 digits, since SQLite's numbers end at
//! 2⁶³ − 1. The file has an application id and the version of its tables; a file with others is not touched.

mod certificate;
mod check;
mod events;
mod journal;
mod recorder;
mod revocation;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use ssh_encoding::Decode as _;
use ssh_key::{HashAlg, public::KeyData};

pub use certificate::{Answer, Authority, Entry, Filter, LogSpan, Reservation, Sent, Serial, State};
pub use check::Fault;
pub use events::Link;
pub(crate) use events::{hex, unhex};
pub use journal::{Head, KnownJournal};
pub(crate) use recorder::{Outcome, Recorder};
pub use recorder::{Recorded, whoami};
pub use revocation::{Revocation, Revoked, sha256};

use self::events::About;
use crate::{files, krl::KrlError, path::shown};
use sshsm_client::{Failure, Kind};

/// `sshL`, in the file's header.
const APPLICATION_ID: i32 = 0x7373_684c;
/// Of the tables. One of version 1 is brought up to it; a ledger with another version is refused.
const VERSION: i32 = 2;
/// The version whose rows record neither whether they were sent nor where in a device's log they can be.
const UNCHAINED: i32 = 1;
/// How long a process waits for others to finish with the ledger.
const PATIENCE: Duration = Duration::from_secs(15);

const TABLES: &str = "
CREATE TABLE authorities (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,           -- the public key in SSH's encoding
    fingerprint TEXT NOT NULL UNIQUE,
    last_serial TEXT NOT NULL           -- the last one that the ledger chose
) STRICT;
CREATE TABLE certificates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    authority INTEGER NOT NULL REFERENCES authorities (id),
    serial TEXT NOT NULL CHECK (length(serial) = 20),
    counted INTEGER NOT NULL,           -- 1: the ledger chose the serial number
    key_id TEXT NOT NULL,
    principals TEXT NOT NULL,           -- a JSON array
    subject TEXT NOT NULL,              -- fingerprint of the key
    kind TEXT NOT NULL CHECK (kind IN ('user', 'host')),
    valid_after TEXT NOT NULL,
    valid_before TEXT NOT NULL,
    ca_key TEXT NOT NULL,               -- its name on the signer
    template TEXT NOT NULL,
    enforced_by TEXT NOT NULL,
    signer TEXT NOT NULL,
    device_serial INTEGER,
    audit_entry INTEGER,
    asked_by TEXT NOT NULL,
    process INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,          -- UNIX seconds, as all times
    state TEXT NOT NULL CHECK (state IN ('reserved', 'issued', 'refused', 'failed')),
    finished_at INTEGER,
    reason TEXT,
    certificate TEXT,
    sent_at INTEGER,                    -- when the request went to the signer; NULL: it did not
    payload_length INTEGER,             -- bytes of the signing command, as the device logs them
    request TEXT,                       -- SHA-256 of what was to be signed, hexadecimal
    answer TEXT CHECK (answer IN ('signed', 'error', 'unknown')), -- the signer's; NULL: it was not asked
    log_after INTEGER,                  -- the device's newest log entry before; NULL: not known
    log_after_digest TEXT,
    log_until INTEGER,                  -- and behind it
    log_until_digest TEXT
) STRICT;
CREATE UNIQUE INDEX counted ON certificates (authority, serial) WHERE counted;
CREATE INDEX serials ON certificates (authority, serial);
CREATE INDEX key_ids ON certificates (key_id);
CREATE TABLE revocations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL CHECK (what IN ('serials', 'key_id', 'key', 'fingerprint', 'ca')),
    authority INTEGER REFERENCES authorities (id), -- of serials and key ids; NULL: of any
    first_serial TEXT,
    last_serial TEXT,
    key_id TEXT,
    key BLOB,
    fingerprint TEXT,
    reason TEXT,
    revoked_by TEXT NOT NULL,
    revoked_at INTEGER NOT NULL,
    undone_by TEXT,
    undone_at INTEGER
) STRICT;
CREATE TABLE revocation_lists (number TEXT PRIMARY KEY, built_at INTEGER NOT NULL) STRICT;
";

/// The tables that version 2 has in addition to those of version 1.
const CHAIN: &str = "
CREATE TABLE identity (id TEXT NOT NULL) STRICT; -- 32 random hexadecimal digits: this ledger, and no copy of another
INSERT INTO identity VALUES (lower(hex(randomblob(16))));
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    about TEXT NOT NULL CHECK (about IN ('certificate', 'revocation', 'list')),
    row INTEGER NOT NULL,
    content TEXT NOT NULL,              -- SHA-256 of the row as it was then
    link TEXT NOT NULL                  -- SHA-256 of the link before and this event
) STRICT;
CREATE TABLE journals (                 -- what was read of devices' logs
    device INTEGER PRIMARY KEY,
    lines INTEGER NOT NULL,
    link TEXT NOT NULL,
    last_entry INTEGER,
    last_digest TEXT,
    at INTEGER NOT NULL
) STRICT;
";

/// What version 1 lacks; its requests are assumed to have been sent, since it did not record that.
const UPGRADE: &str = "
ALTER TABLE certificates ADD COLUMN sent_at INTEGER;
ALTER TABLE certificates ADD COLUMN payload_length INTEGER;
ALTER TABLE certificates ADD COLUMN request TEXT;
ALTER TABLE certificates ADD COLUMN answer TEXT CHECK (answer IN ('signed', 'error', 'unknown'));
ALTER TABLE certificates ADD COLUMN log_after INTEGER;
ALTER TABLE certificates ADD COLUMN log_after_digest TEXT;
ALTER TABLE certificates ADD COLUMN log_until INTEGER;
ALTER TABLE certificates ADD COLUMN log_until_digest TEXT;
ALTER TABLE revocations ADD COLUMN undone_by TEXT;
ALTER TABLE revocations ADD COLUMN undone_at INTEGER;
UPDATE certificates SET sent_at = asked_at, answer =
    CASE state WHEN 'issued' THEN 'signed' WHEN 'refused' THEN 'error' ELSE 'unknown' END;
";

/// Why the ledger cannot be read or written. Its contents are still valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Another process kept it locked for 15 seconds.
    #[error("the ledger {} is locked by another process", shown(.0))]
    Locked(PathBuf),
    /// No room.
    #[error("there is no room to write the ledger {}", shown(.0))]
    Full(PathBuf),
    /// The file or its directory may not be written.
    #[error("the ledger {} cannot be written: it, or its directory, is read-only", shown(.0))]
    ReadOnly(PathBuf),
    /// Its content is not what SQLite wrote.
    #[error("the ledger {} is damaged", shown(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        reason: String,
    },
    /// Another kind of file.
    #[error("{} is not a ledger", shown(.0))]
    NotALedger(PathBuf),
    /// Made by another version of this program.
    #[error("the ledger {} has version {found}; this program knows version {VERSION}", shown(path))]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: i32,
    },
    /// There is none yet.
    #[error("there is no ledger {}", shown(.0))]
    Absent(PathBuf),
    /// The file cannot be opened, or its directory not be made.
    #[error("cannot open the ledger {}", shown(path))]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Anything else that SQLite reports.
    #[error("the ledger {} failed", shown(path))]
    Failed {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A field has a value that the ledger never writes.
    #[error("the ledger has an entry that makes no sense: {0}")]
    Nonsense(String),
    /// A ledger is needed, and there is none.
    #[error("there is no ledger to take the next serial number from")]
    None,
    /// All were used.
    #[error("no serial number is left under CA {0}: the last one was 18446744073709551615")]
    Exhausted(String),
    /// No CA has it, or several.
    #[error("{given:?} is not one CA of the ledger; it knows {}", if known.is_empty() { "none".into() } else { known.join(", ") })]
    WhichCa {
        /// The text given, perhaps empty.
        given: String,
        /// The fingerprints of those that it knows.
        known: Vec<String>,
    },
    /// There is nothing to take back.
    #[error("there is no revocation {0} in force in the ledger")]
    NoRevocation(i64),
    /// It cannot be represented in a revocation list.
    #[error("this cannot be revoked")]
    Krl(#[from] KrlError),
    /// A key that SSH cannot encode.
    #[error("the key cannot be encoded")]
    Key(#[from] ssh_encoding::Error),
}

impl Failure for LedgerError {
    fn kind(&self) -> Kind {
        match self {
            Self::WhichCa { .. } | Self::Krl(_) | Self::None | Self::NoRevocation(_) => Kind::Usage,
            Self::Exhausted(_) | Self::Key(_) => Kind::Failed,
            Self::Locked(_)
            | Self::Full(_)
            | Self::ReadOnly(_)
            | Self::Damaged { .. }
            | Self::NotALedger(_)
            | Self::Version { .. }
            | Self::Absent(_)
            | Self::Open { .. }
            | Self::Failed { .. }
            | Self::Nonsense(_) => Kind::File,
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Locked(_) => "wait until the other process has ended",
            Self::Full(_) => "make room on its disk",
            Self::ReadOnly(_) | Self::Open { .. } => {
                "name a ledger that you may write with --ledger or SSHSM_LEDGER; none works without one"
            }
            Self::Damaged { .. } => "replace it with a copy; `sqlite3 FILE .recover` saves what can be read",
            Self::NotALedger(_) => "name another file with --ledger; this one was not changed",
            Self::Version { .. } => "use the sshsm that wrote it, or name another with --ledger",
            Self::Absent(_) => "the first `sshsm sign` makes it; --ledger names another",
            Self::NoRevocation(_) => "`sshsm ledger revocations` lists them with their numbers",
            Self::None => "name one with --ledger, or the serial number with -z N",
            Self::WhichCa { .. } => "name the CA with --ca: its fingerprint or its public key file",
            Self::Failed { .. } | Self::Nonsense(_) | Self::Exhausted(_) | Self::Krl(_) | Self::Key(_) => {
                return None;
            }
        })
    }
}

type Result<T> = std::result::Result<T, LedgerError>;

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    database: Connection,
}

/// The SHA-256 fingerprint of a key, as OpenSSH prints it.
#[must_use]
pub fn fingerprint(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

impl Ledger {
    /// Opens the ledger at `path`, and makes it when there is none.
    ///
    /// # Errors
    /// When it cannot be read and written, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        let open = |source| LedgerError::Open { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            files::make_private_directory(directory).map_err(open)?;
        }
        // SQLite would let others read it; its journals have the mode of the ledger.
        if let Err(error) = fs::symlink_metadata(path)
            && error.kind() == io::ErrorKind::NotFound
        {
            files::open_own(path).map_err(open)?;
        }
        let mut ledger =
            Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        // SQLite opens a read-only file, and reports that at the first write.
        if ledger.database.is_readonly("main").map_err(ledger.failure())? {
            return Err(LedgerError::ReadOnly(path.to_owned()));
        }
        ledger.prepare()?;
        Ok(ledger)
    }

    /// Opens the ledger at `path` for reading.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open_to_read(path: &Path) -> Result<Self> {
        match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LedgerError::Absent(path.to_owned()));
            }
            Err(source) => return Err(LedgerError::Open { path: path.to_owned(), source }),
            Ok(_) => {}
        }
        // Not opened read-only: a change that a killed process left unfinished is rolled back by the next
        // one, and only a connection that may write can do that. SQLite can still read a file that it may not
        // write.
        let mut ledger = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if ledger.header()? == (APPLICATION_ID, UNCHAINED) {
            if ledger.database.is_readonly("main").map_err(ledger.failure())? {
                return Err(LedgerError::Version { path: path.to_owned(), found: UNCHAINED });
            }
            ledger.prepare()?;
        }
        ledger.database.pragma_update(None, "query_only", true).map_err(ledger.failure())?;
        match ledger.header()? {
            (APPLICATION_ID, VERSION) => Ok(ledger),
            (APPLICATION_ID, found) => Err(LedgerError::Version { path: path.to_owned(), found }),
            // A process that made the file and was killed before it made the tables.
            (0, 0) if ledger.is_empty()? => Err(LedgerError::Absent(path.to_owned())),
            _ => Err(LedgerError::NotALedger(path.to_owned())),
        }
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self> {
        let failure = |error| failure(path, error);
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags).map_err(failure)?;
        database.busy_timeout(PATIENCE).map_err(failure)?;
        database.pragma_update(None, "foreign_keys", true).map_err(failure)?;
        let synchronous = if cfg!(test) { "OFF" } else { "EXTRA" };
        database.pragma_update(None, "synchronous", synchronous).map_err(failure)?;
        Ok(Self { path: path.to_owned(), database })
    }

    /// Makes the tables of a new ledger; recognises an old one.
    fn prepare(&mut self) -> Result<()> {
        if self.header()? != (APPLICATION_ID, VERSION) {
            self.write(|ledger, transaction| match header(transaction).map_err(ledger)? {
                (APPLICATION_ID, VERSION) => Ok(()),
                (APPLICATION_ID, UNCHAINED) => {
                    transaction.execute_batch(UPGRADE).map_err(ledger)?;
                    transaction.execute_batch(CHAIN).map_err(ledger)?;
                    for about in About::ALL {
                        for row in rows(ledger, transaction, about)? {
                            events::record(ledger, transaction, about, row)?;
                        }
                    }
                    transaction.pragma_update(None, "user_version", VERSION).map_err(ledger)
                }
                (APPLICATION_ID, found) => Err(LedgerError::Version { path: PathBuf::new(), found }),
                (0, 0) if is_empty(transaction).map_err(ledger)? => {
                    transaction.execute_batch(TABLES).map_err(ledger)?;
                    transaction.execute_batch(CHAIN).map_err(ledger)?;
                    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(ledger)?;
                    transaction.pragma_update(None, "user_version", VERSION).map_err(ledger)
                }
                _ => Err(LedgerError::NotALedger(PathBuf::new())),
            })
            .map_err(|error| match error {
                LedgerError::Version { found, .. } => LedgerError::Version { path: self.path.clone(), found },
                LedgerError::NotALedger(_) => LedgerError::NotALedger(self.path.clone()),
                error => error,
            })?;
        }
        Ok(())
    }

    fn header(&self) -> Result<(i32, i32)> {
        header(&self.database).map_err(self.failure())
    }

    fn is_empty(&self) -> Result<bool> {
        is_empty(&self.database).map_err(self.failure())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failure(&self) -> impl Fn(rusqlite::Error) -> LedgerError + Copy + '_ {
        |error| failure(&self.path, error)
    }

    /// Runs `work` in a transaction that excludes other writers, and commits it.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&dyn Fn(rusqlite::Error) -> LedgerError, &Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let path = self.path.clone();
        let failed = move |error| failure(&path, error);
        let transaction =
            self.database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let result = work(&failed, &transaction)?;
        transaction.commit().map_err(&failed)?;
        Ok(result)
    }

    /// Has SQLite look at every page; `None` when all is well.
    ///
    /// # Errors
    /// When the ledger cannot be read at all.
    pub fn damage(&self) -> Result<Option<String>> {
        let verdict: String = self
            .database
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(self.failure())?;
        Ok((verdict != "ok").then_some(verdict))
    }
}

/// The ids of a table's rows, in their order.
fn rows(failed: Failed<'_>, database: &Connection, about: About) -> Result<Vec<i64>> {
    let mut statement =
        database.prepare(&format!("SELECT rowid FROM {} ORDER BY rowid", about.table())).map_err(failed)?;
    statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)
}

fn header(database: &Connection) -> rusqlite::Result<(i32, i32)> {
    let number = |name| database.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

fn is_empty(database: &Connection) -> rusqlite::Result<bool> {
    database
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map(|tables: i64| tables == 0)
}

/// SQLite's error in the ledger's words.
fn failure(path: &Path, error: rusqlite::Error) -> LedgerError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Locked(path),
        Some(ErrorCode::DiskFull) => LedgerError::Full(path),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => LedgerError::ReadOnly(path),
        Some(ErrorCode::DatabaseCorrupt) => LedgerError::Damaged { path, reason: error.to_string() },
        Some(ErrorCode::NotADatabase) => LedgerError::NotALedger(path),
        // The system's own message is better than SQLite's, if the error can be reproduced.
        Some(ErrorCode::CannotOpen) => match fs::OpenOptions::new().append(true).open(&path) {
            Err(source) => LedgerError::Open { path, source },
            Ok(_) => LedgerError::ReadOnly(path), // the file can be written, but no rollback journal next to it
        },
        _ => LedgerError::Failed { path, source: error },
    }
}

type Failed<'a> = &'a dyn Fn(rusqlite::Error) -> LedgerError;

fn digits(number: u64) -> String {
    format!("{number:020}")
}

fn serial_of(digits: &str) -> Result<u64> {
    digits.parse().map_err(|_| LedgerError::Nonsense(format!("{digits:?} is not a number")))
}

fn key_data(blob: &[u8]) -> Result<KeyData> {
    KeyData::decode(&mut &*blob).map_err(|error| LedgerError::Nonsense(format!("a key: {error}")))
}
