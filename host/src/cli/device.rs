//! `sshsm device …`: the device itself.

use clap::Subcommand;
use serde::Serialize;
use ssh_key::{HashAlg, PublicKey};
use sshsm_protocol::{AsymmetricAlgorithm, Curve, device_info::StorageInfo};

use super::{Context, board, device_option::OptionVerb, error::CliError, key};
use crate::{device_key, output};

/// The verbs of `device`.
#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// Show version, serial number and algorithms; needs no password
    Info,
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
    /// List the boards that are plugged in, and the tokens and keys of a PKCS#11 module (PKCS11_MODULE_PATH, or --device
    /// pkcs11:?module-path=…); needs no PIN
    List,
    /// Show how a board on a serial port is; needs no password, and a board that computes tells too
    Status,
    /// Have a board on a serial port start again
    Reboot {
        /// Start the board's bootloader, which takes a new firmware
        #[arg(long)]
        bootloader: bool,
    },
    /// Show the log of a board on a serial port, since its last start
    Log {
        /// Go on with what it writes from now on
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
}

impl Device {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Info => info(context),
            Self::PublicKey => public_key(context),
            Self::Storage => storage(context),
            Self::Option(verb) => verb.run(context),
            Self::Reset { delete_everything: _, dry_run } => reset(context, dry_run),
            Self::List => board::list(context),
            Self::Status => board::status(context),
            Self::Reboot { bootloader } => board::reboot(context, bootloader),
            Self::Log { follow } => board::log(context, follow),
        }
    }
}

fn info(context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let device = client.describe();
    let identity = client.identity();
    let info = Info {
        device,
        version: identity.version.to_string(),
        serial: identity.serial,
        log_total: identity.log_total,
        log_used: identity.log_used,
        algorithms: identity.algorithms.iter().map(|algorithm| algorithm.name()).collect(),
    };
    context.format().print(&info, |info| {
        format!(
            "device:      {}\nversion:     {}\nserial:      {:010}\naudit log:   {} of {} entries used\nalgorithms:  {}\n",
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
    let unusable = |error: &dyn ToString| CliError::content("the device's public key", error.to_string());
    let key = device_key::ssh_public(algorithm, point.get(1..).unwrap_or_default())
        .map_err(|error| unusable(&error))?;
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
