//! Whether a ledger is as recorded: its chain, its rows, and the certificates in them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use super::{
    Answer, Entry, Filter, Ledger, Result, State,
    events::{self, About},
    fingerprint, rows,
};
use crate::{certificate, request::COMMAND_LENGTH};

/// Bytes of a timestamp signature: from Ed25519's and P-256's to RSA-4096's.
const TIMESTAMP_SIGNATURE: std::ops::RangeInclusive<usize> = 64..=512;

/// Something in a ledger that no program of this project leaves there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An event does not follow the one before.
    Chain {
        /// The first such event, from 1.
        event: i64,
    },
    /// A row does not match its last event.
    Changed {
        /// `certificate`, `revocation` or `list`.
        about: &'static str,
        /// Its place in the ledger.
        row: i64,
    },
    /// A row that no event made.
    Added {
        /// `certificate`, `revocation` or `list`.
        about: &'static str,
        /// Its place in the ledger.
        row: i64,
    },
    /// An event made a row that is not there.
    Removed {
        /// As the event has it.
        about: String,
        /// Its place in the ledger.
        row: i64,
    },
    /// A CA's fingerprint is that of another key.
    Authority {
        /// The fingerprint.
        fingerprint: String,
    },
    /// A column of an entry contradicts the certificate in it.
    Column {
        /// The entry.
        entry: i64,
        /// The column.
        column: &'static str,
    },
    /// The certificate of an entry was not signed by its CA.
    Certificate {
        /// The entry.
        entry: i64,
        /// The defect.
        reason: String,
    },
    /// The state of an entry contradicts its other columns.
    State {
        /// The entry.
        entry: i64,
        /// The recorded state.
        state: State,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain { event } => write!(f, "event {event} does not follow the one before"),
            Self::Changed { about, row } => write!(f, "{about} {row} was changed after it was recorded"),
            Self::Added { about, row } => write!(f, "{about} {row} was never recorded"),
            Self::Removed { about, row } => write!(f, "{about} {row} was recorded and is not there"),
            Self::Authority { fingerprint } => {
                write!(f, "the key of CA {fingerprint} has another fingerprint")
            }
            Self::Column { entry, column } => {
                write!(f, "the {column} of certificate {entry} does not match the certificate")
            }
            Self::Certificate { entry, reason } => write!(f, "certificate {entry}: {reason}"),
            Self::State { entry, state } => {
                write!(f, "certificate {entry} is {state}, and its other columns contradict that")
            }
        }
    }
}

impl Ledger {
    /// Everything that shows that the ledger is not as recorded: checks each event, each row, each
    /// certificate and its signature.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        let failed = self.failure();
        let events = events::all(&failed, &self.database)?;
        let mut faults: Vec<_> =
            events::break_in(&events).map(|event| Fault::Chain { event }).into_iter().collect();
        let mut recorded: HashMap<(&str, i64), &str> = HashMap::new();
        for event in &events {
            recorded.insert((&event.about, event.row), &event.content);
        }
        for about in About::ALL {
            for row in rows(&failed, &self.database, about)? {
                let content = events::content(&failed, &self.database, about, row)?;
                match recorded.remove(&(about.name(), row)) {
                    None => faults.push(Fault::Added { about: about.name(), row }),
                    Some(known) if content.as_deref() != Some(known) => {
                        faults.push(Fault::Changed { about: about.name(), row });
                    }
                    Some(_) => {}
                }
            }
        }
        let removed: std::collections::BTreeSet<_> = recorded.into_keys().collect();
        faults
            .extend(removed.into_iter().map(|(about, row)| Fault::Removed { about: about.to_owned(), row }));
        let mut authorities = BTreeMap::new();
        for (named, key) in self.authorities()? {
            if fingerprint(&key) != named {
                faults.push(Fault::Authority { fingerprint: named.clone() });
            }
            authorities.insert(named, key);
        }
        for entry in self.entries(&Filter::default())? {
            let Some(ca) = authorities.get(&entry.ca) else { continue };
            faults.extend(fault(&entry, ca)?);
        }
        Ok(faults)
    }
}

/// The defect of an entry on its own.
fn fault(entry: &Entry, ca: &ssh_key::public::KeyData) -> Result<Option<Fault>> {
    let id = entry.entry;
    let state = || Some(Fault::State { entry: id, state: entry.state });
    let consistent = match entry.state {
        State::Reserved => {
            entry.certificate.is_none() && matches!(entry.answer, None | Some(Answer::Unknown))
        }
        State::Issued => entry.answer == Some(Answer::Signed) && entry.sent_at.is_some(),
        State::Refused => entry.certificate.is_none() && entry.answer != Some(Answer::Signed),
        State::Failed => entry.certificate.is_none(),
    };
    if !consistent || entry.answer.is_some() && entry.sent_at.is_none() {
        return Ok(state());
    }
    let line = match (entry.state, &entry.certificate) {
        (State::Issued, None) => return Ok(state()),
        (_, None) => return Ok(None),
        (_, Some(line)) => line,
    };
    let checked = match certificate::signed_by(line, ca) {
        Ok(checked) => checked,
        Err(error) => {
            return Ok(Some(Fault::Certificate { entry: id, reason: error.to_string() }));
        }
    };
    let content = match checked.content() {
        Ok(content) => content,
        Err(error) => {
            return Ok(Some(Fault::Certificate { entry: id, reason: error.to_string() }));
        }
    };
    let request = checked.as_bytes();
    let fits = |payload: u32| {
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        payload
            .checked_sub(request.len() + COMMAND_LENGTH)
            .is_some_and(|signature| TIMESTAMP_SIGNATURE.contains(&signature))
    };
    let digest = events::hex(&<sha2::Sha256 as sha2::Digest>::digest(request));
    let (subject, _) = match checked.keys() {
        Ok(keys) => keys,
        Err(error) => return Ok(Some(Fault::Certificate { entry: id, reason: error.to_string() })),
    };
    let column = [
        ("serial", entry.serial == content.serial),
        ("key_id", entry.key_id == content.key_id),
        ("principals", entry.principals == content.principals),
        ("subject", entry.subject == fingerprint(&subject)),
        ("kind", entry.kind == content.kind.to_string()),
        ("valid_after", entry.valid_after == content.validity.after()),
        ("valid_before", entry.valid_before == content.validity.before()),
        ("payload_length", entry.device_serial.is_none() || entry.payload_length.is_none_or(fits)),
        ("request", entry.request.as_ref().is_none_or(|request| *request == digest)),
    ]
    .into_iter()
    .find_map(|(column, same)| (!same).then_some(column));
    Ok(column.map(|column| Fault::Column { entry: id, column }))
}
