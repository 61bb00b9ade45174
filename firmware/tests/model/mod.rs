#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
//! A device on a model platform: flash that counts its writes and can lose power, a clock that a test sets,
//! reproducible entropy; and a client that exchanges whole messages with it.
#![allow(dead_code)] // each test binary uses a part

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sshsm_firmware::crypto::RustCrypto;
use sshsm_firmware::platform::{Description, Indication, Presence, RootKey};
use sshsm_firmware::ssh::policy::Decision;
use sshsm_firmware::{Device, MountError, Platform};
use sshsm_protocol::channel::{AuthenticationKey, ChannelError, Handshake, HandshakeError, HostChannel};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::device_status::Image;
use sshsm_protocol::frame::{AnswerError, ERROR_CODE, Frame, MAX_MESSAGE, RESPONSE_FLAG};
use sshsm_protocol::message::Message;
use sshsm_protocol::object::NewObject;
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{Algorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId};

pub const SECTOR: usize = 4096;
/// Enough for everything that a YubiHSM 2 holds.
pub const SECTORS: usize = 66;

/// The chip behind a [`Flash`].
#[derive(Clone)]
pub struct Chip {
    pub bytes: Vec<u8>,
    /// Words that can still be programmed, and sectors erased, before the power fails; `None` means never.
    pub power: Option<usize>,
    /// Words programmed and sectors erased so far.
    pub operations: usize,
    /// Which of these were erasures, counted from 1.
    pub erasures: Vec<usize>,
    /// The remains of the word or the sector being programmed or erased when the power fails.
    pub torn: Torn,
    /// The power has failed: nothing changes any more.
    pub dead: bool,
}

/// How far an operation has come when the power fails during it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// This part of a sector is erased, a word is not programmed.
    FirstHalf,
    SecondHalf,
    Middle,
    /// A word has some of the intended bits cleared, a sector holds anything: noise from this seed.
    Noise(u64),
}

impl Torn {
    /// A sector whose erasure was interrupted.
    fn erase(self, sector: &mut [u8]) {
        let range = match self {
            Self::FirstHalf => 0..SECTOR / 2,
            Self::SecondHalf => SECTOR / 2..SECTOR,
            Self::Middle => SECTOR / 4..SECTOR * 3 / 4,
            Self::Noise(seed) => {
                // Everything at random, or some bits erased and the others not yet.
                let kept = if seed.is_multiple_of(2) { 0xff } else { 0 };
                for (at, byte) in sector.iter_mut().enumerate() {
                    *byte = *byte & kept | self.noise(at);
                }
                return;
            }
        };
        sector[range].fill(0xff);
    }

    /// Bits of the byte at this place that could not be cleared any more.
    fn spared(self, at: usize) -> u8 {
        if let Self::Noise(_) = self { self.noise(at) } else { 0xff }
    }

    /// SplitMix64.
    fn noise(self, at: usize) -> u8 {
        let Self::Noise(seed) = self else { return 0 };
        let z = seed.wrapping_add(at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 56) as u8
    }
}

/// How an operation on a word or a sector ends.
enum Step {
    Done,
    /// The power fails in the middle of it.
    Torn,
    /// There is no power.
    Dead,
}

/// NOR flash in memory with words of this many bytes, shared with the test that holds a clone. Programming
/// clears bits; power can fail inside any operation.
#[derive(Clone)]
pub struct Flash<const WORD: usize = 4>(pub Rc<RefCell<Chip>>);

#[derive(Debug)]
pub struct PowerFailure;

impl NorFlashError for PowerFailure {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Chip {
    pub fn blank() -> Self {
        Self {
            bytes: vec![0xff; SECTOR * SECTORS],
            power: None,
            operations: 0,
            erasures: Vec::new(),
            torn: Torn::FirstHalf,
            dead: false,
        }
    }

    fn step(&mut self) -> Step {
        self.operations += 1;
        match &mut self.power {
            Some(0) if self.dead => Step::Dead,
            Some(0) => {
                self.dead = true;
                Step::Torn
            }
            Some(left) => {
                *left -= 1;
                Step::Done
            }
            None => Step::Done,
        }
    }
}

impl Flash {
    pub fn blank() -> Self {
        Self::of(Chip::blank())
    }

    pub fn of(chip: Chip) -> Self {
        Self::with_words(chip)
    }

    /// Fewer sectors than [`SECTORS`].
    pub fn small(sectors: usize) -> Self {
        Self::of(Chip { bytes: vec![0xff; SECTOR * sectors], ..Chip::blank() })
    }
}

impl<const WORD: usize> Flash<WORD> {
    /// Flash with words of another size.
    pub fn with_words(chip: Chip) -> Self {
        Self(Rc::new(RefCell::new(chip)))
    }

    /// A copy of the chip in its current state, with power.
    pub fn copy(&self) -> Chip {
        Chip { power: None, operations: 0, erasures: Vec::new(), dead: false, ..self.0.borrow().clone() }
    }
}

impl<const WORD: usize> ErrorType for Flash<WORD> {
    type Error = PowerFailure;
}

impl<const WORD: usize> ReadNorFlash for Flash<WORD> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerFailure> {
        let offset = offset as usize;
        bytes.copy_from_slice(&self.0.borrow().bytes[offset..offset + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().bytes.len()
    }
}

impl<const WORD: usize> NorFlash for Flash<WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerFailure> {
        let mut chip = self.0.borrow_mut();
        assert!((from as usize).is_multiple_of(SECTOR) && (to as usize).is_multiple_of(SECTOR));
        for at in (from as usize..to as usize).step_by(SECTOR) {
            let step = chip.step();
            let operation = chip.operations;
            chip.erasures.push(operation);
            let torn = chip.torn;
            let sector = &mut chip.bytes[at..at + SECTOR];
            match step {
                Step::Done => sector.fill(0xff),
                Step::Torn => torn.erase(sector),
                Step::Dead => {}
            }
            if !matches!(step, Step::Done) {
                return Err(PowerFailure);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerFailure> {
        let mut chip = self.0.borrow_mut();
        assert!(
            (offset as usize).is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD),
            "unaligned write"
        );
        for (word, at) in bytes.chunks(WORD).zip((offset as usize..).step_by(WORD)) {
            let step = chip.step();
            for (byte, at) in word.iter().zip(at..) {
                let spared = match step {
                    Step::Done => 0,
                    Step::Torn => chip.torn.spared(at),
                    Step::Dead => 0xff,
                };
                chip.bytes[at] &= byte | spared;
            }
            if !matches!(step, Step::Done) {
                return Err(PowerFailure);
            }
        }
        Ok(())
    }
}

impl<const WORD: usize> MultiwriteNorFlash for Flash<WORD> {}

/// The root key of every model.
pub fn root_key() -> RootKey {
    RootKey::from_bytes([0x5e; RootKey::LENGTH])
}

/// The image of every model.
pub const IMAGE: Image = Image { sha256: [0x1a; 32], length: 123_456 };

#[derive(Clone, Default)]
pub struct Clock(Rc<Cell<Duration>>);

impl Clock {
    pub fn advance(&self, by: Duration) {
        self.0.set(self.0.get() + by);
    }
}

pub struct Model<const WORD: usize = 4> {
    entropy: ChaCha8Rng,
    pub clock: Clock,
    pub decisions: Vec<String>,
    /// Whether decisions are not recorded, as on boards: for tests that count memory.
    pub forgetful: bool,
    pub handled: Vec<(Command, Result<(), DeviceError>)>,
    /// The result of asking for a touch, and for how long each touch was waited for.
    pub presence: Presence,
    pub asked: Vec<Duration>,
    pub dialect: Dialect,
    /// Whether it has a boot loader, and which image it runs.
    pub boot_loader: bool,
    pub image: Option<Image>,
}

impl Model {
    pub fn new(clock: Clock) -> Self {
        Self::with_words(clock)
    }
}

impl<const WORD: usize> Model<WORD> {
    fn with_words(clock: Clock) -> Self {
        Self {
            entropy: ChaCha8Rng::seed_from_u64(7),
            clock,
            decisions: Vec::new(),
            forgetful: false,
            handled: Vec::new(),
            presence: Presence::Unsupported,
            asked: Vec::new(),
            dialect: Dialect::Extended,
            boot_loader: true,
            image: Some(IMAGE),
        }
    }
}

impl<const WORD: usize> Platform for Model<WORD> {
    type Flash = Flash<WORD>;
    type Entropy = ChaCha8Rng;
    type Crypto = RustCrypto;

    fn serial(&self) -> u32 {
        12_345_678
    }

    fn root_key(&mut self) -> RootKey {
        root_key()
    }

    fn uptime(&mut self) -> Duration {
        self.clock.0.get()
    }

    fn describe(&mut self) -> Description {
        let button = self.presence != Presence::Unsupported;
        Description { board: "model", image: self.image, button, boot_loader: self.boot_loader }
    }

    fn entropy(&mut self) -> &mut ChaCha8Rng {
        &mut self.entropy
    }

    fn indicate(&mut self, indication: Indication) {
        let Indication::Blink { duration } = indication;
        self.clock.advance(duration);
    }

    fn confirm_presence(&mut self, timeout: Duration) -> Presence {
        self.asked.push(timeout);
        self.presence
    }

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn handled(&mut self, command: Command, outcome: Result<(), DeviceError>) {
        self.handled.push((command, outcome));
    }

    fn decided(&mut self, decision: &Decision<'_>) {
        if !self.forgetful {
            self.decisions.push(decision.to_string());
        }
    }
}

pub type ModelDevice<const WORD: usize = 4> = Device<Model<WORD>>;

pub fn try_start<const WORD: usize>(flash: Flash<WORD>) -> Result<ModelDevice<WORD>, MountError> {
    Device::start(Model::with_words(Clock::default()), flash)
}

pub fn start(chip: Chip) -> ModelDevice {
    try_start(Flash::of(chip)).expect("the flash mounts")
}

pub fn fresh() -> ModelDevice {
    start(Chip::blank())
}

/// Sends a plain message.
pub fn plain<P: Platform>(device: &mut Device<P>, code: u8, payload: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let mut message = vec![0; 3 + payload.len()];
    Frame { code, payload }.encode(&mut message).unwrap();
    answer(code, &Frame::parse(&transact(device, &message)).unwrap())
}

fn transact<P: Platform>(device: &mut Device<P>, message: &[u8]) -> Vec<u8> {
    let mut response = [0; MAX_MESSAGE];
    let length = device.handle(message, &mut response);
    response[..length].to_vec()
}

/// The payload that a message is.
pub fn encoded<'m>(message: &impl Message<'m>) -> Vec<u8> {
    let mut payload = vec![0; message.length()];
    message.encode(&mut Writer::new(&mut payload)).unwrap();
    payload
}

fn answer(code: u8, frame: &Frame<'_>) -> Result<Vec<u8>, DeviceError> {
    if frame.code == ERROR_CODE {
        assert_eq!(frame.payload.len(), 1);
        return Err(DeviceError::from_code(frame.payload[0]).expect("a defined error code"));
    }
    assert_eq!(frame.code, code | RESPONSE_FLAG);
    Ok(frame.payload.to_vec())
}

/// A client that finds its password wrong reports that here with the device's error.
fn refusal(error: HandshakeError) -> DeviceError {
    match error {
        HandshakeError::Answer(AnswerError::Refused(error)) => error,
        HandshakeError::Channel(ChannelError::WrongCryptogram) => DeviceError::AuthenticationFailed,
        other => panic!("{other}"),
    }
}

/// The key of a password, derived once.
fn authentication_key(password: &[u8]) -> AuthenticationKey {
    static KEYS: Mutex<BTreeMap<Vec<u8>, [u8; AuthenticationKey::LENGTH]>> = Mutex::new(BTreeMap::new());
    let derive = || *AuthenticationKey::from_password(password).as_bytes();
    let mut keys = KEYS.lock().unwrap();
    AuthenticationKey::from_bytes(*keys.entry(password.to_vec()).or_insert_with(derive))
}

/// A client's session.
pub struct Session(pub HostChannel);

impl Session {
    pub fn open<P: Platform>(device: &mut Device<P>, id: u16, password: &[u8]) -> Result<Self, DeviceError> {
        Self::open_with(device, id, &authentication_key(password))
    }

    pub fn open_with<P: Platform>(
        device: &mut Device<P>,
        id: u16,
        key: &AuthenticationKey,
    ) -> Result<Self, DeviceError> {
        Self::create_with(device, id, key)?.authenticate(device)
    }

    /// The first half of opening.
    pub fn create<P: Platform>(
        device: &mut Device<P>,
        id: u16,
        password: &[u8],
    ) -> Result<Self, DeviceError> {
        Self::create_with(device, id, &authentication_key(password))
    }

    /// The first half of opening, with a key that was derived before.
    pub fn create_with<P: Platform>(
        device: &mut Device<P>,
        id: u16,
        key: &AuthenticationKey,
    ) -> Result<Self, DeviceError> {
        let handshake = Handshake::new(id, key, [1; 8]);
        handshake.created(&transact(device, &handshake.create())).map(Self).map_err(refusal)
    }

    /// The second half.
    pub fn authenticate<P: Platform>(mut self, device: &mut Device<P>) -> Result<Self, DeviceError> {
        Handshake::authenticated(&transact(device, &self.0.authenticate())).map_err(refusal)?;
        Ok(self)
    }

    pub fn admin<P: Platform>(device: &mut Device<P>) -> Self {
        Self::open(device, 1, b"password").unwrap()
    }

    pub fn send<P: Platform>(
        &mut self,
        device: &mut Device<P>,
        command: Command,
        payload: &[u8],
    ) -> Result<Vec<u8>, DeviceError> {
        let mut message = [0; MAX_MESSAGE];
        let length = self.0.seal(command, payload, &mut message).unwrap();
        let mut response = [0; MAX_MESSAGE];
        let length = device.handle(&message[..length], &mut response);
        if response[0] == ERROR_CODE {
            return answer(command.code(), &Frame::parse(&response[..length]).unwrap());
        }
        answer(command.code(), &self.0.open(&mut response[..length]).unwrap())
    }
}

/// A test's settings for a new object; the rest is as permissive as possible.
pub struct Object {
    pub id: u16,
    pub algorithm: Algorithm,
    pub domains: Domains,
    pub capabilities: Capabilities,
}

impl Object {
    pub fn new(id: u16, algorithm: Algorithm, capabilities: &[Capability]) -> Self {
        Self { id, algorithm, domains: Domains::ALL, capabilities: Capabilities::of(capabilities) }
    }

    pub fn with(self, rest: &[u8]) -> Vec<u8> {
        let object = NewObject {
            id: ObjectId::new(self.id).ok(),
            label: Label::new("test").unwrap(),
            domains: self.domains,
            capabilities: self.capabilities,
            algorithm: self.algorithm,
        };
        let mut buffer = [0; NewObject::LENGTH];
        object.encode(&mut Writer::new(&mut buffer)).unwrap();
        [buffer.as_slice(), rest].concat()
    }

    pub fn delegating(self, delegated: Capabilities, rest: &[u8]) -> Vec<u8> {
        self.with(&[delegated.bits().to_be_bytes().as_slice(), rest].concat())
    }
}

/// An authentication key with these rights.
pub fn put_authentication_key(
    device: &mut ModelDevice,
    admin: &mut Session,
    id: u16,
    password: &[u8],
    domains: Domains,
    capabilities: Capabilities,
    delegated: Capabilities,
) -> Session {
    let object = Object { id, algorithm: Algorithm::Aes128YubicoAuthentication, domains, capabilities };
    let payload = object.delegating(delegated, AuthenticationKey::from_password(password).as_bytes());
    admin.send(device, Command::PutAuthenticationKey, &payload).unwrap();
    Session::open(device, id, password).unwrap()
}
