//! SIGN SSH CERTIFICATE, what this device is for, and EXPLAIN SSH REQUEST, which says what would come of it.

use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::frame::MAX_INNER_PAYLOAD;
use sshsm_protocol::object::ObjectInfo;
use sshsm_protocol::ssh::explanation;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::{Request, RequestError};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{Dialect, Template, TemplateError};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{
    Algorithm, AsymmetricAlgorithm, Capability, Command, DeviceError, ObjectId, ObjectType,
};

use super::{Core, existing_id};
use crate::authorization::{usable, visible};
use crate::crypto::{MAX_SIGNATURE, Provider, sign_ssh};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;
use crate::ssh::memory::Memory;
use crate::ssh::policy::{BothDomains, CaKey, Check, Decision, OnDevice, Value, evaluate};
use crate::ssh::timestamp::Timestamp;

/// What is asked of a CA key and a template.
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
    memory: Memory,
    now: Now,
    timestamp_signature: &'r [u8],
    request: &'r [u8],
}

impl<'r> Question<'r> {
    /// `CA key id u16 ‖ template id u16 ‖ algorithm u8 ‖ now u32 ‖ timestamp signature ‖ request`, for somebody who may have
    /// it signed. The timestamp signature is as long as the template's timestamp key makes it.
    fn read<P: Platform>(
        core: &mut Core<P>,
        caller: &Caller,
        mut reader: Reader<'r>,
    ) -> Result<Self, DeviceError> {
        let ca_name = (ObjectType::AsymmetricKey, existing_id(&mut reader)?);
        let template_name = (ObjectType::Template, existing_id(&mut reader)?);
        let ca = usable(&core.store, caller, ca_name, Capability::SignSshCertificate)?;
        let template_info = visible(&core.store, caller, template_name)?;
        let domains = BothDomains { ca_key: ca.domains, template: template_info.domains };
        let algorithm = Algorithm::from_code(reader.u8()?)
            .zip(AsymmetricAlgorithm::from_algorithm(ca.algorithm))
            .and_then(|(algorithm, key)| SignatureAlgorithm::from_algorithm(algorithm, key))
            .ok_or(DeviceError::InvalidData)?;
        let now = Now::from_seconds(reader.u32()?);
        let (template, dialect) = (core.template(template_name.1)?, core.platform.dialect());
        let (timestamp_signature, remembers) = match Template::decode_dialect(&template, dialect) {
            Ok(template) => {
                (reader.take(template.timestamp_key.signature_length())?, template.rules.has_memory())
            }
            Err(_) => (&[][..], false),
        };
        let memory = if remembers { core.memory(template_name.1)? } else { Memory::default() };
        let (key, _) = core.load(&ca)?;
        let (public, key) = (key.public().to_vec(), key.algorithm);
        let (template_id, request) = (template_name.1, reader.rest());
        Ok(Self {
            ca,
            public,
            key,
            algorithm,
            template_id,
            domains,
            template,
            dialect,
            memory,
            now,
            timestamp_signature,
            request,
        })
    }

    /// What the policy says.
    fn judge<C: Provider>(&self) -> Result<Judgement<'_>, DeviceError> {
        let template = Template::decode_dialect(&self.template, self.dialect);
        let request = Request::decode(self.request);
        let timestamp = match &template {
            Ok(template) => Timestamp::verify::<C>(
                &template.timestamp_key,
                self.request,
                self.now,
                self.timestamp_signature,
            ),
            Err(_) => Timestamp::unsigned(self.now),
        };
        let public = PublicKey::from_raw(self.key, &self.public).map_err(|_| DeviceError::StorageFailed)?;
        let ca_key = CaKey { id: self.ca.id, public, algorithm: self.algorithm };
        let device = OnDevice { memory: Some(&self.memory), domains: Some(self.domains) };
        let verdict = evaluate(&template, &request, &timestamp, &ca_key, device);
        let (ca_key, template_id, algorithm) = (self.ca.id, self.template_id, self.algorithm);
        let decision = Decision { ca_key, template: template_id, algorithm, verdict };
        Ok(Judgement { decision, template, request })
    }
}

/// A decision, and what it was about.
struct Judgement<'q> {
    decision: Decision<'q>,
    template: Result<Template<'q>, TemplateError>,
    request: Result<Request<'q>, RequestError>,
}

/// SIGN SSH CERTIFICATE: the [`Question`]; the certificate's signature field.
pub(crate) fn sign<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let question = Question::read(core, caller, reader)?;
    let Judgement { decision, template, request } = question.judge::<P::Crypto>()?;
    core.platform.decided(&decision);
    decision.verdict.permit()?;
    // What is permitted was read.
    let (Ok(template), Ok(request)) = (template, request) else { return Err(DeviceError::InvalidData) };
    let rules = template.rules;
    let asked = rules.presence.is_some_and(|presence| presence.applies(&request, question.now));
    let wanted = presence::at_least(core.options.presence(), asked);
    presence::confirm(&mut core.platform, wanted, Command::SignSshCertificate)?;
    if rules.has_memory() {
        // Before the signature exists: a power cut wastes a permission, and grants none.
        core.remember(question.template_id, &question.memory.after(&rules, &request, question.now))?;
    }
    let (key, platform) = core.load(&question.ca)?;
    let mut signature = [0; MAX_SIGNATURE];
    let length = sign_ssh(key, question.algorithm, question.request, platform.entropy(), &mut signature)?;
    question
        .algorithm
        .encode_field(signature.get(..length).unwrap_or_default(), writer)
        .map_err(|_| DeviceError::WrongLength)
}

/// EXPLAIN SSH REQUEST: the [`Question`]; the verdict in words, as [`explanation`] has it. Nothing is signed, nothing is
/// used up and nobody is asked for a touch.
pub(crate) fn explain<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let question = Question::read(core, caller, reader)?;
    let Judgement { decision, .. } = question.judge::<P::Crypto>()?;
    let findings = decision.verdict.findings();
    let told = || findings.iter().filter(|finding| finding.allowed != Value::Unrestricted);
    // Names, outcomes and lengths; the rest is for the values, the longest of which are cut.
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

/// How many bytes a value takes in words.
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
    /// A value of `length` bytes in at most `limit`; one that is cut ends in `…`.
    fn write(&mut self, value: &Value<'_>, length: usize, limit: usize) -> &str {
        let whole = length <= limit;
        self.limit = if whole { length } else { limit.saturating_sub(CUT.len()) };
        // It ends with an error where the room ends, and what was written until then stays.
        let _ = write!(self, "{value}");
        if !whole {
            self.limit = LONGEST_VALUE;
            let _ = self.write_str(CUT);
        }
        &self.text
    }
}

/// What a value that was cut ends in.
const CUT: &str = "…";

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.limit.saturating_sub(self.text.len());
        let fits = text.get(..text.floor_char_boundary(room)).unwrap_or_default();
        self.text.push_str(fits).map_err(|_| fmt::Error)?;
        if fits.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
