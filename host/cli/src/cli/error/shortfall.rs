//! Why a command that ran to its end did not succeed; it has printed the details.

use sshsm_client::{Failure, Kind, TOUCH};

/// What was not achieved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Shortfall {
    #[error("{0}")]
    Findings(String),
    #[error("{refused} of {total} requests refused by the template")]
    Refused { refused: usize, total: usize },
    #[error("the template has {errors} errors and {warnings} warnings")]
    Lint { errors: usize, warnings: usize },
    #[error("the templates differ: {stricter} rules are stricter, {looser} looser, {different} neither")]
    Different { stricter: usize, looser: usize, different: usize },
    #[error("{failed} of {total} template tests failed")]
    Tests { failed: usize, total: usize },
    #[error("{failed} of {total} keys were not signed")]
    NotSigned { failed: usize, total: usize, kind: Kind },
    /// Some of several files; each was named with its reason.
    #[error("{failed} of {total} requests were not {done}")]
    NotAll { failed: usize, total: usize, done: &'static str, kind: Kind },
}

impl Failure for Shortfall {
    fn kind(&self) -> Kind {
        match self {
            Self::Findings(_) | Self::Different { .. } => Kind::Failed,
            Self::Refused { .. } | Self::Lint { .. } | Self::Tests { .. } => Kind::Refused,
            Self::NotSigned { kind, .. } | Self::NotAll { kind, .. } => *kind,
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotSigned { kind, .. } => (*kind == Kind::Untouched).then_some(TOUCH),
            Self::Findings(_)
            | Self::Refused { .. }
            | Self::Lint { .. }
            | Self::Different { .. }
            | Self::Tests { .. }
            | Self::NotAll { .. } => None,
        }
    }
}
