//! A device behind a YubiHSM connector: `GET /connector/status`, then one `POST /connector/api` per frame.
//!
//! One connection is kept open. An answer may take any time (a board needs minutes to generate an RSA-4096
//! key); only connecting and the status page have a time limit. Proxies from the environment are not used: a
//! frame goes to the named address, or nowhere.

use std::{io, time::Duration};

use sshsm_protocol::frame::MAX_MESSAGE;
use ureq::{Agent, Body, http::Response};

use crate::exchange::{Exchange, ExchangeError, whole_frame};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connector's status page has at most 256 bytes, or libyubihsm could not read it.
const STATUS_LIMIT: u64 = 256;

/// An open connection to a connector.
#[derive(Clone)]
pub struct Connector {
    agent: Agent,
    /// `http://HOST:PORT`
    address: String,
}

impl Connector {
    /// Connects to the connector at `authority` (`HOST:PORT`) and checks that it is one and has a device.
    ///
    /// # Errors
    /// [`ExchangeError::Unreachable`], [`ExchangeError::NotAConnector`] or [`ExchangeError::NoDevice`].
    pub fn open(authority: &str) -> Result<Self, ExchangeError> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("sshsm/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let connector = Self { agent, address: format!("http://{authority}") };
        connector.check_status()?;
        Ok(connector)
    }

    fn check_status(&self) -> Result<(), ExchangeError> {
        let address = || self.address.clone();
        let not_a_connector = |reason: String| ExchangeError::NotAConnector { address: address(), reason };
        let mut response = self
            .agent
            .get(format!("{}/connector/status", self.address))
            .config()
            .timeout_global(Some(CONNECT_TIMEOUT))
            .build()
            .call()
            .map_err(|error| match error {
                ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
                    not_a_connector(error.to_string())
                }
                error => ExchangeError::Unreachable { address: address(), source: error.into_io() },
            })?;
        if response.status() != 200 {
            return Err(not_a_connector(format!("its /connector/status answered {}", response.status())));
        }
        let page = response.body_mut().with_config().limit(STATUS_LIMIT).read_to_string();
        let page = page.map_err(|_| not_a_connector("its /connector/status is not a short text".into()))?;
        match page.lines().find_map(|line| line.strip_prefix("status=")) {
            Some("OK") => Ok(()),
            Some(status) => Err(ExchangeError::NoDevice { address: address(), status: status.to_owned() }),
            None => Err(not_a_connector("its /connector/status has no line \"status=…\"".into())),
        }
    }

    fn read_frame(&self, mut response: Response<Body>) -> Result<Vec<u8>, ExchangeError> {
        let answer = response.body_mut().with_config().limit(MAX_MESSAGE as u64).read_to_vec();
        match answer {
            Ok(answer) => whole_frame(answer, &self.address),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                Err(ExchangeError::TooLarge { address: self.address.clone() })
            }
            // The body ended before Content-Length bytes had arrived.
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Distinguishes a request that was never sent from one whose answer was lost.
    fn broken(&self, error: ureq::Error) -> ExchangeError {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        use ureq::Timeout as Stage;
        let never_sent = match &error {
            HostNotFound | ConnectionFailed | Timeout(Stage::Resolve | Stage::Connect) => true,
            Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        let (address, source) = (self.address.clone(), error.into_io());
        match never_sent {
            true => ExchangeError::Unreachable { address, source },
            false => ExchangeError::Interrupted { address, source },
        }
    }
}

impl Exchange for Connector {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let response = self
            .agent
            .post(format!("{}/connector/api", self.address))
            .content_type("application/octet-stream")
            .send(frame)
            .map_err(|error| self.broken(error))?;
        match response.status().as_u16() {
            200 => self.read_frame(response),
            status => Err(ExchangeError::Status { address: self.address.clone(), status }),
        }
    }

    fn describe(&self) -> String {
        self.address.clone()
    }

    /// A separate connection, while this one is in use.
    fn beside(&self) -> Option<Box<dyn Exchange>> {
        Some(Box::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    const STATUS: &str = "status=OK\nserial=*\nversion=3.0.7\npid=1\naddress=localhost\nport=1\n";

    fn page(status: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    }

    /// Serves one connection: an answer for each request, then the end.
    fn serve(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                // A request of these tests ends with its header, or with the three bytes of its frame.
                let mut request = Vec::new();
                while !(request.ends_with(b"\r\n\r\n\x06\0\0")
                    || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n"))
                {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap() == 0 {
                        return;
                    }
                    request.extend(byte);
                }
                stream.write_all(&answer).unwrap();
            }
        });
        authority
    }

    fn exchange(answer: Vec<u8>) -> Result<Vec<u8>, ExchangeError> {
        Connector::open(&serve(vec![page("200 OK", STATUS.as_bytes()), answer]))?.transact(&[6, 0, 0])
    }

    #[test]
    fn many_frames_travel_over_one_connection() {
        let frame = page("200 OK", &[0x86, 0, 1, 9]);
        let authority = serve(vec![page("200 OK", STATUS.as_bytes()), frame.clone(), frame]);
        let mut connector = Connector::open(&authority).unwrap();
        assert_eq!(connector.transact(&[6, 0, 0]).unwrap(), [0x86, 0, 1, 9]);
        assert_eq!(connector.transact(&[6, 0, 0]).unwrap(), [0x86, 0, 1, 9]);
    }

    #[test]
    fn a_port_without_a_listener_is_unreachable() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert!(matches!(Connector::open(&free), Err(ExchangeError::Unreachable { .. })));
    }

    #[test]
    fn what_is_not_a_connector_is_told_from_one_without_a_device() {
        for answer in [
            page("404 Not Found", b""),
            page("301 Moved", b""),
            page("200 OK", b"hello"),
            page("200 OK", &[b'x'; 300]),
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
        ] {
            let opened = Connector::open(&serve(vec![answer])).map(|_| ());
            assert!(matches!(opened, Err(ExchangeError::NotAConnector { .. })), "{opened:?}");
        }
        let opened = Connector::open(&serve(vec![page("200 OK", b"status=NO_DEVICE\n")])).map(|_| ());
        assert!(matches!(opened, Err(ExchangeError::NoDevice { .. })), "{opened:?}");
    }

    #[test]
    fn an_answer_must_be_one_frame() {
        assert!(matches!(exchange(page("500 No", b"")), Err(ExchangeError::Status { status: 500, .. })));
        for body in [&b""[..], &[0x86], &[0x86, 0, 2, 9], &[0x86, 0, 0, 9]] {
            let answer = exchange(page("200 OK", body));
            assert!(matches!(answer, Err(ExchangeError::Truncated { .. })), "{answer:?}");
        }
        let answer = exchange(page("200 OK", &[0x86; MAX_MESSAGE + 1]));
        assert!(matches!(answer, Err(ExchangeError::TooLarge { .. })), "{answer:?}");
    }

    #[test]
    fn the_largest_frame_passes() {
        let mut frame = vec![0x86; MAX_MESSAGE];
        frame[1..3].copy_from_slice(&u16::try_from(MAX_MESSAGE - 3).unwrap().to_be_bytes());
        assert_eq!(exchange(page("200 OK", &frame)).unwrap(), frame);
    }

    #[test]
    fn a_connection_that_breaks_is_no_refusal() {
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x86\0\x06".to_vec();
        for answers in [vec![], vec![short]] {
            let authority = serve([vec![page("200 OK", STATUS.as_bytes())], answers].concat());
            let answer = Connector::open(&authority).unwrap().transact(&[6, 0, 0]);
            assert!(matches!(
                answer,
                Err(ExchangeError::Interrupted { .. } | ExchangeError::Unreachable { .. })
            ));
        }
    }
}
