//! The extension tags of templates: for each, a certificate at its bound that is signed, and one beyond it
//! that only this rule refuses, by the policy and on the wire; and the state that a device keeps, through
//! power cuts.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "model/case.rs"]
mod case;
#[path = "model/forger.rs"]
mod forger;
mod model;
#[path = "model/rsa_key.rs"]
#[allow(dead_code)]
mod rsa_key;

use std::num::{NonZeroU16, NonZeroU64};

use case::{Case, NOW, TEMPLATE_ID, only, still_allowed};
use model::{Flash, ModelDevice, Object, Session};
use sshsm_firmware::platform::Presence;
use sshsm_firmware::ssh::memory::Memory;
use sshsm_firmware::ssh::policy::{BaseCheck, Check, Outcome, Refusal};
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::ssh::explanation;
use sshsm_protocol::ssh::public_key::{PublicKey, SshCurve};
use sshsm_protocol::ssh::request::{CertificateKind, SubjectKey};
use sshsm_protocol::ssh::rules::{
    CertificateTypes, ClockStep, Names, Networks, Patterns, Presence as PresenceRule, Quota, RuleTag, Rules,
    Serials, SignatureAlgorithms, SomeNames, SubjectKeys,
};
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, DeviceError, Domains,
};

fn names(value: &'static [u8]) -> Option<Names<'static>> {
    Some(Names::decode(value).unwrap())
}

fn some_names(value: &'static [u8]) -> Option<SomeNames<'static>> {
    Some(SomeNames::decode(value).unwrap())
}

fn patterns(value: &'static [u8]) -> Option<Patterns<'static>> {
    Some(Patterns::decode(value).unwrap())
}

#[test]
fn only_allowed_certificate_types_are_signed() {
    for (allowed, other) in
        [(CertificateKind::User, CertificateKind::Host), (CertificateKind::Host, CertificateKind::User)]
    {
        let rule = CertificateTypes::new(&[allowed]);
        still_allowed(|case| (case.rules.certificate_types, case.kind) = (rule, allowed));
        only(Check::Rule(RuleTag::CertificateTypes), |case| {
            (case.rules.certificate_types, case.kind) = (rule, other);
        });
    }
    let both = CertificateTypes::new(&[CertificateKind::User, CertificateKind::Host]);
    still_allowed(|case| (case.rules.certificate_types, case.kind) = (both, CertificateKind::Host));
}

#[test]
fn every_principal_must_match_a_pattern() {
    let rule = patterns(b"alice\0zone-*\0*.example.com\0");
    for principals in
        [vec![b"alice".as_slice()], vec![b"zone-web", b"alice"], vec![b"zone-", b"a.example.com"]]
    {
        still_allowed(|case| (case.rules.allow_principals, case.principals) = (rule, principals));
    }
    for principals in
        [vec![b"bob".as_slice()], vec![b"alice", b"alicex"], vec![b"zone"], vec![b"example.com"]]
    {
        only(Check::Rule(RuleTag::AllowPrincipals), |case| {
            (case.rules.allow_principals, case.principals) = (rule, principals);
        });
    }
    // A forbidden principal stays forbidden.
    only(Check::Base(BaseCheck::ForbidPrincipals), |case| {
        (case.rules.allow_principals, case.principals) = (patterns(b"*\0"), vec![b"root".as_slice()]);
    });
}

#[test]
fn a_host_certificate_names_patterns_where_a_rule_allows_them() {
    let naming = |forbidden: &'static [u8], allowed, principals: &[&'static [u8]]| {
        let principals = principals.to_vec();
        move |case: &mut Case| {
            case.rules.host_patterns = true;
            (case.rules.allow_principals, case.forbidden) = (allowed, forbidden.to_vec());
            (case.kind, case.principals) = (CertificateKind::Host, principals);
        }
    };
    const BASTION: &[u8] = b"bastion.example.com\0";
    for principals in [[b"*.example.org".as_slice()], [b"w?b*"], [b"bastion.*.com.au"], [b"?"]] {
        still_allowed(naming(BASTION, None, &principals));
    }
    for principals in [[b"*".as_slice()], [b"b?stion.example.com"], [b"*.EXAMPLE.com"], [b"bast*"]] {
        only(Check::Base(BaseCheck::ForbidPrincipals), naming(BASTION, None, &principals));
    }
    // An allow-list has to match every host that the pattern can match.
    let rule = patterns(b"*.example.com\0web*\0db\0");
    for principals in
        [[b"*.example.com".as_slice()], [b"?.a.example.com"], [b"web?"], [b"web*.org"], [b"db"], [b"web"]]
    {
        still_allowed(naming(b"", rule, &principals));
    }
    for principals in
        [[b"*".as_slice()], [b"*example.com"], [b"a.example.co?"], [b"we?"], [b"d?"], [b"db*"], [b"*web"]]
    {
        only(Check::Rule(RuleTag::AllowPrincipals), naming(b"", rule, &principals));
    }
    // A user's name is a name: the rule does not apply to it.
    still_allowed(|case| {
        case.rules.host_patterns = true;
        case.principals = vec![b"r??t", b"*"];
    });
    only(Check::Rule(RuleTag::AllowPrincipals), |case| {
        (case.rules.host_patterns, case.rules.allow_principals) = (true, patterns(b"r*\0"));
        case.principals = vec![b"r*", b"?"];
    });
}

#[test]
fn a_certificate_lasts_no_longer_than_allowed() {
    let lasting = |seconds: u64| {
        move |case: &mut Case| {
            case.rules.max_lifetime = Some(3600);
            case.valid_after = u64::from(NOW);
            case.valid_before = u64::from(NOW) + seconds;
        }
    };
    still_allowed(lasting(3599));
    still_allowed(lasting(3600));
    only(Check::Rule(RuleTag::MaxLifetime), lasting(3601));
    // One that is never valid lasts for nothing.
    still_allowed(|case| {
        case.rules.max_lifetime = Some(0);
        (case.valid_after, case.valid_before) = (u64::from(NOW), u64::from(NOW) - 1);
    });
    only(Check::Rule(RuleTag::MaxLifetime), |case| {
        case.rules.max_lifetime = Some(u32::MAX);
        (case.not_before, case.not_after, case.valid_after, case.valid_before) = (0, u32::MAX, 0, u64::MAX);
    });
}

#[test]
fn principals_are_counted() {
    let most = |most| move |case: &mut Case| case.rules.max_principals = NonZeroU16::new(most);
    only(Check::Rule(RuleTag::MaxPrincipals), most(1));
    still_allowed(most(2));
    still_allowed(most(3));
    still_allowed(|case| (case.rules.allow_empty_principals, case.principals) = (true, vec![]));
}

#[test]
fn options_beyond_the_allowed_ones_are_refused() {
    let pty = vec![("permit-pty", None)];
    for (rule, allowed) in
        [(names(b"permit-pty\0"), true), (names(b"permit-X11-forwarding\0"), false), (names(b""), false)]
    {
        let change = |case: &mut Case| (case.rules.allow_extensions, case.extensions) = (rule, pty.clone());
        if allowed { still_allowed(change) } else { only(Check::Rule(RuleTag::AllowExtensions), change) }
    }
    still_allowed(|case| case.rules.allow_extensions = names(b""));
    let force = vec![("force-command", Some("/bin/true"))];
    only(Check::Rule(RuleTag::AllowCriticalOptions), |case| {
        (case.rules.allow_critical_options, case.critical) = (names(b"source-address\0"), force.clone());
    });
    still_allowed(|case| {
        (case.rules.allow_critical_options, case.critical) = (names(b"force-command\0"), force.clone());
    });
}

#[test]
fn required_options_must_be_there() {
    let rule = some_names(b"force-command\0verify-required\0");
    let both = vec![("force-command", Some("x")), ("verify-required", None)];
    still_allowed(|case| (case.rules.require_critical_options, case.critical) = (rule, both.clone()));
    for critical in [vec![], both[..1].to_vec(), both[1..].to_vec()] {
        only(Check::Rule(RuleTag::RequireCriticalOptions), |case| {
            (case.rules.require_critical_options, case.critical) = (rule, critical);
        });
    }
    // As an extension it is none.
    only(Check::Rule(RuleTag::RequireCriticalOptions), |case| {
        (case.rules.require_critical_options, case.extensions) = (rule, both);
    });
}

#[test]
fn a_forced_command_is_one_of_the_allowed_ones_to_the_byte() {
    let rule = some_names(b"/bin/true\0internal-sftp\0");
    let forcing = |value| {
        move |case: &mut Case| {
            case.rules.force_command = rule;
            case.critical = vec![("force-command", value)];
        }
    };
    still_allowed(forcing(Some("internal-sftp")));
    still_allowed(|case| case.rules.force_command = rule);
    for value in [None, Some("/bin/true "), Some("/bin/tru"), Some("/bin/true\0internal-sftp"), Some("")] {
        only(Check::Rule(RuleTag::ForceCommand), forcing(value));
    }
}

#[test]
fn a_source_address_lies_in_an_allowed_network() {
    let rule = Some(
        Networks::decode(&[4, 8, 10, 0, 0, 0, 6, 16, 0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .unwrap(),
    );
    let from = |value| {
        move |case: &mut Case| {
            case.rules.source_address = rule;
            case.critical = vec![("source-address", value)];
        }
    };
    for value in ["10.0.0.0/8", "10.255.255.255", "10.1.0.0/16,2001::1", "2001:ffff::/32"] {
        still_allowed(from(Some(value)));
    }
    still_allowed(|case| case.rules.source_address = rule);
    for value in [
        None,
        Some("9.255.255.255"),
        Some("11.0.0.0"),
        Some("10.0.0.0/7"),
        Some("10.0.0.1,2002::1"),
        Some(""),
    ] {
        only(Check::Rule(RuleTag::SourceAddress), from(value));
    }
}

#[test]
fn only_allowed_kinds_of_keys_are_certified() {
    let kinds: &[u8] = &[0, 0, 2, 7];
    let rule = Some(SubjectKeys::decode(kinds).unwrap());
    let certifying =
        |subject| move |case: &mut Case| (case.rules.subject_keys, case.subject) = (rule, subject);
    // The curve's base point (SEC 2, section 2.4.2).
    const P256: [u8; 64] = hex_literal::hex!(
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    );
    let p256 = PublicKey::Ecdsa { curve: SshCurve::P256, point: &P256 };
    let ed25519 = PublicKey::Ed25519(&[4; 32]);
    still_allowed(certifying(SubjectKey::Plain(p256)));
    still_allowed(certifying(SubjectKey::SecurityKey { key: ed25519, application: b"ssh:" }));
    only(Check::Rule(RuleTag::SubjectKeys), certifying(SubjectKey::Plain(ed25519)));
    only(
        Check::Rule(RuleTag::SubjectKeys),
        certifying(SubjectKey::SecurityKey { key: p256, application: b"ssh:" }),
    );

    // RSA: 2048 bits and one less.
    let rule = Some(SubjectKeys::decode(&[8, 0, 1]).unwrap());
    const LONG: [u8; 256] = [0x80; 256];
    const SHORT: [u8; 256] = [0x7f; 256];
    let rsa = |modulus| {
        move |case: &mut Case| {
            case.rules.subject_keys = rule;
            case.subject = SubjectKey::Plain(PublicKey::Rsa { exponent: &[1, 0, 1], modulus });
        }
    };
    still_allowed(rsa(&LONG));
    only(Check::Rule(RuleTag::SubjectKeys), rsa(&SHORT));
}

#[test]
fn the_key_id_must_match() {
    let id = |key_id| {
        move |case: &mut Case| (case.rules.key_id, case.key_id) = (patterns(b"*@example.com\0"), key_id)
    };
    still_allowed(id(b"alice@example.com"));
    only(Check::Rule(RuleTag::KeyId), id(b"alice@example.org"));
    only(Check::Rule(RuleTag::KeyId), id(b""));
}

#[test]
fn serial_numbers_lie_in_the_range() {
    let serial = |serial| {
        move |case: &mut Case| {
            (case.rules.serials, case.serial) = (Some(Serials { first: 5, last: u64::MAX - 1 }), serial);
        }
    };
    for inside in [5, 6, u64::MAX - 1] {
        still_allowed(serial(inside));
    }
    for outside in [0, 4, u64::MAX] {
        only(Check::Rule(RuleTag::Serials), serial(outside));
    }
}

#[test]
fn the_ca_key_signs_with_allowed_algorithms_only() {
    let rule = |codes: &'static [u8]| Some(SignatureAlgorithms::decode(codes).unwrap());
    still_allowed(|case| case.rules.signature_algorithms = rule(&[46]));
    only(Check::Rule(RuleTag::SignatureAlgorithms), |case| case.rules.signature_algorithms = rule(&[43]));
    // The same RSA key with SHA-1 and with SHA-512: 0x01 and 0x04.
    const SHA512: &[u8] = &[4];
    for (signature, allowed) in [(Algorithm::RsaPkcs1Sha512, true), (Algorithm::RsaPkcs1Sha1, false)] {
        let change = |case: &mut Case| {
            case.ca_algorithm = AsymmetricAlgorithm::Rsa3072;
            case.ca_private = rsa_key::LARGE[0].1.to_vec();
            case.signature = Some(signature);
            case.rules.signature_algorithms = rule(SHA512);
        };
        if allowed { still_allowed(change) } else { only(Check::Rule(RuleTag::SignatureAlgorithms), change) }
    }
}

/// A device under one template that is asked again and again.
struct Asked {
    device: ModelDevice,
    session: Session,
    case: Case,
}

impl Asked {
    fn new(rules: Rules<'static>) -> Self {
        let mut case = Case::new();
        case.rules = rules;
        let (device, session) = case.device();
        Self { device, session, case }
    }

    /// Asks for a certificate with this serial number at this time.
    fn ask(&mut self, serial: u64, now: u32) -> Result<(), DeviceError> {
        let case = &mut self.case;
        (case.serial, case.now, case.signed_now) = (serial, now, now);
        case.valid_after = u64::from(now);
        case.valid_before = u64::from(now) + 60;
        self.session.send(&mut self.device, Command::SignSshCertificate, &case.payload()).map(drop)
    }

    fn told(&mut self) -> String {
        self.device.platform().decisions.last().unwrap().clone()
    }

    fn restart(&mut self) {
        let chip = self.device.flash().unwrap().copy();
        self.device = model::start(chip);
        self.session = Session::admin(&mut self.device);
    }
}

const REFUSED: Result<(), DeviceError> = Err(DeviceError::SshCaConstraintViolation);

#[test]
fn serial_numbers_increase_from_signature_to_signature() {
    let mut asked = Asked::new(Rules { increasing_serials: true, ..Rules::default() });
    assert_eq!(asked.ask(7, NOW), Ok(()));
    assert_eq!((asked.ask(7, NOW), asked.ask(6, NOW)), (REFUSED, REFUSED));
    let told = asked.told();
    assert!(told.contains("greater than 7"), "{told}");
    assert_eq!(asked.ask(8, NOW), Ok(()));
    assert_eq!(asked.ask(u64::MAX, NOW), Ok(()));
    assert_eq!(asked.ask(u64::MAX, NOW), REFUSED);
}

#[test]
fn now_goes_back_no_further_than_the_tolerance() {
    let mut asked = Asked::new(Rules { clock: Some(60), ..Rules::default() });
    assert_eq!(asked.ask(1, NOW), Ok(()));
    assert_eq!((asked.ask(1, NOW - 60), asked.ask(1, NOW - 61)), (Ok(()), REFUSED));
    assert_eq!(asked.ask(1, NOW + 1000), Ok(()));
    assert_eq!((asked.ask(1, NOW + 939), asked.ask(1, NOW + 940)), (REFUSED, Ok(())));
}

#[test]
fn serial_numbers_increase_by_no_more_than_the_step() {
    let rules = Rules {
        increasing_serials: true,
        serials_max_step: NonZeroU64::new(10),
        sealed: true,
        ..Rules::default()
    };
    let mut asked = Asked::new(rules);
    // The first is counted from nothing: no number uses up all others.
    assert_eq!((asked.ask(u64::MAX, NOW), asked.ask(11, NOW)), (REFUSED, REFUSED));
    assert!(asked.told().contains("serials-max-step          refused    11 "), "{}", asked.told());
    assert!(asked.told().contains("at most 10\n"), "{}", asked.told());
    assert_eq!((asked.ask(10, NOW), asked.ask(21, NOW)), (Ok(()), REFUSED));
    assert_eq!((asked.ask(20, NOW), asked.ask(u64::MAX, NOW)), (Ok(()), REFUSED));
    asked.restart();
    assert_eq!((asked.ask(31, NOW), asked.ask(20, NOW), asked.ask(21, NOW)), (REFUSED, REFUSED, Ok(())));
    // In a range, the first is among its first numbers; and the last possible number can be reached.
    let range = |first, last| Rules { serials: Some(Serials { first, last }), ..rules };
    let mut asked = Asked::new(range(1000, 1005));
    assert_eq!((asked.ask(1010, NOW), asked.ask(1005, NOW)), (REFUSED, Ok(())));
    let mut asked = Asked::new(range(1000, u64::MAX));
    assert_eq!((asked.ask(1010, NOW), asked.ask(1009, NOW)), (REFUSED, Ok(())));
    let mut asked = Asked::new(range(u64::MAX - 5, u64::MAX));
    assert_eq!((asked.ask(u64::MAX, NOW), asked.ask(u64::MAX, NOW)), (Ok(()), REFUSED));
    let mut asked = Asked::new(range(0, 20));
    assert_eq!((asked.ask(11, NOW), asked.ask(0, NOW), asked.ask(10, NOW)), (REFUSED, Ok(()), Ok(())));
}

#[test]
fn now_goes_ahead_no_further_than_the_step() {
    let step = |since| Rules {
        clock: Some(60),
        clock_max_step: Some(ClockStep { seconds: 1000, since }),
        sealed: true,
        ..Rules::default()
    };
    // Without a beginning the first may be any, and those after it may not.
    let mut asked = Asked::new(step(None));
    assert_eq!(asked.ask(1, NOW), Ok(()));
    assert_eq!((asked.ask(1, u32::MAX), asked.ask(1, NOW + 1001)), (REFUSED, REFUSED));
    assert!(
        asked.told().contains("clock-max-step            refused    2023-11-14T22:30:01Z (outside by 1 s)")
    );
    asked.restart();
    assert_eq!((asked.ask(1, NOW + 1000), asked.ask(1, NOW + 2001)), (Ok(()), REFUSED));
    // The highest counts, and a clock that was idle for long advances step by step.
    assert_eq!((asked.ask(1, NOW + 940), asked.ask(1, NOW + 2000)), (Ok(()), Ok(())));
    for steps in 3..10 {
        assert_eq!(asked.ask(1, NOW + 1000 * steps), Ok(()));
    }
    // With a beginning the first is measured from that, on both sides.
    for (now, answer) in [
        (u32::MAX, REFUSED),
        (NOW + 1001, REFUSED),
        (NOW - 61, REFUSED),
        (NOW - 60, Ok(())),
        (NOW + 1000, Ok(())),
    ] {
        assert_eq!(Asked::new(step(Some(NOW))).ask(1, now), answer, "{now}");
    }
    // A template that replaces another takes over its state, and no clock goes back before its start.
    let mut case = Case::new();
    case.rules = step(Some(NOW));
    case.memory.highest_now = Some(NOW - 5000);
    assert_eq!(case.refusals(), []);
    case.memory.highest_now = Some(NOW + 61);
    assert_eq!(case.refusals(), [(Check::Rule(RuleTag::Clock), Outcome::Refused)]);
    case.memory.highest_now = None;
    case.rules.clock_max_step = Some(ClockStep { seconds: u32::MAX, since: Some(u32::MAX) });
    assert_eq!(case.refusals(), [(Check::Rule(RuleTag::Clock), Outcome::Refused)]);
}

#[test]
fn no_window_holds_more_signatures_than_the_quota() {
    let mut asked =
        Asked::new(Rules { quota: Some(Quota { signatures: 2, window: 100 }), ..Rules::default() });
    assert_eq!((asked.ask(1, NOW), asked.ask(1, NOW + 50)), (Ok(()), Ok(())));
    assert_eq!((asked.ask(1, NOW + 50), asked.ask(1, NOW + 99)), (REFUSED, REFUSED));
    assert_eq!(asked.ask(1, NOW + 100), Ok(()), "the first has left the window");
    assert_eq!((asked.ask(1, NOW + 149), asked.ask(1, NOW + 150)), (REFUSED, Ok(())));
    // Setting the clock back gives nothing back.
    assert_eq!(asked.ask(1, NOW), REFUSED);
}

#[test]
fn a_refusal_uses_nothing_up() {
    let rules = Rules {
        quota: Some(Quota { signatures: 1, window: 100 }),
        increasing_serials: true,
        ..Rules::default()
    };
    let mut asked = Asked::new(rules);
    asked.case.principals = vec![b"root"];
    assert_eq!(asked.ask(9, NOW), REFUSED);
    asked.case.principals = vec![b"alice"];
    assert_eq!(asked.ask(9, NOW), Ok(()));
}

#[test]
fn what_is_remembered_survives_a_restart() {
    let rules = Rules {
        quota: Some(Quota { signatures: 3, window: 1000 }),
        increasing_serials: true,
        clock: Some(0),
        ..Rules::default()
    };
    let mut asked = Asked::new(rules);
    for count in 0..3 {
        assert_eq!(asked.ask(10 + count, NOW + u32::try_from(count).unwrap()), Ok(()));
        asked.restart();
        assert_eq!(asked.ask(10 + count, NOW + 2000), REFUSED, "the serial number");
    }
    assert_eq!(asked.ask(13, NOW + 2), REFUSED, "the quota");
    assert!(asked.told().contains("quota                     refused    3 "), "{}", asked.told());
    assert_eq!(asked.ask(13, NOW + 1000), Ok(()));
}

#[test]
fn a_power_cut_wastes_a_permission_and_never_grants_one() {
    let rules = Rules { increasing_serials: true, ..Rules::default() };
    let mut wasted = 0;
    for writes in 0.. {
        let mut asked = Asked::new(rules);
        assert_eq!(asked.ask(5, NOW), Ok(()));
        asked.device.flash().unwrap().0.borrow_mut().power = Some(writes);
        let signed = asked.ask(6, NOW);
        asked.restart();
        let again = asked.ask(6, NOW);
        match (signed, again) {
            (Ok(()), again) => {
                assert_eq!(again, REFUSED, "it was signed");
                break;
            }
            (Err(_), Ok(())) => {}
            (Err(_), again) => {
                assert_eq!(again, REFUSED);
                wasted += 1;
            }
        }
    }
    println!("{wasted} permissions wasted");
}

#[test]
fn eight_templates_are_remembered_and_a_deleted_one_makes_room() {
    let mut asked = Asked::new(Rules { increasing_serials: true, ..Rules::default() });
    let put = |asked: &mut Asked, id: u16| {
        let template = Object::new(id, Algorithm::TemplateSsh, &[]).with(&asked.case.template());
        asked.session.send(&mut asked.device, Command::PutTemplate, &template).unwrap();
    };
    let sign = |asked: &mut Asked, id: u16| {
        let mut payload = asked.case.payload();
        payload[2..4].copy_from_slice(&id.to_be_bytes());
        asked.session.send(&mut asked.device, Command::SignSshCertificate, &payload).map(drop)
    };
    for id in 20..29 {
        put(&mut asked, id);
        let expected = if id == 28 { Err(DeviceError::StorageFailed) } else { Ok(()) };
        assert_eq!(sign(&mut asked, id), expected, "{id}");
    }
    asked.session.send(&mut asked.device, Command::DeleteObject, &[0, 23, 6]).unwrap();
    assert_eq!(sign(&mut asked, 28), Ok(()));
    assert_eq!(sign(&mut asked, 20), REFUSED, "the others are still remembered");
}

#[test]
fn damage_to_a_memory_stops_the_templates_that_need_one_and_no_other() {
    let mut asked = Asked::new(Rules { increasing_serials: true, ..Rules::default() });
    let plain = Case::new().template();
    let template = Object::new(20, Algorithm::TemplateSsh, &[]).with(&plain);
    asked.session.send(&mut asked.device, Command::PutTemplate, &template).unwrap();
    assert_eq!(asked.ask(1, NOW), Ok(()));
    let flash = Flash::of(asked.device.flash().unwrap().copy());
    forger::put(&flash, 0x200, &[0; 40]);
    asked.device = model::start(flash.copy());
    asked.session = Session::admin(&mut asked.device);
    assert_eq!(asked.ask(2, NOW), Err(DeviceError::StorageFailed));
    let mut payload = asked.case.payload();
    payload[2..4].copy_from_slice(&20_u16.to_be_bytes());
    asked.session.send(&mut asked.device, Command::SignSshCertificate, &payload).unwrap();
}

#[test]
fn a_sealed_template_is_deleted_with_the_whole_device_only() {
    let mut case = Case::new();
    case.rules.sealed = true;
    let (mut device, mut session) = case.device();
    let [high, low] = TEMPLATE_ID.to_be_bytes();
    let deleted = session.send(&mut device, Command::DeleteObject, &[high, low, 6]);
    assert_eq!(deleted, Err(DeviceError::InsufficientPermissions));
    let template = Object::new(TEMPLATE_ID, Algorithm::TemplateSsh, &[]).with(&Case::new().template());
    assert_eq!(session.send(&mut device, Command::PutTemplate, &template), Err(DeviceError::ObjectExists));
    session.send(&mut device, Command::SignSshCertificate, &case.payload()).unwrap();
    session.send(&mut device, Command::ResetDevice, &[]).unwrap();
    let mut session = Session::admin(&mut device);
    session.send(&mut device, Command::PutTemplate, &template).unwrap();
    session.send(&mut device, Command::DeleteObject, &[high, low, 6]).unwrap();
}

#[test]
fn a_seal_holds_after_a_swap_of_images() {
    let [high, low] = TEMPLATE_ID.to_be_bytes();
    let delete = |asked: &mut Asked| {
        asked.session.send(&mut asked.device, Command::DeleteObject, &[high, low, 6]).map(drop)
    };
    let sealed = Rules { sealed: true, max_lifetime: Some(1), ..Rules::default() };
    for dialect in [Dialect::Extended, Dialect::Yubihsm2] {
        let mut asked = Asked::new(sealed);
        asked.device.platform().dialect = dialect;
        assert_eq!(delete(&mut asked), Err(DeviceError::InsufficientPermissions), "{dialect:?}");
        // One that is not sealed can be deleted, whether this image can read it or not.
        let mut asked = Asked::new(Rules { max_lifetime: Some(1), ..Rules::default() });
        asked.device.platform().dialect = dialect;
        assert_eq!(delete(&mut asked), Ok(()), "{dialect:?}");
        // A later image's tag, and a rule that makes no sense: nothing is signed, and the seal holds.
        for defect in [&[0xa0, 0, 0][..], &[0x82, 0, 1, 0]] {
            let mut asked = Asked::new(Rules::default());
            asked.device.platform().dialect = dialect;
            delete(&mut asked).unwrap();
            let body = [defect, &Case { rules: sealed, ..Case::new() }.template()].concat();
            let template = Object::new(TEMPLATE_ID, Algorithm::TemplateSsh, &[]).with(&body);
            asked.session.send(&mut asked.device, Command::PutTemplate, &template).unwrap();
            assert_eq!(asked.ask(1, NOW), REFUSED);
            assert_eq!(
                delete(&mut asked),
                Err(DeviceError::InsufficientPermissions),
                "{dialect:?} {defect:?}"
            );
        }
        // Bytes that are not a template at all can be deleted as before.
        let mut asked = Asked::new(Rules::default());
        asked.device.platform().dialect = dialect;
        delete(&mut asked).unwrap();
        let template = Object::new(TEMPLATE_ID, Algorithm::TemplateSsh, &[]).with(&[0x92, 0, 0, 0x92]);
        asked.session.send(&mut asked.device, Command::PutTemplate, &template).unwrap();
        assert_eq!(delete(&mut asked), Ok(()));
    }
}

#[test]
fn a_template_asks_for_a_touch_above_its_lifetime() {
    for (rule, lifetime, asks) in [
        (PresenceRule::Always, 0, true),
        (PresenceRule::Above(3600), 3600, false),
        (PresenceRule::Above(3600), 3601, true),
    ] {
        let mut case = Case::new();
        case.rules.presence = Some(rule);
        (case.valid_after, case.valid_before) = (u64::from(NOW), u64::from(NOW) + lifetime);
        for (answer, outcome) in [
            (Presence::Confirmed, Ok(())),
            (Presence::TimedOut, Err(DeviceError::PresenceTimeout)),
            (Presence::Unsupported, Err(DeviceError::InvalidData)),
        ] {
            let (mut device, mut session) = case.device();
            device.platform().presence = answer;
            let signed = session.send(&mut device, Command::SignSshCertificate, &case.payload()).map(drop);
            assert_eq!(signed, if asks { outcome } else { Ok(()) }, "{rule:?} {lifetime} {answer:?}");
            assert_eq!(device.platform().asked.len(), usize::from(asks));
        }
    }
}

#[test]
fn certificates_that_are_dated_ahead_do_not_cover_a_long_time_without_a_touch() {
    let mut case = Case::new();
    case.rules.presence = Some(PresenceRule::Above(3600));
    (case.not_after, case.rules.max_lifetime) = (86_400, Some(86_400));
    let (mut device, mut session) = case.device();
    device.platform().presence = Presence::TimedOut;
    let mut covered = 0;
    for hour in 0..23 {
        case.valid_after = u64::from(NOW) + 3600 * hour;
        case.valid_before = case.valid_after + 3600;
        assert_eq!(case.refusals(), [], "what asks for a touch is not refused");
        let signed = session.send(&mut device, Command::SignSshCertificate, &case.payload()).map(drop);
        assert_eq!(signed, if hour == 0 { Ok(()) } else { Err(DeviceError::PresenceTimeout) }, "{hour}");
        covered += u64::from(signed.is_ok());
    }
    assert_eq!((covered, device.platform().asked.len()), (1, 22));
    // However short, and by one second.
    (case.valid_after, case.valid_before) = (u64::from(NOW) + 3600, u64::from(NOW) + 3601);
    let signed = session.send(&mut device, Command::SignSshCertificate, &case.payload()).map(drop);
    assert_eq!(signed, Err(DeviceError::PresenceTimeout));
}

#[test]
fn without_a_device_what_only_it_knows_is_undecided() {
    let mut case = Case::new();
    case.rules = Rules {
        increasing_serials: true,
        serials_max_step: NonZeroU64::new(1),
        clock: Some(1),
        clock_max_step: Some(ClockStep { seconds: 1, since: None }),
        quota: Some(Quota { signatures: 1, window: 1 }),
        presence: Some(PresenceRule::Always),
        ..Rules::default()
    };
    assert_eq!(case.refusals(), []);
    case.memory = Memory { last_serial: Some(1), highest_now: Some(NOW + 2), ..Memory::default() };
    assert_eq!(
        case.refusals(),
        [
            (Check::Rule(RuleTag::IncreasingSerials), Outcome::Refused),
            (Check::Rule(RuleTag::Clock), Outcome::Refused)
        ]
    );
    case.memory = Memory { last_serial: None, highest_now: Some(NOW - 2), ..Memory::default() };
    case.serial = 2;
    assert_eq!(
        case.refusals(),
        [
            (Check::Rule(RuleTag::SerialsMaxStep), Outcome::Refused),
            (Check::Rule(RuleTag::ClockMaxStep), Outcome::Refused)
        ]
    );
    let undecided = case.findings(None, Outcome::Undecided);
    assert_eq!(
        undecided,
        [
            Check::Rule(RuleTag::IncreasingSerials),
            Check::Rule(RuleTag::Clock),
            Check::Rule(RuleTag::Quota),
            Check::Rule(RuleTag::Presence),
            Check::Rule(RuleTag::SerialsMaxStep),
            Check::Rule(RuleTag::ClockMaxStep),
        ]
    );
}

#[test]
fn a_permit_says_what_is_to_be_done_before_it_is_used() {
    let mut case = Case::new();
    let told = |case: &Case| {
        case.judged(Some(&case.memory), |verdict| {
            verdict.permit().map(|permit| {
                assert_eq!(permit.request(), case.request());
                (permit.needs_touch(), permit.memory().cloned())
            })
        })
    };
    assert_eq!(told(&case), Ok((false, None)));
    case.rules.presence = Some(PresenceRule::Always);
    assert_eq!(told(&case), Ok((true, None)));
    (case.rules.increasing_serials, case.serial) = (true, 7);
    let memory = Memory { last_serial: Some(7), ..Memory::default() };
    assert_eq!(told(&case), Ok((true, Some(memory.clone()))));
    case.memory = memory;
    assert_eq!(told(&case), Err(Refusal::NotAllowed));
    // Checks that need a device's state are undecided without one, and not permitted.
    let undecided = case.judged(None, |verdict| verdict.permit().map(drop));
    assert_eq!(undecided, Err(Refusal::NotAllowed));
}

#[test]
fn memory_is_read_back_and_damage_is_seen() {
    let mut memory = Memory::default();
    assert_eq!(Memory::decode(&memory.encode()), Ok(memory.clone()));
    (memory.last_serial, memory.highest_now) = (Some(u64::MAX), Some(0));
    let bytes = memory.encode();
    assert_eq!(Memory::decode(&bytes), Ok(memory));
    assert!(
        Memory::decode(&bytes[..12]).is_err() && Memory::decode(&[&bytes[..], &[0; 3]].concat()).is_err()
    );
    assert!(Memory::decode(&[&bytes[..], &[0; 4 * 65]].concat()).is_err());
    // Either without the other, and as many times as a quota can count.
    for (last_serial, highest_now) in [(Some(1 << 40), None), (None, Some(NOW)), (None, None)] {
        let memory = Memory { last_serial, highest_now, times: (0..64).collect() };
        assert_eq!(Memory::decode(&memory.encode()), Ok(memory));
    }
}

/// The answer to EXPLAIN SSH REQUEST: check, outcome, asked and allowed.
fn explained(asked: &mut Asked) -> Result<Vec<[String; 4]>, DeviceError> {
    let answer = asked.session.send(&mut asked.device, Command::ExplainSshRequest, &asked.case.payload())?;
    let (now, findings) = explanation::decode(&answer).unwrap();
    assert_eq!(now, asked.case.now);
    Ok(findings
        .map(Result::unwrap)
        .map(|finding| [finding.check, finding.outcome, finding.asked, finding.allowed].map(str::to_owned))
        .collect())
}

#[test]
fn a_request_is_explained_by_the_device_that_remembers_and_nothing_is_signed() {
    let rules = Rules {
        increasing_serials: true,
        presence: Some(PresenceRule::Always),
        max_principals: NonZeroU16::new(1),
        ..Rules::default()
    };
    let mut asked = Asked::new(rules);
    asked.case.principals = vec![b"alice"];
    asked.device.platform().presence = Presence::Confirmed;
    assert_eq!(asked.ask(7, NOW), Ok(()));
    let outcome = |lines: &[[String; 4]], check: &str| {
        lines
            .iter()
            .find(|line| line[0] == check)
            .map(|line| (line[1].clone(), line[2].clone(), line[3].clone()))
    };
    let told = |outcome: &str, asked: &str, allowed: &str| {
        Some((outcome.to_owned(), asked.to_owned(), allowed.to_owned()))
    };
    let lines = explained(&mut asked).unwrap();
    assert_eq!(outcome(&lines, "increasing-serials"), told("refused", "7", "greater than 7"));
    assert_eq!(outcome(&lines, "max-principals"), told("allowed", "1", "at most 1"));
    assert_eq!(outcome(&lines, "quota"), None, "the template has no such rule");
    for _ in 0..2 {
        asked.case.serial = 8;
        assert!(explained(&mut asked).unwrap().iter().all(|line| line[1] == "allowed"));
    }
    assert_eq!(asked.device.platform().asked.len(), 1, "no touch was requested");
    // It is the same as the signature's.
    asked.case.principals = vec![b"root", b"alice"];
    let lines = explained(&mut asked).unwrap();
    assert_eq!(asked.ask(8, NOW), REFUSED);
    let logged = asked.told();
    for [check, outcome, asked, allowed] in &lines {
        assert!(
            logged.contains(&format!("  {check:<24}  {outcome:<9}  {asked:<44}  {allowed}\n")),
            "{check}\n{logged}"
        );
    }
    assert_eq!(logged.lines().count(), lines.len() + 2);
}

#[test]
fn long_values_of_an_explanation_are_cut_and_short_ones_are_whole() {
    let mut asked = Asked::new(Rules::default());
    let names: Vec<&'static [u8]> = (0..100).map(|n| &*format!("name-{n:04}").into_bytes().leak()).collect();
    asked.case.principals = names;
    let lines = explained(&mut asked).unwrap();
    let principals = lines.iter().find(|line| line[0] == "allow-empty-principals").unwrap();
    assert!(
        principals[2].starts_with("name-0000, name-0001") && principals[2].ends_with('…'),
        "{principals:?}"
    );
    assert!(lines.iter().any(|line| line[3] == "anybody but root, toor"));
}

#[test]
fn a_value_of_an_explanation_is_whole_up_to_450_bytes() {
    let mut asked = Asked::new(Rules { key_id: patterns(b"*\0"), ..Rules::default() });
    for length in [449, 450, 451] {
        asked.case.key_id = vec![b'k'; length].leak();
        let lines = explained(&mut asked).unwrap();
        let told = lines.iter().find(|line| line[0] == "key-id").unwrap()[2].as_str();
        let whole = "k".repeat(length);
        assert_eq!(told, if length > 450 { format!("{}…", &whole[..447]) } else { whole });
    }
}

#[test]
fn an_explanation_with_every_rule_and_long_values_fits_and_uses_its_room() {
    const LIST: [u8; 180] = {
        let mut list = [b'n'; 180];
        list[179] = 0;
        list
    };
    let rules = Rules {
        certificate_types: CertificateTypes::new(&[CertificateKind::User]),
        allow_principals: patterns(&LIST),
        max_lifetime: Some(1),
        max_principals: NonZeroU16::new(1),
        allow_extensions: names(&LIST),
        allow_critical_options: names(b"force-command\0source-address\0"),
        require_critical_options: some_names(b"force-command\0"),
        force_command: some_names(&LIST),
        source_address: Some(Networks::decode([4, 32, 255, 255, 255, 255].repeat(40).leak()).unwrap()),
        subject_keys: Some(SubjectKeys::decode(&[0, 0, 5]).unwrap()),
        key_id: patterns(&LIST),
        serials: Some(Serials { first: 0, last: u64::MAX }),
        increasing_serials: true,
        signature_algorithms: Some(SignatureAlgorithms::decode(&[46]).unwrap()),
        clock: Some(0),
        quota: Some(Quota { signatures: 1, window: 1 }),
        presence: Some(PresenceRule::Always),
        host_patterns: true,
        serials_max_step: NonZeroU64::new(u64::MAX),
        clock_max_step: Some(ClockStep { seconds: u32::MAX, since: Some(u32::MAX) }),
        ..Rules::default()
    };
    let mut asked = Asked::new(rules);
    asked.case.kind = CertificateKind::Host;
    asked.case.key_id = &[b'k'; 255];
    asked.case.principals = vec![&[b'p'; 255], &[b'q'; 255]];
    let answer =
        asked.session.send(&mut asked.device, Command::ExplainSshRequest, &asked.case.payload()).unwrap();
    let (_, findings) = explanation::decode(&answer).unwrap();
    let cut = findings.map(Result::unwrap).filter(|finding| finding.allowed.ends_with('…'));
    let cut: Vec<_> = cut.map(|finding| finding.check).collect();
    assert_eq!(
        cut,
        [
            "signature-key",
            "allow-principals",
            "allow-extensions",
            "force-command",
            "source-address",
            "key-id"
        ]
    );
    assert!((2600..=MAX_INNER_PAYLOAD).contains(&answer.len()), "{}", answer.len());
}

#[test]
fn explaining_asks_for_what_signing_asks_for() {
    let mut case = Case::new();
    case.ca_keys = vec![3];
    let (mut device, mut session) = case.device();
    let mut payload = case.payload();
    payload[..2].copy_from_slice(&[0, 99]);
    let missing = session.send(&mut device, Command::ExplainSshRequest, &payload);
    assert_eq!(missing, Err(DeviceError::ObjectNotFound));
    let may = Capabilities::of(&[Capability::GetOpaque]);
    let mut other = model::put_authentication_key(
        &mut device,
        &mut session,
        7,
        b"other",
        Domains::ALL,
        may,
        Capabilities::NONE,
    );
    let refused = other.send(&mut device, Command::ExplainSshRequest, &case.payload());
    assert_eq!(refused, Err(DeviceError::InsufficientPermissions));
}

#[test]
fn a_strict_device_has_neither_our_rules_nor_our_command() {
    let mut asked = Asked::new(Rules::default());
    asked.device.platform().dialect = Dialect::Yubihsm2;
    assert_eq!(asked.ask(1, NOW), Ok(()));
    assert_eq!(explained(&mut asked), Err(DeviceError::InvalidCommand));
    let mut asked = Asked::new(Rules { max_lifetime: Some(u32::MAX), ..Rules::default() });
    assert_eq!(asked.ask(1, NOW), Ok(()));
    asked.device.platform().dialect = Dialect::Yubihsm2;
    assert_eq!(asked.ask(1, NOW), REFUSED);
    let told = asked.told();
    assert!(told.contains("malformed: unknown tag 0x82"), "{told}");
}
