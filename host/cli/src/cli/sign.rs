//! `sshsm sign`: `ssh-keygen -s` with the CA key, and the policy that governs it, on the device.
//!
//! Keys wait in one queue; every device that holds the CA key takes from it. A key that fails, or a device
//! that goes away, does not stop the others from being signed.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use ssh_key::{Certificate, HashAlg, PublicKey, certificate::OptionsMap, public::KeyData};
use sshsm_protocol::ssh::{Printable, request::CertificateKind, timestamp::Now};

use super::{
    Context,
    arguments::ReplaceOption,
    beside_key::{beside, without, write},
    ca::{CaError, SignerChoice},
    content::{ContentArguments, validity_in_words},
    error::{CliError, FileError, Shortfall},
    notice::issuing,
    request,
};
use crate::output;
use sshsm_ca::{
    certificate_options::OptionList,
    device_address::DeviceAddress,
    explanation::Explanation,
    files::{self, Kind, Replace},
    input,
    issue::{Issuer, Tried},
    key_file,
    ledger::Serial,
    pkcs11::Pkcs11Error,
    request::{Content, SigningRequest, StoredRequest},
    signer::{EnforcedBy, Signer, SignerError, TimedRequest},
    timestamp::{self, TimestampSource},
    validity::Validity,
};
use sshsm_client::failure::{self, Failure};

/// Arguments of `sign`; the letters are ssh-keygen's.
#[derive(Debug, Args)]
pub(super) struct Sign {
    #[command(flatten)]
    signer: SignerChoice,
    #[command(flatten)]
    content: ContentArguments,
    /// Ask what would become of each key, and why, and sign nothing
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Write each request next to its certificate, even if it is refused: KEY-cert.req, for `template check`
    #[arg(long)]
    save_request: bool,
    #[command(flatten)]
    replace: ReplaceOption,
    /// Skip keys that already have a certificate from this CA that matches everything asked for, is valid and is not
    /// revoked in the ledger; and skip certificates among the keys
    #[arg(long)]
    resume: bool,
    /// How many keys are signed at the same time, spread over the devices; one for each device if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Sign requests from files instead of keys, as `request build` and `timestamp sign` write them: X-cert.req and
    /// X-cert.timed.req become X-cert.pub
    #[arg(long = "request", value_name = "REQUEST", num_args = 1.., conflicts_with_all = ["keys", "key_id"])]
    requests: Vec<PathBuf>,
    /// Public keys to sign; KEY.pub becomes KEY-cert.pub
    #[arg(value_name = "KEY.pub", required_unless_present = "requests")]
    keys: Vec<PathBuf>,
}

/// What became of a call, as JSON shows it.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    by: &'a By,
    /// No device answered, and the configuration's token signed.
    fallback: bool,
    // Common to all certificates of the call; null if each request has its own.
    kind: Option<String>,
    key_id: Option<&'a str>,
    principals: Option<&'a [String]>,
    /// UNIX seconds.
    valid_after: Option<u64>,
    /// UNIX seconds; 18446744073709551615 is forever.
    valid_before: Option<u64>,
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
    /// It would be signed.
    Allowed {
        verdict: Explanation,
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
    stored: Option<Stored>,
}

/// A request that was built before.
struct Stored {
    request: SigningRequest,
    content: Content,
    /// When it was made, if that has been signed already.
    timestamp: Option<(Now, Vec<u8>)>,
}

/// Shared by all devices of a call.
struct Batch<'a> {
    /// `None` when each request has its own.
    content: Option<Content>,
    dry_run: bool,
    save_request: bool,
    replace: Replace,
    resume: bool,
    /// With their positions among all the arguments.
    subjects: &'a [(usize, Subject)],
    /// `None` when each request brings its time.
    source: Mutex<Option<Box<dyn TimestampSource + Send>>>,
    issuer: Issuer,
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
    kind: Option<failure::Kind>,
}

impl Sign {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        // Everything that can be wrong without a device is found before anything is signed.
        let content = self.requests.is_empty().then(|| self.content.content()).transpose()?;
        let inputs = if self.requests.is_empty() { self.subjects()? } else { self.stored() };
        let total = inputs.len();
        let (mut subjects, mut unreadable) = (Vec::new(), Vec::new());
        for (place, input) in inputs.into_iter().enumerate() {
            match input {
                Ok(subject) => subjects.push((place, subject)),
                // A missing file is a mistake in the arguments, and found before anything is signed.
                Err(Unreadable { error, .. }) if error.kind() == failure::Kind::File => return Err(*error),
                Err(Unreadable { path, error }) => unreadable.push((place, path, error)),
            }
        }
        let all_signed = unreadable.is_empty();
        if subjects.is_empty() {
            // Nothing is left that a device could be asked for.
            let one = total == 1;
            for (_, _, error) in unreadable.iter().skip(1) {
                output::talk(error.report().trim_end());
            }
            return match unreadable.into_iter().next() {
                None => Ok(()),
                Some((.., error)) if one => Err(*error),
                Some((.., error)) => {
                    output::talk(error.report().trim_end());
                    Err(Shortfall::NotSigned { failed: total, total, kind: error.kind() }.into())
                }
            };
        }
        let timed = |subject: &Subject| matches!(subject.stored, Some(Stored { timestamp: Some(_), .. }));
        let ca = context.ca(&self.signer)?;
        let batch = Batch {
            content,
            dry_run: self.dry_run,
            save_request: self.save_request,
            replace: self.replace.into(),
            resume: self.resume,
            subjects: &subjects,
            source: Mutex::new(match subjects.iter().map(|(_, subject)| subject).all(timed) {
                true => None,
                false => Some(ca.timestamp_source()?),
            }),
            // A dry run is not recorded.
            issuer: Issuer::new(if self.dry_run { None } else { context.ledger()? }, issuing()),
            by: OnceLock::new(),
            progress: progress(subjects.len()),
            state: Mutex::default(),
        };
        for (place, path, error) in unreadable {
            batch.talk(format_args!("{} not signed: {}", output::shown(&path), error.line()));
            let mut state = batch.state();
            state.kind.get_or_insert(error.kind());
            state.failed += 1;
            let fate = Fate::Failed { error: error.line() };
            let (device, request) = (String::new(), None);
            state.outcomes.push((place, Outcome { key: path, serial: None, device, request, fate }));
        }
        let devices = spread(&ca.devices, self.jobs.map_or(0, usize::from), subjects.len());
        let ends: Vec<Result<(), CliError>> = thread::scope(|scope| {
            let (ca, batch) = (&ca, &batch);
            let work = |device| scope.spawn(move || ca.with_signer(device, |signer| batch.work(signer)));
            let working: Vec<_> = devices.into_iter().map(work).collect();
            // A worker that panicked takes the others with it: what became of its keys is not known.
            let end = |panic| std::panic::resume_unwind(panic);
            working.into_iter().map(|worker| worker.join().unwrap_or_else(end)).collect()
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
            let unsigned = Shortfall::NotSigned { failed: total, total, kind: failure::Kind::Failed };
            return match errors.into_iter().next() {
                Some(error) => Err(error),
                None if all_signed => Ok(()),
                None => Err(unsigned.into()),
            };
        };
        let mut state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        for error in errors {
            output::talk(error.report().trim_end());
            state.kind.get_or_insert(error.kind());
        }
        state.outcomes.sort_unstable_by_key(|(index, _)| *index);
        let report = Report {
            by: &by,
            fallback: fell_back,
            kind: content.as_ref().map(|content| content.kind.to_string()),
            key_id: content.as_ref().map(|content| content.key_id.as_str()),
            principals: content.as_ref().map(|content| content.principals.as_slice()),
            valid_after: content.as_ref().map(|content| content.validity.after()),
            valid_before: content.as_ref().map(|content| content.validity.before()),
            keys: state.outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
        };
        context.format().print(&report, |_| String::new())?;
        let tried = report.keys.len();
        match (state.refused, state.failed + total - tried) {
            (0, 0) => Ok(()),
            (0, failed) => {
                // A device that went away left keys behind without an error of their own.
                let kind = state.kind.unwrap_or(failure::Kind::Failed);
                Err(Shortfall::NotSigned { failed, total, kind }.into())
            }
            (refused, _) => Err(Shortfall::Refused { refused, total }.into()),
        }
    }

    /// The keys to sign; one that cannot be read is for itself.
    fn subjects(&self) -> Result<Vec<Result<Subject, Unreadable>>, CliError> {
        let mut subjects = Vec::new();
        for path in &self.keys {
            if self.resume && is_certificate(path) {
                output::talk(format_args!("{} is a certificate: skipped", output::shown(path)));
                continue;
            }
            let index = subjects.len();
            let serial = match self.dry_run {
                true => Serial::Given(self.content.given_serial(index)?),
                false => self.content.serial(index)?,
            };
            let key = key_file::read_public(path).map_err(|error| Unreadable {
                path: path.clone(),
                error: Box::new(match is_certificate(path) {
                    true => CliError::because(
                        format!("{} is a certificate, not a key", output::shown(path)),
                        "name the keys only, or leave certificates out with --resume",
                    ),
                    false if self.keys.len() == 1 => CliError::content("nothing was signed", error),
                    false => CliError::content("no public key", error),
                }),
            });
            subjects.push(key.map(|key| Subject { path: path.clone(), key, serial, stored: None }));
        }
        Ok(subjects)
    }

    fn stored(&self) -> Vec<Result<Subject, Unreadable>> {
        let subject = |path: &PathBuf| {
            let StoredRequest { request, timestamp } = request::read(path)?;
            let place = output::shown(path);
            let request =
                SigningRequest::from_bytes(request).map_err(|error| CliError::content(&place, error))?;
            let content = request.content().map_err(|error| CliError::content(&place, error))?;
            let (key, _) = request.keys().map_err(|error| CliError::because(&place, error))?;
            let serial = Serial::Given(content.serial);
            Ok(Subject {
                path: path.clone(),
                key: key.into(),
                serial,
                stored: Some(Stored { request, content, timestamp }),
            })
        };
        let unreadable = |path: &PathBuf, error| Unreadable { path: path.clone(), error: Box::new(error) };
        self.requests.iter().map(|path| subject(path).map_err(|error| unreadable(path, error))).collect()
    }
}

/// A file that is named and cannot be signed.
struct Unreadable {
    path: PathBuf,
    error: Box<CliError>,
}

/// Whether no other key can be signed either: the device is away, or the ledger cannot record any more.
fn ends_signing(error: &CliError) -> bool {
    match error {
        CliError::Client(error) => error.ends_session(),
        CliError::Pkcs11(error) => matches!(error, Pkcs11Error::Gone { .. }),
        CliError::Signer(error) => error.ends_signing(),
        CliError::Issue(error) => error.ends_signing(),
        CliError::Ledger(_) => true,
        CliError::Open(_)
        | CliError::Password(_)
        | CliError::Other(_)
        | CliError::Content { .. }
        | CliError::Bind(_)
        | CliError::Output(_)
        | CliError::Service(_)
        | CliError::Usage(_) => false,
    }
}

/// One worker per device, and more for those that serve several sessions, up to `jobs` or the number of keys.
fn spread(devices: &[DeviceAddress], jobs: usize, keys: usize) -> Vec<&DeviceAddress> {
    let more = devices.iter().filter(|device| device.is_shared()).cycle();
    let extra = jobs.saturating_sub(devices.len());
    devices.iter().chain(more.take(extra)).take(keys).collect()
}

impl Batch<'_> {
    /// Takes keys from the queue until it is empty, or the signer can no longer sign.
    fn work(&self, signer: &mut dyn Signer) -> Result<(), CliError> {
        self.insist(signer)?;
        while let Some((index, subject)) = self.next() {
            let mut content = match (&subject.stored, &self.content) {
                (Some(stored), _) => stored.content.clone(),
                (None, Some(content)) => content.clone(),
                (None, None) => continue,
            };
            let (mut serial, mut request) = (None, None);
            let (fate, end) = match self.sign(signer, subject, &mut content, &mut serial, &mut request) {
                Ok(fate) => (fate, false),
                Err(error) => {
                    self.talk(format_args!("{} not signed: {}", output::shown(&subject.path), error.line()));
                    self.state().kind.get_or_insert(error.kind());
                    (Fate::Failed { error: error.line() }, ends_signing(&error))
                }
            };
            let mut state = self.state();
            match fate {
                Fate::Refused { .. } => state.refused += 1,
                Fate::Failed { .. } => state.failed += 1,
                Fate::Signed { .. } | Fate::Kept { .. } | Fate::Allowed { .. } => {}
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

    /// Refuses a device that is a different CA from the first, or whose template is enforced elsewhere.
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
            return Err(CaError::Other {
                device: signer.describe(),
                key: signer.key(),
                found: signer.ca_key().fingerprint(HashAlg::Sha256).to_string(),
                wanted: format!("that at {} is {}", by.device, by.public.fingerprint(HashAlg::Sha256)),
            }
            .into());
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

    /// Signs one key and writes its certificate, recording each step in the ledger first: `serial` becomes
    /// the reserved number, `saved` the file that the request was written to.
    fn sign(
        &self,
        signer: &mut dyn Signer,
        subject: &Subject,
        content: &mut Content,
        serial: &mut Option<u64>,
        saved: &mut Option<String>,
    ) -> Result<Fate, CliError> {
        let certificate = beside(&subject.path, "-cert.pub");
        if self.resume && self.is_there(&certificate, subject, content, signer.ca_key())? {
            self.talk(format_args!("{} is there", output::shown(&certificate)));
            return Ok(Fate::Kept { certificate });
        }
        // Before anything is signed that then could not be handed over.
        if !self.dry_run {
            files::check(&certificate, Kind::Certificate, self.replace)
                .map_err(|source| FileError::write(&certificate, source))?;
        }
        let mut request = |content: &Content, signer: &dyn Signer| -> Result<_, CliError> {
            *serial = Some(content.serial);
            let timed = self.timed(subject, content, signer.ca_key())?;
            if self.save_request {
                let path = beside(&subject.path, "-cert.req");
                write(&path, &timed.encode(), Kind::Request, self.replace)?;
                *saved = Some(path.display().to_string());
            }
            Ok(timed)
        };
        if let (true, Serial::Given(serial)) = (self.dry_run, subject.serial) {
            content.serial = serial;
            let timed = request(content, signer)?;
            return self.explain(signer, subject, &timed);
        }
        let key = subject.key.key_data();
        match self.issuer.issue(signer, key, content, subject.serial, request)? {
            Tried::Signed(issued) => {
                write(&certificate, issued.line().as_bytes(), Kind::Certificate, self.replace)?;
                self.talk(signed_line(&certificate, content, signer));
                Ok(Fate::Signed { certificate })
            }
            Tried::Refused(timed) => self.explain(signer, subject, &timed),
        }
    }

    /// Whether there is a certificate that matches everything asked for, is valid, and is not revoked.
    fn is_there(
        &self,
        path: &Path,
        subject: &Subject,
        content: &Content,
        ca: &KeyData,
    ) -> Result<bool, CliError> {
        let line = match input::read_text(path) {
            Ok(line) => line,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(FileError::read(path, error).into()),
        };
        // A file that is not a certificate is replaced by one, as without --resume.
        let Ok(certificate) = Certificate::from_openssh(&line) else { return Ok(false) };
        let now = timestamp::now()?.seconds();
        let serial = match (&subject.stored, subject.serial) {
            (Some(_), _) => Some(content.serial),
            (None, Serial::Given(0) | Serial::Next) => None,
            (None, Serial::Given(serial)) => Some(serial),
        };
        let same = certificate.validate_at(now.into(), &[ca.fingerprint(HashAlg::Sha256)]).is_ok()
            && certificate.public_key() == subject.key.key_data()
            && says(&certificate, content, serial);
        if same && self.issuer.is_revoked(&certificate)? {
            self.talk(format_args!("{} is revoked", output::shown(path)));
            return Ok(false);
        }
        Ok(same)
    }

    /// The request for a subject, and when it was made.
    fn timed(&self, subject: &Subject, content: &Content, ca: &KeyData) -> Result<TimedRequest, CliError> {
        if let Some(Stored { request, timestamp: Some((now, signature)), .. }) = &subject.stored {
            return Ok(TimedRequest::from_stored(request.clone(), *now, signature.clone())?);
        }
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(source) = source.as_mut() else {
            return Err(CliError::Usage("name the timestamp authority: --timestamp SOURCE".into()));
        };
        Ok(match &subject.stored {
            Some(stored) => TimedRequest::of(stored.request.clone(), source.as_mut())?,
            None => TimedRequest::new(&subject.key, content, ca, source.as_mut())?,
        })
    }

    /// Shows why a request is refused, if that can be found out; or, in a dry run, that it would be signed.
    fn explain(
        &self,
        signer: &mut dyn Signer,
        subject: &Subject,
        timed: &TimedRequest,
    ) -> Result<Fate, CliError> {
        let shown = output::shown(&subject.path);
        let (template, enforced_by) = (signer.template(), signer.enforced_by());
        let verdict = match signer.explain(timed) {
            Ok(verdict) if self.dry_run && verdict.is_allowed() => {
                let table = verdict.to_string();
                let text = format!("would be signed under template {template}, enforced by {enforced_by}");
                self.talk(format_args!("{shown} {text}\n{}", table.trim_end()));
                return Ok(Fate::Allowed { verdict });
            }
            Ok(verdict) => {
                match signer.enforced_by() {
                    _ if verdict.is_refusal() => {}
                    EnforcedBy::Host => {
                        self.talk("undecided rules can be enforced only by a device, not for a token");
                    }
                    EnforcedBy::Device => self.talk("the device refused for a reason that is not known here"),
                }
                Some(verdict)
            }
            // A dry run that cannot ask is a failure, not a refusal.
            Err(SignerError::Client(error)) if !self.dry_run && !error.ends_session() => {
                self.talk(format_args!(
                    "the template cannot be read, so the refusal cannot be explained: {error}"
                ));
                None
            }
            Err(error) => return Err(error.into()),
        };
        let table = verdict.as_ref().map(Explanation::to_string).unwrap_or_default();
        let text = format!("refused by template {template}, enforced by {enforced_by}");
        self.talk(format_args!("{shown} {text}\n{}", table.trim_end()));
        Ok(Fate::Refused { verdict })
    }

    fn next(&self) -> Option<(usize, &Subject)> {
        let mut state = self.state();
        let index = state.next;
        let (place, subject) = self.subjects.get(index)?;
        state.next += 1;
        Some((*place, subject))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self, text: impl std::fmt::Display) {
        self.progress.suspend(|| output::talk(text));
    }
}

/// A progress bar on the terminal, if there are enough keys to wait for.
fn progress(total: usize) -> ProgressBar {
    let long = total >= 10 && io::stderr().is_terminal();
    let bar = if long { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
    match ProgressStyle::with_template("{bar:40} {pos}/{len} signed, {eta} to go") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Whether a certificate matches `content` except for its serial number, and the serial number too if it is
/// given.
fn says(certificate: &Certificate, content: &Content, serial: Option<u64>) -> bool {
    let same_options = |found: &OptionsMap, asked: &OptionList| {
        let found = found.iter().map(|(name, contents)| (name.as_str(), contents.as_str()));
        found.eq(asked.iter().map(|(name, contents)| (name.as_str(), contents.as_deref().unwrap_or(""))))
    };
    certificate.key_id() == content.key_id
        && certificate.valid_principals() == content.principals.as_slice()
        && certificate.cert_type().is_host() == (content.kind == CertificateKind::Host)
        && same_options(certificate.critical_options(), &content.options.critical)
        && same_options(certificate.extensions(), &content.options.extensions)
        && serial.is_none_or(|serial| serial == certificate.serial())
        && is_as_long(certificate.valid_after(), certificate.valid_before(), content.validity)
}

/// Whether a validity matches the one asked for, now or when it was issued: as long, and not later.
/// ssh-keygen's `+SPAN` begins at a full minute, so its length differs by up to one.
fn is_as_long(after: u64, before: u64, asked: Validity) -> bool {
    if (after, before) == (asked.after(), asked.before()) {
        return true;
    }
    let bounded = after != 0 && before != u64::MAX && asked.after() != 0 && asked.before() != u64::MAX;
    let length = |after: u64, before: u64| before.saturating_sub(after);
    bounded
        && before <= asked.before()
        && length(after, before).abs_diff(length(asked.after(), asked.before())) < 60
}

/// Whether a file is a certificate, by its content or by ssh-keygen's name for one.
fn is_certificate(path: &Path) -> bool {
    match input::read_text(path) {
        Ok(line) => line.split_whitespace().next().is_some_and(|kind| kind.contains("-cert-v0")),
        Err(_) => path.file_name().is_some_and(|name| without(name, "-cert.pub").is_some()),
    }
}

/// ssh-keygen's message about a certificate that it has written, and what enforced the template.
fn signed_line(certificate: &Path, content: &Content, signer: &dyn Signer) -> String {
    let template = signer.template();
    let names = match content.principals.as_slice() {
        [] => String::new(),
        names => format!(" for {}", output::names(names)),
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

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn a_validity_is_kept_that_is_as_long_and_not_later() {
        let asked = |text| Validity::parse_at(text, 1_000_000, &TimeZone::UTC).unwrap();
        let made = |text, now| {
            let validity = Validity::parse_at(text, now, &TimeZone::UTC).unwrap();
            (validity.after(), validity.before())
        };
        for (text, earlier, kept) in [
            ("+1h", "+1h", true),
            ("+5m", "+1h", false),
            ("+1h", "+5m", false),
            ("-1d:+1w", "-1d:+1w", true),
            ("always:forever", "always:forever", true),
            ("+1h", "always:forever", false),
            ("always:forever", "+1h", false),
            ("0x1:0xfffff", "0x1:0xfffff", true),
            ("0x1:0xfffff", "0x1:0xff000", false),
            ("always:+1h", "always:+1w", false),
        ] {
            let (after, before) = made(earlier, 999_000);
            assert_eq!(is_as_long(after, before, asked(text)), kept, "{earlier} for {text}");
        }
        let (after, before) = made("+1h", 1_000_061);
        assert!(!is_as_long(after, before, asked("+1h")), "later than what is asked for");
    }

    #[test]
    fn a_device_that_serves_one_session_has_one_worker() {
        let devices = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let count = |texts: &[&str], jobs, keys| spread(&devices(texts), jobs, keys).len();
        assert_eq!(count(&["sim:d"], 4, 9), 1);
        assert_eq!(count(&["serial:/dev/x", "sim:d"], 8, 9), 2);
        assert_eq!(count(&["http://a:1"], 4, 9), 4);
        assert_eq!(count(&["http://a:1"], 4, 3), 3);
        let mixed = devices(&["sim:d", "http://a:1"]);
        let workers: Vec<_> = spread(&mixed, 4, 9).iter().map(ToString::to_string).collect();
        assert_eq!(workers, ["sim:d", "http://a:1", "http://a:1", "http://a:1"]);
    }
}
