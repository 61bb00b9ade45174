//! Signing with and without a ledger, in any order, with everything that can go wrong, on a model of a
//! device's log: exactly what is not in the ledger is reported. `SSHSM_RECONCILE_CASES` sets how many cases
//! are tried.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use rsa::signature::Signer as _;
use rusqlite::Connection;
use ssh_key::{PrivateKey, PublicKey, private::Ed25519Keypair};
use sshsm_protocol::{
    ObjectId,
    ssh::{request::CertificateKind, signature::SignatureAlgorithm},
};
use tempfile::TempDir;

use super::*;
use crate::{
    certificate_options::CertificateOptions,
    ledger::{Answer, Authority, Fault, Filter, LogSpan, Reservation, Sent, Serial, State},
    request::{COMMAND_LENGTH, Content, SigningRequest},
    signer::EnforcedBy,
    validity::Validity,
};

const DEVICE: u32 = 7;
const TIMESTAMP_SIGNATURE: usize = 64;

/// How much a host knows of the device's log.
#[derive(Debug, Clone, Copy)]
enum Knows {
    /// It reads the entries.
    Entry,
    /// Only which one is the newest, before and after.
    Span,
    /// Nothing, as with a YubiHSM 2 and a key that may only sign.
    Nothing,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A host signs; between its readings of the log others do too, this many of them without the ledger.
    Sign { host: usize, knows: Knows, rogues: u8 },
    /// The request never reaches the device: an error, or the process is killed.
    NotSent { killed: bool },
    /// It reached the device, which signed; the host was killed, or lost the answer.
    Lost { knows: Knows, killed: bool },
    /// The template refuses.
    Refused,
    /// Around the ledger: a signature, or a refusal.
    Rogue { refused: bool },
    /// The log is read.
    Read,
}

fn knows() -> impl Strategy<Value = Knows> {
    prop_oneof![3 => Just(Knows::Entry), 2 => Just(Knows::Span), 1 => Just(Knows::Nothing)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..2_usize, knows(), 0..2_u8).prop_map(|(host, knows, rogues)| Step::Sign { host, knows, rogues }),
        1 => any::<bool>().prop_map(|killed| Step::NotSent { killed }),
        1 => (knows(), any::<bool>()).prop_map(|(knows, killed)| Step::Lost { knows, killed }),
        1 => Just(Step::Refused),
        2 => any::<bool>().prop_map(|refused| Step::Rogue { refused }),
        2 => Just(Step::Read),
    ]
}

/// A device's log, and everything around it.
struct World {
    directory: TempDir,
    ca: PrivateKey,
    subject: PublicKey,
    log: Vec<LogEntry>,
    journal: Journal,
    /// Each host has its own.
    ledgers: Vec<Ledger>,
    rogues: BTreeSet<u16>,
    serial: u64,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledgers = ["a", "b"].map(|name| Ledger::open(&directory.path().join(name)).unwrap());
        let key = |seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
        Self {
            ca: key(1),
            subject: key(2).public_key().clone(),
            log: vec![LogEntry::RESET.linked(&[9; 32])],
            journal: Journal::open(&directory.path().join("journal"), DEVICE).unwrap(),
            ledgers: ledgers.into(),
            rogues: BTreeSet::new(),
            serial: 0,
            directory,
        }
    }

    fn newest(&self) -> LogMark {
        self.log.last().unwrap().mark()
    }

    fn logs(&mut self, result: u8, length: usize) -> LogMark {
        let before = self.newest();
        let command = Command::SignSshCertificate.code();
        let entry = LogEntry {
            number: before.number.wrapping_add(1),
            command,
            length: u16::try_from(length).unwrap(),
            session_key: 1,
            target_key: 5,
            second_key: 10,
            result,
            ..LogEntry::BOOT
        };
        self.log.push(entry.linked(&before.digest));
        self.newest()
    }

    fn signs(&mut self, length: usize) -> LogMark {
        self.logs(Command::SignSshCertificate.code() | 0x80, length)
    }

    fn rogue(&mut self, length: usize) {
        let mark = self.signs(length);
        self.rogues.insert(mark.number);
    }

    /// A request of the next serial number, all of one length.
    fn request(&mut self) -> (Content, SigningRequest, usize) {
        self.serial += 1;
        let content = Content {
            kind: CertificateKind::User,
            serial: self.serial,
            key_id: "alice".into(),
            principals: vec!["alice".into()],
            validity: Validity::UNLIMITED,
            options: CertificateOptions::default(),
        };
        let request = SigningRequest::new(&self.subject, &content, self.ca.public_key().key_data()).unwrap();
        let length = COMMAND_LENGTH + TIMESTAMP_SIGNATURE + request.as_bytes().len();
        (content, request, length)
    }

    fn certificate(&self, request: &SigningRequest) -> String {
        let signature = self.ca.try_sign(request.as_bytes()).unwrap();
        let mut field = Vec::new();
        SignatureAlgorithm::Ed25519.encode_field(signature.as_bytes(), &mut field).unwrap();
        request.line(&field)
    }

    fn reserve(&mut self, host: usize, content: &Content) -> Reservation {
        let authority = Authority {
            public: self.ca.public_key().key_data().clone(),
            key: ObjectId::new(5).unwrap().to_string(),
            template: ObjectId::new(10).unwrap().to_string(),
            enforced_by: EnforcedBy::Device,
            signer: "model".into(),
            device_serial: Some(DEVICE),
        };
        let subject = self.subject.key_data().clone();
        let serial = Serial::Given(content.serial);
        self.ledgers[host].reserve(&authority, &subject, content, serial, "test@host").unwrap()
    }

    fn sent(
        &mut self,
        host: usize,
        reservation: &Reservation,
        request: &SigningRequest,
        after: Option<LogMark>,
    ) {
        let payload_length = COMMAND_LENGTH + TIMESTAMP_SIGNATURE + request.as_bytes().len();
        let sent = Sent { request: request.as_bytes(), payload_length, log_after: after };
        self.ledgers[host].sent(reservation, &sent).unwrap();
    }

    fn read(&mut self) {
        let update = self.journal.take(Vec::new(), (0, 0), &self.log, Some(&self.ledgers[0]), false).unwrap();
        assert!(update.findings.is_empty(), "{:?}", update.findings);
        self.ledgers[0].remember_journal(DEVICE, &self.journal.known().unwrap()).unwrap();
    }

    fn step(&mut self, step: Step) {
        let nothing = LogSpan::default();
        match step {
            Step::Sign { host, knows, rogues } => {
                let (content, request, length) = self.request();
                let reservation = self.reserve(host, &content);
                let after = (!matches!(knows, Knows::Nothing)).then(|| self.newest());
                self.sent(host, &reservation, &request, after);
                // Another host is as quick, before or after it.
                if rogues > 0 && self.serial.is_multiple_of(2) {
                    self.rogue(length);
                }
                let own = self.signs(length);
                if rogues > 0 && !self.serial.is_multiple_of(2) {
                    self.rogue(length);
                }
                let span = match knows {
                    Knows::Entry if rogues == 0 => LogSpan { after, until: Some(own), exact: true },
                    Knows::Entry | Knows::Span => LogSpan { after, until: Some(self.newest()), exact: false },
                    Knows::Nothing => nothing,
                };
                let certificate = self.certificate(&request);
                self.ledgers[host].issued(&reservation, &certificate, span).unwrap();
            }
            Step::NotSent { killed } => {
                let (content, ..) = self.request();
                let reservation = self.reserve(0, &content);
                if !killed {
                    self.ledgers[0]
                        .not_issued(&reservation, State::Failed, "no time", None, nothing)
                        .unwrap();
                }
            }
            Step::Lost { knows, killed } => {
                let (content, request, length) = self.request();
                let reservation = self.reserve(0, &content);
                let after = (!matches!(knows, Knows::Nothing)).then(|| self.newest());
                self.sent(0, &reservation, &request, after);
                self.signs(length);
                if !killed {
                    let span = LogSpan { after, ..nothing };
                    let unknown = Some(Answer::Unknown);
                    self.ledgers[0]
                        .not_issued(&reservation, State::Failed, "unplugged", unknown, span)
                        .unwrap();
                }
            }
            Step::Refused => {
                let (content, request, length) = self.request();
                let reservation = self.reserve(0, &content);
                let after = Some(self.newest());
                self.sent(0, &reservation, &request, after);
                let until = Some(self.logs(DeviceError::SshCaConstraintViolation.code(), length));
                let span = LogSpan { after, until, exact: true };
                let error = Some(Answer::Error);
                self.ledgers[0].not_issued(&reservation, State::Refused, "no", error, span).unwrap();
            }
            Step::Rogue { refused } => {
                let (_, _, length) = self.request();
                match refused {
                    true => drop(self.logs(DeviceError::SshCaConstraintViolation.code(), length)),
                    false => self.rogue(length),
                }
            }
            Step::Read => self.read(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        self.ledgers.iter().flat_map(|ledger| ledger.faults().unwrap()).collect()
    }

    fn reconcile(&mut self) -> Reconciliation {
        self.read();
        let all = |ledger: &Ledger| ledger.entries(&Filter::default()).unwrap();
        let entries = self.ledgers.iter().flat_map(all).collect();
        Reconciliation::new(&self.journal, entries, &self.faults(), now() + 60)
    }
}

fn cases() -> u32 {
    std::env::var("SSHSM_RECONCILE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn as_many_signatures_are_reported_as_were_made_around_the_ledger(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(*step);
        }
        let report = world.reconcile();
        prop_assert_eq!(&report.faults, &Vec::<String>::new());
        let unmatched: Vec<_> =
            report.entries_without_signature.iter().map(|unmatched| unmatched.reason).collect();
        prop_assert!(unmatched.is_empty(), "honest certificates: {unmatched:?}");
        prop_assert!(report.outside.is_empty());
        let reported: BTreeSet<_> =
            report.signatures_without_entry.iter().map(|record| record.number).collect();
        prop_assert_eq!(reported.len(), world.rogues.len());
        // If hosts know their entries, which ones they are is exact too.
        let sure = |step: &Step| match step {
            Step::Sign { knows, rogues, .. } => matches!(knows, Knows::Entry) && *rogues == 0,
            Step::Lost { .. } => false,
            Step::NotSent { .. } | Step::Refused | Step::Rogue { .. } | Step::Read => true,
        };
        if steps.iter().all(sure) {
            prop_assert_eq!(reported, world.rogues);
        }
    }

    #[test]
    fn whatever_is_changed_in_a_ledger_by_other_means_is_found(
        steps in proptest::collection::vec(step(), 1..12),
        change in 0..CHANGES.len(),
        row in any::<proptest::sample::Index>(),
    ) {
        let mut world = World::new();
        let sign = Step::Sign { host: 0, knows: Knows::Entry, rogues: 0 };
        for step in [&[sign, Step::Read], &steps[..], &[sign]].concat() {
            world.step(step);
        }
        prop_assert_eq!(world.faults(), vec![]);
        let database = Connection::open(world.directory.path().join("a")).unwrap();
        let rows: i64 = database.query_row("SELECT count(*) FROM certificates", [], |row| row.get(0)).unwrap();
        let row = i64::try_from(row.index(usize::try_from(rows).unwrap())).unwrap() + 1;
        let changed = database.execute(CHANGES[change], [row]).unwrap();
        if changed > 0 {
            prop_assert!(!world.ledgers[0].faults().unwrap().is_empty(), "{}", CHANGES[change]);
        }
    }

    #[test]
    fn whatever_is_changed_in_a_journal_is_found(
        steps in proptest::collection::vec(step(), 1..12),
        at in any::<proptest::sample::Index>(),
        bit in 0..7_u8,
        cut in any::<bool>(),
    ) {
        let mut world = World::new();
        let sign = Step::Sign { host: 0, knows: Knows::Entry, rogues: 0 };
        for step in [&[sign, Step::Read], &steps[..], &[sign, Step::Read]].concat() {
            world.step(step);
        }
        let path = world.journal.path().to_owned();
        let good = fs::read(&path).unwrap();
        let bad = if cut {
            let ends: Vec<_> = (0..good.len()).filter(|&at| good[at] == b'\n').map(|at| at + 1).collect();
            good[..*at.get(&ends[..ends.len() - 1])].to_vec()
        } else {
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= 1 << bit;
            bad
        };
        fs::write(&path, &bad).unwrap();
        let checked = Journal::read(&path).and_then(|journal| journal.check(&world.ledgers[0]));
        prop_assert!(checked.is_err(), "cut {cut}");
        fs::write(&path, &good).unwrap();
        Journal::read(&path).unwrap().check(&world.ledgers[0]).unwrap();
    }
}

/// Changes that a person editing the file may make to a row.
const CHANGES: [&str; 10] = [
    "UPDATE certificates SET key_id = key_id || 'x' WHERE id = ?1",
    "UPDATE certificates SET principals = '[\"root\"]' WHERE id = ?1",
    "UPDATE certificates SET asked_by = 'bob@elsewhere' WHERE id = ?1",
    "UPDATE certificates SET asked_at = asked_at - 1, sent_at = sent_at - 1 WHERE id = ?1",
    "UPDATE certificates SET device_serial = 8 WHERE id = ?1",
    "UPDATE certificates SET state = 'failed', certificate = NULL WHERE id = ?1 AND state = 'issued'",
    "DELETE FROM certificates WHERE id = ?1",
    "DELETE FROM events WHERE id = ?1",
    "UPDATE events SET at = at + 1 WHERE id = ?1",
    "INSERT INTO certificates (authority, serial, counted, key_id, principals, subject, kind, valid_after, \
     valid_before, ca_key, template, enforced_by, signer, device_serial, asked_by, process, asked_at, state, \
     certificate) SELECT authority, '00000000000000009999', counted, key_id, principals, subject, kind, valid_after, \
     valid_before, ca_key, template, enforced_by, signer, device_serial, asked_by, process, asked_at, state, \
     certificate FROM certificates WHERE id = ?1",
];

#[test]
fn a_request_that_was_not_sent_accounts_for_no_signature() {
    let mut world = World::new();
    for step in
        [Step::NotSent { killed: true }, Step::NotSent { killed: false }, Step::Rogue { refused: false }]
    {
        world.step(step);
    }
    let report = world.reconcile();
    assert_eq!((report.signatures_without_entry.len(), report.gaps.len()), (1, 2));
    assert!(!report.agrees());
}

#[test]
fn one_certificate_accounts_for_one_signature_even_in_two_rows() {
    let mut world = World::new();
    let (content, request, length) = world.request();
    let line = world.certificate(&request);
    for _ in 0..2 {
        let reservation = world.reserve(0, &content);
        world.sent(0, &reservation, &request, None);
        world.ledgers[0].issued(&reservation, &line, LogSpan::default()).unwrap();
    }
    world.rogue(length);
    world.rogue(length);
    let report = world.reconcile();
    assert!(!report.agrees());
    assert_eq!(report.entries_without_signature.len(), 2, "{report:?}");
}

#[test]
fn a_signature_of_another_length_or_template_is_not_a_certificates_own() {
    let mut world = World::new();
    let (content, request, length) = world.request();
    let reservation = world.reserve(0, &content);
    world.sent(0, &reservation, &request, None);
    world.rogue(length + 4);
    let line = world.certificate(&request);
    world.ledgers[0].issued(&reservation, &line, LogSpan::default()).unwrap();
    let report = world.reconcile();
    assert_eq!(
        (report.signatures_without_entry.len(), report.entries_without_signature.len()),
        (1, 1),
        "{report:?}"
    );
}

#[test]
fn a_ledger_of_the_first_version_is_brought_up_to_this_one_and_then_shows_changes() {
    let mut world = World::new();
    for knows in [Knows::Entry, Knows::Nothing] {
        world.step(Step::Sign { host: 0, knows, rogues: 0 });
    }
    let path = world.directory.path().join("a");
    let database = Connection::open(&path).unwrap();
    let columns = [
        "sent_at",
        "payload_length",
        "request",
        "answer",
        "log_after",
        "log_after_digest",
        "log_until",
        "log_until_digest",
    ];
    for column in columns {
        database.execute_batch(&format!("ALTER TABLE certificates DROP COLUMN {column}")).unwrap();
    }
    database
        .execute_batch(
            "ALTER TABLE revocations DROP COLUMN undone_by; ALTER TABLE revocations DROP COLUMN undone_at; \
             DROP TABLE events; DROP TABLE identity; DROP TABLE journals; PRAGMA user_version = 1",
        )
        .unwrap();
    let ledger = Ledger::open_to_read(&path).unwrap();
    assert_eq!(ledger.faults().unwrap(), []);
    assert_eq!(ledger.entries(&Filter::default()).unwrap().len(), 2);
    database.execute("UPDATE certificates SET asked_by = 'x'", []).unwrap();
    assert_eq!(ledger.faults().unwrap().len(), 2);
}

#[test]
fn a_journal_of_the_first_version_is_continued_and_its_words_come_from_its_codes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (first, boot) = (LogEntry::RESET.linked(&[1; 32]), LogEntry { number: 2, ..LogEntry::BOOT });
    let log = [first, boot.linked(&first.digest)];
    let record = |entry| Line::Entry(Record { command: "device info".into(), ..Record::new(entry, 1) });
    let lines = [Line::Journal { version: 1, device: DEVICE, at: 0 }, record(&log[0]), record(&log[1])];
    let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    fs::write(&path, text).unwrap();
    let read = Journal::read(&path).unwrap();
    assert_eq!(
        read.records().iter().map(|record| record.command.as_str()).collect::<Vec<_>>(),
        ["reset", "boot"]
    );
    drop(Journal::open(&path, DEVICE).unwrap());
    let continued = Journal::read(&path).unwrap();
    assert_eq!((continued.lines(), continued.last_link().is_some()), (4, true));
    // From then on earlier lines cannot be changed either.
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replacen("\"at\":1", "\"at\":2", 1)).unwrap();
    assert!(matches!(Journal::read(&path), Err(AuditError::Link { line: 4, .. })));
}
