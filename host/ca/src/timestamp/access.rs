//! The bearer tokens that let clients of the timestamp service in.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
};

use sha2::{Digest, Sha256};
use sshsm_client::{Failure, Kind};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// Why a list of tokens is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// It contains none, so that no client could be admitted.
    #[error("there is no token in it; write one per line, as `openssl rand -hex 32` makes them")]
    Empty,
    /// One that could be guessed.
    #[error("the token on line {line} is shorter than {MIN_TOKEN} characters")]
    Short {
        /// The line, from 1.
        line: u64,
    },
    /// One that no header can carry.
    #[error("the token on line {line} has characters that no token has")]
    Characters {
        /// The line, from 1.
        line: u64,
    },
}

impl Failure for TokensError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }
}

/// Characters that a token has at least: 128 bits in hexadecimal have twice as many.
const MIN_TOKEN: usize = 16;

/// A token that admits a client. What counts is the token; a list that is read again may have it on another line.
#[derive(Clone, Copy, Debug)]
pub struct KnownToken {
    digest: [u8; 32],
    line: u64,
}

impl KnownToken {
    /// Its line in the list that it was found in, counted from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }
}

impl PartialEq for KnownToken {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for KnownToken {}

impl Hash for KnownToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// The tokens that admit a client, each only as its SHA-256; a clone shares them, even after
/// [`Tokens::renew`].
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<RwLock<Vec<KnownToken>>>);

impl Tokens {
    /// Reads tokens, one to a line; empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// When there is none, or one that is too short or unusable.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        Ok(Self(Arc::new(RwLock::new(Self::read(text)?))))
    }

    /// Replaces the tokens by those in `text`, and returns how many there are then.
    ///
    /// # Errors
    /// Like [`Self::parse`]; the old ones then stay in force.
    pub fn renew(&self, text: &str) -> Result<usize, TokensError> {
        let new = Self::read(text)?;
        let count = new.len();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(count)
    }

    fn read(text: &str) -> Result<Vec<KnownToken>, TokensError> {
        let lines = (1_u64..).zip(text.lines().map(str::trim));
        let tokens = lines.filter(|(_, token)| !token.is_empty() && !token.starts_with('#'));
        let tokens = tokens.map(|(line, token)| match token {
            _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(TokensError::Characters { line }),
            _ if token.len() < MIN_TOKEN => Err(TokensError::Short { line }),
            _ => Ok(KnownToken { digest: Sha256::digest(token).into(), line }),
        });
        let tokens: Vec<_> = tokens.collect::<Result<_, _>>()?;
        if tokens.is_empty() { Err(TokensError::Empty) } else { Ok(tokens) }
    }

    /// `token`, if it is in the list. Takes the same time whichever it is, and whether or not it is valid.
    #[must_use]
    pub fn find(&self, token: &[u8]) -> Option<KnownToken> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut line) = (Choice::from(0), 0_u64);
        for known in known.iter() {
            let same = known.digest.ct_eq(&digest);
            found |= same;
            line.conditional_assign(&known.line, same);
        }
        bool::from(found).then_some(KnownToken { digest, line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_all_of_it_and_nothing_else() {
        let tokens = Tokens::parse("# ours\n0123456789abcdef\n\n  fedcba9876543210ffff \n").unwrap();
        let line = |token: &[u8]| tokens.find(token).map(|known| known.line());
        assert_eq!(line(b"0123456789abcdef"), Some(2));
        assert_eq!(line(b"fedcba9876543210ffff"), Some(4));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "# ours"] {
            assert_eq!(tokens.find(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Tokens::default().find(b""), None);
    }

    #[test]
    fn a_token_that_moves_to_another_line_is_the_same_client() {
        let tokens = Tokens::parse("0123456789abcdef\nfedcba9876543210").unwrap();
        let [first, second] =
            [b"0123456789abcdef", b"fedcba9876543210"].map(|token| tokens.find(token).unwrap());
        assert_ne!(first, second);
        assert_eq!(tokens.renew("fedcba9876543210\n"), Ok(1));
        let moved = tokens.find(b"fedcba9876543210").unwrap();
        assert_eq!((moved, moved.line()), (second, 1));
        assert_ne!(moved, first, "on the line that another token had");
        assert_eq!(tokens.find(b"0123456789abcdef"), None);
    }

    #[test]
    fn a_list_that_admits_no_one_or_is_guessable_is_refused() {
        assert_eq!(Tokens::parse("# none\n").unwrap_err(), TokensError::Empty);
        assert_eq!(Tokens::parse("\nhunter2").unwrap_err(), TokensError::Short { line: 2 });
        let blank = Tokens::parse("0123456789abcdef 0123456789abcdef").unwrap_err();
        assert_eq!(blank, TokensError::Characters { line: 1 });
    }
}
