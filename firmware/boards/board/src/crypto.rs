//! Cryptography on Cortex-M4 and M33: hand-optimised assembly for P-256, the RustCrypto crates for everything
//! else.
//!
//! The nonces are the same as the RustCrypto provider's (RFC 6979 with added entropy), so the same entropy
//! gives the same signatures; and as there, every signature is verified under the stored public key before it
//! is released. The assembly runs in time independent of secrets.

use alloc::vec::Vec;

use rand_core::CryptoRng;
use rfc6979::KGenerator;
use rfc6979::bigint::U256;
use sha2::Sha256;
use sshsm_firmware::crypto::{CryptoError, Hash, Input, MAX_SIGNATURE, Padding, Provider, RustCrypto, key};
use sshsm_p256_cm4 as assembly;
use sshsm_protocol::{AsymmetricAlgorithm, Curve};
use zeroize::{Zeroize as _, Zeroizing};

const P256: AsymmetricAlgorithm = AsymmetricAlgorithm::Ec(Curve::P256);
const ORDER: U256 = U256::from_be_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");

/// A number of 256 bits, least significant word first.
type Words = [u32; 8];

/// The provider for processors with the DSP instructions.
#[derive(Debug)]
pub struct CortexM;

/// A private key made ready to sign by [`CortexM`].
pub enum PrivateKey {
    /// Computed with in assembly.
    P256(P256Key),
    /// All others.
    Other(<RustCrypto as Provider>::PrivateKey),
}

/// A P-256 key.
pub struct P256Key {
    scalar: Zeroizing<Words>,
}

/// The number that 32 bytes make, most significant first.
fn words(bytes: &[u8]) -> Option<Words> {
    let (chunks, []) = bytes.as_chunks::<4>() else { return None };
    let mut words: Words = [0; 8];
    if chunks.len() != words.len() {
        return None;
    }
    words.iter_mut().zip(chunks.iter().rev()).for_each(|(word, bytes)| *word = u32::from_be_bytes(*bytes));
    Some(words)
}

fn point(bytes: &[u8]) -> Option<(Words, Words)> {
    let (x, y) = bytes.split_at_checked(32)?;
    Some((words(x)?, words(y)?))
}

impl P256Key {
    fn load(body: &[u8]) -> Option<Self> {
        let scalar = Zeroizing::new(words(body.get(..32)?)?);
        key::public(P256, body).ok()?;
        assembly::check_range_n(&scalar).then_some(Self { scalar })
    }

    /// Signs as much of a digest as the order is long; `None` when the signature is not valid under `public`.
    fn sign(&self, public: &[u8], digest: &[u8], added: &[u8; 32]) -> Option<[Words; 2]> {
        let (x, y) = point(public)?;
        let leftmost = digest.get(..32).unwrap_or(digest);
        let added = Zeroizing::new([added, digest].concat());
        let mut scalar = Zeroizing::new([0; 32]);
        let (chunks, _) = scalar.as_chunks_mut::<4>();
        chunks.iter_mut().rev().zip(self.scalar.iter()).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
        let mut nonces = KGenerator::<Sha256, U256>::new(scalar.as_ref(), leftmost, &added, &ORDER);
        let (mut r, mut s) = ([0; 8], [0; 8]);
        loop {
            let mut nonce = Zeroizing::new([0; 32]);
            nonces.fill_next_k(nonce.as_mut());
            let nonce = Zeroizing::new(words(nonce.as_ref())?);
            // It fails once in 2^256 nonces.
            if assembly::sign(&mut r, &mut s, leftmost, &self.scalar, &nonce) {
                break;
            }
        }
        assembly::verify(&x, &y, leftmost, &r, &s).then_some([r, s])
    }

    fn derive(&self, point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        // Other forms of points are SEC1 too, but no point of this protocol.
        let point = point.strip_prefix(&[4]).and_then(self::point)?;
        let mut shared = Zeroizing::new([0; 32]);
        assembly::ecdh_calc_shared_secret(&mut shared, &self.scalar, &point.0, &point.1)
            .then(|| Zeroizing::new(shared.to_vec()))
    }
}

impl Provider for CortexM {
    type PrivateKey = PrivateKey;

    fn load(algorithm: AsymmetricAlgorithm, body: &[u8]) -> Result<PrivateKey, CryptoError> {
        if algorithm == P256 {
            return P256Key::load(body).map(PrivateKey::P256).ok_or(CryptoError::InvalidKey(algorithm));
        }
        RustCrypto::load(algorithm, body).map(PrivateKey::Other)
    }

    fn sign(
        key: &PrivateKey,
        public: &[u8],
        input: Input<'_>,
        entropy: &mut impl CryptoRng,
        signature: &mut [u8; MAX_SIGNATURE],
    ) -> Result<usize, CryptoError> {
        let key = match key {
            PrivateKey::P256(key) => key,
            PrivateKey::Other(key) => return RustCrypto::sign(key, public, input, entropy, signature),
        };
        let Input::Ecdsa { digest } = input else { return Err(CryptoError::WrongKey(P256)) };
        let mut added = Zeroizing::new([0; 32]);
        entropy.fill_bytes(added.as_mut());
        let mut made = key.sign(public, digest, &added).ok_or(CryptoError::SelfCheck(P256))?;
        let (chunks, _) = signature.as_chunks_mut::<4>();
        let numbers = made.iter().flat_map(|number| number.iter().rev());
        chunks.iter_mut().zip(numbers).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
        made.zeroize();
        Ok(64)
    }

    fn derive(key: &PrivateKey, point: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match key {
            PrivateKey::P256(key) => key.derive(point).ok_or(CryptoError::InvalidPoint(P256)),
            PrivateKey::Other(key) => RustCrypto::derive(key, point),
        }
    }

    fn decrypt(
        key: &PrivateKey,
        padding: Padding<'_>,
        ciphertext: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match key {
            PrivateKey::P256(_) => Err(CryptoError::WrongKey(P256)),
            PrivateKey::Other(key) => RustCrypto::decrypt(key, padding, ciphertext, entropy),
        }
    }

    fn verify(algorithm: AsymmetricAlgorithm, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
        if algorithm != P256 {
            return RustCrypto::verify(algorithm, public, message, signature);
        }
        let mut digest = [0; 64];
        let digest = Hash::Sha256.digest(message, &mut digest);
        point(public)
            .zip(point(signature))
            .is_some_and(|((x, y), (r, s))| assembly::verify(&x, &y, digest, &r, &s))
    }
}
