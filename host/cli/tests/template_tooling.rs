//! Templates before a key depends on them: reviewed, compared and tested, with the real binary.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{fs, path::Path};

use machine::{Machine, ed25519};

/// The documentation's blocks of TOML, in their order.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/templates.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

/// With the documentation's template as `users.toml`.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("plain.toml", "5m", "unbounded", &["root"]);
    machine.write("users.toml", &documented()[0]);
    machine
}

fn ids(report: &serde_json::Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["id"].as_str().unwrap()).collect()
}

#[test]
fn the_documented_template_has_no_warnings_and_one_of_yubihsm_s_six_tags_has() {
    let machine = machine();
    let good = machine.run(&["template", "lint", "users.toml", "--format", "json"]).json();
    assert_eq!((&good["errors"], &good["warnings"]), (&0.into(), &0.into()), "{good}");
    let plain = machine.run(&["template", "lint", "plain.toml"]);
    assert_eq!(plain.code, 5, "{plain:?}");
    for line in
        ["error    lasts-for-ever: max-lifetime: ", "warning  deny-list-only: ", "note     not-sealed: "]
    {
        assert!(plain.stdout.contains(line), "{plain:?}");
    }
    assert!(plain.stderr.contains("1 errors and"), "{plain:?}");
}

/// A CA's certificate followed by something, and a request followed by something, are judged as what they
/// are.
#[test]
fn what_stands_behind_a_request_or_a_certificate_is_noticed_and_stops_no_other_file() {
    use base64ct::{Base64, Encoding as _};
    let machine = machine();
    machine.new_key("user", ed25519(1));
    machine.template("t.toml", "5m", "10h", &["root"]);
    for line in ["key generate --algorithm ed25519 --id 5", "template put t.toml --id 10"] {
        assert_eq!(machine.run(&line.split(' ').collect::<Vec<_>>()).code, 0);
    }
    let sign = "sign -s 5 -t 10 --timestamp timestamp -I me -n a -V +1h --save-request user.pub";
    assert_eq!(machine.run(&sign.split(' ').collect::<Vec<_>>()).code, 0);
    let line = fs::read_to_string(machine.path("user-cert.pub")).unwrap();
    let (kind, rest) = line.split_once(' ').unwrap();
    let blob = Base64::decode_vec(rest.split_whitespace().next().unwrap()).unwrap();
    let mut inside = blob.clone();
    // The signature's string grows by one byte, and the string around it with it.
    let (outer, inner) = (blob.len() - 64 - 4 - 11 - 4 - 4, blob.len() - 64 - 4);
    inside[outer + 3] += 1;
    assert_eq!(inside[inner + 3], 64);
    inside.push(0);
    for (name, blob) in [
        ("behind.pub", [&blob[..], b"x"].concat()),
        ("inside.pub", inside),
        ("cut.pub", blob[..blob.len() - 1].to_vec()),
    ] {
        machine.write(name, &format!("{kind} {}\n", Base64::encode_string(&blob)));
    }
    let request = fs::read(machine.path("user-cert.req")).unwrap();
    fs::write(machine.path("long.req"), [&request[..], b"xy"].concat()).unwrap();
    let check = |files: &[&str]| machine.run(&[&["template", "check", "t.toml"], files].concat());
    for name in ["behind.pub", "inside.pub", "cut.pub"] {
        let run = check(&[name]);
        assert!(run.code == 1 && run.stderr.contains("the certificate's signature is malformed"), "{run:?}");
    }
    // The device's answer to what it is sent.
    let long = check(&["long.req"]);
    assert!(long.code == 5 && long.stdout.contains("request"), "{long:?}");
    assert!(long.stdout.contains("malformed: ") && long.stdout.contains("2 bytes after"), "{long:?}");
    // Each is tried; a file that could not be judged counts more than one that was refused.
    let all = check(&["behind.pub", "user-cert.pub", "absent.pub", "long.req", "user-cert.req"]);
    assert_eq!(all.code, 6, "{all:?}");
    assert!(all.stderr.contains("behind.pub not judged: ") && all.stderr.contains("absent.pub not judged: "));
    assert!(all.stderr.contains("2 of 5 requests were not judged"), "{all:?}");
    // Only a request has a timestamp.
    for judged in ["user-cert.pub: undecided\n", "user-cert.req: allowed\n", "long.req: refused\n"] {
        assert!(all.stdout.contains(judged), "{judged}: {all:?}");
    }
}

#[test]
fn what_is_allowed_is_left_aside_and_no_longer_fails() {
    let machine = machine();
    let json = machine.run(&["template", "lint", "plain.toml", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let mut arguments = vec!["template", "lint", "plain.toml", "--format", "json"];
    for finding in report["findings"].as_array().unwrap() {
        assert!(
            finding["rule"].is_string() && finding["message"].is_string() && finding["advice"].is_string()
        );
        if finding["severity"] != "note" {
            arguments.extend(["--allow", finding["id"].as_str().unwrap()]);
        }
    }
    let silent = machine.run(&arguments).json();
    assert!(!ids(&silent).contains(&"deny-list-only") && ids(&silent).contains(&"not-sealed"), "{silent}");
    assert_eq!(silent["allowed"].as_array().unwrap().len(), (arguments.len() - 5) / 2);
    assert_eq!(machine.run(&["template", "lint", "plain.toml", "--allow", "everything"]).code, 2);
}

#[test]
fn templates_on_the_device_are_reviewed_and_compared_like_files() {
    let machine = machine();
    assert_eq!(machine.run(&["template", "put", "users.toml", "--id", "10"]).code, 0);
    assert_eq!(machine.run(&["template", "build", "users.toml", "-o", "users.tlv"]).code, 0);
    let lint = |name: &str| {
        let mut report = machine.run(&["template", "lint", name, "--format", "json"]).json();
        report["template"].take();
        report
    };
    assert_eq!(lint("10"), lint("users.toml"));
    assert_eq!(lint("users.tlv"), lint("users.toml"));
    let equal = machine.run(&["template", "diff", "10", "users.toml"]);
    assert_eq!((equal.code, equal.stdout.as_str()), (0, "both allow the same\n"), "{equal:?}");
    for verb in [&["lint", "11"][..], &["diff", "users.toml", "11"]] {
        let absent = machine.run(&[&["template"], verb].concat());
        assert!(absent.code == 1 && absent.stderr.contains("object not found"), "{absent:?}");
    }
}

#[test]
fn a_difference_is_told_rule_by_rule_in_both_directions() {
    let machine = machine();
    let text = documented()[0]
        .replace("\"8h\"", "\"1h\"")
        .replace("[\"zone-*\", \"alice\"]", "[\"zone-*\", \"bob\"]");
    machine.write("new.toml", &text.replace("sealed = true", ""));
    let told = machine.run(&["template", "diff", "users.toml", "new.toml"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert_eq!(
        told.stdout,
        "different allow-principals: no longer alice; now bob\n\
         stricter  max-lifetime: was 8 hours; is 1 hour\n\
         looser    sealed: was goes with the whole device only; is the template can be deleted\n"
    );
    assert!(told.stderr.contains("1 rules are stricter, 1 looser, 1 neither"), "{told:?}");
    let back = machine.run(&["template", "diff", "new.toml", "users.toml", "--format", "json"]);
    assert_eq!(back.code, 1);
    let back: serde_json::Value = serde_json::from_str(&back.stdout).unwrap();
    assert_eq!(back["equal"], false);
    let changes: Vec<_> = back["changes"].as_array().unwrap().iter().collect();
    let directions: Vec<_> = changes.iter().map(|change| change["direction"].as_str().unwrap()).collect();
    assert_eq!(directions, ["different", "looser", "stricter"]);
    assert_eq!(changes[0]["added"], serde_json::json!(["alice"]));
    assert_eq!((&changes[1]["before"], &changes[1]["after"]), (&"1 hour".into(), &"8 hours".into()));
}

#[test]
fn the_documented_suite_passes_on_the_documented_template() {
    let machine = machine();
    machine.write("suite.toml", documented().last().unwrap());
    let run = machine.run(&["template", "test", "suite.toml", "--junit", "results.xml"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("\n  ok      ") && run.stdout.ends_with(" passed, 0 failed\n"), "{run:?}");
    let results = fs::read_to_string(machine.path("results.xml")).unwrap();
    assert!(results.contains("failures=\"0\"") && results.contains("<testcase "), "{results}");
}

#[test]
fn a_suite_with_the_names_that_checks_had_before_passes_and_the_new_ones_are_told() {
    let machine = machine();
    let suite = documented().last().unwrap().replace("\"allow-principals\"", "\"allowed-principals\"");
    machine.write("suite.toml", &suite);
    let run = machine.run(&["template", "test", "suite.toml", "--format", "json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let warnings: Vec<_> = run.stderr.lines().filter(|line| line.contains("warning")).collect();
    let warned = "the check \"allowed-principals\" is now \"allow-principals\"";
    assert!(
        matches!(warnings[..], [line] if line.contains("suite.toml, line ") && line.ends_with(warned)),
        "{run:?}"
    );
}

#[test]
fn a_template_that_says_something_else_fails_its_tests() {
    let machine = machine();
    machine.write("suite.toml", documented().last().unwrap());
    machine.write("users.toml", &documented()[0].replace("[\"zone-*\", \"alice\"]", "[\"*\"]"));
    let run = machine.run(&["template", "test", "suite.toml", "--junit", "results.xml", "--format", "json"]);
    assert_eq!(run.code, 5, "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["failed"].as_u64().unwrap() > 0 && report["passed"].as_u64().unwrap() > 0, "{report}");
    let tests = report["suites"][0]["tests"].as_array().unwrap();
    let failed = tests.iter().find(|test| test["passed"] == false).unwrap();
    let expected = failed["expected"]["refuse"].as_array().unwrap();
    assert!(expected.contains(&"allow-principals".into()), "{failed}");
    let checks = failed["verdict"]["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["check"] == "allow-principals" && check["outcome"] == "allowed"));
    assert!(fs::read_to_string(machine.path("results.xml")).unwrap().contains("<failure "));
    let text = machine.run(&["template", "test", "suite.toml"]);
    assert!(text.stdout.contains("  FAILED  ") && text.stderr.contains("template tests failed"), "{text:?}");
    let json = machine.run(&["template", "test", "nowhere.toml"]);
    assert_eq!(json.code, 6, "{json:?}");
    let unwritten = machine.run(&["template", "test", "suite.toml", "--junit", "nowhere/results.xml"]);
    assert_eq!(unwritten.code, 6, "{unwritten:?}");
}

/// A suite gives the same verdicts offline as a device with the same state.
#[test]
fn a_suite_says_what_a_device_says() {
    let machine = machine();
    let rules = "max-lifetime = \"1h\"\nallow-principals = [\"zone-*\"]\nserials = { increasing = true }\n";
    machine.template("t.toml", "5m", "10h", &["root"]);
    let template = fs::read_to_string(machine.path("t.toml")).unwrap() + rules;
    machine.write("t.toml", &template);
    machine.new_key("user", ed25519(1));
    assert_eq!(machine.run(&["key", "generate", "--algorithm", "ed25519", "--id", "5"]).code, 0);
    assert_eq!(machine.run(&["template", "put", "t.toml", "--id", "10"]).code, 0);
    let sign = |principal: &str, validity: &str, serial: &str| {
        let mut arguments: Vec<_> =
            "sign -s 5 -t 10 --timestamp timestamp -I me --format json".split(' ').collect();
        arguments.extend(["-n", principal, "-V", validity, "-z", serial, "user.pub"]);
        let run = machine.run(&arguments);
        let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let checks = report["keys"][0]["verdict"]["checks"].as_array().cloned().unwrap_or_default();
        let refused = checks.iter().filter(|check| check["outcome"] == "refused");
        (run.code, refused.map(|check| check["check"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(sign("zone-a", "-1m:+30m", "7"), (0, vec![]));
    for (principal, validity, serial) in [
        ("zone-a", "-1m:+30m", "7"),
        ("alice", "-1m:+30m", "8"),
        ("root", "-1m:+2h", "6"),
        ("zone-b", "-9m:+12h", "9"),
    ] {
        let (code, refused) = sign(principal, validity, serial);
        assert_eq!(code, 5);
        let suite = format!(
            "template = \"t.toml\"\n[[test]]\nname = \"x\"\nkey-id = \"me\"\nprincipals = [{principal:?}]\n\
             validity = {validity:?}\nserial = {serial}\nmemory = {{ last-serial = 7 }}\nexpect = {refused:?}"
        );
        machine.write("suite.toml", &suite);
        let run = machine.run(&["template", "test", "suite.toml"]);
        assert_eq!(run.code, 0, "{suite}: {run:?}");
    }
}
