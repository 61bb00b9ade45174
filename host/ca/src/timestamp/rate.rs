//! How often clients of the timestamp service may ask: each by itself, and all unknown ones together.
//!
//! A client without a token or a certificate is known by its [`Peer`]. Since a client may have many of those,
//! all of them together are limited too; and so are wrong tokens, so that none can be found by trying.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sshsm_simulator::http_server::Peer;

use super::access::KnownToken;

/// A client, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// It showed this token.
    Token(KnownToken),
    /// It has a certificate with this SHA-256.
    Certificate([u8; 32]),
    /// It is known by its address only.
    Address(IpAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => write!(f, "token {}", token.line()),
            Self::Certificate(digest) => {
                f.write_str("certificate SHA256:")?;
                digest.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// How often something may be: `10/s`, `30/m`, `100/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, possibly all at once.
    pub count: NonZeroU32,
    /// In how long.
    pub period: Duration,
}

/// Why a text is not a rate.
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

impl Rate {
    /// As often in as many times as long.
    const fn per(count: NonZeroU32, seconds: u64) -> Self {
        Self { count, period: Duration::from_secs(seconds) }
    }

    /// `times` as often.
    const fn times(self, times: NonZeroU32) -> Self {
        Self { count: self.count.saturating_mul(times), ..self }
    }

    /// From one to the next.
    fn interval(self) -> Duration {
        self.period / self.count.get()
    }
}

/// The used part of a rate: the generic cell rate algorithm. It is the time at which all of the rate will be
/// available again.
#[derive(Clone, Copy, Debug)]
struct Used(Instant);

impl Used {
    fn none(now: Instant) -> Self {
        Self(now)
    }

    /// Whether there is room for one more.
    fn allows(self, rate: Rate, now: Instant) -> bool {
        self.0.saturating_duration_since(now) + rate.interval() <= rate.period
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.0 = self.0.max(now) + rate.interval();
    }
}

/// What each of many used of the same rate.
#[derive(Debug)]
struct Each<K> {
    rate: Rate,
    used: HashMap<K, Used>,
    /// With how many those are forgotten that used nothing lately; not more than once a second.
    tidy_at: usize,
    tidied: Option<Instant>,
}

/// Remembered before the first tidying.
const TIDY: usize = 1024;
/// The maximum number remembered. A further client has to wait until one of them has not asked for a while.
const MOST: usize = 65_536;

impl<K: Eq + Hash + Clone> Each<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, used: HashMap::new(), tidy_at: TIDY, tidied: None }
    }

    fn allows(&mut self, key: &K, now: Instant) -> bool {
        self.tidy(now);
        match self.used.get(key) {
            Some(used) => used.allows(self.rate, now),
            None => self.used.len() < MOST,
        }
    }

    fn take(&mut self, key: &K, now: Instant) {
        self.used.entry(key.clone()).or_insert(Used::none(now)).take(self.rate, now);
    }

    fn tidy(&mut self, now: Instant) {
        let recently = |when: Instant| now.saturating_duration_since(when) < Duration::from_secs(1);
        if self.used.len() < self.tidy_at || self.tidied.is_some_and(recently) {
            return;
        }
        self.used.retain(|_, used| used.0 > now);
        self.tidied = Some(now);
        // At twice the remaining number, so that each request pays for a constant part of it.
        self.tidy_at = (2 * self.used.len()).clamp(TIDY, MOST);
    }
}

/// Counts what clients ask.
#[derive(Debug)]
pub struct Limiter(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    known: Each<Client>,
    peers: Each<Peer>,
    /// All clients that are known by their address only.
    strangers: Used,
    strangers_rate: Rate,
    wrong: Each<Peer>,
    all_wrong: Used,
    /// Peers that sent a right token, and when they last did: they are not kept out by the mistakes of
    /// others.
    right: HashMap<Peer, Instant>,
}

/// Wrong tokens of one peer: 10 in a minute, or the rate of a client if that is less.
const WRONG: Rate = Rate::per(NonZeroU32::MIN.saturating_add(9), 60);
/// Wrong tokens of all peers.
const ALL_WRONG: Rate = Rate::per(NonZeroU32::MIN.saturating_add(99), 60);
/// How long a peer counts as one that has a token.
const RIGHT: Duration = Duration::from_secs(24 * 3600);
/// Strangers may ask together as often as this many of them.
pub const STRANGERS: NonZeroU32 = NonZeroU32::new(64).unwrap();

impl Limiter {
    /// Allows each client this rate, and all those known only by their address together `strangers`, or
    /// [`STRANGERS`] times the rate of one.
    #[must_use]
    pub fn new(rate: Rate, strangers: Option<Rate>) -> Self {
        let now = Instant::now();
        let wrong = if rate.interval() > WRONG.interval() { rate } else { WRONG };
        Self(Mutex::new(Counts {
            known: Each::new(rate),
            peers: Each::new(rate),
            strangers: Used::none(now),
            strangers_rate: strangers.unwrap_or_else(|| rate.times(STRANGERS)),
            wrong: Each::new(wrong),
            all_wrong: Used::none(now),
            right: HashMap::new(),
        }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client may ask once more now.
    pub fn allows(&self, client: &Client) -> bool {
        self.allows_at(client, Instant::now())
    }

    fn allows_at(&self, client: &Client, now: Instant) -> bool {
        let counts = &mut *self.counts();
        match client {
            Client::Token(_) | Client::Certificate(_) => {
                let allowed = counts.known.allows(client, now);
                if allowed {
                    counts.known.take(client, now);
                }
                allowed
            }
            Client::Address(address) => {
                let peer = Peer::from(*address);
                let allowed =
                    counts.peers.allows(&peer, now) && counts.strangers.allows(counts.strangers_rate, now);
                if allowed {
                    counts.peers.take(&peer, now);
                    counts.strangers.take(counts.strangers_rate, now);
                }
                allowed
            }
        }
    }

    /// Whether a token of this peer is looked at. After too many wrong ones not even a right one is.
    pub fn may_show_a_token(&self, peer: Peer) -> bool {
        self.may_show_a_token_at(peer, Instant::now())
    }

    fn may_show_a_token_at(&self, peer: Peer, now: Instant) -> bool {
        let counts = &mut *self.counts();
        let trusted = counts.right.get(&peer).is_some_and(|when| now.duration_since(*when) < RIGHT);
        counts.wrong.allows(&peer, now) && (trusted || counts.all_wrong.allows(ALL_WRONG, now))
    }

    /// A peer showed a token, and it was right or not.
    pub fn showed_a_token(&self, peer: Peer, right: bool) {
        self.showed_a_token_at(peer, right, Instant::now());
    }

    fn showed_a_token_at(&self, peer: Peer, right: bool, now: Instant) {
        let counts = &mut *self.counts();
        if !right {
            counts.wrong.take(&peer, now);
            counts.all_wrong.take(ALL_WRONG, now);
            return;
        }
        if counts.right.len() >= MOST {
            counts.right.retain(|_, when| now.duration_since(*when) < RIGHT);
        }
        if counts.right.len() < MOST || counts.right.contains_key(&peer) {
            counts.right.insert(peer, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn stranger(number: u32) -> Client {
        Client::Address(Ipv4Addr::from_bits(0x0a00_0000 + number).into())
    }

    fn limiter(rate: &str) -> Limiter {
        Limiter::new(rate.parse().unwrap(), None)
    }

    fn token(line: usize) -> Client {
        use super::super::access::Tokens;
        let token = format!("0123456789abcdef{line}");
        Client::Token(
            Tokens::parse(&("\n".repeat(line - 1) + &token)).unwrap().find(token.as_bytes()).unwrap(),
        )
    }

    #[test]
    fn rates_are_read_and_kept_for_each_client() {
        for text in ["", "10", "0/s", "-1/s", "10/d", "/s", "1.5/s"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text:?}");
        }
        let (limiter, now) = (limiter("3/h"), Instant::now());
        for client in [token(1), token(2), Client::Certificate([1; 32]), stranger(1)] {
            let asked = [(); 4].map(|()| limiter.allows_at(&client, now));
            assert_eq!(asked, [true, true, true, false], "{client}");
        }
        let later = now + Duration::from_secs(1200);
        assert_eq!([(); 2].map(|()| limiter.allows_at(&stranger(1), later)), [true, false]);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_one_rate() {
        let (limiter, now) = (limiter("3/h"), Instant::now());
        let client = |network: u16, host: u16| {
            Client::Address(Ipv6Addr::new(0x2001, 0xdb8, 0, network, host, 0, 0, host).into())
        };
        let allowed = (1..100).filter(|host| limiter.allows_at(&client(1, *host), now)).count();
        assert_eq!(allowed, 3);
        assert!(limiter.allows_at(&client(2, 1), now));
    }

    #[test]
    fn many_addresses_get_no_more_than_all_strangers_may_and_known_clients_are_not_among_them() {
        let (limiter, now) = (limiter("1/h"), Instant::now());
        let allowed = (0..20_000).filter(|number| limiter.allows_at(&stranger(*number), now)).count();
        assert_eq!(allowed, 64);
        assert!(limiter.allows_at(&token(1), now));
        let other = Limiter::new("1/h".parse().unwrap(), Some("5/h".parse().unwrap()));
        let now = Instant::now();
        assert_eq!((0..20_000).filter(|number| other.allows_at(&stranger(*number), now)).count(), 5);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_when_it_no_longer_matters() {
        let rate: Rate = "1/h".parse().unwrap();
        let (mut each, now) = (Each::new(rate), Instant::now());
        let mut allowed = 0;
        for number in 0..200_000_u32 {
            if each.allows(&number, now) {
                each.take(&number, now);
                allowed += 1;
            }
        }
        assert_eq!((allowed, each.used.len()), (MOST, MOST));
        let later = now + 2 * rate.period;
        assert!(each.allows(&200_000, later));
        assert_eq!(each.used.len(), 0);
    }

    #[test]
    fn after_too_many_wrong_tokens_not_even_a_right_one_is_looked_at_for_a_while() {
        let (limiter, now) = (limiter("1000/s"), Instant::now());
        let peer = |number: u32| Peer::from(IpAddr::from(Ipv4Addr::from_bits(number)));
        let wrong = |number, now| {
            let may = limiter.may_show_a_token_at(peer(number), now);
            if may {
                limiter.showed_a_token_at(peer(number), false, now);
            }
            may
        };
        assert_eq!((0..1000).filter(|_| wrong(1, now)).count(), 10);
        limiter.showed_a_token_at(peer(2), true, now);
        assert!(limiter.may_show_a_token_at(peer(2), now), "another peer");
        assert_eq!((0..60).filter(|step| wrong(1, now + Duration::from_secs(*step))).count(), 9);
        // All peers together; those that have a token are still let in.
        let allowed = (1000..3000).filter(|number| wrong(*number, now + Duration::from_secs(60))).count();
        assert!((90..=100).contains(&allowed), "{allowed}");
        assert!(!limiter.may_show_a_token_at(peer(9999), now + Duration::from_secs(60)));
        assert!(limiter.may_show_a_token_at(peer(2), now + Duration::from_secs(60)));
        assert!(limiter.may_show_a_token_at(peer(9999), now + Duration::from_secs(62)));
    }

    #[test]
    fn guesses_are_no_more_frequent_than_a_client_may_ask() {
        let (limiter, now) = (limiter("2/h"), Instant::now());
        let peer = Peer::from(IpAddr::from([192, 0, 2, 1]));
        let guesses = (0..1000).filter(|_| {
            let may = limiter.may_show_a_token_at(peer, now);
            if may {
                limiter.showed_a_token_at(peer, false, now);
            }
            may
        });
        assert_eq!(guesses.count(), 2);
    }
}
