//! Waiting for a touch of the button, the same on every board.

use core::time::Duration;

use sshsm_firmware::platform::Presence;

use crate::link;

/// What a board needs for waiting.
pub trait Button {
    /// Whether it is held down now.
    fn pressed(&mut self) -> bool;

    /// Lets a little time pass: about as long as contacts bounce.
    fn pause(&mut self);

    /// Time since the start.
    fn uptime(&mut self) -> Duration;

    /// There is something to send over the link.
    fn send(&mut self);
}

/// Tells the host and waits for the button to be pressed; one that is already held down must be released
/// first.
pub fn confirm(button: &mut impl Button, timeout: Duration) -> Presence {
    let end = button.uptime().saturating_add(timeout);
    link::touch_wanted(Some(timeout));
    button.send();
    let mut released = false;
    let presence = loop {
        let pressed = button.pressed();
        if pressed && released {
            break Presence::Confirmed;
        }
        released |= !pressed;
        if button.uptime() >= end {
            break Presence::TimedOut;
        }
        button.pause();
    };
    link::touch_wanted(None);
    presence
}
