//! `sshsm template diff`: what became stricter or looser from one template to another.

use clap::Args;
use serde::Serialize;

use super::source;
use crate::cli::{
    Context,
    error::{CliError, Shortfall},
};
use sshsm_ca::template::diff::{self, Change, Direction};

/// Arguments of `template diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 when both allow the same, 1 when they do not.")]
pub(in crate::cli) struct Diff {
    /// The old template: a file (TOML or TLV), or an id on the device; ./5 is a file, 5 an id
    #[arg(value_name = "OLD")]
    old: String,
    /// The new template
    #[arg(value_name = "NEW")]
    new: String,
}

#[derive(Serialize)]
struct Report<'a> {
    old: &'a str,
    new: &'a str,
    equal: bool,
    changes: Vec<Change>,
}

impl Diff {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let (old, new) = (source::find(context, &self.old)?, source::find(context, &self.new)?);
        let changes = diff::diff(&source::decode(&self.old, &old)?, &source::decode(&self.new, &new)?);
        let report = Report { old: &self.old, new: &self.new, equal: changes.is_empty(), changes };
        context.format().print(&report, |report| match report.equal {
            true => "both allow the same\n".to_owned(),
            false => report.changes.iter().map(|change| format!("{change}\n")).collect(),
        })?;
        let count = |direction| report.changes.iter().filter(|change| change.direction == direction).count();
        match report.equal {
            true => Ok(()),
            false => Err(Shortfall::Different {
                stricter: count(Direction::Stricter),
                looser: count(Direction::Looser),
                different: count(Direction::Different),
            }
            .into()),
        }
    }
}
