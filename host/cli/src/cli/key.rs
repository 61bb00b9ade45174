//! `sshsm key …`: CA keys on the device, and the list of everything else there.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use ssh_key::PublicKey;
use sshsm_protocol::{
    AsymmetricAlgorithm, Capabilities, Domains, Label, ObjectId, ObjectType,
    object::{ListFilter, NewObject, ObjectInfo},
    ssh::Printable,
};

use super::{
    Context,
    arguments::{self, KeyAlgorithm, NewId},
    authentication_key::{self, Road},
    error::CliError,
    password,
};
use crate::output::{self, columns};
use sshsm_ca::{device_key, key_file, signer};
use sshsm_client::{Session, private_session};

/// The verbs of `key`.
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a CA key on the device; prints its OpenSSH public key
    Generate {
        /// What kind of key (also p256, p384, p521)
        #[arg(long, value_name = "ALGORITHM")]
        algorithm: KeyAlgorithm,
        #[command(flatten)]
        new: NewKey,
    },
    /// Put a private key on the device; prints its OpenSSH public key
    Import {
        /// Private key: OpenSSH's format, or PEM (PKCS#8, PKCS#1, SEC1); a passphrase comes from
        /// SSHSM_KEY_PASSPHRASE or a prompt
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        new: NewKey,
        #[command(flatten)]
        road: Road,
    },
    /// List the objects that the authentication key can see
    List,
    /// Print a key's OpenSSH public key
    Show {
        /// The key's id
        #[arg(value_name = "ID", value_parser = arguments::object_id)]
        id: ObjectId,
    },
    /// Delete a key, or another object
    Delete {
        /// The object's id
        #[arg(value_name = "ID", value_parser = arguments::object_id)]
        id: ObjectId,
        /// The object's type
        #[arg(long = "type", value_name = "TYPE", default_value = "asymmetric-key")]
        #[arg(value_parser = arguments::object_type)]
        object_type: ObjectType,
        /// Delete an authentication key even if it is this session's own, or the only one with one of its
        /// rights
        #[arg(long)]
        force: bool,
        /// Say what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// The attributes of a new key.
#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// The key's id; 0 lets the device choose
    #[arg(long, value_name = "ID", default_value = "0")]
    id: NewId,
    /// A label of at most 40 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    #[arg(value_parser = arguments::label)]
    label: Label,
    /// Domains that can see the key: all, or numbers such as 1,5
    #[arg(long, value_name = "DOMAINS", default_value = "all", value_parser = arguments::domains)]
    domains: Domains,
    /// Capabilities of the key, separated by commas; none, all
    #[arg(long, value_name = "NAMES", default_value = "sign-ssh-certificate")]
    #[arg(value_parser = arguments::capabilities)]
    capabilities: Capabilities,
    /// Let it leave the device under a wrap key, for `sshsm backup`
    #[arg(long)]
    exportable: bool,
}

impl NewKey {
    fn object(&self, algorithm: AsymmetricAlgorithm) -> NewObject {
        let (id, label, domains) = (self.id.0, self.label, self.domains);
        let capabilities = self.capabilities.union(arguments::exportable(self.exportable));
        NewObject { id, label, domains, capabilities, algorithm: algorithm.algorithm() }
    }
}

/// An object as JSON shows it.
#[derive(Serialize)]
struct Object {
    id: u16,
    #[serde(rename = "type")]
    object_type: &'static str,
    algorithm: &'static str,
    label: String,
    domains: Vec<u16>,
    capabilities: Vec<&'static str>,
    sequence: u8,
    origin: &'static str,
}

impl From<&ObjectInfo> for Object {
    fn from(info: &ObjectInfo) -> Self {
        Self {
            id: info.id.get(),
            object_type: info.object_type.name(),
            algorithm: info.algorithm.name(),
            label: info.label.to_string(),
            domains: info.domains.iter().collect(),
            capabilities: info.capabilities.iter().map(|capability| capability.name()).collect(),
            sequence: info.sequence,
            origin: info.origin.name(),
        }
    }
}

/// Which object it was, as JSON shows it.
#[derive(Serialize)]
pub(super) struct ObjectName {
    id: u16,
    #[serde(rename = "type")]
    object_type: &'static str,
}

impl ObjectName {
    pub(super) fn new(id: ObjectId, object_type: ObjectType) -> Self {
        Self { id: id.get(), object_type: object_type.name() }
    }
}

/// A key as JSON shows it.
#[derive(Serialize)]
struct KeyView {
    #[serde(flatten)]
    object: Object,
    public_key: String,
}

impl Key {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        // Everything that needs no device comes first, so that a wrong file does not leave a session behind.
        let private = match &self {
            Self::Import { file, .. } => {
                let mut ask = || password::key_passphrase(file);
                let key = key_file::read_private(file, &mut ask).map_err(|error| {
                    CliError::content(format_args!("cannot import {}", output::shown(file)), error)
                })?;
                Some(
                    device_key::raw_private(&key)
                        .map_err(|error| CliError::content(output::shown(file), error))?,
                )
            }
            _ => None,
        };
        let mut client = match &self {
            Self::Generate { .. } | Self::Import { .. } => context.client_to_change()?,
            Self::List | Self::Show { .. } | Self::Delete { .. } => context.client()?,
        };
        let credential = context.credential(&mut client)?;
        let own = context.globals.auth_key;
        if let (Self::Import { new, road, .. }, Some((algorithm, body))) = (&self, private) {
            let opening = road.opening(context, &mut client, &credential)?;
            return authentication_key::within(opening.as_ref(), &mut client, own, &credential, |session| {
                let id = session.put_asymmetric_key(&new.object(algorithm), &body)?;
                output::talk(format_args!("key {id} imported ({algorithm})"));
                show(context, session, id)
            });
        }
        let mut session = Session::open_with(&mut client, own, &credential)?;
        match self {
            Self::Generate { algorithm, new } => {
                let algorithm = algorithm.into();
                let id = session.generate_asymmetric_key(&new.object(algorithm))?;
                output::talk(format_args!("key {id} generated ({algorithm})"));
                show(context, &mut session, id)
            }
            // Done above.
            Self::Import { .. } => Ok(()),
            Self::List => list(context, &mut session),
            Self::Show { id } => show(context, &mut session, id),
            Self::Delete { id, object_type, dry_run: true, .. } => {
                let info = session.object_info(id, object_type)?;
                output::talk(format_args!(
                    "{object_type} {id} {:?} would be deleted",
                    info.label.to_string()
                ));
                context.format().print(&Object::from(&info), |_| String::new())?;
                Ok(())
            }
            Self::Delete { id, object_type, force, dry_run: false } => {
                if object_type == ObjectType::AuthenticationKey && !force {
                    refuse_to_lock_out(&mut session, id, own)?;
                }
                session.delete_object(id, object_type)?;
                output::talk(format_args!("{object_type} {id} deleted"));
                context.format().print(&ObjectName::new(id, object_type), |_| String::new())?;
                Ok(())
            }
        }
    }
}

/// Refuses to delete an authentication key whose rights no other key has.
fn refuse_to_lock_out(session: &mut Session<'_>, id: ObjectId, own: ObjectId) -> Result<(), CliError> {
    let refused = |reason: String| {
        let reason = format!("{reason}; --force deletes it all the same");
        Err(CliError::because(format_args!("authentication key {id} was not deleted"), reason))
    };
    if id == own {
        return refused("it is the one that opened this session".into());
    }
    let kind = ObjectType::AuthenticationKey;
    let key = session.object_info(id, kind)?;
    let mut others = Capabilities::NONE;
    for entry in session.list_objects(&ListFilter::default())? {
        if entry.object_type == kind && entry.id != id {
            let other = session.object_info(entry.id, kind)?;
            // A key that does not see everything that this one sees cannot replace it, nor can one that the
            // next command removes.
            if !private_session::is_temporary(&other)
                && key.domains.iter().all(|domain| other.domains.iter().any(|seen| seen == domain))
            {
                others = others.union(other.capabilities);
            }
        }
    }
    let names: Vec<_> = others.iter().map(|capability| capability.name()).collect();
    let alone: Vec<_> = key
        .capabilities
        .iter()
        .map(|capability| capability.name())
        .filter(|name| !names.contains(name))
        .collect();
    match alone.as_slice() {
        [] => Ok(()),
        alone => refused(format!("no other authentication key in its domains has {}", alone.join(", "))),
    }
}

/// Prints a key's OpenSSH public key; its comment is the key's label.
fn show(context: &Context, session: &mut Session<'_>, id: ObjectId) -> Result<(), CliError> {
    let info = session.object_info(id, ObjectType::AsymmetricKey)?;
    let (_, key) = signer::public_key(session, id)?;
    let public_key = PublicKey::new(key, Printable(info.label.trimmed()).to_string())
        .to_openssh()
        .map_err(|error| CliError::because(format_args!("public key {id}"), error))?;
    let view = KeyView { object: (&info).into(), public_key };
    context.format().print(&view, |view| format!("{}\n", view.public_key.trim_end()))?;
    Ok(())
}

/// Prints the objects that the session sees.
pub(super) fn list(context: &Context, session: &mut Session<'_>) -> Result<(), CliError> {
    let mut entries = session.list_objects(&ListFilter::default())?;
    entries.sort_by_key(|entry| (entry.object_type, entry.id));
    let infos = entries
        .iter()
        .map(|entry| session.object_info(entry.id, entry.object_type))
        .collect::<Result<Vec<_>, _>>()?;
    let objects: Vec<Object> = infos.iter().map(Object::from).collect();
    context.format().print(&objects, |_| {
        let heading = ["id", "type", "algorithm", "domains", "capabilities", "label"].map(str::to_owned);
        let rows = infos.iter().map(|info| {
            [
                info.id.to_string(),
                info.object_type.to_string(),
                info.algorithm.to_string(),
                domain_text(info.domains),
                capability_text(info.capabilities),
                Printable(info.label.trimmed()).to_string(),
            ]
        });
        columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
    })?;
    Ok(())
}

/// Domains as `--domains` takes them.
fn domain_text(domains: Domains) -> String {
    match domains {
        Domains::ALL => "all".into(),
        domains => domains.iter().map(|domain| domain.to_string()).collect::<Vec<_>>().join(","),
    }
}

/// Capabilities as `--capabilities` takes them.
fn capability_text(capabilities: Capabilities) -> String {
    match capabilities {
        Capabilities::ALL => "all".into(),
        Capabilities::NONE => "none".into(),
        some => some.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(","),
    }
}
