//! Secrets: bytes that memcheck treats as undefined. It follows them through every computation, and reports
//! each branch and each address that depends on one.

#![allow(unsafe_code)] // Valgrind is asked in C; each call is given a slice's own address and length.

use std::ffi::c_void;

unsafe extern "C" {
    safe fn sshsm_ct_watched() -> i32;
    fn sshsm_ct_hide(bytes: *mut c_void, length: usize);
    fn sshsm_ct_reveal(bytes: *mut c_void, length: usize);
    fn sshsm_ct_shadow(bytes: *const c_void, shadow: *mut u8, length: usize) -> i32;
}

/// Whether Valgrind runs this program.
pub fn watched() -> bool {
    sshsm_ct_watched() != 0
}

/// Makes bytes secret.
pub fn hide(bytes: &mut [u8]) {
    unsafe { sshsm_ct_hide(bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// These bytes, secret.
pub fn hidden<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    hide(&mut bytes);
    bytes
}

/// Makes bytes public, and proves that a check reaches its secret: every byte must have depended on one.
///
/// # Panics
/// If one did not.
pub fn reveal(bytes: &mut [u8]) {
    assert!(secret_bytes(bytes) == bytes.len(), "public already: the check does not reach its secret");
    publish(bytes);
}

/// Makes bytes public, whatever they depend on.
pub fn publish(bytes: &mut [u8]) {
    unsafe { sshsm_ct_reveal(bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// Makes a value public, but not what it points to.
pub fn published<T>(mut value: T) -> T {
    unsafe { sshsm_ct_reveal(std::ptr::from_mut(&mut value).cast(), size_of::<T>()) };
    value
}

/// A value made public, which must have depended on a secret.
///
/// # Panics
/// If it did not.
pub fn revealed<T>(value: T) -> T {
    assert!(
        secret_shadow(std::ptr::from_ref(&value).cast(), size_of::<T>()) > 0,
        "the check does not reach its secret"
    );
    published(value)
}

/// How many of the bytes depend on a secret.
pub fn secret_bytes(bytes: &[u8]) -> usize {
    secret_shadow(bytes.as_ptr().cast(), bytes.len())
}

fn secret_shadow(start: *const c_void, length: usize) -> usize {
    let mut shadow = vec![0; length];
    let read = unsafe { sshsm_ct_shadow(start, shadow.as_mut_ptr(), length) };
    assert_eq!(read, 1, "memcheck knows these bytes");
    shadow.iter().filter(|&&bits| bits != 0).count()
}
