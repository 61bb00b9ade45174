//! A journal of a device's log: one that is read can be gone on with, and is then read as the same.

use std::fs;

use sshsm_ca::audit::{Journal, Reconciliation};

pub fn run(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    fs::write(&path, bytes).expect("a file");
    let Ok(read) = Journal::read(&path) else { return };
    let _ = Reconciliation::new(&read, Vec::new(), &[], i64::MAX);
    drop(Journal::open(&path, read.device()).expect("it was read"));
    let again = Journal::read(&path).expect("it was gone on with");
    assert_eq!((again.records(), again.findings()), (read.records(), read.findings()));
}
