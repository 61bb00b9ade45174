//! Private keys in the format of other software: PKCS#8 (RFC 5958), with RSA keys as in RFC 8017, EC keys as
//! in RFC 5915 and Ed25519 keys as in RFC 8410.

use alloc::vec::Vec;

use ::rsa::pkcs1::{self, RsaPrivateKeyRef};
use ::rsa::pkcs8::der::asn1::{AnyRef, OctetStringRef};
use ::rsa::pkcs8::der::{Decode, Encode, SecretDocument};
use ::rsa::pkcs8::spki::AlgorithmIdentifier;
use ::rsa::pkcs8::{EncodePrivateKey, ObjectIdentifier, PrivateKeyInfoRef};
use sec1::{EcParameters, EcPrivateKey};
use sshsm_protocol::{AsymmetricAlgorithm, Curve};
use zeroize::Zeroizing;

use super::CryptoError;
use super::key::{self, Body};

/// id-ecPublicKey (RFC 5480).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// id-Ed25519 (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA_PUBLIC_EXPONENT: &[u8] = &[1, 0, 1];

/// The curve's name (RFC 5480, SEC 2, RFC 5639).
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

/// A stored key as a DER `PrivateKeyInfo`. An Ed25519 key that was imported without its seed has no such
/// form.
pub fn encode(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<Body, CryptoError> {
    let encode = || match algorithm {
        AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
            let private = body.get(..algorithm.private_length())?;
            key::rsa_from_factors(algorithm, private).ok()?.to_pkcs8_der().ok()
        }
        AsymmetricAlgorithm::Ec(curve) => {
            let (scalar, point) = body.split_at_checked(curve.coordinate_length())?;
            let point = [[4].as_slice(), point].concat();
            let public_key = Some(point.as_slice());
            let key = EcPrivateKey { private_key: scalar, parameters: None, public_key };
            info(EC, Some(&curve_oid(curve)), SecretDocument::encode_msg(&key).ok()?.as_bytes())
        }
        AsymmetricAlgorithm::Ed25519 => {
            let seed = body.get(96..).filter(|seed| seed.len() == 32)?;
            let seed = Zeroizing::new(OctetStringRef::new(seed).ok()?.to_der().ok()?);
            info(ED25519, None, &seed)
        }
    };
    encode().map(|document| document.to_bytes()).ok_or(CryptoError::InvalidKey(algorithm))
}

fn info(algorithm: ObjectIdentifier, curve: Option<&ObjectIdentifier>, key: &[u8]) -> Option<SecretDocument> {
    let algorithm = AlgorithmIdentifier { oid: algorithm, parameters: curve.map(AnyRef::from) };
    SecretDocument::encode_msg(&PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key).ok()?)).ok()
}

/// The stored form of the key in a DER `PrivateKeyInfo`, which must be of this algorithm and consistent.
pub fn decode(algorithm: AsymmetricAlgorithm, der: &[u8]) -> Result<Body, CryptoError> {
    let decode = || {
        let info = PrivateKeyInfoRef::from_der(der).ok()?;
        let octets = info.private_key.as_bytes();
        let (private, public) = match algorithm {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                info.algorithm.assert_algorithm_oid(pkcs1::ALGORITHM_OID).ok()?;
                let key = RsaPrivateKeyRef::from_der(octets).ok()?;
                if key.public_exponent.as_bytes() != RSA_PUBLIC_EXPONENT {
                    return None;
                }
                let mut factors = Zeroizing::new(Vec::with_capacity(algorithm.private_length()));
                for prime in [key.prime1, key.prime2] {
                    append_padded(&mut factors, prime.as_bytes(), algorithm.private_length() / 2)?;
                }
                (factors, Some(key.modulus.as_bytes()))
            }
            AsymmetricAlgorithm::Ec(curve) => {
                info.algorithm.assert_oids(EC, curve_oid(curve)).ok()?;
                let key = EcPrivateKey::from_der(octets).ok()?;
                match key.parameters {
                    None => {}
                    Some(EcParameters::NamedCurve(oid)) if oid == curve_oid(curve) => {}
                    Some(_) => return None,
                }
                let mut scalar = Zeroizing::new(Vec::with_capacity(curve.coordinate_length()));
                append_padded(&mut scalar, key.private_key, curve.coordinate_length())?;
                let public = match key.public_key {
                    // Uncompressed, or derived from the scalar.
                    Some([4, point @ ..]) => Some(point),
                    Some(_) => return None,
                    None => None,
                };
                (scalar, public)
            }
            AsymmetricAlgorithm::Ed25519 => {
                info.algorithm.assert_algorithm_oid(ED25519).ok()?;
                let seed = <&OctetStringRef>::from_der(octets).ok()?;
                let public = info.public_key.as_ref().and_then(|key| key.as_bytes());
                (Zeroizing::new(seed.as_bytes().to_vec()), public)
            }
        };
        let body = key::expand(algorithm, &private).ok()?;
        let consistent = match public {
            Some(public) => key::public(algorithm, &body).ok()? == public,
            None => true,
        };
        consistent.then_some(body)
    };
    decode().ok_or(CryptoError::InvalidKey(algorithm))
}

/// Appends a big-endian number in `length` bytes, with or without leading zeros as its writer had it.
fn append_padded(numbers: &mut Body, mut number: &[u8], length: usize) -> Option<()> {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    numbers.extend(core::iter::repeat_n(0, length.checked_sub(number.len())?));
    numbers.extend_from_slice(number);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use hex_literal::hex;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn private(algorithm: AsymmetricAlgorithm, der: &[u8]) -> Body {
        let body = decode(algorithm, der).unwrap();
        assert_eq!(body.len(), algorithm.object_length());
        body
    }

    /// In RFC 5915 scalars are as long as the order; older writers drop leading zeros, or add one to be
    /// positive.
    #[test]
    fn leading_zeros_of_a_scalar_do_not_change_the_key() {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let algorithm = AsymmetricAlgorithm::Ec(curve);
            let length = curve.coordinate_length();
            for zeros in [1, 2, length / 2, length - 1] {
                let mut scalar = [vec![0; zeros], vec![7; length - zeros]].concat();
                scalar[zeros] = 1;
                let body = key::expand(algorithm, &scalar).unwrap();
                for written in [&scalar[zeros..], &scalar, &[&[0, 0], scalar.as_slice()].concat()] {
                    let key = EcPrivateKey { private_key: written, parameters: None, public_key: None };
                    let der = info(EC, Some(&curve_oid(curve)), &key.to_der().unwrap()).unwrap();
                    assert_eq!(private(algorithm, der.as_bytes()), body, "{curve:?}, {zeros} zeros");
                }
                let long = [[1].as_slice(), &scalar].concat();
                let key = EcPrivateKey { private_key: &long, parameters: None, public_key: None };
                let der = info(EC, Some(&curve_oid(curve)), &key.to_der().unwrap()).unwrap();
                assert!(decode(algorithm, der.as_bytes()).is_err());
            }
        }
    }

    /// Made by `openssl genpkey`, and for Ed25519 the example of RFC 8410, section 10.3.
    #[test]
    fn keys_of_openssl_are_read_and_written_as_they_were() {
        let vectors: [(AsymmetricAlgorithm, &[u8]); 9] = [
            (
                AsymmetricAlgorithm::Ed25519,
                &hex!(
                    "302e020100300506032b657004220420"
                    "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::P224),
                &hex!(
                    "3078020100301006072a8648ce3d020106052b810400210461305f020101041cc0d0dc3159dec94cd5ad919c"
                    "c2286cce3a12dcd854b610d6ab984f66a13c033a0004ec128bf8bab79ad177004eccae838fbed3e999af5737"
                    "c9f05f54d6c951a9d2bb467ea0d4b91d0d7eca6c20f15389d7a73c7df843e6627576"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::P256),
                &hex!(
                    "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420a31bde20fe402ea3"
                    "a94b2598d839f3068044903bba42ff242a0523be6e3291f7a14403420004ce2fa567a16e0f91a1ce5887e77c"
                    "725bbc1ba0d45942cbfdfeea74a041feba0240677b695a6a9d8b0c90adc66f3969b3d6cae2aa797f78fd81dd"
                    "f1427e6b3de6"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::P384),
                &hex!(
                    "3081b6020100301006072a8648ce3d020106052b8104002204819e30819b020101043079d0cea026000e7880"
                    "3320ee4a8d0019fd77359104e4f4e9cc79e63caffea4636b2ada733604a2ce35535fff37021542a164036200"
                    "0415a409910617f267c9615927febaa3380d28279f8e3e1260e896677450d9bb673e68bc2d6e93bea69c74c3"
                    "5e7353c3d8c908c9acb2ba4de624473d0870c056d73af3260ce42662eb0fd3f36008c8c51c7ae4c9ab8b1a28"
                    "59a3ced23c8cd81d57"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::P521),
                &hex!(
                    "3081ee020100301006072a8648ce3d020106052b810400230481d63081d3020101044201337b07919bb61470"
                    "162791da31e6d92e451e992c09e2683bd8e5f9848e2e711e79766811150154af06be271b33416cc9ef41f7dd"
                    "5b8f432183781c5907fba8a050a181890381860004019b3397743e1e36fbbc8e31d2fee019c14f40adb4304c"
                    "a96fcc3fb9a7d1cc9e31c13b4c91965f33efc1c5f821ca217126139a5bee9650532e147761b4e16597d44400"
                    "17a7014e4b47971cadca4f75a81d4615ae41747705a701b19ad9f0abfff2280f23aeb2e5c32de39ec0752ef1"
                    "b2e3941f1fcdb5605dd1db72f57b199debbd70849e"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::K256),
                &hex!(
                    "308184020100301006072a8648ce3d020106052b8104000a046d306b0201010420457c1f4769cd12d970ef2a"
                    "4c5e558a0e9801c2b027a96d227e3506745702661ba144034200040dca6563b1e185a27cdf47415714e0d488"
                    "b0babda710db06b53741036f33c3e42687bb2d815642b9fe09dffbab7eff9310c254b74516ae5a127f13a533"
                    "d37402"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::Bp256),
                &hex!(
                    "308188020100301406072a8648ce3d020106092b2403030208010107046d306b020101042065e49bc5aa6c72"
                    "d31f64e6339da4bdef4c575ec16d3034ceacdc54aaa19e9c99a144034200048cf833273dff40f0803d61b7cf"
                    "4c2e64da8f1d664d8039a773434082fa75d11d8448eeb8107aa2b2190c8f52bb2222242a0f32cac0103728ff"
                    "68e2649de3b4cf"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::Bp384),
                &hex!(
                    "3081ba020100301406072a8648ce3d020106092b240303020801010b04819e30819b02010104306a6a48f3b8"
                    "05eff694e35429b0386c8087e9de0d1c8f1f78f4861566284f829b1ab3123cc583b78f6420b2802757263ba1"
                    "64036200043ce8a46f232fa0e3b2f01573f2024519412895808a9f4ca0ef47627de7a416b20ed297e059748b"
                    "ac994570d5eff7e9f1550e817857dac7e0f68acfa296399660458c9621bb9022e9ea5f99879b4e5329f15e2d"
                    "ffbe5c472bea3d429b16c63296"
                ),
            ),
            (
                AsymmetricAlgorithm::Ec(Curve::Bp512),
                &hex!(
                    "3081ec020100301406072a8648ce3d020106092b240303020801010d0481d03081cd020101044014cf543b10"
                    "7f96013ce7120921896340f5786b54a8010557b63e5379a4465987dc97e0dffe9e53d9122759baeec99efe89"
                    "b965cf29ad828fc809094d756c6e72a1818503818200043ebe1a37572a051d4494e599beaa474433626981ba"
                    "dba9e8e0260731bac2ad3d6d8cc7393452075003d2aa36c9cddeebf264887f10c7e2d176708255aeda60ce1c"
                    "9bb2cf792f8c64bd2350f71b53fff7d80b509f1c37443edff24eec9ecddf9db60be2a4ab467f2c99dbcc7e0c"
                    "38b09ae538815f076ccc7b911b8e254c7c7de5"
                ),
            ),
        ];
        for (algorithm, der) in vectors {
            let body = private(algorithm, der);
            assert_eq!(encode(algorithm, &body).unwrap().as_slice(), der, "{algorithm}");
            for length in 0..der.len() {
                assert!(decode(algorithm, &der[..length]).is_err());
            }
            assert!(decode(algorithm, &[der, &[0]].concat()).is_err());
            for (other, _) in vectors {
                assert_eq!(decode(other, der).is_ok(), other == algorithm);
            }
            if let AsymmetricAlgorithm::Ec(_) = algorithm {
                // The public key comes last, and must belong to the scalar.
                let mut damaged = der.to_vec();
                *damaged.last_mut().unwrap() ^= 1;
                assert!(decode(algorithm, &damaged).is_err());
            }
        }
    }

    #[test]
    fn rsa_keys_come_back_with_their_factors_in_order() {
        let algorithm = AsymmetricAlgorithm::Rsa2048;
        let body = key::generate(algorithm, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
        let der = encode(algorithm, &body).unwrap();
        assert_eq!(private(algorithm, &der), body);
        assert!(decode(AsymmetricAlgorithm::Rsa3072, &der).is_err());
        // The modulus follows 38 bytes of headers; another one does not belong to the factors.
        let mut damaged = der.to_vec();
        assert_eq!(damaged[38..294], body[640..]);
        damaged[200] ^= 1;
        assert!(decode(algorithm, &damaged).is_err());
    }

    #[test]
    fn an_ed25519_key_without_its_seed_has_no_such_form() {
        let body = key::expand(AsymmetricAlgorithm::Ed25519, &[1; 32]).unwrap();
        assert!(encode(AsymmetricAlgorithm::Ed25519, &body).is_ok());
        assert!(encode(AsymmetricAlgorithm::Ed25519, &body[..96]).is_err());
    }
}
