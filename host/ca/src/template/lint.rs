//! What a careful reviewer would question in a template before a key depends on it.
//!
//! Every [`Lint`] has a permanent name, a severity that goes with the name, a reason, and advice. The
//! template is reviewed in the form that a device would read, so that templates in TOML, in TLV and on a
//! device get the same findings.

use serde::Serialize;
use sshsm_protocol::ssh::{rules::RuleTag, template::Template};

use super::{base::BasePart, lints::Reviewed, rules};

pub use super::lints::{Lint, Severity};

/// A finding about a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The lint.
    pub id: Lint,
    /// How bad it is.
    pub severity: Severity,
    /// The key in template files that it is about.
    pub rule: &'static str,
    /// Why.
    pub message: String,
    /// What to write instead.
    pub advice: String,
}

impl std::fmt::Display for Finding {
    /// Two lines, the second without a newline: severity, name, rule and reason, and then what to write instead.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, severity, rule, message, advice } = self;
        write!(f, "{:<8} {}: {rule}: {message}\n         instead: {advice}", severity.name(), id.id())
    }
}

/// The findings about a template, the worst first, and then in the order of its parts. `last_serial` is the
/// serial number of the last signature under it, if known.
#[must_use]
pub fn lint(template: &Template<'_>, last_serial: Option<u64>) -> Vec<Finding> {
    let reviewed = Reviewed { template, last_serial };
    let mut findings = Vec::new();
    let mut say = |id: Lint, rule, message: String, advice: &str| {
        findings.push(Finding { id, severity: id.severity(), rule, message, advice: advice.to_owned() });
    };
    for part in BasePart::ALL {
        part.lint(&reviewed, &mut say);
    }
    for tag in RuleTag::ALL {
        rules::of(tag).lint(&reviewed, &mut say);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::file::TemplateFile;
    use std::path::Path;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti authority";

    /// A template with these has no findings.
    const GOOD: [(&str, &str); 12] = [
        ("ca-keys", "[5]"),
        ("not-before-offset", "\"5m\""),
        ("not-after-offset", "\"10h\""),
        ("certificate-types", "[\"user\"]"),
        ("allow-principals", "[\"zone-*\"]"),
        ("max-lifetime", "\"8h\""),
        ("allow-extensions", "[\"permit-pty\"]"),
        ("subject-keys", "[\"ed25519\", \"rsa-3072\"]"),
        ("signature-algorithms", "[\"ssh-ed25519\"]"),
        ("sealed", "true"),
        ("clock", "{ monotonic = true, max-step = \"90d\", since = 2026-03-01T00:00:00Z }"),
        ("quota", "{ signatures = 5, window = \"1h\" }"),
    ];

    /// The findings about [`GOOD`] with changes: keys with other values, or with none.
    fn said(
        changes: &[(&str, &str)],
        last_serial: Option<u64>,
    ) -> Vec<(&'static str, Severity, &'static str)> {
        let changed = |key: &str| changes.iter().any(|(other, _)| *other == key);
        let kept = GOOD.iter().filter(|(key, _)| !changed(key)).chain(changes);
        let lines =
            kept.filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key} = {value}\n"));
        let text = format!("timestamp-key = \"{KEY}\"\n{}", lines.collect::<String>());
        let tlv = TemplateFile::parse(&text, Path::new("")).unwrap_or_else(|error| panic!("{text}{error:?}"));
        let tlv = tlv.to_tlv();
        let found = lint(&Template::decode(&tlv).unwrap(), last_serial);
        assert!(found.iter().all(|finding| !finding.message.is_empty() && !finding.advice.is_empty()));
        found.into_iter().map(|finding| (finding.id.id(), finding.severity, finding.rule)).collect()
    }

    #[test]
    fn each_flaw_is_found_and_nothing_else() {
        use Severity::{Error, Note, Warning};
        assert_eq!(said(&[], None), []);
        let unbounded = "\"unbounded\"";
        let long = [("not-after-offset", "\"2d\""), ("max-lifetime", "\"2d\""), ("presence", "\"always\"")];
        let source = ("source-address", "[\"10.0.0.0/8\"]");
        let required = ("require-critical-options", "[\"source-address\"]");
        for (changes, findings) in [
            (
                vec![
                    ("max-lifetime", ""),
                    ("presence", "\"always\""),
                    source,
                    required,
                    ("not-before-offset", unbounded),
                ],
                vec![
                    ("lasts-for-ever", Error, "max-lifetime"),
                    ("unbounded-start", Warning, "not-before-offset"),
                ],
            ),
            (vec![("not-after-offset", unbounded)], vec![("unbounded-end", Warning, "not-after-offset")]),
            (
                vec![("not-after-offset", "\"0\""), ("max-lifetime", "\"1m\"")],
                vec![("never-valid", Error, "not-after-offset")],
            ),
            (vec![("max-lifetime", "\"0\"")], vec![("never-valid", Error, "max-lifetime")]),
            (
                vec![("max-lifetime", "\"10h5m\"")],
                vec![("max-lifetime-without-effect", Note, "max-lifetime")],
            ),
            (vec![("max-lifetime", "\"10h4m59s\"")], vec![]),
            (vec![("allow-principals", "")], vec![("deny-list-only", Warning, "allow-principals")]),
            (vec![("allow-principals", "[\"r*\"]")], vec![("matches-root", Warning, "allow-principals")]),
            (vec![("allow-principals", "[\"*t\"]"), ("forbid-principals", "[\"root\"]")], vec![]),
            (vec![("allow-principals", "[\"root\"]")], vec![]),
            (
                vec![("allow-principals", "[\"*\"]"), ("forbid-principals", "[\"root\"]")],
                vec![("matches-anybody", Warning, "allow-principals")],
            ),
            (
                vec![("forbid-principals", "[\"root\", \"zone-a\"]")],
                vec![("forbidden-anyway", Note, "forbid-principals")],
            ),
            (
                vec![("allow-empty-principals", "true")],
                vec![("empty-principals", Warning, "allow-empty-principals")],
            ),
            (
                vec![("certificate-types", "[\"user\", \"host\"]")],
                vec![("any-certificate-type", Warning, "certificate-types")],
            ),
            (vec![("certificate-types", "")], vec![("any-certificate-type", Warning, "certificate-types")]),
            (long.to_vec(), vec![("long-without-source-address", Warning, "source-address")]),
            ([&long[..], &[source, required]].concat(), vec![]),
            ([&long[..2], &[source, required]].concat(), vec![("long-without-presence", Note, "presence")]),
            (vec![("not-after-offset", "\"2d\""), ("max-lifetime", "\"1d\"")], vec![]),
            (vec![("presence", "{ above = \"10h\" }")], vec![("presence-never-asked", Warning, "presence")]),
            // One that lasts 8 hours can be dated ahead.
            (vec![("presence", "{ above = \"8h\" }")], vec![]),
            (
                vec![("presence", "{ above = \"8h\" }"), ("not-after-offset", "\"8h\"")],
                vec![("presence-never-asked", Warning, "presence")],
            ),
            (vec![("presence", "{ above = \"7h\" }"), ("not-after-offset", "\"8h\"")], vec![]),
            (vec![source], vec![("optional-source-address", Warning, "source-address")]),
            (vec![required], vec![("any-source-address", Warning, "source-address")]),
            (
                vec![("source-address", "[\"10.0.0.0/8\", \"::/0\"]"), required],
                vec![("any-source-address", Warning, "source-address")],
            ),
            (vec![("force-command", "[\"x\"]")], vec![("optional-force-command", Warning, "force-command")]),
            (
                vec![("require-critical-options", "[\"force-command\"]")],
                vec![("any-force-command", Warning, "force-command")],
            ),
            (vec![("subject-keys", "")], vec![("short-rsa-subject", Warning, "subject-keys")]),
            (vec![("subject-keys", "[\"rsa\"]")], vec![("short-rsa-subject", Warning, "subject-keys")]),
            (vec![("subject-keys", "[\"rsa-3071\"]")], vec![("short-rsa-subject", Warning, "subject-keys")]),
            (vec![("subject-keys", "[\"ed25519\"]")], vec![]),
            (
                vec![("signature-algorithms", "[\"ssh-rsa\"]")],
                vec![("sha1-signature", Warning, "signature-algorithms")],
            ),
            (
                vec![("signature-algorithms", "")],
                vec![("any-signature-algorithm", Note, "signature-algorithms")],
            ),
            (
                vec![("allow-extensions", "[\"permit-everything\"]")],
                vec![("unknown-extension", Warning, "allow-extensions")],
            ),
            (vec![("allow-extensions", "[\"login@example.com\"]")], vec![]),
            (vec![("allow-extensions", "")], vec![("any-extension", Note, "allow-extensions")]),
            (vec![("allow-extensions", "[\"no-touch-required\"]")], vec![]),
            (
                vec![("allow-extensions", "[\"no-touch-required\"]"), ("subject-keys", "[\"sk-ed25519\"]")],
                vec![("no-touch-required", Note, "allow-extensions")],
            ),
            (
                vec![("allow-critical-options", "[\"x\"]")],
                vec![("unknown-critical-option", Warning, "allow-critical-options")],
            ),
            (
                vec![("certificate-types", "[\"host\"]")],
                vec![("useless-for-hosts", Warning, "allow-extensions")],
            ),
            (vec![("certificate-types", "[\"host\"]"), ("allow-extensions", "[]")], vec![]),
            (vec![("clock", "")], vec![("quota-without-clock", Warning, "quota")]),
            (
                vec![("clock", ""), ("quota", ""), ("serials", "{ increasing = true, max-step = 9 }")],
                vec![("serials-without-clock", Note, "serials")],
            ),
            (vec![("serials", "{ increasing = true }")], vec![("serials-without-step", Warning, "serials")]),
            (vec![("clock", "{ monotonic = true }")], vec![("clock-without-step", Warning, "clock")]),
            (
                vec![("clock", "{ monotonic = true, max-step = \"90d\" }")],
                vec![("clock-without-start", Note, "clock")],
            ),
            (
                vec![("serials", "{ first = 1, last = 999, increasing = true, max-step = 9 }")],
                vec![("few-serials", Warning, "serials")],
            ),
            (vec![("serials", "{ first = 1, last = 1000, increasing = true, max-step = 9 }")], vec![]),
            (vec![("host-patterns", "true")], vec![("useless-for-users", Warning, "host-patterns")]),
            (
                vec![
                    ("host-patterns", "true"),
                    ("certificate-types", "[\"host\"]"),
                    ("allow-extensions", "[]"),
                ],
                vec![("host-patterns", Warning, "host-patterns")],
            ),
            (
                vec![("forbid-principals", "[\"zone-?\"]")],
                vec![("forbids-literally", Warning, "forbid-principals")],
            ),
            (vec![("serials", "{ first = 1, last = 5 }")], vec![]),
            (vec![("sealed", "")], vec![("not-sealed", Note, "sealed")]),
        ] {
            let found = said(&changes, None);
            let found: Vec<_> = found.iter().map(|(id, severity, rule)| (*id, *severity, *rule)).collect();
            assert_eq!(found, findings, "{changes:?}");
        }
    }

    #[test]
    fn a_range_is_exhausted_when_its_last_number_is_used() {
        let serials = ("serials", "{ first = 1, last = 5000, increasing = true, max-step = 9 }");
        let ids = |used| said(&[serials], Some(used));
        let ids = |used| ids(used).into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
        assert_eq!(ids(0), [""; 0]);
        assert_eq!(ids(4000), [""; 0]);
        assert_eq!(ids(4001), ["few-serials"]);
        assert_eq!(ids(4999), ["few-serials"]);
        assert_eq!(ids(5000), ["serials-exhausted"]);
        assert_eq!(ids(u64::MAX), ["serials-exhausted"]);
    }

    #[test]
    fn the_worst_stands_first_and_each_lint_has_a_name_of_its_own() {
        let all = said(&[("sealed", ""), ("max-lifetime", "\"0\""), ("clock", "")], None);
        assert!(all.is_sorted_by(|one, other| one.1 >= other.1) && all.len() == 3, "{all:?}");
        let ids: std::collections::BTreeSet<_> = Lint::ALL.iter().map(|lint| lint.id()).collect();
        assert_eq!(ids.len(), Lint::ALL.len());
        for lint in Lint::ALL {
            assert_eq!(serde_json::to_value(lint).unwrap(), lint.id());
        }
    }

    /// Findings possible only for a template that was not compiled here.
    #[test]
    fn templates_in_the_device_s_form_are_told_what_can_never_work() {
        let text = format!(
            "ca-keys = [5]\nnot-before-offset = \"5m\"\nnot-after-offset = \"8h\"\ntimestamp-key = \"{KEY}\"\n\
             forbid-principals = [\"ab\"]"
        );
        let tlv = TemplateFile::parse(&text, Path::new("")).unwrap().to_tlv();
        let changed = |from: &[u8], to: &[u8]| {
            let at = tlv.windows(from.len()).position(|window| window == from).unwrap();
            let tlv = [&tlv[..at], to, &tlv[at + from.len()..]].concat();
            let found = lint(&Template::decode(&tlv).unwrap(), None);
            found.into_iter().map(|finding| finding.id).collect::<Vec<_>>()
        };
        assert!(changed(&[3, 0, 2, 0, 5], &[3, 0, 0]).contains(&Lint::NoCaKey));
        assert!(changed(&[3, 0, 2, 0, 5], &[3, 0, 2, 0, 0]).contains(&Lint::NoCaKey));
        assert!(changed(b"ab\0", b"a,\0").contains(&Lint::ForbidsNobody));
        assert!(changed(b"ab\0", b"a\0\0").contains(&Lint::ForbidsNobody));
    }
}
