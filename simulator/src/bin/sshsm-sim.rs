//! `sshsm-sim`: a device behind the YubiHSM connector's HTTP service, or on a virtual serial port.
//!
//! Stdout has only where it listens, `listening on http://ADDRESS` and `listening on serial:PATH`; all other
//! messages go to stderr.

use std::{
    error::Error,
    fmt::Display,
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use clap::{ArgGroup, Parser, ValueEnum, builder::ArgPredicate};
use sshsm_firmware::platform::Indication;
use sshsm_simulator::{
    Presence, Provision, SerialPort, Simulator, SimulatorError, Touch,
    connector::{self, Backend, Host, Settings, Status, serve},
};
use tokio::signal::unix::{SignalKind, signal};

/// The sshsm device as a simulator, for every client of the YubiHSM connector.
#[derive(Parser)]
#[command(version, group(ArgGroup::new("where").required(true).args(["state", "memory"])))]
struct Arguments {
    /// Address and port to serve; port 0 picks a free one. With --pty, HTTP is served only if this is given
    #[arg(long, value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:12345", default_value_if("pty", ArgPredicate::IsPresent, None))]
    listen: Option<String>,
    /// Serve the device on a virtual serial port, as a board; LINK becomes a symbolic link to it.
    #[arg(long, value_name = "LINK", num_args = 0..=1)]
    pty: Option<Option<PathBuf>>,
    /// Keep the device in this directory; a new device is created if there is none
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
    /// Set up the device as this TOML file declares, as far as it is not yet; see docs/simulator.md
    #[arg(long, value_name = "FILE")]
    provision: Option<PathBuf>,
    /// Power-cycle the device on this signal: sessions are lost, objects are kept
    #[arg(long, value_name = "SIGNAL")]
    power_cycle_on: Option<PowerSignal>,
    /// Who touches the device when the option user-presence requires it: at once, never, or by pressing Enter
    /// in time
    #[arg(long, value_name = "WHO", default_value = "accept")]
    presence: Who,
    /// Know only what YubiHSM 2 knows: no template rules beyond its six tags, no extension commands
    #[arg(long)]
    strict_yubihsm2: bool,
    /// Log every command, and every signing decision with its checks
    #[arg(short, long)]
    verbose: bool,
    /// Serve other computers too. The connector protocol has no transport security: anyone who reaches the
    /// port can occupy the device and guess at passwords.
    #[arg(long)]
    allow_remote: bool,
    /// Also serve clients that address this program by a name other than loopback's, such as that of a
    /// tunnel. Requests for other names are refused, since a web page could have sent them. May be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<Host>,
}

/// Signals that mean nothing else to the program.
#[derive(Clone, Copy, ValueEnum)]
enum PowerSignal {
    #[value(name = "SIGUSR1")]
    User1,
    #[value(name = "SIGUSR2")]
    User2,
}

/// Who touches the device.
#[derive(Clone, Copy, ValueEnum)]
enum Who {
    Accept,
    Reject,
    Ask,
}

impl Who {
    fn touch(self) -> Touch {
        match self {
            Self::Accept => Box::new(|_| Presence::Confirmed),
            Self::Reject => Box::new(|_| Presence::TimedOut),
            Self::Ask => {
                let (line, lines) = mpsc::channel();
                // Not joined when the program ends: nothing interrupts a read.
                thread::spawn(move || std::io::stdin().lines().try_for_each(|_| line.send(())));
                Box::new(move |timeout| {
                    while lines.try_recv().is_ok() {} // only input after the prompt counts
                    tell(format_args!("sshsm-sim: touch the device: press Enter within {timeout:?}"));
                    match lines.recv_timeout(timeout) {
                        Ok(()) => Presence::Confirmed,
                        Err(_) => Presence::TimedOut,
                    }
                })
            }
        }
    }
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

/// Writes a line to stderr. A closed stderr must not stop the device.
fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An error and its causes, in one line.
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
    let power = arguments
        .power_cycle_on
        .map(|power| match power {
            PowerSignal::User1 => signal(SignalKind::user_defined1()),
            PowerSignal::User2 => signal(SignalKind::user_defined2()),
        })
        .transpose()?;
    let provision = arguments.provision.as_deref().map(Provision::read).transpose()?;
    let bind = |listen| connector::bind(listen, arguments.allow_remote);
    let listener = arguments.listen.as_deref().map(bind).transpose()?;
    let settings = Settings { hosts: arguments.allow_host, ..Settings::default() };
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
    builder = builder.touch(arguments.presence.touch());
    if arguments.strict_yubihsm2 {
        builder = builder.strict_yubihsm2();
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
    let mut simulator = builder.start()?;
    if let Some(warning) = simulator.warning() {
        tell(format_args!("sshsm-sim: {warning}"));
    }
    if let Some(provision) = provision {
        if provision.has_inline_secrets() {
            tell(
                "sshsm-sim: WARNING: the provisioning file itself contains passwords or keys. For tests only.",
            );
        }
        let done = simulator.provision(&provision)?;
        for (outcome, objects) in [("made", done.created), ("kept", done.kept)] {
            for (object_type, id) in objects {
                tell(format_args!("sshsm-sim: {outcome} {object_type} {id}"));
            }
        }
    }

    let simulator = Arc::new(Mutex::new(simulator));
    let mut stdout = std::io::stdout();
    if let Some(listener) = &listener {
        writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    }
    let mut port = None;
    if let Some(link) = arguments.pty {
        let mut opened = SerialPort::open(simulator.clone(), fail)?;
        if let Some(link) = link {
            opened
                .link(&link)
                .map_err(|error| format!("cannot make the link {}: {error}", link.display()))?;
        }
        writeln!(stdout, "listening on serial:{}", opened.path().display())?;
        port = Some(Arc::new(opened));
    }
    stdout.flush()?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let backend = Narrated { simulator, port };
    if let Some(mut power) = power {
        let device = backend.clone();
        tokio::spawn(async move {
            while power.recv().await.is_some() {
                let mut device = device.clone();
                // It waits for the exchange that has the device now.
                let _ = tokio::task::spawn_blocking(move || device.power_cycle()).await;
            }
        });
    }
    match listener {
        Some(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            serve(listener, backend, settings, shutdown).await?;
        }
        None => shutdown.await,
    }
    Ok(())
}

/// The device, with failures reported on stderr, shared with the power switch.
#[derive(Clone)]
struct Narrated {
    simulator: Arc<Mutex<Simulator>>,
    port: Option<Arc<SerialPort>>,
}

/// Says why the device no longer answers.
fn fail(error: &SimulatorError) {
    tell(format_args!("sshsm-sim: {}", reasons(error)));
}

impl Narrated {
    fn device(&self) -> MutexGuard<'_, Simulator> {
        // A device that panicked is off, and reports that itself.
        self.simulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn power_cycle(&mut self) {
        let outcome = match &self.port {
            Some(port) => port.power_cycle(),
            None => self.device().power_cycle(),
        };
        match outcome {
            Ok(()) => tell("sshsm-sim: power off and on: sessions are gone, objects are kept"),
            Err(error) => fail(&error),
        }
    }
}

impl Backend for Narrated {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        self.device().transact(request)
    }

    fn status(&mut self) -> Status {
        self.device().status()
    }

    fn failed(&mut self, error: &SimulatorError) {
        fail(error);
    }
}
