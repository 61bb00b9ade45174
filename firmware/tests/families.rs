//! A device knows the commands of the families that it was built with, and no others.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Session, fresh};
use sshsm_protocol::command::{Channel, Family};
use sshsm_protocol::{Algorithm, Command, DeviceError};

fn is_built(family: Family) -> bool {
    match family {
        Family::Core => true,
        Family::Ssh => cfg!(feature = "ssh"),
        Family::Signatures => cfg!(feature = "signatures"),
        Family::Decryption => cfg!(feature = "decryption"),
        Family::Opaque => cfg!(feature = "opaque"),
        Family::Hmac => cfg!(feature = "hmac"),
        Family::Symmetric => cfg!(feature = "symmetric"),
        Family::Otp => cfg!(feature = "otp"),
        Family::Wrap => cfg!(feature = "wrap"),
        Family::RsaWrap => cfg!(feature = "rsa-wrap"),
        Family::Attestation => cfg!(feature = "attestation"),
        Family::Audit => cfg!(feature = "audit"),
    }
}

#[test]
fn commands_of_absent_families_are_invalid_and_those_of_the_others_are_known() {
    let mut device = fresh();
    for &command in Command::ALL.iter().filter(|command| command.channel() != Channel::Plain) {
        // Some end the session.
        let mut session = Session::admin(&mut device);
        let answer = session.send(&mut device, command, &vec![0; *command.request_length().start()]);
        assert_eq!(answer != Err(DeviceError::InvalidCommand), is_built(command.family()), "{command}");
        let ends = [Command::CloseSession, Command::ResetDevice, Command::RestartDevice];
        if !ends.contains(&command) {
            session.send(&mut device, Command::CloseSession, &[]).unwrap();
        }
    }
}

#[test]
fn a_curve_that_was_not_built_is_not_offered_and_no_key_is_made_on_it() {
    let mut device = fresh();
    let mut session = Session::admin(&mut device);
    for (algorithm, built) in [
        (Algorithm::Ecp256, true),
        (Algorithm::Ecp521, true),
        (Algorithm::Ecp224, cfg!(feature = "curves")),
        (Algorithm::Eck256, cfg!(feature = "curves")),
        (Algorithm::Ecbp256, cfg!(feature = "curves")),
        (Algorithm::Ecbp384, cfg!(feature = "curves")),
        (Algorithm::Ecbp512, cfg!(feature = "curves")),
    ] {
        let info = session.send(&mut device, Command::GetDeviceInfo, &[]).unwrap();
        assert_eq!(info[9..].contains(&algorithm.code()), built, "{algorithm}");
        let key = [[0; 2].as_slice(), &[b'x'; 40], &[0xff; 2], &[0; 8], &[algorithm.code()]].concat();
        let made = session.send(&mut device, Command::GenerateAsymmetricKey, &key);
        let right = made.as_ref().err().map_or(built, |error| !built && *error == DeviceError::InvalidData);
        assert!(right, "{algorithm}: {made:?}");
    }
}
