//! The store's guarantees: sequence numbers, capacity, refusal of unknown or damaged contents, and no state
//! in between when the power is cut at any word programmed or sector erased.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Chip, Flash, ModelDevice, Object, SECTOR, Session, Torn, fresh, root_key, start, try_start};
use sha2::{Digest, Sha256};
use sshsm_firmware::MountError;
use sshsm_firmware::store::{
    Attributes, FULL_SECTORS, MAX_TOMBSTONES, MIN_SECTORS, Name, Record, Store, StoreError,
};
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::device_info::StorageInfo;
use sshsm_protocol::object::Origin;
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId, ObjectType,
};

/// The longest body that a client can put.
const LONGEST: usize = 3063;
const RECORDS: [Record; 7] = [
    Record::Options,
    Record::LogState,
    Record::DeviceKey,
    Record::AttestationKey,
    Record::AttestationCertificate,
    Record::LogEntry(0),
    Record::LogEntry(61),
];

fn name(id: u16) -> Name {
    (ObjectType::Template, ObjectId::new(id).unwrap())
}

fn attributes(length: usize) -> Attributes {
    Attributes {
        // Bytes that look like erased flash.
        capabilities: Capabilities::ALL,
        length: u16::try_from(length).unwrap(),
        domains: Domains::ALL,
        algorithm: Algorithm::TemplateSsh,
        origin: Origin::IMPORTED,
        label: Label::default(),
        delegated_capabilities: Capabilities::NONE,
    }
}

fn mount(flash: &Flash) -> Result<Store<Flash>, MountError> {
    Store::mount(flash.clone(), &root_key(), |_| Ok(()))
}

fn insert(store: &mut Store<Flash>, id: u16, length: usize, fill: u8) -> Result<u8, StoreError> {
    store.insert(name(id), &attributes(length), &vec![fill; length]).map(|info| info.sequence)
}

/// Everything that a store holds.
fn contents(store: &mut Store<Flash>) -> Vec<(u16, u8, Vec<u8>)> {
    let objects: Vec<_> = store.iter().copied().collect();
    let object = |info: &sshsm_protocol::object::ObjectInfo| {
        (info.id.get(), info.sequence, store.body((info.object_type, info.id)).unwrap().to_vec())
    };
    let mut contents: Vec<_> = objects.iter().map(object).collect();
    let records =
        RECORDS.iter().map(|&record| (0, 0, store.record(record).unwrap().unwrap_or_default().to_vec()));
    contents.extend(records);
    contents
}

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
fn a_full_store_refuses_without_writing_and_goes_on_working() {
    for sectors in [MIN_SECTORS, 13, 32] {
        let flash = Flash::small(sectors);
        let mut store = mount(&flash).unwrap();
        let mut ids = 1..;
        for length in [LONGEST, 900, 250, 33, 1] {
            loop {
                let id = ids.next().unwrap();
                let info = store.storage_info();
                flash.0.borrow_mut().operations = 0;
                match insert(&mut store, id, length, 1) {
                    Ok(sequence) => assert_eq!(sequence, 0),
                    Err(error) => {
                        assert_eq!(error, StoreError::Full);
                        assert_eq!(flash.0.borrow().operations, 0, "nothing was written");
                        let fits = info.free_records > 0 && usize::from(info.free_pages) * 126 >= length;
                        assert!(!fits, "{length} bytes refused, {info:?}");
                        break;
                    }
                }
            }
            if length == 900 {
                // Holes in every sector.
                for id in (1..ids.start).step_by(3) {
                    let _ = store.delete(name(id));
                }
            }
        }
        let objects: Vec<_> = store.iter().map(|info| (info.object_type, info.id)).collect();
        for record in (0..62).map(Record::LogEntry).chain(RECORDS) {
            for fill in 0..3 {
                store.put_record(record, &vec![fill; record.max_length()]).unwrap();
            }
        }
        let &last = objects.last().unwrap();
        store.replace(last, &attributes(64), &[3; 64]).unwrap();
        let mut store = mount(&flash).unwrap();
        for object in objects {
            store.delete(object).unwrap();
        }
        let empty = mount(&Flash::small(sectors)).unwrap().storage_info();
        assert_eq!(mount(&flash).unwrap().storage_info(), empty);
    }
}

#[test]
fn flash_of_the_full_size_holds_what_yubihsm_2_holds_however_it_is_cut() {
    for length in [1, 126, 504, 513, 630, LONGEST] {
        let mut store = mount(&Flash::small(FULL_SECTORS)).unwrap();
        let pages = length.div_ceil(126);
        for id in 1..=256.min(1024 / pages) {
            insert(&mut store, u16::try_from(id).unwrap(), length, 0xff)
                .unwrap_or_else(|error| panic!("object {id} of {length} bytes: {error}"));
        }
        assert_eq!(insert(&mut store, 300, length, 1), Err(StoreError::Full));
    }
}

#[test]
fn the_oldest_deletion_is_forgotten_first_and_only_once_a_younger_is_remembered() {
    let flash = Flash::blank();
    let mut store = mount(&flash).unwrap();
    // The oldest is neither the first nor the last by name.
    let limit = u16::try_from(MAX_TOMBSTONES).unwrap();
    for id in std::iter::once(300).chain((1..=limit).filter(|&id| id != 300)) {
        insert(&mut store, id, 1, 1).unwrap();
        store.delete(name(id)).unwrap();
    }
    insert(&mut store, 5000, 1, 1).unwrap();
    let prepared = flash.copy();
    let run = |power| {
        let flash = Flash::of(prepared.clone());
        let mut store = mount(&flash).unwrap();
        flash.0.borrow_mut().operations = 0;
        flash.0.borrow_mut().power = power;
        let deleted = store.delete(name(5000));
        let steps = flash.0.borrow().operations;
        let mut store = mount(&Flash::of(flash.copy())).unwrap();
        let gone = store.info(name(5000)).is_none();
        assert!(gone || deleted.is_err());
        for (id, sequence) in [(300, u8::from(!gone)), (1, 1), (limit, 1)] {
            assert_eq!(insert(&mut store, id, 1, 1), Ok(sequence), "{id}, power {power:?}");
        }
        if gone {
            assert_eq!(insert(&mut store, 5000, 1, 1), Ok(1));
        }
        steps
    };
    for power in 0..=run(None) {
        run(Some(power));
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
    let mut store = Store::mount(flash.clone(), &root_key(), |_| Ok(())).unwrap();
    let records = [Record::Options, Record::LogEntry(0), Record::LogEntry(61), Record::DeviceKey];
    for (record, length) in records.into_iter().zip(0..) {
        assert_eq!(store.record(record), Ok(None));
        store.put_record(record, &[9; 30]).unwrap();
        store.put_record(record, &vec![length; length.into()]).unwrap();
    }
    assert_eq!(store.put_record(Record::LogEntry(62), &[]), Err(StoreError::Full));
    assert_eq!(store.put_record(Record::LogState, &[0; 65]), Err(StoreError::Full));
    let mut store = Store::mount(Flash::of(flash.copy()), &root_key(), |_| Ok(())).unwrap();
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
    assert_eq!(flash.copy().bytes, chip.bytes, "and not modified");
    error
}

#[test]
fn flash_that_is_not_a_store_is_refused() {
    let mut foreign = Chip::blank();
    foreign.bytes[5 * SECTOR..][..9].copy_from_slice(b"something");
    assert_eq!(refusal(foreign), MountError::Unrecognized);
    let mut small = Chip::blank();
    small.bytes.truncate((MIN_SECTORS - 1) * SECTOR);
    assert!(matches!(refusal(small), MountError::Geometry { .. }));
}

#[test]
fn another_version_is_refused_by_its_number_whatever_its_root_key() {
    let mut later = chip(&mut fresh());
    let end = later.bytes[..SECTOR].iter().rposition(|&byte| byte != 0xff).unwrap().next_multiple_of(32);
    // This version cannot identify its root key either.
    (later.bytes[end - 32], later.bytes[end - 20]) = (3, 0);
    let check = Sha256::digest(&later.bytes[end - 32..end - 4]);
    later.bytes[end - 4..end].copy_from_slice(&check[..4]);
    assert_eq!(refusal(later), MountError::UnknownVersion(3));

    // Version 1: notes of 16 bytes, here the second of the second sector, after a torn one.
    let mut earlier = Chip::blank();
    let note = [1, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 77];
    earlier.bytes[SECTOR] = 0;
    earlier.bytes[SECTOR + 16..][..12].copy_from_slice(&note);
    earlier.bytes[SECTOR + 28..][..4].copy_from_slice(&Sha256::digest(note)[..4]);
    earlier.bytes[5 * SECTOR..][..9].copy_from_slice(b"an object");
    assert_eq!(refusal(earlier), MountError::UnknownVersion(1));
}

/// Written by the firmware of commit 9fe7038, which represented deletions differently in memory: 210
/// deletions, of which it remembers the last, two objects in pieces, one of them replaced, and four records.
#[test]
fn a_store_of_earlier_firmware_with_the_same_layout_goes_on() {
    let image = include_bytes!("model/store-version-2.bin");
    let flash = Flash::of(Chip { bytes: image.to_vec(), ..Chip::blank() });
    let mut store = mount(&flash).unwrap();
    let records = [
        (Record::Options, vec![1; 20]),
        (Record::LogEntry(61), vec![2; 34]),
        (Record::AttestationCertificate, vec![3; 1200]),
        (Record::SshMemory(7), vec![4; 271]),
    ];
    for round in 0..2 {
        assert_eq!(
            store.iter().map(|info| (info.id.get(), info.sequence)).collect::<Vec<_>>(),
            [(1, 1), (2, 0)]
        );
        assert_eq!(*store.body(name(1)).unwrap(), [0x33; 700]);
        assert_eq!(*store.body(name(2)).unwrap(), [0x5a; 1500]);
        for (record, value) in &records {
            assert_eq!(store.record(*record).unwrap().as_deref(), Some(value), "{record:?}");
        }
        for (id, sequence) in [(1199, 2), (1189, 1), (1000, 0)] {
            assert_eq!(insert(&mut store, id, 1, 1), Ok(sequence + round), "{id}");
            store.delete(name(id)).unwrap();
        }
        store = mount(&flash).unwrap();
    }
}

/// A board's new image may move the store: nrf52840's was once where the boot loader puts its own updates.
/// The new image either finds the store complete, or refuses it and leaves it unchanged for the previous
/// image.
#[test]
fn a_store_without_the_middle_of_its_flash_is_whole_or_refused_and_left_as_it_is() {
    let (mut whole, mut refused) = (0, 0);
    for objects in (0..60).step_by(4) {
        let old = Flash::small(28);
        let mut store = mount(&old).unwrap();
        for id in 1..=objects {
            insert(&mut store, id, 700, 7).unwrap();
        }
        let before = contents(&mut store);
        let bytes = old.copy().bytes;
        let kept = [&bytes[..8 * SECTOR], &bytes[18 * SECTOR..]].concat();
        let new = Flash::of(Chip { bytes: kept.clone(), ..Chip::blank() });
        match mount(&new) {
            Ok(mut store) => {
                assert_eq!(contents(&mut store), before, "{objects} objects");
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error, MountError::Damaged, "{objects} objects");
                assert_eq!(new.copy().bytes, kept, "{objects} objects");
                refused += 1;
            }
        }
    }
    assert!(whole > 0 && refused > 0, "{whole} whole, {refused} refused");
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

type Change = fn(&mut Store<Flash>, u8) -> Result<(), StoreError>;

/// Changes of every kind, each of which can be done any number of times.
const CHANGES: [Change; 6] = [
    |store, round| store.replace(name(1), &attributes(600), &[round; 600]).map(|_| ()),
    |store, round| insert(store, 100, 1500, round).map(|_| ()),
    |store, round| store.replace(name(2), &attributes(33), &[round; 33]).map(|_| ()),
    |store, round| store.put_record(Record::LogEntry(round % 62), &[round; 32]),
    |store, round| store.put_record(Record::AttestationCertificate, &[round; 1200]),
    |store, _| store.delete(name(100)),
];

/// A store on the smallest flash, nearly full, that has deleted as many objects as it can remember.
fn nearly_full() -> Flash {
    let flash = Flash::small(MIN_SECTORS);
    let mut store = mount(&flash).unwrap();
    insert(&mut store, 1, 600, 0xff).unwrap();
    insert(&mut store, 2, 33, 2).unwrap();
    for id in 1000..1100 {
        insert(&mut store, id, 1, 3).unwrap();
        store.delete(name(id)).unwrap();
    }
    // Room for the 1500 bytes that are added and removed.
    for id in 3.. {
        if store.storage_info().free_pages < 18 {
            break;
        }
        insert(&mut store, id, 300, 0xff).unwrap();
    }
    flash
}

#[test]
fn every_change_of_a_nearly_full_log_is_atomic_however_its_erasures_are_cut_off() {
    let flash = nearly_full();
    let mut store = mount(&flash).unwrap();
    let mut erasures = 0;
    // The control log turns over too.
    for round in 0..120 {
        let change = CHANGES[usize::from(round) % CHANGES.len()];
        let base = flash.copy();
        let before = contents(&mut store);
        flash.0.borrow_mut().operations = 0;
        flash.0.borrow_mut().erasures.clear();
        change(&mut store, round).unwrap();
        let (steps, erased) = (flash.0.borrow().operations, flash.0.borrow().erasures.clone());
        let after = contents(&mut store);
        erasures += erased.len();
        let check = |power: usize, torn: Torn| {
            let flash = Flash::of(Chip { torn, ..base.clone() });
            let mut cut = mount(&flash).unwrap();
            flash.0.borrow_mut().power = Some(power);
            assert!(change(&mut cut, round).is_err());
            assert_eq!(cut.usable(), Err(StoreError::Flash));
            assert_eq!(cut.iter().count(), 0, "a store that failed shows nothing");
            // The start after that may be interrupted as well.
            let recovery = Flash::of(flash.copy());
            let mut store = mount(&recovery)
                .unwrap_or_else(|e| panic!("{round}, cut at {power} of {steps}, {torn:?}: {e}"));
            let seen = contents(&mut store);
            assert!(
                seen == before || seen == after,
                "{round}: a state in between, cut at {power} of {steps}, {torn:?}"
            );
            let recovering = recovery.0.borrow().operations;
            for power in 0..recovering {
                let again = Flash::of(Chip { power: Some(power), torn, ..flash.copy() });
                assert_eq!(mount(&again).err(), Some(MountError::Flash));
                assert_eq!(contents(&mut mount(&Flash::of(again.copy())).unwrap()), seen);
            }
            // And it continues.
            if seen == before {
                change(&mut store, round).unwrap();
            }
            assert_eq!(contents(&mut mount(&recovery).unwrap()), after);
        };
        // Every step of some changes, and for all changes the beginning, the end and the steps around an
        // erasure.
        for power in 0..steps {
            let near = |step: usize| power.abs_diff(step) < 4;
            if near(0)
                || near(steps)
                || (power + usize::from(round)).is_multiple_of(41)
                || erased.iter().any(|&step| near(step))
            {
                check(power, Torn::FirstHalf);
            }
        }
        for step in erased {
            check(step - 1, Torn::SecondHalf);
            check(step - 1, Torn::Middle);
        }
    }
    assert!(erasures > 2 * MIN_SECTORS, "the log turned over: {erasures} sectors erased");
}

#[test]
fn what_cut_off_insertions_leave_does_not_add_up() {
    let mut chip = nearly_full().copy();
    for power in 0..200 {
        let flash = Flash::of(Chip { power: None, ..chip });
        let mut store = mount(&flash).unwrap();
        // Somewhere in the second or third of three entries.
        flash.0.borrow_mut().power = Some(140 + power);
        let _ = insert(&mut store, 100, 1500, 4);
        chip = flash.copy();
    }
    let mut store = mount(&Flash::of(chip)).unwrap();
    let _ = store.delete(name(100));
    insert(&mut store, 100, 1500, 4).unwrap();
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let flash = nearly_full();
    let mut store = mount(&flash).unwrap();
    for round in 0..48 {
        CHANGES[usize::from(round) % CHANGES.len()](&mut store, round).unwrap();
    }
    let seen = contents(&mut store);
    let image = flash.copy();
    let (mut refused, mut same) = (0, 0);
    let bits = 8 * image.bytes.len();
    // Every bit of the words at either end of a sector, which mark it, and a sample of the others.
    let edge = |bit: usize| [0, SECTOR - 1].contains(&(bit / 8 % SECTOR));
    for bit in (0..bits).filter(|&bit| edge(bit) || bit.is_multiple_of(37)) {
        let mut image = image.clone();
        image.bytes[bit / 8] ^= 1 << (bit % 8);
        match mount(&Flash::of(image)) {
            Ok(mut store) => {
                assert_eq!(contents(&mut store), seen, "bit {bit}");
                same += 1;
            }
            Err(error) => {
                assert_eq!(error, MountError::Damaged, "bit {bit}");
                refused += 1;
            }
        }
    }
    assert!(refused > 1000 && same > 1000, "{refused} refused, {same} unchanged");
}

#[test]
fn a_flipped_bit_brings_no_old_password_and_no_deleted_key_back() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let changed = AuthenticationKey::from_password(b"changed");
    let payload = [&[0, 1, 38], changed.as_bytes().as_slice()].concat();
    admin.send(&mut device, Command::PutTemplate, &template(4, 10)).unwrap();
    let before = chip(&mut device);
    admin.send(&mut device, Command::DeleteObject, &[0, 4, 6]).unwrap();
    admin.send(&mut device, Command::ChangeAuthenticationKey, &payload).unwrap();
    let image = chip(&mut device);
    let altered = |&at: &usize| image.bytes[at] != before.bytes[at];
    let first = (2 * SECTOR..image.bytes.len()).find(altered).unwrap();
    let last = (2 * SECTOR..image.bytes.len()).rfind(altered).unwrap();
    assert!((200..600).contains(&(last - first)), "the object's deletion, and the new key");
    for bit in (8 * first..8 * last).step_by(3) {
        let mut image = image.clone();
        image.bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(mut device) = try_start(Flash::of(image)) {
            assert!(Session::open(&mut device, 1, b"password").is_err(), "bit {bit}");
            assert_eq!(observe(&mut device).len(), 2, "bit {bit}");
        }
    }
}

#[test]
fn a_device_whose_reset_failed_is_dead_until_it_starts_again() {
    let steps = {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        device.flash().unwrap().0.borrow_mut().operations = 0;
        admin.send(&mut device, Command::ResetDevice, &[]).unwrap();
        device.flash().unwrap().0.borrow().operations
    };
    for power in 0..steps {
        let flash = Flash::blank();
        let mut device = try_start(flash.clone()).ok().unwrap();
        let mut admin = Session::admin(&mut device);
        admin.send(&mut device, Command::PutTemplate, &template(4, 10)).unwrap();
        flash.0.borrow_mut().power = Some(power);
        let storage_failed = Err(DeviceError::StorageFailed);
        assert_eq!(admin.send(&mut device, Command::ResetDevice, &[]), storage_failed);
        // The flash works again, but its contents are unknown.
        flash.0.borrow_mut().power = None;
        let image = flash.copy();
        assert_eq!(
            admin.send(&mut device, Command::PutTemplate, &template(5, 10)),
            Err(DeviceError::InvalidSession)
        );
        assert_eq!(Session::open(&mut device, 1, b"password").err(), Some(DeviceError::StorageFailed));
        assert_eq!(flash.copy().bytes, image.bytes);
        let mut device = start(image);
        let objects = observe(&mut device).len();
        // Unless it failed before it began.
        assert_eq!(objects, if power < 8 { 4 } else { 2 }, "cut at {power} of {steps}");
    }
}
