//! The certificate before it is signed: built from ssh-keygen's flags, byte for byte as ssh-keygen does.
//!
//! A [`SigningRequest`] is a whole OpenSSH certificate up to and including the CA's public key; the signature
//! that the device returns is appended. [`StoredRequest`] is such a request in a file, either alone, or with
//! its timestamp (the vendor tool's form), or extracted from a finished certificate.

use base64ct::{Base64, Encoding as _};
use ssh_encoding::{Base64Reader, Decode, Encode, Reader};
use ssh_key::public::KeyData;
use ssh_key::{Certificate, PublicKey};
use sshsm_firmware::ssh::subject::{self, SubjectKeyError};
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::message::SignSshCertificate;
use sshsm_protocol::ssh::public_key::{self, PublicKeyError, SshCurve};
use sshsm_protocol::ssh::request::{
    CertificateKind, Field, MAX_PRINCIPALS, Options, Principals, Request, RequestError, SubjectKey,
};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::timestamp::Now;

use crate::certificate_options::{self, CertificateOptions, DEFAULT_EXTENSIONS, OptionList};
use crate::integer::string;
use crate::timestamp::SIGNATURE_LENGTHS;
use crate::validity::{Validity, ValidityError};
use sshsm_client::{Failure, Kind};

/// Bytes of a nonce, as many as OpenSSH uses.
const NONCE_LENGTH: usize = 32;

/// The command's fixed part: CA key id, template id, signature algorithm, now.
pub(crate) const COMMAND_LENGTH: usize = SignSshCertificate::LAYOUT.fixed;

/// The ending of the type name of every certificate.
const TYPE_SUFFIX: &[u8] = b"-cert-v01@openssh.com";

/// The content of a certificate, apart from its two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// For a user or for a host.
    pub kind: CertificateKind,
    /// The number by which it can be revoked.
    pub serial: u64,
    /// Free text that `sshd` logs.
    pub key_id: String,
    /// Names it is valid for, in their order.
    pub principals: Vec<String>,
    /// When it is valid.
    pub validity: Validity,
    /// Its critical options and extensions.
    pub options: CertificateOptions,
}

/// Why there is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A principal without a name, as a doubled comma makes one.
    #[error("there is an empty name in the principals {0:?}; separate names by single commas")]
    EmptyPrincipal(String),
    /// More names than OpenSSH reads.
    #[error("{0} principals are more than the {MAX_PRINCIPALS} that OpenSSH reads")]
    TooManyPrincipals(usize),
    /// The subject key is of a kind that no certificate is issued for.
    #[error("there are no certificates for {kind} keys")]
    Subject {
        /// SSH's name of the kind.
        kind: String,
    },
    /// OpenSSH cannot read the subject key, or anyone can sign for it.
    #[error("this key cannot be certified")]
    Unusable(#[source] SubjectKeyError),
    /// The numbers of one of the two keys are not in the form that SSH demands.
    #[error("the {field} is malformed")]
    Key {
        /// Subject key or signature key.
        field: Field,
        /// The defect.
        source: PublicKeyError,
    },
    /// An option whose value OpenSSH's servers cannot read, so that they refuse the certificate.
    #[error("OpenSSH refuses a certificate whose option {name:?} {reason}")]
    Option {
        /// The option.
        name: String,
        /// The defect of its value, in words that follow its name.
        reason: String,
    },
    /// Text that is not UTF-8, which neither the ledger nor this program's certificate parser accepts.
    #[error("the {0} of the certificate are not UTF-8 text")]
    NotUtf8(Field),
    /// This program's other certificate parser, which checks every certificate that a device returns, cannot
    /// parse it.
    #[error("the certificate could not be read again once it was signed")]
    Unreadable(#[source] ssh_key::Error),
    /// The content breaks a rule of the format.
    #[error("a certificate cannot contain this")]
    Content(#[source] RequestError),
    /// The request does not fit the device's message.
    #[error(
        "the request takes {length} bytes, but the device has room for {room} besides the timestamp signature; name \
         fewer principals, or shorten the key id and the options"
    )]
    TooLong {
        /// Bytes of the request.
        length: usize,
        /// Bytes there is room for.
        room: usize,
    },
    /// It would never be valid.
    #[error("the certificate would never be valid")]
    Validity(#[source] ValidityError),
    /// The system supplies no random numbers.
    #[error("the operating system supplies no random numbers")]
    Entropy,
    /// An encoder failed, which well-formed content never makes it do.
    #[error("the certificate cannot be encoded")]
    Encoding(#[source] ssh_encoding::Error),
}

impl Failure for BuildError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

/// The names in a text such as that of `-n`: separated by commas, none of them empty, no more than OpenSSH
/// reads.
pub fn principals(text: &str) -> Result<Vec<String>, BuildError> {
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(BuildError::EmptyPrincipal(text.to_owned()));
    }
    if names.len() > MAX_PRINCIPALS {
        return Err(BuildError::TooManyPrincipals(names.len()));
    }
    Ok(names)
}

/// The longest request that a device accepts together with a timestamp signature of this many bytes.
#[must_use]
pub const fn room(timestamp_signature: usize) -> usize {
    MAX_INNER_PAYLOAD.saturating_sub(COMMAND_LENGTH + timestamp_signature)
}

/// A certificate to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    bytes: Vec<u8>,
    comment: String,
}

impl SigningRequest {
    /// A certificate for `subject` under the CA key `ca`, with a nonce of 32 random bytes.
    ///
    /// `subject` may be any of the seven plain and security-key types that OpenSSH issues certificates for, `ca` any
    /// plain one. The certificate takes over the subject's comment.
    pub fn new(subject: &PublicKey, content: &Content, ca: &KeyData) -> Result<Self, BuildError> {
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).map_err(|_| BuildError::Entropy)?;
        Self::with_nonce(subject, content, ca, &nonce)
    }

    fn with_nonce(
        subject: &PublicKey,
        content: &Content,
        ca: &KeyData,
        nonce: &[u8],
    ) -> Result<Self, BuildError> {
        if content.principals.len() > MAX_PRINCIPALS {
            return Err(BuildError::TooManyPrincipals(content.principals.len()));
        }
        if content.principals.iter().any(String::is_empty) {
            return Err(BuildError::EmptyPrincipal(content.principals.join(",")));
        }
        let names = strings(content.principals.iter().map(String::as_bytes)).map_err(BuildError::Encoding)?;
        let critical = options(&content.options.critical).map_err(BuildError::Encoding)?;
        let extensions = options(&content.options.extensions).map_err(BuildError::Encoding)?;
        let subject_blob = subject.key_data().encode_vec().map_err(BuildError::Encoding)?;
        let ca_blob = ca.encode_vec().map_err(BuildError::Encoding)?;
        let request = Request {
            nonce,
            subject_key: subject_key(subject.key_data(), &subject_blob)?,
            serial: content.serial,
            kind: content.kind,
            key_id: content.key_id.as_bytes(),
            principals: Principals::decode(&names).map_err(BuildError::Content)?,
            valid_after: content.validity.after(),
            valid_before: content.validity.before(),
            critical_options: Options::decode(Field::CriticalOptions, &critical)
                .map_err(BuildError::Content)?,
            extensions: Options::decode(Field::Extensions, &extensions).map_err(BuildError::Content)?,
            signature_key: public_key::PublicKey::decode(&ca_blob)
                .map_err(|source| BuildError::Key { field: Field::SignatureKey, source })?,
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes).map_err(BuildError::Encoding)?;
        // Requests that a device would refuse under any template are refused here, with a better message.
        let built = Self::from_bytes(bytes)?;
        built.check_subject()?;
        Ok(Self { comment: subject.comment().as_str_lossy().to_owned(), ..built })
    }

    /// A request that was built elsewhere.
    ///
    /// # Errors
    /// When the bytes are not a whole request.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BuildError> {
        let request = Request::decode(&bytes).map_err(BuildError::Content)?;
        check_text(&request)?;
        check_options(&request)?;
        let request = Self { bytes, comment: String::new() };
        // Otherwise a device would sign something that could not be verified, and the ledger would not know.
        request.keys().map_err(BuildError::Unreadable)?;
        Ok(request)
    }

    /// The CA's public key, in SSH's encoding.
    ///
    /// # Errors
    /// An encoder's, which a request that was read never makes it do.
    pub fn ca_key(&self) -> ssh_encoding::Result<Vec<u8>> {
        let mut blob = Vec::new();
        if let Ok(request) = Request::decode(&self.bytes) {
            request.signature_key.encode(&mut blob)?;
        }
        Ok(blob)
    }

    /// The key to be certified, and the CA's.
    ///
    /// # Errors
    /// When the numbers of one are not a key.
    pub fn keys(&self) -> ssh_key::Result<(KeyData, KeyData)> {
        // Only the part before the signature is parsed, so any signature will do.
        let mut blob = self.bytes.clone();
        SignatureAlgorithm::Ed25519.encode_field(&[0; 64], &mut blob)?;
        let certificate = Certificate::from_bytes(&blob)?;
        Ok((certificate.public_key().clone(), certificate.signature_key().clone()))
    }

    /// The certificate's content.
    ///
    /// # Errors
    /// When it would never be valid.
    pub fn content(&self) -> Result<Content, BuildError> {
        let request = Request::decode(&self.bytes).map_err(BuildError::Content)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let options = |options: Options<'_>| {
            options.iter().map(|(name, contents)| (text(name), contents.map(text))).collect()
        };
        Ok(Content {
            kind: request.kind,
            serial: request.serial,
            key_id: text(request.key_id),
            principals: request.principals.iter().map(text).collect(),
            validity: Validity::new(request.valid_after, request.valid_before)
                .map_err(BuildError::Validity)?,
            options: CertificateOptions {
                critical: options(request.critical_options),
                extensions: options(request.extensions),
            },
        })
    }

    /// The bytes to be signed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fails if no device certifies the subject key: OpenSSH cannot read it, or anyone can sign for it.
    ///
    /// # Errors
    /// The defect of the key.
    pub fn check_subject(&self) -> Result<(), BuildError> {
        let request = Request::decode(&self.bytes).map_err(BuildError::Content)?;
        subject::check(&request.subject_key).map_err(BuildError::Unusable)
    }

    /// Fails if the device has no room for the request together with a timestamp signature of this many
    /// bytes.
    pub const fn check_length(&self, timestamp_signature: usize) -> Result<(), BuildError> {
        let (length, room) = (self.bytes.len(), room(timestamp_signature));
        if length <= room { Ok(()) } else { Err(BuildError::TooLong { length, room }) }
    }

    /// The finished certificate as the line of a `-cert.pub` file, with its newline.
    ///
    /// `signature` is the whole signature field as the device returns it, `u32 length ‖ string algorithm ‖ string
    /// signature`. Nothing is verified here; [`crate::certificate::verify`] does.
    pub(crate) fn line(&self, signature: &[u8]) -> String {
        let kind = certificate_type(&self.bytes).unwrap_or_default();
        let base64 = Base64::encode_string(&[&self.bytes, signature].concat());
        let separator = if self.comment.is_empty() { "" } else { " " };
        format!("{kind} {base64}{separator}{}\n", self.comment)
    }
}

/// A request from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRequest {
    /// The bytes to be signed; not checked any further.
    pub request: Vec<u8>,
    /// When it was made, with the timestamp authority's signature; only the vendor's form has them.
    pub timestamp: Option<(Now, Vec<u8>)>,
}

/// Why a file holds no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredRequestError {
    /// None of the three forms.
    #[error(
        "this is not a certificate request: neither the bytes to be signed, nor those after a time of 4 and a timestamp \
         signature of {timestamp_signature} bytes, nor an OpenSSH certificate"
    )]
    Unknown {
        /// How long the template's timestamp signatures are.
        timestamp_signature: usize,
    },
    /// A certificate, followed by something that would otherwise go unnoticed.
    #[error("there are {count} lines in this file; a certificate file holds one")]
    Several {
        /// How many lines are not empty.
        count: usize,
    },
    /// A certificate with invalid base64.
    #[error("the certificate's base64 is malformed")]
    Base64(#[source] ssh_encoding::Error),
    /// A certificate that cannot be split before its signature.
    #[error("the certificate is malformed")]
    Certificate(#[source] RequestError),
    /// A certificate that does not end as it should.
    #[error("the certificate's signature is malformed")]
    Signature(#[source] ssh_encoding::Error),
    /// It begins like a request, but cannot be parsed: truncated, or with trailing bytes.
    #[error("the request is malformed")]
    Request(#[source] RequestError),
}

impl Failure for StoredRequestError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

impl StoredRequest {
    /// Parses the bytes to be signed, the vendor tool's file (now, u32 big-endian; timestamp signature; bytes
    /// to be signed), or an OpenSSH certificate (`…-cert.pub`), whose signature is removed.
    ///
    /// The length of the timestamp signature follows from the template: it cannot be seen in the file.
    pub fn decode(bytes: &[u8], timestamp_signature: usize) -> Result<Self, StoredRequestError> {
        if certificate_type(bytes).is_some() {
            return Ok(Self { request: bytes.to_vec(), timestamp: None });
        }
        if let Some((now, rest)) = bytes.split_first_chunk()
            && let Some((signature, request)) = rest.split_at_checked(timestamp_signature)
            && certificate_type(request).is_some()
        {
            let timestamp = (Now::from_seconds(u32::from_be_bytes(*now)), signature.to_vec());
            return Ok(Self { request: request.to_vec(), timestamp: Some(timestamp) });
        }
        let unknown = StoredRequestError::Unknown { timestamp_signature };
        let text = str::from_utf8(bytes).map_err(|_| unknown.clone())?;
        let mut words = text.split_whitespace();
        let (Some(kind), Some(base64)) = (words.next(), words.next()) else { return Err(unknown) };
        if !kind.as_bytes().ends_with(TYPE_SUFFIX) {
            return Err(unknown);
        }
        let count = text.lines().filter(|line| !line.trim().is_empty()).count();
        if count > 1 {
            return Err(StoredRequestError::Several { count });
        }
        let blob = decode_base64(base64).map_err(StoredRequestError::Base64)?;
        let mut rest = blob.as_slice();
        Request::decode_front(&mut rest).map_err(StoredRequestError::Certificate)?;
        signature_field(rest).map_err(StoredRequestError::Signature)?;
        Ok(Self {
            request: blob.get(..blob.len() - rest.len()).unwrap_or_default().to_vec(),
            timestamp: None,
        })
    }

    /// As [`Self::decode`], with a timestamp signature of any length that there is.
    ///
    /// # Errors
    /// When it is none of the three forms.
    pub fn detect(bytes: &[u8]) -> Result<Self, StoredRequestError> {
        let whole = |length: &usize| {
            Self::decode(bytes, *length).ok().filter(|stored| Request::decode(&stored.request).is_ok())
        };
        if let Some(stored) = SIGNATURE_LENGTHS.iter().find_map(whole) {
            return Ok(stored);
        }
        let stored = Self::decode(bytes, SIGNATURE_LENGTHS[0])?;
        Request::decode(&stored.request).map_err(StoredRequestError::Request)?;
        Ok(stored)
    }

    /// The vendor tool's form when there is a timestamp, the bare bytes to be signed otherwise.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match &self.timestamp {
            Some((now, signature)) => {
                [&now.seconds().to_be_bytes(), signature.as_slice(), &self.request].concat()
            }
            None => self.request.clone(),
        }
    }
}

/// The type name that a certificate or a request in binary form begins with.
pub(crate) fn certificate_type(bytes: &[u8]) -> Option<&str> {
    let (length, rest) = bytes.split_first_chunk()?;
    let name = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    name.ends_with(TYPE_SUFFIX).then(|| str::from_utf8(name).ok()).flatten()
}

/// Parses the last field of a certificate, `string (string algorithm ‖ string signature)`; a security key's
/// signature contains its flags and its counter (PROTOCOL.u2f).
fn signature_field(mut rest: &[u8]) -> ssh_encoding::Result<()> {
    let mut signature = string(&mut rest)?;
    // Whether it is a valid signature does not matter here: it is removed.
    if !signature.is_empty() {
        let security_key = string(&mut signature)?.starts_with(b"sk-");
        string(&mut signature)?;
        if security_key {
            u8::decode(&mut signature)?;
            u32::decode(&mut signature)?;
        }
    }
    match rest.len() + signature.len() {
        0 => Ok(()),
        remaining => Err(ssh_encoding::Error::TrailingData { remaining }),
    }
}

/// The bytes of one line of base64.
pub(crate) fn decode_base64(text: &str) -> ssh_encoding::Result<Vec<u8>> {
    let mut reader = Base64Reader::new(text.as_bytes())?;
    let mut bytes = vec![0; reader.remaining_len()];
    reader.read(&mut bytes)?;
    Ok(bytes)
}

/// Whether all text of a request is UTF-8.
fn check_text(request: &Request<'_>) -> Result<(), BuildError> {
    let is_text = |bytes: &[u8]| str::from_utf8(bytes).is_ok();
    let options_are = |options: &Options<'_>| {
        options.iter().all(|(name, value)| is_text(name) && value.is_none_or(is_text))
    };
    [
        (Field::KeyId, is_text(request.key_id)),
        (Field::Principals, request.principals.iter().all(is_text)),
        (Field::CriticalOptions, options_are(&request.critical_options)),
        (Field::Extensions, options_are(&request.extensions)),
    ]
    .into_iter()
    .find_map(|(field, text)| (!text).then_some(Err(BuildError::NotUtf8(field))))
    .unwrap_or(Ok(()))
}

/// Whether the options that OpenSSH knows have values that it reads (`cert_option_list` in its
/// `auth-options.c`): flags have none, the others one.
fn check_options(request: &Request<'_>) -> Result<(), BuildError> {
    for (options, names) in [
        (request.critical_options, &["verify-required"][..]),
        (request.extensions, &["no-touch-required"][..]),
        (request.extensions, &DEFAULT_EXTENSIONS[..]),
    ] {
        let valued = options
            .iter()
            .find(|(name, value)| value.is_some() && names.iter().any(|known| known.as_bytes() == *name));
        if let Some((name, _)) = valued {
            return Err(BuildError::Option {
                name: String::from_utf8_lossy(name).into_owned(),
                reason: "has a value, since it is one without".into(),
            });
        }
    }
    for (name, value) in request.critical_options.iter() {
        let reason = match (name, value.map(str::from_utf8)) {
            (b"force-command" | b"source-address", None) => "has no value".to_owned(),
            (b"force-command", Some(Ok(command))) if command.contains('\0') => {
                "has a NUL byte in its value".to_owned()
            }
            (b"source-address", Some(Ok(list))) => match certificate_options::check_addresses(list) {
                Ok(()) => continue,
                Err(error) => format!("has a value that is not a list of addresses: {error}"),
            },
            _ => continue,
        };
        return Err(BuildError::Option { name: String::from_utf8_lossy(name).into_owned(), reason });
    }
    Ok(())
}

/// A subject key as the protocol sees it, borrowed from the key and its encoding.
fn subject_key<'a>(key: &'a KeyData, blob: &'a [u8]) -> Result<SubjectKey<'a>, BuildError> {
    match key {
        KeyData::SkEcdsaSha2NistP256(key) => Ok(SubjectKey::SecurityKey {
            key: public_key::PublicKey::Ecdsa {
                curve: SshCurve::P256,
                point: key.ec_point().as_bytes().get(1..).unwrap_or_default(),
            },
            application: key.application().as_bytes(),
        }),
        KeyData::SkEd25519(key) => Ok(SubjectKey::SecurityKey {
            key: public_key::PublicKey::Ed25519(key.public_key().as_ref()),
            application: key.application().as_bytes(),
        }),
        KeyData::Rsa(_) | KeyData::Ecdsa(_) | KeyData::Ed25519(_) => public_key::PublicKey::decode(blob)
            .map(SubjectKey::Plain)
            .map_err(|source| BuildError::Key { field: Field::SubjectKey, source }),
        other => Err(BuildError::Subject { kind: other.algorithm().to_string() }),
    }
}

fn strings<'a>(items: impl Iterator<Item = &'a [u8]>) -> ssh_encoding::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for item in items {
        item.encode(&mut bytes)?;
    }
    Ok(bytes)
}

/// Each name with a string that is empty, or that holds the contents as a string.
fn options(list: &OptionList) -> ssh_encoding::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, contents) in list {
        name.encode(&mut bytes)?;
        match contents {
            Some(contents) => contents.encode_prefixed(&mut bytes)?,
            None => 0_usize.encode(&mut bytes)?,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate;
    use crate::ssh_keygen::{SshKeygen, security_keys, to_be_signed, vector};
    use proptest::prelude::*;
    use std::fs;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me";

    fn key() -> PublicKey {
        PublicKey::from_openssh(LINE).unwrap()
    }

    fn content(kind: CertificateKind) -> Content {
        Content {
            kind,
            serial: 0x0123_4567_89ab_cdef,
            key_id: "the identity, \u{e4}".to_owned(),
            principals: principals("alice,zone-web").unwrap(),
            validity: Validity::new(0x5b2a_7120, 0x5b2b_7120).unwrap(),
            options: CertificateOptions::parse(kind, FLAGS).unwrap(),
        }
    }

    const FLAGS: [&str; 6] = [
        "no-pty",
        "force-command=echo a=b",
        "source-address=192.0.2.0/24,::1",
        "verify-required",
        "extension:zz@example.com=",
        "critical:aa@example.com",
    ];

    fn algorithm(ca: &PublicKey) -> SignatureAlgorithm {
        match ca.key_data() {
            KeyData::Rsa(_) => SignatureAlgorithm::RsaSha512,
            KeyData::Ecdsa(key) => SignatureAlgorithm::Ecdsa(match key.as_sec1_bytes().len() {
                65 => SshCurve::P256,
                97 => SshCurve::P384,
                _ => SshCurve::P521,
            }),
            _ => SignatureAlgorithm::Ed25519,
        }
    }

    /// For all seven subject types, all five kinds of CA, users and hosts: the bytes to be signed are
    /// ssh-keygen's own if its nonce is used, and with its signature appended they make its file.
    #[test]
    fn requests_are_what_ssh_keygen_signs_byte_for_byte() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let authorities = keygen.ca_keys();
        let subjects = authorities.iter().map(|(_, key)| key.clone()).chain(security_keys()).enumerate();
        let subjects: Vec<_> = subjects.map(|(number, key)| (format!("subject{number}"), key)).collect();
        for (name, subject) in &subjects {
            fs::write(keygen.path(&format!("{name}.pub")), subject.to_openssh().unwrap()).unwrap();
            for (ca_name, ca) in &authorities {
                for kind in [CertificateKind::User, CertificateKind::Host] {
                    let mut flags =
                        vec!["-I", "the identity, \u{e4}", "-n", "alice,zone-web", "-z", "81985529216486895"];
                    flags.extend(["-V", "0x5b2a7120:0x5b2b7120"]);
                    flags.extend(FLAGS.iter().flat_map(|flag| ["-O", flag]));
                    if kind == CertificateKind::Host {
                        flags.push("-h");
                    }
                    let line = keygen.sign("UTC", ca_name, name, &flags).unwrap();
                    let signed = to_be_signed(&line);
                    let nonce = Request::decode(&signed).unwrap().nonce;
                    let ours =
                        SigningRequest::with_nonce(subject, &content(kind), ca.key_data(), nonce).unwrap();
                    assert_eq!(ours.as_bytes(), signed, "{name} {ca_name} {kind}");
                    let blob = decode_base64(line.split(' ').nth(1).unwrap()).unwrap();
                    assert_eq!(ours.line(&blob[signed.len()..]).trim_end(), line.trim_end());
                    certificate::verify(&blob, ours.as_bytes(), ca.key_data(), algorithm(ca)).unwrap();
                }
            }
        }
    }

    #[test]
    fn each_request_has_a_nonce_of_its_own() {
        let make = || SigningRequest::new(&key(), &content(CertificateKind::User), key().key_data()).unwrap();
        let (one, other) = (make(), make());
        let nonce = |request: &SigningRequest| Request::decode(request.as_bytes()).unwrap().nonce.to_vec();
        assert_eq!(nonce(&one).len(), NONCE_LENGTH);
        assert_ne!(nonce(&one), nonce(&other));
    }

    #[test]
    fn what_no_certificate_can_say_is_refused() {
        let refusal = |change: &dyn Fn(&mut Content)| {
            let mut content = content(CertificateKind::User);
            change(&mut content);
            SigningRequest::new(&key(), &content, key().key_data()).unwrap_err()
        };
        let nul = BuildError::Content(RequestError::NulByte(Field::Principals));
        assert_eq!(refusal(&|content| content.principals = vec!["root\0".into()]), nul);
        let nul = BuildError::Content(RequestError::NulByte(Field::KeyId));
        assert_eq!(refusal(&|content| content.key_id = "\0".into()), nul);
        let empty = BuildError::EmptyPrincipal("a,".into());
        assert_eq!(refusal(&|content| content.principals = vec!["a".into(), String::new()]), empty);
        let many = refusal(&|content| content.principals = vec!["a".into(); 257]);
        assert_eq!(many, BuildError::TooManyPrincipals(257));
        assert_eq!(principals(&["a"; 257].join(",")), Err(BuildError::TooManyPrincipals(257)));
        assert!(principals(&["a"; 256].join(",")).is_ok());
        for text in ["", ",", "a,,b", "a,"] {
            assert_eq!(principals(text), Err(BuildError::EmptyPrincipal(text.into())));
        }
    }

    #[test]
    fn a_security_key_cannot_be_the_ca() {
        for ca in security_keys() {
            let error =
                SigningRequest::new(&key(), &content(CertificateKind::User), ca.key_data()).unwrap_err();
            let unknown = BuildError::Key { field: Field::SignatureKey, source: PublicKeyError::UnknownType };
            assert_eq!(error, unknown);
        }
    }

    #[test]
    fn a_request_that_the_device_has_no_room_for_says_by_how_much() {
        assert_eq!((room(256), room(64)), (3116 - 265, 3116 - 73));
        let mut long = content(CertificateKind::User);
        let base = SigningRequest::new(&key(), &long, key().key_data()).unwrap().as_bytes().len();
        long.key_id.push_str(&"x".repeat(room(256) - base));
        let request = SigningRequest::new(&key(), &long, key().key_data()).unwrap();
        assert_eq!(request.check_length(256), Ok(()));
        assert_eq!(
            request.check_length(257),
            Err(BuildError::TooLong { length: room(256), room: room(256) - 1 })
        );
    }

    #[test]
    fn a_stored_request_is_read_in_each_of_its_forms() {
        let request = SigningRequest::new(&key(), &content(CertificateKind::User), key().key_data()).unwrap();
        let bare = StoredRequest { request: request.as_bytes().to_vec(), timestamp: None };
        for length in [64, 96, 132, 256, 384, 512] {
            let timestamp = Some((Now::from_seconds(0x5b2a_7120), vec![0xa5; length]));
            let stored = StoredRequest { timestamp, ..bare.clone() };
            assert_eq!(StoredRequest::decode(&stored.encode(), length), Ok(stored.clone()));
            assert_eq!(StoredRequest::decode(&bare.encode(), length), Ok(bare.clone()));
            let unknown = Err(StoredRequestError::Unknown { timestamp_signature: length + 1 });
            assert_eq!(StoredRequest::decode(&stored.encode(), length + 1), unknown);
            assert_eq!(StoredRequest::detect(&stored.encode()), Ok(stored.clone()));
            let line = request.line(&[0, 0, 0, 0]);
            assert_eq!(StoredRequest::decode(line.as_bytes(), length), Ok(bare.clone()));
            assert_eq!(StoredRequest::decode(format!("\n{line}\r\n").as_bytes(), length), Ok(bare.clone()));
            let two = StoredRequest::decode(format!("{line}\n{line}").as_bytes(), length);
            assert_eq!(two, Err(StoredRequestError::Several { count: 2 }));
        }
        for nothing in [&b""[..], b"\0\0\0\x04", b"ssh-ed25519 AAAA", b"\xff\xff\xff\xff", LINE.as_bytes()] {
            assert!(matches!(StoredRequest::decode(nothing, 64), Err(StoredRequestError::Unknown { .. })));
        }
        let cut = "ssh-ed25519-cert-v01@openssh.com AAAAC3NzaC1lZDI1NTE5";
        assert!(matches!(StoredRequest::decode(cut.as_bytes(), 64), Err(StoredRequestError::Certificate(_))));
        let odd = "ssh-ed25519-cert-v01@openssh.com A!";
        assert!(matches!(StoredRequest::decode(odd.as_bytes(), 64), Err(StoredRequestError::Base64(_))));
    }

    #[test]
    fn the_file_that_real_hardware_signed_is_read_and_written_anew() {
        let value = |pointer| vector("yubihsm2-ssh.json", pointer);
        let Some(request) = value("/sign/request") else { return };
        let signature = value("/sign/timestamp_signature").unwrap();
        let file = [&1_529_508_128_u32.to_be_bytes(), signature.as_slice(), &request].concat();
        let stored = StoredRequest::decode(&file, 256).unwrap();
        assert_eq!(stored.request, request);
        assert_eq!(stored.timestamp, Some((Now::from_seconds(1_529_508_128), signature)));
        assert_eq!(stored.encode(), file);
        assert_eq!(StoredRequest::detect(&file), Ok(stored));
    }

    #[test]
    fn a_request_that_was_built_elsewhere_says_what_was_asked_for() {
        let (subject, content) = (key(), content(CertificateKind::User));
        let built = SigningRequest::new(&subject, &content, subject.key_data()).unwrap();
        let read = SigningRequest::from_bytes(built.as_bytes().to_vec()).unwrap();
        assert_eq!(read.content(), Ok(content));
        assert_eq!(read.keys().unwrap(), (subject.key_data().clone(), subject.key_data().clone()));
        let cut = built.as_bytes().split_last().unwrap().1.to_vec();
        assert!(matches!(SigningRequest::from_bytes(cut), Err(BuildError::Content(_))));
    }

    /// Each is a line of a `.pub` file that is read without complaint.
    #[test]
    fn a_key_that_openssh_cannot_read_is_not_certified() {
        let blob = |parts: &[&[u8]]| -> Vec<u8> {
            let string = |part: &&[u8]| [&u32::try_from(part.len()).unwrap().to_be_bytes(), *part].concat();
            parts.iter().flat_map(string).collect()
        };
        let point = [[4].as_slice(), &[0x11; 64]].concat();
        let rsa = |exponent: &[u8], length| blob(&[b"ssh-rsa", exponent, &vec![0x7f; length]]);
        let point_of_seven = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        for (blob, error) in [
            (rsa(&[1, 0, 1], 96), SubjectKeyError::ShortRsa(767)),
            (rsa(&[1, 0, 1], 2049), SubjectKeyError::LongRsa(16_391)),
            (rsa(&[1], 256), SubjectKeyError::RsaExponentOne),
            (
                blob(&[b"ecdsa-sha2-nistp256", b"nistp256", &point]),
                SubjectKeyError::NotOnCurve(SshCurve::P256),
            ),
            (blob(&[b"ssh-ed25519", &[0; 32]]), SubjectKeyError::SmallOrder),
            (
                blob(&[b"sk-ssh-ed25519@openssh.com", &point_of_seven, b"ssh:\0a"]),
                SubjectKeyError::NulInApplication,
            ),
        ] {
            let subject = PublicKey::from_bytes(&blob).unwrap();
            let built = SigningRequest::new(&subject, &content(CertificateKind::User), key().key_data());
            assert_eq!(built, Err(BuildError::Unusable(error)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes: Vec<u8>, length in 0_usize..600) {
            let _ = StoredRequest::decode(&bytes, length);
        }

        #[test]
        fn every_request_that_is_built_can_be_read(
            serial: u64, key_id in "[^\\x00]{0,40}", names in proptest::collection::vec("[^\\x00,]{1,12}", 0..9),
            after: u64, before: u64, extension in "[^\\x00=]{1,9}", contents in proptest::option::of(".{0,9}"),
        ) {
            prop_assume!(after < before);
            let mut content = content(CertificateKind::Host);
            content.serial = serial;
            content.key_id = key_id;
            content.principals = names;
            content.validity = Validity::new(after, before).unwrap();
            content.options.extensions.insert(extension, contents);
            let request = SigningRequest::new(&key(), &content, key().key_data()).unwrap();
            let read = Request::decode(request.as_bytes()).unwrap();
            prop_assert_eq!(read.serial, serial);
            prop_assert_eq!(read.key_id, content.key_id.as_bytes());
            prop_assert!(read.principals.iter().eq(content.principals.iter().map(String::as_bytes)));
            prop_assert_eq!((read.valid_after, read.valid_before), (after, before));
            let extensions = content.options.extensions.iter();
            prop_assert!(read.extensions.iter().eq(
                extensions.map(|(name, contents)| (name.as_bytes(), contents.as_deref().map(str::as_bytes)))
            ));
        }
    }
}
