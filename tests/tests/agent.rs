//! `sshsm agent` in front of a CA key: the unmodified `ssh-keygen -Us` gets the certificates that the
//! template allows, and no one gets anything else out of it, neither a login nor a signature of data.
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
        // Absolute times, so that both use the same.
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
        (Flags::user(&["root"]).valid("-1m:+9h"), "forbid-principals"),
        (Flags::host(&["admin"]).valid("-1m:+9h"), "forbid-principals"),
        (Flags::user(&["alice"]).valid("-1m:+11h"), "not-after-offset"),
        (Flags::user(&["alice"]), "not-after-offset"),
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

        // ssh -A: an attacker in control of the bastion has the agent, and can do no more with it.
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
    // A socket left by a killed agent is not an obstacle; a file is.
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
    assert!(refused.stderr.contains("forbid-principals"), "{refused}");
    let places = with(&["sh", "-c", "echo $SSH_AUTH_SOCK; exit 7"]);
    assert_eq!(places.status.code(), Some(7), "{places}");
    assert!(!Path::new(places.stdout.trim()).exists());
    assert_eq!(with(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    assert_eq!(with(&["/no/such/program"]).status.code(), Some(6));
}

/// The messages between a client and the agent, byte for byte.
mod wire {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        path::Path,
        time::Duration,
    };

    pub(super) const FAILURE: &[u8] = &[5];
    pub(super) const SUCCESS: &[u8] = &[6];
    pub(super) const IDENTITIES: u8 = 12;
    pub(super) const SIGNATURE: u8 = 14;

    pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// A connection to an agent.
    pub(super) struct Client(pub(super) UnixStream);

    impl Client {
        pub(super) fn connect(socket: &Path) -> Self {
            let stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            Self(stream)
        }

        /// Sends a message; returns the answer, or nothing if the agent hangs up.
        pub(super) fn ask(&mut self, message: &[u8]) -> Option<Vec<u8>> {
            self.0.write_all(&string(message)).ok()?;
            let mut length = [0; 4];
            self.0.read_exact(&mut length).ok()?;
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            self.0.read_exact(&mut answer).ok()?;
            Some(answer)
        }
    }

    /// A request to sign `data` with the key `key`.
    pub(super) fn sign(key: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
        [&[13], string(key).as_slice(), &string(data), &flags.to_be_bytes()].concat()
    }
}

/// The encoding of the key in a public key file.
fn blob(key: &Key) -> Vec<u8> {
    ssh_key::PublicKey::from_openssh(&key.public_line()).unwrap().to_bytes().unwrap()
}

/// The bytes to be signed of a certificate for the user's key `user`, an Ed25519 one, by `ca`, valid for an
/// hour.
fn to_be_signed(user: &Key, ca: &[u8], serial: u64, key_id: &[u8], principal: &[u8]) -> Vec<u8> {
    use wire::string;
    let user = blob(user);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    [
        string(b"ssh-ed25519-cert-v01@openssh.com"),
        string(&[7; 32]),
        user[4 + 11..].to_vec(),
        serial.to_be_bytes().to_vec(),
        vec![0, 0, 0, 1],
        string(key_id),
        string(&string(principal)),
        (now - 60).to_be_bytes().to_vec(),
        (now + 3600).to_be_bytes().to_vec(),
        string(b""),
        string(b""),
        string(b""),
        string(ca),
    ]
    .concat()
}

/// Messages that are unknown to an agent, or broken: the answers are those of OpenSSH's own agent, and the
/// connection stays open.
#[test]
fn messages_that_are_not_known_are_answered_as_ssh_agent_answers_them() {
    use wire::string;
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let agent = Agent::of(&scene.sshsm, &[]);
    let socket = scene.directory.path().join("openssh.sock");
    let mut openssh = Command::new(needs!(program("ssh-agent", "openssh-client")));
    let _openssh = Running::spawn(openssh.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()));
    wait_for("ssh-agent's socket", || socket.exists().then_some(()));
    let foreign = [string(b"ssh-foo"), string(b"zz")].concat();
    let messages = [
        vec![1],
        b"\xc8abc".to_vec(),
        vec![0],
        vec![255; 1000],
        wire::sign(&foreign, b"data", 0),
        wire::sign(&blob(&scene.user), b"data", 0),
        wire::sign(b"", b"", 0),
        vec![13],
        b"\x0d\xff\xff\xff\xff".to_vec(),
        [vec![18], string(&foreign)].concat(),
        [&[25][..], &string(b"ssh-ed25519"), &string(&[1; 32]), &string(&[2; 64]), &string(b"c"), b"\xff"]
            .concat(),
        [vec![27], string(b"query")].concat(),
        [vec![27], string(b"nobody@example.com"), b"rest".to_vec()].concat(),
        [vec![27], string(b"session-bind@openssh.com")].concat(),
        vec![27],
    ];
    let mut ours = wire::Client::connect(&agent.socket);
    let mut theirs = wire::Client::connect(&socket);
    for message in &messages {
        let (ours, theirs) = (ours.ask(message), theirs.ask(message));
        assert_eq!(ours.as_deref(), Some(wire::FAILURE), "{message:?}");
        assert_eq!(ours, theirs, "{message:?}");
    }
    // OpenSSH's agent removes all keys, not only those of version 1.
    assert_eq!(ours.ask(&[9]).as_deref(), Some(wire::FAILURE));
    assert_eq!(ours.ask(&[11]).unwrap()[..5], [wire::IDENTITIES, 0, 0, 0, 1]);
    // Neither answers a message without a number, or one that is too long.
    for (message, length) in [(&b"\x0b"[..], 0), (b"\x0d", u32::MAX), (b"\x0b", 256 * 1024 + 1)] {
        use std::io::{Read as _, Write as _};
        for socket in [&agent.socket, &socket] {
            let mut client = wire::Client::connect(socket);
            client.0.write_all(&[&u32::to_be_bytes(length), message].concat()).unwrap();
            // Closed, or reset if bytes were left unread.
            let closed = client.0.read(&mut [0]);
            let reset =
                closed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
            assert!(matches!(closed, Ok(0)) || reset, "{length}: {closed:?}");
        }
    }
}

/// One message that claims to be longer than any, and as many connections as there are descriptors for.
#[test]
fn neither_a_long_message_nor_many_connections_end_the_agent() {
    use std::io::Write as _;
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let mut shell = Command::new("sh");
    let sshsm = scene.sshsm.command();
    shell.envs(sshsm.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["-c", "ulimit -n 96; exec \"$0\" \"$@\""]).arg(sshsm.get_program());
    let agent = Agent::start(shell, scene.sshsm.directory(), &[]);
    let resident = || {
        let statm = fs::read_to_string(format!("/proc/{}/statm", agent.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024
    };
    let before = resident();
    let mut long = wire::Client::connect(&agent.socket);
    let _ = long.0.write_all(&[0xff; 5]);
    let block = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        if long.0.write_all(&block).is_err() {
            break;
        }
    }
    assert!(resident() < before + 16, "{} MB after {before}", resident());
    // More than there is room for: the last ones are served, in place of the silent ones.
    let idle: Vec<_> = (0..200).map(|_| wire::Client::connect(&agent.socket)).collect();
    let mut last = wire::Client::connect(&agent.socket);
    assert_eq!(last.ask(&[11]).unwrap()[0], wire::IDENTITIES, "{}", agent.log.text());
    drop(idle);
    let mut next = wire::Client::connect(&agent.socket);
    assert_eq!(next.ask(&[11]).unwrap()[0], wire::IDENTITIES, "{}", agent.log.text());
}

/// OpenSSH reports that a connection is forwarded; even a report without valid proof is believed.
#[test]
fn a_forwarded_connection_gets_certificates_only_where_that_is_allowed() {
    use wire::string;
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let host = needs!(Key::generate(scene.directory.path(), "host", KeyType::Ed25519));
    let private = ssh_key::PrivateKey::from_openssh(fs::read(&host.private).unwrap()).unwrap();
    let signature = |session: &[u8]| {
        use ed25519_dalek::Signer as _;
        use ssh_key::private::KeypairData;
        let KeypairData::Ed25519(pair) = private.key_data() else { unreachable!() };
        let signature = ed25519_dalek::SigningKey::from_bytes(&pair.private.to_bytes()).sign(session);
        [string(b"ssh-ed25519"), string(&signature.to_bytes())].concat()
    };
    let bind = |session: &[u8], signature: &[u8], forwarded: bool| {
        let parts = [&b"session-bind@openssh.com"[..], &blob(&host), session, signature].map(string);
        [&[27], parts.concat().as_slice(), &[u8::from(forwarded)]].concat()
    };
    let (right, wrong) = (signature(&[b'i'; 32]), signature(b"another"));
    let ca = blob(&scene.ca);
    let mut serial = 0;
    let mut request = || {
        serial += 1;
        wire::sign(&ca, &to_be_signed(&scene.user, &ca, serial, b"id", b"alice"), 0)
    };
    let allowing = Agent::of(&scene.sshsm, &["--allow-forwarding"]);
    let strict = Agent::of(&scene.sshsm, &[]);
    for (agent, allows) in [(&allowing, true), (&strict, false)] {
        let mut plain = wire::Client::connect(&agent.socket);
        assert_eq!(plain.ask(&request()).unwrap()[0], wire::SIGNATURE, "{}", agent.log.text());
        // Used to log in, and not forwarded.
        let mut own = wire::Client::connect(&agent.socket);
        assert_eq!(own.ask(&bind(&[b'i'; 32], &right, false)).unwrap(), wire::SUCCESS);
        assert_eq!(own.ask(&bind(b"more", &signature(b"more"), true)).unwrap(), wire::FAILURE);
        for (signature, answer) in [(&right, wire::SUCCESS), (&wrong, wire::FAILURE)] {
            let mut client = wire::Client::connect(&agent.socket);
            assert_eq!(client.ask(&bind(&[b'i'; 32], signature, true)).unwrap(), answer);
            // The keys are shown, as ssh-agent shows them.
            assert_eq!(client.ask(&[11]).unwrap()[0], wire::IDENTITIES);
            let signed = client.ask(&request()).unwrap()[0] == wire::SIGNATURE;
            assert_eq!(signed, allows, "{}", agent.log.text());
        }
    }
    assert!(strict.log.text().contains("forwarded from another host"), "{}", strict.log.text());
}

/// ssh itself reports it: no certificate through `ssh -A`, unless that is allowed.
#[test]
fn ssh_forwards_the_agent_and_the_agent_knows() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let keygen = needs!(program("ssh-keygen", "openssh-client"));
    let bastion = needs!(Server::trusting(&scene.ca, &["alice"]).start());
    for (more, works) in [(&[][..], false), (&["--allow-forwarding"], true)] {
        let agent = Agent::of(&scene.sshsm, more);
        let flags = Flags::user(&["alice"]).valid("-1m:+9h");
        let _ = needs!(agent.certify(&scene.ca, &flags, &scene.user)).success();
        let asked = scene.directory.path().join(format!("asked-{works}"));
        fs::copy(&scene.user.public, asked.with_extension("pub")).unwrap();
        let before = tempdir().unwrap();
        let socket = agent.socket.to_str().unwrap();
        let forwarding = Ssh::with_certificate(&scene.user).forwarding(socket).knowing("bastion", &bastion);
        let command = format!(
            "{} -Us {} -I id -n alice -V -1m:+9h {}",
            keygen.display(),
            scene.ca.public.display(),
            asked.with_extension("pub").display()
        );
        let client = needs!(Ssh::run(&forwarding.configure(before.path()), "bastion", &command));
        assert_eq!(client.status.success(), works, "{client}\n{}", agent.log.text());
        assert_eq!(
            agent.log.text().contains("over a connection that is forwarded"),
            !works,
            "{}",
            agent.log.text()
        );
    }
}

/// A program named by SSH_ASKPASS answers yes, answers no, does not answer, or is missing.
#[test]
fn a_signature_waits_for_a_yes() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let directory = scene.directory.path();
    let askpass = directory.join("askpass");
    let asked = directory.join("asked");
    let flags = Flags::user(&["alice"]).valid("-1m:+9h");
    for (answer, signed) in [
        ("echo yes", true),
        ("echo YES", true),
        ("true", true),
        ("echo no", false),
        ("echo yes; exit 1", false),
        ("echo yes please", false),
    ] {
        let script = format!(
            "#!/bin/sh\necho \"$1 $SSH_ASKPASS_PROMPT ${{SSHSM_PASSWORD-none}}\" >{}\n{answer}\n",
            asked.display()
        );
        fs::write(&askpass, script).unwrap();
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = scene.sshsm.command();
        command.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force");
        let agent = Agent::start(command, scene.sshsm.directory(), &["--confirm"]);
        let certified = needs!(agent.certify(&scene.ca, &flags, &scene.user));
        assert_eq!(certified.status.success(), signed, "{answer}: {certified}\n{}", agent.log.text());
        let question = fs::read_to_string(&asked).unwrap();
        assert!(question.contains("user certificate \"a subject\" for alice"), "{question}");
        assert!(question.ends_with("confirm none\n"), "{question}");
    }
    let mut command = scene.sshsm.command();
    command.env_remove("SSH_ASKPASS").env("SSH_ASKPASS_REQUIRE", "force");
    let agent = Agent::start(command, scene.sshsm.directory(), &["-c"]);
    assert!(!needs!(agent.certify(&scene.ca, &flags, &scene.user)).status.success());
    assert!(agent.log.text().contains("to ask on"), "{}", agent.log.text());
}

/// Requests that the host can refuse leave nothing in the ledger, and of those that the template refuses
/// there is a bounded number.
#[test]
fn refusals_do_not_fill_the_ledger() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let ledger = scene.directory.path().join("ledger.sqlite");
    let mut command = scene.sshsm.command();
    command.env("SSHSM_LEDGER", &ledger);
    let agent = Agent::start(command, scene.sshsm.directory(), &[]);
    let entries = |state: &str| {
        let mut list = scene.sshsm.command();
        list.env("SSHSM_LEDGER", &ledger).args(["ledger", "list", "--format", "json", "--state", state]);
        let listed: serde_json::Value = serde_json::from_str(&run(&mut list).success().stdout).unwrap();
        listed.as_array().unwrap().len()
    };
    let ca = blob(&scene.ca);
    let mut client = wire::Client::connect(&agent.socket);
    let mut ask = |data: &[u8]| client.ask(&wire::sign(&ca, data, 0)).unwrap();
    let good = to_be_signed(&scene.user, &ca, 1, b"id", b"alice");
    let other = blob(&scene.user);
    for data in [
        to_be_signed(&scene.user, &ca, 1, &[b'k'; 70_000], b"alice"),
        to_be_signed(&scene.user, &ca, 1, b"\xff", b"alice"),
        to_be_signed(&scene.user, &ca, 1, b"id", b"\xff"),
        to_be_signed(&scene.user, &ca, 1, b"id", b""),
        to_be_signed(&scene.user, &ca, 1, b"id\0", b"alice"),
        to_be_signed(&scene.user, &other, 1, b"id", b"alice"),
        good[..good.len() - 1].to_vec(),
        [good.as_slice(), b"x"].concat(),
    ] {
        assert_eq!(ask(&data), wire::FAILURE);
    }
    for state in ["reserved", "issued", "refused", "failed"] {
        assert_eq!(entries(state), 0, "{state}: {}", agent.log.text());
    }
    for serial in 0..60 {
        assert_eq!(ask(&to_be_signed(&scene.user, &ca, serial, b"id", b"root")), wire::FAILURE);
    }
    assert_eq!(entries("refused"), 16, "{}", agent.log.text());
    // An allowed request is still signed, and recorded.
    let flags = Flags::user(&["alice"]).valid("-1m:+9h");
    let _ = needs!(agent.certify(&scene.ca, &flags, &scene.user)).success();
    assert_eq!((entries("issued"), entries("refused")), (1, 16));
    let lines = agent.log.text().matches("refused by template").count();
    assert!(lines <= 60, "{lines} lines are printed");
}

/// Without a flag an RSA key signs with SHA-1, which no current OpenSSH accepts: nothing is signed then, and
/// nothing recorded.
#[test]
fn an_rsa_ca_signs_with_sha2_or_not_at_all() {
    let scene = needs!(Scene::new(KeyType::Rsa2048));
    let ledger = scene.directory.path().join("ledger.sqlite");
    let mut command = scene.sshsm.command();
    command.env("SSHSM_LEDGER", &ledger);
    let agent = Agent::start(command, scene.sshsm.directory(), &[]);
    let flags = Flags::user(&["alice"]).valid("-1m:+9h");
    let refused =
        needs!(agent.certify(&scene.ca, &flags.clone().signature_algorithm("ssh-rsa"), &scene.user));
    assert!(!refused.status.success(), "{refused}");
    assert!(agent.log.text().contains("SHA-1"), "{}", agent.log.text());
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        let flags = flags.clone().signature_algorithm(algorithm);
        let _ = needs!(agent.certify(&scene.ca, &flags, &scene.user)).success();
        assert!(needs!(shown(&scene.user)).join("\n").contains(&format!("using {algorithm}")));
    }
    let mut list = scene.sshsm.command();
    list.env("SSHSM_LEDGER", &ledger).args(["ledger", "list", "--format", "json"]);
    let entries: serde_json::Value = serde_json::from_str(&run(&mut list).success().stdout).unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 2, "{entries}");
}

/// Password, PIN and passphrase are the agent's.
#[test]
fn a_command_is_given_no_secret() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let mut agent = scene.sshsm.command();
    let secrets = ["SSHSM_PIN", "SSHSM_KEY_PASSPHRASE", "SSHSM_NEW_PASSWORD", "SSHSM_SIGNER_PASSWORD"];
    agent
        .envs(secrets.map(|name| (name, "secret")))
        .env("HARMLESS", "kept")
        .current_dir(scene.sshsm.directory());
    let given =
        run(agent.args(["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp", "--", "env"])).success();
    assert!(given.stdout.contains("HARMLESS=kept"), "{given}");
    for name in secrets.iter().chain(&["SSHSM_PASSWORD"]) {
        assert!(!given.stdout.contains(&format!("{name}=")), "{given}");
    }
}

/// The first command of docs/agent.md: the shell continues, with the socket, while the agent runs.
#[test]
fn a_shell_that_takes_the_agents_output_goes_on() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let keygen = needs!(program("ssh-keygen", "openssh-client"));
    let mut shell = scene.sshsm.command();
    let sshsm = shell.get_program().to_owned();
    let environment: Vec<_> =
        shell.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    shell = Command::new("bash");
    shell.envs(environment).current_dir(scene.sshsm.directory()).stdin(Stdio::null());
    let script = format!(
        "eval \"$({} agent -s 5 -t 10 --timestamp timestamp 2>agent.err &)\"\n\
         {} -Us {} -I id -n alice -V +1h {}\ncode=$?\nkill $SSH_AGENT_PID\nexit $code",
        sshsm.display(),
        keygen.display(),
        scene.ca.public.display(),
        scene.user.public.display(),
    );
    let _ = run(shell.args(["-c", &script])).success();
    let _ = certificate::read(&scene.user.certificate(), &scene.ca);
}

/// As ssh-agent: other processes of the user cannot read its memory, and it is not written to core files.
#[test]
fn the_memory_of_the_agent_is_closed() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let agent = Agent::of(&scene.sshsm, &[]);
    let of = |file: &str| fs::metadata(format!("/proc/{}/{file}", agent.process.id())).unwrap();
    // A process whose files in /proc belong to root is not dumpable; for root's own, the limit shows it.
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(of("mem").uid(), 0);
}

/// systemd's way: the socket is open before the agent is, at descriptor 3.
#[test]
fn a_socket_that_systemd_opened_is_taken_over() {
    let scene = needs!(Scene::new(KeyType::Ed25519));
    let activate = needs!(program("systemd-socket-activate", "systemd"));
    let socket = scene.directory.path().join("activated.sock");
    let sshsm = scene.sshsm.command();
    let mut command = Command::new(activate);
    command.envs(sshsm.get_envs().filter_map(|(name, value)| Some((name, value?))));
    for (name, _) in sshsm.get_envs().filter(|(_, value)| value.is_some()) {
        command.arg("-E").arg(name);
    }
    command.arg("-l").arg(&socket).arg(sshsm.get_program()).current_dir(scene.sshsm.directory());
    command.args(["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp", "-a", "fd://"]);
    let (log, stderr) = Log::create(&scene.directory.path().join("activated.log"));
    let _running = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr));
    wait_for("the socket", || socket.exists().then_some(()));
    let mut keygen = needs!(ssh_keygen());
    keygen.env("SSH_AUTH_SOCK", &socket).arg("-Us").arg(&scene.ca.public);
    let certified = run(keygen.args(["-I", "id", "-n", "alice", "-V", "+1h"]).arg(&scene.user.public));
    assert!(certified.status.success(), "{certified}\n{}", log.text());
    let mut alone = scene.sshsm.command();
    alone.current_dir(scene.sshsm.directory());
    let none = run(alone.args(["agent", "-s", "5", "-t", "10", "--timestamp", "timestamp", "-a", "fd://"]));
    assert_eq!(none.status.code(), Some(2), "{none}");
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
