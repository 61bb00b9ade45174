//! Why a request is refused, or would be: the device's own policy, run here, and kept for printing.

use std::fmt;

use serde::Serialize;
use ssh_encoding::Encode;
use ssh_key::{HashAlg, public::KeyData};
use sshsm_firmware::{
    crypto::RustCrypto,
    ssh::policy::{self, BaseCheck, CaKey, Case, Check, OnDevice, Outcome, Verdict},
};
use sshsm_protocol::{
    ObjectId,
    ssh::{
        Printable,
        explanation::{self, ExplanationError},
        public_key::{KeyKind, PublicKey},
        request::Request,
        signature::SignatureAlgorithm,
        template::{Template, TemplateError},
        timestamp::Now,
    },
};

use crate::device_key;

/// The verdict on one request, every check of it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// `refused` when one check refuses; `undecided` when none does and one could not be made; else `allowed`.
    pub outcome: &'static str,
    /// UNIX seconds that the template's window was measured from.
    pub now: u32,
    /// The checks, in the policy's order, without rules that the template does not have.
    pub checks: Vec<Finding>,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The policy's name of the rule.
    pub check: String,
    /// `allowed`, `refused` or `undecided`.
    pub outcome: String,
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
    /// Its public key; without one, the key that the request names is used.
    pub public: Option<&'a KeyData>,
    /// The algorithm that it signs with; without it, OpenSSH's default for certificates.
    pub algorithm: Option<SignatureAlgorithm>,
}

/// What is judged on this computer.
pub(crate) struct Question<'a> {
    pub(crate) template: &'a Result<Template<'a>, TemplateError>,
    pub(crate) request: &'a [u8],
    pub(crate) now: Now,
    pub(crate) timestamp_signature: Option<&'a [u8]>,
    pub(crate) device: OnDevice<'a>,
}

/// A CA key of a kind that no device holds.
pub(crate) struct ForeignKey {
    kind: String,
}

impl Question<'_> {
    /// Has the device's policy judge, and passes on what `then` makes of the verdict.
    pub(crate) fn judged<R>(
        &self,
        authority: Authority<'_>,
        then: impl FnOnce(Verdict<'_>) -> R,
    ) -> Result<R, ForeignKey> {
        let given = match authority.public {
            Some(key) => Some(key.encode_vec().map_err(|_| ForeignKey::of(key))?),
            None => None,
        };
        let public = match (authority.public, &given) {
            (Some(key), Some(bytes)) => PublicKey::decode(bytes).map_err(|_| ForeignKey::of(key))?,
            _ => match Request::decode(self.request) {
                Ok(request) => request.signature_key,
                // A request that cannot be parsed is not judged any further, so no key is compared.
                Err(_) => PublicKey::Ed25519(&[0; 32]),
            },
        };
        let usual = match public.kind() {
            KeyKind::Rsa => SignatureAlgorithm::RsaSha512,
            KeyKind::Ecdsa(curve) => SignatureAlgorithm::Ecdsa(curve),
            KeyKind::Ed25519 => SignatureAlgorithm::Ed25519,
        };
        let ca_key = CaKey { id: authority.id, public, algorithm: authority.algorithm.unwrap_or(usual) };
        let Self { template, request, now, timestamp_signature, device } = *self;
        Ok(then(policy::judge::<RustCrypto>(&Case {
            template,
            request,
            now,
            timestamp_signature,
            ca_key,
            device,
        })))
    }
}

impl ForeignKey {
    fn of(key: &KeyData) -> Self {
        Self { kind: key.algorithm().to_string() }
    }
}

impl Finding {
    fn refuses_timestamp(&self) -> bool {
        // Devices with earlier firmware call the check otherwise.
        let names = [Check::Base(BaseCheck::TimestampKey).name(), "timestamp"];
        names.contains(&self.check.as_str()) && self.outcome == Outcome::Refused.name()
    }
}

/// A valid timestamp; the authority's fingerprint follows.
const SIGNED: &str = "signed by the timestamp authority";

impl Explanation {
    /// Judges `request`, the bytes to be signed, under `template`, as parsed. Without a timestamp signature
    /// the time is taken as given, and the timestamp stays undecided. `device` is what is known about the
    /// device, if there is one. A CA key of a kind that no device holds is refused.
    #[must_use]
    pub fn new<'a>(
        template: &'a Result<Template<'a>, TemplateError>,
        request: &'a [u8],
        now: Now,
        timestamp_signature: Option<&'a [u8]>,
        authority: Authority<'_>,
        device: OnDevice<'a>,
    ) -> Self {
        let question = Question { template, request, now, timestamp_signature, device };
        let explained = question.judged(authority, |verdict| {
            let checks = verdict.told().map(|finding| Finding {
                check: finding.check.name().to_owned(),
                outcome: finding.outcome.name().to_owned(),
                asked: finding.asked.to_string(),
                allowed: finding.allowed.to_string(),
            });
            Self::of(now.seconds(), checks.collect())
        });
        explained.unwrap_or_else(|ForeignKey { kind }| {
            let refused = Finding {
                check: Check::Base(BaseCheck::SignatureKey).name().to_owned(),
                outcome: Outcome::Refused.name().to_owned(),
                asked: kind,
                allowed: "RSA of 2048, 3072 or 4096 bits, ECDSA or Ed25519".to_owned(),
            };
            Self::of(now.seconds(), vec![refused])
        })
    }

    /// Reads a device's answer to EXPLAIN SSH REQUEST.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_device(answer: &[u8]) -> Result<Self, ExplanationError> {
        let (now, findings) = explanation::decode(answer)?;
        let checks = findings.map(|finding| {
            let explanation::Finding { check, outcome, asked, allowed } = finding?;
            let [check, outcome, asked, allowed] = [check, outcome, asked, allowed].map(plain);
            Ok(Finding { check, outcome, asked, allowed })
        });
        Ok(Self::of(now, checks.collect::<Result<_, _>>()?))
    }

    fn of(now: u32, checks: Vec<Finding>) -> Self {
        let any = |outcome: Outcome| checks.iter().any(|check| check.outcome == outcome.name());
        let outcome = match (any(Outcome::Refused), any(Outcome::Undecided)) {
            (true, _) => Outcome::Refused,
            (_, true) => Outcome::Undecided,
            _ => Outcome::Allowed,
        };
        Self { outcome: outcome.name(), now, checks }
    }

    /// Whether the timestamp is refused.
    #[must_use]
    pub fn refuses_timestamp(&self) -> bool {
        self.checks.iter().any(Finding::refuses_timestamp)
    }

    /// If the timestamp is refused, says which key is required, and which one signed if that is known: with a
    /// template for another timestamp key, this is the only problem.
    pub fn name_timestamp_keys(&mut self, template: Option<&Template<'_>>, signed_by: Option<&str>) {
        let wanted = template.and_then(|template| {
            let key = &template.timestamp_key;
            device_key::ssh_public(key.algorithm(), key.public()).ok()
        });
        for finding in self.checks.iter_mut().filter(|finding| finding.refuses_timestamp()) {
            if let Some(wanted) = &wanted {
                finding.allowed = format!("{SIGNED} {}", wanted.fingerprint(HashAlg::Sha256));
            }
            if let Some(signed_by) = signed_by {
                finding.asked = format!("{}: signed by {}", finding.asked, plain(signed_by));
            }
        }
    }

    /// Whether every check allows it.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed.name()
    }

    /// Whether a check refuses.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.outcome == Outcome::Refused.name()
    }
}

/// A device's text, in which quoted values are already escaped; nothing else that could make a line
/// misleading passes.
fn plain(text: &str) -> String {
    let character = |character: char| match character {
        '\\' | '…' => character.to_string(),
        other => Printable(other.encode_utf8(&mut [0; 4]).as_bytes()).to_string(),
    };
    text.chars().map(character).collect()
}

/// A table with a line for each check.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        policy::write_row(f, "check", "outcome", "asked", "allowed")?;
        let mut rows = self.checks.iter();
        rows.try_for_each(|row| policy::write_row(f, &row.check, &row.outcome, &row.asked, &row.allowed))
    }
}
