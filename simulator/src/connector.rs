//! The YubiHSM connector's HTTP service, in front of anything that answers frames: the simulator here, a
//! board on a serial port elsewhere.
//!
//! ```text
//! GET  /connector/status   six lines: status, serial, version, pid, address, port
//! POST /connector/api      one raw frame in, one raw frame out; a device's own errors are HTTP 200 too
//! ```
//!
//! Clients have hand-made read buffers and parsers, so the form of a response on the wire is guaranteed: a
//! single write, a literal `Content-Length: `, never chunked, connections kept alive. Exchanges reach the
//! device one at a time and in order; the status never waits for one.
//!
//! The service has no transport security. The secure channel inside the frames protects keys and passwords;
//! listening only on loopback keeps strangers from occupying the device.
//!
//! Requests that a web page could have sent are refused wherever the service listens: those with an `Origin`,
//! and those for a `Host` that is neither loopback, nor an address that is listened on, nor an allowed
//! [`Host`]. The latter stops DNS rebinding, where a page's own name resolves to this computer.
//! [`crate::http_server`] limits how long a client may take, and how many clients there may be.
//! of them there may be, is [`crate::http_server`]'s.

use std::{
    fmt::Display,
    io,
    net::{SocketAddr, TcpListener as Socket, ToSocketAddrs},
    sync::Arc,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, watch},
};
use uuid::Uuid;

use crate::http_server::{self, Answer, BodyError, Names, content_length};
pub use crate::http_server::{Host, HostError, Limits, Timeouts};

/// Bytes in a request body: a header, up to a whole message and the slack that the original allows.
const REQUEST: std::ops::RangeInclusive<u64> = 3..=3139;
const LONGEST: usize = 3139;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Something that answers frames: a device in this process, or the way to one.
pub trait Backend: Send + 'static {
    /// Why there was no answer. It goes to the service's log, never to the client.
    type Error: Display;

    /// Exchanges one raw frame for another. May take as long as the device computes.
    ///
    /// # Errors
    ///
    /// When the device did not answer; the client sees HTTP 500.
    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, Self::Error>;

    /// The answer to a status request while no exchange is running.
    fn status(&mut self) -> Status;

    /// Hears why an exchange failed.
    fn failed(&mut self, _error: &Self::Error) {}
}

/// A device as the status page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether a device would answer.
    pub present: bool,
    /// Its serial number, if known.
    pub serial: Option<u32>,
}

/// How the service treats its clients.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How long they may take.
    pub timeouts: Timeouts,
    /// How many there may be at once.
    pub limits: Limits,
    /// The names that requests may use besides loopback's own and the addresses that it listens on.
    pub hosts: Vec<Host>,
}

impl From<Timeouts> for Settings {
    fn from(timeouts: Timeouts) -> Self {
        Self { timeouts, ..Self::default() }
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused.
    #[error("cannot listen on {listen}")]
    Io {
        /// The address that was asked for.
        listen: String,
        /// The system's error.
        source: io::Error,
    },
    /// Others could reach it, and that was not asked for.
    #[error(
        "{0} can be reached from other computers, and the connector protocol has no transport security: listen on \
         127.0.0.1, or add --allow-remote"
    )]
    Remote(SocketAddr),
}

/// Listens on `HOST:PORT`; port 0 takes a free one. Addresses that other computers can reach are refused
/// unless allowed.
///
/// # Errors
///
/// [`BindError`]; nothing listens then.
pub fn bind(listen: &str, allow_remote: bool) -> Result<Socket, BindError> {
    let failed = |source| BindError::Io { listen: listen.to_owned(), source };
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(failed)?.collect();
    if let Some(address) = addresses.iter().find(|address| !allow_remote && !address.ip().is_loopback()) {
        return Err(BindError::Remote(*address));
    }
    let listener = Socket::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves `backend` on `listener` until `shutdown` is ready, then lets running exchanges finish.
///
/// # Errors
///
/// When the listener has no local address. A connection's own failure ends that connection only.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    mut backend: B,
    settings: impl Into<Settings>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let status = backend.status();
    let Settings { timeouts, limits, hosts } = settings.into();
    let service = Arc::new(Service {
        backend: Arc::new(Mutex::new(backend)),
        status: watch::Sender::new(status),
        address,
        names: Names { address: address.ip(), allowed: hosts },
        timeouts,
    });
    http_server::serve(listener, service, timeouts, limits, shutdown).await;
    Ok(())
}

struct Service<B> {
    backend: Arc<Mutex<B>>,
    status: watch::Sender<Status>, // as last seen
    address: SocketAddr,
    names: Names,
    timeouts: Timeouts,
}

impl<B: Backend> http_server::Service for Service<B> {
    type Stream = TcpStream;
    type Client = ();

    async fn greet(&self, stream: TcpStream, _: SocketAddr) -> Option<(TcpStream, ())> {
        Some((stream, ()))
    }

    async fn respond(&self, request: Request<Incoming>, (): ()) -> Answer {
        let id = request.headers().get(REQUEST_ID).cloned().unwrap_or_else(fresh_id);
        let mut response = match self.refusal(&request) {
            Some(status) => answer(status, Bytes::new()),
            None => match (request.uri().path(), request.method()) {
                ("/connector/status", &Method::GET) => self.report().await,
                ("/connector/status", _) => not_allowed("GET"),
                ("/connector/api", &Method::POST) => self.exchange(request).await,
                ("/connector/api", _) => not_allowed("POST"),
                _ => answer(StatusCode::NOT_FOUND, Bytes::new()),
            },
        };
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }

    /// An exchange outlives a client that left.
    async fn finished(&self) {
        drop(self.backend.lock().await);
    }
}

impl<B: Backend> Service<B> {
    /// Why a request is turned away before its content is examined.
    fn refusal(&self, request: &Request<Incoming>) -> Option<StatusCode> {
        if http_server::is_from_a_web_page(request) {
            return Some(StatusCode::FORBIDDEN);
        }
        self.names.check(request).err()
    }

    async fn report(&self) -> Answer {
        // Ask the device, unless an exchange has it: then it is there, as it was before.
        if let Ok(mut backend) = self.backend.clone().try_lock_owned()
            && let Ok(status) = tokio::task::spawn_blocking(move || backend.status()).await
        {
            self.status.send_replace(status);
        }
        let Status { present, serial } = *self.status.borrow();
        let body = format!(
            "status={}\nserial={}\nversion={}\npid={}\naddress={}\nport={}\n",
            if present { "OK" } else { "NO_DEVICE" },
            serial.map_or_else(|| "*".to_owned(), |serial| format!("{serial:010}")),
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            self.address.ip(),
            self.address.port(),
        );
        let mut response = answer(StatusCode::OK, body.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    async fn exchange(&self, request: Request<Incoming>) -> Answer {
        let stated = content_length(request.headers());
        // For chunked bodies, the length is known once they have arrived.
        let chunked = stated.is_none() && request.body().size_hint().exact().is_none();
        if !chunked && stated.is_none_or(|length| !REQUEST.contains(&length)) {
            return answer(StatusCode::BAD_REQUEST, Bytes::new());
        }
        let frame = match http_server::body(request.into_body(), LONGEST, self.timeouts).await {
            Ok(frame) => frame,
            Err(BodyError::TooLong | BodyError::Broken) => return last(StatusCode::BAD_REQUEST),
            Err(BodyError::Slow) => return last(StatusCode::REQUEST_TIMEOUT),
        };
        if !u64::try_from(frame.len()).is_ok_and(|length| REQUEST.contains(&length)) {
            return answer(StatusCode::BAD_REQUEST, Bytes::new());
        }
        // The lock moves into the thread that computes: a client that leaves does not let the next one in
        // before the device is done.
        let mut backend = self.backend.clone().lock_owned().await;
        let exchanged = tokio::task::spawn_blocking(move || {
            backend.transact(&frame).inspect_err(|error| backend.failed(error)).ok()
        });
        let Ok(Some(frame)) = exchanged.await else {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new());
        };
        let mut response = answer(StatusCode::OK, frame.into());
        let binary = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, binary);
        response
    }
}

fn answer(status: StatusCode, body: Bytes) -> Answer {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn not_allowed(method: &'static str) -> Answer {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// An answer after which the connection closes: the rest of the request is still on its way.
fn last(status: StatusCode) -> Answer {
    let mut response = answer(status, Bytes::new());
    http_server::close_after(&mut response);
    response
}

fn fresh_id() -> HeaderValue {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes); // identifies a request in a log; a repeated one does no harm
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static(""))
}
