//! The timestamp authority: a key in an ssh-agent, requests in files, and the service over HTTP, with
//! everything that a service can do wrong.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod machine;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use machine::{Machine, Run, ed25519};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use ssh_key::{PrivateKey, PublicKey};
use sshsm_ca::timestamp::{
    TimestampAuthority, TimestampError, TimestampSource,
    access::Tokens,
    agent_key::AgentKey,
    clock::Synchronisation,
    rate::Rate,
    remote::{RemoteAuthority, RemoteError, Terms},
    service::{Settings, serve},
    verify,
};
use sshsm_tests::{
    needs,
    requirement::{self, Missing, shared_vector},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// `sshsm timestamp serve`, with its output.
struct Service {
    child: Child,
    url: String,
}

impl Service {
    fn start(machine: &Machine, more: &[&str]) -> Self {
        let listen = if more.contains(&"--listen") { &[][..] } else { LISTEN };
        Self::run(machine.command(&[BASE, listen, more].concat()))
    }

    fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim_end().strip_prefix("listening on ") else {
            let mut told = String::new();
            child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            panic!("{told}");
        };
        Self { url: url.to_owned(), child }
    }

    fn request(&self, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        exchange(&self.url, head, body)
    }

    /// Its output on stderr, once it has ended in order.
    fn end(mut self) -> String {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{told}");
        told
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BASE: &[&str] = &["timestamp", "serve", "--key", "timestamp", "--allow-unsynchronised-clock"];
const LISTEN: &[&str] = &["--listen", "127.0.0.1:0"];

fn exchange(url: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let (line, more) = head.split_once('\n').unwrap_or((head, ""));
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = str::from_utf8(&response[9..12]).unwrap().parse().unwrap();
    (status, response.split_off(end + 4))
}

/// A machine with a CA, a template for the timestamp key, and a user's key.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", ed25519(1));
    for line in ["key generate --algorithm ed25519 --id 5", "template put t.toml --id 10"] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run:?}");
    }
    let public = machine.run(&["key", "show", "5"]).stdout;
    machine.write("ca.pub", &public);
    machine
}

fn sign(machine: &Machine, more: &[&str]) -> Run {
    let _ = fs::remove_file(machine.path("user-cert.pub"));
    let line = ["sign", "-s", "5", "-t", "10", "-I", "me", "-n", "a", "-V", "+1h", "user.pub"];
    machine.run(&[&line, more].concat())
}

#[track_caller]
fn signed(machine: &Machine, more: &[&str]) {
    let run = sign(machine, more);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(machine.path("user-cert.pub").exists());
}

#[track_caller]
fn not_signed(machine: &Machine, more: &[&str], code: i32, why: &str) {
    let run = sign(machine, more);
    assert_eq!(run.code, code, "{run:?}");
    assert!(run.stderr.contains(why), "{why}: {run:?}");
    assert!(!machine.path("user-cert.pub").exists());
    run.tells_no(&[TOKEN]);
}

#[test]
fn a_service_vouches_for_signing_and_ends_in_order() {
    let machine = machine();
    let service = Service::start(&machine, &[]);
    signed(&machine, &["--timestamp", &service.url]);
    signed(&machine, &["--timestamp", &service.url, "--timestamp-public-key", "timestamp.pub"]);
    machine.new_key("other", ed25519(9));
    let other = ["--timestamp", &service.url, "--timestamp-public-key", "other.pub"];
    not_signed(&machine, &other, 1, "is not signed by the key of its authority");
    let (status, key) = service.request("GET /v1/key", b"");
    assert_eq!(status, 200);
    assert!(
        fs::read_to_string(machine.path("timestamp.pub"))
            .unwrap()
            .starts_with(str::from_utf8(&key).unwrap().trim_end())
    );
    let told = service.end();
    assert_eq!(told.matches(" for 127.0.0.1").count(), 3, "{told}");
}

#[test]
fn a_digest_is_taken_as_bytes_or_json_and_nothing_else_is() {
    let machine = machine();
    let service = Service::start(&machine, &["--rate", "1000/s"]);
    let public =
        PublicKey::from_openssh(&fs::read_to_string(machine.path("timestamp.pub")).unwrap()).unwrap();
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(b"a request").into();
    let (status, body) = service.request("POST /v1/timestamp", &digest);
    assert_eq!((status, body.len()), (200, 68));
    let now =
        sshsm_protocol::ssh::timestamp::Now::from_seconds(u32::from_be_bytes(body[..4].try_into().unwrap()));
    assert!(verify(public.key_data(), b"a request", now, &body[4..]).unwrap());
    assert!(!verify(public.key_data(), b"b request", now, &body[4..]).unwrap());

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let json = format!("{{\"request_sha256\": \"{}\"}}", hex(&digest));
    let head = "POST /v1/timestamp\nContent-Type: application/json\r\n";
    let (status, body) = service.request(head, json.as_bytes());
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["algorithm"], "ed25519");
    assert_eq!(answer["signature"].as_str().unwrap().len(), 128);
    assert!(answer["now"].as_u64().unwrap() > 1_700_000_000);

    for (head, body, expected) in [
        ("POST /v1/timestamp", &[0; 31][..], 400),
        ("POST /v1/timestamp", &[0; 33], 400),
        ("POST /v1/timestamp", &[], 400),
        ("POST /v1/timestamp", &[0; 2000], 413),
        (head, b"{}", 400),
        (head, b"{\"request_sha256\": \"00\"}", 400),
        ("GET /v1/timestamp", &[], 405),
        ("POST /v1/key", &[], 405),
        ("GET /", &[], 404),
        ("POST /v1/timestamp\nOrigin: http://x\r\n", &[0; 32], 403),
    ] {
        assert_eq!(service.request(head, body).0, expected, "{head} {}", body.len());
    }
    let (_, metrics) = service.request("GET /metrics", b"");
    let metrics = String::from_utf8(metrics).unwrap();
    for line in [
        "sshsm_timestamp_requests_total{result=\"signed\"} 2",
        "sshsm_timestamp_requests_total{result=\"malformed\"} 6",
        "# TYPE sshsm_timestamp_connections_total counter",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[test]
fn one_client_cannot_ask_more_often_than_it_may() {
    let machine = machine();
    let service = Service::start(&machine, &["--rate", "2/h"]);
    for expected in [200, 200, 429, 429] {
        assert_eq!(service.request("POST /v1/timestamp", &[7; 32]).0, expected);
    }
    not_signed(&machine, &["--timestamp", &service.url], 1, "was asked too often");
    let bad = machine.run(&[BASE, &["--rate", "2/fortnight"]].concat());
    assert_eq!(bad.code, 2, "{bad:?}");
}

#[test]
fn every_path_counts_towards_the_rate_of_a_client() {
    let machine = machine();
    let service = Service::start(&machine, &["--rate", "4/h"]);
    for (head, expected) in [
        ("GET /v1/key", 200),
        ("GET /metrics", 200),
        ("GET /nowhere", 404),
        ("GET /v1/timestamp", 405),
        ("GET /v1/key", 429),
        ("GET /metrics", 429),
        ("GET /nowhere", 429),
    ] {
        assert_eq!(service.request(head, b"").0, expected, "{head}");
    }
    assert_eq!(service.request("POST /v1/timestamp", &[7; 32]).0, 429);
    // And so do those who are not admitted.
    machine.write("tokens", TOKEN);
    let service = Service::start(&machine, &["--rate", "2/h", "--token-file", "tokens"]);
    let statuses = [(); 4].map(|()| service.request("GET /v1/key", b"").0);
    assert_eq!(statuses, [401, 401, 429, 429]);
}

#[test]
fn clients_from_many_addresses_get_no_more_than_all_of_them_may() {
    let machine = machine();
    let service = Service::start(&machine, &["--rate", "1/h", "--total-rate", "20/h"]);
    let port = service.url.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let ask = |number: u8| {
        // Every address of 127.0.0.0/8 is this computer's.
        let domain = rustix::net::AddressFamily::INET;
        let socket = rustix::net::socket(domain, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &std::net::SocketAddr::from(([127, 0, 1, number], 0))).unwrap();
        rustix::net::connect(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let mut stream = TcpStream::from(socket);
        let head = "GET /v1/key HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer[9..12].to_owned()
    };
    let answers: Vec<_> = (1..=60).map(ask).collect();
    assert_eq!(answers.iter().filter(|status| *status == "200").count(), 20, "{answers:?}");
    assert!(answers.iter().skip(20).all(|status| status == "429"), "{answers:?}");
}

#[test]
fn trying_tokens_is_slowed_down_until_not_even_the_right_one_is_checked() {
    let machine = machine();
    machine.write("tokens", TOKEN);
    let ask = |service: &Service, token: &str| {
        service.request(&format!("GET /v1/key\nAuthorization: Bearer {token}\r\n"), b"").0
    };
    let wrong = "0123456789abcdef0123456789abcdee";
    let service = Service::start(&machine, &["--rate", "2/h", "--token-file", "tokens"]);
    assert_eq!([wrong, TOKEN, wrong, TOKEN].map(|token| ask(&service, token)), [401, 200, 401, 429]);
    // However often a client may ask, it may not guess as often.
    let service = Service::start(&machine, &["--rate", "1000/s", "--token-file", "tokens"]);
    let refused = (0..40).filter(|_| ask(&service, wrong) == 429).count();
    assert!(refused >= 25, "{refused}");
    assert_eq!(ask(&service, TOKEN), 429);
}

#[test]
fn requests_that_a_web_page_could_have_sent_are_refused() {
    let machine = machine();
    let service = Service::start(&machine, &["--rate", "1000/s"]);
    let ask = |service: &Service, host: &str, more: &str| {
        let mut stream = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
        let head = format!("GET /v1/key HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer[9..12].to_owned()
    };
    for host in ["localhost", "127.0.0.1:8322", "[::1]"] {
        assert_eq!(ask(&service, host, ""), "200", "{host}");
        assert_eq!(ask(&service, host, "Origin: null\r\n"), "403", "{host}");
        assert_eq!(ask(&service, host, "Sec-Fetch-Site: cross-site\r\n"), "403", "{host}");
    }
    for host in ["evil.example", "192.0.2.1", "localhost.evil.example"] {
        assert_eq!(ask(&service, host, ""), "403", "{host}");
    }
    machine.write("tokens", TOKEN);
    let named = Service::start(&machine, &["--allow-host", "time.example.com"]);
    assert_eq!(ask(&named, "time.example.com:8322", ""), "200");
    assert_eq!(ask(&named, "evil.example", ""), "403");
    // A page has no token, so a client with one may call the service by any name.
    let known = Service::start(&machine, &["--token-file", "tokens"]);
    assert_eq!(ask(&known, "time.example.com", &format!("Authorization: Bearer {TOKEN}\r\n")), "200");
}

#[test]
fn clients_that_say_nothing_or_read_nothing_keep_no_one_out() {
    let machine = machine();
    let service = Service::start(&machine, &["--rate", "4000000000/s"]);
    let address = service.url.strip_prefix("http://").unwrap();
    let connect = || TcpStream::connect(address).unwrap();
    let _stuck: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect();
            stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            let requests = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
            while stream.write_all(requests.as_bytes()).is_ok() {}
            stream
        })
        .collect();
    let _silent: Vec<_> = (0..300).map(|_| connect()).collect();
    for _ in 0..20 {
        let begin = Instant::now();
        assert_eq!(service.request("POST /v1/timestamp", &[7; 32]).0, 200);
        assert!(begin.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn only_who_shows_a_token_is_let_in() {
    let machine = machine();
    machine.write("tokens", &format!("# clients\n{TOKEN}\n"));
    machine.write("token", &format!("{TOKEN}\n"));
    machine.write("wrong", "fedcba9876543210fedcba9876543210\n");
    let service = Service::start(&machine, &["--token-file", "tokens"]);
    let source = ["--timestamp", service.url.as_str()];
    not_signed(&machine, &source, 4, "does not let this client in");
    not_signed(
        &machine,
        &[&source[..], &["--timestamp-token-file", "wrong"]].concat(),
        4,
        "does not let this",
    );
    signed(&machine, &[&source[..], &["--timestamp-token-file", "token"]].concat());
    let token = machine.path("token");
    let line = ["sign", "-s", "5", "-t", "10", "-I", "me", "-n", "a", "-V", "+1h", "user.pub"];
    let run = machine.with_environment(
        &[&line[..], &source].concat(),
        &[("SSHSM_TIMESTAMP_TOKEN_FILE", token.to_str().unwrap())],
    );
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(service.request("GET /v1/key", b"").0, 401);
    let remote = ["--timestamp", "http://192.0.2.1:1", "--timestamp-token-file", "token"];
    not_signed(&machine, &remote, 2, "in the clear");
    let told = service.end();
    assert!(told.contains(" for token 2") && !told.contains(TOKEN), "{told}");
    machine.write("short", "hunter2\n");
    let short = machine.run(&[BASE, &["--token-file", "short"]].concat());
    assert_eq!(short.code, 1, "{short:?}");
    short.tells_no(&["hunter2"]);
}

#[test]
fn other_computers_are_not_served_without_tls_and_without_knowing_them() {
    let machine = machine();
    machine.write("tokens", TOKEN);
    for more in [&[][..], &["--token-file", "tokens"]] {
        let line = ["timestamp", "serve", "--key", "timestamp", "--listen", "0.0.0.0:0"];
        let run = machine.run(&[&line, more].concat());
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("--allow-insecure"), "{run:?}");
    }
    drop(Service::start(&machine, &["--listen", "0.0.0.0:0", "--allow-insecure"]));
}

/// An authority with a server's certificate for 127.0.0.1 and a client's.
fn certificates(machine: &Machine, name: &str) {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    machine.write(&format!("{name}-ca.crt"), &authority.pem());
    for (end, names, usage) in [
        ("server", vec!["127.0.0.1".to_owned()], ExtendedKeyUsagePurpose::ServerAuth),
        ("client", vec!["a client".to_owned()], ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let own = key();
        let mut params = CertificateParams::new(if end == "server" { names } else { Vec::new() }).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&own, &authority).unwrap();
        machine.write(&format!("{name}-{end}.crt"), &certificate.pem());
        machine.write(&format!("{name}-{end}.key"), &own.serialize_pem());
    }
}

#[test]
fn tls_lets_in_clients_by_certificate_or_token_and_clients_know_the_service() {
    let machine = machine();
    certificates(&machine, "our");
    certificates(&machine, "their");
    machine.write("tokens", TOKEN);
    let tls = ["--tls-cert", "our-server.crt", "--tls-key", "our-server.key"];
    let service = Service::start(&machine, &tls);
    assert!(service.url.starts_with("https://127.0.0.1:"));
    let trusting = |service: &Service, more: &[&str]| -> Vec<String> {
        let source = ["--timestamp", &service.url, "--timestamp-ca", "our-ca.crt"];
        [&source, more].concat().into_iter().map(str::to_owned).collect()
    };
    let signed_by = |service: &Service, more: &[&str]| {
        let all = trusting(service, more);
        signed(&machine, &all.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let not_signed_by = |service: &Service, more: &[&str], code, why| {
        let all = trusting(service, more);
        not_signed(&machine, &all.iter().map(String::as_str).collect::<Vec<_>>(), code, why);
    };
    signed_by(&service, &[]);
    let stranger = ["--timestamp", &service.url, "--timestamp-ca", "their-ca.crt"];
    not_signed(&machine, &stranger, 1, "a signature of its certificate is wrong");
    not_signed(&machine, &["--timestamp", &service.url, "--timestamp-ca", "nowhere"], 6, "nowhere");
    not_signed(&machine, &["--timestamp", &service.url, "--timestamp-ca", "user.pub"], 1, "no certificate");

    let ours = ["--timestamp-cert", "our-client.crt", "--timestamp-cert-key", "our-client.key"];
    let theirs = ["--timestamp-cert", "their-client.crt", "--timestamp-cert-key", "their-client.key"];
    let mutual = Service::start(&machine, &[&tls[..], &["--tls-client-ca", "our-ca.crt"]].concat());
    signed_by(&mutual, &ours);
    not_signed_by(&mutual, &[], 1, "timestamp service https://127.0.0.1");
    not_signed_by(&mutual, &theirs, 1, "timestamp service https://127.0.0.1");
    assert!(mutual.end().contains(" for certificate SHA256:"));

    let either = [&tls[..], &["--tls-client-ca", "our-ca.crt", "--token-file", "tokens"]].concat();
    let mut either = Service::start(&machine, &[&either[..], &["--listen", "0.0.0.0:0"]].concat());
    either.url = either.url.replace("0.0.0.0", "127.0.0.1");
    signed_by(&either, &ours);
    signed_by(&either, &["--timestamp-token-file", "tokens"]);
    not_signed_by(&either, &[], 4, "does not let this client in");
}

#[test]
fn a_service_that_is_down_or_speaks_otherwise_is_told_apart() {
    let machine = machine();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    not_signed(&machine, &["--timestamp", &format!("http://{free}")], 1, "cannot be reached");
    not_signed(&machine, &["--timestamp", "http://"], 2, "not the URL");
    for (answer, why) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP status 404"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "HTTP status 302",
        ),
        ("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n", "HTTP status 500"),
        ("HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\nno\x1b[31m!\n", "cannot sign the time: no\\u{1b}[31m!"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not a timestamp: it has 5 bytes"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "not a timestamp"),
    ] {
        let url = fake(answer.as_bytes().to_vec(), Duration::ZERO);
        not_signed(&machine, &["--timestamp", &url], 1, why);
    }
}

/// Answers every request with the same bytes, after a while.
fn fake(answer: Vec<u8>, after: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Head and digest arrive in one or two pieces; either way the end of the head is there after the
            // first.
            let _ = stream.read(&mut [0; 4096]);
            thread::sleep(after);
            let _ = stream.write_all(&answer);
        }
    });
    url
}

fn timestamp_error(url: &str, terms: Terms) -> RemoteError {
    match RemoteAuthority::new(url, terms).unwrap().timestamp(b"request") {
        Err(TimestampError::Remote(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_that_does_not_answer_in_time_is_slow() {
    let url = fake(Vec::new(), Duration::from_secs(60));
    let begin = Instant::now();
    let error = timestamp_error(&url, Terms { patience: Duration::from_millis(300), ..Terms::default() });
    assert!(matches!(error, RemoteError::Slow { .. }), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

/// The library's own service, with the clock and the key that a test supplies.
fn service(settings: Settings) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(listener, settings, std::future::pending()).await.unwrap();
        });
    });
    url
}

fn authority() -> TimestampAuthority {
    TimestampAuthority::new(&PrivateKey::new(ed25519(42), "timestamp").unwrap(), "timestamp").unwrap()
}

fn settings(clock: Option<Synchronisation>) -> Settings {
    Settings {
        key: Box::new(authority()),
        clock: clock.map(|seen| -> Box<dyn Fn() -> Synchronisation + Send> { Box::new(move || seen) }),
        rate: "100/s".parse::<Rate>().unwrap(),
        strangers: None,
        hosts: Vec::new(),
        tokens: None::<Tokens>,
        tls: None,
        certificates: false,
        listener: sshsm_ca::Listener::default(),
    }
}

#[test]
fn a_clock_that_follows_no_other_signs_nothing() {
    for (clock, status) in [
        (Some(Synchronisation::Unsynchronised), 503),
        (Some(Synchronisation::Synchronised), 200),
        (Some(Synchronisation::Unknown), 200),
        (Some(Synchronisation::Unanswered), 503),
        (None, 200),
    ] {
        let url = service(settings(clock));
        assert_eq!(exchange(&url, "POST /v1/timestamp", &[1; 32]).0, status, "{clock:?}");
    }
    let url = service(settings(Some(Synchronisation::Unsynchronised)));
    let error = timestamp_error(&url, Terms::default());
    assert!(error.to_string().contains("its clock is not synchronised"), "{error}");
    let (_, metrics) = exchange(&url, "GET /metrics", b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("sshsm_timestamp_clock_synchronised 0\n"), "{metrics}");
    assert!(metrics.contains("{result=\"clock_unsynchronised\"} 1\n"), "{metrics}");
}

/// systemd's knowledge is obtained from `timedatectl`, here one that prints what the test wants.
#[test]
fn the_system_is_asked_whether_its_clock_is_synchronised() {
    for (says, status, told) in [
        ("echo yes", 200, "the clock is synchronised"),
        ("echo no", 503, "nothing is signed until it is"),
        ("echo what?", 200, "cannot tell"),
        ("echo yes; exit 1", 503, "does not answer"),
        ("exec sleep 60", 503, "does not answer"),
    ] {
        let machine = machine();
        fs::create_dir(machine.path("bin")).unwrap();
        machine.write(
            "bin/timedatectl",
            &format!("#!/bin/sh\n[ \"$2\" = --property=NTPSynchronized ] || exit 2\n{says}\n"),
        );
        fs::set_permissions(machine.path("bin/timedatectl"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = machine.command(&[&BASE[..BASE.len() - 1], LISTEN].concat());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", machine.path("bin").display()));
        let service = Service::run(command);
        assert_eq!(service.request("POST /v1/timestamp", &[1; 32]).0, status, "{says}");
        if status == 503 {
            not_signed(&machine, &["--timestamp", &service.url], 1, "its clock is");
        }
        let stderr = service.end();
        assert!(stderr.contains(told), "{stderr}");
    }
}

/// The signature is right, and the time is not.
#[test]
fn a_service_that_lies_about_the_time_is_not_believed() {
    let machine = machine();
    let real = sshsm_ca::timestamp::now().unwrap().seconds();
    for (lie, code) in [(-3600_i64, 1), (3600, 1), (-61 * 60 * 24, 1), (30, 0), (-30, 0)] {
        let now = u32::try_from(i64::from(real) + lie).unwrap();
        let url = liar(now);
        match code {
            0 => signed(&machine, &["--timestamp", &url]),
            _ => not_signed(
                &machine,
                &["--timestamp", &url, "--timestamp-public-key", "timestamp.pub"],
                1,
                "more than 60 s apart",
            ),
        }
    }
    signed(&machine, &["--timestamp", &liar(real - 200), "--max-clock-skew", "5m"]);
    not_signed(&machine, &["--timestamp", &liar(real - 200)], 1, "more than 60 s apart");
}

/// A service with the right key and the wrong clock.
fn liar(now: u32) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut room = [0; 4096];
            let digest: [u8; 32] = loop {
                let length = stream.read(&mut room).unwrap();
                request.extend_from_slice(&room[..length]);
                if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n")
                    && let Some(digest) = request.get(end + 4..end + 36)
                {
                    break digest.try_into().unwrap();
                }
            };
            let now = sshsm_protocol::ssh::timestamp::Now::from_seconds(now);
            let message = sshsm_protocol::ssh::timestamp::message_of_digest(digest, now);
            let signature =
                sshsm_ca::timestamp::TimestampKey::sign_message(&mut authority(), &message).unwrap();
            let body = [&now.seconds().to_be_bytes()[..], &signature].concat();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for() {
    let machine = machine();
    let service = Service::start(&machine, &[]);
    let address = service.url.strip_prefix("http://").unwrap();
    let mut silent = TcpStream::connect(address).unwrap();
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(b"POST /v1/timestamp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\nabc")
        .unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = String::new();
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = slow.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let _ = silent.read(&mut [0; 64]).unwrap();
    signed(&machine, &["--timestamp", &service.url]);
}

/// Every step in a machine of its own, and nothing but files between them.
#[test]
fn a_request_travels_by_files_to_an_authority_and_to_a_ca_without_a_network() {
    let ca = machine();
    let (asker, authority) = (Machine::with_device("serial:none"), Machine::with_device("serial:none"));
    let carry = |from: &Machine, to: &Machine, name: &str| {
        fs::copy(from.path(name), to.path(name)).unwrap();
    };
    asker.new_key("alice", ed25519(3));
    carry(&ca, &asker, "ca.pub");
    let line = "request build -s ca.pub -I alice -n a,b -V +1h -z 7 -O no-pty alice.pub";
    let built = asker.without_password(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(built.code, 0, "{built:?}");
    let shown = asker.without_password(&["request", "show", "alice-cert.req"]);
    for part in ["serial:     7", "principals: a,b", "key id:     \"alice\"", "timestamp:  none"] {
        assert!(shown.stdout.contains(part), "{part}: {shown:?}");
    }

    carry(&asker, &authority, "alice-cert.req");
    authority.timestamp_key("timestamp");
    let vouched = authority.without_password(&[
        "timestamp",
        "sign",
        "--key",
        "timestamp",
        "alice-cert.req",
        "--format",
        "json",
    ]);
    assert_eq!(vouched.json()[0]["output"], "alice-cert.timed.req");
    let untimed =
        authority.without_password(&["timestamp", "verify", "--key", "timestamp.pub", "alice-cert.req"]);
    assert_eq!(untimed.code, 1, "{untimed:?}");

    carry(&authority, &ca, "alice-cert.timed.req");
    for how in [["--key", "timestamp.pub"], ["--template", "t.toml"]] {
        let line =
            [&["timestamp", "verify"], &how[..], &["alice-cert.timed.req", "--format", "json"]].concat();
        let verified = ca.without_password(&line).json();
        assert_eq!((verified["valid"].as_bool(), verified["serial"].as_u64()), (Some(true), Some(7)));
    }
    let wrong = ca.without_password(&["timestamp", "verify", "--key", "ca.pub", "alice-cert.timed.req"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.stderr.contains("is not signed by"), "{wrong:?}");
    let sign = ["sign", "-s", "5", "-t", "10", "--request", "alice-cert.timed.req", "--format", "json"];
    let run = ca.run(&sign);
    assert_eq!(run.json()["keys"][0]["certificate"], "alice-cert.pub");
    let line = fs::read_to_string(ca.path("alice-cert.pub")).unwrap();
    let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
    assert_eq!((certificate.serial(), certificate.key_id()), (7, "alice"));
    certificate.verify_signature().unwrap();
}

#[test]
fn a_stored_request_is_refused_as_any_other() {
    let machine = machine();
    machine.new_key("other", ed25519(77));
    for (principal, ca, code) in [("root", "ca.pub", 5), ("a", "other.pub", 5), ("a", "ca.pub", 0)] {
        let line = format!("request build -s {ca} -I x -n {principal} -V +1h user.pub");
        assert_eq!(machine.run(&line.split(' ').collect::<Vec<_>>()).code, 0);
        let sign = "sign -s 5 -t 10 --request user-cert.req --timestamp timestamp";
        let run = machine.run(&sign.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, code, "{run:?}");
    }
    let without = machine.run(&["sign", "-s", "5", "-t", "10", "--request", "user-cert.req"]);
    assert_eq!(without.code, 2, "{without:?}");
    assert!(without.stderr.contains("--timestamp"), "{without:?}");
    assert_eq!(machine.run(&["sign", "-s", "5", "-t", "10", "--timestamp", "timestamp"]).code, 2);
    machine.write("x.req", "nothing");
    let nothing = machine.run(&["request", "show", "x.req"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
}

/// `now u32 ‖ signature ‖ request`, as the vendor's tool writes it for RSA timestamp keys.
#[test]
fn the_vendors_request_file_is_read_and_written_the_same() {
    let vectors = fs::read_to_string(needs!(shared_vector("yubihsm2-ssh.json"))).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&vectors).unwrap();
    let bytes = |pointer: &str| -> Vec<u8> {
        let hex = vectors.pointer(pointer).unwrap().as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let machine = Machine::new();
    let request = bytes("/sign/request");
    let file = [&1_529_508_128_u32.to_be_bytes()[..], &bytes("/sign/timestamp_signature"), &request].concat();
    fs::write(machine.path("hw.timed.req"), &file).unwrap();
    fs::write(machine.path("t.bin"), bytes("/template/bytes")).unwrap();
    let shown = machine.run(&["request", "show", "hw.timed.req", "--format", "json"]).json();
    assert_eq!(shown["claimed_now"], 1_529_508_128);
    let verified =
        machine.run(&["timestamp", "verify", "--template", "t.bin", "hw.timed.req", "--format", "json"]);
    assert_eq!(verified.json()["valid"], true);
    // Rebuilt with our own key: the same request after another time and signature of the same lengths.
    machine.timestamp_key("timestamp");
    let line = ["timestamp", "sign", "--key", "timestamp", "hw.timed.req", "-o", "ours"];
    assert_eq!(machine.run(&line).code, 0);
    let ours = fs::read(machine.path("ours")).unwrap();
    assert_eq!(&ours[4 + 64..], request);
}

/// ssh-agent with keys of every kind.
struct SshAgent {
    child: Child,
    socket: PathBuf,
}

impl SshAgent {
    fn start(machine: &Machine) -> Result<Self, Missing> {
        let program = requirement::program("ssh-agent", "openssh-client")?;
        let socket = machine.path("agent.sock");
        let mut command = Command::new(program);
        command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        command.env("SSH_ASKPASS", "false").env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", "none");
        let child = command.spawn().unwrap();
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { child, socket })
    }

    fn add(&self, arguments: &[&str]) {
        let mut command = Command::new("ssh-add");
        let directory = self.socket.parent().unwrap();
        command.args(arguments).env("SSH_AUTH_SOCK", &self.socket).current_dir(directory);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_key_in_an_ssh_agent_vouches_whatever_its_kind() {
    let machine = machine();
    let agent = needs!(SshAgent::start(&machine));
    for (kind, bits) in [
        ("ed25519", "256"),
        ("ecdsa", "256"),
        ("ecdsa", "384"),
        ("ecdsa", "521"),
        ("rsa", "2048"),
        ("rsa", "3072"),
    ] {
        let path = machine.path(&format!("{kind}{bits}"));
        let mut keygen = Command::new("ssh-keygen");
        assert!(
            keygen
                .args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        agent.add(&["-q", path.to_str().unwrap()]);
        fs::remove_file(&path).unwrap();
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        let public = PublicKey::from_openssh(&public).unwrap();
        let mut key = AgentKey::new(&agent.socket, public.clone()).unwrap();
        let (now, signature) = key.timestamp(b"a request").unwrap();
        assert_eq!(signature.len(), key.algorithm().unwrap().signature_length(), "{kind} {bits}");
        assert!(verify(public.key_data(), b"a request", now, &signature).unwrap(), "{kind} {bits}");
    }
    agent.add(&["-q", "timestamp"]);
    let socket = agent.socket.to_str().unwrap();
    let line = ["sign", "-s", "5", "-t", "10", "-I", "me", "-n", "a", "-V", "+1h", "user.pub"];
    let line = [&line[..], &["--timestamp", "agent:timestamp.pub"]].concat();
    let run = machine.with_environment(&line, &[("SSH_AUTH_SOCK", socket)]);
    assert_eq!(run.code, 0, "{run:?}");
    let mut command = machine.command(&[
        "timestamp",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--key",
        "agent:timestamp.pub",
        "--allow-unsynchronised-clock",
    ]);
    command.env("SSH_AUTH_SOCK", socket);
    let service = Service::run(command);
    signed(&machine, &["--timestamp", &service.url]);
    drop(agent);
    not_signed(&machine, &["--timestamp", &service.url], 1, "HTTP status 500");
    assert!(service.end().contains("cannot be reached"));
}

#[test]
fn an_ssh_agent_that_is_absent_lacks_the_key_or_refuses_is_told_apart() {
    let machine = machine();
    let source = ["--timestamp", "agent:timestamp.pub"];
    not_signed(&machine, &source, 1, "SSH_AUTH_SOCK is not set");
    let with = |socket: &str, why: &str| {
        let line = ["sign", "-s", "5", "-t", "10", "-I", "me", "-n", "a", "user.pub"];
        let run = machine.with_environment(&[&line[..], &source].concat(), &[("SSH_AUTH_SOCK", socket)]);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains(why), "{why}: {run:?}");
    };
    with("/nowhere/agent", "cannot be reached");
    let agent = needs!(SshAgent::start(&machine));
    let socket = agent.socket.to_str().unwrap();
    with(socket, "does not hold the key SHA256:");
    // Its user is asked, and `false` answers.
    agent.add(&["-q", "-c", "timestamp"]);
    with(socket, "refuses to sign with the key SHA256:");
}

/// One that does not exist, one that is not a request, one whose output is in the way: the others are signed.
#[test]
fn a_request_that_fails_does_not_stop_the_others_and_is_named() {
    let machine = machine();
    for name in ["a", "b", "c"] {
        machine.new_key(name, ed25519(1));
        let build = ["request", "build", "-s", "ca.pub", "-I", "i", "-n", "a", "-V", "+1h"];
        assert_eq!(machine.run(&[&build[..], &[&format!("{name}.pub")]].concat()).code, 0);
    }
    machine.write("no-request.req", "no request");
    let request = fs::read(machine.path("b-cert.req")).unwrap();
    fs::write(machine.path("long.req"), [&request[..], b"behind"].concat()).unwrap();
    machine.write("b-cert.timed.req", "something else");
    let files = ["absent.req", "a-cert.req", "no-request.req", "b-cert.req", "long.req", "c-cert.req"];
    let sign = ["timestamp", "sign", "--key", "timestamp", "--format", "json"];
    let run = machine.run(&[&sign[..], &files].concat());
    assert_eq!(run.code, 6, "the gravest: {run:?}");
    assert!(run.stderr.contains("4 of 6 requests were not signed"), "{run:?}");
    for (file, why) in [
        ("absent.req not signed: cannot read absent.req", ""),
        ("no-request.req not signed: ", "not a certificate request"),
        ("b-cert.req not signed: cannot write b-cert.timed.req", "--replace"),
        ("long.req not signed: long.req", "6 bytes after"),
    ] {
        let line = run.stderr.lines().find(|line| line.starts_with(file));
        assert!(line.is_some_and(|line| line.contains(why)), "{file} {why}: {run:?}");
    }
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    for (index, file) in files.iter().enumerate() {
        assert_eq!(report[index]["request"], *file);
        assert_eq!(report[index]["error"].is_string(), ![1, 5].contains(&index), "{report}");
    }
    for name in ["a-cert.timed.req", "c-cert.timed.req"] {
        assert_eq!(machine.run(&["timestamp", "verify", "--key", "timestamp.pub", name]).code, 0);
    }
    assert!(!machine.path("long.timed.req").exists());
    let one = machine.run(&["timestamp", "sign", "--key", "timestamp", "no-request.req"]);
    assert!(one.code == 1 && one.stderr.starts_with("error: no-request.req"), "{one:?}");
    let good =
        machine.run(&["timestamp", "sign", "--key", "timestamp", "a-cert.req", "c-cert.req", "--replace"]);
    assert_eq!(good.code, 0, "{good:?}");
}

#[test]
fn a_wrong_timestamp_key_is_named_with_the_one_that_is_wanted() {
    let machine = machine();
    machine.new_key("other", ed25519(9));
    let fingerprint = |name: &str| {
        let line = fs::read_to_string(machine.path(name)).unwrap();
        PublicKey::from_openssh(&line).unwrap().fingerprint(ssh_key::HashAlg::Sha256).to_string()
    };
    let (wanted, found) = (fingerprint("timestamp.pub"), fingerprint("other.pub"));
    let says = |run: &Run| {
        let line = run
            .stderr
            .lines()
            .chain(run.stdout.lines())
            .find(|line| line.trim_start().starts_with("timestamp-key "));
        let line = line.unwrap_or_else(|| panic!("{run:?}"));
        assert!(line.contains("refused") && line.contains("signature not valid"), "{line}");
        line.to_owned()
    };
    // The device's own verdict, and that of a device that does not explain.
    let line = says(&sign(&machine, &["--timestamp", "other"]));
    assert!(line.contains(&wanted) && line.contains(&found), "{line}");
    let line = says(&sign(&machine, &["--timestamp", "other", "--dry-run"]));
    assert!(line.contains(&wanted) && line.contains(&found), "{line}");
    // The right key: nothing is added to the verdict.
    let run = sign(&machine, &["--timestamp", "timestamp", "-n", "root"]);
    assert!(run.code != 0 && !run.stderr.contains(&wanted), "{run:?}");

    // A service, which reports its key.
    let service = Service::start(&machine, &[]);
    let pinned = ["--timestamp", &service.url, "--timestamp-public-key", "other.pub"];
    let run = sign(&machine, &pinned);
    assert!(run.stderr.contains(&format!("{found} is required")), "{run:?}");
    assert!(run.stderr.contains(&format!("signs with {wanted}")), "{run:?}");

    // A file does not say whose signature it contains.
    let saved = sign(&machine, &["--timestamp", "other", "--save-request"]);
    assert_ne!(saved.code, 0);
    let run = machine.run(&["template", "check", "t.toml", "user-cert.req"]);
    assert!(says(&run).contains(&wanted), "{run:?}");
}

#[test]
fn a_hang_up_has_the_service_read_its_tokens_again_and_a_broken_file_changes_nothing() {
    let machine = machine();
    let other = "fedcba9876543210fedcba9876543210";
    machine.write("tokens", TOKEN);
    let mut service = Service::start(&machine, &["--rate", "1000/s", "--token-file", "tokens"]);
    let mut told = BufReader::new(service.child.stderr.take().unwrap());
    let status = |token: &str| {
        let head = format!("GET /v1/key\nAuthorization: Bearer {token}\r\n");
        service.request(&head, b"").0
    };
    let mut hang_up = |expected: &str| {
        let pid = service.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        loop {
            let mut line = String::new();
            assert_ne!(told.read_line(&mut line).unwrap(), 0, "it ended without {expected:?}");
            assert!(!line.contains(TOKEN) && !line.contains(other), "{line}");
            if line.contains("again") {
                assert!(line.contains(expected), "{line}");
                return;
            }
        }
    };
    assert_eq!((status(TOKEN), status(other)), (200, 401));
    machine.write("tokens", &format!("# new\n{other}\n"));
    assert_eq!((status(TOKEN), status(other)), (200, 401), "not before the signal");
    hang_up("1 token read again from tokens");
    assert_eq!((status(TOKEN), status(other)), (401, 200));
    machine.write("tokens", &format!("{TOKEN}\nshort\n"));
    hang_up("the old ones stay in force: tokens: the token on line 2 is shorter");
    assert_eq!((status(TOKEN), status(other)), (401, 200));
    fs::set_permissions(machine.path("tokens"), fs::Permissions::from_mode(0o644)).unwrap();
    hang_up("the old ones stay in force: cannot read tokens: it is a secret");
    fs::remove_file(machine.path("tokens")).unwrap();
    hang_up("the old ones stay in force: cannot read tokens");
    assert!(
        Command::new("mkfifo").args(["-m", "600"]).arg(machine.path("tokens")).status().unwrap().success()
    );
    hang_up("the old ones stay in force: cannot read tokens: only a regular file is read again");
    fs::remove_file(machine.path("tokens")).unwrap();
    machine.write("tokens", other);
    hang_up("1 token read again from tokens");
    assert_eq!((status(TOKEN), status(other)), (401, 200));

    // Without tokens it keeps running as well.
    let service = Service::start(&machine, &[]);
    let pid = service.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    thread::sleep(Duration::from_millis(100));
    assert_eq!(service.request("GET /v1/key", b"").0, 200);
}
