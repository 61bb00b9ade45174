//! Passphrases of authentication keys: generating one, and recognising weak ones.
//!
//! A device answers anyone's request for a session with a proof that it knows the key, and that is enough to
//! try passphrases against it on other computers, without asking the device again (a dictionary attack). Each
//! try costs 10,000 rounds of PBKDF2, which is little. A passphrase must therefore not be guessable.

use zeroize::Zeroizing;

use crate::authority::FACTORY_PASSWORD;

/// The fewest characters of a passphrase.
pub const SHORTEST: usize = 12;

/// The entropy of a generated passphrase, in bits: 25 characters of an alphabet of 32.
pub const GENERATED_BITS: usize = 5 * CHARACTERS;

const CHARACTERS: usize = 25;
/// Crockford's: no character that could be confused with another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why a passphrase is too weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// Too few characters.
    #[error(
        "the new password has {characters} characters, and {SHORTEST} is the least: one answer of the device is enough \
         to try short ones out elsewhere"
    )]
    Short {
        /// How many it has.
        characters: usize,
    },
    /// The factory's, or that with digits and signs added.
    #[error("the new password is the factory's, {FACTORY_PASSWORD:?}, which is tried first")]
    Factory,
}

/// Whether a passphrase is long enough and not the factory's, whatever characters it contains.
///
/// # Errors
/// [`Weakness`].
pub fn check(passphrase: &str) -> Result<(), Weakness> {
    let letters = passphrase.chars().filter(|character| character.is_alphabetic());
    if letters.flat_map(char::to_lowercase).eq(FACTORY_PASSWORD.chars()) {
        return Err(Weakness::Factory);
    }
    match passphrase.chars().count() {
        characters if characters < SHORTEST => Err(Weakness::Short { characters }),
        _ => Ok(()),
    }
}

/// A random passphrase of [`GENERATED_BITS`] bits, in groups of five characters.
///
/// # Errors
/// When the operating system supplies no random numbers.
pub fn generate() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut random = Zeroizing::new([0_u8; CHARACTERS]);
    getrandom::fill(random.as_mut())?;
    let mut passphrase = Zeroizing::new(String::with_capacity(2 * CHARACTERS));
    for (place, byte) in random.iter().enumerate() {
        if place > 0 && place % 5 == 0 {
            passphrase.push('-');
        }
        // 256 is a multiple of 32: every character is as likely.
        passphrase.extend(ALPHABET.get(usize::from(byte % 32)).map(|&character| char::from(character)));
    }
    Ok(passphrase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_generated_passphrase_has_125_random_bits_and_is_strong() {
        assert_eq!(GENERATED_BITS, 125);
        let made: BTreeSet<String> = (0..200).map(|_| generate().unwrap().to_string()).collect();
        assert_eq!(made.len(), 200);
        let mut seen = BTreeSet::new();
        for passphrase in &made {
            let groups: Vec<&str> = passphrase.split('-').collect();
            assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [5; 5], "{passphrase}");
            seen.extend(groups.concat().into_bytes());
            assert_eq!(check(passphrase), Ok(()));
        }
        assert_eq!(seen, ALPHABET.iter().copied().collect(), "every character occurs");
    }

    #[test]
    fn short_ones_and_the_factorys_are_weak() {
        assert_eq!(check("zone2026!"), Err(Weakness::Short { characters: 9 }));
        assert_eq!(check("ääääääääääää"), Ok(()), "characters count, not bytes");
        assert_eq!(check("elevenchars"), Err(Weakness::Short { characters: 11 }));
        assert_eq!(check("twelve chars"), Ok(()));
        assert_eq!(check("correct horse battery"), Ok(()));
        for factory in ["password", "PassWord", "password1234567", "pass-word 2026!"] {
            assert_eq!(check(factory), Err(Weakness::Factory), "{factory}");
        }
        assert_eq!(check("administrator's password"), Ok(()));
    }
}
