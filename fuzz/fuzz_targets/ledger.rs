#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sshsm_fuzz::ledger::run(data));
