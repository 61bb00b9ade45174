//! The host side of sshsm: reach a device, open a session, and have SSH certificates signed under its policy.
//!
//! | to learn about | open |
//! |---|---|
//! | where a device is | [`device_address`] |
//! | keys on PKCS#11 tokens | [`pkcs11`] |
//! | how a certificate is asked for, signed and verified | [`signer`], [`request`], [`timestamp`], [`certificate`] |
//! | certificates for `ssh-keygen -Us` | [`agent`] |
//! | why a request is refused | [`explanation`] |
//! | templates: in files, what is wrong with one, what changed in it, what it says to requests | [`template`] |
//! | keys in files | [`key_file`], [`device_key`] |
//! | what ssh-keygen's flags mean | [`validity`], [`duration`], [`certificate_options`] |
//! | what makes a device a certificate authority | [`authority`], [`provision`], [`passphrase`] |
//! | what was signed and revoked, and what the device says of it | [`ledger`], [`krl`], [`presented_certificate`], [`audit`] |
//! | a device's objects in a file, for another device | [`backup`], [`shares`] |
//! | a new firmware for a board | [`flash`] |
//! | signed images, and what locks an RP2350 | [`secure_boot`] |
//! | how files are written and opened | [`files`], [`input`] |
//! | what is shown of addresses with secrets in them | [`redact`] |
//! | the command line, and the programs that it starts | [`cli`], [`output`], [`child`], [`quickstart`] |

#[cfg(unix)]
pub mod agent;
pub mod audit;
pub mod authority;
pub mod backup;
pub mod certificate;
pub mod certificate_options;
pub mod child;
pub mod cli;
pub mod device_address;
pub mod device_key;
pub mod duration;
pub mod explanation;
pub mod files;
pub mod flash;
pub mod input;
mod integer;
pub mod issue;
pub mod key_file;
pub mod krl;
pub mod ledger;
mod openssh_key;
pub mod output;
pub mod passphrase;
pub mod pkcs11;
pub mod presented_certificate;
pub mod provision;
pub mod quickstart;
pub mod redact;
pub mod request;
pub mod secure_boot;
pub mod shares;
mod signature;
pub mod signer;
#[cfg(test)]
mod ssh_keygen;
pub mod template;
pub mod timestamp;
pub mod validity;
