//! Yubico's own Python library, unchanged, against the simulator over HTTP. What it expects is written in
//! Python, in `python/yubihsm_client.py`; here it gets a device and a Python that has the library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    needs,
    process::run,
    python::python,
    requirement::{shared_vector, workspace},
    simulator::Simulator,
};
use std::{path::PathBuf, process::Command};

/// Runs the classes of tests named, against a factory-new device.
fn run_script(python: PathBuf, simulator: &Simulator, classes: &[&str], vector: Option<PathBuf>) {
    let mut command = Command::new(python);
    command
        .arg("-B")
        .arg(workspace().join("tests/python/yubihsm_client.py"))
        .arg("--verbose")
        .args(classes)
        .env("SSHSM_TEST_URL", simulator.url());
    if let Some(vector) = vector {
        command.env("SSHSM_TEST_VECTOR", vector);
    }
    let finished = run(&mut command).success();
    print!("{}", finished.stderr);
    assert!(!finished.stderr.contains("Ran 0 tests") && !finished.stderr.contains("skipped"), "{finished}");
}

#[test]
fn everyday_commands_work() {
    run_script(needs!(python()), &Simulator::start(), &["Everyday"], None);
}

#[test]
fn everyday_commands_reach_a_device_on_a_serial_port_through_the_connector() {
    run_script(needs!(python()), &Simulator::behind_connector(), &["Everyday"], None);
}

#[test]
fn the_hardware_vector_is_answered_byte_for_byte() {
    let python = needs!(python());
    run_script(
        python,
        &Simulator::start(),
        &["HardwareVector"],
        Some(needs!(shared_vector("yubihsm2-ssh.json"))),
    );
}
