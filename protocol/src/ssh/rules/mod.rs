//! What a template can say beyond YubiHSM 2's six tags: the extension tags, from 0x80 up.
//!
//! Each occurs at most once, and a template without one is not restricted by it. Lists are entries one after
//! another; names and patterns end in a NUL, as forbidden principals do. All numbers are big-endian.
//!
//! `rules!` is the only table of them: a row gives the number, the key in template files, which is also the
//! name of its check in a verdict, and the type that holds, reads and writes the value. The device's policy
//! decides what a rule *allows*.
//!
//! # Rules of evolution
//!
//! A template outlives the firmware of the device that stores it: it is on devices, in backups and in files.
//!
//! - A row's number, key and encoding never change, and a stored template never comes to allow more. A rule
//!   with a different meaning is a new row; the number of a withdrawn row is never reused.
//! - A new row takes the next free number. To a device that does not know it the template is malformed, so
//!   nothing is signed under it: an older device is stricter, never looser.
//! - A template without a row means the same as before that row existed.
//! - A value may get one more form if older devices treat that form as malformed, as they do a longer value.
//!   The numbers inside values (certificate types, [`SubjectKind::code`](super::request::SubjectKind::code),
//!   algorithms) are explicit too, and only added to.
//! - The old name of a key that was renamed in verdicts is still understood in files that use it, such as
//!   template test suites.

use core::num::{NonZeroU16, NonZeroU64};

use super::{network::NetworkError, pattern::PatternError};
use crate::codec::{CodecError, Writer};

mod values;

use values::Field;
pub use values::{
    CertificateTypes, ClockStep, Names, Networks, Patterns, Presence, Quota, Serials, SignatureAlgorithms,
    SomeNames, SubjectKeys,
};

macro_rules! rules {
    ($($(#[$what:meta])+ $code:literal $tag:ident $field:ident $name:literal: $value:ty;)*) => {
        /// An extension tag.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RuleTag {
            $($(#[$what])+ $tag = $code,)*
        }

        impl RuleTag {
            /// All, by ascending number.
            pub const ALL: [Self; [$($code),*].len()] = [$(Self::$tag),*];

            /// The tag of this number.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$tag),)* _ => None }
            }

            /// Its key in template files, and the name of its check.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$tag => $name,)* }
            }
        }

        /// The extension tags of a template; `None` and `false` for tags that it does not have.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Rules<'a> {
            $($(#[$what])+ pub $field: $value,)*
        }

        /// One extension tag of a template; `None` and `false` if the template does not have it. A match on
        /// it has to handle every rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule<'a> {
            $($(#[$what])+ $tag($value),)*
        }

        impl<'a> Rules<'a> {
            /// The template's value for this tag.
            #[must_use]
            pub const fn rule(&self, tag: RuleTag) -> Rule<'a> {
                match tag { $(RuleTag::$tag => Rule::$tag(self.$field),)* }
            }

            /// Adds the value of one tag.
            pub(super) fn set(&mut self, tag: RuleTag, value: &'a [u8]) -> Result<(), RuleError> {
                match tag { $(RuleTag::$tag => self.$field = Field::decode(value)?,)* }
                Ok(())
            }

            /// Writes the value of one tag, if it is there.
            fn encode_rule(&self, tag: RuleTag, write: values::Write<'_>) -> Result<(), CodecError> {
                match tag { $(RuleTag::$tag => self.$field.encode(write),)* }
            }
        }
    };
}

rules! {
    /// User or host certificates: u8, 1 user, 2 host, 3 both.
    0x80 CertificateTypes certificate_types "certificate-types": Option<CertificateTypes>;
    /// The principals that a certificate may name: patterns; every principal must match one.
    0x81 AllowPrincipals allow_principals "allow-principals": Option<Patterns<'a>>;
    /// The longest lifetime: u32 seconds, valid-before − valid-after.
    0x82 MaxLifetime max_lifetime "max-lifetime": Option<u32>;
    /// How many principals a certificate may name: u16.
    0x83 MaxPrincipals max_principals "max-principals": Option<NonZeroU16>;
    /// A certificate may have no principals: no value.
    0x84 AllowEmptyPrincipals allow_empty_principals "allow-empty-principals": bool;
    /// Which extensions it may have: names, perhaps none.
    0x85 AllowExtensions allow_extensions "allow-extensions": Option<Names<'a>>;
    /// Which critical options it may have: names, perhaps none.
    0x86 AllowCriticalOptions allow_critical_options "allow-critical-options": Option<Names<'a>>;
    /// Which critical options it must have: names.
    0x87 RequireCriticalOptions require_critical_options "require-critical-options": Option<SomeNames<'a>>;
    /// The values that `force-command` may have.
    0x88 ForceCommand force_command "force-command": Option<SomeNames<'a>>;
    /// The networks in which `source-address` may lie: `family u8 (4, 6) ‖ prefix length u8 ‖ address` each.
    0x89 SourceAddress source_address "source-address": Option<Networks<'a>>;
    /// The keys that may be certified: u16 minimum RSA size in bits ‖ kinds, u8 each
    /// ([`SubjectKind::code`](super::request::SubjectKind::code)).
    0x8a SubjectKeys subject_keys "subject-keys": Option<SubjectKeys<'a>>;
    /// The patterns of which the key id must match one.
    0x8b KeyId key_id "key-id": Option<Patterns<'a>>;
    /// The range of the serial number: u64 first ‖ u64 last.
    0x8c Serials serials "serials": Option<Serials>;
    /// Serial numbers only increase: no value.
    0x8d IncreasingSerials increasing_serials "increasing-serials": bool;
    /// How the CA key may sign: algorithm numbers, u8 each.
    0x8e SignatureAlgorithms signature_algorithms "signature-algorithms": Option<SignatureAlgorithms<'a>>;
    /// The clock never goes back: u32 seconds of tolerance.
    0x8f Clock clock "clock": Option<u32>;
    /// How many signatures in how long a time: u8 signatures ‖ u32 seconds of now in which they are counted.
    0x90 Quota quota "quota": Option<Quota>;
    /// When the device has to be touched: no value, for every signature; or u32 seconds, for a certificate
    /// that lasts, or reaches ahead of now, longer than that.
    0x91 Presence presence "presence": Option<Presence>;
    /// The template stays, neither replaced nor deleted: no value.
    0x92 Sealed sealed "sealed": bool;
    /// A host certificate's principals may be patterns: no value.
    0x97 HostPatterns host_patterns "host-patterns": bool;
    /// How far a serial number may exceed the last: u64, at least 1.
    0x98 SerialsMaxStep serials_max_step "serials-max-step": Option<NonZeroU64>;
    /// How far a now may exceed the highest: u32 seconds, at least 1; or those ‖ u32 the first now, UNIX
    /// seconds.
    0x99 ClockMaxStep clock_max_step "clock-max-step": Option<ClockStep>;
}

impl RuleTag {
    /// The number in a template.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why the value of an extension tag is none, or contradicts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not as long as the tag's values are.
    #[error("it has {found} bytes, not {expected}")]
    WrongLength {
        /// The value that the tag requires.
        expected: &'static str,
        /// Bytes in the template.
        found: usize,
    },
    /// A list that allows nothing at all.
    #[error("its list is empty, so nothing could ever be signed")]
    Empty,
    /// The last name is not followed by a NUL, or the last network is truncated.
    #[error("its last entry is truncated")]
    Cut,
    /// A name of no bytes.
    #[error("it has an empty name")]
    EmptyName,
    /// A number without a meaning.
    #[error("{0} has no meaning there")]
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
    /// A required option is not allowed.
    #[error("it needs a critical option that allow-critical-options does not allow")]
    NotAllowed,
    /// A bound on a value that no other rule tracks.
    #[error("it bounds a step of {}, which the template does not have", .0.name())]
    Without(RuleTag),
}

/// The most signatures that a quota can count.
pub const MAX_QUOTA: u8 = 64;

/// The name of the critical option that runs a command whatever the client asks for.
pub const FORCE_COMMAND: &[u8] = b"force-command";
/// The name of the critical option that restricts the addresses of clients.
pub const SOURCE_ADDRESS: &[u8] = b"source-address";

impl Rules<'_> {
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
        let needed = self.require_critical_options.iter().flat_map(|names| names.iter());
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
            self.encode_rule(tag, &mut |parts| {
                let needed = parts.iter().map(|part| part.len()).sum();
                let length = u16::try_from(needed)
                    .map_err(|_| CodecError::NoSpace { needed, available: usize::from(u16::MAX) })?;
                writer.u8(tag.code())?;
                writer.u16(length)?;
                parts.iter().try_for_each(|part| writer.bytes(part))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::host_pattern::HostPattern;
    use crate::ssh::public_key::PublicKey;
    use crate::ssh::request::{
        CertificateKind, Field, Options, Principals, Request, SubjectKey, SubjectKind,
    };
    use crate::ssh::signature::SignatureAlgorithm;
    use crate::ssh::timestamp::Now;
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
            assert_eq!((tag, RuleTag::from_code(tag.code())), (all, Some(tag)));
            rules.set(tag, value).unwrap();
            expected.extend([tag.code(), 0, u8::try_from(value.len()).unwrap()]);
            expected.extend(value);
        }
        assert_eq!(encoded(&rules), expected);
        assert_eq!(rules.check(), Ok(()));
        assert_eq!(encoded(&set(RuleTag::Presence, &[0, 0, 0, 9]).unwrap()), [0x91, 0, 4, 0, 0, 0, 9]);
        assert_eq!(encoded(&set(RuleTag::ClockMaxStep, &[0, 0, 0, 9]).unwrap()), [0x99, 0, 4, 0, 0, 0, 9]);
        assert!(encoded(&Rules::default()).is_empty());
        assert_eq!(RuleTag::from_code(0x7f).or(RuleTag::from_code(0x93)), None);
    }

    /// Stored templates hold these numbers: they never change.
    #[test]
    fn a_rule_and_a_kind_of_key_keep_their_numbers() {
        let numbers = [
            (0x80, "certificate-types"),
            (0x81, "allow-principals"),
            (0x82, "max-lifetime"),
            (0x83, "max-principals"),
            (0x84, "allow-empty-principals"),
            (0x85, "allow-extensions"),
            (0x86, "allow-critical-options"),
            (0x87, "require-critical-options"),
            (0x88, "force-command"),
            (0x89, "source-address"),
            (0x8a, "subject-keys"),
            (0x8b, "key-id"),
            (0x8c, "serials"),
            (0x8d, "increasing-serials"),
            (0x8e, "signature-algorithms"),
            (0x8f, "clock"),
            (0x90, "quota"),
            (0x91, "presence"),
            (0x92, "sealed"),
            (0x97, "host-patterns"),
            (0x98, "serials-max-step"),
            (0x99, "clock-max-step"),
        ];
        assert_eq!(RuleTag::ALL.map(|tag| (tag.code(), tag.name())), numbers);
        assert!(RuleTag::ALL.map(RuleTag::code).is_sorted_by(|one, other| 0x80 <= *one && one < other));
        let kinds = [
            (1, "rsa"),
            (2, "ecdsa-p256"),
            (3, "ecdsa-p384"),
            (4, "ecdsa-p521"),
            (5, "ed25519"),
            (6, "sk-ecdsa-p256"),
            (7, "sk-ed25519"),
        ];
        assert_eq!(SubjectKind::ALL.map(|kind| (kind.code(), kind.name())), kinds);
        for code in 0..=u8::MAX {
            let tag = RuleTag::from_code(code);
            assert_eq!(
                tag.map(RuleTag::code),
                numbers.iter().map(|(number, _)| *number).find(|n| *n == code)
            );
            let kind = SubjectKind::from_code(code);
            assert_eq!(kind.map(SubjectKind::code), (1..=7).contains(&code).then_some(code));
        }
    }

    #[test]
    fn a_rule_is_told_as_the_template_has_it() {
        let rules = set(RuleTag::MaxPrincipals, &[0, 3]).unwrap();
        assert_eq!(rules.rule(RuleTag::MaxPrincipals), Rule::MaxPrincipals(NonZeroU16::new(3)));
        assert_eq!(rules.rule(RuleTag::MaxLifetime), Rule::MaxLifetime(None));
        assert_eq!(rules.rule(RuleTag::Sealed), Rule::Sealed(false));
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
            // It lasts a second, in the future.
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
        let covered = |host: &[u8]| patterns.cover(&HostPattern::new(host));
        assert!(covered(b"zone-web") && covered(b"zone-?") && covered(b"alice"));
        assert!(!covered(b"ALICE") && !covered(b"zone") && !covered(b"*") && !covered(b"bob"));
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
        assert_eq!(keys.iter().map(SubjectKind::code).collect::<std::vec::Vec<_>>(), [1, 5]);
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
                prop_assert_eq!(&bytes[..3], &[tag.code(), 0, length]);
                prop_assert_eq!(&bytes[3..], &value);
            }
        }
    }
}
