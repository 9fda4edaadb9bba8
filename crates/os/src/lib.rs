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
pub mod steering;
pub mod title;
pub mod uring;
pub mod users;

pub use addr::SockAddr;
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Turns the C convention, -1 and `errno`, into a result.
fn check<T: Copy + PartialEq + From<i8>>(result: T) -> std::io::Result<T> {
    if result == T::from(-1) { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// Bytes that nobody can foresee; zeros should the kernel have none to give.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(filled..) {
        // SAFETY: the pointer and the length are those of `rest`, which outlives the call.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            // A signal may end a call for more than 256 bytes.
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes
}
