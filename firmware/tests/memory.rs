//! How much memory a device takes: never more than its board has, whatever was put, deleted or forged. Every allocation
//! is counted here, so the tests of this file take turns.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "model/case.rs"]
mod case;
#[path = "model/forger.rs"]
mod forger;
mod model;
#[path = "model/rsa_key.rs"]
mod rsa_key;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Chip, Flash, ModelDevice, Object, SECTOR, SECTORS, Session, root_key, start};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use sshsm_boards::BOARDS;
use sshsm_firmware::MountError;
use sshsm_firmware::crypto::key;
use sshsm_firmware::store::memory::{BESIDE, Room};
use sshsm_firmware::store::{Attributes, Name, Record, Store, StoreError};
use sshsm_protocol::object::Origin;
use sshsm_protocol::ssh::rules::{Patterns, Rules};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, Domains, Label, ObjectId, ObjectType,
};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The one test that counts.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The peak memory of a function, and how much of it is still in use afterwards.
fn cost<T>(what: impl FnOnce() -> T) -> (usize, usize, T) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = what();
    (HEAP.peak_usage() - before, HEAP.current_usage().saturating_sub(before), result)
}

/// The widest of the boards'.
const WORD: usize = 16;

fn name(id: u16) -> Name {
    (ObjectType::Opaque, ObjectId::new(id).unwrap())
}

fn attributes(length: usize) -> Attributes {
    Attributes {
        capabilities: Capabilities::ALL,
        length: u16::try_from(length).unwrap(),
        domains: Domains::ALL,
        algorithm: Algorithm::OpaqueData,
        origin: Origin::IMPORTED,
        label: Label::new("x").unwrap(),
        delegated_capabilities: Capabilities::NONE,
    }
}

fn blank(sectors: usize) -> Flash<WORD> {
    Flash::with_words(Chip { bytes: vec![0xff; SECTOR * sectors], ..Chip::blank() })
}

fn mount(flash: &Flash<WORD>) -> Result<Store<Flash<WORD>>, MountError> {
    Store::mount(flash.clone(), &root_key(), |_| Ok(()))
}

fn put(store: &mut Store<Flash<WORD>>, id: u16, length: usize) -> Result<(), StoreError> {
    store.insert(name(id), &attributes(length), &vec![1; length]).map(drop)
}

/// Puts objects until the store is full; returns the first id that found no room.
fn fill(store: &mut Store<Flash<WORD>>, first: u16) -> u16 {
    for record in (0..Record::LOG_ENTRIES)
        .map(Record::LogEntry)
        .chain((0..Record::MEMORIES).map(Record::SshMemory))
        .chain([Record::Options, Record::LogState, Record::DeviceKey])
        .chain([Record::AttestationKey, Record::AttestationCertificate])
    {
        store.put_record(record, &vec![1; record.max_length()]).unwrap();
    }
    // The longest as long as there are pages to spare for one page for each of the others.
    let mut length = 3000;
    for id in first.. {
        loop {
            let info = store.storage_info();
            let pages = info.free_pages.saturating_sub(info.free_records);
            length = if usize::from(pages) * 126 < length { 1 } else { length };
            match put(store, id, length) {
                Ok(()) => break,
                Err(StoreError::Full) if length > 1 => length = 1,
                Err(error) => {
                    assert_eq!(error, StoreError::Full);
                    return id;
                }
            }
        }
    }
    unreachable!("stores are finite")
}

fn churn(store: &mut Store<Flash<WORD>>, deletions: u16) {
    for id in 1..=deletions {
        put(store, id, 1).unwrap();
        store.delete(name(id)).unwrap();
    }
}

#[test]
fn a_mount_takes_the_same_memory_empty_full_and_full_after_deletions_and_fits_every_board() {
    let _turn = turn();
    for board in BOARDS {
        let (name, heap) = (board.name, board.memory.heap);
        let sectors = board.memory.sectors() as usize;
        let room = Room::of(heap, sectors);
        assert_eq!(room, Room::ALL, "{name}");
        let bound = room.bytes(sectors);
        let flash = blank(sectors);
        drop(mount(&flash).unwrap());
        let (_, empty, store) = cost(|| mount(&flash).unwrap());
        drop(store);
        for deletions in [0, 1000] {
            let flash = blank(sectors);
            let mut store = mount(&flash).unwrap();
            churn(&mut store, deletions);
            let next = fill(&mut store, 2000);
            assert_eq!(next - 2000 == 256, name != "nrf52840", "{name} holds {}", next - 2000);
            drop(store);
            let flash = Flash::with_words(flash.copy());
            let (peak, held, store) = cost(|| mount(&flash).unwrap());
            assert!(peak <= bound, "{name}: {peak} bytes at the mount, {bound} are set aside");
            assert_eq!(held, empty, "{name}: the memory held depends on the history");
            assert_eq!(store.iter().count(), usize::from(next - 2000));
        }
    }
}

#[test]
fn a_full_store_refuses_before_it_takes_any_memory() {
    let _turn = turn();
    let flash = blank(128);
    let mut store = mount(&flash).unwrap();
    churn(&mut store, 600);
    let next = fill(&mut store, 2000);
    let body = [1; 3000];
    let operations = flash.0.borrow().operations;
    for length in [1, 3000] {
        let attributes = attributes(length);
        let (peak, _, refused) = cost(|| store.insert(name(next), &attributes, &body[..length]));
        assert_eq!((peak, refused.err()), (0, Some(StoreError::Full)), "{length} bytes");
    }
    assert_eq!(flash.0.borrow().operations, operations, "nothing was written");
}

#[test]
fn flash_contents_forged_without_the_root_key_take_no_memory() {
    let _turn = turn();
    let bound = Room::ALL.bytes(128);
    // Heads of objects and of records, and pieces.
    for first in [6 << 16 | 1_u32, 0x1000, 1 << 31 | 1000] {
        let flash = Flash::small(128);
        let mut store = Store::mount(flash.clone(), &root_key(), |_| Ok(())).unwrap();
        store.insert(name(1), &attributes(1), &[1]).unwrap();
        drop(store);
        forger::put_all(&flash, (first..first + 3000).map(|key| (key, [0, 0, 0, 1])));
        let (peak, _, refused) = cost(|| Store::mount(flash.clone(), &root_key(), |_| Ok(())).err());
        assert_eq!(refused, Some(MountError::Damaged), "{first:#x}");
        assert!(peak <= bound, "{first:#x}: {peak} bytes");
    }
}

/// A client's action.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u16, usize),
    Replace(u16, usize),
    Delete(u16),
    /// Deletes an object, and puts its content under another name.
    Rename(u16, u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    // More names than can be remembered, so that some are forgotten and reused.
    let id = 1..1200_u16;
    let length = prop_oneof![8 => 0..40_usize, 2 => 500..520_usize, 1 => 1000..3000_usize];
    prop_oneof![
        40 => (id.clone(), length.clone()).prop_map(|(id, length)| Step::Put(id, length)),
        10 => (id.clone(), length).prop_map(|(id, length)| Step::Replace(id, length)),
        38 => id.clone().prop_map(Step::Delete),
        12 => (id.clone(), id).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_keeps_the_bound_and_loses_nothing_that_was_acknowledged(
        steps in proptest::collection::vec(step(), 2560),
    ) {
        let _turn = turn();
        let sectors = 66;
        let bound = Room::ALL.bytes(sectors);
        let flash = blank(sectors);
        let mut store = mount(&flash).unwrap();
        let mut model: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let mut fill = 0_u8;
        for step in steps.into_iter().chain([Step::Restart]) {
            fill = fill.wrapping_add(1);
            match step {
                Step::Put(id, length) => {
                    let body = vec![fill; length];
                    match store.insert(name(id), &attributes(length), &body) {
                        Ok(_) => assert!(model.insert(id, body).is_none(), "an object was replaced"),
                        Err(StoreError::Exists) => assert!(model.contains_key(&id)),
                        Err(error) => assert_eq!(error, StoreError::Full),
                    }
                }
                Step::Replace(id, length) => {
                    let body = vec![fill; length];
                    match store.replace(name(id), &attributes(length), &body) {
                        Ok(_) => assert!(model.insert(id, body).is_some()),
                        Err(StoreError::NotFound) => assert!(!model.contains_key(&id)),
                        Err(error) => assert_eq!(error, StoreError::Full),
                    }
                }
                Step::Delete(id) => {
                    let gone = store.delete(name(id));
                    assert_eq!(gone.is_ok(), model.remove(&id).is_some(), "{gone:?}");
                }
                Step::Rename(from, to) => {
                    let Ok(body) = store.body(name(from)) else { continue };
                    assert_eq!(Some(&*body), model.get(&from));
                    store.delete(name(from)).unwrap();
                    model.remove(&from);
                    if store.insert(name(to), &attributes(body.len()), &body).is_ok() {
                        assert!(model.insert(to, body.to_vec()).is_none());
                    }
                }
                Step::Restart => {
                    drop(store);
                    let (peak, _, mounted) = cost(|| mount(&flash));
                    store = mounted.unwrap();
                    assert!(peak <= bound, "{peak} bytes at the mount, {bound} are set aside");
                    let ids: Vec<u16> = store.iter().map(|info| info.id.get()).collect();
                    assert!(ids.iter().eq(model.keys()), "objects were lost or came back");
                    for (id, body) in &model {
                        assert_eq!(&*store.body(name(*id)).unwrap(), body, "{id}");
                    }
                }
            }
        }
    }
}

/// A device whose store is full except for the objects of a test.
fn full_device(spare: u16) -> (ModelDevice, Session, usize) {
    let before = HEAP.current_usage();
    let mut device = start(Chip { bytes: vec![0xff; SECTOR * 128], ..Chip::blank() });
    let mut admin = Session::admin(&mut device);
    for id in 2000..2000 + 255 - spare {
        let object = Object::new(id, Algorithm::OpaqueData, &[]).with(&[7; 300]);
        admin.send(&mut device, Command::PutOpaque, &object).unwrap();
    }
    (device, admin, before)
}

/// The commands with the highest memory use: 4096-bit numbers, whole messages, and the entire store. Half of
/// the reserve is for gaps between allocations that an allocator cannot use.
#[test]
fn no_command_takes_more_memory_than_boards_set_aside() {
    let _turn = turn();
    let (mut device, mut admin, before) = full_device(8);
    let (rsa, private) = rsa_key::LARGE[1];
    let body = key::expand(AsymmetricAlgorithm::Rsa4096, private).unwrap();
    let object = |id, algorithm| Object::new(id, algorithm, Capability::ALL);
    let label: [u8; 32] = Sha256::digest(b"").into();
    let flash = 128 * SECTOR;
    let mut send = |command: Command, payload: &[u8]| {
        HEAP.reset_peak_usage();
        let answer =
            admin.send(&mut device, command, payload).unwrap_or_else(|error| panic!("{command}: {error}"));
        let beside = HEAP.peak_usage() - before - flash - Room::ALL.bytes(128);
        assert!(2 * beside <= BESIDE, "{command}: {beside} bytes besides the store");
        answer
    };
    send(Command::PutAsymmetricKey, &object(1, rsa).with(private));
    send(Command::SignPkcs1, &[[0, 1].as_slice(), &[7; 32]].concat());
    send(Command::SignPss, &[[0, 1, 33, 0, 32].as_slice(), &[7; 32]].concat());
    send(Command::GenerateAsymmetricKey, &object(2, Algorithm::Ecp521).with(&[]));
    send(Command::SignEcdsa, &[[0, 2].as_slice(), &[7; 32]].concat());
    send(Command::PutWrapKey, &object(3, rsa).delegating(Capabilities::ALL, private));
    let modulus = key::public(AsymmetricAlgorithm::Rsa4096, &body).unwrap();
    send(Command::PutPublicWrapKey, &object(4, rsa).delegating(Capabilities::ALL, modulus));
    let target = [0, 4, ObjectType::AsymmetricKey.code(), 0, 1, 52, 26, 33];
    let blob = send(Command::ExportRsaWrapped, &[&target, label.as_slice()].concat());
    send(Command::DeleteObject, &[0, 1, ObjectType::AsymmetricKey.code()]);
    send(Command::ImportRsaWrapped, &[[0, 3, 26, 33].as_slice(), &blob, &label].concat());
    send(Command::PutOpaque, &object(9, Algorithm::OpaqueData).with(&[7; 2000]));
    send(Command::GetOpaque, &[0, 9]);
    send(Command::ListObjects, &[]);
    send(Command::GetLogEntries, &[]);
    send(Command::DeleteObject, &[0, 1, ObjectType::AsymmetricKey.code()]);
    send(Command::GenerateAsymmetricKey, &object(1, rsa).with(&[]));
    send(Command::ResetDevice, &[]);
}

/// The longest request, of which no name is allowed.
#[test]
fn no_request_takes_more_memory_than_boards_set_aside_to_be_signed_or_explained() {
    let _turn = turn();
    let mut case = case::Case::new();
    case.principals = vec![&[1; 2700]];
    case.rules = Rules { allow_principals: Some(Patterns::decode(b"zone-*\0").unwrap()), ..Rules::default() };
    let before = HEAP.current_usage();
    let (mut device, mut session) = case.device();
    device.platform().forgetful = true;
    let payload = case.payload();
    for command in [Command::ExplainSshRequest, Command::SignSshCertificate] {
        HEAP.reset_peak_usage();
        let answer = session.send(&mut device, command, &payload);
        assert_eq!(answer.is_ok(), command == Command::ExplainSshRequest, "{answer:?}");
        let beside = HEAP.peak_usage() - before - SECTORS * SECTOR - Room::ALL.bytes(SECTORS);
        assert!(beside <= BESIDE, "{command}: {beside} bytes besides the store");
    }
}
