//! SoftHSM2: a PKCS#11 token in a directory, which the programs under test and OpenSSH's own use alike.

use crate::{
    binaries,
    issuer::{Flags, Issuer},
    key::{Key, KeyType, ssh_keygen},
    process::{Finished, run},
    requirement::{Missing, program},
};
use ssh_key::{
    PrivateKey,
    encoding::{Base64Writer, Writer as _},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// The user's PIN.
pub const PIN: &str = "hunter2-pin";

/// The token's label.
pub const LABEL: &str = "ca token";

/// The id by which templates list the CA key.
pub const AUTHORITY: &str = "0x0005";

/// One token, with a timestamp key and a template that contains it.
pub struct SoftHsm {
    directory: TempDir,
    module: PathBuf,
    /// The label of the key that [`Issuer::signing`] signs with.
    authority: String,
}

impl SoftHsm {
    /// A token without keys, and a template of the lines `template`.
    ///
    /// # Errors
    /// [`Missing`] without SoftHSM2 or OpenSC.
    ///
    /// # Panics
    /// When the token cannot be made.
    pub fn new(template: &str) -> Result<Self, Missing> {
        let softhsm2_util = program("softhsm2-util", "softhsm2")?;
        program("pkcs11-tool", "opensc")?;
        let module = module("libsofthsm2.so", "softhsm2")?;
        let directory = tempfile::tempdir().unwrap();
        let tokens = directory.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        let configuration = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(directory.path().join("softhsm2.conf"), configuration).unwrap();
        let _ = Key::generate(directory.path(), "timestamp", KeyType::Ed25519)?;
        let text = format!("ca-keys = [{AUTHORITY}]\ntimestamp-key = \"timestamp.pub\"\n{template}");
        fs::write(directory.path().join("template.toml"), text).unwrap();
        let token = Self { directory, module, authority: "ca".into() };
        token.add_token(&softhsm2_util, LABEL);
        Ok(token)
    }

    fn add_token(&self, softhsm2_util: &Path, label: &str) {
        let mut command = Command::new(softhsm2_util);
        command.args([
            "--init-token",
            "--free",
            "--label",
            label,
            "--pin",
            PIN,
            "--so-pin",
            "security-officer",
        ]);
        let _ = run(self.on(&mut command)).success();
    }

    /// A second token of the same label.
    ///
    /// # Errors
    /// [`Missing`] without SoftHSM2.
    pub fn add_twin(&self) -> Result<(), Missing> {
        program("softhsm2-util", "softhsm2").map(|program| self.add_token(&program, LABEL))
    }

    /// The directory of token, timestamp key and template.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The module.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// Has `command` find this token.
    pub fn on<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("SOFTHSM2_CONF", self.directory().join("softhsm2.conf"))
    }

    /// Removes the token.
    ///
    /// # Panics
    /// When it is already removed.
    pub fn pull_out(&self) {
        fs::remove_dir_all(self.directory().join("tokens")).unwrap();
    }

    /// `--device` for the key of that label.
    #[must_use]
    pub fn uri(&self, label: &str) -> String {
        format!("pkcs11:token={};object={label}", LABEL.replace(' ', "%20"))
    }

    /// OpenSC's tool, logged in.
    #[must_use]
    pub fn pkcs11_tool(&self) -> Command {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(["--login", "--pin", PIN]);
        self.on(&mut command);
        command
    }

    /// Has the token make a key pair with the label and, as a byte, the id; `more` are OpenSC's flags.
    ///
    /// # Panics
    /// When it does not.
    pub fn generate(&self, label: &str, id: u8, key_type: KeyType, more: &[&str]) {
        let kind = match key_type {
            KeyType::Rsa2048 => "rsa:2048",
            KeyType::P256 => "EC:prime256v1",
            KeyType::P384 => "EC:secp384r1",
            KeyType::P521 => "EC:secp521r1",
            KeyType::Ed25519 => "EC:edwards25519",
            KeyType::SkP256 | KeyType::SkEd25519 => panic!("{key_type:?} is on no token"),
        };
        let id = format!("{id:02x}");
        let mut command = self.pkcs11_tool();
        command.args(["--keypairgen", "--usage-sign", "--key-type", kind, "--label", label, "--id", &id]);
        let _ = run(command.args(more)).success();
    }

    /// Puts a key that is in a file on the token.
    ///
    /// # Errors
    /// [`Missing`] without SoftHSM2.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn import(&self, key: &Key, label: &str, id: u8) -> Result<(), Missing> {
        let file = self.directory().join("import.pem");
        fs::write(&file, fs::read(&key.private).unwrap()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if key.key_type == KeyType::Ed25519 {
            fs::write(&file, ed25519_pem(&key.private)).unwrap();
        } else {
            let _ = run(ssh_keygen()?.args(["-q", "-p", "-m", "PKCS8", "-N", "", "-f"]).arg(&file)).success();
        }
        let mut command = Command::new(program("softhsm2-util", "softhsm2")?);
        command.arg("--import").arg(&file);
        command.args(["--token", LABEL, "--pin", PIN, "--label", label, "--id", &format!("{id:02x}")]);
        let _ = run(self.on(&mut command)).success();
        Ok(())
    }

    /// Makes a change that no tool offers: takes the right to sign from the key with that label.
    ///
    /// # Panics
    /// When it cannot.
    pub fn forbid_signing(&self, token_object: &Path, label: &str) {
        let mut command = Command::new(token_object);
        let _ = run(self.on(command.arg(&self.module).args([PIN, label]))).success();
    }

    /// The public half of the key with that label, as `ssh-keygen -D` prints it, in a file.
    ///
    /// # Errors
    /// [`Missing`] without `ssh-keygen`.
    ///
    /// # Panics
    /// When it prints none; it does not know Ed25519 keys on tokens.
    pub fn public_key(&self, label: &str, key_type: KeyType) -> Result<Key, Missing> {
        let told = run(self.on(ssh_keygen()?.arg("-D").arg(&self.module))).success().stdout;
        let line =
            told.lines().find(|line| line.ends_with(&format!(" {label}"))).expect("ssh-keygen -D knows it");
        Ok(self.key_file(label, key_type, line))
    }

    /// A public key of this token in a file.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn key_file(&self, label: &str, key_type: KeyType, line: &str) -> Key {
        let private = self.directory().join(label);
        let public = self.directory().join(format!("{label}.pub"));
        fs::write(&public, format!("{line}\n")).unwrap();
        Key { key_type, private, public }
    }

    /// `ssh-keygen -D`, about to sign `keys` with the key on the token whose public half is `authority`.
    ///
    /// # Errors
    /// [`Missing`] without `ssh-keygen`.
    ///
    /// # Panics
    /// When the program that supplies the PIN cannot be written.
    pub fn original(&self, authority: &Key, flags: &Flags, keys: &[Key]) -> Result<Command, Missing> {
        let ask = self.directory().join("tell-pin");
        fs::write(&ask, format!("#!/bin/sh\necho {PIN}\n")).unwrap();
        fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = ssh_keygen()?;
        command.env("SSH_ASKPASS", ask).env("SSH_ASKPASS_REQUIRE", "force");
        command.arg("-D").arg(&self.module).arg("-s").arg(&authority.public);
        flags.apply(&mut command);
        command.args(keys.iter().map(|key| &key.public));
        self.on(&mut command);
        Ok(command)
    }

    /// `sshsm`, set up to use this token and nothing of the environment's.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = binaries::sshsm();
        command
            .env_clear()
            .env("HOME", self.directory())
            .env("PKCS11_MODULE_PATH", &self.module)
            .env("SSHSM_PIN", PIN);
        self.on(&mut command);
        command
    }

    /// `sshsm sign` with the key of that label.
    #[must_use]
    pub fn sign_with(&self, label: &str, flags: &Flags, keys: &[Key]) -> Command {
        let mut command = self.command();
        command.args(["--device", &self.uri(label), "sign", "-s", AUTHORITY, "-t"]);
        command.arg(self.directory().join("template.toml"));
        command.arg("--timestamp").arg(self.directory().join("timestamp"));
        flags.apply(&mut command);
        if let Some(algorithm) = flags.signature_algorithm {
            command.args(["--signature-algorithm", algorithm]);
        }
        command.args(keys.iter().map(|key| &key.public));
        command
    }

    /// Runs `command` with a module in between that records every call, and returns the names of those calls
    /// too.
    ///
    /// # Errors
    /// [`Missing`] without OpenSC's spy.
    pub fn spied(&self, command: &mut Command) -> Result<(Finished, Vec<String>), Missing> {
        let log = self.directory().join("calls");
        let _ = fs::remove_file(&log);
        command
            .env("PKCS11_MODULE_PATH", module("pkcs11-spy.so", "opensc-pkcs11")?)
            .env("PKCS11SPY", &self.module)
            .env("PKCS11SPY_OUTPUT", &log);
        let finished = run(command);
        let call = |line: &str| line.split_once(": C_").map(|(_, name)| format!("C_{name}"));
        let calls = fs::read_to_string(&log).unwrap_or_default().lines().filter_map(call).collect();
        Ok((finished, calls))
    }
}

impl Issuer for SoftHsm {
    fn with_authority(authority: &Key) -> Result<Self, Missing> {
        let token = Self::new("not-before-offset = \"unbounded\"\nnot-after-offset = \"unbounded\"\n")?;
        token.import(authority, &token.authority, 1)?;
        Ok(token)
    }

    fn signing(&self, flags: &Flags, keys: &[Key]) -> Command {
        self.sign_with(&self.authority, flags, keys)
    }
}

/// A module that a Debian package has.
fn module(name: &str, package: &str) -> Result<PathBuf, Missing> {
    ["/usr/lib/softhsm", "/usr/lib64/pkcs11", "/usr/lib/pkcs11", "/usr/local/lib/softhsm"]
        .map(PathBuf::from)
        .into_iter()
        .chain(
            fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("pkcs11")),
        )
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Missing::new(name, format!("apt-get install {package}")))
}

/// PKCS#8 (RFC 8410), which SoftHSM imports and `ssh-keygen` does not export: a fixed heading and the seed.
fn ed25519_pem(path: &Path) -> String {
    let key = PrivateKey::from_openssh(fs::read_to_string(path).unwrap()).unwrap();
    let seed = key.key_data().ed25519().expect("an Ed25519 key").private.to_bytes();
    let der =
        [b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".as_slice(), &seed].concat();
    let mut base64 = [0; 64]; // of 48 bytes, without padding
    let mut writer = Base64Writer::new(&mut base64).unwrap();
    writer.write(&der).unwrap();
    let base64 = writer.finish().unwrap();
    format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n")
}
