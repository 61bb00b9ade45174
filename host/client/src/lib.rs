//! A client of the sshsm device, and of a YubiHSM 2: sessions, and their commands with types, over any exchange of frames.
//!
//! ```no_run
//! use sshsm_client::{Client, Connector, Listener, Session};
//! use sshsm_protocol::ObjectId;
//!
//! let device = Connector::open("localhost:12345")?;
//! let mut client = Client::connect(Box::new(device), Listener::default())?;
//! let mut session = Session::open(&mut client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
//! assert_eq!(session.echo(b"hello")?, b"hello");
//! # Ok::<(), sshsm_client::ClientError>(())
//! ```
//!
//! | to learn about | open |
//! |---|---|
//! | how a frame reaches a device | [`Exchange`], [`Connector`], [`serial`], [`board`] |
//! | an exchange that can be abandoned | [`interruptible`] |
//! | a device outside any session | [`Client`], [`Identity`] |
//! | a session and its commands | [`Session`], [`Credential`] |
//! | secrets for a device whose password everyone knows | [`private_session`] |
//! | progress messages for the caller | [`Listener`], [`Notice`] |
//! | whose fault an error is, and what to do next | [`Failure`], [`Kind`] |
//!
//! # Features
//!
//! - `http`: a device behind a YubiHSM connector.
//! - `serial`: a board on a serial port.

#[cfg(feature = "serial")]
pub mod board;
mod client;
mod commands;
#[cfg(feature = "http")]
mod connector;
mod credential;
mod error;
pub mod exchange;
pub mod failure;
mod handshake;
mod identity;
pub mod interruptible;
mod notice;
mod plain;
pub mod private_session;
#[cfg(feature = "serial")]
pub mod serial;
mod session;

pub use client::Client;
pub use commands::{found, random_id};
#[cfg(feature = "http")]
pub use connector::Connector;
pub use credential::{Credential, NewKey};
pub use error::{ClientError, TOUCH};
pub use exchange::{Exchange, ExchangeError};
pub use failure::{Failure, Kind};
pub use identity::{DevicePublicKey, Identity, Status};
pub use notice::{Listener, Notice};
#[cfg(feature = "serial")]
pub use serial::Serial;
pub use session::Session;
