//! The sshsm device on a desktop: the same core as on a board, with flash in memory or in a file, and a
//! clock and a power switch that tests can hold.
//!
//! | to learn about | open |
//! |---|---|
//! | the device in this process | [`Simulator`] |
//! | the YubiHSM connector's HTTP service, for any backend | [`connector`] |
//! | the state directory: format, locking, what is refused | [`StateError`] |
//! | the program | `sshsm-sim --help` |
//!
//! # What it is worth
//!
//! A simulator keeps keys in this computer's memory and files: whoever is root, or the same user, has them.
//! Its policy checks are the board's; its walls are not. And a device that ever ran from a **seed**
//! ([`Builder::seed`], `--seed`) is **unsafe for anything but tests**: whoever knows the seed knows every
//! key made with it.

mod clock;
pub mod connector;
mod entropy;
mod flash;
mod platform;
mod simulator;
mod state;

pub use clock::Clock;
pub use platform::{Indicator, Listener, Observer};
pub use simulator::{Builder, Simulator, SimulatorError};
pub use state::StateError;
