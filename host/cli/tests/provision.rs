//! `sshsm provision`: a fresh device becomes a CA token whose signing key can only sign, an interrupted run
//! is continued, and a device that holds anything else is not changed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::mem;

use machine::{Machine, Run, serve};
use sshsm_protocol::ObjectId;
use sshsm_simulator::{
    Simulator, SimulatorError,
    connector::{Backend, Settings, Status},
};

const NEW: [(&str, &str); 2] =
    [("SSHSM_NEW_PASSWORD", "correct horse"), ("SSHSM_SIGNER_PASSWORD", "battery staple")];

fn machine() -> Machine {
    prepared(Machine::new())
}

fn prepared(machine: Machine) -> Machine {
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine
}

fn provision(machine: &Machine, arguments: &[&str]) -> Run {
    let run = machine.with_environment(&[&["provision", "--template", "t.toml"], arguments].concat(), &NEW);
    run.tells_no(&["correct horse", "battery staple"]);
    run
}

fn administrator(machine: &Machine, line: &str) -> Run {
    machine.with_environment(&line.split(' ').collect::<Vec<_>>(), &[("SSHSM_PASSWORD", "correct horse")])
}

fn signer(machine: &Machine, line: &str) -> Run {
    let arguments = [line.split(' ').collect::<Vec<_>>(), vec!["--auth-key", "2"]].concat();
    machine.with_environment(&arguments, &[("SSHSM_PASSWORD", "battery staple")])
}

#[test]
fn a_fresh_device_signs_afterwards_with_a_key_that_can_do_nothing_else() {
    for algorithm in ["ed25519", "p256", "ecp384", "p521", "rsa2048"] {
        let machine = machine();
        let run = provision(&machine, &["--algorithm", algorithm, "--record", "record.json"]);
        assert_eq!(run.code, 0, "{run:?}");
        machine.write("ca.pub", &run.stdout);
        let ca = ssh_key::PublicKey::from_openssh(&run.stdout).unwrap();
        let fingerprint = ca.fingerprint(ssh_key::HashAlg::Sha256).to_string();
        assert!(run.stderr.contains(&fingerprint), "{run:?}");
        let text = std::fs::read_to_string(machine.path("record.json")).unwrap();
        assert!(!text.contains("correct horse") && !text.contains("battery staple"));
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["ca_key"]["fingerprint"], fingerprint);
        assert_eq!(record["ca_key"]["public_key"], run.stdout.trim_end());
        assert_eq!((&record["ca_key"]["id"], &record["template"]["id"]), (&5.into(), &10.into()));
        assert_eq!(record["steps"].as_array().unwrap().len(), 4);
        assert!(record["steps"].as_array().unwrap().iter().all(|step| step["outcome"] == "made"), "{record}");

        assert_eq!(machine.run(&["key", "list"]).code, 4, "the factory's password is gone");
        machine.new_key("user", machine::ed25519(1));
        let sign = "sign -s 5 -t 10 --timestamp-key timestamp -I me -V +1h";
        let run = signer(&machine, &format!("{sign} -n a user.pub"));
        assert_eq!(run.code, 0, "{run:?}");
        let line = std::fs::read_to_string(machine.path("user-cert.pub")).unwrap();
        let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
        certificate.verify_signature().unwrap();
        assert_eq!(certificate.signature_key(), ca.key_data());
        let refused = signer(&machine, &format!("{sign} -n root user.pub"));
        assert_eq!(refused.code, 5);
        assert!(refused.stderr.contains("forbid-principals"), "and its refusals are explained: {refused:?}");
        machine.write("new", "correct horse battery\n");
        for line in [
            "key generate --algorithm ed25519",
            "key delete 5",
            "key delete 10 --type template",
            "template put t.toml",
            "authentication-key put --capabilities all --new-password-file new",
            "authentication-key change --new-password-file new",
        ] {
            assert_eq!(signer(&machine, line).code, 5, "{line}");
        }
    }
}

#[test]
fn a_second_run_keeps_everything() {
    let machine = machine();
    let first = provision(&machine, &["--format", "json"]).json();
    let second = provision(&machine, &["--format", "json"]).json();
    assert_eq!((&first["ca_key"], &first["template"]), (&second["ca_key"], &second["template"]));
    assert!(second["steps"].as_array().unwrap().iter().all(|step| step["outcome"] == "kept"), "{second}");
}

#[test]
fn a_run_that_was_cut_short_is_gone_on_with_from_every_step() {
    for (done, deleted) in [
        (1, &["2 --type authentication-key", "10 --type template", "5"][..]),
        (2, &["2 --type authentication-key", "10 --type template"]),
        (3, &["2 --type authentication-key"]),
    ] {
        let machine = machine();
        assert_eq!(provision(&machine, &[]).code, 0);
        for object in deleted {
            assert_eq!(administrator(&machine, &format!("key delete {object}")).code, 0);
        }
        let record = provision(&machine, &["--format", "json"]).json();
        let kept =
            record["steps"].as_array().unwrap().iter().filter(|step| step["outcome"] == "kept").count();
        assert_eq!(kept, done, "{record}");
        assert_eq!(signer(&machine, "key show 5").code, 0);
    }
}

#[test]
fn what_stops_it_half_way_is_told_with_what_is_done() {
    let machine = machine();
    assert_eq!(provision(&machine, &[]).code, 0);
    let run = machine.with_environment(
        &["provision", "--template", "t.toml"],
        &[NEW[0], ("SSHSM_SIGNER_PASSWORD", "another signer")],
    );
    assert_eq!(run.code, 4, "{run:?}");
    for part in [
        "stopped half-way",
        "CA key 0x0005 (ed25519) generated",
        "wrong password for authentication key 0x0002",
    ] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
}

#[test]
fn a_device_that_is_not_fresh_is_left_alone() {
    let machine = machine();
    assert_eq!(machine.run(&["key", "generate", "--algorithm", "ed25519", "--id", "5"]).code, 0);
    let run = provision(&machine, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
    assert!(run.stderr.contains("not fresh; it holds asymmetric-key 0x0005"), "{run:?}");
    assert_eq!(machine.run(&["key", "list"]).code, 0, "the password too is as it was");

    // Begun by provisioning, and then something else was added.
    let machine = self::machine();
    assert_eq!(provision(&machine, &[]).code, 0);
    machine.template("t2.toml", "5m", "99h", &[]);
    assert_eq!(administrator(&machine, "template put t2.toml --id 11").code, 0);
    let run = provision(&machine, &[]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("not fresh; it holds template 0x000b:"), "{run:?}");
    // A template of the right name and with another content.
    assert_eq!(administrator(&machine, "key delete 11 --type template").code, 0);
    machine.template("t.toml", "5m", "99h", &["root"]);
    let run = provision(&machine, &[]);
    assert!(run.code == 1 && run.stderr.contains("another template 0x000a"), "{run:?}");
}

#[test]
fn after_a_reset_a_device_is_fresh_again() {
    let machine = machine();
    let first = provision(&machine, &[]);
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(administrator(&machine, "device reset").code, 2, "it must be said in full");
    let reset = administrator(&machine, "device reset --delete-everything");
    assert_eq!(reset.code, 0, "{reset:?}");
    let second = provision(&machine, &[]);
    assert_eq!(second.code, 0, "{second:?}");
    assert_ne!(first.stdout, second.stdout, "another key");
}

#[test]
fn a_device_with_another_password_is_not_opened() {
    let machine = machine();
    let other = [("SSHSM_NEW_PASSWORD", "something else")];
    assert_eq!(machine.with_environment(&["authentication-key", "change"], &other).code, 0);
    assert_eq!(provision(&machine, &[]).code, 4);
}

#[test]
fn passwords_that_protect_nothing_are_refused() {
    let machine = machine();
    let long = "correct horse";
    for (administrator, signer, told) in [
        ("password", long, "the factory's"),
        (long, "Password123456", "the factory's"),
        ("zone2026!", long, "has 9 characters, and 12 is the least"),
        (long, "eleven char", "has 11 characters, and 12 is the least"),
        (long, long, "the same"),
        ("", long, "empty"),
    ] {
        let passwords = [("SSHSM_NEW_PASSWORD", administrator), ("SSHSM_SIGNER_PASSWORD", signer)];
        let run = machine.with_environment(&["provision", "--template", "t.toml"], &passwords);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
        run.tells_no(&["zone2026!", "eleven char"]);
    }
    let weak = ["provision", "--template", "t.toml", "--allow-weak-password"];
    for (administrator, told) in [("password", "the factory password"), ("x", "the same"), ("", "empty")] {
        let passwords = [("SSHSM_NEW_PASSWORD", administrator), ("SSHSM_SIGNER_PASSWORD", "x")];
        let run = machine.with_environment(&weak, &passwords);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
    }
    let none = machine.run(&["provision", "--template", "t.toml"]);
    assert_eq!(none.code, 4);
    assert!(none.stderr.contains("SSHSM_NEW_PASSWORD"), "{none:?}");
    assert!(none.stderr.contains("--generate"), "{none:?}");
    assert_eq!(machine.run(&["key", "list"]).code, 0, "nothing was changed");
    let passwords = [("SSHSM_NEW_PASSWORD", "short"), ("SSHSM_SIGNER_PASSWORD", "x")];
    assert_eq!(machine.with_environment(&weak, &passwords).code, 0, "allowed when requested");
}

/// The passphrase that a line of stderr shows.
fn shown(run: &Run, whose: &str) -> String {
    let begin = format!("password of {whose}, shown this once: ");
    let lines: Vec<_> = run.stderr.lines().filter_map(|line| line.strip_prefix(&begin)).collect();
    assert_eq!(lines.len(), 1, "{run:?}");
    lines[0].to_owned()
}

#[test]
fn generated_passwords_are_shown_once_and_open_the_device() {
    let machine = machine();
    let line = ["provision", "--template", "t.toml", "--generate", "--record", "record.json"];
    let run = machine.without_password(&line);
    assert_eq!(run.code, 0, "{run:?}");
    let administrator = shown(&run, "the administrator, authentication key 1");
    let signer = shown(&run, "the authentication key that signs");
    let record = std::fs::read_to_string(machine.path("record.json")).unwrap();
    for password in [&administrator, &signer] {
        assert_eq!(password.len(), 29, "25 characters of 5 bits, in groups");
        assert!(!run.stdout.contains(password.as_str()) && !record.contains(password.as_str()));
    }
    assert_ne!(administrator, signer);
    let list = |password: &str, key: &str| {
        let environment = [("SSHSM_PASSWORD", password), ("SSHSM_AUTH_KEY", key)];
        machine.with_environment(&["key", "list"], &environment).code
    };
    assert_eq!((list(&administrator, "1"), list(&signer, "2"), list("password", "1")), (0, 0, 4));
    let given = machine.with_environment(&line, &[("SSHSM_NEW_PASSWORD", "correct horse")]);
    assert_eq!(given.code, 2, "which one is meant? {given:?}");
    assert!(given.stderr.contains("SSHSM_NEW_PASSWORD"), "{given:?}");
}

#[test]
fn generated_passwords_go_to_files_of_their_owner_and_are_kept_when_the_run_is_repeated() {
    use std::os::unix::fs::PermissionsExt as _;
    let machine = machine();
    let line =
        "provision --template t.toml --generate --new-password-file admin --signer-password-file signer";
    let line: Vec<_> = line.split(' ').collect();
    let run = machine.without_password(&line);
    assert_eq!(run.code, 0, "{run:?}");
    let read = |name: &str| std::fs::read_to_string(machine.path(name)).unwrap();
    let (administrator, signer) = (read("admin"), read("signer"));
    run.tells_no(&[administrator.trim(), signer.trim()]);
    for name in ["admin", "signer"] {
        let mode = std::fs::metadata(machine.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(machine.without_password(&["key", "list", "--password-file", "admin"]).code, 0);
    assert_eq!(machine.without_password(&line).code, 0, "an earlier run's passwords remain the device's");
    assert_eq!((read("admin"), read("signer")), (administrator, signer.clone()));
    // A new password never overwrites another's file.
    let change =
        "authentication-key change --auth-key 1 --password-file admin --generate --new-password-file signer";
    let refused = machine.without_password(&change.split(' ').collect::<Vec<_>>());
    assert_eq!(refused.code, 6, "{refused:?}");
    assert_eq!(read("signer"), signer);
}

#[test]
fn a_template_that_the_ca_key_could_not_sign_under_is_refused() {
    let machine = machine();
    let run = provision(&machine, &["--ca-key", "6"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("lets no CA key 0x0006 sign"), "{run:?}");
    let text = std::fs::read_to_string(machine.path("t.toml")).unwrap();
    machine.write("t.toml", &text.replace("[5]", "[5, 6]"));
    assert_eq!(provision(&machine, &[]).code, 2);
    assert_eq!(provision(&machine, &["--ca-key", "6", "--signer", "1"]).code, 2);
    assert_eq!(machine.run(&["key", "list"]).code, 0, "nothing was changed");
    assert_eq!(provision(&machine, &["--ca-key", "6"]).code, 0);
}

fn key(id: u16) -> ObjectId {
    ObjectId::new(id).unwrap()
}

/// A session that continues when its value is gone, like another client's.
fn stays(device: &mut Simulator, id: u16, password: &str) {
    mem::forget(device.session(key(id), password).unwrap());
}

#[test]
fn a_device_on_which_another_client_has_a_session_is_left_alone() {
    let mut device = Simulator::memory().start().unwrap();
    stays(&mut device, 1, "password");
    let device = device.serve().unwrap();
    let machine = prepared(Machine::with_device(&device.url()));
    let run = provision(&machine, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
    assert!(run.stderr.contains("another client has an open session"), "{run:?}");
    assert!(run.stderr.contains("unplug the device"), "{run:?}");
    assert_eq!(machine.run(&["key", "list"]).code, 0, "nothing was changed");
    device.simulator().power_cycle().unwrap();
    let record = provision(&machine, &["--format", "json"]).json();
    assert_eq!(record["other_sessions"], "none");
    // A second run looks as well.
    stays(&mut device.simulator(), 2, "battery staple");
    let run = provision(&machine, &[]);
    assert!(run.code == 1 && run.stderr.contains("another client has an open session"), "{run:?}");
}

/// A device on which another client opens a session just before its own client opens session number `before`.
struct Crowded {
    device: Simulator,
    before: usize,
    sessions: usize,
}

impl Backend for Crowded {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        if request.first() == Some(&3) {
            self.sessions += 1;
            if self.sessions == self.before {
                stays(&mut self.device, 2, "battery staple");
            }
        }
        self.device.transact(request)
    }

    fn status(&mut self) -> Status {
        Backend::status(&mut self.device)
    }
}

#[test]
fn who_comes_while_a_device_is_provisioned_is_noticed_in_the_end() {
    let device = Simulator::memory().start().unwrap();
    // The new password in vain, the factory's, the signer's, and the administrator's in the end.
    let port = serve(Crowded { device, before: 9, sessions: 0 }, Settings::default());
    let machine = prepared(Machine::with_device(&format!("http://127.0.0.1:{port}")));
    let run = provision(&machine, &[]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
    for part in ["stopped half-way", "another client has an open session", "unplug the device"] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
}

#[test]
fn a_device_that_does_not_tell_its_sessions_is_provisioned_and_that_is_said() {
    let device = Simulator::memory().strict_yubihsm2().start().unwrap().serve().unwrap();
    let machine = prepared(Machine::with_device(&device.url()));
    let run = provision(&machine, &["--record", "record.json"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("NOT CHECKED: whether another client has a session"), "{run:?}");
    let record = std::fs::read_to_string(machine.path("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["other_sessions"], &record["templates"]), (&"not-told".into(), &().into()));
}

#[test]
fn templates_are_frozen_as_the_last_step_and_a_second_run_changes_nothing() {
    let machine = machine();
    let first = provision(&machine, &["--freeze", "--format", "json"]).json();
    let steps = first["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[4]["what"], "templates frozen until the device is reset");
    assert!(steps.iter().all(|step| step["outcome"] == "made"), "{first}");
    assert_eq!(first["templates"], "frozen");
    machine.template("loose.toml", "5m", "99h", &[]);
    for line in ["template put loose.toml --id 11", "key delete 10 --type template"] {
        assert_ne!(administrator(&machine, line).code, 0, "{line}");
    }
    let second = provision(&machine, &["--freeze", "--format", "json"]).json();
    assert!(second["steps"].as_array().unwrap().iter().all(|step| step["outcome"] == "kept"), "{second}");
    assert_eq!((&first["ca_key"], &first["template"]), (&second["ca_key"], &second["template"]));
    let third = provision(&machine, &["--format", "json"]).json();
    assert_eq!(third["templates"], "frozen", "as the device reports, requested or not");
    let open = provision(&self::machine(), &["--format", "json"]).json();
    assert_eq!((&open["templates"], open["steps"].as_array().unwrap().len()), (&"open".into(), 4));
}

#[test]
fn a_device_that_cannot_freeze_its_templates_is_left_alone() {
    let device = Simulator::memory().strict_yubihsm2().start().unwrap().serve().unwrap();
    let machine = prepared(Machine::with_device(&device.url()));
    let run = provision(&machine, &["--freeze"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("cannot freeze its templates"), "{run:?}");
    assert_eq!(machine.run(&["key", "list"]).code, 0, "nothing was changed");
}

/// 0.0.0.0 is this computer, but not loopback: a client that uses it does so over a network.
#[test]
fn new_keys_do_not_cross_a_network_under_the_factorys_password() {
    let device = Simulator::memory().start().unwrap();
    let hosts = vec!["0.0.0.0".parse().unwrap()];
    let port = serve(device, Settings { hosts, ..Settings::default() });
    let machine = prepared(Machine::with_device(&format!("http://0.0.0.0:{port}")));
    let put = ["authentication-key", "put", "--id", "3", "--capabilities", "none"];
    let import = ["key", "import", "timestamp"];
    for command in [
        &["provision", "--template", "t.toml"][..],
        &put,
        &["authentication-key", "change"],
        &import,
        &["backup", "create", "b.json"],
    ] {
        let run = machine.with_environment(command, &NEW);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("--allow-plain-http"), "{run:?}");
    }
    assert_eq!(machine.run(&["key", "list", "--format", "json"]).json().as_array().unwrap().len(), 1);
    let run = provision(&machine, &["--allow-plain-http"]);
    assert_eq!(run.code, 0, "{run:?}");
    // From here on the session's password is no longer publicly known.
    assert_eq!(provision(&machine, &[]).code, 0);
    let mine = [NEW[0], ("SSHSM_PASSWORD", "correct horse")];
    assert_eq!(machine.with_environment(&put, &mine).code, 0);
}
