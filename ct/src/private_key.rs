//! What private keys do: a decrypted block until its padding is accepted, signatures, ECDH.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::hazmat::rsa_encrypt;
use rsa::{BoxedUint, PublicKey};
use sshsm_firmware::crypto::{
    CryptoError, Hash, Input, MAX_SIGNATURE, Oaep, Padding, Provider, RustCrypto, key,
};
use sshsm_protocol::{AsymmetricAlgorithm, Curve};

use crate::rsa_key;
use crate::secret::{hide, publish, published, reveal, secret_bytes};

const RSA: AsymmetricAlgorithm = AsymmetricAlgorithm::Rsa3072;
const MODULUS: usize = 384;

fn entropy() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

/// A key whose private bytes are secret, in their stored form.
fn secret_key(algorithm: AsymmetricAlgorithm, private: &[u8]) -> <RustCrypto as Provider>::PrivateKey {
    let mut body = key::expand(algorithm, private).expect("a private key");
    let public = key::public(algorithm, &body).expect("a body").to_vec();
    let at = body.windows(public.len()).rposition(|window| *window == public).expect("its public half");
    let (front, rest) = body.split_at_mut(at);
    hide(front);
    hide(&mut rest[public.len()..]);
    RustCrypto::load(algorithm, &body).expect("a private key")
}

fn rsa_private() -> &'static [u8] {
    rsa_key::LARGE[0].1
}

fn encrypted(block: &[u8]) -> Vec<u8> {
    let body = key::expand(RSA, rsa_private()).expect("a private key");
    let modulus = key::public(RSA, &body).expect("a body");
    let number = |bytes| BoxedUint::from_be_slice(bytes, 8 * MODULUS as u32).expect("as long as the modulus");
    let key = PublicKey::new(number(modulus), 65_537_u32.into()).expect("a modulus");
    rsa_encrypt(&key, &number(block)).expect("below the modulus").to_be_bytes().into_vec()
}

/// Decrypts with the ciphertext as the secret: everything derived from it is secret, above all the block; the
/// key is not.
fn decrypted(padding: Padding<'_>, ciphertext: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let body = key::expand(RSA, rsa_private()).expect("a private key");
    let key = RustCrypto::load(RSA, &body).expect("a private key");
    let mut ciphertext = ciphertext.to_vec();
    hide(&mut ciphertext);
    // Whether it is accepted, and its length: the answer reveals both.
    let plaintext = published(RustCrypto::decrypt(&key, padding, &ciphertext, &mut entropy()));
    plaintext.map(|mut plaintext| {
        reveal(&mut plaintext);
        plaintext.to_vec()
    })
}

/// DECRYPT PKCS1: a message, and each way in which a block can be wrong.
#[inline(never)]
pub fn pkcs1_padding() {
    let block = |start: [u8; 2], padding: usize, rest: &[u8]| {
        let mut block = [&start[..], &vec![0xaa; padding], rest].concat();
        block.resize(MODULUS, 7);
        encrypted(&block)
    };
    let length = decrypted(Padding::Pkcs1, &block([0, 2], 8, &[0])).map(|plaintext| plaintext.len());
    assert_eq!(length, Ok(MODULUS - 11));
    for wrong in [
        block([1, 2], 8, &[0]),
        block([0, 1], 8, &[0]),
        block([0, 2], 7, &[0]),
        block([0, 2], MODULUS - 2, &[]),
    ] {
        assert_eq!(decrypted(Padding::Pkcs1, &wrong), Err(CryptoError::Decryption(RSA)));
    }
}

/// DECRYPT OAEP: a message, and one for another label.
#[inline(never)]
pub fn oaep_padding() {
    let mut digest = [0; 64];
    let label = Hash::Sha256.digest(b"", &mut digest);
    let padding = Oaep::new(Hash::Sha1, label).expect("a hash");
    let body = key::expand(RSA, rsa_private()).expect("a private key");
    let modulus = key::public(RSA, &body).expect("a body");
    let ciphertext =
        sshsm_firmware::crypto::rsa::oaep_encrypt(RSA, modulus, &padding, b"hello", &mut entropy())
            .expect("it fits");
    assert_eq!(decrypted(Padding::Oaep(padding), &ciphertext).as_deref(), Ok(&b"hello"[..]));
    let other = Oaep::new(Hash::Sha1, &[0; 32]).expect("a hash");
    assert_eq!(decrypted(Padding::Oaep(other), &ciphertext), Err(CryptoError::Decryption(RSA)));
}

fn sign(algorithm: AsymmetricAlgorithm, private: &[u8], input: Input<'_>) {
    let key = secret_key(algorithm, private);
    let mut signature = [0; MAX_SIGNATURE];
    let body = key::expand(algorithm, private).expect("a private key");
    let public = key::public(algorithm, &body).expect("a body");
    let length = RustCrypto::sign(&key, public, input, &mut entropy(), &mut signature).expect("a signature");
    reveal(&mut signature[..length]);
}

/// The curves that OpenSSH has.
const CURVES: [(Curve, usize); 3] = [(Curve::P256, 32), (Curve::P384, 48), (Curve::P521, 66)];

fn scalar(length: usize) -> Vec<u8> {
    let mut scalar = vec![0x42; length];
    scalar[0] = 0;
    scalar
}

/// ECDSA on the curves that OpenSSH has.
#[inline(never)]
pub fn ecdsa_signature() {
    for (curve, length) in CURVES {
        sign(AsymmetricAlgorithm::Ec(curve), &scalar(length), Input::Ecdsa { digest: &[1; 32] });
    }
}

/// Ed25519.
#[inline(never)]
pub fn ed25519_signature() {
    sign(AsymmetricAlgorithm::Ed25519, &[0x42; 32], Input::Eddsa { message: b"a request" });
}

/// DERIVE ECDH on the curves that OpenSSH has.
#[inline(never)]
pub fn ecdh() {
    for (curve, length) in CURVES {
        let algorithm = AsymmetricAlgorithm::Ec(curve);
        let body = key::expand(algorithm, &scalar(length)).expect("a scalar");
        let point = [&[4], key::public(algorithm, &body).expect("a body")].concat();
        let key = secret_key(algorithm, &scalar(length));
        let mut secret = RustCrypto::derive(&key, &point).expect("a point");
        assert!(secret_bytes(&secret) > 0);
        publish(&mut secret);
    }
}
