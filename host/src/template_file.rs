//! Templates as people write them: TOML, compiled to the TLV that a device keeps, and told back in words.
//!
//! ```toml
//! # 10 h certificates, five minutes of clock skew
//! ca-keys = [0x0005]
//! not-before-offset = "5m"      # or "unbounded"
//! not-after-offset = "10h"      # or "unbounded"
//! forbid-principals = ["root"]
//! timestamp-key = "timestamp.pub"
//! ```
//!
//! Nothing is compiled that a device would read differently from what the text says: unknown names, doubled or
//! impossible values are errors with their line and column. Where a bound is absent, the text has to say
//! `unbounded`, and [`describe`] says so loudly.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::ObjectId;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::object::NewObject;
use sshsm_protocol::ssh::Printable;
use sshsm_protocol::ssh::template::{
    CaKeys, ForbiddenPrincipals, NotAfterOffset, NotBeforeOffset, Template, TemplateError,
};
use sshsm_protocol::ssh::timestamp::TimestampKey;
use toml::Spanned;

use crate::device_key::{self, DeviceKeyError};
use crate::duration::{self, DurationError};
use crate::key_file::{self, KeyFileError, KeyFormatError};

/// The longest template that a PUT TEMPLATE message has room for.
pub const MAX_TEMPLATE_LENGTH: usize = MAX_INNER_PAYLOAD - NewObject::LENGTH;

/// What stands for an absent bound.
const UNBOUNDED: &str = "unbounded";

/// A template's content, every part of it valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    ca_keys: Vec<ObjectId>,
    not_before: NotBeforeOffset,
    not_after: NotAfterOffset,
    forbidden_principals: Vec<String>,
    timestamp_key: PublicKey,
}

/// Why a file is no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateFileError {
    /// The file could not be read.
    #[error("cannot read the template {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A TOML template with a mistake.
    #[error("the template {} has a mistake", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The mistake.
        source: Box<TemplateTextError>,
    },
    /// A file that is not named `.toml`, and no TLV either.
    #[error(
        "{} is no template in the device's form (and a template in TOML has a name that ends in .toml)", path.display()
    )]
    Tlv {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TemplateError,
    },
}

/// A mistake in the text of a template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateTextError {
    /// No TOML, a name that is not known or missing, or a value of the wrong type.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// A value that makes no sense.
    #[error("line {line}, column {column}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong.
        #[source]
        problem: Problem,
    },
    /// Each part is right, and the whole is longer than a device takes.
    #[error(
        "the template takes {length} bytes, and a device takes {MAX_TEMPLATE_LENGTH}; forbid fewer principals"
    )]
    TooLong {
        /// Bytes that it would take.
        length: usize,
    },
}

/// A value that makes no sense in a template.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// `ca-keys` names no key.
    #[error("ca-keys is empty; name at least one key id, or nothing can ever be signed")]
    NoCaKeys,
    /// An id that no object has.
    #[error("key id {0:#06x} names no object; ids are 0x0001 to 0xfffe")]
    CaKeyId(i64),
    /// A key id twice.
    #[error("key id {0} stands twice")]
    CaKeyTwice(ObjectId),
    /// A bound that is no span of time.
    #[error("{name} is neither a span of time nor \"unbounded\"")]
    Duration {
        /// Which bound.
        name: &'static str,
        /// What is wrong with it.
        source: DurationError,
    },
    /// A bound beyond the 32 bits that the device has for it.
    #[error(
        "{name} is {seconds} seconds, and at most {most} can be said (about 136 years); or write \"unbounded\""
    )]
    TooLong {
        /// Which bound.
        name: &'static str,
        /// What was asked for.
        seconds: u64,
        /// The most that can be.
        most: u32,
    },
    /// The not-before offset that means the opposite of what it says.
    #[error(
        "not-before-offset cannot be 0: to a device 0 means no bound at all; write \"1s\" to forbid back-dating, or \
         \"unbounded\" to allow any"
    )]
    ZeroNotBefore,
    /// An empty principal name.
    #[error("a forbidden principal is empty; requests without principals are refused anyway")]
    EmptyPrincipal,
    /// A principal name that cannot be told from two.
    #[error("a forbidden principal contains a NUL, which ends a name in a template")]
    NulInPrincipal,
    /// A principal twice.
    #[error("the forbidden principal {0:?} stands twice")]
    PrincipalTwice(String),
    /// The timestamp key's file could not be used.
    #[error("timestamp-key cannot be used")]
    TimestampKeyFile(#[from] KeyFileError),
    /// The timestamp key in the text itself could not be used.
    #[error("timestamp-key cannot be used")]
    TimestampKeyText(#[from] KeyFormatError),
    /// The timestamp key is of a kind that cannot sign timestamps.
    #[error("timestamp-key cannot be used")]
    TimestampKeyKind(#[from] DeviceKeyError),
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Text {
    ca_keys: Spanned<Vec<Spanned<i64>>>,
    not_before_offset: Spanned<String>,
    not_after_offset: Spanned<String>,
    #[serde(default)]
    forbid_principals: Vec<Spanned<String>>,
    timestamp_key: Spanned<String>,
}

impl TemplateFile {
    /// Reads a TOML file; a relative `timestamp-key` is looked for beside it.
    pub fn read(path: &Path) -> Result<Self, TemplateFileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| TemplateFileError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder)
            .map_err(|source| TemplateFileError::Toml { path: path.to_owned(), source: Box::new(source) })
    }

    /// Reads TOML text; a relative `timestamp-key` is looked for in `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, TemplateTextError> {
        let file: Text = toml::from_str(text)?;
        let at = |offset: usize| move |problem| value_error(text, offset, problem);
        let mut ca_keys = Vec::new();
        for id in file.ca_keys.get_ref() {
            let (place, id) = (id.span().start, *id.get_ref());
            let id = u16::try_from(id)
                .ok()
                .and_then(|id| ObjectId::new(id).ok())
                .ok_or(Problem::CaKeyId(id))
                .map_err(at(place))?;
            if ca_keys.contains(&id) {
                return Err(at(place)(Problem::CaKeyTwice(id)));
            }
            ca_keys.push(id);
        }
        if ca_keys.is_empty() {
            return Err(at(file.ca_keys.span().start)(Problem::NoCaKeys));
        }
        let mut names = BTreeSet::new();
        for name in &file.forbid_principals {
            let problem = match name.get_ref().as_str() {
                "" => Problem::EmptyPrincipal,
                name if name.contains('\0') => Problem::NulInPrincipal,
                name if !names.insert(name) => Problem::PrincipalTwice(name.to_owned()),
                _ => continue,
            };
            return Err(at(name.span().start)(problem));
        }
        let not_before = match bound("not-before-offset", file.not_before_offset.get_ref(), u32::MAX) {
            Ok(Some(0)) => Err(Problem::ZeroNotBefore),
            Ok(bound) => Ok(bound.map_or(NotBeforeOffset::UNBOUNDED, NotBeforeOffset::from_wire)),
            Err(problem) => Err(problem),
        }
        .map_err(at(file.not_before_offset.span().start))?;
        let not_after = bound("not-after-offset", file.not_after_offset.get_ref(), u32::MAX - 1)
            .map(|bound| bound.map_or(NotAfterOffset::UNBOUNDED, NotAfterOffset::from_wire))
            .map_err(at(file.not_after_offset.span().start))?;
        let timestamp_key = timestamp_key(file.timestamp_key.get_ref(), folder)
            .map_err(at(file.timestamp_key.span().start))?;
        let template = Self {
            ca_keys,
            not_before,
            not_after,
            forbidden_principals: file.forbid_principals.into_iter().map(Spanned::into_inner).collect(),
            timestamp_key,
        };
        match template.to_tlv().len() {
            0..=MAX_TEMPLATE_LENGTH => Ok(template),
            length => Err(TemplateTextError::TooLong { length }),
        }
    }

    /// The content of a device's template; `None` for one that this program would not write, such as one with a
    /// principal that is no UTF-8.
    #[must_use]
    pub fn from_template(template: &Template<'_>) -> Option<Self> {
        let key = &template.timestamp_key;
        Self {
            ca_keys: template.ca_keys.iter().map(|id| ObjectId::new(id).ok()).collect::<Option<_>>()?,
            not_before: template.not_before,
            not_after: template.not_after,
            forbidden_principals: template
                .forbidden_principals
                .iter()
                .map(|name| str::from_utf8(name).ok().map(str::to_owned))
                .collect::<Option<_>>()?,
            timestamp_key: device_key::ssh_public(key.algorithm(), key.public()).ok()?.into(),
        }
        .checked()
    }

    /// Itself, if what it writes would be read again.
    fn checked(self) -> Option<Self> {
        (Self::parse(&self.to_toml(), Path::new("")).ok()? == self).then_some(self)
    }

    /// Who says what time it is.
    #[must_use]
    pub const fn timestamp_key(&self) -> &PublicKey {
        &self.timestamp_key
    }

    /// The keys that may sign.
    #[must_use]
    pub fn ca_keys(&self) -> &[ObjectId] {
        &self.ca_keys
    }

    /// The device's form.
    #[must_use]
    pub fn to_tlv(&self) -> Vec<u8> {
        let ids: Vec<u8> = self.ca_keys.iter().flat_map(|id| id.get().to_be_bytes()).collect();
        let names: Vec<u8> =
            self.forbidden_principals.iter().flat_map(|name| name.bytes().chain([0])).collect();
        let mut tlv = vec![0; 6 * 3 + 1 + 512 + ids.len() + 4 + 4 + names.len()];
        let written =
            device_key::raw_public(self.timestamp_key.key_data()).ok().and_then(|(algorithm, public)| {
                let mut writer = Writer::new(&mut tlv);
                let template = Template {
                    timestamp_key: TimestampKey::new(algorithm, &public).ok()?,
                    ca_keys: CaKeys::decode(&ids).ok()?,
                    not_before: self.not_before,
                    not_after: self.not_after,
                    forbidden_principals: ForbiddenPrincipals::decode(&names).ok()?,
                };
                template.encode(&mut writer).ok()?;
                Some(writer.len())
            });
        // A field of more than 65535 bytes has no TLV; the length that is left is more than any device takes.
        if let Some(length) = written {
            tlv.truncate(length);
        }
        tlv
    }

    /// TOML text that [`Self::parse`] reads as the same template, the timestamp key in it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let bound = |seconds: Option<u32>| {
            seconds.map_or_else(|| UNBOUNDED.to_owned(), |seconds| duration::compact(seconds.into()))
        };
        let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let key = self.timestamp_key.to_openssh().unwrap_or_default();
        format!(
            "ca-keys = {}\nnot-before-offset = \"{}\"\nnot-after-offset = \"{}\"\nforbid-principals = {}\n\
             timestamp-key = {}\n",
            list(self.ca_keys.iter().map(ObjectId::to_string).collect()),
            bound(self.not_before.seconds()),
            bound(self.not_after.seconds()),
            list(self.forbidden_principals.iter().map(|name| text(name)).collect()),
            text(&key),
        )
    }
}

/// A template file's TLV: compiled from a file named `.toml`, and checked to be well-formed from any other.
pub fn load(path: &Path) -> Result<Vec<u8>, TemplateFileError> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return TemplateFile::read(path).map(|template| template.to_tlv());
    }
    let tlv = fs::read(path).map_err(|source| TemplateFileError::Read { path: path.to_owned(), source })?;
    Template::decode(&tlv).map_err(|source| TemplateFileError::Tlv { path: path.to_owned(), source })?;
    Ok(tlv)
}

/// What a template allows, in words, a line for each of its parts.
#[must_use]
pub fn describe(template: &Template<'_>) -> String {
    let key = &template.timestamp_key;
    let fingerprint = device_key::ssh_public(key.algorithm(), key.public()).map_or_else(
        |_| "INVALID: nothing can be signed".to_owned(),
        |key| key.fingerprint(HashAlg::Sha256).to_string(),
    );
    let list =
        |items: Vec<String>, none: &str| if items.is_empty() { none.to_owned() } else { items.join(", ") };
    let ids = template.ca_keys.iter().map(|id| format!("{id:#06x}")).collect();
    let names = template.forbidden_principals.iter().map(|name| Printable(name).to_string()).collect();
    let span = |seconds: u32| duration::in_words(seconds.into());
    let mut text = String::new();
    for (part, words) in [
        ("timestamp key", format!("{} {fingerprint}", key.algorithm())),
        ("CA keys", list(ids, "NONE: nothing can be signed")),
        (
            "not before",
            match template.not_before.seconds() {
                Some(seconds) => format!("now − {}", span(seconds)),
                None => "UNBOUNDED: a certificate may begin at any time in the past".to_owned(),
            },
        ),
        (
            "not after",
            match template.not_after.seconds() {
                Some(seconds) => format!("now + {}", span(seconds)),
                None => "UNBOUNDED: a certificate may last for ever".to_owned(),
            },
        ),
        ("forbidden principals", list(names, "none, but a request must name at least one")),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<22}{words}", format!("{part}:"));
    }
    text
}

fn bound(name: &'static str, text: &str, most: u32) -> Result<Option<u32>, Problem> {
    if text == UNBOUNDED {
        return Ok(None);
    }
    let seconds = duration::parse(text).map_err(|source| Problem::Duration { name, source })?;
    match u32::try_from(seconds) {
        Ok(fits) if fits <= most => Ok(Some(fits)),
        _ => Err(Problem::TooLong { name, seconds, most }),
    }
}

/// A key that stands in the text itself, or the file that the text names.
fn timestamp_key(text: &str, folder: &Path) -> Result<PublicKey, Problem> {
    let inline =
        text.contains("-----BEGIN ") || text.split_whitespace().nth(1).is_some_and(|s| s.starts_with("AAAA"));
    let key = if inline { key_file::parse_public(text)? } else { key_file::read_public(&folder.join(text))? };
    device_key::raw_public(key.key_data())?;
    Ok(key)
}

fn value_error(text: &str, offset: usize, problem: Problem) -> TemplateTextError {
    let before = text.get(..offset).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    TemplateTextError::Value { line: before.matches('\n').count() + 1, column, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::vector;
    use proptest::prelude::*;
    use std::error::Error;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti authority";

    fn text() -> String {
        format!(
            "# 10 h certificates\nca-keys = [0x0005, 58]\nnot-before-offset = \"5m\"\nnot-after-offset = \"10h\"\n\
             forbid-principals = [\"root\", \"toor\"]\ntimestamp-key = \"{KEY}\"\n"
        )
    }

    fn read(text: &str) -> Result<TemplateFile, TemplateTextError> {
        TemplateFile::parse(text, Path::new("/nonexistent"))
    }

    /// Line, column, and the whole chain of reasons.
    fn mistake(from: &str, to: &str) -> (usize, usize, String) {
        let changed = text().replace(from, to);
        assert_ne!(changed, text());
        match read(&changed).unwrap_err() {
            TemplateTextError::Value { line, column, problem } => {
                let reason = problem.source().map(ToString::to_string).unwrap_or_default();
                (line, column, format!("{problem}: {reason}"))
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_text_compiles_to_what_it_says() {
        let file = read(&text()).unwrap();
        let tlv = file.to_tlv();
        let template = Template::decode(&tlv).unwrap();
        assert_eq!(template.ca_keys.iter().collect::<Vec<_>>(), [5, 0x3a]);
        assert_eq!(template.not_before.seconds(), Some(300));
        assert_eq!(template.not_after.seconds(), Some(36_000));
        assert_eq!(template.forbidden_principals.iter().collect::<Vec<_>>(), [b"root", b"toor"]);
        assert_eq!(template.timestamp_key.public(), &file.timestamp_key().key_data().ed25519().unwrap().0);
        assert!(describe(&template).contains("now − 5 minutes"), "{}", describe(&template));
        assert!(describe(&template).contains("0x0005, 0x003a"));
    }

    #[test]
    fn absent_bounds_have_to_be_written_and_are_told_loudly() {
        let unbounded = text().replace("\"5m\"", "\"unbounded\"").replace("\"10h\"", "\"unbounded\"");
        let tlv = read(&unbounded).unwrap().to_tlv();
        let template = Template::decode(&tlv).unwrap();
        assert_eq!((template.not_before.to_wire(), template.not_after.to_wire()), (0, u32::MAX));
        assert_eq!(describe(&template).matches("UNBOUNDED").count(), 2);
        let (_, _, zero) = mistake("\"5m\"", "\"0s\"");
        assert!(zero.contains("\"1s\"") && zero.contains("\"unbounded\""), "{zero}");
    }

    #[test]
    fn mistakes_are_found_where_they_stand() {
        for (from, to, line, column, reason) in [
            ("58", "65535", 2, 20, "0xffff"),
            ("58", "0", 2, 20, "0x0000"),
            ("58", "-1", 2, 20, "names no object"),
            ("58", "70000", 2, 20, "0x11170"),
            ("58", "5", 2, 20, "stands twice"),
            ("[0x0005, 58]", "[]", 2, 11, "empty"),
            ("\"5m\"", "\"5\u{e4}\"", 3, 21, "unknown unit"),
            ("\"5m\"", "\"4294967296\"", 3, 21, "at most 4294967295"),
            ("\"10h\"", "\"4294967295s\"", 4, 20, "at most 4294967294"),
            ("\"10h\"", "\"\"", 4, 20, "empty"),
            ("\"toor\"", "\"\"", 5, 30, "empty"),
            ("\"toor\"", "\"a\\u0000\"", 5, 30, "NUL"),
            ("\"toor\"", "\"root\"", 5, 30, "stands twice"),
            ("ssh-ed25519 AAAA", "ssh-rsa AAAA", 6, 17, "OpenSSH public key is malformed"),
            (KEY, "timestamp.pub", 6, 17, "/nonexistent/timestamp.pub"),
        ] {
            let (found_line, found_column, found) = mistake(from, to);
            assert_eq!((found_line, found_column), (line, column), "{to}: {found}");
            assert!(found.contains(reason), "{to}: {found}");
        }
    }

    #[test]
    fn unknown_missing_and_mistyped_names_are_found_where_they_stand() {
        for (from, to, reason) in [
            ("ca-keys", "ca_keys", "unknown field `ca_keys`"),
            ("not-before-offset = \"5m\"", "", "missing field `not-before-offset`"),
            ("not-after-offset = \"10h\"", "", "missing field `not-after-offset`"),
            ("\"5m\"", "300", "line 3, column 21"),
            ("58", "58.5", "line 2, column 20"),
            ("\"10h\"", "10h", "line 4, column 20"),
            ("# 10", "ca-keys = [1]\n# 10", "duplicate key"),
        ] {
            let error = read(&text().replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(reason), "{to}: {error}");
        }
    }

    #[test]
    fn a_key_that_cannot_sign_timestamps_is_refused() {
        for key in crate::ssh_keygen::security_keys() {
            let (_, _, found) = mistake(KEY, &key.to_openssh().unwrap());
            assert!(found.contains("cannot be held"), "{found}");
        }
    }

    #[test]
    fn more_than_a_device_takes_is_refused() {
        let names = |length| (0..length).map(|n| format!("\"name{n:05}\"")).collect::<Vec<_>>().join(",");
        let with = |length| read(&text().replace("\"root\", \"toor\"", &names(length)));
        assert!(with(290).unwrap().to_tlv().len() <= MAX_TEMPLATE_LENGTH);
        assert!(
            matches!(with(310), Err(TemplateTextError::TooLong { length }) if length > MAX_TEMPLATE_LENGTH)
        );
        assert!(matches!(with(7000), Err(TemplateTextError::TooLong { .. })));
    }

    #[test]
    fn the_timestamp_key_may_stand_in_a_file_beside_the_template() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("template.toml");
        fs::write(folder.path().join("timestamp.pub"), KEY).unwrap();
        fs::write(&path, text().replace(KEY, "timestamp.pub")).unwrap();
        let tlv = load(&path).unwrap();
        assert_eq!(tlv, read(&text()).unwrap().to_tlv());
        let plain = folder.path().join("template.tlv");
        fs::write(&plain, &tlv).unwrap();
        assert_eq!(load(&plain).unwrap(), tlv);
        fs::write(&plain, text()).unwrap();
        assert!(matches!(load(&plain), Err(TemplateFileError::Tlv { .. })));
    }

    #[test]
    fn the_template_of_real_hardware_is_told_in_words_and_written_anew() {
        let Some(tlv) = vector("hardware template", "yubihsm2-ssh.json", "/template/bytes") else { return };
        let template = Template::decode(&tlv).unwrap();
        let words = describe(&template);
        assert!(words.contains("rsa2048 SHA256:") && words.matches("UNBOUNDED").count() == 2, "{words}");
        assert!(
            words.contains("0x0001, 0x00ab, 0x0014, 0x0005, 0x003a") && words.contains("root, toor"),
            "{words}"
        );
        assert_eq!(TemplateFile::from_template(&template).unwrap().to_tlv(), tlv);
    }

    proptest! {
        #[test]
        fn a_template_comes_back_from_its_text_and_from_its_tlv(
            ids in proptest::collection::btree_set(1_u16..0xffff, 1..20),
            before in 0_u32.., after: u32,
            names in proptest::collection::btree_set("[^\\x00]{1,20}", 0..10),
        ) {
            let file = TemplateFile {
                ca_keys: ids.into_iter().map(|id| ObjectId::new(id).unwrap()).collect(),
                not_before: NotBeforeOffset::from_wire(before),
                not_after: NotAfterOffset::from_wire(after),
                forbidden_principals: names.into_iter().collect(),
                timestamp_key: key_file::parse_public(KEY.trim_end_matches(" authority")).unwrap(),
            };
            prop_assert_eq!(&read(&file.to_toml()).unwrap(), &file);
            let tlv = file.to_tlv();
            prop_assert_eq!(TemplateFile::from_template(&Template::decode(&tlv).unwrap()), Some(file));
        }

        #[test]
        fn no_text_makes_the_reader_panic(at in 0_usize..300, with in ".{0,3}") {
            let mut changed = text();
            if let Some((place, _)) = changed.char_indices().nth(at) {
                changed.replace_range(place..=place, &with);
            }
            let _ = read(&changed);
        }
    }
}
