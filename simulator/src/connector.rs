//! The YubiHSM connector's HTTP service, in front of anything that answers frames: the simulator here, a
//! board on a serial port elsewhere.
//!
//! ```text
//! GET  /connector/status   six lines: status, serial, version, pid, address, port
//! POST /connector/api      one raw frame in, one raw frame out; a device's own errors are HTTP 200 too
//! ```
//!
//! Clients have read buffers and parsers of their own making, so what a response looks like on the wire is
//! a promise: one write each, a literal `Content-Length: `, never chunked, connections kept alive. Exchanges
//! reach the device one at a time and in order; the status never waits for one.
//!
//! The service has no transport security. The secure channel inside the frames is what protects keys and
//! passwords; listening on loopback is what keeps strangers from occupying the device.
//!
//! Requests that a web page could have sent are refused: those with an `Origin`, wherever the service listens, and, on
//! loopback, those for a `Host` that is neither loopback nor a [`Host`] that was allowed. The latter is what stops DNS
//! rebinding, where a page's own name comes to mean 127.0.0.1.

use std::{
    convert::Infallible,
    fmt::Display,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Socket, ToSocketAddrs},
    pin::Pin,
    str::FromStr,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{Mutex, Semaphore, watch},
    time::Instant,
};
use uuid::Uuid;

/// Bytes in a request body: a header, up to a whole message and the slack that the original allows.
const REQUEST: std::ops::RangeInclusive<u64> = 3..=3139;
/// Connections served at once; more wait for one to end.
const CONNECTIONS: usize = 256;
/// Time that clients have to take their last answer after the shutdown began.
const GRACE: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Something that answers frames: a device in this process, or the way to one.
pub trait Backend: Send + 'static {
    /// Why no answer came. It goes to the log of whoever runs the service, never to the client.
    type Error: Display;

    /// Exchanges one raw frame for another. May take as long as the device computes.
    ///
    /// # Errors
    ///
    /// When the device did not answer; the client sees HTTP 500.
    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, Self::Error>;

    /// What a status request is told while no exchange runs.
    fn status(&mut self) -> Status;

    /// Hears why an exchange failed.
    fn failed(&mut self, _error: &Self::Error) {}
}

/// A device as the status page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Whether a device would answer.
    pub present: bool,
    /// Its serial number, where it is known.
    pub serial: Option<u32>,
}

/// How long a client may take. A device may take as long as it needs.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its headers: 5 s.
    pub headers: Duration,
    /// From there to the end of its body: 5 s.
    pub body: Duration,
    /// Silence on a connection between requests, or before the first: 10 min.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { headers: seconds(5), body: seconds(5), idle: seconds(600) }
    }
}

/// How the service treats its clients.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How long they may take.
    pub timeouts: Timeouts,
    /// The names besides loopback's own that requests may be for. With one of them a service on another address looks at
    /// names, too.
    pub hosts: Vec<Host>,
}

impl From<Timeouts> for Settings {
    fn from(timeouts: Timeouts) -> Self {
        Self { timeouts, hosts: Vec::new() }
    }
}

/// A name or an IP address by which clients reach a service: what stands in the URL between scheme and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

/// Why a text is not a [`Host`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host: give a name such as hsm.example.com, or an IP address, without scheme, port and path"
)]
pub struct HostError(String);

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Ok(Self(format!("[{address}]")));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.split('.').all(label) {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(HostError(text.to_owned()))
        }
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
        /// What the system said.
        source: io::Error,
    },
    /// Others could reach it, and that was not asked for.
    #[error(
        "{0} can be reached from other computers, and the connector protocol has no transport security: listen on \
         127.0.0.1, or add --allow-remote"
    )]
    Remote(SocketAddr),
}

/// Listens on `HOST:PORT`; port 0 takes a free one. What other computers can reach is refused unless allowed.
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
    let service = Arc::new(Service {
        backend: Arc::new(Mutex::new(backend)),
        status: watch::Sender::new(status),
        address,
        settings: settings.into(),
    });
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
        let (permit, Ok((stream, _))) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: do not spin
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let connection = service.clone().converse(reader, writer, &graceful);
        tokio::spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    let device_done = async || drop(service.backend.lock().await);
    let impatience = async {
        tokio::time::sleep(GRACE).await;
        device_done().await;
        tokio::time::sleep(Duration::from_secs(1)).await; // for the answer to get out
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = impatience => {}
    }
    device_done().await; // an exchange outlives a client that left
    Ok(())
}

struct Service<B> {
    backend: Arc<Mutex<B>>,
    status: watch::Sender<Status>, // as last seen
    address: SocketAddr,
    settings: Settings,
}

impl<B: Backend> Service<B> {
    /// Serves one connection until the client leaves, is too slow, or the shutdown begins.
    fn converse(
        self: Arc<Self>,
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
        graceful: &GracefulShutdown,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Timeouts { headers, idle, .. } = self.settings.timeouts;
        let (pace, deadline) = Pace::new(idle, headers);
        let reader = Paced { reader, pace: pace.clone() };
        let respond = service_fn(move |request| {
            let (service, pace) = (self.clone(), pace.clone());
            async move {
                pace.request();
                let length = content_length(&request).unwrap_or(0);
                let response = service.respond(request).await;
                pace.answered(length);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .title_case_headers(true)
            .writev(false) // head and body in one buffer, so in one write
            .half_close(true) // a client may be done sending before it has read
            .max_buf_size(16 * 1024)
            .header_read_timeout(None) // it would run between requests as well: see `Pace`
            .serve_connection(TokioIo::new(tokio::io::join(reader, writer)), respond);
        let connection = graceful.watch(connection);
        async move {
            tokio::select! {
                _ = connection => {}
                () = missed(deadline) => {}
            }
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
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

    /// Why a request is turned away before anybody asks what it wants.
    fn refusal(&self, request: &Request<Incoming>) -> Option<StatusCode> {
        // No client of the protocol sends one, and every browser does when a page posts something.
        if request.headers().contains_key(ORIGIN) {
            return Some(StatusCode::FORBIDDEN);
        }
        if !self.address.ip().is_loopback() && self.settings.hosts.is_empty() {
            return None;
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() || (host.is_none() && request.version() > Version::HTTP_10) {
            return Some(StatusCode::BAD_REQUEST);
        }
        let ours = |host: &str| ours(host, self.address.ip(), &self.settings.hosts);
        let ours = host.is_none_or(|host| host.to_str().is_ok_and(ours))
            && request.uri().authority().is_none_or(|authority| ours(authority.as_str()));
        (!ours).then_some(StatusCode::FORBIDDEN)
    }

    async fn report(&self) -> Response<Full<Bytes>> {
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

    async fn exchange(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(length) = content_length(&request).filter(|length| REQUEST.contains(length)) else {
            return answer(StatusCode::BAD_REQUEST, Bytes::new());
        };
        let body = Limited::new(request.into_body(), usize::try_from(length).unwrap_or(0)).collect();
        let frame = match tokio::time::timeout(self.settings.timeouts.body, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return last(StatusCode::BAD_REQUEST),
            Err(_) => return last(StatusCode::REQUEST_TIMEOUT),
        };
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

fn content_length(request: &Request<Incoming>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn answer(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn not_allowed(method: &'static str) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// An answer after which the connection closes: the rest of the request is still on its way.
fn last(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = answer(status, Bytes::new());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn fresh_id() -> HeaderValue {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes); // names a request in a log; a repeated one harms nobody
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static(""))
}

/// Whether a `Host` names this machine's loopback, the address that is listened on, or an allowed host, and not a
/// stranger's name that resolves to it.
///
/// A service on every address is asked for by whichever it has: there an IP address will do, since none can be rebound.
fn ours(host: &str, address: IpAddr, allowed: &[Host]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = |name: &str| match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    };
    if let Some(asked) = literal(name) {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return loopback.contains(&asked)
            || asked == address
            || address.is_unspecified()
            || allowed.iter().any(|allowed| literal(&allowed.0) == Some(asked));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|allowed| name.eq_ignore_ascii_case(&allowed.0))
}

/// When a connection's client must have sent something. hyper's own limit on headers also runs between
/// requests, where clients keep a connection for minutes; this one tells the two apart. A client that once sent
/// bytes behind a whole request has begun the next one, and no pause of its own is ever taken for idleness again.
#[derive(Clone)]
struct Pace {
    deadline: watch::Sender<Deadline>,
    progress: Arc<std::sync::Mutex<Progress>>,
    idle: Duration,
    headers: Duration,
}

#[derive(Clone, Copy)]
enum Deadline {
    Idle(Instant),
    Headers(Instant),
    None, // a request is being answered
}

/// How much of a request has come.
#[derive(Default)]
struct Progress {
    received: u64,
    /// Bytes up to the empty line that ends the headers.
    head: Option<u64>,
    line_is_empty: bool,
}

impl Progress {
    fn count(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.received += 1;
            match byte {
                b'\n' if self.line_is_empty && self.head.is_none() => self.head = Some(self.received),
                b'\n' => self.line_is_empty = true,
                b'\r' => {}
                _ => self.line_is_empty = false,
            }
        }
    }
}

impl Pace {
    fn new(idle: Duration, headers: Duration) -> (Self, watch::Receiver<Deadline>) {
        let (deadline, receiver) = watch::channel(Deadline::Idle(Instant::now() + idle));
        (Self { deadline, progress: Arc::default(), idle, headers }, receiver)
    }

    fn received(&self, bytes: &[u8]) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).count(bytes);
        self.deadline.send_if_modified(|deadline| {
            let begins = matches!(deadline, Deadline::Idle(_));
            if begins {
                *deadline = Deadline::Headers(Instant::now() + self.headers);
            }
            begins
        });
    }

    fn request(&self) {
        self.deadline.send_replace(Deadline::None);
    }

    /// A request whose body has `length` bytes was answered.
    fn answered(&self, length: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = progress.head.is_some_and(|head| progress.received <= head.saturating_add(length));
        let now = Instant::now();
        self.deadline.send_replace(if alone {
            *progress = Progress::default();
            Deadline::Idle(now + self.idle)
        } else {
            Deadline::Headers(now + self.headers)
        });
    }
}

/// Ready when a deadline has passed.
async fn missed(mut deadline: watch::Receiver<Deadline>) {
    loop {
        let until = *deadline.borrow_and_update();
        match until {
            Deadline::Idle(until) | Deadline::Headers(until) => tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = deadline.changed() => if changed.is_err() { return },
            },
            Deadline::None => {
                if deadline.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The reading half of a connection, telling its [`Pace`] when bytes arrive.
struct Paced<R> {
    reader: R,
    pace: Pace,
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.reader).poll_read(cx, buffer);
        match buffer.filled().get(before..) {
            None | Some([]) => {}
            Some(bytes) => self.pace.received(bytes),
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    struct Mirror;

    impl Backend for Mirror {
        type Error = Infallible;

        fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, Infallible> {
            Ok(request.to_vec())
        }

        fn status(&mut self) -> Status {
            Status { present: true, serial: None }
        }
    }

    /// Notes the length of each write.
    struct Noted(DuplexStream, Arc<std::sync::Mutex<Vec<usize>>>);

    impl AsyncWrite for Noted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.lock().unwrap().push(bytes.len());
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }

        fn is_write_vectored(&self) -> bool {
            true // as a socket is
        }
    }

    #[tokio::test]
    async fn every_response_is_one_write() {
        let service = Arc::new(Service {
            backend: Arc::new(Mutex::new(Mirror)),
            status: watch::Sender::new(Mirror.status()),
            address: ([127, 0, 0, 1], 1).into(),
            settings: Settings::default(),
        });
        let (mut client, reader) = tokio::io::duplex(65536);
        let (writer, mut answers) = tokio::io::duplex(65536);
        let writes = Arc::default();
        let graceful = GracefulShutdown::new();
        tokio::spawn(service.converse(reader, Noted(writer, Arc::clone(&writes)), &graceful));

        let mut requests = vec![b"GET /connector/status HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()];
        for length in [3, 1000, 3139] {
            let head = format!(
                "POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            );
            requests.push([head.as_bytes(), &vec![0; length]].concat());
        }
        requests.push(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec());
        for (done, request) in requests.iter().enumerate() {
            client.write_all(request).await.unwrap();
            let mut response = vec![0; 65536];
            let length = answers.read(&mut response).await.unwrap();
            let writes = writes.lock().unwrap();
            assert_eq!(writes.len(), done + 1, "one write for each response");
            assert_eq!(writes.last(), Some(&length), "and all of it in that");
            let head = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let stated = String::from_utf8(response[..head].to_vec()).unwrap();
            assert!(stated.contains(&format!("\r\nContent-Length: {}\r\n", length - head)), "{stated}");
        }
    }
}
