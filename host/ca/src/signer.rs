//! Having a device sign certificates: from a public key and the requested content to a verified certificate.
//!
//! The device enforces the policy. The result counts as a certificate only if it is the request, byte for
//! byte, under the named CA key; if the device refuses, the same evaluation is run here on the device's own
//! template, so that the refusal can be explained.

use std::time::{Duration, Instant};

use ssh_key::{HashAlg, PublicKey, public::KeyData};
use sshsm_firmware::ssh::policy::{BothDomains, OnDevice};
use sshsm_protocol::{
    AsymmetricAlgorithm, Command, DeviceError, ObjectId, ObjectType,
    audit::{LogEntry, LogMark},
    ssh::{
        explanation::ExplanationError,
        signature::SignatureAlgorithm,
        template::{Dialect, Template},
        timestamp::Now,
    },
};

pub use crate::enforced_by::EnforcedBy;
use crate::{
    certificate::CertificateError,
    device_key::{self, DeviceKeyError},
    explanation::{Authority, Explanation},
    ledger::{Answer, LogSpan, Recorded},
    pkcs11::Pkcs11Error,
    request::{BuildError, COMMAND_LENGTH, Content, SigningRequest, StoredRequest},
    timestamp::{TimestampError, TimestampSource},
};
use sshsm_client::{ClientError, Failure, Kind, Session};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The device, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no such CA key or template, or none that shares a domain with the session.
    #[error("the device has no {object_type} {id} that this authentication key can see")]
    Missing {
        /// CA key or template.
        object_type: ObjectType,
        /// The requested id.
        id: ObjectId,
    },
    /// The CA's public key, as the device returns it, is none.
    #[error("the public key of CA key {id} cannot be used")]
    CaKey {
        /// The CA key.
        id: ObjectId,
        /// The defect.
        source: DeviceKeyError,
    },
    /// The CA key cannot sign with that algorithm.
    #[error("CA key {id} is {key} and cannot sign with {algorithm}")]
    Algorithm {
        /// The CA key.
        id: ObjectId,
        /// The type of the key.
        key: AsymmetricAlgorithm,
        /// The requested algorithm.
        algorithm: SignatureAlgorithm,
    },
    /// The token, or the way to it.
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
    /// The policy that this program enforces refuses.
    #[error("the template refuses the request")]
    Refused,
    /// The request could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// There is no timestamp.
    #[error(transparent)]
    Timestamp(#[from] TimestampError),
    /// The device's explanation is none.
    #[error("the device's explanation cannot be read")]
    Explanation(#[from] ExplanationError),
    /// The device signed something other than the request.
    #[error("the device's certificate is wrong and was thrown away")]
    Certificate(#[from] CertificateError),
}

impl Failure for SignerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Client(error) => error.kind(),
            Self::Pkcs11(error) => error.kind(),
            Self::Timestamp(error) => error.kind(),
            Self::Algorithm { .. } => Kind::Usage,
            Self::CaKey { .. } | Self::Certificate(_) => Kind::Device,
            Self::Refused => Kind::Refused,
            Self::Missing { .. } | Self::Build(_) | Self::Explanation(_) => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Client(error) => error.help(),
            Self::Pkcs11(error) => error.help(),
            Self::Timestamp(error) => error.help(),
            Self::Missing { .. } => Some("`sshsm key list` shows what this authentication key can see"),
            Self::CaKey { .. }
            | Self::Algorithm { .. }
            | Self::Refused
            | Self::Build(_)
            | Self::Explanation(_)
            | Self::Certificate(_) => None,
        }
    }
}

impl SignerError {
    /// Whether the template refused, on the device or here.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Client(ClientError::Device { error: DeviceError::SshCaConstraintViolation, .. })
        )
    }

    /// Whether the signer can no longer sign: its session ended, or its token is gone.
    #[must_use]
    pub const fn ends_signing(&self) -> bool {
        match self {
            Self::Client(error) => error.ends_session(),
            Self::Pkcs11(error) | Self::Timestamp(TimestampError::Pkcs11(error)) => {
                matches!(error, Pkcs11Error::Gone { .. })
            }
            Self::Missing { .. }
            | Self::CaKey { .. }
            | Self::Algorithm { .. }
            | Self::Refused
            | Self::Build(_)
            | Self::Timestamp(_)
            | Self::Explanation(_)
            | Self::Certificate(_) => false,
        }
    }

    /// The signer's answer when [`Signer::sign`] failed with this.
    #[must_use]
    pub const fn answer(&self) -> Answer {
        match self {
            // There is a signature; it is the certificate that is wrong.
            Self::Certificate(_) => Answer::Signed,
            Self::Client(error) if error.may_have_run() => Answer::Unknown,
            Self::Client(_)
            | Self::Refused
            | Self::Missing { .. }
            | Self::CaKey { .. }
            | Self::Algorithm { .. }
            | Self::Timestamp(_)
            | Self::Explanation(_) => Answer::Error,
            Self::Build(_) | Self::Pkcs11(_) => Answer::Unknown,
        }
    }
}

/// The public key of an asymmetric key on the device, in SSH's form.
///
/// # Errors
/// When there is no such key, or the device's answer is not one.
pub fn public_key(
    session: &mut Session<'_>,
    id: ObjectId,
) -> Result<(AsymmetricAlgorithm, KeyData), SignerError> {
    let key = session.public_key(id)?;
    let public = device_key::ssh_public(key.algorithm, &key.bytes)
        .map_err(|source| SignerError::CaKey { id, source })?;
    Ok((key.algorithm, public))
}

/// Names the object that the device did not find.
fn missing(object_type: ObjectType, id: ObjectId) -> impl Fn(SignerError) -> SignerError {
    move |error| match error {
        SignerError::Client(ClientError::Device { error: DeviceError::ObjectNotFound, .. }) => {
            SignerError::Missing { object_type, id }
        }
        error => error,
    }
}

/// A CA key that signs under a template.
pub trait Signer {
    /// What enforces the template.
    fn enforced_by(&self) -> EnforcedBy;

    /// The location of the CA key, in the form of `--device`.
    fn describe(&self) -> String;

    /// The CA key's name there.
    fn key(&self) -> String;

    /// The template's name: its id on the device, or its file.
    fn template(&self) -> String;

    /// The CA's public key.
    fn ca_key(&self) -> &KeyData;

    /// The algorithm of the certificates' signatures.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// The serial number of the device that has the CA key, if it is one.
    fn device_serial(&self) -> Option<u32> {
        None
    }

    /// The newest entry of the device's audit log, for [`Signer::log_span`]; `None` if that cannot be known.
    fn log_mark(&mut self) -> Option<LogMark> {
        None
    }

    /// The part of the device's audit log with the entry about the request that was just answered, and was
    /// sent after `after` was the newest.
    fn log_span(&mut self, timed: &TimedRequest, after: Option<LogMark>) -> LogSpan {
        let _ = (timed, after);
        LogSpan::default()
    }

    /// Has the request signed; returns the certificate's signature field, `u32 length ‖ string algorithm ‖ string
    /// signature`, which [`crate::issue::Issuer`] verifies.
    ///
    /// # Errors
    /// [`SignerError::is_refusal`] distinguishes a refusal by the template from everything else.
    fn sign(&mut self, timed: &TimedRequest, recorded: Recorded) -> Result<Vec<u8>, SignerError>;

    /// Why a request is refused: the policy, run here on the template that it was refused by.
    ///
    /// # Errors
    /// When the template cannot be read.
    fn explain(&mut self, timed: &TimedRequest) -> Result<Explanation, SignerError>;
}

/// A request together with the time signed by a timestamp authority.
#[derive(Debug, Clone)]
pub struct TimedRequest {
    request: SigningRequest,
    now: Now,
    timestamp_signature: Vec<u8>,
    /// The authority, for people, if known.
    authority: Option<String>,
}

impl TimedRequest {
    /// Builds the request for `subject` under the CA key `ca`, and has `source` sign its time.
    ///
    /// # Errors
    /// When the request cannot be represented in a certificate or does not fit the device, or there is no
    /// timestamp.
    pub fn new(
        subject: &PublicKey,
        content: &Content,
        ca: &KeyData,
        source: &mut dyn TimestampSource,
    ) -> Result<Self, SignerError> {
        Self::of(SigningRequest::new(subject, content, ca)?, source)
    }

    /// Has `source` sign the time of `request`.
    ///
    /// # Errors
    /// When it does not fit the device, its subject key cannot be certified, or there is no timestamp.
    pub fn of(request: SigningRequest, source: &mut dyn TimestampSource) -> Result<Self, SignerError> {
        request.check_subject()?;
        if let Some(algorithm) = source.algorithm() {
            request.check_length(algorithm.signature_length())?;
        }
        let (now, timestamp_signature) = source.timestamp(request.as_bytes())?;
        let authority = match source.key() {
            Some(key) => key.fingerprint(HashAlg::Sha256).to_string(),
            None => source.describe(),
        };
        let timed = Self::from_stored(request, now, timestamp_signature)?;
        Ok(Self { authority: Some(authority), ..timed })
    }

    /// A request whose time has already been signed.
    ///
    /// # Errors
    /// When it does not fit the device, or its subject key cannot be certified.
    pub fn from_stored(
        request: SigningRequest,
        now: Now,
        timestamp_signature: Vec<u8>,
    ) -> Result<Self, SignerError> {
        request.check_subject()?;
        request.check_length(timestamp_signature.len())?;
        Ok(Self { request, now, timestamp_signature, authority: None })
    }

    /// The bytes to be signed.
    #[must_use]
    pub const fn request(&self) -> &SigningRequest {
        &self.request
    }

    /// When it was made.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// The timestamp authority's signature over it.
    #[must_use]
    pub fn timestamp_signature(&self) -> &[u8] {
        &self.timestamp_signature
    }

    /// The fingerprint of the authority's key, or its location; `None` if it is not known.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Bytes of the signing command, as a device logs them.
    #[must_use]
    pub fn payload_length(&self) -> usize {
        COMMAND_LENGTH + self.timestamp_signature.len() + self.request.as_bytes().len()
    }

    /// The payload for the device, including the proof of the time: `timestamp signature ‖ to-be-signed
    /// certificate`.
    fn stamped(&self) -> Vec<u8> {
        [self.timestamp_signature.as_slice(), self.request.as_bytes()].concat()
    }

    /// The request in the vendor tool's form: `now u32 ‖ timestamp signature ‖ to-be-signed certificate`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let timestamp = Some((self.now, self.timestamp_signature.clone()));
        StoredRequest { request: self.request.as_bytes().to_vec(), timestamp }.encode()
    }
}

/// A CA key on a device, under a template on the same device.
pub struct DeviceSigner<'s, 'c> {
    session: &'s mut Session<'c>,
    ca_id: ObjectId,
    ca_key: KeyData,
    template_id: ObjectId,
    algorithm: SignatureAlgorithm,
    log: Log,
}

/// What is known about the device's audit log.
#[derive(Clone, Copy)]
struct Log {
    /// Whether this session may read it, as far as is known.
    readable: bool,
    /// Whether the device reports its newest entry, as far as is known.
    told: bool,
    /// Its newest entry when it was looked at last, and when that was.
    newest: Option<(LogMark, Instant)>,
}

/// For this long, a reading of the log serves for the next request too; extra entries do no harm.
const FRESH: Duration = Duration::from_secs(1);

impl<'s, 'c> DeviceSigner<'s, 'c> {
    /// Uses CA key `ca_id` under template `template_id`. `algorithm` matters only for RSA keys, which
    /// otherwise sign with `rsa-sha2-512`, as with ssh-keygen.
    ///
    /// # Errors
    /// When there is no such key or template, or the key cannot sign with `algorithm`.
    pub fn new(
        session: &'s mut Session<'c>,
        ca_id: ObjectId,
        template_id: ObjectId,
        algorithm: Option<SignatureAlgorithm>,
    ) -> Result<Self, SignerError> {
        let (key, ca_key) = public_key(session, ca_id).map_err(missing(ObjectType::AsymmetricKey, ca_id))?;
        session
            .object_info(template_id, ObjectType::Template)
            .map_err(|error| missing(ObjectType::Template, template_id)(error.into()))?;
        let algorithm = algorithm
            .or_else(|| SignatureAlgorithm::of_key(key))
            .ok_or(SignerError::CaKey { id: ca_id, source: DeviceKeyError::NoSshForm { algorithm: key } })?;
        if SignatureAlgorithm::from_algorithm(algorithm.algorithm(), key).is_none() {
            return Err(SignerError::Algorithm { id: ca_id, key, algorithm });
        }
        let log = Log { readable: true, told: true, newest: None };
        Ok(Self { session, ca_id, ca_key, template_id, algorithm, log })
    }

    /// The entries that the device has not been told to discard, if they can be read, and its newest entry,
    /// if that can be known.
    fn look(&mut self) -> (Vec<LogEntry>, Option<LogMark>) {
        let entries = match self.log.readable.then(|| self.session.log_entries()) {
            Some(Ok((_, entries))) => entries,
            // The reason does not matter: the log is optional, and what ends the session also ends the next
            // command.
            Some(Err(_)) => {
                self.log.readable = false;
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut newest = entries.last().map(LogEntry::mark);
        if newest.is_none() && self.log.told {
            match self.session.device_status() {
                Ok(status) => newest = status.log,
                Err(_) => self.log.told = false,
            }
        }
        self.log.newest = newest.map(|mark| (mark, Instant::now()));
        (entries, newest)
    }
}

impl Signer for DeviceSigner<'_, '_> {
    fn enforced_by(&self) -> EnforcedBy {
        EnforcedBy::Device
    }

    fn describe(&self) -> String {
        self.session.describe()
    }

    fn key(&self) -> String {
        self.ca_id.to_string()
    }

    fn template(&self) -> String {
        self.template_id.to_string()
    }

    fn ca_key(&self) -> &KeyData {
        &self.ca_key
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn device_serial(&self) -> Option<u32> {
        Some(self.session.serial())
    }

    fn log_mark(&mut self) -> Option<LogMark> {
        match self.log.newest {
            Some((mark, at)) if at.elapsed() < FRESH => Some(mark),
            _ => self.look().1,
        }
    }

    fn log_span(&mut self, timed: &TimedRequest, after: Option<LogMark>) -> LogSpan {
        let (entries, newest) = self.look();
        let whole = LogSpan { after, until: newest, exact: false };
        let Some(after) = after else { return whole };
        let behind = match entries.iter().position(|entry| entry.mark() == after) {
            Some(at) => at + 1,
            // Everything before it was read, and is discarded.
            None if entries.first().is_some_and(|first| first.follows(&after.digest)) => 0,
            None => return whole,
        };
        let length = timed.payload_length();
        let mut ours = entries.iter().skip(behind).filter(|entry| {
            entry.command == Command::SignSshCertificate.code()
                && (entry.target_key, entry.second_key) == (self.ca_id.get(), self.template_id.get())
                && usize::from(entry.length) == length
        });
        match (ours.next(), ours.next()) {
            (Some(entry), None) => LogSpan { until: Some(entry.mark()), exact: true, ..whole },
            _ => whole,
        }
    }

    fn sign(&mut self, timed: &TimedRequest, _: Recorded) -> Result<Vec<u8>, SignerError> {
        let algorithm = self.algorithm.algorithm();
        let (ca, template, now) = (self.ca_id, self.template_id, timed.now);
        Ok(self.session.sign_ssh_certificate(ca, template, algorithm, now, &timed.stamped())?)
    }

    fn explain(&mut self, timed: &TimedRequest) -> Result<Explanation, SignerError> {
        let algorithm = self.algorithm.algorithm();
        let (ca, template, now) = (self.ca_id, self.template_id, timed.now);
        match self.session.explain_ssh_request(ca, template, algorithm, now, &timed.stamped()) {
            Ok(answer) => {
                let mut explanation = Explanation::from_device(&answer)?;
                if explanation.refuses_timestamp() {
                    let template = match self.session.template(self.template_id) {
                        Ok(template) => Some(template),
                        // A key that may not read the template gets the verdict without the authority's name.
                        Err(ClientError::Device {
                            error: DeviceError::InsufficientPermissions | DeviceError::ObjectNotFound,
                            ..
                        }) => None,
                        Err(error) => return Err(error.into()),
                    };
                    let template = template.as_deref().and_then(|template| Template::decode(template).ok());
                    explanation.name_timestamp_keys(template.as_ref(), timed.authority());
                }
                return Ok(explanation);
            }
            // A YubiHSM 2, or a device as strict: its policy is run here.
            Err(ClientError::Device { error: DeviceError::InvalidCommand, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let template = self.session.template(self.template_id)?;
        let mut domains = |id, of| self.session.object_info(id, of).map(|info| info.domains);
        let domains = BothDomains {
            ca_key: domains(self.ca_id, ObjectType::AsymmetricKey)?,
            template: domains(self.template_id, ObjectType::Template)?,
        };
        let device = OnDevice { memory: None, domains: Some(domains) };
        let TimedRequest { request, now, timestamp_signature, authority: signed_by } = timed;
        let authority =
            Authority { id: self.ca_id, public: Some(&self.ca_key), algorithm: Some(self.algorithm) };
        let template = Template::decode_dialect(&template, Dialect::Yubihsm2);
        let signature = Some(timestamp_signature.as_slice());
        let mut explanation =
            Explanation::new(&template, request.as_bytes(), *now, signature, authority, device);
        explanation.name_timestamp_keys(template.as_ref().ok(), signed_by.as_deref());
        Ok(explanation)
    }
}
