//! The device in this process: the firmware core on a desktop, with a power switch.

use std::{
    fmt, mem,
    path::{Path, PathBuf},
};

use sshsm_firmware::{
    Device, MountError,
    link::Vitals,
    platform::{Boot, Description, Platform as _, Presence},
};
use sshsm_protocol::ssh::template::Dialect;

use crate::{
    clock::Clock,
    connector::{Backend, Status},
    entropy::Entropy,
    flash::Flash,
    platform::{Desktop, Indicator, Listener, Observer, Played, RootKeyBytes, Touch},
    state::{Birthmark, Saved, State, StateError},
};

/// A running device.
///
/// ```
/// use sshsm_simulator::Simulator;
///
/// let mut device = Simulator::memory().start()?;
/// let echo = [0x01, 0, 2, b'h', b'i'];
/// assert_eq!(device.transact(&echo)?, [0x81, 0, 2, b'h', b'i']);
/// # Ok::<(), sshsm_simulator::SimulatorError>(())
/// ```
pub struct Simulator {
    device: Option<Box<Device<Desktop>>>, // none once something went wrong
    birthmark: Birthmark,
    state: Option<State>,
    /// Times that it was restarted because a session asked for it.
    restarts: u64,
}

/// Why there is no device, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The state directory cannot be used, or the state could not be saved.
    #[error(transparent)]
    State(#[from] StateError),
    /// The core refuses the contents of the flash.
    #[error("the device in {device} does not start")]
    Start {
        /// The state file, or "memory".
        device: String,
        /// The core's reason.
        source: MountError,
    },
    /// The device broke down earlier: its state could not be saved, or its code panicked.
    #[error("the device is switched off after an earlier failure: start it again")]
    Off,
}

/// The stored state of a device, for starting copies of it in memory; see [`Simulator::snapshot`].
pub struct Snapshot(Saved);

/// The origin of a device.
enum Origin {
    Factory,
    Directory(PathBuf),
    Snapshot(Saved),
}

/// How a device starts; see [`Simulator::memory`], [`Simulator::open`] and [`Simulator::restore`].
pub struct Builder {
    origin: Origin,
    seed: Option<u64>,
    serial: Option<u32>,
    clock: Clock,
    observer: Observer,
    listener: Listener,
    indicator: Indicator,
    touch: Touch,
    dialect: Dialect,
    plays: Option<Played>,
}

impl Builder {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            seed: None,
            serial: None,
            clock: Clock::running(),
            observer: Box::new(|_| {}),
            listener: Box::new(|_, _| {}),
            indicator: Box::new(|_| {}),
            touch: Box::new(|_| Presence::Confirmed),
            dialect: Dialect::Extended,
            plays: None,
        }
    }

    /// Derives all randomness from this seed. **Unsafe: anyone who knows the seed knows every key that the
    /// device makes.** For reproducible tests; the state records it, see [`Simulator::predictable`].
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The serial number of a new device, not 0; an existing device or a snapshot keeps its own and refuses
    /// another. By default it is eight random digits.
    #[must_use]
    pub fn serial(mut self, serial: u32) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Runs on this clock instead of the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Shows every SSH signing decision, granted or refused, before the response is released.
    #[must_use]
    pub fn observer(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    /// Reports the outcome of every command, inside sessions too.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = listener;
        self
    }

    /// Shows what a board would show with its light.
    #[must_use]
    pub fn indicator(mut self, indicator: Indicator) -> Self {
        self.indicator = indicator;
        self
    }

    /// Decides whether the device is touched when the option `user-presence` requires it. By default it is,
    /// at once.
    #[must_use]
    pub fn touch(mut self, touch: Touch) -> Self {
        self.touch = touch;
        self
    }

    /// Knows nothing that YubiHSM 2 does not: its six tags in templates, and its commands.
    #[must_use]
    pub fn strict_yubihsm2(mut self) -> Self {
        self.dialect = Dialect::Yubihsm2;
        self
    }

    /// Impersonates another board, with an image and a boot loader: for tests of flashing.
    #[must_use]
    pub fn play(mut self, board: Played) -> Self {
        self.plays = Some(board);
        self
    }

    /// Switches the device on. A directory without a state becomes a new device in factory state.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::State`] if the directory is in use, damaged, or not writable; it is not modified.
    /// [`SimulatorError::Start`] if the flash is sound but the core cannot read its contents.
    pub fn start(self) -> Result<Simulator, SimulatorError> {
        let (state, saved) = match self.origin {
            Origin::Factory => (None, None),
            Origin::Directory(directory) => {
                State::open(&directory).map(|(state, saved)| (Some(state), saved))?
            }
            Origin::Snapshot(saved) => (None, Some(saved)),
        };
        let seeded = self.seed.is_some();
        let (birthmark, flash, root_key) = match saved {
            Some(Saved { birthmark: stored, flash, root_key }) => {
                if let Some(asked) = self.serial.filter(|asked| *asked != stored.serial) {
                    let path = state.as_ref().map_or("memory".into(), |state| state.file().to_owned());
                    return Err(StateError::Serial { path, stored: stored.serial, asked }.into());
                }
                (Birthmark { predictable: stored.predictable || seeded, ..stored }, flash, root_key)
            }
            None => {
                let serial = self.serial.unwrap_or_else(|| Entropy::new(self.seed).serial());
                let root_key = || Entropy::root_key(self.seed);
                let root_key =
                    state.as_ref().map_or_else(|| Ok(root_key()), |state| state.root_key(root_key))?;
                (Birthmark { serial, predictable: seeded }, Flash::blank(), root_key)
            }
        };
        let platform = Desktop {
            observer: self.observer,
            listener: self.listener,
            indicator: self.indicator,
            touch: self.touch,
            dialect: self.dialect,
            plays: self.plays,
            ..Desktop::new(birthmark.serial, root_key, self.clock, Entropy::new(self.seed))
        };
        let mut simulator = Simulator { device: None, birthmark, state, restarts: 0 };
        simulator.power_up(platform, flash)?;
        Ok(simulator)
    }
}

impl Simulator {
    /// A new device that is gone when it is dropped.
    #[must_use]
    pub fn memory() -> Builder {
        Builder::new(Origin::Factory)
    }

    /// The device in this state directory, made there if there is none. One process at a time has it.
    #[must_use]
    pub fn open(directory: impl Into<PathBuf>) -> Builder {
        Builder::new(Origin::Directory(directory.into()))
    }

    /// A device with everything that the snapshot's device had stored, as after a power cycle, discarded when
    /// it is dropped. It shares the serial number and every key with that device.
    #[must_use]
    pub fn restore(snapshot: &Snapshot) -> Builder {
        Builder::new(Origin::Snapshot(snapshot.0.clone()))
    }

    /// Everything that the device has stored: what takes long to set up is set up once, and every test starts
    /// from it.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::Off`] after a failure.
    pub fn snapshot(&mut self) -> Result<Snapshot, SimulatorError> {
        let device = self.device.as_mut().ok_or(SimulatorError::Off)?;
        let root_key = device.platform().root_key.clone();
        let flash = device.flash().ok_or(SimulatorError::Off)?.clone();
        Ok(Snapshot(Saved { birthmark: self.birthmark, flash, root_key }))
    }

    /// Exchanges one raw frame for another. The command's changes are safely stored before the response is
    /// returned.
    ///
    /// # Errors
    ///
    /// [`SimulatorError::State`] when they could not be stored, and [`SimulatorError::Off`] from then on: the
    /// running state would no longer be what a restart brings back. Errors of the device itself are frames.
    pub fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        let mut device = self.device.take().ok_or(SimulatorError::Off)?; // back only if all went well
        let mut response = vec![0; sshsm_protocol::frame::MAX_MESSAGE];
        let length = device.handle(request, &mut response);
        response.truncate(length);
        self.save(&mut device)?;
        match device.restart() {
            None => self.device = Some(device),
            Some(Boot::Firmware) => {
                self.restarts += 1;
                self.start_again(device)?;
            }
            // Off from here on.
            Some(Boot::BootLoader) => {
                if let Some(board) = &mut device.platform().plays {
                    (board.boot_loader)();
                }
            }
        }
        Ok(response)
    }

    /// Pulls the plug and puts it back: sessions are gone, objects are kept, the uptime starts over.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`], and [`SimulatorError::Off`] after a failure.
    pub fn power_cycle(&mut self) -> Result<(), SimulatorError> {
        let device = self.device.take().ok_or(SimulatorError::Off)?;
        self.start_again(device)
    }

    fn start_again(&mut self, mut device: Box<Device<Desktop>>) -> Result<(), SimulatorError> {
        let flash = mem::replace(device.flash().ok_or(SimulatorError::Off)?, Flash::none());
        let nobody = Desktop::new(self.serial(), RootKeyBytes::default(), Clock::held(), Entropy::new(None));
        let mut platform = mem::replace(device.platform(), nobody);
        platform.powered_up = platform.clock.elapsed();
        self.power_up(platform, flash)
    }

    /// Where its state is kept, if it is.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.state.as_ref().map(State::directory)
    }

    /// The device's serial number.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.birthmark.serial
    }

    /// Whether a seed has ever been this device's source of randomness, in this run or an earlier one: its
    /// keys must then be considered known.
    #[must_use]
    pub fn predictable(&self) -> bool {
        self.birthmark.predictable
    }

    /// The warning for every user of a predictable device.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        self.predictable().then_some(
            "WARNING: this device has drawn its randomness from a seed: anyone can repeat its keys. It is UNSAFE for \
             anything but tests, and stays so without the seed.",
        )
    }

    /// What the device reports outside any session; `None` once it is off.
    pub(crate) fn vitals(&mut self) -> Option<Vitals> {
        self.device.as_mut().map(|device| device.vitals())
    }

    /// Times that it was restarted because a session asked for it.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Its description; `None` once it is off.
    pub(crate) fn description(&mut self) -> Option<Description> {
        self.device.as_mut().map(|device| device.platform().describe())
    }

    pub(crate) fn platform(&mut self) -> Option<&mut Desktop> {
        self.device.as_mut().map(|device| device.platform())
    }

    fn power_up(&mut self, platform: Desktop, flash: Flash) -> Result<(), SimulatorError> {
        let mut device = Box::new(Device::start(platform, flash).map_err(|source| {
            SimulatorError::Start {
                device: self
                    .state
                    .as_ref()
                    .map_or("memory".to_owned(), |state| state.file().display().to_string()),
                source,
            }
        })?);
        self.save(&mut device)?;
        self.device = Some(device);
        Ok(())
    }

    fn save(&self, device: &mut Device<Desktop>) -> Result<(), SimulatorError> {
        let flash = device.flash().ok_or(SimulatorError::Off)?;
        if let Some(state) = self.state.as_ref().filter(|_| flash.changed()) {
            state.save(self.birthmark, flash)?;
        }
        flash.saved();
        Ok(())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("serial", &self.0.birthmark.serial).finish_non_exhaustive()
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("serial", &self.serial()).finish_non_exhaustive()
    }
}

impl Backend for Simulator {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        Self::transact(self, request)
    }

    fn status(&mut self) -> Status {
        Status { present: self.device.is_some(), serial: Some(self.serial()) }
    }
}
