//! Socket addresses.

use std::fmt;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An address of a socket: IPv4, IPv6 or a unix path.
///
/// `Display` writes it as nginx does: `127.0.0.1:80`, `[::1]:80`, `unix:/path`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SockAddr {
    /// IPv4 address and port.
    V4(SocketAddrV4),
    /// IPv6 address, port and scope.
    V6(SocketAddrV6),
    /// A unix socket's path; empty for a socket without a name, and with a leading zero byte for an abstract one.
    Unix(Box<[u8]>),
}

impl SockAddr {
    /// A unix socket's address. An error if the path is too long for the kernel (more than 107 bytes).
    pub fn unix(path: &[u8]) -> std::io::Result<SockAddr> {
        if path.len() >= MAX_PATH {
            return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        Ok(SockAddr::Unix(path.into()))
    }

    /// The port; 0 for a unix socket.
    pub fn port(&self) -> u16 {
        match self {
            SockAddr::V4(a) => a.port(),
            SockAddr::V6(a) => a.port(),
            SockAddr::Unix(_) => 0,
        }
    }

    /// Changes the port; nothing happens to a unix address.
    pub fn set_port(&mut self, port: u16) {
        match self {
            SockAddr::V4(a) => a.set_port(port),
            SockAddr::V6(a) => a.set_port(port),
            SockAddr::Unix(_) => {}
        }
    }

    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            SockAddr::V4(a) => Some(IpAddr::V4(*a.ip())),
            SockAddr::V6(a) => Some(IpAddr::V6(*a.ip())),
            SockAddr::Unix(_) => None,
        }
    }

    /// The address without its port, as in `$remote_addr`: `127.0.0.1`, `::1`, `unix:`.
    pub fn text(&self) -> String {
        match self {
            SockAddr::V4(a) => a.ip().to_string(),
            SockAddr::V6(a) => a.ip().to_string(),
            SockAddr::Unix(_) => "unix:".to_string(),
        }
    }

    /// The address in binary, as in `$binary_remote_addr`: 4 or 16 bytes, or the path.
    pub fn binary(&self) -> Vec<u8> {
        match self {
            SockAddr::V4(a) => a.ip().octets().to_vec(),
            SockAddr::V6(a) => a.ip().octets().to_vec(),
            SockAddr::Unix(path) => path.to_vec(),
        }
    }

    /// Whether it is a unix socket's.
    pub fn is_unix(&self) -> bool {
        matches!(self, SockAddr::Unix(_))
    }

    /// Whether it is the unspecified address (`*`).
    pub fn is_wildcard(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// The kernel's form and its length.
    pub(crate) fn to_raw(&self) -> RawAddr {
        let mut raw = RawAddr::default();
        match self {
            SockAddr::V4(a) => raw.put(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SockAddr::V6(a) => raw.put(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: a.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            }),
            SockAddr::Unix(path) => {
                let mut a =
                    libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; MAX_PATH] };
                for (to, from) in a.sun_path.iter_mut().zip(path.iter()) {
                    *to = *from as libc::c_char;
                }
                raw.put(a);
                let zero = usize::from(path.first().is_some_and(|b| *b != 0));
                raw.len =
                    (mem::size_of::<libc::sa_family_t>() + path.len().min(MAX_PATH - 1) + zero) as libc::socklen_t;
            }
        }
        raw
    }

    /// From the kernel's form; an unnamed unix address if the family is unknown.
    pub fn from_raw(raw: &RawAddr) -> SockAddr {
        match i32::from(raw.storage.ss_family) {
            libc::AF_INET => {
                let a: libc::sockaddr_in = raw.get();
                let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
                SockAddr::V4(SocketAddrV4::new(ip, u16::from_be(a.sin_port)))
            }
            libc::AF_INET6 => {
                let a: libc::sockaddr_in6 = raw.get();
                let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                SockAddr::V6(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), a.sin6_flowinfo, a.sin6_scope_id))
            }
            _ => {
                let a: libc::sockaddr_un = raw.get();
                let len = (raw.len as usize).saturating_sub(mem::size_of::<libc::sa_family_t>()).min(MAX_PATH);
                let mut path: Vec<u8> = a.sun_path.iter().take(len).map(|c| *c as u8).collect();
                if path.first() != Some(&0) {
                    path.truncate(path.iter().position(|b| *b == 0).unwrap_or(path.len()));
                }
                SockAddr::Unix(path.into())
            }
        }
    }
}

const MAX_PATH: usize = 108;

/// An address in the kernel's form.
#[derive(Clone, Copy)]
pub struct RawAddr {
    pub(crate) storage: libc::sockaddr_storage,
    pub(crate) len: libc::socklen_t,
}

impl Default for RawAddr {
    fn default() -> RawAddr {
        // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is a value.
        RawAddr { storage: unsafe { mem::zeroed() }, len: RawAddr::ROOM }
    }
}

/// The address structures, all plain old data no larger than `sockaddr_storage`.
trait Plain: Copy {}
impl Plain for libc::sockaddr_in {}
impl Plain for libc::sockaddr_in6 {}
impl Plain for libc::sockaddr_un {}

impl RawAddr {
    /// The room that there is.
    pub(crate) const ROOM: libc::socklen_t = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

    fn put<T: Plain>(&mut self, address: T) {
        const { assert!(mem::size_of::<T>() <= mem::size_of::<libc::sockaddr_storage>()) };
        // SAFETY: `T` is plain data that fits into the storage (asserted), whose alignment is the largest of them.
        unsafe { (&raw mut self.storage).cast::<T>().write(address) };
        self.len = mem::size_of::<T>() as libc::socklen_t;
    }

    fn get<T: Plain>(&self) -> T {
        const { assert!(mem::size_of::<T>() <= mem::size_of::<libc::sockaddr_storage>()) };
        // SAFETY: the storage is initialised, larger than `T` (asserted), and any bytes are a value of plain data.
        unsafe { (&raw const self.storage).cast::<T>().read() }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> SockAddr {
        match address {
            SocketAddr::V4(a) => SockAddr::V4(a),
            SocketAddr::V6(a) => SockAddr::V6(a),
        }
    }
}

impl fmt::Display for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SockAddr::V4(a) => a.fmt(f),
            SockAddr::V6(a) => write!(f, "[{}]:{}", a.ip(), a.port()),
            SockAddr::Unix(path) => write!(f, "unix:{}", String::from_utf8_lossy(path)),
        }
    }
}

impl fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_converts() {
        let v4 = SockAddr::from("127.0.0.1:80".parse::<SocketAddr>().expect("an address"));
        let v6 = SockAddr::from("[::1]:443".parse::<SocketAddr>().expect("an address"));
        let unix = SockAddr::unix(b"/tmp/a.sock").expect("short");
        let none = SockAddr::unix(b"").expect("short");
        for (addr, full, text, binary) in [
            (v4, "127.0.0.1:80", "127.0.0.1", 4),
            (v6, "[::1]:443", "::1", 16),
            (unix, "unix:/tmp/a.sock", "unix:", 11),
            (none, "unix:", "unix:", 0),
        ] {
            assert_eq!((addr.to_string().as_str(), addr.text().as_str(), addr.binary().len()), (full, text, binary));
            assert_eq!(SockAddr::from_raw(&addr.to_raw()), addr);
        }
        assert!(SockAddr::unix(&[b'a'; 108]).is_err());
    }
}
