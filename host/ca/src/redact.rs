//! Addresses without the secrets that people put into them: `user:password@` in a URL, the part after its
//! question mark, and a PIN in a PKCS#11 URI.
//!
//! Such addresses are refused, and the refusal names them; errors, messages and the ledger therefore show
//! them in this form.

use std::fmt;

use crate::pkcs11::uri;

/// Shows text without the secrets of the addresses in it.
#[derive(Clone, Copy, Debug)]
pub struct Redacted<'a>(pub &'a str);

/// Replaces a secret.
const HIDDEN: char = '…';

/// Where an address in a sentence ends.
fn ends(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '\'' | '`' | '<' | '>')
}

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(ends) {
            let word = piece.trim_end_matches(ends);
            address(word, f)?;
            f.write_str(piece.get(word.len()..).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The same for text that is one address, whatever characters are in it.
#[derive(Clone, Copy, Debug)]
pub struct RedactedAddress<'a>(pub &'a str);

impl fmt::Display for RedactedAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        address(self.0, f)
    }
}

fn address(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = lower.find(uri::SCHEME) {
        let (before, rest) = text.split_at(at + uri::SCHEME.len());
        f.write_str(before)?;
        return rest.split_inclusive([';', '?', '&']).try_for_each(|part| attribute(part, f));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return f.write_str(text) };
    write!(f, "{scheme}://")?;
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => {
            write!(f, "{HIDDEN}@")?;
            rest
        }
        None => rest,
    };
    match rest.split_once(['?', '#']) {
        Some((place, _)) => write!(f, "{place}?{HIDDEN}"),
        None => f.write_str(rest),
    }
}

/// An attribute of a PKCS#11 URI with its separator: the value of an unknown one may be a PIN.
fn attribute(part: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = part.trim_end_matches([';', '?', '&']);
    let separator = part.get(text.len()..).unwrap_or_default();
    match text.split_once('=') {
        Some((name, _)) if uri::Attribute::named(name).is_some() => f.write_str(text)?,
        Some((name, _)) => write!(f, "{name}={HIDDEN}")?,
        None if text.is_empty() || uri::Attribute::named(text).is_some() => f.write_str(text)?,
        None => write!(f, "{HIDDEN}")?,
    }
    f.write_str(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_address_is_shown() {
        for (text, shown) in [
            ("http://user:s3cret@host:1/x", "http://…@host:1/x"),
            ("https://s3cret@[::1]", "https://…@[::1]"),
            ("http://u:s3@cret@h", "http://…@h"),
            ("http://u:s3/cret@h:1", "http://…@h:1"),
            ("https://host/x?token=s3cret", "https://host/x?…"),
            ("https://host/x#s3cret", "https://host/x?…"),
            ("pkcs11:token=a?pin-value=s3cret", "pkcs11:token=a?pin-value=…"),
            ("pkcs11:token=a;pin%2Dvalue=s3cret&module-name=m", "pkcs11:token=a;pin%2Dvalue=…&module-name=m"),
            ("PKCS11:token=a?PIN-VALUE=s3cret", "PKCS11:token=a?PIN-VALUE=…"),
            ("pkcs11:token=a?s3cret", "pkcs11:token=a?…"),
            ("pkcs11:token=a?pin-source=/etc/pin", "pkcs11:token=a?pin-source=/etc/pin"),
        ] {
            assert_eq!(RedactedAddress(text).to_string(), shown);
            let (sentence, expected) =
                (format!("1 | x = \"{text}\"; it is"), format!("1 | x = \"{shown}\"; it is"));
            assert_eq!(Redacted(&sentence).to_string(), expected);
        }
    }

    #[test]
    fn all_other_text_is_shown_as_it_is() {
        for text in [
            "",
            "no device at http://127.0.0.1:12345\n  try: me@example.com",
            "id \"alice@example\" serial 4 valid from 2026-11-21T21:44:55Z",
            "several tokens are pkcs11:token=ca: pkcs11:token=ca;serial=1, pkcs11:token=ca;serial=2",
        ] {
            assert_eq!(Redacted(text).to_string(), text);
        }
    }
}
