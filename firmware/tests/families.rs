//! A device knows the commands of the families that it was built with, and no others.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model;

use model::{Session, fresh};
use sshsm_protocol::command::{Channel, Family};
use sshsm_protocol::{Command, DeviceError};

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
        if command != Command::CloseSession && command != Command::ResetDevice {
            session.send(&mut device, Command::CloseSession, &[]).unwrap();
        }
    }
}
