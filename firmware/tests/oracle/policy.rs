#![allow(missing_docs, unreachable_pub)]
//! What a template allows, written a second time and as plainly as possible: based on docs/templates.md, in
//! whole numbers that cannot overflow and lists of bytes, and sharing no rules and no types with the device.

use std::net::IpAddr;

/// A template's source form; it need not be well-formed.
#[derive(Clone, Debug, Default)]
pub struct Template {
    pub ca_keys: Vec<u16>,
    pub not_before: u32,
    pub not_after: u32,
    pub forbid_principals: Vec<Vec<u8>>,
    pub certificate_types: Option<u8>,
    pub allow_principals: Option<Vec<Vec<u8>>>,
    pub max_lifetime: Option<u32>,
    pub max_principals: Option<u16>,
    pub allow_empty_principals: bool,
    pub allow_extensions: Option<Vec<Vec<u8>>>,
    pub allow_critical_options: Option<Vec<Vec<u8>>>,
    pub require_critical_options: Option<Vec<Vec<u8>>>,
    pub force_command: Option<Vec<Vec<u8>>>,
    pub source_address: Option<Vec<Network>>,
    pub subject_keys: Option<(u16, Vec<u8>)>,
    pub key_id: Option<Vec<Vec<u8>>>,
    pub serials: Option<(u64, u64)>,
    pub increasing_serials: bool,
    pub signature_algorithms: Option<Vec<u8>>,
    pub clock: Option<u32>,
    pub quota: Option<(u8, u32)>,
    /// `Some(None)` is always.
    pub presence: Option<Option<u32>>,
    pub sealed: bool,
    pub host_patterns: bool,
    pub serials_max_step: Option<u64>,
    /// The step, and the start of the clock.
    pub clock_max_step: Option<(u32, Option<u32>)>,
    /// It was damaged: a tag twice, missing, unknown or of another length, or its end.
    pub damaged: bool,
}

/// A network's source form: family 4 or 6, and that many bytes.
#[derive(Clone, Debug)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Debug)]
pub struct Request {
    /// As the template counts kinds of keys.
    pub subject_kind: u8,
    pub rsa_bits: u16,
    /// Its numbers do not form a key that OpenSSH reads, be it RSA of any length or another type.
    pub odd_key: bool,
    pub serial: u64,
    pub host: bool,
    pub key_id: Vec<u8>,
    pub principals: Vec<Vec<u8>>,
    pub valid_after: u64,
    pub valid_before: u64,
    pub critical: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub extensions: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// It names the CA key that is to sign.
    pub names_ca_key: bool,
    /// It was damaged: its last byte is missing, or there is one more.
    pub damaged: bool,
}

/// Everything that belongs neither to the template nor to the request.
#[derive(Clone, Debug)]
pub struct Circumstances {
    pub now: u32,
    pub timestamp: Answer,
    pub ca_key: u16,
    pub algorithm: u8,
    /// `None` without a device.
    pub memory: Option<Memory>,
    /// The CA key's and the template's, a list each; `None` without a device.
    pub domains: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub last_serial: Option<u64>,
    pub highest_now: Option<u32>,
    pub times: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Allowed,
    Refused,
    Undecided,
}

use Answer::{Allowed, Refused, Undecided};

fn yes(allowed: bool) -> Answer {
    if allowed { Allowed } else { Refused }
}

/// Every check by its name, in the order of a verdict.
pub fn judge(template: &Template, request: &Request, at: &Circumstances) -> Vec<(&'static str, Answer)> {
    let names = |allowed: &[Vec<u8>], name: &[u8]| allowed.iter().any(|one| one == name);
    let matches = |patterns: &[Vec<u8>], name: &[u8]| {
        patterns.iter().any(|pattern| glob(&tokens(pattern).expect("well-formed"), name))
    };
    // How a host's name is compared: ssh asks for the host in lower case.
    let lower = |name: &[u8]| name.to_ascii_lowercase();
    let stands_for = |principal: &[u8], host: &[u8]| glob(&wildcards(&lower(principal)), &lower(host));
    // The template and the request must be readable first.
    let template_is_well_formed = well_formed(template);
    let request_is_well_formed = !request.damaged && request.principals.len() <= 256;
    let readable = template_is_well_formed && request_is_well_formed;
    let when_readable = |answer: &dyn Fn() -> Answer| if readable { answer() } else { Undecided };

    let now = i128::from(at.now);
    let (after, before) = (i128::from(request.valid_after), i128::from(request.valid_before));
    let lifetime = (before - after).max(0);
    let option = |wanted: &[u8]| request.critical.iter().find(|(name, _)| name == wanted);
    let remembered = |answer: &dyn Fn(&Memory) -> bool| match &at.memory {
        Some(memory) => yes(answer(memory)),
        None => Undecided,
    };
    let t = template;
    let rules: [(&'static str, &dyn Fn() -> Answer); 29] = [
        ("timestamp-key", &|| at.timestamp),
        ("ca-keys", &|| yes(t.ca_keys.contains(&at.ca_key))),
        ("domain", &|| match &at.domains {
            Some((ca_key, template)) => yes(ca_key.iter().any(|domain| template.contains(domain))),
            None => Allowed,
        }),
        ("signature-key", &|| yes(request.names_ca_key)),
        ("not-before-offset", &|| yes(t.not_before == 0 || after >= now - i128::from(t.not_before))),
        ("not-after-offset", &|| yes(t.not_after == 0xffff_ffff || before <= now + i128::from(t.not_after))),
        ("forbid-principals", &|| {
            yes(!request.principals.iter().any(|name| {
                if request.host {
                    t.forbid_principals.iter().any(|host| stands_for(name, host))
                } else {
                    names(&t.forbid_principals, name)
                }
            }))
        }),
        ("certificate-types", &|| match t.certificate_types {
            Some(1) => yes(!request.host),
            Some(2) => yes(request.host),
            _ => Allowed,
        }),
        ("allow-principals", &|| match &t.allow_principals {
            // Even the strangest host that a principal matches is matched, by one pattern for all of them.
            Some(patterns) if request.host => yes(request.principals.iter().all(|name| {
                let strange: Vec<u8> =
                    name.iter().map(|byte| if b"*?".contains(byte) { 1 } else { *byte }).collect();
                matches(patterns, &strange)
            })),
            Some(patterns) => yes(request.principals.iter().all(|name| matches(patterns, name))),
            None => Allowed,
        }),
        ("max-lifetime", &|| match t.max_lifetime {
            Some(most) => yes(lifetime <= i128::from(most)),
            None => Allowed,
        }),
        ("max-principals", &|| match t.max_principals {
            Some(most) => yes(request.principals.len() <= usize::from(most)),
            None => Allowed,
        }),
        ("allow-empty-principals", &|| yes(t.allow_empty_principals || !request.principals.is_empty())),
        ("allow-extensions", &|| match &t.allow_extensions {
            Some(allowed) => yes(request.extensions.iter().all(|(name, _)| names(allowed, name))),
            None => Allowed,
        }),
        ("allow-critical-options", &|| match &t.allow_critical_options {
            Some(allowed) => yes(request.critical.iter().all(|(name, _)| names(allowed, name))),
            None => Allowed,
        }),
        ("require-critical-options", &|| match &t.require_critical_options {
            Some(required) => yes(required.iter().all(|name| option(name).is_some())),
            None => Allowed,
        }),
        ("force-command", &|| match (&t.force_command, option(b"force-command")) {
            (Some(texts), Some((_, Some(value)))) => yes(names(texts, value)),
            (Some(_), Some((_, None))) => Refused,
            _ => Allowed,
        }),
        ("source-address", &|| match (&t.source_address, option(b"source-address")) {
            (Some(networks), Some((_, Some(list)))) => yes(all_inside(networks, list)),
            (Some(_), Some((_, None))) => Refused,
            _ => Allowed,
        }),
        ("subject-keys", &|| match &t.subject_keys {
            _ if request.odd_key => Refused,
            _ if request.subject_kind == 1 && !(1024..=16_384).contains(&request.rsa_bits) => Refused,
            Some((least, kinds)) => yes(kinds.contains(&request.subject_kind)
                && (request.subject_kind != 1 || request.rsa_bits >= *least)),
            None => Allowed,
        }),
        ("key-id", &|| match &t.key_id {
            Some(patterns) => yes(matches(patterns, &request.key_id)),
            None => Allowed,
        }),
        ("serials", &|| match t.serials {
            Some((first, last)) => yes(first <= request.serial && request.serial <= last),
            None => Allowed,
        }),
        ("increasing-serials", &|| {
            if !t.increasing_serials {
                return Allowed;
            }
            remembered(&|memory| match memory.last_serial {
                Some(last) => request.serial > last,
                None => true,
            })
        }),
        ("signature-algorithms", &|| match &t.signature_algorithms {
            Some(algorithms) => yes(algorithms.contains(&at.algorithm)),
            None => Allowed,
        }),
        ("clock", &|| match t.clock {
            Some(tolerance) => remembered(&|memory| match clock_stands_at(t, memory) {
                Some(highest) => now >= highest - i128::from(tolerance),
                None => true,
            }),
            None => Allowed,
        }),
        ("quota", &|| match t.quota {
            Some((signatures, window)) => remembered(&|memory| {
                // One that is dated later than now counts.
                let counts = |time: &&u32| i128::from(**time) > now - i128::from(window);
                memory.times.iter().filter(counts).count() < usize::from(signatures)
            }),
            None => Allowed,
        }),
        // The device asks for it once nothing else refuses.
        ("presence", &|| match t.presence {
            Some(_) => remembered(&|_| true),
            None => Allowed,
        }),
        // It is about the template, and not about a request.
        ("sealed", &|| Allowed),
        ("host-patterns", &|| {
            let pattern = |name: &Vec<u8>| name.contains(&b'*') || name.contains(&b'?');
            yes(!request.host || t.host_patterns || !request.principals.iter().any(pattern))
        }),
        ("serials-max-step", &|| match t.serials_max_step {
            Some(step) => remembered(&|memory| {
                // Nothing before the range was ever used.
                let beginning = t.serials.map_or(0, |(first, _)| i128::from(first) - 1).max(0);
                let last = memory.last_serial.map_or(beginning, i128::from).max(beginning);
                i128::from(request.serial) <= last + i128::from(step)
            }),
            None => Allowed,
        }),
        ("clock-max-step", &|| match t.clock_max_step {
            Some((step, _)) => remembered(&|memory| match clock_stands_at(t, memory) {
                Some(highest) => now <= highest + i128::from(step),
                None => true,
            }),
            None => Allowed,
        }),
    ];
    let request_answer = if template_is_well_formed { yes(request_is_well_formed) } else { Undecided };
    [("template", yes(template_is_well_formed)), ("request", request_answer)]
        .into_iter()
        .chain(rules.into_iter().map(|(name, rule)| (name, when_readable(rule))))
        .collect()
}

/// Whether an allowed request waits for a touch.
pub fn needs_touch(template: &Template, request: &Request, at: &Circumstances) -> bool {
    let (after, before) = (i128::from(request.valid_after), i128::from(request.valid_before));
    match template.presence {
        Some(Some(above)) => {
            let above = i128::from(above);
            before - after > above || before - i128::from(at.now) > above
        }
        Some(None) => true,
        None => false,
    }
}

/// The highest now so far, and no earlier than the start of the clock.
fn clock_stands_at(t: &Template, memory: &Memory) -> Option<i128> {
    let beginning = t.clock_max_step.and_then(|(_, since)| since);
    [memory.highest_now, beginning].into_iter().flatten().map(i128::from).max()
}

fn well_formed(t: &Template) -> bool {
    let some = |names: &Option<Vec<Vec<u8>>>| names.as_ref().is_none_or(|names| !names.is_empty());
    let named = |names: &Option<Vec<Vec<u8>>>| names.iter().flatten().all(|name| !name.is_empty());
    let patterns = |patterns: &Option<Vec<Vec<u8>>>| {
        some(patterns) && patterns.iter().flatten().all(|pattern| tokens(pattern).is_some())
    };
    let may_have = |name: &[u8]| {
        t.allow_critical_options.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == name))
    };
    !t.damaged
        && t.certificate_types.is_none_or(|types| (1..=3).contains(&types))
        && patterns(&t.allow_principals)
        && t.max_principals != Some(0)
        && named(&t.allow_extensions)
        && named(&t.allow_critical_options)
        && (some(&t.require_critical_options) && named(&t.require_critical_options))
        && (some(&t.force_command) && named(&t.force_command))
        && t.source_address.as_ref().is_none_or(|networks| {
            !networks.is_empty() && networks.iter().all(|network| leading(network).is_some())
        })
        && t.subject_keys
            .as_ref()
            .is_none_or(|(_, kinds)| !kinds.is_empty() && kinds.iter().all(|kind| (1..=7).contains(kind)))
        && patterns(&t.key_id)
        && t.serials.is_none_or(|(first, last)| first <= last)
        && t.signature_algorithms.as_ref().is_none_or(|codes| {
            !codes.is_empty() && codes.iter().all(|code| [1, 2, 4, 43, 44, 45, 46].contains(code))
        })
        && t.quota.is_none_or(|(signatures, window)| (1..=64).contains(&signatures) && window >= 1)
        && t.serials_max_step.is_none_or(|step| step >= 1 && t.increasing_serials)
        && t.clock_max_step.is_none_or(|(step, _)| step >= 1 && t.clock.is_some())
        && t.require_critical_options.iter().flatten().all(|name| may_have(name))
        && (t.force_command.is_none() || may_have(b"force-command"))
        && (t.source_address.is_none() || may_have(b"source-address"))
}

/// A pattern's characters, `None` for the wildcard; `None` when it is not a pattern.
fn tokens(pattern: &[u8]) -> Option<Vec<Option<u8>>> {
    if pattern.is_empty() || pattern.len() > 255 || pattern.contains(&0) {
        return None;
    }
    let mut tokens = Vec::new();
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'*' => None,
            b'\\' => match bytes.next() {
                Some(escaped @ (b'*' | b'\\')) => Some(*escaped),
                _ => return None,
            },
            byte => Some(*byte),
        });
    }
    let wildcards: Vec<usize> = (0..tokens.len()).filter(|&at| tokens[at].is_none()).collect();
    match wildcards[..] {
        [] => Some(tokens),
        [at] if at == 0 || at + 1 == tokens.len() => Some(tokens),
        _ => None,
    }
}

/// A host certificate's principal as OpenSSH's `match_pattern` reads it: nothing is escaped, and `?` is any
/// one byte, represented here by a NUL, since no principal contains one.
fn wildcards(principal: &[u8]) -> Vec<Option<u8>> {
    principal.iter().map(|byte| (*byte != b'*').then_some(if *byte == b'?' { 0 } else { *byte })).collect()
}

fn glob(tokens: &[Option<u8>], name: &[u8]) -> bool {
    match tokens {
        [] => name.is_empty(),
        [None, rest @ ..] => (0..=name.len()).any(|skipped| glob(rest, &name[skipped..])),
        [Some(0), rest @ ..] => !name.is_empty() && glob(rest, &name[1..]),
        [Some(byte), rest @ ..] => name.first() == Some(byte) && glob(rest, &name[1..]),
    }
}

/// An address in binary digits.
fn digits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:032b}", u32::from(address)),
        IpAddr::V6(address) => format!("{:0128b}", u128::from(address)),
    }
}

/// The digits of a network that count; `None` when there are not so many, or others are set.
fn leading(network: &Network) -> Option<String> {
    let all = digits(network.address);
    let counting = all.get(..usize::from(network.prefix))?;
    (!all[counting.len()..].contains('1')).then(|| counting.to_owned())
}

/// `ADDRESS` or `ADDRESS/BITS`, separated by commas: each lies in one of the networks.
fn all_inside(networks: &[Network], list: &[u8]) -> bool {
    let Ok(list) = std::str::from_utf8(list) else { return false };
    list.split(',').all(|entry| {
        let (address, bits) = entry.split_once('/').unwrap_or((entry, "all"));
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        let length = digits(address).len();
        let Some(prefix) = (0..=length).find(|n| n.to_string() == bits || bits == "all" && *n == length)
        else {
            return false;
        };
        let Some(asked) = leading(&Network { address, prefix: prefix as u8 }) else { return false };
        networks.iter().any(|network| {
            digits(network.address).len() == length
                && asked.starts_with(&leading(network).expect("well-formed"))
        })
    })
}
