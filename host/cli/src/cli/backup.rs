//! `sshsm backup …`: the objects of a device in a file, and onto another device from it.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Context,
    authentication_key::{self, Road},
    error::{CliError, FileError, PasswordError},
    notice::listener,
    prompt, service,
};
use crate::{
    backup::{
        self, Backup, BackupError, Created, Description, NotExported, Outcome, Remembered, Stored, WrapKey,
    },
    output::{self, columns, shown},
    shares::{self, Entry, Key, Scheme, Share, ShareError},
};
use sshsm_ca::{files, input};
use sshsm_client::{
    Client, Session,
    interruptible::{Interruptible, Stop},
};

/// The verbs of `backup`.
#[derive(Debug, Subcommand)]
pub(super) enum BackupVerb {
    /// Write every object that the device may export to a file, and the shares of the key that opens it
    ///
    /// Only objects created with the capability exportable-under-wrap leave a device; all others that the
    /// authentication key sees are named. The file contains no secret that can be read without the shares.
    /// Anyone with enough shares has every key in it: give each to a different person, and keep none with the
    /// file.
    Create(Create),
    /// Import the objects of a backup into the device, which keeps what it has
    ///
    /// Asks for the shares line by line and reports mistyped lines at once. Try it on a simulator first:
    /// --device sim:DIR. A backup does not contain state that a device keeps: quotas, serial numbers and
    /// clocks of templates, the audit log and the device's options start over.
    Restore(Restore),
    /// Show the contents of a backup; needs no device
    Show {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        shares: ShareFiles,
    },
}

/// The arguments of `backup create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The backup: a new file, or a directory for it
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// How many shares are needed to restore
    #[arg(short = 'm', long, value_name = "M", default_value = "2")]
    threshold: u8,
    /// How many shares to make
    #[arg(short = 'n', long, value_name = "N", default_value = "3")]
    shares: u8,
    /// Write each share to a file of its own in this directory, readable by you only; by default they go to
    /// stdout
    #[arg(long, value_name = "DIR")]
    shares_to: Option<PathBuf>,
    /// Leave the wrap key on the device
    #[arg(long)]
    keep_wrap_key: bool,
    #[command(flatten)]
    road: Road,
}

/// The arguments of `backup restore`.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    shares: ShareFiles,
    /// Leave the wrap key on the device
    #[arg(long)]
    keep_wrap_key: bool,
    /// Say what would be done with each object, and change nothing; needs no shares, but checks those given
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    road: Road,
}

/// Shares in files.
#[derive(Debug, Args)]
pub(super) struct ShareFiles {
    /// A file with a share; may be given more than once
    #[arg(long = "share-file", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A share that was made, as JSON shows it.
#[derive(Serialize)]
struct ShareView {
    number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Zeroizing<String>>,
}

#[derive(Serialize)]
struct CreateView<'b> {
    file: String,
    backup: &'b str,
    threshold: u8,
    objects: Vec<&'b Description>,
    not_exported: &'b [NotExported],
    wrap_key: &'b WrapKey,
    shares: Vec<ShareView>,
}

#[derive(Serialize)]
struct RestoreView<'b> {
    backup: &'b str,
    device: String,
    serial: u32,
    dry_run: bool,
    objects: Vec<RestoredObject<'b>>,
    wrap_key: Option<WrapKey>,
}

#[derive(Serialize)]
struct RestoredObject<'b> {
    #[serde(flatten)]
    object: &'b Description,
    outcome: Outcome,
    /// The rules whose state stayed on the other device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    begins_anew: Vec<Remembered>,
}

#[derive(Serialize)]
struct BackupView<'b> {
    #[serde(flatten)]
    backup: &'b Backup,
    /// Whether the given shares make its key and the file is unchanged; `null` if too few were given.
    authentic: Option<bool>,
}

impl BackupVerb {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create(create) => create.run(context),
            Self::Restore(restore) => restore.run(context),
            Self::Show { file, shares } => show(context, &file, &shares),
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let Self { path, threshold, shares, shares_to, keep_wrap_key, road } = self;
        let scheme = Scheme::new(threshold, shares).map_err(|error| CliError::Usage(error.to_string()))?;
        let in_directory = path.is_dir();
        if !in_directory {
            refuse_existing(&path)?;
        }
        if let Some(directory) = shares_to.as_deref().filter(|directory| !directory.is_dir()) {
            return Err(FileError::write(directory, ErrorKind::NotADirectory.into()).into());
        }
        let stop = Stop::default();
        let mut client = connect(context, &stop, false)?;
        let credential = context.credential(&mut client)?;
        let opening = road.opening(context, &mut client, &credential)?;
        let (identity, key) = (client.identity().clone(), context.globals.auth_key);
        end_in_order(&stop)?;
        let create = |session: &mut Session<'_>| {
            remove_left_behind(session)?;
            let created = backup::create(session, &identity, key, scheme, keep_wrap_key, &stop)?;
            // Printed before anything else can fail.
            tell_wrap_key(Some(&created.wrap_key));
            Ok(created)
        };
        let Created { backup, document, shares, wrap_key } =
            authentication_key::within(opening.as_ref(), &mut client, key, &credential, create)?;

        let name = format!("sshsm-backup-{}-{}", identity.serial, backup.id);
        let file = if in_directory { path.join(format!("{name}.json")) } else { path };
        refuse_existing(&file)?;
        let shares = shares
            .iter()
            .map(|share| write_share(share, &name, shares_to.as_deref()))
            .collect::<Result<Vec<_>, _>>()?;
        files::write_new_secret(&file, &document).map_err(|source| FileError::write(&file, source))?;

        output::talk(format_args!(
            "backup {} in {}: {} objects; any {scheme} shares open it",
            backup.id,
            shown(&file),
            backup.objects.len(),
        ));
        for NotExported { object, reason } in &backup.not_exported {
            output::talk(format_args!("NOT in the backup: {} {:?}: {reason}", object.name(), object.label));
        }
        let view = CreateView {
            file: file.display().to_string(),
            backup: &backup.id,
            threshold,
            objects: backup.objects.iter().map(|exported| &exported.object).collect(),
            not_exported: &backup.not_exported,
            wrap_key: &wrap_key,
            shares,
        };
        context.format().print(&view, |view| {
            let texts = view.shares.iter().filter_map(|share| share.text.as_ref());
            texts.map(|text| text.as_str()).collect::<Vec<_>>().join("\n")
        })?;
        Ok(())
    }
}

/// Connects to the device; operations that wait for an answer give up when `stop` is signalled. A missing
/// simulator is created only for an operation that changes it.
fn connect(context: &Context, stop: &Stop, changes: bool) -> Result<Client, CliError> {
    let device = context.device()?;
    let exchange = if changes { super::open_or_make(device)? } else { device.open_existing(&listener())? };
    let exchange = Interruptible::new(exchange, stop.clone());
    Ok(Client::connect(Box::new(exchange), listener())?)
}

/// From here on a signal ends the work, and with it the wrap key on the device, and not the program at once.
fn end_in_order(stop: &Stop) -> Result<(), CliError> {
    let stop = stop.clone();
    service::instead_of_ending(move || stop.tell()).map_err(CliError::Service)
}

fn remove_left_behind(session: &mut Session<'_>) -> Result<(), CliError> {
    for (id, wrap_key) in backup::remove_left_behind(session)? {
        match wrap_key {
            WrapKey::Deleted => {
                output::talk(format_args!("deleted wrap key {id}, which an earlier run left on the device"));
            }
            other => tell_wrap_key(Some(&other)),
        }
    }
    Ok(())
}

fn refuse_existing(file: &Path) -> Result<(), FileError> {
    match file.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(FileError::write(file, ErrorKind::AlreadyExists.into())),
        Err(source) => Err(FileError::write(file, source)),
    }
}

fn write_share(share: &Share, name: &str, directory: Option<&Path>) -> Result<ShareView, CliError> {
    let (number, text) = (share.number(), share.text());
    let Some(directory) = directory else {
        return Ok(ShareView { number, file: None, text: Some(text) });
    };
    let file = directory.join(format!("{name}-share-{number}-of-{}.txt", share.scheme().shares()));
    files::write_new_secret(&file, text.as_bytes()).map_err(|source| FileError::write(&file, source))?;
    output::talk(format_args!("share {number} in {}", shown(&file)));
    Ok(ShareView { number, file: Some(file.display().to_string()), text: None })
}

fn tell_wrap_key(wrap_key: Option<&WrapKey>) {
    match wrap_key {
        None | Some(WrapKey::Deleted) => {}
        Some(WrapKey::Kept { id }) => {
            output::talk(format_args!("the wrap key is still on the device: {id:#06x}"));
        }
        Some(WrapKey::NotDeleted { id, reason }) => output::talk(format_args!(
            "WARNING: the wrap key {id:#06x} is still on the device: {reason}; delete it with: sshsm key delete {id:#06x} --type wrap-key"
        )),
    }
}

impl Restore {
    fn run(self, context: &Context) -> Result<(), CliError> {
        let stored = Backup::load(&self.file)?;
        // Everything typed by the user, before the session begins, which does not wait for it.
        let shares = match self.dry_run {
            true => self.shares.read(&stored)?,
            false => self.shares.read_or_ask(&stored)?,
        };
        let key = if self.dry_run && too_few(&stored, &shares) { None } else { Some(key(&stored, &shares)?) };
        drop(shares);
        let stop = Stop::default();
        let mut client = connect(context, &stop, !self.dry_run)?;
        let credential = context.credential(&mut client)?;
        let opening = match self.dry_run {
            true => None,
            false => self.road.opening(context, &mut client, &credential)?,
        };
        end_in_order(&stop)?;
        let (device, serial, own) = (client.describe(), client.identity().serial, context.globals.auth_key);
        let backup = &stored.backup;
        let key = key.filter(|_| !self.dry_run);
        let restore = |session: &mut Session<'_>| {
            let (outcomes, begins_anew, wrap_key) = match &key {
                None => (backup::plan(session, own, backup)?, vec![Vec::new(); backup.objects.len()], None),
                Some(key) => {
                    remove_left_behind(session)?;
                    let restored = backup::restore(session, own, backup, key, self.keep_wrap_key, &stop)?;
                    (restored.outcomes, restored.begins_anew, restored.wrap_key)
                }
            };
            tell_wrap_key(wrap_key.as_ref());
            Ok((outcomes, begins_anew, wrap_key))
        };
        let (outcomes, begins_anew, wrap_key) =
            authentication_key::within(opening.as_ref(), &mut client, own, &credential, restore)?;
        let objects: Vec<_> = backup
            .objects
            .iter()
            .zip(outcomes.into_iter().zip(begins_anew))
            .map(|(exported, (outcome, begins_anew))| RestoredObject {
                object: &exported.object,
                outcome,
                begins_anew,
            })
            .collect();
        tell_what_begins_anew(&objects);
        let view =
            RestoreView { backup: &backup.id, device, serial, dry_run: self.dry_run, objects, wrap_key };
        context.format().print(&view, |view| {
            let row = |object: &RestoredObject<'_>| {
                [object.object.name(), object.object.label.clone(), told(object.outcome).into()]
            };
            columns(&view.objects.iter().map(row).collect::<Vec<_>>())
        })?;
        let different: Vec<String> = view
            .objects
            .iter()
            .filter(|object| object.outcome == Outcome::Different)
            .map(|object| object.object.name())
            .collect();
        if different.is_empty() { Ok(()) } else { Err(BackupError::Different(different).into()) }
    }
}

fn tell_what_begins_anew(objects: &[RestoredObject<'_>]) {
    for RestoredObject { object, begins_anew, .. } in objects {
        if !begins_anew.is_empty() {
            let rules: Vec<_> = begins_anew.iter().map(|rule| rule.name()).collect();
            output::talk(format_args!(
                "WARNING: {} starts over on this device ({}): signatures made by the other device do not count here",
                object.name(),
                rules.join(", "),
            ));
        }
    }
}

fn told(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::ToImport => "would be imported",
        Outcome::Imported => "imported",
        Outcome::Same => "already there, the same",
        Outcome::Unverified => "already there; no device shows whether its secret is the same",
        Outcome::Different => "already there, and DIFFERENT: left alone",
    }
}

fn too_few(stored: &Stored, shares: &[Share]) -> bool {
    shares.len() < usize::from(stored.scheme.threshold())
}

/// The key that the shares make; names shares that do not belong to it.
fn key(stored: &Stored, shares: &[Share]) -> Result<Key, BackupError> {
    let (key, wrong) = stored.key(shares)?;
    for number in wrong {
        output::talk(format_args!("WARNING: {}", ShareError::Forged(number)));
    }
    Ok(key)
}

impl ShareFiles {
    /// The shares in the files that are valid, as far as can be determined: each is of this backup, and none
    /// is given twice. Forged shares are named, and are an error if too few are left without them.
    fn read(&self, stored: &Stored) -> Result<Vec<Share>, CliError> {
        let (mut shares, mut forged) = (Vec::new(), Vec::new());
        for file in &self.files {
            let wrong = |error| CliError::content(shown(file), error);
            let text = input::read_text(file).map_err(|source| FileError::read(file, source))?;
            let share = Share::parse(&text).map_err(wrong)?;
            match stored.check_share(&share) {
                Ok(()) => {}
                Err(error @ ShareError::Forged(_)) => {
                    forged.push(wrong(error));
                    continue;
                }
                Err(error) => return Err(wrong(error)),
            }
            shares::fits(&share, &shares, stored.id, stored.scheme).map_err(wrong)?;
            shares.push(share);
        }
        let needed = too_few(stored, &shares);
        for error in forged {
            if needed {
                return Err(error);
            }
            output::talk(format_args!("WARNING: {}", error.line()));
        }
        Ok(shares)
    }

    /// As many shares as needed; those that are in no file are asked for on the terminal.
    fn read_or_ask(&self, stored: &Stored) -> Result<Vec<Share>, CliError> {
        let mut shares = self.read(stored)?;
        while too_few(stored, &shares) {
            let share = ask(stored, &shares)?.ok_or_else(|| {
                let needed = stored.scheme.threshold();
                BackupError::Share(ShareError::TooFew { needed, given: shares.len() })
            })?;
            output::talk(format_args!("share {} is right", share.number()));
            shares.push(share);
        }
        Ok(shares)
    }
}

/// Asks for one share, line by line; reports a wrong line and asks for it again. `None` without a terminal.
fn ask(stored: &Stored, given: &[Share]) -> Result<Option<Share>, CliError> {
    let mut entry = Entry::of(stored.id, stored.scheme, given);
    let (next, needed) = (given.len() + 1, stored.scheme.threshold());
    loop {
        let question =
            format!("Share {next} of the {needed} that backup {} needs, line {}: ", stored.id, entry.line());
        let Some(line) = prompt::secret(&question).map_err(PasswordError::Terminal)? else {
            return Ok(None);
        };
        match entry.enter(&line) {
            Ok(Some(share)) => match stored.check_share(&share) {
                Ok(()) => return Ok(Some(share)),
                Err(error) => {
                    output::talk(format_args!("{error}; give another share"));
                    entry = Entry::of(stored.id, stored.scheme, given);
                }
            },
            Ok(None) => {}
            Err(error) => output::talk(format_args!("{error}; type it again")),
        }
    }
}

fn show(context: &Context, file: &Path, shares: &ShareFiles) -> Result<(), CliError> {
    let stored = Backup::load(file)?;
    let shares = shares.read(&stored)?;
    let authentic = match too_few(&stored, &shares) {
        true => None,
        false => Some(key(&stored, &shares).map(|_| true)?),
    };
    let Stored { backup, scheme, .. } = &stored;
    context.format().print(&BackupView { backup, authentic }, |_| {
        let mut text = format!(
            "backup:    {}\ncreated:   {}\ndevice:    serial {:010}, version {}\nshares:    any {scheme}\nkey:       {}\n",
            backup.id,
            backup.created,
            backup.device.serial,
            backup.device.version,
            match authentic {
                Some(_) => "the shares make it, and the backup is as it was made".into(),
                None => format!("{} shares given, none of them wrong", shares.len()),
            },
        );
        let heading = ["object", "algorithm", "label", "public key"].map(str::to_owned);
        let row = |exported: &backup::Exported| {
            let key = exported.public_key.as_deref().and_then(|key| ssh_key::PublicKey::from_openssh(key).ok());
            let fingerprint = key.map(|key| key.fingerprint(ssh_key::HashAlg::Sha256).to_string());
            let object = &exported.object;
            [object.name(), object.algorithm.clone(), object.label.clone(), fingerprint.unwrap_or_default()]
        };
        text += &columns(&std::iter::once(heading).chain(backup.objects.iter().map(row)).collect::<Vec<_>>());
        for NotExported { object, reason } in &backup.not_exported {
            text += &format!("NOT in the backup: {} {:?}: {reason}\n", object.name(), object.label);
        }
        text
    })?;
    Ok(())
}
