//! The configuration for a start without one: a welcome page, or a folder.
//!
//! Both listen on this machine alone unless `-a` says otherwise. Hidden names (`.env`, `.git`) aren't served, except
//! `.well-known` (RFC 8615).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use engine::log::Errno;
use engine::personality::Personality;

/// A configuration, and where it can be reached.
pub(crate) struct BuiltIn {
    /// Its text.
    pub text: String,
    /// Where it listens.
    pub address: Address,
    /// The socket: open from the beginning, so that nobody else takes the port that was found free. None if the program
    /// that this one takes the place of has left it.
    pub listener: Option<TcpListener>,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The address.
    pub socket: SocketAddr,
    /// The port that would have been the first choice, if it is in use.
    pub instead_of: Option<u16>,
}

/// An address, and the socket that is bound to it, unless that comes from another program.
type Place = (Address, Option<TcpListener>);

/// A welcome page.
pub(crate) fn welcome(place: Place, personality: &Personality) -> BuiltIn {
    let page = WELCOME.replace('\'', "&#39;");
    let inside = format!("location = / {{ default_type \"text/html; charset=utf-8\"; return 200 '{page}'; }}");
    site(place, personality, &format!("{inside} location / {{ return 404; }}"))
}

/// The files of the prefix.
pub(crate) fn folder(place: Place, personality: &Personality) -> BuiltIn {
    // Relative to the prefix, so that no byte of its path can have a meaning here.
    site(
        place,
        personality,
        "root .;
        index index.html index.htm;
        autoindex on;
        autoindex_format styled;
        autoindex_exact_size off;
        autoindex_localtime on;
        location ~ \"/\\.(?!well-known(/|$))\" { return 404; }",
    )
}

fn site((address, listener): Place, personality: &Personality, inside: &str) -> BuiltIn {
    let pid = pid_file(personality);
    let (pid, socket) = (buf::text::path(&pid), address.socket);
    let text = format!(
        "\
daemon off;
pid \"{pid}\";
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    types {{
{TYPES}    }}
    default_type application/octet-stream;
    access_log off;
    log_not_found off;
    sendfile on;
    absolute_redirect off;
    server {{
        listen {socket};
        {inside}
    }}
}}
"
    );
    BuiltIn { text, address, listener }
}

/// Beside the personality's: several folders may be served at a time.
fn pid_file(personality: &Personality) -> PathBuf {
    personality.pid.with_file_name(format!("tidegate-{}.pid", std::process::id()))
}

impl Address {
    /// What a person opens in a browser.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.socket)
    }
}

/// Where to listen: `-a`'s `ADDRESS:PORT`, `ADDRESS` or `PORT`. A port that is named is taken or it is an error, else it
/// is 8080 or the next one that is free; without an address it is 127.0.0.1. Who takes another program's place listens
/// where that does.
pub(crate) fn address(wish: Option<&str>) -> Result<Place, String> {
    if let Some(socket) = engine::master::upgrade::addresses().first() {
        return Ok((Address { socket: *socket, instead_of: None }, None));
    }
    let (ip, port) = wish.map_or(Ok((LOOPBACK, None)), parse)?;
    if let Some(port) = port {
        let socket = SocketAddr::new(ip, port);
        let listener = TcpListener::bind(socket).map_err(|error| failed(socket, &error))?;
        return Ok((Address { socket, instead_of: None }, Some(listener)));
    }
    for port in FIRST_PORT..FIRST_PORT + PORTS {
        let socket = SocketAddr::new(ip, port);
        match TcpListener::bind(socket) {
            Ok(listener) => {
                let instead_of = (port != FIRST_PORT).then_some(FIRST_PORT);
                return Ok((Address { socket, instead_of }, Some(listener)));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(failed(socket, &error)),
        }
    }
    let last = FIRST_PORT + PORTS - 1;
    Err(format!("the ports from {FIRST_PORT} to {last} are all in use; \"-a ADDRESS:PORT\" chooses another one"))
}

fn failed(socket: SocketAddr, error: &io::Error) -> String {
    format!("bind() to {socket} failed{}; \"-a ADDRESS:PORT\" chooses where to listen", Errno(error))
}

fn parse(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let invalid = || format!("invalid address \"{text}\" in option \"-a\"; its form is ADDRESS:PORT or [IPV6]:PORT");
    let ip = |text: &str| match text {
        "localhost" => Some(LOOPBACK),
        "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        _ => text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok(),
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some(ip) = ip(text) {
        return Ok((ip, None));
    }
    if let Some(port) = port(text) {
        return Ok((LOOPBACK, Some(port)));
    }
    let (host, tail) = text.rsplit_once(':').ok_or_else(invalid)?;
    // Without brackets nobody can tell where an IPv6 address ends.
    let host = if host.contains(':') && !host.starts_with('[') { None } else { ip(host) };
    match (host, port(tail)) {
        (Some(ip), Some(port)) => Ok((ip, Some(port))),
        _ => Err(invalid()),
    }
}

/// Whether a folder can be served: it must be one, and the workers' user must be able to list it. The error is a message
/// that says what to do.
pub(crate) fn check_folder(folder: &Path, personality: &Personality, user_is_chosen: bool) -> Result<(), String> {
    let name = buf::text::path(folder);
    match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let program = personality.name;
            return Err(format!(
                "\"{name}\" isn't a folder; a configuration is tested by \"{program} -t -c {name}\" and run by \
                 \"{program} -c {name}\""
            ));
        }
        Err(error) => {
            let hint = match &*folder.to_string_lossy() {
                word @ ("stop" | "quit" | "reload" | "reopen") => {
                    format!("; the signal is sent by \"{} -s {word}\"", personality.name)
                }
                _ => String::new(),
            };
            return Err(format!("\"{name}\" isn't a folder that can be served{}{hint}", Errno(&error)));
        }
    }
    let Some(owner) = engine::cycle::default_owner().filter(|_| os::users::effective_uid() == 0 && !user_is_chosen)
    else {
        return std::fs::read_dir(folder)
            .map(drop)
            .map_err(|error| format!("the folder \"{name}\" can't be read{}", Errno(&error)));
    };
    if engine::worker::sandbox::can_list(&owner, folder)? {
        return Ok(());
    }
    let user = owner.user.name.to_string_lossy();
    Err(format!(
        "the folder \"{name}\" can't be read by \"{user}\", the user that workers run as: let others read it and enter \
         the folders above it (chmod o+rx), or choose another user, with -g \"user NAME;\""
    ))
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const FIRST_PORT: u16 = 8080;

/// How many ports are tried.
const PORTS: u16 = 100;

const WELCOME: &str = include_str!("welcome.html");

const TYPES: &str = "\
        text/html html htm shtml;
        text/css css;
        text/xml xml;
        \"text/plain; charset=utf-8\" txt md log;
        text/javascript js mjs;
        application/json json map;
        application/pdf pdf;
        application/wasm wasm;
        application/zip zip;
        application/gzip gz;
        font/woff woff;
        font/woff2 woff2;
        image/avif avif;
        image/gif gif;
        image/jpeg jpeg jpg;
        image/png png;
        image/svg+xml svg svgz;
        image/webp webp;
        image/x-icon ico;
        audio/mpeg mp3;
        audio/ogg ogg;
        video/mp4 mp4;
        video/webm webm;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expect) in [
            ("127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
            ("0.0.0.0", Some(("0.0.0.0", None))),
            ("*:81", Some(("0.0.0.0", Some(81)))),
            ("8081", Some(("127.0.0.1", Some(8081)))),
            ("localhost:1", Some(("127.0.0.1", Some(1)))),
            ("[::1]:82", Some(("::1", Some(82)))),
            ("::1", Some(("::1", None))),
            ("[::]", Some(("::", None))),
            ("::1:82", Some(("::1:82", None))),
            ("0", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:65536", None),
            ("example.com:80", None),
            ("", None),
            (":", None),
            ("[::1", None),
        ] {
            let expect = expect.map(|(ip, port)| (ip.parse().expect("an address"), port));
            assert_eq!(parse(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn a_port_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = taken.local_addr().expect("an address").to_string();
        let error = address(Some(&at)).expect_err("it is in use");
        assert!(error.starts_with(&format!("bind() to {at} failed (98: Address already in use)")), "{error}");
    }

    /// What the text of `return` would read as a variable, or as the text's end.
    #[test]
    fn the_page_is_one_word() {
        assert!(!WELCOME.contains(['$', '\\', '\'']), "{WELCOME}");
    }
}
