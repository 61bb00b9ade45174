//! The ledger of the real binary: what it records, that no two certificates get one serial number even if
//! processes are killed, that it stays valid when it cannot be written, and that it agrees with the device's
//! own log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod machine;

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use machine::{Machine, Run};
use rusqlite::Connection;
use serde_json::Value;
use sshsm_simulator::{Simulator, connector};
use sshsm_tests::{needs, requirement::shared_vector};

/// A fresh device behind a connector, for as long as this process lives.
fn device() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let device = Simulator::memory().start().unwrap();
            connector::serve(listener, device, connector::Timeouts::default(), std::future::pending())
                .await
                .unwrap();
        });
    });
    address
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn run(machine: &Machine, line: &str) -> Run {
    machine.run(&words(line))
}

fn done(machine: &Machine, line: &str) -> Run {
    let run = run(machine, line);
    assert_eq!(run.code, 0, "{line}: {run:?}");
    run
}

/// With CA key 5, template 10, a timestamp key and the key `user`.
fn set_up(machine: &Machine) {
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    done(machine, "key generate --algorithm ed25519 --id 5");
    done(machine, "template put t.toml --id 10");
}

const SIGN: &str = "sign -s 5 -t 10 --timestamp timestamp -I me -n alice,bob -V +1h";

fn list(machine: &Machine, filter: &str) -> Vec<Value> {
    let mut arguments = words("--format json ledger list");
    arguments.extend(filter.split_whitespace());
    machine.run(&arguments).json().as_array().unwrap().clone()
}

fn serials(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|entry| entry["serial"].as_u64().unwrap()).collect()
}

#[test]
fn every_signature_is_recorded_with_all_that_it_says() {
    let machine = Machine::new();
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z 18446744073709551615 user.pub"));
    let line = fs::read_to_string(machine.path("user-cert.pub")).unwrap();
    let entries = list(&machine, "");
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
    for (field, value) in [
        ("serial", Value::from(u64::MAX)),
        ("state", "issued".into()),
        ("key_id", "me".into()),
        ("principals", vec!["alice", "bob"].into()),
        ("kind", "user".into()),
        ("valid_after", certificate.valid_after().into()),
        ("valid_before", certificate.valid_before().into()),
        ("subject", certificate.public_key().fingerprint(ssh_key::HashAlg::Sha256).to_string().into()),
        ("ca", certificate.signature_key().fingerprint(ssh_key::HashAlg::Sha256).to_string().into()),
        ("ca_key", "0x0005".into()),
        ("template", "0x000a".into()),
        ("enforced_by", "device".into()),
        ("certificate", line.trim_end().into()),
        ("reason", Value::Null),
    ] {
        assert_eq!(entry[field], value, "{field} of {entry}");
    }
    let info = machine.run(&words("device info --format json")).json();
    assert_eq!(entry["device_serial"], info["serial"]);
    assert!(entry["asked_by"].as_str().unwrap().contains('@'));
    let told = done(&machine, "ledger show 18446744073709551615").stdout;
    assert!(told.contains("enforced by: device") && told.contains(line.trim_end()), "{told}");
    assert_eq!(run(&machine, "ledger show 1").code, 1);
    assert!(machine.path(".local/state/sshsm/ledger.sqlite").is_file());
}

#[test]
fn a_plus_counts_on_from_call_to_call_past_numbers_given_by_hand_and_for_each_ca_alone() {
    let machine = Machine::new();
    set_up(&machine);
    let next = |rest: &str| {
        let report = machine.run(&words(&format!("{SIGN} --format json -z + {rest}"))).json();
        report["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["serial"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(next("user.pub"), [1]);
    done(&machine, &format!("{SIGN} -z +3 user.pub user.pub"));
    assert_eq!(next("user.pub user.pub"), [2, 5], "3 and 4 were given by hand");
    done(&machine, "key generate --algorithm p256 --id 6");
    fs::write(
        machine.path("t6.toml"),
        fs::read_to_string(machine.path("t.toml")).unwrap().replace("[5]", "[6]"),
    )
    .unwrap();
    done(&machine, "template put t6.toml --id 11");
    let other = "sign -s 6 -t 11 --timestamp timestamp -I me -n alice -V +1h -z + user.pub";
    done(&machine, other);
    assert_eq!(serials(&list(&machine, "")), [1, 3, 4, 2, 5, 1]);
    let without = run(&machine, &format!("{SIGN} --ledger none -z + user.pub"));
    assert!(without.stderr.contains("no ledger") && without.code == 2, "{without:?}");
}

#[test]
fn the_serial_number_of_what_was_refused_or_failed_is_never_given_again() {
    let machine = Machine::new();
    set_up(&machine);
    let refused = run(&machine, &format!("{} -z + user.pub", SIGN.replace("alice", "root")));
    assert_eq!(refused.code, 5, "{refused:?}");
    machine.new_key("stranger", machine::ed25519(9));
    fs::write(machine.path("oversized.pub"), machine::oversized_key()).unwrap();
    assert_eq!(run(&machine, &format!("{SIGN} -z + oversized.pub")).code, 1);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let entries = list(&machine, "");
    let states: Vec<_> = entries.iter().map(|entry| entry["state"].as_str().unwrap()).collect();
    assert_eq!((serials(&entries), states), (vec![1, 2, 3], vec!["refused", "failed", "issued"]));
    assert!(entries[0]["reason"].as_str().unwrap().contains("constraint"), "{entries:?}");
    assert_eq!(list(&machine, "--state issued").len(), 1);
}

#[test]
fn entries_are_found_by_what_they_say_and_exported() {
    let machine = Machine::new();
    set_up(&machine);
    for (key_id, names) in [("one", "alice"), ("two", "bob"), ("a,\"b\"", "alice,carol")] {
        let mut arguments = words("sign -s 5 -t 10 --timestamp timestamp -V +1h -z + -I");
        arguments.extend([key_id, "-n", names, "user.pub"]);
        assert_eq!(machine.run(&arguments).code, 0);
    }
    let found = |filter: &str| serials(&list(&machine, filter));
    assert_eq!(found("--key-id two"), [2]);
    assert_eq!(found("--principal alice"), [1, 3]);
    assert_eq!(found("--serial 2-3"), [2, 3]);
    assert_eq!(found("--since -1h"), [1, 2, 3]);
    assert_eq!(found("--since +1h"), [0_u64; 0]);
    assert_eq!(found("--principal alice --serial 1"), [1]);
    let ca = list(&machine, "")[0]["ca"].as_str().unwrap().to_owned();
    assert_eq!(found(&format!("--ca {}", &ca[..20])).len(), 3);
    assert_eq!(run(&machine, "ledger list --ca SHA256:nobody").code, 2);

    let text = done(&machine, "ledger export").stdout;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<_> =
        reader.deserialize::<std::collections::BTreeMap<String, String>>().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[2]["key_id"].as_str(), rows[2]["principals"].as_str()), ("a,\"b\"", "alice,carol"));
    let json = machine.run(&words("ledger export --format json")).json();
    for (row, entry) in rows.iter().zip(json.as_array().unwrap()) {
        assert_eq!(row.keys().collect::<BTreeSet<_>>(), entry.as_object().unwrap().keys().collect());
    }
    assert!(done(&machine, "ledger list").stdout.contains("alice,carol"));
    assert_eq!(machine.run(&words("ledger check --format json")).json()["entries"], 3);
}

#[test]
fn what_is_revoked_is_in_the_list_and_the_lists_number_rises() {
    let machine = Machine::new();
    assert_eq!(run(&machine, "krl build -o none.krl").code, 6, "without a ledger");
    assert!(!machine.path("none.krl").exists());
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let empty = machine.run(&words("krl build -o list.krl"));
    assert!(empty.code == 1 && empty.stderr.contains("--allow-empty"), "{empty:?}");
    assert!(!machine.path("list.krl").exists());
    let build = || machine.run(&words("krl build -o list.krl --allow-empty --format json")).json();
    assert_eq!((build()["number"].as_u64(), build()["revocations"].as_u64()), (Some(1), Some(0)));
    let dry = machine.run(&words("revoke --serial 1 --dry-run --format json")).json();
    assert_eq!((&dry["dry_run"], dry["certificates"].as_array().unwrap().len()), (&Value::from(true), 1));
    assert_eq!(build()["revocations"], 0);
    let revoked = done(&machine, "revoke --serial 1 --reason lost");
    assert!(
        revoked.stderr.contains("serial number 1") && revoked.stderr.contains("1 certificate of"),
        "{revoked:?}"
    );
    done(&machine, "revoke --serial 1");
    done(&machine, "revoke --serial 5-9 --not-in-ledger");
    done(&machine, "revoke --key-id me");
    done(&machine, "revoke --key user.pub");
    done(&machine, "revoke --key SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
    done(&machine, "revoke --certificate user-cert.pub");
    done(&machine, "revoke --serial 77 --any-ca --not-in-ledger");
    let ca = list(&machine, "")[0]["ca"].as_str().unwrap().to_owned();
    done(&machine, &format!("revoke --whole-ca {ca}"));
    let listed = machine.run(&words("ledger revocations --format json")).json();
    assert_eq!(listed.as_array().unwrap().len(), 7, "the same twice is one: {listed}");
    assert_eq!((&listed[0]["reason"], &listed[0]["first_serial"]), (&Value::from("lost"), &Value::from(1)));
    let last = build();
    assert_eq!((last["number"].as_u64(), last["revocations"].as_u64()), (Some(4), Some(7)));
    let far = machine.run(&words("krl build -o list.krl --from-version 100 --format json")).json();
    assert_eq!((far["number"].as_u64(), build()["number"].as_u64()), (Some(100), Some(101)));
    assert!(fs::read(machine.path("list.krl")).unwrap().starts_with(b"SSHKRL\n\0"));
    for (line, code) in [
        ("revoke --serial 0", 2),
        ("revoke --serial 9-5", 2),
        ("revoke --serial 1 --key-id x", 2),
        ("revoke", 2),
        ("revoke --serial 1 --ca SHA256:x", 2),
        ("revoke --key none.pub", 6),
        ("revoke --ledger none --serial 1", 2),
    ] {
        assert_eq!(run(&machine, line).code, code, "{line}");
    }
    assert_eq!(machine.run(&words("ledger revocations --format json")).json(), listed);
}

#[test]
fn a_list_is_replaced_only_by_a_newer_one_that_revokes_as_much() {
    let machine = Machine::new();
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    done(&machine, "revoke --serial 1");
    done(&machine, "revoke --serial 7-9 --not-in-ledger");
    done(&machine, "krl build -o list.krl --from-version 11");
    let good = fs::read(machine.path("list.krl")).unwrap();
    let other = ["SSHSM_LEDGER", "other.sqlite"];
    let with_other = |line: &str| {
        machine.with_environment(&words(line), &[(other[0], other[1]), ("SSHSM_PASSWORD", "password")])
    };
    assert_eq!(with_other(&format!("{SIGN} -z + user.pub")).code, 0);
    assert_eq!(with_other("revoke --serial 1").code, 0);
    for (line, told) in [
        ("krl build -o list.krl", "number 11, and the new one only 1"),
        ("krl build -o list.krl --from-version 12", "revokes serial number 7-9 of CA SHA256:"),
    ] {
        let kept = with_other(line);
        assert!(kept.code == 6 && kept.stderr.contains(told), "{kept:?}");
        assert_eq!(fs::read(machine.path("list.krl")).unwrap(), good);
    }
    // Neither over a private key, nor a list for sshd that is text, nor through a link.
    machine
        .write("keys", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\n");
    std::os::unix::fs::symlink("nowhere", machine.path("link")).unwrap();
    for file in ["timestamp", "keys", "link"] {
        let before = fs::read(machine.path(file)).ok();
        let kept = run(&machine, &format!("krl build -o {file}"));
        assert!(kept.code == 6 && kept.stderr.contains("--replace"), "{kept:?}");
        assert_eq!(fs::read(machine.path(file)).ok(), before);
    }
    assert_eq!(with_other("krl build -o list.krl --replace").code, 0);
    done(&machine, "krl build -o list.krl");
    assert_eq!(with_other("krl build -o list.krl").code, 6);
}

#[test]
fn a_revocation_makes_no_ledger_of_a_mistyped_name() {
    let machine = Machine::new();
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let mistyped = |more: &str| {
        let line = format!("--ledger leger.sqlite revoke --key user.pub{more}");
        run(&machine, &line)
    };
    for refused in [mistyped(""), run(&machine, "--ledger leger.sqlite revoke --undo 1")] {
        assert_eq!(refused.code, 6, "{refused:?}");
        assert!(refused.stderr.contains("there is no ledger leger.sqlite"), "{refused:?}");
        assert!(refused.stderr.contains("--new-ledger"), "{refused:?}");
        assert!(!machine.path("leger.sqlite").exists());
    }
    let made = mistyped(" --new-ledger");
    assert!(made.code == 0 && made.stderr.contains("a new ledger was made"), "{made:?}");
    assert_eq!(mistyped("").code, 0);
    // A ledger that was not named for the call cannot be mistyped in it, and its creation is announced.
    let fresh = Machine::new();
    fresh.new_key("user", machine::ed25519(1));
    for ledger in [None, Some(("SSHSM_LEDGER", "named.sqlite"))] {
        let made = fresh.with_environment(&words("revoke --key user.pub"), ledger.as_slice());
        assert!(made.code == 0 && made.stderr.contains("a new ledger was made"), "{made:?}");
    }
}

/// A post-quantum CA key, which OpenSSH knows from version 10.3 or not at all: it refuses the whole list then.
#[test]
fn a_list_that_not_every_server_can_read_is_announced_wherever_one_is_made() {
    let vector = needs!(shared_vector("openssh-mldsa/user-mldsa-cert.pub"));
    let machine = Machine::new();
    fs::copy(vector, machine.path("rare-cert.pub")).unwrap();
    let warning = "WARNING: not every OpenSSH knows the type of the CA key SHA256:";
    let revoked = run(&machine, "revoke --certificate rare-cert.pub --unverified");
    assert!(revoked.code == 0 && revoked.stderr.contains(warning), "{revoked:?}");
    for _ in 0..2 {
        let built = run(&machine, "krl build -o list.krl");
        assert!(built.code == 0 && built.stderr.contains(warning), "{built:?}");
    }
    // What every server reads is not warned about.
    set_up(&machine);
    let usual = ["SSHSM_LEDGER", "usual.sqlite"];
    for line in [&format!("{SIGN} -z + user.pub"), "revoke --serial 1", "krl build -o usual.krl"] {
        let run = machine.with_environment(&words(line), &[(usual[0], usual[1])]);
        assert!(run.code == 0 && !run.stderr.contains("WARNING"), "{run:?}");
    }
}

/// Signs, and expects that nothing is written but an error of the ledger.
fn refuses(machine: &Machine, says: &str) {
    let _ = fs::remove_file(machine.path("user-cert.pub"));
    let run = run(machine, &format!("{SIGN} -z + user.pub"));
    assert_eq!(run.code, 6, "{run:?}");
    assert!(run.stderr.contains(says), "{says} in {run:?}");
    assert!(!machine.path("user-cert.pub").exists(), "{says}");
}

#[test]
fn what_is_no_ledger_is_left_alone() {
    let machine = Machine::new();
    set_up(&machine);
    let ledger = machine.path(".local/state/sshsm/ledger.sqlite");
    fs::create_dir_all(ledger.parent().unwrap()).unwrap();
    let text = "my poems\n".repeat(1000);
    fs::write(&ledger, &text).unwrap();
    refuses(&machine, "is not a ledger");
    assert_eq!(fs::read_to_string(&ledger).unwrap(), text);

    fs::remove_file(&ledger).unwrap();
    Connection::open(&ledger).unwrap().execute_batch("CREATE TABLE poems (line TEXT)").unwrap();
    refuses(&machine, "is not a ledger");

    fs::remove_file(&ledger).unwrap();
    done(&machine, &format!("{SIGN} -z + user.pub"));
    Connection::open(&ledger).unwrap().pragma_update(None, "user_version", 99).unwrap();
    refuses(&machine, "has version 99");
    assert_eq!(run(&machine, "ledger list").code, 6);
}

#[test]
fn a_damaged_ledger_signs_nothing() {
    let machine = Machine::new();
    set_up(&machine);
    let keys = "user.pub ".repeat(40);
    done(&machine, format!("{SIGN} -z + {keys}").trim_end());
    let ledger = machine.path(".local/state/sshsm/ledger.sqlite");
    let mut bytes = fs::read(&ledger).unwrap();
    let length = bytes.len();
    bytes[4096..length].fill(0x5a);
    fs::write(&ledger, bytes).unwrap();
    refuses(&machine, "is damaged");
    let check = run(&machine, "ledger check");
    assert!(
        check.code == 6 && check.stderr.contains("damaged") && check.stderr.contains("try:"),
        "{check:?}"
    );
}

#[test]
fn a_locked_ledger_signs_nothing_and_says_who_waits() {
    let machine = Machine::new();
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let ledger = Connection::open(machine.path(".local/state/sshsm/ledger.sqlite")).unwrap();
    ledger.execute_batch("BEGIN EXCLUSIVE").unwrap();
    refuses(&machine, "locked by another process");
    ledger.execute_batch("ROLLBACK").unwrap();
    done(&machine, &format!("{SIGN} -z + user.pub"));
    assert_eq!(serials(&list(&machine, "")), [1, 2]);
}

#[test]
fn a_ledger_that_may_not_be_written_signs_nothing() {
    let machine = Machine::new();
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    // No rights, not even root's, turn a directory or a file in /proc into a ledger.
    for (ledger, says) in [("/proc/self/ledger", "cannot open the ledger"), (".", "ledger")] {
        let run = run(&machine, &format!("{SIGN} --ledger {ledger} user.pub"));
        assert!(run.code == 6 && run.stderr.contains(says), "{run:?}");
    }
    let directory = machine.path(".local/state/sshsm");
    let set = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    fs::set_permissions(directory.join("ledger.sqlite"), fs::Permissions::from_mode(0o400)).unwrap();
    set(0o500);
    if fs::write(directory.join("x"), "").is_err() {
        refuses(&machine, "read-only");
        done(&machine, "ledger list");
    }
    set(0o700);
}

/// Runs with no file longer than so many blocks of 512 bytes, as on a disk that is full.
fn on_a_full_disk(machine: &Machine, blocks: u64, line: &str) -> Run {
    let inner = machine.command(&words(line));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args()).env_clear();
    shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.env("SSHSM_PASSWORD", "password").current_dir(machine.path("")).output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn on_a_full_disk_no_certificate_leaves_that_is_not_in_the_ledger() {
    let machine = Machine::with_device(&device());
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let ledger = machine.path(".local/state/sshsm/ledger.sqlite");
    for number in 0..30 {
        machine.new_key(&format!("key{number}"), machine::ed25519(number + 10));
    }
    let keys: Vec<_> = (0..30).map(|number| format!("key{number}.pub")).collect();
    let blocks = fs::metadata(&ledger).unwrap().len() / 512 + 8;
    let run = on_a_full_disk(&machine, blocks, &format!("{SIGN} -z + {}", keys.join(" ")));
    assert_eq!(run.code, 6, "{run:?}");
    assert!(run.stderr.contains("ledger"), "{run:?}");
    let issued = list(&machine, "--state issued");
    assert!((1..30).contains(&issued.len()), "{}", issued.len());
    let recorded: BTreeSet<_> = issued.iter().map(|entry| entry["certificate"].as_str().unwrap()).collect();
    for number in 0..30 {
        if let Ok(line) = fs::read_to_string(machine.path(&format!("key{number}-cert.pub"))) {
            assert!(recorded.contains(line.trim_end()), "key{number}");
        }
    }
    done(&machine, "ledger check");
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let all = serials(&list(&machine, ""));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

fn start(machine: &Machine, line: &str) -> Child {
    let mut command = machine.command(&words(line));
    command.env("SSHSM_PASSWORD", "password").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn eight_processes_take_1600_serial_numbers_and_none_twice() {
    let machine = Machine::with_device(&device());
    set_up(&machine);
    for process in 0..8 {
        machine.new_key(&format!("p{process}"), machine::ed25519(100 + process));
    }
    let signing = |process| format!("{SIGN} -z + {}", vec![format!("p{process}.pub"); 200].join(" "));
    let children: Vec<_> = (0..8).map(|process| start(&machine, &signing(process))).collect();
    children.into_iter().for_each(ended);
    let entries = list(&machine, "--state issued");
    let distinct: BTreeSet<_> = serials(&entries).into_iter().collect();
    assert_eq!(distinct, (1..=1600).collect());
    for entry in entries {
        let certificate = ssh_key::Certificate::from_openssh(entry["certificate"].as_str().unwrap()).unwrap();
        assert_eq!(certificate.serial(), entry["serial"].as_u64().unwrap());
    }
}

/// As a process leaves it that is killed between its first write and its commit.
#[test]
fn an_interrupted_change_is_undone_by_the_next_reader() {
    let machine = Machine::with_device(&device());
    set_up(&machine);
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let whole = machine.run(&words("ledger list --format json")).json();
    let ledger = machine.path(".local/state/sshsm/ledger.sqlite");
    let mut database = Connection::open(&ledger).unwrap();
    let transaction = database.transaction().unwrap();
    transaction.execute("UPDATE certificates SET key_id = 'half-done'", []).unwrap();
    transaction.cache_flush().unwrap();
    for end in ["", "-journal"] {
        fs::copy(format!("{}{end}", ledger.display()), machine.path(&format!("cut{end}"))).unwrap();
    }
    drop(transaction);
    let half_done = |name: &str| {
        let bytes = fs::read(machine.path(name)).unwrap();
        bytes.windows(9).any(|bytes| bytes == b"half-done")
    };
    assert!(half_done("cut"), "the change was on its way into the file");
    assert_eq!(machine.run(&words("--ledger cut ledger list --format json")).json(), whole);
    assert!(!half_done("cut") && !machine.path("cut-journal").exists());
}

#[test]
fn after_processes_were_killed_every_serial_number_is_a_certificate_or_an_explained_gap() {
    let machine = Machine::with_device(&device());
    set_up(&machine);
    done(&machine, "audit enable --force");
    let mut follower = start(&machine, "audit follow --interval 0.05");
    let signing = format!("{SIGN} -z + {}", ["user.pub"; 200].join(" "));
    // Three run to the end; the others are killed after times that differ from run to run.
    let steady: Vec<_> = (0..3).map(|_| start(&machine, &signing)).collect();
    for round in 0..12 {
        let mut victim = start(&machine, &signing);
        let mut random = [0; 1];
        getrandom::fill(&mut random).unwrap();
        thread::sleep(Duration::from_millis(200 + 2 * u64::from(random[0]) + 10 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    // Full logs make some of these fail; that is recorded.
    steady.into_iter().for_each(|child| drop(child.wait_with_output().unwrap()));
    follower.kill().unwrap();
    follower.wait().unwrap();
    let report = machine.run(&words("audit reconcile --format json"));
    assert_eq!(report.code, 0, "{report:?}");
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let lost = |finding: &Value| finding["finding"] != "unlogged";
    assert!(!report["findings"].as_array().unwrap().iter().any(lost), "{}", report["findings"]);
    let entries = list(&machine, "");
    let mut all = serials(&entries);
    all.sort_unstable();
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>(), "no number is missing or twice");
    let issued = entries.iter().filter(|entry| entry["state"] == "issued").count();
    let gaps = report["gaps"].as_array().unwrap();
    let explained: BTreeSet<_> = gaps.iter().map(|gap| gap["entry"].as_i64().unwrap()).collect();
    let open: Vec<_> = entries
        .iter()
        .filter(|entry| entry["state"] != "issued" && !explained.contains(&entry["entry"].as_i64().unwrap()))
        .collect();
    assert!(open.is_empty(), "{open:?} in {report}");
    assert_eq!(issued + gaps.len(), entries.len());
    let signed_and_lost = gaps
        .iter()
        .filter(|gap| gap["explanation"].as_str().unwrap().contains("the device signed, but"))
        .count();
    assert_eq!(report["signatures"].as_u64(), u64::try_from(issued + signed_and_lost).ok());
    assert!(gaps.iter().all(|gap| !gap["explanation"].as_str().unwrap().is_empty()));
    assert!(issued > 0);
    println!("{issued} issued, {} gaps, {signed_and_lost} signed and lost", gaps.len());
    assert!(run(&machine, "audit verify").stdout.contains("unbroken"));
}
