//! The real binary, command by command, against the in-process simulator: data on stdout, talk on stderr, exit
//! codes as documented, and no secret in either.

mod machine;

use std::{fs, os::unix::fs::PermissionsExt};

use machine::Machine;
use serde_json::Value;

const SECRETS: [&str; 2] = ["correct horse", "wrong staple"];

#[test]
fn device_info_needs_no_password() {
    let machine = Machine::new();
    let run = machine.without_password(&["device", "info"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("version:") && run.stdout.contains("ed25519"), "{run:?}");
    let info = machine.without_password(&["device", "info", "--format", "json"]).json();
    assert!(info["serial"].as_u64().unwrap() > 0);
    assert!(info["algorithms"].as_array().unwrap().contains(&Value::from("rsa4096")));
}

#[test]
fn device_storage_tells_how_full_it_is() {
    let machine = Machine::new();
    let storage = machine.run(&["device", "storage", "--format", "json"]).json();
    let number = |name: &str| storage[name].as_u64().unwrap();
    assert_eq!(number("total_records") - number("free_records"), 1, "{storage}");
    assert!(number("free_pages") < number("total_pages") && number("page_size") > 0, "{storage}");
    let told = machine.run(&["device", "storage"]).stdout;
    assert!(
        told.contains(&format!("{} of {} free", storage["free_records"], storage["total_records"])),
        "{told}"
    );
}

#[test]
fn a_device_that_ever_ran_from_a_seed_says_so_every_time() {
    let machine = Machine::new();
    drop(sshsm_simulator::Simulator::open(machine.path("device")).seed(1).start().unwrap());
    for _ in 0..2 {
        let run = machine.run(&["key", "list"]);
        assert_eq!(run.code, 0, "{run:?}");
        assert!(run.stderr.contains("WARNING") && run.stderr.contains("UNSAFE"), "{run:?}");
    }
    assert!(!Machine::new().run(&["key", "list"]).stderr.contains("WARNING"));
}

#[test]
fn without_a_directory_the_device_is_in_the_users_data() {
    let machine = Machine::with_device("sim:");
    let run = machine.run(&["key", "generate", "--algorithm", "p256"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(machine.path(".local/share/sshsm/simulator/flash.bin").is_file());
    assert_eq!(machine.run(&["key", "list"]).code, 0);
    let homeless = machine.with_environment(&["key", "list"], &[("HOME", "")]);
    assert_eq!(homeless.code, 3, "{homeless:?}");
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    assert_eq!(machine.with_environment(&["template", "show", "t.toml"], &[("HOME", "")]).code, 0);
}

#[test]
fn a_generated_key_can_be_shown_listed_and_deleted() {
    let machine = Machine::new();
    let run = machine.run(&["key", "generate", "--algorithm", "ed25519", "--id", "5", "--label", "our CA"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stderr, "key 0x0005 generated (ed25519)\n");
    assert!(run.stdout.starts_with("ssh-ed25519 AAAA") && run.stdout.ends_with(" our CA\n"), "{run:?}");
    assert_eq!(machine.run(&["key", "show", "0x0005"]).stdout, run.stdout);

    let key = machine.run(&["key", "show", "5", "--format", "json"]).json();
    assert_eq!((key["id"].as_u64(), key["type"].as_str()), (Some(5), Some("asymmetric-key")));
    assert_eq!(key["public_key"].as_str().unwrap(), run.stdout.trim_end());
    assert_eq!(key["capabilities"], serde_json::json!(["sign-ssh-certificate"]));

    let list = machine.run(&["key", "list", "--format", "json"]).json();
    let ids: Vec<_> =
        list.as_array().unwrap().iter().map(|o| (o["type"].as_str(), o["id"].as_u64())).collect();
    assert_eq!(ids, [(Some("authentication-key"), Some(1)), (Some("asymmetric-key"), Some(5))]);
    assert!(machine.run(&["key", "list"]).stdout.contains("our CA"));

    let again = machine.run(&["key", "generate", "--algorithm", "p256", "--id", "5"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("object exists"), "{again:?}");

    let deleted = machine.run(&["key", "delete", "5", "--format", "json"]).json();
    assert_eq!(deleted, serde_json::json!({"id": 5, "type": "asymmetric-key"}));
    let gone = machine.run(&["key", "show", "5"]);
    assert_eq!(gone.code, 1);
    assert!(gone.stdout.is_empty() && gone.stderr.contains("object not found"), "{gone:?}");
}

#[test]
fn every_algorithm_is_generated_and_shown_as_openssh_names_it() {
    let machine = Machine::new();
    for (algorithm, prefix) in [
        ("ecp256", "ecdsa-sha2-nistp256 "),
        ("p384", "ecdsa-sha2-nistp384 "),
        ("ecp521", "ecdsa-sha2-nistp521 "),
        ("rsa2048", "ssh-rsa "),
    ] {
        let key = machine.run(&["key", "generate", "--algorithm", algorithm, "--format", "json"]).json();
        assert!(key["public_key"].as_str().unwrap().starts_with(prefix), "{key}");
        assert!((1..0xffff).contains(&key["id"].as_u64().unwrap()), "{key}");
    }
}

#[test]
fn an_imported_key_keeps_its_public_half() {
    let machine = Machine::new();
    let public = machine.new_key("ca", machine::ed25519(7));
    let run = machine.run(&["key", "import", "ca", "--id", "6"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stdout.split_whitespace().nth(1), public.split(' ').nth(1));
    assert_eq!(run.stdout.trim_end(), machine.run(&["key", "show", "6"]).stdout.trim_end());
}

#[test]
fn an_encrypted_key_is_imported_with_its_passphrase_only() {
    let machine = Machine::new();
    machine.new_encrypted_key("ca", machine::ed25519(7), SECRETS[0]);
    let import = ["key", "import", "ca", "--id", "6"];
    for environment in [&[][..], &[("SSHSM_KEY_PASSPHRASE", SECRETS[1])]] {
        let run = machine.with_environment(&import, environment);
        assert_eq!(run.code, 1, "{run:?}");
        run.tells_no(&SECRETS);
    }
    let run = machine.with_environment(&import, &[("SSHSM_KEY_PASSPHRASE", SECRETS[0])]);
    assert_eq!(run.code, 0, "{run:?}");
    run.tells_no(&SECRETS);
}

#[test]
fn files_that_are_missing_or_no_keys_are_told_apart() {
    let machine = Machine::new();
    let missing = machine.run(&["key", "import", "nowhere"]);
    assert_eq!(missing.code, 6, "{missing:?}");
    assert!(missing.stderr.contains("nowhere"), "{missing:?}");
    machine.write("text", "not a key\n");
    let text = machine.run(&["key", "import", "text"]);
    assert_eq!(text.code, 1, "{text:?}");
    assert_eq!(machine.run(&["key", "list", "--format", "json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn a_file_that_is_no_key_is_told_what_it_should_be() {
    let machine = with_ca("ed25519");
    fs::write(machine.path("key.der"), [0x30, 0x82, 0xff, 0xfe]).unwrap();
    let der = machine.run(&["key", "import", "key.der"]);
    assert_eq!(der.code, 1, "{der:?}");
    assert!(der.stderr.contains("PEM or OpenSSH text is expected"), "{der:?}");
    // Which others may read, as it should be.
    fs::set_permissions(machine.path("user.pub"), fs::Permissions::from_mode(0o644)).unwrap();
    let public = machine.run(&["key", "import", "user.pub"]);
    assert_eq!(public.code, 1, "{public:?}");
    assert!(
        public.stderr.contains("a private key is needed") && !public.stderr.contains("chmod"),
        "{public:?}"
    );
    fs::set_permissions(machine.path("user"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(machine.run(&["key", "import", "user"]).stderr.contains("chmod 600"));
}

#[test]
fn a_file_without_an_end_is_not_read_into_memory() {
    let machine = with_ca("ed25519");
    for line in [
        "key list --password-file /dev/zero",
        "template show /dev/zero",
        "template check t.toml /dev/zero",
        "key import /dev/zero",
    ] {
        let run = machine.without_password(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 6, "{run:?}");
        assert!(run.stderr.contains("longer than 65536 bytes"), "{run:?}");
    }
}

#[test]
fn a_new_password_replaces_the_old_one() {
    let machine = Machine::new();
    let change = ["authentication-key", "change"];
    let none = machine.run(&change);
    assert_eq!(none.code, 4, "{none:?}");
    assert!(none.stderr.contains("SSHSM_NEW_PASSWORD"), "{none:?}");
    assert_eq!(machine.with_environment(&change, &[("SSHSM_NEW_PASSWORD", "")]).code, 4, "an empty one");
    let wrong = [("SSHSM_PASSWORD", SECRETS[1]), ("SSHSM_NEW_PASSWORD", SECRETS[0])];
    assert_eq!(machine.with_environment(&change, &wrong).code, 4);
    let run = machine.with_environment(&change, &[("SSHSM_NEW_PASSWORD", SECRETS[0])]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{run:?}");
    run.tells_no(&SECRETS);
    assert_eq!(machine.run(&["key", "list"]).code, 4, "the old one");

    machine.write("new", &format!("{}\n", SECRETS[1]));
    let environment = [("SSHSM_PASSWORD", SECRETS[0])];
    let change = ["authentication-key", "change", "--new-password-file", "new", "--format", "json"];
    let changed = machine.with_environment(&change, &environment).json();
    assert_eq!(changed, serde_json::json!({"id": 1, "type": "authentication-key"}));
    assert_eq!(machine.without_password(&["key", "list", "--password-file", "new"]).code, 0);
}

#[test]
fn a_weak_new_password_is_refused_unless_it_is_said_so_and_a_generated_one_is_strong() {
    let machine = Machine::new();
    let put = ["authentication-key", "put", "--id", "2", "--capabilities", "none"];
    for command in [&put[..], &["authentication-key", "change"]] {
        let refused = machine.with_environment(command, &[("SSHSM_NEW_PASSWORD", "zone2026!")]);
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.stderr.contains("has 9 characters, and 12 is the least"), "{refused:?}");
        assert!(refused.stderr.contains("--generate") && refused.stderr.contains("--allow-weak-password"));
        refused.tells_no(&["zone2026!"]);
    }
    let allowed = [&put[..], &["--allow-weak-password"]].concat();
    assert_eq!(machine.with_environment(&allowed, &[("SSHSM_NEW_PASSWORD", "zone2026!")]).code, 0);
    let change = machine.run(&["authentication-key", "change", "--generate"]);
    assert_eq!(change.code, 0, "{change:?}");
    let password = change.stderr.lines().find_map(|line| line.split_once("shown this once: ")).unwrap().1;
    assert_eq!(machine.run(&["key", "list"]).code, 4, "the old one");
    assert_eq!(machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", password)]).code, 0);
}

/// The README's daily user: signs and has refusals explained, and can do nothing else.
#[test]
fn an_authentication_key_that_only_signs_can_be_put() {
    let machine = with_ca("ed25519");
    let put =
        ["authentication-key", "put", "--id", "2", "--capabilities", "sign-ssh-certificate,get-template"];
    let run = machine.with_environment(&put, &[("SSHSM_NEW_PASSWORD", SECRETS[0])]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "0x0002\n"), "{run:?}");
    let user = |arguments: &[&str]| {
        machine.with_environment(arguments, &[("SSHSM_PASSWORD", SECRETS[0]), ("SSHSM_AUTH_KEY", "2")])
    };
    assert_eq!(user(&sign(&["-I", "me", "-n", "a", "-V", "+1h", "user.pub"])).code, 0);
    let refused = user(&sign(&["-I", "me", "-n", "root", "-V", "+1h", "user.pub"]));
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("forbid-principals"), "{refused:?}");
    for line in
        ["key delete 10 --type template", "template put t.toml --id 11", "key generate --algorithm p256"]
    {
        let run = user(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, 5, "{run:?}");
    }
    let delegated =
        [&put[..2], &["--id", "3", "--capabilities", "none", "--delegated", "get-template"]].concat();
    let run = machine.with_environment(&delegated, &[("SSHSM_NEW_PASSWORD", SECRETS[0])]);
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn the_password_comes_from_a_file_or_the_environment() {
    let machine = Machine::new();
    for line in ["password", "password\n", "password\r\n"] {
        machine.write("password", line);
        let run = machine.without_password(&["key", "list", "--password-file", "password"]);
        assert_eq!(run.code, 0, "{run:?}");
    }
    let none = machine.without_password(&["key", "list"]);
    assert_eq!(none.code, 4, "{none:?}");
    assert!(none.stderr.contains("SSHSM_PASSWORD"), "{none:?}");
    let missing = machine.without_password(&["key", "list", "--password-file", "nowhere"]);
    assert_eq!(missing.code, 6, "{missing:?}");
}

#[test]
fn a_wrong_password_and_an_unknown_key_are_told_apart_and_not_repeated() {
    let machine = Machine::new();
    let wrong = machine.with_environment(&["key", "list"], &[("SSHSM_PASSWORD", SECRETS[0])]);
    assert_eq!(wrong.code, 4, "{wrong:?}");
    assert!(wrong.stderr.contains("wrong password for authentication key 0x0001"), "{wrong:?}");
    wrong.tells_no(&SECRETS);
    let unknown =
        machine.with_environment(&["key", "list", "--auth-key", "9"], &[("SSHSM_PASSWORD", SECRETS[0])]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    assert!(unknown.stderr.contains("no authentication key 0x0009"), "{unknown:?}");
    unknown.tells_no(&SECRETS);
}

#[test]
fn wrong_usage_exits_with_2_and_changes_nothing() {
    let machine = Machine::without_device();
    for line in [
        "",
        "nonsense",
        "key",
        "key generate",
        "key generate --algorithm dsa",
        "key generate --algorithm ed25519 --id 0xffff",
        "key generate --algorithm ed25519 --domains 17",
        "key generate --algorithm ed25519 --capabilities fly",
        "key list --device ftp://x",
        "key list --device http://localhost",
        "key list --device http://localhost:99999",
        "quickstart --device sim:elsewhere",
        "key list --format yaml",
        "key list --password secret",
        "sign -s 5 -t 10 -n a user.pub",
        "sign -s 5 -t 10 -I i -n a -V nonsense --timestamp-key t user.pub",
        "sign -s 5 -t 10 -I i -n a -z -1 --timestamp-key t user.pub",
        "sign -s 5 -t 10 -I i -n a -O nonsense --timestamp-key t user.pub",
    ] {
        let run = machine.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(run.code, 2, "{line}: {run:?}");
        assert!(run.stdout.is_empty(), "{line}: {run:?}");
    }
    assert!(!machine.path("device").exists());
}

#[test]
fn help_and_version_are_data() {
    let machine = Machine::new();
    for line in ["--help", "sign --help", "key generate --help", "--version"] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{line}: {run:?}");
        assert!(!run.stdout.is_empty());
    }
}

#[test]
fn a_locked_or_damaged_state_is_a_broken_device() {
    let machine = Machine::new();
    let held = sshsm_simulator::Simulator::open(machine.path("device")).start().unwrap();
    let locked = machine.run(&["key", "list"]);
    assert_eq!(locked.code, 3, "{locked:?}");
    drop(held);
    assert_eq!(machine.run(&["key", "list"]).code, 0);
    let image = machine.path("device/flash.bin");
    let mut bytes = fs::read(&image).unwrap();
    bytes[0] ^= 1;
    fs::write(&image, &bytes).unwrap();
    let damaged = machine.run(&["key", "list"]);
    assert_eq!(damaged.code, 3, "{damaged:?}");
    assert_eq!(fs::read(&image).unwrap(), bytes, "a damaged state is never reset");
}

#[test]
fn a_template_goes_from_toml_to_the_device_and_back() {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    let build = machine.run(&["template", "build", "t.toml", "-o", "t.tlv"]);
    assert_eq!(build.code, 0, "{build:?}");
    let tlv = fs::read(machine.path("t.tlv")).unwrap();
    assert_eq!(machine.bytes(&["template", "build", "t.toml"]), tlv);
    let shown = machine.run(&["template", "show", "t.tlv"]);
    assert_eq!(shown.stdout, machine.run(&["template", "show", "t.toml"]).stdout);
    assert!(shown.stdout.contains("5 minutes") && shown.stdout.contains("root"), "{shown:?}");

    let put = machine.run(&["template", "put", "t.toml", "--id", "10"]);
    assert_eq!((put.code, put.stdout.as_str()), (0, "0x000a\n"), "{put:?}");
    assert_eq!(machine.bytes(&["template", "get", "10"]), tlv);
    assert_eq!(machine.run(&["template", "show", "10"]).stdout, shown.stdout);
    let json = machine.run(&["template", "show", "10", "--format", "json"]).json();
    assert_eq!(json["ca_keys"], serde_json::json!([5]));
    assert_eq!(
        (json["not_before_offset"].as_u64(), json["not_after_offset"].as_u64()),
        (Some(300), Some(36000))
    );
    assert_eq!(json["forbidden_principals"], serde_json::json!(["root"]));
    let get = machine.run(&["template", "get", "10", "--format", "json"]).json();
    assert_eq!(get["length"], tlv.len());
    assert_eq!(machine.run(&["key", "delete", "10", "--type", "template"]).code, 0);
    assert_eq!(machine.run(&["template", "get", "10"]).code, 1);
}

#[test]
fn an_absent_bound_is_shown_loudly() {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "unbounded", "unbounded", &[]);
    let shown = machine.run(&["template", "show", "t.toml"]);
    assert_eq!(shown.stdout.matches("UNBOUNDED").count(), 2, "{shown:?}");
}

#[test]
fn a_malformed_template_is_never_put() {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("zero.toml", "0s", "10h", &[]);
    machine.write("broken.tlv", "random bytes");
    machine.template("comma.toml", "5m", "10h", &["root,admin"]);
    for file in ["zero.toml", "broken.tlv", "comma.toml"] {
        let run = machine.run(&["template", "put", file, "--id", "10"]);
        assert_eq!(run.code, 1, "{run:?}");
    }
    assert_eq!(machine.run(&["template", "put", "nowhere.toml"]).code, 6);
    assert_eq!(machine.run(&["template", "get", "10"]).code, 1);
}

/// A machine whose device holds CA key 5 and template 10, and key files user.pub and host.pub.
fn with_ca(algorithm: &str) -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &["root"]);
    assert_eq!(machine.run(&["key", "generate", "--algorithm", algorithm, "--id", "5"]).code, 0);
    assert_eq!(machine.run(&["template", "put", "t.toml", "--id", "10"]).code, 0);
    machine.new_key("user", machine::ed25519(1));
    machine.new_key("other", machine::ed25519(2));
    machine
}

const SIGN: [&str; 7] = ["sign", "-s", "5", "-t", "10", "--timestamp-key", "timestamp"];

fn sign<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SIGN.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn a_certificate_is_written_beside_its_key_and_carries_what_was_asked() {
    for algorithm in ["ed25519", "p256", "p384", "p521", "rsa2048"] {
        let machine = with_ca(algorithm);
        let run = machine.run(&sign(&["-I", "me", "-n", "a,b", "-V", "+1h", "-z", "7", "user.pub"]));
        assert_eq!(run.code, 0, "{run:?}");
        let line = fs::read_to_string(machine.path("user-cert.pub")).unwrap();
        let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
        assert_eq!((certificate.serial(), certificate.key_id()), (7, "me"));
        assert_eq!(certificate.valid_principals(), ["a", "b"]);
        assert_eq!(certificate.extensions().iter().count(), 5);
        let ca = ssh_key::PublicKey::from_openssh(&machine.run(&["key", "show", "5"]).stdout).unwrap();
        assert_eq!(certificate.signature_key(), ca.key_data());
        certificate.verify_signature().unwrap();
        assert!(line.trim_end().ends_with(" user@test"), "the comment is kept: {line}");
        let mode = fs::metadata(machine.path("user-cert.pub")).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0);
        assert_ne!(mode & 0o400, 0);
    }
}

#[test]
fn several_keys_are_signed_in_one_session_with_serials_counting_up() {
    let machine = with_ca("ed25519");
    let ask =
        sign(&["-I", "me", "-n", "a", "-V", "+1h", "-z", "+41", "--format", "json", "user.pub", "other.pub"]);
    let report = machine.run(&ask).json();
    assert_eq!(report["enforced_by"], "device");
    let serials: Vec<_> = report["keys"].as_array().unwrap().iter().map(|k| k["serial"].as_u64()).collect();
    assert_eq!(serials, [Some(41), Some(42)]);
    assert!(report["keys"].as_array().unwrap().iter().all(|key| key["result"] == "signed"), "{report}");
}

#[test]
fn a_host_certificate_has_no_extensions() {
    let machine = with_ca("ed25519");
    let run = machine.run(&sign(&["-h", "-I", "host", "-n", "example.org", "-V", "+1h", "user.pub"]));
    assert_eq!(run.code, 0, "{run:?}");
    let line = fs::read_to_string(machine.path("user-cert.pub")).unwrap();
    let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
    assert_eq!(certificate.cert_type(), ssh_key::certificate::CertType::Host);
    assert_eq!(certificate.extensions().iter().count(), 0);
}

#[test]
fn a_refusal_is_explained_and_leaves_no_certificate() {
    let machine = with_ca("ed25519");
    for ask in [
        &["-I", "me", "-n", "a,root", "-V", "+1h", "user.pub"][..],
        &["-I", "me", "-n", "a", "-V", "+11h", "user.pub"],
        &["-I", "me", "-n", "a", "user.pub"],
    ] {
        let run = machine.run(&sign(ask));
        assert_eq!(run.code, 5, "{run:?}");
        assert!(run.stderr.contains("refused") && run.stdout.is_empty(), "{run:?}");
        assert!(!machine.path("user-cert.pub").exists());
    }
    let run = machine.run(&sign(&["-I", "me", "-n", "root", "-V", "+1h", "--format", "json", "user.pub"]));
    assert_eq!(run.code, 5);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["keys"][0]["result"], "refused");
    let checks = report["keys"][0]["verdict"]["checks"].as_array().unwrap();
    let refusing: Vec<_> = checks.iter().filter(|check| check["outcome"] != "allowed").collect();
    assert_eq!(refusing.len(), 1, "{report}");
    assert_eq!(refusing[0]["check"], "forbid-principals");
}

#[test]
fn a_refused_request_is_saved_when_asked_and_check_agrees_with_the_device() {
    let machine = with_ca("ed25519");
    let run = machine.run(&sign(&["-I", "me", "-n", "root", "-V", "+1h", "--save-request", "user.pub"]));
    assert_eq!(run.code, 5, "{run:?}");
    let check = machine.run(&["template", "check", "t.toml", "user-cert.req"]);
    assert_eq!(check.code, 5, "{check:?}");
    assert!(check.stdout.contains("root"), "{check:?}");

    let run = machine.run(&sign(&["-I", "me", "-n", "a", "-V", "+1h", "--save-request", "user.pub"]));
    assert_eq!(run.code, 0, "{run:?}");
    let check = machine.run(&["template", "check", "t.toml", "user-cert.req"]);
    assert_eq!(check.code, 0, "{check:?}");
    let check = machine.run(&["template", "check", "t.toml", "user-cert.pub"]);
    assert_eq!(check.code, 0, "{check:?}");
    let late = machine.run(&["template", "check", "t.toml", "user-cert.pub", "--now", "+2d"]);
    assert_eq!(late.code, 5, "{late:?}");
}

/// The key that is given counts, and not the one that the request names for itself.
#[test]
fn a_request_is_checked_against_the_ca_key_that_is_given_even_if_no_device_holds_such_a_key() {
    const SECURITY_KEY: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIEce0BrgnCKg6aViyZRV/Y6FjtHlsYs4PqQh7R8Kt6m9AAAABHNzaDo=";
    let machine = with_ca("ed25519");
    let run = machine.run(&sign(&["-I", "me", "-n", "a", "-V", "+1h", "--save-request", "user.pub"]));
    assert_eq!(run.code, 0, "{run:?}");
    machine.write("sk.pub", SECURITY_KEY);
    for key in ["other.pub", "sk.pub"] {
        let check = machine.run(&["template", "check", "t.toml", "user-cert.req", "--ca-key", key]);
        assert_eq!(check.code, 5, "{key}: {check:?}");
        let mut lines = check.stdout.lines().filter(|line| line.contains("refused"));
        assert!(lines.any(|line| line.trim_start().starts_with("signature-key")), "{key}: {check:?}");
    }
}

/// A second certificate must not go unnoticed.
#[test]
fn a_file_of_several_certificates_is_not_judged_by_its_first() {
    let machine = with_ca("ed25519");
    assert_eq!(machine.run(&sign(&["-I", "me", "-n", "a", "-V", "+1h", "user.pub", "other.pub"])).code, 0);
    let [one, two] =
        ["user-cert.pub", "other-cert.pub"].map(|name| fs::read_to_string(machine.path(name)).unwrap());
    machine.write("both", &(one + &two));
    let check = machine.run(&["template", "check", "t.toml", "both"]);
    assert_eq!((check.code, check.stdout.as_str()), (1, ""), "{check:?}");
    assert!(check.stderr.contains("2 lines"), "{check:?}");
}

#[test]
fn a_name_that_is_not_utf8_leaves_json_whole() {
    use std::os::unix::ffi::OsStrExt;
    let machine = with_ca("ed25519");
    let name = std::ffi::OsStr::from_bytes(b"us\xffer.pub");
    fs::copy(machine.path("user.pub"), machine.path("x").with_file_name(name)).unwrap();
    let ask = sign(&["-I", "me", "-n", "a", "-V", "+1h", "--save-request", "--format", "json"]);
    let ask: Vec<_> = ask.into_iter().map(std::ffi::OsStr::new).chain([name]).collect();
    let report = machine.run(&ask).json();
    assert_eq!(report["keys"][0]["key"], "us\u{fffd}er.pub");
    assert_eq!(report["keys"][0]["request"], "us\u{fffd}er-cert.req");
    let request = std::ffi::OsStr::from_bytes(b"us\xffer-cert.req");
    let check = ["template", "check", "t.toml", "--format", "json"].map(std::ffi::OsStr::new);
    let check = machine.run(&[&check[..], &[request]].concat()).json();
    assert_eq!(check["requests"][0]["request"], "us\u{fffd}er-cert.req");
}

#[test]
fn a_name_cannot_paint_the_terminal() {
    let machine = with_ca("ed25519");
    for line in [["key", "import", "\x1b[2J"], ["template", "show", "\x1b[2J"]] {
        let run = machine.run(&line);
        assert_eq!(run.code, 6, "{run:?}");
        assert!(run.stderr.contains("\\u{1b}[2J") && !run.stderr.contains('\x1b'), "{run:?}");
    }
    fs::copy(machine.path("user.pub"), machine.path("\x1b[2J.pub")).unwrap();
    let run = machine.run(&sign(&["-I", "me", "-n", "a", "-V", "+1h", "\x1b[2J.pub"]));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(!run.stderr.contains('\x1b'), "{run:?}");
}

#[test]
fn identities_and_principals_may_begin_with_a_hyphen() {
    let machine = with_ca("ed25519");
    let run = machine.run(&sign(&["-I", "-me", "-n", "-a", "-V", "+1h", "user.pub"]));
    assert_eq!(run.code, 0, "{run:?}");
    let line = fs::read_to_string(machine.path("user-cert.pub")).unwrap();
    let certificate = ssh_key::Certificate::from_openssh(&line).unwrap();
    assert_eq!((certificate.key_id(), certificate.valid_principals()), ("-me", &["-a".to_owned()][..]));
}

#[test]
fn local_dates_need_a_time_zone_that_is_known() {
    let machine = with_ca("ed25519");
    let ask = |validity| sign(&["-I", "me", "-n", "a", "-V", validity, "user.pub"]);
    let zone = [("SSHSM_PASSWORD", "password"), ("TZ", "Europe/Nowhere")];
    let run = machine.with_environment(&ask("20260101:20270101"), &zone);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("Europe/Nowhere"), "{run:?}");
    assert_eq!(machine.with_environment(&ask("+1h"), &zone).code, 0);
    assert_eq!(machine.with_environment(&ask("20260101Z:20270101Z"), &zone).code, 5, "the template's bounds");
}

#[test]
fn another_timestamp_key_is_refused() {
    let machine = with_ca("ed25519");
    machine.new_key("stranger", machine::ed25519(99));
    let ask = [
        "sign",
        "-s",
        "5",
        "-t",
        "10",
        "-I",
        "me",
        "-n",
        "a",
        "-V",
        "+1h",
        "--timestamp-key",
        "stranger",
        "user.pub",
    ];
    let run = machine.run(&ask);
    assert_eq!(run.code, 5, "{run:?}");
    assert!(run.stderr.contains("timestamp"), "{run:?}");
}

#[test]
fn one_refused_key_does_not_keep_the_others_from_being_signed() {
    let machine = with_ca("ed25519");
    // An RSA key of 16384 bits does not fit a message of the device.
    machine.write("big.pub", &machine::oversized_key());
    let ask = sign(&["-I", "me", "-n", "a", "-V", "+1h", "big.pub", "other.pub"]);
    let run = machine.run(&ask);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(machine.path("other-cert.pub").exists() && !machine.path("big-cert.pub").exists());
    let ask = [ask, ["--save-request", "--format", "json"].to_vec()].concat();
    let report: Value = serde_json::from_str(&machine.run(&ask).stdout).unwrap();
    assert_eq!(report["keys"][0]["request"], Value::Null, "it was never written");
    assert_eq!(report["keys"][1]["request"], "other-cert.req");
}

#[test]
fn missing_inputs_of_sign_fail_before_anything_is_signed() {
    let machine = with_ca("ed25519");
    let ask = sign(&["-I", "me", "-n", "a", "-V", "+1h", "user.pub", "nowhere.pub"]);
    let run = machine.run(&ask);
    assert_eq!(run.code, 6, "{run:?}");
    assert!(!machine.path("user-cert.pub").exists());
    let unknown = machine.run(&[
        "sign",
        "-s",
        "77",
        "-t",
        "10",
        "-I",
        "i",
        "-n",
        "a",
        "--timestamp-key",
        "timestamp",
        "user.pub",
    ]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("no asymmetric-key 0x004d"), "{unknown:?}");
    assert_eq!(machine.run(&["key", "delete", "10", "--type", "template"]).code, 0);
    let unknown = machine.run(&sign(&["-I", "me", "-n", "a", "user.pub", "other.pub"]));
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert_eq!(unknown.stderr.matches("no template 0x000a").count(), 1, "{unknown:?}");
    assert_eq!(machine.run(&["template", "put", "t.toml", "--id", "10"]).code, 0);
    let rsa =
        sign(&["-I", "me", "-n", "a", "-V", "+1h", "--signature-algorithm", "rsa-sha2-256", "user.pub"]);
    assert_eq!(machine.run(&rsa).code, 2, "an RSA algorithm contradicts an Ed25519 key");
}

#[test]
fn only_what_changes_a_device_makes_a_simulator_and_says_so() {
    let machine = Machine::without_device();
    machine.template("t.toml", "5m", "10h", &["root"]);
    machine.timestamp_key("timestamp");
    machine.new_key("user", machine::ed25519(1));
    for line in [
        "device info",
        "device storage",
        "device public-key",
        "key list",
        "key show 5",
        "key delete 5",
        "template get 10 -o there",
        "audit log",
        "audit verify",
        "sign -s 5 -t 10 --timestamp timestamp -I x user.pub",
        "device reset --delete-everything",
    ] {
        let run = machine.run(&line.split(' ').collect::<Vec<_>>());
        assert_ne!(run.code, 0, "{line}: {run:?}");
        assert!(run.stderr.contains("there is no simulated device in device"), "{line}: {run:?}");
        assert!(!machine.path("device").exists(), "{line}");
    }
    for (line, device) in [
        ("key generate --algorithm p256 --id 5", "sim:one"),
        ("template put t.toml", "sim:two"),
        ("authentication-key change --generate", "sim:three"),
    ] {
        let arguments = [&["--device", device], &*line.split(' ').collect::<Vec<_>>()].concat();
        let made = machine.run(&arguments);
        assert_eq!(made.code, 0, "{made:?}");
        assert!(made.stderr.contains("a new simulated device was made in "), "{made:?}");
        let again = machine.run(&["--device", device, "device", "info"]);
        assert!(again.code == 0 && again.stderr.is_empty(), "{again:?}");
    }
}

#[test]
fn an_empty_secret_is_never_tried() {
    let machine = Machine::new();
    assert_eq!(machine.run(&["key", "generate", "--algorithm", "p256", "--id", "5"]).code, 0);
    let empty = |variable, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let run = machine.with_environment(&words, &[(variable, "")]);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stderr.contains(&format!("the variable {variable} is empty")), "{run:?}");
    };
    empty("SSHSM_PASSWORD", "key list");
    empty("SSHSM_NEW_PASSWORD", "authentication-key change --allow-weak-password");
    empty("SSHSM_NEW_PASSWORD", "authentication-key put --capabilities none --allow-weak-password");
    for content in ["", "\n", "\r\n"] {
        machine.write("nothing", content);
        let run = machine.without_password(&["key", "list", "--password-file", "nothing"]);
        assert!(run.code == 4 && run.stderr.contains("the file nothing is empty"), "{run:?}");
    }
    assert_eq!(machine.run(&["key", "list"]).code, 0, "the password is the one before");
}

#[test]
fn an_authentication_key_that_would_be_missed_is_deleted_only_by_force() {
    let machine = Machine::new();
    let delete = |id: &str, more: &[&str]| {
        machine.run(&[&["key", "delete", id, "--type", "authentication-key"], more].concat())
    };
    let own = delete("1", &[]);
    assert!(own.code == 1 && own.stderr.contains("the one that opened this session"), "{own:?}");
    let put = |id: &str, capabilities: &str| {
        let arguments = ["authentication-key", "put", "--id", id, "--capabilities", capabilities];
        let run = machine.with_environment(&arguments, &[("SSHSM_NEW_PASSWORD", "correct horse battery")]);
        assert_eq!(run.code, 0, "{run:?}");
    };
    // Another that may do as much can be deleted, and so can the first by that one.
    put("2", "all");
    put("3", "sign-ssh-certificate");
    assert_eq!(delete("3", &[]).code, 0);
    put("4", "delete-authentication-key,put-authentication-key");
    let as_4 = |more: &[&str]| {
        let line =
            [&["key", "delete", "1", "--type", "authentication-key", "--auth-key", "4"], more].concat();
        machine.with_environment(&line, &[("SSHSM_PASSWORD", "correct horse battery")])
    };
    assert_eq!(delete("2", &[]).code, 0);
    let last = as_4(&[]);
    assert!(last.code == 1 && last.stderr.contains("no other authentication key"), "{last:?}");
    assert!(last.stderr.contains("reset-device"), "{last:?}");
    assert_eq!(machine.run(&["key", "list"]).code, 0);
    let forced = as_4(&["--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(machine.run(&["key", "list"]).code, 4);
}

#[test]
fn what_others_chose_never_steers_the_terminal() {
    let machine = Machine::new();
    let odd = "\u{1b}]0;owned\u{7}\u{202e}";
    machine.write("c.toml", "[ca.x]\ndevice = \"\\u001b]0;owned\\u0007\u{202e}\"\n");
    machine.write("t.toml", &format!("ca-keys = [5]\nnot-before-offset = \"1h\" {odd} # x\n"));
    machine.write("k.pub", &format!("ssh-{odd} AAAA x\n"));
    assert_eq!(machine.run(&["key", "generate", "--algorithm", "p256", "--id", "6", "--label", odd]).code, 0);
    let label = format!("sim:{odd}/x");
    for (arguments, told) in [
        (vec!["--config", "c.toml", "device", "info"], true),
        (vec!["template", "lint", "t.toml"], true),
        (vec!["request", "build", "-s", "k.pub", "-I", "x", "k.pub"], false),
        (vec!["key", "list"], true),
        (vec!["key", "list", "--format", "json"], true),
        (vec!["key", "show", "6"], true),
        (vec!["key", "list", "--device", &label, "--password-file", "none"], true),
        (vec!["key", odd], false),
        (vec!["ledger", "list", "--ledger", odd], true),
    ] {
        let run = machine.run(&arguments);
        let text = run.stdout.clone() + &run.stderr;
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{arguments:?}: {run:?}");
        assert_eq!(text.contains("owned"), told, "{arguments:?}: {run:?}");
    }
}

#[test]
fn a_secret_in_an_address_is_shown_nowhere() {
    let machine = Machine::new();
    for address in [
        "pkcs11:token=a?pin-value=s3cret",
        "pkcs11:token=a?pin%2Dvalue=s3cret",
        "pkcs11:token=a?pin=s3cret",
        "pkcs11:token=a;pin-value=s3cret",
        "pkcs11:token=a?s3cret",
        "PKCS11:token=a?pin-value=s3cret",
        "http://u:s3cret@h:1",
        "https://s3cret@h:1",
        "http://h:1/?token=s3cret",
    ] {
        machine
            .write("c.toml", &format!("[ca.x]\ndevice = \"{address}\"\n[sign]\ntimestamp = \"{address}\"\n"));
        let device = machine.run(&["--device", address, "device", "info"]);
        let variable = machine.with_environment(&["device", "info"], &[("SSHSM_DEVICE", address)]);
        let help = machine.with_environment(&["--help"], &[("SSHSM_DEVICE", address)]);
        let configured = machine.run(&["--config", "c.toml", "ledger", "list"]);
        let mistyped = machine.run(&["device", "info", address]);
        for run in [&device, &variable, &help, &configured, &mistyped] {
            run.tells_no(&["s3cret"]);
        }
        assert_eq!(
            (device.code, variable.code, configured.code),
            (2, 2, 2),
            "{address}: {device:?} {configured:?}"
        );
        if !address.starts_with("PKCS11") {
            let sign = ["sign", "-s", "5", "-t", "10", "-I", "x", "--timestamp", address, "alice.pub"];
            let timestamp = machine.run(&sign);
            assert_eq!(timestamp.code, 2, "{timestamp:?}");
            timestamp.tells_no(&["s3cret"]);
        }
    }
}
