//! `sshsm agent` in front of a CA key: the unmodified `ssh-keygen -Us` gets the certificates that the template allows, and
//! nobody gets anything else out of it, neither a log-in nor a signature of data.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    binaries, certificate,
    issuer::{Flags, Issuer, SshKeygen, Sshsm},
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::{Finished, Log, Running, run, wait_for},
    qemu::Board,
    requirement::{Missing, program},
    ssh::{GREETING, Ssh},
    sshd::Server,
};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    slice,
};
use tempfile::{TempDir, tempdir};

const TEMPLATE: &str =
    "not-before-offset = \"5m\"\nnot-after-offset = \"10h\"\nforbid-principals = [\"root\", \"admin\"]\n";

/// A running `sshsm agent`.
struct Agent {
    socket: PathBuf,
    log: Log,
    process: Running,
}

impl Agent {
    /// Starts one with a command that has all but `agent`'s own arguments.
    fn start(mut command: Command, directory: &Path, more: &[&str]) -> Self {
        let (log, stderr) = Log::create(&directory.join("agent.log"));
        let (out, stdout) = Log::create(&directory.join("agent.out"));
        let arguments = ["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp"];
        command.current_dir(directory).args(arguments).args(more).stdin(Stdio::null());
        let mut process = Running::spawn(command.stdout(stdout).stderr(stderr));
        let socket = wait_for("the agent's socket", || {
            assert!(process.ended().is_none(), "{}", log.text());
            let text = out.text();
            let socket = text.strip_prefix("SSH_AUTH_SOCK='")?.split_once("'; export SSH_AUTH_SOCK;\n")?.0;
            Some(PathBuf::from(socket))
        });
        Self { socket, log, process }
    }

    fn of(sshsm: &Sshsm, more: &[&str]) -> Self {
        Self::start(sshsm.command(), sshsm.directory(), more)
    }

    fn keygen(&self, arguments: &[&str], file: &Path) -> Result<Finished, Missing> {
        let mut keygen = ssh_keygen()?;
        Ok(run(keygen.env("SSH_AUTH_SOCK", &self.socket).args(arguments).arg(file)))
    }

    /// `ssh-keygen -Us`.
    fn certify(&self, ca: &Key, flags: &Flags, key: &Key) -> Result<Finished, Missing> {
        let _ = fs::remove_file(key.certificate());
        let mut keygen = ssh_keygen()?;
        keygen.env("SSH_AUTH_SOCK", &self.socket).arg("-U").arg("-s").arg(&ca.public);
        flags.apply(&mut keygen);
        if let Some(algorithm) = flags.signature_algorithm {
            keygen.args(["-t", algorithm]);
        }
        Ok(run(keygen.arg(&key.public)))
    }

    fn terminate(&mut self) -> Option<i32> {
        let _ = run(Command::new("kill").arg(self.process.child().id().to_string())).success();
        wait_for("the agent to end", || self.process.ended()).code()
    }
}

/// A device with a CA key that is also in a file, and a user's key.
struct Scene {
    sshsm: Sshsm,
    ca: Key,
    user: Key,
    directory: TempDir,
}

impl Scene {
    fn new(kind: KeyType) -> Result<Self, Missing> {
        let directory = tempdir().unwrap();
        let sshsm = Sshsm::new(TEMPLATE)?;
        let ca = Key::generate(directory.path(), "ca", kind)?;
        let _ = run(sshsm.command().args(["key", "import"]).arg(&ca.private).args(["--id", "5"])).success();
        let user = Key::generate(directory.path(), "user", KeyType::Ed25519)?;
        Ok(Self { sshsm, ca, user, directory })
    }
}

/// The fields that two certificates for the same request share: all but nonce and signature.
fn shown(key: &Key) -> Result<Vec<String>, Missing> {
    let mut keygen = ssh_keygen()?;
    let shown = run(keygen.arg("-L").arg("-f").arg(key.certificate())).success().stdout;
    Ok(shown.lines().map(str::to_owned).collect())
}

#[test]
fn ssh_keygen_gets_certificates_from_every_kind_of_ca_as_if_it_had_the_key() {
    for kind in KeyType::AUTHORITIES {
        let scene = needs!(Scene::new(kind));
        let agent = Agent::of(&scene.sshsm, &[]);
        let keygen = needs!(SshKeygen::with_authority(&scene.ca));
        // Absolute times, so that both say the same.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let validity = format!("{:#x}:{:#x}", now - 60, now + 3600);
        for flags in [
            Flags::user(&["alice", "zone-web"]).options(&["no-pty", "source-address=127.0.0.1/32"]),
            Flags::host(&["web.example.com"]),
        ] {
            let flags = flags.serial("7").valid(&validity);
            let _ = needs!(agent.certify(&scene.ca, &flags, &scene.user)).success();
            let ours = needs!(shown(&scene.user));
            let _ = certificate::read(&scene.user.certificate(), &scene.ca);
            let _ = keygen.sign(&flags, slice::from_ref(&scene.user)).success();
            assert_eq!(ours, needs!(shown(&scene.user)), "{kind:?}");
        }
        if kind == KeyType::Rsa2048 {
            let flags = Flags::user(&["alice"]).valid("-1m:+1h").signature_algorithm("rsa-sha2-256");
            let _ = needs!(agent.certify(&scene.ca, &flags, &scene.user)).success();
            assert!(needs!(shown(&scene.user)).join("\n").contains("using rsa-sha2-256"));
        }
        assert!(agent.log.text().contains("enforced by device"), "{}", agent.log.text());
    }
}

#[test]
fn what_the_template_forbids_is_refused_and_logged_with_the_verdict() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let agent = Agent::of(&scene.sshsm, &[]);
    for (flags, check) in [
        (Flags::user(&["root"]).valid("-1m:+9h"), "forbidden-principals"),
        (Flags::host(&["admin"]).valid("-1m:+9h"), "forbidden-principals"),
        (Flags::user(&["alice"]).valid("-1m:+11h"), "valid-before"),
        (Flags::user(&["alice"]), "valid-before"),
    ] {
        let before = agent.log.text().len();
        let refused = needs!(agent.certify(&scene.ca, &flags, &scene.user));
        assert!(!refused.status.success(), "{refused}");
        assert!(!scene.user.certificate().exists());
        let log = agent.log.text().split_off(before);
        let told = log.lines().any(|line| line.trim_start().starts_with(check) && line.contains("refused"));
        assert!(told, "{check} in {log}");
    }
    let allowed = Flags::user(&["alice"]).valid("-1m:+9h");
    let _ = needs!(agent.certify(&scene.ca, &allowed, &scene.user)).success();
}

#[test]
fn what_the_agent_signs_and_refuses_is_in_the_ledger() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let ledger = scene.directory.path().join("ledger.sqlite");
    let mut command = scene.sshsm.command();
    command.env("SSHSM_LEDGER", &ledger);
    let agent = Agent::start(command, scene.sshsm.directory(), &[]);
    let flags = |name| Flags::user(&[name]).valid("-1m:+9h").serial("41");
    let _ = needs!(agent.certify(&scene.ca, &flags("alice"), &scene.user)).success();
    assert!(!needs!(agent.certify(&scene.ca, &flags("root"), &scene.user)).status.success());
    let mut list = scene.sshsm.command();
    list.env("SSHSM_LEDGER", &ledger).args(["ledger", "list", "--format", "json"]);
    let entries: serde_json::Value = serde_json::from_str(&run(&mut list).success().stdout).unwrap();
    let told: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["serial"].as_u64().unwrap(), entry["state"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(41, "issued"), (41, "refused")]);
}

#[test]
fn the_ca_key_in_the_agent_logs_in_nowhere_not_even_where_it_is_authorized() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let agent = Agent::of(&scene.sshsm, &[]);
    let flags = Flags::user(&["alice"]).valid("-1m:+9h");
    let _ = needs!(agent.certify(&scene.ca, &flags, &scene.user)).success();
    let open = Server { authorized: vec![scene.ca.clone()], ..Server::trusting(&scene.ca, &["alice"]) };
    let server = needs!(open.start());
    let bastion = needs!(Server::trusting(&scene.ca, &["alice"]).start());

    // The control: the same key, in an agent that signs everything.
    let socket = scene.directory.path().join("openssh.sock");
    let mut openssh = Command::new(needs!(program("ssh-agent", "openssh-client")));
    let _openssh = Running::spawn(openssh.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()));
    wait_for("ssh-agent's socket", || socket.exists().then_some(()));
    let mut add = Command::new(needs!(program("ssh-add", "openssh-client")));
    let _ = run(add.arg("-q").arg(&scene.ca.private).env("SSH_AUTH_SOCK", &socket)).success();

    for (socket, comes_in) in [(&socket, true), (&agent.socket, false)] {
        let socket = socket.to_str().unwrap();
        let direct = Ssh::with_agent(socket, &scene.ca).knowing("server", &server);
        let (client, log) = needs!(server.visit(|| direct.login("server")));
        assert_eq!(client.status.success(), comes_in, "{client}\n{log}");
        assert_eq!(log.contains("Accepted publickey"), comes_in, "{log}");

        // ssh -A: whoever rules the bastion has the agent, and can do no more with it.
        let behind = scene.directory.path().join(format!("behind-{comes_in}"));
        fs::create_dir(&behind).unwrap();
        let onward =
            Ssh::with_agent("SSH_AUTH_SOCK", &scene.ca).knowing("server", &server).configure(&behind);
        let before = tempdir().unwrap();
        let forwarding = Ssh::with_certificate(&scene.user).forwarding(socket).knowing("bastion", &bastion);
        let command =
            format!("echo forwarded to $SSH_AUTH_SOCK; ssh -F {} server echo {GREETING}", onward.display());
        let client = needs!(Ssh::run(&forwarding.configure(before.path()), "bastion", &command));
        assert!(client.stdout.contains("forwarded to /"), "{client}");
        assert_eq!(client.stdout.contains(GREETING), comes_in, "{client}");
        assert_eq!(client.stderr.contains("Permission denied"), !comes_in, "{client}");
    }
    let log = agent.log.text();
    assert_eq!(log.matches("asked to sign a challenge to log in").count(), 2, "{log}");
}

#[test]
fn files_are_not_signed_and_keys_neither_added_nor_removed() {
    let scene = needs!(Scene::new(KeyType::P256));
    let agent = Agent::of(&scene.sshsm, &[]);
    let file = scene.directory.path().join("file");
    fs::write(&file, "content").unwrap();
    let sign = ["-Y", "sign", "-n", "file", "-f", scene.ca.public.to_str().unwrap()];
    let signed = needs!(agent.keygen(&sign, &file));
    assert!(!signed.status.success(), "{signed}");
    assert!(!file.with_extension("sig").exists());
    assert!(agent.log.text().contains("asked to sign a file or message"), "{}", agent.log.text());
    let add = needs!(program("ssh-add", "openssh-client"));
    for arguments in
        [&[scene.user.private.to_str().unwrap()][..], &["-D"], &["-d", scene.ca.public.to_str().unwrap()]]
    {
        let changed = run(Command::new(&add).env("SSH_AUTH_SOCK", &agent.socket).args(arguments));
        assert!(!changed.status.success(), "{changed}");
    }
    let list = run(Command::new(&add).env("SSH_AUTH_SOCK", &agent.socket).arg("-L")).success();
    assert_eq!(list.stdout.lines().count(), 1, "{list}");
    let blob = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(blob(&list.stdout), blob(&scene.ca.public_line()));
    // A certificate that names another CA is none of this one's.
    let other = needs!(Key::generate(scene.directory.path(), "other", KeyType::P256));
    let flags = Flags::user(&["alice"]).valid("-1m:+9h");
    let unknown = needs!(agent.certify(&other, &flags, &scene.user));
    assert!(!unknown.status.success(), "{unknown}");
}

#[test]
fn the_socket_is_its_users_alone_and_goes_with_the_agent() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let mut agent = Agent::of(&scene.sshsm, &[]);
    let directory = agent.socket.parent().unwrap().to_owned();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&agent.socket), mode(&directory)), (0o600, 0o700));
    assert_eq!(agent.terminate(), Some(0), "{}", agent.log.text());
    assert!(!directory.exists());

    let place = scene.directory.path().join("named.sock");
    let named = place.to_str().unwrap();
    let mut agent = Agent::of(&scene.sshsm, &["-a", named]);
    assert_eq!(agent.socket, place);
    assert!(fs::metadata(&place).unwrap().file_type().is_socket());
    assert_eq!(mode(&place), 0o600);
    let mut second = scene.sshsm.command();
    second.current_dir(scene.sshsm.directory());
    let second = run(second.args(["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp", "-a", named]));
    assert_eq!(second.status.code(), Some(6), "{second}");
    assert!(second.stderr.contains("another agent listens there"), "{second}");
    assert_eq!(agent.terminate(), Some(0));
    assert!(!place.exists());
    // What a killed agent left is no hindrance; a file is.
    drop(std::os::unix::net::UnixListener::bind(&place).unwrap());
    assert_eq!(Agent::of(&scene.sshsm, &["-a", named]).terminate(), Some(0));
    fs::write(&place, "mine").unwrap();
    let mut third = scene.sshsm.command();
    third.current_dir(scene.sshsm.directory());
    let third = run(third.args(["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp", "-a", named]));
    assert_eq!(third.status.code(), Some(6), "{third}");
    assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
}

#[test]
fn a_command_has_the_agent_to_itself_and_its_exit_code_is_the_agents() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let with = |command: &[&str]| {
        let mut agent = scene.sshsm.command();
        agent.current_dir(scene.sshsm.directory());
        agent.args(["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp", "--"]);
        run(agent.args(command))
    };
    let keygen = needs!(program("ssh-keygen", "openssh-client"));
    let [keygen, ca, user] =
        [&keygen, &scene.ca.public, &scene.user.public].map(|path| path.to_str().unwrap());
    let sign = |principal| with(&[keygen, "-Us", ca, "-I", "id", "-n", principal, "-V", "+1h", user]);
    let _ = sign("p").success();
    let _ = certificate::read(&scene.user.certificate(), &scene.ca);
    let refused = sign("root");
    assert_eq!(refused.status.code(), Some(255), "{refused}");
    assert!(refused.stderr.contains("forbidden-principals"), "{refused}");
    let places = with(&["sh", "-c", "echo $SSH_AUTH_SOCK; exit 7"]);
    assert_eq!(places.status.code(), Some(7), "{places}");
    assert!(!Path::new(places.stdout.trim()).exists());
    assert_eq!(with(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    assert_eq!(with(&["/no/such/program"]).status.code(), Some(6));
}

/// Each [ca.NAME] of the configuration is a key of the agent, under its own template.
#[test]
fn all_cas_of_the_configuration_are_served() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let directory = scene.sshsm.directory();
    let second = needs!(Key::generate(scene.directory.path(), "ca2", KeyType::P384));
    let _ =
        run(scene.sshsm.command().args(["key", "import"]).arg(&second.private).args(["--id", "6"])).success();
    fs::write(
        directory.join("hosts.toml"),
        "ca-keys = [6]\ntimestamp-key = \"timestamp.pub\"\nnot-before-offset = \"5m\"\nnot-after-offset = \"52w\"\n\
         forbid-principals = [\"alice\"]\n",
    )
    .unwrap();
    let mut put = scene.sshsm.command();
    let _ = run(put.current_dir(directory).args(["template", "put", "hosts.toml", "--id", "11"])).success();
    fs::write(
        directory.join("config.toml"),
        "[ca.users]\nkey = 5\ntemplate = 10\ntimestamp = \"timestamp\"\n\
         [ca.hosts]\nkey = 6\ntemplate = 11\ntimestamp = \"timestamp\"\n",
    )
    .unwrap();
    let (keygen, users, hosts) = (
        needs!(program("ssh-keygen", "openssh-client")),
        scene.ca.public.to_str().unwrap(),
        second.public.to_str().unwrap(),
    );
    let sign = |ca: &str, principal: &str, validity: &str| {
        let mut agent = scene.sshsm.command();
        agent.current_dir(directory).args(["--config", "config.toml", "agent", "--"]).arg(&keygen);
        run(agent.args(["-Us", ca, "-I", "id", "-n", principal, "-V", validity]).arg(&scene.user.public))
    };
    let _ = sign(users, "alice", "+1h").success();
    let _ = certificate::read(&scene.user.certificate(), &scene.ca);
    let _ = sign(hosts, "web", "+30d").success();
    let _ = certificate::read(&scene.user.certificate(), &second);
    for (ca, principal, validity) in [(users, "alice", "+30d"), (hosts, "alice", "+1h")] {
        let refused = sign(ca, principal, validity);
        assert!(!refused.status.success(), "{refused}");
    }
}

#[test]
fn a_board_signs_for_ssh_keygen() {
    let directory = tempdir().unwrap();
    let board = needs!(Board::start(&directory.path().join("board")));
    let _ = needs!(Key::generate(directory.path(), "timestamp", KeyType::Ed25519));
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let command = || {
        let mut command = binaries::sshsm();
        command
            .current_dir(directory.path())
            .env("SSHSM_DEVICE", format!("serial:{}", board.port().display()))
            .env("SSHSM_PASSWORD", "password");
        command
    };
    let made = run(command().args(["key", "generate", "--algorithm", "ed25519", "--id", "5"])).success();
    let public = directory.path().join("ca.pub");
    fs::write(&public, made.stdout).unwrap();
    let ca = Key { key_type: KeyType::Ed25519, private: directory.path().join("ca"), public };
    let template = format!("ca-keys = [5]\ntimestamp-key = \"timestamp.pub\"\n{TEMPLATE}");
    fs::write(directory.path().join("t.toml"), template).unwrap();
    let _ = run(command().args(["template", "put", "t.toml", "--id", "10"])).success();
    let agent = Agent::start(command(), directory.path(), &[]);
    for flags in [Flags::user(&["p"]).valid("-1m:+1h"), Flags::host(&["h"]).valid("-1m:+1h")] {
        let _ = needs!(agent.certify(&ca, &flags, &user)).success();
        assert_eq!(certificate::read(&user.certificate(), &ca).principals, flags.principals);
    }
    let refused = needs!(agent.certify(&ca, &Flags::user(&["root"]).valid("-1m:+1h"), &user));
    assert!(!refused.status.success(), "{refused}");
}
