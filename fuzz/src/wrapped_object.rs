//! An object under a wrap key: bytes that were never an object are refused, and an imported object can be
//! described, exported and deleted. The input is sealed by the device itself, which has one key for data and
//! objects.

use sshsm_protocol::Command;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::wrapped::WrappedObject;

use super::device::{self, ID};

pub fn run(plaintext: &[u8]) {
    if let Ok(object) = WrappedObject::decode(plaintext) {
        let mut buffer = vec![0; plaintext.len()];
        let mut writer = Writer::new(&mut buffer);
        object.encode(&mut writer).expect("as long as it was");
        assert_eq!(writer.written(), plaintext);
    }
    let mut device = device::provisioned();
    let mut session = device::session(&mut device);
    let plaintext = &plaintext[..plaintext.len().min(1900)];
    let wrapped = device::ask(&mut session, Command::WrapData, &[&ID, plaintext].concat());
    let Some(wrapped) = wrapped else { return };
    if let Some(name) = device::ask(&mut session, Command::ImportWrapped, &[&ID, &wrapped[..]].concat()) {
        let [kind, high, low] = name[..] else { panic!("{name:?} is not a type and id") };
        let info = device::ask(&mut session, Command::GetObjectInfo, &[high, low, kind]);
        assert_eq!(info.map(|info| info.len()), Some(66));
        let _ = device::ask(&mut session, Command::ExportWrapped, &[ID[0], ID[1], kind, high, low]);
        let _ = device::ask(&mut session, Command::DeleteObject, &[high, low, kind]);
    }
    drop(session);
    device::still_works(&mut device);
}
