//! Networks: an address and how many of its leading bits count (RFC 4632, RFC 4291 section 2.3).

use core::{fmt, net::IpAddr};

/// Why a text or bytes are not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not `ADDRESS` or `ADDRESS/LENGTH`.
    #[error("not an IPv4 or IPv6 address, optionally followed by / and a prefix length")]
    Syntax,
    /// More bits than the address has.
    #[error("a prefix of {0} bits is longer than the address")]
    PrefixLength(u8),
    /// Bits set that do not count.
    #[error("the address has bits set after its prefix")]
    HostBits,
    /// Neither 4 nor 6.
    #[error("unknown address family {0}")]
    Family(u8),
}

/// A network of IPv4 or IPv6 addresses, with no bits set after its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The bits of an address, left-aligned, and how many there are.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

/// The leading `prefix` bits of `bits`.
const fn leading(bits: u128, prefix: u8) -> u128 {
    match u128::MAX.checked_shr(prefix as u32) {
        Some(rest) => bits & !rest,
        None => bits,
    }
}

impl Network {
    /// The network of all addresses whose first `prefix` bits are the address's.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetworkError> {
        let (bits, length) = bits(address);
        if prefix > length {
            return Err(NetworkError::PrefixLength(prefix));
        }
        if leading(bits, prefix) != bits {
            return Err(NetworkError::HostBits);
        }
        Ok(Self { address, prefix })
    }

    /// Reads `ADDRESS/LENGTH`, or `ADDRESS` for that one address, as OpenSSH's `source-address` has them.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Syntax)?;
        let prefix = match prefix {
            None => bits(address).1,
            // No sign, and nothing that others might read as octal.
            Some("0") => 0,
            Some(digits) if digits.starts_with(|first: char| matches!(first, '1'..='9')) => {
                digits.parse().map_err(|_| NetworkError::Syntax)?
            }
            Some(_) => return Err(NetworkError::Syntax),
        };
        Self::new(address, prefix)
    }

    /// Whether every address of `other` is one of these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let ((mine, length), (theirs, their_length)) = (bits(self.address), bits(other.address));
        length == their_length && self.prefix <= other.prefix && leading(theirs, self.prefix) == mine
    }

    /// Reads a network from the front of `bytes`: `family u8 (4 or 6) ‖ prefix length u8 ‖ address`, of 4 or
    /// 16 bytes. `None` when it is truncated.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Result<Self, NetworkError>> {
        let (&[family, prefix], rest) = bytes.split_first_chunk()?;
        let (address, rest) = match family {
            4 => rest.split_first_chunk::<4>().map(|(octets, rest)| (IpAddr::from(*octets), rest))?,
            6 => rest.split_first_chunk::<16>().map(|(octets, rest)| (IpAddr::from(*octets), rest))?,
            family => return Some(Err(NetworkError::Family(family))),
        };
        *bytes = rest;
        Some(Self::new(address, prefix))
    }

    /// As on the wire; the number of bytes that count is the second.
    #[must_use]
    pub fn encode(&self) -> ([u8; 18], usize) {
        let mut bytes = [0; 18];
        let (family, octets) = match self.address {
            IpAddr::V4(_) => (4, 4),
            IpAddr::V6(_) => (6, 16),
        };
        let address = bits(self.address).0.to_be_bytes();
        let fields = [family, self.prefix].into_iter().chain(address);
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        (bytes, 2 + octets)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn what_is_inside_is_told_to_the_bit() {
        for (outer, inner) in [
            ("10.0.0.0/8", "10.255.255.255"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.128.0.0/9", "10.128.0.0/10"),
            ("0.0.0.0/0", "255.255.255.255/32"),
            ("2001:db8::/32", "2001:db8:ffff::/48"),
            ("::/0", "ffff::1"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert!(network(outer).contains(&network(inner)), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("10.0.0.0/8", "11.0.0.0"),
            ("10.0.0.0/8", "0.0.0.0/0"),
            ("10.0.0.0/9", "10.128.0.0/9"),
            ("10.0.0.0/8", "10.0.0.0/7"),
            ("::/0", "10.0.0.0/8"),
            ("0.0.0.0/0", "::1"),
            ("0.0.0.0/0", "::ffff:10.0.0.1"),
            ("2001:db8::1", "2001:db8::2"),
        ] {
            let inner = Network::parse(inner);
            assert!(inner.is_err() || !network(outer).contains(&inner.unwrap()), "{outer}");
        }
    }

    #[test]
    fn each_defect_has_its_own_error() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/8 ",
            "::/256",
            "a",
            "!10.0.0.0/8",
            "fe80::1%eth0",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::Syntax), "{text}");
        }
        assert_eq!(Network::parse("10.0.0.0/33"), Err(NetworkError::PrefixLength(33)));
        assert_eq!(Network::parse("::/129"), Err(NetworkError::PrefixLength(129)));
        assert_eq!(Network::parse("10.0.0.1/8"), Err(NetworkError::HostBits));
        assert_eq!(Network::parse("2001:db8::1/64"), Err(NetworkError::HostBits));
    }

    #[test]
    fn the_wire_form_is_read_back() {
        for text in ["10.0.0.0/8", "192.0.2.7/32", "0.0.0.0/0", "2001:db8::/32", "::1/128"] {
            let (bytes, length) = network(text).encode();
            let mut rest = &bytes[..length];
            assert_eq!(Network::decode(&mut rest), Some(Ok(network(text))));
            assert!(rest.is_empty());
            assert_eq!(Network::decode(&mut &bytes[..length - 1]), None, "{text}");
            assert_eq!(std::string::ToString::to_string(&network(text)), text);
        }
        assert_eq!(Network::decode(&mut &[5, 0, 0, 0, 0, 0][..]), Some(Err(NetworkError::Family(5))));
        assert_eq!(Network::decode(&mut &[4, 8, 10, 0, 0, 1][..]), Some(Err(NetworkError::HostBits)));
    }
}
