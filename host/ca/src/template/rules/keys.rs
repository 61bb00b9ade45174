//! Which keys are certified, and the CA key's signature algorithms.

use sshsm_firmware::ssh::policy::Value;
use sshsm_protocol::{
    Algorithm,
    AsymmetricAlgorithm::{Ec, Ed25519, Rsa2048, Rsa3072, Rsa4096},
    Curve,
    ssh::{public_key::KeyKind, request::SubjectKind, rules::Rules, signature::SignatureAlgorithm},
};

use super::{HostRule, Parsed, Text, list};
use crate::template::{
    compare::{Within, any_of, at_most, both},
    lints::{Lint, Reviewed, Say},
    problem::Problem,
};

pub(super) struct SubjectKeys;
pub(super) struct SignatureAlgorithms;

/// Least bits of an RSA key that should still be certified: 128-bit security (NIST SP 800-57, part 1, table 2).
const LEAST_RSA_BITS: u16 = 3072;

const RSA: SubjectKind = SubjectKind::Plain(KeyKind::Rsa);

/// A kind of keys by its name, and the bits of RSA if it contains them.
pub(crate) fn subject_kind(name: &str) -> Result<(SubjectKind, Option<u16>), Problem> {
    let (kind, bits) = match name.strip_prefix("rsa-").map(str::parse) {
        Some(Ok(bits)) => ("rsa", Some(bits)),
        Some(Err(_)) | None => (name, None),
    };
    let kind = SubjectKind::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| {
        let known =
            SubjectKind::ALL.map(SubjectKind::name).join(", ") + "; rsa-3072 is RSA of at least 3072 bits";
        Problem::Unknown { name: name.to_owned(), known }
    })?;
    Ok((kind, bits))
}

/// A signature algorithm by SSH's name.
pub(crate) fn signature_algorithm(name: &str) -> Result<SignatureAlgorithm, Problem> {
    let all: Vec<_> = all_signature_algorithms().collect();
    let known = || all.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ");
    let found = all.iter().find(|algorithm| algorithm.name() == name).copied();
    found.ok_or_else(|| Problem::Unknown { name: name.to_owned(), known: known() })
}

fn all_signature_algorithms() -> impl Iterator<Item = SignatureAlgorithm> {
    Algorithm::ALL.iter().filter_map(|&algorithm| {
        [Rsa2048, Ec(Curve::P256), Ec(Curve::P384), Ec(Curve::P521), Ed25519]
            .into_iter()
            .find_map(|key| SignatureAlgorithm::from_algorithm(algorithm, key))
    })
}

impl HostRule for SubjectKeys {
    fn parse(&self, text: &Text) -> Parsed {
        let Some(keys) = &text.subject_keys else { return Ok(None) };
        let mut least = 0_u16;
        let mut codes = Vec::new();
        for entry in keys.get_ref() {
            let (place, name) = (entry.span().start, entry.get_ref().as_str());
            let (kind, bits) = subject_kind(name).map_err(|problem| (place, problem))?;
            if codes.contains(&kind.code()) {
                return Err((place, Problem::Twice(name.to_owned())));
            }
            codes.push(kind.code());
            least = bits.unwrap_or(least);
        }
        Ok(Some((keys.span().start, [least.to_be_bytes().to_vec(), codes].concat())))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.subject_keys.map(|keys| Value::Subjects(keys).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let kinds = |rules: &Rules<'_>| rules.subject_keys.map(|keys| keys.iter().collect());
        let kinds = any_of::<SubjectKind>(kinds(before), kinds(after), SubjectKind::eq);
        // The more bits, the fewer keys; without RSA there are none.
        let bits = |rules: &Rules<'_>| {
            let least = rules
                .subject_keys
                .map_or(Some(0), |keys| keys.iter().any(|kind| kind == RSA).then_some(keys.least_rsa_bits));
            Some(least.map_or(u32::MAX, u32::from))
        };
        both(kinds, at_most(bits(after), bits(before)))
    }

    fn entries(&self, _: &Rules<'_>) -> Option<Vec<String>> {
        None
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let keys = template.rules.subject_keys;
        let short = |keys: sshsm_protocol::ssh::rules::SubjectKeys<'_>| {
            keys.iter().any(|kind| kind == RSA) && keys.least_rsa_bits < LEAST_RSA_BITS
        };
        if keys.is_none_or(short) {
            let length = match keys.map_or(0, |keys| keys.least_rsa_bits) {
                0 => "any length".to_owned(),
                least => format!("{least} bits"),
            };
            say(
                Lint::ShortRsaSubject,
                "subject-keys",
                format!("RSA keys of {length} are certified; 2048 bits have 112 bits of security"),
                "list the permitted kinds: subject-keys = [\"ed25519\", \"sk-ed25519\", \"rsa-3072\"]",
            );
        }
    }
}

impl HostRule for SignatureAlgorithms {
    fn parse(&self, text: &Text) -> Parsed {
        list(&text.signature_algorithms, |name| Ok(vec![signature_algorithm(name)?.algorithm().code()]))
    }

    fn words(&self, rules: &Rules<'_>) -> Option<String> {
        rules.signature_algorithms.map(|algorithms| Value::Algorithms(algorithms).to_string())
    }

    fn absent(&self) -> &'static str {
        "any"
    }

    fn compare(&self, before: &Rules<'_>, after: &Rules<'_>) -> Within {
        let [before, after] =
            [before, after].map(|rules| rules.signature_algorithms.map(|all| all.iter().collect::<Vec<_>>()));
        any_of(before, after, |one, other| one == other)
    }

    fn entries(&self, rules: &Rules<'_>) -> Option<Vec<String>> {
        let algorithms = rules.signature_algorithms?;
        Some(algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect())
    }

    fn lint(&self, template: &Reviewed<'_>, say: &mut Say<'_>) {
        let rule = "signature-algorithms";
        let instead = "list the CA key's algorithms: signature-algorithms = [\"ssh-ed25519\"], or \
                       [\"rsa-sha2-512\"] for RSA";
        let rsa_authority = matches!(template.timestamp_key.algorithm(), Rsa2048 | Rsa3072 | Rsa4096);
        match template.rules.signature_algorithms {
            Some(algorithms) if algorithms.contains(SignatureAlgorithm::RsaSha1) => {
                let message =
                    "ssh-rsa signs with SHA-1: OpenSSH has refused it since 8.2, and collisions can be made";
                say(Lint::Sha1Signature, rule, message.into(), instead);
            }
            None if rsa_authority => {
                let message = "an RSA CA key may sign with SHA-1 here; the timestamp key is RSA, so the CA key may be, \
                               too";
                say(Lint::Sha1Signature, rule, message.into(), instead);
            }
            None => {
                let message = "were the CA key RSA, it might sign with SHA-1";
                say(Lint::AnySignatureAlgorithm, rule, message.into(), instead);
            }
            Some(_) => {}
        }
    }
}
