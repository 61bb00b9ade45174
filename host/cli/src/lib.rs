//! The command line of sshsm, and what it does that is not issuing: making a device a certificate authority, keeping it,
//! and flashing boards. Issuing is in `sshsm-ca`, sessions with a device in `sshsm-client`.
//!
//! | to learn about | open |
//! |---|---|
//! | the command line | [`cli`], [`output`], [`quickstart`] |
//! | what makes a device a certificate authority | [`authority`], [`provision`], [`passphrase`] |
//! | a device's objects in a file, for another device | [`backup`], [`shares`] |
//! | a new firmware for a board | [`flash`] |
//! | signed images, and what locks an RP2350 | [`secure_boot`] |

pub mod authority;
pub mod backup;
pub mod cli;
pub mod flash;
pub mod output;
pub mod passphrase;
pub mod provision;
pub mod quickstart;
pub mod secure_boot;
pub mod shares;
