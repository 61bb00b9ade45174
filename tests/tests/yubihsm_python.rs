//! Yubico's own Python library, unchanged, against the simulator over HTTP. Its expectations are written in
//! Python, in `python/yubihsm_client.py`; here it gets a device and a Python that has the library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_tests::{
    needs,
    python::{python, run_client},
    requirement::shared_vector,
    simulator::Simulator,
};

#[test]
fn everyday_commands_work() {
    run_client(&needs!(python()), Simulator::start().url(), &["Everyday"], None);
}

#[test]
fn everyday_commands_reach_a_device_on_a_serial_port_through_the_connector() {
    run_client(&needs!(python()), Simulator::behind_connector().url(), &["Everyday"], None);
}

#[test]
fn the_hardware_vector_is_answered_byte_for_byte() {
    let python = needs!(python());
    let vector = needs!(shared_vector("yubihsm2-ssh.json"));
    run_client(&python, Simulator::start().url(), &["HardwareVector"], Some(&vector));
}
