//! The commands of a session, typed: a file for each kind.

mod audit_log;
mod device;
mod objects;
mod options;
mod signing;
mod wrap;

pub use objects::{found, random_id};
