//! The address of a backend as directives write it: `host:port/uri`, `[::1]:port`, `unix:/path:/uri`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use os::SockAddr;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port as written, without what follows them.
    pub authority: Vec<u8>,
    /// The host without port; with brackets for IPv6; for a unix socket `unix:` and its path.
    pub host: Vec<u8>,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// What follows: a path, or a query; empty if there is nothing.
    pub uri: Vec<u8>,
}

/// Why an address is refused; nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Nothing before the port or the path.
    NoHost,
    /// The port isn't a number from 1 to 65535.
    InvalidPort,
    /// The host has an opening bracket only, or something follows it that isn't a port.
    InvalidHost,
    /// There is no IPv6 address between brackets.
    InvalidIpv6,
    /// No address belongs to the name.
    NotFound,
    /// The path of a unix socket is empty.
    NoPath,
    /// The path of a unix socket is too long for the kernel.
    TooLongPath,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::NoHost => "no host",
            UrlError::InvalidPort => "invalid port",
            UrlError::InvalidHost => "invalid host",
            UrlError::InvalidIpv6 => "invalid IPv6 address",
            UrlError::NotFound => "host not found",
            UrlError::NoPath => "no path in the unix domain socket",
            UrlError::TooLongPath => "too long path in the unix domain socket",
        })
    }
}

impl Url {
    /// Parses `text`; `with_uri` says whether something may follow the address.
    pub fn parse(text: &[u8], with_uri: bool) -> Result<Url, UrlError> {
        if text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"unix:")) {
            return unix(text, with_uri);
        }
        let brackets = match text.first() {
            Some(b'[') => text.iter().position(|b| *b == b']').ok_or(UrlError::InvalidHost)? + 1,
            _ => 0,
        };
        let behind = &text[brackets..];
        let end = brackets + behind.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(behind.len());
        let (authority, uri) = text.split_at(end);
        // After brackets a query needs a path.
        if !uri.is_empty() && (!with_uri || brackets > 0 && uri.starts_with(b"?")) {
            return Err(UrlError::InvalidHost);
        }
        let host_end = match brackets {
            0 => authority.iter().position(|b| *b == b':').unwrap_or(authority.len()),
            end => end,
        };
        let (host, rest) = authority.split_at(host_end);
        let port = match rest {
            [] => None,
            [b':', digits @ ..] => Some(parse_port(digits)?),
            _ => return Err(UrlError::InvalidHost),
        };
        if host.is_empty() || host == b"[]" {
            return Err(UrlError::NoHost);
        }
        let url = Url { authority: authority.to_vec(), host: host.to_vec(), port, uri: uri.to_vec() };
        if host.first() == Some(&b'[') && url.literal().is_none() {
            return Err(UrlError::InvalidIpv6);
        }
        Ok(url)
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with(b"unix:")
    }

    /// The address, if the host is one rather than a name; with port 0 if none is written.
    pub fn literal(&self) -> Option<SockAddr> {
        if let Some(path) = self.host.strip_prefix(b"unix:") {
            return SockAddr::unix(path).ok();
        }
        let text = std::str::from_utf8(&self.host).ok()?;
        let ip = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
            None => IpAddr::V4(text.parse().ok()?),
        };
        Some(SockAddr::from(SocketAddr::new(ip, self.port.unwrap_or(0))))
    }

    /// All addresses of the host, asking the system for a name's; blocks, so it is for the start.
    pub fn resolve(&self, default_port: u16) -> Result<Vec<SockAddr>, UrlError> {
        let port = self.port.unwrap_or(default_port);
        if let Some(mut addr) = self.literal() {
            addr.set_port(port);
            return Ok(vec![addr]);
        }
        let host = std::str::from_utf8(&self.host).map_err(|_| UrlError::NotFound)?;
        let found = (host, port).to_socket_addrs().map_err(|_| UrlError::NotFound)?;
        let mut addrs: Vec<SockAddr> = Vec::new();
        for addr in found.map(SockAddr::from) {
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        if addrs.is_empty() { Err(UrlError::NotFound) } else { Ok(addrs) }
    }
}

fn parse_port(digits: &[u8]) -> Result<u16, UrlError> {
    let port = buf::parse::parse_number(digits).and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port > 0).ok_or(UrlError::InvalidPort)
}

fn unix(text: &[u8], with_uri: bool) -> Result<Url, UrlError> {
    let path = text.get(5..).unwrap_or_default();
    let (path, uri) = match path.iter().position(|b| *b == b':').filter(|_| with_uri) {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (path, &b""[..]),
    };
    if path.is_empty() {
        return Err(UrlError::NoPath);
    }
    if SockAddr::unix(path).is_err() {
        return Err(UrlError::TooLongPath);
    }
    let host = [b"unix:", path].concat();
    Ok(Url { authority: host.clone(), host, port: None, uri: uri.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expect) in [
            ("127.0.0.1:8080/a?b", "127.0.0.1|Some(8080)|/a?b"),
            ("backend", "backend|None|"),
            ("backend?x", "backend|None|?x"),
            ("[::1]:81", "[::1]|Some(81)|"),
            ("[::1]/", "[::1]|None|/"),
            ("unix:/tmp/s:/uri/", "unix:/tmp/s|None|/uri/"),
            ("unix:/tmp/s", "unix:/tmp/s|None|"),
            ("", "no host"),
            (":80", "no host"),
            ("/x", "no host"),
            ("a:", "invalid port"),
            ("a:0", "invalid port"),
            ("a:65536", "invalid port"),
            ("[::1", "invalid host"),
            ("[]", "no host"),
            ("[x]", "invalid IPv6 address"),
            ("[::1/x]", "invalid IPv6 address"),
            ("[::1]x", "invalid host"),
            ("[::1]?x", "invalid host"),
            ("unix:", "no path in the unix domain socket"),
        ] {
            let shown = match Url::parse(text.as_bytes(), true) {
                Ok(url) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    format!("{}|{:?}|{}", text(&url.host), url.port, text(&url.uri))
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expect, "{text}");
        }
    }

    #[test]
    fn nothing_may_follow() {
        for text in ["a/b", "a:80/b", "a:x/b", "/a", "?a", "a?b", "http://a", "[::1]/x", "[::1]x:80"] {
            assert_eq!(Url::parse(text.as_bytes(), false), Err(UrlError::InvalidHost), "{text}");
        }
    }

    #[test]
    fn literals_need_no_lookup() {
        let url = Url::parse(b"127.0.0.1", false).expect("it parses");
        let addrs = url.resolve(80).expect("it is an address");
        assert_eq!(addrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:80"]);
    }
}
