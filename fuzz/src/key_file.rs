//! A key file of either kind: a parsed key is written, and parsed again as the same key.

use std::io;

use sshsm_ca::key_file;

pub fn run(bytes: &[u8]) {
    if let Ok(key) = key_file::parse_public(bytes) {
        let line = key.to_openssh().expect("it has a line");
        let again = key_file::parse_public(line).expect("its line is read");
        assert_eq!(again.key_data(), key.key_data());
    }
    let text = String::from_utf8_lossy(bytes);
    // Without a passphrase: one costs more than a thousand inputs.
    let mut none = || Err(io::Error::other("there is none"));
    match key_file::parse_private(&text, &mut none) {
        Ok(key) => {
            let line = key.public_key().to_openssh().expect("it has a line");
            let public = key_file::parse_public(line).expect("its line is read");
            assert_eq!(public.key_data(), key.public_key().key_data());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
