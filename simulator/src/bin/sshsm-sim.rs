//! `sshsm-sim`: a device behind the YubiHSM connector's HTTP service.
//!
//! The first line on stdout is `listening on http://ADDRESS`, and the only one; all talk is on stderr.

use std::{
    error::Error,
    fmt::Display,
    io::Write,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgGroup, Parser};
use sshsm_firmware::platform::Indication;
use sshsm_simulator::{
    Simulator, SimulatorError,
    connector::{Backend, Status, Timeouts, serve},
};
use tokio::signal::unix::{SignalKind, signal};

/// The sshsm device as a simulator, for every client of the YubiHSM connector.
#[derive(Parser)]
#[command(version, group(ArgGroup::new("where").required(true).args(["state", "memory"])))]
struct Arguments {
    /// Address and port to serve; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12345")]
    listen: String,
    /// Keep the device in this directory; a new one is made where there is none.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// A new device that is gone when the program ends.
    #[arg(long)]
    memory: bool,
    /// Make everything random repeatable. UNSAFE: anyone can repeat the device's keys. For tests only.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The serial number of a new device.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    serial: Option<u32>,
    /// Tell of every command, and of every signing decision with its checks.
    #[arg(short, long)]
    verbose: bool,
    /// Serve other computers too. The connector protocol has no transport security: anyone who reaches the
    /// port can occupy the device and guess at passwords.
    #[arg(long)]
    allow_remote: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("sshsm-sim: {}", reasons(&*error)));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to stderr. That nobody reads it any more must not stop the device.
fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error and what it came from, in one line.
fn reasons(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    // From here on a signal ends the program in order, whatever it is doing.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = bind(&arguments.listen, arguments.allow_remote)?;
    let mut builder = match &arguments.state {
        Some(directory) => Simulator::open(directory),
        None => Simulator::memory(),
    };
    if let Some(seed) = arguments.seed {
        builder = builder.seed(seed);
    }
    if let Some(serial) = arguments.serial {
        builder = builder.serial(serial);
    }
    if arguments.verbose {
        builder = builder
            .observer(Box::new(|decision| tell(decision)))
            .listener(Box::new(|command, outcome| match outcome {
                Ok(()) => tell(command),
                Err(error) => tell(format_args!("{command}: {error}")),
            }))
            .indicator(Box::new(|Indication::Blink { duration }| {
                tell(format_args!("the light blinks for {duration:?}"));
            }));
    }
    let simulator = builder.start()?;
    if let Some(warning) = simulator.warning() {
        tell(format_args!("sshsm-sim: {warning}"));
    }

    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "listening on http://{address}")?;
    std::io::stdout().flush()?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let backend = Narrated(simulator);
    serve(tokio::net::TcpListener::from_std(listener)?, backend, Timeouts::default(), shutdown).await?;
    Ok(())
}

fn bind(listen: &str, allow_remote: bool) -> Result<TcpListener, Box<dyn Error>> {
    let failed = |error| format!("cannot listen on {listen}: {error}");
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(failed)?.collect();
    if !allow_remote && let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(format!(
            "{address} can be reached from other computers, and the connector protocol has no transport security: \
             listen on 127.0.0.1, or add --allow-remote"
        )
        .into());
    }
    let listener = TcpListener::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The device, telling on stderr why it fails.
struct Narrated(Simulator);

impl Backend for Narrated {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        self.0.transact(request)
    }

    fn status(&mut self) -> Status {
        self.0.status()
    }

    fn failed(&mut self, error: &SimulatorError) {
        tell(format_args!("sshsm-sim: {}", reasons(error)));
    }
}
