//! The content of a certificate, in ssh-keygen's option letters.

use clap::{ArgAction, Args};
use jiff::{Timestamp, tz::TimeZone};
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

/// ssh-keygen's description of a validity, in local time.
pub(super) fn validity_in_words(validity: Validity) -> String {
    let local = |seconds: u64| {
        let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map_or_else(
            || format!("{seconds} s after 1970"),
            |time| time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        )
    };
    match (validity.after(), validity.before()) {
        (0, u64::MAX) => "forever".into(),
        (0, before) => format!("before {}", local(before)),
        (after, u64::MAX) => format!("after {}", local(after)),
        (after, before) => format!("from {} to {}", local(after), local(before)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_told_in_ssh_keygens_words() {
        assert_eq!(validity_in_words(Validity::UNLIMITED), "forever");
        assert!(validity_in_words(Validity::new(0, 86_400 * 365).unwrap()).starts_with("before 197"));
        assert!(validity_in_words(Validity::new(86_400, u64::MAX).unwrap()).starts_with("after 1970-01-0"));
        assert_eq!(
            validity_in_words(Validity::new(u64::MAX - 2, u64::MAX - 1).unwrap()),
            "from 18446744073709551613 s after 1970 to 18446744073709551614 s after 1970"
        );
    }
}
