//! Signed images: a second image definition after the image, with the signed range, the signer's key, and the
//! signature.
//!
//! An image has a loop of blocks (datasheet 5.9.1). Ours has one block, in its first 4 KiB, that links to
//! itself and describes the kind of image. Sealing links it to a block after the last byte, which links back;
//! the boot ROM uses the last definition of the loop. The new block repeats the description, and adds the
//! part of the flash to be hashed (`LOAD_MAP`), the hash (`HASH_DEF`), and the key and its signature
//! (`SIGNATURE`); the hash covers that part, and then the block up to and including `HASH_DEF`. This is what
//! `picotool seal --sign` does.

use sha2::{Digest, Sha256};

use super::key::{BootKey, SigningKey};
use crate::flash::{Board, Firmware, FlashError};
use sshsm_client::{Failure, Kind};

const BLOCK_START: u32 = 0xffff_ded3;
const BLOCK_END: u32 = 0xab12_3579;
/// Where the boot ROM looks for the first block.
const FIRST_BLOCK: usize = 4096;
/// The flash, as the processor sees it.
const FLASH: u32 = sshsm_boards::PICO2.memory.image.start;

/// Kinds of items in a block.
const IMAGE_TYPE: u8 = 0x42;
const LOAD_MAP: u8 = 0x06;
const HASH_DEF: u8 = 0x47;
const SIGNATURE: u8 = 0x4b;
const LAST: u8 = 0xff;
const SHA256: u32 = 1;
const SECP256K1: u32 = 1;

/// Why an image cannot be sealed, or is not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It is not a whole UF2 image for this chip.
    #[error(transparent)]
    Uf2(#[from] FlashError),
    /// It is too long for its addresses.
    #[error("the image is too long")]
    Long,
    /// It has no image definition.
    #[error("the image has no image definition in its first 4 KiB; it is not for RP2350")]
    NoDefinition,
    /// It has more than the one block that it is built with: it is sealed already, or another program's.
    #[error("the image has more than one block of metadata; seal the image as it was built")]
    AlreadySealed,
    /// The key makes no signature.
    #[error("the key cannot sign the image")]
    Sign(#[source] k256::ecdsa::Error),
}

impl Failure for SealError {
    fn kind(&self) -> Kind {
        match self {
            Self::Uf2(error) => error.kind(),
            Self::Long | Self::NoDefinition | Self::AlreadySealed | Self::Sign(_) => Kind::Failed,
        }
    }
}

/// An image in one piece, as stored in flash from its first byte on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(Vec<u8>);

/// A sealed image, and the signed hash.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The image, its signature included.
    pub image: Image,
    /// The SHA-256 digest that is signed.
    pub digest: [u8; 32],
}

impl Image {
    /// Extracts the flash contents from sshsm's UF2 file for this chip.
    ///
    /// # Errors
    /// [`SealError::Uf2`]
    pub fn from_uf2(file: &[u8]) -> Result<Self, SealError> {
        Ok(Self(Firmware::check(file, Board::PICO2)?.into_content()))
    }

    /// Such an image without the block that signs it, if it has one.
    pub(crate) fn without_signature(flash: &[u8]) -> &[u8] {
        let image = Self(flash.to_vec());
        match image.signer().and_then(|_| image.first_block().ok()?.next()) {
            Some(end) => flash.get(..end).unwrap_or(flash),
            None => flash,
        }
    }

    /// The UF2 file of this image.
    #[must_use]
    pub fn to_uf2(&self) -> Vec<u8> {
        let pages = self.0.chunks(PAGE as usize);
        let total = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let mut file = Vec::with_capacity(pages.len() * 512);
        for (number, page) in (0_u32..).zip(pages) {
            let start = file.len();
            let address = FLASH.saturating_add(number.saturating_mul(PAGE));
            let family = Board::PICO2.family();
            for word in [0x0a32_4655, 0x9e5d_5157, 0x2000, address, PAGE, number, total, family] {
                file.extend_from_slice(&word.to_le_bytes());
            }
            file.extend_from_slice(page);
            file.resize(start + 508, 0);
            file.extend_from_slice(&0x0ab1_6f30_u32.to_le_bytes());
        }
        file
    }

    /// The bytes in flash.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Signs the image.
    ///
    /// # Errors
    /// [`SealError`]
    pub fn seal(&self, key: &SigningKey) -> Result<Sealed, SealError> {
        let first = self.first_block()?;
        let mut image = self.0.clone();
        image.resize(image.len().next_multiple_of(4), 0);
        let (Ok(place), Ok(length)) = (u32::try_from(first.at), u32::try_from(image.len())) else {
            return Err(SealError::Long);
        };
        if first.link != 0 {
            return Err(SealError::AlreadySealed);
        }
        let distance = length - place;
        let link = first.at + first.link_at;
        image
            .get_mut(link..link + 4)
            .ok_or(SealError::NoDefinition)?
            .copy_from_slice(&distance.to_le_bytes());
        let mut block = vec![BLOCK_START];
        block.extend(&first.items);
        // Relative to the item itself, so that the image may be anywhere in flash.
        let item = u32::try_from(block.len() * 4).map_err(|_| SealError::NoDefinition)?;
        block.extend([head(LOAD_MAP, 4, 1), 0_u32.wrapping_sub(length + item), FLASH, length]);
        let hashed = u32::try_from(block.len() + 2).map_err(|_| SealError::NoDefinition)?;
        block.extend([head(HASH_DEF, 2, SHA256), hashed]);
        let signed = Sha256::new_with_prefix(&image).chain_update(bytes(&block)).finalize();
        let digest: [u8; 32] = signed.into();
        let signature = key.sign(&digest).map_err(SealError::Sign)?;
        block.push(head(SIGNATURE, 0x21, SECP256K1));
        for half in [key.boot_key().to_bytes(), signature] {
            block.extend(half.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
        }
        let items = u32::try_from(block.len() - 1).map_err(|_| SealError::NoDefinition)?;
        block.extend([u32::from(LAST) | items << 8, 0_u32.wrapping_sub(distance), BLOCK_END]);
        image.extend(bytes(&block));
        Ok(Sealed { image: Self(image), digest })
    }

    /// The signer of the image, as the boot ROM determines it; `None` if it would not run the image.
    #[must_use]
    pub fn signer(&self) -> Option<BootKey> {
        let first = self.first_block().ok()?;
        let last = Block::parse(&self.0, first.next()?)?;
        if last.next()? != first.at || last.items.first() != first.items.first() {
            return None;
        }
        let (map_at, map) = last.item(LOAD_MAP)?;
        let &[head, storage, FLASH, length] = map else { return None };
        let map_address = u32::try_from(last.at + 4 * map_at).ok()?.checked_add(FLASH)?;
        if head != self::head(LOAD_MAP, 4, 1) || map_address.wrapping_add(storage) != FLASH {
            return None;
        }
        let (_, &[_, words]) = last.item(HASH_DEF)? else { return None };
        let (_, signature) = last.item(SIGNATURE)?;
        let halves: Vec<u8> = bytes(signature.get(1..)?);
        let (key, signature) = halves.split_first_chunk::<64>()?;
        let image = self.0.get(..usize::try_from(length).ok()?)?;
        let block = self.0.get(last.at..)?.get(..usize::try_from(words).ok()?.checked_mul(4)?)?;
        let digest = Sha256::new_with_prefix(image).chain_update(block).finalize().into();
        BootKey::from_bytes(key)
            .filter(|key| signature.try_into().is_ok_and(|made| key.verifies(&digest, made)))
    }

    fn first_block(&self) -> Result<Block, SealError> {
        (0..FIRST_BLOCK.min(self.0.len()))
            .step_by(4)
            .find_map(|at| Block::parse(&self.0, at))
            .filter(|block| block.items.first().is_some_and(|item| item.to_le_bytes()[0] == IMAGE_TYPE))
            .ok_or(SealError::NoDefinition)
    }
}

/// Bytes of flash in a block of a UF2 file.
const PAGE: u32 = 256;

/// A block of metadata.
struct Block {
    /// Its place in the image.
    at: usize,
    /// The words of its items.
    items: Vec<u32>,
    /// The distance to the next block, and the position of this link in the block.
    link: u32,
    link_at: usize,
}

impl Block {
    fn parse(image: &[u8], at: usize) -> Option<Self> {
        let word = |index: usize| word_at(image, at.checked_add(index.checked_mul(4)?)?);
        if word(0)? != BLOCK_START {
            return None;
        }
        let mut items = Vec::new();
        loop {
            let head = word(1 + items.len())?;
            let [kind, low, high, _] = head.to_le_bytes();
            let size =
                if kind & 0x80 == 0 { low.into() } else { usize::from(u16::from_le_bytes([low, high])) };
            if kind == LAST {
                let link_at = 4 * (2 + items.len());
                let whole = size == items.len() && word(3 + items.len())? == BLOCK_END;
                return whole.then(|| word(2 + items.len())).flatten().map(|link| Self {
                    at,
                    items,
                    link,
                    link_at,
                });
            }
            if size == 0 || items.len() + size > MAX_ITEMS {
                return None;
            }
            for _ in 0..size {
                items.push(word(1 + items.len())?);
            }
        }
    }

    /// The position of the next block.
    fn next(&self) -> Option<usize> {
        // Backwards too: it is a signed number.
        usize::try_from(i64::try_from(self.at).ok()? + i64::from(self.link.cast_signed())).ok()
    }

    /// The first item of a kind: its position, in words from the block's start, and its words.
    fn item(&self, wanted: u8) -> Option<(usize, &[u32])> {
        let mut at = 0;
        loop {
            let [kind, low, high, _] = self.items.get(at)?.to_le_bytes();
            let size =
                if kind & 0x80 == 0 { low.into() } else { usize::from(u16::from_le_bytes([low, high])) };
            let item = self.items.get(at..at + size)?;
            if kind == wanted {
                return Some((at + 1, item));
            }
            at += size;
        }
    }
}

/// The boot ROM reads blocks of at most 640 bytes.
const MAX_ITEMS: usize = 640 / 4 - 4;

const fn head(kind: u8, words: u32, last_byte: u32) -> u32 {
    kind as u32 | words << 8 | last_byte << 24
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use sshsm_protocol::device_status::Image as Running;

    use super::*;

    #[test]
    fn a_signed_image_is_what_a_device_says_it_runs_whose_firmware_ends_before_the_signature() {
        let mut flash = vec![0x5a; 3000];
        for (index, word) in [BLOCK_START, 0x1021_0142, 0x0000_01ff, 0, BLOCK_END].into_iter().enumerate() {
            flash[0x114 + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
        }
        flash.extend(b"sshsm image: board pico2, version 0.1.0, dialect sshsm\0");
        let length = flash.len();
        let built = Image::from_uf2(&Image(flash).to_uf2()).unwrap();
        let signed = built.seal(&SigningKey::of([7; 32])).unwrap().image.to_uf2();
        let firmware = Firmware::check(&signed, Board::PICO2).unwrap();
        let flash = Image::from_uf2(&signed).unwrap().0;
        let running = |length: usize| Running {
            length: length.try_into().unwrap(),
            sha256: Sha256::digest(&flash[..length]).into(),
        };
        assert!(firmware.is(&running(length)));
        assert!(!firmware.is(&running(length - 256)), "a page is missing");
        assert!(!firmware.is(&running(flash.len())), "no firmware counts its signature");
        let original = Running { sha256: Sha256::digest(&built.0[..length]).into(), ..running(length) };
        assert!(!firmware.is(&original), "the unsigned image has another link in it");
    }
}
