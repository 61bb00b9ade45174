//! Who enforces a template.

use std::fmt;

use serde::Serialize;

/// Who sees to it that nothing is signed but what the template allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EnforcedBy {
    /// The device that has the CA key: nobody can talk it out of it.
    Device,
    /// This program: whoever can use the CA key without it can sign anything.
    Host,
}

impl fmt::Display for EnforcedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Host => "host",
        })
    }
}
