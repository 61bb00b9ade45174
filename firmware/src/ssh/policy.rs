//! The policy: whether a CA key may sign a certificate request under a template.
//!
//! [`judge`] is pure and total, and the only place where this is decided: on a board, in the simulator and in
//! the host tool alike, for signing, for EXPLAIN SSH REQUEST and for `template check`. It returns a
//! [`Verdict`] with one [`Finding`] for every [`Check`], in a fixed order, each with what was asked and what
//! was allowed. A certificate may be signed when every finding is [`Outcome::Allowed`]; a check that cannot
//! be decided is [`Outcome::Undecided`], and that is refused.
//!
//! [`Verdict::permit`] turns a verdict into a [`Permit`] or a [`Refusal`]. Nothing else makes a permit, and
//! [`super::certificate::sign`] accepts nothing else. Whether a template may be deleted is decided here too:
//! [`judge_deletion`].
//!
//! A check is either one of the [`BaseCheck`]s, which apply under every template, or a rule of the table in
//! [`sshsm_protocol::ssh::rules`]. Both are matched without a catch-all arm: a rule that is read from a
//! template but not judged does not compile.

use core::fmt::{self, Write as _};

use sshsm_protocol::ssh::host_pattern::HostPattern;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::{CertificateKind, Options, Request, RequestError};
use sshsm_protocol::ssh::rules::{
    ClockStep, FORCE_COMMAND, Names, Presence, Rule, RuleTag, Rules, SOURCE_ADDRESS,
};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{Template, TemplateError, is_sealed};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{DeviceError, Domains, ObjectId};

use super::memory::Memory;
use super::subject;
use super::timestamp::{Authenticity, Timestamp};
use crate::crypto::Provider;

pub use super::value::Value;

macro_rules! base_checks {
    ($($(#[$what:meta])+ $check:ident $name:literal;)*) => {
        /// The checks under every template. Those that correspond to a key of template files have its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum BaseCheck {
            $($(#[$what])+ $check,)*
        }

        impl BaseCheck {
            /// All, in the order in which they are reported.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$check),*];

            /// A stable name, for logs and machine-readable output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$check => $name,)* }
            }
        }
    };
}

base_checks! {
    /// The template is well-formed.
    Template "template";
    /// The request is well-formed.
    Request "request";
    /// The template's timestamp authority signed now for this request.
    TimestampKey "timestamp-key";
    /// The template lists the CA key that is to sign.
    CaKeys "ca-keys";
    /// The CA key and the template share a domain.
    Domain "domain";
    /// The request names that key as the one that signs it.
    SignatureKey "signature-key";
    /// The certificate does not begin too early.
    NotBeforeOffset "not-before-offset";
    /// The certificate does not end too late.
    NotAfterOffset "not-after-offset";
    /// The certificate names no principal that the template forbids; a host certificate also not by a pattern
    /// or in another case.
    ForbidPrincipals "forbid-principals";
}

/// One thing that a request is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// A check under every template.
    Base(BaseCheck),
    /// A rule that a template may have. Some apply even without it: a certificate has a principal, a host
    /// certificate has no patterns, and OpenSSH can read the certified key.
    Rule(RuleTag),
}

impl Check {
    /// All checks, in the order in which they are reported: those of every template, then the rules by their numbers.
    #[allow(clippy::indexing_slicing, reason = "an index out of bounds does not compile here")]
    pub const ALL: [Self; BaseCheck::ALL.len() + RuleTag::ALL.len()] = {
        let mut all = [Self::Base(BaseCheck::Template); BaseCheck::ALL.len() + RuleTag::ALL.len()];
        let mut place = 0;
        while place < all.len() {
            all[place] = if place < BaseCheck::ALL.len() {
                Self::Base(BaseCheck::ALL[place])
            } else {
                Self::Rule(RuleTag::ALL[place - BaseCheck::ALL.len()])
            };
            place += 1;
        }
        all
    };

    /// A stable name, for logs and machine-readable output: the key of template files, if there is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base(check) => check.name(),
            Self::Rule(tag) => tag.name(),
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
    /// It cannot be decided: the template or the request is malformed, or the time is not signed.
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

/// One check: its outcome, what was asked and what is allowed.
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

impl Finding<'_> {
    fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }
}

/// The CA key that is to sign, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaKey<'a> {
    /// Its id on the device.
    pub id: ObjectId,
    /// Its public key.
    pub public: PublicKey<'a>,
    /// The algorithm that it signs with.
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

/// The state of the device that holds the CA key and the template. `None` means not known, or no device.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnDevice<'m> {
    /// The state kept about signatures under the template. Rules that need it are undecided without it.
    pub memory: Option<&'m Memory>,
    /// The domains of the two. A key on a token and a template in a file have none, and need not share one.
    pub domains: Option<BothDomains>,
}

/// The input of a judgement.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The template, as it was read.
    pub template: &'a Result<Template<'a>, TemplateError>,
    /// The bytes that are to be signed.
    pub request: &'a [u8],
    /// The stated time.
    pub now: Now,
    /// The timestamp authority's signature of that time for the request. Without one the time stays undecided.
    pub timestamp_signature: Option<&'a [u8]>,
    /// The CA key that is to sign.
    pub ca_key: CaKey<'a>,
    /// The state of the device.
    pub device: OnDevice<'a>,
}

/// All findings about one request, in the order of [`Check::ALL`].
#[derive(Debug)]
pub struct Verdict<'a> {
    findings: [Finding<'a>; Check::ALL.len()],
    /// There is one when every finding is [`Outcome::Allowed`].
    permit: Option<Permit<'a>>,
}

impl<'a> Verdict<'a> {
    /// Every check, in the order of [`Check::ALL`].
    #[must_use]
    pub const fn findings(&self) -> &[Finding<'a>; Check::ALL.len()] {
        &self.findings
    }

    /// The findings worth reporting: those about rules that the template has, and about checks that every
    /// template requires.
    pub fn told(&self) -> impl Iterator<Item = &Finding<'a>> {
        self.findings.iter().filter(|finding| finding.allowed != Value::Unrestricted)
    }

    /// Whether the certificate may be signed: every check allows it.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.permit.is_some()
    }

    /// The checks that do not allow it.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding<'a>> {
        self.findings.iter().filter(|finding| finding.outcome == Outcome::Refused)
    }

    /// The permission to sign, if every check allows it.
    ///
    /// # Errors
    /// Why nothing may be signed.
    pub fn permit(self) -> Result<Permit<'a>, Refusal> {
        let unreadable = |finding: &Finding<'_>| matches!(finding.asked, Value::MalformedRequest(_));
        match self.permit {
            Some(permit) => Ok(permit),
            None if self.findings.iter().any(unreadable) => Err(Refusal::Unreadable),
            None => Err(Refusal::NotAllowed),
        }
    }
}

/// The permission to sign one certificate, which only [`judge`] grants. It states what has to be done before
/// it is used.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit<'a> {
    request: &'a [u8],
    algorithm: SignatureAlgorithm,
    needs_touch: bool,
    memory: Option<Memory>,
}

impl<'a> Permit<'a> {
    /// The bytes to be signed.
    #[must_use]
    pub const fn request(&self) -> &'a [u8] {
        self.request
    }

    /// The algorithm that the CA key signs with.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Whether the template requires a touch first. The device's own option may require one too.
    #[must_use]
    pub const fn needs_touch(&self) -> bool {
        self.needs_touch
    }

    /// The state that the device has to store first, if the template has a rule that counts.
    #[must_use]
    pub const fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }
}

/// Why something is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read.
    #[error("the request is malformed")]
    Unreadable,
    /// A check does not allow it, or could not be made.
    #[error("the template does not allow it")]
    NotAllowed,
    /// The template is to stay.
    #[error("the template is sealed")]
    Sealed,
}

impl From<Refusal> for DeviceError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unreadable => Self::InvalidData,
            Refusal::NotAllowed => Self::SshCaConstraintViolation,
            Refusal::Sealed => Self::InsufficientPermissions,
        }
    }
}

/// Judges whether a template may be deleted or replaced, even one that this device, being strict, cannot
/// judge by.
///
/// # Errors
/// When its own rules seal it.
pub fn judge_deletion(template: &[u8]) -> Result<(), Refusal> {
    if is_sealed(template) { Err(Refusal::Sealed) } else { Ok(()) }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_row(f, "check", "outcome", "asked", "allowed")?;
        // Rules that the template does not have need no line.
        self.told().try_for_each(|finding| {
            write_row(f, finding.check.name(), finding.outcome.name(), &finding.asked, &finding.allowed)
        })
    }
}

/// Characters of the column with what was asked.
const ASKED: usize = 44;

/// Writes a line of a verdict's table. Nothing is assembled in memory: a value can be as long as a request.
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
    writeln!(f, "  {check:<24}  {outcome:<9}  {asked}{:gap$}  {allowed}", "")
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
#[derive(Debug)]
pub struct Decision<'a> {
    /// The CA key that was to sign.
    pub ca_key: ObjectId,
    /// The template it was to sign under.
    pub template: ObjectId,
    /// How it was to sign.
    pub algorithm: SignatureAlgorithm,
    /// The policy's verdict.
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
#[must_use]
pub fn judge<'a, C: Provider>(case: &Case<'a>) -> Verdict<'a> {
    let request = Request::decode(case.request);
    let timestamp = match (case.template, case.timestamp_signature) {
        (Ok(template), Some(signature)) => {
            Timestamp::verify::<C>(&template.timestamp_key, case.request, case.now, signature)
        }
        (Err(_), _) | (_, None) => Timestamp::unsigned(case.now),
    };
    let findings = Check::ALL.map(|check| {
        let (outcome, asked, allowed) = match (case.template, &request) {
            (Ok(template), Ok(request)) => {
                let Case { ca_key, device, .. } = *case;
                Question { template, request, timestamp, ca_key, device }.find(check)
            }
            (template, request) => find_unreadable(check, template, request),
        };
        Finding { check, outcome, asked, allowed }
    });
    let permit = match (case.template, &request) {
        (Ok(template), Ok(request)) if findings.iter().all(Finding::is_allowed) => {
            Some(permit(case, template, request))
        }
        _ => None,
    };
    Verdict { findings, permit }
}

/// The permission for what every check allows.
fn permit<'a>(case: &Case<'a>, template: &Template<'a>, request: &Request<'a>) -> Permit<'a> {
    let rules = &template.rules;
    let needs_touch = rules.presence.is_some_and(|presence| presence.applies(request, case.now));
    // Rules that need a memory are undecided without one.
    let memory = case.device.memory.filter(|_| rules.has_memory());
    let memory = memory.map(|memory| memory.after(rules, request, case.now));
    Permit { request: case.request, algorithm: case.ca_key.algorithm, needs_touch, memory }
}

/// The outcome of a check, what was asked, and what is allowed.
type Found<'a> = (Outcome, Value<'a>, Value<'a>);

/// The finding for a rule that the template does not have.
const UNRESTRICTED: Found<'_> = (Outcome::Allowed, Value::Unrestricted, Value::Unrestricted);

const WELL_FORMED: Value<'_> = Value::Text("well-formed");

/// The finding when the template or the request cannot be read, so that nothing else can be decided.
fn find_unreadable<'a>(
    check: Check,
    template: &Result<Template<'a>, TemplateError>,
    request: &Result<Request<'a>, RequestError>,
) -> Found<'a> {
    match (check, template, request) {
        (Check::Base(BaseCheck::Template), Ok(_), _) => (Outcome::Allowed, WELL_FORMED, WELL_FORMED),
        (Check::Base(BaseCheck::Template), Err(error), _) => {
            (Outcome::Refused, Value::MalformedTemplate(*error), WELL_FORMED)
        }
        // Without its template, the start of a request cannot even be located after the timestamp signature.
        (Check::Base(BaseCheck::Request), Ok(_), Err(error)) => {
            (Outcome::Refused, Value::MalformedRequest(error.clone()), WELL_FORMED)
        }
        _ => (Outcome::Undecided, Value::Unknown, Value::Unknown),
    }
}

/// The input, once it has been read.
struct Question<'q, 'a> {
    template: &'q Template<'a>,
    request: &'q Request<'a>,
    timestamp: Timestamp,
    ca_key: CaKey<'a>,
    device: OnDevice<'a>,
}

impl<'a> Question<'_, 'a> {
    fn find(&self, check: Check) -> Found<'a> {
        match check {
            Check::Base(check) => self.find_base(check),
            Check::Rule(tag) => self.find_rule(self.template.rules.rule(tag)),
        }
    }

    fn find_base(&self, check: BaseCheck) -> Found<'a> {
        let Self { template, request, timestamp, ca_key, device } = self;
        match check {
            BaseCheck::Template | BaseCheck::Request => (Outcome::Allowed, WELL_FORMED, WELL_FORMED),
            BaseCheck::TimestampKey => (
                match timestamp.authenticity() {
                    Authenticity::Verified => Outcome::Allowed,
                    Authenticity::Invalid => Outcome::Refused,
                    Authenticity::Unsigned => Outcome::Undecided,
                },
                Value::Timestamp(*timestamp),
                Value::Text("signed by the timestamp authority"),
            ),
            BaseCheck::CaKeys => (
                Outcome::of(template.ca_keys.contains(ca_key.id)),
                Value::CaKey(ca_key.id),
                Value::CaKeys(template.ca_keys),
            ),
            BaseCheck::Domain => match device.domains {
                Some(BothDomains { ca_key, template }) if !ca_key.intersects(template) => {
                    (Outcome::Refused, Value::Domains(ca_key), Value::Domains(template))
                }
                // A key on a token and a template in a file have no domains.
                Some(_) | None => UNRESTRICTED,
            },
            BaseCheck::SignatureKey => (
                Outcome::of(request.signature_key == ca_key.public),
                Value::PublicKey(request.signature_key),
                Value::PublicKey(ca_key.public),
            ),
            BaseCheck::NotBeforeOffset => {
                let earliest = template.not_before.earliest(timestamp.now());
                let excess = earliest.map_or(0, |earliest| earliest.saturating_sub(request.valid_after));
                (
                    Outcome::of(excess == 0),
                    Value::Time { seconds: request.valid_after, excess },
                    Value::NotBefore(earliest),
                )
            }
            BaseCheck::NotAfterOffset => {
                let latest = template.not_after.latest(timestamp.now());
                let excess = latest.map_or(0, |latest| request.valid_before.saturating_sub(latest));
                (
                    Outcome::of(excess == 0),
                    Value::Time { seconds: request.valid_before, excess },
                    Value::NotAfter(latest),
                )
            }
            BaseCheck::ForbidPrincipals => {
                let forbidden = template.forbidden_principals;
                let forbids = |principal: &&[u8]| match request.kind {
                    CertificateKind::User => forbidden.contains(principal),
                    CertificateKind::Host => {
                        let principal = HostPattern::new(principal);
                        forbidden.iter().any(|name| principal.stands_for(name))
                    }
                };
                self.principals_but(forbids, Value::AnyBut(forbidden))
            }
        }
    }

    fn find_rule(&self, rule: Rule<'a>) -> Found<'a> {
        let Self { template: Template { rules, .. }, request, device, .. } = self;
        let now = self.timestamp.now();
        let memory = device.memory;
        let option = |wanted: &[u8]| {
            request.critical_options.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        match rule {
            Rule::CertificateTypes(types) => types.map_or(UNRESTRICTED, |types| {
                (Outcome::of(types.contains(request.kind)), Value::Kind(request.kind), Value::Kinds(types))
            }),
            Rule::AllowPrincipals(patterns) => patterns.map_or(UNRESTRICTED, |patterns| {
                let others = |principal: &&[u8]| match request.kind {
                    CertificateKind::User => !patterns.matches(principal),
                    CertificateKind::Host => !patterns.cover(&HostPattern::new(principal)),
                };
                self.principals_but(others, Value::Matching(patterns))
            }),
            Rule::MaxLifetime(most) => most.map_or(UNRESTRICTED, |most| {
                let (lifetime, most) = (request.lifetime(), u64::from(most));
                (Outcome::of(lifetime <= most), Value::Seconds(lifetime), Value::AtMostSeconds(most))
            }),
            Rule::MaxPrincipals(most) => most.map_or(UNRESTRICTED, |most| {
                let (count, most) = (request.principals.iter().count(), u64::from(most.get()));
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                (Outcome::of(count <= most), Value::Number(count), Value::AtMost(most))
            }),
            // OpenSSH reads an empty list as "anyone", or refuses it.
            Rule::AllowEmptyPrincipals(allowed) => (
                Outcome::of(allowed || !request.principals.is_empty()),
                Value::Principals(request.principals),
                Value::Text(if allowed { "any number" } else { "at least one" }),
            ),
            Rule::AllowExtensions(names) => {
                names.map_or(UNRESTRICTED, |names| options_within(request.extensions, names))
            }
            Rule::AllowCriticalOptions(names) => {
                names.map_or(UNRESTRICTED, |names| options_within(request.critical_options, names))
            }
            Rule::RequireCriticalOptions(names) => names.map_or(UNRESTRICTED, |names| {
                let present = names.iter().all(|name| option(name).is_some());
                (Outcome::of(present), Value::Options(request.critical_options), Value::OneOf(*names))
            }),
            Rule::ForceCommand(commands) => commands.map_or(UNRESTRICTED, |commands| {
                let asked = option(FORCE_COMMAND);
                let allowed =
                    asked.is_none_or(|command| command.is_some_and(|command| commands.contains(command)));
                (Outcome::of(allowed), Value::Name(asked.flatten()), Value::OneOf(*commands))
            }),
            Rule::SourceAddress(networks) => networks.map_or(UNRESTRICTED, |networks| {
                let asked = option(SOURCE_ADDRESS);
                let allowed = asked.is_none_or(|list| list.is_some_and(|list| networks.contain(list)));
                (Outcome::of(allowed), Value::Name(asked.flatten()), Value::Networks(networks))
            }),
            Rule::SubjectKeys(keys) => match (subject::check(&request.subject_key), keys) {
                (Err(error), _) => (
                    Outcome::Refused,
                    Value::UnusableSubject(request.subject_key, error),
                    Value::Text("a key that OpenSSH reads"),
                ),
                (Ok(()), Some(keys)) => (
                    Outcome::of(keys.contains(&request.subject_key)),
                    Value::Subject(request.subject_key),
                    Value::Subjects(keys),
                ),
                (Ok(()), None) => UNRESTRICTED,
            },
            Rule::KeyId(patterns) => patterns.map_or(UNRESTRICTED, |patterns| {
                let allowed = Outcome::of(patterns.matches(request.key_id));
                (allowed, Value::Name(Some(request.key_id)), Value::Matching(patterns))
            }),
            Rule::Serials(serials) => serials.map_or(UNRESTRICTED, |serials| {
                let inside = (serials.first..=serials.last).contains(&request.serial);
                (Outcome::of(inside), Value::Number(request.serial), Value::Serials(serials))
            }),
            Rule::IncreasingSerials(false) => UNRESTRICTED,
            Rule::IncreasingSerials(true) => {
                let last = memory.and_then(|memory| memory.last_serial);
                let outcome = remembered(memory, last.is_none_or(|last| request.serial > last));
                (outcome, Value::Number(request.serial), Value::Above(last))
            }
            Rule::SignatureAlgorithms(algorithms) => algorithms.map_or(UNRESTRICTED, |algorithms| {
                let algorithm = self.ca_key.algorithm;
                let allowed = Outcome::of(algorithms.contains(algorithm));
                (allowed, Value::Algorithm(algorithm), Value::Algorithms(algorithms))
            }),
            Rule::Clock(tolerance) => tolerance.map_or(UNRESTRICTED, |tolerance| {
                let earliest = clock_stands_at(rules, memory).map_or(0, |now| now.saturating_sub(tolerance));
                let (asked, bound) = (u64::from(now.seconds()), u64::from(earliest));
                let excess = bound.saturating_sub(asked);
                let time = Value::Time { seconds: asked, excess };
                (remembered(memory, excess == 0), time, Value::NotBefore(Some(bound)))
            }),
            Rule::Quota(quota) => quota.map_or(UNRESTRICTED, |quota| {
                let used = memory.map_or(0, |memory| memory.signatures_in(quota.window, now));
                let outcome = remembered(memory, used < usize::from(quota.signatures));
                (outcome, Value::Number(u64::try_from(used).unwrap_or(u64::MAX)), Value::Quota(quota))
            }),
            // The device's user is asked once nothing else refuses.
            Rule::Presence(presence) => presence.map_or(UNRESTRICTED, |presence| {
                let asked = if presence.applies(request, now) { "a touch is waited for" } else { "no touch" };
                let allowed = match presence {
                    Presence::Always => "a touch for every signature",
                    Presence::Above(_) => "a touch above a lifetime, or a time ahead",
                };
                (remembered(memory, true), Value::Text(asked), Value::Text(allowed))
            }),
            // It concerns the template, not what is signed under it.
            Rule::Sealed(_) => UNRESTRICTED,
            // OpenSSH treats `*` and `?` in a host certificate as wildcards.
            Rule::HostPatterns(allowed) => {
                let is_pattern = |principal: &&[u8]| !HostPattern::new(principal).is_name();
                match (request.kind, allowed, request.principals.iter().find(is_pattern)) {
                    (CertificateKind::User, ..) | (CertificateKind::Host, false, None) => UNRESTRICTED,
                    (CertificateKind::Host, true, _) => {
                        let allowed = Value::Text("names, and patterns with * and ?");
                        (Outcome::Allowed, Value::Principals(request.principals), allowed)
                    }
                    (CertificateKind::Host, false, Some(pattern)) => {
                        let allowed = Value::Text("names without * and ?");
                        (Outcome::Refused, Value::Principal(pattern), allowed)
                    }
                }
            }
            Rule::SerialsMaxStep(step) => step.map_or(UNRESTRICTED, |step| {
                // The first step is counted from the beginning of the range: no one can use up all numbers at
                // once.
                let before = rules.serials.map_or(0, |serials| serials.first.saturating_sub(1));
                let last = memory.and_then(|memory| memory.last_serial).unwrap_or(before).max(before);
                let most = last.saturating_add(step.get());
                let outcome = remembered(memory, request.serial <= most);
                (outcome, Value::Number(request.serial), Value::AtMost(most))
            }),
            Rule::ClockMaxStep(step) => step.map_or(UNRESTRICTED, |ClockStep { seconds, .. }| {
                let highest = clock_stands_at(rules, memory);
                let latest = highest.map(|highest| u64::from(highest) + u64::from(seconds));
                let asked = u64::from(now.seconds());
                let excess = latest.map_or(0, |latest| asked.saturating_sub(latest));
                let time = Value::Time { seconds: asked, excess };
                (remembered(memory, excess == 0), time, Value::NotAfter(latest))
            }),
        }
    }

    /// The finding about principals, which names the first unwanted one.
    fn principals_but(&self, unwanted: impl Fn(&&'a [u8]) -> bool, allowed: Value<'a>) -> Found<'a> {
        match self.request.principals.iter().find(unwanted) {
            Some(principal) => (Outcome::Refused, Value::Principal(principal), allowed),
            None => (Outcome::Allowed, Value::Principals(self.request.principals), allowed),
        }
    }
}

/// The outcome of a check that depends on the device's state.
const fn remembered(memory: Option<&Memory>, allowed: bool) -> Outcome {
    match memory {
        Some(_) => Outcome::of(allowed),
        None => Outcome::Undecided,
    }
}

/// The highest now so far, UNIX seconds, and no earlier than the start of the clock.
fn clock_stands_at(rules: &Rules<'_>, memory: Option<&Memory>) -> Option<u32> {
    let since = rules.clock_max_step.and_then(|step| step.since);
    memory.and_then(|memory| memory.highest_now).max(since)
}

/// The finding about options that may have these names only.
fn options_within<'a>(options: Options<'a>, names: Names<'a>) -> Found<'a> {
    match options.iter().find(|(name, _)| !names.contains(name)) {
        Some((name, _)) => (Outcome::Refused, Value::Name(Some(name)), Value::OneOf(names)),
        None => (Outcome::Allowed, Value::Options(options), Value::OneOf(names)),
    }
}
