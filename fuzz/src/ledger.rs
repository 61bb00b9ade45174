//! A ledger's file: whatever is in it is listed, checked and reconciled, or refused.

use std::fs;

use sshsm_ca::ledger::{Filter, Ledger};

pub fn run(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.sqlite");
    fs::write(&path, bytes).expect("a file");
    let Ok(ledger) = Ledger::open_to_read(&path) else { return };
    let _ = (ledger.damage(), ledger.revocations(), ledger.head(), ledger.faults());
    let Ok(entries) = ledger.entries(&Filter::default()) else { return };
    for device in entries.iter().filter_map(|entry| entry.device_serial) {
        let _ = ledger.journal(device);
    }
    assert!(entries.iter().all(|entry| entry.log_span().exact == entry.audit_entry.is_some()));
}
