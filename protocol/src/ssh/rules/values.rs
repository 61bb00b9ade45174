//! What rules hold: the types of their values, each of which reads and writes its own.

use core::{
    num::{NonZeroU16, NonZeroU64},
    ops::Deref,
};

use super::{MAX_QUOTA, RuleError};
use crate::{
    algorithm::{Algorithm, AsymmetricAlgorithm, Curve},
    codec::CodecError,
    ssh::{
        host_pattern::HostPattern,
        network::Network,
        nul_terminated,
        pattern::Pattern,
        request::{CertificateKind, Request, SubjectKey, SubjectKind},
        signature::SignatureAlgorithm,
        timestamp::Now,
    },
};

/// Receives the parts that a value consists of.
pub(super) type Write<'w> = &'w mut dyn FnMut(&[&[u8]]) -> Result<(), CodecError>;

/// How [`super::Rules`] represents a tag: its value, if present; or, for a tag without a value, whether it is
/// present.
pub(super) trait Field<'a>: Sized {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError>;
    fn encode(&self, write: Write<'_>) -> Result<(), CodecError>;
}

impl<'a, T: Value<'a>> Field<'a> for Option<T> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        T::decode(value).map(Some)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        self.as_ref().map_or(Ok(()), |value| value.encode(write))
    }
}

impl Field<'_> for bool {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        exactly::<0>("none", value).map(|_| true)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        if *self { write(&[]) } else { Ok(()) }
    }
}

/// The value of a tag.
pub(super) trait Value<'a>: Sized {
    /// The value, or why these bytes are not one.
    fn decode(value: &'a [u8]) -> Result<Self, RuleError>;
    /// Hands the value's bytes to `write`, once.
    fn encode(&self, write: Write<'_>) -> Result<(), CodecError>;
}

fn exactly<const N: usize>(expected: &'static str, value: &[u8]) -> Result<[u8; N], RuleError> {
    value.try_into().map_err(|_| RuleError::WrongLength { expected, found: value.len() })
}

impl Value<'_> for u32 {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        exactly("4", value).map(Self::from_be_bytes)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&self.to_be_bytes()])
    }
}

impl Value<'_> for NonZeroU16 {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        Self::new(u16::from_be_bytes(exactly("2", value)?)).ok_or(RuleError::Zero)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&self.get().to_be_bytes()])
    }
}

impl Value<'_> for NonZeroU64 {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        Self::new(u64::from_be_bytes(exactly("8", value)?)).ok_or(RuleError::Zero)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&self.get().to_be_bytes()])
    }
}

/// User certificates, host certificates or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateTypes(u8);

impl CertificateTypes {
    /// These types; `None` for none.
    #[must_use]
    pub fn new(types: &[CertificateKind]) -> Option<Self> {
        let bits = types.iter().fold(0, |bits, &kind| bits | Self::bit(kind));
        (bits != 0).then_some(Self(bits))
    }

    /// Whether this type is one of them.
    #[must_use]
    pub const fn contains(self, kind: CertificateKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    const fn bit(kind: CertificateKind) -> u8 {
        match kind {
            CertificateKind::User => 1,
            CertificateKind::Host => 2,
        }
    }
}

impl Value<'_> for CertificateTypes {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        let [bits] = exactly("1", value)?;
        if (1..=3).contains(&bits) { Ok(Self(bits)) } else { Err(RuleError::Unknown(bits)) }
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&[self.0]])
    }
}

/// Names, each followed by a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a>(&'a [u8]);

impl<'a> Names<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        match value {
            [0, ..] => Err(RuleError::EmptyName),
            value if value.windows(2).any(|pair| pair == [0, 0]) => Err(RuleError::EmptyName),
            [] | [.., 0] => Ok(Self(value)),
            _ => Err(RuleError::Cut),
        }
    }

    /// The names, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        nul_terminated(self.0)
    }

    /// Whether exactly these bytes are one of the names.
    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        self.iter().any(|allowed| allowed == name)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Value<'a> for Names<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        Self::decode(value)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[self.0])
    }
}

/// Names, each followed by a NUL; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SomeNames<'a>(Names<'a>);

impl<'a> SomeNames<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        let names = Names::decode(value)?;
        if names.is_empty() { Err(RuleError::Empty) } else { Ok(Self(names)) }
    }
}

impl<'a> Deref for SomeNames<'a> {
    type Target = Names<'a>;

    fn deref(&self) -> &Names<'a> {
        &self.0
    }
}

impl<'a> Value<'a> for SomeNames<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        Self::decode(value)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        self.0.encode(write)
    }
}

/// Patterns, each followed by a NUL; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patterns<'a>(SomeNames<'a>);

impl<'a> Patterns<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        let names = SomeNames::decode(value)?;
        names.iter().try_for_each(|name| Pattern::new(name).map(drop))?;
        Ok(Self(names))
    }

    /// The patterns.
    pub fn iter(&self) -> impl Iterator<Item = Pattern<'a>> + use<'a> {
        self.0.iter().filter_map(|name| Pattern::new(name).ok())
    }

    /// Whether one of them matches.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether one of them matches every host that a host certificate's principal matches.
    #[must_use]
    pub fn cover(&self, principal: &HostPattern<'_>) -> bool {
        self.iter().any(|pattern| pattern.covers(principal))
    }
}

impl<'a> Value<'a> for Patterns<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        Self::decode(value)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        self.0.encode(write)
    }
}

/// Networks, one after another; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networks<'a>(&'a [u8]);

impl<'a> Networks<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        let mut rest = value;
        while !rest.is_empty() {
            Network::decode(&mut rest).ok_or(RuleError::Cut)??;
        }
        if value.is_empty() { Err(RuleError::Empty) } else { Ok(Self(value)) }
    }

    /// The networks.
    pub fn iter(&self) -> impl Iterator<Item = Network> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || Network::decode(&mut rest)?.ok())
    }

    /// Whether the value of a `source-address` option is a comma-separated list of networks, each within one
    /// of these.
    #[must_use]
    pub fn contain(&self, source_address: &[u8]) -> bool {
        let inside = |network: Network| self.iter().any(|allowed| allowed.contains(&network));
        str::from_utf8(source_address)
            .is_ok_and(|text| text.split(',').all(|entry| Network::parse(entry).is_ok_and(inside)))
    }
}

impl<'a> Value<'a> for Networks<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        Self::decode(value)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[self.0])
    }
}

/// Which kinds of keys may be certified, and how long an RSA key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectKeys<'a> {
    /// Least bits of an RSA key's modulus; 0 for no bound.
    pub least_rsa_bits: u16,
    /// Their numbers: [`SubjectKind::code`].
    kinds: &'a [u8],
}

impl<'a> SubjectKeys<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        let (bits, kinds) = value
            .split_first_chunk()
            .ok_or(RuleError::WrongLength { expected: "at least 3", found: value.len() })?;
        if kinds.is_empty() {
            return Err(RuleError::Empty);
        }
        match kinds.iter().find(|&&code| SubjectKind::from_code(code).is_none()) {
            Some(&code) => Err(RuleError::Unknown(code)),
            None => Ok(Self { least_rsa_bits: u16::from_be_bytes(*bits), kinds }),
        }
    }

    /// The kinds.
    pub fn iter(&self) -> impl Iterator<Item = SubjectKind> + use<'a> {
        self.kinds.iter().filter_map(|&code| SubjectKind::from_code(code))
    }

    /// Whether this key may be certified.
    #[must_use]
    pub fn contains(&self, subject: &SubjectKey<'_>) -> bool {
        let bits = match subject {
            SubjectKey::Plain(key) => key.rsa_bits(),
            SubjectKey::SecurityKey { .. } => None,
        };
        bits.is_none_or(|bits| bits >= usize::from(self.least_rsa_bits))
            && self.iter().any(|kind| subject.kind() == Some(kind))
    }
}

impl<'a> Value<'a> for SubjectKeys<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        Self::decode(value)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&self.least_rsa_bits.to_be_bytes(), self.kinds])
    }
}

/// A range of serial numbers, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serials {
    /// The least.
    pub first: u64,
    /// The greatest.
    pub last: u64,
}

impl Value<'_> for Serials {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        let [a, b, c, d, e, f, g, h, last @ ..] = exactly::<16>("16", value)?;
        let first = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let last = u64::from_be_bytes(last);
        if first <= last { Ok(Self { first, last }) } else { Err(RuleError::Order) }
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&self.first.to_be_bytes(), &self.last.to_be_bytes()])
    }
}

/// How the CA key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureAlgorithms<'a>(&'a [u8]);

impl<'a> SignatureAlgorithms<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        if value.is_empty() {
            return Err(RuleError::Empty);
        }
        match value.iter().find(|&&code| signature_algorithm(code).is_none()) {
            Some(&code) => Err(RuleError::Unknown(code)),
            None => Ok(Self(value)),
        }
    }

    /// The algorithms.
    pub fn iter(&self) -> impl Iterator<Item = SignatureAlgorithm> + use<'a> {
        self.0.iter().filter_map(|&code| signature_algorithm(code))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, algorithm: SignatureAlgorithm) -> bool {
        self.iter().any(|allowed| allowed == algorithm)
    }
}

impl<'a> Value<'a> for SignatureAlgorithms<'a> {
    fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        Self::decode(value)
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[self.0])
    }
}

/// The signature algorithm of this number, whichever key makes it.
fn signature_algorithm(code: u8) -> Option<SignatureAlgorithm> {
    use AsymmetricAlgorithm::{Ec, Ed25519, Rsa2048};
    let algorithm = Algorithm::from_code(code)?;
    [Rsa2048, Ec(Curve::P256), Ec(Curve::P384), Ec(Curve::P521), Ed25519]
        .into_iter()
        .find_map(|key| SignatureAlgorithm::from_algorithm(algorithm, key))
}

/// At most so many signatures in any so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// 1 to [`MAX_QUOTA`].
    pub signatures: u8,
    /// Seconds of now, at least 1.
    pub window: u32,
}

impl Value<'_> for Quota {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        let [signatures, window @ ..] = exactly::<5>("5", value)?;
        match (signatures, u32::from_be_bytes(window)) {
            (more, _) if more > MAX_QUOTA => Err(RuleError::Quota(signatures)),
            (0, _) | (_, 0) => Err(RuleError::Zero),
            (signatures, window) => Ok(Self { signatures, window }),
        }
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        write(&[&[self.signatures], &self.window.to_be_bytes()])
    }
}

/// How far the clock may go ahead from one signature to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// The most seconds between the highest now and a later one, at least 1.
    pub seconds: u32,
    /// The now, UNIX seconds, that the first signature's is measured from; without it the first may be any.
    pub since: Option<u32>,
}

impl Value<'_> for ClockStep {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        let (seconds, since) = match value.split_first_chunk() {
            Some((seconds, [])) => (*seconds, None),
            _ => {
                let [a, b, c, d, since @ ..] = exactly::<8>("4 or 8", value)?;
                ([a, b, c, d], Some(u32::from_be_bytes(since)))
            }
        };
        match u32::from_be_bytes(seconds) {
            0 => Err(RuleError::Zero),
            seconds => Ok(Self { seconds, since }),
        }
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        match self.since {
            None => write(&[&self.seconds.to_be_bytes()]),
            Some(since) => write(&[&self.seconds.to_be_bytes(), &since.to_be_bytes()]),
        }
    }
}

/// When the device has to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// For every signature.
    Always,
    /// For a certificate that lasts longer than this many seconds, or ends later than this many seconds after
    /// now. Otherwise a series of short certificates, each beginning where the previous one ends, would cover
    /// a long time without a touch.
    Above(u32),
}

impl Presence {
    /// Whether a certificate that is asked for at this time needs a touch.
    #[must_use]
    pub const fn applies(self, request: &Request<'_>, now: Now) -> bool {
        match self {
            Self::Always => true,
            Self::Above(seconds) => {
                let most = seconds as u64;
                request.lifetime() > most || request.reach(now) > most
            }
        }
    }
}

impl Value<'_> for Presence {
    fn decode(value: &[u8]) -> Result<Self, RuleError> {
        Ok(match value {
            [] => Self::Always,
            value => Self::Above(u32::from_be_bytes(exactly("0 or 4", value)?)),
        })
    }

    fn encode(&self, write: Write<'_>) -> Result<(), CodecError> {
        match self {
            Self::Always => write(&[]),
            Self::Above(seconds) => write(&[&seconds.to_be_bytes()]),
        }
    }
}
