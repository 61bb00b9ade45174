//! Makes a change on a token that no tool offers: `token_object MODULE PIN LABEL` takes the right to sign
//! from a private key.
#![allow(clippy::unwrap_used, reason = "a test's tool reports by stopping")]

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    object::{Attribute, ObjectClass},
    session::UserType,
    types::AuthPin,
};
use std::env;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, pin, label] = arguments.as_slice() else { unreachable!("MODULE PIN LABEL") };
    let module = Pkcs11::new(module).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap().remove(0);
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))).unwrap();
    let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.clone().into_bytes())];
    let key = session.find_objects(&wanted).unwrap().remove(0);
    session.update_attributes(key, &[Attribute::Sign(false)]).unwrap();
}
