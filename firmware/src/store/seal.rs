//! The seal on data in flash: only the holder of the root key can read, write or move it.
//!
//! AES-256-SIV (RFC 5297) under a key derived from the root key. It is deterministic and needs no nonce:
//! after a power cut or a reset, a revision may be written again with different content, which would break a
//! cipher whose nonce must not repeat. Sealing the same content in the same place again gives the same bytes,
//! and that is all it reveals.

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::platform::RootKey;

/// Bytes of a tag.
pub(super) const TAG: usize = 16;
const SALT: &[u8] = b"sshsm store";

/// Authenticates one sealed text and the place it belongs to.
pub(super) type Tag = [u8; TAG];
/// Distinguishes root keys and reveals nothing else about them.
pub(super) type RootKeyId = [u8; 16];

/// The place to which a text belongs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) part: Part,
    pub(super) key: u32,
    pub(super) revision: u32,
}

/// Which text of an entry.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Part {
    Head = 1,
    Body = 2,
}

pub(super) struct Seal(Aes256Siv);

impl Seal {
    pub(super) fn new(root_key: &RootKey) -> Self {
        Self(Aes256Siv::new(&(*derive::<64>(root_key, b"seal")).into()))
    }

    /// Encrypts a text in place.
    pub(super) fn seal(&mut self, place: Place, text: &mut [u8]) -> Option<Tag> {
        self.0.encrypt_inout_detached([place.encode()], text.into()).ok().map(Into::into)
    }

    /// Decrypts a text in place; `None`, and the text as it was, if the tag is not its own in this place.
    pub(super) fn open(&mut self, place: Place, text: &mut [u8], tag: &Tag) -> Option<()> {
        self.0.decrypt_inout_detached([place.encode()], text.into(), &(*tag).into()).ok()
    }
}

impl Place {
    fn encode(self) -> [u8; 9] {
        let [k3, k2, k1, k0] = self.key.to_be_bytes();
        let [r3, r2, r1, r0] = self.revision.to_be_bytes();
        [self.part as u8, k3, k2, k1, k0, r3, r2, r1, r0]
    }
}

pub(super) fn root_key_id(root_key: &RootKey) -> RootKeyId {
    *derive(root_key, b"root key id")
}

fn derive<const N: usize>(root_key: &RootKey, info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut key = Zeroizing::new([0; N]);
    // It fails for lengths above 8160 bytes alone.
    let _ = Hkdf::<Sha256>::new(Some(SALT), root_key.as_bytes()).expand(info, key.as_mut_slice());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { part: Part::Head, key: 1, revision: 2 };

    fn seal(root: u8) -> Seal {
        Seal::new(&RootKey::from_bytes([root; 32]))
    }

    #[test]
    fn a_text_opens_in_its_place_under_its_root_key_and_nowhere_else() {
        let mut sealed = *b"thirty-two bytes of private key.";
        let tag = seal(1).seal(PLACE, &mut sealed).unwrap();
        assert_ne!(&sealed, b"thirty-two bytes of private key.");
        let opened = |seal: &mut Seal, place, tag| {
            let mut text = sealed;
            seal.open(place, &mut text, tag).map(|()| text).ok_or(text)
        };
        assert_eq!(opened(&mut seal(1), PLACE, &tag), Ok(*b"thirty-two bytes of private key."));
        let mut forged = tag;
        forged[15] ^= 1;
        assert_eq!(opened(&mut seal(1), PLACE, &forged), Err(sealed));
        assert_eq!(opened(&mut seal(2), PLACE, &tag), Err(sealed));
        for place in
            [Place { part: Part::Body, ..PLACE }, Place { key: 9, ..PLACE }, Place { revision: 9, ..PLACE }]
        {
            assert_eq!(opened(&mut seal(1), place, &tag), Err(sealed));
        }
    }

    #[test]
    fn the_keys_of_a_root_key_are_all_different() {
        let root_key = RootKey::from_bytes([7; 32]);
        let key = derive::<64>(&root_key, b"seal");
        assert_ne!(key[..32], key[32..]);
        assert_ne!(root_key_id(&root_key), key[..16]);
        assert_ne!(root_key_id(&root_key), root_key_id(&RootKey::from_bytes([8; 32])));
    }
}
