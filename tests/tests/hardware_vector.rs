//! A signature by real YubiHSM 2 hardware, requested from our device again: the answer is the same byte for
//! byte, in process and over HTTP, and a request that differs in any bit gets none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_ca::device_address::DeviceAddress;
use sshsm_client::{Client, ClientError, Listener, Session};
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, DeviceError, Domains, Label, ObjectId,
    codec::Writer, object::NewObject, ssh::template::Template, ssh::timestamp::Now,
};
use sshsm_tests::{needs, simulator, vector};

fn in_memory() -> Client {
    let simulator = sshsm_simulator::Simulator::memory().start().unwrap();
    Client::connect(Box::new(simulator), Listener::default()).unwrap()
}

fn over_http(simulator: &simulator::Simulator) -> Client {
    let address: DeviceAddress = simulator.url().parse().unwrap();
    Client::connect(address.open(&Listener::default()).unwrap(), Listener::default()).unwrap()
}

fn open(client: &mut Client) -> Session<'_> {
    Session::open(client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap()
}

/// A device that holds the vector's objects, and the vector's request in its three parts.
struct Replay<'c> {
    session: Session<'c>,
    ca_key: ObjectId,
    template: ObjectId,
    now: [u8; 4],
    timestamp_signature: Vec<u8>,
    request: Vec<u8>,
}

impl<'c> Replay<'c> {
    fn prepare(mut session: Session<'c>, vector: &vector::Signing) -> Self {
        let object = |id, domains: &[u8], capabilities: &[Capability], algorithm| NewObject {
            id: Some(ObjectId::new(id).unwrap()),
            label: Label::new("").unwrap(),
            domains: Domains::from_bits(domains.iter().map(|domain| 1 << (domain - 1)).sum()),
            capabilities: Capabilities::of(capabilities),
            algorithm,
        };
        let key = &vector.ca_key;
        let ca_key =
            object(key.object_id, &key.domains, &[Capability::SignSshCertificate], Algorithm::Rsa2048);
        let template =
            object(vector.template.object_id, &vector.template.domains, &[], Algorithm::TemplateSsh);
        Self {
            ca_key: session.put_asymmetric_key(&ca_key, &[&*key.p.0, &*key.q.0].concat()).unwrap(),
            template: session.put_template(&template, &vector.template.bytes.0).unwrap(),
            session,
            now: vector.sign.now.to_be_bytes(),
            timestamp_signature: vector.sign.timestamp_signature.0.clone(),
            request: vector.sign.request.0.clone(),
        }
    }

    fn sign(&mut self) -> Result<Vec<u8>, ClientError> {
        let now = Now::from_seconds(u32::from_be_bytes(self.now));
        let request = [self.timestamp_signature.as_slice(), &self.request].concat();
        let algorithm = Algorithm::RsaPkcs1Sha1;
        self.session.sign_ssh_certificate(self.ca_key, self.template, algorithm, now, &request)
    }

    /// The device's error code for a request with one bit changed, which is changed back afterwards.
    fn refusal(&mut self, part: impl Fn(&mut Self) -> &mut [u8], byte: usize, bit: usize) -> DeviceError {
        part(self)[byte] ^= 1 << bit;
        let answer = self.sign();
        part(self)[byte] ^= 1 << bit;
        match answer {
            Err(ClientError::Device { error, .. }) => error,
            other => panic!("with bit {bit} of byte {byte} changed: {other:?}"),
        }
    }

    /// Every bit of the time, and one bit of every `stride`th byte of the signature and the request, a
    /// different one each time, is refused; the hardware's request is signed before and after.
    fn check(&mut self, vector: &vector::Signing, stride: usize) {
        assert_eq!(self.sign().unwrap(), vector.response.0, "the hardware's answer");
        for bit in 0..32 {
            let error = self.refusal(|replay| &mut replay.now, bit / 8, bit % 8);
            assert_eq!(error, DeviceError::SshCaConstraintViolation);
        }
        for byte in (0..self.timestamp_signature.len()).step_by(stride) {
            let error = self.refusal(|replay| &mut replay.timestamp_signature, byte, byte / stride % 8);
            assert_eq!(error, DeviceError::SshCaConstraintViolation);
        }
        for byte in (0..self.request.len()).step_by(stride) {
            let error = self.refusal(|replay| &mut replay.request, byte, byte / stride % 8);
            // What no longer reads as a request is not judged by the template.
            let expected = [DeviceError::SshCaConstraintViolation, DeviceError::InvalidData];
            assert!(expected.contains(&error), "byte {byte}: {error:?}");
        }
        assert_eq!(self.sign().unwrap(), vector.response.0, "the hardware's answer, afterwards");
    }
}

#[test]
fn in_process_the_answer_is_the_hardwares_and_no_changed_bit_gets_one() {
    let vector = needs!(vector::signing());
    let mut client = in_memory();
    Replay::prepare(open(&mut client), &vector).check(&vector, 1);
}

#[test]
fn over_http_the_answer_is_the_hardwares_and_no_changed_bit_gets_one() {
    let vector = needs!(vector::signing());
    let simulator = simulator::Simulator::start();
    let mut client = over_http(&simulator);
    Replay::prepare(open(&mut client), &vector).check(&vector, 7);
}

#[test]
fn the_hardwares_certificate_is_the_request_and_its_answer() {
    let vector = needs!(vector::signing());
    assert_eq!(vector.certificate.0, [vector.sign.request.0, vector.response.0].concat());
}

#[test]
fn the_vendors_template_says_what_is_documented_and_encodes_to_the_same_bytes() {
    let bytes = needs!(vector::template()).bytes.0;
    let template = Template::decode(&bytes).unwrap();
    assert_eq!(template.timestamp_key.algorithm(), AsymmetricAlgorithm::Rsa2048);
    assert_eq!(template.timestamp_key.public().len(), 256);
    assert_eq!(template.ca_keys.iter().collect::<Vec<_>>(), [0x000a]);
    assert_eq!(template.not_before.seconds(), Some(300));
    assert_eq!(template.not_after.seconds(), Some(36_000));
    assert_eq!(template.forbidden_principals.iter().collect::<Vec<_>>(), [b"root"]);
    let mut encoded = vec![0; bytes.len()];
    let mut writer = Writer::new(&mut encoded);
    template.encode(&mut writer).unwrap();
    assert_eq!(writer.written(), bytes);
}
