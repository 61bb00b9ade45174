//! The threat model and the description of the wire name the tests that back their statements. A name without
//! a test is a promise without proof.

#![allow(clippy::expect_used, reason = "a test reports by stopping")]

use regex::Regex;
use sshsm_tests::requirement::workspace;
use std::{collections::BTreeSet, fs};

/// The pairs of file and test that a text names, as `` `FILE.rs::TEST` ``.
fn named(text: &str) -> BTreeSet<(String, String)> {
    let reference = Regex::new(r"`([A-Za-z0-9_./-]+\.rs)::([A-Za-z0-9_]+)`").expect("a valid expression");
    reference.captures_iter(text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// Whether a source file has a test of that name: `fn`, not long behind `#[test]`.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    lines.iter().enumerate().any(|(at, line)| {
        line.contains(&function)
            && lines.iter().take(at).rev().take(6).any(|before| before.starts_with("#[test]"))
    })
}

/// Checks that a document names at least so many tests, and that they exist.
fn check(document: &str, least: usize) {
    let text = fs::read_to_string(workspace().join(document)).expect("the document can be read");
    let named = named(&text);
    assert!(named.len() >= least, "{document} names only {} tests", named.len());
    let missing: Vec<String> = named
        .iter()
        .filter(|(file, test)| {
            !fs::read_to_string(workspace().join(file)).is_ok_and(|source| has_test(&source, test))
        })
        .map(|(file, test)| format!("{file}: {test}"))
        .collect();
    assert!(missing.is_empty(), "{document} names tests that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    check("docs/security.md", 40);
}

#[test]
fn every_test_that_the_description_of_the_wire_names_exists() {
    check("docs/protocol.md", 40);
}

#[test]
fn a_name_without_a_test_is_found_out() {
    let text = "It holds (`tests/src/a.rs::it_holds`, `tests/src/a.rs::it_is_a_helper`), as `a.rs` says.";
    let source = "#[test]\nfn it_holds() {}\n\n\n\n\n\n\nfn it_is_a_helper() {}\n";
    let named = named(text);
    let found: Vec<bool> = named.iter().map(|(_, test)| has_test(source, test)).collect();
    assert_eq!(found, [true, false]);
}
