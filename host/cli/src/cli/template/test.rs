//! `sshsm template test`: unit tests of templates, without a device.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use sshsm_protocol::ssh::Printable;

use crate::cli::{
    Context,
    arguments::ReplaceOption,
    error::{CliError, FileError, Shortfall},
};
use crate::output::{lossy, shown, talk};
use sshsm_ca::{
    files::{self, Kind},
    template::suite::{self, Suite, TestResult},
};

/// Arguments of `template test`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 when every test passed, 5 when one failed.")]
pub(in crate::cli) struct Test {
    /// Suites: TOML files that name a template, and requests with the expected verdicts
    #[arg(value_name = "SUITE.toml", required = true)]
    suites: Vec<PathBuf>,
    /// Also write the results to this file, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    replace: ReplaceOption,
}

#[derive(Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    suites: Vec<Tested<'a>>,
}

#[derive(Serialize)]
struct Tested<'a> {
    #[serde(serialize_with = "lossy")]
    suite: &'a Path,
    #[serde(serialize_with = "lossy")]
    template: PathBuf,
    tests: Vec<TestResult>,
}

impl Test {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let suites = self.suites.iter().map(|path| {
            let suite = Suite::read(path).map_err(|error| CliError::content("no tests", error))?;
            for renamed in suite.renamed() {
                talk(format_args!("warning: {}, {renamed}", shown(path)));
            }
            Ok(Tested { suite: path, template: suite.template_file().to_owned(), tests: suite.run() })
        });
        let suites = suites.collect::<Result<Vec<_>, CliError>>()?;
        let results = || suites.iter().flat_map(|tested| &tested.tests);
        let (total, failed) = (results().count(), results().filter(|result| !result.passed).count());
        if let Some(path) = &self.junit {
            let names: Vec<_> = suites.iter().map(|tested| shown(tested.suite).to_string()).collect();
            let all =
                names.iter().map(String::as_str).zip(suites.iter().map(|tested| tested.tests.as_slice()));
            let document = suite::junit(all)?;
            files::write(path, &document, Kind::TestReport, self.replace.into())
                .map_err(|source| FileError::write(path, source))?;
        }
        let report = Report { passed: total - failed, failed, suites };
        context.format().print(&report, text)?;
        match failed {
            0 => Ok(()),
            failed => Err(Shortfall::Tests { failed, total }.into()),
        }
    }
}

fn text(report: &Report<'_>) -> String {
    let mut text = String::new();
    for Tested { suite, template, tests } in &report.suites {
        text += &format!("{}: {} tests of {}\n", shown(suite), tests.len(), shown(template));
        for result in tests {
            let outcome = if result.passed { "ok" } else { "FAILED" };
            text += &format!("  {outcome:<8}{}\n", Printable(result.name.as_bytes()));
            if !result.passed {
                text.extend(result.details().lines().map(|line| format!("          {line}\n")));
            }
        }
    }
    text + &format!("{} passed, {} failed\n", report.passed, report.failed)
}
