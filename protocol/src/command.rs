//! The command table: every command of the protocol, declared once.
//!
//! A row gives the code, the name, the family, the channel it is legal on, the keys that an audit entry names, the
//! capability a session needs, and the shortest and longest request payload in bytes. Device, clients and tests all read
//! this table; what a command *does* is in the device, and its payload in docs/protocol.md, "Commands".

use crate::capability::Capability;
use crate::frame::{MAX_INNER_PAYLOAD, MAX_PAYLOAD};
use crate::label::Label;
use crate::object::NewObject;

/// Where a command may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Only outside a session.
    Plain,
    /// Only inside a session.
    Session,
    /// Outside and inside.
    Both,
}

/// What a command asks of the session that sends it, before any object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    Nothing,
    /// This capability.
    Capability(Capability),
    /// The delete capability of the type that the payload names.
    DeleteOfType,
    /// Both capabilities.
    Both(Capability, Capability),
}

/// Commands that a device has all of, or none: what a small board can be built without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Sessions, objects, authentication keys and asymmetric keys: every device has it.
    Core,
    /// SSH templates and certificates.
    Ssh,
    /// Signatures over data that the client chooses.
    Signatures,
    /// RSA decryption and ECDH.
    Decryption,
    /// Opaque objects.
    Opaque,
    /// HMAC keys.
    Hmac,
    /// AES keys in ECB and CBC mode.
    Symmetric,
    /// Yubico OTP.
    Otp,
    /// Wrapping under AES-CCM keys.
    Wrap,
    /// Wrapping under RSA keys.
    RsaWrap,
    /// Attestation certificates.
    Attestation,
    /// The audit log and options.
    Audit,
}

/// Which keys an audit entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogKeys {
    /// Whether the payload begins with the target's id; 0 there stands for the id that the reply assigns.
    pub target: bool,
    /// Where in the payload a second id stands.
    pub second: Option<usize>,
    /// Where in the reply a second id stands.
    pub reply: Option<usize>,
}

const HEADER: usize = NewObject::LENGTH;
const HEADER_DELEGATED: usize = HEADER + 8;
const MAX: usize = MAX_INNER_PAYLOAD;
const RSA_WRAP_NAMES: usize = 2 + 1 + 2;

macro_rules! commands {
    (@need -) => { Requirement::Nothing };
    (@need delete) => { Requirement::DeleteOfType };
    (@need $a:ident) => { Requirement::Capability(Capability::$a) };
    (@need $a:ident + $b:ident) => { Requirement::Both(Capability::$a, Capability::$b) };
    (@keys -) => { LogKeys { target: false, second: None, reply: None } };
    (@keys first) => { LogKeys { target: true, second: None, reply: None } };
    (@keys first second($at:literal)) => { LogKeys { target: true, second: Some($at), reply: None } };
    (@keys first reply($at:literal)) => { LogKeys { target: true, second: None, reply: Some($at) } };
    ($($code:literal $name:ident $text:literal $family:ident $channel:ident [$($keys:tt)+]
        ($($need:tt)+) $min:expr, $max:expr;)*) => {
        /// A command of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command {
            $(#[doc = concat!("`", $text, "`, code ", stringify!($code))] $name = $code,)*
        }

        impl Command {
            /// Every command, by ascending code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The command with this code.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// The command's name in messages and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What a device must have been built with to know it.
            #[must_use]
            pub const fn family(self) -> Family {
                match self { $(Self::$name => Family::$family,)* }
            }

            /// Which keys an audit entry of it names.
            #[must_use]
            pub const fn log_keys(self) -> LogKeys {
                match self { $(Self::$name => commands!(@keys $($keys)+),)* }
            }

            /// Where it may be sent.
            #[must_use]
            pub const fn channel(self) -> Channel {
                match self { $(Self::$name => Channel::$channel,)* }
            }

            /// What it asks of the session.
            #[must_use]
            pub const fn requirement(self) -> Requirement {
                match self { $(Self::$name => commands!(@need $($need)+),)* }
            }

            /// Shortest and longest request payload, in bytes.
            #[must_use]
            pub const fn request_length(self) -> core::ops::RangeInclusive<usize> {
                match self { $(Self::$name => $min..=$max,)* }
            }
        }
    };
}

commands! {
    0x01 Echo "echo" Core Both [-] (-) 0, MAX_PAYLOAD;
    0x03 CreateSession "create session" Core Plain [first] (-) 2 + 8, 2 + 65;
    0x04 AuthenticateSession "authenticate session" Core Plain [-] (-) 1 + 8 + 8, 1 + 8 + 8;
    0x05 SessionMessage "session message" Core Plain [-] (-) 1 + 16 + 8, MAX_PAYLOAD;
    0x06 GetDeviceInfo "get device info" Core Both [-] (-) 0, 1;
    0x08 ResetDevice "reset device" Core Session [-] (ResetDevice) 0, 0;
    0x0a GetDevicePublicKey "get device public key" Core Plain [-] (-) 0, 0;
    0x40 CloseSession "close session" Core Session [-] (-) 0, 0;
    0x41 GetStorageInfo "get storage info" Core Session [-] (-) 0, 0;
    0x42 PutOpaque "put opaque" Opaque Session [first] (PutOpaque) HEADER + 1, MAX;
    0x43 GetOpaque "get opaque" Opaque Session [first] (GetOpaque) 2, 2;
    0x44 PutAuthenticationKey "put authentication key" Core Session [first] (PutAuthenticationKey)
        HEADER_DELEGATED + 32, HEADER_DELEGATED + 64;
    0x45 PutAsymmetricKey "put asymmetric key" Core Session [first] (PutAsymmetricKey) HEADER + 28, HEADER + 512;
    0x46 GenerateAsymmetricKey "generate asymmetric key" Core Session [first] (GenerateAsymmetricKey) HEADER, HEADER;
    0x47 SignPkcs1 "sign pkcs1" Signatures Session [first] (SignPkcs) 2 + 1, 2 + 512;
    0x48 ListObjects "list objects" Core Session [-] (-) 0, MAX;
    0x49 DecryptPkcs1 "decrypt pkcs1" Decryption Session [first] (DecryptPkcs) 2 + 256, 2 + 512;
    0x4a ExportWrapped "export wrapped" Wrap Session [first second(3)] (ExportWrapped) 5, 6;
    0x4b ImportWrapped "import wrapped" Wrap Session [first reply(1)] (ImportWrapped) 2 + 13 + 16, MAX;
    0x4c PutWrapKey "put wrap key" Wrap Session [first] (PutWrapKey) HEADER_DELEGATED + 16, HEADER_DELEGATED + 512;
    0x4d GetLogEntries "get log entries" Audit Session [-] (GetLogEntries) 0, 0;
    0x4e GetObjectInfo "get object info" Core Session [first] (-) 3, 3;
    0x4f SetOption "set option" Audit Session [-] (SetOption) 3, MAX;
    0x50 GetOption "get option" Audit Session [-] (GetOption) 1, 1;
    0x51 GetPseudoRandom "get pseudo random" Core Session [-] (GetPseudoRandom) 2, 2;
    0x52 PutHmacKey "put hmac key" Hmac Session [first] (PutMacKey) HEADER + 1, HEADER + 128;
    0x53 SignHmac "sign hmac" Hmac Session [first] (SignHmac) 2, MAX;
    0x54 GetPublicKey "get public key" Core Session [first] (-) 2, 3;
    0x55 SignPss "sign pss" Signatures Session [first] (SignPss) 2 + 1 + 2 + 20, 2 + 1 + 2 + 64;
    0x56 SignEcdsa "sign ecdsa" Signatures Session [first] (SignEcdsa) 2 + 20, 2 + 66;
    0x57 DeriveEcdh "derive ecdh" Decryption Session [first] (DeriveEcdh) 2 + 1 + 56, 2 + 1 + 132;
    0x58 DeleteObject "delete object" Core Session [first] (delete) 3, 3;
    0x59 DecryptOaep "decrypt oaep" Decryption Session [first] (DecryptOaep) 2 + 1 + 256 + 20, 2 + 1 + 512 + 64;
    0x5a GenerateHmacKey "generate hmac key" Hmac Session [first] (GenerateHmacKey) HEADER, HEADER;
    0x5b GenerateWrapKey "generate wrap key" Wrap Session [first] (GenerateWrapKey) HEADER_DELEGATED, HEADER_DELEGATED;
    0x5c VerifyHmac "verify hmac" Hmac Session [first] (VerifyHmac) 2 + 20, MAX;
    0x5d SignSshCertificate "sign ssh certificate" Ssh Session [first second(2)] (SignSshCertificate) 2 + 2 + 1 + 4 + 1, MAX;
    0x5e PutTemplate "put template" Ssh Session [first] (PutTemplate) HEADER + 1, MAX;
    0x5f GetTemplate "get template" Ssh Session [first] (GetTemplate) 2, 2;
    0x60 DecryptOtp "decrypt otp" Otp Session [first] (DecryptOtp) 2 + 36 + 16, 2 + 36 + 16;
    0x61 CreateOtpAead "create otp aead" Otp Session [first] (CreateOtpAead) 2 + 16 + 6, 2 + 16 + 6;
    0x62 RandomizeOtpAead "randomize otp aead" Otp Session [first] (RandomizeOtpAead) 2, 2;
    0x63 RewrapOtpAead "rewrap otp aead" Otp Session [first second(2)] (RewrapFromOtpAeadKey + RewrapToOtpAeadKey) 4 + 36, 4 + 36;
    0x64 SignAttestationCertificate "sign attestation certificate" Attestation Session [first second(2)] (SignAttestationCertificate) 4, 4;
    0x65 PutOtpAeadKey "put otp aead key" Otp Session [first] (PutOtpAeadKey) HEADER + 4 + 16, HEADER + 4 + 32;
    0x66 GenerateOtpAeadKey "generate otp aead key" Otp Session [first] (GenerateOtpAeadKey) HEADER + 4, HEADER + 4;
    0x67 SetLogIndex "set log index" Audit Session [-] (GetLogEntries) 2, 2;
    0x68 WrapData "wrap data" Wrap Session [first] (WrapData) 2 + 1, MAX;
    0x69 UnwrapData "unwrap data" Wrap Session [first] (UnwrapData) 2 + 13 + 1 + 1 + 16, MAX;
    0x6a SignEddsa "sign eddsa" Signatures Session [first] (SignEddsa) 2, MAX;
    0x6b BlinkDevice "blink device" Core Session [-] (-) 1, 1;
    0x6c ChangeAuthenticationKey "change authentication key" Core Session [first] (ChangeAuthenticationKey) 3 + 32, 3 + 64;
    0x6d PutSymmetricKey "put symmetric key" Symmetric Session [first] (PutSymmetricKey) HEADER + 16, HEADER + 32;
    0x6e GenerateSymmetricKey "generate symmetric key" Symmetric Session [first] (GenerateSymmetricKey) HEADER, HEADER;
    0x6f DecryptEcb "decrypt ecb" Symmetric Session [first] (DecryptEcb) 2 + 16, MAX;
    0x70 EncryptEcb "encrypt ecb" Symmetric Session [first] (EncryptEcb) 2 + 16, MAX;
    0x71 DecryptCbc "decrypt cbc" Symmetric Session [first] (DecryptCbc) 2 + 16 + 16, MAX;
    0x72 EncryptCbc "encrypt cbc" Symmetric Session [first] (EncryptCbc) 2 + 16 + 16, MAX;
    0x73 PutPublicWrapKey "put public wrap key" RsaWrap Session [first] (PutPublicWrapKey)
        HEADER_DELEGATED + 256, HEADER_DELEGATED + 512;
    0x74 GetRsaWrappedKey "get rsa wrapped key" RsaWrap Session [first second(3)] (ExportWrapped)
        RSA_WRAP_NAMES + 3 + 20, RSA_WRAP_NAMES + 3 + 64;
    0x75 PutRsaWrappedKey "put rsa wrapped key" RsaWrap Session [first reply(1)] (ImportWrapped)
        RSA_WRAP_NAMES + Label::LENGTH + 2 + 8 + 3 + 256 + 24 + 20, MAX;
    0x76 ExportRsaWrapped "export rsa wrapped" RsaWrap Session [first second(3)] (ExportWrapped)
        RSA_WRAP_NAMES + 3 + 20, RSA_WRAP_NAMES + 3 + 64;
    0x77 ImportRsaWrapped "import rsa wrapped" RsaWrap Session [first reply(1)] (ImportWrapped) 2 + 2 + 256 + 24 + 20, MAX;
    0x7b RestartDevice "restart device" Core Session [-] (ResetDevice) 0, 0;
    0x7c GetDeviceStatus "get device status" Core Session [-] (-) 0, 0;
    0x7d ExplainSshRequest "explain ssh request" Ssh Session [first second(2)] (SignSshCertificate) 2 + 2 + 1 + 4 + 1, MAX;
    0x7e StartBootLoader "start boot loader" Core Session [-] (ResetDevice) 0, 0;
}

impl Command {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it is one of ours, which YubiHSM 2 does not have.
    #[must_use]
    pub const fn is_extension(self) -> bool {
        matches!(
            self,
            Self::RestartDevice | Self::GetDeviceStatus | Self::ExplainSshRequest | Self::StartBootLoader
        )
    }
}

impl core::fmt::Display for Command {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_its_code_and_its_name() {
        assert_eq!(Command::PutTemplate.code(), 0x5e);
        assert_eq!(std::format!("{}", Command::PutTemplate), "put template");
        let ours: std::vec::Vec<_> = Command::ALL.iter().filter(|command| command.is_extension()).collect();
        assert_eq!(
            ours,
            [
                &Command::RestartDevice,
                &Command::GetDeviceStatus,
                &Command::ExplainSshRequest,
                &Command::StartBootLoader
            ]
        );
    }

    /// YubiHSM 2's header of a new object (docs/protocol.md, "Headers of new objects"), perhaps with delegated capabilities;
    /// and what names the keys of RSA wrapping.
    #[test]
    fn headers_have_their_length() {
        assert_eq!(Command::GenerateAsymmetricKey.request_length(), 53..=53);
        assert_eq!(Command::GenerateWrapKey.request_length(), 61..=61);
        assert_eq!(Command::ExportRsaWrapped.request_length(), 5 + 3 + 20..=5 + 3 + 64);
    }
}
