//! A whole device with a secret stored key: in its flash, the key's sealed bytes are hidden, so that the key
//! that is read and unsealed is secret, byte for byte. Its public attributes (that it exists, what it may do)
//! stay public.

use sshsm_firmware::crypto::Hash;
use sshsm_protocol::channel::{AuthenticationKey, Handshake};
use sshsm_protocol::frame::{ERROR_CODE, MAX_MESSAGE};
use sshsm_protocol::{Algorithm, Capabilities, Command, DeviceError, Domains, ObjectType};

use crate::model::{Chip, Flash, ModelDevice, Object, Session, try_start};
use crate::secret::{hide, publish, secret_bytes};

/// Bytes of an object's entry in flash before its body: `key u32 ‖ revision u32 ‖ tag[16] ‖ sealed[100]`.
const BEFORE_BODY: usize = 4 + 4 + 16 + 100;
/// The object that is secret.
const ID: u16 = 5;

/// A device, a session with all rights, and object [`ID`], stored as `body`; the bytes of the body that
/// `secret` names are hidden.
struct Stored {
    device: ModelDevice,
    admin: Session,
}

impl Stored {
    fn new(
        command: Command,
        object_type: ObjectType,
        payload: &[u8],
        body: usize,
        secret: std::ops::Range<usize>,
    ) -> Self {
        let flash = Flash::of(Chip::blank());
        let mut device = try_start(flash.clone()).expect("a new device starts");
        let mut admin = Session::admin(&mut device);
        admin.send(&mut device, command, payload).expect("a new object");
        let bytes = &mut flash.0.borrow_mut().bytes;
        let key = (u32::from(object_type.code()) << 16 | u32::from(ID)).to_le_bytes();
        let entry = bytes.windows(4).rposition(|bytes| bytes == key).expect("the object's entry");
        let body = &mut bytes[entry + BEFORE_BODY..][..body];
        hide(&mut body[secret]);
        Self { device, admin }
    }

    /// The device's answer to a plain message, and how many of its bytes are secret before they are
    /// published: what is sent is public.
    fn transact(&mut self, message: &[u8]) -> (Vec<u8>, usize) {
        let mut response = [0; MAX_MESSAGE];
        let length = self.device.handle(message, &mut response);
        let response = &mut response[..length];
        let secret = secret_bytes(response);
        publish(response);
        (response.to_vec(), secret)
    }

    /// The device's answer to a command in the session.
    fn command(&mut self, command: Command, payload: &[u8]) -> (Result<Vec<u8>, DeviceError>, usize) {
        let mut message = [0; MAX_MESSAGE];
        let length = self.admin.0.seal(command, payload, &mut message).expect("it fits");
        let (mut response, secret) = self.transact(&message[..length]);
        let frame = self.admin.0.open(&mut response).expect("an answer of the session");
        let answer = match frame.code {
            ERROR_CODE => Err(DeviceError::from_code(frame.payload[0]).expect("a defined error")),
            _ => Ok(frame.payload.to_vec()),
        };
        (answer, secret)
    }
}

fn object(algorithm: Algorithm) -> Object {
    Object { id: ID, algorithm, domains: Domains::ALL, capabilities: Capabilities::ALL }
}

fn authentication_key(secret: std::ops::Range<usize>) -> Stored {
    let payload = object(Algorithm::Aes128YubicoAuthentication).delegating(Capabilities::ALL, &[0x42; 32]);
    Stored::new(Command::PutAuthenticationKey, ObjectType::AuthenticationKey, &payload, 32, secret)
}

/// The message that opens a session with the secret key, and the host's end of it.
fn create(stored: &mut Stored, expected_secret: usize) -> Session {
    let key = AuthenticationKey::from_bytes([0x42; 32]);
    let handshake = Handshake::new(ID, &key, [1; 8]);
    let (reply, secret) = stored.transact(&handshake.create());
    assert_eq!(secret, expected_secret, "the cryptogram is made with the secret key");
    Session(handshake.created(&reply).expect("the same key"))
}

/// CREATE SESSION finds the key and AUTHENTICATE SESSION authenticates the host with it: valid, wrong
/// cryptogram, wrong MAC.
#[inline(never)]
pub fn create_session() {
    let mut stored = authentication_key(0..32);
    for wrong in [None, Some(4), Some(19)] {
        let mut message = create(&mut stored, 8).0.authenticate();
        if let Some(at) = wrong {
            message[at] ^= 1;
        }
        let (reply, _) = stored.transact(&message);
        assert_eq!(reply[0] == ERROR_CODE, wrong.is_some());
    }
}

/// A session whose MAC keys are secret: a valid command, and one with a wrong MAC.
#[inline(never)]
pub fn session() {
    let mut stored = authentication_key(16..32);
    for wrong in [false, true] {
        let mut session = create(&mut stored, 8);
        let message = session.0.authenticate();
        assert_ne!(stored.transact(&message).0[0], ERROR_CODE);
        let mut message = [0; MAX_MESSAGE];
        let length = session.0.seal(Command::Echo, b"hello", &mut message).expect("it fits");
        message[length - 1] ^= u8::from(wrong);
        let (mut reply, secret) = stored.transact(&message[..length]);
        if wrong {
            assert_eq!(reply[0], ERROR_CODE);
        } else {
            assert_eq!(secret, 8, "the answer's MAC");
            assert_eq!(session.0.open(&mut reply).expect("authentic").payload, b"hello");
        }
    }
}

/// VERIFY HMAC with each hash: right, and wrong in the first and the last byte.
#[inline(never)]
pub fn verify_hmac() {
    for (algorithm, hash, block) in [
        (Algorithm::HmacSha1, Hash::Sha1, 64),
        (Algorithm::HmacSha256, Hash::Sha256, 64),
        (Algorithm::HmacSha384, Hash::Sha384, 128),
        (Algorithm::HmacSha512, Hash::Sha512, 128),
    ] {
        let payload = object(algorithm).with(&[9; 20]);
        let mut stored =
            Stored::new(Command::PutHmacKey, ObjectType::HmacKey, &payload, 2 * block, 0..2 * block);
        let data = [&ID.to_be_bytes()[..], b"what do ya want for nothing?"].concat();
        let (authenticator, secret) = stored.command(Command::SignHmac, &data);
        let authenticator = authenticator.expect("an authenticator");
        assert!(secret > authenticator.len(), "the authenticator, and the MAC of the answer");
        for wrong in [None, Some(0), Some(hash.length() - 1)] {
            let mut authenticator = authenticator.clone();
            if let Some(at) = wrong {
                authenticator[at] ^= 1;
            }
            let payload = [&data[..2], &authenticator, &data[2..]].concat();
            let (verdict, secret) = stored.command(Command::VerifyHmac, &payload);
            assert!(secret > 0, "the verdict depends on the secret, and no branch does");
            assert_eq!(verdict, Ok(vec![u8::from(wrong.is_none())]));
        }
    }
}

/// UNWRAP DATA with each length of key: right, and wrong in the first and the last byte of the tag.
#[inline(never)]
pub fn unwrap_data() {
    for (algorithm, length) in
        [(Algorithm::Aes128CcmWrap, 16), (Algorithm::Aes192CcmWrap, 24), (Algorithm::Aes256CcmWrap, 32)]
    {
        let payload = object(algorithm).delegating(Capabilities::ALL, &vec![9; length]);
        let mut stored = Stored::new(Command::PutWrapKey, ObjectType::WrapKey, &payload, length, 0..length);
        let data = [&ID.to_be_bytes()[..], b"some data"].concat();
        let (sealed, secret) = stored.command(Command::WrapData, &data);
        let sealed = sealed.expect("sealed data");
        assert!(secret > 16, "the ciphertext, its tag, and the MAC of the answer");
        for wrong in [None, Some(16), Some(1)] {
            let mut payload = [&data[..2], &sealed].concat();
            if let Some(from_end) = wrong {
                let at = payload.len() - from_end;
                payload[at] ^= 1;
            }
            let (opened, _) = stored.command(Command::UnwrapData, &payload);
            let expected =
                if wrong.is_some() { Err(DeviceError::InvalidData) } else { Ok(data[2..].to_vec()) };
            assert_eq!(opened, expected);
        }
    }
}

/// DECRYPT OTP (docs/protocol.md, "Yubico OTP", vector E): right, wrong tag, wrong private id, wrong checksum.
#[inline(never)]
pub fn decrypt_otp() {
    const PASSWORD: [u8; 16] = *b"\x2f\x5d\x71\xa4\x91\x5d\xec\x30\x4a\xa1\x3c\xcf\x97\xbb\x0d\xbb";
    let key: [u8; 16] = std::array::from_fn(|at| at as u8);
    let payload = object(Algorithm::Aes128YubicoOtp).with(&[&[0x78, 0x56, 0x34, 0x12], &key[..]].concat());
    let mut stored = Stored::new(Command::PutOtpAeadKey, ObjectType::OtpAeadKey, &payload, 20, 4..20);
    let id = ID.to_be_bytes();
    let mut aead = |private_id: [u8; 6]| {
        let (aead, secret) = stored.command(Command::CreateOtpAead, &[&id[..], &key, &private_id].concat());
        assert!(secret > 22, "the credential's ciphertext and tag");
        aead.expect("an AEAD")
    };
    let (right, other) = (aead([1, 2, 3, 4, 5, 6]), aead([1, 2, 3, 4, 5, 7]));
    let mut forged = right.clone();
    forged[35] ^= 1;
    let mut wrong = PASSWORD;
    wrong[0] ^= 1;
    for (aead, password, accepted) in [
        (&right, PASSWORD, true),
        (&forged, PASSWORD, false),
        (&other, PASSWORD, false),
        (&right, wrong, false),
    ] {
        let (answer, _) = stored.command(Command::DecryptOtp, &[&id[..], aead, &password].concat());
        let expected = if accepted { Ok(vec![1, 0, 1, 1, 1, 0]) } else { Err(DeviceError::InvalidOtp) };
        assert_eq!(answer, expected);
    }
}
