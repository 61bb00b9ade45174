//! What the seal on the flash guarantees: nothing can be read without the root key, and nothing that an
//! attacker with only the flash puts there is accepted, even if its checksums are right.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "model/forger.rs"]
mod forger;
mod model;

use forger::{get, put, remove};
use model::{Flash, root_key};
use sshsm_firmware::MountError;
use sshsm_firmware::platform::RootKey;
use sshsm_firmware::store::{Attributes, Name, Record, Store, StoreError};
use sshsm_protocol::object::Origin;
use sshsm_protocol::{Algorithm, Capabilities, Domains, Label, ObjectId, ObjectType};

const SECRET: &[u8] = b"nobody reads this";
const FIRST: u16 = 1;
const SECOND: u16 = 2;
const LONG: u16 = 3;

fn name(id: u16) -> Name {
    (ObjectType::Template, ObjectId::new(id).unwrap())
}

/// The key of a template's head.
fn key(id: u16) -> u32 {
    6 << 16 | u32::from(id)
}

fn attributes(length: usize) -> Attributes {
    Attributes {
        capabilities: Capabilities::ALL,
        length: u16::try_from(length).unwrap(),
        domains: Domains::ALL,
        algorithm: Algorithm::TemplateSsh,
        origin: Origin::IMPORTED,
        label: Label::new("nor this label").unwrap(),
        delegated_capabilities: Capabilities::NONE,
    }
}

fn mount(flash: &Flash) -> Result<Store<Flash>, MountError> {
    Store::mount(flash.clone(), &root_key(), |_| Ok(()))
}

fn long_body() -> Vec<u8> {
    SECRET.repeat(100)
}

/// Two short objects of the same length, a long one, and a record.
fn filled() -> Flash {
    let flash = Flash::blank();
    let mut store = mount(&flash).unwrap();
    store.insert(name(FIRST), &attributes(SECRET.len()), SECRET).unwrap();
    store.insert(name(SECOND), &attributes(SECRET.len()), &[2; 17]).unwrap();
    store.insert(name(LONG), &attributes(long_body().len()), &long_body()).unwrap();
    store.put_record(Record::DeviceKey, SECRET).unwrap();
    flash
}

fn fork(flash: &Flash) -> Flash {
    Flash::of(flash.copy())
}

#[test]
fn neither_contents_nor_infos_can_be_read_in_flash() {
    let flash = filled();
    let mut store = mount(&flash).unwrap();
    assert_eq!(store.body(name(FIRST)).unwrap().as_slice(), SECRET);
    assert_eq!(store.body(name(LONG)).unwrap().as_slice(), long_body());
    assert_eq!(store.record(Record::DeviceKey).unwrap().unwrap().as_slice(), SECRET);
    let image = flash.copy().bytes;
    for text in [&SECRET[..8], &SECRET[9..], b"this label"] {
        assert!(!image.windows(text.len()).any(|bytes| bytes == text));
    }
}

#[test]
fn flash_under_another_root_key_is_refused_and_left_alone_in_the_middle_of_a_reset_too() {
    let steps = |change: &dyn Fn(&mut Store<Flash>)| {
        let flash = filled();
        let mut store = mount(&flash).unwrap();
        flash.0.borrow_mut().operations = 0;
        change(&mut store);
        flash.0.borrow().operations
    };
    let reset = |store: &mut Store<Flash>| {
        let _ = store.reset(|_| Ok(()));
    };
    // The last one: ready again, and nothing in it.
    for power in 0..=steps(&reset) {
        let flash = filled();
        let mut store = mount(&flash).unwrap();
        flash.0.borrow_mut().power = Some(power);
        reset(&mut store);
        let image = flash.copy();
        let flash = Flash::of(image.clone());
        let other = RootKey::from_bytes([1; RootKey::LENGTH]);
        let error = Store::mount(flash.clone(), &other, |_| Ok(())).err();
        assert_eq!(error, Some(MountError::OtherRootKey), "cut at {power}");
        assert!(error.unwrap().to_string().contains("another root key"));
        assert_eq!(flash.copy().bytes, image.bytes);
        mount(&flash).unwrap();
    }
}

#[test]
fn an_entry_that_was_altered_moved_or_removed_is_refused() {
    let image = filled();
    let refused = |what: &str, forge: &dyn Fn(&Flash)| {
        let flash = fork(&image);
        forge(&flash);
        assert_eq!(mount(&flash).err(), Some(MountError::Damaged), "{what}");
    };
    let head = get(&image, key(FIRST));
    // Revision, tag, sealed info; the body, which follows, is checked when it is used.
    for at in 0..head.len() - SECRET.len() {
        refused("altered", &|flash| {
            let mut head = head.clone();
            head[at] ^= 0x10;
            put(flash, key(FIRST), &head);
        });
    }
    refused("cut short", &|flash| put(flash, key(FIRST), &head[..head.len() - 1]));
    refused("made a deletion", &|flash| put(flash, key(FIRST), &head[..4 + 16 + 16 + 1]));
    refused("moved to another object", &|flash| put(flash, key(SECOND), &get(flash, key(LONG))));
    refused("moved to a new object", &|flash| put(flash, key(9), &head));
    refused("moved to another type", &|flash| put(flash, 2 << 16 | 1, &head));
    for key in [key(FIRST), key(SECOND), key(LONG), 3, (1 << 31) | 3] {
        refused("removed", &|flash| remove(flash, key));
    }
}

#[test]
fn what_was_not_live_together_is_refused() {
    let flash = filled();
    let old = get(&flash, key(FIRST));
    let device_key = get(&flash, 3);
    let mut store = mount(&flash).unwrap();
    store.replace(name(FIRST), &attributes(SECRET.len()), &[9; 17]).unwrap();
    store.put_record(Record::DeviceKey, &[8; 17]).unwrap();
    store.delete(name(SECOND)).unwrap();

    for (key, value) in [(key(FIRST), &old), (3, &device_key)] {
        let flash = fork(&flash);
        remove(&flash, key);
        put(&flash, key, value);
        assert_eq!(
            mount(&flash).err(),
            Some(MountError::Damaged),
            "an earlier entry in place of a later one"
        );
    }
    let forged = fork(&flash);
    put(&forged, key(FIRST), &old);
    let mut store = mount(&forged).unwrap();
    assert_eq!(store.body(name(FIRST)), Err(StoreError::Flash), "an earlier entry after a later one");

    // The same revision twice: what a power cut undid, and what was written instead.
    let base = filled();
    let one = fork(&base);
    mount(&one).unwrap().replace(name(FIRST), &attributes(1), &[1]).unwrap();
    let other = fork(&base);
    let mut store = mount(&other).unwrap();
    store.replace(name(FIRST), &attributes(1), &[2]).unwrap();
    store.put_record(Record::LogState, &[]).unwrap();
    put(&other, key(FIRST), &get(&one, key(FIRST)));
    assert_eq!(mount(&other).err(), Some(MountError::Damaged));
}

#[test]
fn a_body_that_is_not_its_heads_is_not_read() {
    let flash = filled();
    let (first, second) = (get(&flash, key(FIRST)), get(&flash, key(SECOND)));
    let head = first.len() - SECRET.len();
    let mut forgeries = vec![(FIRST, key(FIRST), [&first[..head], &second[head..]].concat())];
    for at in head..first.len() {
        let mut altered = first.clone();
        altered[at] ^= 1;
        forgeries.push((FIRST, key(FIRST), altered));
    }
    let pieces = [3, 4, 5].map(|revision| get(&flash, 1 << 31 | revision));
    let mut altered = pieces[0].clone();
    altered[511] ^= 1;
    forgeries.push((LONG, 1 << 31 | 3, altered));
    forgeries.push((LONG, 1 << 31 | 3, pieces[1].clone()));
    forgeries.push((LONG, 1 << 31 | 5, pieces[2][1..].to_vec()));
    for (id, key, value) in forgeries {
        let flash = fork(&flash);
        put(&flash, key, &value);
        let mut store = mount(&flash).unwrap();
        assert_eq!(store.body(name(id)), Err(StoreError::Flash));
        assert_eq!(store.body(name(SECOND)).unwrap().as_slice(), [2; 17]);
    }
}
