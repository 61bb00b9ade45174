//! Commands per second and their latencies, as a client sees them: the Rust crate `yubihsm` over HTTP to our
//! simulator, compared with the crate's built-in mock of a device, for the same calls and without HTTP.
//! Prints one table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark reports by stopping"
)]

use std::time::{Duration, Instant};

use sshsm_simulator::Simulator;
use sshsm_tests::processor;
use yubihsm::{
    Capability, Client, Connector, Credentials, Domain, HttpConfig,
    asymmetric::Algorithm::{self, EcP256, Ed25519, Rsa2048},
};

/// How long each call is repeated, after a warm-up of a tenth of it.
const TIME: Duration = Duration::from_secs(2);
const MESSAGE: [u8; 1024] = [0x5a; 1024];
const DIGEST: [u8; 32] = [0xa5; 32];

fn main() {
    let device = Simulator::memory().start().unwrap().serve().unwrap();
    let address = device.address();
    let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 60_000 };
    let simulator = Client::open(Connector::http(&config), Credentials::default(), true).unwrap();
    let mock = Client::open(Connector::mockhsm(), Credentials::default(), true).unwrap();

    println!(
        "Calls of the crate yubihsm, one client, {} s each: sshsm-simulator over HTTP, and the crate's mockhsm without\n\
         {}\n",
        TIME.as_secs(),
        processor::name()
    );
    println!("{:<16}  {:<42}  {:<42}", "", "sshsm-simulator, HTTP", "mockhsm, in process");
    let columns = format!("{:>9} {:>10} {:>10} {:>10}", "calls/s", "p50", "p95", "p99");
    println!("{:<16}  {columns:<42}  {columns:<42}", "call");

    row(
        "echo 1 KiB",
        [&simulator, &mock]
            .map(|client| Some(measure(|| assert_eq!(client.echo(MESSAGE).unwrap(), MESSAGE)))),
    );
    for (name, id, algorithm, capability) in [
        ("sign P-256", 12, EcP256, Capability::SIGN_ECDSA),
        ("sign Ed25519", 46, Ed25519, Capability::SIGN_EDDSA),
        ("sign RSA-2048", 9, Rsa2048, Capability::SIGN_PKCS),
    ] {
        // The mock panics when it is asked for RSA.
        let contenders = [Some(&simulator), Some(&mock).filter(|_| algorithm != Rsa2048)];
        row(
            name,
            contenders.map(|client| {
                let client = client?;
                client
                    .generate_asymmetric_key(id, "bench".into(), Domain::DOM1, capability, algorithm)
                    .unwrap();
                Some(measure(|| sign(client, id, algorithm)))
            }),
        );
    }
}

fn sign(client: &Client, id: u16, algorithm: Algorithm) {
    let length = match algorithm {
        EcP256 => client.sign_ecdsa_prehash_raw(id, DIGEST).unwrap().len(),
        Ed25519 => client.sign_ed25519(id, DIGEST).unwrap().to_bytes().len(),
        _ => client.sign_rsa_pkcs1v15_sha256(id, &DIGEST).unwrap().len(),
    };
    assert!(length >= 64);
}

/// The duration of each call, ascending.
fn measure(mut call: impl FnMut()) -> Vec<Duration> {
    let mut repeat = |time: Duration| {
        let (start, mut calls) = (Instant::now(), Vec::new());
        while calls.len() < 100 || start.elapsed() < time {
            let call_start = Instant::now();
            call();
            calls.push(call_start.elapsed());
        }
        calls
    };
    repeat(TIME / 10);
    let mut calls = repeat(TIME);
    calls.sort();
    calls
}

fn row(name: &str, contenders: [Option<Vec<Duration>>; 2]) {
    let columns = contenders.map(|calls| {
        let Some(calls) = calls else { return "        – (it has none)".to_owned() };
        let rate = calls.len() as f64 / calls.iter().sum::<Duration>().as_secs_f64();
        let percentile = |percent: usize| {
            format!("{:.0} µs", calls[(calls.len() - 1) * percent / 100].as_secs_f64() * 1e6)
        };
        format!("{rate:>9.0} {:>10} {:>10} {:>10}", percentile(50), percentile(95), percentile(99))
    });
    println!("{name:<16}  {:<42}  {:<42}", columns[0], columns[1]);
}
