//! The systemd units that are shipped: well-formed, denied what they do not need, and reloaded by a signal
//! that the service knows.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{fs, path::Path, process::Command};

use sshsm_tests::{needs, requirement::program};

/// A copy of the shipped units that names the binary under test, which systemd looks for.
fn units() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let copy = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let mut units = Vec::new();
    for name in ["sshsm-timestamp.service", "user/sshsm-agent.service", "user/sshsm-agent.socket"] {
        let text = fs::read_to_string(shipped.join(name)).unwrap();
        let unit = copy.path().join(Path::new(name).file_name().unwrap());
        fs::write(&unit, text.replace("/usr/bin/sshsm", env!("CARGO_BIN_EXE_sshsm"))).unwrap();
        units.push(unit);
    }
    (copy, units)
}

#[test]
fn systemd_reads_every_unit_and_finds_nothing_wrong() {
    let analyze = needs!(program("systemd-analyze", "systemd"));
    let (copy, units) = units();
    for unit in &units {
        let user: &[_] = if unit.to_string_lossy().contains("agent") { &["--user"] } else { &[] };
        let mut command = Command::new(&analyze);
        // Where a user's manager has its sockets; there is none here.
        command.env("XDG_RUNTIME_DIR", copy.path());
        let output = command.args(user).args(["verify", "--man=no"]).arg(unit).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", unit.display());
    }
}

/// systemd's own measure, from 0 to 10 (here 0 to 100); what it still counts is what the services need:
/// sockets, the network, and for the agent the user's files.
#[test]
fn a_service_is_closed_to_what_it_does_not_need() {
    let analyze = needs!(program("systemd-analyze", "systemd"));
    let (_copy, units) = units();
    for (unit, exposure) in units.iter().zip(["15", "65"]) {
        let security = ["security", "--offline=true", "--no-pager", "--threshold", exposure];
        let output = Command::new(&analyze).args(security).arg(unit).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
