//! A timestamp key that an ssh-agent holds: it signs there, and never leaves.
//!
//! The agent's answer is a signature of SSH's; it is verified, and handed on in the fixed length that the wire wants.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use rsa::signature::Verifier;
use ssh_agent_lib::{
    blocking::Client,
    error::AgentError,
    proto::{ProtoError, SignRequest, signature::RSA_SHA2_256},
};
use ssh_encoding::Encode;
use ssh_key::{HashAlg, PublicKey, Signature, public::KeyData};
use sshsm_protocol::{AsymmetricAlgorithm, Curve, ssh::timestamp::MESSAGE_LENGTH};

use super::{TimestampError, TimestampKey};
use crate::{device_key, output::shown};

/// The variable that names the agent's socket.
pub const SOCKET: &str = "SSH_AUTH_SOCK";

/// Why an ssh-agent made no signature.
#[derive(Debug, thiserror::Error)]
pub enum AgentKeyError {
    /// No agent is named.
    #[error("there is no ssh-agent: {SOCKET} is not set")]
    NoAgent,
    /// Nobody answers at its socket.
    #[error("the ssh-agent at {} cannot be reached", shown(socket))]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has no such key.
    #[error("the ssh-agent at {} does not hold the key {fingerprint}", shown(socket))]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// The key's, SHA-256.
        fingerprint: String,
    },
    /// It has the key and would not sign: locked, or its user said no.
    #[error("the ssh-agent at {} refuses to sign with the key {fingerprint}", shown(socket))]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// The key's, SHA-256.
        fingerprint: String,
    },
    /// It broke off, or spoke something else than the agent protocol.
    #[error("the ssh-agent at {} does not answer in the agent protocol", shown(socket))]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        source: AgentError,
    },
    /// What it returned is no signature of that key.
    #[error("the signature of the ssh-agent at {} is not that of the key {fingerprint}", shown(socket))]
    Signature {
        /// The socket.
        socket: PathBuf,
        /// The key's, SHA-256.
        fingerprint: String,
    },
}

/// A key in an agent.
#[derive(Debug)]
pub struct AgentKey {
    socket: PathBuf,
    public: PublicKey,
    algorithm: AsymmetricAlgorithm,
}

impl AgentKey {
    /// Takes the key `public` of the agent at `socket`; see [`socket`].
    ///
    /// # Errors
    /// When it is no key for timestamps, or the agent cannot be reached or does not hold it.
    pub fn new(socket: &Path, public: PublicKey) -> Result<Self, TimestampError> {
        let algorithm = device_key::algorithm(public.key_data())?;
        let key = Self { socket: socket.to_owned(), public, algorithm };
        let ours = blob(key.public.key_data())?;
        let identities = key.connect()?.request_identities().map_err(|error| key.broken(error))?;
        let held = |identity: &ssh_agent_lib::proto::Identity| {
            foreign_blob(identity.credential.key_data()).is_some_and(|theirs| theirs == ours)
        };
        if !identities.iter().any(held) {
            let (socket, fingerprint) = key.named();
            return Err(AgentKeyError::Absent { socket, fingerprint }.into());
        }
        Ok(key)
    }

    fn connect(&self) -> Result<Client<UnixStream>, AgentKeyError> {
        UnixStream::connect(&self.socket)
            .map(Client::new)
            .map_err(|source| AgentKeyError::Unreachable { socket: self.socket.clone(), source })
    }

    fn named(&self) -> (PathBuf, String) {
        (self.socket.clone(), self.public.fingerprint(HashAlg::Sha256).to_string())
    }

    fn broken(&self, error: AgentError) -> AgentKeyError {
        let (socket, fingerprint) = self.named();
        match error {
            AgentError::Proto(ProtoError::UnexpectedResponse) => {
                AgentKeyError::Refused { socket, fingerprint }
            }
            source => AgentKeyError::Protocol { socket, source },
        }
    }

    /// The signature in its fixed length, if it is this key's over `message`.
    fn fixed(&self, message: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
        let signature = Signature::try_from(signature).ok()?;
        let rsa = self.algorithm.modulus_length().is_some();
        if rsa && signature.algorithm().as_str() != "rsa-sha2-256" {
            return None;
        }
        self.public.key_data().verify(message, &signature).ok()?;
        let fixed = match self.algorithm {
            AsymmetricAlgorithm::Ec(Curve::P256) => {
                p256::ecdsa::Signature::try_from(&signature).ok()?.to_vec()
            }
            AsymmetricAlgorithm::Ec(Curve::P384) => {
                p384::ecdsa::Signature::try_from(&signature).ok()?.to_vec()
            }
            AsymmetricAlgorithm::Ec(_) => p521::ecdsa::Signature::try_from(&signature).ok()?.to_vec(),
            _ => signature.as_bytes().to_vec(),
        };
        (fixed.len() == self.algorithm.signature_length()).then_some(fixed)
    }
}

impl TimestampKey for AgentKey {
    fn place(&self) -> String {
        let (socket, fingerprint) = self.named();
        format!("{fingerprint} in the ssh-agent at {}", shown(&socket))
    }

    fn public_key(&self) -> &KeyData {
        self.public.key_data()
    }

    fn sign_message(&mut self, message: &[u8; MESSAGE_LENGTH]) -> Result<Vec<u8>, TimestampError> {
        use ssh_agent_lib::ssh_encoding::Decode;
        let ours = blob(self.public.key_data())?;
        let credential = ssh_agent_lib::ssh_key::public::KeyData::decode(&mut ours.as_slice())
            .map_err(|_| TimestampError::Signature)?
            .into();
        let flags = if self.algorithm.modulus_length().is_some() { RSA_SHA2_256 } else { 0 };
        let request = SignRequest { credential, data: message.to_vec(), flags };
        let signature = self.connect()?.sign(request).map_err(|error| self.broken(error))?;
        let signature = Vec::try_from(signature).ok();
        signature.and_then(|signature| self.fixed(message, &signature)).ok_or_else(|| {
            let (socket, fingerprint) = self.named();
            AgentKeyError::Signature { socket, fingerprint }.into()
        })
    }
}

/// The socket that the environment names.
///
/// # Errors
/// [`AgentKeyError::NoAgent`].
pub fn socket() -> Result<PathBuf, AgentKeyError> {
    let socket = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty());
    socket.map(PathBuf::from).ok_or(AgentKeyError::NoAgent)
}

fn blob(key: &KeyData) -> Result<Vec<u8>, TimestampError> {
    key.encode_vec().map_err(|_| TimestampError::Signature)
}

/// The agent library's own generation of keys, in SSH's encoding.
fn foreign_blob(key: &ssh_agent_lib::ssh_key::public::KeyData) -> Option<Vec<u8>> {
    use ssh_agent_lib::ssh_encoding::Encode;
    let mut blob = Vec::new();
    key.encode(&mut blob).ok().map(|()| blob)
}
