//! What can be selected: the tokens of a module and their keys, as far as they are visible without a PIN.

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use serde::Serialize;
use ssh_key::{HashAlg, PublicKey};

use super::{
    error::Pkcs11Error,
    key::{NUMBERS, public_key as of_private},
    module::Module,
    public_key,
    token::Token,
    uri::{self, Uri},
};
use crate::device_key;

/// A token.
#[derive(Debug, Clone, Serialize)]
pub struct ListedToken {
    /// What `--device` names it by.
    pub device: String,
    /// Its label.
    pub token: String,
    /// The manufacturer.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its keys.
    pub keys: Vec<ListedKey>,
    /// Why its keys are not listed.
    pub error: Option<String>,
}

/// A key pair on a token.
#[derive(Debug, Clone, Serialize)]
pub struct ListedKey {
    /// What `--device` names it by.
    pub device: String,
    /// Its label.
    pub label: String,
    /// Its id, hexadecimal.
    pub id: String,
    /// Its kind; `None` when it can sign no certificate.
    pub algorithm: Option<String>,
    /// Its public key, as a line of OpenSSH's.
    pub public_key: Option<String>,
    /// Its SHA-256 fingerprint.
    pub fingerprint: Option<String>,
    /// Why it can sign no certificate.
    pub error: Option<String>,
}

/// The tokens of `module` that match `uri`, each with the keys that are visible without a PIN.
///
/// # Errors
/// When the module does not list its tokens.
pub fn list(module: &Module, uri: &Uri) -> Result<Vec<ListedToken>, Pkcs11Error> {
    let listed = |present: super::module::Present| {
        let info = &present.info;
        let mut listed = ListedToken {
            device: present.uri().to_string(),
            token: info.label().into(),
            manufacturer: info.manufacturer_id().into(),
            model: info.model().into(),
            serial: info.serial_number().into(),
            keys: Vec::new(),
            error: None,
        };
        let within = present.uri();
        match Token::with(module.clone(), present).and_then(|token| keys(&token, &within)) {
            Ok(keys) => listed.keys = keys,
            Err(error) => listed.error = Some(error.to_string()),
        }
        listed
    };
    Ok(module.tokens(uri)?.into_iter().map(listed).collect())
}

/// Public key objects, and the private keys that are seen without one.
fn keys(token: &Token, within: &Uri) -> Result<Vec<ListedKey>, Pkcs11Error> {
    let mut keys: Vec<ListedKey> = Vec::new();
    for class in [ObjectClass::PUBLIC_KEY, ObjectClass::PRIVATE_KEY] {
        for handle in token.objects(&[Attribute::Class(class)])? {
            let (mut own, mut id) = (Uri::default(), String::new());
            for attribute in token.attributes(handle, &[AttributeType::Id, AttributeType::Label])? {
                match attribute {
                    Attribute::Id(bytes) => {
                        own = own.with(uri::Attribute::Id, &bytes);
                        id = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    }
                    Attribute::Label(label) => own = own.with(uri::Attribute::Object, &label),
                    _ => {}
                }
            }
            let public = match class {
                ObjectClass::PUBLIC_KEY => {
                    match public_key::from_attributes(&token.attributes(handle, &NUMBERS)?) {
                        Some(public) => public.map_err(|error| error.to_string()),
                        None => Err("it has neither an RSA modulus nor a point on a curve".into()),
                    }
                }
                _ => of_private(token, handle, &own).map_err(|error| error.to_string()),
            };
            let label = own.bytes(uri::Attribute::Object).map(String::from_utf8_lossy).unwrap_or_default();
            let label = label.into_owned();
            let key = match public {
                Ok(public) => ListedKey {
                    device: String::new(),
                    algorithm: device_key::algorithm(&public).ok().map(|algorithm| algorithm.to_string()),
                    fingerprint: Some(public.fingerprint(HashAlg::Sha256).to_string()),
                    public_key: PublicKey::new(public, label.clone()).to_openssh().ok(),
                    label,
                    id,
                    error: None,
                },
                Err(error) => ListedKey {
                    device: String::new(),
                    algorithm: None,
                    public_key: None,
                    fingerprint: None,
                    label,
                    id,
                    error: Some(error),
                },
            };
            let known = |other: &ListedKey| {
                other.id == key.id && (other.public_key == key.public_key || other.label == key.label)
            };
            if class == ObjectClass::PUBLIC_KEY || !keys.iter().any(known) {
                keys.push(ListedKey { device: own.within(within).to_string(), ..key });
            }
        }
    }
    Ok(keys)
}
