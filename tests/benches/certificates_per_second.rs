//! How many certificates a second: `sshsm sign` on the in-process device, with a ledger and without,
//! `ssh-keygen -s` with the key in a file, and `ssh-keygen -D` with the key in SoftHSM2, each as a user runs
//! it: one process, one call, the same 200 keys, the same authority's key. Prints one table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark reports by stopping"
)]

use sshsm_tests::{
    certificate,
    issuer::{Flags, Issuer, SshKeygen, Sshsm},
    key::{Key, KeyType, ssh_keygen},
    process::run,
    processor,
    requirement::{Missing, program},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::tempdir;

/// Keys signed in one call.
const KEYS: u32 = 200;
/// Timed calls of each kind; an odd number has a median.
const RUNS: usize = 5;

fn main() {
    if let Err(missing) = compare() {
        missing.report();
    }
}

fn compare() -> Result<(), Missing> {
    let directory = tempdir().unwrap();
    let keys = (0..KEYS)
        .map(|number| Key::generate(directory.path(), &format!("user{number}"), KeyType::Ed25519))
        .collect::<Result<Vec<Key>, Missing>>()?;
    let token = Token::create(&directory.path().join("softhsm2"));
    if let Err(missing) = &token {
        missing.report();
    }
    println!(
        "Certificates per second for {KEYS} Ed25519 user keys in one call: median of {RUNS} runs (slowest to \
         fastest)\n{}, {}\n",
        run(Command::new("ssh").arg("-V")).stderr.trim(),
        processor::name(),
    );
    row("CA key", ["sshsm sign", "sshsm sign", "ssh-keygen -s", "ssh-keygen -D"]);
    row("", ["with a ledger", "without", "key in a file", "key in SoftHSM2"]);
    for key_type in [KeyType::P256, KeyType::Ed25519, KeyType::Rsa2048] {
        let authority = Key::generate(directory.path(), &format!("{key_type:?}"), key_type)?;
        let flags = Flags::user(&["alice"]).valid("-5m:+10h");
        // Its device is gone when it is dropped.
        let ours = Sshsm::with_authority(&authority)?;
        let mut recorded = ours.signing(&flags, &keys);
        recorded.env("SSHSM_LEDGER", directory.path().join(format!("{key_type:?}.ledger")));
        let contenders = [
            Ok(recorded),
            Ok(ours.signing(&flags, &keys)),
            Ok(SshKeygen::with_authority(&authority)?.signing(&flags, &keys)),
            match &token {
                Ok(token) => token.signing(&authority, &flags, &keys),
                Err(_) => Err("softhsm2 is missing"),
            },
        ];
        let columns = measure(contenders, &authority, &keys);
        row(&format!("{key_type:?}"), columns.each_ref().map(String::as_str));
    }
    Ok(())
}

fn row(key: &str, columns: [&str; 4]) {
    println!("{key:<8}  {}", columns.map(|column| format!("{column:<24}")).join("  ").trim_end());
}

/// The rates of all signers, taken in turns so that a slow moment of the machine affects each alike.
fn measure<const N: usize>(
    mut contenders: [Result<Command, &'static str>; N],
    authority: &Key,
    keys: &[Key],
) -> [String; N] {
    let mut times: [Vec<Duration>; N] = [const { Vec::new() }; N];
    // The first round warms the caches and is not counted.
    for round in 0..=RUNS {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let Ok(command) = contender else { continue };
            let time = sign(command, authority, keys);
            if round > 0 {
                times.push(time);
            }
        }
    }
    let mut times = times.into_iter();
    contenders.map(|contender| {
        let mut times = times.next().expect("as many as contenders");
        times.sort();
        let rate = |time: Duration| format!("{:.0}", f64::from(KEYS) / time.as_secs_f64());
        match contender {
            Ok(_) => {
                format!("{} ({} to {})", rate(times[RUNS / 2]), rate(times[RUNS - 1]), rate(times[0]))
            }
            Err(reason) => reason.to_owned(),
        }
    })
}

/// One call, from the start of its process to its end. Its output is checked outside the measured time.
fn sign(command: &mut Command, authority: &Key, keys: &[Key]) -> Duration {
    for key in keys {
        // There is none before the first call.
        let _ = fs::remove_file(key.certificate());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().unwrap();
    let time = start.elapsed();
    if !status.success() {
        panic!("{}", run(command));
    }
    for key in keys {
        let _ = certificate::read(&key.certificate(), authority);
    }
    time
}

/// A SoftHSM2 token, and what `ssh-keygen` needs to log in to it.
struct Token {
    directory: PathBuf,
    library: PathBuf,
}

const PIN: &str = "1234";

impl Token {
    fn create(directory: &Path) -> Result<Self, Missing> {
        program("softhsm2-util", "softhsm2")?;
        let library = library().ok_or_else(|| Missing::new("libsofthsm2.so", "apt-get install softhsm2"))?;
        let tokens = directory.join("tokens");
        fs::create_dir_all(&tokens).unwrap();
        fs::write(
            directory.join("softhsm2.conf"),
            format!(
                "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
                tokens.display()
            ),
        )
        .unwrap();
        // ssh-keygen asks for the PIN as it asks for passphrases.
        let askpass = directory.join("askpass");
        fs::write(&askpass, format!("#!/bin/sh\necho {PIN}\n")).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
        let token = Self { directory: directory.to_owned(), library };
        let _ = run(token.command("softhsm2-util").args([
            "--init-token",
            "--free",
            "--label",
            "bench",
            "--so-pin",
            PIN,
            "--pin",
            PIN,
        ]))
        .success();
        Ok(token)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.directory.join("softhsm2.conf"));
        command
    }

    /// Imports the authority's key; the call that signs with it, or why there can be none.
    fn signing(&self, authority: &Key, flags: &Flags, keys: &[Key]) -> Result<Command, &'static str> {
        if authority.key_type == KeyType::Ed25519 {
            return Err("no Ed25519 there");
        }
        let pem = self.directory.join("ca.pem");
        fs::copy(&authority.private, &pem).unwrap();
        let convert = ["-q", "-p", "-P", "", "-N", "", "-m", "PKCS8", "-f"];
        let _ = run(ssh_keygen().expect("it made the key").args(convert).arg(&pem)).success();
        let id = authority.key_type as u8 + 1;
        let _ = run(self.command("softhsm2-util").arg("--import").arg(&pem).args([
            "--token",
            "bench",
            "--pin",
            PIN,
            "--label",
            "ca",
            "--id",
            &format!("{id:02x}"),
        ]))
        .success();
        let mut command = self.command("ssh-keygen");
        command
            .env("SSH_ASKPASS", self.directory.join("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .arg("-s")
            .arg(&authority.public)
            .arg("-D")
            .arg(&self.library);
        flags.apply(&mut command);
        command.args(keys.iter().map(|key| &key.public));
        Ok(command)
    }
}

/// Where Debian and others install SoftHSM2's library.
fn library() -> Option<PathBuf> {
    let places = [PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64"), PathBuf::from("/usr/local/lib")];
    let below = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    places
        .into_iter()
        .chain(below)
        .flat_map(|place| ["softhsm", "pkcs11"].map(|folder| place.join(folder).join("libsofthsm2.so")))
        .find(|path| path.is_file())
}
