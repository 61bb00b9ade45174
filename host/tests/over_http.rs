//! The real binary and the library's client, over HTTP to a device behind a connector.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{net::TcpListener, thread};

use machine::Machine;
use sshsm_simulator::{Simulator, connector};

/// A fresh device behind a connector, for as long as this process lives.
fn connector() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let device = Simulator::memory().start().unwrap();
            connector::serve(listener, device, connector::Timeouts::default(), std::future::pending())
                .await
                .unwrap();
        });
    });
    address
}

#[test]
fn keys_templates_and_certificates_work_as_in_process() {
    let machine = Machine::with_device(&connector());
    let info = machine.without_password(&["device", "info", "--format", "json"]).json();
    assert!(info["device"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    for line in [
        "key generate --algorithm p256 --id 5",
        "template put t.toml --id 10",
        "sign -s 5 -t 10 --timestamp-key timestamp -I me -n a -V +1h user.pub",
    ] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run:?}");
    }
    let line = std::fs::read_to_string(machine.path("user-cert.pub")).unwrap();
    ssh_key::Certificate::from_openssh(&line).unwrap().verify_signature().unwrap();
    let refused =
        ["sign", "-s", "5", "-t", "10", "--timestamp-key", "timestamp", "-I", "me", "-n", "root", "user.pub"];
    assert_eq!(machine.run(&refused).code, 5);
}

#[test]
fn authentication_failures_are_told_apart() {
    let machine = Machine::with_device(&connector());
    let wrong = machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", "wrong staple")]);
    assert_eq!(wrong.code, 4, "{wrong:?}");
    wrong.tells_no(&["wrong staple"]);
    assert_eq!(machine.run(&["key", "list", "--auth-key", "0x7"]).code, 4);
    // Sessions that were left open by wrong passwords do not keep the right one out.
    for _ in 0..20 {
        assert_eq!(machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", "x")]).code, 4);
    }
    assert_eq!(machine.run(&["key", "list"]).code, 0);
}

#[test]
fn where_no_device_is_the_exit_code_is_3() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let machine = Machine::with_device(&format!("http://{free}"));
    let run = machine.run(&["key", "list"]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains(&free.to_string()) && run.stderr.contains("try:"), "{run:?}");
}
