//! The validity interval of a certificate, from the text that `ssh-keygen -V` takes.
//!
//! Everything that OpenSSH 9.2's ssh-keygen accepts means the same here, to the second, including its quirks:
//! a single relative time starts a minute in the past (on a whole minute, for clocks that disagree), dates
//! that exceed their month run on into the next, and a local time is interpreted in the zone's *standard*
//! time, even in summer.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::duration::{self, DurationError};

/// The accepted forms, for messages.
const FORMS: &str = "YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS (add Z for UTC), +SPAN or -SPAN from now (such as +52w), \
                     or 0x and the hexadecimal UNIX time";

/// The longest span that ssh-keygen reads: the seconds that a C `int` holds.
const MAX_SPAN: u64 = i32::MAX as u64;

/// When a certificate is valid: `after <= time < before`, seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    after: u64,
    before: u64,
}

/// Which half of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Before the colon.
    Start,
    /// After the colon.
    End,
}

impl Bound {
    const fn unlimited(self) -> (&'static str, u64) {
        match self {
            Self::Start => ("always", 0),
            Self::End => ("forever", u64::MAX),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::End => "end",
        })
    }
}

/// Why a text is not a validity interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// Neither `+SPAN` nor two times with a colon between.
    #[error(
        "the validity {text:?} is neither +SPAN (from now on, such as +1h) nor START:END (such as always:forever)"
    )]
    Shape {
        /// The whole interval.
        text: String,
    },
    /// One half is in no known form.
    #[error("the {bound} {text:?} of the validity is none of: {:?}, {FORMS}", .bound.unlimited().0)]
    Form {
        /// Which half.
        bound: Bound,
        /// That half.
        text: String,
    },
    /// One half has the form of a date, but a part of it is out of range.
    #[error("the {bound} {text:?} of the validity has the {part} {value}; allowed is {low} to {high}")]
    Range {
        /// Which half.
        bound: Bound,
        /// That half.
        text: String,
        /// Which part of the date.
        part: &'static str,
        /// Its value.
        value: i64,
        /// The least that it may be.
        low: i64,
        /// The most that it may be.
        high: i64,
    },
    /// One half is a relative time with a bad span.
    #[error("the {bound} {text:?} of the validity is not a time relative to now")]
    Span {
        /// Which half.
        bound: Bound,
        /// That half.
        text: String,
        /// The defect of the span.
        source: DurationError,
    },
    /// One half is farther from now than ssh-keygen counts.
    #[error(
        "the {bound} {text:?} of the validity is more than 68 years from now; a certificate for longer is valid \"forever\""
    )]
    TooFar {
        /// Which half.
        bound: Bound,
        /// That half.
        text: String,
    },
    /// One half is before 1970 or beyond what 64 bits can count.
    #[error("the {bound} {text:?} of the validity is before 1970 or too far in the future to be represented")]
    Unrepresentable {
        /// Which half.
        bound: Bound,
        /// That half.
        text: String,
    },
    /// The end is not after the start.
    #[error("the validity is empty: it ends at {before}, and starts at {after} (UNIX seconds)")]
    Empty {
        /// The start.
        after: u64,
        /// The end.
        before: u64,
    },
    /// A local time was given, and the zone is not known.
    #[error("the time zone {zone:?} (TZ) is unknown; correct it, or add Z to times that are UTC: {reason}")]
    Zone {
        /// The value of TZ.
        zone: String,
        /// The parser's error.
        reason: String,
    },
    /// The system clock shows a time before 1970.
    #[error("the system clock is set to a time before 1970")]
    Clock,
}

impl Validity {
    /// No limit on either side, which is what a certificate without `-V` gets.
    pub const UNLIMITED: Self = Self { after: 0, before: u64::MAX };

    /// The interval between two UNIX times; the end must lie after the start.
    pub const fn new(after: u64, before: u64) -> Result<Self, ValidityError> {
        if after < before { Ok(Self { after, before }) } else { Err(ValidityError::Empty { after, before }) }
    }

    /// The start, UNIX seconds; 0 when there is none.
    #[must_use]
    pub const fn after(self) -> u64 {
        self.after
    }

    /// The end, UNIX seconds; `u64::MAX` when there is none.
    #[must_use]
    pub const fn before(self) -> u64 {
        self.before
    }

    /// Reads `text` with the system's clock and time zone.
    pub fn parse(text: &str) -> Result<Self, ValidityError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| ValidityError::Clock)?;
        Self::parse_in(text, now.as_secs(), &system_zone)
    }

    /// Reads `text` at the UNIX time `now` in `zone`.
    pub fn parse_at(text: &str, now: u64, zone: &TimeZone) -> Result<Self, ValidityError> {
        Self::parse_in(text, now, &|| Ok(zone.clone()))
    }

    fn parse_in(text: &str, now: u64, zone: Zone<'_>) -> Result<Self, ValidityError> {
        if text.starts_with('+') && !text.contains(':') {
            let before = bound(Bound::End, text, now, zone)?;
            return Self::new(now.saturating_sub(59) / 60 * 60, before);
        }
        let shape = || ValidityError::Shape { text: text.to_owned() };
        let (start, end) = text.split_once(':').ok_or_else(shape)?;
        if start.is_empty() || end.is_empty() {
            return Err(shape());
        }
        Self::new(bound(Bound::Start, start, now, zone)?, bound(Bound::End, end, now, zone)?)
    }
}

/// The source of the zone when a local time is encountered.
type Zone<'a> = &'a dyn Fn() -> Result<TimeZone, ValidityError>;

/// The zone of TZ or of the system. A system that has none set lives in UTC, as it does for C programs.
fn system_zone() -> Result<TimeZone, ValidityError> {
    TimeZone::try_system().or_else(|error| match std::env::var_os("TZ") {
        None => Ok(TimeZone::UTC),
        Some(zone) => {
            Err(ValidityError::Zone { zone: zone.to_string_lossy().into_owned(), reason: error.to_string() })
        }
    })
}

/// One half of an interval as a UNIX time.
fn bound(bound: Bound, text: &str, now: u64, zone: Zone<'_>) -> Result<u64, ValidityError> {
    let form = || ValidityError::Form { bound, text: text.to_owned() };
    let unrepresentable = || ValidityError::Unrepresentable { bound, text: text.to_owned() };
    let span = |span| match duration::parse(span) {
        Ok(seconds) if seconds <= MAX_SPAN => Ok(seconds),
        Ok(_) | Err(DurationError::TooLong { .. }) => {
            Err(ValidityError::TooFar { bound, text: text.to_owned() })
        }
        Err(source) => Err(ValidityError::Span { bound, text: text.to_owned(), source }),
    };
    let (unlimited, value) = bound.unlimited();
    if text == unlimited {
        Ok(value)
    } else if let Some(later) = text.strip_prefix('+') {
        now.checked_add(span(later)?).ok_or_else(unrepresentable)
    } else if let Some(earlier) = text.strip_prefix('-') {
        now.checked_sub(span(earlier)?).ok_or_else(unrepresentable)
    } else if let Some(hex) = text.strip_prefix("0x") {
        if hex.is_empty() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(form());
        }
        u64::from_str_radix(hex, 16).map_err(|_| unrepresentable())
    } else {
        let (digits, utc) = without_utc(text);
        if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(form());
        }
        let clock = Clock::read(digits).map_err(|(part, value, low, high)| ValidityError::Range {
            bound,
            text: text.to_owned(),
            part,
            value,
            low,
            high,
        })?;
        let mut seconds = clock.seconds();
        if !utc && let Some(local) = seconds {
            seconds = Some(local - standard_offset(local, &zone()?));
        }
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).ok_or_else(unrepresentable)
    }
}

/// The digits of an absolute time, and whether it is marked as UTC.
fn without_utc(text: &str) -> (&str, bool) {
    let cut = |suffix: &str| {
        let (head, tail) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
        tail.eq_ignore_ascii_case(suffix).then_some(head)
    };
    cut("Z").or_else(|| cut("UTC")).map_or((text, false), |digits| (digits, true))
}

/// A date and a time of day, each part within the range that `strptime(3)` allows.
struct Clock {
    month: Date,
    day: i64,
    second_of_day: i64,
}

impl Clock {
    /// Reads 8, 12 or 14 digits; an error is the part, its value, and the least and the most allowed.
    fn read(digits: &str) -> Result<Self, (&'static str, i64, i64, i64)> {
        let part = |name, from: usize, length: usize, low, high| {
            let Some(value) = digits.get(from..from + length) else { return Ok(0) };
            match value.parse::<i64>() {
                Ok(value) if (low..=high).contains(&value) => Ok(value),
                value => Err((name, value.unwrap_or_default(), low, high)),
            }
        };
        let year = part("year", 0, 4, 0, 9999)?;
        let month = part("month", 4, 2, 1, 12)?;
        let day = part("day", 6, 2, 1, 31)?;
        let hour = part("hour", 8, 2, 0, 23)?;
        let minute = part("minute", 10, 2, 0, 59)?;
        let second = part("second", 12, 2, 0, 61)?;
        let (Ok(y), Ok(m)) = (i16::try_from(year), i8::try_from(month)) else {
            return Err(("year", year, 0, 9999));
        };
        let month = Date::new(y, m, 1).map_err(|_| ("month", month, 1, 12))?;
        Ok(Self { month, day, second_of_day: hour * 3600 + minute * 60 + second })
    }

    /// Seconds from 1970-01-01 00:00:00 to this date and time, both on the same clock.
    fn seconds(&self) -> Option<i64> {
        let days = self.month.duration_since(date(1970, 1, 1)).as_hours() / 24 + self.day - 1;
        days.checked_mul(86_400)?.checked_add(self.second_of_day)
    }
}

/// The offset of the zone's standard time from UTC, seconds, around the local time `local` (counted from
/// 1970).
///
/// ssh-keygen passes `mktime(3)` a date marked "not in summer time"; this is what glibc makes of it.
fn standard_offset(local: i64, zone: &TimeZone) -> i64 {
    let Ok(time) = date(1970, 1, 1).at(0, 0, 0, 0).checked_add(SignedDuration::from_secs(local)) else {
        return 0;
    };
    let instant = zone.to_timestamp(time).unwrap_or(Timestamp::MAX);
    let here = zone.to_offset_info(instant);
    let offset = if here.dst().is_dst() {
        zone.preceding(instant)
            .chain(zone.following(instant))
            .find(|transition| !transition.dst().is_dst())
            .map_or(here.offset(), |transition| transition.offset())
    } else {
        here.offset()
    };
    i64::from(offset.seconds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_keygen::SshKeygen;
    use proptest::prelude::*;
    use sshsm_tests::requirement::Missing;

    /// 2026-11-21 21:02:45 UTC.
    const NOW: u64 = 1_795_294_965;

    fn read(text: &str) -> Result<(u64, u64), ValidityError> {
        Validity::parse_at(text, NOW, &TimeZone::UTC).map(|validity| (validity.after, validity.before))
    }

    /// Values that ssh-keygen 9.2p1 wrote into certificates at that very second.
    #[test]
    fn intervals_are_what_ssh_keygen_issued() {
        for (text, interval) in [
            ("+1h", (1_795_294_860, 1_795_298_565)),
            ("always:forever", (0, u64::MAX)),
            ("+52w", (1_795_294_860, 1_826_744_565)),
            ("-4w:+4w", (1_792_875_765, 1_797_714_165)),
            ("20100101123000:20110101123000", (1_262_349_000, 1_293_885_000)),
            ("201001011230Z:20110101utc", (1_262_349_000, 1_293_840_000)),
            ("0x1:0xFFFFFFFFFFFFFFFF", (1, u64::MAX)),
            ("20100231:20110101", (1_267_574_400, 1_293_840_000)),
            ("20100101123060Z:forever", (1_262_349_060, u64::MAX)),
            ("+0:+1", (NOW, NOW + 1)),
            ("19700101Z:99991231Z", (0, 253_402_214_400)),
        ] {
            assert_eq!(read(text), Ok(interval), "{text}");
        }
    }

    #[test]
    fn the_system_clock_is_read() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(Validity::parse("-1h:+1h").unwrap().after().abs_diff(now - 3600) <= 1);
    }

    #[test]
    fn local_times_are_standard_times_also_in_summer_and_in_the_gap() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (text, after) in [
            ("20100101123000:forever", 1_262_345_400),
            ("20100701123000:forever", 1_277_983_800),
            ("20100701123000Z:forever", 1_277_987_400),
            ("20270328023000:forever", 1_806_197_400),
            ("20271031023000:forever", 1_824_946_200),
        ] {
            assert_eq!(Validity::parse_at(text, NOW, &berlin).unwrap().after(), after, "{text}");
        }
    }

    #[test]
    fn the_half_and_the_part_that_are_wrong_are_named() {
        for text in ["", "1h", "-1h", "20300101", "always", ":+1h", "+1h:", "0x10", ":"] {
            assert_eq!(read(text), Err(ValidityError::Shape { text: text.into() }), "{text}");
        }
        for (text, bound, part) in [
            ("forever:forever", Bound::Start, "forever"),
            ("always:always", Bound::End, "always"),
            ("2010-01-01:forever", Bound::Start, "2010-01-01"),
            ("2010010112:forever", Bound::Start, "2010010112"),
            ("20100101ZZ:forever", Bound::Start, "20100101ZZ"),
            ("always:0x", Bound::End, "0x"),
            ("always:0x+1", Bound::End, "0x+1"),
            ("always:é", Bound::End, "é"),
            ("0X1:forever", Bound::Start, "0X1"),
        ] {
            assert_eq!(read(text), Err(ValidityError::Form { bound, text: part.into() }), "{text}");
        }
        for (text, part) in [
            ("20101301:forever", "month"),
            ("20100001:forever", "month"),
            ("20100132:forever", "day"),
            ("20100100:forever", "day"),
            ("201001012400:forever", "hour"),
            ("201001012360:forever", "minute"),
            ("20100101235962:forever", "second"),
        ] {
            assert!(matches!(read(text), Err(ValidityError::Range { part: p, .. }) if p == part), "{text}");
        }
        for text in ["196901010000Z:forever", "-2147483647:forever", "always:0x11111111111111111"] {
            assert!(
                matches!(read(text), Err(ValidityError::Unrepresentable { .. })),
                "{text}: {:?}",
                read(text)
            );
        }
        for text in ["always:+2147483648", "-2147483648:forever", "always:+99999999999999999999w"] {
            assert!(matches!(read(text), Err(ValidityError::TooFar { .. })), "{text}");
        }
        assert_eq!(read("always:+2147483647"), Ok((0, NOW + 2_147_483_647)));
        assert_eq!(read("+1h:+1h"), Err(ValidityError::Empty { after: NOW + 3600, before: NOW + 3600 }));
        assert!(matches!(read("+1x"), Err(ValidityError::Span { bound: Bound::End, .. })));
        assert!(read("0x1:0x1").unwrap_err().to_string().contains("empty"));
    }

    /// Texts with their blanks between; refused ones from the empty text on.
    const TEXTS: &str = "+1h +52w +1h30m +0 -4w:+4w always:forever always:+1d -5m:forever +1d12:+2D \
        20100101123000:20110101123000 20100701:20110701 201007011230:201107011230Z 20270328023000:20271031023000 \
        20270404020000:20271003020000 20100231:20110101 20100101Z:20110101UTC 201001012359utc:20110101z \
        20100101235961:forever 0x1:0xFFFFFFFFFFFFFFFF 0x00000000000000001:forever 20100101:99991231 \
        19700101Z:forever 0x10:20100101000000 +2147483647  1h -1h 20300101 :+1h +1h: +1x + -:+1h +1hh +h +1h:+1m \
        0x1:0x1 forever:forever always:always 20100132:forever 20101301:forever 201001012400:forever \
        201001012360:forever 20100101235962:forever 2010010112:forever 2010-01-01:forever 196901010000Z:forever \
        always:0x always:0x11111111111111111 0X1:forever 20100101ZZ:forever -99999w:forever +2147483648 \
        always:+99999999999w ALWAYS:forever";

    #[test]
    fn ssh_keygen_writes_the_same_times_and_refuses_the_same_texts() {
        let rules = ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "LHST-10:30LHDT-11,M10.1.0,M4.1.0"];
        same_as_ssh_keygen(rules.map(|name| (name, TimeZone::posix(name).unwrap())));
    }

    /// Zones with summer time, without, with half an hour of it, and with winter time instead (Dublin).
    #[test]
    fn ssh_keygen_writes_the_same_times_in_zones_that_have_names() {
        const NAMES: [&str; 5] =
            ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Europe/Dublin"];
        match NAMES.map(TimeZone::get).into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(zones) => same_as_ssh_keygen(NAMES.into_iter().zip(zones)),
            Err(error) => {
                Missing::new(format!("a time zone ({error})"), "apt-get install tzdata").report();
            }
        }
    }

    fn same_as_ssh_keygen(zones: impl IntoIterator<Item = (&'static str, TimeZone)>) {
        let Some(keygen) = SshKeygen::for_test() else { return };
        keygen.key("ca", "ed25519", "");
        keygen.key("subject", "ed25519", "");
        for (name, zone) in zones {
            for text in TEXTS.split(' ') {
                let ours = |now| Validity::parse_at(text, now, &zone).ok().map(|v| (v.after, v.before));
                let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let start = clock();
                let line = keygen.sign(name, "ca", "subject", &["-I", "id", "-V", text]);
                let end = clock();
                let theirs = line.ok().map(|line| {
                    let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
                    (certificate.valid_after(), certificate.valid_before())
                });
                // time(2), which ssh-keygen asks, lags some milliseconds behind.
                let same = (start - 1..=end).any(|now| ours(now) == theirs);
                assert!(same, "{name} {text}: {theirs:?}, ours {:?}", ours(end));
            }
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_times_come_back_exactly(after: u64, before: u64) {
            let expected = Validity::new(after, before);
            prop_assert_eq!(Validity::parse_at(&format!("{after:#x}:{before:#x}"), NOW, &TimeZone::UTC), expected);
        }

        #[test]
        fn calendar_times_agree_with_the_calendar(seconds in 0_i64..253_402_300_799) {
            let time = date(1970, 1, 1).at(0, 0, 0, 0) + SignedDuration::from_secs(seconds);
            let text = format!("{}:forever", time.strftime("%Y%m%d%H%M%SZ"));
            prop_assert_eq!(read(&text), Ok((seconds.cast_unsigned(), u64::MAX)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9a-fxzwhmsZUTC:+é -]{0,40}") {
            let _ = read(&text);
        }
    }
}
