//! A private key on a token: selected by a URI, and signing with the token's own mechanisms.

use cryptoki::{
    error::{Error, RvError},
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
};
use rsa::Pkcs1v15Sign;
use sha2::{Digest, Sha256, Sha384, Sha512};
use ssh_key::public::KeyData;
use sshsm_protocol::{
    AsymmetricAlgorithm,
    ssh::{public_key::SshCurve, signature::SignatureAlgorithm},
};

use super::{
    error::{Pkcs11Error, code},
    module::Module,
    public_key,
    token::{AskPin, Token},
    uri::{self, Uri},
};
use crate::{device_key, signature};

/// A private key that can sign, on a token that is logged in to.
pub struct TokenKey {
    token: Token,
    handle: ObjectHandle,
    uri: Uri,
    public: KeyData,
    kind: AsymmetricAlgorithm,
    mechanisms: Vec<MechanismType>,
    /// The PIN goes with each signature (`CKA_ALWAYS_AUTHENTICATE`, as in slot 9c of a YubiKey).
    always_authenticate: bool,
}

/// An object's description of itself.
struct Told {
    uri: Uri,
    key_type: Option<KeyType>,
    sign: bool,
    always_authenticate: bool,
}

impl TokenKey {
    /// Finds the key that matches `uri`, after logging in once with the PIN in the file that it names, or
    /// with the one from `ask`.
    ///
    /// # Errors
    /// When it is not exactly one key that can sign, or the PIN is wrong.
    pub fn open(uri: &Uri, ask: &mut AskPin<'_>) -> Result<Self, Pkcs11Error> {
        let mut token = Token::open(Module::open(uri)?, uri)?;
        token.log_in(uri, ask)?;
        let handle = find(&token, uri)?;
        let Told { uri: own, key_type, sign, always_authenticate } = tell(&token, handle)?;
        let key = own.to_string();
        if !matches!(key_type, Some(KeyType::RSA | KeyType::EC | KeyType::EC_EDWARDS)) {
            let found = key_type.map_or_else(|| "of an unknown kind".into(), |kind| kind.to_string());
            return Err(Pkcs11Error::Kind { key, found });
        }
        if !sign {
            return Err(Pkcs11Error::MayNotSign { key });
        }
        let public = public_key(&token, handle, &own)?;
        let kind = device_key::algorithm(&public).map_err(|source| Pkcs11Error::PublicKey { key, source })?;
        if always_authenticate {
            token.keep_pin(uri, ask)?;
        }
        let mechanisms = token.mechanisms()?;
        let uri = own.within(&token.present.uri());
        Ok(Self { token, handle, uri, public, kind, mechanisms, always_authenticate })
    }

    /// Its public key.
    #[must_use]
    pub const fn public(&self) -> &KeyData {
        &self.public
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> AsymmetricAlgorithm {
        self.kind
    }

    /// Token and key, in the form of `--device`, without the way they were accessed.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether this key signs with `algorithm`, and the token has a mechanism for that.
    ///
    /// # Errors
    /// When not.
    pub fn check(&self, algorithm: SignatureAlgorithm) -> Result<(), Pkcs11Error> {
        self.way(algorithm, &[]).map(drop)
    }

    /// Signs `message` on the token. The signature has a fixed length: RSA as long as the modulus, ECDSA
    /// `r‖s`, Ed25519 64 bytes.
    ///
    /// # Errors
    /// When the token cannot, or is gone.
    pub fn sign(&mut self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Pkcs11Error> {
        let (mechanism, data) = self.way(algorithm, message)?;
        let token = self.token.name();
        let failed = Pkcs11Error::token(&token);
        let session = &self.token.session;
        let signature = if self.always_authenticate {
            session.sign_init(&mechanism, self.handle).map_err(&failed)?;
            self.token.log_in_for_signature()?;
            session.sign_update(&data).map_err(|error| match error {
                Error::Pkcs11(
                    RvError::FunctionNotSupported
                    | RvError::OperationNotInitialized
                    | RvError::MechanismInvalid
                    | RvError::KeyTypeInconsistent,
                    _,
                ) => Pkcs11Error::NotInParts { token: token.clone(), code: code(&error) },
                error => failed(error),
            })?;
            session.sign_final()
        } else {
            session.sign(&mechanism, self.handle, &data)
        }
        .map_err(&failed)?;
        signature::from_token(self.kind, &signature).ok_or_else(|| Pkcs11Error::Signature {
            token,
            found: signature.len(),
            expected: self.kind.signature_length(),
        })
    }

    /// The first suitable mechanism of the token, and its input.
    fn way(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<(Mechanism<'static>, Vec<u8>), Pkcs11Error> {
        if SignatureAlgorithm::from_algorithm(algorithm.algorithm(), self.kind).is_none() {
            let key = self.uri.to_string();
            return Err(Pkcs11Error::Algorithm { key, kind: self.kind, algorithm });
        }
        let ways = ways(algorithm, message, self.always_authenticate);
        let names: Vec<_> =
            ways.iter().map(|(mechanism, _)| mechanism.mechanism_type().to_string()).collect();
        let has = |(mechanism, _): &(Mechanism<'_>, _)| self.mechanisms.contains(&mechanism.mechanism_type());
        ways.into_iter().find(has).ok_or_else(|| Pkcs11Error::Mechanism {
            token: self.token.name(),
            algorithm,
            wanted: if names.is_empty() { "tokens are not asked for it".into() } else { names.join(" or ") },
        })
    }
}

/// The mechanisms that make such a signature, the better one first, and the input of each.
///
/// One that hashes takes the message, and in parts, which entering the PIN in between requires; for the other
/// the hash is computed here, and hardly any token lacks it.
fn ways(
    algorithm: SignatureAlgorithm,
    message: &[u8],
    always_authenticate: bool,
) -> Vec<(Mechanism<'static>, Vec<u8>)> {
    use SignatureAlgorithm::{Ecdsa, Ed25519, RsaSha1, RsaSha256, RsaSha512};
    let (hashing, bare) = match algorithm {
        RsaSha1 => return Vec::new(),
        RsaSha256 => (Mechanism::Sha256RsaPkcs, (Mechanism::RsaPkcs, digest_info::<Sha256>(message))),
        RsaSha512 => (Mechanism::Sha512RsaPkcs, (Mechanism::RsaPkcs, digest_info::<Sha512>(message))),
        Ecdsa(SshCurve::P256) => {
            (Mechanism::EcdsaSha256, (Mechanism::Ecdsa, Sha256::digest(message).to_vec()))
        }
        Ecdsa(SshCurve::P384) => {
            (Mechanism::EcdsaSha384, (Mechanism::Ecdsa, Sha384::digest(message).to_vec()))
        }
        Ecdsa(SshCurve::P521) => {
            (Mechanism::EcdsaSha512, (Mechanism::Ecdsa, Sha512::digest(message).to_vec()))
        }
        Ed25519 => {
            let pure = EddsaParams::new(EddsaSignatureScheme::Pure);
            return vec![(Mechanism::Eddsa(pure), message.to_vec())];
        }
    };
    let hashing = (hashing, message.to_vec());
    if matches!(algorithm, Ecdsa(_)) && !always_authenticate {
        vec![bare, hashing]
    } else {
        vec![hashing, bare]
    }
}

/// What RSA PKCS#1 v1.5 signs: the name of the hash, and the hash (RFC 8017, section 9.2).
fn digest_info<D: Digest + rsa::pkcs8::AssociatedOid>(message: &[u8]) -> Vec<u8> {
    [&Pkcs1v15Sign::new::<D>().prefix, D::digest(message).as_slice()].concat()
}

/// The one private key that `uri` means.
fn find(token: &Token, uri: &Uri) -> Result<ObjectHandle, Pkcs11Error> {
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    wanted.extend(uri.bytes(uri::Attribute::Object).map(|label| Attribute::Label(label.to_vec())));
    wanted.extend(uri.bytes(uri::Attribute::Id).map(|id| Attribute::Id(id.to_vec())));
    let names = |handles: Vec<ObjectHandle>| {
        handles
            .into_iter()
            .map(|handle| tell(token, handle).map(|told| told.uri.to_string()))
            .collect::<Result<Vec<_>, _>>()
    };
    let found = token.objects(&wanted)?;
    let (name, asked) = (token.name(), uri.identity().to_string());
    match found.as_slice() {
        [key] => Ok(*key),
        [] => {
            let there = names(token.objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?)?;
            Err(Pkcs11Error::NoKey { token: name, uri: asked, there })
        }
        _ => Err(Pkcs11Error::ManyKeys { token: name, uri: asked, found: names(found)? }),
    }
}

fn tell(token: &Token, handle: ObjectHandle) -> Result<Told, Pkcs11Error> {
    let mut told = Told { uri: Uri::default(), key_type: None, sign: false, always_authenticate: false };
    for attribute in token.attributes(
        handle,
        &[
            AttributeType::Id,
            AttributeType::Label,
            AttributeType::KeyType,
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
        ],
    )? {
        match attribute {
            Attribute::Id(id) => told.uri = told.uri.with(uri::Attribute::Id, &id),
            Attribute::Label(label) => told.uri = told.uri.with(uri::Attribute::Object, &label),
            Attribute::KeyType(kind) => told.key_type = Some(kind),
            Attribute::Sign(sign) => told.sign = sign,
            Attribute::AlwaysAuthenticate(always) => told.always_authenticate = always,
            _ => {}
        }
    }
    Ok(told)
}

/// The attributes that contain a public key, on any kind of object.
pub(super) const NUMBERS: [AttributeType; 5] = [
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::EcParams,
    AttributeType::EcPoint,
    AttributeType::PublicKeyInfo,
];

/// The public key of the private key `handle`: its public key object's, its own, or its certificate's.
pub(super) fn public_key(token: &Token, handle: ObjectHandle, own: &Uri) -> Result<KeyData, Pkcs11Error> {
    let key = || own.to_string();
    let usable =
        |public: Result<_, _>| public.map_err(|source| Pkcs11Error::PublicKey { key: key(), source });
    let private = token.attributes(handle, &NUMBERS)?;
    // The numbers common to both halves. Tokens have several pairs with the same id or label more often than
    // one would expect.
    let shared = private.iter().filter(
        |attribute| matches!(attribute, Attribute::Modulus(m) | Attribute::EcParams(m) if !m.is_empty()),
    );
    let mut same: Vec<Attribute> = shared.cloned().collect();
    let label = own.bytes(uri::Attribute::Object).map(|label| Attribute::Label(label.to_vec()));
    let id = own.bytes(uri::Attribute::Id).map(|id| Attribute::Id(id.to_vec()));
    same.extend(id.clone().or_else(|| label.clone()));
    let of_class = |class| [&[Attribute::Class(class)], same.as_slice()].concat();
    let mut public = token.objects(&of_class(ObjectClass::PUBLIC_KEY))?;
    if public.len() != 1 {
        let named = [of_class(ObjectClass::PUBLIC_KEY), label.into_iter().collect()].concat();
        public = token.objects(&named)?;
    }
    if let [public] = public.as_slice()
        && let Some(public) = public_key::from_attributes(&token.attributes(*public, &NUMBERS)?)
    {
        return usable(public);
    }
    if let Some(public) = public_key::from_attributes(&private) {
        return usable(public);
    }
    // A certificate has neither modulus nor curve to find it by.
    let id = id.ok_or_else(|| Pkcs11Error::NoPublicKey { key: key() })?;
    let certificates = token.objects(&[Attribute::Class(ObjectClass::CERTIFICATE), id])?;
    if let [certificate] = certificates.as_slice() {
        for attribute in token.attributes(*certificate, &[AttributeType::Value])? {
            if let Attribute::Value(der) = attribute
                && let Some(public) = public_key::from_certificate(&der)
            {
                return usable(public);
            }
        }
    }
    Err(Pkcs11Error::NoPublicKey { key: key() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key_file, ssh_keygen::SshKeygen};
    use rsa::signature::Verifier;
    use ssh_key::private::KeypairData;

    /// A token that has nothing but CKM_RSA_PKCS is given what OpenSSH verifies.
    #[test]
    fn bare_rsa_signs_the_name_of_the_hash_and_the_hash() {
        let Some(keygen) = SshKeygen::for_test() else { return };
        let public = keygen.key("rsa", "rsa", "2048");
        let private = key_file::read_private(&keygen.path("rsa"), &mut || unreachable!()).unwrap();
        let KeypairData::Rsa(pair) = private.key_data() else { unreachable!() };
        let key = rsa::PrivateKey::try_from(pair).unwrap();
        for algorithm in [SignatureAlgorithm::RsaSha256, SignatureAlgorithm::RsaSha512] {
            let ways = ways(algorithm, b"message", false);
            let [(_, whole), (mechanism, info)] = ways.as_slice() else { panic!("{ways:?}") };
            assert_eq!(
                (mechanism.mechanism_type(), whole.as_slice()),
                (MechanismType::RSA_PKCS, b"message".as_slice())
            );
            let signature = key.sign(Pkcs1v15Sign::new_unprefixed(), info).unwrap();
            let mut field = Vec::new();
            algorithm.encode_field(&signature, &mut field).unwrap();
            let signature = ssh_key::Signature::try_from(&field[4..]).unwrap();
            public.key_data().verify(b"message", &signature).unwrap();
        }
    }

    #[test]
    fn the_pin_in_between_needs_a_mechanism_that_takes_parts() {
        let first =
            |algorithm, always| ways(algorithm, b"", always).first().map(|(way, _)| way.mechanism_type());
        for (algorithm, bare, hashing) in [
            (SshCurve::P256, MechanismType::ECDSA, MechanismType::ECDSA_SHA256),
            (SshCurve::P384, MechanismType::ECDSA, MechanismType::ECDSA_SHA384),
            (SshCurve::P521, MechanismType::ECDSA, MechanismType::ECDSA_SHA512),
        ] {
            assert_eq!(first(SignatureAlgorithm::Ecdsa(algorithm), false), Some(bare));
            assert_eq!(first(SignatureAlgorithm::Ecdsa(algorithm), true), Some(hashing));
        }
        assert_eq!(first(SignatureAlgorithm::RsaSha512, true), Some(MechanismType::SHA512_RSA_PKCS));
        assert_eq!(first(SignatureAlgorithm::Ed25519, false), Some(MechanismType::EDDSA));
        assert_eq!(first(SignatureAlgorithm::RsaSha1, false), None);
    }
}
