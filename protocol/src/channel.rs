//! The secure channel of a session, for both ends.
//!
//! An SCP03-like channel on AES-128: both sides derive session keys from a shared authentication key and two
//! challenges, prove it with cryptograms, then encrypt every message in CBC mode and authenticate it with a
//! CMAC that chains over all commands. Derivation constants and MAC layout: docs/protocol.md, "Session keys"
//! and docs/protocol.md, "Session messages"; the vector there is a test here.
//!
//! Sessions with P-256 authentication keys derive their keys from two Diffie-Hellman secrets instead
//! (docs/protocol.md, "P-256 sessions"); from the first message on they work the same. The caller computes
//! those secrets: a board may have faster arithmetic than a desktop, and this crate stays free of curves.
//!
//! [`HostChannel`] and [`DeviceChannel`] are the two roles; their common part is private. [`Handshake`] opens
//! the first with a password.

use aes::Aes128;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{Block, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use cmac::{Cmac, Mac};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::codec::{CodecError, Writer};
use crate::command::Command;
use crate::frame::{
    AnswerError, Frame, FrameError, HEADER_LENGTH, MAX_CIPHERTEXT, RESPONSE_FLAG, SESSION_OVERHEAD,
    write_header,
};
use crate::message::reply::SessionCreated;
use crate::message::{CreateSession, Message as _, Nothing};

/// Bytes of an AES block, a key and a full MAC.
const BLOCK: usize = 16;
/// Bytes of a MAC on the wire.
pub const MAC_LENGTH: usize = 8;
/// Bytes of a challenge or a cryptogram.
pub const CHALLENGE_LENGTH: usize = 8;
/// Sessions a device can hold; ids run from 0 to one below.
pub const MAX_SESSIONS: usize = 16;

/// Bytes of the proof that a device holds its private keys.
pub const RECEIPT_LENGTH: usize = BLOCK;
/// Bytes of a P-256 point, `04 ‖ X[32] ‖ Y[32]`.
pub const POINT_LENGTH: usize = 65;

/// A challenge of either side, or the cryptogram that answers it.
pub type Challenge = [u8; CHALLENGE_LENGTH];
/// An ephemeral P-256 public key, uncompressed.
pub type Point = [u8; POINT_LENGTH];
/// The device's proof in CREATE SESSION with a P-256 authentication key.
pub type Receipt = [u8; RECEIPT_LENGTH];

/// Why a message of the channel was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The other side's cryptogram is not the expected one: it does not know the authentication key.
    #[error("wrong cryptogram: the other side holds a different authentication key")]
    WrongCryptogram,
    /// The device's receipt is not the expected one: it holds a different private key from the one it is
    /// known by, or a different authentication key.
    #[error("wrong receipt: the device holds a different private key or authentication key")]
    WrongReceipt,
    /// The MAC does not match: the message was changed, replayed, or meant for another session.
    #[error("wrong message authentication code")]
    WrongMac,
    /// The message is not framed as one of this channel.
    #[error("malformed session message of {0} bytes")]
    Malformed(usize),
    /// The message is for another session.
    #[error("message is for session {0}")]
    OtherSession(u8),
    /// The frame inside the message has no header or is longer than the plaintext.
    #[error("malformed frame inside a session message: {0}")]
    InnerFrame(#[from] FrameError),
    /// The message does not fit the buffer or the protocol's limit.
    #[error(transparent)]
    TooLong(#[from] CodecError),
}

/// A long-term authentication key: `K-ENC[16] ‖ K-MAC[16]`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AuthenticationKey([u8; Self::LENGTH]);

impl AuthenticationKey {
    /// Bytes of the key.
    pub const LENGTH: usize = 32;

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// From a password, as every client does it: PBKDF2-HMAC-SHA256, salt `Yubico`, 10 000 iterations.
    #[must_use]
    pub fn from_password(password: &[u8]) -> Self {
        let mut bytes = [0; Self::LENGTH];
        pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, b"Yubico", 10_000, &mut bytes);
        Self(bytes)
    }

    /// The key's bytes, for storing it on a device.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    fn halves(&self) -> ([u8; BLOCK], [u8; BLOCK]) {
        let mut enc = [0; BLOCK];
        let mut mac = [0; BLOCK];
        for (to, from) in enc.iter_mut().chain(mac.iter_mut()).zip(self.0) {
            *to = from;
        }
        (enc, mac)
    }
}

impl core::fmt::Debug for AuthenticationKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AuthenticationKey(..)")
    }
}

/// The values that the two ends of a P-256 session agree on (docs/protocol.md, "P-256 sessions"). Secrets are
/// x-coordinates of ECDH.
pub struct Agreement<'a> {
    /// Of the two ephemeral keys.
    pub ephemeral_secret: &'a [u8; 32],
    /// Of the host's authentication key and the device's static key.
    pub static_secret: &'a [u8; 32],
    /// The host's ephemeral public key.
    pub host_point: &'a Point,
    /// The device's ephemeral public key.
    pub device_point: &'a Point,
}

/// The derivation constants of docs/protocol.md, "Session keys".
#[derive(Clone, Copy)]
#[repr(u8)]
enum Derivation {
    CardCryptogram = 0x00,
    HostCryptogram = 0x01,
    Encryption = 0x04,
    CommandMac = 0x06,
    ResponseMac = 0x07,
}

fn derive(key: &[u8; BLOCK], what: Derivation, bits: u16, host: Challenge, card: Challenge) -> [u8; BLOCK] {
    let mut cmac = Cmac::<Aes128>::new(key.into());
    cmac.update(&[0; 11]);
    cmac.update(&[what as u8, 0]);
    cmac.update(&bits.to_be_bytes());
    cmac.update(&[1]);
    cmac.update(&host);
    cmac.update(&card);
    cmac.finalize().into_bytes().into()
}

fn truncated(mac: &[u8; BLOCK]) -> [u8; MAC_LENGTH] {
    let [a, b, c, d, e, f, g, h, ..] = *mac;
    [a, b, c, d, e, f, g, h]
}

/// What both roles hold: session keys, message counter, and the MAC chain.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Keys {
    session_id: u8,
    encryption: [u8; BLOCK],
    command_mac: [u8; BLOCK],
    response_mac: [u8; BLOCK],
    card_cryptogram: Challenge,
    host_cryptogram: Challenge,
    counter: u128,
    chain: [u8; BLOCK],
}

impl Keys {
    fn derive(session_id: u8, key: &AuthenticationKey, host: Challenge, card: Challenge) -> Self {
        let (mut enc, mut mac) = key.halves();
        let command_mac = derive(&mac, Derivation::CommandMac, 0x80, host, card);
        let keys = Self {
            session_id,
            encryption: derive(&enc, Derivation::Encryption, 0x80, host, card),
            response_mac: derive(&mac, Derivation::ResponseMac, 0x80, host, card),
            card_cryptogram: truncated(&derive(&command_mac, Derivation::CardCryptogram, 0x40, host, card)),
            host_cryptogram: truncated(&derive(&command_mac, Derivation::HostCryptogram, 0x40, host, card)),
            command_mac,
            counter: 0,
            chain: [0; BLOCK],
        };
        enc.zeroize();
        mac.zeroize();
        keys
    }

    /// The session is live at once, its chain begins with the receipt.
    fn agree(session_id: u8, agreement: &Agreement<'_>) -> Self {
        let mut secret = [0; 64];
        for (to, from) in
            secret.iter_mut().zip(agreement.ephemeral_secret.iter().chain(agreement.static_secret))
        {
            *to = *from;
        }
        let mut keys = [[0; BLOCK]; 4];
        // Key usage, key type AES, key length. Fails only for lengths that are not these.
        let derived = ansi_x963_kdf::derive_key_into::<sha2::Sha256>(
            &secret,
            &[0x3c, 0x88, 0x10],
            keys.as_flattened_mut(),
        );
        debug_assert!(derived.is_ok());
        secret.zeroize();
        let [mut receipt_key, encryption, command_mac, response_mac] = keys;
        keys.zeroize();
        let mut cmac = Cmac::<Aes128>::new(&receipt_key.into());
        receipt_key.zeroize();
        cmac.update(agreement.device_point);
        cmac.update(agreement.host_point);
        Self {
            session_id,
            encryption,
            command_mac,
            response_mac,
            card_cryptogram: Challenge::default(),
            host_cryptogram: Challenge::default(),
            counter: 1,
            chain: cmac.finalize().into_bytes().into(),
        }
    }

    /// The MAC over `chain ‖ message` under `key`; `message` has its header with the final length.
    fn mac(&self, key: &[u8; BLOCK], message: &[u8]) -> [u8; BLOCK] {
        let mut cmac = Cmac::<Aes128>::new(key.into());
        cmac.update(&self.chain);
        cmac.update(message);
        cmac.finalize().into_bytes().into()
    }

    /// The CBC initialisation vector of the current exchange: the encrypted message counter, the same for
    /// command and response.
    fn iv(&self) -> [u8; BLOCK] {
        let mut block = Block::<Aes128>::from(self.counter.to_be_bytes());
        Aes128::new(&self.encryption.into()).encrypt_block(&mut block);
        block.into()
    }

    /// Turns the inner frame at `message[4..4 + inner]` into a whole session message and returns its length
    /// without the MAC, for which there is room at the end.
    fn encrypt(&self, code: u8, inner: usize, message: &mut [u8]) -> Result<usize, ChannelError> {
        let padded = (inner / BLOCK + 1) * BLOCK;
        let needed = padded + SESSION_OVERHEAD;
        let available = message.len().min(MAX_CIPHERTEXT + SESSION_OVERHEAD);
        if needed > available {
            return Err(CodecError::NoSpace { needed, available }.into());
        }
        write_header(code, needed - HEADER_LENGTH, message)?;
        if let Some(id) = message.get_mut(HEADER_LENGTH) {
            *id = self.session_id;
        }
        let text = message.get_mut(HEADER_LENGTH + 1..).and_then(|rest| rest.get_mut(..padded));
        let text = text.ok_or(ChannelError::Malformed(available))?;
        if let Some((first, rest)) = text.get_mut(inner..).and_then(<[u8]>::split_first_mut) {
            *first = 0x80;
            rest.fill(0);
        }
        cbc::Encryptor::<Aes128>::new(&self.encryption.into(), &self.iv().into())
            .encrypt_padded::<NoPadding>(text, padded)
            .map_err(|_| ChannelError::Malformed(padded))?;
        Ok(needed - MAC_LENGTH)
    }

    /// Splits a whole session message into the bytes that the MAC covers and the MAC; checks framing and
    /// session.
    fn split<'m>(&self, code: u8, message: &'m mut [u8]) -> Result<(&'m mut [u8], [u8; 8]), ChannelError> {
        let length = message.len();
        let payload = Frame::parse(message).map_err(|_| ChannelError::Malformed(length))?;
        if payload.code != code {
            return Err(ChannelError::Malformed(length));
        }
        match payload.payload.first() {
            Some(&id) if id == self.session_id => {}
            Some(&id) => return Err(ChannelError::OtherSession(id)),
            None => return Err(ChannelError::Malformed(length)),
        }
        let (covered, mac) =
            message.split_last_chunk_mut::<MAC_LENGTH>().ok_or(ChannelError::Malformed(length))?;
        let text = covered.len().saturating_sub(HEADER_LENGTH + 1);
        if text == 0 || text % BLOCK != 0 {
            return Err(ChannelError::Malformed(length));
        }
        Ok((covered, *mac))
    }

    /// Decrypts the ciphertext of `header ‖ session id ‖ ciphertext` in place and reads the frame in it.
    fn decrypt<'m>(&self, covered: &'m mut [u8]) -> Result<Frame<'m>, ChannelError> {
        let length = covered.len();
        let text = covered.get_mut(HEADER_LENGTH + 1..).ok_or(ChannelError::Malformed(length))?;
        let plain = cbc::Decryptor::<Aes128>::new(&self.encryption.into(), &self.iv().into())
            .decrypt_padded::<NoPadding>(text)
            .map_err(|_| ChannelError::Malformed(length))?;
        Ok(Frame::parse_padded(plain)?)
    }

    /// The AUTHENTICATE SESSION message without its MAC.
    fn authenticate_message(&self) -> [u8; HEADER_LENGTH + 1 + CHALLENGE_LENGTH] {
        let mut message = [0; HEADER_LENGTH + 1 + CHALLENGE_LENGTH];
        let header = [Command::AuthenticateSession.code(), 0, 0x11, self.session_id];
        for (to, from) in message.iter_mut().zip(header.into_iter().chain(self.host_cryptogram)) {
            *to = from;
        }
        message
    }

    /// Starts counting messages; `chain` is the full MAC of AUTHENTICATE SESSION.
    fn establish(&mut self, chain: [u8; BLOCK]) {
        self.chain = chain;
        self.counter = 1;
    }
}

fn append_mac(mac: &[u8; BLOCK], covered: usize, message: &mut [u8]) -> Result<usize, ChannelError> {
    let room = message.get_mut(covered..).and_then(<[u8]>::first_chunk_mut::<MAC_LENGTH>);
    *room.ok_or(ChannelError::Malformed(covered))? = truncated(mac);
    Ok(covered + MAC_LENGTH)
}

/// Why a session was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The device refused, or its answer is to something else.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The answer does not have the layout of its command.
    #[error(transparent)]
    Layout(#[from] CodecError),
    /// The device named a session number that does not exist.
    #[error("it names session {0}")]
    NoSuchSession(u8),
    /// The device does not know the authentication key.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Opens a session with an authentication key derived from a password, over any way of sending a message to a
/// device.
pub struct Handshake<'k> {
    id: u16,
    key: &'k AuthenticationKey,
    challenge: Challenge,
}

impl<'k> Handshake<'k> {
    /// With authentication key `id` and a challenge that was never used before.
    #[must_use]
    pub const fn new(id: u16, key: &'k AuthenticationKey, challenge: Challenge) -> Self {
        Self { id, key, challenge }
    }

    /// Opens the session; `exchange` sends a message to the device and returns its answer.
    pub fn open<A: AsRef<[u8]>, E: From<HandshakeError>>(
        &self,
        mut exchange: impl FnMut(&[u8]) -> Result<A, E>,
    ) -> Result<HostChannel, E> {
        let mut channel = self.created(exchange(&self.create())?.as_ref())?;
        Self::authenticated(exchange(&channel.authenticate())?.as_ref())?;
        Ok(channel)
    }

    /// The whole CREATE SESSION message.
    #[must_use]
    pub fn create(&self) -> [u8; HEADER_LENGTH + 2 + CHALLENGE_LENGTH] {
        let mut message = [0; HEADER_LENGTH + 2 + CHALLENGE_LENGTH];
        let request = CreateSession { key: self.id, host: &self.challenge };
        // The buffer is exactly as long as the message.
        let _ = request.encode(&mut Writer::new(message.get_mut(HEADER_LENGTH..).unwrap_or_default()));
        let _ = write_header(Command::CreateSession.code(), request.length(), &mut message);
        message
    }

    /// Reads the whole answer to CREATE SESSION. The session's first message is [`HostChannel::authenticate`].
    pub fn created(&self, answer: &[u8]) -> Result<HostChannel, HandshakeError> {
        let payload = Frame::parse(answer).map_err(AnswerError::from)?.answer(Command::CreateSession)?;
        let SessionCreated { session, card_challenge, card_cryptogram } = SessionCreated::decode(payload)?;
        let session = session_number(session)?;
        Ok(HostChannel::derive(session, self.key, self.challenge, card_challenge, card_cryptogram)?)
    }

    /// Reads the whole answer to AUTHENTICATE SESSION.
    pub fn authenticated(answer: &[u8]) -> Result<(), HandshakeError> {
        let payload =
            Frame::parse(answer).map_err(AnswerError::from)?.answer(Command::AuthenticateSession)?;
        Nothing::decode(payload)?;
        Ok(())
    }
}

/// The number of a session, if it is one that a device can have.
pub fn session_number(session: u8) -> Result<u8, HandshakeError> {
    if usize::from(session) < MAX_SESSIONS {
        Ok(session)
    } else {
        Err(HandshakeError::NoSuchSession(session))
    }
}

/// The client's end of a session.
#[derive(ZeroizeOnDrop)]
pub struct HostChannel(Keys);

impl HostChannel {
    /// Derives the session from the device's answer to CREATE SESSION and checks that the device knows the
    /// authentication key. `WrongCryptogram` means that the password is wrong.
    pub fn derive(
        session_id: u8,
        key: &AuthenticationKey,
        host_challenge: Challenge,
        card_challenge: Challenge,
        card_cryptogram: Challenge,
    ) -> Result<Self, ChannelError> {
        let keys = Keys::derive(session_id, key, host_challenge, card_challenge);
        if bool::from(keys.card_cryptogram.ct_eq(&card_cryptogram)) {
            Ok(Self(keys))
        } else {
            Err(ChannelError::WrongCryptogram)
        }
    }

    /// Agrees on a session from the device's answer to CREATE SESSION with a P-256 key and checks that the
    /// device holds its private keys. There is no authentication message: the host's first command proves
    /// that it holds its own.
    pub fn agree(session_id: u8, agreement: &Agreement<'_>, receipt: Receipt) -> Result<Self, ChannelError> {
        let keys = Keys::agree(session_id, agreement);
        if bool::from(keys.chain.ct_eq(&receipt)) { Ok(Self(keys)) } else { Err(ChannelError::WrongReceipt) }
    }

    /// The session's number on the device.
    #[must_use]
    pub const fn session_id(&self) -> u8 {
        self.0.session_id
    }

    /// The whole AUTHENTICATE SESSION message, 20 bytes; the session can be used once the device accepts it.
    #[must_use]
    pub fn authenticate(&mut self) -> [u8; HEADER_LENGTH + 1 + CHALLENGE_LENGTH + MAC_LENGTH] {
        let message = self.0.authenticate_message();
        let mac = self.0.mac(&self.0.command_mac, &message);
        self.0.establish(mac);
        let mut whole = [0; HEADER_LENGTH + 1 + CHALLENGE_LENGTH + MAC_LENGTH];
        for (to, from) in whole.iter_mut().zip(message.into_iter().chain(truncated(&mac))) {
            *to = from;
        }
        whole
    }

    /// Encrypts a command into `message` and returns the length of the whole SESSION MESSAGE.
    ///
    /// `message` needs room for `payload` and at most 31 bytes more.
    pub fn seal(
        &mut self,
        command: Command,
        payload: &[u8],
        message: &mut [u8],
    ) -> Result<usize, ChannelError> {
        let available = message.len();
        let inner = message
            .get_mut(HEADER_LENGTH + 1..)
            .ok_or(CodecError::NoSpace { needed: HEADER_LENGTH + 1, available })?;
        let inner = Frame { code: command.code(), payload }.encode(inner)?;
        let covered = self.0.encrypt(Command::SessionMessage.code(), inner, message)?;
        let covers = message.get(..covered).ok_or(CodecError::NoSpace { needed: covered, available })?;
        let mac = self.0.mac(&self.0.command_mac, covers);
        self.0.chain = mac;
        append_mac(&mac, covered, message)
    }

    /// Checks and decrypts the device's answer in place; returns the inner response or error frame.
    pub fn open<'m>(&mut self, message: &'m mut [u8]) -> Result<Frame<'m>, ChannelError> {
        let code = Command::SessionMessage.code() | RESPONSE_FLAG;
        let (covered, mac) = self.0.split(code, message)?;
        let expected = truncated(&self.0.mac(&self.0.response_mac, covered));
        if !bool::from(expected.ct_eq(&mac)) {
            return Err(ChannelError::WrongMac);
        }
        let frame = self.0.decrypt(covered);
        self.0.counter = self.0.counter.wrapping_add(1);
        frame
    }
}

impl HostChannel {
    /// Advances past the answer to the last command, which was lost. If the device received that command, the
    /// next one continues from it; if not, the device refuses the next one.
    pub fn skip_answer(&mut self) {
        self.0.counter = self.0.counter.wrapping_add(1);
    }
}

/// The device's end of a session.
#[derive(ZeroizeOnDrop)]
pub struct DeviceChannel(Keys);

impl DeviceChannel {
    /// Derives a session that the host has yet to authenticate.
    #[must_use]
    pub fn derive(
        session_id: u8,
        key: &AuthenticationKey,
        host_challenge: Challenge,
        card_challenge: Challenge,
    ) -> Self {
        Self(Keys::derive(session_id, key, host_challenge, card_challenge))
    }

    /// Agrees on a session with the holder of a P-256 key, and computes the receipt for the host. The host is
    /// not authenticated until [`DeviceChannel::open`] has accepted its first message.
    #[must_use]
    pub fn agree(session_id: u8, agreement: &Agreement<'_>) -> (Self, Receipt) {
        let keys = Keys::agree(session_id, agreement);
        let receipt = keys.chain;
        (Self(keys), receipt)
    }

    /// The cryptogram that proves to the host that this device knows the key.
    #[must_use]
    pub const fn card_cryptogram(&self) -> Challenge {
        self.0.card_cryptogram
    }

    /// Checks the payload of AUTHENTICATE SESSION: `session id u8 ‖ host cryptogram[8] ‖ MAC[8]`.
    pub fn authenticate(&mut self, cryptogram: Challenge, mac: [u8; MAC_LENGTH]) -> Result<(), ChannelError> {
        let expected = self.0.mac(&self.0.command_mac, &self.0.authenticate_message());
        let cryptogram_matches = self.0.host_cryptogram.ct_eq(&cryptogram);
        let mac_matches = truncated(&expected).ct_eq(&mac);
        if !bool::from(cryptogram_matches) {
            return Err(ChannelError::WrongCryptogram);
        }
        if !bool::from(mac_matches) {
            return Err(ChannelError::WrongMac);
        }
        self.0.establish(expected);
        Ok(())
    }

    /// Checks and decrypts a whole SESSION MESSAGE in place; returns the inner command frame.
    ///
    /// With `InnerFrame` the message was authentic, and [`DeviceChannel::seal`] answers it; with any other
    /// error nothing has changed. The device has to limit how often `WrongMac` may occur: a MAC on the wire
    /// has 64 bits.
    pub fn open<'m>(&mut self, message: &'m mut [u8]) -> Result<Frame<'m>, ChannelError> {
        let (covered, mac) = self.0.split(Command::SessionMessage.code(), message)?;
        let expected = self.0.mac(&self.0.command_mac, covered);
        if !bool::from(truncated(&expected).ct_eq(&mac)) {
            return Err(ChannelError::WrongMac);
        }
        self.0.chain = expected;
        self.0.decrypt(covered)
    }

    /// Encrypts the answer, the inner frame of `inner` bytes at `message[4..]`, and returns the length of the
    /// whole message.
    pub fn seal(&mut self, inner: usize, message: &mut [u8]) -> Result<usize, ChannelError> {
        let covered = self.0.encrypt(Command::SessionMessage.code() | RESPONSE_FLAG, inner, message)?;
        let available = message.len();
        let covers = message.get(..covered).ok_or(CodecError::NoSpace { needed: covered, available })?;
        let mac = self.0.mac(&self.0.response_mac, covers);
        self.0.counter = self.0.counter.wrapping_add(1);
        append_mac(&mac, covered, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DeviceError;
    use crate::frame::{ERROR_CODE, MAX_INNER_PAYLOAD, MAX_MESSAGE};
    use hex_literal::hex;

    const CARD: Challenge = hex!("054d5631c9186f80");

    fn pair() -> (HostChannel, DeviceChannel) {
        let key = AuthenticationKey::from_password(b"password");
        let mut device = DeviceChannel::derive(0, &key, [0; 8], CARD);
        let mut host = HostChannel::derive(0, &key, [0; 8], CARD, device.card_cryptogram()).unwrap();
        let message = host.authenticate();
        device.authenticate(message[4..12].try_into().unwrap(), message[12..].try_into().unwrap()).unwrap();
        (host, device)
    }

    #[test]
    fn passwords_become_the_published_keys() {
        assert_eq!(
            AuthenticationKey::from_password(b"password").as_bytes(),
            &hex!("090b47dbed595654901dee1cc655e420592fd483f759e29909a04c4505d2ce0a")
        );
        assert_eq!(
            AuthenticationKey::from_password(&hex!("cebae1bdb9cf83cebcceb5")).as_bytes(),
            &hex!("f320972c667ba5cd4d35119a6b0271a1f10050ca688e5a6ce62b1ffb0f6f6869")
        );
    }

    /// Vector A of docs/protocol.md, "Session messages": three exchanges, an error among them.
    #[test]
    fn the_hardware_vector_is_reproduced_by_both_ends() {
        let key = AuthenticationKey::from_password(b"password");
        let mut device = DeviceChannel::derive(0, &key, [0; 8], CARD);
        assert_eq!(device.card_cryptogram(), hex!("3225ed8a3224f2cf"));
        let mut host = HostChannel::derive(0, &key, [0; 8], CARD, device.card_cryptogram()).unwrap();
        let message = host.authenticate();
        assert_eq!(message, hex!("040011001ce7552e0f7976dbcc2198fd155c335a"));
        device.authenticate(hex!("1ce7552e0f7976db"), hex!("cc2198fd155c335a")).unwrap();

        /// Command, payload, its message, inner answer, its message.
        type Exchange<'a> = (Command, &'a [u8], &'a [u8], &'a [u8], &'a [u8]);
        let exchanges: [Exchange<'_>; 3] = [
            (
                Command::Echo,
                b"h",
                &hex!("050019007deab6f3929393fe51a285acdb2bf8ab1a062a0ee60e1d15"),
                &hex!("81000168"),
                &hex!("850019005646d0e62c634a28415943ac8e7a034d5d0073aefd02a98c"),
            ),
            (
                Command::GetPseudoRandom,
                &[0, 4],
                &hex!("0500190020ca04ce61ad66d1b7dd11e7f008d1ad02928401069f8560"),
                &hex!("d10004deadbeef"),
                &hex!("850019004e51bbc9188cde2f2e2df16ce6bca2406f356cdb2535e7e3"),
            ),
            (
                Command::GetObjectInfo,
                &[0, 0x0f, 3],
                &hex!("05001900ba10dc2c53cac8a12c8e4ed0f620ed9a794caf950f119a70"),
                &hex!("7f00010b"),
                &hex!("85001900ee5d2353859f518425b28e6ae025a5bfab4ae4537632625e"),
            ),
        ];
        for (command, payload, sealed, answer, sealed_answer) in exchanges {
            let mut wire = [0; 64];
            let length = host.seal(command, payload, &mut wire).unwrap();
            assert_eq!(&wire[..length], sealed);
            let frame = device.open(&mut wire[..length]).unwrap();
            assert_eq!((frame.code, frame.payload), (command.code(), payload));

            wire[4..4 + answer.len()].copy_from_slice(answer);
            let length = device.seal(answer.len(), &mut wire).unwrap();
            assert_eq!(&wire[..length], sealed_answer);
            let frame = host.open(&mut wire[..length]).unwrap();
            assert_eq!((frame.code, frame.payload), (answer[0], &answer[3..]));
        }
        assert_eq!(ERROR_CODE, 0x7f);
        assert_eq!(DeviceError::from_code(0x0b), Some(DeviceError::ObjectNotFound));
    }

    /// Vector B of docs/protocol.md, "P-256 sessions".
    const AGREEMENT: Agreement<'_> = Agreement {
        ephemeral_secret: &hex!("b019f997f1acd2a2e19a75c38f0f658a935b22db5960a5394216b466775c83ba"),
        static_secret: &hex!("39a10ced504c975c9e089753c8250af85a2521eaa13d721f3395bc7bb45b92f5"),
        host_point: &hex!(
            "04d65a93977caa3d1b081852ff57a79e465f1660577304baead505dd3a48589cf3"
            "50185e895372df6221ea3a137557e473fddb6755f05bd507c3c533fce9c91285"
        ),
        device_point: &hex!(
            "045b36890dacbd7c9a96bb74a1ee28b3d2d75b72e09a20ef25cf8e6fd8a9f0350d"
            "0e14bed8d4682a34d83538bdff5b96e89a6666ec0db5745d02fa1210072df75a"
        ),
    };
    const RECEIPT: Receipt = hex!("31c004d2aee643b83fa2ccf87d7010f7");

    #[test]
    fn the_p256_vector_is_reproduced_by_both_ends_and_its_session_works() {
        let (mut device, receipt) = DeviceChannel::agree(3, &AGREEMENT);
        assert_eq!(receipt, RECEIPT);
        let mut host = HostChannel::agree(3, &AGREEMENT, receipt).unwrap();
        for keys in [&device.0, &host.0] {
            assert_eq!(keys.encryption, hex!("dcb9b1f316d4107db20fd33df7a6786c"));
            assert_eq!(keys.command_mac, hex!("8e635ee2636ad55bcb88da6ed4443500"));
            assert_eq!(keys.response_mac, hex!("025781ac9a80ac5b6539107ae2701a18"));
            assert_eq!((keys.chain, keys.counter), (RECEIPT, 1));
        }
        for _ in 0..2 {
            let mut wire = [0; 64];
            let length = host.seal(Command::Echo, b"x", &mut wire).unwrap();
            let frame = device.open(&mut wire[..length]).unwrap();
            assert_eq!((frame.code, frame.payload), (Command::Echo.code(), b"x".as_slice()));
            wire[4..8].copy_from_slice(&[0x81, 0, 1, b'x']);
            let length = device.seal(4, &mut wire).unwrap();
            assert_eq!(host.open(&mut wire[..length]).unwrap().payload, b"x");
        }
    }

    #[test]
    fn the_receipt_depends_on_everything_that_was_agreed() {
        let agreements = [
            Agreement { ephemeral_secret: &[7; 32], ..AGREEMENT },
            Agreement { static_secret: &[7; 32], ..AGREEMENT },
            Agreement { host_point: &[4; POINT_LENGTH], ..AGREEMENT },
            Agreement { device_point: &[4; POINT_LENGTH], ..AGREEMENT },
        ];
        for agreement in &agreements {
            let refused = HostChannel::agree(0, agreement, RECEIPT).err();
            assert_eq!(refused, Some(ChannelError::WrongReceipt));
        }
        let mut changed = RECEIPT;
        changed[15] ^= 1;
        assert_eq!(HostChannel::agree(0, &AGREEMENT, changed).err(), Some(ChannelError::WrongReceipt));
    }

    /// A device that has one authentication key, number 1, and answers as session `number`.
    fn answer(message: &[u8], device: &mut Option<DeviceChannel>, number: u8) -> std::vec::Vec<u8> {
        let key = AuthenticationKey::from_password(b"password");
        let frame = Frame::parse(message).unwrap();
        match Command::from_code(frame.code) {
            Some(Command::CreateSession) => {
                let request = CreateSession::decode(frame.payload).unwrap();
                if request.key != 1 {
                    return crate::frame::error_frame(DeviceError::ObjectNotFound).to_vec();
                }
                let host = request.host.try_into().unwrap();
                let channel = device.insert(DeviceChannel::derive(number, &key, host, CARD));
                [[0x83, 0, 17, number].as_slice(), &CARD, &channel.card_cryptogram()].concat()
            }
            _ => {
                let (cryptogram, mac) = (message[4..12].try_into(), message[12..].try_into());
                let channel = device.as_mut().unwrap();
                channel.authenticate(cryptogram.unwrap(), mac.unwrap()).unwrap();
                std::vec![0x84, 0, 0]
            }
        }
    }

    #[test]
    fn a_handshake_opens_a_session_or_says_why_not() {
        let open = |id, password: &[u8], number| {
            let key = AuthenticationKey::from_password(password);
            let mut device = None;
            let handshake = Handshake::new(id, &key, [7; 8]);
            let opened =
                handshake.open(|message| Ok::<_, HandshakeError>(answer(message, &mut device, number)));
            opened.map(|host| host.session_id())
        };
        assert_eq!(open(1, b"password", 3), Ok(3));
        assert_eq!(open(1, b"passwort", 3), Err(ChannelError::WrongCryptogram.into()));
        assert_eq!(open(2, b"password", 3), Err(AnswerError::Refused(DeviceError::ObjectNotFound).into()));
        assert_eq!(open(1, b"password", 16), Err(HandshakeError::NoSuchSession(16)));

        let key = AuthenticationKey::from_password(b"password");
        let handshake = Handshake::new(1, &key, [7; 8]);
        let mut longer = answer(&handshake.create(), &mut None, 3);
        longer.push(0);
        longer[2] += 1;
        let refused = handshake.created(&longer).map(|_| ());
        assert_eq!(refused, Err(CodecError::Trailing { remaining: 1 }.into()));
        let refused = Handshake::authenticated(&[0x84, 0, 1, 0]);
        assert_eq!(refused, Err(CodecError::Trailing { remaining: 1 }.into()));
    }

    #[test]
    fn a_host_with_another_password_notices() {
        let key = AuthenticationKey::from_password(b"password");
        let other = AuthenticationKey::from_password(b"passwort");
        let device = DeviceChannel::derive(0, &key, [7; 8], CARD);
        assert_eq!(
            HostChannel::derive(0, &other, [7; 8], CARD, device.card_cryptogram()).err(),
            Some(ChannelError::WrongCryptogram)
        );
    }

    #[test]
    fn every_changed_byte_of_a_message_is_refused() {
        let length = {
            let (mut host, _) = pair();
            host.seal(Command::Echo, b"0123456789abcdef", &mut [0; 64]).unwrap()
        };
        for position in 0..length {
            let (mut host, mut device) = pair();
            let mut wire = [0; 64];
            host.seal(Command::Echo, b"0123456789abcdef", &mut wire).unwrap();
            wire[position] ^= 1;
            assert!(device.open(&mut wire[..length]).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_replayed_message_is_refused() {
        let (mut host, mut device) = pair();
        let mut wire = [0; 64];
        let length = host.seal(Command::Echo, b"x", &mut wire).unwrap();
        let mut replay = wire;
        device.open(&mut wire[..length]).unwrap();
        wire[4..8].copy_from_slice(&[0x81, 0, 1, b'x']);
        device.seal(4, &mut wire).unwrap();
        assert_eq!(device.open(&mut replay[..length]).err(), Some(ChannelError::WrongMac));
    }

    #[test]
    fn the_longest_payload_fits_and_one_more_does_not() {
        let (mut host, mut device) = pair();
        let mut wire = [0; MAX_MESSAGE];
        let payload = [0xa5; MAX_INNER_PAYLOAD + 1];
        assert!(matches!(host.seal(Command::Echo, &payload, &mut wire), Err(ChannelError::TooLong(_))));
        let length = host.seal(Command::Echo, &payload[1..], &mut wire).unwrap();
        assert_eq!(device.open(&mut wire[..length]).unwrap().payload, &payload[1..]);
    }
}
