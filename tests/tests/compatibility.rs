//! The document that describes the device must match the device: its table is the command table, and the
//! simulator does not answer "invalid command" to anything that it calls supported.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use std::{collections::BTreeMap, fs};

use sshsm_client::ClientError;
use sshsm_protocol::{
    Command, DeviceError, ObjectId,
    command::Channel,
    frame::{ERROR_CODE, Frame},
};
use sshsm_simulator::Simulator;
use sshsm_tests::requirement::workspace;

/// A row of the document's table of commands.
struct Row {
    name: String,
    family: String,
    supported: bool,
    evidence: String,
}

fn document() -> BTreeMap<u8, Row> {
    let page = fs::read_to_string(workspace().join("docs/yubihsm2-compatibility.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [code, name, family, supported, _, evidence] = cells[..] else { return None };
        let code = u8::from_str_radix(code.strip_prefix('`')?.strip_suffix('`')?, 16).ok()?;
        let supported = match supported {
            "yes" => true,
            "no" => false,
            other => panic!("{name} is supported: {other:?}"),
        };
        Some((code, Row { name: name.into(), family: family.into(), supported, evidence: evidence.into() }))
    });
    let rows: Vec<_> = rows.collect();
    let by_code: BTreeMap<u8, Row> = rows.into_iter().fold(BTreeMap::new(), |mut by_code, (code, row)| {
        assert!(by_code.insert(code, row).is_none(), "{code:02x} is listed twice");
        by_code
    });
    by_code
}

/// Whether a new device has the command: sent with nothing in it, it is known and wrong, or carried out.
fn has(command: Command) -> bool {
    let mut device = Simulator::memory().start().unwrap();
    if command.channel() == Channel::Session {
        let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap();
        let answer = session.command(command, &[]);
        return !matches!(answer, Err(ClientError::Device { error: DeviceError::InvalidCommand, .. }));
    }
    // Lengths are checked first outside of sessions.
    let length = *command.request_length().start();
    let request =
        [vec![command.code()], u16::try_from(length).unwrap().to_be_bytes().to_vec(), vec![0; length]];
    let answer = device.transact(&request.concat()).unwrap();
    Frame::parse(&answer).unwrap()
        != Frame { code: ERROR_CODE, payload: &[DeviceError::InvalidCommand.code()] }
}

#[test]
fn the_document_lists_every_command_and_no_other() {
    let document = document();
    let listed: Vec<_> =
        document.iter().map(|(code, row)| (*code, row.name.as_str(), row.family.clone())).collect();
    let table: Vec<_> = Command::ALL
        .iter()
        .map(|command| (command.code(), command.name(), family(&format!("{:?}", command.family()))))
        .collect();
    assert_eq!(listed, table);
    for row in document.values() {
        assert!(
            row.evidence.split(' ').all(|tag| ["H", "T", "C", "D", "V", "I", "?"].contains(&tag)),
            "{}: evidence {:?}",
            row.name,
            row.evidence
        );
    }
}

/// A family's name as that of its feature: `RsaWrap` is `rsa-wrap`.
fn family(name: &str) -> String {
    let mut feature = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !feature.is_empty() {
            feature.push('-');
        }
        feature.push(letter.to_ascii_lowercase());
    }
    feature
}

#[test]
fn what_the_document_calls_supported_is_what_the_device_has() {
    let document = document();
    let wrong: Vec<String> = Command::ALL
        .iter()
        .filter(|command| document.get(&command.code()).is_some_and(|row| row.supported) != has(**command))
        .map(|command| {
            let has = if has(*command) { "has" } else { "does not have" };
            format!("{:02x} {command}: the device {has} it", command.code())
        })
        .collect();
    assert!(wrong.is_empty(), "docs/yubihsm2-compatibility.md is wrong:\n{}", wrong.join("\n"));
}
