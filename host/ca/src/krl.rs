//! Key revocation lists in OpenSSH's binary form (PROTOCOL.krl), for sshd's `RevokedKeys` and `ssh-keygen -Q`.
//!
//! A list names certificates, by serial number and key id and per CA or for all of them, and plain keys,
//! whole or by fingerprint. A listed key is refused itself, in every certificate for it, and in every
//! certificate that it has signed: a CA is revoked by its key. The same content gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use sha2::{Digest, Sha256};
use ssh_encoding::{Decode as _, Encode, Error as EncodingError};
use ssh_key::{Fingerprint, public::KeyData};

/// Why something cannot be revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KrlError {
    /// OpenSSH treats 0 as "no serial number" and never looks it up.
    #[error("serial number 0 cannot be revoked: OpenSSH treats it as none; revoke the key or the key id")]
    SerialZero,
    /// The last serial number comes before the first.
    #[error("{first} to {last} is not a range of serial numbers")]
    Range {
        /// The beginning of the range.
        first: u64,
        /// The end of the range.
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

/// Whether every recent OpenSSH reads a list with certificates of this CA key. One that does not know the
/// key's type refuses the whole list.
#[must_use]
pub const fn is_read_everywhere(ca: &KeyData) -> bool {
    matches!(
        ca,
        KeyData::Rsa(_)
            | KeyData::Ecdsa(_)
            | KeyData::Ed25519(_)
            | KeyData::SkEd25519(_)
            | KeyData::SkEcdsaSha2NistP256(_)
    )
}

/// Why a file cannot be read as a key revocation list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KrlReadError {
    /// It does not begin as a list does.
    #[error("it is not a key revocation list (it does not begin with SSHKRL)")]
    NotAList,
    /// A format that is not known.
    #[error("it is a key revocation list of format {0}; this program knows format {FORMAT_VERSION}")]
    Format(u32),
    /// A length that leads out of the file, or a field with an impossible value.
    #[error("the key revocation list is damaged: {0}")]
    Malformed(&'static str),
    /// A section that is not known may revoke something.
    #[error("the key revocation list has a section of kind {0}, which this program does not know")]
    Section(u8),
}

/// Certificates of one CA, or of any.
#[derive(Clone, Debug, Default)]
struct Certificates {
    /// From first to last, neither overlapping nor touching.
    serials: BTreeMap<u64, u64>,
    key_ids: BTreeSet<String>,
}

impl Certificates {
    /// Adds a range; what overlaps or touches becomes one.
    fn add(&mut self, mut first: u64, mut last: u64) {
        let ranges = &mut self.serials;
        while let Some((&start, &end)) = ranges
            .range(..=last.saturating_add(1))
            .next_back()
            .filter(|(_, end)| **end >= first.saturating_sub(1))
        {
            ranges.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        ranges.insert(first, last);
    }
}

/// A key revocation list.
#[derive(Clone, Debug, Default)]
pub struct RevocationList {
    /// The list's version; a list that replaces another should have a greater one.
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
    /// SHA-1 of public keys: read from lists that ssh-keygen made, and never written to ours.
    sha1: BTreeSet<[u8; 20]>,
}

const MAGIC: &[u8; 8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;

/// The types of sections.
mod section {
    pub(super) const CERTIFICATES: u8 = 1;
    pub(super) const KEYS: u8 = 2;
    pub(super) const SHA1: u8 = 3;
    /// Revokes nothing; OpenSSH ignores it since 9.4.
    pub(super) const SIGNATURE: u8 = 4;
    pub(super) const SHA256: u8 = 5;
    pub(super) const EXTENSION: u8 = 255;
    // Within CERTIFICATES:
    pub(super) const SERIALS: u8 = 0x20;
    pub(super) const RANGE: u8 = 0x21;
    pub(super) const BITMAP: u8 = 0x22;
    pub(super) const KEY_IDS: u8 = 0x23;
    pub(super) const CERTIFICATE_EXTENSION: u8 = 0x39;
}

/// Bits of a bitmap; OpenSSH reads numbers of up to 16384.
const MAX_BITMAP: u64 = 16_000;
/// Bytes of a bitmap that OpenSSH reads, with the zero that makes its number positive.
const MAX_BITMAP_BYTES: usize = 16_384 / 8 + 1;

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
        match serials.into_inner() {
            (0, _) => return Err(KrlError::SerialZero),
            (first, last) if last < first => return Err(KrlError::Range { first, last }),
            (first, last) => self.of(ca)?.add(first, last),
        }
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

    /// Reads a list, of ours or of `ssh-keygen -k`.
    ///
    /// # Errors
    /// When it is not a list, is damaged, or contains something that this program cannot compare.
    pub fn decode(bytes: &[u8]) -> Result<Self, KrlReadError> {
        let mut rest = Reader(bytes.strip_prefix(MAGIC).ok_or(KrlReadError::NotAList)?);
        let format = rest.u32()?;
        if format != FORMAT_VERSION {
            return Err(KrlReadError::Format(format));
        }
        let mut list = Self::new(rest.u64()?, rest.u64()?);
        let _flags = rest.u64()?;
        let _reserved = rest.string()?;
        list.comment = String::from_utf8_lossy(rest.string()?).into_owned();
        while !rest.0.is_empty() {
            let (kind, mut content) = (rest.u8()?, Reader(rest.string()?));
            match kind {
                section::CERTIFICATES => list.read_certificates(content)?,
                section::KEYS => content.each(|key| {
                    list.keys.insert(key.to_vec());
                    Ok(())
                })?,
                section::SHA1 => content.each(|hash| {
                    list.sha1.insert(hash.try_into().map_err(|_| KrlReadError::Malformed("a SHA-1"))?);
                    Ok(())
                })?,
                section::SHA256 => content.each(|hash| {
                    let hash = hash.try_into().map_err(|_| KrlReadError::Malformed("a SHA-256"))?;
                    list.fingerprints.insert(hash);
                    Ok(())
                })?,
                // The key is the section's content, and the signature follows without a kind of its own.
                section::SIGNATURE => {
                    rest.string()?;
                }
                section::EXTENSION => content.extension(kind)?,
                kind => return Err(KrlReadError::Section(kind)),
            }
        }
        Ok(list)
    }

    fn read_certificates(&mut self, mut rest: Reader<'_>) -> Result<(), KrlReadError> {
        let ca = rest.string()?.to_vec();
        let _reserved = rest.string()?;
        let mut serials = Vec::new();
        let certificates = self.certificates.entry(ca).or_default();
        while !rest.0.is_empty() {
            let (kind, mut content) = (rest.u8()?, Reader(rest.string()?));
            match kind {
                section::SERIALS => {
                    while !content.0.is_empty() {
                        let serial = content.u64()?;
                        serials.push((serial, serial));
                    }
                }
                section::RANGE => serials.push((content.u64()?, content.u64()?)),
                section::BITMAP => {
                    let start = content.u64()?;
                    let bitmap = content.string()?;
                    if bitmap.len() > MAX_BITMAP_BYTES {
                        return Err(KrlReadError::Malformed("a bitmap is too long"));
                    }
                    let bits =
                        bitmap.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
                    for (offset, _) in (0_u64..).zip(bits).filter(|(_, set)| *set) {
                        let serial = start.checked_add(offset);
                        let serial =
                            serial.ok_or(KrlReadError::Malformed("a serial number above 2^64 - 1"))?;
                        serials.push((serial, serial));
                    }
                }
                section::KEY_IDS => content.each(|key_id| {
                    let key_id = str::from_utf8(key_id);
                    let key_id = key_id.map_err(|_| KrlReadError::Malformed("a key id that is not UTF-8"))?;
                    certificates.key_ids.insert(key_id.to_owned());
                    Ok(())
                })?,
                section::CERTIFICATE_EXTENSION => content.extension(kind)?,
                kind => return Err(KrlReadError::Section(kind)),
            }
        }
        for (first, last) in serials {
            if last < first {
                return Err(KrlReadError::Malformed("a range of serial numbers that ends before it begins"));
            }
            certificates.add(first, last);
        }
        Ok(())
    }

    /// What `earlier` revokes and this list does not, in words; empty when this list revokes all of it.
    #[must_use]
    pub fn lost(&self, earlier: &Self) -> Vec<String> {
        let none = Certificates::default();
        let hash = |key: &[u8]| -> [u8; 32] { Sha256::digest(key).into() };
        let revoked = |key: &[u8]| self.keys.contains(key) || self.fingerprints.contains(&hash(key));
        let named = |hash: &[u8; 32]| Fingerprint::Sha256(*hash).to_string();
        let mut lost = Vec::new();
        for (ca, before) in &earlier.certificates {
            // A revoked CA key revokes all of its certificates.
            if !ca.is_empty() && revoked(ca) {
                continue;
            }
            let of = if ca.is_empty() { "any CA".to_owned() } else { format!("CA {}", named(&hash(ca))) };
            let now = [self.certificates.get(ca), self.certificates.get(&Vec::new())];
            let now = now.map(|certificates| certificates.unwrap_or(&none));
            let mut both = now[0].clone();
            now[1].serials.iter().for_each(|(&first, &last)| both.add(first, last));
            for (&first, &last) in &before.serials {
                let covering = both.serials.range(..=first).next_back();
                if covering.is_none_or(|(_, end)| *end < last) {
                    let serials = if first == last { first.to_string() } else { format!("{first}-{last}") };
                    lost.push(format!("serial number {serials} of {of}"));
                }
            }
            let missing = |key_id: &&String| !now.iter().any(|now| now.key_ids.contains(*key_id));
            lost.extend(before.key_ids.iter().filter(missing).map(|id| format!("key id {id:?} of {of}")));
        }
        lost.extend(
            earlier.keys.iter().filter(|key| !revoked(key)).map(|key| format!("key {}", named(&hash(key)))),
        );
        let hashes: BTreeSet<_> =
            self.keys.iter().map(|key| hash(key)).chain(self.fingerprints.clone()).collect();
        lost.extend(earlier.fingerprints.difference(&hashes).map(|hash| format!("key {}", named(hash))));
        let sha1 = earlier.sha1.difference(&self.sha1);
        lost.extend(sha1.map(|hash| format!("the key with SHA-1 {}", base16ct::lower::encode_string(hash))));
        lost
    }

    /// The CAs whose certificates it lists by number or by name; a server has to know their types to read the
    /// list.
    #[must_use]
    pub fn authorities(&self) -> Vec<KeyData> {
        // Each came from a key; otherwise we could not have made the list.
        self.certificates.keys().filter_map(|blob| KeyData::decode(&mut blob.as_slice()).ok()).collect()
    }

    /// Whether nothing at all is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing =
            |certificates: &Certificates| certificates.serials.is_empty() && certificates.key_ids.is_empty();
        self.certificates.values().all(nothing)
            && self.keys.is_empty()
            && self.fingerprints.is_empty()
            && self.sha1.is_empty()
    }

    fn of(&mut self, ca: Option<&KeyData>) -> Result<&mut Certificates, KrlError> {
        let ca = ca.map(Encode::encode_vec).transpose()?.unwrap_or_default();
        Ok(self.certificates.entry(ca).or_default())
    }
}

/// The unread part of a list.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], KrlReadError> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(KrlReadError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], KrlReadError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(KrlReadError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, KrlReadError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, KrlReadError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, KrlReadError> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], KrlReadError> {
        let length =
            usize::try_from(self.u32()?).map_err(|_| KrlReadError::Malformed("it ends too early"))?;
        self.take(length)
    }

    /// Every string that is left.
    fn each(&mut self, mut of: impl FnMut(&'a [u8]) -> Result<(), KrlReadError>) -> Result<(), KrlReadError> {
        while !self.0.is_empty() {
            of(self.string()?)?;
        }
        Ok(())
    }

    /// An extension that may be ignored.
    fn extension(&mut self, kind: u8) -> Result<(), KrlReadError> {
        let (_name, critical) = (self.string()?, self.u8()?);
        if critical == 0 { Ok(()) } else { Err(KrlReadError::Section(kind)) }
    }
}

fn strings(items: impl IntoIterator<Item = impl Encode>) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    items.into_iter().try_for_each(|item| item.encode(&mut bytes))?;
    Ok(bytes)
}

/// An empty section is left out.
fn put_section(out: &mut Vec<u8>, kind: u8, content: &[u8]) -> Result<(), EncodingError> {
    if content.is_empty() {
        return Ok(());
    }
    kind.encode(out)?;
    content.encode(out)
}

/// Writes ranges that are close together as a bitmap if that is shorter; the others as ranges, and single
/// numbers in lists.
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
            bitmap_number(start, cluster)?.encode(&mut content)?;
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

/// The ranges as a number whose bit i represents serial number `start + i`: a positive mpint's bytes.
///
/// # Errors
/// When they are too far apart for this computer's memory.
fn bitmap_number(start: u64, ranges: &[(u64, u64)]) -> Result<Vec<u8>, EncodingError> {
    let span = ranges.last().map_or(0, |(_, last)| last - start);
    // One more bit, so that the number is positive.
    let length = usize::try_from((span + 1) / 8 + 1).map_err(|_| EncodingError::Length)?;
    let mut little_endian = vec![0_u8; length];
    for serial in ranges.iter().flat_map(|&(first, last)| first..=last) {
        let bit = serial - start;
        let byte = usize::try_from(bit / 8).ok().and_then(|at| little_endian.get_mut(at));
        *byte.ok_or(EncodingError::Length)? |= 1 << (bit % 8);
    }
    little_endian.reverse();
    Ok(little_endian)
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

    /// OpenSSH dropped DSA in version 10, and has had post-quantum keys for a short time.
    #[test]
    fn a_ca_key_that_not_every_server_knows_is_told_from_the_others() {
        let strings = |name: &[u8], numbers: &[&[u8]]| {
            let parts = std::iter::once(name).chain(numbers.iter().copied());
            parts.flat_map(|part| part.encode_vec().unwrap()).collect::<Vec<u8>>()
        };
        let dsa = strings(b"ssh-dss", &[&[23], &[11], &[4], &[9]]);
        let dsa = crate::openssh_key::public_key(&dsa).unwrap();
        let ed25519 = crate::openssh_key::public_key(&strings(b"ssh-ed25519", &[&[1; 32]])).unwrap();
        assert_eq!((is_read_everywhere(&dsa), is_read_everywhere(&ed25519)), (false, true));
        let mut list = RevocationList::new(1, 0);
        list.revoke_serials(Some(&dsa), 5..=7).unwrap();
        list.revoke_key_id(None, "x").unwrap();
        // As a plain key it is bytes to every server.
        list.revoke_key(&ed25519).unwrap();
        assert_eq!(list.authorities(), [dsa]);
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
    fn a_list_is_read_as_it_was_written() {
        let mut list = list(&[5..=5, 10..=900, 70..=70, u64::MAX..=u64::MAX]);
        (2000..4000).step_by(3).for_each(|serial| list.revoke_serials(None, serial..=serial).unwrap());
        list.revoke_key_id(None, "mallory").unwrap();
        list.revoke_fingerprint([7; 32]);
        (list.number, list.generated, list.comment) = (11, 12, "ours".into());
        let bytes = list.encode().unwrap();
        let read = RevocationList::decode(&bytes).unwrap();
        assert_eq!(read.encode().unwrap(), bytes);
        assert_eq!(list.lost(&read), Vec::<String>::new());
        for length in 0..bytes.len() {
            let cut = RevocationList::decode(&bytes[..length]);
            // Only if the cut is at the end of a section is the rest a list, with less content.
            assert!(cut.is_err() || !cut.unwrap().lost(&list).is_empty(), "{length}");
        }
    }

    #[test]
    fn what_a_list_lost_is_named() {
        let (mut before, mut after) = (list(&[1..=9, 20..=20]), list(&[1..=5]));
        before.revoke_key_id(None, "mallory").unwrap();
        before.revoke_fingerprint([7; 32]);
        let lost = after.lost(&before);
        assert_eq!(
            lost[..3],
            ["serial number 1-9 of any CA", "serial number 20 of any CA", "key id \"mallory\" of any CA"]
        );
        assert!(lost[3].starts_with("key SHA256:"), "{lost:?}");
        after.revoke_serials(None, 5..=20).unwrap();
        after.revoke_key_id(None, "mallory").unwrap();
        after.revoke_fingerprint([7; 32]);
        assert_eq!(after.lost(&before), Vec::<String>::new());
        assert!(!after.is_empty() && RevocationList::new(3, 0).is_empty());
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
