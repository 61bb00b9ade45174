//! The words of a verdict, which `sshsm sign`, `template check` and EXPLAIN SSH REQUEST guarantee byte for
//! byte: those for every kind of value.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use sshsm_firmware::ssh::policy::{Check, Outcome, Value};
use sshsm_firmware::ssh::subject::SubjectKeyError;
use sshsm_firmware::ssh::timestamp::Timestamp;
use sshsm_protocol::ssh::public_key::{PublicKey, SshCurve};
use sshsm_protocol::ssh::request::{CertificateKind, Field, Options, Principals, RequestError, SubjectKey};
use sshsm_protocol::ssh::rules::{
    CertificateTypes, Names, Networks, Patterns, Quota, RuleError, RuleTag, Serials, SignatureAlgorithms,
    SubjectKeys,
};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{CaKeys, ForbiddenPrincipals, TemplateError};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{Domains, ObjectId};

const NOW: u64 = 1_700_000_000;
/// The last second that the calendar has.
const LAST: u64 = 253_402_207_200;
const KEY: PublicKey<'_> = PublicKey::Ed25519(&[4; 32]);

fn names(value: &[u8]) -> Names<'_> {
    Names::decode(value).unwrap()
}

fn forbidden(value: &[u8]) -> ForbiddenPrincipals<'_> {
    ForbiddenPrincipals::decode(value).unwrap()
}

fn subjects(value: &[u8]) -> SubjectKeys<'_> {
    SubjectKeys::decode(value).unwrap()
}

fn kinds(kinds: &[CertificateKind]) -> Value<'static> {
    Value::Kinds(CertificateTypes::new(kinds).unwrap())
}

fn words(table: impl IntoIterator<Item = (Value<'static>, &'static str)>) {
    for (value, words) in table {
        assert_eq!(value.to_string(), words, "{value:?}");
    }
}

#[test]
fn every_value_of_the_six_tags_has_its_words() {
    let principals = Principals::decode(b"\0\0\0\x05alice\0\0\0\x02\\\x1b").unwrap();
    let unknown = RuleError::Unknown(4);
    words([
        (Value::Unknown, "?"),
        (Value::Text("well-formed"), "well-formed"),
        (Value::MalformedTemplate(TemplateError::UnknownTag(0x93)), "malformed: unknown tag 0x93"),
        (
            Value::MalformedTemplate(TemplateError::Rule { tag: RuleTag::CertificateTypes, error: unknown }),
            "malformed: tag 0x80 (certificate-types): 4 has no meaning there",
        ),
        (Value::MalformedRequest(RequestError::Trailing(2)), "malformed: 2 bytes after the signature key"),
        (Value::CaKey(ObjectId::new(5).unwrap()), "0x0005"),
        (Value::CaKeys(CaKeys::decode(&[0, 5, 0xff, 0xff]).unwrap()), "0x0005, 0xffff"),
        (Value::CaKeys(CaKeys::decode(&[]).unwrap()), "none"),
        (Value::Domains(Domains::from_bits(0b101)), "1, 3"),
        (Value::Domains(Domains::NONE), "none"),
        (Value::PublicKey(KEY), "ssh-ed25519 0404040404040404…"),
        (
            Value::PublicKey(PublicKey::Ecdsa { curve: SshCurve::P384, point: &[0xa1; 96] }),
            "ecdsa-sha2-nistp384 a1a1a1a1a1a1a1a1…",
        ),
        (
            Value::PublicKey(PublicKey::Rsa { exponent: &[1, 0, 1], modulus: &[0xb2; 256] }),
            "ssh-rsa b2b2b2b2b2b2b2b2…",
        ),
        (Value::Principals(principals), "alice, \\\\\\u{1b}"),
        (Value::Principals(Principals::decode(b"").unwrap()), "none"),
        (Value::Principal(b"\xff root"), "\\xff root"),
        (Value::AnyBut(forbidden(b"root\0toor\0")), "anybody but root, toor"),
        (Value::AnyBut(forbidden(b"")), "anybody"),
    ]);
}

#[test]
fn every_value_of_a_rule_has_its_words() {
    use CertificateKind::{Host, User};
    let options = Options::decode(Field::Extensions, b"\0\0\0\x01a\0\0\0\0\0\0\0\x01b\0\0\0\0").unwrap();
    let networks = [4, 8, 10, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rsa = |modulus| SubjectKey::Plain(PublicKey::Rsa { exponent: &[1, 0, 1], modulus });
    let odd = PublicKey::Ecdsa { curve: SshCurve::P521, point: &[1; 132] };
    words([
        (Value::Unrestricted, "anything"),
        (Value::Kind(User), "user"),
        (kinds(&[Host]), "host"),
        (kinds(&[Host, User]), "user, host"),
        (Value::OneOf(names(b"permit-pty\0/bin/\xfc\0")), "permit-pty, /bin/\\xfc"),
        (Value::OneOf(names(b"")), "none"),
        (Value::Matching(Patterns::decode(b"zone-*\0a\\*\0").unwrap()), "zone-*, a\\\\*"),
        (Value::Name(None), "none"),
        (Value::Name(Some(b"/bin/true")), "/bin/true"),
        (Value::Options(options), "a, b"),
        (Value::Options(Options::decode(Field::Extensions, b"").unwrap()), "none"),
        (Value::Networks(Networks::decode(networks.as_slice().to_vec().leak()).unwrap()), "10.0.0.0/8, ::/0"),
        (Value::Seconds(28_890), "28890 s"),
        (Value::Number(7), "7"),
        (Value::AtMost(3), "at most 3"),
        (Value::AtMostSeconds(32_400), "at most 32400 s"),
        (Value::Subject(SubjectKey::Plain(KEY)), "ed25519"),
        (Value::Subject(rsa(&[0x7f; 256])), "rsa of 2047 bits"),
        (Value::Subject(SubjectKey::SecurityKey { key: KEY, application: b"ssh:" }), "sk-ed25519"),
        (Value::Subject(SubjectKey::SecurityKey { key: odd, application: b"ssh:" }), "?"),
        (
            Value::UnusableSubject(rsa(&[0x7f; 96]), SubjectKeyError::ShortRsa(767)),
            "rsa of 767 bits: OpenSSH reads RSA keys of at least 1024 bits, and this one has 767",
        ),
        (
            Value::UnusableSubject(SubjectKey::Plain(odd), SubjectKeyError::NotOnCurve(SshCurve::P521)),
            "ecdsa-p521: its point is not on the curve nistp521",
        ),
        (Value::Subjects(subjects(&[0, 0, 1, 5])), "rsa, ed25519"),
        (Value::Subjects(subjects(&[0, 1, 1])), "rsa; RSA of at least 1 bits"),
        (Value::Subjects(subjects(&[0x0c, 0, 1])), "rsa; RSA of at least 3072 bits"),
        (Value::Serials(Serials { first: 1, last: u64::MAX }), "1 to 18446744073709551615"),
        (Value::Above(None), "anything, and then only greater ones"),
        (Value::Above(Some(7)), "greater than 7"),
        (Value::Algorithm(SignatureAlgorithm::RsaSha512), "rsa-sha2-512"),
        (
            Value::Algorithms(SignatureAlgorithms::decode(&[46, 43]).unwrap()),
            "ssh-ed25519, ecdsa-sha2-nistp256",
        ),
        (Value::Quota(Quota { signatures: 5, window: 60 }), "fewer than 5 in 60 s before"),
    ]);
}

#[test]
fn times_are_dates_as_far_as_the_calendar_goes_and_say_when_there_is_no_bound() {
    let time = |seconds, excess| Value::Time { seconds, excess };
    words([
        (time(0, 0), "1970-01-01T00:00:00Z"),
        (time(NOW, 0), "2023-11-14T22:13:20Z"),
        (time(NOW, 1), "2023-11-14T22:13:20Z (outside by 1 s)"),
        (time(LAST, 0), "9999-12-30T22:00:00Z"),
        (time(LAST + 1, 0), "second 253402207201"),
        (time(u64::MAX - 1, 0), "second 18446744073709551614"),
        (time(u64::MAX, u64::MAX), "forever (outside by 18446744073709551615 s)"),
        (Value::NotBefore(Some(NOW)), "not before 2023-11-14T22:13:20Z"),
        (Value::NotAfter(Some(NOW)), "not after 2023-11-14T22:13:20Z"),
        (Value::NotBefore(None), "UNBOUNDED"),
        (Value::NotAfter(None), "UNBOUNDED"),
        (
            Value::Timestamp(Timestamp::unsigned(Now::from_seconds(1_700_000_000))),
            "2023-11-14T22:13:20Z, not signed",
        ),
    ]);
}

#[test]
fn every_check_has_a_name_of_its_own_and_every_outcome() {
    let names = Check::ALL.map(Check::name);
    assert_eq!(
        names,
        [
            "template",
            "request",
            "timestamp-key",
            "ca-keys",
            "domain",
            "signature-key",
            "not-before-offset",
            "not-after-offset",
            "forbid-principals",
            "certificate-types",
            "allow-principals",
            "max-lifetime",
            "max-principals",
            "allow-empty-principals",
            "allow-extensions",
            "allow-critical-options",
            "require-critical-options",
            "force-command",
            "source-address",
            "subject-keys",
            "key-id",
            "serials",
            "increasing-serials",
            "signature-algorithms",
            "clock",
            "quota",
            "presence",
            "sealed",
            "host-patterns",
            "serials-max-step",
            "clock-max-step",
        ]
    );
    let outcomes = [Outcome::Allowed, Outcome::Refused, Outcome::Undecided].map(Outcome::name);
    assert_eq!(outcomes, ["allowed", "refused", "undecided"]);
}
