//! The machine's first serial port: a CMSDK APB UART, one byte deep each way. QEMU ignores its speed.

use core::ptr::{read_volatile, with_exposed_provenance_mut, write_volatile};

/// Its interrupts in the SSE-200: a byte came, a byte left.
pub(crate) const RECEIVED: i16 = 32;
pub(crate) const TRANSMITTED: i16 = 33;

const BASE: usize = 0x5020_0000;
const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CONTROL: usize = 0x08;
const INTERRUPT: usize = 0x0c; // written 1 clears: bit 0 transmitted, bit 1 received
const DIVIDER: usize = 0x10;
const TRANSMIT_FULL: u32 = 1;
const RECEIVE_FULL: u32 = 2;
/// Both directions, and their interrupts.
const ENABLE: u32 = 0b1111;

/// The port; there is one.
pub(crate) struct Uart(());

impl Uart {
    /// Switches the port on. Its interrupts arrive once the interrupt controller enables them.
    pub(crate) fn start() -> Self {
        let uart = Self(());
        uart.write(DIVIDER, 16); // the minimum
        uart.write(CONTROL, ENABLE);
        uart
    }

    /// The byte that came, if one did.
    pub(crate) fn receive(&mut self) -> Option<u8> {
        self.write(INTERRUPT, 0b10);
        (self.read(STATE) & RECEIVE_FULL != 0).then(|| self.read(DATA).to_le_bytes()[0])
    }

    /// Whether a byte can be sent; if not, there is an interrupt once it can.
    pub(crate) fn ready(&mut self) -> bool {
        self.write(INTERRUPT, 0b01);
        self.read(STATE) & TRANSMIT_FULL == 0
    }

    /// Sends a byte when the port is [`ready`](Self::ready).
    pub(crate) fn send(&mut self, byte: u8) {
        self.write(DATA, byte.into());
    }

    #[allow(unsafe_code, reason = "registers are memory that the language does not know")]
    fn read(&self, register: usize) -> u32 {
        // SAFETY: a register of this device.
        unsafe { read_volatile(with_exposed_provenance_mut(BASE + register)) }
    }

    #[allow(unsafe_code, reason = "registers are memory that the language does not know")]
    fn write(&self, register: usize, value: u32) {
        // SAFETY: a register of this device.
        unsafe { write_volatile(with_exposed_provenance_mut(BASE + register), value) }
    }
}
