//! What became stricter or looser from one template to another, rule by rule.
//!
//! Rules are compared by what they allow: a pattern that another covers, a network inside another, and a list
//! in a different order count as no change, or a change in that direction. The combined effect of two rules
//! is not compared.

use serde::Serialize;
use sshsm_protocol::ssh::{rules::RuleTag, template::Template};

use super::{base::BasePart, compare::Within, rules};

/// The effect of a change on the requests that pass.
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
    /// The effect of the change.
    pub direction: Direction,
    /// The earlier value, in words.
    pub before: String,
    /// The later value, in words.
    pub after: String,
    /// Entries of its list that came.
    pub added: Vec<String>,
    /// Entries of its list that went.
    pub removed: Vec<String>,
}

/// What changed between two templates: the parts that all have, and then the rules by their tags.
#[must_use]
pub fn diff(before: &Template<'_>, after: &Template<'_>) -> Vec<Change> {
    let templates = [before, after];
    let base = BasePart::ALL.into_iter().filter_map(|part| {
        let direction = Direction::of(part.compare(before, after))?;
        let words = templates.map(|template| part.words(template));
        Some(Change::new(part.key(), direction, words, templates.map(|template| part.entries(template))))
    });
    let rules = RuleTag::ALL.into_iter().filter_map(|tag| {
        let rule = rules::of(tag);
        let direction = Direction::of(rule.compare(&before.rules, &after.rules))?;
        let words =
            |template: &Template<'_>| rule.words(&template.rules).unwrap_or_else(|| rule.absent().to_owned());
        let entries = templates.map(|template| rule.entries(&template.rules));
        Some(Change::new(tag.name(), direction, templates.map(words), entries))
    });
    base.chain(rules).collect()
}

impl Direction {
    /// `None` if both allow the same.
    const fn of(within: Within) -> Option<Self> {
        match within {
            (true, true) => None,
            (true, false) => Some(Self::Looser),
            (false, true) => Some(Self::Stricter),
            (false, false) => Some(Self::Different),
        }
    }
}

impl Change {
    /// The change with the entries added and removed, if the rule is a list on both sides.
    fn new(
        rule: &'static str,
        direction: Direction,
        [before, after]: [String; 2],
        entries: [Option<Vec<String>>; 2],
    ) -> Self {
        let [added, removed] = match &entries {
            [Some(old), Some(new)] => [(new, old), (old, new)]
                .map(|(of, without)| of.iter().filter(|entry| !without.contains(entry)).cloned().collect()),
            [None, _] | [_, None] => [Vec::new(), Vec::new()],
        };
        Self { rule, direction, before, after, added, removed }
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
    use crate::template::file::TemplateFile;
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
        /// A list that is reported as no stricter allows every name that the other does.
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
