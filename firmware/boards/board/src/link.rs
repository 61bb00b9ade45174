//! The link between interrupts and the main thread: bytes are handled at interrupt priority, messages are
//! carried out below it. Both access one [`Endpoint`], with interrupts off.

use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use critical_section::Mutex;
use sshsm_firmware::link::{Endpoint, Identity, Refusal, Vitals};
use sshsm_firmware::platform::Boot;
use sshsm_protocol::device_status::Image;
use sshsm_protocol::frame::MAX_MESSAGE;
use sshsm_protocol::link::{Activity, Level};
use sshsm_protocol::{Command, DeviceError};

struct Link {
    endpoint: Endpoint,
    uptime: fn() -> Duration,
}

static LINK: Mutex<RefCell<Option<Link>>> = Mutex::new(RefCell::new(None));

/// The value for an endpoint that has not started.
fn with<T>(otherwise: T, then: impl FnOnce(&mut Link) -> T) -> T {
    critical_section::with(|cs| match LINK.borrow_ref_mut(cs).as_mut() {
        Some(link) => then(link),
        None => otherwise,
    })
}

/// Starts the device's end of the link. `uptime` is the board's clock; it is read in interrupts too.
pub fn start(identity: Identity, uptime: fn() -> Duration) {
    critical_section::with(|cs| {
        *LINK.borrow_ref_mut(cs) = Some(Link { endpoint: Endpoint::new(identity), uptime });
    });
}

/// Whether a byte may be received; if not, it has to wait until something was sent.
#[must_use]
pub fn ready() -> bool {
    with(false, |link| link.endpoint.ready())
}

/// Accepts a received byte, when the link is [`ready`] for it.
pub fn receive(byte: u8) {
    with((), |link| {
        let now = (link.uptime)();
        link.endpoint.receive(byte, now);
    });
}

/// Moves bytes that shall be sent into `room`; returns how many.
pub fn transmit(room: &mut [u8]) -> usize {
    with(0, |link| link.endpoint.transmit(room))
}

/// What a session wants started, once its host has received everything: the board does it.
#[must_use]
pub fn restart_due() -> Option<Boot> {
    with(None, |link| link.endpoint.restart_due())
}

/// The board's name.
#[must_use]
pub fn board() -> &'static str {
    with("", |link| link.endpoint.board())
}

/// Has a command that ended noted, if it was refused.
pub fn handled(command: Command, outcome: Result<(), DeviceError>) {
    if let Err(error) = outcome {
        log(Level::Warning, format_args!("{}", Refusal(command, error)));
    }
}

/// The host went away.
pub fn disconnected() {
    with((), |link| link.endpoint.disconnected());
}

/// The device waits to be touched, for so long, or no longer does.
pub fn touch_wanted(timeout: Option<Duration>) {
    with((), |link| link.endpoint.touch_wanted(timeout));
}

/// The device's activity, for its light.
#[must_use]
pub fn activity() -> Activity {
    with(Activity::Starting, |link| link.endpoint.activity())
}

/// Adds a line to the log that hosts can ask for.
pub fn log(level: Level, text: fmt::Arguments<'_>) {
    with((), |link| {
        let now = (link.uptime)();
        link.endpoint.log(level, now, text);
    });
}

pub(crate) fn started(vitals: Vitals) {
    with((), |link| link.endpoint.started(vitals));
}

pub(crate) fn set_image(image: Image) {
    with((), |link| link.endpoint.set_image(image));
}

pub(crate) fn restart(boot: Boot) {
    with((), |link| link.endpoint.restart(boot));
}

pub(crate) fn fail() {
    with((), |link| link.endpoint.fail());
}

pub(crate) fn take(message: &mut [u8; MAX_MESSAGE]) -> Option<usize> {
    with(None, |link| link.endpoint.take(message))
}

pub(crate) fn respond(message: &[u8], vitals: Vitals) {
    with((), |link| link.endpoint.respond(message, vitals));
}
