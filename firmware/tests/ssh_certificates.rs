//! The policy and the command that obeys it: every check has a request that it alone refuses.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "model/case.rs"]
mod case;
mod model;

use case::*;
use model::*;
use proptest::prelude::*;
use sshsm_firmware::crypto::key;
#[cfg(feature = "audit")]
use sshsm_firmware::platform::Presence;
use sshsm_firmware::ssh::policy::{BaseCheck, BothDomains, Check, Outcome};
use sshsm_protocol::ssh::explanation;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::public_key::SshCurve;
use sshsm_protocol::ssh::request::{CertificateKind, SubjectKey};
use sshsm_protocol::ssh::rules::RuleTag;
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Capability, Command, DeviceError, Domains, ObjectType};

#[test]
fn the_unchanged_case_is_allowed() {
    still_allowed(|_| {});
}

#[test]
fn a_time_that_the_authority_did_not_sign_is_refused() {
    only(Check::Base(BaseCheck::TimestampKey), |case| case.signed_now = NOW + 1);
    only(Check::Base(BaseCheck::TimestampKey), |case| {
        case.timestamp_forger = Some(key::expand(AsymmetricAlgorithm::Ed25519, &[3; 32]).unwrap().to_vec());
    });
}

#[test]
fn a_ca_key_that_the_template_does_not_list_is_refused() {
    only(Check::Base(BaseCheck::CaKeys), |case| case.ca_keys = vec![3, CA_ID + 1, CA_ID << 8]);
    only(Check::Base(BaseCheck::CaKeys), |case| case.ca_keys = vec![]);
}

#[test]
fn a_request_that_names_another_ca_is_refused() {
    only(Check::Base(BaseCheck::SignatureKey), |case| case.signature_key = Some([1; 32]));
}

#[test]
fn a_certificate_that_begins_too_early_is_refused() {
    only(Check::Base(BaseCheck::NotBeforeOffset), |case| case.valid_after -= 1);
    only(Check::Base(BaseCheck::NotBeforeOffset), |case| case.valid_after = 0);
    still_allowed(|case| (case.not_before, case.valid_after) = (0, 0));
    still_allowed(|case| (case.not_before, case.valid_after) = (u32::MAX, 0));
    only(Check::Base(BaseCheck::NotBeforeOffset), |case| {
        (case.not_before, case.valid_after) = (1, u64::from(NOW) - 2);
    });
}

#[test]
fn a_certificate_that_ends_too_late_is_refused() {
    only(Check::Base(BaseCheck::NotAfterOffset), |case| case.valid_before += 1);
    only(Check::Base(BaseCheck::NotAfterOffset), |case| case.valid_before = u64::MAX);
    still_allowed(|case| (case.not_after, case.valid_before) = (u32::MAX, u64::MAX));
    only(Check::Base(BaseCheck::NotAfterOffset), |case| {
        (case.not_after, case.valid_before) = (u32::MAX - 1, u64::from(NOW) + u64::from(u32::MAX));
    });
}

#[test]
fn a_certificate_without_principals_is_refused() {
    only(Check::Rule(RuleTag::AllowEmptyPrincipals), |case| case.principals = vec![]);
}

#[test]
fn a_forbidden_principal_is_refused_wherever_it_stands() {
    only(Check::Base(BaseCheck::ForbidPrincipals), |case| case.principals = vec![b"root"]);
    only(Check::Base(BaseCheck::ForbidPrincipals), |case| case.principals = vec![b"alice", b"toor"]);
    still_allowed(|case| case.principals = vec![b"Root", b"roo", b"roott", b"root "]);
}

#[test]
fn a_template_of_another_domain_does_not_govern_a_ca_key() {
    let domains = |ca_key, template| {
        move |case: &mut Case| {
            let [ca_key, template] = [ca_key, template].map(Domains::from_bits);
            case.domains = BothDomains { ca_key, template };
        }
    };
    for (ca_key, template) in [(1, 1), (1, 0xffff), (0b110, 0b011), (0x8000, 0x8001)] {
        still_allowed(domains(ca_key, template));
    }
    for (ca_key, template) in [(1, 2), (0b101, 0b010), (0x8000, 0x7fff)] {
        only(Check::Base(BaseCheck::Domain), domains(ca_key, template));
    }
    // The device says so, to any session that asks why.
    let mut case = Case::new();
    domains(0b101, 0b010)(&mut case);
    let (mut device, mut session) = case.device();
    let answer = session.send(&mut device, Command::ExplainSshRequest, &case.payload()).unwrap();
    let (_, findings) = explanation::decode(&answer).unwrap();
    let told: Vec<_> = findings.map(Result::unwrap).filter(|finding| finding.outcome != "allowed").collect();
    let domain = explanation::Finding { check: "domain", outcome: "refused", asked: "1, 3", allowed: "2" };
    assert_eq!(told, [domain]);
}

#[test]
fn a_host_certificate_names_hosts_and_no_patterns() {
    let naming = |kind, principals: &[&'static [u8]]| {
        let principals = principals.to_vec();
        move |case: &mut Case| (case.kind, case.principals) = (kind, principals)
    };
    use CertificateKind::{Host, User};
    still_allowed(naming(Host, &[b"bastion.example.com", b"web"]));
    for pattern in [b"b?stion.example.com".as_slice(), b"*.example.com", b"web", b"we*b"] {
        still_allowed(naming(User, &[pattern]));
        if pattern != b"web" {
            only(Check::Rule(RuleTag::HostPatterns), naming(Host, &[b"web", pattern]));
        }
    }
    // A name that a pattern matches counts as named, and so does a name in any case: ssh asks for it in lower
    // case.
    let forbidding = |forbidden: &'static [u8], principal: &'static [u8]| {
        let mut case = Case::new();
        (case.kind, case.forbidden, case.principals) = (Host, forbidden.to_vec(), vec![principal]);
        case.refusals().into_iter().map(|(check, _)| check).collect::<Vec<_>>()
    };
    let both = [Check::Base(BaseCheck::ForbidPrincipals), Check::Rule(RuleTag::HostPatterns)];
    assert_eq!(forbidding(b"bastion.example.com\0", b"b?stion.example.com"), both);
    assert_eq!(forbidding(b"bastion.example.com\0", b"*"), both);
    assert_eq!(forbidding(b"bastion.example.com\0", b"*.example.org"), both[1..]);
    assert_eq!(forbidding(b"bastion.example.com\0", b"Bastion.example.com"), both[..1]);
    assert_eq!(forbidding(b"Bastion.example.com\0", b"bastion.example.com"), both[..1]);
    assert_eq!(forbidding(b"bastion.example.com\0", b"bastion.example.co"), []);
}

#[test]
fn a_key_that_openssh_cannot_read_is_not_certified() {
    const SHORT: [u8; 96] = [0x80; 96];
    const LONG: [u8; 2049] = [1; 2049];
    const LEAST: [u8; 128] = [0x80; 128];
    const SMALL: [u8; 32] = [0; 32];
    let rsa = |modulus| SubjectKey::Plain(PublicKey::Rsa { exponent: &[1, 0, 1], modulus });
    let ed25519 = PublicKey::Ed25519(&[4; 32]);
    still_allowed(|case| case.subject = rsa(&LEAST));
    for subject in [
        rsa(&SHORT),
        rsa(&LEAST[1..]),
        SubjectKey::Plain(PublicKey::Rsa { exponent: &[1], modulus: &LEAST }),
        SubjectKey::Plain(PublicKey::Ecdsa { curve: SshCurve::P256, point: &[0x11; 64] }),
        SubjectKey::Plain(PublicKey::Ecdsa { curve: SshCurve::P521, point: &[0; 132] }),
        SubjectKey::SecurityKey {
            key: PublicKey::Ecdsa { curve: SshCurve::P256, point: &[0; 64] },
            application: b"ssh:",
        },
        SubjectKey::SecurityKey { key: ed25519, application: b"ssh:\0a" },
        SubjectKey::SecurityKey { key: ed25519, application: b"ssh:\0" },
        SubjectKey::Plain(PublicKey::Ed25519(&SMALL)),
    ] {
        only(Check::Rule(RuleTag::SubjectKeys), |case| case.subject = subject);
    }
    // As much as a message has room for.
    let mut case = Case::new();
    case.subject = rsa(&LONG);
    let request = case.request();
    assert_eq!(case.refusals(), [(Check::Rule(RuleTag::SubjectKeys), Outcome::Refused)]);
    assert!(request.len() > 2049);
    assert_eq!(case.sign(), Err(DeviceError::SshCaConstraintViolation));
}

#[test]
fn a_malformed_template_refuses_every_request_and_says_why() {
    let case = Case::new();
    let (mut device, mut session) = case.device();
    session.send(&mut device, Command::DeleteObject, &[0, 10, 6]).unwrap();
    let template = Object::new(TEMPLATE_ID, Algorithm::TemplateSsh, &[]).with(&case.template()[1..]);
    session.send(&mut device, Command::PutTemplate, &template).unwrap();
    assert_eq!(
        session.send(&mut device, Command::SignSshCertificate, &case.payload()),
        Err(DeviceError::SshCaConstraintViolation)
    );
    let told = device.platform().decisions.last().unwrap();
    assert!(
        told.contains("template                  refused    malformed: template ends inside a field"),
        "{told}"
    );
}

#[test]
fn a_malformed_request_is_refused_as_invalid_data() {
    let case = Case::new();
    let (mut device, mut session) = case.device();
    let request = [case.request().as_slice(), b"!"].concat();
    let payload = [&case.payload()[..9], &case.timestamp_signature(&request), &request].concat();
    assert_eq!(
        session.send(&mut device, Command::SignSshCertificate, &payload),
        Err(DeviceError::InvalidData)
    );
    let told = device.platform().decisions.last().unwrap();
    assert!(told.contains("request                   refused    malformed: 1 bytes after"), "{told}");
}

#[test]
fn a_decision_is_told_with_what_was_asked_and_allowed() {
    let mut case = Case::new();
    case.principals = vec![b"alice", b"root"];
    case.valid_before += 61;
    let (mut device, mut session) = case.device();
    session.send(&mut device, Command::SignSshCertificate, &case.payload()).unwrap_err();
    let told = device.platform().decisions.last().unwrap();
    assert_eq!(
        told,
        "\
REFUSED: certificate by CA key 0x0005 (ssh-ed25519) under template 0x000a
  check                     outcome    asked                                         allowed
  template                  allowed    well-formed                                   well-formed
  request                   allowed    well-formed                                   well-formed
  timestamp-key             allowed    2023-11-14T22:13:20Z, signed                  signed by the timestamp authority
  ca-keys                   allowed    0x0005                                        0x0003, 0x0005
  signature-key             allowed    ssh-ed25519 8a88e3dd7409f195…                 ssh-ed25519 8a88e3dd7409f195…
  not-before-offset         allowed    2023-11-14T22:08:20Z                          not before 2023-11-14T22:08:20Z
  not-after-offset          refused    2023-11-15T08:14:21Z (outside by 61 s)        not after 2023-11-15T08:13:20Z
  forbid-principals         refused    root                                          anybody but root, toor
  allow-empty-principals    allowed    alice, root                                   at least one
"
    );
    let mut forged = Case::new();
    forged.signed_now += 1;
    session.send(&mut device, Command::SignSshCertificate, &forged.payload()).unwrap_err();
    let told = device.platform().decisions.last().unwrap();
    assert!(told.contains("2023-11-14T22:13:20Z, signature not valid  "), "{told}");
    session.send(&mut device, Command::SignSshCertificate, &Case::new().payload()).unwrap();
    let told = device.platform().decisions.last().unwrap();
    assert!(told.starts_with("allowed: certificate by CA key 0x0005"), "{told}");
}

#[test]
fn the_algorithm_must_be_the_ca_keys() {
    let case = Case::new();
    let (mut device, mut session) = case.device();
    for &algorithm in Algorithm::ALL {
        let mut payload = case.payload();
        payload[4] = algorithm.code();
        let answer = session.send(&mut device, Command::SignSshCertificate, &payload);
        let expected = (algorithm != Algorithm::Ed25519).then_some(DeviceError::InvalidData);
        assert_eq!(answer.err(), expected, "{algorithm}");
    }
}

#[test]
fn unknown_keys_templates_and_capabilities_are_told_apart() {
    let case = Case::new();
    let (mut device, mut session) = case.device();
    let mut send = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = case.payload();
        change(&mut payload);
        session.send(&mut device, Command::SignSshCertificate, &payload)
    };
    assert_eq!(send(&|payload| payload[1] = 6), Err(DeviceError::ObjectNotFound));
    assert_eq!(send(&|payload| payload[3] = 11), Err(DeviceError::ObjectNotFound));
    assert_eq!(send(&|payload| payload.truncate(9 + 63)), Err(DeviceError::WrongLength));
    let useless = Object::new(7, Algorithm::Ed25519, &[Capability::SignEddsa]).with(&[1; 32]);
    session.send(&mut device, Command::PutAsymmetricKey, &useless).unwrap();
    let mut payload = case.payload();
    payload[1] = 7;
    assert_eq!(
        session.send(&mut device, Command::SignSshCertificate, &payload),
        Err(DeviceError::InsufficientPermissions)
    );
}

#[test]
fn a_template_that_replaces_a_deleted_one_is_the_one_that_counts() {
    let case = Case::new();
    let (mut device, mut session) = case.device();
    let mut send = |command, payload: &[u8]| session.send(&mut device, command, payload);
    send(Command::SignSshCertificate, &case.payload()).unwrap();
    send(Command::DeleteObject, &[0, 10, ObjectType::Template.code()]).unwrap();
    assert_eq!(send(Command::SignSshCertificate, &case.payload()), Err(DeviceError::ObjectNotFound));
    let stricter = Case { not_after: 35_999, ..Case::new() };
    let template = Object::new(TEMPLATE_ID, Algorithm::TemplateSsh, &[]).with(&stricter.template());
    send(Command::PutTemplate, &template).unwrap();
    assert_eq!(
        send(Command::SignSshCertificate, &case.payload()),
        Err(DeviceError::SshCaConstraintViolation)
    );
}

#[test]
fn every_kind_of_ca_and_timestamp_key_works_and_the_signature_verifies() {
    let ssh = |algorithm: &AsymmetricAlgorithm| match *algorithm {
        AsymmetricAlgorithm::Ec(curve) => SshCurve::from_curve(curve).is_some(),
        _ => true,
    };
    for algorithm in AsymmetricAlgorithm::ALL.into_iter().filter(ssh) {
        let mut case = Case::new();
        let mut entropy = entropy();
        case.timestamp_algorithm = algorithm;
        case.timestamp_body = key::generate(algorithm, &mut entropy).unwrap().to_vec();
        case.ca_algorithm = algorithm;
        case.ca_private =
            key::generate(algorithm, &mut entropy).unwrap()[..algorithm.private_length()].to_vec();
        if algorithm == AsymmetricAlgorithm::Ed25519 {
            case.ca_private = vec![6; 32];
        }
        let field = case.sign().unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert_eq!(usize::try_from(u32::from_be_bytes(field[..4].try_into().unwrap())), Ok(field.len() - 4));

        // One second further from both bounds, but not the second that was signed.
        (case.valid_after, case.valid_before) = (u64::from(NOW), u64::from(NOW));
        case.now += 1;
        assert_eq!(
            case.refusals(),
            [(Check::Base(BaseCheck::TimestampKey), Outcome::Refused)],
            "{algorithm}"
        );
    }
}

#[test]
fn ecdsa_signatures_of_the_same_digest_differ() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    let object = Object::new(5, Algorithm::Ecp256, &[Capability::SignEcdsa]).with(&[]);
    session.send(&mut device, Command::GenerateAsymmetricKey, &object).unwrap();
    let payload = [&[0, 5], [7; 32].as_slice()].concat();
    let first = session.send(&mut device, Command::SignEcdsa, &payload).unwrap();
    let second = session.send(&mut device, Command::SignEcdsa, &payload).unwrap();
    assert_ne!(first, second);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// No damaged signing command is ever signed, whatever byte it hits.
    #[test]
    fn a_changed_command_is_never_signed(position in 0_usize..4096, bit in 0_u32..8) {
        let case = Case::new();
        let (mut device, mut session) = case.device();
        let mut payload = case.payload();
        let position = position % payload.len();
        payload[position] ^= 1 << bit;
        prop_assert!(session.send(&mut device, Command::SignSshCertificate, &payload).is_err(), "byte {}", position);
    }

    /// The window follows the formula, in arithmetic that cannot overflow.
    #[test]
    fn the_window_is_the_formulas(
        now in prop_oneof![Just(0), Just(u32::MAX), any::<u32>()],
        not_before in prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()],
        not_after in prop_oneof![Just(0), Just(u32::MAX - 1), Just(u32::MAX), any::<u32>()],
        after_delta in -2_i128..=2, before_delta in -2_i128..=2,
    ) {
        let (lower, upper) = (i128::from(now) - i128::from(not_before), i128::from(now) + i128::from(not_after));
        let valid_after = u64::try_from((lower + after_delta).max(0)).unwrap();
        let valid_before = u64::try_from((upper + before_delta).max(0)).unwrap();
        let mut case = Case::new();
        (case.now, case.signed_now) = (now, now);
        (case.not_before, case.not_after) = (not_before, not_after);
        (case.valid_after, case.valid_before) = (valid_after, valid_before);
        let mut expected = Vec::new();
        if not_before != 0 && i128::from(valid_after) < lower {
            expected.push((Check::Base(BaseCheck::NotBeforeOffset), Outcome::Refused));
        }
        if not_after != u32::MAX && i128::from(valid_before) > upper {
            expected.push((Check::Base(BaseCheck::NotAfterOffset), Outcome::Refused));
        }
        prop_assert_eq!(case.refusals(), expected);
    }
}

/// The option user-presence: 1 for certificates, 2 for every use of a key.
#[test]
#[cfg(feature = "audit")]
fn an_allowed_certificate_waits_for_a_touch_and_a_refused_one_does_not() {
    let refused = Case { not_after: 35_999, ..Case::new() };
    for mode in [1, 2] {
        let (mut device, mut session) = Case::new().device();
        device.platform().presence = Presence::Confirmed;
        session.send(&mut device, Command::SetOption, &[0x80, 0, 2, mode, 5]).unwrap();
        device.platform().asked.clear();
        let mut sign = |presence| {
            device.platform().presence = presence;
            let answer = session.send(&mut device, Command::SignSshCertificate, &Case::new().payload());
            (answer.map(|_| ()), std::mem::take(&mut device.platform().asked).len())
        };
        assert_eq!(sign(Presence::Confirmed), (Ok(()), 1));
        assert_eq!(sign(Presence::TimedOut), (Err(DeviceError::PresenceTimeout), 1));

        let (mut device, mut session) = refused.device();
        device.platform().presence = Presence::Confirmed;
        session.send(&mut device, Command::SetOption, &[0x80, 0, 2, mode, 5]).unwrap();
        device.platform().asked.clear();
        let answer = session.send(&mut device, Command::SignSshCertificate, &refused.payload());
        assert_eq!(answer, Err(DeviceError::SshCaConstraintViolation));
        assert!(device.platform().asked.is_empty());
    }
}
