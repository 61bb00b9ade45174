//! P-256 authentication keys: a key in a file opens sessions instead of a password, only with the device that
//! it knows.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use machine::{Machine, Run};
use ssh_key::private::{EcdsaKeypair, KeypairData};
use sshsm_simulator::{
    Simulator,
    connector::{self, Settings},
};

/// A P-256 key whose private number begins with a zero, as one in 256 does.
fn p256(last: u8) -> KeypairData {
    let mut scalar = [7; 32];
    (scalar[0], scalar[31]) = (0, last);
    let key = p256::SecretKey::from_slice(&scalar).unwrap();
    KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public: key.public_key().into(), private: key.into() })
}

/// A device with CA key 5, template 10 and the authentication key 2, whose private half is in `mine`.
fn prepared(machine: Machine) -> Machine {
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    machine.new_key("mine", p256(1));
    machine.new_key("other", p256(2));
    for line in [
        "key generate --algorithm ed25519 --id 5",
        "template put t.toml --id 10",
        "authentication-key put --id 2 --public-key mine.pub --capabilities \
         sign-ssh-certificate,get-template,change-authentication-key",
    ] {
        let run = machine.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run:?}");
    }
    let device = machine.without_password(&["device", "public-key"]);
    assert_eq!(device.code, 0, "{device:?}");
    machine.write("device.pub", &device.stdout);
    machine
}

/// Without any password.
fn mine(machine: &Machine, line: &str) -> Run {
    machine.without_password(&[&["--auth-key", "2"], &*line.split(' ').collect::<Vec<_>>()].concat())
}

const SIGN: &str = "sign -s 5 -t 10 --timestamp timestamp -I me -V +1h";

#[test]
fn a_private_key_opens_sessions_in_place_of_a_password() {
    let machine = prepared(Machine::new());
    for device in ["", " --device-key device.pub"] {
        let list = mine(&machine, &format!("key list --auth-key-file mine{device}"));
        assert_eq!(list.code, 0, "{list:?}");
        assert!(list.stdout.contains("ecp256-yubico-authentication"), "{list:?}");
        let signed = mine(&machine, &format!("{SIGN} --auth-key-file mine{device} -n a user.pub"));
        assert_eq!(signed.code, 0, "{signed:?}");
        let refused = mine(&machine, &format!("{SIGN} --auth-key-file mine{device} -n root user.pub"));
        assert_eq!(refused.code, 5, "{refused:?}");
    }
    let by_environment =
        [("SSHSM_AUTH_KEY", "2"), ("SSHSM_AUTH_KEY_FILE", "mine"), ("SSHSM_DEVICE_KEY", "device.pub")];
    assert_eq!(machine.with_environment(&["key", "list"], &by_environment).code, 0);
}

#[test]
fn another_private_key_and_another_device_are_told() {
    let machine = prepared(Machine::new());
    for line in ["key list --auth-key-file other", "key list --auth-key-file mine --device-key other.pub"] {
        let run = mine(&machine, line);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(
            run.stderr.contains("authentication key 0x0002 is another, or this is another device"),
            "{run:?}"
        );
    }
    let wrong_kind = mine(&machine, "key list --auth-key-file user");
    assert_eq!(wrong_kind.code, 2, "{wrong_kind:?}");
    assert!(wrong_kind.stderr.contains("user is an ed25519 key, and P-256 is needed"), "{wrong_kind:?}");
    let unknown = machine.without_password(&["--auth-key", "9", "--auth-key-file", "mine", "key", "list"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    let both = mine(&machine, "key list --auth-key-file mine --password-file mine");
    assert_eq!(both.code, 2, "{both:?}");
}

#[test]
fn an_authentication_key_changes_from_a_password_to_a_public_key_and_back() {
    let machine = prepared(Machine::new());
    let change = machine.run(&["authentication-key", "change", "--public-key", "other.pub"]);
    assert_eq!(change.code, 0, "{change:?}");
    assert!(change.stderr.contains("0x0001 has a new public key"), "{change:?}");
    assert_ne!(machine.run(&["key", "list"]).code, 0, "no password opens it");
    assert_eq!(machine.without_password(&["key", "list", "--auth-key-file", "other"]).code, 0);
    let back = ["authentication-key", "change", "--auth-key-file", "other"];
    let back = machine.with_environment(&back, &[("SSHSM_NEW_PASSWORD", "correct horse")]);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", "correct horse")]).code, 0);
    for wrong in ["user.pub", "mine", "t.toml"] {
        let put = ["authentication-key", "put", "--capabilities", "none", "--public-key", wrong];
        let run = machine.with_environment(&put, &[("SSHSM_PASSWORD", "correct horse")]);
        assert_ne!(run.code, 0, "{run:?}");
    }
}

/// A relay could report another device's public key, and impersonate that device.
#[test]
fn on_a_network_the_device_must_be_known() {
    let device = Simulator::memory().start().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let settings = Settings { hosts: vec!["0.0.0.0".parse().unwrap()], ..Settings::default() };
            connector::serve(listener, device, settings, std::future::pending()).await.unwrap();
        });
    });
    let machine = prepared(Machine::with_device(&format!("http://127.0.0.1:{port}")));
    // 0.0.0.0 is this computer, and no loopback.
    let remote = format!("key list --auth-key-file mine --device http://0.0.0.0:{port}");
    let refused = mine(&machine, &remote);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--device-key FILE"), "{refused:?}");
    let known = mine(&machine, &format!("{remote} --device-key device.pub"));
    assert_eq!(known.code, 0, "{known:?}");
}

#[test]
fn a_device_is_provisioned_with_a_public_key_that_signs_and_a_second_run_keeps_it() {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.new_key("user", machine::ed25519(1));
    machine.new_key("mine", p256(1));
    let line = ["provision", "--template", "t.toml", "--signer-public-key", "mine.pub", "--format", "json"];
    let new = [("SSHSM_NEW_PASSWORD", "correct horse")];
    for outcome in ["made", "kept"] {
        let record = machine.with_environment(&line, &new).json();
        let steps = record["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["outcome"] == outcome), "{record}");
    }
    let signed = mine(&machine, &format!("{SIGN} --auth-key-file mine -n a user.pub"));
    assert_eq!(signed.code, 0, "{signed:?}");
    assert_eq!(mine(&machine, "key generate --algorithm ed25519 --auth-key-file mine").code, 5);
    // With a password in its place it is another device than that.
    let other = ["provision", "--template", "t.toml"];
    let run = machine.with_environment(&other, &[new[0], ("SSHSM_SIGNER_PASSWORD", "battery staple")]);
    assert!(run.code == 1 && run.stderr.contains("not fresh"), "{run:?}");
}
