//! The one way to a certificate: its serial number is reserved in the ledger, the request recorded before it is sent, and
//! the certificate recorded before it is handed out.

use std::error::Error;

use ssh_key::public::KeyData;

use crate::{
    ledger::{Answer, LedgerError, LogSpan, Outcome, Recorder, Sent, Serial, State},
    output,
    request::Content,
    signer::{Signer, SignerError, TimedRequest},
};
use sshsm_client::{Failure, Kind};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The ledger could not record what was about to happen: nothing was signed.
    #[error(transparent)]
    Ledger(LedgerError),
    /// The ledger could not record the certificate, which was thrown away.
    #[error("the certificate was signed, but cannot be recorded; it was thrown away")]
    NotRecorded(#[source] LedgerError),
    /// Nothing was signed, or not what was asked for.
    #[error(transparent)]
    Signer(SignerError),
}

impl IssueError {
    /// Whether the signer can sign no more, or the ledger record no more.
    #[must_use]
    pub const fn ends_signing(&self) -> bool {
        match self {
            // What a ledger has no room for, it has none for with the next key.
            Self::Ledger(_) | Self::NotRecorded(_) => true,
            Self::Signer(error) => error.ends_signing(),
        }
    }
}

impl Failure for IssueError {
    fn kind(&self) -> Kind {
        match self {
            Self::Ledger(error) => error.kind(),
            Self::NotRecorded(_) => Kind::File,
            Self::Signer(error) => error.kind(),
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Ledger(error) | Self::NotRecorded(error) => error.help(),
            Self::Signer(error) => error.help(),
        }
    }
}

/// What became of a request that was tried.
#[derive(Debug)]
pub enum Tried {
    /// The certificate, recorded.
    Signed(String),
    /// The template does not allow it.
    Refused(TimedRequest),
}

/// Has `signer` sign what `request` makes of `content`, whose serial number is the reserved one by then.
///
/// # Errors
/// What `request` fails with; [`IssueError`] for the rest, [`IssueError::NotRecorded`] for a certificate that was signed and thrown away, since it could not be recorded.
pub fn sign<E: From<IssueError> + Error + 'static>(
    recorder: &Recorder,
    signer: &mut dyn Signer,
    subject: &KeyData,
    content: &mut Content,
    serial: Serial,
    request: impl FnOnce(&Content, &dyn Signer) -> Result<TimedRequest, E>,
) -> Result<Tried, E> {
    let reservation = recorder.reserve(signer, subject, content, serial).map_err(IssueError::Ledger)?;
    let unrecorded = |settled: Result<(), LedgerError>| {
        if let Err(error) = settled {
            output::talk(format_args!("the ledger does not know that it failed: {}", output::line(&error)));
        }
    };
    let timed = match request(content, signer) {
        Ok(timed) => timed,
        Err(error) => {
            unrecorded(recorder.settle(reservation, Outcome::NotSent { reason: output::line(&error) }));
            return Err(error);
        }
    };
    let after = reservation.as_ref().and_then(|_| signer.log_mark());
    let request = timed.request().as_bytes();
    let sent = Sent { request, payload_length: timed.payload_length(), log_after: after };
    recorder.sent(reservation.as_ref(), &sent).map_err(IssueError::Ledger)?;
    let signed = signer.sign(&timed);
    // A way that broke does not lead to the log either.
    let lost = matches!(&signed, Err(error) if error.answer() == Answer::Unknown);
    let span = match reservation.as_ref().filter(|_| !lost) {
        Some(_) => signer.log_span(&timed, after),
        None => LogSpan { after, ..LogSpan::default() },
    };
    match signed {
        Ok(certificate) => {
            match recorder.settle(reservation, Outcome::Issued { certificate: &certificate, span }) {
                Ok(()) => Ok(Tried::Signed(certificate)),
                Err(error) => Err(IssueError::NotRecorded(error).into()),
            }
        }
        Err(error) => {
            let refused = error.is_refusal();
            let state = if refused { State::Refused } else { State::Failed };
            let (reason, answer) = (output::line(&error), error.answer());
            unrecorded(recorder.settle(reservation, Outcome::NotIssued { state, reason, answer, span }));
            if refused { Ok(Tried::Refused(timed)) } else { Err(IssueError::Signer(error).into()) }
        }
    }
}
