//! The one way to a certificate: its serial number is reserved in the ledger, the request recorded before it is sent, the
//! signature verified, and the certificate recorded before it is handed out.

use std::error::Error;

use ssh_key::{Certificate, public::KeyData};
use sshsm_client::{Failure, Kind};

use crate::{
    causes::line,
    certificate,
    ledger::{Answer, Ledger, LedgerError, LogSpan, Outcome, Recorded, Recorder, Sent, Serial, State},
    notice::{Listener, Notice},
    request::{Content, SigningRequest},
    signer::{Signer, SignerError, TimedRequest},
};

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

/// A certificate, verified and recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    request: SigningRequest,
    /// The signature field: `u32 length ‖ string algorithm ‖ string signature`.
    signature: Vec<u8>,
    serial: u64,
    log: LogSpan,
}

impl Issued {
    /// What was signed.
    #[must_use]
    pub const fn request(&self) -> &SigningRequest {
        &self.request
    }

    /// The signature in SSH's form, `string algorithm ‖ string signature`.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.signature.get(4..).unwrap_or_default()
    }

    /// The certificate's serial number.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Where the device logged it, as far as that is known.
    #[must_use]
    pub const fn log(&self) -> &LogSpan {
        &self.log
    }

    /// The certificate as the line of a `-cert.pub` file, with its newline.
    #[must_use]
    pub fn line(&self) -> String {
        self.request.line(&self.signature)
    }
}

/// What became of a request that was tried.
#[derive(Debug)]
pub enum Tried {
    /// The certificate.
    Signed(Issued),
    /// The template does not allow it.
    Refused(TimedRequest),
}

/// Issues certificates, for any number of threads.
#[derive(Debug)]
pub struct Issuer {
    recorder: Recorder,
    listener: Listener,
}

impl Issuer {
    /// Records in `ledger`; without one, nothing is recorded. `listener` is told of what could not be.
    #[must_use]
    pub fn new(ledger: Option<Ledger>, listener: Listener) -> Self {
        Self { recorder: Recorder::new(ledger), listener }
    }

    /// Whether there is a ledger.
    #[must_use]
    pub const fn has_ledger(&self) -> bool {
        self.recorder.has_ledger()
    }

    /// Whether the ledger says that a certificate is revoked; without a ledger, none is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_revoked(&self, certificate: &Certificate) -> Result<bool, LedgerError> {
        self.recorder.is_revoked(certificate)
    }

    /// Has `signer` sign what `request` makes of `content`, whose serial number is the reserved one by then.
    ///
    /// # Errors
    /// What `request` fails with; [`IssueError`] for the rest, [`IssueError::NotRecorded`] for a certificate that was signed
    /// and thrown away, since it could not be recorded.
    pub fn issue<E: From<IssueError> + Error + 'static>(
        &self,
        signer: &mut dyn Signer,
        subject: &KeyData,
        content: &mut Content,
        serial: Serial,
        request: impl FnOnce(&Content, &dyn Signer) -> Result<TimedRequest, E>,
    ) -> Result<Tried, E> {
        let recorder = &self.recorder;
        let reservation = recorder.reserve(signer, subject, content, serial).map_err(IssueError::Ledger)?;
        let unrecorded = |settled: Result<(), LedgerError>| {
            if let Err(error) = settled {
                self.listener.tell(&Notice::FailureNotRecorded { error: &error });
            }
        };
        let timed = match request(content, signer) {
            Ok(timed) => timed,
            Err(error) => {
                unrecorded(recorder.settle(reservation, Outcome::NotSent { reason: line(&error) }));
                return Err(error);
            }
        };
        let after = reservation.as_ref().and_then(|_| signer.log_mark());
        let bytes = timed.request().as_bytes();
        let sent = Sent { request: bytes, payload_length: timed.payload_length(), log_after: after };
        let recorded = recorder.sent(reservation.as_ref(), &sent).map_err(IssueError::Ledger)?;
        let signed = signed(signer, &timed, recorded);
        // A way that broke does not lead to the log either.
        let lost = matches!(&signed, Err(error) if error.answer() == Answer::Unknown);
        let span = match reservation.as_ref().filter(|_| !lost) {
            Some(_) => signer.log_span(&timed, after),
            None => LogSpan { after, ..LogSpan::default() },
        };
        match signed {
            Ok(signature) => {
                let request = timed.request().clone();
                let issued = Issued { request, signature, serial: content.serial, log: span };
                let outcome = Outcome::Issued { certificate: &issued.line(), span };
                match recorder.settle(reservation, outcome) {
                    Ok(()) => Ok(Tried::Signed(issued)),
                    Err(error) => Err(IssueError::NotRecorded(error).into()),
                }
            }
            Err(error) => {
                let refused = error.is_refusal();
                let state = if refused { State::Refused } else { State::Failed };
                let (reason, answer) = (line(&error), error.answer());
                unrecorded(recorder.settle(reservation, Outcome::NotIssued { state, reason, answer, span }));
                if refused { Ok(Tried::Refused(timed)) } else { Err(IssueError::Signer(error).into()) }
            }
        }
    }
}

/// The signature field, once it is the signature that was asked for.
fn signed(signer: &mut dyn Signer, timed: &TimedRequest, recorded: Recorded) -> Result<Vec<u8>, SignerError> {
    let signature = signer.sign(timed, recorded)?;
    let request = timed.request().as_bytes();
    let certificate = [request, &signature].concat();
    certificate::verify(&certificate, request, signer.ca_key(), signer.algorithm())?;
    Ok(signature)
}
