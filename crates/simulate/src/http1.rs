//! A client of HTTP/1: requests one after the other or in pipelines, responses read byte by byte.

use std::rc::Rc;

use buf::{Bytes, Chain};

use crate::ask::{Ask, Place};
use crate::content::Key;
use crate::plan::{Client, Pace};
use crate::response::{Framing, Response};
use crate::world::World;

/// Asks all it has to ask, as long as the connection serves.
pub async fn talk(world: &World, client: &mut Client, stream: &Rc<rt::Stream>) {
    let mut reader = Reader { stream, pace: client.reads, have: Vec::new(), ended: false };
    let asks = std::mem::take(&mut client.asks);
    for (n, batch) in asks.chunks(client.depth).enumerate() {
        let write = write_all(world, client, stream, batch);
        let (_, goes_on) = rt::join(write, read_all(world, &mut reader, batch, n == 0)).await;
        if !goes_on {
            return;
        }
    }
    if !reader.have.is_empty() {
        world.found(format!("bytes that nobody asked for: {:?}", reader.have.escape_ascii().to_string()));
    }
}

/// Sends the requests.
async fn write_all(world: &World, client: &mut Client, stream: &rt::Stream, batch: &[Ask]) {
    for ask in batch {
        let mut bytes = head(ask).into_bytes();
        let body = ask.body.map(|length| body(ask, length, &mut client.dice)).unwrap_or_default();
        world.tell(&format!("request {}: {} {}", ask.id, ask.method.name(), ask.target()));
        if ask.expects && ask.body.is_some() {
            if !write(client, stream, bytes).await {
                return;
            }
            // Whoever gets no 100 Continue sends the body after a while.
            rt::sleep(client.dice.below(50)).await;
            bytes = body;
        } else {
            bytes.extend(body);
        }
        if !write(client, stream, bytes).await {
            return;
        }
    }
}

/// Sends bytes at the client's pace; false if that failed.
async fn write(client: &mut Client, stream: &rt::Stream, bytes: Vec<u8>) -> bool {
    let Pace::Slow(size, pause) = client.writes else {
        return stream.send_all(Chain::from(Bytes::from(bytes))).await.is_ok();
    };
    // Slow, but not without end.
    let size = size.max(bytes.len() as u64 / 20);
    for part in bytes.chunks(size as usize) {
        if stream.send_all(Chain::from(Bytes::copy_from(part))).await.is_err() {
            return false;
        }
        rt::sleep(client.dice.below(pause + 1)).await;
    }
    true
}

fn head(ask: &Ask) -> String {
    let version = if ask.old { "1.0" } else { "1.1" };
    let mut head =
        format!("{} {} HTTP/{version}\r\nHost: sim.test\r\nX-Id: {}\r\n", ask.method.name(), ask.target(), ask.id);
    match ask.body {
        Some(_) if ask.chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
        None => {}
    }
    if ask.expects && ask.body.is_some() {
        head.push_str("Expect: 100-continue\r\n");
    }
    if let Some((first, last)) = ask.range {
        head.push_str(&format!("Range: bytes={first}-{last}\r\n"));
    }
    if ask.gzip {
        head.push_str("Accept-Encoding: gzip\r\n");
    }
    if ask.fresh {
        head.push_str(&format!("If-Modified-Since: {MODIFIED}\r\n"));
    }
    if let Place::Tunnel(_) = ask.place {
        head.push_str("Connection: Upgrade\r\nUpgrade: echo\r\n");
    }
    if ask.last {
        head.push_str("Connection: close\r\n");
    }
    head + "\r\n"
}

/// When all files were changed last.
pub(crate) const MODIFIED: &str = "Sat, 08 Sep 2001 01:46:40 GMT";

fn body(ask: &Ask, length: u64, dice: &mut crate::dice::Dice) -> Vec<u8> {
    let content = Key::Request(ask.id).bytes(0, length);
    if ask.chunked { chunks(&content, dice) } else { content }
}

/// Bytes in chunks.
pub fn chunks(content: &[u8], dice: &mut crate::dice::Dice) -> Vec<u8> {
    let (mut rest, mut bytes) = (content, Vec::with_capacity(content.len() + 100));
    while !rest.is_empty() {
        let length = dice.between(1, 9000).max(content.len() as u64 / 50).min(rest.len() as u64) as usize;
        bytes.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        bytes.extend_from_slice(&rest[..length]);
        bytes.extend_from_slice(b"\r\n");
        rest = &rest[length..];
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Reads the responses to all of them; whether the connection serves more. `new`: they are the first ones on it.
async fn read_all(world: &World, reader: &mut Reader<'_>, batch: &[Ask], new: bool) -> bool {
    for (n, ask) in batch.iter().enumerate() {
        match reader.response(world, ask).await {
            Ok(Some(response)) => {
                world.check(ask, &response);
                if !response.whole {
                    return false;
                }
                if !response.keeps_alive() {
                    reader.expect_end(world, ask).await;
                    return false;
                }
            }
            Ok(None) => {
                // Between two requests a connection may be closed.
                let may_be_closed = world.reloaded.get() && !(new && n == 0);
                if ask.is_sure() && !may_be_closed {
                    world.failed(format!("request {} wasn't answered", ask.id));
                }
                return false;
            }
            Err(what) => {
                world.found(format!("the response to request {} ({:?}): {what}", ask.id, ask.place));
                return false;
            }
        }
    }
    true
}

/// The bytes that come.
pub struct Reader<'a> {
    stream: &'a rt::Stream,
    pace: Pace,
    have: Vec<u8>,
    ended: bool,
}

impl<'a> Reader<'a> {
    /// Of this connection.
    pub fn new(stream: &'a rt::Stream) -> Reader<'a> {
        Reader { stream, pace: Pace::Fast, have: Vec::new(), ended: false }
    }

    /// Reads more; false at the end or a failure.
    async fn more(&mut self) -> bool {
        let size = match self.pace {
            Pace::Fast => 16384,
            Pace::Slow(size, pause) => {
                rt::sleep(pause).await;
                size as usize
            }
        };
        match self.stream.recv(size).await {
            Ok(bytes) if !bytes.is_empty() => {
                self.have.extend_from_slice(&bytes);
                true
            }
            Ok(_) => {
                self.ended = true;
                false
            }
            Err(_) => false,
        }
    }

    /// Bytes up to and with `end`; `None` if the connection ends before.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut from = 0;
        loop {
            if let Some(at) = self.have[from..].windows(end.len()).position(|bytes| bytes == end) {
                return Some(self.have.drain(..from + at + end.len()).collect());
            }
            from = self.have.len().saturating_sub(end.len() - 1);
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next `length` bytes, or what there is of them.
    pub async fn take(&mut self, length: usize, into: &mut Vec<u8>) -> bool {
        let mut left = length;
        loop {
            let n = left.min(self.have.len());
            into.extend(self.have.drain(..n));
            left -= n;
            if left == 0 {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    /// Whether nothing of a message has come.
    pub fn is_empty(&self) -> bool {
        self.have.is_empty()
    }

    /// The response to a request, as far as it comes; `None` if the connection ends first.
    async fn response(&mut self, world: &World, ask: &Ask) -> Result<Option<Response>, String> {
        loop {
            let Some(head) = self.until(b"\r\n\r\n").await else {
                return Ok(None);
            };
            let mut response = Response::parse(&head[..head.len() - 4])?;
            let framing = response.framing(ask.method)?;
            let tunnel =
                if let (Place::Tunnel(length), 101) = (ask.place, response.status) { Some(length) } else { None };
            if response.status < 200 && tunnel.is_none() {
                continue;
            }
            world.saw(ask, response.status);
            if let Some(length) = tunnel {
                self.tunnel(ask, length, &mut response).await;
                return Ok(Some(response));
            }
            self.body(framing, &mut response).await?;
            return Ok(Some(response));
        }
    }

    /// Sends bytes through a tunnel, reads them back, and ends.
    async fn tunnel(&mut self, ask: &Ask, length: u64, response: &mut Response) {
        let stream = self.stream;
        let bytes = Chain::from(Bytes::from(Key::Request(ask.id).bytes(0, length)));
        let read = self.take(length as usize, &mut response.body);
        let (_, whole) = rt::join(stream.send_all(bytes), read).await;
        let _ = stream.shutdown_write();
        while whole && self.more().await {}
        response.whole = whole;
    }

    async fn body(&mut self, framing: Framing, response: &mut Response) -> Result<(), String> {
        match framing {
            Framing::None => response.whole = true,
            Framing::Length(length) => {
                response.whole = self.take(length as usize, &mut response.body).await;
            }
            Framing::Close => {
                while self.more().await {}
                response.body.append(&mut self.have);
                (response.whole, response.ended_by_close) = (self.ended, true);
                if response.keeps_alive() {
                    return Err("a body without length that keeps the connection alive".into());
                }
            }
            Framing::Chunked => response.whole = self.chunks(&mut response.body).await?,
        }
        Ok(())
    }

    /// A body in chunks; whether its end came.
    pub async fn chunks(&mut self, into: &mut Vec<u8>) -> Result<bool, String> {
        loop {
            let Some(line) = self.until(b"\r\n").await else { return Ok(false) };
            let text = std::str::from_utf8(&line[..line.len() - 2]).unwrap_or("?");
            let length = usize::from_str_radix(text, 16).map_err(|_| format!("the chunk size {text:?}"))?;
            if length > 0 && !self.take(length, into).await {
                return Ok(false);
            }
            let Some(end) = self.until(b"\r\n").await else { return Ok(false) };
            if end != b"\r\n" {
                return Err(format!("{:?} after a chunk", end.escape_ascii().to_string()));
            }
            if length == 0 {
                return Ok(true);
            }
        }
    }

    /// After a response that is the last one nothing comes but the end.
    async fn expect_end(&mut self, world: &World, ask: &Ask) {
        if self.have.is_empty() && !self.ended {
            self.more().await;
        }
        if !self.have.is_empty() {
            let bytes = self.have.escape_ascii().to_string();
            world.found(format!("after the last response, to request {}: {bytes:?}", ask.id));
        }
    }
}
