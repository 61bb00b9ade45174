//! The outcome of a third-party test suite, compared with the known exceptions: each named, each with
//! evidence that real hardware does no better. An exception that no longer occurs fails as well, so that the
//! list stays accurate.

use std::{
    collections::BTreeMap,
    env, fmt,
    path::{Path, PathBuf},
};

use crate::requirement::{Missing, workspace};

/// A suite's folder, by its name and version: in `SSHSM_TEST_SUITES`, or where the test set-up unpacks them.
///
/// # Errors
/// [`Missing`] before the set-up.
pub fn folder(name: &str) -> Result<PathBuf, Missing> {
    let suites =
        env::var_os("SSHSM_TEST_SUITES").map_or_else(|| workspace().join("target/suites"), PathBuf::from);
    let folder = suites.join(name);
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Missing::new(format!("the test suite {name} in {}", suites.display()), "cargo xtask setup"))
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It ran to its end.
    Passed,
    /// It did not run.
    Skipped,
    /// It stopped at something.
    Failed,
}

/// A test that does not pass, and why that is right.
pub struct Exception {
    /// Its name in its suite.
    pub test: &'static str,
    /// How it ends instead.
    pub outcome: Outcome,
    /// What shows that real hardware does not pass it either.
    pub evidence: &'static str,
}

/// Every test of a suite, and how it ended.
#[derive(Default)]
pub struct Report(BTreeMap<String, (Outcome, String)>);

impl Report {
    /// Adds a test. If it is reported twice, the worse outcome counts: its tear-down may fail after it
    /// passed.
    pub fn add(&mut self, test: &str, outcome: Outcome, reason: &str) {
        let known = self.0.entry(test.to_owned()).or_insert((outcome, reason.to_owned()));
        if outcome > known.0 {
            *known = (outcome, reason.to_owned());
        }
    }

    /// The tests that ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.0.values().filter(|(ended, _)| *ended == outcome).count()
    }

    /// The tests that ended so, by name.
    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, (ended, _))| *ended == outcome).map(|(test, _)| test.as_str())
    }

    /// Asserts that exactly this many tests ran, and that each passed or is an exception that ended as
    /// expected.
    ///
    /// # Panics
    /// Otherwise, with the suite's name, every surprise, and the suite's output in `said`.
    pub fn insist(&self, suite: &Path, tests: usize, exceptions: &[Exception], said: &dyn fmt::Display) {
        let mut surprises = String::new();
        let mut surprise = |line: String| surprises += &format!("  {line}\n");
        for (test, (outcome, reason)) in &self.0 {
            let foretold = exceptions.iter().find(|exception| exception.test == test);
            let expected = foretold.map_or(Outcome::Passed, |exception| exception.outcome);
            if *outcome != expected {
                surprise(format!("{test}: {outcome:?}, not {expected:?} {reason}"));
            }
        }
        for exception in exceptions.iter().filter(|exception| !self.0.contains_key(exception.test)) {
            surprise(format!("{}: an exception that is not a test", exception.test));
        }
        if self.0.len() != tests {
            surprise(format!("{} tests ran, not {tests}", self.0.len()));
        }
        for exception in exceptions {
            println!("{:?} as expected: {} ({})", exception.outcome, exception.test, exception.evidence);
        }
        println!("{}: {self}", suite.display());
        assert!(surprises.is_empty(), "{said}\n\n{}: {self}\n{surprises}", suite.display());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, skipped, failed] =
            [Outcome::Passed, Outcome::Skipped, Outcome::Failed].map(|outcome| self.count(outcome));
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}
