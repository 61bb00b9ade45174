//! A board's report of its running image, compared with the file by the real `sshsm`, as with a release's
//! checksums.

use crate::{binaries, process::run};
use std::{fs, path::Path, process::Command};
use tempfile::tempdir;

/// Asserts that the fresh board at this port reports the image in this file as the running one, and no other.
///
/// # Panics
/// When it does not.
pub fn compare(port: &Path, image: &Path) {
    let directory = tempdir().expect("a directory");
    let (sums, others) = (directory.path().join("SHA256SUMS"), directory.path().join("others"));
    let right = run(Command::new("sha256sum").arg(image)).success().stdout;
    fs::write(&sums, &right).expect("a file");
    let (first, rest) = right.split_at(1);
    fs::write(&others, format!("{}{rest}", if first == "0" { "1" } else { "0" })).expect("a file");
    let info = |sums: &Path| {
        let mut command = binaries::sshsm();
        command.env("SSHSM_DEVICE", format!("serial:{}", port.display())).env("SSHSM_PASSWORD", "password");
        run(command.args(["device", "info", "--sums"]).arg(sums))
    };
    let same = info(&sums).success().stdout;
    let name = image.display().to_string();
    assert!(same.contains(&format!("image:       {name} (")), "{same}");
    let other = info(&others);
    assert_eq!(other.status.code(), Some(1), "{other}");
}
