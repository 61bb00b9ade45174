//! A signature by real YubiHSM 2 hardware, read from the vectors next to the workspace.

use crate::requirement::{Missing, shared_vector};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::fs;

/// Bytes written as lower-case hex.
#[derive(Clone, Debug)]
pub struct Hex(pub Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base16ct::lower::decode_vec(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// One certificate signing: `yubihsm2-ssh.json`.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the fields are the file's")]
pub struct Signing {
    pub ca_key: AuthorityKey,
    pub template: StoredTemplate,
    pub sign: Request,
    /// The outer length, then the SSH signature: what follows the request in the certificate.
    pub response: Hex,
    /// The finished certificate.
    pub certificate: Hex,
}

/// The authority's RSA-2048 key and its location.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the fields are the file's")]
pub struct AuthorityKey {
    pub p: Hex,
    pub q: Hex,
    pub object_id: u16,
    /// Domain numbers, 1 to 16.
    pub domains: Vec<u8>,
}

/// The template and its location.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the fields are the file's")]
pub struct StoredTemplate {
    pub object_id: u16,
    /// Domain numbers, 1 to 16.
    pub domains: Vec<u8>,
    pub bytes: Hex,
}

/// The message sent: command 0x5d with algorithm 1 (`rsa-pkcs1-sha1`).
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the fields are the file's")]
pub struct Request {
    /// Seconds since 1970.
    pub now: u32,
    /// RSA-2048, 256 bytes.
    pub timestamp_signature: Hex,
    /// The certificate to be signed.
    pub request: Hex,
}

/// A template that the vendor published: `yubihsm2-template.json`.
#[derive(Debug, Deserialize)]
pub struct Template {
    /// Its TLV bytes.
    pub bytes: Hex,
}

/// Reads `yubihsm2-ssh.json`.
///
/// # Errors
/// [`Missing`] if the vectors are not available.
pub fn signing() -> Result<Signing, Missing> {
    read("yubihsm2-ssh.json")
}

/// Reads `yubihsm2-template.json`.
///
/// # Errors
/// [`Missing`] if the vectors are not available.
pub fn template() -> Result<Template, Missing> {
    read("yubihsm2-template.json")
}

fn read<T: DeserializeOwned>(name: &str) -> Result<T, Missing> {
    let path = shared_vector(name)?;
    let vector = serde_json::from_slice(&fs::read(&path).unwrap());
    Ok(vector.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}
