//! Commands about the device as a whole.

use core::time::Duration;

use rand_core::Rng as _;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::device_info::{DeviceInfo, Version};
use sshsm_protocol::device_status::DeviceStatus;
use sshsm_protocol::message::{BlinkDevice, Echo, GetDeviceInfo, GetPseudoRandom, Nothing};
use sshsm_protocol::{Algorithm, Command, DeviceError};

use super::Core;
use crate::audit::{self, AuditLog};
use crate::device::insert_defaults;
use crate::options::Options;
use crate::platform::{Description, Indication, Platform};
use crate::presence;
use crate::session::{Caller, Census};

/// The YubiHSM 2 firmware whose messages this device speaks: 3136-byte messages, a second page of device info.
pub(crate) const VERSION: Version = Version::LARGE_MESSAGES;
/// Page 1 of device info: the part number, NUL-terminated as the hardware's.
const PART_NUMBER: &[u8] = b"sshsm\0";
/// What this device can do, ascending; no algorithm is named that no command uses.
const ALGORITHMS: &[u8] = &[
    Algorithm::RsaPkcs1Sha1.code(),
    Algorithm::RsaPkcs1Sha256.code(),
    Algorithm::RsaPkcs1Sha384.code(),
    Algorithm::RsaPkcs1Sha512.code(),
    #[cfg(feature = "signatures")]
    Algorithm::RsaPssSha1.code(),
    #[cfg(feature = "signatures")]
    Algorithm::RsaPssSha256.code(),
    #[cfg(feature = "signatures")]
    Algorithm::RsaPssSha384.code(),
    #[cfg(feature = "signatures")]
    Algorithm::RsaPssSha512.code(),
    Algorithm::Rsa2048.code(),
    Algorithm::Rsa3072.code(),
    Algorithm::Rsa4096.code(),
    Algorithm::Ecp256.code(),
    Algorithm::Ecp384.code(),
    Algorithm::Ecp521.code(),
    #[cfg(feature = "curves")]
    Algorithm::Eck256.code(),
    #[cfg(feature = "curves")]
    Algorithm::Ecbp256.code(),
    #[cfg(feature = "curves")]
    Algorithm::Ecbp384.code(),
    #[cfg(feature = "curves")]
    Algorithm::Ecbp512.code(),
    #[cfg(feature = "hmac")]
    Algorithm::HmacSha1.code(),
    #[cfg(feature = "hmac")]
    Algorithm::HmacSha256.code(),
    #[cfg(feature = "hmac")]
    Algorithm::HmacSha384.code(),
    #[cfg(feature = "hmac")]
    Algorithm::HmacSha512.code(),
    Algorithm::EcdsaSha1.code(),
    #[cfg(feature = "decryption")]
    Algorithm::Ecdh.code(),
    #[cfg(feature = "decryption")]
    Algorithm::RsaOaepSha1.code(),
    #[cfg(feature = "decryption")]
    Algorithm::RsaOaepSha256.code(),
    #[cfg(feature = "decryption")]
    Algorithm::RsaOaepSha384.code(),
    #[cfg(feature = "decryption")]
    Algorithm::RsaOaepSha512.code(),
    #[cfg(feature = "wrap")]
    Algorithm::Aes128CcmWrap.code(),
    #[cfg(feature = "opaque")]
    Algorithm::OpaqueData.code(),
    #[cfg(feature = "opaque")]
    Algorithm::OpaqueX509Certificate.code(),
    #[cfg(any(feature = "signatures", feature = "decryption"))]
    Algorithm::Mgf1Sha1.code(),
    #[cfg(any(feature = "signatures", feature = "decryption"))]
    Algorithm::Mgf1Sha256.code(),
    #[cfg(any(feature = "signatures", feature = "decryption"))]
    Algorithm::Mgf1Sha384.code(),
    #[cfg(any(feature = "signatures", feature = "decryption"))]
    Algorithm::Mgf1Sha512.code(),
    Algorithm::TemplateSsh.code(),
    #[cfg(feature = "otp")]
    Algorithm::Aes128YubicoOtp.code(),
    Algorithm::Aes128YubicoAuthentication.code(),
    #[cfg(feature = "otp")]
    Algorithm::Aes192YubicoOtp.code(),
    #[cfg(feature = "otp")]
    Algorithm::Aes256YubicoOtp.code(),
    #[cfg(feature = "wrap")]
    Algorithm::Aes192CcmWrap.code(),
    #[cfg(feature = "wrap")]
    Algorithm::Aes256CcmWrap.code(),
    Algorithm::EcdsaSha256.code(),
    Algorithm::EcdsaSha384.code(),
    Algorithm::EcdsaSha512.code(),
    Algorithm::Ed25519.code(),
    #[cfg(feature = "curves")]
    Algorithm::Ecp224.code(),
    #[cfg(feature = "decryption")]
    Algorithm::RsaPkcs1Decrypt.code(),
    Algorithm::Ecp256YubicoAuthentication.code(),
    #[cfg(feature = "symmetric")]
    Algorithm::Aes128.code(),
    #[cfg(feature = "symmetric")]
    Algorithm::Aes192.code(),
    #[cfg(feature = "symmetric")]
    Algorithm::Aes256.code(),
    #[cfg(feature = "symmetric")]
    Algorithm::AesEcb.code(),
    #[cfg(feature = "symmetric")]
    Algorithm::AesCbc.code(),
    #[cfg(feature = "rsa-wrap")]
    Algorithm::AesKwp.code(),
];

/// What this device can do, ascending.
#[cfg_attr(not(feature = "audit"), allow(dead_code))]
pub(crate) fn algorithms() -> impl Iterator<Item = Algorithm> {
    ALGORITHMS.iter().copied().filter_map(Algorithm::from_code)
}

/// ECHO: returns the payload.
pub(crate) fn echo(Echo { data }: Echo<'_>, writer: &mut Writer<'_>) -> Result<(), DeviceError> {
    Ok(writer.bytes(data)?)
}

/// GET DEVICE INFO: empty or page 0, the device; page 1, the part number.
pub(crate) fn info<P: Platform>(
    core: &mut Core<P>,
    GetDeviceInfo { page }: GetDeviceInfo<'_>,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    match page {
        [] | [0] => {
            let info = DeviceInfo {
                version: VERSION,
                serial: core.platform.serial(),
                log_total: audit::CAPACITY,
                log_used: core.log.used(),
                algorithms: ALGORITHMS,
            };
            Ok(info.encode(writer)?)
        }
        [1] => Ok(writer.bytes(PART_NUMBER)?),
        _ => Err(DeviceError::InvalidData),
    }
}

/// RESET DEVICE: everything is erased, and the device is as new.
pub(crate) fn reset<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    _: Nothing,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    presence::confirm(&mut core.platform, core.options.presence(), Command::ResetDevice)?;
    #[cfg(feature = "private-keys")]
    core.loaded.clear();
    let (options, mut log) = (Options::DEFAULT, AuditLog::EMPTY);
    let now = core.platform.uptime();
    core.store.reset(|store| {
        insert_defaults(store, core.platform.entropy())?;
        log.boot(store, &options, core.platform.entropy(), now)
    })?;
    (core.options, core.log) = (options, log);
    Ok(())
}

/// CLOSE SESSION: the session ends once this is answered.
pub(crate) fn close_session<P: Platform>(
    _: &mut Core<P>,
    _: &Caller,
    _: Nothing,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    Ok(())
}

/// GET STORAGE INFO.
pub(crate) fn storage_info<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    _: Nothing,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    Ok(core.store.storage_info().encode(writer)?)
}

/// GET PSEUDO RANDOM: `length u16`; as many random bytes.
pub(crate) fn pseudo_random<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    GetPseudoRandom { length }: GetPseudoRandom,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let room = writer.reserve(length.into())?;
    core.platform.entropy().fill_bytes(room);
    Ok(())
}

/// GET DEVICE STATUS: [`DeviceStatus`].
pub(crate) fn status<P: Platform>(
    core: &mut Core<P>,
    sessions: Census,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let Description { board, image, button, boot_loader } = core.platform.describe();
    let status = DeviceStatus {
        firmware: crate::VERSION,
        button,
        boot_loader,
        templates_frozen: core.options.templates_frozen(),
        sessions: sessions.established,
        half_open: sessions.half_open,
        force_audit: core.options.force_audit_mode(),
        presence: core.options.presence(),
        image,
        board,
        log: Some(core.log.newest()),
    };
    Ok(status.encode(writer)?)
}

/// RESTART DEVICE: sessions end, objects stay. It happens once this is answered.
pub(crate) fn restart<P: Platform>(
    _: &mut Core<P>,
    _: &Caller,
    _: Nothing,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    Ok(())
}

/// START BOOT LOADER, which may expose the whole flash to the computer at the other end of the cable: only
/// after a touch, whatever the options say. The boot loader starts once this has been answered.
pub(crate) fn start_boot_loader<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    _: Nothing,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    if !core.platform.describe().boot_loader {
        return Err(DeviceError::NoBootLoader);
    }
    presence::insist(&mut core.platform, core.options.presence())
}

/// BLINK DEVICE: `seconds u8`.
pub(crate) fn blink<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    BlinkDevice { seconds }: BlinkDevice,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let duration = Duration::from_secs(seconds.into());
    core.platform.indicate(Indication::Blink { duration });
    Ok(())
}
