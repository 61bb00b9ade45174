//! Asking for a secret on the terminal, without echo; however the prompt ends, the terminal's settings are
//! restored.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    sync::{Mutex, PoisonError},
    thread,
};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use signal_hook::{
    consts::{SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use zeroize::Zeroizing;

use super::service;

/// Ctrl-C, as a terminal sends it that makes no signal of it.
const INTERRUPT: u8 = 3;

/// The terminal with echo turned off, and its previous settings.
static SILENT: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// The terminal of this process while its echo is off.
struct Silent;

impl Silent {
    fn new(terminal: &File) -> io::Result<Self> {
        restore_before_the_end()?;
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        // Ctrl-C ends the line, so that it ends the process after the terminal has been restored.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        let mut place = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        *place = Some((terminal, before));
        Ok(Self)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal, if its echo is off; returns whether it was.
fn restore() -> bool {
    let silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((mut terminal, before)) = silent else { return false };
    let _ = tcsetattr(&terminal, OptionalActions::Flush, &before);
    let _ = terminal.write_all(b"\n");
    true
}

/// Makes the signals that end the process restore the terminal first. After the prompt they have their
/// previous effect, although the handler stays: a signal ends the process, or whatever waits for it.
fn restore_before_the_end() -> io::Result<()> {
    static WATCHED: Mutex<bool> = Mutex::new(false);
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*watched {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT])?;
        thread::Builder::new().name("prompt".into()).spawn(move || {
            for signal in signals.forever() {
                if restore() || !service::takes_signals() {
                    // It does not return, unless the process could not be ended.
                    let _ = emulate_default_handler(signal);
                }
            }
        })?;
        *watched = true;
    }
    Ok(())
}

/// Asks on the terminal; `None` if there is none. Ctrl-C ends the process as usual.
pub(super) fn secret(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new([0; 4096]); // as long as a terminal's line can be
    let silent = Silent::new(&terminal)?;
    let length = terminal.read(line.as_mut())?;
    drop(silent);
    let line = line.get(..length).unwrap_or_default();
    if line.ends_with(&[INTERRUPT]) {
        emulate_default_handler(SIGINT)?;
        return Err(io::ErrorKind::Interrupted.into());
    }
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = str::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}
