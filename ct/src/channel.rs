//! The secure channel at both ends: session keys, cryptograms, MACs, encryption, and the password that keys
//! come from.
//!
//! A key has two halves, for encryption and for authentication. Where a message is opened, only the second is
//! secret: the contents of an authentic message determine branches, as they must.

use sshsm_protocol::Command;
use sshsm_protocol::channel::{
    Agreement, AuthenticationKey, Challenge, ChannelError, DeviceChannel, HostChannel,
};
use sshsm_protocol::frame::{HEADER_LENGTH, MAX_MESSAGE};

use crate::secret::{hidden, hide, publish, published, reveal, secret_bytes};

const KEY: [u8; AuthenticationKey::LENGTH] = [0x42; AuthenticationKey::LENGTH];
const HALF: usize = AuthenticationKey::LENGTH / 2;
const HOST: Challenge = [1; 8];
const CARD: Challenge = [2; 8];

/// Which half of a key is secret.
#[derive(Clone, Copy)]
enum Secret {
    None,
    Authentication,
    Both,
}

fn key(secret: Secret) -> AuthenticationKey {
    let mut key = KEY;
    match secret {
        Secret::None => {}
        Secret::Authentication => hide(&mut key[HALF..]),
        Secret::Both => hide(&mut key),
    }
    AuthenticationKey::from_bytes(key)
}

fn device(secret: Secret) -> DeviceChannel {
    DeviceChannel::derive(0, &key(secret), HOST, CARD)
}

fn host(secret: Secret) -> HostChannel {
    let card = device(Secret::None).card_cryptogram();
    HostChannel::derive(0, &key(secret), HOST, CARD, card).expect("the same key")
}

/// Two ends with a session between them; the second and third values are the secrets that each has.
fn pair(at_host: Secret, at_device: Secret) -> (HostChannel, DeviceChannel) {
    let (mut host, mut device) = (host(at_host), device(at_device));
    let mut message = host.authenticate();
    publish(&mut message);
    let (cryptogram, mac) = (*message[4..].first_chunk().unwrap(), *message.last_chunk().unwrap());
    device.authenticate(cryptogram, mac).expect("the same key");
    (host, device)
}

/// AUTHENTICATE SESSION: right, with a wrong cryptogram, with a wrong MAC.
#[inline(never)]
pub fn authenticate_session() {
    let message = host(Secret::None).authenticate();
    let (cryptogram, mac): (Challenge, [u8; 8]) =
        (*message[4..].first_chunk().unwrap(), *message.last_chunk().unwrap());
    reveal(&mut device(Secret::Both).card_cryptogram());
    let authenticate = |cryptogram, mac| device(Secret::Both).authenticate(cryptogram, mac);
    assert_eq!(authenticate(cryptogram, mac), Ok(()));
    for at in [0, 7] {
        let mut wrong = cryptogram;
        wrong[at] ^= 1;
        assert_eq!(authenticate(wrong, mac), Err(ChannelError::WrongCryptogram));
        let mut wrong = mac;
        wrong[at] ^= 1;
        assert_eq!(authenticate(cryptogram, wrong), Err(ChannelError::WrongMac));
    }
}

/// The device opens a message: right, and wrong in the first and the last byte of its MAC.
#[inline(never)]
pub fn device_open() {
    for wrong in [None, Some(8), Some(1)] {
        let (mut host, mut device) = pair(Secret::None, Secret::Authentication);
        let mut message = [0; MAX_MESSAGE];
        let length = host.seal(Command::Echo, b"hello", &mut message).expect("it fits");
        let message = &mut message[..length];
        if let Some(from_end) = wrong {
            message[length - from_end] ^= 1;
        }
        let opened = device.open(message).map(|frame| frame.payload);
        assert_eq!(opened, if wrong.is_some() { Err(ChannelError::WrongMac) } else { Ok(&b"hello"[..]) });
    }
}

/// The host checks the device's cryptogram: right, and wrong in the first and the last byte.
#[inline(never)]
pub fn card_cryptogram() {
    let card = device(Secret::None).card_cryptogram();
    for wrong in [None, Some(0), Some(7)] {
        let mut card = card;
        if let Some(at) = wrong {
            card[at] ^= 1;
        }
        let derived = HostChannel::derive(0, &key(Secret::Both), HOST, CARD, card).map(|_| ());
        assert_eq!(derived, if wrong.is_some() { Err(ChannelError::WrongCryptogram) } else { Ok(()) });
    }
    reveal(&mut host(Secret::Both).authenticate()[HEADER_LENGTH + 1..]);
}

/// The host opens an answer: right, and wrong in the first and the last byte of its MAC.
#[inline(never)]
pub fn host_open() {
    for wrong in [None, Some(8), Some(1)] {
        let (mut host, mut device) = pair(Secret::Authentication, Secret::None);
        let mut message = [0; MAX_MESSAGE];
        message[HEADER_LENGTH + 1..][..4].copy_from_slice(&[0x81, 0, 1, 7]);
        let length = device.seal(4, &mut message).expect("it fits");
        let message = &mut message[..length];
        if let Some(from_end) = wrong {
            message[length - from_end] ^= 1;
        }
        let opened = host.open(message).map(|frame| frame.payload);
        assert_eq!(opened, if wrong.is_some() { Err(ChannelError::WrongMac) } else { Ok(&[7][..]) });
    }
}

/// Both ends encrypt, and the device decrypts: keys and content are secret, except for the frame's header,
/// which is acted on.
#[inline(never)]
pub fn encryption() {
    let (mut host, mut device) = pair(Secret::Both, Secret::Both);
    let mut message = [0; MAX_MESSAGE];
    let length = host.seal(Command::Echo, &hidden([7; 40]), &mut message).expect("it fits");
    let message = &mut message[..length];
    reveal(&mut message[HEADER_LENGTH + 1..]);
    let payload = published(device.open(message)).expect("authentic").payload;
    assert_eq!(payload.len(), 40);
    assert_eq!(secret_bytes(payload), 40);
    let mut message = [0; MAX_MESSAGE];
    hide(&mut message[HEADER_LENGTH + 1..][..40]);
    let length = device.seal(40, &mut message).expect("it fits");
    reveal(&mut message[HEADER_LENGTH + 1..length]);
}

/// A session with P-256 keys, from the Diffie-Hellman secrets on: valid, and with an error in the receipt's
/// first and last byte.
#[inline(never)]
pub fn agreement() {
    let (ephemeral, fixed, point) = ([3; 32], [4; 32], [5; 65]);
    let agreement = Agreement {
        ephemeral_secret: &hidden(ephemeral),
        static_secret: &hidden(fixed),
        host_point: &point,
        device_point: &point,
    };
    let (_, mut receipt) = DeviceChannel::agree(0, &agreement);
    reveal(&mut receipt);
    assert!(HostChannel::agree(0, &agreement, receipt).is_ok());
    for at in [0, 15] {
        let mut wrong = receipt;
        wrong[at] ^= 1;
        let refused = HostChannel::agree(0, &agreement, wrong).err();
        assert_eq!(refused, Some(ChannelError::WrongReceipt));
    }
}

/// The key of a password; how long that is may show.
#[inline(never)]
pub fn password() {
    let mut key = *AuthenticationKey::from_password(&hidden(*b"correct horse")).as_bytes();
    reveal(&mut key);
}
