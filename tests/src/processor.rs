//! The processor that a benchmark ran on.

use std::fs;

/// The processor's name, for later readers of the table.
#[must_use]
pub fn name() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned())
}
