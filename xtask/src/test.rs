//! `cargo xtask test`: everything that CI runs, ordered so that mistakes are found as early as possible. It
//! stops at the first step that fails. The tests come last, after a table of the other steps, so that stdout
//! ends with their counts.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    bare_metal, book, ct, dist, firmware, pico,
    program::{Failure, Run, cargo, ci, program, target},
    setup::{self, Ready},
    suite, summary,
    tool::{CARGO_DENY, MDBOOK, Tool},
};

/// The prefix of the outcome of a skipped step.
const SKIPPED: &str = "SKIPPED: ";

/// The steps so far, done or skipped, with their outcomes.
#[derive(Default)]
struct Steps(Vec<(&'static str, String)>);

impl Steps {
    fn run<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        headline(name);
        let start = Instant::now();
        let result = step().map_err(|failure| Failure::Step(name, Box::new(failure)))?;
        self.0.push((name, format!("{:.1} s", start.elapsed().as_secs_f32())));
        Ok(result)
    }

    fn cargo(&mut self, name: &'static str, arguments: &[&str]) -> Result<(), Failure> {
        self.run(name, || cargo().args(arguments).run())
    }

    fn skip(&mut self, name: &'static str, reason: &str) {
        self.0.push((name, format!("{SKIPPED}{reason}")));
    }

    /// The skipped steps, and why.
    fn skipped(&self) -> Vec<(&str, &str)> {
        self.0.iter().filter_map(|(name, outcome)| Some((*name, outcome.strip_prefix(SKIPPED)?))).collect()
    }

    fn table(&self) -> String {
        self.0.iter().map(|(name, outcome)| format!("{name:<12}{outcome}\n")).collect()
    }
}

fn headline(name: &str) {
    println!("\n== {name}");
}

/// Runs every step and then the tests.
pub(crate) fn chore() -> Result<(), Failure> {
    let mut steps = Steps::default();
    let ready = steps.run("setup", setup::run)?;

    for (step, component, arguments) in [
        ("fmt", "rustfmt", ["fmt", "--all", "--check"].as_slice()),
        ("clippy", "clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ] {
        if ready.missing.contains(&component) {
            steps.skip(step, &format!("{component} is missing"));
        } else {
            steps.cargo(step, arguments)?;
        }
    }
    steps.cargo("build", &["build", "--workspace"])?;
    steps.run("families", families)?;
    match ready.bare_metal {
        Some(toolchain) => {
            steps.run("bare-metal", || bare_metal::build(toolchain))?;
            steps.run("boards", || firmware::check(toolchain))?;
            steps.run("firmware", || firmware::all(toolchain))?;
        }
        None => steps.skip("bare-metal", "no toolchain for the boards' target"),
    }
    if ready.missing.contains(&"valgrind") {
        steps.skip("ct", "valgrind is missing");
    } else {
        steps.run("ct", ct::chore)?;
    }
    steps.cargo("doc-tests", &["test", "--doc", "--workspace"])?;
    steps.run("doc", documentation)?;
    steps.run("examples", examples)?;
    steps.run("package", packages)?;
    with_tools(&mut steps, "book", &[&MDBOOK], book::chore)?;
    deny(&mut steps)?;
    with_tools(&mut steps, "dist", &dist::TOOLS, || dist::chore(&["--twice"]))?;
    for what in &ready.missing {
        steps.0.push(("missing", format!("{what}: what needs it is skipped")));
    }

    headline("steps");
    print!("{}", steps.table());
    headline("tests");
    let tests = runner(&ready, &["--workspace"])?;
    summarise(tests, &steps.skipped()).map_err(|failure| Failure::Step("tests", Box::new(failure)))
}

/// Checks that the firmware builds without warnings with no command family, with each alone and with the pair
/// for a small board, and that it does not know commands of a family that it lacks.
fn families() -> Result<(), Failure> {
    const FIRMWARE: [&str; 4] = ["--package", "sshsm-firmware", "--no-default-features", "--features"];
    for families in [
        "",
        "ssh",
        "signatures",
        "decryption",
        "opaque",
        "hmac",
        "symmetric",
        "otp",
        "wrap",
        "rsa-wrap",
        "attestation",
        "audit",
        "curves",
        "ssh,signatures",
    ] {
        let mut check = cargo();
        check.arg("check").args(FIRMWARE).arg(families).arg("--target-dir").arg(target()?.join("families"));
        check.env("RUSTFLAGS", "-D warnings").run()?;
    }
    cargo().arg("test").args(FIRMWARE).args(["ssh", "--test", "families"]).run()
}

/// The crates that others may use, and what they are built on.
const PUBLISHED: [&str; 6] =
    ["sshsm-protocol", "sshsm-boards", "sshsm-firmware", "sshsm-client", "sshsm-simulator", "sshsm-ca"];
/// The examples, which end with an error if what they show does not hold.
const EXAMPLES: [(&str, &str); 3] =
    [("sshsm-ca", "sign"), ("sshsm-ca", "template_test"), ("sshsm-simulator", "simulator_in_a_test")];

/// Builds the crates' documentation, in which every link leads somewhere.
fn documentation() -> Result<(), Failure> {
    let mut doc = cargo();
    doc.args(["doc", "--quiet", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    doc.args(PUBLISHED.iter().flat_map(|name| ["--package", name])).run()
}

fn examples() -> Result<(), Failure> {
    EXAMPLES.into_iter().try_for_each(|(package, example)| {
        cargo().args(["run", "--quiet", "--package", package, "--example", example]).run()
    })
}

/// Packs the crates as for a registry. What is in a package was built and tested above.
fn packages() -> Result<(), Failure> {
    let mut package = cargo();
    package.args(["package", "--quiet", "--no-verify", "--allow-dirty"]);
    package.args(PUBLISHED.iter().flat_map(|name| ["--package", name])).run()
}

/// Runs a step that needs tools. In CI missing ones are installed, which takes a minute each, so these steps come
/// after every other check.
fn with_tools(
    steps: &mut Steps,
    name: &'static str,
    tools: &[&Tool],
    step: impl FnOnce() -> Result<(), Failure>,
) -> Result<bool, Failure> {
    for tool in tools {
        if tool.installed()?.is_some() {
            continue;
        }
        if !ci() {
            let missing = tool.missing();
            steps.skip(name, &format!("{} is missing; install with: {}", missing.what, missing.install));
            return Ok(false);
        }
        steps.run(tool.name(), || tool.install())?;
    }
    steps.run(name, step)?;
    Ok(true)
}

/// Checks the dependency tree.
fn deny(steps: &mut Steps) -> Result<(), Failure> {
    let deny = |arguments: &[&str]| program(CARGO_DENY.needed()?).args(arguments).run();
    if with_tools(steps, "deny", &[&CARGO_DENY], || deny(&["check", "bans", "licenses", "sources"]))? {
        if advisories_are_here() {
            return steps.run("advisories", || deny(&["--offline", "check", "advisories"]));
        }
        steps.skip("advisories", "the advisory database is not here; get it with: cargo deny fetch db");
    }
    Ok(())
}

/// Whether cargo-deny has a copy of the advisory database in its usual place.
fn advisories_are_here() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let databases = home.map(|home| home.join("advisory-dbs")).and_then(|folder| folder.read_dir().ok());
    databases.is_some_and(|entries| entries.flatten().any(|entry| entry.path().join("crates").is_dir()))
}

/// Runs tests; stdout ends with their counts, with the steps that were skipped among the skipped.
pub(crate) fn summarise(tests: Command, steps: &[(&str, &str)]) -> Result<(), Failure> {
    summary::run(tests, &target()?.join("skipped-tests"), steps, &mut io::stdout())
}

/// The test runner: nextest if it is installed. The `PATH` contains the binaries just built, and the tests
/// find what the set-up installed.
pub(crate) fn runner(ready: &Ready, chosen: &[&str]) -> Result<Command, Failure> {
    let mut command = cargo();
    if cargo().args(["nextest", "--version"]).succeeds() {
        command.args(["nextest", "run", "--no-fail-fast"]).args(chosen);
    } else {
        command.args(["test", "--no-fail-fast"]).args(chosen);
        if chosen.contains(&"--workspace") {
            // Doc tests were a step of their own.
            command.args(["--lib", "--bins", "--tests"]);
        }
    }
    command.env("PATH", path_with(&target()?.join("debug"))?);
    if let Some(python) = &ready.python {
        command.env("SSHSM_TEST_PYTHON", python);
    }
    command.env("SSHSM_TEST_SUITES", suite::folder()?);
    command.env("SSHSM_TEST_PICO", pico::folder()?);
    Ok(command)
}

/// The `PATH` with a folder in front.
fn path_with(folder: &Path) -> Result<OsString, Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths([folder.to_path_buf()].into_iter().chain(env::split_paths(&path)))
        .map_err(|reason| Failure::System(io::Error::other(reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_is_named_and_is_not_counted_as_done() {
        let mut steps = Steps::default();
        let failure = steps.run("fmt", || Err::<(), _>(Failure::Missing(vec!["rustfmt"]))).unwrap_err();
        assert_eq!(failure.to_string(), "step fmt failed: missing, see the lines above: rustfmt");
        assert_eq!(steps.table(), "");
    }

    #[test]
    fn the_table_names_what_was_skipped_and_why() {
        let mut steps = Steps::default();
        steps.skip("deny", "cargo-deny is missing");
        assert_eq!(steps.table(), "deny        SKIPPED: cargo-deny is missing\n");
        steps.run("fmt", || Ok(())).unwrap();
        assert_eq!(steps.skipped(), [("deny", "cargo-deny is missing")]);
    }
}
