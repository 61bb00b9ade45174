//! A debugger on an emulated board: GDB's remote protocol, as far as a test needs it, over the socket that
//! [`Board::start_debugged`](crate::qemu::Board::start_debugged) has QEMU make.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Bytes of memory that are asked for at once.
const CHUNK: u32 = 2000;

/// A debugger; the processor is halted until it is told to continue.
pub struct Debugger(UnixStream);

impl Debugger {
    /// Stops the processor of a device in this directory.
    ///
    /// # Panics
    /// When nothing listens there, or does not speak the protocol; so do all methods.
    #[must_use]
    pub fn attach(device: &Path) -> Self {
        let stream = UnixStream::connect(device.join("debugger")).expect("the emulator listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket has a timeout");
        Self(stream)
    }

    /// Sets a core register, by its number.
    pub fn set_register(&mut self, number: usize, value: u32) {
        let mut registers = self.ask("g");
        let value: String = value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        registers.replace_range(8 * number..8 * (number + 1), &value);
        assert_eq!(self.ask(&format!("G{registers}")), "OK");
    }

    /// Reads memory.
    pub fn read(&mut self, address: u32, length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for at in (address..address + length).step_by(CHUNK as usize) {
            let hex = self.ask(&format!("m{at:x},{:x}", CHUNK.min(address + length - at)));
            let digits = hex.as_bytes().chunks(2).map(|two| str::from_utf8(two).expect("digits"));
            bytes.extend(digits.map(|two| u8::from_str_radix(two, 16).expect("digits")));
        }
        bytes
    }

    /// Reads a word of memory.
    pub fn word(&mut self, address: u32) -> u32 {
        u32::from_le_bytes(self.read(address, 4).try_into().expect("four bytes"))
    }

    /// Lets the processor run until it reaches an address.
    pub fn run_to(&mut self, address: u32) {
        assert_eq!(self.ask(&format!("Z1,{address:x},2")), "OK");
        let stopped = self.ask("c");
        assert!(stopped.starts_with("T05") || stopped.starts_with("S05"), "{stopped}");
        assert_eq!(self.ask(&format!("z1,{address:x},2")), "OK");
    }

    /// Lets the processor run, unwatched.
    pub fn detach(mut self) {
        assert_eq!(self.ask("D"), "OK");
    }

    fn ask(&mut self, question: &str) -> String {
        let sum = question.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("${question}#{sum:02x}").as_bytes()).expect("the emulator listens");
        loop {
            let answer = self.receive();
            // It reports without being asked that it stopped when the debugger attached.
            if question == "c" || !answer.starts_with(['T', 'S']) {
                return answer;
            }
        }
    }

    fn receive(&mut self) -> String {
        let mut answer = Vec::new();
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("the emulator answers");
            match (byte[0], answer.is_empty()) {
                (b'$', _) => answer = vec![b'$'],
                (_, true) => {} // its acknowledgement
                (b'#', false) => break,
                (byte, false) => answer.push(byte),
            }
        }
        self.0.read_exact(&mut [0; 2]).expect("a checksum follows");
        self.0.write_all(b"+").expect("the emulator listens");
        String::from_utf8_lossy(&answer[1..]).into_owned()
    }
}
