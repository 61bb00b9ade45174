//! The output of every command: its help, a success and a typical failure, in text and JSON, word for word.
//!
//! A file in `transcripts/` is a session at a shell, on a separate machine with a fresh simulator in
//! `device`. Lines that begin with `$ ` are typed; each is followed by the exit code (`? `), stdout (`| `)
//! and stderr (`! `). Values that differ from run to run (dates, keys, fingerprints, paths) are replaced by a
//! name in brackets. The files in `transcripts/help/` are the output of `--help`, one for each command of the
//! tree.
//!
//! After a command was added or changed, write its `$ ` lines into a file, and then
//!
//!     SNAPSHOTS=overwrite cargo test -p sshsm --test transcripts
//!
//! fills in the rest, creates the files of `--help`, and removes those of commands that are gone. Read the
//! difference before you commit it. `every_command_has_a_success_and_a_failure` says which commands lack a
//! line.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use machine::Machine;
use regex::Regex;
use snapbox::{Data, Redactions};

/// Commands that have no success here, and why.
const NO_SUCCESS: [(&str, &str); 8] = [
    ("audit follow", "it runs until it is stopped: tests/audit.rs"),
    ("timestamp serve", "it serves until it is stopped: tests/timestamp.rs"),
    ("connector", "it serves until it is stopped: tests/connector.rs"),
    ("device log", "of a board on a serial port: tests/serial.rs"),
    ("device status", "of a board on a serial port: tests/serial.rs"),
    ("flash", "installs a board's firmware: tests/flash.rs"),
    ("board seal", "signs an image of a megabyte: tests/secure_boot.rs"),
    ("device list", "the devices plugged in differ"),
];
/// Commands that have no failure here, and why.
const NO_FAILURE: [(&str, &str); 1] = [("device list", "the devices plugged in differ")];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

fn overwrite() -> bool {
    env::var_os("SNAPSHOTS").is_some_and(|value| value == "overwrite")
}

/// Compares, or writes.
fn is(path: &Path, found: &str) {
    if overwrite() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if found != expected {
        eprintln!("{} differs; SNAPSHOTS=overwrite rewrites it", path.display());
        snapbox::Assert::new().eq(Data::text(found.to_owned()).raw(), Data::text(expected).raw());
    }
}

fn redactions(machine: &Machine) -> Redactions {
    let mut redactions = Redactions::new();
    redactions.insert("[DIR]", machine.path("").to_str().unwrap().trim_end_matches('/').to_owned()).unwrap();
    for (name, pattern) in [
        ("[TIME]", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ?"),
        ("[FINGERPRINT]", r"SHA256:[0-9A-Za-z+/]{43}"),
        ("[KEY]", r"AAAA[0-9A-Za-z+/]{40,}=*"),
        ("[HEX]", r"[0-9a-f]{16,}…?"),
        ("[SERIAL]", r"serial\W+(?<redacted>\d{5,})"),
        ("[BACKUP]", r"\b[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}\b"),
        ("[SHARE]", r"[1-4]: (?<redacted>[0-9A-Z]{4}( [0-9A-Z]{4}){5})"),
        ("[WRAPPED]", r#""wrapped": "(?<redacted>[^"]+)""#),
        ("[SERIAL]", r"sshsm-backup-(?<redacted>\d+)-"),
        ("[TEMPORARY]", r"\.sshsm-[0-9A-Za-z]{6}"),
        ("[ID]", r"wrap key (?<redacted>0x[0-9a-f]{4})"),
        ("[SECONDS]", r#""(valid_after|valid_before|asked_at|sent_at|finished_at)": (?<redacted>\d{5,})"#),
        ("[PROCESS]", r#"process"?:? (?<redacted>\d+)"#),
        ("[WHO]", &regex::escape(&sshsm_ca::ledger::whoami())),
        ("[SERIAL]", r"device:? +(?<redacted>\d{10})"),
        ("[SERIAL]", r"audit-(?<redacted>\d{10})"),
        ("[UPTIME]", r"(?m)^\d+ +(?<redacted>\d+\.\d\d) "),
        ("[AGO]", r"\((?<redacted>\d+ s) ago"),
    ] {
        redactions.insert(name, Regex::new(pattern).unwrap()).unwrap();
    }
    redactions
}

/// The result of typing a transcript's lines, on a separate machine.
fn replay(transcript: &str) -> String {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("users.toml", "5m", "10h", &["root"]);
    machine.new_key("alice", machine::ed25519(3));
    machine.new_key("ca", machine::ed25519(7));
    let redactions = redactions(&machine);
    let sshsm = machine.command(&[""; 0]);
    let bin = Path::new(sshsm.get_program()).parent().unwrap().to_owned();
    let path =
        env::join_paths([bin].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap()))).unwrap();
    let mut text = String::new();
    for line in transcript.lines().filter(|line| line.starts_with("# ") || line.starts_with("$ ")) {
        let Some(typed) = line.strip_prefix("$ ") else {
            writeln!(text, "{line}\n").unwrap();
            continue;
        };
        let mut shell = Command::new("sh");
        shell.env_clear().envs(sshsm.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("PATH", &path).env("SSHSM_PASSWORD", "password").args(["-c", typed]);
        shell.current_dir(machine.path("")).stdin(std::process::Stdio::null());
        let output = shell.output().unwrap();
        writeln!(text, "{line}\n? {}", output.status.code().unwrap()).unwrap();
        for (mark, stream) in [("|", &output.stdout), ("!", &output.stderr)] {
            for line in redactions.redact(str::from_utf8(stream).unwrap()).lines() {
                writeln!(text, "{}", format!("{mark} {line}").trim_end()).unwrap();
            }
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn files() -> BTreeMap<String, String> {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Every command without subcommands, by the words that name it.
fn commands(command: &clap::Command, before: &str, all: &mut BTreeMap<String, clap::Command>) {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let name = format!("{before} {}", subcommand.get_name()).trim_start().to_owned();
        commands(subcommand, &name, all);
        all.insert(name, subcommand.clone());
    }
}

fn tree() -> BTreeMap<String, clap::Command> {
    let mut all = BTreeMap::new();
    commands(&sshsm::cli::command_tree(), "", &mut all);
    all
}

#[test]
fn every_transcript_is_what_happens() {
    for (name, transcript) in files() {
        is(&folder().join(name), &replay(&transcript));
    }
}

#[test]
fn every_command_says_what_it_takes() {
    let mut expected = BTreeSet::new();
    for name in tree().into_keys().chain([String::new()]) {
        let file = format!("sshsm {name}").trim_end().replace(' ', "-") + ".txt";
        let machine = Machine::new();
        let words: Vec<&str> = name.split_whitespace().chain(["--help"]).collect();
        let run = machine.without_password(&words);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
        assert!(!run.stdout.contains('\x1b'), "no colours without a terminal: {run:?}");
        let text: String = run.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        is(&folder().join("help").join(&file), &text);
        expected.insert(file);
    }
    for entry in fs::read_dir(folder().join("help")).unwrap() {
        let path = entry.unwrap().path();
        if !expected.contains(path.file_name().unwrap().to_str().unwrap()) {
            assert!(overwrite(), "{} is of no command", path.display());
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn every_command_has_a_success_and_a_failure() {
    if overwrite() {
        return; // its files are being written
    }
    let mut seen = BTreeSet::new();
    let words = Regex::new(r"\bsshsm((?: [a-z][a-z-]*)+)").unwrap();
    for transcript in files().values() {
        let mut typed = "";
        for line in transcript.lines() {
            if let Some(line) = line.strip_prefix("$ ") {
                typed = line;
            } else if let Some(code) = line.strip_prefix("? ") {
                for found in words.captures_iter(typed) {
                    seen.insert((found[1].trim().to_owned(), code == "0"));
                }
            }
        }
    }
    let all = tree();
    let has = |name: &str, success: bool| {
        seen.iter().any(|(typed, worked)| {
            *worked == success && (typed == name || typed.starts_with(&format!("{name} ")))
        })
    };
    let leaves = all.iter().filter(|(_, command)| !command.has_subcommands()).map(|(name, _)| name.as_str());
    let lacking: Vec<String> = leaves
        .flat_map(|name| [(name, true), (name, false)])
        .filter(|&(name, success)| {
            let without: &[(&str, &str)] = if success { &NO_SUCCESS } else { &NO_FAILURE };
            !has(name, success) && !without.iter().any(|(without, _)| *without == name)
        })
        .map(|(name, success)| format!("{name}: no {}", if success { "success" } else { "failure" }))
        .collect();
    assert!(lacking.is_empty(), "in tests/transcripts: {lacking:#?}");
}

#[test]
fn colours_are_for_terminals_and_never_with_no_color() {
    let help = |environment: &[(&str, &str)]| {
        let machine = Machine::new();
        let sshsm = env!("CARGO_BIN_EXE_sshsm");
        // util-linux's script gives it a terminal.
        let output = Command::new("script")
            .args(["-qec", &format!("{sshsm} --help"), "/dev/null"])
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .current_dir(machine.path(""))
            .output();
        output.ok().map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Some(coloured) = help(&[]) else {
        eprintln!("script is not installed; no terminal to look at");
        return;
    };
    assert!(coloured.contains("Usage:") && coloured.contains("\x1b["), "{coloured:?}");
    let plain = help(&[("NO_COLOR", "1")]).unwrap();
    assert!(plain.contains("Usage:") && !plain.contains("\x1b["), "{plain:?}");
}
