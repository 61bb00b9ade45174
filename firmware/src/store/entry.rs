//! How objects and records lie in flash.
//!
//! Each has a *head* under its key: `revision u32 ‖ digest[16]`, then for an object its info (66 bytes), for objects and
//! records `length u16` and the first [`PIECE`] bytes of the body; for a deleted object `sequence u8` alone. The rest
//! of the body lies in *pieces* of [`PIECE`] bytes, each under a key of its own: small entries waste little of a sector.
//! Revisions count entries. The pieces have the revisions just below their head's, and are written before it: the head
//! makes them count.
//!
//! The digest is the first half of the SHA-256 of the key and revision of every head that is live with this one, in
//! ascending order.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest as _, Sha256};
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::ObjectInfo;
use zeroize::Zeroizing;

use super::{Name, Record};

/// Bytes of a body in one entry.
pub(super) const PIECE: usize = 512;
/// Bytes of the largest value: an object's head.
pub(super) const MAX_VALUE: usize = 4 + DIGEST + ObjectInfo::LENGTH + 2 + PIECE;
const DIGEST: usize = 16;
const PIECE_KEY: u32 = 1 << 31;

pub(super) type Digest = [u8; DIGEST];
pub(super) type Index = BTreeMap<u32, Entry>;

/// What is known of a head without reading flash.
pub(super) struct Entry {
    pub(super) revision: u32,
    /// Bytes of the body.
    pub(super) length: u16,
    pub(super) content: Content,
}

pub(super) enum Content {
    Object(ObjectInfo),
    Deleted { sequence: u8 },
    Record,
}

/// The key of an object's head.
pub(super) fn object_key((object_type, id): Name) -> u32 {
    u32::from(object_type.code()) << 16 | u32::from(id.get())
}

/// The key of a record's head: type 0, which no object has, and a number.
pub(super) fn record_key(record: Record) -> u32 {
    match record {
        Record::Options => 1,
        Record::LogState => 2,
        Record::DeviceKey => 3,
        Record::AttestationKey => 4,
        Record::AttestationCertificate => 5,
        Record::LogEntry(slot) => 0x100 | u32::from(slot),
    }
}

/// The key of the piece with this revision.
pub(super) fn piece_key(revision: u32) -> u32 {
    PIECE_KEY | revision
}

/// The revision of the piece with this key, if it is one of a piece.
pub(super) fn piece_revision(key: u32) -> Option<u32> {
    (key >= PIECE_KEY).then_some(key & !PIECE_KEY)
}

/// Pieces of a body.
pub(super) fn pieces(length: usize) -> usize {
    length.saturating_sub(PIECE).div_ceil(PIECE)
}

/// The digest of what is live.
pub(super) fn digest(index: &Index) -> Digest {
    let mut hash = Sha256::new();
    for (key, entry) in index {
        hash.update(key.to_be_bytes());
        hash.update(entry.revision.to_be_bytes());
    }
    let digest = <[u8; 32]>::from(hash.finalize());
    *digest.first_chunk().unwrap_or(&[0; DIGEST])
}

impl Entry {
    /// The object's info, if it is one.
    pub(super) fn object(&self) -> Option<&ObjectInfo> {
        match &self.content {
            Content::Object(info) => Some(info),
            Content::Deleted { .. } | Content::Record => None,
        }
    }

    /// The revisions of its pieces.
    pub(super) fn pieces(&self) -> Range<u32> {
        let count = u32::try_from(pieces(self.length.into())).unwrap_or(u32::MAX);
        self.revision.saturating_sub(count)..self.revision
    }

    /// The value of its head; `start` is the beginning of its body.
    pub(super) fn encode(&self, digest: Digest, start: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut value = Zeroizing::new(Vec::with_capacity(MAX_VALUE));
        value.extend_from_slice(&self.revision.to_be_bytes());
        value.extend_from_slice(&digest);
        match &self.content {
            Content::Deleted { sequence } => value.push(*sequence),
            Content::Object(info) => {
                let mut encoded = [0; ObjectInfo::LENGTH];
                // It has exactly this length.
                let _ = info.encode(&mut Writer::new(&mut encoded));
                value.extend_from_slice(&encoded);
                value.extend_from_slice(&self.length.to_be_bytes());
            }
            Content::Record => value.extend_from_slice(&self.length.to_be_bytes()),
        }
        value.extend_from_slice(start);
        value
    }

    /// The head under `key`, its digest and the beginning of its body; `None` if that is not what this is.
    pub(super) fn decode(key: u32, value: &[u8]) -> Option<(Self, Digest, &[u8])> {
        let mut reader = Reader::new(value);
        let (revision, digest) = (reader.u32().ok()?, reader.array().ok()?);
        let (content, length) = if key >> 16 == 0 {
            (Content::Record, reader.u16().ok()?)
        } else if reader.remaining() == 1 {
            (Content::Deleted { sequence: reader.u8().ok()? }, 0)
        } else {
            let info = ObjectInfo::decode(&mut reader).ok()?;
            if object_key((info.object_type, info.id)) != key {
                return None;
            }
            (Content::Object(info), reader.u16().ok()?)
        };
        let start = reader.rest();
        (start.len() == usize::from(length).min(PIECE)).then_some((
            Self { revision, length, content },
            digest,
            start,
        ))
    }
}
