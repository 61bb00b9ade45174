//! Certificates and keys in PEM, for both ends of the timestamp service.
//!
//! Both ends use rustls on *ring*. A client trusts the authorities in a file, or those of the system.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::{files, input, path::shown};
use sshsm_client::{Failure, Kind};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is nothing of that kind in the file.
    #[error("there is no {wanted} (PEM) in {}", shown(path))]
    Absent {
        /// The kind of content looked for.
        wanted: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The certificate, or the key that should belong to it, cannot be used.
    #[error("the certificate {} cannot be used", shown(path))]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The defect.
        source: Reason,
    },
    /// The authority for clients' certificates cannot be used.
    #[error("the authority for client certificates in {} cannot be used", shown(path))]
    Authority {
        /// The file.
        path: PathBuf,
        /// The defect.
        source: VerifierBuilderError,
    },
    /// The system trusts no authority.
    #[error("the system has no list of trusted authorities; name a file")]
    NoRoots,
}

impl Failure for TlsError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => source.into(),
            Self::Absent { .. } | Self::Certificate { .. } | Self::Authority { .. } | Self::NoRoots => {
                Kind::Failed
            }
        }
    }
}

/// Why TLS fails, in words. rustls has its own for a few reasons, and Rust's names for the others.
#[derive(Debug)]
pub struct Reason(rustls::Error);

impl From<rustls::Error> for Reason {
    fn from(error: rustls::Error) -> Self {
        Self(error)
    }
}

impl std::error::Error for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::{AlertDescription as Alert, CertificateError as Bad, Error, InconsistentKeys};
        f.write_str(match &self.0 {
            Error::InvalidCertificate(error) => match error {
                Bad::UnknownIssuer => "its certificate is not signed by an authority that is trusted here",
                Bad::Expired => "its certificate has expired",
                Bad::NotValidYet => "its certificate is not valid yet",
                Bad::NotValidForName => "its certificate is for another name",
                Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
                    "its certificate is not for this end of a connection (extended key usage)"
                }
                Bad::BadSignature => "a signature of its certificate is wrong",
                Bad::BadEncoding => "its certificate is malformed",
                Bad::Revoked => "its certificate is revoked",
                Bad::UnhandledCriticalExtension => {
                    "its certificate has a critical extension that is not known here"
                }
                Bad::UnsupportedSignatureAlgorithmContext { .. }
                | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                    "its certificate is signed with an algorithm that is not supported"
                }
                // Those with a context have rustls' words.
                _ => return write!(f, "its certificate is not accepted: {error}"),
            },
            Error::AlertReceived(alert) => match *alert {
                Alert::CertificateRequired => "it requires a client certificate",
                Alert::UnknownCA => "it does not trust the authority of the certificate that it was shown",
                Alert::BadCertificate | Alert::CertificateUnknown => {
                    "it does not accept the certificate that it was shown"
                }
                Alert::CertificateExpired => "the certificate that it was shown has expired",
                Alert::CertificateRevoked => "the certificate that it was shown is revoked",
                Alert::UnsupportedCertificate => "the certificate that it was shown is not for this use",
                Alert::AccessDenied => "it denies access",
                Alert::ProtocolVersion => "it speaks no common version of TLS",
                Alert::HandshakeFailure => "it found no common way to speak TLS",
                Alert::UnrecognisedName => "it does not know the name that it was asked for",
                Alert::DecryptError => "it could not verify a signature",
                other => return write!(f, "it broke off with TLS alert {}", u8::from(other)),
            },
            Error::InvalidMessage(_) => "its answer is not TLS",
            Error::PeerIncompatible(_) => "it speaks no common version or cipher of TLS",
            Error::PeerMisbehaved(_) => "it violates TLS",
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                "the private key does not belong to the certificate"
            }
            Error::NoCertificatesPresented => "it showed no certificate",
            error => return error.fmt(f),
        })
    }
}

/// Which clients are admitted over TLS.
#[derive(Clone, Copy, Debug)]
pub enum Clients<'a> {
    /// All.
    Anybody,
    /// Those with a certificate of an authority in this file; with `others`, clients without one are admitted
    /// too, to show a token.
    Certified {
        /// The authorities, PEM.
        authorities: &'a Path,
        /// Whether a certificate is optional.
        others: bool,
    },
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let absent = || TlsError::Absent { wanted: "certificate", path: path.to_owned() };
    let pem = input::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| absent())?;
    if all.is_empty() { Err(absent()) } else { Ok(all) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = files::read_secret(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| TlsError::Absent { wanted: "private key", path: path.to_owned() })
}

/// The server's side: its certificate (with its chain), its key, and the admitted clients.
///
/// # Errors
/// When a file cannot be read, or what it holds does not fit together.
pub fn server(certificate: &Path, private: &Path, clients: Clients<'_>) -> Result<ServerConfig, TlsError> {
    let broken =
        |source: rustls::Error| TlsError::Certificate { path: certificate.to_owned(), source: source.into() };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(broken)?;
    let builder = match clients {
        Clients::Anybody => builder.with_no_client_auth(),
        Clients::Certified { authorities, others } => {
            let mut roots = RootCertStore::empty();
            for root in certificates(authorities)? {
                roots.add(root).map_err(|source| TlsError::Certificate {
                    path: authorities.to_owned(),
                    source: source.into(),
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = if others { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier
                .build()
                .map_err(|source| TlsError::Authority { path: authorities.to_owned(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(certificates(certificate)?, key(private)?).map_err(broken)
}

/// The client's side: the authorities that it trusts (by default the system's), and its certificate and key.
///
/// # Errors
/// When a file cannot be read, or the system trusts no authority.
pub fn client(authorities: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<TlsConfig, TlsError> {
    let owned = |certificates: Vec<CertificateDer<'static>>| -> Vec<_> {
        certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
    };
    let roots = match authorities {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let identity = identity
        .map(|(certificate, private)| -> Result<_, TlsError> {
            let absent = || TlsError::Absent { wanted: "private key", path: private.to_owned() };
            let pem = files::read_secret(private)
                .map_err(|source| TlsError::Read { path: private.to_owned(), source })?;
            let key = PrivateKey::from_pem(&pem).map_err(|_| absent())?;
            Ok(ClientCert::new_with_certs(&owned(certificates(certificate)?), key))
        })
        .transpose()?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&owned(roots)))
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(provider())
        .build())
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, PeerIncompatible};

    use super::*;

    #[test]
    fn what_is_wrong_with_tls_is_said_in_words_and_not_in_names_of_rust() {
        for error in [
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Error::InvalidCertificate(CertificateError::Expired),
            Error::InvalidCertificate(CertificateError::NotValidForName),
            Error::AlertReceived(AlertDescription::CertificateRequired),
            Error::AlertReceived(AlertDescription::UnknownCA),
            Error::AlertReceived(AlertDescription::InternalError),
            Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered),
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch),
        ] {
            let words = Reason(error.clone()).to_string();
            // A Rust name consists of several words without spaces, each capitalized.
            let rust = |word: &str| {
                word != "TLS" && word.chars().filter(|character| character.is_uppercase()).count() > 1
            };
            assert!(!words.split([' ', ':', '(', ')']).any(rust), "{error:?}: {words}");
        }
    }
}
