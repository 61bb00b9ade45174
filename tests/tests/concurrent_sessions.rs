//! Sixteen clients at once, each in its own session over HTTP: every client gets its own right answers, the
//! seventeenth session is refused, and sessions that were silent for too long are freed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test reports by stopping"
)]

use std::{sync::mpsc::channel, thread, time::Duration};

use sshsm_client::{Client, ClientError, Connector, Listener, Session};
use sshsm_protocol::{
    Algorithm, Capabilities, Capability, Command, DeviceError, Domains, Label, ObjectId, ObjectType,
    channel::{AuthenticationKey, MAX_SESSIONS},
    object::{ListFilter, NewObject},
};
use sshsm_simulator::{Clock, Served, Simulator};

const COMMANDS: usize = 10_000;
/// RFC 8032, section 7.1, test 3: the key, and its signature over `af82`.
const SEED: [u8; 32] = hex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
const SIGNATURE: [u8; 64] = hex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
);

const fn hex<const N: usize>(text: &str) -> [u8; N] {
    let text = text.as_bytes();
    assert!(text.len() == 2 * N);
    let mut bytes = [0; N];
    let mut index = 0;
    while index < 2 * N {
        let digit = match text[index] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit => digit - b'a' + 10,
        };
        bytes[index / 2] = bytes[index / 2] << 4 | digit;
        index += 1;
    }
    bytes
}

fn id(id: u16) -> ObjectId {
    ObjectId::new(id).unwrap()
}

fn key() -> AuthenticationKey {
    AuthenticationKey::from_password(b"password")
}

fn client(device: &Served) -> Client {
    Client::connect(Box::new(Connector::open(&device.address().to_string()).unwrap()), Listener::default())
        .unwrap()
}

fn open(client: &mut Client) -> Result<Session<'_>, ClientError> {
    Session::open_with_key(client, ObjectId::DEFAULT_AUTHENTICATION_KEY, &key())
}

/// One client's mixed work. Its objects are its own; `round` determines the requests, and so the right
/// answers.
struct Work<'s, 'c> {
    session: &'s mut Session<'c>,
    number: u16,
}

impl Work<'_, '_> {
    fn own(&self) -> ObjectId {
        id(100 + self.number)
    }

    fn object(&self, object_type: ObjectType) -> NewObject {
        let (capability, algorithm) = match object_type {
            ObjectType::AsymmetricKey => (Capability::SignEddsa, Algorithm::Ed25519),
            _ => (Capability::GetTemplate, Algorithm::TemplateSsh),
        };
        NewObject {
            id: Some(self.own()),
            label: Label::new(&format!("client {}", self.number)).unwrap(),
            domains: Domains::single(self.number + 1).unwrap(),
            capabilities: Capabilities::of(&[capability]),
            algorithm,
        }
    }

    /// Bytes that no other client and no other round has.
    fn data(&self, round: usize) -> Vec<u8> {
        (0..1 + round * 37 % 2000)
            .map(|index| (index * 7 + round * 31 + usize::from(self.number) * 101) as u8)
            .collect()
    }

    fn refused(&mut self, command: Command, payload: &[u8], expected: DeviceError) {
        match self.session.command(command, payload) {
            Err(ClientError::Device { error, .. }) => assert_eq!(error, expected),
            other => panic!("{command}: {other:?}"),
        }
    }

    fn round(&mut self, round: usize) {
        let own = self.own();
        match round % 10 {
            0 => {
                let data = self.data(round);
                assert_eq!(self.session.echo(&data).unwrap(), data);
            }
            1 => {
                let template = self.object(ObjectType::Template);
                assert_eq!(self.session.put_template(&template, &self.data(round)).unwrap(), own);
            }
            2 => assert_eq!(self.session.template(own).unwrap(), self.data(round - 1)),
            3 => {
                let filter = ListFilter { id: Some(own.get()), ..ListFilter::default() };
                let mut types: Vec<_> = self
                    .session
                    .list_objects(&filter)
                    .unwrap()
                    .iter()
                    .map(|entry| entry.object_type)
                    .collect();
                types.sort_by_key(|object_type| object_type.code());
                assert_eq!(types, [ObjectType::AsymmetricKey, ObjectType::Template]);
            }
            4 => {
                let info = self.session.object_info(own, ObjectType::Template).unwrap();
                assert_eq!(usize::from(info.length), self.data(round - 3).len());
                assert_eq!(info.label, self.object(ObjectType::Template).label);
                assert_eq!(usize::from(info.sequence), round / 10 % 256, "made once in ten rounds");
            }
            5 => self.refused(Command::PutAsymmetricKey, &[0; 10], DeviceError::WrongLength),
            6 => self.session.delete_object(own, ObjectType::Template).unwrap(),
            7 => self.refused(Command::GetTemplate, &own.get().to_be_bytes(), DeviceError::ObjectNotFound),
            8 => assert_eq!(self.session.sign_eddsa(own, &[0xaf, 0x82]).unwrap(), SIGNATURE),
            _ => {
                let length = 1 + round % 500;
                assert_eq!(self.session.pseudo_random(length as u16).unwrap().len(), length);
            }
        }
    }
}

#[test]
fn sixteen_clients_at_once_get_their_own_answers() {
    // The clock does not move: no machine is so slow that a session expires in the middle.
    let clock = Clock::held();
    let device = Simulator::memory().clock(clock.clone()).start().unwrap().serve().unwrap();
    let rounds = COMMANDS / MAX_SESSIONS;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..MAX_SESSIONS as u16)
            .map(|number| {
                let (here, arrived) = channel();
                let (go, gone) = channel();
                let device = &device;
                scope.spawn(move || {
                    // Fails, and so ends, when another client has failed.
                    let wait_for_all = || {
                        here.send(()).unwrap();
                        gone.recv().unwrap();
                    };
                    let mut client = client(device);
                    let mut session = open(&mut client).unwrap();
                    let mut work = Work { session: &mut session, number };
                    let signer = work.object(ObjectType::AsymmetricKey);
                    assert_eq!(work.session.put_asymmetric_key(&signer, &SEED).unwrap(), work.own());
                    wait_for_all(); // have their sessions
                    for round in 0..rounds {
                        work.round(round);
                    }
                    wait_for_all(); // are done, and their sessions have expired
                    match session.echo(b"late") {
                        Err(ClientError::Device { error: DeviceError::InvalidSession, .. }) => {}
                        other => panic!("an expired session answers {other:?}"),
                    }
                });
                (arrived, go)
            })
            .collect();
        let all_are_here = || workers.iter().for_each(|(arrived, _)| arrived.recv().unwrap());
        let all_go_on = || workers.iter().for_each(|(_, go)| go.send(()).unwrap());
        all_are_here();
        all_go_on();
        all_are_here();
        let mut seventeenth = client(&device);
        match open(&mut seventeenth) {
            Err(ClientError::Device { error: DeviceError::SessionsFull, .. }) => {}
            other => panic!("the seventeenth session: {:?}", other.map(|_| "opened")),
        }
        clock.advance(Duration::from_secs(31));
        all_go_on();
    });

    let mut clients: Vec<_> = (0..MAX_SESSIONS).map(|_| client(&device)).collect();
    let mut sessions: Vec<_> = clients.iter_mut().map(|client| open(client).unwrap()).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        assert_eq!(session.echo(&[number as u8]).unwrap(), [number as u8]);
    }
}

#[test]
fn a_closed_session_makes_room_for_another() {
    let device = Simulator::memory().clock(Clock::held()).start().unwrap().serve().unwrap();
    let mut clients: Vec<_> = (0..=MAX_SESSIONS).map(|_| client(&device)).collect();
    let mut last = clients.pop().unwrap();
    let mut sessions: Vec<_> = clients.iter_mut().map(|client| open(client).unwrap()).collect();
    assert!(open(&mut last).is_err());
    sessions.pop().unwrap().close().unwrap();
    assert_eq!(open(&mut last).unwrap().echo(b"in").unwrap(), b"in");
}
