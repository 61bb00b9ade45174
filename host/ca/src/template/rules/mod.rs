//! A template's rules beyond YubiHSM 2's: everything that this crate knows about each is one implementation
//! of `HostRule`.
//!
//! As people write them:
//!
//! | key | value |
//! |---|---|
//! | `certificate-types` | `["user"]`, `["host"]` or both |
//! | `allow-principals`, `key-id` | patterns: literal, or one `*` at the beginning or the end; `\*` and `\\` are literal |
//! | `max-lifetime` | span of time |
//! | `max-principals` | 1 to 65535 |
//! | `allow-empty-principals`, `sealed`, `host-patterns` | `true` |
//! | `allow-extensions`, `allow-critical-options`, `require-critical-options` | names |
//! | `force-command` | the commands that may be forced |
//! | `source-address` | networks |
//! | `subject-keys` | `rsa`, `rsa-3072` (at least this many bits), `ecdsa-p256`, `ecdsa-p384`, `ecdsa-p521`, `ed25519`, `sk-ecdsa-p256`, `sk-ed25519` |
//! | `serials` | `{ first = 1, last = 1000, increasing = true, max-step = 100 }`, each of them optional |
//! | `signature-algorithms` | SSH's names |
//! | `clock` | `{ monotonic = true, tolerance = "1m", max-step = "30d", since = 2026-03-01T00:00:00Z }` |
//! | `quota` | `{ signatures = 10, window = "1h" }` |
//! | `presence` | `"always"`, or `{ above = "8h" }` |

use serde::Deserialize;
use sshsm_protocol::ssh::rules::{RuleTag, Rules};
use toml::Spanned;

use super::{
    compare::Within,
    lints::{Reviewed, Say},
    problem::{Mistake, Problem, bound},
};

mod keys;
mod lifetime;
mod memory;
mod options;
mod principals;

pub(crate) use keys::{signature_algorithm, subject_kind};

/// A list in a template file.
pub(super) type Entries = Option<Spanned<Vec<Spanned<String>>>>;

/// A template file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Text {
    pub(super) ca_keys: Spanned<Vec<Spanned<i64>>>,
    pub(super) not_before_offset: Spanned<String>,
    pub(super) not_after_offset: Spanned<String>,
    #[serde(default)]
    pub(super) forbid_principals: Vec<Spanned<String>>,
    pub(super) timestamp_key: Spanned<String>,
    certificate_types: Entries,
    allow_principals: Entries,
    max_lifetime: Option<Spanned<String>>,
    max_principals: Option<Spanned<i64>>,
    allow_empty_principals: Option<Spanned<bool>>,
    allow_extensions: Entries,
    allow_critical_options: Entries,
    require_critical_options: Entries,
    force_command: Entries,
    source_address: Entries,
    subject_keys: Entries,
    key_id: Entries,
    serials: Option<Spanned<memory::SerialsText>>,
    signature_algorithms: Entries,
    clock: Option<Spanned<memory::ClockText>>,
    quota: Option<Spanned<memory::QuotaText>>,
    presence: Option<Spanned<lifetime::PresenceText>>,
    sealed: Option<Spanned<bool>>,
    host_patterns: Option<Spanned<bool>>,
}

/// A rule in the device's form, and its position in the text.
pub(super) struct Compiled {
    pub(super) place: usize,
    pub(super) tag: RuleTag,
    pub(super) value: Vec<u8>,
}

/// The value of a rule in the device's form, and its position in the text, in bytes from the beginning of the
/// file; `None` if the text does not have the rule.
type Parsed = Result<Option<(usize, Vec<u8>)>, Mistake>;

/// A rule, as this crate knows it.
pub(super) trait HostRule: Sync {
    /// Compiles it. What contradicts another rule is found when the template is read back.
    fn parse(&self, text: &Text) -> Parsed;

    /// Its value, in words; `None` for a template without it.
    fn words(&self, rules: &Rules<'_>) -> Option<String>;

    /// The description of a template without it.
    fn absent(&self) -> &'static str;

    /// Which of two templates lets more through by it.
    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within;

    /// The entries of its list, if the template has it and its entries can be listed one by one.
    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>>;

    /// What a careful reviewer would question about it, including its absence.
    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>);
}

macro_rules! host_rules {
    ($($group:ident: $($rule:ident)+;)*) => {
        /// What this crate knows of a rule.
        pub(super) const fn of(tag: RuleTag) -> &'static dyn HostRule {
            match tag { $($(RuleTag::$rule => &$group::$rule,)+)* }
        }
    };
}

host_rules! {
    principals: CertificateTypes AllowPrincipals MaxPrincipals AllowEmptyPrincipals KeyId HostPatterns;
    options: AllowExtensions AllowCriticalOptions RequireCriticalOptions ForceCommand SourceAddress;
    keys: SubjectKeys SignatureAlgorithms;
    lifetime: MaxLifetime Presence;
    memory: Serials IncreasingSerials SerialsMaxStep Clock ClockMaxStep Quota Sealed;
}

/// The rules that a text has, in ascending order of their tags.
pub(super) fn compile(text: &Text) -> Result<Vec<Compiled>, Mistake> {
    let compiled = RuleTag::ALL.into_iter().filter_map(|tag| {
        let parsed = of(tag).parse(text).transpose()?;
        Some(parsed.map(|(place, value)| Compiled { place, tag, value }))
    });
    compiled.collect()
}

/// The rules, as the TOML names them and in words; absent rules are left out.
#[must_use]
pub fn describe(rules: &Rules<'_>) -> Vec<(&'static str, String)> {
    let words = |tag: RuleTag| of(tag).words(rules).map(|words| (tag.name(), words));
    RuleTag::ALL.into_iter().filter_map(words).collect()
}

/// A list's value: that of its entries, one after another; each entry once.
fn list(entries: &Entries, value: impl Fn(&str) -> Result<Vec<u8>, Problem>) -> Parsed {
    let Some(entries) = entries else { return Ok(None) };
    let mut seen = std::collections::BTreeSet::new();
    let mut bytes = Vec::new();
    for entry in entries.get_ref() {
        let (place, text) = (entry.span().start, entry.get_ref().as_str());
        if !seen.insert(text) {
            return Err((place, Problem::Twice(text.to_owned())));
        }
        bytes.extend(value(text).map_err(|problem| (place, problem))?);
    }
    Ok(Some((entries.span().start, bytes)))
}

/// A list of names, each followed by a NUL.
fn names(entries: &Entries) -> Parsed {
    list(entries, |text| {
        if text.is_empty() || text.contains('\0') { Err(Problem::Name) } else { Ok(terminated(text)) }
    })
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// A rule without a value, which is there when it is `true`.
fn flag(flag: &Option<Spanned<bool>>) -> Parsed {
    let set = flag.as_ref().filter(|flag| *flag.get_ref());
    Ok(set.map(|flag| (flag.span().start, Vec::new())))
}

/// A span of time as u32 seconds.
fn span(name: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    match bound(name, text, u32::MAX)? {
        Some(seconds) => Ok(seconds.to_be_bytes().to_vec()),
        None => Err(Problem::NoRule { name }),
    }
}

fn seconds(name: &'static str, text: &Spanned<String>) -> Result<Vec<u8>, Mistake> {
    span(name, text.get_ref()).map_err(|problem| (text.span().start, problem))
}

/// A number from `least` to `most`.
fn number(name: &'static str, number: &Spanned<i64>, least: u64, most: u64) -> Result<u64, Mistake> {
    let value = u64::try_from(*number.get_ref()).ok().filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| (number.span().start, Problem::Range { name, least, most }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::file::{TemplateFile, TemplateTextError};
    use sshsm_protocol::ssh::template::Template;
    use std::{error::Error, path::Path};

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti authority";

    /// A template with these rules, which begin in line 5.
    fn read(rules: &str) -> Result<TemplateFile, TemplateTextError> {
        let text = format!(
            "ca-keys = [5]\nnot-before-offset = \"5m\"\nnot-after-offset = \"10h\"\ntimestamp-key = \"{KEY}\"\n{rules}"
        );
        TemplateFile::parse(&text, Path::new(""))
    }

    /// The extension tags that the rules compile to.
    fn tags(rules: &str) -> Vec<u8> {
        let plain = read("").unwrap().to_tlv();
        read(rules).unwrap_or_else(|error| panic!("{rules}: {error:?}")).to_tlv().split_off(plain.len())
    }

    #[test]
    fn every_rule_compiles_to_its_tag_and_is_told_in_words() {
        for (rule, tag, words) in [
            ("certificate-types = [\"user\"]", &[0x80, 0, 1, 1][..], "user"),
            ("certificate-types = [\"host\", \"user\"]", &[0x80, 0, 1, 3], "user, host"),
            ("allow-principals = [\"zone-*\", \"a\\\\*\"]", b"\x81\0\x0bzone-*\0a\\*\0", "zone-*, a\\\\*"),
            ("max-lifetime = \"1h\"", &[0x82, 0, 4, 0, 0, 0x0e, 0x10], "1 hour"),
            ("max-principals = 258", &[0x83, 0, 2, 1, 2], "258"),
            ("allow-empty-principals = true", &[0x84, 0, 0], "MAY HAVE NO PRINCIPALS"),
            ("allow-extensions = []", &[0x85, 0, 0], "none"),
            ("allow-extensions = [\"permit-pty\"]", b"\x85\0\x0bpermit-pty\0", "permit-pty"),
            ("allow-critical-options = [\"x\"]", b"\x86\0\x02x\0", "x"),
            ("require-critical-options = [\"x\", \"y\"]", b"\x87\0\x04x\0y\0", "x, y"),
            ("force-command = [\"/bin/true\"]", b"\x88\0\x0a/bin/true\0", "/bin/true"),
            ("source-address = [\"10.0.0.0/8\"]", &[0x89, 0, 6, 4, 8, 10, 0, 0, 0], "10.0.0.0/8"),
            (
                "subject-keys = [\"ed25519\", \"rsa-3072\"]",
                &[0x8a, 0, 4, 0x0c, 0, 5, 1],
                "ed25519, rsa; RSA of at least 3072 bits",
            ),
            ("key-id = [\"*@a\"]", b"\x8b\0\x04*@a\0", "*@a"),
            (
                "serials = { first = 1 }",
                &[0x8c, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255],
                "1 to 18446744073709551615",
            ),
            ("serials = { increasing = true }", &[0x8d, 0, 0], "each greater"),
            (
                "signature-algorithms = [\"ssh-ed25519\", \"rsa-sha2-512\"]",
                &[0x8e, 0, 2, 46, 4],
                "ssh-ed25519, rsa-sha2-512",
            ),
            (
                "clock = { monotonic = true, tolerance = \"1m\" }",
                &[0x8f, 0, 4, 0, 0, 0, 60],
                "no more than 1 minute",
            ),
            (
                "quota = { signatures = 10, window = \"1m\" }",
                &[0x90, 0, 5, 10, 0, 0, 0, 60],
                "at most 10 signatures in 1 minute",
            ),
            ("presence = \"always\"", &[0x91, 0, 0], "every signature"),
            ("presence = { above = \"1m\" }", &[0x91, 0, 4, 0, 0, 0, 60], "more than 1 minute"),
            ("sealed = true", &[0x92, 0, 0], "whole device"),
            ("host-patterns = true", &[0x97, 0, 0], "MANY HOSTS"),
        ] {
            let compiled = tags(rule);
            assert_eq!(compiled, tag, "{rule}");
            let tlv = read(rule).unwrap().to_tlv();
            let told = describe(&Template::decode(&tlv).unwrap().rules);
            assert!(matches!(told.as_slice(), [(_, told)] if told.contains(words)), "{rule}: {told:?}");
        }
        for none in [
            "allow-empty-principals = false",
            "sealed = false",
            "host-patterns = false",
            "serials = {}",
            "clock = { monotonic = false }",
        ] {
            assert!(tags(none).is_empty(), "{none}");
        }
        for (rule, tags_of, words) in [
            (
                "serials = { increasing = true, max-step = 1000 }",
                &[0x8d, 0, 0, 0x98, 0, 8, 0, 0, 0, 0, 0, 0, 3, 0xe8][..],
                "each at most 1000 greater than the last",
            ),
            (
                "clock = { monotonic = true, max-step = \"1h\" }",
                &[0x8f, 0, 4, 0, 0, 0, 0, 0x99, 0, 4, 0, 0, 0x0e, 0x10],
                "now goes ahead by no more than 1 hour; the first may be any",
            ),
            (
                "clock = { monotonic = true, max-step = \"1h\", since = 2023-11-14T23:13:20+01:00 }",
                &[0x8f, 0, 4, 0, 0, 0, 0, 0x99, 0, 8, 0, 0, 0x0e, 0x10, 0x65, 0x53, 0xf1, 0],
                "now goes ahead by no more than 1 hour; the first from 2023-11-14T22:13:20Z on",
            ),
        ] {
            assert_eq!(tags(rule), tags_of, "{rule}");
            let tlv = read(rule).unwrap().to_tlv();
            let told = describe(&Template::decode(&tlv).unwrap().rules);
            assert!(matches!(told.as_slice(), [_, (_, told)] if told == words), "{rule}: {told:?}");
        }
        let both =
            tags("sealed = true\nmax-principals = 1\nserials = { first = 2, last = 3, increasing = true }");
        let order: Vec<u8> = [both[0], both[5], both[24], both[27]].to_vec();
        assert_eq!(order, [0x83, 0x8c, 0x8d, 0x92]);
    }

    #[test]
    fn mistakes_are_found_where_they_stand() {
        for (rule, column, reason) in [
            ("certificate-types = [\"users\"]", 22, "known are user, host"),
            ("certificate-types = []", 21, "has no meaning there"),
            ("allow-principals = []", 20, "empty"),
            ("allow-principals = [\"a\", \"a*b\"]", 26, "neither its first nor its last"),
            ("allow-principals = [\"a\", \"a\"]", 26, "occurs twice"),
            ("allow-principals = [\"a\\\\b\"]", 21, "followed by neither"),
            ("max-lifetime = \"unbounded\"", 16, "leave the rule out"),
            ("max-lifetime = \"1x\"", 16, "unknown unit"),
            ("max-principals = 0", 18, "from 1 to 65535"),
            ("allow-extensions = [\"\"]", 21, "empty"),
            ("force-command = []", 17, "empty"),
            ("source-address = [\"10.0.0.1/8\"]", 19, "after its prefix"),
            ("source-address = [\"10.0.0.0/33\"]", 19, "longer than the address"),
            ("subject-keys = [\"dsa\"]", 17, "known are rsa, "),
            ("subject-keys = [\"rsa\", \"rsa-2048\"]", 24, "occurs twice"),
            ("subject-keys = [\"rsa-x\"]", 17, "known are rsa, "),
            ("key-id = [\"**\"]", 11, "two of them"),
            ("serials = { first = -1 }", 21, "from 0 to"),
            ("serials = { first = 2, last = 1 }", 11, "before the first"),
            ("signature-algorithms = [\"ssh-dss\"]", 25, "known are"),
            ("clock = { monotonic = true, tolerance = \"x\" }", 41, "tolerance"),
            ("quota = { signatures = 65, window = \"1m\" }", 24, "from 1 to 64"),
            ("quota = { signatures = 1, window = \"0\" }", 9, "0 would allow nothing"),
            ("presence = \"never\"", 12, "always"),
            ("serials = { increasing = true, max-step = 0 }", 43, "from 1 to"),
            ("serials = { max-step = 5 }", 24, "increasing-serials, which the template does not have"),
            ("clock = { monotonic = true, max-step = \"0\" }", 40, "0 would allow nothing"),
            ("clock = { monotonic = false, max-step = \"1d\" }", 41, "of clock, which the template does not"),
            ("clock = { monotonic = true, since = 2026-03-01T00:00:00Z }", 37, "set max-step, too"),
            ("clock = { monotonic = true, max-step = \"1d\", since = 2026-03-01 }", 54, "in UTC from 1970"),
            ("clock = { monotonic = true, max-step = \"1d\", since = 2106-03-01T00:00:00Z }", 54, "to 2106"),
            ("allow-critical-options = []\nforce-command = [\"a\"]", 17, "does not allow"),
        ] {
            let (line, found, problem) = match read(rule).unwrap_err() {
                TemplateTextError::Value { line, column, problem } => (line, column, problem),
                other => panic!("{rule}: {other:?}"),
            };
            let reasons: Vec<_> =
                std::iter::successors(Some(&problem as &dyn Error), |&error| error.source())
                    .map(ToString::to_string)
                    .collect();
            let last = rule.lines().count() + 4;
            assert_eq!((line, found), (last, column), "{rule}: {reasons:?}");
            assert!(reasons.join(": ").contains(reason), "{rule}: {reasons:?}");
        }
        for rule in [
            "quota = { signatures = 1 }",
            "clock = { tolerance = \"1m\" }",
            "presence = { below = \"1m\" }",
            "max-principals = \"1\"",
            "serials = { from = 1 }",
        ] {
            assert!(matches!(read(rule), Err(TemplateTextError::Syntax(_))), "{rule}");
        }
    }
}
