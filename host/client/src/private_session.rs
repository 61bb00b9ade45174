//! Secrets for a device whose password everyone knows, over a connection where others may listen.
//!
//! The keys of a session opened with a password follow from the password and from data sent in plain: a
//! recording and the factory password are enough to decrypt it. The keys of a session under a P-256 key come
//! from an ephemeral key agreement, and no recording can decrypt it. The device is therefore given a P-256
//! key made for this purpose, secrets are sent only in a session under that key, and the key is deleted. An
//! attacker in between who does not just listen, but replaces the keys that pass with its own, is kept out by
//! the device's own public key, if that is known beforehand.

use sshsm_protocol::{
    Algorithm, Capabilities, Capability, DeviceError, Label, ObjectId, ObjectType,
    channel::{AuthenticationKey, Point},
    object::{ListFilter, NewObject, ObjectInfo},
};

use crate::{
    client::Client,
    commands::{found, random_id},
    credential::{Credential, NewKey},
    error::ClientError,
    failure::{Failure, Kind},
    handshake::ephemeral_key,
    notice::{Listener, Notice},
    session::Session,
};

pub use crate::credential::SUCCESSOR;

/// The label of the P-256 key that is on a device only while this is done.
const LABEL: &str = "sshsm temporary key";
/// The prefix of the label of [`SUCCESSOR`]; the rest is that of the key that it replaces temporarily, as far
/// as there is room.
const SUCCESSOR_LABEL: &[u8] = b"tempfor:";

/// Why no secret was sent, or why a change is half done.
#[derive(Debug, thiserror::Error)]
pub enum PrivateSessionError {
    /// The factory password on a network, with nothing to identify the device that answers.
    #[error(
        "the session is opened with the factory's password, the device is on another computer, and its public key is not \
         known here: a relay could read the new keys"
    )]
    Remote,
    /// The factory's password over HTTP, and nothing better.
    #[error(
        "the session is opened with the factory's password, and the device has no P-256 authentication keys: everyone between \
         here and the device could read the new keys"
    )]
    NoAgreement,
    /// The device was identified, but reports that it cannot prove its identity.
    #[error(
        "the device says that it has no P-256 authentication keys, so it cannot show that it has the public key that it \
         should; a relay could say so in its place; no new key was sent"
    )]
    CannotShow,
    /// The authentication key has the factory password and may not put, or not delete, another key.
    #[error(
        "authentication key {key} has the factory's password, and a session that others cannot read needs a temporary key, \
         which it may not put, or not delete"
    )]
    Rights {
        /// The key.
        key: ObjectId,
        /// The device's answer, if it was asked.
        source: Option<ClientError>,
    },
    /// Another device answers than the one that was named, or a relay changed a key on its way.
    #[error(
        "the device that answers does not have the public key that it should: it is another device, or a relay is in between, \
         which may have put an authentication key of its own on the device; no new key was sent"
    )]
    OtherDevice,
    /// The session that everyone can open reported something different about the key from the private one.
    #[error(
        "authentication key {key} is another in the private session than it was in the session with the factory's password: \
         another client changed it, or a relay told something else; no new key was sent"
    )]
    OtherKey {
        /// The key.
        key: ObjectId,
    },
    /// The new password may be on the device, and not everything is as it should be.
    #[error(
        "the change of authentication key {key} stopped half-way: authentication key {successor} may be on the device, with the \
         new password and all the rights of {key}, which has the old password, the new one, or is gone",
        successor = SUCCESSOR
    )]
    HalfChanged {
        /// The key that was to be changed.
        key: ObjectId,
        /// What stopped it.
        source: Box<ClientError>,
    },
}

impl Failure for PrivateSessionError {
    fn kind(&self) -> Kind {
        match self {
            Self::Remote | Self::NoAgreement => Kind::Usage,
            Self::Rights { .. } => Kind::Refused,
            Self::OtherDevice | Self::CannotShow | Self::OtherKey { .. } => Kind::Authentication,
            Self::HalfChanged { source, .. } => source.kind(),
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Remote => {
                "name the device's public key with --device-key FILE (`sshsm device public-key` prints it at the computer \
                 that the device is plugged into), or do it there; --allow-plain-http does it all the same"
            }
            Self::NoAgreement => {
                "do it at the computer that the device is plugged into; --allow-plain-http does it all the same"
            }
            Self::Rights { .. } => {
                "give the device another password first: `sshsm provision`, or `sshsm authentication-key change` with a key \
                 that may put and delete authentication keys"
            }
            Self::OtherDevice => {
                "at the computer that the device is plugged into, compare `sshsm device public-key` with the file of \
                 --device-key, and look with `sshsm key list` for authentication keys that you did not put there"
            }
            Self::CannotShow => {
                "do it at the computer that the device is plugged into; without --device-key nothing identifies the device"
            }
            Self::OtherKey { .. } => {
                "do it at the computer that the device is plugged into, and look there with `sshsm key list` first"
            }
            Self::HalfChanged { .. } => {
                "run the same command again, over the same transport or another: it continues from there and deletes 0xfffe. \
                 Or delete that yourself, with whichever password opens the key now: `sshsm key delete 0xfffe --type \
                 authentication-key`; where the key is gone, --auth-key 0xfffe opens the device with the new password"
            }
        })
    }
}

/// How new secrets reach a device that has a password which everyone knows.
#[derive(Debug)]
pub enum Way {
    /// In a session under that password: no one is in between, or the user accepts that anyone in between can
    /// read it.
    Open,
    /// In a session under a temporary P-256 key.
    Private {
        /// The device's public key.
        device: Point,
        /// Whether it was known beforehand; otherwise it was reported by whatever answered.
        known: bool,
    },
    /// Not at all.
    Closed(PrivateSessionError),
}

/// What everyone can open a session with, and how to get from there to one that only this program can read.
#[derive(Clone)]
pub struct Opening {
    /// The authentication key that has the password.
    pub key: ObjectId,
    /// The password.
    pub credential: Credential,
    /// The device's public key.
    pub device: Point,
    /// Whether it was known beforehand; otherwise it was reported by whatever answered.
    pub known: bool,
}

/// When a device is looked at while an authentication key is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In the session that everyone can open.
    Open,
    /// In the private session, whose temporary key has this id; others may still have sessions under the old
    /// password.
    Private(ObjectId),
    /// The old key is deleted, and every session under its password has ended; the new key is not there yet.
    /// The session is under [`SUCCESSOR`].
    Between,
}

impl Moment {
    /// The one key that is on the device for this alone.
    #[must_use]
    pub const fn temporary(self) -> Option<ObjectId> {
        match self {
            Self::Open => None,
            Self::Private(id) => Some(id),
            Self::Between => Some(SUCCESSOR),
        }
    }
}

/// Whether [`Opening::change`] sent the new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did, in a private session.
    Sent,
    /// It continued an earlier call that was interrupted and had already sent it; to whom is not known.
    Resumed,
}

/// A key on the device that is there for a moment only.
struct Temporary {
    id: ObjectId,
    credential: Credential,
    /// The info of the key that it replaces temporarily.
    info: ObjectInfo,
}

impl Opening {
    /// Runs `work` in a session that no recording can decrypt.
    ///
    /// # Errors
    /// [`PrivateSessionError`], and then `work` was not begun; the error of `work`.
    pub fn within<T, E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        client: &mut Client,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut session = Session::open_with(client, self.key, &self.credential)?;
        let temporary = self.put_temporary::<E>(&mut session)?;
        drop(session);
        let (result, removed) = match temporary.open(client) {
            Ok(mut session) => {
                let result = work(&mut session);
                // The key's own session can delete it, even if answers no longer arrive.
                (result, session.delete_surely(temporary.id, ObjectType::AuthenticationKey).is_ok())
            }
            Err(error) => (Err(error), false),
        };
        if !removed {
            self.remove(client, temporary.id);
        }
        result
    }

    /// Gives the authentication key the password that makes `new`, and keeps its other attributes. Whatever
    /// happens on the way, a session can be opened with the old password or the new one, and the same call
    /// continues from there.
    ///
    /// `check` inspects the device at each [`Moment`]. What it accepts in the last one was there when every
    /// session under the old password had ended.
    ///
    /// # Errors
    /// [`PrivateSessionError`]: nothing was changed, except for [`PrivateSessionError::HalfChanged`]. The
    /// error of `check`: nothing was changed, except in the last moment, when [`SUCCESSOR`] has the new
    /// password and the key itself is gone.
    pub fn change<E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        client: &mut Client,
        new: &AuthenticationKey,
        mut check: impl FnMut(&mut Session<'_>, Moment) -> Result<(), E>,
    ) -> Result<Changed, E> {
        // Tried first and opened later: a session returned from an arm would borrow the client in the others
        // as well.
        match Session::open_with(client, self.key, &self.credential).map(drop) {
            Ok(()) => {}
            // Perhaps an earlier run was interrupted when the old key was gone and the new one not there yet.
            Err(ClientError::UnknownAuthenticationKey(_)) => {
                resume(client, self.key, new, check)?;
                return Ok(Changed::Resumed);
            }
            // Or when only the clean-up was left.
            Err(wrong @ ClientError::WrongPassword(_)) => {
                return match finish(client, self.key, new) {
                    Ok(()) => Ok(Changed::Resumed),
                    Err(ClientError::WrongPassword(_)) => Err(wrong.into()),
                    Err(error) => Err(error.into()),
                };
            }
            Err(error) => return Err(error.into()),
        }
        let mut session = Session::open_with(client, self.key, &self.credential)?;
        remove_left_behind(&mut session)?;
        check(&mut session, Moment::Open)?;
        let temporary = self.put_temporary::<E>(&mut session)?;
        drop(session);
        if let Err(error) = self.put_successor(client, &temporary, new, &mut check) {
            self.remove(client, temporary.id);
            return Err(error);
        }
        succeed(client, self.key, new, Some(temporary.info.label), check)?;
        Ok(Changed::Sent)
    }

    fn put_successor<E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        client: &mut Client,
        temporary: &Temporary,
        new: &AuthenticationKey,
        check: &mut impl FnMut(&mut Session<'_>, Moment) -> Result<(), E>,
    ) -> Result<(), E> {
        let Temporary { id, info, .. } = temporary;
        let key = self.key;
        let needed =
            Capabilities::of(&[Capability::PutAuthenticationKey, Capability::DeleteAuthenticationKey]);
        if !info.capabilities.is_subset_of(info.delegated_capabilities)
            || !needed.is_subset_of(info.capabilities)
        {
            return Err(PrivateSessionError::Rights { key, source: None }.into());
        }
        let mut session = temporary.open::<E>(client)?;
        // The first time that a relay which knows the old password cannot have written it.
        if session.object_info(key, ObjectType::AuthenticationKey)? != *info {
            return Err(PrivateSessionError::OtherKey { key }.into());
        }
        check(&mut session, Moment::Private(*id))?;
        let successor = as_it_is(info, SUCCESSOR, successor_label(&info.label));
        match session.put_authentication_key(&successor, info.delegated_capabilities, new) {
            Ok(_) => {}
            // Refused: it is not there.
            Err(error) if !error.ends_session() => return Err(error.into()),
            Err(error) => return Err(half_changed(key)(error).into()),
        }
        // It has done its work.
        let removed = session.delete_surely(*id, ObjectType::AuthenticationKey);
        Ok(removed.and_then(|()| session.close()).map_err(half_changed(key))?)
    }

    /// Puts a P-256 key on the device, with everything that the session's own key may delegate.
    fn put_temporary<E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        session: &mut Session<'_>,
    ) -> Result<Temporary, E> {
        self.warn_if_not_identified(session.listener());
        let kind = ObjectType::AuthenticationKey;
        remove_left_behind(session)?;
        let info = session.object_info(self.key, kind)?;
        let key = ephemeral_key()?;
        let delegated = info.delegated_capabilities;
        let mut object = NewObject {
            id: None,
            label: padded(LABEL.as_bytes().iter()),
            domains: info.domains,
            capabilities: Capabilities::from_bits(info.capabilities.bits() & delegated.bits()),
            algorithm: Algorithm::Ecp256YubicoAuthentication,
        };
        let point = key.public_key().to_sec1_bytes();
        let [_, point @ ..] = &*point else {
            return Err(ClientError::Unreachable("a public key without bytes").into());
        };
        let id = loop {
            let id = random_id()?;
            if id == SUCCESSOR {
                continue;
            }
            object.id = Some(id);
            match session.put_authentication_key(&object, delegated, NewKey::Public(point)) {
                Ok(id) => break id,
                // Perhaps in a domain that this session does not see.
                Err(ClientError::Device { error: DeviceError::ObjectExists, .. }) => {}
                Err(error @ ClientError::Device { error: DeviceError::InsufficientPermissions, .. }) => {
                    return Err(PrivateSessionError::Rights { key: self.key, source: Some(error) }.into());
                }
                Err(error) => {
                    if error.ends_session()
                        && let Err(error) = session.delete_surely(id, kind)
                    {
                        session.listener().tell(&Notice::TemporaryKeyLeft { id, error: &error });
                    }
                    return Err(error.into());
                }
            }
        };
        let credential = Credential::PrivateKey { key, device: self.device };
        Ok(Temporary { id, credential, info })
    }

    /// Deletes the temporary key, whose private half exists only here.
    fn remove(&self, client: &mut Client, id: ObjectId) {
        let removed = Session::open_with(client, self.key, &self.credential).and_then(|mut session| {
            found(session.delete_object(id, ObjectType::AuthenticationKey))?;
            session.close()
        });
        if let Err(error) = removed {
            client.listener().tell(&Notice::TemporaryKeyLeft { id, error: &error });
        }
    }

    /// Warns the listener about the remaining risk when keys are sent to a device whose public key was not
    /// known beforehand; before they are sent.
    pub fn warn_if_not_identified(&self, listener: &Listener) {
        if !self.known {
            listener.tell(&Notice::NotIdentified);
        }
    }
}

fn half_changed(key: ObjectId) -> impl Fn(ClientError) -> PrivateSessionError {
    move |source| PrivateSessionError::HalfChanged { key, source: Box::new(source) }
}

/// Continues an earlier [`Opening::change`] of authentication key `key` that was interrupted between the
/// deletion of the key and its return, over whatever transport the device is now accessed: the session is
/// under the new password.
///
/// # Errors
/// [`ClientError::UnknownAuthenticationKey`] of `key` if no change was interrupted; like [`Opening::change`].
pub fn resume<E: From<ClientError> + From<PrivateSessionError>>(
    client: &mut Client,
    key: ObjectId,
    new: &AuthenticationKey,
    check: impl FnMut(&mut Session<'_>, Moment) -> Result<(), E>,
) -> Result<(), E> {
    match Session::open_with_key(client, SUCCESSOR, new).map(drop) {
        Ok(()) => succeed(client, key, new, None, check),
        Err(ClientError::UnknownAuthenticationKey(_)) => {
            Err(ClientError::UnknownAuthenticationKey(key).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// From the successor, which already has the new password, to the key itself; without `label` it gets the one
/// that the successor preserved.
fn succeed<E: From<ClientError> + From<PrivateSessionError>>(
    client: &mut Client,
    key: ObjectId,
    new: &AuthenticationKey,
    label: Option<Label>,
    mut check: impl FnMut(&mut Session<'_>, Moment) -> Result<(), E>,
) -> Result<(), E> {
    let mut session = Session::open_with_key(client, SUCCESSOR, new).map_err(half_changed(key))?;
    let info = delete_old(&mut session, key).map_err(half_changed(key))?;
    check(&mut session, Moment::Between)?;
    let label = label.unwrap_or_else(|| label_of_old(&info.label));
    put_new(session, key, new, &info, label).map_err(half_changed(key))?;
    Ok(finish(client, key, new).map_err(half_changed(key))?)
}

/// The successor's info; from here on it alone has the old key's rights, and the sessions that others opened
/// have ended.
fn delete_old(session: &mut Session<'_>, key: ObjectId) -> Result<ObjectInfo, ClientError> {
    let info = session.object_info(SUCCESSOR, ObjectType::AuthenticationKey)?;
    found(session.delete_object(key, ObjectType::AuthenticationKey))?;
    remove_left_behind(session)?;
    Ok(info)
}

fn put_new(
    mut session: Session<'_>,
    key: ObjectId,
    new: &AuthenticationKey,
    info: &ObjectInfo,
    label: Label,
) -> Result<(), ClientError> {
    session.put_authentication_key(&as_it_is(info, key, label), info.delegated_capabilities, new)?;
    session.close()
}

/// The key has its new password: what led there goes.
fn finish(client: &mut Client, key: ObjectId, new: &AuthenticationKey) -> Result<(), ClientError> {
    let mut session = Session::open_with_key(client, key, new)?;
    remove_left_behind(&mut session)?;
    session.close()
}

impl Temporary {
    fn open<'c, E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        client: &'c mut Client,
    ) -> Result<Session<'c>, E> {
        Session::open_with(client, self.id, &self.credential).map_err(|error| match error {
            ClientError::WrongPrivateKey(_) => PrivateSessionError::OtherDevice.into(),
            error => error.into(),
        })
    }
}

/// The same authentication key by another name, with a password.
fn as_it_is(info: &ObjectInfo, id: ObjectId, label: Label) -> NewObject {
    NewObject {
        id: Some(id),
        label,
        domains: info.domains,
        capabilities: info.capabilities,
        algorithm: Algorithm::Aes128YubicoAuthentication,
    }
}

fn successor_label(own: &Label) -> Label {
    padded(SUCCESSOR_LABEL.iter().chain(own.as_bytes()))
}

fn label_of_old(successor: &Label) -> Label {
    padded(successor.as_bytes().iter().skip(SUCCESSOR_LABEL.len()))
}

/// The first bytes, as many as a label has.
fn padded<'b>(from: impl Iterator<Item = &'b u8>) -> Label {
    let mut bytes = [0; Label::LENGTH];
    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    Label::from_bytes(bytes)
}

/// Whether an object is one that is on a device for a moment only.
#[must_use]
pub fn is_temporary(info: &ObjectInfo) -> bool {
    info.object_type == ObjectType::AuthenticationKey
        && (info.label.trimmed() == LABEL.as_bytes()
            || (info.id == SUCCESSOR && info.label.as_bytes().starts_with(SUCCESSOR_LABEL)))
}

/// Deletes the temporary keys left by earlier runs that were interrupted, except the session's own; reports
/// those that it may not delete.
///
/// # Errors
/// The device's, except for a refusal to delete one.
pub fn remove_left_behind(session: &mut Session<'_>) -> Result<(), ClientError> {
    let filter = ListFilter { object_type: Some(ObjectType::AuthenticationKey), ..ListFilter::default() };
    for entry in session.list_objects(&filter)? {
        if entry.id == session.authentication_key() {
            continue;
        }
        let Some(info) = found(session.object_info(entry.id, entry.object_type))? else { continue };
        if !is_temporary(&info) {
            continue;
        }
        match found(session.delete_object(entry.id, entry.object_type)) {
            Ok(_) => {}
            Err(error @ ClientError::Device { error: DeviceError::InsufficientPermissions, .. }) => {
                session.listener().tell(&Notice::KeyLeftBehind { id: entry.id, error: &error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
