//! `sshsm template check`: a template's verdict on requests, without a device.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use sshsm_firmware::ssh::policy::OnDevice;
use sshsm_protocol::{
    ObjectId,
    ssh::{template::Template, timestamp::Now},
};

use super::source;
use crate::cli::{
    Context, arguments,
    error::{CliError, FileError, Shortfall},
};
use crate::output::{self, lossy, shown};
use sshsm_ca::{
    explanation::{Authority, Explanation},
    input, key_file,
    request::StoredRequest,
    timestamp,
};
use sshsm_client::Failure;

/// Arguments of `template check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// Template file (TOML or TLV)
    #[arg(value_name = "TEMPLATE")]
    template: PathBuf,
    /// Requests: the bytes to be signed, a file of `sign --save-request`, or a finished certificate (KEY-cert.pub)
    #[arg(value_name = "REQUEST", required = true)]
    requests: Vec<PathBuf>,
    /// Judge as if it were this time (as in -V: +1d, 20260101), ignoring a timestamp in the request
    #[arg(long, value_name = "TIME", value_parser = arguments::now, allow_hyphen_values = true)]
    now: Option<Now>,
    /// Public key of the CA key that would sign; without it, the one that the request names
    #[arg(long, value_name = "FILE.pub")]
    ca_key: Option<PathBuf>,
    /// Id of the CA key that would sign; without it, the first one of the template
    #[arg(long, value_name = "ID", value_parser = arguments::object_id)]
    ca_key_id: Option<ObjectId>,
}

/// A template's verdicts on requests, as JSON shows them.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(serialize_with = "lossy")]
    template: &'a Path,
    ca_key: u16,
    requests: Vec<Judged<'a>>,
}

/// What became of a request, as JSON shows it.
#[derive(Serialize)]
#[serde(untagged)]
enum Judged<'a> {
    Judged {
        #[serde(serialize_with = "lossy")]
        request: &'a Path,
        #[serde(flatten)]
        explanation: Explanation,
    },
    Unreadable {
        #[serde(serialize_with = "lossy")]
        request: &'a Path,
        error: String,
    },
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<(), CliError> {
        let tlv = source::load(&self.template)?;
        let decoded =
            Template::decode(&tlv).map_err(|error| CliError::content(shown(&self.template), error))?;
        let first = decoded.ca_keys.iter().find_map(|id| ObjectId::new(id).ok());
        let Some(id) = self.ca_key_id.or(first) else {
            return Err(CliError::Usage("the template lists no CA key; name one with --ca-key-id".into()));
        };
        let ca_key = match &self.ca_key {
            Some(path) => {
                Some(key_file::read_public(path).map_err(|error| CliError::content("no CA key", error))?)
            }
            None => None,
        };
        let authority = Authority { id, public: ca_key.as_ref().map(|key| key.key_data()), algorithm: None };
        let signature_length = decoded.timestamp_key.signature_length();
        let total = self.requests.len();
        let (mut requests, mut refused, mut kinds) = (Vec::new(), 0, Vec::new());
        for request in &self.requests {
            requests.push(match self.judge(request, &tlv, signature_length, authority) {
                Ok(explanation) => {
                    refused += usize::from(explanation.is_refusal());
                    Judged::Judged { request, explanation }
                }
                // The only one that was asked for: its error is the command's.
                Err(error) if total == 1 => return Err(error),
                Err(error) => {
                    output::talk(format_args!("{} not judged: {}", shown(request), error.line()));
                    kinds.push(error.kind());
                    Judged::Unreadable { request, error: error.line() }
                }
            });
        }
        let report = Report { template: &self.template, ca_key: id.get(), requests };
        context.format().print(&report, |report| {
            report.requests.iter().fold(String::new(), |text, judged| match judged {
                Judged::Judged { request, explanation } => {
                    text + &format!("{}: {}\n{explanation}", shown(request), explanation.outcome)
                }
                Judged::Unreadable { .. } => text,
            })
        })?;
        match (kinds.iter().max(), refused) {
            (None, 0) => Ok(()),
            (None, refused) => Err(Shortfall::Refused { refused, total }.into()),
            (Some(&kind), _) => {
                Err(Shortfall::NotAll { failed: kinds.len(), total, done: "judged", kind }.into())
            }
        }
    }

    fn judge(
        &self,
        path: &Path,
        tlv: &[u8],
        signature_length: usize,
        authority: Authority<'_>,
    ) -> Result<Explanation, CliError> {
        let bytes = input::read(path).map_err(|source| FileError::read(path, source))?;
        let stored = StoredRequest::decode(&bytes, signature_length)
            .map_err(|error| CliError::content(shown(path), error))?;
        let (now, signature) = match (self.now, stored.timestamp) {
            (Some(now), _) => (now, None),
            (None, Some((now, signature))) => (now, Some(signature)),
            (None, None) => {
                (timestamp::now().map_err(|error| CliError::content("no time to judge by", error))?, None)
            }
        };
        let (template, device) = (Template::decode(tlv), OnDevice::default());
        let mut explanation =
            Explanation::new(&template, &stored.request, now, signature.as_deref(), authority, device);
        // The file does not say whose signature it contains.
        explanation.name_timestamp_keys(template.as_ref().ok(), None);
        Ok(explanation)
    }
}
