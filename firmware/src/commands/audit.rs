//! The audit log and the device's options.

use sshsm_protocol::DeviceError;
use sshsm_protocol::codec::Writer;
use sshsm_protocol::message::{GetOption, Nothing, SetLogIndex, SetOption};
use sshsm_protocol::option::DeviceOption;
use sshsm_protocol::ssh::template::Dialect;

use super::{Core, exactly};
use crate::options;
use crate::platform::Platform;
use crate::presence;
use crate::session::Caller;

/// The option with this number; a strict device has none of the extensions.
fn option<P: Platform>(core: &Core<P>, code: u8) -> Result<DeviceOption, DeviceError> {
    DeviceOption::from_code(code)
        .filter(|option| !option.is_extension() || core.platform.dialect() != Dialect::Yubihsm2)
        .ok_or(DeviceError::InvalidData)
}

/// GET LOG ENTRIES: the counts of unlogged events, and the log's entries, oldest first.
pub(crate) fn get_log_entries<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    _: Nothing,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    Ok(core.log.read(writer)?)
}

/// SET LOG INDEX: `number u16`; the log forgets the entries up to this one.
pub(crate) fn set_log_index<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    SetLogIndex { number }: SetLogIndex,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    core.log.consume(&mut core.store, number)
}

/// SET OPTION: `option u8 ‖ length u16 ‖ value`.
pub(crate) fn set_option<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    SetOption { option: code, length, value }: SetOption<'_>,
    _: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let value = exactly(length.into(), value)?;
    let option = option(core, code)?;
    if option == DeviceOption::UserPresence {
        let (from, to) = (core.options.presence(), options::presence(value)?);
        presence::confirm_change(&mut core.platform, from, to)?;
    }
    core.options.set(&mut core.store, option, value)
}

/// GET OPTION: `option u8`; its value.
pub(crate) fn get_option<P: Platform>(
    core: &mut Core<P>,
    _: &Caller,
    GetOption { option: code }: GetOption,
    writer: &mut Writer<'_>,
) -> Result<(), DeviceError> {
    let option = option(core, code)?;
    core.options.get(option, writer)
}
