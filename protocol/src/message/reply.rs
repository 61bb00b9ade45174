//! Answers that more than one place reads.

use super::{REST, messages};
use crate::channel::{Challenge, Point, Receipt};

messages! {
    /// Of what makes or changes an object: which it is.
    struct Created {
        /// The object.
        id: u16 as target,
    }

    /// Of what brings in an object under a wrap key: which it is.
    struct Imported {
        /// Its type.
        object_type: u8,
        /// Its id.
        id: u16 as second,
    }

    /// CREATE SESSION with the key of a password.
    struct SessionCreated {
        /// The session.
        session: u8,
        /// The device's challenge.
        card_challenge: Challenge,
        /// The device's proof that it holds the key.
        card_cryptogram: Challenge,
    }

    /// CREATE SESSION with a P-256 key.
    struct SessionAgreed {
        /// The session.
        session: u8,
        /// The device's ephemeral public key.
        device_point: Point,
        /// The device's proof that it holds its private keys.
        receipt: Receipt,
    }

    /// GET PUBLIC KEY and GET DEVICE PUBLIC KEY.
    struct PublicKey<'a> {
        /// Its algorithm.
        algorithm: u8,
        ..
        /// RSA modulus, `X‖Y`, or the 32 bytes of Ed25519.
        key: 32..=REST,
    }
}
