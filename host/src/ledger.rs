//! The ledger: every certificate that was asked for, and everything that was revoked, in one SQLite file.
//!
//! *Promises.* A serial number is reserved in the ledger before anything is signed, and no two reservations under one
//! CA get the same, whoever else writes the ledger and whenever a process is killed. A certificate is recorded before
//! anybody is handed it. An entry that was reserved stays for ever: as issued, refused or failed, or as reserved, which
//! says that the process ended before it could tell.
//!
//! *In the file.* The rollback journal with `synchronous = EXTRA`, not the write-ahead log: what a commit has returned
//! survives a power cut, at rest the ledger is one file that can be copied, and it works in a home directory on a
//! network. Serial numbers and validities are decimal text of 20 digits, since SQLite's numbers end at 2⁶³ − 1. The
//! file carries an application id and the version of its tables; what has another is left alone.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, named_params,
    params,
};
use serde::Serialize;
use ssh_encoding::{Decode, Encode};
use ssh_key::{Fingerprint, HashAlg, public::KeyData};

use crate::{
    krl::{KrlError, RevocationList},
    output::shown,
    request::Content,
    signer::{EnforcedBy, Signer},
};

/// `sshL`, in the file's header.
const APPLICATION_ID: i32 = 0x7373_684c;
/// Of the tables; a ledger with another version is refused.
const VERSION: i32 = 1;
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
    certificate TEXT
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
    revoked_at INTEGER NOT NULL
) STRICT;
CREATE TABLE revocation_lists (number TEXT PRIMARY KEY, built_at INTEGER NOT NULL) STRICT;
";

/// Why the ledger cannot be read or written. What it says is still true.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Somebody else kept it for 15 seconds.
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
        /// What SQLite says.
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
        /// What it says.
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
        /// What the system says.
        source: io::Error,
    },
    /// Anything else that SQLite reports.
    #[error("the ledger {} failed", shown(path))]
    Failed {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A field does not hold what the ledger puts there.
    #[error("the ledger has an entry that makes no sense: {0}")]
    Nonsense(String),
    /// There is no ledger, and one is needed.
    #[error("there is no ledger to take the next serial number from")]
    None,
    /// All were used.
    #[error("no serial number is left under CA {0}: the last one was 18446744073709551615")]
    Exhausted(String),
    /// No CA has it, or several.
    #[error("{given:?} is not one CA of the ledger; it knows {}", if known.is_empty() { "none".into() } else { known.join(", ") })]
    WhichCa {
        /// What was said, perhaps nothing.
        given: String,
        /// The fingerprints of those that it knows.
        known: Vec<String>,
    },
    /// It cannot be said in a revocation list.
    #[error("this cannot be revoked")]
    Krl(#[from] KrlError),
    /// A key that SSH cannot encode.
    #[error("the key cannot be encoded")]
    Key(#[from] ssh_encoding::Error),
}

type Result<T> = std::result::Result<T, LedgerError>;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The serial number is taken; nothing more is known.
    Reserved,
    /// There is a certificate.
    Issued,
    /// The template forbids it.
    Refused,
    /// Something else went wrong.
    Failed,
}

impl State {
    const ALL: [Self; 4] = [Self::Reserved, Self::Issued, Self::Refused, Self::Failed];

    /// As it is written in the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who signs, as the ledger remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The CA's public key.
    pub public: KeyData,
    /// The CA key's name on the signer.
    pub key: String,
    /// The template's name.
    pub template: String,
    /// Who enforces it.
    pub enforced_by: EnforcedBy,
    /// Where the CA key is.
    pub signer: String,
    /// The device's serial number, if it has one.
    pub device_serial: Option<u32>,
}

/// A serial number that is the ledger's promise; and the entry that holds it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its entry waits to be told what became of it"]
pub struct Reservation {
    entry: i64,
    /// The serial number.
    pub serial: u64,
}

/// Which serial number a certificate shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serial {
    /// The next one of the CA that no entry has.
    Next,
    /// This one, whoever else has it.
    Given(u64),
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its place in the ledger.
    pub entry: i64,
    /// The certificate's serial number.
    pub serial: u64,
    /// Whether the ledger chose it.
    pub counted: bool,
    /// What became of it.
    pub state: State,
    /// The key id.
    pub key_id: String,
    /// The principals.
    pub principals: Vec<String>,
    /// SHA-256 fingerprint of the certified key.
    pub subject: String,
    /// `user` or `host`.
    pub kind: String,
    /// UNIX seconds.
    pub valid_after: u64,
    /// UNIX seconds; 18446744073709551615 is forever.
    pub valid_before: u64,
    /// SHA-256 fingerprint of the CA's key.
    pub ca: String,
    /// The CA key's name on the signer.
    pub ca_key: String,
    /// The template's name.
    pub template: String,
    /// `device` or `host`.
    pub enforced_by: String,
    /// Where the CA key is.
    pub signer: String,
    /// The device's serial number.
    pub device_serial: Option<u32>,
    /// The number of the device's audit entry.
    pub audit_entry: Option<u16>,
    /// `user@host`.
    pub asked_by: String,
    /// The id of the process that asked.
    pub process: u32,
    /// UNIX seconds.
    pub asked_at: i64,
    /// UNIX seconds.
    pub finished_at: Option<i64>,
    /// Why there is no certificate.
    pub reason: Option<String>,
    /// The line of the `-cert.pub` file.
    pub certificate: Option<String>,
}

/// Which entries are looked for; all that is said must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// This key id.
    pub key_id: Option<String>,
    /// This principal among others.
    pub principal: Option<String>,
    /// From one serial number to another.
    pub serials: Option<(u64, u64)>,
    /// The CA's fingerprint.
    pub ca: Option<String>,
    /// The subject's fingerprint.
    pub subject: Option<String>,
    /// Asked for at this time or later; UNIX seconds.
    pub since: Option<i64>,
    /// In this state.
    pub state: Option<State>,
}

/// What can be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Certificates by their serial numbers, of one CA or of any.
    Serials {
        /// The CA.
        ca: Option<KeyData>,
        /// The first serial number, not 0.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Certificates by their key id, of one CA or of any.
    KeyId {
        /// The CA.
        ca: Option<KeyData>,
        /// The key id.
        key_id: String,
    },
    /// A key, and all certificates about it.
    Key(KeyData),
    /// The same by its fingerprint.
    Fingerprint([u8; 32]),
    /// A CA: all certificates by it.
    Ca(KeyData),
}

/// A revocation, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revocation {
    /// Its place in the ledger.
    pub revocation: i64,
    /// `serials`, `key_id`, `key`, `fingerprint` or `ca`.
    pub what: String,
    /// The CA's fingerprint; `None` is any.
    pub ca: Option<String>,
    /// The first serial number.
    pub first_serial: Option<u64>,
    /// The last one.
    pub last_serial: Option<u64>,
    /// The key id.
    pub key_id: Option<String>,
    /// The key's fingerprint.
    pub fingerprint: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// `user@host`.
    pub revoked_by: String,
    /// UNIX seconds.
    pub revoked_at: i64,
}

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
            let mut builder = fs::DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(directory).map_err(open)?;
        }
        let mut ledger =
            Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        // SQLite opens what may only be read, and says so at the first write.
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
        let ledger = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
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
        database.pragma_update(None, "synchronous", "EXTRA").map_err(failure)?;
        Ok(Self { path: path.to_owned(), database })
    }

    /// Makes the tables of a new ledger; recognises an old one.
    fn prepare(&mut self) -> Result<()> {
        if self.header()? != (APPLICATION_ID, VERSION) {
            self.write(|ledger, transaction| match header(transaction).map_err(ledger)? {
                (APPLICATION_ID, VERSION) => Ok(()),
                (APPLICATION_ID, found) => Err(LedgerError::Version { path: PathBuf::new(), found }),
                (0, 0) if is_empty(transaction).map_err(ledger)? => {
                    transaction.execute_batch(TABLES).map_err(ledger)?;
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

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failure(&self) -> impl Fn(rusqlite::Error) -> LedgerError + Copy + '_ {
        |error| failure(&self.path, error)
    }

    /// Runs `work` in a transaction that nobody else can write beside, and commits it.
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

    /// Reserves an entry for a certificate that is about to be signed. `content.serial` does not count.
    ///
    /// # Errors
    /// When nothing was reserved.
    pub fn reserve(
        &mut self,
        authority: &Authority,
        subject: &KeyData,
        content: &Content,
        serial: Serial,
        asked_by: &str,
    ) -> Result<Reservation> {
        let subject = fingerprint(subject);
        let principals = serde_json::to_string(&content.principals)
            .map_err(|error| LedgerError::Nonsense(error.to_string()))?;
        self.write(|failed, transaction| {
            let ca = authority_of(failed, transaction, &authority.public)?;
            let (serial, counted) = match serial {
                Serial::Given(serial) => (serial, false),
                Serial::Next => (next_serial(failed, transaction, ca, authority)?, true),
            };
            transaction
                .prepare(
                    "INSERT INTO certificates (authority, serial, counted, key_id, principals, subject, kind, \
                     valid_after, valid_before, ca_key, template, enforced_by, signer, device_serial, asked_by, \
                     process, asked_at, state) VALUES (:authority, :serial, :counted, :key_id, :principals, :subject, \
                     :kind, :valid_after, :valid_before, :ca_key, :template, :enforced_by, :signer, :device_serial, \
                     :asked_by, :process, :asked_at, 'reserved')",
                )
                .and_then(|mut insert| {
                    insert.execute(named_params! {
                        ":authority": ca,
                        ":serial": digits(serial),
                        ":counted": counted,
                        ":key_id": content.key_id,
                        ":principals": principals,
                        ":subject": subject,
                        ":kind": content.kind.to_string(),
                        ":valid_after": digits(content.validity.after()),
                        ":valid_before": digits(content.validity.before()),
                        ":ca_key": authority.key,
                        ":template": authority.template,
                        ":enforced_by": authority.enforced_by.to_string(),
                        ":signer": authority.signer,
                        ":device_serial": authority.device_serial,
                        ":asked_by": asked_by,
                        ":process": std::process::id(),
                        ":asked_at": Timestamp::now().as_second(),
                    })
                })
                .map_err(failed)?;
            Ok(Reservation { entry: transaction.last_insert_rowid(), serial })
        })
    }

    /// Records the certificate of a reservation; only then may anybody be handed it.
    ///
    /// # Errors
    /// When it is not recorded: the certificate is to be thrown away then.
    pub fn issued(
        &mut self,
        reservation: &Reservation,
        certificate: &str,
        audit_entry: Option<u16>,
    ) -> Result<()> {
        self.finish(reservation, State::Issued, None, Some(certificate.trim_end()), audit_entry)
    }

    /// Records why a reservation has no certificate.
    ///
    /// # Errors
    /// When it is not recorded: the entry stays reserved.
    pub fn not_issued(
        &mut self,
        reservation: &Reservation,
        state: State,
        reason: &str,
        audit_entry: Option<u16>,
    ) -> Result<()> {
        self.finish(reservation, state, Some(reason), None, audit_entry)
    }

    fn finish(
        &mut self,
        reservation: &Reservation,
        state: State,
        reason: Option<&str>,
        certificate: Option<&str>,
        audit_entry: Option<u16>,
    ) -> Result<()> {
        self.write(|failed, transaction| {
            let changed = transaction
                .execute(
                    "UPDATE certificates SET state = ?2, reason = ?3, certificate = ?4, audit_entry = ?5, \
                     finished_at = ?6 WHERE id = ?1 AND state = 'reserved'",
                    params![
                        reservation.entry,
                        state.name(),
                        reason,
                        certificate,
                        audit_entry,
                        Timestamp::now().as_second()
                    ],
                )
                .map_err(failed)?;
            match changed {
                1 => Ok(()),
                _ => Err(LedgerError::Nonsense(format!("entry {} is not reserved", reservation.entry))),
            }
        })
    }

    /// The entries that a filter lets through, in their order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn entries(&self, filter: &Filter) -> Result<Vec<Entry>> {
        let (first, last) = filter.serials.unzip();
        let mut statement = self
            .database
            .prepare(
                "SELECT certificates.*, authorities.fingerprint AS ca FROM certificates \
                 JOIN authorities ON authorities.id = authority \
                 WHERE (:key_id IS NULL OR key_id = :key_id) \
                 AND (:principal IS NULL OR EXISTS (SELECT 1 FROM json_each(principals) WHERE value = :principal)) \
                 AND (:first IS NULL OR serial BETWEEN :first AND :last) \
                 AND (:ca IS NULL OR authorities.fingerprint = :ca) \
                 AND (:subject IS NULL OR subject = :subject) \
                 AND (:since IS NULL OR asked_at >= :since) \
                 AND (:state IS NULL OR state = :state) ORDER BY certificates.id",
            )
            .map_err(self.failure())?;
        let mut rows = statement
            .query(named_params! {
                ":key_id": filter.key_id,
                ":principal": filter.principal,
                ":first": first.map(digits),
                ":last": last.map(digits),
                ":ca": filter.ca,
                ":subject": filter.subject,
                ":since": filter.since,
                ":state": filter.state.map(State::name),
            })
            .map_err(self.failure())?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next().map_err(self.failure())? {
            entries.push(entry(row).map_err(self.failure())??);
        }
        Ok(entries)
    }

    /// Fingerprints and public keys of the CAs that the ledger knows.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn authorities(&self) -> Result<Vec<(String, KeyData)>> {
        let mut statement = self
            .database
            .prepare("SELECT fingerprint, key FROM authorities ORDER BY id")
            .map_err(self.failure())?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(self.failure())?;
        rows.map(|row| {
            let (fingerprint, key): (String, Vec<u8>) = row.map_err(self.failure())?;
            Ok((fingerprint, key_data(&key)?))
        })
        .collect()
    }

    /// The CA that `given` is: a fingerprint or its beginning; without it the only one.
    ///
    /// # Errors
    /// [`LedgerError::WhichCa`].
    pub fn authority(&self, given: Option<&str>) -> Result<KeyData> {
        let known = self.authorities()?;
        let given = given.unwrap_or_default();
        let mut matching = known.iter().filter(|(fingerprint, _)| {
            fingerprint.strip_prefix("SHA256:").is_some_and(|hash| {
                fingerprint.starts_with(given) || !given.is_empty() && hash.starts_with(given)
            })
        });
        match (matching.next(), matching.next()) {
            (Some((_, key)), None) => Ok(key.clone()),
            _ => Err(LedgerError::WhichCa {
                given: given.into(),
                known: known.into_iter().map(|(fingerprint, _)| fingerprint).collect(),
            }),
        }
    }

    /// Records a revocation; saying the same twice is no error, and the first reason stays.
    ///
    /// # Errors
    /// When it is not recorded, or cannot be said in a revocation list.
    pub fn revoke(&mut self, revoked: &Revoked, reason: Option<&str>, revoked_by: &str) -> Result<()> {
        revoked.put(&mut RevocationList::default())?;
        self.write(|failed, transaction| {
            let ca = match revoked {
                Revoked::Serials { ca: Some(ca), .. } | Revoked::KeyId { ca: Some(ca), .. } => {
                    Some(authority_of(failed, transaction, ca)?)
                }
                _ => None,
            };
            let (first, last) = match revoked {
                Revoked::Serials { first, last, .. } => (Some(digits(*first)), Some(digits(*last))),
                _ => (None, None),
            };
            let key_id = match revoked {
                Revoked::KeyId { key_id, .. } => Some(key_id),
                _ => None,
            };
            let (key, hash) = match revoked {
                Revoked::Key(key) | Revoked::Ca(key) => (Some(key.encode_vec()?), Some(fingerprint(key))),
                Revoked::Fingerprint(hash) => (None, Some(Fingerprint::Sha256(*hash).to_string())),
                _ => (None, None),
            };
            transaction
                .execute(
                    "INSERT INTO revocations (what, authority, first_serial, last_serial, key_id, key, fingerprint, \
                     reason, revoked_by, revoked_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 WHERE NOT EXISTS \
                     (SELECT 1 FROM revocations WHERE what = ?1 AND authority IS ?2 AND first_serial IS ?3 AND \
                     last_serial IS ?4 AND key_id IS ?5 AND key IS ?6 AND fingerprint IS ?7)",
                    params![
                        revoked.name(),
                        ca,
                        first,
                        last,
                        key_id,
                        key,
                        hash,
                        reason,
                        revoked_by,
                        Timestamp::now().as_second()
                    ],
                )
                .map_err(failed)?;
            Ok(())
        })
    }

    /// All revocations, in their order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn revocations(&self) -> Result<Vec<Revocation>> {
        let revocations = read_revocations(&self.database, &self.failure())?;
        Ok(revocations.into_iter().map(|(revocation, _)| revocation).collect())
    }

    /// A revocation list of all revocations, with a number greater than that of any list before and at least `number`.
    ///
    /// # Errors
    /// When the revocations cannot be read, or the number not be recorded.
    pub fn revocation_list(&mut self, number: u64) -> Result<RevocationList> {
        let generated = Timestamp::now().as_second();
        self.write(|failed, transaction| {
            let last: Option<String> = transaction
                .query_row("SELECT max(number) FROM revocation_lists", [], |row| row.get(0))
                .map_err(failed)?;
            let last = last.map(|last| serial_of(&last)).transpose()?.unwrap_or(0);
            let number = last.saturating_add(1).max(number);
            transaction
                .execute(
                    "INSERT OR REPLACE INTO revocation_lists (number, built_at) VALUES (?1, ?2)",
                    params![digits(number), generated],
                )
                .map_err(failed)?;
            let generated = u64::try_from(generated).unwrap_or(0);
            let mut list = RevocationList::new(number, generated);
            for (_, revoked) in read_revocations(transaction, failed)? {
                revoked.put(&mut list)?;
            }
            Ok(list)
        })
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

impl Revoked {
    const fn name(&self) -> &'static str {
        match self {
            Self::Serials { .. } => "serials",
            Self::KeyId { .. } => "key_id",
            Self::Key(_) => "key",
            Self::Fingerprint(_) => "fingerprint",
            Self::Ca(_) => "ca",
        }
    }

    fn put(&self, list: &mut RevocationList) -> std::result::Result<(), KrlError> {
        match self {
            Self::Serials { ca, first, last } => list.revoke_serials(ca.as_ref(), *first..=*last),
            Self::KeyId { ca, key_id } => list.revoke_key_id(ca.as_ref(), key_id),
            Self::Key(key) | Self::Ca(key) => list.revoke_key(key),
            Self::Fingerprint(hash) => {
                list.revoke_fingerprint(*hash);
                Ok(())
            }
        }
    }

    /// The ledger's certificates that it is about.
    #[must_use]
    pub fn filter(&self) -> Filter {
        match self {
            Self::Serials { ca, first, last } => Filter {
                ca: ca.as_ref().map(fingerprint),
                serials: Some((*first, *last)),
                ..Filter::default()
            },
            Self::KeyId { ca, key_id } => {
                Filter { ca: ca.as_ref().map(fingerprint), key_id: Some(key_id.clone()), ..Filter::default() }
            }
            Self::Key(key) => Filter { subject: Some(fingerprint(key)), ..Filter::default() },
            Self::Fingerprint(hash) => {
                Filter { subject: Some(Fingerprint::Sha256(*hash).to_string()), ..Filter::default() }
            }
            Self::Ca(key) => Filter { ca: Some(fingerprint(key)), ..Filter::default() },
        }
    }
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
        // The system's own words are better than SQLite's, as long as it repeats them.
        Some(ErrorCode::CannotOpen) => match fs::OpenOptions::new().append(true).open(&path) {
            Err(source) => LedgerError::Open { path, source },
            Ok(_) => LedgerError::ReadOnly(path), // the file can be written, a journal beside it cannot
        },
        _ => LedgerError::Failed { path, source: error },
    }
}

type Failed<'a> = &'a dyn Fn(rusqlite::Error) -> LedgerError;

/// The row of a CA, which is made when there is none.
fn authority_of(failed: Failed<'_>, database: &Connection, key: &KeyData) -> Result<i64> {
    let (blob, fingerprint) = (key.encode_vec()?, fingerprint(key));
    let known = database
        .query_row("SELECT id FROM authorities WHERE key = ?1", [&blob], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    if let Some(known) = known {
        return Ok(known);
    }
    database
        .execute(
            "INSERT INTO authorities (key, fingerprint, last_serial) VALUES (?1, ?2, ?3)",
            params![blob, fingerprint, digits(0)],
        )
        .map_err(failed)?;
    Ok(database.last_insert_rowid())
}

/// Counts up, past the numbers that were given by hand.
fn next_serial(failed: Failed<'_>, database: &Connection, ca: i64, authority: &Authority) -> Result<u64> {
    let last: String = database
        .query_row("SELECT last_serial FROM authorities WHERE id = ?1", [ca], |row| row.get(0))
        .map_err(failed)?;
    let mut serial = serial_of(&last)?;
    loop {
        serial =
            serial.checked_add(1).ok_or_else(|| LedgerError::Exhausted(fingerprint(&authority.public)))?;
        let taken: bool = database
            .prepare("SELECT EXISTS (SELECT 1 FROM certificates WHERE authority = ?1 AND serial = ?2)")
            .and_then(|mut query| query.query_row(params![ca, digits(serial)], |row| row.get(0)))
            .map_err(failed)?;
        if !taken {
            break;
        }
    }
    database
        .execute("UPDATE authorities SET last_serial = ?2 WHERE id = ?1", params![ca, digits(serial)])
        .map_err(failed)?;
    Ok(serial)
}

fn read_revocations(database: &Connection, failed: Failed<'_>) -> Result<Vec<(Revocation, Revoked)>> {
    let mut statement = database
        .prepare(
            "SELECT revocations.id, what, authorities.fingerprint, first_serial, revocations.last_serial, key_id, \
             revocations.fingerprint, reason, revoked_by, revoked_at, authorities.key, revocations.key \
             FROM revocations LEFT JOIN authorities ON authorities.id = authority ORDER BY revocations.id",
        )
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut revocations = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        revocations.push(revocation(row).map_err(failed)??);
    }
    Ok(revocations)
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Result<(Revocation, Revoked)>> {
    let serial = |column| -> rusqlite::Result<Option<Result<u64>>> {
        Ok(row.get::<_, Option<String>>(column)?.map(|text| serial_of(&text)))
    };
    let (first, last) = (serial(3)?, serial(4)?);
    let (ca, key): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(10)?, row.get(11)?);
    let mut revocation = Revocation {
        revocation: row.get(0)?,
        what: row.get(1)?,
        ca: row.get(2)?,
        first_serial: None,
        last_serial: None,
        key_id: row.get(5)?,
        fingerprint: row.get(6)?,
        reason: row.get(7)?,
        revoked_by: row.get(8)?,
        revoked_at: row.get(9)?,
    };
    let read = || -> Result<Revoked> {
        (revocation.first_serial, revocation.last_serial) = (first.transpose()?, last.transpose()?);
        let ca = ca.map(|ca| key_data(&ca)).transpose()?;
        let key = key.map(|key| key_data(&key)).transpose()?;
        let hash = revocation.fingerprint.as_deref().and_then(sha256);
        let name = revocation.what.as_str();
        let revoked =
            match (name, revocation.first_serial, revocation.last_serial, &revocation.key_id, key, hash) {
                ("serials", Some(first), Some(last), None, None, None) => {
                    Revoked::Serials { ca, first, last }
                }
                ("key_id", None, None, Some(key_id), None, None) => {
                    Revoked::KeyId { ca, key_id: key_id.clone() }
                }
                ("key", None, None, None, Some(key), Some(_)) => Revoked::Key(key),
                ("ca", None, None, None, Some(key), Some(_)) => Revoked::Ca(key),
                ("fingerprint", None, None, None, None, Some(hash)) => Revoked::Fingerprint(hash),
                _ => return Err(LedgerError::Nonsense(format!("revocation {}", revocation.revocation))),
            };
        Ok(revoked)
    };
    Ok(read().map(|revoked| (revocation, revoked)))
}

/// The hash in a fingerprint that begins with `SHA256:`.
#[must_use]
pub fn sha256(fingerprint: &str) -> Option<[u8; 32]> {
    fingerprint.parse::<Fingerprint>().ok()?.sha256()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Result<Entry>> {
    let text = |name: &str| row.get::<_, String>(name);
    let (serial, valid_after, valid_before) = (text("serial")?, text("valid_after")?, text("valid_before")?);
    let (state, principals) = (text("state")?, text("principals")?);
    let id: i64 = row.get("id")?;
    let nonsense = |field: &str| LedgerError::Nonsense(format!("the {field} of entry {id}"));
    let numbers = || -> Result<_> {
        Ok((
            serial_of(&serial)?,
            serial_of(&valid_after)?,
            serial_of(&valid_before)?,
            State::ALL.into_iter().find(|known| known.name() == state).ok_or_else(|| nonsense("state"))?,
            serde_json::from_str(&principals).map_err(|_| nonsense("principals"))?,
        ))
    };
    let (serial, valid_after, valid_before, state, principals) = match numbers() {
        Ok(numbers) => numbers,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(Entry {
        entry: id,
        serial,
        counted: row.get("counted")?,
        state,
        key_id: row.get("key_id")?,
        principals,
        subject: row.get("subject")?,
        kind: row.get("kind")?,
        valid_after,
        valid_before,
        ca: row.get("ca")?,
        ca_key: row.get("ca_key")?,
        template: row.get("template")?,
        enforced_by: row.get("enforced_by")?,
        signer: row.get("signer")?,
        device_serial: row.get("device_serial")?,
        audit_entry: row.get("audit_entry")?,
        asked_by: row.get("asked_by")?,
        process: row.get("process")?,
        asked_at: row.get("asked_at")?,
        finished_at: row.get("finished_at")?,
        reason: row.get("reason")?,
        certificate: row.get("certificate")?,
    }))
}

fn digits(number: u64) -> String {
    format!("{number:020}")
}

fn serial_of(digits: &str) -> Result<u64> {
    digits.parse().map_err(|_| LedgerError::Nonsense(format!("{digits:?} is no number")))
}

fn key_data(blob: &[u8]) -> Result<KeyData> {
    KeyData::decode(&mut &*blob).map_err(|error| LedgerError::Nonsense(format!("a key: {error}")))
}

/// The ledger that signatures go through, for any number of threads; or none.
#[derive(Debug)]
pub struct Recorder {
    ledger: Option<Mutex<Ledger>>,
    asked_by: String,
}

impl Recorder {
    /// Records in `ledger`; without one, nothing is recorded.
    #[must_use]
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self { ledger: ledger.map(Mutex::new), asked_by: whoami() }
    }

    /// Reserves an entry for what `signer` is about to sign, and puts its serial number into `content`.
    ///
    /// # Errors
    /// When nothing was reserved: nothing is to be signed then. [`LedgerError::None`] without a ledger that could choose
    /// the serial number.
    pub fn reserve(
        &self,
        signer: &dyn Signer,
        subject: &KeyData,
        content: &mut Content,
        serial: Serial,
    ) -> Result<Option<Reservation>> {
        let Some(ledger) = &self.ledger else {
            let Serial::Given(serial) = serial else { return Err(LedgerError::None) };
            content.serial = serial;
            return Ok(None);
        };
        let authority = Authority {
            public: signer.ca_key().clone(),
            key: signer.key(),
            template: signer.template(),
            enforced_by: signer.enforced_by(),
            signer: signer.describe(),
            device_serial: signer.device_serial(),
        };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let reservation = ledger.reserve(&authority, subject, content, serial, &self.asked_by)?;
        content.serial = reservation.serial;
        Ok(Some(reservation))
    }

    /// Records what became of a reservation: the certificate, or why there is none.
    ///
    /// # Errors
    /// When it is not recorded. A certificate is to be thrown away then; its entry stays reserved.
    pub fn settle(
        &self,
        reservation: Option<Reservation>,
        outcome: std::result::Result<&str, (State, String)>,
        audit_entry: Option<u16>,
    ) -> Result<()> {
        let (Some(ledger), Some(reservation)) = (&self.ledger, reservation) else { return Ok(()) };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(certificate) => ledger.issued(&reservation, certificate, audit_entry),
            Err((state, reason)) => ledger.not_issued(&reservation, state, &reason, audit_entry),
        }
    }
}

/// Who runs this process, as `user@host`.
#[must_use]
pub fn whoami() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    #[cfg(unix)]
    let (id, host) = (
        rustix::process::getuid().as_raw().to_string(),
        rustix::system::uname().nodename().to_string_lossy().into_owned(),
    );
    #[cfg(not(unix))]
    let (id, host) = ("unknown".to_owned(), variable("COMPUTERNAME").unwrap_or_default());
    let user = ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(variable).unwrap_or(id);
    format!("{user}@{host}")
}
