//! How OpenSSH's tools and sshsm treat generated and damaged files and messages. Each difference has its
//! reason here, or is a failure.
//!
//! The cases are the same on every run. `SSHSM_DIFFERENTIAL_SECONDS=3600` continues for that long in each
//! test, with others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use ed25519_dalek::{Signer as _, SigningKey};
use ssh_key::{HashAlg, PrivateKey, PublicKey, private::KeypairData};
use sshsm_ca::{
    agent::{Authority, CaAgent, CaIdentity, Order, Refusal, message::Answer},
    certificate_options::CertificateOptions,
    key_file::{self, KeyFileError, KeyFormatError},
    krl::{KrlReadError, RevocationList},
    presented_certificate::PresentedCertificate,
    request::{BuildError, Content, SigningRequest},
    validity::Validity,
};
use sshsm_protocol::ssh::request::{CertificateKind, RequestError};
use sshsm_tests::{
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::{Running, run, run_for, wait_for},
    requirement::{Missing, program},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    slice,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::{TempDir, tempdir};
use zeroize::Zeroizing;

/// Numbers that are the same on every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % end
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Runs cases: `count` of them, or for as long as the environment says.
fn cases(count: usize, mut case: impl FnMut(&mut Random)) {
    let long = std::env::var("SSHSM_DIFFERENTIAL_SECONDS").ok().map(|text| text.parse().unwrap());
    let until = long.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seed = until.map_or(0x5eed, |_| u64::from(std::process::id()) << 20 | 0x5eed);
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let mut done = 0;
    while until.map_or(done < count, |until| Instant::now() < until) {
        case(&mut random);
        done += 1;
    }
    println!("{done} cases");
}

/// How often each difference came up.
#[derive(Default)]
struct Differences(BTreeMap<&'static str, usize>);

impl Differences {
    fn count(&mut self, reason: &'static str) {
        *self.0.entry(reason).or_default() += 1;
    }

    fn print(&self) {
        for (reason, count) in &self.0 {
            println!("{count:6} {reason}");
        }
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sign = if place <= chunk.len() { alphabet[bits >> (18 - 6 * place) & 63] } else { b'=' };
            text.push(char::from(sign));
        }
    }
    text
}

fn from_base64(text: &str) -> Vec<u8> {
    let signs: Vec<u8> = text.bytes().filter(|sign| !sign.is_ascii_whitespace() && *sign != b'=').collect();
    let value = |sign| match sign {
        b'A'..=b'Z' => sign - b'A',
        b'a'..=b'z' => sign - b'a' + 26,
        b'0'..=b'9' => sign - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for chunk in signs.chunks(4) {
        let bits = chunk.iter().fold(0_u32, |bits, sign| bits << 6 | u32::from(value(*sign)))
            << (6 * (4 - chunk.len()));
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}

/// A file of a key, with its kind.
struct Sample {
    text: String,
    public: String,
    passphrase: &'static str,
}

/// How a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It has the same content, in different lines.
    Layout,
    /// It may have different content.
    Content,
}

fn is_base64(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || matches!(sign, '+' | '/' | '=')
}

/// The lines between the lines of dashes.
fn body(text: &str) -> Option<(String, String, String)> {
    let begin = text.find("-----BEGIN")?;
    let start = begin + text[begin..].find('\n')? + 1;
    let end = start + text[start..].find("-----END")?;
    Some((text[..start].to_owned(), text[start..end].to_owned(), text[end..].to_owned()))
}

fn changed(random: &mut Random, text: &str) -> (Change, String) {
    let at = |random: &mut Random| {
        let place = random.below(text.len());
        (0..=place).rev().find(|place| text.is_char_boundary(*place)).unwrap()
    };
    let replaced = |place: usize, by: &str, length: usize| {
        let rest = text[place..].chars().skip(length).collect::<String>();
        format!("{}{by}{rest}", &text[..place])
    };
    let pem = body(text);
    match (random.below(10), pem) {
        (0, _) => (Change::Layout, text.replace('\n', "\r\n")),
        (1, _) => (Change::Layout, text.trim_end().to_owned()),
        (2, _) => (Change::Layout, format!("{text}\n\n")),
        (3 | 4, Some((head, body, tail))) => {
            let width = [1, 7, 64, 65, 70, 76, 100, 10_000][random.below(8)];
            let signs: Vec<char> = body.chars().filter(|sign| is_base64(*sign)).collect();
            let blank = ["", "", " ", "\t", "\r"][random.below(5)];
            let lines =
                signs.chunks(width).map(|line| format!("{}{blank}\n", line.iter().collect::<String>()));
            (Change::Layout, format!("{head}{}{tail}", lines.collect::<String>()))
        }
        (5 | 6, Some((head, body, tail))) if !body.contains(':') => {
            let mut bytes = from_base64(&body);
            let place = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(place),
                1 => bytes.extend(random.bytes(1)),
                2 => bytes[place] = bytes[place].wrapping_add(1),
                _ => bytes[place] ^= 1 << random.below(8),
            }
            (Change::Content, format!("{head}{}\n{tail}", base64(&bytes)))
        }
        (7, _) => {
            let place = at(random);
            let by = [" ", "\n", "A", "=", "-", "\0", "é"][random.below(7)];
            (Change::Content, replaced(place, by, 0))
        }
        (8, _) => {
            let place = at(random);
            (Change::Content, replaced(place, "", 1 + random.below(3)))
        }
        _ => {
            let place = at(random);
            (Change::Content, replaced(place, ["A", "b", "0", "+", "/"][random.below(5)], 1))
        }
    }
}

/// Keys of every kind and form that ssh-keygen writes.
fn private_keys(directory: &Path) -> Result<Vec<Sample>, Missing> {
    let mut samples = Vec::new();
    let forms: [(&str, &str, &str, &str, &str); 15] = [
        ("ed25519", "", "RFC4716", "", ""),
        ("ed25519", "", "RFC4716", "secret", "aes256-ctr"),
        ("ed25519", "", "RFC4716", "secret", "chacha20-poly1305@openssh.com"),
        ("ed25519", "", "RFC4716", "secret", "aes128-gcm@openssh.com"),
        ("ed25519", "", "RFC4716", "secret", "3des-cbc"),
        ("ecdsa", "256", "RFC4716", "", ""),
        ("ecdsa", "384", "RFC4716", "", ""),
        ("ecdsa", "521", "RFC4716", "secret", "aes192-cbc"),
        ("ecdsa", "256", "PEM", "", ""),
        ("ecdsa", "521", "PKCS8", "", ""),
        ("ecdsa", "256", "PKCS8", "secret", ""),
        ("ecdsa", "256", "PEM", "secret", ""),
        ("rsa", "2048", "RFC4716", "", ""),
        ("rsa", "2048", "PEM", "", ""),
        ("rsa", "2048", "PKCS8", "", ""),
    ];
    for (number, (kind, bits, form, passphrase, cipher)) in forms.into_iter().enumerate() {
        let path = directory.join(format!("sample-{number}"));
        let mut keygen = ssh_keygen()?;
        keygen
            .args(["-q", "-t", kind, "-m", form, "-N", passphrase, "-a", "1", "-C", "comment", "-f"])
            .arg(&path);
        for (flag, value) in [("-b", bits), ("-Z", cipher)] {
            if !value.is_empty() {
                keygen.args([flag, value]);
            }
        }
        let _ = run(&mut keygen).success();
        samples.push(Sample {
            text: fs::read_to_string(&path).unwrap(),
            public: words(&fs::read_to_string(path.with_extension("pub")).unwrap()),
            passphrase,
        });
    }
    Ok(samples)
}

/// Type and encoding of a public key line.
fn words(line: &str) -> String {
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn line(key: &ssh_key::public::KeyData) -> String {
    words(&PublicKey::from(key.clone()).to_openssh().unwrap())
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Why sshsm refuses a private key that ssh-keygen reads.
fn stricter_about_private_keys(error: &KeyFormatError, change: Change, text: &str) -> Option<&'static str> {
    Some(match error {
        KeyFormatError::Cipher { cipher } if cipher == "3des-cbc" => {
            "3DES is not supported, and the error says how to rewrite the key"
        }
        KeyFormatError::LegacyEncryption if text.contains("Proc-Type:") => {
            "the old encryption of PEM is one round of MD5, and the error says how to rewrite the key"
        }
        KeyFormatError::PrivateEncryption { .. } if change == Change::Content => {
            "a damaged key names another encryption, which OpenSSL knows"
        }
        KeyFormatError::Malformed { .. } if change == Change::Content => {
            "OpenSSH does not check whether the private half belongs to the public one, and skips what it does not use"
        }
        KeyFormatError::Several { .. } if change == Change::Content => {
            "OpenSSH takes the first of several keys"
        }
        KeyFormatError::Costly { .. } if change == Change::Content => {
            "a damaged key asks for more work than any key needs"
        }
        _ => return None,
    })
}

#[test]
fn private_keys_are_read_as_ssh_keygen_reads_them() {
    let directory = tempdir().unwrap();
    let samples = needs!(private_keys(directory.path()));
    let path = directory.path().join("case");
    let mut differences = Differences::default();
    cases(400, |random| {
        let sample = random.pick(&samples);
        let (change, text) = if random.one_in(8) {
            (Change::Layout, sample.text.clone())
        } else {
            changed(random, &sample.text)
        };
        write(&path, &text);
        let mut keygen = ssh_keygen().unwrap();
        // Damage can make the passphrase's function as slow as a number can say.
        let patience = Duration::from_secs(20);
        let theirs = run_for(patience, keygen.args(["-y", "-P", sample.passphrase, "-f"]).arg(&path));
        let ours = key_file::read_private(&path, &mut || Ok(Zeroizing::new(sample.passphrase.to_owned())));
        let Some(theirs) = theirs else {
            // What takes seconds is read; what takes hours is refused.
            match ours {
                Ok(ours) => assert_eq!(sample.public, line(ours.public_key().key_data()), "{text}"),
                Err(KeyFileError::Key { source: KeyFormatError::WrongPassphrase, .. }) => {}
                Err(KeyFileError::Key { source, .. })
                    if stricter_about_private_keys(&source, change, &text).is_some() => {}
                Err(error) => panic!("ssh-keygen is still at work on this: {error}\n{text}"),
            }
            return differences.count("ssh-keygen would take minutes or years");
        };
        let theirs = theirs.status.success().then(|| words(&theirs.stdout));
        match (theirs, ours) {
            (None, Err(_)) => differences.count("(neither reads it)"),
            (Some(theirs), Ok(ours)) => {
                assert_eq!(theirs, line(ours.public_key().key_data()), "{text}");
                differences.count("(the same key)");
            }
            (Some(_), Err(KeyFileError::Key { source, .. })) => {
                let reason = stricter_about_private_keys(&source, change, &text);
                differences
                    .count(reason.unwrap_or_else(|| panic!("ssh-keygen reads this: {source:?}\n{text}")));
            }
            (None, Ok(ours)) => {
                // Whatever a tool stumbles over, the key is the one that was written.
                assert_eq!(sample.public, line(ours.public_key().key_data()), "{text}");
                differences.count(
                    "OpenSSH requires a final newline, short lines, or nothing around a key; it is the same key",
                );
            }
            (_, Err(error)) => panic!("{error}\n{text}"),
        }
    });
    differences.print();
}

/// Why sshsm does not certify a key that ssh-keygen reads.
fn stricter_about_public_keys(error: &str) -> Option<&'static str> {
    [
        ("keys in this file", "OpenSSH takes the first of several keys"),
        ("small order", "anybody can sign for a point of small order"),
        ("exponent is 1", "anybody can sign for an RSA key with the exponent 1"),
        ("is not UTF-8 text", "a security key's application is read as text, \"ssh:\" in practice"),
        ("more than they need", "a key in a certificate is written in its shortest form"),
    ]
    .into_iter()
    .find_map(|(words, reason)| error.contains(words).then_some(reason))
}

#[test]
fn public_keys_are_certified_when_ssh_keygen_reads_them() {
    let directory = tempdir().unwrap();
    let mut samples = Vec::new();
    for (number, kind) in KeyType::SUBJECTS.into_iter().enumerate() {
        samples
            .push(needs!(Key::generate(directory.path(), &format!("subject-{number}"), kind)).public_line());
    }
    let ca = needs!(Key::generate(directory.path(), "ca", KeyType::P256));
    let ca = PublicKey::from_openssh(&ca.public_line()).unwrap();
    let content = Content {
        kind: CertificateKind::User,
        serial: 1,
        key_id: "id".into(),
        principals: vec!["alice".into()],
        validity: Validity::UNLIMITED,
        options: CertificateOptions::default(),
    };
    let path = directory.path().join("case.pub");
    let mut differences = Differences::default();
    cases(400, |random| {
        let sample = random.pick(&samples);
        let mut fields = sample.trim().splitn(3, ' ');
        let [kind, data, comment] = [0; 3].map(|_| fields.next().unwrap_or_default().to_owned());
        let mut blob = from_base64(&data);
        let text = match random.below(12) {
            0 => sample.clone().into_bytes(),
            1 => format!("{kind}\t {data}  {comment}\r\n").into_bytes(),
            2 => [format!("{kind} {data} ").into_bytes(), random.bytes(6)].concat(),
            3 => format!("# remark\n\n  {sample}").into_bytes(),
            4 => format!("{sample}\n{sample}").into_bytes(),
            5 => format!("restrict {sample}").into_bytes(),
            6 => {
                format!("{} {data}", random.pick(&["ssh-rsa", "rsa-sha2-256", "ssh-ed25519", "ssh-dss", "x"]))
                    .into_bytes()
            }
            7 => format!("{kind} {}", &data[..random.below(data.len())]).into_bytes(),
            _ => {
                let place = random.below(blob.len());
                match random.below(4) {
                    0 => blob.truncate(place),
                    1 => blob.extend(random.bytes(1)),
                    2 => blob[place] = random.bytes(1)[0],
                    _ => blob[place] ^= 1 << random.below(8),
                }
                format!("{kind} {} {comment}\n", base64(&blob)).into_bytes()
            }
        };
        write(&path, &text);
        let mut keygen = ssh_keygen().unwrap();
        let theirs = run(keygen.args(["-e", "-m", "RFC4716", "-f"]).arg(&path));
        let theirs = theirs.status.success().then(|| {
            let lines = theirs
                .stdout
                .lines()
                .filter(|line| !line.contains("----") && !line.contains(':') && !line.ends_with('\\'));
            from_base64(&lines.collect::<String>())
        });
        let ours = key_file::read_public(&path).map_err(|error| chain(&error)).and_then(|key| {
            SigningRequest::new(&key, &content, ca.key_data()).map_err(|error| chain(&error)).map(|_| key)
        });
        let shown = String::from_utf8_lossy(&text).into_owned();
        match (theirs, ours) {
            (None, Err(_)) => differences.count("(neither reads it)"),
            (Some(theirs), Ok(ours)) => {
                let (theirs, ours) = (PublicKey::from_bytes(&theirs), ours.to_bytes().unwrap());
                // ssh-key reads only the shortest form of numbers.
                if let Ok(theirs) = theirs {
                    assert_eq!(theirs.to_bytes().unwrap(), ours, "{shown}");
                }
                differences.count("(the same key)");
            }
            (Some(_), Err(error)) => {
                let reason = stricter_about_public_keys(&error);
                differences
                    .count(reason.unwrap_or_else(|| panic!("ssh-keygen reads this: {error}\n{shown}")));
            }
            (None, Ok(ours)) => panic!("ssh-keygen does not read this: {ours:?}\n{shown}"),
        }
    });
    differences.print();
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A CA whose key is at hand, and subjects of every kind.
struct Certifier {
    directory: TempDir,
    ca: SigningKey,
    ca_blob: Vec<u8>,
    /// Names of certificate types with the fields of a key.
    subjects: Vec<(&'static str, Vec<u8>)>,
}

impl Certifier {
    fn new() -> Result<Self, Missing> {
        let directory = tempdir().unwrap();
        let mut subjects = Vec::new();
        for (number, kind) in KeyType::SUBJECTS.into_iter().enumerate() {
            let key = Key::generate(directory.path(), &format!("subject-{number}"), kind)?;
            let blob = from_base64(key.public_line().split(' ').nth(1).unwrap());
            let name = u32::from_be_bytes(blob[..4].try_into().unwrap()) as usize;
            subjects.push((kind.certificate_type(), blob[4 + name..].to_vec()));
        }
        let key = Key::generate(directory.path(), "ca", KeyType::Ed25519)?;
        let private = PrivateKey::from_openssh(fs::read(&key.private).unwrap()).unwrap();
        let KeypairData::Ed25519(pair) = private.key_data() else { unreachable!() };
        let ca = SigningKey::from_bytes(&pair.private.to_bytes());
        Ok(Self { ca_blob: private.public_key().to_bytes().unwrap(), directory, ca, subjects })
    }

    /// The bytes to be signed of a certificate: mostly as they should be, with something odd now and then.
    fn to_be_signed(&self, random: &mut Random) -> Vec<u8> {
        let (kind, key) = random.pick(&self.subjects);
        let kind = match random.below(30) {
            0 => "rsa-sha2-512-cert-v01@openssh.com",
            1 => "ssh-foo-cert-v01@openssh.com",
            _ => kind,
        };
        let mut key = key.clone();
        if random.one_in(20) {
            let place = random.below(key.len());
            key[place] ^= 1 << random.below(8);
        }
        let text = |random: &mut Random| -> Vec<u8> {
            match random.below(24) {
                0 => Vec::new(),
                1 => b"nul\0".to_vec(),
                2 => b"\xff\xfe".to_vec(),
                3 => b"a,b".to_vec(),
                4 => vec![b'k'; random.below(3000)],
                _ => b"name".to_vec(),
            }
        };
        let count = match random.below(20) {
            0 => 0,
            1 => 255 + random.below(4),
            _ => 1 + random.below(3),
        };
        let principals: Vec<u8> = (0..count).flat_map(|_| string(&text(random))).collect();
        let options = |random: &mut Random, names: &[&str]| -> Vec<u8> {
            let mut names = names.to_vec();
            if !random.one_in(6) {
                names.sort_unstable();
                names.dedup();
            }
            names.truncate(random.below(names.len() + 1));
            names
                .iter()
                .flat_map(|name| {
                    let value = match random.below(16) {
                        0 => b"raw".to_vec(),
                        1 => [string(b"one"), string(b"two")].concat(),
                        2 => string(b"\xff"),
                        3 => string(b"value"),
                        _ if *name == "force-command" => string(b"/bin/true"),
                        _ if *name == "source-address" => string(b"127.0.0.1/32"),
                        _ => Vec::new(),
                    };
                    [string(name.as_bytes()), string(&value)].concat()
                })
                .collect()
        };
        let critical =
            options(random, &["source-address", "force-command", "unknown@example.com", "verify-required"]);
        let extensions =
            options(random, &["permit-pty", "permit-user-rc", "permit-pty", "login@example.com"]);
        let nonce = if random.one_in(20) { random.below(20) } else { 32 };
        let [after, before] = if random.one_in(12) { [9, 3] } else { [0, u64::MAX] };
        let certified_by = match random.below(30) {
            0 => [self.ca_blob.as_slice(), b"x"].concat(),
            1 => string(b"ssh-foo"),
            _ => self.ca_blob.clone(),
        };
        [
            string(kind.as_bytes()),
            string(&random.bytes(nonce)),
            key,
            (random.next() >> random.below(64)).to_be_bytes().to_vec(),
            u32::try_from(if random.one_in(15) { random.below(5) } else { 1 + random.below(2) })
                .unwrap()
                .to_be_bytes()
                .to_vec(),
            string(&text(random)),
            string(&principals),
            after.to_be_bytes().to_vec(),
            before.to_be_bytes().to_vec(),
            string(&critical),
            string(&extensions),
            string(if random.one_in(20) { b"reserved" } else { b"" }),
            string(&certified_by),
        ]
        .concat()
    }

    /// The certificate, signed.
    fn certificate(&self, to_be_signed: &[u8]) -> Vec<u8> {
        let signature = self.ca.sign(to_be_signed).to_bytes();
        let field = [string(b"ssh-ed25519"), string(&signature)].concat();
        [to_be_signed, &string(&field)].concat()
    }

    fn write(&self, certificate: &[u8]) -> PathBuf {
        let length = u32::from_be_bytes(certificate[..4].try_into().unwrap()) as usize;
        let kind = String::from_utf8_lossy(&certificate[4..4 + length]).into_owned();
        let path = self.directory.path().join("case-cert.pub");
        write(&path, format!("{kind} {} comment\n", base64(certificate)));
        path
    }
}

/// What ssh-keygen prints about a certificate: serial number and CA, if it can read it. It verifies the
/// signature when reading.
fn shown(path: &Path) -> Option<(u64, String)> {
    let mut keygen = ssh_keygen().unwrap();
    let shown = run(keygen.args(["-L", "-f"]).arg(path));
    // It exits successfully even for something that is not a certificate.
    let after = |name: &str| {
        let at = shown.stdout.find(name)? + name.len();
        Some(shown.stdout[at..].split_whitespace().next()?.to_owned())
    };
    let ca = shown.stdout.split_once("Signing CA:")?.1.split_whitespace().nth(1)?.to_owned();
    shown.status.success().then_some((after("Serial:")?.parse().ok()?, ca))
}

/// Why a request is not made, though OpenSSH reads the certificate.
fn stricter_about_requests(error: &BuildError) -> Option<&'static str> {
    Some(match error {
        BuildError::NotUtf8(_) => "text that is not UTF-8 cannot be recorded unchanged",
        BuildError::Unusable(_) => {
            "OpenSSH does not look at a subject's point or exponent before it uses them"
        }
        BuildError::Option { .. } => "ssh-keygen -L shows what sshd refuses",
        BuildError::Content(error) => match error {
            RequestError::ShortNonce(_) => "a short nonce makes the signed bytes predictable",
            RequestError::NulByte(_) => "OpenSSH cuts a NUL at the end of a name off",
            RequestError::CommaInPrincipal => "OpenSSH before 10.3 takes a principal with a comma for two",
            RequestError::EmptyPrincipal => "a principal without a name matches nobody, or anybody",
            RequestError::Unsorted(_) => "PROTOCOL.certkeys requires options in order, each once",
            RequestError::UnnamedOption(_) => "an option without a name means nothing",
            RequestError::OptionValue(_) => "ssh-keygen -L reads an option whose value sshd does not",
            RequestError::Reserved(_) => "the meaning of the reserved field is not known",
            RequestError::UnknownCertificateType => {
                "a type of certificate that is named after its signatures"
            }
            RequestError::PublicKey { .. } => "a key in a certificate is written in its shortest form",
            RequestError::UnknownKind(_) => "OpenSSH does not look at the kind before it uses it",
            _ => return None,
        },
        _ => return None,
    })
}

#[test]
fn what_openssh_could_not_read_is_never_signed_and_what_it_reads_can_be_revoked() {
    let certifier = needs!(Certifier::new());
    let mut differences = Differences::default();
    cases(500, |random| {
        let to_be_signed = certifier.to_be_signed(random);
        let mut certificate = certifier.certificate(&to_be_signed);
        let damaged = random.one_in(8);
        if damaged {
            // After the type, so that ssh-keygen is told the right one.
            let place = 50 + random.below(certificate.len() - 50);
            match random.below(3) {
                0 => certificate.truncate(place),
                1 => certificate.extend(random.bytes(3)),
                _ => certificate[place] ^= 1 << random.below(8),
            }
        }
        let path = certifier.write(&certificate);
        let theirs = shown(&path);
        let presented = PresentedCertificate::from_file(&fs::read(&path).unwrap());
        let verified = presented.as_ref().is_ok_and(|presented| presented.verify().is_ok());
        match (&theirs, &presented) {
            (Some((serial, ca)), Ok(presented)) => {
                assert!(verified, "{}", path.display());
                assert_eq!(*serial, presented.serial);
                assert_eq!(*ca, presented.ca.fingerprint(HashAlg::Sha256).to_string());
                differences.count("(both read it)");
            }
            (Some(_), Err(error)) => {
                panic!("ssh-keygen reads this: {}\n{}", chain(error), fs::read_to_string(&path).unwrap())
            }
            (None, _) if verified => {
                differences.count("a certificate that no server reads is revoked, since its CA signed it");
            }
            (None, _) => differences.count("(neither reads it)"),
        }
        if damaged {
            return;
        }
        let request = SigningRequest::from_bytes(to_be_signed)
            .and_then(|request| request.check_subject().map(|()| request));
        match (theirs, request) {
            (None, Ok(_)) => {
                panic!(
                    "this would be signed, and OpenSSH does not read it: {}",
                    fs::read_to_string(&path).unwrap()
                )
            }
            (Some(_), Err(error)) => {
                let reason = stricter_about_requests(&error);
                differences.count(reason.unwrap_or_else(|| panic!("{}", chain(&error))));
            }
            _ => {}
        }
    });
    differences.print();
}

/// An authority that signs everything, for what reaches it.
struct Willing(CaIdentity, Mutex<Vec<Vec<u8>>>);

impl Authority for Willing {
    fn identities(&self) -> &[CaIdentity] {
        slice::from_ref(&self.0)
    }

    fn allows_forwarding(&self) -> bool {
        true
    }

    fn sign(&self, order: Order) -> Option<Vec<u8>> {
        self.1.lock().unwrap().push(order.request.as_bytes().to_vec());
        Some(b"signed".to_vec())
    }

    fn refused(&self, _: &Refusal) {}

    fn troubled(&self, error: &io::Error) {
        panic!("{error}")
    }
}

/// OpenSSH's agent with a key.
struct OpensshAgent {
    socket: PathBuf,
    _running: Running,
}

impl OpensshAgent {
    fn start(directory: &Path, key: &Key) -> Result<Self, Missing> {
        let socket = directory.join("openssh.sock");
        let mut agent = Command::new(program("ssh-agent", "openssh-client")?);
        let running = Running::spawn(
            agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).stderr(Stdio::null()),
        );
        wait_for("ssh-agent's socket", || socket.exists().then_some(()));
        let mut add = Command::new(program("ssh-add", "openssh-client")?);
        let _ = run(add.arg("-q").arg(&key.private).env("SSH_AUTH_SOCK", &socket)).success();
        Ok(Self { socket, _running: running })
    }
}

fn ask(stream: &mut UnixStream, message: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(&string(message)).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn agent_messages_are_answered_as_ssh_agent_answers_them() {
    let certifier = needs!(Certifier::new());
    let directory = certifier.directory.path();
    let key =
        Key { key_type: KeyType::Ed25519, private: directory.join("ca"), public: directory.join("ca.pub") };
    let openssh = needs!(OpensshAgent::start(directory, &key));
    let host = SigningKey::from_bytes(&[3; 32]);
    let host_blob = [string(b"ssh-ed25519"), string(host.verifying_key().as_bytes())].concat();
    let identity = CaIdentity {
        key: PublicKey::from_openssh(&key.public_line()).unwrap().key_data().clone(),
        name: "ca".into(),
    };
    let willing = Arc::new(Willing(identity, Mutex::default()));
    let agent = CaAgent::new(willing.clone());
    let mut differences = Differences::default();
    cases(2000, |random| {
        let mut theirs = UnixStream::connect(&openssh.socket).unwrap();
        let mut ours = agent.connection();
        let mut history: Vec<(u8, usize, u8)> = Vec::new();
        for _ in 0..=random.below(4) {
            let length = *random.pick(&[8, 32, 128, 129]);
            let session = random.bytes(length);
            let proof = [string(b"ssh-ed25519"), string(&host.sign(&session).to_bytes())].concat();
            let bind =
                [b"session-bind@openssh.com", host_blob.as_slice(), &session, &proof].map(string).concat();
            let mut message = match random.below(8) {
                0 => vec![11],
                1 => [&[27][..], &bind, &[1]].concat(),
                2 => [&[27][..], &bind, &[0]].concat(),
                3 => [vec![27], string(&random.bytes(5))].concat(),
                4 => vec![random.next().to_be_bytes()[0]],
                5 => [&[13][..], &string(&certifier.ca_blob), &string(b"data"), &[0; 4]].concat(),
                _ => {
                    let data = certifier.to_be_signed(random);
                    [&[13][..], &string(&certifier.ca_blob), &string(&data), &[0; 4]].concat()
                }
            };
            if random.one_in(3) {
                let place = random.below(message.len());
                match random.below(3) {
                    0 => message.truncate(place.max(1)),
                    1 => message.extend(random.bytes(2)),
                    _ => message[place] ^= 1 << random.below(8),
                }
            }
            // What changes an agent is refused here, and changes the other one.
            if matches!(message[0], 9 | 17..=26) {
                assert_eq!(ours.answer(&message), Answer::Failure);
                continue;
            }
            let before = willing.1.lock().unwrap().len();
            let answer = ours.answer(&message);
            let Some(theirs) = ask(&mut theirs, &message) else {
                panic!("ssh-agent hangs up on {message:?}, and the answer is {answer:?}")
            };
            history.push((message[0], message.len(), theirs[0]));
            match (theirs[0], &answer) {
                (5, Answer::Failure) => differences.count("(both refuse)"),
                (6, Answer::Success) => differences.count("(both do it)"),
                (12, Answer::Identities(_)) => differences.count("(both show their keys)"),
                (14, Answer::Signature(_)) => {
                    let signed = willing.1.lock().unwrap()[before].clone();
                    let path = certifier.write(&certifier.certificate(&signed));
                    assert!(shown(&path).is_some(), "signed, and OpenSSH does not read it: {message:?}");
                    differences.count("(both sign a certificate)");
                }
                (6, Answer::Failure) if message.starts_with(&[27]) => {
                    differences
                        .count("a session is identified by a hash, which is never longer than 128 bytes");
                    // From here on they remember different things of the connection.
                    break;
                }
                (14, Answer::Failure) => {
                    differences.count("a CA key signs nothing but certificates that OpenSSH reads");
                }
                (theirs, ours) => {
                    panic!("ssh-agent answers {theirs} to {message:?}, and we {ours:?}, after {history:?}")
                }
            }
        }
    });
    differences.print();
}

/// A list with revocations means the same to ssh-keygen as to us.
#[test]
fn ssh_keygen_finds_in_a_revocation_list_what_was_put_there() {
    let certifier = needs!(Certifier::new());
    let ca = PublicKey::from_bytes(&certifier.ca_blob).unwrap();
    let mut differences = Differences::default();
    cases(60, |random| {
        let mut list = RevocationList::new(1, 0);
        let start = [1, 1000, u64::from(u32::MAX), 1 << 40, u64::MAX - 200][random.below(5)];
        let mut ranges = Vec::new();
        for _ in 0..random.below(40) {
            let first = start + random.next() % 150;
            let last = first.saturating_add(random.next() % 3 * (random.next() % 20));
            list.revoke_serials(Some(ca.key_data()), first..=last).unwrap();
            ranges.push(first..=last);
        }
        let path = certifier.directory.path().join("list");
        fs::write(&path, list.encode().unwrap()).unwrap();
        for _ in 0..6 {
            let serial = start + random.next() % 160;
            let content = Content {
                kind: CertificateKind::User,
                serial,
                key_id: "id".into(),
                principals: Vec::new(),
                validity: Validity::UNLIMITED,
                options: CertificateOptions::default(),
            };
            let request = SigningRequest::new(&ca, &content, ca.key_data()).unwrap();
            let certificate = certifier.write(&certifier.certificate(request.as_bytes()));
            let mut keygen = ssh_keygen().unwrap();
            let asked = run(keygen.arg("-Q").arg("-f").arg(&path).arg(&certificate));
            let revoked = ranges.iter().any(|range| range.contains(&serial));
            assert_eq!(asked.status.code(), Some(i32::from(revoked)), "{serial} in {ranges:?}: {asked}");
            differences.count(if revoked { "(revoked)" } else { "(not revoked)" });
        }
    });
    differences.print();
}

/// Why a list that ssh-keygen reads is not read here.
fn stricter_about_lists(error: &KrlReadError) -> Option<&'static str> {
    Some(match error {
        KrlReadError::Section(_) => "a section that is not known may revoke something",
        KrlReadError::Malformed("a key id that is not UTF-8") => {
            "text that is not UTF-8 cannot be recorded unchanged"
        }
        _ => return None,
    })
}

#[test]
fn damaged_revocation_lists_are_read_as_ssh_keygen_reads_them() {
    let certifier = needs!(Certifier::new());
    let ca = PublicKey::from_bytes(&certifier.ca_blob).unwrap();
    let at = |name: &str| certifier.directory.path().join(name);
    let certificates = |serial: u64| {
        let content = Content {
            kind: CertificateKind::User,
            serial,
            key_id: format!("id {serial}"),
            principals: Vec::new(),
            validity: Validity::UNLIMITED,
            options: CertificateOptions::default(),
        };
        let request = SigningRequest::new(&ca, &content, ca.key_data()).unwrap();
        fs::copy(
            certifier.write(&certifier.certificate(request.as_bytes())),
            at(&format!("{serial}-cert.pub")),
        )
        .unwrap();
    };
    let serials = [1_u64, 7, 40, 300, 5000];
    serials.into_iter().for_each(certificates);
    // One of their lists, with everything that they write.
    let specification = format!(
        "serial: 1-9\nserial: 40\nserial: 42\nserial: 44\nserial: 46\nserial: 300\nserial: 100000\nid: id 5000\n\
         key: {}\nhash: SHA256:{}\n",
        fs::read_to_string(at("subject-0.pub")).unwrap().trim(),
        "A".repeat(43)
    );
    fs::write(at("specification"), specification).unwrap();
    let mut keygen = needs!(ssh_keygen());
    let made = keygen
        .args(["-q", "-k", "-f"])
        .arg(at("theirs"))
        .arg("-s")
        .arg(at("ca.pub"))
        .arg(at("specification"));
    let _ = run(made).success();
    let theirs = fs::read(at("theirs")).unwrap();
    let mut differences = Differences::default();
    cases(250, |random| {
        let mut list = theirs.clone();
        if !random.one_in(20) {
            let place = random.below(list.len());
            match random.below(5) {
                0 => list.truncate(place),
                1 => list.extend(random.bytes(3)),
                2 => list[place] = random.bytes(1)[0],
                _ => list[place] ^= 1 << random.below(8),
            }
        }
        fs::write(at("case"), &list).unwrap();
        let serial = *random.pick(&serials);
        let mut keygen = ssh_keygen().unwrap();
        let asked = run(keygen.arg("-Q").arg("-f").arg(at("case")).arg(at(&format!("{serial}-cert.pub"))));
        let revoked = asked.stdout.contains(": REVOKED");
        let read = revoked || asked.stdout.contains(": ok");
        match RevocationList::decode(&list) {
            Ok(ours) if read => {
                let mut one = RevocationList::new(0, 0);
                one.revoke_serials(Some(ca.key_data()), serial..=serial).unwrap();
                let mut named = RevocationList::new(0, 0);
                named.revoke_key_id(Some(ca.key_data()), &format!("id {serial}")).unwrap();
                let found = ours.lost(&one).is_empty() || ours.lost(&named).is_empty();
                assert_eq!(found, revoked, "{serial}: {asked}\n{list:?}");
                differences.count(if revoked { "(revoked)" } else { "(not revoked)" });
            }
            Ok(_) => differences.count("ssh-keygen looks at keys and lengths that only it uses; nothing is lost by a reader that does not"),
            Err(_) if !read => differences.count("(neither reads it)"),
            Err(error) => {
                let reason = stricter_about_lists(&error);
                differences.count(reason.unwrap_or_else(|| panic!("ssh-keygen reads this: {error}\n{asked}\n{list:?}")));
            }
        }
    });
    differences.print();
}
