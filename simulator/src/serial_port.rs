//! A virtual serial port: a pseudo-terminal on which the device speaks the link, as a board does over USB.
//!
//! One thread moves bytes between the terminal and the link's end, as interrupts do on a board; another
//! carries out messages. Hello, status and log requests are therefore answered while the device computes. A
//! client that closes the port is like a host that unplugs the cable: its requests are discarded.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt, fs,
    io::{self, PipeReader, PipeWriter, Read, Write},
    mem,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use sshsm_firmware::{
    link::{Endpoint, Identity, Refusal, Vitals},
    platform::{Boot, Presence},
};
use sshsm_protocol::{
    DeviceError,
    frame::{MAX_MESSAGE, error_frame},
    link::{Level, ResetReason},
};

use crate::{
    clock::Clock,
    platform::Desktop,
    simulator::{Simulator, SimulatorError},
};

/// The polling interval for a port that no client has open.
const NOBODY: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// How long a port that vanishes waits for its host to read.
const GONE: Duration = Duration::from_millis(100);

impl Simulator {
    /// Serves the device on a virtual serial port, until the value is dropped.
    ///
    /// ```
    /// use sshsm_simulator::Simulator;
    ///
    /// let device = Simulator::memory().start()?.serve_pty()?;
    /// println!("sshsm --device serial:{} device status", device.path().display());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system has no pseudo-terminal or no thread to give.
    pub fn serve_pty(self) -> io::Result<SerialPort> {
        SerialPort::open(Arc::new(Mutex::new(self)), |_| {})
    }
}

/// A device on a virtual serial port. Dropping it lets a running command finish, and hangs up.
pub struct SerialPort {
    path: PathBuf,
    link: Option<PathBuf>,
    simulator: Arc<Mutex<Simulator>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl SerialPort {
    /// Serves a device that is also served elsewhere; `failed` receives the reason when it no longer answers.
    ///
    /// # Errors
    ///
    /// When the system has no pseudo-terminal or no thread to give.
    pub fn open(
        simulator: Arc<Mutex<Simulator>>,
        failed: impl FnMut(&SimulatorError) + Send + 'static,
    ) -> io::Result<Self> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        fcntl_setfd(&terminal, FdFlags::CLOEXEC)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        ioctl_fionbio(&terminal, true)?;
        let path = PathBuf::from(OsString::from_vec(ptsname(&terminal, Vec::new())?.into_bytes()));
        raw(&path)?;
        let (wake, waker) = io::pipe()?;
        let shared = {
            let mut simulator = lock(&simulator);
            let clock = simulator.platform().map_or_else(Clock::running, |platform| platform.clock.clone());
            let end = Mutex::new(End::start(&mut simulator, &clock, ResetReason::PowerOn));
            let shared = Shared { end, changed: Condvar::new(), waker, clock, stop: AtomicBool::new(false) };
            let shared = Arc::new(shared);
            if let Some(platform) = simulator.platform() {
                attend(platform, &shared);
            }
            shared
        };
        let mut port = Self { path, link: None, simulator, shared, threads: Vec::new() };
        let (shared, simulator) = (port.shared.clone(), port.simulator.clone());
        port.spawn("sshsm-commands", move || carry_out(&shared, &simulator, failed))?;
        let shared = port.shared.clone();
        // It fails only if the terminal itself does, and then there is no one to tell.
        port.spawn("sshsm-serial-port", move || drop(pump(&shared, &terminal, wake)))?;
        Ok(port)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// The terminal, `/dev/pts/N`: what a client opens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a symbolic link to the terminal, replacing one left by an earlier run; removed when this is
    /// dropped.
    ///
    /// # Errors
    ///
    /// When something else is there, or the link cannot be made.
    pub fn link(&mut self, link: &Path) -> io::Result<()> {
        if link.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            fs::remove_file(link)?;
        }
        symlink(&self.path, link)?;
        self.link = Some(link.to_owned());
        Ok(())
    }

    /// The device itself, between two commands: none is carried out while this is held.
    pub fn simulator(&self) -> MutexGuard<'_, Simulator> {
        lock(&self.simulator)
    }

    /// Pulls the plug and puts it back, as [`Simulator::power_cycle`]; the terminal stays.
    ///
    /// # Errors
    ///
    /// As [`Simulator::power_cycle`].
    pub fn power_cycle(&self) -> Result<(), SimulatorError> {
        self.shared.restart(&mut lock(&self.simulator), ResetReason::PowerOn)
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = fs::remove_file(link);
        }
        {
            // Under the lock, so that no thread starts waiting in the meantime.
            let _end = lock(&self.shared.end);
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.shared.wake();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialPort").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Puts a terminal into raw mode: bytes pass unchanged. The settings last as long as the terminal.
fn raw(path: &Path) -> io::Result<()> {
    let terminal = fs::File::options().read(true).write(true).open(path)?;
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    Ok(tcsetattr(&terminal, OptionalActions::Now, &settings)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A device that panicked is off, and reports that itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device's end of the link, since its last start.
struct End {
    endpoint: Endpoint,
    started: Duration, // on the device's clock
    /// A session asked for it, and its host has the answer.
    restart: Option<Boot>,
}

impl End {
    fn start(simulator: &mut Simulator, clock: &Clock, reset: ResetReason) -> Self {
        let description = simulator.description();
        let board = description.map_or("simulator", |description| description.board);
        let mut endpoint = Endpoint::new(Identity { board, serial: simulator.serial(), reset });
        if let Some(image) = description.and_then(|description| description.image) {
            endpoint.set_image(image);
        }
        match simulator.vitals() {
            Some(vitals) => endpoint.started(vitals),
            None => endpoint.fail(),
        }
        endpoint.log(Level::Info, Duration::ZERO, format_args!("started: {reset}"));
        Self { endpoint, started: clock.elapsed(), restart: None }
    }

    fn uptime(&self, clock: &Clock) -> Duration {
        clock.elapsed().saturating_sub(self.started)
    }

    fn log(&mut self, level: Level, clock: &Clock, text: fmt::Arguments<'_>) {
        let uptime = self.uptime(clock);
        self.endpoint.log(level, uptime, text);
    }
}

/// Has refused commands noted in the log of the link, and its host told while the device waits for a touch.
fn attend(platform: &mut Desktop, shared: &Arc<Shared>) {
    let mut listener = mem::replace(&mut platform.listener, Box::new(|_, _| {}));
    let link = shared.clone();
    platform.listener = Box::new(move |command, outcome| {
        listener(command, outcome);
        if let Err(error) = outcome {
            lock(&link.end).log(Level::Warning, &link.clock, format_args!("{}", Refusal(command, error)));
        }
    });
    let mut touch = mem::replace(&mut platform.touch, Box::new(|_| Presence::Unsupported));
    let link = shared.clone();
    platform.touch = Box::new(move |timeout| {
        lock(&link.end).endpoint.touch_wanted(Some(timeout));
        link.wake();
        let presence = touch(timeout);
        lock(&link.end).endpoint.touch_wanted(None);
        presence
    });
}

struct Shared {
    end: Mutex<End>,
    /// A message came, or room for its answer.
    changed: Condvar,
    /// Something is to be sent.
    waker: PipeWriter,
    clock: Clock,
    stop: AtomicBool,
}

impl Shared {
    fn wake(&self) {
        self.changed.notify_all();
        let _ = (&self.waker).write(&[0]);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn restart(&self, simulator: &mut Simulator, reset: ResetReason) -> Result<(), SimulatorError> {
        let done = simulator.power_cycle();
        self.begin(simulator, reset);
        done
    }

    /// The device has started.
    fn begin(&self, simulator: &mut Simulator, reset: ResetReason) {
        *lock(&self.end) = End::start(simulator, &self.clock, reset);
        self.wake();
    }
}

/// Carries out the messages from the link, one at a time.
fn carry_out(shared: &Shared, simulator: &Mutex<Simulator>, mut failed: impl FnMut(&SimulatorError)) {
    let mut message = [0; MAX_MESSAGE];
    let mut end = lock(&shared.end);
    while !shared.stopped() {
        match end.restart.take() {
            None => {}
            Some(Boot::Firmware) => {
                drop(end);
                shared.begin(&mut lock(simulator), ResetReason::Requested);
                end = lock(&shared.end);
                continue;
            }
            // The board's boot loader has no such port. The host reads the pending output before the port
            // goes away.
            Some(Boot::BootLoader) => {
                drop(end);
                thread::sleep(GONE);
                shared.stop.store(true, Ordering::Relaxed);
                shared.wake();
                return;
            }
        }
        let Some(length) = end.endpoint.take(&mut message) else {
            end = shared.changed.wait(end).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(end);
        let (answer, vitals, restart) = {
            let mut simulator = lock(simulator);
            let before = simulator.restarts();
            let answer = simulator.transact(message.get(..length).unwrap_or_default());
            let restart = match simulator.vitals() {
                Some(_) if simulator.restarts() != before => Some(Boot::Firmware),
                None if answer.is_ok() => Some(Boot::BootLoader),
                _ => None,
            };
            (answer, simulator.vitals(), restart)
        };
        end = lock(&shared.end);
        let vitals = vitals.unwrap_or_else(Vitals::default);
        match answer {
            Ok(answer) => {
                end.endpoint.respond(&answer, vitals);
                if let Some(boot) = restart {
                    end.endpoint.restart(boot);
                }
            }
            Err(error) => {
                failed(&error);
                end.log(Level::Error, &shared.clock, format_args!("{error}"));
                end.endpoint.respond(&error_frame(DeviceError::StorageFailed), vitals);
                end.endpoint.fail();
            }
        }
        shared.wake();
    }
}

/// Moves bytes between the terminal and the link's end until the port is closed.
fn pump(shared: &Shared, terminal: &OwnedFd, mut wake: PipeReader) -> io::Result<()> {
    let mut received = VecDeque::new();
    let mut sending = VecDeque::new();
    let mut buffer = [0; 512];
    let mut nobody = false;
    while !shared.stopped() {
        {
            let mut end = lock(&shared.end);
            let uptime = end.uptime(&shared.clock);
            while end.endpoint.ready()
                && let Some(byte) = received.pop_front()
            {
                end.endpoint.receive(byte, uptime);
            }
            if sending.is_empty() {
                let length = end.endpoint.transmit(&mut buffer);
                sending.extend(buffer.iter().take(length));
                if length == 0 {
                    end.restart = end.restart.or(end.endpoint.restart_due());
                }
            }
            shared.changed.notify_all();
        }
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, received.is_empty());
        wanted.set(PollFlags::OUT, !sending.is_empty());
        let mut events =
            [PollFd::new(&wake, PollFlags::IN), PollFd::from_borrowed_fd(terminal.as_fd(), wanted)];
        // A terminal that no client has open always reports a hang-up at once.
        let ready = match nobody {
            true => {
                let [wake, _] = &mut events;
                poll(std::slice::from_mut(wake), Some(&NOBODY))
                    .and_then(|_| poll(&mut events, Some(&Timespec::default())))
            }
            false => poll(&mut events, None),
        };
        match ready {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let [woken, port] = events.map(|event| event.revents());
        if woken.contains(PollFlags::IN) {
            let _ = wake.read(&mut buffer)?;
        }
        nobody = port.contains(PollFlags::HUP);
        if port.contains(PollFlags::IN) {
            match rustix::io::read(terminal, &mut buffer) {
                Ok(length) => received.extend(buffer.iter().take(length)),
                Err(Errno::IO) => nobody = true,
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        } else if nobody {
            received.clear();
            sending.clear();
            lock(&shared.end).endpoint.disconnected();
        }
        if port.contains(PollFlags::OUT) && !nobody {
            match rustix::io::write(terminal, sending.as_slices().0) {
                Ok(sent) => drop(sending.drain(..sent.min(sending.len()))),
                Err(Errno::AGAIN | Errno::IO) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
