//! A newcomer's first command: it ends with a certificate, a refusal and a directory that can be continued.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use machine::Machine;

fn mode(machine: &Machine, name: &str) -> u32 {
    fs::metadata(machine.path(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_makes_everything_and_tells_what_it_does() {
    let machine = Machine::new();
    let run = machine.without_password(&["quickstart", "ca"]);
    assert_eq!(run.code, 0, "{run:?}");
    for part in ["forbid-principals", "TrustedUserCAKeys", "AuthorizedPrincipalsFile", "SSHSM_DEVICE=sim:"] {
        assert!(run.stdout.contains(part), "{part} in {}", run.stdout);
    }
    let line = fs::read_to_string(machine.path("ca/user-cert.pub")).unwrap();
    let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
    certificate.verify_signature().unwrap();
    assert_eq!(certificate.valid_principals(), ["quickstart"]);
    let ca =
        ssh_key::PublicKey::from_openssh(&fs::read_to_string(machine.path("ca/ca.pub")).unwrap()).unwrap();
    assert_eq!(certificate.signature_key(), ca.key_data());
    for secret in ["ca/password", "ca/timestamp", "ca/user"] {
        assert_eq!(mode(&machine, secret), 0o600, "{secret}");
    }
    assert_eq!(mode(&machine, "ca"), 0o700);
    let password = fs::read_to_string(machine.path("ca/password")).unwrap();
    run.tells_no(&[password.trim()]);

    let device = format!("sim:{}", machine.path("ca/simulator").display());
    let file = machine.path("ca/password");
    let list = ["key", "list", "--device", &device, "--password-file", file.to_str().unwrap()];
    assert_eq!(machine.without_password(&list).code, 0);
    assert_eq!(machine.run(&["key", "list", "--device", &device]).code, 4, "the factory's password is gone");
}

#[test]
fn the_commands_it_suggests_do_what_it_says() {
    let machine = Machine::new();
    let told = machine.without_password(&["quickstart", "it's a \"CA\""]).stdout;
    let (_, commands) = told.split_once("What to try next\n").unwrap();
    // There is no server to log in to.
    let (set_up, tried): (Vec<_>, Vec<_>) = commands
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("ssh -i "))
        .partition(|line| line.starts_with("cd ") || line.starts_with("export "));
    let codes: Vec<_> = tried
        .iter()
        .map(|line| {
            Command::new("sh")
                .arg("-c")
                .arg(format!("{}\n{line}", set_up.join("\n")))
                .env("HOME", machine.path(""))
                .env_remove("XDG_STATE_HOME")
                .status()
                .unwrap()
                .code()
        })
        .collect();
    assert_eq!(codes, [Some(0), Some(0), Some(0), Some(5), Some(5)], "{commands}");
}

#[test]
fn a_second_run_keeps_every_key() {
    let machine = Machine::new();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    let read = |name: &str| fs::read(machine.path(name)).unwrap();
    let kept = ["ca/password", "ca/ca.pub", "ca/timestamp", "ca/user", "ca/template.toml"];
    let before: Vec<_> = kept.into_iter().map(read).collect();
    let summary = machine.without_password(&["quickstart", "ca", "--format", "json"]).json();
    assert_eq!(summary["refusal"]["outcome"], "refused");
    assert_eq!(before, kept.into_iter().map(read).collect::<Vec<_>>());
}

#[test]
fn a_run_that_was_cut_short_is_finished_by_the_next() {
    let machine = Machine::new();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    let password = fs::read(machine.path("ca/password")).unwrap();
    // As if the password had been written, and the device had not received it yet.
    fs::remove_dir_all(machine.path("ca/simulator")).unwrap();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    assert_ne!(fs::read(machine.path("ca/password")).unwrap(), password);
}

#[test]
fn what_it_cannot_open_it_leaves_alone() {
    let machine = Machine::new();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    fs::write(machine.path("ca/password"), "something else\n").unwrap();
    let run = machine.without_password(&["quickstart", "ca"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(fs::read_to_string(machine.path("ca/password")).unwrap(), "something else\n");

    fs::create_dir(machine.path("other")).unwrap();
    machine.write("other/diary", "private");
    let run = machine.without_password(&["quickstart", "other"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
    assert_eq!(fs::read_dir(machine.path("other")).unwrap().count(), 1);
}

#[test]
fn a_directory_in_which_others_can_write_is_not_taken() {
    let machine = Machine::new();
    let make = |name: &str, mode| {
        fs::create_dir(machine.path(name)).unwrap();
        fs::set_permissions(machine.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    make("group", 0o770);
    make("all", 0o777);
    make("stranger", 0o755);
    let mut refused = vec!["group", "all"];
    // Only root can give a directory away.
    if std::os::unix::fs::chown(machine.path("stranger"), Some(12_345), None).is_ok() {
        refused.push("stranger");
    }
    for name in refused {
        let run = machine.without_password(&["quickstart", name]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
        assert_eq!(fs::read_dir(machine.path(name)).unwrap().count(), 0);
    }
    make("ours", 0o755);
    assert_eq!(machine.without_password(&["quickstart", "ours"]).code, 0);
}

#[test]
fn a_link_is_no_mark_of_a_directory_made_here() {
    let machine = Machine::new();
    machine.write("elsewhere", "");
    fs::create_dir(machine.path("ca")).unwrap();
    std::os::unix::fs::symlink(machine.path("elsewhere"), machine.path("ca/.sshsm-quickstart")).unwrap();
    let run = machine.without_password(&["quickstart", "ca"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
    assert_eq!(fs::read(machine.path("elsewhere")).unwrap(), b"");
}

#[test]
fn what_a_killed_run_left_unfinished_is_removed() {
    let machine = Machine::new();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    let names = |machine: &Machine| fs::read_dir(machine.path("ca")).unwrap().count();
    let before = names(&machine);
    machine.write("ca/.sshsm-aB3dE9", "half a key");
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    assert_eq!(names(&machine), before);
    machine.write("ca/.sshsm-mine", "not one of those");
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    assert_eq!(names(&machine), before + 1);
}

/// Whatever the owner has changed on the device since, the output describes the present state.
#[test]
fn what_is_told_is_what_is_there() {
    let machine = Machine::new();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    let device = format!("sim:{}", machine.path("ca/simulator").display());
    let password = machine.path("ca/password");
    let sshsm = |line: &str| {
        let global = ["--device", &device, "--password-file", password.to_str().unwrap()];
        let run = machine.without_password(&[line.split(' ').collect::<Vec<_>>(), global.to_vec()].concat());
        assert_eq!(run.code, 0, "{run:?}");
    };
    let text = fs::read_to_string(machine.path("ca/template.toml")).unwrap();
    machine.write("ca/template.toml", &text.replace("10h", "2h").replace("\"root\"", ""));
    sshsm("key delete 10 --type template");
    sshsm("template put ca/template.toml --id 10");
    sshsm("key delete 5");
    sshsm("key generate --algorithm p384 --id 5");
    let run = machine.without_password(&["quickstart", "ca"]);
    assert_eq!(run.code, 0, "{run:?}");
    for (part, told) in [
        ("A refusal", false),
        ("No refusal", true),
        ("Ed25519", false),
        ("ecp384, generated", true),
        ("-V +3h user.pub   # refused: the template allows 2h", true),
        ("+8h", false),
    ] {
        assert_eq!(run.stdout.contains(part), told, "{part} in {}", run.stdout);
    }
    let summary = machine.without_password(&["quickstart", "ca", "--format", "json"]).json();
    assert_eq!(summary["refusal"]["outcome"], "allowed");
}

#[test]
fn a_template_that_was_changed_is_pointed_out_and_not_replaced() {
    let machine = Machine::new();
    assert_eq!(machine.without_password(&["quickstart", "ca"]).code, 0);
    let text = fs::read_to_string(machine.path("ca/template.toml")).unwrap().replace("10h", "1h");
    fs::write(machine.path("ca/template.toml"), text).unwrap();
    let run = machine.without_password(&["quickstart", "ca"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("template.toml differs"), "{}", run.stdout);
}
