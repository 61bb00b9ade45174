#![allow(missing_docs, unreachable_pub)]
//! Authorization, written a second time and as plainly as possible: bit masks and one table, based on
//! docs/protocol.md, "Rights" and docs/protocol.md, "Order of checks", and sharing no rules and no types with
//! the device.
//!
//! Capabilities are written as the number of their bit, types, algorithms, commands and errors as on the wire.

use std::collections::BTreeMap;

pub const OPAQUE: u8 = 1;
pub const AUTHENTICATION: u8 = 2;
pub const ASYMMETRIC: u8 = 3;
pub const WRAP: u8 = 4;
pub const HMAC: u8 = 5;
pub const TEMPLATE: u8 = 6;
pub const OTP: u8 = 7;
pub const SYMMETRIC: u8 = 8;
pub const PUBLIC_WRAP: u8 = 9;

pub const RSA: u8 = 9;
pub const P256: u8 = 12;
pub const ED25519: u8 = 46;
pub const AES_WRAP: u8 = 29;
pub const CERTIFICATE: u8 = 31;

/// The secret of the default authentication key.
pub const DEFAULT_PASSWORD: u32 = u32::MAX;

const INVALID_DATA: u8 = 0x02;
const WRONG_LENGTH: u8 = 0x08;
const NO_PERMISSION: u8 = 0x09;
const NOT_FOUND: u8 = 0x0b;
const INVALID_ID: u8 = 0x0c;
const CONSTRAINT: u8 = 0x0e;
const INVALID_OTP: u8 = 0x0f;
const EXISTS: u8 = 0x11;
const DISABLED: u8 = 0x12;
const UNTOUCHED: u8 = 0x40;
const FROZEN: u8 = 0x41;

const EXPORT_WRAPPED: u8 = 0x0c;
const IMPORT_WRAPPED: u8 = 0x0d;
const EXPORTABLE: u8 = 0x10;

/// The commands that put, generate and delete a type, and its algorithms here.
struct Kind {
    put: u8,
    generate: Option<u8>,
    delete: u8,
    algorithms: &'static [u8],
    delegates: bool,
}

const fn kind(kind: u8) -> Option<Kind> {
    let (put, generate, delete, algorithms): (_, _, _, &[u8]) = match kind {
        OPAQUE => (0x01, None, 0x27, &[30, CERTIFICATE]),
        AUTHENTICATION => (0x02, None, 0x28, &[38]),
        ASYMMETRIC => (0x03, Some(0x04), 0x29, &[RSA, P256, ED25519]),
        WRAP => (0x0e, Some(0x0f), 0x2a, &[AES_WRAP, RSA]),
        HMAC => (0x14, Some(0x15), 0x2b, &[20]),
        TEMPLATE => (0x1b, None, 0x2c, &[36]),
        OTP => (0x23, Some(0x24), 0x2d, &[37]),
        SYMMETRIC => (0x2f, Some(0x30), 0x31, &[50]),
        PUBLIC_WRAP => (0x36, None, 0x37, &[RSA]),
        _ => return None,
    };
    let delegates = matches!(kind, AUTHENTICATION | WRAP | PUBLIC_WRAP);
    Some(Kind { put, generate, delete, algorithms, delegates })
}

/// A command that uses one key.
pub struct Use {
    pub code: u8,
    kind: u8,
    /// Required of the session and of the key.
    capability: u8,
    /// The algorithms of keys that can do it.
    keys: &'static [u8],
    /// The algorithms that it uses besides the key's own, each of which can be disabled.
    with: &'static [u8],
    /// The answer if the key lacks the capability.
    refusal: u8,
    /// The answer if the key is not the one that made the ciphertext.
    other_key: Option<u8>,
}

const fn used(code: u8, kind: u8, capability: u8, keys: &'static [u8], with: &'static [u8]) -> Use {
    Use { code, kind, capability, keys, with, refusal: NO_PERMISSION, other_key: None }
}

pub const USES: [Use; 18] = [
    used(0x47, ASYMMETRIC, 0x05, &[RSA], &[3]),
    used(0x55, ASYMMETRIC, 0x06, &[RSA], &[6, 34]),
    used(0x56, ASYMMETRIC, 0x07, &[P256], &[43]),
    used(0x6a, ASYMMETRIC, 0x08, &[ED25519], &[]),
    used(0x49, ASYMMETRIC, 0x09, &[RSA], &[48]),
    used(0x59, ASYMMETRIC, 0x0a, &[RSA], &[26, 33]),
    used(0x57, ASYMMETRIC, 0x0b, &[P256], &[24]),
    used(0x53, HMAC, 0x16, &[20], &[]),
    used(0x5c, HMAC, 0x17, &[20], &[]),
    Use { other_key: Some(INVALID_OTP), ..used(0x60, OTP, 0x1d, &[37], &[]) },
    used(0x61, OTP, 0x1e, &[37], &[]),
    used(0x62, OTP, 0x1f, &[37], &[]),
    used(0x6f, SYMMETRIC, 0x32, &[50], &[53]),
    used(0x70, SYMMETRIC, 0x33, &[50], &[53]),
    used(0x71, SYMMETRIC, 0x34, &[50], &[54]),
    used(0x72, SYMMETRIC, 0x35, &[50], &[54]),
    // Before firmware 2.5 a wrap key's missing capability is invalid data.
    Use { refusal: INVALID_DATA, ..used(0x68, WRAP, 0x25, &[AES_WRAP], &[]) },
    Use { refusal: INVALID_DATA, other_key: Some(INVALID_DATA), ..used(0x69, WRAP, 0x26, &[AES_WRAP], &[]) },
];

/// The device as a whole: command and capability.
pub const DEVICE: [(u8, Option<u8>); 8] = [
    (0x01, None),
    (0x06, None),
    (0x41, None),
    (0x4d, Some(0x18)),
    (0x4f, Some(0x11)),
    (0x50, Some(0x12)),
    (0x51, Some(0x13)),
    (0x6b, None),
];

/// The rights that an authentication key gives to the sessions that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub key: u16,
    pub capabilities: u64,
    pub delegated: u64,
    pub domains: u16,
    /// Which of the successive keys with this id opened the session; 0 once the session has deleted it.
    pub incarnation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thing {
    pub kind: u8,
    pub id: u16,
    pub algorithm: u8,
    pub capabilities: u64,
    pub delegated: u64,
    pub domains: u16,
    pub origin: u8,
    pub sequence: u8,
    /// 0 is the key that clients put; every generated key has its own number.
    pub secret: u32,
}

/// How a thing is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A whole object under AES.
    Aes,
    /// A whole object under RSA.
    Rsa,
    /// A bare key under RSA.
    Bare,
}

#[derive(Clone, Debug)]
pub enum Request {
    /// Commands of [`DEVICE`].
    Device {
        row: usize,
    },
    Reset,
    /// SET OPTION `templates`, frozen.
    Freeze,
    /// SET OPTION `user-presence`: 0 off, 1 certificates, 2 all.
    Presence {
        mode: u8,
    },
    Create {
        thing: Thing,
        generate: bool,
    },
    /// Commands of [`USES`].
    Use {
        row: usize,
        id: u16,
    },
    Rewrap {
        from: u16,
        to: u16,
    },
    Attest {
        id: u16,
        attesting: u16,
    },
    SignSsh {
        ca: u16,
        template: u16,
    },
    GetOpaque {
        id: u16,
    },
    GetTemplate {
        id: u16,
    },
    GetPublicKey {
        kind: u8,
        id: u16,
    },
    Info {
        kind: u8,
        id: u16,
    },
    Delete {
        kind: u8,
        id: u16,
    },
    Change {
        id: u16,
    },
    Export {
        form: Form,
        wrap: u16,
        kind: u8,
        id: u16,
    },
    /// `thing` is the object inside, as it was exported; `under` is the AES key that sealed it. For a bare
    /// key, `thing` is the client's description, and `is` the actual key.
    Import {
        form: Form,
        wrap: u16,
        thing: Thing,
        under: u32,
        is: (u8, u8),
    },
    /// A command without its payload.
    Short {
        code: u8,
    },
}

/// The effect of a permitted request on the store.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    Nothing,
    /// An id of 0 is for the device to choose.
    Create(Thing),
    Delete(u8, u16),
    Change(u16),
    Freeze,
    Presence(u8),
    Reset,
}

/// The correct codes: one, except that if two objects of one command are refused for different reasons, it is
/// not specified which reason comes first.
type Refusal = Vec<u8>;

#[derive(Debug, Default)]
pub struct Oracle {
    pub things: BTreeMap<(u8, u16), Thing>,
    /// The next sequence number of every name that ever was.
    history: BTreeMap<(u8, u16), u8>,
    /// Counts everything ever stored as an authentication key, and which of them each id has now.
    stored: u32,
    incarnations: BTreeMap<u16, u32>,
    pub disabled: u64,
    /// No template can be added or removed.
    frozen: bool,
    /// What waits for a touch, and whether the device is touched.
    presence: u8,
    pub touched: bool,
    secrets: u32,
}

fn has(capabilities: u64, bit: u8) -> bool {
    capabilities >> bit & 1 == 1
}

fn within(part: u64, whole: u64) -> bool {
    part & !whole == 0
}

fn demand(fine: bool, code: u8) -> Result<(), Refusal> {
    if fine { Ok(()) } else { Err(vec![code]) }
}

/// Both objects must be fine.
fn both<A, B>(first: Result<A, Refusal>, second: Result<B, Refusal>) -> Result<(A, B), Refusal> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(first), Err(second)) => Err([first, second].concat()),
        (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
    }
}

impl Oracle {
    /// A fresh device.
    pub fn new() -> Self {
        let mut oracle = Self::default();
        oracle.carry_out(Effect::Reset, 0);
        oracle
    }

    pub fn default_key() -> Thing {
        Thing {
            kind: AUTHENTICATION,
            id: 1,
            algorithm: 38,
            capabilities: u64::MAX,
            delegated: u64::MAX,
            domains: u16::MAX,
            origin: 2,
            sequence: 0,
            secret: DEFAULT_PASSWORD,
        }
    }

    /// The rights of a session with this key, until the key changes; `None` if there is none.
    pub fn rights(&self, key: u16) -> Option<Rights> {
        let thing = self.things.get(&(AUTHENTICATION, key))?;
        let Thing { capabilities, delegated, domains, .. } = *thing;
        let incarnation = self.incarnation(key);
        Some(Rights { key, capabilities, delegated, domains, incarnation })
    }

    fn incarnation(&self, key: u16) -> u32 {
        self.incarnations.get(&key).copied().unwrap_or(0)
    }

    /// Whether a session is still valid: its key is the one that opened it, or it deleted that key and there
    /// is no other.
    pub fn is_open(&self, rights: &Rights) -> bool {
        self.incarnation(rights.key) == rights.incarnation
    }

    /// How the session that sent this continues: it survives changes to its own key.
    pub fn follow(&self, rights: &mut Rights, effect: Effect) {
        let own = match effect {
            Effect::Change(_) => true,
            Effect::Delete(kind, id) => (kind, id) == (AUTHENTICATION, rights.key),
            _ => false,
        };
        if own {
            rights.incarnation = self.incarnation(rights.key);
        }
    }

    /// The objects that the session sees, in any order.
    pub fn list(&self, rights: &Rights) -> Vec<(u16, u8, u8)> {
        let seen = self.things.values().filter(|thing| thing.domains & rights.domains != 0);
        seen.map(|thing| (thing.id, thing.kind, thing.sequence)).collect()
    }

    fn visible(&self, rights: &Rights, kind: u8, id: u16) -> Result<Thing, Refusal> {
        let thing = self.things.get(&(kind, id)).filter(|thing| thing.domains & rights.domains != 0);
        thing.copied().ok_or_else(|| vec![NOT_FOUND])
    }

    /// What waits from this setting on.
    fn touch(&self, least: u8) -> Result<(), Refusal> {
        demand(self.presence < least || self.touched, UNTOUCHED)
    }

    fn thawed(&self, kind: u8) -> Result<(), Refusal> {
        demand(kind != TEMPLATE || !self.frozen, FROZEN)
    }

    fn enabled(&self, algorithms: &[u8]) -> Result<(), Refusal> {
        demand(algorithms.iter().all(|&algorithm| !has(self.disabled, algorithm)), DISABLED)
    }

    fn usable(
        &self,
        rights: &Rights,
        (kind, id): (u8, u16),
        capability: u8,
        with: &[u8],
    ) -> Result<Thing, Refusal> {
        let thing = self.visible(rights, kind, id)?;
        self.enabled(with)?;
        demand(has(thing.capabilities, capability), NO_PERMISSION)?;
        Ok(thing)
    }

    /// The effect of a request, or why it is refused.
    pub fn judge(&self, rights: &Rights, request: &Request) -> Result<Effect, Refusal> {
        let session = |capability: u8| demand(has(rights.capabilities, capability), NO_PERMISSION);
        match *request {
            Request::Device { row } => {
                DEVICE[row].1.map_or(Ok(()), session)?;
                Ok(Effect::Nothing)
            }
            Request::Reset => {
                session(0x1c)?;
                self.touch(1)?;
                Ok(Effect::Reset)
            }
            Request::Freeze => {
                session(0x11)?;
                Ok(Effect::Freeze)
            }
            Request::Presence { mode } => {
                session(0x11)?;
                demand(mode == self.presence || self.touched, UNTOUCHED)?;
                Ok(Effect::Presence(mode))
            }
            Request::Create { thing, generate } => self.create(rights, thing, generate),
            Request::Use { row, id } => {
                let Use { kind, capability, keys, with, refusal, other_key, .. } = USES[row];
                session(capability)?;
                let thing = self.visible(rights, kind, id)?;
                self.enabled(with)?;
                demand(has(thing.capabilities, capability), refusal)?;
                let fits = demand(keys.contains(&thing.algorithm), INVALID_DATA);
                // Private keys alone wait; that one cannot do it may be seen before the touch or after.
                let touched = if kind == ASYMMETRIC { self.touch(2) } else { Ok(()) };
                both(fits, touched)?;
                match other_key {
                    Some(code) if thing.secret != 0 => Err(vec![code]),
                    _ => Ok(Effect::Nothing),
                }
            }
            Request::Rewrap { from, to } => {
                session(0x20)?;
                session(0x21)?;
                let from = self.usable(rights, (OTP, from), 0x20, &[]);
                let to = self.usable(rights, (OTP, to), 0x21, &[]);
                let (from, _) = both(from, to)?;
                demand(from.secret == 0, INVALID_OTP)?;
                Ok(Effect::Nothing)
            }
            Request::Attest { id, attesting } => self.attest(rights, id, attesting),
            Request::SignSsh { ca, template } => {
                session(0x19)?;
                let ca = self.usable(rights, (ASYMMETRIC, ca), 0x19, &[1]);
                let (ca, _) = both(ca, self.visible(rights, TEMPLATE, template))?;
                // RSA is asked for, and the template is noise.
                Err(vec![if ca.algorithm == RSA { CONSTRAINT } else { INVALID_DATA }])
            }
            Request::GetOpaque { id } => {
                session(0x00)?;
                // Id 0 is the device's own certificate.
                if id != 0 {
                    self.visible(rights, OPAQUE, id)?;
                }
                Ok(Effect::Nothing)
            }
            Request::GetTemplate { id } => {
                session(0x1a)?;
                self.visible(rights, TEMPLATE, id)?;
                Ok(Effect::Nothing)
            }
            Request::GetPublicKey { kind, id } => {
                let thing = self.visible(rights, kind, id)?;
                demand(matches!(thing.algorithm, RSA | P256 | ED25519), INVALID_DATA)?;
                Ok(Effect::Nothing)
            }
            Request::Info { kind, id } => {
                self.visible(rights, kind, id)?;
                Ok(Effect::Nothing)
            }
            Request::Delete { kind: code, id } => {
                session(kind(code).ok_or_else(|| vec![INVALID_DATA])?.delete)?;
                self.visible(rights, code, id)?;
                self.thawed(code)?;
                Ok(Effect::Delete(code, id))
            }
            Request::Change { id } => {
                session(0x2e)?;
                demand(id == rights.key, INVALID_ID)?;
                // The session that deleted it has none.
                demand(rights.incarnation != 0, NOT_FOUND)?;
                Ok(Effect::Change(id))
            }
            Request::Export { form, wrap, kind, id } => {
                session(EXPORT_WRAPPED)?;
                let target = self.visible(rights, kind, id);
                let wrap = match form {
                    Form::Aes => self.visible(rights, WRAP, wrap).and_then(|wrap| {
                        // Inability is reported before a missing right.
                        demand(wrap.algorithm == AES_WRAP, INVALID_DATA)?;
                        demand(has(wrap.capabilities, EXPORT_WRAPPED), NO_PERMISSION)?;
                        Ok(wrap)
                    }),
                    Form::Rsa | Form::Bare => {
                        self.usable(rights, (PUBLIC_WRAP, wrap), EXPORT_WRAPPED, &[26, 33, 52, 55])
                    }
                };
                let (wrap, target) = both(wrap, target)?;
                demand(has(target.capabilities, EXPORTABLE), NO_PERMISSION)?;
                demand(within(target.capabilities, wrap.delegated), NO_PERMISSION)?;
                demand(form != Form::Bare || matches!(kind, ASYMMETRIC | SYMMETRIC), INVALID_DATA)?;
                self.touch(2)?;
                Ok(Effect::Nothing)
            }
            Request::Import { form, wrap, thing, under, is } => {
                session(IMPORT_WRAPPED)?;
                let wrap = self.visible(rights, WRAP, wrap)?;
                if form == Form::Aes {
                    demand(wrap.algorithm == AES_WRAP, INVALID_DATA)?;
                } else {
                    self.enabled(&[26, 33, 55])?;
                    demand(wrap.algorithm == RSA, INVALID_DATA)?;
                }
                demand(has(wrap.capabilities, IMPORT_WRAPPED), NO_PERMISSION)?;
                demand(form != Form::Aes || wrap.secret == under, INVALID_DATA)?;
                self.import(rights, form, &wrap, thing, is)
            }
            Request::Short { code } => {
                let capabilities = match code {
                    0x63 => vec![0x20, 0x21],
                    0x4a | 0x74 | 0x76 => vec![EXPORT_WRAPPED],
                    0x4b | 0x75 | 0x77 => vec![IMPORT_WRAPPED],
                    0x46 => vec![0x04],
                    0x6c => vec![0x2e],
                    _ => USES.iter().filter(|used| used.code == code).map(|used| used.capability).collect(),
                };
                capabilities.into_iter().try_for_each(session)?;
                Err(vec![WRONG_LENGTH])
            }
        }
    }

    fn create(&self, rights: &Rights, thing: Thing, generate: bool) -> Result<Effect, Refusal> {
        let Kind { put, generate: generates, algorithms, delegates, .. } =
            kind(thing.kind).ok_or_else(|| vec![INVALID_DATA])?;
        let capability = if generate { generates.ok_or_else(|| vec![INVALID_DATA])? } else { put };
        demand(has(rights.capabilities, capability), NO_PERMISSION)?;
        demand(thing.id != 0xffff, INVALID_ID)?;
        demand(algorithms.contains(&thing.algorithm), INVALID_DATA)?;
        self.enabled(&[thing.algorithm])?;
        demand(thing.domains != 0, INVALID_DATA)?;
        demand(thing.domains & !rights.domains == 0, NO_PERMISSION)?;
        demand(within(thing.capabilities, rights.delegated), NO_PERMISSION)?;
        demand(!delegates || within(thing.delegated, rights.delegated), NO_PERMISSION)?;
        self.thawed(thing.kind)?;
        demand(!self.things.contains_key(&(thing.kind, thing.id)), EXISTS)?;
        let (origin, secret) = if generate { (1, self.secrets + 1) } else { (2, 0) };
        let delegated = if delegates { thing.delegated } else { 0 };
        Ok(Effect::Create(Thing { delegated, origin, secret, ..thing }))
    }

    fn import(
        &self,
        rights: &Rights,
        form: Form,
        wrap: &Thing,
        thing: Thing,
        is: (u8, u8),
    ) -> Result<Effect, Refusal> {
        // A whole object is seen only once the private key has unwrapped it.
        if form == Form::Rsa {
            self.touch(2)?;
        }
        demand(thing.id != 0xffff, INVALID_ID)?;
        // Whatever the object or the client requests: only domains of both the wrap key and the session.
        let domains = thing.domains & wrap.domains & rights.domains;
        self.enabled(&[thing.algorithm])?;
        demand(thing.domains != 0, INVALID_DATA)?;
        demand(domains != 0, NO_PERMISSION)?;
        demand(within(thing.capabilities, wrap.delegated), NO_PERMISSION)?;
        demand(within(thing.delegated, wrap.delegated), NO_PERMISSION)?;
        self.thawed(thing.kind)?;
        demand(!self.things.contains_key(&(thing.kind, thing.id)), EXISTS)?;
        if form == Form::Bare {
            self.touch(2)?;
        }
        demand((thing.kind, thing.algorithm) == is, INVALID_DATA)?;
        let origin = if form == Form::Bare { 0x12 } else { thing.origin | 0x10 };
        Ok(Effect::Create(Thing { domains, origin, ..thing }))
    }

    fn attest(&self, rights: &Rights, id: u16, attesting: u16) -> Result<Effect, Refusal> {
        const ATTEST: u8 = 0x22;
        demand(has(rights.capabilities, ATTEST), NO_PERMISSION)?;
        // Id 0 is the device: its static key is attested, its built-in key attests.
        let attested = if id == 0 { Ok(None) } else { self.visible(rights, ASYMMETRIC, id).map(Some) };
        let attester = match attesting {
            0 => Ok(None),
            _ => self.visible(rights, ASYMMETRIC, attesting).and_then(|thing| {
                let with = if thing.algorithm == P256 { 43 } else { 2 };
                self.usable(rights, (ASYMMETRIC, attesting), ATTEST, &[with]).map(Some)
            }),
        };
        let (attested, attester) = both(attested, attester)?;
        // Only a key that was generated here and stayed here is attested; RSA and EC keys attest, with a
        // certificate under their id.
        let mut wrong = Vec::new();
        wrong.extend(attested.filter(|thing| thing.origin != 1).map(|_| INVALID_DATA));
        wrong.extend(attester.filter(|thing| thing.algorithm == ED25519).map(|_| INVALID_DATA));
        if attesting != 0 {
            match self.visible(rights, OPAQUE, attesting) {
                Ok(certificate) if certificate.algorithm == CERTIFICATE => {}
                Ok(_) => wrong.push(INVALID_DATA),
                Err(missing) => wrong.extend(missing),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        self.touch(2)?;
        Ok(Effect::Nothing)
    }

    /// The store after the effect; `chosen` is the id that the device answered with.
    pub fn carry_out(&mut self, effect: Effect, chosen: u16) {
        match effect {
            Effect::Nothing => {}
            Effect::Create(mut thing) => {
                if thing.id == 0 {
                    assert!(!matches!(chosen, 0 | 0xffff), "{chosen:#x} is not an id");
                    assert!(self.things.keys().all(|&(_, id)| id != chosen), "{chosen:#x} is in use");
                    thing.id = chosen;
                }
                assert_eq!(chosen, thing.id);
                self.insert(thing);
                self.secrets += u32::from(thing.origin == 1);
            }
            Effect::Delete(kind, id) => {
                self.things.remove(&(kind, id));
                if kind == AUTHENTICATION {
                    self.incarnations.remove(&id);
                }
            }
            Effect::Change(id) => {
                if let Some(thing) = self.things.remove(&(AUTHENTICATION, id)) {
                    self.insert(Thing { origin: 2, secret: 0, ..thing });
                }
            }
            Effect::Freeze => self.frozen = true,
            Effect::Presence(mode) => self.presence = mode,
            Effect::Reset => {
                let Self { secrets, stored, touched, .. } = *self;
                *self = Self { secrets, stored, touched, ..Self::default() };
                self.insert(Self::default_key());
            }
        }
    }

    fn insert(&mut self, thing: Thing) {
        let next = self.history.entry((thing.kind, thing.id)).or_default();
        self.things.insert((thing.kind, thing.id), Thing { sequence: *next, ..thing });
        *next = next.wrapping_add(1);
        if thing.kind == AUTHENTICATION {
            self.stored += 1;
            self.incarnations.insert(thing.id, self.stored);
        }
    }
}
