//! The timestamp authority as a service over HTTP: takes SHA-256 of a request, returns what time it is and a signature
//! over both. It never sees the request.
//!
//! | | asked with | answered with |
//! |---|---|---|
//! | `POST /v1/timestamp` | 32 bytes | `now u32 ‖ signature`, `application/octet-stream` |
//! | `POST /v1/timestamp`, `application/json` | `{"request_sha256": hex}` | `{"now", "algorithm", "signature": hex}` |
//! | `GET /v1/key` | | the public key, as a line of OpenSSH's |
//! | `GET /metrics` | | Prometheus' text format |
//!
//! Whatever is wrong is told by status and one line of text: 400 no digest, 401 nobody known, 403 a web page, 404, 405, 408 too slow,
//! 413 too long, 429 too often, 500 the key failed, 503 the clock is not synchronised.

use std::{
    convert::Infallible,
    fmt::Write,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, TcpListener as Socket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use sshsm_protocol::{AsymmetricAlgorithm, ssh::timestamp::message_of_digest};
use sshsm_simulator::connector::{self, BindError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use super::{
    TimestampError, TimestampKey,
    access::{Client, Limiter, Rate, Tokens},
    clock::{AskClock, ClockWatch, Synchronisation},
    now,
};
use crate::{device_key, output};

/// Connections at the same time; more wait.
const CONNECTIONS: usize = 256;
/// What a client may take to say anything: its half of the TLS handshake, the headers, the body; and to say something
/// again on a connection that it keeps.
const PATIENCE: Duration = Duration::from_secs(5);
/// What answers may take to get out once the service is to end.
const GRACE: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 1024;

/// What the service is made of.
pub struct Settings {
    /// What signs.
    pub key: Box<dyn TimestampKey>,
    /// Tells whether the clock can be trusted; without it, it always can.
    pub clock: Option<AskClock>,
    /// How often one client may ask.
    pub rate: Rate,
    /// Tokens that let a client in; where there are none, and TLS asks for no certificate, everybody is let in.
    pub tokens: Option<Tokens>,
    /// TLS, and whether it lets in by certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether a client's certificate lets it in.
    pub certificates: bool,
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refused.
    #[error("cannot listen on {listen}")]
    Io {
        /// The address that was asked for.
        listen: String,
        /// What the system said.
        source: io::Error,
    },
    /// Others could reach it, and nothing would keep them from using it or from being lied to.
    #[error(
        "{0} can be reached from other computers: give the service TLS (--tls-cert, --tls-key) and a way to know its \
         clients (--tls-client-ca or --token-file), listen on 127.0.0.1, or add --allow-insecure"
    )]
    Insecure(SocketAddr),
}

/// Listens on `HOST:PORT`; port 0 takes a free one. What other computers can reach is refused unless `secure`.
///
/// # Errors
/// [`ListenError`]; nothing listens then.
pub fn bind(listen: &str, secure: bool) -> Result<Socket, ListenError> {
    connector::bind(listen, secure).map_err(|error| match error {
        BindError::Io { listen, source } => ListenError::Io { listen, source },
        BindError::Remote(address) => ListenError::Insecure(address),
    })
}

/// Serves until `shutdown` is ready, then lets running requests finish.
///
/// # Errors
/// When the key is none that a template can name. A connection's own failure ends that connection only.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TimestampError> {
    let acceptor = settings.tls.clone().map(TlsAcceptor::from);
    let service = Arc::new(Service::new(settings)?);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = async {
                let permit = connections.clone().acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        let (permit, Ok((stream, peer))) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: do not spin
            continue;
        };
        let _ = stream.set_nodelay(true);
        service.metrics.connections.fetch_add(1, Relaxed);
        let (service, acceptor, watcher) = (service.clone(), acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            let address = Client::Address(canonical(peer.ip()));
            match acceptor {
                None => {
                    let _ = watcher.watch(service.converse(stream, address.clone(), address)).await;
                }
                Some(acceptor) => match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                        let client = certificate
                            .map_or(address.clone(), |der| Client::Certificate(Sha256::digest(der).into()));
                        let _ = watcher.watch(service.converse(stream, client, address)).await;
                    }
                    _ => {
                        service.metrics.handshakes_failed.fetch_add(1, Relaxed);
                    }
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

/// An IPv4 client is the same whether it came to an IPv4 or an IPv6 socket.
const fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What became of requests for timestamps.
#[derive(Clone, Copy)]
enum Fate {
    Signed,
    Unknown,
    TooOften,
    Malformed,
    Unsynchronised,
    Failed,
}

const FATES: [&str; 6] =
    ["signed", "not_let_in", "too_often", "malformed", "clock_unsynchronised", "key_failed"];

#[derive(Default)]
struct Metrics {
    fates: [AtomicU64; FATES.len()],
    connections: AtomicU64,
    handshakes_failed: AtomicU64,
    signing_microseconds: AtomicU64,
}

struct Service {
    key: Mutex<Box<dyn TimestampKey>>,
    public_line: String,
    algorithm: AsymmetricAlgorithm,
    clock: Option<Mutex<ClockWatch>>,
    limiter: Limiter,
    tokens: Option<Tokens>,
    certificates: bool,
    metrics: Metrics,
}

type Answer = Response<Full<Bytes>>;

impl Service {
    fn new(settings: Settings) -> Result<Self, TimestampError> {
        let Settings { key, clock, rate, tokens, tls: _, certificates } = settings;
        let algorithm = device_key::algorithm(key.public_key())?;
        let public = ssh_key::PublicKey::from(key.public_key().clone());
        Ok(Self {
            public_line: public.to_openssh().map_err(|_| TimestampError::Signature)? + "\n",
            algorithm,
            key: Mutex::new(key),
            clock: clock.map(|ask| Mutex::new(ClockWatch::new(ask))),
            limiter: Limiter::new(rate),
            tokens,
            certificates,
            metrics: Metrics::default(),
        })
    }

    /// The connection of a client that is known by its certificate or only by its address.
    fn converse(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        client: Client,
        address: Client,
    ) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
        let respond = service_fn(move |request| {
            let (service, client, address) = (self.clone(), client.clone(), address.clone());
            async move { Ok::<_, Infallible>(service.respond(request, client, address).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), respond)
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>, client: Client, address: Client) -> Answer {
        if request.headers().contains_key(ORIGIN) {
            return refusal(StatusCode::FORBIDDEN, "not for web pages");
        }
        let Some(client) = self.identify(&request, client) else {
            // Whoever tries tokens is slowed down, too.
            if !self.limiter.allows(&address) {
                return self.too_often();
            }
            self.count(Fate::Unknown);
            let mut answer = refusal(StatusCode::UNAUTHORIZED, "show a token or a certificate");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        };
        let path = request.uri().path().to_owned();
        match (path.as_str(), request.method()) {
            ("/v1/timestamp", &Method::POST) => self.timestamp(request, &client).await,
            ("/v1/key", &Method::GET) => text(StatusCode::OK, self.public_line.clone()),
            ("/metrics", &Method::GET) => self.report().await,
            ("/v1/timestamp", _) => not_allowed("POST"),
            ("/v1/key" | "/metrics", _) => not_allowed("GET"),
            _ => refusal(StatusCode::NOT_FOUND, "there is /v1/timestamp, /v1/key and /metrics"),
        }
    }

    /// Who asks, if that one is let in.
    fn identify(&self, request: &Request<Incoming>, client: Client) -> Option<Client> {
        if self.certificates && matches!(client, Client::Certificate(_)) {
            return Some(client);
        }
        let Some(tokens) = &self.tokens else {
            return (!self.certificates).then_some(client);
        };
        let header = request.headers().get(AUTHORIZATION)?.as_bytes();
        let (scheme, token) = header.split_at_checked(7)?;
        let line =
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| tokens.find(token.trim_ascii())).flatten()?;
        Some(Client::Token(line))
    }

    async fn timestamp(self: Arc<Self>, request: Request<Incoming>, client: &Client) -> Answer {
        if !self.limiter.allows(client) {
            return self.too_often();
        }
        let json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes()
                .split(|byte| *byte == b';')
                .next()
                .is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
        });
        let body = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return self.malformed(StatusCode::PAYLOAD_TOO_LARGE, "a digest is 32 bytes"),
            Err(_) => return self.malformed(StatusCode::REQUEST_TIMEOUT, "the digest did not come in time"),
        };
        let digest = if json { digest_in_json(&body) } else { body.as_ref().try_into().ok() };
        let Some(digest) = digest else {
            return self.malformed(
                StatusCode::BAD_REQUEST,
                "send SHA-256 of the request: 32 bytes, or JSON {\"request_sha256\": HEX}",
            );
        };
        let service = self.clone();
        let signed = tokio::task::spawn_blocking(move || service.sign(&digest)).await;
        let (now, signature) = match signed {
            Ok(Ok(signed)) => signed,
            Ok(Err(None)) => {
                self.count(Fate::Unsynchronised);
                return refusal(StatusCode::SERVICE_UNAVAILABLE, "its clock is not synchronised");
            }
            Ok(Err(Some(error))) => {
                self.count(Fate::Failed);
                // What is wrong with the key is the operator's to know.
                output::talk(format_args!("no timestamp for {client}: {}", line(&error)));
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the key cannot sign");
            }
            Err(_) => {
                self.count(Fate::Failed);
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the key cannot sign");
            }
        };
        self.count(Fate::Signed);
        output::talk(format_args!("signed {} at {now} for {client}", hex(&digest)));
        if json {
            let algorithm = self.algorithm.algorithm().name();
            let body =
                serde_json::json!({ "now": now, "algorithm": algorithm, "signature": hex(&signature) });
            return answer(StatusCode::OK, "application/json", format!("{body}\n"));
        }
        answer(
            StatusCode::OK,
            "application/octet-stream",
            [&now.to_be_bytes(), signature.as_slice()].concat(),
        )
    }

    /// Time and signature; the error is `None` when the clock is not to be trusted.
    fn sign(&self, digest: &[u8; 32]) -> Result<(u32, Vec<u8>), Option<TimestampError>> {
        if self.synchronisation() == Some(Synchronisation::Unsynchronised) {
            return Err(None);
        }
        let begin = Instant::now();
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        // Read with the key in hand: who had to wait for it is told the time after the wait.
        let now = now().map_err(Some)?;
        let signature = key.sign_message(&message_of_digest(*digest, now)).map_err(Some)?;
        let elapsed = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.signing_microseconds.fetch_add(elapsed, Relaxed);
        Ok((now.seconds(), signature))
    }

    /// `None` where nobody cares.
    fn synchronisation(&self) -> Option<Synchronisation> {
        self.clock.as_ref().map(|clock| clock.lock().unwrap_or_else(PoisonError::into_inner).look())
    }

    fn count(&self, fate: Fate) {
        if let Some(counter) = self.metrics.fates.get(fate as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn too_often(&self) -> Answer {
        self.count(Fate::TooOften);
        let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, "too many requests");
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    }

    /// The rest of the request may be on its way still, so the connection ends.
    fn malformed(&self, status: StatusCode, why: &'static str) -> Answer {
        self.count(Fate::Malformed);
        let mut answer = refusal(status, why);
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    async fn report(self: Arc<Self>) -> Answer {
        let service = self.clone();
        let clock = tokio::task::spawn_blocking(move || service.synchronisation()).await.ok().flatten();
        let Metrics { fates, connections, handshakes_failed, signing_microseconds } = &self.metrics;
        let mut page = String::from(
            "# HELP sshsm_timestamp_requests_total Requests for timestamps, by what became of them.\n\
             # TYPE sshsm_timestamp_requests_total counter\n",
        );
        for (name, count) in FATES.iter().zip(fates) {
            let _ =
                writeln!(page, "sshsm_timestamp_requests_total{{result=\"{name}\"}} {}", count.load(Relaxed));
        }
        let micros = signing_microseconds.load(Relaxed);
        let _ = write!(
            page,
            "# HELP sshsm_timestamp_signing_seconds_total Time spent on signatures.\n\
             # TYPE sshsm_timestamp_signing_seconds_total counter\n\
             sshsm_timestamp_signing_seconds_total {}.{:06}\n\
             # HELP sshsm_timestamp_connections_total Connections accepted.\n\
             # TYPE sshsm_timestamp_connections_total counter\n\
             sshsm_timestamp_connections_total {}\n\
             # HELP sshsm_timestamp_tls_handshakes_failed_total Connections that came to no TLS session.\n\
             # TYPE sshsm_timestamp_tls_handshakes_failed_total counter\n\
             sshsm_timestamp_tls_handshakes_failed_total {}\n",
            micros / 1_000_000,
            micros % 1_000_000,
            connections.load(Relaxed),
            handshakes_failed.load(Relaxed),
        );
        let synchronised = match clock {
            Some(Synchronisation::Synchronised) => Some(1),
            Some(Synchronisation::Unsynchronised) => Some(0),
            Some(Synchronisation::Unknown) | None => None,
        };
        if let Some(value) = synchronised {
            let _ = write!(
                page,
                "# HELP sshsm_timestamp_clock_synchronised Whether the system's clock follows another one.\n\
                 # TYPE sshsm_timestamp_clock_synchronised gauge\nsshsm_timestamp_clock_synchronised {value}\n"
            );
        }
        answer(StatusCode::OK, "text/plain; version=0.0.4", page)
    }
}

fn digest_in_json(body: &[u8]) -> Option<[u8; 32]> {
    #[derive(serde::Deserialize)]
    struct Asked {
        request_sha256: String,
    }
    let Asked { request_sha256 } = serde_json::from_slice(body).ok()?;
    let mut digest = [0; 32];
    if request_sha256.len() != 64 || !request_sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(request_sha256.get(place..place + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn line(error: &TimestampError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

fn refusal(status: StatusCode, why: &'static str) -> Answer {
    text(status, format!("{why}\n"))
}

fn not_allowed(method: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    answer
}
