//! What opens a session.

use sshsm_protocol::{
    Algorithm, ObjectId,
    channel::{AuthenticationKey, Point},
};
use zeroize::Zeroizing;

/// The id of the key that has the new password until the real one has it. It is fixed, so that a run after an
/// interruption finds it.
pub const SUCCESSOR: ObjectId = match ObjectId::new(0xfffe) {
    Ok(id) => id,
    Err(_) => ObjectId::DEFAULT_AUTHENTICATION_KEY,
};
const _: () = assert!(SUCCESSOR.get() == 0xfffe);

/// What opens a session.
#[derive(Clone)]
pub enum Credential {
    /// A password, which makes the authentication key that the device has as well.
    Password(Zeroizing<String>),
    /// The authentication key that a password makes.
    Key(AuthenticationKey),
    /// A P-256 private key; the device has its public half, and proves that it holds the private half of its
    /// own key.
    PrivateKey {
        /// The host's.
        key: p256::SecretKey,
        /// The device's public key, which identifies the expected device.
        device: Point,
    },
}

/// The key of a new authentication key.
pub enum NewKey<'k> {
    /// Made from a password.
    Symmetric(&'k AuthenticationKey),
    /// The public half of a P-256 key, `X‖Y`, 64 bytes.
    Public(&'k [u8]),
}

impl<'k> From<&'k AuthenticationKey> for NewKey<'k> {
    fn from(key: &'k AuthenticationKey) -> Self {
        Self::Symmetric(key)
    }
}

impl NewKey<'_> {
    /// The algorithm of the authentication key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Symmetric(_) => Algorithm::Aes128YubicoAuthentication,
            Self::Public(_) => Algorithm::Ecp256YubicoAuthentication,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Symmetric(key) => key.as_bytes(),
            Self::Public(point) => point,
        }
    }
}
