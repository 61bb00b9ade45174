//! A template's bytes: a parsed template encodes to an equivalent one, and judges a request without a panic.

use sshsm_firmware::crypto::RustCrypto;
use sshsm_firmware::ssh::memory::Memory;
use sshsm_firmware::ssh::policy::{self, BothDomains, CaKey, Case, OnDevice};
use sshsm_protocol::codec::Writer;
use sshsm_protocol::ssh::public_key::PublicKey;
use sshsm_protocol::ssh::request::Request;
use sshsm_protocol::ssh::signature::SignatureAlgorithm;
use sshsm_protocol::ssh::template::{Dialect, Template, TemplateError};
use sshsm_protocol::ssh::timestamp::Now;
use sshsm_protocol::{Domains, ObjectId};

pub fn run(bytes: &[u8]) {
    let template = Template::decode(bytes);
    if let Ok(template) = &template {
        let mut buffer = vec![0; bytes.len()];
        let mut writer = Writer::new(&mut buffer);
        template.encode(&mut writer).expect("as long as it was");
        assert_eq!(writer.len(), bytes.len());
        assert_eq!(Template::decode(&buffer).as_ref(), Ok(template));
        let _ = sshsm_ca::template::describe(template);
    }
    if let Ok(strict) = Template::decode_dialect(bytes, Dialect::Yubihsm2) {
        assert_eq!(template, Ok(strict));
    }
    let request = include_bytes!("../corpus/request/user");
    assert!(Request::decode(request).is_ok());
    judge(&template, request);
}

/// The verdict, in words; without a signed time it never permits a signature.
pub fn judge(template: &Result<Template<'_>, TemplateError>, request: &[u8]) {
    let id = ObjectId::DEFAULT_AUTHENTICATION_KEY;
    let ca_key = CaKey { id, public: PublicKey::Ed25519(&[7; 32]), algorithm: SignatureAlgorithm::Ed25519 };
    let now = Now::from_seconds(1_700_000_000);
    let domains = Some(BothDomains { ca_key: Domains::ALL, template: Domains::ALL });
    for device in [OnDevice::default(), OnDevice { memory: Some(&Memory::default()), domains }] {
        let case = Case { template, request, now, timestamp_signature: None, ca_key, device };
        let verdict = policy::judge::<RustCrypto>(&case);
        assert!(!verdict.to_string().is_empty() && !verdict.is_allowed());
        assert!(verdict.permit().is_err());
    }
}
