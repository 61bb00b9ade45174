//! A finished certificate, checked before it is handed out.
//!
//! Checks that it is the request and nothing else, byte for byte, that the signature is the expected CA
//! key's, made with the expected algorithm, and that an independent parser of the format accepts it.

use rsa::signature::Verifier;
use ssh_encoding::Decode as _;
use ssh_key::public::KeyData;
use ssh_key::{Certificate, Signature};
use sshsm_protocol::ssh::request::{Request, RequestError};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;

use crate::request::{BuildError, SigningRequest, decode_base64};

/// Why a certificate is not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No line of a `-cert.pub` file.
    #[error("the device's certificate is malformed")]
    Malformed(#[source] ssh_key::Error),
    /// It differs from the request.
    #[error("the {field} of the certificate is not what was asked for")]
    Different {
        /// What differs.
        field: &'static str,
    },
    /// It cannot be split before its signature.
    #[error("the certificate is malformed")]
    Request(#[source] RequestError),
    /// Its content cannot come from a request.
    #[error("the certificate is malformed")]
    Content(#[source] BuildError),
    /// Signed by another method than was asked for.
    #[error("the certificate is signed with {found}, and {expected} was asked for")]
    Algorithm {
        /// The signature's.
        found: String,
        /// The requested one.
        expected: &'static str,
    },
    /// The signature does not verify under the CA's key.
    #[error("the signature of the certificate does not belong to the CA key")]
    Signature,
}

/// Checks that `certificate`, in SSH's encoding, is `request` signed by `ca` with `algorithm`.
///
/// # Errors
/// [`CertificateError`] says what is wrong with it.
pub fn verify(
    certificate: &[u8],
    request: &[u8],
    ca: &KeyData,
    algorithm: SignatureAlgorithm,
) -> Result<Certificate, CertificateError> {
    let parsed = Certificate::from_bytes(certificate).map_err(CertificateError::Malformed)?;
    let mut signature = certificate;
    let found = Request::decode_front(&mut signature).map_err(CertificateError::Request)?;
    let expected = Request::decode(request).map_err(CertificateError::Request)?;
    if let Some(field) = difference(&found, &expected) {
        return Err(CertificateError::Different { field });
    }
    if parsed.signature_key() != ca {
        return Err(CertificateError::Different { field: "signature key" });
    }
    if !certificate.starts_with(request) {
        return Err(CertificateError::Different { field: "encoding" });
    }
    let signature = signature.get(4..).unwrap_or_default();
    let signature = Signature::try_from(signature).map_err(CertificateError::Malformed)?;
    if signature.algorithm().as_str() != algorithm.name() {
        let found = signature.algorithm().to_string();
        return Err(CertificateError::Algorithm { found, expected: algorithm.name() });
    }
    ca.verify(request, &signature).map_err(|_| CertificateError::Signature)?;
    Ok(parsed)
}

/// The content of a certificate, once its signature is verified: `certificate` is a line of a `-cert.pub`
/// file, `ca` the key that must have signed it, with any algorithm that such a key has.
///
/// # Errors
/// When it is not a certificate, or not this CA's.
pub fn signed_by(certificate: &str, ca: &KeyData) -> Result<SigningRequest, CertificateError> {
    let base64 = certificate.split_whitespace().nth(1).unwrap_or_default();
    let blob = decode_base64(base64).map_err(|error| CertificateError::Malformed(error.into()))?;
    let mut rest = blob.as_slice();
    Request::decode_front(&mut rest).map_err(CertificateError::Request)?;
    let (request, _) = blob.split_at(blob.len() - rest.len());
    let signature =
        Vec::<u8>::decode(&mut rest).map_err(|error| CertificateError::Malformed(error.into()))?;
    if !rest.is_empty() {
        return Err(CertificateError::Different { field: "end" });
    }
    let signature = Signature::try_from(signature.as_slice()).map_err(CertificateError::Malformed)?;
    let request = SigningRequest::from_bytes(request.to_vec()).map_err(CertificateError::Content)?;
    let (_, signer) = request.keys().map_err(CertificateError::Malformed)?;
    if signer != *ca {
        return Err(CertificateError::Different { field: "signature key" });
    }
    ca.verify(request.as_bytes(), &signature).map_err(|_| CertificateError::Signature)?;
    Ok(request)
}

/// The first field, in their order, in which two requests differ.
fn difference(found: &Request<'_>, expected: &Request<'_>) -> Option<&'static str> {
    [
        ("nonce", found.nonce == expected.nonce),
        ("subject key", found.subject_key == expected.subject_key),
        ("serial", found.serial == expected.serial),
        ("kind", found.kind == expected.kind),
        ("key id", found.key_id == expected.key_id),
        ("principals", found.principals == expected.principals),
        ("start of validity", found.valid_after == expected.valid_after),
        ("end of validity", found.valid_before == expected.valid_before),
        ("critical options", found.critical_options == expected.critical_options),
        ("extensions", found.extensions == expected.extensions),
        ("signature key", found.signature_key == expected.signature_key),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::{SshKeygen, to_be_signed, vector};
    use ssh_encoding::Encode;
    use sshsm_protocol::ssh::public_key::SshCurve;

    /// As the function itself, of the line of a `-cert.pub` file.
    fn verify(
        line: &str,
        request: &[u8],
        ca: &KeyData,
        algorithm: SignatureAlgorithm,
    ) -> Result<Certificate, CertificateError> {
        super::verify(&decode_base64(line.split(' ').nth(1).unwrap()).unwrap(), request, ca, algorithm)
    }

    #[test]
    fn what_ssh_keygen_signed_passes_under_its_key_and_algorithm_only() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("subject", "ed25519", "");
        let ca = keygen.key("ca", "rsa", "2048");
        let other = keygen.key("other", "rsa", "2048");
        let flags = |algorithm| ["-t", algorithm, "-I", "id", "-n", "alice"];
        for algorithm in
            [SignatureAlgorithm::RsaSha1, SignatureAlgorithm::RsaSha256, SignatureAlgorithm::RsaSha512]
        {
            let line = keygen.sign("UTC", "ca", "subject", &flags(algorithm.name())).unwrap();
            let request = to_be_signed(&line);
            assert_eq!(verify(&line, &request, ca.key_data(), algorithm).unwrap().key_id(), "id");
            let wrong = verify(&line, &request, ca.key_data(), SignatureAlgorithm::Ed25519);
            assert!(matches!(wrong, Err(CertificateError::Algorithm { .. })));
            let wrong = verify(&line, &request, other.key_data(), algorithm);
            assert!(matches!(wrong, Err(CertificateError::Different { field: "signature key" })));
        }
    }

    #[test]
    fn each_field_that_differs_is_named() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("subject", "ed25519", "");
        let ca = keygen.key("ca", "ed25519", "");
        let sign = |flags: &[&str]| keygen.sign("UTC", "ca", "subject", flags).unwrap();
        let line = sign(&["-I", "id", "-n", "alice", "-z", "1", "-V", "0x10:0x20"]);
        let request = to_be_signed(&line);
        let asked = Request::decode(&request).unwrap();
        let expect = |asked: Request<'_>, field: &str| {
            let mut request = Vec::new();
            asked.encode(&mut request).unwrap();
            let result = verify(&line, &request, ca.key_data(), SignatureAlgorithm::Ed25519);
            assert!(
                matches!(result, Err(CertificateError::Different { field: found }) if found == field),
                "{field}"
            );
        };
        let changed = to_be_signed(&sign(&["-I", "other", "-n", "bob", "-h", "-O", "force-command=x"]));
        let changed = Request::decode(&changed).unwrap();
        expect(Request { nonce: changed.nonce, ..asked }, "nonce");
        expect(Request { serial: 2, ..asked }, "serial");
        expect(Request { kind: changed.kind, ..asked }, "kind");
        expect(Request { key_id: changed.key_id, ..asked }, "key id");
        expect(Request { principals: changed.principals, ..asked }, "principals");
        expect(Request { valid_after: 0x11, ..asked }, "start of validity");
        expect(Request { valid_before: 0x21, ..asked }, "end of validity");
        expect(Request { critical_options: changed.critical_options, ..asked }, "critical options");
        expect(Request { extensions: changed.extensions, ..asked }, "extensions");
        let key = sshsm_protocol::ssh::public_key::PublicKey::Ed25519(&[1; 32]);
        expect(Request { signature_key: key, ..asked }, "signature key");
        let subject_key = sshsm_protocol::ssh::request::SubjectKey::Plain(key);
        expect(Request { subject_key, ..asked }, "subject key");
    }

    #[test]
    fn a_changed_signature_is_refused() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("subject", "ed25519", "");
        for (name, ca) in keygen.ca_keys() {
            let line = keygen.sign("UTC", &name, "subject", &["-I", "id"]).unwrap();
            let request = to_be_signed(&line);
            let mut blob = decode_base64(line.split(' ').nth(1).unwrap()).unwrap();
            let last = blob.len() - 1;
            blob[last] ^= 1;
            let changed = Certificate::from_bytes(&blob).unwrap();
            let algorithm = changed.signature().algorithm();
            let algorithm = [SignatureAlgorithm::RsaSha512, SignatureAlgorithm::Ed25519]
                .into_iter()
                .chain([SshCurve::P256, SshCurve::P384, SshCurve::P521].map(SignatureAlgorithm::Ecdsa))
                .find(|known| known.name() == algorithm.as_str())
                .unwrap();
            assert!(verify(&line, &request, ca.key_data(), algorithm).is_ok(), "{name}");
            let changed = verify(&changed.to_openssh().unwrap(), &request, ca.key_data(), algorithm);
            assert!(matches!(changed, Err(CertificateError::Signature)), "{name}: {changed:?}");
        }
    }

    #[test]
    fn the_certificate_of_real_hardware_passes() {
        let value = |pointer| vector("yubihsm2-ssh.json", pointer);
        let Some(blob) = value("/certificate") else { return };
        let certificate = Certificate::from_bytes(&blob).unwrap();
        let line = certificate.to_openssh().unwrap();
        let (request, ca) = (value("/sign/request").unwrap(), certificate.signature_key());
        assert_eq!([request.as_slice(), &value("/response").unwrap()].concat(), blob);
        assert!(verify(&line, &request, ca, SignatureAlgorithm::RsaSha1).is_ok());
        assert_eq!(ca.encode_vec().unwrap(), request[request.len() - ca.encoded_len().unwrap()..]);
    }

    #[test]
    fn what_is_no_certificate_is_malformed() {
        let key = KeyData::Ed25519(ssh_key::public::Ed25519PublicKey([1; 32]));
        for bytes in [&b""[..], b"hello", b"\0\0\0\x20ssh-ed25519-cert-v01@openssh.com", &[0; 3]] {
            let result = super::verify(bytes, b"", &key, SignatureAlgorithm::Ed25519);
            assert!(matches!(result, Err(CertificateError::Malformed(_))), "{bytes:?}");
        }
    }
}
