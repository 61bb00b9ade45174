//! `sshsm board seal|lock`: see [`crate::secure_boot`].

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Context,
    arguments::ReplaceOption,
    error::{CliError, FileError},
    flash,
};
use crate::{
    output::{self, columns, hex, shown},
    secure_boot::{BootKey, BootKeyError, Encoding, Image, Plan, SealError, SigningKey, Step},
};
use sshsm_ca::{
    files::{self, Kind},
    key_file::KeyFileError,
};

/// Verbs of `board`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(super) enum BoardVerb {
    /// Sign an image for a Raspberry Pi Pico 2 that is locked, or is going to be
    Seal(Seal),
    /// Print how a Raspberry Pi Pico 2 is locked: it then starts signed images only, and its memory is closed
    Lock(Lock),
}

/// Arguments of `board seal`.
#[derive(Debug, Args)]
pub(super) struct Seal {
    /// The image as it was built, as UF2
    #[arg(long, value_name = "FILE.uf2")]
    image: PathBuf,
    /// The private boot key: secp256k1, PEM, as picotool takes it
    #[arg(long, value_name = "FILE.pem")]
    key: PathBuf,
    /// The path of the signed image, a UF2 file
    #[arg(long, value_name = "FILE.uf2")]
    out: PathBuf,
    #[command(flatten)]
    replace: ReplaceOption,
}

/// Arguments of `board lock`.
#[derive(Debug, Args)]
pub(super) struct Lock {
    /// The boot key, either half: secp256k1, PEM
    #[arg(long, value_name = "FILE.pem")]
    key: PathBuf,
    /// Print each row of OTP that is to be programmed, and what cannot be undone; nothing is written to a board
    #[arg(long)]
    dry_run: bool,
    /// Close the boot loader's drive too: the board never gets another firmware
    #[arg(long)]
    no_updates: bool,
    /// Also write the steps to this directory, one file each, for `picotool otp load`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    replace: ReplaceOption,
}

/// The signed image, as JSON shows it.
#[derive(Serialize)]
struct Signed {
    image: PathBuf,
    sha256: String,
    boot_key: String,
}

impl BoardVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Seal(seal) => seal.run(context),
            Self::Lock(lock) => lock.run(context),
        }
    }
}

impl Seal {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let image =
            Image::from_uf2(&flash::read(&self.image)?).map_err(|error| unusable(&self.image, error))?;
        let key = SigningKey::read(&self.key).map_err(wrong_key)?;
        let sealed = image.seal(&key).map_err(|error| unusable(&self.image, error))?;
        files::write(&self.out, &sealed.image.to_uf2(), Kind::Image, self.replace.into())
            .map_err(|error| FileError::write(&self.out, error))?;
        let boot_key = key.boot_key().fingerprint().to_string();
        let signed = Signed { image: self.out, sha256: hex(&sealed.digest), boot_key };
        context.format().print(&signed, |signed| {
            let image = shown(&signed.image);
            format!("image:     {image}\nSHA-256:   {}\nboot key:  {}\n", signed.sha256, signed.boot_key)
        })?;
        Ok(())
    }
}

fn wrong_key(error: BootKeyError) -> CliError {
    match error {
        BootKeyError::File(KeyFileError::Read { path, source }) => FileError::Read { path, source }.into(),
        error @ (BootKeyError::File(KeyFileError::Key { .. }) | BootKeyError::Key { .. }) => {
            CliError::content("the boot key cannot be used", error)
        }
    }
}

fn unusable(image: &Path, error: SealError) -> CliError {
    CliError::content(format_args!("{} cannot be signed", shown(image)), error)
}

impl Lock {
    fn run(self, context: &Context) -> Result<(), CliError> {
        if !self.dry_run {
            return Err(CliError::Usage(
                "this program prints how a board is locked and writes nothing to one, since what it would write cannot be \
                 undone and was not tried on a chip: give --dry-run, and with --out the files for `picotool otp load`"
                    .into(),
            ));
        }
        let plan = Plan::new(&BootKey::read(&self.key).map_err(wrong_key)?, !self.no_updates);
        if let Some(directory) = &self.out {
            fs::create_dir_all(directory).map_err(|error| FileError::write(directory, error))?;
            for file in plan.files() {
                let path = directory.join(&file.name);
                files::write(&path, file.content.as_bytes(), Kind::LockStep, self.replace.into())
                    .map_err(|error| FileError::write(&path, error))?;
            }
        }
        context.format().print(&plan, |plan| text(plan, self.out.as_deref()))?;
        output::talk("nothing was written to a board");
        Ok(())
    }
}

const FIRST: &str = "\
A board is locked while nothing is on it, and before anybody else has had it. Order matters: each step is programmed and
looked at before the next. docs/boards.md says what a locked board keeps to itself, and what it does not.
";

fn text(plan: &Plan, directory: Option<&Path>) -> String {
    let mut text = format!("{FIRST}\nboot key:  {}\n", plan.boot_key);
    let files = plan.files();
    for ((step, file), number) in plan.steps.iter().zip(&files).zip(1..) {
        // Writing to a string does not fail.
        let _ = write!(text, "\nStep {number} {}\n{}", step.does, rows(step));
        let _ = writeln!(text, "cannot be undone: {}\nthen: {}", step.for_good, step.then);
        if let Some(directory) = directory {
            let _ = writeln!(text, "picotool otp load {}", shown(&directory.join(&file.name)));
        }
    }
    text
}

fn rows(step: &Step) -> String {
    let heading = ["row", "name", "encoding", "value", "programmed bits"].map(str::to_owned);
    let rows = step.rows.iter().map(|row| {
        let encoding = match row.encoding {
            Encoding::Ecc => "ECC",
            Encoding::Three => "RBIT-3",
            Encoding::Eight => "RBIT-8",
            Encoding::Bytes => "3 bytes",
        };
        let (number, value) = (format!("{:#05x}", row.row), format!("{:#06x}", row.value));
        [number, row.name.clone(), encoding.to_owned(), value, format!("{:#08x}", row.raw)]
    });
    columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}
