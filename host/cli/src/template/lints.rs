//! What there is to be said about templates: names that stay, each with how bad it is.

use std::ops::Deref;

use clap::ValueEnum;
use serde::Serialize;
use sshsm_protocol::ssh::{Printable, request::CertificateKind, template::Template};

/// A certificate that lasts longer should be bound to something else than time.
pub(super) const LONG: u64 = 86_400;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Somebody can have more than was meant, or it does not do what it seems to.
    Warning,
    /// Nothing useful can be signed, or nothing bounds what is.
    Error,
}

impl Severity {
    /// As JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What there is to be said about templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lint {
    /// Nothing bounds how long a certificate lasts
    LastsForEver,
    /// Every certificate would be over when it is signed
    NeverValid,
    /// No CA key is listed, or an id that no key has
    NoCaKey,
    /// The timestamp key is no key
    NoTimestampKey,
    /// No serial number is left
    SerialsExhausted,
    /// There is no bound in the past
    UnboundedStart,
    /// There is no bound in the future
    UnboundedEnd,
    /// The template only forbids, and whom it does not know is allowed
    DenyListOnly,
    /// A wildcard stands for anybody
    MatchesAnybody,
    /// A wildcard includes root
    MatchesRoot,
    /// A certificate may name nobody
    EmptyPrincipals,
    /// A forbidden name that no certificate has
    ForbidsNobody,
    /// A forbidden name with * or ?, which stand for themselves
    ForbidsLiterally,
    /// A host certificate may stand for many hosts
    HostPatterns,
    /// User and host certificates are made by one key
    AnyCertificateType,
    /// A long certificate works from everywhere
    LongWithoutSourceAddress,
    /// A required source-address may say anything
    AnySourceAddress,
    /// A required force-command may say anything
    AnyForceCommand,
    /// The requester can leave force-command out
    OptionalForceCommand,
    /// The requester can leave source-address out
    OptionalSourceAddress,
    /// Short RSA keys are certified
    ShortRsaSubject,
    /// The CA key may sign with SHA-1
    Sha1Signature,
    /// An extension that OpenSSH does not know
    UnknownExtension,
    /// A critical option that OpenSSH does not know
    UnknownCriticalOption,
    /// An option or extension that host certificates do not have
    UselessForHosts,
    /// A rule for host certificates that a template for users has
    UselessForUsers,
    /// A quota is counted on a clock that may go back
    QuotaWithoutClock,
    /// One request can use up all serial numbers
    SerialsWithoutStep,
    /// One timestamp can put the clock ahead for good
    ClockWithoutStep,
    /// The presence rule never asks
    PresenceNeverAsked,
    /// Few serial numbers are left
    FewSerials,
    /// Serial numbers increase on a clock that may go back
    SerialsWithoutClock,
    /// The first timestamp sets the clock to any time
    ClockWithoutStart,
    /// The timestamp key is RSA of 2048 bits
    ShortRsaTimestamp,
    /// Which algorithm the CA key signs with is not said
    AnySignatureAlgorithm,
    /// Every extension is allowed
    AnyExtension,
    /// Security keys may sign without a touch
    NoTouchRequired,
    /// A long certificate is signed without a touch
    LongWithoutPresence,
    /// max-lifetime allows all that the offsets do
    MaxLifetimeWithoutEffect,
    /// A forbidden principal that is not allowed anyway
    ForbiddenAnyway,
    /// The template can be deleted and replaced
    NotSealed,
}

impl Lint {
    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::LastsForEver
            | Self::NeverValid
            | Self::NoCaKey
            | Self::NoTimestampKey
            | Self::SerialsExhausted => Severity::Error,
            Self::SerialsWithoutClock
            | Self::ClockWithoutStart
            | Self::ShortRsaTimestamp
            | Self::AnySignatureAlgorithm
            | Self::AnyExtension
            | Self::NoTouchRequired
            | Self::LongWithoutPresence
            | Self::MaxLifetimeWithoutEffect
            | Self::ForbiddenAnyway
            | Self::NotSealed => Severity::Note,
            Self::UnboundedStart
            | Self::UnboundedEnd
            | Self::DenyListOnly
            | Self::MatchesAnybody
            | Self::MatchesRoot
            | Self::EmptyPrincipals
            | Self::ForbidsNobody
            | Self::ForbidsLiterally
            | Self::HostPatterns
            | Self::AnyCertificateType
            | Self::LongWithoutSourceAddress
            | Self::AnySourceAddress
            | Self::AnyForceCommand
            | Self::OptionalForceCommand
            | Self::OptionalSourceAddress
            | Self::ShortRsaSubject
            | Self::Sha1Signature
            | Self::UnknownExtension
            | Self::UnknownCriticalOption
            | Self::UselessForHosts
            | Self::UselessForUsers
            | Self::QuotaWithoutClock
            | Self::SerialsWithoutStep
            | Self::ClockWithoutStep
            | Self::PresenceNeverAsked
            | Self::FewSerials => Severity::Warning,
        }
    }

    /// Its name, which stays.
    #[must_use]
    pub fn id(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Takes what is said: what it is, the key in template files that it is about, why, and what to write instead.
pub(super) type Say<'s> = dyn FnMut(Lint, &'static str, String, &str) + 's;

/// A template that is reviewed, and what is known about it.
pub(super) struct Reviewed<'t> {
    pub(super) template: &'t Template<'t>,
    /// The serial number of the last signature under it, where that is known.
    pub(super) last_serial: Option<u64>,
}

impl<'t> Deref for Reviewed<'t> {
    type Target = Template<'t>;

    fn deref(&self) -> &Template<'t> {
        self.template
    }
}

impl Reviewed<'_> {
    /// The seconds between the two offsets; `None` where one has no bound.
    pub(super) fn window(&self) -> Option<u64> {
        let window = self.not_before.seconds().zip(self.not_after.seconds());
        window.map(|(before, after)| u64::from(before) + u64::from(after))
    }

    /// The longest that a certificate can last; `None` is for ever.
    pub(super) fn longest(&self) -> Option<u64> {
        let most = self.rules.max_lifetime.map(u64::from);
        self.window().into_iter().chain(most).min()
    }

    /// Whether it is for certificates of this type.
    pub(super) fn is_for(&self, kind: CertificateKind) -> bool {
        self.rules.certificate_types.is_none_or(|types| types.contains(kind))
    }

    /// Whether it requires a critical option.
    pub(super) fn requires(&self, option: &[u8]) -> bool {
        self.rules.require_critical_options.is_some_and(|names| names.contains(option))
    }
}

/// Names, with commas between.
pub(super) fn quoted(names: impl Iterator<Item = impl AsRef<[u8]>>) -> String {
    names.map(|name| Printable(name.as_ref()).to_string()).collect::<Vec<_>>().join(", ")
}
