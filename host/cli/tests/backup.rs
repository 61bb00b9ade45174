//! `sshsm backup`: from one device to another, with any m of n shares and never with fewer; damage is
//! refused, and objects that stay are named.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use machine::{Machine, Run};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A machine with the device `first`: CA key 5, template 10, authentication key 2 that signs, and key 6 that stays.
fn machine() -> Machine {
    let machine = Machine::with_device("sim:first");
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("alice", machine::ed25519(3));
    for line in [
        "key generate --algorithm p256 --id 5 --label CA --exportable",
        "key generate --algorithm ed25519 --id 6 --label stays",
        "template put t.toml --id 10 --exportable",
        "authentication-key put --id 2 --capabilities sign-ssh-certificate,get-template,exportable-under-wrap",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let run = machine.with_environment(&words, &[("SSHSM_NEW_PASSWORD", "battery staple")]);
        assert_eq!(run.code, 0, "{run:?}");
    }
    machine
}

fn run(machine: &Machine, line: &str) -> Run {
    machine.run(&line.split(' ').collect::<Vec<_>>())
}

/// Backs up `first` to `backup.json` and the shares to `share-1` to `share-3`, of which 2 are needed.
fn back_up(machine: &Machine) -> Value {
    let made = run(machine, "backup create backup.json --format json").json();
    for share in made["shares"].as_array().unwrap() {
        machine.write(&format!("share-{}", share["number"]), share["text"].as_str().unwrap());
    }
    made
}

fn outcomes(document: &Value) -> Vec<(String, u64, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let objects = document["objects"].as_array().unwrap();
    objects.iter().map(|o| (text(&o["type"]), o["id"].as_u64().unwrap(), text(&o["outcome"]))).collect()
}

fn with_outcomes(ca: &str, template: &str, signer: &str) -> Vec<(String, u64, String)> {
    [
        ("authentication-key", 1, "unverified"), // the factory's password is on every device
        ("authentication-key", 2, signer),
        ("asymmetric-key", 5, ca),
        ("template", 10, template),
    ]
    .map(|(object_type, id, outcome)| (object_type.to_owned(), id, outcome.to_owned()))
    .to_vec()
}

/// Has `device` sign alice's key as the signer of the backup; returns the output of `ssh-keygen -L`, without
/// the date.
fn signed(machine: &Machine, device: &str) -> String {
    let line = format!(
        "--device {device} --auth-key 2 sign -s 5 -t 10 -I alice -n alice -V +8h --timestamp-key timestamp alice.pub"
    );
    let words: Vec<_> = line.split(' ').collect();
    let run = machine.with_environment(&words, &[("SSHSM_PASSWORD", "battery staple")]);
    assert_eq!(run.code, 0, "{run:?}");
    let refused = line.replace("-n alice", "-n root");
    let words: Vec<_> = refused.split(' ').collect();
    let run = machine.with_environment(&words, &[("SSHSM_PASSWORD", "battery staple")]);
    assert_eq!(run.code, 5, "{run:?}");
    let output = Command::new("ssh-keygen").arg("-Lf").arg(machine.path("alice-cert.pub")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.contains("Valid:")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_second_device_signs_as_the_first_did() {
    let machine = machine();
    let made = back_up(&machine);
    assert_eq!(made["wrap_key"], json!({"state": "deleted"}));
    let dry = "--device sim:second backup restore backup.json --dry-run";
    assert_eq!(run(&machine, dry).code, 3, "a dry run creates nothing");
    machine.make_device("second");
    let plan = run(&machine, "--device sim:second backup restore backup.json --dry-run --format json").json();
    assert_eq!(outcomes(&plan), with_outcomes("to-import", "to-import", "to-import"));

    let restore = "--device sim:second backup restore backup.json --share-file share-3 --share-file share-1 --format json";
    let restored = run(&machine, restore).json();
    assert_eq!(outcomes(&restored), with_outcomes("imported", "imported", "imported"));
    assert_eq!(restored["wrap_key"], json!({"state": "deleted"}));
    assert_eq!(signed(&machine, "sim:first"), signed(&machine, "sim:second"));
    for device in ["sim:first", "sim:second"] {
        let list = run(&machine, &format!("--device {device} key list")).stdout;
        assert!(!list.contains("wrap-key"), "{list}");
    }
    // Once more: everything is there.
    let again = run(&machine, restore).json();
    assert_eq!(outcomes(&again), with_outcomes("same", "same", "unverified"));
    assert_eq!(again["wrap_key"], Value::Null);
}

#[test]
fn every_kind_of_ca_key_is_the_same_key_afterwards() {
    let machine = Machine::with_device("sim:first");
    for algorithm in ["ed25519", "ecp384", "ecp521", "rsa2048"] {
        assert_eq!(run(&machine, &format!("key generate --algorithm {algorithm} --exportable")).code, 0);
    }
    back_up(&machine);
    let line = "--device sim:second backup restore backup.json --share-file share-2 --share-file share-3";
    let restored = run(&machine, line);
    assert_eq!(restored.code, 0, "{restored:?}");
    let list = run(&machine, "key list --format json").json();
    for key in list.as_array().unwrap().iter().filter(|key| key["type"] == "asymmetric-key") {
        let show = |device| run(&machine, &format!("--device sim:{device} key show {}", key["id"])).stdout;
        assert_eq!(show("first"), show("second"));
    }
}

#[test]
fn what_does_not_leave_the_device_is_named() {
    let machine = machine();
    let made = run(&machine, "backup create backup.json");
    assert_eq!(made.code, 0, "{made:?}");
    let named = "NOT in the backup: asymmetric-key 0x0006 \"stays\": it is not exportable-under-wrap";
    assert!(made.stderr.contains(named), "{made:?}");
    let shown = run(&machine, "backup show backup.json");
    assert!(shown.code == 0 && shown.stdout.contains(named), "{shown:?}");
    let shown = run(&machine, "backup show backup.json --format json").json();
    assert_eq!(shown["not_exported"][0]["object"]["id"], 6);
    assert_eq!((&shown["threshold"], &shown["authentic"]), (&json!(2), &Value::Null));

    // An authentication key that may not delegate the CA key's capabilities exports nothing that has them.
    let line = "authentication-key put --id 3 --capabilities all --delegated exportable-under-wrap,export-wrapped --allow-weak-password";
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(machine.with_environment(&words, &[("SSHSM_NEW_PASSWORD", "password")]).code, 0);
    let weak = run(&machine, "--auth-key 3 backup create weak.json --format json").json();
    let names: Vec<_> = weak["objects"].as_array().unwrap().iter().map(|o| o["id"].as_u64()).collect();
    assert_eq!(names, [Some(10)]);
    let reasons = weak["not_exported"].to_string();
    assert!(reasons.contains("it may do more than authentication key 0x0003 may pass on"), "{reasons}");
}

#[test]
fn a_device_that_lets_nothing_go_has_no_backup() {
    let machine = Machine::new();
    for (id, delegated, code, told) in
        [(3, "none", 5, "put wrap key"), (4, "export-wrapped", 1, "the device lets no object go")]
    {
        let may = "put-wrap-key,export-wrapped,delete-wrap-key";
        let line = format!(
            "authentication-key put --id {id} --capabilities {may} --delegated {delegated} --allow-weak-password"
        );
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(machine.with_environment(&words, &[("SSHSM_NEW_PASSWORD", "password")]).code, 0);
        let refused = run(&machine, &format!("--auth-key {id} backup create backup.json"));
        assert_eq!((refused.code, refused.stdout.as_str()), (code, ""), "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
        assert!(!machine.path("backup.json").exists());
        assert!(!run(&machine, "key list").stdout.contains("wrap-key "), "none was left behind");
    }
}

#[test]
fn fewer_shares_than_it_takes_restore_nothing() {
    let machine = machine();
    back_up(&machine);
    for (shares, told) in [
        ("", "2 shares are needed, and there are 0"),
        (" --share-file share-2", "2 shares are needed, and there are 1"),
        (" --share-file share-2 --share-file share-2", "share 2 was given already"),
    ] {
        let refused = run(&machine, &format!("--device sim:second backup restore backup.json{shares}"));
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    assert!(!machine.path("second").exists(), "no device was touched");
}

#[test]
fn a_share_that_is_mistyped_or_of_another_backup_is_refused_with_its_line() {
    let machine = machine();
    back_up(&machine);
    let share = fs::read_to_string(machine.path("share-1")).unwrap();
    let third = share.lines().nth(3).unwrap();
    let last = if third.ends_with('0') { "1" } else { "0" };
    machine.write("wrong", &share.replace(third, &format!("{}{last}", &third[..third.len() - 1])));
    let other = run(&machine, "backup create other.json --format json").json();
    machine.write("foreign", other["shares"][1]["text"].as_str().unwrap());
    machine.write("words", "not a share\n");
    let ids = ["backup.json", "other.json"].map(|file| {
        let shown = run(&machine, &format!("backup show {file} --format json")).json();
        shown["id"].as_str().unwrap().to_owned()
    });
    for (file, told) in [
        ("wrong", "line 3 is mistyped".to_owned()),
        ("foreign", format!("this share is of backup {}; the backup is {}", ids[1], ids[0])),
        ("words", "line 1 has".into()),
    ] {
        for verb in ["show", "restore"] {
            let line = format!("backup {verb} backup.json --share-file share-2 --share-file {file}");
            let refused = run(&machine, &line);
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.stderr.contains(&told) && refused.stderr.contains(file), "{refused:?}");
            refused.tells_no(&[&third[3..], share.lines().nth(2).unwrap()]);
        }
    }
}

#[test]
fn a_damaged_backup_is_refused_wherever_it_is_damaged() {
    let machine = machine();
    back_up(&machine);
    let good = fs::read_to_string(machine.path("backup.json")).unwrap();
    let shown =
        run(&machine, "backup show backup.json --share-file share-1 --share-file share-2 --format json");
    assert_eq!(shown.json()["authentic"], true);
    let document: Value = serde_json::from_str(&good).unwrap();
    let wrapped = document["backup"]["objects"][2]["wrapped"].as_str().unwrap();
    let fingerprint = document["backup"]["objects"][2]["content_sha256"].as_str().unwrap();
    let swapped = |text: &str| text.chars().rev().collect::<String>();
    let without_line: String = good.lines().take(20).map(|line| format!("{line}\n")).collect();
    for damaged in [
        good.replace(wrapped, &swapped(wrapped)),
        good.replace(fingerprint, &swapped(fingerprint)),
        good.replace("\"threshold\": 2", "\"threshold\": 3"),
        good.replace("\"label\": \"CA\"", "\"label\": \"ca\""),
        good.replace("sshsm-backup-1", "sshsm-backup-2"),
        good.replace("\"created\"", "\"made\": 1, \"created\""),
        without_line,
        String::new(),
    ] {
        assert_ne!(damaged, good);
        machine.write("damaged.json", &damaged);
        let refused = run(&machine, "--device sim:second backup restore damaged.json --share-file share-1");
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("damaged.json is not a backup, or is damaged"), "{refused:?}");
    }
    // With a checksum that fits, it is the key that does not.
    let forged = good.replace("\"label\": \"CA\"", "\"label\": \"ca\"");
    let sum = document["sha256"].as_str().unwrap();
    machine.write("forged.json", &forged.replace(sum, &checksum(&forged)));
    let line = "--device sim:second backup restore forged.json --share-file share-1 --share-file share-2";
    let refused = run(&machine, line);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("was changed after it was made"), "{refused:?}");
    assert_eq!(run(&machine, "backup restore nowhere.json").code, 6);
}

/// The checksum of a backup, computed from its text: `backup` without the white space of its layout.
fn checksum(document: &str) -> String {
    let (_, body) = document.split_once("\"backup\": ").unwrap();
    let (body, _) = body.split_once(",\n  \"sha256\"").unwrap();
    let compact: String = body.lines().map(|line| line.trim_start().replacen("\": ", "\":", 1)).collect();
    Sha256::digest(compact).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn another_object_of_the_same_name_is_left_alone_and_told() {
    let machine = machine();
    back_up(&machine);
    assert_eq!(
        run(&machine, "--device sim:second key generate --algorithm p256 --id 5 --label CA --exportable")
            .code,
        0
    );
    let before = run(&machine, "--device sim:second key show 5").stdout;
    let line = "--device sim:second backup restore backup.json --share-file share-1 --share-file share-2";
    let restored = run(&machine, line);
    assert_eq!(restored.code, 1, "{restored:?}");
    assert!(restored.stdout.contains("already there, and DIFFERENT"), "{restored:?}");
    assert!(
        restored.stderr.contains("objects that differ from the backup's: asymmetric-key 0x0005"),
        "{restored:?}"
    );
    assert_eq!(run(&machine, "--device sim:second key show 5").stdout, before);
    assert_eq!(
        run(&machine, "--device sim:second template get 10 -o there.tlv").code,
        0,
        "the rest was imported"
    );
}

#[test]
fn shares_and_backup_are_for_their_owner_and_replace_nothing() {
    let machine = machine();
    fs::create_dir(machine.path("safe")).unwrap();
    let made =
        run(&machine, "backup create safe -m 3 -n 5 --shares-to safe --keep-wrap-key --format json").json();
    let wrap_key = made["wrap_key"]["id"].as_u64().unwrap();
    assert!(run(&machine, "key list").stdout.contains(&format!("{wrap_key:#06x}  wrap-key")));
    let files: Vec<_> =
        fs::read_dir(machine.path("safe")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 6);
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let backup = made["file"].as_str().unwrap();
    let shares: String = made["shares"].as_array().unwrap()[..3]
        .iter()
        .map(|share| format!(" --share-file {}", share["file"].as_str().unwrap()))
        .collect();
    let shown = run(&machine, &format!("backup show {backup}{shares}"));
    assert!(shown.code == 0 && shown.stdout.contains("the backup is as it was made"), "{shown:?}");
    let again = run(&machine, &format!("backup create {backup}"));
    assert!(again.code == 6 && again.stderr.contains("exists"), "{again:?}");
    for wrong in ["-m 1", "-m 4 -n 3", "-n 300"] {
        assert_eq!(run(&machine, &format!("backup create b.json {wrong}")).code, 2, "{wrong}");
    }
}

/// The copy signs again what the first device refuses: this is reported when it is made.
#[test]
fn restoring_says_which_templates_begin_anew_and_what_of_them() {
    let machine = machine();
    let template = fs::read_to_string(machine.path("t.toml")).unwrap();
    let rules = "quota = { signatures = 1, window = \"10h\" }\nserials = { increasing = true }\n\
                 clock = { monotonic = true, tolerance = \"1m\" }\n";
    machine.write("r.toml", &format!("{rules}{template}"));
    assert_eq!(run(&machine, "template put r.toml --id 11 --exportable").code, 0);
    back_up(&machine);

    let restore = "--device sim:second backup restore backup.json --share-file share-1 --share-file share-2";
    let restored = run(&machine, &format!("{restore} --format json"));
    let document = restored.json();
    let begins_anew = |id: u64| {
        let objects = document["objects"].as_array().unwrap();
        objects.iter().find(|object| object["id"] == id && object["type"] == "template").unwrap()["begins_anew"].clone()
    };
    assert_eq!(begins_anew(11), json!(["quota", "serials", "clock"]));
    assert_eq!(begins_anew(10), Value::Null, "its rules need no memory");
    assert!(
        restored
            .stderr
            .contains("WARNING: template 0x000b starts over on this device (quota, serials, clock)"),
        "{restored:?}"
    );
    assert!(!restored.stderr.contains("0x000a"), "{restored:?}");
    let again = run(&machine, restore);
    assert!(again.code == 0 && !again.stderr.contains("starts over"), "nothing was imported: {again:?}");
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A share as a holder forges it: of random bytes, with every checksum right.
fn forge(share: &str) -> String {
    let decode = |line: &str| {
        let digits = line.split_once(':').unwrap().1.replace(' ', "");
        let number = digits.bytes().fold(0_u128, |number, digit| {
            number << 5 | ALPHABET.iter().position(|other| *other == digit).unwrap() as u128
        });
        number.to_be_bytes()[1..13].to_vec()
    };
    let bytes: Vec<u8> = share.lines().filter(|line| !line.starts_with('#')).flat_map(decode).collect();
    let (header, _) = bytes.split_at(9);
    let mut new = [header, &[0x5a; 32]].concat();
    let check = Sha256::new().chain_update(b"sshsm share").chain_update(&new).finalize();
    new.extend(&check[..7]);
    let line = |(place, content): (usize, &[u8])| {
        let place = [u8::try_from(place).unwrap()];
        let check = [&b"sshsm share line"[..], &place, header, content].concat();
        let mut whole = [0; 16];
        whole[1..13].copy_from_slice(content);
        whole[13..].copy_from_slice(&Sha256::digest(check)[..3]);
        let number = u128::from_be_bytes(whole);
        (0..24)
            .rev()
            .map(|digit| char::from(ALPHABET[(number >> (5 * digit)) as usize & 31]))
            .collect::<String>()
            + "\n"
    };
    new.chunks(12).enumerate().map(line).collect()
}

#[test]
fn a_forged_share_is_named_and_enough_right_ones_restore_beside_it() {
    let machine = machine();
    back_up(&machine);
    let second = fs::read_to_string(machine.path("share-2")).unwrap();
    machine.write("forged", &forge(&second));
    let named = "share 2 is not the one that was made with this backup";
    for shares in ["--share-file forged", "--share-file share-1 --share-file forged"] {
        let shown = run(&machine, &format!("backup show backup.json {shares}"));
        assert_eq!(shown.code, 1, "{shown:?}");
        assert!(shown.stderr.contains("forged") && shown.stderr.contains(named), "{shown:?}");
    }
    for shares in [
        "--share-file share-1 --share-file forged --share-file share-3",
        "--share-file forged --share-file share-2 --share-file share-3",
    ] {
        let restored = run(&machine, &format!("--device sim:second backup restore backup.json {shares}"));
        assert_eq!(restored.code, 0, "{restored:?}");
        assert!(restored.stderr.contains(named), "{restored:?}");
    }
}

/// The form of files before they had commitments.
#[test]
fn a_backup_that_says_nothing_of_its_shares_is_read_and_a_forged_share_is_found_among_enough() {
    let machine = machine();
    back_up(&machine);
    let new = run(&machine, "backup show backup.json --format json").json();
    assert_eq!(new["share_commitments"].as_array().unwrap().len(), 3);
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backups/without-commitments");
    for name in ["backup.json", "share-1", "share-2", "share-3"] {
        fs::copy(format!("{old}/{name}"), machine.path(&format!("old-{name}"))).unwrap();
    }
    let show = |shares: &str| run(&machine, &format!("backup show old-backup.json {shares}"));
    let shown = show("--share-file old-share-1 --share-file old-share-3");
    assert!(shown.code == 0 && shown.stdout.contains("the backup is as it was made"), "{shown:?}");
    let second = fs::read_to_string(machine.path("old-share-2")).unwrap();
    machine.write("forged", &forge(&second));
    let two = show("--share-file old-share-1 --share-file forged");
    assert!(two.code == 1 && two.stderr.contains("one of them is wrong"), "{two:?}");
    let three = show("--share-file old-share-1 --share-file forged --share-file old-share-3");
    assert_eq!(three.code, 0, "{three:?}");
    assert!(three.stderr.contains("share 2 is not the one that was made"), "{three:?}");
}

/// A whole request or answer: headers, and as much as they announce.
fn http_message(stream: &mut impl std::io::Read) -> Option<Vec<u8>> {
    let (mut message, mut byte) = (Vec::new(), [0]);
    while !message.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        message.push(byte[0]);
    }
    let head = String::from_utf8(message.clone()).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    message.extend(body);
    Some(message)
}

/// Holds back every answer from the `stop`th exchange on; reports that on the channel.
fn holding_relay(device: std::net::SocketAddr, stop: usize) -> (String, std::sync::mpsc::Receiver<()>) {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
            mpsc,
        },
        thread,
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (held, hold) = mpsc::channel();
    let exchanges = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, held, exchanges) = (client.unwrap(), held.clone(), exchanges.clone());
            thread::spawn(move || {
                let mut device = TcpStream::connect(device).unwrap();
                while let Some(request) = http_message(&mut client) {
                    device.write_all(&request).unwrap();
                    let answer = http_message(&mut device).unwrap();
                    if exchanges.fetch_add(1, SeqCst) >= stop {
                        let _ = held.send(());
                        thread::park();
                    }
                    client.write_all(&answer).unwrap();
                }
            });
        }
    });
    (url, hold)
}

#[test]
fn a_backup_that_is_interrupted_leaves_no_wrap_key_and_what_a_killed_one_left_is_taken_away() {
    let device = sshsm_simulator::Simulator::memory().start().unwrap().serve().unwrap();
    let (machine, url) = (Machine::new(), device.url());
    for id in ["8", "9"] {
        let line = format!("--device {url} key generate --algorithm p256 --id {id} --exportable");
        assert_eq!(run(&machine, &line).code, 0);
    }
    let list = || run(&machine, &format!("--device {url} key list --format json")).stdout;
    let start = |stop: usize| {
        let (relay, hold) = holding_relay(device.address(), stop);
        let mut command =
            machine.command(&["--device", &relay, "backup", "create", &format!("b{stop}.json")]);
        command.env("SSHSM_PASSWORD", "password");
        let child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let held = hold.recv_timeout(std::time::Duration::from_secs(5)).is_ok();
        (child, held)
    };
    let signal = |child: &std::process::Child, name: &str| {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    };
    let mut interrupted = 0;
    for stop in (6..40).step_by(4) {
        let (child, held) = start(stop);
        if !held {
            let output = child.wait_with_output().unwrap();
            assert!(interrupted > 0, "{output:?}");
            break;
        }
        signal(&child, if interrupted % 2 == 0 { "-INT" } else { "-TERM" });
        let output = child.wait_with_output().unwrap();
        assert!(!list().contains("\"wrap-key\""), "after {stop} exchanges: {output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        // If not even a session was opened with it, nothing can delete it; no one has its private half.
        let left = list().contains("temporary key");
        assert!(!left || told.contains("the temporary authentication key"), "{stop}: {output:?}");
        // If everything had been exported before, the backup is whole, and only the clean-up was interrupted.
        assert!(!output.status.success() || machine.path(&format!("b{stop}.json")).exists(), "{output:?}");
        interrupted += 1;
    }
    assert!(interrupted > 2, "{interrupted}");
    // One that could do nothing any more.
    let mut left = false;
    for stop in 7..40 {
        let (mut child, _) = start(stop);
        signal(&child, "-KILL");
        let _ = child.wait();
        left = list().contains("\"wrap-key\"");
        if left {
            break;
        }
    }
    assert!(left, "the test reached no state with a wrap key");
    let next = run(&machine, &format!("--device {url} backup create next.json"));
    assert_eq!(next.code, 0, "{next:?}");
    assert!(next.stderr.contains("which an earlier run left on the device"), "{next:?}");
    assert!(!list().contains("\"wrap-key\"") && !list().contains("temporary key"));
}
