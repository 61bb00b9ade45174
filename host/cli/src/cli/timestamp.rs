//! `sshsm timestamp …`: being the timestamp authority, for one request in a file or for many over HTTP.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::ssh::{template::Template, timestamp::message};
use sshsm_simulator::http_server::Host;
use tokio::{net::TcpListener, runtime};

use super::{
    Context,
    arguments::Address,
    arguments::ReplaceOption,
    error::{CliError, FileError, Shortfall},
    notice::issuing,
    request::{self, Summary, utc},
    service, template, timestamp_source,
};
use crate::output;
use sshsm_ca::{
    device_key,
    files::{self, Kind},
    key_file,
    request::StoredRequest,
    timestamp::{
        self, SourceAddress, TimestampKey,
        access::Tokens,
        clock::{self, Synchronisation},
        rate::Rate,
        service::{ServeError, Settings, bind, serve},
        tls::{self, Clients},
    },
};
use sshsm_client::failure::{self, Failure};

/// The verbs of `timestamp`.
#[derive(Debug, Subcommand)]
pub(super) enum TimestampVerb {
    /// Sign that requests in files are made now: REQ-cert.req becomes REQ-cert.timed.req
    Sign(Sign),
    /// Check which authority signed the time of a request in a file, and which time
    Verify(Verify),
    /// Be a timestamp service over HTTP
    Serve(Serve),
}

/// Arguments of `timestamp sign`.
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The timestamp key: a file, agent:KEY.pub, or pkcs11:… on a token
    #[arg(long, value_name = "SOURCE", value_parser = Address::<SourceAddress>::default())]
    key: SourceAddress,
    /// Output file for the request with its timestamp, if there is one request
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    replace: ReplaceOption,
    /// Requests, as `request build` makes them
    #[arg(value_name = "REQUEST", required = true)]
    requests: Vec<PathBuf>,
}

/// Arguments of `timestamp verify`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("authority").required(true).args(["key", "template"]))]
pub(super) struct Verify {
    /// The public key of the timestamp authority
    #[arg(long, value_name = "FILE.pub")]
    key: Option<PathBuf>,
    /// A template file (TOML or TLV): its timestamp authority
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// A request with its timestamp
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
}

/// Arguments of `timestamp serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The timestamp key: a file, agent:KEY.pub, or pkcs11:… on a token
    #[arg(long, value_name = "SOURCE", value_parser = Address::<SourceAddress>::default())]
    key: SourceAddress,
    /// Address and port to serve; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8322")]
    listen: String,
    /// TLS: the service's certificate and its chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// TLS: the certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let in clients with a certificate of this authority, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Let in clients with a bearer token from this file, one to a line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How often one client may ask: 10/s, 30/m, 100/h
    #[arg(long, value_name = "RATE", default_value = "10/s")]
    rate: Rate,
    /// Rate for all clients together that are known only by their address; default: 64 times --rate
    #[arg(long, value_name = "RATE")]
    total_rate: Option<Rate>,
    /// Also serve clients that are known only by their address and address this program by this name; without
    /// TLS, requests for names other than localhost and IP addresses are refused, since a web page could have
    /// sent them. May be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<Host>,
    /// Sign even if the system reports that its clock is not synchronised, or cannot be asked
    #[arg(long)]
    allow_unsynchronised_clock: bool,
    /// Serve other computers without TLS, or without knowing them
    #[arg(long)]
    allow_insecure: bool,
}

impl TimestampVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Sign(sign) => sign.run(context),
            Self::Verify(verify) => verify.run(context),
            Self::Serve(serve) => serve.run(context),
        }
    }
}

/// What became of a request, as JSON shows it.
#[derive(Serialize)]
#[serde(untagged)]
enum Fate {
    Vouched {
        #[serde(serialize_with = "output::lossy")]
        request: PathBuf,
        #[serde(serialize_with = "output::lossy")]
        output: PathBuf,
        /// UNIX seconds.
        now: u32,
        authority: String,
    },
    Failed {
        #[serde(serialize_with = "output::lossy")]
        request: PathBuf,
        error: String,
    },
}

impl Sign {
    fn run(self, context: &Context) -> Result<(), CliError> {
        if self.output.is_some() && self.requests.len() > 1 {
            return Err(CliError::Usage("-o is for one request; leave it out for several".into()));
        }
        // A key that nothing could be signed with is not asked for.
        let total = self.requests.len();
        let read: Vec<_> = self.requests.iter().map(|path| (path, request::read(path))).collect();
        let readable = read.iter().any(|(_, request)| request.is_ok());
        let mut key = readable.then(|| timestamp_source::open_key(&self.key)).transpose()?;
        let (mut fates, mut kinds) = (Vec::new(), Vec::new());
        for (path, request) in read {
            let fate = match (request, &mut key) {
                (Ok(request), Some(key)) => self.vouch(path, request, key.as_mut()),
                (Ok(_), None) => continue,
                (Err(error), _) => Err(error),
            };
            fates.push(match fate {
                Ok(fate) => fate,
                // The only one that was asked for: its error is the command's.
                Err(error) if total == 1 => return Err(error),
                Err(error) => {
                    output::talk(format_args!("{} not signed: {}", output::shown(path), error.line()));
                    kinds.push(error.kind());
                    Fate::Failed { request: path.clone(), error: error.line() }
                }
            });
        }
        context.format().print(&fates, |_| String::new())?;
        match kinds.iter().max() {
            None => Ok(()),
            Some(&kind) => Err(Shortfall::NotAll { failed: kinds.len(), total, done: "signed", kind }.into()),
        }
    }

    fn vouch(
        &self,
        path: &Path,
        StoredRequest { request, .. }: StoredRequest,
        key: &mut dyn TimestampKey,
    ) -> Result<Fate, CliError> {
        let output = self.output.clone().unwrap_or_else(|| timed(path));
        files::check(&output, Kind::Request, self.replace.into())
            .map_err(|source| FileError::write(&output, source))?;
        let authority = fingerprint(key);
        let now = timestamp::now()?;
        let signature = key.sign_message(&message(&request, now))?;
        let content = StoredRequest { request, timestamp: Some((now, signature)) }.encode();
        files::write(&output, &content, Kind::Request, self.replace.into())
            .map_err(|source| FileError::write(&output, source))?;
        output::talk(format_args!(
            "{}: made at {}, signed by {authority}",
            output::shown(&output),
            utc(now.seconds())
        ));
        Ok(Fate::Vouched { request: path.to_owned(), output, now: now.seconds(), authority })
    }
}

/// `X.req` becomes `X.timed.req`.
fn timed(path: &Path) -> PathBuf {
    let base = if path.extension().is_some_and(|extension| extension == "req") {
        path.with_extension("")
    } else {
        path.to_owned()
    };
    let mut name = base.into_os_string();
    name.push(".timed.req");
    name.into()
}

fn fingerprint(key: &dyn TimestampKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

/// The signer of a request's time, as JSON shows it.
#[derive(Serialize)]
struct Verified<'a> {
    valid: bool,
    authority: String,
    /// UNIX seconds.
    now: u32,
    /// How long ago that is by the clock here, in seconds.
    age: i64,
    #[serde(flatten)]
    summary: Summary<'a>,
}

impl Verify {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let key = match (&self.key, &self.template) {
            (Some(path), _) => key_file::read_public(path)
                .map_err(|error| CliError::content("no public key of the timestamp authority", error))?,
            (None, Some(path)) => template_authority(path)?,
            (None, None) => return Err(CliError::Usage("name --key or --template".into())),
        };
        let stored = request::read(&self.request)?;
        let Some((now, signature)) = &stored.timestamp else {
            return Err(CliError::because(
                output::shown(&self.request),
                "its time is not signed yet; sign it with `sshsm timestamp sign`",
            ));
        };
        let valid = timestamp::verify(key.key_data(), &stored.request, *now, signature)
            .map_err(|error| CliError::content("no timestamp key", error))?;
        let here = timestamp::now()?;
        let verified = Verified {
            valid,
            authority: key.fingerprint(HashAlg::Sha256).to_string(),
            now: now.seconds(),
            age: i64::from(here.seconds()) - i64::from(now.seconds()),
            summary: Summary::of(&self.request, &stored)?,
        };
        context.format().print(&verified, |verified| {
            let Verified { authority, now, age, summary, .. } = verified;
            match valid {
                true => format!(
                    "made at:    {} ({age} s ago by the clock here)\nauthority:  {authority}\n{summary}",
                    utc(*now)
                ),
                false => String::new(),
            }
        })?;
        match valid {
            true => Ok(()),
            false => {
                let (request, authority) = (self.request.clone(), verified.authority);
                Err(CliError::other(NotVouched { request, authority }))
            }
        }
    }
}

/// A timestamp that another authority signed, or none.
#[derive(Debug, thiserror::Error)]
#[error("the timestamp of {} is not signed by {authority}", output::shown(request))]
struct NotVouched {
    request: PathBuf,
    authority: String,
}

impl Failure for NotVouched {
    fn kind(&self) -> failure::Kind {
        failure::Kind::Failed
    }
}

fn template_authority(path: &Path) -> Result<PublicKey, CliError> {
    let tlv = template::source::load(path)?;
    let template = Template::decode(&tlv).map_err(|error| CliError::content(output::shown(path), error))?;
    let key = &template.timestamp_key;
    let public = device_key::ssh_public(key.algorithm(), key.public())
        .map_err(|error| CliError::content(output::shown(path), error))?;
    Ok(public.into())
}

impl Serve {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let tokens = self.token_file.as_deref().map(|path| {
            let text = files::read_secret_text(path).map_err(|source| FileError::read(path, source))?;
            Tokens::parse(&text).map_err(|error| CliError::content(output::shown(path), error))
        });
        let tokens = tokens.transpose()?;
        let renewed = self.token_file.clone().zip(tokens.clone());
        let clients = match &self.tls_client_ca {
            Some(authorities) => Clients::Certified { authorities, others: tokens.is_some() },
            None => Clients::Anybody,
        };
        let tls = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let tls = tls.map(|(certificate, key)| tls::server(certificate, key, clients)).transpose();
        let tls = tls.map_err(|error| CliError::content("no TLS", error))?.map(Arc::new);
        let known = tokens.is_some() || self.tls_client_ca.is_some();
        let listener = bind(&self.listen, self.allow_insecure || (known && tls.is_some()))?;
        let key = timestamp_source::open_key(&self.key)?;
        let place = key.place();
        let watched = !self.allow_unsynchronised_clock;
        if watched {
            output::talk(match clock::ask_system() {
                Synchronisation::Synchronised => "the clock is synchronised",
                Synchronisation::Unsynchronised => {
                    "the clock is not synchronised: nothing is signed until it is"
                }
                Synchronisation::Unknown => "this system cannot tell whether its clock is synchronised",
                Synchronisation::Unanswered => {
                    "the system does not answer whether its clock is synchronised: nothing is signed until it says yes"
                }
            });
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let settings = Settings {
            key,
            clock: watched.then(|| Box::new(clock::ask_system) as clock::AskClock),
            rate: self.rate,
            strangers: self.total_rate,
            hosts: self.allow_host,
            tokens,
            tls,
            certificates: self.tls_client_ca.is_some(),
            listener: issuing(),
        };
        let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Service)?;
        runtime.block_on(async {
            let ended = service::ended().map_err(CliError::Service)?;
            #[cfg(unix)]
            tokio::spawn(renew_tokens(service::hung_up().map_err(CliError::Service)?, renewed));
            let listener = TcpListener::from_std(listener).map_err(CliError::Service)?;
            let address = listener.local_addr().map_err(CliError::Service)?;
            output::talk(format_args!("signing with {place}"));
            let listening = Listening { listening: format!("{scheme}://{address}") };
            context.format().print(&listening, |here| format!("listening on {}\n", here.listening))?;
            serve(listener, settings, ended).await.map_err(|error| match error {
                ServeError::Key(error) => error.into(),
                ServeError::Io(error) => CliError::Service(error),
            })
        })
    }
}

/// Reads the tokens again on each SIGHUP; if that fails, the old ones stay in force.
#[cfg(unix)]
async fn renew_tokens(mut signal: tokio::signal::unix::Signal, renewed: Option<(PathBuf, Tokens)>) {
    while signal.recv().await.is_some() {
        let Some((path, tokens)) = &renewed else {
            output::talk("nothing is read again: there is no --token-file");
            continue;
        };
        // A pipe would have to be written again, and would keep this task waiting until then.
        let file = match path.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(()),
            Ok(_) => Err(std::io::Error::other("only a regular file is read again")),
            Err(error) => Err(error),
        };
        let read = file
            .and_then(|()| files::read_secret_text(path))
            .map_err(|source| CliError::from(FileError::read(path, source)))
            .and_then(|text| {
                tokens.renew(&text).map_err(|error| CliError::content(output::shown(path), error))
            });
        match read {
            Ok(count) => output::talk(format_args!(
                "{} read again from {}",
                output::count(count, "token", "tokens"),
                output::shown(path)
            )),
            Err(error) => {
                output::talk(format_args!(
                    "the tokens were not read again, the old ones stay in force: {}",
                    error.line()
                ));
            }
        }
    }
}

/// The service's address, as JSON shows it.
#[derive(Serialize)]
struct Listening {
    listening: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_its_time_has_a_name_of_its_own() {
        for (request, output) in [("a-cert.req", "a-cert.timed.req"), ("d/x", "d/x.timed.req")] {
            assert_eq!(timed(Path::new(request)), Path::new(output));
        }
    }
}
