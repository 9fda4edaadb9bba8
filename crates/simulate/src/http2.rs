//! A client of HTTP/2: several requests at a time on one connection.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use buf::{Bytes, Chain};
use wire::h2::{Code, Config, Connection, Event, HeadWriter, StreamKey};
use wire::hpack::Indexing;

use crate::ask::{Ask, Method};
use crate::content::Key;
use crate::dice::Dice;
use crate::http1::MODIFIED;
use crate::plan::{Client, Pace};
use crate::response::Response;
use crate::world::World;

/// A client's side of a connection.
struct Talk<'a> {
    world: &'a World,
    connection: Connection,
    /// Requests under way, with what has come of their responses.
    open: BTreeMap<u32, (StreamKey, Ask, Option<Response>)>,
    dice: Dice,
    /// Of 100 responses so many are given up before their end.
    gives_up: u64,
}

/// Asks all it has to ask, as long as the connection serves.
pub async fn talk(world: &World, client: &mut Client, stream: &Rc<rt::Stream>) {
    let windows = [1000, 20_000, 65_535, 1 << 20];
    let mut dice = client.dice.clone();
    let config = Config {
        initial_window: dice.of(&windows),
        connection_window: dice.of(&[65_535, 1 << 20]),
        chunk_size: 8192,
        ..Config::default()
    };
    let gives_up = if world.calm { 0 } else { dice.of(&[0, 0, 20]) };
    let connection = Connection::client(Rc::new(config));
    let mut talk = Talk { world, connection, open: BTreeMap::new(), dice, gives_up };
    let mut asks = std::mem::take(&mut client.asks).into_iter();
    let mut next = asks.next();
    loop {
        while talk.open.len() < client.depth
            && let Some(ask) = &next
        {
            if !talk.ask(ask) {
                break;
            }
            next = asks.next();
        }
        if talk.open.is_empty() && (next.is_none() || talk.connection.is_going_away()) {
            return;
        }
        let size = match client.reads {
            Pace::Fast => 16384,
            Pace::Slow(size, pause) => {
                rt::sleep(pause).await;
                size as usize
            }
        };
        let read = std::future::poll_fn(|cx| {
            // What the connection hasn't taken yet goes out meanwhile. A server that takes no more may have said why.
            let _ = talk.poll_transmit(cx, stream);
            stream.poll_recv(cx, size)
        });
        match read.await {
            Ok(bytes) if !bytes.is_empty() => {
                if !talk.hear(bytes.freeze()) {
                    return talk.end();
                }
            }
            _ => return talk.end(),
        }
    }
}

impl Talk<'_> {
    /// Opens a stream for a request; false: not now.
    fn ask(&mut self, ask: &Ask) -> bool {
        // Before it knows that its settings have come, the server may refuse bodies.
        let begun = self.connection.peer_settings().max_concurrent_streams < u32::MAX;
        if ask.body.is_some() && !begun {
            return false;
        }
        let opened = self.connection.open(ask.body.is_none(), |head| write_head(head, ask));
        let Ok(key) = opened else { return false };
        self.world.tell(&format!("request {}: stream {} {} {}", ask.id, key.id(), ask.method.name(), ask.target()));
        if let Some(length) = ask.body {
            let body = Chain::from(Bytes::from(Key::Request(ask.id).bytes(0, length)));
            let _ = self.connection.send_data(key, body, true);
        }
        self.open.insert(key.id(), (key, ask.clone(), None));
        true
    }

    /// Sends what may be sent; ready when all of it is with the connection.
    fn poll_transmit(&mut self, cx: &mut Context<'_>, stream: &rt::Stream) -> Poll<io::Result<()>> {
        loop {
            // Frames are made when there is room for them: a stream that was opened late has its turn, too.
            ready!(stream.poll_send(cx, &mut Chain::new()))?;
            let Some(mut chain) = self.connection.poll_transmit(65_536) else { break };
            let _ = stream.poll_send(cx, &mut chain)?;
        }
        while self.connection.poll_drained().is_some() {}
        Poll::Ready(Ok(()))
    }

    /// Takes what has come; false if the connection is over.
    fn hear(&mut self, mut bytes: Bytes) -> bool {
        loop {
            let event = match self.connection.handle(rt::now_ms(), &mut bytes) {
                Ok(None) => return true,
                Ok(Some(event)) => event,
                Err(error) => {
                    self.world.found(format!("HTTP/2: the server broke a rule: {error:?}"));
                    return false;
                }
            };
            match event {
                Event::Response { stream, end_stream } => self.head(stream, end_stream),
                Event::Data { stream, bytes, end_stream } => self.data(stream, &bytes, end_stream),
                Event::Trailers { stream } => self.data(stream, &[], true),
                Event::BadBody { stream, missing } => {
                    self.world.found(format!("HTTP/2: stream {}: the body lacks {missing} bytes", stream.id()));
                }
                Event::Reset { stream, code, reason } => self.reset(stream, code, reason.map(|r| format!("{r:?}"))),
                Event::GoAway { last_stream, code } => {
                    self.world.tell(&format!("GOAWAY {last_stream} {code:?}"));
                    if code != Code::NO_ERROR {
                        self.world.failed(format!("GOAWAY with {code:?}"));
                    }
                    let gone = self.open.split_off(&(last_stream + 1));
                    // The server hasn't begun with them.
                    gone.into_values()
                        .filter(|_| !self.world.reloaded.get())
                        .for_each(|(_, ask, _)| self.unanswered(&ask));
                }
                Event::Request { .. } => self.world.found("HTTP/2: a request from the server"),
                Event::SettingsAcked | Event::Pong(_) => {}
            }
        }
    }

    fn head(&mut self, stream: StreamKey, end_stream: bool) {
        let head = std::mem::take(self.connection.head_mut());
        let Some((_, ask, response)) = self.open.get_mut(&stream.id()) else { return };
        if head.status < 200 {
            return;
        }
        self.world.saw(ask, head.status);
        let text = |span: wire::Span| String::from_utf8_lossy(span.of(&head.text)).into_owned();
        let fields = head.fields.iter().map(|field| (text(field.name), text(field.value).trim().to_owned())).collect();
        *response = Some(Response { status: head.status, fields, ..Response::default() });
        if end_stream {
            self.data(stream, &[], true);
        } else if self.dice.percent(self.gives_up) {
            self.world.tell(&format!("gives stream {} up", stream.id()));
            self.connection.reset(stream, Code::CANCEL);
            self.finish(stream.id());
        }
    }

    fn data(&mut self, stream: StreamKey, bytes: &[u8], end_stream: bool) {
        self.connection.release(stream, bytes.len() as u32);
        let Some((_, ask, response)) = self.open.get_mut(&stream.id()) else { return };
        let Some(response) = response else {
            return self.world.found(format!("HTTP/2: a body without a head for request {}", ask.id));
        };
        response.body.extend_from_slice(bytes);
        response.whole = end_stream;
        if end_stream {
            self.finish(stream.id());
        }
    }

    fn reset(&mut self, stream: StreamKey, code: Code, reason: Option<String>) {
        if let Some(reason) = reason {
            self.world.found(format!("HTTP/2: the server broke a rule on stream {}: {reason}", stream.id()));
        }
        self.world.tell(&format!("stream {} is reset: {code:?}", stream.id()));
        self.finish(stream.id());
    }

    /// A stream is over, whole or not.
    fn finish(&mut self, id: u32) {
        match self.open.remove(&id) {
            Some((_, ask, Some(response))) => self.world.check(&ask, &response),
            Some((_, ask, None)) => self.unanswered(&ask),
            None => {}
        }
    }

    fn unanswered(&self, ask: &Ask) {
        if ask.is_sure() {
            self.world.failed(format!("request {} wasn't answered", ask.id));
        }
    }

    /// The connection is over.
    fn end(&mut self) {
        let ids: Vec<u32> = self.open.keys().copied().collect();
        ids.into_iter().for_each(|id| self.finish(id));
    }
}

fn write_head(head: &mut HeadWriter<'_>, ask: &Ask) {
    let mut field = |name: &str, value: &str| head.field(name.as_bytes(), value.as_bytes(), Indexing::Without);
    field(":method", ask.method.name());
    field(":scheme", "http");
    field(":authority", "sim.test");
    field(":path", &ask.target());
    field("x-id", &ask.id.to_string());
    if let Some(length) = ask.body.filter(|_| !ask.chunked) {
        field("content-length", &length.to_string());
    }
    if let Some((first, last)) = ask.range {
        field("range", &format!("bytes={first}-{last}"));
    }
    if ask.gzip {
        field("accept-encoding", "gzip");
    }
    if ask.fresh {
        field("if-modified-since", MODIFIED);
    }
    debug_assert!(ask.method != Method::Post || ask.body.is_some());
}
