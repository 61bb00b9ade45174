//! The audit log: a ring of the last 62 entries that no client has consumed yet, linked by digests, in flash.
//!
//! *Guarantees.* The answer to an audited command is released only when its entry is in flash; if writing
//! fails, the answer is `storage failed`. Without forced audit an entry is written once, when the command has
//! finished, and replaces the oldest when the log is full. Under forced audit no entry is lost before it is
//! consumed, and nothing happens unlogged, not even across a power cut: [`AuditLog::admit`] refuses commands
//! while the log is full, and a session's command is logged as *unexecuted* before it begins; its result then
//! replaces that mark in the same slot. Commands that open and close sessions, and those that read and empty
//! the log, are always allowed; while there is no room for their entries, boots and authentications are
//! counted instead.
//!
//! *Strangers* are clients that send a command outside a session: they have not proved anything. The writes
//! that they can cause are bounded. An entry for a stranger's command is written only if it displaces no
//! other, in at most [`STRANGERS`] of the 62 slots, and only as often as the [`Allowance`] permits; so
//! strangers can neither fill a forced log, nor hide what was done in a session, nor wear out the flash.
//! Beyond that, ECHO is refused (log full) if it would have to be logged; device information and the device's
//! public key, which clients need in order to begin, are answered without an entry; failed authentications
//! are counted; and the entry for a new session is held back until its creator proves possession of its key,
//! after which it is logged like any command in a session. Every session that is in use therefore has an
//! entry, and clients without the password can never keep out those who have it.
//!
//! *In flash.* Entry `n`, counted from 1 in 32 bits, is in slot `n mod 62` as `n >> 16 u16 ‖ entry[32]`; the
//! entry's number is the lower half of `n`. The log state, written when entries are consumed or a counter
//! changes, is `first unconsumed n u32 ‖ unlogged boots u16 ‖ unlogged authentications u16`. Consumed entries
//! stay in their slots: the newest continues the chain.
#![cfg_attr(not(feature = "audit"), allow(dead_code))] // a device whose log no command reads still keeps it

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use embedded_storage::nor_flash::MultiwriteNorFlash;
use rand_core::CryptoRng;
use sshsm_protocol::audit::{Digest, LogEntry, LogHeader, LogMark};
use sshsm_protocol::codec::{CodecError, Reader, Writer};
use sshsm_protocol::frame::RESPONSE_FLAG;
use sshsm_protocol::{Command, DeviceError};

use crate::options::Options;
use crate::store::{MountError, Record, Store, StoreError};

/// Entries there is room for.
pub(crate) const CAPACITY: u8 = Record::LOG_ENTRIES;
/// Places that entries of strangers take at most: more of them have to wait until some are consumed.
const STRANGERS: usize = 16;
/// Commands that are carried out even though the log is full and must not lose entries.
const ALWAYS_ALLOWED: [Command; 7] = [
    Command::CreateSession,
    Command::AuthenticateSession,
    Command::GetDevicePublicKey,
    Command::CloseSession,
    Command::GetDeviceInfo,
    Command::GetLogEntries,
    Command::SetLogIndex,
];

pub(crate) struct AuditLog {
    /// The entries that have not been consumed, oldest first.
    entries: VecDeque<LogEntry>,
    /// Entries ever written: which the newest is.
    count: u32,
    /// The newest entry's, consumed or not.
    digest: Digest,
    unlogged_boots: u16,
    unlogged_authentications: u16,
    booted: Duration,
    allowance: Allowance,
}

/// How many writes strangers may cause: a burst, and one more per interval. At that rate they would take half
/// a century to wear out flash that is rated for 2.5 million writes.
struct Allowance {
    left: u8,
    refilled: Duration,
}

impl Allowance {
    const FULL: u8 = 16;
    const REFILL: Duration = Duration::from_secs(10 * 60);

    /// Whether there is one left.
    fn has(&mut self, now: Duration) -> bool {
        while self.left < Self::FULL && now.saturating_sub(self.refilled) >= Self::REFILL {
            self.left += 1;
            self.refilled += Self::REFILL;
        }
        if self.left == Self::FULL {
            self.refilled = now;
        }
        self.left > 0
    }

    /// Takes one, if there is one left.
    fn take(&mut self, now: Duration) -> bool {
        let has = self.has(now);
        self.left = self.left.saturating_sub(1);
        has
    }
}

/// A command that is logged and not yet completed.
pub(crate) struct Pending {
    command: Command,
    entry: LogEntry,
    /// Its place in the log and the digest before it.
    place: u32,
    previous: Digest,
    forced: bool,
}

impl AuditLog {
    /// The log of a device that was just reset: [`AuditLog::boot`] writes its first entries.
    pub(crate) const EMPTY: Self = Self {
        entries: VecDeque::new(),
        count: 0,
        digest: [0; 16],
        unlogged_boots: 0,
        unlogged_authentications: 0,
        booted: Duration::ZERO,
        allowance: Allowance { left: Allowance::FULL, refilled: Duration::ZERO },
    };

    /// Reads the log from flash.
    pub(crate) fn load<F: MultiwriteNorFlash>(store: &mut Store<F>) -> Result<Self, MountError> {
        let mut log = Self::EMPTY;
        let mut first = 0;
        if let Some(state) = store.record(Record::LogState).map_err(|_| MountError::Flash)? {
            let mut reader = Reader::new(&state);
            let mut decode = || {
                first = reader.u32()?;
                log.unlogged_boots = reader.u16()?;
                log.unlogged_authentications = reader.u16()?;
                Ok::<_, CodecError>(())
            };
            decode().map_err(|_| MountError::Damaged)?;
        }
        let mut entries = Vec::new();
        for slot in 0..CAPACITY {
            if let Some(value) = store.record(Record::LogEntry(slot)).map_err(|_| MountError::Flash)? {
                entries.push(decode(&value).map_err(|_| MountError::Damaged)?);
            }
        }
        entries.sort_unstable_by_key(|(place, _)| *place);
        let linked = |pair: &[(u32, LogEntry)]| matches!(pair, [(_, before), (_, after)] if after.follows(&before.digest));
        if !entries.windows(2).all(linked) {
            return Err(MountError::Damaged);
        }
        if let Some((count, newest)) = entries.last() {
            (log.count, log.digest) = (*count, newest.digest);
        }
        log.entries =
            entries.into_iter().filter(|(place, _)| *place >= first).map(|(_, entry)| entry).collect();
        Ok(log)
    }

    /// Entries in use.
    pub(crate) fn used(&self) -> u8 {
        u8::try_from(self.entries.len()).unwrap_or(CAPACITY)
    }

    /// The newest entry, consumed or not.
    pub(crate) fn newest(&self) -> LogMark {
        LogMark { number: number(self.count), digest: self.digest }
    }

    /// Logs that the device has started, and before that, if nothing was ever logged, that it was reset.
    pub(crate) fn boot<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        options: &Options,
        entropy: &mut impl CryptoRng,
        now: Duration,
    ) -> Result<(), StoreError> {
        self.booted = now;
        self.allowance.refilled = now;
        if self.count == 0 {
            let mut seed = [0; 32];
            entropy.fill_bytes(&mut seed);
            self.put(store, 1, LogEntry::RESET, &seed)?;
        }
        if options.force_audit() && self.is_full() {
            self.unlogged_boots = self.unlogged_boots.saturating_add(1);
            return self.put_state(store, self.first());
        }
        self.append(store, LogEntry::BOOT)
    }

    /// Decides whether a stranger's command may begin.
    pub(crate) fn admit_stranger(
        &mut self,
        options: &Options,
        now: Duration,
        command: Command,
    ) -> Result<(), DeviceError> {
        match options.audits(command)
            && !ALWAYS_ALLOWED.contains(&command)
            && !self.has_room_for_stranger(now)
        {
            true => Err(DeviceError::LogFull),
            false => Ok(()),
        }
    }

    /// Logs the outcome of a stranger's command, if there is room. Otherwise it returns the entry, which is
    /// owed if the command has created a session.
    pub(crate) fn complete_stranger<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        options: &Options,
        now: Duration,
        (command, entry): (Command, LogEntry),
        done: Result<(), DeviceError>,
        reply: &[u8],
    ) -> Result<Option<LogEntry>, DeviceError> {
        if !options.audits(command) {
            return Ok(None);
        }
        let entry = LogEntry { systick: self.systick(now), ..ended(command, entry, done, reply) };
        if self.has_room_for_stranger(now) && self.allowance.take(now) {
            self.append(store, entry)?;
            return Ok(None);
        }
        if done.is_err() && matches!(command, Command::CreateSession | Command::AuthenticateSession) {
            self.unlogged_authentications = self.unlogged_authentications.saturating_add(1);
            // It is stored with the next permitted write.
            if self.allowance.take(now) {
                self.put_state(store, self.first())?;
            }
        }
        Ok(Some(entry))
    }

    /// Logs that a client has proved possession of a session's key, and the entry owed for its creation. If
    /// no entry may be lost and there is no room, it is counted.
    pub(crate) fn authenticated<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        options: &Options,
        owed: Option<LogEntry>,
        authentication: Option<LogEntry>,
    ) -> Result<(), DeviceError> {
        let mut unlogged = false;
        for entry in owed.into_iter().chain(authentication) {
            if options.force_audit() && self.is_full() {
                unlogged = true;
            } else {
                self.append(store, entry)?;
            }
        }
        if unlogged && self.unlogged_authentications < u16::MAX {
            self.unlogged_authentications += 1;
            self.put_state(store, self.first())?;
        }
        Ok(())
    }

    /// The entry of a session's authentication, if that is logged.
    pub(crate) fn authentication(
        &self,
        options: &Options,
        now: Duration,
        entry: LogEntry,
    ) -> Option<LogEntry> {
        let command = Command::AuthenticateSession;
        let entry = LogEntry { systick: self.systick(now), ..ended(command, entry, Ok(()), &[]) };
        options.audits(command).then_some(entry)
    }

    /// Decides whether a command of a session may begin, and whether its completion is to be logged.
    pub(crate) fn admit<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        options: &Options,
        now: Duration,
        command: Command,
        entry: LogEntry,
    ) -> Result<Option<Pending>, DeviceError> {
        let forced = options.force_audit();
        if forced && self.is_full() {
            if !ALWAYS_ALLOWED.contains(&command) {
                return Err(DeviceError::LogFull);
            }
            // This one makes room for itself.
            if command != Command::SetLogIndex {
                return Ok(None);
            }
        }
        if !options.audits(command) {
            return Ok(None);
        }
        let entry = LogEntry { systick: self.systick(now), ..entry };
        let place = self.count.wrapping_add(1);
        let pending = Pending { command, entry, place, previous: self.digest, forced };
        if forced && command != Command::SetLogIndex {
            self.put(store, place, entry, &pending.previous)?;
        }
        Ok(Some(pending))
    }

    /// Logs how a command ended. `reply` is the payload of its answer.
    pub(crate) fn complete<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        now: Duration,
        pending: Option<Pending>,
        done: Result<(), DeviceError>,
        reply: &[u8],
    ) -> Result<(), DeviceError> {
        let Some(Pending { command, entry, place, previous, forced }) = pending else { return Ok(()) };
        // The log of a device that was reset records the reset; a full log that was not emptied has no room.
        if command == Command::ResetDevice && done.is_ok() || forced && place > self.count && self.is_full() {
            return Ok(());
        }
        let entry = ended(command, entry, done, reply);
        Ok(self.put(store, place, LogEntry { systick: self.systick(now), ..entry }, &previous)?)
    }

    /// Discards the entries up to the one with this number, and the counters; an unknown number is
    /// `InvalidData`.
    pub(crate) fn consume<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        number: u16,
    ) -> Result<(), DeviceError> {
        let last =
            self.entries.iter().position(|entry| entry.number == number).ok_or(DeviceError::InvalidData)?;
        let first = self.first().wrapping_add(u32::try_from(last).unwrap_or(u32::MAX)).wrapping_add(1);
        let boots = core::mem::take(&mut self.unlogged_boots);
        let authentications = core::mem::take(&mut self.unlogged_authentications);
        if let Err(error) = self.put_state(store, first) {
            (self.unlogged_boots, self.unlogged_authentications) = (boots, authentications);
            return Err(error.into());
        }
        self.entries.drain(..=last);
        Ok(())
    }

    /// Writes the counters and the entries that have not been consumed.
    pub(crate) fn read(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        let header = LogHeader {
            unlogged_boots: self.unlogged_boots,
            unlogged_authentications: self.unlogged_authentications,
            entries: self.used(),
        };
        header.encode(writer)?;
        self.entries.iter().try_for_each(|entry| entry.encode(writer))
    }

    /// Whether an entry of a stranger may be written: it pushes none out, and there are not many of theirs.
    fn has_room_for_stranger(&mut self, now: Duration) -> bool {
        let strangers = |entry: &&LogEntry| {
            entry.session_key == LogEntry::NO_KEY
                && Command::from_code(entry.command).is_some()
                && entry.result != Command::AuthenticateSession.code() | RESPONSE_FLAG
        };
        !self.is_full()
            && self.entries.iter().filter(strangers).count() < STRANGERS
            && self.allowance.has(now)
    }

    fn is_full(&self) -> bool {
        self.used() >= CAPACITY
    }

    /// Which entry the oldest unconsumed one is, or the next one will be.
    fn first(&self) -> u32 {
        self.count.wrapping_add(1).wrapping_sub(self.used().into())
    }

    fn systick(&self, now: Duration) -> u32 {
        let time = now.saturating_sub(self.booted);
        let ticks = time.as_secs().wrapping_mul(100).wrapping_add(u64::from(time.subsec_millis()) / 10);
        let [.., a, b, c, d] = ticks.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Writes an entry after the newest.
    fn append<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        entry: LogEntry,
    ) -> Result<(), StoreError> {
        let previous = self.digest;
        self.put(store, self.count.wrapping_add(1), entry, &previous)
    }

    /// Writes an entry after the newest, or again in its slot.
    fn put<F: MultiwriteNorFlash>(
        &mut self,
        store: &mut Store<F>,
        place: u32,
        entry: LogEntry,
        previous: &[u8],
    ) -> Result<(), StoreError> {
        let [high @ .., _, _] = place.to_be_bytes();
        let entry = LogEntry { number: number(place), ..entry }.linked(previous);
        let mut value = [0; 2 + LogEntry::LENGTH];
        let mut writer = Writer::new(&mut value);
        writer.bytes(&high).and_then(|()| entry.encode(&mut writer)).map_err(|_| StoreError::Full)?;
        let [.., slot] = (place % u32::from(CAPACITY)).to_be_bytes();
        store.put_record(Record::LogEntry(slot), &value)?;
        if place == self.count {
            self.entries.pop_back();
        } else if self.is_full() {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        (self.count, self.digest) = (place, entry.digest);
        Ok(())
    }

    fn put_state<F: MultiwriteNorFlash>(&self, store: &mut Store<F>, first: u32) -> Result<(), StoreError> {
        let mut value = [0; 8];
        let mut writer = Writer::new(&mut value);
        writer
            .u32(first)
            .and_then(|()| writer.u16(self.unlogged_boots))
            .and_then(|()| writer.u16(self.unlogged_authentications))
            .map_err(|_| StoreError::Full)?;
        store.put_record(Record::LogState, &value)
    }
}

/// The number of entry `place`, which counts them all.
fn number(place: u32) -> u16 {
    let [_, _, a, b] = place.to_be_bytes();
    u16::from_be_bytes([a, b])
}

/// The entry of a command that has ended; `reply` is the payload of its answer.
fn ended(command: Command, entry: LogEntry, done: Result<(), DeviceError>, reply: &[u8]) -> LogEntry {
    match done {
        Ok(()) => LogEntry { result: command.code() | RESPONSE_FLAG, ..entry.replied(command, reply) },
        Err(error) => LogEntry { result: error.code(), ..entry },
    }
}

fn decode(value: &[u8]) -> Result<(u32, LogEntry), CodecError> {
    let mut reader = Reader::new(value);
    let high = reader.u16()?;
    let entry = LogEntry::decode(&mut reader)?;
    reader.finish()?;
    Ok((u32::from(high) << 16 | u32::from(entry.number), entry))
}
