//! `sshsm device …`: the device itself.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::{AsymmetricAlgorithm, Curve, device_info::StorageInfo, ssh::Printable};

use super::{
    Context, board,
    device_option::OptionVerb,
    error::{CliError, FileError},
    key,
};
use crate::{flash::hexadecimal, output};
use sshsm_ca::{device_key, input};
use sshsm_client::Client;

/// The verbs of `device`.
#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// Show version, serial number and algorithms; needs no password without --sums
    Info {
        /// Compare the image that the device reports with the checksums of a release; needs a password
        ///
        /// The file has lines as `sha256sum` writes them. The image's is that of BOARD.bin. The report is the
        /// firmware's statement about itself: docs/boards.md explains what it proves.
        #[arg(long, value_name = "SHA256SUMS")]
        sums: Option<PathBuf>,
    },
    /// Print the device's own public key, for --device-key; needs no password
    PublicKey,
    /// Show how full the device is
    Storage,
    /// Settings of the device as a whole
    #[command(subcommand)]
    Option(OptionVerb),
    /// Delete everything on the device: keys, templates, options; it is as from the factory then
    Reset {
        /// Yes, everything: no key can be brought back
        #[arg(long, required = true)]
        delete_everything: bool,
        /// Say what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the boards that are plugged in, and the tokens and keys of a PKCS#11 module (PKCS11_MODULE_PATH,
    /// or --device pkcs11:?module-path=…); needs no PIN
    List,
    /// Show the state of a board on a serial port, even while it computes; needs no password
    Status,
    /// Restart the device; requires an authentication key that may reset it
    Reboot {
        /// Start the board's boot loader, which accepts new firmware and exposes the whole flash; also
        /// requires a touch
        #[arg(long, alias = "bootloader")]
        boot_loader: bool,
    },
    /// Show the log of a board on a serial port, since its last start
    Log {
        /// Keep printing new lines
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Serialize)]
struct Info {
    device: String,
    version: String,
    serial: u32,
    log_total: u8,
    log_used: u8,
    algorithms: Vec<&'static str>,
    /// Only when it was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Known>,
}

/// The image that a device reports, and which of a release's it is.
#[derive(Serialize)]
struct Known {
    /// The file's name in the checksums.
    name: String,
    /// In hexadecimal.
    sha256: String,
}

impl Device {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Info { sums } => info(context, sums.as_deref()),
            Self::PublicKey => public_key(context),
            Self::Storage => storage(context),
            Self::Option(verb) => verb.run(context),
            Self::Reset { delete_everything: _, dry_run } => reset(context, dry_run),
            Self::List => board::list(context),
            Self::Status => board::status(context),
            Self::Reboot { boot_loader } => reboot(context, boot_loader),
            Self::Log { follow } => board::log(context, follow),
        }
    }
}

fn info(context: &Context, sums: Option<&Path>) -> Result<(), CliError> {
    let mut client = context.client()?;
    let image = sums.map(|sums| compare(context, &mut client, sums)).transpose()?;
    let device = client.describe();
    let identity = client.identity();
    let info = Info {
        device,
        version: identity.version.to_string(),
        serial: identity.serial,
        log_total: identity.log_total,
        log_used: identity.log_used,
        algorithms: identity.algorithms.iter().map(|algorithm| algorithm.name()).collect(),
        image,
    };
    context.format().print(&info, |info| {
        let image = info.image.as_ref().map_or_else(String::new, |Known { name, sha256 }| {
            format!("image:       {} ({sha256})\n", Printable(name.as_bytes()))
        });
        format!(
            "device:      {}\nversion:     {}\nserial:      {:010}\naudit log:   {} of {} entries used\nalgorithms:  {}\n{image}",
            info.device,
            info.version,
            info.serial,
            info.log_used,
            info.log_total,
            info.algorithms.join(" ")
        )
    })?;
    Ok(())
}

/// What `device public-key` prints as JSON.
#[derive(Serialize)]
struct PublicKeyView {
    device: String,
    serial: u32,
    public_key: String,
    fingerprint: String,
}

fn public_key(context: &Context) -> Result<(), CliError> {
    let mut client = context.client()?;
    let point = client.device_public_key()?;
    let algorithm = AsymmetricAlgorithm::Ec(Curve::P256);
    let unusable = |error: &dyn ToString| CliError::because("the device's public key", error.to_string());
    let [_, coordinates @ ..] = &point;
    let key = device_key::ssh_public(algorithm, coordinates).map_err(|error| unusable(&error))?;
    let serial = client.identity().serial;
    let key = PublicKey::new(key, format!("sshsm device {serial:010}"));
    let view = PublicKeyView {
        device: client.describe(),
        serial,
        public_key: key.to_openssh().map_err(|error| unusable(&error))?.trim_end().to_owned(),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
    };
    context.format().print(&view, |view| format!("{}\n", view.public_key))?;
    Ok(())
}

/// Which of the files with these checksums the device reports as its image.
fn compare(context: &Context, client: &mut Client, sums: &Path) -> Result<Known, CliError> {
    let text = input::read_text(sums).map_err(|source| FileError::read(sums, source))?;
    let status = context.session(client)?.device_status()?;
    let Some(image) = status.image else {
        return Err(CliError::because("the image is not known", "the device does not know which it runs"));
    };
    let (sha256, wanted) = (hexadecimal(&image.sha256), format!("{}.bin", status.board));
    let known = text
        .lines()
        .filter_map(|line| line.split_once([' ', '\t']))
        .map(|(sum, name)| (sum, name.trim_start_matches([' ', '\t', '*'])))
        .find(|(sum, name)| sum.eq_ignore_ascii_case(&sha256) && name.rsplit('/').next() == Some(&wanted));
    match known {
        Some((_, name)) => Ok(Known { name: name.to_owned(), sha256 }),
        None => Err(CliError::because(
            "the device runs another image",
            format!("it reports {sha256}, but {} has no {wanted} with that SHA-256", output::shown(sums)),
        )),
    }
}

/// Has the device start again, or start its boot loader.
fn reboot(context: &Context, boot_loader: bool) -> Result<(), CliError> {
    let mut client = context.client()?;
    let session = context.session(&mut client)?;
    if boot_loader {
        session.start_boot_loader()?;
        output::talk("the boot loader is starting: `sshsm flash` gives it new firmware");
    } else {
        session.restart()?;
        output::talk("the device starts again");
    }
    Ok(())
}

fn reset(context: &Context, dry_run: bool) -> Result<(), CliError> {
    let mut client = context.client()?;
    let mut session = context.session(&mut client)?;
    if dry_run {
        output::talk("would be deleted, and everything that this authentication key does not see:");
        return key::list(context, &mut session);
    }
    session.reset()?;
    output::talk("everything on the device is deleted; its password is the factory's");
    Ok(())
}

/// How full the device is, as JSON shows it.
#[derive(Serialize)]
struct Storage {
    total_records: u16,
    free_records: u16,
    total_pages: u16,
    free_pages: u16,
    /// Bytes.
    page_size: u16,
}

fn storage(context: &Context) -> Result<(), CliError> {
    let mut client = context.client()?;
    let StorageInfo { total_records, free_records, total_pages, free_pages, page_size } =
        context.session(&mut client)?.storage_info()?;
    let storage = Storage { total_records, free_records, total_pages, free_pages, page_size };
    context.format().print(&storage, |_| {
        format!(
            "objects:  {free_records} of {total_records} free\npages:    {free_pages} of {total_pages} free, {page_size} bytes each\n"
        )
    })?;
    Ok(())
}
