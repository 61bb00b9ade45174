//! Setting up a device as a certificate authority: its own password, a CA key, a template. Each is created if
//! it is missing; nothing here ever replaces or deletes a key.

use serde::Serialize;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capabilities, Capability, Domains, Label, ObjectId, ObjectType,
    channel::AuthenticationKey, object::NewObject,
};
use zeroize::Zeroizing;

use sshsm_client::{Client, ClientError, Session, found};

/// The password that everyone knows of a factory-fresh device.
pub const FACTORY_PASSWORD: &str = "password";

/// The only capabilities of a CA key.
pub const CA_CAPABILITIES: Capabilities = Capabilities::of(&[Capability::SignSshCertificate]);

/// Whether something was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was not.
    Made,
    /// It was.
    Kept,
    /// Kept, although it differs from the request.
    Differs,
}

/// An object of the authority, in all domains.
#[must_use]
pub const fn object(
    id: ObjectId,
    label: Label,
    algorithm: Algorithm,
    capabilities: Capabilities,
) -> NewObject {
    NewObject { id: Some(id), label, domains: Domains::ALL, capabilities, algorithm }
}

/// Opens a session with authentication key 1: with `password` if that is its password, otherwise with the
/// factory password, which is then replaced by the one that `new` returns.
///
/// # Errors
/// [`ClientError::WrongPassword`] when it is neither; the error of `new`, and then nothing was changed.
pub fn administer<'c, E: From<ClientError>>(
    client: &'c mut Client,
    password: Option<&str>,
    new: impl FnOnce(&mut Session<'c>) -> Result<Zeroizing<String>, E>,
) -> Result<(Session<'c>, Outcome), E> {
    let key = ObjectId::DEFAULT_AUTHENTICATION_KEY;
    if let Some(password) = password {
        // Tried first and opened later: a session returned from here would borrow the client below as well.
        match Session::open(client, key, password).map(drop) {
            Ok(()) => return Ok((Session::open(client, key, password)?, Outcome::Kept)),
            Err(ClientError::WrongPassword(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut session = Session::open(client, key, FACTORY_PASSWORD)?;
    let password = new(&mut session)?;
    session.change_authentication_key(key, &AuthenticationKey::from_password(password.as_bytes()))?;
    Ok((session, Outcome::Made))
}

/// Has the device make the CA key, unless it has one of that id.
///
/// # Errors
/// When the device refuses.
pub fn ensure_ca_key(
    session: &mut Session<'_>,
    id: ObjectId,
    label: Label,
    algorithm: AsymmetricAlgorithm,
    capabilities: Capabilities,
) -> Result<Outcome, ClientError> {
    if found(session.object_info(id, ObjectType::AsymmetricKey))?.is_some() {
        return Ok(Outcome::Kept);
    }
    session.generate_asymmetric_key(&object(id, label, algorithm.algorithm(), capabilities))?;
    Ok(Outcome::Made)
}

/// Puts the template on the device, unless it has one of that id.
///
/// # Errors
/// When the device refuses.
pub fn ensure_template(
    session: &mut Session<'_>,
    id: ObjectId,
    label: Label,
    capabilities: Capabilities,
    template: &[u8],
) -> Result<Outcome, ClientError> {
    match found(session.template(id))? {
        Some(there) if there == template => Ok(Outcome::Kept),
        Some(_) => Ok(Outcome::Differs),
        None => {
            session.put_template(&object(id, label, Algorithm::TemplateSsh, capabilities), template)?;
            Ok(Outcome::Made)
        }
    }
}
