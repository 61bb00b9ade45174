//! Selecting a token, and logging in to it: once, with one PIN, and never automatically again.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    error::{Error, RvError},
    mechanism::MechanismType,
    object::{Attribute, AttributeType, ObjectHandle},
    session::{Session, SessionState, UserType},
    slot::TokenInfo,
    types::AuthPin,
};
use zeroize::Zeroizing;

use super::{
    error::{Pkcs11Error, Tries},
    module::{Module, Present},
    uri::Uri,
};
use crate::files;

/// What the user is told when asked for a PIN.
#[derive(Debug, Clone)]
pub struct PinRequest {
    /// The token's label, quoted.
    pub token: String,
    /// The token's report on remaining tries.
    pub tries: Tries,
}

/// The source of a PIN if the URI names no file: the environment or a prompt.
pub type AskPin<'a> = dyn FnMut(&PinRequest) -> Result<Zeroizing<String>, io::Error> + 'a;

/// The slots, by module and id, whose token has refused a PIN: it is not tried again for as long as this
/// process lives. The lock is held while a PIN is tried, so that sessions opened in parallel share a single
/// try.
static REFUSED: Mutex<Vec<(PathBuf, u64)>> = Mutex::new(Vec::new());

/// An open session with a token.
pub(super) struct Token {
    pub(super) session: Session,
    pub(super) present: Present,
    module: Module,
    /// Kept for keys that require it for each signature.
    pin: Option<Zeroizing<String>>,
}

impl Token {
    /// Opens a session, without a PIN, with the one token of `module` that `uri` means.
    pub(super) fn open(module: Module, uri: &Uri) -> Result<Self, Pkcs11Error> {
        let mut tokens = module.tokens(uri)?;
        let names = |tokens: &[Present]| tokens.iter().map(|token| token.uri().to_string()).collect();
        let asked = uri.identity().to_string();
        match (tokens.pop(), tokens.is_empty()) {
            (Some(token), true) => Self::with(module, token),
            (Some(token), false) => {
                tokens.push(token);
                Err(Pkcs11Error::ManyTokens { uri: asked, found: names(&tokens) })
            }
            (None, _) => {
                let there = names(&module.tokens(&Uri::default())?);
                Err(Pkcs11Error::NoToken { uri: asked, there })
            }
        }
    }

    /// Opens a session, without a PIN, with a token that is there.
    pub(super) fn with(module: Module, present: Present) -> Result<Self, Pkcs11Error> {
        let session =
            module.library.open_ro_session(present.slot).map_err(Pkcs11Error::token(&present.name()))?;
        Ok(Self { session, present, module, pin: None })
    }

    /// Its label, quoted.
    pub(super) fn name(&self) -> String {
        self.present.name()
    }

    pub(super) fn objects(&self, wanted: &[Attribute]) -> Result<Vec<ObjectHandle>, Pkcs11Error> {
        self.session.find_objects(wanted).map_err(Pkcs11Error::token(&self.name()))
    }

    pub(super) fn attributes(
        &self,
        object: ObjectHandle,
        wanted: &[AttributeType],
    ) -> Result<Vec<Attribute>, Pkcs11Error> {
        self.session.get_attributes(object, wanted).map_err(Pkcs11Error::token(&self.name()))
    }

    pub(super) fn mechanisms(&self) -> Result<Vec<MechanismType>, Pkcs11Error> {
        let mechanisms = self.module.library.get_mechanism_list(self.present.slot);
        mechanisms.map_err(Pkcs11Error::token(&self.name()))
    }

    /// Logs in, with the PIN in the file that `uri` names, or the one that `ask` has.
    pub(super) fn log_in(&mut self, uri: &Uri, ask: &mut AskPin<'_>) -> Result<(), Pkcs11Error> {
        let token = self.name();
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.session.get_session_info().map_err(Pkcs11Error::token(&token))?.session_state();
        let info = &self.present.info;
        // Another session of this process with the same token may be in already.
        if matches!(state, SessionState::RoUser | SessionState::RwUser) || !info.login_required() {
            return Ok(());
        }
        if !info.user_pin_initialized() {
            return Err(Pkcs11Error::NoUserPin { token });
        }
        if info.user_pin_locked() {
            return Err(Pkcs11Error::Locked { token });
        }
        let slot = (self.module.path().to_owned(), self.present.slot.id());
        if refused.contains(&slot) {
            return Err(Pkcs11Error::WrongPin { token, tries: self.tries() });
        }
        self.keep_pin(uri, ask)?;
        let result = self.try_pin(UserType::User);
        if matches!(result, Err(Pkcs11Error::WrongPin { .. })) {
            refused.push(slot);
        }
        result
    }

    /// The token's current report.
    fn tries(&self) -> Tries {
        self.module.library.get_token_info(self.present.slot).map_or(Tries::Unknown, |info| tries(&info))
    }

    /// Has the PIN at hand, without trying it. A token with keys of its own to type it on needs none here.
    pub(super) fn keep_pin(&mut self, uri: &Uri, ask: &mut AskPin<'_>) -> Result<(), Pkcs11Error> {
        if self.pin.is_some() || self.present.info.protected_authentication_path() {
            return Ok(());
        }
        let (token, tries) = (self.name(), tries(&self.present.info));
        let pin = match uri.pin_file() {
            None => ask(&PinRequest { token: token.clone(), tries })
                .map_err(|source| Pkcs11Error::NoPin { token, source })?,
            Some(_) if tries == Tries::Final => return Err(Pkcs11Error::FinalTry { token }),
            Some(path) => {
                let text = files::read_secret_text(&path)
                    .map_err(|source| Pkcs11Error::PinFile { path: path.clone(), source })?;
                let pin = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
                if pin.is_empty() {
                    return Err(Pkcs11Error::EmptyPinFile { path });
                }
                pin
            }
        };
        // The token would count it as a wrong one.
        let (least, most) = (self.present.info.min_pin_length(), self.present.info.max_pin_length());
        let (length, bounded) = (pin.len(), most >= least.max(1));
        if pin.is_empty() || length < least || bounded && length > most {
            return Err(Pkcs11Error::PinLength { token: self.name(), least, most, length });
        }
        self.pin = Some(pin);
        Ok(())
    }

    /// Enters the PIN again, for the one signature that was begun.
    pub(super) fn log_in_for_signature(&self) -> Result<(), Pkcs11Error> {
        self.try_pin(UserType::ContextSpecific)
    }

    fn try_pin(&self, user: UserType) -> Result<(), Pkcs11Error> {
        let token = self.name();
        let secret = self.pin.as_deref().map(|pin| AuthPin::new(pin.as_str().into()));
        let info = &self.present.info;
        match self.session.login(user, secret.as_ref()) {
            Ok(()) => Ok(()),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid, _)) => {
                Err(Pkcs11Error::WrongPin { token, tries: self.tries() })
            }
            Err(Error::Pkcs11(RvError::PinLenRange, _)) => Err(Pkcs11Error::PinLength {
                token,
                least: info.min_pin_length(),
                most: info.max_pin_length(),
                length: self.pin.as_deref().map_or(0, String::len),
            }),
            Err(Error::Pkcs11(RvError::UserPinNotInitialized, _)) => Err(Pkcs11Error::NoUserPin { token }),
            Err(error) => Err(Pkcs11Error::token(&token)(error)),
        }
    }
}

/// A token's report on the PINs that it still accepts.
fn tries(info: &TokenInfo) -> Tries {
    if info.user_pin_locked() {
        Tries::Locked
    } else if info.user_pin_final_try() {
        Tries::Final
    } else if info.user_pin_count_low() {
        Tries::Low
    } else {
        Tries::Unknown
    }
}
