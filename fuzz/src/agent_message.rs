//! A message to the agent: any message is answered, and anything to be signed is a certificate that can be
//! parsed.

use std::{io, slice, sync::Arc};

use sshsm_ca::{
    agent::{Authority, CaAgent, CaIdentity, Order, Refusal, message::Answer},
    certificate_options::CertificateOptions,
    key_file,
    request::{Content, SigningRequest},
    validity::Validity,
};
use sshsm_protocol::ssh::request::CertificateKind;

/// The CA's public key, which the corpus asks for signatures by.
const CA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

/// Signs what reaches it.
struct Willing(CaIdentity);

impl Authority for Willing {
    fn identities(&self) -> &[CaIdentity] {
        slice::from_ref(&self.0)
    }

    fn allows_forwarding(&self) -> bool {
        false
    }

    fn sign(&self, order: Order) -> Option<Vec<u8>> {
        let subject = key_file::parse_public(CA).expect("it is a key");
        let content = order.request.content().ok()?;
        let again = Content {
            kind: CertificateKind::User,
            validity: Validity::UNLIMITED,
            options: CertificateOptions::default(),
            ..content
        };
        // What was parsed can be encoded again.
        SigningRequest::new(&subject, &again, &self.0.key).expect("its names are names");
        assert!(!order.forwarded);
        Some(order.request.as_bytes().to_vec())
    }

    fn refused(&self, refusal: &Refusal) {
        assert!(!refusal.to_string().is_empty());
    }

    fn troubled(&self, _: &io::Error) {}
}

pub fn run(message: &[u8]) {
    let key = key_file::parse_public(CA).expect("it is a key").key_data().clone();
    let agent = CaAgent::new(Arc::new(Willing(CaIdentity { key, name: "ca".into() })));
    let mut connection = agent.connection();
    // The second time, whatever the first one did to the connection.
    for _ in 0..2 {
        match connection.answer(message) {
            Answer::Signature(_) => assert_eq!(message.first(), Some(&13)),
            answer => drop(answer.encode().expect("it has a length")),
        }
    }
}
