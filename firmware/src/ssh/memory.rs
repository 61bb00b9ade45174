//! The state that a device keeps about signatures under a template, for the rules that need it: the last
//! serial number, the highest now, and when it signed.
//!
//! It is written *before* a signature is released: a power cut can waste a permission, but never grants one.

use alloc::vec::Vec;

use sshsm_protocol::codec::{CodecError, Reader};
use sshsm_protocol::ssh::request::Request;
use sshsm_protocol::ssh::rules::{MAX_QUOTA, Rules};
use sshsm_protocol::ssh::timestamp::Now;

/// The signatures under one template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last serial number, under a rule that requires them to increase.
    pub last_serial: Option<u64>,
    /// The highest now, in UNIX seconds, under a rule that does not let it go back.
    pub highest_now: Option<u32>,
    /// The nows of the last signatures, in UNIX seconds, under a quota; at most [`MAX_QUOTA`], the oldest first.
    pub times: Vec<u32>,
}

impl Memory {
    /// How many signatures were made in the last `window` seconds up to `now`. A signature later than `now`
    /// counts: setting the clock back gives nothing back.
    #[must_use]
    pub fn signatures_in(&self, window: u32, now: Now) -> usize {
        self.times.iter().filter(|&&time| now.seconds().saturating_sub(time) < window).count()
    }

    /// The memory after one more signature.
    #[must_use]
    pub fn after(&self, rules: &Rules<'_>, request: &Request<'_>, now: Now) -> Self {
        let mut times = self.times.clone();
        if let Some(quota) = rules.quota {
            times.push(now.seconds());
            let most = usize::from(quota.signatures);
            // Those of the highest nows are the last that a window lets go.
            times.sort_unstable();
            times.drain(..times.len().saturating_sub(most));
        }
        let serial = rules.increasing_serials.then_some(request.serial);
        let now = rules.clock.map(|_| now.seconds());
        Self { last_serial: serial.max(self.last_serial), highest_now: now.max(self.highest_now), times }
    }

    /// `flags u8 (1 serial, 2 now) ‖ last serial u64 ‖ highest now u32 ‖ times u32…`, big-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.last_serial.is_some()) + 2 * u8::from(self.highest_now.is_some());
        let mut bytes = Vec::from([flags]);
        bytes.extend(self.last_serial.unwrap_or_default().to_be_bytes());
        bytes.extend(self.highest_now.unwrap_or_default().to_be_bytes());
        bytes.extend(self.times.iter().flat_map(|time| time.to_be_bytes()));
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let serial = reader.array().map(u64::from_be_bytes)?;
        let now = reader.u32()?;
        let mut times = Vec::new();
        while reader.remaining() > 0 && times.len() < usize::from(MAX_QUOTA) {
            times.push(reader.u32()?);
        }
        reader.finish()?;
        Ok(Self {
            last_serial: (flags & 1 != 0).then_some(serial),
            highest_now: (flags & 2 != 0).then_some(now),
            times,
        })
    }
}
