//! What a template can say beyond YubiHSM 2's six tags: the extension tags, from 0x80 up.
//!
//! Each stands at most once, and a template without one is not restricted by it. Lists are entries one after another; names
//! and patterns end in a NUL, as forbidden principals do. All numbers are big-endian.
//!
//! | tag | rule | value |
//! |---|---|---|
//! | 0x80 | certificate types | u8: 1 user, 2 host, 3 both |
//! | 0x81 | allowed principals | patterns; every principal must match one |
//! | 0x82 | longest lifetime | u32 seconds, valid-before − valid-after |
//! | 0x83 | most principals | u16 |
//! | 0x84 | a certificate without principals is allowed | nothing |
//! | 0x85 | allowed extensions | names; may be empty: none |
//! | 0x86 | allowed critical options | names; may be empty: none |
//! | 0x87 | required critical options | names |
//! | 0x88 | force-command | the values that it may have |
//! | 0x89 | source-address | networks, `family u8 (4, 6) ‖ prefix length u8 ‖ address`, that its own must lie in |
//! | 0x8a | subject keys | u16 least bits of an RSA key ‖ kinds, u8 each: [`SubjectKeys`] |
//! | 0x8b | key id | patterns, one of which it must match |
//! | 0x8c | serial numbers | u64 first ‖ u64 last |
//! | 0x8d | serial numbers only increase | nothing |
//! | 0x8e | signature algorithms | algorithm numbers, u8 each |
//! | 0x8f | the clock never goes back | u32 seconds of tolerance |
//! | 0x90 | quota | u8 signatures ‖ u32 seconds of now in which they are counted |
//! | 0x91 | presence | nothing: for every signature; or u32 seconds: for what lasts, or reaches ahead of now, longer |
//! | 0x92 | sealed: neither replaced nor deleted | nothing |
//! | 0x97 | a host certificate's principals may be patterns | nothing |
//! | 0x98 | how far serial numbers increase at once | u64, at least 1 |
//! | 0x99 | how far the clock goes ahead at once | u32 seconds, at least 1; or those ‖ u32 the first now, UNIX seconds |

use super::{
    host_pattern::HostPattern,
    network::{Network, NetworkError},
    nul_terminated,
    pattern::{Pattern, PatternError},
    request::{CertificateKind, Request, SubjectKey, SubjectKind},
    signature::SignatureAlgorithm,
    timestamp::Now,
};
use crate::{
    algorithm::{Algorithm, AsymmetricAlgorithm, Curve},
    codec::{CodecError, Writer},
};

/// An extension tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RuleTag {
    /// User or host certificates.
    CertificateTypes = 0x80,
    /// Whom a certificate may name.
    AllowPrincipals,
    /// How long it may last.
    MaxLifetime,
    /// How many it may name.
    MaxPrincipals,
    /// Whether it may name nobody.
    AllowEmptyPrincipals,
    /// Which extensions it may have.
    AllowExtensions,
    /// Which critical options it may have.
    AllowCriticalOptions,
    /// Which critical options it must have.
    RequireCriticalOptions,
    /// What `force-command` may say.
    ForceCommand,
    /// Where `source-address` may lie.
    SourceAddress,
    /// Which keys may be certified.
    SubjectKeys,
    /// What the key id may be.
    KeyId,
    /// Between which numbers the serial number lies.
    Serials,
    /// That serial numbers increase.
    IncreasingSerials,
    /// How the CA key may sign.
    SignatureAlgorithms,
    /// That now does not go back.
    Clock,
    /// How many signatures in how long a time.
    Quota,
    /// When somebody has to touch the device.
    Presence,
    /// That the template stays.
    Sealed,
    /// That a host certificate may name many hosts by a pattern.
    HostPatterns = 0x97,
    /// How far a serial number may lie above the last.
    SerialsMaxStep = 0x98,
    /// How far a now may lie ahead of the highest.
    ClockMaxStep = 0x99,
}

impl RuleTag {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::CertificateTypes,
        Self::AllowPrincipals,
        Self::MaxLifetime,
        Self::MaxPrincipals,
        Self::AllowEmptyPrincipals,
        Self::AllowExtensions,
        Self::AllowCriticalOptions,
        Self::RequireCriticalOptions,
        Self::ForceCommand,
        Self::SourceAddress,
        Self::SubjectKeys,
        Self::KeyId,
        Self::Serials,
        Self::IncreasingSerials,
        Self::SignatureAlgorithms,
        Self::Clock,
        Self::Quota,
        Self::Presence,
        Self::Sealed,
        Self::HostPatterns,
        Self::SerialsMaxStep,
        Self::ClockMaxStep,
    ];

    /// The tag of this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u8 == code)
    }

    /// Its name in template files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CertificateTypes => "certificate-types",
            Self::AllowPrincipals => "allow-principals",
            Self::MaxLifetime => "max-lifetime",
            Self::MaxPrincipals => "max-principals",
            Self::AllowEmptyPrincipals => "allow-empty-principals",
            Self::AllowExtensions => "allow-extensions",
            Self::AllowCriticalOptions => "allow-critical-options",
            Self::RequireCriticalOptions => "require-critical-options",
            Self::ForceCommand => "force-command",
            Self::SourceAddress => "source-address",
            Self::SubjectKeys => "subject-keys",
            Self::KeyId => "key-id",
            Self::Serials => "serials",
            Self::IncreasingSerials => "increasing-serials",
            Self::SignatureAlgorithms => "signature-algorithms",
            Self::Clock => "clock",
            Self::Quota => "quota",
            Self::Presence => "presence",
            Self::Sealed => "sealed",
            Self::HostPatterns => "host-patterns",
            Self::SerialsMaxStep => "serials-max-step",
            Self::ClockMaxStep => "clock-max-step",
        }
    }
}

/// Why the value of an extension tag is none, or contradicts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not as long as the tag's values are.
    #[error("it has {found} bytes, not {expected}")]
    WrongLength {
        /// What the tag wants.
        expected: &'static str,
        /// Bytes in the template.
        found: usize,
    },
    /// A list that allows nothing at all.
    #[error("its list is empty, so nothing could ever be signed")]
    Empty,
    /// The last name has no NUL behind it, or the last network is cut.
    #[error("its last entry is cut short")]
    Cut,
    /// A name of no bytes.
    #[error("it has an empty name")]
    EmptyName,
    /// A number that stands for nothing.
    #[error("{0} stands for nothing there")]
    Unknown(u8),
    /// A number that nothing could satisfy.
    #[error("0 would allow nothing")]
    Zero,
    /// The last number is before the first.
    #[error("the last serial number is before the first")]
    Order,
    /// More signatures than a device counts.
    #[error("{0} signatures are more than the {MAX_QUOTA} that a device counts")]
    Quota(u8),
    /// A pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// What is required is not allowed.
    #[error("it needs a critical option that allow-critical-options does not allow")]
    NotAllowed,
    /// A bound on what nothing else keeps track of.
    #[error("it bounds a step of {}, which the template does not have", .0.name())]
    Without(RuleTag),
}

/// The most signatures that a quota can count.
pub const MAX_QUOTA: u8 = 64;

/// The name of the critical option that runs a command whatever the client asks for.
pub const FORCE_COMMAND: &[u8] = b"force-command";
/// The name of the critical option that says where a client may come from.
pub const SOURCE_ADDRESS: &[u8] = b"source-address";

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

/// Names, each with a NUL behind it.
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

/// Patterns, each with a NUL behind it; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patterns<'a>(Names<'a>);

impl<'a> Patterns<'a> {
    /// From a tag's value.
    pub fn decode(value: &'a [u8]) -> Result<Self, RuleError> {
        let names = not_empty(Names::decode(value)?)?;
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

    /// Whether one of them matches every host that a host certificate's principal stands for.
    #[must_use]
    pub fn cover(&self, principal: &HostPattern<'_>) -> bool {
        self.iter().any(|pattern| pattern.covers(principal))
    }
}

fn not_empty(names: Names<'_>) -> Result<Names<'_>, RuleError> {
    if names.is_empty() { Err(RuleError::Empty) } else { Ok(names) }
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

    /// Whether the value of a `source-address` option is a list of networks, with commas between, each of which lies in one
    /// of these.
    #[must_use]
    pub fn contain(&self, source_address: &[u8]) -> bool {
        let inside = |network: Network| self.iter().any(|allowed| allowed.contains(&network));
        str::from_utf8(source_address)
            .is_ok_and(|text| text.split(',').all(|entry| Network::parse(entry).is_ok_and(inside)))
    }
}

/// Which kinds of keys may be certified, and how long an RSA key must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectKeys<'a> {
    /// Least bits of an RSA key's modulus; 0 for no bound.
    pub least_rsa_bits: u16,
    /// Their numbers: the place in [`SubjectKind::ALL`], from 1.
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
        match kinds.iter().find(|&&code| kind(code).is_none()) {
            Some(&code) => Err(RuleError::Unknown(code)),
            None => Ok(Self { least_rsa_bits: u16::from_be_bytes(*bits), kinds }),
        }
    }

    /// The kinds.
    pub fn iter(&self) -> impl Iterator<Item = SubjectKind> + use<'a> {
        self.kinds.iter().filter_map(|&code| kind(code))
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

    /// A kind's number.
    #[must_use]
    pub fn code(subject: SubjectKind) -> u8 {
        (1..).zip(SubjectKind::ALL).find(|(_, kind)| *kind == subject).map_or(0, |(code, _)| code)
    }
}

fn kind(code: u8) -> Option<SubjectKind> {
    SubjectKind::ALL.get(usize::from(code).checked_sub(1)?).copied()
}

/// A range of serial numbers, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serials {
    /// The least.
    pub first: u64,
    /// The greatest.
    pub last: u64,
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

/// How far the clock may go ahead from one signature to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// The most seconds between the highest now and a later one, at least 1.
    pub seconds: u32,
    /// The now, UNIX seconds, that the first signature's is measured from; without it the first may be any.
    pub since: Option<u32>,
}

/// When somebody has to touch the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// For every signature.
    Always,
    /// For a certificate that lasts longer than so many seconds, or ends later than so many seconds after now. Otherwise
    /// short certificates, each dated to begin where another ends, would cover a long time without a touch.
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

/// What the extension tags of a template say; `None` and `false` where it has no such tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is a tag, and RuleTag says what it is")]
pub struct Rules<'a> {
    pub certificate_types: Option<CertificateTypes>,
    pub allow_principals: Option<Patterns<'a>>,
    pub max_lifetime: Option<u32>,
    pub max_principals: Option<u16>,
    pub allow_empty_principals: bool,
    pub allow_extensions: Option<Names<'a>>,
    pub allow_critical_options: Option<Names<'a>>,
    pub require_critical_options: Option<Names<'a>>,
    pub force_command: Option<Names<'a>>,
    pub source_address: Option<Networks<'a>>,
    pub subject_keys: Option<SubjectKeys<'a>>,
    pub key_id: Option<Patterns<'a>>,
    pub serials: Option<Serials>,
    pub increasing_serials: bool,
    pub signature_algorithms: Option<SignatureAlgorithms<'a>>,
    pub clock: Option<u32>,
    pub quota: Option<Quota>,
    pub presence: Option<Presence>,
    pub sealed: bool,
    pub host_patterns: bool,
    pub serials_max_step: Option<u64>,
    pub clock_max_step: Option<ClockStep>,
}

fn exactly<const N: usize>(expected: &'static str, value: &[u8]) -> Result<[u8; N], RuleError> {
    value.try_into().map_err(|_| RuleError::WrongLength { expected, found: value.len() })
}

fn flag(value: &[u8]) -> Result<bool, RuleError> {
    exactly::<0>("none", value).map(|_| true)
}

impl<'a> Rules<'a> {
    /// Takes in the value of one tag.
    pub(super) fn set(&mut self, tag: RuleTag, value: &'a [u8]) -> Result<(), RuleError> {
        match tag {
            RuleTag::CertificateTypes => {
                let [bits] = exactly("1", value)?;
                if !(1..=3).contains(&bits) {
                    return Err(RuleError::Unknown(bits));
                }
                self.certificate_types = Some(CertificateTypes(bits));
            }
            RuleTag::AllowPrincipals => self.allow_principals = Some(Patterns::decode(value)?),
            RuleTag::MaxLifetime => self.max_lifetime = Some(u32::from_be_bytes(exactly("4", value)?)),
            RuleTag::MaxPrincipals => match u16::from_be_bytes(exactly("2", value)?) {
                0 => return Err(RuleError::Zero),
                most => self.max_principals = Some(most),
            },
            RuleTag::AllowEmptyPrincipals => self.allow_empty_principals = flag(value)?,
            RuleTag::AllowExtensions => self.allow_extensions = Some(Names::decode(value)?),
            RuleTag::AllowCriticalOptions => self.allow_critical_options = Some(Names::decode(value)?),
            RuleTag::RequireCriticalOptions => {
                self.require_critical_options = Some(not_empty(Names::decode(value)?)?);
            }
            RuleTag::ForceCommand => self.force_command = Some(not_empty(Names::decode(value)?)?),
            RuleTag::SourceAddress => self.source_address = Some(Networks::decode(value)?),
            RuleTag::SubjectKeys => self.subject_keys = Some(SubjectKeys::decode(value)?),
            RuleTag::KeyId => self.key_id = Some(Patterns::decode(value)?),
            RuleTag::Serials => {
                let numbers: [u8; 16] = exactly("16", value)?;
                let [first, last] = [0, 8].map(|at| {
                    numbers
                        .get(at..)
                        .and_then(|rest| rest.first_chunk())
                        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
                });
                if last < first {
                    return Err(RuleError::Order);
                }
                self.serials = Some(Serials { first, last });
            }
            RuleTag::IncreasingSerials => self.increasing_serials = flag(value)?,
            RuleTag::SignatureAlgorithms => {
                self.signature_algorithms = Some(SignatureAlgorithms::decode(value)?);
            }
            RuleTag::Clock => self.clock = Some(u32::from_be_bytes(exactly("4", value)?)),
            RuleTag::Quota => {
                let [signatures, window @ ..] = exactly::<5>("5", value)?;
                let window = u32::from_be_bytes(window);
                if signatures > MAX_QUOTA {
                    return Err(RuleError::Quota(signatures));
                }
                if signatures == 0 || window == 0 {
                    return Err(RuleError::Zero);
                }
                self.quota = Some(Quota { signatures, window });
            }
            RuleTag::Presence => {
                self.presence = Some(match value {
                    [] => Presence::Always,
                    value => Presence::Above(u32::from_be_bytes(exactly("0 or 4", value)?)),
                });
            }
            RuleTag::Sealed => self.sealed = flag(value)?,
            RuleTag::HostPatterns => self.host_patterns = flag(value)?,
            RuleTag::SerialsMaxStep => match u64::from_be_bytes(exactly("8", value)?) {
                0 => return Err(RuleError::Zero),
                most => self.serials_max_step = Some(most),
            },
            RuleTag::ClockMaxStep => {
                let (seconds, since) = match value.split_first_chunk() {
                    Some((seconds, [])) => (*seconds, None),
                    _ => {
                        let [a, b, c, d, since @ ..] = exactly::<8>("4 or 8", value)?;
                        ([a, b, c, d], Some(u32::from_be_bytes(since)))
                    }
                };
                match u32::from_be_bytes(seconds) {
                    0 => return Err(RuleError::Zero),
                    seconds => self.clock_max_step = Some(ClockStep { seconds, since }),
                }
            }
        }
        Ok(())
    }

    /// Finds a rule that another makes impossible, or that means nothing without one that is not there.
    pub(super) fn check(&self) -> Result<(), (RuleTag, RuleError)> {
        for (bound, tag, (tracked, of)) in [
            (
                self.serials_max_step.is_some(),
                RuleTag::SerialsMaxStep,
                (self.increasing_serials, RuleTag::IncreasingSerials),
            ),
            (self.clock_max_step.is_some(), RuleTag::ClockMaxStep, (self.clock.is_some(), RuleTag::Clock)),
        ] {
            if bound && !tracked {
                return Err((tag, RuleError::Without(of)));
            }
        }
        let Some(allowed) = self.allow_critical_options else { return Ok(()) };
        let needed = self.require_critical_options.iter().flat_map(Names::iter);
        let needed = needed.map(|name| (RuleTag::RequireCriticalOptions, name));
        let valued = [
            self.force_command.map(|_| (RuleTag::ForceCommand, FORCE_COMMAND)),
            self.source_address.map(|_| (RuleTag::SourceAddress, SOURCE_ADDRESS)),
        ];
        match needed.chain(valued.into_iter().flatten()).find(|(_, name)| !allowed.contains(name)) {
            Some((tag, _)) => Err((tag, RuleError::NotAllowed)),
            None => Ok(()),
        }
    }

    /// Whether a signature depends on signatures before it, which the device has to remember.
    #[must_use]
    pub const fn has_memory(&self) -> bool {
        self.increasing_serials || self.clock.is_some() || self.quota.is_some()
    }

    /// Writes the tags that there are, in ascending order.
    pub(super) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        RuleTag::ALL.into_iter().try_for_each(|tag| {
            let mut field = |parts: &[&[u8]]| {
                let needed = parts.iter().map(|part| part.len()).sum();
                let length = u16::try_from(needed)
                    .map_err(|_| CodecError::NoSpace { needed, available: usize::from(u16::MAX) })?;
                writer.u8(tag as u8)?;
                writer.u16(length)?;
                parts.iter().try_for_each(|part| writer.bytes(part))
            };
            let mut bytes = |value: Option<&[u8]>| value.map_or(Ok(()), |value| field(&[value]));
            match tag {
                RuleTag::CertificateTypes => {
                    bytes(self.certificate_types.map(|types| [types.0]).as_ref().map(|b| &b[..]))
                }
                RuleTag::AllowPrincipals => bytes(self.allow_principals.map(|patterns| patterns.0.0)),
                RuleTag::MaxLifetime => {
                    bytes(self.max_lifetime.map(u32::to_be_bytes).as_ref().map(|b| &b[..]))
                }
                RuleTag::MaxPrincipals => {
                    bytes(self.max_principals.map(u16::to_be_bytes).as_ref().map(|b| &b[..]))
                }
                RuleTag::AllowEmptyPrincipals => bytes(self.allow_empty_principals.then_some(&[])),
                RuleTag::AllowExtensions => bytes(self.allow_extensions.map(|names| names.0)),
                RuleTag::AllowCriticalOptions => bytes(self.allow_critical_options.map(|names| names.0)),
                RuleTag::RequireCriticalOptions => bytes(self.require_critical_options.map(|names| names.0)),
                RuleTag::ForceCommand => bytes(self.force_command.map(|names| names.0)),
                RuleTag::SourceAddress => bytes(self.source_address.map(|networks| networks.0)),
                RuleTag::SubjectKeys => match self.subject_keys {
                    Some(keys) => field(&[&keys.least_rsa_bits.to_be_bytes(), keys.kinds]),
                    None => Ok(()),
                },
                RuleTag::KeyId => bytes(self.key_id.map(|patterns| patterns.0.0)),
                RuleTag::Serials => match self.serials {
                    Some(Serials { first, last }) => field(&[&first.to_be_bytes(), &last.to_be_bytes()]),
                    None => Ok(()),
                },
                RuleTag::IncreasingSerials => bytes(self.increasing_serials.then_some(&[])),
                RuleTag::SignatureAlgorithms => {
                    bytes(self.signature_algorithms.map(|algorithms| algorithms.0))
                }
                RuleTag::Clock => bytes(self.clock.map(u32::to_be_bytes).as_ref().map(|b| &b[..])),
                RuleTag::Quota => match self.quota {
                    Some(Quota { signatures, window }) => field(&[&[signatures], &window.to_be_bytes()]),
                    None => Ok(()),
                },
                RuleTag::Presence => match self.presence {
                    Some(Presence::Always) => field(&[]),
                    Some(Presence::Above(seconds)) => field(&[&seconds.to_be_bytes()]),
                    None => Ok(()),
                },
                RuleTag::Sealed => bytes(self.sealed.then_some(&[])),
                RuleTag::HostPatterns => bytes(self.host_patterns.then_some(&[])),
                RuleTag::SerialsMaxStep => {
                    bytes(self.serials_max_step.map(u64::to_be_bytes).as_ref().map(|b| &b[..]))
                }
                RuleTag::ClockMaxStep => match self.clock_max_step {
                    Some(ClockStep { seconds, since: None }) => field(&[&seconds.to_be_bytes()]),
                    Some(ClockStep { seconds, since: Some(since) }) => {
                        field(&[&seconds.to_be_bytes(), &since.to_be_bytes()])
                    }
                    None => Ok(()),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::public_key::PublicKey;
    use crate::ssh::request::{Field, Options, Principals};
    use proptest::prelude::*;

    fn set(tag: RuleTag, value: &[u8]) -> Result<Rules<'_>, RuleError> {
        let mut rules = Rules::default();
        rules.set(tag, value).map(|()| rules)
    }

    fn encoded(rules: &Rules<'_>) -> std::vec::Vec<u8> {
        let mut buffer = [0; 1024];
        let mut writer = Writer::new(&mut buffer);
        rules.encode(&mut writer).unwrap();
        let length = writer.len();
        buffer[..length].to_vec()
    }

    /// A value for each tag.
    const VALUES: [(RuleTag, &[u8]); 22] = [
        (RuleTag::CertificateTypes, &[1]),
        (RuleTag::AllowPrincipals, b"zone-*\0alice\0"),
        (RuleTag::MaxLifetime, &[0, 0, 0x0e, 0x10]),
        (RuleTag::MaxPrincipals, &[0, 3]),
        (RuleTag::AllowEmptyPrincipals, &[]),
        (RuleTag::AllowExtensions, b"permit-pty\0"),
        (RuleTag::AllowCriticalOptions, b"force-command\0source-address\0"),
        (RuleTag::RequireCriticalOptions, b"source-address\0"),
        (RuleTag::ForceCommand, b"/bin/true\0"),
        (RuleTag::SourceAddress, &[4, 8, 10, 0, 0, 0]),
        (RuleTag::SubjectKeys, &[0x0c, 0, 1, 5]),
        (RuleTag::KeyId, b"*@example.com\0"),
        (RuleTag::Serials, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]),
        (RuleTag::IncreasingSerials, &[]),
        (RuleTag::SignatureAlgorithms, &[46]),
        (RuleTag::Clock, &[0, 0, 0, 60]),
        (RuleTag::Quota, &[10, 0, 0, 0x0e, 0x10]),
        (RuleTag::Presence, &[]),
        (RuleTag::Sealed, &[]),
        (RuleTag::HostPatterns, &[]),
        (RuleTag::SerialsMaxStep, &[0, 0, 0, 0, 0, 0, 0x03, 0xe8]),
        (RuleTag::ClockMaxStep, &[0, 0x27, 0x8d, 0, 0x65, 0x53, 0xf1, 0]),
    ];

    #[test]
    fn every_tag_is_read_and_written_back() {
        let mut rules = Rules::default();
        let mut expected = std::vec::Vec::new();
        for ((tag, value), all) in VALUES.into_iter().zip(RuleTag::ALL) {
            assert_eq!((tag, RuleTag::from_code(tag as u8)), (all, Some(tag)));
            rules.set(tag, value).unwrap();
            expected.extend([tag as u8, 0, u8::try_from(value.len()).unwrap()]);
            expected.extend(value);
        }
        assert_eq!(encoded(&rules), expected);
        assert_eq!(rules.check(), Ok(()));
        assert_eq!(encoded(&set(RuleTag::Presence, &[0, 0, 0, 9]).unwrap()), [0x91, 0, 4, 0, 0, 0, 9]);
        assert_eq!(encoded(&set(RuleTag::ClockMaxStep, &[0, 0, 0, 9]).unwrap()), [0x99, 0, 4, 0, 0, 0, 9]);
        assert!(encoded(&Rules::default()).is_empty());
        assert_eq!(RuleTag::from_code(0x7f).or(RuleTag::from_code(0x93)), None);
    }

    #[test]
    fn values_of_a_fixed_length_have_that_length() {
        for (tag, value) in VALUES {
            let list = matches!(
                tag,
                RuleTag::AllowPrincipals
                    | RuleTag::AllowExtensions
                    | RuleTag::AllowCriticalOptions
                    | RuleTag::RequireCriticalOptions
                    | RuleTag::ForceCommand
                    | RuleTag::KeyId
                    | RuleTag::SourceAddress
                    | RuleTag::SubjectKeys
                    | RuleTag::SignatureAlgorithms
            );
            let longer = [value, &[1]].concat();
            let wrong = |value| matches!(set(tag, value), Err(RuleError::WrongLength { .. }));
            assert!(list || wrong(&longer), "{tag:?}");
            if let (false, Some(shorter)) = (list, value.len().checked_sub(1)) {
                assert!(wrong(&value[..shorter]), "{tag:?}");
            }
        }
    }

    #[test]
    fn each_defect_has_its_own_error() {
        for (tag, value, error) in [
            (RuleTag::CertificateTypes, &[0][..], RuleError::Unknown(0)),
            (RuleTag::CertificateTypes, &[4], RuleError::Unknown(4)),
            (RuleTag::AllowPrincipals, b"", RuleError::Empty),
            (RuleTag::AllowPrincipals, b"a", RuleError::Cut),
            (RuleTag::AllowPrincipals, b"\0", RuleError::EmptyName),
            (RuleTag::AllowPrincipals, b"a\0\0", RuleError::EmptyName),
            (RuleTag::AllowPrincipals, b"a*b\0", RuleError::Pattern(PatternError::Wildcard)),
            (RuleTag::MaxPrincipals, &[0, 0], RuleError::Zero),
            (RuleTag::AllowExtensions, b"a", RuleError::Cut),
            (RuleTag::RequireCriticalOptions, b"", RuleError::Empty),
            (RuleTag::ForceCommand, b"", RuleError::Empty),
            (RuleTag::SourceAddress, &[], RuleError::Empty),
            (RuleTag::SourceAddress, &[4, 8, 10, 0, 0], RuleError::Cut),
            (RuleTag::SourceAddress, &[4, 8, 10, 0, 0, 1], RuleError::Network(NetworkError::HostBits)),
            (
                RuleTag::SourceAddress,
                &[4, 33, 10, 0, 0, 0],
                RuleError::Network(NetworkError::PrefixLength(33)),
            ),
            (RuleTag::SubjectKeys, &[8, 0], RuleError::Empty),
            (RuleTag::SubjectKeys, &[8, 0, 0], RuleError::Unknown(0)),
            (RuleTag::SubjectKeys, &[8, 0, 8], RuleError::Unknown(8)),
            (RuleTag::KeyId, b"\\a\0", RuleError::Pattern(PatternError::Escape)),
            (RuleTag::Serials, &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1], RuleError::Order),
            (RuleTag::SignatureAlgorithms, &[], RuleError::Empty),
            (RuleTag::SignatureAlgorithms, &[12], RuleError::Unknown(12)),
            (RuleTag::Quota, &[0, 0, 0, 0, 1], RuleError::Zero),
            (RuleTag::Quota, &[1, 0, 0, 0, 0], RuleError::Zero),
            (RuleTag::Quota, &[65, 0, 0, 0, 1], RuleError::Quota(65)),
            (RuleTag::SerialsMaxStep, &[0; 8], RuleError::Zero),
            (RuleTag::ClockMaxStep, &[0; 4], RuleError::Zero),
            (RuleTag::ClockMaxStep, &[0, 0, 0, 0, 0, 0, 0, 1], RuleError::Zero),
            (RuleTag::ClockMaxStep, &[0; 5], RuleError::WrongLength { expected: "4 or 8", found: 5 }),
            (RuleTag::ClockMaxStep, &[0; 3], RuleError::WrongLength { expected: "4 or 8", found: 3 }),
        ] {
            assert_eq!(set(tag, value), Err(error), "{tag:?} {value:?}");
        }
        assert!(
            set(RuleTag::AllowExtensions, b"").is_ok() && set(RuleTag::AllowCriticalOptions, b"").is_ok()
        );
    }

    #[test]
    fn a_rule_that_needs_an_option_which_is_not_allowed_is_a_contradiction() {
        for (tag, value) in [
            (RuleTag::RequireCriticalOptions, b"verify-required\0".as_slice()),
            (RuleTag::ForceCommand, b"a\0"),
            (RuleTag::SourceAddress, &[4, 0, 0, 0, 0, 0]),
        ] {
            let mut rules = set(tag, value).unwrap();
            assert_eq!(rules.check(), Ok(()));
            rules.set(RuleTag::AllowCriticalOptions, b"x\0").unwrap();
            assert_eq!(rules.check(), Err((tag, RuleError::NotAllowed)));
            rules
                .set(RuleTag::AllowCriticalOptions, b"verify-required\0force-command\0source-address\0")
                .unwrap();
            assert_eq!(rules.check(), Ok(()));
        }
    }

    #[test]
    fn a_bound_on_a_step_belongs_to_what_is_tracked() {
        for (tag, value, of, tracked) in [
            (RuleTag::SerialsMaxStep, &[0, 0, 0, 0, 0, 0, 0, 1][..], RuleTag::IncreasingSerials, &[][..]),
            (RuleTag::ClockMaxStep, &[0, 0, 0, 1], RuleTag::Clock, &[0, 0, 0, 0]),
        ] {
            let mut rules = set(tag, value).unwrap();
            assert_eq!(rules.check(), Err((tag, RuleError::Without(of))));
            rules.set(of, tracked).unwrap();
            assert_eq!(rules.check(), Ok(()));
        }
        assert_eq!(
            std::format!("{}", RuleError::Without(RuleTag::Clock)),
            "it bounds a step of clock, which the template does not have"
        );
    }

    #[test]
    fn a_touch_is_asked_for_what_lasts_long_and_for_what_reaches_far_ahead() {
        let asks = |rule: Presence, after: u64, before: u64| {
            let request = Request {
                nonce: &[9; 32],
                subject_key: SubjectKey::Plain(PublicKey::Ed25519(&[4; 32])),
                serial: 0,
                kind: CertificateKind::User,
                key_id: b"",
                principals: Principals::decode(b"").unwrap(),
                valid_after: after,
                valid_before: before,
                critical_options: Options::decode(Field::CriticalOptions, b"").unwrap(),
                extensions: Options::decode(Field::Extensions, b"").unwrap(),
                signature_key: PublicKey::Ed25519(&[3; 32]),
            };
            rule.applies(&request, Now::from_seconds(1000))
        };
        assert!(asks(Presence::Always, 0, 0));
        let above = Presence::Above(60);
        for (after, before, expected) in [
            (1000, 1060, false),
            (999, 1060, true),
            (1000, 1061, true),
            // It lasts a second, and that lies ahead.
            (1059, 1060, false),
            (1060, 1061, true),
            (u64::MAX - 1, u64::MAX, true),
            // All of it is over.
            (0, 60, false),
            (0, 61, true),
            (1061, 1000, false),
        ] {
            assert_eq!(asks(above, after, before), expected, "{after} {before}");
        }
    }

    #[test]
    fn a_source_address_lies_inside_as_a_whole() {
        let rules = set(RuleTag::SourceAddress, &[4, 8, 10, 0, 0, 0, 4, 32, 192, 0, 2, 7]).unwrap();
        let networks = rules.source_address.unwrap();
        for inside in ["10.1.2.3", "10.0.0.0/8", "10.0.0.0/9,192.0.2.7", "192.0.2.7/32"] {
            assert!(networks.contain(inside.as_bytes()), "{inside}");
        }
        for outside in [
            "",
            "10.0.0.0/7",
            "10.1.2.3,11.0.0.1",
            "10.1.2.3,",
            ",10.1.2.3",
            "10.1.2.3/8",
            "::1",
            "10.1.2.3 ",
        ] {
            assert!(!networks.contain(outside.as_bytes()), "{outside}");
        }
        assert!(!networks.contain(b"10.1.2.3\xff"));
    }

    #[test]
    fn a_certificate_is_of_an_allowed_type() {
        use CertificateKind::{Host, User};
        for (code, user, host) in [(1, true, false), (2, false, true), (3, true, true)] {
            let value = [code];
            let types = set(RuleTag::CertificateTypes, &value).unwrap().certificate_types.unwrap();
            assert_eq!((types.contains(User), types.contains(Host)), (user, host), "{code}");
            let kinds = [(user, User), (host, Host)].into_iter().filter(|(allowed, _)| *allowed);
            let kinds: std::vec::Vec<_> = kinds.map(|(_, kind)| kind).collect();
            assert_eq!(CertificateTypes::new(&kinds), Some(types));
        }
        assert_eq!(CertificateTypes::new(&[]), None);
    }

    #[test]
    fn names_match_as_a_whole_and_patterns_by_their_wildcard() {
        let names = Names::decode(b"permit-pty\0a\0").unwrap();
        assert_eq!(names.iter().collect::<std::vec::Vec<_>>(), [b"permit-pty".as_slice(), b"a"]);
        assert!(names.contains(b"permit-pty") && names.contains(b"a"));
        assert!(!names.contains(b"permit") && !names.contains(b"") && !names.contains(b"a\0"));
        let patterns = Patterns::decode(b"zone-*\0alice\0").unwrap();
        assert!(patterns.matches(b"zone-web") && patterns.matches(b"alice") && !patterns.matches(b"bob"));
        let written: std::vec::Vec<_> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        assert_eq!(written, [b"zone-*".as_slice(), b"alice"]);
    }

    #[test]
    fn bounds_are_told_to_the_number() {
        let serials = |first: u64, last: u64| [first.to_be_bytes(), last.to_be_bytes()].concat();
        for (first, last, error) in [(4, 5, None), (5, 5, None), (6, 5, Some(RuleError::Order))] {
            assert_eq!(set(RuleTag::Serials, &serials(first, last)).err(), error, "{first} {last}");
        }
        for (signatures, error) in [(1, None), (64, None), (65, Some(RuleError::Quota(65)))] {
            assert_eq!(set(RuleTag::Quota, &[signatures, 0, 0, 0, 1]).err(), error, "{signatures}");
        }
    }

    #[test]
    fn every_signature_algorithm_has_its_number() {
        use crate::ssh::public_key::SshCurve::{P256, P384, P521};
        use SignatureAlgorithm::{Ecdsa, Ed25519, RsaSha1, RsaSha256, RsaSha512};
        let all = [RsaSha1, RsaSha256, RsaSha512, Ecdsa(P256), Ecdsa(P384), Ecdsa(P521), Ed25519];
        let algorithms = SignatureAlgorithms::decode(&[1, 2, 4, 43, 44, 45, 46]).unwrap();
        assert!(algorithms.iter().eq(all));
        let one = SignatureAlgorithms::decode(&[44]).unwrap();
        assert!(all.into_iter().filter(|algorithm| one.contains(*algorithm)).eq([Ecdsa(P384)]));
    }

    #[test]
    fn a_signature_is_remembered_for_the_rules_that_need_it() {
        assert!(!Rules::default().has_memory());
        for (tag, value) in VALUES {
            let remembered = matches!(tag, RuleTag::IncreasingSerials | RuleTag::Clock | RuleTag::Quota);
            assert_eq!(set(tag, value).unwrap().has_memory(), remembered, "{tag:?}");
        }
    }

    #[test]
    fn networks_are_told_one_by_one() {
        let networks = Networks::decode(&[4, 8, 10, 0, 0, 0, 4, 32, 192, 0, 2, 7]).unwrap();
        let told: std::vec::Vec<_> = networks.iter().map(|network| std::format!("{network}")).collect();
        assert_eq!(told, ["10.0.0.0/8", "192.0.2.7/32"]);
    }

    #[test]
    fn a_short_rsa_key_is_no_subject_and_others_have_no_length() {
        let keys = SubjectKeys::decode(&[0x0c, 0, 1, 5]).unwrap();
        let long = [0x80; 384];
        let short: [u8; 384] = core::array::from_fn(|index| if index == 0 { 0x7f } else { 0xff });
        let rsa = |modulus| SubjectKey::Plain(PublicKey::Rsa { exponent: &[1, 0, 1], modulus });
        assert!(
            keys.contains(&rsa(&long)) && !keys.contains(&rsa(&short)) && !keys.contains(&rsa(&long[1..]))
        );
        let ed25519 = PublicKey::Ed25519(&[0; 32]);
        assert!(keys.contains(&SubjectKey::Plain(ed25519)));
        assert!(!keys.contains(&SubjectKey::SecurityKey { key: ed25519, application: b"ssh:" }));
        assert_eq!(keys.iter().map(SubjectKeys::code).collect::<std::vec::Vec<_>>(), [1, 5]);
    }

    proptest! {
        #[test]
        fn no_value_panics_and_what_is_read_is_written_back(
            tag in 0..RuleTag::ALL.len(),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let tag = RuleTag::ALL[tag];
            if let Ok(rules) = set(tag, &value) {
                let bytes = encoded(&rules);
                let length = u8::try_from(value.len()).unwrap();
                prop_assert_eq!(&bytes[..3], &[tag as u8, 0, length]);
                prop_assert_eq!(&bytes[3..], &value);
            }
        }
    }
}
