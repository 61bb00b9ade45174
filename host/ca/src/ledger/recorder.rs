//! The ledger as used by signers.

use std::sync::{Mutex, PoisonError};

use ssh_key::{Certificate, public::KeyData};

use super::{Answer, Authority, Ledger, LedgerError, LogSpan, Reservation, Result, Sent, Serial, State};
use crate::{request::Content, signer::Signer};

/// The ledger that signatures go through, for any number of threads; or none.
#[derive(Debug)]
pub(crate) struct Recorder {
    ledger: Option<Mutex<Ledger>>,
    asked_by: String,
}

impl Recorder {
    /// Records in `ledger`; without one, nothing is recorded.
    pub(crate) fn new(ledger: Option<Ledger>) -> Self {
        Self { ledger: ledger.map(Mutex::new), asked_by: whoami() }
    }

    /// Whether there is a ledger.
    pub(crate) const fn has_ledger(&self) -> bool {
        self.ledger.is_some()
    }

    /// Whether a certificate is revoked according to the ledger; without a ledger, none is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn is_revoked(&self, certificate: &Certificate) -> Result<bool> {
        let Some(ledger) = &self.ledger else { return Ok(false) };
        ledger.lock().unwrap_or_else(PoisonError::into_inner).is_revoked(certificate)
    }

    /// Reserves an entry for what `signer` is about to sign, and puts its serial number into `content`.
    ///
    /// # Errors
    /// When nothing was reserved: then nothing must be signed. [`LedgerError::None`] if there is no ledger to choose
    /// the serial number.
    pub(crate) fn reserve(
        &self,
        signer: &dyn Signer,
        subject: &KeyData,
        content: &mut Content,
        serial: Serial,
    ) -> Result<Option<Reservation>> {
        let Some(ledger) = &self.ledger else {
            let Serial::Given(serial) = serial else { return Err(LedgerError::None) };
            content.serial = serial;
            return Ok(None);
        };
        let authority = Authority {
            public: signer.ca_key().clone(),
            key: signer.key(),
            template: signer.template(),
            enforced_by: signer.enforced_by(),
            signer: signer.describe(),
            device_serial: signer.device_serial(),
        };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let reservation = ledger.reserve(&authority, subject, content, serial, &self.asked_by)?;
        content.serial = reservation.serial;
        Ok(Some(reservation))
    }

    /// Records that the request of a reservation is about to go to the signer.
    ///
    /// # Errors
    /// When it is not recorded: it is not to be sent then.
    pub(crate) fn sent(&self, reservation: Option<&Reservation>, sent: &Sent<'_>) -> Result<Recorded> {
        if let (Some(ledger), Some(reservation)) = (&self.ledger, reservation) {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).sent(reservation, sent)?;
        }
        Ok(Recorded(()))
    }

    /// Records what became of a reservation: the certificate, or why there is none.
    ///
    /// # Errors
    /// When it is not recorded. A certificate is to be thrown away then; its entry stays reserved.
    pub(crate) fn settle(&self, reservation: Option<Reservation>, outcome: Outcome<'_>) -> Result<()> {
        let (Some(ledger), Some(reservation)) = (&self.ledger, reservation) else { return Ok(()) };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Issued { certificate, span } => ledger.issued(&reservation, certificate, span),
            Outcome::NotSent { reason } => {
                ledger.not_issued(&reservation, State::Failed, &reason, None, LogSpan::default())
            }
            Outcome::NotIssued { state, reason, answer, span } => {
                ledger.not_issued(&reservation, state, &reason, Some(answer), span)
            }
        }
    }
}

/// Proof that the request which is about to be signed is recorded, if there is a ledger. No [`Signer`] signs without it, and
/// only [`crate::issue::Issuer`] obtains one:
///
/// ```compile_fail,E0423
/// let recorded = sshsm_ca::ledger::Recorded(());
/// ```
#[derive(Debug)]
pub struct Recorded(());

/// What became of a reservation.
#[derive(Debug)]
pub(crate) enum Outcome<'c> {
    /// A certificate: the line of the `-cert.pub` file, and its position in the device's log.
    Issued {
        /// The line.
        certificate: &'c str,
        /// The position.
        span: LogSpan,
    },
    /// It never reached the signer.
    NotSent {
        /// Why.
        reason: String,
    },
    /// The signer was asked, and there is no certificate.
    NotIssued {
        /// Refused or failed.
        state: State,
        /// Why.
        reason: String,
        /// The signer's answer.
        answer: Answer,
        /// The position in the device's log.
        span: LogSpan,
    },
}

/// The user who runs this process, as `user@host`: by the process's real user id, whatever its environment
/// says.
#[must_use]
pub fn whoami() -> String {
    #[cfg(unix)]
    let (user, host) = {
        let id = uzers::get_current_uid();
        let name = uzers::get_user_by_uid(id).map(|user| user.name().to_string_lossy().into_owned());
        (
            name.unwrap_or_else(|| id.to_string()),
            rustix::system::uname().nodename().to_string_lossy().into_owned(),
        )
    };
    #[cfg(not(unix))]
    let (user, host) = {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        (
            variable("USERNAME").unwrap_or_else(|| "unknown".into()),
            variable("COMPUTERNAME").unwrap_or_else(|| "unknown".into()),
        )
    };
    format!("{user}@{host}")
}
