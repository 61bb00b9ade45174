//! `sshsm quickstart`: see [`crate::quickstart`].

use std::{env, io, path::PathBuf};

use clap::Args;

use super::{Context, error::CliError, notice::issuing, notice::listener};
use crate::{
    output::{Format, TextOut},
    quickstart,
};
use sshsm_ca::issue::Issuer;

/// Arguments of `quickstart`.
#[derive(Debug, Args)]
pub(super) struct Quickstart {
    /// The directory for everything; one made by an earlier quickstart is continued
    #[arg(value_name = "DIR", default_value = "sshsm-quickstart")]
    directory: PathBuf,
}

impl Quickstart {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        if context.device_named {
            return Err(CliError::Usage("quickstart makes its own device in DIR; leave --device out".into()));
        }
        // A program found by its path is named so that it is found from everywhere.
        let name = env::args_os().next().map_or_else(|| "sshsm".into(), PathBuf::from);
        let program = if name.components().count() > 1 { env::current_exe().unwrap_or(name) } else { name };
        let issuer = Issuer::new(context.ledger()?, issuing());
        match context.format() {
            Format::Text => {
                quickstart::run(&self.directory, &program, &issuer, &listener(), &mut TextOut::default())?
            }
            Format::Json => {
                let summary =
                    quickstart::run(&self.directory, &program, &issuer, &listener(), &mut io::sink())?;
                context.format().print(&summary, |_| String::new())?;
                summary
            }
        };
        Ok(())
    }
}
