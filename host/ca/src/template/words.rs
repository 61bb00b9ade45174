//! Describing a template in words.

use std::fmt::Write as _;

use sshsm_protocol::ssh::template::Template;

use super::{base::BasePart, rules};

/// What a template allows, in words, a line for each of its parts.
#[must_use]
pub fn describe(template: &Template<'_>) -> String {
    let base = BasePart::ALL.map(|part| (part.title(), part.words(template)));
    let mut text = String::new();
    for (part, words) in base.into_iter().chain(rules::describe(&template.rules)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<22}{words}", format!("{part}:"));
    }
    text
}
