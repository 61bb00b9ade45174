//! The five parts that every template has, as this crate knows them.

use ssh_key::HashAlg;
use sshsm_protocol::{
    AsymmetricAlgorithm, ObjectId,
    ssh::{Printable, host_pattern::HostPattern, template::Template},
};

use super::{
    compare::{Within, all_of, any_of, at_most},
    lints::{Lint, Reviewed, Say, quoted},
};
use crate::{device_key, duration};

/// A part that every template has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BasePart {
    TimestampKey,
    CaKeys,
    NotBeforeOffset,
    NotAfterOffset,
    ForbidPrincipals,
}

impl BasePart {
    /// All, in the order in which they are shown.
    pub(super) const ALL: [Self; 5] = [
        Self::TimestampKey,
        Self::CaKeys,
        Self::NotBeforeOffset,
        Self::NotAfterOffset,
        Self::ForbidPrincipals,
    ];

    /// Its key in template files.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::TimestampKey => "timestamp-key",
            Self::CaKeys => "ca-keys",
            Self::NotBeforeOffset => "not-before-offset",
            Self::NotAfterOffset => "not-after-offset",
            Self::ForbidPrincipals => "forbid-principals",
        }
    }

    /// Its name in the description of a template.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::TimestampKey => "timestamp key",
            Self::CaKeys => "CA keys",
            Self::NotBeforeOffset => "not before",
            Self::NotAfterOffset => "not after",
            Self::ForbidPrincipals => "forbidden principals",
        }
    }

    /// Its value, in words.
    pub(super) fn words(self, template: &Template<'_>) -> String {
        let list = |items: Vec<String>, none: &str| {
            if items.is_empty() { none.to_owned() } else { items.join(", ") }
        };
        let span = |seconds: u32| duration::in_words(seconds.into());
        match self {
            Self::TimestampKey => {
                let key = &template.timestamp_key;
                let fingerprint = device_key::ssh_public(key.algorithm(), key.public()).map_or_else(
                    |_| "INVALID: nothing can be signed".to_owned(),
                    |key| key.fingerprint(HashAlg::Sha256).to_string(),
                );
                format!("{} {fingerprint}", key.algorithm())
            }
            Self::CaKeys => {
                let ids = template.ca_keys.iter().map(|id| format!("{id:#06x}")).collect();
                list(ids, "NONE: nothing can be signed")
            }
            Self::NotBeforeOffset => match template.not_before.seconds() {
                Some(seconds) => format!("now − {}", span(seconds)),
                None => "UNBOUNDED: a certificate may begin at any time in the past".to_owned(),
            },
            Self::NotAfterOffset => match template.not_after.seconds() {
                Some(seconds) => format!("now + {}", span(seconds)),
                None => "UNBOUNDED: a certificate may last forever".to_owned(),
            },
            Self::ForbidPrincipals => {
                let name = |name: &[u8]| match name {
                    [] => "\"\" (EMPTY: forbids nobody)".to_owned(),
                    name if name.contains(&b',') => {
                        format!("\"{}\" (with a comma: FORBIDS NOBODY)", Printable(name))
                    }
                    name => Printable(name).to_string(),
                };
                let names = template.forbidden_principals.iter().map(name).collect();
                list(names, "none, but a request must name at least one")
            }
        }
    }

    /// Which of two templates lets more through by it.
    pub(super) fn compare(self, before: &Template<'_>, after: &Template<'_>) -> Within {
        match self {
            Self::TimestampKey => {
                let same = before.timestamp_key == after.timestamp_key;
                (same, same)
            }
            Self::CaKeys => {
                let keys = |template: &Template<'_>| Some(template.ca_keys.iter().collect());
                any_of::<u16>(keys(before), keys(after), u16::eq)
            }
            Self::NotBeforeOffset => at_most(before.not_before.seconds(), after.not_before.seconds()),
            Self::NotAfterOffset => at_most(before.not_after.seconds(), after.not_after.seconds()),
            Self::ForbidPrincipals => {
                let [before, after] =
                    [before, after].map(|template| template.forbidden_principals.iter().collect::<Vec<_>>());
                all_of(before, after)
            }
        }
    }

    /// The entries of its list, if it is one.
    pub(super) fn entries(self, template: &Template<'_>) -> Option<Vec<String>> {
        match self {
            Self::CaKeys => Some(template.ca_keys.iter().map(|id| format!("{id:#06x}")).collect()),
            Self::ForbidPrincipals => {
                let names = template.forbidden_principals.iter();
                Some(names.map(|name| Printable(name).to_string()).collect())
            }
            Self::TimestampKey | Self::NotBeforeOffset | Self::NotAfterOffset => None,
        }
    }

    /// What a careful reviewer would question about it.
    pub(super) fn lint(self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let rule = self.key();
        match self {
            Self::TimestampKey => {
                let key = &template.timestamp_key;
                if device_key::ssh_public(key.algorithm(), key.public()).is_err() {
                    let message =
                        "the timestamp key is not a key of its algorithm, so no timestamp can be verified";
                    say(Lint::NoTimestampKey, rule, message.into(), "name the authority's public key file");
                }
                if key.algorithm() == AsymmetricAlgorithm::Rsa2048 {
                    let message = "RSA of 2048 bits has 112 bits of security, and an attacker who breaks it sets the clock";
                    let advice = "take an Ed25519 key, or RSA of 3072 bits";
                    say(Lint::ShortRsaTimestamp, rule, message.into(), advice);
                }
            }
            Self::CaKeys => {
                let nobody: Vec<_> =
                    template.ca_keys.iter().filter(|&id| ObjectId::new(id).is_err()).collect();
                if template.ca_keys.iter().next().is_none() {
                    let message = "it lists no CA key, so nothing can be signed under it";
                    say(Lint::NoCaKey, rule, message.into(), "name the ids of the CA keys: ca-keys = [5]");
                } else if !nobody.is_empty() {
                    let message = format!("no key has the id {nobody:?}");
                    say(Lint::NoCaKey, rule, message, "name ids from 1 to 65534");
                }
            }
            Self::NotBeforeOffset => {
                if template.not_before.seconds().is_none() {
                    let message = "a certificate may begin at any time in the past, so logs of that time are no longer \
                                   evidence";
                    say(Lint::UnboundedStart, rule, message.into(), "not-before-offset = \"5m\"");
                }
            }
            Self::NotAfterOffset => match template.not_after.seconds() {
                None => {
                    let message = "a certificate may be dated ahead, and work years after its requester has \
                                   left";
                    say(Lint::UnboundedEnd, rule, message.into(), "not-after-offset = \"8h\"");
                }
                Some(0) => {
                    let message = "a certificate has to end when it is signed, or before";
                    say(Lint::NeverValid, rule, message.into(), "not-after-offset = \"8h\"");
                }
                Some(_) => {}
            },
            Self::ForbidPrincipals => {
                let forbidden = template.forbidden_principals;
                let dead: Vec<_> =
                    forbidden.iter().filter(|name| name.is_empty() || name.contains(&b',')).collect();
                if !dead.is_empty() {
                    let shown: Vec<_> = dead.iter().map(|name| format!("\"{}\"", Printable(name))).collect();
                    let message = format!("no certificate names {}, so it forbids nobody", shown.join(", "));
                    say(Lint::ForbidsNobody, rule, message, "give each name its own string");
                }
                let literal: Vec<_> =
                    forbidden.iter().filter(|name| !HostPattern::new(name).is_name()).collect();
                if !literal.is_empty() {
                    let message = format!(
                        "{} is a name here, not a pattern: * and ? stand for themselves",
                        quoted(literal.iter())
                    );
                    let advice = "forbid-principals takes whole names; list whom to allow: allow-principals = \
                                  [\"*.example.com\"]";
                    say(Lint::ForbidsLiterally, rule, message, advice);
                }
            }
        }
    }
}
