//! Public keys as tokens provide them, which varies: the numbers of a public key object, or of the private
//! key itself; a `SubjectPublicKeyInfo`; a certificate. Points of curves come as the DER that PKCS#11
//! specifies, and bare.

use cryptoki::object::Attribute;
use rsa::pkcs1;
use ssh_key::{
    Mpint,
    public::{KeyData, RsaPublicKey},
};
use sshsm_protocol::{AsymmetricAlgorithm, Curve};
use x509_cert::{
    Certificate,
    der::{
        Decode, Encode,
        asn1::{BitStringRef, ObjectIdentifier, OctetStringRef},
    },
    spki::SubjectPublicKeyInfoRef,
};

use crate::device_key::{self, DeviceKeyError};

/// What tokens call a curve: DER of its object identifier, or of its name.
const CURVES: [(&[u8], AsymmetricAlgorithm); 6] = [
    (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", AsymmetricAlgorithm::Ec(Curve::P256)),
    (b"\x06\x05\x2b\x81\x04\x00\x22", AsymmetricAlgorithm::Ec(Curve::P384)),
    (b"\x06\x05\x2b\x81\x04\x00\x23", AsymmetricAlgorithm::Ec(Curve::P521)),
    (b"\x13\x0cedwards25519", AsymmetricAlgorithm::Ed25519),
    (b"\x06\x03\x2b\x65\x70", AsymmetricAlgorithm::Ed25519),
    // GnuPG's own, which OpenPGP cards and older modules have.
    (b"\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01", AsymmetricAlgorithm::Ed25519),
];

/// RFC 8017 and RFC 8410.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The public key in an object's attributes; `None` if there is none.
pub(super) fn from_attributes(attributes: &[Attribute]) -> Option<Result<KeyData, DeviceKeyError>> {
    let (mut modulus, mut exponent, mut curve, mut point, mut info) = (None, None, None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::Modulus(bytes) if !bytes.is_empty() => modulus = Some(bytes),
            Attribute::PublicExponent(bytes) if !bytes.is_empty() => exponent = Some(bytes),
            Attribute::EcParams(bytes) if !bytes.is_empty() => curve = Some(bytes),
            Attribute::EcPoint(bytes) if !bytes.is_empty() => point = Some(bytes),
            Attribute::PublicKeyInfo(bytes) if !bytes.is_empty() => info = Some(bytes),
            _ => {}
        }
    }
    match (modulus, exponent, curve, point, info) {
        (Some(modulus), Some(exponent), ..) => Some(rsa(modulus, exponent)),
        (_, _, Some(curve), Some(point), _) => Some(elliptic(curve, point)),
        (.., Some(info)) => Some(from_info(info)),
        _ => None,
    }
}

/// The public key in an X.509 certificate, DER; `None` if it is not a certificate.
pub(super) fn from_certificate(der: &[u8]) -> Option<Result<KeyData, DeviceKeyError>> {
    let certificate = Certificate::from_der(der).ok()?;
    let info = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    Some(from_info(&info))
}

fn unknown(found: impl ToString) -> DeviceKeyError {
    DeviceKeyError::Kind { found: found.to_string() }
}

/// Two big-endian numbers, with or without leading zeros.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<KeyData, DeviceKeyError> {
    let [n, e] = [modulus, exponent].map(Mpint::from_positive_bytes);
    let key = RsaPublicKey::new(e, n).map(KeyData::Rsa).map_err(|_| unknown("malformed RSA"))?;
    device_key::raw_public(&key)?;
    Ok(key)
}

/// `CKA_EC_PARAMS` and `CKA_EC_POINT`.
fn elliptic(curve: &[u8], point: &[u8]) -> Result<KeyData, DeviceKeyError> {
    let Some((_, algorithm)) = CURVES.iter().find(|(name, _)| *name == curve) else {
        let id: Result<ObjectIdentifier, _> = Decode::from_der(curve);
        let name = id.map_or_else(|_| "unknown".into(), |id| id.to_string());
        return Err(unknown(format_args!("elliptic-curve (curve {name})")));
    };
    let raw = coordinates(point, *algorithm).ok_or(DeviceKeyError::Public { algorithm: *algorithm })?;
    device_key::ssh_public(*algorithm, raw)
}

/// `X‖Y`, or the 32 bytes of Ed25519.
fn coordinates(point: &[u8], algorithm: AsymmetricAlgorithm) -> Option<&[u8]> {
    let bare = |point: &'_ [u8]| match algorithm {
        AsymmetricAlgorithm::Ec(_) => {
            point.first() == Some(&4) && point.len() == algorithm.public_length() + 1
        }
        _ => point.len() == algorithm.public_length(),
    };
    // By its length, since OCTET STRING and an uncompressed point begin with the same byte.
    let point = if bare(point) {
        point
    } else {
        <&OctetStringRef>::from_der(point)
            .map(OctetStringRef::as_bytes)
            .ok()
            .or_else(|| BitStringRef::from_der(point).ok().and_then(|bits| bits.as_bytes()))
            .filter(|point| bare(point))?
    };
    match algorithm {
        AsymmetricAlgorithm::Ec(_) => point.get(1..),
        _ => Some(point),
    }
}

/// A `SubjectPublicKeyInfo`, DER.
fn from_info(der: &[u8]) -> Result<KeyData, DeviceKeyError> {
    let malformed = |_| unknown("malformed");
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
    let bits = info.subject_public_key.as_bytes().unwrap_or_default();
    match (info.algorithm.oid, info.algorithm.parameters) {
        (RSA, _) => {
            let key = pkcs1::RsaPublicKeyRef::from_der(bits).map_err(malformed)?;
            rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
        }
        (ED25519, _) => device_key::ssh_public(AsymmetricAlgorithm::Ed25519, bits),
        (_, Some(curve)) => elliptic(&curve.to_der().map_err(malformed)?, bits),
        (other, None) => Err(unknown(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::SshKeygen;
    use rsa::pkcs8::EncodePublicKey;

    /// The forms of SoftHSM, OpenSC, YubiKeys and OpenPGP cards.
    #[test]
    fn every_form_of_a_point_is_the_same_key() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (kind, bits, curves) in [
            ("ecdsa", "256", &CURVES[..1]),
            ("ecdsa", "384", &CURVES[1..2]),
            ("ecdsa", "521", &CURVES[2..3]),
            ("ed25519", "", &CURVES[3..]),
        ] {
            let key = keygen.key(&format!("{kind}{bits}"), kind, bits);
            let (algorithm, raw) = device_key::raw_public(key.key_data()).unwrap();
            let bare = match algorithm {
                AsymmetricAlgorithm::Ed25519 => raw,
                _ => [&[4], raw.as_slice()].concat(),
            };
            let octets = OctetStringRef::new(&bare).unwrap().to_der().unwrap();
            let bits = BitStringRef::from_bytes(&bare).unwrap().to_der().unwrap();
            for (curve, of) in curves {
                assert_eq!(*of, algorithm);
                for point in [&bare, &octets, &bits] {
                    let told = [Attribute::EcPoint(point.clone()), Attribute::EcParams(curve.to_vec())];
                    assert_eq!(from_attributes(&told).unwrap().unwrap(), *key.key_data(), "{algorithm}");
                }
                let cut = Attribute::EcPoint(bare[..bare.len() - 1].to_vec());
                let told = from_attributes(&[cut, Attribute::EcParams(curve.to_vec())]).unwrap();
                assert_eq!(told, Err(DeviceKeyError::Public { algorithm }));
            }
        }
    }

    #[test]
    fn rsa_numbers_and_key_infos_are_the_same_key() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let key = keygen.key("rsa", "rsa", "2048");
        let KeyData::Rsa(rsa) = key.key_data() else { unreachable!() };
        let (n, e) = (rsa.n().as_bytes().to_vec(), rsa.e().as_bytes().to_vec());
        assert_eq!(n[0], 0, "a number in SSH's form, with a zero in front");
        let told = [Attribute::Modulus(n), Attribute::PublicExponent(e)];
        assert_eq!(from_attributes(&told).unwrap().unwrap(), *key.key_data());
        let info = rsa::PublicKey::try_from(rsa).unwrap().to_public_key_der().unwrap();
        let info = Attribute::PublicKeyInfo(info.as_bytes().to_vec());
        assert_eq!(from_attributes(&[info]).unwrap().unwrap(), *key.key_data());
        assert!(from_attributes(&told[..1]).is_none());
    }

    #[test]
    fn other_curves_and_nonsense_are_refused_by_name() {
        let secp256k1 = b"\x06\x05\x2b\x81\x04\x00\x0a".to_vec();
        let told = |curve: Vec<u8>| {
            from_attributes(&[Attribute::EcParams(curve), Attribute::EcPoint(vec![4; 65])])
                .unwrap()
                .unwrap_err()
        };
        assert_eq!(told(secp256k1), unknown("elliptic-curve (curve 1.3.132.0.10)"));
        assert_eq!(told(vec![1]), unknown("elliptic-curve (curve unknown)"));
        assert_eq!(from_info(b"nonsense"), Err(unknown("malformed")));
        assert!(from_certificate(b"nonsense").is_none());
        assert!(from_attributes(&[Attribute::PublicKeyInfo(Vec::new())]).is_none());
    }
}
