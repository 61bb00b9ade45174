//! The journal of a device's log: stored whole, freed on the device only then, and every way in which log,
//! journal and ledger can contradict each other is detected.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use machine::{Machine, Run};
use rusqlite::{Connection, types::ValueRef};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const SIGN: &str = "sign -s 5 -t 10 --timestamp timestamp -I me -n alice -V +1h";

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

fn json(machine: &Machine, line: &str) -> Value {
    machine.run(&words(&format!("--format json {line}"))).json()
}

/// The output of a run with findings.
fn found(machine: &Machine, line: &str) -> Value {
    let run = machine.run(&words(&format!("--format json {line}")));
    assert_eq!(run.code, 1, "{run:?}");
    serde_json::from_str(&run.stdout).unwrap()
}

fn set_up() -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    done(&machine, "key generate --algorithm ed25519 --id 5");
    done(&machine, "template put t.toml --id 10");
    done(&machine, "audit enable");
    machine
}

fn journal(machine: &Machine) -> std::path::PathBuf {
    let serial = json(machine, "device info")["serial"].as_u64().unwrap();
    machine.path(&format!(".local/state/sshsm/audit-{serial:010}.jsonl"))
}

/// Lines as they arrive, with a time limit.
fn lines(from: impl Read + Send + 'static) -> impl Fn() -> String {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(from).lines().try_for_each(|line| sender.send(line.unwrap())));
    move || receiver.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn following_goes_on_when_the_device_comes_back() {
    let machine = set_up();
    let state = machine.path("device");
    let arguments = ["audit", "follow", "--interval", "0.05", "--format", "json"];
    let mut follow = machine
        .command(&arguments)
        .env("SSHSM_PASSWORD", "password")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, said) = (lines(follow.stdout.take().unwrap()), lines(follow.stderr.take().unwrap()));
    let entry = || serde_json::from_str::<Value>(&out()).unwrap()["command"].clone();
    while entry() != "reset" {}
    // Another process has the device.
    let taken = (0..5000).find_map(|_| {
        thread::sleep(Duration::from_millis(5));
        sshsm_simulator::Simulator::open(&state).start().ok()
    });
    assert!(taken.is_some());
    while !said().ends_with("; waiting for it") {}
    drop(taken);
    assert!((0..300).any(|_| run(&machine, &format!("{SIGN} user.pub")).code == 0), "between two looks");
    while entry() != "sign ssh certificate" {}
    follow.kill().unwrap();
    let _ = follow.wait().unwrap();

    let absent = machine.run(&["--device", "http://127.0.0.1:1", "audit", "follow"]);
    assert_eq!(absent.code, 3, "a device that was never there is not waited for: {absent:?}");
}

#[test]
fn what_is_stored_is_freed_and_the_chain_goes_on_from_call_to_call() {
    let machine = set_up();
    done(&machine, &format!("{SIGN} user.pub"));
    let first = json(&machine, "audit log --keep");
    let entries = first["entries"].as_array().unwrap();
    assert_eq!(entries[0]["command"], "reset");
    assert_eq!(
        json(&machine, "audit log --keep")["entries"].as_array().unwrap().len(),
        1,
        "the boot of this call"
    );
    done(&machine, "audit log");
    let used = json(&machine, "device info")["log_used"].as_u64().unwrap();
    assert!(used <= 2, "{used} entries are left");
    done(&machine, &format!("{SIGN} user.pub"));
    let next = json(&machine, "audit log");
    assert!(next["findings"].as_array().unwrap().is_empty());
    let signing = |value: &Value| {
        let entries = value["entries"].as_array().unwrap();
        entries.iter().filter(|entry| entry["command"] == "sign ssh certificate").cloned().collect::<Vec<_>>()
    };
    let signed = signing(&next);
    assert_eq!(signed.len(), 1);
    assert_eq!((signed[0]["target_key"].as_u64(), signed[0]["second_key"].as_u64()), (Some(5), Some(10)));
    assert_eq!(signed[0]["outcome"], "done");
    let verified = json(&machine, "audit verify");
    let exported = json(&machine, "audit export");
    let exported = exported.as_array().unwrap();
    assert_eq!(verified["entries"].as_u64(), Some(exported.len() as u64));
    let numbers: Vec<_> = exported.iter().map(|entry| entry["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(done(&machine, "audit export").stdout.starts_with("number,command,"));
    let ledger = json(&machine, "ledger list");
    let audited: Vec<_> =
        ledger.as_array().unwrap().iter().map(|entry| entry["audit_entry"].clone()).collect();
    assert_eq!(audited, [signing(&first)[0]["number"].clone(), signed[0]["number"].clone()]);
}

#[test]
fn an_entry_that_was_changed_or_taken_out_breaks_the_journal() {
    let machine = set_up();
    done(&machine, "audit log");
    done(&machine, "audit log");
    let path = journal(&machine);
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = good.lines().collect();
    let without = |at: usize| {
        let kept = lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n") + "\n"
    };
    for (bad, says) in [
        (good.replace("\"systick\":0", "\"systick\":1"), "broken at line"),
        (without(2), "broken at line 3"),
        (without(0), "line 1"),
        (good.replace("\"line\":\"entry\"", "\"line\":\"poem\""), "line 2"),
        (format!("{good}no json\n"), "makes no sense"),
    ] {
        fs::write(&path, &bad).unwrap();
        for line in ["audit verify", "audit log"] {
            let run = run(&machine, line);
            assert!(run.code == 1 && run.stderr.contains(says), "{line}: {run:?}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad, "it is not changed");
    }
    // The part of a line left by a crash is not a line.
    fs::write(&path, format!("{good}{{\"line\":\"entry\",\"num")).unwrap();
    done(&machine, "audit verify");
    done(&machine, "audit log");
    assert!(fs::read_to_string(&path).unwrap().starts_with(&good));
    done(&machine, "audit verify");
}

#[test]
fn entries_that_were_overwritten_are_a_gap_that_is_remembered() {
    let machine = set_up();
    done(&machine, "audit log");
    let last = json(&machine, "audit verify")["last_entry"].as_u64().unwrap();
    done(&machine, &format!("{SIGN} {}", ["user.pub"; 70].join(" ")));
    let report = found(&machine, "audit log");
    assert_eq!(
        (&report["findings"][0]["finding"], &report["findings"][0]["after"]),
        (&"gap".into(), &last.into())
    );
    assert_eq!(report["entries"].as_array().unwrap().len(), 62);
    assert_eq!(json(&machine, "audit log")["findings"].as_array().unwrap().len(), 0, "it is reported once");
    assert_eq!(found(&machine, "audit verify")["findings"].as_array().unwrap().len(), 1, "and remembered");
    thread::sleep(Duration::from_millis(1100)); // times are in seconds
    let reconciled = found(&machine, "audit reconcile");
    assert!(
        !reconciled["entries_without_signature"].as_array().unwrap().is_empty(),
        "their signatures are lost"
    );
}

#[test]
fn a_reset_device_begins_a_new_log_behind_a_finding() {
    let machine = set_up();
    done(&machine, "audit log");
    done(&machine, "device reset --delete-everything");
    let report = found(&machine, "audit log");
    assert_eq!(report["findings"][0]["finding"], "reset");
    assert_eq!(report["entries"][0]["command"], "reset");
    assert_eq!(json(&machine, "audit log")["findings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_log_that_contradicts_the_journal_is_stored_only_when_that_is_wanted() {
    let machine = set_up();
    done(&machine, "audit log");
    let path = journal(&machine);
    // The same device, restored to an earlier state: its log continues from the same entry in a different
    // way.
    let device = machine.path("device/flash.bin");
    let before = fs::read(&device).unwrap();
    done(&machine, &format!("{SIGN} user.pub user.pub user.pub"));
    done(&machine, "audit log");
    fs::write(&device, before).unwrap();
    done(&machine, &format!("{} {}", SIGN.replace("-I me", "-I somebody"), ["user.pub"; 5].join(" ")));
    let good = fs::read(&path).unwrap();
    let run = run(&machine, "audit log");
    assert!(run.code == 1 && run.stderr.contains("contradicts"), "{run:?}");
    assert_eq!(fs::read(&path).unwrap(), good);
    let used = json(&machine, "device info")["log_used"].as_u64().unwrap();
    assert!(used > 5, "nothing was freed: {used}");
    assert_eq!(found(&machine, "audit log --accept-break")["findings"][0]["finding"], "broken");
    done(&machine, "audit log");
}

#[test]
fn a_journal_is_of_one_device() {
    let (one, other) = (set_up(), Machine::new());
    done(&one, "audit log --journal j");
    fs::copy(one.path("j"), other.path("j")).unwrap();
    let run = run(&other, "audit log --journal j");
    assert!(run.code == 1 && run.stderr.contains("is that of device"), "{run:?}");
    assert_eq!(self::run(&other, "audit verify --journal none").code, 6);
}

#[test]
fn reconciling_names_signatures_without_entry_and_entries_without_signature() {
    let machine = set_up();
    done(&machine, "audit log");
    done(&machine, &format!("{SIGN} -z + user.pub user.pub"));
    assert_eq!(run(&machine, &format!("{} -z + user.pub", SIGN.replace("alice", "root"))).code, 5);
    let report = json(&machine, "audit reconcile");
    assert_eq!((&report["signatures"], &report["matched"]), (&2.into(), &2.into()));
    assert_eq!((&report["gaps"][0]["serial"], &report["gaps"][0]["state"]), (&3.into(), &"refused".into()));
    assert!(report["gaps"][0]["audit_entry"].is_u64(), "{report}");

    done(&machine, &format!("{SIGN} --ledger none user.pub"));
    let report = found(&machine, "audit reconcile");
    assert_eq!(report["signatures_without_entry"].as_array().unwrap().len(), 1, "{report}");
    let told = run(&machine, "audit reconcile --offline");
    assert!(told.code == 1 && told.stdout.contains("without an entry in the ledger"), "{told:?}");

    // A certificate whose signing was not logged. Times are in seconds.
    let second = || thread::sleep(Duration::from_millis(1100));
    second();
    done(&machine, "audit disable");
    done(&machine, &format!("{SIGN} -z + user.pub"));
    second();
    let report = found(&machine, "audit reconcile");
    let unsigned = report["entries_without_signature"].as_array().unwrap();
    assert_eq!((unsigned.len(), &unsigned[0]["serial"]), (1, &4.into()), "{report}");
}

/// The description of the journal's chain in docs/ledger.md, read without the program's own code: whether it
/// is intact, and the ledgers that it names.
fn journal_holds(text: &str) -> Option<Vec<(String, i64, String)>> {
    let (mut before, mut ledgers) = ([0; 32].to_vec(), Vec::new());
    for line in text.lines() {
        let (said, link) = line.split_once(",\"link\":\"")?;
        before = Sha256::new().chain_update(&before).chain_update(said).finalize().to_vec();
        if link != format!("{}\"}}", hex(&before)) {
            return None;
        }
        let line: Value = serde_json::from_str(line).ok()?;
        if line["line"] == "ledger" {
            let text = |name: &str| line[name].as_str().map(str::to_owned);
            ledgers.push((text("id")?, line["events"].as_i64()?, text("head")?));
        }
    }
    Some(ledgers)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same for the ledger: its id and the link of each event, if the chain is intact and each certificate is
/// as last recorded.
fn ledger_holds(database: &Connection) -> Option<(String, Vec<String>)> {
    let mut statement =
        database.prepare("SELECT id, at, about, row, content, link FROM events ORDER BY id").unwrap();
    type Event = (i64, i64, String, i64, String, String);
    let events = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .unwrap()
        .collect::<Result<Vec<Event>, _>>()
        .unwrap();
    let (mut before, mut last, mut links) = (vec![0; 32], std::collections::BTreeMap::new(), Vec::new());
    for (place, (id, at, about, row, content, link)) in (1..).zip(events) {
        let event = serde_json::json!([id, at, about, row, content]).to_string();
        before = Sha256::new().chain_update(&before).chain_update(event).finalize().to_vec();
        if id != place || link != hex(&before) {
            return None;
        }
        links.push(link);
        if about == "certificate" {
            last.insert(row, content);
        }
    }
    let mut statement = database
        .prepare(
            "SELECT certificates.*, fingerprint FROM certificates JOIN authorities ON authorities.id = authority \
             ORDER BY certificates.id",
        )
        .unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let value = |column| match row.get_ref(column).unwrap() {
            ValueRef::Integer(number) => Value::from(number),
            ValueRef::Text(text) => Value::from(str::from_utf8(text).unwrap()),
            _ => Value::Null,
        };
        let mut values: Vec<_> = (0..columns).map(value).collect();
        // The CA is represented by its fingerprint.
        values[1] = values.pop()?;
        let id = values[0].as_i64()?;
        if last.remove(&id)? != hex(&Sha256::digest(Value::from(values).to_string())) {
            return None;
        }
    }
    let id = database.query_row("SELECT id FROM identity", [], |row| row.get(0)).unwrap();
    last.is_empty().then_some((id, links))
}

fn ledger(machine: &Machine) -> Connection {
    Connection::open(machine.path(".local/state/sshsm/ledger.sqlite")).unwrap()
}

#[test]
fn a_second_reader_finds_both_chains_as_the_documents_describe_them() {
    let machine = set_up();
    done(&machine, &format!("{SIGN} -z + user.pub user.pub"));
    done(&machine, "audit log");
    assert_eq!(run(&machine, &format!("{} -z + user.pub", SIGN.replace("alice", "root"))).code, 5);
    done(&machine, "revoke --serial 1");
    done(&machine, "audit log");
    let text = fs::read_to_string(journal(&machine)).unwrap();
    let told = journal_holds(&text).unwrap();
    let database = ledger(&machine);
    let (id, links) = ledger_holds(&database).unwrap();
    assert_eq!(told.len(), 2, "a line for each state of the ledger");
    for (known, events, head) in told {
        assert_eq!(
            (known.as_str(), links[usize::try_from(events).unwrap() - 1].as_str()),
            (id.as_str(), head.as_str())
        );
    }
    let verified = json(&machine, "audit verify");
    let row = database
        .query_row("SELECT lines, link FROM journals", [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
    let (lines, link): (i64, String) = row.unwrap();
    assert_eq!(verified["lines"].as_i64(), Some(lines));
    assert_eq!(verified["last_link"].as_str(), Some(link.as_str()));
    // And it finds what this program finds.
    assert_eq!(journal_holds(&text.replacen("\"outcome\":\"done\"", "\"outcome\":\"odd\"", 1)), None);
    database.execute("UPDATE certificates SET asked_by = 'bob@elsewhere' WHERE id = 1", []).unwrap();
    assert_eq!(ledger_holds(&database), None);
}

#[test]
fn a_signature_without_the_ledger_never_passes_for_another_certificate_or_an_unsent_request() {
    let machine = set_up();
    machine.write("pw", "password");
    done(
        &machine,
        "authentication-key put --id 2 --capabilities sign-ssh-certificate,get-template --new-password-file pw \
         --allow-weak-password",
    );
    for key in ["", " --auth-key 2"] {
        done(&machine, "audit disable");
        done(&machine, &format!("{SIGN}{key} -z + user.pub user.pub"));
        done(&machine, "audit enable");
        let lost = format!(
            "{}{key} -z + user.pub",
            SIGN.replace("--timestamp timestamp", "--timestamp http://127.0.0.1:9")
        );
        assert_ne!(run(&machine, &lost).code, 0, "nothing reaches the device");
        let before = run(&machine, "audit reconcile");
        assert!(before.stdout.contains("the request was not sent"), "{before:?}");
        done(&machine, &format!("{SIGN}{key} --ledger none user.pub"));
        let report = found(&machine, "audit reconcile");
        let without = report["signatures_without_entry"].as_array().unwrap();
        assert_eq!(without.len(), if key.is_empty() { 1 } else { 2 }, "{report}");
    }
}

#[test]
fn a_journal_that_is_gone_or_cut_is_missed() {
    let machine = set_up();
    done(&machine, &format!("{SIGN} -z + user.pub"));
    done(&machine, "audit log");
    let path = journal(&machine);
    let early = fs::read_to_string(&path).unwrap();
    done(&machine, &format!("{SIGN} --ledger none user.pub"));
    done(&machine, "audit log");
    let lines = ["audit log", "audit verify", "audit reconcile", "audit reconcile --offline"];
    fs::remove_file(&path).unwrap();
    for line in lines {
        assert_ne!(run(&machine, line).code, 0, "{line}");
    }
    assert!(!path.exists(), "and none is made");
    fs::write(&path, early).unwrap();
    for line in lines {
        let run = run(&machine, line);
        assert!(run.code == 1 && run.stderr.contains("the ledger"), "{line}: {run:?}");
    }
    // It can be continued, and that is reported permanently.
    fs::remove_file(&path).unwrap();
    let report = found(&machine, "audit log --accept-break");
    let findings: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|found| &found["finding"]).collect();
    assert_eq!(findings, ["replaced", "beginning"]);
    done(&machine, "audit log");
    assert_eq!(found(&machine, "audit verify")["findings"].as_array().unwrap().len(), 2);
}

#[test]
fn a_ledger_that_was_made_anew_from_an_older_copy_is_found_by_the_journal() {
    let machine = set_up();
    done(&machine, &format!("{SIGN} -z + user.pub"));
    let path = machine.path(".local/state/sshsm/ledger.sqlite");
    let early = fs::read(&path).unwrap();
    done(&machine, &format!("{SIGN} -z + user.pub"));
    done(&machine, "audit log");
    fs::write(&path, early).unwrap();
    for line in ["audit verify", "audit reconcile", "audit log"] {
        let run = run(&machine, line);
        assert!(
            run.code == 1 && run.stderr.contains("is not the ledger that the journal"),
            "{line}: {run:?}"
        );
    }
}

#[test]
fn a_row_that_was_changed_copied_or_removed_is_found() {
    let machine = set_up();
    done(&machine, &format!("{SIGN} -z + user.pub user.pub"));
    done(&machine, &format!("{SIGN} --ledger none user.pub"));
    let path = machine.path(".local/state/sshsm/ledger.sqlite");
    let good = fs::read(&path).unwrap();
    done(&machine, "ledger check");
    for change in [
        "UPDATE certificates SET key_id = 'bob' WHERE id = 1",
        "UPDATE certificates SET valid_before = valid_after WHERE id = 1",
        "UPDATE certificates SET asked_by = 'bob@elsewhere' WHERE id = 1",
        "DELETE FROM certificates WHERE id = 2",
        "UPDATE certificates SET certificate = (SELECT certificate FROM certificates WHERE id = 1) WHERE id = 2",
        "CREATE TEMP TABLE copy AS SELECT * FROM certificates WHERE id = 1; UPDATE copy SET id = 3, counted = 0; \
         INSERT INTO certificates SELECT * FROM copy",
    ] {
        ledger(&machine).execute_batch(change).unwrap();
        let checked = run(&machine, "ledger check");
        assert!(
            checked.code == 1 && checked.stderr.contains("is not what was recorded"),
            "{change}: {checked:?}"
        );
        assert_eq!(run(&machine, "audit reconcile").code, 1, "{change}");
        fs::write(&path, &good).unwrap();
    }
    done(&machine, "ledger check");
}

#[test]
fn who_asked_is_the_user_of_the_process_and_not_what_its_environment_says() {
    let machine = set_up();
    let mut command = machine.command(&words(&format!("{SIGN} -z + user.pub")));
    command.env("SSHSM_PASSWORD", "password").envs([("USER", "nobody-else"), ("LOGNAME", "nobody-else")]);
    assert!(command.output().unwrap().status.success());
    assert_eq!(json(&machine, "ledger list")[0]["asked_by"], sshsm_ca::ledger::whoami());
    assert!(!sshsm_ca::ledger::whoami().contains("nobody-else"));
}

#[test]
fn the_quickstart_signs_through_the_ledger() {
    let machine = Machine::new();
    done(&machine, "--ledger q.sqlite quickstart q");
    let listed = json(&machine, "--ledger q.sqlite ledger list");
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|entry| &entry["state"]).collect();
    assert_eq!(states, ["issued", "refused"]);
    let line = fs::read_to_string(machine.path("q/user-cert.pub")).unwrap();
    assert_eq!(listed[0]["certificate"], line.trim_end());
}

#[test]
fn what_was_revoked_is_listed_so_and_can_be_taken_back_and_a_mistyped_number_revokes_nothing() {
    let machine = set_up();
    done(&machine, &format!("{SIGN} -z + user.pub"));
    for line in ["revoke --serial 7", "revoke --key-id nobody"] {
        let run = run(&machine, line);
        assert!(run.code == 2 && run.stderr.contains("--not-in-ledger"), "{run:?}");
    }
    done(&machine, "revoke --serial 7 --not-in-ledger");
    done(&machine, "revoke --serial 1");
    assert!(done(&machine, "ledger list").stdout.contains("revoked"));
    assert_eq!(json(&machine, "ledger list")[0]["revocation"], 2);
    done(&machine, "krl build -o list");
    let refused = |machine: &Machine| {
        let mut keygen = std::process::Command::new("ssh-keygen");
        keygen.args(["-Q", "-f", "list", "user-cert.pub"]).current_dir(machine.path(""));
        !keygen.output().unwrap().status.success()
    };
    assert!(refused(&machine));
    done(&machine, "revoke --undo 2");
    assert_eq!(run(&machine, "revoke --undo 2").code, 2, "once");
    assert_eq!(json(&machine, "ledger list")[0]["revocation"], Value::Null);
    assert!(json(&machine, "ledger revocations")[1]["undone_at"].is_i64());
    done(&machine, "krl build -o list --replace");
    assert!(!refused(&machine));
    done(&machine, "ledger check");
    done(&machine, "revoke --serial 1");
    assert_eq!(json(&machine, "ledger list")[0]["revocation"], 3, "and revoked again");
}
