//! The audit log.

use sshsm_protocol::{
    Command,
    audit::{LogEntry, LogHeader},
    codec::{CodecError, Reader},
    message,
};

use crate::{
    error::{Result, nonsense},
    session::Session,
};

impl Session<'_> {
    /// The counts of events that the audit log could not record, and the entries that were not consumed,
    /// oldest first.
    ///
    /// # Errors
    /// Like [`Session::command`].
    pub fn log_entries(&mut self) -> Result<(LogHeader, Vec<LogEntry>)> {
        let command = Command::GetLogEntries;
        let answer = self.send(command, &message::Nothing {})?;
        let mut reader = Reader::new(&answer);
        let mut log = || {
            let header = LogHeader::decode(&mut reader)?;
            let entries = (0..header.entries)
                .map(|_| LogEntry::decode(&mut reader))
                .collect::<std::result::Result<_, _>>()?;
            Ok::<_, CodecError>((header, entries))
        };
        let log = log().map_err(|error| nonsense(command, error))?;
        reader.finish().map_err(|error| nonsense(command, error))?;
        Ok(log)
    }

    /// Lets the audit log discard the entries up to the one with this number.
    ///
    /// # Errors
    /// [`InvalidData`](sshsm_protocol::DeviceError::InvalidData) when there is no such entry.
    pub fn set_log_index(&mut self, number: u16) -> Result<()> {
        self.ask_without_answer(Command::SetLogIndex, &message::SetLogIndex { number })
    }
}
