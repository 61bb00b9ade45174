//! Key revocation lists in OpenSSH's binary form (PROTOCOL.krl), for sshd's `RevokedKeys` and `ssh-keygen -Q`.
//!
//! A list names certificates, by serial number and key id and per CA or for all of them, and plain keys, whole or by
//! fingerprint. A key in it is refused as itself, in every certificate about it, and in every certificate it has
//! signed: a CA is revoked by its key. The same content makes the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use ssh_encoding::{Encode, Error as EncodingError};
use ssh_key::public::KeyData;

/// Why something cannot be revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KrlError {
    /// OpenSSH takes 0 for "no serial number" and never looks it up.
    #[error("serial number 0 cannot be revoked: OpenSSH takes it for none; revoke the key or the key id")]
    SerialZero,
    /// The last serial number comes before the first.
    #[error("{first} to {last} is no range of serial numbers")]
    Range {
        /// Where the range begins.
        first: u64,
        /// Where it ends.
        last: u64,
    },
    /// OpenSSH would not read the whole list.
    #[error(
        "a key id with a NUL byte makes OpenSSH refuse the whole list; revoke the serial number or the key"
    )]
    KeyIdNul,
    /// Too much for the lengths of the format, which are 32 bits.
    #[error("the revocation list cannot be encoded")]
    Encoding(#[from] EncodingError),
}

/// Certificates of one CA, or of any.
#[derive(Clone, Debug, Default)]
struct Certificates {
    /// From first to last, neither overlapping nor touching.
    serials: BTreeMap<u64, u64>,
    key_ids: BTreeSet<String>,
}

/// A key revocation list.
#[derive(Clone, Debug, Default)]
pub struct RevocationList {
    /// The list's version; each list that takes the place of another should have a greater one.
    pub number: u64,
    /// When it was made, UNIX seconds.
    pub generated: u64,
    /// Free text.
    pub comment: String,
    /// By the CA's public key in SSH's encoding; empty for any CA.
    certificates: BTreeMap<Vec<u8>, Certificates>,
    /// Public keys in SSH's encoding.
    keys: BTreeSet<Vec<u8>>,
    fingerprints: BTreeSet<[u8; 32]>,
}

const MAGIC: &[u8; 8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;

/// What a section is about.
mod section {
    pub(super) const CERTIFICATES: u8 = 1;
    pub(super) const KEYS: u8 = 2;
    pub(super) const SHA256: u8 = 5;
    // Within CERTIFICATES:
    pub(super) const SERIALS: u8 = 0x20;
    pub(super) const RANGE: u8 = 0x21;
    pub(super) const BITMAP: u8 = 0x22;
    pub(super) const KEY_IDS: u8 = 0x23;
}

/// Bits of a bitmap; OpenSSH reads numbers of up to 16384.
const MAX_BITMAP: u64 = 16_000;

impl RevocationList {
    /// An empty list with this number, made at this time.
    #[must_use]
    pub fn new(number: u64, generated: u64) -> Self {
        Self { number, generated, ..Self::default() }
    }

    /// Revokes the certificates with these serial numbers, of one CA or of any.
    ///
    /// # Errors
    /// When the range is none, or has 0 in it.
    pub fn revoke_serials(
        &mut self,
        ca: Option<&KeyData>,
        serials: RangeInclusive<u64>,
    ) -> Result<(), KrlError> {
        let (mut first, mut last) = serials.into_inner();
        match (first, last) {
            (0, _) => return Err(KrlError::SerialZero),
            (first, last) if last < first => return Err(KrlError::Range { first, last }),
            _ => {}
        }
        let ranges = &mut self.of(ca)?.serials;
        // What overlaps or touches becomes one range.
        while let Some((&start, &end)) =
            ranges.range(..=last.saturating_add(1)).next_back().filter(|(_, end)| **end >= first - 1)
        {
            ranges.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        ranges.insert(first, last);
        Ok(())
    }

    /// Revokes the certificates with this key id, of one CA or of any.
    ///
    /// # Errors
    /// When the key id has a NUL byte.
    pub fn revoke_key_id(&mut self, ca: Option<&KeyData>, key_id: &str) -> Result<(), KrlError> {
        if key_id.contains('\0') {
            return Err(KrlError::KeyIdNul);
        }
        self.of(ca)?.key_ids.insert(key_id.to_owned());
        Ok(())
    }

    /// Revokes a key: as itself, in certificates, and as a CA.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn revoke_key(&mut self, key: &KeyData) -> Result<(), KrlError> {
        self.keys.insert(key.encode_vec()?);
        Ok(())
    }

    /// Revokes the key with this SHA-256 fingerprint, as [`Self::revoke_key`] does.
    pub fn revoke_fingerprint(&mut self, sha256: [u8; 32]) {
        self.fingerprints.insert(sha256);
    }

    /// The list's file.
    ///
    /// # Errors
    /// [`KrlError::Encoding`].
    pub fn encode(&self) -> Result<Vec<u8>, KrlError> {
        let mut out = Vec::new();
        MAGIC.encode(&mut out)?;
        FORMAT_VERSION.encode(&mut out)?;
        for number in [self.number, self.generated, 0] {
            number.encode(&mut out)?;
        }
        "".encode(&mut out)?;
        self.comment.encode(&mut out)?;
        for (ca, certificates) in &self.certificates {
            let mut content = Vec::new();
            ca.encode(&mut content)?;
            "".encode(&mut content)?;
            encode_serials(&certificates.serials, &mut content)?;
            put_section(&mut content, section::KEY_IDS, &strings(&certificates.key_ids)?)?;
            put_section(&mut out, section::CERTIFICATES, &content)?;
        }
        put_section(&mut out, section::KEYS, &strings(&self.keys)?)?;
        put_section(
            &mut out,
            section::SHA256,
            &strings(self.fingerprints.iter().map(|hash| hash.as_slice()))?,
        )?;
        Ok(out)
    }

    fn of(&mut self, ca: Option<&KeyData>) -> Result<&mut Certificates, KrlError> {
        let ca = ca.map(Encode::encode_vec).transpose()?.unwrap_or_default();
        Ok(self.certificates.entry(ca).or_default())
    }
}

fn strings(items: impl IntoIterator<Item = impl Encode>) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    items.into_iter().try_for_each(|item| item.encode(&mut bytes))?;
    Ok(bytes)
}

/// A section that says nothing is left out.
fn put_section(out: &mut Vec<u8>, kind: u8, content: &[u8]) -> Result<(), EncodingError> {
    if content.is_empty() {
        return Ok(());
    }
    kind.encode(out)?;
    content.encode(out)
}

/// Writes ranges that lie close together as a bitmap where that is shorter; the others as ranges, and single numbers
/// in lists.
fn encode_serials(ranges: &BTreeMap<u64, u64>, out: &mut Vec<u8>) -> Result<(), EncodingError> {
    let ranges: Vec<(u64, u64)> = ranges.iter().map(|(&first, &last)| (first, last)).collect();
    let mut list = Vec::new();
    let mut rest = ranges.as_slice();
    while let Some(&(start, mut end)) = rest.first() {
        // A gap of more than 16 bytes in a bitmap costs more than a range does.
        let mut near = |&(first, last): &(u64, u64)| {
            let near = first - end.min(first) <= 128 && last - start < MAX_BITMAP;
            end = last;
            near
        };
        let (cluster, behind) =
            rest.split_at(rest.iter().position(|range| !near(range)).unwrap_or(rest.len()).max(1));
        rest = behind;
        let span = cluster.last().map_or(0, |(_, last)| last - start);
        let cost = |&(first, last): &(u64, u64)| if last - first < 2 { 8 * (last - first + 1) } else { 21 };
        let bitmap = span < MAX_BITMAP && 18 + span / 8 < cluster.iter().map(cost).sum();
        if bitmap || cluster.iter().any(|(first, last)| last - first >= 2) {
            put_section(out, section::SERIALS, &std::mem::take(&mut list))?;
        }
        if bitmap {
            let mut content = start.encode_vec()?;
            bitmap_number(start, cluster).encode(&mut content)?;
            put_section(out, section::BITMAP, &content)?;
            continue;
        }
        for &(first, last) in cluster {
            if last - first < 2 {
                (first..=last).try_for_each(|serial| serial.encode(&mut list))?;
            } else {
                put_section(out, section::RANGE, &[first.to_be_bytes(), last.to_be_bytes()].concat())?;
            }
        }
    }
    put_section(out, section::SERIALS, &list)
}

/// The ranges as a number whose bit i stands for serial number `start + i`: a positive mpint's bytes.
fn bitmap_number(start: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let span = ranges.last().map_or(0, |(_, last)| last - start);
    // One bit more, so that the number is positive.
    let length = usize::try_from((span + 1) / 8 + 1).unwrap_or(0);
    let mut little_endian = vec![0_u8; length];
    for serial in ranges.iter().flat_map(|&(first, last)| first..=last) {
        let bit = serial - start;
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| little_endian.get_mut(at)) {
            *byte |= 1 << (bit % 8);
        }
    }
    little_endian.reverse();
    little_endian
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ranges: &[RangeInclusive<u64>]) -> RevocationList {
        let mut list = RevocationList::default();
        for range in ranges {
            list.revoke_serials(None, range.clone()).unwrap();
        }
        list
    }

    fn serials(ranges: &[RangeInclusive<u64>]) -> Vec<(u64, u64)> {
        let list = list(ranges);
        list.certificates[&Vec::new()].serials.iter().map(|(&first, &last)| (first, last)).collect()
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        assert_eq!(serials(&[5..=6, 1..=2, 3..=4]), [(1, 6)]);
        assert_eq!(serials(&[1..=9, 3..=4]), [(1, 9)]);
        assert_eq!(serials(&[3..=4, 1..=9, 11..=12]), [(1, 9), (11, 12)]);
        assert_eq!(
            serials(&[u64::MAX..=u64::MAX, u64::MAX - 1..=u64::MAX, 1..=1]).last(),
            Some(&(u64::MAX - 1, u64::MAX))
        );
        assert_eq!(serials(&[1..=u64::MAX, 7..=7]), [(1, u64::MAX)]);
    }

    #[test]
    fn what_openssh_would_not_look_up_is_refused() {
        let mut list = RevocationList::default();
        assert_eq!(list.revoke_serials(None, 0..=5), Err(KrlError::SerialZero));
        #[allow(clippy::reversed_empty_ranges, reason = "that is the case")]
        let reversed = list.revoke_serials(None, 5..=4);
        assert_eq!(reversed, Err(KrlError::Range { first: 5, last: 4 }));
        assert_eq!(list.revoke_key_id(None, "a\0b"), Err(KrlError::KeyIdNul));
    }

    #[test]
    fn scattered_numbers_close_together_take_a_bit_each() {
        let scattered: Vec<_> = (1..2000).map(|n| n * 3..=n * 3).collect();
        let length = list(&scattered).encode().unwrap().len();
        assert!(length < 44 + 1000, "{length}");
        let far: Vec<_> = (1..100).map(|n| n << 40..=n << 40).collect();
        assert!(list(&far).encode().unwrap().len() < 80 + 100 * 8);
    }
}
