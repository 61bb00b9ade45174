//! A key revocation list: what is read revokes itself, and says the same when it is written and read again.

use sshsm::krl::RevocationList;

pub fn run(bytes: &[u8]) {
    let Ok(list) = RevocationList::decode(bytes) else { return };
    assert!(list.lost(&list).is_empty());
    let Ok(written) = list.encode() else { return };
    let again = RevocationList::decode(&written).expect("what is written is read");
    // Whatever else it lost, what it says of serial numbers, key ids and keys is there.
    assert!(again.lost(&list).iter().all(|lost| lost.contains("SHA-1")));
}
