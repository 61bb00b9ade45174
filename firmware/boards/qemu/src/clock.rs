//! Time since the start, from the processor's own timer: a tick every 10 ms.

use core::cell::Cell;
use core::time::Duration;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;
use critical_section::Mutex;

/// The machine's processor clock.
const HERTZ: u32 = 20_000_000;
const TICK: Duration = Duration::from_millis(10);

static UPTIME: Mutex<Cell<Duration>> = Mutex::new(Cell::new(Duration::ZERO));

/// Starts the clock.
pub(crate) fn start(mut timer: SYST) {
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(HERTZ / 100 - 1);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
}

/// Time since [`start`], in steps of a tick.
pub(crate) fn uptime() -> Duration {
    critical_section::with(|cs| UPTIME.borrow(cs).get())
}

#[exception]
fn SysTick() {
    critical_section::with(|cs| {
        let uptime = UPTIME.borrow(cs);
        uptime.set(uptime.get() + TICK);
    });
}
