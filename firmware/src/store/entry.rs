//! The layout of objects and records in flash.
//!
//! Each has a *head* under its key: `revision u32 ‖ tag[16] ‖ sealed ‖ body`. The sealed part is `digest[16]`
//! followed, for an object, by its info (66 bytes), `length u16` and the body's tag[16]; for a record, by
//! `length u16` and the body's tag[16]; and for a deleted object, by `sequence u8` alone. The body is sealed
//! as a whole (`seal.rs`). Its first [`PIECE`] bytes are in the head, the rest in *pieces* of [`PIECE`]
//! bytes, each under its own key: small entries waste little of a sector. Revisions count entries. The pieces
//! have the revisions just below their head's, and are written before it: the head makes them count.
//!
//! The digest is the first half of the SHA-256 of the tags of all other heads that are live together with
//! this one, by ascending key. As each tag authenticates its head's key, revision and content, the newest
//! head authenticates everything that is live.

use alloc::vec::Vec;
use core::ops::Range;

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::object::ObjectInfo;

use super::seal::{Part, Place, Seal, TAG, Tag};
use super::{Name, Record};

/// Bytes of a body in one entry.
pub(super) const PIECE: usize = 512;
/// Bytes of the longest body: no message brings as many.
pub(super) const MAX_BODY: usize = 8 * PIECE;
/// Bytes of the largest value: an object's head.
pub(super) const MAX_VALUE: usize = OBJECT_HEAD + PIECE;
/// Bytes of the head of an object, less its body.
pub(super) const OBJECT_HEAD: usize = CLEAR + DIGEST + ObjectInfo::LENGTH + 2 + TAG;
/// Bytes of the head of a record, less its body.
pub(super) const RECORD_HEAD: usize = CLEAR + DIGEST + 2 + TAG;
/// Bytes of the head of a deleted object.
pub(super) const TOMBSTONE: usize = CLEAR + DIGEST + 1;
const CLEAR: usize = 4 + TAG;
const DIGEST: usize = 16;
const PIECE_KEY: u32 = 1 << 31;

pub(super) type Digest = [u8; DIGEST];

/// What is known about a head without reading flash, except the info of an object.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u32,
    pub(super) revision: u32,
    pub(super) tag: Tag,
    /// Bytes of the body.
    pub(super) length: u16,
    pub(super) kind: Kind,
}

/// The kind of thing that a head describes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A mount has found it and not opened it yet.
    Unread,
    Object,
    Deleted {
        sequence: u8,
    },
    Record,
}

/// The content of a head besides its body.
#[derive(Clone, Copy)]
pub(super) enum Content {
    Object(ObjectInfo),
    Deleted { sequence: u8 },
    Record,
}

/// A head that has been opened.
pub(super) struct Head<'v> {
    pub(super) entry: Entry,
    /// The info of an object.
    pub(super) info: Option<ObjectInfo>,
    pub(super) digest: Digest,
    pub(super) body_tag: Tag,
    /// The beginning of its sealed body.
    pub(super) start: &'v [u8],
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
        Record::SshMemory(slot) => 0x200 | u32::from(slot),
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
pub(super) const fn pieces(length: usize) -> usize {
    length.saturating_sub(PIECE).div_ceil(PIECE)
}

/// The revision of a head that need not be opened for it.
pub(super) fn revision(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

impl Content {
    fn kind(&self) -> Kind {
        match *self {
            Self::Object(_) => Kind::Object,
            Self::Deleted { sequence } => Kind::Deleted { sequence },
            Self::Record => Kind::Record,
        }
    }

    /// The info of an object.
    pub(super) fn info(&self) -> Option<ObjectInfo> {
        match *self {
            Self::Object(info) => Some(info),
            Self::Deleted { .. } | Self::Record => None,
        }
    }
}

impl Entry {
    /// What is known about a head that has yet to be opened.
    pub(super) fn unread(key: u32, revision: u32) -> Self {
        Self { key, revision, tag: Tag::default(), length: 0, kind: Kind::Unread }
    }

    /// What will be known of a head that has yet to be sealed.
    pub(super) fn unsealed(key: u32, revision: u32, length: u16, content: &Content) -> Self {
        Self { key, revision, tag: Tag::default(), length, kind: content.kind() }
    }

    /// The revisions of its pieces.
    pub(super) fn pieces(&self) -> Range<u32> {
        let count = u32::try_from(pieces(self.length.into())).unwrap_or(u32::MAX);
        self.revision.saturating_sub(count)..self.revision
    }

    /// Seals its head, which determines its tag; `start` is the beginning of its sealed body.
    pub(super) fn seal(
        &mut self,
        seal: &mut Seal,
        content: &Content,
        digest: Digest,
        body_tag: Tag,
        start: &[u8],
    ) -> Option<Vec<u8>> {
        let mut value = Vec::with_capacity(MAX_VALUE);
        value.extend_from_slice(&self.revision.to_be_bytes());
        value.extend_from_slice(&[0; TAG]);
        value.extend_from_slice(&digest);
        if let Content::Object(info) = content {
            let mut encoded = [0; ObjectInfo::LENGTH];
            info.encode(&mut Writer::new(&mut encoded)).ok()?;
            value.extend_from_slice(&encoded);
        }
        if let Content::Deleted { sequence } = content {
            value.push(*sequence);
        } else {
            value.extend_from_slice(&self.length.to_be_bytes());
            value.extend_from_slice(&body_tag);
        }
        let place = Place { part: Part::Head, key: self.key, revision: self.revision };
        self.tag = seal.seal(place, value.get_mut(CLEAR..)?)?;
        value.get_mut(4..CLEAR)?.copy_from_slice(&self.tag);
        value.extend_from_slice(start);
        Some(value)
    }

    /// Opens the head under `key`; `None` if that is not what this is.
    pub(super) fn open<'v>(seal: &mut Seal, key: u32, value: &'v [u8]) -> Option<Head<'v>> {
        let mut reader = Reader::new(value);
        let (revision, tag) = (reader.u32().ok()?, reader.array().ok()?);
        let length = match key >> 16 {
            0 => RECORD_HEAD,
            _ if value.len() == TOMBSTONE => TOMBSTONE,
            _ => OBJECT_HEAD,
        } - CLEAR;
        let mut sealed = [0; OBJECT_HEAD - CLEAR];
        let sealed = sealed.get_mut(..length)?;
        sealed.copy_from_slice(reader.take(length).ok()?);
        let start = reader.rest();
        seal.open(Place { part: Part::Head, key, revision }, sealed, &tag)?;

        let mut reader = Reader::new(sealed);
        let digest = reader.array().ok()?;
        let (content, length, body_tag) = if reader.remaining() == 1 {
            (Content::Deleted { sequence: reader.u8().ok()? }, 0, Tag::default())
        } else {
            let content = match key >> 16 {
                0 => Content::Record,
                _ => Content::Object(
                    ObjectInfo::decode(&mut reader)
                        .ok()
                        .filter(|info| object_key((info.object_type, info.id)) == key)?,
                ),
            };
            (content, reader.u16().ok()?, reader.array().ok()?)
        };
        let body = usize::from(length);
        (start.len() == body.min(PIECE) && body <= MAX_BODY).then_some(Head {
            entry: Self { key, revision, tag, length, kind: content.kind() },
            info: content.info(),
            digest,
            body_tag,
            start,
        })
    }
}
