//! A share of a wrap key, as it is typed: one that is read is printed and read again as itself.

use sshsm::shares::Share;

pub fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(share) = Share::parse(text) {
        let again = Share::parse(&share.text()).expect("as it is printed");
        assert!(again == share);
        assert_eq!(again.commitment(), share.commitment());
    }
}
