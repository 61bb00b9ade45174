//! Key files: public ones in OpenSSH's or PEM form, private ones in OpenSSH's, PKCS#8, PKCS#1 or SEC1 form.
//!
//! Only the value of a number matters: leading zeros that a format requires, and a writer omitted or added,
//! make no difference. Base64 may have lines of any length, and a comment may be any bytes, as for OpenSSH
//! and OpenSSL.
//!
//! A file contains one key. A private key that others may read is refused, as OpenSSH refuses it, and neither
//! a passphrase nor key material ever appears in an error.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use pkcs5::EncryptionScheme;
use pkcs5::pbes2::{Kdf, Pbkdf2Params, ScryptParams};
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::SubjectPublicKeyInfoRef;
use rsa::pkcs8::der::asn1::OctetStringRef;
use rsa::pkcs8::der::{Decode as _, Reader as _, SliceReader};
use rsa::pkcs8::spki::AlgorithmIdentifierRef;
use rsa::pkcs8::{self, EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument};
use sec1::{EcParameters, EcPrivateKey};
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData, RsaKeypair};
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};
use ssh_key::{Mpint, PrivateKey, PublicKey};
use sshsm_protocol::ssh::public_key::SshCurve;
use zeroize::Zeroizing;

use crate::path::shown;
use crate::request::decode_base64;
use crate::{files, input, integer, openssh_key};
use sshsm_client::{Failure, Kind};

const RSA: ObjectIdentifier = rsa::pkcs1::ALGORITHM_OID;
/// id-ecPublicKey, RFC 5480.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// id-Ed25519, RFC 8410.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// secp256r1, secp384r1, secp521r1, RFC 5480.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Why a file gave no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be read.
    #[error("cannot read the key file {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The content is not a usable key.
    #[error("{} cannot be used", shown(path))]
    Key {
        /// The file.
        path: PathBuf,
        /// The defect.
        source: KeyFormatError,
    },
}

impl Failure for KeyFileError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => source.into(),
            Self::Key { source, .. } => source.kind(),
        }
    }
}

/// Why a text is not a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFormatError {
    /// Nothing in it, or nothing that looks like a key.
    #[error("this is not a {wanted}; expected {expected}")]
    NotAKey {
        /// The requested kind.
        wanted: &'static str,
        /// The forms that are read.
        expected: &'static str,
    },
    /// Bytes that are not text, such as a key in DER.
    #[error("this is not text; PEM or OpenSSH text is expected")]
    NotText,
    /// A public key in place of a private one, or the reverse.
    #[error("this is a {found} key, but a {wanted} key is needed here")]
    OtherHalf {
        /// The kind found.
        found: &'static str,
        /// The kind needed.
        wanted: &'static str,
    },
    /// The form that other SSH programs write public keys in.
    #[error(
        "this is a public key in RFC 4716 form; convert it to OpenSSH's with: ssh-keygen -i -f FILE > NEW.pub"
    )]
    Rfc4716,
    /// A line of `authorized_keys` or `known_hosts`, which has more than a key in it.
    #[error(
        "{before:?} comes before the key, as in authorized_keys or known_hosts; a public key file begins with the \
         key's type, {kind}"
    )]
    Prefixed {
        /// The text found.
        before: String,
        /// The key's type.
        kind: String,
    },
    /// More than one key.
    #[error("there are {count} keys in this file; a key file holds one")]
    Several {
        /// How many.
        count: usize,
    },
    /// A certificate in place of a key.
    #[error("this is a certificate already ({kind}); the plain public key is needed here")]
    Certificate {
        /// Its type.
        kind: String,
    },
    /// A kind of key that SSH, or this program, has no use for.
    #[error(
        "{found} keys are not supported; use RSA, ECDSA on P-256, P-384 or P-521 (plain or sk), or Ed25519 (plain or sk)"
    )]
    Kind {
        /// Its name or object identifier.
        found: String,
    },
    /// OpenSSL's old way to encrypt PEM files, which hardly protects them.
    #[error("this key is encrypted in the obsolete PEM format; rewrite it with: ssh-keygen -p -f FILE")]
    LegacyEncryption,
    /// OpenSSH's own form under a cipher that is not supported.
    #[error(
        "this OpenSSH key is encrypted with {cipher}, which is not supported; rewrite it with: ssh-keygen \
         -p -f FILE"
    )]
    Cipher {
        /// Its name.
        cipher: String,
    },
    /// PKCS#8 that is encrypted otherwise than by PBES2 with AES.
    #[error(
        "the encryption of this PKCS#8 key is not supported ({reason}); rewrite it with: openssl pkcs8 \
         -topk8 -v2 aes-256-cbc -in FILE"
    )]
    PrivateEncryption {
        /// The parser's error.
        reason: String,
    },
    /// Making the cipher's key from the passphrase would take longer, or more memory, than any key needs.
    #[error("{function} of this encrypted key {reason}; rewrite the key with: ssh-keygen -p -f FILE")]
    Costly {
        /// The function that makes the cipher's key from the passphrase.
        function: &'static str,
        /// Its costs in the file, and the highest that are allowed.
        reason: String,
    },
    /// The passphrase could not be had.
    #[error("the key is encrypted, and there is no passphrase for it")]
    NoPassphrase(#[source] io::Error),
    /// Decryption failed.
    #[error("the passphrase is wrong, or the encrypted key is damaged")]
    WrongPassphrase,
    /// The form is right and the content is not.
    #[error("the {form} is malformed: {reason}")]
    Malformed {
        /// Which form.
        form: &'static str,
        /// The parser's error.
        reason: String,
    },
}

impl Failure for KeyFormatError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoPassphrase(source) => source.into(),
            Self::NotAKey { .. }
            | Self::NotText
            | Self::OtherHalf { .. }
            | Self::Rfc4716
            | Self::Prefixed { .. }
            | Self::Several { .. }
            | Self::Certificate { .. }
            | Self::Kind { .. }
            | Self::LegacyEncryption
            | Self::Cipher { .. }
            | Self::PrivateEncryption { .. }
            | Self::Costly { .. }
            | Self::WrongPassphrase
            | Self::Malformed { .. } => Kind::Failed,
        }
    }
}

/// Asks for the passphrase of an encrypted key; called at most once, and only for an encrypted key.
pub type AskPassphrase<'a> = &'a mut dyn FnMut() -> io::Result<Zeroizing<String>>;

/// Reads a public key file, as [`parse_public`] does.
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let read = |source| KeyFileError::Read { path: path.to_owned(), source };
    let bytes = input::read(path).map_err(read)?;
    parse_public(&*bytes).map_err(|source| KeyFileError::Key { path: path.to_owned(), source })
}

/// Reads a private key file, as [`parse_private`] does. On Unix, a file of one's own that group or others may
/// read is refused.
pub fn read_private(path: &Path, passphrase: AskPassphrase<'_>) -> Result<PrivateKey, KeyFileError> {
    let text = read_text(path)?;
    parse_private(&text, passphrase).map_err(|source| KeyFileError::Key { path: path.to_owned(), source })
}

/// The text of a key file of either kind, with the permissions of a private one looked at.
///
/// # Errors
/// When it cannot be read, is not text, or others can read a private key.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let read = |source| KeyFileError::Read { path: path.to_owned(), source };
    let broken = |source| KeyFileError::Key { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let bytes = input::read_from(&file).map_err(read)?;
    let text = text(&bytes).map_err(broken)?;
    // A public key may be read by others; chmod is not the remedy.
    if private_block(&text).is_some() {
        files::check_secret(path, &file).map_err(read)?;
    }
    Ok(text)
}

/// The one public key in `text`: a line of OpenSSH's, whose comment is kept, or PEM (`PUBLIC KEY`, which is
/// SPKI, or `RSA PUBLIC KEY`). Empty lines and lines that begin with `#` are ignored, and a comment need not
/// be UTF-8.
pub fn parse_public(text: impl AsRef<[u8]>) -> Result<PublicKey, KeyFormatError> {
    let bytes = text.as_ref();
    let lines = || {
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"))
    };
    // A comment may contain dashes too.
    if lines().any(|line| line.starts_with(b"-----BEGIN ")) {
        return parse_public_pem(&String::from_utf8_lossy(bytes));
    }
    let not_a_key = || KeyFormatError::NotAKey {
        wanted: "public key",
        expected: "a line such as \"ssh-ed25519 AAAA… comment\", or PEM (BEGIN PUBLIC KEY)",
    };
    let Some(line) = lines().next() else { return Err(not_a_key()) };
    if line.starts_with(b"---- BEGIN SSH2 PUBLIC KEY") {
        return Err(KeyFormatError::Rfc4716);
    }
    let Some(PublicLine { kind, data, comment, before }) = PublicLine::find(line) else {
        return Err(if str::from_utf8(bytes).is_err() { KeyFormatError::NotText } else { not_a_key() });
    };
    if !before.is_empty() {
        let before = String::from_utf8_lossy(before).into_owned();
        return Err(KeyFormatError::Prefixed { before, kind: kind.to_owned() });
    }
    if kind.ends_with("-cert-v01@openssh.com") {
        return Err(KeyFormatError::Certificate { kind: kind.to_owned() });
    }
    if lines().count() > 1 {
        return Err(KeyFormatError::Several { count: lines().count() });
    }
    let blob = decode_base64(data).map_err(|error| malformed("OpenSSH public key", error))?;
    let key = PublicKey::new(openssh_key::public_key(&blob)?, comment);
    let named_after_its_signatures =
        matches!(kind, "rsa-sha2-256" | "rsa-sha2-512") && matches!(key.key_data(), KeyData::Rsa(_));
    if key.algorithm().as_str() != kind && !named_after_its_signatures {
        let reason = format_args!("it calls itself {kind} and is {}", key.algorithm());
        return Err(malformed("OpenSSH public key", reason));
    }
    match key.key_data() {
        KeyData::Rsa(_)
        | KeyData::Ecdsa(_)
        | KeyData::Ed25519(_)
        | KeyData::SkEcdsaSha2NistP256(_)
        | KeyData::SkEd25519(_) => Ok(key),
        _ => Err(KeyFormatError::Kind { found: kind.to_owned() }),
    }
}

/// A line with a key or a certificate in OpenSSH's form.
pub(crate) struct PublicLine<'a> {
    /// The name of its type, as written.
    pub(crate) kind: &'a str,
    /// Its encoding in base64, which begins with `AAAA`: no type name has 2^18 bytes.
    pub(crate) data: &'a str,
    /// What follows.
    pub(crate) comment: &'a [u8],
    /// The text before the type: options, or the names of hosts.
    before: &'a [u8],
}

impl<'a> PublicLine<'a> {
    /// The first type name of `line` that an encoding follows.
    pub(crate) fn find(line: &'a [u8]) -> Option<Self> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let line = line.trim_ascii();
        let mut rest = line;
        loop {
            let (kind, behind) = rest.split_at(rest.iter().position(blank)?);
            let behind = behind.trim_ascii_start();
            if behind.starts_with(b"AAAA") {
                let (data, comment) = behind.split_at(behind.iter().position(blank).unwrap_or(behind.len()));
                let before = line.get(..line.len() - rest.len())?.trim_ascii();
                return Some(Self {
                    kind: str::from_utf8(kind).ok()?,
                    data: str::from_utf8(data).ok()?,
                    comment: comment.trim_ascii(),
                    before,
                });
            }
            rest = behind;
        }
    }
}

/// The private key in `text`; an encrypted one is decrypted with a passphrase, which is then asked for.
///
/// Accepts OpenSSH's own form, PKCS#8 (plain, or encrypted by PBES2), PKCS#1 and SEC1, each in PEM. PEM
/// blocks of other kinds, such as the `EC PARAMETERS` that OpenSSL writes, are skipped.
pub fn parse_private(text: &str, passphrase: AskPassphrase<'_>) -> Result<PrivateKey, KeyFormatError> {
    let Some((label, pem)) = private_block(text) else {
        return Err(match parse_public(text) {
            Ok(_) => KeyFormatError::OtherHalf { found: "public", wanted: "private" },
            Err(
                error @ (KeyFormatError::Certificate { .. }
                | KeyFormatError::Rfc4716
                | KeyFormatError::Prefixed { .. }),
            ) => error,
            Err(_) => KeyFormatError::NotAKey {
                wanted: "private key",
                expected: "OpenSSH's own form, or PKCS#8, PKCS#1 or SEC1 in PEM",
            },
        });
    };
    if pem.contains("Proc-Type:") {
        return Err(KeyFormatError::LegacyEncryption);
    }
    let document = || {
        let mut der = pem_body(pem)?;
        SecretDocument::try_from(std::mem::take(&mut *der)).map_err(|error| malformed("PEM", error))
    };
    match label {
        "OPENSSH PRIVATE KEY" => openssh_key::private_key(pem, passphrase),
        "PRIVATE KEY" => pkcs8_private(&document()?),
        "ENCRYPTED PRIVATE KEY" => encrypted_pkcs8_private(&document()?, passphrase),
        "RSA PRIVATE KEY" => rsa::PrivateKey::from_pkcs1_der(document()?.as_bytes())
            .map_err(|error| malformed("PKCS#1 key", error))
            .and_then(|key| rsa_private(&key)),
        "EC PRIVATE KEY" => ec_private("SEC1 key", document()?.as_bytes(), None),
        other => Err(KeyFormatError::Kind { found: other.trim_end_matches("PRIVATE KEY").trim().to_owned() }),
    }
}

fn parse_public_pem(text: &str) -> Result<PublicKey, KeyFormatError> {
    let Some((label, pem)) = pem_block(text, |label| label.ends_with("PUBLIC KEY")) else {
        return Err(match private_block(text) {
            Some(_) => KeyFormatError::OtherHalf { found: "private", wanted: "public" },
            None => KeyFormatError::NotAKey {
                wanted: "public key",
                expected: "an OpenSSH public key line, or PEM (BEGIN PUBLIC KEY)",
            },
        });
    };
    let count = text
        .match_indices("-----BEGIN ")
        .filter_map(|(start, begin)| text.get(start + begin.len()..)?.split_once("-----"))
        .filter(|(label, _)| label.ends_with(" KEY"))
        .count();
    if count > 1 {
        return Err(KeyFormatError::Several { count });
    }
    let der = pem_body(pem)?;
    let bad = |form| move |error: pkcs8::spki::Error| malformed(form, error);
    let key = match label {
        "PUBLIC KEY" => {
            let info = SubjectPublicKeyInfoRef::try_from(der.as_slice())
                .map_err(|error| malformed("SPKI public key", error))?;
            let bad = bad("SPKI public key");
            match info.algorithm.oid {
                RSA => rsa_public("SPKI public key", info.subject_public_key.raw_bytes())?,
                EC => match info.algorithm.parameters_oid().map_err(bad)? {
                    P256 => p256::PublicKey::try_from(info).map(|key| ec_public(&key.to_sec1_bytes())),
                    P384 => p384::PublicKey::try_from(info).map(|key| ec_public(&key.to_sec1_bytes())),
                    P521 => p521::PublicKey::try_from(info).map(|key| ec_public(&key.to_sec1_bytes())),
                    curve => return Err(KeyFormatError::Kind { found: format!("ECDSA (curve {curve})") }),
                }
                .map_err(bad)??,
                ED25519 => {
                    let key = ed25519_dalek::VerifyingKey::try_from(info).map_err(bad)?;
                    KeyData::Ed25519(Ed25519PublicKey(key.to_bytes()))
                }
                other => return Err(KeyFormatError::Kind { found: other.to_string() }),
            }
        }
        "RSA PUBLIC KEY" => rsa_public("PKCS#1 public key", &der)?,
        other => {
            return Err(KeyFormatError::Kind {
                found: other.trim_end_matches("PUBLIC KEY").trim().to_owned(),
            });
        }
    };
    Ok(PublicKey::from(key))
}

/// The text of a key file. Only comments and the text around a PEM block may be anything other than UTF-8.
fn text(bytes: &[u8]) -> Result<Zeroizing<String>, KeyFormatError> {
    // A byte that is not UTF-8 becomes three; the text is never moved, so no copy of it is left behind.
    let mut text = Zeroizing::new(String::with_capacity(3 * bytes.len()));
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    let is_key = text.contains("-----BEGIN ")
        || bytes.split(|byte| *byte == b'\n').any(|line| PublicLine::find(line).is_some());
    if is_key || str::from_utf8(bytes).is_ok() { Ok(text) } else { Err(KeyFormatError::NotText) }
}

/// The label and the PEM text of the first private key in `text`.
#[must_use]
pub fn private_block(text: &str) -> Option<(&str, &str)> {
    pem_block(text, |label| label.ends_with("PRIVATE KEY"))
}

/// The first PEM block whose label is accepted, from its first dash to its last.
fn pem_block(text: &str, wanted: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    text.match_indices("-----BEGIN ").find_map(|(start, begin)| {
        let block = text.get(start..)?;
        let (label, _) = block.get(begin.len()..)?.split_once("-----")?;
        let end = format!("-----END {label}-----");
        let length = block.find(&end)? + end.len();
        wanted(label).then(|| block.get(..length).map(|block| (label, block))).flatten()
    })
}

/// The decoded content of a PEM block; the base64 may have blanks and line ends anywhere.
pub(crate) fn pem_body(pem: &str) -> Result<Zeroizing<Vec<u8>>, KeyFormatError> {
    let inner =
        pem.split("-----").nth(2).ok_or_else(|| malformed("PEM", "its lines of dashes are missing"))?;
    let mut base64 = Zeroizing::new(String::with_capacity(inner.len()));
    base64.extend(inner.chars().filter(|character| !character.is_ascii_whitespace()));
    if base64.is_empty() {
        return Err(malformed("PEM", "there is nothing between its lines of dashes"));
    }
    Base64::decode_vec(&base64)
        .map(Zeroizing::new)
        .map_err(|_| malformed("PEM", "the text between its lines of dashes is not base64"))
}

fn encrypted_pkcs8_private(
    document: &SecretDocument,
    passphrase: AskPassphrase<'_>,
) -> Result<PrivateKey, KeyFormatError> {
    let unsupported =
        |reason: &dyn ToString| KeyFormatError::PrivateEncryption { reason: reason.to_string() };
    let sealed: EncryptedPrivateKeyInfoRef<'_> = document.decode_msg().map_err(|error| {
        // Whether it is the form that is broken, or the method that is unknown.
        match encryption(document.as_bytes()) {
            Ok(method) => unsupported(&format_args!("{method}: {error}")),
            Err(broken) => malformed("encrypted PKCS#8 key", broken),
        }
    })?;
    if let EncryptionScheme::Pbes2(parameters) = &sealed.encryption_algorithm {
        affordable(&parameters.kdf)?;
    }
    let passphrase = passphrase().map_err(KeyFormatError::NoPassphrase)?;
    let opened = sealed.decrypt(passphrase.as_bytes()).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed) => KeyFormatError::WrongPassphrase,
        pkcs8::Error::EncryptedPrivateKey(error) => unsupported(&error),
        // With a wrong passphrase, the padding is right for one ciphertext in 256, and the result is noise.
        pkcs8::Error::Asn1(_) => KeyFormatError::WrongPassphrase,
        error => malformed("encrypted PKCS#8 key", error),
    })?;
    pkcs8_private(&opened)
}

/// Iterations of PBKDF2: RFC 8018, section 4.2, does not consider more.
const MAX_ITERATIONS: u32 = 10_000_000;
/// Memory of scrypt in bytes: as much as OpenSSL allows it.
const MAX_MEMORY: u64 = 32 << 20;
/// Memory times rounds of scrypt, in bytes: a few seconds.
const MAX_WORK: u64 = 1 << 30;

/// Whether deriving the cipher's key ends in a reasonable time, with a reasonable amount of memory.
fn affordable(function: &Kdf) -> Result<(), KeyFormatError> {
    match function {
        Kdf::Pbkdf2(Pbkdf2Params { iteration_count, .. }) if *iteration_count > MAX_ITERATIONS => {
            Err(KeyFormatError::Costly {
                function: "PBKDF2",
                reason: format!("has {iteration_count} iterations; at most {MAX_ITERATIONS} are allowed"),
            })
        }
        Kdf::Pbkdf2(_) => Ok(()),
        Kdf::Scrypt(ScryptParams { cost_parameter: n, block_size: r, parallelization: p, .. }) => {
            if !n.is_power_of_two() || *n < 2 || *r == 0 || *p == 0 {
                return Err(malformed(
                    "encrypted PKCS#8 key",
                    format_args!("scrypt with N={n}, r={r} and p={p}"),
                ));
            }
            let (block, p) = (128 * u64::from(*r), u64::from(*p));
            let memory = block.saturating_mul(n.saturating_add(p));
            let work = block.saturating_mul(*n).saturating_mul(p);
            if memory > MAX_MEMORY || work > MAX_WORK {
                return Err(KeyFormatError::Costly {
                    function: "scrypt",
                    reason: format!(
                        "takes {memory} bytes of memory in {p} rounds (N={n}, r={r}, p={p}); at most {MAX_MEMORY} \
                         bytes, and {MAX_WORK} in all rounds, are allowed"
                    ),
                });
            }
            Ok(())
        }
        function => Err(KeyFormatError::PrivateEncryption { reason: function.oid().to_string() }),
    }
}

/// The object identifier of the method that a PKCS#8 key is encrypted with (RFC 5958, section 3).
fn encryption(der: &[u8]) -> pkcs8::der::Result<ObjectIdentifier> {
    let mut reader = SliceReader::new(der)?;
    let method = reader.sequence(|fields| {
        let method = AlgorithmIdentifierRef::decode(fields)?;
        <&OctetStringRef>::decode(fields)?;
        Ok::<_, pkcs8::der::Error>(method.oid)
    })?;
    reader.finish()?;
    Ok(method)
}

fn pkcs8_private(document: &SecretDocument) -> Result<PrivateKey, KeyFormatError> {
    let bad = |error: pkcs8::Error| malformed("PKCS#8 key", error);
    let info: PrivateKeyInfoRef<'_> =
        document.decode_msg().map_err(|error| malformed("PKCS#8 key", error))?;
    match info.algorithm.oid {
        RSA => rsa_private(&rsa::PrivateKey::try_from(info).map_err(bad)?),
        EC => {
            let curve = info.algorithm.parameters_oid().map_err(|error| malformed("PKCS#8 key", error))?;
            ec_private("PKCS#8 key", info.private_key.as_bytes(), Some(curve))
        }
        ED25519 => {
            let key = ed25519_dalek::SigningKey::try_from(info).map_err(bad)?;
            new_private("PKCS#8 key", KeypairData::Ed25519(Ed25519Keypair::from(key)))
        }
        other => Err(KeyFormatError::Kind { found: other.to_string() }),
    }
}

/// A SEC1 EC key (RFC 5915), on the curve `named` by its container, if any. It names its curve itself, or
/// leaves that to its container; if neither does, the first curve that fits its numbers is used.
fn ec_private(
    form: &'static str,
    der: &[u8],
    named: Option<ObjectIdentifier>,
) -> Result<PrivateKey, KeyFormatError> {
    let key = EcPrivateKey::from_der(der).map_err(|error| malformed(form, error))?;
    let own = key.parameters.map(|EcParameters::NamedCurve(curve)| curve);
    if let (Some(own), Some(named)) = (own, named)
        && own != named
    {
        return Err(malformed(form, format_args!("it names two curves, {named} and {own}")));
    }
    let curve = match own.or(named) {
        Some(P256) => SshCurve::P256,
        Some(P384) => SshCurve::P384,
        Some(P521) => SshCurve::P521,
        Some(curve) => return Err(KeyFormatError::Kind { found: format!("ECDSA (curve {curve})") }),
        None => [SshCurve::P256, SshCurve::P384, SshCurve::P521]
            .into_iter()
            .find(|curve| {
                let length = curve.coordinate_length();
                key.private_key.len() <= length
                    && key.public_key.is_none_or(|point| point.len() <= 1 + 2 * length)
            })
            .ok_or_else(|| malformed(form, "not a key on P-256, P-384 or P-521"))?,
    };
    new_private(form, ec_pair(curve, key.private_key, key.public_key)?)
}

/// The key with this private number, with or without leading zeros, whose point is `told` if one is given.
pub(crate) fn ec_pair(
    curve: SshCurve,
    number: &[u8],
    told: Option<&[u8]>,
) -> Result<KeypairData, KeyFormatError> {
    let scalar = integer::fixed(number, curve.coordinate_length())
        .ok_or_else(|| malformed("ECDSA key", "the private number is too large for its curve"))?;
    match curve {
        SshCurve::P256 => p256_pair(&scalar, told),
        SshCurve::P384 => p384_pair(&scalar, told),
        SshCurve::P521 => p521_pair(&scalar, told),
    }
    .map(KeypairData::Ecdsa)
}

macro_rules! ec_pair {
    ($name:ident, $curve:ident, $variant:ident) => {
        fn $name(scalar: &[u8], told: Option<&[u8]>) -> Result<EcdsaKeypair, KeyFormatError> {
            let bad = |reason: &dyn ToString| malformed("ECDSA key", reason.to_string());
            let key = $curve::SecretKey::from_slice(scalar).map_err(|error| bad(&error))?;
            let public = key.public_key();
            if let Some(told) = told
                && $curve::PublicKey::from_sec1_bytes(told).map_err(|error| bad(&error))? != public
            {
                return Err(bad(&"its public key is that of another key"));
            }
            Ok(EcdsaKeypair::$variant { public: public.into(), private: key.into() })
        }
    };
}

ec_pair!(p256_pair, p256, NistP256);
ec_pair!(p384_pair, p384, NistP384);
ec_pair!(p521_pair, p521, NistP521);

fn rsa_private(key: &rsa::PrivateKey) -> Result<PrivateKey, KeyFormatError> {
    let pair = RsaKeypair::try_from(key).map_err(|error| malformed("RSA key", error))?;
    new_private("RSA key", KeypairData::Rsa(pair))
}

fn new_private(form: &'static str, pair: KeypairData) -> Result<PrivateKey, KeyFormatError> {
    PrivateKey::new(pair, "").map_err(|error| malformed(form, error))
}

/// The numbers of a PKCS#1 public key (RFC 8017, appendix A.1.1), of any length; it is checked when the key
/// is used.
fn rsa_public(form: &'static str, der: &[u8]) -> Result<KeyData, KeyFormatError> {
    let key = rsa::pkcs1::RsaPublicKey::from_der(der).map_err(|error| malformed(form, error))?;
    let [e, n] = [key.public_exponent, key.modulus]
        .map(|number: rsa::pkcs1::UintRef<'_>| Mpint::from_positive_bytes(number.as_bytes()));
    RsaPublicKey::new(e, n).map(KeyData::Rsa).map_err(|error| malformed(form, error))
}

fn ec_public(point: &[u8]) -> Result<KeyData, KeyFormatError> {
    EcdsaPublicKey::from_sec1_bytes(point)
        .map(KeyData::Ecdsa)
        .map_err(|error| malformed("ECDSA public key", error))
}

/// An error with the message of the parser of `form`.
pub(crate) fn malformed(form: &'static str, reason: impl ToString) -> KeyFormatError {
    KeyFormatError::Malformed { form, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_key;
    use crate::ssh_keygen::{SshKeygen, security_keys};
    use proptest::prelude::*;
    use rsa::pkcs8::Document;
    use std::fs;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    /// RFC 8410, section 10.1 and 10.3.
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const ED25519_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    /// RFC 8410, section 10.2: a key for X25519, which signs nothing.
    const X25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    /// What `openssl pkcs8 -topk8 -v2 des3` makes of an Ed25519 key.
    const TRIPLE_DES: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGKME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAgulTCps5TDcQICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQIWZb/rnw59OkEOHIvtLGXDGegAMHU
sEkGPHe0ZApDh9jS/Sv/+oe5EzPdXIPtmKQ3+y4Glra5Rfp/J4MU2QuU9xtA
-----END ENCRYPTED PRIVATE KEY-----
";

    fn no_passphrase() -> io::Result<Zeroizing<String>> {
        Err(io::Error::other("none was expected"))
    }

    #[test]
    fn a_line_keeps_its_comment_and_may_stand_among_remarks() {
        let key = parse_public(format!("# mine\n\n \t{LINE}\t a  comment \r\n")).unwrap();
        assert_eq!(key.comment().as_str_lossy(), "a  comment");
        assert_eq!(parse_public(LINE).unwrap().key_data(), key.key_data());
        for key in security_keys() {
            assert_eq!(parse_public(key.to_openssh().unwrap()).unwrap(), key);
        }
    }

    #[test]
    fn what_is_no_single_public_key_is_named() {
        for text in ["", "\n", "hello", "ssh-ed25519", "ssh-ed25519 !", "-----BEGIN PUBLIC KEY-----"] {
            assert!(matches!(parse_public(text), Err(KeyFormatError::NotAKey { .. })), "{text:?}");
        }
        let two = format!("{LINE}\n{LINE}\n");
        assert!(matches!(parse_public(two), Err(KeyFormatError::Several { count: 2 })));
        assert!(matches!(parse_public(ED25519_PUBLIC.repeat(2)), Err(KeyFormatError::Several { count: 2 })));
        let certificate = LINE.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com");
        assert!(matches!(parse_public(&certificate), Err(KeyFormatError::Certificate { .. })));
        let mislabelled = LINE.replace("ssh-ed25519", "ssh-rsa");
        assert!(matches!(parse_public(&mislabelled), Err(KeyFormatError::Malformed { .. })));
        let cut = LINE.get(..60).unwrap();
        assert!(matches!(parse_public(cut), Err(KeyFormatError::Malformed { .. })));
        assert!(
            matches!(parse_public(X25519), Err(KeyFormatError::Kind { found }) if found == "1.3.101.110")
        );
        let private = parse_public(ED25519_PRIVATE).unwrap_err();
        assert!(matches!(private, KeyFormatError::OtherHalf { found: "private", wanted: "public" }));
        let public = parse_private(LINE, &mut no_passphrase).unwrap_err();
        assert!(matches!(public, KeyFormatError::OtherHalf { found: "public", wanted: "private" }));
    }

    #[test]
    fn an_elliptic_curve_that_ssh_does_not_have_is_named() {
        // SPKI of the generator of secp256k1.
        let mut der = vec![0x30, 0x56, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b];
        der.extend([0x81, 4, 0, 0x0a, 3, 0x42, 0, 4]);
        der.extend([0x11; 64]);
        let pem = Document::try_from(der).unwrap().to_pem("PUBLIC KEY", pkcs8::LineEnding::LF).unwrap();
        let error = parse_public(&pem).unwrap_err();
        assert!(matches!(error, KeyFormatError::Kind { found } if found == "ECDSA (curve 1.3.132.0.10)"));
    }

    #[test]
    fn ed25519_in_pem_is_read_with_its_published_values() {
        let private = parse_private(ED25519_PRIVATE, &mut no_passphrase).unwrap();
        let public = parse_public(ED25519_PUBLIC).unwrap();
        assert_eq!(private.public_key().key_data(), public.key_data());
        let (_, seed) = device_key::raw_private(&private).unwrap();
        assert_eq!(seed.get(..4), Some([0xd4, 0xee, 0x72, 0xdb].as_slice()));
    }

    #[test]
    fn an_encryption_that_is_not_supported_is_named() {
        let error = parse_private(TRIPLE_DES, &mut no_passphrase).unwrap_err();
        assert!(matches!(error, KeyFormatError::PrivateEncryption { .. }), "{error:?}");
    }

    /// All forms of the same key give the same numbers.
    #[test]
    fn every_form_that_ssh_keygen_writes_gives_the_same_key() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (kind, bits) in
            [("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("ed25519", "")]
        {
            for format in ["RFC4716", "PKCS8", "PEM"] {
                let name = format!("{kind}{bits}-{format}");
                let public = keygen.key_in(&name, kind, bits, format, "");
                assert_eq!(read_public(&keygen.path(&format!("{name}.pub"))).unwrap(), public);
                let private = read_private(&keygen.path(&name), &mut no_passphrase).unwrap();
                assert_eq!(private.public_key().key_data(), public.key_data(), "{name}");
                device_key::raw_private(&private).unwrap();
                if kind != "ed25519" {
                    let pem = keygen.run(&["-e", "-m", format, "-f", &format!("{name}.pub")]).unwrap();
                    if format != "RFC4716" {
                        assert_eq!(parse_public(&pem).unwrap().key_data(), public.key_data(), "{pem}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (kind, format) in
            [("ed25519", "RFC4716"), ("ecdsa", "RFC4716"), ("ecdsa", "PKCS8"), ("rsa", "PKCS8")]
        {
            let name = format!("{kind}-{format}");
            let public = keygen.key_in(&name, kind, "", format, "correct horse");
            let path = keygen.path(&name);
            let with = |passphrase: &'static str| {
                read_private(&path, &mut || Ok(Zeroizing::new(passphrase.to_owned())))
            };
            assert_eq!(with("correct horse").unwrap().public_key().key_data(), public.key_data());
            for wrong in ["", "correct hors", "correct horse "] {
                let Err(KeyFileError::Key { source, .. }) = with(wrong) else { panic!("{name} opened") };
                assert!(matches!(source, KeyFormatError::WrongPassphrase), "{name}: {source:?}");
            }
            let Err(KeyFileError::Key { source, .. }) = read_private(&path, &mut no_passphrase) else {
                panic!()
            };
            assert!(matches!(source, KeyFormatError::NoPassphrase(_)));
        }
        keygen.key_in("legacy", "rsa", "2048", "PEM", "correct horse");
        let Err(KeyFileError::Key { source, .. }) = read_private(&keygen.path("legacy"), &mut no_passphrase)
        else {
            panic!()
        };
        assert!(matches!(source, KeyFormatError::LegacyEncryption));
    }

    #[cfg(unix)]
    #[test]
    fn a_private_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, ED25519_PRIVATE).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_private(&path, &mut no_passphrase).unwrap_err();
            assert!(matches!(error, KeyFileError::Read { .. }), "{error:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read_private(&path, &mut no_passphrase).is_ok());
    }

    #[test]
    fn missing_and_huge_files_are_not_read_and_binary_ones_are_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read_public(&folder.path().join("missing")).unwrap_err();
        assert!(matches!(missing, KeyFileError::Read { .. }), "{missing}");
        let path = folder.path().join("odd");
        fs::write(&path, vec![b'a'; 65_537]).unwrap();
        assert!(matches!(read_public(&path), Err(KeyFileError::Read { .. })));
        fs::write(&path, [0xff; 10]).unwrap();
        let binary = read_public(&path).unwrap_err();
        assert!(matches!(binary, KeyFileError::Key { source: KeyFormatError::NotText, .. }), "{binary}");
    }

    /// The same base64 in lines of another length, or with blanks in it, and other line ends.
    fn rewrapped(pem: &str, width: usize, blank: &str, end: &str) -> String {
        let lines: Vec<&str> = pem.lines().collect();
        let [first, body @ .., last] = lines.as_slice() else { panic!("{pem}") };
        let body: Vec<char> = body.concat().chars().collect();
        let body = body.chunks(width).map(|line| line.iter().collect::<String>() + blank + end);
        format!("{first}{end}{}{last}{end}", body.collect::<String>())
    }

    #[test]
    fn base64_is_read_in_lines_of_any_length() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (kind, format) in
            [("ed25519", "RFC4716"), ("ecdsa", "PKCS8"), ("ecdsa", "PEM"), ("rsa", "PKCS8"), ("rsa", "PEM")]
        {
            let name = format!("{kind}-{format}");
            let public = keygen.key_in(&name, kind, "", format, "");
            let pem = fs::read_to_string(keygen.path(&name)).unwrap();
            let spki = (kind != "ed25519")
                .then(|| keygen.run(&["-e", "-m", "PKCS8", "-f", &format!("{name}.pub")]).unwrap());
            for (width, blank, end) in
                [(1, "", "\n"), (48, "", "\r\n"), (65, "  ", "\n"), (76, "\t", "\n"), (usize::MAX, "", "\n")]
            {
                let text = rewrapped(&pem, width, blank, end);
                let key = parse_private(&text, &mut no_passphrase).unwrap();
                assert_eq!(key.public_key().key_data(), public.key_data(), "{text}");
                if let Some(spki) = &spki {
                    let text = rewrapped(spki, width, blank, end);
                    assert_eq!(parse_public(&text).unwrap().key_data(), public.key_data(), "{text}");
                }
            }
        }
    }

    /// As OpenSSL writes it around a key from a PKCS#12 file, with a name in ISO 8859-1.
    #[test]
    fn what_stands_around_a_pem_block_need_not_be_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(
            &path,
            [b"Bag Attributes\n    friendlyName: m\xfcller\n", ED25519_PRIVATE.as_bytes()].concat(),
        )
        .unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert!(read_private(&path, &mut no_passphrase).is_ok());
        fs::write(&path, [b"# m\xfcller\n", ED25519_PUBLIC.as_bytes()].concat()).unwrap();
        assert!(read_public(&path).is_ok());
    }

    #[test]
    fn a_comment_is_any_bytes() {
        let comment = b"m\xfcller@host -----BEGIN X-----";
        let key = parse_public([LINE.as_bytes(), b" ", comment, b"\r\n"].concat()).unwrap();
        assert_eq!(key.comment().as_bytes(), comment);
        assert_eq!(key.key_data(), parse_public(LINE).unwrap().key_data());
    }

    #[test]
    fn a_key_that_its_signatures_name_is_read_as_openssh_reads_it() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let public = keygen.key("rsa", "rsa", "2048");
        let line = fs::read_to_string(keygen.path("rsa.pub")).unwrap();
        let line = line.replacen("ssh-rsa", "rsa-sha2-512", 1);
        fs::write(keygen.path("named.pub"), &line).unwrap();
        keygen.run(&["-l", "-f", "named.pub"]).unwrap();
        assert_eq!(parse_public(&line).unwrap().key_data(), public.key_data());
    }

    #[test]
    fn other_forms_of_a_public_key_are_named() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("key", "ed25519", "");
        let other = keygen.run(&["-e", "-f", "key.pub"]).unwrap();
        assert!(matches!(parse_public(&other), Err(KeyFormatError::Rfc4716)), "{other}");
        for before in ["restrict,command=\"echo a b\"", "host.example.com", "@cert-authority *"] {
            let error = parse_public(format!("{before} {LINE}\n")).unwrap_err();
            let KeyFormatError::Prefixed { before: found, kind } = error else { panic!("{error}") };
            assert_eq!((found.as_str(), kind.as_str()), (before, "ssh-ed25519"));
        }
    }

    /// The default of RFC 8018, and of OpenSSL before 1.1.0: `openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA1`.
    #[test]
    fn pbes2_with_its_default_function_opens_with_its_passphrase_only() {
        const KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGNMEkGCSqGSIb3DQEFDTA8MBsGCSqGSIb3DQEFDDAOBAhCLUrNLDoXSQICCAAw
HQYJYIZIAWUDBAEqBBDb05EUWO/WgTs4zUGsNxeRBECcC9G5TWOgXUxQQaCby7o6
Z8AsYpRqS2+8dgerNZqvePNoG2HA3Q8AFNrDpmhoSWsIEWkJxKC65c1ed53GHuHo
-----END ENCRYPTED PRIVATE KEY-----
";
        let with =
            |passphrase: &'static str| parse_private(KEY, &mut || Ok(Zeroizing::new(passphrase.to_owned())));
        let key = with("secret").unwrap();
        assert_eq!(
            key.public_key().key_data(),
            parse_public("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGBz5vV1cTk/aNgv4ri7azK7UpOpBhyx61KMvzfVSyqC")
                .unwrap()
                .key_data()
        );
        assert!(matches!(with("wrong"), Err(KeyFormatError::WrongPassphrase)));
    }

    /// Reads an encrypted key whose file asks for these costs, and for whose passphrase nothing may ask.
    fn read_with_costs(kdf: Kdf) -> KeyFormatError {
        use pkcs5::pbes2::{EncryptionScheme as Cipher, Parameters};
        use rsa::pkcs8::der::EncodePem as _;
        let parameters = Parameters { kdf, encryption: Cipher::Aes256Cbc { iv: [0; 16] } };
        let data = OctetStringRef::new(&[0; 48]).unwrap();
        let key =
            EncryptedPrivateKeyInfoRef { encryption_algorithm: parameters.into(), encrypted_data: data };
        let pem = key.to_pem(pkcs8::LineEnding::LF).unwrap();
        parse_private(&pem, &mut || panic!("asks for a passphrase")).unwrap_err()
    }

    #[test]
    fn a_file_cannot_ask_for_more_time_or_memory_than_a_key_needs() {
        let pbkdf2 = Pbkdf2Params::hmac_sha256(MAX_ITERATIONS + 1, b"saltsalt").unwrap();
        let error = read_with_costs(Kdf::Pbkdf2(pbkdf2));
        assert!(matches!(error, KeyFormatError::Costly { function: "PBKDF2", .. }), "{error}");
        let salt = pbkdf2.salt;
        let scrypt = |n, r, p| {
            read_with_costs(Kdf::Scrypt(ScryptParams {
                salt,
                cost_parameter: n,
                block_size: r,
                parallelization: p,
                key_length: None,
            }))
        };
        for (n, r, p) in [(1 << 40, 8, 1), (1 << 15, 8, 1), (1 << 63, u16::MAX, u16::MAX), (1 << 14, 8, 1000)]
        {
            let error = scrypt(n, r, p);
            assert!(
                matches!(error, KeyFormatError::Costly { function: "scrypt", .. }),
                "{n} {r} {p}: {error}"
            );
        }
        for (n, r, p) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (1 << 14, 0, 1), (1 << 14, 8, 0)] {
            let error = scrypt(n, r, p);
            assert!(matches!(error, KeyFormatError::Malformed { .. }), "{n} {r} {p}: {error}");
        }
    }

    /// The output of `openssl pkcs8 -scrypt` with its default costs.
    #[test]
    fn openssl_s_own_scrypt_is_affordable() {
        let salt = Pbkdf2Params::hmac_sha256(1, b"saltsalt").unwrap().salt;
        let (cost_parameter, block_size, parallelization) = (1 << 14, 8, 1);
        let usual = ScryptParams { salt, cost_parameter, block_size, parallelization, key_length: None };
        affordable(&Kdf::Scrypt(usual)).unwrap();
    }

    /// Damage and an unknown method are different things.
    #[test]
    fn a_broken_encrypted_key_is_not_called_unsupported() {
        let body = "MIGKME4GCSqGSIb3DQEFDTBB";
        let cut =
            format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n");
        let error = parse_private(&cut, &mut no_passphrase).unwrap_err();
        assert!(matches!(error, KeyFormatError::Malformed { .. }), "{error:?}");
        let error = parse_private(TRIPLE_DES, &mut no_passphrase).unwrap_err();
        let KeyFormatError::PrivateEncryption { reason } = error else { panic!("{error:?}") };
        assert!(reason.contains("1.2.840.113549.3.7"), "{reason}");
    }

    /// Its numbers are checked when a key is used, not when it is read.
    #[test]
    fn a_public_rsa_key_in_pem_is_read_at_any_length() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let public = keygen.key("rsa", "rsa", "4608");
        for format in ["PKCS8", "PEM"] {
            let pem = keygen.run(&["-e", "-m", format, "-f", "rsa.pub"]).unwrap();
            assert_eq!(parse_public(&pem).unwrap().key_data(), public.key_data());
        }
    }

    proptest! {
        #[test]
        fn a_damaged_key_never_makes_a_reader_panic(at in 0_usize..400, byte in 0_u8..128) {
            for text in [LINE, ED25519_PUBLIC, ED25519_PRIVATE] {
                let mut bytes = text.as_bytes().to_vec();
                let length = bytes.len();
                bytes[at % length] = byte;
                let text = String::from_utf8(bytes).unwrap();
                let _ = parse_public(&text);
                let _ = parse_private(&text, &mut no_passphrase);
            }
        }
    }
}
