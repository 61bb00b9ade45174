//! A key revocation list: a parsed list covers itself, and means the same when it is written and parsed
//! again.

use sshsm_ca::krl::RevocationList;

pub fn run(bytes: &[u8]) {
    let Ok(list) = RevocationList::decode(bytes) else { return };
    assert!(list.lost(&list).is_empty());
    let Ok(written) = list.encode() else { return };
    let again = RevocationList::decode(&written).expect("a written list can be read");
    // Whatever else it lost, its serial numbers, key ids and keys are there.
    assert!(again.lost(&list).iter().all(|lost| lost.contains("SHA-1")));
}
