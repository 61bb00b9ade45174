//! What a caller should know during an operation, and that is not an error. This crate never prints.

use std::{fmt, sync::Arc};

use sshsm_protocol::ObjectId;

use crate::error::ClientError;

/// Something to know. Every kind is for a person who waits or has to act, so a listener shows each of them; the enum can be
/// matched exhaustively, and a new kind is a breaking change on purpose.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// The device waits to be touched.
    TouchWanted {
        /// For so long.
        seconds: u8,
    },
    /// The device still works on a command of a client that is gone; this one waits.
    Busy,
    /// The device in use has a property that every user of it must know.
    Warning {
        /// Which device.
        device: &'a str,
        /// What to know.
        warning: &'static str,
    },
    /// New keys are sent to a device whose public key was not known beforehand: a relay in its place could
    /// read them.
    NotIdentified,
    /// The temporary authentication key may still be on the device. Its private half existed only in this
    /// process, and the next private session deletes the key.
    TemporaryKeyLeft {
        /// The key.
        id: ObjectId,
        /// Why it may be.
        error: &'a ClientError,
    },
    /// An interrupted run left an authentication key on the device, which this session may not delete.
    KeyLeftBehind {
        /// The key.
        id: ObjectId,
        /// The device's refusal.
        error: &'a ClientError,
    },
}

/// The receiver of [`Notice`]s; the default one ignores them.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(&Notice<'_>) + Send + Sync>);

impl Listener {
    /// Calls `tell` with each notice, from any thread.
    pub fn new(tell: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Passes a notice on.
    pub fn tell(&self, notice: &Notice<'_>) {
        (self.0)(notice);
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
