//! A CA key on a token, under a template in a file: the host enforces it.
//!
//! Anyone with the token and its PIN can sign anything with it, using another program. The guarantee here is
//! that this program signs nothing that a device with the same template would refuse: the policy is the
//! device's own, run on the same bytes, and what is not explicitly allowed is not signed.

use ssh_key::public::KeyData;
use sshsm_firmware::ssh::policy::{OnDevice, Refusal};
use sshsm_protocol::{
    AsymmetricAlgorithm, ObjectId,
    ssh::{signature::SignatureAlgorithm, template::Template, timestamp::MESSAGE_LENGTH},
};

use super::{Pkcs11Error, TokenKey};
use crate::{
    explanation::{Authority, Explanation, Question},
    ledger::Recorded,
    request::BuildError,
    signer::{EnforcedBy, Signer, SignerError, TimedRequest},
    timestamp::{TimestampError, TimestampKey},
};

/// A CA key on a token, and the template that it signs under.
pub struct TokenSigner {
    key: TokenKey,
    id: ObjectId,
    template: Vec<u8>,
    template_name: String,
    algorithm: SignatureAlgorithm,
}

impl TokenSigner {
    /// Uses `key` as the CA key that templates list as `id`, under the template `template`, TLV, named
    /// `template_name`. RSA keys sign with `rsa-sha2-512` unless `algorithm` says otherwise.
    ///
    /// # Errors
    /// When key or token cannot sign with `algorithm`.
    pub fn new(
        key: TokenKey,
        id: ObjectId,
        template: Vec<u8>,
        template_name: String,
        algorithm: Option<SignatureAlgorithm>,
    ) -> Result<Self, SignerError> {
        let source = || crate::device_key::DeviceKeyError::NoSshForm { algorithm: key.kind() };
        let algorithm = algorithm
            .or_else(|| SignatureAlgorithm::of_key(key.kind()))
            .ok_or_else(|| Pkcs11Error::PublicKey { key: key.uri().to_string(), source: source() })?;
        key.check(algorithm)?;
        Ok(Self { key, id, template, template_name, algorithm })
    }

    fn authority<'k>(&self, public: &'k KeyData) -> Authority<'k> {
        Authority { id: self.id, public: Some(public), algorithm: Some(self.algorithm) }
    }

    fn judge(&self, timed: &TimedRequest) -> Explanation {
        let (request, signature) = (timed.request().as_bytes(), timed.timestamp_signature());
        let template = Template::decode(&self.template);
        let mut explanation = Explanation::new(
            &template,
            request,
            timed.now(),
            Some(signature),
            self.authority(self.key.public()),
            OnDevice::default(),
        );
        explanation.name_timestamp_keys(template.as_ref().ok(), timed.authority());
        explanation
    }
}

impl Signer for TokenSigner {
    fn enforced_by(&self) -> EnforcedBy {
        EnforcedBy::Host
    }

    fn describe(&self) -> String {
        self.key.uri().to_string()
    }

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn template(&self) -> String {
        self.template_name.clone()
    }

    fn ca_key(&self) -> &KeyData {
        self.key.public()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign(&mut self, timed: &TimedRequest, _: Recorded) -> Result<Vec<u8>, SignerError> {
        let template = Template::decode(&self.template);
        let question = Question {
            template: &template,
            request: timed.request().as_bytes(),
            now: timed.now(),
            timestamp_signature: Some(timed.timestamp_signature()),
            device: OnDevice::default(),
        };
        // What needs a memory or a touch is undecided without a device, so that no permit asks for them.
        // Signing takes the key, so its public half is compared as a copy.
        let public = self.key.public().clone();
        let signed = question.judged(self.authority(&public), |verdict| match verdict.permit() {
            Ok(permit) => {
                let signature = self.key.sign(permit.algorithm(), permit.request())?;
                let mut field = Vec::new();
                permit.algorithm().encode_field(&signature, &mut field).map_err(BuildError::Encoding)?;
                Ok(field)
            }
            Err(Refusal::Unreadable | Refusal::NotAllowed | Refusal::Sealed) => Err(SignerError::Refused),
        });
        signed.unwrap_or(Err(SignerError::Refused))
    }

    fn explain(&mut self, timed: &TimedRequest) -> Result<Explanation, SignerError> {
        Ok(self.judge(timed))
    }
}

/// A timestamp key on a token, with this system's clock.
pub struct TokenTimestamps {
    key: TokenKey,
    algorithm: SignatureAlgorithm,
}

impl TokenTimestamps {
    /// Uses a key.
    ///
    /// # Errors
    /// When the token cannot make signatures with it as timestamps require.
    pub fn new(key: TokenKey) -> Result<Self, Pkcs11Error> {
        // As timestamps are signed, RSA with SHA-256, ECDSA with the curve's hash.
        let algorithm = match key.kind() {
            AsymmetricAlgorithm::Rsa2048 | AsymmetricAlgorithm::Rsa3072 | AsymmetricAlgorithm::Rsa4096 => {
                Some(SignatureAlgorithm::RsaSha256)
            }
            kind => SignatureAlgorithm::of_key(kind),
        };
        let source = || crate::device_key::DeviceKeyError::NoSshForm { algorithm: key.kind() };
        let algorithm = algorithm
            .ok_or_else(|| Pkcs11Error::PublicKey { key: key.uri().to_string(), source: source() })?;
        key.check(algorithm)?;
        Ok(Self { key, algorithm })
    }
}

impl TimestampKey for TokenTimestamps {
    fn place(&self) -> String {
        self.key.uri().to_string()
    }

    fn public_key(&self) -> &KeyData {
        self.key.public()
    }

    fn sign_message(&mut self, message: &[u8; MESSAGE_LENGTH]) -> Result<Vec<u8>, TimestampError> {
        Ok(self.key.sign(self.algorithm, message)?)
    }
}
