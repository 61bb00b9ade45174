//! The basis of every HTTP service of sshsm: how long a client may take, and which requests a web page sent.
//!
//! Every step of a client has a deadline: the TLS handshake, the headers, the body, the silence between two
//! requests and the reading of an answer ([`Timeouts`]). Only the service's own work has none here.
//!
//! Connections are limited in total and for each [`Peer`] ([`Limits`]). If there is no room, a new connection
//! replaces the one that has kept the service waiting longest, of the peer that has the most. A connection
//! that waits for its own client therefore never keeps another client out.
//!
//! [`is_from_a_web_page`] recognises requests that a web page may have sent; if a page's own name was made to
//! resolve to this computer (DNS rebinding), [`Names`] does.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

/// Time that clients have to take their last answer after the shutdown began.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes of a request's headers, and of data read ahead.
const BUFFER: usize = 16 * 1024;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a client may take. The service may take as long as it needs.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a request, or of a TLS handshake, to the end of its headers: 5 s.
    pub headers: Duration,
    /// From there to the end of its body: 5 s.
    pub body: Duration,
    /// Silence on a connection between requests, or before the first: 10 min.
    pub idle: Duration,
    /// From the first byte of an answer until the client has read everything: 10 s.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { headers: seconds(5), body: seconds(5), idle: seconds(600), answer: seconds(10) }
    }
}

/// How many connections there are at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all: 256.
    pub connections: usize,
    /// Of one [`Peer`]: 64.
    pub per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, per_peer: 64 }
    }
}

/// The origin of clients that may all be one: an IPv4 address, or the 64-bit prefix that an IPv6 network is
/// given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// An address: IPv4, or the loopback of IPv6.
    Address(IpAddr),
    /// The first 64 bits of an IPv6 address. One host has all the addresses under them.
    Network(u64),
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::Network(a << 48 | b << 32 | c << 16 | d)
            }
            address => Self::Address(address),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Network(prefix) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*prefix) << 64)),
        }
    }
}

/// An HTTP service.
pub trait Service: Send + Sync + 'static {
    /// The transport of the requests: a socket, or TLS on it.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What is known about a client before its first request.
    type Client: Clone + Send + Sync + 'static;

    /// Greets a client: does its TLS handshake, if there is one. `None` ends the connection.
    fn greet(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = Option<(Self::Stream, Self::Client)>> + Send;

    /// Answers a request. The body is read with [`body`], which enforces the deadline.
    fn respond(
        &self,
        request: Request<Incoming>,
        client: Self::Client,
    ) -> impl Future<Output = Answer> + Send;

    /// Ready when nothing runs that outlives a client that left.
    fn finished(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The answer of a service.
pub type Answer = Response<Full<Bytes>>;

/// Serves until `shutdown` is ready, then lets running requests finish.
///
/// A connection's own failure, or that of accepting one, ends nothing else.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    timeouts: Timeouts,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let room = Arc::new(Room { limits, present: Mutex::default() });
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: do not spin
            continue;
        };
        let _ = stream.set_nodelay(true);
        let pace = Pace::new(timeouts);
        let Some(place) = room.admit(address.ip().into(), &pace) else { continue };
        let (service, watcher) = (service.clone(), graceful.watcher());
        tokio::spawn(async move {
            let greeted = tokio::select! {
                greeted = service.greet(stream, address) => greeted,
                () = pace.missed() => None,
            };
            if let Some((stream, client)) = greeted {
                pace.greeted();
                tokio::select! {
                    _ = watcher.watch(converse(service, stream, client, pace.clone())) => {}
                    () = pace.missed() => {}
                }
            }
            drop(place);
        });
    }
    drop(listener);
    let impatience = async {
        tokio::time::sleep(GRACE).await;
        service.finished().await;
        tokio::time::sleep(Duration::from_secs(1)).await; // for the answer to get out
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = impatience => {}
    }
    service.finished().await;
}

/// The requests and answers of one connection.
fn converse<S: Service>(
    service: Arc<S>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: S::Client,
    pace: Pace,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
    let stream = Paced { stream, pace: pace.clone() };
    let respond = service_fn(move |request: Request<Incoming>| {
        let (service, client, pace) = (service.clone(), client.clone(), pace.clone());
        async move {
            pace.request();
            let length = content_length(request.headers()).unwrap_or(0);
            let chunked = request.headers().contains_key(TRANSFER_ENCODING);
            let mut answer = service.respond(request, client).await;
            if chunked {
                // The end of such a body on the wire is not known here, nor is whether the next request has
                // begun.
                close_after(&mut answer);
            }
            pace.answered(length);
            Ok::<_, Infallible>(answer)
        }
    });
    http1::Builder::new()
        .title_case_headers(true)
        .writev(false) // head and body in one buffer, so in one write
        .half_close(true) // a client may be done sending before it has read
        .max_buf_size(BUFFER)
        .header_read_timeout(None) // it would run between requests as well: see `Pace`
        .serve_connection(TokioIo::new(stream), respond)
}

/// Makes an answer the last one on its connection: the rest of the request may be on its way still.
pub fn close_after(answer: &mut Answer) {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The body's length according to the headers.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a request has no body that can be used. The connection should end: see [`close_after`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It has more bytes than it may have.
    TooLong,
    /// It ended early, or its encoding is wrong.
    Broken,
    /// It did not arrive in time.
    Slow,
}

/// The body of a request, with a stated length or in chunks, of at most `limit` bytes.
///
/// # Errors
/// [`BodyError`].
pub async fn body(body: Incoming, limit: usize, timeouts: Timeouts) -> Result<Bytes, BodyError> {
    match tokio::time::timeout(timeouts.body, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::Slow),
    }
}

/// Whether a browser says that a page sent the request. No client of these services says so.
#[must_use]
pub fn is_from_a_web_page<B>(request: &Request<B>) -> bool {
    let by_hand = |site: &HeaderValue| site == "none"; // typed by the user
    request.headers().contains_key(ORIGIN) || !request.headers().get_all(SEC_FETCH_SITE).iter().all(by_hand)
}

/// A name or an IP address by which clients reach a service: the part of the URL between scheme and port.
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

/// The hosts that requests may name: this computer's loopback, the address that is listened on, and those
/// that were allowed. A service on every address can be addressed by any of them: there any IP address is
/// accepted, since none can be rebound.
#[derive(Debug, Clone)]
pub struct Names {
    /// The address that is listened on.
    pub address: IpAddr,
    /// Additional allowed hosts.
    pub allowed: Vec<Host>,
}

impl Names {
    /// Whether a request is for one of them.
    ///
    /// # Errors
    /// The status to refuse it with: 403, or 400 when it names no host, or several.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), StatusCode> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() || (host.is_none() && request.version() > Version::HTTP_10) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let known = host.is_none_or(|host| host.to_str().is_ok_and(|host| self.has(host)))
            && request.uri().authority().is_none_or(|authority| self.has(authority.as_str()));
        if known { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
    }

    fn has(&self, host: &str) -> bool {
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
                || asked == self.address
                || self.address.is_unspecified()
                || self.allowed.iter().any(|allowed| literal(&allowed.0) == Some(asked));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || self.allowed.iter().any(|allowed| name.eq_ignore_ascii_case(&allowed.0))
    }
}

/// The connections that there are.
struct Room {
    limits: Limits,
    present: Mutex<Vec<Present>>,
}

struct Present {
    peer: Peer,
    pace: Pace,
}

/// A connection's place, given up when this is dropped.
struct Place {
    room: Arc<Room>,
    pace: Pace,
}

impl Room {
    /// Makes room for a connection, if necessary by closing one that kept the service waiting. `None` when
    /// all that could be closed are waiting for the service.
    fn admit(self: &Arc<Self>, peer: Peer, pace: &Pace) -> Option<Place> {
        let mut present = self.present();
        let of = |peer: Peer| present.iter().filter(|other| other.peer == peer).count();
        let crowded = of(peer) >= self.limits.per_peer;
        if crowded || present.len() >= self.limits.connections {
            let waited_for = present.iter().enumerate().filter(|(_, other)| !crowded || other.peer == peer);
            let waited_for = waited_for.filter_map(|(index, other)| {
                let since = other.pace.waiting_since()?;
                Some((of(other.peer), std::cmp::Reverse(since), index))
            });
            let (.., index) = waited_for.max()?;
            present.swap_remove(index).pace.end();
        }
        present.push(Present { peer, pace: pace.clone() });
        Some(Place { room: self.clone(), pace: pace.clone() })
    }

    fn present(&self) -> MutexGuard<'_, Vec<Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.present().retain(|other| !Arc::ptr_eq(&other.pace.0, &self.pace.0));
    }
}

/// The deadline by which a connection's client must have sent or read something. hyper's own limit on headers
/// also runs between requests, where clients keep a connection open for minutes; this one distinguishes the
/// two. A client that once sent bytes after a whole request has begun the next one, and none of its later
/// pauses counts as idle.
#[derive(Clone)]
struct Pace(Arc<Inner>);

struct Inner {
    turn: watch::Sender<Turn>,
    progress: Mutex<Progress>,
    timeouts: Timeouts,
}

/// Which side has to act.
#[derive(Clone, Copy)]
struct Turn {
    sending: Sending,
    /// The deadline for reading everything that was answered, while some of it has not been read.
    taken_by: Option<Instant>,
    /// Since when it is so.
    since: Instant,
}

/// What the client has to send, and by when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Anything(Instant),
    Headers(Instant),
    /// The service works, or reads a body.
    Nothing,
}

/// How much of a request has arrived.
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

impl Turn {
    /// The next deadline.
    fn deadline(&self) -> Option<Instant> {
        let sent_by = match self.sending {
            Sending::Anything(until) | Sending::Headers(until) => Some(until),
            Sending::Nothing => None,
        };
        sent_by.into_iter().chain(self.taken_by).min()
    }
}

impl Pace {
    fn new(timeouts: Timeouts) -> Self {
        let now = Instant::now();
        let turn = Turn { sending: Sending::Headers(now + timeouts.headers), taken_by: None, since: now };
        Self(Arc::new(Inner { turn: watch::Sender::new(turn), progress: Mutex::default(), timeouts }))
    }

    fn turn(&self, sending: Sending) {
        self.0.turn.send_modify(|turn| *turn = Turn { sending, since: Instant::now(), ..*turn });
    }

    fn greeted(&self) {
        self.turn(Sending::Anything(Instant::now() + self.0.timeouts.idle));
    }

    fn received(&self, bytes: &[u8]) {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).count(bytes);
        let begins = matches!(self.0.turn.borrow().sending, Sending::Anything(_));
        if begins {
            self.turn(Sending::Headers(Instant::now() + self.0.timeouts.headers));
        }
    }

    fn request(&self) {
        self.turn(Sending::Nothing);
    }

    /// A request whose body has `length` bytes was answered.
    fn answered(&self, length: u64) {
        let mut progress = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = progress.head.is_some_and(|head| progress.received <= head.saturating_add(length));
        let now = Instant::now();
        self.turn(if alone {
            *progress = Progress::default();
            Sending::Anything(now + self.0.timeouts.idle)
        } else {
            Sending::Headers(now + self.0.timeouts.headers)
        });
    }

    /// There are bytes for the client.
    fn writes(&self) {
        self.0.turn.send_if_modified(|turn| {
            let begins = turn.taken_by.is_none();
            if begins {
                let now = Instant::now();
                *turn = Turn { taken_by: Some(now + self.0.timeouts.answer), since: now, ..*turn };
            }
            begins
        });
    }

    /// The client, or the system on its behalf, has read everything sent to it.
    fn taken(&self) {
        self.0.turn.send_if_modified(|turn| turn.taken_by.take().is_some());
    }

    /// Since when nothing but the client is waited for.
    fn waiting_since(&self) -> Option<Instant> {
        let turn = *self.0.turn.borrow();
        (turn.sending != Sending::Nothing || turn.taken_by.is_some()).then_some(turn.since)
    }

    /// The connection is to end now.
    fn end(&self) {
        self.0.turn.send_modify(|turn| turn.taken_by = Some(Instant::now()));
    }

    /// Ready when a deadline has passed.
    async fn missed(&self) {
        let mut turn = self.0.turn.subscribe();
        loop {
            let deadline = turn.borrow_and_update().deadline();
            let passed = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                changed = turn.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// A connection that reports traffic to its [`Pace`].
struct Paced<T> {
    stream: T,
    pace: Pace,
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match buffer.filled().get(before..) {
            None | Some([]) => {}
            Some(bytes) => self.pace.received(bytes),
        }
        polled
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Paced<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pace.writes();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.pace.taken();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pace.writes(); // TLS close_notify
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    struct Mirror;

    impl Service for Mirror {
        type Stream = TcpStream;
        type Client = ();

        async fn greet(&self, stream: TcpStream, _: SocketAddr) -> Option<(TcpStream, ())> {
            Some((stream, ()))
        }

        async fn respond(&self, request: Request<Incoming>, (): ()) -> Answer {
            Response::new(Full::new(body(request.into_body(), 4096, Timeouts::default()).await.unwrap()))
        }
    }

    /// Notes the length of each write.
    struct Noted(DuplexStream, Arc<Mutex<Vec<usize>>>);

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
        let (mut client, reader) = tokio::io::duplex(65536);
        let (writer, mut answers) = tokio::io::duplex(65536);
        let writes = Arc::default();
        let graceful = GracefulShutdown::new();
        let pace = Pace::new(Timeouts::default());
        let stream = tokio::io::join(reader, Noted(writer, Arc::clone(&writes)));
        tokio::spawn(graceful.watch(converse(Arc::new(Mirror), stream, (), pace)));
        for (done, length) in [0, 3, 1000, 3139].into_iter().enumerate() {
            let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
            client.write_all(&[head.as_bytes(), &vec![0; length]].concat()).await.unwrap();
            let mut response = vec![0; 65536];
            let read = answers.read(&mut response).await.unwrap();
            let writes = writes.lock().unwrap();
            assert_eq!(writes.len(), done + 1, "one write for each response");
            assert_eq!(writes.last(), Some(&read), "and all of it in that");
            let head = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let stated = String::from_utf8(response[..head].to_vec()).unwrap();
            assert!(stated.contains(&format!("\r\nContent-Length: {}\r\n", read - head)), "{stated}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_an_ipv4_address_is_one_in_either_form() {
        let peer = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(peer("::1").to_string(), "::1");
    }

    #[tokio::test]
    async fn without_room_the_one_that_is_waited_for_longest_gives_way_and_no_one_that_waits() {
        let room = |connections, per_peer| {
            Arc::new(Room { limits: Limits { connections, per_peer }, present: Mutex::default() })
        };
        let ended = |pace: &Pace| pace.0.turn.borrow().taken_by.is_some();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Peer::from(text.parse::<IpAddr>().unwrap()));
        let pace = || Pace::new(Timeouts::default());

        // A peer's own limit is at the cost of its own connections.
        let small = room(10, 2);
        let paces = [pace(), pace(), pace(), pace()];
        paces[1].request();
        let strange = pace();
        let _strange = small.admit(other, &strange).unwrap();
        let _places = [0, 1, 2].map(|index| small.admit(one, &paces[index]).unwrap());
        assert!(ended(&paces[0]) && !ended(&paces[1]) && !ended(&paces[2]) && !ended(&strange));
        paces[2].request();
        assert!(small.admit(one, &paces[3]).is_none(), "both wait for the service");

        // When everything is full, the peer with the most connections loses one.
        let full = room(3, 3);
        let paces = [pace(), pace(), pace(), pace()];
        let _places = [other, one, one, other]
            .into_iter()
            .zip(&paces)
            .map(|(peer, pace)| full.admit(peer, pace).unwrap())
            .collect::<Vec<_>>();
        assert!(ended(&paces[1]) && ![0, 2, 3].iter().any(|index| ended(&paces[*index])));
        drop(_places);
        assert!(full.present().is_empty());
    }
}
