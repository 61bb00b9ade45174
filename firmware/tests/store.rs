//! The store's promises: sequence numbers, capacity, refusal of what it does not know, and no state between two when
//! the power is cut at any word programmed or sector erased.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Chip, Flash, ModelDevice, Object, SECTOR, Session, fresh, start, try_start};
use sshsm_firmware::MountError;
use sshsm_firmware::store::{Record, Store, StoreError};
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::device_info::StorageInfo;
use sshsm_protocol::{Algorithm, Capability, Command, DeviceError};

fn template(id: u16, length: usize) -> Vec<u8> {
    Object::new(id, Algorithm::TemplateSsh, &[]).with(&vec![0x5a; length])
}

fn chip(device: &mut ModelDevice) -> Chip {
    device.flash().unwrap().copy()
}

/// Everything a client can see of the store, contents included.
fn observe(device: &mut ModelDevice) -> Vec<Vec<u8>> {
    // Either password may be the valid one after a cut.
    let mut session = Session::open(device, 1, b"password")
        .or_else(|_| Session::open(device, 1, b"changed"))
        .expect("a session with one of the two passwords");
    let list = session.send(device, Command::ListObjects, &[]).unwrap();
    let mut seen = vec![list.clone()];
    for entry in list.chunks(4) {
        seen.push(session.send(device, Command::GetObjectInfo, &entry[..3]).unwrap());
        if entry[2] == 6 {
            seen.push(session.send(device, Command::GetTemplate, &entry[..2]).unwrap());
        }
    }
    seen
}

#[test]
fn objects_survive_a_restart() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let key = Object::new(5, Algorithm::Ed25519, &[Capability::SignEddsa]).with(&[7; 32]);
    admin.send(&mut device, Command::PutAsymmetricKey, &key).unwrap();
    let signature = admin.send(&mut device, Command::SignEddsa, &[0, 5, 1]).unwrap();
    let mut device = start(chip(&mut device));
    let mut admin = Session::admin(&mut device);
    assert_eq!(admin.send(&mut device, Command::SignEddsa, &[0, 5, 1]), Ok(signature));
}

#[test]
fn the_sequence_number_counts_creations_and_survives_deletion_and_restart() {
    let mut device = fresh();
    for expected in 0..3 {
        let mut admin = Session::admin(&mut device);
        admin.send(&mut device, Command::PutTemplate, &template(4, 10)).unwrap();
        let list = admin.send(&mut device, Command::ListObjects, &[2, 6]).unwrap();
        assert_eq!(list, [0, 4, 6, expected]);
        admin.send(&mut device, Command::DeleteObject, &[0, 4, 6]).unwrap();
        device = start(chip(&mut device));
    }
}

#[test]
fn records_and_pages_run_out_where_storage_info_says() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let storage = |admin: &mut Session, device: &mut _| {
        StorageInfo::decode(&admin.send(device, Command::GetStorageInfo, &[]).unwrap()).unwrap()
    };
    let before = storage(&mut admin, &mut device);
    assert_eq!((before.total_records, before.total_pages, before.page_size), (256, 1024, 126));
    assert_eq!((before.free_records, before.free_pages), (255, 1023));
    admin.send(&mut device, Command::PutTemplate, &template(2, 127)).unwrap();
    let after = storage(&mut admin, &mut device);
    assert_eq!((after.free_records, after.free_pages), (254, 1021));
    for id in 3..=256 {
        admin.send(&mut device, Command::PutTemplate, &template(id, 1)).unwrap();
    }
    let full = storage(&mut admin, &mut device);
    assert_eq!(full.free_records, 0);
    assert_eq!(
        admin.send(&mut device, Command::PutTemplate, &template(300, 1)),
        Err(DeviceError::StorageFailed)
    );
    admin.send(&mut device, Command::DeleteObject, &[0, 2, 6]).unwrap();
    admin.send(&mut device, Command::PutTemplate, &template(300, 1)).unwrap();
}

#[test]
fn a_full_flash_refuses_and_goes_on_working() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let mut stored = 0;
    for id in 2..256 {
        match admin.send(&mut device, Command::PutTemplate, &template(id, 3000)) {
            Ok(_) => stored += 1,
            Err(error) => {
                assert_eq!(error, DeviceError::StorageFailed);
                break;
            }
        }
    }
    assert!(stored >= 25, "{stored} objects of 3000 bytes in 128 KiB");
    assert_eq!(admin.send(&mut device, Command::GetTemplate, &[0, 2]).unwrap().len(), 3000);
    let mut device = start(chip(&mut device));
    let mut admin = Session::admin(&mut device);
    for round in 0..100 {
        admin.send(&mut device, Command::DeleteObject, &[0, 2, 6]).unwrap_or_else(|e| panic!("{round}: {e}"));
        admin
            .send(&mut device, Command::PutTemplate, &template(2, 3000))
            .unwrap_or_else(|e| panic!("{round}: {e}"));
    }
}

#[test]
fn deleting_ever_new_names_never_fills_the_flash() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for id in 2..4000_u16 {
        admin.send(&mut device, Command::PutTemplate, &template(id, 1)).unwrap();
        let [high, low] = id.to_be_bytes();
        admin.send(&mut device, Command::DeleteObject, &[high, low, 6]).unwrap();
    }
    let mut device = start(chip(&mut device));
    assert_eq!(observe(&mut device).len(), 2);
}

#[test]
fn records_survive_a_restart_and_are_erased_by_a_reset() {
    let flash = Flash::blank();
    let mut store = Store::mount(flash.clone(), |_| Ok(())).unwrap();
    let records = [Record::Options, Record::LogEntry(0), Record::LogEntry(61), Record::DeviceKey];
    for (record, length) in records.into_iter().zip(0..) {
        assert_eq!(store.record(record), Ok(None));
        store.put_record(record, &[9; 30]).unwrap();
        store.put_record(record, &vec![length; length.into()]).unwrap();
    }
    assert_eq!(store.put_record(Record::LogEntry(62), &[]), Err(StoreError::Full));
    assert_eq!(store.put_record(Record::LogState, &[0; 65]), Err(StoreError::Full));
    let mut store = Store::mount(Flash::of(flash.copy()), |_| Ok(())).unwrap();
    for (record, length) in records.into_iter().zip(0..) {
        assert_eq!(store.record(record).unwrap().unwrap().as_slice(), vec![length; length.into()]);
    }
    assert_eq!(store.iter().count(), 0, "no record is an object");
    store.reset(|_| Ok(())).unwrap();
    assert!(records.into_iter().all(|record| store.record(record) == Ok(None)));
}

fn refusal(chip: Chip) -> MountError {
    let flash = Flash::of(chip.clone());
    let error = try_start(flash.clone()).err().expect("refused");
    assert_eq!(flash.copy().bytes, chip.bytes, "and left alone");
    error
}

#[test]
fn flash_that_is_not_a_store_is_refused() {
    let mut foreign = Chip::blank();
    foreign.bytes[5 * SECTOR..][..9].copy_from_slice(b"something");
    assert_eq!(refusal(foreign), MountError::Unrecognized);
    let mut small = Chip::blank();
    small.bytes.truncate(3 * SECTOR);
    assert!(matches!(refusal(small), MountError::Geometry { .. }));
}

/// Does `change` with the power cut at every step; afterwards the device shows `before` or `after`, and if the
/// command was acknowledged, `after`.
fn cut_at_every_step(prepare: impl Fn(&mut ModelDevice, &mut Session), command: Command, payload: &[u8]) {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    prepare(&mut device, &mut admin);
    let start_state = chip(&mut device);
    let before = observe(&mut start(start_state.clone()));
    // Answer, chip afterwards, and steps that the command took.
    let run = |power: Option<usize>| {
        let flash = Flash::of(start_state.clone());
        let mut device = try_start(flash.clone()).ok().unwrap();
        let mut admin = Session::admin(&mut device);
        flash.0.borrow_mut().operations = 0;
        flash.0.borrow_mut().power = power;
        let answer = admin.send(&mut device, command, payload);
        (answer, flash.copy(), flash.0.borrow().operations)
    };
    let (answer, done, steps) = run(None);
    answer.unwrap();
    let after = observe(&mut start(done));
    assert_ne!(before, after);
    assert!(steps > 0);
    for power in 0..=steps {
        let (answer, cut, _) = run(Some(power));
        let seen = observe(&mut start(cut));
        assert!(seen == before || seen == after, "{command}: a state between, cut at {power} of {steps}");
        if answer.is_ok() {
            assert_eq!(seen, after, "{command}: acknowledged and lost, cut at {power} of {steps}");
        }
        assert_eq!(answer.is_ok(), power == steps);
    }
}

#[test]
fn every_mutating_command_is_atomic_across_a_power_cut() {
    let nothing = |_: &mut ModelDevice, _: &mut Session| {};
    let one = |device: &mut ModelDevice, admin: &mut Session| {
        admin.send(device, Command::PutTemplate, &template(4, 200)).unwrap();
    };
    cut_at_every_step(nothing, Command::PutTemplate, &template(4, 300));
    cut_at_every_step(one, Command::DeleteObject, &[0, 4, 6]);
    cut_at_every_step(one, Command::ResetDevice, &[]);
    let changed = AuthenticationKey::from_password(b"changed");
    let payload = [&[0, 1, 38], changed.as_bytes().as_slice()].concat();
    cut_at_every_step(nothing, Command::ChangeAuthenticationKey, &payload);
}

#[test]
fn a_first_start_that_was_cut_off_starts_again() {
    let flash = Flash::blank();
    try_start(flash.clone()).ok().unwrap();
    let steps = flash.0.borrow().operations;
    for power in 0..steps {
        let flash = Flash::of(Chip { power: Some(power), ..Chip::blank() });
        assert_eq!(try_start(flash.clone()).err(), Some(MountError::Flash));
        let mut device = start(flash.copy());
        assert_eq!(observe(&mut device)[0], [0, 1, 2, 0], "cut at {power} of {steps}");
    }
}
