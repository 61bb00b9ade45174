//! Provisioning: one file works on a new device and on every later start, and a difference is refused without
//! changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{error::Error, fs, path::Path};

use sshsm_client::ClientError;
use sshsm_protocol::{Command, DeviceError, ObjectId, ObjectType};
use sshsm_simulator::{Provision, ProvisionError, Provisioned, Simulator};

const LAB: &str = r#"
factory-key = "delete"

[session]
id = 2
password-file = "admin.password"

[[object]]
type = "authentication-key"
id = 2
label = "administrator"
domains = "all"
capabilities = "all"
delegated-capabilities = "all"
password-file = "admin.password"

[[object]]
type = "asymmetric-key"
id = 0x0005
label = "user CA"
domains = [1, 2]
capabilities = ["sign-ecdsa"]
algorithm = "ecp256"
generate = true

[[object]]
type = "template"
id = 6
domains = [1]
text = "what a client stores"
"#;

/// A file and its secrets, removed with the value.
struct Declaration(tempfile::TempDir);

impl Declaration {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("lab.toml"), text).unwrap();
        fs::write(directory.path().join("admin.password"), "open sesame\n").unwrap();
        fs::write(directory.path().join("seed"), [7; 32]).unwrap();
        Self(directory)
    }

    fn read(&self) -> Result<Provision, ProvisionError> {
        Provision::read(&self.0.path().join("lab.toml"))
    }
}

fn provision(device: &mut Simulator, text: &str) -> Result<Provisioned, ProvisionError> {
    Declaration::new(text).read().and_then(|provision| device.provision(&provision))
}

fn new_device() -> Simulator {
    Simulator::memory().start().unwrap()
}

fn id(id: u16) -> ObjectId {
    ObjectId::new(id).unwrap()
}

fn three() -> Vec<(ObjectType, ObjectId)> {
    vec![
        (ObjectType::AuthenticationKey, id(2)),
        (ObjectType::AsymmetricKey, id(5)),
        (ObjectType::Template, id(6)),
    ]
}

/// Every object with its sequence number, as LIST OBJECTS returns them.
fn list(device: &mut Simulator) -> Vec<u8> {
    device.session(id(2), "open sesame").unwrap().command(Command::ListObjects, &[]).unwrap()
}

fn reasons(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source()).map(|error| format!("{error}\n")).collect()
}

#[test]
fn the_second_time_everything_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = Simulator::open(directory.path()).start().unwrap();
    let done = provision(&mut device, LAB).unwrap();
    assert_eq!(done, Provisioned { created: three(), kept: vec![] });
    let objects = list(&mut device);
    let key = device.session(id(2), "open sesame").unwrap().command(Command::GetPublicKey, &[0, 5]).unwrap();

    drop(device);
    let mut device = Simulator::open(directory.path()).start().unwrap();
    let done = provision(&mut device, LAB).unwrap();
    assert_eq!(done, Provisioned { created: vec![], kept: three() });
    assert_eq!(list(&mut device), objects, "no sequence moved: nothing was created again");
    let mut session = device.session(id(2), "open sesame").unwrap();
    assert_eq!(session.command(Command::GetPublicKey, &[0, 5]).unwrap(), key);
    assert_eq!(session.command(Command::GetTemplate, &[0, 6]).unwrap(), b"what a client stores");
    drop(session);
    assert!(matches!(
        device.session(id(1), "password"),
        Err(ClientError::UnknownAuthenticationKey(key)) if key == id(1)
    ));
}

#[test]
fn what_is_missing_is_added_to_what_is_there() {
    let mut device = new_device();
    provision(&mut device, LAB).unwrap();
    device.session(id(2), "open sesame").unwrap().command(Command::DeleteObject, &[0, 5, 3]).unwrap();
    let done = provision(&mut device, LAB).unwrap();
    assert_eq!(done.created, [(ObjectType::AsymmetricKey, id(5))]);
    assert_eq!(done.kept, [three()[0], three()[2]]);
}

#[test]
fn every_compared_field_is_refused_when_it_differs_and_nothing_changes() {
    for (from, to, field) in [
        (r#"label = "user CA""#, r#"label = "user ca""#, "label"),
        ("domains = [1, 2]", "domains = [1]", "set of domains"),
        (r#"["sign-ecdsa"]"#, r#"["sign-ecdsa", "derive-ecdh"]"#, "set of capabilities"),
        ("delegated-capabilities = \"all\"", "", "set of delegated capabilities"),
        ("ecp256", "ecp384", "algorithm"),
        (
            "algorithm = \"ecp256\"\ngenerate = true",
            "algorithm = \"ecp256\"\nvalue-file = \"seed\"",
            "origin",
        ),
        ("a client stores", "a client stored", "content"),
    ] {
        let mut device = new_device();
        provision(&mut device, LAB).unwrap();
        let objects = list(&mut device);
        let absent = "\n[[object]]\ntype = \"template\"\nid = 7\ndomains = \"all\"\ntext = \"x\"\n";
        // The new object comes first: it must not be created either.
        let text = LAB.replacen("\n[[object]]", &format!("{absent}\n[[object]]"), 1).replace(from, to);
        assert_ne!(text, LAB);
        match provision(&mut device, &text) {
            Err(ProvisionError::Differs { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
        assert_eq!(list(&mut device), objects, "{field}");
    }
}

#[test]
fn a_password_that_differs_is_refused() {
    let text = r#"
[[object]]
type = "authentication-key"
id = 9
domains = [1]
password = "one"
"#;
    let mut device = new_device();
    provision(&mut device, text).unwrap();
    provision(&mut device, text).unwrap();
    let refused = provision(&mut device, &text.replace("one", "two"));
    assert!(matches!(refused, Err(ProvisionError::Differs { field: "password", .. })), "{refused:?}");
    assert!(device.session(id(9), "one").is_ok());
}

#[test]
fn the_factory_key_gets_the_password_of_the_session() {
    let text = "[session]\nid = 1\npassword-file = \"admin.password\"\n";
    let mut device = new_device();
    provision(&mut device, text).unwrap();
    assert!(matches!(device.session(id(1), "password"), Err(ClientError::WrongPassword(_))));
    assert!(device.session(id(1), "open sesame").is_ok());
    provision(&mut device, text).unwrap();
    let stranger = provision(&mut device, "");
    assert!(matches!(stranger, Err(ProvisionError::NoSession { .. })), "{stranger:?}");
}

#[test]
fn secrets_in_the_file_itself_are_noticed() {
    let object = |lines: &str| format!("[[object]]\nid = 9\ndomains = [1]\n{lines}\n");
    for (text, inline) in [
        (LAB.to_owned(), false),
        (object("type = \"authentication-key\"\npassword = \"one\""), true),
        (
            object(&format!(
                "type = \"asymmetric-key\"\nalgorithm = \"ed25519\"\nvalue = \"{}\"",
                "07".repeat(32)
            )),
            true,
        ),
        (object("type = \"asymmetric-key\"\nalgorithm = \"ed25519\"\nvalue-file = \"seed\""), false),
        (object("type = \"opaque\"\nvalue = \"07\""), false),
        ("[session]\nid = 1\npassword = \"one\"\n".to_owned(), true),
        ("[session]\nid = 1\npassword = \"password\"\n".to_owned(), false),
    ] {
        assert_eq!(Declaration::new(&text).read().unwrap().has_inline_secrets(), inline, "{text}");
    }
}

#[test]
fn a_mistake_in_the_file_is_named() {
    let object = |lines: &str| format!("[[object]]\n{lines}\n");
    for (text, expected) in [
        ("objekt = 1".to_owned(), "unknown field `objekt`"),
        (object("type = \"key\"\nid = 1\ndomains = \"all\""), "unknown type \"key\""),
        (object("type = \"opaque\"\nid = 65535\ndomains = \"all\"\ntext = \"x\""), "0xffff names no object"),
        (object("type = \"opaque\"\nid = 2\ndomains = [17]\ntext = \"x\""), "17"),
        (object("type = \"opaque\"\nid = 2\ndomains = []\ntext = \"x\""), "in no domain"),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\ngenerate = true"), "exactly one of"),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\ntext = \"x\"\nvalue = \"00\""), "exactly one of"),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\npassword = \"x\""), "exactly one of"),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\nvalue = \"0\""), "hexadecimal"),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\nvalue-file = \"none\""), "cannot read"),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\ntext = \"x\"\nnonce-id = \"00\""), "nonce-id"),
        (object("type = \"hmac-key\"\nid = 2\ndomains = [1]\ngenerate = true"), "algorithm is missing"),
        (
            object("type = \"opaque\"\nid = 2\ndomains = [1]\ncapabilities = [\"sign\"]\ntext = \"x\""),
            "\"sign\"",
        ),
        (
            object(
                "type = \"opaque\"\nid = 2\ndomains = [1]\ndelegated-capabilities = \"all\"\ntext = \"x\"",
            ),
            "delegate no capabilities",
        ),
        (
            object("type = \"authentication-key\"\nid = 1\ndomains = [1]\npassword = \"x\""),
            "the factory made it",
        ),
        (object("type = \"opaque\"\nid = 2\ndomains = [1]\ntext = \"x\"").repeat(2), "declared twice"),
        ("[session]\nid = 3\npassword = \"x\"".to_owned(), "not declared"),
        ("[session]\nid = 1".to_owned(), "either a password or a password-file"),
        ("factory-key = \"delete\"".to_owned(), "its own session"),
        ("[options]\ncommand-audit = { sing = \"on\" }".to_owned(), "unknown command \"sing\""),
        ("[options]\nalgorithm-toggle = { des = true }".to_owned(), "unknown algorithm \"des\""),
        ("[options]\nuser-presence = \"on\"".to_owned(), "\"certificates\" or \"all\""),
        ("[options]\nuser-presence = \"all\"\nuser-presence-timeout = 0".to_owned(), "in 0 seconds"),
        ("[options]\nuser-presence-timeout = 5".to_owned(), "it requires user-presence"),
        ("[options]\ntemplates = \"melted\"".to_owned(), "\"open\" or \"frozen\""),
    ] {
        let error = Declaration::new(&text).read().unwrap_err();
        assert!(reasons(&error).contains(expected), "{text}\n{}", reasons(&error));
    }
    let absent = Provision::read(Path::new("/no/such/file.toml")).unwrap_err();
    assert!(matches!(absent, ProvisionError::Read { .. }));
}

#[test]
fn the_example_in_the_documentation_is_sound() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulator.md")).unwrap();
    let (_, example) = page.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    Declaration::new(example).read().unwrap();
}

/// The device's answer to GET OPTION, by the first administrator's session.
fn option(device: &mut Simulator, option: u8) -> Vec<u8> {
    device.session(id(1), "password").unwrap().command(Command::GetOption, &[option]).unwrap()
}

/// The value that a list of pairs has for this code.
fn entry(list: &[u8], code: u8) -> u8 {
    list.chunks(2).find(|pair| pair[0] == code).unwrap()[1]
}

const OPTIONS: &str = r#"
[[object]]
type = "asymmetric-key"
id = 5
domains = [1]
capabilities = ["sign-ecdsa"]
algorithm = "ecp256"
generate = true

[[object]]
type = "hmac-key"
id = 5
domains = [1]
capabilities = ["sign-hmac"]
algorithm = "hmac-sha256"
generate = true

[options]
force-audit = "on"
command-audit = { sign-ecdsa = "on", sign-hmac = "fix" }
algorithm-toggle = { ecdsa-sha384 = false, rsa2048 = false }
"#;

#[test]
fn declared_algorithms_are_switched_off_and_the_others_work() {
    let mut device = new_device();
    provision(&mut device, OPTIONS).unwrap();
    let toggles = option(&mut device, 4);
    let off: Vec<_> = toggles.chunks(2).filter(|pair| pair[1] == 0).map(|pair| pair[0]).collect();
    assert_eq!(off, [9, 44]);
    let mut session = device.session(id(1), "password").unwrap();
    let mut sign = |length| session.command(Command::SignEcdsa, &[&[0, 5][..], &vec![7; length]].concat());
    sign(32).unwrap();
    assert!(matches!(sign(48), Err(ClientError::Device { error: DeviceError::AlgorithmDisabled, .. })));
    let header = [&[0, 6], &[0; 40][..], &[0, 1], &[0; 8], &[9]].concat();
    let refused = session.command(Command::GenerateAsymmetricKey, &header);
    assert!(
        matches!(refused, Err(ClientError::Device { error: DeviceError::AlgorithmDisabled, .. })),
        "{refused:?}"
    );
}

#[test]
fn declared_commands_are_logged_and_no_others_and_what_is_fixed_stays() {
    let mut device = new_device();
    provision(&mut device, &OPTIONS.replace("force-audit = \"on\"", "force-audit = \"off\"")).unwrap();
    let audit = option(&mut device, 3);
    let on: Vec<_> = audit.chunks(2).filter(|pair| pair[1] != 0).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(on, [(0x56, 1), (0x53, 2)]);

    let mut session = device.session(id(1), "password").unwrap();
    session.command(Command::SignEcdsa, &[&[0, 5][..], &[7; 32]].concat()).unwrap();
    session.command(Command::SignHmac, &[0, 5, 7]).unwrap();
    session.command(Command::Echo, &[7]).unwrap();
    let log = session.command(Command::GetLogEntries, &[]).unwrap();
    let commands: Vec<_> = log[5..].chunks(32).map(|entry| entry[2]).collect();
    // After the beginning of every log: the reset and the boot.
    assert_eq!(commands[2..], [0x56, 0x53]);
    let mut set = |code| session.command(Command::SetOption, &[3, 0, 2, code, 0]);
    assert!(matches!(set(0x53), Err(ClientError::Device { error: DeviceError::InvalidData, .. })));
    set(0x56).unwrap();
}

#[test]
fn declared_force_audit_fills_the_log_and_then_stops_the_device() {
    let mut device = new_device();
    provision(&mut device, OPTIONS).unwrap();
    assert_eq!(option(&mut device, 1), [1]);
    let mut session = device.session(id(1), "password").unwrap();
    let refused = (0..64).find_map(|_| session.command(Command::Echo, &[]).err());
    assert!(matches!(refused, Some(ClientError::Device { error: DeviceError::LogFull, .. })), "{refused:?}");
}

#[test]
fn options_are_kept_the_second_time_and_set_again_where_a_client_changed_them() {
    let text = OPTIONS.replace("force-audit = \"on\"", "force-audit = \"off\"");
    let mut device = new_device();
    provision(&mut device, &text).unwrap();
    device.session(id(1), "password").unwrap().command(Command::SetOption, &[3, 0, 2, 0x56, 0]).unwrap();
    provision(&mut device, &text).unwrap();
    assert_eq!(entry(&option(&mut device, 3), 0x56), 1);
    let before = (option(&mut device, 3), option(&mut device, 4));
    provision(&mut device, &text).unwrap();
    assert_eq!((option(&mut device, 3), option(&mut device, 4)), before);
    // Objects are there: the device itself refuses to switch algorithms.
    let refused = provision(&mut device, &text.replace("rsa2048 = false", "rsa2048 = true")).unwrap_err();
    assert!(reasons(&refused).contains("algorithm-toggle rsa2048"), "{}", reasons(&refused));
}
