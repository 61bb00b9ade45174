//! OpenSSH's own key formats (its PROTOCOL.key, RFC 4253 section 6.6), parsed as OpenSSH does: numbers with
//! or without leading zeros, base64 in lines of any length.
//!
//! `ssh-key` parses only numbers in their shortest form, and no P-256 scalar of less than 32 bytes;
//! ssh-keygen writes such a scalar for one key in 512.

use ssh_encoding::{Decode, Error as EncodingError};
use ssh_key::{
    Cipher, Kdf, Mpint, PrivateKey,
    private::{KeypairData, RsaKeypair, RsaPrivateKey},
    public::{KeyData, RsaPublicKey},
};
use sshsm_protocol::ssh::public_key::SshCurve;
use zeroize::Zeroizing;

use crate::{
    integer::{mpint, string},
    key_file::{AskPassphrase, KeyFormatError, ec_pair, malformed, pem_body},
};

const PUBLIC: &str = "OpenSSH public key";
const PRIVATE: &str = "OpenSSH private key";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Rounds of bcrypt: more than a minute of work.
const MAX_ROUNDS: u32 = 10_000;

/// A public key in SSH's encoding.
///
/// # Errors
/// When it is not one, or there are trailing bytes.
pub(crate) fn public_key(blob: &[u8]) -> Result<KeyData, KeyFormatError> {
    let bad = |error: EncodingError| malformed(PUBLIC, error);
    let mut rest = blob;
    let name = string(&mut rest).map_err(bad)?;
    let key = if name == b"ssh-rsa" {
        let (e, n) = (mpint(&mut rest).map_err(bad)?, mpint(&mut rest).map_err(bad)?);
        rsa_public(n, e)?
    } else {
        rest = blob;
        KeyData::decode(&mut rest).map_err(|error| match error {
            // OpenSSH accepts any bytes; ssh-key stores the application as text.
            ssh_key::Error::Encoding(EncodingError::CharacterEncoding) if name.starts_with(b"sk-") => {
                malformed(PUBLIC, "the application that this security key signs for is not UTF-8 text")
            }
            error => malformed(PUBLIC, error),
        })?
    };
    match rest.len() {
        0 => Ok(key),
        remaining => Err(bad(EncodingError::TrailingData { remaining })),
    }
}

fn rsa_public(n: &[u8], e: &[u8]) -> Result<KeyData, KeyFormatError> {
    let [n, e] = [n, e].map(Mpint::from_positive_bytes);
    RsaPublicKey::new(e, n).map(KeyData::Rsa).map_err(|error| malformed(PUBLIC, error))
}

/// The key in a PEM block `OPENSSH PRIVATE KEY`; an encrypted one is decrypted with a passphrase, which is
/// then asked for.
///
/// # Errors
/// When it is not one such key, its cipher is not supported, or the passphrase is wrong.
pub(crate) fn private_key(pem: &str, passphrase: AskPassphrase<'_>) -> Result<PrivateKey, KeyFormatError> {
    let bad = |error: EncodingError| malformed(PRIVATE, error);
    let bytes = pem_body(pem)?;
    let mut reader = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed(PRIVATE, "its heading is missing"))?;
    let name = String::from_utf8_lossy(string(&mut reader).map_err(bad)?);
    let unsupported = || KeyFormatError::Cipher { cipher: name.clone().into_owned() };
    let cipher = match Cipher::new(&name) {
        // Known by its name only.
        Ok(Cipher::TdesCbc) | Err(_) => return Err(unsupported()),
        Ok(cipher) => cipher,
    };
    let kdf = Kdf::decode(&mut reader).map_err(|error| malformed(PRIVATE, error))?;
    let count = u32::decode(&mut reader).map_err(bad)?;
    if count != 1 {
        return Err(malformed(PRIVATE, format_args!("it holds {count} keys, and one is expected")));
    }
    let public = public_key(string(&mut reader).map_err(bad)?)?;
    let mut section = Zeroizing::new(string(&mut reader).map_err(bad)?.to_vec());
    if section.is_empty() || section.len() % cipher.block_size() != 0 {
        return Err(malformed(PRIVATE, "its private half is not made of whole blocks"));
    }
    let tag = match (cipher.has_tag(), reader) {
        (false, []) => None,
        (true, tag) => Some(tag.try_into().map_err(|_| bad(EncodingError::Length))?),
        (false, rest) => return Err(bad(EncodingError::TrailingData { remaining: rest.len() })),
    };
    if cipher.is_some() {
        let Kdf::Bcrypt { salt, rounds } = &kdf else {
            return Err(malformed(PRIVATE, "a cipher, and nothing that makes its key of a passphrase"));
        };
        if salt.is_empty() || *rounds == 0 {
            return Err(malformed(PRIVATE, "no salt or no rounds to make a key of the passphrase with"));
        }
        if *rounds > MAX_ROUNDS {
            return Err(KeyFormatError::Costly {
                function: "bcrypt",
                reason: format!("has {rounds} rounds; at most {MAX_ROUNDS} are allowed"),
            });
        }
        let passphrase = passphrase().map_err(KeyFormatError::NoPassphrase)?;
        // The only remaining error is an empty passphrase.
        let (key, iv) = kdf
            .derive_key_and_iv(cipher, passphrase.as_bytes())
            .map_err(|_| KeyFormatError::WrongPassphrase)?;
        cipher.decrypt(&key, &iv, &mut section, tag).map_err(|error| match error {
            ssh_key::cipher::Error::UnsupportedCipher(_) => unsupported(),
            ssh_key::cipher::Error::Crypto => KeyFormatError::WrongPassphrase,
            error => malformed(PRIVATE, error),
        })?;
    } else if kdf.is_some() {
        return Err(malformed(PRIVATE, "a passphrase without a cipher"));
    }
    let mut reader = section.as_slice();
    let checks = (u32::decode(&mut reader).map_err(bad)?, u32::decode(&mut reader).map_err(bad)?);
    if checks.0 != checks.1 {
        return Err(match cipher {
            Cipher::None => malformed(PRIVATE, "its check numbers differ"),
            _ => KeyFormatError::WrongPassphrase,
        });
    }
    let pair = keypair(&mut reader)?;
    let comment = string(&mut reader).map_err(bad)?;
    // The public half is written as one line.
    let comment: Vec<u8> =
        comment.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }).collect();
    if !reader.iter().copied().eq((1..=u8::MAX).take(reader.len())) {
        return Err(malformed(PRIVATE, "its padding is not 1, 2, 3, …"));
    }
    let key = PrivateKey::new(pair, comment).map_err(|error| malformed(PRIVATE, error))?;
    if *key.public_key().key_data() == public {
        Ok(key)
    } else {
        Err(malformed(PRIVATE, "its public key is that of another key"))
    }
}

/// The numbers of both halves, type name first.
fn keypair(reader: &mut &[u8]) -> Result<KeypairData, KeyFormatError> {
    let bad = |error: EncodingError| malformed(PRIVATE, error);
    let whole = *reader;
    let curve = match string(reader).map_err(bad)? {
        b"ssh-rsa" => return rsa_pair(reader),
        b"ecdsa-sha2-nistp256" => SshCurve::P256,
        b"ecdsa-sha2-nistp384" => SshCurve::P384,
        b"ecdsa-sha2-nistp521" => SshCurve::P521,
        _ => {
            *reader = whole;
            return KeypairData::decode(reader).map_err(|error| malformed(PRIVATE, error));
        }
    };
    if string(reader).map_err(bad)? != curve.name().as_bytes() {
        return Err(malformed(PRIVATE, "its curve is not that of its type"));
    }
    let point = string(reader).map_err(bad)?;
    ec_pair(curve, mpint(reader).map_err(bad)?, Some(point))
}

fn rsa_pair(reader: &mut &[u8]) -> Result<KeypairData, KeyFormatError> {
    let mut number =
        || mpint(reader).map(Mpint::from_positive_bytes).map_err(|error| malformed(PRIVATE, error));
    let (n, e) = (number()?, number()?);
    let (d, iqmp, p, q) = (number()?, number()?, number()?, number()?);
    RsaPublicKey::new(e, n)
        .and_then(|public| RsaKeypair::new(public, RsaPrivateKey::new(d, iqmp, p, q)?))
        .map(KeypairData::Rsa)
        .map_err(|error| malformed(PRIVATE, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64, Encoding};
    use proptest::prelude::*;
    use ssh_encoding::Encode;
    use ssh_key::PublicKey;
    use std::{fs, io, os::unix::fs::PermissionsExt as _};

    use crate::{
        device_key,
        integer::minimal,
        key_file::{parse_private, parse_public},
        ssh_keygen::SshKeygen,
    };

    #[test]
    fn an_application_that_is_not_text_is_named_as_the_reason() {
        let mut blob = Vec::new();
        for field in [&b"sk-ssh-ed25519@openssh.com"[..], &[9; 32], b"ss\xe8:"] {
            field.encode(&mut blob).unwrap();
        }
        let error = public_key(&blob).unwrap_err().to_string();
        assert!(error.contains("application") && error.contains("not UTF-8 text"), "{error}");
    }

    /// Made by ssh-keygen: scalars of 31 and of 28 bytes.
    const SHORT: [&str; 2] = [
        "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQTEoTrUalj9+tjUcmEwIx5YIJW1ZuWI
k4aMqVeYzMhJvUspgjGte+T7Ze7jFib6fP9CQAtItJ31h19M5YEYgTnIAAAAmK73U6+u91
OvAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBMShOtRqWP362NRy
YTAjHlgglbVm5YiThoypV5jMyEm9SymCMa175Ptl7uMWJvp8/0JAC0i0nfWHX0zlgRiBOc
gAAAAfGrCXyfKcr+nHk9bQ21KQ3ouyjP9RqeSSCmfO72YteAAAAAAB
-----END OPENSSH PRIVATE KEY-----
",
        "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNl
Y2RzYS1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQQO/EiBvaTo0gH4uaCe
DN4fP0IIvJ3VQmyWUFsTAbL4ZA+QiBFoBDM/nLIrQq7+VAB/ZxHkcUO9XW/PmY9t
FrLLAAAAmEZcnhxGXJ4cAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAy
NTYAAABBBA78SIG9pOjSAfi5oJ4M3h8/Qgi8ndVCbJZQWxMBsvhkD5CIEWgEMz+c
sitCrv5UAH9nEeRxQ71db8+Zj20WsssAAAAdAKLIY0iwNh/5tHNJyVahtnu8z4FJ
68PWOUvNffQAAAAAAQID
-----END OPENSSH PRIVATE KEY-----
",
    ];

    /// An RSA key whose private exponent and CRT coefficient are a byte shorter than its modulus and primes;
    /// and its public half.
    const RSA_SHORT: [&str; 2] = [
        "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAABFwAAAAdz
c2gtcnNhAAAAAwEAAQAAAQEAzS8MSwbF91o0yK8qDssMpo9K3TtscHG5pX6Djxiy
BfbUpCGqFjxQ+smcR/SEref8Eu9/BgtT7gogHlE8X74Fe79/rrDLmF6Hrx8bu2zz
MppNtnvaFNrG1TJfda0JBKpnPhughyqNRORwSXT+Bh8gqkexo4JXJBv5AL939t0O
VdEkQWVupvi88zbMpV2fythJwpliMcaNKQhZQPVP3Awn1Ap/Jqkxz+H1cscUtub2
6OSGi4HeIDKDoCwqDYK84a8zv4yH0SBcLLhxw6QJIi5rFkV+SNXqp/G8OCw81V2Q
V5mnlV5EdRXj0z/eB+vlDaBa3urGHeH1I672EEmzE6HBPwAAA7ggEqabIBKmmwAA
AAdzc2gtcnNhAAABAQDNLwxLBsX3WjTIryoOywymj0rdO2xwcbmlfoOPGLIF9tSk
IaoWPFD6yZxH9ISt5/wS738GC1PuCiAeUTxfvgV7v3+usMuYXoevHxu7bPMymk22
e9oU2sbVMl91rQkEqmc+G6CHKo1E5HBJdP4GHyCqR7GjglckG/kAv3f23Q5V0SRB
ZW6m+LzzNsylXZ/K2EnCmWIxxo0pCFlA9U/cDCfUCn8mqTHP4fVyxxS25vbo5IaL
gd4gMoOgLCoNgrzhrzO/jIfRIFwsuHHDpAkiLmsWRX5I1eqn8bw4LDzVXZBXmaeV
XkR1FePTP94H6+UNoFre6sYd4fUjrvYQSbMTocE/AAAAAwEAAQAAAP82Tgkxk4mt
HLqnZ/OP4doo7L6k/fsjC3PN5lU/DOGzEHHzKJe8UBChVLrOpBz2+b2JT+Q5tU2l
8XCZMko2Egpmtij1oEgYiRYmu2NiIsImOfSLuu1/0Pm01rpNzhry92AyCrVXwn2h
NldIM+1QocfZp4h2hKVxe2342ZoAtwjLGvvanMjXWmdJMsb25j3BSk/gRAkCzobW
+D/1xyngCfM0FvPllloqhj33xtfWP5favXMSc1PVFkBRicJ7w0ZVWCNWwpzg+sIi
m6k80Xj7uKPz9zPnFgpKw7by2sfH1TzwaBXbZLww5+Dt64jy0nmBotwXTX39c+hE
ImZTqK+wHwEAAAB/Ug7p25MUKhuAYeJJVZl0XlOn/C3eyq2GF4CE6ztdVFRTQ/wf
9DF/kC7qX+kNQLnCibwGi3gvXpVVUBwvSeY5bIciKUdCT7jT04ePnvG/zzKNsWfD
mbTMhULEtwd4BVWBmyX2H2ve3MOEPR/WSuP72yycqzbWb18T6bfP3/ijHgAAAIEA
6IYUEBiq6CAz5yL83GaIgHEQd8bGZn3eR+d2YVXD+tV6lNkwEHDibHeaS0bVedd9
ZyKwEg7w+1TXkTsQcynHv1LiLsrhaz8FMTLqpr8YTYzw6TiqcU1kPi7obG2VcAVi
NPmTpzUaWZu8WlsMtxI8qohwhd8qSUf2JvE9fKfxq3EAAACBAOHmU+RSQZJo31eh
rBeW0HVV+64TdnxcaVgDzOJDlt69LbSvrHgMHDgphfHCnTQLDf5YirxZGPdDfXo0
otrIEj4Guhsoyd+bvM/0FE+NJjAKH/IXQIJVqWFbKYqc1AH0GVwtLp9vwjdoi1JI
XGyWHOhsiKA36KM0ZLZmiXbiKP+vAAAAAAECAwQF
-----END OPENSSH PRIVATE KEY-----
",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDNLwxLBsX3WjTIryoOywymj0rdO2xwcbmlfoOPGLIF9tSkIaoWPFD6yZxH9ISt5/wS738GC1PuCiAeUTxfvgV7v3+usMuYXoevHxu7bPMymk22e9oU2sbVMl91rQkEqmc+G6CHKo1E5HBJdP4GHyCqR7GjglckG/kAv3f23Q5V0SRBZW6m+LzzNsylXZ/K2EnCmWIxxo0pCFlA9U/cDCfUCn8mqTHP4fVyxxS25vbo5IaLgd4gMoOgLCoNgrzhrzO/jIfRIFwsuHHDpAkiLmsWRX5I1eqn8bw4LDzVXZBXmaeVXkR1FePTP94H6+UNoFre6sYd4fUjrvYQSbMTocE/",
    ];

    #[test]
    fn a_file_cannot_ask_for_rounds_without_end() {
        let public = [field(b"ssh-ed25519"), field(&[9; 32])].concat();
        let function = [field(&[7; 16]), (MAX_ROUNDS + 1).to_be_bytes().to_vec()].concat();
        let whole = [
            MAGIC,
            &field(b"aes256-ctr"),
            &field(b"bcrypt"),
            &field(&function),
            &[0, 0, 0, 1],
            &field(&public),
            &field(&[0; 128]),
        ];
        let text = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            Base64::encode_string(&whole.concat())
        );
        let error = parse_private(&text, &mut || panic!("asks for a passphrase")).unwrap_err();
        assert!(matches!(error, KeyFormatError::Costly { function: "bcrypt", .. }), "{error}");
        assert!(error.to_string().contains("has 10001 rounds; at most 10000 are allowed"), "{error}");
    }

    fn no_passphrase() -> io::Result<Zeroizing<String>> {
        Err(io::Error::other("none was expected"))
    }

    fn field(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// A number as an mpint with `zeros` more zeros in front than it needs.
    fn number(number: &[u8], zeros: usize) -> Vec<u8> {
        let number = minimal(number);
        let sign = usize::from(number.first().is_some_and(|first| *first >= 0x80));
        field(&[&vec![0; sign + zeros], number].concat())
    }

    /// What ssh-keygen writes around `private`, the fields of a private key.
    fn file(public: &[u8], private: &[u8]) -> String {
        let mut section = [&[7; 8], private, &field(b"comment")].concat();
        section.extend((1..).take((8 - section.len() % 8) % 8));
        let none = field(b"none");
        let whole =
            [MAGIC, &none, &none, &field(b""), &[0, 0, 0, 1], &field(public), &field(&section)].concat();
        format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            Base64::encode_string(&whole)
        )
    }

    /// A curve, and a private number on it whose first bytes are zero, down to one byte.
    fn scalar() -> impl Strategy<Value = (SshCurve, Vec<u8>)> {
        (0..3_usize, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 66)).prop_map(
            |(curve, zeros, mut bytes)| {
                let curve = [SshCurve::P256, SshCurve::P384, SshCurve::P521][curve];
                let length = curve.coordinate_length();
                bytes.truncate(length);
                // Below the order, whatever follows.
                bytes[0] &= if curve == SshCurve::P521 { 1 } else { 0x7f };
                bytes[1] &= 0x7f;
                bytes[..zeros.index(length)].fill(0);
                bytes[length - 1] |= 1;
                (curve, bytes)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_private_number_is_read_in_every_form_whatever_zeros_it_begins_with(
            (curve, scalar) in scalar(),
            zeros in 0..4_usize,
        ) {
            let pair = ec_pair(curve, &scalar, None).unwrap();
            let public = KeyData::try_from(&pair).unwrap();
            let KeypairData::Ecdsa(pair) = &pair else { unreachable!() };
            let point = pair.public_key_bytes();
            let kind = format!("ecdsa-sha2-{}", curve.name());
            let heading = [field(kind.as_bytes()), field(curve.name().as_bytes()), field(point)].concat();
            let mut texts = Vec::new();
            for zeros in [0, zeros, scalar.len() - minimal(&scalar).len()] {
                let private = [heading.clone(), number(&scalar, zeros)].concat();
                texts.push(file(&public.encode_vec().unwrap(), &private));
            }
            let exact = scalar.as_slice();
            let long = [vec![0; zeros], scalar.clone()].concat();
            for written in [minimal(exact), exact, &long] {
                texts.extend(sec1_and_pkcs8(curve, written, point));
            }
            for text in texts {
                let key = parse_private(&text, &mut no_passphrase).unwrap();
                let (_, raw) = device_key::raw_private(&key).unwrap();
                prop_assert_eq!(raw.as_slice(), exact, "{}", text);
                prop_assert_eq!(key.public_key().key_data(), &public);
            }
        }

        #[test]
        fn rsa_numbers_are_read_whatever_zeros_they_begin_with(zeros in prop::collection::vec(0..4_usize, 8)) {
            let [private, public] = RSA_SHORT.map(|text| text.trim());
            let key = parse_private(private, &mut no_passphrase).unwrap();
            let KeypairData::Rsa(pair) = key.key_data() else { unreachable!() };
            let (n, e, private) = (pair.public().n(), pair.public().e(), pair.private());
            let mut numbers = vec![field(b"ssh-rsa")];
            let fields = [n, e, private.d(), private.iqmp(), private.p(), private.q()];
            numbers.extend(fields.iter().zip(&zeros).map(|(field, zeros)| number(field.as_bytes(), *zeros)));
            let blob =
                [field(b"ssh-rsa"), number(e.as_bytes(), zeros[6]), number(n.as_bytes(), zeros[7])].concat();
            let loose = parse_private(&file(&blob, &numbers.concat()), &mut no_passphrase).unwrap();
            prop_assert_eq!(device_key::raw_private(&loose).unwrap(), device_key::raw_private(&key).unwrap());
            let line = format!("ssh-rsa {} comment", Base64::encode_string(&blob));
            let told = parse_public(&line).unwrap();
            prop_assert_eq!(told.key_data(), key.public_key().key_data());
            // In its shortest form from here on, which is the form used in certificates.
            prop_assert_eq!(told.to_openssh().unwrap(), format!("{public} comment"));
        }
    }

    /// DER of a SEC1 key that names its curve, of one that does not, and of the latter in PKCS#8; each in PEM.
    fn sec1_and_pkcs8(curve: SshCurve, number: &[u8], point: &[u8]) -> Vec<String> {
        use rsa::pkcs8::{
            Document, LineEnding, PrivateKeyInfoRef,
            der::{
                Encode,
                asn1::{AnyRef, ObjectIdentifier, OctetStringRef},
            },
            spki::AlgorithmIdentifier,
        };
        use sec1::{EcParameters, EcPrivateKey};
        let oid = ObjectIdentifier::new_unwrap(match curve {
            SshCurve::P256 => "1.2.840.10045.3.1.7",
            SshCurve::P384 => "1.3.132.0.34",
            SshCurve::P521 => "1.3.132.0.35",
        });
        let sec1 = |parameters, public_key| {
            EcPrivateKey { private_key: number, parameters, public_key }.to_der().unwrap()
        };
        let named = sec1(Some(EcParameters::NamedCurve(oid)), Some(point));
        let bare = sec1(None, None);
        let ec = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
        let algorithm = AlgorithmIdentifier { oid: ec, parameters: Some(AnyRef::from(&oid)) };
        let pkcs8 = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(&bare).unwrap()).to_der().unwrap();
        [(named, "EC PRIVATE KEY"), (pkcs8, "PRIVATE KEY")]
            .map(|(der, label)| Document::try_from(der).unwrap().to_pem(label, LineEnding::LF).unwrap())
            .into()
    }

    #[test]
    fn the_short_scalars_that_ssh_keygen_writes_are_read() {
        let lengths = SHORT.map(|text| {
            let key = parse_private(text, &mut no_passphrase).unwrap();
            let (_, raw) = device_key::raw_private(&key).unwrap();
            minimal(&raw).len()
        });
        assert_eq!(lengths, [31, 28]);
    }

    /// The same, encrypted with a passphrase by ssh-keygen.
    #[test]
    fn the_short_scalars_are_read_behind_a_passphrase() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        for (number, (text, cipher)) in
            SHORT.iter().zip(["aes256-ctr", "chacha20-poly1305@openssh.com"]).enumerate()
        {
            let name = format!("key-{number}");
            fs::write(keygen.path(&name), text).unwrap();
            fs::set_permissions(keygen.path(&name), fs::Permissions::from_mode(0o600)).unwrap();
            keygen.run(&["-q", "-p", "-N", "a passphrase", "-Z", cipher, "-f", &name]).unwrap();
            let passphrase = |text: &'static str| move || Ok(Zeroizing::new(text.to_owned()));
            let text = fs::read_to_string(keygen.path(&name)).unwrap();
            let key = parse_private(&text, &mut passphrase("a passphrase")).unwrap();
            let plain = parse_private(SHORT[number], &mut no_passphrase).unwrap();
            assert_eq!(key.key_data(), plain.key_data());
            let wrong = parse_private(&text, &mut passphrase("another")).unwrap_err();
            assert!(matches!(wrong, KeyFormatError::WrongPassphrase), "{wrong:?}");
        }
    }

    /// They are not numbers, and keep their length.
    #[test]
    fn seeds_that_begin_with_zeros_are_read() {
        for zeros in [0, 1, 2, 31] {
            let mut seed = [0x55; 32];
            seed[..zeros].fill(0);
            let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
            let public = KeyData::Ed25519(pair.public).encode_vec().unwrap();
            let kind = field(b"ssh-ed25519");
            let halves = [seed, pair.public.0].concat();
            let private = [kind, field(&pair.public.0), field(&halves)].concat();
            let key = parse_private(&file(&public, &private), &mut no_passphrase).unwrap();
            assert_eq!(device_key::raw_private(&key).unwrap().1.as_slice(), seed);
        }
    }

    #[test]
    fn a_number_that_is_no_key_or_another_keys_is_refused() {
        let pair = ec_pair(SshCurve::P256, &[7], None).unwrap();
        let KeypairData::Ecdsa(pair) = &pair else { unreachable!() };
        let point = pair.public_key_bytes();
        for number in [&[0; 32][..], &[0xff; 32], &[1; 33], &[8]] {
            assert!(ec_pair(SshCurve::P256, number, Some(point)).is_err(), "{number:?}");
        }
        assert!(ec_pair(SshCurve::P521, &[2; 66], None).is_err(), "above 521 bits");
        let kind = field(b"ecdsa-sha2-nistp256");
        let heading = [kind, field(b"nistp256"), field(point)].concat();
        for scalar in [field(&[0x80, 7]), field(&[8]), field(&[])] {
            let text = file(&heading, &[heading.clone(), scalar].concat());
            let refused = parse_private(&text, &mut no_passphrase);
            assert!(matches!(refused, Err(KeyFormatError::Malformed { .. })), "{refused:?}");
        }
        let right = [heading.clone(), field(&[7])].concat();
        parse_private(&file(&heading, &right), &mut no_passphrase).unwrap();
        let other = PublicKey::from_openssh(RSA_SHORT[1].trim()).unwrap();
        let text = file(&other.key_data().encode_vec().unwrap(), &right);
        assert!(parse_private(&text, &mut no_passphrase).is_err());
    }

    /// Every cipher of ssh-keygen: decrypted, or named as unsupported. The passphrase is right.
    #[test]
    fn every_cipher_of_ssh_keygen_is_read_or_named() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let ciphers = [
            "aes128-cbc",
            "aes192-cbc",
            "aes256-cbc",
            "aes128-ctr",
            "aes192-ctr",
            "aes256-ctr",
            "aes128-gcm@openssh.com",
            "aes256-gcm@openssh.com",
            "chacha20-poly1305@openssh.com",
            "3des-cbc",
        ];
        for cipher in ciphers {
            let _ = fs::remove_file(keygen.path("key"));
            keygen.run(&["-q", "-t", "ed25519", "-N", "secret", "-Z", cipher, "-f", "key"]).unwrap();
            let text = fs::read_to_string(keygen.path("key")).unwrap();
            let mut asked = 0;
            let read = parse_private(&text, &mut || {
                asked += 1;
                Ok(Zeroizing::new("secret".to_owned()))
            });
            match read {
                Ok(_) => assert_eq!(asked, 1),
                Err(KeyFormatError::Cipher { cipher: named }) => {
                    assert_eq!((named.as_str(), asked), ("3des-cbc", 0), "{cipher}");
                }
                Err(error) => panic!("{cipher}: {error}"),
            }
        }
    }

    #[test]
    fn a_comment_of_several_lines_becomes_one() {
        let pair = ec_pair(SshCurve::P256, &[7], None).unwrap();
        let KeypairData::Ecdsa(pair) = &pair else { unreachable!() };
        let heading =
            [field(b"ecdsa-sha2-nistp256"), field(b"nistp256"), field(pair.public_key_bytes())].concat();
        let text = file(&heading, &[heading.clone(), field(&[7])].concat());
        let mut blob = pem_body(&text).unwrap().to_vec();
        let at = blob.windows(7).position(|window| window == b"comment").unwrap();
        blob[at + 3] = b'\n';
        let text = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            Base64::encode_string(&blob)
        );
        let key = parse_private(&text, &mut no_passphrase).unwrap();
        assert_eq!(key.comment().as_bytes(), b"com ent");
    }

    #[test]
    fn a_cipher_that_is_not_supported_is_named() {
        let none = field(b"none");
        let whole = [MAGIC, &field(b"rot13"), &none, &field(b""), &[0, 0, 0, 1]].concat();
        let text = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            Base64::encode_string(&whole)
        );
        let error = parse_private(&text, &mut no_passphrase).unwrap_err();
        assert!(matches!(error, KeyFormatError::Cipher { cipher } if cipher == "rot13"));
    }
}
