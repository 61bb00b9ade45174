//! Why a request is refused, or would be: the device's own policy, run here, and kept for printing.

use serde::Serialize;
use ssh_encoding::Encode;
use ssh_key::public::KeyData;
use sshsm_firmware::{
    crypto::RustCrypto,
    ssh::{
        policy::{self, CaKey, Outcome},
        timestamp::Timestamp,
    },
};
use sshsm_protocol::{
    ObjectId,
    ssh::{
        public_key::{KeyKind, PublicKey},
        request::Request,
        signature::SignatureAlgorithm,
        template::Template,
        timestamp::Now,
    },
};

/// The verdict on one request, every check of it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// `refused` when one check refuses; `undecided` when none does and one could not be made; else `allowed`.
    pub outcome: &'static str,
    /// UNIX seconds that the template's window was measured from.
    pub now: u32,
    /// The checks, in the policy's order.
    pub checks: Vec<Finding>,
    #[serde(skip)]
    table: String,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The policy's name of the rule.
    pub check: &'static str,
    /// `allowed`, `refused` or `undecided`.
    pub outcome: &'static str,
    /// What was asked.
    pub asked: String,
    /// What is allowed.
    pub allowed: String,
}

/// The CA key that is to sign.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'a> {
    /// Its id on the device.
    pub id: ObjectId,
    /// Its public key; without one, the key that the request names is taken for it.
    pub public: Option<&'a KeyData>,
    /// What it signs with; without it, what OpenSSH signs certificates with.
    pub algorithm: Option<SignatureAlgorithm>,
}

impl Explanation {
    /// Judges `request`, the bytes to be signed, under `template`, TLV. Without a timestamp signature the time is taken
    /// as it is, and the timestamp stays undecided.
    #[must_use]
    pub fn new(
        template: &[u8],
        request: &[u8],
        now: Now,
        timestamp_signature: Option<&[u8]>,
        authority: Authority<'_>,
    ) -> Self {
        let template = Template::decode(template);
        let decoded = Request::decode(request);
        let timestamp = match (&template, timestamp_signature) {
            (Ok(template), Some(signature)) => {
                Timestamp::verify::<RustCrypto>(&template.timestamp_key, request, now, signature)
            }
            _ => Timestamp::unsigned(now),
        };
        let given = authority.public.and_then(|key| key.encode_vec().ok()).unwrap_or_default();
        let public = PublicKey::decode(&given)
            .ok()
            .or_else(|| decoded.as_ref().ok().map(|request| request.signature_key))
            // A request that cannot be read is judged no further, so that no key is compared.
            .unwrap_or(PublicKey::Ed25519(&[0; 32]));
        let usual = match public.kind() {
            KeyKind::Rsa => SignatureAlgorithm::RsaSha512,
            KeyKind::Ecdsa(curve) => SignatureAlgorithm::Ecdsa(curve),
            KeyKind::Ed25519 => SignatureAlgorithm::Ed25519,
        };
        let ca_key = CaKey { id: authority.id, public, algorithm: authority.algorithm.unwrap_or(usual) };
        let verdict = policy::evaluate(&template, &decoded, &timestamp, &ca_key, None);
        let outcome = match verdict.refusals().next() {
            Some(_) => Outcome::Refused,
            None if verdict.is_allowed() => Outcome::Allowed,
            None => Outcome::Undecided,
        };
        let finding = |finding: &policy::Finding<'_>| Finding {
            check: finding.check.name(),
            outcome: finding.outcome.name(),
            asked: finding.asked.to_string(),
            allowed: finding.allowed.to_string(),
        };
        Self {
            outcome: outcome.name(),
            now: now.seconds(),
            checks: verdict.findings().iter().map(finding).collect(),
            table: verdict.to_string(),
        }
    }

    /// Whether a check refuses.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.outcome == Outcome::Refused.name()
    }
}

/// A table with a line for each check.
impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.table)
    }
}
