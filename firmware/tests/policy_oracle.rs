//! Random templates, requests and states, most of them at the bound of some rule: the policy decides every
//! check like an oracle that was written from docs/templates.md.
//!
//! It runs through 50000 cases; for millions of them: `SSHSM_POLICY_CASES=5000000 cargo test --release -p
//! sshsm-firmware --test policy_oracle -- --nocapture`
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

#[path = "oracle/policy.rs"]
mod oracle;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ed25519_dalek::{Signer, SigningKey};
use hex_literal::hex;
use oracle::{Answer, Circumstances, Memory, Network, judge};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use sha2::{Digest, Sha256};
use sshsm_firmware::crypto::RustCrypto;
use sshsm_firmware::ssh::memory;
use sshsm_firmware::ssh::policy::{self, BothDomains, CaKey, Check, OnDevice, Outcome};
use sshsm_protocol::ssh::public_key::{PublicKey, SshCurve};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{Dialect, Template};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{DeviceError, Domains, ObjectId};

/// Cases of a run that asks for no other number.
const CASES: u32 = 50_000;
const NOW: u32 = 1_700_000_000;
const CA_PUBLIC: [u8; 32] = [7; 32];

static AUTHORITY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[2; 32]));

/// A number next to a bound that is known only later, or any number.
#[derive(Clone, Copy, Debug)]
enum Spot {
    /// Of several bounds this one, and so far from it.
    Near(usize, i128),
    At(u64),
}

impl Spot {
    fn find<const N: usize>(self, bounds: [i128; N]) -> u64 {
        match self {
            Self::Near(which, by) => (bounds[which % N] + by).clamp(0, i128::from(u64::MAX)) as u64,
            Self::At(number) => number,
        }
    }
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        9 => (0..6_usize, -1..=1_i128).prop_map(|(which, by)| Spot::Near(which, by)),
        2 => wide().prop_map(Spot::At),
    ]
}

fn wide() -> impl Strategy<Value = u64> {
    const ENDS: &[u64] = &[0, 1, 1_700_000_000, 0xffff_fffe, 0xffff_ffff, 1 << 32, u64::MAX - 1, u64::MAX];
    prop_oneof![3 => select(ENDS), 1 => any::<u64>()]
}

fn seconds() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => select(vec![60, 300, 3600, 36_000]),
        4 => select(vec![0, 1, 2, NOW - 1, NOW, NOW + 1, u32::MAX - 1, u32::MAX]),
        1 => any::<u32>(),
    ]
}

/// A rule that most templates lack.
fn rule<S: Strategy>(value: S) -> impl Strategy<Value = Option<S::Value>> {
    prop::option::weighted(0.2, value)
}

fn texts(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    select(of).prop_map(|text| text.as_bytes().to_vec())
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(select(&b"ab*?\\"[..]), 1..5)
}

fn long() -> impl Strategy<Value = Vec<u8>> {
    (254..=256_usize).prop_map(|length| vec![b'a'; length])
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[&str] = &[
        "alice",
        "alice",
        "alic",
        "alicex",
        "root",
        "zone-",
        "zone-web",
        "zone",
        "a.example.com",
        ".example.com",
        "example.com",
        "*",
        "a*",
        "al?ce",
        "Alice",
        "?.example.com",
        "*.example.com",
        "zone-*?",
        "\u{fc}",
    ];
    prop_oneof![30 => texts(NAMES), 8 => noise(), 1 => long()]
}

fn pattern() -> impl Strategy<Value = Vec<u8>> {
    const PATTERNS: &[&str] = &[
        "alice",
        "alice*",
        "alic*",
        "zone-*",
        "*.example.com",
        "*",
        "*",
        "a*",
        "*b",
        "root",
        "\\*",
        "a\\*",
        "a\\\\*",
        "*\\*",
        "\\\\",
        "*\u{fc}",
        "\\**",
    ];
    const NONE: &[&str] = &["", "**", "a*b", "\\a", "a\\"];
    prop_oneof![60 => texts(PATTERNS), 5 => noise(), 2 => long(), 1 => texts(NONE)]
}

const OPTIONS: &[&str] =
    &["force-command", "source-address", "verify-required", "permit-pty", "force-comman"];

/// Most names of options, or few.
fn options() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let all = OPTIONS.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    prop_oneof![
        30 => prop::sample::subsequence(all, 0..=OPTIONS.len()),
        30 => Just(OPTIONS[..4].iter().map(|name| name.as_bytes().to_vec()).collect()),
        1 => Just(vec![vec![]]),
    ]
}

fn commands() -> impl Strategy<Value = Vec<u8>> {
    texts(&["/bin/true", "/bin/true", "/bin/tru", "/bin/true ", "internal-sftp"])
}

fn network() -> impl Strategy<Value = Network> {
    let prefix = select(vec![0_u8, 1, 7, 8, 9, 24, 31, 32, 32, 33, 64, 127, 128, 128, 129]);
    let bits = select(vec![0x0a00_0000_u128, 0xffff_ffff, 0xc0a8_0101, 0]);
    (any::<bool>(), bits, prefix, 0..40_u8).prop_map(|(v6, bits, prefix, defect)| {
        let (bits, length) = if v6 { (bits << 96 | bits, 128) } else { (bits, 32) };
        let prefix = if defect == 0 { prefix } else { prefix.min(length) };
        // Mostly without a bit set after the prefix.
        let kept = if defect == 1 { bits } else { leading(bits, length, prefix) };
        Network { address: address(v6, kept), prefix }
    })
}

fn leading(bits: u128, length: u8, prefix: u8) -> u128 {
    let behind = u32::from(length.saturating_sub(prefix));
    bits.checked_shr(behind).map_or(0, |front| front << behind)
}

fn address(v6: bool, bits: u128) -> IpAddr {
    if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(bits as u32).into() }
}

/// How a requested network relates to an allowed one: which, and how.
type Beside = (usize, u8);

/// An option's name, whether it has a value, and what that is for a command and for a source address.
type AskedOption = (&'static str, Option<()>, Vec<u8>, Vec<Beside>);

/// A network, or an address, inside or next to one of the allowed ones; or something else.
fn asked(networks: &[Network], (which, how): Beside) -> String {
    const ELSE: [&str; 12] = [
        "",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::1/129",
        "fe80::1%eth0",
        "10.0.0.1/8",
        "::ffff:10.0.0.1",
        "010.0.0.0",
        "10.0.0.0/8 ",
        "0.0.0.0/0",
    ];
    let Some(Network { address: base, prefix }) = which.checked_rem(networks.len()).map(|at| &networks[at])
    else {
        return ELSE[which % ELSE.len()].to_owned();
    };
    let (v6, bits, length) = match base {
        IpAddr::V4(base) => (false, u128::from(u32::from(*base)), 32),
        IpAddr::V6(base) => (true, u128::from(*base), 128),
    };
    let prefix = *prefix;
    let rest = length - prefix.min(length);
    let most = u128::MAX >> (128 - u32::from(length));
    let size = 1_u128.checked_shl(rest.into()).unwrap_or(0);
    let shorter = prefix.saturating_sub(1);
    match how {
        0 | 1 => format!("{base}/{prefix}"),
        2 => format!("{base}/{}", prefix + 1),
        3 => format!("{base}/{shorter}"),
        4 => format!("{}/{shorter}", address(v6, leading(bits, length, shorter))),
        5 => format!("{}/{prefix}", address(v6, bits ^ size & most)),
        6 => base.to_string(),
        7 => address(v6, (bits | size.wrapping_sub(1)) & most).to_string(),
        8 => address(v6, bits.wrapping_add(size) & most).to_string(),
        9 => address(v6, bits.wrapping_sub(1) & most).to_string(),
        10 => format!("{}/{prefix}", address(!v6, bits)),
        _ => ELSE[which % ELSE.len()].to_owned(),
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Twice(usize),
    Missing(usize),
    Unknown(u8),
    Stretched(usize),
    Cut,
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || 0..28_usize;
    prop_oneof![
        place().prop_map(Damage::Twice),
        place().prop_map(Damage::Missing),
        select(vec![0, 7, 0x7f, 0x93, 0xff]).prop_map(Damage::Unknown),
        place().prop_map(Damage::Stretched),
        Just(Damage::Cut),
    ]
}

fn template() -> impl Strategy<Value = oracle::Template> {
    let list = |most| move |of: BoxedStrategy<Vec<u8>>| prop::collection::vec(of, 0..=most);
    // An empty list is rare where it would make the template malformed.
    let some =
        |of: BoxedStrategy<Vec<u8>>| prop_oneof![40 => prop::collection::vec(of, 1..4), 1 => Just(vec![])];
    let six = (
        prop_oneof![9 => Just(vec![3, 5]), 1 => prop::collection::vec(select(vec![0, 3, 5, 6, 0xffff]), 0..4)],
        seconds(),
        seconds(),
        prop_oneof![2 => Just(vec![b"root".to_vec()]), 1 => list(3)(name().boxed())],
    );
    let principals = (
        rule(prop_oneof![20 => 1..=3_u8, 1 => select(vec![0, 4, 255])]),
        rule(some(pattern().boxed())),
        rule(seconds()),
        rule(prop_oneof![40 => 1..4_u16, 1 => select(vec![0, 255, 256, 257, 65_535])]),
        prop::bool::weighted(0.2),
    );
    let options = (
        rule(options()),
        rule(options()),
        rule(
            prop_oneof![9 => prop::sample::subsequence(vec![b"force-command".to_vec(), b"verify-required".to_vec()], 1..=2), 1 => options()],
        ),
        rule(some(commands().boxed())),
        rule(prop_oneof![40 => prop::collection::vec(network(), 1..4), 1 => Just(vec![])]),
    );
    let bits = select(vec![0, 1, 8, 9, 1024, 2047, 2048, 2049, 3072]);
    let bits = prop_oneof![60 => bits, 1 => Just(u16::MAX)];
    let kinds = prop::collection::vec(prop_oneof![60 => 1..=7_u8, 1 => select(vec![0, 8])], 1..7);
    let codes = select(vec![1, 2, 4, 43, 44, 45, 46, 46]);
    let codes = prop_oneof![60 => codes, 1 => select(vec![0_u8, 3, 5, 47, 255])];
    let serials = (wide(), wide(), 0..10_u8).prop_map(|(one, other, swapped)| {
        if swapped == 0 { (one, other) } else { (one.min(other), one.max(other)) }
    });
    let signatures = prop_oneof![20 => 1..5_u8, 2 => select(vec![63, 64]), 1 => select(vec![0, 65, 255])];
    let others = (
        rule((bits, prop_oneof![40 => kinds, 1 => Just(vec![])])),
        rule(some(pattern().boxed())),
        rule(serials),
        prop::bool::weighted(0.2),
        rule(prop_oneof![40 => prop::collection::vec(codes, 1..6), 1 => Just(vec![])]),
        rule(seconds()),
        rule((signatures, seconds())),
        rule(prop::option::of(seconds())),
        prop::bool::weighted(0.2),
    );
    let steps = (
        prop::bool::weighted(0.3),
        rule(prop_oneof![20 => select(vec![1_u64, 2, 10, 1 << 40]), 2 => wide(), 1 => Just(0)]),
        rule((seconds(), prop::option::of(seconds()))),
    );
    let all = (six, principals, options, others, steps);
    all.prop_map(|(six, principals, options, others, steps)| oracle::Template {
        ca_keys: six.0,
        not_before: six.1,
        not_after: six.2,
        forbid_principals: six.3,
        certificate_types: principals.0,
        allow_principals: principals.1,
        max_lifetime: principals.2,
        max_principals: principals.3,
        allow_empty_principals: principals.4,
        allow_extensions: options.0,
        allow_critical_options: options.1,
        require_critical_options: options.2,
        force_command: options.3,
        source_address: options.4,
        subject_keys: others.0,
        key_id: others.1,
        serials: others.2,
        // A step has something to bound, except in a few templates.
        increasing_serials: others.3 || steps.1.is_some_and(|step| step != 10),
        signature_algorithms: others.4,
        clock: others.5.or(steps.2.filter(|(step, _)| step % 2 == 0).map(|(step, _)| step % 61)),
        quota: others.6,
        presence: others.7,
        sealed: others.8,
        host_patterns: steps.0,
        serials_max_step: steps.1,
        clock_max_step: steps.2,
        damaged: false,
    })
}

#[derive(Clone, Debug)]
struct Case {
    template: oracle::Template,
    request: oracle::Request,
    at: Circumstances,
    /// How the template's fields are turned round.
    turn: usize,
    damage: Option<Damage>,
    /// Whether the request lacks its last byte, or has one more.
    request_damage: Option<bool>,
    dialect: Dialect,
}

fn case() -> impl Strategy<Value = Case> {
    let option = || {
        let places = prop::collection::vec((0..24_usize, 0..12_u8), 1..3);
        (select(OPTIONS), prop::option::weighted(0.9, Just(())), commands(), places)
    };
    let request = (
        (1..=7_u8, spot(), spot(), any::<bool>(), name(), prop::bool::weighted(0.02)),
        prop_oneof![1 => Just(vec![]), 12 => prop::collection::vec(name(), 1..4)],
        prop::option::weighted(0.3, spot()),
        (spot(), spot()),
        prop::collection::vec(option(), 0..4),
        prop::collection::vec(option(), 0..3),
        prop::bool::weighted(0.95),
    );
    let memory = (
        prop::option::of(wide()),
        prop::option::weighted(0.8, spot()),
        prop::collection::vec(spot(), 0..6),
        0..20_u8,
    );
    let at = (
        prop_oneof![3 => Just(NOW), 1 => seconds()],
        prop_oneof![14 => Just(Answer::Undecided), 5 => Just(Answer::Allowed), 1 => Just(Answer::Refused)],
        prop_oneof![9 => Just(5_u16), 1 => select(vec![3, 6, 0xfffe])],
        prop_oneof![3 => Just(46_u8), 2 => select(vec![1, 2, 4, 43, 44, 45])],
        prop::option::weighted(0.85, memory),
    );
    let domains = prop_oneof![
        8 => Just((0xffff_u16, 1_u16)),
        1 => (select(vec![1_u16, 2, 6, 0x8000, 0]), select(vec![1_u16, 3, 4, 0x8001, 0xffff])),
    ];
    let at = (at, prop::option::weighted(0.9, domains));
    let form = (
        0..50_usize,
        prop::option::weighted(0.03, damage()),
        prop::option::weighted(0.02, any::<bool>()),
        prop::bool::weighted(0.03),
    );
    (template(), request, at, form).prop_map(|(template, request, at, form)| {
        let (
            (subject_kind, rsa_bits, serial, host, key_id, odd_key),
            principals,
            count,
            times,
            critical,
            extensions,
            own,
        ) = request;
        let ((now, timestamp, ca_key, algorithm, memory), domains) = at;
        let place = i128::from(now);
        let memory = memory.map(|(last_serial, highest, marks, full)| {
            let highest_now = highest.map(|highest| {
                let bound = place + i128::from(template.clock.unwrap_or_default());
                let step = template.clock_max_step.map_or(0, |(step, _)| i128::from(step));
                highest.find([bound, place, place - step]).min(u64::from(u32::MAX)) as u32
            });
            let (signatures, window) = template.quota.unwrap_or((1, 100));
            let mut times: Vec<_> = marks
                .into_iter()
                .map(|mark| mark.find([place - i128::from(window), place]).min(u64::from(u32::MAX)) as u32)
                .collect();
            if full == 0 {
                times.resize(usize::from(signatures.min(65)) - usize::from(signatures > 0), now);
            }
            times.truncate(64);
            Memory { last_serial, highest_now, times }
        });
        let remembered = memory.as_ref().and_then(|memory| memory.last_serial).unwrap_or(1);
        let (first, last) = template.serials.unwrap_or((remembered, remembered));
        let least = template.subject_keys.as_ref().map_or(2048, |(least, _)| *least);
        let mut named = principals;
        if let (Some(count), Some(most)) = (count, template.max_principals) {
            named.resize(count.find([most.into()]).min(258) as usize, b"alice".to_vec());
        }
        let valid_after = times.0.find([place - i128::from(template.not_before)]);
        let valid_before = times.1.find([
            place + i128::from(template.not_after),
            i128::from(valid_after) + i128::from(template.max_lifetime.unwrap_or(60)),
            i128::from(valid_after),
        ]);
        let networks = template.source_address.as_deref().unwrap_or_default();
        let options = |list: Vec<AskedOption>| {
            let options: BTreeMap<_, _> = list
                .into_iter()
                .map(|(name, valued, command, places)| {
                    let value = match name {
                        "source-address" => {
                            let list: Vec<_> =
                                places.into_iter().map(|place| asked(networks, place)).collect();
                            list.join(",").into_bytes()
                        }
                        _ => command,
                    };
                    (name.as_bytes().to_vec(), valued.map(|()| value))
                })
                .collect();
            options.into_iter().collect()
        };
        let request = oracle::Request {
            subject_kind,
            rsa_bits: rsa_bits
                .find([least.into(), 1024, least.into(), 2048])
                .clamp(1, if least == u16::MAX { 65_535 } else { 4096 }) as u16,
            odd_key: odd_key && subject_kind != 5,
            serial: serial.find([
                first.into(),
                last.into(),
                remembered.into(),
                i128::from(remembered) + i128::from(template.serials_max_step.unwrap_or_default()),
                i128::from(first) - 1 + i128::from(template.serials_max_step.unwrap_or_default()),
            ]),
            host,
            key_id,
            principals: named,
            valid_after,
            valid_before,
            critical: options(critical),
            extensions: options(extensions),
            names_ca_key: own,
            damaged: false,
        };
        let list = |bits: u16| (1..=16_u8).filter(|domain| bits >> (domain - 1) & 1 == 1).collect();
        let domains = domains.map(|(ca_key, template)| (list(ca_key), list(template)));
        let at = Circumstances { now, timestamp, ca_key, algorithm, memory, domains };
        let dialect = if form.3 { Dialect::Yubihsm2 } else { Dialect::Extended };
        Case { template, request, at, turn: form.0, damage: form.1, request_damage: form.2, dialect }
    })
}

/// The bytes of a template, fields and all written out here; and whether it is damaged.
fn template_bytes(case: &Case) -> (Vec<u8>, bool) {
    let t = &case.template;
    let terminated = |names: &[Vec<u8>]| -> Vec<u8> {
        names.iter().flat_map(|name| [name.as_slice(), &[0]].concat()).collect()
    };
    let networks = |networks: &[Network]| -> Vec<u8> {
        let network = |network: &Network| match network.address {
            IpAddr::V4(address) => [&[4, network.prefix], &address.octets()[..]].concat(),
            IpAddr::V6(address) => [&[6, network.prefix], &address.octets()[..]].concat(),
        };
        networks.iter().flat_map(network).collect()
    };
    let flag = |set: bool| set.then(Vec::new);
    let number = |number: Option<u32>| number.map(|number| number.to_be_bytes().to_vec());
    let fields: [(u8, Option<Vec<u8>>); 28] = [
        (1, Some(vec![46])),
        (2, Some(AUTHORITY.verifying_key().to_bytes().to_vec())),
        (3, Some(t.ca_keys.iter().flat_map(|id| id.to_be_bytes()).collect())),
        (4, number(Some(t.not_before))),
        (5, number(Some(t.not_after))),
        (6, Some(terminated(&t.forbid_principals))),
        (0x80, t.certificate_types.map(|types| vec![types])),
        (0x81, t.allow_principals.as_deref().map(terminated)),
        (0x82, number(t.max_lifetime)),
        (0x83, t.max_principals.map(|most| most.to_be_bytes().to_vec())),
        (0x84, flag(t.allow_empty_principals)),
        (0x85, t.allow_extensions.as_deref().map(terminated)),
        (0x86, t.allow_critical_options.as_deref().map(terminated)),
        (0x87, t.require_critical_options.as_deref().map(terminated)),
        (0x88, t.force_command.as_deref().map(terminated)),
        (0x89, t.source_address.as_deref().map(networks)),
        (0x8a, t.subject_keys.as_ref().map(|(bits, kinds)| [&bits.to_be_bytes(), kinds.as_slice()].concat())),
        (0x8b, t.key_id.as_deref().map(terminated)),
        (0x8c, t.serials.map(|(first, last)| [first.to_be_bytes(), last.to_be_bytes()].concat())),
        (0x8d, flag(t.increasing_serials)),
        (0x8e, t.signature_algorithms.clone()),
        (0x8f, number(t.clock)),
        (0x90, t.quota.map(|(signatures, window)| [&[signatures], &window.to_be_bytes()[..]].concat())),
        (0x91, t.presence.map(|above| above.map_or(vec![], |above| above.to_be_bytes().to_vec()))),
        (0x92, flag(t.sealed)),
        (0x97, flag(t.host_patterns)),
        (0x98, t.serials_max_step.map(|step| step.to_be_bytes().to_vec())),
        (
            0x99,
            t.clock_max_step.map(|(step, since)| {
                let since = since.map_or(vec![], |since| since.to_be_bytes().to_vec());
                [step.to_be_bytes().to_vec(), since].concat()
            }),
        ),
    ];
    let mut fields: Vec<_> = fields.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect();
    let strict = case.dialect == Dialect::Yubihsm2 && fields.len() > 6;
    let count = fields.len();
    match case.damage {
        Some(Damage::Twice(place)) => fields.push(fields[place % count].clone()),
        Some(Damage::Missing(place)) => drop(fields.remove(place % 6)),
        Some(Damage::Unknown(tag)) => fields.push((tag, vec![])),
        // Neither NUL nor the number of anything.
        Some(Damage::Stretched(place)) => fields[place % count].1.push(b'x'),
        Some(Damage::Cut) | None => {}
    }
    let count = fields.len();
    fields.rotate_left(case.turn % count);
    if case.turn % 2 == 1 {
        fields.reverse();
    }
    let mut bytes = Vec::new();
    for (tag, value) in fields {
        bytes.push(tag);
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value);
    }
    if let Some(Damage::Cut) = case.damage {
        bytes.pop();
    }
    (bytes, case.damage.is_some() || strict)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// The base points of P-256, P-384 and P-521 (SEC 2, sections 2.4 to 2.6).
const BASE_POINTS: [&[u8]; 3] = [
    &hex!(
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    ),
    &hex!(
        "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7"
        "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f"
    ),
    &hex!(
        "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66"
        "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650"
    ),
];

/// The certificate type and the fields of a key (RFC 4253, RFC 5656, PROTOCOL.certkeys, PROTOCOL.u2f). An odd
/// one has the exponent 1, is off its curve, or has an application with a NUL.
fn subject(kind: u8, bits: u16, odd: bool) -> (&'static str, Vec<u8>) {
    let point = |name: &str, length: usize| {
        let mut point = BASE_POINTS.iter().find(|point| point.len() == length).unwrap().to_vec();
        point[length / 2] ^= u8::from(odd && kind != 6);
        [string(name.as_bytes()), string(&[&[4], point.as_slice()].concat())].concat()
    };
    let application = || string(if odd { b"ssh:\0" } else { b"ssh:" });
    match kind {
        1 => {
            let top = 1_u8 << ((bits - 1) % 8);
            let mut modulus = vec![0xff; usize::from(bits).div_ceil(8)];
            modulus[0] = top;
            if top == 0x80 {
                modulus.insert(0, 0);
            }
            let exponent: &[u8] = if odd { &[1] } else { &[1, 0, 1] };
            ("ssh-rsa", [string(exponent), string(&modulus)].concat())
        }
        2 => ("ecdsa-sha2-nistp256", point("nistp256", 64)),
        3 => ("ecdsa-sha2-nistp384", point("nistp384", 96)),
        4 => ("ecdsa-sha2-nistp521", point("nistp521", 132)),
        5 => ("ssh-ed25519", string(&[4; 32])),
        6 => ("sk-ecdsa-sha2-nistp256", [point("nistp256", 64), application()].concat()),
        _ => ("sk-ssh-ed25519", [string(&[4; 32]), application()].concat()),
    }
}

fn request_bytes(case: &Case) -> Vec<u8> {
    let r = &case.request;
    let (name, key) = subject(r.subject_kind, r.rsa_bits, r.odd_key);
    let options = |list: &[(Vec<u8>, Option<Vec<u8>>)]| {
        let value = |value: &Option<Vec<u8>>| value.as_ref().map_or(vec![], |value| string(value));
        let list: Vec<u8> =
            list.iter().flat_map(|(name, text)| [string(name), string(&value(text))].concat()).collect();
        string(&list)
    };
    let mut signature_key = CA_PUBLIC;
    signature_key[31] ^= u8::from(!r.names_ca_key);
    let principals: Vec<u8> = r.principals.iter().flat_map(|name| string(name)).collect();
    let mut bytes = [
        string(format!("{name}-cert-v01@openssh.com").as_bytes()),
        string(&[9; 32]),
        key,
        r.serial.to_be_bytes().to_vec(),
        vec![0, 0, 0, 1 + u8::from(r.host)],
        string(&r.key_id),
        string(&principals),
        r.valid_after.to_be_bytes().to_vec(),
        r.valid_before.to_be_bytes().to_vec(),
        options(&r.critical),
        options(&r.extensions),
        string(b""),
        string(&[string(b"ssh-ed25519"), string(&signature_key)].concat()),
    ]
    .concat();
    match case.request_damage {
        Some(true) => bytes.push(0),
        Some(false) => drop(bytes.pop()),
        None => {}
    }
    bytes
}

fn algorithm(code: u8) -> SignatureAlgorithm {
    match code {
        1 => SignatureAlgorithm::RsaSha1,
        2 => SignatureAlgorithm::RsaSha256,
        4 => SignatureAlgorithm::RsaSha512,
        43 => SignatureAlgorithm::Ecdsa(SshCurve::P256),
        44 => SignatureAlgorithm::Ecdsa(SshCurve::P384),
        45 => SignatureAlgorithm::Ecdsa(SshCurve::P521),
        _ => SignatureAlgorithm::Ed25519,
    }
}

/// The verdicts of the oracle and the policy, each with the check's name.
fn both(mut case: Case) -> Vec<(&'static str, Answer, Answer)> {
    let (template, damaged) = template_bytes(&case);
    let request = request_bytes(&case);
    (case.template.damaged, case.request.damaged) = (damaged, case.request_damage.is_some());
    let expected = judge(&case.template, &case.request, &case.at);
    let needs_touch = oracle::needs_touch(&case.template, &case.request, &case.at);

    let Circumstances { now, timestamp, ca_key, algorithm: code, memory, domains } = &case.at;
    let template = Template::decode_dialect(&template, case.dialect);
    let signature = match timestamp {
        Answer::Allowed | Answer::Refused => {
            let forged = u32::from(*timestamp == Answer::Refused);
            let said = [&Sha256::digest(&request)[..], &(now ^ forged).to_be_bytes()].concat();
            Some(AUTHORITY.sign(&said).to_bytes())
        }
        Answer::Undecided => None,
    };
    let ca_key = CaKey {
        id: ObjectId::new(*ca_key).unwrap(),
        public: PublicKey::Ed25519(&CA_PUBLIC),
        algorithm: algorithm(*code),
    };
    let memory = memory.clone().map(|Memory { last_serial, highest_now, times }| {
        let memory = memory::Memory { last_serial, highest_now, times };
        // As on a device, which keeps it in its flash.
        memory::Memory::decode(&memory.encode()).unwrap()
    });
    let bits = |list: &[u8]| Domains::from_bits(list.iter().fold(0, |bits, domain| bits | 1 << (domain - 1)));
    let domains = domains
        .as_ref()
        .map(|(ca_key, template)| BothDomains { ca_key: bits(ca_key), template: bits(template) });
    let verdict = policy::judge::<RustCrypto>(&policy::Case {
        template: &template,
        request: &request,
        now: Now::from_seconds(*now),
        timestamp_signature: signature.as_ref().map(|signature| signature.as_slice()),
        ca_key,
        device: OnDevice { memory: memory.as_ref(), domains },
    });

    let allowed = expected.iter().all(|(_, answer)| *answer == Answer::Allowed);
    let unreadable = expected[1].1 == Answer::Refused;
    let error = if unreadable { DeviceError::InvalidData } else { DeviceError::SshCaConstraintViolation };
    assert_eq!(verdict.is_allowed(), allowed);
    assert_eq!(expected.len(), Check::ALL.len());
    let found = verdict.findings().iter().map(|finding| match finding.outcome {
        Outcome::Allowed => (finding.check.name(), Answer::Allowed),
        Outcome::Refused => (finding.check.name(), Answer::Refused),
        Outcome::Undecided => (finding.check.name(), Answer::Undecided),
    });
    let named = |((name, expected), (check, found))| {
        assert_eq!(name, check);
        (name, expected, found)
    };
    let both = expected.into_iter().zip(found).map(named).collect();
    match verdict.permit() {
        Ok(permit) => {
            assert!(allowed);
            assert_eq!(permit.request(), request);
            assert_eq!(permit.needs_touch(), needs_touch);
            let counted = case.template.increasing_serials
                || case.template.clock.is_some()
                || case.template.quota.is_some();
            assert_eq!(permit.memory().is_some(), counted);
        }
        Err(refusal) => assert_eq!((allowed, DeviceError::from(refusal)), (false, error)),
    }
    both
}

#[test]
fn the_policy_decides_every_check_as_the_oracle_does() {
    let cases = std::env::var("SSHSM_POLICY_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let counts = RefCell::new(BTreeMap::<&str, [u32; 3]>::new());
    let count = |name, answer| counts.borrow_mut().entry(name).or_default()[answer as usize] += 1;
    let result = TestRunner::new(config).run(&case(), |case| {
        let answers = both(case);
        let all = answers.iter().all(|(_, answer, _)| *answer == Answer::Allowed);
        count("(all)", if all { Answer::Allowed } else { Answer::Refused });
        for (name, expected, found) in answers {
            prop_assert_eq!(expected, found, "{}: the oracle left, the policy right", name);
            count(name, expected);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // The cases are meaningful: each check has every possible outcome.
    for (name, [allowed, refused, undecided]) in counts.into_inner() {
        println!("{name:<24} {allowed:>8} allowed {refused:>8} refused {undecided:>8} undecided");
        let rare = cases / 500;
        assert!(allowed > rare && (refused > rare || ["presence", "sealed"].contains(&name)), "{name}");
    }
}
