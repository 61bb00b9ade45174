//! The only code that accesses important files. A file is written whole, synced to disk, with the right mode,
//! and never over something else; a file opened as a secret must not be readable by others, and a file opened
//! as trusted must not be writable by others.
//!
//! *Writing.* A temporary file in the same directory is synced and renamed into place, and the directory is
//! synced. A symbolic link is not followed. An existing file is replaced only by one of the same kind, a
//! certificate by a certificate, unless `--replace` is given. Pipes and character devices, such as
//! `/dev/stdout`, are written to directly.
//!
//! *Opening.* The rules are those of OpenSSH and PostgreSQL: a secret belongs to its user and no one else may
//! read it, or it belongs to root, which may let a group read it; a file that decides what this program does,
//! and every directory above it, may be written only by its user and root.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::geteuid,
};
use serde_json::{Map, Value};
use sshsm_protocol::ssh::template::Template;
use zeroize::Zeroizing;

use crate::{input, krl::RevocationList, path::shown, request::StoredRequest};

/// The kind of a file's content: a file replaces only one of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An OpenSSH certificate.
    Certificate,
    /// A request for a certificate, with or without its timestamp.
    Request,
    /// A key revocation list.
    RevocationList,
    /// A template in its binary form.
    Template,
    /// JUnit's report of a test of templates.
    TestReport,
    /// What `provision` did, as JSON.
    Record,
    /// A page of the manual.
    ManualPage,
    /// A signed image for a board, in UF2.
    Image,
    /// A step of locking a board, as JSON for picotool.
    LockStep,
    /// A file of a folder that this program made for itself.
    Own,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "an OpenSSH certificate",
            Self::Request => "a certificate request",
            Self::RevocationList => "a key revocation list",
            Self::Template => "a binary template",
            Self::TestReport => "a JUnit report",
            Self::Record => "a record of `sshsm provision`",
            Self::ManualPage => "a manual page",
            Self::Image => "a UF2 image",
            Self::LockStep => "a file for `picotool otp load`",
            Self::Own => "a file of this folder",
        }
    }

    /// Whether `content` is of this kind.
    fn recognises(self, content: &[u8]) -> bool {
        let text = || str::from_utf8(content).unwrap_or_default();
        let object = |names: &[&str]| {
            let json: Value = serde_json::from_slice(content).unwrap_or_default();
            json.as_object().is_some_and(|object| names.iter().all(|name| object.contains_key(*name)))
        };
        let certificate = || {
            let mut words = text().split_ascii_whitespace();
            words.next().is_some_and(|kind| kind.ends_with("-cert-v01@openssh.com")) && words.next().is_some()
        };
        match self {
            Self::Certificate => certificate(),
            Self::Request => !certificate() && StoredRequest::detect(content).is_ok(),
            Self::RevocationList => RevocationList::decode(content).is_ok(),
            Self::Template => Template::decode(content).is_ok(),
            Self::TestReport => text().starts_with("<?xml") && text().contains("<testsuites"),
            Self::Record => object(&["ca_key", "template", "signer", "steps"]),
            Self::ManualPage => text().lines().any(|line| line.starts_with(".TH ")),
            Self::Image => content.starts_with(b"UF2\n"),
            Self::LockStep => is_step_file(content),
            Self::Own => true,
        }
    }
}

/// Whether this is a step of locking a board: rows of OTP by the names that picotool knows, and nothing else.
fn is_step_file(content: &[u8]) -> bool {
    let known = |name: &String| {
        ["bootkey", "boot_flags", "crit", "page"].iter().any(|row| name.starts_with(row))
            || name
                .split_once(':')
                .is_some_and(|(page, row)| page.parse::<u8>().is_ok() && row.parse::<u8>().is_ok())
    };
    serde_json::from_slice::<Map<String, Value>>(content)
        .is_ok_and(|rows| !rows.is_empty() && rows.keys().all(known))
}

/// Whether an output may take the place of anything: `--replace`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replace {
    /// Whatever file is there is replaced; otherwise only a file of the same kind is.
    pub replace: bool,
}

/// Why an existing file is not overwritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    /// Another kind of file.
    #[error("the existing file is not {}; --replace replaces it anyway", .0.name())]
    Other(Kind),
    /// It cannot be read, so its kind is not known.
    #[error("the existing file cannot be read ({0}); --replace replaces it anyway")]
    Unreadable(String),
    /// A symbolic link, perhaps to nothing.
    #[error("a symbolic link is there, which is not followed; name the file itself, or --replace the link")]
    Link,
    /// A directory, a socket or a disk.
    #[error("{0} is there")]
    NotAFile(&'static str),
    /// A pipe with no one at its other end.
    #[error("nothing reads this pipe")]
    NoReader,
    /// A directory in which others may replace the secret with another file.
    #[error("others may write its folder {} (mode {mode:04o})", shown(.folder))]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl From<WriteRefusal> for io::Error {
    fn from(refusal: WriteRefusal) -> Self {
        let kind = match refusal {
            WriteRefusal::NotAFile(_) | WriteRefusal::Folder { .. } => ErrorKind::PermissionDenied,
            WriteRefusal::NoReader => ErrorKind::BrokenPipe,
            _ => ErrorKind::AlreadyExists,
        };
        Self::new(kind, refusal)
    }
}

/// What exists at the path of an output.
enum There {
    Nothing,
    /// A file, a link or anything else that has a name and can be replaced; with the mode of a file.
    Gives(Option<u32>),
    /// Bytes go to it, and it stays.
    Stream,
}

/// More than any file that is replaced by its like has.
const MAX_LENGTH: usize = 64 * 1024 * 1024;

/// Whether `path` is a name of something that this process has open.
fn is_descriptor(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new(""));
    path == Path::new("/dev/stdout")
        || path == Path::new("/dev/stderr")
        || folder == Path::new("/dev/fd")
        || folder == Path::new("/proc/self/fd")
}

fn look(path: &Path, kind: Kind, replace: bool) -> io::Result<There> {
    if is_descriptor(path) {
        return Ok(There::Stream);
    }
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
        metadata => metadata?,
    };
    let found = metadata.file_type();
    if found.is_fifo() || found.is_char_device() {
        return Ok(There::Stream);
    }
    if found.is_symlink() {
        return if replace { Ok(There::Gives(None)) } else { Err(WriteRefusal::Link.into()) };
    }
    if !found.is_file() {
        let what = if found.is_dir() {
            "a directory"
        } else if found.is_socket() {
            "a socket"
        } else {
            "a disk"
        };
        return Err(WriteRefusal::NotAFile(what).into());
    }
    // In an empty file there is nothing to lose.
    if !replace && kind != Kind::Own && metadata.len() > 0 {
        let content = OpenOptions::new()
            .read(true)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(path)
            .and_then(|file| input::read_from_at_most(file, MAX_LENGTH))
            .map_err(|error| WriteRefusal::Unreadable(error.to_string()))?;
        if !kind.recognises(&content) {
            return Err(WriteRefusal::Other(kind).into());
        }
    }
    // What others may not read, they may not read afterwards.
    Ok(There::Gives(Some(metadata.mode() & 0o755)))
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Writes a file that others may read, whole or not at all; it is on disk when this returns. `-` is stdout.
///
/// # Errors
/// [`WriteRefusal`] if something else exists there; otherwise when the file or its directory cannot be
/// written. An earlier file is then unchanged.
pub fn write(path: &Path, content: &[u8], kind: Kind, replace: Replace) -> io::Result<()> {
    if path == Path::new("-") || path == Path::new("/dev/stdout") {
        let mut stdout = io::stdout().lock();
        return stdout.write_all(content).and_then(|()| stdout.flush());
    }
    loop {
        return match look(path, kind, replace.replace)? {
            There::Stream => stream(path, content),
            There::Gives(mode) => {
                let file = temporary(path, content, mode.unwrap_or(0o644), mode.is_some())?;
                file.persist(path).map_err(|error| error.error)?;
                sync_directory_of(path)
            }
            There::Nothing => match temporary(path, content, 0o644, false)?.persist_noclobber(path) {
                Ok(_) => sync_directory_of(path),
                // It came into being in between.
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => Err(error.error),
            },
        };
    }
}

/// Whether [`write()`] would write there, checked before the content is produced.
///
/// # Errors
/// [`WriteRefusal`]; and when the system does not report what is there.
pub fn check(path: &Path, kind: Kind, replace: Replace) -> io::Result<()> {
    if path == Path::new("-") {
        return Ok(());
    }
    look(path, kind, replace.replace).map(drop)
}

/// Writes to something that is not a regular file, and does not wait for a reader.
fn stream(path: &Path, content: &[u8]) -> io::Result<()> {
    const NO_READER: i32 = rustix::io::Errno::NXIO.raw_os_error();
    let mut options = OpenOptions::new();
    options.write(true).append(is_descriptor(path));
    options.custom_flags(flags(OFlags::NONBLOCK | OFlags::NOCTTY));
    let mut file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(NO_READER) => WriteRefusal::NoReader.into(),
        _ => error,
    })?;
    fcntl_setfl(&file, fcntl_getfl(&file)? & !OFlags::NONBLOCK)?;
    file.write_all(content)
}

/// Writes a file that only its owner may read, over an earlier one of this program's own, whole or not at
/// all; it is on disk when this returns.
///
/// # Errors
/// When the file or its directory cannot be written, or others may write the directory.
pub fn write_own_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    private_directory_of(path)?;
    let file = temporary(path, content, 0o600, false)?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory_of(path)
}

/// Writes a new file that only its owner may read, whole or not at all; it is on disk when this returns.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] if anything exists there, even a dangling link; otherwise when the file
/// cannot be written, or others may write the directory.
pub fn write_new_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    private_directory_of(path)?;
    let file = temporary(path, content, 0o600, false)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    sync_directory_of(path)
}

/// Opens one of this program's own files for appending, and creates it, readable by its owner only, if there
/// is none.
///
/// # Errors
/// When it cannot be opened.
pub fn open_own(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// In a directory that others may write, they can replace a secret with anything; a sticky directory prevents
/// that.
fn private_directory_of(path: &Path) -> io::Result<()> {
    let folder = directory_of(path);
    let mode = fs::metadata(folder)?.mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(WriteRefusal::Folder { folder: folder.to_owned(), mode: mode & 0o7777 }.into());
    }
    Ok(())
}

/// The prefix of the names of unfinished files; six random letters and digits follow.
const PREFIX: &str = ".sshsm-";

/// A file next to `path` with this content, on disk, removed unless it is renamed. The umask reduces the
/// mode, unless it is `exact`.
fn temporary(path: &Path, content: &[u8], mode: u32, exact: bool) -> io::Result<tempfile::NamedTempFile> {
    // The name of a temporary file does not belong in an error, but the builder's own opening would include
    // it.
    let new = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = tempfile::Builder::new().prefix(PREFIX).rand_bytes(6).make_in(directory_of(path), new)?;
    file.write_all(content)?;
    if exact {
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    match File::open(directory_of(path))?.sync_all() {
        // Some file systems do not support this.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes the files that a process killed while writing left in a directory.
///
/// # Errors
/// When the directory cannot be read, or a file in it not removed.
pub fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
        if random.is_some_and(|random| random.len() == 6 && random.iter().all(u8::is_ascii_alphanumeric))
            && entry.file_type()?.is_file()
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Creates a directory, and its parents, for its owner only; an existing one is not changed.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory)
}

/// Why a file is not opened as a secret, or not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// Others may read a secret.
    #[error(
        "it is a secret, and others may read it (mode {mode:04o}); make it private with: chmod 600 {}",
        shown(path)
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that is another user's.
    #[error(
        "{} belongs to another user (uid {owner}), not to you (uid {user}) or root; make it yours with: chown",
        shown(path)
    )]
    Owner {
        /// The file, or the folder above it.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Others may write what decides what this program does.
    #[error(
        "others may write {} (mode {mode:04o}), and so decide what this program does; fix it with: chmod go-w {}",
        shown(path),
        shown(path)
    )]
    Writable {
        /// The file, or the folder above it.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl From<OpenRefusal> for io::Error {
    fn from(refusal: OpenRefusal) -> Self {
        Self::new(ErrorKind::PermissionDenied, refusal)
    }
}

/// Whether a file may hold a secret: it belongs to the user, and no one else may read it; or it belongs to
/// root, which may let a group read it.
///
/// # Errors
/// [`OpenRefusal`]; and when the system does not say.
pub fn check_secret(path: &Path, file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    // A terminal is read, not kept.
    if metadata.file_type().is_char_device() {
        return Ok(());
    }
    let (mode, owner, user) = (metadata.mode() & 0o7777, metadata.uid(), geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(OpenRefusal::Owner { path: path.to_owned(), owner, user }.into());
    }
    let forbidden = if owner == user { 0o077 } else { 0o037 };
    if mode & forbidden != 0 {
        return Err(OpenRefusal::Exposed { path: path.to_owned(), mode }.into());
    }
    Ok(())
}

/// The content of a file with a secret.
///
/// # Errors
/// [`OpenRefusal`], and as [`input::read`].
pub fn read_secret(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    check_secret(path, &file)?;
    input::read_from(file)
}

/// As [`read_secret`], for text.
///
/// # Errors
/// As [`read_secret`], and [`ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_secret_text(path: &Path) -> io::Result<Zeroizing<String>> {
    input::text(&read_secret(path)?)
}

/// The text of a file that decides what this program does, such as a configuration: only the user and root
/// may write it and every directory above it.
///
/// # Errors
/// [`OpenRefusal`], and like [`input::read_text`].
pub fn read_trusted_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        check_trusted(path, &metadata)?;
    } else if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    input::text(&input::read_from(file)?)
}

/// Whether only its user and root may write a file that decides what this program does, and every directory
/// above it.
///
/// # Errors
/// [`OpenRefusal`]; and when the system does not say.
pub fn check_trusted(path: &Path, metadata: &Metadata) -> io::Result<()> {
    trusted(path, metadata)?;
    trusted_folders(path)
}

fn trusted(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (mode, owner, user) = (metadata.mode() & 0o7777, metadata.uid(), geteuid().as_raw());
    if owner != user && owner != 0 {
        return Err(OpenRefusal::Owner { path: path.to_owned(), owner, user }.into());
    }
    // In a sticky directory others can add new names, but cannot change this one.
    let sticky = metadata.is_dir() && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return Err(OpenRefusal::Writable { path: path.to_owned(), mode }.into());
    }
    Ok(())
}

/// The directories on the path to the file as given, and to where links lead.
fn trusted_folders(path: &Path) -> io::Result<()> {
    let named = fs::canonicalize(directory_of(path))?;
    let real = fs::canonicalize(path)?;
    for folder in named.ancestors().chain(real.ancestors().skip(1)) {
        trusted(folder, &fs::metadata(folder)?)?;
    }
    let link = fs::symlink_metadata(path)?;
    let (owner, user) = (link.uid(), geteuid().as_raw());
    if link.is_symlink() && owner != user && owner != 0 {
        return Err(OpenRefusal::Owner { path: path.to_owned(), owner, user }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::symlink, net::UnixListener};
    use tempfile::{TempDir, tempdir};

    const ANY: Replace = Replace { replace: true };
    const LIKE: Replace = Replace { replace: false };

    fn place(name: &str) -> (TempDir, PathBuf) {
        let folder = tempdir().unwrap();
        let path = folder.path().join(name);
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn list(number: u64) -> Vec<u8> {
        RevocationList::new(number, 0).encode().unwrap()
    }

    fn refused(result: io::Result<()>) -> WriteRefusal {
        result.unwrap_err().into_inner().unwrap().downcast_ref::<WriteRefusal>().unwrap().clone()
    }

    #[test]
    fn a_file_is_replaced_whole_by_its_like_and_nothing_else_is_left() {
        let (folder, path) = place("krl");
        write(&path, &list(1), Kind::RevocationList, LIKE).unwrap();
        assert_eq!(mode(&path) & 0o133, 0, "{:o}", mode(&path));
        write(&path, &list(2), Kind::RevocationList, LIKE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), list(2));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = write(&folder.path().join("none/x"), b"", Kind::Own, LIKE).unwrap_err();
        assert_eq!(missing.to_string(), "No such file or directory (os error 2)");
    }

    #[test]
    fn another_kind_of_file_is_replaced_only_when_told_and_keeps_its_mode() {
        let (_folder, path) = place("precious");
        fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for kind in [
            Kind::Certificate,
            Kind::Request,
            Kind::RevocationList,
            Kind::Template,
            Kind::TestReport,
            Kind::Record,
            Kind::ManualPage,
            Kind::Image,
            Kind::LockStep,
        ] {
            assert_eq!(refused(write(&path, b"x", kind, LIKE)), WriteRefusal::Other(kind));
            assert_eq!(refused(check(&path, kind, LIKE)), WriteRefusal::Other(kind));
        }
        assert_eq!(fs::read(&path).unwrap(), b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
        write(&path, &list(1), Kind::RevocationList, ANY).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (list(1), 0o600));
        fs::write(&path, "").unwrap();
        write(&path, &list(1), Kind::RevocationList, LIKE).unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        let (folder, path) = place("link");
        let target = folder.path().join("target");
        for there in [true, false] {
            symlink(&target, &path).unwrap();
            if there {
                fs::write(&target, list(1)).unwrap();
            }
            assert_eq!(refused(write(&path, &list(2), Kind::RevocationList, LIKE)), WriteRefusal::Link);
            assert!(write_new_secret(&path, b"secret").is_err());
            write(&path, &list(2), Kind::RevocationList, ANY).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            assert_eq!(fs::read(&target).ok(), there.then(|| list(1)));
            fs::remove_file(&path).unwrap();
            let _ = fs::remove_file(&target);
        }
        // The other name of a hard-linked file keeps its content.
        fs::write(&target, list(1)).unwrap();
        fs::hard_link(&target, &path).unwrap();
        write(&path, &list(2), Kind::RevocationList, LIKE).unwrap();
        assert_eq!(fs::read(&target).unwrap(), list(1));
    }

    #[test]
    fn what_is_not_a_file_is_never_replaced_or_waited_for() {
        let (folder, path) = place("pipe");
        for replace in [LIKE, ANY] {
            write(Path::new("/dev/null"), b"x", Kind::Template, replace).unwrap();
            assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
            let directory = refused(write(folder.path(), b"x", Kind::Template, replace));
            assert_eq!(directory, WriteRefusal::NotAFile("a directory"));
        }
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(refused(write(&socket, b"x", Kind::Template, ANY)), WriteRefusal::NotAFile("a socket"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(refused(write(&path, b"x", Kind::Template, LIKE)), WriteRefusal::NoReader);
        let reader = OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(&path).unwrap();
        write(&path, b"through", Kind::Template, LIKE).unwrap();
        assert_eq!(*input::read_from(reader).unwrap(), b"through");
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_new_secret_is_its_owners_only_and_never_replaces_anything() {
        let (folder, path) = place("secret");
        write_new_secret(&path, b"one").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(write_new_secret(&path, b"two").unwrap_err().kind(), ErrorKind::AlreadyExists);
        write_own_secret(&path, b"three").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"three".to_vec(), 0o600));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let open = write_new_secret(&folder.path().join("other"), b"one").unwrap_err();
        assert!(open.to_string().contains("0777"), "{open}");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        write_new_secret(&folder.path().join("other"), b"one").unwrap();
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let (_folder, path) = place("secret");
        fs::write(&path, "x\n").unwrap();
        for (wanted, read) in [
            (0o600, true),
            (0o400, true),
            (0o700, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
            (0o644, false),
            (0o601, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
            assert_eq!(read_secret_text(&path).is_ok(), read, "{wanted:o}");
        }
        let error = read_secret(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0601") && error.contains("chmod 600"), "{error}");
        assert!(read_secret(Path::new("/dev/null")).is_ok(), "a device is not kept");
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let (folder, path) = place("a/b/config.toml");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir_all(directory_of(&path)).unwrap();
        fs::write(&path, "x").unwrap();
        for (wanted, trusted) in
            [(0o644, true), (0o600, true), (0o664, false), (0o646, false), (0o666, false)]
        {
            set(&path, wanted);
            assert_eq!(read_trusted_text(&path).is_ok(), trusted, "{wanted:o}");
        }
        set(&path, 0o644);
        for above in [folder.path().join("a/b"), folder.path().join("a"), folder.path().to_owned()] {
            for (wanted, trusted) in [(0o777, false), (0o775, false), (0o1777, true), (0o755, true)] {
                set(&above, wanted);
                assert_eq!(read_trusted_text(&path).is_ok(), trusted, "{} {wanted:o}", above.display());
            }
        }
        // Through a link that is in order, to a folder that is not.
        let link = folder.path().join("link.toml");
        symlink(&path, &link).unwrap();
        assert!(read_trusted_text(&link).is_ok());
        set(&folder.path().join("a"), 0o777);
        let error = read_trusted_text(&link).unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
        assert!(read_trusted_text(Path::new("/dev/null")).is_ok());
    }

    /// Files are written here and nowhere else.
    #[test]
    fn no_other_module_writes_files() {
        // The agent puts a socket in place, a board's drive does not accept temporary files, and prompts write to the
        // terminal.
        let elsewhere = [
            "ca/src/files.rs",
            "cli/src/cli/agent.rs",
            "cli/src/flash.rs",
            "cli/src/cli/prompt.rs",
            "cli/src/cli/confirm.rs",
        ];
        let words = [
            "fs::write(",
            "File::create",
            "create_new(",
            "NamedTempFile",
            ".persist",
            "fs::rename(",
            "create(true)",
            ".write(true)",
        ];
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut folders: Vec<_> = ["client", "ca", "cli"].map(|name| host.join(name).join("src")).into();
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(host).unwrap();
                if name.ends_with("tests.rs") {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                seen += 1;
                for word in words {
                    let found =
                        text.contains(word) && !elsewhere.iter().any(|other| name == Path::new(other));
                    assert!(!found, "{} has {word}: write files with sshsm_ca::files", name.display());
                }
            }
        }
        assert!(seen > 120, "{seen}");
    }
}
