//! Asking for a secret on the terminal: what is typed is not shown, and whatever ends the question, the terminal is
//! left as it was found.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
};

use rustix::{
    process::{Signal, getpid, kill_process},
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use zeroize::Zeroizing;

/// Ctrl-C, as a terminal sends it that makes no signal of it.
const INTERRUPT: u8 = 3;

/// The terminal of this process while it shows nothing of what is typed.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        // A signal would end the process before the terminal is restored, so Ctrl-C ends the line instead.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        let _ = self.terminal.write_all(b"\n");
    }
}

/// Asks on the terminal; `None` where there is none. Ctrl-C ends the process as it does everywhere.
pub(super) fn secret(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new([0; 4096]); // as long as a terminal's line can be
    let mut silent = Silent::new(terminal)?;
    let length = silent.terminal.read(line.as_mut())?;
    drop(silent);
    let line = line.get(..length).unwrap_or_default();
    if line.ends_with(&[INTERRUPT]) {
        kill_process(getpid(), Signal::INT)?;
        return Err(io::ErrorKind::Interrupted.into());
    }
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = str::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}
