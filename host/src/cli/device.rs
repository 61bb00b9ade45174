//! `sshsm device …`: the device itself.

use clap::Subcommand;
use serde::Serialize;

use super::{Context, error::CliError};

/// The verbs of `device`.
#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// Show version, serial number and algorithms; needs no password
    Info,
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
        }
    }
}

fn info(context: &Context) -> Result<(), CliError> {
    let mut client = context.client()?;
    let device = client.describe();
    let identity = client.device_info()?;
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
