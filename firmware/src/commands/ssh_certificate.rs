//! SIGN SSH CERTIFICATE, the main purpose of this device, and EXPLAIN SSH REQUEST, which says what it would
//! decide.

use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use sshsm_protocol::codec::Writer;
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::message::SignSshCertificate;
use sshsm_protocol::object::ObjectInfo;
use sshsm_protocol::ssh::explanation;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{Dialect, Template, TemplateError};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capability, Command, DeviceError, ObjectId, ObjectType,
};

use super::{Core, existing_id};
use crate::authorization::{usable, visible};
use crate::crypto::Provider;
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;
use crate::ssh::certificate;
use crate::ssh::memory::Memory;
use crate::ssh::policy::{BothDomains, CaKey, Case, Check, Decision, OnDevice, Value, judge};

/// A request to a CA key and a template.
struct Question<'r> {
    ca: ObjectInfo,
    /// The CA's raw public key.
    public: Vec<u8>,
    key: AsymmetricAlgorithm,
    algorithm: SignatureAlgorithm,
    template_id: ObjectId,
    domains: BothDomains,
    template: Vec<u8>,
    dialect: Dialect,
    now: Now,
    /// The timestamp signature, as long as the template's timestamp key makes it, and the request.
    signed: &'r [u8],
}

impl<'r> Question<'r> {
    /// Parses a request for a session that may have it signed.
    fn read<P: Platform>(
        core: &mut Core<P>,
        caller: &Caller,
        message: SignSshCertificate<'r>,
    ) -> Result<Self, DeviceError> {
        let ca_name = (ObjectType::AsymmetricKey, existing_id(message.ca_key)?);
        let template_name = (ObjectType::Template, existing_id(message.template)?);
        let ca = usable(&core.store, caller, ca_name, Capability::SignSshCertificate)?;
        let template_info = visible(&core.store, caller, template_name)?;
        let domains = BothDomains { ca_key: ca.domains, template: template_info.domains };
        let algorithm = Algorithm::from_code(message.algorithm)
            .zip(AsymmetricAlgorithm::from_algorithm(ca.algorithm))
            .and_then(|(algorithm, key)| SignatureAlgorithm::from_algorithm(algorithm, key))
            .ok_or(DeviceError::InvalidData)?;
        let now = Now::from_seconds(message.now);
        let (template, dialect) = (core.template(template_name.1)?, core.platform.dialect());
        let (key, _) = core.load(&ca)?;
        let (public, key) = (key.public().to_vec(), key.algorithm);
        let template_id = template_name.1;
        Ok(Self {
            ca,
            public,
            key,
            algorithm,
            template_id,
            domains,
            template,
            dialect,
            now,
            signed: message.request,
        })
    }

    fn template(&self) -> Result<Template<'_>, TemplateError> {
        Template::decode_dialect(&self.template, self.dialect)
    }

    /// The state that the device keeps about signatures under the template, if its rules depend on it.
    fn memory<P: Platform>(
        &self,
        core: &mut Core<P>,
        template: &Result<Template<'_>, TemplateError>,
    ) -> Result<Memory, DeviceError> {
        match template {
            Ok(template) if template.rules.has_memory() => core.memory(self.template_id),
            Ok(_) | Err(_) => Ok(Memory::default()),
        }
    }

    /// The policy's verdict.
    fn judge<'q, C: Provider>(
        &'q self,
        template: &'q Result<Template<'q>, TemplateError>,
        memory: &'q Memory,
    ) -> Result<Decision<'q>, DeviceError> {
        let (timestamp_signature, request) = match template {
            Ok(template) => {
                let length = template.timestamp_key.signature_length();
                let (signature, request) =
                    self.signed.split_at_checked(length).ok_or(DeviceError::WrongLength)?;
                (Some(signature), request)
            }
            // The start of the request is not known, and the policy does not need it.
            Err(_) => (None, self.signed),
        };
        let public = PublicKey::from_raw(self.key, &self.public).map_err(|_| DeviceError::StorageFailed)?;
        let (ca_key, algorithm) = (self.ca.id, self.algorithm);
        let verdict = judge::<C>(&Case {
            template,
            request,
            now: self.now,
            timestamp_signature,
            ca_key: CaKey { id: ca_key, public, algorithm },
            device: OnDevice { memory: Some(memory), domains: Some(self.domains) },
        });
        Ok(Decision { ca_key, template: self.template_id, algorithm, verdict })
    }
}

/// SIGN SSH CERTIFICATE: the [`Question`]; the certificate's signature field.
pub(crate) fn sign<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    message: SignSshCertificate<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let question = Question::read(core, caller, message)?;
    let template = question.template();
    let memory = question.memory(core, &template)?;
    let decision = question.judge::<P::Crypto>(&template, &memory)?;
    core.platform.decided(&decision);
    let permit = decision.verdict.permit()?;
    let wanted = presence::at_least(core.options.presence(), permit.needs_touch());
    presence::confirm(&mut core.platform, wanted, Command::SignSshCertificate)?;
    if let Some(memory) = permit.memory() {
        // Before the signature exists: a power cut can waste a permission, but never grants one.
        core.remember(question.template_id, memory)?;
    }
    let (key, platform) = core.load(&question.ca)?;
    certificate::sign(permit, key, platform.entropy(), writer)
}

/// EXPLAIN SSH REQUEST: the [`Question`]; the verdict in words, in the format of [`explanation`]. It signs
/// nothing, uses nothing up and asks for no touch.
pub(crate) fn explain<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    message: SignSshCertificate<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let question = Question::read(core, caller, message)?;
    let template = question.template();
    let memory = question.memory(core, &template)?;
    let decision = question.judge::<P::Crypto>(&template, &memory)?;
    let told = || decision.verdict.told();
    // Names, outcomes and lengths; the rest of the space is for the values, of which the longest are
    // truncated.
    let count = told().count();
    let room = MAX_INNER_PAYLOAD.saturating_sub(count * 40);
    let mut lengths = [0; 2 * Check::ALL.len()];
    let values = told().flat_map(|finding| [&finding.asked, &finding.allowed]);
    for (length, value) in lengths.iter_mut().zip(values) {
        *length = length_of(value);
    }
    let taken = |limit: usize| lengths.iter().map(|&length| length.min(limit)).sum::<usize>();
    let limit = (0..=LONGEST_VALUE).rev().find(|&limit| taken(limit) <= room).unwrap_or_default();
    explanation::begin(question.now.seconds(), count, writer)?;
    for (finding, &[asked_length, allowed_length]) in told().zip(lengths.as_chunks().0) {
        let (mut asked, mut allowed) = (Cut::default(), Cut::default());
        explanation::Finding {
            check: finding.check.name(),
            outcome: finding.outcome.name(),
            asked: asked.write(&finding.asked, asked_length, limit),
            allowed: allowed.write(&finding.allowed, allowed_length, limit),
        }
        .encode(writer)?;
    }
    Ok(())
}

/// Bytes of the longest value of an explanation.
const LONGEST_VALUE: usize = 450;

/// The length in bytes of a value in words.
fn length_of(value: &Value<'_>) -> usize {
    struct Length(usize);
    impl fmt::Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.saturating_add(text.len());
            Ok(())
        }
    }
    let mut length = Length(0);
    // Counting does not fail.
    let _ = write!(length, "{value}");
    length.0
}

/// The front of a text, in room that does not grow with it: a value can be many times as long as its request.
struct Cut {
    text: heapless::String<LONGEST_VALUE>,
    limit: usize,
}

impl Default for Cut {
    fn default() -> Self {
        Self { text: heapless::String::new(), limit: LONGEST_VALUE }
    }
}

impl Cut {
    /// A value of `length` bytes in at most `limit` bytes; a truncated value ends in `…`.
    fn write(&mut self, value: &Value<'_>, length: usize, limit: usize) -> &str {
        let whole = length <= limit;
        self.limit = if whole { length } else { limit.saturating_sub(CUT.len()) };
        // It fails at the end of the space, and what was written until then remains.
        let _ = write!(self, "{value}");
        if !whole {
            self.limit = LONGEST_VALUE;
            let _ = self.write_str(CUT);
        }
        &self.text
    }
}

/// The end of a truncated value.
const CUT: &str = "…";

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.limit.saturating_sub(self.text.len());
        let fits = text.get(..text.floor_char_boundary(room)).unwrap_or_default();
        self.text.push_str(fits).map_err(|_| fmt::Error)?;
        if fits.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
