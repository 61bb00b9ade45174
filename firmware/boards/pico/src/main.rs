//! sshsm on a Raspberry Pi Pico: RP2040, 2 MiB of flash.

#![no_std]
#![no_main]

use sshsm_rp::Mark;

#[used]
static MARK: Mark = Mark::new("pico");

#[cortex_m_rt::entry]
fn main() -> ! {
    sshsm_rp::run(&MARK)
}
