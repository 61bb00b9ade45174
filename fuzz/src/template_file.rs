//! A template as TOML: an accepted file compiles to a template that a device reads; a refusal has a position.
//!
//! The timestamp key is given, so that no input makes the target read another file.

use std::path::Path;

use sshsm_ca::template::{describe, file::TemplateFile};
use sshsm_protocol::ssh::template::Template;

pub fn run(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let text = format!("timestamp-key = \"timestamp.pub\"\n{text}");
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"));
    match TemplateFile::parse(&text, folder) {
        Ok(file) => {
            let bytes = file.to_tlv();
            let template = Template::decode(&bytes).expect("a built template is well-formed");
            assert!(!describe(&template).is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
