//! `sshsm completions` and `sshsm man`: the tree of commands and arguments, for shells and for `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::{
    Context,
    arguments::ReplaceOption,
    command_tree,
    error::{CliError, FileError},
};
use crate::output;
use sshsm_ca::files::{self, Kind};

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        #[derive(Serialize)]
        struct View {
            shell: String,
            script: String,
        }
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command_tree(), "sshsm", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        let view = View { shell: self.shell.to_string(), script };
        context.format().print(&view, |view| view.script.clone())?;
        Ok(())
    }
}

/// The arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct Manual {
    /// The directory for the pages; created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    replace: ReplaceOption,
}

impl Manual {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        #[derive(Serialize)]
        struct View {
            pages: Vec<String>,
        }
        let Self { directory, replace } = self;
        std::fs::create_dir_all(&directory).map_err(|source| FileError::write(&directory, source))?;
        let mut tree = command_tree();
        tree.build();
        let mut pages = Vec::new();
        self::pages(&tree, &mut pages)?;
        for (name, content) in &pages {
            let file = directory.join(name);
            files::write(&file, content, Kind::ManualPage, replace.into())
                .map_err(|source| FileError::write(&file, source))?;
        }
        let mut pages: Vec<String> = pages.into_iter().map(|(name, _)| name).collect();
        pages.sort();
        output::talk(format_args!("{} pages written to {}", pages.len(), output::shown(&directory)));
        context.format().print(&View { pages }, |_| String::new())?;
        Ok(())
    }
}

/// A page for a command and for each of its subcommands: its file's name and its content.
fn pages(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), CliError> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        self::pages(subcommand, pages)?;
    }
    let man = Man::new(command.clone())
        .source(concat!("sshsm ", env!("CARGO_PKG_VERSION")))
        .manual("An open hardware security module for SSH certificate authorities");
    let mut content = Vec::new();
    man.render(&mut content)?;
    pages.push((man.get_filename(), content));
    Ok(())
}
