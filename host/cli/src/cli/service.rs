//! Common code of services, and of work that must not be interrupted half-way: they end in order when told
//! to.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use tokio::runtime;

/// Whether signals are already handled by a service that ends in order.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether a signal that would end the program ends it in order.
pub(super) fn takes_signals() -> bool {
    TAKEN.load(Relaxed)
}

/// SIGHUP, which from now on does not end the program.
#[cfg(unix)]
pub(super) fn hung_up() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
}

/// Calls `tell` when a signal would end the program, instead of the signal's own effect.
pub(super) fn instead_of_ending(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = {
        let _entered = runtime.enter();
        ended()?
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(ended);
        tell();
    })?;
    Ok(())
}

/// Ready when a signal ends the program.
#[cfg(unix)]
pub(super) fn ended() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    TAKEN.store(true, Relaxed);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
pub(super) fn ended() -> io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}
