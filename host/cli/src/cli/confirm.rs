//! Asking whether something may be done: with SSH_ASKPASS, as `ssh-agent -c` does, or on the terminal.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _},
    process::Stdio,
};

use rustix::{process::getpgrp, termios::tcgetpgrp};
use sshsm_protocol::ssh::Printable;

use sshsm_ca::child;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1024;

/// Why the user could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfirmError {
    #[error("there is neither SSH_ASKPASS nor a terminal in the foreground to ask on")]
    NoWay,
    #[error("cannot run {}, which SSH_ASKPASS names", Printable(.program.as_encoded_bytes()))]
    Askpass { program: OsString, source: io::Error },
    #[error("cannot ask on the terminal")]
    Terminal(#[source] io::Error),
}

/// Where to ask.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Askpass(OsString),
    Terminal,
}

/// The way that the environment requests, as ssh chooses it (ssh(1), SSH_ASKPASS_REQUIRE); without a
/// terminal, an SSH_ASKPASS is enough.
fn way(variable: impl Fn(&str) -> Option<OsString>, terminal: bool) -> Option<Way> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let askpass = set("SSH_ASKPASS").map(Way::Askpass);
    let graphical = set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some();
    let terminal = terminal.then_some(Way::Terminal);
    match set("SSH_ASKPASS_REQUIRE").as_deref().and_then(|value| value.to_str()) {
        Some("never") => terminal,
        Some("force") => askpass,
        Some("prefer") => askpass.or(terminal),
        _ if graphical => askpass.or(terminal),
        _ => terminal.or(askpass),
    }
}

/// Whether the user answers yes to `question`.
///
/// # Errors
/// [`ConfirmError`], which counts as no.
pub(super) fn ask(question: &str) -> Result<bool, ConfirmError> {
    match way(|name| std::env::var_os(name), foreground().is_some()) {
        Some(Way::Askpass(program)) => {
            with_askpass(&program, question).map_err(|source| ConfirmError::Askpass { program, source })
        }
        Some(Way::Terminal) => on_terminal(question).map_err(ConfirmError::Terminal),
        None => Err(ConfirmError::NoWay),
    }
}

/// The terminal, if this process may read it: one in the background would be stopped.
fn foreground() -> Option<File> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
    let ours = io::stderr().is_terminal() || io::stdin().is_terminal();
    (ours && tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())).then_some(terminal)
}

/// As ssh-agent does: exit code 0 with an empty answer, or with "yes".
fn with_askpass(program: &OsString, question: &str) -> io::Result<bool> {
    let mut command = child::command(program);
    command.arg(question).env("SSH_ASKPASS_PROMPT", "confirm");
    let mut running = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut answer = Vec::new();
    if let Some(stdout) = running.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut answer)?;
    }
    let ended = running.wait()?;
    let line = answer.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    Ok(ended.success() && (line.is_empty() || line.eq_ignore_ascii_case(b"yes")))
}

/// Nothing but a typed "yes" is one.
fn on_terminal(question: &str) -> io::Result<bool> {
    let Some(mut terminal) = foreground() else { return Ok(false) };
    write!(terminal, "{question} (yes/no) ")?;
    let mut line = String::new();
    BufReader::new(terminal.take(MAX_ANSWER)).read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_where_to_ask() {
        let chosen = |variables: &[(&str, &str)], terminal| {
            way(
                |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()),
                terminal,
            )
        };
        let (askpass, x11) = (("SSH_ASKPASS", "/bin/ask"), ("DISPLAY", ":0"));
        let program = || Some(Way::Askpass("/bin/ask".into()));
        assert_eq!(chosen(&[askpass, x11], true), program());
        assert_eq!(chosen(&[askpass], true), Some(Way::Terminal));
        assert_eq!(chosen(&[askpass], false), program());
        assert_eq!(chosen(&[askpass, ("SSH_ASKPASS_REQUIRE", "prefer")], true), program());
        assert_eq!(chosen(&[askpass, x11, ("SSH_ASKPASS_REQUIRE", "never")], true), Some(Way::Terminal));
        assert_eq!(chosen(&[askpass, ("SSH_ASKPASS_REQUIRE", "never")], false), None);
        assert_eq!(chosen(&[("SSH_ASKPASS_REQUIRE", "force")], true), None);
        assert_eq!(chosen(&[("SSH_ASKPASS", "")], false), None);
    }
}
