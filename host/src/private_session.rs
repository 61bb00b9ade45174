//! Secrets for a device whose password everyone knows, over a road where others may listen.
//!
//! The keys of a session that a password opens follow from the password and from what was sent in plain: a recording and
//! the factory's password are enough to read it. The keys of a session under a P-256 key come from an ephemeral agreement,
//! and no recording opens it. So the device is given a P-256 key that is made for this, what is secret is sent in a session
//! under that key only, and the key is deleted. A program in between that does not only listen, but puts keys of its own in
//! the place of those that pass, is kept out by the device's own public key, where that is known beforehand.

use sshsm_protocol::{
    Algorithm, Capabilities, DeviceError, Label, ObjectId, ObjectType,
    channel::{AuthenticationKey, Point},
    object::{ListFilter, NewObject, ObjectInfo},
};

use crate::{
    authority::found,
    client::{self, Client, ClientError, Credential, NewKey, Session},
    output,
};

/// The label of what is on a device only while this is done.
const LABEL: &str = "sshsm temporary key";
/// The id of the key that has the new password until the real one has it. It is fixed, so that a run that was cut short in
/// between finds it.
const SUCCESSOR: ObjectId = match ObjectId::new(0xfffe) {
    Ok(id) => id,
    Err(_) => ObjectId::DEFAULT_AUTHENTICATION_KEY,
};
const _: () = assert!(SUCCESSOR.get() == 0xfffe);

/// Why no secret was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateSessionError {
    /// The factory's password on a network, and nothing says which device answers.
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
    /// The authentication key has the factory's password and may not put another key.
    #[error(
        "authentication key {key} has the factory's password, and a session that others cannot read needs a temporary key, \
         which it may not put"
    )]
    Rights {
        /// The key.
        key: ObjectId,
        /// What the device said, if it was asked.
        source: Option<ClientError>,
    },
    /// Another device answers than the one that was named, or a relay changed a key on its way.
    #[error(
        "the device that answers does not have the public key that it should: it is another device, or a relay is in \
         between; no new key was sent"
    )]
    OtherDevice,
}

/// How new secrets reach a device that has a password which everyone knows.
#[derive(Debug)]
pub enum Way {
    /// In a session under that password: no one is in between, or the user accepts that those who are can read it.
    Open,
    /// In a session under a temporary P-256 key.
    Private {
        /// The device's public key.
        device: Point,
        /// Whether it was known beforehand; otherwise it is the word of what answered.
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
}

/// A key on the device that is there for a moment only.
struct Temporary {
    id: ObjectId,
    credential: Credential,
    /// What the key is that it stands in for.
    info: ObjectInfo,
}

impl Opening {
    /// Does `work` in a session that no recording opens.
    ///
    /// # Errors
    /// [`PrivateSessionError`], and then `work` was not begun; what `work` says.
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
                // The key's own session can, also where no answers come any more.
                (result, session.delete_surely(temporary.id, ObjectType::AuthenticationKey).is_ok())
            }
            Err(error) => (Err(error), false),
        };
        if !removed {
            self.remove(client, temporary.id);
        }
        result
    }

    /// Gives the authentication key the password that makes `new`, and keeps what else it is. Whatever happens on the way, a
    /// session can be opened with the old password or the new one, and the same call goes on from there.
    ///
    /// `check` looks at the device in the session that everyone can open, and again in the private one, where there is a
    /// temporary key with the id that it is given.
    ///
    /// # Errors
    /// [`PrivateSessionError`], and what `check` says: then nothing was changed. What the device says.
    pub fn change<E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        client: &mut Client,
        new: &AuthenticationKey,
        mut check: impl FnMut(&mut Session<'_>, Option<ObjectId>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Tried first and opened after: a session that is returned from an arm would borrow the client in the others, too.
        match Session::open_with(client, self.key, &self.credential).map(drop) {
            Ok(()) => {}
            // Perhaps an earlier run was cut short where the old key was gone and the new one not there yet.
            Err(absent @ ClientError::UnknownAuthenticationKey(_)) => {
                return match self.succeed(client, new, Label::default()) {
                    Err(ClientError::UnknownAuthenticationKey(SUCCESSOR)) => Err(absent.into()),
                    done => Ok(done?),
                };
            }
            Err(error) => return Err(error.into()),
        }
        let mut session = Session::open_with(client, self.key, &self.credential)?;
        remove_left_behind(&mut session)?;
        check(&mut session, None)?;
        let temporary = self.put_temporary::<E>(&mut session)?;
        drop(session);
        if let Err(error) = self.put_successor(client, &temporary, new, &mut check) {
            self.remove(client, temporary.id);
            return Err(error);
        }
        Ok(self.succeed(client, new, temporary.info.label)?)
    }

    fn put_successor<E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        client: &mut Client,
        temporary: &Temporary,
        new: &AuthenticationKey,
        check: &mut impl FnMut(&mut Session<'_>, Option<ObjectId>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Temporary { id, info, .. } = temporary;
        if !info.capabilities.is_subset_of(info.delegated_capabilities) {
            return Err(PrivateSessionError::Rights { key: self.key, source: None }.into());
        }
        let mut session = temporary.open::<E>(client)?;
        check(&mut session, Some(*id))?;
        let successor = as_it_is(info, SUCCESSOR, Label::new(LABEL).unwrap_or_default());
        session.put_authentication_key(&successor, info.delegated_capabilities, new)?;
        Ok(session.close()?)
    }

    /// From the successor, which has the new password already, to the key itself.
    fn succeed(&self, client: &mut Client, new: &AuthenticationKey, label: Label) -> Result<(), ClientError> {
        let kind = ObjectType::AuthenticationKey;
        let mut session = Session::open_with_key(client, SUCCESSOR, new)?;
        let info = session.object_info(SUCCESSOR, kind)?;
        // The sessions that others have opened with it end with it.
        found(session.delete_object(self.key, kind))?;
        session.put_authentication_key(
            &as_it_is(&info, self.key, label),
            info.delegated_capabilities,
            new,
        )?;
        session.close()?;
        let mut session = Session::open_with_key(client, self.key, new)?;
        remove_left_behind(&mut session)?;
        session.close()
    }

    /// Puts a P-256 key on the device, with all that the session's own key may pass on.
    fn put_temporary<E: From<ClientError> + From<PrivateSessionError>>(
        &self,
        session: &mut Session<'_>,
    ) -> Result<Temporary, E> {
        remove_left_behind(session)?;
        let info = session.object_info(self.key, ObjectType::AuthenticationKey)?;
        let key = client::ephemeral_key()?;
        let delegated = info.delegated_capabilities;
        let object = NewObject {
            id: None,
            label: Label::new(LABEL).unwrap_or_default(),
            domains: info.domains,
            capabilities: Capabilities::from_bits(info.capabilities.bits() & delegated.bits()),
            algorithm: Algorithm::Ecp256YubicoAuthentication,
        };
        let point = key.public_key().to_sec1_bytes();
        let public = NewKey::Public(point.get(1..).unwrap_or_default());
        let put = session.put_authentication_key(&object, delegated, public);
        let id = put.map_err(|error| match error {
            ClientError::Device { error: DeviceError::InsufficientPermissions, .. } => {
                E::from(PrivateSessionError::Rights { key: self.key, source: Some(error) })
            }
            error => error.into(),
        })?;
        let credential = Credential::PrivateKey { key, device: self.device };
        Ok(Temporary { id, credential, info })
    }

    /// Takes the temporary key away, whose private half is nowhere but here.
    fn remove(&self, client: &mut Client, id: ObjectId) {
        let removed = Session::open_with(client, self.key, &self.credential).and_then(|mut session| {
            found(session.delete_object(id, ObjectType::AuthenticationKey))?;
            session.close()
        });
        if let Err(error) = removed {
            output::talk(format_args!(
                "WARNING: the temporary authentication key {id} is still on the device ({error}); no one has its private half, \
                 and the next run takes it away"
            ));
        }
    }
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

/// Whether an object is one that is on a device for a moment only.
#[must_use]
pub fn is_temporary(info: &ObjectInfo) -> bool {
    info.object_type == ObjectType::AuthenticationKey && info.label.trimmed() == LABEL.as_bytes()
}

/// Takes away the temporary keys that earlier runs left when they were ended.
///
/// # Errors
/// What the device says.
pub fn remove_left_behind(session: &mut Session<'_>) -> Result<(), ClientError> {
    let filter = ListFilter { object_type: Some(ObjectType::AuthenticationKey), ..ListFilter::default() };
    for entry in session.list_objects(&filter)? {
        let Some(info) = found(session.object_info(entry.id, entry.object_type))? else { continue };
        if is_temporary(&info) {
            found(session.delete_object(entry.id, entry.object_type))?;
        }
    }
    Ok(())
}
