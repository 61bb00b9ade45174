//! What a template forbids is not signed, whoever asks through the command line: no certificate is written,
//! the one check that refuses is named, and the same check is named offline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    certificate,
    issuer::{Flags, Issuer, SshKeygen, Sshsm},
    key::{Key, KeyType},
    needs,
    process::{Finished, run},
};
use std::{fs, path::Path, slice};
use tempfile::tempdir;

/// The exit code of a refusal by policy.
const REFUSED: Option<i32> = Some(5);

const TEMPLATE: &str =
    "not-before-offset = \"5m\"\nnot-after-offset = \"10h\"\nforbid-principals = [\"root\", \"admin\"]\n";

/// Requests that [`TEMPLATE`] allows.
fn allowed() -> [Flags; 3] {
    [
        Flags::user(&["alice"]).valid("-1m:+9h"),
        Flags::user(&["alice", "Root", "root2"]).valid("-1s:+1m"),
        Flags::host(&["web.example.com"]).valid("-4m:+9h"),
    ]
}

/// Requests that it refuses, and the one check that does.
fn refused() -> [(Flags, &'static str); 7] {
    [
        (Flags::user(&["root"]).valid("-1m:+9h"), "forbid-principals"),
        (Flags::user(&["alice", "admin", "bob"]).valid("-1m:+9h"), "forbid-principals"),
        (Flags::host(&["admin"]).valid("-1m:+9h"), "forbid-principals"),
        (Flags::user(&["alice"]).valid("-1m:+11h"), "not-after-offset"),
        (Flags::user(&["alice"]).valid("-1m:forever"), "not-after-offset"),
        (Flags::user(&["alice"]).valid("-1h:+9h"), "not-before-offset"),
        (Flags::user(&["alice"]).valid("always:+9h"), "not-before-offset"),
    ]
}

/// The checks that a printed verdict lists as refused.
fn refusing_checks(table: &str) -> Vec<&str> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("  ")?.split_whitespace();
            let check = words.next()?;
            (words.next()? == "refused").then_some(check)
        })
        .collect()
}

#[track_caller]
fn assert_refused(finished: &Finished, told: &str, check: &str) {
    assert_eq!(finished.status.code(), REFUSED, "{finished}");
    assert_eq!(refusing_checks(told), [check], "{finished}");
}

/// `sshsm template check` of a stored request or certificate.
fn explain(sshsm: &Sshsm, request: &Path) -> Finished {
    let template = sshsm.directory().join("template.toml");
    run(sshsm.command().args(["template", "check"]).arg(template).arg(request))
}

#[test]
fn a_request_is_refused_on_the_device_and_offline_for_the_same_reason() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let sshsm = needs!(Sshsm::new(TEMPLATE));
    let authority = sshsm.generate_authority(KeyType::P256);
    let request = directory.path().join("user-cert.req");
    let sign = |flags: &Flags| {
        let _ = fs::remove_file(&request);
        run(sshsm.signing(flags, slice::from_ref(&user)).arg("--save-request"))
    };
    for (flags, check) in refused() {
        let finished = sign(&flags);
        assert_refused(&finished, &finished.stderr, check);
        assert!(!user.certificate().exists(), "{flags:?}");
        let explained = explain(&sshsm, &request);
        assert_refused(&explained, &explained.stdout, check);
    }
    for flags in allowed() {
        let _ = sign(&flags).success();
        assert_eq!(certificate::read(&user.certificate(), &authority).principals, flags.principals);
        let _ = explain(&sshsm, &request).success();
    }
}

/// Judging what another authority issued, before a move to templates.
#[test]
fn certificates_of_ssh_keygen_are_judged_offline() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let authority = needs!(Key::generate(directory.path(), "ca", KeyType::Rsa2048));
    let issuer = needs!(SshKeygen::with_authority(&authority));
    let sshsm = needs!(Sshsm::new(TEMPLATE));
    for (flags, check) in refused() {
        let _ = issuer.sign(&flags, slice::from_ref(&user)).success();
        let explained = explain(&sshsm, &user.certificate());
        assert_refused(&explained, &explained.stdout, check);
    }
    for flags in allowed() {
        let _ = issuer.sign(&flags, slice::from_ref(&user)).success();
        let _ = explain(&sshsm, &user.certificate()).success();
    }
}

/// Only the template's own timestamp authority is believed, and only the keys that it lists sign under it.
#[test]
fn a_strangers_timestamp_and_an_unlisted_key_are_refused() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let stranger = needs!(Key::generate(directory.path(), "stranger", KeyType::Ed25519));
    let sshsm = needs!(Sshsm::new(TEMPLATE));
    let authority = sshsm.generate_authority(KeyType::Ed25519);
    let unlisted = ["key", "generate", "--algorithm", "ed25519", "--id", "6"];
    let _ = run(sshsm.command().args(unlisted)).success();
    let own = sshsm.directory().join("timestamp");
    let sign = |ca_key: &str, timestamp_key: &Path| {
        run(sshsm
            .command()
            .args(["sign", "-s", ca_key, "-t", "10", "-I", "alice", "-n", "alice", "-V", "-1m:+9h"])
            .arg("--timestamp-key")
            .arg(timestamp_key)
            .arg(&user.public))
    };
    for (ca_key, timestamp_key, check) in [("5", &stranger.private, "timestamp-key"), ("6", &own, "ca-keys")]
    {
        let finished = sign(ca_key, timestamp_key);
        assert_refused(&finished, &finished.stderr, check);
        assert!(!user.certificate().exists());
    }
    let _ = sign("5", &own).success();
    let _ = certificate::read(&user.certificate(), &authority);
}
