//! SIGN SSH CERTIFICATE: what this device is for.

use sshsm_protocol::codec::{Reader, Writer};
use sshsm_protocol::option::PresenceMode;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::Request;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::Template;
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{Algorithm, AsymmetricAlgorithm, Capability, DeviceError, ObjectType};

use super::{Core, existing_id};
use crate::authorization::{usable, visible};
use crate::crypto::{MAX_SIGNATURE, sign_ssh};
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;
use crate::ssh::memory::Memory;
use crate::ssh::policy::{CaKey, Decision, evaluate};
use crate::ssh::timestamp::Timestamp;

/// `CA key id u16 ‖ template id u16 ‖ algorithm u8 ‖ now u32 ‖ timestamp signature ‖ request`; the certificate's
/// signature field. The timestamp signature is as long as the template's timestamp key makes it.
pub(crate) fn sign<P: Platform>(
    core: &mut Core<P>,
    caller: &Caller,
    mut reader: Reader<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let ca_name = (ObjectType::AsymmetricKey, existing_id(&mut reader)?);
    let template_name = (ObjectType::Template, existing_id(&mut reader)?);
    let ca_info = usable(&core.store, caller, ca_name, Capability::SignSshCertificate)?;
    visible(&core.store, caller, template_name)?;
    let algorithm = Algorithm::from_code(reader.u8()?)
        .zip(AsymmetricAlgorithm::from_algorithm(ca_info.algorithm))
        .and_then(|(algorithm, key)| SignatureAlgorithm::from_algorithm(algorithm, key))
        .ok_or(DeviceError::InvalidData)?;
    let now = Now::from_seconds(reader.u32()?);

    let template = core.template(template_name.1)?;
    let template = Template::decode_dialect(&template, core.platform.dialect());
    let rules = template.as_ref().map(|template| template.rules).unwrap_or_default();
    let timestamp_signature = match &template {
        Ok(template) => reader.take(template.timestamp_key.signature_length())?,
        Err(_) => &[],
    };
    let request_bytes = reader.rest();
    let request = Request::decode(request_bytes);
    let timestamp = match &template {
        Ok(template) => {
            let key = &template.timestamp_key;
            Timestamp::verify::<P::Crypto>(key, request_bytes, now, timestamp_signature)
        }
        Err(_) => Timestamp::unsigned(now),
    };

    let memory = if rules.has_memory() { core.memory(template_name.1)? } else { Memory::default() };
    let wanted = core.options.presence();
    let (key, platform) = core.load(&ca_info)?;
    let public = PublicKey::from_raw(key.algorithm, &key.public).map_err(|_| DeviceError::StorageFailed)?;
    let verdict = evaluate(
        &template,
        &request,
        &timestamp,
        &CaKey { id: ca_info.id, public, algorithm },
        Some(&memory),
    );
    let decision = Decision { ca_key: ca_info.id, template: template_name.1, algorithm, verdict };
    platform.decided(&decision);
    decision.verdict.permit()?;
    let Ok(request) = request else { return Err(DeviceError::InvalidData) };
    let asked = rules.presence.is_some_and(|presence| presence.applies(request.lifetime()));
    presence::confirm(platform, presence::at_least(wanted, asked), PresenceMode::Certificates)?;
    if rules.has_memory() {
        // Before the signature exists: a power cut wastes a permission, and grants none.
        core.remember(template_name.1, &memory.after(&rules, &request, now))?;
    }
    let (key, platform) = core.load(&ca_info)?;

    let mut signature = [0; MAX_SIGNATURE];
    let length =
        sign_ssh::<P::Crypto>(&key.private, algorithm, request_bytes, platform.entropy(), &mut signature)?;
    algorithm
        .encode_field(signature.get(..length).unwrap_or_default(), writer)
        .map_err(|_| DeviceError::WrongLength)
}
