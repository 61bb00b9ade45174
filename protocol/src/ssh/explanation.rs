//! The answer to EXPLAIN SSH REQUEST: a verdict in words, encoded with `postcard` as `{ now: u32, findings:
//! [{ check, outcome, asked, allowed: string }] }`.

use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Writer};

/// One check of a verdict; rules that the template does not have are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding<'a> {
    /// The check's name.
    pub check: &'a str,
    /// `allowed`, `refused` or `undecided`.
    pub outcome: &'a str,
    /// What was asked; a trailing `…` means that it was truncated because the answer has no more room.
    pub asked: &'a str,
    /// What is allowed, truncated in the same way.
    pub allowed: &'a str,
}

/// Bytes that one finding may take.
const LONGEST: usize = 1024;

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a verdict")]
pub struct ExplanationError;

/// Begins a verdict with this number of findings, which follow one by one ([`Finding::encode`]). `now` is in
/// UNIX seconds.
///
/// # Errors
/// When there is no room for it.
pub fn begin(now: u32, findings: usize, writer: &mut Writer<'_>) -> Result<(), CodecError> {
    write(&(now, findings), writer)
}

impl Finding<'_> {
    /// Writes one finding.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        write(self, writer)
    }
}

fn write(value: &impl Serialize, writer: &mut Writer<'_>) -> Result<(), CodecError> {
    let mut buffer = [0; LONGEST];
    let written = postcard::to_slice(value, &mut buffer)
        .map_err(|_| CodecError::NoSpace { needed: LONGEST, available: 0 })?;
    writer.bytes(written)
}

/// Reads what [`begin`] and [`Finding::encode`] wrote: the time, and the findings one by one.
///
/// # Errors
/// When it does not begin like a verdict; each finding may be invalid too.
pub fn decode(
    bytes: &[u8],
) -> Result<(u32, impl Iterator<Item = Result<Finding<'_>, ExplanationError>>), ExplanationError> {
    let ((now, count), mut rest) =
        postcard::take_from_bytes::<(u32, usize)>(bytes).map_err(|_| ExplanationError)?;
    let mut left = count;
    let findings = core::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        Some(match postcard::take_from_bytes(rest) {
            Ok((finding, after)) if left > 0 || after.is_empty() => {
                rest = after;
                Ok(finding)
            }
            _ => {
                left = 0;
                Err(ExplanationError)
            }
        })
    });
    Ok((now, findings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn finding<'a>(asked: &'a str) -> Finding<'a> {
        Finding { check: "max-lifetime", outcome: "refused", asked, allowed: "at most 1 s" }
    }

    fn encode(now: u32, findings: &[Finding<'_>], writer: &mut Writer<'_>) -> Result<(), CodecError> {
        begin(now, findings.len(), writer)?;
        findings.iter().try_for_each(|finding| finding.encode(writer))
    }

    #[test]
    fn a_verdict_is_read_back_and_damage_is_seen() {
        let findings = [finding("2 s"), finding("")];
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer);
        encode(7, &findings, &mut writer).unwrap();
        let bytes = writer.written().to_vec();
        let read = |bytes: &[u8]| -> Result<Vec<(std::string::String, u32)>, ExplanationError> {
            let (now, findings) = decode(bytes)?;
            findings.map(|finding| finding.map(|finding| (finding.asked.into(), now))).collect()
        };
        assert_eq!(read(&bytes), Ok(std::vec![("2 s".into(), 7), (std::string::String::new(), 7)]));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Err(ExplanationError), "{cut}");
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat()), Err(ExplanationError));
        let mut small = [0; 20];
        assert!(encode(7, &findings, &mut Writer::new(&mut small)).is_err());
        let long = "x".repeat(1024);
        assert!(encode(7, &[finding(&long)], &mut Writer::new(&mut [0; 4096])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, findings)) = decode(&bytes) {
                prop_assert!(findings.count() <= bytes.len() + 1);
            }
        }
    }
}
