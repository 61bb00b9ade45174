//! The policy: whether a CA key may sign a certificate request under a template.
//!
//! [`evaluate`] is pure and total, and the only place where this is decided: on a board, in the simulator and in
//! the host tool alike. It returns a [`Verdict`] with one [`Finding`] for every [`Check`], in a fixed order, each
//! with what was asked and what was allowed. A certificate may be signed when every finding is
//! [`Outcome::Allowed`]; what cannot be checked is not allowed.

use core::fmt::{self, Write as _};

use sshsm_protocol::ssh::Printable;
use sshsm_protocol::ssh::host_pattern::HostPattern;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::{
    CertificateKind, Options, Principals, Request, RequestError, SubjectKey, SubjectKind,
};
use sshsm_protocol::ssh::rules::{
    CertificateTypes, ClockStep, FORCE_COMMAND, Names, Networks, Patterns, Presence, Quota, Rules,
    SOURCE_ADDRESS, Serials, SignatureAlgorithms, SubjectKeys,
};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{CaKeys, ForbiddenPrincipals, Template, TemplateError};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{DeviceError, Domains, ObjectId};

use super::memory::Memory;
use super::subject::{self, SubjectKeyError};
use super::timestamp::{Authenticity, Timestamp};

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// The template is well-formed.
    Template,
    /// The request is well-formed.
    Request,
    /// The template's timestamp authority signed now for this request.
    Timestamp,
    /// The template lists the CA key that is to sign.
    CaKey,
    /// The CA key and the template share a domain.
    Domain,
    /// The request names that key as the one that signs it.
    SignatureKey,
    /// The certificate does not begin too early.
    ValidAfter,
    /// The certificate does not end too late.
    ValidBefore,
    /// The certificate names somebody: OpenSSH reads an empty list as "anyone", or refuses it.
    PrincipalsPresent,
    /// The certificate names nobody whom the template forbids; one for a host, also by no pattern and in no case.
    ForbiddenPrincipals,
    /// A host certificate names hosts one by one: OpenSSH takes `*` and `?` for wildcards.
    HostPatterns,
    /// The certificate is of an allowed type.
    CertificateType,
    /// The certificate names nobody but whom the template allows; one for a host, also by no pattern.
    AllowedPrincipals,
    /// The certificate names no more than so many.
    PrincipalCount,
    /// The certificate does not last too long.
    Lifetime,
    /// The certificate has no extensions but allowed ones.
    Extensions,
    /// The certificate has no critical options but allowed ones.
    CriticalOptions,
    /// The certificate has the critical options that it must have.
    RequiredOptions,
    /// If the certificate forces a command, it is an allowed one.
    ForceCommand,
    /// If the certificate says where from it may be used, that is allowed.
    SourceAddress,
    /// The certified key is one that OpenSSH reads, and of an allowed kind and length.
    SubjectKey,
    /// The key id matches.
    KeyId,
    /// The serial number is in the range.
    Serial,
    /// The serial number is greater than the last one.
    IncreasingSerial,
    /// The serial number is not too far above the last one.
    SerialStep,
    /// The CA key signs with an allowed algorithm.
    SignatureAlgorithm,
    /// Now is not before an earlier now, but for the tolerance.
    Clock,
    /// Now is not too far ahead of the nows before.
    ClockStep,
    /// There were fewer signatures in the window than the quota.
    Quota,
    /// Whether somebody has to touch the device: asked of the one at the device, once nothing else stands in the way.
    Presence,
}

impl Check {
    /// All checks, in the order in which they are reported.
    pub const ALL: [Self; 30] = [
        Self::Template,
        Self::Request,
        Self::Timestamp,
        Self::CaKey,
        Self::Domain,
        Self::SignatureKey,
        Self::ValidAfter,
        Self::ValidBefore,
        Self::PrincipalsPresent,
        Self::ForbiddenPrincipals,
        Self::HostPatterns,
        Self::CertificateType,
        Self::AllowedPrincipals,
        Self::PrincipalCount,
        Self::Lifetime,
        Self::Extensions,
        Self::CriticalOptions,
        Self::RequiredOptions,
        Self::ForceCommand,
        Self::SourceAddress,
        Self::SubjectKey,
        Self::KeyId,
        Self::Serial,
        Self::IncreasingSerial,
        Self::SerialStep,
        Self::SignatureAlgorithm,
        Self::Clock,
        Self::ClockStep,
        Self::Quota,
        Self::Presence,
    ];

    /// A stable name, for logs and machine-readable output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Request => "request",
            Self::Timestamp => "timestamp",
            Self::CaKey => "ca-key",
            Self::Domain => "domain",
            Self::SignatureKey => "signature-key",
            Self::ValidAfter => "valid-after",
            Self::ValidBefore => "valid-before",
            Self::PrincipalsPresent => "principals-present",
            Self::ForbiddenPrincipals => "forbidden-principals",
            Self::HostPatterns => "host-patterns",
            Self::CertificateType => "certificate-type",
            Self::AllowedPrincipals => "allowed-principals",
            Self::PrincipalCount => "principal-count",
            Self::Lifetime => "lifetime",
            Self::Extensions => "extensions",
            Self::CriticalOptions => "critical-options",
            Self::RequiredOptions => "required-options",
            Self::ForceCommand => "force-command",
            Self::SourceAddress => "source-address",
            Self::SubjectKey => "subject-key",
            Self::KeyId => "key-id",
            Self::Serial => "serial",
            Self::IncreasingSerial => "increasing-serial",
            Self::SerialStep => "serials-max-step",
            Self::SignatureAlgorithm => "signature-algorithm",
            Self::Clock => "clock",
            Self::ClockStep => "clock-max-step",
            Self::Quota => "quota",
            Self::Presence => "presence",
        }
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The template allows it.
    Allowed,
    /// The template does not allow it.
    Refused,
    /// It cannot be said: the template or the request is malformed, or nobody vouches for the time.
    Undecided,
}

impl Outcome {
    /// A stable name, for logs and machine-readable output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
        }
    }

    const fn of(allowed: bool) -> Self {
        if allowed { Self::Allowed } else { Self::Refused }
    }
}

/// What was asked, or what is allowed, by one check. Its `Display` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing is known, because something else could not be read.
    Unknown,
    /// A fixed text.
    Text(&'static str),
    /// The template cannot be read.
    MalformedTemplate(TemplateError),
    /// The request cannot be read.
    MalformedRequest(RequestError),
    /// A time and who vouches for it.
    Timestamp(Timestamp),
    /// A CA key on the device.
    CaKey(ObjectId),
    /// The CA keys that may sign.
    CaKeys(CaKeys<'a>),
    /// Domains, at least one of which two objects must share.
    Domains(Domains),
    /// A public key.
    PublicKey(PublicKey<'a>),
    /// A certificate's start or end: UNIX seconds, and by how many seconds it misses its bound.
    Time {
        /// UNIX seconds; 0 and `u64::MAX` have no bound in time.
        seconds: u64,
        /// Seconds outside the bound; 0 when inside.
        excess: u64,
    },
    /// Not before this time, UNIX seconds; `None` is unbounded.
    NotBefore(Option<u64>),
    /// Not after this time, UNIX seconds; `None` is unbounded.
    NotAfter(Option<u64>),
    /// The principals asked for.
    Principals(Principals<'a>),
    /// One principal.
    Principal(&'a [u8]),
    /// The principals that are forbidden.
    AnyBut(ForbiddenPrincipals<'a>),
    /// The template has no such rule, or it has nothing to say about this request.
    Unrestricted,
    /// User or host.
    Kind(CertificateKind),
    /// User, host or both.
    Kinds(CertificateTypes),
    /// Names, or texts, one of which it must be.
    OneOf(Names<'a>),
    /// Patterns, one of which it must match.
    Matching(Patterns<'a>),
    /// A text of the request; `None` where it has none.
    Name(Option<&'a [u8]>),
    /// Critical options or extensions.
    Options(Options<'a>),
    /// Networks that it must lie in.
    Networks(Networks<'a>),
    /// Seconds.
    Seconds(u64),
    /// A number.
    Number(u64),
    /// At most this number.
    AtMost(u64),
    /// At most so many seconds.
    AtMostSeconds(u64),
    /// A key that is to be certified.
    Subject(SubjectKey<'a>),
    /// A key that is to be certified and cannot be.
    UnusableSubject(SubjectKey<'a>, SubjectKeyError),
    /// Kinds of keys.
    Subjects(SubjectKeys<'a>),
    /// A range of serial numbers.
    Serials(Serials),
    /// Greater than this serial number; `None` is any.
    Above(Option<u64>),
    /// A signature algorithm.
    Algorithm(SignatureAlgorithm),
    /// Signature algorithms.
    Algorithms(SignatureAlgorithms<'a>),
    /// So many signatures.
    Quota(Quota),
}

/// A number as ids are written.
struct Hexadecimal(u16);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

fn join(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    let mut first = true;
    for item in items {
        if !core::mem::take(&mut first) {
            f.write_str(", ")?;
        }
        write!(f, "{item}")?;
    }
    if first { f.write_str("none") } else { Ok(()) }
}

/// UNIX seconds as a date in UTC, where the calendar reaches that far.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
            _ if self.0 == u64::MAX => f.write_str("forever"),
            Some(date) => write!(f, "{date}"),
            None => write!(f, "second {}", self.0),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("?"),
            Self::Text(text) => f.write_str(text),
            Self::MalformedTemplate(error) => write!(f, "malformed: {error}"),
            Self::MalformedRequest(error) => write!(f, "malformed: {error}"),
            Self::Timestamp(timestamp) => {
                let signature = match timestamp.authenticity() {
                    Authenticity::Verified => "signed",
                    Authenticity::Invalid => "signature not valid",
                    Authenticity::Unsigned => "not signed",
                };
                write!(f, "{}, {signature}", Date(timestamp.now().seconds().into()))
            }
            Self::CaKey(id) => write!(f, "{id}"),
            Self::CaKeys(ids) => join(f, ids.iter().map(Hexadecimal)),
            Self::Domains(domains) => join(f, domains.iter()),
            Self::PublicKey(key) => {
                f.write_str(key.kind().name())?;
                let (PublicKey::Rsa { modulus: bytes, .. }
                | PublicKey::Ecdsa { point: bytes, .. }
                | PublicKey::Ed25519(bytes)) = key;
                f.write_str(" ")?;
                for byte in bytes.iter().take(8) {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str("…")
            }
            Self::Time { seconds, excess: 0 } => write!(f, "{}", Date(*seconds)),
            Self::Time { seconds, excess } => write!(f, "{} (outside by {excess} s)", Date(*seconds)),
            Self::NotBefore(Some(bound)) => write!(f, "not before {}", Date(*bound)),
            Self::NotAfter(Some(bound)) => write!(f, "not after {}", Date(*bound)),
            Self::NotBefore(None) | Self::NotAfter(None) => f.write_str("UNBOUNDED"),
            Self::Principals(principals) => join(f, principals.iter().map(Printable)),
            Self::Principal(principal) => write!(f, "{}", Printable(principal)),
            Self::AnyBut(forbidden) if forbidden.iter().next().is_none() => f.write_str("anybody"),
            Self::AnyBut(forbidden) => {
                f.write_str("anybody but ")?;
                join(f, forbidden.iter().map(Printable))
            }
            Self::Unrestricted => f.write_str("anything"),
            Self::Kind(kind) => write!(f, "{kind}"),
            Self::Kinds(types) => {
                let kinds = [CertificateKind::User, CertificateKind::Host];
                join(f, kinds.into_iter().filter(|kind| types.contains(*kind)))
            }
            Self::OneOf(names) => join(f, names.iter().map(Printable)),
            Self::Matching(patterns) => join(f, patterns.iter().map(|pattern| Printable(pattern.as_bytes()))),
            Self::Name(None) => f.write_str("none"),
            Self::Name(Some(name)) => write!(f, "{}", Printable(name)),
            Self::Options(options) => join(f, options.iter().map(|(name, _)| Printable(name))),
            Self::Networks(networks) => join(f, networks.iter()),
            Self::Seconds(seconds) => write!(f, "{seconds} s"),
            Self::Number(number) => write!(f, "{number}"),
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtMostSeconds(most) => write!(f, "at most {most} s"),
            Self::Subject(key) => write_subject(f, key),
            Self::UnusableSubject(key, error) => {
                write_subject(f, key)?;
                write!(f, ": {error}")
            }
            Self::Subjects(keys) => {
                join(f, keys.iter().map(SubjectKind::name))?;
                if keys.least_rsa_bits > 0 {
                    write!(f, "; RSA of at least {} bits", keys.least_rsa_bits)?;
                }
                Ok(())
            }
            Self::Serials(Serials { first, last }) => write!(f, "{first} to {last}"),
            Self::Above(None) => f.write_str("anything, and then only greater ones"),
            Self::Above(Some(serial)) => write!(f, "greater than {serial}"),
            Self::Algorithm(algorithm) => f.write_str(algorithm.name()),
            Self::Algorithms(algorithms) => join(f, algorithms.iter().map(SignatureAlgorithm::name)),
            Self::Quota(Quota { signatures, window }) => {
                write!(f, "fewer than {signatures} in {window} s before")
            }
        }
    }
}

fn write_subject(f: &mut fmt::Formatter<'_>, key: &SubjectKey<'_>) -> fmt::Result {
    f.write_str(key.kind().map_or("?", SubjectKind::name))?;
    match key {
        SubjectKey::Plain(key) => key.rsa_bits().map_or(Ok(()), |bits| write!(f, " of {bits} bits")),
        SubjectKey::SecurityKey { .. } => Ok(()),
    }
}

/// One check: how it came out, what was asked and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// The rule.
    pub check: Check,
    /// How it came out.
    pub outcome: Outcome,
    /// What was asked.
    pub asked: Value<'a>,
    /// What is allowed.
    pub allowed: Value<'a>,
}

/// The CA key that is to sign, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaKey<'a> {
    /// Its id on the device.
    pub id: ObjectId,
    /// Its public key.
    pub public: PublicKey<'a>,
    /// What it signs with.
    pub algorithm: SignatureAlgorithm,
}

/// The domains of a CA key and of a template on the same device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BothDomains {
    /// The CA key's.
    pub ca_key: Domains,
    /// The template's.
    pub template: Domains,
}

/// What the device knows on which the CA key and the template are. What is `None` is not known, or there is no device.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnDevice<'m> {
    /// What it remembers of its signatures under the template. Rules that need it are undecided without it.
    pub memory: Option<&'m Memory>,
    /// The domains of the two. A key on a token and a template in a file have none, and need not share one.
    pub domains: Option<BothDomains>,
}

/// All findings about one request, in the order of [`Check::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    findings: [Finding<'a>; Check::ALL.len()],
}

impl<'a> Verdict<'a> {
    /// Every check, in the order of [`Check::ALL`].
    #[must_use]
    pub const fn findings(&self) -> &[Finding<'a>; Check::ALL.len()] {
        &self.findings
    }

    /// Whether the certificate may be signed: every check says so.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.findings.iter().all(|finding| finding.outcome == Outcome::Allowed)
    }

    /// The checks that stand in the way.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding<'a>> {
        self.findings.iter().filter(|finding| finding.outcome == Outcome::Refused)
    }

    /// The error byte of a refusal: `InvalidData` when the request cannot be read, else
    /// `SshCaConstraintViolation`.
    pub fn permit(&self) -> Result<(), DeviceError> {
        if self.is_allowed() {
            return Ok(());
        }
        let unreadable = |finding: &Finding<'_>| matches!(finding.asked, Value::MalformedRequest(_));
        if self.findings.iter().any(unreadable) {
            Err(DeviceError::InvalidData)
        } else {
            Err(DeviceError::SshCaConstraintViolation)
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_row(f, "check", "outcome", "asked", "allowed")?;
        // What the template has no rule for needs no line.
        let mut told = self.findings.iter().filter(|finding| finding.allowed != Value::Unrestricted);
        told.try_for_each(|finding| {
            write_row(f, finding.check.name(), finding.outcome.name(), &finding.asked, &finding.allowed)
        })
    }
}

/// Characters of the column with what was asked.
const ASKED: usize = 44;

/// Writes a line of a verdict's table. Nothing is put together in memory: a value can be as long as a request.
///
/// # Errors
/// The formatter's.
pub fn write_row(
    f: &mut fmt::Formatter<'_>,
    check: &str,
    outcome: &str,
    asked: impl fmt::Display,
    allowed: impl fmt::Display,
) -> fmt::Result {
    let mut length = Characters(0);
    write!(length, "{asked}")?;
    let gap = ASKED.saturating_sub(length.0);
    writeln!(f, "  {check:<20}  {outcome:<9}  {asked}{:gap$}  {allowed}", "")
}

/// A text that is only counted.
struct Characters(usize);

impl fmt::Write for Characters {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}

/// A decision of a device about one request.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The CA key that was to sign.
    pub ca_key: ObjectId,
    /// The template it was to sign under.
    pub template: ObjectId,
    /// How it was to sign.
    pub algorithm: SignatureAlgorithm,
    /// What the policy says.
    pub verdict: Verdict<'a>,
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.verdict.is_allowed() { "allowed" } else { "REFUSED" };
        let Self { ca_key, template, algorithm, .. } = self;
        writeln!(f, "{outcome}: certificate by CA key {ca_key} ({algorithm}) under template {template}")?;
        write!(f, "{}", self.verdict)
    }
}

/// Judges a request.
///
/// `timestamp` must have been verified with this template's key for this request's bytes.
#[must_use]
pub fn evaluate<'a>(
    template: &Result<Template<'a>, TemplateError>,
    request: &Result<Request<'a>, RequestError>,
    timestamp: &Timestamp,
    ca_key: &CaKey<'a>,
    device: OnDevice<'_>,
) -> Verdict<'a> {
    Verdict {
        findings: Check::ALL.map(|check| {
            let (outcome, asked, allowed) = find(check, template, request, timestamp, ca_key, device);
            Finding { check, outcome, asked, allowed }
        }),
    }
}

fn find<'a>(
    check: Check,
    template: &Result<Template<'a>, TemplateError>,
    request: &Result<Request<'a>, RequestError>,
    timestamp: &Timestamp,
    ca_key: &CaKey<'a>,
    device: OnDevice<'_>,
) -> (Outcome, Value<'a>, Value<'a>) {
    let well_formed = Value::Text("well-formed");
    let (template, request) = match (check, template, request) {
        (Check::Template, Ok(_), _) | (Check::Request, Ok(_), Ok(_)) => {
            return (Outcome::Allowed, well_formed.clone(), well_formed);
        }
        (Check::Template, Err(error), _) => {
            return (Outcome::Refused, Value::MalformedTemplate(*error), well_formed);
        }
        (Check::Request, Ok(_), Err(error)) => {
            return (Outcome::Refused, Value::MalformedRequest(error.clone()), well_formed);
        }
        (_, Ok(template), Ok(request)) => (template, request),
        // Without its template a request cannot even be told from the timestamp signature before it.
        _ => return (Outcome::Undecided, Value::Unknown, Value::Unknown),
    };
    match check {
        Check::Timestamp => (
            match timestamp.authenticity() {
                Authenticity::Verified => Outcome::Allowed,
                Authenticity::Invalid => Outcome::Refused,
                Authenticity::Unsigned => Outcome::Undecided,
            },
            Value::Timestamp(*timestamp),
            Value::Text("signed by the timestamp authority"),
        ),
        Check::CaKey => (
            Outcome::of(template.ca_keys.contains(ca_key.id)),
            Value::CaKey(ca_key.id),
            Value::CaKeys(template.ca_keys),
        ),
        Check::Domain => match device.domains {
            Some(BothDomains { ca_key, template }) if !ca_key.intersects(template) => {
                (Outcome::Refused, Value::Domains(ca_key), Value::Domains(template))
            }
            _ => UNRESTRICTED,
        },
        Check::SignatureKey => (
            Outcome::of(request.signature_key == ca_key.public),
            Value::PublicKey(request.signature_key),
            Value::PublicKey(ca_key.public),
        ),
        Check::ValidAfter => {
            let earliest = template.not_before.earliest(timestamp.now());
            let excess = earliest.map_or(0, |earliest| earliest.saturating_sub(request.valid_after));
            (
                Outcome::of(excess == 0),
                Value::Time { seconds: request.valid_after, excess },
                Value::NotBefore(earliest),
            )
        }
        Check::ValidBefore => {
            let latest = template.not_after.latest(timestamp.now());
            let excess = latest.map_or(0, |latest| request.valid_before.saturating_sub(latest));
            (
                Outcome::of(excess == 0),
                Value::Time { seconds: request.valid_before, excess },
                Value::NotAfter(latest),
            )
        }
        Check::PrincipalsPresent => (
            Outcome::of(template.rules.allow_empty_principals || !request.principals.is_empty()),
            Value::Principals(request.principals),
            Value::Text(if template.rules.allow_empty_principals { "any number" } else { "at least one" }),
        ),
        Check::ForbiddenPrincipals => {
            let forbidden = template.forbidden_principals;
            let forbids = |principal: &&[u8]| match request.kind {
                CertificateKind::User => forbidden.contains(principal),
                CertificateKind::Host => {
                    let principal = HostPattern::new(principal);
                    forbidden.iter().any(|name| principal.stands_for(name))
                }
            };
            match request.principals.iter().find(forbids) {
                Some(principal) => (Outcome::Refused, Value::Principal(principal), Value::AnyBut(forbidden)),
                None => (Outcome::Allowed, Value::Principals(request.principals), Value::AnyBut(forbidden)),
            }
        }
        Check::SubjectKey if let Err(error) = subject::check(&request.subject_key) => (
            Outcome::Refused,
            Value::UnusableSubject(request.subject_key, error),
            Value::Text("a key that OpenSSH reads"),
        ),
        _ => find_rule(check, &template.rules, request, timestamp.now(), ca_key.algorithm, device.memory),
    }
}

/// What nothing is said about.
const UNRESTRICTED: (Outcome, Value<'_>, Value<'_>) =
    (Outcome::Allowed, Value::Unrestricted, Value::Unrestricted);

/// The finding of a rule that an extension tag makes.
fn find_rule<'a>(
    check: Check,
    rules: &Rules<'a>,
    request: &Request<'a>,
    now: Now,
    algorithm: SignatureAlgorithm,
    memory: Option<&Memory>,
) -> (Outcome, Value<'a>, Value<'a>) {
    let lifetime = request.lifetime();
    let option = |wanted: &[u8]| {
        request.critical_options.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
    };
    // What cannot be said without a device.
    let remembered = |outcome: &dyn Fn(&Memory) -> bool| match memory {
        Some(memory) => Outcome::of(outcome(memory)),
        None => Outcome::Undecided,
    };
    let found = match check {
        Check::CertificateType => rules.certificate_types.map(|types| {
            (Outcome::of(types.contains(request.kind)), Value::Kind(request.kind), Value::Kinds(types))
        }),
        Check::HostPatterns if request.kind == CertificateKind::Host => {
            let is_pattern = |principal: &&[u8]| !HostPattern::new(principal).is_name();
            match (rules.host_patterns, request.principals.iter().find(is_pattern)) {
                (true, _) => {
                    let allowed = Value::Text("names, and patterns with * and ?");
                    Some((Outcome::Allowed, Value::Principals(request.principals), allowed))
                }
                (false, Some(pattern)) => {
                    let allowed = Value::Text("names without * and ?");
                    Some((Outcome::Refused, Value::Principal(pattern), allowed))
                }
                (false, None) => None,
            }
        }
        Check::AllowedPrincipals => rules.allow_principals.map(|patterns| {
            let allowed = Value::Matching(patterns);
            let allows = |principal: &[u8]| match request.kind {
                CertificateKind::User => patterns.matches(principal),
                CertificateKind::Host => patterns.cover(&HostPattern::new(principal)),
            };
            match request.principals.iter().find(|principal| !allows(principal)) {
                Some(principal) => (Outcome::Refused, Value::Principal(principal), allowed),
                None => (Outcome::Allowed, Value::Principals(request.principals), allowed),
            }
        }),
        Check::PrincipalCount => rules.max_principals.map(|most| {
            let (count, most) = (request.principals.iter().count(), u64::from(most));
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            (Outcome::of(count <= most), Value::Number(count), Value::AtMost(most))
        }),
        Check::Lifetime => rules.max_lifetime.map(|most| {
            let most = u64::from(most);
            (Outcome::of(lifetime <= most), Value::Seconds(lifetime), Value::AtMostSeconds(most))
        }),
        Check::Extensions => rules.allow_extensions.map(|names| options_within(request.extensions, names)),
        Check::CriticalOptions => {
            rules.allow_critical_options.map(|names| options_within(request.critical_options, names))
        }
        Check::RequiredOptions => rules.require_critical_options.map(|names| {
            let present = names.iter().all(|name| option(name).is_some());
            (Outcome::of(present), Value::Options(request.critical_options), Value::OneOf(names))
        }),
        Check::ForceCommand => rules.force_command.map(|commands| {
            let asked = option(FORCE_COMMAND);
            let allowed =
                asked.is_none_or(|command| command.is_some_and(|command| commands.contains(command)));
            (Outcome::of(allowed), Value::Name(asked.flatten()), Value::OneOf(commands))
        }),
        Check::SourceAddress => rules.source_address.map(|networks| {
            let asked = option(SOURCE_ADDRESS);
            let allowed = asked.is_none_or(|list| list.is_some_and(|list| networks.contain(list)));
            (Outcome::of(allowed), Value::Name(asked.flatten()), Value::Networks(networks))
        }),
        Check::SubjectKey => rules.subject_keys.map(|keys| {
            let subject = request.subject_key;
            (Outcome::of(keys.contains(&subject)), Value::Subject(subject), Value::Subjects(keys))
        }),
        Check::KeyId => rules.key_id.map(|patterns| {
            let allowed = Outcome::of(patterns.matches(request.key_id));
            (allowed, Value::Name(Some(request.key_id)), Value::Matching(patterns))
        }),
        Check::Serial => rules.serials.map(|serials| {
            let inside = (serials.first..=serials.last).contains(&request.serial);
            (Outcome::of(inside), Value::Number(request.serial), Value::Serials(serials))
        }),
        Check::IncreasingSerial => rules.increasing_serials.then(|| {
            let last = memory.and_then(|memory| memory.last_serial);
            let outcome = remembered(&|_| last.is_none_or(|last| request.serial > last));
            (outcome, Value::Number(request.serial), Value::Above(last))
        }),
        Check::SerialStep => rules.serials_max_step.map(|step| {
            // The first is counted from the beginning of the range: nobody can use up all numbers at once.
            let before = rules.serials.map_or(0, |serials| serials.first.saturating_sub(1));
            let last = memory.and_then(|memory| memory.last_serial).unwrap_or(before).max(before);
            let most = last.saturating_add(step);
            let outcome = remembered(&|_| request.serial <= most);
            (outcome, Value::Number(request.serial), Value::AtMost(most))
        }),
        Check::SignatureAlgorithm => rules.signature_algorithms.map(|algorithms| {
            let allowed = Outcome::of(algorithms.contains(algorithm));
            (allowed, Value::Algorithm(algorithm), Value::Algorithms(algorithms))
        }),
        Check::Clock => rules.clock.map(|tolerance| {
            let since = rules.clock_max_step.and_then(|step| step.since);
            let highest = memory.and_then(|memory| memory.highest_now).max(since);
            let earliest = highest.map_or(0, |highest| highest.saturating_sub(tolerance));
            let (asked, bound) = (u64::from(now.seconds()), u64::from(earliest));
            let excess = bound.saturating_sub(asked);
            let time = Value::Time { seconds: asked, excess };
            (remembered(&|_| excess == 0), time, Value::NotBefore(Some(bound)))
        }),
        Check::ClockStep => rules.clock_max_step.map(|ClockStep { seconds, since }| {
            let highest = memory.and_then(|memory| memory.highest_now).max(since);
            let latest = highest.map(|highest| u64::from(highest) + u64::from(seconds));
            let asked = u64::from(now.seconds());
            let excess = latest.map_or(0, |latest| asked.saturating_sub(latest));
            let time = Value::Time { seconds: asked, excess };
            (remembered(&|_| excess == 0), time, Value::NotAfter(latest))
        }),
        Check::Quota => rules.quota.map(|quota| {
            let used = memory.map_or(0, |memory| memory.signatures_in(quota.window, now));
            let outcome = remembered(&|_| used < usize::from(quota.signatures));
            (outcome, Value::Number(u64::try_from(used).unwrap_or(u64::MAX)), Value::Quota(quota))
        }),
        Check::Presence => rules.presence.map(|presence| {
            let asked = if presence.applies(request, now) { "a touch is waited for" } else { "no touch" };
            let allowed = match presence {
                Presence::Always => "a touch for every signature",
                Presence::Above(_) => "a touch above a lifetime, or a time ahead",
            };
            (remembered(&|_| true), Value::Text(asked), Value::Text(allowed))
        }),
        _ => None,
    };
    found.unwrap_or(UNRESTRICTED)
}

/// The finding about options that may have these names only.
fn options_within<'a>(options: Options<'a>, names: Names<'a>) -> (Outcome, Value<'a>, Value<'a>) {
    match options.iter().find(|(name, _)| !names.contains(name)) {
        Some((name, _)) => (Outcome::Refused, Value::Name(Some(name)), Value::OneOf(names)),
        None => (Outcome::Allowed, Value::Options(options), Value::OneOf(names)),
    }
}
