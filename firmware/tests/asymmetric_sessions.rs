//! Sessions with P-256 authentication keys: both sides prove possession of their keys, and no one gets in
//! without one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Flash, ModelDevice, Object, Session, fresh, plain, start, try_start};
use p256::SecretKey;
use p256::elliptic_curve::ecdh::diffie_hellman;
use p256::elliptic_curve::sec1::ToSec1Point;
use sshsm_firmware::HALF_OPEN;
use sshsm_protocol::channel::{Agreement, AuthenticationKey, ChannelError, HostChannel, Point};
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains};

const ALGORITHM: Algorithm = Algorithm::Ecp256YubicoAuthentication;

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn point(secret: &SecretKey) -> Point {
    secret.public_key().to_sec1_point(false).as_bytes().try_into().unwrap()
}

fn ecdh(secret: &SecretKey, point: &[u8]) -> [u8; 32] {
    let point = p256::PublicKey::from_sec1_bytes(point).unwrap();
    (*diffie_hellman(secret.to_nonzero_scalar(), point.as_affine()).raw_secret_bytes()).into()
}

fn device_point(device: &mut ModelDevice) -> Point {
    let mut answer = plain(device, Command::GetDevicePublicKey.code(), &[]).unwrap();
    assert_eq!(answer[0], ALGORITHM.code());
    answer[0] = 4;
    answer.try_into().unwrap()
}

fn hello(id: u16, point: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), point].concat()
}

/// Puts key 2, public half of `key`, with these rights, in all domains.
fn put(device: &mut ModelDevice, key: &SecretKey, capabilities: &[Capability]) {
    let payload = Object::new(2, ALGORITHM, capabilities).delegating(Capabilities::NONE, &point(key)[1..]);
    let mut admin = Session::admin(device);
    assert_eq!(admin.send(device, Command::PutAuthenticationKey, &payload), Ok(vec![0, 2]));
    admin.send(device, Command::CloseSession, &[]).unwrap();
}

/// Opens a session with key 2 as a holder of `key` who knows the device as `device_key`.
fn open(device: &mut ModelDevice, key: &SecretKey, device_key: &Point) -> Result<Session, ChannelError> {
    let ephemeral = secret(0x22);
    let host_point = point(&ephemeral);
    let answer = plain(device, Command::CreateSession.code(), &hello(2, &host_point)).unwrap();
    assert_eq!(answer.len(), 82);
    let agreement = Agreement {
        ephemeral_secret: &ecdh(&ephemeral, &answer[1..66]),
        static_secret: &ecdh(key, device_key),
        host_point: &host_point,
        device_point: answer[1..66].try_into().unwrap(),
    };
    HostChannel::agree(answer[0], &agreement, answer[66..].try_into().unwrap()).map(Session)
}

/// A device with key 2, the public half of `secret(0x11)`.
fn prepared() -> (ModelDevice, SecretKey, Point) {
    let mut device = fresh();
    let key = secret(0x11);
    put(&mut device, &key, &[Capability::GetPseudoRandom, Capability::ChangeAuthenticationKey]);
    let known = device_point(&mut device);
    (device, key, known)
}

#[test]
fn a_session_ends_with_its_key_before_its_first_message_too() {
    let (mut device, key, known) = prepared();
    let mut admin = Session::admin(&mut device);
    let mut used = open(&mut device, &key, &known).unwrap();
    used.send(&mut device, Command::Echo, b"x").unwrap();
    let unheard = open(&mut device, &key, &known).unwrap();
    admin.send(&mut device, Command::DeleteObject, &[0, 2, 2]).unwrap();
    for mut session in [used, unheard] {
        assert_eq!(session.send(&mut device, Command::Echo, b"x"), Err(DeviceError::InvalidSession));
    }
}

#[test]
fn a_session_works_at_once_with_the_rights_of_its_key() {
    let (mut device, key, known) = prepared();
    let mut session = open(&mut device, &key, &known).unwrap();
    let data = [0x5a; 256];
    assert_eq!(session.send(&mut device, Command::Echo, &data).unwrap(), data);
    assert_eq!(session.send(&mut device, Command::GetPseudoRandom, &[0, 9]).unwrap().len(), 9);
    assert_eq!(
        session.send(&mut device, Command::ResetDevice, &[]),
        Err(DeviceError::InsufficientPermissions)
    );
    let info = session.send(&mut device, Command::GetObjectInfo, &[0, 2, 2]).unwrap();
    assert_eq!(info[10..12], [0, 72], "length");
    assert_eq!(info[15], ALGORITHM.code());
}

#[test]
fn the_device_takes_a_new_ephemeral_key_each_time() {
    let (mut device, _, _) = prepared();
    let request = hello(2, &point(&secret(0x22)));
    let mut create = || plain(&mut device, Command::CreateSession.code(), &request).unwrap();
    assert_ne!(create()[1..66], create()[1..66]);
}

#[test]
fn a_host_without_the_private_key_is_refused_from_its_first_message_on() {
    let (mut device, key, known) = prepared();
    let ephemeral = secret(0x22);
    let host_point = point(&ephemeral);
    let answer = plain(&mut device, Command::CreateSession.code(), &hello(2, &host_point)).unwrap();
    let stranger = Agreement {
        ephemeral_secret: &ecdh(&ephemeral, &answer[1..66]),
        static_secret: &ecdh(&secret(0x12), &known),
        host_point: &host_point,
        device_point: answer[1..66].try_into().unwrap(),
    };
    let receipt = answer[66..].try_into().unwrap();
    assert_eq!(HostChannel::agree(answer[0], &stranger, receipt).err(), Some(ChannelError::WrongReceipt));

    // It continues all the same.
    let (_, own) = sshsm_protocol::channel::DeviceChannel::agree(answer[0], &stranger);
    let mut session = Session(HostChannel::agree(answer[0], &stranger, own).unwrap());
    let echo = |session: &mut Session, device: &mut _| session.send(device, Command::Echo, b"x");
    for _ in 0..3 {
        assert_eq!(echo(&mut session, &mut device), Err(DeviceError::AuthenticationFailed));
    }

    let mut session = open(&mut device, &key, &known).unwrap();
    assert_eq!(echo(&mut session, &mut device), Ok(b"x".to_vec()));
}

#[test]
fn a_host_that_knows_another_device_notices() {
    let (mut device, key, _) = prepared();
    let refused = open(&mut device, &key, &point(&secret(0x33))).err();
    assert_eq!(refused, Some(ChannelError::WrongReceipt));
}

#[test]
fn there_is_nothing_to_authenticate() {
    let (mut device, key, known) = prepared();
    let mut session = open(&mut device, &key, &known).unwrap();
    let message = [&[session.0.session_id()], [0; 16].as_slice()].concat();
    let authenticate = Command::AuthenticateSession.code();
    assert_eq!(plain(&mut device, authenticate, &message), Err(DeviceError::InvalidSession));
    session.send(&mut device, Command::Echo, b"unharmed").unwrap();
}

#[test]
fn a_session_gives_way_until_its_first_message_and_not_after() {
    let (mut device, key, known) = prepared();
    let mut sessions: Vec<_> = (0..16).map(|_| open(&mut device, &key, &known).unwrap()).collect();
    // The first is the one that waits longest.
    sessions[0].send(&mut device, Command::Echo, b"x").unwrap();
    device.platform().clock.advance(HALF_OPEN);
    let newcomer = open(&mut device, &key, &known).unwrap();
    assert_eq!(newcomer.0.session_id(), 1);
    sessions[1] = newcomer;
    for session in &mut sessions {
        session.send(&mut device, Command::Echo, b"x").unwrap();
    }
    let request = hello(2, &point(&key));
    let create = Command::CreateSession.code();
    assert_eq!(plain(&mut device, create, &request), Err(DeviceError::SessionsFull));
}

#[test]
fn each_kind_of_key_takes_its_own_kind_of_challenge() {
    let (mut device, _, _) = prepared();
    let create = Command::CreateSession.code();
    let point = point(&secret(0x22));
    for (id, length) in [(1, 65), (1, 9), (2, 8), (2, 64)] {
        let answer = plain(&mut device, create, &hello(id, &point[..length]));
        assert_eq!(answer, Err(DeviceError::WrongLength), "{length} bytes for key {id}");
    }
    assert_eq!(plain(&mut device, create, &hello(3, &point)), Err(DeviceError::ObjectNotFound));
}

fn bad_points() -> [Point; 5] {
    let good = point(&secret(0x22));
    let mut off_curve = good;
    off_curve[64] ^= 1;
    let mut hybrid = good;
    hybrid[0] = 6 | good[64] & 1;
    let mut zero = [0; 65];
    zero[0] = 4;
    let mut large = [0xff; 65];
    large[0] = 4;
    [off_curve, hybrid, zero, large, [0; 65]]
}

#[test]
fn an_ephemeral_key_off_the_curve_is_refused_and_takes_no_session() {
    let (mut device, key, known) = prepared();
    for point in bad_points() {
        let answer = plain(&mut device, Command::CreateSession.code(), &hello(2, &point));
        assert_eq!(answer, Err(DeviceError::InvalidData), "{point:02x?}");
    }
    assert_eq!(open(&mut device, &key, &known).unwrap().0.session_id(), 0);
}

#[test]
fn an_authentication_key_is_as_long_as_its_algorithm_says_and_on_the_curve() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let good = point(&secret(0x22));
    let mut try_both = |algorithm: Algorithm, key: &[u8]| {
        let payload = Object::new(2, algorithm, &[]).delegating(Capabilities::NONE, key);
        let put = admin.send(&mut device, Command::PutAuthenticationKey, &payload);
        let payload = [&[0, 1, algorithm.code()], key].concat();
        let change = admin.send(&mut device, Command::ChangeAuthenticationKey, &payload);
        assert_eq!(put, change);
        assert_eq!(admin.send(&mut device, Command::ListObjects, &[]), Ok(vec![0, 1, 2, 0]), "unchanged");
        put
    };
    for length in [32, 63] {
        assert_eq!(try_both(ALGORITHM, &good[1..=length]), Err(DeviceError::WrongLength));
    }
    let aes = Algorithm::Aes128YubicoAuthentication;
    assert_eq!(try_both(aes, &good[1..]), Err(DeviceError::WrongLength));
    assert_eq!(try_both(Algorithm::Ecp256, &good[1..]), Err(DeviceError::InvalidData));
    // Without their first byte two of the bad points are one good and one bad.
    for point in bad_points().iter().filter(|point| point[0] == 4) {
        assert_eq!(try_both(ALGORITHM, &point[1..]), Err(DeviceError::InvalidData));
    }
}

#[test]
fn a_key_changes_its_kind_from_inside_its_session_which_goes_on() {
    let (mut device, key, known) = prepared();
    let other = secret(0x13);
    let mut session = open(&mut device, &key, &known).unwrap();
    let payload = [&[0, 2, ALGORITHM.code()], &point(&other)[1..]].concat();
    assert_eq!(session.send(&mut device, Command::ChangeAuthenticationKey, &payload), Ok(vec![0, 2]));
    session.send(&mut device, Command::Echo, b"x").unwrap();
    assert!(open(&mut device, &key, &known).is_err());

    let mut session = open(&mut device, &other, &known).unwrap();
    let aes = AuthenticationKey::from_password(b"two");
    let payload = [&[0, 2, 38], aes.as_bytes().as_slice()].concat();
    assert_eq!(session.send(&mut device, Command::ChangeAuthenticationKey, &payload), Ok(vec![0, 2]));
    let mut session = Session::open(&mut device, 2, b"two").unwrap();
    let info = session.send(&mut device, Command::GetObjectInfo, &[0, 2, 2]).unwrap();
    assert_eq!((&info[10..12], info[15]), ([0, 40].as_slice(), 38));

    let payload = [&[0, 2, ALGORITHM.code()], &point(&key)[1..]].concat();
    assert_eq!(session.send(&mut device, Command::ChangeAuthenticationKey, &payload), Ok(vec![0, 2]));
    let mut session = open(&mut device, &key, &known).unwrap();
    let info = session.send(&mut device, Command::GetObjectInfo, &[0, 2, 2]).unwrap();
    assert_eq!((&info[10..12], info[15]), ([0, 72].as_slice(), ALGORITHM.code()));
}

#[test]
fn an_asymmetric_key_is_within_its_creators_rights_like_any_other() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let rights = Capabilities::of(&[Capability::PutAuthenticationKey]);
    let mut limited = model::put_authentication_key(
        &mut device,
        &mut admin,
        3,
        b"three",
        Domains::ALL,
        rights,
        Capabilities::NONE,
    );
    let payload = Object::new(2, ALGORITHM, &[Capability::GetPseudoRandom])
        .delegating(Capabilities::NONE, &point(&secret(0x11))[1..]);
    let answer = limited.send(&mut device, Command::PutAuthenticationKey, &payload);
    assert_eq!(answer, Err(DeviceError::InsufficientPermissions));
}

#[test]
fn the_devices_own_key_survives_a_restart_and_not_a_reset() {
    let flash = Flash::blank();
    let mut device = try_start(flash.clone()).ok().unwrap();
    let known = device_point(&mut device);
    p256::PublicKey::from_sec1_bytes(&known).unwrap();
    assert_eq!(device_point(&mut device), known);
    let mut device = start(flash.copy());
    assert_eq!(device_point(&mut device), known);
    Session::admin(&mut device).send(&mut device, Command::ResetDevice, &[]).unwrap();
    let renewed = device_point(&mut device);
    assert_ne!(renewed, known);
    assert_eq!(device_point(&mut device), renewed);
}
