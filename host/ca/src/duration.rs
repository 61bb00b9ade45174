//! Spans of time as OpenSSH writes them (`sshd_config(5)`, TIME FORMATS): `90`, `10h`, `1h30m`, `1w`.
//!
//! [`parse`] and [`compact`] use the same notation: each inverts the other.

/// Unit letter, its word, its seconds; longest first.
const UNITS: [(char, &str, u64); 5] = [
    ('w', "week", 604_800),
    ('d', "day", 86_400),
    ('h', "hour", 3_600),
    ('m', "minute", 60),
    ('s', "second", 1),
];

/// Why a text is not a span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("a time span is empty; write it like 10h, 1h30m, 1w or 90 (seconds)")]
    Empty,
    /// A unit without its number, or a character that is neither.
    #[error(
        "the time span {text:?} needs a number before {found:?}; write it like 10h, 1h30m, 1w or 90 (seconds)"
    )]
    NoNumber {
        /// The whole span.
        text: String,
        /// The character found in place of a digit.
        found: char,
    },
    /// A letter that is not a unit.
    #[error("the time span {text:?} has the unknown unit {unit:?}; units are s, m, h, d and w")]
    Unit {
        /// The whole span.
        text: String,
        /// The letter.
        unit: char,
    },
    /// More seconds than 64 bits hold.
    #[error("the time span {text:?} is longer than can be counted")]
    TooLong {
        /// The whole span.
        text: String,
    },
}

/// The seconds of a span: a sequence of numbers each with a unit (either case); a number without one, which
/// only the end has room for, counts seconds.
pub fn parse(text: &str) -> Result<u64, DurationError> {
    let too_long = || DurationError::TooLong { text: text.to_owned() };
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total = 0_u64;
    let mut rest = text;
    while let Some(found) = rest.chars().next() {
        let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        if digits.is_empty() {
            return Err(DurationError::NoNumber { text: text.to_owned(), found });
        }
        let number: u64 = digits.parse().map_err(|_| too_long())?;
        let mut letters = tail.chars();
        let seconds = match letters.next() {
            None => 1,
            Some(unit) => UNITS
                .iter()
                .find(|(letter, ..)| unit.eq_ignore_ascii_case(letter))
                .map(|(.., seconds)| *seconds)
                .ok_or_else(|| DurationError::Unit { text: text.to_owned(), unit })?,
        };
        total = number.checked_mul(seconds).and_then(|span| total.checked_add(span)).ok_or_else(too_long)?;
        rest = letters.as_str();
    }
    Ok(total)
}

/// The shortest exact spelling in OpenSSH's notation: `1h30m`; `0s` for nothing.
#[must_use]
pub fn compact(seconds: u64) -> String {
    spell(seconds, |count, letter, _| format!("{count}{letter}"), "", "0s")
}

/// The exact span in words: `1 hour 30 minutes`; `0 seconds` for nothing.
#[must_use]
pub fn in_words(seconds: u64) -> String {
    let part = |count, _, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    spell(seconds, part, " ", "0 seconds")
}

fn spell(mut rest: u64, part: impl Fn(u64, char, &str) -> String, between: &str, nothing: &str) -> String {
    let mut parts = Vec::new();
    for (letter, word, unit) in UNITS {
        if rest >= unit {
            parts.push(part(rest / unit, letter, word));
            rest %= unit;
        }
    }
    if parts.is_empty() { nothing.to_owned() } else { parts.join(between) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn openssh_notation_is_read_unit_by_unit() {
        for (text, seconds) in [
            ("0", 0),
            ("600", 600),
            ("10m", 600),
            ("1h30m", 5_400),
            ("1H30M", 5_400),
            ("2d", 172_800),
            ("1w", 604_800),
            ("1d12", 86_412),
            ("1h1h", 7_200),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse(""), Err(DurationError::Empty));
        assert_eq!(parse("h"), Err(DurationError::NoNumber { text: "h".into(), found: 'h' }));
        assert_eq!(parse("1hh"), Err(DurationError::NoNumber { text: "1hh".into(), found: 'h' }));
        assert_eq!(parse("-5m"), Err(DurationError::NoNumber { text: "-5m".into(), found: '-' }));
        assert_eq!(parse("1.5h"), Err(DurationError::Unit { text: "1.5h".into(), unit: '.' }));
        assert_eq!(parse("1y"), Err(DurationError::Unit { text: "1y".into(), unit: 'y' }));
        for text in ["18446744073709551616", "99999999999999999w", "18446744073709551615s1s"] {
            assert_eq!(parse(text), Err(DurationError::TooLong { text: text.into() }));
        }
    }

    #[test]
    fn words_count_one_and_many() {
        assert_eq!(in_words(0), "0 seconds");
        assert_eq!(in_words(300), "5 minutes");
        assert_eq!(in_words(3_661), "1 hour 1 minute 1 second");
        assert_eq!(compact(5_400), "1h30m");
        assert_eq!(compact(0), "0s");
    }

    proptest! {
        #[test]
        fn a_compact_span_reads_back_as_itself(seconds: u64) {
            prop_assert_eq!(parse(&compact(seconds)), Ok(seconds));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9smhdwSMHDW é.+-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
