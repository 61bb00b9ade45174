//! The content of a certificate, in ssh-keygen's option letters.

use clap::{ArgAction, Args};
use sshsm_protocol::ssh::request::CertificateKind;

use super::{arguments::Serials, error::CliError};
use sshsm_ca::{
    certificate_options::CertificateOptions,
    ledger::Serial,
    request::{self, Content},
    validity::Validity,
};

/// The content of certificates, apart from their keys.
#[derive(Debug, Args)]
pub(super) struct ContentArguments {
    /// Key identity: what sshd logs when the certificate is used
    #[arg(short = 'I', long, value_name = "KEY_ID", allow_hyphen_values = true)]
    pub(super) key_id: Option<String>,
    /// Principals: user or host names, with commas between
    #[arg(short = 'n', long, value_name = "NAMES", allow_hyphen_values = true)]
    principals: Option<String>,
    /// Validity as ssh-keygen takes it: +1h, 20260101:20270101, always:forever, -1d:+1w
    #[arg(short = 'V', long, value_name = "VALIDITY", default_value = "always:forever")]
    #[arg(value_parser = Validity::parse, allow_hyphen_values = true)]
    validity: Validity,
    /// Make host certificates instead of user certificates
    #[arg(short = 'h', long)]
    host: bool,
    /// Certificate option as ssh-keygen takes it: clear, no-pty, force-command=…, source-address=…; may be
    /// repeated
    #[arg(short = 'O', long = "option", value_name = "OPTION", action = ArgAction::Append)]
    options: Vec<String>,
    /// Serial number; +n starts at n and counts up from key to key; when signing, + alone takes the ledger's
    /// next ones
    #[arg(
        short = 'z',
        long = "serial",
        value_name = "SERIAL",
        default_value = "0",
        allow_hyphen_values = true
    )]
    serials: Serials,
}

impl ContentArguments {
    /// The content of a certificate with the serial number 0.
    ///
    /// # Errors
    /// When a certificate cannot contain it.
    pub(super) fn content(&self) -> Result<Content, CliError> {
        let kind = if self.host { CertificateKind::Host } else { CertificateKind::User };
        let usage = |error: &dyn std::error::Error| CliError::Usage(error.to_string());
        let principals = self.principals.as_deref().map(request::principals).transpose();
        Ok(Content {
            kind,
            serial: 0,
            key_id: self
                .key_id
                .clone()
                .ok_or_else(|| CliError::Usage("name the key identity: -I KEY_ID".into()))?,
            principals: principals.map_err(|error| usage(&error))?.unwrap_or_default(),
            validity: self.validity,
            options: CertificateOptions::parse(kind, &self.options).map_err(|error| usage(&error))?,
        })
    }

    /// The serial number of the `index`th key.
    ///
    /// # Errors
    /// When there is none so high.
    pub(super) fn serial(&self, index: usize) -> Result<Serial, CliError> {
        let beyond = || CliError::Usage("the serial numbers run beyond 2⁶⁴ − 1".into());
        self.serials.get(index).ok_or_else(beyond)
    }

    /// Like [`Self::serial`], without a ledger.
    ///
    /// # Errors
    /// When the ledger would have to choose.
    pub(super) fn given_serial(&self, index: usize) -> Result<u64, CliError> {
        match self.serial(index)? {
            Serial::Given(serial) => Ok(serial),
            Serial::Next => {
                let text =
                    "the ledger's next serial number (-z +) is known only when signing; give a number here";
                Err(CliError::Usage(text.into()))
            }
        }
    }
}
