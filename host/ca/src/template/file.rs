//! Templates as people write them: TOML, compiled to the TLV that a device stores, and described in words.
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
//! Nothing is compiled that a device would interpret differently from the text: unknown names, repeated or
//! impossible values are errors with line and column. If there is to be no bound, the text has to say
//! `unbounded`, and [`super::describe`] says so loudly.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use ssh_key::PublicKey;
use sshsm_protocol::ObjectId;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::object::NewObject;
use sshsm_protocol::ssh::Printable;
use sshsm_protocol::ssh::rules::{RuleTag, Rules};
use sshsm_protocol::ssh::template::{
    CaKeys, ForbiddenPrincipals, NotAfterOffset, NotBeforeOffset, Template, TemplateError,
};
use sshsm_protocol::ssh::timestamp::TimestampKey;
use toml::Spanned;

use crate::device_key;
use crate::input;
use crate::key_file;
use crate::path::shown;

use super::problem::{Problem, bound};
use super::rules::{self, Text};
use sshsm_client::{Failure, Kind};

/// The longest template that fits a PUT TEMPLATE message.
pub const MAX_TEMPLATE_LENGTH: usize = MAX_INNER_PAYLOAD - NewObject::LENGTH;

/// A template's content, every part of it valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    ca_keys: Vec<ObjectId>,
    not_before: NotBeforeOffset,
    not_after: NotAfterOffset,
    forbidden_principals: Vec<String>,
    timestamp_key: PublicKey,
    rules: Vec<(RuleTag, Vec<u8>)>,
}

/// Why a file is not a template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateFileError {
    /// The file could not be read.
    #[error("cannot read the template {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A TOML template with a mistake.
    #[error("the template {} has a mistake", shown(path))]
    Toml {
        /// The file.
        path: PathBuf,
        /// The mistake.
        source: Box<TemplateTextError>,
    },
    /// A file that is not named `.toml`, and no TLV either.
    #[error(
        "{} is not a template in the device's form (a template in TOML has a name that ends in .toml)",
        shown(path)
    )]
    Tlv {
        /// The file.
        path: PathBuf,
        /// The defect.
        source: TemplateError,
    },
}

impl Failure for TemplateFileError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => source.into(),
            Self::Toml { source, .. } => source.kind(),
            Self::Tlv { .. } => Kind::Failed,
        }
    }
}

/// A mistake in the text of a template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateTextError {
    /// No TOML, a name that is not known or missing, or a value of the wrong type.
    ///
    /// Its lines, the one with the mistake among them, are as [`Printable`] shows them.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("line {line}, column {column}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// The problem.
        #[source]
        problem: Problem,
    },
    /// Each part is right, but the whole is longer than a device accepts.
    #[error(
        "the template has {length} bytes, but a device accepts at most {MAX_TEMPLATE_LENGTH}; forbid fewer principals"
    )]
    TooLong {
        /// Bytes that it would take.
        length: usize,
    },
}

impl Failure for TemplateTextError {
    fn kind(&self) -> Kind {
        match self {
            Self::Value { problem, .. } => problem.kind(),
            Self::Syntax(_) | Self::TooLong { .. } => Kind::Failed,
        }
    }
}

impl TemplateFile {
    /// Reads a TOML file; a relative `timestamp-key` is relative to its directory.
    pub fn read(path: &Path) -> Result<Self, TemplateFileError> {
        let text = input::read_text(path)
            .map_err(|source| TemplateFileError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder)
            .map_err(|source| TemplateFileError::Toml { path: path.to_owned(), source: Box::new(source) })
    }

    /// Reads TOML text; a relative `timestamp-key` is looked for in `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, TemplateTextError> {
        let file: Text =
            toml::from_str(text).map_err(|error| TemplateTextError::Syntax(printable(&error)))?;
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
                name if name.contains(',') => Problem::CommaInPrincipal(name.to_owned()),
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
        let compiled = rules::compile(&file).map_err(|(place, problem)| at(place)(problem))?;
        let template = Self {
            ca_keys,
            not_before,
            not_after,
            forbidden_principals: file.forbid_principals.into_iter().map(Spanned::into_inner).collect(),
            timestamp_key,
            rules: compiled.iter().map(|rule| (rule.tag, rule.value.clone())).collect(),
        };
        let tlv = template.to_tlv();
        if tlv.len() > MAX_TEMPLATE_LENGTH {
            return Err(TemplateTextError::TooLong { length: tlv.len() });
        }
        // The device's own parser decides whether the rules are consistent.
        match Template::decode(&tlv) {
            Err(TemplateError::Rule { tag, error: source }) => {
                let place = compiled.iter().find(|rule| rule.tag == tag).map_or(0, |rule| rule.place);
                Err(at(place)(Problem::Rule { name: tag.name(), source }))
            }
            _ => Ok(template),
        }
    }

    /// The device's form.
    #[must_use]
    pub fn to_tlv(&self) -> Vec<u8> {
        let ids: Vec<u8> = self.ca_keys.iter().flat_map(|id| id.get().to_be_bytes()).collect();
        let names: Vec<u8> =
            self.forbidden_principals.iter().flat_map(|name| name.bytes().chain([0])).collect();
        let rules: Vec<u8> = self
            .rules
            .iter()
            .flat_map(|(tag, value)| {
                let length = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
                [&[tag.code()], length.as_slice(), value].concat()
            })
            .collect();
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
                    rules: Rules::default(),
                };
                template.encode(&mut writer).ok()?;
                Some(writer.len())
            });
        // A field of more than 65535 bytes has no TLV; the remaining length is more than any device accepts.
        if let Some(length) = written {
            tlv.truncate(length);
        }
        tlv.extend(rules);
        tlv
    }
}

/// A template file's TLV: compiled from a file named `.toml`, and checked to be well-formed from any other.
pub fn load(path: &Path) -> Result<Vec<u8>, TemplateFileError> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return TemplateFile::read(path).map(|template| template.to_tlv());
    }
    let tlv =
        input::read(path).map_err(|source| TemplateFileError::Read { path: path.to_owned(), source })?;
    Template::decode(&tlv).map_err(|source| TemplateFileError::Tlv { path: path.to_owned(), source })?;
    Ok(tlv.to_vec())
}

/// A key in the text itself, or in the file that the text names.
fn timestamp_key(text: &str, folder: &Path) -> Result<PublicKey, Problem> {
    let inline =
        text.contains("-----BEGIN ") || text.split_whitespace().nth(1).is_some_and(|s| s.starts_with("AAAA"));
    let key = if inline { key_file::parse_public(text)? } else { key_file::read_public(&folder.join(text))? };
    device_key::raw_public(key.key_data())?;
    Ok(key)
}

/// TOML's messages quote the file.
pub(crate) fn printable(error: &toml::de::Error) -> String {
    let lines = error.to_string();
    lines.lines().map(|line| Printable(line.as_bytes()).to_string()).collect::<Vec<_>>().join("\n")
}

fn value_error(text: &str, offset: usize, problem: Problem) -> TemplateTextError {
    let (line, column) = line_and_column(text, offset);
    TemplateTextError::Value { line, column, problem }
}

/// The position of the byte at `offset` of a text: line and character, counted from 1.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::vector;
    use crate::template::describe;
    use proptest::prelude::*;
    use std::error::Error;
    use std::fs;

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
        assert_eq!(template.timestamp_key.public(), &file.timestamp_key.key_data().ed25519().unwrap().0);
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
            ("58", "5", 2, 20, "occurs twice"),
            ("[0x0005, 58]", "[]", 2, 11, "empty"),
            ("\"5m\"", "\"5\u{e4}\"", 3, 21, "unknown unit"),
            ("\"5m\"", "\"4294967296\"", 3, 21, "the maximum is 4294967295"),
            ("\"10h\"", "\"4294967295s\"", 4, 20, "the maximum is 4294967294"),
            ("\"10h\"", "\"\"", 4, 20, "empty"),
            ("\"toor\"", "\"\"", 5, 30, "empty"),
            ("\"toor\"", "\"a\\u0000\"", 5, 30, "NUL"),
            ("\"toor\"", "\"root\"", 5, 30, "occurs twice"),
            ("\"toor\"", "\"toor,admin\"", 5, 30, "contains a comma"),
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
            ("\"5m\"", "\"\x1b[2J\"", "\\u{1b}[2J"),
        ] {
            let error = read(&text().replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(reason), "{to}: {error}");
        }
    }

    /// A device may store templates that were written elsewhere.
    #[test]
    fn names_that_forbid_nobody_are_reported_as_such() {
        let tlv = read(&text()).unwrap().to_tlv();
        let mut template = Template::decode(&tlv).unwrap();
        template.forbidden_principals = ForbiddenPrincipals::decode(b"root,toor\0\0admin\0").unwrap();
        let words = describe(&template);
        let told = "\"root,toor\" (with a comma: FORBIDS NOBODY), \"\" (EMPTY: forbids nobody), admin\n";
        assert!(words.ends_with(told), "{words}");
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
    fn the_template_of_real_hardware_is_told_in_words() {
        let Some(tlv) = vector("yubihsm2-ssh.json", "/template/bytes") else { return };
        let template = Template::decode(&tlv).unwrap();
        let words = describe(&template);
        assert!(words.contains("rsa2048 SHA256:") && words.matches("UNBOUNDED").count() == 2, "{words}");
        assert!(
            words.contains("0x0001, 0x00ab, 0x0014, 0x0005, 0x003a") && words.contains("root, toor"),
            "{words}"
        );
    }

    proptest! {
        #[test]
        fn every_template_compiles_to_what_its_text_says(
            ids in proptest::collection::btree_set(1_u16..0xffff, 1..20),
            before in 1_u32.., after in 0..u32::MAX,
            names in proptest::collection::btree_set("[^\\x00,]{1,20}", 0..10),
        ) {
            let listed: Vec<_> =
                names.iter().map(|name| toml::Value::String(name.clone()).to_string()).collect();
            let ids: Vec<_> = ids.into_iter().collect();
            let text = format!(
                "ca-keys = {ids:?}\nnot-before-offset = \"{before}\"\nnot-after-offset = \"{after}s\"\n\
                 forbid-principals = [{}]\ntimestamp-key = \"{KEY}\"\n",
                listed.join(", ")
            );
            let tlv = read(&text).unwrap().to_tlv();
            let template = Template::decode(&tlv).unwrap();
            prop_assert!(template.ca_keys.iter().eq(ids));
            prop_assert_eq!((template.not_before.seconds(), template.not_after.seconds()), (Some(before), Some(after)));
            prop_assert!(template.forbidden_principals.iter().eq(names.iter().map(String::as_bytes)));
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
