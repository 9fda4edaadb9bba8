//! The life of a session: what precedes it, the phases, the log.

use std::future::Future;

use buf::Buf;
use common::front::proxy;
use common::front::tls::{Unproved, greet_secure};
use common::modules::{Check, Verdict};
use engine::log::Level;

use super::{Link, StreamSession};
use crate::module::Examined;
use crate::proto::StreamProto;
use crate::ssl::HandshakeConf;

/// The client's first bytes can't be understood.
const BAD_REQUEST: u16 = 400;
/// A fault of the server, or of the client's TLS.
const INTERNAL_ERROR: u16 = 500;

/// Why the phases end early, with the session's status.
#[derive(Clone, Copy)]
struct Ended(u16);

/// Serves a session to its end.
pub async fn serve(mut s: Box<StreamSession>) {
    let _counted = s.stream.worker.sessions.count();
    s.log_plain(format_args!("{}client {} connected to {}", s.link.kind(), s.base.peer, s.address.addr));
    let prepared = prepare(&mut s).await;
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

/// Serves a session to its end that another worker has begun. It counts at once, not when it is first polled: a worker that
/// leaves ends when none counts any more.
pub(crate) fn resume<F>(s: Box<StreamSession>, rest: impl FnOnce(Box<StreamSession>) -> F) -> impl Future<Output = ()>
where
    F: Future<Output = Option<Box<StreamSession>>>,
{
    let counted = s.stream.worker.sessions.count();
    async move {
        let _counted = counted;
        end(rest(s).await).await;
    }
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

/// All phases before the content. Those that wait do so in boxes of their own: what follows lasts longer, and needs less.
async fn prepare(s: &mut StreamSession) -> Result<(), Ended> {
    if s.address.proxy_protocol {
        Box::pin(read_proxy_header(s)).await?;
    }
    let server = s.server.clone();
    s.ask(&server.handlers.post_accept)?;
    s.ask(&server.handlers.preaccess)?;
    s.ask(&server.handlers.access)?;
    if s.address.ssl {
        Box::pin(handshake(s)).await?;
    }
    if !s.server.handlers.preread.is_empty() {
        Box::pin(preread(s)).await?;
    }
    Ok(())
}

async fn read_proxy_header(s: &mut StreamSession) -> Result<(), Ended> {
    // Of datagrams it was read already.
    let Link::Stream(stream) = &s.link else { return Ok(()) };
    stream.set_recv_timeout(Some(s.server.core.proxy_protocol_timeout));
    let (header, rest) = proxy::read(stream, b"", || s.visitor()).await.ok_or(Ended(BAD_REQUEST))?;
    s.apart = stream.received().saturating_sub(rest.len() as u64);
    s.base.proxy = header.map(Box::new);
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
        greet_secure(stream, first, &address, || s.visitor()).await.ok_or(failed)?
    };
    if let Some(name) = greeting.hello.host() {
        // It is the greeting's; if a regex has the name, there are captures now too.
        s.choose_server(&name);
    }
    s.base.pending = Some(greeting.hello.server_name.clone().unwrap_or_default());
    let tls = greeting.tls.clone();
    let identity = tls.identity(s);
    s.base.pending = None;
    let log = s.log();
    let Link::Stream(stream) = &s.link else { return Err(failed) };
    let secured = greeting.finish(stream, identity, &log, || s.visitor()).await.ok_or(failed)?;
    stream.set_send_timeout(None);
    // The layer counts the session's own bytes only.
    s.apart = 0;
    let checked = s.verify_client().check(&secured);
    s.base.tls = Some(secured);
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

/// Reads the client's first bytes, for those who look at them.
async fn preread(s: &mut StreamSession) -> Result<(), Ended> {
    let core = s.server.core.clone();
    s.doing = "prereading client data";
    let most = core.preread_buffer_size;
    let mut looked = 0;
    let first = s.take_first();
    let is_done = examine(s, &mut looked, &first, most);
    // A datagram is all there is.
    if is_done || s.link.stream().is_none() {
        s.first = first;
        return Ok(());
    }
    let mut bytes = Buf::empty();
    bytes.extend_from_slice(&first);
    set_recv_timeout(s, Some(core.preread_timeout));
    loop {
        if bytes.len() >= most {
            s.log_error(format_args!("preread buffer full"));
            return Err(Ended(BAD_REQUEST));
        }
        let more = read_more(s, bytes.is_empty(), most - bytes.len()).await?;
        if bytes.is_empty() {
            bytes = more
        } else {
            bytes.extend_from_slice(&more)
        }
        if examine(s, &mut looked, &bytes, most) {
            break;
        }
    }
    s.first = bytes.freeze();
    set_recv_timeout(s, None);
    Ok(())
}

fn set_recv_timeout(s: &StreamSession, ms: Option<u64>) {
    if let Some(stream) = s.link.stream() {
        stream.set_recv_timeout(ms);
    }
}

/// Has the handlers look at the client's first bytes, but for those that have `looked`; whether all have all they want. The
/// server may change meanwhile.
fn examine(s: &mut StreamSession, looked: &mut usize, bytes: &[u8], most: usize) -> bool {
    // More may have been read than was asked for.
    let bytes = &bytes[..bytes.len().min(most)];
    loop {
        let server = s.server.clone();
        let Some(handler) = server.handlers.preread.get(*looked) else { return true };
        if bytes.is_empty() || handler.examine(s, bytes) == Examined::More {
            return false;
        }
        *looked += 1;
    }
}

/// More of the client's first bytes. As in nginx, a client that sends no more in time, or leaves, isn't a fault.
async fn read_more(s: &StreamSession, is_silent: bool, most: usize) -> Result<Buf, Ended> {
    let Link::Stream(stream) = &s.link else { return Err(Ended(BAD_REQUEST)) };
    // It is closed first if its place is needed.
    let silent = is_silent.then(|| stream.silent());
    let more = stream.recv(most).await;
    drop(silent);
    match more {
        Ok(more) if !more.is_empty() => Ok(more),
        _ => Err(Ended(200)),
    }
}
