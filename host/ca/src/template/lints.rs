//! The possible findings about templates: permanent names, each with its severity.

use std::ops::Deref;

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
    /// More is allowed than was probably intended, or it does not do what it seems to.
    Warning,
    /// Nothing useful can be signed, or there is no bound on what can.
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

macro_rules! lints {
    ($(#[doc = $summary:literal] $lint:ident $id:literal)+) => {
        /// The possible findings about templates.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub enum Lint {
            $(#[doc = $summary] #[serde(rename = $id)] $lint,)+
        }

        impl Lint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$lint),+];

            /// Its permanent name.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$lint => $id,)+
                }
            }

            /// A short description.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$lint => $summary.trim_ascii_start(),)+
                }
            }
        }
    };
}

lints! {
    /// Nothing bounds how long a certificate lasts
    LastsForEver "lasts-for-ever"
    /// Every certificate would have expired when it is signed
    NeverValid "never-valid"
    /// No CA key is listed, or an id that no key has
    NoCaKey "no-ca-key"
    /// The timestamp key is not a valid key
    NoTimestampKey "no-timestamp-key"
    /// No serial number is left
    SerialsExhausted "serials-exhausted"
    /// There is no bound in the past
    UnboundedStart "unbounded-start"
    /// There is no bound in the future
    UnboundedEnd "unbounded-end"
    /// The template only forbids, so unknown principals are allowed
    DenyListOnly "deny-list-only"
    /// A wildcard matches anybody
    MatchesAnybody "matches-anybody"
    /// A wildcard includes root
    MatchesRoot "matches-root"
    /// A certificate may have no principals
    EmptyPrincipals "empty-principals"
    /// A forbidden name that no certificate has
    ForbidsNobody "forbids-nobody"
    /// A forbidden name with * or ?, which stand for themselves
    ForbidsLiterally "forbids-literally"
    /// A host certificate may stand for many hosts
    HostPatterns "host-patterns"
    /// One key makes user and host certificates
    AnyCertificateType "any-certificate-type"
    /// A long certificate works from anywhere
    LongWithoutSourceAddress "long-without-source-address"
    /// A required source-address may have any value
    AnySourceAddress "any-source-address"
    /// A required force-command may have any value
    AnyForceCommand "any-force-command"
    /// The requester can omit force-command
    OptionalForceCommand "optional-force-command"
    /// The requester can omit source-address
    OptionalSourceAddress "optional-source-address"
    /// Short RSA keys are certified
    ShortRsaSubject "short-rsa-subject"
    /// The CA key may sign with SHA-1
    Sha1Signature "sha1-signature"
    /// An extension that OpenSSH does not know
    UnknownExtension "unknown-extension"
    /// A critical option that OpenSSH does not know
    UnknownCriticalOption "unknown-critical-option"
    /// An option or extension that host certificates do not have
    UselessForHosts "useless-for-hosts"
    /// A rule for host certificates that a template for users has
    UselessForUsers "useless-for-users"
    /// A quota is counted on a clock that may go back
    QuotaWithoutClock "quota-without-clock"
    /// One request can use up all serial numbers
    SerialsWithoutStep "serials-without-step"
    /// One timestamp can set the clock permanently ahead
    ClockWithoutStep "clock-without-step"
    /// The presence rule never asks for a touch
    PresenceNeverAsked "presence-never-asked"
    /// Few serial numbers are left
    FewSerials "few-serials"
    /// Serial numbers increase on a clock that may go back
    SerialsWithoutClock "serials-without-clock"
    /// The first timestamp sets the clock to any time
    ClockWithoutStart "clock-without-start"
    /// The timestamp key is RSA of 2048 bits
    ShortRsaTimestamp "short-rsa-timestamp"
    /// The CA key's signature algorithm is not restricted
    AnySignatureAlgorithm "any-signature-algorithm"
    /// Every extension is allowed
    AnyExtension "any-extension"
    /// Security keys may sign without a touch
    NoTouchRequired "no-touch-required"
    /// A long certificate is signed without a touch
    LongWithoutPresence "long-without-presence"
    /// max-lifetime allows everything that the offsets allow
    MaxLifetimeWithoutEffect "max-lifetime-without-effect"
    /// A forbidden principal that is not allowed in any case
    ForbiddenAnyway "forbidden-anyway"
    /// The template can be deleted and replaced
    NotSealed "not-sealed"
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
}

/// Receives findings: the lint, the key in template files that it is about, the reason, and the advice.
pub(super) type Say<'s> = dyn FnMut(Lint, &'static str, String, &str) + 's;

/// A template under review, and what is known about it.
pub(super) struct Reviewed<'t> {
    pub(super) template: &'t Template<'t>,
    /// The serial number of the last signature under it, if known.
    pub(super) last_serial: Option<u64>,
}

impl<'t> Deref for Reviewed<'t> {
    type Target = Template<'t>;

    fn deref(&self) -> &Template<'t> {
        self.template
    }
}

impl Reviewed<'_> {
    /// The seconds between the two offsets; `None` if one is unbounded.
    pub(super) fn window(&self) -> Option<u64> {
        let window = self.not_before.seconds().zip(self.not_after.seconds());
        window.map(|(before, after)| u64::from(before) + u64::from(after))
    }

    /// The longest that a certificate can last; `None` means forever.
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
