//! `sshsm ledger …`: what was signed, for whom and when.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use ssh_key::public::KeyData;
use sshsm_protocol::ssh::{Printable, timestamp::Now};

use super::{
    Context,
    arguments::StateName,
    arguments::{self, LedgerChoice},
    error::{CliError, Shortfall},
};
use crate::output::{self, Format, columns, names, principals, print_csv, shown};
use sshsm_ca::{
    key_file,
    ledger::{self, Answer, Entry, Filter, Ledger, LedgerError, Revocation, State},
};
use sshsm_client::failure::{self, Failure};

/// The verbs of `ledger`.
#[derive(Debug, Subcommand)]
pub(super) enum LedgerVerb {
    /// List certificates, and requests that came to none
    List(FilterArguments),
    /// Show all about the certificates with a serial number, and the certificates themselves
    Show {
        /// The serial number
        #[arg(value_name = "SERIAL", value_parser = arguments::serial)]
        serial: u64,
        /// Of this CA: its fingerprint, the beginning of it, or its public key file
        #[arg(long, value_name = "CA")]
        ca: Option<String>,
    },
    /// Write entries with all their fields on stdout: CSV, or JSON with --format json
    Export(FilterArguments),
    /// List the revocations
    Revocations,
    /// Have SQLite look for damage in the whole file
    Check,
}

/// Which entries.
#[derive(Debug, Args)]
pub(super) struct FilterArguments {
    /// With this key id
    #[arg(long, short = 'I', value_name = "KEY_ID")]
    key_id: Option<String>,
    /// For this principal, perhaps among others
    #[arg(long, short = 'n', value_name = "NAME")]
    principal: Option<String>,
    /// With this serial number, or one of a range (5-9)
    #[arg(long, short = 'z', value_name = "SERIAL", value_parser = arguments::serial_range)]
    serial: Option<(u64, u64)>,
    /// By this CA: its fingerprint, the beginning of it, or its public key file
    #[arg(long, value_name = "CA")]
    ca: Option<String>,
    /// Only those requested since then, as in -V: -7d, 20260101
    #[arg(long, value_name = "TIME", value_parser = arguments::now, allow_hyphen_values = true)]
    since: Option<Now>,
    /// In this state
    #[arg(long, value_name = "STATE")]
    state: Option<StateName>,
}

impl FilterArguments {
    fn filter(self, ledger: &Ledger) -> Result<Filter, CliError> {
        let ca = self.ca.map(|ca| authority(ledger, Some(&ca))).transpose()?;
        Ok(Filter {
            key_id: self.key_id,
            principal: self.principal,
            serials: self.serial,
            ca: ca.as_ref().map(ledger::fingerprint),
            subject: None,
            since: self.since.map(|since| since.seconds().into()),
            state: self.state.map(Into::into),
        })
    }
}

/// A file of the user's state: `$XDG_STATE_HOME/sshsm/NAME`, or under `~/.local/state`.
///
/// # Errors
/// When there is neither; the message names `option`.
pub(super) fn state_file(name: &str, option: &str) -> Result<PathBuf, CliError> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("sshsm").join(name))
        .ok_or_else(|| CliError::Usage(format!("there is no home directory: give a path with {option}")))
}

impl Context {
    fn ledger_path(&self) -> Result<Option<PathBuf>, CliError> {
        match &self.globals.ledger {
            Some(LedgerChoice::None) => Ok(None),
            Some(LedgerChoice::File(path)) => Ok(Some(path.clone())),
            None => state_file("ledger.sqlite", "--ledger FILE (or none)").map(Some),
        }
    }

    /// The ledger that signatures are recorded in, unless there shall be none.
    pub(super) fn ledger(&self) -> Result<Option<Ledger>, CliError> {
        let Some(path) = self.ledger_path()? else { return Ok(None) };
        let new = !path.exists();
        let ledger = Ledger::open(&path)?;
        if new {
            output::talk(format_args!("a new ledger was made: {}", shown(&path)));
        }
        Ok(Some(ledger))
    }

    /// The ledger, for a command that records something other than a signature: if the one named on the
    /// command line does not exist, that is a mistake, unless it is to be `new`.
    pub(super) fn ledger_to_change(&self, new: bool) -> Result<Ledger, CliError> {
        if let (Some(LedgerChoice::File(path)), true, false) = (&self.globals.ledger, self.ledger_named, new)
            && let Err(LedgerError::Absent(path)) = Ledger::open_to_read(path).map(drop)
        {
            return Err(CliError::other(NoSuchLedger(path)));
        }
        Ok(self.ledger()?.ok_or(LedgerError::None)?)
    }

    /// The ledger, if it exists: nothing is created.
    pub(super) fn ledger_if_any(&self) -> Result<Option<Ledger>, CliError> {
        let Some(path) = self.ledger_path()? else { return Ok(None) };
        match Ledger::open_to_read(&path) {
            Err(LedgerError::Absent(_)) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Some(Ledger::open(&path)?)),
        }
    }

    /// The ledger, for a command that is about it.
    pub(super) fn ledger_to_read(&self) -> Result<Ledger, CliError> {
        let path = self.ledger_path()?.ok_or(LedgerError::None)?;
        Ok(Ledger::open_to_read(&path)?)
    }
}

/// The CA selected by `given`: by the beginning of its fingerprint in the ledger or a public key file;
/// without it, the ledger's only one.
pub(super) fn authority(ledger: &Ledger, given: Option<&str>) -> Result<KeyData, CliError> {
    match ledger.authority(given) {
        Err(LedgerError::WhichCa { .. }) if given.is_some_and(|given| Path::new(given).is_file()) => {
            public_key(Path::new(given.unwrap_or_default()))
        }
        other => Ok(other?),
    }
}

/// A name that is perhaps mistyped.
#[derive(Debug, thiserror::Error)]
#[error("there is no ledger {}; nothing was recorded", shown(.0))]
struct NoSuchLedger(PathBuf);

impl Failure for NoSuchLedger {
    fn kind(&self) -> failure::Kind {
        failure::Kind::File
    }

    fn help(&self) -> Option<&'static str> {
        Some("check the name; signing makes a new ledger, and so does --new-ledger")
    }
}

/// The key in a public key file.
pub(super) fn public_key(path: &Path) -> Result<KeyData, CliError> {
    let key = key_file::read_public(path).map_err(|error| CliError::content("no public key", error))?;
    Ok(key.key_data().clone())
}

impl LedgerVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let ledger = context.ledger_to_read()?;
        match self {
            Self::List(filter) => {
                let entries = ledger.entries(&filter.filter(&ledger)?)?;
                context.format().print(&entries, |entries| table(entries.iter()))?;
            }
            Self::Show { serial, ca } => {
                let ca = ca.map(|ca| authority(&ledger, Some(&ca))).transpose()?;
                let filter = Filter {
                    serials: Some((serial, serial)),
                    ca: ca.as_ref().map(ledger::fingerprint),
                    ..Filter::default()
                };
                let entries = ledger.entries(&filter)?;
                if entries.is_empty() {
                    return Err(CliError::because(
                        shown(ledger.path()),
                        format!("it has no entry with serial number {serial}"),
                    ));
                }
                context
                    .format()
                    .print(&entries, |entries| entries.iter().map(in_full).collect::<Vec<_>>().join("\n"))?;
            }
            Self::Export(filter) => {
                let entries = ledger.entries(&filter.filter(&ledger)?)?;
                match context.format() {
                    Format::Json => Format::Json.print(&entries, |_| String::new())?,
                    Format::Text => export(&entries)?,
                }
            }
            Self::Revocations => {
                let revocations = ledger.revocations()?;
                context.format().print(&revocations, |revocations| {
                    columns(&revocations.iter().map(revocation_row).collect::<Vec<_>>())
                })?;
            }
            Self::Check => check(context, &ledger)?,
        }
        Ok(())
    }
}

fn check(context: &Context, ledger: &Ledger) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Verdict {
        ok: bool,
        entries: usize,
        faults: Vec<String>,
    }
    if let Some(reason) = ledger.damage()? {
        return Err(LedgerError::Damaged { path: ledger.path().to_owned(), reason }.into());
    }
    // What SQLite finds in order may still not be a ledger's.
    ledger.revocations()?;
    let faults: Vec<_> = ledger.faults()?.iter().map(ToString::to_string).collect();
    let entries = ledger.entries(&Filter::default())?.len();
    let verdict = Verdict { ok: faults.is_empty(), entries, faults };
    context.format().print(&verdict, |verdict| match verdict.faults.as_slice() {
        [] => format!("no damage in {} entries\n", verdict.entries),
        faults => faults.iter().map(|fault| printable(fault) + "\n").collect(),
    })?;
    match verdict.faults.len() {
        0 => Ok(()),
        faults => Err(Shortfall::Findings(format!(
            "{} is not what was recorded: {}",
            shown(ledger.path()),
            output::count(faults, "fault", "faults")
        ))
        .into()),
    }
}

/// An entry as a line of CSV has it.
#[derive(Serialize)]
struct Row<'a> {
    entry: i64,
    serial: u64,
    counted: bool,
    state: State,
    key_id: &'a str,
    principals: String,
    subject: &'a str,
    kind: &'a str,
    valid_after: u64,
    valid_before: u64,
    ca: &'a str,
    ca_key: &'a str,
    template: &'a str,
    enforced_by: &'a str,
    signer: &'a str,
    device_serial: Option<u32>,
    audit_entry: Option<u16>,
    asked_by: &'a str,
    process: u32,
    asked_at: i64,
    finished_at: Option<i64>,
    reason: Option<&'a str>,
    certificate: Option<&'a str>,
    sent_at: Option<i64>,
    payload_length: Option<u32>,
    request: Option<&'a str>,
    answer: Option<Answer>,
    log_after: Option<u16>,
    log_after_digest: Option<&'a str>,
    log_until: Option<u16>,
    log_until_digest: Option<&'a str>,
    revocation: Option<i64>,
}

fn export(entries: &[Entry]) -> io::Result<()> {
    print_csv(entries.iter().map(Row::from))
}

impl<'a> From<&'a Entry> for Row<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            entry: entry.entry,
            serial: entry.serial,
            counted: entry.counted,
            state: entry.state,
            key_id: &entry.key_id,
            principals: names(&entry.principals),
            subject: &entry.subject,
            kind: &entry.kind,
            valid_after: entry.valid_after,
            valid_before: entry.valid_before,
            ca: &entry.ca,
            ca_key: &entry.ca_key,
            template: &entry.template,
            enforced_by: &entry.enforced_by,
            signer: &entry.signer,
            device_serial: entry.device_serial,
            audit_entry: entry.audit_entry,
            asked_by: &entry.asked_by,
            process: entry.process,
            asked_at: entry.asked_at,
            finished_at: entry.finished_at,
            reason: entry.reason.as_deref(),
            certificate: entry.certificate.as_deref(),
            sent_at: entry.sent_at,
            payload_length: entry.payload_length,
            request: entry.request.as_deref(),
            answer: entry.answer,
            log_after: entry.log_after,
            log_after_digest: entry.log_after_digest.as_deref(),
            log_until: entry.log_until,
            log_until_digest: entry.log_until_digest.as_deref(),
            revocation: entry.revocation,
        }
    }
}

/// Entries as a table, without details that do not fit on a line.
pub(super) fn table<'e>(entries: impl Iterator<Item = &'e Entry>) -> String {
    let head = ["serial", "state", "kind", "valid until", "key id", "principals", "asked at", "by"]
        .map(str::to_owned);
    let rows = entries.map(|entry| {
        [
            entry.serial.to_string(),
            standing(entry),
            entry.kind.clone(),
            until(entry.valid_before),
            printable(&entry.key_id),
            principals(&entry.principals),
            time(entry.asked_at),
            printable(&entry.asked_by),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// The state of an entry, or that its certificate was revoked.
fn standing(entry: &Entry) -> String {
    match entry.revocation {
        Some(_) if entry.state == State::Issued => "revoked".into(),
        _ => entry.state.to_string(),
    }
}

fn in_full(entry: &Entry) -> String {
    let number = |number: Option<String>| number.unwrap_or_else(|| "unknown".into());
    let rows = [
        ["serial", &entry.serial.to_string()],
        ["state", &standing(entry)],
        ["revocation", &entry.revocation.map(|revocation| revocation.to_string()).unwrap_or_default()],
        ["reason", &printable(entry.reason.as_deref().unwrap_or_default())],
        ["kind", &entry.kind],
        ["key id", &printable(&entry.key_id)],
        ["principals", &principals(&entry.principals)],
        ["key", &entry.subject],
        ["valid from", &until(entry.valid_after)],
        ["valid until", &until(entry.valid_before)],
        ["CA", &format!("{} (key {})", entry.ca, entry.ca_key)],
        ["template", &format!("{}, enforced by: {}", printable(&entry.template), entry.enforced_by)],
        ["signed at", &printable(&entry.signer)],
        ["device", &number(entry.device_serial.map(|serial| format!("{serial:010}")))],
        ["audit entry", &number(entry.audit_entry.map(|number| number.to_string()))],
        ["asked by", &format!("{} (process {})", printable(&entry.asked_by), entry.process)],
        ["asked at", &time(entry.asked_at)],
        ["sent at", &entry.sent_at.map(time).unwrap_or_default()],
        ["finished at", &entry.finished_at.map(time).unwrap_or_default()],
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .filter(|[_, value]| !value.is_empty())
        .map(|[name, value]| [format!("{name}:"), value.to_owned()])
        .collect();
    let certificate = entry.certificate.as_ref().map_or_else(String::new, |line| format!("{line}\n"));
    columns(&rows) + &certificate
}

fn revocation_row(revocation: &Revocation) -> [String; 8] {
    let about = match (&revocation.first_serial, &revocation.last_serial, &revocation.key_id) {
        (Some(first), Some(last), _) if first == last => first.to_string(),
        (Some(first), Some(last), _) => format!("{first}-{last}"),
        (_, _, Some(key_id)) => printable(key_id),
        _ => revocation.fingerprint.clone().unwrap_or_default(),
    };
    let of = match (revocation.what.as_str(), &revocation.ca) {
        ("serials" | "key_id", None) => "any CA".into(),
        (_, ca) => ca.clone().unwrap_or_default(),
    };
    let reason = printable(revocation.reason.as_deref().unwrap_or_default());
    let undone = match (&revocation.undone_by, revocation.undone_at) {
        (Some(by), Some(at)) => format!("withdrawn {} by {}", time(at), printable(by)),
        _ => String::new(),
    };
    [
        revocation.revocation.to_string(),
        revocation.what.clone(),
        about,
        of,
        time(revocation.revoked_at),
        printable(&revocation.revoked_by),
        reason,
        undone,
    ]
}

pub(super) fn printable(text: &str) -> String {
    Printable(text.as_bytes()).to_string()
}

fn until(seconds: u64) -> String {
    match (seconds, i64::try_from(seconds)) {
        (0, _) => "always".into(),
        (u64::MAX, _) => "forever".into(),
        (_, Ok(seconds)) => time(seconds),
        (seconds, Err(_)) => format!("{seconds} s after 1970"),
    }
}

pub(super) fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| format!("{seconds} s after 1970"),
        |time| time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string(),
    )
}
