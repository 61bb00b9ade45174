//! The code of each fuzz target. `fuzz_targets` gives it inputs from libFuzzer, and tests/tests/corpora.rs
//! every file of the corpora, in every test run.

pub mod agent_message;
pub mod certificate;
pub mod configuration;
pub mod device;
pub mod frame;
pub mod journal;
pub mod key_file;
pub mod ledger;
pub mod link;
pub mod pkcs11_uri;
pub mod request;
pub mod revocation_list;
pub mod session;
pub mod share;
pub mod template;
pub mod template_file;
pub mod wrapped_object;
