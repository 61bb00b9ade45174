//! Capabilities: the rights of a session or an object, and those that a session may give to objects.

macro_rules! capabilities {
    ($($bit:literal $name:ident $text:literal,)*) => {
        /// One right, by its bit number (YubiHSM 2's numbering).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Capability {
            $(#[doc = concat!("`", $text, "`, bit ", stringify!($bit))] $name = $bit,)*
        }

        impl Capability {
            /// Every defined capability, by ascending bit.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that YubiHSM's tools use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

capabilities! {
    0x00 GetOpaque "get-opaque",
    0x01 PutOpaque "put-opaque",
    0x02 PutAuthenticationKey "put-authentication-key",
    0x03 PutAsymmetricKey "put-asymmetric-key",
    0x04 GenerateAsymmetricKey "generate-asymmetric-key",
    0x05 SignPkcs "sign-pkcs",
    0x06 SignPss "sign-pss",
    0x07 SignEcdsa "sign-ecdsa",
    0x08 SignEddsa "sign-eddsa",
    0x09 DecryptPkcs "decrypt-pkcs",
    0x0a DecryptOaep "decrypt-oaep",
    0x0b DeriveEcdh "derive-ecdh",
    0x0c ExportWrapped "export-wrapped",
    0x0d ImportWrapped "import-wrapped",
    0x0e PutWrapKey "put-wrap-key",
    0x0f GenerateWrapKey "generate-wrap-key",
    0x10 ExportableUnderWrap "exportable-under-wrap",
    0x11 SetOption "set-option",
    0x12 GetOption "get-option",
    0x13 GetPseudoRandom "get-pseudo-random",
    0x14 PutMacKey "put-mac-key",
    0x15 GenerateHmacKey "generate-hmac-key",
    0x16 SignHmac "sign-hmac",
    0x17 VerifyHmac "verify-hmac",
    0x18 GetLogEntries "get-log-entries",
    0x19 SignSshCertificate "sign-ssh-certificate",
    0x1a GetTemplate "get-template",
    0x1b PutTemplate "put-template",
    0x1c ResetDevice "reset-device",
    0x1d DecryptOtp "decrypt-otp",
    0x1e CreateOtpAead "create-otp-aead",
    0x1f RandomizeOtpAead "randomize-otp-aead",
    0x20 RewrapFromOtpAeadKey "rewrap-from-otp-aead-key",
    0x21 RewrapToOtpAeadKey "rewrap-to-otp-aead-key",
    0x22 SignAttestationCertificate "sign-attestation-certificate",
    0x23 PutOtpAeadKey "put-otp-aead-key",
    0x24 GenerateOtpAeadKey "generate-otp-aead-key",
    0x25 WrapData "wrap-data",
    0x26 UnwrapData "unwrap-data",
    0x27 DeleteOpaque "delete-opaque",
    0x28 DeleteAuthenticationKey "delete-authentication-key",
    0x29 DeleteAsymmetricKey "delete-asymmetric-key",
    0x2a DeleteWrapKey "delete-wrap-key",
    0x2b DeleteHmacKey "delete-hmac-key",
    0x2c DeleteTemplate "delete-template",
    0x2d DeleteOtpAeadKey "delete-otp-aead-key",
    0x2e ChangeAuthenticationKey "change-authentication-key",
    0x2f PutSymmetricKey "put-symmetric-key",
    0x30 GenerateSymmetricKey "generate-symmetric-key",
    0x31 DeleteSymmetricKey "delete-symmetric-key",
    0x32 DecryptEcb "decrypt-ecb",
    0x33 EncryptEcb "encrypt-ecb",
    0x34 DecryptCbc "decrypt-cbc",
    0x35 EncryptCbc "encrypt-cbc",
    0x36 PutPublicWrapKey "put-public-wrap-key",
    0x37 DeletePublicWrapKey "delete-public-wrap-key",
}

impl Capability {
    /// The capability with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|capability| capability.name() == name)
    }
}

impl core::fmt::Display for Capability {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of capabilities; bits without a meaning are kept as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// All 64 bits, defined or not, as the default authentication key has them.
    pub const ALL: Self = Self(u64::MAX);

    /// The set of these capabilities.
    #[must_use]
    pub const fn of(capabilities: &[Capability]) -> Self {
        let mut bits = 0;
        let mut rest = capabilities;
        while let [first, tail @ ..] = rest {
            bits |= 1 << *first as u8;
            rest = tail;
        }
        Self(bits)
    }

    /// From the wire's eight bytes, read as a big-endian integer.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The wire's integer.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the capability is in the set.
    #[must_use]
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// Whether the sets have a capability in common.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every capability of this set, undefined bits included, is in `other`.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Everything in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The defined capabilities in the set, by ascending bit.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.iter().copied().filter(move |&capability| self.contains(capability))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::{DeletePublicWrapKey, GetOpaque, PutAuthenticationKey};

    #[test]
    fn every_capability_has_its_name() {
        for &capability in Capability::ALL {
            assert_eq!(Capability::from_name(capability.name()), Some(capability));
            assert_eq!(std::format!("{capability}"), capability.name());
        }
        assert_eq!(Capability::from_name("get-nothing"), None);
    }

    #[test]
    fn a_set_is_the_bits_of_its_capabilities() {
        let set = Capabilities::of(&[DeletePublicWrapKey, GetOpaque, PutAuthenticationKey]);
        assert_eq!(set.bits(), 1 << 0x37 | 1 | 1 << 2);
        assert_eq!(set, Capabilities::from_bits(set.bits()));
        assert!(set.iter().eq([GetOpaque, PutAuthenticationKey, DeletePublicWrapKey]));
        for &capability in Capability::ALL {
            let inside = [GetOpaque, PutAuthenticationKey, DeletePublicWrapKey].contains(&capability);
            assert_eq!(set.contains(capability), inside, "{capability}");
        }
        assert!(Capabilities::NONE.iter().next().is_none());
    }

    #[test]
    fn undefined_bits_count_among_sets() {
        let set = |bits| Capabilities::from_bits(bits);
        let undefined = 1 << 63;
        assert!(set(0b0101).is_subset_of(set(0b1101)) && set(0b0101).is_subset_of(set(0b0101)));
        assert!(!set(0b0101).is_subset_of(set(0b0100)) && !set(undefined).is_subset_of(set(0b0101)));
        assert!(Capabilities::NONE.is_subset_of(Capabilities::NONE));
        assert_eq!(set(0b0101).union(set(0b0110 | undefined)), set(0b0111 | undefined));
        assert!(set(0b0101).intersects(set(0b0110)) && set(undefined).intersects(set(undefined)));
        assert!(!set(0b0101).intersects(set(0b1010)) && !set(0b0101).intersects(Capabilities::NONE));
    }
}
