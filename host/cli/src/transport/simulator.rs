//! The device inside this process: no server, no port, state in a directory.

use std::path::{Path, PathBuf};

use sshsm_simulator::Simulator;

use super::{Transport, TransportError, whole_frame};
use crate::output;

/// A simulator whose state is kept in a directory and locked for the life of this value.
pub struct InProcess {
    simulator: Simulator,
    directory: PathBuf,
}

impl InProcess {
    /// Opens the simulator with its state in `directory`, which is made when absent. That a seed has ever made its keys
    /// predictable is told on stderr each time.
    ///
    /// # Errors
    /// When the state is locked by another process, damaged, or cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, TransportError> {
        let simulator = Simulator::open(directory)
            .start()
            .map_err(|source| TransportError::Simulator { directory: directory.to_owned(), source })?;
        if let Some(warning) = simulator.warning() {
            output::talk(format_args!("{}: {warning}", output::shown(directory)));
        }
        Ok(Self { simulator, directory: directory.to_owned() })
    }
}

impl Transport for InProcess {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, TransportError> {
        let answer = self
            .simulator
            .transact(frame)
            .map_err(|source| TransportError::Simulator { directory: self.directory.clone(), source })?;
        whole_frame(answer, &self.describe())
    }

    fn describe(&self) -> String {
        format!("sim:{}", self.directory.display())
    }
}
