//! Which extensions and critical options a certificate may have, and their values.

use sshsm_firmware::ssh::policy::Value;
use sshsm_protocol::ssh::{
    Printable,
    network::Network,
    request::{CertificateKind, SubjectKind},
    rules::{FORCE_COMMAND, Names, Rules, SOURCE_ADDRESS},
};

use super::{HostRule, Parsed, Text, list, names};
use crate::{
    duration,
    template::{
        compare::{Within, all_of, any_of},
        lints::{LONG, Lint, Reviewed, Say, quoted},
        problem::Problem,
    },
};

pub(super) struct AllowExtensions;
pub(super) struct AllowCriticalOptions;
pub(super) struct RequireCriticalOptions;
pub(super) struct ForceCommand;
pub(super) struct SourceAddress;

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

/// Two lists, one entry of which is enough.
fn compare_names(before: Option<Names<'_>>, after: Option<Names<'_>>) -> Within {
    let [before, after] = [before, after].map(|names| names.map(|names| names.iter().collect::<Vec<_>>()));
    any_of(before, after, |one, other| one == other)
}

fn name_entries(names: Option<Names<'_>>) -> Option<Vec<String>> {
    names.map(|names| names.iter().map(|name| Printable(name).to_string()).collect())
}

/// The names that satisfy `what`, for display.
fn listed(names: Option<Names<'_>>, what: impl Fn(&[u8]) -> bool) -> Option<String> {
    let found: Vec<_> = names.iter().flat_map(Names::iter).filter(|name| what(name)).collect();
    (!found.is_empty()).then(|| quoted(found.iter()))
}

/// Findings about names of critical options, in the rule with this name.
fn lint_critical_options(
    rule: &'static str,
    names: Option<Names<'_>>,
    advice: &str,
    template: &Reviewed<'_>,
    say: &mut Say<'_>,
) {
    if !template.is_for(CertificateKind::User) {
        if let Some(names) = listed(names, |_| true) {
            let message =
                format!("ssh refuses every host certificate with a critical option, also with {names}");
            say(Lint::UselessForHosts, rule, message, advice);
        }
    } else if let Some(names) = listed(names, |name| !CRITICAL_OPTIONS.contains(&name)) {
        let message =
            format!("OpenSSH knows no critical option {names}, and refuses certificates that have one");
        let advice = format!("it knows {}", quoted(CRITICAL_OPTIONS.iter()));
        say(Lint::UnknownCriticalOption, rule, message, &advice);
    }
}

/// The advice if a template for hosts allows options.
const NONE_FOR_HOSTS: &str = "allow none: allow-extensions = [] and allow-critical-options = []";

impl HostRule for AllowExtensions {
    fn parse(&self, text: &Text) -> Parsed {
        names(&text.allow_extensions)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.allow_extensions.map(|names| Value::OneOf(names).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        compare_names(before.allow_extensions, after.allow_extensions)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        name_entries(rules.allow_extensions)
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let (rule, rules) = ("allow-extensions", &template.rules);
        if !template.is_for(CertificateKind::User) {
            if let Some(names) = listed(rules.allow_extensions, |_| true) {
                let message = format!("host certificates have no extensions; no client heeds {names}");
                say(Lint::UselessForHosts, rule, message, NONE_FOR_HOSTS);
            }
            return;
        }
        // A name with an @ is private, and known to its owner's programs.
        let unknown = |name: &[u8]| !EXTENSIONS.contains(&name) && !name.contains(&b'@');
        if let Some(names) = listed(rules.allow_extensions, unknown) {
            let message = format!("OpenSSH knows no extension {names}, and leaves it aside");
            let advice = format!("it knows {}", quoted(EXTENSIONS.iter()));
            say(Lint::UnknownExtension, rule, message, &advice);
        }
        if rules.allow_extensions.is_none() {
            let message = "a certificate may have every extension: forwarding of ports, of agents, and those yet to \
                           come";
            let advice = "list those needed: allow-extensions = [\"permit-pty\"]";
            say(Lint::AnyExtension, rule, message.into(), advice);
        }
        let on_token = |kind| matches!(kind, SubjectKind::SecurityKeyEcdsa | SubjectKind::SecurityKeyEd25519);
        if rules.allow_extensions.is_some_and(|names| names.contains(NO_TOUCH_REQUIRED))
            && rules.subject_keys.is_none_or(|keys| keys.iter().any(on_token))
        {
            let message = "no-touch-required lets a security key log in without a touch";
            say(Lint::NoTouchRequired, rule, message.into(), "leave it out");
        }
    }
}

impl HostRule for AllowCriticalOptions {
    fn parse(&self, text: &Text) -> Parsed {
        names(&text.allow_critical_options)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.allow_critical_options.map(|names| Value::OneOf(names).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        compare_names(before.allow_critical_options, after.allow_critical_options)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        name_entries(rules.allow_critical_options)
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let names = template.rules.allow_critical_options;
        lint_critical_options("allow-critical-options", names, NONE_FOR_HOSTS, template, say);
    }
}

impl HostRule for RequireCriticalOptions {
    fn parse(&self, text: &Text) -> Parsed {
        names(&text.require_critical_options)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.require_critical_options.map(|names| Value::OneOf(*names).to_string())
    }

    fn absent(&self) -> &'static str {
        "none"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let [before, after] = [before, after].map(|rules| {
            let names = rules.require_critical_options.iter().flat_map(|names| names.iter());
            names.collect::<Vec<_>>()
        });
        all_of(before, after)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        name_entries(rules.require_critical_options.as_deref().copied())
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let names = template.rules.require_critical_options.as_deref().copied();
        lint_critical_options("require-critical-options", names, "leave the rule out", template, say);
    }
}

/// The rule about an option's value, and that the option is required, belong together.
struct Pair {
    option: &'static [u8],
    rule: &'static str,
    /// The template has the rule.
    has_rule: bool,
    optional: Lint,
    any: Lint,
    example: &'static str,
}

impl Pair {
    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let Self { option, rule, has_rule, optional, any, example } = *self;
        match (has_rule, template.requires(option)) {
            (true, false) => {
                let message =
                    format!("a request without {rule} passes: the rule applies only to those that have it");
                say(optional, rule, message, &format!("add require-critical-options = [\"{rule}\"]"));
            }
            (false, true) => {
                let message = format!("{rule} is required, but the requester chooses its value");
                say(any, rule, message, &format!("restrict its values: {example}"));
            }
            (true, true) | (false, false) => {}
        }
    }
}

impl HostRule for ForceCommand {
    fn parse(&self, text: &Text) -> Parsed {
        names(&text.force_command)
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.force_command.map(|commands| Value::OneOf(*commands).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        compare_names(before.force_command.as_deref().copied(), after.force_command.as_deref().copied())
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        name_entries(rules.force_command.as_deref().copied())
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        if !template.is_for(CertificateKind::User) {
            return;
        }
        let pair = Pair {
            option: FORCE_COMMAND,
            rule: "force-command",
            has_rule: template.rules.force_command.is_some(),
            optional: Lint::OptionalForceCommand,
            any: Lint::AnyForceCommand,
            example: "force-command = [\"/usr/bin/backup\"]",
        };
        pair.lint(template, say);
    }
}

impl HostRule for SourceAddress {
    fn parse(&self, text: &Text) -> Parsed {
        list(&text.source_address, |text| match Network::parse(text) {
            Ok(network) => {
                let (bytes, length) = network.encode();
                Ok(bytes.into_iter().take(length).collect())
            }
            Err(source) => Err(Problem::Network { network: text.to_owned(), source }),
        })
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.source_address.map(|networks| Value::Networks(networks).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let [before, after] = [before, after]
            .map(|rules| rules.source_address.map(|networks| networks.iter().collect::<Vec<_>>()));
        any_of(before, after, Network::contains)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        rules.source_address.map(|networks| networks.iter().map(|network| network.to_string()).collect())
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        if !template.is_for(CertificateKind::User) {
            return;
        }
        let (rule, networks) = ("source-address", template.rules.source_address);
        let longest = template.longest();
        if longest.is_none_or(|longest| longest > LONG)
            && networks.is_none()
            && !template.requires(SOURCE_ADDRESS)
        {
            let lasts = longest.map_or_else(|| "for ever".to_owned(), duration::in_words);
            say(
                Lint::LongWithoutSourceAddress,
                rule,
                format!("a certificate can last {lasts}, and a thief of its key can use it from anywhere"),
                "shorten it to a day, or bind it: source-address = [\"10.0.0.0/8\"] and require-critical-options = \
                 [\"source-address\"]",
            );
        }
        let pair = Pair {
            option: SOURCE_ADDRESS,
            rule,
            has_rule: networks.is_some(),
            optional: Lint::OptionalSourceAddress,
            any: Lint::AnySourceAddress,
            example: "source-address = [\"10.0.0.0/8\"]",
        };
        pair.lint(template, say);
        let everywhere = ["0.0.0.0/0", "::/0"].map(Network::parse);
        let anywhere = |network: &Network| everywhere.contains(&Ok(*network));
        if let Some(network) = networks.and_then(|networks| networks.iter().find(anywhere)) {
            let message = format!("{network} is every address");
            say(Lint::AnySourceAddress, rule, message, "name the networks that clients are in");
        }
    }
}
