//! The contents of a certificate, read from its file by a library that is neither OpenSSH's nor ours.

use crate::key::Key;
use ssh_key::{
    Certificate, HashAlg, PublicKey, certificate::CertType, encoding::Encode as _, public::KeyData,
};
use std::{collections::BTreeMap, fs, path::Path};

/// OpenSSH's nonces, in bytes.
const NONCE: usize = 32;

/// Everything that the requester of a certificate can influence: all of it except nonce and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the certificate format's")]
pub struct Fields {
    pub algorithm: String,
    pub public_key: Vec<u8>,
    pub serial: u64,
    pub kind: CertType,
    pub key_id: String,
    pub principals: Vec<String>,
    pub valid_after: u64,
    pub valid_before: u64,
    pub critical_options: BTreeMap<String, String>,
    pub extensions: BTreeMap<String, String>,
    pub signature_key: Vec<u8>,
    pub signature_algorithm: String,
    pub comment: String,
    /// The signed bytes with the nonce's 32 bytes cleared: they reveal differences that the fields above
    /// might not.
    pub signed_bytes: Vec<u8>,
}

/// Reads a certificate file and checks that the authority with the public key in `authority` signed it.
///
/// # Panics
/// When the file is not one certificate in its canonical form, its nonce is not 32 bytes, or the signature is
/// wrong or another's.
#[must_use]
pub fn read(path: &Path, authority: &Key) -> Fields {
    let line = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let certificate = Certificate::from_openssh(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(certificate.to_openssh().unwrap() + "\n", line, "re-encoding changes nothing");
    certificate
        .validate_at(certificate.valid_after(), [&authority.public_key().fingerprint(HashAlg::Sha256)])
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    Fields {
        algorithm: certificate.algorithm().to_certificate_type(),
        public_key: encoded(certificate.public_key()),
        serial: certificate.serial(),
        kind: certificate.cert_type(),
        key_id: certificate.key_id().to_owned(),
        principals: certificate.valid_principals().to_vec(),
        valid_after: certificate.valid_after(),
        valid_before: certificate.valid_before(),
        critical_options: certificate.critical_options().0.clone(),
        extensions: certificate.extensions().0.clone(),
        signature_key: encoded(certificate.signature_key()),
        signature_algorithm: certificate.signature().algorithm().to_string(),
        comment: certificate.comment().to_string(),
        signed_bytes: signed_bytes(&certificate),
    }
}

fn encoded(key: &KeyData) -> Vec<u8> {
    PublicKey::from(key.clone()).to_bytes().unwrap()
}

/// The blob up to its signature, which is the last field, with a cleared nonce, which is the second.
fn signed_bytes(certificate: &Certificate) -> Vec<u8> {
    let mut blob = certificate.to_bytes().unwrap();
    blob.truncate(blob.len() - certificate.signature().encoded_len_prefixed().unwrap());
    let nonce = 4 + certificate.algorithm().to_certificate_type().len() + 4;
    assert_eq!(certificate.nonce(), &blob[nonce..nonce + NONCE], "nonce of {NONCE} bytes");
    blob[nonce..nonce + NONCE].fill(0);
    blob
}
