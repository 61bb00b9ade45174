//! The device test suites that YubiHSM clients ship, unchanged and whole, against the simulator over HTTP: Yubico's
//! Python library's and the Rust crate's. They were written for hardware; what passes here passed there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    needs,
    process::{Finished, run, run_within},
    python::python,
    requirement::workspace,
    simulator::Simulator,
    suite::{Exception, Outcome, Report, folder},
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The longest a suite may take; on an idle machine each is done in a minute.
const LIMIT: Duration = Duration::from_secs(900);

/// Skipped on a device without FIPS mode: Yubico's own standard units report the same four.
const FIPS: &str = "the suite skips it on a device that is not a FIPS unit, ours like Yubico's standard ones";

const PYTHON_EXCEPTIONS: [Exception; 4] = [
    not_fips("tests/device/test_attestation.py::test_fips_approved_attestation"),
    not_fips("tests/device/test_basic.py::TestFipsOptions::test_set_in_fips_mode"),
    not_fips("tests/device/test_basic.py::TestFipsOptions::test_fips_mode_disables_algorithms"),
    not_fips("tests/device/test_basic.py::TestFipsOptions::test_enabling_algorithms_in_fips_mode"),
];

const fn not_fips(test: &'static str) -> Exception {
    Exception { test, outcome: Outcome::Skipped, evidence: FIPS }
}

#[test]
fn the_python_library_passes_its_own_device_tests() {
    let python = needs!(python());
    let suite = needs!(folder("yubihsm-3.1.2"));
    let simulator = Simulator::start();
    let directory = tempfile::tempdir().unwrap();
    let outcomes = directory.path().join("outcomes");
    let finished = run_within(
        LIMIT,
        Command::new(python)
            .current_dir(&suite)
            .args(["-B", "-m", "pytest", "-p", "device_suite", "-p", "no:cacheprovider", "--tb=short"])
            .args(["--backend", simulator.url(), "tests/device"])
            .env("PYTHONPATH", workspace().join("tests/python"))
            .env("SSHSM_TEST_OUTCOMES", &outcomes)
            .env_remove("PYTEST_ADDOPTS"),
    );

    let mut report = Report::default();
    for line in fs::read_to_string(&outcomes).unwrap_or_else(|error| panic!("{error}\n{finished}")).lines() {
        let line: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
        let outcome = match line["outcome"].as_str() {
            "passed" => Outcome::Passed,
            "skipped" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        report.add(&line["test"], outcome, &line["reason"]);
    }
    report.insist(&suite, 310, &PYTHON_EXCEPTIONS, &finished);
}

#[test]
fn the_rust_crate_passes_its_own_integration_tests() {
    let suite = needs!(folder("rust-yubihsm-0.42.1"));
    let integration = executable(&suite, "integration");

    // All in one process and through one session, as they run on hardware. They share test keys: one at a time.
    let (report, finished) = integration_tests(&integration, &["--include-ignored"]);
    if report.count(Outcome::Failed) == 0 {
        report.insist(&suite, 32, &[], &finished);
        return;
    }
    // After a failure none of them can take the lock of their common client. Run alone, each shows its own
    // outcome.
    let mut alone = Report::default();
    for test in report.with(Outcome::Passed) {
        alone.add(test, Outcome::Passed, "");
    }
    let mut said = String::new();
    for test in report.with(Outcome::Failed) {
        let (report, finished) = integration_tests(&integration, &["--include-ignored", "--exact", test]);
        let outcome = if report.count(Outcome::Passed) == 1 {
            Outcome::Passed
        } else {
            said += &format!("{finished}\n");
            Outcome::Failed
        };
        alone.add(test, outcome, "");
    }
    alone.insist(&suite, 32, &[], &said);
    panic!("{finished}\n\nalone each test passes, together they do not");
}

#[test]
fn the_rust_crate_passes_its_own_setup_test() {
    let suite = needs!(folder("rust-yubihsm-0.42.1"));
    let finished = run(&mut Command::new(executable(&suite, "setup"))).success();
    assert!(finished.stdout.contains("1 passed; 0 failed; 0 ignored"), "{finished}");
}

/// Runs tests of the crate on a new device, at the one address that they know.
fn integration_tests(executable: &Path, arguments: &[&str]) -> (Report, Finished) {
    let _simulator = Simulator::at("127.0.0.1:12345");
    let finished = run_within(
        LIMIT,
        Command::new(executable).arg("--test-threads=1").args(arguments).env("RUST_BACKTRACE", "0"),
    );
    let mut report = Report::default();
    for line in finished.stdout.lines() {
        let Some((test, result)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        else {
            continue;
        };
        let outcome = if result == "ok" { Outcome::Passed } else { Outcome::Failed };
        report.add(test, outcome, "");
    }
    (report, finished)
}

/// A test executable of the crate. The set-up built it; this finds it, or rebuilds a stale one.
fn executable(suite: &Path, name: &str) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (variable, _) in env::vars_os() {
        // Cargo describes the package under test in them, which this is not.
        if variable
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(variable);
        }
    }
    let build = ["test", "--quiet", "--locked", "--offline", "--no-run", "--message-format=json"];
    let finished = run_within(
        LIMIT,
        cargo
            .current_dir(suite)
            .args(build)
            .args(["--features", "http,secp256k1,untested", "--target-dir"])
            .arg(suite.join("target")),
    )
    .success();
    let messages =
        finished.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let of_target =
        |message: &serde_json::Value| message["target"]["name"] == name && message["profile"]["test"] == true;
    messages
        .filter(of_target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("no test executable {name}: {finished}"))
}
