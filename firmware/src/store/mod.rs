//! The object store: everything a device remembers, in NOR flash, atomically.
//!
//! # Specification
//!
//! *Operations.* [`Store::insert`], [`Store::replace`], [`Store::delete`], [`Store::put_record`] and [`Store::reset`]
//! change the store, each atomically: after a power cut at any moment the next [`Store::mount`] finds the state before or the state
//! after, never one between, and once the call has returned, the state after.
//!
//! *Layout.* The first two erase sectors are the control region; the others hold objects. Both are log-structured
//! maps of the crate `sequential-storage`: an entry is valid once its checksum is written. The control region has
//! one entry, `version u8 ‖ state u8`; an object's entry is keyed by `type << 16 | id` and holds the 66 bytes of its
//! object info and its body, or, for a deleted object, its last sequence number. A reset writes the state
//! *resetting*, erases the object region, stores the default objects and writes the state *ready*; a mount that
//! finds *resetting* does the same again. So does a mount of flash whose object region is blank and that has no control entry.
//! Anything else without a control entry, and any other version, is refused and left as it is.
//!
//! *Capacity.* [`MAX_OBJECTS`] objects and [`MAX_PAGES`] pages of [`PAGE_SIZE`] bytes, as YubiHSM 2 counts them;
//! [`MIN_SECTORS`] sectors of 4 KiB hold that however the objects are cut. The sequence numbers of the last
//! [`MAX_TOMBSTONES`] deleted objects are remembered; a name forgotten after that starts again at 0.
//!
//! *What flash must promise.* Erased bytes read 0xff; programming clears bits and is in order within a write; a
//! word can be programmed a second time to clear more bits; an erase sector has at least 4096 bytes.

mod flash;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use embedded_storage::nor_flash::{MultiwriteNorFlash, NorFlash};
use sequential_storage::cache::key_pointers::HeapKeyPointers;
use sequential_storage::cache::page_pointers::HeapPagePointers;
use sequential_storage::cache::page_states::HeapPageStates;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};
use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::device_info::StorageInfo;
use sshsm_protocol::object::{ObjectInfo, Origin};
use sshsm_protocol::{Algorithm, Capabilities, Domains, Label, ObjectId, ObjectType};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::key::Body;
use flash::{Blocking, now};

/// Objects there is room for.
pub const MAX_OBJECTS: u16 = 256;
/// Pages there is room for.
pub const MAX_PAGES: u16 = 1024;
/// Bytes a page: what object lengths are rounded up to.
pub const PAGE_SIZE: u16 = 126;
/// Deleted objects whose sequence number is remembered.
pub const MAX_TOMBSTONES: usize = 512;
/// Sectors of 4 KiB that the flash has at least.
pub const MIN_SECTORS: usize = 2 + CONTROL_SECTORS as usize;

const CONTROL_SECTORS: u32 = 2;
const CONTROL_KEY: u32 = 0;
const VERSION: u8 = 1;
/// Key, object info and the largest body: a whole message less the header of a put command.
const MAX_ENTRY: usize = 4 + 1 + ObjectInfo::LENGTH + 3116;

/// The type and id of an object: its name.
pub type Name = (ObjectType, ObjectId);

/// Why the flash of a device cannot be used. The flash is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Too small, or sectors of a size that the store cannot use.
    #[error(
        "flash of {capacity} bytes in sectors of {sector} cannot hold the store: at least 4 sectors of at least 4096 bytes"
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
    #[error("the store has version {0}; this firmware knows version 1")]
    UnknownVersion(u8),
    /// An entry or the structure around it does not make sense.
    #[error("the store is damaged")]
    Damaged,
    /// The flash itself reported an error.
    #[error("the flash failed")]
    Flash,
}

/// Why an operation was not carried out; the store is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An object of this name exists.
    #[error("object exists")]
    Exists,
    /// No object of this name exists.
    #[error("object not found")]
    NotFound,
    /// No record, page or flash is left.
    #[error("storage full")]
    Full,
    /// The flash failed, or what it returned does not make sense.
    #[error("the flash failed")]
    Flash,
}

impl<E> From<sequential_storage::Error<E>> for StoreError {
    fn from(error: sequential_storage::Error<E>) -> Self {
        match error {
            sequential_storage::Error::FullStorage | sequential_storage::Error::ItemTooBig => Self::Full,
            _ => Self::Flash,
        }
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

/// What a device remembers that is not an object: one small value under each name. A reset erases them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The device's options, up to 256 bytes.
    Options,
    /// One place of the audit log (slot 0 to 61), up to 32 bytes.
    LogEntry(u8),
    /// Where the audit log begins and what was logged last, up to 64 bytes.
    LogState,
    /// The device's own private key, up to 64 bytes.
    DeviceKey,
    /// The key that attestation certificates are signed with, up to 1024 bytes.
    AttestationKey,
    /// The certificate of that key, up to 1280 bytes.
    AttestationCertificate,
}

impl Record {
    /// Places in the audit log.
    pub const LOG_ENTRIES: u8 = 62;

    /// Bytes that a value may have.
    #[must_use]
    pub const fn max_length(self) -> usize {
        match self {
            Self::Options => 256,
            Self::LogEntry(_) => 32,
            Self::LogState | Self::DeviceKey => 64,
            Self::AttestationKey => 1024,
            Self::AttestationCertificate => 1280,
        }
    }

    /// Type 0, which no object has, and a number of its own.
    fn key(self) -> u32 {
        match self {
            Self::Options => 1,
            Self::LogState => 2,
            Self::DeviceKey => 3,
            Self::AttestationKey => 4,
            Self::AttestationCertificate => 5,
            Self::LogEntry(slot) => 0x100 | u32::from(slot),
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
    /// Where it is visible.
    pub domains: Domains,
    /// What it is.
    pub algorithm: Algorithm,
    /// Where its content came from.
    pub origin: Origin,
    /// Free text.
    pub label: Label,
    /// What it may pass on.
    pub delegated_capabilities: Capabilities,
}

/// What is known of a name without reading flash.
enum Entry {
    Live(ObjectInfo),
    Deleted { sequence: u8 },
    Record,
}

type ObjectCache = Cache<HeapPageStates, HeapPagePointers, HeapKeyPointers<u32>, u32>;
type ControlMap<'f, F> = MapStorage<u32, &'f mut Blocking<F>, Cache<Uncached, Uncached, Uncached, u32>>;
type ObjectMap<F> = MapStorage<u32, Blocking<F>, ObjectCache>;

/// The objects of a device.
pub struct Store<F: NorFlash> {
    /// `None` only while [`Store::reset`] rebuilds it.
    map: Option<ObjectMap<F>>,
    index: BTreeMap<u32, Entry>,
    /// Holds one entry while it is read or written; cleared after each use.
    buffer: Zeroizing<Vec<u8>>,
}

fn key((object_type, id): Name) -> u32 {
    u32::from(object_type.code()) << 16 | u32::from(id.get())
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Ready = 1,
    Resetting = 2,
}

impl<F: MultiwriteNorFlash> Store<F> {
    /// Opens the store; blank flash becomes a store with the objects that `defaults` inserts.
    pub fn mount(
        flash: F,
        defaults: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<Self, MountError> {
        let capacity = flash.capacity();
        let geometry = MountError::Geometry { capacity, sector: F::ERASE_SIZE };
        let usable = capacity - capacity.checked_rem(F::ERASE_SIZE).ok_or(geometry)?;
        if F::ERASE_SIZE < 4096 || usable / F::ERASE_SIZE < MIN_SECTORS || u32::try_from(usable).is_err() {
            return Err(geometry);
        }
        let mut store = Self {
            map: Some(Self::object_map(Blocking(flash)).ok_or(geometry)?),
            index: BTreeMap::new(),
            buffer: Zeroizing::new(alloc::vec![0; F::ERASE_SIZE.max(MAX_ENTRY)]),
        };
        match store.control()? {
            Some(State::Ready) => store.load()?,
            Some(State::Resetting) => store.reset(defaults).map_err(|_| MountError::Flash)?,
            None if store.is_blank()? => {
                // A first start that was cut off may have left half an entry here.
                store.erase_control()?;
                store.reset(defaults).map_err(|_| MountError::Flash)?;
            }
            None => return Err(MountError::Unrecognized),
        }
        Ok(store)
    }

    /// The flash beneath.
    pub fn flash(&mut self) -> Option<&mut F> {
        self.map.as_mut().map(|map| &mut map.flash().0)
    }

    /// Stores a new object and returns its info. The name must be free.
    pub fn insert(
        &mut self,
        name: Name,
        attributes: &Attributes,
        body: &[u8],
    ) -> Result<ObjectInfo, StoreError> {
        let sequence = match self.index.get(&key(name)) {
            Some(Entry::Live(_)) => return Err(StoreError::Exists),
            Some(Entry::Deleted { sequence }) => sequence.wrapping_add(1),
            Some(Entry::Record) | None => 0,
        };
        self.write(name, attributes, sequence, body)
    }

    /// Stores another content under the name of an object that exists; it counts as created again.
    pub fn replace(
        &mut self,
        name: Name,
        attributes: &Attributes,
        body: &[u8],
    ) -> Result<ObjectInfo, StoreError> {
        let sequence = self.info(name).ok_or(StoreError::NotFound)?.sequence.wrapping_add(1);
        self.write(name, attributes, sequence, body)
    }

    /// Removes an object.
    pub fn delete(&mut self, name: Name) -> Result<(), StoreError> {
        let sequence = self.info(name).ok_or(StoreError::NotFound)?.sequence;
        self.forget_a_tombstone()?;
        self.put(key(name), &[sequence])?;
        self.index.insert(key(name), Entry::Deleted { sequence });
        Ok(())
    }

    /// Removes everything and inserts the default objects.
    pub fn reset(
        &mut self,
        defaults: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.set_control(State::Resetting)?;
        let map = self.map.take().ok_or(StoreError::Flash)?;
        let range = map.flash_range();
        let (mut flash, _) = map.destroy();
        let erased = flash.0.erase(range.start, range.end);
        self.map = Self::object_map(flash);
        self.index.clear();
        erased.map_err(|_| StoreError::Flash)?;
        defaults(self)?;
        self.set_control(State::Ready)
    }

    /// What is known of an object.
    #[must_use]
    pub fn info(&self, name: Name) -> Option<&ObjectInfo> {
        match self.index.get(&key(name)) {
            Some(Entry::Live(info)) => Some(info),
            _ => None,
        }
    }

    /// All objects, by ascending type and id.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.index.values().filter_map(|entry| match entry {
            Entry::Live(info) => Some(info),
            Entry::Deleted { .. } | Entry::Record => None,
        })
    }

    /// An object's content.
    pub fn body(&mut self, name: Name) -> Result<Body, StoreError> {
        self.info(name).ok_or(StoreError::NotFound)?;
        let map = self.map.as_mut().ok_or(StoreError::Flash)?;
        let value = now(map.fetch_item::<&[u8]>(&mut self.buffer, &key(name)))?.ok_or(StoreError::Flash)?;
        let body = value.get(ObjectInfo::LENGTH..).map(|body| Zeroizing::new(body.to_vec()));
        self.buffer.as_mut_slice().zeroize();
        body.ok_or(StoreError::Flash)
    }

    /// The value of a record; `None` if it has none.
    pub fn record(&mut self, record: Record) -> Result<Option<Body>, StoreError> {
        let map = self.map.as_mut().ok_or(StoreError::Flash)?;
        let value = now(map.fetch_item::<&[u8]>(&mut self.buffer, &record.key()))?
            .map(|value| Zeroizing::new(value.to_vec()));
        self.buffer.as_mut_slice().zeroize();
        Ok(value)
    }

    /// Gives a record a value, atomically. Longer ones than [`Record::max_length`] find no room.
    pub fn put_record(&mut self, record: Record, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > record.max_length() || matches!(record, Record::LogEntry(Record::LOG_ENTRIES..)) {
            return Err(StoreError::Full);
        }
        self.put(record.key(), value)?;
        self.index.insert(record.key(), Entry::Record);
        Ok(())
    }

    /// How full the store is.
    #[must_use]
    pub fn storage_info(&self) -> StorageInfo {
        let objects = u16::try_from(self.iter().count()).unwrap_or(MAX_OBJECTS);
        let pages = self.iter().map(|info| pages(info.length)).fold(0, u16::saturating_add);
        StorageInfo {
            total_records: MAX_OBJECTS,
            free_records: MAX_OBJECTS.saturating_sub(objects),
            total_pages: MAX_PAGES,
            free_pages: MAX_PAGES.saturating_sub(pages),
            page_size: PAGE_SIZE,
        }
    }

    fn write(
        &mut self,
        name: Name,
        attributes: &Attributes,
        sequence: u8,
        body: &[u8],
    ) -> Result<ObjectInfo, StoreError> {
        let storage = self.storage_info();
        let replaced = self.info(name).map(|info| pages(info.length));
        if storage.free_records == 0 && replaced.is_none()
            || storage.free_pages.saturating_add(replaced.unwrap_or(0)) < pages(attributes.length)
        {
            return Err(StoreError::Full);
        }
        let (object_type, id) = name;
        let info = ObjectInfo {
            capabilities: attributes.capabilities,
            id,
            length: attributes.length,
            domains: attributes.domains,
            object_type,
            algorithm: attributes.algorithm,
            sequence,
            origin: attributes.origin,
            label: attributes.label,
            delegated_capabilities: attributes.delegated_capabilities,
        };
        let mut value = Zeroizing::new(alloc::vec![0; ObjectInfo::LENGTH + body.len()]);
        let mut writer = Writer::new(&mut value);
        info.encode(&mut writer).and_then(|()| writer.bytes(body)).map_err(|_| StoreError::Full)?;
        self.put(key(name), &value)?;
        self.index.insert(key(name), Entry::Live(info));
        Ok(info)
    }

    fn put(&mut self, key: u32, value: &[u8]) -> Result<(), StoreError> {
        let map = self.map.as_mut().ok_or(StoreError::Flash)?;
        let stored = now(map.store_item(&mut self.buffer, &key, &value));
        self.buffer.as_mut_slice().zeroize();
        Ok(stored?)
    }

    /// Makes room for one more deleted name.
    fn forget_a_tombstone(&mut self) -> Result<(), StoreError> {
        let mut tombstones = self.index.iter().filter(|(_, entry)| matches!(entry, Entry::Deleted { .. }));
        let (Some((&oldest, _)), true) = (tombstones.next(), tombstones.count() + 1 >= MAX_TOMBSTONES) else {
            return Ok(());
        };
        let map = self.map.as_mut().ok_or(StoreError::Flash)?;
        now(map.remove_item(&mut self.buffer, &oldest))?;
        self.index.remove(&oldest);
        Ok(())
    }

    fn load(&mut self) -> Result<(), MountError> {
        let map = self.map.as_mut().ok_or(MountError::Flash)?;
        let mut entries = now(map.fetch_all_items(&mut self.buffer))?;
        while let Some((key, value)) = now(entries.next::<&[u8]>(&mut self.buffer))? {
            let entry = match value {
                _ if key >> 16 == 0 => Entry::Record,
                [sequence] => Entry::Deleted { sequence: *sequence },
                value => {
                    let info =
                        ObjectInfo::decode(&mut Reader::new(value)).map_err(|_| MountError::Damaged)?;
                    if self::key((info.object_type, info.id)) != key {
                        return Err(MountError::Damaged);
                    }
                    Entry::Live(info)
                }
            };
            // Later entries of a key replace earlier ones.
            self.index.insert(key, entry);
        }
        self.buffer.as_mut_slice().zeroize();
        Ok(())
    }

    fn object_map(flash: Blocking<F>) -> Option<ObjectMap<F>> {
        let sector = u32::try_from(F::ERASE_SIZE).ok()?;
        let sectors = u32::try_from(flash.0.capacity()).ok()? / sector;
        let range = CONTROL_SECTORS * sector..sectors * sector;
        let pages = usize::try_from(sectors.checked_sub(CONTROL_SECTORS)?).ok()?;
        let cache = Cache::new(
            HeapPageStates::new(pages),
            HeapPagePointers::new(pages),
            HeapKeyPointers::new(usize::from(MAX_OBJECTS)),
        );
        Some(MapStorage::new(flash, MapConfig::try_new(range).ok()?, cache))
    }

    /// Runs `operation` on the control region.
    fn with_control<T>(
        &mut self,
        operation: impl FnOnce(
            &mut ControlMap<'_, F>,
            &mut [u8],
        ) -> Result<T, sequential_storage::Error<F::Error>>,
    ) -> Result<T, sequential_storage::Error<F::Error>> {
        let map = self.map.as_mut().ok_or(sequential_storage::Error::FullStorage)?;
        let sector = u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
        let config = MapConfig::try_new(0..CONTROL_SECTORS * sector)
            .map_err(|_| sequential_storage::Error::FullStorage)?;
        let mut control = MapStorage::new(map.flash(), config, Cache::new_uncached());
        operation(&mut control, &mut self.buffer)
    }

    fn control(&mut self) -> Result<Option<State>, MountError> {
        let value =
            self.with_control(|control, buffer| now(control.fetch_item::<[u8; 2]>(buffer, &CONTROL_KEY)));
        match value {
            Ok(None) => Ok(None),
            Ok(Some([VERSION, 1])) => Ok(Some(State::Ready)),
            Ok(Some([VERSION, 2])) => Ok(Some(State::Resetting)),
            Ok(Some([VERSION, _])) => Err(MountError::Damaged),
            Ok(Some([version, _])) => Err(MountError::UnknownVersion(version)),
            Err(sequential_storage::Error::Storage { .. }) => Err(MountError::Flash),
            Err(_) => Ok(None),
        }
    }

    fn erase_control(&mut self) -> Result<(), MountError> {
        Ok(self.with_control(|control, _| now(control.erase_all()))?)
    }

    fn set_control(&mut self, state: State) -> Result<(), StoreError> {
        Ok(self.with_control(|control, buffer| {
            now(control.store_item(buffer, &CONTROL_KEY, &[VERSION, state as u8]))
        })?)
    }

    /// Whether the object region has never been written.
    fn is_blank(&mut self) -> Result<bool, MountError> {
        let map = self.map.as_mut().ok_or(MountError::Flash)?;
        let range = map.flash_range();
        let mut offset = range.start;
        while offset < range.end {
            let sector = self.buffer.get_mut(..F::ERASE_SIZE).ok_or(MountError::Flash)?;
            map.flash().0.read(offset, sector).map_err(|_| MountError::Flash)?;
            if sector.iter().any(|&byte| byte != 0xff) {
                return Ok(false);
            }
            offset += u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
        }
        Ok(true)
    }
}

fn pages(length: u16) -> u16 {
    length.div_ceil(PAGE_SIZE).max(1)
}
