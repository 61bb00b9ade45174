//! Keys on PKCS#11 tokens: YubiKey, Nitrokey, SoftHSM, whatever has a module.
//!
//! | to learn about | open |
//! |---|---|
//! | how a token and a key on it are named | [`uri`] |
//! | the library that drives a token | [`module`] |
//! | which token is meant, and logging in to it | [`token`] |
//! | which key is meant, and signing with it | [`key`] |
//! | a CA key, and a key that vouches for the time | [`signer`] |
//! | its public key, in all the forms that modules give it | [`public_key`] |
//! | everything that is there, without a PIN | [`inventory`] |
//!
//! A token signs whatever it is asked to. What it is asked is decided on the host: [`signer`] judges each request by
//! the policy that a device has, and says that the host did it.
//!
//! A PIN is tried once. Nothing here repeats a log-in that failed, since each failure brings the token nearer to being
//! locked.

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
