//! Templates that say what is allowed: from TOML through the device to the verdict that the reader sees.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use machine::{Machine, ed25519};

/// A device whose CA key 5 signs under template 10 with these rules.
fn machine(rules: &str) -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.new_key("user", ed25519(1));
    set_up(machine, rules)
}

fn set_up(machine: Machine, rules: &str) -> Machine {
    machine.write(
        "t.toml",
        &format!(
            "ca-keys = [5]\nnot-before-offset = \"5m\"\nnot-after-offset = \"10h\"\ntimestamp-key = \"timestamp.pub\"\n{rules}"
        ),
    );
    assert_eq!(machine.run(&["key", "generate", "--algorithm", "ed25519", "--id", "5"]).code, 0);
    let put = machine.run(&["template", "put", "t.toml", "--id", "10"]);
    assert_eq!(put.code, 0, "{put:?}");
    machine
}

fn sign(machine: &Machine, arguments: &str) -> machine::Run {
    let line = format!("sign -s 5 -t 10 --timestamp timestamp {arguments} user.pub");
    machine.run(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn what_is_not_allowed_is_refused_and_told() {
    let machine = machine(
        "certificate-types = [\"user\"]\nallow-principals = [\"zone-*\"]\nmax-lifetime = \"1h\"\nmax-principals = 2\n\
         allow-extensions = [\"permit-pty\"]\nallow-critical-options = [\"source-address\"]\n\
         require-critical-options = [\"source-address\"]\nsource-address = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
         subject-keys = [\"ed25519\"]\nkey-id = [\"*@example.com\"]\nserials = { first = 100, last = 199, increasing = true }\n\
         signature-algorithms = [\"ssh-ed25519\"]\n",
    );
    let good =
        "-I me@example.com -n zone-web -V +50m -z 100 -O clear -O permit-pty -O source-address=10.1.0.0/16";
    let signed = sign(&machine, good);
    assert_eq!(signed.code, 0, "{signed:?}");
    for (from, to, check) in [
        ("-I", "-h -I", "certificate-type"),
        ("zone-web", "zone-web,admin", "allowed-principals"),
        ("zone-web", "zone-a,zone-b,zone-c", "principal-count"),
        ("+50m", "+61m", "lifetime"),
        ("-O permit-pty", "-O permit-X11-forwarding", "extensions"),
        ("-O source-address=10.1.0.0/16", "-O force-command=x", "critical-options"),
        ("-O source-address=10.1.0.0/16", "-O permit-pty", "required-options"),
        ("10.1.0.0/16", "10.1.0.0/16,11.0.0.1", "source-address"),
        ("@example.com", "@example.org", "key-id"),
        ("-z 100", "-z 200", "serial"),
        ("-z 100", "-z 100", "increasing-serial"),
    ] {
        let arguments = match check {
            "certificate-type" => "-h -I me@example.com -n zone-web -V +50m -z 150".to_owned(),
            "increasing-serial" => good.to_owned(),
            _ => good
                .replace("-z 100", "-z 150")
                .replace(from, to)
                .replace("-z 150", if check == "serial" { "-z 200" } else { "-z 150" }),
        };
        let refused = sign(&machine, &format!("{arguments} --format json"));
        assert_eq!(refused.code, 5, "{check}: {refused:?}");
        let report: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
        let checks = report["keys"][0]["verdict"]["checks"].as_array().unwrap();
        let outcome =
            |name: &str| checks.iter().find(|found| found["check"] == name).unwrap()["outcome"].clone();
        assert_eq!(outcome(check), "refused", "{check}: {refused:?}");
    }
    let next = sign(&machine, &good.replace("-z 100", "-z 101"));
    assert_eq!(next.code, 0, "{next:?}");
}

#[test]
fn a_table_has_lines_only_for_rules_that_the_template_has() {
    let machine = machine("max-lifetime = \"1h\"\n");
    let refused = sign(&machine, "-I me -n a -V +2h");
    assert!(refused.code == 5 && refused.stderr.contains("lifetime              refused    "), "{refused:?}");
    assert!(!refused.stderr.contains("quota") && !refused.stderr.contains("anything"), "{refused:?}");
    let shown = machine.run(&["template", "show", "10"]).stdout;
    assert!(shown.contains("max-lifetime:         1 hour"), "{shown}");
    let json = machine.run(&["template", "show", "10", "--format", "json"]).json();
    assert_eq!(json["rules"]["max-lifetime"], "1 hour");
}

/// The device says why, and `template check` says the same offline, to the byte.
#[test]
fn a_dry_run_and_an_offline_check_give_one_verdict_and_sign_nothing() {
    let machine = machine("allow-principals = [\"zone-*\"]\nmax-lifetime = \"1h\"\nkey-id = [\"me\"]\n");
    for (principal, code, said) in [
        ("zone-a", 0, "user.pub would be signed under template 0x000a, enforced by device\n"),
        ("admin", 5, "user.pub refused by template 0x000a, enforced by device\n"),
    ] {
        let arguments = format!("-I me -n {principal} -V +50m -z 7");
        let dry = sign(&machine, &format!("{arguments} --dry-run --save-request"));
        assert_eq!((dry.code, machine.path("user-cert.pub").exists()), (code, false), "{dry:?}");
        let (_, told) = dry.stderr.split_once(said).unwrap();
        let table = |text: &str| -> String {
            text.lines()
                .take_while(|line| line.starts_with("  "))
                .map(|line| line.to_owned() + "\n")
                .collect()
        };
        let check = machine.run(&["template", "check", "t.toml", "user-cert.req"]);
        assert_eq!(check.code, code, "{check:?}");
        let (_, offline) = check.stdout.split_once('\n').unwrap();
        assert!(told.lines().next().unwrap().starts_with("  check "), "{told}");
        assert_eq!(table(told), table(offline));

        let report = sign(&machine, &format!("{arguments} --dry-run --format json")).stdout;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let result = &report["keys"][0];
        assert_eq!(result["result"], if code == 0 { "allowed" } else { "refused" }, "{report}");
        assert_eq!((&result["serial"], &result["verdict"]["outcome"]), (&7.into(), &result["result"]));
    }
    let signed = sign(&machine, "-I me -n zone-a -V +50m -z +");
    assert_eq!(signed.code, 0, "{signed:?}");
    assert!(signed.stderr.contains(" serial 1 "), "no dry run took a number of the ledger: {signed:?}");
    let counted = sign(&machine, "-I me -n zone-a -V +50m -z + --dry-run");
    assert!(counted.code == 2 && counted.stderr.contains("name one here"), "{counted:?}");
}

#[test]
fn a_sealed_template_stays() {
    let machine = machine("sealed = true\n");
    let delete = machine.run(&["key", "delete", "10", "--type", "template"]);
    assert_eq!(delete.code, 5, "{delete:?}");
    assert_eq!(machine.run(&["template", "show", "10"]).code, 0);
}

/// As on a YubiHSM 2, which reads no tag of ours.
#[test]
fn a_strict_device_refuses_under_rules_that_it_does_not_know_and_the_reason_is_told() {
    let device = sshsm_simulator::Simulator::memory().strict_yubihsm2().start().unwrap().serve().unwrap();
    let mut machine = Machine::with_device(&device.url());
    machine.timestamp_key("timestamp");
    machine.new_key("user", ed25519(1));
    for (rules, refused) in [("", false), ("max-lifetime = \"8h\"\n", true)] {
        machine = set_up(machine, rules);
        let run = sign(&machine, "-I me -n a -V +1h");
        assert_eq!(run.code, if refused { 5 } else { 0 }, "{run:?}");
        assert_eq!(run.stderr.contains("malformed: unknown tag 0x82"), refused, "{run:?}");
        for (id, of) in [("5", "asymmetric-key"), ("10", "template")] {
            assert_eq!(machine.run(&["key", "delete", id, "--type", of]).code, 0);
        }
    }
}
