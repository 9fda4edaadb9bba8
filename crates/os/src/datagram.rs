//! Datagrams, many by one call: each with the addresses of both ends, its congestion marks (ECN), and, where the kernel
//! can, as one of several that are passed through it in one piece.
//!
//! Where a kernel lacks something, less is told or more calls are needed; nothing fails for it.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use crate::addr::RawAddr;
use crate::socket::{get, set};
use crate::{SockAddr, check};

/// How many datagrams, or pieces of several, one call receives or sends at most.
pub const BATCH: usize = 32;

/// The memory of calls, to be used again and again. Its 2 MiB are the process's only once the kernel has written to
/// them: a page or two for each datagram of the largest batch so far.
pub struct Batch {
    headers: [libc::mmsghdr; BATCH],
    slices: [libc::iovec; BATCH],
    names: [RawAddr; BATCH],
    controls: [Control; BATCH],
    memory: Box<[u8]>,
    received: usize,
}

/// A datagram that was received, or several of one sender in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// What it holds.
    pub bytes: &'a [u8],
    /// Where it came from.
    pub from: SockAddr,
    /// The address of this machine that it reached, if the socket has several and was [`prepare`]d, and it was sent to no
    /// group.
    pub to: Option<IpAddr>,
    /// Unless 0, `bytes` are several datagrams, each of this length but for the last, which may be shorter.
    pub segment: usize,
    /// Its congestion mark (RFC 3168), two bits.
    pub ecn: u8,
}

/// A datagram to be sent, or several in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// What it holds.
    pub bytes: &'a [u8],
    /// Where it goes; `None`: where the socket is connected to.
    pub to: Option<&'a SockAddr>,
    /// The address of this machine that it comes from; `None`: the socket's, or one that the kernel chooses.
    pub from: Option<IpAddr>,
    /// Unless 0, `bytes` are sent as several datagrams, each of this length but for the last, which may be shorter.
    pub segment: usize,
    /// Its congestion mark (RFC 3168), two bits.
    pub ecn: u8,
}

impl<'a> Transmit<'a> {
    /// One datagram to where the socket is connected to.
    pub fn new(bytes: &'a [u8]) -> Transmit<'a> {
        Transmit { bytes, to: None, from: None, segment: 0, ecn: 0 }
    }

    /// Whether nothing has to be told to the kernel beside its bytes and where they go.
    pub fn is_plain(&self) -> bool {
        self.from.is_none() && self.segment == 0 && self.ecn == 0
    }

    /// How many bytes go into the next message, if the kernel cuts it into datagrams itself (`gso`) or not.
    fn message(&self, gso: bool) -> usize {
        let most = match (self.segment, gso) {
            (0, _) => return self.bytes.len(),
            (segment, false) => segment,
            (segment, true) => segment * (LONGEST / segment).clamp(1, SEGMENTS),
        };
        self.bytes.len().min(most)
    }
}

impl Batch {
    /// Memory for calls.
    pub fn new() -> Box<Batch> {
        // SAFETY: `mmsghdr` and `iovec` are plain old data, for which all zeroes is a value.
        let (headers, slices) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let (names, controls) = ([RawAddr::default(); BATCH], [Control([0; CONTROL]); BATCH]);
        Box::new(Batch { headers, slices, names, controls, memory: vec![0; BATCH * ROOM].into(), received: 0 })
    }

    /// Receives what is there, without waiting: how many messages, `most` and [`BATCH`] at most. [`Batch::received`] shows
    /// them.
    pub fn recv(&mut self, fd: RawFd, most: usize) -> io::Result<usize> {
        self.received = 0;
        let most = most.min(BATCH);
        let rooms = self.memory.chunks_exact_mut(ROOM);
        for (n, room) in rooms.enumerate().take(most) {
            self.slices[n] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: ROOM };
            let (name, control) = ((&mut self.names[n], RawAddr::ROOM), (&mut self.controls[n], CONTROL));
            describe(&mut self.headers[n], &mut self.slices[n], name, control);
        }
        // SAFETY: each header names a slice of `memory`, an address and a control buffer that are valid for their
        // lengths, are its own, and aren't touched during the call.
        let count = check(unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        })?;
        self.received = count as usize;
        for n in 0..self.received {
            self.names[n].len = self.headers[n].msg_hdr.msg_namelen;
        }
        Ok(self.received)
    }

    /// Receives one datagram, without waiting and without what stands beside it: less work for the kernel than a batch of one.
    pub fn recv_one(&mut self, fd: RawFd) -> io::Result<&[u8]> {
        let length = crate::io::recv(fd, &mut self.memory[..ROOM])?;
        Ok(&self.memory[..length])
    }

    /// The same of a socket that isn't connected, with the sender's address.
    pub fn recv_from(&mut self, fd: RawFd) -> io::Result<(&[u8], SockAddr)> {
        let (name, room) = (&mut self.names[0], &mut self.memory[..ROOM]);
        name.len = RawAddr::ROOM;
        let (address, len) = (name.as_mut_ptr(), &raw mut name.len);
        // SAFETY: bytes and address have room for the lengths that are given, and aren't touched during the call.
        let length = check(unsafe {
            libc::recvfrom(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT, address.cast(), len)
        })?;
        Ok((&self.memory[..length as usize], SockAddr::from_raw(&self.names[0])))
    }

    /// What the last [`Batch::recv`] has received, but for messages longer than 64 KiB, which only unix sockets carry:
    /// the kernel has cut them.
    pub fn received(&self) -> impl Iterator<Item = Received<'_>> {
        let whole = |n: &usize| self.headers[*n].msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        (0..self.received).filter(whole).map(|n| self.message(n))
    }

    fn message(&self, n: usize) -> Received<'_> {
        let header = &self.headers[n];
        let bytes = &self.memory[n * ROOM..][..(header.msg_len as usize).min(ROOM)];
        let from = SockAddr::from_raw(&self.names[n]);
        let mut received = Received { bytes, from, to: None, segment: 0, ecn: 0 };
        self.controls[n].read(header.msg_hdr.msg_controllen as _, &mut received);
        received
    }

    /// Sends the first of these, as many as the kernel takes: how many are with it entirely. Of the next one, `bytes`
    /// keeps what isn't. An error: the first one couldn't be sent, nor any other.
    ///
    /// `gso`: the kernel cuts pieces into datagrams, as [`can_segment`] says it can. `EIO` and `EINVAL` may then mean
    /// that a network interface can't.
    pub fn send(&mut self, fd: RawFd, batch: &mut [Transmit<'_>], gso: bool) -> io::Result<usize> {
        let count = self.fill(batch, gso);
        if count == 1 {
            // SAFETY: as below; this call is a little faster.
            let sent = unsafe { libc::sendmsg(fd, &self.headers[0].msg_hdr, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
            return Ok(advance(batch, 1, gso));
        }
        // SAFETY: the first `count` headers name bytes that `batch` borrows, addresses and control buffers, all valid for
        // their lengths; the kernel only reads them.
        let sent = check(unsafe {
            libc::sendmmsg(
                fd,
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        })?;
        Ok(advance(batch, sent, gso))
    }

    /// Makes messages of as many as have room: how many.
    fn fill(&mut self, batch: &[Transmit<'_>], gso: bool) -> usize {
        let mut n = 0;
        for transmit in batch {
            let mut rest = *transmit;
            loop {
                if n == BATCH {
                    return n;
                }
                let bytes = &rest.bytes[..rest.message(gso)];
                rest.bytes = &rest.bytes[bytes.len()..];
                self.put(n, bytes, transmit);
                n += 1;
                if rest.bytes.is_empty() {
                    break;
                }
            }
        }
        n
    }

    fn put(&mut self, n: usize, bytes: &[u8], transmit: &Transmit<'_>) {
        self.slices[n] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let (name, control) = (&mut self.names[n], &mut self.controls[n]);
        if let Some(to) = transmit.to {
            *name = to.to_raw();
        }
        let name_len = if transmit.to.is_some() { name.len } else { 0 };
        let control_len = control.write(bytes.len(), transmit);
        describe(&mut self.headers[n], &mut self.slices[n], (name, name_len), (control, control_len));
    }
}

/// Sends one datagram beside which nothing stands ([`Transmit::is_plain`]): less work for the kernel than a message.
pub fn send_plain(fd: RawFd, transmit: &Transmit<'_>) -> io::Result<()> {
    let Some(to) = transmit.to else { return crate::io::send(fd, transmit.bytes, false).map(drop) };
    let mut name = to.to_raw();
    let (bytes, flags) = (transmit.bytes, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    let (start, length) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: the kernel only reads the bytes and the address, which are valid for their lengths.
    let sent = unsafe { libc::sendto(fd, start, length, flags, name.as_mut_ptr().cast(), name.len) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes so many messages that were sent off the first of these; how many are sent entirely.
fn advance(batch: &mut [Transmit<'_>], sent: libc::c_int, gso: bool) -> usize {
    let mut whole = 0;
    for _ in 0..sent {
        let transmit = &mut batch[whole];
        transmit.bytes = &transmit.bytes[transmit.message(gso)..];
        whole += usize::from(transmit.bytes.is_empty());
    }
    whole
}

/// Writes the header of a message: where its bytes, its address and what goes beside it are, and how long.
fn describe(
    header: &mut libc::mmsghdr,
    slice: &mut libc::iovec,
    (name, name_len): (&mut RawAddr, libc::socklen_t),
    (control, control_len): (&mut Control, usize),
) {
    let header = &mut header.msg_hdr;
    header.msg_name = if name_len == 0 { std::ptr::null_mut() } else { name.as_mut_ptr().cast() };
    header.msg_namelen = name_len;
    (header.msg_iov, header.msg_iovlen) = (slice, 1);
    header.msg_control = if control_len == 0 { std::ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
    header.msg_controllen = control_len as _;
    header.msg_flags = 0;
}

/// What goes beside a message, in the kernel's form.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Values that may stand there: plain old data.
trait Plain: Copy {}
impl Plain for u16 {}
impl Plain for i32 {}
impl Plain for libc::in_pktinfo {}
impl Plain for libc::in6_pktinfo {}

impl Control {
    /// Notes what stands beside `len` bytes of a message; how long that is.
    fn write(&mut self, len: usize, transmit: &Transmit<'_>) -> usize {
        let mut end = 0;
        match transmit.from {
            Some(IpAddr::V4(ip)) => {
                let from = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let none = libc::in_addr { s_addr: 0 };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: none };
                self.push(&mut end, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(ip)) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                self.push(&mut end, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if transmit.ecn != 0 {
            // A socket takes the one that is of its family, and passes over the other.
            self.push(&mut end, libc::IPPROTO_IP, libc::IP_TOS, i32::from(transmit.ecn & ECN));
            self.push(&mut end, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, i32::from(transmit.ecn & ECN));
        }
        if transmit.segment != 0 && transmit.segment < len {
            self.push(&mut end, SOL_UDP, UDP_SEGMENT, transmit.segment as u16);
        }
        end
    }

    fn push<T: Plain>(&mut self, end: &mut usize, level: i32, kind: i32, value: T) {
        let size = mem::size_of::<T>() as libc::c_uint;
        // SAFETY: both only compute.
        let (space, len) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
        let room = &mut self.0[*end..][..space];
        // SAFETY: `room` has space for the header and the value after it. It is aligned for the header, as the start of
        // the buffer and each space is; the value is written unaligned. All zeroes is a header.
        unsafe {
            let at = room.as_mut_ptr().cast::<libc::cmsghdr>();
            let mut header: libc::cmsghdr = mem::zeroed();
            (header.cmsg_len, header.cmsg_level, header.cmsg_type) = (len as _, level, kind);
            at.write(header);
            libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
        }
        *end += space;
    }

    /// Takes over what the kernel has noted in the first `len` bytes.
    fn read(&self, len: usize, into: &mut Received<'_>) {
        let mut rest = &self.0[..len.min(CONTROL)];
        // SAFETY: it only computes.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        while rest.len() >= head {
            // SAFETY: the bytes of a header are there, and any bytes are one; it is read unaligned.
            let header: libc::cmsghdr = unsafe { rest.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
            let Some(data) = rest.get(head..header.cmsg_len as _) else { return };
            take(header.cmsg_level, header.cmsg_type, data, into);
            // SAFETY: it only computes.
            let space = unsafe { libc::CMSG_SPACE(data.len() as libc::c_uint) } as usize;
            rest = rest.get(space..).unwrap_or_default();
        }
    }
}

/// Takes over one thing that the kernel has told.
fn take(level: i32, kind: i32, data: &[u8], into: &mut Received<'_>) {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // Of a datagram to a group or a broadcast address it is the address to answer from, too.
            let ip = plain(data).map(|info: libc::in_pktinfo| Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()));
            // The kernel doesn't know it of one that came before the socket was prepared.
            into.to = ip.filter(|ip| !ip.is_unspecified()).map(IpAddr::V4);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let ip = plain(data).map(|info: libc::in6_pktinfo| Ipv6Addr::from(info.ipi6_addr.s6_addr));
            into.to = ip.filter(|ip| !ip.is_multicast()).map(IpAddr::V6);
        }
        // One byte of IPv4, an int of IPv6.
        (libc::IPPROTO_IP, libc::IP_TOS) => into.ecn = data.first().map_or(0, |tos| tos & ECN),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => into.ecn = plain(data).map_or(0, |class: i32| class as u8 & ECN),
        (SOL_UDP, UDP_GRO) => {
            let segment = plain(data).map_or(0, |segment: i32| segment.max(0) as usize);
            into.segment = if segment < into.bytes.len() { segment } else { 0 };
        }
        _ => {}
    }
}

/// The value that these bytes are.
fn plain<T: Plain>(data: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, and any are a value of plain data; it is read unaligned.
    (data.len() >= mem::size_of::<T>()).then(|| unsafe { data.as_ptr().cast::<T>().read_unaligned() })
}

/// Has a socket that is bound to this address tell of each datagram its congestion mark, and which address it reached, if
/// it has all of them. What the kernel lacks is left out.
pub fn prepare(fd: RawFd, addr: &SockAddr) {
    let on = |level, option| drop(set(fd, level, option, 1));
    match addr {
        SockAddr::V4(addr) if addr.ip().is_unspecified() => on(libc::IPPROTO_IP, libc::IP_PKTINFO),
        SockAddr::V4(_) => {}
        SockAddr::V6(addr) => {
            if addr.ip().is_unspecified() {
                on(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
            }
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS);
        }
        SockAddr::Unix(_) => return,
    }
    // Those of IPv4 may come by a socket of IPv6.
    on(libc::IPPROTO_IP, libc::IP_RECVTOS);
}

/// Has the kernel join datagrams of one sender, all of one length, that wait together (UDP_GRO); whether it can.
pub fn set_gro(fd: RawFd, on: bool) -> bool {
    set(fd, SOL_UDP, UDP_GRO, i32::from(on)).is_ok()
}

/// Whether the kernel can cut a message to this socket into datagrams (UDP_SEGMENT).
pub fn can_segment(fd: RawFd) -> bool {
    get(fd, SOL_UDP, UDP_SEGMENT).is_ok()
}

/// The longest that the kernel makes of several datagrams is shorter.
const ROOM: usize = 64 << 10;
/// The longest message over IPv4, and how many datagrams the kernel cuts one into.
const LONGEST: usize = 65_507;
const SEGMENTS: usize = 64;
/// Enough for all that is asked for, or sent.
const CONTROL: usize = 192;
/// The bits of the congestion mark in TOS and traffic class.
const ECN: u8 = 3;

pub(crate) const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
pub(crate) const UDP_GRO: i32 = 104;

#[cfg(test)]
#[path = "datagram_tests.rs"]
mod tests;
