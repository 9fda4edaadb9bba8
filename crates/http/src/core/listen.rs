//! The `listen` directive.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use conf::{Directive, Error, Result, Word};
use os::SockAddr;
use os::socket::{Keepalive, ListenOptions};

/// One address of a server.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    /// The address.
    pub addr: SockAddr,
    /// As written, for messages.
    pub text: String,
    /// Options of the socket.
    pub options: ListenOptions,
    /// Whether an option was given that belongs to the socket: only one server may set them.
    pub set: bool,
    /// Whether the address has a socket of its own beside a wildcard's.
    pub bind: bool,
    /// Whether this server answers where no name fits.
    pub default_server: bool,
    /// Whether connections begin with the PROXY protocol.
    pub proxy_protocol: bool,
}

/// Reads the directive; a name may stand for several addresses.
pub fn parse(d: &Directive) -> Result<Vec<ListenSpec>> {
    let word = d.arg(0);
    let text = word.lossy().into_owned();
    let addrs = parse_addr(word)?;
    let mut spec = ListenSpec {
        addr: addrs[0].clone(),
        text,
        options: ListenOptions::default(),
        set: false,
        bind: false,
        default_server: false,
        proxy_protocol: false,
    };
    for word in &d.args[1..] {
        parse_option(word, &mut spec)?;
    }
    Ok(addrs.into_iter().map(|addr| ListenSpec { addr, ..spec.clone() }).collect())
}

fn parse_option(word: &Word, spec: &mut ListenSpec) -> Result<()> {
    let text = word.lossy();
    let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
    let invalid = || Error::at(word, format!("invalid {name} \"{text}\""));
    let size = |value: &str| buf::parse::parse_size(value.as_bytes()).filter(|n| *n > 0).ok_or_else(invalid);
    let options = &mut spec.options;
    match (name, value) {
        ("default_server" | "default", None) => {
            spec.default_server = true;
            return Ok(());
        }
        ("proxy_protocol", None) => {
            spec.proxy_protocol = true;
            return Ok(());
        }
        ("bind", None) => {}
        ("backlog", Some(value)) => {
            let backlog: i32 = value.parse().map_err(|_| invalid())?;
            if backlog == 0 {
                return Err(invalid());
            }
            options.backlog = backlog;
        }
        ("rcvbuf", Some(value)) => options.rcvbuf = Some(size(value)? as u32),
        ("sndbuf", Some(value)) => options.sndbuf = Some(size(value)? as u32),
        ("fastopen", Some(value)) => options.fastopen = Some(value.parse().map_err(|_| invalid())?),
        ("accept_filter", Some(_)) => {
            let message = format!("accept filters \"{text}\" are not supported on this platform, ignored");
            return Err(Error::at(word, message));
        }
        ("setfib", Some(_)) => return Err(Error::at(word, format!("invalid parameter \"{text}\""))),
        ("deferred", None) => options.deferred = true,
        ("reuseport", None) => options.reuseport = true,
        ("ipv6only", Some(value)) => {
            if !matches!(spec.addr, SockAddr::V6(..)) {
                return Err(Error::at(
                    word,
                    "ipv6only is not supported on addr \"".to_owned() + &spec.text + "\", ignored",
                ));
            }
            options.ipv6only = match value {
                "on" => true,
                "off" => false,
                _ => return Err(Error::at(word, format!("invalid ipv6only flags \"{value}\""))),
            };
        }
        ("so_keepalive", Some(value)) => {
            options.so_keepalive = Some(
                parse_keepalive(value)
                    .ok_or_else(|| Error::at(word, format!("invalid so_keepalive value: \"{value}\"")))?,
            );
        }
        ("ssl", None) => {
            return Err(Error::at(word, "the \"ssl\" parameter requires ngx_http_ssl_module")
                .hint("this Tidegate does not have TLS yet"));
        }
        ("http2", None) => {
            return Err(Error::at(word, "the \"http2\" parameter requires ngx_http_v2_module")
                .hint("this Tidegate does not have HTTP/2 yet"));
        }
        ("quic", None) => {
            return Err(Error::at(word, "the \"quic\" parameter requires ngx_http_v3_module")
                .hint("this Tidegate does not have HTTP/3 yet"));
        }
        _ => return Err(Error::at(word, format!("invalid parameter \"{text}\""))),
    }
    (spec.set, spec.bind) = (true, true);
    Ok(())
}

/// `on`, `off` or `[idle]:[interval]:[count]`.
fn parse_keepalive(value: &str) -> Option<Option<Keepalive>> {
    match value {
        "on" => return Some(Some(Keepalive::default())),
        "off" => return Some(None),
        _ => {}
    }
    let mut parts = value.split(':');
    let mut next = |time: bool| -> Option<Option<u32>> {
        match parts.next()? {
            "" => Some(None),
            text if time => buf::parse::parse_sec(text.as_bytes()).map(|n| Some(n as u32)),
            text => text.parse().ok().map(Some),
        }
    };
    let (idle, interval, count) = (next(true)?, next(true)?, next(false)?);
    if parts.next().is_some() || (idle.is_none() && interval.is_none() && count.is_none()) {
        return None;
    }
    Some(Some(Keepalive { idle, interval, count }))
}

/// An address as `listen` writes it: `80`, `*:80`, `1.2.3.4`, `[::]:80`, `unix:/path`, `name:80`.
pub fn parse_addr(word: &Word) -> Result<Vec<SockAddr>> {
    let text = word.lossy();
    let fail = |why: &str| Error::at(word, format!("{why} in \"{text}\" of the \"listen\" directive"));
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(fail("no path"));
        }
        return SockAddr::unix(path.as_bytes()).map(|addr| vec![addr]).map_err(|_| fail("too long path"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else { return Err(fail("invalid host")) };
        let ip: Ipv6Addr = host.parse().map_err(|_| fail("invalid IPv6 address"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port).ok_or_else(|| fail("invalid port"))?,
            None if rest.is_empty() => 80,
            None => return Err(fail("invalid host")),
        };
        return Ok(vec![SockAddr::from(SocketAddr::from((ip, port)))]);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, parse_port(port).ok_or_else(|| fail("invalid port"))?),
        None if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) => {
            ("*", parse_port(&text).ok_or_else(|| fail("invalid port"))?)
        }
        None => (&*text, 80),
    };
    if host.is_empty() {
        return Err(fail("no host"));
    }
    if host == "*" {
        return Ok(vec![SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))]);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(vec![SockAddr::from(SocketAddr::from((ip, port)))]);
    }
    let found: Vec<SockAddr> = match (host, port).to_socket_addrs() {
        Ok(found) => found.map(SockAddr::from).collect(),
        Err(_) => Vec::new(),
    };
    if found.is_empty() { Err(fail("host not found")) } else { Ok(found) }
}

fn parse_port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port > 0)
}

impl ListenSpec {
    /// An address without options.
    pub fn of(addr: SockAddr) -> ListenSpec {
        ListenSpec {
            text: addr.to_string(),
            addr,
            options: ListenOptions::default(),
            set: false,
            bind: false,
            default_server: false,
            proxy_protocol: false,
        }
    }
}
