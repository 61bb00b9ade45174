#![allow(dead_code, reason = "each test binary uses a part")]
//! Everything that goes into the signing of a certificate, for tests that change one thing.

use crate::model::{ModelDevice, Object, Session, encoded, fresh};
use sshsm_firmware::crypto::{Key, MAX_SIGNATURE, RustCrypto, key, sign_ssh};
use sshsm_firmware::ssh::memory::Memory;
use sshsm_firmware::ssh::policy::{self, BothDomains, CaKey, Check, OnDevice, Outcome, Verdict, judge};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::message::SignSshCertificate;
use sshsm_protocol::ssh::public_key::{PublicKey, SshCurve};
use sshsm_protocol::ssh::request::{CertificateKind, Field, Options, Principals, Request, SubjectKey};
use sshsm_protocol::ssh::rules::Rules;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{CaKeys, ForbiddenPrincipals, NotAfterOffset, NotBeforeOffset, Template};
use sshsm_protocol::ssh::timestamp::{Now, TimestampKey, message};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capability, Command, Curve, DeviceError, Domains, ObjectId,
};

pub(crate) const NOW: u32 = 1_700_000_000;
pub(crate) const CA_ID: u16 = 5;
pub(crate) const TEMPLATE_ID: u16 = 10;

/// A small generator for keys that need no secrecy.
pub(crate) fn entropy() -> impl rand_core::CryptoRng {
    use rand_chacha::rand_core::SeedableRng;
    rand_chacha::ChaCha8Rng::seed_from_u64(1)
}

/// Everything that goes into a signing; a test changes one thing.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) timestamp_algorithm: AsymmetricAlgorithm,
    pub(crate) timestamp_body: Vec<u8>,
    /// A key that signs instead of the one that the template names.
    pub(crate) timestamp_forger: Option<Vec<u8>>,
    pub(crate) ca_keys: Vec<u16>,
    pub(crate) not_before: u32,
    pub(crate) not_after: u32,
    pub(crate) forbidden: Vec<u8>,
    pub(crate) ca_algorithm: AsymmetricAlgorithm,
    pub(crate) ca_private: Vec<u8>,
    pub(crate) now: u32,
    pub(crate) signed_now: u32,
    pub(crate) principals: Vec<&'static [u8]>,
    pub(crate) valid_after: u64,
    pub(crate) valid_before: u64,
    pub(crate) signature_key: Option<[u8; 32]>,
    pub(crate) rules: Rules<'static>,
    pub(crate) serial: u64,
    pub(crate) kind: CertificateKind,
    pub(crate) key_id: &'static [u8],
    pub(crate) subject: SubjectKey<'static>,
    pub(crate) critical: Vec<(&'static str, Option<&'static str>)>,
    pub(crate) extensions: Vec<(&'static str, Option<&'static str>)>,
    pub(crate) signature: Option<Algorithm>,
    pub(crate) domains: BothDomains,
    /// The state that the device keeps, for the policy alone.
    pub(crate) memory: Memory,
}

impl Case {
    pub(crate) fn new() -> Self {
        Self {
            timestamp_algorithm: AsymmetricAlgorithm::Ed25519,
            timestamp_body: key::expand(AsymmetricAlgorithm::Ed25519, &[2; 32]).unwrap().to_vec(),
            timestamp_forger: None,
            ca_keys: vec![3, CA_ID],
            not_before: 300,
            not_after: 36_000,
            forbidden: b"root\0toor\0".to_vec(),
            ca_algorithm: AsymmetricAlgorithm::Ed25519,
            ca_private: vec![1; 32],
            now: NOW,
            signed_now: NOW,
            principals: vec![b"alice", b"zone-web"],
            valid_after: u64::from(NOW) - 300,
            valid_before: u64::from(NOW) + 36_000,
            signature_key: None,
            rules: Rules::default(),
            serial: 1,
            kind: CertificateKind::User,
            key_id: b"id",
            subject: SubjectKey::Plain(PublicKey::Ed25519(&[4; 32])),
            critical: vec![],
            extensions: vec![],
            signature: None,
            domains: BothDomains { ca_key: Domains::ALL, template: Domains::ALL },
            memory: Memory::default(),
        }
    }

    pub(crate) fn template(&self) -> Vec<u8> {
        let public = key::public(self.timestamp_algorithm, &self.timestamp_body).unwrap();
        let ca_keys: Vec<u8> = self.ca_keys.iter().flat_map(|id| id.to_be_bytes()).collect();
        let template = Template {
            timestamp_key: TimestampKey::new(self.timestamp_algorithm, public).unwrap(),
            ca_keys: CaKeys::decode(&ca_keys).unwrap(),
            not_before: NotBeforeOffset::from_wire(self.not_before),
            not_after: NotAfterOffset::from_wire(self.not_after),
            forbidden_principals: ForbiddenPrincipals::decode(&self.forbidden).unwrap(),
            rules: self.rules,
        };
        let mut buffer = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut buffer);
        template.encode(&mut writer).unwrap();
        writer.written().to_vec()
    }

    pub(crate) fn ca_public(&self) -> Vec<u8> {
        let body = key::expand(self.ca_algorithm, &self.ca_private).unwrap();
        key::public(self.ca_algorithm, &body).unwrap().to_vec()
    }

    pub(crate) fn request(&self) -> Vec<u8> {
        let mut principals = Vec::new();
        for name in &self.principals {
            principals.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
            principals.extend_from_slice(name);
        }
        let (critical, extensions) = (options(&self.critical), options(&self.extensions));
        let ca = self.ca_public();
        let request = Request {
            nonce: &[9; 32],
            subject_key: self.subject,
            serial: self.serial,
            kind: self.kind,
            key_id: self.key_id,
            principals: Principals::decode(&principals).unwrap(),
            valid_after: self.valid_after,
            valid_before: self.valid_before,
            critical_options: Options::decode(Field::CriticalOptions, &critical).unwrap(),
            extensions: Options::decode(Field::Extensions, &extensions).unwrap(),
            signature_key: match &self.signature_key {
                Some(other) => PublicKey::Ed25519(other),
                None => PublicKey::from_raw(self.ca_algorithm, &ca).unwrap(),
            },
        };
        let mut buffer = [0; MAX_MESSAGE];
        let mut writer = Writer::new(&mut buffer);
        request.encode(&mut writer).unwrap();
        writer.written().to_vec()
    }

    pub(crate) fn timestamp_signature(&self, request: &[u8]) -> Vec<u8> {
        let body = self.timestamp_forger.as_ref().unwrap_or(&self.timestamp_body);
        let key = Key::<RustCrypto>::load(self.timestamp_algorithm, body).unwrap();
        let message = message(request, Now::from_seconds(self.signed_now));
        let algorithm = match self.timestamp_algorithm {
            AsymmetricAlgorithm::Ec(curve) => SignatureAlgorithm::Ecdsa(SshCurve::from_curve(curve).unwrap()),
            AsymmetricAlgorithm::Ed25519 => SignatureAlgorithm::Ed25519,
            _ => SignatureAlgorithm::RsaSha256,
        };
        let mut signature = [0; MAX_SIGNATURE];
        let length = sign_ssh(&key, algorithm, &message, &mut entropy(), &mut signature).unwrap();
        signature[..length].to_vec()
    }

    /// The policy's verdict, as the checks that do not allow it.
    pub(crate) fn refusals(&self) -> Vec<(Check, Outcome)> {
        let outcomes = [Outcome::Refused, Outcome::Undecided];
        let found = |outcome| {
            self.findings(Some(&self.memory), outcome).into_iter().map(move |check| (check, outcome))
        };
        outcomes.into_iter().flat_map(found).collect()
    }

    /// The checks with this outcome.
    pub(crate) fn findings(&self, memory: Option<&Memory>, outcome: Outcome) -> Vec<Check> {
        self.judged(memory, |verdict| {
            let all_allowed = verdict.findings().iter().all(|finding| finding.outcome == Outcome::Allowed);
            assert_eq!(verdict.is_allowed(), all_allowed);
            let refused = verdict.findings().iter().filter(|finding| finding.outcome == Outcome::Refused);
            assert!(verdict.refusals().eq(refused));
            let found = verdict.findings().iter().filter(|finding| finding.outcome == outcome);
            let found = found.map(|finding| finding.check).collect();
            assert_eq!(verdict.permit().is_ok(), all_allowed);
            found
        })
    }

    /// The policy's verdict.
    pub(crate) fn judged<T>(&self, memory: Option<&Memory>, then: impl FnOnce(Verdict<'_>) -> T) -> T {
        let (template, request, ca) = (self.template(), self.request(), self.ca_public());
        let signature = self.timestamp_signature(&request);
        let ca_key = CaKey {
            id: ObjectId::new(CA_ID).unwrap(),
            public: PublicKey::from_raw(self.ca_algorithm, &ca).unwrap(),
            algorithm: SignatureAlgorithm::from_algorithm(self.signature_algorithm(), self.ca_algorithm)
                .unwrap(),
        };
        then(judge::<RustCrypto>(&policy::Case {
            template: &Template::decode(&template),
            request: &request,
            now: Now::from_seconds(self.now),
            timestamp_signature: Some(&signature),
            ca_key,
            device: OnDevice { memory, domains: Some(self.domains) },
        }))
    }

    pub(crate) fn signature_algorithm(&self) -> Algorithm {
        if let Some(algorithm) = self.signature {
            return algorithm;
        }
        match self.ca_algorithm {
            AsymmetricAlgorithm::Ec(Curve::P256) => Algorithm::EcdsaSha256,
            AsymmetricAlgorithm::Ec(Curve::P384) => Algorithm::EcdsaSha384,
            AsymmetricAlgorithm::Ec(Curve::P521) => Algorithm::EcdsaSha512,
            AsymmetricAlgorithm::Ed25519 => Algorithm::Ed25519,
            _ => Algorithm::RsaPkcs1Sha512,
        }
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        let request = self.request();
        let request = [self.timestamp_signature(&request), request].concat();
        encoded(&SignSshCertificate {
            ca_key: CA_ID,
            template: TEMPLATE_ID,
            algorithm: self.signature_algorithm().code(),
            now: self.now,
            request: &request,
        })
    }

    /// A device with this case's CA key and template, and a session.
    pub(crate) fn device(&self) -> (ModelDevice, Session) {
        let mut device = fresh();
        let mut session = Session::admin(&mut device);
        let mut ca = Object::new(CA_ID, self.ca_algorithm.algorithm(), &[Capability::SignSshCertificate]);
        ca.domains = self.domains.ca_key;
        session.send(&mut device, Command::PutAsymmetricKey, &ca.with(&self.ca_private)).unwrap();
        let mut template = Object::new(TEMPLATE_ID, Algorithm::TemplateSsh, &[]);
        template.domains = self.domains.template;
        let template = template.with(&self.template());
        session.send(&mut device, Command::PutTemplate, &template).unwrap();
        (device, session)
    }

    pub(crate) fn sign(&self) -> Result<Vec<u8>, DeviceError> {
        let (mut device, mut session) = self.device();
        session.send(&mut device, Command::SignSshCertificate, &self.payload())
    }
}

/// Options as a certificate has them.
fn options(list: &[(&str, Option<&str>)]) -> Vec<u8> {
    let string = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    let value = |value: &Option<&str>| value.map_or_else(Vec::new, |value| string(value.as_bytes()));
    list.iter().flat_map(|(name, text)| [string(name.as_bytes()), string(&value(text))].concat()).collect()
}

/// The change makes the policy refuse for exactly one reason, and the device refuses on the wire.
pub(crate) fn only(check: Check, change: impl FnOnce(&mut Case)) {
    let mut case = Case::new();
    change(&mut case);
    assert_eq!(case.refusals(), [(check, Outcome::Refused)]);
    assert_eq!(case.sign(), Err(DeviceError::SshCaConstraintViolation));
}

/// The change is still allowed, by the policy and on the wire.
pub(crate) fn still_allowed(change: impl FnOnce(&mut Case)) {
    let mut case = Case::new();
    change(&mut case);
    assert_eq!(case.refusals(), []);
    case.sign().unwrap();
}
