//! A device behind HTTP inside this process, for tests whose clients need a URL.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use crate::{
    connector::{Backend, Status, Timeouts, serve},
    simulator::{Simulator, SimulatorError},
};

impl Simulator {
    /// Serves the device over the YubiHSM connector's HTTP on a free port of 127.0.0.1, until the value is dropped.
    ///
    /// ```
    /// use sshsm_simulator::Simulator;
    ///
    /// let device = Simulator::memory().start()?.serve()?;
    /// assert!(device.url().starts_with("http://127.0.0.1:"));
    /// // … point a client at the URL, and pull the plug when it is in the middle of something:
    /// device.simulator().power_cycle()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system has no port or no thread to give.
    pub fn serve(self) -> io::Result<Served> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let simulator = Shared(Arc::new(Mutex::new(self)));
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let backend = simulator.clone();
        let service = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            // Ready also when the sender is gone.
            serve(listener, backend, Timeouts::default(), async { drop(stopped.await) }).await
        };
        let thread = thread::Builder::new().name("sshsm-simulator".into()).spawn(move || {
            // It fails only if the address is missing, which was there a moment ago.
            let _: io::Result<()> = runtime.block_on(service);
        })?;
        Ok(Served { address, simulator, stop: Some(stop), thread: Some(thread) })
    }
}

/// A device that is served over HTTP. Dropping it lets running exchanges finish and ends the service.
pub struct Served {
    address: SocketAddr,
    simulator: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// The address for clients, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Address and port, for clients that take them separately.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The device itself, between two exchanges: no client is served while this is held.
    pub fn simulator(&self) -> MutexGuard<'_, Simulator> {
        self.simulator.lock()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// A device that its service and its owner both reach, one at a time.
#[derive(Clone)]
struct Shared(Arc<Mutex<Simulator>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Simulator> {
        // A device that panicked is off, and reports that itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Shared {
    type Error = SimulatorError;

    fn transact(&mut self, request: &[u8]) -> Result<Vec<u8>, SimulatorError> {
        self.lock().transact(request)
    }

    fn status(&mut self) -> Status {
        Backend::status(&mut *self.lock())
    }
}
