//! The protocol that both ends of an sshsm connection share.
//!
//! The messages are YubiHSM 2's, byte for byte; the SSH part consists of certificate requests and of the
//! templates that they are checked against. Everything is `no_std`, allocates nothing, forbids `unsafe`, and
//! never panics on input: readers check bounds, and trailing bytes are an error.
//!
//! | to learn about | open |
//! |---|---|
//! | which commands exist, and what each requires | [`command`] |
//! | the layout of a command's payload | [`message`] |
//! | messages on the wire | [`frame`], [`channel`] |
//! | messages over a byte stream | [`link`] |
//! | what a device reports about itself | [`device_info`], [`device_status`] |
//! | objects and who may use them | [`object`], [`capability`], [`domain`], [`algorithm`] |
//! | the audit log and what is logged | [`audit`], [`option`] |
//! | objects in transit between devices | [`wrapped`] |
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
