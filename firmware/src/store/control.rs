//! The control log: the state of the store, so that a mount knows which sectors are in use.
//!
//! Two sectors take turns. A note has 32 bytes, `version u8 ‖ state u8 ‖ sector u16 ‖ floor u32 ‖ number u32
//! ‖ root key id[16] ‖ check[4]`, where check is the beginning of the SHA-256 of the rest; the valid note
//! with the highest number counts. The other sector is erased only when this one is full, so wherever that
//! erasure is interrupted, the last note survives.
//!
//! Version and root key are compared before anything else is examined. Version 1 had notes of 16 bytes,
//! without a root key; the next version, whatever it contains, must keep length and check.

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use sha2::{Digest, Sha256};
use sshsm_protocol::codec::{CodecError, Reader};

use super::MountError;
use super::flash::sector_size;
use super::seal::RootKeyId;

/// Sectors of the control log, the first of the flash.
pub(super) const SECTORS: u16 = 2;
/// The version of the layout of everything in flash.
pub(super) const VERSION: u8 = 2;
/// Bytes a note; every write unit divides it.
const NOTE: u32 = 32;
const CHECKED: usize = 28;

/// The operation in progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Ready,
    /// A reset: nothing in the object region counts.
    Resetting,
    /// The erasure of this sector of the flash: nothing in it counts.
    Erasing(u16),
}

/// A note in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) state: State,
    /// No mount may find an older state than the one of this revision.
    pub(super) floor: u32,
}

/// The log and its next position.
pub(super) struct Control {
    root_key: RootKeyId,
    note: Option<Note>,
    number: u32,
    sector: u16,
    slot: u32,
}

impl Control {
    /// Reads the log of a store under this root key.
    pub(super) fn load<F: ReadNorFlash + NorFlash>(
        flash: &mut F,
        root_key: RootKeyId,
    ) -> Result<Self, MountError> {
        let mut control = Self::empty(root_key);
        let mut earlier = false;
        for sector in 0..SECTORS {
            let mut newest = false;
            for slot in 0..sector_size::<F>() / NOTE {
                let mut bytes = [0; NOTE as usize];
                let offset = u32::from(sector) * sector_size::<F>() + slot * NOTE;
                flash.read(offset, &mut bytes).map_err(|_| MountError::Flash)?;
                if let Some((checked, number)) = valid(&bytes)
                    && (control.note.is_none() || number > control.number)
                {
                    control.note = Some(decode(checked, &root_key)?);
                    control.number = number;
                    control.sector = sector;
                    newest = true;
                }
                earlier |= is_version_1(&bytes);
                // The next note goes after everything that was ever programmed there, including torn notes.
                if newest && bytes.iter().any(|&byte| byte != 0xff) {
                    control.slot = slot + 1;
                }
            }
        }
        if control.note.is_none() && earlier {
            return Err(MountError::UnknownVersion(1));
        }
        Ok(control)
    }

    fn empty(root_key: RootKeyId) -> Self {
        Self { root_key, note: None, number: 0, sector: 0, slot: 0 }
    }

    /// The last note; `None` in a log that holds none.
    pub(super) fn note(&self) -> Option<Note> {
        self.note
    }

    /// Empties the log.
    pub(super) fn format<F: NorFlash>(&mut self, flash: &mut F) -> Result<(), F::Error> {
        *self = Self::empty(self.root_key);
        flash.erase(0, u32::from(SECTORS) * sector_size::<F>())
    }

    /// Appends a note.
    pub(super) fn write<F: NorFlash>(&mut self, flash: &mut F, note: Note) -> Result<(), F::Error> {
        if self.slot >= sector_size::<F>() / NOTE {
            let other = (self.sector + 1) % SECTORS;
            let start = u32::from(other) * sector_size::<F>();
            flash.erase(start, start + sector_size::<F>())?;
            (self.sector, self.slot) = (other, 0);
        }
        let offset = u32::from(self.sector) * sector_size::<F>() + self.slot * NOTE;
        self.slot += 1;
        self.number = self.number.saturating_add(1);
        flash.write(offset, &encode(note, self.number, &self.root_key))?;
        self.note = Some(note);
        Ok(())
    }
}

fn check(checked: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(checked));
    [a, b, c, d]
}

fn encode(note: Note, number: u32, root_key: &RootKeyId) -> [u8; NOTE as usize] {
    let (state, sector) = match note.state {
        State::Ready => (1, 0),
        State::Resetting => (2, 0),
        State::Erasing(sector) => (3, sector),
    };
    let ([s1, s0], [f3, f2, f1, f0], [n3, n2, n1, n0]) =
        (sector.to_be_bytes(), note.floor.to_be_bytes(), number.to_be_bytes());
    let fields = [VERSION, state, s1, s0, f3, f2, f1, f0, n3, n2, n1, n0];
    let mut bytes = [0; NOTE as usize];
    for (to, from) in bytes.iter_mut().zip(fields.iter().chain(root_key)) {
        *to = *from;
    }
    if let Some((checked, rest)) = bytes.split_first_chunk_mut::<CHECKED>() {
        rest.copy_from_slice(&check(checked));
    }
    bytes
}

/// The checked bytes of a note whose check is right, and its number.
fn valid(bytes: &[u8; NOTE as usize]) -> Option<(&[u8; CHECKED], u32)> {
    let (checked, rest) = bytes.split_first_chunk::<CHECKED>()?;
    let number = checked.get(8..)?.first_chunk()?;
    (rest == check(checked)).then(|| (checked, u32::from_be_bytes(*number)))
}

/// Whether there is a note of version 1 in the place of one.
fn is_version_1(bytes: &[u8; NOTE as usize]) -> bool {
    let (notes, _) = bytes.as_chunks::<16>();
    notes.iter().any(|note| {
        note.split_last_chunk::<4>()
            .is_some_and(|(checked, rest)| note.first() == Some(&1) && *rest == check(checked))
    })
}

fn decode(checked: &[u8; CHECKED], root_key: &RootKeyId) -> Result<Note, MountError> {
    let mut reader = Reader::new(checked);
    let mut fields = || {
        let fields = (reader.u8()?, reader.u8()?, reader.u16()?, reader.u32()?);
        reader.u32()?;
        Ok::<_, CodecError>((fields, reader.array()?))
    };
    let (fields, of): (_, RootKeyId) = fields().map_err(|_| MountError::Damaged)?;
    if fields.0 == VERSION && of != *root_key {
        return Err(MountError::OtherRootKey);
    }
    match fields {
        (VERSION, 1, 0, floor) => Ok(Note { state: State::Ready, floor }),
        (VERSION, 2, 0, floor) => Ok(Note { state: State::Resetting, floor }),
        (VERSION, 3, sector, floor) if sector >= SECTORS => Ok(Note { state: State::Erasing(sector), floor }),
        (VERSION, ..) => Err(MountError::Damaged),
        (version, ..) => Err(MountError::UnknownVersion(version)),
    }
}
