//! The last lines of a test run: what passed, failed and was skipped. Tests that found out by themselves that
//! they cannot run are among the skipped, each by name.
//!
//! The runner counts such a test as passed. It names itself in a file (`tests/src/requirement.rs`); here the
//! runner's counts and that file become one closing line, `N passed, N failed, N skipped`.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::program::{Failure, line};

/// The variable that names the file to tests: `requirement::SKIPPED_TESTS`.
const SKIPPED_TESTS: &str = "SSHSM_SKIPPED_TESTS";

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    /// The counts in a line of nextest's, or of a test binary's own; the latter come once per binary.
    fn of_line(line: &str) -> Option<Self> {
        // An indented line is the output of a failed test, which nextest repeats and has counted.
        let (told, separator) = if let Some(told) = line.strip_prefix("test result: ") {
            (told.trim_end().split_once(". ")?.1, "; ")
        } else {
            (line.trim().strip_prefix("Summary [")?.split_once(" run: ")?.1, ", ")
        };
        let mut counts = Self::default();
        for part in told.split(separator) {
            let (number, what) = part.split_once(' ')?;
            let Ok(number) = number.parse::<usize>() else { continue };
            // Nextest adds of which kind they are: `12 passed (3 slow)`.
            match what.split_once(" (").map_or(what, |(what, _)| what) {
                "passed" => counts.passed += number,
                "failed" | "timed out" | "exec failed" => counts.failed += number,
                "skipped" | "ignored" => counts.skipped += number,
                _ => {}
            }
        }
        Some(counts)
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Removes the colour codes from a line.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, sequence)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = sequence.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

/// Runs the tests and passes their output through to `out`, whose last line is then the closing one.
/// `skipped` is a file of this run's own, and `steps` are the skipped steps before the tests.
///
/// # Errors
/// When a test failed, or the runner, or its counts cannot be read.
pub(crate) fn run(
    mut tests: Command,
    skipped: &Path,
    steps: &[(&str, &str)],
    out: &mut impl Write,
) -> Result<(), Failure> {
    fs::write(skipped, "").map_err(Failure::System)?;
    let (reader, writer) = io::pipe().map_err(Failure::System)?;
    // Nextest writes its report to stderr, and test binaries to stdout.
    tests.env(SKIPPED_TESTS, skipped).stdin(Stdio::null());
    tests.stdout(writer.try_clone().map_err(Failure::System)?).stderr(writer);
    let name = line(&tests);
    let mut child = tests.spawn().map_err(|reason| Failure::Start(name.clone(), reason))?;
    // The command holds the other end of the pipe; without dropping it, this end never closes.
    drop(tests);
    let mut counts: Option<Counts> = None;
    let mut reader = BufReader::new(reader);
    let mut text = Vec::new();
    while reader.read_until(b'\n', &mut text).map_err(Failure::System)? > 0 {
        out.write_all(&text).map_err(Failure::System)?;
        if let Some(told) = Counts::of_line(&plain(&String::from_utf8_lossy(&text))) {
            counts.get_or_insert_default().add(told);
        }
        text.clear();
    }
    let status = child.wait().map_err(Failure::System)?;
    let ended = if status.success() { Ok(()) } else { Err(Failure::Exit(name, status)) };
    let Some(counts) = counts else {
        // Nothing was run, because something did not compile; or the runner uses words that are not known
        // here.
        return ended.and(Err(Failure::Refused("the runner did not report the number of tests".into())));
    };
    let skipped = fs::read_to_string(skipped).map_err(Failure::System)?;
    let closing = closing(counts, &skipped, steps)?;
    out.write_all(closing.as_bytes()).and_then(|()| out.flush()).map_err(Failure::System)?;
    ended
}

/// The closing lines; `skipped` has a line for each test, or several if it was retried.
fn closing(runner: Counts, skipped: &str, steps: &[(&str, &str)]) -> Result<String, Failure> {
    let tests: BTreeMap<&str, &str> = skipped.lines().filter_map(|line| line.split_once(": ")).collect();
    let Some(passed) = runner.passed.checked_sub(tests.len()) else {
        let reason = format!("{} tests passed, and {} of them were skipped", runner.passed, tests.len());
        return Err(Failure::Refused(reason));
    };
    let mut text = String::new();
    if !tests.is_empty() {
        text += "\nskipped because something is missing, and counted as passed above:\n";
        for (test, reason) in &tests {
            text += &format!("  SKIPPED {test}: {reason}\n");
        }
    }
    for (step, reason) in steps {
        text += &format!("  SKIPPED step {step}: {reason}\n");
    }
    let skipped = runner.skipped + tests.len() + steps.len();
    text += &format!("{passed} passed, {} failed, {skipped} skipped\n", runner.failed);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counts(passed: usize, failed: usize, skipped: usize) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn the_counts_of_both_runners_are_read() {
        for (line, expected) in [
            ("     Summary [   9.5s] 946 tests run: 946 passed, 0 skipped", counts(946, 0, 0)),
            ("     Summary [   0.004s] 1 test run: 1 passed, 3 skipped", counts(1, 0, 3)),
            (
                "     Summary [ 100.1s] 12/14 tests run: 7 passed (2 slow, 1 leaky), 2 failed, 2 timed out, \
                 1 exec failed, 4 skipped",
                counts(7, 5, 4),
            ),
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s",
                counts(12, 0, 1),
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
                counts(3, 2, 0),
            ),
            (
                "\u{1b}[32;1m     Summary\u{1b}[0m [   0.5s] \u{1b}[1m2\u{1b}[0m tests run: \u{1b}[1m2\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m \u{1b}[33;1mskipped\u{1b}[0m",
                counts(2, 0, 0),
            ),
        ] {
            assert_eq!(Counts::of_line(&plain(line)), Some(expected), "{line}");
        }
        for line in [
            "",
            "        PASS [   0.1s] 5 passed",
            "Summary",
            "running 3 tests",
            "test result: ok",
            // The output of a failed test, in nextest's report.
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.1s",
        ] {
            assert_eq!(Counts::of_line(line), None, "{line}");
        }
    }

    /// Runs a shell script as the runner; its output and result.
    fn runner(script: &str) -> (String, Result<(), Failure>) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut out = Vec::new();
        let ended = run(command, &folder.path().join("skipped"), &[], &mut out);
        (String::from_utf8(out).unwrap(), ended)
    }

    #[test]
    fn a_test_that_lacks_what_it_needs_is_counted_as_skipped_and_named_last() {
        let script = "echo 'a::b lacking: x is missing (y)' >>$SSHSM_SKIPPED_TESTS
            echo 'a::b lacking: x is missing (y)' >>$SSHSM_SKIPPED_TESTS
            echo 'a::c other: z is missing (w)' >>$SSHSM_SKIPPED_TESTS
            echo '     Summary [   9.5s] 946 tests run: 945 passed, 1 failed, 2 skipped' >&2; exit 100";
        let (out, ended) = runner(script);
        assert!(matches!(ended, Err(Failure::Exit(..))));
        let last: Vec<&str> = out.lines().rev().take(3).collect();
        assert_eq!(
            last,
            [
                "943 passed, 1 failed, 4 skipped",
                "  SKIPPED a::c other: z is missing (w)",
                "  SKIPPED a::b lacking: x is missing (y)",
            ]
        );
        let (out, ended) = runner(
            "echo 'test result: ok. 5 passed; 0 failed; 0 ignored';
            echo 'test result: ok. 6 passed; 0 failed; 1 ignored'",
        );
        assert!(ended.is_ok());
        assert_eq!(out.lines().last(), Some("11 passed, 0 failed, 1 skipped"));
    }

    #[test]
    fn a_step_that_was_left_out_is_counted_as_skipped_and_named() {
        let counts = counts(5, 0, 1);
        assert_eq!(
            closing(counts, "", &[("advisories", "no database")]).unwrap(),
            "  SKIPPED step advisories: no database\n5 passed, 0 failed, 2 skipped\n"
        );
        assert_eq!(closing(counts, "", &[]).unwrap(), "5 passed, 0 failed, 1 skipped\n");
    }

    #[test]
    fn a_run_without_counts_or_with_impossible_ones_is_a_failure() {
        let (_, ended) = runner("echo 'error: could not compile'; exit 101");
        assert!(matches!(ended, Err(Failure::Exit(..))));
        let (_, ended) = runner("echo 'all is well'");
        assert!(matches!(ended, Err(Failure::Refused(_))));
        let (_, ended) =
            runner("echo 'a::b c: d' >>$SSHSM_SKIPPED_TESTS; echo 'test result: ok. 0 passed; 0 failed'");
        assert!(matches!(ended, Err(Failure::Refused(_))));
    }
}
