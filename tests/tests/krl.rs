//! Key revocation lists that we write, read by the real `ssh-keygen -Q` and `sshd`, and compared with those that
//! `ssh-keygen -k` makes of the same input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use ssh_key::HashAlg;
use sshsm_ca::krl::RevocationList;
use sshsm_tests::{
    issuer::{Flags, Issuer, SshKeygen},
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::run,
    requirement::Missing,
    ssh::{GREETING, Ssh},
    sshd::Server,
};
use std::{
    fs,
    path::{Path, PathBuf},
    slice,
};
use tempfile::{TempDir, tempdir};

/// A CA, another one, and certificates of both.
struct Scene {
    directory: TempDir,
    ca: Key,
    other: Key,
}

impl Scene {
    fn new() -> Result<Self, Missing> {
        let directory = tempdir().unwrap();
        let ca = Key::generate(directory.path(), "ca", KeyType::P256)?;
        let other = Key::generate(directory.path(), "other", KeyType::Ed25519)?;
        Ok(Self { directory, ca, other })
    }

    fn key(&self, name: &str) -> Result<Key, Missing> {
        Key::generate(self.directory.path(), name, KeyType::Ed25519)
    }

    /// A certificate by `ca` for a new key.
    fn certificate(
        &self,
        ca: &Key,
        name: &str,
        serial: &'static str,
        key_id: &'static str,
    ) -> Result<Key, Missing> {
        let key = self.key(name)?;
        let flags = Flags::user(&["a"]).serial(serial).key_id(key_id);
        let _ = SshKeygen::with_authority(ca)?.sign(&flags, slice::from_ref(&key)).success();
        Ok(key)
    }

    fn write(&self, list: &RevocationList) -> PathBuf {
        let path = self.directory.path().join("ours.krl");
        fs::write(&path, list.encode().unwrap()).unwrap();
        path
    }

    /// What `ssh-keygen -k` makes of a specification.
    fn theirs(&self, specification: &str, ca: Option<&Key>) -> Result<PathBuf, Missing> {
        let input = self.directory.path().join("specification");
        fs::write(&input, specification).unwrap();
        let output = self.directory.path().join("theirs.krl");
        let ca = ca.map_or(Path::new("none"), |ca| &ca.public);
        let _ = run(ssh_keygen()?.args(["-k", "-z", "7", "-f"]).arg(&output).arg("-s").arg(ca).arg(input))
            .success();
        Ok(output)
    }
}

fn data(key: &Key) -> ssh_key::public::KeyData {
    key.public_key().key_data().clone()
}

/// Whether `ssh-keygen -Q` considers the contents of `file` revoked.
fn is_revoked(list: &Path, file: &Path) -> Result<bool, Missing> {
    let answer = run(ssh_keygen()?.args(["-Q", "-f"]).arg(list).arg(file));
    let revoked = answer.stdout.contains(": REVOKED");
    assert_ne!(revoked, answer.stdout.contains(": ok"), "{answer}");
    assert_eq!(revoked, !answer.status.success(), "{answer}");
    Ok(revoked)
}

/// The contents of a list according to `ssh-keygen -Q -l`.
fn content(list: &Path) -> Result<String, Missing> {
    let told = run(ssh_keygen()?.args(["-Q", "-l", "-f"]).arg(list)).success().stdout;
    let content = |line: &&str| !line.starts_with('#') || line.contains("CA");
    Ok(told.lines().filter(content).map(|line| format!("{line}\n")).collect())
}

#[test]
fn ssh_keygen_agrees_about_serials_ranges_and_key_ids_of_one_ca() {
    let scene = needs!(Scene::new());
    let mut list = RevocationList::new(7, 0);
    let ca = data(&scene.ca);
    for range in [5..=5, 10..=20, 1000..=100_000, u64::MAX - 1..=u64::MAX] {
        list.revoke_serials(Some(&ca), range).unwrap();
    }
    // Enough of them, and close enough, for a bitmap.
    for serial in (200..400).step_by(3) {
        list.revoke_serials(Some(&ca), serial..=serial).unwrap();
    }
    list.revoke_key_id(Some(&ca), "mallory").unwrap();
    let path = scene.write(&list);
    for (index, (serial, revoked)) in [
        ("0", false),
        ("1", false),
        ("4", false),
        ("5", true),
        ("6", false),
        ("9", false),
        ("10", true),
        ("20", true),
        ("21", false),
        ("200", true),
        ("201", false),
        ("398", true),
        ("399", false),
        ("999", false),
        ("1000", true),
        ("100000", true),
        ("100001", false),
        ("18446744073709551613", false),
        ("18446744073709551614", true),
        ("18446744073709551615", true),
    ]
    .into_iter()
    .enumerate()
    {
        let key = needs!(scene.certificate(&scene.ca, &format!("serial{index}"), serial, "alice"));
        assert_eq!(needs!(is_revoked(&path, &key.certificate())), revoked, "serial {serial}");
        assert!(!needs!(is_revoked(&path, &key.public)), "the plain key of serial {serial}");
    }
    let other = needs!(scene.certificate(&scene.other, "other-serial", "5", "mallory"));
    assert!(!needs!(is_revoked(&path, &other.certificate())), "another CA's");
    let named = needs!(scene.certificate(&scene.ca, "named", "2", "mallory"));
    assert!(needs!(is_revoked(&path, &named.certificate())), "by key id");
    let told = run(needs!(ssh_keygen()).args(["-Q", "-l", "-f"]).arg(&path)).success().stdout;
    assert!(told.contains("KRL version 7"), "{told}");
}

#[test]
fn ssh_keygen_agrees_about_keys_fingerprints_and_whole_cas() {
    let scene = needs!(Scene::new());
    let [explicit, hashed, free] =
        ["explicit", "hashed", "free"].map(|name| scene.certificate(&scene.ca, name, "1", name));
    let (explicit, hashed, free) = (needs!(explicit), needs!(hashed), needs!(free));
    let others = needs!(scene.certificate(&scene.other, "others", "1", "others"));
    let mut list = RevocationList::default();
    list.revoke_key(&data(&explicit)).unwrap();
    list.revoke_fingerprint(data(&hashed).fingerprint(HashAlg::Sha256).sha256().unwrap());
    list.revoke_key(&data(&scene.other)).unwrap();
    let path = scene.write(&list);
    for (key, revoked) in [(&explicit, true), (&hashed, true), (&free, false)] {
        assert_eq!(needs!(is_revoked(&path, &key.public)), revoked, "{key:?}");
        assert_eq!(needs!(is_revoked(&path, &key.certificate())), revoked, "{key:?}");
    }
    assert!(needs!(is_revoked(&path, &others.certificate())), "signed by a revoked CA");
    assert!(!needs!(is_revoked(&path, &others.public)), "only its certificate is");
    assert!(needs!(is_revoked(&path, &scene.other.public)) && !needs!(is_revoked(&path, &scene.ca.public)));
}

#[test]
fn without_a_ca_certificates_of_all_are_revoked() {
    let scene = needs!(Scene::new());
    let mut list = RevocationList::default();
    list.revoke_serials(None, 5..=5).unwrap();
    list.revoke_key_id(None, "mallory").unwrap();
    let path = scene.write(&list);
    for (index, ca) in [&scene.ca, &scene.other].into_iter().enumerate() {
        let certificate =
            |name: &str, serial, key_id| scene.certificate(ca, &format!("{name}{index}"), serial, key_id);
        assert!(needs!(is_revoked(&path, &needs!(certificate("five", "5", "a")).certificate())));
        assert!(needs!(is_revoked(&path, &needs!(certificate("id", "6", "mallory")).certificate())));
        assert!(!needs!(is_revoked(&path, &needs!(certificate("six", "6", "a")).certificate())));
    }
}

#[test]
fn an_empty_list_revokes_nothing() {
    let scene = needs!(Scene::new());
    let path = scene.write(&RevocationList::default());
    let key = needs!(scene.certificate(&scene.ca, "user", "1", "a"));
    assert!(!needs!(is_revoked(&path, &key.certificate())) && !needs!(is_revoked(&path, &key.public)));
}

#[test]
fn ssh_keygen_makes_the_same_bytes_of_the_same_input() {
    let scene = needs!(Scene::new());
    let (user, hashed) = (needs!(scene.key("user")), needs!(scene.key("hashed")));
    let fingerprint = data(&hashed).fingerprint(HashAlg::Sha256);
    let specification = format!(
        "serial: 3\nserial: 1000000-2000000\nserial: 90000000\nid: bob\nid: alice\nkey: {}\nhash: {fingerprint}\n",
        user.public_line()
    );
    let theirs = fs::read(needs!(scene.theirs(&specification, Some(&scene.ca)))).unwrap();
    let ca = data(&scene.ca);
    let mut list = RevocationList::new(7, 0);
    // The date is theirs, at its position after magic, format and number.
    list.generated = u64::from_be_bytes(theirs[20..28].try_into().unwrap());
    for range in [3..=3, 1_000_000..=2_000_000, 90_000_000..=90_000_000] {
        list.revoke_serials(Some(&ca), range).unwrap();
    }
    list.revoke_key_id(Some(&ca), "alice").unwrap();
    list.revoke_key_id(Some(&ca), "bob").unwrap();
    list.revoke_key(&data(&user)).unwrap();
    list.revoke_fingerprint(fingerprint.sha256().unwrap());
    assert_eq!(list.encode().unwrap(), theirs);
}

#[test]
fn ssh_keygen_reads_the_same_content_however_it_is_packed() {
    let scene = needs!(Scene::new());
    let ca = data(&scene.ca);
    let mut list = RevocationList::new(7, 0);
    let mut specification = String::new();
    // Increasingly distant numbers, in runs of one to seven.
    let mut serial = 1_u64;
    for step in 0..400 {
        let (first, last) = (serial, serial + step % 7);
        // It does not accept a range of one.
        specification +=
            &if first == last { format!("serial: {first}\n") } else { format!("serial: {first}-{last}\n") };
        list.revoke_serials(Some(&ca), first..=last).unwrap();
        serial = last + 2 + step * step / 50;
    }
    let theirs = needs!(scene.theirs(&specification, Some(&scene.ca)));
    let ours = scene.write(&list);
    let (said, expected) = (needs!(content(&ours)), needs!(content(&theirs)));
    assert!(expected.lines().count() > 400, "{expected}");
    assert_eq!(said, expected);
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(
        length(&ours) <= length(&theirs) * 11 / 10,
        "{} bytes, {} theirs",
        length(&ours),
        length(&theirs)
    );
}

/// A certificate that another CA wrote and `sshd` accepts, however odd it is, can be revoked by its file; one
/// that its CA did not sign cannot.
#[test]
fn whatever_a_server_might_accept_is_revoked_by_its_file() {
    use ed25519_dalek::{Signer as _, SigningKey};
    let directory = tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let key = needs!(Key::generate(directory.path(), "key", KeyType::Ed25519));
    let ca = needs!(Key::generate(directory.path(), "ca", KeyType::Ed25519));
    let private = ssh_key::PrivateKey::from_openssh(fs::read(&ca.private).unwrap()).unwrap();
    let ssh_key::private::KeypairData::Ed25519(pair) = private.key_data() else { unreachable!() };
    let signing = SigningKey::from_bytes(&pair.private.to_bytes());
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let certificate = |serial: u64, key_id: &[u8], critical: &[u8], extensions: &[u8], reserved: &[u8]| {
        let signed = [
            string(b"ssh-ed25519-cert-v01@openssh.com"),
            string(b"short nonce"),
            key.public_key().to_bytes().unwrap()[4 + 11..].to_vec(),
            serial.to_be_bytes().to_vec(),
            vec![0, 0, 0, 1],
            string(key_id),
            string(&[string(b"a,b"), string(b"")].concat()),
            vec![0; 8],
            vec![0xff; 8],
            string(critical),
            string(extensions),
            string(reserved),
            string(&ca.public_key().to_bytes().unwrap()),
        ]
        .concat();
        let signature = [string(b"ssh-ed25519"), string(&signing.sign(&signed).to_bytes())].concat();
        [signed, string(&signature)].concat()
    };
    let flag = |name: &str| [string(name.as_bytes()), string(b"")].concat();
    let unsorted = [flag("permit-pty"), flag("permit-X11-forwarding"), flag("permit-pty")].concat();
    let cases = [
        certificate(7, b"id", b"", &unsorted, b""),
        certificate(8, b"id", &flag("unknown@example.com"), b"", b"reserved"),
        certificate(9, b"\xff\xfe", b"", b"", b""),
        certificate(0, b"by its key id", b"", &unsorted, b""),
        certificate(0, b"", b"", b"", b""),
        certificate(0, b"\xff\xfe", b"", b"", b""),
        certificate(u64::MAX, b"id", b"", b"", b""),
    ];
    for (number, case) in cases.iter().enumerate() {
        let (file, list) = (at(&format!("{number}-cert.pub")), at(&format!("{number}.krl")));
        let line = |blob: &[u8]| {
            [b"ssh-ed25519-cert-v01@openssh.com ", encode(blob).as_bytes(), b" m\xfcller\r\n"].concat()
        };
        let sshsm = || {
            let mut command = sshsm_tests::binaries::sshsm();
            command.current_dir(directory.path()).env("SSHSM_LEDGER", at(&format!("{number}.sqlite")));
            command
        };
        let mut forged = case.clone();
        *forged.last_mut().unwrap() ^= 1;
        fs::write(&file, line(&forged)).unwrap();
        let refused = run(sshsm().args(["revoke", "--certificate"]).arg(&file));
        assert!(refused.stderr.contains("not one that a server would accept"), "{refused}");
        assert_eq!(refused.status.code(), Some(1), "{refused}");
        fs::write(&file, line(case)).unwrap();
        let _ = run(sshsm().args(["revoke", "--certificate"]).arg(&file)).success();
        let _ = run(sshsm().args(["krl", "build", "-o"]).arg(&list)).success();
        assert!(needs!(is_revoked(&list, &file)), "{number}");
        fs::write(&file, line(&forged)).unwrap();
        let _ = run(sshsm().args(["revoke", "--unverified", "--certificate"]).arg(&file)).success();
    }
    let plain = run(sshsm_tests::binaries::sshsm()
        .env("SSHSM_LEDGER", at("0.sqlite"))
        .args(["revoke", "--certificate"])
        .arg(&key.public));
    assert!(plain.stderr.contains("--key"), "{plain}");
}

/// Base64 in one line.
fn encode(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len().div_ceil(3) * 4];
    let mut writer = ssh_key::encoding::Base64Writer::new(&mut text).unwrap();
    ssh_key::encoding::Writer::write(&mut writer, bytes).unwrap();
    writer.finish().unwrap().to_owned()
}

#[test]
fn sshd_turns_away_who_is_on_the_list() {
    let scene = needs!(Scene::new());
    let log_in = |key: &Key, revoked: Option<PathBuf>| -> Result<(bool, String), Missing> {
        let sshd = Server { revoked, ..Server::trusting(&scene.ca, &["a"]) }.start()?;
        let ssh = Ssh::with_certificate(key).knowing("server", &sshd);
        let (client, log) = sshd.visit(|| ssh.login("server"))?;
        Ok((client.stdout.trim() == GREETING, log))
    };
    let revoked = needs!(scene.certificate(&scene.ca, "revoked", "5", "a"));
    let free = needs!(scene.certificate(&scene.ca, "free", "6", "a"));
    let mut list = RevocationList::default();
    list.revoke_serials(Some(&data(&scene.ca)), 5..=5).unwrap();
    let path = scene.write(&list);
    let (inside, log) = needs!(log_in(&revoked, Some(path.clone())));
    assert!(!inside && log.contains("revoked by file"), "{log}");
    assert!(needs!(log_in(&free, Some(path))).0);
    assert!(needs!(log_in(&revoked, None)).0);
}
