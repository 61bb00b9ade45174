//! Signs a certificate from a program: a simulator holds the CA key and the template `users.toml`. With another
//! `Exchange`, such as `sshsm_client::Serial`, the same code runs against a board.

use std::{error::Error, path::Path};

use ssh_key::{PrivateKey, private::Ed25519Keypair};
use sshsm_ca::{
    Listener,
    certificate_options::CertificateOptions,
    issue::{IssueError, Issuer, Tried},
    ledger::Serial,
    request::Content,
    signer::{DeviceSigner, Signer as _, TimedRequest},
    template::file::TemplateFile,
    timestamp::TimestampAuthority,
    validity::Validity,
};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Domains, Label, ObjectId, object::NewObject,
    ssh::request::CertificateKind,
};
use sshsm_simulator::Simulator;

/// In place of a key file, which `sshsm_ca::key_file::read_private` reads.
fn random_key() -> Result<PrivateKey, Box<dyn Error>> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(Ed25519Keypair::from_seed(&seed).into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (ca_id, template_id) = (ObjectId::new(5)?, ObjectId::new(20)?);

    // The timestamp authority says what time it is. It belongs on another computer.
    let authority_key = random_key()?;
    let mut authority = TimestampAuthority::new(&authority_key, "example")?;

    // An administrator makes the CA key and stores the template, once.
    let mut device = Simulator::memory().start()?;
    let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
    let object = |id, algorithm, capabilities| NewObject {
        id: Some(id),
        label: Label::default(),
        domains: Domains::ALL,
        capabilities,
        algorithm,
    };
    let may_sign = Capabilities::of(&[Capability::SignSshCertificate]);
    session.generate_asymmetric_key(&object(ca_id, Algorithm::Ed25519, may_sign))?;
    let template = object(template_id, Algorithm::TemplateSsh, Capabilities::NONE);
    let text = include_str!("users.toml").replace("timestamp.pub", &authority_key.public_key().to_openssh()?);
    session.put_template(&template, &TemplateFile::parse(&text, Path::new("."))?.to_tlv())?;

    // A user's public key, and what its certificate says.
    let subject = random_key()?.public_key().clone();
    let mut content = Content {
        kind: CertificateKind::User,
        serial: 1,
        key_id: "alice@example.com".into(),
        principals: vec!["zone-web".into()],
        validity: Validity::parse("-0:+8h")?,
        options: CertificateOptions::parse(CertificateKind::User, ["clear", "permit-pty"])?,
    };

    // Without a ledger, nothing is recorded.
    let issuer = Issuer::new(None, Listener::default());
    let mut signer = DeviceSigner::new(&mut session, ca_id, template_id, None)?;
    let serial = Serial::Given(content.serial);
    let tried = issuer.issue(&mut signer, subject.key_data(), &mut content, serial, |content, signer| {
        TimedRequest::new(&subject, content, signer.ca_key(), &mut authority).map_err(IssueError::Signer)
    })?;
    match tried {
        Tried::Signed(issued) => print!("{}", issued.line()),
        Tried::Refused(request) => print!("refused:\n{}", signer.explain(&request)?),
    }
    Ok(())
}
