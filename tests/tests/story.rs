//! The life of an SSH certificate authority, from beginning to end: zones, host and user certificates, a
//! login through a bastion, a lost laptop, revocation, renewal. With the CA key in the simulator, and on a
//! PKCS#11 token.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    binaries,
    issuer::{Flags, Issuer, Sshsm},
    key::{Key, KeyType},
    needs,
    process::run,
    requirement::Missing,
    softhsm::SoftHsm,
    ssh::{GREETING, Ssh},
    sshd::{Server, Sshd},
};
use std::{path::PathBuf, slice};
use tempfile::{TempDir, tempdir};

/// The authority's office: its signer, its ledger, and the keys of those it certifies.
struct Office<I> {
    issuer: I,
    authority: Key,
    directory: TempDir,
}

impl<I: Issuer> Office<I> {
    fn open() -> Result<Self, Missing> {
        let directory = tempdir().unwrap();
        let authority = Key::generate(directory.path(), "ca", KeyType::P256)?;
        Ok(Self { issuer: I::with_authority(&authority)?, authority, directory })
    }

    fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger.sqlite")
    }

    fn new_key(&self, name: &str) -> Result<Key, Missing> {
        Key::generate(self.directory.path(), name, KeyType::Ed25519)
    }

    /// Certifies a key, under the next serial number of the ledger.
    fn certify(&self, key: &Key, flags: Flags) {
        let flags = flags.valid("-1m:+8h").serial("+");
        let mut signing = self.issuer.signing(&flags, slice::from_ref(key));
        let _ = run(signing.env("SSHSM_LEDGER", self.ledger())).success();
    }

    /// A command about the ledger, which needs no device; returns its output.
    fn sshsm(&self, line: &str) -> String {
        let mut command = binaries::sshsm();
        command.current_dir(self.directory.path()).env("SSHSM_LEDGER", self.ledger()).args(line.split(' '));
        run(&mut command).success().stdout
    }

    /// A host with this name and a new certificate for its key, which admits users with one of `zones`.
    fn host(&self, name: &str, zones: &[&'static str], revoked: Option<PathBuf>) -> Result<Sshd, Missing> {
        let [private, public] =
            [name.to_owned(), format!("{name}.pub")].map(|name| self.directory.path().join(name));
        let host = match public.exists() {
            true => Key { key_type: KeyType::Ed25519, private, public },
            false => self.new_key(name)?,
        };
        self.certify(&host, Flags::host(&[name]).key_id("a host"));
        Server { host: Some(host), revoked, ..Server::trusting(&self.authority, zones) }.start()
    }
}

/// The hosts of the company.
struct Hosts {
    bastion: Sshd,
    web: Sshd,
    database: Sshd,
}

impl Hosts {
    fn start<I: Issuer>(office: &Office<I>, revoked: Option<PathBuf>) -> Result<Self, Missing> {
        let host = |name, zones: &[&'static str]| office.host(name, zones, revoked.clone());
        Ok(Self {
            bastion: host("bastion.example.com", &["zone-bastion"])?,
            web: host("web.example.com", &["zone-web", "admins"])?,
            database: host("db.example.com", &["zone-db", "admins"])?,
        })
    }

    /// Whether a user reaches a host through the bastion, knowing nothing about the hosts but the authority.
    fn reach<I: Issuer>(&self, office: &Office<I>, key: &Key, name: &str) -> Result<bool, Missing> {
        let jump = "ProxyJump bastion.example.com\n";
        let ssh = Ssh::with_certificate(key)
            .trusting("*.example.com", &office.authority)
            .reaching("bastion.example.com", &self.bastion, "")
            .reaching("web.example.com", &self.web, jump)
            .reaching("db.example.com", &self.database, jump);
        let login = ssh.login(name)?;
        let came_in = login.stdout.trim() == GREETING;
        assert_eq!(login.status.success(), came_in, "{login}");
        assert!(!login.stderr.contains("Host key verification failed"), "{login}");
        Ok(came_in)
    }
}

fn story<I: Issuer>() {
    let office = needs!(Office::<I>::open());
    let hosts = needs!(Hosts::start(&office, None));
    let (alice, bob) = (needs!(office.new_key("alice")), needs!(office.new_key("bob")));
    office.certify(&alice, Flags::user(&["zone-bastion", "zone-web"]).key_id("alice@example.com"));
    office.certify(&bob, Flags::user(&["zone-bastion", "admins"]).key_id("bob@example.com"));
    for (key, host, expected) in [
        (&alice, "web.example.com", true),
        (&alice, "db.example.com", false),
        (&bob, "web.example.com", true),
        (&bob, "db.example.com", true),
    ] {
        assert_eq!(needs!(hosts.reach(&office, key, host)), expected, "{host}");
    }

    // Three hosts were first; Alice's certificate is the fourth. She loses her laptop.
    let revoked = office.sshsm("revoke --key-id alice@example.com --reason lost --format json");
    assert!(revoked.contains("\"serial\": 4"), "{revoked}");
    office.sshsm("krl build -o revoked.krl");
    let hosts = needs!(Hosts::start(&office, Some(office.directory.path().join("revoked.krl"))));
    assert!(!needs!(hosts.reach(&office, &alice, "web.example.com")), "revoked");
    assert!(needs!(hosts.reach(&office, &bob, "web.example.com")), "the others are as before");

    // A new laptop, a new key, a new certificate. A key id that was revoked stays revoked: she gets another.
    let renewed = needs!(office.new_key("alice-2"));
    office
        .certify(&renewed, Flags::user(&["zone-bastion", "zone-web"]).key_id("alice@example.com, laptop 2"));
    assert!(needs!(hosts.reach(&office, &renewed, "web.example.com")));

    let entries: serde_json::Value =
        serde_json::from_str(&office.sshsm("ledger list --format json")).unwrap();
    let entries = entries.as_array().unwrap();
    let serials: Vec<_> = entries.iter().map(|entry| entry["serial"].as_u64().unwrap()).collect();
    assert_eq!(serials, (1..=9).collect::<Vec<_>>(), "six hosts, Alice twice, Bob");
    assert!(entries.iter().all(|entry| entry["state"] == "issued"));
    let ledger = office.sshsm("ledger list --principal zone-web");
    assert_eq!(ledger.matches("alice@example.com").count(), 2, "{ledger}");
}

#[test]
fn with_the_simulator() {
    story::<Sshsm>();
}

#[test]
fn with_a_pkcs11_token() {
    story::<SoftHsm>();
}
