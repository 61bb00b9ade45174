//! `sshsm authentication-key …`: the passwords that open sessions, and what each of them may do.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sshsm_protocol::{
    Capabilities, Domains, Label, ObjectType,
    channel::{AuthenticationKey, Point},
    object::NewObject,
};

use super::{
    Context,
    arguments::{self, NewId},
    error::CliError,
    key::ObjectName,
    password::{self, Existing},
};
use crate::{
    authority::FACTORY_PASSWORD,
    client::{Credential, NewKey, Session},
    output,
    provision::ProvisionError,
};

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
    /// No password: this P-256 public key, whose private half opens sessions (--auth-key-file). It cannot be guessed
    #[arg(long, value_name = "FILE.pub", conflicts_with_all = ["new_password_file", "generate", "allow_weak_password"])]
    public_key: Option<PathBuf>,
    #[command(flatten)]
    terms: password::Terms,
    #[command(flatten)]
    road: Road,
}

/// What an authentication key is to be.
enum New {
    Password(AuthenticationKey),
    PublicKey(Point),
}

impl New {
    fn key(&self) -> NewKey<'_> {
        match self {
            Self::Password(key) => NewKey::Symmetric(key),
            // Without the 04 that says that it is not compressed.
            Self::PublicKey(point) => NewKey::Public(point.get(1..).unwrap_or_default()),
        }
    }

    const fn what(&self) -> &'static str {
        match self {
            Self::Password(_) => "password",
            Self::PublicKey(_) => "public key",
        }
    }
}

impl NewPassword {
    fn read(&self) -> Result<New, CliError> {
        if let Some(file) = &self.public_key {
            return super::public_point(file).map(New::PublicKey);
        }
        let file = self.new_password_file.as_deref();
        password::read_new(file, self.terms, Existing::Refuse, &password::NEW)
            .map(|password| New::Password(AuthenticationKey::from_password(password.as_bytes())))
    }
}

/// Whether new keys may go where the factory's password does.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Road {
    /// Send keys to a device on another computer (http://) although its session is opened with the factory's password: a
    /// relay, or a recording of that session, gives them away
    #[arg(long)]
    allow_plain_http: bool,
}

impl Road {
    /// Whether what a session with the factory's password carries stays on this computer, or the user accepts that it does not.
    pub(super) fn is_private(self, context: &Context) -> Result<bool, CliError> {
        Ok(self.allow_plain_http || !context.device()?.is_remote())
    }

    /// Refuses a session that is to carry keys and that everyone on its way can read.
    pub(super) fn check(self, context: &Context, credential: &Credential) -> Result<(), CliError> {
        let factory = match credential {
            Credential::Password(password) => password.as_str() == FACTORY_PASSWORD,
            Credential::Key(key) => {
                key.as_bytes() == AuthenticationKey::from_password(FACTORY_PASSWORD.as_bytes()).as_bytes()
            }
            Credential::PrivateKey { .. } => false,
        };
        if !factory || self.is_private(context)? {
            Ok(())
        } else {
            Err(ProvisionError::FactorySession.into())
        }
    }
}

impl AuthenticationKeyVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let (Self::Change { new } | Self::Put { new, .. }) = &self;
        let mut client = context.client_to_change()?;
        // Both before the session begins, which does not wait for somebody who types.
        let credential = context.credential(&mut client)?;
        new.road.check(context, &credential)?;
        let new = new.read()?;
        let mut session = Session::open_with(&mut client, context.globals.auth_key, &credential)?;
        let object_type = ObjectType::AuthenticationKey;
        match self {
            Self::Change { .. } => {
                let id = context.globals.auth_key;
                session.change_authentication_key(id, new.key())?;
                output::talk(format_args!("authentication key {id} has a new {}", new.what()));
                context.format().print(&ObjectName::new(id, object_type), |_| String::new())?;
            }
            Self::Put { id, label, domains, capabilities, delegated, .. } => {
                let algorithm = new.key().algorithm();
                let object = NewObject { id: id.0, label, domains, capabilities, algorithm };
                let id = session.put_authentication_key(&object, delegated, new.key())?;
                output::talk(format_args!("authentication key {id} put"));
                context.format().print(&ObjectName::new(id, object_type), |_| format!("{id}\n"))?;
            }
        }
        Ok(())
    }
}
