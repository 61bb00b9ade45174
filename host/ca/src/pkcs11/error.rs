//! The errors of tokens: each says whose fault it is, and what alternatives there are.

use std::{io, path::PathBuf};

use cryptoki::error::{Error, RvError};
use sshsm_protocol::{AsymmetricAlgorithm, ssh::signature::SignatureAlgorithm};

use crate::{device_key::DeviceKeyError, path::shown};
use sshsm_client::{Failure, Kind};

/// How many more wrong PINs the token accepts; tokens do not report a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// The token reports nothing, which for most means that there was no wrong PIN lately.
    Unknown,
    /// There was a wrong PIN since the last right one.
    Low,
    /// One more wrong PIN locks the token.
    Final,
    /// No PIN is taken any more.
    Locked,
}

impl std::fmt::Display for Tries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the token does not say how many tries are left",
            Self::Low => "few tries are left",
            Self::Final => "ONE TRY is left, then the token is locked",
            Self::Locked => "the token is locked now",
        })
    }
}

fn listed(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}

/// Why a token or a key on it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Pkcs11Error {
    /// No module is named.
    #[error("no PKCS#11 module was named")]
    NoModule,
    /// No module with that name where modules are kept.
    #[error("there is no PKCS#11 module {name:?} in {}", listed(.folders, "any folder"))]
    ModuleName {
        /// The requested name.
        name: String,
        /// The folders searched.
        folders: Vec<String>,
    },
    /// Others may write the module's file, or a folder above it.
    #[error("the PKCS#11 module {} is not loaded", shown(path))]
    Untrusted {
        /// The module.
        path: PathBuf,
        /// Who may write what.
        source: io::Error,
    },
    /// The module's file cannot be loaded.
    #[error("the PKCS#11 module {} cannot be loaded", shown(path))]
    Load {
        /// The module.
        path: PathBuf,
        /// The system's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A library, and no PKCS#11 module.
    #[error("{} is a library, but not a PKCS#11 module", shown(path))]
    NotAModule {
        /// The library.
        path: PathBuf,
    },
    /// The module did not start.
    #[error("the PKCS#11 module {} does not start: {reason}", shown(path))]
    Start {
        /// The module.
        path: PathBuf,
        /// The function that failed and the code it returned.
        reason: String,
    },
    /// No token matches the URI.
    #[error("no token is {uri}; the module has {}", listed(.there, "no token at all"))]
    NoToken {
        /// The requested URI.
        uri: String,
        /// What there is.
        there: Vec<String>,
    },
    /// Several tokens match the URI.
    #[error("several tokens are {uri}: {}; name one by its label, its serial number or its slot-id", .found.join(", "))]
    ManyTokens {
        /// The requested URI.
        uri: String,
        /// What there is.
        found: Vec<String>,
    },
    /// The token has no user PIN yet.
    #[error("the token {token} has no user PIN yet; its key cannot be used before it has one")]
    NoUserPin {
        /// The token.
        token: String,
    },
    /// The token no longer accepts a PIN.
    #[error("the PIN of the token {token} is locked after too many wrong ones")]
    Locked {
        /// The token.
        token: String,
    },
    /// There is one try left, and the PIN was not typed for it.
    #[error(
        "ONE TRY is left before the token {token} is locked; a PIN from a file or the environment is not tried then"
    )]
    FinalTry {
        /// The token.
        token: String,
    },
    /// The token did not take the PIN. It was tried once.
    #[error("wrong PIN for the token {token}; {tries}")]
    WrongPin {
        /// The token.
        token: String,
        /// Its report afterwards.
        tries: Tries,
    },
    /// A PIN that the token did not even try.
    #[error("the token {token} accepts PINs of {least} to {most} characters, but this one has {length}")]
    PinLength {
        /// The token.
        token: String,
        /// The shortest that it accepts.
        least: usize,
        /// The longest.
        most: usize,
        /// The length given.
        length: usize,
    },
    /// The file that the URI names cannot be read.
    #[error("cannot read the PIN in {}", shown(path))]
    PinFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is nothing in the file that the URI names.
    #[error("the PIN file {} is empty, and an empty PIN is never tried", shown(path))]
    EmptyPinFile {
        /// The file.
        path: PathBuf,
    },
    /// No PIN was given.
    #[error("no PIN for the token {token}")]
    NoPin {
        /// The token.
        token: String,
        /// Why not.
        source: io::Error,
    },
    /// No key matches the URI.
    #[error("no private key on the token {token} is {uri}; there {}", listed(.there, "is none that this PIN opens"))]
    NoKey {
        /// The token.
        token: String,
        /// The requested URI.
        uri: String,
        /// The private keys that there are.
        there: Vec<String>,
    },
    /// Several keys match the URI.
    #[error("several private keys on the token {token} are {uri}: {}; name one by its label and its id", .found.join(", "))]
    ManyKeys {
        /// The token.
        token: String,
        /// The requested URI.
        uri: String,
        /// The keys.
        found: Vec<String>,
    },
    /// The key may not sign.
    #[error("the key {key} may not sign: its attribute CKA_SIGN is false")]
    MayNotSign {
        /// The key.
        key: String,
    },
    /// A key of another kind.
    #[error(
        "the key {key} is {found}; certificates are signed with RSA (2048, 3072, 4096 bits), ECDSA on P-256, P-384 or \
         P-521, and Ed25519"
    )]
    Kind {
        /// The key.
        key: String,
        /// The kind found.
        found: String,
    },
    /// Neither a public key nor a certificate belongs to the private key.
    #[error(
        "the token does not reveal the public key of {key}: it has no public key object and no certificate with the same id"
    )]
    NoPublicKey {
        /// The key.
        key: String,
    },
    /// The public key is none that can be used.
    #[error("the public key of {key} cannot be used")]
    PublicKey {
        /// The key.
        key: String,
        /// The defect.
        source: DeviceKeyError,
    },
    /// The key cannot sign in that way.
    #[error("the key {key} is {kind} and cannot sign with {algorithm}")]
    Algorithm {
        /// The key.
        key: String,
        /// Its kind.
        kind: AsymmetricAlgorithm,
        /// The requested algorithm.
        algorithm: SignatureAlgorithm,
    },
    /// The token cannot sign in that way.
    #[error("the token {token} has no mechanism for {algorithm} ({wanted})")]
    Mechanism {
        /// The token.
        token: String,
        /// The requested algorithm.
        algorithm: SignatureAlgorithm,
        /// The mechanism that it would need.
        wanted: String,
    },
    /// The key requires the PIN for every signature, and so the signature has to be made in parts.
    #[error(
        "the key requires the PIN for every signature, but the token {token} does not sign in parts, so that it could be \
         given in between ({code})"
    )]
    NotInParts {
        /// The token.
        token: String,
        /// The function that failed and the code it returned.
        code: String,
    },
    /// The token returned something that is not a signature of this kind.
    #[error("the token {token} returned a signature of {found} bytes where {expected} were expected")]
    Signature {
        /// The token.
        token: String,
        /// Its length.
        found: usize,
        /// The expected length.
        expected: usize,
    },
    /// The token was there but has been removed.
    #[error("the token {token} is gone, or its key is ({code})")]
    Gone {
        /// The token.
        token: String,
        /// The function that failed and the code it returned.
        code: String,
    },
    /// The token fails for another reason.
    #[error("the token {token} failed: {code}")]
    Token {
        /// The token.
        token: String,
        /// The function that failed and the code it returned.
        code: String,
    },
}

impl Failure for Pkcs11Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NoModule | Self::Algorithm { .. } => Kind::Usage,
            Self::NoUserPin { .. }
            | Self::Locked { .. }
            | Self::FinalTry { .. }
            | Self::WrongPin { .. }
            | Self::PinLength { .. }
            | Self::EmptyPinFile { .. }
            | Self::NoPin { .. } => Kind::Authentication,
            Self::PinFile { .. } => Kind::File,
            Self::MayNotSign { .. } => Kind::Refused,
            Self::NoKey { .. } | Self::ManyKeys { .. } | Self::Kind { .. } => Kind::Failed,
            Self::ModuleName { .. }
            | Self::Untrusted { .. }
            | Self::Load { .. }
            | Self::NotAModule { .. }
            | Self::Start { .. }
            | Self::NoToken { .. }
            | Self::ManyTokens { .. }
            | Self::NoPublicKey { .. }
            | Self::PublicKey { .. }
            | Self::Mechanism { .. }
            | Self::NotInParts { .. }
            | Self::Signature { .. }
            | Self::Gone { .. }
            | Self::Token { .. } => Kind::Device,
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoModule => {
                "set PKCS11_MODULE_PATH, or end the URI with ?module-path=/usr/lib/softhsm/libsofthsm2.so or your token's"
            }
            Self::ModuleName { .. } => "name its file with module-path",
            Self::Load { .. } | Self::NotAModule { .. } => {
                "check module-path or PKCS11_MODULE_PATH; SoftHSM's is libsofthsm2.so, a YubiKey's libykcs11.so"
            }
            Self::NoToken { .. } => "plug the token in; `sshsm device list` shows the tokens of the module",
            Self::NoKey { .. } | Self::NoPublicKey { .. } => {
                "`sshsm device list` shows the tokens of the module and their keys"
            }
            Self::NoPin { .. } => "set SSHSM_PIN, or name a file with ?pin-source=FILE",
            Self::WrongPin { tries: Tries::Locked, .. } | Self::Locked { .. } => {
                "unlock it with the security officer's PIN (the PUK), with its maker's tool"
            }
            Self::WrongPin { tries: Tries::Unknown | Tries::Low | Tries::Final, .. } => {
                "check the source of the PIN before you repeat the command: it was tried once"
            }
            Self::FinalTry { .. } => "unset SSHSM_PIN and leave out pin-source: then you are asked for it",
            Self::MayNotSign { .. } => "make a key with CKA_SIGN, or name another one",
            Self::Gone { .. } => "plug the token in again and repeat the command",
            Self::Untrusted { .. }
            | Self::Start { .. }
            | Self::ManyTokens { .. }
            | Self::NoUserPin { .. }
            | Self::PinLength { .. }
            | Self::PinFile { .. }
            | Self::EmptyPinFile { .. }
            | Self::ManyKeys { .. }
            | Self::Kind { .. }
            | Self::PublicKey { .. }
            | Self::Algorithm { .. }
            | Self::Mechanism { .. }
            | Self::NotInParts { .. }
            | Self::Signature { .. }
            | Self::Token { .. } => return None,
        })
    }
}

/// The function that failed and the code that it returned, without the specification's lengthy explanation.
pub(super) fn code(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("C_{function:?} returned {code:?}"),
        other => other.to_string(),
    }
}

impl Pkcs11Error {
    /// An error that a token's function returned.
    pub(super) fn token(token: &str) -> impl Fn(Error) -> Self + use<> {
        let token = token.to_owned();
        move |error| {
            let (token, code) = (token.clone(), code(&error));
            match error {
                Error::Pkcs11(
                    RvError::DeviceRemoved
                    | RvError::DeviceError
                    | RvError::TokenNotPresent
                    | RvError::TokenNotRecognized
                    | RvError::SlotIdInvalid
                    | RvError::SessionClosed
                    | RvError::SessionHandleInvalid
                    | RvError::ObjectHandleInvalid
                    | RvError::KeyHandleInvalid,
                    _,
                ) => Self::Gone { token, code },
                Error::Pkcs11(RvError::PinLocked, _) => Self::Locked { token },
                _ => Self::Token { token, code },
            }
        }
    }
}
