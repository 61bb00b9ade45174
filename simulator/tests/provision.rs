//! Provisioning: one file works on a new device and on every later start, and what differs is refused untouched.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{error::Error, fs, path::Path};

use sshsm_protocol::{Command, ObjectId, ObjectType};
use sshsm_simulator::{Provision, ProvisionError, Provisioned, SessionError, Simulator};

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

/// A file and the secrets beside it, removed with the value.
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

/// Every object with its sequence, as LIST OBJECTS tells.
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
    assert_eq!(list(&mut device), objects, "no sequence moved: nothing was made anew");
    let mut session = device.session(id(2), "open sesame").unwrap();
    assert_eq!(session.command(Command::GetPublicKey, &[0, 5]).unwrap(), key);
    assert_eq!(session.command(Command::GetTemplate, &[0, 6]).unwrap(), b"what a client stores");
    drop(session);
    assert!(matches!(
        device.session(id(1), "password"),
        Err(SessionError::Device(sshsm_protocol::DeviceError::ObjectNotFound))
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
        // The new object stands first: it must not be made either.
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
    assert!(matches!(device.session(id(1), "password"), Err(SessionError::Channel(_))));
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
