//! A certificate authority on a board, as its owner uses it: the real firmware under QEMU, driven by the real
//! `sshsm` over its serial port. The results are shown to the real `ssh-keygen` and used at a real `sshd`;
//! and power is lost in the middle of operations.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by stopping"
)]

use sshsm_client::{Client, ClientError, ExchangeError, Listener, Serial, Session};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Domains, Label, ObjectId, ObjectType,
    object::{ListFilter, NewObject},
};
use sshsm_tests::{
    binaries,
    key::{Key, KeyType, ssh_keygen},
    needs,
    process::{Finished, run_within},
    python::{python, run_client},
    qemu::Board,
    requirement::{Missing, shared_vector},
    simulator::Connector,
    ssh::{GREETING, Ssh},
    sshd::{Server, user},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

/// An emulated processor looks for primes.
const PATIENCE: Duration = Duration::from_secs(300);
const ADMINISTRATOR: &str = "administrator's password";
const SIGNER: &str = "signer's password";

/// A board, and its owner's files.
struct Owner {
    board: Board,
    directory: PathBuf,
}

impl Owner {
    /// A new board, and a template for its CA key under a timestamp key.
    fn new(directory: &Path) -> Result<Self, Missing> {
        let board = Board::start(&directory.join("board"))?;
        let _ = Key::generate(directory, "timestamp", KeyType::Ed25519)?;
        let template = "ca-keys = [5]\ntimestamp-key = \"timestamp.pub\"\nnot-before-offset = \"5m\"\n\
                        not-after-offset = \"8h\"\nforbid-principals = [\"root-everywhere\"]\n";
        fs::write(directory.join("template.toml"), template).unwrap();
        Ok(Self { board, directory: directory.to_owned() })
    }

    fn sshsm(&self, key: &str, password: &str, arguments: &[&str]) -> Finished {
        let mut command = binaries::sshsm();
        command
            .current_dir(&self.directory)
            .env("SSHSM_DEVICE", format!("serial:{}", self.board.port().display()))
            .env("SSHSM_PASSWORD", password)
            .env("SSHSM_LEDGER", "ledger.sqlite")
            .env("SSHSM_AUTH_KEY", key)
            .env("SSHSM_NEW_PASSWORD", ADMINISTRATOR)
            .env("SSHSM_SIGNER_PASSWORD", SIGNER)
            .args(arguments);
        run_within(PATIENCE, &mut command)
    }

    /// Makes the fresh board a CA token and returns the CA key that it printed.
    fn provision(&self, algorithm: &str) -> Key {
        let arguments = ["provision", "--template", "template.toml", "--algorithm", algorithm];
        let printed = self.sshsm("1", "password", &arguments).success().stdout;
        let private = self.directory.join("ca");
        let public = self.directory.join("ca.pub");
        fs::write(&public, printed).unwrap();
        Key { key_type: KeyType::Ed25519, private, public }
    }

    fn sign(&self, ca_key: &str, template: &str, principals: &str) -> Finished {
        let arguments = ["sign", "-s", ca_key, "-t", template, "--timestamp-key", "timestamp"];
        let more = ["-I", "alice", "-n", principals, "-V", "+1h", "-z", "7", "user.pub"];
        self.sshsm("2", SIGNER, &[&arguments[..], &more].concat())
    }

    /// Signs a user's key, shows the certificate to `ssh-keygen -L`, and logs in with it.
    fn certify(&self, ca_key: &str, template: &str, authority: &Key, user_key: &Key) -> Result<(), Missing> {
        let _ = self.sign(ca_key, template, "zone-web").success();
        let mut show = ssh_keygen()?;
        let shown = run_within(PATIENCE, show.arg("-L").arg("-f").arg(user_key.certificate())).success();
        assert!(shown.stdout.contains("zone-web") && shown.stdout.contains("Serial: 7"), "{shown}");
        let sshd = Server::trusting(authority, &["zone-web"]).start()?;
        let ssh = Ssh::with_certificate(user_key).knowing("server", &sshd);
        let (client, log) = sshd.visit(|| ssh.login("server"))?;
        assert!(client.status.success(), "{client}\n--- sshd\n{log}");
        assert_eq!(client.stdout.trim(), GREETING);
        assert!(log.contains(&format!("Accepted publickey for {} ", user())), "{log}");
        Ok(())
    }
}

fn provisions_signs_and_logs_in(algorithm: &str) {
    let directory = tempfile::tempdir().unwrap();
    let owner = needs!(Owner::new(directory.path()));
    let user_key = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let authority = owner.provision(algorithm);
    needs!(owner.certify("5", "10", &authority, &user_key));

    let refused = owner.sign("5", "10", "zone-web,root-everywhere");
    assert_eq!(refused.status.code(), Some(5), "{refused}");
    assert!(refused.stderr.contains("root-everywhere"), "{refused}");
    let default = owner.sshsm("1", "password", &["device", "storage"]);
    assert_eq!(default.status.code(), Some(4), "the default password is gone: {default}");
}

macro_rules! authorities {
    ($($name:ident $algorithm:literal)*) => {$(
        #[test]
        fn $name() {
            provisions_signs_and_logs_in($algorithm);
        }
    )*};
}

authorities! {
    an_ed25519_authority_is_provisioned_signs_and_logs_in "ed25519"
    a_p256_authority_is_provisioned_signs_and_logs_in "ecp256"
    a_p384_authority_is_provisioned_signs_and_logs_in "ecp384"
    a_p521_authority_is_provisioned_signs_and_logs_in "ecp521"
    an_rsa2048_authority_is_provisioned_signs_and_logs_in "rsa2048"
}

/// Finding their primes takes an emulated processor minutes; they are generated outside and imported.
#[test]
fn larger_rsa_authorities_sign_and_log_in() {
    let directory = tempfile::tempdir().unwrap();
    let owner = needs!(Owner::new(directory.path()));
    let user_key = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let _ = owner.provision("ed25519");
    for (bits, id, template) in [("3072", "6", "11"), ("4096", "7", "12")] {
        let private = directory.path().join(format!("rsa{bits}"));
        let mut keygen = needs!(ssh_keygen());
        keygen.args(["-q", "-N", "", "-t", "rsa", "-b", bits, "-f"]).arg(&private);
        let _ = run_within(PATIENCE, &mut keygen).success();
        let public = private.with_extension("pub");
        let authority = Key { key_type: KeyType::Rsa2048, private, public };
        let _ = owner
            .sshsm("1", ADMINISTRATOR, &["key", "import", authority.private.to_str().unwrap(), "--id", id])
            .success();
        let text = fs::read_to_string(directory.path().join("template.toml")).unwrap();
        fs::write(directory.path().join("other.toml"), text.replace("[5]", &format!("[{id}]"))).unwrap();
        let _ =
            owner.sshsm("1", ADMINISTRATOR, &["template", "put", "other.toml", "--id", template]).success();
        needs!(owner.certify(id, template, &authority, &user_key));
    }
}

/// A client of the board on a port; errors are the caller's to judge.
fn client(port: &Path) -> Result<Client, ClientError> {
    let serial = Serial::open(port.to_str().unwrap(), Listener::default())?;
    Client::connect(Box::new(serial), Listener::default())
}

fn object(id: u16, capabilities: &[Capability], algorithm: Algorithm) -> NewObject {
    NewObject {
        id: Some(ObjectId::new(id).unwrap()),
        label: Label::new("kept").unwrap(),
        domains: Domains::ALL,
        capabilities: Capabilities::of(capabilities),
        algorithm,
    }
}

/// The template that a round stores under an id: longer than one piece of the store, and all of it depends on
/// the id.
fn content(id: u16) -> Vec<u8> {
    (0..1200).map(|place: u16| (place.wrapping_mul(31) ^ id.wrapping_mul(7)).to_le_bytes()[0]).collect()
}

const ROUNDS: u16 = 60;
const FIRST: u16 = 100;
const KEY: u16 = 5;

/// Stores templates and signs until the plug is pulled; collects the ids that the board acknowledged.
fn work(
    port: &Path,
    begun: &Sender<()>,
    acknowledged: &mut Vec<u16>,
    next: &mut u16,
) -> Result<(), ClientError> {
    let mut client = client(port)?;
    let mut session = Session::open(&mut client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password")?;
    begun.send(()).unwrap();
    loop {
        let id = *next;
        *next += 1;
        session.put_template(&object(id, &[], Algorithm::TemplateSsh), &content(id))?;
        acknowledged.push(id);
        session.sign_ecdsa(ObjectId::new(KEY).unwrap(), &[7; 32])?;
        if acknowledged.len() > 40 {
            // Room for the next rounds.
            let oldest = ObjectId::new(acknowledged.remove(0)).unwrap();
            session.delete_object(oldest, ObjectType::Template)?;
        }
    }
}

#[test]
fn a_board_whose_plug_is_pulled_at_random_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut next, mut moments) = (Vec::new(), FIRST, 0x2545_f491_u32);
    {
        let board = needs!(Board::start(directory.path()));
        let mut client = client(board.port()).unwrap();
        let mut session =
            Session::open(&mut client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap();
        let key = object(KEY, &[Capability::SignEcdsa], Algorithm::Ecp256);
        session.generate_asymmetric_key(&key).unwrap();
    }
    for round in 0..ROUNDS {
        let board = needs!(Board::start(directory.path()));
        let before = acknowledged.len();
        // xorshift: 0 to 255 ms
        moments ^= moments << 13;
        moments ^= moments >> 17;
        moments ^= moments << 5;
        let moment = Duration::from_millis(u64::from(moments % 256));
        let port = board.port().to_owned();
        let last = thread::scope(|scope| {
            let (begun, begins) = mpsc::channel();
            let (acknowledged, next) = (&mut acknowledged, &mut next);
            let worker = scope.spawn(|| work(&port, &{ begun }, acknowledged, next));
            begins.recv().unwrap();
            thread::sleep(moment);
            drop(board);
            worker.join().unwrap()
        });
        assert!(matches!(last, Err(ClientError::Exchange(_))), "round {round}: {last:?}");

        let board = needs!(Board::start(directory.path()));
        let mut client = client(board.port()).unwrap();
        let mut session =
            Session::open(&mut client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap();
        let filter = ListFilter { object_type: Some(ObjectType::Template), ..ListFilter::default() };
        let found: Vec<u16> =
            session.list_objects(&filter).unwrap().into_iter().map(|entry| entry.id.get()).collect();
        for id in &found {
            assert_eq!(session.template(ObjectId::new(*id).unwrap()).unwrap(), content(*id), "template {id}");
        }
        // Acknowledged objects are there; the last one requested may be, and a last deletion may or may not
        // have happened.
        let lost: Vec<&u16> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {acknowledged:?} are gone");
        let more: Vec<u16> = found.into_iter().filter(|id| !acknowledged.contains(id)).collect();
        assert!(more.len() <= 1, "round {round}: {more:?} beside {acknowledged:?}");
        acknowledged.extend(more);
        acknowledged.sort_unstable();
        session.sign_ecdsa(ObjectId::new(KEY).unwrap(), &[7; 32]).unwrap();
        println!("round {round}: {} templates acknowledged before, {} now", before, acknowledged.len());
    }
    assert!(next > FIRST + ROUNDS, "the rounds did something: {next}");
}

#[test]
fn a_port_whose_board_died_is_an_interruption_not_a_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(directory.path()));
    let mut client = client(board.port()).unwrap();
    let mut session = Session::open(&mut client, ObjectId::DEFAULT_AUTHENTICATION_KEY, "password").unwrap();
    drop(board);
    let error = session.echo(b"anybody?").unwrap_err();
    assert!(matches!(error, ClientError::Exchange(ExchangeError::Interrupted { .. })), "{error:?}");
}

#[test]
fn a_board_signs_when_its_button_is_pressed_and_reports_when_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let owner = needs!(Owner::new(directory.path()));
    let user_key = needs!(Key::generate(directory.path(), "user", KeyType::Ed25519));
    let _ = owner.provision("ecp256");
    let button = directory.path().join("board/button");
    let pressed = |run: &(dyn Fn() -> Finished + Sync)| {
        thread::scope(|scope| {
            let running = scope.spawn(run);
            while !running.is_finished() {
                thread::sleep(Duration::from_millis(200));
                fs::write(&button, "").unwrap();
                thread::sleep(Duration::from_millis(200));
                fs::remove_file(&button).unwrap();
            }
            running.join().unwrap()
        })
    };
    // Setting the option takes a touch too: a button that does not work would lock the key away.
    let certificates = |timeout| {
        let line = ["device", "option", "set", "user-presence", "certificates", "--timeout", timeout];
        let _ = pressed(&|| owner.sshsm("1", ADMINISTRATOR, &line)).success();
    };

    certificates("3");
    fs::write(&button, "").unwrap();
    let held = owner.sign("5", "10", "zone-web");
    assert_eq!(held.status.code(), Some(7), "a button that is held down is not a touch: {held}");
    assert!(held.stderr.contains("touch the device (it waits 3 s)"), "{held}");
    assert!(!user_key.certificate().exists());

    fs::remove_file(&button).unwrap();
    certificates("200");
    let _ = pressed(&|| owner.sign("5", "10", "zone-web")).success();
    assert!(user_key.certificate().exists());
}

#[test]
fn yubicos_python_client_reaches_a_board_through_the_connector() {
    let python = needs!(python());
    let directory = tempfile::tempdir().unwrap();
    let board = needs!(Board::start(directory.path()));
    let connector = Connector::before(&format!("serial:{}", board.port().display()));
    let vector = needs!(shared_vector("yubihsm2-ssh.json"));
    run_client(&python, connector.url(), &["Everyday", "HardwareVector"], Some(&vector));
}
