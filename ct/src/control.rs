//! Code that gives its secret away, which memcheck must report in every run: a check that cannot fail proves nothing.

use std::hint::black_box;

use crate::secret::hidden;

/// Stops at the first byte that differs.
#[inline(never)]
pub fn early_exit() {
    let (secret, guess) = (hidden([7; 16]), black_box([7; 16]));
    // Opaque bytes, or the compiler compares all at once, which takes the same time for all.
    black_box(secret.iter().zip(&guess).all(|(secret, guess)| black_box(*secret) == *guess));
}

/// Reads a table where a secret byte says.
#[inline(never)]
pub fn table_lookup() {
    let table: [u8; 256] = black_box(std::array::from_fn(|at| at as u8 ^ 0x5a));
    let [secret] = hidden([7]);
    black_box(table[usize::from(black_box(secret))]);
}
