//! Sockets: making, listening, accepting, connecting, options.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::addr::RawAddr;
use crate::{SockAddr, check, datagram};

/// What `so_keepalive` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Seconds of silence before the first probe; `None`: the system's default.
    pub idle: Option<u32>,
    /// Seconds between probes.
    pub interval: Option<u32>,
    /// Unanswered probes before the connection is dropped.
    pub count: Option<u32>,
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Connections: TCP, or a stream over a unix socket.
    #[default]
    Stream,
    /// Datagrams: UDP, or those of a unix socket.
    Datagram,
}

/// How a listening socket is made: the parameters of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// The length of the queue of connections not yet accepted.
    pub backlog: i32,
    /// SO_RCVBUF, in bytes.
    pub rcvbuf: Option<u32>,
    /// SO_SNDBUF, in bytes.
    pub sndbuf: Option<u32>,
    /// SO_REUSEPORT.
    pub reuseport: bool,
    /// IPV6_V6ONLY.
    pub ipv6only: bool,
    /// Switches keep-alive probes on (`Some(Some(_))`), off (`Some(None)`) or leaves them (`None`).
    pub so_keepalive: Option<Option<Keepalive>>,
    /// TCP_FASTOPEN with this length of the queue.
    pub fastopen: Option<u32>,
    /// TCP_DEFER_ACCEPT.
    pub deferred: bool,
    /// Connections or datagrams.
    pub kind: Kind,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            backlog: 511,
            rcvbuf: None,
            sndbuf: None,
            reuseport: false,
            ipv6only: true,
            so_keepalive: None,
            fastopen: None,
            deferred: false,
            kind: Kind::Stream,
        }
    }
}

/// A listening socket couldn't be made.
#[derive(Debug)]
pub struct ListenError {
    /// The call that failed: `socket()`, `bind()`, `listen()` or `setsockopt(…)`.
    pub call: &'static str,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({})", self.call, self.error)
    }
}

impl std::error::Error for ListenError {}

fn at(call: &'static str) -> impl FnOnce(io::Error) -> ListenError {
    move |error| ListenError { call, error }
}

/// A bound, listening socket (bound only, if it is for datagrams), nonblocking and closed on exec.
///
/// A unix socket's file is open to everyone (0666), as in nginx. Options that the system lacks are errors.
pub fn listen(addr: &SockAddr, options: &ListenOptions) -> Result<OwnedFd, ListenError> {
    let fd = socket(addr, options.kind).map_err(at("socket()"))?;
    let raw = fd.as_raw_fd();
    if options.kind == Kind::Stream {
        // Two sockets for datagrams would share the address by it, unnoticed; nothing lingers after theirs.
        set(raw, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).map_err(at("setsockopt(SO_REUSEADDR)"))?;
    }
    if options.reuseport {
        set(raw, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(at("setsockopt(SO_REUSEPORT)"))?;
    }
    if matches!(addr, SockAddr::V6(_)) {
        set(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(options.ipv6only))
            .map_err(at("setsockopt(IPV6_V6ONLY)"))?;
    }
    if options.kind == Kind::Datagram {
        // Of datagrams that come before their receiver asks for it the kernel wouldn't tell.
        datagram::prepare(raw, addr);
    }
    bind(raw, addr).map_err(at("bind()"))?;
    if let SockAddr::Unix(path) = addr
        && path.first().is_some_and(|b| *b != 0)
    {
        let path = std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).map_err(at("chmod()"))?;
    }
    if options.kind == Kind::Stream {
        // SAFETY: no memory is involved.
        check(unsafe { libc::listen(raw, options.backlog) }).map_err(at("listen()"))?;
    }
    configure(fd.as_fd().as_raw_fd(), options, false)?;
    Ok(fd)
}

/// Applies the options to a listening socket that exists already; `inherited`: the backlog too, and former `fastopen`
/// and `deferred` are undone.
pub fn configure(fd: RawFd, options: &ListenOptions, inherited: bool) -> Result<(), ListenError> {
    if let Some(size) = options.rcvbuf {
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, size as i32).map_err(at("setsockopt(SO_RCVBUF)"))?;
    }
    if let Some(size) = options.sndbuf {
        set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, size as i32).map_err(at("setsockopt(SO_SNDBUF)"))?;
    }
    // What only TCP has is nothing to a socket of the file system's.
    let of_tcp = |set: io::Result<()>| match set {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        set => set,
    };
    if let Some(keepalive) = options.so_keepalive {
        of_tcp(set_keepalive(fd, keepalive)).map_err(at("setsockopt(SO_KEEPALIVE)"))?;
    }
    if options.fastopen.is_some() || (inherited && get(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN).is_ok_and(|v| v != 0))
    {
        let length = options.fastopen.unwrap_or(0) as i32;
        of_tcp(set(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, length)).map_err(at("setsockopt(TCP_FASTOPEN)"))?;
    }
    if options.deferred || (inherited && get(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT).is_ok_and(|v| v != 0)) {
        of_tcp(set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32::from(options.deferred)))
            .map_err(at("setsockopt(TCP_DEFER_ACCEPT)"))?;
    }
    if inherited && options.kind == Kind::Stream {
        // SAFETY: no memory is involved.
        check(unsafe { libc::listen(fd, options.backlog) }).map_err(at("listen()"))?;
    }
    Ok(())
}

/// A new socket of the address's family, nonblocking and closed on exec.
pub fn socket(addr: &SockAddr, kind: Kind) -> io::Result<OwnedFd> {
    let family = match addr {
        SockAddr::V4(_) => libc::AF_INET,
        SockAddr::V6(_) => libc::AF_INET6,
        SockAddr::Unix(_) => libc::AF_UNIX,
    };
    let kind = match kind {
        Kind::Stream => libc::SOCK_STREAM,
        Kind::Datagram => libc::SOCK_DGRAM,
    };
    // SAFETY: no memory is involved; a descriptor that isn't -1 is new and ours.
    Ok(unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0))?)
    })
}

/// Gives a socket its own address.
pub fn bind(fd: RawFd, addr: &SockAddr) -> io::Result<()> {
    let raw = addr.to_raw();
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(fd, raw.as_ptr(), raw.len) }).map(drop)
}

/// Lets the port of a bound but not yet connected socket be chosen at `connect` (IP_BIND_ADDRESS_NO_PORT).
pub fn set_bind_without_port(fd: RawFd) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Lets a socket have an address that isn't this machine's (IP_TRANSPARENT); `own` tells the family.
pub fn set_transparent(fd: RawFd, own: &SockAddr) -> io::Result<()> {
    match own {
        SockAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1),
        SockAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1),
        SockAddr::Unix(_) => Ok(()),
    }
}

/// Begins to connect; `Ok(false)`: it goes on, wait until the socket is writable and ask [`take_error`].
pub fn connect(fd: RawFd, addr: &SockAddr) -> io::Result<bool> {
    let raw = addr.to_raw();
    // SAFETY: the address is valid for its length.
    match check(unsafe { libc::connect(fd, raw.as_ptr(), raw.len) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes the error that waits at a socket (SO_ERROR).
pub fn take_error(fd: RawFd) -> io::Result<()> {
    match get(fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Accepts a connection, nonblocking and closed on exec.
pub fn accept(fd: RawFd) -> io::Result<(OwnedFd, SockAddr)> {
    let mut raw = RawAddr::default();
    let (address, len) = (raw.as_mut_ptr(), &raw mut raw.len);
    // SAFETY: the address has room for every family, its length is given.
    let fd = check(unsafe { libc::accept4(fd, address, len, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) })?;
    // SAFETY: the descriptor is new and ours.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, SockAddr::from_raw(&raw)))
}

/// A socket's own address.
pub fn local_addr(fd: RawFd) -> io::Result<SockAddr> {
    let mut raw = RawAddr::default();
    let (address, len) = (raw.as_mut_ptr(), &raw mut raw.len);
    // SAFETY: the address has room for every family, its length is given.
    check(unsafe { libc::getsockname(fd, address, len) })?;
    Ok(SockAddr::from_raw(&raw))
}

/// The address of a connected socket's peer.
pub fn peer_addr(fd: RawFd) -> io::Result<SockAddr> {
    let mut raw = RawAddr::default();
    let (address, len) = (raw.as_mut_ptr(), &raw mut raw.len);
    // SAFETY: the address has room for every family, its length is given.
    check(unsafe { libc::getpeername(fd, address, len) })?;
    Ok(SockAddr::from_raw(&raw))
}

/// Sends a datagram.
pub fn send_to(fd: RawFd, buf: &[u8], to: &SockAddr) -> io::Result<usize> {
    let raw = to.to_raw();
    let flags = libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads `buf` and the address, both valid for their lengths.
    check(unsafe { libc::sendto(fd, buf.as_ptr().cast(), buf.len(), flags, raw.as_ptr(), raw.len) }).map(|n| n as usize)
}

/// Which direction [`shutdown`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// No more is received.
    Read,
    /// No more is sent: the peer sees the end.
    Write,
    /// Both.
    Both,
}

/// Ends one or both directions of a connection.
pub fn shutdown(fd: RawFd, direction: Direction) -> io::Result<()> {
    let how = match direction {
        Direction::Read => libc::SHUT_RD,
        Direction::Write => libc::SHUT_WR,
        Direction::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is involved.
    check(unsafe { libc::shutdown(fd, how) }).map(drop)
}

/// TCP_NODELAY.
pub fn set_nodelay(fd: RawFd, on: bool) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, i32::from(on))
}

/// SO_RCVBUF, in bytes.
pub fn set_rcvbuf(fd: RawFd, size: u32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, size as i32)
}

/// SO_SNDBUF, in bytes.
pub fn set_sndbuf(fd: RawFd, size: u32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, size as i32)
}

/// Keep-alive probes on, with these times, or off.
pub fn set_keepalive(fd: RawFd, keepalive: Option<Keepalive>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, i32::from(keepalive.is_some()))?;
    let k = keepalive.unwrap_or_default();
    for (option, value) in
        [(libc::TCP_KEEPIDLE, k.idle), (libc::TCP_KEEPINTVL, k.interval), (libc::TCP_KEEPCNT, k.count)]
    {
        if let Some(value) = value {
            set(fd, libc::IPPROTO_TCP, option, value as i32)?;
        }
    }
    Ok(())
}

/// Lets the next close drop the connection at once, with a reset (SO_LINGER, zero seconds).
pub fn set_linger_reset(fd: RawFd) -> io::Result<()> {
    let value = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is valid for its length.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const value).cast(), len) }).map(drop)
}

/// Whether a socket listens.
pub fn is_listening(fd: RawFd) -> bool {
    get(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|v| v == 1)
}

/// Whether a socket carries connections or datagrams (SO_TYPE); an error if it is of another type, or no socket.
pub fn kind(fd: RawFd) -> io::Result<Kind> {
    match get(fd, libc::SOL_SOCKET, libc::SO_TYPE)? {
        libc::SOCK_STREAM => Ok(Kind::Stream),
        libc::SOCK_DGRAM => Ok(Kind::Datagram),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Whether SO_REUSEPORT is set.
pub fn is_reuseport(fd: RawFd) -> bool {
    get(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT).is_ok_and(|v| v != 0)
}

/// SO_REUSEPORT: sockets of one user that have it may be bound to the same address, or to addresses that overlap.
pub fn set_reuseport(fd: RawFd, on: bool) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, i32::from(on))
}

/// Lets a listening socket get no further connections: new ones go to another socket that listens on the address, or
/// are refused. What is in its queue, or on its way into it, can still be accepted.
///
/// It is bound to a network interface that doesn't exist. The kernel looks at a listener's interface when a connection
/// begins, and never again.
pub fn retire(fd: RawFd) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, NOWHERE)
}

/// Lets a bound datagram socket get no further datagrams: new ones go to another socket that is bound there, or are
/// refused. What is in its queue can still be received, and it can still send.
///
/// It is connected to its own address, from which nobody else sends. Bound to an interface that doesn't exist it could
/// not answer any more.
pub fn retire_datagrams(fd: RawFd) -> io::Result<()> {
    connect(fd, &local_addr(fd)?).map(drop)
}

/// Whether somebody who shares this socket has called [`retire`] on it.
pub fn is_retired(fd: RawFd) -> bool {
    get(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX).is_ok_and(|v| v == NOWHERE)
}

/// The number of an interface that no system ever has: they are counted from 1.
const NOWHERE: i32 = i32::MAX;

/// The user and the process at the other end of a connected unix socket, as they were when it connected or listened.
pub fn peer_credentials(fd: RawFd) -> io::Result<(u32, i32)> {
    let mut value = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, plain old data.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut value).cast(), &mut len) })?;
    Ok((value.uid, value.pid))
}

/// What the kernel knows of a TCP connection: the `$tcpinfo_*` variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Round trip time, in microseconds.
    pub rtt: u32,
    /// Its variation, in microseconds.
    pub rttvar: u32,
    /// Congestion window, in segments.
    pub snd_cwnd: u32,
    /// Room at the receiver, in bytes.
    pub rcv_space: u32,
}

/// TCP_INFO.
pub fn tcp_info(fd: RawFd) -> io::Result<TcpInfo> {
    // SAFETY: `tcp_info` is plain old data, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`.
    check(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &mut len) })?;
    let (rtt, rttvar) = (info.tcpi_rtt, info.tcpi_rttvar);
    Ok(TcpInfo { rtt, rttvar, snd_cwnd: info.tcpi_snd_cwnd, rcv_space: info.tcpi_rcv_space })
}

pub(crate) fn set(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is valid for its length.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) }).map(drop)
}

pub(crate) fn get(fd: RawFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`.
    check(unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &mut len) })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_socket_gives_way() {
        let any = SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address"));
        let narrow = listen(&any, &ListenOptions::default()).expect("listen");
        let to = local_addr(narrow.as_raw_fd()).expect("address");
        let wildcard = SockAddr::from(std::net::SocketAddr::from(([0, 0, 0, 0], to.port())));
        assert!(listen(&wildcard, &ListenOptions::default()).is_err(), "they overlap");
        set_reuseport(narrow.as_raw_fd(), true).expect("reuseport");
        let wide = listen(&wildcard, &ListenOptions { reuseport: true, ..Default::default() }).expect("listen");
        let connect = || std::net::TcpStream::connect(to.to_string()).expect("connect");
        let before = connect();
        assert!(!is_retired(narrow.as_raw_fd()));
        retire(narrow.as_raw_fd()).expect("retire");
        assert!(is_retired(narrow.as_raw_fd()));
        let after = connect();
        let peer = |fd: &OwnedFd| accept(fd.as_raw_fd()).map(|(_, from)| from.to_string()).expect("accept");
        assert_eq!(peer(&narrow), before.local_addr().expect("address").to_string());
        assert_eq!(peer(&wide), after.local_addr().expect("address").to_string());
    }

    #[test]
    fn a_retired_datagram_socket_gives_way_and_answers() {
        for (narrow, wide) in
            [("127.0.0.1:0", "0.0.0.0"), ("0.0.0.0:0", "0.0.0.0"), ("[::1]:0", "::"), ("[::]:0", "::")]
        {
            let any = SockAddr::from(narrow.parse::<std::net::SocketAddr>().expect("an address"));
            let options = ListenOptions { kind: Kind::Datagram, ..Default::default() };
            let old = listen(&any, &options).expect("bound");
            let port = local_addr(old.as_raw_fd()).expect("address").port();
            let loopback = if matches!(any, SockAddr::V4(_)) { "127.0.0.1" } else { "::1" };
            let client = std::net::UdpSocket::bind((loopback, 0)).expect("bound");
            client.send_to(b"before", (loopback, port)).expect("sent");
            set_reuseport(old.as_raw_fd(), true).expect("reuseport");
            retire_datagrams(old.as_raw_fd()).expect("retired");
            let wide = SockAddr::from(std::net::SocketAddr::new(wide.parse().expect("an address"), port));
            let new = listen(&wide, &ListenOptions { reuseport: true, ..options }).expect("bound");
            for reuseport in [true, false] {
                set_reuseport(new.as_raw_fd(), reuseport).expect("reuseport");
                client.send_to(b"after", (loopback, port)).expect("sent");
            }
            let mut batch = crate::datagram::Batch::new();
            assert_eq!(batch.recv(old.as_raw_fd(), 32).expect("received"), 1, "{any}");
            let received = batch.received().next().expect("a message");
            assert_eq!(received.bytes, b"before");
            let ip = any.ip().filter(|ip| ip.is_loopback());
            let to = received.from;
            let answer =
                crate::datagram::Transmit { to: Some(&to), from: ip, ..crate::datagram::Transmit::new(b"late") };
            assert_eq!(batch.send(old.as_raw_fd(), &mut [answer], false).expect("sent"), 1);
            assert_eq!(client.recv(&mut [0; 10]).expect("received"), 4);
            assert_eq!(batch.recv(new.as_raw_fd(), 32).expect("received"), 2, "{any}");
        }
    }

    #[test]
    fn peers_have_names() {
        let (one, _other) = crate::channel::pair().expect("pair");
        let (uid, pid) = peer_credentials(one.as_raw_fd()).expect("credentials");
        assert_eq!((uid, pid), (crate::users::effective_uid(), crate::process::pid()));
    }

    #[test]
    fn listens_connects_accepts() {
        let any = SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address"));
        let keepalive = Some(Some(Keepalive { idle: Some(10), interval: Some(5), count: Some(3) }));
        let options = ListenOptions { reuseport: true, deferred: true, so_keepalive: keepalive, ..Default::default() };
        let listener = listen(&any, &options).expect("listen");
        assert!(is_listening(listener.as_raw_fd()) && is_reuseport(listener.as_raw_fd()));
        let plain = ListenOptions { backlog: 5, ..Default::default() };
        configure(listener.as_raw_fd(), &plain, true).expect("configure");
        let to = local_addr(listener.as_raw_fd()).expect("address");
        let client = socket(&to, Kind::Stream).expect("socket");
        connect(client.as_raw_fd(), &to).expect("connect");
        let (peer, from) = accept(listener.as_raw_fd()).expect("accept");
        assert_eq!(from, local_addr(client.as_raw_fd()).expect("address"));
        assert_eq!(peer_addr(peer.as_raw_fd()).expect("address"), from);
        take_error(client.as_raw_fd()).expect("no error");
        set_nodelay(peer.as_raw_fd(), true).expect("nodelay");
        assert!(tcp_info(peer.as_raw_fd()).expect("info").snd_cwnd > 0);
        let failed = listen(&to, &ListenOptions::default()).expect_err("in use");
        assert_eq!((failed.call, failed.error.raw_os_error()), ("bind()", Some(libc::EADDRINUSE)));
    }
}
