//! A test that lacks a requirement says so where it is seen and counted, and fails if the requirement is
//! mandatory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports by stopping")]

use sshsm_tests::{
    needs,
    process::{Finished, run},
    requirement::{Missing, SKIPPED_TESTS, vector_in},
};
use std::{env, fs, path::Path, process::Command};

/// Which of the cases below the test is to be in, as its own child.
const CASE: &str = "SSHSM_TEST_LACKS";

/// Runs `test` of this binary alone, in a case.
fn child(test: &str, case: &str, ci: &str, skipped: &Path) -> Finished {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test]).env(CASE, case).env("CI", ci).env(SKIPPED_TESTS, skipped);
    run(&mut command)
}

#[test]
fn a_test_that_lacks_a_program_is_noted_by_name_and_fails_in_ci() {
    if env::var_os(CASE).is_some() {
        return needs!(Err(Missing::new("no-such-program", "apt-get install it")));
    }
    let test = "a_test_that_lacks_a_program_is_noted_by_name_and_fails_in_ci";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("skipped");
    let finished = child(test, "program", "false", &file);
    assert!(finished.status.success(), "{finished}");
    let note = format!("sshsm-tests::requirement {test}: no-such-program is missing (apt-get install it)\n");
    // Not hidden by the harness, although it passed.
    assert!(finished.stderr.contains(&format!("SKIPPED {note}")), "{finished}");
    assert_eq!(fs::read_to_string(&file).unwrap(), note);
    let finished = child(test, "program", "true", &file);
    assert!(!finished.status.success(), "{finished}");
    assert_eq!(fs::read_to_string(&file).unwrap(), note, "a test that failed is not skipped");
}

#[test]
fn a_vector_beside_the_repository_is_required_where_its_folder_is_and_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    if let Some(shared) = env::var_os(CASE) {
        return drop(needs!(vector_in(Path::new(&shared), "a.json")));
    }
    let test = "a_vector_beside_the_repository_is_required_where_its_folder_is_and_only_there";
    let file = folder.path().join("skipped");
    for ci in ["true", "false"] {
        let finished = child(test, shared.to_str().unwrap(), ci, &file);
        assert!(finished.status.success(), "{finished}");
        let noted = fs::read_to_string(&file).unwrap();
        assert!(noted.contains("../shared/vectors/a.json is missing"), "{noted}");
        fs::remove_file(&file).unwrap();
    }
    fs::create_dir(&shared).unwrap();
    for ci in ["true", "false"] {
        let finished = child(test, shared.to_str().unwrap(), ci, &file);
        assert!(!finished.status.success(), "{finished}");
    }
    fs::create_dir(shared.join("vectors")).unwrap();
    fs::write(shared.join("vectors/a.json"), "{}").unwrap();
    assert!(child(test, shared.to_str().unwrap(), "true", &file).status.success());
    assert!(!file.exists());
}
