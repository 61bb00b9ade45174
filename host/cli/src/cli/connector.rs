//! `sshsm connector`: the YubiHSM connector's HTTP in front of a device, so that Yubico's tools reach a board.
//!
//! The first line on stdout is `listening on http://ADDRESS`. The device may come and go: while it is away
//! the status page says so and commands fail, and the first command after its return finds it again. Its
//! sessions are then lost, as the device itself tells its clients.

use clap::Args;
use sshsm_simulator::connector::{Backend, Host, Settings, Status, bind, serve};
use tokio::{net::TcpListener, runtime};

use super::{
    Context,
    error::{CliError, line},
    notice::listener,
    service,
};
use crate::output::{self, Format};
use sshsm_ca::device_address::{DeviceAddress, OpenError};
use sshsm_client::{Exchange, ExchangeError};

/// Arguments of `connector`.
#[derive(Debug, Args)]
pub(super) struct Connector {
    /// Address and port to serve; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12345")]
    listen: String,
    /// Serve other computers too; the protocol has no transport security: anyone who reaches the port can
    /// occupy the device and guess at passwords
    #[arg(long)]
    allow_remote: bool,
    /// Also serve clients that address this program by a name other than loopback's, such as that of a
    /// tunnel; requests for other names are refused, since a web page could have sent them. May be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<Host>,
}

impl Connector {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let listener = bind(&self.listen, self.allow_remote)?;
        let mut device = Device { address: context.device()?.clone(), exchange: None };
        // A device that goes away later is not an error; at the start the address may be wrong.
        device.exchange = Some(super::open_or_make(&device.address)?);
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Service)?;
        runtime.block_on(async {
            let ended = service::ended().map_err(CliError::Service)?;
            let listener = TcpListener::from_std(listener).map_err(CliError::Service)?;
            let address = listener.local_addr().map_err(CliError::Service)?;
            Format::Text.print(&(), |()| format!("listening on http://{address}\n"))?;
            let settings = Settings { hosts: self.allow_host, ..Settings::default() };
            serve(listener, device, settings, ended).await.map_err(CliError::Service)
        })
    }
}

/// A device that may come and go.
struct Device {
    address: DeviceAddress,
    /// `None` while it is away.
    exchange: Option<Box<dyn Exchange>>,
}

impl Device {
    fn open(&mut self) -> Result<&mut dyn Exchange, OpenError> {
        let exchange = match self.exchange.take() {
            Some(exchange) => exchange,
            None => self.address.open(&listener())?,
        };
        Ok(self.exchange.insert(exchange).as_mut())
    }

    /// Performs an operation on the device; after a failure the connection is re-established the next time.
    fn with<T>(
        &mut self,
        act: impl FnOnce(&mut dyn Exchange) -> Result<T, ExchangeError>,
    ) -> Result<T, OpenError> {
        let was_there = self.exchange.is_some();
        let done = self.open().and_then(|device| Ok(act(device)?));
        match &done {
            Ok(_) if !was_there => output::talk(format_args!("{} is there", self.address)),
            Ok(_) => {}
            Err(_) => self.exchange = None,
        }
        if was_there && let Err(error) = &done {
            output::talk(line(error));
        }
        done
    }
}

impl Backend for Device {
    type Error = OpenError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.with(|device| device.transact(request))
    }

    fn status(&mut self) -> Status {
        match self.with(|device| device.check()) {
            Ok(serial) => Status { present: true, serial },
            Err(_) => Status { present: false, serial: None },
        }
    }
}
