//! The life of a session: what precedes it, the phases, the log.

use std::future::Future;
use std::rc::Rc;

use buf::Buf;
use common::front::proxy;
use common::front::tls::{Greeted, Unproved, greet};
use common::modules::{Check, Verdict};
use engine::log::Level;

use super::{Link, StreamSession};
use crate::module::Examined;
use crate::proto::StreamProto;
use crate::server::Stream;
use crate::ssl::HandshakeConf;

/// The client's first bytes can't be understood.
const BAD_REQUEST: u16 = 400;
/// A fault of the server, or of the client's TLS.
const INTERNAL_ERROR: u16 = 500;

/// Why the phases end early, with the session's status.
struct Ended(u16);

/// Counts a session while it is served.
struct Counted(Rc<Stream>);

impl Counted {
    fn new(stream: &Rc<Stream>) -> Counted {
        let sessions = &stream.worker.sessions;
        sessions.set(sessions.get() + 1);
        Counted(stream.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let sessions = &self.0.worker.sessions;
        sessions.set(sessions.get() - 1);
    }
}

/// Serves a session to its end.
pub async fn serve(mut s: Box<StreamSession>) {
    let _counted = Counted::new(&s.stream);
    s.log_plain(format_args!("{}client {} connected to {}", s.link.kind(), s.peer, s.address.addr));
    // In a box of its own: what follows lasts longer, and needs less.
    let prepared = Box::pin(prepare(&mut s)).await;
    let content = s.server.handlers.content.clone();
    let served = match (prepared, &content) {
        (Ok(()), Some(content)) => {
            s.doing = "";
            content.serve(s).await
        }
        (Ok(()), None) => {
            s.status = INTERNAL_ERROR;
            Some(s)
        }
        (Err(Ended(status)), _) => {
            s.status = status;
            Some(s)
        }
    };
    end(served).await;
}

/// Serves a session to its end that another worker has begun.
pub(crate) async fn resume<F>(s: Box<StreamSession>, rest: impl FnOnce(Box<StreamSession>) -> F)
where
    F: Future<Output = Option<Box<StreamSession>>>,
{
    let _counted = Counted::new(&s.stream);
    end(rest(s).await).await;
}

/// A session is over, unless it goes on elsewhere.
async fn end(session: Option<Box<StreamSession>>) {
    let Some(mut s) = session else { return };
    let server = s.server.clone();
    for log in &server.handlers.log {
        log.log(&mut s);
    }
    s.close().await;
}

impl StreamSession {
    /// Asks checks one after the other.
    fn ask<'a>(&mut self, checks: impl IntoIterator<Item = &'a Box<dyn Check<StreamProto>>>) -> Result<(), Ended> {
        for check in checks {
            match check.check(self) {
                Verdict::Next => {}
                Verdict::Allow => break,
                Verdict::Refuse(status) => return Err(Ended(status)),
            }
        }
        Ok(())
    }
}

/// All phases before the content.
async fn prepare(s: &mut StreamSession) -> Result<(), Ended> {
    if s.address.proxy_protocol {
        read_proxy_header(s).await?;
    }
    let server = s.server.clone();
    s.ask(&server.handlers.post_accept)?;
    s.ask(&server.handlers.preaccess)?;
    s.ask(&server.handlers.access)?;
    if s.address.ssl {
        Box::pin(handshake(s)).await?;
    }
    preread(s).await
}

async fn read_proxy_header(s: &mut StreamSession) -> Result<(), Ended> {
    // Of datagrams it was read already.
    let Link::Stream(stream) = &s.link else { return Ok(()) };
    stream.set_recv_timeout(Some(s.server.core.proxy_protocol_timeout));
    let (header, rest) = proxy::read(stream, b"", || s.visitor()).await.ok_or(Ended(BAD_REQUEST))?;
    s.apart = stream.received().saturating_sub(rest.len() as u64);
    s.proxy = header.map(Box::new);
    s.first = rest;
    Ok(())
}

async fn handshake(s: &mut StreamSession) -> Result<(), Ended> {
    let failed = Ended(INTERNAL_ERROR);
    let address = s.address.clone();
    let timeout_ms = s.server.set.get::<HandshakeConf>().ssl_handshake_timeout;
    let first = s.take_first();
    let greeting = {
        let Link::Stream(stream) = &s.link else { return Err(failed) };
        stream.set_recv_timeout(Some(timeout_ms));
        stream.set_send_timeout(Some(timeout_ms));
        match greet(stream, first, &address, || s.visitor()).await {
            Some(Greeted::Hello(greeting)) => greeting,
            Some(Greeted::Plain(_)) => {
                let message = "SSL_do_handshake() failed (SSL: error:0A0000F7:SSL routines::unknown protocol)";
                s.visitor().log(Level::Info, format_args!("{message} while SSL handshaking"));
                return Err(failed);
            }
            None => return Err(failed),
        }
    };
    if let Some(name) = greeting.hello.host() {
        s.choose_server(&name);
    }
    s.server = greeting.server.clone();
    s.pending = Some(greeting.hello.server_name.clone().unwrap_or_default());
    let tls = greeting.tls.clone();
    let identity = tls.identity(s);
    s.pending = None;
    let log = s.log();
    let Link::Stream(stream) = &s.link else { return Err(failed) };
    let secured = greeting.finish(stream, identity, &log, || s.visitor()).await.ok_or(failed)?;
    stream.set_send_timeout(None);
    // The layer counts the session's own bytes only.
    s.apart = 0;
    let checked = s.verify_client().check(&secured);
    s.tls = Some(secured);
    s.doing = "SSL handshaking";
    if let Err(unproved) = checked {
        let why = match unproved {
            Unproved::Bad(reason) => format!("client SSL certificate verify error: {reason}"),
            Unproved::Nobody => "client sent no required SSL certificate".to_owned(),
        };
        s.log_at(Level::Info, format_args!("{why}"));
        return Err(Ended(INTERNAL_ERROR));
    }
    Ok(())
}

/// Reads the client's first bytes, if something looks at them.
async fn preread(s: &mut StreamSession) -> Result<(), Ended> {
    let mut server = s.server.clone();
    if server.handlers.preread.is_empty() {
        return Ok(());
    }
    s.doing = "prereading client data";
    let most = server.core.preread_buffer_size;
    if let Link::Stream(stream) = &s.link {
        stream.set_recv_timeout(Some(server.core.preread_timeout));
    }
    let mut at = 0;
    loop {
        while let Some(handler) = server.handlers.preread.get(at).filter(|_| !s.first.is_empty()) {
            // More may have been read than was asked for.
            let bytes = s.first.slice(0..s.first.len().min(most));
            if handler.examine(s, &bytes) == Examined::More {
                break;
            }
            at += 1;
            server.clone_from(&s.server);
        }
        // A datagram is all there is.
        if at >= server.handlers.preread.len() || s.link.stream().is_none() {
            break;
        }
        if s.first.len() >= most {
            s.log_error(format_args!("preread buffer full"));
            return Err(Ended(BAD_REQUEST));
        }
        let more = read_more(s, most - s.first.len()).await?;
        s.push_first(&more);
    }
    if let Link::Stream(stream) = &s.link {
        stream.set_recv_timeout(None);
    }
    Ok(())
}

/// More of the client's first bytes. As in nginx, a client that sends no more in time, or leaves, isn't a fault.
async fn read_more(s: &StreamSession, most: usize) -> Result<Buf, Ended> {
    let Link::Stream(stream) = &s.link else { return Err(Ended(BAD_REQUEST)) };
    if s.first.is_empty() {
        // A client that says nothing is closed first if its place is needed.
        stream.set_silent();
    }
    let more = stream.recv(most).await;
    stream.set_idle(false);
    match more {
        Ok(more) if !more.is_empty() => Ok(more),
        _ => Err(Ended(200)),
    }
}
