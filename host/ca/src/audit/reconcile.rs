//! Whether journal and ledger agree: each signature of the device has one certificate, and each certificate
//! one signature.
//!
//! The device logs which CA key and template it used, the length of the request, and the outcome; not which
//! certificate. The ledger records for each request whether it was sent, how long the command was, and
//! between which two log entries its own entry must be ([`LogSpan`]), as far as the device reports them. An
//! entry of the ledger may therefore pair with a signature only if CA key, template and length are the same,
//! and the signature lies within the entry's span of the journal; if the device does not report entries, the
//! signature must have been read after the request was sent, and not before it was answered. A request that
//! was never sent pairs with nothing.
//!
//! Within these bounds as many as possible are paired, certificates first. The number left over on each side
//! is exact; which of several identical candidates is left over is not, unless the entry's number and digest
//! are known.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;
use sshsm_protocol::audit::LogMark;

use super::{Finding, Journal, Record};
use crate::ledger::{self, Answer, Fault, State};

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
    /// Refusals that the ledger does not know: something was asked for around it, and not signed.
    pub refusals_without_entry: usize,
    /// Certificates in the ledger that the device did not log.
    pub entries_without_signature: Vec<Unmatched>,
    /// Serial numbers without a certificate, and why.
    pub gaps: Vec<Gap>,
    /// Certificates from before the journal, or from after its last entry.
    pub outside: Vec<ledger::Entry>,
    /// Faults of the ledger itself.
    pub faults: Vec<String>,
    /// Findings about the log itself.
    pub findings: Vec<Finding>,
}

/// A certificate in the ledger that the device did not log.
#[derive(Debug, Serialize)]
pub struct Unmatched {
    /// Why no signature can be its own.
    pub reason: &'static str,
    /// The entry.
    #[serde(flatten)]
    pub entry: ledger::Entry,
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
    /// The state in the ledger.
    pub state: State,
    /// The device's entry about it.
    pub audit_entry: Option<u16>,
    /// Why there is no certificate.
    pub explanation: String,
}

/// Places in the journal: from the first to before the last.
type Places = std::ops::Range<usize>;

impl Reconciliation {
    /// Whether every signature has its certificate, every certificate its signature, and the ledger is as
    /// recorded.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.signatures_without_entry.is_empty()
            && self.entries_without_signature.is_empty()
            && self.faults.is_empty()
    }

    /// Compares a journal with the entries of one or several ledgers. `faults` are those of the ledgers
    /// themselves ([`ledger::Ledger::faults`]), `until` is when the device's log was last read, UNIX seconds.
    #[must_use]
    pub fn new(journal: &Journal, entries: Vec<ledger::Entry>, faults: &[Fault], until: i64) -> Self {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.device_serial == Some(journal.device));
        let mut pairing = Pairing::new(journal, &here);
        pairing.signatures();
        pairing.refusals();
        let Pairing { owners, reasons, .. } = pairing;

        let mut report = Self {
            device: journal.device,
            findings: journal.findings.clone(),
            faults: faults.iter().map(ToString::to_string).collect(),
            elsewhere: elsewhere.len(),
            ..Self::default()
        };
        let mut found: HashMap<usize, &Record> = HashMap::new();
        for (record, owner) in journal.records.iter().zip(&owners) {
            match owner {
                Some(entry) => {
                    found.insert(*entry, record);
                }
                None if record.is_signature() => report.signatures_without_entry.push(record.clone()),
                None if record.is_refusal() => report.refusals_without_entry += 1,
                None => {}
            }
        }
        report.signatures = journal.records.iter().filter(|record| record.is_signature()).count();
        report.matched = report.signatures - report.signatures_without_entry.len();
        for (index, entry) in here.into_iter().enumerate() {
            let record = found.get(&index).copied();
            if entry.state != State::Issued {
                report.gaps.push(Gap::new(&entry, record));
            } else if record.is_none() {
                let early = entry.asked_at < journal.started || entry.finished_at >= Some(until);
                match reasons.get(&index) {
                    Some(Unpaired::SameCertificate) => {
                        report
                            .entries_without_signature
                            .push(Unmatched::new(Unpaired::SameCertificate, entry));
                    }
                    _ if early => report.outside.push(entry),
                    reason => {
                        let reason = reason.copied().unwrap_or(Unpaired::NoneLeft);
                        report.entries_without_signature.push(Unmatched::new(reason, entry));
                    }
                }
            }
        }
        report
    }
}

/// Why an entry of the ledger pairs with no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unpaired {
    /// One certificate cannot have two signatures, unless the log says so.
    SameCertificate,
    /// The log went no further.
    NotLogged,
    /// It knows its log entry, and the journal does not have it.
    NotInJournal,
    /// Others have all the signatures that it could have.
    NoneLeft,
}

impl Unpaired {
    const fn words(self) -> &'static str {
        match self {
            Self::SameCertificate => "another entry has the same certificate",
            Self::NotLogged => "the device logged nothing when it signed",
            Self::NotInJournal => "its entry of the device's log is not in the journal",
            Self::NoneLeft => "no signature that could be its own is left in the journal",
        }
    }
}

impl Unmatched {
    const fn new(reason: Unpaired, entry: ledger::Entry) -> Self {
        Self { reason: reason.words(), entry }
    }
}

/// Which record of a journal belongs to which entry of the ledger.
struct Pairing<'j> {
    records: &'j [Record],
    entries: &'j [ledger::Entry],
    /// The position of each entry of the log.
    marks: HashMap<LogMark, usize>,
    /// When each record cannot have been logged yet: the reading before the one that brought it.
    not_before: Vec<i64>,
    /// The records about requests for certificates, by CA key and template as the ledger names them.
    classes: HashMap<(String, String), Vec<usize>>,
    owners: Vec<Option<usize>>,
    reasons: HashMap<usize, Unpaired>,
}

impl<'j> Pairing<'j> {
    fn new(journal: &'j Journal, entries: &'j [ledger::Entry]) -> Self {
        let records = journal.records.as_slice();
        let mut classes: HashMap<_, Vec<usize>> = HashMap::new();
        let (mut marks, mut not_before) = (HashMap::new(), Vec::with_capacity(records.len()));
        let (mut last, mut reading) = (i64::MIN, i64::MIN);
        for (place, record) in records.iter().enumerate() {
            if record.at != reading {
                (last, reading) = (reading, record.at);
            }
            not_before.push(last);
            marks.extend(record.mark().map(|mark| (mark, place)));
            if record.is_signing() {
                let class = (name(record.target_key), name(record.second_key));
                classes.entry(class).or_default().push(place);
            }
        }
        let owners = vec![None; records.len()];
        Self { records, entries, marks, not_before, classes, owners, reasons: HashMap::new() }
    }

    /// Pairs signatures with entries that have one, or may have one.
    fn signatures(&mut self) {
        let mut certificates: HashMap<&str, usize> = HashMap::new();
        for line in self.entries.iter().filter_map(|entry| entry.certificate.as_deref()) {
            *certificates.entry(line).or_default() += 1;
        }
        // First those that know their entry, then certificates, then requests sent without a recorded answer;
        // within each, those whose span of the log ends first.
        let mut order = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let exact = entry.audit_entry.is_some();
            let rank = match (entry.state, entry.answer) {
                (State::Issued, _) => u8::from(!exact),
                (_, Some(Answer::Signed)) => {
                    if exact {
                        0
                    } else {
                        2
                    }
                }
                (_, Some(Answer::Unknown)) => 2,
                (State::Reserved, None) if entry.sent_at.is_some() => 2,
                (State::Reserved | State::Refused | State::Failed, None | Some(Answer::Error)) => continue,
            };
            let twice = entry.certificate.as_deref().and_then(|line| certificates.get(line)) > Some(&1);
            if twice && !exact {
                self.reasons.insert(index, Unpaired::SameCertificate);
                continue;
            }
            match self.places(entry) {
                Ok(places) => order.push((rank, places.end, places.start, index)),
                Err(reason) => {
                    self.reasons.insert(index, reason);
                }
            }
        }
        order.sort_unstable();
        for (.., index) in order {
            self.pair(index, Record::is_signature);
        }
    }

    /// Pairs the device's refusals and failures with entries that record them.
    fn refusals(&mut self) {
        let paired: HashSet<_> = self.owners.iter().flatten().copied().collect();
        for (index, entry) in self.entries.iter().enumerate().filter(|(index, _)| !paired.contains(index)) {
            match (entry.state, entry.answer) {
                (State::Refused, _) => self.pair(index, Record::is_refusal),
                (State::Failed | State::Reserved, Some(Answer::Error | Answer::Unknown)) => {
                    self.pair(index, |record| !record.is_signature());
                }
                (State::Reserved, None) if entry.sent_at.is_some() => {
                    self.pair(index, |record| !record.is_signature());
                }
                (State::Issued | State::Failed | State::Reserved, _) => {}
            }
        }
    }

    /// The part of the journal that has an entry's record, if the device logged one.
    fn places(&self, entry: &ledger::Entry) -> Result<Places, Unpaired> {
        let span = entry.log_span();
        let place = |mark: Option<LogMark>| mark.and_then(|mark| self.marks.get(&mark).copied());
        if span.exact {
            return place(span.until).map(|place| place..place + 1).ok_or(Unpaired::NotInJournal);
        }
        if span.after.is_some() && span.after == span.until {
            return Err(Unpaired::NotLogged);
        }
        // What the device does not report, the clock must decide: read after it was sent, and not before it
        // was answered.
        let sent = entry.sent_at.unwrap_or(entry.asked_at);
        let start = place(span.after)
            .map_or_else(|| self.records.partition_point(|record| record.at < sent), |place| place + 1);
        let end = match (place(span.until), entry.finished_at) {
            (Some(place), _) => place + 1,
            (None, Some(finished)) => self.not_before.partition_point(|before| *before <= finished),
            (None, None) => self.records.len(),
        };
        Ok(start..end)
    }

    /// The records that can be an entry's own, oldest first.
    fn candidates<'s>(
        &'s self,
        index: usize,
        fits: impl Fn(&Record) -> bool + 's,
    ) -> impl Iterator<Item = usize> + 's {
        let entry = self.entries.get(index);
        let places = entry.and_then(|entry| self.places(entry).ok()).unwrap_or_default();
        let class = entry.and_then(|entry| self.classes.get(&(entry.ca_key.clone(), entry.template.clone())));
        let length = entry.and_then(|entry| entry.payload_length);
        let class = class.map(Vec::as_slice).unwrap_or_default();
        let from = class.partition_point(|place| *place < places.start);
        class
            .get(from..)
            .unwrap_or_default()
            .iter()
            .copied()
            .take_while(move |place| *place < places.end)
            .filter(move |place| {
                self.records.get(*place).is_some_and(|record| {
                    length.is_none_or(|length| length == u32::from(record.length)) && fits(record)
                })
            })
    }

    /// Gives an entry a record that fits, if necessary by reassigning those of others.
    fn pair(&mut self, index: usize, fits: impl Fn(&Record) -> bool + Copy) {
        let free = |place: &usize| self.owners.get(*place).is_some_and(Option::is_none);
        let place = self.candidates(index, fits).find(free);
        if let Some(place) = place {
            if let Some(owner) = self.owners.get_mut(place) {
                *owner = Some(index);
            }
            return;
        }
        // Breadth first: from an entry to the records that it could have, from a record to the entry that has
        // it.
        let mut from: HashMap<usize, usize> = HashMap::new();
        let mut waiting = VecDeque::from([index]);
        while let Some(entry) = waiting.pop_front() {
            let mut free = None;
            for place in self.candidates(entry, fits) {
                if from.contains_key(&place) {
                    continue;
                }
                from.insert(place, entry);
                match self.owners.get(place).copied().flatten() {
                    None => {
                        free = Some(place);
                        break;
                    }
                    Some(owner) => waiting.push_back(owner),
                }
            }
            let Some(mut place) = free else { continue };
            // Back along the path: each takes the record from which it was reached.
            loop {
                let Some(&taker) = from.get(&place) else { return };
                let before = self.owners.iter().position(|owner| *owner == Some(taker));
                if let Some(owner) = self.owners.get_mut(place) {
                    *owner = Some(taker);
                }
                match before {
                    Some(before) if taker != index => {
                        place = before;
                    }
                    _ => return,
                }
            }
        }
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
                    "the device signed, but {who} ended before the certificate was recorded: it was not handed out"
                )
            }
            (State::Reserved, false, Some(record)) => {
                format!("{who} ended before it recorded that the device did not sign: {}", record.outcome)
            }
            (State::Reserved, false, None) if entry.sent_at.is_none() => {
                format!("{who} ended, or is still running, and has not sent the request")
            }
            (State::Reserved, false, None) => {
                format!("{who} ended, or is still running, before the device signed")
            }
            (State::Refused, ..) => format!("refused by template {}: {reason}", entry.template),
            (State::Issued | State::Failed, true, _) => {
                format!("the device signed, but the certificate was thrown away: {reason}")
            }
            (State::Issued | State::Failed, false, _) if entry.sent_at.is_none() => {
                format!("the request was not sent: {reason}")
            }
            (State::Issued | State::Failed, false, _) => format!("nothing was signed: {reason}"),
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
