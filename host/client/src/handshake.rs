//! How a session is opened: under the key that a password makes, or under a P-256 key.

use std::{
    thread,
    time::{Duration, Instant},
};

use p256::elliptic_curve::ecdh::diffie_hellman;
use sshsm_protocol::{
    Command, DeviceError, ObjectId,
    channel::{Agreement, AuthenticationKey, Challenge, Handshake, HostChannel, Point, session_number},
    message::{self, reply},
};
use zeroize::Zeroizing;

use crate::{
    credential::Credential,
    error::{ClientError, Result, nonsense, not_opened},
    exchange::Exchange,
    plain::{answer_of, encoded, framed, read},
};

/// How long to keep asking a device whose sessions are all taken. Sessions that were created but not
/// authenticated, by a client with a wrong password for example, are evicted after five seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

/// Opens a session under authentication key `id`; asks for one for so long while all are taken.
pub(crate) fn open(
    exchange: &mut dyn Exchange,
    id: ObjectId,
    credential: &Credential,
    patience: Duration,
) -> Result<HostChannel> {
    match credential {
        Credential::Password(password) => {
            prove(exchange, id, &AuthenticationKey::from_password(password.as_bytes()), patience)
        }
        Credential::Key(key) => prove(exchange, id, key, patience),
        Credential::PrivateKey { key, device } => agree(exchange, id, key, device, patience),
    }
}

/// Both sides prove that they know the authentication key.
fn prove(
    exchange: &mut dyn Exchange,
    id: ObjectId,
    key: &AuthenticationKey,
    patience: Duration,
) -> Result<HostChannel> {
    let mut host_challenge = Challenge::default();
    getrandom::fill(&mut host_challenge).map_err(ClientError::Entropy)?;
    let handshake = Handshake::new(id.get(), key, host_challenge);
    let answer = create_session(exchange, id, &handshake.create(), patience)?;
    let failed = |error| not_opened(Command::CreateSession, id, error);
    let mut channel = handshake.created(&answer).map_err(failed)?;
    let answer = exchange.transact(&channel.authenticate())?;
    let failed = |error| not_opened(Command::AuthenticateSession, id, error);
    Handshake::authenticated(&answer).map_err(failed)?;
    Ok(channel)
}

/// Opens a session with a P-256 key (docs/protocol.md, "P-256 sessions").
fn agree(
    exchange: &mut dyn Exchange,
    id: ObjectId,
    key: &p256::SecretKey,
    device: &Point,
    patience: Duration,
) -> Result<HostChannel> {
    let create = Command::CreateSession;
    let ephemeral = ephemeral_key()?;
    let host_point =
        Point::try_from(&*ephemeral.public_key().to_sec1_bytes()).map_err(|error| nonsense(create, error))?;
    let request = encoded(create, &message::CreateSession { key: id.get(), host: &host_point })?;
    let answer = create_session(exchange, id, &framed(create, &request)?, patience)?;
    let reply::SessionAgreed { session, device_point, receipt } = read(create, answer_of(create, &answer)?)?;
    let session = session_number(session).map_err(|error| not_opened(create, id, error))?;
    let agreement = Agreement {
        ephemeral_secret: &*shared_secret(&ephemeral, &device_point)?,
        static_secret: &*shared_secret(key, device)?,
        host_point: &host_point,
        device_point: &device_point,
    };
    HostChannel::agree(session, &agreement, receipt).map_err(|_| ClientError::WrongPrivateKey(id))
}

/// CREATE SESSION, which changes nothing when it is refused and so may be repeated.
fn create_session(
    exchange: &mut dyn Exchange,
    id: ObjectId,
    message: &[u8],
    patience: Duration,
) -> Result<Vec<u8>> {
    let begin = Instant::now();
    loop {
        let answer = exchange.transact(message)?;
        match answer_of(Command::CreateSession, &answer) {
            Err(ClientError::Device { error: DeviceError::SessionsFull, .. })
                if begin.elapsed() < patience =>
            {
                thread::sleep(Duration::from_millis(200));
            }
            Err(ClientError::Device { error: DeviceError::ObjectNotFound, .. }) => {
                return Err(ClientError::UnknownAuthenticationKey(id));
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(answer),
        }
    }
}

/// A new P-256 key. Nearly every 32 bytes are one.
pub(crate) fn ephemeral_key() -> Result<p256::SecretKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    loop {
        getrandom::fill(bytes.as_mut()).map_err(ClientError::Entropy)?;
        if let Ok(key) = p256::SecretKey::from_slice(bytes.as_ref()) {
            return Ok(key);
        }
    }
}

/// The x-coordinate of a point of the device times a scalar of the host.
fn shared_secret(key: &p256::SecretKey, point: &Point) -> Result<Zeroizing<[u8; 32]>> {
    let point =
        p256::PublicKey::from_sec1_bytes(point).map_err(|error| nonsense(Command::CreateSession, error))?;
    let shared = diffie_hellman(key.to_nonzero_scalar(), point.as_affine());
    Ok(Zeroizing::new((*shared.raw_secret_bytes()).into()))
}
