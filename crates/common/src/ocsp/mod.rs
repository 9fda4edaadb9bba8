//! Asking OCSP responders: for the responses that a server staples to its certificates ([`Stapler`]), and for the
//! status of clients' certificates ([`StatusCheck`]).
//!
//! What is asked and what answers mean is in [`tls::ocsp`]; here is the way to the responder and back: its addresses, one
//! request by HTTP/1.0, a response that is bounded in size and time.

mod exchange;
mod staple;
mod status;

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use engine::log::{Level, Log};
use os::SockAddr;
use tls::ocsp::Query;
use upstream::{Resolver, Url};

pub use staple::Stapler;
pub use status::{Asker, CACHE_LAYOUT, StatusCheck};

/// Who looks up names of responders.
#[derive(Clone)]
pub struct Names {
    /// The resolver, if there is one.
    pub resolver: Option<Rc<Resolver>>,
    /// How long it may take.
    pub timeout_ms: u64,
}

/// A responder: its URL, and the addresses that are known before it is asked.
pub struct Responder {
    url: Url,
    addrs: Vec<SockAddr>,
}

/// How long a responder may take, name and all.
const TIMEOUT_MS: u64 = 60_000;
/// How long one of its addresses may take to accept a connection; then the next one is tried.
const CONNECT_MS: u64 = 10_000;
const PORT: u16 = 80;
const SCHEME: &str = "http://";

impl Responder {
    /// The responder that the configuration, or a certificate in it, names: its addresses are looked up now. The error
    /// says what is wrong, in nginx's words.
    pub fn configured(url: &str) -> Result<Responder, String> {
        let responder = Responder::named(url)?;
        let addrs = responder.url.resolve(PORT).map_err(|error| fault(error, &url[SCHEME.len()..]))?;
        Ok(Responder { addrs, ..responder })
    }

    /// The responder that a client's certificate names.
    pub fn named(url: &str) -> Result<Responder, String> {
        let rest = url.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let rest = rest.map(|_| &url[SCHEME.len()..]).ok_or_else(|| fault("invalid URL prefix", url))?;
        let url = Url::parse(rest.as_bytes(), true).map_err(|error| fault(error, rest))?;
        Ok(Responder { url, addrs: Vec::new() })
    }

    /// Asks for the status of a certificate: the body of the response, which may say anything. What goes wrong is in the
    /// log.
    async fn ask(&self, query: &Query, names: &Names, report: &Report<'_>) -> Option<Vec<u8>> {
        let asked = rt::timeout(TIMEOUT_MS, async {
            let request = exchange::request(&self.url, query);
            for addr in self.addresses(names, report).await? {
                match exchange::run(&addr, &request, CONNECT_MS).await {
                    Ok(response) => {
                        report.peer.replace(Some(addr));
                        return Some(response);
                    }
                    Err(trouble) => report.say(Level::Error, Some(&addr), format_args!("{trouble}")),
                }
            }
            None
        });
        asked.await.unwrap_or_else(|| {
            report.say(Level::Error, None, format_args!("OCSP responder timed out"));
            None
        })
    }

    async fn addresses(&self, names: &Names, report: &Report<'_>) -> Option<Vec<SockAddr>> {
        if let Some(mut addr) = self.url.literal() {
            addr.set_port(self.url.port.unwrap_or(PORT));
            return Some(vec![addr]);
        }
        let host = self.host();
        let Some(resolver) = &names.resolver else {
            let level = if self.addrs.is_empty() { Level::Error } else { Level::Warn };
            report.say(level, None, format_args!("no resolver defined to resolve {host}"));
            return (!self.addrs.is_empty()).then(|| self.addrs.clone());
        };
        match resolver.resolve(&self.url.host, names.timeout_ms).await {
            Ok(found) => {
                let port = self.url.port.unwrap_or(PORT);
                Some(found.into_iter().map(|ip| SocketAddr::new(ip, port).into()).collect())
            }
            Err(error) => {
                report.say(Level::Error, None, format_args!("{host} could not be resolved ({error})"));
                None
            }
        }
    }

    fn host(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.url.host)
    }
}

fn fault(why: impl fmt::Display, url: &str) -> String {
    format!("{why} in OCSP responder \"{url}\"")
}

/// Where it is said how the asking goes.
struct Report<'a> {
    log: &'a Log,
    connection: Option<u64>,
    responder: &'a Responder,
    certificate: Option<&'a str>,
    /// Who has answered.
    peer: std::cell::RefCell<Option<SockAddr>>,
}

impl Report<'_> {
    fn say(&self, level: Level, peer: Option<&SockAddr>, message: fmt::Arguments<'_>) {
        let details = |line: &mut String| {
            line.push_str(&format!(", responder: {}", self.responder.host()));
            if let Some(peer) = peer.or(self.peer.borrow().as_ref()) {
                line.push_str(&format!(", peer: {peer}"));
            }
            if let Some(certificate) = self.certificate {
                line.push_str(&format!(", certificate: \"{certificate}\""));
            }
        };
        let message = format_args!("{message} while requesting certificate status");
        self.log.write_with(level, self.connection, message, Some(&details));
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(rt::wall().secs).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_responders() {
        for (url, expect) in [
            ("http://127.0.0.1/x", ""),
            ("HTTP://[::1]:81", ""),
            ("http://unix:/tmp/s:/", ""),
            ("https://a/", "invalid URL prefix in OCSP responder \"https://a/\""),
            ("", "invalid URL prefix in OCSP responder \"\""),
            ("http:/é/", "invalid URL prefix in OCSP responder \"http:/é/\""),
            ("http:///x", "no host in OCSP responder \"/x\""),
            ("http://127.0.0.1:0/", "invalid port in OCSP responder \"127.0.0.1:0/\""),
        ] {
            assert_eq!(Responder::configured(url).err().unwrap_or_default(), expect, "{url}");
        }
        assert!(Responder::named("http://no.such.invalid/").is_ok());
    }
}
