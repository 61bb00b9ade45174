//! Templates: as files, in words, reviewed, compared and tested.
//!
//! What this crate knows of a rule stands in [`rules`], of the parts that every template has in `base`; what is done with
//! all of them, in the other files.

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
