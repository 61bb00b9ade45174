//! CA keys behind the ssh-agent protocol, for `ssh-keygen -Us`: certificates that a template allows are
//! signed, and nothing else ever is.
//!
//! An agent's client sends the bytes to be signed. They are parsed as a certificate to be signed by the
//! selected key, or refused: a login challenge, or a file, is not a certificate, so a CA key can neither log
//! in nor sign data. Keys are neither added nor removed. A connection that OpenSSH forwards from another host
//! gets certificates only if that is allowed.

pub mod message;
pub mod server;

use std::{fmt, io, sync::Arc};

use ssh_encoding::{Encode, Error as EncodingError};
use ssh_key::public::KeyData;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;

use crate::{
    key_file::KeyFormatError,
    openssh_key,
    presented_certificate::{PresentedCertificate, PresentedError},
    request::{BuildError, SigningRequest, certificate_type},
    signature::{self, VerifyError},
};
use message::{Answer, Binding, Identity, Request, flag};

/// The most sessions that a connection is bound to, one for each host that it is forwarded through: OpenSSH's
/// `AGENT_MAX_SESSION_IDS`.
const MAX_SESSIONS: usize = 16;
/// The longest identifier of a session, in bytes: OpenSSH's `AGENT_MAX_SID_LEN`.
const MAX_SESSION_ID: usize = 128;

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

    /// Whether a connection that is forwarded from another host gets certificates.
    fn allows_forwarding(&self) -> bool;

    /// Has a certificate signed. Returns the signature as SSH encodes it, `string algorithm ‖ string
    /// signature`.
    ///
    /// `None` if there is none; the authority has reported why.
    fn sign(&self, order: Order) -> Option<Vec<u8>>;

    /// Receives refusals made before the template was consulted.
    fn refused(&self, refusal: &Refusal);

    /// Hears of a connection that could not be taken.
    fn troubled(&self, error: &io::Error);
}

/// A certificate that a client requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The place of the key in [`Authority::identities`].
    pub identity: usize,
    /// The certificate.
    pub request: SigningRequest,
    /// The algorithm for an RSA key to sign with; `None` for others.
    pub rsa: Option<SignatureAlgorithm>,
    /// Whether the connection is forwarded from another host.
    pub forwarded: bool,
}

/// Why an agent's client got no signature, apart from templates.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another key than the agent has.
    #[error("asked for a signature by a key that is not here")]
    UnknownKey,
    /// Other data than a certificate.
    #[error("{ca}: asked to sign {data}, which is not a certificate")]
    NotACertificate {
        /// The CA's name.
        ca: String,
        /// What it appears to be.
        data: Data,
        /// Why it is not a certificate.
        source: BuildError,
    },
    /// A certificate that OpenSSH, or this program, could not read once it was signed.
    #[error("{ca}: asked to sign a certificate that cannot be used")]
    Certificate {
        /// The CA's name.
        ca: String,
        /// The defect.
        source: BuildError,
    },
    /// A certificate of another CA.
    #[error("{ca}: asked to sign a certificate that names another CA")]
    OtherCa {
        /// The CA's name.
        ca: String,
    },
    /// A certificate of this CA's that names its key otherwise than the agent shows it.
    #[error("{ca}: the CA key in the certificate cannot be encoded")]
    CaKey {
        /// The CA's name.
        ca: String,
        /// The defect.
        source: EncodingError,
    },
    /// An RSA key without a signature algorithm, which means SHA-1.
    #[error(
        "{ca}: asked for a signature with SHA-1, which OpenSSH no longer accepts; ask for rsa-sha2-512 or rsa-sha2-256 \
         (ssh-keygen -t)"
    )]
    Sha1 {
        /// The CA's name.
        ca: String,
    },
    /// The connection is forwarded from another host.
    #[error(
        "{ca}: asked for a certificate over a connection that is forwarded from another host; --allow-forwarding allows \
         that"
    )]
    Forwarded {
        /// The CA's name.
        ca: String,
    },
    /// The connection's description of itself is wrong, or cannot be verified.
    #[error("the connection's description of itself is wrong, or cannot be verified")]
    Binding(#[from] BindingError),
    /// Bytes that are not whole.
    #[error("a message that cannot be read")]
    Malformed(#[from] EncodingError),
    /// A key is to be added, or removed, or the agent locked.
    #[error("asked to {0}, which this agent never does")]
    Change(&'static str),
}

/// Why a connection could not be bound to a session.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// The server's key is not one that is known.
    #[error("the key of the SSH session's server cannot be read")]
    HostKey(#[source] KeyFormatError),
    /// The server's certificate is damaged, or of a kind that is not known.
    #[error("the certificate of the SSH session's server cannot be read")]
    HostCertificate(#[source] PresentedError),
    /// The server's signature over the session's identifier is not valid, as far as can be verified here.
    #[error("the server of the SSH session did not sign its identifier")]
    Signature(#[source] VerifyError),
    /// An identifier longer than OpenSSH's are.
    #[error("the identifier of the SSH session has {0} bytes, and {MAX_SESSION_ID} are the most")]
    Length(usize),
    /// The connection was bound to log in, and cannot be forwarded after that.
    #[error("the connection was bound to a log-in before")]
    Bound,
    /// One session with two servers.
    #[error("the SSH session was another server's before")]
    OtherServer,
    /// Forwarded through too many hosts.
    #[error("it is forwarded through more than {MAX_SESSIONS} hosts")]
    TooMany,
}

/// What data to be signed looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A challenge whose signature logs the signer in (RFC 4252, section 7).
    Login,
    /// A file or message (OpenSSH's PROTOCOL.sshsig).
    Message,
    /// Something else.
    Unknown,
}

impl Data {
    /// Whether it is a known kind of data other than a certificate.
    #[must_use]
    pub const fn is_known(self) -> bool {
        match self {
            Self::Login | Self::Message => true,
            Self::Unknown => false,
        }
    }

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

/// The agent.
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

    /// The state of a new connection.
    #[must_use]
    pub fn connection(&self) -> Connection<A> {
        Connection { agent: self.clone(), sessions: Vec::new(), forwarded: false }
    }

    /// The key that is asked, and the certificate that it is to sign.
    fn examine(&self, key: &[u8], data: &[u8], flags: u32, forwarded: bool) -> Result<Order, Refusal> {
        let is_asked = |identity: &CaIdentity| identity.key.encode_vec().is_ok_and(|blob| blob == key);
        let (index, identity) =
            self.0.identities().iter().enumerate().find(|(_, ca)| is_asked(ca)).ok_or(Refusal::UnknownKey)?;
        let ca = || identity.name.clone();
        let request = SigningRequest::from_bytes(data.to_vec())
            .and_then(|request| {
                request.check_subject()?;
                // No timestamp is shorter than nothing.
                request.check_length(0).map(|()| request)
            })
            .map_err(|source| match certificate_type(data) {
                Some(_) => Refusal::Certificate { ca: ca(), source },
                None => Refusal::NotACertificate { ca: ca(), data: Data::of(data), source },
            })?;
        let named = request.ca_key().map_err(|source| Refusal::CaKey { ca: ca(), source })?;
        if named != key {
            return Err(Refusal::OtherCa { ca: ca() });
        }
        // The order of OpenSSH's agent, which has one of them even for both.
        let rsa = match (&identity.key, flags) {
            (KeyData::Rsa(_), flags) if flags & flag::RSA_SHA2_256 != 0 => {
                Some(SignatureAlgorithm::RsaSha256)
            }
            (KeyData::Rsa(_), flags) if flags & flag::RSA_SHA2_512 != 0 => {
                Some(SignatureAlgorithm::RsaSha512)
            }
            (KeyData::Rsa(_), _) => return Err(Refusal::Sha1 { ca: ca() }),
            _ => None,
        };
        if forwarded && !self.0.allows_forwarding() {
            return Err(Refusal::Forwarded { ca: ca() });
        }
        Ok(Order { identity: index, request, rsa, forwarded })
    }
}

/// One client's connection.
pub struct Connection<A> {
    agent: CaAgent<A>,
    /// Identifiers of the sessions that it is bound to, with their servers' keys, and whether it is forwarded
    /// over them.
    sessions: Vec<(Vec<u8>, KeyData, bool)>,
    /// It is forwarded, or claimed to be without proving over which sessions.
    forwarded: bool,
}

impl<A: Authority> Connection<A> {
    /// The answer to a message, given without its length. May take as long as a device does.
    pub fn answer(&mut self, message: &[u8]) -> Answer {
        let answered = match Request::decode(message) {
            Ok(Request::Identities) => Ok(Answer::Identities(self.identities())),
            Ok(Request::Sign { key, data, flags }) => self
                .agent
                .examine(key, data, flags, self.forwarded)
                .map(|order| self.agent.authority().sign(order).map_or(Answer::Failure, Answer::Signature)),
            Ok(Request::Bind(binding)) => self.bind(&binding).map(|()| Answer::Success).map_err(|error| {
                // A connection that claims to be forwarded without proof does not deserve more trust.
                self.forwarded = true;
                error.into()
            }),
            Ok(Request::Change(what)) => Err(Refusal::Change(what)),
            // As the protocol requires: clients find out in this way what an agent supports.
            Ok(Request::Extension(_) | Request::Unknown(_)) => Ok(Answer::Failure),
            Err(error) => Err(error.into()),
        };
        answered.unwrap_or_else(|refusal| {
            self.agent.authority().refused(&refusal);
            Answer::Failure
        })
    }

    fn identities(&self) -> Vec<Identity> {
        let identity = |ca: &CaIdentity| {
            Some(Identity { key: ca.key.encode_vec().ok()?, comment: ca.name.clone().into_bytes() })
        };
        self.agent.authority().identities().iter().filter_map(identity).collect()
    }

    /// Binds the connection to a session, as OpenSSH's agent does (`process_ext_session_bind`).
    fn bind(&mut self, binding: &Binding<'_>) -> Result<(), BindingError> {
        let &Binding { host_key, session, signature, forwarded } = binding;
        if session.len() > MAX_SESSION_ID {
            return Err(BindingError::Length(session.len()));
        }
        let key = match PresentedCertificate::from_bytes(host_key) {
            Ok(certificate) => certificate.subject_key(),
            Err(PresentedError::NotACertificate) => openssh_key::public_key(host_key),
            Err(error) => return Err(BindingError::HostCertificate(error)),
        }
        .map_err(BindingError::HostKey)?;
        signature::verify(&key, session, signature).map_err(BindingError::Signature)?;
        for (known, server, forwarded) in &self.sessions {
            match (forwarded, known == session, *server == key) {
                (false, ..) => return Err(BindingError::Bound),
                (true, true, true) => return Ok(()),
                (true, true, false) => return Err(BindingError::OtherServer),
                (true, false, _) => {}
            }
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(BindingError::TooMany);
        }
        self.sessions.push((session.to_vec(), key, forwarded));
        self.forwarded |= forwarded;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoOne;

    impl Authority for NoOne {
        fn identities(&self) -> &[CaIdentity] {
            &[]
        }

        fn allows_forwarding(&self) -> bool {
            false
        }

        fn sign(&self, _order: Order) -> Option<Vec<u8>> {
            None
        }

        fn refused(&self, _refusal: &Refusal) {}

        fn troubled(&self, _error: &io::Error) {}
    }

    /// Each reason for not binding a connection has its own error, with the defect.
    #[test]
    fn a_binding_that_is_refused_says_what_was_wrong() {
        let mut connection = CaAgent::new(Arc::new(NoOne)).connection();
        let mut bind = |host_key: &[u8], signature: &[u8]| {
            connection
                .bind(&Binding { host_key, session: b"session", signature, forwarded: true })
                .unwrap_err()
        };
        let key = ssh_key::PublicKey::from_openssh(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
        )
        .unwrap();
        let blob = key.key_data().encode_vec().unwrap();
        assert!(matches!(bind(&blob[..blob.len() - 1], b""), BindingError::HostKey(_)));
        let certificate = b"ssh-ed25519-cert-v01@openssh.com".as_slice().encode_vec().unwrap();
        let cut = BindingError::HostCertificate(PresentedError::NotACertificate);
        let found = bind(&certificate, b"");
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&cut), "{found:?}");
        let rsa = [&b"ssh-rsa"[..], &[1; 64]].map(|part| part.encode_vec().unwrap()).concat();
        let wrong = BindingError::Signature(VerifyError::Wrong { fingerprint: String::new() });
        let found = bind(&blob, &rsa);
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&wrong), "{found:?}");
    }

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
