//! The command table: every command of the protocol, declared once.
//!
//! A row gives the code, the name, the channel it is legal on, the capability a session needs, and the
//! shortest and longest request payload in bytes. Device, clients and tests all read this table; what a
//! command *does* is in the device.

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

const HEADER: usize = NewObject::LENGTH;
const HEADER_DELEGATED: usize = HEADER + 8;
const MAX: usize = MAX_INNER_PAYLOAD;
const RSA_WRAP_NAMES: usize = 2 + 1 + 2;

macro_rules! commands {
    (@need -) => { Requirement::Nothing };
    (@need delete) => { Requirement::DeleteOfType };
    (@need $a:ident) => { Requirement::Capability(Capability::$a) };
    (@need $a:ident + $b:ident) => { Requirement::Both(Capability::$a, Capability::$b) };
    ($($code:literal $name:ident $text:literal $channel:ident ($($need:tt)+) $min:expr, $max:expr;)*) => {
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
    0x01 Echo "echo" Both (-) 0, MAX_PAYLOAD;
    0x03 CreateSession "create session" Plain (-) 2 + 8, 2 + 65;
    0x04 AuthenticateSession "authenticate session" Plain (-) 1 + 8 + 8, 1 + 8 + 8;
    0x05 SessionMessage "session message" Plain (-) 1 + 16 + 8, MAX_PAYLOAD;
    0x06 GetDeviceInfo "get device info" Both (-) 0, 1;
    0x08 ResetDevice "reset device" Session (ResetDevice) 0, 0;
    0x0a GetDevicePublicKey "get device public key" Plain (-) 0, 0;
    0x40 CloseSession "close session" Session (-) 0, 0;
    0x41 GetStorageInfo "get storage info" Session (-) 0, 0;
    0x42 PutOpaque "put opaque" Session (PutOpaque) HEADER + 1, MAX;
    0x43 GetOpaque "get opaque" Session (GetOpaque) 2, 2;
    0x44 PutAuthenticationKey "put authentication key" Session (PutAuthenticationKey)
        HEADER_DELEGATED + 32, HEADER_DELEGATED + 64;
    0x45 PutAsymmetricKey "put asymmetric key" Session (PutAsymmetricKey) HEADER + 28, HEADER + 512;
    0x46 GenerateAsymmetricKey "generate asymmetric key" Session (GenerateAsymmetricKey) HEADER, HEADER;
    0x47 SignPkcs1 "sign pkcs1" Session (SignPkcs) 2 + 1, 2 + 512;
    0x48 ListObjects "list objects" Session (-) 0, MAX;
    0x49 DecryptPkcs1 "decrypt pkcs1" Session (DecryptPkcs) 2 + 256, 2 + 512;
    0x4a ExportWrapped "export wrapped" Session (ExportWrapped) 5, 6;
    0x4b ImportWrapped "import wrapped" Session (ImportWrapped) 2 + 13 + 16, MAX;
    0x4c PutWrapKey "put wrap key" Session (PutWrapKey) HEADER_DELEGATED + 16, HEADER_DELEGATED + 512;
    0x4d GetLogEntries "get log entries" Session (GetLogEntries) 0, 0;
    0x4e GetObjectInfo "get object info" Session (-) 3, 3;
    0x4f SetOption "set option" Session (SetOption) 3, MAX;
    0x50 GetOption "get option" Session (GetOption) 1, 1;
    0x51 GetPseudoRandom "get pseudo random" Session (GetPseudoRandom) 2, 2;
    0x52 PutHmacKey "put hmac key" Session (PutMacKey) HEADER + 1, HEADER + 128;
    0x53 SignHmac "sign hmac" Session (SignHmac) 2, MAX;
    0x54 GetPublicKey "get public key" Session (-) 2, 3;
    0x55 SignPss "sign pss" Session (SignPss) 2 + 1 + 2 + 20, 2 + 1 + 2 + 64;
    0x56 SignEcdsa "sign ecdsa" Session (SignEcdsa) 2 + 20, 2 + 66;
    0x57 DeriveEcdh "derive ecdh" Session (DeriveEcdh) 2 + 1 + 56, 2 + 1 + 132;
    0x58 DeleteObject "delete object" Session (delete) 3, 3;
    0x59 DecryptOaep "decrypt oaep" Session (DecryptOaep) 2 + 1 + 256 + 20, 2 + 1 + 512 + 64;
    0x5a GenerateHmacKey "generate hmac key" Session (GenerateHmacKey) HEADER, HEADER;
    0x5b GenerateWrapKey "generate wrap key" Session (GenerateWrapKey) HEADER_DELEGATED, HEADER_DELEGATED;
    0x5c VerifyHmac "verify hmac" Session (VerifyHmac) 2 + 20, MAX;
    0x5d SignSshCertificate "sign ssh certificate" Session (SignSshCertificate) 2 + 2 + 1 + 4 + 1, MAX;
    0x5e PutTemplate "put template" Session (PutTemplate) HEADER + 1, MAX;
    0x5f GetTemplate "get template" Session (GetTemplate) 2, 2;
    0x60 DecryptOtp "decrypt otp" Session (DecryptOtp) 2 + 36 + 16, 2 + 36 + 16;
    0x61 CreateOtpAead "create otp aead" Session (CreateOtpAead) 2 + 16 + 6, 2 + 16 + 6;
    0x62 RandomizeOtpAead "randomize otp aead" Session (RandomizeOtpAead) 2, 2;
    0x63 RewrapOtpAead "rewrap otp aead" Session (RewrapFromOtpAeadKey + RewrapToOtpAeadKey) 4 + 36, 4 + 36;
    0x64 SignAttestationCertificate "sign attestation certificate" Session (SignAttestationCertificate) 4, 4;
    0x65 PutOtpAeadKey "put otp aead key" Session (PutOtpAeadKey) HEADER + 4 + 16, HEADER + 4 + 32;
    0x66 GenerateOtpAeadKey "generate otp aead key" Session (GenerateOtpAeadKey) HEADER + 4, HEADER + 4;
    0x67 SetLogIndex "set log index" Session (GetLogEntries) 2, 2;
    0x68 WrapData "wrap data" Session (WrapData) 2 + 1, MAX;
    0x69 UnwrapData "unwrap data" Session (UnwrapData) 2 + 13 + 1 + 1 + 16, MAX;
    0x6a SignEddsa "sign eddsa" Session (SignEddsa) 2, MAX;
    0x6b BlinkDevice "blink device" Session (-) 1, 1;
    0x6c ChangeAuthenticationKey "change authentication key" Session (ChangeAuthenticationKey) 3 + 32, 3 + 64;
    0x6d PutSymmetricKey "put symmetric key" Session (PutSymmetricKey) HEADER + 16, HEADER + 32;
    0x6e GenerateSymmetricKey "generate symmetric key" Session (GenerateSymmetricKey) HEADER, HEADER;
    0x6f DecryptEcb "decrypt ecb" Session (DecryptEcb) 2 + 16, MAX;
    0x70 EncryptEcb "encrypt ecb" Session (EncryptEcb) 2 + 16, MAX;
    0x71 DecryptCbc "decrypt cbc" Session (DecryptCbc) 2 + 16 + 16, MAX;
    0x72 EncryptCbc "encrypt cbc" Session (EncryptCbc) 2 + 16 + 16, MAX;
    0x73 PutPublicWrapKey "put public wrap key" Session (PutPublicWrapKey)
        HEADER_DELEGATED + 256, HEADER_DELEGATED + 512;
    0x74 GetRsaWrappedKey "get rsa wrapped key" Session (ExportWrapped)
        RSA_WRAP_NAMES + 3 + 20, RSA_WRAP_NAMES + 3 + 64;
    0x75 PutRsaWrappedKey "put rsa wrapped key" Session (ImportWrapped)
        RSA_WRAP_NAMES + Label::LENGTH + 2 + 8 + 3 + 256 + 24 + 20, MAX;
    0x76 ExportRsaWrapped "export rsa wrapped" Session (ExportWrapped)
        RSA_WRAP_NAMES + 3 + 20, RSA_WRAP_NAMES + 3 + 64;
    0x77 ImportRsaWrapped "import rsa wrapped" Session (ImportWrapped) 2 + 2 + 256 + 24 + 20, MAX;
}

impl Command {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl core::fmt::Display for Command {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
