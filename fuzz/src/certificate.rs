//! A certificate as it is presented to a server, in a file or in binary form.

use sshsm_ca::presented_certificate::PresentedCertificate;

pub fn run(bytes: &[u8]) {
    for read in [PresentedCertificate::from_file(bytes), PresentedCertificate::from_bytes(bytes)] {
        match read {
            Ok(certificate) => {
                let _ = certificate.subject_key();
                let _ = certificate.verify();
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
