//! `sshsm sign` of many keys: over several devices, with failures between, and once more.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{collections::BTreeSet, fs, io::Read, net::TcpListener, thread};

use machine::{Machine, ed25519};
use ssh_key::{LineEnding, PrivateKey};
use sshsm_simulator::Simulator;

/// Devices that serve HTTP, with the same CA key 5 and template 10.
struct Devices {
    machine: Machine,
    addresses: Vec<String>,
    _served: Vec<sshsm_simulator::Served>,
}

fn devices(count: usize) -> Devices {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    let ca = PrivateKey::new(ed25519(7), "ca").unwrap();
    machine.write("ca", &ca.to_openssh(LineEnding::LF).unwrap());
    fs::set_permissions(machine.path("ca"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let served: Vec<_> = (0..count)
        .map(|number| Simulator::memory().serial(u32::try_from(number).unwrap() + 1).start().unwrap())
        .map(|device| device.serve().unwrap())
        .collect();
    let addresses: Vec<_> = served.iter().map(|device| device.url()).collect();
    for address in &addresses {
        for line in ["key import ca --id 5", "template put t.toml --id 10"] {
            let line: Vec<_> = line.split(' ').chain(["--device", address]).collect();
            let run = machine.run(&line);
            assert_eq!(run.code, 0, "{run:?}");
        }
    }
    Devices { machine, addresses, _served: served }
}

/// Writes the public keys `0.pub` to `count - 1.pub`; returns their names.
fn keys(machine: &Machine, count: u8) -> Vec<String> {
    (0..count)
        .map(|number| {
            machine.new_key(&number.to_string(), ed25519(number));
            format!("{number}.pub")
        })
        .collect()
}

const SIGN: &str = "sign -s 5 -t 10 --timestamp timestamp -I me -n a -V +1h -z +100 --format json";

fn sign(extra: &[&str], keys: &[String]) -> Vec<String> {
    SIGN.split(' ').chain(extra.iter().copied()).map(str::to_owned).chain(keys.iter().cloned()).collect()
}

#[test]
fn devices_with_the_same_ca_key_share_the_work_and_the_results_are_in_order() {
    let devices = devices(3);
    let keys = keys(&devices.machine, 60);
    let named: Vec<_> = devices.addresses.iter().flat_map(|address| ["--device", address]).collect();
    let report = devices.machine.run(&sign(&[&named[..], &["--jobs", "6"]].concat(), &keys)).json();
    let outcomes = report["keys"].as_array().unwrap();
    let told: Vec<_> = outcomes.iter().map(|outcome| outcome["key"].as_str().unwrap()).collect();
    assert_eq!(told, keys);
    let serials: Vec<_> = outcomes.iter().map(|outcome| outcome["serial"].as_u64().unwrap()).collect();
    assert_eq!(serials, (100..160).collect::<Vec<_>>());
    let used: BTreeSet<_> = outcomes.iter().map(|outcome| outcome["device"].as_str().unwrap()).collect();
    assert_eq!(used.len(), 3, "{used:?}");
}

#[test]
fn a_device_that_goes_away_loses_no_more_than_its_key_and_the_rest_is_resumed() {
    let devices = devices(1);
    let machine = &devices.machine;
    let keys = keys(machine, 30);
    // Answers a few requests, and then nothing: the device behind it was unplugged.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().take(1) {
            let _ = stream.unwrap().read(&mut [0; 10]);
        }
    });
    let both = ["--device", &devices.addresses[0], "--device", &broken];
    let run = machine.run(&sign(&both, &keys));
    assert_eq!(run.code, 0, "the other device signs all: {run:?}");
    assert!(run.stderr.contains(&broken), "{run:?}");

    for gone in ["3-cert.pub", "17-cert.pub"] {
        fs::remove_file(machine.path(gone)).unwrap();
    }
    fs::copy(machine.path("5-cert.pub"), machine.path("4-cert.pub")).unwrap();
    let resume = machine.run(&sign(&["--resume", "--device", &devices.addresses[0]], &keys)).json();
    let signed: Vec<_> =
        resume["keys"].as_array().unwrap().iter().filter(|key| key["result"] == "signed").collect();
    let signed: Vec<_> = signed.iter().map(|key| key["key"].as_str().unwrap()).collect();
    assert_eq!(
        signed,
        ["3.pub", "4.pub", "17.pub"],
        "those without a certificate, and the one with another's"
    );
}

#[test]
fn a_refused_key_does_not_keep_the_others_from_being_signed() {
    let devices = devices(1);
    let machine = &devices.machine;
    let keys = keys(machine, 3);
    fs::write(machine.path("1.pub"), machine::oversized_key()).unwrap();
    let run = machine.run(&sign(&["--device", &devices.addresses[0]], &keys));
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("1 of 3 keys were not signed"), "{run:?}");
    assert!(machine.path("0-cert.pub").exists() && machine.path("2-cert.pub").exists());
}

#[test]
fn devices_with_other_ca_keys_do_not_sign_in_one_call() {
    let devices = devices(2);
    let machine = &devices.machine;
    let other = &devices.addresses[1];
    for line in ["key delete 5", "key generate --algorithm ed25519 --id 5"] {
        let line: Vec<_> = line.split(' ').chain(["--device", other]).collect();
        assert_eq!(machine.run(&line).code, 0);
    }
    let keys = keys(machine, 4);
    let run = machine.run(&sign(&["--device", &devices.addresses[0], "--device", other], &keys));
    assert!(run.stderr.contains("nothing was signed with it"), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let used: BTreeSet<_> =
        report["keys"].as_array().unwrap().iter().map(|key| key["device"].as_str().unwrap()).collect();
    assert_eq!(used.len(), 1, "{used:?}");
}

#[test]
fn other_commands_are_about_one_device() {
    let run = Machine::new().run(&["--device", "sim:a", "--device", "sim:b", "device", "info"]);
    assert!(run.code == 2 && run.stderr.contains("one --device"), "{run:?}");
}

#[test]
fn a_file_that_is_not_a_key_does_not_keep_the_others_from_being_signed() {
    let devices = devices(1);
    let machine = &devices.machine;
    let mut keys = keys(machine, 3);
    machine.write("bad.pub", "this is not a key\n");
    keys.insert(1, "bad.pub".into());
    machine.write("empty.pub", "");
    keys.push("empty.pub".into());
    let run = machine.run(&sign(&["--device", &devices.addresses[0]], &keys));
    assert!(run.code != 0, "{run:?}");
    assert!(run.stderr.contains("2 of 5 keys were not signed"), "{run:?}");
    assert!(
        run.stderr.contains("bad.pub not signed") && run.stderr.contains("empty.pub not signed"),
        "{run:?}"
    );
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let results: Vec<_> =
        report["keys"].as_array().unwrap().iter().map(|key| key["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["signed", "failed", "signed", "signed", "failed"]);
    // The one that is bad has taken its serial number with it.
    assert_eq!((&report["keys"][0]["serial"], &report["keys"][2]["serial"]), (&100.into(), &102.into()));
}

#[test]
fn certificates_among_the_keys_are_left_out_when_a_call_is_resumed_and_named_otherwise() {
    let devices = devices(1);
    let machine = &devices.machine;
    let keys = keys(machine, 2);
    let device = ["--device", &devices.addresses[0]];
    assert_eq!(machine.run(&sign(&device, &keys)).code, 0);
    // As `*.pub` has it.
    let all = ["0-cert.pub", "0.pub", "1-cert.pub", "1.pub"].map(str::to_owned);
    let resumed = machine.run(&sign(&[&device[..], &["--resume"]].concat(), &all));
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert!(resumed.stderr.contains("0-cert.pub is a certificate: skipped"), "{resumed:?}");
    let report = resumed.json();
    let results: Vec<_> =
        report["keys"].as_array().unwrap().iter().map(|key| key["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["kept", "kept"]);
    let named = machine.run(&sign(&device, &all));
    assert!(named.code != 0 && named.stderr.contains("is a certificate, not a key"), "{named:?}");
    assert!(named.stderr.contains("--resume") && named.stderr.contains("2 of 4 keys"), "{named:?}");
}

#[test]
fn a_certificate_is_kept_only_when_it_says_all_that_is_asked_for_now_and_is_not_revoked() {
    let devices = devices(1);
    let machine = &devices.machine;
    let keys = keys(machine, 1);
    let device = &devices.addresses[0];
    let sign = |more: &str| {
        let line =
            format!("sign -s 5 -t 10 --timestamp timestamp --resume --format json --device {device} {more}");
        let words: Vec<_> = line.split(' ').map(str::to_owned).chain(keys.clone()).collect();
        machine.run(&words).json()["keys"][0]["result"].as_str().unwrap().to_owned()
    };
    let base = "-I me -n a -V +1h -z 7 -O no-pty";
    assert_eq!([base, base].map(sign), ["signed", "kept"]);
    for other in [
        "-I me -n a -V +1h -z 7 -O no-pty -O force-command=true",
        "-I me -n a -V +1h -z 7",
        "-I me -n a -V +1h -z 7 -O clear",
        "-I me -n a -V +1h -z 7 -O no-pty -O extension:x@example.com=1",
        "-I me -n a -V +2h -z 7 -O no-pty",
        "-I me -n a -V +5m -z 7 -O no-pty",
        "-I me -n a,b -V +1h -z 7 -O no-pty",
        "-I you -n a -V +1h -z 7 -O no-pty",
        "-I me -n a -V +1h -z 8 -O no-pty",
        "-h -I me -n a -V +1h -z 7",
    ] {
        assert_eq!([other, other].map(sign), ["signed", "kept"], "{other}");
        assert_eq!(sign(base), "signed", "after {other}");
    }
    assert_eq!(sign("-I me -n a -V +1h -O no-pty"), "kept", "any serial number will do where none is given");
    for revoke in ["--serial 7", "--key-id me", "--key 0.pub"] {
        let words: Vec<_> = ["revoke"].into_iter().chain(revoke.split(' ')).collect();
        let run = machine.run(&words);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(sign(base), "signed", "{revoke}");
    }
}

#[test]
fn more_jobs_than_a_simulator_serves_are_not_an_error() {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    for line in ["key generate --algorithm ed25519 --id 5", "template put t.toml --id 10"] {
        assert_eq!(machine.run(&line.split(' ').collect::<Vec<_>>()).code, 0);
    }
    let run = machine.run(&sign(&["--jobs", "4"], &keys(&machine, 6)));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!run.stderr.contains("error") && !run.stderr.contains("simulator"), "{run:?}");
}
