//! SSH templates: the TLV structure against which a device judges every certificate request.
//!
//! `tag u8 ‖ length u16 ‖ value`, each of the six tags exactly once, and each extension tag of [`super::rules`] at most
//! once, in any order:
//!
//! | tag | value |
//! |---|---|
//! | 1 | timestamp key's algorithm number, u8 |
//! | 2 | timestamp key: RSA modulus, `X‖Y`, or 32 bytes |
//! | 3 | ids of the CA keys that may sign, u16 each |
//! | 4 | not-before offset: seconds before now that a certificate may begin, u32; 0 is unbounded |
//! | 5 | not-after offset: seconds after now that a certificate may end, u32; 0xffffffff is unbounded |
//! | 6 | forbidden principals, each NUL-terminated |
//!
//! Tags 1 and 2 with an algorithm other than RSA are an extension of YubiHSM 2's templates.

use super::nul_terminated;
use super::rules::{RuleError, RuleTag, Rules};
use super::timestamp::{Now, TimestampKey, TimestampKeyError};
use crate::codec::{CodecError, Reader, Writer};
use crate::object::ObjectId;

/// One of the six fields of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// Timestamp key's algorithm.
    TimestampAlgorithm = 1,
    /// Timestamp key.
    TimestampKey = 2,
    /// CA keys that may sign.
    CaKeys = 3,
    /// Not-before offset.
    NotBefore = 4,
    /// Not-after offset.
    NotAfter = 5,
    /// Forbidden principals.
    ForbiddenPrincipals = 6,
}

impl Tag {
    const ALL: [Self; 6] = [
        Self::TimestampAlgorithm,
        Self::TimestampKey,
        Self::CaKeys,
        Self::NotBefore,
        Self::NotAfter,
        Self::ForbiddenPrincipals,
    ];
}

impl core::fmt::Display for Tag {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match self {
            Self::TimestampAlgorithm => "timestamp algorithm",
            Self::TimestampKey => "timestamp key",
            Self::CaKeys => "CA keys",
            Self::NotBefore => "not-before offset",
            Self::NotAfter => "not-after offset",
            Self::ForbiddenPrincipals => "forbidden principals",
        };
        write!(f, "tag {} ({name})", *self as u8)
    }
}

/// Why bytes are not a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A tag, length or value runs past the end.
    #[error("template ends inside a field: {0}")]
    Truncated(CodecError),
    /// A tag that no version of the format defines.
    #[error("unknown tag {0:#04x}")]
    UnknownTag(u8),
    /// A repeated tag.
    #[error("{0} occurs twice")]
    DuplicateTag(Tag),
    /// A tag that is not there.
    #[error("{0} is missing")]
    MissingTag(Tag),
    /// A value whose length does not match the tag.
    #[error("{tag} has {found} bytes, not {expected}")]
    WrongLength {
        /// The tag.
        tag: Tag,
        /// The length that the tag requires.
        expected: &'static str,
        /// Bytes in the template.
        found: usize,
    },
    /// Tags 1 and 2 are not a key.
    #[error(transparent)]
    TimestampKey(#[from] TimestampKeyError),
    /// A repeated extension tag.
    #[error("tag {:#04x} ({}) occurs twice", .0.code(), .0.name())]
    DuplicateRule(RuleTag),
    /// The value of an extension tag.
    #[error("tag {:#04x} ({}): {error}", tag.code(), tag.name())]
    Rule {
        /// The tag.
        tag: RuleTag,
        /// The defect.
        error: RuleError,
    },
    /// The last forbidden principal is not followed by a NUL.
    #[error("the last forbidden principal is not NUL-terminated")]
    UnterminatedPrincipal,
}

/// The ids of the CA keys that may sign under a template, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaKeys<'a>(&'a [[u8; 2]]);

impl<'a> CaKeys<'a> {
    /// From the value of tag 3: two bytes, big-endian, an id.
    pub fn decode(value: &'a [u8]) -> Result<Self, TemplateError> {
        match value.as_chunks::<2>() {
            (ids, []) => Ok(Self(ids)),
            _ => Err(TemplateError::WrongLength {
                tag: Tag::CaKeys,
                expected: "two for each key",
                found: value.len(),
            }),
        }
    }

    /// Whether this key may sign.
    #[must_use]
    pub fn contains(&self, id: ObjectId) -> bool {
        self.iter().any(|allowed| allowed == id.get())
    }

    /// The ids as stored; a template may hold numbers that name no object.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.0.iter().map(|&id| u16::from_be_bytes(id))
    }
}

/// Principals that no certificate may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForbiddenPrincipals<'a>(&'a [u8]);

impl<'a> ForbiddenPrincipals<'a> {
    /// From the value of tag 6: every name followed by a NUL.
    pub fn decode(value: &'a [u8]) -> Result<Self, TemplateError> {
        match value {
            [] | [.., 0] => Ok(Self(value)),
            _ => Err(TemplateError::UnterminatedPrincipal),
        }
    }

    /// Whether exactly these bytes are forbidden.
    #[must_use]
    pub fn contains(&self, principal: &[u8]) -> bool {
        self.iter().any(|forbidden| forbidden == principal)
    }

    /// The names, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        nul_terminated(self.0)
    }
}

/// How long before now a certificate may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBeforeOffset(u32);

impl NotBeforeOffset {
    /// 0 on the wire: real hardware signs a certificate that is valid from the beginning of time under it.
    pub const UNBOUNDED: Self = Self(0);

    /// As on the wire.
    #[must_use]
    pub const fn from_wire(seconds: u32) -> Self {
        Self(seconds)
    }

    /// As on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// Seconds, or `None` for unbounded.
    #[must_use]
    pub const fn seconds(self) -> Option<u32> {
        match self {
            Self::UNBOUNDED => None,
            Self(seconds) => Some(seconds),
        }
    }

    /// The earliest time a certificate may begin, in UNIX seconds; `None` for unbounded.
    #[must_use]
    pub fn earliest(self, now: Now) -> Option<u64> {
        Some(u64::from(now.seconds()).saturating_sub(u64::from(self.seconds()?)))
    }
}

/// How long after now a certificate may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAfterOffset(u32);

impl NotAfterOffset {
    /// 0xffffffff on the wire: real hardware signs a certificate that is valid forever under it.
    pub const UNBOUNDED: Self = Self(u32::MAX);

    /// As on the wire.
    #[must_use]
    pub const fn from_wire(seconds: u32) -> Self {
        Self(seconds)
    }

    /// As on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// Seconds, or `None` for unbounded.
    #[must_use]
    pub const fn seconds(self) -> Option<u32> {
        match self {
            Self::UNBOUNDED => None,
            Self(seconds) => Some(seconds),
        }
    }

    /// The latest time a certificate may end, in UNIX seconds; `None` for unbounded.
    #[must_use]
    pub fn latest(self, now: Now) -> Option<u64> {
        Some(u64::from(now.seconds()).saturating_add(u64::from(self.seconds()?)))
    }
}

/// A well-formed template, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template<'a> {
    /// The timestamp authority's key.
    pub timestamp_key: TimestampKey<'a>,
    /// Which CA keys may sign.
    pub ca_keys: CaKeys<'a>,
    /// How early a certificate may begin.
    pub not_before: NotBeforeOffset,
    /// How late it may end.
    pub not_after: NotAfterOffset,
    /// Principals that a certificate must not name.
    pub forbidden_principals: ForbiddenPrincipals<'a>,
    /// The extension tags.
    pub rules: Rules<'a>,
}

/// Which tags a template may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// YubiHSM 2's six and the extension tags.
    #[default]
    Extended,
    /// YubiHSM 2's six; any other makes the template malformed, as it does there.
    Yubihsm2,
}

fn exactly<const N: usize>(tag: Tag, expected: &'static str, value: &[u8]) -> Result<[u8; N], TemplateError> {
    value.try_into().map_err(|_| TemplateError::WrongLength { tag, expected, found: value.len() })
}

/// The fields of a template, `(tag, value)`, whatever the tags mean; a truncated field is the last.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), TemplateError>> {
    let mut reader = Reader::new(bytes);
    let mut field = move || -> Result<Option<(u8, &[u8])>, CodecError> {
        if reader.remaining() == 0 {
            return Ok(None);
        }
        let code = reader.u8()?;
        let length = reader.u16()?;
        Ok(Some((code, reader.take(usize::from(length))?)))
    };
    let mut cut = false;
    core::iter::from_fn(move || {
        if cut {
            return None;
        }
        let next = field();
        cut = next.is_err();
        next.map_err(TemplateError::Truncated).transpose()
    })
}

/// Whether a template is sealed, in either dialect and even if it is otherwise malformed: its bytes are whole
/// fields, and one of them is [`RuleTag::Sealed`] without a value. An image that knows no extension tags
/// cannot judge by such a template, but can still preserve it.
#[must_use]
pub fn is_sealed(bytes: &[u8]) -> bool {
    let sealed = fields(bytes).try_fold(false, |sealed, field| {
        field.map(|(code, value)| sealed || (code == RuleTag::Sealed.code() && value.is_empty()))
    });
    sealed == Ok(true)
}

impl<'a> Template<'a> {
    /// Reads a whole template: no unknown, duplicate or missing tags, no trailing bytes, no contradicting
    /// rules.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, TemplateError> {
        Self::decode_dialect(bytes, Dialect::Extended)
    }

    /// Reads a whole template that may have the tags of one dialect only.
    pub fn decode_dialect(bytes: &'a [u8], dialect: Dialect) -> Result<Self, TemplateError> {
        let mut rules = Rules::default();
        let mut seen = [false; RuleTag::ALL.len()];
        let mut values: [Option<&'a [u8]>; Tag::ALL.len()] = [None; Tag::ALL.len()];
        for field in fields(bytes) {
            let (code, value) = field?;
            if dialect == Dialect::Extended
                && let Some((tag, seen)) =
                    RuleTag::ALL.into_iter().zip(&mut seen).find(|(tag, _)| tag.code() == code)
            {
                if core::mem::replace(seen, true) {
                    return Err(TemplateError::DuplicateRule(tag));
                }
                rules.set(tag, value).map_err(|error| TemplateError::Rule { tag, error })?;
                continue;
            }
            let (&tag, slot) = Tag::ALL
                .iter()
                .zip(&mut values)
                .find(|(tag, _)| **tag as u8 == code)
                .ok_or(TemplateError::UnknownTag(code))?;
            if slot.replace(value).is_some() {
                return Err(TemplateError::DuplicateTag(tag));
            }
        }
        for (&tag, value) in Tag::ALL.iter().zip(&values) {
            if value.is_none() {
                return Err(TemplateError::MissingTag(tag));
            }
        }
        rules.check().map_err(|(tag, error)| TemplateError::Rule { tag, error })?;
        let [algorithm, key, ca_keys, not_before, not_after, principals] =
            values.map(Option::unwrap_or_default);
        let [algorithm] = exactly(Tag::TimestampAlgorithm, "1", algorithm)?;
        let offset = |tag, value| exactly(tag, "4", value).map(u32::from_be_bytes);
        Ok(Self {
            timestamp_key: TimestampKey::from_code(algorithm, key)?,
            ca_keys: CaKeys::decode(ca_keys)?,
            not_before: NotBeforeOffset(offset(Tag::NotBefore, not_before)?),
            not_after: NotAfterOffset(offset(Tag::NotAfter, not_after)?),
            forbidden_principals: ForbiddenPrincipals::decode(principals)?,
            rules,
        })
    }

    /// Writes the template with its tags in ascending order, as YubiHSM's tool does.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        let mut field = |tag: Tag, value: &[u8]| {
            let length = u16::try_from(value.len())
                .map_err(|_| CodecError::NoSpace { needed: value.len(), available: usize::from(u16::MAX) })?;
            writer.u8(tag as u8)?;
            writer.u16(length)?;
            writer.bytes(value)
        };
        field(Tag::TimestampAlgorithm, &[self.timestamp_key.algorithm().algorithm().code()])?;
        field(Tag::TimestampKey, self.timestamp_key.public())?;
        field(Tag::CaKeys, self.ca_keys.0.as_flattened())?;
        field(Tag::NotBefore, &self.not_before.0.to_be_bytes())?;
        field(Tag::NotAfter, &self.not_after.0.to_be_bytes())?;
        field(Tag::ForbiddenPrincipals, self.forbidden_principals.0)?;
        self.rules.encode(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::AsymmetricAlgorithm;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];

    fn sample() -> Template<'static> {
        Template {
            timestamp_key: TimestampKey::new(AsymmetricAlgorithm::Ed25519, &KEY).unwrap(),
            ca_keys: CaKeys::decode(&[0, 5, 0, 0x3a]).unwrap(),
            not_before: NotBeforeOffset::from_wire(300),
            not_after: NotAfterOffset::from_wire(36_000),
            forbidden_principals: ForbiddenPrincipals::decode(b"root\0toor\0").unwrap(),
            rules: Rules::default(),
        }
    }

    fn encoded(template: &Template<'_>) -> ([u8; 256], usize) {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        template.encode(&mut writer).unwrap();
        let length = writer.len();
        (buffer, length)
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same() {
        let (buffer, length) = encoded(&sample());
        assert_eq!(Template::decode(&buffer[..length]), Ok(sample()));
    }

    #[test]
    fn each_defect_has_its_own_error() {
        let (buffer, length) = encoded(&sample());
        let good = &buffer[..length];
        let mut twice = [0; 512];
        twice[..length].copy_from_slice(good);
        twice[length..length + 4].copy_from_slice(&[1, 0, 1, 46]);
        assert_eq!(
            Template::decode(&twice[..length + 4]),
            Err(TemplateError::DuplicateTag(Tag::TimestampAlgorithm))
        );
        twice[length] = 0x7f;
        assert_eq!(Template::decode(&twice[..length + 4]), Err(TemplateError::UnknownTag(0x7f)));
        twice[length] = 0x93;
        assert_eq!(Template::decode(&twice[..length + 4]), Err(TemplateError::UnknownTag(0x93)));
        assert_eq!(Template::decode(&good[4..]), Err(TemplateError::MissingTag(Tag::TimestampAlgorithm)));
        assert!(matches!(Template::decode(&good[..length - 1]), Err(TemplateError::Truncated(_))));
        assert_eq!(Template::decode(&[]), Err(TemplateError::MissingTag(Tag::TimestampAlgorithm)));

        let mut other = buffer;
        other[3] = 43;
        assert_eq!(
            Template::decode(&other[..length]),
            Err(TemplateError::TimestampKey(TimestampKeyError::UnknownAlgorithm(43)))
        );
        other[3] = 12;
        assert!(matches!(
            Template::decode(&other[..length]),
            Err(TemplateError::TimestampKey(TimestampKeyError::WrongLength { .. }))
        ));
        let mut unterminated = buffer;
        unterminated[length - 1] = b'!';
        assert_eq!(Template::decode(&unterminated[..length]), Err(TemplateError::UnterminatedPrincipal));
        assert!(matches!(CaKeys::decode(&[0, 1, 2]), Err(TemplateError::WrongLength { .. })));
    }

    #[test]
    fn a_defect_is_told_with_its_tag() {
        let (buffer, length) = encoded(&sample());
        let good = &buffer[..length];
        let told = |bytes: &[u8]| std::format!("{}", Template::decode(bytes).unwrap_err());
        assert_eq!(told(&good[4..]), "tag 1 (timestamp algorithm) is missing");
        assert_eq!(told(&[good, &[6, 0, 0]].concat()), "tag 6 (forbidden principals) occurs twice");
        let rule = |bytes: &[u8]| told(&[good, bytes].concat());
        assert_eq!(rule(&[0x92, 0, 0, 0x92, 0, 0]), "tag 0x92 (sealed) occurs twice");
        assert_eq!(rule(&[0x82, 0, 1, 0]), "tag 0x82 (max-lifetime): it has 1 bytes, not 4");
        assert_eq!(
            CaKeys::decode(&[5]).unwrap_err(),
            TemplateError::WrongLength { tag: Tag::CaKeys, expected: "two for each key", found: 1 }
        );
    }

    #[test]
    fn ca_keys_are_told_by_both_bytes() {
        let keys = sample().ca_keys;
        assert_eq!(keys.iter().collect::<std::vec::Vec<_>>(), [5, 0x3a]);
        let may_sign = |id: u16| keys.contains(ObjectId::new(id).unwrap());
        assert!(may_sign(5) && may_sign(0x3a) && !may_sign(0x0500) && !may_sign(6));
        assert!(CaKeys::decode(&[]).unwrap().iter().next().is_none());
    }

    #[test]
    fn extension_tags_stand_anywhere_and_once_and_are_unknown_to_yubihsm2() {
        let rules = Rules { max_lifetime: Some(3600), sealed: true, ..Rules::default() };
        let template = Template { rules, ..sample() };
        let (buffer, length) = encoded(&template);
        let (first, last) = (&buffer[..length - 10], &buffer[length - 10..length]);
        assert_eq!(last, [0x82, 0, 4, 0, 0, 0x0e, 0x10, 0x92, 0, 0]);
        let together = |parts: &[&[u8]]| parts.concat();
        for bytes in [together(&[first, last]), together(&[last, first])] {
            assert_eq!(Template::decode(&bytes), Ok(template));
            assert_eq!(
                Template::decode_dialect(&bytes, Dialect::Yubihsm2).map(drop),
                Err(TemplateError::UnknownTag(last[0]))
            );
        }
        let twice = together(&[first, last, &last[7..]]);
        assert_eq!(Template::decode(&twice), Err(TemplateError::DuplicateRule(RuleTag::Sealed)));
        let defect = together(&[first, &[0x82, 0, 1, 0]]);
        assert!(matches!(
            Template::decode(&defect),
            Err(TemplateError::Rule { tag: RuleTag::MaxLifetime, .. })
        ));
        let contradiction = together(&[first, &[0x86, 0, 0, 0x87, 0, 2, b'a', 0]]);
        let error = RuleError::NotAllowed;
        assert_eq!(
            Template::decode(&contradiction),
            Err(TemplateError::Rule { tag: RuleTag::RequireCriticalOptions, error })
        );
        assert_eq!(Template::decode_dialect(&buffer[..length - 10], Dialect::Yubihsm2), Ok(sample()));
    }

    #[test]
    fn a_seal_is_read_without_the_rest() {
        let (buffer, length) =
            encoded(&Template { rules: Rules { sealed: true, ..Rules::default() }, ..sample() });
        let good = &buffer[..length];
        assert!(is_sealed(good) && is_sealed(&good[length - 3..]));
        let (plain, plain_length) = encoded(&sample());
        assert!(!is_sealed(&plain[..plain_length]) && !is_sealed(&[]));
        // Malformed otherwise: an unknown tag, an invalid rule, a repeated tag.
        for defect in [&[0x7f, 0, 0][..], &[0x82, 0, 1, 0], &[0x92, 0, 0], &[1, 0, 1, 46]] {
            let [before, after] = [[defect, good].concat(), [good, defect].concat()];
            assert!(Template::decode(&after).is_err());
            assert!(is_sealed(&before) && is_sealed(&after), "{defect:?}");
        }
        // Bytes that are not a list of fields seal nothing, and a seal has no value.
        assert!(!is_sealed(&good[..length - 1]) && !is_sealed(&[good, &[0x92]].concat()));
        assert!(!is_sealed(&[0x92, 0, 1, 0]) && !is_sealed(&[0x7f, 0, 3, 0x92, 0, 0]));
    }

    #[test]
    fn the_two_special_offsets_are_unbounded_and_their_neighbours_are_not() {
        let now = Now::from_seconds(1000);
        for wire in [0, 1, 300, u32::MAX] {
            assert_eq!(NotBeforeOffset::from_wire(wire).to_wire(), wire);
            assert_eq!(NotAfterOffset::from_wire(wire).to_wire(), wire);
            assert_eq!(NotBeforeOffset::from_wire(wire).seconds(), (wire != 0).then_some(wire));
            assert_eq!(NotAfterOffset::from_wire(wire).seconds(), (wire != u32::MAX).then_some(wire));
        }
        assert_eq!(NotBeforeOffset::from_wire(0).earliest(now), None);
        assert_eq!(NotBeforeOffset::from_wire(1).earliest(now), Some(999));
        assert_eq!(NotBeforeOffset::from_wire(u32::MAX).earliest(now), Some(0));
        assert_eq!(NotAfterOffset::from_wire(u32::MAX).latest(now), None);
        assert_eq!(NotAfterOffset::from_wire(u32::MAX - 1).latest(now), Some(1000 + 0xffff_fffe));
        assert_eq!(NotAfterOffset::from_wire(0).latest(now), Some(1000));
    }

    #[test]
    fn only_whole_names_are_forbidden() {
        let forbidden = sample().forbidden_principals;
        assert!(forbidden.contains(b"root") && forbidden.contains(b"toor"));
        for name in [b"roo".as_slice(), b"root\0", b"roott", b"", b"root\0toor", b"Root"] {
            assert!(!forbidden.contains(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(template) = Template::decode(&bytes) {
                prop_assert_eq!(template.forbidden_principals.iter().map(|name| name.len() + 1).sum::<usize>(),
                    template.forbidden_principals.0.len());
            }
        }

        #[test]
        fn a_changed_template_never_decodes_to_the_same(position in 0_usize..84, bit in 0_u32..8) {
            let (mut buffer, length) = encoded(&sample());
            buffer[position % length] ^= 1 << bit;
            prop_assert_ne!(Template::decode(&buffer[..length]).ok(), Some(sample()));
        }
    }
}
