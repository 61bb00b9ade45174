//! `sshsm authentication-key …`: the passwords that open sessions, and what each of them may do.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sshsm_protocol::{
    Algorithm, Capabilities, Domains, Label, ObjectId, ObjectType,
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
    client::{Client, Credential, NewKey, Session},
    output,
    private_session::{Opening, PrivateSessionError, Way},
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
    fn read(&self, context: &Context) -> Result<New, CliError> {
        if let Some(file) = &self.public_key {
            return super::public_point(file).map(New::PublicKey);
        }
        let file = context.new_password_file("new_password_file", &self.new_password_file);
        password::read_new(&file, self.terms, Existing::Refuse, &password::NEW)
            .map(|password| New::Password(AuthenticationKey::from_password(password.as_bytes())))
    }
}

/// How new keys reach a device that has the factory's password.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Road {
    /// Send keys over http:// to a device that has the factory's password, also to another computer without --device-key,
    /// and to a device without P-256 keys: a relay can read them then
    #[arg(long)]
    allow_plain_http: bool,
}

impl Road {
    /// How they reach the device of the global options; asked for before they are known.
    pub(super) fn way(self, context: &Context, client: &mut Client) -> Result<Way, CliError> {
        let address = context.device()?;
        if !address.is_relayed() {
            return Ok(Way::Open);
        }
        if !client.identity().algorithms.contains(&Algorithm::Ecp256YubicoAuthentication) {
            return Ok(match self.allow_plain_http {
                true => Way::Open,
                false => Way::Closed(PrivateSessionError::NoAgreement),
            });
        }
        let known = context.globals.device_key.as_deref().map(super::public_point).transpose()?;
        let told = client.device_public_key()?;
        Ok(match known {
            Some(known) if known != told => Way::Closed(PrivateSessionError::OtherDevice),
            Some(device) => Way::Private { device, known: true },
            None if address.is_remote() && !self.allow_plain_http => Way::Closed(PrivateSessionError::Remote),
            None => Way::Private { device: told, known: false },
        })
    }

    /// As [`Self::way`] for a session with `credential`: one that not everyone has is good enough. Says what is not known.
    pub(super) fn opening(
        self,
        context: &Context,
        client: &mut Client,
        credential: &Credential,
    ) -> Result<Option<Opening>, CliError> {
        let factory = match credential {
            Credential::Password(password) => password.as_str() == FACTORY_PASSWORD,
            Credential::Key(key) => {
                key.as_bytes() == AuthenticationKey::from_password(FACTORY_PASSWORD.as_bytes()).as_bytes()
            }
            Credential::PrivateKey { .. } => false,
        };
        if !factory {
            return Ok(None);
        }
        match self.way(context, client)? {
            Way::Open => Ok(None),
            Way::Closed(reason) => Err(reason.into()),
            Way::Private { device, known } => {
                if !known {
                    tell_unknown_device();
                }
                Ok(Some(Opening { key: context.globals.auth_key, credential: credential.clone(), device }))
            }
        }
    }
}

/// Says what is left open where keys went to a device whose public key was not known.
pub(super) fn tell_unknown_device() {
    output::talk(
        "NOT CHECKED: which device answers. The device has the factory's password: new keys go in a session of their own, \
         which no recording opens, but a relay that puts itself in the device's place could read them. To rule that out, name \
         the device's public key: --device-key FILE, as `sshsm device public-key` prints it where the device is plugged in",
    );
}

/// Does `work` in a session with `credential`, or in the one that `opening` leads to.
pub(super) fn within<T>(
    opening: Option<&Opening>,
    client: &mut Client,
    key: ObjectId,
    credential: &Credential,
    work: impl FnOnce(&mut Session<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    match opening {
        Some(opening) => opening.within(client, work),
        None => {
            let mut session = Session::open_with(client, key, credential)?;
            let result = work(&mut session)?;
            session.close()?;
            Ok(result)
        }
    }
}

impl AuthenticationKeyVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let (Self::Change { new } | Self::Put { new, .. }) = &self;
        let mut client = context.client_to_change()?;
        // Both before the session begins, which does not wait for somebody who types.
        let credential = context.credential(&mut client)?;
        let opening = new.road.opening(context, &mut client, &credential)?;
        let new = new.read(context)?;
        let (own, object_type) = (context.globals.auth_key, ObjectType::AuthenticationKey);
        match self {
            Self::Change { .. } => {
                match (&opening, &new) {
                    (Some(opening), New::Password(key)) => {
                        opening.change::<CliError>(&mut client, key, |_, _| Ok(()))?;
                    }
                    // A public key is no secret.
                    (None, _) | (Some(_), New::PublicKey(_)) => {
                        let mut session = Session::open_with(&mut client, own, &credential)?;
                        session.change_authentication_key(own, new.key())?;
                    }
                }
                output::talk(format_args!("authentication key {own} has a new {}", new.what()));
                context.format().print(&ObjectName::new(own, object_type), |_| String::new())?;
            }
            Self::Put { id, label, domains, capabilities, delegated, .. } => {
                let algorithm = new.key().algorithm();
                let object = NewObject { id: id.0, label, domains, capabilities, algorithm };
                let id = within(opening.as_ref(), &mut client, own, &credential, |session| {
                    Ok(session.put_authentication_key(&object, delegated, new.key())?)
                })?;
                output::talk(format_args!("authentication key {id} put"));
                context.format().print(&ObjectName::new(id, object_type), |_| format!("{id}\n"))?;
            }
        }
        Ok(())
    }
}
