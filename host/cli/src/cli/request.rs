//! `sshsm request …`: certificate requests that travel as files, from the requester to the signer.
//!
//! Building one needs no secret: only the public keys of the subject and of the CA.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use ssh_key::{HashAlg, public::KeyData};
use sshsm_protocol::ssh::{Printable, request::Request};

use super::{
    Context,
    arguments::ReplaceOption,
    beside_key::{beside, write},
    content::{ContentArguments, validity_in_words},
    error::{CliError, FileError},
};
use crate::output;
use sshsm_ca::{
    files::Kind,
    input, key_file,
    request::{SigningRequest, StoredRequest},
    validity::Validity,
};

/// The verbs of `request`.
#[derive(Debug, Subcommand)]
pub(super) enum RequestVerb {
    /// Write requests for certificates, to be signed elsewhere: KEY.pub becomes KEY-cert.req
    Build(Build),
    /// Describe a request in words
    Show {
        /// A request, with or without its timestamp, or a finished certificate
        #[arg(value_name = "REQUEST")]
        request: PathBuf,
    },
}

/// Arguments of `request build`.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// The CA's public key
    #[arg(short = 's', long = "ca", value_name = "CA.pub")]
    ca: PathBuf,
    #[command(flatten)]
    content: ContentArguments,
    #[command(flatten)]
    replace: ReplaceOption,
    /// Public keys to be signed
    #[arg(value_name = "KEY.pub", required = true)]
    keys: Vec<PathBuf>,
}

impl RequestVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Build(build) => build.run(context),
            Self::Show { request } => {
                let stored = read(&request)?;
                context.format().print(&Summary::of(&request, &stored)?, ToString::to_string)?;
                Ok(())
            }
        }
    }
}

/// A request that was built, as JSON shows it.
#[derive(Serialize)]
struct Built {
    #[serde(serialize_with = "output::lossy")]
    key: PathBuf,
    #[serde(serialize_with = "output::lossy")]
    request: PathBuf,
    serial: u64,
}

impl Build {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let mut content = self.content.content()?;
        let ca = key_file::read_public(&self.ca)
            .map_err(|error| CliError::content("no public key of the CA", error))?;
        let mut built = Vec::new();
        for (index, key) in self.keys.into_iter().enumerate() {
            content.serial = self.content.given_serial(index)?;
            let subject =
                key_file::read_public(&key).map_err(|error| CliError::content("no request", error))?;
            let bytes = SigningRequest::new(&subject, &content, ca.key_data())
                .map_err(|error| CliError::content(output::shown(&key), error))?;
            let request = beside(&key, "-cert.req");
            write(&request, bytes.as_bytes(), Kind::Request, self.replace.into())?;
            output::talk(format_args!("request written to {}", output::shown(&request)));
            built.push(Built { key, request, serial: content.serial });
        }
        context.format().print(&built, |_| String::new())?;
        Ok(())
    }
}

/// A timestamp in words.
pub(super) fn utc(seconds: u32) -> String {
    Timestamp::from_second(seconds.into()).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A request from a file.
pub(super) fn read(path: &Path) -> Result<StoredRequest, CliError> {
    let bytes = input::read(path).map_err(|source| FileError::read(path, source))?;
    StoredRequest::detect(&bytes).map_err(|error| CliError::content(output::shown(path), error))
}

/// The content of a request.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    #[serde(serialize_with = "output::lossy")]
    request: &'a Path,
    kind: String,
    serial: u64,
    key_id: String,
    principals: Vec<String>,
    /// UNIX seconds.
    valid_after: u64,
    /// UNIX seconds; 18446744073709551615 is forever.
    valid_before: u64,
    critical_options: Vec<String>,
    extensions: Vec<String>,
    subject_key: Option<String>,
    ca_key: Option<String>,
    /// The time at which the request says it was made, UNIX seconds; `timestamp verify` checks whether that
    /// is true.
    claimed_now: Option<u32>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(path: &'a Path, stored: &StoredRequest) -> Result<Self, CliError> {
        let broken = |error| CliError::content(output::shown(path), error);
        let request = Request::decode(&stored.request).map_err(broken)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let option = |(name, contents): (&[u8], Option<&[u8]>)| match contents {
            Some(contents) => format!("{}={}", text(name), text(contents)),
            None => text(name),
        };
        let built = SigningRequest::from_bytes(stored.request.clone())
            .map_err(|error| CliError::content(output::shown(path), error))?;
        let keys = built.keys().ok();
        let fingerprint = |key: &KeyData| key.fingerprint(HashAlg::Sha256).to_string();
        Ok(Self {
            request: path,
            kind: request.kind.to_string(),
            serial: request.serial,
            key_id: text(request.key_id),
            principals: request.principals.iter().map(text).collect(),
            valid_after: request.valid_after,
            valid_before: request.valid_before,
            critical_options: request.critical_options.iter().map(option).collect(),
            extensions: request.extensions.iter().map(option).collect(),
            subject_key: keys.as_ref().map(|(subject, _)| fingerprint(subject)),
            ca_key: keys.as_ref().map(|(_, ca)| fingerprint(ca)),
            claimed_now: stored.timestamp.as_ref().map(|(now, _)| now.seconds()),
        })
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = |text: &str| Printable(text.as_bytes()).to_string();
        let list = |texts: &[String]| match texts {
            [] => "none".to_owned(),
            texts => printable(&texts.join(" ")),
        };
        let validity = Validity::new(self.valid_after, self.valid_before);
        let validity = validity.map_or_else(|_| "never".to_owned(), validity_in_words);
        let unknown = "unknown".to_owned();
        for (name, value) in [
            ("kind", self.kind.clone()),
            ("serial", self.serial.to_string()),
            ("key id", format!("\"{}\"", printable(&self.key_id))),
            ("principals", output::principals(&self.principals)),
            ("valid", validity),
            ("critical", list(&self.critical_options)),
            ("extensions", list(&self.extensions)),
            ("subject", self.subject_key.clone().unwrap_or_else(|| unknown.clone())),
            ("CA", self.ca_key.clone().unwrap_or(unknown)),
            (
                "timestamp",
                self.claimed_now.map_or_else(|| "none".into(), |now| format!("claims {}", utc(now))),
            ),
        ] {
            writeln!(f, "{:<12}{value}", format!("{name}:"))?;
        }
        Ok(())
    }
}
