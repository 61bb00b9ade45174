//! `sshsm agent`: CA keys for `ssh-keygen -Us`, and for nothing else.
//!
//! The socket is in a directory of its own that only its user can enter, or is moved from there to the path
//! given by `-a`; no other user could ever open it. It is removed when the agent ends.
//!
//! A process that reaches the socket, including from a host that it is forwarded to, can ask any number of
//! times. Requests refused before the template is consulted leave nothing in the ledger, and of those that
//! the template refuses, a limited number an hour is recorded.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use listenfd::ListenFd;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::ssh::Printable;
use tempfile::TempDir;
use tokio::runtime;

use super::{
    Context,
    arguments::CaName,
    ca::{Ca, SignerChoice},
    confirm,
    content::validity_in_words,
    error::{CliError, FileError, line},
    notice::issuing,
    service,
};
use crate::output;
use sshsm_ca::{
    agent::{Authority, CaAgent, CaIdentity, Order, Refusal, server},
    child,
    issue::{Issuer, Tried},
    ledger::Serial,
    request::Content,
    signer::{Signer, SignerError, TimedRequest},
    timestamp::TimestampSource,
};

/// How many requests refused by a template the ledger takes in [`REFUSALS_TIME`]. One can have 9 KB.
const REFUSALS: usize = 16;
const REFUSALS_TIME: Duration = Duration::from_secs(3600);
/// How many things that were refused are printed in [`LINES_TIME`].
const LINES: usize = 60;
const LINES_TIME: Duration = Duration::from_secs(60);
/// The most characters of a name, a key id or a list of principals in a question.
const SHOWN: usize = 200;

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(flatten)]
    signer: SignerChoice,
    /// Path of the socket; fd:// takes the one that systemd opened. By default it is in a new directory
    #[arg(short = 'a', long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Ask before each signature, with SSH_ASKPASS or on the terminal; if neither is available, nothing is
    /// signed
    #[arg(short = 'c', long)]
    confirm: bool,
    /// Sign also for connections that ssh forwards from another host (ssh -A)
    #[arg(long)]
    allow_forwarding: bool,
    /// Serve this command only, and end with it and its exit code
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
}

/// The agent's address and keys, as JSON shows them.
#[derive(Serialize)]
struct Report {
    socket: Option<String>,
    /// The process to end.
    process: u32,
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    name: String,
    public_key: String,
    fingerprint: String,
}

impl Agent {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let authorities = self.authorities(context)?;
        let (listener, socket) = open(self.socket.as_deref())?;
        let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Service)?;
        let end = runtime.block_on(async {
            let ended = service::ended().map_err(CliError::Service)?;
            listener.set_nonblocking(true).map_err(CliError::Service)?;
            let listener = tokio::net::UnixListener::from_std(listener).map_err(CliError::Service)?;
            let agent = CaAgent::new(Arc::new(authorities));
            let serving = server::serve(listener, agent.clone());
            if self.command.is_empty() {
                report(context, agent_identities(&agent), socket.as_ref())?;
                leave_stdout().map_err(CliError::Service)?;
                return tokio::select! {
                    served = serving => served,
                    () = ended => Ok(ExitCode::SUCCESS),
                };
            }
            let serving = tokio::spawn(serving);
            let code = command(&self.command, socket.as_ref(), ended).await;
            serving.abort();
            code
        });
        // Whatever a device still computes is not waited for.
        runtime.shutdown_background();
        end
    }

    /// The CAs that were named, or all of the configuration; each with its key.
    fn authorities(&self, context: &Context) -> Result<Authorities, CliError> {
        let names: Vec<String> = match self.signer.ca {
            Some(_) => Vec::new(),
            None => context.configuration.authorities().map(str::to_owned).collect(),
        };
        let choices = match names.as_slice() {
            [] => vec![self.signer.clone()],
            names => names.iter().map(|name| self.signer.of(CaName::Name(name.clone()))).collect(),
        };
        let mut authorities = Authorities {
            issuer: Issuer::new(context.ledger()?, issuing()),
            identities: Vec::new(),
            cas: Vec::new(),
            confirm: self.confirm.then(Mutex::default),
            allow_forwarding: self.allow_forwarding,
            refusals: Budget::new(REFUSALS, REFUSALS_TIME),
            lines: Budget::new(LINES, LINES_TIME),
        };
        for choice in choices {
            let ca = context.ca(&choice)?;
            let source = ca.timestamp_source()?;
            let key = match &ca.public_key {
                Some(key) => key.key_data().clone(),
                None => at_a_device(&ca, |signer| Ok(signer.ca_key().clone()))?,
            };
            let name = match &choice.ca {
                Some(CaName::Name(name)) => name.clone(),
                Some(CaName::Id(id)) => id.to_string(),
                None => String::new(),
            };
            authorities.identities.push(CaIdentity { key, name });
            authorities.cas.push(Mutex::new((ca, source)));
        }
        Ok(authorities)
    }
}

fn agent_identities(agent: &CaAgent<Authorities>) -> &[CaIdentity] {
    agent.authority().identities()
}

fn report(context: &Context, identities: &[CaIdentity], socket: Option<&Socket>) -> Result<(), CliError> {
    let key = |ca: &CaIdentity| -> Result<Key, CliError> {
        let mut key = PublicKey::from(ca.key.clone());
        key.set_comment(ca.name.as_str());
        Ok(Key {
            name: ca.name.clone(),
            public_key: key.to_openssh().map_err(|error| CliError::because("the CA's public key", error))?,
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    };
    let report = Report {
        socket: socket.map(|socket| socket.path.display().to_string()),
        process: std::process::id(),
        keys: identities.iter().map(key).collect::<Result<_, _>>()?,
    };
    context.format().print(&report, |report| {
        let socket = report.socket.as_deref().map(|socket| {
            let quoted = socket.replace('\'', "'\\''");
            format!(
                "SSH_AUTH_SOCK='{quoted}'; export SSH_AUTH_SOCK;\nSSH_AGENT_PID={}; export SSH_AGENT_PID;\n",
                report.process
            )
        });
        socket.unwrap_or_default()
    })?;
    for key in &report.keys {
        output::talk(format_args!("serving CA {} {}", Printable(key.name.as_bytes()), key.fingerprint));
    }
    Ok(())
}

/// Closes standard output: a shell that runs this in `$(… &)` waits for its end.
fn leave_stdout() -> io::Result<()> {
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(())
}

/// Opens the CA at the first of its devices that is there.
fn at_a_device<T>(
    ca: &Ca,
    mut used: impl FnMut(&mut dyn Signer) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut failed = Vec::new();
    for device in &ca.devices {
        match ca.with_signer(device, &mut used) {
            Err(error @ CliError::Open(_)) => failed.push(error),
            result => return result,
        }
    }
    if let Some(result) = ca.with_fallback(&failed.iter().collect::<Vec<_>>(), &mut used) {
        return result;
    }
    let last = failed.pop().unwrap_or_else(|| CliError::Usage("name the device: --device DEV".into()));
    failed.iter().for_each(|error| output::talk(error.line()));
    Err(last)
}

/// How often something may happen in some time.
struct Budget {
    most: usize,
    time: Duration,
    spent: Mutex<(VecDeque<Instant>, u64)>,
}

impl Budget {
    fn new(most: usize, time: Duration) -> Self {
        Self { most, time, spent: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<Instant>, &mut u64) -> T) -> T {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, missed) = &mut *spent;
        while times.front().is_some_and(|first| first.elapsed() > self.time) {
            times.pop_front();
        }
        work(times, missed)
    }

    /// Whether the limit is reached for now.
    fn is_spent(&self) -> bool {
        self.with(|times, _| times.len() >= self.most)
    }

    /// It happens.
    fn spend(&self) {
        self.with(|times, _| times.push_back(Instant::now()));
    }

    /// How often it was to happen since it last did and could not, if it may happen now.
    fn take(&self) -> Option<u64> {
        self.with(|times, missed| {
            if times.len() >= self.most {
                *missed += 1;
                return None;
            }
            times.push_back(Instant::now());
            Some(std::mem::take(missed))
        })
    }
}

/// The CAs that the agent has sign. Each signs one certificate at a time.
struct Authorities {
    issuer: Issuer,
    identities: Vec<CaIdentity>,
    cas: Vec<Mutex<(Ca, Box<dyn TimestampSource + Send>)>>,
    /// Whether a person is asked each time; one question at a time.
    confirm: Option<Mutex<()>>,
    allow_forwarding: bool,
    /// Requests that a template refused, in the ledger.
    refusals: Budget,
    /// How many refusals are still printed.
    lines: Budget,
}

impl Authorities {
    /// Prints why something was refused, unless that was done too often.
    fn grumble(&self, text: impl std::fmt::Display) {
        match self.lines.take() {
            Some(0) => output::talk(text),
            Some(missed) => output::talk(format_args!("{missed} more refusals were not printed\n{text}")),
            None => {}
        }
    }

    /// Whether the user, if asked, wants the certificate signed.
    fn is_wanted(&self, identity: &CaIdentity, content: &Content, forwarded: bool) -> bool {
        let Some(asking) = &self.confirm else { return true };
        let _one_at_a_time = asking.lock().unwrap_or_else(PoisonError::into_inner);
        let question = question(identity, content, forwarded);
        let refusal = match confirm::ask(&question) {
            Ok(true) => return true,
            Ok(false) => "it was not confirmed".to_owned(),
            Err(error) => line(&error),
        };
        self.grumble(format_args!(
            "{}: certificate \"{}\" not signed: {refusal}",
            Printable(identity.name.as_bytes()),
            short(&content.key_id)
        ));
        false
    }

    fn signed(
        &self,
        order: &Order,
        identity: &CaIdentity,
        content: &mut Content,
    ) -> Result<Option<Vec<u8>>, CliError> {
        let request = &order.request;
        let Some(ca) = self.cas.get(order.identity) else { return Ok(None) };
        let mut ca = ca.lock().unwrap_or_else(PoisonError::into_inner);
        let (ca, source) = &mut *ca;
        ca.algorithm = order.rsa;
        let (subject, _) = request.keys().map_err(|error| CliError::because("the request", error))?;
        let serial = Serial::Given(content.serial);
        // Before the ledger records it: a request that reaches no device was not sent to one.
        let timed = TimedRequest::of(request.clone(), source.as_mut())?;
        at_a_device(ca, |signer| {
            let refused = |signer: &dyn Signer, table: &str| {
                self.grumble(format_args!(
                    "{}: refused by template {}, enforced by {}\n{}",
                    Printable(identity.name.as_bytes()),
                    signer.template(),
                    signer.enforced_by(),
                    table.trim_end()
                ));
            };
            // The ledger has enough refusals for now, so the verdict comes first.
            if self.refusals.is_spent() {
                let verdict = signer.explain(&timed)?;
                if !verdict.is_allowed() {
                    refused(signer, &verdict.to_string());
                    return Ok(None);
                }
            }
            let ready = |_: &Content, _: &dyn Signer| -> Result<_, CliError> { Ok(timed.clone()) };
            match self.issuer.issue(signer, &subject, content, serial, ready)? {
                Tried::Signed(issued) => {
                    output::talk(format_args!(
                        "{}: signed {} certificate \"{}\" serial {} (template {} enforced by {})",
                        Printable(identity.name.as_bytes()),
                        content.kind,
                        Printable(content.key_id.as_bytes()),
                        content.serial,
                        signer.template(),
                        signer.enforced_by()
                    ));
                    Ok(Some(issued.signature().to_vec()))
                }
                Tried::Refused(timed) => {
                    self.refusals.spend();
                    if self.refusals.is_spent() {
                        self.grumble(format_args!(
                            "the ledger has {REFUSALS} refusals of the last hour: until there are fewer, more are printed here \
                             and not recorded"
                        ));
                    }
                    let table = match signer.explain(&timed) {
                        Ok(verdict) => verdict.to_string(),
                        Err(error) => format!("  the refusal cannot be explained: {}", line(&error)),
                    };
                    refused(signer, &table);
                    Ok(None)
                }
            }
        })
    }
}

/// The question for the user.
fn question(identity: &CaIdentity, content: &Content, forwarded: bool) -> String {
    let principals = match content.principals.as_slice() {
        [] => "no principals".to_owned(),
        names => short(&output::names(names)),
    };
    let ca = match identity.name.as_str() {
        "" => identity.key.fingerprint(HashAlg::Sha256).to_string(),
        name => short(name),
    };
    format!(
        "Allow CA {ca} to sign a {} certificate \"{}\" for {principals}, {}{}?",
        content.kind,
        short(&content.key_id),
        validity_in_words(content.validity),
        if forwarded { ", requested from ANOTHER HOST over a forwarded connection" } else { "" }
    )
}

/// Text that came from a client, on one line and not too long.
fn short(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    let end = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{end}", Printable(cut.as_bytes()))
}

impl Authority for Authorities {
    fn identities(&self) -> &[CaIdentity] {
        &self.identities
    }

    fn allows_forwarding(&self) -> bool {
        self.allow_forwarding
    }

    fn sign(&self, order: Order) -> Option<Vec<u8>> {
        let identity = self.identities.get(order.identity)?;
        let mut key_id = String::new();
        let signed =
            order.request.content().map_err(|error| CliError::Signer(SignerError::from(error))).and_then(
                |mut content| {
                    key_id.clone_from(&content.key_id);
                    if self.is_wanted(identity, &content, order.forwarded) {
                        self.signed(&order, identity, &mut content)
                    } else {
                        Ok(None)
                    }
                },
            );
        signed.unwrap_or_else(|error| {
            self.grumble(format_args!(
                "{}: certificate \"{}\" not signed: {}",
                Printable(identity.name.as_bytes()),
                short(&key_id),
                error.line()
            ));
            None
        })
    }

    fn refused(&self, refusal: &Refusal) {
        self.grumble(match refusal {
            // Its kind says enough; the parsing error would say nothing.
            Refusal::NotACertificate { data, .. } if data.is_known() => format!("refused: {refusal}"),
            _ => format!("refused: {}", line(refusal)),
        });
    }

    fn troubled(&self, error: &io::Error) {
        self.grumble(format_args!("a connection could not be taken: {error}"));
    }
}

/// The agent's socket, removed at the end.
struct Socket {
    path: PathBuf,
    // Removed with its contents.
    _directory: Option<TempDir>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The directory's end would remove it too; in a place that was named, this does.
        let _ = fs::remove_file(&self.path);
    }
}

/// A listener, and its socket unless another process opened it.
fn open(place: Option<&Path>) -> Result<(UnixListener, Option<Socket>), CliError> {
    if place == Some(Path::new("fd://")) {
        return handed_over().map(|listener| (listener, None));
    }
    let parent = match place {
        Some(place) => {
            place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
        }
        None => &std::env::temp_dir(),
    };
    let at = place.unwrap_or(parent);
    let failed = |source| FileError::write(at, source);
    if let Some(place) = place {
        free(place).map_err(failed)?;
    }
    // Only its user may enter, so that no one can interfere before the socket's permissions are set.
    let directory = tempfile::Builder::new()
        .prefix("sshsm-agent-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(failed)?;
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
    let socket = match place {
        Some(place) => {
            fs::rename(&path, place).map_err(failed)?;
            Socket { path: place.to_owned(), _directory: None }
        }
        None => Socket { path, _directory: Some(directory) },
    };
    Ok((listener, Some(socket)))
}

/// The socket that systemd opened (sd_listen_fds(3)).
fn handed_over() -> Result<UnixListener, CliError> {
    let failed = |why: &str| CliError::Usage(format!("no socket was handed over by systemd: {why}"));
    let mut descriptors = ListenFd::from_env();
    match descriptors.len() {
        0 => Err(failed("LISTEN_FDS and LISTEN_PID name none for this process")),
        1 => match descriptors.take_unix_listener(0) {
            Ok(Some(listener)) => Ok(listener),
            Ok(None) => Err(failed("it was taken already")),
            Err(error) => Err(failed(&format!("it is not a listening UNIX socket: {error}"))),
        },
        count => Err(failed(&format!("there are {count} of them, and one is expected"))),
    }
}

/// Whether a socket may be put at a path: nothing is there, or a socket that no one listens to any more.
fn free(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket is there"))
        }
        Ok(_) if UnixStream::connect(place).is_ok() => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there"))
        }
        Ok(_) => Ok(()),
    }
}

/// Runs the command with the agent in its environment; its exit code, or the shell's for a signal.
async fn command(
    command: &[OsString],
    socket: Option<&Socket>,
    ended: impl Future<Output = ()>,
) -> Result<ExitCode, CliError> {
    let (Some((program, arguments)), Some(socket)) = (command.split_first(), socket) else {
        return Err(CliError::Usage("a command needs a socket of its own; leave fd:// out".into()));
    };
    let mut child =
        child::command(program).args(arguments).env("SSH_AUTH_SOCK", &socket.path).spawn().map_err(
            |source| {
                CliError::content(format_args!("cannot run {}", output::shown(Path::new(program))), source)
            },
        )?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (done, mut status) = tokio::sync::oneshot::channel();
    thread::spawn(move || done.send(child.wait()));
    let mut ended = std::pin::pin!(ended);
    let status = tokio::select! {
        status = &mut status => status,
        () = &mut ended => {
            // On a terminal it was printed as well; the agent ends when the command does.
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            status.await
        }
    };
    let status =
        status.map_err(|error| CliError::Service(io::Error::other(error)))?.map_err(CliError::Service)?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
