//! Reading and writing descriptors.
//!
//! The functions of the hot path take raw descriptors: a number that isn't open, or is another's, gives an error or
//! wrong data, never unsafety, since all memory involved is borrowed for the call.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};

use crate::check;

/// Reads into `buf`.
pub fn read(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`.
    check(unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) }).map(|n| n as usize)
}

/// Writes `buf`.
pub fn write(fd: RawFd, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `buf.len()` bytes of `buf`.
    check(unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) }).map(|n| n as usize)
}

/// Receives into `buf`; 0 means that the peer has closed its side.
pub fn recv(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`.
    check(unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) }).map(|n| n as usize)
}

/// Looks at what could be received without taking it.
pub fn peek(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`.
    check(unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_PEEK | libc::MSG_DONTWAIT) })
        .map(|n| n as usize)
}

/// Sends `buf`; no SIGPIPE is raised. `more`: further bytes follow at once (MSG_MORE).
pub fn send(fd: RawFd, buf: &[u8], more: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: the kernel reads at most `buf.len()` bytes of `buf`.
    check(unsafe { libc::send(fd, buf.as_ptr().cast(), buf.len(), flags) }).map(|n| n as usize)
}

/// Sends several slices, at most 1024, as one message; no SIGPIPE is raised. `more` as for [`send`].
pub fn send_vectored(fd: RawFd, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_ptr().cast::<libc::iovec>().cast_mut();
    message.msg_iovlen = slices.len().min(1024);
    // SAFETY: `IoSlice` has the layout of `iovec` (guaranteed by std); the kernel only reads what the slices span.
    check(unsafe { libc::sendmsg(fd, &message, flags) }).map(|n| n as usize)
}

/// Sends up to `len` bytes of `file` from `offset` without copying them through this process.
pub fn sendfile(fd: RawFd, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    let mut offset = offset as libc::off_t;
    // SAFETY: `offset` lives over the call; no other memory is involved.
    check(unsafe { libc::sendfile(fd, file.as_raw_fd(), &mut offset, len.min(0x7fff_f000)) }).map(|n| n as usize)
}

/// Reads from `offset` without moving the file's position.
pub fn pread(fd: RawFd, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`.
    check(unsafe { libc::pread(fd, buf.as_mut_ptr().cast(), buf.len(), offset as libc::off_t) }).map(|n| n as usize)
}

/// Makes a descriptor blocking or nonblocking.
pub fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    let mut on = libc::c_int::from(on);
    // SAFETY: FIONBIO reads one int, `on`.
    check(unsafe { libc::ioctl(fd, libc::FIONBIO, &mut on) }).map(drop)
}

/// Lets a descriptor be closed on exec, or inherited.
pub fn set_cloexec(fd: RawFd, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, flags) }).map(drop)
}

/// Whether a descriptor is a terminal.
pub fn isatty(fd: RawFd) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::isatty(fd) == 1 }
}

/// Makes `to` a second name of `from`, closing what `to` was.
pub fn dup2(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved. Who owns `to` keeps owning a descriptor, only of another file.
    check(unsafe { libc::dup2(from, to) }).map(drop)
}

/// Takes ownership of a descriptor that another process left open for this one.
///
/// An error if it isn't open. The caller states by the call that nothing else in this process owns the number.
pub fn adopt(fd: RawFd) -> io::Result<std::os::fd::OwnedFd> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: the descriptor is open; it was inherited, and by the contract nobody else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}
