//! `sshsm template …`: what a CA key may sign, written as TOML, stored by the device as TLV.

mod check;
mod diff;
mod lint;
pub(super) mod source;
mod test;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde::Serialize;
use ssh_key::HashAlg;
use sshsm_protocol::{Algorithm, Domains, Label, ObjectId, ObjectType, object::NewObject, ssh::template};

use super::{
    Context,
    arguments::{self, NewId, ReplaceOption},
    error::{CliError, FileError},
};
use crate::output::{self, Format};
use source::{decode, find, load};
use sshsm_ca::{
    device_key,
    files::{self, Kind, Replace},
    template::{describe, rules},
};

/// The verbs of `template`.
#[derive(Debug, Subcommand)]
pub(super) enum Template {
    /// Compile a TOML template to the device's form (TLV)
    Build {
        /// Template in TOML
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
        /// Output file for the TLV; default: stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        replace: ReplaceOption,
    },
    /// Describe in words what a template allows
    Show {
        /// Template file (TOML or TLV), or the id of a template on the device; ./5 is a file, 5 an id
        #[arg(value_name = "FILE|ID")]
        template: String,
    },
    /// Put a template on the device; prints its id
    Put {
        /// Template file (TOML or TLV)
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The template's id; 0 lets the device choose
        #[arg(long, value_name = "ID", default_value = "0")]
        id: NewId,
        /// A label of at most 40 bytes
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        #[arg(value_parser = arguments::label)]
        label: Label,
        /// Domains that can see the template: all, or numbers such as 1,5
        #[arg(long, value_name = "DOMAINS", default_value = "all", value_parser = arguments::domains)]
        domains: Domains,
        /// Let it leave the device under a wrap key, for `sshsm backup`
        #[arg(long)]
        exportable: bool,
    },
    /// Get a template's bytes (TLV) from the device
    Get {
        /// The template's id
        #[arg(value_name = "ID", value_parser = arguments::object_id)]
        id: ObjectId,
        /// Output file for the TLV; default: stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        replace: ReplaceOption,
    },
    /// Explain, without a device, a template's verdict on requests
    Check(check::Check),
    /// Warn about what a careful reviewer would question
    Lint(lint::Lint),
    /// Say what became stricter or looser from one template to another
    Diff(diff::Diff),
    /// Run a file of requests and compare the template's verdicts with the expected ones
    Test(test::Test),
}

/// A template as JSON shows it.
#[derive(Serialize)]
struct View {
    timestamp_key: TimestampKey,
    ca_keys: Vec<u16>,
    /// Seconds before now; null is unbounded.
    not_before_offset: Option<u32>,
    /// Seconds after now; null is unbounded.
    not_after_offset: Option<u32>,
    forbidden_principals: Vec<String>,
    /// The rules beyond YubiHSM 2's, by their names in template files, in words.
    rules: std::collections::BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct TimestampKey {
    algorithm: &'static str,
    /// `null` if the bytes are not a key of the algorithm.
    public_key: Option<String>,
    fingerprint: Option<String>,
}

impl View {
    fn new(template: &template::Template<'_>) -> Self {
        let key = &template.timestamp_key;
        let public = device_key::ssh_public(key.algorithm(), key.public()).ok().map(ssh_key::PublicKey::from);
        Self {
            timestamp_key: TimestampKey {
                algorithm: key.algorithm().algorithm().name(),
                public_key: public.as_ref().and_then(|key| key.to_openssh().ok()),
                fingerprint: public.map(|key| key.fingerprint(HashAlg::Sha256).to_string()),
            },
            ca_keys: template.ca_keys.iter().collect(),
            not_before_offset: template.not_before.seconds(),
            not_after_offset: template.not_after.seconds(),
            forbidden_principals: template
                .forbidden_principals
                .iter()
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect(),
            rules: rules::describe(&template.rules).into_iter().collect(),
        }
    }
}

impl Template {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Build { file, output, replace } => {
                let tlv = load(&file)?;
                write_tlv(context.format(), &tlv, output.as_deref(), replace.into())
            }
            Self::Show { template } => show(context, &template),
            Self::Put { file, id, label, domains, exportable } => {
                let tlv = load(&file)?;
                let (capabilities, algorithm) = (arguments::exportable(exportable), Algorithm::TemplateSsh);
                put(context, &tlv, &NewObject { id: id.0, label, domains, capabilities, algorithm })
            }
            Self::Get { id, output, replace } => {
                let mut client = context.client()?;
                let tlv = context.session(&mut client)?.template(id)?;
                write_tlv(context.format(), &tlv, output.as_deref(), replace.into())
            }
            Self::Check(check) => check.run(context),
            Self::Lint(lint) => lint.run(context),
            Self::Diff(diff) => diff.run(context),
            Self::Test(test) => test.run(context),
        }
    }
}

fn show(context: &Context, template: &str) -> Result<(), CliError> {
    let tlv = find(context, template)?;
    let decoded = decode(template, &tlv)?;
    context.format().print(&View::new(&decoded), |_| describe(&decoded))?;
    Ok(())
}

fn put(context: &Context, tlv: &[u8], object: &NewObject) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Put {
        id: u16,
        #[serde(rename = "type")]
        object_type: &'static str,
        algorithm: &'static str,
    }
    // Only well-formed templates are put: the device would accept any bytes and then refuse every request.
    let decoded = template::Template::decode(tlv).map_err(|error| CliError::content("no template", error))?;
    let mut client = context.client_to_change()?;
    let id = context.session(&mut client)?.put_template(object, tlv)?;
    output::talk(format_args!("template {id} put\n{}", describe(&decoded).trim_end()));
    let put =
        Put { id: id.get(), object_type: ObjectType::Template.name(), algorithm: object.algorithm.name() };
    context.format().print(&put, |_| format!("{id}\n"))?;
    Ok(())
}

/// Writes a template's bytes to a file or stdout, or shows them in hexadecimal as JSON.
fn write_tlv(format: Format, tlv: &[u8], file: Option<&Path>, replace: Replace) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Tlv {
        template: String,
        length: usize,
        file: Option<String>,
    }
    if let Some(path) = file {
        files::write(path, tlv, Kind::Template, replace).map_err(|source| FileError::write(path, source))?;
    }
    match (format, file) {
        (Format::Json, file) => {
            let template = tlv.iter().map(|byte| format!("{byte:02x}")).collect();
            let file = file.map(|path| path.display().to_string());
            format.print(&Tlv { template, length: tlv.len(), file }, |_| String::new())?;
        }
        (Format::Text, Some(path)) => {
            output::talk(format_args!("{} bytes written to {}", tlv.len(), output::shown(path)));
        }
        (Format::Text, None) => {
            let mut stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(CliError::Usage(
                    "a template is binary; name a file with -o, or redirect stdout".into(),
                ));
            }
            stdout.write_all(tlv)?;
            stdout.flush()?;
        }
    }
    Ok(())
}
