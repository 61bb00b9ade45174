//! Algorithm numbers, and the key lengths of the asymmetric algorithms.

macro_rules! algorithms {
    ($($code:literal $name:ident $text:literal,)*) => {
        /// An algorithm number (YubiHSM 2's numbering).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Algorithm {
            $(#[doc = concat!("`", $text, "`, number ", stringify!($code))] $name = $code,)*
        }

        impl Algorithm {
            /// Every algorithm, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name that YubiHSM's tools use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The algorithm with this number, if one is defined.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

algorithms! {
    1 RsaPkcs1Sha1 "rsa-pkcs1-sha1",
    2 RsaPkcs1Sha256 "rsa-pkcs1-sha256",
    3 RsaPkcs1Sha384 "rsa-pkcs1-sha384",
    4 RsaPkcs1Sha512 "rsa-pkcs1-sha512",
    5 RsaPssSha1 "rsa-pss-sha1",
    6 RsaPssSha256 "rsa-pss-sha256",
    7 RsaPssSha384 "rsa-pss-sha384",
    8 RsaPssSha512 "rsa-pss-sha512",
    9 Rsa2048 "rsa2048",
    10 Rsa3072 "rsa3072",
    11 Rsa4096 "rsa4096",
    12 Ecp256 "ecp256",
    13 Ecp384 "ecp384",
    14 Ecp521 "ecp521",
    15 Eck256 "eck256",
    16 Ecbp256 "ecbp256",
    17 Ecbp384 "ecbp384",
    18 Ecbp512 "ecbp512",
    19 HmacSha1 "hmac-sha1",
    20 HmacSha256 "hmac-sha256",
    21 HmacSha384 "hmac-sha384",
    22 HmacSha512 "hmac-sha512",
    23 EcdsaSha1 "ecdsa-sha1",
    24 Ecdh "ecdh",
    25 RsaOaepSha1 "rsa-oaep-sha1",
    26 RsaOaepSha256 "rsa-oaep-sha256",
    27 RsaOaepSha384 "rsa-oaep-sha384",
    28 RsaOaepSha512 "rsa-oaep-sha512",
    29 Aes128CcmWrap "aes128-ccm-wrap",
    30 OpaqueData "opaque-data",
    31 OpaqueX509Certificate "opaque-x509-certificate",
    32 Mgf1Sha1 "mgf1-sha1",
    33 Mgf1Sha256 "mgf1-sha256",
    34 Mgf1Sha384 "mgf1-sha384",
    35 Mgf1Sha512 "mgf1-sha512",
    36 TemplateSsh "template-ssh",
    37 Aes128YubicoOtp "aes128-yubico-otp",
    38 Aes128YubicoAuthentication "aes128-yubico-authentication",
    39 Aes192YubicoOtp "aes192-yubico-otp",
    40 Aes256YubicoOtp "aes256-yubico-otp",
    41 Aes192CcmWrap "aes192-ccm-wrap",
    42 Aes256CcmWrap "aes256-ccm-wrap",
    43 EcdsaSha256 "ecdsa-sha256",
    44 EcdsaSha384 "ecdsa-sha384",
    45 EcdsaSha512 "ecdsa-sha512",
    46 Ed25519 "ed25519",
    47 Ecp224 "ecp224",
    48 RsaPkcs1Decrypt "rsa-pkcs1-decrypt",
    49 Ecp256YubicoAuthentication "ecp256-yubico-authentication",
    50 Aes128 "aes128",
    51 Aes192 "aes192",
    52 Aes256 "aes256",
    53 AesEcb "aes-ecb",
    54 AesCbc "aes-cbc",
    55 AesKwp "aes-kwp",
}

impl Algorithm {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The algorithm with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }
}

impl core::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A curve that asymmetric keys are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp224r1
    P224,
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// secp521r1
    P521,
    /// secp256k1
    K256,
    /// brainpoolP256r1
    Bp256,
    /// brainpoolP384r1
    Bp384,
    /// brainpoolP512r1
    Bp512,
}

impl Curve {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::P224, Self::P256, Self::P384, Self::P521, Self::K256, Self::Bp256, Self::Bp384, Self::Bp512];

    /// Bytes of one coordinate or scalar.
    #[must_use]
    pub const fn coordinate_length(self) -> usize {
        match self {
            Self::P224 => 28,
            Self::P256 | Self::K256 | Self::Bp256 => 32,
            Self::P384 | Self::Bp384 => 48,
            Self::Bp512 => 64,
            Self::P521 => 66,
        }
    }

    /// Bits of the order, and so of a scalar.
    #[must_use]
    pub const fn order_bits(self) -> usize {
        match self {
            Self::P521 => 521,
            _ => 8 * self.coordinate_length(),
        }
    }
}

/// The type of an asymmetric key.
///
/// SSH has names only for RSA, Ed25519 and the curves P-256, P-384 and P-521: see
/// [`SignatureAlgorithm`](crate::ssh::signature::SignatureAlgorithm).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsymmetricAlgorithm {
    /// RSA, modulus of 2048 bits, public exponent 65537.
    Rsa2048,
    /// RSA, modulus of 3072 bits, public exponent 65537.
    Rsa3072,
    /// RSA, modulus of 4096 bits, public exponent 65537.
    Rsa4096,
    /// ECDSA or ECDH on a curve.
    Ec(Curve),
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl AsymmetricAlgorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ec(Curve::P224),
        Self::Ec(Curve::P256),
        Self::Ec(Curve::P384),
        Self::Ec(Curve::P521),
        Self::Ec(Curve::K256),
        Self::Ec(Curve::Bp256),
        Self::Ec(Curve::Bp384),
        Self::Ec(Curve::Bp512),
        Self::Ed25519,
    ];

    /// The asymmetric key algorithm with this number; `None` for any other kind of algorithm.
    #[must_use]
    pub const fn from_algorithm(algorithm: Algorithm) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Rsa2048 => Self::Rsa2048,
            Algorithm::Rsa3072 => Self::Rsa3072,
            Algorithm::Rsa4096 => Self::Rsa4096,
            Algorithm::Ecp224 => Self::Ec(Curve::P224),
            Algorithm::Ecp256 => Self::Ec(Curve::P256),
            Algorithm::Ecp384 => Self::Ec(Curve::P384),
            Algorithm::Ecp521 => Self::Ec(Curve::P521),
            Algorithm::Eck256 => Self::Ec(Curve::K256),
            Algorithm::Ecbp256 => Self::Ec(Curve::Bp256),
            Algorithm::Ecbp384 => Self::Ec(Curve::Bp384),
            Algorithm::Ecbp512 => Self::Ec(Curve::Bp512),
            Algorithm::Ed25519 => Self::Ed25519,
            _ => return None,
        })
    }

    /// The number on the wire.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rsa2048 => Algorithm::Rsa2048,
            Self::Rsa3072 => Algorithm::Rsa3072,
            Self::Rsa4096 => Algorithm::Rsa4096,
            Self::Ec(Curve::P224) => Algorithm::Ecp224,
            Self::Ec(Curve::P256) => Algorithm::Ecp256,
            Self::Ec(Curve::P384) => Algorithm::Ecp384,
            Self::Ec(Curve::P521) => Algorithm::Ecp521,
            Self::Ec(Curve::K256) => Algorithm::Eck256,
            Self::Ec(Curve::Bp256) => Algorithm::Ecbp256,
            Self::Ec(Curve::Bp384) => Algorithm::Ecbp384,
            Self::Ec(Curve::Bp512) => Algorithm::Ecbp512,
            Self::Ed25519 => Algorithm::Ed25519,
        }
    }

    /// Bytes of an RSA modulus; `None` for other keys.
    #[must_use]
    pub const fn modulus_length(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(256),
            Self::Rsa3072 => Some(384),
            Self::Rsa4096 => Some(512),
            Self::Ec(_) | Self::Ed25519 => None,
        }
    }

    /// Bytes of the raw public key: RSA modulus, `X‖Y`, or the 32 bytes of Ed25519.
    #[must_use]
    pub const fn public_length(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::Ec(curve) => 2 * curve.coordinate_length(),
            Self::Ed25519 => 32,
        }
    }

    /// Bytes of a private key in PUT ASYMMETRIC KEY: RSA `p‖q`, EC scalar, Ed25519 seed.
    #[must_use]
    pub const fn private_length(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::Ec(curve) => curve.coordinate_length(),
            Self::Ed25519 => 32,
        }
    }

    /// Bytes of a fixed-length signature: RSA modulus length, `r‖s`, or the 64 bytes of Ed25519.
    #[must_use]
    pub const fn signature_length(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::Ec(curve) => 2 * curve.coordinate_length(),
            Self::Ed25519 => 64,
        }
    }

    /// Bytes of the stored key as GET OBJECT INFO reports it: RSA `p‖q‖dp‖dq‖qinv‖n`, EC `d‖X‖Y`, Ed25519
    /// `scalar‖prefix‖public key‖seed`.
    #[must_use]
    pub const fn object_length(self) -> usize {
        match self {
            Self::Rsa2048 => 896,
            Self::Rsa3072 => 1344,
            Self::Rsa4096 => 1792,
            Self::Ec(curve) => 3 * curve.coordinate_length(),
            Self::Ed25519 => 128,
        }
    }
}

impl core::fmt::Display for AsymmetricAlgorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.algorithm().name())
    }
}
