//! Signatures: of SSH certificates, under a template, and of anything.

use sshsm_protocol::{Algorithm, Command, ObjectId, message, ssh::timestamp::Now};

use crate::{error::Result, session::Session};

impl Session<'_> {
    /// Signs an SSH certificate; `request` is `timestamp signature ‖ to-be-signed certificate`.
    ///
    /// Returns the certificate's signature field, its length included.
    ///
    /// # Errors
    /// [`SshCaConstraintViolation`](sshsm_protocol::DeviceError::SshCaConstraintViolation) when the template does not allow the request.
    pub fn sign_ssh_certificate(
        &mut self,
        ca_key: ObjectId,
        template: ObjectId,
        algorithm: Algorithm,
        now: Now,
        request: &[u8],
    ) -> Result<Vec<u8>> {
        self.send(
            Command::SignSshCertificate,
            &certificate_request(ca_key, template, algorithm, now, request),
        )
    }

    /// The outcome that [`Session::sign_ssh_certificate`] would have with the same arguments: the answer to
    /// EXPLAIN SSH REQUEST, which [`sshsm_protocol::ssh::explanation`] decodes. Nothing is signed.
    ///
    /// # Errors
    /// [`InvalidCommand`](sshsm_protocol::DeviceError::InvalidCommand) from a YubiHSM 2, and from a strict
    /// device.
    pub fn explain_ssh_request(
        &mut self,
        ca_key: ObjectId,
        template: ObjectId,
        algorithm: Algorithm,
        now: Now,
        request: &[u8],
    ) -> Result<Vec<u8>> {
        self.send(Command::ExplainSshRequest, &certificate_request(ca_key, template, algorithm, now, request))
    }

    /// RSASSA-PKCS1-v1_5 over a digest of 20, 32, 48 or 64 bytes.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn sign_pkcs1(&mut self, key: ObjectId, digest: &[u8]) -> Result<Vec<u8>> {
        self.send(Command::SignPkcs1, &message::SignPkcs1 { key: key.get(), digest })
    }

    /// ECDSA over a digest; returns the DER signature.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn sign_ecdsa(&mut self, key: ObjectId, digest: &[u8]) -> Result<Vec<u8>> {
        self.send(Command::SignEcdsa, &message::SignEcdsa { key: key.get(), digest })
    }

    /// Ed25519 over a message; returns 64 bytes.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub fn sign_eddsa(&mut self, key: ObjectId, message: &[u8]) -> Result<Vec<u8>> {
        self.send(Command::SignEddsa, &message::SignEddsa { key: key.get(), message })
    }
}

fn certificate_request(
    ca_key: ObjectId,
    template: ObjectId,
    algorithm: Algorithm,
    now: Now,
    request: &[u8],
) -> message::SignSshCertificate<'_> {
    message::SignSshCertificate {
        ca_key: ca_key.get(),
        template: template.get(),
        algorithm: algorithm.code(),
        now: now.seconds(),
        request,
    }
}
