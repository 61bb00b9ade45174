//! PKCS#11 URIs (RFC 7512): `pkcs11:token=ca;object=key?module-path=/usr/lib/softhsm/libsofthsm2.so`.
//!
//! The part before the question mark identifies the token and the key, and every attribute there narrows the
//! selection: an unknown one is an error, since ignoring it would select more than was written. The part
//! after it says how to access them. `pin-value` is refused: a PIN in a URI is a PIN in an argument.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The scheme, with its colon.
pub const SCHEME: &str = "pkcs11:";

/// An attribute of a URI, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// The manufacturer of the module.
    LibraryManufacturer,
    /// The description of the module.
    LibraryDescription,
    /// The module's version, `major.minor` or `major`.
    LibraryVersion,
    /// The manufacturer of the slot.
    SlotManufacturer,
    /// The description of the slot.
    SlotDescription,
    /// The slot's number, decimal.
    SlotId,
    /// The manufacturer of the token.
    Manufacturer,
    /// The token's model.
    Model,
    /// The token's serial number.
    Serial,
    /// The token's label.
    Token,
    /// The key's id, any bytes.
    Id,
    /// The key's label.
    Object,
    /// The kind of object: `private` or `public`, which mean the same pair here.
    Type,
    /// The module's file.
    ModulePath,
    /// The module's name, without `lib` and `.so`.
    ModuleName,
    /// The file that holds the PIN.
    PinSource,
}

impl Attribute {
    const ALL: [Self; 16] = [
        Self::LibraryManufacturer,
        Self::LibraryDescription,
        Self::LibraryVersion,
        Self::SlotManufacturer,
        Self::SlotDescription,
        Self::SlotId,
        Self::Manufacturer,
        Self::Model,
        Self::Serial,
        Self::Token,
        Self::Id,
        Self::Object,
        Self::Type,
        Self::ModulePath,
        Self::ModuleName,
        Self::PinSource,
    ];

    /// Its name in a URI.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LibraryManufacturer => "library-manufacturer",
            Self::LibraryDescription => "library-description",
            Self::LibraryVersion => "library-version",
            Self::SlotManufacturer => "slot-manufacturer",
            Self::SlotDescription => "slot-description",
            Self::SlotId => "slot-id",
            Self::Manufacturer => "manufacturer",
            Self::Model => "model",
            Self::Serial => "serial",
            Self::Token => "token",
            Self::Id => "id",
            Self::Object => "object",
            Self::Type => "type",
            Self::ModulePath => "module-path",
            Self::ModuleName => "module-name",
            Self::PinSource => "pin-source",
        }
    }

    /// The attribute with this name, exactly as written.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attribute| attribute.name() == name)
    }

    const fn in_query(self) -> bool {
        matches!(self, Self::ModulePath | Self::ModuleName | Self::PinSource)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a PKCS#11 URI is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It does not begin with `pkcs11:`.
    #[error("a PKCS#11 URI begins with pkcs11:")]
    Scheme,
    /// A part without `=`, as a doubled or final separator makes one.
    #[error("a part between its separators is not of the form attribute=value")]
    NoValue,
    /// An unknown attribute, or one on the wrong side of the question mark.
    #[error(
        "unknown attribute {name:?} {side} the question mark; known there are {known}",
        side = if *.query { "behind" } else { "before" }
    )]
    Unknown {
        /// The name found.
        name: String,
        /// Whether it is after the question mark.
        query: bool,
        /// The names that are known on this side.
        known: String,
    },
    /// An attribute twice.
    #[error("{0} occurs twice")]
    Twice(Attribute),
    /// An attribute without anything in it.
    #[error("{0} is empty")]
    Empty(Attribute),
    /// `%` without two hexadecimal digits after it.
    #[error("a % in {0} is not followed by two hexadecimal digits")]
    Percent(Attribute),
    /// A character that has to be percent-encoded.
    #[error("{character:?} in {attribute} has to be written as {encoded}")]
    Character {
        /// The attribute that contains it.
        attribute: Attribute,
        /// The character.
        character: char,
        /// How it is written.
        encoded: String,
    },
    /// Bytes that are not UTF-8 in an attribute that is text.
    #[error("{0} is not UTF-8")]
    NotUtf8(Attribute),
    /// A slot id that is not a number.
    #[error("slot-id is a decimal number")]
    SlotId,
    /// An object that is not a key pair.
    #[error("type is private or public, since a key is meant; not {0:?}")]
    Type(String),
    /// `pin-value`.
    #[error(
        "pin-value is not taken: a PIN in an argument is seen by every process; name a file with pin-source, set \
         SSHSM_PIN, or wait to be asked"
    )]
    PinValue,
    /// A program as `pin-source`.
    #[error("pin-source is a file here, not a command or a URL: /PATH, file:/PATH or file:///PATH")]
    PinSource,
}

/// A PKCS#11 URI, every part of it valid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uri(BTreeMap<Attribute, Vec<u8>>);

impl Uri {
    /// The bytes of an attribute.
    #[must_use]
    pub fn bytes(&self, attribute: Attribute) -> Option<&[u8]> {
        self.0.get(&attribute).map(Vec::as_slice)
    }

    /// The text of an attribute; `None` also for an id that is not text.
    #[must_use]
    pub fn text(&self, attribute: Attribute) -> Option<&str> {
        self.bytes(attribute).and_then(|bytes| str::from_utf8(bytes).ok())
    }

    /// Whether the attribute is absent, or exactly this.
    #[must_use]
    pub fn admits(&self, attribute: Attribute, actual: &str) -> bool {
        self.bytes(attribute).is_none_or(|wanted| wanted == actual.as_bytes())
    }

    /// The file that holds the PIN.
    #[must_use]
    pub fn pin_file(&self) -> Option<PathBuf> {
        self.text(Attribute::PinSource).and_then(pin_file)
    }

    /// The same with another attribute; an empty one is left out.
    #[must_use]
    pub fn with(mut self, attribute: Attribute, value: &[u8]) -> Self {
        if !value.is_empty() {
            self.0.insert(attribute, value.to_vec());
        }
        self
    }

    /// The same, with relative paths begun at `folder`. A module without a slash is one that the system finds.
    #[must_use]
    pub fn beside(self, folder: &Path) -> Self {
        let join = |path: &Path| folder.join(path).to_str().map(|path| path.as_bytes().to_vec());
        let pin = self.pin_file().filter(|file| file.is_relative()).and_then(|file| join(&file));
        let module = self.text(Attribute::ModulePath).filter(|path| path.contains('/'));
        let module = module.and_then(|path| join(Path::new(path))).unwrap_or_default();
        self.with(Attribute::PinSource, &pin.unwrap_or_default()).with(Attribute::ModulePath, &module)
    }

    /// The same, with the token's attributes of `token` in front.
    #[must_use]
    pub fn within(mut self, token: &Self) -> Self {
        self.0.extend(token.0.clone());
        self
    }

    /// The token and the key alone, without how to get at them.
    #[must_use]
    pub fn identity(&self) -> Self {
        let path = |(attribute, _): &(&Attribute, &Vec<u8>)| !attribute.in_query();
        Self(self.0.iter().filter(path).map(|(attribute, value)| (*attribute, value.clone())).collect())
    }
}

/// The path in a `pin-source`.
fn pin_file(source: &str) -> Option<PathBuf> {
    let path = match source.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(rest),
        None if source.contains("://") || source.starts_with('|') => return None,
        None => source,
    };
    let relative_host = path.starts_with("//");
    (!path.is_empty() && !relative_host).then(|| path.into())
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let mut uri = Self::default();
        if !path.is_empty() {
            path.split(';').try_for_each(|part| uri.add(part, false))?;
        }
        query.into_iter().flat_map(|query| query.split('&')).try_for_each(|part| uri.add(part, true))?;
        Ok(uri)
    }
}

impl Uri {
    fn add(&mut self, part: &str, query: bool) -> Result<(), UriError> {
        // Before everything else, so that no other error reveals it.
        if part.starts_with("pin-value") {
            return Err(UriError::PinValue);
        }
        let (name, value) = part.split_once('=').ok_or(UriError::NoValue)?;
        let here = |attribute: &Attribute| attribute.in_query() == query;
        let mut known = Attribute::ALL.into_iter().filter(here);
        let Some(attribute) = known.clone().find(|attribute| attribute.name() == name) else {
            // A vendor's own access attribute does not change the selection.
            if query && name.starts_with("x-") {
                return Ok(());
            }
            let known = known.by_ref().map(Attribute::name).collect::<Vec<_>>().join(", ");
            return Err(UriError::Unknown { name: name.to_owned(), query, known });
        };
        let bytes = decode(attribute, value)?;
        match (attribute, str::from_utf8(&bytes)) {
            (_, Ok("")) => return Err(UriError::Empty(attribute)),
            (Attribute::Id, _) => {}
            (_, Err(_)) => return Err(UriError::NotUtf8(attribute)),
            (Attribute::SlotId, Ok(text)) if text.parse::<u64>().is_err() => return Err(UriError::SlotId),
            (Attribute::Type, Ok(text)) if !matches!(text, "private" | "public") => {
                return Err(UriError::Type(text.to_owned()));
            }
            (Attribute::PinSource, Ok(text)) if pin_file(text).is_none() => return Err(UriError::PinSource),
            _ => {}
        }
        match self.0.insert(attribute, bytes) {
            None => Ok(()),
            Some(_) => Err(UriError::Twice(attribute)),
        }
    }
}

fn decode(attribute: Attribute, value: &str) -> Result<Vec<u8>, UriError> {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some(character) = rest.chars().next() {
        let mut next = character.len_utf8();
        match character {
            '%' => {
                let digits = rest.get(1..3).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                bytes.push(byte.ok_or(UriError::Percent(attribute))?);
                next = 3;
            }
            '#' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '}' | '\0'..=' ' | '\x7f'.. => {
                let encoded = encode(rest.get(..next).unwrap_or_default().as_bytes(), false);
                return Err(UriError::Character { attribute, character, encoded });
            }
            plain => bytes.push(u8::try_from(plain).unwrap_or_default()), // ASCII
        }
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(bytes)
}

/// With `path` a slash is not escaped, as RFC 7512 allows after the question mark.
fn encode(bytes: &[u8], path: bool) -> String {
    bytes.iter().fold(String::new(), |text, &byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            text + &char::from(byte).to_string()
        }
        b':' | b'@' | b'+' | b',' | b'(' | b')' => text + &char::from(byte).to_string(),
        b'/' if path => text + "/",
        byte => text + &format!("%{byte:02X}"),
    })
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for query in [false, true] {
            let mut separator = if query { "?" } else { "" };
            for (attribute, value) in self.0.iter().filter(|(attribute, _)| attribute.in_query() == query) {
                let value = match attribute {
                    // An id is bytes, even if they happen to be letters.
                    Attribute::Id => value.iter().map(|byte| format!("%{byte:02X}")).collect(),
                    _ => encode(value, query),
                };
                write!(f, "{separator}{attribute}={value}")?;
                separator = if query { "&" } else { ";" };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn uris_are_read_and_written_back() {
        for text in [
            "pkcs11:",
            "pkcs11:token=ca;object=key",
            "pkcs11:slot-id=4;token=The%20Software%20Token;id=%01%FF;object=%E2%82%AC;type=private",
            "pkcs11:serial=0a1b?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/ca%20pin",
            "pkcs11:?module-name=softhsm2",
        ] {
            assert_eq!(uri(text).to_string(), text);
        }
        assert_eq!(uri("pkcs11:object=k;token=a%3bb").to_string(), "pkcs11:token=a%3Bb;object=k");
        assert_eq!(uri("pkcs11:id=ab").bytes(Attribute::Id), Some(b"ab".as_slice()));
        assert_eq!(
            uri("pkcs11:token=a?x-vendor=1&module-name=m").to_string(),
            "pkcs11:token=a?module-name=m"
        );
        assert_eq!(uri("pkcs11:token=a?module-name=m").identity().to_string(), "pkcs11:token=a");
    }

    #[test]
    fn each_defect_has_its_own_error() {
        let character = |attribute, character, encoded: &str| UriError::Character {
            attribute,
            character,
            encoded: encoded.into(),
        };
        for (text, error) in [
            ("", UriError::Scheme),
            ("PKCS11:token=a", UriError::Scheme),
            ("pkcs11:token", UriError::NoValue),
            ("pkcs11:token=a;", UriError::NoValue),
            ("pkcs11:token=a?", UriError::NoValue),
            ("pkcs11:token=a;token=a", UriError::Twice(Attribute::Token)),
            ("pkcs11:token=", UriError::Empty(Attribute::Token)),
            ("pkcs11:id=", UriError::Empty(Attribute::Id)),
            ("pkcs11:id=%1", UriError::Percent(Attribute::Id)),
            ("pkcs11:id=%zz", UriError::Percent(Attribute::Id)),
            ("pkcs11:id=%é", UriError::Percent(Attribute::Id)),
            ("pkcs11:token=%ff", UriError::NotUtf8(Attribute::Token)),
            ("pkcs11:token=a b", character(Attribute::Token, ' ', "%20")),
            ("pkcs11:token=€", character(Attribute::Token, '€', "%E2%82%AC")),
            ("pkcs11:slot-id=one", UriError::SlotId),
            ("pkcs11:type=cert", UriError::Type("cert".into())),
            ("pkcs11:token=a?pin-value=1234", UriError::PinValue),
            ("pkcs11:pin-value=1234", UriError::PinValue),
            ("pkcs11:?pin-source=|cat", UriError::PinSource),
            ("pkcs11:?pin-source=https://example.com/pin", UriError::PinSource),
            ("pkcs11:?pin-source=file:", UriError::PinSource),
            ("pkcs11:?pin-source=file://host/pin", UriError::PinSource),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
        for (text, unknown) in [
            ("pkcs11:tokn=a", "tokn"),
            ("pkcs11:x-vendor=a", "x-vendor"),
            ("pkcs11:module-path=/x", "module-path"),
            ("pkcs11:?token=a", "token"),
        ] {
            let Err(UriError::Unknown { name, known, .. }) = text.parse::<Uri>() else { panic!("{text}") };
            assert!(name == unknown && !known.split(", ").any(|known| known == name), "{text}: {known}");
        }
    }

    #[test]
    fn a_pin_is_never_in_an_error() {
        for text in ["pkcs11:?pin-value=hunter2", "pkcs11:pin-value=hunter2", "pkcs11:?pin-value:hunter2"] {
            let error = text.parse::<Uri>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_pin_source_is_a_path_or_a_file_url() {
        for source in ["/etc/pin", "file:/etc/pin", "file:///etc/pin"] {
            assert_eq!(
                uri(&format!("pkcs11:?pin-source={source}")).pin_file().unwrap(),
                Path::new("/etc/pin")
            );
        }
        assert_eq!(uri("pkcs11:?pin-source=pin").pin_file().unwrap(), Path::new("pin"));
        assert_eq!(uri("pkcs11:").pin_file(), None);
    }

    #[test]
    fn relative_paths_begin_at_a_folder() {
        let beside = |text: &str| uri(text).beside(Path::new("/etc/sshsm")).to_string();
        let absolute = "pkcs11:?module-path=/m.so&pin-source=file:/pin";
        assert_eq!(beside(absolute), absolute);
        assert_eq!(
            beside("pkcs11:?module-path=lib/m.so&pin-source=pin"),
            "pkcs11:?module-path=/etc/sshsm/lib/m.so&pin-source=/etc/sshsm/pin"
        );
        assert_eq!(beside("pkcs11:?module-path=m.so"), "pkcs11:?module-path=m.so");
    }

    proptest! {
        #[test]
        fn any_value_comes_back(token in "\\PC{1,20}", id in proptest::collection::vec(any::<u8>(), 1..20)) {
            let made = Uri::default().with(Attribute::Token, token.as_bytes()).with(Attribute::Id, &id);
            prop_assert_eq!(made.to_string().parse(), Ok(made));
        }

        #[test]
        fn no_text_is_taken_for_more_than_it_says(text in "pkcs11:[ -~]{0,60}") {
            if let Ok(uri) = text.parse::<Uri>() {
                prop_assert_eq!(uri.to_string().parse(), Ok(uri));
            }
        }
    }
}
