//! Every input of the fuzz targets' corpora goes through its target without a finding: what fuzzing once reached is
//! reached by every run of the tests, without a fuzzer.
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

use std::{collections::BTreeSet, fs, path::Path};

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

targets!(frame, link, request, session, template, template_file, wrapped_object);
