//! What the ledger knows about devices' journals, and what journals learn about the ledger.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};
use sshsm_protocol::audit::LogMark;

use super::{
    Ledger, LedgerError, Result,
    events::{self, Link, hex, unhex},
};

/// The contents of a device's journal when it was last read with this ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownJournal {
    /// Its lines.
    pub lines: usize,
    /// The link of the last one.
    pub link: Link,
    /// The last entry of the device's log in it.
    pub last: Option<LogMark>,
}

/// How far a ledger's chain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The ledger, 32 hexadecimal digits.
    pub id: String,
    /// Its events.
    pub events: i64,
    /// The link of the last one; zeros before the first.
    pub link: Link,
}

impl Ledger {
    /// How far the chain goes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn head(&self) -> Result<Head> {
        let id = self
            .database
            .query_row("SELECT id FROM identity", [], |row| row.get(0))
            .map_err(self.failure())?;
        let (events, link) = events::head(&self.failure(), &self.database)?;
        Ok(Head { id, events, link })
    }

    /// The link of an event; zeros for 0, and `None` where there is no such event.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn link(&self, event: i64) -> Result<Option<Link>> {
        if event == 0 {
            return Ok(Some(Link::default()));
        }
        let link: Option<String> = self
            .database
            .query_row("SELECT link FROM events WHERE id = ?1", [event], |row| row.get(0))
            .optional()
            .map_err(self.failure())?;
        Ok(link.as_deref().and_then(unhex))
    }

    /// What is known about a device's journal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn journal(&self, device: u32) -> Result<Option<KnownJournal>> {
        type Columns = (i64, String, Option<u16>, Option<String>);
        let known: Option<Columns> = self
            .database
            .query_row(
                "SELECT lines, link, last_entry, last_digest FROM journals WHERE device = ?1",
                [device],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .optional()
            .map_err(self.failure())?;
        let Some((lines, link, number, digest)) = known else { return Ok(None) };
        let nonsense =
            || LedgerError::Nonsense(format!("the record about the journal of device {device:010}"));
        let last = match (number, digest) {
            (None, None) => None,
            (Some(number), Some(digest)) => {
                let digest = u128::from_str_radix(&digest, 16).map_err(|_| nonsense())?;
                Some(LogMark { number, digest: digest.to_be_bytes() })
            }
            _ => return Err(nonsense()),
        };
        let lines = usize::try_from(lines).map_err(|_| nonsense())?;
        Ok(Some(KnownJournal { lines, link: unhex(&link).ok_or_else(nonsense)?, last }))
    }

    /// Records the contents of a device's journal.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn remember_journal(&mut self, device: u32, journal: &KnownJournal) -> Result<()> {
        let (number, digest) = journal.last.map(|mark| (mark.number, hex(&mark.digest))).unzip();
        self.write(|failed, transaction| {
            transaction
                .execute(
                    "INSERT OR REPLACE INTO journals (device, lines, link, last_entry, last_digest, at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        device,
                        i64::try_from(journal.lines).unwrap_or(i64::MAX),
                        hex(&journal.link),
                        number,
                        digest,
                        Timestamp::now().as_second()
                    ],
                )
                .map_err(failed)?;
            Ok(())
        })
    }
}
