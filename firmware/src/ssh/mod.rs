//! What makes this device an SSH certificate authority: the signed clock and the policy.

pub mod certificate;
pub mod memory;
pub mod policy;
pub mod subject;
pub mod timestamp;
mod value;
