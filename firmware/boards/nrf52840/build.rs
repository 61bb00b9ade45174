//! Tells the linker where this board's memory is.

fn main() {
    sshsm_boards::build::link(&sshsm_boards::NRF52840);
}
