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
