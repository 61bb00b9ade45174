//! The audit log: the contents of an entry, and the chain of digests that links it to all earlier entries.
//!
//! Given one trusted entry, a reader can check that the entries after it are complete and unchanged
//! ([`LogEntry::follows`]). Layout and vectors: YubiHSM 2's (docs/protocol.md, "Audit log").

use sha2::{Digest as _, Sha256};

use crate::codec::{CodecError, Reader, Writer};
use crate::command::Command;

/// The first half of a SHA-256 digest over an entry and the digest before it.
pub type Digest = [u8; 16];

/// An entry of the audit log, by its number and by the digest that no other entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogMark {
    /// [`LogEntry::number`].
    pub number: u16,
    /// [`LogEntry::digest`].
    pub digest: Digest,
}

/// One entry of the audit log; 32 bytes on the wire, fields in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Counts entries from 1 after a reset, modulo 2^16.
    pub number: u16,
    /// The command's code; 0 in a boot entry, 0xff in a reset entry.
    pub command: u8,
    /// Bytes of the command's payload.
    pub length: u16,
    /// The session's authentication key; [`LogEntry::NO_KEY`] outside sessions.
    pub session_key: u16,
    /// The key or object that the command is about, or [`LogEntry::NO_KEY`].
    pub target_key: u16,
    /// A second one, or [`LogEntry::NO_KEY`].
    pub second_key: u16,
    /// The response's code, or the error's; [`LogEntry::UNEXECUTED`] until there is one.
    pub result: u8,
    /// Time since boot, modulo 2^32; in units of 10 ms here, of unknown length on YubiHSM 2.
    pub systick: u32,
    /// The link to the entry before.
    pub digest: Digest,
}

impl LogEntry {
    /// Bytes on the wire.
    pub const LENGTH: usize = 32;
    /// In place of an id: no key.
    pub const NO_KEY: u16 = 0xffff;
    /// The result of a command that was logged but has not completed.
    pub const UNEXECUTED: u8 = 0xff;

    /// The first entry after a reset.
    pub const RESET: Self = Self {
        number: 1,
        command: 0xff,
        length: 0xffff,
        session_key: Self::NO_KEY,
        target_key: Self::NO_KEY,
        second_key: Self::NO_KEY,
        result: 0xff,
        systick: u32::MAX,
        digest: [0; 16],
    };

    /// The entry of a boot, to be numbered and linked.
    pub const BOOT: Self = Self {
        number: 0,
        command: 0,
        length: 0,
        session_key: Self::NO_KEY,
        target_key: 0,
        second_key: 0,
        result: 0,
        systick: 0,
        digest: [0; 16],
    };

    /// The entry of a command that is about to be carried out, to be numbered and linked.
    #[must_use]
    pub fn of(command: Command, session_key: Option<u16>, payload: &[u8]) -> Self {
        let keys = command.log_keys();
        Self {
            number: 0,
            command: command.code(),
            length: u16::try_from(payload.len()).unwrap_or(u16::MAX),
            session_key: session_key.unwrap_or(Self::NO_KEY),
            target_key: keys.target.and_then(|at| id_at(payload, at)).unwrap_or(Self::NO_KEY),
            second_key: keys.second.and_then(|at| id_at(payload, at)).unwrap_or(Self::NO_KEY),
            result: Self::UNEXECUTED,
            systick: 0,
            digest: [0; 16],
        }
    }

    /// Adds the ids that only the reply of a command that succeeded knows.
    #[must_use]
    pub fn replied(self, command: Command, reply: &[u8]) -> Self {
        let keys = command.log_keys();
        let assigned = keys.assigned.filter(|_| self.target_key == 0).and_then(|at| id_at(reply, at));
        let second = keys.replied.and_then(|at| id_at(reply, at));
        Self {
            target_key: assigned.unwrap_or(self.target_key),
            second_key: second.unwrap_or(self.second_key),
            ..self
        }
    }

    /// Links the entry to the digest of the previous one, or to the 32 random bytes that precede the first
    /// entry.
    #[must_use]
    pub fn linked(self, previous: &[u8]) -> Self {
        Self { digest: self.digest_after(previous), ..self }
    }

    /// Its number and digest.
    #[must_use]
    pub const fn mark(&self) -> LogMark {
        LogMark { number: self.number, digest: self.digest }
    }

    /// Whether this entry directly follows the one with digest `previous` in a device's log.
    #[must_use]
    pub fn follows(&self, previous: &Digest) -> bool {
        self.digest == self.digest_after(previous)
    }

    fn digest_after(&self, previous: &[u8]) -> Digest {
        let mut bytes = [0; Self::LENGTH];
        let mut digest = Digest::default();
        // The buffer is exactly an entry long.
        let _ = self.encode(&mut Writer::new(&mut bytes));
        let (fields, _) = bytes.split_at(Self::LENGTH - digest.len());
        let hash = Sha256::new().chain_update(fields).chain_update(previous).finalize();
        for (to, from) in digest.iter_mut().zip(hash) {
            *to = from;
        }
        digest
    }

    /// Reads 32 bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            number: reader.u16()?,
            command: reader.u8()?,
            length: reader.u16()?,
            session_key: reader.u16()?,
            target_key: reader.u16()?,
            second_key: reader.u16()?,
            result: reader.u8()?,
            systick: reader.u32()?,
            digest: reader.array()?,
        })
    }

    /// Writes 32 bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self.number)?;
        writer.u8(self.command)?;
        writer.u16(self.length)?;
        writer.u16(self.session_key)?;
        writer.u16(self.target_key)?;
        writer.u16(self.second_key)?;
        writer.u8(self.result)?;
        writer.u32(self.systick)?;
        writer.bytes(&self.digest)
    }
}

fn id_at(bytes: &[u8], at: usize) -> Option<u16> {
    Reader::new(bytes.get(at..)?).u16().ok()
}

/// The start of the reply to GET LOG ENTRIES: `unlogged boots u16 ‖ unlogged authentications u16 ‖ entries
/// u8`, followed by that many entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// Boots not logged because the log was full and must not lose entries.
    pub unlogged_boots: u16,
    /// Authentications not logged for the same reason.
    pub unlogged_authentications: u16,
    /// Entries that follow.
    pub entries: u8,
}

impl LogHeader {
    /// Reads five bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            unlogged_boots: reader.u16()?,
            unlogged_authentications: reader.u16()?,
            entries: reader.u8()?,
        })
    }

    /// Writes five bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        writer.u16(self.unlogged_boots)?;
        writer.u16(self.unlogged_authentications)?;
        writer.u8(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    fn command(number: u16, code: u8, length: u16, keys: [u16; 3], result: u8, systick: u32) -> LogEntry {
        let [session_key, target_key, second_key] = keys;
        LogEntry {
            number,
            command: code,
            length,
            session_key,
            target_key,
            second_key,
            result,
            systick,
            digest: [0; 16],
        }
    }

    /// docs/protocol.md, "Audit log": two excerpts of a log written by a YubiHSM 2, each with the preceding
    /// digest.
    #[test]
    fn entries_are_linked_as_the_hardware_links_them() {
        let none = LogEntry::NO_KEY;
        let boot = |number| LogEntry { number, ..LogEntry::BOOT };
        let chains: [(Digest, &[(LogEntry, Digest)]); 3] = [
            (
                hex!("33012657537e4842f57fa6ed3b09b25b"),
                &[(boot(2), hex!("fc153091560e18bca82621522c85bdba"))],
            ),
            (
                hex!("f696906e5b3929c63ca6f10a83d2a0cc"),
                &[(
                    command(3, 0x03, 10, [none, 1, none], 0x83, 35),
                    hex!("2264d451b5eff5dfa94c544f33b787a9"),
                )],
            ),
            (
                hex!("415f51f1f035a1b713e730e4464e4033"),
                &[
                    (
                        command(47, 0x4c, 77, [1, 0xaff7, none], 0xcc, 351_714),
                        hex!("5496a60d478c2b9c801d8d32ca66b554"),
                    ),
                    (boot(48), hex!("14ac7747ba9bbb243cfc70befeb5349b")),
                    (
                        command(49, 0x03, 10, [none, 1, none], 0x83, 139),
                        hex!("b20a8f25c025e693a8e869b433294a20"),
                    ),
                    (
                        command(50, 0x04, 17, [none, 1, none], 0x84, 139),
                        hex!("ebfae425c319ac7a0afbb8b92597de7c"),
                    ),
                    (
                        command(51, 0x67, 2, [1, none, none], 0xe7, 697),
                        hex!("2e395d1b706668737e1d2215813db47e"),
                    ),
                ],
            ),
        ];
        for (mut previous, entries) in chains {
            for (entry, digest) in entries {
                let linked = entry.linked(&previous);
                assert_eq!(&linked.digest, digest, "entry {}", entry.number);
                assert!(linked.follows(&previous));
                assert!(!LogEntry { systick: linked.systick + 1, ..linked }.follows(&previous));
                previous = linked.digest;
            }
        }
    }

    #[test]
    fn the_entry_of_a_reset_is_its_number_and_ones() {
        let mut bytes = [0; LogEntry::LENGTH];
        LogEntry::RESET.encode(&mut Writer::new(&mut bytes)).unwrap();
        assert_eq!(bytes[..16], hex!("0001 ffffffffffffffffffffffffffff"));
        assert_eq!(LogEntry::decode(&mut Reader::new(&bytes)), Ok(LogEntry::RESET));
    }

    #[test]
    fn an_entry_names_the_keys_of_its_command() {
        let keys = |command, payload: &[u8], reply: &[u8]| {
            let entry = LogEntry::of(command, Some(1), payload).replied(command, reply);
            (entry.target_key, entry.second_key)
        };
        let none = LogEntry::NO_KEY;
        assert_eq!(keys(Command::SignEddsa, &[0, 5, 1, 2], &[0; 64]), (5, none));
        assert_eq!(keys(Command::PutWrapKey, &[0; 77], &[0xaf, 0xf7]), (0xaff7, none), "the assigned id");
        assert_eq!(keys(Command::PutWrapKey, &[0, 9, 0], &[0, 9]), (9, none));
        assert_eq!(keys(Command::ImportWrapped, &[0, 7, 0, 0], &[3, 0, 8]), (7, 8));
        assert_eq!(keys(Command::ExportWrapped, &[0, 7, 3, 0, 8], &[0; 50]), (7, 8));
        assert_eq!(keys(Command::SignAttestationCertificate, &[0, 0, 0, 8], &[0x30, 0x82, 1]), (0, 8));
        assert_eq!(keys(Command::SetLogIndex, &[0, 5], &[]), (none, none));
        assert_eq!(keys(Command::SignEddsa, &[0], &[]), (none, none), "too short to name one");
    }
}
