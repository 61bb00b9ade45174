//! No command leaves a device between two states: for each one that changes something, the power is cut at
//! every word programmed and every sector erased, on flash with words of 1, 4 and 16 bytes, and again while
//! the device recovers.
//!
//! A cut leaves a torn word (some of its bits cleared) or a sector full of noise. Everything is examined
//! after a restart: list, infos, contents, options, log. [`Strides`] says how thorough a run is.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use std::sync::LazyLock;

use model::{Chip, Flash, ModelDevice, Object, SECTOR, Session, Torn, root_key, try_start};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::PrivateKey;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use sha2::{Digest, Sha256};
use sshsm_firmware::MountError;
use sshsm_firmware::store::{Record, Store};
use sshsm_protocol::audit::{LogEntry, LogHeader};
use sshsm_protocol::channel::AuthenticationKey;
use sshsm_protocol::codec::Reader;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError};

/// Sectors of the flash: room for every scenario, and few enough that the log wraps around.
const SECTORS: usize = 12;
const WRAP: u16 = 0x77;
const EXPORTABLE: &[Capability] = &[Capability::ExportableUnderWrap];

/// Puts a device into the state before, and returns the command's payload.
type Prepare<const W: usize> = fn(&mut ModelDevice<W>, &mut Session) -> Vec<u8>;

/// Every command that changes persistent state.
fn mutating<const W: usize>() -> Vec<(Command, Prepare<W>)> {
    vec![
        (Command::ResetDevice, |_, _| vec![]),
        (Command::PutOpaque, |_, _| Object::new(9, Algorithm::OpaqueData, &[]).with(&[0x5a; 600])),
        (Command::PutAuthenticationKey, |_, _| {
            Object::new(9, Algorithm::Aes128YubicoAuthentication, &[]).delegating(Capabilities::ALL, &[9; 32])
        }),
        (Command::PutAsymmetricKey, |_, _| Object::new(9, Algorithm::Ed25519, &[]).with(&[7; 32])),
        (Command::GenerateAsymmetricKey, |_, _| Object::new(9, Algorithm::Ecp256, &[]).with(&[])),
        (Command::ImportWrapped, |device, admin| {
            let wrap = Object::new(
                WRAP,
                Algorithm::Aes128CcmWrap,
                &[Capability::ExportWrapped, Capability::ImportWrapped],
            );
            admin.send(device, Command::PutWrapKey, &wrap.delegating(Capabilities::ALL, &[3; 16])).unwrap();
            let blob = admin.send(device, Command::ExportWrapped, &[0, 0x77, 6, 0, 4]).unwrap();
            admin.send(device, Command::DeleteObject, &[0, 4, 6]).unwrap();
            [&[0, 0x77], blob.as_slice()].concat()
        }),
        (Command::PutWrapKey, |_, _| {
            Object::new(9, Algorithm::Aes256CcmWrap, &[]).delegating(Capabilities::ALL, &[9; 32])
        }),
        // SIGN HMAC is audited, whatever else is; and the templates are frozen.
        (Command::SetOption, |_, _| vec![3, 0, 2, Command::SignHmac.code(), 1]),
        (Command::SetOption, |_, _| vec![0x81, 0, 1, 1]),
        (Command::PutHmacKey, |_, _| Object::new(9, Algorithm::HmacSha256, &[]).with(&[9; 32])),
        (Command::DeleteObject, |_, _| vec![0, 4, 6]),
        (Command::GenerateHmacKey, |_, _| Object::new(9, Algorithm::HmacSha512, &[]).with(&[])),
        (Command::GenerateWrapKey, |_, _| {
            Object::new(9, Algorithm::Aes192CcmWrap, &[]).delegating(Capabilities::ALL, &[])
        }),
        (Command::PutTemplate, |_, _| Object::new(9, Algorithm::TemplateSsh, &[]).with(&[0xff; 1200])),
        (Command::PutOtpAeadKey, |_, _| Object::new(9, Algorithm::Aes128YubicoOtp, &[]).with(&[9; 20])),
        (Command::GenerateOtpAeadKey, |_, _| Object::new(9, Algorithm::Aes256YubicoOtp, &[]).with(&[9; 4])),
        (Command::SetLogIndex, |_, _| vec![0, 2]),
        (Command::ChangeAuthenticationKey, |_, _| {
            [&[0, 1, 38], AuthenticationKey::from_password(b"changed").as_bytes().as_slice()].concat()
        }),
        (Command::PutSymmetricKey, |_, _| Object::new(9, Algorithm::Aes192, &[]).with(&[9; 24])),
        (Command::GenerateSymmetricKey, |_, _| Object::new(9, Algorithm::Aes256, &[]).with(&[])),
        (Command::PutPublicWrapKey, |_, _| {
            Object::new(9, Algorithm::Rsa2048, &[]).delegating(Capabilities::ALL, &RSA.n().to_be_bytes())
        }),
        (Command::PutRsaWrappedKey, |device, admin| {
            put_rsa_wrap_key(device, admin);
            let key = || Object::new(5, Algorithm::Ed25519, EXPORTABLE);
            admin.send(device, Command::PutAsymmetricKey, &key().with(&[7; 32])).unwrap();
            let names = [0, 0x77, 3, 0, 5, 52, 26, 33];
            let blob =
                admin.send(device, Command::GetRsaWrappedKey, &[&names[..], &label()].concat()).unwrap();
            admin.send(device, Command::DeleteObject, &[0, 5, 3]).unwrap();
            [&[0, 0x77, 3], key().with(&[]).as_slice(), &[26, 33], &blob, &label()].concat()
        }),
        (Command::ImportRsaWrapped, |device, admin| {
            put_rsa_wrap_key(device, admin);
            let names = [0, 0x77, 6, 0, 4, 52, 26, 33];
            let blob =
                admin.send(device, Command::ExportRsaWrapped, &[&names[..], &label()].concat()).unwrap();
            admin.send(device, Command::DeleteObject, &[0, 4, 6]).unwrap();
            [&[0, 0x77, 26, 33], blob.as_slice(), &label()].concat()
        }),
    ]
}

/// Commands that generate one of the device's own keys when it is first needed, which is not a visible
/// change.
fn needing_a_key_of_its_own<const W: usize>() -> Vec<(Command, Prepare<W>)> {
    vec![
        (Command::GetOpaque, |_, _| vec![0, 0]),
        (Command::SignAttestationCertificate, |device, admin| {
            let key = Object::new(5, Algorithm::Ecp256, &[]);
            admin.send(device, Command::GenerateAsymmetricKey, &key.with(&[])).unwrap();
            vec![0, 5, 0, 0]
        }),
    ]
}

/// Commands that change nothing in flash, unless they are logged.
const READING: &[Command] = &[
    Command::Echo,
    Command::CreateSession,
    Command::AuthenticateSession,
    Command::SessionMessage,
    Command::GetDeviceInfo,
    Command::GetDevicePublicKey,
    Command::CloseSession,
    Command::GetStorageInfo,
    Command::SignPkcs1,
    Command::ListObjects,
    Command::DecryptPkcs1,
    Command::ExportWrapped,
    Command::GetLogEntries,
    Command::GetObjectInfo,
    Command::GetOption,
    Command::GetPseudoRandom,
    Command::SignHmac,
    Command::GetPublicKey,
    Command::SignPss,
    Command::SignEcdsa,
    Command::DeriveEcdh,
    Command::DecryptOaep,
    Command::VerifyHmac,
    Command::SignSshCertificate,
    Command::ExplainSshRequest,
    Command::GetTemplate,
    Command::DecryptOtp,
    Command::CreateOtpAead,
    Command::RandomizeOtpAead,
    Command::RewrapOtpAead,
    Command::WrapData,
    Command::UnwrapData,
    Command::SignEddsa,
    Command::BlinkDevice,
    Command::DecryptEcb,
    Command::EncryptEcb,
    Command::DecryptCbc,
    Command::EncryptCbc,
    Command::GetRsaWrappedKey,
    Command::ExportRsaWrapped,
    Command::RestartDevice,
    Command::GetDeviceStatus,
    Command::StartBootLoader,
];

static RSA: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::new(&mut ChaCha8Rng::seed_from_u64(3), 2048).unwrap());

/// The digest of an empty OAEP label.
fn label() -> [u8; 32] {
    Sha256::digest(b"").into()
}

fn put_rsa_wrap_key<const W: usize>(device: &mut ModelDevice<W>, admin: &mut Session) {
    let half = |capability| Object::new(WRAP, Algorithm::Rsa2048, &[capability]);
    let public = half(Capability::ExportWrapped).delegating(Capabilities::ALL, &RSA.n().to_be_bytes());
    admin.send(device, Command::PutPublicWrapKey, &public).unwrap();
    let factors: Vec<_> = RSA.primes().iter().flat_map(|prime| prime.to_be_bytes().to_vec()).collect();
    let private = half(Capability::ImportWrapped).delegating(Capabilities::ALL, &factors);
    admin.send(device, Command::PutWrapKey, &private).unwrap();
}

#[test]
fn every_command_of_the_table_is_cut_off_here_or_changes_nothing() {
    let cut = mutating::<4>().into_iter().chain(needing_a_key_of_its_own()).map(|(command, _)| command);
    let mut listed: Vec<_> = cut.chain(READING.iter().copied()).collect();
    listed.sort_by_key(|command| command.code());
    // A command may be interrupted in more than one of its uses.
    listed.dedup();
    assert_eq!(listed, Command::ALL);
    let verbs = ["put ", "generate ", "import ", "delete ", "set ", "change ", "reset "];
    for command in READING {
        assert!(!verbs.iter().any(|verb| command.name().starts_with(verb)), "{command}");
    }
}

/// Everything that can be seen of a device, and the contents of its objects and records.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    seen: Vec<Vec<u8>>,
    contents: Vec<Vec<u8>>,
    device_key: Vec<u8>,
}

/// `command, target, result`.
type Log = Vec<(u8, u16, u8)>;

fn open<const W: usize>(device: &mut ModelDevice<W>) -> Session {
    Session::open(device, 1, b"password").or_else(|_| Session::open(device, 1, b"changed")).unwrap()
}

/// The visible state of a device after a start; its log without the boots.
fn observe<const W: usize>(chip: Chip) -> Result<(State, Log), MountError> {
    let mut device = try_start(Flash::<W>::with_words(chip))?;
    let flash = device.flash().unwrap().copy();
    let mut session = open(&mut device);
    let reply = session.send(&mut device, Command::GetLogEntries, &[]).unwrap();
    let mut reader = Reader::new(&reply);
    let header = LogHeader::decode(&mut reader).unwrap();
    let log = (0..header.entries).map(|_| LogEntry::decode(&mut reader).unwrap());
    let log = log
        .filter(|entry| entry.command != 0)
        .map(|entry| (entry.command, entry.target_key, entry.result))
        .collect();

    let list = session.send(&mut device, Command::ListObjects, &[]).unwrap();
    let mut seen: Vec<_> = [1, 3, 4, 0x80, 0x81]
        .map(|option| session.send(&mut device, Command::GetOption, &[option]).unwrap())
        .into();
    for entry in list.chunks(4) {
        seen.push(session.send(&mut device, Command::GetObjectInfo, &entry[..3]).unwrap());
        if entry[2] == 3 {
            seen.push(session.send(&mut device, Command::GetPublicKey, &entry[..2]).unwrap());
        }
    }
    seen.push(list);

    let mut store = Store::mount(Flash::<W>::with_words(flash), &root_key(), |_| Ok(()))?;
    let names: Vec<_> = store.iter().map(|info| (info.object_type, info.id)).collect();
    let mut contents: Vec<_> = names.into_iter().map(|name| store.body(name).unwrap().to_vec()).collect();
    contents.push(store.record(Record::Options).unwrap().unwrap_or_default().to_vec());
    let device_key = store.record(Record::DeviceKey).unwrap().unwrap().to_vec();
    Ok((State { seen, contents, device_key }, log))
}

/// Which steps are cut: one in so many.
struct Strides {
    first: usize,
    /// First cuts that are followed by second ones, and steps of the recovery.
    second: (usize, usize),
    /// Under forced audit.
    forced: bool,
    /// Only commands during which the log wraps around, and then every step around an erasure.
    turning: bool,
}

/// Interrupts every command of the list. The resulting state is either the one before or the one after; after
/// an answer, the one after. The log has not lost an entry; under forced audit no change is without one.
fn cut<const W: usize>(strides: &Strides) {
    for (command, prepare) in mutating::<W>() {
        cut_command(command, prepare, true, strides);
    }
    for (command, prepare) in needing_a_key_of_its_own::<W>() {
        cut_command(command, prepare, false, strides);
    }
}

fn cut_command<const W: usize>(command: Command, prepare: Prepare<W>, changes: bool, strides: &Strides) {
    let blank = Chip { bytes: vec![0xff; SECTOR * SECTORS], ..Chip::blank() };
    let flash = Flash::<W>::with_words(blank);
    let mut device = try_start(flash.clone()).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    let template = Object::new(4, Algorithm::TemplateSsh, EXPORTABLE).with(&[0xff; 200]);
    admin.send(&mut device, Command::PutTemplate, &template).unwrap();
    let payload = prepare(&mut device, &mut admin);
    if strides.forced {
        admin.send(&mut device, Command::SetOption, &[1, 0, 1, 1]).unwrap();
    }
    let start = |chip: &Chip, power, torn| {
        let flash = Flash::<W>::with_words(Chip { torn, ..chip.clone() });
        let mut device = try_start(flash.clone()).ok().unwrap();
        let mut admin = Session::admin(&mut device);
        {
            let mut chip = flash.0.borrow_mut();
            (chip.operations, chip.power) = (0, power);
            chip.erasures.clear();
        }
        let answer = admin.send(&mut device, command, &payload);
        (answer, flash)
    };
    let mut base = flash.copy();
    if strides.turning {
        let churn = Object::new(8, Algorithm::TemplateSsh, &[]).with(&[0x33; 100]);
        while start(&base, None, Torn::FirstHalf).1.0.borrow().erasures.is_empty() {
            admin.send(&mut device, Command::PutTemplate, &churn).unwrap();
            admin.send(&mut device, Command::DeleteObject, &[0, 8, 6]).unwrap();
            base = flash.copy();
        }
    }
    let (answer, done) = start(&base, None, Torn::FirstHalf);
    answer.unwrap_or_else(|error| panic!("{command}: {error}"));
    let (steps, erasures) = (done.0.borrow().operations, done.0.borrow().erasures.clone());
    assert!(steps > 0, "{command} writes");
    let (before, log_before) = observe::<W>(base.clone()).unwrap();
    let (after, log_after) = observe::<W>(done.copy()).unwrap();
    assert_eq!((&before, &log_before) != (&after, &log_after), changes || strides.forced, "{command}");
    let logged = |log: &Log| log.iter().filter(|entry| entry.0 == command.code()).count();

    // A reset that is begun again makes another key of the device.
    let settle = |seen: &mut State| {
        if command == Command::ResetDevice && (&seen.seen, &seen.contents) == (&after.seen, &after.contents) {
            seen.device_key.clone_from(&after.device_key);
        }
    };
    let check = |power: usize, second: bool| {
        let torn = Torn::Noise((W * 1_000_003 + usize::from(command.code()) * 10_007 + power) as u64);
        let (answer, flash) = start(&base, Some(power), torn);
        let place = format!("{command}, words of {W}, cut at {power} of {steps}");
        assert_eq!(answer.is_ok(), power >= steps, "{place}");
        if let Err(error) = answer {
            assert_eq!(error, DeviceError::StorageFailed, "{place}");
        }
        let image = flash.copy();
        let (mut seen, log) = observe::<W>(image.clone()).unwrap_or_else(|error| panic!("{place}: {error}"));
        settle(&mut seen);
        assert!(seen == before || seen == after, "{place}: a state between");
        if power >= steps {
            assert_eq!(seen, after, "{place}: acknowledged and lost");
        }
        if strides.forced {
            let unlogged = before != after && seen == after && command != Command::ResetDevice;
            assert!(!unlogged || logged(&log) == 1, "{place}: done and not logged");
        } else {
            assert!(
                (&seen, &log) == (&before, &log_before) || (&seen, &log) == (&after, &log_after),
                "{place}: log"
            );
        }
        if second {
            let decided = seen;
            let recovery = Flash::<W>::with_words(image.clone());
            try_start(recovery.clone()).ok().unwrap();
            let steps = recovery.0.borrow().operations;
            for again in (power % strides.second.1..steps).step_by(strides.second.1) {
                let flash = Flash::<W>::with_words(Chip { power: Some(again), torn, ..image.clone() });
                assert_eq!(
                    try_start(flash.clone()).err(),
                    Some(MountError::Flash),
                    "{place}, then at {again}"
                );
                let (mut seen, _) = observe::<W>(flash.copy())
                    .unwrap_or_else(|error| panic!("{place}, then at {again} of {steps}: {error}"));
                settle(&mut seen);
                assert_eq!(seen, decided, "{place}, then at {again} of {steps}");
            }
        }
    };
    for power in 0..=steps {
        let near = erasures.iter().any(|step| power.abs_diff(*step) < 3);
        if power.is_multiple_of(strides.first) || power == steps || near && strides.turning {
            check(power, (power / strides.first).is_multiple_of(strides.second.0));
        }
    }
}

#[test]
fn with_words_of_four_bytes_every_step_and_a_second_cut() {
    cut::<4>(&Strides { first: 1, second: (9, 5), forced: false, turning: false });
}

#[test]
fn with_words_of_sixteen_bytes_every_step_and_a_second_cut() {
    cut::<16>(&Strides { first: 1, second: (5, 3), forced: false, turning: false });
}

#[test]
fn with_words_of_one_byte_every_third_step_and_a_second_cut() {
    cut::<1>(&Strides { first: 3, second: (31, 13), forced: false, turning: false });
}

#[test]
fn while_the_log_turns_over_around_each_erasure_and_every_seventh_step() {
    cut::<4>(&Strides { first: 7, second: (11, 7), forced: false, turning: true });
}

#[test]
fn under_forced_audit_every_third_step() {
    cut::<4>(&Strides { first: 3, second: (9, 7), forced: true, turning: false });
}
