//! `cargo xtask ct`: secrets through the product's code under Valgrind's memcheck, which treats them as
//! undefined and reports every branch and every address that depends on one. The checks are the program in
//! `ct`; `ct/verdicts.supp` lists where a secret becomes a public yes or no, and nothing else is accepted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    program::{Failure, Run as _, cargo, program, root, target},
    setup,
};

/// The implementations that run on boards: in software, with 32-bit words.
const FLAGS: [&str; 6] = [
    "aes_backend=\"soft\"",
    "sha1_backend=\"soft\"",
    "sha2_backend=\"soft\"",
    "cpubits=\"32\"",
    "curve25519_dalek_backend=\"serial\"",
    "curve25519_dalek_bits=\"32\"",
];
/// Checks with this prefix leak their secret, and must be detected.
const CONTROL: &str = "control-";
/// Frames of a finding's stack that are shown.
const SHOWN: usize = 10;

/// Builds the checks and runs each.
pub(crate) fn chore() -> Result<(), Failure> {
    if let Some(missing) = setup::lacks("valgrind") {
        return Err(Failure::Missing(vec![missing.report()]));
    }
    let checks = build()?;
    let names = program(&checks).answer().filter(|names| !names.is_empty());
    let names = names.ok_or_else(|| Failure::Refused("the checks do not list their names".to_owned()))?;
    let verdicts = Path::new("ct/verdicts.supp");
    let entries = fs::read_to_string(root().join(verdicts)).map_err(Failure::System)?;
    let entries = Entry::parse(&entries).map_err(Failure::Refused)?;
    let mut failed = 0;
    for name in names.lines() {
        let complaints = judge(name, &run(&checks, name, verdicts)?, &entries);
        let outcome = if complaints.is_empty() { "ok" } else { "FAILED" };
        println!("{name:<24}{outcome}");
        complaints.iter().for_each(|complaint| println!("  {complaint}"));
        failed += usize::from(!complaints.is_empty());
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::Refused(format!("{failed} checks of constant time failed")))
    }
}

/// Builds the program, of the versions in the project's lock file.
fn build() -> Result<PathBuf, Failure> {
    fs::copy(root().join("Cargo.lock"), root().join("ct/Cargo.lock")).map_err(Failure::System)?;
    let target = target()?.join("ct");
    let flags = FLAGS.map(|flag| format!("--cfg={flag}")).join("\x1f");
    let mut command = cargo();
    command.args(["build", "--quiet", "--release", "--manifest-path", "ct/Cargo.toml", "--target-dir"]);
    command.arg(&target).env("CARGO_ENCODED_RUSTFLAGS", flags).env_remove("RUSTFLAGS").run()?;
    Ok(target.join("release/sshsm-ct"))
}

/// How a check ended.
struct Ended {
    /// Its own assertions held.
    well: bool,
    /// Memcheck's report, and what the check printed on stderr.
    says: String,
}

fn run(checks: &Path, name: &str, verdicts: &Path) -> Result<Ended, Failure> {
    let mut command = program("valgrind");
    command.args(["-v", "--leak-check=no", "--error-limit=no", "--num-callers=60"]);
    command.arg(format!("--suppressions={}", verdicts.display())).arg(checks).arg(name);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|reason| Failure::Start("valgrind".to_owned(), reason))?;
    Ok(Ended { well: output.status.success(), says: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// An entry of `verdicts.supp`.
struct Entry<'f> {
    name: &'f str,
    /// The checks that must reach it, and the maximum number of times; none for code that has nothing to do
    /// with a secret.
    checks: Vec<(&'f str, u64)>,
}

impl<'f> Entry<'f> {
    /// All entries of a file, by their names.
    fn parse(file: &'f str) -> Result<Vec<Self>, String> {
        let lines = file.lines().map(str::trim);
        let names = lines.clone().zip(lines.skip(1)).filter(|(line, _)| *line == "{");
        names.map(|(_, name)| Self::named(name).ok_or_else(|| format!("no entry's name: {name:?}"))).collect()
    }

    fn named(name: &'f str) -> Option<Self> {
        let (checks, _reason) = name.split_once(": ")?;
        let checks =
            checks.split(", ").filter(|check| *check != "*").map(|check| match check.split_once(' ')? {
                (check, "*") => Some((check, u64::MAX)),
                (check, most) => Some((check, most.parse().ok()?)),
            });
        Some(Self { name, checks: checks.collect::<Option<_>>()? })
    }
}

/// What is wrong with a check; empty if everything is as expected.
fn judge(check: &str, ended: &Ended, entries: &[Entry<'_>]) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines: Vec<&str> = ended.says.lines().map(said).collect();
    let summary = lines.iter().find_map(|line| line.strip_prefix("ERROR SUMMARY: "));
    let findings = summary.and_then(|summary| summary.split(' ').nth(3)?.parse::<u64>().ok());
    let control = check.starts_with(CONTROL);
    match findings {
        _ if !ended.well => complaints.push(format!("did not end well:\n{}", ended.says.trim_end())),
        None => complaints.push(format!("memcheck did not end well:\n{}", ended.says.trim_end())),
        Some(0) if control => complaints.push("leaks its secret without being detected".to_owned()),
        Some(findings) if findings > 0 && !control => {
            complaints.push(format!("{findings} findings, the first:\n{}", first(&lines)));
        }
        Some(_) => {}
    }
    for entry in entries {
        let uses = lines.iter().filter_map(|line| uses(line, entry.name)).sum();
        let most = entry.checks.iter().find(|(name, _)| *name == check).map(|(_, most)| *most);
        let complaint = match (most, uses) {
            (Some(_), 0) => "its secret does not reach its verdict".to_owned(),
            (Some(most), _) if uses > most => format!("{uses} branches there"),
            (None, 1..) if !entry.checks.is_empty() => "this is none of its verdicts".to_owned(),
            _ => continue,
        };
        complaints.push(format!("{complaint}: {}", entry.name));
    }
    complaints
}

/// A line without the process that memcheck puts in front: `==12== ` or `--12-- `.
fn said(line: &str) -> &str {
    let rest = line.trim_start_matches(['=', '-']).trim_start_matches(|digit: char| digit.is_ascii_digit());
    rest.strip_prefix("== ").or(rest.strip_prefix("-- ")).unwrap_or(line)
}

/// How often an entry was used, if the line reports that.
fn uses(line: &str, name: &str) -> Option<u64> {
    let (count, rest) = line.strip_prefix("used_suppression:")?.trim_start().split_once(' ')?;
    rest.strip_prefix(name)?.starts_with(' ').then(|| count.parse().ok())?
}

/// The first finding: its kind, and its stack.
fn first(lines: &[&str]) -> String {
    let at = lines.iter().position(|line| line.trim_start().starts_with("at 0x")).unwrap_or_default();
    let finding = lines.iter().skip(at.saturating_sub(1)).take(1 + SHOWN);
    finding.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICTS: &str = "# where\n{\n   open 2, seal *: the answer\n   Memcheck:Cond\n   fun:open\n}\n\
        {\n   *: no secret\n   Memcheck:Cond\n   fun:any\n}\n";

    fn judged(check: &str, well: bool, findings: u32, uses: &[&str]) -> Vec<String> {
        let mut says = String::from("--7-- Reading syms\n==7== Memcheck, a memory error detector\n");
        for finding in 0..findings {
            says += &format!(
                "==7== Use of uninitialised value of size 8\n==7==    at 0x{finding}: leak (a.rs:1)\n"
            );
        }
        says += "==7== \n";
        uses.iter()
            .for_each(|uses| says += &format!("--7-- used_suppression:      {uses} ct/verdicts.supp:2\n"));
        says += &format!("==7== ERROR SUMMARY: 40 errors from {findings} contexts (suppressed: 3 from 2)\n");
        judge(check, &Ended { well, says }, &Entry::parse(VERDICTS).unwrap())
    }

    #[test]
    fn a_check_passes_that_comes_to_its_verdicts_and_to_nothing_else() {
        for uses in ["1 open 2, seal *: the answer", "2 open 2, seal *: the answer"] {
            assert_eq!(judged("open", true, 0, &[uses, "99 *: no secret"]), [""; 0]);
        }
        assert_eq!(judged("seal", true, 0, &["99 open 2, seal *: the answer"]), [""; 0]);
        assert_eq!(judged("other", true, 0, &[]), [""; 0]);
    }

    #[test]
    fn a_check_fails_with_its_first_stack_when_there_is_a_finding() {
        let complaints = judged("other", true, 2, &[]);
        let expected =
            "2 findings, the first:\n    Use of uninitialised value of size 8\n       at 0x0: leak (a.rs:1)";
        assert!(complaints[0].starts_with(expected), "{complaints:?}");
    }

    #[test]
    fn a_check_fails_unless_it_reaches_its_own_verdicts_as_often_as_it_asks() {
        let verdict = "1 open 2, seal *: the answer";
        for (check, well, uses, complaint) in [
            ("other", false, [].as_slice(), "did not end well"),
            ("open", true, &[], "its secret does not reach its verdict"),
            ("open", true, &["3 open 2, seal *: the answer"], "3 branches there"),
            ("other", true, &[verdict], "this is none of its verdicts"),
        ] {
            let complaints = judged(check, well, 0, uses);
            assert!(matches!(complaints.as_slice(), [one] if one.starts_with(complaint)), "{complaints:?}");
        }
        let crashed = Ended { well: true, says: "==7== Memcheck".to_owned() };
        assert_eq!(judge("other", &crashed, &[]).len(), 1, "memcheck prints no summary");
    }

    #[test]
    fn a_control_fails_unless_it_is_found_out() {
        assert_eq!(judged("control-x", true, 1, &[]), [""; 0]);
        assert_eq!(judged("control-x", true, 0, &[]).len(), 1);
        assert_eq!(judged("control-x", false, 1, &[]).len(), 1);
    }

    #[test]
    fn an_entry_without_checks_or_a_reason_is_refused() {
        for name in ["the answer", "open: the answer", "open two: the answer", ": the answer"] {
            assert!(Entry::parse(&format!("{{\n{name}\n}}")).is_err(), "{name}");
        }
    }

    #[test]
    fn every_verdict_is_of_a_check_that_there_is() {
        let main = fs::read_to_string(root().join("ct/src/main.rs")).unwrap();
        let verdicts = fs::read_to_string(root().join("ct/verdicts.supp")).unwrap();
        for (check, _) in Entry::parse(&verdicts).unwrap().iter().flat_map(|entry| &entry.checks) {
            assert!(main.contains(&format!("(\"{check}\", ")), "{check}");
        }
    }
}
