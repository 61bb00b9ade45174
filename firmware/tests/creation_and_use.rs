//! The requirements for creating and using an object are the same for every family: each rule, for each
//! command, is tested by a case that only this rule can refuse.
#![cfg(all(feature = "opaque", feature = "hmac", feature = "symmetric", feature = "otp"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{ModelDevice, Object, Session, fresh, put_authentication_key};
use sshsm_protocol::codec::Reader;
use sshsm_protocol::object::{ObjectInfo, Origin};
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains, ObjectType};

const REFUSED: Result<Vec<u8>, DeviceError> = Err(DeviceError::InsufficientPermissions);

fn domain(number: u16) -> Domains {
    Domains::single(number).unwrap()
}

/// A session in domain 1 with these rights, that may pass on `delegated`.
fn session(device: &mut ModelDevice, capabilities: Capabilities, delegated: Capabilities) -> Session {
    let mut admin = Session::admin(device);
    let _ = admin.send(device, Command::DeleteObject, &[0, 9, 2]);
    put_authentication_key(device, &mut admin, 9, b"limited", domain(1), capabilities, delegated)
}

fn without(capability: Capability) -> Capabilities {
    Capabilities::from_bits(!Capabilities::of(&[capability]).bits())
}

fn info(device: &mut ModelDevice, session: &mut Session, id: u16, object_type: ObjectType) -> ObjectInfo {
    let [high, low] = id.to_be_bytes();
    let reply = session.send(device, Command::GetObjectInfo, &[high, low, object_type.code()]).unwrap();
    ObjectInfo::decode(&mut Reader::new(&reply)).unwrap()
}

/// A command that creates objects of some algorithms: the bytes after the header, and the length reported
/// afterwards.
struct Creation {
    command: Command,
    capability: Capability,
    object_type: ObjectType,
    origin: Origin,
    algorithms: &'static [(Algorithm, usize, u16)],
}

const CREATIONS: &[Creation] = &[
    Creation {
        command: Command::PutHmacKey,
        capability: Capability::PutMacKey,
        object_type: ObjectType::HmacKey,
        origin: Origin::IMPORTED,
        algorithms: &[
            (Algorithm::HmacSha1, 64, 128),
            (Algorithm::HmacSha256, 64, 128),
            (Algorithm::HmacSha384, 128, 256),
            (Algorithm::HmacSha512, 128, 256),
        ],
    },
    Creation {
        command: Command::GenerateHmacKey,
        capability: Capability::GenerateHmacKey,
        object_type: ObjectType::HmacKey,
        origin: Origin::GENERATED,
        algorithms: &[
            (Algorithm::HmacSha1, 0, 128),
            (Algorithm::HmacSha256, 0, 128),
            (Algorithm::HmacSha384, 0, 256),
            (Algorithm::HmacSha512, 0, 256),
        ],
    },
    Creation {
        command: Command::PutSymmetricKey,
        capability: Capability::PutSymmetricKey,
        object_type: ObjectType::SymmetricKey,
        origin: Origin::IMPORTED,
        algorithms: &[(Algorithm::Aes128, 16, 16), (Algorithm::Aes192, 24, 24), (Algorithm::Aes256, 32, 32)],
    },
    Creation {
        command: Command::GenerateSymmetricKey,
        capability: Capability::GenerateSymmetricKey,
        object_type: ObjectType::SymmetricKey,
        origin: Origin::GENERATED,
        algorithms: &[(Algorithm::Aes128, 0, 16), (Algorithm::Aes192, 0, 24), (Algorithm::Aes256, 0, 32)],
    },
    Creation {
        command: Command::PutOtpAeadKey,
        capability: Capability::PutOtpAeadKey,
        object_type: ObjectType::OtpAeadKey,
        origin: Origin::IMPORTED,
        algorithms: &[
            (Algorithm::Aes128YubicoOtp, 20, 20),
            (Algorithm::Aes192YubicoOtp, 28, 28),
            (Algorithm::Aes256YubicoOtp, 36, 36),
        ],
    },
    Creation {
        command: Command::GenerateOtpAeadKey,
        capability: Capability::GenerateOtpAeadKey,
        object_type: ObjectType::OtpAeadKey,
        origin: Origin::GENERATED,
        algorithms: &[
            (Algorithm::Aes128YubicoOtp, 4, 20),
            (Algorithm::Aes192YubicoOtp, 4, 28),
            (Algorithm::Aes256YubicoOtp, 4, 36),
        ],
    },
    Creation {
        command: Command::PutOpaque,
        capability: Capability::PutOpaque,
        object_type: ObjectType::Opaque,
        origin: Origin::IMPORTED,
        algorithms: &[(Algorithm::OpaqueData, 1, 1), (Algorithm::OpaqueX509Certificate, 1968, 1968)],
    },
];

#[test]
fn created_objects_are_described_as_they_were_made() {
    for creation in CREATIONS {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        for (id, &(algorithm, length, reported)) in (1..).zip(creation.algorithms) {
            let object = Object::new(id, algorithm, &[Capability::ExportableUnderWrap]);
            let reply = admin.send(&mut device, creation.command, &object.with(&vec![7; length]));
            assert_eq!(reply, Ok(id.to_be_bytes().to_vec()), "{} {algorithm}", creation.command);
            let info = info(&mut device, &mut admin, id, creation.object_type);
            assert_eq!((info.algorithm, info.length), (algorithm, reported));
            assert_eq!((info.origin, info.sequence), (creation.origin, 0));
            assert_eq!(info.capabilities, Capabilities::of(&[Capability::ExportableUnderWrap]));
            assert_eq!((info.domains, info.delegated_capabilities), (Domains::ALL, Capabilities::NONE));
        }
    }
}

#[test]
fn creation_needs_its_capability_and_stays_within_domains_and_delegated_capabilities() {
    for creation in CREATIONS {
        let &(algorithm, length, _) = creation.algorithms.first().unwrap();
        let delegated = Capabilities::of(&[Capability::SignHmac]);
        let object = |capabilities: &[Capability], domains| {
            Object { domains, ..Object::new(5, algorithm, capabilities) }.with(&vec![7; length])
        };
        let good = object(&[Capability::SignHmac], domain(1));
        let mut device = fresh();
        let mut unable = session(&mut device, without(creation.capability), delegated);
        assert_eq!(unable.send(&mut device, creation.command, &good), REFUSED, "{}", creation.command);
        let mut able = session(&mut device, Capabilities::of(&[creation.capability]), delegated);
        let mut create = |payload: &[u8]| able.send(&mut device, creation.command, payload);
        assert_eq!(create(&object(&[Capability::SignHmac], domain(2))), REFUSED);
        assert_eq!(create(&object(&[Capability::VerifyHmac], domain(1))), REFUSED);
        assert_eq!(create(&object(&[], Domains::NONE)), Err(DeviceError::InvalidData));
        assert_eq!(create(&good), Ok(vec![0, 5]));
        assert_eq!(create(&good), Err(DeviceError::ObjectExists));
    }
}

#[test]
fn creation_refuses_other_algorithms_and_lengths() {
    for creation in CREATIONS {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        for &algorithm in Algorithm::ALL {
            let known = creation.algorithms.iter().find(|(known, ..)| *known == algorithm);
            let (_, length, _) = *known.unwrap_or(&creation.algorithms[0]);
            let mut create = |length| {
                let payload = Object::new(5, algorithm, &[]).with(&vec![7; length]);
                admin.send(&mut device, creation.command, &payload)
            };
            if known.is_none() {
                assert_eq!(create(length), Err(DeviceError::InvalidData), "{} {algorithm}", creation.command);
                continue;
            }
            // HMAC keys may be shorter, opaque objects longer.
            if length > 0 && creation.command != Command::PutHmacKey && length != 1968 {
                assert_eq!(create(length - 1), Err(DeviceError::WrongLength));
            }
            if creation.command != Command::PutOpaque {
                assert_eq!(create(length + 1), Err(DeviceError::WrongLength));
            }
        }
        assert_eq!(
            admin.send(&mut device, Command::ListObjects, &[2, creation.object_type.code()]),
            Ok(vec![])
        );
    }
}

/// A command that uses a key: the command that puts such a key, its bytes after the header, and the bytes
/// after the key's id when it is used.
struct Use {
    command: Command,
    capability: Capability,
    put: Command,
    algorithm: Algorithm,
    body: &'static [u8],
    payload: &'static [u8],
    /// The error that shows that the device got as far as the data, if the payload is not valid data.
    refused: Option<DeviceError>,
}

const fn hmac(command: Command, capability: Capability) -> Use {
    let (put, algorithm) = (Command::PutHmacKey, Algorithm::HmacSha256);
    Use { command, capability, put, algorithm, body: &[7; 32], payload: &[1; 32], refused: None }
}

const fn aes(command: Command, capability: Capability) -> Use {
    let (put, algorithm) = (Command::PutSymmetricKey, Algorithm::Aes128);
    Use { command, capability, put, algorithm, body: &[7; 16], payload: &[1; 32], refused: None }
}

const fn otp(
    command: Command,
    capability: Capability,
    payload: &'static [u8],
    refused: Option<DeviceError>,
) -> Use {
    let (put, algorithm) = (Command::PutOtpAeadKey, Algorithm::Aes128YubicoOtp);
    Use { command, capability, put, algorithm, body: &[7; 20], payload, refused }
}

const USES: &[Use] = &[
    hmac(Command::SignHmac, Capability::SignHmac),
    hmac(Command::VerifyHmac, Capability::VerifyHmac),
    aes(Command::DecryptEcb, Capability::DecryptEcb),
    aes(Command::EncryptEcb, Capability::EncryptEcb),
    aes(Command::DecryptCbc, Capability::DecryptCbc),
    aes(Command::EncryptCbc, Capability::EncryptCbc),
    otp(Command::CreateOtpAead, Capability::CreateOtpAead, &[1; 22], None),
    otp(Command::RandomizeOtpAead, Capability::RandomizeOtpAead, &[], None),
    otp(Command::DecryptOtp, Capability::DecryptOtp, &[1; 52], Some(DeviceError::InvalidOtp)),
];

#[test]
fn use_needs_its_capability_on_session_and_key_and_a_shared_domain() {
    for used in USES {
        let mut device = fresh();
        let mut admin = Session::admin(&mut device);
        let mut put = |id, capabilities, domains| {
            let object = Object { id, algorithm: used.algorithm, domains, capabilities };
            admin.send(&mut device, used.put, &object.with(used.body)).unwrap();
        };
        let only = Capabilities::of(&[used.capability]);
        put(1, only, domain(1).union(domain(2)));
        put(2, without(used.capability), domain(1));
        put(3, Capabilities::ALL, domain(2));
        let payload = |id: u16| [&id.to_be_bytes(), used.payload].concat();

        let mut unable = session(&mut device, without(used.capability), Capabilities::NONE);
        for id in [1, 2, 3, 4] {
            assert_eq!(unable.send(&mut device, used.command, &payload(id)), REFUSED, "{}", used.command);
        }
        assert_eq!(unable.send(&mut device, used.command, &[]), REFUSED, "before the length");

        let mut able = session(&mut device, only, Capabilities::NONE);
        let mut send = |payload: &[u8]| able.send(&mut device, used.command, payload);
        assert_eq!(send(&payload(1)).err(), used.refused, "{}", used.command);
        assert_eq!(send(&payload(2)), REFUSED, "{}", used.command);
        for id in [0, 3, 4, 0xffff] {
            assert_eq!(send(&payload(id)), Err(DeviceError::ObjectNotFound), "{}", used.command);
        }
        assert_eq!(send(&payload(4)[..1]), Err(DeviceError::WrongLength), "before the object");
    }
}
