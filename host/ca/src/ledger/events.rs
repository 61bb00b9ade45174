//! The events of the ledger, in a chain: each change of a row adds an event that links the row's content at
//! that time to every earlier event.
//!
//! *Content* of a row is the SHA-256 of a JSON array of its columns, in the order of [`About::columns`],
//! without whitespace. *Link* of an event is the SHA-256 of the previous link (32 bytes, zeros before the
//! first) and of the JSON array `[id, at, about, row, content]`. Both are stored as 64 hexadecimal digits.
//! docs/ledger.md describes the same for other readers.
//!
//! The chain reveals changes made by other means, or by an honest program on a damaged disk. It is not a
//! signature: anyone who may write the file can make a new chain. That is why the ledger and the journal
//! store each other's heads, and why docs/security.md names what neither proves.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params, types::ValueRef};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Failed, LedgerError, Result};

/// A link, or a hash of content.
pub type Link = [u8; 32];

/// The subject of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum About {
    Certificate,
    Revocation,
    List,
}

impl About {
    pub(super) const ALL: [Self; 3] = [Self::Certificate, Self::Revocation, Self::List];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Revocation => "revocation",
            Self::List => "list",
        }
    }

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Certificate => "certificates",
            Self::Revocation => "revocations",
            Self::List => "revocation_lists",
        }
    }

    /// The columns of its content; a CA is represented by its fingerprint.
    const fn columns(self) -> &'static str {
        match self {
            Self::Certificate => {
                "id, (SELECT fingerprint FROM authorities WHERE authorities.id = authority), serial, counted, key_id, \
                 principals, subject, kind, valid_after, valid_before, ca_key, template, enforced_by, signer, \
                 device_serial, audit_entry, asked_by, process, asked_at, state, finished_at, reason, certificate, \
                 sent_at, payload_length, request, answer, log_after, log_after_digest, log_until, log_until_digest"
            }
            Self::Revocation => {
                "id, what, (SELECT authorities.fingerprint FROM authorities WHERE authorities.id = authority), \
                 first_serial, last_serial, key_id, hex(key), fingerprint, reason, revoked_by, revoked_at, undone_by, \
                 undone_at"
            }
            Self::List => "number, built_at",
        }
    }
}

/// 64 lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of 64 lower-case hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Link> {
    let mut link = Link::default();
    let digits = text.as_bytes();
    if digits.len() != 64 || digits.iter().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (to, pair) in link.iter_mut().zip(digits.chunks(2)) {
        *to = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(link)
}

/// The link after `before`.
fn link(before: &Link, event: &Event) -> Link {
    let text = json!([event.id, event.at, event.about, event.row, event.content]).to_string();
    Sha256::new().chain_update(before).chain_update(text).finalize().into()
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: i64,
    pub(super) at: i64,
    pub(super) about: String,
    pub(super) row: i64,
    pub(super) content: String,
    pub(super) link: String,
}

/// The hash of a row's content; `None` when there is no such row, or it has a value that no row of a ledger
/// has.
pub(super) fn content(
    failed: Failed<'_>,
    database: &Connection,
    about: About,
    row: i64,
) -> Result<Option<String>> {
    let query = format!("SELECT {} FROM {} WHERE rowid = ?1", about.columns(), about.table());
    let mut statement = database.prepare(&query).map_err(failed)?;
    let columns = statement.column_count();
    let values = statement
        .query_row([row], |row| (0..columns).map(|column| Ok(value(row.get_ref(column)?))).collect())
        .optional()
        .map_err(failed)?;
    let values: Option<Vec<Option<Value>>> = values;
    let values: Option<Vec<Value>> = values.and_then(|values| values.into_iter().collect());
    Ok(values.map(|values| hex(&Sha256::digest(Value::Array(values).to_string()))))
}

fn value(value: ValueRef<'_>) -> Option<Value> {
    match value {
        ValueRef::Null => Some(Value::Null),
        ValueRef::Integer(number) => Some(number.into()),
        ValueRef::Text(text) => str::from_utf8(text).ok().map(Value::from),
        ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// The newest event's id and link; 0 and zeros before the first.
pub(super) fn head(failed: Failed<'_>, database: &Connection) -> Result<(i64, Link)> {
    let newest: Option<(i64, String)> = database
        .prepare("SELECT id, link FROM events ORDER BY id DESC LIMIT 1")
        .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed)?;
    let Some((id, link)) = newest else { return Ok((0, Link::default())) };
    let link = unhex(&link).ok_or_else(|| LedgerError::Nonsense(format!("the link of event {id}")))?;
    Ok((id, link))
}

/// Records the current content of a row.
pub(super) fn record(failed: Failed<'_>, database: &Connection, about: About, row: i64) -> Result<()> {
    let content = content(failed, database, about, row)?
        .ok_or_else(|| LedgerError::Nonsense(format!("{} {row}", about.name())))?;
    let (id, before) = head(failed, database)?;
    let mut event = Event {
        id: id + 1,
        at: Timestamp::now().as_second(),
        about: about.name().to_owned(),
        row,
        content,
        link: String::new(),
    };
    event.link = hex(&link(&before, &event));
    database
        .prepare("INSERT INTO events (id, at, about, row, content, link) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .and_then(|mut insert| {
            insert.execute(params![event.id, event.at, event.about, event.row, event.content, event.link])
        })
        .map_err(failed)?;
    Ok(())
}

/// All events, in their order.
pub(super) fn all(failed: Failed<'_>, database: &Connection) -> Result<Vec<Event>> {
    let mut statement = database
        .prepare("SELECT id, at, about, row, content, link FROM events ORDER BY id")
        .map_err(failed)?;
    let events = statement.query_map([], |row| {
        Ok(Event {
            id: row.get(0)?,
            at: row.get(1)?,
            about: row.get(2)?,
            row: row.get(3)?,
            content: row.get(4)?,
            link: row.get(5)?,
        })
    });
    events.and_then(Iterator::collect).map_err(failed)
}

/// The id of the first event that does not fit the chain; `None` when the chain is intact.
pub(super) fn break_in(events: &[Event]) -> Option<i64> {
    let mut before = Link::default();
    for (id, event) in (1..).zip(events) {
        let expected = link(&before, event);
        if event.id != id || event.link != hex(&expected) {
            return Some(id);
        }
        before = expected;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_they_are_written_and_nothing_else_is() {
        let link: Link = std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap_or_default());
        assert_eq!(unhex(&hex(&link)), Some(link));
        let text = hex(&link);
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replacen('0', "+", 1)]
        {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
