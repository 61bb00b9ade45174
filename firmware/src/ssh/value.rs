//! What was asked of a device and what it allows, as the values of a verdict: typed, and in words for people.

use core::fmt;

use sshsm_protocol::ssh::Printable;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::{
    CertificateKind, Options, Principals, RequestError, SubjectKey, SubjectKind,
};
use sshsm_protocol::ssh::rules::{
    CertificateTypes, Names, Networks, Patterns, Quota, Serials, SignatureAlgorithms, SubjectKeys,
};
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{CaKeys, ForbiddenPrincipals, TemplateError};
use sshsm_protocol::{Domains, ObjectId};

use super::subject::SubjectKeyError;
use super::timestamp::{Authenticity, Timestamp};

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
    /// A time and its source.
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
    /// The template has no such rule, or the rule does not apply to this request.
    Unrestricted,
    /// User or host.
    Kind(CertificateKind),
    /// User, host or both.
    Kinds(CertificateTypes),
    /// Names, or texts, one of which it must be.
    OneOf(Names<'a>),
    /// Patterns, one of which it must match.
    Matching(Patterns<'a>),
    /// A text in the request; `None` if it has none.
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

/// UNIX seconds as a date in UTC, as far as the calendar goes.
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
