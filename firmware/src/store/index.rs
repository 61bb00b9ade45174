//! What a store knows about its flash without reading it: every head, and the infos of objects.
//!
//! It allocates its memory at the mount and never more, however much is put and deleted, and whatever the
//! flash holds (`memory.rs`).

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};
use sshsm_protocol::object::ObjectInfo;

use super::entry::{Digest, Entry, Kind, object_key};
use super::{MAX_OBJECTS, Record};

/// Heads and infos, each by ascending key.
pub(super) struct Index {
    entries: Vec<Entry>,
    infos: Vec<ObjectInfo>,
    limit: usize,
}

/// There are more heads than a store has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl Index {
    /// Heads of a store that remembers so many deleted objects: one is deleted before the oldest is forgotten.
    pub(super) const fn limit(tombstones: usize) -> usize {
        Record::COUNT + MAX_OBJECTS as usize + tombstones
    }

    /// Allocates the memory for everything that a store that remembers this many deleted objects can hold.
    pub(super) fn new(tombstones: usize) -> Result<Self, TryReserveError> {
        let (mut entries, mut infos) = (Vec::new(), Vec::new());
        let limit = Self::limit(tombstones);
        entries.try_reserve_exact(limit)?;
        infos.try_reserve_exact(MAX_OBJECTS.into())?;
        Ok(Self { entries, infos, limit })
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.infos.clear();
    }

    /// All heads, by ascending key.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn get(&self, key: u32) -> Option<&Entry> {
        self.entries.get(self.find(key).ok()?)
    }

    /// All objects, by ascending type and id.
    pub(super) fn infos(&self) -> &[ObjectInfo] {
        &self.infos
    }

    pub(super) fn info(&self, key: u32) -> Option<&ObjectInfo> {
        self.infos.get(self.find_info(key).ok()?)
    }

    /// Whether a head under this key, that of an object or not, finds room.
    pub(super) fn has_room(&self, key: u32, object: bool) -> bool {
        (self.find(key).is_ok() || self.entries.len() < self.limit)
            && (!object || self.find_info(key).is_ok() || self.infos.len() < MAX_OBJECTS.into())
    }

    /// Replaces the head under the same key, and returns the old one. An object's head comes with its info.
    pub(super) fn insert(
        &mut self,
        entry: Entry,
        info: Option<ObjectInfo>,
    ) -> Result<Option<Entry>, Overflow> {
        if !self.has_room(entry.key, info.is_some()) {
            return Err(Overflow);
        }
        match (self.find_info(entry.key), info) {
            (Ok(at), None) => drop(self.infos.remove(at)),
            (Err(at), Some(info)) => self.infos.insert(at, info),
            (Ok(at), Some(info)) => {
                if let Some(place) = self.infos.get_mut(at) {
                    *place = info;
                }
            }
            (Err(_), None) => {}
        }
        Ok(match self.find(entry.key) {
            Ok(at) => self.entries.get_mut(at).map(|place| core::mem::replace(place, entry)),
            Err(at) => {
                self.entries.insert(at, entry);
                None
            }
        })
    }

    /// Notes the newest revision of a head that a mount has yet to open.
    pub(super) fn notice(&mut self, key: u32, revision: u32) -> Result<(), Overflow> {
        match self.get(key) {
            Some(entry) if entry.revision >= revision => Ok(()),
            _ => self.insert(Entry::unread(key, revision), None).map(drop),
        }
    }

    /// Forgets the object that was deleted first if more than `limit` are remembered; returns its key.
    pub(super) fn forget_deleted(&mut self, limit: usize) -> Option<u32> {
        let deleted = || self.entries.iter().filter(|entry| matches!(entry.kind, Kind::Deleted { .. }));
        let key = deleted().min_by_key(|entry| entry.revision).filter(|_| deleted().count() > limit)?.key;
        if let Ok(at) = self.find(key) {
            self.entries.remove(at);
        }
        Some(key)
    }

    /// The digest of everything live besides the head under `key`.
    pub(super) fn digest(&self, key: u32) -> Digest {
        let mut hash = Sha256::new();
        for entry in self.entries.iter().filter(|entry| entry.key != key) {
            hash.update(entry.tag);
        }
        let digest = <[u8; 32]>::from(hash.finalize());
        *digest.first_chunk().unwrap_or(&[0; size_of::<Digest>()])
    }

    fn find(&self, key: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }

    fn find_info(&self, key: u32) -> Result<usize, usize> {
        self.infos.binary_search_by_key(&key, |info| object_key((info.object_type, info.id)))
    }
}
