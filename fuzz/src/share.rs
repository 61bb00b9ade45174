//! A share of a wrap key, as typed: a parsed share is printed and parsed again as itself.

use sshsm::shares::Share;

pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(share) = Share::parse(text) {
        let again = Share::parse(&share.text()).expect("a printed share can be read");
        assert!(again == share);
        assert_eq!(again.commitment(), share.commitment());
    }
}
