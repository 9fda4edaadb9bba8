//! What the system knows of names: /etc/resolv.conf (resolv.conf(5)) and /etc/hosts (hosts(5)), read again when they
//! change.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The two files.
#[derive(Debug)]
pub(crate) struct System {
    resolv: File,
    hosts: File,
    read: RefCell<Read>,
    /// When the files are looked at again, in the loop's milliseconds.
    next_look_ms: Cell<u64>,
}

/// How often the files are looked at, in milliseconds.
pub(crate) const LOOK_MS: u64 = 1000;
/// The port of name servers.
const PORT: u16 = 53;
/// As many domains are searched at most.
const MOST_DOMAINS: usize = 16;
/// The greatest `ndots`.
const MOST_DOTS: usize = 15;

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// What told the file from others when it was read.
    stamp: Cell<Option<(u64, u64, i64, i64)>>,
}

/// What the files say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    servers: Vec<SocketAddr>,
    search: Vec<Vec<u8>>,
    /// A name with so many dots is tried as it is first.
    dots: usize,
    hosts: HashMap<Vec<u8>, Vec<IpAddr>>,
}

impl Default for System {
    fn default() -> System {
        System::of(Path::new("/etc/resolv.conf"), Path::new("/etc/hosts"))
    }
}

impl File {
    fn new(path: &Path) -> File {
        File { path: path.to_owned(), stamp: Cell::new(None) }
    }

    /// What is in the file now, if that may be something else than the last time. A file that isn't there is empty.
    fn news(&self) -> Option<Vec<u8>> {
        let stamp = std::fs::metadata(&self.path)
            .map_or((0, 0, 0, 0), |file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        if self.stamp.replace(Some(stamp)) == Some(stamp) {
            return None;
        }
        Some(std::fs::read(&self.path).unwrap_or_default())
    }
}

impl System {
    pub(crate) fn of(resolv: &Path, hosts: &Path) -> System {
        System {
            resolv: File::new(resolv),
            hosts: File::new(hosts),
            read: RefCell::default(),
            next_look_ms: Cell::new(0),
        }
    }

    /// Looks whether the files have changed; whether other name servers may say other things now.
    pub(crate) fn refresh(&self, now_ms: u64) -> bool {
        if now_ms < self.next_look_ms.get() {
            return false;
        }
        self.next_look_ms.set(now_ms + LOOK_MS);
        let mut read = self.read.borrow_mut();
        if let Some(text) = self.hosts.news() {
            read.hosts = parse_hosts(&text);
        }
        let Some(text) = self.resolv.news() else { return false };
        let hosts = std::mem::take(&mut read.hosts);
        *read = Read { hosts, ..parse_resolv(&text) };
        true
    }

    /// The name servers; one at least.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        let servers = self.read.borrow().servers.clone();
        match servers.is_empty() {
            true => vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT)],
            false => servers,
        }
    }

    /// The addresses that /etc/hosts has for a name.
    pub(crate) fn host(&self, name: &[u8]) -> Option<Vec<IpAddr>> {
        self.read.borrow().hosts.get(&name.to_ascii_lowercase()).cloned()
    }

    /// The names to ask for, in order: a short name is completed by the domains that are searched.
    pub(crate) fn candidates(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let read = self.read.borrow();
        let dots = name.iter().filter(|byte| **byte == b'.').count();
        if name.ends_with(b".") {
            return vec![name.to_vec()];
        }
        let mut all: Vec<Vec<u8>> = read.search.iter().map(|domain| [name, domain].join(&b'.')).collect();
        let at = if dots >= read.dots.max(1) { 0 } else { all.len() };
        all.insert(at, name.to_vec());
        all
    }
}

fn parse_resolv(text: &[u8]) -> Read {
    let mut read = Read { dots: 1, ..Read::default() };
    for line in text.split(|byte| *byte == b'\n').filter(|line| !matches!(line.first(), Some(b'#' | b';'))) {
        let mut words = words(line);
        match words.next() {
            Some(b"nameserver") => read.servers.extend(words.next().and_then(ip).map(|ip| SocketAddr::new(ip, PORT))),
            Some(b"search" | b"domain") => {
                let domains = words.map(|domain| domain.strip_suffix(b".").unwrap_or(domain).to_vec());
                read.search = domains.filter(|domain| !domain.is_empty()).take(MOST_DOMAINS).collect();
            }
            Some(b"options") => {
                let dots = words.filter_map(|option| buf::parse::parse_number(option.strip_prefix(b"ndots:")?)).last();
                read.dots = dots.map_or(read.dots, |dots| (dots as usize).min(MOST_DOTS));
            }
            _ => {}
        }
    }
    read
}

fn parse_hosts(text: &[u8]) -> HashMap<Vec<u8>, Vec<IpAddr>> {
    let mut hosts: HashMap<Vec<u8>, Vec<IpAddr>> = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = words(line);
        let Some(ip) = words.next().and_then(ip) else { continue };
        words.for_each(|name| hosts.entry(name.to_ascii_lowercase()).or_default().push(ip));
    }
    hosts
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn ip(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let read = parse_resolv(
            b"# x\nnameserver 127.0.0.1\nnameserver\t::1\nnameserver fe80::1%eth0\n;nameserver 1.1.1.1\n\
            domain a.test\nsearch b.test. c.test\noptions rotate ndots:2 ndots:x\nsortlist 1.2.3.4",
        );
        let servers = [SocketAddr::from(([127, 0, 0, 1], 53)), SocketAddr::new("::1".parse().unwrap(), 53)];
        assert_eq!((&read.servers[..], read.dots), (&servers[..], 2));
        assert_eq!(read.search, [b"b.test", b"c.test"]);
        let hosts = parse_hosts(b"127.0.0.1 localhost Alias # other\n::1 localhost\nx y\n#127.0.0.2 no\n");
        assert_eq!(hosts.len(), 2);
        assert_eq!(hosts[&b"localhost"[..]].len(), 2);
        assert_eq!(hosts[&b"alias"[..]], [IpAddr::from([127, 0, 0, 1])]);
    }

    #[test]
    fn changes_are_followed() {
        let folder = tempfile::TempDir::with_prefix("tidegate-system-").expect("a folder");
        let folder = folder.path();
        let (resolv, hosts) = (folder.join("resolv.conf"), folder.join("hosts"));
        let system = System::of(&resolv, &hosts);
        assert!(system.refresh(1));
        assert_eq!(system.servers(), [SocketAddr::from(([127, 0, 0, 1], 53))], "without a file");
        assert_eq!(system.candidates(b"a"), [b"a"]);
        std::fs::write(&resolv, "nameserver 127.0.0.9\nsearch x.test\n").expect("written");
        std::fs::write(&hosts, "127.0.0.5 five\n").expect("written");
        assert!(!system.refresh(LOOK_MS), "it isn't time yet");
        assert!(system.refresh(LOOK_MS + 1));
        assert_eq!(system.servers(), [SocketAddr::from(([127, 0, 0, 9], 53))]);
        assert_eq!(system.host(b"FIVE"), Some(vec![IpAddr::from([127, 0, 0, 5])]));
        assert_eq!(system.candidates(b"a"), [&b"a.x.test"[..], b"a"]);
        assert_eq!(system.candidates(b"a.b"), [&b"a.b"[..], b"a.b.x.test"]);
        assert_eq!(system.candidates(b"a."), [b"a."]);
        assert!(!system.refresh(3 * LOOK_MS), "nothing has changed");
    }
}
