//! The signed clock, verified.

use sshsm_protocol::ssh::timestamp::{Now, TimestampKey, message};

use crate::crypto::Provider;

/// What is known about the source of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticity {
    /// The template's timestamp authority signed this time for this request.
    Verified,
    /// There is a signature, and it is not the authority's for this time and request.
    Invalid,
    /// There is no signature: a time for trying out a template. No device signs under it.
    Unsigned,
}

/// A time and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    now: Now,
    authenticity: Authenticity,
}

impl Timestamp {
    /// Checks an authority's signature of `now` for `request`.
    #[must_use]
    pub fn verify<C: Provider>(key: &TimestampKey<'_>, request: &[u8], now: Now, signature: &[u8]) -> Self {
        let valid = C::verify(key.algorithm(), key.public(), &message(request, now), signature);
        Self { now, authenticity: if valid { Authenticity::Verified } else { Authenticity::Invalid } }
    }

    /// A time without a signature.
    #[must_use]
    pub const fn unsigned(now: Now) -> Self {
        Self { now, authenticity: Authenticity::Unsigned }
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// What is known about its source.
    #[must_use]
    pub const fn authenticity(&self) -> Authenticity {
        self.authenticity
    }
}
