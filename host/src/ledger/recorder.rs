//! The ledger as those who sign use it.

use std::sync::{Mutex, PoisonError};

use ssh_key::public::KeyData;

use super::{Authority, Ledger, LedgerError, Reservation, Result, Serial, State};
use crate::{request::Content, signer::Signer};

/// The ledger that signatures go through, for any number of threads; or none.
#[derive(Debug)]
pub struct Recorder {
    ledger: Option<Mutex<Ledger>>,
    asked_by: String,
}

impl Recorder {
    /// Records in `ledger`; without one, nothing is recorded.
    #[must_use]
    pub fn new(ledger: Option<Ledger>) -> Self {
        Self { ledger: ledger.map(Mutex::new), asked_by: whoami() }
    }

    /// Reserves an entry for what `signer` is about to sign, and puts its serial number into `content`.
    ///
    /// # Errors
    /// When nothing was reserved: nothing is to be signed then. [`LedgerError::None`] without a ledger that could choose
    /// the serial number.
    pub fn reserve(
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

    /// Records what became of a reservation: the certificate, or why there is none.
    ///
    /// # Errors
    /// When it is not recorded. A certificate is to be thrown away then; its entry stays reserved.
    pub fn settle(
        &self,
        reservation: Option<Reservation>,
        outcome: std::result::Result<&str, (State, String)>,
        audit_entry: Option<u16>,
    ) -> Result<()> {
        let (Some(ledger), Some(reservation)) = (&self.ledger, reservation) else { return Ok(()) };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(certificate) => ledger.issued(&reservation, certificate, audit_entry),
            Err((state, reason)) => ledger.not_issued(&reservation, state, &reason, audit_entry),
        }
    }
}

/// Who runs this process, as `user@host`.
#[must_use]
pub fn whoami() -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    #[cfg(unix)]
    let (id, host) = (
        rustix::process::getuid().as_raw().to_string(),
        rustix::system::uname().nodename().to_string_lossy().into_owned(),
    );
    #[cfg(not(unix))]
    let (id, host) = ("unknown".to_owned(), variable("COMPUTERNAME").unwrap_or_default());
    let user = ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(variable).unwrap_or(id);
    format!("{user}@{host}")
}
