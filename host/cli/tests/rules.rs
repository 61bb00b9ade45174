//! Templates that say what is allowed: from TOML through the device to the verdict that the user sees.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use machine::{Machine, ed25519};
use sshsm_simulator::Presence;

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

/// `sign` with these arguments, for user.pub if they name no key; `NOW:+N` is a validity of exactly N seconds
/// from now.
fn sign(machine: &Machine, arguments: &str) -> machine::Run {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let exact = |seconds: &str| format!("{now:#x}:{:#x}", now + seconds.parse::<u64>().unwrap());
    let word = |word: &str| word.strip_prefix("NOW:+").map_or_else(|| word.to_owned(), exact);
    let key = if arguments.ends_with(".pub") { "" } else { " user.pub" };
    let line = format!("sign -s 5 -t 10 --timestamp timestamp {arguments}{key}");
    machine.run(&line.split(' ').map(word).collect::<Vec<_>>())
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
        ("-I", "-h -I", "certificate-types"),
        ("zone-web", "zone-web,admin", "allow-principals"),
        ("zone-web", "zone-a,zone-b,zone-c", "max-principals"),
        ("+50m", "+61m", "max-lifetime"),
        ("-O permit-pty", "-O permit-X11-forwarding", "allow-extensions"),
        ("-O source-address=10.1.0.0/16", "-O force-command=x", "allow-critical-options"),
        ("-O source-address=10.1.0.0/16", "-O permit-pty", "require-critical-options"),
        ("10.1.0.0/16", "10.1.0.0/16,11.0.0.1", "source-address"),
        ("@example.com", "@example.org", "key-id"),
        ("-z 100", "-z 200", "serials"),
        ("-z 100", "-z 100", "increasing-serials"),
    ] {
        let arguments = match check {
            "certificate-types" => "-h -I me@example.com -n zone-web -V +50m -z 150".to_owned(),
            "increasing-serials" => good.to_owned(),
            _ => good
                .replace("-z 100", "-z 150")
                .replace(from, to)
                .replace("-z 150", if check == "serials" { "-z 200" } else { "-z 150" }),
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

/// A request that a rule still allows, and one that only this rule refuses: just beyond, as far as the wire
/// format allows.
struct Bounds {
    rule: &'static str,
    allowed: &'static [&'static str],
    refused: &'static [&'static str],
    check: &'static str,
}

const BOUNDS: [Bounds; 20] = [
    Bounds {
        rule: "certificate-types = [\"host\"]",
        allowed: &["-h -I i -n a -V NOW:+3600"],
        refused: &["-I i -n a -V NOW:+3600"],
        check: "certificate-types",
    },
    Bounds {
        rule: "allow-principals = [\"zone-*\", \"*.org\", \"me\"]",
        allowed: &["-I i -n zone-,.org,me,zone-a.org -V NOW:+3600"],
        refused: &["-I i -n zone -V NOW:+3600", "-I i -n me,org -V NOW:+3600", "-I i -n Me -V NOW:+3600"],
        check: "allow-principals",
    },
    Bounds {
        rule: "max-lifetime = \"1h\"",
        allowed: &["-I i -n a -V NOW:+3600", "-I i -n a -V NOW:+3599"],
        refused: &["-I i -n a -V NOW:+3601"],
        check: "max-lifetime",
    },
    Bounds {
        rule: "max-principals = 2",
        allowed: &["-I i -n a,b -V NOW:+3600"],
        refused: &["-I i -n a,b,c -V NOW:+3600"],
        check: "max-principals",
    },
    Bounds {
        rule: "allow-empty-principals = true\nmax-principals = 1",
        allowed: &["-I i -V NOW:+3600", "-I i -n a -V NOW:+3600"],
        refused: &["-I i -n a,b -V NOW:+3600"],
        check: "max-principals",
    },
    Bounds {
        rule: "allow-extensions = [\"permit-pty\"]",
        allowed: &["-I i -n a -V NOW:+3600 -O clear", "-I i -n a -V NOW:+3600 -O clear -O permit-pty"],
        refused: &["-I i -n a -V NOW:+3600 -O clear -O permit-pty -O permit-user-rc"],
        check: "allow-extensions",
    },
    Bounds {
        rule: "allow-critical-options = [\"force-command\"]",
        allowed: &["-I i -n a -V NOW:+3600", "-I i -n a -V NOW:+3600 -O force-command=x"],
        refused: &["-I i -n a -V NOW:+3600 -O verify-required"],
        check: "allow-critical-options",
    },
    Bounds {
        rule: "require-critical-options = [\"force-command\", \"verify-required\"]",
        allowed: &["-I i -n a -V NOW:+3600 -O force-command=x -O verify-required"],
        refused: &["-I i -n a -V NOW:+3600 -O force-command=x", "-I i -n a -V NOW:+3600"],
        check: "require-critical-options",
    },
    Bounds {
        rule: "force-command = [\"/bin/true\", \"internal-sftp\"]",
        allowed: &["-I i -n a -V NOW:+3600 -O force-command=/bin/true", "-I i -n a -V NOW:+3600"],
        refused: &[
            "-I i -n a -V NOW:+3600 -O force-command=/bin/tru",
            "-I i -n a -V NOW:+3600 -O force-command=/bin/true1",
        ],
        check: "force-command",
    },
    Bounds {
        rule: "source-address = [\"10.0.0.0/8\", \"2001:db8::/32\"]",
        allowed: &[
            "-I i -n a -V NOW:+3600 -O source-address=10.0.0.0/8,10.255.255.255,2001:db8::/32",
            "-I i -n a -V NOW:+3600",
        ],
        refused: &[
            "-I i -n a -V NOW:+3600 -O source-address=10.0.0.0/7",
            "-I i -n a -V NOW:+3600 -O source-address=9.255.255.255",
            "-I i -n a -V NOW:+3600 -O source-address=10.0.0.1,11.0.0.0",
            "-I i -n a -V NOW:+3600 -O source-address=2001:db9::1",
        ],
        check: "source-address",
    },
    Bounds {
        rule: "subject-keys = [\"ecdsa-p256\", \"rsa-2048\"]",
        allowed: &["-I i -n a -V NOW:+3600 rsa2048.pub"],
        refused: &["-I i -n a -V NOW:+3600 rsa2047.pub", "-I i -n a -V NOW:+3600"],
        check: "subject-keys",
    },
    Bounds {
        rule: "key-id = [\"*@example.com\"]",
        allowed: &["-I me@example.com -n a -V NOW:+3600", "-I @example.com -n a -V NOW:+3600"],
        refused: &["-I me@example.com. -n a -V NOW:+3600", "-I example.com -n a -V NOW:+3600"],
        check: "key-id",
    },
    Bounds {
        rule: "serials = { first = 100, last = 199 }",
        allowed: &["-I i -n a -V NOW:+3600 -z 100", "-I i -n a -V NOW:+3600 -z 199"],
        refused: &["-I i -n a -V NOW:+3600 -z 99", "-I i -n a -V NOW:+3600 -z 200", "-I i -n a -V NOW:+3600"],
        check: "serials",
    },
    Bounds {
        rule: "serials = { increasing = true }",
        allowed: &["-I i -n a -V NOW:+3600 -z 7", "-I i -n a -V NOW:+3600 -z 8"],
        refused: &["-I i -n a -V NOW:+3600 -z 8", "-I i -n a -V NOW:+3600 -z 7"],
        check: "increasing-serials",
    },
    Bounds {
        rule: "certificate-types = [\"host\"]\nforbid-principals = [\"bastion.example.com\"]",
        allowed: &["-h -I i -n web.example.com -V NOW:+3600"],
        refused: &["-h -I i -n w?b.example.org -V NOW:+3600", "-h -I i -n *.example.org -V NOW:+3600"],
        check: "host-patterns",
    },
    Bounds {
        rule: "host-patterns = true\nforbid-principals = [\"bastion.example.com\"]",
        allowed: &["-h -I i -n *.example.org -V NOW:+3600", "-I i -n b?stion.example.com -V NOW:+3600"],
        refused: &["-h -I i -n b?stion.example.com -V NOW:+3600", "-h -I i -n * -V NOW:+3600"],
        check: "forbid-principals",
    },
    Bounds {
        rule: "host-patterns = true\nallow-principals = [\"*.example.com\"]",
        allowed: &["-h -I i -n *.example.com,w?b.example.com -V NOW:+3600"],
        refused: &["-h -I i -n *example.com -V NOW:+3600", "-h -I i -n web.example.co? -V NOW:+3600"],
        check: "allow-principals",
    },
    Bounds {
        rule: "serials = { increasing = true, max-step = 10 }",
        allowed: &["-I i -n a -V NOW:+3600 -z 10", "-I i -n a -V NOW:+3600 -z 20"],
        refused: &["-I i -n a -V NOW:+3600 -z 31", "-I i -n a -V NOW:+3600 -z 18446744073709551615"],
        check: "serials-max-step",
    },
    Bounds {
        rule: "clock = { monotonic = true, max-step = \"1d\", since = 2020-01-01T00:00:00Z }",
        allowed: &[],
        refused: &["-I i -n a -V NOW:+3600"],
        check: "clock-max-step",
    },
    Bounds {
        rule: "quota = { signatures = 2, window = \"1d\" }",
        allowed: &["-I i -n a -V NOW:+3600", "-I i -n a -V NOW:+3600"],
        refused: &["-I i -n a -V NOW:+3600"],
        check: "quota",
    },
];

/// The checks that refuse, as `sign` reports them.
fn refusing(run: &machine::Run) -> Vec<String> {
    assert_eq!(run.code, 5, "{run:?}");
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let checks = report["keys"][0]["verdict"]["checks"].as_array().unwrap().iter();
    let refused = checks.filter(|check| check["outcome"] != "allowed");
    refused.map(|check| check["check"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_rule_lets_through_what_is_at_its_bound_and_refuses_what_is_beyond() {
    let device = sshsm_simulator::Simulator::memory().start().unwrap().serve().unwrap();
    let mut machine = Machine::with_device(&device.url());
    machine.timestamp_key("timestamp");
    machine.new_key("user", ed25519(1));
    machine.write("rsa2048.pub", &machine::rsa(&[0x81; 256]));
    machine.write("rsa2047.pub", &machine::rsa(&[0x7f; 256]));
    for Bounds { rule, allowed, refused, check } in BOUNDS {
        machine = set_up(machine, rule);
        let ask = |arguments: &str| sign(&machine, &format!("--format json {arguments}"));
        for arguments in allowed {
            let run = ask(arguments);
            assert_eq!(run.code, 0, "{rule}: {arguments}: {run:?}");
        }
        for arguments in refused {
            assert_eq!(refusing(&ask(arguments)), [check], "{rule}: {arguments}");
        }
        for (id, of) in [("5", "asymmetric-key"), ("10", "template")] {
            assert_eq!(machine.run(&["key", "delete", id, "--type", of]).code, 0);
        }
    }
}

#[test]
fn a_ca_key_signs_with_the_algorithms_of_its_rule() {
    for (algorithm, refused) in [("ssh-ed25519", &[][..]), ("ecdsa-sha2-nistp256", &["signature-algorithms"])]
    {
        let machine = machine(&format!("signature-algorithms = [\"{algorithm}\"]"));
        let run = sign(&machine, "-I i -n a -V +1h --format json");
        match refused {
            [] => assert_eq!(run.code, 0, "{run:?}"),
            refused => assert_eq!(refusing(&run), refused),
        }
    }
}

#[test]
fn now_goes_back_by_the_tolerance_and_no_further() {
    for (tolerance, refused) in [("1m", &[][..]), ("0s", &["clock"])] {
        let machine = machine(&format!("clock = {{ monotonic = true, tolerance = \"{tolerance}\" }}"));
        let ca = machine.run(&["key", "show", "5"]).stdout;
        machine.write("ca.pub", &ca);
        let done = |line: &str| {
            let run = machine.run(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(run.code, 0, "{line}: {run:?}");
        };
        done("request build -s ca.pub -I i -n a -V +1h user.pub");
        done("timestamp sign --key timestamp user-cert.req");
        std::thread::sleep(Duration::from_millis(1100)); // times are in seconds
        done("sign -s 5 -t 10 --timestamp timestamp -I i -n a -V +1h user.pub");
        let earlier = "sign -s 5 -t 10 --format json --request user-cert.timed.req";
        let run = machine.run(&earlier.split(' ').collect::<Vec<_>>());
        match refused {
            [] => assert_eq!(run.code, 0, "{run:?}"),
            refused => assert_eq!(refusing(&run), refused),
        }
    }
}

#[test]
fn above_its_lifetime_a_certificate_needs_a_touch() {
    let (touched, touches) = mpsc::channel();
    let somebody = Arc::new(AtomicBool::new(true));
    let there = somebody.clone();
    let device = sshsm_simulator::Simulator::memory().touch(Box::new(move |_| {
        touched.send(()).unwrap();
        match there.load(Ordering::SeqCst) {
            true => Presence::Confirmed,
            false => Presence::TimedOut,
        }
    }));
    let device = device.start().unwrap().serve().unwrap();
    let machine = Machine::with_device(&device.url());
    machine.timestamp_key("timestamp");
    machine.new_key("user", ed25519(1));
    let machine = set_up(machine, "presence = { above = \"1h\" }");
    for (lifetime, touch, there) in
        [("NOW:+3600", 0, true), ("NOW:+3600", 0, false), ("NOW:+3601", 1, true), ("NOW:+3601", 1, false)]
    {
        somebody.store(there, Ordering::SeqCst);
        let run = sign(&machine, &format!("-I i -n a -V {lifetime}"));
        assert_eq!(run.code == 0, touch == 0 || there, "{lifetime}: {run:?}");
        assert_eq!(touches.try_iter().count(), touch, "{lifetime}: {run:?}");
    }
}

/// Twenty-three certificates of an hour, each from where another ends.
#[test]
fn a_day_in_pieces_needs_a_touch_for_all_but_the_first() {
    let device = sshsm_simulator::Simulator::memory().touch(Box::new(|_| Presence::TimedOut));
    let device = device.start().unwrap().serve().unwrap();
    let machine = Machine::with_device(&device.url());
    machine.timestamp_key("timestamp");
    machine.new_key("user", ed25519(1));
    let machine = set_up(machine, "presence = { above = \"1h\" }");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (hour, signed) in [(0, true), (1, false), (2, false), (8, false)] {
        let validity = format!("{:#x}:{:#x}", now + 3600 * hour, now + 3600 * (hour + 1));
        let run = sign(&machine, &format!("-I i -n a -V {validity}"));
        assert_eq!(run.code == 0, signed, "{hour}: {run:?}");
    }
}

/// The device says so, and the host does for a strict device, which cannot explain.
#[test]
fn a_template_of_another_domain_is_refused_and_told() {
    for strict in [false, true] {
        let simulator = sshsm_simulator::Simulator::memory();
        let simulator = if strict { simulator.strict_yubihsm2() } else { simulator };
        let device = simulator.start().unwrap().serve().unwrap();
        let machine = Machine::with_device(&device.url());
        machine.timestamp_key("timestamp");
        machine.new_key("user", ed25519(1));
        machine.template("t.toml", "5m", "10h", &["root"]);
        let done = |line: &str| {
            let run = machine.run(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(run.code, 0, "{line}: {run:?}");
        };
        done("key generate --algorithm ed25519 --id 5 --domains 1,3");
        done("template put t.toml --id 10 --domains 2");
        done("template put t.toml --id 11 --domains 2,3");
        let line = "sign -s 5 --timestamp timestamp -I i -n a -V +1h --format json user.pub -t";
        let ask = |template: &str| machine.run(&line.split(' ').chain([template]).collect::<Vec<_>>());
        let refused = ask("10");
        assert_eq!(refusing(&refused), ["domain"], "{strict}");
        assert!(refused.stdout.contains("1, 3"), "{refused:?}");
        assert!(!machine.path("user-cert.pub").exists());
        assert_eq!(ask("11").code, 0, "{strict}");
    }
}

/// Nothing is asked of the device, and nothing is recorded as issued.
#[test]
fn a_key_that_openssh_cannot_read_is_told_before_anything_is_signed() {
    let machine = machine("");
    machine.write("rsa767.pub", &machine::rsa(&[0x7f; 96]));
    let run = sign(&machine, "-I i -n a -V +1h rsa767.pub");
    assert!(run.code != 0 && run.stderr.contains("at least 1024 bits, and this one has 767"), "{run:?}");
    assert!(!machine.path("rsa767-cert.pub").exists());
    let ledger = machine.run(&["ledger", "list", "--format", "json"]);
    assert!(!ledger.stdout.contains("\"issued\""), "{ledger:?}");
}

#[test]
fn a_table_has_lines_only_for_rules_that_the_template_has() {
    let machine = machine("max-lifetime = \"1h\"\n");
    let refused = sign(&machine, "-I me -n a -V +2h");
    assert!(
        refused.code == 5 && refused.stderr.contains("max-lifetime              refused    "),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("quota") && !refused.stderr.contains("anything"), "{refused:?}");
    let shown = machine.run(&["template", "show", "10"]).stdout;
    assert!(shown.contains("max-lifetime:         1 hour"), "{shown}");
    let json = machine.run(&["template", "show", "10", "--format", "json"]).json();
    assert_eq!(json["rules"]["max-lifetime"], "1 hour");
}

/// The device explains, and `template check` gives the same output offline, byte for byte.
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
    assert!(counted.code == 2 && counted.stderr.contains("give a number here"), "{counted:?}");
}

/// A strict device has no command that explains, and this key may not read the template either.
#[test]
fn a_dry_run_that_cannot_ask_says_so_and_does_not_speak_of_a_refusal() {
    let device = sshsm_simulator::Simulator::memory().strict_yubihsm2().start().unwrap().serve().unwrap();
    let machine = Machine::with_device(&device.url());
    machine.timestamp_key("timestamp");
    machine.new_key("user", ed25519(1));
    let machine = set_up(machine, "");
    let put = "authentication-key put --id 2 --capabilities sign-ssh-certificate --allow-weak-password";
    let put: Vec<_> = put.split(' ').collect();
    assert_eq!(machine.with_environment(&put, &[("SSHSM_NEW_PASSWORD", "password")]).code, 0);
    let dry = sign(&machine, "--auth-key 2 -I i -n a -V NOW:+3600 --dry-run");
    assert!(dry.code != 0 && !dry.stderr.contains("by the template"), "{dry:?}");
    assert!(dry.stderr.contains("get template"), "{dry:?}");
    let signed = sign(&machine, "--auth-key 2 -I i -n a -V NOW:+3600");
    assert_eq!(signed.code, 0, "which it could not predict: {signed:?}");
}

#[test]
fn a_sealed_template_stays() {
    let machine = machine("sealed = true\n");
    let delete = machine.run(&["key", "delete", "10", "--type", "template"]);
    assert_eq!(delete.code, 5, "{delete:?}");
    assert_eq!(machine.run(&["template", "show", "10"]).code, 0);
}

/// As on a YubiHSM 2, which knows no extension tags.
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
