//! Socket pairs between processes, and passing descriptors over them.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::check;

/// A pair of connected unix sockets, nonblocking and closed on exec. Each message written is read as one.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel fills both places.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: both descriptors are new and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// The most descriptors that one message carries.
pub const MAX_FDS: usize = 16;

/// Room for a control message with [`MAX_FDS`] descriptors, aligned as its header needs.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// Sends one message with descriptors, at most [`MAX_FDS`]. An error `WouldBlock` if the channel is full.
pub fn send(channel: RawFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control([0; 128]);
    let mut slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&mut slice, 1);
    if !fds.is_empty() {
        let data = mem::size_of_val(fds) as u32;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: pure arithmetic; MAX_FDS descriptors of 4 bytes and the header need 80 of the 128 bytes. The header
        // and the data that follow lie inside `control`, which is aligned for them.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(data) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data) as _;
            for (i, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(header).cast::<RawFd>().add(i).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    // SAFETY: the message points to memory that lives over the call.
    check(unsafe { libc::sendmsg(channel, &message, libc::MSG_NOSIGNAL) }).map(drop)
}

/// Receives one message: its length (0: the other end is closed) and the descriptors that came with it.
pub fn recv(channel: RawFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; 128]);
    let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&mut slice, 1);
    (message.msg_control, message.msg_controllen) = (control.0.as_mut_ptr().cast(), control.0.len() as _);
    // SAFETY: the message points to memory that lives over the call.
    let n = check(unsafe { libc::recvmsg(channel, &mut message, libc::MSG_CMSG_CLOEXEC) })?;
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control buffer; the macros walk inside `msg_controllen` bytes of it, and each
    // descriptor in an SCM_RIGHTS message is new and ours.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / mem::size_of::<RawFd>();
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend((0..count).map(|i| OwnedFd::from_raw_fd(data.add(i).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    Ok((n as usize, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn passes_descriptors() {
        let (a, b) = pair().expect("pair");
        let (c, d) = pair().expect("pair");
        send(a.as_raw_fd(), b"take", &[c.as_fd(), d.as_fd()]).expect("send");
        send(a.as_raw_fd(), b"more", &[]).expect("send");
        let mut buf = [0; 64];
        let (n, fds) = recv(b.as_raw_fd(), &mut buf).expect("recv");
        assert_eq!((&buf[..n], fds.len()), (&b"take"[..], 2));
        send(fds[0].as_raw_fd(), b"x", &[]).expect("send over the passed one");
        assert_eq!(recv(d.as_raw_fd(), &mut buf).expect("recv").0, 1);
        assert_eq!(recv(b.as_raw_fd(), &mut buf).expect("recv").0, 4);
        assert_eq!(recv(b.as_raw_fd(), &mut buf).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(recv(b.as_raw_fd(), &mut buf).expect("closed").0, 0);
    }
}
