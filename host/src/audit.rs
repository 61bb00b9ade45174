//! A device's audit log, kept: read, checked against what was kept before, stored, and only then freed on the device.
//!
//! *The journal* is a file of JSON lines, one for each entry of the log and one for each thing that is wrong with it.
//! Its last entry is the checkpoint: what the device logs next must be linked to it by its digest ([`LogEntry::follows`]).
//! Lines are appended and on the disk before the device forgets its entries; a line that a crash cut short is dropped,
//! since the device has the entry still.
//!
//! *Findings* are kept in the journal too, where the log goes on behind them: a gap (the device overwrote entries before
//! they were read), a reset (a new log begins), events that a full log only counted. A log that contradicts the journal
//! is not stored.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sshsm_protocol::{
    Command, DeviceError,
    audit::{Digest, LogEntry},
};

use crate::{
    client::{ClientError, Session},
    files,
    ledger::{self, State},
    output::shown,
};

/// Of the journal's lines; a journal with another version is refused.
const VERSION: u32 = 1;

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
    /// What the device logged.
    Entry(Record),
    /// Something that is wrong; what follows is not linked to what was before.
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

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
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
    /// Somebody let a log be stored that contradicts the journal.
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

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
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
        /// What the system says.
        source: io::Error,
    },
    /// There is none.
    #[error("there is no journal {}", shown(.0))]
    Absent(PathBuf),
    /// Somebody else writes it.
    #[error("another process writes the journal {}", shown(.0))]
    Locked(PathBuf),
    /// It is not made of such lines.
    #[error("line {line} of the journal {} makes no sense: {reason}", shown(path))]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Somebody changed it, or left something out.
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
    /// It is another device's.
    #[error("this is device {found:010}, and the journal {} is that of device {expected:010}", shown(path))]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        expected: u32,
        /// Who is there.
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

type Result<T> = std::result::Result<T, AuditError>;

/// A journal that was read and whose chain holds.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    device: u32,
    started: i64,
    /// Kept open, and locked, by who writes.
    file: Option<File>,
    records: Vec<Record>,
    findings: Vec<Finding>,
    checkpoint: Option<(u16, Digest)>,
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

    /// Opens the journal of `device` at `path` for writing, and makes it when there is none.
    ///
    /// # Errors
    /// When somebody else writes it, it cannot be trusted, or is another device's.
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
        // What a crash left of a line.
        file.set_len(whole).map_err(failed)?;
        match journal {
            Some(journal) if journal.device != device => Err(AuditError::OtherDevice {
                path: path.to_owned(),
                expected: journal.device,
                found: device,
            }),
            Some(journal) => Ok(Self { file: Some(file), ..journal }),
            None => {
                let started = now();
                let mut journal = Self {
                    path: path.to_owned(),
                    device,
                    started,
                    file: Some(file),
                    records: Vec::new(),
                    findings: Vec::new(),
                    checkpoint: None,
                };
                journal.append(&[Line::Journal { version: VERSION, device, at: started }])?;
                sync_directory(path).map_err(failed)?;
                Ok(journal)
            }
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
            let line: Line = serde_json::from_slice(&text).map_err(|error| nonsense(error.to_string()))?;
            match (line, journal.as_mut()) {
                (Line::Journal { version: VERSION, device, at }, None) => {
                    journal = Some(Self {
                        path: path.to_owned(),
                        device,
                        started: at,
                        file: None,
                        records: Vec::new(),
                        findings: Vec::new(),
                        checkpoint: None,
                    });
                }
                (Line::Journal { version, .. }, None) => {
                    return Err(nonsense(format!("it has version {version}; this program knows {VERSION}")));
                }
                (Line::Entry(record), Some(journal)) => {
                    let entry = record.entry().ok_or_else(|| nonsense("its digest".into()))?;
                    if journal.checkpoint.is_some_and(|last| !continues(&entry, last)) {
                        let number = entry.number;
                        return Err(AuditError::Journal {
                            path: path.to_owned(),
                            line: journal.lines() + 1,
                            number,
                        });
                    }
                    journal.checkpoint = Some((entry.number, entry.digest));
                    journal.records.push(record);
                }
                (Line::Finding(finding), Some(journal)) => journal.put_finding(finding),
                (_, None) => return Err(nonsense("a journal begins otherwise".into())),
                (Line::Journal { .. }, Some(_)) => return Err(nonsense("a second beginning".into())),
            }
        }
        Ok((journal, whole))
    }

    fn lines(&self) -> usize {
        1 + self.records.len() + self.findings.len()
    }

    fn put_finding(&mut self, finding: Finding) {
        // Events that were not logged do not break the chain.
        if !matches!(finding, Finding::Unlogged { .. }) {
            self.checkpoint = None;
        }
        self.findings.push(finding);
    }

    /// Whose it is.
    #[must_use]
    pub const fn device(&self) -> u32 {
        self.device
    }

    /// When it was begun; UNIX seconds.
    #[must_use]
    pub const fn started(&self) -> i64 {
        self.started
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All entries.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// All that was ever wrong.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Reads the device's log, stores what is new, and then has the device forget it, unless it shall `keep` it.
    ///
    /// A log that contradicts the journal is stored only if `accept` says so.
    ///
    /// # Errors
    /// When nothing was stored; or, as [`AuditError::Client`], when the device does not forget what is stored.
    pub fn update(&mut self, session: &mut Session<'_>, keep: bool, accept: bool) -> Result<Update> {
        let found = session.serial();
        if found != self.device {
            return Err(AuditError::OtherDevice { path: self.path.clone(), expected: self.device, found });
        }
        let (header, entries) = session.log_entries()?;
        let update = self.take(header.unlogged_boots, header.unlogged_authentications, &entries, accept)?;
        if let Some(last) = entries.last().filter(|_| !keep) {
            session.set_log_index(last.number)?;
        }
        Ok(update)
    }

    /// Checks and stores what is new in a device's log.
    fn take(&mut self, boots: u16, authentications: u16, log: &[LogEntry], accept: bool) -> Result<Update> {
        for pair in log.windows(2) {
            if let [before, after] = pair
                && !continues(after, (before.number, before.digest))
            {
                return Err(AuditError::Log(after.number));
            }
        }
        let at = now();
        let mut update = Update::default();
        let mut new = log;
        if let (Some((last, digest)), Some(first)) = (self.checkpoint, log.first()) {
            let known = log.iter().position(|entry| entry.number == last && entry.digest == digest);
            let (after, before) = (last, first.number);
            match known {
                Some(known) => new = log.get(known + 1..).unwrap_or_default(),
                None if continues(first, (last, digest)) => {}
                None if LogEntry { digest: [0; 16], ..*first } == LogEntry::RESET => {
                    update.findings.push(Finding::Reset { after, at });
                }
                None if log.iter().all(|entry| entry.number != last) && before != last.wrapping_add(1) => {
                    update.findings.push(Finding::Gap { after, before, at });
                }
                None if accept => update.findings.push(Finding::Broken { after, before, at }),
                None => {
                    let wrong = log.iter().find(|entry| entry.number == last).unwrap_or(first);
                    return Err(AuditError::Contradiction { number: wrong.number, last });
                }
            }
        }
        let known = self.findings.last();
        let counted = |finding: &Finding| matches!(finding, Finding::Unlogged { boots: b, authentications: a, .. } if (*b, *a) == (boots, authentications));
        // A device that keeps its log keeps its counters too.
        if (boots, authentications) != (0, 0) && !(new.is_empty() && known.is_some_and(counted)) {
            update.findings.push(Finding::Unlogged { boots, authentications, at });
        }
        update.entries = new.iter().map(|entry| Record::new(entry, at)).collect();
        let lines = update.findings.iter().cloned().map(Line::Finding);
        let lines: Vec<_> = lines.chain(update.entries.iter().cloned().map(Line::Entry)).collect();
        self.append(&lines)?;
        update.findings.iter().cloned().for_each(|finding| self.put_finding(finding));
        self.records.extend(update.entries.iter().cloned());
        if let Some(last) = new.last() {
            self.checkpoint = Some((last.number, last.digest));
        }
        Ok(update)
    }

    /// Appends lines; they are on the disk when this returns.
    fn append(&mut self, lines: &[Line]) -> Result<()> {
        let failed = |source| AuditError::File { path: self.path.clone(), source };
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else { return Ok(()) };
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|error| failed(error.into()))?;
            text.push(b'\n');
        }
        let before = file.metadata().map_err(failed)?.len();
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|error| {
            // Half of it, on a full disk, would be in the way of the next.
            let _ = file.set_len(before);
            failed(error)
        })
    }
}

fn continues(entry: &LogEntry, (number, digest): (u16, Digest)) -> bool {
    entry.number == number.wrapping_add(1) && entry.follows(&digest)
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

    /// Whether somebody asked for a certificate.
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

/// How journal and ledger fit together.
#[derive(Debug, Default, Serialize)]
pub struct Reconciliation {
    /// The device.
    pub device: u32,
    /// Signatures in the journal.
    pub signatures: usize,
    /// Of those, with an entry in the ledger.
    pub matched: usize,
    /// Entries of the ledger that are about other signers.
    pub elsewhere: usize,
    /// Signatures that the ledger does not know.
    pub signatures_without_entry: Vec<Record>,
    /// Certificates in the ledger that the device did not log.
    pub entries_without_signature: Vec<ledger::Entry>,
    /// Serial numbers without a certificate, and why.
    pub gaps: Vec<Gap>,
    /// Certificates from before the journal, or from after its last entry.
    pub outside: Vec<ledger::Entry>,
    /// What is wrong with the log itself.
    pub findings: Vec<Finding>,
}

/// A serial number without a certificate.
#[derive(Debug, Serialize)]
pub struct Gap {
    /// Its entry in the ledger.
    pub entry: i64,
    /// The number.
    pub serial: u64,
    /// The CA's fingerprint.
    pub ca: String,
    /// What the ledger says.
    pub state: State,
    /// The device's entry about it.
    pub audit_entry: Option<u16>,
    /// Why there is no certificate.
    pub explanation: String,
}

impl Reconciliation {
    /// Whether every signature has its entry, and every certificate its signature.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.signatures_without_entry.is_empty() && self.entries_without_signature.is_empty()
    }

    /// Compares a journal with the entries of a ledger. `until` is when the device's log was read last, UNIX seconds.
    ///
    /// The device logs which CA key and template it used, for how long a request, and how that ended; not which
    /// certificate. Entries that know the number of their audit entry are matched by it. The others are matched within
    /// their CA key and template, with the first signature that was stored after they were asked for: how many are left
    /// over on each side is exact, which of several alike is not.
    #[must_use]
    pub fn new(journal: &Journal, entries: Vec<ledger::Entry>, until: i64) -> Self {
        let mut report = Self {
            device: journal.device,
            signatures: journal.records.iter().filter(|record| record.is_signature()).count(),
            findings: journal.findings.clone(),
            ..Self::default()
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.device_serial == Some(journal.device));
        report.elsewhere = elsewhere.len();
        // By CA key and template, oldest first.
        let mut open: BTreeMap<(String, String), Vec<&Record>> = BTreeMap::new();
        for record in journal.records.iter().filter(|record| record.is_signing()) {
            open.entry((name(record.target_key), name(record.second_key))).or_default().push(record);
        }
        let mut found: BTreeMap<i64, &Record> = BTreeMap::new();
        let mut pair = |fits: &dyn Fn(&ledger::Entry, &Record) -> bool| {
            for entry in here.iter().rev() {
                let Some(alike) = open.get_mut(&(entry.ca_key.clone(), entry.template.clone())) else {
                    continue;
                };
                if found.contains_key(&entry.entry) || entry.asked_at > until {
                    continue;
                }
                // The last entry first, since fewest signatures fit it; the first that fits, since the last fit others too.
                if let Some(at) =
                    alike.iter().position(|record| entry.asked_at <= record.at && fits(entry, record))
                {
                    found.insert(entry.entry, alike.remove(at));
                }
            }
        };
        pair(&|entry, record| {
            entry.audit_entry == Some(record.number)
                && (entry.state == State::Issued) == record.is_signature()
        });
        pair(&|entry, record| entry.state == State::Issued && record.is_signature());
        pair(&|entry, record| entry.state == State::Refused && record.is_refusal());
        // The device signed, and nobody recorded the certificate.
        pair(&|entry, record| entry.state == State::Reserved && record.is_signature());
        pair(&|entry, record| entry.state == State::Failed && record.is_signature());
        pair(&|entry, record| {
            matches!(entry.state, State::Reserved | State::Failed) && !record.is_signature()
        });
        report.matched = found.values().filter(|record| record.is_signature()).count();
        report.signatures_without_entry =
            open.into_values().flatten().filter(|record| record.is_signature()).cloned().collect();
        report.signatures_without_entry.sort_by_key(|record| record.at);
        for entry in here {
            let record = found.get(&entry.entry).copied();
            match (entry.state, record) {
                (State::Issued, Some(_)) => {}
                (State::Issued, None)
                    if entry.asked_at < journal.started || entry.finished_at >= Some(until) =>
                {
                    report.outside.push(entry);
                }
                (State::Issued, None) => report.entries_without_signature.push(entry),
                _ => report.gaps.push(Gap::new(&entry, record)),
            }
        }
        report
    }
}

/// The name that the ledger has for an object's id.
fn name(id: u16) -> String {
    format!("{id:#06x}")
}

impl Gap {
    fn new(entry: &ledger::Entry, record: Option<&Record>) -> Self {
        let who = format!("{} (process {})", entry.asked_by, entry.process);
        let reason = entry.reason.as_deref().unwrap_or("no reason was recorded");
        let signed = record.is_some_and(Record::is_signature);
        let explanation = match (entry.state, signed, record) {
            (State::Reserved, true, _) => {
                format!(
                    "the device signed, but {who} ended before the certificate was recorded: nobody was handed it"
                )
            }
            (State::Reserved, false, Some(record)) => {
                format!("{who} ended before it recorded that the device did not sign: {}", record.outcome)
            }
            (State::Reserved, false, None) => {
                format!("{who} ended, or still works, before the device signed")
            }
            (State::Refused, ..) => format!("refused by template {}: {reason}", entry.template),
            (_, true, _) => format!("the device signed, but the certificate was thrown away: {reason}"),
            (_, false, _) => format!("nothing was signed: {reason}"),
        };
        Self {
            entry: entry.entry,
            serial: entry.serial,
            ca: entry.ca.clone(),
            state: entry.state,
            audit_entry: record.map(|record| record.number),
            explanation,
        }
    }
}
