//! Templates: as files, in words, reviewed, compared and tested.
//!
//! [`rules`] contains everything that this crate knows about each rule, and `base` the parts that every
//! template has; the other files operate on all of them.

mod base;
mod compare;
pub mod diff;
pub mod file;
pub mod lint;
mod lints;
mod problem;
pub mod rules;
pub mod suite;
mod words;

pub use problem::Problem;
pub use words::describe;
