//! A certificate request: the OpenSSH certificate up to and including the CA's public key, without signature.
//!
//! The layout is OpenSSH's PROTOCOL.certkeys. Parsing copies nothing and is stricter than OpenSSH wherever a
//! difference between what is checked here and what `sshd` later reads could be exploited: names with a NUL
//! (OpenSSH cuts a trailing one off, so `root\0` would log in as `root`), principals with a comma (OpenSSH
//! before 10.3 splits there when it matches `principals=` in `authorized_keys`, CVE-2026-35414), options out
//! of order, trailing bytes.

use ssh_encoding::{Encode, Error as EncodingError, Writer};

use super::public_key::{Counter, KeyKind, PublicKey, PublicKeyError, SshCurve};
use super::timestamp::Now;
use super::{integer, string};

/// Fewest bytes of a nonce: it makes the signed bytes unpredictable, OpenSSH uses 32.
pub const MIN_NONCE_LENGTH: usize = 16;

/// Most principals of a certificate: OpenSSH refuses certificates with more.
pub const MAX_PRINCIPALS: usize = 256;

/// A field of a request, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The certificate's type name.
    CertificateType,
    /// The CA's random bytes.
    Nonce,
    /// The key that is certified.
    SubjectKey,
    /// The serial number.
    Serial,
    /// User or host.
    Kind,
    /// The free-text identity.
    KeyId,
    /// Names the certificate is valid for.
    Principals,
    /// Start of validity.
    ValidAfter,
    /// End of validity.
    ValidBefore,
    /// Options that must be understood.
    CriticalOptions,
    /// Options that may be ignored.
    Extensions,
    /// Kept for later by OpenSSH, always empty.
    Reserved,
    /// The CA's public key.
    SignatureKey,
}

impl core::fmt::Display for Field {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::CertificateType => "certificate type",
            Self::Nonce => "nonce",
            Self::SubjectKey => "subject key",
            Self::Serial => "serial",
            Self::Kind => "user or host",
            Self::KeyId => "key id",
            Self::Principals => "principals",
            Self::ValidAfter => "valid after",
            Self::ValidBefore => "valid before",
            Self::CriticalOptions => "critical options",
            Self::Extensions => "extensions",
            Self::Reserved => "reserved",
            Self::SignatureKey => "signature key",
        })
    }
}

/// Why bytes are not a certificate request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A field is truncated or wrongly nested.
    #[error("{field}: {error}")]
    Encoding {
        /// The field.
        field: Field,
        /// The defect in the encoding.
        error: EncodingError,
    },
    /// The first string is none of OpenSSH's seven certificate types.
    #[error("unknown certificate type")]
    UnknownCertificateType,
    /// The nonce is too short to make the request unpredictable.
    #[error("nonce of {0} bytes; at least 16 are needed")]
    ShortNonce(usize),
    /// The subject key or the signature key is malformed.
    #[error("{field}: {error}")]
    PublicKey {
        /// Which key.
        field: Field,
        /// The defect.
        error: PublicKeyError,
    },
    /// Neither user (1) nor host (2).
    #[error("certificate kind {0} is neither user (1) nor host (2)")]
    UnknownKind(u32),
    /// A name with a NUL byte, which OpenSSH would read differently.
    #[error("{0} contains a NUL byte")]
    NulByte(Field),
    /// A principal with a comma, which OpenSSH may read as two.
    #[error("a principal contains a comma")]
    CommaInPrincipal,
    /// A principal of no bytes.
    #[error("a principal is empty")]
    EmptyPrincipal,
    /// More principals than OpenSSH reads.
    #[error("more than {MAX_PRINCIPALS} principals")]
    TooManyPrincipals,
    /// Options out of byte order, or repeated.
    #[error("{0} are not sorted by name, each name once")]
    Unsorted(Field),
    /// An option without a name.
    #[error("{0} contain an option without a name")]
    UnnamedOption(Field),
    /// An option whose value is neither empty nor exactly one string.
    #[error("{0} contain a value that is not one string")]
    OptionValue(Field),
    /// The reserved field is not empty.
    #[error("the reserved field has {0} bytes")]
    Reserved(usize),
    /// Bytes after the signature key.
    #[error("{0} bytes after the signature key")]
    Trailing(usize),
}

/// The type of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CertificateKind {
    /// Lets a user log in.
    User = 1,
    /// Names a host.
    Host = 2,
}

impl core::fmt::Display for CertificateKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Host => "host",
        })
    }
}

/// The type of a certified key: one of the seven that OpenSSH issues certificates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A key in a file or an agent.
    Plain(KeyKind),
    /// A P-256 key on a security key.
    SecurityKeyEcdsa,
    /// An Ed25519 key on a security key.
    SecurityKeyEd25519,
}

impl SubjectKind {
    /// All seven.
    pub const ALL: [Self; 7] = [
        Self::Plain(KeyKind::Rsa),
        Self::Plain(KeyKind::Ecdsa(SshCurve::P256)),
        Self::Plain(KeyKind::Ecdsa(SshCurve::P384)),
        Self::Plain(KeyKind::Ecdsa(SshCurve::P521)),
        Self::Plain(KeyKind::Ed25519),
        Self::SecurityKeyEcdsa,
        Self::SecurityKeyEd25519,
    ];

    /// Its number in a template. Templates are stored, so a number never changes and is never reused.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Plain(KeyKind::Rsa) => 1,
            Self::Plain(KeyKind::Ecdsa(SshCurve::P256)) => 2,
            Self::Plain(KeyKind::Ecdsa(SshCurve::P384)) => 3,
            Self::Plain(KeyKind::Ecdsa(SshCurve::P521)) => 4,
            Self::Plain(KeyKind::Ed25519) => 5,
            Self::SecurityKeyEcdsa => 6,
            Self::SecurityKeyEd25519 => 7,
        }
    }

    /// The kind of this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// A short name, for template files and verdicts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain(KeyKind::Rsa) => "rsa",
            Self::Plain(KeyKind::Ecdsa(SshCurve::P256)) => "ecdsa-p256",
            Self::Plain(KeyKind::Ecdsa(SshCurve::P384)) => "ecdsa-p384",
            Self::Plain(KeyKind::Ecdsa(SshCurve::P521)) => "ecdsa-p521",
            Self::Plain(KeyKind::Ed25519) => "ed25519",
            Self::SecurityKeyEcdsa => "sk-ecdsa-p256",
            Self::SecurityKeyEd25519 => "sk-ed25519",
        }
    }

    /// OpenSSH's name of the certificate type.
    #[must_use]
    pub const fn certificate_type(self) -> &'static str {
        match self {
            Self::Plain(KeyKind::Rsa) => "ssh-rsa-cert-v01@openssh.com",
            Self::Plain(KeyKind::Ecdsa(SshCurve::P256)) => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::Plain(KeyKind::Ecdsa(SshCurve::P384)) => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            Self::Plain(KeyKind::Ecdsa(SshCurve::P521)) => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            Self::Plain(KeyKind::Ed25519) => "ssh-ed25519-cert-v01@openssh.com",
            Self::SecurityKeyEcdsa => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::SecurityKeyEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
        }
    }
}

/// The key that a certificate is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKey<'a> {
    /// A key in a file or an agent.
    Plain(PublicKey<'a>),
    /// A key on a security key: P-256 or Ed25519.
    SecurityKey {
        /// The key itself.
        key: PublicKey<'a>,
        /// The application it was made for, `ssh:` by default.
        application: &'a [u8],
    },
}

impl<'a> SubjectKey<'a> {
    /// The key's type; `None` for a security key that is neither P-256 nor Ed25519.
    #[must_use]
    pub const fn kind(&self) -> Option<SubjectKind> {
        match self {
            Self::Plain(key) => Some(SubjectKind::Plain(key.kind())),
            Self::SecurityKey { key: PublicKey::Ecdsa { curve: SshCurve::P256, .. }, .. } => {
                Some(SubjectKind::SecurityKeyEcdsa)
            }
            Self::SecurityKey { key: PublicKey::Ed25519(_), .. } => Some(SubjectKind::SecurityKeyEd25519),
            Self::SecurityKey { .. } => None,
        }
    }

    fn decode_fields(kind: SubjectKind, reader: &mut &'a [u8]) -> Result<Self, PublicKeyError> {
        let plain = match kind {
            SubjectKind::Plain(kind) => return Ok(Self::Plain(PublicKey::decode_fields(kind, reader)?)),
            SubjectKind::SecurityKeyEcdsa => KeyKind::Ecdsa(SshCurve::P256),
            SubjectKind::SecurityKeyEd25519 => KeyKind::Ed25519,
        };
        Ok(Self::SecurityKey { key: PublicKey::decode_fields(plain, reader)?, application: string(reader)? })
    }

    fn encode_fields(&self, writer: &mut impl Writer) -> ssh_encoding::Result<()> {
        match self {
            Self::Plain(key) => key.encode_fields(writer),
            Self::SecurityKey { key, application } => {
                key.encode_fields(writer)?;
                application.encode(writer)
            }
        }
    }
}

fn encoding(field: Field) -> impl Fn(EncodingError) -> RequestError {
    move |error| RequestError::Encoding { field, error }
}

fn without_nul(field: Field, name: &[u8]) -> Result<&[u8], RequestError> {
    if name.contains(&0) { Err(RequestError::NulByte(field)) } else { Ok(name) }
}

/// The names a certificate is valid for: SSH strings one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principals<'a>(&'a [u8]);

impl<'a> Principals<'a> {
    /// Checks that the bytes are whole strings, not too many, each a name that OpenSSH reads unchanged.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RequestError> {
        let mut rest = bytes;
        let mut count = 0;
        while !rest.is_empty() {
            let name = string(&mut rest).map_err(encoding(Field::Principals))?;
            if without_nul(Field::Principals, name)?.is_empty() {
                return Err(RequestError::EmptyPrincipal);
            }
            if name.contains(&b',') {
                return Err(RequestError::CommaInPrincipal);
            }
            count += 1;
            if count > MAX_PRINCIPALS {
                return Err(RequestError::TooManyPrincipals);
            }
        }
        Ok(Self(bytes))
    }

    /// Whether there is none: OpenSSH reads that as "anyone" or refuses it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || string(&mut rest).ok())
    }
}

/// Critical options or extensions: name and value, sorted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// Checks nesting, order and uniqueness; `field` is [`Field::CriticalOptions`] or [`Field::Extensions`].
    pub fn decode(field: Field, bytes: &'a [u8]) -> Result<Self, RequestError> {
        let mut rest = bytes;
        let mut previous: Option<&[u8]> = None;
        while !rest.is_empty() {
            let name = string(&mut rest).map_err(encoding(field))?;
            let mut value = string(&mut rest).map_err(encoding(field))?;
            if without_nul(field, name)?.is_empty() {
                return Err(RequestError::UnnamedOption(field));
            }
            if previous.is_some_and(|previous| previous >= name) {
                return Err(RequestError::Unsorted(field));
            }
            previous = Some(name);
            if !value.is_empty() {
                string(&mut value).map_err(|_| RequestError::OptionValue(field))?;
                if !value.is_empty() {
                    return Err(RequestError::OptionValue(field));
                }
            }
        }
        Ok(Self(bytes))
    }

    /// Name and value of each option; `None` for an option that is only a flag.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let name = string(&mut rest).ok()?;
            let mut value = string(&mut rest).ok()?;
            Some((name, if value.is_empty() { None } else { Some(string(&mut value).ok()?) }))
        })
    }
}

/// A well-formed request, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Random bytes that make the signed message unpredictable.
    pub nonce: &'a [u8],
    /// The key that is certified.
    pub subject_key: SubjectKey<'a>,
    /// Serial number, by which a certificate can be revoked.
    pub serial: u64,
    /// User or host.
    pub kind: CertificateKind,
    /// Free text that `sshd` logs.
    pub key_id: &'a [u8],
    /// Names it is valid for.
    pub principals: Principals<'a>,
    /// First second of validity, UNIX time.
    pub valid_after: u64,
    /// First second after validity, UNIX time; `u64::MAX` is forever. If it is not after `valid_after`, the
    /// certificate is never valid, which is harmless.
    pub valid_before: u64,
    /// Options that must be understood.
    pub critical_options: Options<'a>,
    /// Options that may be ignored.
    pub extensions: Options<'a>,
    /// The public key of the CA that is to sign.
    pub signature_key: PublicKey<'a>,
}

impl<'a> Request<'a> {
    /// Reads a whole request; trailing bytes are an error.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, RequestError> {
        let request = Self::decode_front(&mut bytes)?;
        match bytes.len() {
            0 => Ok(request),
            trailing => Err(RequestError::Trailing(trailing)),
        }
    }

    /// Reads a request from the front of `reader`, which is left at what follows: in a certificate, the
    /// signature field.
    pub fn decode_front(reader: &mut &'a [u8]) -> Result<Self, RequestError> {
        let certificate_type = string(reader).map_err(encoding(Field::CertificateType))?;
        let subject_kind = SubjectKind::ALL
            .into_iter()
            .find(|kind| kind.certificate_type().as_bytes() == certificate_type)
            .ok_or(RequestError::UnknownCertificateType)?;
        let nonce = string(reader).map_err(encoding(Field::Nonce))?;
        if nonce.len() < MIN_NONCE_LENGTH {
            return Err(RequestError::ShortNonce(nonce.len()));
        }
        let subject_key = SubjectKey::decode_fields(subject_kind, reader)
            .map_err(|error| RequestError::PublicKey { field: Field::SubjectKey, error })?;
        let serial = integer(reader).map_err(encoding(Field::Serial))?;
        let kind = match integer(reader).map_err(encoding(Field::Kind))? {
            1_u32 => CertificateKind::User,
            2 => CertificateKind::Host,
            other => return Err(RequestError::UnknownKind(other)),
        };
        let key_id = string(reader).map_err(encoding(Field::KeyId))?;
        without_nul(Field::KeyId, key_id)?;
        let principals = Principals::decode(string(reader).map_err(encoding(Field::Principals))?)?;
        let valid_after = integer(reader).map_err(encoding(Field::ValidAfter))?;
        let valid_before = integer(reader).map_err(encoding(Field::ValidBefore))?;
        let options = string(reader).map_err(encoding(Field::CriticalOptions))?;
        let critical_options = Options::decode(Field::CriticalOptions, options)?;
        let options = string(reader).map_err(encoding(Field::Extensions))?;
        let extensions = Options::decode(Field::Extensions, options)?;
        match string(reader).map_err(encoding(Field::Reserved))?.len() {
            0 => {}
            length => return Err(RequestError::Reserved(length)),
        }
        let signature_key = string(reader).map_err(encoding(Field::SignatureKey))?;
        let signature_key = PublicKey::decode(signature_key)
            .map_err(|error| RequestError::PublicKey { field: Field::SignatureKey, error })?;
        Ok(Self {
            nonce,
            subject_key,
            serial,
            kind,
            key_id,
            principals,
            valid_after,
            valid_before,
            critical_options,
            extensions,
            signature_key,
        })
    }

    /// Seconds that the certificate is valid for; 0 if it is never.
    #[must_use]
    pub const fn lifetime(&self) -> u64 {
        self.valid_before.saturating_sub(self.valid_after)
    }

    /// Seconds after `now` at which the certificate ends; 0 if it ended before.
    #[must_use]
    pub const fn reach(&self, now: Now) -> u64 {
        self.valid_before.saturating_sub(now.seconds() as u64)
    }

    /// Writes the request. A security key that is neither P-256 nor Ed25519 has no encoding.
    pub fn encode(&self, writer: &mut impl Writer) -> ssh_encoding::Result<()> {
        let kind = self.subject_key.kind().ok_or(EncodingError::Length)?;
        kind.certificate_type().encode(writer)?;
        self.nonce.encode(writer)?;
        self.subject_key.encode_fields(writer)?;
        self.serial.encode(writer)?;
        (self.kind as u32).encode(writer)?;
        self.key_id.encode(writer)?;
        self.principals.0.encode(writer)?;
        self.valid_after.encode(writer)?;
        self.valid_before.encode(writer)?;
        self.critical_options.0.encode(writer)?;
        self.extensions.0.encode(writer)?;
        [0_u8; 0].as_slice().encode(writer)?;
        let mut length = Counter::default();
        self.signature_key.encode(&mut length)?;
        length.0.encode(writer)?;
        self.signature_key.encode(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer as Buffer;
    use crate::ssh::public_key::RSA_EXPONENT;
    use proptest::prelude::*;
    use std::vec::Vec;

    const MODULUS: [u8; 256] = [0xab; 256];
    const POINT: [u8; 132] = [0x11; 132];

    fn strings(items: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for item in items {
            bytes.extend(u32::try_from(item.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(item);
        }
        bytes
    }

    struct Parts {
        principals: Vec<u8>,
        critical_options: Vec<u8>,
        extensions: Vec<u8>,
    }

    fn parts() -> Parts {
        Parts {
            principals: strings(&[b"alice", b"zone-web"]),
            critical_options: strings(&[b"force-command", &strings(&[b"/bin/true"])]),
            extensions: strings(&[b"permit-port-forwarding", b"", b"permit-pty", b""]),
        }
    }

    fn request(parts: &Parts, subject_key: SubjectKey<'static>) -> Vec<u8> {
        let request = Request {
            nonce: &[9; 32],
            subject_key,
            serial: 7,
            kind: CertificateKind::User,
            key_id: b"alice@example",
            principals: Principals(&parts.principals),
            valid_after: 1000,
            valid_before: 2000,
            critical_options: Options(&parts.critical_options),
            extensions: Options(&parts.extensions),
            signature_key: PublicKey::Ed25519(&[3; 32]),
        };
        let mut buffer = [0; 2048];
        let mut writer = Buffer::new(&mut buffer);
        request.encode(&mut writer).unwrap();
        writer.written().to_vec()
    }

    fn ed25519() -> SubjectKey<'static> {
        SubjectKey::Plain(PublicKey::Ed25519(&[5; 32]))
    }

    fn subjects() -> [SubjectKey<'static>; 7] {
        let ec = |curve: SshCurve| PublicKey::Ecdsa { curve, point: &POINT[..2 * curve.coordinate_length()] };
        [
            SubjectKey::Plain(PublicKey::Rsa { exponent: RSA_EXPONENT, modulus: &MODULUS }),
            SubjectKey::Plain(ec(SshCurve::P256)),
            SubjectKey::Plain(ec(SshCurve::P384)),
            SubjectKey::Plain(ec(SshCurve::P521)),
            ed25519(),
            SubjectKey::SecurityKey { key: ec(SshCurve::P256), application: b"ssh:" },
            SubjectKey::SecurityKey { key: PublicKey::Ed25519(&[5; 32]), application: b"ssh:" },
        ]
    }

    #[test]
    fn every_subject_key_type_decodes_to_what_was_encoded() {
        for subject in subjects() {
            let bytes = request(&parts(), subject);
            let decoded = Request::decode(&bytes).unwrap();
            assert_eq!(decoded.subject_key, subject);
            assert_eq!(decoded.principals.iter().collect::<Vec<_>>(), [b"alice".as_slice(), b"zone-web"]);
            let options: Vec<_> = decoded.critical_options.iter().collect();
            assert_eq!(options, [(b"force-command".as_slice(), Some(b"/bin/true".as_slice()))]);
        }
    }

    #[test]
    fn every_prefix_and_every_extension_is_refused() {
        for subject in subjects() {
            let bytes = request(&parts(), subject);
            for length in 0..bytes.len() {
                assert!(Request::decode(&bytes[..length]).is_err(), "{length}");
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(Request::decode(&longer), Err(RequestError::Trailing(1)));
        }
    }

    fn refusal(change: impl FnOnce(&mut Parts)) -> RequestError {
        let mut parts = parts();
        change(&mut parts);
        Request::decode(&request(&parts, ed25519())).unwrap_err()
    }

    #[test]
    fn a_nul_in_a_name_is_refused_because_openssh_would_cut_it_off() {
        let error = refusal(|parts| parts.principals = strings(&[b"root\0"]));
        assert_eq!(error, RequestError::NulByte(Field::Principals));
        let error = refusal(|parts| parts.extensions = strings(&[b"permit-pty\0", b""]));
        assert_eq!(error, RequestError::NulByte(Field::Extensions));
    }

    #[test]
    fn principals_that_openssh_may_read_otherwise_are_refused() {
        let error = refusal(|parts| parts.principals = strings(&[b"nobody,root"]));
        assert_eq!(error, RequestError::CommaInPrincipal);
        let error = refusal(|parts| parts.principals = strings(&[b"alice", b""]));
        assert_eq!(error, RequestError::EmptyPrincipal);
        let many: [&[u8]; MAX_PRINCIPALS + 1] = [b"a"; MAX_PRINCIPALS + 1];
        assert_eq!(refusal(|parts| parts.principals = strings(&many)), RequestError::TooManyPrincipals);
        assert!(Principals::decode(&strings(&many[1..])).is_ok());
    }

    #[test]
    fn options_are_sorted_unique_named_and_hold_one_string() {
        let error = refusal(|parts| parts.extensions = strings(&[b"b", b"", b"a", b""]));
        assert_eq!(error, RequestError::Unsorted(Field::Extensions));
        let error = refusal(|parts| parts.extensions = strings(&[b"a", b"", b"a", b""]));
        assert_eq!(error, RequestError::Unsorted(Field::Extensions));
        let error = refusal(|parts| parts.critical_options = strings(&[b"", b""]));
        assert_eq!(error, RequestError::UnnamedOption(Field::CriticalOptions));
        let error = refusal(|parts| parts.critical_options = strings(&[b"a", b"raw"]));
        assert_eq!(error, RequestError::OptionValue(Field::CriticalOptions));
        let error = refusal(|parts| parts.critical_options = strings(&[b"a", &strings(&[b"one", b"two"])]));
        assert_eq!(error, RequestError::OptionValue(Field::CriticalOptions));
        let error = refusal(|parts| parts.extensions = strings(&[b"a"]));
        assert!(matches!(error, RequestError::Encoding { field: Field::Extensions, .. }));
    }

    #[test]
    fn a_principal_that_runs_out_of_its_list_is_refused() {
        let error =
            refusal(|parts| parts.principals = [strings(&[b"a"]).as_slice(), &[0, 0, 0, 2, 1]].concat());
        assert!(matches!(error, RequestError::Encoding { field: Field::Principals, .. }));
    }

    #[test]
    fn rsa_numbers_must_be_positive_and_shortest() {
        for number in [b"".as_slice(), &[0], &[0, 0x7f], &[0x80, 1]] {
            let key = strings(&[b"ssh-rsa", &[1, 0, 1], number]);
            assert_eq!(PublicKey::decode(&key), Err(PublicKeyError::InvalidInteger), "{number:?}");
        }
        let key = strings(&[b"ssh-rsa", &[1, 0, 1], &[0, 0x80]]);
        assert_eq!(PublicKey::decode(&key), Ok(PublicKey::Rsa { exponent: &[1, 0, 1], modulus: &[0x80] }));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Request::decode(&bytes);
            let _ = PublicKey::decode(&bytes);
        }

        #[test]
        fn a_damaged_request_never_panics_and_what_decodes_encodes_to_the_same(
            subject in 0_usize..7, position in 0_usize..4096, value in any::<u8>(),
        ) {
            let mut bytes = request(&parts(), subjects()[subject]);
            let length = bytes.len();
            bytes[position % length] = value;
            if let Ok(request) = Request::decode(&bytes) {
                let mut buffer = [0; 2048];
                let mut writer = Buffer::new(&mut buffer);
                request.encode(&mut writer).unwrap();
                prop_assert_eq!(writer.written(), bytes.as_slice());
            }
        }
    }
}
