//! OpenSSH certificates as a signing device sees them.
//!
//! A [`request`] is the certificate without its signature; a [`template`] says which requests may be signed;
//! a [`timestamp`] is the signed clock from which the template's window is measured; the [`signature`]
//! completes a request to a certificate.

pub mod explanation;
pub mod host_pattern;
pub mod network;
pub mod pattern;
pub mod public_key;
pub mod request;
pub mod rules;
pub mod signature;
pub mod template;
pub mod timestamp;

use ssh_encoding::{Decode, Reader as _};

/// The next SSH string of `reader` (RFC 4251, section 5), borrowed.
fn string<'a>(reader: &mut &'a [u8]) -> ssh_encoding::Result<&'a [u8]> {
    reader.read_prefixed(|bytes| Ok(core::mem::take(bytes)))
}

/// The next u32 or u64 of `reader`.
fn integer<T: Decode<Error = ssh_encoding::Error>>(reader: &mut &[u8]) -> ssh_encoding::Result<T> {
    T::decode(reader)
}

/// The entries of a list, each followed by a NUL.
fn nul_terminated(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split_inclusive(|&byte| byte == 0).filter_map(|entry| entry.strip_suffix(&[0]))
}

/// Bytes printed as text. Anything that could make a line misleading is escaped: control characters,
/// characters that change writing direction or have no width, and everything but letters and digits outside
/// ASCII.
pub struct Printable<'a>(pub &'a [u8]);

impl core::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                let plain = character == ' ' || character.is_ascii_graphic() || character.is_alphanumeric();
                if !plain || character == '\\' {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_printed_as_it_is_and_what_could_lie_is_escaped() {
        for (bytes, printed) in [
            ("alice's \"zone\" ~*".as_bytes(), "alice's \"zone\" ~*"),
            ("Zoë 日本".as_bytes(), "Zoë 日本"),
            (b"a\\b", "a\\\\b"),
            (b"\0\t\n\r\x1b[2K\x7f", "\\u{0}\\t\\n\\r\\u{1b}[2K\\u{7f}"),
            ("\u{202e}\u{200b}\u{a0}\u{2028}".as_bytes(), "\\u{202e}\\u{200b}\\u{a0}\\u{2028}"),
            (b"a\xff\xc3b", "a\\xff\\xc3b"),
            (b"", ""),
        ] {
            assert_eq!(std::format!("{}", Printable(bytes)), printed);
        }
    }

    #[test]
    fn entries_end_at_their_nul_and_a_rest_without_one_is_none() {
        let entries = |list| nul_terminated(list).collect::<std::vec::Vec<_>>();
        assert_eq!(entries(b"a\0\0bc\0"), [b"a".as_slice(), b"", b"bc"]);
        assert_eq!(entries(b"a\0bc"), [b"a"]);
        assert!(entries(b"").is_empty() && entries(b"a").is_empty());
    }
}
