//! The code that all boards share.
//!
//! A board is a thin binary: it sets up its clock, flash, entropy and serial port, implements `Platform`, and
//! calls [`serve`]. Everything common to all of them is here.
//!
//! | to learn about | open |
//! |---|---|
//! | where memory goes and how much was used | [`heap`], [`stack`] |
//! | which part of the flash is the store's, and how it is written | [`region`] |
//! | the root key, and the secret in flash where the chip has none | [`secret`] |
//! | how bytes of the serial port become messages | [`link`] |
//! | how noise becomes keys, and what stops a device with weak noise | [`entropy`], [`health`] |
//! | how RP2350's generator is driven | [`trng`] |
//! | the implementation of signatures on the larger processors | `crypto` |
//! | what the light shows | [`light`] |
//! | when the watchdog is fed | [`progress`] |
//! | how a device stops, and how the next start knows why | [`fault`], [`restart`] |
//! | touching the device | [`touch`] |
//! | the running image | `image` |

#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(all(feature = "dsp", target_os = "none"))]
pub mod crypto;
pub mod entropy;
#[cfg(target_os = "none")]
mod fault;
pub mod health;
#[cfg(target_os = "none")]
pub mod heap;
#[cfg(target_os = "none")]
pub mod image;
pub mod light;
#[cfg(target_os = "none")]
pub mod link;
pub mod progress;
pub mod region;
#[cfg(target_os = "none")]
pub mod restart;
pub mod secret;
#[cfg(target_os = "none")]
mod serve;
#[cfg(target_os = "none")]
pub mod stack;
#[cfg(target_os = "none")]
pub mod touch;
pub mod trng;

#[cfg(target_os = "none")]
pub use serve::{refuse, serve};
