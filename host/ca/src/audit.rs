//! A device's audit log, stored: read, checked against the stored entries, stored, and only then freed on the
//! device.
//!
//! *The journal* is a file of JSON lines, one for each entry of the log, one for each finding, and one for
//! each state of the ledger that it was read with. Its last entry is the checkpoint: the digest of the
//! device's next entry must link to it ([`LogEntry::follows`]). Lines are appended and reach the disk before
//! the device discards its entries; a line truncated by a crash is dropped, since the device still has the
//! entry.
//!
//! *Links.* Each line ends in `,"link":"…"}`: the SHA-256, in hexadecimal, of the previous line's link (32
//! bytes, zeros before the first) and of everything in the line before `,"link":`. A journal of version 1 has
//! no links up to a line `continued`, whose link covers the SHA-256 of all preceding bytes. The ledger stores
//! the number of lines and the last link ([`KnownJournal`]), and the journal stores the ledger's:
//! each shows if the other was truncated or recreated.
//!
//! *Findings* are stored in the journal too, and the log continues after them: a log that does not start at
//! its beginning, a gap (the device overwrote entries before they were read), a reset (a new log begins),
//! events that a full log only counted. A log that contradicts the journal, and a journal that contradicts
//! the ledger, are not stored.

mod reconcile;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sshsm_protocol::{
    Command, DeviceError,
    audit::{LogEntry, LogMark},
};

use crate::{
    files,
    ledger::{Head, KnownJournal, Ledger, LedgerError, Link, hex, unhex},
    path::shown,
};
use sshsm_client::{ClientError, Failure, Kind, Session};

pub use reconcile::{Gap, Reconciliation, Unmatched};

/// Of the journal's lines. One of version 1 is continued; a journal with another version is refused.
const VERSION: u32 = 2;
/// The version whose lines have no links.
const UNLINKED: u32 = 1;
/// Separates the content of a line from its link.
const LINK: &str = ",\"link\":\"";

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// The first.
    Journal {
        /// Which fields lines have.
        version: u32,
        /// The device's serial number.
        device: u32,
        /// UNIX seconds.
        at: i64,
    },
    /// Lines have links from here on.
    Continued {
        /// Which fields lines have.
        version: u32,
        /// UNIX seconds.
        at: i64,
    },
    /// An entry from the device.
    Entry(Record),
    /// The ledger that the log was read with, as it was then.
    Ledger {
        /// Which one, 32 hexadecimal digits.
        id: String,
        /// Its events.
        events: i64,
        /// The link of the last one, 64 hexadecimal digits.
        head: String,
        /// UNIX seconds.
        at: i64,
    },
    /// A finding; what follows is not linked to what precedes it.
    Finding(Finding),
}

/// An entry of the device's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts modulo 2¹⁶.
    pub number: u16,
    /// The command's name.
    pub command: String,
    /// Its code.
    pub code: u8,
    /// Bytes of its payload.
    pub length: u16,
    /// The session's authentication key; 65535 is none, as in the next two.
    pub session_key: u16,
    /// The key that it is about.
    pub target_key: u16,
    /// A second one; of a certificate, the template.
    pub second_key: u16,
    /// What became of it: `done`, the device's error, or `unexecuted`.
    pub outcome: String,
    /// The code of the response or of the error.
    pub result: u8,
    /// 10 ms since the device started.
    pub systick: u32,
    /// The link to the entry before, 32 hexadecimal digits.
    pub digest: String,
    /// When it was stored; UNIX seconds.
    pub at: i64,
}

/// A finding about a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// The journal does not begin with the first entry of the device's log: earlier entries are not known.
    Beginning {
        /// The first entry that there was.
        before: u16,
        /// When it was found; UNIX seconds.
        at: i64,
    },
    /// A journal that is not the one that the ledger knows was accepted: entries may be lost.
    Replaced {
        /// The last entry that the ledger knew, if it knew one.
        after: Option<u16>,
        /// When it was found; UNIX seconds.
        at: i64,
    },
    /// A ledger was accepted that is not the one that the journal knows.
    LedgerReplaced {
        /// The first event of it that is another, or is missing.
        event: i64,
        /// When it was found; UNIX seconds.
        at: i64,
    },
    /// The device overwrote entries before they were stored.
    Gap {
        /// The last that was stored.
        after: u16,
        /// The next that there was.
        before: u16,
        /// When it was found; UNIX seconds.
        at: i64,
    },
    /// The device was reset: a new log begins.
    Reset {
        /// The last entry of the log before.
        after: u16,
        /// When it was found; UNIX seconds.
        at: i64,
    },
    /// A log that contradicts the journal was stored on request.
    Broken {
        /// The last entry of the log before.
        after: u16,
        /// The first of the new one.
        before: u16,
        /// When it was found; UNIX seconds.
        at: i64,
    },
    /// Events that a full log only counted.
    Unlogged {
        /// Starts of the device.
        boots: u16,
        /// Authentications.
        authentications: u16,
        /// When it was found; UNIX seconds.
        at: i64,
    },
}

impl Finding {
    /// Whether something that the device signed may be missing from the journal because of it.
    #[must_use]
    pub const fn may_hide_a_signature(&self) -> bool {
        match self {
            Self::Beginning { .. }
            | Self::Replaced { .. }
            | Self::LedgerReplaced { .. }
            | Self::Gap { .. }
            | Self::Reset { .. }
            | Self::Broken { .. } => true,
            Self::Unlogged { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Beginning { before, .. } => {
                write!(f, "beginning: nothing is known of what the device logged before entry {before}")
            }
            Self::Replaced { after: Some(after), .. } => write!(
                f,
                "replaced: a journal was accepted that is not the one that the ledger knows up to entry {after}"
            ),
            Self::Replaced { after: None, .. } => {
                f.write_str("replaced: a journal was accepted that is not the one that the ledger knows")
            }
            Self::LedgerReplaced { event, .. } => {
                write!(
                    f,
                    "ledger replaced: its event {event} is not what the journal knew, and was accepted so"
                )
            }
            Self::Gap { after, before, .. } => {
                let lost = before.wrapping_sub(after).wrapping_sub(1);
                write!(
                    f,
                    "gap: {lost} entries between {after} and {before} were overwritten before they were read"
                )
            }
            Self::Reset { after, .. } => {
                write!(f, "reset: the device was reset after entry {after}; a new log begins")
            }
            Self::Broken { after, before, .. } => {
                write!(f, "broken: entry {before} does not continue entry {after}, and was accepted so")
            }
            Self::Unlogged { boots, authentications, .. } => write!(
                f,
                "unlogged: {boots} starts and {authentications} authentications while the log was full"
            ),
        }
    }
}

/// Why a log was not stored, or a journal cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The journal's file.
    #[error("the journal {} cannot be read or written", shown(path))]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is none.
    #[error("there is no journal {}", shown(.0))]
    Absent(PathBuf),
    /// Another process is writing it.
    #[error("another process writes the journal {}", shown(.0))]
    Locked(PathBuf),
    /// It does not consist of such lines.
    #[error("line {line} of the journal {} makes no sense: {reason}", shown(path))]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The defect.
        reason: String,
    },
    /// An entry was changed or left out.
    #[error(
        "the journal {} is broken at line {line}: entry {number} does not follow the one before",
        shown(path)
    )]
    Journal {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The entry.
        number: u16,
    },
    /// A line was changed or left out.
    #[error("the journal {} is broken at line {line}: its link does not fit the line before", shown(path))]
    Link {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The ledger knows more of this journal than there is, or other lines.
    #[error(
        "{} is not the journal that the ledger {} knows: the ledger knows {lines} lines of it{}", shown(path), shown(ledger),
        last.map_or_else(String::new, |last| format!(", up to the device's entry {last}"))
    )]
    Replaced {
        /// The file; perhaps there is none.
        path: PathBuf,
        /// The ledger's.
        ledger: PathBuf,
        /// Lines that the ledger knows.
        lines: usize,
        /// The last entry of the device that the ledger knows.
        last: Option<u16>,
    },
    /// The journal knows more of this ledger than there is, or other events.
    #[error(
        "{} is not the ledger that the journal {} knows: its event {event} is another, or is missing",
        shown(ledger),
        shown(path)
    )]
    Ledger {
        /// The journal's file.
        path: PathBuf,
        /// The ledger's.
        ledger: PathBuf,
        /// The event.
        event: i64,
    },
    /// The ledger cannot be read or written.
    #[error(transparent)]
    LedgerFailed(#[from] LedgerError),
    /// It is another device's.
    #[error("this is device {found:010}, and the journal {} is that of device {expected:010}", shown(path))]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// The device that it belongs to.
        expected: u32,
        /// The device that is there.
        found: u32,
    },
    /// The device's entries are not linked to each other.
    #[error("the device's log is broken at entry {0}: its digest does not fit the entry before")]
    Log(u16),
    /// The device's entries are not linked to the journal's.
    #[error(
        "the device's log contradicts the journal: entry {number} is not what follows entry {last}; it was rewritten, or \
         the device was reset and the first entries of its new log are lost"
    )]
    Contradiction {
        /// The first entry that does not fit.
        number: u16,
        /// The journal's last.
        last: u16,
    },
    /// The device.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Failure for AuditError {
    fn kind(&self) -> Kind {
        match self {
            Self::File { .. } | Self::Absent(_) | Self::Locked(_) => Kind::File,
            Self::LedgerFailed(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Line { .. }
            | Self::Journal { .. }
            | Self::Link { .. }
            | Self::Replaced { .. }
            | Self::Ledger { .. }
            | Self::OtherDevice { .. }
            | Self::Log(_)
            | Self::Contradiction { .. } => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::LedgerFailed(error) => return error.help(),
            Self::Client(error) => return error.help(),
            Self::OtherDevice { .. } => "give each device a journal of its own, as without --journal",
            Self::Absent(_) => "`sshsm audit log` makes it",
            Self::Replaced { .. } => {
                "find the journal that was there (--journal FILE); `sshsm audit log --accept-break` continues with this \
                 one, and says so in it for ever"
            }
            Self::Ledger { .. } => {
                "find the ledger that was there (--ledger FILE); `sshsm audit log --accept-break` continues with this \
                 one, and says so in the journal for ever"
            }
            Self::Contradiction { .. } => {
                "keep the journal as evidence; --accept-break stores the log after a note of the break"
            }
            Self::Locked(_) => "`audit follow` may run; it stores the log already",
            Self::File { .. }
            | Self::Line { .. }
            | Self::Journal { .. }
            | Self::Link { .. }
            | Self::Log(_) => {
                return None;
            }
        })
    }
}

type Result<T> = std::result::Result<T, AuditError>;

/// A journal that was read and whose chain is intact.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    device: u32,
    started: i64,
    /// Kept open, and locked, by a writer.
    file: Option<File>,
    records: Vec<Record>,
    findings: Vec<Finding>,
    checkpoint: Option<LogMark>,
    /// The link of each line; `None` for those without.
    links: Vec<Option<Link>>,
    /// How the next line is linked; `None`: it must be [`Line::Continued`].
    chain: Option<Link>,
    /// Of all whole lines, until there is a chain.
    unlinked: Sha256,
    /// The ledgers that it knows: each one's id, events and head.
    ledgers: Vec<(String, i64, Link)>,
}

/// What one look at the device brought.
#[derive(Debug, Default)]
pub struct Update {
    /// New entries.
    pub entries: Vec<Record>,
    /// New findings.
    pub findings: Vec<Finding>,
}

impl Journal {
    /// Reads the journal at `path` and checks its chain.
    ///
    /// # Errors
    /// When there is none, or it cannot be trusted.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AuditError::Absent(path.to_owned()),
            _ => AuditError::File { path: path.to_owned(), source: error },
        })?;
        let (journal, _) = Self::load(path, &file)?;
        journal.ok_or_else(|| AuditError::Absent(path.to_owned()))
    }

    /// Opens the journal of `device` at `path` for writing, and creates it if there is none.
    ///
    /// # Errors
    /// When another process is writing it, it cannot be trusted, or it belongs to another device.
    pub fn open(path: &Path, device: u32) -> Result<Self> {
        let failed = |source| AuditError::File { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            files::make_private_directory(directory).map_err(failed)?;
        }
        let file = files::open_own(path).map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => AuditError::Locked(path.to_owned()),
            fs::TryLockError::Error(source) => failed(source),
        })?;
        let (journal, whole) = Self::load(path, &file)?;
        // The part of a line left by a crash.
        file.set_len(whole).map_err(failed)?;
        match journal {
            Some(journal) if journal.device != device => Err(AuditError::OtherDevice {
                path: path.to_owned(),
                expected: journal.device,
                found: device,
            }),
            Some(journal) => {
                let mut journal = Self { file: Some(file), ..journal };
                if journal.chain.is_none() {
                    journal.append(&[Line::Continued { version: VERSION, at: now() }])?;
                }
                Ok(journal)
            }
            None => {
                let started = now();
                let mut journal = Self { file: Some(file), ..Self::new(path, device, started) };
                journal.chain = Some(Link::default());
                journal.append(&[Line::Journal { version: VERSION, device, at: started }])?;
                sync_directory(path).map_err(failed)?;
                Ok(journal)
            }
        }
    }

    fn new(path: &Path, device: u32, started: i64) -> Self {
        Self {
            path: path.to_owned(),
            device,
            started,
            file: None,
            records: Vec::new(),
            findings: Vec::new(),
            checkpoint: None,
            links: Vec::new(),
            chain: None,
            unlinked: Sha256::new(),
            ledgers: Vec::new(),
        }
    }

    /// Reads all whole lines; also how many bytes they are.
    fn load(path: &Path, file: &File) -> Result<(Option<Self>, u64)> {
        let failed = |source| AuditError::File { path: path.to_owned(), source };
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let (mut journal, mut whole) = (None::<Self>, 0);
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(failed)?;
            if text.last() != Some(&b'\n') {
                break;
            }
            whole += length as u64;
            let nonsense = |reason: String| AuditError::Line { path: path.to_owned(), line: number, reason };
            let (said, link) = linked(&text);
            let line: Line = serde_json::from_slice(&said).map_err(|error| nonsense(error.to_string()))?;
            let broken = || AuditError::Link { path: path.to_owned(), line: number };
            match (&line, journal.as_mut()) {
                (&Line::Journal { version, device, at }, None) => {
                    let mut new = Self::new(path, device, at);
                    match version {
                        VERSION => new.chain = Some(Link::default()),
                        UNLINKED => {}
                        version => {
                            let knows = format!("it has version {version}; this program knows {VERSION}");
                            return Err(nonsense(knows));
                        }
                    }
                    journal = Some(new);
                }
                (_, None) => return Err(nonsense("a journal begins otherwise".into())),
                (Line::Journal { .. }, Some(_)) => return Err(nonsense("a second beginning".into())),
                (&Line::Continued { version, .. }, Some(journal)) => {
                    if version != VERSION || journal.chain.is_some() {
                        return Err(nonsense("it continues nothing".into()));
                    }
                    journal.chain = Some(journal.unlinked.clone().finalize().into());
                }
                (_, Some(_)) => {}
            }
            let Some(journal) = journal.as_mut() else { continue };
            // Whatever it contains, it must be linked correctly.
            match journal.chain {
                Some(before) => {
                    let expected = link_after(&before, said.strip_suffix(b"}").unwrap_or(&said));
                    if link != Some(expected) {
                        return Err(broken());
                    }
                    journal.chain = Some(expected);
                    journal.links.push(Some(expected));
                }
                None if link.is_some() => return Err(broken()),
                None => {
                    journal.unlinked.update(&text);
                    journal.links.push(None);
                }
            }
            match line {
                Line::Journal { .. } | Line::Continued { .. } => {}
                Line::Entry(mut record) => {
                    let entry = record.entry().ok_or_else(|| nonsense("its digest".into()))?;
                    if journal.checkpoint.is_some_and(|last| !continues(&entry, last)) {
                        let number = entry.number;
                        let line = journal.links.len();
                        return Err(AuditError::Journal { path: path.to_owned(), line, number });
                    }
                    if journal.chain.is_none() {
                        // Its names are not authenticated, only its codes.
                        record = Record::new(&entry, record.at);
                    }
                    let begins = |finding: &Finding| matches!(finding, Finding::Beginning { .. });
                    if journal.records.is_empty() && !is_first(&entry) && !journal.findings.iter().any(begins)
                    {
                        // From an earlier version, which did not record this.
                        journal.findings.push(Finding::Beginning { before: entry.number, at: record.at });
                    }
                    journal.checkpoint = Some(entry.mark());
                    journal.records.push(record);
                }
                Line::Finding(finding) => journal.put_finding(finding),
                Line::Ledger { id, events, head, .. } => {
                    let head = unhex(&head).ok_or_else(|| nonsense("its head".into()))?;
                    journal.ledgers.push((id, events, head));
                }
            }
        }
        Ok((journal, whole))
    }

    /// What the ledger is to store about it; `None` while it has no links.
    fn known(&self) -> Option<KnownJournal> {
        Some(KnownJournal {
            lines: self.links.len(),
            link: self.links.last().copied().flatten()?,
            last: self.records.last().and_then(Record::mark),
        })
    }

    /// Fails when the ledger knows a journal of `device` and there is none at `path`.
    ///
    /// # Errors
    /// [`AuditError::Replaced`]; [`AuditError::LedgerFailed`] when the ledger cannot be read.
    pub fn check_present(path: &Path, device: u32, ledger: &Ledger) -> Result<()> {
        match ledger.journal(device)? {
            Some(known) if !path.exists() => Err(replaced(path, ledger, &known)),
            _ => Ok(()),
        }
    }

    /// Compares what journal and ledger know about each other.
    ///
    /// # Errors
    /// [`AuditError::Replaced`] and [`AuditError::Ledger`] when one of them was truncated, changed or
    /// recreated; [`AuditError::LedgerFailed`] when the ledger cannot be read.
    pub fn check(&self, ledger: &Ledger) -> Result<()> {
        if let Some(known) = ledger.journal(self.device)? {
            let link = known.lines.checked_sub(1).and_then(|last| self.links.get(last)).copied().flatten();
            if link != Some(known.link) {
                return Err(replaced(&self.path, ledger, &known));
            }
        }
        let id = ledger.head()?.id;
        for (_, event, head) in self.ledgers.iter().filter(|(known, ..)| *known == id) {
            if ledger.link(*event)? != Some(*head) {
                return Err(AuditError::Ledger {
                    path: self.path.clone(),
                    ledger: ledger.path().to_owned(),
                    event: *event,
                });
            }
        }
        Ok(())
    }

    fn put_finding(&mut self, finding: Finding) {
        match finding {
            Finding::Unlogged { .. } | Finding::Replaced { .. } => {}
            Finding::LedgerReplaced { .. } => self.ledgers.clear(),
            Finding::Beginning { .. }
            | Finding::Gap { .. }
            | Finding::Reset { .. }
            | Finding::Broken { .. } => {
                self.checkpoint = None;
            }
        }
        self.findings.push(finding);
    }

    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.links.len()
    }

    /// The link of its last line, 64 hexadecimal digits; `None` for a journal of an earlier version.
    #[must_use]
    pub fn last_link(&self) -> Option<String> {
        self.links.last().copied().flatten().map(|link| hex(&link))
    }

    /// The serial number of its device.
    #[must_use]
    pub const fn device(&self) -> u32 {
        self.device
    }

    /// When it was begun; UNIX seconds.
    #[must_use]
    pub const fn started(&self) -> i64 {
        self.started
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All entries.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// All findings so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Reads the device's log, stores what is new, records it in the `ledger`, and then lets the device
    /// discard it, unless the device is to `keep` it.
    ///
    /// A log that contradicts the journal, and a journal that contradicts the ledger, are stored only with
    /// `accept`.
    ///
    /// # Errors
    /// When nothing was stored; or, as [`AuditError::Client`] and [`AuditError::LedgerFailed`], when the
    /// device does not discard what is stored or the ledger does not record it.
    pub fn update(
        &mut self,
        session: &mut Session<'_>,
        ledger: Option<&mut Ledger>,
        keep: bool,
        accept: bool,
    ) -> Result<Update> {
        let found = session.serial();
        if found != self.device {
            return Err(AuditError::OtherDevice { path: self.path.clone(), expected: self.device, found });
        }
        let mut findings = Vec::new();
        if let Some(ledger) = ledger.as_deref() {
            match self.check(ledger) {
                Ok(()) => {}
                Err(AuditError::Replaced { last, .. }) if accept => {
                    findings.push(Finding::Replaced { after: last, at: now() });
                }
                Err(AuditError::Ledger { event, .. }) if accept => {
                    findings.push(Finding::LedgerReplaced { event, at: now() });
                }
                Err(error) => return Err(error),
            }
        }
        let (header, entries) = session.log_entries()?;
        let unlogged = (header.unlogged_boots, header.unlogged_authentications);
        let update = self.take(findings, unlogged, &entries, ledger.as_deref(), accept)?;
        if let (Some(ledger), Some(known)) = (ledger, self.known())
            && ledger.journal(self.device)? != Some(known)
        {
            ledger.remember_journal(self.device, &known)?;
        }
        if let Some(last) = entries.last().filter(|_| !keep) {
            session.set_log_index(last.number)?;
        }
        Ok(update)
    }

    /// Checks and stores the new entries of a device's log, after `findings`.
    fn take(
        &mut self,
        findings: Vec<Finding>,
        (boots, authentications): (u16, u16),
        log: &[LogEntry],
        ledger: Option<&Ledger>,
        accept: bool,
    ) -> Result<Update> {
        for pair in log.windows(2) {
            if let [before, after] = pair
                && !continues(after, before.mark())
            {
                return Err(AuditError::Log(after.number));
            }
        }
        let at = now();
        let mut update = Update { findings, ..Update::default() };
        let mut new = log;
        match (self.checkpoint, log.first()) {
            (Some(last), Some(first)) => {
                let known = log.iter().position(|entry| entry.mark() == last);
                let (after, before) = (last.number, first.number);
                match known {
                    Some(known) => new = log.get(known + 1..).unwrap_or_default(),
                    None if continues(first, last) => {}
                    None if is_first(first) => update.findings.push(Finding::Reset { after, at }),
                    None if log.iter().all(|entry| entry.number != after)
                        && before != after.wrapping_add(1) =>
                    {
                        update.findings.push(Finding::Gap { after, before, at });
                    }
                    None if accept => update.findings.push(Finding::Broken { after, before, at }),
                    None => {
                        let wrong = log.iter().find(|entry| entry.number == after).unwrap_or(first);
                        return Err(AuditError::Contradiction { number: wrong.number, last: after });
                    }
                }
            }
            (None, Some(first)) if self.records.is_empty() && !is_first(first) => {
                update.findings.push(Finding::Beginning { before: first.number, at });
            }
            _ => {}
        }
        let known = self.findings.last();
        let counted = |finding: &Finding| matches!(finding, Finding::Unlogged { boots: b, authentications: a, .. } if (*b, *a) == (boots, authentications));
        // A device that keeps its log keeps its counters too.
        if (boots, authentications) != (0, 0) && !(new.is_empty() && known.is_some_and(counted)) {
            update.findings.push(Finding::Unlogged { boots, authentications, at });
        }
        update.entries = new.iter().map(|entry| Record::new(entry, at)).collect();
        let mut lines: Vec<_> = update.findings.iter().cloned().map(Line::Finding).collect();
        lines.extend(update.entries.iter().cloned().map(Line::Entry));
        let head = ledger.map(Ledger::head).transpose()?;
        let told = |head: &Head| {
            let last = self.ledgers.iter().rev().find(|(id, ..)| *id == head.id);
            last.is_some_and(|(_, events, _)| *events == head.events)
        };
        if let Some(head) = head.filter(|head| !told(head)) {
            lines.push(Line::Ledger { id: head.id, events: head.events, head: hex(&head.link), at });
        }
        self.append(&lines)?;
        self.records.extend(update.entries.iter().cloned());
        if let Some(last) = new.last() {
            self.checkpoint = Some(last.mark());
        }
        Ok(update)
    }

    /// Appends lines; they are on the disk when this returns.
    fn append(&mut self, lines: &[Line]) -> Result<()> {
        let failed = |source| AuditError::File { path: self.path.clone(), source };
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else { return Ok(()) };
        let mut text = Vec::new();
        let (mut chain, mut links) = (self.chain, Vec::new());
        for line in lines {
            let said = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
            let said = said.strip_suffix('}').unwrap_or(&said);
            let before = chain.unwrap_or_else(|| self.unlinked.clone().finalize().into());
            let link = link_after(&before, said.as_bytes());
            text.extend_from_slice(format!("{said}{LINK}{}\"}}\n", hex(&link)).as_bytes());
            chain = Some(link);
            links.push(Some(link));
        }
        let before = file.metadata().map_err(failed)?.len();
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|error| {
            // Half of it, on a full disk, would be in the way of the next.
            let _ = file.set_len(before);
            failed(error)
        })?;
        self.chain = chain;
        self.links.extend(links);
        for line in lines {
            match line {
                Line::Ledger { id, events, head, .. } => {
                    self.ledgers.extend(unhex(head).map(|head| (id.clone(), *events, head)));
                }
                Line::Finding(finding) => self.put_finding(finding.clone()),
                Line::Journal { .. } | Line::Continued { .. } | Line::Entry(_) => {}
            }
        }
        Ok(())
    }
}

fn replaced(path: &Path, ledger: &Ledger, known: &KnownJournal) -> AuditError {
    AuditError::Replaced {
        path: path.to_owned(),
        ledger: ledger.path().to_owned(),
        lines: known.lines,
        last: known.last.map(|last| last.number),
    }
}

/// A line's content, as JSON, and its link if it has one.
fn linked(line: &[u8]) -> (Vec<u8>, Option<Link>) {
    let unlinked = || (line.to_vec(), None);
    let Some(text) = str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\"}\n")) else {
        return unlinked();
    };
    let Some((said, link)) = text.rsplit_once(LINK) else { return unlinked() };
    match unhex(link) {
        Some(link) => (format!("{said}}}").into_bytes(), Some(link)),
        None => unlinked(),
    }
}

/// The link of a line with the content `said`, without its last brace.
fn link_after(before: &Link, said: &[u8]) -> Link {
    Sha256::new().chain_update(before).chain_update(said).finalize().into()
}

fn continues(entry: &LogEntry, last: LogMark) -> bool {
    entry.number == last.number.wrapping_add(1) && entry.follows(&last.digest)
}

/// Whether it is the first entry that a device logs after a reset.
fn is_first(entry: &LogEntry) -> bool {
    LogEntry { digest: [0; 16], ..*entry } == LogEntry::RESET
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory =
        path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

impl Record {
    fn new(entry: &LogEntry, at: i64) -> Self {
        let command = match entry.command {
            0 => "boot".into(),
            0xff => "reset".into(),
            code => Command::from_code(code)
                .map_or_else(|| format!("{code:#04x}"), |command| command.name().into()),
        };
        let outcome = match entry.result {
            LogEntry::UNEXECUTED if entry.command == 0xff => "done".into(),
            LogEntry::UNEXECUTED => "unexecuted".into(),
            result if result >= 0x80 || entry.command == 0 => "done".into(),
            code => DeviceError::from_code(code)
                .map_or_else(|| format!("error {code:#04x}"), |error| error.to_string()),
        };
        Self {
            number: entry.number,
            command,
            code: entry.command,
            length: entry.length,
            session_key: entry.session_key,
            target_key: entry.target_key,
            second_key: entry.second_key,
            outcome,
            result: entry.result,
            systick: entry.systick,
            digest: format!("{:032x}", u128::from_be_bytes(entry.digest)),
            at,
        }
    }

    /// The entry as the device wrote it; `None` if the digest is none.
    fn entry(&self) -> Option<LogEntry> {
        Some(LogEntry {
            number: self.number,
            command: self.code,
            length: self.length,
            session_key: self.session_key,
            target_key: self.target_key,
            second_key: self.second_key,
            result: self.result,
            systick: self.systick,
            digest: u128::from_str_radix(&self.digest, 16).ok()?.to_be_bytes(),
        })
    }

    /// Its number and digest; `None` if the digest is none.
    fn mark(&self) -> Option<LogMark> {
        self.entry().map(|entry| entry.mark())
    }

    /// Whether it is a request for a certificate.
    fn is_signing(&self) -> bool {
        self.code == Command::SignSshCertificate.code()
    }

    fn is_signature(&self) -> bool {
        self.is_signing() && self.result >= 0x80 && self.result != LogEntry::UNEXECUTED
    }

    fn is_refusal(&self) -> bool {
        self.is_signing() && self.result == DeviceError::SshCaConstraintViolation.code()
    }
}
