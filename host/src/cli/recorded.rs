//! Signing with the ledger told: before, so that no serial number is used twice, and after, before the certificate leaves.

use ssh_key::public::KeyData;

use super::error::{self, CliError};
use crate::{
    ledger::{LedgerError, Recorder, Serial, State},
    output,
    request::Content,
    signer::{Signer, TimedRequest},
};

/// What became of a request that was tried.
pub(super) enum Tried {
    /// The certificate, recorded.
    Signed(String),
    /// The template does not allow it.
    Refused(TimedRequest),
}

/// Has `signer` sign what `request` makes of `content`, whose serial number is the reserved one by then.
///
/// # Errors
/// [`CliError::NotRecorded`] for a certificate that was signed and thrown away, since it could not be recorded.
pub(super) fn sign(
    recorder: &Recorder,
    signer: &mut dyn Signer,
    subject: &KeyData,
    content: &mut Content,
    serial: Serial,
    request: impl FnOnce(&Content, &dyn Signer) -> Result<TimedRequest, CliError>,
) -> Result<Tried, CliError> {
    let reservation = recorder.reserve(signer, subject, content, serial)?;
    let unrecorded = |settled: Result<(), LedgerError>| {
        if let Err(error) = settled {
            output::talk(format_args!("the ledger does not know that it failed: {}", error::line(&error)));
        }
    };
    let timed = match request(content, signer) {
        Ok(timed) => timed,
        Err(error) => {
            unrecorded(recorder.settle(reservation, Err((State::Failed, error.line())), None));
            return Err(error);
        }
    };
    let signed = signer.sign(&timed);
    let audit_entry = reservation.as_ref().and_then(|_| signer.audit_entry(&timed));
    match signed {
        Ok(certificate) => match recorder.settle(reservation, Ok(&certificate), audit_entry) {
            Ok(()) => Ok(Tried::Signed(certificate)),
            Err(error) => Err(CliError::NotRecorded(error)),
        },
        Err(error) => {
            let refused = error.is_refusal();
            let state = if refused { State::Refused } else { State::Failed };
            unrecorded(recorder.settle(reservation, Err((state, error::line(&error))), audit_entry));
            if refused { Ok(Tried::Refused(timed)) } else { Err(error.into()) }
        }
    }
}
