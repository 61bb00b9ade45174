//! Random sessions, objects, capabilities and domains: the device's answer to every request, and its store
//! afterwards, match the oracle. The codes of refusals are compared too.
#![cfg(all(
    feature = "ssh",
    feature = "signatures",
    feature = "decryption",
    feature = "hmac",
    feature = "symmetric",
    feature = "otp",
    feature = "rsa-wrap",
    feature = "attestation",
    feature = "audit"
))]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod model;
mod oracle;

use std::sync::LazyLock;

use aes::Aes128;
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U13, U16};
use ccm::{AeadInOut, Ccm, KeyInit};
use hex_literal::hex;
use model::{ModelDevice, Session, fresh};
use oracle::{
    AES_WRAP, ASYMMETRIC, AUTHENTICATION, CERTIFICATE, DEVICE, ED25519, Effect, Form, HMAC, OPAQUE, OTP,
    Oracle, P256, PUBLIC_WRAP, RSA, Request, Rights, SYMMETRIC, TEMPLATE, Thing, USES, WRAP,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{Oaep, Pkcs1v15Encrypt, PrivateKey};
use sha2::{Digest, Sha256};
use sshsm_firmware::platform::Presence;
use sshsm_protocol::Command;
use sshsm_protocol::channel::AuthenticationKey;

/// The answers to a message for a session that is over: its place may be another's.
const OVER: [u8; 2] = [0x03, 0x04];
/// Every key that a client puts: the first bytes of this, as many as its algorithm needs.
const KEY: [u8; 64] = hex!(
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
);
const LABEL: &[u8; 40] = b"a label of forty bytes, none of them NUL";
/// docs/protocol.md, "Yubico OTP", vector E: an AEAD under the first 16 bytes of `KEY`, and a password by its credential.
const NONCE_ID: [u8; 4] = hex!("78563412");
const AEAD: [u8; 36] = hex!("010203040506188c2715410f5acf04d5baf304f5f69bc9cc15c69cdfc53370effcbfdce8");
const PASSWORD: [u8; 16] = hex!("2f5d71a4915dec304aa13ccf97bb0dbb");
/// docs/protocol.md, "Wrapped data", vector D: data under the first 16 bytes of `KEY`.
const WRAPPED_DATA: [u8; 35] = hex!("a0a1a2a3a4a5a6a7a8a9aaabac59c525b81bc16be1b6213f0ac3f7237c406884705bb2");
/// The generator of P-256.
const POINT: [u8; 65] = hex!(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
);

/// The one RSA key, and data encrypted to it.
struct RsaKey {
    factors: Vec<u8>,
    modulus: Vec<u8>,
    pkcs1: Vec<u8>,
    oaep: Vec<u8>,
}

static RSA_KEY: LazyLock<RsaKey> = LazyLock::new(|| {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let key = PrivateKey::new(&mut rng, 2048).unwrap();
    let public = key.to_public_key();
    RsaKey {
        factors: key.primes().iter().flat_map(|prime| prime.to_be_bytes().to_vec()).collect(),
        modulus: key.n().to_be_bytes().to_vec(),
        pkcs1: public.encrypt(&mut rng, Pkcs1v15Encrypt, b"text").unwrap(),
        oaep: public.encrypt(&mut rng, Oaep::<Sha256>::new(), b"text").unwrap(),
    }
});

/// One thing that a session does; ids are looked up among few, and wrapped objects among those that there are.
#[derive(Clone, Debug)]
enum Action {
    Open {
        id: u16,
    },
    /// The first half of opening a session, and the second of the oldest that was begun.
    Begin {
        id: u16,
    },
    Finish,
    /// From now on the device is touched when it waits, or it is not.
    Touch {
        touched: bool,
    },
    Request(Request),
    Import {
        form: Form,
        wrap: u16,
        pick: usize,
        say: (u8, u16, u64, u16),
    },
}

fn capabilities() -> impl Strategy<Value = u64> {
    let bit = || 0..0x38_u32;
    prop_oneof![
        6 => Just(u64::MAX),
        4 => any::<u64>(),
        4 => any::<u64>().prop_map(|random| random | 1 << 0x10 | 1 << 0x0c | 1 << 0x0d),
        2 => bit().prop_map(|missing| !(1 << missing)),
        1 => (bit(), bit()).prop_map(|(one, other)| 1 << one | 1 << other),
        1 => Just(0),
    ]
}

fn domains() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 1..8_u16, 4 => Just(u16::MAX), 1 => any::<u16>(), 1 => prop_oneof![4 => Just(1), 1 => Just(0)]]
}

/// Of an object that may exist.
fn id() -> impl Strategy<Value = u16> {
    prop_oneof![20 => 1..4_u16, 1 => Just(0), 1 => Just(0xffff)]
}

fn kind() -> impl Strategy<Value = u8> {
    OPAQUE..=PUBLIC_WRAP
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![2 => Just(Form::Aes), 1 => Just(Form::Rsa), 2 => Just(Form::Bare)]
}

fn thing() -> impl Strategy<Value = Thing> {
    let kinds = prop_oneof![
        4 => kind(),
        2 => Just(AUTHENTICATION),
        3 => Just(ASYMMETRIC),
        3 => Just(WRAP),
        2 => Just(PUBLIC_WRAP),
        1 => Just(SYMMETRIC),
    ];
    let choice = 0..10_usize;
    (kinds, choice, id(), capabilities(), capabilities(), domains()).prop_map(
        |(kind, choice, id, capabilities, delegated, domains)| {
            let own: &[u8] = match kind {
                OPAQUE => &[30, 31],
                AUTHENTICATION => &[38],
                ASYMMETRIC => &[P256, ED25519, RSA],
                WRAP => &[AES_WRAP, RSA],
                HMAC => &[20],
                TEMPLATE => &[36],
                OTP => &[37],
                SYMMETRIC => &[50],
                _ => &[RSA],
            };
            // Now and then an algorithm of another type.
            let algorithm = if choice == 9 { 53 } else { own[choice % own.len()] };
            Thing { kind, id, algorithm, capabilities, delegated, domains, origin: 0, sequence: 0, secret: 0 }
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let coded = prop::sample::select(vec![
        0x46_u8, 0x4a, 0x4b, 0x63, 0x6c, 0x74, 0x75, 0x76, 0x77, 0x47, 0x55, 0x56, 0x49, 0x59, 0x57, 0x5c,
        0x60, 0x61, 0x62, 0x6f, 0x70, 0x71, 0x72, 0x68, 0x69,
    ]);
    let exported = prop_oneof![kind(), Just(ASYMMETRIC), Just(SYMMETRIC)];
    prop_oneof![
        12 => (thing(), prop::bool::weighted(0.3)).prop_map(|(thing, generate)| {
            // Only these are generated here: not RSA keys, for time.
            let generated = matches!((thing.kind, thing.algorithm),
                (ASYMMETRIC, P256 | ED25519) | (WRAP, AES_WRAP) | (HMAC | OTP | SYMMETRIC, _));
            Request::Create { thing, generate: generate && generated }
        }),
        12 => (0..USES.len(), id()).prop_map(|(row, id)| Request::Use { row, id }),
        2 => (id(), id()).prop_map(|(from, to)| Request::Rewrap { from, to }),
        2 => (id(), id()).prop_map(|(id, attesting)| Request::Attest { id, attesting }),
        2 => (id(), id()).prop_map(|(ca, template)| Request::SignSsh { ca, template }),
        1 => id().prop_map(|id| Request::GetOpaque { id }),
        1 => id().prop_map(|id| Request::GetTemplate { id }),
        1 => (prop_oneof![3 => Just(ASYMMETRIC), 1 => kind()], id())
            .prop_map(|(kind, id)| Request::GetPublicKey { kind, id }),
        1 => (kind(), id()).prop_map(|(kind, id)| Request::Info { kind, id }),
        4 => (0..=10_u8, id()).prop_map(|(kind, id)| Request::Delete { kind, id }),
        2 => id().prop_map(|id| Request::Change { id }),
        6 => (form(), id(), exported, id()).prop_map(|(form, wrap, kind, id)| Request::Export { form, wrap, kind, id }),
        4 => (id(), thing()).prop_map(|(wrap, thing)| {
            // A blob made by another implementation; of types whose content may be any bytes.
            let kind = [OPAQUE, AUTHENTICATION, TEMPLATE, SYMMETRIC][usize::from(thing.kind) % 4];
            let algorithm = [30, 38, 36, 50][usize::from(thing.kind) % 4];
            let delegated = if kind == AUTHENTICATION { thing.delegated } else { 0 };
            let thing = Thing { kind, algorithm, delegated, origin: 2, ..thing };
            Request::Import { form: Form::Aes, wrap, thing, under: 0, is: (kind, algorithm) }
        }),
        1 => coded.prop_map(|code| Request::Short { code }),
        2 => (0..DEVICE.len()).prop_map(|row| Request::Device { row }),
        1 => prop_oneof![
            1 => Just(Request::Reset),
            3 => Just(Request::Freeze),
            8 => (0..3_u8).prop_map(|mode| Request::Presence { mode }),
            8 => Just(Request::Device { row: 0 }),
        ],
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let say = (prop_oneof![4 => Just(0), 1 => kind()], 0..4_u16, capabilities(), domains());
    prop_oneof![
        2 => prop_oneof![1..4_u16, id()].prop_map(|id| Action::Open { id }),
        1 => prop_oneof![1..4_u16, id()].prop_map(|id| Action::Begin { id }),
        1 => Just(Action::Finish),
        1 => any::<bool>().prop_map(|touched| Action::Touch { touched }),
        10 => request().prop_map(Action::Request),
        2 => (form(), id(), any::<usize>(), say)
            .prop_map(|(form, wrap, pick, say)| Action::Import { form, wrap, pick, say }),
    ]
}

/// An object that was exported, or a key.
struct Wrapped {
    form: Form,
    bytes: Vec<u8>,
    thing: Thing,
    under: u32,
}

fn with_id(id: u16, rest: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes(), rest].concat()
}

fn header(thing: &Thing) -> Vec<u8> {
    let Thing { id, domains, capabilities, algorithm, .. } = *thing;
    let (domains, capabilities) = (domains.to_be_bytes(), capabilities.to_be_bytes());
    with_id(id, &[&LABEL[..], &domains, &capabilities, &[algorithm]].concat())
}

/// The content of an object of this type and algorithm to be put; `certificate` is one.
fn content(thing: &Thing, certificate: &[u8]) -> Vec<u8> {
    match (thing.kind, thing.algorithm) {
        (PUBLIC_WRAP, _) => RSA_KEY.modulus.clone(),
        (ASYMMETRIC | WRAP, RSA) => RSA_KEY.factors.clone(),
        (OPAQUE, CERTIFICATE) => certificate.to_vec(),
        (OTP, _) => [&NONCE_ID, &KEY[..16]].concat(),
        (SYMMETRIC | WRAP, _) => KEY[..16].to_vec(),
        _ => KEY[..32].to_vec(),
    }
}

/// docs/protocol.md, "Wrapped objects", sealed with the known key and a nonce of zeros.
fn sealed(thing: &Thing) -> Vec<u8> {
    let Thing { kind, id, algorithm, capabilities, delegated, domains, origin, sequence, .. } = *thing;
    let delegated = delegated.to_be_bytes();
    let delegated = if kind == AUTHENTICATION { &delegated[..] } else { &[] };
    let body = [delegated, &content(thing, &[])].concat();
    let mut text = [
        &[AES_WRAP],
        &capabilities.to_be_bytes()[..],
        &id.to_be_bytes(),
        &(body.len() as u16).to_be_bytes(),
        &domains.to_be_bytes(),
        &[kind, algorithm, sequence, origin],
        LABEL,
        &body,
    ]
    .concat();
    let ccm = Ccm::<Aes128, U16, U13>::new_from_slice(&KEY[..16]).unwrap();
    let tag = ccm.encrypt_inout_detached(&[0; 13].into(), b"", InOutBuf::from(text.as_mut_slice())).unwrap();
    [&[0; 13], text.as_slice(), &tag].concat()
}

/// The 66 bytes of GET OBJECT INFO. Length and label are not authorization's: they are those of the answer.
fn info(thing: &Thing, answer: &[u8]) -> Vec<u8> {
    let Thing { kind, id, algorithm, capabilities, delegated, domains, origin, sequence, .. } = *thing;
    [
        &capabilities.to_be_bytes()[..],
        &id.to_be_bytes(),
        &answer[10..12],
        &domains.to_be_bytes(),
        &[kind, algorithm, sequence, origin],
        &answer[18..58],
        &delegated.to_be_bytes(),
    ]
    .concat()
}

/// Command and payload of a request; `wrapped` is the object to import.
fn message(request: &Request, wrapped: &[u8], certificate: &[u8]) -> (u8, Vec<u8>) {
    let label_hash = Sha256::digest(b"");
    match *request {
        Request::Device { row } => {
            let code = DEVICE[row].0;
            let payload: &[u8] = match code {
                // The audit of ECHO, off as ever; force audit; one random byte; no time at all.
                0x4f => &[3, 0, 2, 1, 0],
                0x50 => &[1],
                0x51 => &[0, 1],
                0x6b => &[0],
                _ => &[],
            };
            (code, payload.to_vec())
        }
        Request::Reset => (0x08, vec![]),
        Request::Freeze => (0x4f, vec![0x81, 0, 1, 1]),
        Request::Presence { mode } => (0x4f, vec![0x80, 0, 2, mode, 5]),
        Request::Create { thing, generate } => {
            let put = [0, 0x42, 0x44, 0x45, 0x4c, 0x52, 0x5e, 0x65, 0x6d, 0x73];
            let generates = [0, 0, 0, 0x46, 0x5b, 0x5a, 0, 0x66, 0x6e, 0];
            let delegated = thing.delegated.to_be_bytes();
            let delegates = matches!(thing.kind, AUTHENTICATION | WRAP | PUBLIC_WRAP);
            let rest = match (generate, thing.kind) {
                (true, OTP) => NONCE_ID.to_vec(),
                (true, _) => vec![],
                (false, _) => content(&thing, certificate),
            };
            let code = if generate { generates } else { put }[usize::from(thing.kind)];
            (code, [&header(&thing)[..], if delegates { &delegated[..] } else { &[] }, &rest].concat())
        }
        Request::Use { row, id } => {
            let code = USES[row].code;
            let rest = match code {
                0x47 => KEY[..48].to_vec(),
                0x55 => [&[34, 0, 32], &KEY[..32]].concat(),
                0x56 => KEY[..32].to_vec(),
                0x49 => RSA_KEY.pkcs1.clone(),
                0x59 => [&[33], &RSA_KEY.oaep[..], &label_hash].concat(),
                0x57 => POINT.to_vec(),
                0x60 => [&AEAD[..], &PASSWORD].concat(),
                0x61 => KEY[..22].to_vec(),
                0x62 => vec![],
                0x69 => WRAPPED_DATA.to_vec(),
                _ => KEY.to_vec(),
            };
            (code, with_id(id, &rest))
        }
        Request::Rewrap { from, to } => (0x63, with_id(from, &with_id(to, &AEAD))),
        Request::Attest { id, attesting } => (0x64, with_id(id, &attesting.to_be_bytes())),
        Request::SignSsh { ca, template } => {
            (0x5d, with_id(ca, &with_id(template, &[&[1, 0, 0, 0, 0], &KEY[..]].concat())))
        }
        Request::GetOpaque { id } => (0x43, with_id(id, &[])),
        Request::GetTemplate { id } => (0x5f, with_id(id, &[])),
        Request::GetPublicKey { kind: ASYMMETRIC, id } => (0x54, with_id(id, &[])),
        Request::GetPublicKey { kind, id } => (0x54, with_id(id, &[kind])),
        Request::Info { kind, id } => (0x4e, with_id(id, &[kind])),
        Request::Delete { kind, id } => (0x58, with_id(id, &[kind])),
        Request::Change { id } => (0x6c, with_id(id, &[&[38], &KEY[..32]].concat())),
        Request::Export { form, wrap, kind, id } => {
            let names = with_id(wrap, &[&[kind], &id.to_be_bytes()[..]].concat());
            match form {
                Form::Aes => (0x4a, names),
                Form::Rsa => (0x76, [&names[..], &[52, 26, 33], &label_hash].concat()),
                Form::Bare => (0x74, [&names[..], &[52, 26, 33], &label_hash].concat()),
            }
        }
        Request::Import { form, wrap, thing, .. } => match form {
            Form::Aes => (0x4b, with_id(wrap, wrapped)),
            Form::Rsa => (0x77, with_id(wrap, &[&[26, 33], wrapped, &label_hash].concat())),
            Form::Bare => {
                let object = [&[thing.kind], &header(&thing)[..]].concat();
                (0x75, with_id(wrap, &[&object[..], &[26, 33], wrapped, &label_hash].concat()))
            }
        },
        Request::Short { code } => (code, vec![]),
    }
}

/// The device under test, with the oracle.
struct Trial {
    device: ModelDevice,
    oracle: Oracle,
    /// Sees everything; no request names its key.
    observer: Session,
    sessions: Vec<(Session, Rights)>,
    /// Sessions that were created and not yet authenticated.
    begun: Vec<(Session, Rights)>,
    wrapped: Vec<Wrapped>,
    certificate: Vec<u8>,
}

/// Sessions at a time, and sessions that are half open.
const SESSIONS: usize = 4;
/// The authentication key of the observer: one that no request names.
const OBSERVER: Thing = Thing {
    kind: AUTHENTICATION,
    id: 0x7fff,
    algorithm: 38,
    capabilities: 1,
    delegated: 0,
    domains: u16::MAX,
    origin: 2,
    sequence: 0,
    secret: 0,
};

/// Opens a session with the observer's key, which a new device does not have yet.
fn observe(device: &mut ModelDevice, oracle: &mut Oracle) -> Session {
    let (code, payload) = message(&Request::Create { thing: OBSERVER, generate: false }, &[], &[]);
    let mut admin = Session::admin(device);
    admin.send(device, Command::from_code(code).unwrap(), &payload).unwrap();
    admin.send(device, Command::CloseSession, &[]).unwrap();
    oracle.carry_out(Effect::Create(OBSERVER), OBSERVER.id);
    Session::open_with(device, OBSERVER.id, &password(oracle, OBSERVER.id)).unwrap()
}

/// What opens a session of this key, if there is one.
fn password(oracle: &Oracle, id: u16) -> AuthenticationKey {
    match oracle.things.get(&(AUTHENTICATION, id)).map(|thing| thing.secret) {
        Some(oracle::DEFAULT_PASSWORD) => AuthenticationKey::from_password(b"password"),
        _ => AuthenticationKey::from_bytes(*KEY.first_chunk().unwrap()),
    }
}

impl Trial {
    fn start(disabled: Option<u8>) -> Self {
        let mut device = fresh();
        let mut oracle = Oracle::new();
        if let Some(algorithm) = disabled {
            let mut admin = Session::admin(&mut device);
            admin.send(&mut device, Command::SetOption, &[4, 0, 2, algorithm, 0]).unwrap();
            admin.send(&mut device, Command::CloseSession, &[]).unwrap();
            oracle.disabled = 1 << algorithm;
        }
        let mut observer = observe(&mut device, &mut oracle);
        let certificate = observer.send(&mut device, Command::GetOpaque, &[0, 0]).unwrap();
        let (sessions, begun, wrapped) = (vec![], vec![], vec![]);
        let mut trial = Self { device, oracle, observer, sessions, begun, wrapped, certificate };
        trial.touch(true);
        trial.open(1);
        trial.export_a_key();
        trial
    }

    /// Both halves of an RSA wrap key with every right, and an export of a key under them: rarely found by
    /// chance.
    fn export_a_key(&mut self) {
        let all = Thing { origin: 0, ..Oracle::default_key() };
        for (kind, algorithm) in [(WRAP, RSA), (PUBLIC_WRAP, RSA), (SYMMETRIC, 50)] {
            let thing = Thing { kind, algorithm, secret: 0, ..all };
            self.request(0, &Request::Create { thing, generate: false }, &[]);
        }
        for form in [Form::Rsa, Form::Bare] {
            self.request(0, &Request::Export { form, wrap: 1, kind: SYMMETRIC, id: 1 }, &[]);
        }
    }

    /// Opens a session; the oldest but the first makes room.
    fn open(&mut self, id: u16) {
        let rights = self.oracle.rights(id);
        let key = password(&self.oracle, id);
        if self.sessions.len() == SESSIONS {
            let (mut oldest, _) = self.sessions.remove(1);
            oldest.send(&mut self.device, Command::CloseSession, &[]).unwrap();
        }
        let opened = Session::open_with(&mut self.device, id, &key);
        match (opened, rights) {
            (Ok(session), Some(rights)) => self.sessions.push((session, rights)),
            (Err(error), None) => assert_eq!(error.code(), 0x0b),
            (opened, rights) => panic!("{:?}, expected {rights:?}", opened.map(|_| ())),
        }
    }

    /// Creates a session; the oldest that was created is authenticated to make room.
    fn begin(&mut self, id: u16) {
        if self.begun.len() == SESSIONS {
            self.finish();
        }
        let begun = Session::create_with(&mut self.device, id, &password(&self.oracle, id));
        match (begun, self.oracle.rights(id)) {
            (Ok(session), Some(rights)) => self.begun.push((session, rights)),
            (Err(error), None) => assert_eq!(error.code(), 0x0b),
            (begun, rights) => panic!("{:?}, expected {rights:?}", begun.map(|_| ())),
        }
    }

    /// Authenticates the oldest session that was created: it is one only if its key is still the same.
    fn finish(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        let (session, rights) = self.begun.remove(0);
        match (session.authenticate(&mut self.device), self.oracle.is_open(&rights)) {
            (Ok(mut session), true) => {
                assert_eq!(list(&mut self.device, &mut session), self.oracle.list(&rights), "{rights:?}");
                session.send(&mut self.device, Command::CloseSession, &[]).unwrap();
            }
            (Err(error), false) => assert!(OVER.contains(&error.code()), "{error}"),
            (answer, open) => panic!("{:?}, expected {open}: {rights:?}", answer.map(|_| ())),
        }
    }

    fn touch(&mut self, touched: bool) {
        self.oracle.touched = touched;
        self.device.platform().presence = if touched { Presence::Confirmed } else { Presence::TimedOut };
    }

    /// Drops the sessions that have ended according to the oracle, and checks that they have.
    fn drop_ended(&mut self) {
        let sessions = std::mem::take(&mut self.sessions);
        let (open, ended): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|(_, rights)| self.oracle.is_open(rights));
        self.sessions = open;
        for (mut session, rights) in ended {
            let answer = session.send(&mut self.device, Command::Echo, b"x").map_err(|error| error.code());
            assert!(answer.is_err_and(|code| OVER.contains(&code)), "{rights:?}");
        }
    }

    fn act(&mut self, by: usize, action: &Action) {
        if self.sessions.iter().all(|(_, rights)| rights.key != 1) {
            // The administrator's key may be another, or gone.
            self.open(1);
            if let Some(last) = self.sessions.pop() {
                self.sessions.insert(0, last);
            }
        }
        let Some(by) = by.checked_rem(self.sessions.len()) else { return };
        match *action {
            Action::Open { id } => self.open(id),
            Action::Begin { id } => self.begin(id),
            Action::Finish => self.finish(),
            Action::Touch { touched } => self.touch(touched),
            Action::Request(ref request) => {
                let blob = match request {
                    Request::Import { thing, .. } => sealed(thing),
                    _ => vec![],
                };
                self.request(by, request, &blob);
            }
            Action::Import { form, wrap, pick, say } => {
                let fitting: Vec<_> = self.wrapped.iter().filter(|wrapped| wrapped.form == form).collect();
                let Some(wrapped) = pick.checked_rem(fitting.len()).map(|at| fitting[at]) else { return };
                let inside = wrapped.thing;
                let mut thing = inside;
                if form == Form::Bare {
                    let (kind, id, capabilities, domains) = say;
                    let kind = if kind == 0 { inside.kind } else { kind };
                    thing = Thing { kind, id, capabilities, domains, delegated: 0, ..inside };
                }
                let is = (inside.kind, inside.algorithm);
                let request = Request::Import { form, wrap, thing, under: wrapped.under, is };
                let bytes = wrapped.bytes.clone();
                self.request(by, &request, &bytes);
            }
        }
    }

    fn request(&mut self, by: usize, request: &Request, blob: &[u8]) {
        let (session, rights) = &mut self.sessions[by];
        let rights = *rights;
        let (code, payload) = message(request, blob, &self.certificate);
        let answer = session.send(&mut self.device, Command::from_code(code).unwrap(), &payload);
        let answer = answer.map_err(|error| error.code());
        let effect = match (&answer, self.oracle.judge(&rights, request)) {
            (Ok(_), Ok(effect)) => effect,
            (Err(code), Err(codes)) if codes.contains(code) => Effect::Nothing,
            (_, expected) => {
                panic!(
                    "{request:?}\nby {rights:?}:\nanswer {answer:02x?}\nexpected {expected:02x?}\n{:#?}",
                    self.oracle
                )
            }
        };
        let answer = answer.unwrap_or_default();
        let chosen = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
        match *request {
            Request::Import { thing, .. } if !answer.is_empty() => {
                assert_eq!((answer.len(), answer[0]), (3, thing.kind));
                self.oracle.carry_out(effect, chosen(1));
            }
            Request::Create { .. } if !answer.is_empty() => self.oracle.carry_out(effect, chosen(0)),
            Request::Info { kind, id } if !answer.is_empty() => {
                let thing = self.oracle.things[&(kind, id)];
                assert_eq!(answer, info(&thing, &answer), "{thing:?}");
            }
            Request::Export { form, wrap, kind, id } if !answer.is_empty() => {
                let under = if form == Form::Aes { self.oracle.things[&(WRAP, wrap)].secret } else { 0 };
                let thing = self.oracle.things[&(kind, id)];
                self.wrapped.push(Wrapped { form, bytes: answer.clone(), thing, under });
            }
            _ => self.oracle.carry_out(effect, 0),
        }
        self.oracle.follow(&mut self.sessions[by].1, effect);
        match effect {
            Effect::Reset => {
                self.sessions.clear();
                self.begun.clear();
                self.observer = observe(&mut self.device, &mut self.oracle);
                self.certificate = self.observer.send(&mut self.device, Command::GetOpaque, &[0, 0]).unwrap();
                self.open(1);
            }
            Effect::Create(Thing { kind, .. }) => {
                let id = if code == 0x4b || code >= 0x74 { chosen(1) } else { chosen(0) };
                self.inspect(kind, id);
            }
            Effect::Change(id) => self.inspect(AUTHENTICATION, id),
            Effect::Nothing | Effect::Delete(..) | Effect::Freeze | Effect::Presence(_) => {}
        }
        let all = self.oracle.rights(OBSERVER.id).unwrap();
        assert_eq!(list(&mut self.device, &mut self.observer), self.oracle.list(&all), "{request:?}");
        // It may have replaced its own key.
        if let Some((session, rights)) =
            self.sessions.get_mut(by).filter(|(_, rights)| self.oracle.is_open(rights))
        {
            assert_eq!(list(&mut self.device, session), self.oracle.list(rights), "{rights:?}");
        }
        self.drop_ended();
    }

    /// Compares everything that the device reports about an object.
    fn inspect(&mut self, kind: u8, id: u16) {
        let answer =
            self.observer.send(&mut self.device, Command::GetObjectInfo, &with_id(id, &[kind])).unwrap();
        let thing = self.oracle.things[&(kind, id)];
        assert_eq!(answer, info(&thing, &answer), "{thing:?}");
    }
}

/// LIST OBJECTS, in the order of the oracle.
fn list(device: &mut ModelDevice, session: &mut Session) -> Vec<(u16, u8, u8)> {
    let answer = session.send(device, Command::ListObjects, &[]).unwrap();
    let mut list: Vec<_> =
        answer.chunks(4).map(|row| (u16::from_be_bytes([row[0], row[1]]), row[2], row[3])).collect();
    list.sort_by_key(|&(id, kind, _)| (kind, id));
    list
}

/// An algorithm that may be disabled: of keys or of their operations.
fn disabled() -> impl Strategy<Value = Option<u8>> {
    let one = prop::sample::select(vec![
        1_u8, 3, 6, 9, 12, 20, 24, 26, 29, 30, 31, 33, 34, 36, 37, 43, 46, 48, 50, 53, 54, 55,
    ]);
    prop_oneof![2 => Just(None), 1 => one.prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_device_permits_and_refuses_what_the_oracle_does_and_its_store_follows(
        disabled in disabled(),
        actions in prop::collection::vec((0..2 * SESSIONS, action()), 100..200),
    ) {
        let mut trial = Trial::start(disabled);
        for (by, action) in actions {
            // Every other request comes from the first session, which has all rights.
            trial.act(by.saturating_sub(SESSIONS), &action);
        }
        for (kind, id) in trial.oracle.things.keys().copied().collect::<Vec<_>>() {
            trial.inspect(kind, id);
        }
    }
}
