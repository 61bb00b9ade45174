//! New secrets for a device that has the factory's password: what a relay on the way sees does not open to who knows that
//! password; another device than the one that was named gets none; and a run that is cut short anywhere goes on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use machine::{Machine, Run, ed25519};
use sshsm::{
    authority::FACTORY_PASSWORD,
    client::{Client, ClientError, Credential, Session},
    private_session::{Opening, PrivateSessionError},
    transport::{Transport, TransportError},
};
use sshsm_protocol::{
    Command, ObjectId, ObjectType,
    channel::{AuthenticationKey, DeviceChannel},
    frame::Frame,
    object::ListFilter,
};
use sshsm_simulator::{
    Simulator, SimulatorError,
    connector::{self, Backend, Settings, Status},
};
use zeroize::Zeroizing;

const ADMINISTRATOR: &str = "correct horse battery";
const SIGNER: &str = "staple of the signer";
const NEW: [(&str, &str); 2] = [("SSHSM_NEW_PASSWORD", ADMINISTRATOR), ("SSHSM_SIGNER_PASSWORD", SIGNER)];

/// Requests and answers, as they passed.
type Recorded = Arc<Mutex<Vec<(Vec<u8>, Vec<u8>)>>>;

/// A relay on 127.0.0.1 that passes on and writes down.
struct Listening {
    device: Simulator,
    recorded: Recorded,
}

impl Backend for Listening {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        let answer = self.device.transact(request)?;
        self.recorded.lock().unwrap().push((request.to_vec(), answer.clone()));
        Ok(answer)
    }

    fn status(&mut self) -> Status {
        Backend::status(&mut self.device)
    }
}

fn serve(device: impl Backend, settings: Settings) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            connector::serve(listener, device, settings, std::future::pending()).await.unwrap();
        });
    });
    port
}

/// A machine with a fresh device behind a relay that listens.
fn overheard() -> (Machine, Recorded) {
    let recorded = Recorded::default();
    let device = Simulator::memory().start().unwrap();
    let port = serve(Listening { device, recorded: Arc::clone(&recorded) }, Settings::default());
    let machine = Machine::with_device(&format!("http://127.0.0.1:{port}"));
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &[]);
    (machine, recorded)
}

/// What a reader of the recording who knows `password` sees: commands and their payloads.
fn read(recorded: &Recorded, password: &str) -> Vec<(u8, Vec<u8>)> {
    let key = AuthenticationKey::from_password(password.as_bytes());
    let mut sessions: HashMap<u8, DeviceChannel> = HashMap::new();
    let mut seen = Vec::new();
    for (request, answer) in recorded.lock().unwrap().iter() {
        let payload = &request[3..];
        match Command::from_code(request[0]) {
            Some(Command::CreateSession) if payload.len() == 10 && answer[0] == 0x83 => {
                let (host, card) = (payload[2..].try_into().unwrap(), answer[4..12].try_into().unwrap());
                sessions.insert(answer[3], DeviceChannel::derive(answer[3], &key, host, card));
            }
            Some(Command::CreateSession) if answer[0] == 0x83 => drop(sessions.remove(&answer[3])),
            Some(Command::AuthenticateSession) => {
                let known = sessions.get_mut(&payload[0]).is_some_and(|session| {
                    let (cryptogram, mac) = payload[1..].split_at(8);
                    session.authenticate(cryptogram.try_into().unwrap(), mac.try_into().unwrap()).is_ok()
                });
                if !known {
                    sessions.remove(&payload[0]);
                }
            }
            Some(Command::SessionMessage) => {
                let Some(session) = sessions.get_mut(&payload[0]) else { continue };
                let mut message = request.clone();
                if let Ok(Frame { code, payload }) = session.open(&mut message) {
                    seen.push((code, payload.to_vec()));
                    // Counts the answer.
                    session.seal(3, &mut [0; 64]).unwrap();
                }
            }
            _ => {}
        }
    }
    seen
}

fn contains(seen: &[(u8, Vec<u8>)], secret: &[u8]) -> bool {
    seen.iter().any(|(_, payload)| payload.windows(secret.len()).any(|part| part == secret))
}

fn has(seen: &[(u8, Vec<u8>)], command: Command) -> bool {
    seen.iter().any(|(code, _)| *code == command.code())
}

fn key_of(password: &str) -> Vec<u8> {
    AuthenticationKey::from_password(password.as_bytes()).as_bytes().to_vec()
}

fn done(run: &Run) {
    assert_eq!(run.code, 0, "{run:?}");
    run.tells_no(&[ADMINISTRATOR, SIGNER]);
    assert!(run.stderr.contains("NOT CHECKED: which device answers"), "{run:?}");
}

/// Nothing is left of what a private session needs.
fn only(machine: &Machine, password: &str, ids: &[u64]) {
    let run = machine
        .with_environment(&["key", "list", "--format", "json"], &[("SSHSM_PASSWORD", password)])
        .json();
    let found: Vec<_> = run.as_array().unwrap().iter().map(|object| object["id"].as_u64().unwrap()).collect();
    assert_eq!(found, ids, "{run}");
}

#[test]
fn who_knows_the_factorys_password_reads_no_new_secret_out_of_a_recording() {
    let (machine, recorded) = overheard();
    let line = ["provision", "--template", "t.toml", "--record", "record.json"];
    done(&machine.with_environment(&line, &NEW));
    let seen = read(&recorded, FACTORY_PASSWORD);
    // It is a reader who could: the session under the factory's password is in plain for it.
    assert!(has(&seen, Command::PutAuthenticationKey) && has(&seen, Command::ListObjects), "{seen:?}");
    for secret in [key_of(ADMINISTRATOR), key_of(SIGNER)] {
        assert!(!contains(&seen, &secret) && !contains(&seen, &secret[..16]), "{seen:?}");
    }
    // With the right password the same reader finds what was sent in that password's sessions.
    assert!(contains(&read(&recorded, ADMINISTRATOR), &key_of(SIGNER)));
    only(&machine, ADMINISTRATOR, &[1, 2, 5, 10]);
    let record = std::fs::read_to_string(machine.path("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["new_password"], "private-session-with-unknown-device");
    let again = machine.with_environment(&["provision", "--template", "t.toml", "--format", "json"], &NEW);
    assert!(!again.stderr.contains("NOT CHECKED"), "no secret went in the factory's session: {again:?}");
    assert_eq!(again.json()["new_password"], serde_json::Value::Null);
}

#[test]
fn nor_one_that_another_command_sends_under_the_factorys_password() {
    let (machine, recorded) = overheard();
    machine.new_key("ca", ed25519(77));
    done(&machine.run(&["key", "import", "ca", "--id", "5", "--exportable"]));
    let put = ["authentication-key", "put", "--id", "3", "--capabilities", "none"];
    done(&machine.with_environment(&put, &[("SSHSM_NEW_PASSWORD", SIGNER)]));
    done(&machine.run(&["backup", "create", "b.json", "--shares-to", "."]));
    assert_eq!(machine.run(&["key", "delete", "5"]).code, 0);
    let shares: Vec<_> = std::fs::read_dir(machine.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("-share-"))
        .collect();
    let restore = ["backup", "restore", "b.json", "--share-file", &shares[0], "--share-file", &shares[1]];
    done(&machine.run(&restore));
    only(&machine, "password", &[1, 3, 5]);
    done(&machine.with_environment(&["authentication-key", "change"], &NEW[..1]));
    only(&machine, ADMINISTRATOR, &[1, 3, 5]);

    let seen = read(&recorded, FACTORY_PASSWORD);
    assert!(has(&seen, Command::PutAuthenticationKey) && has(&seen, Command::DeleteObject), "{seen:?}");
    assert!(!contains(&seen, &[77; 32]) && !has(&seen, Command::PutAsymmetricKey), "the CA key");
    assert!(!contains(&seen, &key_of(SIGNER)) && !contains(&seen, &key_of(ADMINISTRATOR)));
    assert!(!has(&seen, Command::PutWrapKey) && !has(&seen, Command::ChangeAuthenticationKey), "{seen:?}");
}

/// In the device's place, with its public key and without its private one.
struct Impostor {
    device: Arc<Mutex<Simulator>>,
    public_key: Option<Vec<u8>>,
}

impl Backend for Impostor {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        match &self.public_key {
            Some(answer) if request[0] == Command::GetDevicePublicKey.code() => Ok(answer.clone()),
            _ => self.device.lock().unwrap().transact(request),
        }
    }

    fn status(&mut self) -> Status {
        Backend::status(&mut *self.device.lock().unwrap())
    }
}

#[test]
fn a_device_other_than_the_one_that_is_named_gets_no_new_secret() {
    let mut real = Simulator::memory().start().unwrap();
    let answer = real.transact(&[Command::GetDevicePublicKey.code(), 0, 0]).unwrap();
    let real = real.serve().unwrap();
    let mine = Machine::with_device(&real.url());
    let public_key = mine.run(&["device", "public-key"]).stdout;
    for public_key_of_the_real in [None, Some(answer)] {
        let device = Arc::new(Mutex::new(Simulator::memory().start().unwrap()));
        let impostor = Impostor { device: Arc::clone(&device), public_key: public_key_of_the_real };
        let hosts = vec!["0.0.0.0".parse().unwrap()];
        let port = serve(impostor, Settings { hosts, ..Settings::default() });
        for host in ["127.0.0.1", "0.0.0.0"] {
            let machine = Machine::with_device(&format!("http://{host}:{port}"));
            machine.write("device.pub", &public_key);
            machine.timestamp_key("timestamp");
            machine.template("t.toml", "5m", "10h", &[]);
            for line in [
                &["provision", "--template", "t.toml", "--device-key", "device.pub"][..],
                &["authentication-key", "change", "--device-key", "device.pub"],
                &["key", "import", "timestamp", "--device-key", "device.pub"],
            ] {
                let run = machine.with_environment(line, &NEW);
                assert_eq!(run.code, 4, "{run:?}");
                assert!(run.stderr.contains("the public key that it should"), "{run:?}");
            }
        }
        let mut device = device.lock().unwrap();
        let mut session = device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, FACTORY_PASSWORD).unwrap();
        let objects = session.command(Command::ListObjects, &[]).unwrap();
        assert_eq!(objects.len(), 4, "the factory's key alone");
    }
    // The named one does, and then its own key is all that has to be known.
    mine.write("device.pub", &public_key);
    mine.timestamp_key("timestamp");
    mine.template("t.toml", "5m", "10h", &[]);
    let line = ["provision", "--template", "t.toml", "--device-key", "device.pub", "--format", "json"];
    let run = mine.with_environment(&line, &NEW);
    assert!(!run.stderr.contains("NOT CHECKED"), "{run:?}");
    assert_eq!(run.json()["new_password"], "private-session");
}

/// A road that breaks at one exchange, before it reaches the device or after, and stays broken.
struct Breaking {
    device: Arc<Mutex<Simulator>>,
    left: Arc<AtomicUsize>,
    after: bool,
}

impl Transport for Breaking {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, TransportError> {
        let broken = || TransportError::Stopped { address: self.describe() };
        let left = self.left.load(Relaxed);
        if left == 0 {
            return Err(broken());
        }
        self.left.store(left - 1, Relaxed);
        if left == 1 && !self.after {
            return Err(broken());
        }
        let answer = self.device.lock().unwrap().transact(frame).unwrap();
        if left == 1 { Err(broken()) } else { Ok(answer) }
    }

    fn describe(&self) -> String {
        "breaking".into()
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    PrivateSession(#[from] PrivateSessionError),
}

#[test]
fn a_change_of_the_factorys_password_goes_on_wherever_it_was_cut_short() {
    let key = ObjectId::DEFAULT_AUTHENTICATION_KEY;
    let new = AuthenticationKey::from_password(ADMINISTRATOR.as_bytes());
    let credential = Credential::Password(Zeroizing::new(FACTORY_PASSWORD.into()));
    for after in [false, true] {
        for cut in 1.. {
            let device = Arc::new(Mutex::new(Simulator::memory().start().unwrap()));
            let left = Arc::new(AtomicUsize::new(1000));
            let road = Breaking { device: Arc::clone(&device), left: Arc::clone(&left), after };
            let mut client = Client::connect(Box::new(road)).unwrap();
            let opening =
                Opening { key, credential: credential.clone(), device: client.device_public_key().unwrap() };
            left.store(cut, Relaxed);
            let first = opening.change::<Failed>(&mut client, &new, |_, _| Ok(()));
            let whole = left.load(Relaxed) > 0;
            left.store(1000, Relaxed);
            // As provisioning does: the new password is tried first.
            if Session::open_with_key(&mut client, key, &new).is_err() {
                assert!(!whole, "{first:?}");
                opening.change::<Failed>(&mut client, &new, |_, _| Ok(())).unwrap();
            }
            let mut session = Session::open_with_key(&mut client, key, &new).unwrap();
            sshsm::private_session::remove_left_behind(&mut session).unwrap();
            let objects = session.list_objects(&ListFilter::default()).unwrap();
            let names: Vec<_> = objects.iter().map(|entry| (entry.object_type, entry.id)).collect();
            assert_eq!(names, [(ObjectType::AuthenticationKey, key)], "cut at {cut}");
            drop(session);
            if whole {
                assert!(cut > 10, "it takes several exchanges");
                break;
            }
        }
    }
}
