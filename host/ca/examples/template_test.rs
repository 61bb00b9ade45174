//! A template's unit test: the verdicts of `users.toml` are those that `users.test.toml` expects. No device is needed.
//! `sshsm template test users.test.toml` does the same.

use std::path::Path;

use sshsm_ca::template::suite::Suite;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let suite = Suite::read(&folder.join("users.test.toml"))?;
    for result in suite.run() {
        if !result.passed {
            return Err(format!("{}: {}", result.name, result.details()).into());
        }
        println!("{}: {}", result.name, result.found());
    }
    Ok(())
}
