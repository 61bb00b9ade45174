//! Attestation certificates: their contents, byte for byte, and who may attest what.
#![cfg(all(feature = "attestation", feature = "wrap"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../src/crypto/brainpool_p512.rs"]
#[allow(dead_code)]
mod brainpool_p512;
mod model;
#[path = "model/rsa_key.rs"]
mod rsa_key;

use brainpool_p512::BrainpoolP512r1;
use ecdsa::signature::hazmat::PrehashVerifier;
use hex_literal::hex;
use model::{
    Flash, ModelDevice, Object, Session, fresh, plain, put_authentication_key, root_key, start, try_start,
};
use rsa::{BoxedUint, Pkcs1v15Sign, PublicKey};
use sha2::{Digest, Sha256};
use sshsm_firmware::crypto::key;
use sshsm_firmware::store::{Attributes, Store};
use sshsm_protocol::object::Origin;
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, Curve, DeviceError, Domains, Label,
    ObjectId, ObjectType,
};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

/// A version 1 certificate of an Ed25519 key, made with OpenSSL: `C=SE, O=Exämple, OU=Keys, CN=Issuer`, valid from
/// 2024-02-29 12:00:00 (UTCTime) to 2099-12-31 23:59:59 (GeneralizedTime).
const TEMPLATE: [u8; 320] = hex!(
    "3082013c3081ef02141fd13ee7f84cf317e3526f64a6d403b6db8fd396300506032b65703040310b"
    "30090603550406130253453111300f060355040a0c084578c3a46d706c65310d300b060355040b0c"
    "044b657973310f300d06035504030c064973737565723020170d3234303232393132303030305a18"
    "0f32303939313233313233353935395a3040310b30090603550406130253453111300f060355040a"
    "0c084578c3a46d706c65310d300b060355040b0c044b657973310f300d06035504030c0649737375"
    "6572302a300506032b6570032100cfad2cd6855f77c7045f8d5fc6dec4535126dea6ca345dda9dd2"
    "f56dab0369a6300506032b6570034100ff8e32c4dd68946cb11dab48bf6f9f8ef5229fab14e5c0d9"
    "41e5140235aa828855ac884be6d0189f61c2571b6b2240be1ee0bb2d7275ad6a2da131cf0723c107"
);
/// The bytes of its subject and of its validity.
const ISSUER: &[u8] = TEMPLATE.split_at(136).1.split_at(66).0;
const VALIDITY: &[u8] = TEMPLATE.split_at(102).1.split_at(34).0;

const ATTEST: &[Capability] = &[Capability::SignAttestationCertificate];
const MISSING: Result<Vec<u8>, DeviceError> = Err(DeviceError::ObjectNotFound);
const INVALID: Result<Vec<u8>, DeviceError> = Err(DeviceError::InvalidData);
const REFUSED: Result<Vec<u8>, DeviceError> = Err(DeviceError::InsufficientPermissions);

fn generate(device: &mut ModelDevice, session: &mut Session, object: Object) {
    session.send(device, Command::GenerateAsymmetricKey, &object.with(&[])).unwrap();
}

fn put_template(device: &mut ModelDevice, session: &mut Session, id: u16) {
    let object = Object::new(id, Algorithm::OpaqueX509Certificate, &[]).with(&TEMPLATE);
    session.send(device, Command::PutOpaque, &object).unwrap();
}

fn attest(
    device: &mut ModelDevice,
    session: &mut Session,
    attested: u16,
    attesting: u16,
) -> Result<Vec<u8>, DeviceError> {
    let ids = [attested.to_be_bytes(), attesting.to_be_bytes()].concat();
    session.send(device, Command::SignAttestationCertificate, &ids)
}

fn certificate(
    device: &mut ModelDevice,
    session: &mut Session,
    attested: u16,
    attesting: u16,
) -> Certificate {
    let der = attest(device, session, attested, attesting).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.to_der().unwrap(), der, "canonical");
    certificate
}

fn public_key(device: &mut ModelDevice, session: &mut Session, id: u16) -> Vec<u8> {
    session.send(device, Command::GetPublicKey, &id.to_be_bytes()).unwrap()[1..].to_vec()
}

fn device_certificate(device: &mut ModelDevice, session: &mut Session) -> Certificate {
    Certificate::from_der(&session.send(device, Command::GetOpaque, &[0, 0]).unwrap()).unwrap()
}

/// Whether `public`, as GET PUBLIC KEY returns it, verifies the certificate, over SHA-256 whatever the key.
fn verifies(certificate: &Certificate, algorithm: AsymmetricAlgorithm, public: &[u8]) -> bool {
    let tbs = certificate.tbs_certificate();
    assert_eq!(tbs.signature(), certificate.signature_algorithm());
    let digest = Sha256::digest(tbs.to_der().unwrap());
    let signature = certificate.signature().as_bytes().unwrap();
    let point = [&[4], public].concat();
    macro_rules! ecdsa {
        ($curve:ty) => {{
            let key = ecdsa::VerifyingKey::<$curve>::from_sec1_bytes(&point).unwrap();
            let signature = ecdsa::Signature::<$curve>::from_der(signature).unwrap();
            key.verify_prehash(&digest, &signature).is_ok()
        }};
    }
    let oid = if matches!(algorithm, AsymmetricAlgorithm::Ec(_)) {
        "1.2.840.10045.4.3.2"
    } else {
        "1.2.840.113549.1.1.11"
    };
    assert_eq!(tbs.signature().oid, ObjectIdentifier::new_unwrap(oid));
    match algorithm {
        AsymmetricAlgorithm::Ec(Curve::P224) => ecdsa!(p224::NistP224),
        AsymmetricAlgorithm::Ec(Curve::P256) => ecdsa!(p256::NistP256),
        AsymmetricAlgorithm::Ec(Curve::P384) => ecdsa!(p384::NistP384),
        AsymmetricAlgorithm::Ec(Curve::P521) => ecdsa!(p521::NistP521),
        AsymmetricAlgorithm::Ec(Curve::K256) => ecdsa!(k256::Secp256k1),
        AsymmetricAlgorithm::Ec(Curve::Bp256) => ecdsa!(bp256::BrainpoolP256r1),
        AsymmetricAlgorithm::Ec(Curve::Bp384) => ecdsa!(bp384::BrainpoolP384r1),
        AsymmetricAlgorithm::Ec(Curve::Bp512) => ecdsa!(BrainpoolP512r1),
        AsymmetricAlgorithm::Ed25519 => unreachable!(),
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
            assert!(tbs.signature().parameters.as_ref().unwrap().is_null());
            let modulus = BoxedUint::from_be_slice_vartime(public);
            let key = PublicKey::new(modulus, 65_537_u32.into()).unwrap();
            key.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, signature).is_ok()
        }
    }
}

/// `SubjectPublicKeyInfo` up to the raw key.
fn key_prefix(algorithm: AsymmetricAlgorithm) -> &'static [u8] {
    match algorithm {
        AsymmetricAlgorithm::Rsa2048 => {
            &hex!("30820122300d06092a864886f70d01010105000382010f003082010a0282010100")
        }
        AsymmetricAlgorithm::Rsa3072 => {
            &hex!("308201a2300d06092a864886f70d01010105000382018f003082018a0282018100")
        }
        AsymmetricAlgorithm::Rsa4096 => {
            &hex!("30820222300d06092a864886f70d01010105000382020f003082020a0282020100")
        }
        AsymmetricAlgorithm::Ec(Curve::P224) => &hex!("304e301006072a8648ce3d020106052b81040021033a0004"),
        AsymmetricAlgorithm::Ec(Curve::P256) => {
            &hex!("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
        }
        AsymmetricAlgorithm::Ec(Curve::P384) => &hex!("3076301006072a8648ce3d020106052b8104002203620004"),
        AsymmetricAlgorithm::Ec(Curve::P521) => &hex!("30819b301006072a8648ce3d020106052b810400230381860004"),
        AsymmetricAlgorithm::Ec(Curve::K256) => &hex!("3056301006072a8648ce3d020106052b8104000a03420004"),
        AsymmetricAlgorithm::Ec(Curve::Bp256) => {
            &hex!("305a301406072a8648ce3d020106092b240303020801010703420004")
        }
        AsymmetricAlgorithm::Ec(Curve::Bp384) => {
            &hex!("307a301406072a8648ce3d020106092b240303020801010b03620004")
        }
        AsymmetricAlgorithm::Ec(Curve::Bp512) => {
            &hex!("30819b301406072a8648ce3d020106092b240303020801010d0381820004")
        }
        AsymmetricAlgorithm::Ed25519 => &hex!("302a300506032b6570032100"),
    }
}

/// Number and value of each extension under the arc, which none of them may be critical.
fn facts(certificate: &Certificate) -> Vec<(u32, Vec<u8>)> {
    let extensions = certificate.tbs_certificate().extensions().unwrap();
    extensions
        .iter()
        .filter_map(|extension| {
            let number = extension.extn_id.to_string().strip_prefix("1.3.6.1.4.1.41482.4.")?.parse();
            assert!(!extension.critical);
            Some((number.unwrap(), extension.extn_value.as_bytes().to_vec()))
        })
        .collect()
}

/// Our own extensions: number and value.
fn own_facts(certificate: &Certificate) -> Vec<(u32, Vec<u8>)> {
    let extensions = certificate.tbs_certificate().extensions().unwrap();
    extensions
        .iter()
        .filter_map(|extension| {
            let number = extension.extn_id.to_string().strip_prefix("2.25.1936943219.")?.parse();
            assert!(!extension.critical, "verifiers that do not know it ignore it");
            Some((number.unwrap(), extension.extn_value.as_bytes().to_vec()))
        })
        .collect()
}

/// RSA-3072 and RSA-4096, which take long, have a separate test.
fn kinds() -> impl Iterator<Item = (u16, AsymmetricAlgorithm)> {
    let kinds = [AsymmetricAlgorithm::Rsa2048, AsymmetricAlgorithm::Ed25519];
    (1..).zip(kinds.into_iter().chain(Curve::ALL.map(AsymmetricAlgorithm::Ec)))
}

#[test]
fn every_kind_of_key_attests_and_is_attested_but_ed25519_which_cannot_attest() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    for (id, kind) in kinds() {
        generate(&mut device, &mut admin, Object::new(id, kind.algorithm(), ATTEST));
        put_template(&mut device, &mut admin, id);
    }
    for (attesting, attesting_kind) in kinds() {
        let attesting_public = public_key(&mut device, &mut admin, attesting);
        for (attested, attested_kind) in kinds() {
            if attesting_kind == AsymmetricAlgorithm::Ed25519 {
                assert_eq!(attest(&mut device, &mut admin, attested, attesting), INVALID);
                continue;
            }
            let certificate = certificate(&mut device, &mut admin, attested, attesting);
            assert!(
                verifies(&certificate, attesting_kind, &attesting_public),
                "{attesting_kind} {attested_kind}"
            );
            let public = public_key(&mut device, &mut admin, attested);
            let end: &[u8] =
                if attested_kind == AsymmetricAlgorithm::Rsa2048 { &hex!("0203010001") } else { &[] };
            let expected = [key_prefix(attested_kind), &public, end].concat();
            assert_eq!(
                certificate.tbs_certificate().subject_public_key_info().to_der().unwrap(),
                expected,
                "{attested_kind}"
            );
        }
    }
}

/// Only generated keys are attested: these are put into the store as such, since generating them takes long.
#[test]
fn larger_rsa_keys_attest_and_are_attested() {
    let flash = fresh().flash().unwrap().clone();
    let mut store = Store::mount(flash.clone(), &root_key(), |_| Ok(())).unwrap();
    for (id, (algorithm, factors)) in (1..).zip(rsa_key::LARGE) {
        let kind = AsymmetricAlgorithm::from_algorithm(algorithm).unwrap();
        let body = key::expand(kind, factors).unwrap();
        let attributes = Attributes {
            capabilities: Capabilities::of(ATTEST),
            length: u16::try_from(body.len()).unwrap(),
            domains: Domains::ALL,
            algorithm,
            origin: Origin::GENERATED,
            label: Label::default(),
            delegated_capabilities: Capabilities::NONE,
        };
        store.insert((ObjectType::AsymmetricKey, ObjectId::new(id).unwrap()), &attributes, &body).unwrap();
    }
    let mut device = try_start(flash).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    for (id, (algorithm, _)) in (1..).zip(rsa_key::LARGE) {
        let kind = AsymmetricAlgorithm::from_algorithm(algorithm).unwrap();
        put_template(&mut device, &mut admin, id);

        let certificate = certificate(&mut device, &mut admin, id, id);
        let public = public_key(&mut device, &mut admin, id);
        assert!(verifies(&certificate, kind, &public), "{algorithm}");
        let expected = [key_prefix(kind), &public, &hex!("0203010001")].concat();
        assert_eq!(certificate.tbs_certificate().subject_public_key_info().to_der().unwrap(), expected);
        let origin = facts(&certificate).into_iter().find(|(number, _)| *number == 3).unwrap();
        assert_eq!(origin.1, hex!("03020001"), "generated");
    }
}

#[test]
fn the_extensions_are_the_hardwares_to_the_byte() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let domains = Domains::single(9).unwrap().union(Domains::single(1).unwrap());
    let capabilities = [Capability::SignEcdsa, Capability::ExportableUnderWrap];
    let key = Object { domains, ..Object::new(0x8005, Algorithm::Ecp256, &capabilities) };
    generate(&mut device, &mut admin, key);
    let info = plain(&mut device, Command::GetDeviceInfo.code(), &[]).unwrap();
    let version = [&[4, 3], &info[..3]].concat();
    let certificate = certificate(&mut device, &mut admin, 0x8005, 0);
    assert_eq!(
        facts(&certificate),
        [
            (1, version),
            (2, hex!("020400bc614e").to_vec()),
            (3, hex!("03020001").to_vec()),
            (4, hex!("0303000101").to_vec()),
            (5, hex!("0309000000000000010080").to_vec()),
            (6, hex!("0203008005").to_vec()),
            (9, hex!("0c0474657374").to_vec()),
        ]
    );
    let own = own_facts(&certificate);
    assert_eq!(
        own,
        [
            (1, [&hex!("0403")[..], &sshsm_firmware::VERSION].concat()),
            (2, [&hex!("0420")[..], &model::IMAGE.sha256].concat()),
        ]
    );
    assert_eq!(certificate.tbs_certificate().extensions().unwrap().len(), 9, "and there are no others");
}

#[test]
fn an_attestation_says_which_image_signed_unless_that_is_not_known_or_the_device_is_strict() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    generate(&mut device, &mut admin, Object::new(5, Algorithm::Ecp256, &[]));
    let mut numbers = |device: &mut ModelDevice| {
        let certificate = certificate(device, &mut admin, 5, 0);
        let own: Vec<u32> = own_facts(&certificate).into_iter().map(|(number, _)| number).collect();
        (own, certificate.tbs_certificate().extensions().unwrap().len())
    };
    assert_eq!(numbers(&mut device), (vec![1, 2], 9));
    device.platform().image = None;
    assert_eq!(numbers(&mut device), (vec![1], 8));
    device.platform().image = Some(model::IMAGE);
    device.platform().dialect = Dialect::Yubihsm2;
    assert_eq!(numbers(&mut device), (vec![], 7), "a YubiHSM 2's, to the byte");
}

#[test]
fn issuer_and_validity_are_the_templates_and_the_rest_is_the_devices() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    generate(&mut device, &mut admin, Object::new(0x12, Algorithm::Ecp256, ATTEST));
    put_template(&mut device, &mut admin, 0x12);
    let mut serials = Vec::new();
    for _ in 0..20 {
        let certificate = certificate(&mut device, &mut admin, 0x12, 0x12);
        let tbs = certificate.tbs_certificate();
        assert_eq!(tbs.version(), Version::V3);
        assert_eq!(tbs.issuer().to_der().unwrap(), ISSUER);
        assert_eq!(tbs.validity().to_der().unwrap(), VALIDITY);
        assert_eq!(tbs.subject().to_string(), "CN=YubiHSM Attestation id:0x0012");
        let serial = tbs.serial_number().as_bytes().to_vec();
        assert_eq!(serial.len(), 16);
        assert!(serial[0] < 0x80, "positive");
        assert!(!serials.contains(&serial));
        serials.push(serial);
    }
}

#[test]
fn the_device_has_a_certificate_of_its_own_that_is_not_listed() {
    let flash = Flash::blank();
    let mut device = try_start(flash.clone()).ok().unwrap();
    let mut admin = Session::admin(&mut device);
    let bytes = admin.send(&mut device, Command::GetOpaque, &[0, 0]).unwrap();
    let certificate = device_certificate(&mut device, &mut admin);
    let tbs = certificate.tbs_certificate();
    let public = tbs.subject_public_key_info().subject_public_key.as_bytes().unwrap();
    assert!(verifies(&certificate, AsymmetricAlgorithm::Ec(Curve::P256), &public[1..]));
    assert_eq!(tbs.issuer(), tbs.subject());
    assert_eq!(tbs.subject().to_string(), "CN=sshsm Attestation (0012345678)");
    let numbers: Vec<_> = facts(&certificate).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 2], "a device's, not a key's");
    let constraints = tbs.get_extension::<x509_cert::ext::pkix::BasicConstraints>().unwrap().unwrap();
    assert!(constraints.0 && constraints.1.ca);
    assert_ne!(
        public[1..],
        plain(&mut device, Command::GetDevicePublicKey.code(), &[]).unwrap()[1..],
        "another key than sessions are made with"
    );

    assert_eq!(admin.send(&mut device, Command::ListObjects, &[]), Ok(vec![0, 1, 2, 0]));
    assert_eq!(admin.send(&mut device, Command::GetObjectInfo, &[0, 0, 1]), MISSING);
    let mut device = start(flash.copy());
    let mut admin = Session::admin(&mut device);
    assert_eq!(admin.send(&mut device, Command::GetOpaque, &[0, 0]).as_ref(), Ok(&bytes), "after a restart");
    admin.send(&mut device, Command::ResetDevice, &[]).unwrap();
    let mut admin = Session::admin(&mut device);
    let renewed = device_certificate(&mut device, &mut admin);
    assert_ne!(
        renewed.tbs_certificate().subject_public_key_info(),
        tbs.subject_public_key_info(),
        "after a reset"
    );
}

#[test]
fn the_devices_certificate_needs_the_capability_and_no_domain() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let domain = Domains::single(7).unwrap();
    let mut open = |id, capabilities: &[Capability]| {
        let capabilities = Capabilities::of(capabilities);
        put_authentication_key(&mut device, &mut admin, id, b"x", domain, capabilities, Capabilities::NONE)
    };
    let (mut may, mut may_not) = (open(2, &[Capability::GetOpaque]), open(3, ATTEST));
    may.send(&mut device, Command::GetOpaque, &[0, 0]).unwrap();
    assert_eq!(may_not.send(&mut device, Command::GetOpaque, &[0, 0]), REFUSED);
}

#[test]
fn the_device_attests_itself() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let issuer = device_certificate(&mut device, &mut admin);
    let public = issuer.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes().unwrap();
    let device_key = plain(&mut device, Command::GetDevicePublicKey.code(), &[]).unwrap();
    let certificate = certificate(&mut device, &mut admin, 0, 0);
    assert!(verifies(&certificate, AsymmetricAlgorithm::Ec(Curve::P256), &public[1..]));
    let tbs = certificate.tbs_certificate();
    assert_eq!(tbs.issuer(), issuer.tbs_certificate().subject());
    assert_eq!(tbs.validity(), issuer.tbs_certificate().validity());
    assert_eq!(tbs.subject().to_string(), "CN=YubiHSM Attestation id:0x0000");
    let key = tbs.subject_public_key_info().subject_public_key.as_bytes().unwrap();
    assert_eq!(key, [&[4], &device_key[1..]].concat());
    assert_eq!(facts(&certificate)[2..4], [(3, hex!("03020001").to_vec()), (4, hex!("0303000000").to_vec())]);
    assert_eq!(facts(&certificate)[5..], [(6, hex!("020100").to_vec()), (9, hex!("0c00").to_vec())]);
}

#[test]
fn a_key_that_was_put_attests_but_is_not_attested() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let key = Object::new(5, Algorithm::Ecp256, ATTEST).with(&[0x11; 32]);
    admin.send(&mut device, Command::PutAsymmetricKey, &key).unwrap();
    put_template(&mut device, &mut admin, 5);
    generate(&mut device, &mut admin, Object::new(6, Algorithm::Ecp384, &[]));
    let public = public_key(&mut device, &mut admin, 5);
    let certificate = certificate(&mut device, &mut admin, 6, 5);
    assert!(verifies(&certificate, AsymmetricAlgorithm::Ec(Curve::P256), &public));
    assert_eq!(attest(&mut device, &mut admin, 5, 0), INVALID);
    assert_eq!(attest(&mut device, &mut admin, 5, 5), INVALID);
}

/// Anyone who knows the wrap key can write an export that calls their own key "generated".
#[test]
#[cfg(feature = "wrap")]
fn a_key_that_came_in_an_export_is_not_attested_whatever_the_export_says_of_its_origin() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let both = [Capability::ExportWrapped, Capability::ImportWrapped];
    let wrap = Object::new(7, Algorithm::Aes128CcmWrap, &both).delegating(Capabilities::ALL, &[3; 16]);
    admin.send(&mut device, Command::PutWrapKey, &wrap).unwrap();
    let capabilities = [Capability::ExportableUnderWrap, Capability::SignAttestationCertificate];
    generate(&mut device, &mut admin, Object::new(5, Algorithm::Ecp256, &capabilities));
    attest(&mut device, &mut admin, 5, 0).unwrap();
    let blob = admin.send(&mut device, Command::ExportWrapped, &[0, 7, 3, 0, 5]).unwrap();
    attest(&mut device, &mut admin, 5, 0).expect("it is still the one that was generated here");
    admin.send(&mut device, Command::DeleteObject, &[0, 5, 3]).unwrap();
    admin.send(&mut device, Command::ImportWrapped, &[&[0, 7], blob.as_slice()].concat()).unwrap();
    let info = admin.send(&mut device, Command::GetObjectInfo, &[0, 5, 3]).unwrap();
    assert_eq!(info[17], 0x11, "the export says that it was generated");
    assert_eq!(attest(&mut device, &mut admin, 5, 0), INVALID);
    put_template(&mut device, &mut admin, 5);
    assert_eq!(attest(&mut device, &mut admin, 5, 5), INVALID, "nor by itself");
    generate(&mut device, &mut admin, Object::new(6, Algorithm::Ecp256, &[]));
    attest(&mut device, &mut admin, 6, 5).expect("it attests others");
}

#[test]
fn attesting_needs_the_capability_on_session_and_key_and_sight_of_all_three_objects() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    let [one, two] = [1, 2].map(|domain| Domains::single(domain).unwrap());
    let mut limited = |id, capabilities: &[Capability]| {
        let capabilities = Capabilities::of(capabilities);
        put_authentication_key(&mut device, &mut admin, id, b"x", one, capabilities, Capabilities::NONE)
    };
    let (mut session, mut unable) = (limited(2, ATTEST), limited(3, &[Capability::SignEcdsa]));
    let template = |id, domains| {
        Object { domains, ..Object::new(id, Algorithm::OpaqueX509Certificate, &[]) }.with(&TEMPLATE)
    };
    // Attested: 0x10 here, 0x11 elsewhere. Attesting: 0x20 here, 0x21 elsewhere, 0x22 without the capability,
    // 0x23 with its certificate elsewhere, 0x24 without one.
    for (id, domains, capabilities) in [
        (0x10, one, &[] as &[Capability]),
        (0x11, two, &[]),
        (0x20, one, ATTEST),
        (0x21, two, ATTEST),
        (0x22, one, &[Capability::SignEcdsa]),
        (0x23, one, ATTEST),
        (0x24, one, ATTEST),
    ] {
        let key = Object { domains, ..Object::new(id, Algorithm::Ecp256, capabilities) };
        generate(&mut device, &mut admin, key);
    }
    for (id, domains) in [(0x20, one), (0x21, one), (0x22, one), (0x23, two)] {
        admin.send(&mut device, Command::PutOpaque, &template(id, domains)).unwrap();
    }

    attest(&mut device, &mut session, 0x10, 0x20).unwrap();
    attest(&mut device, &mut session, 0x10, 0).unwrap();
    assert_eq!(attest(&mut device, &mut unable, 0x10, 0x20), REFUSED, "session");
    assert_eq!(attest(&mut device, &mut unable, 0x10, 0), REFUSED, "session, attesting as the device");
    assert_eq!(attest(&mut device, &mut session, 0x10, 0x22), REFUSED, "attesting key");
    for attested in [0x11, 0x12, 0xffff] {
        assert_eq!(attest(&mut device, &mut session, attested, 0x20), MISSING, "attested {attested:#x}");
    }
    for attesting in [0x21, 0x23, 0x24, 0x25, 0xffff] {
        assert_eq!(attest(&mut device, &mut session, 0x10, attesting), MISSING, "attesting {attesting:#x}");
    }
    // A missing object is reported before a missing right.
    assert_eq!(attest(&mut device, &mut session, 0x11, 0x22), MISSING);
}

#[test]
fn a_template_is_one_whole_certificate() {
    let mut device = fresh();
    let mut admin = Session::admin(&mut device);
    generate(&mut device, &mut admin, Object::new(5, Algorithm::Ecp256, ATTEST));
    let mut with = |algorithm, data: &[u8]| {
        admin.send(&mut device, Command::PutOpaque, &Object::new(5, algorithm, &[]).with(data)).unwrap();
        let answer = attest(&mut device, &mut admin, 5, 5);
        admin.send(&mut device, Command::DeleteObject, &[0, 5, 1]).unwrap();
        answer
    };
    let certificate = Algorithm::OpaqueX509Certificate;
    with(certificate, &TEMPLATE).unwrap();
    assert_eq!(with(Algorithm::OpaqueData, &TEMPLATE), INVALID);
    for length in 1..TEMPLATE.len() {
        assert_eq!(with(certificate, &TEMPLATE[..length]), INVALID, "{length} bytes");
    }
    assert_eq!(with(certificate, &[TEMPLATE.as_slice(), &[0]].concat()), INVALID);
    assert_eq!(with(certificate, &hex!("1f8b0800")), INVALID, "compressed, as some clients store them");
    // A validity, and a subject, that is a SET.
    for at in [102, 136] {
        let mut damaged = TEMPLATE;
        damaged[at] = 0x31;
        assert_eq!(with(certificate, &damaged), INVALID, "byte {at}");
    }
    // Whatever a byte of it becomes, the device answers.
    for at in 0..TEMPLATE.len() {
        let mut damaged = TEMPLATE;
        damaged[at] ^= 0x55;
        let _ = with(certificate, &damaged);
    }
}
