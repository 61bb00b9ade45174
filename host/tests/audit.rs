//! The journal of a device's log: kept whole, freed on the device only then, and every way in which log, journal and
//! ledger can contradict each other is found.
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
use serde_json::Value;

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

/// What a run that found something said.
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

/// Lines as they come, with a limit to the waiting.
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
    // Somebody else has the device.
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
    assert_eq!(absent.code, 3, "what was never there is not waited for: {absent:?}");
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
        assert_eq!(fs::read_to_string(&path).unwrap(), bad, "it is left as it is");
    }
    // What a crash left of a line is no line.
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
    assert_eq!(json(&machine, "audit log")["findings"].as_array().unwrap().len(), 0, "it is told once");
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
    // The same device, set back to what it was before: its log goes on from the same entry in another way.
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

    // A certificate whose signing nobody logged. Times are in seconds.
    let second = || thread::sleep(Duration::from_millis(1100));
    second();
    done(&machine, "audit disable");
    done(&machine, &format!("{SIGN} -z + user.pub"));
    second();
    let report = found(&machine, "audit reconcile");
    let unsigned = report["entries_without_signature"].as_array().unwrap();
    assert_eq!((unsigned.len(), &unsigned[0]["serial"]), (1, &4.into()), "{report}");
}
