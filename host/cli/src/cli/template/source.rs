//! Where a template comes from: a file, or the device.

use std::path::Path;

use sshsm_ca::template::file;
use sshsm_protocol::ssh::template::Template;

use crate::cli::{Context, arguments, error::CliError};

/// The TLV of a template file.
pub(in crate::cli) fn load(path: &Path) -> Result<Vec<u8>, CliError> {
    file::load(path).map_err(|error| CliError::content("no template", error))
}

/// The TLV of a template on the device or in a file: `5` is an id, `./5` a file.
pub(in crate::cli) fn find(context: &Context, template: &str) -> Result<Vec<u8>, CliError> {
    match arguments::object_id(template) {
        Ok(id) => {
            let mut client = context.client()?;
            Ok(context.session(&mut client)?.template(id)?)
        }
        Err(_) => load(Path::new(template)),
    }
}

/// Reads a template that [`find`] found.
pub(in crate::cli) fn decode<'t>(template: &str, tlv: &'t [u8]) -> Result<Template<'t>, CliError> {
    Template::decode(tlv).map_err(|error| {
        CliError::content(
            format_args!("template {template} is malformed; a device refuses everything under it"),
            error,
        )
    })
}
