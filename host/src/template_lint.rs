//! What a careful reviewer would say about a template before a key depends on it.
//!
//! Every [`Lint`] has a name that stays, a severity that goes with the name, a reason, and what to write instead. What is
//! judged is what a device would read, so that templates in TOML, in TLV and on a device are told the same.

use clap::ValueEnum;
use serde::Serialize;
use sshsm_protocol::{
    AsymmetricAlgorithm, ObjectId,
    ssh::{
        Printable,
        host_pattern::HostPattern,
        network::Network,
        public_key::KeyKind,
        request::{CertificateKind, SubjectKind},
        rules::{ClockStep, FORCE_COMMAND, Names, Presence, SOURCE_ADDRESS},
        signature::SignatureAlgorithm,
        template::Template,
    },
};

use crate::{device_key, duration};

/// A certificate that lasts longer should be bound to something else than time.
const LONG: u64 = 86_400;
/// Least bits of an RSA key that should still be certified: 128-bit security (NIST SP 800-57, part 1, table 2).
const LEAST_RSA_BITS: u16 = 3072;
/// Serial numbers that should at least be left.
const FEW_SERIALS: u64 = 1000;
/// The extensions of user certificates that OpenSSH knows (PROTOCOL.certkeys).
const EXTENSIONS: [&[u8]; 6] = [
    NO_TOUCH_REQUIRED,
    b"permit-X11-forwarding",
    b"permit-agent-forwarding",
    b"permit-port-forwarding",
    b"permit-pty",
    b"permit-user-rc",
];
const NO_TOUCH_REQUIRED: &[u8] = b"no-touch-required";
/// The critical options of user certificates that OpenSSH knows (PROTOCOL.certkeys).
const CRITICAL_OPTIONS: [&[u8]; 3] = [FORCE_COMMAND, SOURCE_ADDRESS, b"verify-required"];

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
            _ => Severity::Warning,
        }
    }

    /// Its name, which stays.
    #[must_use]
    pub fn id(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One thing to be said about a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
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

/// What there is to be said about a template, the worst first. `last_serial` is the serial number of the last signature
/// under it, where that is known.
#[must_use]
pub fn lint(template: &Template<'_>, last_serial: Option<u64>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |id: Lint, rule, message: String, advice: &str| {
        findings.push(Finding { id, severity: id.severity(), rule, message, advice: advice.to_owned() });
    };
    key_lints(template, &mut say);
    time_lints(template, &mut say);
    principal_lints(template, &mut say);
    option_lints(template, &mut say);
    memory_lints(template, last_serial, &mut say);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

type Say<'s> = dyn FnMut(Lint, &'static str, String, &str) + 's;

/// The longest that a certificate can last; `None` is for ever.
fn longest(template: &Template<'_>) -> Option<u64> {
    let window = template.not_before.seconds().zip(template.not_after.seconds());
    let window = window.map(|(before, after)| u64::from(before) + u64::from(after));
    let most = template.rules.max_lifetime.map(u64::from);
    window.into_iter().chain(most).min()
}

fn is_for_users(template: &Template<'_>) -> bool {
    template.rules.certificate_types.is_none_or(|types| types.contains(CertificateKind::User))
}

fn quoted(names: impl Iterator<Item = impl AsRef<[u8]>>) -> String {
    names.map(|name| Printable(name.as_ref()).to_string()).collect::<Vec<_>>().join(", ")
}

fn key_lints(template: &Template<'_>, say: &mut Say<'_>) {
    let rules = &template.rules;
    let nobody: Vec<_> = template.ca_keys.iter().filter(|&id| ObjectId::new(id).is_err()).collect();
    if template.ca_keys.iter().next().is_none() {
        let message = "it lists no CA key, so nothing can be signed under it";
        say(Lint::NoCaKey, "ca-keys", message.into(), "name the ids of the CA keys: ca-keys = [5]");
    } else if !nobody.is_empty() {
        let message = format!("no key has the id {nobody:?}");
        say(Lint::NoCaKey, "ca-keys", message, "name ids from 1 to 65534");
    }
    let timestamp = &template.timestamp_key;
    if device_key::ssh_public(timestamp.algorithm(), timestamp.public()).is_err() {
        let message = "the timestamp key is no key of its algorithm, so no timestamp can be verified";
        say(Lint::NoTimestampKey, "timestamp-key", message.into(), "name the authority's public key file");
    }
    let rsa_authority = matches!(
        timestamp.algorithm(),
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096
    );
    if timestamp.algorithm() == AsymmetricAlgorithm::Rsa2048 {
        let message = "RSA of 2048 bits has 112 bits of security, and who breaks it sets the clock";
        say(
            Lint::ShortRsaTimestamp,
            "timestamp-key",
            message.into(),
            "take an Ed25519 key, or RSA of 3072 bits",
        );
    }
    let rsa = SubjectKind::Plain(KeyKind::Rsa);
    if rules
        .subject_keys
        .is_none_or(|keys| keys.iter().any(|kind| kind == rsa) && keys.least_rsa_bits < LEAST_RSA_BITS)
    {
        let least = rules.subject_keys.map_or(0, |keys| keys.least_rsa_bits);
        let length = if least == 0 { "any length".to_owned() } else { format!("{least} bits") };
        say(
            Lint::ShortRsaSubject,
            "subject-keys",
            format!("RSA keys of {length} are certified; 2048 bits have 112 bits of security"),
            "list the kinds that are wanted: subject-keys = [\"ed25519\", \"sk-ed25519\", \"rsa-3072\"]",
        );
    }
    let instead = "list what the CA key is to sign with: signature-algorithms = [\"ssh-ed25519\"], or \
                   [\"rsa-sha2-512\"] for RSA";
    match rules.signature_algorithms {
        Some(algorithms) if algorithms.contains(SignatureAlgorithm::RsaSha1) => {
            let message =
                "ssh-rsa signs with SHA-1: OpenSSH has refused it since 8.2, and collisions can be made";
            say(Lint::Sha1Signature, "signature-algorithms", message.into(), instead);
        }
        None if rsa_authority => {
            let message =
                "an RSA CA key may sign with SHA-1 here; the timestamp key is RSA, so the CA key may be, too";
            say(Lint::Sha1Signature, "signature-algorithms", message.into(), instead);
        }
        None => {
            let message = "were the CA key RSA, it might sign with SHA-1";
            say(Lint::AnySignatureAlgorithm, "signature-algorithms", message.into(), instead);
        }
        Some(_) => {}
    }
    if !rules.sealed {
        let message = "whoever may delete templates can put another in its place";
        let instead = "sealed = true, once the template has been tried; `sshsm device option set templates frozen` keeps \
                       others from being put beside it";
        say(Lint::NotSealed, "sealed", message.into(), instead);
    }
}

fn time_lints(template: &Template<'_>, say: &mut Say<'_>) {
    let rules = &template.rules;
    let longest = longest(template);
    if longest.is_none() {
        let message = "a certificate may last for ever";
        say(Lint::LastsForEver, "max-lifetime", message.into(), "bound it: max-lifetime = \"8h\"");
    }
    if template.not_after.seconds() == Some(0) {
        let message = "a certificate has to end when it is signed, or before";
        say(Lint::NeverValid, "not-after-offset", message.into(), "not-after-offset = \"8h\"");
    }
    if rules.max_lifetime == Some(0) {
        say(
            Lint::NeverValid,
            "max-lifetime",
            "a certificate has to end when it begins".into(),
            "max-lifetime = \"8h\"",
        );
    }
    if template.not_before.seconds().is_none() {
        let message =
            "a certificate may begin at any time in the past, so logs of that time are no longer evidence";
        say(Lint::UnboundedStart, "not-before-offset", message.into(), "not-before-offset = \"5m\"");
    }
    if template.not_after.seconds().is_none() {
        let message = "a certificate may be dated ahead, and work years after whoever asked for it has left";
        say(Lint::UnboundedEnd, "not-after-offset", message.into(), "not-after-offset = \"8h\"");
    }
    if let Some((most, window)) =
        rules.max_lifetime.zip(template.not_before.seconds().zip(template.not_after.seconds()))
        && u64::from(most) >= u64::from(window.0) + u64::from(window.1)
    {
        let message = "the two offsets leave room for no longer a lifetime, so it never refuses anything";
        say(
            Lint::MaxLifetimeWithoutEffect,
            "max-lifetime",
            message.into(),
            "shorten max-lifetime, or leave it out",
        );
    }
    let lasts = longest.map_or_else(|| "for ever".to_owned(), duration::in_words);
    let long = longest.is_none_or(|longest| longest > LONG);
    let requires = |name: &[u8]| rules.require_critical_options.is_some_and(|names| names.contains(name));
    if long && is_for_users(template) && rules.source_address.is_none() && !requires(SOURCE_ADDRESS) {
        say(
            Lint::LongWithoutSourceAddress,
            "source-address",
            format!("a certificate can last {lasts}, and whoever steals its key can use it from everywhere"),
            "shorten it to a day, or bind it: source-address = [\"10.0.0.0/8\"] and require-critical-options = \
             [\"source-address\"]",
        );
    }
    let untouched = match rules.presence {
        Some(Presence::Above(above))
            if longest.is_some_and(|longest| longest <= above.into())
                && template.not_after.seconds().is_some_and(|reach| reach <= above) =>
        {
            let message = format!(
                "no certificate can last longer than {lasts} or end later than the bound after now, so a touch is never \
                 asked for"
            );
            say(Lint::PresenceNeverAsked, "presence", message, "lower the bound, or presence = \"always\"");
            false
        }
        Some(Presence::Above(above)) => u64::from(above) > LONG,
        Some(Presence::Always) => false,
        None => long,
    };
    if untouched {
        say(
            Lint::LongWithoutPresence,
            "presence",
            "a certificate of more than a day is signed without anybody at the device".into(),
            "presence = { above = \"1d\" }",
        );
    }
}

fn principal_lints(template: &Template<'_>, say: &mut Say<'_>) {
    let rules = &template.rules;
    let forbidden = template.forbidden_principals;
    let names = "name whom it is for: allow-principals = [\"zone-*\", \"alice\"]";
    match rules.allow_principals {
        None => {
            let whom = match forbidden.iter().next() {
                Some(_) => format!("anybody but {}", quoted(forbidden.iter())),
                None => "anybody, root included".to_owned(),
            };
            let message = format!("a certificate may name {whom}: names that nobody thought of are allowed");
            say(Lint::DenyListOnly, "allow-principals", message, names);
        }
        Some(allowed) => {
            if allowed.iter().any(|pattern| pattern.is_anything()) {
                let message = "* stands for anybody, so the rule refuses nobody";
                say(Lint::MatchesAnybody, "allow-principals", message.into(), names);
            }
            let root = allowed
                .iter()
                .find(|pattern| pattern.as_bytes() != b"root" && pattern.matches(b"root"))
                .filter(|_| is_for_users(template) && !forbidden.contains(b"root"));
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
    let dead: Vec<_> = forbidden.iter().filter(|name| name.is_empty() || name.contains(&b',')).collect();
    if !dead.is_empty() {
        let shown: Vec<_> = dead.iter().map(|name| format!("\"{}\"", Printable(name))).collect();
        let message = format!("no certificate names {}, so nobody is forbidden by it", shown.join(", "));
        say(Lint::ForbidsNobody, "forbid-principals", message, "give each name its own string");
    }
    let literal: Vec<_> = forbidden.iter().filter(|name| !HostPattern::new(name).is_name()).collect();
    if !literal.is_empty() {
        let message =
            format!("{} is a name here, not a pattern: * and ? stand for themselves", quoted(literal.iter()));
        let advice =
            "forbid-principals takes whole names; say whom to allow: allow-principals = [\"*.example.com\"]";
        say(Lint::ForbidsLiterally, "forbid-principals", message, advice);
    }
    let is_for_hosts = rules.certificate_types.is_none_or(|types| types.contains(CertificateKind::Host));
    match rules.host_patterns {
        true if is_for_hosts => {
            let message =
                "one host certificate may stand for every host that its pattern matches, as * does for all";
            let advice =
                "leave the rule out, and name each host; or bound it: allow-principals = [\"*.example.com\"]";
            say(Lint::HostPatterns, "host-patterns", message.into(), advice);
        }
        true => {
            let message = "the principals of user certificates are names; OpenSSH knows no patterns there";
            say(Lint::UselessForUsers, "host-patterns", message.into(), "leave the rule out");
        }
        false => {}
    }
    if rules.allow_empty_principals {
        let message = "OpenSSH may take a certificate that names nobody for one that is for everybody";
        say(Lint::EmptyPrincipals, "allow-empty-principals", message.into(), "leave the rule out");
    }
    if [CertificateKind::User, CertificateKind::Host]
        .into_iter()
        .all(|kind| rules.certificate_types.is_none_or(|types| types.contains(kind)))
    {
        let message = "who gets a certificate to log in can have one to pose as a host";
        let advice = "certificate-types = [\"user\"], and another CA key and template for hosts";
        say(Lint::AnyCertificateType, "certificate-types", message.into(), advice);
    }
}

fn option_lints(template: &Template<'_>, say: &mut Say<'_>) {
    let rules = &template.rules;
    let listed = |names: Option<Names<'_>>, what: &dyn Fn(&[u8]) -> bool| {
        let found: Vec<_> = names.iter().flat_map(Names::iter).filter(|name| what(name)).collect();
        (!found.is_empty()).then(|| quoted(found.iter()))
    };
    let options = [
        ("allow-critical-options", rules.allow_critical_options),
        ("require-critical-options", rules.require_critical_options.as_deref().copied()),
    ];
    if !is_for_users(template) {
        let lists = [("allow-extensions", rules.allow_extensions)].into_iter().chain(options);
        for (rule, names) in lists {
            if let Some(names) = listed(names, &|_| true) {
                let message = match rule {
                    "allow-extensions" => {
                        format!("host certificates have no extensions; no client heeds {names}")
                    }
                    _ => format!(
                        "ssh refuses every host certificate with a critical option, also with {names}"
                    ),
                };
                let advice = match rule {
                    "require-critical-options" => "leave the rule out",
                    _ => "allow none: allow-extensions = [] and allow-critical-options = []",
                };
                say(Lint::UselessForHosts, rule, message, advice);
            }
        }
        return;
    }
    // A name with an @ is somebody's own, whose programs know it.
    let unknown = |name: &[u8]| !EXTENSIONS.contains(&name) && !name.contains(&b'@');
    if let Some(names) = listed(rules.allow_extensions, &unknown) {
        let message = format!("OpenSSH knows no extension {names}, and leaves it aside");
        let advice = format!("it knows {}", quoted(EXTENSIONS.iter()));
        say(Lint::UnknownExtension, "allow-extensions", message, &advice);
    }
    for (rule, names) in options {
        if let Some(names) = listed(names, &|name| !CRITICAL_OPTIONS.contains(&name)) {
            let message =
                format!("OpenSSH knows no critical option {names}, and refuses certificates that have one");
            let advice = format!("it knows {}", quoted(CRITICAL_OPTIONS.iter()));
            say(Lint::UnknownCriticalOption, rule, message, &advice);
        }
    }
    if rules.allow_extensions.is_none() {
        let message =
            "a certificate may have every extension: forwarding of ports, of agents, and what is yet to come";
        say(
            Lint::AnyExtension,
            "allow-extensions",
            message.into(),
            "list what is needed: allow-extensions = [\"permit-pty\"]",
        );
    }
    let on_token = |kind| matches!(kind, SubjectKind::SecurityKeyEcdsa | SubjectKind::SecurityKeyEd25519);
    if rules.allow_extensions.is_some_and(|names| names.contains(NO_TOUCH_REQUIRED))
        && rules.subject_keys.is_none_or(|keys| keys.iter().any(on_token))
    {
        let message = "no-touch-required lets a security key log in while nobody touches it";
        say(Lint::NoTouchRequired, "allow-extensions", message.into(), "leave it out");
    }
    for (option, rule, has_rule, optional, any, example) in [
        (
            FORCE_COMMAND,
            "force-command",
            rules.force_command.is_some(),
            Lint::OptionalForceCommand,
            Lint::AnyForceCommand,
            "force-command = [\"/usr/bin/backup\"]",
        ),
        (
            SOURCE_ADDRESS,
            "source-address",
            rules.source_address.is_some(),
            Lint::OptionalSourceAddress,
            Lint::AnySourceAddress,
            "source-address = [\"10.0.0.0/8\"]",
        ),
    ] {
        let required = rules.require_critical_options.is_some_and(|names| names.contains(option));
        if has_rule && !required {
            let message = format!("a request without {rule} passes: the rule binds those only that have it");
            let advice = format!("add require-critical-options = [\"{rule}\"]");
            say(optional, rule, message, &advice);
        }
        if required && !has_rule {
            let message = format!("{rule} is required, and the requester says what it is");
            say(any, rule, message, &format!("say what it may be: {example}"));
        }
    }
    let everywhere = ["0.0.0.0/0", "::/0"].map(Network::parse);
    let anywhere = |network: &Network| everywhere.contains(&Ok(*network));
    if let Some(network) = rules.source_address.and_then(|networks| networks.iter().find(anywhere)) {
        let message = format!("{network} is every address");
        say(Lint::AnySourceAddress, "source-address", message, "name the networks that clients are in");
    }
}

fn memory_lints(template: &Template<'_>, last_serial: Option<u64>, say: &mut Say<'_>) {
    let rules = &template.rules;
    let clock = "clock = { monotonic = true, tolerance = \"1m\" }";
    if rules.clock.is_none() {
        if rules.quota.is_some() {
            let message = "a quota counts the authority's now, and is worth no more than that clock; nothing keeps \
                           it from jumping ahead and back";
            say(Lint::QuotaWithoutClock, "quota", message.into(), clock);
        }
        if rules.increasing_serials {
            let message = "serial numbers tell the order of signatures, and without a clock that stays not that of times";
            say(Lint::SerialsWithoutClock, "serials", message.into(), clock);
        }
    }
    let killed = match rules.sealed {
        true => "nothing can be signed any more, and a sealed template cannot be replaced",
        false => "nothing can be signed any more under a template with this id",
    };
    if rules.increasing_serials && rules.serials_max_step.is_none() {
        let last = rules.serials.map_or(u64::MAX, |serials| serials.last);
        let message = format!("one signer can ask for the serial number {last}; after that {killed}");
        let advice = "bound the step: serials = { increasing = true, max-step = 1000 }";
        say(Lint::SerialsWithoutStep, "serials", message, advice);
    }
    match (rules.clock, rules.clock_max_step) {
        (Some(_), None) => {
            let message =
                format!("one timestamp far in the future puts the clock there, and until then {killed}");
            let advice = "bound the step by the longest time without a signature: clock = { monotonic = true, \
                          max-step = \"90d\" }";
            say(Lint::ClockWithoutStep, "clock", message, advice);
        }
        (Some(_), Some(ClockStep { since: None, .. })) => {
            let message = "the first timestamp may be of any time, and the clock goes on from there";
            let advice = "say when it begins: since = 2026-03-01T00:00:00Z; or sign once before others may";
            say(Lint::ClockWithoutStart, "clock", message.into(), advice);
        }
        _ => {}
    }
    if rules.increasing_serials {
        let (first, last) = rules.serials.map_or((0, u64::MAX), |serials| (serials.first, serials.last));
        // How many there are, less one; `None` for none.
        let left = match last_serial {
            Some(used) => used.checked_add(1).and_then(|next| last.checked_sub(next.max(first))),
            None => Some(last - first.min(last)),
        };
        let advice = format!("serials = {{ first = {first}, increasing = true }}, without a last one");
        match left {
            None => {
                let message = format!(
                    "{last} is the last serial number, and it is used: nothing can be signed any more"
                );
                say(Lint::SerialsExhausted, "serials", message, &advice);
            }
            Some(left) if left < FEW_SERIALS - 1 => {
                let message =
                    format!("after {} more signatures, or fewer, nothing can be signed any more", left + 1);
                say(Lint::FewSerials, "serials", message, &advice);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template_file::TemplateFile;
    use std::path::Path;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti authority";

    /// Nothing can be said about a template with these.
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

    /// What is said about [`GOOD`] with changes: keys with other values, or with none.
    fn said(changes: &[(&str, &str)], last_serial: Option<u64>) -> Vec<(String, Severity, &'static str)> {
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
            let found: Vec<_> =
                found.iter().map(|(id, severity, rule)| (id.as_str(), *severity, *rule)).collect();
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
        let ids: std::collections::BTreeSet<_> =
            Lint::value_variants().iter().map(|lint| lint.id()).collect();
        assert_eq!(ids.len(), Lint::value_variants().len());
        for lint in Lint::value_variants() {
            assert_eq!(serde_json::to_value(lint).unwrap(), lint.id());
        }
    }

    /// What only a template that was not compiled here can say.
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
