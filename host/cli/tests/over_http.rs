//! The real binary and the library's client, over HTTP to a device behind a connector.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use machine::Machine;
use sshsm_simulator::{Builder, Presence, Simulator, connector};

/// A fresh device behind a connector, for as long as this process lives.
fn connector() -> String {
    serve(Simulator::memory())
}

fn serve(device: Builder) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let device = device.start().unwrap();
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
fn a_device_that_is_not_touched_in_time_signs_nothing_and_has_its_own_exit_code() {
    let touched = Arc::new(AtomicBool::new(true));
    let finger = touched.clone();
    let touch = move |_| match finger.load(Relaxed) {
        true => Presence::Confirmed,
        false => Presence::TimedOut,
    };
    let machine = Machine::with_device(&serve(Simulator::memory().touch(Box::new(touch))));
    let get = || machine.run(&["device", "option", "get", "user-presence", "--format", "json"]).json();
    assert_eq!(get(), serde_json::json!({ "option": "user-presence", "value": "off", "timeout": 15 }));
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    for line in [
        "key generate --algorithm p256 --id 5",
        "template put t.toml --id 10",
        "device option set user-presence certificates --timeout 9",
    ] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run:?}");
    }
    assert_eq!(get()["value"], "certificates");
    let told = machine.run(&["device", "option", "get", "user-presence"]).stdout;
    assert_eq!(told, "user-presence:  certificates, 9 seconds\n");

    let sign = |principal: &str| {
        let line = format!("sign -s 5 -t 10 --timestamp-key timestamp -I me -n {principal} -V +1h user.pub");
        machine.run(&line.split(' ').collect::<Vec<_>>())
    };
    touched.store(false, Relaxed);
    let run = sign("a");
    assert_eq!(run.code, 7, "{run:?}");
    assert!(run.stderr.contains("the device was not touched in time"), "{run:?}");
    assert!(run.stderr.contains("touch the device while it waits"), "{run:?}");
    assert!(!machine.path("user-cert.pub").exists());
    assert_eq!(sign("root").code, 5, "refused, touched or not");
    assert_eq!(machine.run(&["device", "option", "set", "user-presence", "off"]).code, 7);
    touched.store(true, Relaxed);
    assert_eq!(sign("a").code, 0);
    assert_eq!(machine.run(&["device", "option", "set", "user-presence", "off"]).code, 0);
    assert_eq!(machine.run(&["device", "option", "set", "user-presence", "never"]).code, 2);
    assert_eq!(machine.run(&["device", "option", "get", "force-audit"]).stdout, "force-audit:  off\n");
}

#[test]
fn frozen_templates_keep_signing_and_a_change_is_refused_with_the_remedy() {
    let machine = Machine::with_device(&serve(Simulator::memory()));
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    let run = |line: &str| machine.run(&line.split(' ').collect::<Vec<_>>());
    for line in ["key generate --algorithm p256 --id 5", "template put t.toml --id 10"] {
        assert_eq!(run(line).code, 0, "{line}");
    }
    assert_eq!(run("device option get templates").stdout, "templates:  open\n");
    assert_eq!(run("device option set templates open").code, 2, "that is what only a reset does");
    let frozen = run("device option set templates frozen");
    assert_eq!(
        (frozen.code, frozen.stderr.as_str()),
        (0, "templates are frozen until the device is reset\n")
    );
    let json = serde_json::json!({ "option": "templates", "value": "frozen" });
    assert_eq!(run("device option get templates --format json").json(), json);
    for line in ["template put t.toml --id 11", "key delete 10 --type template"] {
        let refused = run(line);
        assert_eq!(refused.code, 5, "{refused:?}");
        assert!(refused.stderr.contains("templates are frozen until the device is reset"), "{refused:?}");
        assert!(refused.stderr.contains("only `sshsm device reset`"), "{refused:?}");
    }
    let signed = run("sign -s 5 -t 10 --timestamp-key timestamp -I me -n a -V +1h user.pub");
    assert_eq!(signed.code, 0, "{signed:?}");
    assert_eq!(run("device reset --delete-everything").code, 0);
    assert_eq!(run("template put t.toml --id 11").code, 0);
}

#[test]
fn authentication_failures_are_told_apart() {
    let machine = Machine::with_device(&connector());
    let wrong = machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", "wrong staple")]);
    assert_eq!(wrong.code, 4, "{wrong:?}");
    wrong.tells_no(&["wrong staple"]);
    assert_eq!(machine.run(&["key", "list", "--auth-key", "0x7"]).code, 4);
    // Sessions left open by wrong passwords do not keep the right one out.
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
