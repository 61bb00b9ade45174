//! Revocations in the ledger, and the lists that are made of them.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use ssh_encoding::Encode as _;
use ssh_key::{Certificate, Fingerprint, HashAlg, public::KeyData};

use super::{
    Entry, Failed, Filter, Ledger, LedgerError, Result,
    certificate::authority_of,
    digits,
    events::{self, About},
    fingerprint, key_data, serial_of,
};
use crate::krl::{KrlError, RevocationList};

/// What can be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Certificates by their serial numbers, of one CA or of any.
    Serials {
        /// The CA.
        ca: Option<KeyData>,
        /// The first serial number, not 0.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Certificates by their key id, of one CA or of any.
    KeyId {
        /// The CA.
        ca: Option<KeyData>,
        /// The key id.
        key_id: String,
    },
    /// A key, and all certificates about it.
    Key(KeyData),
    /// The same by its fingerprint.
    Fingerprint([u8; 32]),
    /// A CA: all certificates by it.
    Ca(KeyData),
}

/// A revocation, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revocation {
    /// Its place in the ledger.
    pub revocation: i64,
    /// `serials`, `key_id`, `key`, `fingerprint` or `ca`.
    pub what: String,
    /// The CA's fingerprint; `None` is any.
    pub ca: Option<String>,
    /// The first serial number.
    pub first_serial: Option<u64>,
    /// The last one.
    pub last_serial: Option<u64>,
    /// The key id.
    pub key_id: Option<String>,
    /// The key's fingerprint.
    pub fingerprint: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// `user@host`.
    pub revoked_by: String,
    /// UNIX seconds.
    pub revoked_at: i64,
    /// Who withdrew it, `user@host`; `None`: it is in force.
    pub undone_by: Option<String>,
    /// When; UNIX seconds.
    pub undone_at: Option<i64>,
}

impl Revoked {
    /// Whether it is about this certificate, for a server that has it in its revocation list.
    #[must_use]
    pub fn covers(&self, certificate: &Certificate) -> bool {
        let by = |ca: &Option<KeyData>| ca.as_ref().is_none_or(|ca| ca == certificate.signature_key());
        let keys = [certificate.public_key(), certificate.signature_key()];
        match self {
            Self::Serials { ca, first, last } => {
                by(ca) && (*first..=*last).contains(&certificate.serial()) && certificate.serial() != 0
            }
            Self::KeyId { ca, key_id } => by(ca) && certificate.key_id() == key_id,
            Self::Key(key) | Self::Ca(key) => keys.contains(&key),
            Self::Fingerprint(hash) => {
                keys.iter().any(|key| key.fingerprint(HashAlg::Sha256) == Fingerprint::Sha256(*hash))
            }
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Serials { .. } => "serials",
            Self::KeyId { .. } => "key_id",
            Self::Key(_) => "key",
            Self::Fingerprint(_) => "fingerprint",
            Self::Ca(_) => "ca",
        }
    }

    fn put(&self, list: &mut RevocationList) -> std::result::Result<(), KrlError> {
        match self {
            Self::Serials { ca, first, last } => list.revoke_serials(ca.as_ref(), *first..=*last),
            Self::KeyId { ca, key_id } => list.revoke_key_id(ca.as_ref(), key_id),
            Self::Key(key) | Self::Ca(key) => list.revoke_key(key),
            Self::Fingerprint(hash) => {
                list.revoke_fingerprint(*hash);
                Ok(())
            }
        }
    }

    /// Whether it is about an entry: what [`Revoked::filter`] lets through.
    pub(super) fn is_about(&self, entry: &Entry) -> bool {
        let by = |ca: &Option<KeyData>| ca.as_ref().is_none_or(|ca| fingerprint(ca) == entry.ca);
        match self {
            Self::Serials { ca, first, last } => by(ca) && (*first..=*last).contains(&entry.serial),
            Self::KeyId { ca, key_id } => by(ca) && *key_id == entry.key_id,
            Self::Key(key) => fingerprint(key) == entry.subject,
            Self::Fingerprint(hash) => Fingerprint::Sha256(*hash).to_string() == entry.subject,
            Self::Ca(key) => fingerprint(key) == entry.ca,
        }
    }

    /// The ledger's certificates that it is about.
    #[must_use]
    pub fn filter(&self) -> Filter {
        match self {
            Self::Serials { ca, first, last } => Filter {
                ca: ca.as_ref().map(fingerprint),
                serials: Some((*first, *last)),
                ..Filter::default()
            },
            Self::KeyId { ca, key_id } => {
                Filter { ca: ca.as_ref().map(fingerprint), key_id: Some(key_id.clone()), ..Filter::default() }
            }
            Self::Key(key) => Filter { subject: Some(fingerprint(key)), ..Filter::default() },
            Self::Fingerprint(hash) => {
                Filter { subject: Some(Fingerprint::Sha256(*hash).to_string()), ..Filter::default() }
            }
            Self::Ca(key) => Filter { ca: Some(fingerprint(key)), ..Filter::default() },
        }
    }
}

impl Ledger {
    /// Records a revocation; repeating one is not an error, and the first reason stays.
    ///
    /// # Errors
    /// When it is not recorded, or cannot be represented in a revocation list.
    pub fn revoke(&mut self, revoked: &Revoked, reason: Option<&str>, revoked_by: &str) -> Result<()> {
        revoked.put(&mut RevocationList::default())?;
        self.write(|failed, transaction| {
            let ca = match revoked {
                Revoked::Serials { ca: Some(ca), .. } | Revoked::KeyId { ca: Some(ca), .. } => {
                    Some(authority_of(failed, transaction, ca)?)
                }
                _ => None,
            };
            let (first, last) = match revoked {
                Revoked::Serials { first, last, .. } => (Some(digits(*first)), Some(digits(*last))),
                _ => (None, None),
            };
            let key_id = match revoked {
                Revoked::KeyId { key_id, .. } => Some(key_id),
                _ => None,
            };
            let (key, hash) = match revoked {
                Revoked::Key(key) | Revoked::Ca(key) => (Some(key.encode_vec()?), Some(fingerprint(key))),
                Revoked::Fingerprint(hash) => (None, Some(Fingerprint::Sha256(*hash).to_string())),
                _ => (None, None),
            };
            let new = transaction
                .execute(
                    "INSERT INTO revocations (what, authority, first_serial, last_serial, key_id, key, fingerprint, \
                     reason, revoked_by, revoked_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 WHERE NOT EXISTS \
                     (SELECT 1 FROM revocations WHERE what = ?1 AND authority IS ?2 AND first_serial IS ?3 AND \
                     last_serial IS ?4 AND key_id IS ?5 AND key IS ?6 AND fingerprint IS ?7 AND undone_at IS NULL)",
                    params![
                        revoked.name(),
                        ca,
                        first,
                        last,
                        key_id,
                        key,
                        hash,
                        reason,
                        revoked_by,
                        Timestamp::now().as_second()
                    ],
                )
                .map_err(failed)?;
            match new {
                0 => Ok(()),
                _ => events::record(failed, transaction, About::Revocation, transaction.last_insert_rowid()),
            }
        })
    }

    /// Withdraws a revocation: lists built from now on do not contain it. It stays in the ledger, with who
    /// withdrew it and when.
    ///
    /// # Errors
    /// [`LedgerError::NoRevocation`] when none with this number is in force.
    pub fn undo_revocation(&mut self, revocation: i64, undone_by: &str) -> Result<()> {
        self.write(|failed, transaction| {
            let set = params![revocation, undone_by, Timestamp::now().as_second()];
            let update =
                "UPDATE revocations SET undone_by = ?2, undone_at = ?3 WHERE id = ?1 AND undone_at IS NULL";
            match transaction.execute(update, set).map_err(failed)? {
                1 => events::record(failed, transaction, About::Revocation, revocation),
                _ => Err(LedgerError::NoRevocation(revocation)),
            }
        })
    }

    /// The revocations that were not taken back, in their order.
    pub(super) fn standing_revocations(&self) -> Result<Vec<(Revocation, Revoked)>> {
        let mut revocations = read_revocations(&self.database, &self.failure())?;
        revocations.retain(|(revocation, _)| revocation.undone_at.is_none());
        Ok(revocations)
    }

    /// All revocations, those that were taken back among them, in their order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn revocations(&self) -> Result<Vec<Revocation>> {
        let revocations = read_revocations(&self.database, &self.failure())?;
        Ok(revocations.into_iter().map(|(revocation, _)| revocation).collect())
    }

    /// Whether a certificate is revoked.
    ///
    /// # Errors
    /// When the revocations cannot be read.
    pub fn is_revoked(&self, certificate: &Certificate) -> Result<bool> {
        let revocations = read_revocations(&self.database, &self.failure())?;
        Ok(revocations.iter().any(|(_, revoked)| revoked.covers(certificate)))
    }

    /// A revocation list of all revocations, with a number greater than that of any earlier list and at least
    /// `number`.
    ///
    /// # Errors
    /// When the revocations cannot be read, or the number not be recorded.
    pub fn revocation_list(&mut self, number: u64) -> Result<RevocationList> {
        let generated = Timestamp::now().as_second();
        self.write(|failed, transaction| {
            let last: Option<String> = transaction
                .query_row("SELECT max(number) FROM revocation_lists", [], |row| row.get(0))
                .map_err(failed)?;
            let last = last.map(|last| serial_of(&last)).transpose()?.unwrap_or(0);
            let number = last.saturating_add(1).max(number);
            transaction
                .execute(
                    "INSERT OR REPLACE INTO revocation_lists (number, built_at) VALUES (?1, ?2)",
                    params![digits(number), generated],
                )
                .map_err(failed)?;
            events::record(failed, transaction, About::List, transaction.last_insert_rowid())?;
            let generated = u64::try_from(generated).unwrap_or(0);
            let mut list = RevocationList::new(number, generated);
            for (revocation, revoked) in read_revocations(transaction, failed)? {
                if revocation.undone_at.is_none() {
                    revoked.put(&mut list)?;
                }
            }
            Ok(list)
        })
    }
}

fn read_revocations(database: &Connection, failed: Failed<'_>) -> Result<Vec<(Revocation, Revoked)>> {
    let mut statement = database
        .prepare(
            "SELECT revocations.id, what, authorities.fingerprint, first_serial, revocations.last_serial, key_id, \
             revocations.fingerprint, reason, revoked_by, revoked_at, authorities.key, revocations.key, \
             undone_by, undone_at FROM revocations LEFT JOIN authorities ON authorities.id = authority ORDER BY revocations.id",
        )
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut revocations = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        revocations.push(revocation(row).map_err(failed)??);
    }
    Ok(revocations)
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Result<(Revocation, Revoked)>> {
    let serial = |column| -> rusqlite::Result<Option<Result<u64>>> {
        Ok(row.get::<_, Option<String>>(column)?.map(|text| serial_of(&text)))
    };
    let (first, last) = (serial(3)?, serial(4)?);
    let (ca, key): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(10)?, row.get(11)?);
    let mut revocation = Revocation {
        revocation: row.get(0)?,
        what: row.get(1)?,
        ca: row.get(2)?,
        first_serial: None,
        last_serial: None,
        key_id: row.get(5)?,
        fingerprint: row.get(6)?,
        reason: row.get(7)?,
        revoked_by: row.get(8)?,
        revoked_at: row.get(9)?,
        undone_by: row.get(12)?,
        undone_at: row.get(13)?,
    };
    let read = || -> Result<Revoked> {
        (revocation.first_serial, revocation.last_serial) = (first.transpose()?, last.transpose()?);
        let ca = ca.map(|ca| key_data(&ca)).transpose()?;
        let key = key.map(|key| key_data(&key)).transpose()?;
        let hash = revocation.fingerprint.as_deref().and_then(sha256);
        let name = revocation.what.as_str();
        let revoked =
            match (name, revocation.first_serial, revocation.last_serial, &revocation.key_id, key, hash) {
                ("serials", Some(first), Some(last), None, None, None) => {
                    Revoked::Serials { ca, first, last }
                }
                ("key_id", None, None, Some(key_id), None, None) => {
                    Revoked::KeyId { ca, key_id: key_id.clone() }
                }
                ("key", None, None, None, Some(key), Some(_)) => Revoked::Key(key),
                ("ca", None, None, None, Some(key), Some(_)) => Revoked::Ca(key),
                ("fingerprint", None, None, None, None, Some(hash)) => Revoked::Fingerprint(hash),
                _ => return Err(LedgerError::Nonsense(format!("revocation {}", revocation.revocation))),
            };
        Ok(revoked)
    };
    Ok(read().map(|revoked| (revocation, revoked)))
}

/// The hash in a fingerprint that begins with `SHA256:`.
#[must_use]
pub fn sha256(fingerprint: &str) -> Option<[u8; 32]> {
    fingerprint.parse::<Fingerprint>().ok()?.sha256()
}
