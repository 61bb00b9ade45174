//! Commands outside a session, and the encoding that both kinds share.

use sshsm_protocol::{
    Command,
    codec::Writer,
    frame::{Frame, HEADER_LENGTH},
    message::Message,
};
use zeroize::Zeroizing;

use crate::{
    error::{Result, no_answer, nonsense},
    exchange::Exchange,
};

/// Sends a command outside a session and returns the payload of its answer.
pub(crate) fn plain(exchange: &mut dyn Exchange, command: Command, payload: &[u8]) -> Result<Vec<u8>> {
    let answer = exchange.transact(&framed(command, payload)?)?;
    Ok(answer_of(command, &answer)?.to_vec())
}

/// The message of a command outside a session.
pub(crate) fn framed(command: Command, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_LENGTH + payload.len()];
    Frame { code: command.code(), payload }.encode(&mut frame).map_err(|error| nonsense(command, error))?;
    Ok(frame)
}

/// The payload of a successful answer outside a session, or the device's error.
pub(crate) fn answer_of(command: Command, answer: &[u8]) -> Result<&[u8]> {
    payload_of(command, Frame::parse(answer).map_err(|error| nonsense(command, error))?)
}

/// The payload of a successful answer, or the device's error.
pub(crate) fn payload_of(command: Command, frame: Frame<'_>) -> Result<&[u8]> {
    frame.answer(command).map_err(|error| no_answer(command, error))
}

/// The payload that a message is, which may hold secrets.
pub(crate) fn encoded<'m>(command: Command, message: &impl Message<'m>) -> Result<Zeroizing<Vec<u8>>> {
    let mut payload = Zeroizing::new(vec![0; message.length()]);
    message.encode(&mut Writer::new(&mut payload)).map_err(|error| nonsense(command, error))?;
    Ok(payload)
}

/// Reads a whole answer.
pub(crate) fn read<'a, M: Message<'a>>(command: Command, answer: &'a [u8]) -> Result<M> {
    M::decode(answer).map_err(|error| nonsense(command, error))
}
