//! A timestamp authority at a URL: `sshsm timestamp serve`, or anything that speaks the same protocol.
//!
//! It is sent the SHA-256 of a request and nothing else about it. Its answer is trusted only as far as it can
//! be checked: the signature if the authority's key is known, and the time against the local clock always.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use ssh_key::{HashAlg, PublicKey, public::KeyData};
use sshsm_protocol::{
    AsymmetricAlgorithm,
    ssh::{Printable, timestamp::Now},
};
use ureq::{
    Agent,
    http::{StatusCode, Uri, header::AUTHORIZATION},
    tls::TlsConfig,
};
use zeroize::Zeroizing;

use super::{TimestampError, TimestampSource, tls, verify};
use crate::{device_key, redact::RedactedAddress};
use sshsm_client::{Failure, Kind};

/// How long one exchange may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How far the authority's clock may be from the local one.
pub const MAX_SKEW: Duration = Duration::from_secs(60);

const MAX_ANSWER: u64 = 1024;

/// Why a service gave no timestamp that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The URL is none, or of another scheme.
    #[error(
        "{url:?} is not the URL of a timestamp service, which is http://HOST[:PORT] or https://HOST[:PORT]"
    )]
    Url {
        /// The URL given.
        url: String,
    },
    /// A token would be readable on its way.
    #[error("the token would cross the network in the clear to {url}; use https")]
    TokenInTheClear {
        /// The service.
        url: String,
    },
    /// A token that no header can carry.
    #[error("the token for {url} has characters that no token has")]
    Token {
        /// The service.
        url: String,
    },
    /// Nothing answers.
    #[error("the timestamp service {url} cannot be reached")]
    Unreachable {
        /// The service.
        url: String,
        /// The system's error.
        source: io::Error,
    },
    /// Its certificate, or ours, is not accepted.
    #[error("no secure connection to the timestamp service {url}")]
    Tls {
        /// The service.
        url: String,
        /// The error.
        source: TlsFailure,
    },
    /// It takes too long.
    #[error("the timestamp service {url} did not answer within {} s", patience.as_secs())]
    Slow {
        /// The service.
        url: String,
        /// How long was waited.
        patience: Duration,
    },
    /// It requires authentication.
    #[error("the timestamp service {url} does not let this client in")]
    NotLetIn {
        /// The service.
        url: String,
    },
    /// It was asked too often.
    #[error("the timestamp service {url} was asked too often by this client")]
    TooOften {
        /// The service.
        url: String,
    },
    /// It refuses to sign the time.
    #[error("the timestamp service {url} cannot sign the time: {reason}")]
    Unavailable {
        /// The service.
        url: String,
        /// Its reason.
        reason: String,
    },
    /// Another HTTP error.
    #[error("the timestamp service {url} answered with HTTP status {status}")]
    Status {
        /// The service.
        url: String,
        /// The status.
        status: u16,
    },
    /// Its answer is not a timestamp.
    #[error("the answer of the timestamp service {url} is not a timestamp: {reason}")]
    Nonsense {
        /// The service.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Signed by another key.
    #[error(
        "the timestamp of {url} is not signed by the key of its authority: {wanted} is required, but the service {}",
        match found { Some(found) => format!("says that it signs with {found}"), None => "does not say what it signs with".into() }
    )]
    Signature {
        /// The service.
        url: String,
        /// Fingerprint of the required key.
        wanted: String,
        /// Fingerprint of the key that the service reports as its own.
        found: Option<String>,
    },
    /// It states a time that is not now.
    #[error(
        "the timestamp service {url} says that it is {theirs} (UNIX seconds), and the clock here says {ours}: more \
         than {} s apart",
        allowed.as_secs()
    )]
    Skew {
        /// The service.
        url: String,
        /// The time it signed.
        theirs: u64,
        /// The local clock's.
        ours: u64,
        /// How far they may be apart.
        allowed: Duration,
    },
}

impl Failure for RemoteError {
    fn kind(&self) -> Kind {
        match self {
            Self::Url { .. } | Self::TokenInTheClear { .. } | Self::Token { .. } => Kind::Usage,
            Self::NotLetIn { .. } => Kind::Authentication,
            Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Slow { .. }
            | Self::TooOften { .. }
            | Self::Unavailable { .. }
            | Self::Status { .. }
            | Self::Nonsense { .. }
            | Self::Signature { .. }
            | Self::Skew { .. } => Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { .. } | Self::Slow { .. } => "is `sshsm timestamp serve` running there?",
            Self::Tls { .. } => {
                "give the trusted authorities with --timestamp-ca, and your certificate with --timestamp-cert"
            }
            Self::NotLetIn { .. } => {
                "show a token with --timestamp-token-file, or a certificate with --timestamp-cert"
            }
            Self::TooOften { .. } => "wait, and try again",
            Self::Status { .. } | Self::Nonsense { .. } => "check the URL of --timestamp",
            Self::Unavailable { .. } => "ask its operator to check its clock",
            Self::Skew { .. } => {
                "set the clock that is wrong; a difference that is known can be allowed with --max-clock-skew"
            }
            Self::Url { .. } | Self::TokenInTheClear { .. } | Self::Token { .. } | Self::Signature { .. } => {
                return None;
            }
        })
    }
}

/// Why there is no secure connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    /// TLS itself.
    #[error(transparent)]
    Tls(#[from] tls::Reason),
    /// The problem with the client's configuration.
    #[error("{0}")]
    Setup(&'static str),
}

/// How a service is spoken to, and what of it is believed.
#[derive(Clone)]
pub struct Terms {
    /// A bearer token to show.
    pub token: Option<Zeroizing<String>>,
    /// Trusted authorities, and our identity, for `https`; see [`super::tls`].
    pub tls: Option<TlsConfig>,
    /// The authority's key; without it the signature is left for the device to judge.
    pub key: Option<KeyData>,
    /// How far its time may be from the local clock.
    pub max_skew: Duration,
    /// How long one exchange may take.
    pub patience: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { token: None, tls: None, key: None, max_skew: MAX_SKEW, patience: PATIENCE }
    }
}

/// A timestamp authority at a URL.
pub struct RemoteAuthority {
    agent: Agent,
    url: String,
    terms: Terms,
    algorithm: Option<AsymmetricAlgorithm>,
}

impl RemoteAuthority {
    /// Uses the service at `url`, `http(s)://HOST[:PORT]`; nothing is sent yet.
    ///
    /// # Errors
    /// When the URL is invalid, or the terms cannot be met with it.
    pub fn new(url: &str, terms: Terms) -> Result<Self, TimestampError> {
        let owned = || RedactedAddress(url).to_string();
        let uri: Uri = url.parse().map_err(|_| RemoteError::Url { url: owned() })?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(RemoteError::Url { url: owned() }.into());
        };
        // Neither sent nor shown.
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some()
        {
            return Err(RemoteError::Url { url: owned() }.into());
        }
        let here = host == "localhost" || matches!(host, "127.0.0.1" | "[::1]");
        if terms.token.is_some() && scheme == "http" && !here {
            return Err(RemoteError::TokenInTheClear { url: owned() }.into());
        }
        if terms.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(RemoteError::Token { url: owned() }.into());
        }
        let algorithm = terms.key.as_ref().map(device_key::algorithm).transpose()?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(terms.patience))
            .user_agent(concat!("sshsm/", env!("CARGO_PKG_VERSION")));
        if let Some(tls) = &terms.tls {
            config = config.tls_config(tls.clone());
        }
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.build().new_agent(), url, terms, algorithm })
    }

    /// Time and signature, as they came.
    fn ask(&self, digest: &[u8; 32]) -> Result<(Now, Vec<u8>), RemoteError> {
        let url = || self.url.clone();
        let mut request =
            self.agent.post(format!("{}/v1/timestamp", self.url)).content_type("application/octet-stream");
        if let Some(token) = &self.terms.token {
            request =
                request.header(AUTHORIZATION, Zeroizing::new(format!("Bearer {}", token.as_str())).as_str());
        }
        let mut response = request.send(&digest[..]).map_err(|error| self.broken(error))?;
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let body = match body {
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                return Err(RemoteError::Nonsense { url: url(), reason: "it is too long".into() });
            }
            body => body.map_err(|error| self.broken(error))?,
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(RemoteError::NotLetIn { url: url() });
            }
            StatusCode::TOO_MANY_REQUESTS => return Err(RemoteError::TooOften { url: url() }),
            StatusCode::SERVICE_UNAVAILABLE => {
                let reason = Printable(body.trim_ascii()).to_string();
                return Err(RemoteError::Unavailable { url: url(), reason });
            }
            status => return Err(RemoteError::Status { url: url(), status: status.as_u16() }),
        }
        let nonsense =
            || RemoteError::Nonsense { url: url(), reason: format!("it has {} bytes", body.len()) };
        let (now, signature) = body.split_first_chunk().ok_or_else(nonsense)?;
        let fits = match self.algorithm {
            Some(algorithm) => signature.len() == algorithm.signature_length(),
            None => super::SIGNATURE_LENGTHS.contains(&signature.len()),
        };
        if !fits {
            return Err(nonsense());
        }
        Ok((Now::from_seconds(u32::from_be_bytes(*now)), signature.to_vec()))
    }

    /// Fingerprint of the key that the service reports as its own; only for an error, so the reason for its
    /// absence does not matter.
    fn own_key(&self) -> Option<String> {
        let mut request = self.agent.get(format!("{}/v1/key", self.url));
        if let Some(token) = &self.terms.token {
            request =
                request.header(AUTHORIZATION, Zeroizing::new(format!("Bearer {}", token.as_str())).as_str());
        }
        let mut response = request.call().ok()?;
        let line = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().ok()?;
        let key = PublicKey::from_openssh(&line).ok()?;
        Some(key.fingerprint(HashAlg::Sha256).to_string())
    }

    fn broken(&self, error: ureq::Error) -> RemoteError {
        let url = self.url.clone();
        match error {
            ureq::Error::Timeout(_) => RemoteError::Slow { url, patience: self.terms.patience },
            ureq::Error::Rustls(error) => RemoteError::Tls { url, source: tls::Reason::from(error).into() },
            ureq::Error::Tls(reason) => RemoteError::Tls { url, source: TlsFailure::Setup(reason) },
            ureq::Error::Io(source) => match tls_failure(&source) {
                Some(error) => RemoteError::Tls { url, source: tls::Reason::from(error).into() },
                None => RemoteError::Unreachable { url, source },
            },
            ureq::Error::Protocol(error) => RemoteError::Nonsense { url, reason: error.to_string() },
            error => RemoteError::Unreachable { url, source: error.into_io() },
        }
    }
}

/// The TLS error, if that is why a connection broke.
fn tls_failure(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

impl TimestampSource for RemoteAuthority {
    fn describe(&self) -> String {
        self.url.clone()
    }

    fn algorithm(&self) -> Option<AsymmetricAlgorithm> {
        self.algorithm
    }

    fn key(&self) -> Option<&KeyData> {
        self.terms.key.as_ref()
    }

    fn timestamp(&mut self, request: &[u8]) -> Result<(Now, Vec<u8>), TimestampError> {
        let url = || self.url.clone();
        let (now, signature) = self.ask(&Sha256::digest(request).into())?;
        if let Some(key) = &self.terms.key
            && !verify(key, request, now, &signature)?
        {
            let wanted = key.fingerprint(HashAlg::Sha256).to_string();
            return Err(RemoteError::Signature { url: url(), wanted, found: self.own_key() }.into());
        }
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| TimestampError::Clock)?.as_secs();
        let theirs = u64::from(now.seconds());
        if theirs.abs_diff(ours) > self.terms.max_skew.as_secs() {
            return Err(RemoteError::Skew { url: url(), theirs, ours, allowed: self.terms.max_skew }.into());
        }
        Ok((now, signature))
    }
}
