//! `sshsm provision`: see [`crate::provision`].

use std::path::PathBuf;

use clap::Args;
use sshsm_protocol::{Label, ObjectId};

use super::{
    Context,
    arguments::ReplaceOption,
    arguments::{self, KeyAlgorithm},
    authentication_key::Road,
    error::{CliError, FileError},
    password::{self, Existing},
};
use crate::{
    output,
    provision::{self, OtherSessions, Passwords, Plan, SignerSecret},
};
use sshsm_ca::files::{self, Kind};

/// Arguments of `provision`.
#[derive(Debug, Args)]
pub(super) struct Provision {
    /// Template in TOML: what the CA key may sign, and the timestamp authority's key
    #[arg(long, value_name = "FILE.toml")]
    template: PathBuf,
    /// What kind of CA key (also p256, p384, p521)
    #[arg(long, value_name = "ALGORITHM", default_value = "ed25519")]
    algorithm: KeyAlgorithm,
    /// Id of the CA key; without it, the one that the template names
    #[arg(long, value_name = "ID", value_parser = arguments::object_id)]
    ca_key: Option<ObjectId>,
    /// Id of the template on the device
    #[arg(long, value_name = "ID", default_value = "10", value_parser = arguments::object_id)]
    template_id: ObjectId,
    /// Id of the authentication key that can sign and nothing else
    #[arg(long, value_name = "ID", default_value = "2", value_parser = arguments::object_id)]
    signer: ObjectId,
    /// A label of at most 40 bytes for everything that is created
    #[arg(long, value_name = "TEXT", default_value = "sshsm CA", value_parser = arguments::label)]
    label: Label,
    /// Allow the CA key, the template and the key that signs to leave the device under a wrap key, for `sshsm
    /// backup`
    #[arg(long)]
    exportable: bool,
    /// File with the new password of authentication key 1; without it, SSHSM_NEW_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    #[command(flatten)]
    terms: password::Terms,
    /// File with the password of the key that signs; without it, SSHSM_SIGNER_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    signer_password_file: Option<PathBuf>,
    /// Use this P-256 public key instead of a password for the key that signs; its private half opens
    /// sessions (--auth-key-file)
    #[arg(long, value_name = "FILE.pub", conflicts_with = "signer_password_file")]
    signer_public_key: Option<PathBuf>,
    /// Freeze the templates at the end: none can be put, imported or deleted until the device is reset
    #[arg(long)]
    freeze: bool,
    #[command(flatten)]
    road: Road,
    /// Write a record of what was done to this file, as JSON without secrets
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    replace: ReplaceOption,
}

impl Provision {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        if let Some(path) = &self.record {
            files::check(path, Kind::Record, self.replace.into())
                .map_err(|source| FileError::write(path, source))?;
        }
        let mut client = context.client_to_change()?;
        let read = |option, file: &Option<PathBuf>, new| {
            let file = context.new_password_file(option, file);
            password::read_new(&file, self.terms, Existing::Read, new)
        };
        let passwords = Passwords {
            administrator: read("new_password_file", &self.new_password_file, &password::ADMINISTRATOR)?,
            signer: match &self.signer_public_key {
                Some(file) => SignerSecret::PublicKey(super::public_point(file)?),
                None => SignerSecret::Password(read(
                    "signer_password_file",
                    &self.signer_password_file,
                    &password::SIGNER,
                )?),
            },
        };
        let plan = Plan {
            algorithm: self.algorithm.into(),
            ca_key: self.ca_key,
            template_file: self.template,
            template: self.template_id,
            signer: self.signer,
            label: self.label,
            exportable: self.exportable,
            freeze: self.freeze,
        };
        let way = self.road.way(context, &mut client)?;
        let record = provision::run(&mut client, &plan, way, &passwords)?;
        if let Some(path) = &self.record {
            let document = serde_json::to_string_pretty(&record).map_err(std::io::Error::from)? + "\n";
            files::write(path, document.as_bytes(), Kind::Record, self.replace.into())
                .map_err(|source| FileError::write(path, source))?;
        }
        for step in &record.steps {
            let kept =
                if step.outcome == crate::authority::Outcome::Made { "" } else { " (in an earlier run)" };
            output::talk(format_args!("{}{kept}", step.what));
        }
        if record.other_sessions == OtherSessions::NotTold {
            output::talk(
                "NOT CHECKED: whether another client has a session. The device does not say: unplug it and plug it in again, \
                 which ends every session that was opened with the factory's password",
            );
        }
        output::talk(record.template.allows.trim_end());
        output::talk(format_args!(
            "CA key {:#06x}, template {:#06x}, authentication key that signs {:#06x}\nfingerprint of the CA key: {}",
            record.ca_key.id, record.template.id, record.signer.id, record.ca_key.fingerprint
        ));
        context.format().print(&record, |record| format!("{}\n", record.ca_key.public_key))?;
        Ok(())
    }
}
