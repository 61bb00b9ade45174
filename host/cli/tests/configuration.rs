//! The source of an option's value: command line, environment, files; and certificate authorities by name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use machine::{Machine, ed25519};
use std::fs;

/// A device with CA key 5 under template 10, and keys to sign.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    let generate = ["key", "generate", "--algorithm", "ed25519", "--id", "5"];
    machine.write("ca.pub", &machine.run(&generate).stdout);
    assert_eq!(machine.run(&["template", "put", "t.toml", "--id", "10"]).code, 0);
    machine.new_key("user", ed25519(1));
    machine
}

/// Writes the user's configuration file.
fn configure(machine: &Machine, text: &str) {
    fs::create_dir_all(machine.path(".config/sshsm")).unwrap();
    machine.write(".config/sshsm/config.toml", text);
}

const SIGN: [&str; 8] = ["sign", "-I", "me", "-n", "a", "-V", "+1h", "user.pub"];

#[test]
fn a_ca_is_known_by_its_name_and_all_it_needs() {
    let machine = machine();
    machine.write("password", "password\n");
    // Paths begin at the file.
    configure(
        &machine,
        "[ca.users]\ndevice = \"sim:../../device\"\nkey = 5\ntemplate = \"0x0a\"\ntimestamp = \"../../timestamp\"\n\
         public-key = \"../../ca.pub\"\npassword-file = \"../../password\"\n",
    );
    let sign = [&SIGN[..], &["-s", "users", "--format", "json"]].concat();
    let mut command = machine.command(&sign);
    let output = command.env_remove("SSHSM_DEVICE").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["enforced_by"], "device");
    assert_eq!((&report["ca_key"], &report["template"]), (&"0x0005".into(), &"0x000a".into()), "{report}");

    // A value given on the command line overrides it.
    let elsewhere = machine.without_password(&[&sign[..], &["--device", "http://127.0.0.1:1"]].concat());
    assert_eq!(elsewhere.code, 3, "{elsewhere:?}");
    let unknown = machine.run(&[&SIGN[..], &["-s", "hosts"]].concat());
    assert!(unknown.code == 2 && unknown.stderr.contains("only users"), "{unknown:?}");
}

#[test]
fn nothing_is_signed_by_another_ca_than_the_configured_one() {
    let machine = machine();
    configure(
        &machine,
        "[ca.users]\nkey = 5\ntemplate = 10\ntimestamp = \"../../timestamp\"\npublic-key = \"../../user.pub\"\n",
    );
    let run = machine.run(&[&SIGN[..], &["-s", "users"]].concat());
    assert!(run.code == 1 && run.stderr.contains("the configuration requires SHA256:"), "{run:?}");
    assert!(!machine.path("user-cert.pub").exists());
}

#[test]
fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let machine = machine();
    configure(
        &machine,
        "format = \"json\"\n[sign]\nca = 5\ntemplate = 10\ntimestamp = \"../../timestamp\"\nserial = 7\n",
    );
    let serial = |run: machine::Run| run.json()["keys"][0]["serial"].clone();
    assert_eq!(serial(machine.run(&SIGN)), 7);
    assert_eq!(serial(machine.with_environment(&SIGN, &[("SSHSM_SIGN_SERIAL", "8")])), 8);
    let given = [&SIGN[..], &["-z", "9"]].concat();
    assert_eq!(serial(machine.with_environment(&given, &[("SSHSM_SIGN_SERIAL", "8")])), 9);

    // One file instead of the other.
    machine.write(
        "other.toml",
        "[sign]\nca = 5\ntemplate = 10\ntimestamp = \"timestamp\"\nserial = 10\nformat = \"text\"\n",
    );
    let wrong = machine.run(&[&SIGN[..], &["--config", "other.toml"]].concat());
    assert!(
        wrong.code == 2 && wrong.stderr.contains("sets format, which is not an option of `sshsm sign`"),
        "{wrong:?}"
    );
    machine.write("other.toml", "[sign]\nca = 5\ntemplate = 10\ntimestamp = \"timestamp\"\nserial = 10\n");
    let run = machine.run(&[&SIGN[..], &["--config=other.toml"]].concat());
    assert!(run.stderr.contains("serial 10 "), "{run:?}");
}

/// A file named for the call, then the variable, then a file named in the configuration: for each password.
#[test]
fn a_new_password_comes_from_the_command_line_before_the_environment_before_the_file() {
    let file = |name: &str| format!("the new password of {name}");
    for (command, option, variable, more) in [
        (&["authentication-key", "change"][..], "new-password-file", "SSHSM_NEW_PASSWORD", &[][..]),
        (
            &["provision", "--template", "t.toml"],
            "new-password-file",
            "SSHSM_NEW_PASSWORD",
            &[("SSHSM_SIGNER_PASSWORD", "the password of the signer")],
        ),
        (
            &["provision", "--template", "t.toml"],
            "signer-password-file",
            "SSHSM_SIGNER_PASSWORD",
            &[("SSHSM_NEW_PASSWORD", "the password of the administrator")],
        ),
    ] {
        let table = command[..command.len().min(if command[0] == "provision" { 1 } else { 2 })].join(".");
        let opens = |command_line: bool, environment: bool| {
            let machine = Machine::new();
            machine.timestamp_key("timestamp");
            machine.template("t.toml", "5m", "10h", &[]);
            for name in ["configured", "given"] {
                machine.write(name, &format!("{}\n", file(name)));
            }
            configure(&machine, &format!("[{table}]\n{option} = \"../../configured\"\n"));
            let (from_variable, long) = (file("variable"), format!("--{option}"));
            let mut variables = more.to_vec();
            if environment {
                variables.push((variable, &from_variable));
            }
            let given: &[&str] = if command_line { &[&long, "given"] } else { &[] };
            let run = machine.with_environment(&[command, given].concat(), &variables);
            assert_eq!(run.code, 0, "{run:?}");
            let key = if option == "signer-password-file" { "2" } else { "1" };
            ["given", "variable", "configured"].into_iter().find(|name| {
                let opened = [("SSHSM_PASSWORD", &*file(name)), ("SSHSM_AUTH_KEY", key)];
                machine.with_environment(&["key", "list"], &opened).code == 0
            })
        };
        assert_eq!(opens(true, true), Some("given"), "{option}");
        assert_eq!(opens(false, true), Some("variable"), "{option}");
        assert_eq!(opens(false, false), Some("configured"), "{option}");
    }
}

#[test]
fn a_file_that_says_nonsense_is_named() {
    let machine = machine();
    for (text, code, said) in [
        ("device = ", 2, "line 1"),
        ("no-such-option = 1", 2, "no-such-option, which is not an option of every command"),
        ("[frobnicate]\nx = 1", 2, "[frobnicate], but there is no such command"),
        ("device = 1.5", 2, "device a value"),
        ("[ca.users]\nkey = 0", 2, "an id is a number"),
        ("[ca.users]\nkeys = 5", 2, "unknown field `keys`"),
        ("format = \"xml\"", 2, "options were also read from"),
        ("[device.reset]\ndelete-everything = true", 2, "delete-everything, which is not an option"),
    ] {
        configure(&machine, text);
        let run = machine.run(&["device", "info"]);
        assert!(run.code == code && run.stderr.contains(said), "{text}: {run:?}");
    }
    let none = machine.run(&["device", "info", "--config", "none.toml"]);
    assert!(none.code == 6 && none.stderr.contains("none.toml"), "{none:?}");
}
