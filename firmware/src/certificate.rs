//! X.509 certificates (RFC 5280) as attestation reads and makes them.
//!
//! Parts copied from one certificate to another (a name, a validity) are copied byte for byte, whatever their
//! contents.

use alloc::vec::Vec;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, IntRef, OctetString, UintRef, UtcTime};
use der::oid::ObjectIdentifier;
use der::{DateTime, Decode, Encode, Sequence, Tag, Tagged};
use rand_core::CryptoRng;
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use sshsm_protocol::{AsymmetricAlgorithm, Curve, DeviceError};

use crate::crypto::{CryptoError, Hash, Input, Key, MAX_SIGNATURE, Provider, curve};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256_WITH_RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

const fn curve_oid(curve: Curve) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(match curve {
        Curve::P224 => "1.3.132.0.33",
        Curve::P256 => "1.2.840.10045.3.1.7",
        Curve::P384 => "1.3.132.0.34",
        Curve::P521 => "1.3.132.0.35",
        Curve::K256 => "1.3.132.0.10",
        Curve::Bp256 => "1.3.36.3.3.2.8.1.1.7",
        Curve::Bp384 => "1.3.36.3.3.2.8.1.1.11",
        Curve::Bp512 => "1.3.36.3.3.2.8.1.1.13",
    })
}

/// An extension and its value, the DER in `extnValue`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(crate) struct Extension {
    /// Its identifier.
    pub id: ObjectIdentifier,
    /// Whether a reader that does not know it must refuse the certificate.
    #[asn1(default = "Default::default")]
    pub critical: bool,
    /// Its value.
    pub value: OctetString,
}

/// Why a certificate could not be read or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Not a certificate, or a part that does not fit into one.
    #[error(transparent)]
    Encoding(#[from] der::Error),
    /// The key cannot sign one.
    #[error(transparent)]
    Key(#[from] CryptoError),
}

impl From<CertificateError> for DeviceError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::Encoding(_) => Self::InvalidData,
            CertificateError::Key(error) => error.into(),
        }
    }
}

/// `TBSCertificate`.
#[derive(Sequence)]
struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: u8,
    serial_number: IntRef<'a>,
    signature: AlgorithmIdentifierRef<'a>,
    issuer: AnyRef<'a>,
    validity: AnyRef<'a>,
    subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    issuer_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    subject_unique_id: Option<BitStringRef<'a>>,
    #[asn1(context_specific = "3", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

/// A certificate.
#[derive(Sequence)]
struct SignedCertificate<'a> {
    tbs_certificate: TbsCertificate<'a>,
    signature_algorithm: AlgorithmIdentifierRef<'a>,
    signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: u32,
}

#[derive(Sequence)]
struct Validity {
    not_before: UtcTime,
    not_after: GeneralizedTime,
}

/// The parts of a certificate that are copied to those issued under it; in DER.
pub(crate) struct Issuer {
    /// Its subject.
    pub name: Vec<u8>,
    /// Its validity.
    pub validity: Vec<u8>,
}

impl Issuer {
    /// Reads a certificate. Neither its signature nor its key matters.
    pub(crate) fn of(certificate: &[u8]) -> Result<Self, CertificateError> {
        let tbs = SignedCertificate::from_der(certificate)?.tbs_certificate;
        tbs.subject.tag().assert_eq(Tag::Sequence)?;
        tbs.validity.tag().assert_eq(Tag::Sequence)?;
        Ok(Self { name: tbs.subject.to_der()?, validity: tbs.validity.to_der()? })
    }
}

/// A certificate that is yet to be signed. `issuer`, `validity` and `subject` are DER.
pub(crate) struct Unsigned<'a> {
    /// The serial number; the topmost bit makes it negative.
    pub serial: [u8; 16],
    /// The subject of the certificate of the key that signs.
    pub issuer: &'a [u8],
    /// When it is valid.
    pub validity: &'a [u8],
    /// The subject's name.
    pub subject: &'a [u8],
    /// The subject's key: its algorithm and its raw public half.
    pub key: (AsymmetricAlgorithm, &'a [u8]),
    /// Its extensions.
    pub extensions: Vec<Extension>,
}

impl Unsigned<'_> {
    /// Signs with an RSA or EC key over SHA-256, whatever the curve; the whole certificate in DER.
    pub(crate) fn sign<C: Provider>(
        self,
        key: &Key<C>,
        entropy: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, CertificateError> {
        let algorithm = key.algorithm;
        let signature_algorithm = match algorithm {
            AsymmetricAlgorithm::Ec(_) => AlgorithmIdentifierRef { oid: ECDSA_WITH_SHA256, parameters: None },
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                AlgorithmIdentifierRef { oid: SHA256_WITH_RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) }
            }
            AsymmetricAlgorithm::Ed25519 => return Err(CryptoError::WrongKey(algorithm).into()),
        };
        let (subject_algorithm, public) = self.key;
        let subject_public_key_info = public_key_info(subject_algorithm, public)?;
        let tbs_certificate = TbsCertificate {
            version: 2,
            serial_number: IntRef::new(&self.serial)?,
            signature: signature_algorithm,
            issuer: AnyRef::from_der(self.issuer)?,
            validity: AnyRef::from_der(self.validity)?,
            subject: AnyRef::from_der(self.subject)?,
            subject_public_key_info: AnyRef::from_der(&subject_public_key_info)?,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions),
        };

        let mut digest = [0; 64];
        let digest = Hash::Sha256.digest(&tbs_certificate.to_der()?, &mut digest);
        let input = match algorithm {
            AsymmetricAlgorithm::Ec(_) => Input::Ecdsa { digest },
            _ => Input::Pkcs1 { hash: Some(Hash::Sha256), digest },
        };
        let mut signature = [0; MAX_SIGNATURE];
        let wrong = CryptoError::SelfCheck(algorithm);
        let length = key.sign(input, entropy, &mut signature)?;
        let signature = signature.get(..length).ok_or(wrong)?;
        let mut der = [0; MAX_SIGNATURE];
        let signature = match algorithm {
            AsymmetricAlgorithm::Ec(curve) => {
                let length = curve::to_der(curve, signature, &mut der).ok_or(wrong)?;
                der.get(..length).ok_or(wrong)?
            }
            _ => signature,
        };
        let signature = BitStringRef::from_bytes(signature)?;
        Ok(SignedCertificate { tbs_certificate, signature_algorithm, signature }.to_der()?)
    }
}

/// `SubjectPublicKeyInfo` of a raw public key: RSA modulus, `X‖Y`, or the 32 bytes of Ed25519.
fn public_key_info(algorithm: AsymmetricAlgorithm, public: &[u8]) -> Result<Vec<u8>, der::Error> {
    let curve;
    let (algorithm, key) = match algorithm {
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
            let key = RsaPublicKey { modulus: UintRef::new(public)?, public_exponent: 65_537 };
            (AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) }, key.to_der()?)
        }
        AsymmetricAlgorithm::Ec(on) => {
            curve = curve_oid(on);
            let parameters = Some(AnyRef::from(&curve));
            (AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters }, [&[4], public].concat())
        }
        AsymmetricAlgorithm::Ed25519 => {
            (AlgorithmIdentifierRef { oid: ED25519, parameters: None }, public.to_vec())
        }
    };
    SubjectPublicKeyInfoRef { algorithm, subject_public_key: BitStringRef::from_bytes(&key)? }.to_der()
}

/// The name that has only a common name.
pub(crate) fn common_name(text: &str) -> Result<Vec<u8>, CertificateError> {
    let attribute = [COMMON_NAME.to_der()?, text.to_der()?].concat();
    let attribute = AnyRef::new(Tag::Sequence, &attribute)?.to_der()?;
    let set = AnyRef::new(Tag::Set, &attribute)?.to_der()?;
    Ok(AnyRef::new(Tag::Sequence, &set)?.to_der()?)
}

/// Valid at any time: from the first second of UNIX time, with no well-defined end (RFC 5280, section 4.1.2.5).
pub(crate) fn always() -> Result<Vec<u8>, CertificateError> {
    let not_before = UtcTime::from_date_time(DateTime::new(1970, 1, 1, 0, 0, 0)?)?;
    let not_after = GeneralizedTime::from_date_time(DateTime::new(9999, 12, 31, 23, 59, 59)?);
    Ok(Validity { not_before, not_after }.to_der()?)
}
