//! The directive `error_log`, and the targets that it shares with `access_log`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Word};

use super::syslog::{FACILITIES, SEVERITIES, Server};
use super::{ErrorLog, Level, LogFiles, Memory, Syslog, Target};

/// Parses `error_log FILE|stderr|syslog:…|memory:SIZE [LEVEL]`, in any context. The file is opened with the cycle's
/// others, after the configuration has been read.
pub fn parse_error_log(loader: &mut Loader<'_>, directive: &Directive) -> Result<ErrorLog> {
    let target = parse_target(loader, directive, directive.arg(0))?;
    let mut level = None;
    for word in &directive.args[1..] {
        let parsed = parse_level(word)?;
        if level.is_some_and(|level| level != Level::Debug || parsed != Level::Debug) {
            return Err(Error::at(word, format!("duplicate log level \"{}\"", word.lossy())));
        }
        level = Some(parsed);
    }
    Ok(ErrorLog { target, level: level.unwrap_or(Level::Error) })
}

fn parse_level(word: &Word) -> Result<Level> {
    const DEBUG: [&str; 7] =
        ["debug_core", "debug_alloc", "debug_mutex", "debug_event", "debug_http", "debug_mail", "debug_stream"];
    if DEBUG.iter().any(|name| word == name) {
        return Ok(Level::Debug);
    }
    Level::parse(&word.text).ok_or_else(|| {
        let names: Vec<&str> = Level::NAMES.iter().map(|&(name, _)| name).collect();
        Error::at(word, format!("invalid log level \"{}\"", word.lossy()))
            .hint(format!("the levels are {}", names.join(", ")))
    })
}

/// Parses the first argument of `error_log`.
pub(crate) fn parse_target(loader: &mut Loader<'_>, directive: &Directive, word: &Word) -> Result<Target> {
    // nginx takes no name at all for the standard error stream, too.
    if word == "stderr" || word == "" {
        loader.store.entry::<LogFiles>().note_stderr();
        return Ok(Target::Stderr);
    }
    if let Some(parameters) = word.text.strip_prefix(b"syslog:") {
        return Ok(Target::Syslog(Rc::new(parse_syslog(directive, parameters)?)));
    }
    if let Some(size) = word.text.strip_prefix(b"memory:") {
        let shown = String::from_utf8_lossy(size);
        let size = buf::parse::parse_size(size).filter(|&size| size >= LEAST_MEMORY);
        let size = size.ok_or_else(|| Error::at(word, format!("invalid buffer size \"{shown}\"")))?;
        return Ok(Target::Memory(Rc::new(Memory::new(size as usize))));
    }
    let path = full_path(loader, &word.text);
    loader.places.note(super::FILE, buf::text::path(&path), directive.span());
    Ok(Target::File(loader.store.entry::<LogFiles>().get(&path)))
}

/// The smallest `memory:` that nginx takes.
const LEAST_MEMORY: u64 = 2122;

/// A path as the configuration writes it, relative to the prefix.
pub fn full_path(loader: &Loader<'_>, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    loader.env.prefix.join(std::ffi::OsStr::from_bytes(name))
}

/// Parses what follows `syslog:`, for `error_log` and `access_log`.
pub fn parse_syslog(directive: &Directive, parameters: &[u8]) -> Result<Syslog> {
    let error = |message: String| Error::on(directive, message);
    let text = String::from_utf8_lossy(parameters);
    let mut syslog: Option<Server> = None;
    let (mut facility, mut severity, mut tag, mut nohostname) = (None, None, None, false);
    for parameter in text.split(',') {
        match parameter.split_once('=') {
            Some(("server", _)) if syslog.is_some() => return Err(error("duplicate syslog \"server\"".into())),
            Some(("server", value)) => syslog = Some(parse_server(value).map_err(error)?),
            Some(("facility", value)) => {
                facility = Some(index(&FACILITIES, "facility", value, facility).map_err(error)?)
            }
            Some(("severity", value)) => {
                severity = Some(index(&SEVERITIES, "severity", value, severity).map_err(error)?)
            }
            Some(("tag", _)) if tag.is_some() => return Err(error("duplicate syslog \"tag\"".into())),
            Some(("tag", value)) => tag = Some(parse_tag(value).map_err(error)?),
            None if parameter == "nohostname" => nohostname = true,
            _ => return Err(error(format!("unknown syslog parameter \"{parameter}\""))),
        }
    }
    let server = syslog.ok_or_else(|| error("no syslog server specified".into()))?;
    let mut syslog = Syslog::new(server, tag.unwrap_or("nginx"));
    syslog.facility = facility.unwrap_or(syslog.facility);
    syslog.severity = severity.unwrap_or(syslog.severity);
    if nohostname {
        syslog.hostname = None;
    }
    return Ok(syslog);

    fn index(names: &[&str], what: &str, value: &str, old: Option<u8>) -> std::result::Result<u8, String> {
        if old.is_some() {
            return Err(format!("duplicate syslog \"{what}\""));
        }
        let found = names.iter().position(|name| *name == value);
        found.map(|at| at as u8).ok_or_else(|| format!("unknown syslog {what} \"{value}\""))
    }
}

fn parse_server(value: &str) -> std::result::Result<Server, String> {
    if let Some(path) = value.strip_prefix("unix:") {
        return Ok(Server::Unix(path.into()));
    }
    if value.is_empty() {
        return Err("no host in syslog server \"\"".into());
    }
    let failed = |why: &str| Err(format!("{why} in syslog server \"{value}\""));
    let brackets = match value.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return failed("invalid host"),
        Some(Some((_, rest))) if !rest.is_empty() && !rest.starts_with(':') => return failed("invalid host"),
        None if value.contains(['/', '?']) => return failed("invalid host"),
        None => None,
        Some(Some((inside, _))) => Some(inside),
    };
    let (host, port) = split_port(value).ok_or_else(|| format!("invalid port in syslog server \"{value}\""))?;
    match brackets {
        Some("") => return failed("no host"),
        Some(inside) if inside.parse::<std::net::Ipv6Addr>().is_err() => return failed("invalid IPv6 address"),
        _ => {}
    }
    let host = brackets.unwrap_or(host);
    let mut found = (host, port).to_socket_addrs().into_iter().flatten();
    let address: Option<SocketAddr> = found.next();
    address.map(Server::Udp).ok_or_else(|| format!("host not found in syslog server \"{value}\""))
}

fn split_port(value: &str) -> Option<(&str, u16)> {
    let colon = match value.strip_prefix('[') {
        Some(rest) => rest.find(']').and_then(|end| value[end + 2..].starts_with(':').then_some(end + 2)),
        None => value.rfind(':'),
    };
    match colon {
        None => Some((value, SYSLOG_PORT)),
        Some(colon) => {
            let port: u16 = value[colon + 1..].parse().ok().filter(|&port| port != 0)?;
            Some((&value[..colon], port))
        }
    }
}

fn parse_tag(value: &str) -> std::result::Result<&str, String> {
    if value.len() > MAX_TAG {
        return Err(format!("syslog tag length exceeds {MAX_TAG}"));
    }
    if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err("syslog \"tag\" only allows alphanumeric characters and underscore".into());
    }
    Ok(value)
}

const SYSLOG_PORT: u16 = 514;
const MAX_TAG: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parameters: &str, expect: std::result::Result<(u8, u8, &str), &str>) {
        let found = parse_syslog(&Directive::default(), parameters.as_bytes());
        match (found, expect) {
            (Ok(s), Ok(expect)) => assert_eq!((s.facility, s.severity, s.tag.as_str()), expect),
            (Err(error), Err(expect)) => assert_eq!(error.message, expect),
            (found, expect) => panic!("{parameters}: {:?} instead of {expect:?}", found.map(|s| s.tag)),
        }
    }

    #[test]
    fn syslog_parameters() {
        check("server=127.0.0.1", Ok((23, 6, "nginx")));
        check("server=[::1]:5140,nohostname,facility=user,severity=alert,tag=x_1", Ok((1, 1, "x_1")));
        check("server=unix:/dev/log", Ok((23, 6, "nginx")));
        check("", Err("unknown syslog parameter \"\""));
        check("server=", Err("no host in syslog server \"\""));
        check("server=127.0.0.1:bb", Err("invalid port in syslog server \"127.0.0.1:bb\""));
        check("server=a/b", Err("invalid host in syslog server \"a/b\""));
        check("server=[::1]x", Err("invalid host in syslog server \"[::1]x\""));
        check("server=[x]", Err("invalid IPv6 address in syslog server \"[x]\""));
        check("server=[]", Err("no host in syslog server \"[]\""));
        check("severity=error", Err("no syslog server specified"));
        check("server=127.0.0.1,facility=a", Err("unknown syslog facility \"a\""));
        check("server=127.0.0.1,server=::1", Err("duplicate syslog \"server\""));
        let tag = "syslog \"tag\" only allows alphanumeric characters and underscore";
        check("server=127.0.0.1,tag=a.b", Err(tag));
    }

    #[test]
    fn ports() {
        assert_eq!(split_port("[::1]"), Some(("[::1]", 514)));
        assert_eq!(split_port("[::1]:7"), Some(("[::1]", 7)));
        assert_eq!(split_port("a:0"), None);
    }
}
