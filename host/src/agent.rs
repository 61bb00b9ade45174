//! CA keys behind the ssh-agent protocol, for `ssh-keygen -Us`: certificates that a template allows are signed, and
//! nothing else ever is.
//!
//! An agent's client sends the bytes to be signed. They are taken for a certificate to be signed by the very key that is
//! asked, or refused: a challenge to log in, or a file, is no certificate, so a CA key can neither log in nor sign data.
//! Keys are neither added nor removed.

use std::{fmt, sync::Arc};

use ssh_agent_lib::{
    agent::Session,
    error::AgentError,
    proto::{Identity, SignRequest, signature},
    ssh_encoding::{Decode, Encode as _},
    ssh_key as agent_ssh_key,
};
use ssh_encoding::Encode;
use ssh_key::public::KeyData;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;

use crate::request::{BuildError, SigningRequest};

/// A CA key that the agent shows.
#[derive(Clone, Debug)]
pub struct CaIdentity {
    /// Its public half.
    pub key: KeyData,
    /// Its name, for people.
    pub name: String,
}

/// Whatever signs for the agent.
pub trait Authority: Send + Sync + 'static {
    /// The CA keys.
    fn identities(&self) -> &[CaIdentity];

    /// Has a certificate signed by the key of `identities`' place `index`, an RSA key with `rsa`. Returns the signature as
    /// SSH encodes it, `string algorithm ‖ string signature`.
    ///
    /// `None` when there is none; why, the authority has told.
    fn sign(&self, index: usize, request: SigningRequest, rsa: SignatureAlgorithm) -> Option<Vec<u8>>;

    /// Hears what was refused before it came to the template.
    fn refused(&self, refusal: &Refusal);
}

/// Why an agent's client got no signature, apart from templates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another key than the agent has.
    #[error("asked for a signature by a key that is not here")]
    UnknownKey,
    /// Other data than a certificate.
    #[error("{ca}: asked to sign {data}, which is no certificate")]
    NotACertificate {
        /// The CA's name.
        ca: String,
        /// What it looks like.
        data: Data,
        /// Why it is no certificate.
        source: BuildError,
    },
    /// A certificate of another CA.
    #[error("{ca}: asked to sign a certificate that names another CA")]
    OtherCa {
        /// The CA's name.
        ca: String,
    },
    /// A key is to be added, or removed, or the agent locked.
    #[error("asked to {0}, which this agent never does")]
    Change(&'static str),
}

/// What data to be signed looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A challenge that whoever signs it logs in with (RFC 4252, section 7).
    Login,
    /// A file or message (OpenSSH's PROTOCOL.sshsig).
    Message,
    /// Something else.
    Unknown,
}

impl Data {
    fn of(data: &[u8]) -> Self {
        if data.starts_with(b"SSHSIG") {
            return Self::Message;
        }
        // string session identifier ‖ byte SSH_MSG_USERAUTH_REQUEST
        let after = data
            .split_first_chunk()
            .and_then(|(length, rest)| rest.get(usize::try_from(u32::from_be_bytes(*length)).ok()?).copied());
        if after == Some(50) { Self::Login } else { Self::Unknown }
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Login => "a challenge to log in",
            Self::Message => "a file or message",
            Self::Unknown => "data of an unknown kind",
        })
    }
}

/// The agent, for one client.
pub struct CaAgent<A>(Arc<A>);

impl<A> Clone for CaAgent<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Authority> CaAgent<A> {
    /// An agent that has `authority` sign.
    #[must_use]
    pub fn new(authority: Arc<A>) -> Self {
        Self(authority)
    }

    /// What signs for it.
    #[must_use]
    pub fn authority(&self) -> &A {
        &self.0
    }

    /// The key that is asked, and the certificate that it is to sign.
    fn examine(&self, key: &[u8], data: Vec<u8>) -> Result<(usize, SigningRequest), Refusal> {
        let is_asked = |identity: &CaIdentity| identity.key.encode_vec().is_ok_and(|blob| blob == key);
        let (index, identity) =
            self.0.identities().iter().enumerate().find(|(_, ca)| is_asked(ca)).ok_or(Refusal::UnknownKey)?;
        let ca = || identity.name.clone();
        let kind = Data::of(&data);
        let request = SigningRequest::from_bytes(data).map_err(|source| Refusal::NotACertificate {
            ca: ca(),
            data: kind,
            source,
        })?;
        match request.keys() {
            Ok((_, named)) if named == identity.key => Ok((index, request)),
            _ => Err(Refusal::OtherCa { ca: ca() }),
        }
    }

    fn refuse<T>(&self, refusal: &Refusal) -> Result<T, AgentError> {
        self.0.refused(refusal);
        Err(AgentError::Failure)
    }
}

#[ssh_agent_lib::async_trait]
impl<A: Authority> Session for CaAgent<A> {
    async fn request_identities(&mut self) -> Result<Vec<Identity>, AgentError> {
        let identity = |ca: &CaIdentity| {
            let blob = ca.key.encode_vec().ok()?;
            let key = agent_ssh_key::public::KeyData::decode(&mut blob.as_slice()).ok()?;
            Some(Identity { credential: key.into(), comment: ca.name.clone() })
        };
        Ok(self.0.identities().iter().filter_map(identity).collect())
    }

    async fn sign(&mut self, request: SignRequest) -> Result<agent_ssh_key::Signature, AgentError> {
        let mut key = Vec::new();
        request.credential.encode(&mut key).map_err(AgentError::other)?;
        let (index, certificate) = match self.examine(&key, request.data) {
            Ok(examined) => examined,
            Err(refusal) => return self.refuse(&refusal),
        };
        let rsa = match request.flags {
            flags if flags & signature::RSA_SHA2_512 != 0 => SignatureAlgorithm::RsaSha512,
            flags if flags & signature::RSA_SHA2_256 != 0 => SignatureAlgorithm::RsaSha256,
            _ => SignatureAlgorithm::RsaSha1,
        };
        // A board may take minutes, or wait for a touch.
        let authority = self.0.clone();
        let signed = tokio::task::spawn_blocking(move || authority.sign(index, certificate, rsa));
        let signature = signed.await.map_err(AgentError::other)?.ok_or(AgentError::Failure)?;
        agent_ssh_key::Signature::try_from(signature.as_slice()).map_err(AgentError::other)
    }

    async fn add_identity(&mut self, _: ssh_agent_lib::proto::AddIdentity) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("add a key"))
    }

    async fn add_identity_constrained(
        &mut self,
        _: ssh_agent_lib::proto::AddIdentityConstrained,
    ) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("add a key"))
    }

    async fn remove_identity(&mut self, _: ssh_agent_lib::proto::RemoveIdentity) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("remove a key"))
    }

    async fn remove_all_identities(&mut self) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("remove all keys"))
    }

    async fn add_smartcard_key(&mut self, _: ssh_agent_lib::proto::SmartcardKey) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("add a key"))
    }

    async fn add_smartcard_key_constrained(
        &mut self,
        _: ssh_agent_lib::proto::AddSmartcardKeyConstrained,
    ) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("add a key"))
    }

    async fn remove_smartcard_key(
        &mut self,
        _: ssh_agent_lib::proto::SmartcardKey,
    ) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("remove a key"))
    }

    async fn lock(&mut self, _: String) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("lock itself"))
    }

    async fn unlock(&mut self, _: String) -> Result<(), AgentError> {
        self.refuse(&Refusal::Change("unlock itself"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_told_by_name() {
        let mut login = vec![0, 0, 0, 3, 1, 2, 3, 50];
        assert_eq!(Data::of(&login), Data::Login);
        login[7] = 51;
        assert_eq!(Data::of(&login), Data::Unknown);
        assert_eq!(Data::of(b"SSHSIG\0\0\0\x04file"), Data::Message);
        for data in [&b""[..], &[0xff; 8], &[0, 0, 0, 0]] {
            assert_eq!(Data::of(data), Data::Unknown);
        }
    }
}
