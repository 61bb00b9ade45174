//! What both ends of an sshsm connection agree on.
//!
//! The messages are YubiHSM 2's, byte for byte; the SSH part is the template that a certificate request is
//! judged by and the request itself. Everything is `no_std`, allocates nothing, forbids `unsafe`, and never
//! panics on input: readers check bounds, and leftovers are an error.
//!
//! | to learn about | open |
//! |---|---|
//! | which commands exist, and what each demands | [`command`] |
//! | how a command's payload is laid out | [`message`] |
//! | messages on the wire | [`frame`], [`channel`] |
//! | messages over a byte stream | [`link`] |
//! | what a device says of itself | [`device_info`], [`device_status`] |
//! | objects and who may use them | [`object`], [`capability`], [`domain`], [`algorithm`] |
//! | the audit log and what is logged | [`audit`], [`option`] |
//! | objects on their way between devices | [`wrapped`] |
//! | SSH templates, certificate requests, timestamps | [`ssh`] |

#![no_std]

#[cfg(test)]
extern crate std;

pub mod algorithm;
pub mod audit;
pub mod capability;
pub mod channel;
pub mod codec;
pub mod command;
pub mod device_info;
pub mod device_status;
pub mod domain;
pub mod error;
pub mod frame;
pub mod label;
pub mod link;
pub mod message;
pub mod object;
pub mod option;
pub mod ssh;
pub mod wrapped;

pub use algorithm::{Algorithm, AsymmetricAlgorithm, Curve};
pub use capability::{Capabilities, Capability};
pub use command::Command;
pub use domain::Domains;
pub use error::DeviceError;
pub use label::Label;
pub use object::{ObjectId, ObjectType};
