//! What can be wrong in the text of a template.

use sshsm_protocol::{
    ObjectId,
    ssh::{network::NetworkError, pattern::PatternError, rules::RuleError},
};

use crate::{
    device_key::DeviceKeyError,
    duration::{self, DurationError},
    key_file::{KeyFileError, KeyFormatError},
};
use sshsm_client::{Failure, Kind};

/// The word for an absent bound.
const UNBOUNDED: &str = "unbounded";

/// A mistake and its position, in bytes from the beginning of the file.
pub(super) type Mistake = (usize, Problem);

/// A value that makes no sense in a template.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// `ca-keys` names no key.
    #[error("ca-keys is empty; name at least one key id, or nothing can ever be signed")]
    NoCaKeys,
    /// An id that no object has.
    #[error("key id {0:#06x} names no object; ids are 0x0001 to 0xfffe")]
    CaKeyId(i64),
    /// A key id twice.
    #[error("key id {0} occurs twice")]
    CaKeyTwice(ObjectId),
    /// A bound that is not a span of time.
    #[error("{name} is neither a span of time nor \"unbounded\"")]
    Duration {
        /// Which bound.
        name: &'static str,
        /// The defect.
        source: DurationError,
    },
    /// A bound beyond the 32 bits that the device has for it.
    #[error(
        "{name} is {seconds} seconds, but the maximum is {most} (about 136 years); or write \"unbounded\""
    )]
    TooLong {
        /// Which bound.
        name: &'static str,
        /// The value given.
        seconds: u64,
        /// The most that can be.
        most: u32,
    },
    /// A not-before offset that would mean the opposite of what it says.
    #[error(
        "not-before-offset cannot be 0: to a device 0 means no bound at all; write \"1s\" to forbid back-dating, or \
         \"unbounded\" to allow any"
    )]
    ZeroNotBefore,
    /// An empty principal name.
    #[error("a forbidden principal is empty; requests without principals are refused anyway")]
    EmptyPrincipal,
    /// A principal name that cannot be distinguished from two.
    #[error("a forbidden principal contains a NUL, which ends a name in a template")]
    NulInPrincipal,
    /// A principal that no certificate can have, so that it would forbid nobody.
    #[error(
        "the forbidden principal {0:?} contains a comma and would forbid nobody: no certificate names it; give each \
         name its own string"
    )]
    CommaInPrincipal(String),
    /// A principal twice.
    #[error("the forbidden principal {0:?} occurs twice")]
    PrincipalTwice(String),
    /// A word that has no meaning there.
    #[error("{name:?} is unknown; known are {known}")]
    Unknown {
        /// The word.
        name: String,
        /// What might.
        known: String,
    },
    /// An entry of a list twice.
    #[error("{0:?} occurs twice")]
    Twice(String),
    /// An invalid pattern.
    #[error("the pattern {pattern:?} cannot be used")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// The defect.
        source: PatternError,
    },
    /// An invalid network.
    #[error("the network {network:?} cannot be used")]
    Network {
        /// The network as written.
        network: String,
        /// The defect.
        source: NetworkError,
    },
    /// A name that no option has, or a command that cannot be distinguished from two.
    #[error("a name is empty, or contains a NUL, which ends a name in a template")]
    Name,
    /// A number out of its range.
    #[error("{name} is a number from {least} to {most}")]
    Range {
        /// Which number.
        name: &'static str,
        /// The least that it can be.
        least: u64,
        /// The most that it can be.
        most: u64,
    },
    /// A point in time that no timestamp has.
    #[error("{name} is a date and time in UTC from 1970 to 2106, such as 2026-03-01T00:00:00Z")]
    Time {
        /// Which time.
        name: &'static str,
    },
    /// A start for something that is not bounded.
    #[error("since says where the first max-step begins; set max-step, too")]
    SinceWithoutStep,
    /// A rule that would be none.
    #[error("{name} cannot be \"unbounded\"; leave the rule out")]
    NoRule {
        /// Which rule.
        name: &'static str,
    },
    /// A rule that the device would refuse, or that another contradicts.
    #[error("{name} cannot be kept")]
    Rule {
        /// Which rule.
        name: &'static str,
        /// Why.
        source: RuleError,
    },
    /// The timestamp key's file could not be used.
    #[error("timestamp-key cannot be used")]
    TimestampKeyFile(#[from] KeyFileError),
    /// The timestamp key in the text itself could not be used.
    #[error("timestamp-key cannot be used")]
    TimestampKeyText(#[from] KeyFormatError),
    /// The timestamp key is of a kind that cannot sign timestamps.
    #[error("timestamp-key cannot be used")]
    TimestampKeyKind(#[from] DeviceKeyError),
}

impl Failure for Problem {
    fn kind(&self) -> Kind {
        match self {
            Self::TimestampKeyFile(error) => error.kind(),
            Self::TimestampKeyText(error) => error.kind(),
            Self::NoCaKeys
            | Self::CaKeyId(_)
            | Self::CaKeyTwice(_)
            | Self::Duration { .. }
            | Self::TooLong { .. }
            | Self::ZeroNotBefore
            | Self::EmptyPrincipal
            | Self::NulInPrincipal
            | Self::CommaInPrincipal(_)
            | Self::PrincipalTwice(_)
            | Self::Unknown { .. }
            | Self::Twice(_)
            | Self::Pattern { .. }
            | Self::Network { .. }
            | Self::Name
            | Self::Range { .. }
            | Self::Time { .. }
            | Self::SinceWithoutStep
            | Self::NoRule { .. }
            | Self::Rule { .. }
            | Self::TimestampKeyKind(_) => Kind::Failed,
        }
    }
}

/// A time bound; `None` if it is explicitly absent.
pub(crate) fn bound(name: &'static str, text: &str, most: u32) -> Result<Option<u32>, Problem> {
    if text == UNBOUNDED {
        return Ok(None);
    }
    let seconds = duration::parse(text).map_err(|source| Problem::Duration { name, source })?;
    match u32::try_from(seconds) {
        Ok(fits) if fits <= most => Ok(Some(fits)),
        _ => Err(Problem::TooLong { name, seconds, most }),
    }
}
