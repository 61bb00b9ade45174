//! Unit tests for templates: a file of requests, and the expected verdict for each.
//!
//! ```toml
//! template = "users.toml"            # next to the suite
//! now = "20260101000000Z"            # the default; every time may be relative to it
//!
//! [[test]]
//! name = "nobody is root"
//! key-id = "alice@example.com"
//! principals = ["root"]
//! validity = "-1m:+8h"
//! expect = "forbid-principals"       # "allow", or the checks that refuse: exactly these
//! ```
//!
//! The device's own policy judges requests that are built as `sshsm sign` builds them, with throwaway keys,
//! and as if the timestamp authority had signed. A suite gives the same results on every day and in every
//! time zone.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;
use quick_xml::{Writer, events::BytesText};
use serde::{Deserialize, Serialize};
use ssh_key::{
    Mpint, PublicKey,
    public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey, SkEcdsaSha2NistP256, SkEd25519},
};
use sshsm_firmware::ssh::{
    memory::Memory,
    policy::{BaseCheck, BothDomains, Check, OnDevice, Outcome},
};
use sshsm_protocol::{
    Domains, ObjectId,
    ssh::{
        Printable,
        public_key::{KeyKind, SshCurve},
        request::{CertificateKind, SubjectKind},
        rules::RuleTag,
        signature::SignatureAlgorithm,
        template::Template,
        timestamp::Now,
    },
};
use toml::Spanned;

use crate::{
    certificate_options::{CertificateOptions, OptionError},
    explanation::{Authority, Explanation, Finding},
    input,
    path::shown,
    request::{BuildError, Content, SigningRequest},
    validity::{Validity, ValidityError},
};

use super::{
    file::{self, TemplateFileError, line_and_column, printable},
    problem, rules,
};
use sshsm_client::{Failure, Kind};

/// The time in a suite that does not set it: 2026-01-01 00:00:00 UTC, so that a suite gives the same results
/// on every day.
pub const USUAL_NOW: u32 = 1_767_225_600;
/// Bits of an RSA key whose length is not given.
const USUAL_RSA_BITS: u16 = 3072;
/// The base point of Ed25519 (RFC 8032, section 5.1), a key that no one uses.
const ED25519: [u8; 32] = {
    let mut point = [0x66; 32];
    point[0] = 0x58;
    point
};

/// Why a file is not a suite.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The file could not be read.
    #[error("cannot read the suite {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No TOML, a name that is not known or missing, or a value of the wrong type.
    #[error("the suite {} has a mistake: {text}", shown(path))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The lines with the mistake among them, as [`Printable`] shows them.
        text: String,
    },
    /// A value that makes no sense.
    #[error("the suite {} has a mistake in line {line}, column {column}", shown(path))]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// The problem.
        #[source]
        problem: Problem,
    },
}

impl Failure for SuiteError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => source.into(),
            Self::Value { problem, .. } => problem.kind(),
            Self::Syntax { .. } => Kind::Failed,
        }
    }
}

/// A value that makes no sense in a suite.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The template's file.
    #[error("there is no template to test")]
    Template(#[from] TemplateFileError),
    /// Nothing would be tested.
    #[error("there is no [[test]]")]
    NoTests,
    /// Two tests that could not be distinguished.
    #[error("the name {0:?} occurs twice")]
    Twice(String),
    /// A time or a validity.
    #[error(transparent)]
    Time(#[from] ValidityError),
    /// A time that no timestamp has.
    #[error("timestamps reach from 1970 to 2106")]
    TimeRange,
    /// A word that has no meaning there.
    #[error(transparent)]
    Word(#[from] problem::Problem),
    /// A certificate option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A certificate that cannot be asked for.
    #[error("there is no such request")]
    Request(#[from] BuildError),
    /// A key with an impossible length.
    #[error("there is no RSA key of {0} bits to test with; 1024 to 16384 are possible")]
    RsaBits(u16),
    /// A key that could not be made.
    #[error("there is no such key to test with")]
    Key(#[from] ssh_key::Error),
    /// The template has none, and the suite neither.
    #[error("the template lists no CA key; set ca-key = ID")]
    NoCaKey,
    /// Neither `expect` nor `expect-at-least`, both, or an empty list.
    #[error(
        "a test has one of expect = \"allow\", expect = [\"CHECK\", …] and expect-at-least = [\"CHECK\", …]"
    )]
    Expectation,
}

impl Failure for Problem {
    fn kind(&self) -> Kind {
        match self {
            Self::Template(error) => error.kind(),
            Self::Word(problem) => problem.kind(),
            Self::NoTests
            | Self::Twice(_)
            | Self::Time(_)
            | Self::TimeRange
            | Self::Option(_)
            | Self::Request(_)
            | Self::RsaBits(_)
            | Self::Key(_)
            | Self::NoCaKey
            | Self::Expectation => Kind::Failed,
        }
    }
}

/// A mistake and its position, in bytes from the beginning of the file.
type Mistake = (usize, Problem);

/// The position of an earlier name of a check, and which.
type Before = (usize, &'static str, Check);

/// The file as written; it has the defaults of its tests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SuiteText {
    template: Spanned<String>,
    now: Option<Spanned<String>>,
    ca_key: Option<Spanned<i64>>,
    signature_algorithm: Option<Spanned<String>>,
    memory: Option<MemoryText>,
    #[serde(default)]
    test: Vec<Spanned<TestText>>,
}

/// A request, with the option names of `sshsm sign`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TestText {
    name: Spanned<String>,
    #[serde(default)]
    key_id: String,
    #[serde(default)]
    principals: Vec<String>,
    validity: Option<Spanned<String>>,
    #[serde(default)]
    r#type: TypeText,
    options: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    serial: u64,
    subject_key: Option<Spanned<String>>,
    now: Option<Spanned<String>>,
    ca_key: Option<Spanned<i64>>,
    signature_algorithm: Option<Spanned<String>>,
    memory: Option<MemoryText>,
    expect: Option<Spanned<ExpectText>>,
    expect_at_least: Option<Spanned<ExpectText>>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum TypeText {
    #[default]
    User,
    Host,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectText {
    One(String),
    Several(Vec<String>),
}

/// A device's state under the template; empty by default.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MemoryText {
    last_serial: Option<u64>,
    highest_now: Option<Spanned<String>>,
    #[serde(default)]
    times: Vec<Spanned<String>>,
}

/// The expected verdict on a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// No check refuses.
    Allow,
    /// These checks refuse, and no others.
    Refuse(BTreeSet<&'static str>),
    /// These checks refuse, and perhaps others.
    RefuseAtLeast(BTreeSet<&'static str>),
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        match self {
            Self::Allow => f.write_str("allowed"),
            Self::Refuse(checks) => write!(f, "refused by {}", names(checks)),
            Self::RefuseAtLeast(checks) => write!(f, "refused at least by {}", names(checks)),
        }
    }
}

/// A request and the expected verdict.
#[derive(Debug)]
struct Test {
    name: String,
    request: SigningRequest,
    now: Now,
    ca_key_id: ObjectId,
    ca_key: KeyData,
    algorithm: SignatureAlgorithm,
    memory: Memory,
    expected: Expectation,
}

/// Tests of one template.
#[derive(Debug)]
pub struct Suite {
    template_file: PathBuf,
    template: Vec<u8>,
    tests: Vec<Test>,
    renamed: Vec<Renamed>,
}

/// A check that a suite calls by the name that it had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// As the suite has it.
    pub before: &'static str,
    /// Its name now.
    pub now: &'static str,
}

impl fmt::Display for Renamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, before, now } = self;
        write!(f, "line {line}, column {column}: the check {before:?} is now {now:?}")
    }
}

/// The names that checks had before they were called as the keys of template files are.
const BEFORE: [(&str, Check); 16] = {
    use BaseCheck::{CaKeys, ForbidPrincipals, NotAfterOffset, NotBeforeOffset};
    use Check::{Base, Rule};
    [
        ("ca-key", Base(CaKeys)),
        ("valid-after", Base(NotBeforeOffset)),
        ("valid-before", Base(NotAfterOffset)),
        ("forbidden-principals", Base(ForbidPrincipals)),
        ("principals-present", Rule(RuleTag::AllowEmptyPrincipals)),
        ("certificate-type", Rule(RuleTag::CertificateTypes)),
        ("allowed-principals", Rule(RuleTag::AllowPrincipals)),
        ("principal-count", Rule(RuleTag::MaxPrincipals)),
        ("lifetime", Rule(RuleTag::MaxLifetime)),
        ("extensions", Rule(RuleTag::AllowExtensions)),
        ("critical-options", Rule(RuleTag::AllowCriticalOptions)),
        ("required-options", Rule(RuleTag::RequireCriticalOptions)),
        ("subject-key", Rule(RuleTag::SubjectKeys)),
        ("serial", Rule(RuleTag::Serials)),
        ("increasing-serial", Rule(RuleTag::IncreasingSerials)),
        ("signature-algorithm", Rule(RuleTag::SignatureAlgorithms)),
    ]
};

/// What came out of one test.
#[derive(Debug, Serialize)]
pub struct TestResult {
    /// The test's name.
    pub name: String,
    /// Whether the verdict is the expected one.
    pub passed: bool,
    /// The expected verdict.
    pub expected: Expectation,
    /// The actual verdict.
    pub verdict: Explanation,
}

impl TestResult {
    /// The checks that refuse.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.verdict.checks.iter().filter(|check| check.outcome == Outcome::Refused.name())
    }

    /// The names of the checks that refuse, or `allowed`.
    #[must_use]
    pub fn found(&self) -> String {
        match self.refusals().map(|check| check.check.as_str()).collect::<Vec<_>>() {
            none if none.is_empty() => "allowed".to_owned(),
            checks => format!("refused by {}", checks.join(", ")),
        }
    }

    /// The details of a failure: what was expected, what was found, and each check that one of them names.
    #[must_use]
    pub fn details(&self) -> String {
        let wanted = match &self.expected {
            Expectation::Allow => &BTreeSet::new(),
            Expectation::Refuse(checks) | Expectation::RefuseAtLeast(checks) => checks,
        };
        let named = |check: &&Finding| {
            check.outcome == Outcome::Refused.name() || wanted.contains(check.check.as_str())
        };
        let mut text = format!("expected: {}\nfound:    {}\n", self.expected, self.found());
        for Finding { check, asked, allowed, .. } in self.verdict.checks.iter().filter(named) {
            text += &format!("{check}: asked {asked}; allowed {allowed}\n");
        }
        text
    }
}

impl Suite {
    /// Reads a suite; its template is relative to its directory.
    ///
    /// # Errors
    /// When the suite or its template cannot be read, or makes no sense.
    pub fn read(path: &Path) -> Result<Self, SuiteError> {
        let text =
            input::read_text(path).map_err(|source| SuiteError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SuiteError> {
        let file: SuiteText = toml::from_str(text)
            .map_err(|error| SuiteError::Syntax { path: path.to_owned(), text: printable(&error) })?;
        let mut renamed = Vec::new();
        let compiled = Self::compile(&file, path.parent().unwrap_or(Path::new("")), &mut renamed);
        let suite = compiled.map_err(|(offset, problem)| {
            let (line, column) = line_and_column(text, offset);
            SuiteError::Value { path: path.to_owned(), line, column, problem }
        })?;
        let renamed = renamed.into_iter().map(|(offset, before, check)| {
            let (line, column) = line_and_column(text, offset);
            Renamed { line, column, before, now: check.name() }
        });
        Ok(Self { renamed: renamed.collect(), ..suite })
    }

    fn compile(file: &SuiteText, folder: &Path, renamed: &mut Vec<Before>) -> Result<Self, Mistake> {
        let place = file.template.span().start;
        let template_file = folder.join(file.template.get_ref());
        let template = file::load(&template_file).map_err(|error| (place, error.into()))?;
        let decoded = Template::decode(&template).map_err(|source| {
            let path = template_file.clone();
            (place, TemplateFileError::Tlv { path, source }.into())
        })?;
        if file.test.is_empty() {
            return Err((place, Problem::NoTests));
        }
        let mut names = BTreeSet::new();
        let mut tests = Vec::new();
        for test in &file.test {
            let name = &test.get_ref().name;
            if !names.insert(name.get_ref()) {
                return Err((name.span().start, Problem::Twice(name.get_ref().clone())));
            }
            tests.push(Test::compile(test, file, &decoded, renamed)?);
        }
        Ok(Self { template_file, template, tests, renamed: Vec::new() })
    }

    /// The checks that it calls by a name that they had before, in the order of the file.
    #[must_use]
    pub fn renamed(&self) -> &[Renamed] {
        &self.renamed
    }

    /// The template's file.
    #[must_use]
    pub fn template_file(&self) -> &Path {
        &self.template_file
    }

    /// Judges every request, in the order of the file.
    #[must_use]
    pub fn run(&self) -> Vec<TestResult> {
        self.tests.iter().map(|test| test.run(&self.template)).collect()
    }
}

/// A value, or its position if it makes no sense.
fn at<T, E: Into<Problem>>(place: usize) -> impl Fn(Result<T, E>) -> Result<T, Mistake> {
    move |result| result.map_err(|error| (place, error.into()))
}

/// A point in time, as the start of a validity at `now`.
fn time(text: &Spanned<String>, now: u32) -> Result<u32, Mistake> {
    let place = text.span().start;
    let interval = format!("{}:forever", text.get_ref());
    let validity = at(place)(Validity::parse_at(&interval, now.into(), &TimeZone::UTC))?;
    u32::try_from(validity.after()).map_err(|_| (place, Problem::TimeRange))
}

impl Test {
    fn compile(
        text: &Spanned<TestText>,
        suite: &SuiteText,
        template: &Template<'_>,
        renamed: &mut Vec<Before>,
    ) -> Result<Self, Mistake> {
        let (place, test) = (text.span().start, text.get_ref());
        let usual_now = suite.now.as_ref().map_or(Ok(USUAL_NOW), |now| time(now, USUAL_NOW))?;
        let now = test.now.as_ref().map_or(Ok(usual_now), |now| time(now, usual_now))?;
        let ca_key_id = match test.ca_key.as_ref().or(suite.ca_key.as_ref()) {
            Some(id) => u16::try_from(*id.get_ref())
                .ok()
                .and_then(|id| ObjectId::new(id).ok())
                .ok_or_else(|| (id.span().start, Problem::Word(problem::Problem::CaKeyId(*id.get_ref()))))?,
            None => template
                .ca_keys
                .iter()
                .find_map(|id| ObjectId::new(id).ok())
                .ok_or((suite.template.span().start, Problem::NoCaKey))?,
        };
        let algorithm = match test.signature_algorithm.as_ref().or(suite.signature_algorithm.as_ref()) {
            Some(name) => at(name.span().start)(rules::signature_algorithm(name.get_ref()))?,
            None => template
                .rules
                .signature_algorithms
                .and_then(|algorithms| algorithms.iter().next())
                .unwrap_or(SignatureAlgorithm::Ed25519),
        };
        let signer = match algorithm {
            SignatureAlgorithm::RsaSha1 | SignatureAlgorithm::RsaSha256 | SignatureAlgorithm::RsaSha512 => {
                KeyKind::Rsa
            }
            SignatureAlgorithm::Ecdsa(curve) => KeyKind::Ecdsa(curve),
            SignatureAlgorithm::Ed25519 => KeyKind::Ed25519,
        };
        let ca_key = at(place)(stand_in(SubjectKind::Plain(signer), USUAL_RSA_BITS))?;
        let subject = match &test.subject_key {
            None => at(place)(stand_in(SubjectKind::Plain(KeyKind::Ed25519), 0))?,
            Some(name) => {
                let (kind, bits) = at(name.span().start)(rules::subject_kind(name.get_ref()))?;
                let bits = bits.unwrap_or(USUAL_RSA_BITS);
                if !(1024..=16384).contains(&bits) {
                    return Err((name.span().start, Problem::RsaBits(bits)));
                }
                at(name.span().start)(stand_in(kind, bits))?
            }
        };
        let kind = match test.r#type {
            TypeText::User => CertificateKind::User,
            TypeText::Host => CertificateKind::Host,
        };
        let validity = match &test.validity {
            None => Validity::UNLIMITED,
            Some(text) => {
                at(text.span().start)(Validity::parse_at(text.get_ref(), now.into(), &TimeZone::UTC))?
            }
        };
        let flags: &[String] = test.options.as_ref().map_or(&[], |options| options.get_ref());
        let options_place = test.options.as_ref().map_or(place, |options| options.span().start);
        let content = Content {
            kind,
            serial: test.serial,
            key_id: test.key_id.clone(),
            principals: test.principals.clone(),
            validity,
            options: at(options_place)(CertificateOptions::parse(kind, flags))?,
        };
        let request = at(place)(SigningRequest::new(&PublicKey::from(subject), &content, &ca_key))?;
        at(place)(request.check_length(template.timestamp_key.signature_length()))?;
        let memory = test.memory.as_ref().or(suite.memory.as_ref()).cloned().unwrap_or_default();
        let mut times = memory.times.iter().map(|text| time(text, now)).collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable();
        let highest_now = memory.highest_now.as_ref().map(|text| time(text, now)).transpose()?;
        Ok(Self {
            name: test.name.get_ref().clone(),
            request,
            now: Now::from_seconds(now),
            ca_key_id,
            ca_key,
            algorithm,
            memory: Memory { last_serial: memory.last_serial, highest_now, times },
            expected: expectation(test, place, renamed)?,
        })
    }

    fn run(&self, template: &[u8]) -> TestResult {
        let authority =
            Authority { id: self.ca_key_id, public: Some(&self.ca_key), algorithm: Some(self.algorithm) };
        let request = self.request.as_bytes();
        let device = OnDevice {
            memory: Some(&self.memory),
            domains: Some(BothDomains { ca_key: Domains::ALL, template: Domains::ALL }),
        };
        let verdict =
            Explanation::new(&Template::decode(template), request, self.now, None, authority, device);
        // The time is not signed; only that is assumed.
        let decided = |check: &&Finding| check.check != BaseCheck::TimestampKey.name();
        let mut result =
            TestResult { name: self.name.clone(), passed: false, expected: self.expected.clone(), verdict };
        let refused: BTreeSet<_> = result.refusals().map(|check| check.check.as_str()).collect();
        result.passed = match &self.expected {
            Expectation::Allow => {
                let mut checks = result.verdict.checks.iter().filter(decided);
                checks.all(|check| check.outcome == Outcome::Allowed.name())
            }
            Expectation::Refuse(checks) => refused == *checks,
            Expectation::RefuseAtLeast(checks) => checks.is_subset(&refused),
        };
        result
    }
}

/// Whether a request of a suite can fail this check. A suite's template and requests are readable, its time
/// counts as signed, its requests name the key that signs, and that is in the template's domains; a touch
/// counts as given, and a seal does not concern requests.
const fn can_refuse(check: Check) -> bool {
    !matches!(
        check,
        Check::Base(
            BaseCheck::Template
                | BaseCheck::Request
                | BaseCheck::TimestampKey
                | BaseCheck::Domain
                | BaseCheck::SignatureKey
        ) | Check::Rule(RuleTag::Presence | RuleTag::Sealed)
    )
}

/// The expectation of a test: `allow`, or checks that can refuse a request of a suite.
fn expectation(test: &TestText, place: usize, renamed: &mut Vec<Before>) -> Result<Expectation, Mistake> {
    let (text, exactly) = match (&test.expect, &test.expect_at_least) {
        (Some(text), None) => (text, true),
        (None, Some(text)) => (text, false),
        _ => return Err((place, Problem::Expectation)),
    };
    let place = text.span().start;
    let names: &[String] = match text.get_ref() {
        ExpectText::One(word) if word == "allow" && exactly => return Ok(Expectation::Allow),
        ExpectText::One(name) => std::slice::from_ref(name),
        ExpectText::Several(names) => names,
    };
    if names.is_empty() {
        return Err((place, Problem::Expectation));
    }
    let known = || Check::ALL.into_iter().filter(|check| can_refuse(*check));
    let found = names.iter().map(|name| {
        let before = BEFORE.into_iter().find(|(before, _)| before == name);
        if let Some((before, check)) = before {
            renamed.push((place, before, check));
            return Ok(check.name());
        }
        known().map(Check::name).find(|check| check == name).ok_or_else(|| {
            let known = known().map(Check::name).collect::<Vec<_>>().join(", ");
            let known = format!("allow, {known}");
            (place, Problem::Word(problem::Problem::Unknown { name: name.clone(), known }))
        })
    });
    let checks = found.collect::<Result<BTreeSet<_>, _>>()?;
    Ok(if exactly { Expectation::Refuse(checks) } else { Expectation::RefuseAtLeast(checks) })
}

/// A public key of this kind whose private half is useless: a base point, or a modulus that is not a product
/// of two primes. A policy considers only kinds and lengths.
fn stand_in(kind: SubjectKind, rsa_bits: u16) -> ssh_key::Result<KeyData> {
    let ecdsa = |curve| {
        let one = |length: usize| [vec![0; length - 1], vec![1]].concat();
        // The public key of the number one is the curve's base point.
        let point = match curve {
            SshCurve::P256 => {
                p256::SecretKey::from_slice(&one(32)).map(|key| key.public_key().to_sec1_bytes())
            }
            SshCurve::P384 => {
                p384::SecretKey::from_slice(&one(48)).map(|key| key.public_key().to_sec1_bytes())
            }
            SshCurve::P521 => {
                p521::SecretKey::from_slice(&one(66)).map(|key| key.public_key().to_sec1_bytes())
            }
        };
        EcdsaPublicKey::from_sec1_bytes(&point.map_err(|_| ssh_key::Error::Crypto)?)
    };
    Ok(match kind {
        SubjectKind::Plain(KeyKind::Rsa) => {
            let mut modulus = vec![0x81; usize::from(rsa_bits).div_ceil(8)];
            if let Some(first) = modulus.first_mut() {
                *first = 1 << ((rsa_bits.max(1) - 1) % 8);
            }
            let exponent = Mpint::from_positive_bytes(&[1, 0, 1]);
            KeyData::Rsa(RsaPublicKey::new(exponent, Mpint::from_positive_bytes(&modulus))?)
        }
        SubjectKind::Plain(KeyKind::Ecdsa(curve)) => KeyData::Ecdsa(ecdsa(curve)?),
        SubjectKind::Plain(KeyKind::Ed25519) => KeyData::Ed25519(Ed25519PublicKey(ED25519)),
        SubjectKind::SecurityKeyEcdsa => match ecdsa(SshCurve::P256)? {
            EcdsaPublicKey::NistP256(point) => {
                KeyData::SkEcdsaSha2NistP256(SkEcdsaSha2NistP256::new(point, "ssh:"))
            }
            _ => return Err(ssh_key::Error::Crypto),
        },
        SubjectKind::SecurityKeyEd25519 => {
            KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(ED25519), "ssh:"))
        }
    })
}

/// The results of suites, each with its name, as JUnit XML: a suite, its cases, and the details of failures.
///
/// # Errors
/// When the document cannot be written, which only a lack of memory causes.
pub fn junit<'r>(suites: impl IntoIterator<Item = (&'r str, &'r [TestResult])>) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.create_element("testsuites").write_inner_content(|writer| {
        for (suite, results) in suites {
            let failures = results.iter().filter(|result| !result.passed).count().to_string();
            let element = writer.create_element("testsuite").with_attributes([
                ("name", suite),
                ("tests", &results.len().to_string()),
                ("failures", &failures),
                ("errors", "0"),
            ]);
            element.write_inner_content(|writer| {
                results.iter().try_for_each(|result| {
                    // XML has no way to write control characters.
                    let name = Printable(result.name.as_bytes()).to_string();
                    let case = writer
                        .create_element("testcase")
                        .with_attributes([("classname", suite), ("name", &name)]);
                    if result.passed {
                        return case.write_empty().map(drop);
                    }
                    case.write_inner_content(|writer| {
                        let failure = writer
                            .create_element("failure")
                            .with_attribute(("message", result.found().as_str()));
                        failure.write_text_content(BytesText::new(&result.details())).map(drop)
                    })
                    .map(drop)
                })
            })?;
        }
        Ok(())
    })?;
    let mut document = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_vec();
    document.extend(writer.into_inner());
    document.push(b'\n');
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti authority";

    /// The result of a suite with these lines for a template with these rules.
    fn read(rules: &str, suite: &str) -> Result<Suite, SuiteError> {
        let folder = tempfile::tempdir().unwrap();
        let template = format!(
            "ca-keys = [5]\nnot-before-offset = \"5m\"\nnot-after-offset = \"10h\"\ntimestamp-key = \"{KEY}\"\n\
             forbid-principals = [\"root\"]\n{rules}"
        );
        std::fs::write(folder.path().join("t.toml"), template).unwrap();
        let suite = format!("template = \"t.toml\"\n{suite}");
        Suite::parse(&suite, &folder.path().join("suite.toml"))
    }

    /// The outcome of a test with these lines next to a request that passes, under these rules.
    fn found(rules: &str, test: &str) -> String {
        let mut lines = std::collections::BTreeMap::from([
            ("principals", "[\"alice\"]"),
            ("validity", "\"+0:+1h\""),
            ("expect", "\"allow\""),
        ]);
        lines.extend(test.lines().filter_map(|line| line.split_once(" = ")));
        let lines: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let suite = read(rules, &format!("[[test]]\nname = \"x\"\n{lines}"));
        let results = suite.unwrap_or_else(|error| panic!("{rules} {lines}: {error:?}")).run();
        assert_eq!(results[0].passed, results[0].found() == "allowed", "{results:?}");
        results[0].found()
    }

    #[test]
    fn every_rule_can_be_expected_to_refuse() {
        for (rules, test, check) in [
            ("", "ca-key = 6", "ca-keys"),
            ("", "validity = \"-6m:+1h\"", "not-before-offset"),
            ("", "validity = \"+0:+11h\"", "not-after-offset"),
            ("", "principals = []", "allow-empty-principals"),
            ("", "principals = [\"alice\", \"root\"]", "forbid-principals"),
            ("", "type = \"host\"\nprincipals = [\"*.example.com\"]", "host-patterns"),
            ("host-patterns = true", "type = \"host\"\nprincipals = [\"r??t\"]", "forbid-principals"),
            (
                "host-patterns = true\nallow-principals = [\"*.example.com\"]",
                "type = \"host\"\nprincipals = [\"*\"]",
                "forbid-principals, allow-principals",
            ),
            ("certificate-types = [\"user\"]", "type = \"host\"", "certificate-types"),
            ("allow-principals = [\"a*\"]", "principals = [\"bob\"]", "allow-principals"),
            ("max-principals = 1", "principals = [\"a\", \"b\"]", "max-principals"),
            ("max-lifetime = \"1h\"", "validity = \"-1s:+1h\"", "max-lifetime"),
            ("allow-extensions = [\"permit-pty\"]", "options = []", "allow-extensions"),
            ("allow-critical-options = []", "options = [\"force-command=x\"]", "allow-critical-options"),
            (
                "require-critical-options = [\"force-command\"]",
                "options = [\"clear\"]",
                "require-critical-options",
            ),
            ("force-command = [\"y\"]", "options = [\"force-command=x\"]", "force-command"),
            (
                "source-address = [\"10.0.0.0/8\"]",
                "options = [\"source-address=11.0.0.1\"]",
                "source-address",
            ),
            ("subject-keys = [\"rsa-3072\"]", "subject-key = \"rsa-3071\"", "subject-keys"),
            ("key-id = [\"*@a\"]", "key-id = \"b\"", "key-id"),
            ("serials = { first = 2 }", "serial = 1", "serials"),
            (
                "serials = { increasing = true }",
                "serial = 7\nmemory = { last-serial = 7 }",
                "increasing-serials",
            ),
            (
                "signature-algorithms = [\"ssh-ed25519\"]",
                "signature-algorithm = \"rsa-sha2-512\"",
                "signature-algorithms",
            ),
            (
                "serials = { increasing = true, max-step = 5 }",
                "serial = 13\nmemory = { last-serial = 7 }",
                "serials-max-step",
            ),
            ("serials = { increasing = true, max-step = 5 }", "serial = 6", "serials-max-step"),
            ("clock = { monotonic = true }", "memory = { highest-now = \"+1s\" }", "clock"),
            (
                "clock = { monotonic = true, max-step = \"1m\" }",
                "memory = { highest-now = \"-61s\" }",
                "clock-max-step",
            ),
            (
                "clock = { monotonic = true, max-step = \"1m\", since = 2025-12-31T23:58:59Z }",
                "memory = {}",
                "clock-max-step",
            ),
            (
                "quota = { signatures = 2, window = \"1m\" }",
                "memory = { times = [\"+1s\", \"-59s\"] }",
                "quota",
            ),
        ] {
            assert_eq!(found(rules, test), format!("refused by {check}"), "{rules} {test}");
            let boundary = match check {
                "host-patterns" => "type = \"host\"\nprincipals = [\"web.example.com\"]",
                "serials-max-step" => "serial = 12\nmemory = { last-serial = 7 }",
                "clock-max-step" => "memory = { highest-now = \"-60s\" }",
                "increasing-serials" => "serial = 8\nmemory = { last-serial = 7 }",
                "clock" => "memory = { highest-now = \"+0\" }",
                "quota" => "memory = { times = [\"+1s\", \"-60s\"] }",
                "subject-keys" => "subject-key = \"rsa-3072\"",
                _ => continue,
            };
            assert_eq!(found(rules, boundary), "allowed", "{rules} {boundary}");
        }
    }

    #[test]
    fn there_is_a_stand_in_for_every_kind_of_key() {
        for kind in SubjectKind::ALL {
            let rule = format!("subject-keys = [{:?}]", kind.name());
            assert_eq!(found(&rule, &format!("subject-key = {:?}", kind.name())), "allowed");
            let other = if kind.name() == "ed25519" { "rsa" } else { "ed25519" };
            assert_eq!(found(&rule, &format!("subject-key = {other:?}")), "refused by subject-keys");
        }
        for name in
            ["ssh-rsa", "rsa-sha2-256", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"]
        {
            assert_eq!(found(&format!("signature-algorithms = [{name:?}]"), ""), "allowed", "{name}");
        }
        for bits in [1024, 1025, 3071, 3072, 3073, 16384] {
            assert_eq!(
                found(&format!("subject-keys = [\"rsa-{bits}\"]"), &format!("subject-key = \"rsa-{bits}\"")),
                "allowed"
            );
        }
    }

    #[test]
    fn exactly_the_checks_that_are_named_must_refuse() {
        let suite = "[[test]]\nname = \"x\"\nprincipals = [\"root\"]\nvalidity = \"+0:+2h\"\n";
        let passed = |expect: &str| {
            read("max-lifetime = \"1h\"", &format!("{suite}{expect}")).unwrap().run()[0].passed
        };
        assert!(passed("expect = [\"max-lifetime\", \"forbid-principals\"]"));
        assert!(
            passed("expect-at-least = [\"max-lifetime\"]")
                && passed("expect-at-least = \"forbid-principals\"")
        );
        for wrong in [
            "expect = \"allow\"",
            "expect = \"max-lifetime\"",
            "expect = [\"max-lifetime\", \"forbid-principals\", \"quota\"]",
        ] {
            assert!(!passed(wrong), "{wrong}");
        }
        assert!(!passed("expect-at-least = [\"max-lifetime\", \"quota\"]"));
    }

    #[test]
    fn a_check_is_known_by_the_name_that_it_had_before_and_the_new_one_is_told() {
        let suite = "[[test]]\nname = \"x\"\nprincipals = [\"root\"]\nvalidity = \"+0:+2h\"\n\
                     expect = [\"lifetime\", \"forbidden-principals\"]\n";
        let suite = read("max-lifetime = \"1h\"", suite).unwrap();
        assert!(suite.run()[0].passed, "{:?}", suite.run());
        let told: Vec<_> = suite.renamed().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 6, column 10: the check \"lifetime\" is now \"max-lifetime\"",
                "line 6, column 10: the check \"forbidden-principals\" is now \"forbid-principals\""
            ]
        );
        for (before, check) in BEFORE {
            assert!(can_refuse(check), "{before}");
            assert!(Check::ALL.iter().all(|check| check.name() != before), "{before} is a current name, too");
            let suite =
                format!("[[test]]\nname = \"x\"\nprincipals = [\"a\"]\nexpect-at-least = \"{before}\"");
            let suite = read("", &suite).unwrap();
            assert_eq!(
                suite.run()[0].expected,
                Expectation::RefuseAtLeast([check.name()].into()),
                "{before}"
            );
        }
        let now = read("", "[[test]]\nname = \"x\"\nexpect = \"max-lifetime\"").unwrap();
        assert_eq!(now.renamed(), []);
    }

    #[test]
    fn a_suite_is_the_same_on_every_day_and_times_are_relative_to_now() {
        let suite = "now = \"20300101000000Z\"\n[[test]]\nname = \"a\"\nprincipals = [\"a\"]\nvalidity = \"20300101:20300101000100\"\n\
                     expect = \"allow\"\n[[test]]\nname = \"b\"\nnow = \"+1d\"\nprincipals = [\"a\"]\nvalidity = \"+0:+1m\"\nexpect = \"allow\"";
        let results = read("", suite).unwrap().run();
        assert!(results.iter().all(|result| result.passed), "{results:?}");
        assert_eq!(results[0].verdict.now + 86_400, results[1].verdict.now);
        let usual = read(
            "",
            "[[test]]\nname = \"a\"\nprincipals = [\"a\"]\nvalidity = \"20260101:20260102\"\nexpect = \"not-after-offset\"",
        );
        let results = usual.unwrap().run();
        assert!(results[0].passed && results[0].verdict.now == USUAL_NOW, "{results:?}");
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_column() {
        use std::error::Error;
        let test = "[[test]]\nname = \"x\"\n";
        for (suite, place, reason) in [
            ("", (1, 12), "no [[test]]"),
            (&format!("{test}expect = \"allow\"\n{test}expect = \"allow\""), (6, 8), "occurs twice"),
            (&format!("{test}expect = \"lifetimes\""), (4, 10), "known are allow, ca-keys"),
            (&format!("{test}expect = \"timestamp\""), (4, 10), "unknown"),
            (&format!("{test}expect-at-least = \"allow\""), (4, 19), "unknown"),
            (&format!("{test}expect = []"), (4, 10), "expect"),
            (test, (2, 1), "expect-at-least"),
            (&format!("{test}expect = \"allow\"\nexpect-at-least = \"max-lifetime\""), (2, 1), "one of"),
            (&format!("{test}expect = \"allow\"\nvalidity = \"1h\""), (5, 12), "neither"),
            (&format!("{test}expect = \"allow\"\nnow = \"21100101\""), (5, 7), "2106"),
            (
                &format!("{test}expect = \"allow\"\noptions = [\"no-tty\"]"),
                (5, 11),
                "not a certificate option",
            ),
            (&format!("{test}expect = \"allow\"\nsubject-key = \"dsa\""), (5, 15), "unknown"),
            (&format!("{test}expect = \"allow\"\nsubject-key = \"rsa-512\""), (5, 15), "512 bits"),
            (&format!("{test}expect = \"allow\"\nsignature-algorithm = \"ssh-dss\""), (5, 23), "unknown"),
            (&format!("{test}expect = \"allow\"\nca-key = 0"), (5, 10), "no object"),
            (&format!("{test}expect = \"allow\"\nprincipals = [\"\"]"), (2, 1), "no such request"),
        ] {
            match read("", suite).unwrap_err() {
                SuiteError::Value { line, column, problem, .. } => {
                    let reasons: Vec<_> =
                        std::iter::successors(Some(&problem as &dyn Error), |&error| error.source())
                            .map(ToString::to_string)
                            .collect();
                    assert!(reasons.join(": ").contains(reason), "{suite}: {reasons:?}");
                    assert_eq!((line, column), place, "{suite}: {reasons:?}");
                }
                other => panic!("{suite}: {other:?}"),
            }
        }
        for suite in [
            "test = 1",
            "x = 1",
            &format!("{test}expects = \"allow\""),
            &format!("{test}type = \"both\"\nexpect = \"allow\""),
        ] {
            assert!(matches!(read("", suite), Err(SuiteError::Syntax { .. })), "{suite}");
        }
    }

    #[test]
    fn junit_says_what_failed_and_nothing_can_break_out_of_it() {
        let suite = "[[test]]\nname = \"fine\"\nprincipals = [\"a\"]\nvalidity = \"+0:+1h\"\nexpect = \"allow\"\n\
                     [[test]]\nname = \"<\\\"&\\u001b\"\nprincipals = [\"root\"]\nvalidity = \"+0:+1h\"\nexpect = \"allow\"";
        let results = read("", suite).unwrap().run();
        let document = String::from_utf8(junit([("a&b", results.as_slice())]).unwrap()).unwrap();
        assert!(
            document.contains("<testsuite name=\"a&amp;b\" tests=\"2\" failures=\"1\" errors=\"0\">"),
            "{document}"
        );
        assert!(document.contains("<testcase classname=\"a&amp;b\" name=\"fine\"/>"), "{document}");
        assert!(document.contains("name=\"&lt;&quot;&amp;\\u{1b}\""), "{document}");
        assert!(
            document.contains("<failure message=\"refused by forbid-principals\">expected: allowed\n"),
            "{document}"
        );
        let mut reader = quick_xml::Reader::from_str(&document);
        let mut failures = 0;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Eof => break,
                quick_xml::events::Event::Start(start) if start.name().as_ref() == "failure" => {
                    failures += 1;
                }
                _ => {}
            }
        }
        assert_eq!(failures, 1);
    }
}
