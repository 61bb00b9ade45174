//! `sshsm device list|status|log`: boards on serial ports, outside any session.

use std::{thread, time::Duration};

use serde::Serialize;
use sshsm_protocol::{
    device_status::Image,
    link::{Activity, Level, Status},
    ssh::Printable,
};

use super::{Context, error::CliError, notice::listener};
use crate::{
    flash::hexadecimal,
    output::{self, Format, columns},
};
use sshsm_ca::{
    device_address::DeviceAddress,
    pkcs11::{
        self,
        inventory::{self, ListedKey, ListedToken},
        module::Module,
    },
};
use sshsm_client::{
    board::{self, Board},
    serial::{LogLine, Serial},
};

/// How often a log that is followed is asked for more.
const FOLLOW: Duration = Duration::from_millis(300);

/// A board that is plugged in, as JSON shows it; values that only the board knows are null if it does not
/// answer.
#[derive(Serialize)]
struct Listed {
    device: String,
    usb_serial: Option<String>,
    board: Option<String>,
    serial: Option<u32>,
    firmware: Option<String>,
    /// Why the board does not answer.
    error: Option<String>,
}

impl Listed {
    fn ask(Board { path, usb_serial }: Board) -> Self {
        let device = format!("serial:{path}");
        match Serial::open(&path, listener()) {
            Ok(serial) => {
                let hello = serial.hello();
                let (board, firmware) = (Some(hello.board.clone()), Some(version(hello.firmware)));
                Self { device, usb_serial, board, serial: Some(hello.serial), firmware, error: None }
            }
            Err(error) => {
                let error = Some(CliError::from(error).line());
                Self { device, usb_serial, board: None, serial: None, firmware: None, error }
            }
        }
    }

    fn row(&self) -> [String; 5] {
        let shown = |text: &Option<String>| {
            text.as_ref().map_or_else(|| "?".into(), |text| Printable(text.as_bytes()).to_string())
        };
        [
            self.device.clone(),
            shown(&self.board),
            self.serial.map_or_else(|| "?".into(), |serial| format!("{serial:010}")),
            shown(&self.firmware),
            self.error.clone().unwrap_or_else(|| shown(&self.usb_serial)),
        ]
    }
}

/// What can sign, as JSON shows it.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Found {
    Board(Listed),
    Token(ListedToken),
}

/// Lists the boards that are plugged in, and the tokens of the PKCS#11 module if one is named.
pub(super) fn list(context: &Context) -> Result<(), CliError> {
    let boards = board::boards()?.into_iter().map(Listed::ask).map(Found::Board);
    let mut found: Vec<Found> = boards.collect();
    let uri = context.globals.device.iter().find_map(|device| match device {
        DeviceAddress::Pkcs11(uri) => Some(uri.clone()),
        _ => None,
    });
    let uri = uri.or_else(|| Module::is_named().then(pkcs11::Uri::default));
    if found.is_empty() {
        output::talk("no board is plugged in");
    }
    let tokens = uri.as_ref().map(|uri| Module::open(uri).and_then(|module| inventory::list(&module, uri)));
    // The devices found are shown before a broken module is reported.
    let broken = match tokens {
        Some(Ok(tokens)) => {
            if tokens.is_empty() {
                output::talk("no token is plugged in");
            }
            found.extend(tokens.into_iter().map(Found::Token));
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    context.format().print(&found, |found| {
        let (mut boards, mut keys) = (Vec::new(), Vec::new());
        for found in found {
            match found {
                Found::Board(board) => boards.push(board.row()),
                Found::Token(token) => keys.extend(key_rows(token)),
            }
        }
        table(["device", "board", "serial", "firmware", "USB serial"], boards)
            + &table(["token or key", "algorithm", "fingerprint"], keys)
    })?;
    broken.map_or(Ok(()), |error| Err(error.into()))
}

/// Nothing when there are no rows.
fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() { String::new() } else { columns(&[vec![heading.map(str::to_owned)], rows].concat()) }
}

/// A row for a token, and one for each of its keys.
fn key_rows(token: &ListedToken) -> Vec<[String; 3]> {
    let shown = |text: &str| Printable(text.as_bytes()).to_string();
    let told = token.error.clone().unwrap_or_else(|| format!("{} {}", token.manufacturer, token.model));
    let key = |key: &ListedKey| {
        let fingerprint = key.fingerprint.clone().or_else(|| key.error.clone()).unwrap_or_default();
        [key.device.clone(), key.algorithm.clone().unwrap_or_else(|| "?".into()), shown(&fingerprint)]
    };
    let first = [token.device.clone(), "(token)".into(), shown(&told)];
    std::iter::once(first).chain(token.keys.iter().map(key)).collect()
}

/// A firmware's version as people write it.
pub(super) fn version([major, minor, patch]: [u8; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

/// How a board is, as JSON shows it.
#[derive(Serialize)]
struct Health {
    device: String,
    board: String,
    serial: u32,
    firmware: String,
    activity: &'static str,
    uptime_ms: u64,
    reset_reason: String,
    sessions: u8,
    free_records: u16,
    free_pages: u16,
    dropped_frames: u32,
    /// The image's SHA-256, in hexadecimal; null if the device does not know it, or not yet.
    image_sha256: Option<String>,
    /// Bytes.
    image_length: Option<u32>,
}

/// Shows how the board is.
pub(super) fn status(context: &Context) -> Result<(), CliError> {
    let mut serial = context.device()?.open_serial(&listener())?;
    let Status { activity, reset, uptime, sessions, free_records, free_pages, dropped } = serial.status()?;
    let image = serial.image()?;
    let hello = serial.hello();
    let health = Health {
        device: sshsm_client::Exchange::describe(&serial),
        board: hello.board.clone(),
        serial: hello.serial,
        firmware: version(hello.firmware),
        activity: match activity {
            Activity::Idle => "idle",
            Activity::Busy => "busy",
            Activity::TouchWanted => "touch-wanted",
            Activity::Failed => "failed",
            Activity::Starting => "starting",
        },
        uptime_ms: uptime,
        reset_reason: reset.to_string(),
        sessions,
        free_records,
        free_pages,
        dropped_frames: dropped,
        image_sha256: image.map(|Image { sha256, .. }| hexadecimal(&sha256)),
        image_length: image.map(|Image { length, .. }| length),
    };
    context.format().print(&health, |health| {
        format!(
            "device:        {}\nboard:         {}\nserial:        {:010}\nfirmware:      {}\nimage:         {}\nactivity:      {}\n\
             uptime:        {}.{:03} s\nlast reset:    {}\nsessions:      {}\nfree storage:  {} objects, {} pages\n\
             noise:         {} frames dropped\n",
            health.device,
            Printable(health.board.as_bytes()),
            health.serial,
            health.firmware,
            health.image_sha256.as_deref().unwrap_or("not known"),
            health.activity,
            health.uptime_ms / 1000,
            health.uptime_ms % 1000,
            health.reset_reason,
            health.sessions,
            health.free_records,
            health.free_pages,
            health.dropped_frames,
        )
    })?;
    Ok(())
}

/// A line of the log, as JSON shows it.
#[derive(Serialize)]
struct Line {
    number: u32,
    uptime_ms: u128,
    level: &'static str,
    text: String,
}

impl From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        let level = match line.level {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        Self { number: line.number, uptime_ms: line.uptime.as_millis(), level, text: line.text }
    }
}

impl Line {
    fn shown(&self) -> String {
        let Self { uptime_ms, level, text, .. } = self;
        let text = Printable(text.as_bytes());
        format!("{:>6}.{:03} {level:7} {text}\n", uptime_ms / 1000, uptime_ms % 1000)
    }
}

/// Shows the lines that the board still has, and with `follow` future ones, each as a separate JSON document.
pub(super) fn log(context: &Context, follow: bool) -> Result<(), CliError> {
    let mut serial = context.device()?.open_serial(&listener())?;
    let mut next = 0;
    let mut uptime = 0;
    let mut lines = Vec::new();
    loop {
        match serial.log(next)? {
            Some(line) => {
                next = line.number.saturating_add(1);
                let line = Line::from(line);
                match (follow, context.format()) {
                    (false, _) => lines.push(line),
                    (true, Format::Text) => Format::Text.print(&line, Line::shown)?,
                    (true, Format::Json) => {
                        let document = serde_json::to_string(&line).map_err(std::io::Error::from)? + "\n";
                        Format::Text.print(&(), |()| document)?;
                    }
                }
            }
            None if follow => {
                thread::sleep(FOLLOW);
                let before = std::mem::replace(&mut uptime, serial.status()?.uptime);
                if uptime < before {
                    // It started again: a new log.
                    next = 0;
                }
            }
            None => break,
        }
    }
    context.format().print(&lines, |lines| lines.iter().map(Line::shown).collect())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sshsm_simulator::Simulator;

    #[test]
    fn a_board_is_listed_with_what_it_says_or_why_it_says_nothing() {
        let port = Simulator::memory().serial(7).start().unwrap().serve_pty().unwrap();
        let ask = |path: &str| Listed::ask(Board { path: path.into(), usb_serial: Some("E66".into()) });
        let path = port.path().to_str().unwrap();
        let row = ask(path).row();
        let firmware = env!("CARGO_PKG_VERSION");
        assert_eq!(row, [&format!("serial:{path}"), "simulator", "0000000007", firmware, "E66"]);
        let [device, board, serial, firmware, why] = ask("/dev/sshsm-none").row();
        assert_eq!([device, board, serial, firmware], ["serial:/dev/sshsm-none", "?", "?", "?"]);
        assert!(why.contains("no device at serial:/dev/sshsm-none"), "{why}");
    }
}
