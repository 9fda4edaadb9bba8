//! The handshake with a client, before its session: by the name that it gives a server is chosen, whose settings hold.
//!
//! It has two halves, [`greet`] and [`Greeting::finish`]. Between them the protocol says which certificate the connection
//! gets, where variables name it.

use std::io;
use std::rc::Rc;

use buf::{Buf, Bytes};
use engine::log::{Errno, Level, Log, TIMED_OUT};
use tls::{Alert, ClientVerdict, Departed, First, HandshakeError, Identity, Reason, Secured, ServerLayer};
use wire::hello::ClientHello;

use super::ssl::{ServerTls, VerifyClient};
use super::{Address, Front, Server, Visitor};
use crate::ocsp::{Asker, StatusCheck};
use crate::vars::Regex;

/// What a TLS connection remembers of the choice of its server.
pub struct Chosen<S> {
    /// The server.
    pub server: Rc<S>,
    /// Whether it was chosen by the name that the client gave.
    pub named: bool,
    /// The regex that the name matched, if it was one: requests for the name get its captures.
    pub regex: Option<Rc<Regex>>,
}

/// What a client has said first.
pub enum Greeted<S> {
    /// It begins a handshake with a server.
    Hello(Greeting<S>),
    /// It doesn't speak TLS.
    Plain(Bytes),
}

/// A handshake that has begun.
pub struct Greeting<S> {
    /// Its server.
    pub chosen: Chosen<S>,
    /// What accepts its connections.
    pub tls: Rc<ServerTls>,
    /// What the client has said.
    pub hello: Box<ClientHello>,
    input: Buf,
}

/// Reads what a client says first, and chooses its server. `first` was read already; timeouts are set. `None`: the connection
/// is to be closed, and the log has been told why.
pub async fn greet<'v, P: Front>(
    stream: &rt::Stream,
    first: Bytes,
    address: &Address<P>,
    visitor: impl Fn() -> Visitor<'v>,
) -> Option<Greeted<P::Server>> {
    let mut buf = Buf::empty();
    buf.extend_from_slice(&first);
    // A client that says nothing is closed first if its place is needed.
    let silent = stream.silent();
    let said = tls::first_bytes(stream, buf).await;
    drop(silent);
    let (hello, input) = match said {
        Ok(First::Hello(hello, input)) => (hello, input),
        Ok(First::Plain(input)) => return Some(Greeted::Plain(input.freeze())),
        Ok(First::Closed) => return None,
        Err(error) => {
            log_failure(&visitor(), &error);
            return None;
        }
    };
    let chosen = choose(address, &hello);
    let Some(tls) = tls_of(address, &chosen.server).filter(|tls| !tls.reject) else {
        tls::refuse(stream, Alert::UnrecognizedName).await;
        let error = HandshakeError::Tls("error:0A0000EA:SSL routines::callback failed".to_owned());
        log_failure(&visitor(), &error);
        return None;
    };
    Some(Greeted::Hello(Greeting { chosen, tls, hello, input }))
}

/// The same where the client has to speak TLS: of one that doesn't the log is told.
pub async fn greet_secure<'v, P: Front>(
    stream: &rt::Stream,
    first: Bytes,
    address: &Address<P>,
    visitor: impl Fn() -> Visitor<'v>,
) -> Option<Greeting<P::Server>> {
    match greet(stream, first, address, &visitor).await? {
        Greeted::Hello(greeting) => Some(greeting),
        Greeted::Plain(said) => {
            log_failure(&visitor(), &HandshakeError::Tls(plain_fault(&said).to_owned()));
            None
        }
    }
}

/// What OpenSSL calls the fault of a client that doesn't speak TLS.
fn plain_fault(said: &[u8]) -> &'static str {
    let starts = |words: &[&[u8]]| words.iter().any(|word| said.starts_with(word));
    if starts(&[b"GET ", b"POST ", b"HEAD ", b"PUT "]) {
        "error:0A00009C:SSL routines::http request"
    } else if starts(&[b"CONNE"]) {
        "error:0A00009B:SSL routines::https proxy request"
    } else {
        "error:0A00010B:SSL routines::wrong version number"
    }
}

impl<S: 'static> Greeting<S> {
    /// Brings the handshake to its end, with a certificate for this connection alone where there is one. `None`: the
    /// connection is to be closed, and the log has been told why.
    pub async fn finish<'v>(
        self,
        stream: &rt::Stream,
        identity: tls::Result<Option<Identity>>,
        log: &Log,
        visitor: impl Fn() -> Visitor<'v>,
    ) -> Option<Rc<Secured>> {
        let Greeting { chosen, tls, hello, input } = self;
        let identity = match identity {
            Ok(identity) => identity,
            Err(error) => {
                tls::refuse(stream, Alert::InternalError).await;
                visitor().log(Level::Error, format_args!("{error}"));
                return None;
            }
        };
        match tls::accept(stream, &tls.server, identity, *hello, input, Rc::new(chosen)).await {
            Ok(secured) => {
                stream.set_recv_timeout(None);
                tls.fetch_staples(log);
                if let Some(status) = &tls.status {
                    // In a box, so that those who don't ask have no room for it.
                    Box::pin(check_status(&secured, &tls, status, log, &visitor())).await;
                }
                Some(secured)
            }
            Err(error) => {
                log_failure(&visitor(), &error);
                None
            }
        }
    }
}

/// Asks whether the client's certificate, trusted otherwise, is revoked; sessions will be refused if it may be.
async fn check_status(secured: &Secured, tls: &ServerTls, status: &StatusCheck, log: &Log, visitor: &Visitor<'_>) {
    if secured.verdict() != ClientVerdict::Trusted {
        return;
    }
    let queries = tls.server.trust().map(|trust| trust.queries(secured.client_certificates(), status.whole));
    let reason = match queries {
        None => return,
        Some(Ok(queries)) => {
            let say = |level: Level, message: std::fmt::Arguments<'_>| visitor.log(level, message);
            let asker = Asker { log, connection: visitor.number, say: &say };
            status.check(&queries, &asker).await
        }
        Some(Err(reason)) => Some(reason),
    };
    secured.set_status(reason.map_or(Ok(()), Err));
}

/// Goes on with a connection that another process has left: by the server that this configuration has for its name.
/// Returns also whether a new connection could have become the same here.
pub fn resume<P: Front>(address: &Address<P>, departed: Departed) -> (ServerLayer, bool) {
    let chosen = choose(address, &departed.hello);
    let tls = tls_of(address, &chosen.server).filter(|tls| address.ssl && !tls.reject);
    // The status of certificates is asked for in a handshake, or not at all.
    let asked = |tls: &ServerTls| tls.status.is_none() || departed.was_good || !departed.has_certificates();
    let fits = tls.as_ref().is_some_and(|tls| tls.server.would_accept(&departed) && asked(tls));
    (ServerLayer::resume(departed, Rc::new(chosen), tls.as_ref().map(|tls| &tls.server)), fits)
}

/// What accepts the connections to a server: its own certificate, or else that of the address's default server.
fn tls_of<P: Front>(address: &Address<P>, server: &P::Server) -> Option<Rc<ServerTls>> {
    server.tls().or_else(|| address.default.tls()).cloned()
}

/// The server for the name of the ClientHello; the default if no server has that name.
fn choose<P: Front>(address: &Address<P>, hello: &ClientHello) -> Chosen<P::Server> {
    let found = hello.host().and_then(|name| {
        let matches = |regex: &Regex| regex.regex.is_match(&name).unwrap_or(false);
        let by_regex = || address.regexes.iter().find(|(regex, _)| matches(regex));
        let by_name = address.names.lookup(&name).map(|server| (server, None));
        by_name.or_else(|| by_regex().map(|(regex, server)| (server, Some(regex.clone()))))
    });
    match found {
        Some((server, regex)) => Chosen { server: server.clone(), named: true, regex },
        None => Chosen { server: address.default.clone(), named: false, regex: None },
    }
}

/// Why a client isn't served for its certificate.
#[derive(Clone, Copy, Debug)]
pub enum Unproved {
    /// Its certificate isn't good.
    Bad(Reason),
    /// It has shown none.
    Nobody,
}

impl VerifyClient {
    /// Whether the client's certificate is as it has to be.
    pub fn check(self, tls: &Secured) -> Result<(), Unproved> {
        match tls.verdict() {
            _ if self == VerifyClient::Off => Ok(()),
            ClientVerdict::Failed(reason) if self == VerifyClient::OptionalNoCa && reason.is_untrusted() => Ok(()),
            ClientVerdict::Failed(reason) => Err(Unproved::Bad(reason)),
            ClientVerdict::None if self == VerifyClient::On => Err(Unproved::Nobody),
            ClientVerdict::Trusted | ClientVerdict::None => Ok(()),
        }
    }
}

/// Tells the log why there is no handshake.
pub fn log_failure(visitor: &Visitor<'_>, error: &HandshakeError) {
    let doing = visitor.doing();
    let log = |message: std::fmt::Arguments<'_>| visitor.log(Level::Info, message);
    match error {
        HandshakeError::Io(error) if rt::is_closing(error) => {}
        HandshakeError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            log(format_args!("client timed out{TIMED_OUT} while {doing}"));
        }
        HandshakeError::Io(error) => {
            log(format_args!("SSL_do_handshake() failed{} while {doing}", Errno(error)));
        }
        HandshakeError::Closed => {
            log(format_args!("peer closed connection in SSL handshake while {doing}"));
        }
        HandshakeError::Tls(text) => {
            log(format_args!("SSL_do_handshake() failed (SSL: {text}) while {doing}"));
        }
    }
}
