//! Opaque objects come back as they were put.
#![cfg(feature = "opaque")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Object, Session, fresh, put_authentication_key};
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::object::NewObject;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains};

#[test]
fn any_bytes_up_to_a_whole_message_come_back_under_both_algorithms_without_a_capability() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for algorithm in [Algorithm::OpaqueData, Algorithm::OpaqueX509Certificate] {
        for length in [1, 256, 1234, 1968, MAX_INNER_PAYLOAD - NewObject::LENGTH] {
            let data: Vec<u8> = (0..length).map(|i| i.to_le_bytes()[0]).collect();
            let payload = Object::new(3, algorithm, &[]).with(&data);
            admin.send(&mut device, Command::PutOpaque, &payload).unwrap();
            assert_eq!(admin.send(&mut device, Command::GetOpaque, &[0, 3]), Ok(data));
            admin.send(&mut device, Command::DeleteObject, &[0, 3, 1]).unwrap();
        }
    }
}

#[test]
fn nothing_cannot_be_put() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let payload = Object::new(3, Algorithm::OpaqueData, &[]).with(&[]);
    assert_eq!(admin.send(&mut device, Command::PutOpaque, &payload), Err(DeviceError::WrongLength));
}

#[test]
fn reading_needs_the_sessions_capability_and_a_shared_domain() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (id, domain) in [(3, 1), (4, 2)] {
        let object = Object::new(id, Algorithm::OpaqueData, &[Capability::GetOpaque]);
        let payload = Object { domains: Domains::single(domain).unwrap(), ..object }.with(b"data");
        admin.send(&mut device, Command::PutOpaque, &payload).unwrap();
    }
    let mut open = |id, capabilities| {
        let (domain, none) = (Domains::single(1).unwrap(), Capabilities::NONE);
        put_authentication_key(&mut device, &mut admin, id, b"", domain, capabilities, none)
    };
    let get = Capabilities::of(&[Capability::GetOpaque]);
    let mut unable = open(8, Capabilities::from_bits(!get.bits()));
    let mut able = open(9, get);
    let refused = Err(DeviceError::InsufficientPermissions);
    assert_eq!(unable.send(&mut device, Command::GetOpaque, &[0, 3]), refused);
    assert_eq!(able.send(&mut device, Command::GetOpaque, &[0, 3]), Ok(b"data".to_vec()));
    for id in [[0, 4], [0, 5], [0xff, 0xff]] {
        assert_eq!(able.send(&mut device, Command::GetOpaque, &id), Err(DeviceError::ObjectNotFound));
    }
}
