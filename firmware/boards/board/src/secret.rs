//! A board's secret in a separate flash sector, for boards whose chip has none: generated once, before
//! anything is stored.
//!
//! It makes a copy of the store alone useless, and is lost in a mass erasure. It does not stop an attacker
//! who can read the whole flash.

use embedded_storage::nor_flash::{NorFlash, NorFlashError as _, NorFlashErrorKind};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// A board's secret.
pub type Secret = Zeroizing<[u8; SECRET]>;

const SECRET: usize = 32;
/// The secret and its digest: a sector that was being written when the power failed is not mistaken for one.
const RECORD: usize = SECRET + 32;

/// Why there is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There was one: data stored under it follows. It is not modified.
    #[error("the sector with the root secret is damaged")]
    Damaged,
    /// The flash reported an error, or lost what was written.
    #[error("the flash failed ({0:?})")]
    Flash(NorFlashErrorKind),
}

/// Reads the secret in the sector at `sector`; generates one if the sector after it, where the store begins,
/// is blank.
///
/// # Errors
/// [`SecretError`]; then nothing was changed, or an unfinished change is repeated at the next start.
pub fn load_or_make<F: NorFlash>(
    flash: &mut F,
    sector: u32,
    entropy: &mut impl CryptoRng,
) -> Result<Secret, SecretError> {
    let failed = |error: F::Error| SecretError::Flash(error.kind());
    let mut record = Zeroizing::new([0; RECORD]);
    flash.read(sector, record.as_mut()).map_err(failed)?;
    if let Some(secret) = secret(&record) {
        return Ok(secret);
    }
    let store = sector + u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
    let mut first = [0; 64];
    for at in (store..).step_by(first.len()).take(F::ERASE_SIZE / first.len()) {
        flash.read(at, &mut first).map_err(failed)?;
        if first != [0xff; 64] {
            return Err(SecretError::Damaged);
        }
    }
    let (secret_bytes, digest) = record.split_at_mut(SECRET);
    entropy.fill_bytes(secret_bytes);
    digest.copy_from_slice(&Sha256::digest(&*secret_bytes));
    flash.erase(sector, store).map_err(failed)?;
    flash.write(sector, record.as_ref()).map_err(failed)?;
    record.zeroize();
    flash.read(sector, record.as_mut()).map_err(failed)?;
    secret(&record).ok_or(SecretError::Flash(NorFlashErrorKind::Other))
}

fn secret(record: &[u8; RECORD]) -> Option<Secret> {
    let (secret, digest) = record.split_first_chunk::<SECRET>()?;
    (Sha256::digest(secret).as_slice() == digest).then(|| Zeroizing::new(*secret))
}

/// The root key of a device: its secrets, wherever the board has them, bound to this purpose.
#[must_use]
pub fn root_key(secrets: &[&[u8]]) -> Secret {
    let mut hash = Sha256::new_with_prefix(b"sshsm root key");
    for secret in secrets {
        hash.update(secret.len().to_be_bytes());
        hash.update(secret);
    }
    let mut digest = hash.finalize();
    let key = Zeroizing::new(digest.into());
    digest.as_mut_slice().zeroize();
    key
}

/// The serial number of a device whose chip has this identity: eight digits.
#[must_use]
pub fn serial_number(chip: &[u8]) -> u32 {
    let digest = Sha256::new_with_prefix(b"sshsm serial number").chain_update(chip).finalize();
    let number = digest.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    10_000_000 + number % 90_000_000
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::region::tests::Model;

    const SECTOR: u32 = 4096;

    fn random(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    #[test]
    fn a_secret_is_made_once_and_is_the_same_ever_after() {
        let mut flash = Model::new(4);
        let made = load_or_make(&mut flash, SECTOR, &mut random(1)).unwrap();
        assert_ne!(*made, [0; 32]);
        flash.bytes[2 * SECTOR as usize] = 0; // the store has begun
        assert_eq!(load_or_make(&mut flash, SECTOR, &mut random(2)), Ok(made));
    }

    #[test]
    fn one_that_was_being_made_is_made_anew_while_nothing_is_stored() {
        for written in 0..RECORD {
            let mut flash = Model::new(4);
            flash.bytes[SECTOR as usize..][..written].fill(0x55);
            let made = load_or_make(&mut flash, SECTOR, &mut random(1)).unwrap();
            assert_eq!(load_or_make(&mut flash, SECTOR, &mut random(2)), Ok(made));
        }
    }

    #[test]
    fn a_damaged_one_that_something_is_stored_under_is_left_as_it_is() {
        let mut flash = Model::new(4);
        load_or_make(&mut flash, SECTOR, &mut random(1)).unwrap();
        flash.bytes[SECTOR as usize + 5] ^= 1;
        flash.bytes[3 * SECTOR as usize - 1] = 0;
        let before = flash.bytes.clone();
        assert_eq!(load_or_make(&mut flash, SECTOR, &mut random(2)), Err(SecretError::Damaged));
        assert_eq!(flash.bytes, before);
    }

    #[test]
    fn every_secret_counts_in_the_root_key_and_so_does_where_one_ends() {
        let keys = [root_key(&[b"ab", b"c"]), root_key(&[b"a", b"bc"]), root_key(&[b"abc"]), root_key(&[])];
        for (i, key) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|other| other != key));
        }
    }

    #[test]
    fn serial_numbers_have_eight_digits() {
        for chip in 0..1000_u64 {
            assert_eq!(serial_number(&chip.to_be_bytes()).to_string().len(), 8);
        }
    }
}
