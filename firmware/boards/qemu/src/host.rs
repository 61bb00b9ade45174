//! The computer that the emulator runs on, reached by semihosting: QEMU opens files in its working directory for us.
//!
//! That directory is the device: `root-key`, `serial`, `flash` (QEMU maps it as memory), `button`, which is
//! pressed while a file of that name exists, and `noise`, which is read instead of the host's generator if it
//! exists. Emulator only: a program that may ask for files may ask for all of the files of QEMU's user.

use core::ffi::CStr;

use cortex_m_semihosting::syscall;

/// How a file is opened: C's `fopen` modes, numbered as semihosting does.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Mode {
    Read = 1,   // "rb"
    Create = 5, // "wb"
}

/// An open file.
pub(crate) struct File(usize);

#[allow(unsafe_code, reason = "semihosting is a breakpoint that the emulator serves")]
impl File {
    fn new(path: &CStr, mode: Mode) -> Option<Self> {
        // SAFETY: address and length of a path that lives through the call, with its zero.
        let handle = unsafe { syscall!(OPEN, path.as_ptr(), mode as usize, path.count_bytes()) };
        (handle != usize::MAX).then_some(Self(handle))
    }

    /// Opens a file for reading; `None` if there is none.
    pub(crate) fn open(path: &CStr) -> Option<Self> {
        Self::new(path, Mode::Read)
    }

    /// Fills `bytes`; false when the file ends before.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> bool {
        // SAFETY: the host writes at most so many bytes there.
        unsafe { syscall!(READ, self.0, bytes.as_mut_ptr(), bytes.len()) == 0 }
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: the host reads so many bytes from there.
        unsafe { syscall!(WRITE, self.0, bytes.as_ptr(), bytes.len()) == 0 }
    }
}

impl Drop for File {
    #[allow(unsafe_code, reason = "semihosting is a breakpoint that the emulator serves")]
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used again.
        unsafe { syscall!(CLOSE, self.0) };
    }
}

/// The contents of a file of exactly this length; created and filled by `make` if there is none.
pub(crate) fn read_or_make<const N: usize>(path: &CStr, make: impl FnOnce(&mut [u8; N])) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(mut file) = File::open(path) {
        assert!(file.read(&mut bytes), "{path:?} is too short");
        return bytes;
    }
    make(&mut bytes);
    // The emulator can be killed at any moment: a file has its name once it is whole.
    let unfinished = c"unfinished";
    let written = File::new(unfinished, Mode::Create).is_some_and(|mut file| file.write(&bytes));
    assert!(written && rename(unfinished, path), "{path:?} cannot be written");
    bytes
}

#[allow(unsafe_code, reason = "semihosting is a breakpoint that the emulator serves")]
fn rename(from: &CStr, to: &CStr) -> bool {
    // SAFETY: addresses and lengths of paths that live through the call, with their zeros.
    unsafe { syscall!(RENAME, from.as_ptr(), from.count_bytes(), to.as_ptr(), to.count_bytes()) == 0 }
}
