//! The task of a stream: from a head to a request that runs through the phases, and to the stream's end.
//!
//! A request has its first turn in the connection's task, and most need no other one.

use std::rc::Rc;

use buf::Buf;
use wire::h1::{BodyFraming, Method};
use wire::h2::{Code, Head};

use super::conf::Http2Conf;
use super::stream::{StreamHandle, StreamState};
use super::websocket::{self, Tunnel};
use crate::fault::Fault;
use crate::request::facts::ConnectionFacts;
use crate::request::{Delivery, Request};
use crate::session::client::Client;
use crate::session::connection::{Connection, Link};
use crate::session::h1::{Doing, answer, limits, log_ignored, set_server, set_server_of_refused, set_uri};
use crate::session::tls;

/// A request that has been read and hasn't had a turn.
pub(super) struct Begun {
    r: Box<Request>,
    refused: Option<Fault>,
    doing: Doing,
    running: Running,
}

impl Begun {
    /// The request of a stream, whose head's text is taken away.
    pub(super) fn new(running: Running, head: &mut Head, end_stream: bool) -> Begun {
        let http = &running.stream.shared.http;
        let mut r = Request::begin(connection(&running), http);
        http.status.requests.add(1);
        let doing = Doing::new(&http.status.writing);
        let refused = prepare(&mut r, head, end_stream).err();
        Begun { r, refused, doing, running }
    }

    /// Its first turn; what is left for later ones is a task.
    pub(super) fn serve(self) {
        let Begun { mut r, refused, doing, running } = self;
        rt::spawn_now(async move {
            let _doing = doing;
            answer(&mut r, refused).await;
            end_stream_of(&r);
            r.end();
            drop(running);
        });
    }
}

/// A stream as the connection of its request.
fn connection(running: &Running) -> Connection {
    let Running { stream, number } = running;
    Connection {
        facts: ConnectionFacts { requests: *number, ..stream.shared.facts.clone() },
        link: Link { stays: true, nodelay: true, ..Link::new(Client::Stream(StreamHandle::new(stream.clone()))) },
    }
}

/// Everything that follows from a head; an error refuses the request.
fn prepare(r: &mut Request, head: &mut Head, end_stream: bool) -> Result<(), Fault> {
    let understood = head.to_request(&limits(&r.server.core), &mut r.line);
    let length = head.content_length;
    if let Some(stream) = r.h2_stream() {
        stream.set_head_received(head.encoded);
        if r.line.method_id == Method::Connect {
            stream.set_tunnel(Tunnel::Asked);
        }
    }
    let extended = head.protocol.is_some();
    if extended && understood.is_ok() && websocket::is_meant(head) {
        websocket::begin(head, &mut r.line);
    }
    r.head = std::mem::replace(&mut head.text, Buf::empty()).freeze();
    r.method = r.line.method_id;
    if let Err(fault) = set_uri(r) {
        r.line.keep_method();
        return Err(fault);
    }
    if let Err(error) = understood {
        // The host, if it is known, chooses the server whose error pages are shown.
        set_server_of_refused(r);
        let text = error.text(&r.head);
        return Err(Fault::from(error).log_with(r, &format_args!("{text} while reading client request headers")));
    }
    log_ignored(r);
    set_server(r)?;
    if !r.conn.address.own.http2 && !r.server.set.get::<Http2Conf>().http2 {
        return Err(Fault::DisabledProtocol.log(r));
    }
    if extended && r.method == Method::Connect {
        // RFC 9220 §3.
        return Err(Fault::UnknownProtocol.log(r));
    }
    if let Err(error) = r.line.check_method(false, BodyFraming::None) {
        let text = error.text(&r.head);
        return Err(Fault::from(error).log_with(r, &format_args!("{text} while reading client request headers")));
    }
    tls::check(r)?;
    if end_stream || extended {
        // What comes after an extended CONNECT is no body: it is for whoever makes the tunnel.
        r.body.begin(length.map_or(BodyFraming::None, BodyFraming::Length), buf::Bytes::default(), false);
    } else {
        r.body.begin_stream(length, r.line.expects_continue(&r.head));
    }
    Ok(())
}

/// The response is over, or won't come: the stream ends with it.
fn end_stream_of(r: &Request) {
    let Some(stream) = r.h2_stream() else { return };
    let (shared, key) = (stream.shared(), stream.key());
    let mut protocol = shared.protocol.borrow_mut();
    // What failed may be queued to its end, and wait for windows in vain.
    if !stream.has_ended() || r.delivery != Delivery::Whole {
        // As nginx has it: what the client is to blame for, and what it is told by nothing.
        let refused = r.error_status == 408 || r.response.status == 444 || stream.has_timed_out();
        let code = match stream.tunnel() {
            // RFC 8441 §5.
            Tunnel::Made => Code::CANCEL,
            _ if refused => Code::PROTOCOL_ERROR,
            _ => Code::INTERNAL_ERROR,
        };
        protocol.reset(key, code);
    } else if protocol.is_receiving(key) {
        protocol.reset_when_sent(key, Code::NO_ERROR);
    }
}

/// Counts a request from its head to its task's end; whatever that is, the stream doesn't outlive it without one.
pub(super) struct Running {
    stream: Rc<StreamState>,
    /// The how manieth request of its connection it is.
    number: u32,
}

impl Running {
    pub(super) fn new(stream: Rc<StreamState>, number: u32) -> Running {
        let running = &stream.shared.running;
        running.set(running.get() + 1);
        Running { stream, number }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let StreamState { shared, key, .. } = &*self.stream;
        if std::thread::panicking()
            && let Ok(mut protocol) = shared.protocol.try_borrow_mut()
        {
            protocol.reset(*key, Code::INTERNAL_ERROR);
        }
        shared.running.set(shared.running.get() - 1);
        shared.remove(*key);
        shared.wake();
    }
}
