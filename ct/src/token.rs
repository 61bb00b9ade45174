//! The bearer tokens of `sshsm timestamp serve`.

use crate::secret::{hidden, revealed};

/// The product's own file, without the rest of the host tool, of which it needs nothing.
#[allow(dead_code, unused_qualifications)]
#[path = "../../host/ca/src/timestamp/access.rs"]
mod access;

/// Three clients ask: the holders of both tokens and a stranger.
#[inline(never)]
pub fn bearer_token() {
    let tokens = access::Tokens::parse("0123456789abcdef\nfedcba9876543210\n").expect("two tokens");
    for (token, line) in
        [(b"0123456789abcdef", Some(1)), (b"fedcba9876543210", Some(2)), (b"0123456789abcdeF", None)]
    {
        assert_eq!(revealed(tokens.find(&hidden(*token))).map(|known| known.line()), line);
    }
}
