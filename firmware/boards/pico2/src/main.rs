//! sshsm on a Raspberry Pi Pico 2: RP2350, 4 MiB of flash.

#![no_std]
#![no_main]

use sshsm_rp::Mark;

#[used]
static MARK: Mark = Mark::new("pico2");

#[cortex_m_rt::entry]
fn main() -> ! {
    sshsm_rp::run(&MARK)
}
