//! How much memory an explanation takes: any session that may sign may ask for one, with the longest request
//! that fits a message, and a device that runs out of memory restarts.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "model/case.rs"]
mod case;
mod model;

use case::Case;
use peak_alloc::PeakAlloc;
use sshsm_firmware::crypto::key;
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::ssh::explanation;
use sshsm_protocol::ssh::request::CertificateKind;
use sshsm_protocol::ssh::rules::{Patterns, Rules};
use sshsm_protocol::{AsymmetricAlgorithm, Command};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The peak memory of a command on top of what the device holds, and its answer.
fn cost(case: &Case, command: Command) -> (usize, Vec<u8>) {
    let (mut device, mut session) = case.device();
    let payload = case.payload();
    // The CA key is loaded once, and stays.
    session.send(&mut device, Command::ExplainSshRequest, &payload).unwrap();
    let (mut message, mut response) = ([0; MAX_MESSAGE], [0; MAX_MESSAGE]);
    let length = session.0.seal(command, &payload, &mut message).unwrap();
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let length = device.handle(&message[..length], &mut response);
    let cost = HEAP.peak_usage() - before;
    (cost, session.0.open(&mut response[..length]).unwrap().payload.to_vec())
}

#[test]
fn an_explanation_takes_no_more_memory_for_a_longer_request() {
    let [short, long] = [1, 2700].map(|length| {
        let mut case = Case::new();
        // Each of these bytes takes five characters to print.
        let name: &'static [u8] = vec![1; length].leak();
        (case.principals, case.kind) = (vec![name], CertificateKind::Host);
        case.rules = Rules {
            allow_principals: Some(Patterns::decode(b"zone-*\0").unwrap()),
            host_patterns: true,
            ..Rules::default()
        };
        let (cost, answer) = cost(&case, Command::ExplainSshRequest);
        let (_, findings) = explanation::decode(&answer).unwrap();
        let told = findings.map(Result::unwrap).filter(|finding| finding.asked.starts_with("\\u{1}")).count();
        assert_eq!(told, 4, "forbid-principals, allow-principals, allow-empty-principals and host-patterns");
        println!("EXPLAIN with a principal of {length} bytes takes {cost} bytes");
        cost
    });
    assert_eq!(short, long);
}

/// Counted in the emulator, over every kind of CA key: docs/boards.md.
const CERTIFICATE: usize = 14_848;

#[test]
fn an_explanation_takes_no_more_memory_than_a_certificate() {
    for authority in [AsymmetricAlgorithm::Ed25519, AsymmetricAlgorithm::Rsa2048] {
        let mut case = Case::new();
        case.timestamp_algorithm = authority;
        case.timestamp_body = key::generate(authority, &mut case::entropy()).unwrap().to_vec();
        let name: &'static [u8] = vec![1; 2400].leak();
        case.principals = vec![name];
        let (explained, _) = cost(&case, Command::ExplainSshRequest);
        println!("EXPLAIN with a timestamp by {authority} takes {explained} bytes");
        assert!(explained <= CERTIFICATE, "{authority}: {explained}");
    }
}
