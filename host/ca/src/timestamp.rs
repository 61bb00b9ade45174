//! The timestamp authority: states the time, and signs it together with one request.
//!
//! | to learn about | open |
//! |---|---|
//! | a key in an ssh-agent | [`agent_key`] |
//! | an authority at a URL | [`remote`] |
//! | running that authority | [`service`], [`access`], [`rate`], [`clock`], [`tls`] |
//!
//! The signed message is 36 bytes, `SHA-256(request) ‖ now u32`. RSA signs it with PKCS#1 v1.5 and SHA-256,
//! ECDSA with the curve's own hash, Ed25519 directly; the signature has the fixed length of the wire format.

pub mod access;
#[cfg(unix)]
pub mod agent_key;
pub mod clock;
pub mod rate;
pub mod remote;
pub mod service;
pub mod tls;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use getrandom::SysRng;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use sha2::Sha256;
use ssh_key::PrivateKey;
use ssh_key::private::KeypairData;
use ssh_key::public::KeyData;
use sshsm_firmware::crypto::RustCrypto;
use sshsm_firmware::ssh::timestamp::{Authenticity, Timestamp};
use sshsm_protocol::AsymmetricAlgorithm;
use sshsm_protocol::ssh::timestamp::{MESSAGE_LENGTH, Now, message};

use crate::{
    device_key::{self, DeviceKeyError},
    pkcs11::{self, Pkcs11Error, UriError},
};
use sshsm_client::{Failure, Kind};

/// Why there is no timestamp.
#[derive(Debug, thiserror::Error)]
pub enum TimestampError {
    /// The clock shows a time that 32 bits cannot count.
    #[error("the system clock is outside 1970 to 2106; a timestamp cannot represent that time")]
    Clock,
    /// The key is none that a template can name.
    #[error("the timestamp key cannot be used")]
    Key(#[from] DeviceKeyError),
    /// The token that has the key, or the way to it.
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
    /// The signature could not be computed.
    #[error("signing the timestamp failed")]
    Signature,
    /// The ssh-agent that has the key.
    #[cfg(unix)]
    #[error(transparent)]
    Agent(#[from] agent_key::AgentKeyError),
    /// The service.
    #[error(transparent)]
    Remote(#[from] remote::RemoteError),
}

impl Failure for TimestampError {
    fn kind(&self) -> Kind {
        match self {
            Self::Pkcs11(error) => error.kind(),
            #[cfg(unix)]
            Self::Agent(error) => error.kind(),
            Self::Remote(error) => error.kind(),
            Self::Clock | Self::Key(_) | Self::Signature => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Pkcs11(error) => error.help(),
            #[cfg(unix)]
            Self::Agent(error) => error.help(),
            Self::Remote(error) => error.help(),
            Self::Clock | Self::Key(_) | Self::Signature => None,
        }
    }
}

/// The lengths that timestamp signatures have: Ed25519, P-256; P-384; P-521; RSA of 2048, 3072 and 4096 bits.
pub const SIGNATURE_LENGTHS: [usize; 6] = [64, 96, 132, 256, 384, 512];

/// Whether `signature`, in the wire format, is that of `key` for `request` at `now`.
///
/// # Errors
/// When `key` is not one that a template can contain.
pub fn verify(key: &KeyData, request: &[u8], now: Now, signature: &[u8]) -> Result<bool, DeviceKeyError> {
    let (algorithm, public) = device_key::raw_public(key)?;
    let key = sshsm_protocol::ssh::timestamp::TimestampKey::new(algorithm, &public)
        .map_err(|_| DeviceKeyError::Public { algorithm })?;
    let timestamp = Timestamp::verify::<RustCrypto>(&key, request, now, signature);
    Ok(timestamp.authenticity() == Authenticity::Verified)
}

/// The system clock's time.
pub fn now() -> Result<Now, TimestampError> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| TimestampError::Clock)?;
    u32::try_from(elapsed.as_secs()).map(Now::from_seconds).map_err(|_| TimestampError::Clock)
}

/// A source of signed times for requests: a local key, or a service that has one.
pub trait TimestampSource {
    /// Its address, in the form of `--timestamp`.
    fn describe(&self) -> String;

    /// The algorithm of its key: template tag 1. `None` while it is not known.
    fn algorithm(&self) -> Option<AsymmetricAlgorithm>;

    /// The public half of its key. `None` while it is not known.
    fn key(&self) -> Option<&KeyData>;

    /// Signs the time of `request`, the bytes to be signed. Returns that time and the signature over both, in
    /// the wire format.
    ///
    /// # Errors
    /// When it does not sign.
    fn timestamp(&mut self, request: &[u8]) -> Result<(Now, Vec<u8>), TimestampError>;
}

/// A private key that signs timestamps, wherever it is kept.
pub trait TimestampKey: Send {
    /// The location of the key, for people.
    fn place(&self) -> String;

    /// Its public half; one that a template can name.
    fn public_key(&self) -> &KeyData;

    /// Signs `SHA-256(request) ‖ now u32`; [`AsymmetricAlgorithm::signature_length`] bytes.
    ///
    /// # Errors
    /// When it cannot, or its holder refuses.
    fn sign_message(&mut self, message: &[u8; MESSAGE_LENGTH]) -> Result<Vec<u8>, TimestampError>;
}

impl<K: TimestampKey + ?Sized> TimestampKey for Box<K> {
    fn place(&self) -> String {
        (**self).place()
    }

    fn public_key(&self) -> &KeyData {
        (**self).public_key()
    }

    fn sign_message(&mut self, message: &[u8; MESSAGE_LENGTH]) -> Result<Vec<u8>, TimestampError> {
        (**self).sign_message(message)
    }
}

/// Any key can sign the time, by this system's clock.
impl<K: TimestampKey> TimestampSource for K {
    fn describe(&self) -> String {
        self.place()
    }

    fn algorithm(&self) -> Option<AsymmetricAlgorithm> {
        device_key::algorithm(self.public_key()).ok()
    }

    fn key(&self) -> Option<&KeyData> {
        Some(self.public_key())
    }

    fn timestamp(&mut self, request: &[u8]) -> Result<(Now, Vec<u8>), TimestampError> {
        let now = now()?;
        Ok((now, self.sign_message(&message(request, now))?))
    }
}

/// The address of a timestamp source: the value of `--timestamp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAddress {
    /// A private key in a file; the time is this system's.
    File(PathBuf),
    /// `pkcs11:…`: a key on a PKCS#11 token; the time is this system's.
    Pkcs11(pkcs11::Uri),
    /// `agent:FILE.pub`: the private half of that public key, in the ssh-agent that `SSH_AUTH_SOCK` names;
    /// the time is this system's.
    Agent(PathBuf),
    /// `http(s)://HOST[:PORT]`: a timestamp service, and its time.
    Url(String),
}

impl SourceAddress {
    /// The same, with a relative path begun at `folder`.
    #[must_use]
    pub fn beside(self, folder: &Path) -> Self {
        match self {
            Self::File(file) => Self::File(folder.join(file)),
            Self::Pkcs11(uri) => Self::Pkcs11(uri.beside(folder)),
            Self::Agent(file) => Self::Agent(folder.join(file)),
            Self::Url(url) => Self::Url(url),
        }
    }
}

/// Why the address of a timestamp source is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceAddressError {
    /// `pkcs11:` with an invalid rest.
    #[error(transparent)]
    Pkcs11(#[from] UriError),
    /// A user name or a password.
    #[error(
        "a timestamp service takes no user name and no password in its URL: name a token with --timestamp-token-file"
    )]
    Credentials,
    /// A query or a fragment.
    #[error("a timestamp service is http(s)://HOST[:PORT][/PATH], with nothing after that")]
    TooMuch,
}

impl FromStr for SourceAddress {
    type Err = SourceAddressError;

    fn from_str(text: &str) -> Result<Self, SourceAddressError> {
        if text.starts_with(pkcs11::uri::SCHEME) {
            return Ok(Self::Pkcs11(text.parse()?));
        }
        let url = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        if url.is_some_and(|rest| rest.contains('@')) {
            return Err(SourceAddressError::Credentials);
        }
        if url.is_some_and(|rest| rest.contains(['?', '#'])) {
            return Err(SourceAddressError::TooMuch);
        }
        Ok(match text.strip_prefix("agent:") {
            Some(file) => Self::Agent(file.into()),
            None if text.starts_with("http://") || text.starts_with("https://") => Self::Url(text.into()),
            None => Self::File(text.into()),
        })
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Pkcs11(uri) => uri.fmt(f),
            Self::Agent(file) => write!(f, "agent:{}", file.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// A private key that signs the time; made once, used for many requests.
pub struct TimestampAuthority {
    algorithm: AsymmetricAlgorithm,
    public: Vec<u8>,
    public_key: KeyData,
    key: SigningKey,
    name: String,
}

enum SigningKey {
    Rsa(Box<rsa::pkcs1v15::SigningKey<Sha256>>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl TimestampAuthority {
    /// Uses a decrypted key, with its source: RSA of 2048, 3072 or 4096 bits, P-256, P-384, P-521 or Ed25519.
    pub fn new(key: &PrivateKey, name: impl Into<String>) -> Result<Self, TimestampError> {
        let (algorithm, scalar) = device_key::raw_private(key)?;
        let public_key = key.public_key().key_data().clone();
        let (_, public) = device_key::raw_public(&public_key)?;
        let broken = TimestampError::Key(DeviceKeyError::Private { algorithm });
        let key = match key.key_data() {
            KeypairData::Rsa(pair) => pair.try_into().ok().map(|key| SigningKey::Rsa(Box::new(key))),
            KeypairData::Ed25519(pair) => pair.try_into().ok().map(SigningKey::Ed25519),
            _ => match algorithm.private_length() {
                32 => p256::ecdsa::SigningKey::from_slice(&scalar).ok().map(SigningKey::P256),
                48 => p384::ecdsa::SigningKey::from_slice(&scalar).ok().map(SigningKey::P384),
                _ => p521::ecdsa::SigningKey::from_slice(&scalar).ok().map(SigningKey::P521),
            },
        };
        Ok(Self { algorithm, public, public_key, key: key.ok_or(broken)?, name: name.into() })
    }

    /// The algorithm of the key: template tag 1.
    #[must_use]
    pub const fn algorithm(&self) -> AsymmetricAlgorithm {
        self.algorithm
    }

    /// The raw public key: template tag 2.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs that `request` was made at `now`; [`AsymmetricAlgorithm::signature_length`] bytes.
    pub fn sign(&self, request: &[u8], now: Now) -> Result<Vec<u8>, TimestampError> {
        self.sign_bytes(&message(request, now))
    }

    fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, TimestampError> {
        match &self.key {
            SigningKey::Rsa(key) => {
                key.try_sign_with_rng(&mut SysRng, message).map(|signature| signature.to_vec())
            }
            SigningKey::P256(key) => {
                Signer::<p256::ecdsa::Signature>::try_sign(key, message).map(|signature| signature.to_vec())
            }
            SigningKey::P384(key) => {
                Signer::<p384::ecdsa::Signature>::try_sign(key, message).map(|signature| signature.to_vec())
            }
            SigningKey::P521(key) => {
                Signer::<p521::ecdsa::Signature>::try_sign(key, message).map(|signature| signature.to_vec())
            }
            SigningKey::Ed25519(key) => key.try_sign(message).map(|signature| signature.to_vec()),
        }
        .map_err(|_| TimestampError::Signature)
    }
}

impl TimestampKey for TimestampAuthority {
    fn place(&self) -> String {
        self.name.clone()
    }

    fn public_key(&self) -> &KeyData {
        &self.public_key
    }

    fn sign_message(&mut self, message: &[u8; MESSAGE_LENGTH]) -> Result<Vec<u8>, TimestampError> {
        self.sign_bytes(message)
    }
}

impl fmt::Debug for TimestampAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimestampAuthority").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file;
    use crate::ssh_keygen::{SshKeygen, vector};
    use rsa::signature::Verifier;
    use ssh_key::public::KeyData;
    use sshsm_protocol::ssh::signature::SignatureAlgorithm;
    use sshsm_protocol::ssh::template::Template;

    /// An independent check: as a signature of SSH's, by the SSH library.
    fn verifies(key: &KeyData, algorithm: AsymmetricAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let ssh = match algorithm {
            AsymmetricAlgorithm::Ec(_) | AsymmetricAlgorithm::Ed25519 => {
                SignatureAlgorithm::of_key(algorithm).unwrap()
            }
            _ => SignatureAlgorithm::RsaSha256,
        };
        let mut field = Vec::new();
        ssh.encode_field(signature, &mut field).unwrap();
        key.verify(message, &ssh_key::Signature::try_from(&field[4..]).unwrap()).is_ok()
    }

    #[test]
    fn every_kind_of_key_signs_request_and_time() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (name, public) in keygen.ca_keys() {
            let private = key_file::read_private(&keygen.path(&name), &mut || unreachable!()).unwrap();
            let authority = TimestampAuthority::new(&private, &*name).unwrap();
            let (now, algorithm) = (Now::from_seconds(1_529_508_128), authority.algorithm());
            let signature = authority.sign(b"request", now).unwrap();
            assert_eq!(signature.len(), algorithm.signature_length(), "{name}");
            let verifies = |message: &[u8]| verifies(public.key_data(), algorithm, message, &signature);
            assert!(verifies(&message(b"request", now)), "{name}");
            assert!(!verifies(&message(b"request", Now::from_seconds(1_529_508_129))), "{name}");
            assert!(!verifies(&message(b"Request", now)), "{name}");
            assert_eq!(device_key::ssh_public(algorithm, authority.public()).unwrap(), *public.key_data());
        }
    }

    #[test]
    fn the_message_is_what_real_hardware_accepted() {
        let value = |pointer| vector("yubihsm2-ssh.json", pointer);
        let Some(template) = value("/template/bytes") else { return };
        let key = Template::decode(&template).unwrap().timestamp_key;
        let public = device_key::ssh_public(key.algorithm(), key.public()).unwrap();
        let message = message(&value("/sign/request").unwrap(), Now::from_seconds(1_529_508_128));
        let signature = value("/sign/timestamp_signature").unwrap();
        assert!(verifies(&public, key.algorithm(), &message, &signature));
    }

    #[test]
    fn sources_are_told_apart_and_files_begin_at_the_folder() {
        for (text, beside) in [
            ("key", "folder/key"),
            ("/key", "/key"),
            ("agent:key.pub", "agent:folder/key.pub"),
            ("https://h:1/x", "https://h:1/x"),
            ("http://h", "http://h"),
        ] {
            let address: SourceAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.beside(Path::new("folder")).to_string(), beside);
        }
    }

    #[test]
    fn the_clock_is_read() {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(u64::from(now().unwrap().seconds()).abs_diff(seconds) <= 1);
    }
}
