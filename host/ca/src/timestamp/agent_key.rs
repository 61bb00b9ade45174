//! A timestamp key that an ssh-agent holds: it signs there, and never leaves.
//!
//! The agent's answer is an SSH signature; it is verified, and converted to the fixed length of the wire
//! format.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use rsa::signature::Verifier;
use ssh_key::{HashAlg, PublicKey, Signature, public::KeyData};
use sshsm_protocol::{
    AsymmetricAlgorithm,
    ssh::{signature::SignatureAlgorithm, timestamp::MESSAGE_LENGTH},
};

use super::{TimestampError, TimestampKey};
use crate::{
    agent::message::{self, MAX_LENGTH, flag, number},
    device_key,
    integer::string,
    openssh_key,
    path::shown,
    signature,
};
use sshsm_client::{Failure, Kind};

/// The variable that names the agent's socket.
pub const SOCKET: &str = "SSH_AUTH_SOCK";

/// Why an ssh-agent made no signature.
#[derive(Debug, thiserror::Error)]
pub enum AgentKeyError {
    /// No agent is named.
    #[error("there is no ssh-agent: {SOCKET} is not set")]
    NoAgent,
    /// Nothing answers at its socket.
    #[error("the ssh-agent at {} cannot be reached", shown(socket))]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
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
    /// It has the key but refused to sign: it is locked, or its user declined.
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
        /// The defect.
        source: ProtocolError,
    },
    /// It returned something that is not a signature of that key.
    #[error("the signature of the ssh-agent at {} is not that of the key {fingerprint}", shown(socket))]
    Signature {
        /// The socket.
        socket: PathBuf,
        /// The key's, SHA-256.
        fingerprint: String,
    },
}

impl Failure for AgentKeyError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoAgent | Self::Unreachable { .. } => Some("start an ssh-agent, or name the key's file"),
            Self::Absent { .. } => Some("add the key with ssh-add; `ssh-add -l` shows what the agent holds"),
            Self::Refused { .. } => Some("unlock the agent, or confirm the use of the key"),
            Self::Protocol { .. } | Self::Signature { .. } => None,
        }
    }
}

/// Why an answer is not one of the agent protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// Longer than any message of the protocol.
    #[error("an answer of {0} bytes; the maximum is {MAX_LENGTH}")]
    Long(u32),
    /// Fewer bytes than it states.
    #[error("the answer is truncated")]
    Short(#[from] ssh_encoding::Error),
    /// Another message than was asked for.
    #[error("message {0} is not an answer to the question")]
    Unexpected(u8),
}

/// A key in an agent.
#[derive(Debug)]
pub struct AgentKey {
    socket: PathBuf,
    public: PublicKey,
    /// The public key as the agent encodes it.
    blob: Vec<u8>,
    algorithm: AsymmetricAlgorithm,
}

impl AgentKey {
    /// Uses the key `public` of the agent at `socket`; see [`socket`].
    ///
    /// # Errors
    /// When it is not a key for timestamps, or the agent cannot be reached or does not hold it.
    pub fn new(socket: &Path, public: PublicKey) -> Result<Self, TimestampError> {
        let algorithm = device_key::algorithm(public.key_data())?;
        let mut key = Self { socket: socket.to_owned(), public, blob: Vec::new(), algorithm };
        let answer = key.ask(number::REQUEST_IDENTITIES, &[], number::IDENTITIES)?;
        let blobs = message::identities(&answer).map_err(|error| key.broken(error.into()))?;
        // A key that this program cannot parse is a different key, and does not prevent the others from being
        // found.
        let ours =
            |blob: &&[u8]| openssh_key::public_key(blob).is_ok_and(|held| held == *key.public.key_data());
        let Some(blob) = blobs.into_iter().find(ours) else {
            let (socket, fingerprint) = key.named();
            return Err(AgentKeyError::Absent { socket, fingerprint }.into());
        };
        key.blob = blob.to_vec();
        Ok(key)
    }

    /// Sends the message `question`; returns the body of the answer, which must be the message `wanted`.
    fn ask(&self, question: u8, body: &[u8], wanted: u8) -> Result<Vec<u8>, AgentKeyError> {
        let mut stream = UnixStream::connect(&self.socket)
            .map_err(|source| AgentKeyError::Unreachable { socket: self.socket.clone(), source })?;
        match exchange(&mut stream, question, body) {
            Ok((message, answer)) if message == wanted => Ok(answer),
            Ok((number::FAILURE, _)) => {
                let (socket, fingerprint) = self.named();
                Err(AgentKeyError::Refused { socket, fingerprint })
            }
            Ok((message, _)) => Err(self.broken(ProtocolError::Unexpected(message))),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn named(&self) -> (PathBuf, String) {
        (self.socket.clone(), self.public.fingerprint(HashAlg::Sha256).to_string())
    }

    fn broken(&self, source: ProtocolError) -> AgentKeyError {
        AgentKeyError::Protocol { socket: self.socket.clone(), source }
    }

    /// The signature in its fixed length, if it is this key's over `message`.
    fn fixed(&self, message: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
        let algorithm = match SignatureAlgorithm::of_key(self.algorithm)? {
            // As timestamps are signed.
            SignatureAlgorithm::RsaSha512 => SignatureAlgorithm::RsaSha256,
            algorithm => algorithm,
        };
        let fixed = signature::from_ssh(self.algorithm, algorithm, signature)?;
        let mut field = Vec::new();
        algorithm.encode_field(&fixed, &mut field).ok()?;
        let signature = Signature::try_from(field.get(4..)?).ok()?;
        self.public.key_data().verify(message, &signature).ok().map(|()| fixed)
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
        let flags = if self.algorithm.modulus_length().is_some() { flag::RSA_SHA2_256 } else { 0 };
        let body = [field(&self.blob), field(message), flags.to_be_bytes().to_vec()].concat();
        let answer = self.ask(number::SIGN, &body, number::SIGNATURE)?;
        let mut answer = answer.as_slice();
        let signature = string(&mut answer).map_err(|error| self.broken(error.into()))?;
        self.fixed(message, signature).ok_or_else(|| {
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

/// An SSH `string`; the ones here are far shorter than 4 GiB.
fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// Sends a message, and reads one: its number and its body.
fn exchange(
    stream: &mut (impl Read + Write),
    question: u8,
    body: &[u8],
) -> Result<(u8, Vec<u8>), ProtocolError> {
    stream.write_all(&field(&[&[question], body].concat()))?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    let mut answer = match usize::try_from(length) {
        Ok(bytes) if bytes <= MAX_LENGTH => vec![0; bytes],
        _ => return Err(ProtocolError::Long(length)),
    };
    stream.read_exact(&mut answer)?;
    match answer.split_first() {
        Some((message, body)) => Ok((*message, body.to_vec())),
        None => Err(ProtocolError::Short(ssh_encoding::Error::Length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixListener, thread};

    use crate::{key_file, ssh_keygen::SshKeygen};
    use ssh_key::private::KeypairData;

    /// Answers one connection after another with the `answers` to a question.
    fn agent(socket: &Path, answers: Vec<Vec<u8>>) -> thread::JoinHandle<Vec<Vec<u8>>> {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            let mut questions = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
                stream.read_exact(&mut question).unwrap();
                questions.push(question);
                stream.write_all(&answer).unwrap();
            }
            questions
        })
    }

    fn identities(blobs: &[&[u8]]) -> Vec<u8> {
        let mut body = vec![number::IDENTITIES];
        body.extend(u32::try_from(blobs.len()).unwrap().to_be_bytes());
        for blob in blobs {
            body.extend([field(blob), field(b"comment")].concat());
        }
        field(&body)
    }

    /// An agent whose key list has members that nothing here can parse, whose RSA numbers begin with zeros,
    /// and whose signatures omit their leading zeros: OpenSSH accepts all of it.
    #[test]
    fn an_agent_may_write_numbers_and_other_keys_as_it_likes() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let public = keygen.key("rsa", "rsa", "2048");
        let private = key_file::read_private(&keygen.path("rsa"), &mut || unreachable!()).unwrap();
        let KeypairData::Rsa(pair) = private.key_data() else { unreachable!() };
        let key = rsa::pkcs1v15::SigningKey::<sha2::Sha256>::try_from(pair).unwrap();
        // One signature in 256 begins with a zero.
        let (message_bytes, signature) = (0_u32..)
            .find_map(|number| {
                use rsa::signature::{SignatureEncoding, Signer};
                let mut message = [0; MESSAGE_LENGTH];
                message[..4].copy_from_slice(&number.to_be_bytes());
                let signature = key.sign(&message).to_vec();
                (signature[0] == 0).then_some((message, signature))
            })
            .unwrap();
        let KeyData::Rsa(numbers) = public.key_data() else { unreachable!() };
        let zeros = |number: &[u8]| field(&[&[0, 0, 0], number].concat());
        let blob = [field(b"ssh-rsa"), zeros(numbers.e().as_bytes()), zeros(numbers.n().as_bytes())].concat();
        let short = [field(b"rsa-sha2-256"), field(&signature[1..])].concat();
        let answer = field(&[&[number::SIGNATURE], field(&short).as_slice()].concat());
        let socket = keygen.path("agent");
        let agent = agent(&socket, vec![identities(&[b"", b"\0\0\0\x01x", &blob]), answer]);
        let mut key = AgentKey::new(&socket, public.clone()).unwrap();
        assert_eq!(key.sign_message(&message_bytes).unwrap(), signature);
        // It is asked for the key in its own encoding.
        let questions = agent.join().unwrap();
        let asked = [vec![number::SIGN], field(&blob), field(&message_bytes), vec![0, 0, 0, 2]].concat();
        assert_eq!(questions, [vec![number::REQUEST_IDENTITIES], asked]);
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let public = keygen.key("key", "ed25519", "");
        let with = |name: &str, answer: Vec<u8>| {
            let socket = keygen.path(name);
            let agent = agent(&socket, vec![answer]);
            let error = AgentKey::new(&socket, public.clone()).unwrap_err();
            agent.join().unwrap();
            match error {
                TimestampError::Agent(error) => error,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(with("a", identities(&[])), AgentKeyError::Absent { .. }));
        assert!(matches!(with("b", field(&[number::FAILURE])), AgentKeyError::Refused { .. }));
        let source = |name, answer| match with(name, answer) {
            AgentKeyError::Protocol { source, .. } => source,
            other => panic!("{other:?}"),
        };
        assert!(matches!(source("c", field(&[99])), ProtocolError::Unexpected(99)));
        assert!(matches!(source("d", vec![0xff; 4]), ProtocolError::Long(u32::MAX)));
        assert!(matches!(source("e", field(b"")), ProtocolError::Short(_)));
        assert!(matches!(source("f", field(&[number::IDENTITIES, 0, 0, 0, 1])), ProtocolError::Short(_)));
        assert!(matches!(source("g", vec![0, 0]), ProtocolError::Broken(_)));
    }
}
