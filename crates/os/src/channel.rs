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

/// What has come.
#[derive(Debug)]
pub struct Received {
    /// How many bytes are in the buffer; 0: the other end is closed.
    pub len: usize,
    /// What came with them.
    pub fds: Vec<OwnedFd>,
    /// The message was longer than the buffer, or more than [`MAX_FDS`] descriptors came: the rest is lost.
    pub cut: bool,
}

/// Receives one message. An error with the code EMFILE: the process has no room for all descriptors that come with it.
/// Then the message, with all its descriptors, is still there to be received.
pub fn recv(channel: RawFd, buf: &mut [u8]) -> io::Result<Received> {
    // Looked at first: the kernel gives what fits into the table of descriptors and loses the rest without an error.
    let (len, fds, flags) = recv_with(channel, buf, libc::MSG_PEEK)?;
    if flags & libc::MSG_CTRUNC != 0 && fds.len() <= MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if len > 0 {
        discard(channel)?;
    }
    let cut = flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || fds.len() > MAX_FDS;
    Ok(Received { len, fds, cut })
}

/// Throws the next message away, with its descriptors.
pub fn discard(channel: RawFd) -> io::Result<()> {
    let mut byte = 0u8;
    // SAFETY: the kernel writes at most one byte; of a message what isn't read is gone.
    check(unsafe { libc::recv(channel, (&raw mut byte).cast(), 1, 0) }).map(drop)
}

/// Receives or looks at one message: its length, its descriptors, and what the kernel says of it.
fn recv_with(channel: RawFd, buf: &mut [u8], flags: i32) -> io::Result<(usize, Vec<OwnedFd>, i32)> {
    let mut control = Control([0; 128]);
    let mut slice = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&mut slice, 1);
    (message.msg_control, message.msg_controllen) = (control.0.as_mut_ptr().cast(), control.0.len() as _);
    // SAFETY: the message points to memory that lives over the call.
    let n = check(unsafe { libc::recvmsg(channel, &mut message, libc::MSG_CMSG_CLOEXEC | flags) })?;
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
    Ok((n as usize, fds, message.msg_flags))
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
        let Received { len, fds, cut } = recv(b.as_raw_fd(), &mut buf).expect("recv");
        assert_eq!((&buf[..len], fds.len(), cut), (&b"take"[..], 2, false));
        send(fds[0].as_raw_fd(), b"x", &[]).expect("send over the passed one");
        assert_eq!(recv(d.as_raw_fd(), &mut buf).expect("recv").len, 1);
        assert_eq!(recv(b.as_raw_fd(), &mut buf).expect("recv").len, 4);
        assert_eq!(recv(b.as_raw_fd(), &mut buf).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(recv(b.as_raw_fd(), &mut buf).expect("closed").len, 0);
    }
    #[test]
    fn nothing_is_lost_at_the_limit_of_descriptors() {
        use crate::process::{Limit, set_soft_limit, tests_fork};
        tests_fork(|| {
            let (a, b) = pair().expect("pair");
            let (c, d) = pair().expect("pair");
            send(a.as_raw_fd(), b"one", &[c.as_fd(), d.as_fd()]).expect("send");
            send(a.as_raw_fd(), b"two", &[c.as_fd()]).expect("send");
            let mut buf = [0; 64];
            set_soft_limit(Limit::Files, 256).expect("limit");
            let mut files: Vec<OwnedFd> = std::iter::from_fn(|| c.try_clone().ok()).collect();
            for room in 0..2 {
                let error = recv(b.as_raw_fd(), &mut buf).expect_err("no room");
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{room}");
                files.pop();
            }
            let received = recv(b.as_raw_fd(), &mut buf).expect("what fitted before was closed again");
            assert_eq!((&buf[..received.len], received.fds.len()), (&b"one"[..], 2));
            send(received.fds[0].as_raw_fd(), b"x", &[]).expect("it is the one that was sent");
            assert!(recv(b.as_raw_fd(), &mut buf).is_err());
            discard(b.as_raw_fd()).expect("discarded");
            assert_eq!(recv(b.as_raw_fd(), &mut buf).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn what_is_cut_says_so() {
        let (a, b) = pair().expect("pair");
        send(a.as_raw_fd(), b"longer", &[]).expect("send");
        send(a.as_raw_fd(), b"next", &[]).expect("send");
        let mut buf = [0; 5];
        let received = recv(b.as_raw_fd(), &mut buf).expect("recv");
        assert_eq!((&buf[..received.len], received.cut), (&b"longe"[..], true));
        let received = recv(b.as_raw_fd(), &mut buf).expect("recv");
        assert_eq!((&buf[..received.len], received.cut), (&b"next"[..], false));
    }
}
