//! The holder of a certificate: its type, its principals, and its key id.

use sshsm_firmware::ssh::policy::Value;
use sshsm_protocol::ssh::{
    Printable,
    pattern::Pattern,
    request::CertificateKind,
    rules::{Patterns, Rules},
};

use super::{Entries, HostRule, Parsed, Text, flag, list, number, terminated};
use crate::template::{
    compare::{Within, any_of, at_most, restricts},
    lints::{Lint, Reviewed, Say, quoted},
    problem::Problem,
};

pub(super) struct CertificateTypes;
pub(super) struct AllowPrincipals;
pub(super) struct MaxPrincipals;
pub(super) struct AllowEmptyPrincipals;
pub(super) struct KeyId;
pub(super) struct HostPatterns;

impl HostRule for CertificateTypes {
    fn parse(&self, text: &Text) -> Parsed {
        let bits = list(&text.certificate_types, |name| match name {
            "user" => Ok(vec![1]),
            "host" => Ok(vec![2]),
            other => Err(Problem::Unknown { name: other.to_owned(), known: "user, host".into() }),
        })?;
        Ok(bits.map(|(place, bits)| (place, vec![bits.into_iter().fold(0, |all, bit| all | bit)])))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.certificate_types.map(|types| Value::Kinds(types).to_string())
    }

    fn absent(&self) -> &'static str {
        "user, host"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let kinds = |rules: &Rules<'_>| {
            let allowed =
                |kind: &CertificateKind| rules.certificate_types.is_none_or(|types| types.contains(*kind));
            Some([CertificateKind::User, CertificateKind::Host].into_iter().filter(allowed).collect())
        };
        any_of::<CertificateKind>(kinds(before), kinds(after), CertificateKind::eq)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        if template.is_for(CertificateKind::User) && template.is_for(CertificateKind::Host) {
            let message = "anyone who can get a certificate to log in can also get one to pose as a host";
            let advice = "certificate-types = [\"user\"], and another CA key and template for hosts";
            say(Lint::AnyCertificateType, "certificate-types", message.into(), advice);
        }
    }
}

fn parse_patterns(entries: &Entries) -> Parsed {
    list(entries, |text| match Pattern::new(text.as_bytes()) {
        Ok(_) => Ok(terminated(text)),
        Err(source) => Err(Problem::Pattern { pattern: text.to_owned(), source }),
    })
}

fn compare_patterns(before: Option<Patterns<'_>>, after: Option<Patterns<'_>>) -> Within {
    let [before, after] = [before, after].map(|patterns| {
        let patterns: Vec<_> = patterns?.iter().collect();
        // One that matches anything is not a restriction.
        (!patterns.iter().any(Pattern::is_anything)).then_some(patterns)
    });
    any_of(before, after, |outer, inner| outer.contains(inner))
}

fn pattern_entries(patterns: Option<Patterns<'_>>) -> Option<Vec<String>> {
    patterns
        .map(|patterns| patterns.iter().map(|pattern| Printable(pattern.as_bytes()).to_string()).collect())
}

impl HostRule for AllowPrincipals {
    fn parse(&self, text: &Text) -> Parsed {
        parse_patterns(&text.allow_principals)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.allow_principals.map(|patterns| Value::Matching(patterns).to_string())
    }

    fn absent(&self) -> &'static str {
        "anybody not forbidden"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        compare_patterns(before.allow_principals, after.allow_principals)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        pattern_entries(rules.allow_principals)
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let forbidden = template.forbidden_principals;
        let names = "list the principals: allow-principals = [\"zone-*\", \"alice\"]";
        let Some(allowed) = template.rules.allow_principals else {
            let whom = match forbidden.iter().next() {
                Some(_) => format!("anybody but {}", quoted(forbidden.iter())),
                None => "anybody, root included".to_owned(),
            };
            let message = format!("a certificate may name {whom}: unforeseen names are allowed");
            say(Lint::DenyListOnly, "allow-principals", message, names);
            return;
        };
        if allowed.iter().any(|pattern| pattern.is_anything()) {
            let message = "* matches anybody, so the rule refuses nobody";
            say(Lint::MatchesAnybody, "allow-principals", message.into(), names);
        }
        let root = allowed
            .iter()
            .find(|pattern| pattern.as_bytes() != b"root" && pattern.matches(b"root"))
            .filter(|_| template.is_for(CertificateKind::User) && !forbidden.contains(b"root"));
        if let Some(pattern) = root {
            let message = format!("{} includes root", Printable(pattern.as_bytes()));
            let advice = "forbid-principals = [\"root\"], or a longer pattern";
            say(Lint::MatchesRoot, "allow-principals", message, advice);
        }
        let anyway: Vec<_> = forbidden.iter().filter(|name| !allowed.matches(name)).collect();
        if !anyway.is_empty() {
            let message = format!("allow-principals already leaves out {}", quoted(anyway.iter()));
            say(Lint::ForbiddenAnyway, "forbid-principals", message, "leave the names out of it");
        }
    }
}

impl HostRule for MaxPrincipals {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(most) = &text.max_principals else { return Ok(None) };
        let value = number("max-principals", most, 1, u16::MAX.into())?;
        // It is no greater than a u16, which is the last two bytes.
        let [.., high, low] = value.to_be_bytes();
        Ok(Some((most.span().start, vec![high, low])))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.max_principals.map(|most| most.to_string())
    }

    fn absent(&self) -> &'static str {
        "as many as OpenSSH reads"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        at_most(before.max_principals, after.max_principals)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, _: &Reviewed<'_>, _: &mut Say<'_>) {}
}

impl HostRule for AllowEmptyPrincipals {
    fn parse(&self, text: &Text) -> Parsed {
        flag(&text.allow_empty_principals)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules
            .allow_empty_principals
            .then(|| "A CERTIFICATE MAY HAVE NO PRINCIPALS: OpenSSH may accept it for anybody".into())
    }

    fn absent(&self) -> &'static str {
        "a certificate must have a principal"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        restricts(!before.allow_empty_principals, !after.allow_empty_principals)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        if template.rules.allow_empty_principals {
            let message = "OpenSSH may accept a certificate without principals for everybody";
            say(Lint::EmptyPrincipals, "allow-empty-principals", message.into(), "leave the rule out");
        }
    }
}

impl HostRule for KeyId {
    fn parse(&self, text: &Text) -> Parsed {
        parse_patterns(&text.key_id)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.key_id.map(|patterns| Value::Matching(patterns).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        compare_patterns(before.key_id, after.key_id)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        pattern_entries(rules.key_id)
    }

    fn lint(&self, _: &Reviewed<'_>, _: &mut Say<'_>) {}
}

impl HostRule for HostPatterns {
    fn parse(&self, text: &Text) -> Parsed {
        flag(&text.host_patterns)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.host_patterns.then(|| "A HOST CERTIFICATE MAY STAND FOR MANY HOSTS: * and ? in a name".into())
    }

    fn absent(&self) -> &'static str {
        "a host certificate names hosts one by one"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        restricts(!before.host_patterns, !after.host_patterns)
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        match (template.rules.host_patterns, template.is_for(CertificateKind::Host)) {
            (true, true) => {
                let message = "one host certificate may be valid for every host that its pattern matches; * matches all";
                let advice = "leave the rule out, and name each host; or bound it: allow-principals = [\"*.example.com\"]";
                say(Lint::HostPatterns, "host-patterns", message.into(), advice);
            }
            (true, false) => {
                let message =
                    "the principals of user certificates are names; OpenSSH knows no patterns there";
                say(Lint::UselessForUsers, "host-patterns", message.into(), "leave the rule out");
            }
            (false, _) => {}
        }
    }
}
