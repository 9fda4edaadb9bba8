//! Reaching a server: one after the other is tried, until a connection is open.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use buf::{Bytes, Chain};
use common::backend::attempts::Attempt;
use common::backend::header::Header;
use common::backend::ssl::Failure;
use common::backend::targets::{Found, Groups, needs_port};
use common::{Facts as _, vars};
use engine::log::{Errno, Level, TIMED_OUT};
use expr::vars::Template;
use rt::ConnectError;
use upstream::{Choice, Hints, Moment, Outcome, Url};
use wire::proxy_protocol::Transport;

use super::{Backend, Destination};
use crate::session::StreamSession;

/// A session's way ends here, with this status.
pub(super) struct Unreached(pub(super) u16);

/// A server of the group, and the connection to it.
pub(super) struct Reached<B = rt::Stream> {
    pub(super) choice: Choice,
    pub(super) backend: B,
    /// When the attempt began.
    pub(super) began_ms: u64,
    /// What has to be sent first.
    pub(super) header: Bytes,
}

/// What carries the bytes of a session to its server.
pub(super) enum Line {
    /// A connection.
    Stream(rt::Stream),
    /// A socket of datagrams.
    Datagrams(rt::UdpSocket),
}

/// A fault of the server.
const INTERNAL_ERROR: Unreached = Unreached(500);
/// No server could be reached.
const BAD_GATEWAY: Unreached = Unreached(502);

/// The client has left, which is no fault.
const LEFT: Unreached = Unreached(200);

/// The client has left meanwhile.
struct Left;

/// Why a server couldn't be reached.
enum Fault {
    /// Another one may be.
    Peer,
    /// None can: the own certificate can't be loaded, or no connection begun.
    Own,
    /// The client has left meanwhile.
    Left,
}

impl From<Left> for Fault {
    fn from(_: Left) -> Fault {
        Fault::Left
    }
}

impl Backend {
    /// Opens a connection to a server.
    pub(super) async fn reach(&self, s: &mut StreamSession) -> Result<Reached<Line>, Unreached> {
        // What rarely waits does so in boxes of its own: this is made for each session.
        let (found, host) = match &self.destination {
            Destination::Fixed { found, host } => (found.clone(), host.clone()),
            Destination::Variable { template, groups } => Box::pin(self.look_up(s, template, groups)).await?,
        };
        let key = found.key.as_ref().map(|key| vars::render(s, key)).unwrap_or_default();
        let mut choice = Choice::new(found.group, self.conf.connect.next_upstream_tries);
        let began_ms = rt::now_ms();
        let header = self.header(s);
        // Mostly it is the only one.
        s.attempts.reserve_exact(1);
        loop {
            let attempt_ms = rt::now_ms();
            s.attempts.push(Attempt::default());
            self.choose(s, &mut choice, &key).await?;
            let connected = self.connect(s, &choice, attempt_ms, &host, &header).await;
            let fault = match connected {
                Ok(backend) => {
                    choice.works();
                    // Over TLS it was sent already.
                    let header = if self.tls.is_some() { Bytes::default() } else { header };
                    return Ok(Reached { choice, backend, began_ms: attempt_ms, header });
                }
                Err(fault) => fault,
            };
            end_attempt(s, attempt_ms);
            match fault {
                Fault::Own => return Err(INTERNAL_ERROR),
                Fault::Left => return Err(left(s)),
                Fault::Peer => {}
            }
            if choice.release(Outcome::Failed) {
                let message = "upstream server temporarily disabled while connecting to upstream";
                s.log_at(Level::Warn, format_args!("{message}"));
            }
            if !self.conf.proxy_next_upstream || choice.tries == 0 || self.conf.connect.is_late(began_ms) {
                return Err(BAD_GATEWAY);
            }
        }
    }

    /// Where this session goes by the value of a template, with the host's name as it is written.
    async fn look_up(
        &self,
        s: &mut StreamSession,
        template: &Template,
        groups: &RefCell<Groups>,
    ) -> Result<(Found, Rc<[u8]>), Unreached> {
        let text = vars::render(s, template);
        let shown = buf::text::encode(&text).into_owned();
        let url = match Url::parse(&text, false) {
            Ok(url) => url,
            Err(error) => {
                s.log_error(format_args!("{error} in upstream \"{shown}\""));
                return Err(INTERNAL_ERROR);
            }
        };
        let host: Rc<[u8]> = url.host.as_slice().into();
        let known = groups.borrow().at_run_time(&url, None);
        if let Some(found) = known {
            return Ok((found, host));
        }
        if needs_port(&url, None) {
            s.log_error(format_args!("no port in upstream \"{shown}\""));
            return Err(INTERNAL_ERROR);
        }
        let name = buf::text::encode(&url.host).into_owned();
        let core = s.server.core.clone();
        let Some(resolver) = &core.shared.resolver else {
            s.log_error(format_args!("no resolver defined to resolve {name}"));
            return Err(INTERNAL_ERROR);
        };
        let found = pin!(Found::look_up(&url, None, resolver, core.shared.resolver_timeout));
        match unless_left(s, self.conf.proxy_half_close, found).await {
            Ok(Ok(found)) => Ok((found, host)),
            Err(Left) => Err(left(s)),
            Ok(Err(error)) => {
                s.log_error(format_args!("{name} could not be resolved ({error})"));
                Err(INTERNAL_ERROR)
            }
        }
    }

    /// Chooses the next server, waiting for one if the group has a queue.
    async fn choose(&self, s: &mut StreamSession, choice: &mut Choice, key: &[u8]) -> Result<(), Unreached> {
        let peer = s.base.peer.clone();
        let hints = Hints { addr: Some(&peer), key, ..Hints::default() };
        let found = if choice.advance(&hints) {
            Ok(true)
        } else if choice.group().has_queue() {
            unless_left(s, self.conf.proxy_half_close, Box::pin(choice.wait(&hints)).as_mut()).await
        } else {
            Ok(false)
        };
        if let Some(attempt) = s.attempts.last_mut() {
            match choice.peer() {
                Some(peer) => attempt.begin(peer),
                None => attempt.peer = Some(choice.group().name.clone()),
            }
        }
        match found {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Left) => {
                end_attempt(s, rt::now_ms());
                return Err(left(s));
            }
        }
        s.log_error(format_args!("no live upstreams while connecting to upstream"));
        end_attempt(s, rt::now_ms());
        Err(BAD_GATEWAY)
    }

    /// A connection to the chosen server, over TLS if that is wanted.
    async fn connect(
        &self,
        s: &mut StreamSession,
        choice: &Choice,
        began_ms: u64,
        host: &[u8],
        header: &Bytes,
    ) -> Result<Line, Fault> {
        if s.link.stream().is_none() {
            return self.connect_datagrams(s, choice, began_ms).await.map(Line::Datagrams);
        }
        let addr = choice.peer().map(|peer| peer.addr.clone()).ok_or(Fault::Peer)?;
        let options = self.conf.connect.options(s);
        let timeout_ms = self.conf.connect.connect_timeout;
        let connecting = pin!(rt::Stream::connect(&addr, &options, timeout_ms));
        let backend = match unless_left(s, self.conf.proxy_half_close, connecting).await? {
            Ok(backend) => backend,
            Err(ConnectError::Peer(error)) => {
                match error.kind() {
                    io::ErrorKind::TimedOut => {
                        s.log_error(format_args!("upstream timed out{TIMED_OUT} while connecting to upstream"));
                    }
                    _ => s.log_error(format_args!("connect() failed{} while connecting to upstream", Errno(&error))),
                }
                return Err(Fault::Peer);
            }
            Err(error) => return Err(own(s, &error)),
        };
        if !addr.is_unix() && s.server.core.shared.tcp_nodelay {
            let _ = backend.set_nodelay(true);
        }
        if let Some(tls) = &self.tls {
            backend.set_recv_timeout(Some(timeout_ms));
            backend.set_send_timeout(Some(timeout_ms));
            if !header.is_empty() && backend.send(&mut Chain::from(header.clone())).await.is_err() {
                return Err(Fault::Peer);
            }
            let alpn = self.alpn(s);
            match Box::pin(tls.connect(s, &backend, host, alpn)).await {
                Ok(()) => {}
                Err(Failure::OwnCertificate) => return Err(Fault::Own),
                Err(Failure::TimedOut | Failure::Error) => return Err(Fault::Peer),
            }
        }
        if let Some(attempt) = s.attempts.last_mut() {
            attempt.connect_ms = Some(rt::now_ms().saturating_sub(began_ms));
        }
        choice.reached(Moment::Connected);
        if s.log().enabled(Level::Info) {
            let own = backend.local_addr().map_or_else(|_| String::new(), |own| own.to_string());
            s.log_plain(format_args!("proxy {own} connected to {addr}"));
        }
        Ok(Line::Stream(backend))
    }

    /// A socket for datagrams to the chosen server. TLS isn't spoken over datagrams.
    async fn connect_datagrams(
        &self,
        s: &mut StreamSession,
        choice: &Choice,
        began_ms: u64,
    ) -> Result<rt::UdpSocket, Fault> {
        let addr = choice.peer().map(|peer| peer.addr.clone()).ok_or(Fault::Peer)?;
        let options = self.conf.connect.options(s);
        let backend = match rt::UdpSocket::connect(&addr, &options).await {
            Ok(backend) => backend,
            Err(ConnectError::Peer(error)) => {
                let message = format_args!("connect() to {addr} failed{} while connecting to upstream", Errno(&error));
                s.log_at(Level::Crit, message);
                return Err(Fault::Peer);
            }
            Err(error) => return Err(own(s, &error)),
        };
        if let Some(attempt) = s.attempts.last_mut() {
            attempt.connect_ms = Some(rt::now_ms().saturating_sub(began_ms));
        }
        choice.reached(Moment::Connected);
        if s.log().enabled(Level::Info) {
            let own = backend.local_addr().map_or_else(|_| String::new(), |own| own.to_string());
            s.log_plain(format_args!("udp proxy {own} connected to {addr}"));
        }
        Ok(backend)
    }

    /// The protocols that are offered to the server; values that are empty aren't.
    fn alpn(&self, s: &mut StreamSession) -> Option<Vec<Vec<u8>>> {
        let all = &self.conf.proxy_ssl_alpn;
        let names = all.iter().map(|name| vars::render(s, name)).filter(|name| (1..=255).contains(&name.len()));
        (!all.is_empty()).then(|| names.collect())
    }

    /// The header of the PROXY protocol, if there is to be one.
    fn header(&self, s: &mut StreamSession) -> Bytes {
        let kind = self.conf.proxy_protocol;
        if kind == Header::Off {
            return Bytes::default();
        }
        let fields = self.conf.proxy_protocol_tlv.iter();
        let values: Vec<(u8, Vec<u8>)> = fields.map(|field| (field.kind, vars::render(s, &field.value))).collect();
        let set = values.iter().filter(|(_, value)| !value.is_empty());
        let tlvs: Vec<(u8, &[u8])> = set.map(|(kind, value)| (*kind, value.as_slice())).collect();
        let transport = if s.link.stream().is_some() { Transport::Stream } else { Transport::Datagram };
        let (client, local) = (s.base.peer.clone(), s.local().clone());
        let header = kind.write(&client, &local, transport, &tlvs).or_else(|| {
            s.log_error(format_args!("the fields of the PROXY protocol's header are too long, left out"));
            kind.write(&client, &local, transport, &[])
        });
        Bytes::from(header.unwrap_or_default())
    }
}

/// The attempt is over.
pub(super) fn end_attempt(s: &mut StreamSession, began_ms: u64) {
    if let Some(attempt) = s.attempts.last_mut() {
        attempt.response_ms = Some(rt::now_ms().saturating_sub(began_ms));
    }
}

/// Tells the log why no connection could be begun.
fn own(s: &StreamSession, error: &ConnectError) -> Fault {
    if let ConnectError::Own(call, error) = error {
        s.log_at(Level::Crit, format_args!("{call} failed{} while connecting to upstream", Errno(error)));
    }
    Fault::Own
}

/// Tells the log that the client has left.
fn left(s: &StreamSession) -> Unreached {
    s.log_plain(format_args!("client disconnected, {}", s.counts()));
    LEFT
}

/// Waits for `future`, but no longer than the client does. One that may close its side and wait for an answer is waited for
/// in any case.
async fn unless_left<T>(
    s: &mut StreamSession,
    half_close: bool,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Left> {
    let mut watches = !half_close;
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        if watches && s.link.stream().is_some_and(|client| client.poll_hangup(cx).is_ready()) {
            // What it has sent before is passed on.
            watches = false;
            if s.first.is_empty() && !s.has_sent(cx) {
                return Poll::Ready(Err(Left));
            }
        }
        Poll::Pending
    })
    .await
}
