//! System calls and nothing else: each function is a thin, safe door to one service of the kernel.
//!
//! Nothing here keeps state, waits where its name doesn't say so, or knows what a connection or a worker is. This crate,
//! `shm` and `rt` are the only ones with `unsafe`.

mod addr;
pub mod capability;
pub mod channel;
pub mod clock;
pub mod datagram;
pub mod epoll;
pub mod file;
pub mod futex;
pub mod io;
pub mod memory;
pub mod poll;
pub mod process;
pub mod sandbox;
pub mod signal;
pub mod socket;
pub mod title;
pub mod uring;
pub mod users;

pub use addr::SockAddr;
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Turns the C convention, -1 and `errno`, into a result.
fn check<T: Copy + PartialEq + From<i8>>(result: T) -> std::io::Result<T> {
    if result == T::from(-1) { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// Bytes that nobody can foresee; zeros should the kernel have none to give. It gives up to 256 in one piece.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // SAFETY: the pointer and the length are those of `bytes`, which outlives the call.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    bytes
}
