//! A wrap key in m of n shares: fewer than m reveal nothing about it, any m reconstruct it (Shamir, over
//! GF(2⁸), byte by byte).
//!
//! A share is 48 bytes: `version u8 ‖ m u8 ‖ n u8 ‖ number u8 ‖ backup id[5] ‖ value[32] ‖ check[7]`. On
//! paper it is four lines, each 12 of those bytes and 3 that check them, in Crockford's base32 (no I, L, O,
//! U; upper and lower case are equivalent) and in groups of four. A line's check covers its position, its
//! share and its backup, so that every line is known to be right, or refused, as soon as it is typed; the
//! check at the end covers the whole share.

use std::fmt;

use base32::Alphabet;
use getrandom::{SysRng, rand_core::UnwrapErr};
use sha2::{Digest, Sha256};
use sshsm_client::{Failure, Kind};
use vsss_rs::Gf256;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of the key that is shared, AES-256's.
pub const KEY_LENGTH: usize = 32;
/// The key that is shared.
pub type Key = Zeroizing<[u8; KEY_LENGTH]>;
/// Lines of a share.
pub const LINES: usize = 4;
/// Characters of a line, spaces not counted.
pub const LINE_CHARACTERS: usize = 24;

const VERSION: u8 = 1;
const ID_LENGTH: usize = 5;
const HEADER_LENGTH: usize = 4 + ID_LENGTH;
const LENGTH: usize = HEADER_LENGTH + KEY_LENGTH + 7;
const LINE_LENGTH: usize = LENGTH / LINES;

/// Why shares were not made, read or combined. No variant reveals anything about a share's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// There is no such m of n.
    #[error(
        "{threshold} of {shares} is not a valid scheme: at least 2, and at most as many as there are shares"
    )]
    Scheme {
        /// The m.
        threshold: u8,
        /// The n.
        shares: u8,
    },
    /// A line is shorter or longer than lines are.
    #[error("line {line} has {found} characters; a line of a share has {LINE_CHARACTERS}")]
    LineLength {
        /// Which, from 1.
        line: usize,
        /// Characters it has.
        found: usize,
    },
    /// A line is not as it was printed.
    #[error("line {line} is mistyped, or belongs elsewhere")]
    Line {
        /// Which, from 1.
        line: usize,
    },
    /// Every line is right and the share is not.
    #[error("the lines are right but their sum is not: this is not a share")]
    Check,
    /// The share ends too early.
    #[error("the share ends before line {line}; it has {LINES} lines")]
    Ended {
        /// The first line that is missing, from 1.
        line: usize,
    },
    /// Something follows the share.
    #[error("there is more than the {LINES} lines of a share")]
    Trailing,
    /// A share of a later form.
    #[error("line 1 is of a share in form {0}; this program knows form {VERSION}")]
    Version(u8),
    /// A share of another backup.
    #[error("this share is of backup {found}; the backup is {expected}")]
    Foreign {
        /// The backup in line 1.
        found: BackupId,
        /// The expected backup.
        expected: BackupId,
    },
    /// A share that was made for another m of n.
    #[error("this share is one of {found}; the backup's are {expected}")]
    OtherScheme {
        /// The scheme in line 1.
        found: Scheme,
        /// The expected scheme.
        expected: Scheme,
    },
    /// A share that was given before.
    #[error("share {0} was given already")]
    Repeated(u8),
    /// A share with right checksums that is not one of those that were made.
    #[error(
        "share {0} is not the one that was made with this backup: it is forged, or the backup was changed; its lines are \
         right, so that it is not mistyped"
    )]
    Forged(u8),
    /// Fewer than the m that make the key.
    #[error("{needed} shares are needed, and there are {given}")]
    TooFew {
        /// The m.
        needed: u8,
        /// How many there are.
        given: usize,
    },
    /// The mathematics refused.
    #[error("cannot share the key: {0}")]
    Sharing(vsss_rs::Error),
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Entropy(getrandom::Error),
}

impl Failure for ShareError {
    fn kind(&self) -> Kind {
        Kind::Failed
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::TooFew { .. } => {
                Some("name files with --share-file, or run it on a terminal, which asks for the shares")
            }
            Self::Scheme { .. }
            | Self::LineLength { .. }
            | Self::Line { .. }
            | Self::Check
            | Self::Ended { .. }
            | Self::Trailing
            | Self::Version(_)
            | Self::Foreign { .. }
            | Self::OtherScheme { .. }
            | Self::Repeated(_)
            | Self::Forged(_)
            | Self::Sharing(_)
            | Self::Entropy(_) => None,
        }
    }
}

/// How many shares there are, and how many of them make the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    threshold: u8,
    shares: u8,
}

impl Scheme {
    /// Any `threshold` of `shares`; at least 2, so that no single share is the key.
    ///
    /// # Errors
    /// [`ShareError::Scheme`] when there is no such scheme.
    pub const fn new(threshold: u8, shares: u8) -> Result<Self, ShareError> {
        match threshold {
            2..=u8::MAX if threshold <= shares => Ok(Self { threshold, shares }),
            _ => Err(ShareError::Scheme { threshold, shares }),
        }
    }

    /// How many shares make the key, the m.
    #[must_use]
    pub const fn threshold(self) -> u8 {
        self.threshold
    }

    /// How many shares there are, the n.
    #[must_use]
    pub const fn shares(self) -> u8 {
        self.shares
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.threshold, self.shares)
    }
}

/// The name of a backup, the same on its file and on each of its shares: 40 random bits, written as
/// `7K2M-9XQA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupId([u8; ID_LENGTH]);

impl BackupId {
    /// A new one.
    ///
    /// # Errors
    /// [`ShareError::Entropy`].
    pub fn random() -> Result<Self, ShareError> {
        let mut id = [0; ID_LENGTH];
        getrandom::fill(&mut id).map_err(ShareError::Entropy)?;
        Ok(Self(id))
    }

    /// The one with this text, exactly as written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = base32::decode(Alphabet::Crockford, &text.replace('-', ""))?;
        Some(Self(bytes.try_into().ok()?)).filter(|id| id.to_string() == text)
    }

    /// The random bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = base32::encode(Alphabet::Crockford, &self.0);
        let (first, second) = text.split_at_checked(4).unwrap_or((&text, ""));
        write!(f, "{first}-{second}")
    }
}

/// One share of a key.
#[derive(PartialEq, Eq)]
pub struct Share {
    scheme: Scheme,
    number: u8,
    backup: BackupId,
    value: Key,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({}, {} of {}, …)", self.backup, self.number, self.scheme.shares)
    }
}

impl Share {
    /// Its number, from 1.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Its scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The backup it belongs to.
    #[must_use]
    pub const fn backup(&self) -> BackupId {
        self.backup
    }

    /// The commitment to a share in a backup, which distinguishes it from a forged one: SHA-256 of the whole
    /// share. It reveals nothing about the share's value, which is as long and as random as a key.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        let Self { scheme, number, backup, value } = self;
        Sha256::new()
            .chain_update(b"sshsm share commitment")
            .chain_update([VERSION, scheme.threshold, scheme.shares, *number])
            .chain_update(backup.as_bytes())
            .chain_update(value.as_slice())
            .finalize()
            .into()
    }

    /// Its printed form: a line that describes it, then its lines with their numbers.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let Self { scheme, number, backup, .. } = self;
        let mut text = Zeroizing::new(String::with_capacity(256));
        *text += &format!(
            "# sshsm backup {backup}: share {number} of {}; any {} of them make its key\n",
            scheme.shares, scheme.threshold
        );
        for (index, line) in self.lines().iter().enumerate() {
            *text += &format!("{}:", index + 1);
            for (at, character) in line.chars().enumerate() {
                if at % 4 == 0 {
                    text.push(' ');
                }
                text.push(character);
            }
            text.push('\n');
        }
        text
    }

    fn lines(&self) -> Vec<Zeroizing<String>> {
        let Scheme { threshold, shares } = self.scheme;
        let header = [&[VERSION, threshold, shares, self.number], self.backup.as_bytes()].concat();
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(self.value.as_slice());
        let check = share_check(&bytes);
        bytes.extend_from_slice(&check);
        let line = |(index, line)| {
            let check = line_check(index, &header, line);
            let line = Zeroizing::new([line, &check].concat());
            Zeroizing::new(base32::encode(Alphabet::Crockford, &line))
        };
        (0..).zip(bytes.chunks(LINE_LENGTH)).map(line).collect()
    }

    /// The share in a text: its lines with or without their numbers; empty lines and those that begin with
    /// `#` are ignored.
    ///
    /// # Errors
    /// [`ShareError`], with the number of the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let mut entry = Entry::any();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let share = loop {
            let line = lines.next().ok_or(ShareError::Ended { line: entry.line() })?;
            if let Some(share) = entry.enter(line)? {
                break share;
            }
        };
        if lines.next().is_some() { Err(ShareError::Trailing) } else { Ok(share) }
    }
}

/// A share on its way in, line by line.
pub struct Entry {
    /// The backup and scheme that it must belong to, if known, and the numbers of the shares already given.
    expected: Option<(BackupId, Scheme, Vec<u8>)>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Entry {
    /// A share of any backup.
    #[must_use]
    pub fn any() -> Self {
        Self { expected: None, bytes: Zeroizing::new(Vec::with_capacity(LENGTH)) }
    }

    /// A share of this backup that is not one of those already given.
    #[must_use]
    pub fn of(backup: BackupId, scheme: Scheme, there: &[Share]) -> Self {
        let there = there.iter().map(Share::number).collect();
        Self { expected: Some((backup, scheme, there)), ..Self::any() }
    }

    /// The number of the next line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.bytes.len() / LINE_LENGTH + 1
    }

    /// Accepts the next line, with or without its number; returns the share after the last one.
    ///
    /// # Errors
    /// [`ShareError`]; a refused line may be entered again.
    pub fn enter(&mut self, text: &str) -> Result<Option<Share>, ShareError> {
        let line = self.line();
        let digits = text.trim().strip_prefix(&format!("{line}:")).unwrap_or(text);
        let mut characters = Zeroizing::new(String::with_capacity(digits.len()));
        characters.extend(digits.chars().filter(|character| !character.is_whitespace() && *character != '-'));
        let found = characters.chars().count();
        if found != LINE_CHARACTERS {
            return Err(ShareError::LineLength { line, found });
        }
        let decoded = base32::decode(Alphabet::Crockford, &characters).map(Zeroizing::new);
        let decoded = decoded.ok_or(ShareError::Line { line })?;
        let (content, check) = decoded.split_at_checked(LINE_LENGTH).ok_or(ShareError::Line { line })?;
        let before = self.bytes.len();
        self.bytes.extend_from_slice(content);
        let entered = self.check(line, check);
        if entered.is_err() {
            self.bytes.truncate(before);
        }
        entered
    }

    fn check(&self, line: usize, check: &[u8]) -> Result<Option<Share>, ShareError> {
        let wrong = ShareError::Line { line };
        let (header, rest) = self.bytes.split_first_chunk::<HEADER_LENGTH>().ok_or(wrong.clone())?;
        let content = self.bytes.chunks(LINE_LENGTH).nth(line - 1).ok_or(wrong.clone())?;
        let index = u8::try_from(line - 1).map_err(|_| wrong.clone())?;
        if line_check(index, header, content) != check {
            return Err(wrong);
        }
        let &[version, threshold, shares, number, ref id @ ..] = header;
        if version != VERSION {
            return Err(ShareError::Version(version));
        }
        let scheme = Scheme::new(threshold, shares)?;
        let backup = BackupId(*id);
        if let Some((expected, of, there)) = &self.expected {
            belongs((backup, scheme, number), (*expected, *of), there)?;
        }
        if number == 0 || number > shares {
            return Err(ShareError::Check);
        }
        if self.bytes.len() < LENGTH {
            return Ok(None);
        }
        let (value, _) = rest.split_first_chunk::<KEY_LENGTH>().ok_or(ShareError::Check)?;
        let whole = self.bytes.split_at_checked(HEADER_LENGTH + KEY_LENGTH);
        if whole.is_none_or(|(content, check)| share_check(content) != check) {
            return Err(ShareError::Check);
        }
        Ok(Some(Share { scheme, number, backup, value: Zeroizing::new(*value) }))
    }
}

/// What fits one line of one share only.
fn line_check(index: u8, header: &[u8], content: &[u8]) -> [u8; 3] {
    digest(&[b"sshsm share line", &[index], header, content])
}

fn share_check(content: &[u8]) -> [u8; LENGTH - HEADER_LENGTH - KEY_LENGTH] {
    digest(&[b"sshsm share", content])
}

fn digest<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let digest = parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize();
    let mut first = [0; N];
    first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    first
}

/// Shares `key`; each share has been parsed from its text again, and the first and the last of them have
/// reconstructed the key.
///
/// # Errors
/// When the operating system supplies no random numbers.
pub fn split(key: &Key, backup: BackupId, scheme: Scheme) -> Result<Vec<Share>, ShareError> {
    // Checked first, and as an error: below, a system without random numbers ends the process.
    getrandom::fill(&mut [0; 1]).map_err(ShareError::Entropy)?;
    let Scheme { threshold, shares } = scheme;
    let points =
        Gf256::split_bytes(usize::from(threshold), usize::from(shares), key.as_slice(), UnwrapErr(SysRng))
            .map_err(ShareError::Sharing)?;
    let share = |mut point: Vec<u8>| {
        let (&number, bytes) = point.split_first().ok_or(ShareError::Check)?;
        let value = Zeroizing::new(bytes.try_into().map_err(|_| ShareError::Check)?);
        point.zeroize();
        Share::parse(&Share { scheme, number, backup, value }.text())
    };
    let shares: Vec<Share> = points.into_iter().map(share).collect::<Result<_, _>>()?;
    // The first m and the last m.
    let mut some = shares.windows(usize::from(threshold));
    for some in [some.next(), some.next_back()].into_iter().flatten() {
        if combine(some)? != *key {
            return Err(ShareError::Check);
        }
    }
    Ok(shares)
}

/// The key reconstructed from shares of one backup. Only the backup can show whether it is the right one.
///
/// # Errors
/// [`ShareError`] when they are too few, of several backups or not all different.
pub fn combine(shares: &[Share]) -> Result<Key, ShareError> {
    let Some(first) = shares.first() else {
        return Err(ShareError::TooFew { needed: 2, given: 0 });
    };
    for (index, share) in shares.iter().enumerate() {
        fits(share, shares.get(..index).unwrap_or_default(), first.backup, first.scheme)?;
    }
    if shares.len() < usize::from(first.scheme.threshold) {
        return Err(ShareError::TooFew { needed: first.scheme.threshold, given: shares.len() });
    }
    interpolate(&shares.iter().collect::<Vec<_>>())
}

/// Selections of shares for reconstructing a key: wrong shares are found by leaving out others.
///
/// The choices of `threshold` numbers below `given`, in their order, and no more than [`MOST_TRIES`].
fn choices(given: usize, threshold: usize) -> impl Iterator<Item = Vec<usize>> {
    let first = (threshold <= given).then(|| (0..threshold).collect::<Vec<_>>());
    std::iter::successors(first, move |last| {
        let mut next = last.clone();
        // The last number that can still increase does, and those after it follow.
        let place = (0..threshold)
            .rev()
            .find(|place| next.get(*place).is_some_and(|number| *number < given - threshold + place))?;
        let number = next.get(place)? + 1;
        next.iter_mut().skip(place).zip(number..).for_each(|(at, number)| *at = number);
        Some(next)
    })
    .take(MOST_TRIES)
}

/// How many choices of shares are tried: all of ten shares, and many of more.
const MOST_TRIES: usize = 20_000;

/// The key that `accept` accepts, from any m of the shares, and the numbers of the shares that do not belong
/// to it.
///
/// # Errors
/// Like [`combine`]; `None` when no choice gives an acceptable key.
pub fn recover(
    shares: &[Share],
    mut accept: impl FnMut(&Key) -> bool,
) -> Result<Option<(Key, Vec<u8>)>, ShareError> {
    let Some(first) = shares.first() else {
        return Err(ShareError::TooFew { needed: 2, given: 0 });
    };
    let threshold = usize::from(first.scheme.threshold);
    if shares.len() < threshold {
        return Err(ShareError::TooFew { needed: first.scheme.threshold, given: shares.len() });
    }
    for (index, share) in shares.iter().enumerate() {
        fits(share, shares.get(..index).unwrap_or_default(), first.backup, first.scheme)?;
    }
    for choice in choices(shares.len(), threshold) {
        let chosen: Vec<&Share> = choice.iter().filter_map(|index| shares.get(*index)).collect();
        let key = interpolate(&chosen)?;
        if !accept(&key) {
            continue;
        }
        let mut wrong = Vec::new();
        for share in shares.iter().filter(|share| !chosen.iter().any(|other| other.number == share.number)) {
            // One that belongs makes the same key in the place of any other.
            let with: Vec<&Share> = chosen.iter().skip(1).copied().chain([share]).collect();
            if interpolate(&with)? != key {
                wrong.push(share.number);
            }
        }
        return Ok(Some((key, wrong)));
    }
    Ok(None)
}

fn interpolate(shares: &[&Share]) -> Result<Key, ShareError> {
    let points = Zeroizing::new(
        shares.iter().map(|share| [&[share.number], share.value.as_slice()].concat()).collect::<Vec<_>>(),
    );
    let key = Zeroizing::new(Gf256::combine_bytes(points.as_slice()).map_err(ShareError::Sharing)?);
    Ok(Zeroizing::new(key.as_slice().try_into().map_err(|_| ShareError::Check)?))
}

/// Whether a share belongs to the backup and is not among those that are there.
///
/// # Errors
/// [`ShareError::Foreign`], [`ShareError::OtherScheme`], [`ShareError::Repeated`].
pub fn fits(share: &Share, there: &[Share], backup: BackupId, scheme: Scheme) -> Result<(), ShareError> {
    let there: Vec<u8> = there.iter().map(Share::number).collect();
    belongs((share.backup, share.scheme, share.number), (backup, scheme), &there)
}

fn belongs(
    (backup, scheme, number): (BackupId, Scheme, u8),
    (expected, of): (BackupId, Scheme),
    there: &[u8],
) -> Result<(), ShareError> {
    if backup != expected {
        return Err(ShareError::Foreign { found: backup, expected });
    }
    if scheme != of {
        return Err(ShareError::OtherScheme { found: scheme, expected: of });
    }
    if there.contains(&number) { Err(ShareError::Repeated(number)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Zeroizing::new(std::array::from_fn(|at| u8::try_from(at).unwrap() * 7 + 1))
    }

    fn shares(threshold: u8, shares: u8) -> Vec<Share> {
        split(&key(), BackupId([1, 2, 3, 4, 5]), Scheme::new(threshold, shares).unwrap()).unwrap()
    }

    fn copy(share: &Share) -> Share {
        Share::parse(&share.text()).unwrap()
    }

    #[test]
    fn any_m_of_n_shares_make_the_key_and_fewer_do_not() {
        let shares = shares(3, 5);
        for chosen in 0_u32..32 {
            let some: Vec<Share> =
                shares.iter().filter(|share| chosen >> (share.number - 1) & 1 == 1).map(copy).collect();
            match some.len() {
                given @ 0..3 => {
                    let needed = if given == 0 { 2 } else { 3 };
                    assert_eq!(combine(&some), Err(ShareError::TooFew { needed, given }));
                }
                _ => assert_eq!(combine(&some), Ok(key()), "{chosen:05b}"),
            }
        }
    }

    fn forged(share: &Share) -> Share {
        Share { value: Zeroizing::new([9; KEY_LENGTH]), ..copy(share) }
    }

    #[test]
    fn a_forged_share_among_enough_right_ones_is_found_and_named() {
        let shares = shares(3, 6);
        for wrong in [vec![1], vec![2, 5], vec![1, 2, 3], vec![]] {
            let given: Vec<_> = shares
                .iter()
                .map(|share| if wrong.contains(&share.number) { forged(share) } else { copy(share) })
                .collect();
            let found = recover(&given, |found| *found == key()).unwrap();
            assert_eq!(found, Some((key(), wrong)));
        }
        let given: Vec<_> = shares.iter().map(forged).take(4).collect();
        assert_eq!(recover(&given, |found| *found == key()), Ok(None));
        let few = [copy(&shares[0]), copy(&shares[1])];
        assert_eq!(recover(&few, |_| true), Err(ShareError::TooFew { needed: 3, given: 2 }));
        assert_eq!(recover(&[], |_| true), Err(ShareError::TooFew { needed: 2, given: 0 }));
    }

    #[test]
    fn every_choice_of_shares_is_tried_once() {
        let all: Vec<_> = choices(5, 3).collect();
        assert_eq!(all.len(), 10);
        assert_eq!((all[0].as_slice(), all[9].as_slice()), (&[0, 1, 2][..], &[2, 3, 4][..]));
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 10);
        assert_eq!(choices(255, 128).count(), MOST_TRIES);
        assert_eq!(choices(2, 3).count(), 0);
    }

    #[test]
    fn a_share_is_told_from_any_other_by_its_commitment() {
        let shares = shares(2, 3);
        assert_eq!(shares[0].commitment(), copy(&shares[0]).commitment());
        assert_ne!(shares[0].commitment(), shares[1].commitment());
        assert_ne!(shares[0].commitment(), forged(&shares[0]).commitment());
    }

    #[test]
    fn the_same_key_is_never_shared_the_same_way() {
        let (first, second) = (shares(2, 2), shares(2, 2));
        assert!(first.iter().zip(&second).all(|(a, b)| a.value != b.value));
        assert!(first.iter().all(|share| share.value != key()));
    }

    #[test]
    fn a_share_with_any_character_changed_is_refused_at_its_line() {
        const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let share = shares(2, 3).remove(1);
        let lines = share.lines();
        for (at, line) in lines.iter().enumerate() {
            for position in 0..LINE_CHARACTERS {
                for other in ALPHABET.chars().chain("U!é".chars()) {
                    let mut changed: Vec<char> = line.chars().collect();
                    if changed[position] == other {
                        continue;
                    }
                    changed[position] = other;
                    let mut entry = Entry::any();
                    lines[..at].iter().for_each(|line| assert_eq!(entry.enter(line), Ok(None)));
                    let found = entry.enter(&changed.iter().collect::<String>());
                    assert_eq!(found, Err(ShareError::Line { line: at + 1 }), "{other} at {position}");
                    // And the right line is taken after it.
                    for line in &lines[at..LINES - 1] {
                        assert_eq!(entry.enter(line), Ok(None));
                    }
                    assert!(entry.enter(&lines[LINES - 1]).unwrap().is_some_and(|again| again == share));
                }
            }
        }
    }

    #[test]
    fn lines_that_are_swapped_left_out_or_of_another_share_are_refused() {
        let [first, second, _] = <[Share; 3]>::try_from(shares(2, 3)).unwrap();
        let (lines, others) = (first.lines(), second.lines());
        for at in 1..LINES {
            for other in
                (0..LINES).filter(|other| *other != at).map(|other| &lines[other]).chain([&others[at]])
            {
                let mut entry = Entry::any();
                lines[..at].iter().for_each(|line| assert_eq!(entry.enter(line), Ok(None)));
                assert_eq!(entry.enter(other), Err(ShareError::Line { line: at + 1 }));
            }
        }
        let text = first.text();
        for kept in 0..LINES {
            let short: String = text.lines().take(kept + 1).map(|line| format!("{line}\n")).collect();
            assert_eq!(Share::parse(&short), Err(ShareError::Ended { line: kept + 1 }));
        }
        assert_eq!(Share::parse(&format!("{}1: x\n", *text)), Err(ShareError::Trailing));
    }

    #[test]
    fn a_share_is_read_as_people_type_it() {
        let share = shares(2, 3).remove(2);
        let text = share.text();
        let told = "# sshsm backup 0410-6105: share 3 of 3; any 2 of them make its key\n1: ";
        assert!(text.starts_with(told), "{}", *text);
        let typed = text.to_lowercase().replace('0', "o").replace("1", "l").replace("l:", "1:");
        assert_eq!(Share::parse(&typed), Ok(copy(&share)));
        let bare: String =
            share.lines().iter().map(|line| format!("\n  {}-{} \r\n", &line[..9], &line[9..])).collect();
        assert_eq!(Share::parse(&bare), Ok(copy(&share)));
    }

    #[test]
    fn a_share_of_another_backup_or_scheme_is_refused_at_its_first_line() {
        let share = shares(2, 3).remove(0);
        let line = &share.lines()[0];
        let entered = |id, scheme| Entry::of(id, scheme, &[]).enter(line);
        let (other, right) = (BackupId([9; 5]), share.backup);
        assert_eq!(entered(right, share.scheme), Ok(None));
        let foreign = ShareError::Foreign { found: right, expected: other };
        assert_eq!(entered(other, share.scheme), Err(foreign));
        let expected = Scheme::new(3, 3).unwrap();
        assert_eq!(entered(right, expected), Err(ShareError::OtherScheme { found: share.scheme, expected }));
        let again = Entry::of(right, share.scheme, &[copy(&share)]).enter(line);
        assert_eq!(again, Err(ShareError::Repeated(1)));
        assert_eq!(combine(&[copy(&share), copy(&share)]), Err(ShareError::Repeated(1)));
    }

    #[test]
    fn one_share_alone_is_never_the_key() {
        for (threshold, shares) in [(0, 0), (1, 1), (1, 3), (4, 3)] {
            assert_eq!(Scheme::new(threshold, shares), Err(ShareError::Scheme { threshold, shares }));
        }
        assert_eq!(shares(255, 255).len(), 255);
    }

    #[test]
    fn the_name_of_a_backup_is_read_as_it_is_written() {
        let id = BackupId::random().unwrap();
        assert_eq!(BackupId::parse(&id.to_string()), Some(id));
        for text in ["", "04106105", "0410-610", "O410-6105", "0410-6105-", "0410-610U"] {
            assert_eq!(BackupId::parse(text), None, "{text}");
        }
        assert_eq!(BackupId::parse("0410-6105"), Some(BackupId([1, 2, 3, 4, 5])));
    }

    #[test]
    fn a_share_is_never_shown_by_accident() {
        let share = shares(2, 3).remove(0);
        assert_eq!(format!("{share:?}"), "Share(0410-6105, 1 of 3, …)");
    }
}
