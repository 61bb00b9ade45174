//! Messages of the ssh-agent protocol (draft-miller-ssh-agent, and OpenSSH's PROTOCOL.agent for
//! `session-bind`), as far as this agent supports them: `u32 length ‖ byte number ‖ body`.
//!
//! A message that is read never has more than [`MAX_LENGTH`] bytes, OpenSSH's limit, whatever length it
//! claims.

use ssh_encoding::{Decode as _, Encode as _, Error};

use crate::integer::string;

/// The longest message, in bytes and without its length: OpenSSH's `AGENT_MAX_LEN` and `MAX_AGENT_REPLY_LEN`.
pub const MAX_LENGTH: usize = 256 * 1024;

/// The extension by which OpenSSH describes a connection.
const SESSION_BIND: &[u8] = b"session-bind@openssh.com";

/// Numbers of messages (draft-miller-ssh-agent, section 6.1).
pub(crate) mod number {
    pub(crate) const FAILURE: u8 = 5;
    pub(crate) const SUCCESS: u8 = 6;
    /// Of version 1 of the protocol; OpenSSH's agent removes the keys of version 2 as well.
    pub(crate) const REMOVE_ALL_OF_VERSION_1: u8 = 9;
    pub(crate) const REQUEST_IDENTITIES: u8 = 11;
    pub(crate) const IDENTITIES: u8 = 12;
    pub(crate) const SIGN: u8 = 13;
    pub(crate) const SIGNATURE: u8 = 14;
    pub(crate) const ADD: u8 = 17;
    pub(crate) const REMOVE: u8 = 18;
    pub(crate) const REMOVE_ALL: u8 = 19;
    pub(crate) const ADD_TOKEN: u8 = 20;
    pub(crate) const REMOVE_TOKEN: u8 = 21;
    pub(crate) const LOCK: u8 = 22;
    pub(crate) const UNLOCK: u8 = 23;
    pub(crate) const ADD_CONSTRAINED: u8 = 25;
    pub(crate) const ADD_TOKEN_CONSTRAINED: u8 = 26;
    pub(crate) const EXTENSION: u8 = 27;
}

/// Flags of a request to sign (section 6.2): how an RSA key does.
pub(crate) mod flag {
    pub(crate) const RSA_SHA2_256: u32 = 2;
    pub(crate) const RSA_SHA2_512: u32 = 4;
}

/// A message of a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Which keys there are.
    Identities,
    /// A signature.
    Sign {
        /// The public key, in SSH's encoding.
        key: &'a [u8],
        /// The data to be signed.
        data: &'a [u8],
        /// How.
        flags: u32,
    },
    /// The connection is used by, or forwarded over, an SSH session.
    Bind(Binding<'a>),
    /// A request to change the agent; which, in words that follow "asked to".
    Change(&'static str),
    /// Another extension, by its name.
    Extension(&'a [u8]),
    /// A message that this program does not know.
    Unknown(u8),
}

/// The description of a connection in `session-bind@openssh.com`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The public key of the session's server, or its certificate.
    pub host_key: &'a [u8],
    /// The session's identifier.
    pub session: &'a [u8],
    /// The server's signature over the identifier, from the key exchange.
    pub signature: &'a [u8],
    /// Whether the connection is forwarded over the session, and not used to log in.
    pub forwarded: bool,
}

impl<'a> Request<'a> {
    /// Decodes a message without its length. Like ssh-agent, it ignores anything after a whole body.
    ///
    /// # Errors
    /// When the message is empty, or the body of a known message is truncated.
    pub fn decode(mut message: &'a [u8]) -> Result<Self, Error> {
        let reader = &mut message;
        Ok(match u8::decode(reader)? {
            number::REQUEST_IDENTITIES => Self::Identities,
            number::SIGN => {
                Self::Sign { key: string(reader)?, data: string(reader)?, flags: u32::decode(reader)? }
            }
            number::ADD | number::ADD_CONSTRAINED | number::ADD_TOKEN | number::ADD_TOKEN_CONSTRAINED => {
                Self::Change("add a key")
            }
            number::REMOVE | number::REMOVE_TOKEN => Self::Change("remove a key"),
            number::REMOVE_ALL | number::REMOVE_ALL_OF_VERSION_1 => Self::Change("remove all keys"),
            number::LOCK => Self::Change("lock itself"),
            number::UNLOCK => Self::Change("unlock itself"),
            number::EXTENSION => match string(reader)? {
                SESSION_BIND => Self::Bind(Binding {
                    host_key: string(reader)?,
                    session: string(reader)?,
                    signature: string(reader)?,
                    forwarded: u8::decode(reader)? != 0,
                }),
                name => Self::Extension(name),
            },
            other => Self::Unknown(other),
        })
    }
}

/// A key that an agent shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The public key, in SSH's encoding.
    pub key: Vec<u8>,
    /// Its name, for people.
    pub comment: Vec<u8>,
}

/// Why an answer cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No client reads one as long.
    #[error("the answer has {0} bytes, and {MAX_LENGTH} are the most that clients read")]
    TooLong(usize),
    /// A part of it has no length of 32 bits.
    #[error("the answer cannot be encoded")]
    Encoding(#[from] Error),
}

/// An agent's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No; or not known.
    Failure,
    /// It is done.
    Success,
    /// The keys.
    Identities(Vec<Identity>),
    /// A signature, `string algorithm ‖ string signature`.
    Signature(Vec<u8>),
}

impl Answer {
    /// The message with its length.
    ///
    /// # Errors
    /// When it is longer than any client reads.
    pub fn encode(&self) -> Result<Vec<u8>, AnswerError> {
        let mut body = Vec::new();
        match self {
            Self::Failure => number::FAILURE.encode(&mut body)?,
            Self::Success => number::SUCCESS.encode(&mut body)?,
            Self::Identities(identities) => {
                number::IDENTITIES.encode(&mut body)?;
                identities.len().encode(&mut body)?;
                for Identity { key, comment } in identities {
                    key.as_slice().encode(&mut body)?;
                    comment.as_slice().encode(&mut body)?;
                }
            }
            Self::Signature(signature) => {
                number::SIGNATURE.encode(&mut body)?;
                signature.as_slice().encode(&mut body)?;
            }
        }
        if body.len() > MAX_LENGTH {
            return Err(AnswerError::TooLong(body.len()));
        }
        Ok(body.as_slice().encode_vec()?)
    }
}

/// The public keys of an answer's list of identities. Each is returned unchanged, whether or not it can be
/// parsed.
pub(crate) fn identities(mut body: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let count = u32::decode(&mut body)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(string(&mut body)?);
        let _comment = string(&mut body)?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(bytes: &[u8]) -> Vec<u8> {
        bytes.encode_vec().unwrap()
    }

    #[test]
    fn messages_are_read_by_their_numbers() {
        let sign = [vec![13], field(b"key"), field(b"data"), vec![0, 0, 0, 4]].concat();
        let read = Request::decode(&sign).unwrap();
        assert_eq!(read, Request::Sign { key: b"key", data: b"data", flags: flag::RSA_SHA2_512 });
        let bind = [SESSION_BIND, b"host", b"session", b"signature"].map(field).concat();
        let bind = [&[27], bind.as_slice(), &[1]].concat();
        let Request::Bind(binding) = Request::decode(&bind).unwrap() else { unreachable!() };
        assert_eq!((binding.session, binding.forwarded), (&b"session"[..], true));
        let query = [vec![27], field(b"query")].concat();
        assert_eq!(Request::decode(&query), Ok(Request::Extension(b"query")));
        assert_eq!(Request::decode(&[1]), Ok(Request::Unknown(1)));
        assert_eq!(Request::decode(&[200, 1, 2]), Ok(Request::Unknown(200)));
        for cut in 1..sign.len() {
            assert!(Request::decode(&sign[..cut]).is_err(), "{cut}");
        }
        for cut in 1..bind.len() {
            assert!(Request::decode(&bind[..cut]).is_err(), "{cut}");
        }
        assert!(Request::decode(&[]).is_err());
    }

    #[test]
    fn an_answer_begins_with_its_length() {
        assert_eq!(Answer::Failure.encode().unwrap(), [0, 0, 0, 1, 5]);
        assert_eq!(Answer::Success.encode().unwrap(), [0, 0, 0, 1, 6]);
        let keys = [&b"one"[..], b""].map(|key| Identity { key: key.into(), comment: b"c".into() });
        let answer = Answer::Identities(keys.into()).encode().unwrap();
        assert_eq!(answer[4], number::IDENTITIES);
        assert_eq!(identities(&answer[5..]).unwrap(), [&b"one"[..], b""]);
        assert_eq!(Answer::Signature(vec![0; MAX_LENGTH - 5]).encode().unwrap().len(), MAX_LENGTH + 4);
        let too_long = Answer::Signature(vec![0; MAX_LENGTH - 4]).encode();
        assert_eq!(too_long, Err(AnswerError::TooLong(MAX_LENGTH + 1)));
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::decode(&message);
            let _ = identities(&message);
        }
    }
}
