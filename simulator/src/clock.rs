//! The device's monotonic clock: either the desktop's own, or one that a test holds and advances by hand, so
//! that testing an expired session takes no waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The source of the time. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Running(Instant),
    Held(Arc<AtomicU64>), // nanoseconds
}

impl Clock {
    /// The operating system's monotonic clock, from now on.
    #[must_use]
    pub fn running() -> Self {
        Self(Source::Running(Instant::now()))
    }

    /// A clock that does not move until [`Clock::advance`] moves it.
    #[must_use]
    pub fn held() -> Self {
        Self(Source::Held(Arc::default()))
    }

    /// Moves a held clock (and all its clones) forward; a running clock goes its own way.
    pub fn advance(&self, by: Duration) {
        if let Source::Held(elapsed) = &self.0 {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            let _ =
                elapsed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| Some(t.saturating_add(by)));
        }
    }

    /// Time since the clock was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::Running(start) => start.elapsed(),
            Source::Held(elapsed) => Duration::from_nanos(elapsed.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_clock_moves_only_by_hand_and_in_all_its_clones() {
        let clock = Clock::held();
        let device = clock.clone();
        assert_eq!(device.elapsed(), Duration::ZERO);
        clock.advance(Duration::from_secs(30));
        assert_eq!(device.elapsed(), Duration::from_secs(30));
        clock.advance(Duration::MAX);
        assert_eq!(device.elapsed(), Duration::from_nanos(u64::MAX), "the far end is a wall, not a wrap");
    }

    #[test]
    fn a_running_clock_moves_by_itself() {
        let clock = Clock::running();
        clock.advance(Duration::from_secs(3600));
        assert!(clock.elapsed() < Duration::from_secs(3600));
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.elapsed() >= Duration::from_millis(2));
    }
}
