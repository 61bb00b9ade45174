//! What a person should know while certificates and timestamps are made, and that is not an error. This crate never
//! prints.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    ledger::LedgerError,
    timestamp::{TimestampError, rate::Client},
};

/// Something to know. A listener shows each kind; the enum can be matched exhaustively, and a new kind is a breaking change
/// on purpose.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// No certificate came of a request, and the ledger could not record that: its entry stays reserved.
    FailureNotRecorded {
        /// Why.
        error: &'a LedgerError,
    },
    /// The timestamp service signed.
    TimestampSigned {
        /// SHA-256 of the request.
        digest: &'a [u8; 32],
        /// The time, in UNIX seconds.
        now: u32,
        /// Who asked.
        client: &'a Client,
    },
    /// The timestamp service's key did not sign. The client is not told why.
    TimestampFailed {
        /// Who asked.
        client: &'a Client,
        /// Why.
        error: &'a TimestampError,
    },
    /// The timestamp service's key did not sign in time.
    TimestampLate {
        /// Who asked.
        client: &'a Client,
        /// How long it was waited for.
        limit: Duration,
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
