//! RSA encodings (RFC 8017) as the protocol requires them: a mask hash independent of the scheme's own, and
//! an OAEP label of which only the hash is known.
//!
//! The `rsa` crate offers neither, and it strips a decrypted block's leading zeros in time that reveals how
//! many there are. The arithmetic is therefore the crate's, blinded and checked, and the encodings are here.
//! Decoding takes the same time and gives the same error for every defect of a block.

use alloc::vec;
use alloc::vec::Vec;

use ::rsa::hazmat::{rsa_decrypt_and_check, rsa_encrypt};
use ::rsa::traits::PublicKeyParts;
use ::rsa::{BoxedUint, PrivateKey, PublicKey};
use rand_core::CryptoRng;
use sshsm_protocol::AsymmetricAlgorithm;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeLess};
use zeroize::Zeroizing;

use super::{CryptoError, Hash};

/// OAEP (RFC 8017, section 7.1).
#[derive(Clone, Copy, Debug)]
pub struct Oaep<'a> {
    hash: Hash,
    mgf: Hash,
    label_hash: &'a [u8],
}

impl<'a> Oaep<'a> {
    /// OAEP with this hash for the mask, and with the hash whose digests are as long as `label_hash` as its
    /// own; `None` when there is none.
    #[must_use]
    pub fn new(mgf: Hash, label_hash: &'a [u8]) -> Option<Self> {
        Some(Self { hash: Hash::of_length(label_hash.len())?, mgf, label_hash })
    }
}

/// How a message to an RSA key is padded.
#[derive(Clone, Copy, Debug)]
pub enum Padding<'a> {
    /// RSAES-PKCS1-v1_5 (RFC 8017, section 7.2).
    Pkcs1,
    /// RSAES-OAEP.
    Oaep(Oaep<'a>),
}

/// Encrypts to the key with this modulus and public exponent 65537; the result is as long as the modulus.
pub fn oaep_encrypt(
    algorithm: AsymmetricAlgorithm,
    modulus: &[u8],
    padding: &Oaep<'_>,
    plaintext: &[u8],
    entropy: &mut impl CryptoRng,
) -> Result<Vec<u8>, CryptoError> {
    let key = public_key(modulus)
        .filter(|_| algorithm.modulus_length() == Some(modulus.len()))
        .ok_or(CryptoError::InvalidKey(algorithm))?;
    let block = oaep_encode(modulus.len(), padding, plaintext, entropy)
        .ok_or(CryptoError::MessageTooLong(algorithm))?;
    BoxedUint::from_be_slice(&block, key.n_bits_precision())
        .ok()
        .and_then(|block| rsa_encrypt(&key, &Zeroizing::new(block)).ok())
        .map(|ciphertext| ciphertext.to_be_bytes().into_vec())
        .ok_or(CryptoError::InvalidKey(algorithm))
}

/// RSASSA-PSS (RFC 8017, section 8.1.1) of a digest whose length determines its hash.
pub(super) fn pss_sign(
    algorithm: AsymmetricAlgorithm,
    key: &PrivateKey,
    mgf: Hash,
    salt_length: usize,
    digest: &[u8],
    entropy: &mut impl CryptoRng,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let block = pss_encode(key.size(), mgf, salt_length, digest, entropy)
        .ok_or(CryptoError::DigestTooLong(algorithm))?;
    private_operation(key, &block, entropy).ok_or(CryptoError::SelfCheck(algorithm))
}

/// Decrypts; the only error is [`CryptoError::Decryption`].
pub(super) fn decrypt(
    algorithm: AsymmetricAlgorithm,
    key: &PrivateKey,
    padding: Padding<'_>,
    ciphertext: &[u8],
    entropy: &mut impl CryptoRng,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let mut block = private_operation(key, ciphertext, entropy);
    block
        .as_mut()
        .and_then(|block| match padding {
            Padding::Pkcs1 => pkcs1_decode(block),
            Padding::Oaep(oaep) => oaep_decode(block, &oaep),
        })
        .map(|plaintext| Zeroizing::new(plaintext.to_vec()))
        .ok_or(CryptoError::Decryption(algorithm))
}

/// The public key with this modulus.
pub(super) fn public_key(modulus: &[u8]) -> Option<PublicKey> {
    let bits = u32::try_from(8 * modulus.len()).ok()?;
    PublicKey::new(BoxedUint::from_be_slice(modulus, bits).ok()?, 65_537_u32.into()).ok()
}

/// The private operation, blinded and checked, on a block below the modulus; as long as the modulus.
fn private_operation(
    key: &PrivateKey,
    block: &[u8],
    entropy: &mut impl CryptoRng,
) -> Option<Zeroizing<Vec<u8>>> {
    let block = BoxedUint::from_be_slice(block, key.n_bits_precision()).ok()?;
    let done = Zeroizing::new(rsa_decrypt_and_check(key, Some(entropy), &block).ok()?);
    // Moduli fill their limbs: these bytes are as many, leading zeros among them.
    Some(Zeroizing::new(done.to_be_bytes().into_vec()))
}

/// Exclusive-ors MGF1 of `seed` (RFC 8017, appendix B.2.1) into `data`.
fn mgf1_xor(hash: Hash, seed: &[u8], data: &mut [u8]) {
    let mut mask = Zeroizing::new([0; 64]);
    for (counter, chunk) in (0_u32..).zip(data.chunks_mut(hash.length())) {
        let mask = hash.digest_parts(&[seed, &counter.to_be_bytes()], &mut mask);
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// RFC 8017, section 9.1.1; `None` when the salt does not fit, or no hash has digests as long.
fn pss_encode(
    length: usize,
    mgf: Hash,
    salt_length: usize,
    digest: &[u8],
    entropy: &mut impl CryptoRng,
) -> Option<Vec<u8>> {
    let hash = Hash::of_length(digest.len())?;
    let mut block = vec![0; length];
    let (end, rest) = block.split_last_mut()?;
    let (data, salted_hash) = rest.split_at_mut_checked(rest.len().checked_sub(hash.length())?)?;
    let (zeros, salt) = data.split_at_mut_checked(data.len().checked_sub(salt_length)?)?;
    *zeros.last_mut()? = 1;
    entropy.fill_bytes(salt);
    salted_hash.copy_from_slice(hash.digest_parts(&[&[0; 8], digest, salt], &mut [0; 64]));
    mgf1_xor(mgf, salted_hash, data);
    // The block has one bit less than moduli, which fill their bytes.
    *data.first_mut()? &= 0x7f;
    *end = 0xbc;
    Some(block)
}

/// RFC 8017, section 7.1.1, step 2; `None` when the message does not fit.
fn oaep_encode(
    length: usize,
    padding: &Oaep<'_>,
    message: &[u8],
    entropy: &mut impl CryptoRng,
) -> Option<Zeroizing<Vec<u8>>> {
    let mut block = Zeroizing::new(vec![0; length]);
    let (seed, data) = block.get_mut(1..)?.split_at_mut_checked(padding.hash.length())?;
    let (label_hash, rest) = data.split_at_mut_checked(padding.hash.length())?;
    label_hash.copy_from_slice(padding.label_hash);
    let (zeros, end) = rest.split_at_mut_checked(rest.len().checked_sub(message.len())?)?;
    *zeros.last_mut()? = 1;
    end.copy_from_slice(message);
    entropy.fill_bytes(seed);
    mgf1_xor(padding.mgf, seed, data);
    mgf1_xor(padding.mgf, data, seed);
    Some(block)
}

/// RFC 8017, section 7.1.2, step 3.
fn oaep_decode<'b>(block: &'b mut [u8], padding: &Oaep<'_>) -> Option<&'b [u8]> {
    let (first, rest) = block.split_first_mut()?;
    let (seed, data) = rest.split_at_mut_checked(padding.hash.length())?;
    mgf1_xor(padding.mgf, data, seed);
    mgf1_xor(padding.mgf, seed, data);
    let (label_hash, message) = data.split_at_checked(padding.hash.length())?;
    // The first byte that is not 0 is a 1, and the message follows it.
    let (found, separator) = position(message, |byte| byte.ct_eq(&1));
    let (_, nonzero) = position(message, |byte| !byte.ct_eq(&0));
    let valid = first.ct_eq(&0) & label_hash.ct_eq(padding.label_hash) & found & separator.ct_eq(&nonzero);
    if bool::from(valid) { message.get(usize::from(separator) + 1..) } else { None }
}

/// RFC 8017, section 7.2.2, step 3.
fn pkcs1_decode(block: &[u8]) -> Option<&[u8]> {
    let ([first, second], rest) = block.split_first_chunk()?;
    let (found, separator) = position(rest, |byte| byte.ct_eq(&0));
    let valid = first.ct_eq(&0) & second.ct_eq(&2) & found & !separator.ct_lt(&8);
    if bool::from(valid) { rest.get(usize::from(separator) + 1..) } else { None }
}

/// Whether and where there is a `wanted` byte, in time that depends only on the number of bytes.
fn position(bytes: &[u8], wanted: impl Fn(&u8) -> Choice) -> (Choice, u16) {
    let (mut found, mut position) = (Choice::from(0), 0);
    for (index, byte) in (0..).zip(bytes) {
        let first = wanted(byte) & !found;
        position.conditional_assign(&index, first);
        found |= first;
    }
    (found, position)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::super::key::{self, rsa_from_factors};
    use super::*;

    const RSA: AsymmetricAlgorithm = AsymmetricAlgorithm::Rsa2048;
    const HASHES: [Hash; 4] = [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512];

    fn rsa_2048(entropy: &mut ChaCha8Rng) -> PrivateKey {
        rsa_from_factors(RSA, &key::generate(RSA, entropy).unwrap()[..256]).unwrap()
    }

    /// The public operation on a raw block.
    fn encrypt(key: &PrivateKey, block: &[u8]) -> Vec<u8> {
        let block = BoxedUint::from_be_slice(block, key.n_bits_precision()).unwrap();
        rsa_encrypt(key, &block).unwrap().to_be_bytes().into_vec()
    }

    #[test]
    fn oaep_is_the_rsa_crates_in_both_directions_for_every_pair_of_hashes() {
        use ::rsa::Oaep as Theirs;
        use sha1::Sha1;
        use sha2::{Sha256, Sha384, Sha512};
        let entropy = &mut ChaCha8Rng::seed_from_u64(1);
        let key = rsa_2048(entropy);
        let modulus = key.n().to_be_bytes();
        macro_rules! pair {
            ($hash:ty, $ours:expr, $mgf:ty, $mgf_ours:expr) => {
                for (label, plaintext) in [("", &b""[..]), ("a label", b"\0\0leading zeros"), ("", &[1; 126])]
                {
                    let mut digest = [0; 64];
                    let label_hash = $ours.digest(label.as_bytes(), &mut digest);
                    let padding = Oaep::new($mgf_ours, label_hash).unwrap();
                    let theirs = || Theirs::<$hash, $mgf>::new_with_mgf_hash_and_label(label.as_bytes());
                    let ciphertext = key.as_public_key().encrypt(entropy, theirs(), plaintext).unwrap();
                    let decrypted = decrypt(RSA, &key, Padding::Oaep(padding), &ciphertext, entropy);
                    assert_eq!(*decrypted.unwrap(), plaintext);
                    let ciphertext = oaep_encrypt(RSA, &modulus, &padding, plaintext, entropy).unwrap();
                    assert_eq!(key.decrypt(theirs(), &ciphertext).unwrap(), plaintext);
                }
            };
            ($hash:ty, $ours:expr) => {
                pair!($hash, $ours, Sha1, Hash::Sha1);
                pair!($hash, $ours, Sha256, Hash::Sha256);
                pair!($hash, $ours, Sha384, Hash::Sha384);
                pair!($hash, $ours, Sha512, Hash::Sha512);
            };
        }
        pair!(Sha1, Hash::Sha1);
        pair!(Sha256, Hash::Sha256);
        pair!(Sha384, Hash::Sha384);
        pair!(Sha512, Hash::Sha512);
    }

    /// OpenSSL 3.0's signatures of "message" without salt, for each hash with each mask hash; their SHA-256.
    #[test]
    fn pss_signatures_without_salt_are_openssls_for_every_pair_of_hashes() {
        use sha2::Digest;
        let factors = hex!(
            "c093ff24d973deaa4c09d46bbdc5062d582d9180603ca403b651eda29307d03f4b0ae034b4cdd4590a97"
            "3c64bb1127f5b406a8de56037a9c07c0facd37e4836bfdfc19228d7d6c708c511e122d9cdfbf7e679689"
            "b780fc83e3315450c3beaf1ac3f11ef91b15ddc794d1be2a44e491c3dfd04da9034f02f5a698f1206889"
            "448fb5d2e0d44ebcb81b206bd23c7ef22c0beed8f19e77cf064ec9c91f4ef2d1ab5c54d781b1da6f735f"
            "ccdbeaf7323fc464189116a6a30accd562e67ecc25c34a3419598ba326c6737b40898235773b28d89b28"
            "2b02f8d61369ecae9ff8fcbbac1ac64b05c429fb0cde3393f8d36096bd3a21069e016fc20d85ee20e2b9"
            "a8973115"
        );
        let key = rsa_from_factors(RSA, &factors).unwrap();
        let mut signatures = sha2::Sha256::new();
        for (hash, mgf) in HASHES.into_iter().flat_map(|hash| HASHES.map(|mgf| (hash, mgf))) {
            let mut digest = [0; 64];
            let digest = hash.digest(b"message", &mut digest);
            let entropy = &mut ChaCha8Rng::seed_from_u64(7);
            signatures.update(pss_sign(RSA, &key, mgf, 0, digest, entropy).unwrap());
        }
        let expected = hex!("a66c14c5cc3dd1c98c0fd69b88578a9126f54fd6abca21023e831bc94365430e");
        assert_eq!(signatures.finalize()[..], expected);
    }

    /// The crate's verification knows one hash for both only.
    #[test]
    fn pss_signatures_verify_with_every_pair_of_hashes_and_any_salt_that_fits() {
        use ::rsa::Pss;
        use sha1::Sha1;
        use sha2::{Sha256, Sha384, Sha512};
        let entropy = &mut ChaCha8Rng::seed_from_u64(6);
        let key = rsa_2048(entropy);
        for (hash, mgf) in HASHES.into_iter().flat_map(|hash| HASHES.map(|mgf| (hash, mgf))) {
            let mut digest = [0; 64];
            let digest = hash.digest(b"message", &mut digest);
            let longest = 256 - hash.length() - 2;
            for salt_length in [0, 20, longest] {
                let signature = pss_sign(RSA, &key, mgf, salt_length, digest, entropy).unwrap();
                let verify = match hash {
                    Hash::Sha1 => key
                        .as_public_key()
                        .verify(Pss::<Sha1>::new_with_salt(salt_length), digest, &signature)
                        .is_ok(),
                    Hash::Sha256 => key
                        .as_public_key()
                        .verify(Pss::<Sha256>::new_with_salt(salt_length), digest, &signature)
                        .is_ok(),
                    Hash::Sha384 => key
                        .as_public_key()
                        .verify(Pss::<Sha384>::new_with_salt(salt_length), digest, &signature)
                        .is_ok(),
                    Hash::Sha512 => key
                        .as_public_key()
                        .verify(Pss::<Sha512>::new_with_salt(salt_length), digest, &signature)
                        .is_ok(),
                };
                assert_eq!(verify, hash == mgf, "{hash:?} {mgf:?} {salt_length}");
            }
            let refused = pss_sign(RSA, &key, mgf, longest + 1, digest, entropy);
            assert_eq!(refused, Err(CryptoError::DigestTooLong(RSA)));
            let refused = pss_sign(RSA, &key, mgf, usize::MAX, digest, entropy);
            assert_eq!(refused, Err(CryptoError::DigestTooLong(RSA)));
        }
    }

    #[test]
    fn oaep_takes_messages_up_to_two_hashes_and_two_bytes_below_the_modulus() {
        let entropy = &mut ChaCha8Rng::seed_from_u64(2);
        let key = rsa_2048(entropy);
        let modulus = key.n().to_be_bytes();
        for hash in HASHES {
            let mut digest = [0; 64];
            let padding = Oaep::new(hash, hash.digest(b"", &mut digest)).unwrap();
            let longest = vec![0; 256 - 2 * hash.length() - 2];
            let ciphertext = oaep_encrypt(RSA, &modulus, &padding, &longest, entropy).unwrap();
            let decrypted = decrypt(RSA, &key, Padding::Oaep(padding), &ciphertext, entropy).unwrap();
            assert_eq!(*decrypted, longest);
            let longer = [&longest[..], &[0]].concat();
            let refused = oaep_encrypt(RSA, &modulus, &padding, &longer, entropy);
            assert_eq!(refused, Err(CryptoError::MessageTooLong(RSA)));
        }
        assert!(Oaep::new(Hash::Sha1, &[0; 28]).is_none());
    }

    #[test]
    fn oaep_encryption_refuses_what_is_no_modulus() {
        let padding = Oaep::new(Hash::Sha256, &[0; 32]).unwrap();
        let entropy = &mut ChaCha8Rng::seed_from_u64(3);
        for modulus in [&[0; 256][..], &[0xfe; 256], &[0xff; 255], &[0xff; 384], &[]] {
            let refused = oaep_encrypt(RSA, modulus, &padding, b"", entropy);
            assert_eq!(refused, Err(CryptoError::InvalidKey(RSA)));
        }
    }

    /// RFC 8017, section 7.1.2, step 3g, and a block that begins with a byte other than 0.
    #[test]
    fn every_defect_of_an_oaep_block_is_one_error() {
        let entropy = &mut ChaCha8Rng::seed_from_u64(4);
        let key = rsa_2048(entropy);
        let mut digest = [0; 64];
        let label_hash = Hash::Sha256.digest(b"", &mut digest);
        let padding = Oaep::new(Hash::Sha1, label_hash).unwrap();
        let encode = |first: u8, data: &[u8]| {
            let mut block = vec![first; 256];
            let (seed, masked) = block[1..].split_at_mut(32);
            masked.copy_from_slice(data);
            mgf1_xor(Hash::Sha1, seed, masked);
            mgf1_xor(Hash::Sha1, masked, seed);
            encrypt(&key, &block)
        };
        let mut data = [label_hash, &[0; 179], &[1], b"plain bytes"].concat();
        let mut opened = |ciphertext: &[u8]| decrypt(RSA, &key, Padding::Oaep(padding), ciphertext, entropy);
        assert_eq!(opened(&encode(0, &data)).unwrap().as_slice(), b"plain bytes");
        let refused = Err(CryptoError::Decryption(RSA));
        assert_eq!(opened(&encode(1, &data)), refused, "first byte");
        assert_eq!(opened(&key.n().to_be_bytes()), refused, "not below the modulus");
        for at in [0, 31] {
            data[at] ^= 1;
            assert_eq!(opened(&encode(0, &data)), refused, "label");
            data[at] ^= 1;
        }
        for at in [32, 210] {
            data[at] = 2;
            assert_eq!(opened(&encode(0, &data)), refused, "neither 0 nor 1 before the message");
            data[at] = 0;
        }
        data[211..].fill(0);
        assert_eq!(opened(&encode(0, &data)), refused, "no 1");
        *data.last_mut().unwrap() = 1;
        assert_eq!(opened(&encode(0, &data)).unwrap().as_slice(), b"", "empty message");
    }

    /// RFC 8017, section 7.2.2, step 3: the four that clients test, and two more.
    #[test]
    fn every_defect_of_a_pkcs1_block_is_one_error() {
        let entropy = &mut ChaCha8Rng::seed_from_u64(5);
        let key = rsa_2048(entropy);
        let mut opened = |block: &[u8]| decrypt(RSA, &key, Padding::Pkcs1, &encrypt(&key, block), entropy);
        let block = |start: &[u8], padding: usize, rest: &[u8]| {
            let mut block = [start, &vec![0xaa; padding], rest].concat();
            block.resize(256, 7);
            block
        };
        let message = |length| Ok(Zeroizing::new(vec![7; length]));
        assert_eq!(opened(&block(&[0, 2], 8, &[0])), message(245));
        assert_eq!(opened(&block(&[0, 2], 252, &[0])), message(1));
        assert_eq!(opened(&block(&[0, 2], 253, &[0])), message(0));
        let mut zeros = block(&[0, 2], 8, &[0]);
        zeros[11] = 0;
        assert_eq!(opened(&zeros).unwrap()[..2], [0, 7], "a message may begin with a zero byte");
        let refused = Err(CryptoError::Decryption(RSA));
        assert_eq!(opened(&block(&[0, 2], 7, &[0])), refused, "seven bytes of padding");
        assert_eq!(opened(&block(&[0, 2], 0, &[0])), refused, "no padding");
        assert_eq!(opened(&block(&[0, 2], 254, &[])), refused, "no separator");
        assert_eq!(opened(&block(&[1, 2], 8, &[0])), refused, "first byte");
        assert_eq!(opened(&block(&[0, 1], 8, &[0])), refused, "second byte");
        assert_eq!(opened(&[0; 256]), refused);
    }
}
