//! When the watchdog is fed: as long as the main thread makes progress.
//!
//! Interrupt code feeds it, so that stopped interrupts are noticed at once. The thread computes for minutes
//! without a sign of life when it searches for the primes of a long RSA key, so it may spend up to
//! [`LONGEST`] on one message. It has [`LONGEST_START`] until it serves.

use core::time::Duration;

use sshsm_protocol::link::Activity;

/// Longer than any message should take; an estimate. Finding the primes of an RSA-4096 key is a matter of
/// luck, and on a Cortex-M0+ they may not be found in time: generate such a key elsewhere and import it.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Longer than any start should take: the slowest flash takes 52 s to erase the store's 129 sectors.
pub const LONGEST_START: Duration = Duration::from_secs(180);

/// What is known about the thread.
#[derive(Default)]
pub struct Progress {
    /// Since when it has started, or has had the message that it has.
    since: Option<(Task, Duration)>,
}

/// What it is given time for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Start,
    Message,
}

impl Progress {
    /// The thread answered a message.
    pub fn answered(&mut self) {
        self.since = None;
    }

    /// Whether the thread gets on, as far as one can know.
    pub fn made(&mut self, activity: Activity, now: Duration) -> bool {
        let (task, limit) = match activity {
            Activity::Idle | Activity::Failed => {
                self.since = None;
                return true;
            }
            Activity::Starting => (Task::Start, LONGEST_START),
            Activity::Busy | Activity::TouchWanted => (Task::Message, LONGEST),
        };
        let since = match self.since {
            Some((begun, since)) if begun == task => since,
            _ => now,
        };
        self.since = Some((task, since));
        now.saturating_sub(since) < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(10);

    #[test]
    fn a_thread_that_never_answers_is_given_up() {
        let mut progress = Progress::default();
        assert!(progress.made(Activity::Busy, START));
        assert!(progress.made(Activity::Busy, START + LONGEST - Duration::from_nanos(1)));
        assert!(!progress.made(Activity::TouchWanted, START + LONGEST));
    }

    #[test]
    fn one_that_answers_never_is_even_if_it_is_never_seen_idle() {
        let mut progress = Progress::default();
        for hour in 1..10 {
            assert!(progress.made(Activity::Busy, LONGEST * hour));
            progress.answered();
        }
    }

    #[test]
    fn one_that_waits_or_has_failed_is_left_alone() {
        let mut progress = Progress::default();
        for activity in [Activity::Idle, Activity::Failed] {
            assert!(progress.made(activity, Duration::ZERO));
            assert!(progress.made(activity, 3 * LONGEST));
        }
        assert!(progress.made(Activity::Busy, 3 * LONGEST));
    }

    #[test]
    fn a_start_that_never_serves_is_given_up_and_serving_restarts_the_time() {
        let mut progress = Progress::default();
        let late = LONGEST_START - Duration::from_nanos(1);
        assert!(progress.made(Activity::Starting, Duration::ZERO) && progress.made(Activity::Starting, late));
        assert!(progress.made(Activity::Busy, LONGEST_START) && progress.made(Activity::Busy, LONGEST));
        let mut hangs = Progress::default();
        assert!(hangs.made(Activity::Starting, Duration::ZERO));
        assert!(!hangs.made(Activity::Starting, LONGEST_START));
    }
}
