//! A certificate request: those that are read are written again to the byte, and judged without a panic.

use sshsm_protocol::codec::Writer;
use sshsm_protocol::ssh::request::Request;
use sshsm_protocol::ssh::template::Template;

use super::template;

pub fn run(bytes: &[u8]) {
    let request = Request::decode(bytes);
    if let Ok(request) = &request {
        let mut buffer = vec![0; bytes.len()];
        let mut writer = Writer::new(&mut buffer);
        request.encode(&mut writer).expect("as long as it was");
        assert_eq!(writer.written(), bytes);
    }
    let template = Template::decode(include_bytes!("../corpus/template/rules"));
    assert!(template.is_ok());
    template::judge(&template, bytes);
}
