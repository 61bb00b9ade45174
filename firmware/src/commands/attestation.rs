//! Attestation: X.509 certificates that describe a key, signed by a key of this device.
//!
//! The certificates and the unusual encodings of their extensions are YubiHSM 2's (docs/protocol.md,
//! "Attestation"). Only a key that was generated on this device, and was never imported again, is attested:
//! anyone who put a key, or saw it, may hold a copy, an export can claim anything about its origin, and a
//! verifier that ignores extensions should not have to know. Information beyond YubiHSM 2's is under our own
//! arc: which firmware and which image signed; a strict device leaves it out. Id 0 is the device itself: as
//! the attested key, its static key, and as the attesting key, one whose self-signed certificate is read as
//! opaque object 0.

use alloc::format;
use alloc::vec::Vec;

use der::Encode;
use der::asn1::{AnyRef, BitStringRef, OctetString, OctetStringRef};
use der::oid::ObjectIdentifier;
use rand_core::Rng as _;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::SignAttestationCertificate;
use sshsm_protocol::object::{ObjectInfo, Origin};
use sshsm_protocol::ssh::template::Dialect;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId,
    ObjectType,
};

use super::Core;
use super::device::VERSION;
use crate::authorization::{usable, visible};
use crate::certificate::{CertificateError, Extension, Issuer, Unsigned, always, common_name};
use crate::crypto::Key;
use crate::crypto::key::{self, Body};
use crate::identity;
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;
use crate::store::Record;

/// The id that denotes the device.
const DEVICE: u16 = 0;

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");

/// The content of an extension: its number under `1.3.6.1.4.1.41482.4`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Fact {
    FirmwareVersion = 1,
    Serial = 2,
    Origin = 3,
    Domains = 4,
    Capabilities = 5,
    ObjectId = 6,
    Label = 9,
}

/// The value is a bare DER primitive.
fn extension(fact: Fact, value: &impl Encode) -> Result<Extension, CertificateError> {
    let id =
        ObjectIdentifier::from_arcs([1, 3, 6, 1, 4, 1, 41_482, 4, fact as u32]).map_err(der::Error::from)?;
    Ok(Extension { id, critical: false, value: OctetString::new(value.to_der()?)? })
}

/// The content of one of our own extensions: its number under `2.25.1936943219`, where 2.25 is the arc of
/// UUIDs, which need no registration, and the number is one that no UUID generator produces ("sshs" in
/// ASCII).
#[derive(Clone, Copy)]
#[repr(u32)]
enum OwnFact {
    /// OCTET STRING: major, minor, patch.
    FirmwareVersion = 1,
    /// OCTET STRING: SHA-256 of the running image, as reported by itself.
    Image = 2,
}

fn own_extension(fact: OwnFact, bytes: &[u8]) -> Result<Extension, CertificateError> {
    let id = ObjectIdentifier::from_arcs([2, 25, 1_936_943_219, fact as u32]).map_err(der::Error::from)?;
    let value = OctetString::new(OctetStringRef::new(bytes)?.to_der()?)?;
    Ok(Extension { id, critical: false, value })
}

/// Which firmware signs.
fn own_facts<P: Platform>(core: &mut Core<P>) -> Result<Vec<Extension>, CertificateError> {
    if core.platform.dialect() == Dialect::Yubihsm2 {
        return Ok(Vec::new());
    }
    let mut facts = alloc::vec![own_extension(OwnFact::FirmwareVersion, &crate::VERSION)?];
    if let Some(image) = core.platform.describe().image {
        facts.push(own_extension(OwnFact::Image, &image.sha256)?);
    }
    Ok(facts)
}

/// What certificates of the device and of its keys have in common.
fn device_facts(serial: u32) -> Result<Vec<Extension>, CertificateError> {
    let version = [VERSION.major, VERSION.minor, VERSION.patch];
    Ok(alloc::vec![
        extension(Fact::FirmwareVersion, &OctetStringRef::new(&version)?)?,
        extension(Fact::Serial, &serial)?,
    ])
}

/// A key that is attested.
struct Subject {
    algorithm: AsymmetricAlgorithm,
    body: Body,
    id: u16,
    origin: Origin,
    domains: Domains,
    capabilities: Capabilities,
    label: Label,
}

impl Subject {
    fn facts(&self) -> Result<[Extension; 5], CertificateError> {
        Ok([
            extension(Fact::Origin, &BitStringRef::from_bytes(&[self.origin.code()])?)?,
            extension(Fact::Domains, &BitStringRef::from_bytes(&self.domains.bits().to_be_bytes())?)?,
            extension(
                Fact::Capabilities,
                &BitStringRef::from_bytes(&self.capabilities.bits().to_be_bytes())?,
            )?,
            extension(Fact::ObjectId, &self.id)?,
            // Any bytes, as labels are.
            extension(Fact::Label, &AnyRef::new(der::Tag::Utf8String, self.label.trimmed())?)?,
        ])
    }
}

fn serial_number<P: Platform>(core: &mut Core<P>) -> [u8; 16] {
    let mut serial = [0; 16];
    core.platform.entropy().fill_bytes(&mut serial);
    if let Some(first) = serial.first_mut() {
        // Positive, and without leading zeros.
        *first = *first & 0x7f | 0x40;
    }
    serial
}

fn own_key<P: Platform>(core: &mut Core<P>, record: Record) -> Result<Body, DeviceError> {
    Ok(identity::private_key(&mut core.store, core.platform.entropy(), record)?)
}

/// The certificate of the device's attestation key, self-signed, in DER.
pub(crate) fn device_certificate<P: Platform>(core: &mut Core<P>) -> Result<Body, DeviceError> {
    if let Some(certificate) = core.store.record(Record::AttestationCertificate)? {
        return Ok(certificate);
    }
    let body = own_key(core, Record::AttestationKey)?;
    let serial = core.platform.serial();
    let name = common_name(&format!("sshsm Attestation ({serial:010})"))?;
    let mut extensions = device_facts(serial)?;
    // SEQUENCE { cA TRUE }: verifiers accept certificates under it.
    let value = OctetString::new([0x30, 3, 1, 1, 0xff]).map_err(CertificateError::from)?;
    extensions.push(Extension { id: BASIC_CONSTRAINTS, critical: true, value });
    let unsigned = Unsigned {
        serial: serial_number(core),
        issuer: &name,
        validity: &always()?,
        subject: &name,
        key: (identity::ALGORITHM, key::public(identity::ALGORITHM, &body)?),
        extensions,
    };
    let key = Key::<P::Crypto>::load(identity::ALGORITHM, &body)?;
    let certificate = unsigned.sign(&key, core.platform.entropy())?;
    core.store.put_record(Record::AttestationCertificate, &certificate)?;
    Ok(Body::new(certificate))
}

/// What may attest: a key of the session's, or the device.
fn attester<P: Platform>(
    core: &Core<P>,
    caller: &Caller,
    id: u16,
) -> Result<Option<ObjectInfo>, DeviceError> {
    if id == DEVICE {
        return Ok(None);
    }
    let id = ObjectId::new(id).map_err(|_| DeviceError::ObjectNotFound)?;
    let name = (ObjectType::AsymmetricKey, id);
    usable(&core.store, caller, name, Capability::SignAttestationCertificate).map(Some)
}

/// SIGN ATTESTATION CERTIFICATE: `id u16 ‖ attesting id u16`; the certificate in DER.
///
/// It takes issuer and validity from the attesting key's certificate: any X.509 certificate in an opaque object with
/// that key's id.
pub(crate) fn sign<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    SignAttestationCertificate { key, attesting_key }: SignAttestationCertificate,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let attested = match ObjectId::new(key) {
        Ok(id) => Some(visible(&core.store, caller, (ObjectType::AsymmetricKey, id))?),
        Err(_) if key == DEVICE => None,
        Err(_) => return Err(DeviceError::ObjectNotFound),
    };
    let attester = attester(core, caller, attesting_key)?;

    let subject = match attested {
        Some(info) => Subject {
            algorithm: AsymmetricAlgorithm::from_algorithm(info.algorithm)
                .ok_or(DeviceError::StorageFailed)?,
            body: core.body((info.object_type, info.id))?,
            id: key,
            origin: info.origin,
            domains: info.domains,
            capabilities: info.capabilities,
            label: info.label,
        },
        None => Subject {
            algorithm: identity::ALGORITHM,
            body: own_key(core, Record::DeviceKey)?,
            id: key,
            origin: Origin::GENERATED,
            domains: Domains::NONE,
            capabilities: Capabilities::NONE,
            label: Label::default(),
        },
    };
    // A key from an export may have been known outside, whatever the export says about its origin.
    if subject.origin != Origin::GENERATED {
        return Err(DeviceError::InvalidData);
    }
    let certificate = match &attester {
        Some(info) => {
            if info.algorithm == Algorithm::Ed25519 {
                return Err(DeviceError::InvalidData);
            }
            let certificate = visible(&core.store, caller, (ObjectType::Opaque, info.id))?;
            if certificate.algorithm != Algorithm::OpaqueX509Certificate {
                return Err(DeviceError::InvalidData);
            }
            core.body((ObjectType::Opaque, info.id))?
        }
        None => device_certificate(core)?,
    };

    let issuer = Issuer::of(&certificate)?;
    let mut extensions = device_facts(core.platform.serial())?;
    extensions.extend(subject.facts()?);
    extensions.extend(own_facts(core)?);
    let unsigned = Unsigned {
        serial: serial_number(core),
        issuer: &issuer.name,
        validity: &issuer.validity,
        subject: &common_name(&format!("YubiHSM Attestation id:{key:#06x}"))?,
        key: (subject.algorithm, key::public(subject.algorithm, &subject.body)?),
        extensions,
    };
    presence::confirm(&mut core.platform, core.options.presence(), Command::SignAttestationCertificate)?;
    let certificate = match attester {
        Some(info) => {
            let (key, platform) = core.load(&info)?;
            unsigned.sign(key, platform.entropy())?
        }
        None => {
            let key = Key::<P::Crypto>::load(identity::ALGORITHM, &own_key(core, Record::AttestationKey)?)?;
            unsigned.sign(&key, core.platform.entropy())?
        }
    };
    Ok(writer.bytes(&certificate)?)
}
