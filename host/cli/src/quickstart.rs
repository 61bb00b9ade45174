//! The first five minutes: a certificate authority in a directory, created, used and explained step by step.
//!
//! It can be run again on its own directory: existing files are kept, missing ones are created, and only the
//! certificate is signed again. No key is ever replaced, and a directory that it did not create is not
//! touched.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use ssh_key::{
    LineEnding, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
};
use sshsm_protocol::{
    AsymmetricAlgorithm, Capabilities, Label, ObjectId, ObjectType,
    ssh::{Printable, request::CertificateKind, template::Template},
};
use zeroize::Zeroizing;

use crate::{
    authority::{self, Outcome},
    output::{lossy, shown},
};
use sshsm_ca::{
    certificate_options::{CertificateOptions, OptionError},
    child,
    device_address::{DeviceAddress, OpenError},
    device_key::DeviceKeyError,
    duration,
    explanation::Explanation,
    files::{self, Kind, Replace},
    issue::{IssueError, Issuer, Tried},
    key_file::{self, KeyFileError},
    ledger::Serial,
    request::Content,
    signer::{DeviceSigner, Signer, SignerError, TimedRequest},
    template::{
        describe,
        file::{self, TemplateFileError},
    },
    timestamp::{TimestampAuthority, TimestampError},
    validity::{Validity, ValidityError},
};
use sshsm_client::{
    Client, ClientError, Listener, Session,
    failure::{self, Failure},
};

/// Marks a directory that was created here.
const MARKER: &str = ".sshsm-quickstart";
const CA_KEY: ObjectId = constant_id(5);
const TEMPLATE: ObjectId = constant_id(10);
/// The name that the certificate carries and that servers let in.
const PRINCIPAL: &str = "quickstart";

/// Checked at compile time.
const fn constant_id(number: u16) -> ObjectId {
    match ObjectId::new(number) {
        Ok(id) => id,
        Err(_) => ObjectId::DEFAULT_AUTHENTICATION_KEY,
    }
}

const _: () = assert!(CA_KEY.get() == 5 && TEMPLATE.get() == 10);

const TEMPLATE_TEXT: &str = "\
# What CA key 5 may sign: certificates of at most ten hours, five minutes of clock skew, never for root.
ca-keys = [0x0005]
not-before-offset = \"5m\"
not-after-offset = \"10h\"
forbid-principals = [\"root\"]
timestamp-key = \"timestamp.pub\"
";

/// Why the quickstart stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuickstartError {
    /// A directory that it did not create.
    #[error("{} is not empty and was not made by quickstart; nothing was changed: name another directory", shown(.0))]
    NotOurs(PathBuf),
    /// A directory in which others could put files.
    #[error(
        "{} belongs to another user, or others can write there; nothing was changed: name another directory, or take \
         their rights away (chmod go-w)", shown(.0)
    )]
    NotPrivate(PathBuf),
    /// The device was given another password since.
    #[error(
        "the device in {place} opens with neither the password in {place}/password nor the factory's; nothing was changed: \
         put the right password there, or move the directory away and run quickstart again", place = shown(.0)
    )]
    Locked(PathBuf),
    /// The template on the device was changed so that it refuses what quickstart requests.
    #[error("the device's template refuses the quickstart's own request:\n{0}")]
    Refused(Box<Explanation>),
    /// The policy does not hold.
    #[error("the device signed a certificate for root, which its template forbids; only the ledger has it")]
    NotRefused,
    /// A file could not be read or written.
    #[error("cannot use {}", shown(path))]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The steps could not be printed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The operating system supplies no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Entropy(getrandom::Error),
    /// A key could not be written down.
    #[error("cannot encode a key")]
    Key(#[from] ssh_key::Error),
    /// A key file is not usable.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A key is not usable on the device.
    #[error(transparent)]
    DeviceKey(#[from] DeviceKeyError),
    /// The simulator does not start.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The device refuses a command.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No certificate came of it.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// No certificate came of it, or it could not be recorded.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The template's text was changed to something invalid.
    #[error(transparent)]
    Template(#[from] TemplateFileError),
    /// The timestamp key cannot be used.
    #[error(transparent)]
    Timestamp(#[from] TimestampError),
    /// A fixed text of the quickstart is wrong.
    #[error(transparent)]
    Validity(#[from] ValidityError),
    /// A fixed text of the quickstart is wrong.
    #[error(transparent)]
    Options(#[from] OptionError),
}

impl Failure for QuickstartError {
    fn kind(&self) -> failure::Kind {
        match self {
            Self::Locked(_) => failure::Kind::Authentication,
            Self::Refused(_) => failure::Kind::Refused,
            Self::NotRefused => failure::Kind::Device,
            Self::File { source, .. } => source.into(),
            Self::Output(_) => failure::Kind::File,
            Self::KeyFile(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Signer(error) => error.kind(),
            Self::Issue(error) => error.kind(),
            Self::Template(error) => error.kind(),
            Self::Timestamp(error) => error.kind(),
            Self::NotOurs(_)
            | Self::NotPrivate(_)
            | Self::Entropy(_)
            | Self::Key(_)
            | Self::DeviceKey(_)
            | Self::Validity(_)
            | Self::Options(_) => failure::Kind::Failed,
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Open(error) => error.help(),
            Self::Client(error) => error.help(),
            Self::Signer(error) => error.help(),
            Self::Issue(error) => error.help(),
            Self::NotOurs(_)
            | Self::NotPrivate(_)
            | Self::Locked(_)
            | Self::Refused(_)
            | Self::NotRefused
            | Self::File { .. }
            | Self::Output(_)
            | Self::Entropy(_)
            | Self::Key(_)
            | Self::KeyFile(_)
            | Self::DeviceKey(_)
            | Self::Template(_)
            | Self::Timestamp(_)
            | Self::Validity(_)
            | Self::Options(_) => None,
        }
    }
}

/// What there is afterwards.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The value of `--device`.
    pub device: String,
    /// File with the password of authentication key 1.
    #[serde(serialize_with = "lossy")]
    pub password_file: PathBuf,
    /// Id of the CA key.
    pub ca_key: u16,
    /// Id of the template.
    pub template: u16,
    /// The CA's public key, for servers.
    #[serde(serialize_with = "lossy")]
    pub ca_public_key: PathBuf,
    /// The timestamp authority's private key.
    #[serde(serialize_with = "lossy")]
    pub timestamp_key: PathBuf,
    /// The template's text.
    #[serde(serialize_with = "lossy")]
    pub template_file: PathBuf,
    /// The user's private key.
    #[serde(serialize_with = "lossy")]
    pub user_key: PathBuf,
    /// The certificate.
    #[serde(serialize_with = "lossy")]
    pub certificate: PathBuf,
    /// The template's verdict on a certificate for root: `refused`, unless it was changed.
    pub refusal: Explanation,
}

/// Creates, or continues, the authority in `directory`, and describes each step on `out`. `program` is how
/// the user started this program. The certificate is recorded like any other. `listener` receives what the
/// device waits for.
///
/// # Errors
/// [`QuickstartError`] says what stopped it; a second run continues from there.
pub fn run(
    directory: &Path,
    program: &Path,
    issuer: &Issuer,
    listener: &Listener,
    out: &mut dyn Write,
) -> Result<Summary, QuickstartError> {
    let program = quoted(program);
    let place = Place::claim(directory)?;
    let mut tale = Tale { out, step: 0 };
    tale.line(format_args!("A certificate authority for SSH in {}", shown(&place.0)))?;

    let device = DeviceAddress::Simulator(Some(place.path("simulator")));
    let mut client = Client::connect(device.open(listener)?, listener.clone())?;
    let mut session = place.open_session(&mut client)?;
    tale.step("A device", &[
        "The simulator holds keys and decides, as a board would. It no longer has the factory's password.",
        &format!("device:    {}", Printable(device.to_string().as_bytes())),
        &format!("password:  {}", shown(&place.path("password"))),
    ])?;

    let made = authority::ensure_ca_key(
        &mut session,
        CA_KEY,
        LABEL,
        AsymmetricAlgorithm::Ed25519,
        authority::CA_CAPABILITIES,
    )?;
    let ca_info = session.object_info(CA_KEY, ObjectType::AsymmetricKey)?;
    let authority_key = place.key_pair("timestamp", "timestamp authority")?;
    let user_key = place.key_pair("user", "quickstart user")?;
    let mut authority = TimestampAuthority::new(&authority_key, shown(&place.path("timestamp")).to_string())?;
    let template_note = place.ensure_template(&mut session, TEMPLATE)?;
    let template = session.template(TEMPLATE)?;

    let mut signer = DeviceSigner::new(&mut session, CA_KEY, TEMPLATE, None)?;
    let ca_public = PublicKey::new(signer.ca_key().clone(), "quickstart CA").to_openssh()?;
    place.write("ca.pub", format!("{ca_public}\n").as_bytes())?;
    tale.step(
        &format!("A CA key, {}", told(made)),
        &[
            &format!(
                "{}, {} on the device, which signs with it. Servers trust its public half:",
                ca_info.algorithm,
                ca_info.origin.name()
            ),
            &shown(&place.path("ca.pub")).to_string(),
            &ca_public,
        ],
    )?;
    tale.step(
        "A timestamp key",
        &[
            "A device has no clock that it could trust, so an authority signs the time of every request.",
            &shown(&place.path("timestamp")).to_string(),
        ],
    )?;
    tale.step(
        &format!("A template, {}", told(template_note)),
        &[
            "What the CA key may sign; the device checks every request against it, whoever asks.",
            &format!("{}, on the device as template {TEMPLATE}", shown(&place.path("template.toml"))),
        ],
    )?;
    let decoded = Template::decode(&template);
    match &decoded {
        Ok(template) => tale.block(&describe(template))?,
        Err(error) => tale.block(&format!("malformed: {error}\n"))?,
    }

    let content = |principal: &str| -> Result<Content, QuickstartError> {
        Ok(Content {
            kind: CertificateKind::User,
            serial: 1,
            key_id: "quickstart@example".into(),
            principals: vec![principal.into()],
            validity: Validity::parse("+1h")?,
            options: CertificateOptions::parse(CertificateKind::User, [""; 0])?,
        })
    };
    let user = user_key.public_key();
    let sign =
        |content: &mut Content, signer: &mut DeviceSigner<'_, '_>, authority: &mut TimestampAuthority| {
            let serial = match issuer.has_ledger() {
                true => Serial::Next,
                false => Serial::Given(content.serial),
            };
            issuer.issue(signer, user.key_data(), content, serial, |content, signer| {
                let timed = TimedRequest::new(user, content, signer.ca_key(), authority);
                timed.map_err(QuickstartError::Signer)
            })
        };
    let certificate = match sign(&mut content(PRINCIPAL)?, &mut signer, &mut authority)? {
        Tried::Signed(certificate) => certificate,
        Tried::Refused(timed) => {
            return Err(QuickstartError::Refused(Box::new(signer.explain(&timed)?)));
        }
    };
    place.write("user-cert.pub", certificate.line().as_bytes())?;
    let certificate = place.path("user-cert.pub");
    tale.step(
        "A certificate",
        &[
            &format!(
                "For one hour and the principal \"{PRINCIPAL}\": signed by the device, then verified here."
            ),
            &shown(&certificate).to_string(),
        ],
    )?;
    match child::command("ssh-keygen").arg("-L").arg("-f").arg(&certificate).output() {
        Ok(output) if output.status.success() => tale.block(&String::from_utf8_lossy(&output.stdout))?,
        Ok(output) => tale.block(&String::from_utf8_lossy(&output.stderr))?,
        Err(_) => tale.block("ssh-keygen is not installed here; `ssh-keygen -L -f` would print it\n")?,
    }

    let mut for_root = content("root")?;
    let timed = TimedRequest::new(user, &for_root, signer.ca_key(), &mut authority)?;
    let refusal = signer.explain(&timed)?;
    let (title, comment) = if refusal.is_refusal() {
        match sign(&mut for_root, &mut signer, &mut authority)? {
            Tried::Refused(_) => ("A refusal", "The device refused, for this reason:"),
            Tried::Signed(_) => return Err(QuickstartError::NotRefused),
        }
    } else {
        ("No refusal", "The current template allows it, so it was not signed:")
    };
    tale.step(title, &[&format!("The same request for the principal \"root\". {comment}")])?;
    tale.block(&refusal.to_string())?;

    tale.step(
        "A server that trusts it",
        &[&format!(
            "Copy {} to the server as /etc/ssh/sshsm_ca.pub, and add to its sshd_config:",
            quoted(&place.path("ca.pub"))
        )],
    )?;
    tale.block(
        "TrustedUserCAKeys /etc/ssh/sshsm_ca.pub\nAuthorizedPrincipalsFile /etc/ssh/auth_principals/%u\n",
    )?;
    tale.line(format_args!(
        "   /etc/ssh/auth_principals/USER lists the principals that may log in as USER: here, {PRINCIPAL}."
    ))?;

    tale.step("What to try next", &[])?;
    let sign = format!("{program} sign -s {CA_KEY} -t {TEMPLATE} --timestamp timestamp -I me -n {PRINCIPAL}");
    let too_late =
        decoded.ok().and_then(|template| template.not_after.seconds()).map_or_else(String::new, |most| {
            let later = duration::compact(u64::from(most) + 3600);
            format!(
                "{sign} -V +{later} user.pub   # refused: the template allows {}\n",
                duration::compact(most.into())
            )
        });
    tale.block(&format!(
        "cd {}\nexport SSHSM_DEVICE={}\nexport SSHSM_PASSWORD=\"$(cat password)\"\n\
         {program} key list\n\
         {program} template show {TEMPLATE}\n\
         {sign} -V +1h user.pub\n\
         {too_late}\
         {program} template check template.toml user-cert.pub --now +1d   # what it says to this one tomorrow\n\
         ssh -i user USER@SERVER\n",
        quoted(&place.0),
        quoted(Path::new(&device.to_string())),
    ))?;
    Ok(Summary {
        device: device.to_string(),
        password_file: place.path("password"),
        ca_key: CA_KEY.get(),
        template: TEMPLATE.get(),
        ca_public_key: place.path("ca.pub"),
        timestamp_key: place.path("timestamp"),
        template_file: place.path("template.toml"),
        user_key: place.path("user"),
        certificate,
        refusal,
    })
}

/// Whether something already existed, in words.
const fn told(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Made => "new",
        Outcome::Kept => "kept from an earlier run",
        Outcome::Differs => {
            "kept on the device although template.toml differs (`key delete 10 --type template`, then \
             `template put --id 10` would replace it)"
        }
    }
}

/// The quickstart's directory, absolute.
struct Place(PathBuf);

impl Place {
    /// Makes the directory, or recognises it as made here.
    fn claim(directory: &Path) -> Result<Self, QuickstartError> {
        let file = |source| QuickstartError::File { path: directory.to_owned(), source };
        files::make_private_directory(directory).map_err(file)?;
        let place = Self(fs::canonicalize(directory).map_err(file)?);
        if !private(&fs::metadata(&place.0).map_err(file)?) {
            return Err(QuickstartError::NotPrivate(place.0));
        }
        let marker = place.path(MARKER);
        // Neither looked for nor written through a link.
        if !marker.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            if fs::read_dir(&place.0).map_err(file)?.next().is_some() {
                return Err(QuickstartError::NotOurs(place.0));
            }
            let text = b"This directory was made by sshsm quickstart, which may continue with it.\n";
            files::write(&marker, text, Kind::Own, Replace::default())
                .map_err(|source| QuickstartError::File { path: marker, source })?;
        }
        files::remove_unfinished(&place.0).map_err(file)?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), QuickstartError> {
        let path = self.path(name);
        files::write(&path, content, Kind::Own, Replace::default())
            .map_err(|source| QuickstartError::File { path, source })
    }

    /// Writes a file that only its owner can read, and that is on the disk when this returns.
    fn write_secret(&self, name: &str, content: &[u8]) -> Result<(), QuickstartError> {
        let path = self.path(name);
        files::write_own_secret(&path, content).map_err(|source| QuickstartError::File { path, source })
    }

    /// Opens a session; a device with the factory password is first given a random one, which is in the file
    /// before it is on the device.
    fn open_session<'c>(&self, client: &'c mut Client) -> Result<Session<'c>, QuickstartError> {
        let path = self.path("password");
        let known = match files::read_secret_text(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(QuickstartError::File { path, source }),
        };
        let known = known.as_ref().map(|text| text.trim_end());
        match authority::administer(client, known, |_| self.new_password()) {
            Ok((session, _)) => Ok(session),
            Err(QuickstartError::Client(ClientError::WrongPassword(_))) => {
                Err(QuickstartError::Locked(self.0.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// A random password, in the file when this returns.
    fn new_password(&self) -> Result<Zeroizing<String>, QuickstartError> {
        let mut random = Zeroizing::new([0_u8; 16]);
        getrandom::fill(random.as_mut()).map_err(QuickstartError::Entropy)?;
        // In one piece of memory from the start, so that no copy of it is left behind.
        let mut line = Zeroizing::new(String::with_capacity(2 * random.len() + 1));
        for byte in random.iter() {
            let _ = fmt::Write::write_fmt(&mut *line, format_args!("{byte:02x}"));
        }
        line.push('\n');
        self.write_secret("password", line.as_bytes())?;
        line.pop();
        Ok(line)
    }

    /// The Ed25519 key pair in `name` and `name.pub`, made when absent.
    fn key_pair(&self, name: &str, comment: &str) -> Result<PrivateKey, QuickstartError> {
        let path = self.path(name);
        if !path.exists() {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut()).map_err(QuickstartError::Entropy)?;
            let key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), comment)?;
            self.write_secret(name, key.to_openssh(LineEnding::LF)?.as_bytes())?;
        }
        let key =
            key_file::read_private(&path, &mut || Err(io::Error::other("quickstart's keys have none")))?;
        self.write(&format!("{name}.pub"), format!("{}\n", key.public_key().to_openssh()?).as_bytes())?;
        Ok(key)
    }

    /// Puts the template on the device when it has none; a template that is there stays.
    fn ensure_template(&self, session: &mut Session<'_>, id: ObjectId) -> Result<Outcome, QuickstartError> {
        if !self.path("template.toml").exists() {
            self.write("template.toml", TEMPLATE_TEXT.as_bytes())?;
        }
        let wanted = file::load(&self.path("template.toml"))?;
        Ok(authority::ensure_template(session, id, LABEL, Capabilities::NONE, &wanted)?)
    }
}

/// What all objects of quickstart's are called.
const LABEL: Label = match Label::new("quickstart") {
    Ok(label) => label,
    Err(_) => panic!("the label is too long"),
};

/// Whether only this user (and root) can put anything into the directory.
#[cfg(unix)]
fn private(directory: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    directory.uid() == rustix::process::geteuid().as_raw() && directory.mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn private(_: &fs::Metadata) -> bool {
    true
}

/// A path quoted for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match text.chars().all(|c| c.is_alphanumeric() || "/._-:@+".contains(c)) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The output, in numbered steps.
struct Tale<'o> {
    out: &'o mut dyn Write,
    step: usize,
}

impl Tale<'_> {
    fn line(&mut self, text: fmt::Arguments<'_>) -> Result<(), QuickstartError> {
        writeln!(self.out, "{text}").map_err(QuickstartError::Output)
    }

    fn step(&mut self, title: &str, lines: &[&str]) -> Result<(), QuickstartError> {
        self.step += 1;
        let step = self.step;
        self.line(format_args!("\n{step}. {title}"))?;
        lines.iter().try_for_each(|text| self.line(format_args!("   {text}")))
    }

    fn block(&mut self, text: &str) -> Result<(), QuickstartError> {
        text.lines().try_for_each(|text| self.line(format_args!("     {text}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/it's me")), r"'/it'\''s me'");
    }

    #[test]
    fn a_strangers_directory_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("diary"), "private").unwrap();
        let result = run(
            directory.path(),
            Path::new("sshsm"),
            &Issuer::new(None, sshsm_ca::Listener::default()),
            &Listener::default(),
            &mut io::sink(),
        );
        assert!(matches!(result, Err(QuickstartError::NotOurs(_))), "{result:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
