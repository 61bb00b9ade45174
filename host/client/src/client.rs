//! A connection to a device, outside any session.

use sshsm_protocol::{Algorithm, Command, channel::Point, message::reply};

use crate::{
    error::{Result, nonsense},
    exchange::Exchange,
    identity::Identity,
    notice::Listener,
    plain::{plain, read},
};

/// A connection to a device, outside any session.
pub struct Client {
    pub(crate) exchange: Box<dyn Exchange>,
    pub(crate) identity: Identity,
    pub(crate) listener: Listener,
}

impl Client {
    /// Asks the device at the end of `exchange` to identify itself, which also determines how long its
    /// messages may be. `listener` receives what the caller should know and that is not an error.
    ///
    /// # Errors
    /// When the device does not answer as one.
    pub fn connect(mut exchange: Box<dyn Exchange>, listener: Listener) -> Result<Self> {
        let identity = Identity::ask(exchange.as_mut())?;
        Ok(Self { exchange, identity, listener })
    }

    /// The identity that the device reported when the connection was made.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The device's address, in the form of `--device`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.exchange.describe()
    }

    /// The device's own public key, as reported: a relay could report another.
    ///
    /// # Errors
    /// When it reports none.
    pub fn device_public_key(&mut self) -> Result<Point> {
        let command = Command::GetDevicePublicKey;
        let answer = plain(self.exchange.as_mut(), command, &[])?;
        let reply::PublicKey { algorithm, key } = read(command, &answer)?;
        if algorithm != Algorithm::Ecp256YubicoAuthentication.code() {
            return Err(nonsense(command, format!("its algorithm is {algorithm}")));
        }
        let point = [&[4], key].concat().try_into();
        point.map_err(|_| nonsense(command, format!("its key has {} bytes", key.len())))
    }

    /// The largest payload, in bytes, of a command inside a session.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.identity.max_payload()
    }

    /// The receiver of [`Notice`](crate::Notice)s.
    #[must_use]
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }
}
