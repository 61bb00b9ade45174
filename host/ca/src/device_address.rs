//! The address of the device: the value of `--device`.

use std::{
    env, fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use sshsm_client::{Connector, Exchange, ExchangeError, Failure, Kind, Listener, Notice, Serial, board};
use sshsm_simulator::{Simulator, SimulatorError};
use ureq::http::Uri;

use crate::{path::shown, pkcs11};

/// A device's address, as written after `--device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceAddress {
    /// `sim:DIR`: the simulator inside this process, with its state in DIR; `sim:` keeps it in the user's data
    /// directory.
    Simulator(Option<PathBuf>),
    /// `http://HOST:PORT`: a YubiHSM connector.
    Connector {
        /// `HOST:PORT`.
        authority: String,
    },
    /// `serial:PATH`: a board on a serial port; `serial:` is the one that is plugged in.
    Serial(Option<String>),
    /// `pkcs11:…`: a key on a PKCS#11 token, which signs certificates and does nothing else that a device does.
    Pkcs11(pkcs11::Uri),
}

/// Why a device cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is not there, or does not answer as a device.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A command for boards on serial ports only.
    #[error("this needs a board on a serial port (serial: or serial:PATH), and {address} is none")]
    NotSerial {
        /// The address given.
        address: String,
    },
    /// A command for devices of YubiHSM 2's protocol only.
    #[error(
        "this needs a device with sessions and templates (sim:, serial: or http:), and {address} is a PKCS#11 token; a \
         token can be used by `sign` and `device list`"
    )]
    Token {
        /// The address given.
        address: String,
    },
    /// `sim:` if the user's data directory is not known.
    #[error(
        "neither XDG_DATA_HOME nor HOME is set to an absolute path; name the simulator's directory: sim:DIR"
    )]
    NoDataHome,
    /// No simulator is there, and only what changes a device makes one.
    #[error("there is no simulated device in {}", shown(directory))]
    NoSimulator {
        /// The directory searched.
        directory: PathBuf,
    },
    /// The in-process simulator did not start.
    #[error("simulator {}", shown(directory))]
    Simulator {
        /// Its state directory.
        directory: PathBuf,
        /// The simulator's error.
        source: SimulatorError,
    },
}

impl Failure for OpenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Exchange(error) => error.kind(),
            Self::NotSerial { .. } | Self::Token { .. } => Kind::Usage,
            Self::NoDataHome | Self::NoSimulator { .. } | Self::Simulator { .. } => Kind::Device,
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Exchange(error) => error.help(),
            Self::NoSimulator { .. } => Some(
                "check the directory of --device or SSHSM_DEVICE; a command that puts something on the device, such as \
                 `sshsm key generate` or `sshsm provision`, makes a new one",
            ),
            Self::NotSerial { .. } | Self::Token { .. } | Self::NoDataHome | Self::Simulator { .. } => None,
        }
    }
}

impl OpenError {
    /// Whether nothing was there to be reached.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_absence())
    }
}

impl DeviceAddress {
    /// Opens the connection to this device; `listener` receives what it waits for, and what every user of the
    /// device must know.
    ///
    /// # Errors
    /// When nothing, or something else, is there; [`OpenError::Token`] for a token, which has no exchange.
    pub fn open(&self, listener: &Listener) -> Result<Box<dyn Exchange>, OpenError> {
        Ok(match self {
            Self::Simulator(Some(directory)) => Box::new(simulator(directory, listener)?),
            Self::Simulator(None) => Box::new(simulator(&default_directory()?, listener)?),
            Self::Connector { authority } => Box::new(Connector::open(authority)?),
            Self::Serial(_) => Box::new(self.open_serial(listener)?),
            Self::Pkcs11(uri) => return Err(OpenError::Token { address: uri.identity().to_string() }),
        })
    }

    /// The directory of a simulator that is not there yet, and that [`Self::open`] would make.
    ///
    /// # Errors
    /// [`OpenError::NoDataHome`].
    pub fn missing_simulator(&self) -> Result<Option<PathBuf>, OpenError> {
        let directory = match self {
            Self::Simulator(Some(directory)) => directory.clone(),
            Self::Simulator(None) => default_directory()?,
            Self::Connector { .. } | Self::Serial(_) | Self::Pkcs11(_) => return Ok(None),
        };
        // What cannot be looked at is for the simulator to report.
        let absent = |name| matches!(directory.join(name).try_exists(), Ok(false));
        Ok((absent("flash.bin") && absent("root.key")).then_some(directory))
    }

    /// As [`Self::open`], of a device that is there: no simulator is made.
    ///
    /// # Errors
    /// [`OpenError::NoSimulator`] when there is none; otherwise as [`Self::open`].
    pub fn open_existing(&self, listener: &Listener) -> Result<Box<dyn Exchange>, OpenError> {
        match self.missing_simulator()? {
            Some(directory) => Err(OpenError::NoSimulator { directory }),
            None => self.open(listener),
        }
    }

    /// Opens the serial port of this device.
    ///
    /// # Errors
    /// [`OpenError::NotSerial`] when it is on none; otherwise as [`Self::open`].
    pub fn open_serial(&self, listener: &Listener) -> Result<Serial, OpenError> {
        match self {
            Self::Serial(Some(path)) => Ok(Serial::open(path, listener.clone())?),
            Self::Serial(None) => Ok(Serial::open(&board::only_board()?.path, listener.clone())?),
            Self::Pkcs11(uri) => Err(OpenError::NotSerial { address: uri.identity().to_string() }),
            _ => Err(OpenError::NotSerial { address: self.to_string() }),
        }
    }
}

impl DeviceAddress {
    /// The same, with relative paths begun at `folder`.
    #[must_use]
    pub fn beside(self, folder: &Path) -> Self {
        match self {
            Self::Simulator(Some(directory)) => Self::Simulator(Some(folder.join(directory))),
            Self::Pkcs11(uri) => Self::Pkcs11(uri.beside(folder)),
            address => address,
        }
    }
}

impl DeviceAddress {
    /// Whether it can be opened several times at once: a simulator's state and a serial port are one process's.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Connector { .. } | Self::Pkcs11(_))
    }

    /// Whether another program relays what is sent, and may see it.
    #[must_use]
    pub const fn is_relayed(&self) -> bool {
        matches!(self, Self::Connector { .. })
    }

    /// Whether it is accessed over a network, on which others may see what is sent.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Connector { authority } => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                let address = bare.parse::<IpAddr>();
                !(bare.eq_ignore_ascii_case("localhost")
                    || address.is_ok_and(|address| address.is_loopback()))
            }
            Self::Simulator(_) | Self::Serial(_) | Self::Pkcs11(_) => false,
        }
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulator(Some(directory)) => write!(f, "sim:{}", directory.display()),
            Self::Simulator(None) => f.write_str("sim:"),
            Self::Connector { authority } => write!(f, "http://{authority}"),
            Self::Serial(path) => write!(f, "serial:{}", path.as_deref().unwrap_or_default()),
            Self::Pkcs11(uri) => uri.fmt(f),
        }
    }
}

/// Why a device address is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `sim:` nor `serial:` nor `http://` nor `pkcs11:`.
    #[error(
        "unknown kind of device; write sim:, sim:DIR, serial:, serial:PATH, http://HOST:PORT or pkcs11:…"
    )]
    UnknownKind,
    /// `pkcs11:` with an invalid rest.
    #[error(transparent)]
    Pkcs11(#[from] pkcs11::UriError),
    /// `https://`.
    #[error(
        "a connector is reached with http://, not https:// (the session inside is encrypted and authenticated on its own)"
    )]
    Tls,
    /// Not a URL, or without a host.
    #[error("not an address of the form http://HOST:PORT")]
    NotAUrl,
    /// No port.
    #[error("the port is missing; a connector usually listens on 12345: http://HOST:12345")]
    NoPort,
    /// A port that does not exist.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// A path, query or user name.
    #[error("only http://HOST:PORT is allowed, without user name, path or query")]
    TooMuch,
}

impl FromStr for DeviceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(directory) = text.strip_prefix("sim:") {
            return Ok(Self::Simulator((!directory.is_empty()).then(|| directory.into())));
        }
        if let Some(path) = text.strip_prefix("serial:") {
            return Ok(Self::Serial((!path.is_empty()).then(|| path.to_owned())));
        }
        if text.starts_with(pkcs11::uri::SCHEME) {
            return Ok(Self::Pkcs11(text.parse()?));
        }
        if text.starts_with("https://") {
            return Err(AddressError::Tls);
        }
        if !text.starts_with("http://") {
            return Err(AddressError::UnknownKind);
        }
        let uri: Uri = text.parse().map_err(|_| AddressError::NotAUrl)?;
        let authority = uri.authority().ok_or(AddressError::NotAUrl)?;
        if authority.host().is_empty() {
            return Err(AddressError::NotAUrl);
        }
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(AddressError::TooMuch);
        }
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        match port.strip_prefix(':').map(str::parse) {
            None => return Err(AddressError::NoPort),
            Some(Err(_) | Ok(0_u16)) => return Err(AddressError::Port),
            Some(Ok(_)) => {}
        }
        Ok(Self::Connector { authority: authority.to_string() })
    }
}

/// The simulator in this process, with its state in `directory`, which is created if missing. If a seed has
/// ever made its keys predictable, a warning is given each time.
fn simulator(directory: &Path, listener: &Listener) -> Result<Simulator, OpenError> {
    let simulator = Simulator::open(directory)
        .start()
        .map_err(|source| OpenError::Simulator { directory: directory.to_owned(), source })?;
    if let Some(warning) = simulator.warning() {
        listener.tell(&Notice::Warning { device: &shown(directory).to_string(), warning });
    }
    Ok(simulator)
}

/// `$XDG_DATA_HOME/sshsm/simulator`, by the XDG base directory specification.
fn default_directory() -> Result<PathBuf, OpenError> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("sshsm/simulator"))
        .ok_or(OpenError::NoDataHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for text in [
            "sim:",
            "sim:/var/lib/x",
            "sim:relative dir",
            "http://localhost:12345",
            "http://[::1]:80",
            "serial:",
            "serial:/dev/ttyACM0",
            "pkcs11:token=ca;object=key?module-path=/usr/lib/softhsm/libsofthsm2.so",
        ] {
            assert_eq!(text.parse::<DeviceAddress>().unwrap().to_string(), text);
        }
        assert_eq!("http://h:1/".parse::<DeviceAddress>().unwrap().to_string(), "http://h:1");
    }

    #[test]
    fn each_defect_of_an_address_has_its_own_error() {
        for (text, error) in [
            ("", AddressError::UnknownKind),
            ("/dev/ttyACM0", AddressError::UnknownKind),
            ("https://localhost:12345", AddressError::Tls),
            ("pkcs11:token=a?pin-value=1", AddressError::Pkcs11(pkcs11::UriError::PinValue)),
            ("http://", AddressError::NotAUrl),
            ("http://a b:1", AddressError::NotAUrl),
            ("http://localhost", AddressError::NoPort),
            ("http://localhost:0", AddressError::Port),
            ("http://localhost:65536", AddressError::Port),
            ("http://[::1]:99999", AddressError::Port),
            ("http://me@localhost:1", AddressError::TooMuch),
            ("http://localhost:1/connector", AddressError::TooMuch),
            ("http://localhost:1?x", AddressError::TooMuch),
        ] {
            assert_eq!(text.parse::<DeviceAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn what_a_network_carries_is_told_from_what_stays_on_this_computer() {
        for (text, remote) in [
            ("http://127.0.0.1:12345", false),
            ("http://127.8.8.8:12345", false),
            ("http://[::1]:12345", false),
            ("http://LocalHost:12345", false),
            ("http://localhost.example.com:12345", true),
            ("http://10.0.0.5:12345", true),
            ("http://0.0.0.0:12345", true),
            ("http://[fd00::1]:12345", true),
            ("sim:", false),
            ("serial:", false),
        ] {
            assert_eq!(text.parse::<DeviceAddress>().unwrap().is_remote(), remote, "{text}");
        }
    }
}
