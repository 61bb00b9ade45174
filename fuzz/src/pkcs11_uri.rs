//! A PKCS#11 URI: one that is read is written and read again as itself.

use sshsm_ca::pkcs11::Uri;

pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(uri) = text.parse::<Uri>() {
        let written = uri.to_string();
        assert_eq!(written.parse::<Uri>().as_ref(), Ok(&uri), "{written}");
    }
}
