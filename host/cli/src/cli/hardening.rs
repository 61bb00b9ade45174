//! This process's memory contains passwords, keys and PINs, and is protected from other processes of the same
//! user.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Prevents other processes of this user from reading this one's memory, and the system from writing it to a
/// core file, as ssh-agent does.
///
/// # Errors
/// When the system does not allow it.
pub(super) fn close_memory() -> io::Result<()> {
    let limit = getrlimit(Resource::Core);
    setrlimit(Resource::Core, rustix::process::Rlimit { current: Some(0), ..limit })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
