//! The command table: every command of the protocol, declared once.
//!
//! A row gives the code, the name, the family, the channel it is allowed on, the capability a session needs,
//! the [message](mod@crate::message) that is its payload, and the reply if that names keys. The lengths of
//! payloads and the keys that an audit entry names follow from the messages. Device, clients and tests all
//! read this table. The device implements what a command *does*; docs/protocol.md, "Commands" describes its
//! payload in words.

use crate::capability::Capability;
use crate::message::{self, Layout, reply};

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

/// The rights that a command requires of the session that sends it, before any object is looked up.
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

/// Groups of commands that a device has entirely or not at all, so that a small board can be built without
/// them.
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

/// Offsets in bytes of the ids that an audit entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogKeys {
    /// The target's id in the request; 0 there means the id that the reply assigns.
    pub target: Option<usize>,
    /// A second id in the request.
    pub second: Option<usize>,
    /// The id in the reply that is the target's if the request leaves it open.
    pub assigned: Option<usize>,
    /// The id in the reply that is the second.
    pub replied: Option<usize>,
}

impl LogKeys {
    const fn of(request: &Layout, reply: Option<&Layout>) -> Self {
        let (assigned, replied) = match reply {
            Some(reply) => (reply.target, reply.second),
            None => (None, None),
        };
        Self { target: request.target, second: request.second, assigned, replied }
    }
}

macro_rules! commands {
    (@need -) => { Requirement::Nothing };
    (@need delete) => { Requirement::DeleteOfType };
    (@need $a:ident) => { Requirement::Capability(Capability::$a) };
    (@need $a:ident + $b:ident) => { Requirement::Both(Capability::$a, Capability::$b) };
    (@reply) => { None };
    (@reply $reply:ident) => { Some(&reply::$reply::LAYOUT) };
    ($($code:literal $name:ident $text:literal $family:ident $channel:ident ($($need:tt)+)
        $message:ident $(-> $reply:ident)?;)*) => {
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

            /// The family that a device must be built with to know it.
            #[must_use]
            pub const fn family(self) -> Family {
                match self { $(Self::$name => Family::$family,)* }
            }

            /// Which keys an audit entry of it names.
            #[must_use]
            pub const fn log_keys(self) -> LogKeys {
                match self {
                    $(Self::$name => const {
                        LogKeys::of(&message::$message::LAYOUT, commands!(@reply $($reply)?))
                    },)*
                }
            }

            /// Where it may be sent.
            #[must_use]
            pub const fn channel(self) -> Channel {
                match self { $(Self::$name => Channel::$channel,)* }
            }

            /// The rights that it requires of the session.
            #[must_use]
            pub const fn requirement(self) -> Requirement {
                match self { $(Self::$name => commands!(@need $($need)+),)* }
            }

            /// Shortest and longest request payload, in bytes.
            #[must_use]
            pub const fn request_length(self) -> core::ops::RangeInclusive<usize> {
                let layout = match self { $(Self::$name => message::$message::LAYOUT,)* };
                layout.shortest..=layout.longest
            }

            /// Reads a payload as the command's message, and writes it again.
            #[cfg(test)]
            fn reencode(
                self,
                payload: &[u8],
                writer: &mut crate::codec::Writer<'_>,
            ) -> Result<usize, crate::codec::CodecError> {
                use crate::message::Message as _;
                match self {
                    $(Self::$name => {
                        let message = message::$message::decode(payload)?;
                        message.encode(writer)?;
                        Ok(message.length())
                    })*
                }
            }
        }
    };
}

commands! {
    0x01 Echo "echo" Core Both (-) Echo;
    0x03 CreateSession "create session" Core Plain (-) CreateSession;
    0x04 AuthenticateSession "authenticate session" Core Plain (-) AuthenticateSession;
    0x05 SessionMessage "session message" Core Plain (-) SessionMessage;
    0x06 GetDeviceInfo "get device info" Core Both (-) GetDeviceInfo;
    0x08 ResetDevice "reset device" Core Session (ResetDevice) Nothing;
    0x0a GetDevicePublicKey "get device public key" Core Plain (-) Nothing;
    0x40 CloseSession "close session" Core Session (-) Nothing;
    0x41 GetStorageInfo "get storage info" Core Session (-) Nothing;
    0x42 PutOpaque "put opaque" Opaque Session (PutOpaque) PutOpaque -> Created;
    0x43 GetOpaque "get opaque" Opaque Session (GetOpaque) Named;
    0x44 PutAuthenticationKey "put authentication key" Core Session (PutAuthenticationKey)
        PutAuthenticationKey -> Created;
    0x45 PutAsymmetricKey "put asymmetric key" Core Session (PutAsymmetricKey) PutAsymmetricKey -> Created;
    0x46 GenerateAsymmetricKey "generate asymmetric key" Core Session (GenerateAsymmetricKey)
        Generate -> Created;
    0x47 SignPkcs1 "sign pkcs1" Signatures Session (SignPkcs) SignPkcs1;
    0x48 ListObjects "list objects" Core Session (-) ListObjects;
    0x49 DecryptPkcs1 "decrypt pkcs1" Decryption Session (DecryptPkcs) DecryptPkcs1;
    0x4a ExportWrapped "export wrapped" Wrap Session (ExportWrapped) ExportWrapped;
    0x4b ImportWrapped "import wrapped" Wrap Session (ImportWrapped) ImportWrapped -> Imported;
    0x4c PutWrapKey "put wrap key" Wrap Session (PutWrapKey) PutWrapKey -> Created;
    0x4d GetLogEntries "get log entries" Audit Session (GetLogEntries) Nothing;
    0x4e GetObjectInfo "get object info" Core Session (-) ObjectName;
    0x4f SetOption "set option" Audit Session (SetOption) SetOption;
    0x50 GetOption "get option" Audit Session (GetOption) GetOption;
    0x51 GetPseudoRandom "get pseudo random" Core Session (GetPseudoRandom) GetPseudoRandom;
    0x52 PutHmacKey "put hmac key" Hmac Session (PutMacKey) PutHmacKey -> Created;
    0x53 SignHmac "sign hmac" Hmac Session (SignHmac) SignHmac;
    0x54 GetPublicKey "get public key" Core Session (-) GetPublicKey;
    0x55 SignPss "sign pss" Signatures Session (SignPss) SignPss;
    0x56 SignEcdsa "sign ecdsa" Signatures Session (SignEcdsa) SignEcdsa;
    0x57 DeriveEcdh "derive ecdh" Decryption Session (DeriveEcdh) DeriveEcdh;
    0x58 DeleteObject "delete object" Core Session (delete) ObjectName;
    0x59 DecryptOaep "decrypt oaep" Decryption Session (DecryptOaep) DecryptOaep;
    0x5a GenerateHmacKey "generate hmac key" Hmac Session (GenerateHmacKey) Generate -> Created;
    0x5b GenerateWrapKey "generate wrap key" Wrap Session (GenerateWrapKey) GenerateWrapKey -> Created;
    0x5c VerifyHmac "verify hmac" Hmac Session (VerifyHmac) VerifyHmac;
    0x5d SignSshCertificate "sign ssh certificate" Ssh Session (SignSshCertificate) SignSshCertificate;
    0x5e PutTemplate "put template" Ssh Session (PutTemplate) PutTemplate -> Created;
    0x5f GetTemplate "get template" Ssh Session (GetTemplate) Named;
    0x60 DecryptOtp "decrypt otp" Otp Session (DecryptOtp) DecryptOtp;
    0x61 CreateOtpAead "create otp aead" Otp Session (CreateOtpAead) CreateOtpAead;
    0x62 RandomizeOtpAead "randomize otp aead" Otp Session (RandomizeOtpAead) Named;
    0x63 RewrapOtpAead "rewrap otp aead" Otp Session (RewrapFromOtpAeadKey + RewrapToOtpAeadKey)
        RewrapOtpAead;
    0x64 SignAttestationCertificate "sign attestation certificate" Attestation Session (SignAttestationCertificate)
        SignAttestationCertificate;
    0x65 PutOtpAeadKey "put otp aead key" Otp Session (PutOtpAeadKey) PutOtpAeadKey -> Created;
    0x66 GenerateOtpAeadKey "generate otp aead key" Otp Session (GenerateOtpAeadKey)
        GenerateOtpAeadKey -> Created;
    0x67 SetLogIndex "set log index" Audit Session (GetLogEntries) SetLogIndex;
    0x68 WrapData "wrap data" Wrap Session (WrapData) WrapData;
    0x69 UnwrapData "unwrap data" Wrap Session (UnwrapData) UnwrapData;
    0x6a SignEddsa "sign eddsa" Signatures Session (SignEddsa) SignEddsa;
    0x6b BlinkDevice "blink device" Core Session (-) BlinkDevice;
    0x6c ChangeAuthenticationKey "change authentication key" Core Session (ChangeAuthenticationKey)
        ChangeAuthenticationKey -> Created;
    0x6d PutSymmetricKey "put symmetric key" Symmetric Session (PutSymmetricKey) PutSymmetricKey -> Created;
    0x6e GenerateSymmetricKey "generate symmetric key" Symmetric Session (GenerateSymmetricKey)
        Generate -> Created;
    0x6f DecryptEcb "decrypt ecb" Symmetric Session (DecryptEcb) Ecb;
    0x70 EncryptEcb "encrypt ecb" Symmetric Session (EncryptEcb) Ecb;
    0x71 DecryptCbc "decrypt cbc" Symmetric Session (DecryptCbc) Cbc;
    0x72 EncryptCbc "encrypt cbc" Symmetric Session (EncryptCbc) Cbc;
    0x73 PutPublicWrapKey "put public wrap key" RsaWrap Session (PutPublicWrapKey)
        PutPublicWrapKey -> Created;
    0x74 GetRsaWrappedKey "get rsa wrapped key" RsaWrap Session (ExportWrapped) RsaExport;
    0x75 PutRsaWrappedKey "put rsa wrapped key" RsaWrap Session (ImportWrapped) PutRsaWrappedKey -> Imported;
    0x76 ExportRsaWrapped "export rsa wrapped" RsaWrap Session (ExportWrapped) RsaExport;
    0x77 ImportRsaWrapped "import rsa wrapped" RsaWrap Session (ImportWrapped) ImportRsaWrapped -> Imported;
    0x7b RestartDevice "restart device" Core Session (ResetDevice) Nothing;
    0x7c GetDeviceStatus "get device status" Core Session (-) Nothing;
    0x7d ExplainSshRequest "explain ssh request" Ssh Session (SignSshCertificate) SignSshCertificate;
    0x7e StartBootLoader "start boot loader" Core Session (ResetDevice) Nothing;
}

impl Command {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it is an extension, which YubiHSM 2 does not have.
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
    use crate::codec::{CodecError, Writer};

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

    /// YubiHSM 2's header of a new object (docs/protocol.md, "Headers of new objects"), with and without
    /// delegated capabilities; and the part that names the keys of RSA wrapping.
    #[test]
    fn headers_have_their_length() {
        assert_eq!(Command::GenerateAsymmetricKey.request_length(), 53..=53);
        assert_eq!(Command::GenerateWrapKey.request_length(), 61..=61);
        assert_eq!(Command::ExportRsaWrapped.request_length(), 5 + 3 + 20..=5 + 3 + 64);
    }

    /// Every payload of a length that the table allows decodes as a message, no other does, and encoding
    /// gives the same bytes back.
    #[test]
    fn a_message_takes_the_lengths_of_its_command_and_no_others() {
        let payload: std::vec::Vec<u8> = (0..=u8::MAX).cycle().take(4000).collect();
        let mut buffer = [0; 4000];
        for &command in Command::ALL {
            for length in 0..payload.len() {
                let mut writer = Writer::new(&mut buffer);
                let payload = &payload[..length];
                match command.reencode(payload, &mut writer) {
                    Ok(written) => {
                        assert!(command.request_length().contains(&length), "{command} {length}");
                        assert_eq!((writer.written(), written), (payload, length), "{command}");
                    }
                    Err(CodecError::Truncated { .. }) => {
                        assert!(length < *command.request_length().start(), "{command} {length}");
                    }
                    Err(CodecError::Trailing { .. }) => {
                        assert!(length > *command.request_length().end(), "{command} {length}");
                    }
                    Err(error) => panic!("{command} {length}: {error}"),
                }
            }
        }
    }
}
