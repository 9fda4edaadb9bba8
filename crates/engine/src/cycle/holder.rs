//! Why an address can't be listened on, for people: who holds it, or what is missing.

use std::io;
use std::path::Path;

use os::SockAddr;
use os::socket::Kind;

/// Ports below this one are the superuser's.
const FIRST_FREE_PORT: u16 = 1024;
/// EADDRNOTAVAIL and EACCES.
const NOT_AVAILABLE: i32 = 99;
const NO_ACCESS: i32 = 13;

/// What may help after this error.
pub(super) fn hint(addr: &SockAddr, kind: Kind, error: &io::Error) -> Option<String> {
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::AddrInUse => Some(match holder(addr, kind) {
            Some((pid, name)) => format!("process {pid} ({name}) listens there"),
            None => {
                let option = if kind == Kind::Stream { "t" } else { "u" };
                format!("another process listens there: \"ss -ln{option}p\", run as root, tells which")
            }
        }),
        Some(NO_ACCESS) if !addr.is_unix() && addr.port() < FIRST_FREE_PORT => {
            let program = std::env::current_exe()
                .map_or_else(|_| "PROGRAM".to_owned(), |path| buf::text::path(&path).to_string());
            Some(format!(
                "ports below {FIRST_FREE_PORT} are root's: use a higher port, let systemd pass the socket, or run \
                 \"setcap cap_net_bind_service=+ep {program}\" as root"
            ))
        }
        Some(NOT_AVAILABLE) => Some("no network interface of this machine has the address".to_owned()),
        _ => None,
    }
}

/// The process that listens on the address, and its name, as far as it can be seen.
fn holder(addr: &SockAddr, kind: Kind) -> Option<(u32, String)> {
    let inodes = if addr.is_unix() { unix_inodes(&addr.to_string()) } else { port_inodes(kind, addr.port()) };
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let pid = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let descriptors = std::fs::read_dir(entry.path().join("fd")).ok()?;
        let mut targets = descriptors.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        targets.any(|target| links.iter().any(|link| target == Path::new(link))).then_some(pid)
    });
    // The first of several, as a master is before its workers.
    let pid = pid.min()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

/// Whether a socket receives the datagrams that anybody sends to this port. One that is connected doesn't.
pub(super) fn receives_datagrams(addr: &SockAddr) -> bool {
    !port_inodes(Kind::Datagram, addr.port()).is_empty()
}

/// The inodes of sockets that listen on a port, or receive datagrams there.
fn port_inodes(kind: Kind, port: u16) -> Vec<String> {
    let (tables, state) = match kind {
        Kind::Stream => (["/proc/net/tcp", "/proc/net/tcp6"], LISTEN),
        Kind::Datagram => (["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED),
    };
    let texts = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    lines.filter_map(|line| port_inode(line, state, port)).collect()
}

/// What the kernel's tables call the states of sockets.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

fn port_inode(line: &str, wanted: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let local = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok())?;
    (state == wanted && local == port).then(|| inode.to_owned())
}

/// The same for a unix socket, `unix:/path`.
fn unix_inodes(addr: &str) -> Vec<String> {
    let path = addr.strip_prefix("unix:").unwrap_or(addr);
    let text = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(7) == Some(&path)).then(|| fields[6].to_owned())
    };
    text.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn finds_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = SockAddr::from(listener.local_addr().expect("an address"));
        assert_eq!(holder(&addr, Kind::Stream).map(|(pid, _)| pid), Some(std::process::id()));
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let udp = SockAddr::from(datagrams.local_addr().expect("an address"));
        assert_eq!(holder(&udp, Kind::Datagram).map(|(pid, _)| pid), Some(std::process::id()));
        assert!(receives_datagrams(&udp));
        datagrams.connect(datagrams.local_addr().expect("an address")).expect("connected");
        assert!(!receives_datagrams(&udp));
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let hint = hint(&addr, Kind::Stream, &in_use).unwrap_or_default();
        assert!(hint.starts_with(&format!("process {} (", std::process::id())), "{hint}");
    }

    #[test]
    fn lines_of_the_table() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 4711 1 0 100 0";
        assert_eq!(port_inode(line, LISTEN, 8080).as_deref(), Some("4711"));
        assert_eq!(port_inode(line, LISTEN, 8081), None);
        assert_eq!(port_inode(&line.replace(" 0A ", " 01 "), LISTEN, 8080), None);
        assert_eq!(port_inode("x", LISTEN, 8080), None);
    }

    #[test]
    fn what_is_missing() {
        let addr = |text: &str| SockAddr::from(text.parse::<std::net::SocketAddr>().expect("an address"));
        let said =
            |text, code| hint(&addr(text), Kind::Stream, &io::Error::from_raw_os_error(code)).unwrap_or_default();
        assert!(said("127.0.0.1:80", NO_ACCESS).contains("setcap cap_net_bind_service=+ep "));
        assert_eq!(said("127.0.0.1:8080", NO_ACCESS), "");
        assert!(said("192.0.2.1:8080", NOT_AVAILABLE).contains("no network interface"));
    }
}
