//! Syslog over UDP or a unix socket, as RFC 3164 says and nginx does it.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::Level;
use crate::clock;

/// Where a syslog server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Over UDP.
    Udp(SocketAddr),
    /// A unix datagram socket.
    Unix(PathBuf),
}

/// A syslog server with what its messages bear.
pub struct Syslog {
    /// Where it is.
    pub server: Server,
    /// 0 to 23.
    pub facility: u8,
    /// 0 to 7, of messages that have no level of their own (the access log's).
    pub severity: u8,
    /// The program's name in messages.
    pub tag: String,
    /// The host's name, if messages bear it. It is read with the configuration: a worker in a sandbox can't.
    pub hostname: Option<String>,
    socket: RefCell<Option<Socket>>,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Syslog {
    /// A server with nginx's defaults: facility local7, severity info.
    pub fn new(server: Server, tag: &str) -> Syslog {
        let socket = RefCell::default();
        Syslog { server, facility: 23, severity: 6, tag: tag.to_string(), hostname: Some(hostname()), socket }
    }

    /// Sends one message. The socket is made when it is first needed; one that fails is made anew for the next message.
    pub fn send(&self, severity: u8, message: &[u8]) {
        let mut datagram = self.header(severity).into_bytes();
        datagram.extend_from_slice(message);
        let mut socket = self.socket.borrow_mut();
        if socket.is_none() {
            *socket = self.connect().ok();
        }
        let result = match socket.as_ref() {
            Some(Socket::Udp(udp)) => udp.send(&datagram),
            Some(Socket::Unix(unix)) => unix.send(&datagram),
            None => return,
        };
        if result.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            *socket = None;
        }
    }

    /// Sends one message of the access log.
    pub fn send_access(&self, message: &[u8]) {
        self.send(self.severity, message);
    }

    fn header(&self, severity: u8) -> String {
        let priority = u32::from(self.facility) * 8 + u32::from(severity);
        let time = &clock::times().syslog;
        match &self.hostname {
            Some(hostname) => format!("<{priority}>{time} {hostname} {}: ", self.tag),
            None => format!("<{priority}>{time} {}: ", self.tag),
        }
    }

    fn connect(&self) -> io::Result<Socket> {
        match &self.server {
            Server::Udp(server) => {
                let any: SocketAddr = match server {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(server)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Udp(socket))
            }
            Server::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

/// The host's name in lower case.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_lowercase()
}

/// Syslog's number for a level.
pub(super) fn severity(level: Level) -> u8 {
    (level as u8 - 1).min(7)
}

/// The facilities, by number.
pub(super) const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp", "ntp",
    "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// The severities, by number.
pub(super) const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let mut syslog = Syslog::new(Server::Udp(server.local_addr().expect("an address")), "tide");
        syslog.hostname = None;
        syslog.send(severity(Level::Error), b"hello");
        let mut bytes = [0; 200];
        let length = server.recv(&mut bytes).expect("a message");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert!(text.starts_with("<187>") && text.ends_with(" tide: hello"), "{text}");
    }
}
