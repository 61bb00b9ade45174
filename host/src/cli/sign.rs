//! `sshsm sign`: `ssh-keygen -s` with the CA key, and the policy it signs under, on the device.
//!
//! Keys wait in one queue; every device that holds the CA key takes from it. A key that fails, or a device that goes away,
//! does not keep the others from being signed.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use ssh_key::{Certificate, HashAlg, PublicKey, public::KeyData};
use sshsm_protocol::ssh::{Printable, request::CertificateKind};

use super::{
    Context,
    arguments::Serials,
    content::ContentArguments,
    error::{self, CliError, Exit, FileError},
    signing::SignerChoice,
};
use crate::{
    explanation::Explanation,
    key_file,
    ledger::{self, Recorder, Serial},
    output,
    pkcs11::Pkcs11Error,
    request::Content,
    signer::{EnforcedBy, Signer, SignerError, TimedRequest},
    timestamp::{self, TimestampSource},
    validity::Validity,
};

/// Arguments of `sign`; the letters are ssh-keygen's.
#[derive(Debug, Args)]
pub(super) struct Sign {
    #[command(flatten)]
    signer: SignerChoice,
    #[command(flatten)]
    content: ContentArguments,
    /// Serial number; +n starts at n and counts up from key to key, + alone takes the next ones of the ledger
    #[arg(
        short = 'z',
        long = "serial",
        value_name = "SERIAL",
        default_value = "0",
        allow_hyphen_values = true
    )]
    serials: Serials,
    /// Write each request beside its certificate, also when it is refused: KEY-cert.req, for `template check`
    #[arg(long)]
    save_request: bool,
    /// Leave out keys whose certificate is there, of this CA, for the same id and principals, and still valid
    #[arg(long)]
    resume: bool,
    /// How many keys are signed at the same time, spread over the devices; one for each device if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Public keys to sign; KEY.pub becomes KEY-cert.pub
    #[arg(value_name = "KEY.pub", required = true)]
    keys: Vec<PathBuf>,
}

/// What became of a call, as JSON shows it.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    by: &'a By,
    /// No device answered, and the configuration's token signed.
    fallback: bool,
    kind: String,
    key_id: &'a str,
    principals: &'a [String],
    /// UNIX seconds.
    valid_after: u64,
    /// UNIX seconds; 18446744073709551615 is forever.
    valid_before: u64,
    keys: Vec<Outcome>,
}

/// What signs; the same for all devices of a call.
#[derive(Serialize)]
struct By {
    enforced_by: EnforcedBy,
    /// The first.
    device: String,
    ca_key: String,
    template: String,
    signature_algorithm: &'static str,
    #[serde(skip)]
    public: KeyData,
}

/// What became of one key.
#[derive(Serialize)]
struct Outcome {
    #[serde(serialize_with = "output::lossy")]
    key: PathBuf,
    /// None was reserved if there is none.
    serial: Option<u64>,
    device: String,
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
    /// It was there.
    Kept {
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
    serial: Serial,
}

/// All that the devices of a call share.
struct Batch<'a> {
    content: Content,
    save_request: bool,
    resume: bool,
    subjects: &'a [Subject],
    source: Mutex<Box<dyn TimestampSource + Send>>,
    recorder: Recorder,
    by: OnceLock<By>,
    progress: ProgressBar,
    state: Mutex<State>,
}

/// How far it is.
#[derive(Default)]
struct State {
    next: usize,
    outcomes: Vec<(usize, Outcome)>,
    refused: usize,
    failed: usize,
    /// Of the first failure.
    exit: Option<Exit>,
}

impl Sign {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        // All that can be wrong without a device is found before anything is signed.
        let content = self.content.content()?;
        let subjects = self.subjects()?;
        let ca = context.ca(&self.signer)?;
        let batch = Batch {
            content,
            save_request: self.save_request,
            resume: self.resume,
            subjects: &subjects,
            source: Mutex::new(ca.timestamp_source()?),
            recorder: Recorder::new(context.ledger()?),
            by: OnceLock::new(),
            progress: progress(subjects.len()),
            state: Mutex::default(),
        };
        let workers = self.jobs.map_or(0, usize::from).max(ca.devices.len()).min(subjects.len());
        let ends: Vec<Result<(), CliError>> = thread::scope(|scope| {
            let devices = ca.devices.iter().cycle().take(workers);
            let (ca, batch) = (&ca, &batch);
            let work = |device| scope.spawn(move || ca.with_signer(device, |signer| batch.work(signer)));
            let working: Vec<_> = devices.map(work).collect();
            working.into_iter().map(|worker| worker.join().unwrap_or(Ok(()))).collect()
        });
        let failed: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        let fallback = match batch.by.get() {
            None => ca.with_fallback(&failed, |signer| batch.work(signer)),
            Some(_) => None,
        };
        let fell_back = fallback.is_some();
        let ends = fallback.map_or(ends, |end| vec![end]);
        batch.progress.finish_and_clear();
        let errors = ends.into_iter().filter_map(Result::err);
        let Batch { by, state, content, .. } = batch;
        let Some(by) = by.into_inner() else {
            // Nothing could be opened.
            return errors.into_iter().next().map_or(Ok(()), Err);
        };
        let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        for error in errors {
            output::talk(error.report().trim_end());
            state.exit.get_or_insert(error.exit());
        }
        state.outcomes.sort_unstable_by_key(|(index, _)| *index);
        let report = Report {
            by: &by,
            fallback: fell_back,
            kind: content.kind.to_string(),
            key_id: &content.key_id,
            principals: &content.principals,
            valid_after: content.validity.after(),
            valid_before: content.validity.before(),
            keys: state.outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
        };
        context.format().print(&report, |_| String::new())?;
        let (total, tried) = (subjects.len(), report.keys.len());
        match (state.refused, state.failed + total - tried) {
            (0, 0) => Ok(()),
            (0, failed) => {
                Err(CliError::NotSigned { failed, total, exit: state.exit.unwrap_or(Exit::Failed) })
            }
            (refused, _) => Err(CliError::Refused { refused, total }),
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
}

impl Batch<'_> {
    /// Takes keys from the queue until it is empty, or the signer can sign no more.
    fn work(&self, signer: &mut dyn Signer) -> Result<(), CliError> {
        self.insist(signer)?;
        let mut content = self.content.clone();
        while let Some((index, subject)) = self.next() {
            let (mut serial, mut request) = (None, None);
            let (fate, end) = match self.record(signer, subject, &mut content, &mut serial, &mut request) {
                Ok(fate) => (fate, false),
                Err(error) => {
                    self.talk(format_args!("{} not signed: {}", output::shown(&subject.path), error.line()));
                    self.state().exit.get_or_insert(error.exit());
                    let end = match &error {
                        CliError::Client(error) => error.ends_session(),
                        CliError::Pkcs11(error) => matches!(error, Pkcs11Error::Gone { .. }),
                        // What a ledger has no room for, it has none for with the next key.
                        CliError::Ledger(_) | CliError::NotRecorded(_) => true,
                        _ => false,
                    };
                    (Fate::Failed { error: error.line() }, end)
                }
            };
            let mut state = self.state();
            match fate {
                Fate::Refused { .. } => state.refused += 1,
                Fate::Failed { .. } => state.failed += 1,
                Fate::Signed { .. } | Fate::Kept { .. } => {}
            }
            let (key, device) = (subject.path.clone(), signer.describe());
            state.outcomes.push((index, Outcome { key, serial, device, request, fate }));
            self.progress.inc(1);
            if end {
                break;
            }
        }
        Ok(())
    }

    /// Refuses a device that is another CA than the first, or is held to its template by somebody else.
    fn insist(&self, signer: &dyn Signer) -> Result<(), CliError> {
        let by = self.by.get_or_init(|| By {
            enforced_by: signer.enforced_by(),
            device: signer.describe(),
            ca_key: signer.key(),
            template: signer.template(),
            signature_algorithm: signer.algorithm().name(),
            public: signer.ca_key().clone(),
        });
        if by.public != *signer.ca_key() {
            return Err(CliError::OtherCa {
                device: signer.describe(),
                key: signer.key(),
                found: signer.ca_key().fingerprint(HashAlg::Sha256).to_string(),
                wanted: format!("that at {} is {}", by.device, by.public.fingerprint(HashAlg::Sha256)),
            });
        }
        if by.enforced_by != signer.enforced_by() {
            return Err(CliError::Usage(format!(
                "the template is enforced by the {} for {}, and by the {} for {}; sign with one of them",
                by.enforced_by,
                by.device,
                signer.enforced_by(),
                signer.describe()
            )));
        }
        Ok(())
    }

    /// Signs one key and writes its certificate, with the ledger told before either: `serial` becomes the one that was
    /// reserved, `saved` the file that the request was written to.
    fn record(
        &self,
        signer: &mut dyn Signer,
        subject: &Subject,
        content: &mut Content,
        serial: &mut Option<u64>,
        saved: &mut Option<String>,
    ) -> Result<Fate, CliError> {
        let certificate = beside(&subject.path, "-cert.pub");
        if self.resume && says_the_same(&certificate, &subject.key, content, signer.ca_key()) {
            self.talk(format_args!("{} is there", output::shown(&certificate)));
            return Ok(Fate::Kept { certificate });
        }
        let reservation = self.recorder.reserve(signer, subject.key.key_data(), content, subject.serial)?;
        *serial = Some(content.serial);
        let (mut timed, mut refused) = (None, false);
        let signed = self.request(signer, subject, content, &mut timed, saved).and_then(|timed| {
            signer.sign(timed).map_err(|error| {
                refused = error.is_refusal();
                error.into()
            })
        });
        let outcome = signed.as_deref().map_err(|error| {
            (if refused { ledger::State::Refused } else { ledger::State::Failed }, error.line())
        });
        let audit_entry = match (&reservation, &timed) {
            (Some(_), Some(timed)) => signer.audit_entry(timed),
            _ => None,
        };
        let settled = self.recorder.settle(reservation, outcome, audit_entry);
        match (signed, settled) {
            (Ok(_), Err(error)) => Err(CliError::NotRecorded(error)),
            (Ok(line), Ok(())) => {
                write(&certificate, line.as_bytes())?;
                self.talk(signed_line(&certificate, content, signer));
                Ok(Fate::Signed { certificate })
            }
            (Err(error), settled) => {
                if let Err(error) = settled {
                    self.talk(format_args!(
                        "the ledger does not know that it failed: {}",
                        error::line(&error)
                    ));
                }
                match &timed {
                    Some(timed) if refused => self.explain(signer, subject, timed),
                    _ => Err(error),
                }
            }
        }
    }

    /// What one key is to be signed with, and keeps it where that was asked for.
    fn request<'t>(
        &self,
        signer: &dyn Signer,
        subject: &Subject,
        content: &Content,
        timed: &'t mut Option<TimedRequest>,
        saved: &mut Option<String>,
    ) -> Result<&'t TimedRequest, CliError> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let timed = timed.insert(TimedRequest::new(&subject.key, content, signer.ca_key(), source.as_mut())?);
        drop(source);
        if self.save_request {
            let path = beside(&subject.path, "-cert.req");
            write(&path, &timed.encode())?;
            *saved = Some(path.display().to_string());
        }
        Ok(timed)
    }

    /// Shows why a request is refused, if that can be found out.
    fn explain(
        &self,
        signer: &mut dyn Signer,
        subject: &Subject,
        timed: &TimedRequest,
    ) -> Result<Fate, CliError> {
        let verdict = match signer.explain(timed) {
            Ok(verdict) => {
                if !verdict.is_refusal() {
                    self.talk("the device refused for a reason that is not known here");
                }
                Some(verdict)
            }
            Err(SignerError::Client(error)) if !error.ends_session() => {
                self.talk(format_args!(
                    "the template cannot be read, so the refusal cannot be explained: {error}"
                ));
                None
            }
            Err(error) => return Err(error.into()),
        };
        let table = verdict.as_ref().map(Explanation::to_string).unwrap_or_default();
        self.talk(format_args!(
            "{} refused by template {}, enforced by {}\n{}",
            output::shown(&subject.path),
            signer.template(),
            signer.enforced_by(),
            table.trim_end()
        ));
        Ok(Fate::Refused { verdict })
    }

    fn next(&self) -> Option<(usize, &Subject)> {
        let mut state = self.state();
        let index = state.next;
        let subject = self.subjects.get(index)?;
        state.next += 1;
        Some((index, subject))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self, text: impl std::fmt::Display) {
        self.progress.suspend(|| output::talk(text));
    }
}

/// A bar on the terminal, where there are enough keys to wait for.
fn progress(total: usize) -> ProgressBar {
    let long = total >= 10 && std::io::stderr().is_terminal();
    let bar = if long { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
    match ProgressStyle::with_template("{bar:40} {pos}/{len} signed, {eta} to go") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Whether a certificate is there that says what is asked for, and is valid now.
fn says_the_same(path: &Path, subject: &PublicKey, content: &Content, ca: &KeyData) -> bool {
    let Some(certificate) =
        std::fs::read_to_string(path).ok().and_then(|line| Certificate::from_openssh(&line).ok())
    else {
        return false;
    };
    let valid = || {
        let now = timestamp::now().ok()?;
        certificate.validate_at(now.seconds().into(), &[ca.fingerprint(HashAlg::Sha256)]).ok()
    };
    certificate.public_key() == subject.key_data()
        && certificate.key_id() == content.key_id
        && certificate.valid_principals() == content.principals.as_slice()
        && certificate.cert_type().is_host() == (content.kind == CertificateKind::Host)
        && valid().is_some()
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

/// What ssh-keygen says of a certificate it has written, and who enforced the template.
fn signed_line(certificate: &Path, content: &Content, signer: &dyn Signer) -> String {
    let template = signer.template();
    let names = match content.principals.as_slice() {
        [] => String::new(),
        names => format!(" for {}", Printable(names.join(",").as_bytes())),
    };
    format!(
        "Signed {} key {}: id \"{}\" serial {}{names} valid {} (template {template} enforced by {})",
        content.kind,
        output::shown(certificate),
        Printable(content.key_id.as_bytes()),
        content.serial,
        validity_in_words(content.validity),
        signer.enforced_by()
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
