//! The light: one pattern for each activity of a device.
//!
//! | light | the device |
//! |---|---|
//! | a short flash every two seconds | is waiting for a message |
//! | on | is starting, or carrying one out |
//! | quick, even blinking | is waiting for a touch |
//! | slow, even blinking | was asked to show itself (BLINK DEVICE) |
//! | three flashes and a pause | failed; its log says why |

use core::time::Duration;

use sshsm_protocol::link::Activity;

/// Whether the light is on at a time since the start; `shown` while the device is to show itself.
#[must_use]
pub fn lit(activity: Activity, shown: bool, now: Duration) -> bool {
    let within = |period: u128| now.as_millis() % period;
    match activity {
        Activity::TouchWanted => within(200) < 100,
        Activity::Failed => within(2000) < 900 && within(300) < 150,
        _ if shown => within(1000) < 500,
        Activity::Busy | Activity::Starting => true,
        Activity::Idle => within(2000) < 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the light is on in two seconds, and how often it turns on.
    fn seen(activity: Activity, shown: bool) -> (u64, usize) {
        let states: Vec<bool> = (0..2000).map(|at| lit(activity, shown, Duration::from_millis(at))).collect();
        let on = states.iter().filter(|on| **on).count();
        let risen = states.iter().zip(states.iter().cycle().skip(1)).filter(|(now, next)| !**now && **next);
        (on as u64, risen.count())
    }

    #[test]
    fn every_activity_has_its_own_pattern() {
        assert_eq!(seen(Activity::Idle, false), (100, 1));
        assert_eq!(seen(Activity::Busy, false), (2000, 0));
        assert_eq!(seen(Activity::Starting, false), (2000, 0));
        assert_eq!(seen(Activity::TouchWanted, false), (1000, 10));
        assert_eq!(seen(Activity::Failed, false), (450, 3));
        assert_eq!(seen(Activity::Idle, true), (1000, 2));
    }

    #[test]
    fn showing_itself_hides_neither_a_failure_nor_that_it_waits_to_be_touched() {
        for activity in [Activity::TouchWanted, Activity::Failed] {
            assert_eq!(seen(activity, true), seen(activity, false));
        }
    }
}
