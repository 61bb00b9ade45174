//! A transport that gives up waiting for an answer when the program is told to end, so that what it has begun can be put
//! right.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Transport, TransportError};

/// How long an answer is waited for once the program is to end.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Whether the program was told to end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells it to end.
    pub fn tell(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it was told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Any transport; where there is a road beside it, an exchange on it can be given up.
pub struct Interruptible {
    transport: Box<dyn Transport>,
    stop: Stop,
    /// The exchange that was given up first; those after it put things right.
    given_up: bool,
}

impl Interruptible {
    /// Gives up when `stop` is told.
    #[must_use]
    pub fn new(transport: Box<dyn Transport>, stop: Stop) -> Self {
        Self { transport, stop, given_up: false }
    }
}

impl Transport for Interruptible {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, TransportError> {
        let Some(mut road) = self.transport.beside() else { return self.transport.transact(frame) };
        let frame = frame.to_vec();
        let (answer, answers) = mpsc::channel();
        // Left alone when it is given up: nothing interrupts it, and nothing waits for it.
        thread::spawn(move || answer.send(road.transact(&frame)));
        let mut until = None;
        loop {
            match answers.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(TransportError::Stopped { address: self.describe() });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.stop.is_told() {
                let patience = if self.given_up { PATIENCE } else { Duration::ZERO };
                let until = *until.get_or_insert_with(|| Instant::now() + patience);
                if Instant::now() >= until {
                    self.given_up = true;
                    return Err(TransportError::Stopped { address: self.describe() });
                }
            }
        }
    }

    fn describe(&self) -> String {
        self.transport.describe()
    }

    fn check(&mut self) -> Result<Option<u32>, TransportError> {
        self.transport.check()
    }

    fn beside(&self) -> Option<Box<dyn Transport>> {
        self.transport.beside()
    }
}
