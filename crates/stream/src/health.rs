//! Active health checks of servers behind `proxy_pass`: `health_check` and `match`.
//!
//! A check opens a connection, or sends a datagram, and compares what comes back. Who checks when, and what follows, is
//! [`upstream::health`]'s.
//!
//! Not in nginx, which has them in its commercial edition; what they do is as documented there. Checks don't speak TLS.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use buf::{Bytes, Chain};
use common::backend::health::{self as checks, duplicate_match, regex, wrong_number};
use conf::values::{invalid_parameter, msec};
use conf::{Args, Context, Directive, Error, Loader, Registry, Result};
use engine::log::Errno;
use expr::regex::Regex;
use os::SockAddr;
use rt::{ConnectError, Transmit, UdpSocket};
use upstream::health::{self, Failure, Probe, Probing};
use upstream::{Group, Peer};

use crate::module::{Handlers, ServerContext, StreamModule};
use crate::proto::EVERYWHERE;
use crate::proxy::{Backend, Destination, ProxyConf};
use crate::server::Stream;

/// The module.
pub struct HealthChecks;

conf::table! {
    /// The check of a server.
    pub struct HealthConf, raw HealthRaw, module "ngx_stream_upstream_hc_module", level STREAM Server;

    /// Checks the servers of the group that sessions are passed on to, again and again.
    ///
    /// Form: `health_check [interval=time] [jitter=time] [fails=number] [passes=number] [port=number] [match=name]
    /// [mandatory [persistent]] [udp]`
    ///
    /// - `interval=time`: the time from one check of a server to the next; the default is 5s.
    /// - `jitter=time`: each check is late by a random time up to this; the default is 0.
    /// - `fails=number`: so many checks in a row must fail before a server is unhealthy; the default is 1.
    /// - `passes=number`: so many checks in a row must pass before it is healthy again; the default is 1.
    /// - `port=number`: the port to connect to; by default that of the server.
    /// - `match=name`: the block `match` with what is sent and what has to come back; by default a connection is opened, and
    ///   with `udp` the text `nginx health check` is sent.
    /// - `mandatory`: a server gets no sessions before its first check has passed. With `persistent`, one that was healthy
    ///   before a reload gets them at once.
    /// - `udp`: datagrams are sent. Without an answer that `match` expects, a check passes unless the server's machine says
    ///   that nobody listens there.
    ///
    /// Effect: an unhealthy server gets no sessions until its checks pass; those under way go on. The group needs a `zone`; one
    /// worker checks for all, and another one takes over when it ends. What is known of a server survives a reload.
    ///
    /// Cost: a connection to each server in each interval.
    ///
    /// Danger: if all servers are unhealthy, all sessions end at once, with status 502 in the log.
    ///
    /// ```nginx
    /// upstream databases {
    ///     zone databases 64k;
    ///     server 127.0.0.1:5432;
    ///     server 127.0.0.1:5433;
    /// }
    /// server {
    ///     listen 127.0.0.1:5431;
    ///     proxy_pass databases;
    ///     health_check interval=3s fails=2;
    /// }
    /// ```
    "health_check" in Context::STREAM_SERVER, Args::between(0, 9), default none,
        here(health_check) health_check: Rc<Spec>;
    /// Limits the time of a health check.
    ///
    /// Form: `health_check_timeout time`
    ///
    /// - `time`: for the connection, what is sent, and what has to come back.
    ///
    /// Effect: a check that takes longer has failed; with `udp`, if nothing has to come back, it has passed.
    ///
    /// ```nginx
    /// health_check_timeout 2s;
    /// ```
    "health_check_timeout" in EVERYWHERE, Args::exactly(1), default "5s",
        scalar(msec) health_check_timeout: u64 = 5000;
}

conf::table! {
    /// Tests of answers; all of it is gathered in [`Matches`].
    pub struct MatchBlock, raw MatchRaw, module "ngx_stream_upstream_hc_module", level STREAM Main;

    /// Says what a health check sends, and what has to come back.
    ///
    /// Form: `match name`
    ///
    /// - `name`: the name by which `health_check` refers to it.
    /// - `send text;` in the block: what is sent; `\x` and two hexadecimal digits stand for a byte.
    /// - `expect text;`: what is received begins with this, `\x` as above.
    /// - `expect ~ regex;`, `expect ~* regex;`: what is received matches; `~*` ignores case.
    ///
    /// Effect: bytes are received until they fit, the server has ended, or the time is over. Of them the first
    /// `proxy_buffer_size` count.
    ///
    /// ```nginx
    /// match redis {
    ///     send PING\r\n;
    ///     expect ~ ^\+PONG;
    /// }
    /// ```
    "match" in Context::STREAM, Args::exactly(1).block(), default none,
        block(match_block);
}

/// What a `health_check` says.
pub struct Spec {
    shared: checks::Spec,
    udp: bool,
}

fn health_check(_: &mut Loader<'_>, d: &Directive) -> Result<Rc<Spec>> {
    let mut spec = Spec { shared: checks::Spec::new(d), udp: false };
    for word in &d.args {
        match word.text.as_slice() {
            b"udp" => spec.udp = true,
            _ if spec.shared.parameter(word)? => {}
            _ => return Err(invalid_parameter(word)),
        }
    }
    Ok(Rc::new(spec))
}

/// What a `match` block says.
#[derive(Default)]
struct Match {
    send: Vec<u8>,
    expect: Option<Expect>,
}

enum Expect {
    /// What is received begins with this.
    Text(Vec<u8>),
    Regex(Regex),
}

/// The `match` blocks, by name.
#[derive(Default)]
struct Matches(HashMap<Vec<u8>, Rc<Match>>);

fn match_block(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let mut tests = Match::default();
    for line in d.block.as_deref().unwrap_or_default() {
        match (line.name.text.as_slice(), line.args.as_slice()) {
            (b"send", [text]) => tests.send = unescaped(&text.text),
            (b"expect", [text]) => tests.expect = Some(Expect::Text(unescaped(&text.text))),
            (b"expect", [operator, pattern]) => match regex(operator, pattern)? {
                (false, regex) => tests.expect = Some(Expect::Regex(regex)),
                (true, _) => return Err(invalid_parameter(operator)),
            },
            (b"send" | b"expect", _) => return Err(wrong_number(line)),
            _ => return Err(Error::at(&line.name, format!("unknown test \"{}\"", line.name.lossy()))),
        }
    }
    let name = d.arg(0);
    match loader.store.entry::<Matches>().0.insert(name.text.clone(), Rc::new(tests)) {
        None => Ok(()),
        Some(_) => Err(duplicate_match(name)),
    }
}

/// A text with its `\xNN`, `\r` and `\n` as bytes.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let (value, used) = match (byte, after) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).ok().filter(|digits| !digits.starts_with('+'));
                digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).map_or((byte, 1), |value| (value, 4))
            }
            _ => (byte, 1),
        };
        out.push(value);
        rest = &rest[used..];
    }
    out
}

impl Match {
    /// Whether what has been received is as it has to be.
    fn fits(&self, received: &[u8]) -> bool {
        match &self.expect {
            None => true,
            Some(Expect::Text(text)) => received.starts_with(text),
            Some(Expect::Regex(regex)) => regex.is_match(received).unwrap_or(false),
        }
    }
}

/// The checks of a configuration.
#[derive(Default)]
struct Planned(Vec<Plan>);

struct Plan {
    group: Rc<Group>,
    bit: u32,
    probe: Rc<StreamProbe>,
}

impl StreamModule for HealthChecks {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<HealthConf>();
        registry.add::<MatchBlock>();
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<HealthConf>();
        let Some(spec) = conf.health_check.clone() else { return Ok(()) };
        let d = &spec.shared.directive;
        let backend = out.content.as_ref().and_then(|content| content.as_any()?.downcast_ref::<Backend>());
        let Some(backend) = backend else {
            return Err(Error::on(d, "\"health_check\" needs a server that passes sessions on"));
        };
        let Destination::Fixed { found, .. } = &backend.destination else {
            return Err(Error::on(d, "\"health_check\" needs a group without variables"));
        };
        let tests = spec.shared.tests(|name| cx.loader.store.entry::<Matches>().0.get(name).cloned())?;
        let bit = spec.shared.add_to(&found.group)?;
        let (proxy, timeout_ms) = (backend.conf.clone(), conf.health_check_timeout);
        let plan =
            Plan { group: found.group.clone(), bit, probe: Rc::new(StreamProbe { spec, tests, proxy, timeout_ms }) };
        cx.loader.store.entry::<Planned>().0.push(plan);
        Ok(())
    }

    fn part(&self, loader: &mut Loader<'_>) -> Option<Box<dyn Any>> {
        Some(Box::new(loader.store.take::<Planned>().unwrap_or_default()))
    }

    fn start_worker(&self, stream: &Rc<Stream>) {
        for plan in stream.part::<Planned>().map_or(&[][..], |planned| &planned.0) {
            health::watch(&plan.group, plan.probe.spec.shared.check.clone(), plan.bit, plan.probe.clone());
        }
    }
}

struct StreamProbe {
    spec: Rc<Spec>,
    tests: Option<Rc<Match>>,
    proxy: Rc<ProxyConf>,
    timeout_ms: u64,
}

/// What is sent where nothing else is said.
const GREETING: &[u8] = b"nginx health check";

impl Probe for StreamProbe {
    fn probe<'a>(&'a self, _: &'a Peer, addr: SockAddr) -> Probing<'a> {
        Box::pin(async move {
            match self.spec.udp {
                true => self.ask_by_datagram(&addr).await,
                false => {
                    let checked = rt::timeout(self.timeout_ms, self.ask(&addr)).await;
                    checked.unwrap_or_else(|| Err("waiting for the server".to_owned().into()))
                }
            }
        })
    }
}

impl StreamProbe {
    async fn ask(&self, addr: &SockAddr) -> std::result::Result<(), Failure> {
        let options = self.proxy.connect.options_apart();
        let connected = rt::Stream::connect(addr, &options, self.timeout_ms).await;
        let stream = connected.map_err(unconnected)?;
        let Some(tests) = &self.tests else { return Ok(()) };
        if !tests.send.is_empty() {
            let sent = stream.send(&mut Chain::from(Bytes::from(tests.send.clone()))).await;
            sent.map_err(|_| "sending".to_owned())?;
        }
        let mut received = Vec::new();
        while !tests.fits(&received) {
            let room = self.proxy.proxy_buffer_size.saturating_sub(received.len());
            let more = stream.recv(room.max(1)).await.map_err(|_| "receiving".to_owned())?;
            if more.is_empty() || room == 0 {
                return Err("checking what was received".to_owned().into());
            }
            received.extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
        }
        Ok(())
    }

    async fn ask_by_datagram(&self, addr: &SockAddr) -> std::result::Result<(), Failure> {
        let connected = UdpSocket::connect(addr, &self.proxy.connect.options_apart()).await;
        let socket = connected.map_err(unconnected)?;
        let tests = self.tests.as_deref();
        let text = tests.map_or(GREETING, |tests| if tests.send.is_empty() { GREETING } else { &tests.send });
        socket.send(&mut [Transmit::new(text)]).await.map_err(|_| "sending".to_owned())?;
        socket.set_recv_timeout(Some(self.timeout_ms));
        let expects = tests.is_some_and(|tests| tests.expect.is_some());
        let mut batch = Vec::new();
        loop {
            match socket.recv(&mut batch).await {
                Ok(()) if tests.is_none_or(|tests| batch.iter().any(|datagram| tests.fits(&datagram.bytes))) => {
                    return Ok(());
                }
                Ok(()) => batch.clear(),
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !expects => return Ok(()),
                Err(_) => return Err("receiving".to_owned().into()),
            }
        }
    }
}

/// A connection can't be made, which may be a fault of the peer or not.
fn unconnected(error: ConnectError) -> Failure {
    match error {
        ConnectError::Peer(_) => Failure::Peer("connecting".to_owned()),
        ConnectError::Own(call, error) => {
            engine::log!(engine::log::current(), Crit, "{call} failed{} while checking a peer", Errno(&error));
            Failure::NotMade
        }
        ConnectError::Full => Failure::NotMade,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (text, expect) in [
            (&b"plain"[..], &b"plain"[..]),
            (b"\\x00\\xfF.", b"\x00\xff."),
            (b"PING\\r\\n", b"PING\r\n"),
            (b"\\x", b"\\x"),
            (b"\\x4", b"\\x4"),
            (b"\\xg0", b"\\xg0"),
            (b"\\x+1", b"\\x+1"),
            (b"\\", b"\\"),
        ] {
            assert_eq!(unescaped(text), expect, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_fits() {
        let regex = Regex::new(b"200 OK", false).expect("a regex");
        let text = Match { expect: Some(Expect::Text(b"+PONG".to_vec())), ..Match::default() };
        let matches = Match { expect: Some(Expect::Regex(regex)), ..Match::default() };
        assert!(Match::default().fits(b"") && text.fits(b"+PONG\r\n") && matches.fits(b"HTTP/1.0 200 OK"));
        assert!(!text.fits(b"+PON") && !text.fits(b"x+PONG") && !matches.fits(b"HTTP/1.0 500"));
    }
}
