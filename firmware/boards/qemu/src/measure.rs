//! The cost of signatures: the same core as on the boards, counted by the emulator.
//!
//! Under `-icount shift=0` an instruction takes a nanosecond, so the machine's timer counts instructions. All
//! randomness comes from a seed: two runs of an image give the same counts. First the assembly is checked
//! against the RustCrypto crates; then each line on the host's stdout is `NAME ALGORITHM NUMBER...` (see
//! `cargo xtask cycles`).

#![no_std]
#![no_main]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a bench reports by stopping")]

extern crate alloc;

mod flash;

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ptr::{read_volatile, with_exposed_provenance_mut, write_volatile};
use core::time::Duration;

use cortex_m_rt::{ExceptionFrame, entry, exception};
use cortex_m_semihosting::{debug, hprintln};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sshsm_board::crypto::CortexM;
use sshsm_board::{heap, stack};
use sshsm_firmware::crypto::{Input, Key, MAX_SIGNATURE, Provider, RustCrypto, key, sign_ssh};
use sshsm_firmware::link::{Endpoint, Identity};
use sshsm_firmware::platform::{Description, RootKey};
use sshsm_firmware::ssh::policy::Decision;
use sshsm_firmware::{Device, Platform};
use sshsm_p256_cm4 as assembly;
use sshsm_protocol::channel::{AuthenticationKey, Handshake, HandshakeError, HostChannel};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::link::{Answer, Deframer, MAX_FRAME, Request as Asked, ResetReason, decode, encode};
use sshsm_protocol::message::{Message, PutAsymmetricKey, PutTemplate, SignSshCertificate};
use sshsm_protocol::object::ObjectHeader;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::{CertificateKind, Field, Options, Principals, Request, SubjectKey};
use sshsm_protocol::ssh::rules::Rules;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{CaKeys, ForbiddenPrincipals, NotAfterOffset, NotBeforeOffset, Template};
use sshsm_protocol::ssh::timestamp::{Now, TimestampKey, message};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, Curve, Domains, Label,
};

use flash::Flash;

const HEAP: usize = 160 * 1024;
const P256: AsymmetricAlgorithm = AsymmetricAlgorithm::Ec(Curve::P256);
const NOW: u32 = 1_700_000_000;
const TEMPLATE: u16 = 0x100;

/// The CA keys of the tables, with the signature that OpenSSH would ask of them.
const ALGORITHMS: [(AsymmetricAlgorithm, Algorithm); 6] = [
    (AsymmetricAlgorithm::Ed25519, Algorithm::Ed25519),
    (P256, Algorithm::EcdsaSha256),
    (AsymmetricAlgorithm::Ec(Curve::P384), Algorithm::EcdsaSha384),
    (AsymmetricAlgorithm::Rsa2048, Algorithm::RsaPkcs1Sha512),
    (AsymmetricAlgorithm::Rsa3072, Algorithm::RsaPkcs1Sha512),
    (AsymmetricAlgorithm::Rsa4096, Algorithm::RsaPkcs1Sha512),
];

/// CMSDK TIMER0: counts down at 20 MHz.
struct Timer;

impl Timer {
    const BASE: usize = 0x5000_0000;
    const INSTRUCTIONS_PER_TICK: u64 = 50;

    #[allow(unsafe_code, reason = "registers are memory that the language does not know")]
    fn start() {
        for (register, value) in [(0x8, u32::MAX), (0x4, u32::MAX), (0x0, 1)] {
            // SAFETY: registers of this device.
            unsafe { write_volatile(with_exposed_provenance_mut(Self::BASE + register), value) }
        }
    }

    #[allow(unsafe_code, reason = "registers are memory that the language does not know")]
    fn ticks() -> u32 {
        // SAFETY: a register of this device.
        unsafe { !read_volatile(with_exposed_provenance_mut::<u32>(Self::BASE + 4)) }
    }

    /// Instructions that `work` takes.
    #[inline(never)]
    fn count<T>(work: impl FnOnce() -> T) -> (u64, T) {
        let start = Self::ticks();
        let result = work();
        (u64::from(Self::ticks().wrapping_sub(start)) * Self::INSTRUCTIONS_PER_TICK, result)
    }
}

struct Measured(ChaCha20Rng);

impl Platform for Measured {
    type Flash = Flash;
    type Entropy = ChaCha20Rng;
    type Crypto = CortexM;

    fn serial(&self) -> u32 {
        1
    }

    fn root_key(&mut self) -> RootKey {
        RootKey::from_bytes([1; RootKey::LENGTH])
    }

    fn uptime(&mut self) -> Duration {
        Duration::ZERO
    }

    fn describe(&mut self) -> Description {
        Description { board: "measure", image: None, button: false, boot_loader: false }
    }

    fn entropy(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }

    fn decided(&mut self, decision: &Decision<'_>) {
        if !decision.verdict.is_allowed() {
            hprintln!("{decision}");
        }
    }
}

fn seeded(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Stops the run with its line; xtask sees the missing end.
#[track_caller]
fn sure<T>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        None => panic!("the device answered otherwise"),
    }
}

#[entry]
fn main() -> ! {
    stack::paint();
    let arena = cortex_m::singleton!(: [MaybeUninit<u8>; HEAP] = [MaybeUninit::uninit(); HEAP]);
    let Some(arena) = arena else { unreachable!("main runs once") };
    heap::start(arena);
    Timer::start();
    prove();
    measure();
    hprintln!("end");
    loop {
        debug::exit(debug::EXIT_SUCCESS);
    }
}

/// The assembly makes the signatures that the generic crate makes, and judges them alike.
fn prove() {
    let mut random = seeded(1);
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let near_order = |last: u8| {
        let mut scalar: [u8; 32] = order;
        scalar[31] = last;
        scalar
    };
    for scalar in [[0; 32], near_order(0x51), near_order(0x52), [0xff; 32]] {
        let body = [scalar.as_slice(), &[4; 64]].concat();
        assert!(CortexM::load(P256, &body).is_err(), "a scalar out of range");
    }
    let mut compared = 0;
    for round in 0..40_u8 {
        let mut scalar = [0; 32];
        match round {
            0..=2 => scalar[31] = round + 1,
            3 => scalar = near_order(0x50),
            4 => scalar = near_order(0x4f),
            _ => random.fill_bytes(&mut scalar),
        }
        let body = sure(key::expand(P256, &scalar).ok());
        let public = sure(key::public(P256, &body).ok());
        let (fast, generic) =
            (sure(Key::<CortexM>::load(P256, &body).ok()), sure(Key::<RustCrypto>::load(P256, &body).ok()));
        let mut digest = [0; 64];
        random.fill_bytes(&mut digest);
        match round {
            5 => digest = [0; 64],
            6 => digest = [0xff; 64],
            7 => digest[..32].copy_from_slice(&order),
            _ => {}
        }
        for length in [20, 32, 48, 64] {
            let input = Input::Ecdsa { digest: &digest[..length] };
            let (mut one, mut other) = ([0; MAX_SIGNATURE], [0; MAX_SIGNATURE]);
            assert_eq!(fast.sign(input, &mut seeded(round), &mut one), Ok(64));
            assert_eq!(generic.sign(input, &mut seeded(round), &mut other), Ok(64));
            assert!(one == other, "signatures differ in round {round} for {length} bytes");
            compared += 1;
        }
        let mut signature = [0; MAX_SIGNATURE];
        let algorithm = sure(SignatureAlgorithm::from_algorithm(Algorithm::EcdsaSha256, P256));
        sure(sign_ssh(&generic, algorithm, &digest, &mut random, &mut signature).ok());
        let signature = &mut signature[..64];
        assert!(CortexM::verify(P256, public, &digest, signature), "a good signature");
        let bit = random.next_u32() as usize % 512;
        signature[bit / 8] ^= 1 << (bit % 8);
        assert!(!CortexM::verify(P256, public, &digest, signature), "a damaged signature");
        let mut other = [0; 64];
        other.copy_from_slice(public);
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!CortexM::verify(P256, &other, &digest, signature), "a point off the curve");

        let peer = sure(key::expand(P256, &[round + 7; 32]).ok());
        let peer = [[4].as_slice(), sure(key::public(P256, &peer).ok())].concat();
        let shared = fast.derive(&peer).map(|shared| shared.to_vec());
        assert!(shared.is_ok() && shared == generic.derive(&peer).map(|shared| shared.to_vec()));
        let mut off = peer;
        off[64] ^= 1;
        assert!(fast.derive(&off).is_err() && fast.derive(&off[..64]).is_err());
    }
    hprintln!("proved p256 {compared}");

    // How much of the following is assembly, which takes more cycles per instruction than compiled code.
    let (mut r, mut s, scalar) = ([0; 8], [0; 8], [7; 8]);
    let (instructions, done) = Timer::count(|| assembly::sign(&mut r, &mut s, &[1; 32], &scalar, &[5; 8]));
    assert!(done);
    hprintln!("assembly sign {instructions}");
    let (mut x, mut y) = ([0; 8], [0; 8]);
    assert!(assembly::keygen(&mut x, &mut y, &scalar));
    let (instructions, done) = Timer::count(|| assembly::verify(&x, &y, &[1; 32], &r, &s));
    assert!(done);
    hprintln!("assembly verify {instructions}");
}

/// A device, and the client that talks to it, in frames of the link.
struct Bench {
    device: Device<Measured>,
    endpoint: Endpoint,
    number: u32,
    session: Option<HostChannel>,
}

/// Instructions, and bytes of heap and stack on top of what the device holds between messages.
struct Cost {
    instructions: u64,
    heap: usize,
    stack: usize,
}

impl Bench {
    fn start() -> Self {
        let device = sure(Device::start(Measured(seeded(2)), Flash::erased()).ok());
        let identity = Identity { board: "measure", serial: 1, reset: ResetReason::PowerOn };
        let mut bench = Self { device, endpoint: Endpoint::new(identity), number: 0, session: None };
        let key = AuthenticationKey::from_password(b"password");
        let handshake = Handshake::new(1, &key, [1; 8]);
        let session = handshake.open(|message| Ok::<_, HandshakeError>(bench.transact(message).1));
        bench.session = Some(sure(session.ok()));
        bench
    }

    /// A frame in, the answer's frame out.
    fn transact(&mut self, message: &[u8]) -> (Cost, Vec<u8>) {
        let mut frame = [0; MAX_FRAME];
        self.number += 1;
        let length = sure(encode(self.number, &Asked::Transact(message), &mut frame).ok());
        let mut sent = Vec::with_capacity(MAX_FRAME);
        let Self { device, endpoint, .. } = self;
        let held = heap::forget_peak();
        stack::paint();
        let before = stack::depth();
        let (instructions, ()) = Timer::count(|| {
            for &byte in &frame[..length] {
                endpoint.receive(byte, Duration::ZERO);
            }
            let mut request = [0; MAX_MESSAGE];
            let mut response = [0; MAX_MESSAGE];
            let length = sure(endpoint.take(&mut request));
            let length = device.handle(&request[..length], &mut response);
            endpoint.respond(&response[..length], device.vitals());
            let mut packet = [0; 64];
            loop {
                let length = endpoint.transmit(&mut packet);
                if length == 0 {
                    break;
                }
                sent.extend_from_slice(&packet[..length]);
            }
        });
        let cost = Cost { instructions, heap: heap::peak() - held, stack: stack::peak() - before };
        let mut deframer = Deframer::new();
        let mut answer = None;
        for byte in sent {
            if let Some((_, Some(Answer::Transact(message)))) = deframer.push(byte).and_then(decode) {
                answer = Some(message.to_vec());
            }
        }
        (cost, sure(answer))
    }

    fn send<'m>(&mut self, command: Command, request: &impl Message<'m>) -> (Cost, Vec<u8>) {
        let mut payload = alloc::vec![0; request.length()];
        let mut writer = Writer::new(&mut payload);
        sure(request.encode(&mut writer).ok());
        let mut session = sure(self.session.take());
        let mut message = [0; MAX_MESSAGE];
        let length = sure(session.seal(command, writer.written(), &mut message).ok());
        let (cost, mut answer) = self.transact(&message[..length]);
        let answer = sure(session.open(&mut answer).ok()).answer(command);
        assert!(answer.is_ok(), "{command:?}: {answer:?}");
        let payload = sure(answer.ok()).to_vec();
        self.session = Some(session);
        (cost, payload)
    }
}

fn object(id: u16, algorithm: Algorithm, capabilities: &[Capability]) -> ObjectHeader {
    ObjectHeader {
        id,
        label: Label::default(),
        domains: Domains::ALL,
        capabilities: Capabilities::of(capabilities),
        algorithm: algorithm.code(),
    }
}

/// A user certificate as `ssh-keygen` asks for it: two principals, the usual extensions.
fn request(ca: AsymmetricAlgorithm, public: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| [&(text.len() as u32).to_be_bytes(), text].concat();
    let principals = [text(b"alice"), text(b"deploy")].concat();
    let extensions: Vec<u8> = [
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    ]
    .iter()
    .flat_map(|name| [text(name.as_bytes()), text(b"")].concat())
    .collect();
    let request = Request {
        nonce: &[9; 32],
        subject_key: SubjectKey::Plain(PublicKey::Ed25519(&[4; 32])),
        serial: 1,
        kind: CertificateKind::User,
        key_id: b"alice@example.com",
        principals: sure(Principals::decode(&principals).ok()),
        valid_after: u64::from(NOW) - 60,
        valid_before: u64::from(NOW) + 3600,
        critical_options: sure(Options::decode(Field::CriticalOptions, &[]).ok()),
        extensions: sure(Options::decode(Field::Extensions, &extensions).ok()),
        signature_key: sure(PublicKey::from_raw(ca, public).ok()),
    };
    let mut buffer = [0; 2048];
    let mut writer = Writer::new(&mut buffer);
    sure(request.encode(&mut writer).ok());
    writer.written().to_vec()
}

fn template(authority: AsymmetricAlgorithm, public: &[u8]) -> Vec<u8> {
    let ca_keys: Vec<u8> = (1..=6_u16).flat_map(u16::to_be_bytes).collect();
    let template = Template {
        timestamp_key: sure(TimestampKey::new(authority, public).ok()),
        ca_keys: sure(CaKeys::decode(&ca_keys).ok()),
        not_before: NotBeforeOffset::from_wire(300),
        not_after: NotAfterOffset::from_wire(36_000),
        forbidden_principals: sure(ForbiddenPrincipals::decode(b"root\0").ok()),
        rules: Rules::default(),
    };
    let mut buffer = [0; 2048];
    let mut writer = Writer::new(&mut buffer);
    sure(template.encode(&mut writer).ok());
    writer.written().to_vec()
}

fn measure() {
    let mut bench = Bench::start();
    let authorities = [(AsymmetricAlgorithm::Ed25519, Algorithm::Ed25519), (P256, Algorithm::EcdsaSha256)];
    let authorities = authorities.map(|(algorithm, signature)| {
        let body = sure(key::expand(algorithm, &[2; 32]).ok());
        (algorithm, sure(SignatureAlgorithm::from_algorithm(signature, algorithm)), body)
    });
    for ((algorithm, _, body), id) in authorities.iter().zip(TEMPLATE..) {
        let template = template(*algorithm, sure(key::public(*algorithm, body).ok()));
        let object = object(id, Algorithm::TemplateSsh, &[]);
        bench.send(Command::PutTemplate, &PutTemplate { object, template: &template });
    }
    for ((algorithm, signature), id) in ALGORITHMS.into_iter().zip(1_u16..) {
        let body = sure(key::generate(algorithm, &mut seeded(3)).ok());
        let public = sure(key::public(algorithm, &body).ok());
        let request = request(algorithm, public);
        let signing = sure(SignatureAlgorithm::from_algorithm(signature, algorithm));
        let name = algorithm.algorithm();

        let ready = sure(Key::<CortexM>::load(algorithm, &body).ok());
        let mut made = [0; MAX_SIGNATURE];
        let (instructions, done) =
            Timer::count(|| sign_ssh(&ready, signing, &request, &mut seeded(4), &mut made));
        sure(done.ok());
        hprintln!("signature {name} {instructions}");

        // A stored Ed25519 key ends with its seed, all others begin with the private key.
        let private = match algorithm {
            AsymmetricAlgorithm::Ed25519 => &body[body.len() - 32..],
            _ => &body[..algorithm.private_length()],
        };
        let object = object(id, name, &[Capability::SignSshCertificate]);
        bench.send(Command::PutAsymmetricKey, &PutAsymmetricKey { object, private });
        for ((authority, stamping, body), template) in authorities.iter().zip(TEMPLATE..) {
            let now = Now::from_seconds(NOW);
            let key = sure(Key::<RustCrypto>::load(*authority, body).ok());
            let mut stamp = [0; MAX_SIGNATURE];
            let stamped = sign_ssh(&key, *stamping, &message(&request, now), &mut seeded(5), &mut stamp);
            let request = [&stamp[..sure(stamped.ok())], &request].concat();
            let algorithm = signature.code();
            let command = SignSshCertificate { ca_key: id, template, algorithm, now: NOW, request: &request };
            // The first certificate of a key loads it.
            for times in ["first", "next"] {
                let (Cost { instructions, heap, stack }, _) =
                    bench.send(Command::SignSshCertificate, &command);
                let authority = authority.algorithm();
                hprintln!("certificate {name} {authority} {times} {instructions} {heap} {stack}");
            }
        }
    }
}

#[exception]
#[allow(unsafe_code, reason = "the macro asks for it: the stack may be broken")]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    hprintln!("{frame:?}");
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hprintln!("{info}");
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}
