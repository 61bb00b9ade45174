//! `sshsm device option …`: settings of the device as a whole.

use clap::{
    Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::Serialize;
use sshsm_protocol::option::{AuditMode, DeviceOption, PresenceMode, TemplateMode, UserPresence};

use super::{Context, error::CliError};
use crate::output;

/// The verbs of `device option`.
#[derive(Debug, Subcommand)]
pub(super) enum OptionVerb {
    /// Show a setting
    Get {
        /// Which
        #[arg(value_name = "OPTION")]
        name: Readable,
    },
    /// Change a setting
    #[command(subcommand)]
    Set(Change),
}

/// Settings that can be shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Readable {
    /// The operations that require a touch
    UserPresence,
    /// Whether every command is logged, and refused when it cannot be
    ForceAudit,
    /// Whether templates may still be added and deleted
    Templates,
}

/// Settings that can be changed.
#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Set which operations wait for a touch; changing this waits for one too
    UserPresence {
        /// Nothing, SSH certificates, or every use of a private key and every export; except with off, a
        /// reset waits too
        #[arg(value_parser = presence_mode())]
        mode: PresenceMode,
        /// How long it waits
        #[arg(long, value_name = "SECONDS", default_value_t = UserPresence::DEFAULT.timeout)]
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        timeout: u8,
    },
    /// Freeze the templates: none can be put, imported or deleted from then on, until the device is reset
    Templates {
        /// The new state; only `sshsm device reset` reverts frozen
        #[arg(value_parser = PossibleValuesParser::new([TemplateMode::Frozen.name()]))]
        mode: String,
    },
}

fn presence_mode() -> impl TypedValueParser<Value = PresenceMode> {
    PossibleValuesParser::new(PresenceMode::ALL.map(PresenceMode::name))
        .try_map(|name| PresenceMode::from_name(&name).ok_or("no such mode"))
}

/// A setting, as JSON shows it.
#[derive(Serialize)]
struct Setting {
    option: &'static str,
    value: &'static str,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u8>,
}

impl OptionVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut client = match &self {
            Self::Get { .. } => context.client()?,
            Self::Set(_) => context.client_to_change()?,
        };
        let mut session = context.session(&mut client)?;
        let setting = match self {
            Self::Get { name: Readable::UserPresence } => {
                let UserPresence { mode, timeout } = session.user_presence()?;
                Setting { option: "user-presence", value: mode.name(), timeout: Some(timeout) }
            }
            Self::Get { name: Readable::ForceAudit } => {
                let value = session.option(DeviceOption::ForceAudit)?;
                let value = match value.first().copied().and_then(AuditMode::from_code) {
                    Some(AuditMode::Off) => "off",
                    Some(AuditMode::On) => "on",
                    Some(AuditMode::Fix) => "fix",
                    None => "unknown",
                };
                Setting { option: "force-audit", value, timeout: None }
            }
            Self::Get { name: Readable::Templates } => {
                let mode = session.templates()?;
                Setting { option: "templates", value: mode.name(), timeout: None }
            }
            Self::Set(Change::Templates { mode: _ }) => {
                session.freeze_templates()?;
                output::talk("templates are frozen until the device is reset");
                return Ok(());
            }
            Self::Set(Change::UserPresence { mode, timeout }) => {
                session.set_user_presence(UserPresence { mode, timeout })?;
                output::talk(format_args!("user-presence is {}", mode.name()));
                return Ok(());
            }
        };
        context.format().print(&setting, |Setting { option, value, timeout }| match timeout {
            Some(timeout) => format!("{option}:  {value}, {timeout} seconds\n"),
            None => format!("{option}:  {value}\n"),
        })?;
        Ok(())
    }
}
