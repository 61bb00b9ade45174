//! Keys on PKCS#11 tokens: YubiKey, Nitrokey, SoftHSM, anything with a module.
//!
//! | to learn about | open |
//! |---|---|
//! | naming a token and a key on it | [`uri`] |
//! | the library that drives a token | [`module`] |
//! | selecting a token, and logging in to it | [`token`] |
//! | selecting a key, and signing with it | [`key`] |
//! | a CA key, and a timestamp key | [`signer`] |
//! | its public key, in all the forms that modules use | [`public_key`] |
//! | everything that is visible without a PIN | [`inventory`] |
//!
//! A token signs whatever it is asked to. The host decides what it is asked: [`signer`] judges each request
//! by the same policy as a device, and reports that the host did so.
//!
//! A PIN is tried once. A failed login is never repeated automatically, since each failure brings the token
//! closer to being locked.

pub mod error;
pub mod inventory;
pub mod key;
pub mod module;
pub mod public_key;
pub mod signer;
pub mod token;
pub mod uri;

pub use error::Pkcs11Error;
pub use key::TokenKey;
pub use signer::{TokenSigner, TokenTimestamps};
pub use token::{AskPin, PinRequest};
pub use uri::{Uri, UriError};
