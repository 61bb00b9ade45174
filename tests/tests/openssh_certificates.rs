//! Certificates against the real `ssh-keygen`: it accepts ours, and ours say what its own say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use ssh_key::certificate::CertType;
use sshsm_tests::{
    certificate::{self, Fields},
    for_each_issuer,
    issuer::{Flags, Issuer, SshKeygen, Sshsm},
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::run,
};
use std::{fs, path::Path};
use tempfile::tempdir;

for_each_issuer!(
    every_subject_and_authority_is_accepted,
    defaults_equal_the_originals,
    options_equal_the_originals,
    validities_equal_the_originals,
    many_principals_equal_the_originals,
    rsa_authorities_sign_with_the_algorithm_asked_for,
    serials_count_up_within_a_call,
    a_second_certificate_replaces_the_first,
);

/// `ssh-keygen -L`, which also verifies the signature.
fn listing(certificate: &Path) -> String {
    run(ssh_keygen().unwrap().args(["-L", "-f"]).arg(certificate)).success().stdout
}

/// The indented lines under a heading of `ssh-keygen -L`.
fn section<'a>(listing: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = listing.lines().skip_while(|line| !line.trim_start().starts_with(heading));
    assert!(lines.next().is_some(), "no {heading} in\n{listing}");
    lines.take_while(|line| line.starts_with("                ")).map(str::trim).collect()
}

fn every_subject_and_authority_is_accepted<I: Issuer>() {
    let directory = tempdir().unwrap();
    let subjects = needs!(Key::generate_all(directory.path(), &KeyType::SUBJECTS));
    for authority_type in KeyType::AUTHORITIES {
        let authority =
            needs!(Key::generate(directory.path(), &format!("ca-{authority_type:?}"), authority_type));
        let issuer = needs!(I::with_authority(&authority));
        for (flags, kind) in [(Flags::user(&["alice"]), "user"), (Flags::host(&["web.example.com"]), "host")]
        {
            let _ = issuer.sign(&flags.serial("77").key_id("matrix"), &subjects).success();
            for subject in &subjects {
                let listing = listing(&subject.certificate());
                for line in [
                    format!("Type: {} {kind} certificate", subject.key_type.certificate_type()),
                    format!("Public key: {}-CERT {}", subject.key_type.display_name(), subject.fingerprint()),
                    format!(
                        "Signing CA: {} {} (using ",
                        authority_type.display_name(),
                        authority.fingerprint()
                    ),
                    "Key ID: \"matrix\"".to_owned(),
                    "Serial: 77".to_owned(),
                    "Valid: forever".to_owned(),
                ] {
                    assert!(listing.contains(&line), "{line} is not in\n{listing}");
                }
                let (principals, extensions) = match kind {
                    "user" => (["alice"], 5),
                    _ => (["web.example.com"], 0),
                };
                assert_eq!(section(&listing, "Principals:"), principals);
                assert_eq!(section(&listing, "Extensions:").len(), extensions, "{listing}");
                let _ = certificate::read(&subject.certificate(), &authority);
                fs::remove_file(subject.certificate()).unwrap();
            }
        }
    }
}

/// Issues the same certificates by the original, by `I`, and by the original again, until no clock has
/// ticked in between, and demands that all three are equal.
fn assert_equal_to_the_originals<I: Issuer>(subjects: &[KeyType], authorities: &[KeyType], cases: &[Flags]) {
    let directory = tempdir().unwrap();
    let [original, ours] = ["original", "ours"].map(|name| directory.path().join(name));
    fs::create_dir(&original).unwrap();
    fs::create_dir(&ours).unwrap();
    let keys = needs!(Key::generate_all(&original, subjects));
    let copies: Vec<Key> = keys.iter().map(|key| key.copy_to(&ours)).collect();
    for &authority_type in authorities {
        let authority =
            needs!(Key::generate(directory.path(), &format!("ca-{authority_type:?}"), authority_type));
        let reference = needs!(SshKeygen::with_authority(&authority));
        let issuer = needs!(I::with_authority(&authority));
        let issue = |issuer: &dyn Fn(&Flags, &[Key]), flags: &Flags, keys: &[Key]| -> Vec<Fields> {
            issuer(flags, keys);
            keys.iter().map(|key| certificate::read(&key.certificate(), &authority)).collect()
        };
        let by_original = |flags: &Flags, keys: &[Key]| drop(reference.sign(flags, keys).success());
        let by_ours = |flags: &Flags, keys: &[Key]| drop(issuer.sign(flags, keys).success());
        for flags in cases {
            let mut before = issue(&by_original, flags, &keys);
            let (ours, after) = loop {
                let ours = issue(&by_ours, flags, &copies);
                let after = issue(&by_original, flags, &keys);
                if before == after {
                    break (ours, after);
                }
                before = after;
            };
            for (ours, original) in ours.iter().zip(&after) {
                assert_eq!(ours, original, "{flags:?}");
            }
        }
    }
}

fn defaults_equal_the_originals<I: Issuer>() {
    assert_equal_to_the_originals::<I>(
        &KeyType::SUBJECTS,
        &KeyType::AUTHORITIES,
        &[
            Flags::user(&["alice"]),
            Flags::host(&["web.example.com"]),
            Flags::user(&["alice", "bob"])
                .key_id("Ünïcode, \"quotes\" and a comma")
                .serial("18446744073709551615"),
        ],
    );
}

fn options_equal_the_originals<I: Issuer>() {
    let cases = [
        &["clear"][..],
        &["no-pty"],
        &["no-x11-forwarding", "no-agent-forwarding", "no-port-forwarding", "no-user-rc"],
        &["clear", "permit-pty", "permit-user-rc"],
        &["no-pty", "permit-pty", "no-port-forwarding"],
        &["permit-x11-forwarding", "clear"],
        &["force-command=/usr/bin/rsync --server . /srv"],
        &["source-address=10.0.0.0/8,192.0.2.1,2001:db8::/32"],
        &["force-command=true", "source-address=127.0.0.1"],
        &["verify-required"],
        &["no-touch-required"],
        &["extension:login@example.com"],
        &["extension:zone@example.com=web,db"],
        &["critical:terms@example.com=accepted"],
        &[
            "critical:zz@example.com=1",
            "force-command=id",
            "critical:aa@example.com=2",
            "extension:aa@example.com=3",
        ],
    ];
    assert_equal_to_the_originals::<I>(
        &[KeyType::Ed25519, KeyType::SkEd25519],
        &[KeyType::Ed25519],
        &cases.map(|options| Flags::user(&["alice"]).options(options)),
    );
    assert_equal_to_the_originals::<I>(
        &[KeyType::Ed25519],
        &[KeyType::P256],
        &cases.map(|options| Flags::host(&["web.example.com"]).options(options)),
    );
}

fn validities_equal_the_originals<I: Issuer>() {
    let cases = [
        "+1h",
        "+52w",
        "+1h30m",
        "-5m:+10h",
        "-4w:+4w",
        "-1d:-1h",
        "+1d:+2d",
        "always:forever",
        "always:+1d",
        "-1m:forever",
        "20200101:20301231",
        "20200101:forever",
        "202001010930:203012312359",
        "20200101093015:20301231235959",
        "20200701093015Z:20301231Z",
        "0x5e0be100:0x7fffffff",
        "20200101:+1w",
    ];
    assert_equal_to_the_originals::<I>(
        &[KeyType::Ed25519],
        &[KeyType::Ed25519],
        &cases.map(|validity| Flags::user(&["alice"]).valid(validity)),
    );
}

fn many_principals_equal_the_originals<I: Issuer>() {
    let names: Vec<String> = (0..100).map(|number| format!("user{number}@example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_equal_to_the_originals::<I>(
        &[KeyType::Ed25519],
        &[KeyType::Ed25519],
        &[Flags::user(&names), Flags::host(&names), Flags::user(&["root", "root", "Root"])],
    );
}

fn rsa_authorities_sign_with_the_algorithm_asked_for<I: Issuer>() {
    let directory = tempdir().unwrap();
    let subjects = needs!(Key::generate_all(directory.path(), &[KeyType::Ed25519, KeyType::Rsa2048]));
    let authority = needs!(Key::generate(directory.path(), "ca", KeyType::Rsa2048));
    let issuer = needs!(I::with_authority(&authority));
    let default = Flags::user(&["alice"]);
    for (flags, expected) in [
        (default.clone(), "rsa-sha2-512"),
        (default.clone().signature_algorithm("rsa-sha2-512"), "rsa-sha2-512"),
        (default.signature_algorithm("rsa-sha2-256"), "rsa-sha2-256"),
    ] {
        let _ = issuer.sign(&flags, &subjects).success();
        for subject in &subjects {
            assert_eq!(certificate::read(&subject.certificate(), &authority).signature_algorithm, expected);
            assert!(listing(&subject.certificate()).contains(&format!("(using {expected})")));
        }
    }
}

fn serials_count_up_within_a_call<I: Issuer>() {
    let directory = tempdir().unwrap();
    let subjects = needs!(Key::generate_all(directory.path(), &KeyType::SUBJECTS));
    let authority = needs!(Key::generate(directory.path(), "ca", KeyType::Ed25519));
    let issuer = needs!(I::with_authority(&authority));
    let serials = |flags: Flags| -> Vec<u64> {
        let _ = issuer.sign(&flags, &subjects).success();
        subjects.iter().map(|key| certificate::read(&key.certificate(), &authority).serial).collect()
    };
    assert_eq!(serials(Flags::user(&["alice"])), [0; 7]);
    assert_eq!(serials(Flags::user(&["alice"]).serial("40")), [40; 7]);
    assert_eq!(serials(Flags::user(&["alice"]).serial("+40")), [40, 41, 42, 43, 44, 45, 46]);
}

fn a_second_certificate_replaces_the_first<I: Issuer>() {
    let directory = tempdir().unwrap();
    let subject = needs!(Key::generate(directory.path(), "subject", KeyType::Ed25519));
    let authority = needs!(Key::generate(directory.path(), "ca", KeyType::Ed25519));
    let issuer = needs!(I::with_authority(&authority));
    for name in ["first", "second"] {
        let _ = issuer.sign(&Flags::user(&[name]), std::slice::from_ref(&subject)).success();
        assert_eq!(certificate::read(&subject.certificate(), &authority).principals, [name]);
    }
    let mut files: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["ca", "ca.pub", "subject", "subject-cert.pub", "subject.pub"], "nothing is left over");
}

/// A device that made its authority's key itself issues certificates as good as one that was given it.
#[test]
fn authorities_made_in_the_device_are_accepted() {
    let directory = tempdir().unwrap();
    let subjects = needs!(Key::generate_all(directory.path(), &KeyType::SUBJECTS));
    for authority_type in KeyType::AUTHORITIES {
        let issuer = needs!(Sshsm::new("not-before-offset = \"1m\"\nnot-after-offset = \"1h\"\n"));
        let authority = issuer.generate_authority(authority_type);
        let _ = issuer.sign(&Flags::user(&["alice"]).valid("-1s:+30m"), &subjects).success();
        for subject in &subjects {
            assert!(listing(&subject.certificate()).contains(&authority.fingerprint()));
            let fields = certificate::read(&subject.certificate(), &authority);
            assert_eq!((fields.kind, fields.principals), (CertType::User, vec!["alice".to_owned()]));
        }
    }
}
