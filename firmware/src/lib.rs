//! The sshsm device: it stores keys, judges certificate requests against templates, and signs.
//!
//! [`Device`] turns one message into one answer. The platform (a board, a desktop, a test) is behind
//! [`Platform`]; the meaning of its messages is in `sshsm-protocol`.
//!
//! | to learn about | open |
//! |---|---|
//! | what a command does | `commands/` |
//! | why a certificate is refused | [`ssh::policy`] |
//! | who may use which object | `authorization.rs` |
//! | what is logged, and when | `audit.rs` |
//! | what waits for a touch | `presence.rs` |
//! | the identity of a device | `identity.rs` |
//! | messages over a byte stream | [`link`] |
//! | what survives a power cut | [`store`] |
//! | the implementation of signatures | [`crypto`] |

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod audit;
mod authorization;
#[cfg(feature = "attestation")]
mod certificate;
mod commands;
pub mod crypto;
mod device;
mod identity;
pub mod link;
mod options;
pub mod platform;
mod presence;
mod session;
pub mod ssh;
pub mod store;

/// The version of this firmware: major, minor, patch.
pub const VERSION: [u8; 3] = [
    number(env!("CARGO_PKG_VERSION_MAJOR")),
    number(env!("CARGO_PKG_VERSION_MINOR")),
    number(env!("CARGO_PKG_VERSION_PATCH")),
];
/// The same as text: `1.2.3`.
pub const VERSION_TEXT: &str = env!("CARGO_PKG_VERSION");
/// Whether it knows nothing that YubiHSM 2 does not: the feature `strict-yubihsm2`.
pub const STRICT: bool = cfg!(feature = "strict-yubihsm2");

const fn number(digits: &str) -> u8 {
    match u8::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => u8::MAX,
    }
}

pub use device::Device;
pub use platform::Platform;
pub use session::{HALF_OPEN, IDLE_TIMEOUT};
pub use store::MountError;
