//! Patterns for names: a literal, optionally with one `*` at the beginning or the end, which matches any
//! bytes, including none.
//!
//! `\*` and `\\` match a literal `*` and `\`; a `*` elsewhere, or a `\` before anything else, is not allowed.
//! Bytes are compared exactly. There are no regular expressions on a device: anyone can see what a pattern
//! matches, and matching takes one comparison.

use super::host_pattern::HostPattern;

/// Bytes of the longest pattern.
pub const MAX_PATTERN: usize = 255;

/// Why bytes are not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing would match it.
    #[error("a pattern is empty")]
    Empty,
    /// Longer than [`MAX_PATTERN`].
    #[error("a pattern has {0} bytes, and {MAX_PATTERN} is the most")]
    TooLong(usize),
    /// A wildcard in a place where it is not allowed.
    #[error(
        "a pattern has a * that is neither its first nor its last character, or two of them; \\* is a literal one"
    )]
    Wildcard,
    /// An invalid escape.
    #[error("a pattern has a \\ that is followed by neither * nor \\")]
    Escape,
    /// It would end the pattern in a list.
    #[error("a pattern contains a NUL byte")]
    NulByte,
}

/// Where the wildcard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wildcard {
    None,
    First,
    Last,
}

/// A pattern, borrowed in its written form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    text: &'a [u8],
    /// The text without its wildcard, its escapes still in it.
    literal: &'a [u8],
    wildcard: Wildcard,
}

impl<'a> Pattern<'a> {
    /// Parses a pattern.
    pub const fn new(text: &'a [u8]) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError::TooLong(text.len()));
        }
        let (wildcard, literal) = match text {
            [] => return Err(PatternError::Empty),
            [b'*', literal @ ..] => (Wildcard::First, literal),
            [literal @ .., b'\\', b'*'] if ends_escaped(literal) => {
                (Wildcard::Last, text.split_at(text.len() - 1).0)
            }
            [.., b'\\', b'*'] => (Wildcard::None, text),
            [literal @ .., b'*'] => (Wildcard::Last, literal),
            text => (Wildcard::None, text),
        };
        let mut rest = literal;
        loop {
            rest = match rest {
                [] => return Ok(Self { text, literal, wildcard }),
                [b'\\', b'*' | b'\\', rest @ ..] => rest,
                [b'\\', ..] => return Err(PatternError::Escape),
                [b'*', ..] => return Err(PatternError::Wildcard),
                [0, ..] => return Err(PatternError::NulByte),
                [_, rest @ ..] => rest,
            }
        }
    }

    /// The pattern in its written form.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.text
    }

    /// Whether it matches whatever there is.
    #[must_use]
    pub const fn is_anything(&self) -> bool {
        self.literal.is_empty()
    }

    /// Whether `name` matches.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let length = self.bytes().count();
        let part = match self.wildcard {
            Wildcard::None => Some(name),
            Wildcard::First => name.len().checked_sub(length).and_then(|start| name.get(start..)),
            Wildcard::Last => name.get(..length),
        };
        part.is_some_and(|part| self.bytes().eq(part.iter().copied()))
    }

    /// Whether every name that matches `other` matches this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.bytes().count(), other.bytes().count());
        let at = |start: Option<usize>| {
            start.is_some_and(|start| other.bytes().skip(start).take(mine).eq(self.bytes()))
        };
        match (self.wildcard, other.wildcard) {
            _ if self.wildcard != Wildcard::None && self.is_anything() => true,
            (Wildcard::None, Wildcard::None) => mine == theirs && at(Some(0)),
            (Wildcard::First, Wildcard::None | Wildcard::First) => at(theirs.checked_sub(mine)),
            (Wildcard::Last, Wildcard::None | Wildcard::Last) => at(Some(0)),
            _ => false,
        }
    }

    /// Whether every host that a host certificate's principal matches also matches this pattern, in the
    /// principal's own case.
    #[must_use]
    pub fn covers(&self, principal: &HostPattern<'_>) -> bool {
        match self.wildcard {
            Wildcard::None => principal.is_name() && self.matches(principal.beginning()),
            Wildcard::First => self.matches(principal.end()),
            Wildcard::Last => self.matches(principal.beginning()),
        }
    }

    /// The literal part, its escapes undone.
    fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let mut rest = self.literal.iter();
        core::iter::from_fn(move || match rest.next() {
            Some(b'\\') => rest.next().copied(),
            byte => byte.copied(),
        })
    }
}

/// Whether a text ends in an odd number of backslashes, so that one more would be escaped.
const fn ends_escaped(text: &[u8]) -> bool {
    let mut rest = text;
    let mut odd = false;
    while let [before @ .., b'\\'] = rest {
        rest = before;
        odd = !odd;
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern.as_bytes()).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn a_literal_matches_itself_only() {
        assert!(matches("zone-web", "zone-web"));
        for name in ["", "zone-we", "zone-webs", "xzone-web", "Zone-web"] {
            assert!(!matches("zone-web", name), "{name}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_any_bytes_and_for_none() {
        for name in ["zone-", "zone-web", "zone-*"] {
            assert!(matches("zone-*", name), "{name}");
        }
        for name in ["", "zone", "a-zone-", "Zone-web"] {
            assert!(!matches("zone-*", name), "{name}");
        }
        assert!(matches("*.example.com", "web.example.com") && matches("*.example.com", ".example.com"));
        assert!(
            !matches("*.example.com", "example.com") && !matches("*.example.com", "web.example.com.evil")
        );
        assert!(matches("*", "") && matches("*", "anything"));
    }

    #[test]
    fn an_escape_is_the_character_itself() {
        assert!(matches("a\\*", "a*") && !matches("a\\*", "ab") && !matches("a\\*", "a\\*"));
        assert!(
            matches("a\\\\*", "a\\b") && !matches("a\\\\*", "ab"),
            "an escaped backslash, then a wildcard"
        );
        assert!(matches("a\\\\\\*", "a\\*") && !matches("a\\\\\\*", "a\\b"));
        assert!(matches("\\*a", "*a") && !matches("\\*a", "ba"));
        assert!(matches("*\\*", "x*") && !matches("*\\*", "x"));
    }

    #[test]
    fn what_is_no_pattern_has_its_own_error() {
        let error = |text: &str| Pattern::new(text.as_bytes()).unwrap_err();
        assert_eq!(error(""), PatternError::Empty);
        for text in ["**", "a*b", "*a*", "a**"] {
            assert_eq!(error(text), PatternError::Wildcard, "{text}");
        }
        for text in ["\\", "\\a", "a\\", "*\\"] {
            assert_eq!(error(text), PatternError::Escape, "{text}");
        }
        assert_eq!(error("a\0b"), PatternError::NulByte);
        assert_eq!(Pattern::new(&[b'a'; 256]), Err(PatternError::TooLong(256)));
        assert!(Pattern::new(&[b'a'; 255]).is_ok());
    }

    #[test]
    fn a_pattern_contains_those_that_match_no_more() {
        let contains = |outer: &str, inner: &str| {
            Pattern::new(outer.as_bytes()).unwrap().contains(&Pattern::new(inner.as_bytes()).unwrap())
        };
        for (outer, inner) in [
            ("*", "*"),
            ("*", "a"),
            ("*", "a*"),
            ("*", "*a"),
            ("a*", "a"),
            ("a*", "ab*"),
            ("*b", "ab"),
            ("*b", "*ab"),
            ("a", "a"),
            ("a\\*", "a\\*"),
            ("a*", "a\\*"),
        ] {
            assert!(contains(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("a", "*"),
            ("a", "a*"),
            ("a", "ab"),
            ("ab", "a"),
            ("a*", "*a"),
            ("*a", "a*"),
            ("ab*", "a*"),
            ("*ab", "b"),
        ] {
            assert!(!contains(outer, inner), "{outer} {inner}");
        }
    }

    #[test]
    fn a_pattern_covers_the_hosts_that_a_principal_can_stand_for() {
        let covers = |pattern: &str, principal: &str| {
            Pattern::new(pattern.as_bytes()).unwrap().covers(&HostPattern::new(principal.as_bytes()))
        };
        for (pattern, principal) in [
            ("*", "*"),
            ("*", "a?b"),
            ("*", ""),
            ("web", "web"),
            ("*.example.com", "web.example.com"),
            ("*.example.com", "*.example.com"),
            ("*.example.com", "?*.a.example.com"),
            ("*.example.com", ".example.com"),
            ("web*", "web*"),
            ("web*", "web?"),
            ("web*", "web1*.example.com"),
        ] {
            assert!(covers(pattern, principal), "{pattern} {principal}");
        }
        for (pattern, principal) in [
            ("web", "web*"),
            ("web", "w?b"),
            ("web", "we"),
            ("\\*.example.com", "*.example.com"),
            ("*.example.com", "*example.com"),
            ("*.example.com", "*"),
            ("*.example.com", "web.example.co?"),
            ("*.example.com", "web.EXAMPLE.com"),
            ("web*", "we*"),
            ("web*", "*web"),
            ("web*", "w?b1"),
        ] {
            assert!(!covers(pattern, principal), "{pattern} {principal}");
        }
    }

    proptest::proptest! {
        /// A covered principal matches no host outside the pattern.
        #[test]
        fn a_covered_principal_stands_for_no_host_that_does_not_match(
            pattern in "[*\\\\ab]{0,3}", principal in "[*?ab]{0,4}", host in "[ab*?]{0,5}",
        ) {
            let Ok(pattern) = Pattern::new(pattern.as_bytes()) else { return Ok(()) };
            let principal = HostPattern::new(principal.as_bytes());
            if pattern.covers(&principal) && principal.stands_for(host.as_bytes()) {
                proptest::prop_assert!(pattern.matches(host.as_bytes()));
            }
        }

        /// Everything that a contained pattern matches, the other matches too.
        #[test]
        fn a_pattern_that_is_contained_matches_no_more(
            outer in "[*\\\\ab]{0,3}", inner in "[*\\\\ab]{0,3}", name in "[*ab]{0,4}",
        ) {
            let (Ok(outer), Ok(inner)) = (Pattern::new(outer.as_bytes()), Pattern::new(inner.as_bytes())) else {
                return Ok(());
            };
            let matched = inner.matches(name.as_bytes());
            proptest::prop_assert!(!(outer.contains(&inner) && matched) || outer.matches(name.as_bytes()));
        }

        /// An independent matcher: the pattern unescaped, then compared at both ends.
        #[test]
        fn every_pattern_agrees_with_a_simple_reading(text in "[*\\\\ab]{0,6}", name in "[*\\\\ab]{0,6}") {
            let Ok(pattern) = Pattern::new(text.as_bytes()) else { return Ok(()) };
            let mut literal = std::string::String::new();
            let mut stars = std::vec::Vec::new();
            let mut characters = text.chars();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => literal.push(characters.next().unwrap()),
                    '*' => stars.push(literal.len()),
                    other => literal.push(other),
                }
            }
            let expected = match stars.as_slice() {
                [] => name == literal,
                [0] if text.starts_with('*') => name.ends_with(&literal),
                [_] => name.starts_with(&literal),
                _ => unreachable!(),
            };
            proptest::prop_assert_eq!(pattern.matches(name.as_bytes()), expected);
        }
    }
}
