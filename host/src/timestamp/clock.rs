//! Whether the system's clock follows an outer one, as far as the system can tell.
//!
//! systemd knows it of every daemon that steers the kernel's clock (timesyncd, chrony, ntpd): its `timedatectl` asks the
//! kernel. Where there is none, nobody can tell.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What is known of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronisation {
    /// It follows another clock.
    Synchronised,
    /// It runs by itself.
    Unsynchronised,
    /// The system cannot tell.
    Unknown,
}

/// Asks the system.
#[must_use]
pub fn ask_system() -> Synchronisation {
    let answer = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match answer.as_ref().map(|answer| answer.stdout.trim_ascii()) {
        Ok(b"yes") => Synchronisation::Synchronised,
        Ok(b"no") => Synchronisation::Unsynchronised,
        _ => Synchronisation::Unknown,
    }
}

/// Who can be asked about the clock.
pub type AskClock = Box<dyn Fn() -> Synchronisation + Send>;

/// How long an answer holds: to ask costs a process.
const FRESH: Duration = Duration::from_secs(10);

/// Asks, and remembers the answer for ten seconds.
pub struct ClockWatch {
    ask: AskClock,
    seen: Option<(Instant, Synchronisation)>,
}

impl ClockWatch {
    /// Watches the clock that `ask` knows of, such as [`ask_system`].
    #[must_use]
    pub const fn new(ask: AskClock) -> Self {
        Self { ask, seen: None }
    }

    /// What is known of the clock.
    pub fn look(&mut self) -> Synchronisation {
        match self.seen {
            Some((when, seen)) if when.elapsed() < FRESH => seen,
            _ => {
                let seen = (self.ask)();
                self.seen = Some((Instant::now(), seen));
                seen
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    #[test]
    fn the_system_is_not_asked_for_every_request() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let mut watch = ClockWatch::new(Box::new(move || {
            count.fetch_add(1, Relaxed);
            Synchronisation::Unsynchronised
        }));
        for _ in 0..5 {
            assert_eq!(watch.look(), Synchronisation::Unsynchronised);
        }
        assert_eq!(asked.load(Relaxed), 1);
    }
}
