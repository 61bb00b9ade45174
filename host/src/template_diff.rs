//! What became stricter or looser from one template to another, rule by rule.
//!
//! Rules are compared by what they let through: a pattern that another covers, a network inside another, and a list in
//! another order are no change, or one in that direction. What two rules do together is not compared.

use serde::Serialize;
use sshsm_protocol::ssh::{
    Printable,
    network::Network,
    pattern::Pattern,
    public_key::KeyKind,
    request::{CertificateKind, SubjectKind},
    rules::{ClockStep, Names, Presence, Quota, RuleTag, Serials},
    template::Template,
};

use crate::template_file::{BASE_KEYS, in_words};

/// What a change does to the requests that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Fewer pass.
    Stricter,
    /// More pass.
    Looser,
    /// Some pass that did not, and some do not that did.
    Different,
}

impl Direction {
    /// As JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stricter => "stricter",
            Self::Looser => "looser",
            Self::Different => "different",
        }
    }
}

/// A rule that lets other requests through than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its key in template files.
    pub rule: &'static str,
    /// What the change does.
    pub direction: Direction,
    /// What it said, in words.
    pub before: String,
    /// What it says, in words.
    pub after: String,
    /// Entries of its list that came.
    pub added: Vec<String>,
    /// Entries of its list that went.
    pub removed: Vec<String>,
}

/// What changed between two templates, in the order of [`BASE_KEYS`] and then of the tags.
#[must_use]
pub fn diff(before: &Template<'_>, after: &Template<'_>) -> Vec<Change> {
    let (old, new) = (in_words(before), in_words(after));
    let base = BASE_KEYS.into_iter().zip(base(before, after)).enumerate().map(|(place, (rule, within))| {
        let words = |all: &[(_, String)]| all.get(place).map(|(_, words)| words.clone()).unwrap_or_default();
        (rule, within, words(&old), words(&new))
    });
    let rules = RuleTag::ALL.into_iter().map(|tag| {
        let words = |all: &[(&str, String)]| {
            let found = all.iter().find(|(name, _)| *name == tag.name());
            found.map_or_else(|| absent(tag).to_owned(), |(_, words)| words.clone())
        };
        (tag.name(), rule(tag, before, after), words(&old), words(&new))
    });
    base.chain(rules)
        .filter_map(|(rule, within, before, after)| {
            let direction = match within {
                (true, true) => return None,
                (true, false) => Direction::Looser,
                (false, true) => Direction::Stricter,
                (false, false) => Direction::Different,
            };
            Some(Change { rule, direction, added: Vec::new(), removed: Vec::new(), before, after })
        })
        .map(|change| with_entries(change, before, after))
        .collect()
}

/// Whether all that one lets through passes the other: (before in after, after in before).
type Within = (bool, bool);

/// Values of an ordered rule, of which a greater one lets more through; `None` lets everything.
fn at_most<T: Ord>(before: Option<T>, after: Option<T>) -> Within {
    let within = |inner: &Option<T>, outer: &Option<T>| match (inner, outer) {
        (_, None) => true,
        (None, _) => false,
        (Some(inner), Some(outer)) => inner <= outer,
    };
    (within(&before, &after), within(&after, &before))
}

/// Lists, one entry of which is enough; `None` is all there is. `covers(outer, inner)` compares entries.
fn any_of<T>(before: Option<Vec<T>>, after: Option<Vec<T>>, covers: impl Fn(&T, &T) -> bool) -> Within {
    let within = |inner: &Option<Vec<T>>, outer: &Option<Vec<T>>| match (inner, outer) {
        (_, None) => true,
        (None, _) => false,
        (Some(inner), Some(outer)) => inner.iter().all(|one| outer.iter().any(|other| covers(other, one))),
    };
    (within(&before, &after), within(&after, &before))
}

/// Lists of what is wanted or forbidden, all of it.
fn all_of<T: PartialEq>(before: Vec<T>, after: Vec<T>) -> Within {
    let (within, contains) = any_of(Some(before), Some(after), T::eq);
    (contains, within)
}

fn listed<'a>(names: Option<Names<'a>>) -> Option<Vec<&'a [u8]>> {
    names.map(|names| names.iter().collect())
}

const fn both((one, other): Within, (two, another): Within) -> Within {
    (one && two, other && another)
}

/// The five parts of [`BASE_KEYS`].
fn base(before: &Template<'_>, after: &Template<'_>) -> [Within; 5] {
    let authority = before.timestamp_key == after.timestamp_key;
    let keys = |template: &Template<'_>| Some(template.ca_keys.iter().collect());
    [
        (authority, authority),
        any_of::<u16>(keys(before), keys(after), u16::eq),
        at_most(before.not_before.seconds(), after.not_before.seconds()),
        at_most(before.not_after.seconds(), after.not_after.seconds()),
        all_of(before.forbidden_principals.iter().collect(), after.forbidden_principals.iter().collect()),
    ]
}

fn rule(tag: RuleTag, before: &Template<'_>, after: &Template<'_>) -> Within {
    let (old, new) = (&before.rules, &after.rules);
    let same = |one: &&[u8], other: &&[u8]| one == other;
    // A rule that is there lets less through.
    let restricts = |before: bool, after: bool| (before || !after, after || !before);
    match tag {
        RuleTag::CertificateTypes => {
            let kinds = |template: &Template<'_>| {
                let allowed = |kind: &CertificateKind| {
                    template.rules.certificate_types.is_none_or(|types| types.contains(*kind))
                };
                Some([CertificateKind::User, CertificateKind::Host].into_iter().filter(allowed).collect())
            };
            any_of::<CertificateKind>(kinds(before), kinds(after), CertificateKind::eq)
        }
        RuleTag::AllowPrincipals | RuleTag::KeyId => {
            let patterns = |template: &Template<'_>| {
                let patterns = match tag {
                    RuleTag::KeyId => template.rules.key_id,
                    _ => template.rules.allow_principals,
                };
                let patterns: Option<Vec<_>> = patterns
                    .map(|patterns| patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect());
                // One that stands for anything is no restriction.
                patterns.filter(|patterns| !patterns.iter().any(|pattern| pattern == b"*"))
            };
            any_of(patterns(before), patterns(after), |outer, inner| {
                Pattern::new(outer)
                    .is_ok_and(|outer| Pattern::new(inner).is_ok_and(|inner| outer.contains(&inner)))
            })
        }
        RuleTag::MaxLifetime => at_most(old.max_lifetime, new.max_lifetime),
        RuleTag::MaxPrincipals => at_most(old.max_principals, new.max_principals),
        RuleTag::AllowEmptyPrincipals => restricts(!old.allow_empty_principals, !new.allow_empty_principals),
        RuleTag::AllowExtensions => any_of(listed(old.allow_extensions), listed(new.allow_extensions), same),
        RuleTag::AllowCriticalOptions => {
            any_of(listed(old.allow_critical_options), listed(new.allow_critical_options), same)
        }
        RuleTag::RequireCriticalOptions => {
            let [before, after] =
                [old, new].map(|rules| listed(rules.require_critical_options.as_deref().copied()));
            all_of(before.unwrap_or_default(), after.unwrap_or_default())
        }
        RuleTag::ForceCommand => any_of(
            listed(old.force_command.as_deref().copied()),
            listed(new.force_command.as_deref().copied()),
            same,
        ),
        RuleTag::SourceAddress => {
            let networks = |template: &Template<'_>| {
                template.rules.source_address.map(|networks| networks.iter().collect::<Vec<_>>())
            };
            any_of(networks(before), networks(after), Network::contains)
        }
        RuleTag::SubjectKeys => {
            let kinds =
                |template: &Template<'_>| template.rules.subject_keys.map(|keys| keys.iter().collect());
            let kinds = any_of::<SubjectKind>(kinds(before), kinds(after), SubjectKind::eq);
            // The more bits, the fewer keys; without RSA there are none.
            let bits = |template: &Template<'_>| {
                let least = template.rules.subject_keys.map_or(Some(0), |keys| {
                    let rsa = keys.iter().any(|kind| kind == SubjectKind::Plain(KeyKind::Rsa));
                    rsa.then_some(keys.least_rsa_bits)
                });
                Some(least.map_or(u32::MAX, u32::from))
            };
            both(kinds, at_most(bits(after), bits(before)))
        }
        RuleTag::Serials => {
            let first = at_most(
                Some(new.serials.map_or(0, |serials| serials.first)),
                Some(old.serials.map_or(0, |serials| serials.first)),
            );
            let last = |serials: Option<Serials>| Some(serials.map_or(u64::MAX, |serials| serials.last));
            both(first, at_most(last(old.serials), last(new.serials)))
        }
        RuleTag::IncreasingSerials => restricts(old.increasing_serials, new.increasing_serials),
        RuleTag::SignatureAlgorithms => {
            let algorithms = |template: &Template<'_>| {
                template.rules.signature_algorithms.map(|algorithms| algorithms.iter().collect::<Vec<_>>())
            };
            any_of(algorithms(before), algorithms(after), |one, other| one == other)
        }
        RuleTag::Clock => at_most(old.clock, new.clock),
        RuleTag::Quota => {
            let count =
                at_most(old.quota.map(|quota| quota.signatures), new.quota.map(|quota| quota.signatures));
            let window = |quota: Option<Quota>| {
                // The longer, the fewer.
                quota.map(|quota| u32::MAX - quota.window)
            };
            both(count, at_most(window(old.quota), window(new.quota)))
        }
        RuleTag::Presence => {
            // The option user-presence of the device asks beside it.
            let from = |presence: Option<Presence>| {
                presence.map(|presence| match presence {
                    Presence::Always => 0,
                    Presence::Above(seconds) => u64::from(seconds) + 1,
                })
            };
            at_most(from(old.presence), from(new.presence))
        }
        RuleTag::Sealed => restricts(old.sealed, new.sealed),
        RuleTag::HostPatterns => restricts(!old.host_patterns, !new.host_patterns),
        RuleTag::SerialsMaxStep => at_most(old.serials_max_step, new.serials_max_step),
        RuleTag::ClockMaxStep => {
            let seconds = |step: Option<ClockStep>| step.map(|step| step.seconds);
            let since = |step: Option<ClockStep>| step.and_then(|step| step.since).map(|since| vec![since]);
            both(
                at_most(seconds(old.clock_max_step), seconds(new.clock_max_step)),
                any_of(since(old.clock_max_step), since(new.clock_max_step), u32::eq),
            )
        }
    }
}

/// What a template without the rule says.
const fn absent(tag: RuleTag) -> &'static str {
    match tag {
        RuleTag::CertificateTypes => "user, host",
        RuleTag::AllowPrincipals => "anybody not forbidden",
        RuleTag::MaxLifetime => "as long as the offsets allow",
        RuleTag::MaxPrincipals => "as many as OpenSSH reads",
        RuleTag::AllowEmptyPrincipals => "a certificate must name somebody",
        RuleTag::RequireCriticalOptions => "none",
        RuleTag::IncreasingSerials | RuleTag::Serials => "any",
        RuleTag::Clock => "any now that the authority signs",
        RuleTag::Quota => "any number of signatures",
        RuleTag::Presence => "as the device's option user-presence says",
        RuleTag::Sealed => "the template can be deleted",
        RuleTag::HostPatterns => "a host certificate names hosts one by one",
        RuleTag::SerialsMaxStep | RuleTag::ClockMaxStep => "a step of any size",
        _ => "any",
    }
}

/// The change with the entries that came and went, where the rule is a list on both sides.
fn with_entries(change: Change, before: &Template<'_>, after: &Template<'_>) -> Change {
    let entries = |template: &Template<'_>| entries(change.rule, template);
    let (Some(old), Some(new)) = (entries(before), entries(after)) else { return change };
    let added = new.iter().filter(|entry| !old.contains(entry)).cloned().collect();
    let removed = old.iter().filter(|entry| !new.contains(entry)).cloned().collect();
    Change { added, removed, ..change }
}

/// The entries of the list that a rule is; `None` for a rule that is none, or is not there.
fn entries(rule: &str, template: &Template<'_>) -> Option<Vec<String>> {
    let rules = &template.rules;
    let shown = |name: &[u8]| Printable(name).to_string();
    let names = |names: Option<Names<'_>>| names.map(|names| names.iter().map(shown).collect());
    match rule {
        "ca-keys" => Some(template.ca_keys.iter().map(|id| format!("{id:#06x}")).collect()),
        "forbid-principals" => Some(template.forbidden_principals.iter().map(shown).collect()),
        "allow-principals" | "key-id" => {
            let patterns = if rule == "key-id" { rules.key_id } else { rules.allow_principals };
            patterns.map(|patterns| patterns.iter().map(|pattern| shown(pattern.as_bytes())).collect())
        }
        "allow-extensions" => names(rules.allow_extensions),
        "allow-critical-options" => names(rules.allow_critical_options),
        "require-critical-options" => names(rules.require_critical_options.as_deref().copied()),
        "force-command" => names(rules.force_command.as_deref().copied()),
        "source-address" => {
            rules.source_address.map(|networks| networks.iter().map(|network| network.to_string()).collect())
        }
        "signature-algorithms" => rules
            .signature_algorithms
            .map(|algorithms| algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect()),
        _ => None,
    }
}

impl std::fmt::Display for Change {
    /// A line in words, without a newline: `looser    max-lifetime: was 1 hour, is 8 hours`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<10}{}: ", self.direction.name(), self.rule)?;
        match (self.added.join(", "), self.removed.join(", ")) {
            (added, removed) if added.is_empty() && removed.is_empty() => {
                write!(f, "was {}; is {}", self.before, self.after)
            }
            (added, removed) if removed.is_empty() => write!(f, "now also {added}"),
            (added, removed) if added.is_empty() => write!(f, "no longer {removed}"),
            (added, removed) => write!(f, "no longer {removed}; now {added}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template_file::TemplateFile;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, path::Path};

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti authority";

    /// The TLV of a template with one line of its own.
    fn tlv(line: &str) -> Vec<u8> {
        let mut keys = BTreeMap::from([
            ("ca-keys", "[5]".to_owned()),
            ("not-before-offset", "\"5m\"".to_owned()),
            ("not-after-offset", "\"10h\"".to_owned()),
            ("timestamp-key", format!("\"{KEY}\"")),
        ]);
        if let Some((key, value)) = line.split_once(" = ") {
            keys.insert(key, value.to_owned());
        }
        let text: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        TemplateFile::parse(&text, Path::new("")).unwrap_or_else(|error| panic!("{text}{error:?}")).to_tlv()
    }

    fn changes(before: &str, after: &str) -> Vec<Change> {
        let (before, after) = (tlv(before), tlv(after));
        diff(&Template::decode(&before).unwrap(), &Template::decode(&after).unwrap())
    }

    /// Each line lets less through than the one before it; an empty line is a template without the rule.
    const STRICTER: [&[&str]; 29] = [
        &["ca-keys = [5, 6]", "ca-keys = [6]"],
        &["not-before-offset = \"unbounded\"", "not-before-offset = \"2s\"", "not-before-offset = \"1s\""],
        &["not-after-offset = \"unbounded\"", "not-after-offset = \"2s\"", "not-after-offset = \"0\""],
        &["", "forbid-principals = [\"root\"]", "forbid-principals = [\"a\", \"root\"]"],
        &["certificate-types = [\"user\", \"host\"]", "certificate-types = [\"host\"]"],
        &[
            "",
            "allow-principals = [\"z*\", \"a\"]",
            "allow-principals = [\"zo*\"]",
            "allow-principals = [\"zone\"]",
        ],
        &[
            "allow-principals = [\"*\"]",
            "allow-principals = [\"*x\"]",
            "allow-principals = [\"*ax\", \"bx\"]",
        ],
        &["", "max-lifetime = \"2h\"", "max-lifetime = \"1h\"", "max-lifetime = \"0\""],
        &["", "max-principals = 2", "max-principals = 1"],
        &["allow-empty-principals = true", ""],
        &["", "allow-extensions = [\"a\", \"b\"]", "allow-extensions = [\"b\"]", "allow-extensions = []"],
        &["", "allow-critical-options = [\"a\"]", "allow-critical-options = []"],
        &["", "require-critical-options = [\"a\"]", "require-critical-options = [\"b\", \"a\"]"],
        &["", "force-command = [\"a\", \"b\"]", "force-command = [\"b\"]"],
        &[
            "",
            "source-address = [\"::/0\", \"10.0.0.0/8\"]",
            "source-address = [\"10.0.0.0/9\", \"10.128.0.0/9\"]",
        ],
        &[
            "",
            "subject-keys = [\"rsa\", \"ed25519\"]",
            "subject-keys = [\"rsa-3072\"]",
            "subject-keys = [\"rsa-4096\"]",
        ],
        &["subject-keys = [\"rsa-3072\", \"ed25519\"]", "subject-keys = [\"ed25519\"]"],
        &["", "key-id = [\"*@a\"]", "key-id = [\"*b@a\"]", "key-id = [\"b@a\"]"],
        &[
            "",
            "serials = { first = 1 }",
            "serials = { first = 1, last = 9 }",
            "serials = { first = 2, last = 9 }",
        ],
        &["serials = {}", "serials = { increasing = true }"],
        &[
            "",
            "signature-algorithms = [\"ssh-ed25519\", \"ssh-rsa\"]",
            "signature-algorithms = [\"ssh-ed25519\"]",
        ],
        &["", "clock = { monotonic = true, tolerance = \"1m\" }", "clock = { monotonic = true }"],
        &[
            "",
            "quota = { signatures = 2, window = \"1m\" }",
            "quota = { signatures = 1, window = \"1m\" }",
            "quota = { signatures = 1, window = \"2m\" }",
        ],
        &["", "presence = { above = \"1m\" }", "presence = { above = \"0\" }", "presence = \"always\""],
        &["", "sealed = true"],
        &["host-patterns = true", ""],
        &[
            "serials = { increasing = true }",
            "serials = { increasing = true, max-step = 9 }",
            "serials = { increasing = true, max-step = 8 }",
        ],
        &[
            "clock = { monotonic = true }",
            "clock = { monotonic = true, max-step = \"2d\" }",
            "clock = { monotonic = true, max-step = \"1d\" }",
        ],
        &[
            "clock = { monotonic = true, max-step = \"1d\" }",
            "clock = { monotonic = true, max-step = \"1d\", since = 2026-03-01T00:00:00Z }",
        ],
    ];

    #[test]
    fn every_rule_is_stricter_one_way_and_looser_the_other() {
        for ladder in STRICTER {
            for (place, above) in ladder.iter().enumerate() {
                assert_eq!(changes(above, above), [], "{above}");
                for below in &ladder[place + 1..] {
                    let line = if below.is_empty() { above } else { below };
                    let rule = line.split(' ').next().unwrap();
                    let rule = match (below.contains("max-step"), rule) {
                        (true, "serials") => "serials-max-step",
                        (true, "clock") => "clock-max-step",
                        _ if line.contains("increasing") => "increasing-serials",
                        (_, rule) => rule,
                    };
                    for (before, after, direction) in
                        [(above, below, Direction::Stricter), (below, above, Direction::Looser)]
                    {
                        let found = changes(before, after);
                        let found: Vec<_> =
                            found.iter().map(|change| (change.rule, change.direction)).collect();
                        assert_eq!(found, [(rule, direction)], "{before} -> {after}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_lets_the_same_through_is_no_change() {
        for (before, after) in [
            ("", "certificate-types = [\"host\", \"user\"]"),
            ("", "allow-principals = [\"a\", \"*\"]"),
            ("allow-principals = [\"a\", \"b\"]", "allow-principals = [\"b\", \"a\"]"),
            ("allow-principals = [\"a*\"]", "allow-principals = [\"a*\", \"ab\"]"),
            ("source-address = [\"10.0.0.0/8\"]", "source-address = [\"10.0.0.0/8\", \"10.1.0.0/16\"]"),
            ("", "serials = { first = 0 }"),
        ] {
            assert_eq!(changes(before, after), [], "{before} {after}");
            assert_eq!(changes(after, before), [], "{before} {after}");
        }
    }

    #[test]
    fn what_is_neither_is_different_and_its_entries_are_told() {
        let told = |before, after| {
            let found = changes(before, after);
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].to_string()
        };
        assert_eq!(
            told("allow-principals = [\"a\", \"b*\"]", "allow-principals = [\"a\", \"c\"]"),
            "different allow-principals: no longer b*; now c"
        );
        assert_eq!(
            told(
                "quota = { signatures = 1, window = \"1m\" }",
                "quota = { signatures = 2, window = \"2m\" }"
            ),
            "different quota: was at most 1 signatures in 1 minute; is at most 2 signatures in 2 minutes"
        );
        assert_eq!(
            told("", "max-lifetime = \"1h\""),
            "stricter  max-lifetime: was as long as the offsets allow; is 1 hour"
        );
        assert_eq!(told("", "forbid-principals = [\"root\"]"), "stricter  forbid-principals: now also root");
        assert_eq!(told("ca-keys = [5, 6]", "ca-keys = [5]"), "stricter  ca-keys: no longer 0x0006");
        let other = format!("timestamp-key = \"{}\"", KEY.replace("ILM+", "ILM/"));
        assert!(told("", &other).starts_with("different timestamp-key: was ed25519 SHA256:"));
        assert!(
            told("subject-keys = [\"rsa\"]", "subject-keys = [\"rsa-3072\", \"ed25519\"]")
                .starts_with("different")
        );
        let since = |day: u8| {
            format!("clock = {{ monotonic = true, max-step = \"1d\", since = 2026-03-0{day}T00:00:00Z }}")
        };
        let [first, second] = [1, 2].map(since);
        assert!(told(&first, &second).starts_with("different clock-max-step: was now goes ahead"));
        assert!(
            told("serials = { last = 9 }", "serials = { first = 5, last = 10 }").starts_with("different")
        );
    }

    proptest! {
        /// A list that is said to be no stricter lets through every name that the other does.
        #[test]
        fn no_direction_is_said_that_a_name_contradicts(
            before in proptest::collection::vec("[ab]{0,2}[*]?", 1..4), after in proptest::collection::vec("[ab]{0,2}[*]?", 1..4),
            name in "[ab]{0,3}",
        ) {
            let line = |patterns: &[String]| {
                let mut seen: Vec<_> = patterns.iter().filter(|pattern| !pattern.is_empty()).collect();
                seen.sort();
                seen.dedup();
                format!("allow-principals = {seen:?}")
            };
            prop_assume!([&before, &after].into_iter().all(|list| list.iter().any(|pattern| !pattern.is_empty())));
            let (one, other) = (line(&before), line(&after));
            let found = changes(&one, &other).first().map(|change| change.direction);
            let (one, other) = (tlv(&one), tlv(&other));
            let passes = |tlv: &[u8]| {
                Template::decode(tlv).unwrap().rules.allow_principals.unwrap().matches(name.as_bytes())
            };
            match (passes(&one), passes(&other)) {
                (true, false) => prop_assert!(matches!(found, Some(Direction::Stricter | Direction::Different))),
                (false, true) => prop_assert!(matches!(found, Some(Direction::Looser | Direction::Different))),
                _ => {}
            }
        }
    }
}
