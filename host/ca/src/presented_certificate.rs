//! A certificate as it is presented to a server, parsed as OpenSSH does (PROTOCOL.certkeys, `sshkey.c` and
//! `ssh-keygen -k`).
//!
//! Whatever a server might accept must be revocable. This parser therefore accepts things that our
//! certificates never contain: options in any order, or unknown; numbers with superfluous zeros; names that
//! are not UTF-8; key types that are not signed here. It reads only what a revocation needs: serial number,
//! key id, the two keys, and the signature, without which no server would accept the certificate either.

use ssh_encoding::{Decode as _, Encode as _, Error as EncodingError};
use ssh_key::public::KeyData;

use crate::{
    integer::string,
    key_file::{KeyFormatError, PublicLine},
    openssh_key,
    request::decode_base64,
    signature::{self, VerifyError},
};
use sshsm_client::{Failure, Kind};

/// The ending of the type name of every certificate.
const SUFFIX: &str = "-cert-v01@openssh.com";

/// Why something is not a certificate that a server could accept.
#[derive(Debug, thiserror::Error)]
pub enum PresentedError {
    /// Nothing that looks like one.
    #[error("this is not an OpenSSH certificate; a line such as \"ssh-ed25519{SUFFIX} AAAA…\" is expected")]
    NotACertificate,
    /// A public key without a certificate around it.
    #[error("this is a plain public key ({kind}), not a certificate; revoke it with --key")]
    PlainKey {
        /// Its type.
        kind: String,
    },
    /// More than one line.
    #[error("there are {count} lines in this file; a certificate file holds one")]
    Several {
        /// How many.
        count: usize,
    },
    /// Its base64 is broken.
    #[error("the certificate's base64 is malformed")]
    Base64(#[source] EncodingError),
    /// It is truncated, or has trailing bytes.
    #[error("the {field} of the certificate is malformed")]
    Malformed {
        /// The field.
        field: &'static str,
        /// The defect in the encoding.
        source: EncodingError,
    },
    /// An unknown kind of certificate, whose fields cannot be found.
    #[error("certificates of type {kind:?} are not known to this program")]
    Kind {
        /// Its name for itself.
        kind: String,
    },
    /// One of its keys cannot be read.
    #[error("the {field} of the certificate cannot be read")]
    Key {
        /// Which.
        field: &'static str,
        /// The defect.
        source: KeyFormatError,
    },
}

impl Failure for PresentedError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

/// A certificate, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// The number by which it can be revoked; 0 is none.
    pub serial: u64,
    /// The text by which it can be revoked; any bytes.
    pub key_id: Vec<u8>,
    /// The CA's public key.
    pub ca: KeyData,
    /// The certified key, in SSH's encoding.
    subject: Vec<u8>,
    /// The bytes that the CA signed.
    signed: Vec<u8>,
    /// `string algorithm ‖ string signature`.
    signature: Vec<u8>,
}

impl PresentedCertificate {
    /// Reads a file as OpenSSH does: one line, whose comment may be any bytes; empty lines, and those that
    /// begin with `#`, are ignored.
    ///
    /// # Errors
    /// When it has no certificate, several lines, or a certificate that OpenSSH cannot read either.
    pub fn from_file(bytes: &[u8]) -> Result<Self, PresentedError> {
        let lines: Vec<&[u8]> = bytes
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
            .collect();
        let line = lines.first().and_then(|line| PublicLine::find(line));
        let Some(PublicLine { kind, data, .. }) = line else { return Err(PresentedError::NotACertificate) };
        if lines.len() > 1 {
            return Err(PresentedError::Several { count: lines.len() });
        }
        let blob = decode_base64(data).map_err(PresentedError::Base64)?;
        // What counts is how it calls itself inside.
        match Self::from_bytes(&blob) {
            Err(PresentedError::NotACertificate) => Err(PresentedError::PlainKey { kind: kind.to_owned() }),
            read => read,
        }
    }

    /// Reads a certificate in SSH's encoding.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_bytes(blob: &[u8]) -> Result<Self, PresentedError> {
        let malformed = |field| move |source| PresentedError::Malformed { field, source };
        let mut reader = blob;
        let name = string(&mut reader).map_err(malformed("type"))?;
        let name = String::from_utf8_lossy(name);
        let Some(kind) = name.strip_suffix(SUFFIX) else { return Err(PresentedError::NotACertificate) };
        let unknown = || PresentedError::Kind { kind: name.clone().into_owned() };
        let (kind, strings) = key_strings(kind).ok_or_else(unknown)?;
        string(&mut reader).map_err(malformed("nonce"))?;
        let mut subject = kind.encode_vec().map_err(malformed("subject key"))?;
        for _ in 0..strings {
            let part = string(&mut reader).map_err(malformed("subject key"))?;
            part.encode(&mut subject).map_err(malformed("subject key"))?;
        }
        let serial = u64::decode(&mut reader).map_err(malformed("serial number"))?;
        u32::decode(&mut reader).map_err(malformed("kind"))?;
        let key_id = string(&mut reader).map_err(malformed("key id"))?.to_vec();
        string(&mut reader).map_err(malformed("list of principals"))?;
        for field in ["start of validity", "end of validity"] {
            u64::decode(&mut reader).map_err(malformed(field))?;
        }
        for field in ["critical options", "extensions", "reserved field"] {
            string(&mut reader).map_err(malformed(field))?;
        }
        let ca = string(&mut reader).map_err(malformed("CA key"))?;
        let ca =
            openssh_key::public_key(ca).map_err(|source| PresentedError::Key { field: "CA key", source })?;
        let signed = blob.get(..blob.len() - reader.len()).unwrap_or_default().to_vec();
        let signature = string(&mut reader).map_err(malformed("signature"))?.to_vec();
        match reader.len() {
            0 => Ok(Self { serial, key_id, ca, subject, signed, signature }),
            remaining => Err(malformed("end")(EncodingError::TrailingData { remaining })),
        }
    }

    /// The certified key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn subject_key(&self) -> Result<KeyData, KeyFormatError> {
        openssh_key::public_key(&self.subject)
    }

    /// Fails unless the CA signed it.
    ///
    /// # Errors
    /// When the signature is another's, or of a kind that cannot be verified here.
    pub fn verify(&self) -> Result<(), VerifyError> {
        signature::verify(&self.ca, &self.signed, &self.signature)
    }
}

/// The type name of the key in certificates of type `kind`, and how many strings it consists of. As in
/// OpenSSH's table, RSA certificates may be named after the signatures made with them.
fn key_strings(kind: &str) -> Option<(&str, usize)> {
    Some(match kind {
        "ssh-rsa" | "rsa-sha2-256" | "rsa-sha2-512" => ("ssh-rsa", 2),
        "ssh-dss" => (kind, 4),
        "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" => (kind, 2),
        "ssh-ed25519" => (kind, 1),
        "sk-ecdsa-sha2-nistp256" => ("sk-ecdsa-sha2-nistp256@openssh.com", 3),
        "sk-ssh-ed25519" => ("sk-ssh-ed25519@openssh.com", 2),
        "ssh-mldsa44-ed25519" => ("ssh-mldsa44-ed25519@openssh.com", 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::{SshKeygen, vector_file};
    use proptest::prelude::*;

    #[test]
    fn certificates_of_every_kind_and_ca_are_read_and_verified() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let subjects = keygen.ca_keys();
        for (ca, ca_key) in &subjects {
            for (subject, subject_key) in &subjects {
                let line = keygen.sign("UTC", ca, subject, &["-I", "id", "-z", "7"]).unwrap();
                let presented = PresentedCertificate::from_file(line.as_bytes()).unwrap();
                assert_eq!((presented.serial, presented.key_id.as_slice()), (7, &b"id"[..]));
                assert_eq!(&presented.ca, ca_key.key_data());
                assert_eq!(&presented.subject_key().unwrap(), subject_key.key_data());
                presented.verify().unwrap();
            }
        }
        // The three digests of an RSA key, and one that is longer than most.
        keygen.key("long", "rsa", "4608");
        for (ca, algorithm) in
            [("ca-rsa2048", "ssh-rsa"), ("ca-rsa2048", "rsa-sha2-256"), ("long", "rsa-sha2-512")]
        {
            let line = keygen.sign("UTC", ca, "ca-ed25519", &["-t", algorithm, "-I", "id"]).unwrap();
            PresentedCertificate::from_file(line.as_bytes()).unwrap().verify().unwrap();
        }
    }

    #[test]
    fn a_signature_that_is_not_the_cas_does_not_verify() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (ca, _) in keygen.ca_keys() {
            let line = keygen.sign("UTC", &ca, "ca-ed25519", &["-I", "id"]).unwrap();
            let blob = decode_base64(line.split(' ').nth(1).unwrap()).unwrap();
            // In the serial number, and in the signature.
            for place in [blob.len() - 1, 4 + 32 + 4 + 32 + 4 + 32 + 7] {
                let mut changed = blob.clone();
                changed[place] ^= 1;
                let presented = PresentedCertificate::from_bytes(&changed).unwrap();
                assert!(matches!(presented.verify(), Err(VerifyError::Wrong { .. })), "{ca} {place}");
            }
        }
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let key = keygen.key("key", "ed25519", "").to_openssh().unwrap();
        keygen.key("ca", "ed25519", "");
        let line = keygen.sign("UTC", "ca", "key", &["-I", "id"]).unwrap();
        let read = |text: &str| PresentedCertificate::from_file(text.as_bytes()).unwrap_err();
        assert!(matches!(read(&key), PresentedError::PlainKey { kind } if kind == "ssh-ed25519"));
        for text in ["", "hello", "# only a remark", "-----BEGIN CERTIFICATE-----"] {
            assert!(matches!(read(text), PresentedError::NotACertificate), "{text}");
        }
        assert!(matches!(read(&line.repeat(2)), PresentedError::Several { count: 2 }));
        assert!(matches!(
            read(&line.replacen('=', "!", 1).replacen("AAAA", "AAAA!", 1)),
            PresentedError::Base64(_)
        ));
        let blob = decode_base64(line.split(' ').nth(1).unwrap()).unwrap();
        for length in 40..blob.len() {
            let cut = PresentedCertificate::from_bytes(&blob[..length]);
            assert!(
                matches!(cut, Err(PresentedError::Malformed { .. } | PresentedError::Key { .. })),
                "{length}"
            );
        }
        let long = PresentedCertificate::from_bytes(&[blob.as_slice(), b"x"].concat());
        assert!(matches!(long, Err(PresentedError::Malformed { field: "end", .. })), "{long:?}");
        // As it may look in a file edited by others.
        let dressed = [b"# m\xfcller\n\n  ", line.trim().as_bytes(), b" \xff comment\r\n"].concat();
        assert!(PresentedCertificate::from_file(&dressed).is_ok());
    }

    /// Its signature cannot be verified here, and the error says so.
    #[test]
    fn a_post_quantum_certificate_is_read() {
        let Some(file) = vector_file("openssh-mldsa/user-mldsa-cert.pub") else { return };
        let presented = PresentedCertificate::from_file(&file).unwrap();
        assert!(!crate::krl::is_read_everywhere(&presented.ca));
        assert!(matches!(presented.verify(), Err(VerifyError::Unsupported { .. })));
        let Some(file) = vector_file("openssh-mldsa/user-mldsa-by-p384-cert.pub") else { return };
        PresentedCertificate::from_file(&file).unwrap().verify().unwrap();
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(file in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = PresentedCertificate::from_file(&file);
            let _ = PresentedCertificate::from_bytes(&file);
        }
    }
}
