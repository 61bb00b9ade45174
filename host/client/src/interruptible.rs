//! An exchange that stops waiting for an answer when the program is told to stop, so that unfinished work can
//! be cleaned up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::exchange::{Exchange, ExchangeError};

/// How long an answer is waited for once the program is to end.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Whether the program was told to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells it to stop.
    pub fn tell(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Any exchange; if there is a second connection to the device, an exchange can be abandoned.
pub struct Interruptible {
    exchange: Box<dyn Exchange>,
    stop: Stop,
    /// Whether the first exchange was abandoned; later ones clean up.
    given_up: bool,
}

impl Interruptible {
    /// Abandons an exchange when `stop` is signalled.
    #[must_use]
    pub fn new(exchange: Box<dyn Exchange>, stop: Stop) -> Self {
        Self { exchange, stop, given_up: false }
    }
}

impl Exchange for Interruptible {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let Some(mut road) = self.exchange.beside() else { return self.exchange.transact(frame) };
        let frame = frame.to_vec();
        let (answer, answers) = mpsc::channel();
        // Detached when it is abandoned: nothing interrupts it, and nothing waits for it.
        thread::spawn(move || answer.send(road.transact(&frame)));
        let mut until = None;
        loop {
            match answers.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ExchangeError::Stopped { address: self.describe() });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.stop.is_told() {
                let patience = if self.given_up { PATIENCE } else { Duration::ZERO };
                let until = *until.get_or_insert_with(|| Instant::now() + patience);
                if Instant::now() >= until {
                    self.given_up = true;
                    return Err(ExchangeError::Stopped { address: self.describe() });
                }
            }
        }
    }

    fn describe(&self) -> String {
        self.exchange.describe()
    }

    fn check(&mut self) -> Result<Option<u32>, ExchangeError> {
        self.exchange.check()
    }

    fn beside(&self) -> Option<Box<dyn Exchange>> {
        self.exchange.beside()
    }
}
