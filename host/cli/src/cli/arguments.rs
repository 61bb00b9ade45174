//! Parsing arguments: ids, domains, capabilities, algorithms, serial numbers.

use std::{
    convert::Infallible,
    ffi::OsStr,
    marker::PhantomData,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use sshsm_protocol::{
    AsymmetricAlgorithm, Capabilities, Capability, Curve, Domains, Label, ObjectId, ObjectType,
    ssh::{signature::SignatureAlgorithm, timestamp::Now},
};

use sshsm_ca::{
    files::Replace,
    ledger::{Serial, State},
    redact::RedactedAddress,
    template::lint::Lint,
    validity::{Validity, ValidityError},
};

/// Why an argument is invalid; clap shows it after the argument's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("an id is a number from 1 to 65534, decimal or hexadecimal (0x…)")]
    Id,
    #[error("domains are \"all\" or numbers from 1 to 16 separated by commas, such as 1,5")]
    Domains,
    #[error("unknown capability {0:?}; known are all, none, {names}", names = capability_names())]
    Capability(String),
    #[error("unknown type {0:?}; known are {names}", names = type_names())]
    ObjectType(String),
    #[error("a label has at most 40 bytes; this one has {0}")]
    Label(usize),
    #[error(
        "a serial number is a decimal number from 0 to 18446744073709551615, with + before it to count up; \
         a + alone takes the next one of the ledger"
    )]
    Serial,
    #[error(transparent)]
    Time(#[from] ValidityError),
    #[error("timestamps reach from 1970 to 2106")]
    TimeRange,
}

fn capability_names() -> String {
    Capability::ALL.iter().map(|capability| capability.name()).collect::<Vec<_>>().join(", ")
}

fn type_names() -> String {
    ObjectType::ALL.iter().map(|object_type| object_type.name()).collect::<Vec<_>>().join(", ")
}

fn number(text: &str) -> Option<u16> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if digits(hex) => u16::from_str_radix(hex, 16).ok(),
        None if digits(text) => text.parse().ok(),
        _ => None,
    }
}

/// An object's id, decimal or `0x` hexadecimal.
pub(crate) fn object_id(text: &str) -> Result<ObjectId, ArgumentError> {
    number(text).and_then(|id| ObjectId::new(id).ok()).ok_or(ArgumentError::Id)
}

/// A template: on the device that enforces it, or in a file if this program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateName {
    Id(ObjectId),
    File(PathBuf),
}

impl FromStr for TemplateName {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        if text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains(['.', '/']) {
            return object_id(text).map(Self::Id);
        }
        Ok(Self::File(text.into()))
    }
}

/// Reads an address, and never shows one with a PIN in it: clap would, in its errors.
#[derive(Debug)]
pub(crate) struct Address<T>(PhantomData<fn() -> T>);

impl<T> Default for Address<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> TypedValueParser for Address<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let shown = value.to_string_lossy();
        let invalid = |reason: String| {
            let argument = argument.map_or_else(|| "an address".to_owned(), ToString::to_string);
            let text = format!("invalid value '{}' for '{argument}': {reason}\n", RedactedAddress(&shown));
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        };
        let text = value.to_str().ok_or_else(|| invalid("it is not UTF-8".into()))?;
        text.parse::<T>().map_err(|error| invalid(RedactedAddress(&error.to_string()).to_string()))
    }
}

/// A CA key: by its id on the device, or all of its certificate authority by the name in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaName {
    Id(ObjectId),
    Name(String),
}

impl FromStr for CaName {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        if text.is_empty() || text.starts_with(|first: char| first.is_ascii_digit()) {
            return object_id(text).map(Self::Id);
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// The signature algorithms that an RSA key has in SSH.
#[derive(Debug, Clone, Copy, clap::ValueEnum, serde::Deserialize)]
pub(crate) enum RsaSignature {
    #[value(name = "rsa-sha2-512")]
    #[serde(rename = "rsa-sha2-512")]
    Sha512,
    #[value(name = "rsa-sha2-256")]
    #[serde(rename = "rsa-sha2-256")]
    Sha256,
    /// With SHA-1: OpenSSH has not accepted it since 8.2
    #[value(name = "ssh-rsa")]
    #[serde(rename = "ssh-rsa")]
    Sha1,
}

impl From<RsaSignature> for SignatureAlgorithm {
    fn from(signature: RsaSignature) -> Self {
        match signature {
            RsaSignature::Sha512 => Self::RsaSha512,
            RsaSignature::Sha256 => Self::RsaSha256,
            RsaSignature::Sha1 => Self::RsaSha1,
        }
    }
}

/// The id that a new object shall have; 0 lets the device choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewId(pub(crate) Option<ObjectId>);

impl FromStr for NewId {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        match number(text) {
            Some(0) => Ok(Self(None)),
            _ => object_id(text).map(|id| Self(Some(id))),
        }
    }
}

/// `all`, or domain numbers with commas between.
pub(crate) fn domains(text: &str) -> Result<Domains, ArgumentError> {
    if text == "all" {
        return Ok(Domains::ALL);
    }
    text.split(',').try_fold(Domains::NONE, |set, domain| {
        let domain = domain.parse().ok().and_then(|domain| Domains::single(domain).ok());
        domain.map(|domain| set.union(domain)).ok_or(ArgumentError::Domains)
    })
}

/// `all`, `none`, or capability names with commas between.
pub(crate) fn capabilities(text: &str) -> Result<Capabilities, ArgumentError> {
    match text {
        "all" => Ok(Capabilities::ALL),
        "none" => Ok(Capabilities::NONE),
        names => names.split(',').try_fold(Capabilities::NONE, |set, name| {
            let capability =
                Capability::from_name(name).ok_or_else(|| ArgumentError::Capability(name.into()))?;
            Ok(set.union(Capabilities::of(&[capability])))
        }),
    }
}

/// What `--exportable` adds.
pub(crate) fn exportable(exportable: bool) -> Capabilities {
    match exportable {
        true => Capabilities::of(&[Capability::ExportableUnderWrap]),
        false => Capabilities::NONE,
    }
}

/// An object type by the name that YubiHSM's tools use.
pub(crate) fn object_type(text: &str) -> Result<ObjectType, ArgumentError> {
    ObjectType::from_name(text).ok_or_else(|| ArgumentError::ObjectType(text.into()))
}

/// A label of at most forty bytes.
pub(crate) fn label(text: &str) -> Result<Label, ArgumentError> {
    Label::new(text).map_err(|error| ArgumentError::Label(error.0))
}

/// A point in time, in one of the forms that the start of `ssh-keygen -V` has.
pub(crate) fn now(text: &str) -> Result<Now, ArgumentError> {
    let seconds = Validity::parse(&format!("{text}:forever"))?.after();
    u32::try_from(seconds).map(Now::from_seconds).map_err(|_| ArgumentError::TimeRange)
}

/// Serial numbers as `ssh-keygen -z` takes them: one for all certificates, `+n`, counting up from n; or `+`,
/// the ledger's next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serials {
    Same(u64),
    From(u64),
    /// The ledger chooses.
    Next,
}

impl Serials {
    /// The serial number of the `index`th key of a call; `None` beyond 2⁶⁴ − 1.
    pub(crate) fn get(self, index: usize) -> Option<Serial> {
        Some(match self {
            Self::Same(serial) => Serial::Given(serial),
            Self::From(first) => Serial::Given(first.checked_add(u64::try_from(index).ok()?)?),
            Self::Next => Serial::Next,
        })
    }
}

impl FromStr for Serials {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        match text.strip_prefix('+') {
            Some("") => Ok(Self::Next),
            Some(digits) => serial(digits).map(Self::From),
            None => serial(text).map(Self::Same),
        }
    }
}

/// A serial number, in decimal digits.
pub(crate) fn serial(text: &str) -> Result<u64, ArgumentError> {
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| decimal).ok_or(ArgumentError::Serial)
}

/// A serial number, or a range `first-last`.
pub(crate) fn serial_range(text: &str) -> Result<(u64, u64), ArgumentError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok((serial(first)?, serial(last)?))
}

/// The ledger of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LedgerChoice {
    None,
    File(PathBuf),
}

impl LedgerChoice {
    /// With a relative path begun at `folder`.
    pub(crate) fn beside(self, folder: &Path) -> PathBuf {
        match self {
            Self::None => "none".into(),
            Self::File(path) => folder.join(path),
        }
    }
}

impl FromStr for LedgerChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "none" { Self::None } else { Self::File(text.into()) })
    }
}

/// The asymmetric algorithms that keys are generated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyAlgorithm {
    Ed25519,
    #[value(alias = "p256")]
    Ecp256,
    #[value(alias = "p384")]
    Ecp384,
    #[value(alias = "p521")]
    Ecp521,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl From<KeyAlgorithm> for AsymmetricAlgorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Ed25519 => Self::Ed25519,
            KeyAlgorithm::Ecp256 => Self::Ec(Curve::P256),
            KeyAlgorithm::Ecp384 => Self::Ec(Curve::P384),
            KeyAlgorithm::Ecp521 => Self::Ec(Curve::P521),
            KeyAlgorithm::Rsa2048 => Self::Rsa2048,
            KeyAlgorithm::Rsa3072 => Self::Rsa3072,
            KeyAlgorithm::Rsa4096 => Self::Rsa4096,
        }
    }
}

/// Whether an output may take the place of anything.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ReplaceOption {
    /// Replace whatever file is there; without it, only a file of the same kind is replaced
    #[arg(long)]
    replace: bool,
}

impl From<ReplaceOption> for Replace {
    fn from(ReplaceOption { replace }: ReplaceOption) -> Self {
        Self { replace }
    }
}

/// What became of a request, as the ledger has it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum StateName {
    /// The serial number is taken; nothing more is known.
    Reserved,
    /// There is a certificate.
    Issued,
    /// The template forbids it.
    Refused,
    /// Something else went wrong.
    Failed,
}

impl From<StateName> for State {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Reserved => Self::Reserved,
            StateName::Issued => Self::Issued,
            StateName::Refused => Self::Refused,
            StateName::Failed => Self::Failed,
        }
    }
}

/// The name of what may be said of templates.
pub(super) fn lint() -> impl TypedValueParser<Value = Lint> {
    let names = Lint::ALL.iter().map(|lint| PossibleValue::new(lint.id()).help(lint.summary()));
    PossibleValuesParser::new(names).try_map(|name| {
        Lint::ALL.iter().copied().find(|lint| lint.id() == name).ok_or("there is no such lint")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_decimal_or_hexadecimal_and_never_0_or_65535() {
        assert_eq!(object_id("5").unwrap().get(), 5);
        assert_eq!(object_id("0x00aB").unwrap().get(), 0xab);
        for text in ["", "0", "0x", "0x0", "65535", "0xffff", "65536", "-1", "+1", "0x+1", "1 ", "a"] {
            assert_eq!(object_id(text), Err(ArgumentError::Id), "{text:?}");
        }
        assert_eq!("0".parse(), Ok(NewId(None)));
        assert_eq!("0x0000".parse(), Ok(NewId(None)));
        assert_eq!("7".parse(), Ok(NewId(ObjectId::new(7).ok())));
        assert!("0xffff".parse::<NewId>().is_err());
    }

    #[test]
    fn domains_are_all_or_a_list() {
        assert_eq!(domains("all"), Ok(Domains::ALL));
        assert_eq!(domains("1,5,16").unwrap().bits(), 0x8011);
        for text in ["", "0", "17", "1,", "1, 2", "none"] {
            assert_eq!(domains(text), Err(ArgumentError::Domains), "{text:?}");
        }
    }

    #[test]
    fn capabilities_are_named() {
        let both = Capabilities::of(&[Capability::SignSshCertificate, Capability::SignEddsa]);
        assert_eq!(capabilities("sign-ssh-certificate,sign-eddsa"), Ok(both));
        assert_eq!(capabilities("none"), Ok(Capabilities::NONE));
        assert!(capabilities("sign-anything").unwrap_err().to_string().contains("sign-ssh-certificate"));
        assert!(capabilities("").is_err());
    }

    #[test]
    fn serial_numbers_count_up_only_after_a_plus() {
        let serials = |text: &str| text.parse::<Serials>().unwrap();
        assert_eq!([0, 3].map(|index| serials("7").get(index)), [Some(Serial::Given(7)); 2]);
        assert_eq!(
            [0, 3].map(|index| serials("+7").get(index)),
            [7, 10].map(|serial| Some(Serial::Given(serial)))
        );
        assert_eq!(serials("+18446744073709551615").get(1), None);
        assert_eq!(serials("+").get(1), Some(Serial::Next));
        for text in ["", "-1", "++1", "0x1", "1a", "18446744073709551616"] {
            assert!(text.parse::<Serials>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_are_those_of_a_validity_and_fit_a_timestamp() {
        assert_eq!(now("0x5b2a7120").unwrap().seconds(), 0x5b2a_7120);
        assert_eq!(now("20260101000000Z").unwrap().seconds(), 1_767_225_600);
        for text in ["", "tomorrow", "1:2", "21100101000000Z", "0x100000000"] {
            assert!(now(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn labels_have_forty_bytes_at_most() {
        assert!(label(&"é".repeat(20)).is_ok());
        assert_eq!(label(&"é".repeat(21)), Err(ArgumentError::Label(42)));
    }
}
