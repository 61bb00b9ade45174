//! Sessions: who is talking, what they may do, and how long they have been silent.

use core::time::Duration;

use sshsm_protocol::channel::{DeviceChannel, MAX_SESSIONS};
use sshsm_protocol::{Capabilities, DeviceError, Domains, ObjectId};

/// A session that has been silent this long is over.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The rights of a session: those its authentication key had when it was created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The authentication key.
    pub authentication_key: ObjectId,
    /// What the session may do.
    pub capabilities: Capabilities,
    /// What it may give to objects that it creates.
    pub delegated_capabilities: Capabilities,
    /// What it can see.
    pub domains: Domains,
}

/// One session.
pub(crate) struct Session {
    /// Its rights.
    pub caller: Caller,
    /// Its keys.
    pub channel: DeviceChannel,
    authenticated: bool,
    last_used: Duration,
}

/// All sessions; a session's id is its place.
pub(crate) struct Sessions([Option<Session>; MAX_SESSIONS]);

impl Sessions {
    pub(crate) const fn new() -> Self {
        Self([const { None }; MAX_SESSIONS])
    }

    /// A free id, lowest first. When all are taken, the session that was created but never authenticated and has
    /// been silent longest gives way: a client that gave up half-way does not lock the others out.
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
                .filter(|(_, session)| !session.authenticated)
                .min_by_key(|(_, session)| session.last_used)
                .map(|(id, _)| id)
                .ok_or(DeviceError::SessionsFull)?,
        };
        u8::try_from(id).map_err(|_| DeviceError::SessionsFull)
    }

    /// Puts a session that has yet to authenticate at `id`.
    pub(crate) fn create(&mut self, id: u8, caller: Caller, channel: DeviceChannel, now: Duration) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = Some(Session { caller, channel, authenticated: false, last_used: now });
        }
    }

    /// The session that has yet to authenticate at `id`.
    pub(crate) fn unauthenticated(&mut self, id: u8, now: Duration) -> Result<&mut Session, DeviceError> {
        self.find(id, false, now)
    }

    /// The live, authenticated session at `id`.
    pub(crate) fn authenticated(&mut self, id: u8, now: Duration) -> Result<&mut Session, DeviceError> {
        self.find(id, true, now)
    }

    /// The session at `id`, however long its command took.
    pub(crate) fn resume(&mut self, id: u8) -> Option<&mut Session> {
        self.0.get_mut(usize::from(id))?.as_mut()
    }

    /// Ends a session; its keys are cleared.
    pub(crate) fn close(&mut self, id: u8) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = None;
        }
    }

    /// Ends all sessions.
    pub(crate) fn close_all(&mut self) {
        self.0 = [const { None }; MAX_SESSIONS];
    }

    fn expire(&mut self, now: Duration) {
        for slot in &mut self.0 {
            if slot.as_ref().is_some_and(|session| now.saturating_sub(session.last_used) > IDLE_TIMEOUT) {
                *slot = None;
            }
        }
    }

    fn find(&mut self, id: u8, authenticated: bool, now: Duration) -> Result<&mut Session, DeviceError> {
        self.expire(now);
        self.0
            .get_mut(usize::from(id))
            .and_then(Option::as_mut)
            .filter(|session| session.authenticated == authenticated)
            .ok_or(DeviceError::InvalidSession)
    }
}

impl Session {
    /// The host has proved that it knows the key.
    pub(crate) fn establish(&mut self, now: Duration) {
        self.authenticated = true;
        self.last_used = now;
    }

    /// A valid message was answered.
    pub(crate) fn touch(&mut self, now: Duration) {
        self.last_used = now;
    }
}
