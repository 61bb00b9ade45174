//! The timestamp authority as a service over HTTP: receives the SHA-256 of a request, and returns the time
//! and a signature over both. It never sees the request.
//!
//! | | request | response |
//! |---|---|---|
//! | `POST /v1/timestamp` | 32 bytes | `now u32 ‖ signature`, `application/octet-stream` |
//! | `POST /v1/timestamp`, `application/json` | `{"request_sha256": hex}` | `{"now", "algorithm", "signature": hex}` |
//! | `GET /v1/key` | | the public key, as a line of OpenSSH's |
//! | `GET /metrics` | | Prometheus' text format |
//!
//! An error is a status and one line of text: 400 not a digest, 401 not admitted, 403 a web page, 404, 405,
//! 408 too slow, 413 too long, 429 too many requests, 500 the key failed, 503 the clock is not synchronised
//! or cannot be asked.
//!
//! [`sshsm_simulator::http_server`] limits the time that a client may take, and the number of clients;
//! [`super::rate`] limits how often they may ask, on any path. Clients known only by their address must ask
//! for a host that belongs to this service: a web page whose name was made to resolve to this computer has
//! such an address, too. It has no token, and no certificate for its name, so it gets no further if tokens
//! are required or TLS is used.

use std::{
    fmt::Write,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, TcpListener as Socket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use sshsm_protocol::{AsymmetricAlgorithm, ssh::timestamp::message_of_digest};
use sshsm_simulator::{
    connector::{self, BindError},
    http_server::{self, Answer, BodyError, Host, Limits, Names, Peer, Timeouts},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    TimestampError, TimestampKey,
    access::Tokens,
    clock::{AskClock, ClockWatch, Synchronisation},
    now,
    rate::{Client, Limiter, Rate},
};
use crate::{
    device_key,
    notice::{Listener, Notice},
};
use sshsm_client::{Failure, Kind};

/// The time that a client may take; unlike a connector's client, it does not keep its connection for minutes.
const TIMEOUTS: Timeouts = Timeouts {
    headers: Duration::from_secs(5),
    body: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    answer: Duration::from_secs(10),
};
/// The time that a key may take, including all requests ahead in the queue. A client waits no longer either.
const SIGNING: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 1024;

/// The configuration of the service.
pub struct Settings {
    /// What signs.
    pub key: Box<dyn TimestampKey>,
    /// Whether the clock can be trusted; without it, it always can. It is asked in the background.
    pub clock: Option<AskClock>,
    /// How often one client may ask.
    pub rate: Rate,
    /// Rate for all clients together that are known only by their address; 64 times `rate` if not given.
    pub strangers: Option<Rate>,
    /// The names that requests may use besides loopback's own and the addresses that it listens on.
    pub hosts: Vec<Host>,
    /// Tokens that admit a client; if there are none, and TLS requires no certificate, every client is
    /// admitted.
    pub tokens: Option<Tokens>,
    /// TLS, and whether it lets in by certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether a client's certificate lets it in.
    pub certificates: bool,
    /// What is told of each signature, and of each that there is not.
    pub listener: Listener,
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refused.
    #[error("cannot listen on {listen}")]
    Io {
        /// The address that was asked for.
        listen: String,
        /// The system's error.
        source: io::Error,
    },
    /// Others could reach it, and nothing would prevent them from using it or an attacker from lying to them.
    #[error(
        "{0} can be reached from other computers: give the service TLS (--tls-cert, --tls-key) and a way to know its \
         clients (--tls-client-ca or --token-file), listen on 127.0.0.1, or add --allow-insecure"
    )]
    Insecure(SocketAddr),
}

impl Failure for ListenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Insecure(_) => Kind::Usage,
            Self::Io { .. } => Kind::Failed,
        }
    }
}

/// Listens on `HOST:PORT`; port 0 takes a free one. Addresses that other computers can reach are refused
/// unless `secure`.
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
/// When the key is not one that a template can contain, or the system cannot supply a thread or an address. A
/// failure of a connection ends only that connection.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?.ip();
    let service = Arc::new(Service::new(settings, address)?);
    http_server::serve(listener, service, TIMEOUTS, Limits::default(), shutdown).await;
    Ok(())
}

/// Why the service did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] TimestampError),
    /// The system refused.
    #[error("the service cannot begin")]
    Io(#[from] io::Error),
}

/// A connection, with TLS or without.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What a connection reveals about its client.
#[derive(Clone)]
struct Connected {
    address: IpAddr,
    /// SHA-256 of the certificate that it has.
    certificate: Option<[u8; 32]>,
}

impl Connected {
    const fn by_address(&self) -> Client {
        Client::Address(self.address)
    }
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
    key: Arc<Mutex<Box<dyn TimestampKey>>>,
    public_line: String,
    algorithm: AsymmetricAlgorithm,
    clock: Option<ClockWatch>,
    limiter: Limiter,
    names: Names,
    tokens: Option<Tokens>,
    tls: Option<TlsAcceptor>,
    certificates: bool,
    listener: Listener,
    metrics: Metrics,
}

impl http_server::Service for Service {
    type Stream = Stream;
    type Client = Connected;

    async fn greet(&self, stream: TcpStream, address: SocketAddr) -> Option<(Stream, Connected)> {
        self.metrics.connections.fetch_add(1, Relaxed);
        // An IPv4 client is the same whether it came to an IPv4 or an IPv6 socket.
        let address = address.ip().to_canonical();
        let Some(acceptor) = &self.tls else {
            return Some((Stream::Plain(stream), Connected { address, certificate: None }));
        };
        let shaken = Handshake { failed: Some(&self.metrics.handshakes_failed) };
        let stream = acceptor.accept(stream).await.ok()?;
        shaken.done();
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.map(|der| Sha256::digest(der).into());
        Some((Stream::Tls(Box::new(stream)), Connected { address, certificate }))
    }

    async fn respond(&self, request: Request<Incoming>, connected: Connected) -> Answer {
        if http_server::is_from_a_web_page(&request) {
            return refusal(StatusCode::FORBIDDEN, "not for web pages");
        }
        let client = match self.identify(&request, &connected) {
            Ok(client) => client,
            Err(NotLetIn::Unknown) => return self.not_let_in(&connected.by_address()),
            Err(NotLetIn::TooManyGuesses) => return self.too_often(),
            Err(NotLetIn::Name(status)) => {
                return refusal(status, "not a name of this service: see --allow-host");
            }
        };
        // On every path: what costs little costs much if it is asked for often.
        if !self.limiter.allows(&client) {
            return self.too_often();
        }
        let path = request.uri().path().to_owned();
        match (path.as_str(), request.method()) {
            ("/v1/timestamp", &Method::POST) => self.timestamp(request, &client).await,
            ("/v1/key", &Method::GET) => text(StatusCode::OK, self.public_line.clone()),
            ("/metrics", &Method::GET) => self.report(),
            ("/v1/timestamp", _) => not_allowed("POST"),
            ("/v1/key" | "/metrics", _) => not_allowed("GET"),
            _ => refusal(StatusCode::NOT_FOUND, "there is /v1/timestamp, /v1/key and /metrics"),
        }
    }

    /// A signature outlives a client that left; not for longer than a key may take.
    async fn finished(&self) {
        drop(tokio::time::timeout(SIGNING, self.key.lock()).await);
    }
}

/// Why a client is not let in.
enum NotLetIn {
    /// It shows nothing that it is known by.
    Unknown,
    /// It, or too many others, showed wrong tokens.
    TooManyGuesses,
    /// It asks for another host; the status for the answer.
    Name(StatusCode),
}

/// A handshake that counts as failed unless it succeeds.
struct Handshake<'a> {
    failed: Option<&'a AtomicU64>,
}

impl Handshake<'_> {
    fn done(mut self) {
        self.failed = None;
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if let Some(failed) = self.failed {
            failed.fetch_add(1, Relaxed);
        }
    }
}

impl Service {
    fn new(settings: Settings, address: IpAddr) -> Result<Self, ServeError> {
        let Settings { key, clock, rate, strangers, hosts, tokens, tls, certificates, listener } = settings;
        let algorithm = device_key::algorithm(key.public_key()).map_err(TimestampError::from)?;
        let public = ssh_key::PublicKey::from(key.public_key().clone());
        Ok(Self {
            public_line: public.to_openssh().map_err(|_| TimestampError::Signature)? + "\n",
            algorithm,
            key: Arc::new(Mutex::new(key)),
            clock: clock.map(ClockWatch::start).transpose()?,
            limiter: Limiter::new(rate, strangers),
            names: Names { address, allowed: hosts },
            tokens,
            tls: tls.map(TlsAcceptor::from),
            certificates,
            listener,
            metrics: Metrics::default(),
        })
    }

    /// Which client asks, if it is let in.
    fn identify(&self, request: &Request<Incoming>, connected: &Connected) -> Result<Client, NotLetIn> {
        if let (true, Some(certificate)) = (self.certificates, connected.certificate) {
            return Ok(Client::Certificate(certificate));
        }
        let Some(tokens) = &self.tokens else {
            if self.certificates {
                return Err(NotLetIn::Unknown);
            }
            // With TLS, the client has found the service's own name in its certificate.
            let named = if self.tls.is_some() { Ok(()) } else { self.names.check(request) };
            return named.map(|()| connected.by_address()).map_err(NotLetIn::Name);
        };
        let token = bearer_token(request).ok_or(NotLetIn::Unknown)?;
        let peer = Peer::from(connected.address);
        if !self.limiter.may_show_a_token(peer) {
            return Err(NotLetIn::TooManyGuesses);
        }
        let found = tokens.find(token);
        self.limiter.showed_a_token(peer, found.is_some());
        found.map(Client::Token).ok_or(NotLetIn::Unknown)
    }

    fn not_let_in(&self, stranger: &Client) -> Answer {
        if !self.limiter.allows(stranger) {
            return self.too_often();
        }
        self.count(Fate::Unknown);
        let mut answer = refusal(StatusCode::UNAUTHORIZED, "show a token or a certificate");
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        answer
    }

    async fn timestamp(&self, request: Request<Incoming>, client: &Client) -> Answer {
        let untrusted = match self.synchronisation() {
            None | Some(Synchronisation::Synchronised | Synchronisation::Unknown) => None,
            Some(Synchronisation::Unsynchronised) => Some("its clock is not synchronised"),
            Some(Synchronisation::Unanswered) => Some("it cannot find out whether its clock is synchronised"),
        };
        if let Some(why) = untrusted {
            self.count(Fate::Unsynchronised);
            return refusal(StatusCode::SERVICE_UNAVAILABLE, why);
        }
        let json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes()
                .split(|byte| *byte == b';')
                .next()
                .is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
        });
        let body = match http_server::body(request.into_body(), MAX_BODY, TIMEOUTS).await {
            Ok(body) => body,
            Err(BodyError::TooLong) => {
                return self.unread(StatusCode::PAYLOAD_TOO_LARGE, "a digest is 32 bytes");
            }
            Err(BodyError::Broken) => return self.unread(StatusCode::BAD_REQUEST, "the digest is truncated"),
            Err(BodyError::Slow) => {
                return self.unread(StatusCode::REQUEST_TIMEOUT, "the digest did not arrive in time");
            }
        };
        let digest = if json { digest_in_json(&body) } else { body.as_ref().try_into().ok() };
        let Some(digest) = digest else {
            self.count(Fate::Malformed);
            return refusal(
                StatusCode::BAD_REQUEST,
                "send SHA-256 of the request: 32 bytes, or JSON {\"request_sha256\": HEX}",
            );
        };
        let (now, signature) = match tokio::time::timeout(SIGNING, self.sign(digest)).await {
            Ok(Some(Ok(signed))) => signed,
            Ok(Some(Err(error))) => {
                self.count(Fate::Failed);
                // The problem with the key is for the operator.
                self.listener.tell(&Notice::TimestampFailed { client, error: &error });
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the key cannot sign");
            }
            Ok(None) => {
                self.count(Fate::Failed);
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the key cannot sign");
            }
            Err(_) => {
                self.count(Fate::Failed);
                self.listener.tell(&Notice::TimestampLate { client, limit: SIGNING });
                return refusal(StatusCode::SERVICE_UNAVAILABLE, "the key did not sign in time");
            }
        };
        self.count(Fate::Signed);
        self.listener.tell(&Notice::TimestampSigned { digest: &digest, now, client });
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

    /// Time and signature; `None` when signing panicked.
    async fn sign(&self, digest: [u8; 32]) -> Option<Result<(u32, Vec<u8>), TimestampError>> {
        let begin = Instant::now();
        // Only one thread waits for a key, however many clients do.
        let mut key = self.key.clone().lock_owned().await;
        let signing = tokio::task::spawn_blocking(move || {
            // Read while holding the key: a request that had to wait for it gets the time after the wait.
            let now = now()?;
            let signature = key.sign_message(&message_of_digest(digest, now))?;
            Ok((now.seconds(), signature))
        });
        let signed = signing.await.ok()?;
        let elapsed = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.signing_microseconds.fetch_add(elapsed, Relaxed);
        Some(signed)
    }

    /// `None` if it is not to be asked.
    fn synchronisation(&self) -> Option<Synchronisation> {
        self.clock.as_ref().map(ClockWatch::look)
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
    fn unread(&self, status: StatusCode, why: &'static str) -> Answer {
        self.count(Fate::Malformed);
        let mut answer = refusal(status, why);
        http_server::close_after(&mut answer);
        answer
    }

    fn report(&self) -> Answer {
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
        let synchronised = match self.synchronisation() {
            Some(Synchronisation::Synchronised) => Some(1),
            Some(Synchronisation::Unsynchronised | Synchronisation::Unanswered) => Some(0),
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

fn bearer_token<B>(request: &Request<B>) -> Option<&[u8]> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
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
