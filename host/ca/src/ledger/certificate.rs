//! Certificates in the ledger: an entry is reserved, and its outcome is recorded later.

use std::fmt;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use serde::Serialize;
use ssh_encoding::Encode as _;
use ssh_key::public::KeyData;

use sha2::{Digest as _, Sha256};
use sshsm_protocol::audit::LogMark;

use super::{
    Failed, Ledger, LedgerError, Result, digits,
    events::{self, About, hex},
    fingerprint, key_data,
    revocation::{Revocation, Revoked},
    serial_of,
};
use crate::{enforced_by::EnforcedBy, request::Content};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

    /// Its name in the ledger.
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

/// The signer, as the ledger records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The CA's public key.
    pub public: KeyData,
    /// The CA key's name on the signer.
    pub key: String,
    /// The template's name.
    pub template: String,
    /// What enforces it.
    pub enforced_by: EnforcedBy,
    /// The location of the CA key.
    pub signer: String,
    /// The device's serial number, if it has one.
    pub device_serial: Option<u32>,
}

/// A serial number that is the ledger's promise; and the entry that holds it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its entry waits for its outcome"]
pub struct Reservation {
    entry: i64,
    /// The serial number.
    pub serial: u64,
}

/// A signer's answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A signature.
    Signed,
    /// An error: nothing was signed.
    Error,
    /// Nothing that shows whether it signed: the connection broke, or the process ended.
    Unknown,
}

impl Answer {
    const ALL: [Self; 3] = [Self::Signed, Self::Error, Self::Unknown];

    const fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }
}

/// A request about to be sent to the signer.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'r> {
    /// The bytes to be signed.
    pub request: &'r [u8],
    /// Bytes of the signing command, as a device logs them.
    pub payload_length: usize,
    /// The newest entry of the device's log, if that is known.
    pub log_after: Option<LogMark>,
}

/// The part of a device's log that contains the entry about a request, if the device logged one: after
/// `after`, and not after `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSpan {
    /// The newest entry before the request was sent; `None` is not known.
    pub after: Option<LogMark>,
    /// The newest entry after it was answered; `None` is not known.
    pub until: Option<LogMark>,
    /// Whether `until` is the entry itself.
    pub exact: bool,
}

/// Which serial number a certificate shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serial {
    /// The next one of the CA that no entry has.
    Next,
    /// This one, even if it is already in use.
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
    /// The location of the CA key.
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
    /// When the request went to the signer, UNIX seconds; `None`: it did not.
    pub sent_at: Option<i64>,
    /// Bytes of the signing command, as a device logs them.
    pub payload_length: Option<u32>,
    /// SHA-256 of the bytes to be signed, hexadecimal.
    pub request: Option<String>,
    /// The signer's answer; `None`: it was not asked, or has not answered yet.
    pub answer: Option<Answer>,
    /// The device's newest log entry before the request was sent.
    pub log_after: Option<u16>,
    /// Its digest, 32 hexadecimal digits.
    pub log_after_digest: Option<String>,
    /// The device's newest log entry after the answer.
    pub log_until: Option<u16>,
    /// Its digest, 32 hexadecimal digits.
    pub log_until_digest: Option<String>,
    /// The revocation that is about it, by its place in the ledger.
    pub revocation: Option<i64>,
}

impl Entry {
    /// The position of its entry in the device's log, as far as it is known.
    #[must_use]
    pub fn log_span(&self) -> LogSpan {
        let mark = |number: Option<u16>, digest: &Option<String>| {
            let digest = u128::from_str_radix(digest.as_deref()?, 16).ok()?.to_be_bytes();
            Some(LogMark { number: number?, digest })
        };
        LogSpan {
            after: mark(self.log_after, &self.log_after_digest),
            until: mark(self.log_until, &self.log_until_digest),
            exact: self.audit_entry.is_some(),
        }
    }
}

/// A filter for entries; all conditions must hold.
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
    /// Requested at this time or later; UNIX seconds.
    pub since: Option<i64>,
    /// In this state.
    pub state: Option<State>,
}

impl Ledger {
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
            let entry = transaction.last_insert_rowid();
            events::record(failed, transaction, About::Certificate, entry)?;
            Ok(Reservation { entry, serial })
        })
    }

    /// Records that a request is about to go to the signer; only then may it.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn sent(&mut self, reservation: &Reservation, sent: &Sent<'_>) -> Result<()> {
        let (after, digest) = columns(sent.log_after);
        let set = params![
            reservation.entry,
            Timestamp::now().as_second(),
            i64::try_from(sent.payload_length).unwrap_or(i64::MAX),
            hex(&Sha256::digest(sent.request)),
            after,
            digest
        ];
        self.change(
            reservation,
            "UPDATE certificates SET sent_at = ?2, payload_length = ?3, request = ?4, log_after = ?5, \
             log_after_digest = ?6 WHERE id = ?1 AND state = 'reserved' AND sent_at IS NULL",
            set,
        )
    }

    /// Records the certificate of a reservation; only then may it be handed out.
    ///
    /// # Errors
    /// When it is not recorded: the certificate must then be discarded.
    pub fn issued(&mut self, reservation: &Reservation, certificate: &str, span: LogSpan) -> Result<()> {
        let certificate = certificate.trim_end();
        self.finish(reservation, State::Issued, None, Some(certificate), Some(Answer::Signed), span)
    }

    /// Records why a reservation has no certificate, and the signer's answer, if it was asked.
    ///
    /// # Errors
    /// When it is not recorded: the entry stays reserved.
    pub fn not_issued(
        &mut self,
        reservation: &Reservation,
        state: State,
        reason: &str,
        answer: Option<Answer>,
        span: LogSpan,
    ) -> Result<()> {
        self.finish(reservation, state, Some(reason), None, answer, span)
    }

    fn finish(
        &mut self,
        reservation: &Reservation,
        state: State,
        reason: Option<&str>,
        certificate: Option<&str>,
        answer: Option<Answer>,
        span: LogSpan,
    ) -> Result<()> {
        let (until, digest) = columns(span.until);
        let set = params![
            reservation.entry,
            state.name(),
            reason,
            certificate,
            span.until.filter(|_| span.exact).map(|mark| mark.number),
            Timestamp::now().as_second(),
            answer.map(Answer::name),
            until,
            digest
        ];
        self.change(
            reservation,
            "UPDATE certificates SET state = ?2, reason = ?3, certificate = ?4, audit_entry = ?5, \
             finished_at = ?6, answer = ?7, log_until = ?8, log_until_digest = ?9 \
             WHERE id = ?1 AND state = 'reserved'",
            set,
        )
    }

    fn change(
        &mut self,
        reservation: &Reservation,
        update: &str,
        set: &[&dyn rusqlite::ToSql],
    ) -> Result<()> {
        self.write(|failed, transaction| match transaction.execute(update, set).map_err(failed)? {
            1 => events::record(failed, transaction, About::Certificate, reservation.entry),
            _ => Err(LedgerError::Nonsense(format!("entry {} is not reserved", reservation.entry))),
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
        let revocations = self.standing_revocations()?;
        for entry in &mut entries {
            let about = |(_, revoked): &&(Revocation, Revoked)| revoked.is_about(entry);
            entry.revocation = revocations.iter().find(about).map(|(revocation, _)| revocation.revocation);
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
}

fn columns(mark: Option<LogMark>) -> (Option<u16>, Option<String>) {
    mark.map(|mark| (mark.number, hex(&mark.digest))).unzip()
}

/// The row of a CA, which is made when there is none.
pub(super) fn authority_of(failed: Failed<'_>, database: &Connection, key: &KeyData) -> Result<i64> {
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
    let answer = match row.get::<_, Option<String>>("answer")? {
        None => None,
        Some(name) => match Answer::ALL.into_iter().find(|known| known.name() == name) {
            None => return Ok(Err(nonsense("answer"))),
            known => known,
        },
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
        sent_at: row.get("sent_at")?,
        payload_length: row.get("payload_length")?,
        request: row.get("request")?,
        answer,
        log_after: row.get("log_after")?,
        log_after_digest: row.get("log_after_digest")?,
        log_until: row.get("log_until")?,
        log_until_digest: row.get("log_until_digest")?,
        revocation: None,
    }))
}
