//! The payloads of commands. Commands with the same layout share a struct.

use super::{REST, messages};
use crate::algorithm::{Algorithm, AsymmetricAlgorithm};
use crate::capability::Capabilities;
use crate::channel::{CHALLENGE_LENGTH, Challenge, MAC_LENGTH, POINT_LENGTH};
use crate::frame::MAX_PAYLOAD;
use crate::object::ObjectHeader;
use crate::option::DeviceOption;
use crate::wrapped::{NONCE_LENGTH, TAG_LENGTH};

/// Bytes of an AES block.
const BLOCK: usize = 16;
/// Bytes of RSA ciphertexts and public keys: 2048 and 4096 bits.
const MODULUS: core::ops::RangeInclusive<usize> = 256..=512;
/// Bytes of digests: SHA-1 and SHA-512.
const DIGEST: core::ops::RangeInclusive<usize> = 20..=64;
/// Bytes of the shortest key under AES-KWP: two blocks of eight, and an eight-byte prefix.
const WRAPPED_KEY: usize = 24;
/// Bytes of a Yubico OTP credential that is sealed: random, ciphertext and tag.
const AEAD: usize = 6 + 22 + 8;

messages! {
    /// For commands without a payload.
    struct Nothing {}

    /// ECHO.
    struct Echo<'a> {
        ..
        /// The data to be echoed.
        data: 0..=MAX_PAYLOAD,
    }

    /// CREATE SESSION.
    struct CreateSession<'a> {
        /// The authentication key.
        key: u16 as target,
        ..
        /// The host's challenge, or its ephemeral public key for a P-256 authentication key.
        host: CHALLENGE_LENGTH..=POINT_LENGTH,
    }

    /// AUTHENTICATE SESSION.
    struct AuthenticateSession {
        /// The session.
        session: u8,
        /// The host's proof that it holds the key.
        cryptogram: Challenge,
        /// Over all of the message before it.
        mac: [u8; MAC_LENGTH],
    }

    /// SESSION MESSAGE.
    struct SessionMessage<'a> {
        /// The session.
        session: u8,
        ..
        /// Whole blocks of ciphertext, and the MAC.
        sealed: BLOCK + MAC_LENGTH..=MAX_PAYLOAD - 1,
    }

    /// GET DEVICE INFO.
    struct GetDeviceInfo<'a> {
        ..
        /// Empty or 0, the device; 1, the part number.
        page: 0..=1,
    }

    /// GET PSEUDO RANDOM.
    struct GetPseudoRandom {
        /// Bytes to answer with.
        length: u16,
    }

    /// BLINK DEVICE.
    struct BlinkDevice {
        /// For how long.
        seconds: u8,
    }

    /// LIST OBJECTS.
    struct ListObjects<'a> {
        ..
        /// [`ListFilter`](crate::object::ListFilter).
        filters: 0..=REST,
    }

    /// GET OBJECT INFO and DELETE OBJECT.
    struct ObjectName {
        /// The object.
        id: u16 as target,
        /// Its type.
        object_type: u8,
    }

    /// For commands about an object whose type they know: GET OPAQUE, GET TEMPLATE, RANDOMIZE OTP AEAD.
    struct Named {
        /// The object.
        id: u16 as target,
    }

    /// Of commands that make a key: GENERATE ASYMMETRIC KEY, GENERATE HMAC KEY, GENERATE SYMMETRIC KEY.
    struct Generate {
        /// The new key's header.
        object: ObjectHeader as target,
    }

    /// PUT AUTHENTICATION KEY.
    struct PutAuthenticationKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        /// What its sessions may pass on.
        delegated: Capabilities,
        ..
        /// `K-ENC[16] ‖ K-MAC[16]`, or the P-256 public key `X[32] ‖ Y[32]`.
        key: 32..=64,
    }

    /// CHANGE AUTHENTICATION KEY.
    struct ChangeAuthenticationKey<'a> {
        /// The session's own authentication key.
        id: u16 as target,
        /// The new key's algorithm.
        algorithm: u8,
        ..
        /// As in PUT AUTHENTICATION KEY.
        key: 32..=64,
    }
    uses AuthenticationKey id: |message, _| [named(message.algorithm), None, None, None];

    /// PUT ASYMMETRIC KEY.
    struct PutAsymmetricKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        ..
        /// RSA `p‖q`, an EC scalar or an Ed25519 seed.
        private: 28..=512,
    }

    /// GET PUBLIC KEY.
    struct GetPublicKey<'a> {
        /// The key.
        id: u16 as target,
        ..
        /// Empty for an asymmetric key, or the type.
        object_type: 0..=1,
    }

    /// PUT TEMPLATE.
    struct PutTemplate<'a> {
        /// The new object's header.
        object: ObjectHeader as target,
        ..
        /// [`Template`](crate::ssh::template::Template).
        template: 1..=REST,
    }

    /// SIGN SSH CERTIFICATE and EXPLAIN SSH REQUEST.
    struct SignSshCertificate<'a> {
        /// The CA key.
        ca_key: u16 as target,
        /// The template.
        template: u16 as second,
        /// Of the CA key's signature.
        algorithm: u8,
        /// When the timestamp authority signed, in seconds since 1970.
        now: u32,
        ..
        /// `timestamp signature ‖ certificate to be signed`; the length of the former follows from the
        /// template's timestamp key.
        request: 1..=REST,
    }
    uses AsymmetricKey ca_key: |message, _| [named(message.algorithm), None, None, None];

    /// SIGN PKCS1.
    struct SignPkcs1<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// A digest, or an encoded message of any length.
        digest: 1..=512,
    }
    uses AsymmetricKey key: |message, _| match by_digest(message.digest.len(), PKCS1) {
        // Encoded by the client, perhaps with any of the hashes.
        None => PKCS1.map(Some),
        hash => [hash, None, None, None],
    };

    /// SIGN PSS.
    struct SignPss<'a> {
        /// The key.
        key: u16 as target,
        /// The algorithm of the mask generation function.
        mgf: u8,
        /// Bytes of salt.
        salt_length: u16,
        ..
        /// Its length determines the hash.
        digest: DIGEST,
    }
    uses AsymmetricKey key: |message, _| [by_digest(message.digest.len(), PSS), named(message.mgf), None, None];

    /// SIGN ECDSA.
    struct SignEcdsa<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// Its length determines the hash; at most that of a P-521 scalar.
        digest: 20..=66,
    }
    uses AsymmetricKey key: |message, _| [by_digest(message.digest.len(), ECDSA), None, None, None];

    /// SIGN EDDSA.
    struct SignEddsa<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// The message to sign.
        message: 0..=REST,
    }

    /// DECRYPT PKCS1.
    struct DecryptPkcs1<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// As long as the modulus.
        ciphertext: MODULUS,
    }
    uses AsymmetricKey key: |_, _| [Some(Algorithm::RsaPkcs1Decrypt), None, None, None];

    /// DECRYPT OAEP.
    struct DecryptOaep<'a> {
        /// The key.
        key: u16 as target,
        /// The algorithm of the mask generation function.
        mgf: u8,
        ..
        /// `ciphertext ‖ hash of the label`: the ciphertext is as long as the modulus; the length of the hash
        /// determines OAEP's hash.
        sealed: *MODULUS.start() + *DIGEST.start()..=*MODULUS.end() + *DIGEST.end(),
    }
    uses AsymmetricKey key: |message, _| {
        // Moduli are multiples of 128 bytes, and digests are shorter.
        [by_digest(message.sealed.len() % 128, OAEP), named(message.mgf), None, None]
    };

    /// DERIVE ECDH.
    struct DeriveEcdh<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// The other side's public key, `04‖X‖Y`.
        point: 1 + 56..=1 + 132,
    }
    uses AsymmetricKey key: |_, _| [Some(Algorithm::Ecdh), None, None, None];

    /// SIGN ATTESTATION CERTIFICATE. Id 0 is the device.
    struct SignAttestationCertificate {
        /// The key that is attested.
        key: u16 as target,
        /// The key that signs.
        attesting_key: u16 as second,
    }
    uses AsymmetricKey attesting_key: |_, key| match AsymmetricAlgorithm::from_algorithm(key) {
        Some(AsymmetricAlgorithm::Ec(_)) => [Some(Algorithm::EcdsaSha256), None, None, None],
        _ => [Some(Algorithm::RsaPkcs1Sha256), None, None, None],
    };

    /// PUT OPAQUE.
    struct PutOpaque<'a> {
        /// The new object's header.
        object: ObjectHeader as target,
        ..
        /// Its content.
        content: 1..=REST,
    }

    /// PUT HMAC KEY.
    struct PutHmacKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        ..
        /// At most as long as a block of the hash.
        key: 1..=128,
    }

    /// SIGN HMAC.
    struct SignHmac<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// The data to authenticate.
        data: 0..=REST,
    }

    /// VERIFY HMAC.
    struct VerifyHmac<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// `authenticator ‖ data`: the first is as long as a digest of the key's hash.
        authenticated: 20..=REST,
    }

    /// PUT SYMMETRIC KEY.
    struct PutSymmetricKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        ..
        /// 16, 24 or 32 bytes.
        key: 16..=32,
    }

    /// ENCRYPT ECB and DECRYPT ECB.
    struct Ecb<'a> {
        /// The key.
        key: u16 as target,
        ..
        /// Whole blocks.
        blocks: BLOCK..=REST,
    }
    uses SymmetricKey key: |_, _| [Some(Algorithm::AesEcb), None, None, None];

    /// ENCRYPT CBC and DECRYPT CBC.
    struct Cbc<'a> {
        /// The key.
        key: u16 as target,
        /// The initialisation vector.
        iv: [u8; BLOCK],
        ..
        /// Whole blocks.
        blocks: BLOCK..=REST,
    }
    uses SymmetricKey key: |_, _| [Some(Algorithm::AesCbc), None, None, None];

    /// PUT OTP AEAD KEY.
    struct PutOtpAeadKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        ..
        /// `nonce id[4] ‖ key`, the key of 16, 24 or 32 bytes.
        key: 4 + 16..=4 + 32,
    }

    /// GENERATE OTP AEAD KEY.
    struct GenerateOtpAeadKey {
        /// The new key's header.
        object: ObjectHeader as target,
        /// What its nonces begin with.
        nonce_id: [u8; 4],
    }

    /// CREATE OTP AEAD.
    struct CreateOtpAead<'a> {
        /// The key that seals.
        key: u16 as target,
        ..
        /// `AES key[16] ‖ private id[6]`.
        credential: 16 + 6..=16 + 6,
    }

    /// REWRAP OTP AEAD.
    struct RewrapOtpAead {
        /// The key that opens.
        from: u16 as target,
        /// The key that seals.
        to: u16 as second,
        /// The sealed credential.
        aead: [u8; AEAD],
    }

    /// DECRYPT OTP.
    struct DecryptOtp {
        /// The key that opens.
        key: u16 as target,
        /// The sealed credential.
        aead: [u8; AEAD],
        /// The one-time password.
        password: [u8; 16],
    }

    /// SET LOG INDEX.
    struct SetLogIndex {
        /// The last entry that is forgotten.
        number: u16,
    }

    /// GET OPTION.
    struct GetOption {
        /// The option.
        option: u8,
    }

    /// SET OPTION.
    struct SetOption<'a> {
        /// The option.
        option: u8,
        /// Bytes of the value.
        length: u16,
        ..
        /// The value.
        value: 0..=REST,
    }

    /// PUT WRAP KEY.
    struct PutWrapKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        /// What objects may do that pass under it.
        delegated: Capabilities,
        ..
        /// An AES key, or RSA `p‖q`.
        key: 16..=512,
    }

    /// GENERATE WRAP KEY.
    struct GenerateWrapKey {
        /// The new key's header.
        object: ObjectHeader as target,
        /// What objects may do that pass under it.
        delegated: Capabilities,
    }

    /// EXPORT WRAPPED.
    struct ExportWrapped<'a> {
        /// The wrap key.
        wrap_key: u16 as target,
        /// The type of the object.
        object_type: u8,
        /// The object.
        id: u16 as second,
        ..
        /// 1 for an Ed25519 key with its seed; empty or 0 without.
        form: 0..=1,
    }

    /// IMPORT WRAPPED.
    struct ImportWrapped<'a> {
        /// The wrap key.
        wrap_key: u16 as target,
        ..
        /// `nonce[13] ‖ ciphertext ‖ tag[16]`.
        sealed: NONCE_LENGTH + TAG_LENGTH..=REST,
    }

    /// WRAP DATA.
    struct WrapData<'a> {
        /// The wrap key.
        key: u16 as target,
        ..
        /// The data to seal.
        data: 1..=REST,
    }

    /// UNWRAP DATA.
    struct UnwrapData<'a> {
        /// The wrap key.
        key: u16 as target,
        ..
        /// `nonce[13] ‖ ciphertext ‖ tag[16]`; the ciphertext is the mark of data and at least one byte.
        sealed: NONCE_LENGTH + 1 + 1 + TAG_LENGTH..=REST,
    }

    /// PUT PUBLIC WRAP KEY.
    struct PutPublicWrapKey<'a> {
        /// The new key's header.
        object: ObjectHeader as target,
        /// What objects may do that pass under it.
        delegated: Capabilities,
        ..
        /// Of RSA; the public exponent is 65537.
        modulus: MODULUS,
    }

    /// GET RSA WRAPPED KEY and EXPORT RSA WRAPPED.
    struct RsaExport<'a> {
        /// The public wrap key.
        wrap_key: u16 as target,
        /// The type of the object.
        object_type: u8,
        /// The object.
        id: u16 as second,
        /// The algorithm of the key of one use.
        aes: u8,
        /// OAEP with its hash.
        oaep: u8,
        /// The algorithm of the mask generation function.
        mgf: u8,
        ..
        /// The hash of OAEP's label.
        label_hash: DIGEST,
    }
    uses PublicWrapKey wrap_key: |message, _| {
        [Some(Algorithm::AesKwp), named(message.aes), named(message.oaep), named(message.mgf)]
    };

    /// PUT RSA WRAPPED KEY.
    struct PutRsaWrappedKey<'a> {
        /// The wrap key.
        wrap_key: u16 as target,
        /// The type of the new key.
        object_type: u8,
        /// The new key's header.
        object: ObjectHeader,
        /// OAEP with its hash.
        oaep: u8,
        /// The algorithm of the mask generation function.
        mgf: u8,
        ..
        /// `wrapped key ‖ hash of OAEP's label`.
        sealed: *MODULUS.start() + WRAPPED_KEY + *DIGEST.start()..=REST,
    }
    uses WrapKey wrap_key: |message, _| {
        let key = named(message.object.algorithm);
        [Some(Algorithm::AesKwp), key, named(message.oaep), named(message.mgf)]
    };

    /// IMPORT RSA WRAPPED.
    struct ImportRsaWrapped<'a> {
        /// The wrap key.
        wrap_key: u16 as target,
        /// OAEP with its hash.
        oaep: u8,
        /// The algorithm of the mask generation function.
        mgf: u8,
        ..
        /// `wrapped object ‖ hash of OAEP's label`.
        sealed: *MODULUS.start() + WRAPPED_KEY + *DIGEST.start()..=REST,
    }
    uses WrapKey wrap_key: |message, _| {
        [Some(Algorithm::AesKwp), named(message.oaep), named(message.mgf), None]
    };
}

impl<'a> SetOption<'a> {
    /// Sets an option to a value; one that is longer than any message is refused by its length.
    #[must_use]
    pub fn new(option: DeviceOption, value: &'a [u8]) -> Self {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        Self { option: option.code(), length, value }
    }
}

const PKCS1: [Algorithm; 4] = [
    Algorithm::RsaPkcs1Sha1,
    Algorithm::RsaPkcs1Sha256,
    Algorithm::RsaPkcs1Sha384,
    Algorithm::RsaPkcs1Sha512,
];
const PSS: [Algorithm; 4] =
    [Algorithm::RsaPssSha1, Algorithm::RsaPssSha256, Algorithm::RsaPssSha384, Algorithm::RsaPssSha512];
const OAEP: [Algorithm; 4] =
    [Algorithm::RsaOaepSha1, Algorithm::RsaOaepSha256, Algorithm::RsaOaepSha384, Algorithm::RsaOaepSha512];
const ECDSA: [Algorithm; 4] =
    [Algorithm::EcdsaSha1, Algorithm::EcdsaSha256, Algorithm::EcdsaSha384, Algorithm::EcdsaSha512];

/// The algorithm that a field names, if it is one.
fn named(code: u8) -> Option<Algorithm> {
    Algorithm::from_code(code)
}

/// The algorithm whose hash has digests of this length: SHA-1, SHA-256, SHA-384 or SHA-512.
fn by_digest(length: usize, [sha1, sha256, sha384, sha512]: [Algorithm; 4]) -> Option<Algorithm> {
    match length {
        20 => Some(sha1),
        32 => Some(sha256),
        48 => Some(sha384),
        64 => Some(sha512),
        _ => None,
    }
}
