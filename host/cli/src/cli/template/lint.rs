//! `sshsm template lint`: what a careful reviewer would question in a template.

use clap::Args;
use serde::Serialize;

use super::source;
use crate::cli::{
    Context, arguments,
    error::{CliError, Shortfall},
};
use sshsm_ca::template::lint::{self, Finding, Severity};

/// Arguments of `template lint`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 when there is nothing but notes, 5 when there are warnings or errors.")]
pub(in crate::cli) struct Lint {
    /// Template file (TOML or TLV), or the id of a template on the device; ./5 is a file, 5 an id
    #[arg(value_name = "FILE|ID")]
    template: String,
    /// Leave this aside; can be repeated
    #[arg(long, value_name = "LINT", value_parser = arguments::lint())]
    allow: Vec<lint::Lint>,
    /// Serial number of the last certificate, to see how many are left
    #[arg(long, value_name = "SERIAL")]
    last_serial: Option<u64>,
}

#[derive(Serialize)]
struct Report<'a> {
    template: &'a str,
    errors: usize,
    warnings: usize,
    notes: usize,
    findings: Vec<Finding>,
    /// Suppressed findings.
    allowed: Vec<Finding>,
}

impl Lint {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let tlv = source::find(context, &self.template)?;
        let decoded = source::decode(&self.template, &tlv)?;
        let found = lint::lint(&decoded, self.last_serial);
        let (allowed, findings): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|finding| self.allow.contains(&finding.id));
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let report = Report {
            template: &self.template,
            errors,
            warnings,
            notes: count(Severity::Note),
            findings,
            allowed,
        };
        context.format().print(&report, text)?;
        match (errors, warnings) {
            (0, 0) => Ok(()),
            (errors, warnings) => Err(Shortfall::Lint { errors, warnings }.into()),
        }
    }
}

fn text(report: &Report<'_>) -> String {
    let mut text: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    if report.findings.is_empty() {
        text += "no findings\n";
    }
    if !report.allowed.is_empty() {
        text += &format!("suppressed: {}\n", report.allowed.len());
    }
    text
}
