//! The command line: `sshsm [global options] NOUN VERB …`, one file per noun.
//!
//! Results go to stdout, messages to stderr. [`Exit`] has the meaning of exit codes, and `sshsm --help`
//! prints it.

#[cfg(unix)]
mod agent;
mod arguments;
mod audit;
mod authentication_key;
mod backup;
mod beside_key;
mod board;
mod ca;
mod configuration;
#[cfg(unix)]
mod confirm;
mod connector;
mod content;
mod device;
mod device_option;
mod error;
mod flash;
#[cfg(unix)]
mod hardening;
mod key;
mod krl;
mod ledger;
mod notice;
mod password;
mod prompt;
mod provision;
mod quickstart;
mod request;
mod revoke;
mod secure_boot;
mod service;
mod shell;
mod sign;
mod template;
mod timestamp;
mod timestamp_source;

use std::{
    collections::HashSet,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};
use sshsm_protocol::{AsymmetricAlgorithm, Curve, ObjectId, channel::Point};

use crate::{
    authority::FACTORY_PASSWORD,
    output::{self, Format},
};
use configuration::Configuration;
use error::CliError;
pub use error::Exit;
use notice::listener;
use password::PasswordFile;
use sshsm_ca::{
    device_address::{DeviceAddress, OpenError},
    device_key, key_file,
};
use sshsm_client::{Client, Credential, Exchange, Session};

/// An open hardware security module for SSH certificate authorities
///
/// sshsm drives a device that holds a CA key and signs only what its template allows. The device is a
/// simulator in this process (sim:), a board on a serial port (serial:), or any device behind a YubiHSM
/// connector (http://HOST:PORT). A CA key on a PKCS#11 token (pkcs11:…) also signs only what a template
/// allows; there this program enforces it.
#[derive(Debug, Parser)]
#[command(name = "sshsm", version, max_term_width = 110, disable_help_flag = true, after_help = EXIT_CODES)]
#[command(propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 device unreachable or broken,
4 authentication failed, 5 refused by policy, 6 a file could not be read or written,
7 the device was not touched in time.

The password of the authentication key comes from --password-file, SSHSM_PASSWORD or a prompt, the PIN of a PKCS#11 token
from the pin-source of its URI, SSHSM_PIN or a prompt; never from an argument.";

#[derive(Debug, Args)]
struct Globals {
    /// The device: sim:[DIR] (simulator in this process), serial:[PATH] (board on a serial port),
    /// http://HOST:PORT (YubiHSM connector), or for `sign` and `device list` a key on a PKCS#11 token
    /// (pkcs11:…, RFC 7512)
    ///
    /// sim: without a directory keeps its state in $XDG_DATA_HOME/sshsm/simulator
    /// (~/.local/share/sshsm/simulator); serial: without a path is the only board plugged in. `sign` takes
    /// several devices that hold the same CA key.
    #[arg(long, global = true, env = "SSHSM_DEVICE", value_name = "DEV", default_value = "sim:")]
    #[arg(help_heading = "Device", value_parser = arguments::Address::<DeviceAddress>::default())]
    device: Vec<DeviceAddress>,
    /// Id of the authentication key that opens the session
    #[arg(long, global = true, env = "SSHSM_AUTH_KEY", value_name = "ID", default_value = "1")]
    #[arg(value_parser = arguments::object_id, help_heading = "Device")]
    auth_key: ObjectId,
    /// File with the password of the authentication key; a final newline does not count
    #[arg(long, global = true, value_name = "FILE", help_heading = "Device")]
    password_file: Option<PathBuf>,
    /// File with the P-256 private key for an authentication key that holds its public half, instead of a
    /// password
    #[arg(long, global = true, env = "SSHSM_AUTH_KEY_FILE", value_name = "FILE", help_heading = "Device")]
    #[arg(conflicts_with = "password_file")]
    auth_key_file: Option<PathBuf>,
    /// File with the device's own public key, as `device public-key` prints it: with --auth-key-file, no
    /// other device is accepted. Without it, the device that answers is trusted, unless it is on a network
    #[arg(long, global = true, env = "SSHSM_DEVICE_KEY", value_name = "FILE", help_heading = "Device")]
    device_key: Option<PathBuf>,
    /// Read this configuration file instead of /etc/sshsm/config.toml and ~/.config/sshsm/config.toml
    #[arg(long, global = true, env = "SSHSM_CONFIG", value_name = "FILE", help_heading = "Output")]
    config: Option<PathBuf>,
    /// The ledger: the SQLite file that every certificate is recorded in; none for none
    ///
    /// Without this option, $XDG_STATE_HOME/sshsm/ledger.sqlite (~/.local/state/sshsm/ledger.sqlite).
    #[arg(long, global = true, env = "SSHSM_LEDGER", value_name = "FILE", help_heading = "Output")]
    ledger: Option<arguments::LedgerChoice>,
    /// How data is printed on stdout
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    format: Format,
    // sign needs -h, ssh-keygen's letter for host certificates; so help is --help everywhere.
    /// Print help
    #[arg(long, global = true, action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
enum Command {
    /// Create a CA in a directory, sign a certificate with it, and show a refusal
    Quickstart(quickstart::Quickstart),
    /// The device itself
    #[command(subcommand)]
    Device(device::Device),
    /// CA keys on the device
    #[command(subcommand)]
    Key(key::Key),
    /// Passwords and public keys that open sessions, and what each of them may do
    #[command(subcommand)]
    AuthenticationKey(authentication_key::AuthenticationKeyVerb),
    /// Templates: what a CA key may sign
    #[command(subcommand)]
    Template(template::Template),
    /// Make a fresh device a CA token: a new password, a CA key, a template, a key that can only sign
    Provision(provision::Provision),
    /// The objects of a device in a file, and onto another device
    #[command(subcommand)]
    Backup(backup::BackupVerb),
    /// Install the sshsm firmware on a board
    Flash(flash::Flash),
    /// RP2350's own defences: signed images, and memory that is closed permanently
    #[command(subcommand)]
    Board(secure_boot::BoardVerb),
    /// Serve the device to clients of YubiHSM 2, over their connector's HTTP
    Connector(connector::Connector),
    /// Sign public keys: ssh-keygen -s, with the CA key and the policy on the device
    Sign(sign::Sign),
    /// Print what makes a shell complete the commands and options of sshsm
    Completions(shell::Completions),
    /// Write the man pages, one a command, to a directory
    Man(shell::Manual),
    /// Run an ssh-agent that signs certificates with the CA keys, for ssh-keygen -Us, and nothing else
    #[cfg(unix)]
    Agent(agent::Agent),
    /// Requests for certificates, in files that travel
    #[command(subcommand)]
    Request(request::RequestVerb),
    /// The timestamp authority, which signs the time of requests
    #[command(subcommand)]
    Timestamp(timestamp::TimestampVerb),
    /// What was signed, for whom and when
    #[command(subcommand)]
    Ledger(ledger::LedgerVerb),
    /// Revoke certificates, keys, or a CA; `krl build` writes the list for sshd
    Revoke(revoke::Revoke),
    /// Key revocation lists for sshd
    #[command(subcommand)]
    Krl(krl::Krl),
    /// The device's audit log: kept, checked, and compared with the ledger
    Audit(audit::Audit),
}

/// What every command is given: the global options.
struct Context {
    globals: Globals,
    configuration: Configuration,
    /// The device was named on the command line.
    device_named: bool,
    /// So was the ledger.
    ledger_named: bool,
    explicit: Explicit,
}

/// The options given on the command line or in the environment, which override the configuration of a CA.
struct Explicit {
    device: bool,
    auth_key: bool,
    password_file: bool,
    /// Options of the command itself.
    own: HashSet<String>,
}

impl Context {
    /// A file with a new password, of this option of the command.
    fn new_password_file(&self, option: &str, path: &Option<PathBuf>) -> PasswordFile {
        PasswordFile { path: path.clone(), explicit: self.explicit.own.contains(option) }
    }

    fn format(&self) -> Format {
        self.globals.format
    }

    /// The one device of a command that is about one.
    fn device(&self) -> Result<&DeviceAddress, CliError> {
        match self.globals.device.as_slice() {
            [device] => Ok(device),
            _ => Err(CliError::Usage("this command is about one device; name one --device".into())),
        }
    }

    /// Connects to a device that is there.
    fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(self.device()?.open_existing(&listener())?, listener())?)
    }

    /// Connects to the device, for a command that puts something on it: a missing simulator is created, and
    /// reported as new.
    fn client_to_change(&self) -> Result<Client, CliError> {
        Ok(Client::connect(open_or_make(self.device()?)?, listener())?)
    }

    /// Opens a session with the authentication key of the global options.
    fn session<'c>(&self, client: &'c mut Client) -> Result<Session<'c>, CliError> {
        let credential = self.credential(client)?;
        Ok(Session::open_with(client, self.globals.auth_key, &credential)?)
    }

    /// The credential for a session with the authentication key of the global options: obtained before the
    /// session begins, which does not wait for the user to type.
    fn credential(&self, client: &mut Client) -> Result<Credential, CliError> {
        let Globals { auth_key, password_file, auth_key_file, .. } = &self.globals;
        match auth_key_file {
            Some(file) => {
                known_device(self.globals.device_key.as_deref(), self.device()?, client, private_key(file)?)
            }
            None => {
                let file =
                    PasswordFile { path: password_file.clone(), explicit: self.explicit.password_file };
                password::read(&file, *auth_key, &client.describe()).map(Credential::Password)
            }
        }
    }
}

/// Opens a device; a missing simulator is created, and reported as new.
fn open_or_make(device: &DeviceAddress) -> Result<Box<dyn Exchange>, OpenError> {
    let missing = device.missing_simulator()?;
    let exchange = device.open(&listener())?;
    if let Some(directory) = missing {
        output::talk(format_args!(
            "a new simulated device was made in {}; its authentication key 1 has the password \"{FACTORY_PASSWORD}\"",
            output::shown(&directory)
        ));
    }
    Ok(exchange)
}

/// A private key, together with the public key of the device that it opens sessions with: the one in `file`,
/// or, if no one can be in between, the one that the device itself reports.
fn known_device(
    file: Option<&Path>,
    address: &DeviceAddress,
    client: &mut Client,
    key: p256::SecretKey,
) -> Result<Credential, CliError> {
    let device = match file {
        Some(file) => public_point(file)?,
        None if address.is_remote() => {
            return Err(CliError::Usage(
                "who relays could say another device's public key: name it with --device-key FILE; `sshsm device \
                 public-key` prints it at the computer that the device is plugged into"
                    .into(),
            ));
        }
        None => client.device_public_key()?,
    };
    Ok(Credential::PrivateKey { key, device })
}

/// The P-256 private key in a file.
fn private_key(file: &Path) -> Result<p256::SecretKey, CliError> {
    let unusable =
        |error| CliError::content("the private key of the authentication key cannot be used", error);
    let mut passphrase = || password::key_passphrase(file);
    let key = key_file::read_private(file, &mut passphrase)
        .map_err(|error| CliError::content("no private key of the authentication key", error))?;
    match device_key::raw_private(&key).map_err(unusable)? {
        (AsymmetricAlgorithm::Ec(Curve::P256), scalar) => p256::SecretKey::from_slice(&scalar)
            .map_err(|error| CliError::because(output::shown(file), error.to_string())),
        (found, _) => Err(not_p256(file, found)),
    }
}

/// The P-256 public key in a file, `04 ‖ X ‖ Y`.
fn public_point(file: &Path) -> Result<Point, CliError> {
    let key = key_file::read_public(file).map_err(|error| CliError::content("no public key", error))?;
    let (algorithm, raw) = device_key::raw_public(key.key_data())
        .map_err(|error| CliError::content(output::shown(file), error))?;
    match (algorithm, Point::try_from([&[4], raw.as_slice()].concat())) {
        (AsymmetricAlgorithm::Ec(Curve::P256), Ok(point)) => Ok(point),
        _ => Err(not_p256(file, algorithm)),
    }
}

fn not_p256(file: &Path, found: AsymmetricAlgorithm) -> CliError {
    CliError::Usage(format!(
        "{} is an {found} key, and P-256 is needed: ssh-keygen -t ecdsa -b 256",
        output::shown(file)
    ))
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    #[cfg(unix)]
    if let Err(error) = hardening::close_memory() {
        output::talk(format_args!("the memory of this process can be read by others of its user: {error}"));
    }
    let arguments: Vec<_> = env::args_os().collect();
    let configuration = match Configuration::load(&arguments) {
        Ok(configuration) => configuration,
        Err(error) => return failed(&error.into()),
    };
    let tree = match configuration.apply(command_tree()) {
        Ok(tree) => tree,
        Err(error) => return failed(&error.into()),
    };
    let parsed = tree.try_get_matches_from(arguments).and_then(|matches| {
        CommandLine::from_arg_matches(&matches).map(|command_line| (command_line, matches))
    });
    let (CommandLine { globals, command }, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            if !error.use_stderr() {
                // There is no one to tell when the terminal is gone.
                let _ = error.print();
                return Exit::Done.into();
            }
            output::talk(error.render().to_string().trim_end());
            for file in configuration.files() {
                output::talk(format_args!("options were also read from {}", output::shown(file)));
            }
            return Exit::Usage.into();
        }
    };
    let given = |option| {
        matches!(matches.value_source(option), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let context = Context {
        globals,
        configuration,
        device_named: matches.value_source("device") == Some(ValueSource::CommandLine),
        ledger_named: matches.value_source("ledger") == Some(ValueSource::CommandLine),
        explicit: Explicit {
            device: given("device"),
            auth_key: given("auth_key"),
            password_file: given("password_file"),
            own: given_to_the_command(&matches),
        },
    };
    let result = match command {
        Command::Quickstart(quickstart) => quickstart.run(&context),
        Command::Device(device) => device.run(&context),
        Command::Key(key) => key.run(&context),
        Command::AuthenticationKey(verb) => verb.run(&context),
        Command::Template(template) => template.run(&context),
        Command::Provision(provision) => provision.run(&context),
        Command::Backup(verb) => verb.run(&context),
        Command::Flash(flash) => flash.run(&context),
        Command::Board(verb) => verb.run(&context),
        Command::Connector(connector) => connector.run(&context),
        Command::Sign(sign) => sign.run(&context),
        Command::Completions(completions) => completions.run(&context),
        Command::Man(manual) => manual.run(&context),
        #[cfg(unix)]
        Command::Agent(agent) => match agent.run(&context) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Request(verb) => verb.run(&context),
        Command::Timestamp(verb) => verb.run(&context),
        Command::Ledger(verb) => verb.run(&context),
        Command::Revoke(revoke) => revoke.run(&context),
        Command::Krl(krl) => krl.run(&context),
        Command::Audit(audit) => audit.run(&context),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(error) => failed(&error),
    }
}

/// Parses the text of a configuration file as this process would read the file at `path`; nothing is opened.
///
/// # Errors
/// What is wrong with it, as shown on stderr.
pub fn check_configuration(path: &Path, text: &str) -> Result<(), String> {
    let mut configuration = Configuration::default();
    let read = configuration.parse(path.to_owned(), text);
    let applied = read.and_then(|()| configuration.apply(command_tree()).map(drop));
    applied.map_err(|error| CliError::from(error).report())
}

/// The options of the innermost command that the command line or the environment gives.
fn given_to_the_command(matches: &ArgMatches) -> HashSet<String> {
    let mut command = matches;
    while let Some((_, inner)) = command.subcommand() {
        command = inner;
    }
    let given = |id: &&clap::Id| {
        matches!(command.value_source(id.as_str()), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    command.ids().filter(given).map(ToString::to_string).collect()
}

fn failed(error: &CliError) -> ExitCode {
    output::talk(error.report().trim_end());
    error.exit().into()
}

/// The whole tree of commands and arguments, for manual pages and shell completions.
#[must_use]
pub fn command_tree() -> clap::Command {
    configuration::with_environment(CommandLine::command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_arguments_is_consistent() {
        command_tree().debug_assert();
    }

    #[test]
    fn global_options_are_accepted_anywhere() {
        for line in [
            "sshsm --device sim:x --format json device info",
            "sshsm device --device sim:x info --format json",
            "sshsm device info --device sim:x --format json",
        ] {
            let CommandLine { globals, .. } = CommandLine::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((globals.device, globals.format), (vec!["sim:x".parse().unwrap()], Format::Json));
        }
    }

    #[test]
    fn no_option_takes_a_password() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let takes_one = argument.get_action().takes_values() && id.contains("password");
                assert!(!takes_one || id.ends_with("password_file"), "{id}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&command_tree());
    }
}
