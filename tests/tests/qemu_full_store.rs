//! The real firmware on an emulated board whose store is full, and which has forgotten the names of deleted
//! objects: its heap is as small as that of any board.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../firmware/tests/model/rsa_key.rs"]
mod rsa_key;

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};
use sshsm_firmware::platform::RootKey;
use sshsm_firmware::store::{Attributes, MAX_TOMBSTONES, Store, StoreError};
use sshsm_protocol::channel::HostChannel;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::frame::{MAX_MESSAGE, RESPONSE_FLAG};
use sshsm_protocol::link::{Activity, ResetReason};
use sshsm_protocol::object::{NewObject, Origin};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId, ObjectType,
};
use sshsm_tests::link::Link;
use sshsm_tests::needs;
use sshsm_tests::qemu::Board;
use std::path::Path;
use std::{cell::RefCell, fs, rc::Rc};

/// The board's flash, as its emulator keeps it in a file.
#[derive(Clone)]
struct Flash(Rc<RefCell<Vec<u8>>>);

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        bytes.copy_from_slice(&self.0.borrow()[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        512 * 1024
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        self.0.borrow_mut()[from as usize..to as usize].fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        let mut flash = self.0.borrow_mut();
        flash[offset as usize..].iter_mut().zip(bytes).for_each(|(old, new)| *old &= new);
        Ok(())
    }
}

impl MultiwriteNorFlash for Flash {}

/// Does to the store of a powered-off board what a client could do in a few hours: deletes more objects than
/// can be remembered, and puts as many as there is room for.
fn churn_and_fill(device: &Path) {
    let root_key = RootKey::from_bytes(fs::read(device.join("root-key")).unwrap().try_into().unwrap());
    let flash = Flash(Rc::new(RefCell::new(fs::read(device.join("flash")).unwrap())));
    let mut store = Store::mount(flash.clone(), &root_key, |_| panic!("a device has started here")).unwrap();
    let put = |store: &mut Store<_>, id: usize, length: u16| {
        let attributes = Attributes {
            capabilities: Capabilities::NONE,
            length,
            domains: Domains::ALL,
            algorithm: Algorithm::OpaqueData,
            origin: Origin::IMPORTED,
            label: Label::new("x").unwrap(),
            delegated_capabilities: Capabilities::NONE,
        };
        let name = (ObjectType::Opaque, ObjectId::new(u16::try_from(id).unwrap()).unwrap());
        store.insert(name, &attributes, &vec![b'x'; length.into()]).map(|_| name)
    };
    for id in 1000..1000 + MAX_TOMBSTONES + 50 {
        let name = put(&mut store, id, 1).unwrap();
        store.delete(name).unwrap();
    }
    let refused = (2000..).find_map(|id| put(&mut store, id, 500).err()).unwrap();
    assert_eq!(refused, StoreError::Full);
    assert_eq!(store.storage_info().free_records, 0);
    fs::write(device.join("flash"), &*flash.0.borrow()).unwrap();
}

/// Has a command carried out in a session.
fn send(
    link: &mut Link,
    session: &mut HostChannel,
    command: Command,
    payload: &[u8],
) -> Result<Vec<u8>, DeviceError> {
    let mut message = [0; MAX_MESSAGE];
    let length = session.seal(command, payload, &mut message).unwrap();
    let mut answer = link.transact(&message[..length]);
    let frame = session.open(&mut answer).unwrap();
    if frame.code == command.code() | RESPONSE_FLAG {
        return Ok(frame.payload.to_vec());
    }
    Err(DeviceError::from_code(frame.payload[0]).unwrap())
}

fn object(id: u16, algorithm: Algorithm, capability: Option<Capability>, rest: &[u8]) -> Vec<u8> {
    let object = NewObject {
        id: Some(ObjectId::new(id).unwrap()),
        label: Label::default(),
        domains: Domains::ALL,
        capabilities: Capabilities::of(capability.as_slice()),
        algorithm,
    };
    let mut header = [0; NewObject::LENGTH];
    object.encode(&mut Writer::new(&mut header)).unwrap();
    [header.as_slice(), rest].concat()
}

#[test]
fn a_board_starts_and_works_when_its_store_is_full_and_has_forgotten_deleted_names() {
    let device = tempfile::tempdir().unwrap();
    let key = object(5, Algorithm::Ecp256, Some(Capability::SignEcdsa), &[]);
    {
        let board = needs!(Board::start(device.path()));
        let mut link = Link::open(board.port());
        let mut session = link.session();
        send(&mut link, &mut session, Command::GenerateAsymmetricKey, &key).unwrap();
    }
    churn_and_fill(device.path());

    let board = needs!(Board::start(device.path()));
    let mut link = Link::open(board.port());
    let mut session = link.session();
    let mut send = |command, payload: &[u8]| send(&mut link, &mut session, command, payload);
    assert_eq!(send(Command::ListObjects, &[]).unwrap().len(), 4 * 256);
    let one_more = object(9, Algorithm::OpaqueData, None, b"x");
    assert_eq!(send(Command::PutOpaque, &one_more), Err(DeviceError::StorageFailed));
    let sign = [[0, 5].as_slice(), &[7; 32]].concat();
    assert!(send(Command::SignEcdsa, &sign).is_ok());
    // The command with the highest memory use: generating the longest key takes longer than a test may, and
    // putting one uses the same numbers.
    let (rsa_4096, private) = rsa_key::LARGE[1];
    assert_eq!(rsa_4096, Algorithm::Rsa4096);
    for id in [2000_u16, 2001, 2002, 2003] {
        let [high, low] = id.to_be_bytes();
        send(Command::DeleteObject, &[high, low, ObjectType::Opaque.code()]).unwrap();
    }
    send(Command::PutAsymmetricKey, &object(6, rsa_4096, Some(Capability::SignPkcs), private)).unwrap();
    assert_eq!(send(Command::SignPkcs1, &[[0, 6].as_slice(), &[7; 32]].concat()).unwrap().len(), 512);
    assert!(send(Command::SignEcdsa, &sign).is_ok());

    let status = link.status();
    assert_eq!((status.reset, status.activity), (ResetReason::PowerOn, Activity::Idle));
    assert!(!board.said().contains("panicked"), "{}", board.said());
}
