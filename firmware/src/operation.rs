//! Which algorithms an operation uses besides its key's own, so that none is used that the device's options disable.
//! (No key of a disabled algorithm exists: see `options.rs`.)
//!
//! The check stands where docs/protocol.md, "Order of checks" has it: behind the session's capability, the payload's
//! length and the key's existence, before all else.

use embedded_storage::nor_flash::MultiwriteNorFlash;
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Command, DeviceError, ObjectId, ObjectType};

use crate::authorization::visible;
use crate::options::Options;
use crate::session::Caller;
use crate::store::Store;

/// Refuses a command that would use a disabled algorithm; one whose key does not exist is left to its handler.
pub(crate) fn permit<F: MultiwriteNorFlash>(
    options: &Options,
    store: &Store<F>,
    caller: &Caller,
    command: Command,
    payload: &[u8],
) -> Result<(), DeviceError> {
    let Some((object_type, at)) = key(command) else { return Ok(()) };
    let id = payload.get(at..).and_then(<[u8]>::first_chunk).copied().map(u16::from_be_bytes);
    let Some(Ok(id)) = id.map(ObjectId::new) else { return Ok(()) };
    let Ok(info) = visible(store, caller, (object_type, id)) else { return Ok(()) };
    algorithms(command, payload, info.algorithm)
        .into_iter()
        .flatten()
        .try_for_each(|used| options.permit(used))
}

/// The type of the key that a command uses and where the payload names it, for commands with algorithms of their own.
fn key(command: Command) -> Option<(ObjectType, usize)> {
    Some(match command {
        Command::SignPkcs1
        | Command::SignPss
        | Command::SignEcdsa
        | Command::DeriveEcdh
        | Command::DecryptPkcs1
        | Command::DecryptOaep
        | Command::SignSshCertificate
        | Command::ExplainSshRequest => (ObjectType::AsymmetricKey, 0),
        Command::SignAttestationCertificate => (ObjectType::AsymmetricKey, 2),
        Command::EncryptEcb | Command::DecryptEcb | Command::EncryptCbc | Command::DecryptCbc => {
            (ObjectType::SymmetricKey, 0)
        }
        Command::GetRsaWrappedKey | Command::ExportRsaWrapped => (ObjectType::PublicWrapKey, 0),
        Command::PutRsaWrappedKey | Command::ImportRsaWrapped => (ObjectType::WrapKey, 0),
        Command::ChangeAuthenticationKey => (ObjectType::AuthenticationKey, 0),
        _ => return None,
    })
}

fn algorithms(command: Command, payload: &[u8], key: Algorithm) -> [Option<Algorithm>; 4] {
    use Algorithm as A;
    const PKCS1: [A; 4] = [A::RsaPkcs1Sha1, A::RsaPkcs1Sha256, A::RsaPkcs1Sha384, A::RsaPkcs1Sha512];
    const PSS: [A; 4] = [A::RsaPssSha1, A::RsaPssSha256, A::RsaPssSha384, A::RsaPssSha512];
    const OAEP: [A; 4] = [A::RsaOaepSha1, A::RsaOaepSha256, A::RsaOaepSha384, A::RsaOaepSha512];
    const ECDSA: [A; 4] = [A::EcdsaSha1, A::EcdsaSha256, A::EcdsaSha384, A::EcdsaSha512];
    let named = |at: usize| payload.get(at).copied().and_then(A::from_code);
    let length = payload.len();
    match command {
        Command::SignPkcs1 => match by_digest(length.saturating_sub(2), PKCS1) {
            // Encoded by the client, perhaps with any of the hashes.
            None => PKCS1.map(Some),
            hash => [hash, None, None, None],
        },
        Command::SignPss => [by_digest(length.saturating_sub(5), PSS), named(2), None, None],
        Command::SignEcdsa => [by_digest(length.saturating_sub(2), ECDSA), None, None, None],
        Command::DeriveEcdh => [Some(A::Ecdh), None, None, None],
        Command::DecryptPkcs1 => [Some(A::RsaPkcs1Decrypt), None, None, None],
        // Behind the ciphertext, 256, 384 or 512 bytes, stands the label's digest.
        Command::DecryptOaep => [by_digest(length.saturating_sub(3) % 128, OAEP), named(2), None, None],
        Command::SignSshCertificate | Command::ExplainSshRequest => [named(4), None, None, None],
        Command::SignAttestationCertificate => match AsymmetricAlgorithm::from_algorithm(key) {
            Some(AsymmetricAlgorithm::Ec(_)) => [Some(A::EcdsaSha256), None, None, None],
            _ => [Some(A::RsaPkcs1Sha256), None, None, None],
        },
        Command::EncryptEcb | Command::DecryptEcb => [Some(A::AesEcb), None, None, None],
        Command::EncryptCbc | Command::DecryptCbc => [Some(A::AesCbc), None, None, None],
        Command::GetRsaWrappedKey | Command::ExportRsaWrapped => {
            [Some(A::AesKwp), named(5), named(6), named(7)]
        }
        Command::PutRsaWrappedKey => [Some(A::AesKwp), named(55), named(56), named(57)],
        Command::ImportRsaWrapped => [Some(A::AesKwp), named(2), named(3), None],
        Command::ChangeAuthenticationKey => [named(2), None, None, None],
        _ => [None; 4],
    }
}

/// The algorithm whose hash has digests of this length: SHA-1, SHA-256, SHA-384 or SHA-512.
fn by_digest(length: usize, [sha1, sha256, sha384, sha512]: [Algorithm; 4]) -> Option<Algorithm> {
    match length {
        20 => Some(sha1),
        32 => Some(sha256),
        48 => Some(sha384),
        64 => Some(sha512),
        _ => None,
    }
}
