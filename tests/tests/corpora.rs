//! Every input of the fuzz targets' corpora passes through its target without a finding: what fuzzing once
//! reached is covered by every test run, without a fuzzer.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Runs a target on every file of its corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let inputs = fs::read_dir(corpora().join(name)).unwrap();
    let inputs: Vec<_> = inputs.map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= 2, "{name}");
    for input in inputs {
        println!("{}", input.display());
        target(&fs::read(&input).unwrap());
    }
}

/// Runs a target on damaged inputs of its corpus: the same ones on every run, or others for as many seconds
/// as `SSHSM_DAMAGED_SECONDS` says.
fn damage(name: &str, target: fn(&[u8])) {
    let inputs = fs::read_dir(corpora().join(name)).unwrap();
    let mut inputs: Vec<_> = inputs.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    let inputs: Vec<_> = inputs.iter().map(|path| fs::read(path).unwrap()).collect();
    let seconds = std::env::var("SSHSM_DAMAGED_SECONDS").ok().map(|text| text.parse().unwrap());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // xorshift64
    let mut state = end.map_or(0x5eed, |_| u64::from(std::process::id()) << 20 | 1);
    let mut below = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap() % end.max(1)
    };
    let mut done = 0;
    while end.map_or(done < 600, |end| Instant::now() < end) {
        let mut input = inputs[below(inputs.len())].clone();
        for _ in 0..=below(3) {
            let place = below(input.len());
            match below(6) {
                0 => input.truncate(place),
                1 => input.insert(place.min(input.len()), below(256).to_be_bytes()[7]),
                2 if !input.is_empty() => input[place] = [0, 0xff, 0x7f, 0x80, b'\n', b' '][below(6)],
                3 if !input.is_empty() => input[place] ^= 1 << below(8),
                4 => {
                    let other = &inputs[below(inputs.len())];
                    let rest = other[below(other.len())..].to_vec();
                    input.truncate(place);
                    input.extend(rest);
                }
                _ => {
                    let length = below(8).min(input.len() - place.min(input.len()));
                    input.drain(place.min(input.len())..place.min(input.len()) + length);
                }
            }
        }
        if let Err(finding) = std::panic::catch_unwind(|| target(&input)) {
            eprintln!("{name}: {input:02x?}");
            std::panic::resume_unwind(finding);
        }
        done += 1;
    }
    println!("{done} inputs");
}

fn corpora() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"))
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(mod $name {
            #[test]
            fn its_corpus_has_no_finding() {
                super::replay(stringify!($name), super::targets::$name::run);
            }
        })*

        #[test]
        fn every_corpus_and_every_target_is_replayed() {
            let replayed = BTreeSet::from([$(stringify!($name).to_owned()),*]);
            let names = |folder: &Path, end: &str| -> BTreeSet<String> {
                let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
                names.map(|name| name.to_str().unwrap().trim_end_matches(end).to_owned()).collect()
            };
            assert_eq!(names(corpora(), ""), replayed);
            assert_eq!(names(&corpora().with_file_name("fuzz_targets"), ".rs"), replayed);
        }
    };
}

targets!(
    agent_message,
    certificate,
    configuration,
    frame,
    journal,
    key_file,
    ledger,
    link,
    pkcs11_uri,
    request,
    revocation_list,
    session,
    share,
    template,
    template_file,
    wrapped_object
);

/// The readers of the host's files and messages, which cost little.
#[test]
fn damaged_inputs_have_no_finding() {
    damage("agent_message", targets::agent_message::run);
    damage("certificate", targets::certificate::run);
    damage("journal", targets::journal::run);
    damage("key_file", targets::key_file::run);
    damage("ledger", targets::ledger::run);
    damage("pkcs11_uri", targets::pkcs11_uri::run);
    damage("revocation_list", targets::revocation_list::run);
    damage("share", targets::share::run);
}
