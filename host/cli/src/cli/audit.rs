//! `sshsm audit …`: the device's log, kept in a journal and compared with the ledger.

use std::{mem, path::PathBuf, thread, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use sshsm_protocol::{Command, ObjectId, option::AuditMode};

use super::{
    Context,
    error::{CliError, Shortfall},
    ledger::{state_file, table, time},
};
use crate::output::{self, Format, columns, lossy, shown};
use sshsm_ca::{
    audit::{AuditError, Finding, Journal, Reconciliation, Record, Unmatched, Update},
    ledger::{Filter, Ledger},
};
use sshsm_client::{ClientError, Session};

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The journal; by default audit-SERIAL.jsonl next to the ledger's default location, for the device's
    /// serial number
    #[arg(long, global = true, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

/// The verbs of `audit`.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Have the device log commands; until then it logs its starts only
    Enable {
        /// Every command that it can log, and not only the signing of certificates
        #[arg(long)]
        all: bool,
        /// Every command, and refuse commands while the log is full: then something must keep reading it,
        /// such as `audit follow`
        #[arg(long)]
        force: bool,
    },
    /// Have the device log its starts only
    Disable,
    /// Read the device's log, check it, store what is new, and let the device discard it
    Log(Reading),
    /// The same again and again, until it is stopped; JSON is one entry a line
    Follow {
        #[command(flatten)]
        reading: Reading,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = interval)]
        interval: Duration,
    },
    /// Check the journal: that no entry was changed or is missing
    Verify,
    /// Write the journal's entries on stdout: CSV, or JSON with --format json
    Export,
    /// Compare journal and ledger: every signature has its entry, and every certificate its signature
    Reconcile {
        /// Use the journal as it is, without reading the device's log first
        #[arg(long)]
        offline: bool,
        /// The ledger of another host that signs with this device, to be included; may be repeated
        #[arg(long, value_name = "LEDGER")]
        with: Vec<PathBuf>,
    },
}

/// Seconds, with a fraction if need be.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "seconds, from 0.01 to 86400".into())
}

/// How the log is read.
#[derive(Debug, Args)]
struct Reading {
    /// Let the device keep the entries that were stored
    #[arg(long)]
    keep: bool,
    /// Store a log that contradicts the journal, after a note that says so
    #[arg(long)]
    accept_break: bool,
}

impl Audit {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match &self.verb {
            Verb::Enable { all, force } => set(context, true, *all, *force),
            Verb::Disable => set(context, false, true, false),
            Verb::Log(reading) => {
                let (journal, update) = self.update(context, reading)?;
                let report = Fetched {
                    journal: journal.path(),
                    device: journal.device(),
                    entries: &update.entries,
                    findings: &update.findings,
                };
                context.format().print(&report, |report| entries(report.entries))?;
                let (new, place) = (update.entries.len(), shown(journal.path()));
                let new = output::count(new, "new entry", "new entries");
                output::talk(format_args!("{new} of device {:010} in {place}", journal.device()));
                found(&update.findings)
            }
            Verb::Follow { reading, interval } => self.follow(context, reading, *interval),
            Verb::Verify => self.verify(context),
            Verb::Export => {
                let journal = self.read(context)?;
                match context.format() {
                    Format::Json => Format::Json.print(&journal.records(), |_| String::new())?,
                    Format::Text => output::print_csv(journal.records())?,
                }
                Ok(())
            }
            Verb::Reconcile { offline, with } => self.reconcile(context, *offline, with),
        }
    }

    /// Ends with the first error, unless a device that was there has gone away: it may come back, and a full
    /// log would make it refuse commands.
    fn follow(&self, context: &Context, reading: &Reading, interval: Duration) -> Result<(), CliError> {
        let (mut found, mut away) = (false, false);
        loop {
            match self.update(context, reading) {
                Ok((_, update)) => {
                    (found, away) = (true, false);
                    for record in &update.entries {
                        match context.format() {
                            Format::Json => output::print_json_line(record)?,
                            Format::Text => output::print_text(&entries(std::slice::from_ref(record)))?,
                        }
                    }
                    update.findings.iter().for_each(output::talk);
                }
                Err(error @ (CliError::Open(_) | CliError::Client(ClientError::Exchange(_)))) if found => {
                    if !mem::replace(&mut away, true) {
                        output::talk(format_args!("{}; waiting for it", error.line()));
                    }
                }
                Err(error) => return Err(error),
            }
            thread::sleep(interval);
        }
    }

    fn path(&self, serial: u32) -> Result<PathBuf, CliError> {
        match &self.journal {
            Some(path) => Ok(path.clone()),
            None => state_file(&format!("audit-{serial:010}.jsonl"), "--journal FILE"),
        }
    }

    fn update(&self, context: &Context, reading: &Reading) -> Result<(Journal, Update), CliError> {
        let mut client = context.client()?;
        let serial = client.identity().serial;
        let path = self.path(serial)?;
        let mut ledger = context.ledger_if_any()?;
        if let Some(ledger) = ledger.as_ref().filter(|_| !reading.accept_break) {
            Journal::check_present(&path, serial, ledger)?;
        }
        let mut journal = Journal::open(&path, serial)?;
        let mut session: Session<'_> = context.session(&mut client)?;
        match journal.update(&mut session, ledger.as_mut(), reading.keep, reading.accept_break) {
            Ok(update) => Ok((journal, update)),
            // As a client error, so that `follow` sees a device that went away.
            Err(AuditError::Client(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The journal in its current state; the device is only asked for its serial number, and not even that
    /// with --journal.
    fn read(&self, context: &Context) -> Result<Journal, CliError> {
        let path = match &self.journal {
            Some(path) => path.clone(),
            None => self.path(context.client()?.identity().serial)?,
        };
        Ok(Journal::read(&path)?)
    }

    fn verify(&self, context: &Context) -> Result<(), CliError> {
        let journal = self.read(context)?;
        let ledger = context.ledger_if_any()?;
        if let Some(ledger) = &ledger {
            journal.check(ledger)?;
        }
        let records = journal.records();
        let verified = Verified {
            journal: journal.path(),
            device: journal.device(),
            entries: records.len(),
            last_entry: records.last().map(|record| record.number),
            last_digest: records.last().map(|record| record.digest.as_str()),
            lines: journal.lines(),
            last_link: journal.last_link(),
            ledger: ledger.as_ref().map(|ledger| ledger.path().display().to_string()),
            findings: journal.findings(),
        };
        context.format().print(&verified, |verified| {
            let last = match (verified.last_entry, verified.last_digest) {
                (Some(number), Some(digest)) => format!(", the last is {number} with digest {digest}"),
                _ => String::new(),
            };
            let ledger = match &verified.ledger {
                Some(ledger) => format!("; it agrees with {}", super::ledger::printable(ledger)),
                None => "; there is no ledger to compare it with".into(),
            };
            format!(
                "{} entries of device {:010} in an unbroken chain{last}; line {} has link {}{ledger}\n",
                verified.entries,
                verified.device,
                verified.lines,
                verified.last_link.as_deref().unwrap_or("none")
            )
        })?;
        found(journal.findings())
    }

    fn reconcile(&self, context: &Context, offline: bool, with: &[PathBuf]) -> Result<(), CliError> {
        // Entries that are asked for from here on may not be in the log that is read.
        let now = Timestamp::now().as_second();
        let ledger = context.ledger_to_read()?;
        let (journal, until, new) = match offline {
            true => {
                let journal = self.read(context)?;
                journal.check(&ledger)?;
                let until = journal.records().last().map_or(journal.started(), |record| record.at);
                (journal, until, 0)
            }
            false => {
                let reading = Reading { keep: false, accept_break: false };
                let (journal, update) = self.update(context, &reading)?;
                (
                    journal,
                    now,
                    update.findings.iter().filter(|finding| finding.may_hide_a_signature()).count(),
                )
            }
        };
        let mut ledgers = vec![ledger];
        for path in with {
            ledgers.push(Ledger::open_to_read(path)?);
        }
        let (mut entries, mut faults) = (Vec::new(), Vec::new());
        for ledger in &ledgers {
            entries.extend(ledger.entries(&Filter::default())?);
            faults.extend(ledger.faults()?);
        }
        let report = Reconciliation::new(&journal, entries, &faults, until);
        context.format().print(&report, in_words)?;
        if report.agrees() && new == 0 {
            return Ok(());
        }
        Err(Shortfall::Findings(format!(
            "{}, {}, {}, {}",
            output::count(
                report.signatures_without_entry.len(),
                "signature without an entry in the ledger",
                "signatures without an entry in the ledger"
            ),
            output::count(
                report.entries_without_signature.len(),
                "certificate in the ledger without a signature",
                "certificates in the ledger without a signature"
            ),
            output::count(report.faults.len(), "fault of the ledger", "faults of the ledger"),
            output::count(new, "new finding in the device's log", "new findings in the device's log"),
        ))
        .into())
    }
}

/// The result of reading the log, as JSON shows it.
#[derive(Serialize)]
struct Fetched<'a> {
    #[serde(serialize_with = "lossy")]
    journal: &'a std::path::Path,
    device: u32,
    entries: &'a [Record],
    findings: &'a [Finding],
}

/// The contents of a journal, as JSON shows them.
#[derive(Serialize)]
struct Verified<'a> {
    #[serde(serialize_with = "lossy")]
    journal: &'a std::path::Path,
    device: u32,
    entries: usize,
    last_entry: Option<u16>,
    last_digest: Option<&'a str>,
    lines: usize,
    last_link: Option<String>,
    ledger: Option<String>,
    findings: &'a [Finding],
}

fn set(context: &Context, on: bool, all: bool, force: bool) -> Result<(), CliError> {
    let mut client = context.client_to_change()?;
    let mut session = context.session(&mut client)?;
    // A fixed setting stays so until a reset; session messages are logged by their content.
    let commands: Vec<_> = session
        .command_audit()?
        .into_iter()
        .filter(|&(code, mode)| {
            (all || code == Command::SignSshCertificate.code())
                && code != Command::SessionMessage.code()
                && mode != AuditMode::Fix
        })
        .map(|(code, _)| (code, if on { AuditMode::On } else { AuditMode::Off }))
        .collect();
    // Forcing last: from then on the log must be read.
    if !on {
        session.set_force_audit(AuditMode::Off)?;
    }
    session.set_command_audit(&commands)?;
    if force {
        session.set_force_audit(AuditMode::On)?;
    }
    let verb = if on { "logs" } else { "no longer logs" };
    let commands = output::count(commands.len(), "command", "commands");
    output::talk(format_args!("the device {verb} {commands}"));
    Ok(())
}

/// Prints findings, and makes them an error.
fn found(findings: &[Finding]) -> Result<(), CliError> {
    findings.iter().for_each(output::talk);
    match findings.len() {
        0 => Ok(()),
        found => Err(Shortfall::Findings(format!(
            "{} in the device's log",
            output::count(found, "finding", "findings")
        ))
        .into()),
    }
}

fn entries(records: &[Record]) -> String {
    let id = |id: u16| ObjectId::new(id).map_or_else(|_| "-".into(), |id| id.to_string());
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            [
                record.number.to_string(),
                format!("{}.{:02}", record.systick / 100, record.systick % 100),
                record.command.clone(),
                id(record.session_key),
                id(record.target_key),
                id(record.second_key),
                record.outcome.clone(),
            ]
        })
        .collect();
    columns(&rows)
}

fn in_words(report: &Reconciliation) -> String {
    let mut text = format!(
        "device {:010}: {}, {} of them in the ledger\n",
        report.device,
        output::count(report.signatures, "signature", "signatures"),
        report.matched
    );
    if !report.signatures_without_entry.is_empty() {
        text += &format!(
            "signatures without an entry in the ledger:\n{}",
            entries(&report.signatures_without_entry)
        );
    }
    if !report.entries_without_signature.is_empty() {
        text += &format!(
            "certificates in the ledger without a signature in the journal:\n{}",
            table(report.entries_without_signature.iter().map(|unmatched| &unmatched.entry))
        );
        for Unmatched { reason, entry } in &report.entries_without_signature {
            text += &format!("certificate {}: {reason}\n", entry.entry);
        }
    }
    if !report.gaps.is_empty() {
        text += "serial numbers without a certificate:\n";
        let rows = report.gaps.iter().map(|gap| {
            let explanation = super::ledger::printable(&gap.explanation);
            [gap.serial.to_string(), gap.state.to_string(), explanation]
        });
        text += &columns(&rows.collect::<Vec<_>>());
    }
    for fault in &report.faults {
        text += &format!("the ledger is not what was recorded: {}\n", super::ledger::printable(fault));
    }
    for finding in &report.findings {
        text += &format!("{finding}\n");
    }
    if let (Some(first), Some(last)) = (report.outside.first(), report.outside.last()) {
        text += &format!(
            "{} from outside the journal's time ({} to {})\n",
            output::count(report.outside.len(), "certificate", "certificates"),
            time(first.asked_at),
            time(last.asked_at)
        );
    }
    if report.refusals_without_entry > 0 {
        let refusals = output::count(report.refusals_without_entry, "refused request", "refused requests");
        text += &format!("{refusals} in the device's log without an entry in the ledger\n");
    }
    if report.elsewhere > 0 {
        text += &format!(
            "{} of the ledger about other signers\n",
            output::count(report.elsewhere, "row", "rows")
        );
    }
    text
}
