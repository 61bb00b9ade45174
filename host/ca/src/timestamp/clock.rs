//! Whether the system's clock is synchronised, as far as the system can tell.
//!
//! systemd learns this from every daemon that controls the kernel's clock (timesyncd, chrony, ntpd): its
//! `timedatectl` asks the kernel. On a system without it there is no way to tell, and the operator is
//! informed. With it, a missing answer counts as no.

use std::{
    io::{self, Read},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::child;

/// What is known about the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronisation {
    /// It follows another clock.
    Synchronised,
    /// It is not synchronised.
    Unsynchronised,
    /// The system has no way to tell.
    Unknown,
    /// The system has one, and it failed or did not answer in time.
    Unanswered,
}

impl Synchronisation {
    /// Whether the system can tell, or could.
    const fn is_answer(self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// How long the system may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How old an answer may be.
const STALE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// Asks the system, and waits for at most three seconds.
#[must_use]
pub fn ask_system() -> Synchronisation {
    let mut command = child::command("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    match answer_of(&mut command, PATIENCE) {
        Ok(Some(answer)) => match answer.trim_ascii() {
            b"yes" => Synchronisation::Synchronised,
            b"no" => Synchronisation::Unsynchronised,
            _ => Synchronisation::Unknown,
        },
        Ok(None) => Synchronisation::Unanswered,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Synchronisation::Unknown,
        Err(_) => Synchronisation::Unanswered,
    }
}

/// The output of a program, at most 64 bytes of it; `None` when it fails or takes too long.
fn answer_of(command: &mut Command, patience: Duration) -> io::Result<Option<Vec<u8>>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let begin = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if begin.elapsed() < patience => thread::sleep(LOOK),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
        }
    };
    if !status.success() {
        return Ok(None);
    }
    // Not to the end: a process that it left behind may keep the pipe open.
    let mut answer = vec![0; 64];
    let length = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read(&mut answer))?;
    answer.truncate(length);
    Ok(Some(answer))
}

/// Something that can be asked about the clock.
pub type AskClock = Box<dyn Fn() -> Synchronisation + Send>;

/// Asks periodically in a thread of its own, so that nothing else waits for the answer.
pub struct ClockWatch {
    seen: Arc<Mutex<Seen>>,
    /// Its end ends the thread.
    _stop: mpsc::Sender<()>,
}

#[derive(Clone, Copy)]
struct Seen {
    when: Instant,
    answer: Synchronisation,
    /// Whether there ever was an answer: from then on none is a no.
    ever: bool,
}

impl ClockWatch {
    /// Watches the clock through `ask`, such as [`ask_system`]. Waits for the first answer.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn start(ask: AskClock) -> io::Result<Self> {
        Self::every(ask, INTERVAL)
    }

    fn every(ask: AskClock, interval: Duration) -> io::Result<Self> {
        let answer = ask();
        let first = Seen { when: Instant::now(), answer, ever: answer.is_answer() };
        let seen = Arc::new(Mutex::new(first));
        let (stop, stopped) = mpsc::channel::<()>();
        let told = seen.clone();
        thread::Builder::new().name("clock".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let answer = ask();
                let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
                let ever = seen.ever || answer.is_answer();
                *seen = Seen { when: Instant::now(), answer, ever };
            }
        })?;
        Ok(Self { seen, _stop: stop })
    }

    /// What is known about the clock. An answer that is too old does not count.
    #[must_use]
    pub fn look(&self) -> Synchronisation {
        self.look_at(Instant::now())
    }

    fn look_at(&self, now: Instant) -> Synchronisation {
        let Seen { when, answer, ever } = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = now.saturating_duration_since(when) > STALE;
        if stale || (ever && !answer.is_answer()) { Synchronisation::Unanswered } else { answer }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn wait_for(watch: &ClockWatch, wanted: Synchronisation) {
        let begin = Instant::now();
        while watch.look() != wanted {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}, not {wanted:?}", watch.look());
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_system_is_not_asked_for_every_request() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let ask = Box::new(move || {
            count.fetch_add(1, Relaxed);
            Synchronisation::Unsynchronised
        });
        let watch = ClockWatch::start(ask).unwrap();
        for _ in 0..5 {
            assert_eq!(watch.look(), Synchronisation::Unsynchronised);
        }
        assert_eq!(asked.load(Relaxed), 1);
    }

    #[test]
    fn a_clock_that_can_no_longer_be_asked_is_not_trusted() {
        use Synchronisation::{Synchronised, Unanswered, Unknown, Unsynchronised};
        for (answers, wanted) in [
            (&[Synchronised, Unknown][..], Unanswered),
            (&[Unsynchronised, Unknown], Unanswered),
            (&[Synchronised, Unanswered], Unanswered),
            (&[Unknown, Unanswered, Unknown], Unanswered),
            (&[Unanswered, Synchronised], Synchronised),
            (&[Unknown, Unknown], Unknown),
        ] {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let ask = move || answers[count.fetch_add(1, Relaxed).min(answers.len() - 1)];
            let watch = ClockWatch::every(Box::new(ask), Duration::from_millis(1)).unwrap();
            while asked.load(Relaxed) < answers.len() + 1 {
                thread::sleep(Duration::from_millis(1));
            }
            wait_for(&watch, wanted);
        }
    }

    #[test]
    fn an_answer_that_is_too_old_is_not_trusted() {
        let watch =
            ClockWatch::every(Box::new(|| Synchronisation::Synchronised), Duration::from_secs(60)).unwrap();
        assert_eq!(watch.look(), Synchronisation::Synchronised);
        let later = Instant::now() + STALE + Duration::from_secs(1);
        assert_eq!(watch.look_at(later), Synchronisation::Unanswered);
    }

    #[test]
    fn a_program_that_hangs_or_fails_does_not_answer() {
        let shell = |script: &str| {
            answer_of(Command::new("sh").args(["-c", script]), Duration::from_millis(300)).unwrap()
        };
        assert_eq!(shell("echo yes"), Some(b"yes\n".to_vec()));
        assert_eq!(shell("echo yes; exit 1"), None);
        assert_eq!(shell("echo yes; exec sleep 60"), None);
        assert!(answer_of(&mut Command::new("/no/such/program"), PATIENCE).is_err());
    }
}
