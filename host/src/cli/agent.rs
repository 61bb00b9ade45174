//! `sshsm agent`: CA keys for `ssh-keygen -Us`, and for nothing else.
//!
//! The socket lies in a directory of its own that only its user can enter, or takes the place that `-a` names from there;
//! nobody else could ever open it. It goes when the agent ends.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use ssh_agent_lib::agent::{listen, service_binding};
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::ssh::{Printable, request::Request, signature::SignatureAlgorithm};
use tempfile::TempDir;
use tokio::runtime;

use super::{
    Context,
    arguments::CaName,
    error::{CliError, FileError, line},
    recorded::{self, Tried},
    service,
    signing::{Ca, SignerChoice},
};
use crate::{
    agent::{Authority, CaAgent, CaIdentity, Data, Refusal},
    ledger::{Recorder, Serial},
    output,
    request::{Content, SigningRequest},
    signer::{Signer, TimedRequest},
    timestamp::TimestampSource,
};

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(flatten)]
    signer: SignerChoice,
    /// Where the socket is to be; fd:// takes the one that systemd opened. Without it, in a new directory
    #[arg(short = 'a', long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Serve this command only, and end with it and its exit code
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
}

/// What the agent is, as JSON shows it.
#[derive(Serialize)]
struct Report {
    socket: Option<String>,
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
            let serving = listen(listener, agent.clone());
            if self.command.is_empty() {
                report(context, agent_identities(&agent), socket.as_ref())?;
                return tokio::select! {
                    served = serving => Err(CliError::Service(io::Error::other(served.err().map_or_else(
                        || "nobody listens any more".to_owned(),
                        |error| error.to_string(),
                    )))),
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
            recorder: Recorder::new(context.ledger()?),
            identities: Vec::new(),
            cas: Vec::new(),
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
    let key = |ca: &CaIdentity| {
        let mut key = PublicKey::from(ca.key.clone());
        key.set_comment(ca.name.as_str());
        Key {
            name: ca.name.clone(),
            public_key: key.to_openssh().unwrap_or_default(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        }
    };
    let report = Report {
        socket: socket.map(|socket| socket.path.display().to_string()),
        keys: identities.iter().map(key).collect(),
    };
    context.format().print(&report, |report| {
        let socket = report.socket.as_deref().map(|socket| {
            let quoted = socket.replace('\'', "'\\''");
            format!("SSH_AUTH_SOCK='{quoted}'; export SSH_AUTH_SOCK;\n")
        });
        socket.unwrap_or_default()
    })?;
    for key in &report.keys {
        output::talk(format_args!("serving CA {} {}", Printable(key.name.as_bytes()), key.fingerprint));
    }
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
            Err(error @ CliError::Transport(_)) => failed.push(error),
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

/// The CAs that the agent has sign. Each signs one certificate at a time.
struct Authorities {
    recorder: Recorder,
    identities: Vec<CaIdentity>,
    cas: Vec<Mutex<(Ca, Box<dyn TimestampSource + Send>)>>,
}

impl Authorities {
    fn signed(
        &self,
        index: usize,
        identity: &CaIdentity,
        request: &SigningRequest,
        rsa: SignatureAlgorithm,
    ) -> Result<Option<Vec<u8>>, CliError> {
        let Some(ca) = self.cas.get(index) else { return Ok(None) };
        let mut ca = ca.lock().unwrap_or_else(PoisonError::into_inner);
        let (ca, source) = &mut *ca;
        ca.algorithm = matches!(identity.key, ssh_key::public::KeyData::Rsa(_)).then_some(rsa);
        let mut content = request.content().map_err(|error| CliError::content("the request", error))?;
        let (subject, _) = request.keys().map_err(|error| CliError::content("the request", error))?;
        let serial = Serial::Given(content.serial);
        at_a_device(ca, |signer| {
            let timed = |_: &Content, _: &dyn Signer| Ok(TimedRequest::of(request.clone(), source.as_mut())?);
            match recorded::sign(&self.recorder, signer, &subject, &mut content, serial, timed)? {
                Tried::Signed(certificate) => {
                    output::talk(format_args!(
                        "{}: signed {} certificate \"{}\" serial {} (template {} enforced by {})",
                        Printable(identity.name.as_bytes()),
                        content.kind,
                        Printable(content.key_id.as_bytes()),
                        content.serial,
                        signer.template(),
                        signer.enforced_by()
                    ));
                    Ok(signature(&certificate, request))
                }
                Tried::Refused(timed) => {
                    let table = match signer.explain(&timed) {
                        Ok(verdict) => verdict.to_string(),
                        Err(error) => format!("  the refusal cannot be explained: {}", line(&error)),
                    };
                    output::talk(format_args!(
                        "{}: refused by template {}, enforced by {}\n{}",
                        Printable(identity.name.as_bytes()),
                        signer.template(),
                        signer.enforced_by(),
                        table.trim_end()
                    ));
                    Ok(None)
                }
            }
        })
    }
}

/// What stands behind the request in the line of a finished certificate: `string algorithm ‖ string signature`.
fn signature(certificate: &str, request: &SigningRequest) -> Option<Vec<u8>> {
    let blob = crate::request::decode_base64(certificate.split_whitespace().nth(1)?).ok()?;
    let (_, field) = blob.split_at_checked(request.as_bytes().len())?;
    Some(field.get(4..)?.to_vec())
}

impl Authority for Authorities {
    fn identities(&self) -> &[CaIdentity] {
        &self.identities
    }

    fn sign(&self, index: usize, request: SigningRequest, rsa: SignatureAlgorithm) -> Option<Vec<u8>> {
        let identity = self.identities.get(index)?;
        self.signed(index, identity, &request, rsa).unwrap_or_else(|error| {
            let key_id =
                Request::decode(request.as_bytes()).map(|request| request.key_id).unwrap_or_default();
            output::talk(format_args!(
                "{}: certificate \"{}\" not signed: {}",
                Printable(identity.name.as_bytes()),
                Printable(key_id),
                error.line()
            ));
            None
        })
    }

    fn refused(&self, refusal: &Refusal) {
        output::talk(match refusal {
            // It may have been meant to be one.
            Refusal::NotACertificate { data: Data::Unknown, .. } => format!("refused: {}", line(refusal)),
            _ => format!("refused: {refusal}"),
        });
    }
}

/// The agent's socket, removed at the end.
struct Socket {
    path: PathBuf,
    // Removed with what is in it.
    _directory: Option<TempDir>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The directory's end would remove it too; in a place that was named, this does.
        let _ = fs::remove_file(&self.path);
    }
}

/// A listener, and its socket unless somebody else opened it.
fn open(place: Option<&Path>) -> Result<(UnixListener, Option<Socket>), CliError> {
    if place == Some(Path::new("fd://")) {
        let failed = |error: &dyn std::fmt::Display| {
            CliError::Usage(format!("no socket was handed over by systemd: {error}"))
        };
        let binding: service_binding::Binding = "fd://".parse().map_err(|error| failed(&error))?;
        return match binding.try_into() {
            Ok(service_binding::Listener::Unix(listener)) => Ok((listener, None)),
            Ok(_) => Err(failed(&"it is none of this system's own")),
            Err::<_, io::Error>(error) => Err(failed(&error)),
        };
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
    // Only its user may enter, so that nobody comes between the socket and its permissions.
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

/// Whether a socket may be put at a place: nothing is there, or one that nobody listens to any more.
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
        Command::new(program).args(arguments).env("SSH_AUTH_SOCK", &socket.path).spawn().map_err(
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
            // On a terminal it was told as well; the agent ends when the command does.
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
