//! CA keys on a PKCS#11 token, SoftHSM2: certificates match those of `ssh-keygen -D`, the template binds as
//! on a device, and each problem with a token has its own error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use serde_json::Value;
use sshsm_tests::{
    certificate,
    issuer::{Flags, Issuer, SshKeygen, Sshsm},
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::{Finished, Running, run, wait_for},
    requirement::{Missing, program},
    softhsm::{AUTHORITY, LABEL, PIN, SoftHsm},
    ssh::Ssh,
    sshd::Server,
};
use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Command, Stdio},
    slice,
};
use tempfile::tempdir;

/// Allows whatever ssh-keygen signs.
const UNBOUNDED: &str = "not-before-offset = \"unbounded\"\nnot-after-offset = \"unbounded\"\n";
const BOUNDED: &str =
    "not-before-offset = \"5m\"\nnot-after-offset = \"10h\"\nforbid-principals = [\"root\", \"admin\"]\n";

const KINDS: [KeyType; 4] = [KeyType::Rsa2048, KeyType::P256, KeyType::P384, KeyType::Ed25519];

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}\n{finished}"))
}

#[track_caller]
fn assert_fails(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.status.code(), Some(code), "{finished}");
    for words in words {
        assert!(finished.stderr.contains(words), "{words:?} is not in {finished}");
    }
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!said.contains(PIN) && !said.contains("wrong-pin"), "a PIN is printed: {finished}");
}

/// A token with one CA key of its own making, and the public half in a file.
fn token_with(kind: KeyType, template: &str) -> Result<(SoftHsm, Key), Missing> {
    let token = SoftHsm::new(template)?;
    let label = format!("made-{kind:?}");
    token.generate(&label, 1, kind, &[]);
    let listed = json(&run(token.command().args(["device", "list", "--format", "json"])).success());
    let line = listed[0]["keys"][0]["public_key"].as_str().unwrap().to_owned();
    let key = token.key_file(&label, kind, &line);
    Ok((token, key))
}

fn label(key: &Key) -> &str {
    key.private.file_name().unwrap().to_str().unwrap()
}

#[test]
fn keys_made_on_the_token_issue_what_ssh_keygen_issues_with_them() {
    let directory = tempdir().unwrap();
    let users = needs!(Key::generate_all(directory.path(), &[KeyType::Ed25519, KeyType::Rsa2048]));
    let mut server = Server { principals: vec!["zone-web"], ..Server::default() };
    let mut tokens = Vec::new();
    for kind in KINDS {
        let (token, authority) = needs!(token_with(kind, UNBOUNDED));
        if kind != KeyType::Ed25519 {
            let told = needs!(token.public_key(label(&authority), kind)).public_key();
            assert_eq!(
                told.key_data(),
                authority.public_key().key_data(),
                "device list prints the public key"
            );
        }
        server.trusted.push(authority.clone());
        tokens.push((token, authority));
    }
    let sshd = needs!(server.start());
    for (token, authority) in &tokens {
        for flags in [
            Flags::user(&["zone-web"]).key_id("alice@example.com").serial("4711").valid("20200101:20500101"),
            Flags::user(&["a", "b"])
                .options(&["clear", "permit-pty", "force-command=true"])
                .valid("0x0:0x7fffffff"),
            Flags::host(&["web.example.com"]).valid("always:forever"),
        ] {
            let _ = run(&mut token.sign_with(label(authority), &flags, &users)).success();
            for user in &users {
                let ours = certificate::read(&user.certificate(), authority);
                let shown = run(needs!(ssh_keygen()).arg("-L").arg("-f").arg(user.certificate())).success();
                assert!(shown.stdout.contains(&authority.fingerprint()), "{shown}");
                // ssh-keygen knows no Ed25519 keys on tokens; those are compared when they were imported.
                if authority.key_type != KeyType::Ed25519 {
                    let keys = slice::from_ref(user);
                    let _ = run(&mut needs!(token.original(authority, &flags, keys))).success();
                    assert_eq!(ours, certificate::read(&user.certificate(), authority), "{flags:?}");
                }
            }
        }
        let flags = Flags::user(&["zone-web"]).valid("-1m:+1h");
        let _ = run(&mut token.sign_with(label(authority), &flags, &users)).success();
        for user in &users {
            let ssh = Ssh::with_certificate(user).knowing("server", &sshd);
            let (client, log) = needs!(sshd.visit(|| ssh.login("server")));
            assert!(client.status.success() && log.contains("Accepted publickey"), "{client}\n{log}");
        }
    }
}

#[test]
fn imported_ed25519_and_p521_keys_issue_what_ssh_keygen_issues_from_their_files() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::P256));
    for kind in [KeyType::Ed25519, KeyType::P521] {
        let authority = needs!(Key::generate(directory.path(), &format!("{kind:?}"), kind));
        let (original, ours) =
            (needs!(SshKeygen::with_authority(&authority)), needs!(SoftHsm::with_authority(&authority)));
        let flags = Flags::user(&["alice"]).serial("7").valid("20200101:20500101").options(&["no-pty"]);
        let _ = original.sign(&flags, slice::from_ref(&user)).success();
        let expected = certificate::read(&user.certificate(), &authority);
        let _ = ours.sign(&flags, slice::from_ref(&user)).success();
        assert_eq!(certificate::read(&user.certificate(), &authority), expected, "{kind:?}");
    }
}

#[test]
fn rsa_signs_with_either_hash_and_never_with_sha_1() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let (token, authority) = needs!(token_with(KeyType::Rsa2048, UNBOUNDED));
    let sign = |algorithm| {
        let flags = Flags::user(&["alice"]).signature_algorithm(algorithm);
        run(&mut token.sign_with(label(&authority), &flags, slice::from_ref(&user)))
    };
    for algorithm in ["rsa-sha2-512", "rsa-sha2-256"] {
        let _ = sign(algorithm).success();
        let certificate = certificate::read(&user.certificate(), &authority);
        assert_eq!(certificate.signature_algorithm, algorithm);
    }
    assert_fails(&sign("ssh-rsa"), 3, &["no mechanism for ssh-rsa"]);
}

/// The same requests at a device and at a token that hold the same key, under the same template.
#[test]
fn the_host_refuses_what_a_device_refuses_with_the_same_checks() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let authority = needs!(Key::generate(directory.path(), "ca", KeyType::P256));
    let stranger = needs!(Key::generate(directory.path(), "stranger", KeyType::Ed25519));
    let token = needs!(SoftHsm::new(BOUNDED));
    needs!(token.import(&authority, "ca", 1));
    let device = needs!(Sshsm::new(BOUNDED));
    let import = ["--id", AUTHORITY];
    let _ = run(device.command().args(["key", "import"]).arg(&authority.private).args(import)).success();
    let verdict = |finished: &Finished, enforced_by: &str| {
        assert_eq!(finished.status.code(), Some(5), "{finished}");
        assert!(!user.certificate().exists(), "{finished}");
        assert!(finished.stderr.contains(&format!("enforced by {enforced_by}")), "{finished}");
        let report = json(finished);
        assert_eq!(report["enforced_by"], enforced_by, "{report}");
        assert_eq!(report["keys"][0]["result"], "refused", "{report}");
        let checks = report["keys"][0]["verdict"]["checks"].as_array().unwrap().clone();
        checks
            .into_iter()
            .map(|check| [check["check"].to_string(), check["outcome"].to_string()])
            .collect::<Vec<_>>()
    };
    for flags in [
        Flags::user(&["root"]).valid("-1m:+9h"),
        Flags::user(&["alice", "admin"]).valid("-1m:+9h"),
        Flags::host(&["admin"]).valid("-1m:+11h"),
        Flags::user(&["alice"]).valid("-1m:forever"),
        Flags::user(&["alice"]).valid("-1h:+9h"),
        Flags::user(&["alice"]).valid("always:+9h"),
    ] {
        let ours = run(token.sign_with("ca", &flags, slice::from_ref(&user)).args(["--format", "json"]));
        let original = run(device.signing(&flags, slice::from_ref(&user)).args(["--format", "json"]));
        assert_eq!(verdict(&ours, "host"), verdict(&original, "device"), "{flags:?}");
    }
    // Another authority's time, and a key that the template does not list.
    let flags = Flags::user(&["alice"]).valid("-1m:+9h");
    let sign = |ca: &str, timestamp: &Path| {
        let mut command = token.command();
        command.args(["--device", &token.uri("ca"), "--format", "json", "sign", "-s", ca, "-t"]);
        command.arg(token.directory().join("template.toml")).arg("--timestamp").arg(timestamp);
        flags.apply(&mut command);
        run(command.arg(&user.public))
    };
    let own = token.directory().join("timestamp");
    for (ca, timestamp, check) in [(AUTHORITY, &stranger.private, "timestamp-key"), ("6", &own, "ca-keys")] {
        let refused = verdict(&sign(ca, timestamp), "host");
        let refused: Vec<_> = refused.iter().filter(|[_, outcome]| outcome.contains("refused")).collect();
        assert_eq!(refused, [&[format!("{check:?}"), "\"refused\"".into()]]);
    }
    let signed = sign(AUTHORITY, &own).success();
    assert_eq!(json(&signed)["enforced_by"], "host");
    assert!(signed.stderr.contains("enforced by host"), "{signed}");
    let _ = certificate::read(&user.certificate(), &authority);
}

#[test]
fn a_certificate_tells_the_public_key_where_no_other_object_does() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let openssl = needs!(program("openssl", "openssl"));
    for kind in [KeyType::P256, KeyType::P521] {
        let authority = needs!(Key::generate(directory.path(), &format!("{kind:?}"), kind));
        let token = needs!(SoftHsm::with_authority(&authority));
        let (pem, der) = (token.directory().join("import.pem"), token.directory().join("certificate.der"));
        let mut request = Command::new(&openssl);
        request.args(["req", "-x509", "-subj", "/CN=ca", "-outform", "DER", "-key"]).arg(pem);
        let _ = run(request.arg("-out").arg(&der)).success();
        let object =
            |arguments: &[&str]| run(token.pkcs11_tool().args(arguments).args(["--id", "01"])).success();
        let _ = object(&["--delete-object", "--type", "pubkey"]);
        let sign = || run(&mut token.signing(&Flags::user(&["alice"]), slice::from_ref(&user)));
        assert_fails(&sign(), 3, &["does not reveal the public key"]);
        let _ = object(&["--write-object", der.to_str().unwrap(), "--type", "cert"]);
        let _ = sign().success();
        let _ = certificate::read(&user.certificate(), &authority);
    }
}

#[test]
fn a_key_that_wants_the_pin_each_time_gets_it_each_time() {
    let directory = tempdir().unwrap();
    let users = needs!(Key::generate_all(directory.path(), &[KeyType::Ed25519, KeyType::P256]));
    let token = needs!(SoftHsm::new(UNBOUNDED));
    token.generate("always", 9, KeyType::Rsa2048, &["--always-auth"]);
    let authority = needs!(token.public_key("always", KeyType::Rsa2048));
    let (signed, calls) =
        needs!(token.spied(&mut token.sign_with("always", &Flags::user(&["alice"]), &users)));
    let _ = signed.success();
    for user in &users {
        let _ = certificate::read(&user.certificate(), &authority);
    }
    // One for the session, one for each signature.
    assert_eq!(calls.iter().filter(|call| *call == "C_Login").count(), 3, "{calls:?}");
}

#[test]
fn a_wrong_pin_is_tried_once_however_many_sessions_want_it() {
    let directory = tempdir().unwrap();
    let users = needs!(Key::generate_all(directory.path(), &[KeyType::Ed25519, KeyType::P256]));
    let (token, authority) = needs!(token_with(KeyType::P256, UNBOUNDED));
    for jobs in ["1", "2"] {
        let mut command = token.sign_with(label(&authority), &Flags::user(&["alice"]), &users);
        command.args(["--jobs", jobs]).env("SSHSM_PIN", "wrong-pin");
        let (refused, calls) = needs!(token.spied(&mut command));
        assert_fails(&refused, 4, &["wrong PIN for the token \"ca token\"", "tries are left", "tried once"]);
        assert_eq!(calls.iter().filter(|call| *call == "C_Login").count(), 1, "{calls:?}");
        assert!(!users[0].certificate().exists());
    }
    // The right one in a file goes before the wrong one in the environment.
    let pin = token.directory().join("pin");
    fs::write(&pin, format!("{PIN}\n")).unwrap();
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let uri = format!("{}?pin-source=file:{}", token.uri(label(&authority)), pin.display());
    let mut command = token.command();
    command.args(["--device", &uri, "sign", "-s", AUTHORITY, "-I", "id", "-n", "alice", "-t"]);
    command.arg(token.directory().join("template.toml"));
    command.arg("--timestamp").arg(token.directory().join("timestamp")).arg(&users[0].public);
    let _ = run(command.env("SSHSM_PIN", "wrong-pin")).success();
    let _ = run(command.env_remove("SSHSM_PIN")).success();
    fs::remove_file(&pin).unwrap();
    assert_fails(&run(&mut command), 6, &["cannot read the PIN in"]);
}

#[test]
fn each_thing_that_can_be_wrong_with_a_token_has_its_own_error() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let (token, authority) = needs!(token_with(KeyType::P256, UNBOUNDED));
    let (flags, own) = (Flags::user(&["alice"]), label(&authority).to_owned());
    let sign = |label: &str, device: &str| {
        let mut command = token.command();
        command.args(["--device", device, "sign", "-s", AUTHORITY, "-t"]);
        command.arg(token.directory().join("template.toml"));
        command.arg("--timestamp").arg(token.directory().join("timestamp"));
        flags.apply(&mut command);
        command.arg(&user.public).env("LABEL", label);
        command
    };
    let with_module = |module: &str| run(&mut sign("", &format!("{}?{module}", token.uri(&own))));
    assert_fails(&with_module("module-path=/no/such/module.so"), 3, &["/no/such/module.so cannot be loaded"]);
    assert_fails(&with_module("module-path=libc.so.6"), 3, &["not a PKCS#11 module"]);
    assert_fails(&with_module("module-name=no-such"), 3, &["no PKCS#11 module \"no-such\""]);
    let unnamed = run(sign("", &token.uri(&own)).env_remove("PKCS11_MODULE_PATH"));
    assert_fails(&unnamed, 2, &["no PKCS#11 module was named", "PKCS11_MODULE_PATH"]);

    let other = run(&mut sign("", "pkcs11:token=other;object=key"));
    assert_fails(&other, 3, &["no token is pkcs11:token=other", "token=ca%20token"]);
    let none = run(&mut sign("", &token.uri("none")));
    assert_fails(&none, 1, &["no private key on the token \"ca token\" is", &format!("object={own}")]);
    let no_pin = run(sign("", &token.uri(&own)).env_remove("SSHSM_PIN"));
    assert_fails(&no_pin, 4, &["no PIN for the token \"ca token\"", "SSHSM_PIN"]);
    let short = run(sign("", &token.uri(&own)).env("SSHSM_PIN", "1"));
    assert_fails(&short, 4, &["PIN"]);

    token.generate("twin", 3, KeyType::P256, &[]);
    token.generate("twin", 4, KeyType::P256, &[]);
    let several = run(&mut sign("", &token.uri("twin")));
    assert_fails(&several, 1, &["several private keys", "id=%03;object=twin", "id=%04;object=twin"]);
    let _ = run(&mut sign("", &format!("{};id=%04", token.uri("twin")))).success();
    fs::remove_file(user.certificate()).unwrap();

    token.generate("mute", 5, KeyType::P256, &[]);
    token.forbid_signing(Path::new(env!("CARGO_BIN_EXE_token_object")), "mute");
    let mute = run(&mut sign("", &token.uri("mute")));
    assert_fails(&mute, 5, &["may not sign", "CKA_SIGN"]);

    let _ = run(token.pkcs11_tool().args(["--delete-object", "--type", "pubkey", "--id", "04"])).success();
    let half = run(&mut sign("", &format!("{};id=%04", token.uri("twin"))));
    assert_fails(&half, 3, &["does not reveal the public key"]);

    let template =
        run(token.command().args(["--device", &token.uri(&own), "sign", "-s", "5", "-t", "10"]).args([
            "--timestamp",
            token.directory().join("timestamp").to_str().unwrap(),
            "-I",
            "id",
            user.public.to_str().unwrap(),
        ]));
    assert_fails(&template, 2, &["stores no templates"]);
    let argument = run(&mut sign("", &format!("{}?pin-value={PIN}", token.uri(&own))));
    assert_fails(&argument, 2, &["pin-value is not taken", "pin-source"]);
    for command in [["key", "list"], ["device", "info"], ["device", "status"]] {
        let refused = run(token.command().args(["--device", &token.uri(&own)]).args(command));
        assert_fails(&refused, 2, &["PKCS11".to_lowercase().as_str()]);
    }

    needs!(token.add_twin());
    let several = run(&mut sign("", &token.uri(&own)));
    assert_fails(&several, 3, &["several tokens are", "serial="]);
    token.pull_out();
    let gone = run(&mut sign("", &token.uri(&own)));
    assert_fails(&gone, 3, &[]);
    assert!(!user.certificate().exists());
}

/// The second request goes into a pipe: until it is read, nothing more is signed, and the token is removed.
#[test]
fn a_token_that_goes_away_in_mid_signing_signs_no_more() {
    let directory = tempdir().unwrap();
    let users =
        needs!(Key::generate_all(directory.path(), &[KeyType::Ed25519, KeyType::P256, KeyType::P384]));
    let (token, authority) = needs!(token_with(KeyType::P256, UNBOUNDED));
    let pipe = users[1].private.with_file_name("P256-cert.req");
    let _ = run(Command::new("mkfifo").arg(&pipe)).success();
    // A pipe that is full when `sshsm` writes the second request to it: it waits there.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut end =
        fs::OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&pipe).unwrap();
    while end.write(&[0; 4096]).is_ok() {}
    let [report, errors] = ["report", "errors"].map(|name| directory.path().join(name));
    let mut command = token.sign_with(label(&authority), &Flags::user(&["alice"]), &users);
    command.args(["--save-request", "--format", "json"]).stdin(Stdio::null());
    command.stdout(fs::File::create(&report).unwrap()).stderr(fs::File::create(&errors).unwrap());
    let mut running = Running::spawn(&mut command);
    wait_for("the first certificate", || users[0].certificate().exists().then_some(()));
    token.pull_out();
    let mut request = Vec::new();
    let status = wait_for("sshsm to end", || {
        let drained = end.read_to_end(&mut request).unwrap_err();
        assert_eq!(drained.kind(), ErrorKind::WouldBlock, "{drained}");
        running.ended()
    });
    assert!(request.iter().any(|byte| *byte != 0), "the second request was not written");
    let errors = fs::read_to_string(errors).unwrap();
    assert_eq!(status.code(), Some(3), "{errors}");
    assert!(errors.contains("is gone, or its key is"), "{errors}");
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["keys"][0]["result"], "signed", "{report}");
    assert_eq!(report["keys"][1]["result"], "failed", "{report}");
    assert!(report["keys"][2].is_null() && !users[1].certificate().exists(), "{report}");
    let _ = certificate::read(&users[0].certificate(), &authority);
}

#[test]
fn the_fallback_signs_only_on_request_without_a_device_and_no_looser_than_it() {
    let directory = tempdir().unwrap();
    let make = |name, kind| Key::generate(directory.path(), name, kind);
    let (user, authority) = (needs!(make("user", KeyType::Ed25519)), needs!(make("ca", KeyType::P256)));
    let other = needs!(make("other", KeyType::P256));
    let (token, device) = (needs!(SoftHsm::new(BOUNDED)), needs!(Sshsm::new(BOUNDED)));
    needs!(token.import(&authority, "ca", 1));
    let imported = run(device.command().args(["key", "import"]).arg(&authority.private).args(["--id", "5"]));
    let _ = imported.success();
    let here = format!("sim:{}", device.directory().join("simulator").display());
    let timestamp = device.directory().join("timestamp");
    let template = fs::read_to_string(device.directory().join("template.toml")).unwrap();
    let template = template
        .replace("\"timestamp.pub\"", &format!("\"{}.pub\"", device.directory().join("timestamp").display()));
    assert!(template.contains("forbid-principals"), "{template}");
    for (name, change) in [("same.toml", ""), ("stricter.toml", "allow-principals = [\"alice\"]\n")] {
        fs::write(directory.path().join(name), format!("{template}\n{change}")).unwrap();
    }
    let looser: String = template
        .lines()
        .filter(|line| !line.contains("forbid-principals"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(directory.path().join("looser.toml"), looser).unwrap();
    let lines = |template: &str, public: Option<&Key>| {
        let public = public.map(|key| format!("public-key = \"{}\"\n", key.public.display()));
        format!(
            "fallback = \"{}\"\nfallback-template = \"{}\"\n{}",
            token.uri("ca"),
            directory.path().join(format!("{template}.toml")).display(),
            public.unwrap_or_default()
        )
    };
    let sign = |device: &str, lines: &str, principal: &str, more: &[&str]| {
        let _ = fs::remove_file(user.certificate());
        let file = token.directory().join("config.toml");
        let text = format!(
            "[ca.users]\ndevice = \"{device}\"\nkey = 5\ntemplate = 10\ntimestamp = \"{}\"\n{lines}",
            timestamp.display()
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = token.command();
        command.env("SSHSM_PASSWORD", "password").args(["--format", "json", "--config"]).arg(file);
        command.args(["sign", "-s", "users", "-I", "x", "-n", principal, "-V", "+1h"]).args(more);
        run(command.arg(&user.public))
    };
    let ask = &["--fallback"];
    let same = lines("same", Some(&authority));

    // A template that was never seen cannot be compared.
    let unseen = sign("http://127.0.0.1:1", &same, "alice", ask);
    assert_fails(&unseen, 5, &["was never seen here"]);
    // A device that is present signs, and what it refuses stays refused.
    let there = sign(&here, &same, "alice", ask).success();
    assert_eq!(
        (&json(&there)["fallback"], &json(&there)["enforced_by"]),
        (&Value::from(false), &Value::from("device"))
    );
    let _ = certificate::read(&user.certificate(), &authority);
    let refused = sign(&here, &same, "root", ask);
    assert_eq!(refused.status.code(), Some(5), "{refused}");
    assert_eq!(json(&refused)["enforced_by"], "device", "{refused}");
    assert!(!refused.stderr.contains("fallback") && !user.certificate().exists(), "{refused}");

    for absent in ["http://127.0.0.1:1", "serial:/dev/no-such-board"] {
        assert_fails(&sign(absent, "", "alice", ask), 3, &["no device at"]);
        let unasked = sign(absent, &same, "alice", &[]);
        assert_fails(&unasked, 3, &["--fallback signs with it", "no device at"]);
        assert!(!user.certificate().exists());
        let looser = sign(absent, &lines("looser", Some(&authority)), "alice", ask);
        assert_fails(&looser, 5, &["allows what the device's did not", "forbid-principals"]);
        assert!(!user.certificate().exists());
        for template in ["same", "stricter"] {
            let on = sign(absent, &lines(template, Some(&authority)), "alice", ask).success();
            assert!(on.stderr.contains("NO DEVICE ANSWERS: signing with the fallback pkcs11:"), "{on}");
            let report = json(&on);
            assert_eq!(
                (&report["fallback"], &report["enforced_by"]),
                (&Value::from(true), &Value::from("host"))
            );
            let _ = certificate::read(&user.certificate(), &authority);
        }
        let refused = sign(absent, &same, "root", ask);
        assert_eq!(refused.status.code(), Some(5), "{refused}");
        let blind = sign(absent, &lines("same", None), "alice", ask);
        assert_fails(&blind, 2, &["the CA \"users\" a fallback but no public-key"]);
        let wrong = sign(absent, &lines("same", Some(&other)), "alice", ask);
        assert_fails(&wrong, 5, &["was never seen here"]);
        assert!(!user.certificate().exists());
    }
    // Whether the fallback signs is asked for on the command line and nowhere else.
    let preset = format!("{same}[sign]\nfallback = true\n");
    assert_fails(&sign("http://127.0.0.1:1", &preset, "alice", &[]), 2, &["fallback"]);
}

#[test]
fn keys_on_tokens_sign_the_time() {
    let directory = tempdir().unwrap();
    let user = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    for kind in [KeyType::Rsa2048, KeyType::P256, KeyType::P384, KeyType::Ed25519] {
        let (token, clock) = needs!(token_with(kind, BOUNDED));
        let device = needs!(Sshsm::new(BOUNDED));
        let authority = device.generate_authority(KeyType::P256);
        let template = token.directory().join("clocked.toml");
        let text = format!("ca-keys = [5]\ntimestamp-key = \"{}\"\n{BOUNDED}", clock.public.display());
        fs::write(&template, text).unwrap();
        let _ = run(device.command().args(["template", "put"]).arg(template).args(["--id", "11"])).success();
        let sign = |template: &str| {
            let mut command = device.command();
            command.env("PKCS11_MODULE_PATH", token.module()).env("SSHSM_PIN", PIN);
            command.args(["sign", "-s", "5", "-t", template, "-I", "id", "-n", "alice", "-V", "+1h"]);
            run(token.on(command.args(["--timestamp", &token.uri(label(&clock))]).arg(&user.public)))
        };
        let signed = sign("11").success();
        assert!(signed.stderr.contains("enforced by device"), "{signed}");
        let _ = certificate::read(&user.certificate(), &authority);
        let other = sign("10");
        assert!(!other.status.success(), "{other}");
    }
}

#[test]
fn tokens_and_their_keys_are_listed_without_a_pin() {
    let (token, authority) = needs!(token_with(KeyType::P384, BOUNDED));
    token.generate("second", 2, KeyType::Rsa2048, &[]);
    let mut command = token.command();
    command.env_remove("SSHSM_PIN").args(["device", "list"]);
    let text = run(&mut command).success();
    let fingerprint = authority.fingerprint();
    assert!(
        text.stdout.contains(&fingerprint) && text.stdout.contains(LABEL.replace(' ', "%20").as_str()),
        "{text}"
    );
    let listed = json(&run(command.args(["--format", "json"])).success());
    let tokens: Vec<_> = listed.as_array().unwrap().iter().filter(|found| found["kind"] == "token").collect();
    assert_eq!((tokens.len(), tokens[0]["token"].as_str().unwrap()), (1, LABEL));
    let keys = tokens[0]["keys"].as_array().unwrap();
    let mut algorithms: Vec<_> = keys.iter().map(|key| key["algorithm"].as_str().unwrap()).collect();
    algorithms.sort_unstable();
    assert_eq!(algorithms, ["ecp384", "rsa2048"]);
    // The listing identifies the key.
    let user = needs!(Key::generate(token.directory(), "user", KeyType::Ed25519));
    let key = keys.iter().find(|key| key["fingerprint"] == fingerprint.as_str()).unwrap();
    let mut command = token.command();
    command.args([
        "--device",
        key["device"].as_str().unwrap(),
        "sign",
        "-s",
        AUTHORITY,
        "-I",
        "id",
        "-n",
        "a",
        "-t",
    ]);
    command.arg(token.directory().join("template.toml")).args(["-V", "+1h"]);
    command.arg("--timestamp").arg(token.directory().join("timestamp"));
    let _ = run(command.arg(&user.public)).success();
    let _ = certificate::read(&user.certificate(), &authority);

    let broken = run(token.command().env("PKCS11_MODULE_PATH", "/no/such.so").args(["device", "list"]));
    assert_fails(&broken, 3, &["/no/such.so cannot be loaded"]);
    let without = run(token.command().env_remove("PKCS11_MODULE_PATH").args(["device", "list"]));
    assert_eq!(without.status.code(), Some(0), "{without}");
    assert!(!without.stdout.contains("pkcs11:"), "{without}");
}

/// It runs with everything that the program has, including the PIN.
#[test]
fn a_module_that_others_may_write_is_not_loaded() {
    use std::os::unix::fs::PermissionsExt as _;
    let token = needs!(SoftHsm::new(BOUNDED));
    let folder = token.directory().join("modules");
    fs::create_dir(&folder).unwrap();
    let module = folder.join("module.so");
    fs::copy(token.module(), &module).unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let list = || {
        let mut command = token.command();
        command.args(["device", "list"]).env("PKCS11_MODULE_PATH", &module);
        run(&mut command)
    };
    for (file, above, named) in [
        (0o755, 0o755, None),
        (0o775, 0o755, Some("module.so")),
        (0o757, 0o755, Some("module.so")),
        (0o755, 0o777, Some("modules")),
    ] {
        mode(&module, file);
        mode(&folder, above);
        let listed = list();
        match named {
            None => assert!(listed.status.success() && listed.stdout.contains("ca%20token"), "{listed}"),
            Some(named) => {
                assert!(listed.stderr.contains("others may write"), "{listed}");
                assert!(listed.stderr.contains(named) && !listed.stdout.contains("ca%20token"), "{listed}");
            }
        }
    }
}
