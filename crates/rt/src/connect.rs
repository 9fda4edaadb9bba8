//! How connections are made, and why they can't be.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use os::SockAddr;
use os::socket::{self, Keepalive, Kind};

/// How a connection is made.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The own address (`proxy_bind`); with port 0 the kernel chooses the port late.
    pub bind: Option<SockAddr>,
    /// Whether that may be an address that this machine doesn't have (IP_TRANSPARENT).
    pub transparent: bool,
    /// SO_RCVBUF, in bytes.
    pub rcvbuf: Option<u32>,
    /// SO_SNDBUF, in bytes.
    pub sndbuf: Option<u32>,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
}

/// Why a connection can't be made.
#[derive(Debug)]
pub enum ConnectError {
    /// All connections are in use, which was reported. It says nothing of the peer.
    Full,
    /// What comes before `connect()` failed, such as `bind(192.0.2.1)`. It says nothing of the peer either.
    Own(String, io::Error),
    /// The peer can't be reached: what `connect()` said, or `TimedOut`.
    Peer(io::Error),
}

impl ConnectError {
    /// The kind of the error; `QuotaExceeded` if all connections are in use.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            ConnectError::Full => io::ErrorKind::QuotaExceeded,
            ConnectError::Own(_, error) | ConnectError::Peer(error) => error.kind(),
        }
    }

    /// A call of this process has failed.
    pub(crate) fn own(call: impl Into<String>) -> impl FnOnce(io::Error) -> ConnectError {
        |error| ConnectError::Own(call.into(), error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Full => f.write_str("all connections are in use"),
            ConnectError::Own(call, error) => write!(f, "{call} failed: {error}"),
            ConnectError::Peer(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

/// For those to whom it is all the same.
impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> io::Error {
        match error {
            ConnectError::Full => io::ErrorKind::QuotaExceeded.into(),
            ConnectError::Own(_, error) | ConnectError::Peer(error) => error,
        }
    }
}

/// A socket to connect from to this peer.
pub(crate) fn socket(peer: &SockAddr, kind: Kind, options: &ConnectOptions) -> Result<OwnedFd, ConnectError> {
    let socket = socket::socket(peer, kind).map_err(ConnectError::own("socket()"))?;
    set_options(&socket, options).map_err(ConnectError::own("setsockopt()"))?;
    if let Some(own) = &options.bind {
        let shown = || match own {
            SockAddr::V4(addr) if addr.port() == 0 => format!("bind({})", addr.ip()),
            SockAddr::V6(addr) if addr.port() == 0 => format!("bind({})", addr.ip()),
            _ => format!("bind({own})"),
        };
        socket::bind(socket.as_raw_fd(), own).map_err(|error| ConnectError::Own(shown(), error))?;
    }
    Ok(socket)
}

fn set_options(socket: &OwnedFd, options: &ConnectOptions) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    if let Some(size) = options.rcvbuf {
        socket::set_rcvbuf(fd, size)?;
    }
    if let Some(size) = options.sndbuf {
        socket::set_sndbuf(fd, size)?;
    }
    if options.keepalive {
        socket::set_keepalive(fd, Some(Keepalive::default()))?;
    }
    if let Some(own) = &options.bind {
        if options.transparent {
            socket::set_transparent(fd, own)?;
        }
        if own.port() == 0 && !own.is_unix() {
            let _ = socket::set_bind_without_port(fd);
        }
    }
    Ok(())
}
