//! Code that leaks its secret, which memcheck must report in every run: a check that cannot fail proves
//! nothing.

use std::hint::black_box;

use crate::secret::hidden;

/// Stops at the first byte that differs.
#[inline(never)]
pub fn early_exit() {
    let (secret, guess) = (hidden([7; 16]), black_box([7; 16]));
    // The bytes are opaque, or the compiler would compare all at once, which takes constant time.
    black_box(secret.iter().zip(&guess).all(|(secret, guess)| black_box(*secret) == *guess));
}

/// Reads a table at an index given by a secret byte.
#[inline(never)]
pub fn table_lookup() {
    let table: [u8; 256] = black_box(std::array::from_fn(|at| at as u8 ^ 0x5a));
    let [secret] = hidden([7]);
    black_box(table[usize::from(black_box(secret))]);
}
