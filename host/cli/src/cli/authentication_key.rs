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
use crate::{authority::FACTORY_PASSWORD, output};
use sshsm_client::{
    Client, ClientError, Credential, NewKey, Session,
    private_session::{self, Changed, Opening, PrivateSessionError, Way},
};

/// The verbs of `authentication-key`.
#[derive(Debug, Subcommand)]
pub(super) enum AuthenticationKeyVerb {
    /// Change the password of this session's authentication key (--auth-key)
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
        /// Domains that its sessions can see: all, or numbers such as 1,5
        #[arg(long, value_name = "DOMAINS", default_value = "all", value_parser = arguments::domains)]
        domains: Domains,
        /// What its sessions may do, with commas between; none, all
        ///
        /// For signing and nothing else: sign-ssh-certificate,get-template (the latter explains refusals).
        #[arg(long, value_name = "NAMES", value_parser = arguments::capabilities)]
        capabilities: Capabilities,
        /// Capabilities that its sessions may give to objects they create, separated by commas; none, all
        #[arg(long, value_name = "NAMES", default_value = "none", value_parser = arguments::capabilities)]
        delegated: Capabilities,
        #[command(flatten)]
        new: NewPassword,
    },
}

/// The source of the new password.
#[derive(Debug, Args)]
pub(super) struct NewPassword {
    /// File with the new password; without it, SSHSM_NEW_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Use this P-256 public key instead of a password; its private half opens sessions (--auth-key-file). It
    /// cannot be guessed
    #[arg(long, value_name = "FILE.pub", conflicts_with_all = ["new_password_file", "generate", "allow_weak_password"])]
    public_key: Option<PathBuf>,
    #[command(flatten)]
    terms: password::Terms,
    #[command(flatten)]
    road: Road,
}

/// The new secret of an authentication key.
enum New {
    Password(AuthenticationKey),
    PublicKey(Point),
}

impl New {
    fn key(&self) -> NewKey<'_> {
        match self {
            Self::Password(key) => NewKey::Symmetric(key),
            // Without the leading 04, which marks an uncompressed point.
            Self::PublicKey([_, coordinates @ ..]) => NewKey::Public(coordinates),
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
    /// Send keys over http:// to a device with the factory password even to another computer without
    /// --device-key, or to a device without P-256 keys: a relay can then read them
    #[arg(long)]
    allow_plain_http: bool,
}

impl Road {
    /// How they reach the device of the global options; asked for before they are known.
    pub(super) fn way(self, context: &Context, client: &mut Client) -> Result<Way, CliError> {
        let address = context.device()?;
        let agrees = client.identity().algorithms.contains(&Algorithm::Ecp256YubicoAuthentication);
        // Before anything that a relay could say to make the key seem irrelevant.
        if let Some(file) = &context.globals.device_key {
            let known = super::public_point(file)?;
            return Ok(match (address.is_relayed(), agrees) {
                (true, false) => Way::Closed(PrivateSessionError::CannotShow),
                _ if client.device_public_key()? != known => Way::Closed(PrivateSessionError::OtherDevice),
                (true, true) => Way::Private { device: known, known: true },
                (false, _) => Way::Open,
            });
        }
        Ok(match (address.is_relayed(), agrees) {
            (false, _) => Way::Open,
            (true, false) if self.allow_plain_http => Way::Open,
            (true, false) => Way::Closed(PrivateSessionError::NoAgreement),
            (true, true) if address.is_remote() && !self.allow_plain_http => {
                Way::Closed(PrivateSessionError::Remote)
            }
            (true, true) => Way::Private { device: client.device_public_key()?, known: false },
        })
    }

    /// As [`Self::way`] for a session with `credential`: one that not everyone has is good enough.
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
            Way::Private { device, known } => Ok(Some(Opening {
                key: context.globals.auth_key,
                credential: credential.clone(),
                device,
                known,
            })),
        }
    }
}

/// Gives authentication key `own` a new password or public key.
fn change(
    client: &mut Client,
    own: ObjectId,
    credential: &Credential,
    opening: Option<&Opening>,
    new: &New,
) -> Result<Changed, CliError> {
    if let (Some(opening), New::Password(key)) = (opening, new) {
        return opening.change(client, key, |_, _| Ok(()));
    }
    if let Some(opening) = opening {
        // A public key is not a secret; but which device gets it is not known either.
        opening.warn_if_not_identified(client.listener());
    }
    let changed = Session::open_with(client, own, credential).and_then(|mut session| {
        // A password that is being replaced could also open a key left by an earlier run.
        private_session::remove_left_behind(&mut session)?;
        session.change_authentication_key(own, new.key())?;
        session.close()
    });
    match (changed, new) {
        (Ok(()), _) => Ok(Changed::Sent),
        // Perhaps a change over HTTP was interrupted when the old key was gone and the new one not there yet.
        (Err(ClientError::UnknownAuthenticationKey(id)), New::Password(key)) if id == own => {
            private_session::resume(client, own, key, |_, _| Ok::<_, CliError>(()))?;
            Ok(Changed::Resumed)
        }
        (Err(error), _) => Err(error.into()),
    }
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
        // Both before the session begins, which does not wait for the user to type.
        let credential = context.credential(&mut client)?;
        let opening = new.road.opening(context, &mut client, &credential)?;
        let new = new.read(context)?;
        let (own, object_type) = (context.globals.auth_key, ObjectType::AuthenticationKey);
        match self {
            Self::Change { .. } => {
                let by = match change(&mut client, own, &credential, opening.as_ref(), &new)? {
                    Changed::Sent => "",
                    Changed::Resumed => "; an earlier run had sent it",
                };
                output::talk(format_args!("authentication key {own} has a new {}{by}", new.what()));
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
