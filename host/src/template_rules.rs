//! A template's rules beyond YubiHSM 2's, as people write them: the TOML of the extension tags, and back in words.
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
//! | `subject-keys` | `rsa`, `rsa-3072` (at least so many bits), `ecdsa-p256`, `ecdsa-p384`, `ecdsa-p521`, `ed25519`, `sk-ecdsa-p256`, `sk-ed25519` |
//! | `serials` | `{ first = 1, last = 1000, increasing = true, max-step = 100 }`, each of them if it is meant |
//! | `signature-algorithms` | SSH's names |
//! | `clock` | `{ monotonic = true, tolerance = "1m", max-step = "30d", since = 2026-03-01T00:00:00Z }` |
//! | `quota` | `{ signatures = 10, window = "1h" }` |
//! | `presence` | `"always"`, or `{ above = "8h" }` |

use serde::Deserialize;
use sshsm_firmware::ssh::policy::Value;
use sshsm_protocol::{
    Algorithm,
    ssh::{
        network::Network,
        pattern::Pattern,
        request::SubjectKind,
        rules::{ClockStep, MAX_QUOTA, Presence, RuleTag, Rules},
        signature::SignatureAlgorithm,
    },
};
use toml::Spanned;

use crate::{
    duration,
    template_file::{Problem, bound},
};

type Entries = Option<Spanned<Vec<Spanned<String>>>>;

/// The keys of a template file that are extension tags.
#[derive(Debug, Default)]
pub(crate) struct RulesText {
    pub(crate) certificate_types: Entries,
    pub(crate) allow_principals: Entries,
    pub(crate) max_lifetime: Option<Spanned<String>>,
    pub(crate) max_principals: Option<Spanned<i64>>,
    pub(crate) allow_empty_principals: Option<Spanned<bool>>,
    pub(crate) allow_extensions: Entries,
    pub(crate) allow_critical_options: Entries,
    pub(crate) require_critical_options: Entries,
    pub(crate) force_command: Entries,
    pub(crate) source_address: Entries,
    pub(crate) subject_keys: Entries,
    pub(crate) key_id: Entries,
    pub(crate) serials: Option<Spanned<SerialsText>>,
    pub(crate) signature_algorithms: Entries,
    pub(crate) clock: Option<Spanned<ClockText>>,
    pub(crate) quota: Option<Spanned<QuotaText>>,
    pub(crate) presence: Option<Spanned<PresenceText>>,
    pub(crate) sealed: Option<Spanned<bool>>,
    pub(crate) host_patterns: Option<Spanned<bool>>,
}

/// `serials`.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { first = 1, last = 999, increasing = true, max-step = 100 }"
)]
pub(crate) struct SerialsText {
    first: Option<Spanned<i64>>,
    last: Option<Spanned<i64>>,
    #[serde(default)]
    increasing: bool,
    max_step: Option<Spanned<i64>>,
}

/// `clock`.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table such as { monotonic = true, tolerance = \"1m\", max-step = \"30d\" }"
)]
pub(crate) struct ClockText {
    monotonic: bool,
    tolerance: Option<Spanned<String>>,
    max_step: Option<Spanned<String>>,
    since: Option<Spanned<toml::value::Datetime>>,
}

/// `quota`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { signatures = 10, window = \"1h\" }")]
pub(crate) struct QuotaText {
    signatures: Spanned<i64>,
    window: Spanned<String>,
}

/// `presence`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "presence is \"always\" or a table such as { above = \"1h\" }")]
pub(crate) enum PresenceText {
    Word(String),
    Above { above: String },
}

/// A mistake and where it stands, in bytes from the beginning of the file.
type Mistake = (usize, Problem);

/// An extension tag, and its value in the device's form.
pub(crate) type Rule = (RuleTag, Vec<u8>);

impl RulesText {
    /// The tags, in ascending order, each with where it stands in the text. What contradicts another rule is found when the
    /// template is read back.
    pub(crate) fn compile(self) -> Result<Vec<(usize, Rule)>, Mistake> {
        let mut rules = Vec::new();
        let mut add = |tag, place: usize, value| rules.push((place, (tag, value)));
        if let Some(types) = self.certificate_types {
            let bits = each(&types, |name| match name {
                "user" => Ok(vec![1]),
                "host" => Ok(vec![2]),
                other => Err(Problem::Unknown { name: other.to_owned(), known: "user, host".into() }),
            })?;
            add(
                RuleTag::CertificateTypes,
                types.span().start,
                vec![bits.into_iter().fold(0, |all, bit| all | bit)],
            );
        }
        for (tag, patterns) in
            [(RuleTag::AllowPrincipals, &self.allow_principals), (RuleTag::KeyId, &self.key_id)]
        {
            if let Some(patterns) = patterns {
                let pattern = |text: &str| {
                    Pattern::new(text.as_bytes())
                        .map(|_| terminated(text))
                        .map_err(|source| Problem::Pattern { pattern: text.to_owned(), source })
                };
                add(tag, patterns.span().start, each(patterns, pattern)?);
            }
        }
        for (tag, names) in [
            (RuleTag::AllowExtensions, &self.allow_extensions),
            (RuleTag::AllowCriticalOptions, &self.allow_critical_options),
            (RuleTag::RequireCriticalOptions, &self.require_critical_options),
            (RuleTag::ForceCommand, &self.force_command),
        ] {
            if let Some(names) = names {
                let name = |text: &str| {
                    if text.is_empty() || text.contains('\0') {
                        Err(Problem::Name)
                    } else {
                        Ok(terminated(text))
                    }
                };
                add(tag, names.span().start, each(names, name)?);
            }
        }
        if let Some(lifetime) = self.max_lifetime {
            add(RuleTag::MaxLifetime, lifetime.span().start, seconds("max-lifetime", &lifetime)?);
        }
        if let Some(most) = self.max_principals {
            let number = u16::try_from(*most.get_ref()).ok().filter(|number| *number > 0);
            let number = number.ok_or((
                most.span().start,
                Problem::Range { name: "max-principals", least: 1, most: u16::MAX.into() },
            ))?;
            add(RuleTag::MaxPrincipals, most.span().start, number.to_be_bytes().to_vec());
        }
        for (tag, flag) in [
            (RuleTag::AllowEmptyPrincipals, &self.allow_empty_principals),
            (RuleTag::Sealed, &self.sealed),
            (RuleTag::HostPatterns, &self.host_patterns),
        ] {
            if let Some(flag) = flag.as_ref().filter(|flag| *flag.get_ref()) {
                add(tag, flag.span().start, Vec::new());
            }
        }
        if let Some(networks) = self.source_address {
            let network = |text: &str| match Network::parse(text) {
                Ok(network) => {
                    let (bytes, length) = network.encode();
                    Ok(bytes.get(..length).unwrap_or_default().to_vec())
                }
                Err(source) => Err(Problem::Network { network: text.to_owned(), source }),
            };
            add(RuleTag::SourceAddress, networks.span().start, each(&networks, network)?);
        }
        if let Some(keys) = self.subject_keys {
            add(RuleTag::SubjectKeys, keys.span().start, subject_keys(&keys)?);
        }
        if let Some(serials) = self.serials {
            let (place, serials) = (serials.span().start, serials.into_inner());
            let number = |name, number: &Option<Spanned<i64>>, default| match number {
                None => Ok(default),
                Some(number) => u64::try_from(*number.get_ref()).map_err(|_| {
                    (number.span().start, Problem::Range { name, least: 0, most: i64::MAX as u64 })
                }),
            };
            if serials.first.is_some() || serials.last.is_some() {
                let (first, last) =
                    (number("first", &serials.first, 0)?, number("last", &serials.last, u64::MAX)?);
                add(RuleTag::Serials, place, [first.to_be_bytes(), last.to_be_bytes()].concat());
            }
            if serials.increasing {
                add(RuleTag::IncreasingSerials, place, Vec::new());
            }
            if let Some(step) = &serials.max_step {
                let number = u64::try_from(*step.get_ref()).ok().filter(|number| *number > 0);
                let number = number.ok_or((
                    step.span().start,
                    Problem::Range { name: "max-step", least: 1, most: i64::MAX as u64 },
                ))?;
                add(RuleTag::SerialsMaxStep, step.span().start, number.to_be_bytes().to_vec());
            }
        }
        if let Some(algorithms) = self.signature_algorithms {
            add(
                RuleTag::SignatureAlgorithms,
                algorithms.span().start,
                each(&algorithms, |name| Ok(vec![signature_algorithm(name)?.algorithm().code()]))?,
            );
        }
        if let Some(clock) = self.clock {
            let (place, ClockText { monotonic, tolerance, max_step, since }) =
                (clock.span().start, clock.into_inner());
            if monotonic {
                let tolerance = tolerance.map_or(Ok(vec![0; 4]), |span| seconds("tolerance", &span))?;
                add(RuleTag::Clock, place, tolerance);
            }
            let since = since.map(|time| (time.span().start, since_of(time.get_ref())));
            match (max_step, since) {
                (Some(step), since) => {
                    let since = since
                        .map_or(Ok(Vec::new()), |(place, since)| since.map_err(|problem| (place, problem)))?;
                    let value = [seconds("max-step", &step)?, since].concat();
                    add(RuleTag::ClockMaxStep, step.span().start, value);
                }
                (None, Some((place, _))) => return Err((place, Problem::SinceWithoutStep)),
                (None, None) => {}
            }
        }
        if let Some(quota) = self.quota {
            let place = quota.span().start;
            let QuotaText { signatures, window } = quota.into_inner();
            let count =
                u8::try_from(*signatures.get_ref()).ok().filter(|count| (1..=MAX_QUOTA).contains(count));
            let count = count.ok_or((
                signatures.span().start,
                Problem::Range { name: "signatures", least: 1, most: MAX_QUOTA.into() },
            ))?;
            add(RuleTag::Quota, place, [vec![count], seconds("window", &window)?].concat());
        }
        if let Some(presence) = self.presence {
            let place = presence.span().start;
            let value = match presence.get_ref() {
                PresenceText::Word(word) if word == "always" => Vec::new(),
                PresenceText::Word(word) => {
                    let known = "\"always\", or { above = \"8h\" }".into();
                    return Err((place, Problem::Unknown { name: word.clone(), known }));
                }
                PresenceText::Above { above } => span("above", above).map_err(|problem| (place, problem))?,
            };
            add(RuleTag::Presence, place, value);
        }
        rules.sort_by_key(|(_, (tag, _))| *tag as u8);
        Ok(rules)
    }
}

/// The values of a list, one after another; each entry once.
fn each(
    entries: &Spanned<Vec<Spanned<String>>>,
    value: impl Fn(&str) -> Result<Vec<u8>, Problem>,
) -> Result<Vec<u8>, Mistake> {
    let mut seen = std::collections::BTreeSet::new();
    let mut bytes = Vec::new();
    for entry in entries.get_ref() {
        let (place, text) = (entry.span().start, entry.get_ref().as_str());
        if !seen.insert(text) {
            return Err((place, Problem::Twice(text.to_owned())));
        }
        bytes.extend(value(text).map_err(|problem| (place, problem))?);
    }
    Ok(bytes)
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// A span of time as u32 seconds.
fn span(name: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    match bound(name, text, u32::MAX)? {
        Some(seconds) => Ok(seconds.to_be_bytes().to_vec()),
        None => Err(Problem::NoRule { name }),
    }
}

/// A point in time as u32 UNIX seconds.
fn since_of(time: &toml::value::Datetime) -> Result<Vec<u8>, Problem> {
    let time = time.to_string().parse::<jiff::Timestamp>().ok();
    let seconds = time.and_then(|time| u32::try_from(time.as_second()).ok());
    seconds.map(|seconds| seconds.to_be_bytes().to_vec()).ok_or(Problem::Time { name: "since" })
}

fn seconds(name: &'static str, text: &Spanned<String>) -> Result<Vec<u8>, Mistake> {
    span(name, text.get_ref()).map_err(|problem| (text.span().start, problem))
}

fn subject_keys(keys: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<u8>, Mistake> {
    let mut least = 0_u16;
    let mut codes = Vec::new();
    for entry in keys.get_ref() {
        let (place, name) = (entry.span().start, entry.get_ref().as_str());
        let (kind, bits) = subject_kind(name).map_err(|problem| (place, problem))?;
        let code = kind.code();
        if codes.contains(&code) {
            return Err((place, Problem::Twice(name.to_owned())));
        }
        codes.push(code);
        least = bits.unwrap_or(least);
    }
    Ok([least.to_be_bytes().to_vec(), codes].concat())
}

/// A kind of keys by its name, and the bits of RSA where it names them.
pub(crate) fn subject_kind(name: &str) -> Result<(SubjectKind, Option<u16>), Problem> {
    let (kind, bits) = match name.strip_prefix("rsa-").map(str::parse) {
        Some(Ok(bits)) => ("rsa", Some(bits)),
        _ => (name, None),
    };
    let kind = SubjectKind::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| {
        let known =
            SubjectKind::ALL.map(SubjectKind::name).join(", ") + "; rsa-3072 is RSA of at least 3072 bits";
        Problem::Unknown { name: name.to_owned(), known }
    })?;
    Ok((kind, bits))
}

/// A signature algorithm by SSH's name.
pub(crate) fn signature_algorithm(name: &str) -> Result<SignatureAlgorithm, Problem> {
    let all: Vec<_> = all_signature_algorithms().collect();
    let known = || all.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ");
    let found = all.iter().find(|algorithm| algorithm.name() == name).copied();
    found.ok_or_else(|| Problem::Unknown { name: name.to_owned(), known: known() })
}

fn all_signature_algorithms() -> impl Iterator<Item = SignatureAlgorithm> {
    use sshsm_protocol::{
        AsymmetricAlgorithm::{Ec, Ed25519, Rsa2048},
        Curve,
    };
    Algorithm::ALL.iter().filter_map(|&algorithm| {
        [Rsa2048, Ec(Curve::P256), Ec(Curve::P384), Ec(Curve::P521), Ed25519]
            .into_iter()
            .find_map(|key| SignatureAlgorithm::from_algorithm(algorithm, key))
    })
}

/// What the rules say, as the TOML names them and in words; rules that are not there are left out.
#[must_use]
pub fn describe(rules: &Rules<'_>) -> Vec<(&'static str, String)> {
    let span = |seconds: u32| duration::in_words(seconds.into());
    let list = |value: Value<'_>| value.to_string();
    let words = |tag: RuleTag| match tag {
        RuleTag::CertificateTypes => rules.certificate_types.map(|types| list(Value::Kinds(types))),
        RuleTag::AllowPrincipals => rules.allow_principals.map(|patterns| list(Value::Matching(patterns))),
        RuleTag::MaxLifetime => rules.max_lifetime.map(span),
        RuleTag::MaxPrincipals => rules.max_principals.map(|most| most.to_string()),
        RuleTag::AllowEmptyPrincipals => rules
            .allow_empty_principals
            .then(|| "A CERTIFICATE MAY NAME NOBODY: OpenSSH may take it for anybody".into()),
        RuleTag::AllowExtensions => rules.allow_extensions.map(|names| list(Value::OneOf(names))),
        RuleTag::AllowCriticalOptions => rules.allow_critical_options.map(|names| list(Value::OneOf(names))),
        RuleTag::RequireCriticalOptions => {
            rules.require_critical_options.map(|names| list(Value::OneOf(*names)))
        }
        RuleTag::ForceCommand => rules.force_command.map(|commands| list(Value::OneOf(*commands))),
        RuleTag::SourceAddress => rules.source_address.map(|networks| list(Value::Networks(networks))),
        RuleTag::SubjectKeys => rules.subject_keys.map(|keys| list(Value::Subjects(keys))),
        RuleTag::KeyId => rules.key_id.map(|patterns| list(Value::Matching(patterns))),
        RuleTag::Serials => rules.serials.map(|serials| list(Value::Serials(serials))),
        RuleTag::IncreasingSerials => rules.increasing_serials.then(|| "each greater than the last".into()),
        RuleTag::SignatureAlgorithms => {
            rules.signature_algorithms.map(|algorithms| list(Value::Algorithms(algorithms)))
        }
        RuleTag::Clock => {
            rules.clock.map(|tolerance| format!("now goes back by no more than {}", span(tolerance)))
        }
        RuleTag::Quota => rules
            .quota
            .map(|quota| format!("at most {} signatures in {}", quota.signatures, span(quota.window))),
        RuleTag::Presence => rules.presence.map(|presence| match presence {
            Presence::Always => "a touch for every signature".into(),
            Presence::Above(seconds) => format!("a touch for certificates of more than {}", span(seconds)),
        }),
        RuleTag::Sealed => rules.sealed.then(|| "goes with the whole device only".into()),
        RuleTag::HostPatterns => rules
            .host_patterns
            .then(|| "A HOST CERTIFICATE MAY STAND FOR MANY HOSTS: * and ? in a name".into()),
        RuleTag::SerialsMaxStep => {
            rules.serials_max_step.map(|step| format!("each at most {step} greater than the last"))
        }
        RuleTag::ClockMaxStep => rules.clock_max_step.map(|ClockStep { seconds, since }| {
            let since = since.map(|since| Value::Time { seconds: since.into(), excess: 0 });
            let first = since.map_or_else(
                || "; the first may be any".into(),
                |since| format!("; the first from {since} on"),
            );
            format!("now goes ahead by no more than {}{first}", span(seconds))
        }),
    };
    RuleTag::ALL.into_iter().filter_map(|tag| words(tag).map(|words| (tag.name(), words))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template_file::{TemplateFile, TemplateTextError};
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
            ("allow-empty-principals = true", &[0x84, 0, 0], "MAY NAME NOBODY"),
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
            ("certificate-types = []", 21, "stands for nothing"),
            ("allow-principals = []", 20, "empty"),
            ("allow-principals = [\"a\", \"a*b\"]", 26, "neither its first nor its last"),
            ("allow-principals = [\"a\", \"a\"]", 26, "stands twice"),
            ("allow-principals = [\"a\\\\b\"]", 21, "followed by neither"),
            ("max-lifetime = \"unbounded\"", 16, "leave the rule out"),
            ("max-lifetime = \"1x\"", 16, "unknown unit"),
            ("max-principals = 0", 18, "from 1 to 65535"),
            ("allow-extensions = [\"\"]", 21, "empty"),
            ("force-command = []", 17, "empty"),
            ("source-address = [\"10.0.0.1/8\"]", 19, "behind its prefix"),
            ("source-address = [\"10.0.0.0/33\"]", 19, "longer than the address"),
            ("subject-keys = [\"dsa\"]", 17, "known are rsa, "),
            ("subject-keys = [\"rsa\", \"rsa-2048\"]", 24, "stands twice"),
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
            ("clock = { monotonic = true, since = 2026-03-01T00:00:00Z }", 37, "name max-step, too"),
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
