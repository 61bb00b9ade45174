//! `sshsm krl …`: how sshd learns what is revoked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde::Serialize;
use ssh_key::public::KeyData;

use super::{
    Context,
    arguments::{self, ReplaceOption},
    error::{CliError, FileError},
};
use crate::output::{self, lossy, shown};
use sshsm_ca::{
    files::{self, Kind, Replace},
    input,
    krl::{self, RevocationList},
    ledger::{self, LedgerError},
};

/// More bytes than any list for sshd has.
const MAX_LIST: usize = 256 * 1024 * 1024;

/// The verbs of `krl`.
#[derive(Debug, Subcommand)]
pub(super) enum Krl {
    /// Write all revocations as a key revocation list, for `RevokedKeys` of sshd_config and `ssh-keygen -Q`
    Build {
        /// The file; an earlier list there is replaced as a whole if this one is newer and revokes everything
        /// that it does
        #[arg(long, short = 'o', value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        replace: ReplaceOption,
        /// Write a list that revokes nothing, if nothing was revoked
        #[arg(long)]
        allow_empty: bool,
        /// The list's number is at least this; otherwise it is one more than the last list's
        #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = arguments::serial)]
        from_version: u64,
        /// A comment in the list
        #[arg(long, value_name = "TEXT", default_value = "")]
        comment: String,
    },
}

/// Whether `list` may take the place of the one in `file`, if there is one.
///
/// # Errors
/// When that is newer, or revokes what `list` does not; and when it cannot be read as a list.
fn supersedes(file: &Path, list: &RevocationList) -> io::Result<()> {
    // Whether another kind of file may be replaced is decided when it is written.
    let is_file = fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0);
    if !is_file {
        return Ok(());
    }
    let bytes = input::read_at_most(file, MAX_LIST)?;
    let refuse = |reason: String| {
        let reason = format!("{reason}; --replace replaces it all the same");
        Err(io::Error::new(io::ErrorKind::AlreadyExists, reason))
    };
    let earlier = match RevocationList::decode(&bytes) {
        Ok(earlier) => earlier,
        Err(error) => return refuse(format!("the existing file cannot be compared: {error}")),
    };
    if earlier.number >= list.number {
        return refuse(format!(
            "the list there has number {}, and the new one only {}: another ledger may have made it (--from-version \
             lifts the number)",
            earlier.number, list.number
        ));
    }
    match list.lost(&earlier).as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            refuse(format!("the list there revokes {first}{more}, and the new one does not"))
        }
    }
}

/// A list that was written, as JSON shows it.
#[derive(Serialize)]
struct Built<'a> {
    #[serde(serialize_with = "lossy")]
    file: &'a Path,
    number: u64,
    revocations: usize,
    bytes: usize,
}

impl Krl {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let Self::Build { output: file, replace, allow_empty, from_version, comment } = self;
        // It must exist: an empty list in place of a good one would admit everyone.
        drop(context.ledger_to_read()?);
        let mut ledger = context.ledger()?.ok_or(LedgerError::None)?;
        let revocations = ledger.revocations()?.len();
        if revocations == 0 && !allow_empty {
            return Err(CliError::because(
                "nothing was written",
                "the ledger revokes nothing, and a list that revokes nothing lets every certificate in; --allow-empty \
                 writes it",
            ));
        }
        let mut list = ledger.revocation_list(from_version)?;
        list.comment = comment;
        warn_of_rare(&list.authorities());
        let replace = Replace::from(replace);
        if !replace.replace {
            supersedes(&file, &list).map_err(|source| FileError::write(&file, source))?;
        }
        let bytes = list.encode().map_err(LedgerError::from)?;
        files::write(&file, &bytes, Kind::RevocationList, replace)
            .map_err(|source| FileError::write(&file, source))?;
        let built = Built { file: &file, number: list.number, revocations, bytes: bytes.len() };
        context.format().print(&built, |_| String::new())?;
        output::talk(format_args!(
            "revocation list {}: {} in {}",
            list.number,
            output::count(revocations, "revocation", "revocations"),
            shown(&file)
        ));
        Ok(())
    }
}

/// Names CA keys that not every server can read; a server that cannot read a list at all admits no one.
pub(super) fn warn_of_rare<'k>(cas: impl IntoIterator<Item = &'k KeyData>) {
    for ca in cas.into_iter().filter(|ca| !krl::is_read_everywhere(ca)) {
        output::talk(format_args!(
            "WARNING: not every OpenSSH knows the type of the CA key {} ({}), and one that does not refuses a whole revocation \
             list that names the key: try it with `ssh-keygen -Q -l -f FILE` on each server",
            ledger::fingerprint(ca),
            ca.algorithm()
        ));
    }
}
