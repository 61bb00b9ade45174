//! `sshsm authentication-key …`: the passwords that open sessions, and what each of them may do.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sshsm_protocol::{
    Algorithm, Capabilities, Domains, Label, ObjectType, channel::AuthenticationKey, object::NewObject,
};
use zeroize::Zeroizing;

use super::{
    Context,
    arguments::{self, NewId},
    error::CliError,
    key::ObjectName,
    password::{self, Existing},
};
use crate::{client::Session, output};

/// The verbs of `authentication-key`.
#[derive(Debug, Subcommand)]
pub(super) enum AuthenticationKeyVerb {
    /// Give the authentication key of this session (--auth-key) a new password
    Change {
        #[command(flatten)]
        new: NewPassword,
    },
    /// Put another authentication key on the device; prints its id
    Put {
        /// The key's id; 0 lets the device choose
        #[arg(long, value_name = "ID", default_value = "0")]
        id: NewId,
        /// A label of at most 40 bytes
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        #[arg(value_parser = arguments::label)]
        label: Label,
        /// Domains that its sessions see: all, or numbers such as 1,5
        #[arg(long, value_name = "DOMAINS", default_value = "all", value_parser = arguments::domains)]
        domains: Domains,
        /// What its sessions may do, with commas between; none, all
        ///
        /// For signing and nothing else: sign-ssh-certificate,get-template (the latter explains refusals).
        #[arg(long, value_name = "NAMES", value_parser = arguments::capabilities)]
        capabilities: Capabilities,
        /// What the objects that its sessions make may be allowed, with commas between; none, all
        #[arg(long, value_name = "NAMES", default_value = "none", value_parser = arguments::capabilities)]
        delegated: Capabilities,
        #[command(flatten)]
        new: NewPassword,
    },
}

/// Where the new password comes from.
#[derive(Debug, Args)]
pub(super) struct NewPassword {
    /// File with the new password; without it, SSHSM_NEW_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    #[command(flatten)]
    terms: password::Terms,
}

impl NewPassword {
    fn read(&self) -> Result<Zeroizing<String>, CliError> {
        let file = self.new_password_file.as_deref();
        password::read_new(file, self.terms, Existing::Refuse, &password::NEW)
    }
}

impl AuthenticationKeyVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let (Self::Change { new } | Self::Put { new, .. }) = &self;
        let mut client = context.client()?;
        // Both before the session begins, which does not wait for somebody who types.
        let password = context.password(&client)?;
        let new = new.read()?;
        let new = AuthenticationKey::from_password(new.as_bytes());
        let mut session = Session::open(&mut client, context.globals.auth_key, &password)?;
        let object_type = ObjectType::AuthenticationKey;
        match self {
            Self::Change { .. } => {
                let id = context.globals.auth_key;
                session.change_authentication_key(id, &new)?;
                output::talk(format_args!("authentication key {id} has a new password"));
                context.format().print(&ObjectName::new(id, object_type), |_| String::new())?;
            }
            Self::Put { id, label, domains, capabilities, delegated, .. } => {
                let algorithm = Algorithm::Aes128YubicoAuthentication;
                let object = NewObject { id: id.0, label, domains, capabilities, algorithm };
                let id = session.put_authentication_key(&object, delegated, &new)?;
                output::talk(format_args!("authentication key {id} put"));
                context.format().print(&ObjectName::new(id, object_type), |_| format!("{id}\n"))?;
            }
        }
        Ok(())
    }
}
