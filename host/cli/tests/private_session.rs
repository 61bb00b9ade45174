//! New secrets for a device with the factory password: what a relay sees cannot be decrypted with that
//! password; a device other than the named one gets none; what another client creates in the meantime is not
//! mistaken for ours; and a run interrupted anywhere can be continued, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use machine::{Machine, Run, ed25519, serve};
use sshsm::{authority::FACTORY_PASSWORD, provision::SIGNER_CAPABILITIES};
use sshsm_client::{
    Client, ClientError, Credential, Exchange, ExchangeError, Listener, NewKey, Session,
    private_session::{Opening, PrivateSessionError, SUCCESSOR},
};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, Domains, Label, ObjectId, ObjectType,
    channel::{AuthenticationKey, DeviceChannel},
    frame::Frame,
    object::{ListFilter, NewObject},
};
use sshsm_simulator::{
    Simulator, SimulatorError,
    connector::{Backend, Settings, Status},
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

/// Nothing that a private session needs is left.
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
    // The reader is capable: it can read the session under the factory password.
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
    // The named one does, and then only its own key has to be known.
    mine.write("device.pub", &public_key);
    mine.timestamp_key("timestamp");
    mine.template("t.toml", "5m", "10h", &[]);
    let line = ["provision", "--template", "t.toml", "--device-key", "device.pub", "--format", "json"];
    let run = mine.with_environment(&line, &NEW);
    assert!(!run.stderr.contains("NOT CHECKED"), "{run:?}");
    assert_eq!(run.json()["new_password"], "private-session");
}

/// A connection that breaks at one exchange, before it reaches the device or after, and stays broken unless
/// it is for `once`.
struct Breaking {
    device: Arc<Mutex<Simulator>>,
    left: Arc<AtomicUsize>,
    after: bool,
    once: bool,
}

impl Exchange for Breaking {
    fn transact(&mut self, frame: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let broken = || ExchangeError::Stopped { address: self.describe() };
        let left = self.left.load(Relaxed);
        if left == 0 {
            return Err(broken());
        }
        self.left.store(if left == 1 && self.once { WHOLE } else { left - 1 }, Relaxed);
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

/// More exchanges than anything takes.
const WHOLE: usize = 1000;

/// The objects that a session with key 1 sees.
fn names(client: &mut Client, key: &AuthenticationKey) -> Vec<(ObjectType, ObjectId)> {
    let mut session = Session::open_with_key(client, ObjectId::DEFAULT_AUTHENTICATION_KEY, key).unwrap();
    let objects = session.list_objects(&ListFilter::default()).unwrap();
    objects.iter().map(|entry| (entry.object_type, entry.id)).collect()
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
            let left = Arc::new(AtomicUsize::new(WHOLE));
            let road = Breaking { device: Arc::clone(&device), left: Arc::clone(&left), after, once: false };
            let mut client = Client::connect(Box::new(road), Listener::default()).unwrap();
            let device = client.device_public_key().unwrap();
            let opening = Opening { key, credential: credential.clone(), device, known: true };
            left.store(cut, Relaxed);
            let first = opening.change::<Failed>(&mut client, &new, |_, _| Ok(()));
            let whole = left.load(Relaxed) > 0;
            left.store(WHOLE, Relaxed);
            assert_eq!(first.is_ok(), whole, "{first:?}");
            // No second key with all rights remains silently.
            if Session::open_with_key(&mut client, SUCCESSOR, &new).is_ok() {
                let told =
                    matches!(&first, Err(Failed::PrivateSession(PrivateSessionError::HalfChanged { .. })));
                assert!(told && first.unwrap_err().to_string().contains("0xfffe"), "cut at {cut}");
            }
            opening.change::<Failed>(&mut client, &new, |_, _| Ok(())).unwrap();
            assert_eq!(names(&mut client, &new), [(ObjectType::AuthenticationKey, key)], "cut at {cut}");
            let mut session = Session::open_with_key(&mut client, key, &new).unwrap();
            let info = session.object_info(key, ObjectType::AuthenticationKey).unwrap();
            assert_eq!(info.label.to_string(), "DEFAULT AUTHKEY CHANGE THIS ASAP", "cut at {cut}");
            assert_eq!((info.capabilities, info.domains), (Capabilities::ALL, Domains::ALL));
            drop(session);
            if whole {
                assert!(cut > 10, "it takes several exchanges");
                break;
            }
        }
    }
}

#[test]
fn a_temporary_key_goes_also_when_the_answer_that_it_is_there_was_lost() {
    let key = ObjectId::DEFAULT_AUTHENTICATION_KEY;
    let factory = AuthenticationKey::from_password(FACTORY_PASSWORD.as_bytes());
    for cut in 1.. {
        let device = Arc::new(Mutex::new(Simulator::memory().start().unwrap()));
        let left = Arc::new(AtomicUsize::new(WHOLE));
        let road = Breaking { device, left: Arc::clone(&left), after: true, once: true };
        let mut client = Client::connect(Box::new(road), Listener::default()).unwrap();
        let device = client.device_public_key().unwrap();
        let opening = Opening { key, credential: Credential::Key(factory.clone()), device, known: true };
        left.store(cut, Relaxed);
        let done = opening.within::<_, Failed>(&mut client, |session| Ok(session.echo(b"done")?));
        let whole = left.load(Relaxed) <= cut;
        left.store(WHOLE, Relaxed);
        assert_eq!(
            names(&mut client, &factory),
            [(ObjectType::AuthenticationKey, key)],
            "cut at {cut}: {done:?}"
        );
        if whole {
            assert!(done.is_ok() && cut > 5, "{done:?}");
            break;
        }
    }
}

type Shared = Arc<Mutex<Simulator>>;
type When = Box<dyn FnMut(&[u8]) -> bool + Send>;
type Act = Box<dyn FnOnce(&mut Client) + Send>;

/// A relay that passes everything on, and that once, before a message that satisfies `when`, uses the device
/// itself.
struct Meddling {
    device: Shared,
    when: When,
    act: Option<Act>,
    /// It reports that the device has no P-256 authentication keys.
    strips: bool,
}

impl Meddling {
    fn serve(when: impl FnMut(&[u8]) -> bool + Send + 'static, act: Act, strips: bool) -> (Machine, Shared) {
        let device = Arc::new(Mutex::new(Simulator::memory().start().unwrap()));
        let relay = Self { device: Arc::clone(&device), when: Box::new(when), act: Some(act), strips };
        let machine =
            Machine::with_device(&format!("http://127.0.0.1:{}", serve(relay, Settings::default())));
        machine.timestamp_key("timestamp");
        machine.template("t.toml", "5m", "10h", &[]);
        (machine, device)
    }
}

impl Backend for Meddling {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        if self.act.is_some()
            && (self.when)(request)
            && let Some(act) = self.act.take()
        {
            let left = Arc::new(AtomicUsize::new(WHOLE));
            let road = Breaking { device: Arc::clone(&self.device), left, after: false, once: false };
            act(&mut Client::connect(Box::new(road), Listener::default()).unwrap());
        }
        let mut answer = self.device.lock().unwrap().transact(request)?;
        if self.strips && request[0] == Command::GetDeviceInfo.code() {
            let code = Algorithm::Ecp256YubicoAuthentication.code();
            // After version, serial number and log.
            answer[12..].iter_mut().filter(|byte| **byte == code).for_each(|byte| *byte = 0xff);
        }
        Ok(answer)
    }

    fn status(&mut self) -> Status {
        Backend::status(&mut *self.device.lock().unwrap())
    }
}

/// The session in which the old key is deleted.
fn opens_the_successor(request: &[u8]) -> bool {
    request[0] == Command::CreateSession.code() && request[3..5] == SUCCESSOR.get().to_be_bytes()
}

fn object(id: u16, algorithm: Algorithm, capabilities: Capabilities) -> NewObject {
    let label = Label::new("sshsm CA").unwrap();
    NewObject { id: ObjectId::new(id).ok(), label, domains: Domains::ALL, capabilities, algorithm }
}

fn with_the_factorys_password(client: &mut Client, act: impl FnOnce(&mut Session<'_>)) {
    act(&mut Session::open(client, ObjectId::DEFAULT_AUTHENTICATION_KEY, FACTORY_PASSWORD).unwrap());
}

/// Makes the CA key that provisioning would make, with the factory's password.
fn plant_a_ca_key(client: &mut Client) {
    let planned = object(5, Algorithm::Ed25519, Capabilities::of(&[Capability::SignSshCertificate]));
    with_the_factorys_password(client, |session| {
        session.generate_asymmetric_key(&planned).unwrap();
    });
}

/// Puts the key that signs, for a private key of its own.
fn plant_a_signer(client: &mut Client) {
    let planned = object(2, Algorithm::Ecp256YubicoAuthentication, SIGNER_CAPABILITIES);
    let own = p256::SecretKey::from_slice(&[9; 32]).unwrap().public_key().to_sec1_bytes();
    with_the_factorys_password(client, |session| {
        session.put_authentication_key(&planned, Capabilities::NONE, NewKey::Public(&own[1..])).unwrap();
    });
}

#[test]
fn what_another_client_makes_while_the_password_is_replaced_is_refused_and_stays_refused() {
    for (planted, act) in [
        ("asymmetric-key 0x0005", Box::new(plant_a_ca_key) as Act),
        ("authentication-key 0x0002", Box::new(plant_a_signer)),
    ] {
        let (machine, _) = Meddling::serve(opens_the_successor, act, false);
        machine.write("device.pub", &machine.run(&["device", "public-key"]).stdout);
        let mine = p256::SecretKey::from_slice(&[8; 32]).unwrap();
        let mine = ssh_key::private::EcdsaKeypair::NistP256 {
            public: mine.public_key().into(),
            private: mine.into(),
        };
        machine.new_key("mine", ssh_key::private::KeypairData::Ecdsa(mine));
        let line = "provision --template t.toml --device-key device.pub --signer-public-key mine.pub";
        let line: Vec<_> = line.split(' ').collect();
        // Nor does it become ours because the run is repeated.
        for _ in 0..2 {
            let run = machine.with_environment(&line, &NEW);
            assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
            for part in
                [&format!("not fresh; it holds {planted}:"), "stopped half-way", "0xfffe", "device reset"]
            {
                assert!(run.stderr.contains(part), "{part}: {run:?}");
            }
        }
    }
}

#[test]
fn nor_is_it_mistaken_for_ours_when_the_password_is_replaced_in_the_public_session() {
    let mut messages = 0;
    let when = move |request: &[u8]| {
        messages += usize::from(request[0] == Command::SessionMessage.code());
        // After two lists, the status and the one object: CHANGE AUTHENTICATION KEY.
        messages == 5
    };
    let (machine, device) = Meddling::serve(when, Box::new(plant_a_ca_key), true);
    let line = ["provision", "--template", "t.toml", "--allow-plain-http"];
    for _ in 0..2 {
        let run = machine.with_environment(&line, &NEW);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
        assert!(run.stderr.contains("not fresh; it holds asymmetric-key 0x0005:"), "{run:?}");
    }
    // Changed twice, and the factory's again.
    let mut device = device.lock().unwrap();
    assert!(device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, ADMINISTRATOR).is_err());
    assert!(device.session(ObjectId::DEFAULT_AUTHENTICATION_KEY, FACTORY_PASSWORD).is_ok());
}

#[test]
fn the_new_key_has_the_rights_that_the_private_session_shows() {
    // The session under the temporary key.
    let private = |request: &[u8]| request[0] == Command::CreateSession.code() && request.len() > 20;
    let act = |client: &mut Client| {
        with_the_factorys_password(client, |session| {
            let (key, kind) = (ObjectId::DEFAULT_AUTHENTICATION_KEY, ObjectType::AuthenticationKey);
            let own = object(1, Algorithm::Aes128YubicoAuthentication, Capabilities::ALL);
            let factory = AuthenticationKey::from_password(FACTORY_PASSWORD.as_bytes());
            session.delete_object(key, kind).unwrap();
            session.put_authentication_key(&own, Capabilities::ALL, &factory).unwrap();
        });
    };
    let (machine, _) = Meddling::serve(private, Box::new(act), false);
    let change = ["authentication-key", "change"];
    let run = machine.with_environment(&change, &NEW);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("is another in the private session"), "{run:?}");
    only(&machine, "password", &[1]);
    assert_eq!(machine.with_environment(&change, &NEW).code, 0);
}

#[test]
fn a_named_device_is_never_given_a_key_unless_it_shows_that_it_is_the_one() {
    let lines = [
        &["provision", "--template", "t.toml"][..],
        &["authentication-key", "change"],
        &["key", "import", "timestamp"],
    ];
    let (machine, _) = Meddling::serve(|_| false, Box::new(|_| ()), true);
    machine.write("device.pub", &machine.run(&["device", "public-key"]).stdout);
    for line in lines {
        let named = [line, &["--device-key", "device.pub", "--allow-plain-http"]].concat();
        let run = machine.with_environment(&named, &NEW);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stderr.contains("cannot show that it has the public key"), "{run:?}");
    }
    only(&machine, "password", &[1]);
    // The same applies where the device is plugged in.
    let other = machine.path("device.pub");
    let other = ["--device-key", other.to_str().unwrap()];
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &[]);
    for line in lines {
        let run = machine.with_environment(&[line, &other].concat(), &NEW);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(run.stderr.contains("the public key that it should"), "{run:?}");
    }
    only(&machine, "password", &[1]);
    machine.write("own.pub", &machine.run(&["device", "public-key"]).stdout);
    let own = [lines[0], &["--device-key", "own.pub"]].concat();
    assert_eq!(machine.with_environment(&own, &NEW).code, 0);
}

/// A relay that gives no answer from the moment when the old key is about to be deleted, as long as it is
/// `stuck`.
struct Stuck {
    device: Simulator,
    stuck: Arc<AtomicBool>,
}

impl Backend for Stuck {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        match self.stuck.load(Relaxed) && opens_the_successor(request) {
            true => Ok(vec![0x7e, 0, 0]),
            false => self.device.transact(request),
        }
    }

    fn status(&mut self) -> Status {
        Backend::status(&mut self.device)
    }
}

#[test]
fn a_run_that_fails_says_what_it_sent_to_whom_and_what_it_left() {
    let change = ["authentication-key", "change"];
    for line in [&["provision", "--template", "t.toml"][..], &change] {
        let stuck = Arc::new(AtomicBool::new(true));
        let device = Simulator::memory().start().unwrap();
        let port = serve(Stuck { device, stuck: Arc::clone(&stuck) }, Settings::default());
        let machine = Machine::with_device(&format!("http://127.0.0.1:{port}"));
        machine.timestamp_key("timestamp");
        machine.template("t.toml", "5m", "10h", &[]);
        let run = machine.with_environment(line, &NEW);
        assert_eq!(run.code, 3, "{run:?}");
        for part in ["NOT CHECKED: which device answers", "stopped half-way", "0xfffe", "key delete 0xfffe"] {
            assert!(run.stderr.contains(part), "{part}: {run:?}");
        }
        only(&machine, "password", &[1, 0xfffe]);
        stuck.store(false, Relaxed);
        done(&machine.with_environment(line, &NEW));
        let all: &[u64] = if line == change { &[1] } else { &[1, 2, 5, 10] };
        only(&machine, ADMINISTRATOR, all);
    }
}

/// Puts an authentication key with all rights.
fn put(machine: &Machine, id: &str, label: &str, password: &str, new: &str) {
    let line = ["authentication-key", "put", "--id", id, "--label", label];
    let line = [&line[..], &["--capabilities", "all", "--delegated", "all"]].concat();
    let passwords = [("SSHSM_PASSWORD", password), ("SSHSM_NEW_PASSWORD", new)];
    assert_eq!(machine.with_environment(&line, &passwords).code, 0);
}

/// What a run leaves behind that is interrupted when the successor, or a temporary key, is on the device.
const LEFT: [(&str, &str); 2] =
    [("0xfffe", "tempfor:DEFAULT AUTHKEY CHANGE THIS ASAP"), ("77", "sshsm temporary key")];

#[test]
fn a_change_of_a_password_deletes_what_a_run_left_with_any_credential_and_transport() {
    let served = Simulator::memory().start().unwrap().serve().unwrap();
    for (machine, http) in [(Machine::new(), false), (Machine::with_device(&served.url()), true)] {
        let mut password = FACTORY_PASSWORD;
        for new in [ADMINISTRATOR, SIGNER] {
            LEFT.iter().for_each(|(id, label)| put(&machine, id, label, password, "the password of a run"));
            let passwords = [("SSHSM_PASSWORD", password), ("SSHSM_NEW_PASSWORD", new)];
            let run = machine.with_environment(&["authentication-key", "change"], &passwords);
            assert_eq!(run.code, 0, "{run:?}");
            only(&machine, new, &[1]);
            password = new;
        }
        // A run that was interrupted before it cleaned up, repeated unchanged.
        if http {
            put(&machine, LEFT[0].0, LEFT[0].1, SIGNER, SIGNER);
            let again = [("SSHSM_PASSWORD", FACTORY_PASSWORD), ("SSHSM_NEW_PASSWORD", SIGNER)];
            let run = machine.with_environment(&["authentication-key", "change"], &again);
            assert_eq!(run.code, 0, "{run:?}");
            only(&machine, SIGNER, &[1]);
        }
    }
}

#[test]
fn provisioning_takes_it_away_too_and_who_may_not_delete_it_is_told_of_it() {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &[]);
    let provision = ["provision", "--template", "t.toml"];
    for password in [FACTORY_PASSWORD, ADMINISTRATOR] {
        LEFT.iter().for_each(|(id, label)| put(&machine, id, label, password, "the password of a run"));
        let run = machine.with_environment(&provision, &NEW);
        assert_eq!(run.code, 0, "{run:?}");
        only(&machine, ADMINISTRATOR, &[1, 2, 5, 10]);
    }
    let line = ["authentication-key", "put", "--id", "3", "--capabilities", "change-authentication-key"];
    let passwords = [("SSHSM_PASSWORD", ADMINISTRATOR), ("SSHSM_NEW_PASSWORD", "the third password")];
    assert_eq!(machine.with_environment(&line, &passwords).code, 0);
    put(&machine, LEFT[0].0, LEFT[0].1, ADMINISTRATOR, "the password of a run");
    let line = ["authentication-key", "change", "--auth-key", "3"];
    let passwords = [("SSHSM_PASSWORD", "the third password"), ("SSHSM_NEW_PASSWORD", "the fourth password")];
    let run = machine.with_environment(&line, &passwords);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("WARNING") && run.stderr.contains("key delete 0xfffe"), "{run:?}");
}

/// A device whose key 1 is gone and not back, as left by a run interrupted there.
fn cut_in_between() -> Machine {
    let machine = Machine::new();
    machine.timestamp_key("timestamp");
    machine.template("t.toml", "5m", "10h", &[]);
    put(&machine, LEFT[0].0, LEFT[0].1, FACTORY_PASSWORD, ADMINISTRATOR);
    let delete = ["key", "delete", "1", "--type", "authentication-key", "--force"];
    assert_eq!(machine.run(&delete).code, 0);
    machine
}

#[test]
fn a_run_cut_while_the_key_is_gone_continues_over_any_transport_and_its_record_claims_no_more() {
    let machine = cut_in_between();
    let list = machine.run(&["key", "list"]);
    assert_eq!(list.code, 4, "{list:?}");
    assert!(list.stderr.contains("--auth-key 0xfffe"), "{list:?}");
    let other = [("SSHSM_NEW_PASSWORD", "not that of the run")];
    let run = machine.with_environment(&["authentication-key", "change"], &other);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("that an earlier run"), "{run:?}");
    let run = machine.with_environment(&["authentication-key", "change"], &NEW);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("an earlier run had sent it"), "{run:?}");
    only(&machine, ADMINISTRATOR, &[1]);
    let shown = [("SSHSM_PASSWORD", ADMINISTRATOR)];
    let objects = machine.with_environment(&["key", "list", "--format", "json"], &shown).json();
    assert_eq!(objects[0]["label"], "DEFAULT AUTHKEY CHANGE THIS ASAP");

    let machine = cut_in_between();
    let line = ["provision", "--template", "t.toml", "--format", "json"];
    let record = machine.with_environment(&line, &NEW).json();
    assert_eq!(record["new_password"], serde_json::Value::Null);
    assert_eq!(record["steps"][0]["outcome"], "made");
    only(&machine, ADMINISTRATOR, &[1, 2, 5, 10]);
}

#[test]
fn a_backup_names_a_key_that_a_run_left_and_leaves_it_out() {
    let machine = Machine::new();
    let generate = ["key", "generate", "--algorithm", "ed25519", "--id", "5", "--exportable"];
    assert_eq!(machine.run(&generate).code, 0);
    LEFT.iter().for_each(|(id, label)| put(&machine, id, label, FACTORY_PASSWORD, ADMINISTRATOR));
    let run = machine.run(&["backup", "create", "b.json", "--shares-to", ".", "--format", "json"]);
    let view = run.json();
    let ids = |what: &str| {
        let objects = view[what].as_array().unwrap().iter();
        objects
            .map(|object| object["object"]["id"].as_u64().or(object["id"].as_u64()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("objects"), [1, 5], "{view}");
    assert_eq!(ids("not_exported"), [77, 0xfffe], "{view}");
    assert!(run.stderr.contains("authentication-key 0xfffe") && run.stderr.contains("delete it"), "{run:?}");
}

#[test]
fn a_key_that_a_run_left_is_no_other_administrator() {
    let machine = Machine::new();
    LEFT.iter().for_each(|(id, label)| put(&machine, id, label, FACTORY_PASSWORD, ADMINISTRATOR));
    let line = ["authentication-key", "put", "--id", "3", "--capabilities", "delete-authentication-key"];
    assert_eq!(machine.with_environment(&line, &NEW).code, 0);
    let delete = ["key", "delete", "1", "--type", "authentication-key", "--auth-key", "3"];
    let run = machine.with_environment(&delete, &[("SSHSM_PASSWORD", ADMINISTRATOR)]);
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("no other authentication key in its domains has"), "{run:?}");
}
