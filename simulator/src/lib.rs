//! The sshsm device on a desktop: the same core as on a board, with flash in memory or in a file, and a clock
//! and a power switch that tests can control. To YubiHSM 2 clients it is a YubiHSM 2 behind its connector.
//!
//! # Five lines to a running device
//!
//! ```
//! use sshsm_protocol::ObjectId;
//! use sshsm_simulator::Simulator;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut device = Simulator::memory().start()?;
//! let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
//! assert_eq!(session.echo(b"hello")?, b"hello");
//! drop(session);
//!
//! let served = device.serve()?; // for a client that needs a URL; stops when it is dropped
//! println!("point your client at {}", served.url());
//! # Ok(())
//! # }
//! ```
//!
//! A test about time gives the device a [`Clock`] that it holds, and 30 idle seconds take no time:
//!
//! ```
//! use std::time::Duration;
//! use sshsm_client::ClientError;
//! use sshsm_protocol::{DeviceError, ObjectId};
//! use sshsm_simulator::{Clock, Simulator};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = Clock::held();
//! let mut device = Simulator::memory().clock(clock.clone()).start()?;
//! let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
//! clock.advance(Duration::from_secs(31));
//! let expired = session.echo(b"hello");
//! assert!(matches!(expired, Err(ClientError::Device { error: DeviceError::InvalidSession, .. })));
//! # Ok(())
//! # }
//! ```
//!
//! | to learn about | open |
//! |---|---|
//! | the device in this process | [`Simulator`], and [`sshsm_client::Session`] in it |
//! | the device behind HTTP in this process | [`Simulator::serve`] |
//! | the device on a virtual serial port, as a board | [`Simulator::serve_pty`] |
//! | the contents of a new device, as TOML | [`Provision`] |
//! | the YubiHSM connector's HTTP service, for any backend | [`connector`] |
//! | the basis of every HTTP service: deadlines, limits, web pages | [`http_server`] |
//! | the state directory: format, locking, what is refused | [`StateError`] |
//! | the program | `sshsm-sim --help` |
//!
//! # Security
//!
//! A simulator keeps keys in this computer's memory and files: root, and the user it runs as, can read them.
//! It enforces the board's policy but lacks its physical isolation. A device that ever ran from a **seed**
//! ([`Builder::seed`], `--seed`) is **unsafe for anything but tests**: anyone who knows the seed knows every
//! key made with it.

mod clock;
pub mod connector;
mod entropy;
mod flash;
pub mod http_server;
mod platform;
mod provision;
mod serial_port;
mod served;
mod session;
mod simulator;
mod state;

pub use clock::Clock;
pub use platform::{Indicator, Listener, Observer, Played, Touch};
pub use provision::{Provision, ProvisionError, Provisioned};
pub use serial_port::SerialPort;
pub use served::Served;
pub use simulator::{Builder, Simulator, SimulatorError, Snapshot};
pub use sshsm_firmware::platform::Presence;
pub use state::StateError;
