//! The page that describes the wire must describe this wire: its tables are the tables of the code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use std::{collections::BTreeSet, fs};

use sshsm_protocol::{
    Algorithm, Capability, Command, DeviceError, ObjectType,
    command::{Channel, Requirement},
    option::{AUDITED_COMMANDS, DeviceOption},
    wrapped::is_body_length,
};
use sshsm_tests::requirement::workspace;

/// The text under the heading `title`, up to the next heading.
fn section(title: &str) -> String {
    let page = fs::read_to_string(workspace().join("docs/protocol.md")).unwrap();
    let text = page.split("\n#").find(|part| part.trim_start_matches(['#', ' ']).starts_with(title));
    text.unwrap_or_else(|| panic!("docs/protocol.md has no section {title:?}")).to_owned()
}

/// The rows of the tables in a section, without their headings; code marks are taken off the cells.
fn rows(title: &str) -> Vec<Vec<String>> {
    let section = section(title);
    let lines: Vec<&str> = section.lines().collect();
    let ruled = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("|---"));
    let row = |line: &&str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let table = (0..lines.len()).filter(|&at| lines[at].starts_with('|') && !ruled(at) && !ruled(at + 1));
    table.map(|at| row(&lines[at])).collect()
}

/// The number and name in each pair of columns.
fn pairs(title: &str) -> BTreeSet<(String, String)> {
    let rows = rows(title);
    let pairs = rows.iter().flat_map(|row| row.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
    pairs.filter(|(number, _)| !number.is_empty()).collect()
}

fn code(cell: &str) -> u8 {
    u8::from_str_radix(cell, 16).unwrap_or_else(|_| panic!("{cell:?} is not a code"))
}

/// The algorithms in a list such as `9–18, 46`.
fn algorithms(cell: &str) -> BTreeSet<u8> {
    let number = |text: &str| text.parse::<u8>().unwrap();
    let range = |part: &str| match part.split_once('–') {
        Some((first, last)) => number(first)..=number(last),
        None => number(part)..=number(part),
    };
    cell.split(", ").flat_map(range).collect()
}

#[test]
fn the_commands_of_the_page_are_those_of_the_code() {
    let page: Vec<_> = rows("Commands\n").into_iter().map(|row| row[..5].to_vec()).collect();
    let table = Command::ALL.iter().map(|&command| {
        let channel = match command.channel() {
            Channel::Plain => "plain",
            Channel::Session => "session",
            Channel::Both => "both",
        };
        let needs = match command.requirement() {
            Requirement::Nothing => "–".to_owned(),
            Requirement::Capability(capability) => capability.to_string(),
            Requirement::DeleteOfType => "delete-` and the type".to_owned(),
            Requirement::Both(first, second) => format!("{first}`, `{second}"),
        };
        let (shortest, longest) = command.request_length().into_inner();
        let bytes =
            if shortest == longest { shortest.to_string() } else { format!("{shortest}–{longest}") };
        vec![format!("{:02x}", command.code()), command.to_string(), channel.to_owned(), needs, bytes]
    });
    assert_eq!(page, table.collect::<Vec<_>>());
}

#[test]
fn the_tables_of_the_page_are_those_of_the_code() {
    let named = |number: String, name: &str| (number, name.to_owned());
    let all = Algorithm::ALL.iter().map(|algorithm| named(algorithm.code().to_string(), algorithm.name()));
    assert_eq!(pairs("Algorithms\n"), all.collect());
    let all = Capability::ALL.iter().map(|&bit| named(format!("{:02x}", bit as u8), bit.name()));
    assert_eq!(pairs("Capabilities\n"), all.collect());

    let errors: Vec<_> = rows("Errors\n").into_iter().map(|row| (code(&row[0]), row[1].clone())).collect();
    let defined: Vec<_> = (0..=u8::MAX).filter_map(DeviceError::from_code).collect();
    assert_eq!(errors.len(), defined.len());
    for ((code, name), error) in errors.iter().zip(defined) {
        assert_eq!(*code, error.code());
        // Extension errors have a longer text for users than their name.
        assert!(*code >= 0x40 || *name == error.to_string(), "{code:02x} {name}: {error}");
    }

    for (row, &object_type) in rows("Objects\n").iter().zip(ObjectType::ALL) {
        let exists =
            |algorithm: &&Algorithm| (1..2000).any(|length| is_body_length(object_type, **algorithm, length));
        let has: BTreeSet<u8> =
            Algorithm::ALL.iter().filter(exists).map(|algorithm| algorithm.code()).collect();
        let delegated = if object_type.has_delegated_capabilities() { "yes" } else { "no" };
        assert_eq!(row[..2], [object_type.code().to_string(), object_type.to_string()]);
        assert_eq!((algorithms(&row[2]), row[3].as_str()), (has, delegated), "{object_type}");
    }
    assert_eq!(rows("Objects\n").len(), ObjectType::ALL.len());

    let options: Vec<u8> = rows("Options\n").iter().map(|row| code(&row[0])).collect();
    let defined = (0..=u8::MAX).filter_map(DeviceOption::from_code).map(DeviceOption::code);
    assert_eq!(options, defined.collect::<Vec<_>>());
    let section = section("Options\n");
    let listed = section.split("```").nth(1).unwrap().trim_start_matches("text").split_whitespace();
    assert_eq!(listed.map(code).collect::<Vec<_>>(), AUDITED_COMMANDS);
}
