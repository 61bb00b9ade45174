//! Issuing SSH certificates with a CA key that a device or a token holds: what a program needs between a public key and a
//! certificate in the ledger. Nothing here prints or asks; what a person should know goes to a [`Listener`].
//!
//! | to learn about | open |
//! |---|---|
//! | the one way to a certificate | [`issue`] |
//! | what is asked for, and what ssh-keygen's flags mean | [`request`], [`validity`], [`duration`], [`certificate_options`] |
//! | what signs | [`signer`], [`pkcs11`]; where it is: [`device_address`] |
//! | who states the time | [`timestamp`] |
//! | a certificate, checked | [`certificate`] |
//! | certificates for `ssh-keygen -Us` | [`agent`] |
//! | why a request is refused | [`explanation`] |
//! | templates: in files, what is wrong with one, what changed in it, what it says to requests | [`template`] |
//! | what was signed and revoked, and what the device says of it | [`ledger`], [`krl`], [`presented_certificate`], [`audit`] |
//! | keys in files | [`key_file`], [`device_key`] |
//! | how files are written and opened, and programs started | [`files`], [`input`], [`child`] |
//! | what is shown of addresses with secrets in them, of paths and of errors | [`redact`], [`path`], [`causes`] |

#[cfg(unix)]
pub mod agent;
pub mod audit;
pub mod causes;
pub mod certificate;
pub mod certificate_options;
pub mod child;
pub mod device_address;
pub mod device_key;
pub mod duration;
mod enforced_by;
pub mod explanation;
pub mod files;
pub mod input;
mod integer;
pub mod issue;
pub mod key_file;
pub mod krl;
pub mod ledger;
mod notice;
mod openssh_key;
pub mod path;
pub mod pkcs11;
pub mod presented_certificate;
pub mod redact;
pub mod request;
pub mod signature;
pub mod signer;
#[cfg(test)]
mod ssh_keygen;
pub mod template;
pub mod timestamp;
pub mod validity;

pub use notice::{Listener, Notice};
