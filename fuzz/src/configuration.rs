//! A configuration file: an accepted file sets defaults of existing options; a refusal names the file.

use std::path::Path;

pub fn run(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    if let Err(report) = sshsm::cli::check_configuration(Path::new("/etc/sshsm/config.toml"), text) {
        assert!(report.starts_with("error: ") && report.contains("/etc/sshsm/config.toml"), "{report}");
    }
}
