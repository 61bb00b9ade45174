//! When the watchdog is fed: as long as the thread gets on.
//!
//! What runs in interrupts feeds it, so that interrupts which stop are noticed at once. The thread computes for minutes
//! without a sign of life when it looks for the primes of a long RSA key; so it is trusted for [`LONGEST`] with one
//! message, and no longer.

use core::time::Duration;

use sshsm_protocol::link::Activity;

/// Longer than any message should take; an estimate. The primes of an RSA-4096 key are a matter of luck, and on a Cortex-M0+
/// they may not be found in time: such a key is made elsewhere and imported.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// What is known of the thread.
#[derive(Default)]
pub struct Progress {
    /// Since when it has had the message that it has.
    since: Option<Duration>,
}

impl Progress {
    /// The thread answered a message.
    pub fn answered(&mut self) {
        self.since = None;
    }

    /// Whether the thread gets on, as far as one can know.
    pub fn made(&mut self, activity: Activity, now: Duration) -> bool {
        match activity {
            Activity::Idle | Activity::Failed => self.since = None,
            Activity::Busy | Activity::TouchWanted => {
                let since = *self.since.get_or_insert(now);
                return now.saturating_sub(since) < LONGEST;
            }
        }
        true
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
}
