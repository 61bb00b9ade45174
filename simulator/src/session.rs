//! The device in this process, for clients: an exchange of frames, and sessions over it.

use sshsm_client::{ClientError, Credential, Exchange, ExchangeError, Session};
use sshsm_protocol::{ObjectId, channel::AuthenticationKey, ssh::Printable};

use crate::simulator::Simulator;

impl Exchange for Simulator {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        Self::transact(self, frame).map_err(|source| {
            let directory = self.directory().map(|directory| directory.as_os_str().as_encoded_bytes());
            let device = match directory {
                Some(directory) => format!("simulator {}", Printable(directory)),
                None => "simulator in memory".to_owned(),
            };
            ExchangeError::InProcess { device, source: source.into() }
        })
    }

    /// `sim:` and its state directory, if it has one.
    fn describe(&self) -> String {
        match self.directory() {
            Some(directory) => format!("sim:{}", directory.display()),
            None => "sim:".to_owned(),
        }
    }
}

impl Simulator {
    /// Opens a session under an authentication key and its password. A new device has key 1 and `password`.
    ///
    /// ```
    /// use sshsm_protocol::{Command, ObjectId};
    /// use sshsm_simulator::Simulator;
    ///
    /// let mut device = Simulator::memory().start()?;
    /// let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
    /// let random = session.pseudo_random(32)?;
    /// assert_eq!(random.len(), 32);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClientError::UnknownAuthenticationKey`] if there is no such key, [`ClientError::WrongPassword`] if
    /// it has a different password, and [`ClientError::Device`] with `SessionsFull` if all 16 sessions are
    /// open.
    pub fn session(&mut self, id: ObjectId, password: &str) -> Result<Session<'_>, ClientError> {
        self.session_with(id, &AuthenticationKey::from_password(password.as_bytes()))
    }

    /// Like [`Simulator::session`], with the keys derived from a password.
    ///
    /// # Errors
    ///
    /// Like [`Simulator::session`].
    pub fn session_with(
        &mut self,
        id: ObjectId,
        key: &AuthenticationKey,
    ) -> Result<Session<'_>, ClientError> {
        Session::over(self, id, &Credential::Key(key.clone()))
    }
}
