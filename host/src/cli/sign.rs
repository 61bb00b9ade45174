//! `sshsm sign`: `ssh-keygen -s` with the CA key, and the policy it signs under, on the device.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use ssh_key::PublicKey;
use sshsm_protocol::{
    ObjectId,
    ssh::{Printable, request::CertificateKind, signature::SignatureAlgorithm},
};

use super::{
    Context,
    arguments::{self, Serials},
    error::{CliError, Exit, FileError},
    password,
};
use crate::{
    certificate_options::CertificateOptions,
    explanation::Explanation,
    key_file, output,
    request::{self, Content},
    signer::{DeviceSigner, EnforcedBy, Signer, SignerError, TimedRequest},
    timestamp::TimestampAuthority,
    validity::Validity,
};

/// Arguments of `sign`; the letters are ssh-keygen's.
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// Id of the CA key on the device
    #[arg(short = 's', value_name = "CA_KEY_ID", value_parser = arguments::object_id)]
    ca_key: ObjectId,
    /// Id of the template on the device that the CA key signs under
    #[arg(short = 't', value_name = "TEMPLATE_ID", value_parser = arguments::object_id)]
    template: ObjectId,
    /// Key identity: what sshd logs when the certificate is used
    #[arg(short = 'I', value_name = "KEY_ID", allow_hyphen_values = true)]
    key_id: String,
    /// Principals: user or host names, with commas between
    #[arg(short = 'n', value_name = "NAMES", allow_hyphen_values = true)]
    principals: Option<String>,
    /// Validity as ssh-keygen takes it: +1h, 20260101:20270101, always:forever, -1d:+1w
    #[arg(short = 'V', value_name = "VALIDITY", default_value = "always:forever")]
    #[arg(value_parser = Validity::parse, allow_hyphen_values = true)]
    validity: Validity,
    /// Serial number; +n starts at n and counts up from key to key
    #[arg(short = 'z', value_name = "SERIAL", default_value = "0", allow_hyphen_values = true)]
    serials: Serials,
    /// Make host certificates instead of user certificates
    #[arg(short = 'h')]
    host: bool,
    /// Certificate option as ssh-keygen takes it: clear, no-pty, force-command=…, source-address=…; can be repeated
    #[arg(short = 'O', value_name = "OPTION", action = ArgAction::Append)]
    options: Vec<String>,
    /// Private key of the timestamp authority that the template names; it vouches for the time of each request
    #[arg(long, value_name = "FILE")]
    timestamp_key: PathBuf,
    /// How an RSA CA key signs
    #[arg(long, value_name = "NAME")]
    signature_algorithm: Option<RsaSignature>,
    /// Write each request beside its certificate, also when it is refused: KEY-cert.req, for `template check`
    #[arg(long)]
    save_request: bool,
    /// Public keys to sign; KEY.pub becomes KEY-cert.pub
    #[arg(value_name = "KEY.pub", required = true)]
    keys: Vec<PathBuf>,
}

/// The signature algorithms that an RSA key has in SSH.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RsaSignature {
    #[value(name = "rsa-sha2-512")]
    Sha512,
    #[value(name = "rsa-sha2-256")]
    Sha256,
    /// With SHA-1: OpenSSH has not accepted it since 8.2
    #[value(name = "ssh-rsa")]
    Sha1,
}

impl From<RsaSignature> for SignatureAlgorithm {
    fn from(signature: RsaSignature) -> Self {
        match signature {
            RsaSignature::Sha512 => Self::RsaSha512,
            RsaSignature::Sha256 => Self::RsaSha256,
            RsaSignature::Sha1 => Self::RsaSha1,
        }
    }
}

/// What became of a call, as JSON shows it.
#[derive(Serialize)]
struct Report<'a> {
    enforced_by: EnforcedBy,
    device: String,
    ca_key: u16,
    template: u16,
    signature_algorithm: &'static str,
    kind: String,
    key_id: &'a str,
    principals: &'a [String],
    /// UNIX seconds.
    valid_after: u64,
    /// UNIX seconds; 18446744073709551615 is forever.
    valid_before: u64,
    keys: Vec<Outcome>,
}

/// What became of one key.
#[derive(Serialize)]
struct Outcome {
    #[serde(serialize_with = "output::lossy")]
    key: PathBuf,
    serial: u64,
    /// The file that the request was written to.
    request: Option<String>,
    #[serde(flatten)]
    fate: Fate,
}

#[derive(Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Fate {
    Signed {
        #[serde(serialize_with = "output::lossy")]
        certificate: PathBuf,
    },
    Refused {
        verdict: Option<Explanation>,
    },
    Failed {
        error: String,
    },
}

/// A key to be signed.
struct Subject {
    path: PathBuf,
    key: PublicKey,
    serial: u64,
}

impl Sign {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        // All that can be wrong without a device is found before anything is signed.
        let kind = if self.host { CertificateKind::Host } else { CertificateKind::User };
        let usage = |error: &dyn std::error::Error| CliError::Usage(error.to_string());
        let options = CertificateOptions::parse(kind, &self.options).map_err(|error| usage(&error))?;
        let principals = self.principals.as_deref().map(request::principals).transpose();
        let principals = principals.map_err(|error| usage(&error))?.unwrap_or_default();
        let subjects = self.subjects()?;
        let mut authority = self.timestamp_authority()?;

        let mut client = context.client()?;
        let mut session = context.session(&mut client)?;
        let device = session.describe();
        let algorithm = self.signature_algorithm.map(SignatureAlgorithm::from);
        let mut signer = DeviceSigner::new(&mut session, self.ca_key, self.template, algorithm)?;
        let mut content = Content {
            kind,
            serial: 0,
            key_id: self.key_id.clone(),
            principals,
            validity: self.validity,
            options,
        };
        let mut report = Report {
            enforced_by: signer.enforced_by(),
            device,
            ca_key: self.ca_key.get(),
            template: self.template.get(),
            signature_algorithm: signer.algorithm().name(),
            kind: kind.to_string(),
            key_id: &self.key_id,
            principals: &content.principals.clone(),
            valid_after: self.validity.after(),
            valid_before: self.validity.before(),
            keys: Vec::new(),
        };
        let total = subjects.len();
        let (mut refused, mut failed, mut exit) = (0, 0, Exit::Done);
        for subject in subjects {
            content.serial = subject.serial;
            let mut request = None;
            let (fate, end) = match self.sign(&mut signer, &subject, &content, &mut authority, &mut request) {
                Ok(Fate::Refused { verdict }) => {
                    refused += 1;
                    let table = verdict.as_ref().map(Explanation::to_string).unwrap_or_default();
                    let path = output::shown(&subject.path);
                    output::talk(format_args!(
                        "{path} refused by template {}\n{}",
                        self.template,
                        table.trim_end()
                    ));
                    (Fate::Refused { verdict }, false)
                }
                Ok(fate) => (fate, false),
                Err(error) => {
                    failed += 1;
                    if exit == Exit::Done {
                        exit = error.exit();
                    }
                    output::talk(format_args!(
                        "{} not signed: {}",
                        output::shown(&subject.path),
                        error.line()
                    ));
                    let end = matches!(&error, CliError::Client(error) if error.ends_session());
                    (Fate::Failed { error: error.line() }, end)
                }
            };
            report.keys.push(Outcome { key: subject.path, serial: subject.serial, request, fate });
            if end {
                break;
            }
        }
        context.format().print(&report, |_| String::new())?;
        let tried = report.keys.len();
        match (refused, failed + total - tried) {
            (0, 0) => Ok(()),
            (0, failed) => Err(CliError::NotSigned { failed, total, exit }),
            (refused, _) => Err(CliError::Refused { refused, total }),
        }
    }

    /// Signs one key and writes its certificate; `saved` becomes the file that its request was written to.
    fn sign(
        &self,
        signer: &mut DeviceSigner<'_, '_>,
        subject: &Subject,
        content: &Content,
        authority: &mut TimestampAuthority,
        saved: &mut Option<String>,
    ) -> Result<Fate, CliError> {
        let timed = TimedRequest::new(&subject.key, content, signer.ca_key(), authority)?;
        if self.save_request {
            let path = beside(&subject.path, "-cert.req");
            write(&path, &timed.encode())?;
            *saved = Some(path.display().to_string());
        }
        match signer.sign(&timed) {
            Ok(line) => {
                let certificate = beside(&subject.path, "-cert.pub");
                write(&certificate, line.as_bytes())?;
                output::talk(signed_line(&certificate, content));
                Ok(Fate::Signed { certificate })
            }
            Err(error) if error.is_refusal() => match signer.explain(&timed) {
                Ok(verdict) => {
                    if !verdict.is_refusal() {
                        output::talk("the device refused for a reason that is not known here");
                    }
                    Ok(Fate::Refused { verdict: Some(verdict) })
                }
                Err(SignerError::Client(error)) if !error.ends_session() => {
                    output::talk(format_args!(
                        "the template cannot be read, so the refusal cannot be explained: {error}"
                    ));
                    Ok(Fate::Refused { verdict: None })
                }
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn subjects(&self) -> Result<Vec<Subject>, CliError> {
        let subject = |(index, path): (usize, &PathBuf)| {
            let serial = self.serials.get(index);
            let serial =
                serial.ok_or_else(|| CliError::Usage("the serial numbers run beyond 2⁶⁴ − 1".into()))?;
            let key = key_file::read_public(path)
                .map_err(|error| CliError::content("nothing was signed", error))?;
            Ok(Subject { path: path.clone(), key, serial })
        };
        self.keys.iter().enumerate().map(subject).collect()
    }

    fn timestamp_authority(&self) -> Result<TimestampAuthority, CliError> {
        let path = &self.timestamp_key;
        let mut ask = || password::key_passphrase(path);
        let key = key_file::read_private(path, &mut ask)
            .map_err(|error| CliError::content("no timestamp key", error))?;
        TimestampAuthority::new(&key, output::shown(path).to_string())
            .map_err(|error| CliError::content(output::shown(path), error))
    }
}

/// ssh-keygen's naming: `.pub` goes off, the suffix comes on.
fn beside(key: &Path, suffix: &str) -> PathBuf {
    let mut path = match key.extension() {
        Some(extension) if extension == "pub" => key.with_extension(""),
        _ => key.to_owned(),
    }
    .into_os_string();
    path.push(suffix);
    path.into()
}

fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    output::write_file(path, content).map_err(|source| FileError::write(path, source))
}

/// What ssh-keygen says of a certificate it has written.
fn signed_line(certificate: &Path, content: &Content) -> String {
    let names = match content.principals.as_slice() {
        [] => String::new(),
        names => format!(" for {}", Printable(names.join(",").as_bytes())),
    };
    format!(
        "Signed {} key {}: id \"{}\" serial {}{names} valid {}",
        content.kind,
        output::shown(certificate),
        Printable(content.key_id.as_bytes()),
        content.serial,
        validity_in_words(content.validity)
    )
}

/// ssh-keygen's words for a validity, in local time.
fn validity_in_words(validity: Validity) -> String {
    let local = |seconds: u64| {
        let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map_or_else(
            || format!("{seconds} s after 1970"),
            |time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string(),
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
    fn certificates_are_named_as_ssh_keygen_names_them() {
        for (key, certificate) in
            [("id.pub", "id-cert.pub"), ("a/b.c.pub", "a/b.c-cert.pub"), ("id", "id-cert.pub")]
        {
            assert_eq!(beside(Path::new(key), "-cert.pub"), Path::new(certificate));
        }
    }

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
