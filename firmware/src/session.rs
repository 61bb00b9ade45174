//! Sessions: their clients, the clients' rights, and how long they have been silent.
//!
//! A session belongs to one value of one authentication key, identified by the store's revision, which never
//! repeats: a key that was changed, or deleted and put again under the same id, is a different one, whatever
//! its rights and its sequence number. When a key is changed or deleted, its sessions end
//! ([`Sessions::retain`]), including those created but not yet authenticated. The session that made the
//! change continues, as clients expect: after a change it belongs to the new value, after a deletion to no
//! key until there is one with that id again.
//!
//! *Strangers.* Anyone on the same line may send a message that names a session. One with a wrong MAC or
//! cryptogram is answered with "authentication failed" and changes nothing: chain and counter do not move,
//! nothing is decrypted, and the session's idle time is not reset. After [`FAILURES`] of them the session
//! ends, so that an attacker who guesses MACs of 64 bits succeeds once in 2^54 sessions. Anyone may also
//! create sessions: when all slots are taken, a session that is still not authenticated after [`HALF_OPEN`]
//! is evicted. Evicting it earlier would let a newcomer end the session of a client that is about to
//! authenticate; much later, and a client without a password could keep all others out with sixteen messages
//! a minute. A client that keeps sending can do that regardless: strangers who can reach the line can jam it.

use core::time::Duration;

use sshsm_protocol::audit::LogEntry;
use sshsm_protocol::channel::{DeviceChannel, MAX_SESSIONS};
use sshsm_protocol::{Capabilities, DeviceError, Domains, ObjectId};

/// A session that has been silent this long is over.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A session that has not been authenticated for this long is evicted when all slots are taken.
pub const HALF_OPEN: Duration = Duration::from_secs(5);
/// Messages with a wrong MAC or cryptogram that end a session.
const FAILURES: u16 = 1024;

/// The rights of a session: those its authentication key had when it was created.
///
/// They stay what that key has: no command changes the rights of a key that exists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The authentication key.
    pub authentication_key: ObjectId,
    /// Which content of that key the session belongs to; `None` once the session itself has deleted its key.
    pub revision: Option<u32>,
    /// The rights of the session.
    pub capabilities: Capabilities,
    /// The rights that it may give to objects that it creates.
    pub delegated_capabilities: Capabilities,
    /// The domains that it can see.
    pub domains: Domains,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for AUTHENTICATE SESSION.
    AwaitsAuthentication,
    /// The first valid message will show that the host holds its P-256 key; there is nothing else to wait for.
    AwaitsMessage,
    /// The host has authenticated.
    Established,
}

/// One session.
pub(crate) struct Session {
    /// Its rights.
    pub caller: Caller,
    /// Its keys.
    pub channel: DeviceChannel,
    stage: Stage,
    last_used: Duration,
    /// The log entry of its creation, if there was no room for a stranger's entry.
    pub owed: Option<LogEntry>,
    /// Number of messages so far that were not from the holder of its keys.
    failures: u16,
}

/// How many sessions there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Census {
    /// Sessions whose host has authenticated.
    pub established: u8,
    /// Sessions whose host has not.
    pub half_open: u8,
}

/// All sessions; a session's id is its place.
pub(crate) struct Sessions([Option<Session>; MAX_SESSIONS]);

impl Sessions {
    pub(crate) const fn new() -> Self {
        Self([const { None }; MAX_SESSIONS])
    }

    /// A free id, lowest first. When all are taken, the oldest of those that have not been authenticated for
    /// [`HALF_OPEN`] is evicted: a client that gave up during the handshake does not lock the others out.
    pub(crate) fn allocate(&mut self, now: Duration) -> Result<u8, DeviceError> {
        self.expire(now);
        let free = self.0.iter().position(Option::is_none);
        let id = match free {
            Some(id) => id,
            None => self
                .0
                .iter()
                .enumerate()
                .filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
                .filter(|(_, session)| session.stage != Stage::Established)
                .filter(|(_, session)| now.saturating_sub(session.last_used) >= HALF_OPEN)
                .min_by_key(|(_, session)| session.last_used)
                .map(|(id, _)| id)
                .ok_or(DeviceError::SessionsFull)?,
        };
        u8::try_from(id).map_err(|_| DeviceError::SessionsFull)
    }

    /// Puts a session that has yet to authenticate at `id`.
    pub(crate) fn create(
        &mut self,
        id: u8,
        caller: Caller,
        channel: DeviceChannel,
        stage: Stage,
        now: Duration,
    ) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = Some(Session { caller, channel, stage, last_used: now, owed: None, failures: 0 });
        }
    }

    /// The session at `id` that AUTHENTICATE SESSION is for.
    pub(crate) fn unauthenticated(&mut self, id: u8, now: Duration) -> Result<&mut Session, DeviceError> {
        self.find(id, now, |stage| stage == Stage::AwaitsAuthentication)
    }

    /// The live session at `id` that accepts messages.
    pub(crate) fn open(&mut self, id: u8, now: Duration) -> Result<&mut Session, DeviceError> {
        self.find(id, now, |stage| stage != Stage::AwaitsAuthentication)
    }

    /// The session at `id`, however long its command took.
    pub(crate) fn resume(&mut self, id: u8) -> Option<&mut Session> {
        self.0.get_mut(usize::from(id))?.as_mut()
    }

    /// A message for this session was not from the holder of its keys.
    pub(crate) fn failed(&mut self, id: u8) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = slot.take().and_then(|mut session| {
                session.failures += 1;
                (session.failures < FAILURES).then_some(session)
            });
        }
    }

    /// Ends a session; its keys are cleared.
    pub(crate) fn close(&mut self, id: u8) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = None;
        }
    }

    /// Ends the sessions whose caller does not satisfy `holds`.
    pub(crate) fn retain(&mut self, holds: impl Fn(&Caller) -> bool) {
        for slot in &mut self.0 {
            *slot = slot.take().filter(|session| holds(&session.caller));
        }
    }

    /// Ends all sessions.
    pub(crate) fn close_all(&mut self) {
        self.0 = [const { None }; MAX_SESSIONS];
    }

    /// How many are open.
    pub(crate) fn count(&mut self, now: Duration) -> u8 {
        self.expire(now);
        u8::try_from(self.0.iter().flatten().count()).unwrap_or(u8::MAX)
    }

    /// How many hosts have authenticated, and how many have begun to.
    pub(crate) fn census(&mut self, now: Duration) -> Census {
        self.expire(now);
        let established =
            self.0.iter().flatten().filter(|session| session.stage == Stage::Established).count();
        let open = self.count(now);
        let established = u8::try_from(established).unwrap_or(u8::MAX);
        Census { established, half_open: open.saturating_sub(established) }
    }

    fn expire(&mut self, now: Duration) {
        for slot in &mut self.0 {
            if slot.as_ref().is_some_and(|session| now.saturating_sub(session.last_used) > IDLE_TIMEOUT) {
                *slot = None;
            }
        }
    }

    fn find(
        &mut self,
        id: u8,
        now: Duration,
        wanted: impl FnOnce(Stage) -> bool,
    ) -> Result<&mut Session, DeviceError> {
        self.expire(now);
        self.0
            .get_mut(usize::from(id))
            .and_then(Option::as_mut)
            .filter(|session| wanted(session.stage))
            .ok_or(DeviceError::InvalidSession)
    }
}

impl Session {
    /// The host has proved that it holds the key.
    pub(crate) fn establish(&mut self, now: Duration) {
        self.stage = Stage::Established;
        self.last_used = now;
    }

    /// A valid message was answered.
    pub(crate) fn touch(&mut self, now: Duration) {
        self.last_used = now;
    }
}
