//! What the connector's clients see on the wire, byte for byte: every constraint of their hand-made HTTP
//! parsers, the refusals, and that no client can hold up another.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sshsm_simulator::connector::{Backend, Host, Limits, Settings, Status, Timeouts, serve};
use tokio::{net::TcpListener, sync::oneshot};

/// Answers a frame with itself, its command's high bit set; 0x70 fails, 0x71 panics, 0x72 computes until the
/// test releases it, and every frame is reported.
struct Echo {
    seen: mpsc::Sender<Vec<u8>>,
    go: mpsc::Receiver<()>,
    present: bool,
}

impl Backend for Echo {
    type Error = &'static str;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, &'static str> {
        self.seen.send(request.to_vec()).unwrap();
        match request[0] {
            0x70 => return Err("unplugged"),
            0x71 => panic!("a defect"),
            0x72 => self.go.recv().unwrap(),
            _ => {}
        }
        let mut response = request.to_vec();
        response[0] |= 0x80;
        Ok(response)
    }

    fn status(&mut self) -> Status {
        Status { present: self.present, serial: self.present.then_some(12_345_678) }
    }
}

struct Server {
    address: SocketAddr,
    seen: mpsc::Receiver<Vec<u8>>,
    go: mpsc::Sender<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(timeouts: Timeouts, present: bool) -> Self {
        Self::on("127.0.0.1:0", timeouts.into(), present)
    }

    fn on(listen: &'static str, settings: Settings, present: bool) -> Self {
        let (seen_by, seen) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (tell, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(listen).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let backend = Echo { seen: seen_by, go: gone, present };
                serve(listener, backend, settings, async { drop(stopped.await) }).await.unwrap();
            });
        });
        Self { address: address.recv().unwrap(), seen, go, stop: Some(stop), thread: Some(thread) }
    }

    fn new() -> Self {
        Self::start(Timeouts::default(), true)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.address.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends one request on a connection of its own and returns the response.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read(&mut stream)
    }

    /// Posts one frame from a thread of its own.
    fn post_aside(&self, frame: [u8; 3]) -> JoinHandle<Vec<u8>> {
        let mut stream = self.connect();
        std::thread::spawn(move || post(&mut stream, &frame))
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads once, as the clients with a single `read` do.
fn read(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 65536];
    let length = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn post(stream: &mut TcpStream, frame: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /connector/api HTTP/1.1\r\nHost: localhost:12345\r\nContent-Length: {}\r\n\r\n",
        frame.len()
    );
    stream.write_all(&[head.as_bytes(), frame].concat()).unwrap();
    let mut buffer = vec![0; 65536];
    let length = stream.read(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn body(response: &[u8]) -> &[u8] {
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    &response[end + 4..]
}

const GET: &str = "GET /connector/status HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn the_status_has_six_lines_in_their_order_within_256_bytes() {
    let server = Server::new();
    let response = server.ask(GET);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let body = response.split_once("\r\n\r\n").unwrap().1;
    let expected = format!(
        "status=OK\nserial=0012345678\nversion={}\npid={}\naddress=127.0.0.1\nport={}\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        server.address.port()
    );
    assert_eq!(body, expected);
    assert!(body.len() < 256);
    assert_eq!(body.split(['\n', '=']).filter(|token| !token.is_empty()).count(), 12);
}

#[test]
fn an_absent_device_is_reported() {
    let server = Server::start(Timeouts::default(), false);
    assert!(server.ask(GET).contains("\r\n\r\nstatus=NO_DEVICE\nserial=*\n"));
}

#[test]
fn many_requests_on_one_connection_each_get_a_whole_response_in_one_read() {
    let server = Server::new();
    let mut stream = server.connect();
    for length in [3, 4, 100, 2048, 3136, 3139].into_iter().cycle().take(60) {
        let frame: Vec<u8> = (0..100).cycle().take(length).collect();
        let response = post(&mut stream, &frame);
        let head = format!("\r\nContent-Length: {length}\r\n");
        let text = String::from_utf8_lossy(&response);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains(&head), "the header's case is literal: {text}");
        assert!(text.contains("\r\nContent-Type: application/octet-stream\r\n"), "{text}");
        assert!(!text.contains("Transfer-Encoding"), "{text}");
        assert_eq!(body(&response)[0], 0x80);
        assert_eq!(body(&response)[1..], frame[1..]);
    }
    assert_eq!(server.seen.try_iter().count(), 60);
}

#[test]
fn a_connection_outlives_the_limit_on_headers_while_it_is_idle() {
    let limit = Duration::from_millis(100);
    let server = Server::start(Timeouts { headers: limit, ..Timeouts::default() }, true);
    let mut stream = server.connect();
    for _ in 0..3 {
        std::thread::sleep(3 * limit);
        assert_eq!(body(&post(&mut stream, &[6, 0, 0])), [0x86, 0, 0]);
    }
}

#[test]
fn an_idle_connection_ends_at_its_own_limit() {
    let limit = Duration::from_millis(100);
    let server = Server::start(Timeouts { idle: limit, ..Timeouts::default() }, true);
    let mut stream = server.connect();
    let begin = Instant::now();
    assert_eq!(read(&mut stream), "");
    assert!(begin.elapsed() >= limit);
}

#[test]
fn request_ids_are_echoed_or_fresh() {
    let server = Server::new();
    let id = |response: &str| {
        let line = response.lines().find_map(|line| line.strip_prefix("X-Request-Id: "));
        line.unwrap_or_else(|| panic!("{response}")).to_owned()
    };
    let echoed =
        server.ask("GET /connector/status HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: abc 1\r\n\r\n");
    assert_eq!(id(&echoed), "abc 1");
    let (one, two) = (id(&server.ask(GET)), id(&server.ask(GET)));
    assert_ne!(one, two);
    assert_eq!((one.len(), one.matches('-').count(), &one[14..15]), (36, 4, "4"), "a version 4 UUID: {one}");
}

#[test]
fn wrong_methods_and_paths_are_refused_by_name() {
    let server = Server::new();
    for (method, path, allow) in [
        ("POST", "/connector/status", "GET"),
        ("HEAD", "/connector/status", "GET"),
        ("GET", "/connector/api", "POST"),
        ("PUT", "/connector/api", "POST"),
        ("OPTIONS", "/connector/api", "POST"),
    ] {
        let response = server.ask(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(response.starts_with("HTTP/1.1 405 "), "{method} {path}: {response}");
        assert!(response.contains(&format!("\r\nAllow: {allow}\r\n")), "{response}");
        assert!(!response.contains("Access-Control"), "{response}");
    }
    for path in ["/", "/connector", "/connector/api/", "/connector/statuses", "//connector/status"] {
        let response = server.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
    }
    assert_eq!(server.seen.try_iter().count(), 0);
}

#[test]
fn bodies_of_no_stated_or_impossible_length_never_reach_the_device() {
    let server = Server::new();
    for rest in [
        "\r\n",
        "Content-Length: 0\r\n\r\n",
        "Content-Length: 2\r\n\r\nab",
        "Content-Length: 3140\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Content-Length: -3\r\n\r\nabc",
        "Content-Length: x\r\n\r\nabc",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\nabc",
    ] {
        let response = server.ask(&format!("POST /connector/api HTTP/1.1\r\nHost: localhost\r\n{rest}"));
        assert!(response.starts_with("HTTP/1.1 400 "), "{rest:?}: {response}");
    }
    assert_eq!(server.seen.try_iter().count(), 0);
}

#[test]
fn only_hosts_that_mean_this_machine_are_served() {
    let server = Server::new();
    let status =
        |host: &str| server.ask(&format!("GET /connector/status HTTP/1.1\r\n{host}\r\n"))[9..12].to_owned();
    for host in [
        "localhost",
        "LocalHost:1",
        "localhost.",
        "localhost.:80",
        "127.0.0.1",
        "127.0.0.1:12345",
        "[::1]",
        "[::1]:9",
    ] {
        assert_eq!(status(&format!("Host: {host}\r\n")), "200", "{host}");
    }
    for host in [
        "example.com",
        "example.com:12345",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "127.0.0.2",
        "",
        ":80",
        "::1",
    ] {
        assert_eq!(status(&format!("Host: {host}\r\n")), "403", "{host}");
    }
    assert_eq!(status(""), "400", "HTTP/1.1 asks for a host");
    assert_eq!(status("Host: localhost\r\nHost: example.com\r\n"), "400");
    assert_eq!(status("Host: localhost\r\nOrigin: https://example.com\r\n"), "403", "a web page asks");
    let old = server.ask("GET /connector/status HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK"), "{old}");
    let absolute = server.ask("GET http://example.com/connector/status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(absolute.starts_with("HTTP/1.1 403 "), "{absolute}");
}

/// The status code for a request with these lines in its head.
fn status(server: &Server, lines: &str) -> String {
    server.ask(&format!("GET /connector/status HTTP/1.1\r\n{lines}\r\n"))[9..12].to_owned()
}

fn hosts(names: &[&str]) -> Settings {
    Settings { hosts: names.iter().map(|name| name.parse().unwrap()).collect(), ..Settings::default() }
}

#[test]
fn a_host_that_was_allowed_is_served_and_no_other() {
    let server =
        Server::on("127.0.0.1:0", hosts(&["myhsm", "HSM.example.com.", "10.0.0.5", "fd00::1"]), true);
    for host in [
        "myhsm",
        "MyHSM:12345",
        "myhsm.",
        "hsm.example.com:80",
        "10.0.0.5:1",
        "[fd00::1]:1",
        "[fd00:0::1]",
        "localhost",
        "127.0.0.1",
    ] {
        assert_eq!(status(&server, &format!("Host: {host}\r\n")), "200", "{host}");
    }
    for host in ["example.com", "x.hsm.example.com", "myhsm.example.com", "10.0.0.6", "[fd00::2]", "fd00::1"]
    {
        assert_eq!(status(&server, &format!("Host: {host}\r\n")), "403", "{host}");
    }
    assert_eq!(status(&server, "Host: myhsm\r\nOrigin: http://myhsm\r\n"), "403", "a web page asks");
}

#[test]
fn on_every_address_any_of_them_will_do_and_only_names_that_were_allowed() {
    for (allowed, refused) in [(&[][..], "myhsm"), (&["myhsm"], "yourhsm")] {
        let server = Server::on("0.0.0.0:0", hosts(allowed), true);
        for host in ["localhost", "192.0.2.7:12345", "[2001:db8::1]"].iter().chain(allowed) {
            assert_eq!(status(&server, &format!("Host: {host}\r\n")), "200", "{host}");
            for page in ["Origin: https://example.com", "Origin: null", "Sec-Fetch-Site: cross-site"] {
                assert_eq!(status(&server, &format!("Host: {host}\r\n{page}\r\n")), "403", "{host} {page}");
            }
        }
        for host in ["example.com", "192.0.2.7.example.com", refused] {
            assert_eq!(status(&server, &format!("Host: {host}\r\n")), "403", "{host}");
        }
    }
}

#[test]
fn a_body_in_chunks_is_read_as_one_with_its_length() {
    let server = Server::new();
    let ask = |chunks: &str| {
        let head = "POST /connector/api HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.ask(&format!("{head}{chunks}0\r\n\r\n"))
    };
    for chunks in ["3\r\n\x06\0\0\r\n", "1\r\n\x06\r\n2;x=y\r\n\0\0\r\n"] {
        let response = ask(chunks);
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(response.contains("\r\nContent-Length: 3\r\n"), "{response}");
        assert_eq!(server.seen.recv().unwrap(), [6, 0, 0]);
    }
    let longest = format!("{:x}\r\n{}\r\n", 3139, "a".repeat(3139));
    assert_eq!(server.seen.try_iter().count(), 0);
    assert!(ask(&longest).starts_with("HTTP/1.1 200 "));
    let longer = ask(&format!("{longest}1\r\na\r\n"));
    assert!(longer.starts_with("HTTP/1.1 400 ") && longer.contains("\r\nConnection: close\r\n"), "{longer}");
    assert_eq!(server.seen.try_iter().count(), 1);
}

/// Sends requests until the service accepts no more, and reads no answer.
fn stuck(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write_all(GET.repeat(1000).as_bytes()).is_ok() {}
    stream
}

#[test]
fn a_client_that_does_not_read_its_answers_is_dropped_within_its_limit() {
    let limit = Duration::from_millis(1000);
    let settings = Settings {
        timeouts: Timeouts { answer: limit, ..Timeouts::default() },
        limits: Limits { connections: 4, per_peer: 4 },
        ..Settings::default()
    };
    let server = Server::on("127.0.0.1:0", settings, true);
    let mut stream = stuck(&server);
    std::thread::sleep(2 * limit);
    stream.set_read_timeout(Some(10 * limit)).unwrap();
    let mut answers = Vec::new();
    let end = stream.read_to_end(&mut answers);
    assert!(!matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{end:?}");
}

#[test]
fn clients_that_keep_the_service_waiting_keep_no_one_out() {
    let limits = Limits { connections: 8, per_peer: 8 };
    let server = Server::on("127.0.0.1:0", Settings { limits, ..Settings::default() }, true);
    let long = server.post_aside([0x72, 0, 0]);
    assert_eq!(server.seen.recv().unwrap(), [0x72, 0, 0]);
    let _stuck: Vec<_> = (0..4).map(|_| stuck(&server)).collect();
    let _half: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /connector/sta").unwrap();
            stream
        })
        .collect();
    let _silent: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for _ in 0..20 {
        let begin = Instant::now();
        assert!(server.ask(GET).starts_with("HTTP/1.1 200 OK"));
        assert!(begin.elapsed() < Duration::from_secs(3));
    }
    server.go.send(()).unwrap();
    assert_eq!(body(&long.join().unwrap()), [0xf2, 0, 0], "what waits for the device is not closed");
}

#[test]
fn what_is_no_host_is_refused_by_name() {
    for text in
        ["", "*", "http://myhsm", "myhsm:12345", "my hsm", "a..b", "[myhsm]", "myhsm/", ".", "*.example.com"]
    {
        let error = text.parse::<Host>().unwrap_err().to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn a_backend_that_fails_or_breaks_is_a_500_and_the_service_goes_on() {
    let server = Server::new();
    let mut stream = server.connect();
    for command in [0x70, 0x71] {
        let response = post(&mut stream, &[command, 0, 0]);
        let text = String::from_utf8_lossy(&response);
        assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
        assert!(!text.contains("unplugged"), "the reason is not the client's to know");
    }
    assert_eq!(body(&post(&mut stream, &[6, 0, 0])), [0x86, 0, 0]);
}

#[test]
fn slow_senders_are_dropped_within_their_limits() {
    let limit = Duration::from_millis(200);
    let server = Server::start(Timeouts { headers: limit, body: limit, ..Timeouts::default() }, true);
    let dribble = |text: &[u8]| {
        let mut stream = server.connect();
        let begin = Instant::now();
        for byte in text.iter().cycle() {
            if stream.write_all(&[*byte]).is_err() || begin.elapsed() > 10 * limit {
                break;
            }
            std::thread::sleep(limit / 10);
        }
        begin.elapsed()
    };
    let took = dribble(b"a");
    assert!(took < 5 * limit, "headers without an end: {took:?}");

    let mut stream = server.connect();
    let begin = Instant::now();
    stream
        .write_all(b"POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        .unwrap();
    let response = read(&mut stream);
    assert!(
        response.starts_with("HTTP/1.1 408 ") && response.contains("\r\nConnection: close\r\n"),
        "{response}"
    );
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "the connection is closed");
    assert!((limit..5 * limit).contains(&begin.elapsed()));
    assert_eq!(server.seen.try_iter().count(), 0);
}

/// Bytes after a whole request are the start of the next one, in whichever packet they arrive.
#[test]
fn half_a_request_behind_a_whole_one_is_dropped_as_any_half_request() {
    let limit = Duration::from_millis(200);
    let server = Server::start(Timeouts { headers: limit, ..Timeouts::default() }, true);
    let whole = "POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n\x06\0\0";
    let granted = |stream: &mut TcpStream| {
        let mut response = [0; 1024];
        let length = stream.read(&mut response).unwrap();
        assert!(response[..length].starts_with(b"HTTP/1.1 200 "));
    };
    for first in [GET, whole] {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(10 * limit)).unwrap();
        stream.write_all(format!("{first}GET /conn").as_bytes()).unwrap();
        granted(&mut stream);
        let begin = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the connection is closed");
        assert!(begin.elapsed() < 5 * limit);
    }
    for first in [GET, whole] {
        let mut stream = server.connect();
        for _ in 0..2 {
            stream.write_all(first.as_bytes()).unwrap();
            granted(&mut stream);
            std::thread::sleep(3 * limit); // idle, and kept
        }
    }
}

#[test]
fn a_device_may_take_longer_than_any_client() {
    let limit = Duration::from_millis(100);
    let server = Server::start(Timeouts { headers: limit, body: limit, idle: limit, answer: limit }, true);
    let long = server.post_aside([0x72, 0, 0]);
    std::thread::sleep(5 * limit);
    server.go.send(()).unwrap();
    assert_eq!(body(&long.join().unwrap()), [0xf2, 0, 0]);
}

#[test]
fn a_refusal_reaches_the_client_that_sends_its_whole_body() {
    let server = Server::new();
    for length in [3140, 9000] {
        let request =
            format!("POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let response = server.ask(&(request + &"a".repeat(length)));
        assert!(response.starts_with("HTTP/1.1 400 "), "{length}: {response}");
    }
    assert_eq!(server.seen.try_iter().count(), 0);
}

#[test]
fn a_client_that_vanishes_mid_body_leaves_no_trace() {
    let server = Server::new();
    for _ in 0..10 {
        let mut stream = server.connect();
        stream
            .write_all(b"POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")
            .unwrap();
    }
    assert_eq!(body(&post(&mut server.connect(), &[6, 0, 0])), [0x86, 0, 0]);
    assert_eq!(server.seen.try_iter().collect::<Vec<_>>(), [[6, 0, 0]]);
}

#[test]
fn while_the_device_computes_the_status_answers_and_the_next_exchange_waits() {
    let server = Server::new();
    let patience = Duration::from_secs(20);
    let long = server.post_aside([0x72, 0, 0]);
    assert_eq!(server.seen.recv_timeout(patience).unwrap(), [0x72, 0, 0]);
    let next = server.post_aside([6, 0, 0]);
    for _ in 0..5 {
        assert!(server.ask(GET).contains("status=OK\nserial=0012345678\n"));
    }
    let early = server.seen.recv_timeout(Duration::from_millis(200));
    assert!(early.is_err(), "a second exchange ran during the first: {early:?}");
    server.go.send(()).unwrap();
    assert_eq!(body(&long.join().unwrap()), [0xf2, 0, 0]);
    assert_eq!(body(&next.join().unwrap()), [0x86, 0, 0]);
}

#[test]
fn a_client_that_leaves_does_not_let_the_next_one_in_early() {
    let server = Server::new();
    let patience = Duration::from_secs(20);
    let mut stream = server.connect();
    stream
        .write_all(b"POST /connector/api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n\x72\0\0")
        .unwrap();
    assert_eq!(server.seen.recv_timeout(patience).unwrap(), [0x72, 0, 0]);
    drop(stream);
    let next = server.post_aside([6, 0, 0]);
    assert!(server.seen.recv_timeout(Duration::from_millis(200)).is_err());
    server.go.send(()).unwrap();
    assert_eq!(body(&next.join().unwrap()), [0x86, 0, 0]);
}

#[test]
fn a_shutdown_lets_the_running_exchange_finish_and_ends_idle_connections() {
    let mut server = Server::new();
    let mut idle = server.connect();
    post(&mut idle, &[6, 0, 0]);
    let address = server.address;
    let long = server.post_aside([0x72, 0, 0]);
    server.seen.recv().unwrap();
    server.seen.recv().unwrap();
    drop(server.stop.take());
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    assert!(TcpStream::connect(address).is_err(), "no new client is admitted");
    server.go.send(()).unwrap();
    assert_eq!(body(&long.join().unwrap()), [0xf2, 0, 0]);
    server.stop();
}
