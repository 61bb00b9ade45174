//! Timestamp sources, as the command line names them: the only place that opens them.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    arguments::Address,
    error::{CliError, FileError},
    password,
};
use crate::output;
use sshsm_ca::{
    duration::{self, DurationError},
    files, key_file,
    pkcs11::{TokenKey, TokenTimestamps},
    timestamp::{
        SourceAddress, TimestampAuthority, TimestampKey, TimestampSource,
        remote::{RemoteAuthority, Terms},
        tls,
    },
};

const HEADING: &str = "Timestamp service";

/// A timestamp source.
#[derive(Debug, Clone, Args)]
pub(super) struct TimestampArguments {
    /// The source of each request's signed time: a private key of the timestamp authority named in the
    /// template, as a file, in the ssh-agent (agent:KEY.pub) or on a token (pkcs11:…), or a timestamp service
    /// (http(s)://HOST[:PORT])
    #[arg(long = "timestamp", alias = "timestamp-key", value_name = "SOURCE")]
    #[arg(value_parser = Address::<SourceAddress>::default())]
    pub(super) source: Option<SourceAddress>,
    #[command(flatten)]
    pub(super) terms: TermsArguments,
}

/// How a timestamp service is spoken to.
#[derive(Debug, Clone, Args)]
pub(super) struct TermsArguments {
    /// File with the bearer token that the service knows this client by
    #[arg(long, env = "SSHSM_TIMESTAMP_TOKEN_FILE", value_name = "FILE", help_heading = HEADING)]
    timestamp_token_file: Option<PathBuf>,
    /// Certificate authorities trusted for https, PEM; by default those that the system trusts
    #[arg(long, env = "SSHSM_TIMESTAMP_CA", value_name = "FILE", help_heading = HEADING)]
    timestamp_ca: Option<PathBuf>,
    /// The client certificate that the service knows this client by, PEM
    #[arg(long, env = "SSHSM_TIMESTAMP_CERT", value_name = "FILE", help_heading = HEADING)]
    #[arg(requires = "timestamp_cert_key")]
    timestamp_cert: Option<PathBuf>,
    /// The private key of the client certificate, PEM
    #[arg(long, env = "SSHSM_TIMESTAMP_CERT_KEY", value_name = "FILE", help_heading = HEADING)]
    #[arg(requires = "timestamp_cert")]
    timestamp_cert_key: Option<PathBuf>,
    /// The authority's public key: timestamps of others are refused here, before the device refuses them
    #[arg(long, env = "SSHSM_TIMESTAMP_PUBLIC_KEY", value_name = "FILE.pub", help_heading = HEADING)]
    timestamp_public_key: Option<PathBuf>,
    /// How far the service's time may be from the clock here
    #[arg(long, env = "SSHSM_MAX_CLOCK_SKEW", value_name = "DURATION", help_heading = HEADING)]
    #[arg(default_value = "60s", value_parser = span)]
    max_clock_skew: Duration,
}

fn span(text: &str) -> Result<Duration, DurationError> {
    duration::parse(text).map(Duration::from_secs)
}

impl TermsArguments {
    fn terms(&self, url: &str) -> Result<Terms, CliError> {
        let token = self.timestamp_token_file.as_deref().map(|path| {
            let text = files::read_secret_text(path).map_err(|source| FileError::read(path, source))?;
            Ok::<_, CliError>(Zeroizing::new(text.trim().to_owned()))
        });
        let identity = self.timestamp_cert.as_deref().zip(self.timestamp_cert_key.as_deref());
        let tls = url
            .starts_with("https:")
            .then(|| tls::client(self.timestamp_ca.as_deref(), identity))
            .transpose()
            .map_err(|error| CliError::content("no secure connection to the timestamp service", error))?;
        let key = self.timestamp_public_key.as_deref().map(key_file::read_public).transpose();
        let key =
            key.map_err(|error| CliError::content("no public key of the timestamp authority", error))?;
        Ok(Terms {
            token: token.transpose()?,
            tls,
            key: key.map(|key| key.key_data().clone()),
            max_skew: self.max_clock_skew,
            ..Terms::default()
        })
    }
}

/// Opens a timestamp source.
///
/// # Errors
/// When it cannot be used.
pub(super) fn open(
    address: &SourceAddress,
    terms: &TermsArguments,
) -> Result<Box<dyn TimestampSource + Send>, CliError> {
    match address {
        SourceAddress::Url(url) => Ok(Box::new(RemoteAuthority::new(url, terms.terms(url)?)?)),
        address => Ok(Box::new(open_key(address)?)),
    }
}

/// Opens a timestamp key for signing this system's clock.
///
/// # Errors
/// When it cannot be used, or is not the expected one.
pub(super) fn open_key(address: &SourceAddress) -> Result<Box<dyn TimestampKey>, CliError> {
    match address {
        SourceAddress::File(path) => {
            let mut ask = || password::key_passphrase(path);
            let key = key_file::read_private(path, &mut ask)
                .map_err(|error| CliError::content("no timestamp key", error))?;
            let authority = TimestampAuthority::new(&key, address.to_string())
                .map_err(|error| CliError::content(output::shown(path), error))?;
            Ok(Box::new(authority))
        }
        #[cfg(unix)]
        SourceAddress::Agent(path) => {
            use sshsm_ca::timestamp::agent_key::{self, AgentKey};
            let public =
                key_file::read_public(path).map_err(|error| CliError::content("no timestamp key", error))?;
            let socket = agent_key::socket().map_err(sshsm_ca::timestamp::TimestampError::from)?;
            Ok(Box::new(AgentKey::new(&socket, public)?))
        }
        #[cfg(not(unix))]
        SourceAddress::Agent(_) => Err(CliError::Usage("an ssh-agent is reached on Unix only".into())),
        SourceAddress::Pkcs11(uri) => {
            let key = TokenKey::open(uri, &mut password::pin)?;
            Ok(Box::new(TokenTimestamps::new(key)?))
        }
        SourceAddress::Url(url) => {
            Err(CliError::Usage(format!("a key is needed here, and {url} is a service that has one")))
        }
    }
}
