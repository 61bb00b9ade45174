//! The object store: all of a device's persistent state, in NOR flash, atomically.
//!
//! # Specification
//!
//! *Operations.* [`Store::insert`], [`Store::replace`], [`Store::delete`], [`Store::put_record`] and
//! [`Store::reset`] change the store, each atomically: after a power cut at any moment the next
//! [`Store::mount`] finds either the state before or the state after, never one in between, and once the call
//! has returned, the state after. A change that finds no room is refused before anything is written. If the
//! flash fails during a change, every operation on the store fails until the next mount determines which of
//! the two states it is in.
//!
//! *Layout.* The first two erase sectors are the control log (`control.rs`); the others are a log-structured
//! map of the crate `sequential-storage`, in which an entry counts once its checksum is right, and later
//! entries for a key replace earlier ones (`entry.rs` has their layout). A reset notes *resetting*, erases
//! the object region, stores the default objects and notes *ready*; a mount that finds *resetting* does the
//! same again. So does a mount of flash whose object region is blank and that has no note. Flash that has no
//! note but is not blank is refused and not modified, and so is any other version, which the error names.
//! Before a sector of the object region is erased, *erasing* is noted with its number, and a mount that finds
//! this note erases the sector again: nothing in it counts any more.
//!
//! *Damage.* Each change has a revision and a digest of everything that is live after it, and once it is
//! written, its revision is noted as the floor. A mount refuses a store whose newest change is older than the
//! floor or whose digest does not match what was found: a flipped bit never brings back an earlier password
//! or a deleted key. The only exception: an entry that was being written when the power failed, before the
//! floor was noted, cannot be distinguished from a torn one if one of its bits flips; its change was never
//! acknowledged.
//!
//! *Sealing.* Every entry is encrypted and authenticated under keys derived from the platform's [`RootKey`]
//! (`seal.rs`), together with its key and its revision; and the newest entry authenticates all others that
//! are live. Without the root key it is impossible to read an object, a record or an info, to create an entry
//! or alter one, to move one to another name, or to combine entries that were not live together: a mount
//! refuses that as damage, and a body that is not its head's fails when it is read. Flash under another root
//! key is refused and not modified.
//!
//! What sealing does not do. It does not stop an attacker who can write to the flash from restoring *all* of
//! an earlier state, old passwords and deleted keys included, or from erasing it, which makes a factory-fresh
//! device: only a counter that cannot be turned back with the flash would. It does not hide how many entries
//! there are, their types, ids, lengths and order, or which of them change. Contents of deleted and replaced
//! objects stay in flash, sealed, until the log comes around to their sector; only a reset erases everything
//! at once. And its value depends on where the root key is kept: a root key in the same flash protects
//! nothing from an attacker who reads that flash.
//!
//! *Capacity.* [`MAX_OBJECTS`] objects and [`MAX_PAGES`] pages of [`PAGE_SIZE`] bytes, as YubiHSM 2 counts
//! them, or what the flash holds (`capacity.rs`): [`FULL_SECTORS`] sectors of 4 KiB hold all of them, however
//! the objects are split, and [`MIN_SECTORS`] hold some twenty keys. Room is reserved for every [`Record`] at
//! its longest, and for a longer key to replace another: records, deletions and changes of keys always find
//! room.
//!
//! *Deleted names.* The sequence numbers of the [`MAX_TOMBSTONES`] most recently deleted objects are
//! remembered (fewer on small flash: an eighth of it); a forgotten name starts again at 0. The number is for
//! clients, which can use it to notice that the object under a known name is a different one. The device
//! itself does not rely on it: a client that may delete and put objects can make any name start again, or
//! count 256 times around.
//!
//! *Memory.* All memory of a store is allocated at the mount and does not grow with what is put, deleted or
//! found in flash (`memory.rs`). Flash that holds more heads or pieces than a store ever leaves there is
//! damaged.
//!
//! *Requirements on flash.* Erased bytes read 0xff; programming clears bits and is in order within a write; a
//! word can be programmed a second time to clear more bits; an erase sector has at least 4096 bytes, a word
//! at most 16. Nothing is assumed about a sector whose erasure was interrupted.

mod capacity;
mod control;
mod entry;
mod flash;
mod index;
pub mod memory;
mod seal;

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;

use embedded_storage::nor_flash::{MultiwriteNorFlash, NorFlash};
use sequential_storage::cache::Cache;
use sequential_storage::cache::key_pointers::HeapKeyPointers;
use sequential_storage::cache::page_pointers::HeapPagePointers;
use sequential_storage::cache::page_states::HeapPageStates;
use sequential_storage::map::{MapConfig, MapStorage};
use sshsm_protocol::device_info::StorageInfo;
use sshsm_protocol::object::{ObjectInfo, Origin};
use sshsm_protocol::{Algorithm, Capabilities, Domains, Label, ObjectId, ObjectType};
use zeroize::Zeroizing;

use crate::crypto::key::Body;
use crate::platform::RootKey;
use capacity::Capacity;
use control::{Control, Note, State};
use entry::{
    Content, Digest, Entry, Kind, MAX_BODY, MAX_VALUE, PIECE, object_key, piece_key, piece_revision, pieces,
    record_key,
};
use flash::{Medium, now, sector_size};
use index::{Index, Overflow};
use seal::{Part, Place, Seal, root_key_id};

/// Objects there is room for.
pub const MAX_OBJECTS: u16 = 256;
/// Pages there is room for.
pub const MAX_PAGES: u16 = 1024;
/// Bytes a page: what object lengths are rounded up to.
pub const PAGE_SIZE: u16 = 126;
/// Maximum number of deleted objects whose sequence number is remembered.
pub const MAX_TOMBSTONES: usize = 512;
/// Sectors that the flash has at least.
pub const MIN_SECTORS: usize = 9;
/// Bytes of the largest word of the flash.
const MAX_WORD: usize = 16;
/// Sectors of 4 KiB that [`MAX_OBJECTS`] and [`MAX_PAGES`] need.
pub const FULL_SECTORS: usize = 66;

/// The type and id of an object: its name.
pub type Name = (ObjectType, ObjectId);

/// Why the flash of a device cannot be used. The flash is not modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Too small, or sectors of a size that the store cannot use.
    #[error(
        "flash of {capacity} bytes in sectors of {sector} cannot hold the store: 8 to 65536 sectors of at least 4096 bytes"
    )]
    Geometry {
        /// Bytes there are.
        capacity: usize,
        /// Bytes a sector.
        sector: usize,
    },
    /// The flash holds something that is not a store.
    #[error("the flash holds data that is not an sshsm store")]
    Unrecognized,
    /// The store was written by a version that this one does not know.
    #[error("the store has version {0}; this firmware knows version {version}", version = control::VERSION)]
    UnknownVersion(u8),
    /// The store is that of another device, or its device has lost its root key.
    #[error("the store is sealed under another root key")]
    OtherRootKey,
    /// An entry or the structure around it does not make sense.
    #[error("the store is damaged")]
    Damaged,
    /// There is less heap than the store needs, whatever it holds.
    #[error("the heap is too small for the store")]
    Memory,
    /// The flash itself reported an error.
    #[error("the flash failed")]
    Flash,
}

/// Why an operation was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An object of this name exists.
    #[error("object exists")]
    Exists,
    /// No object of this name exists.
    #[error("object not found")]
    NotFound,
    /// No record, page or flash is left; nothing was written.
    #[error("storage full")]
    Full,
    /// The flash failed, now or in an earlier change, or what it returned does not make sense.
    #[error("the flash failed")]
    Flash,
}

impl<E> From<sequential_storage::Error<E>> for StoreError {
    fn from(_: sequential_storage::Error<E>) -> Self {
        // Among them a full flash: the store counts, and never gets so far.
        Self::Flash
    }
}

impl From<StoreError> for MountError {
    fn from(_: StoreError) -> Self {
        Self::Flash
    }
}

impl From<TryReserveError> for MountError {
    fn from(_: TryReserveError) -> Self {
        Self::Memory
    }
}

impl From<Overflow> for MountError {
    fn from(_: Overflow) -> Self {
        Self::Damaged
    }
}

impl From<Overflow> for StoreError {
    fn from(_: Overflow) -> Self {
        Self::Full
    }
}

impl<E> From<sequential_storage::Error<E>> for MountError {
    fn from(error: sequential_storage::Error<E>) -> Self {
        match error {
            sequential_storage::Error::Storage { .. } => Self::Flash,
            _ => Self::Damaged,
        }
    }
}

/// Persistent state that is not an object: one small value under each name. A reset erases them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The device's options, up to 256 bytes.
    Options,
    /// One place of the audit log (slot 0 to 61), up to 34 bytes.
    LogEntry(u8),
    /// The start of the audit log and the newest entry, up to 64 bytes.
    LogState,
    /// The device's own private key, up to 64 bytes.
    DeviceKey,
    /// The key that attestation certificates are signed with, up to 1024 bytes.
    AttestationKey,
    /// The certificate of that key, up to 1280 bytes.
    AttestationCertificate,
    /// The state kept about signatures under one template (slot 0 to 7), up to 271 bytes.
    SshMemory(u8),
}

impl Record {
    /// Places in the audit log.
    pub const LOG_ENTRIES: u8 = 62;
    /// Number of templates for which state is kept.
    pub const MEMORIES: u8 = 8;
    /// The others.
    const SINGLE: [Self; 5] =
        [Self::Options, Self::LogState, Self::DeviceKey, Self::AttestationKey, Self::AttestationCertificate];
    const COUNT: usize = Self::LOG_ENTRIES as usize + Self::MEMORIES as usize + Self::SINGLE.len();

    /// Bytes that a value may have.
    #[must_use]
    pub const fn max_length(self) -> usize {
        match self {
            Self::Options => 256,
            Self::LogEntry(_) => 34,
            Self::LogState | Self::DeviceKey => 64,
            Self::AttestationKey => 1024,
            Self::AttestationCertificate => 1280,
            Self::SshMemory(_) => 271,
        }
    }
}

/// What the creator of an object determines; the store adds the sequence number.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// What the object may be used for.
    pub capabilities: Capabilities,
    /// Bytes of its content as YubiHSM 2 counts them.
    pub length: u16,
    /// The domains in which it is visible.
    pub domains: Domains,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The origin of its content.
    pub origin: Origin,
    /// Free text.
    pub label: Label,
    /// The capabilities that it may pass on.
    pub delegated_capabilities: Capabilities,
}

impl Attributes {
    fn info(&self, (object_type, id): Name, sequence: u8) -> ObjectInfo {
        ObjectInfo {
            capabilities: self.capabilities,
            id,
            length: self.length,
            domains: self.domains,
            object_type,
            algorithm: self.algorithm,
            sequence,
            origin: self.origin,
            label: self.label,
            delegated_capabilities: self.delegated_capabilities,
        }
    }
}

type ObjectCache = Cache<HeapPageStates, HeapPagePointers, HeapKeyPointers<u32>, u32>;
type Map<F> = MapStorage<u32, Medium<F>, ObjectCache>;

/// The objects of a device.
pub struct Store<F: NorFlash> {
    /// `None` only while [`Store::reset`] rebuilds it.
    map: Option<Map<F>>,
    index: Index,
    capacity: Capacity<F>,
    seal: Seal,
    /// The revision of the newest head.
    newest: u32,
    /// The revision of the next entry.
    next: u32,
    /// Whether no change has failed.
    usable: bool,
    /// Holds one entry, sealed, while it is read or written.
    buffer: Vec<u8>,
}

impl<F: MultiwriteNorFlash> Store<F> {
    /// Opens the store under the root key; blank flash becomes a store with the objects that `defaults` inserts.
    pub fn mount(
        mut flash: F,
        root_key: &RootKey,
        defaults: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<Self, MountError> {
        let capacity = flash.capacity();
        let geometry = MountError::Geometry { capacity, sector: F::ERASE_SIZE };
        let sectors = capacity.checked_div(F::ERASE_SIZE).ok_or(geometry)?;
        let word = F::WRITE_SIZE.max(F::READ_SIZE);
        if F::ERASE_SIZE < 4096
            || !(MIN_SECTORS..=1 << 16).contains(&sectors)
            || u32::try_from(capacity).is_err()
            || !MAX_WORD.is_multiple_of(word)
        {
            return Err(geometry);
        }
        let control = Control::load(&mut flash, root_key_id(root_key))?;
        let note = control.note();
        let capacity = Capacity::of(sectors - usize::from(control::SECTORS)).ok_or(geometry)?;
        let mut store = Self {
            index: Index::new(capacity.tombstones)?,
            capacity,
            map: Some(Self::map(Medium { flash, control }).ok_or(geometry)?),
            seal: Seal::new(root_key),
            newest: 0,
            next: 1,
            usable: true,
            // The map reads and writes whole words.
            buffer: alloc::vec![0; (4 + MAX_VALUE).next_multiple_of(word)],
        };
        let fresh = match note {
            Some(Note { state: State::Resetting, .. }) => true,
            Some(_) => false,
            None if store.is_blank()? => {
                // An interrupted first start may have left half a note here.
                store.with_medium(Medium::format)?;
                true
            }
            None => return Err(MountError::Unrecognized),
        };
        if fresh {
            store.reset(defaults)?;
        } else {
            if let Some(Note { state: State::Erasing(sector), .. }) = note {
                if usize::from(sector) >= sectors {
                    return Err(MountError::Damaged);
                }
                store.with_medium(|medium| medium.erase_sector(sector))?;
            }
            store.load()?;
        }
        Ok(store)
    }

    /// The flash beneath.
    pub fn flash(&mut self) -> Option<&mut F> {
        self.map.as_mut().map(|map| &mut map.flash().flash)
    }

    /// An error once a change has failed: then every operation fails until the flash is mounted again.
    pub fn usable(&self) -> Result<(), StoreError> {
        if self.usable { Ok(()) } else { Err(StoreError::Flash) }
    }

    /// Stores a new object and returns its info. The name must be free.
    pub fn insert(
        &mut self,
        name: Name,
        attributes: &Attributes,
        body: &[u8],
    ) -> Result<ObjectInfo, StoreError> {
        self.usable()?;
        let sequence = match self.index.get(object_key(name)).map(|entry| entry.kind) {
            Some(Kind::Deleted { sequence }) => sequence.wrapping_add(1),
            Some(_) => return Err(StoreError::Exists),
            None => 0,
        };
        let info = attributes.info(name, sequence);
        let usage = self.usage();
        if usage.objects >= MAX_OBJECTS
            || usage.pages.saturating_add(pages_of(info.length, body.len())) > MAX_PAGES
            || usage.bytes + Capacity::<F>::object(body.len()) > self.capacity.objects
        {
            return Err(StoreError::Full);
        }
        self.write(object_key(name), Content::Object(info), body)?;
        Ok(info)
    }

    /// Stores another content under the name of an object that exists; it counts as created again.
    pub fn replace(
        &mut self,
        name: Name,
        attributes: &Attributes,
        body: &[u8],
    ) -> Result<ObjectInfo, StoreError> {
        self.usable()?;
        let key = object_key(name);
        let (Some(old), Some(entry)) = (self.index.info(key), self.index.get(key)) else {
            return Err(StoreError::NotFound);
        };
        let bytes = Capacity::<F>::object(entry.length.into());
        let pages = pages_of(old.length, entry.length.into());
        let info = attributes.info(name, old.sequence.wrapping_add(1));
        let usage = self.usage();
        // Pieces are stored next to the old content until the new head replaces it.
        let replaced = if pieces(body.len()) == 0 { bytes } else { 0 };
        if usage.pages.saturating_sub(pages).saturating_add(pages_of(info.length, body.len())) > MAX_PAGES
            || usage.bytes - replaced + Capacity::<F>::object(body.len())
                > self.capacity.objects + Capacity::<F>::REPLACEMENT
        {
            return Err(StoreError::Full);
        }
        self.write(object_key(name), Content::Object(info), body)?;
        Ok(info)
    }

    /// Removes an object.
    pub fn delete(&mut self, name: Name) -> Result<(), StoreError> {
        self.usable()?;
        let sequence = self.info(name).ok_or(StoreError::NotFound)?.sequence;
        self.write(object_key(name), Content::Deleted { sequence }, &[])
    }

    /// Removes everything and inserts the default objects.
    pub fn reset(
        &mut self,
        defaults: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.usable()?;
        self.usable = false;
        let map = self.map.take().ok_or(StoreError::Flash)?;
        let range = map.flash_range();
        let (mut medium, _) = map.destroy();
        let erased =
            medium.note(State::Resetting, 0).and_then(|()| medium.flash.erase(range.start, range.end));
        self.map = Self::map(medium);
        erased.map_err(|_| StoreError::Flash)?;
        self.index.clear();
        (self.newest, self.next) = (0, 1);
        // For the default objects.
        self.usable = true;
        let done = defaults(self).and_then(|()| {
            let newest = self.newest;
            self.with_medium(|medium| medium.note(State::Ready, newest))
        });
        self.usable = done.is_ok();
        done
    }

    /// The info of an object.
    #[must_use]
    pub fn info(&self, name: Name) -> Option<&ObjectInfo> {
        self.usable().ok()?;
        self.index.info(object_key(name))
    }

    /// Identifies the content of an object: a number that no earlier content of any object had since the last
    /// reset. `None` if there is no such object.
    #[must_use]
    pub fn revision(&self, name: Name) -> Option<u32> {
        self.info(name)?;
        self.index.get(object_key(name)).map(|entry| entry.revision)
    }

    /// All objects, by ascending type and id.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.index.infos().iter().filter(|_| self.usable)
    }

    /// An object's content.
    pub fn body(&mut self, name: Name) -> Result<Body, StoreError> {
        self.usable()?;
        self.info(name).ok_or(StoreError::NotFound)?;
        self.read(object_key(name))
    }

    /// The value of a record; `None` if it has none.
    pub fn record(&mut self, record: Record) -> Result<Option<Body>, StoreError> {
        self.usable()?;
        match self.read(record_key(record)) {
            Err(StoreError::NotFound) => Ok(None),
            value => value.map(Some),
        }
    }

    /// Sets a record's value, atomically. A value longer than [`Record::max_length`] does not fit.
    pub fn put_record(&mut self, record: Record, value: &[u8]) -> Result<(), StoreError> {
        self.usable()?;
        let none = match record {
            Record::LogEntry(slot) => slot >= Record::LOG_ENTRIES,
            Record::SshMemory(slot) => slot >= Record::MEMORIES,
            _ => false,
        };
        if none || value.len() > record.max_length() {
            return Err(StoreError::Full);
        }
        self.write(record_key(record), Content::Record, value)
    }

    /// The storage usage. Free space is what YubiHSM 2 would have free or what the flash still holds,
    /// whichever is less: this many objects of one page, or one object of this many pages.
    #[must_use]
    pub fn storage_info(&self) -> StorageInfo {
        let usage = self.usage();
        let free = self.capacity.objects.saturating_sub(usage.bytes);
        StorageInfo {
            total_records: MAX_OBJECTS,
            free_records: MAX_OBJECTS.saturating_sub(usage.objects).min(Capacity::<F>::free_records(free)),
            total_pages: MAX_PAGES,
            free_pages: MAX_PAGES.saturating_sub(usage.pages).min(Capacity::<F>::free_pages(free)),
            page_size: PAGE_SIZE,
        }
    }

    fn usage(&self) -> Usage {
        let entries = self.index.entries().iter().filter(|entry| entry.kind == Kind::Object);
        // Both are in the order of their names.
        entries.zip(self.index.infos()).fold(Usage::default(), |mut usage, (entry, info)| {
            usage.objects = usage.objects.saturating_add(1);
            usage.pages = usage.pages.saturating_add(pages_of(info.length, entry.length.into()));
            usage.bytes += Capacity::<F>::object(entry.length.into());
            usage
        })
    }

    /// Writes the new value of a key. The flash has room for it.
    fn write(&mut self, key: u32, content: Content, body: &[u8]) -> Result<(), StoreError> {
        if body.len() > MAX_BODY || !self.index.has_room(key, content.info().is_some()) {
            return Err(StoreError::Full);
        }
        let length = u16::try_from(body.len()).map_err(|_| StoreError::Full)?;
        let count = u32::try_from(pieces(body.len())).map_err(|_| StoreError::Full)?;
        let revision =
            self.next.checked_add(count).filter(|&last| last < u32::MAX >> 1).ok_or(StoreError::Full)?;
        self.usable = false;
        let mut sealed = Zeroizing::new(body.to_vec());
        let place = Place { part: Part::Body, key, revision };
        let body_tag = self.seal.seal(place, &mut sealed).ok_or(StoreError::Flash)?;
        let (start, rest) = sealed.split_at_checked(PIECE).unwrap_or((&sealed, &[]));
        for (piece, revision) in rest.chunks(PIECE).zip(self.next..) {
            self.put(piece_key(revision), piece)?;
        }
        // The head follows: its digest covers what it makes live.
        let mut entry = Entry::unsealed(key, revision, length, &content);
        let old = self.index.insert(entry, content.info())?;
        let forgotten = self.index.forget_deleted(self.capacity.tombstones);
        let digest = self.index.digest(key);
        let head = entry.seal(&mut self.seal, &content, digest, body_tag, start).ok_or(StoreError::Flash)?;
        self.index.insert(entry, content.info())?;
        self.put(key, &head)?;
        (self.newest, self.next) = (revision, revision + 1);
        self.raise_floor()?;
        self.remove(old.into_iter().flat_map(|old| old.pieces()).map(piece_key).chain(forgotten))?;
        self.usable = true;
        Ok(())
    }

    fn read(&mut self, key: u32) -> Result<Body, StoreError> {
        let entry = *self.index.get(key).ok_or(StoreError::NotFound)?;
        let (revision, length) = (entry.revision, usize::from(entry.length));
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        let head = self.fetch(key)?;
        let head = Entry::open(&mut self.seal, key, &head).ok_or(StoreError::Flash)?;
        body.extend_from_slice(head.start);
        for revision in entry.pieces() {
            body.extend_from_slice(&self.fetch(piece_key(revision))?);
        }
        // The one that was found at the mount or written since, and no other that was sealed under the key.
        let opened = head.entry.tag == entry.tag && body.len() == length;
        let place = Place { part: Part::Body, key, revision };
        let opened = opened.then(|| self.seal.open(place, &mut body, &head.body_tag)).flatten();
        opened.map(|()| body).ok_or(StoreError::Flash)
    }

    /// Lends the map, its buffer and the seal.
    fn with_map<T>(
        &mut self,
        operation: impl FnOnce(&mut Map<F>, &mut [u8], &mut Seal) -> T,
    ) -> Result<T, StoreError> {
        let map = self.map.as_mut().ok_or(StoreError::Flash)?;
        Ok(operation(map, &mut self.buffer, &mut self.seal))
    }

    fn with_medium(
        &mut self,
        operation: impl FnOnce(&mut Medium<F>) -> Result<(), F::Error>,
    ) -> Result<(), StoreError> {
        let map = self.map.as_mut().ok_or(StoreError::Flash)?;
        operation(map.flash()).map_err(|_| StoreError::Flash)
    }

    fn put(&mut self, key: u32, value: &[u8]) -> Result<(), StoreError> {
        Ok(self.with_map(|map, buffer, _| now(map.store_item(buffer, &key, &value)))??)
    }

    /// The value of an entry that there is.
    fn fetch(&mut self, key: u32) -> Result<Vec<u8>, StoreError> {
        let value = self.with_map(|map, buffer, _| {
            now(map.fetch_item::<&[u8]>(buffer, &key)).map(|value| value.map(<[u8]>::to_vec))
        })??;
        value.ok_or(StoreError::Flash)
    }

    /// Removes entries that nothing live needs; a mount removes those left by a power cut.
    fn remove(&mut self, keys: impl IntoIterator<Item = u32>) -> Result<(), StoreError> {
        for key in keys {
            self.with_map(|map, buffer, _| now(map.remove_item(buffer, &key)))??;
        }
        Ok(())
    }

    /// Notes that no older state than this one may be found again.
    fn raise_floor(&mut self) -> Result<(), StoreError> {
        let floor = self.newest;
        self.with_medium(|medium| match medium.control.note() {
            Some(Note { state: State::Ready, floor: noted }) if noted != floor => {
                medium.note(State::Ready, floor)
            }
            // A reset notes it when it is done.
            _ => Ok(()),
        })
    }

    /// Reads what is live and checks that it is complete.
    fn load(&mut self) -> Result<(), MountError> {
        let Self { map, buffer, seal, index, .. } = self;
        let map = map.as_mut().ok_or(MountError::Flash)?;
        let Found { digest, last, pieces } = Found::read(map, buffer, seal, index)?;
        let forgotten = self.index.forget_deleted(self.capacity.tombstones);
        let note = self.map.as_mut().and_then(|map| map.flash().control.note());
        let floor = note.map_or(0, |note| note.floor);
        let newest = self.index.entries().iter().max_by_key(|entry| (entry.revision, entry.key));
        let (newest, key) = newest.map_or((0, 0), |entry| (entry.revision, entry.key));
        if newest < floor || newest > 0 && digest != self.index.digest(key) {
            return Err(MountError::Damaged);
        }
        let mut garbage = pieces;
        for piece in self.index.entries().iter().flat_map(Entry::pieces) {
            let at = garbage.binary_search(&piece).map_err(|_| MountError::Damaged)?;
            garbage.remove(at);
        }
        (self.newest, self.next) = (newest, last.saturating_add(1));
        self.remove(garbage.into_iter().map(piece_key).chain(forgotten))?;
        Ok(self.raise_floor()?)
    }

    fn map(medium: Medium<F>) -> Option<Map<F>> {
        let sectors = u32::try_from(medium.flash.capacity()).ok()? / sector_size::<F>();
        let range = u32::from(control::SECTORS) * sector_size::<F>()..sectors * sector_size::<F>();
        let pages = usize::try_from(sectors).ok()? - usize::from(control::SECTORS);
        let cache = Cache::new(
            HeapPageStates::new(pages),
            HeapPagePointers::new(pages),
            HeapKeyPointers::new(memory::CACHED_KEYS),
        );
        Some(MapStorage::new(medium, MapConfig::try_new(range).ok()?, cache))
    }

    /// Whether the object region has never been written.
    fn is_blank(&mut self) -> Result<bool, MountError> {
        self.with_map(|map, buffer, _| {
            let Range { start, end } = map.flash_range();
            // A sector is a multiple of this, and this of a word.
            let block = buffer.get_mut(..512).ok_or(MountError::Flash)?;
            for offset in (start..end).step_by(512) {
                map.flash().flash.read(offset, block).map_err(|_| MountError::Flash)?;
                if block.iter().any(|&byte| byte != 0xff) {
                    return Ok(false);
                }
            }
            Ok(true)
        })?
    }
}

/// What objects take.
#[derive(Default)]
struct Usage {
    objects: u16,
    pages: u16,
    /// Of flash.
    bytes: usize,
}

/// What a mount finds in flash besides the newest head of each key.
struct Found {
    /// The newest entry's digest of the others.
    digest: Digest,
    /// The highest revision of any entry.
    last: u32,
    /// The revisions of the pieces, ascending.
    pieces: Vec<u32>,
}

impl Found {
    fn read<F: NorFlash>(
        map: &mut Map<F>,
        buffer: &mut [u8],
        seal: &mut Seal,
        index: &mut Index,
    ) -> Result<Self, MountError> {
        let mut found = Self { digest: Digest::default(), last: 0, pieces: Vec::new() };
        found.pieces.try_reserve_exact(memory::PIECES)?;
        // Most entries have been replaced: only live entries are opened, once it is known which they are.
        // Unlike the other methods of the map, this repairs nothing, and need not: interrupted erasures have
        // been finished, and an interrupted move left the originals. Repairing damage would erase it.
        let mut entries = now(map.fetch_all_items(buffer))?;
        while let Some((key, value)) = now(entries.next::<&[u8]>(buffer))? {
            if let Some(revision) = piece_revision(key) {
                found.last = found.last.max(revision);
                found.notice_piece(revision)?;
                continue;
            }
            let revision = entry::revision(value).ok_or(MountError::Damaged)?;
            found.last = found.last.max(revision);
            index.notice(key, revision)?;
        }
        let newest = index.entries().iter().map(|entry| entry.revision).max();
        let mut entries = now(map.fetch_all_items(buffer))?;
        while let Some((key, value)) = now(entries.next::<&[u8]>(buffer))? {
            let revision = entry::revision(value);
            if revision.is_none() || index.get(key).map(|entry| entry.revision) != revision {
                continue;
            }
            let head = Entry::open(seal, key, value).ok_or(MountError::Damaged)?;
            if revision == newest {
                found.digest = head.digest;
            }
            index.insert(head.entry, head.info)?;
        }
        if index.entries().iter().any(|entry| entry.kind == Kind::Unread) {
            return Err(MountError::Damaged);
        }
        Ok(found)
    }

    fn notice_piece(&mut self, revision: u32) -> Result<(), Overflow> {
        if let Err(at) = self.pieces.binary_search(&revision) {
            if self.pieces.len() >= memory::PIECES {
                return Err(Overflow);
            }
            self.pieces.insert(at, revision);
        }
        Ok(())
    }
}

/// Pages that an object takes; clients are never shown fewer than are stored.
fn pages_of(counted: u16, stored: usize) -> u16 {
    let stored = u16::try_from(stored).unwrap_or(u16::MAX);
    counted.max(stored).div_ceil(PAGE_SIZE).max(1)
}
