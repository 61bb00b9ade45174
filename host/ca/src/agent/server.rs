//! The agent's connections: their number, their duration, and how much of them is kept in memory.
//!
//! A process that reaches the socket may try to exhaust it: with a message that claims 4 GiB, or with silent
//! connections until this process has no descriptors left. A message is bounded; a connection that neither
//! sends nor reads is closed in time, or at once when another one needs its slot; and no error of `accept`
//! ends the agent.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Notify,
    task,
    time::{Instant, sleep, timeout},
};

use super::{Authority, CaAgent, message::MAX_LENGTH};

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for its next message, and for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing is accepted after `accept` failed.
const REST: Duration = Duration::from_millis(100);

/// The connections that are open.
#[derive(Default)]
struct Connections {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// For each connection, since when it has been waiting for its client, unless the client is waiting; and
    /// what closes it.
    connections: BTreeMap<u64, (Option<Instant>, Arc<Notify>)>,
}

impl Connections {
    fn with<T>(&self, work: impl FnOnce(&mut Open) -> T) -> T {
        work(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A slot for one more connection, if necessary that of the one which has waited longest. `None` when all
    /// of them are waiting for an answer.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        self.with(|open| {
            if open.connections.len() >= MAX_CONNECTIONS && !open.close_one() {
                return None;
            }
            let number = open.next;
            open.next += 1;
            let closed = Arc::new(Notify::new());
            open.connections.insert(number, (Some(Instant::now()), closed.clone()));
            Some(Place { number, closed, connections: self.clone() })
        })
    }
}

impl Open {
    /// Closes the connection that has waited longest for its client.
    fn close_one(&mut self) -> bool {
        let idle = self.connections.iter().filter_map(|(number, (since, _))| Some(((*since)?, *number)));
        let Some((_, number)) = idle.min() else { return false };
        if let Some((_, closed)) = self.connections.remove(&number) {
            closed.notify_one();
        }
        true
    }
}

/// The place of a connection, given back when it is dropped.
struct Place {
    number: u64,
    closed: Arc<Notify>,
    connections: Arc<Connections>,
}

impl Place {
    /// Records whose turn it is.
    fn waits(&self, waits: bool) {
        self.connections.with(|open| {
            if let Some((since, _)) = open.connections.get_mut(&self.number) {
                *since = waits.then(Instant::now);
            }
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.with(|open| open.connections.remove(&self.number));
    }
}

/// Serves the agent to every client of this user's, and of root's, as ssh-agent does. Never ends.
pub async fn serve<A: Authority>(listener: UnixListener, agent: CaAgent<A>) -> ! {
    let connections = Arc::new(Connections::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = ours(&stream) {
                    agent.authority().troubled(&error);
                } else if let Some(place) = connections.enter() {
                    let agent = agent.clone();
                    drop(tokio::spawn(async move {
                        let closed = place.closed.clone();
                        tokio::select! {
                            () = converse(stream, agent, &place) => {}
                            () = closed.notified() => {}
                        }
                    }));
                }
            }
            // No descriptors are left, or the client has gone: the next one may fare better.
            Err(error) => {
                agent.authority().troubled(&error);
                connections.with(Open::close_one);
                sleep(REST).await;
            }
        }
    }
}

/// Fails for a client that is another user's.
fn ours(stream: &UnixStream) -> io::Result<()> {
    let client = stream.peer_cred()?.uid();
    if client == 0 || client == rustix::process::getuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {client} is not the agent's user")))
}

/// Answers one message after the other, until the client leaves or breaks the protocol.
async fn converse<A: Authority>(mut stream: UnixStream, agent: CaAgent<A>, place: &Place) {
    let mut connection = agent.connection();
    loop {
        let Ok(Ok(message)) = timeout(PATIENCE, receive(&mut stream)).await else { return };
        place.waits(false);
        // A board may take minutes, or wait for a touch, and a user for coffee.
        let answered = task::spawn_blocking(move || {
            let answer = connection.answer(&message);
            (connection, answer)
        });
        let Ok((again, answer)) = answered.await else { return };
        connection = again;
        let Ok(bytes) = answer.encode() else { return };
        place.waits(true);
        match timeout(PATIENCE, stream.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// The next message, without its length. Memory is allocated as data arrives, not as it is announced.
async fn receive(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    match usize::try_from(length) {
        Ok(1..=MAX_LENGTH) => {}
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a message without a sensible length")),
    }
    let mut message = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut message).await?;
    if message.len() as u64 == u64::from(length) {
        Ok(message)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_waits_longest_gives_up_its_place_and_none_that_works() {
        let connections = Arc::new(Connections::default());
        let mut places: Vec<Place> = (0..MAX_CONNECTIONS).map(|_| connections.enter().unwrap()).collect();
        places[0].waits(false);
        let newcomer = connections.enter().unwrap();
        let open = |number: u64| connections.with(|open| open.connections.contains_key(&number));
        assert!(open(0) && !open(1) && open(2) && open(newcomer.number));
        places.push(newcomer);
        places.iter().for_each(|place| place.waits(false));
        assert!(connections.enter().is_none());
        places.truncate(MAX_CONNECTIONS);
        assert!(connections.enter().is_some(), "a place is given back");
    }
}
