//! `sshsm revoke`: what is no longer to be accepted.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::{
    Context, arguments,
    error::{CliError, FileError},
    krl::warn_of_rare,
    ledger::{authority, public_key, table},
};
use crate::output::{self, shown};
use sshsm_ca::{
    input,
    ledger::{self, Entry, Filter, Ledger, LedgerError, Revoked, State, whoami},
    presented_certificate::PresentedCertificate,
    signature::VerifyError,
};
use sshsm_client::failure::{self, Failure};

/// The longest file with a certificate, in bytes: a message of SSH has at most 256 KiB, and base64 takes a third more.
const MAX_CERTIFICATE: usize = 512 * 1024;

/// Arguments of `revoke`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(false))]
pub(super) struct Revoke {
    /// Certificates with this serial number, or those of a range (5-9)
    #[arg(long, short = 'z', value_name = "SERIAL", value_parser = arguments::serial_range, group = "what")]
    serial: Option<(u64, u64)>,
    /// Certificates with this key id
    #[arg(long, short = 'I', value_name = "KEY_ID", group = "what")]
    key_id: Option<String>,
    /// A key, and every certificate for it: a public key file, or its SHA256:… fingerprint
    #[arg(long, value_name = "KEY", group = "what")]
    key: Option<String>,
    /// The certificate in this file, by its serial number, or by its key id if it has none. Any certificate
    /// that a server might accept is read, if its CA signed it
    #[arg(long, value_name = "FILE", group = "what")]
    certificate: Option<PathBuf>,
    /// Accept the file of --certificate even if its signature is wrong, or of a kind that cannot be verified
    /// here
    #[arg(long, requires = "certificate")]
    unverified: bool,
    /// Every certificate of a CA: its fingerprint, the beginning of it, or its public key file
    #[arg(long, value_name = "CA", group = "what")]
    whole_ca: Option<String>,
    /// The CA of --serial or --key-id, named in the same way; not needed if the ledger knows only one
    #[arg(long, value_name = "CA", conflicts_with_all = ["key", "certificate", "whole_ca"])]
    ca: Option<String>,
    /// The serial numbers or the key id of every CA
    #[arg(long, conflicts_with_all = ["ca", "key", "certificate", "whole_ca"])]
    any_ca: bool,
    /// Why; for the ledger
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Revoke even if no certificate in the ledger matches: it may have been signed elsewhere
    #[arg(long)]
    not_in_ledger: bool,
    /// Withdraw the revocation with this number, as `ledger revocations` lists it; lists on servers are not
    /// changed
    #[arg(
        long,
        value_name = "NUMBER",
        group = "what",
        conflicts_with_all = ["ca", "any_ca", "reason", "not_in_ledger"]
    )]
    undo: Option<i64>,
    /// Make the ledger that --ledger names, if it is not there
    #[arg(long)]
    new_ledger: bool,
    /// Only list the certificates affected
    #[arg(long)]
    dry_run: bool,
}

/// A withdrawn revocation, as JSON shows it.
#[derive(Serialize)]
struct Undone {
    revocation: i64,
    dry_run: bool,
}

/// A revocation, as JSON shows it.
#[derive(Serialize)]
struct Report {
    revoked: String,
    dry_run: bool,
    /// Of the ledger.
    certificates: Vec<Entry>,
}

impl Revoke {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        // A dry run creates nothing.
        let mut ledger = match self.dry_run {
            true => context.ledger_to_read()?,
            false => context.ledger_to_change(self.new_ledger)?,
        };
        if let Some(revocation) = self.undo {
            return self.take_back(context, &mut ledger, revocation);
        }
        let revoked = self.what(&ledger)?;
        let certificates = ledger.entries(&Filter { state: Some(State::Issued), ..revoked.filter() })?;
        // A file proves that there is such a certificate or key; a number or a name may be mistyped.
        let ca = match &revoked {
            Revoked::Serials { ca, .. } | Revoked::KeyId { ca, .. } => ca.as_ref(),
            Revoked::Key(_) | Revoked::Fingerprint(_) | Revoked::Ca(_) => None,
        };
        warn_of_rare(ca);
        let typed =
            matches!(revoked, Revoked::Serials { .. } | Revoked::KeyId { .. }) && self.certificate.is_none();
        if typed && certificates.is_empty() && !self.not_in_ledger {
            return Err(CliError::Usage(format!(
                "the ledger has no certificate with {}; nothing was revoked: --not-in-ledger revokes it all the same",
                in_words(&revoked)
            )));
        }
        if !self.dry_run {
            ledger.revoke(&revoked, self.reason.as_deref(), &whoami())?;
        }
        let report = Report { revoked: in_words(&revoked), dry_run: self.dry_run, certificates };
        context.format().print(&report, |report| match report.certificates.len() {
            0 => String::new(),
            _ => table(report.certificates.iter()),
        })?;
        let verb = if self.dry_run { "would revoke" } else { "revoked" };
        output::talk(format_args!(
            "{verb} {}: {} of the ledger",
            report.revoked,
            output::count(report.certificates.len(), "certificate", "certificates")
        ));
        if !self.dry_run {
            output::talk("run `sshsm krl build` and distribute the list: servers know nothing of it before");
        }
        Ok(())
    }

    fn take_back(&self, context: &Context, ledger: &mut Ledger, revocation: i64) -> Result<(), CliError> {
        let stands = |known: &ledger::Revocation| known.revocation == revocation && known.undone_at.is_none();
        if !ledger.revocations()?.iter().any(stands) {
            return Err(LedgerError::NoRevocation(revocation).into());
        }
        if !self.dry_run {
            ledger.undo_revocation(revocation, &whoami())?;
        }
        context.format().print(&Undone { revocation, dry_run: self.dry_run }, |_| String::new())?;
        let verb = if self.dry_run { "would take back" } else { "took back" };
        output::talk(format_args!("{verb} revocation {revocation}"));
        if !self.dry_run {
            output::talk(
                "run `sshsm krl build --replace` and distribute the list: servers have the old one until then",
            );
        }
        Ok(())
    }

    fn what(&self, ledger: &Ledger) -> Result<Revoked, CliError> {
        let ca = || match self.any_ca {
            true => Ok(None),
            false => authority(ledger, self.ca.as_deref()).map(Some),
        };
        if let Some((first, last)) = self.serial {
            return Ok(Revoked::Serials { ca: ca()?, first, last });
        }
        if let Some(key_id) = &self.key_id {
            return Ok(Revoked::KeyId { ca: ca()?, key_id: key_id.clone() });
        }
        if let Some(key) = &self.key {
            return match ledger::sha256(key) {
                Some(hash) => Ok(Revoked::Fingerprint(hash)),
                None => public_key(Path::new(key)).map(Revoked::Key),
            };
        }
        if let Some(path) = &self.certificate {
            return self.presented(path);
        }
        authority(ledger, self.whole_ca.as_deref()).map(Revoked::Ca)
    }
}

/// A certificate that no server would accept.
#[derive(Debug, thiserror::Error)]
#[error("the certificate in {} is not one that a server would accept", shown(path))]
struct Unverified {
    path: PathBuf,
    source: VerifyError,
}

impl Failure for Unverified {
    fn kind(&self) -> failure::Kind {
        failure::Kind::Failed
    }

    fn help(&self) -> Option<&'static str> {
        Some(
            "revoke by --serial, --key-id or --key what you know of it, or believe the file with --unverified",
        )
    }
}

impl Revoke {
    /// What revokes the certificate in a file.
    fn presented(&self, path: &Path) -> Result<Revoked, CliError> {
        let bytes =
            input::read_at_most(path, MAX_CERTIFICATE).map_err(|source| FileError::read(path, source))?;
        let certificate =
            PresentedCertificate::from_file(&bytes).map_err(|error| CliError::content(shown(path), error))?;
        // No server accepts it otherwise, and a forgery would choose whose certificates are revoked.
        match certificate.verify() {
            Err(error) if !self.unverified => {
                return Err(CliError::other(Unverified { path: path.to_owned(), source: error }));
            }
            _ => {}
        }
        let subject = certificate.subject_key();
        let ca = Some(certificate.ca);
        match (certificate.serial, String::from_utf8(certificate.key_id)) {
            (0, Ok(key_id)) if !key_id.contains('\0') => Ok(Revoked::KeyId { ca, key_id }),
            // It has neither a number nor a name that a list could contain.
            (0, _) => {
                output::talk(
                    "the certificate has no serial number, and a key id that is not text: the key that it certifies is \
                     revoked",
                );
                subject.map(Revoked::Key).map_err(|error| CliError::content(shown(path), error))
            }
            (serial, _) => Ok(Revoked::Serials { ca, first: serial, last: serial }),
        }
    }
}

fn in_words(revoked: &Revoked) -> String {
    let of = |ca: &Option<_>| {
        ca.as_ref().map_or_else(|| "any CA".into(), |ca| format!("CA {}", ledger::fingerprint(ca)))
    };
    match revoked {
        Revoked::Serials { ca, first, last } if first == last => {
            format!("serial number {first} of {}", of(ca))
        }
        Revoked::Serials { ca, first, last } => format!("serial numbers {first} to {last} of {}", of(ca)),
        Revoked::KeyId { ca, key_id } => {
            format!("key id \"{}\" of {}", super::ledger::printable(key_id), of(ca))
        }
        Revoked::Key(key) => format!("key {}", ledger::fingerprint(key)),
        Revoked::Fingerprint(hash) => format!("key {}", ssh_key::Fingerprint::Sha256(*hash)),
        Revoked::Ca(key) => format!("everything by CA {}", ledger::fingerprint(key)),
    }
}
