//! The README's first command, and whether its promise holds: the certificate it leaves opens a real `sshd`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    binaries,
    key::{Key, KeyType},
    needs,
    process::run,
    ssh::{GREETING, Ssh},
    sshd::Server,
};
use tempfile::tempdir;

#[test]
fn its_certificate_opens_a_real_sshd() {
    let directory = tempdir().unwrap();
    let place = directory.path().join("quickstart");
    let told = run(binaries::sshsm().arg("quickstart").arg(&place)).success().stdout;
    for promised in ["TrustedUserCAKeys", "AuthorizedPrincipalsFile", "forbid-principals", "root"] {
        assert!(told.contains(promised), "{promised} is not in\n{told}");
    }
    let key = |name: &str| Key {
        key_type: KeyType::Ed25519,
        private: place.join(name),
        public: place.join(format!("{name}.pub")),
    };
    let sshd = needs!(Server::trusting(&key("ca"), &["quickstart"]).start());
    let ssh = Ssh::with_certificate(&key("user")).knowing("server", &sshd);
    let (login, log) = needs!(sshd.visit(|| ssh.login("server")));
    assert_eq!(login.success().stdout.trim(), GREETING, "{log}");
    assert!(log.contains("Accepted publickey") && log.contains(&key("ca").fingerprint()), "{log}");
}
