//! Runs one constant-time check under memcheck, for `cargo xtask ct`: without arguments it lists the checks.
//!
//! A check passes secrets ([`secret`]) to the product's own functions and makes them reach both verdicts.
//! Memcheck reports each branch and index that depends on a secret; that a verdict is yes or no is public,
//! and `verdicts.supp` says where each becomes so.

mod channel;
mod control;
#[path = "../../firmware/tests/model/mod.rs"]
mod model;
mod private_key;
#[path = "../../firmware/tests/model/rsa_key.rs"]
mod rsa_key;
mod secret;
mod stored;
mod token;

use std::env;
use std::process::ExitCode;

/// A check, by name.
type Check = (&'static str, fn());

const CHECKS: &[Check] = &[
    ("control-early-exit", control::early_exit),
    ("control-table-lookup", control::table_lookup),
    ("password", channel::password),
    ("authenticate-session", channel::authenticate_session),
    ("device-open", channel::device_open),
    ("card-cryptogram", channel::card_cryptogram),
    ("host-open", channel::host_open),
    ("encryption", channel::encryption),
    ("agreement", channel::agreement),
    ("create-session", stored::create_session),
    ("session", stored::session),
    ("verify-hmac", stored::verify_hmac),
    ("unwrap-data", stored::unwrap_data),
    ("decrypt-otp", stored::decrypt_otp),
    ("pkcs1-padding", private_key::pkcs1_padding),
    ("oaep-padding", private_key::oaep_padding),
    ("ecdsa-signature", private_key::ecdsa_signature),
    ("ed25519-signature", private_key::ed25519_signature),
    ("ecdh", private_key::ecdh),
    ("bearer-token", token::bearer_token),
];

fn main() -> ExitCode {
    let Some(wanted) = env::args().nth(1) else {
        CHECKS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    match CHECKS.iter().find(|(name, _)| *name == wanted) {
        Some((_, check)) if secret::watched() => {
            check();
            ExitCode::SUCCESS
        }
        Some(_) => {
            eprintln!("{wanted} is meaningful only under valgrind: cargo xtask ct");
            ExitCode::from(2)
        }
        None => {
            eprintln!("there is no check named {wanted:?}");
            ExitCode::from(2)
        }
    }
}
