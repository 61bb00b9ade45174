//! `cargo xtask fuzz`: each fuzz target for some minutes, under libFuzzer with the address sanitizer. The
//! committed corpora are read but not written: new inputs are kept in target/fuzz-corpus, for the next run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Error},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::program::{Failure, Run as _, cargo, options, root, target};

/// The line in which libFuzzer reports how many inputs it tried.
const EXECUTIONS: &str = "stat::number_of_executed_units:";

/// `[--minutes N] [--target T]`: by default all targets, a minute each.
pub(crate) fn chore(arguments: &[&str]) -> Result<(), Failure> {
    let [minutes, only] = options(arguments, ["--minutes", "--target"])?;
    let minutes: u32 = minutes.map_or(Ok(1), str::parse).map_err(|_| usage("--minutes needs a number"))?;
    let seconds = minutes.checked_mul(60).filter(|&seconds| seconds > 0);
    let seconds = seconds.ok_or_else(|| usage("--minutes must be at least 1"))?;
    let mut targets = targets().map_err(Failure::System)?;
    if let Some(only) = only {
        if !targets.iter().any(|target| target == only) {
            return Err(usage(&format!("{only:?} is not one of {}", targets.join(", "))));
        }
        targets.retain(|target| target == only);
    }
    if !cargo().args(["fuzz", "--version"]).succeeds() {
        println!("missing: cargo-fuzz (runs fuzz targets); install with: cargo install cargo-fuzz --locked");
        return Err(Failure::Missing(vec!["cargo-fuzz"]));
    }
    // Built before the clock starts.
    for name in &targets {
        cargo_fuzz("build", name)?.run()?;
    }
    let mut table = String::new();
    for name in &targets {
        println!("\n== {name}");
        let start = Instant::now();
        let executions = run(name, seconds)?;
        table += &format!("{name:<16}{executions:>12} executions in {} s\n", start.elapsed().as_secs());
    }
    print!("\n{table}");
    Ok(())
}

fn usage(reason: &str) -> Failure {
    Failure::Usage(reason.to_owned())
}

fn targets() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Runs one target; returns how many inputs it tried. A finding is a failure, and libFuzzer names the file with its input.
fn run(name: &str, seconds: u32) -> Result<u64, Failure> {
    let found = target()?.join("fuzz-corpus").join(name);
    fs::create_dir_all(&found).map_err(Failure::System)?;
    let mut command = cargo_fuzz("run", name)?;
    command.arg(found).arg(Path::new("fuzz/corpus").join(name)).arg("--");
    command.arg(format!("-max_total_time={seconds}")).args(["-print_final_stats=1", "-max_len=4096"]);
    follow(&mut command)
}

/// `cargo fuzz SUBCOMMAND NAME`.
fn cargo_fuzz(subcommand: &str, name: &str) -> Result<Command, Failure> {
    let mut command = cargo();
    command.args(["fuzz", subcommand, "--target-dir"]).arg(target()?.join("fuzz")).arg(name);
    // Sanitizers are not stable yet.
    command.env("RUSTC_BOOTSTRAP", "1");
    Ok(command)
}

/// Passes on a fuzzer's output except its progress, and extracts the number of executions.
fn follow(command: &mut Command) -> Result<u64, Failure> {
    let failure = |reason| Failure::Start("cargo fuzz run".to_owned(), reason);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failure)?;
    let mut executions = 0;
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')) {
        let line = line.map_err(Failure::System)?;
        let line = String::from_utf8_lossy(&line);
        if let Some(number) = line.strip_prefix(EXECUTIONS) {
            executions = number.trim().parse().unwrap_or_default();
        }
        if !line.starts_with('#') {
            println!("{line}");
        }
    }
    let status = child.wait().map_err(failure)?;
    if status.success() { Ok(executions) } else { Err(Failure::Exit("cargo fuzz run".to_owned(), status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executions_are_read_from_what_a_fuzzer_says_at_its_end() {
        let says = |end: &str| {
            let script = format!("echo '#8 NEW' >&2; echo '{EXECUTIONS}          812' >&2; {end}");
            follow(Command::new("/bin/sh").args(["-c", &script]))
        };
        assert_eq!(says("true").unwrap(), 812);
        assert!(matches!(says("exit 77"), Err(Failure::Exit(..))), "a finding");
    }

    #[test]
    fn every_target_has_a_corpus_and_is_built() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for name in targets().unwrap() {
            assert!(root().join("fuzz/corpus").join(&name).is_dir(), "{name}");
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        }
    }
}
