//! Who may ask the timestamp service, and how often: bearer tokens, client certificates, and a rate for each client.

use std::{fmt, net::IpAddr, num::NonZeroU32, str::FromStr, time::Duration};

use governor::{Quota, RateLimiter, clock::DefaultClock, state::keyed::HashMapStateStore};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A client, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// It showed the token on this line of the file, counted from 1.
    Token(usize),
    /// It has a certificate with this SHA-256.
    Certificate([u8; 32]),
    /// It is nobody in particular, at this address.
    Address(IpAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(line) => write!(f, "token {line}"),
            Self::Certificate(digest) => {
                f.write_str("certificate SHA256:")?;
                digest.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Why a list of tokens is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// None is in it, so that nobody could come in.
    #[error("there is no token in it; write one to a line, such as `openssl rand -hex 32` makes")]
    Empty,
    /// One that could be guessed.
    #[error("the token on line {line} is shorter than {MIN_TOKEN} characters")]
    Short {
        /// Where, from 1.
        line: usize,
    },
    /// One that no header can carry.
    #[error("the token on line {line} has characters that no token has")]
    Characters {
        /// Where, from 1.
        line: usize,
    },
}

/// Characters that a token has at least: 128 bits in hexadecimal have twice as many.
const MIN_TOKEN: usize = 16;

/// The tokens that let a client in, each only as its SHA-256.
#[derive(Debug, Default)]
pub struct Tokens(Vec<(usize, [u8; 32])>);

impl Tokens {
    /// Reads tokens, one to a line; empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// When there is none, or one that is too short or unusable.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let tokens = lines.filter(|(_, token)| !token.is_empty() && !token.starts_with('#'));
        let tokens = tokens.map(|(line, token)| match token {
            _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(TokensError::Characters { line }),
            _ if token.len() < MIN_TOKEN => Err(TokensError::Short { line }),
            _ => Ok((line, Sha256::digest(token).into())),
        });
        let tokens: Vec<_> = tokens.collect::<Result<_, _>>()?;
        if tokens.is_empty() { Err(TokensError::Empty) } else { Ok(Self(tokens)) }
    }

    /// The line of `token`. Takes the same time whichever it is, and whether it is one.
    #[must_use]
    pub fn find(&self, token: &[u8]) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.0.iter().fold(None, |found, (line, known)| match bool::from(known.ct_eq(&digest)) {
            true => Some(*line),
            false => found,
        })
    }
}

/// How often one client may ask: `10/s`, `30/m`, `100/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many requests, all of them at once if it likes.
    pub count: NonZeroU32,
    /// In how long.
    pub period: Duration,
}

/// Why a text is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number per second, minute or hour, such as 10/s, 30/m, 100/h")]
pub struct RateError;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (count, unit) = text.split_once('/').ok_or(RateError)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(RateError),
        };
        let count = count.parse().map_err(|_| RateError)?;
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

/// Counts what clients ask.
pub struct Limiter(RateLimiter<Client, HashMapStateStore<Client>, DefaultClock>);

/// Clients that are remembered before those that have been quiet are forgotten.
const REMEMBERED: usize = 4096;

impl Limiter {
    /// Allows each client this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let quota =
            Quota::with_period(rate.period / rate.count.get()).unwrap_or(Quota::per_second(rate.count));
        Self(RateLimiter::hashmap(quota.allow_burst(rate.count)))
    }

    /// Whether the client may ask once more now.
    pub fn allows(&self, client: &Client) -> bool {
        if self.0.len() > REMEMBERED {
            self.0.retain_recent();
        }
        self.0.check_key(client).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_all_of_it_and_nothing_else() {
        let tokens = Tokens::parse("# ours\n0123456789abcdef\n\n  fedcba9876543210ffff \n").unwrap();
        assert_eq!(tokens.find(b"0123456789abcdef"), Some(2));
        assert_eq!(tokens.find(b"fedcba9876543210ffff"), Some(4));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "# ours"] {
            assert_eq!(tokens.find(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Tokens::default().find(b""), None);
    }

    #[test]
    fn a_list_that_lets_nobody_in_or_anybody_guess_is_refused() {
        assert_eq!(Tokens::parse("# none\n").unwrap_err(), TokensError::Empty);
        assert_eq!(Tokens::parse("\nhunter2").unwrap_err(), TokensError::Short { line: 2 });
        let blank = Tokens::parse("0123456789abcdef 0123456789abcdef").unwrap_err();
        assert_eq!(blank, TokensError::Characters { line: 1 });
    }

    #[test]
    fn rates_are_read_and_kept_for_each_client() {
        for text in ["", "10", "0/s", "-1/s", "10/d", "/s", "1.5/s"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text:?}");
        }
        let limiter = Limiter::new("3/h".parse().unwrap());
        let [one, other] = [Client::Token(1), Client::Token(2)];
        assert_eq!([(); 4].map(|()| limiter.allows(&one)), [true, true, true, false]);
        assert!(limiter.allows(&other));
    }
}
