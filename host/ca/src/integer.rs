//! Whole numbers as key and signature formats write them, big-endian.
//!
//! Some formats have a fixed length padded with leading zeros, some have no leading zeros, some add one so
//! that the number is not negative, and some writers deviate from their format. OpenSSH reads them all, and
//! so does this: only the number's value matters.

use ssh_encoding::Error;
use zeroize::Zeroizing;

/// The number without leading zeros; empty for zero.
pub(crate) const fn minimal(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

/// The number in exactly `length` bytes, or `None` when it needs more.
pub(crate) fn fixed(number: &[u8], length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let number = minimal(number);
    let zeros = length.checked_sub(number.len())?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.resize(zeros, 0);
    bytes.extend_from_slice(number);
    Some(bytes)
}

/// Reads an SSH `string`.
///
/// # Errors
/// When there are fewer bytes than it states.
pub(crate) fn string<'a>(reader: &mut &'a [u8]) -> Result<&'a [u8], Error> {
    let (length, rest) = reader.split_first_chunk().ok_or(Error::Length)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Error::Overflow)?;
    let (string, rest) = rest.split_at_checked(length).ok_or(Error::Length)?;
    *reader = rest;
    Ok(string)
}

/// Reads an SSH `mpint` that is not negative, in its shortest form or with additional leading zeros (RFC
/// 4251, section 5, and OpenSSH's `sshbuf_get_bignum2_bytes_direct`); the result has no leading zeros.
///
/// # Errors
/// When it is negative, or there are fewer bytes than it states.
pub(crate) fn mpint<'a>(reader: &mut &'a [u8]) -> Result<&'a [u8], Error> {
    match string(reader)? {
        [0x80..=0xff, ..] => Err(Error::MpintEncoding),
        number => Ok(minimal(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn leading_zeros_do_not_change_a_number(zeros in 0_usize..80, number in prop::collection::vec(any::<u8>(), 0..70)) {
            let padded = [vec![0; zeros], number.clone()].concat();
            prop_assert_eq!(minimal(&padded), minimal(&number));
            prop_assert_eq!(fixed(&padded, 70), fixed(&number, 70));
            let fixed = fixed(&padded, 70).unwrap();
            prop_assert_eq!((fixed.len(), minimal(&fixed)), (70, minimal(&number)));
            // A leading zero keeps the number positive.
            let length = u32::try_from(1 + padded.len()).unwrap().to_be_bytes();
            let field = [length.as_slice(), &[0], &padded, b"rest"].concat();
            let mut reader = field.as_slice();
            prop_assert_eq!(mpint(&mut reader).unwrap(), minimal(&number));
            prop_assert_eq!(reader, b"rest");
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused_and_so_is_a_negative_one() {
        assert_eq!(fixed(&[0, 1, 2, 3], 2), None);
        assert_eq!(fixed(&[0, 0, 2, 3], 2).unwrap().as_slice(), [2, 3]);
        assert_eq!(mpint(&mut [0, 0, 0, 1, 0x80].as_slice()), Err(Error::MpintEncoding));
        assert_eq!(mpint(&mut [0, 0, 0, 2, 0x80].as_slice()), Err(Error::Length));
        assert_eq!(mpint(&mut [0, 0, 0].as_slice()), Err(Error::Length));
    }
}
