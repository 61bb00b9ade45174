//! What the reader is told while a device works and certificates are issued.

use sshsm_ca::causes::line;
use sshsm_client::{Listener, Notice};

use crate::output::{hex, talk};

/// Says every notice on stderr.
pub(super) fn listener() -> Listener {
    Listener::new(say)
}

fn say(notice: &Notice<'_>) {
    match notice {
        Notice::TouchWanted { seconds } => talk(format_args!("touch the device (it waits {seconds} s)")),
        Notice::Busy => talk("the device is busy with an earlier command; waiting"),
        Notice::Warning { device, warning } => talk(format_args!("{device}: {warning}")),
        Notice::NotIdentified => talk(
            "NOT CHECKED: which device answers. The device has the factory's password: new keys go in a session of their \
             own, which no recording opens, but a relay that puts itself in the device's place could read them. To rule \
             that out, name the device's public key: --device-key FILE, as `sshsm device public-key` prints it where the \
             device is plugged in",
        ),
        Notice::TemporaryKeyLeft { id, error } => talk(format_args!(
            "WARNING: the temporary authentication key {id} may still be on the device ({error}); its private half is \
             nowhere but here, and the next run takes the key away"
        )),
        Notice::KeyLeftBehind { id, error } => talk(format_args!(
            "WARNING: an earlier run left authentication key {id} on the device, which opens sessions, and this \
             session may not delete it ({error}): sshsm key delete {id} --type authentication-key"
        )),
    }
}

/// Says every notice of what issues certificates and timestamps on stderr.
pub(super) fn issuing() -> sshsm_ca::Listener {
    sshsm_ca::Listener::new(say_of_issuing)
}

fn say_of_issuing(notice: &sshsm_ca::Notice<'_>) {
    use sshsm_ca::Notice;
    match notice {
        Notice::FailureNotRecorded { error } => {
            talk(format_args!("the ledger does not know that it failed: {}", line(*error)));
        }
        Notice::TimestampSigned { digest, now, client } => {
            talk(format_args!("signed {} at {now} for {client}", hex(*digest)));
        }
        Notice::TimestampFailed { client, error } => {
            talk(format_args!("no timestamp for {client}: {}", line(*error)));
        }
        Notice::TimestampLate { client, limit } => {
            let limit = limit.as_secs();
            talk(format_args!("no timestamp for {client}: the key did not sign within {limit} s"));
        }
    }
}
