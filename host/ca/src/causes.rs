//! An error with its causes, in words.

use std::error::Error;

use crate::redact::Redacted;

/// An error and its causes on one line.
#[must_use]
pub fn line(error: &(dyn Error + 'static)) -> String {
    Redacted(&[vec![error.to_string()], causes(error)].concat().join(": ")).to_string()
}

/// The causes of an error, without those that the message before already ends with.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()).map(ToString::to_string) {
        if !told.ends_with(&cause) {
            causes.push(cause.clone());
            told = cause;
        }
    }
    causes
}
