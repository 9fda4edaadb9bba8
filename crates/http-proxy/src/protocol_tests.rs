//! A protocol that answers as gRPC does, over frames like those of HTTP/2: the body of a request waits for the peer's
//! window, windows are enlarged while a response comes, pings are answered, trailers end it, and the table of fields and
//! the numbers of streams outlive an exchange in the connection.

use std::borrow::Cow;

use super::*;
use crate::stream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const PING: u8 = 6;
const WINDOW: u8 = 8;
const LAST: u8 = 1;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8, kind, flags, stream], content].concat()
}

/// What outlives an exchange.
#[derive(Debug, PartialEq, Eq)]
struct Connection {
    next_stream: u8,
    /// How many bytes the peer takes.
    window: u64,
    /// Lines that a later head names by their number.
    table: Vec<String>,
}

struct Stub {
    connection: Connection,
    stream: u8,
    input: Vec<u8>,
    held: Chain,
    last: bool,
    answers: Vec<u8>,
    over: bool,
}

impl Stub {
    fn begin(kept: Option<Kept>) -> Stub {
        let fresh = || Box::new(Connection { next_stream: 1, window: 5, table: Vec::new() });
        let mut connection = *kept.and_then(|kept| kept.downcast().ok()).unwrap_or_else(fresh);
        let stream = connection.next_stream;
        connection.next_stream += 2;
        let (input, answers) = (Vec::new(), Vec::new());
        Stub { connection, stream, input, held: Chain::new(), last: false, answers, over: false }
    }

    /// Takes a frame of the exchange out of the input; what belongs to the connection is dealt with.
    fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        loop {
            let &[length, kind, flags, _] = self.input.first_chunk()?;
            let content = self.input.get(4..4 + usize::from(length))?.to_vec();
            self.input.drain(..4 + content.len());
            match kind {
                PING => self.answers.extend(frame(PING, ACK, 0, &content)),
                WINDOW => self.connection.window += u64::from(content[0]),
                _ => return Some((kind, flags, content)),
            }
        }
    }

    fn fields(&mut self, content: &[u8]) -> String {
        let mut text = String::new();
        for line in String::from_utf8_lossy(content).lines() {
            match line.strip_prefix('#').and_then(|number| number.parse::<usize>().ok()) {
                Some(number) => text += &self.connection.table[number],
                None => {
                    self.connection.table.push(line.to_owned());
                    text += line;
                }
            }
            text += "\r\n";
        }
        text + "\r\n"
    }

    fn send_held(&mut self, out: &mut Chain) {
        let n = self.held.len().min(self.connection.window);
        let mut part = self.held.split_to(n);
        self.connection.window -= n;
        let last = self.last && self.held.is_empty();
        if n > 0 || last {
            out.push_bytes(vec![n as u8, DATA, u8::from(last) * LAST, self.stream]);
            out.append(&mut part);
            self.last &= !last;
        }
    }
}

impl Codec for Stub {
    fn head<'r>(&mut self, request: &'r [u8], alone: bool) -> Cow<'r, [u8]> {
        frame(HEADERS, u8::from(alone) * LAST, self.stream, request).into()
    }

    fn body(&mut self, mut part: Chain, last: bool, out: &mut Chain) {
        self.held.append(&mut part);
        self.last = last;
        self.send_held(out);
    }

    fn window(&self) -> u64 {
        self.connection.window.saturating_sub(self.held.len())
    }

    fn transmits(&self) -> bool {
        true
    }

    fn transmit(&mut self, out: &mut Chain) {
        out.push_bytes(std::mem::take(&mut self.answers));
        if self.holds_back() {
            self.send_held(out);
        }
    }

    fn holds_back(&self) -> bool {
        !self.held.is_empty() || self.last
    }

    fn receive(&mut self, input: Buf) {
        self.input.extend_from_slice(&input);
    }

    fn read_head(&mut self, (bytes, parts): &mut Head) -> Result<HeadEvent, ProtocolError> {
        match self.frame() {
            None => Ok(HeadEvent::More),
            Some((HEADERS, _, content)) => {
                let text = self.fields(&content).into_bytes();
                let parsed = wire::h1::ResponseParser::of_fields().parse(&text, usize::MAX, parts);
                parsed.map_err(|error| ProtocolError::invalid(error.text(&text).to_string()))?;
                parts.status = 200;
                *bytes = Bytes::from(text);
                Ok(HeadEvent::Done(None))
            }
            Some((RESET, ..)) => Err(ProtocolError::refused("upstream refused the stream")),
            Some((kind, ..)) => Err(ProtocolError::invalid(format!("upstream sent frame {kind}"))),
        }
    }

    fn read_body(&mut self) -> Result<BodyEvent, ProtocolError> {
        if self.over {
            return Ok(BodyEvent::End(End { keep: true, extra: !self.input.is_empty() }));
        }
        match self.frame() {
            None => Ok(BodyEvent::More),
            Some((DATA, flags, content)) => {
                self.over = flags == LAST;
                // What was taken may come again.
                self.answers.extend(frame(WINDOW, 0, self.stream, &[content.len() as u8]));
                Ok(BodyEvent::Body(Bytes::from(content)))
            }
            Some((HEADERS, _, content)) => {
                self.over = true;
                let mut headers = Headers::default();
                for line in self.fields(&content).lines() {
                    if let Some((name, value)) = line.split_once(": ") {
                        headers.push(name.as_bytes().to_vec(), value.as_bytes().to_vec());
                    }
                }
                Ok(BodyEvent::Trailers(headers))
            }
            Some((kind, ..)) => Err(ProtocolError::invalid(format!("upstream sent frame {kind}"))),
        }
    }

    fn receive_end(&mut self) -> Result<(), ProtocolError> {
        Err(ProtocolError::closed())
    }

    fn keep(self: Box<Self>) -> Option<Kept> {
        Some(Box::new(self.connection))
    }
}

/// What an exchange sent and received, as the engine would see it: it gets `input` in pieces of `size` bytes.
struct Seen {
    sent: Vec<u8>,
    head: Head,
    body: Vec<u8>,
    trailers: Option<Headers>,
    end: Result<End, ProtocolError>,
}

fn bytes(chain: &mut Chain) -> Vec<u8> {
    let taken = std::mem::take(chain);
    let bytes = |piece: &buf::Piece| match piece {
        buf::Piece::Bytes(bytes) => bytes.to_vec(),
        buf::Piece::File(_) => panic!("there are no files"),
    };
    taken.pieces().iter().flat_map(bytes).collect()
}

fn run(codec: &mut dyn Codec, request: &[u8], body: &[u8], input: &[u8], size: usize) -> Seen {
    let mut seen = Seen {
        sent: Vec::new(),
        head: Head::default(),
        body: Vec::new(),
        trailers: None,
        end: Err(ProtocolError::closed()),
    };
    let mut out = Chain::from(Bytes::copy_from(&codec.head(request, body.is_empty())));
    if !body.is_empty() {
        codec.body(Chain::from(Bytes::copy_from(body)), true, &mut out);
    }
    let mut has_head = false;
    for piece in input.chunks(size) {
        seen.sent.extend(bytes(&mut out));
        let mut buf = Buf::empty();
        buf.extend_from_slice(piece);
        codec.receive(buf);
        if !has_head {
            match codec.read_head(&mut seen.head) {
                Ok(HeadEvent::Done(_)) => has_head = true,
                Ok(_) => {}
                Err(fault) => {
                    seen.end = Err(fault);
                    return seen;
                }
            }
        }
        codec.transmit(&mut out);
        if !has_head {
            continue;
        }
        loop {
            let mut part = Chain::new();
            let event = stream::read(codec, &mut part);
            seen.body.extend(bytes(&mut part));
            match event {
                Ok(BodyEvent::Trailers(trailers)) => seen.trailers = Some(trailers),
                Ok(BodyEvent::End(end)) => {
                    seen.end = Ok(end);
                    break;
                }
                Ok(_) => break,
                Err(fault) => {
                    seen.end = Err(fault);
                    break;
                }
            }
        }
        codec.transmit(&mut out);
    }
    seen.sent.extend(bytes(&mut out));
    seen
}

/// The frames of what was sent: kind, flags, stream, content.
fn frames(mut sent: &[u8]) -> Vec<(u8, u8, u8, String)> {
    let mut frames = Vec::new();
    while let Some((&[length, kind, flags, stream], rest)) = sent.split_first_chunk() {
        let (content, rest) = rest.split_at(length.into());
        frames.push((kind, flags, stream, String::from_utf8_lossy(content).into_owned()));
        sent = rest;
    }
    frames
}

fn answer(head: &str, trailers: &str) -> Vec<u8> {
    [
        frame(WINDOW, 0, 1, &[3]),
        frame(HEADERS, 0, 1, head.as_bytes()),
        frame(DATA, 0, 1, b"hel"),
        frame(PING, 0, 0, b"p"),
        frame(WINDOW, 0, 1, &[100]),
        frame(DATA, 0, 1, b"lo"),
        frame(HEADERS, LAST, 1, trailers.as_bytes()),
    ]
    .concat()
}

#[test]
fn both_ways_at_once() {
    let input = answer("a: b", "grpc-status: 0");
    for size in 1..=input.len() {
        let mut codec = Stub::begin(None);
        let seen = run(&mut codec, b"request", b"0123456789", &input, size);
        assert_eq!(seen.head.1.headers.len(), 1);
        assert_eq!((&seen.body[..], seen.end), (&b"hello"[..], Ok(End { keep: true, extra: false })), "{size}");
        let trailers = seen.trailers.expect("there are some");
        let mut status = Vec::new();
        assert!(trailers.variable("grpc_status", &mut status));
        assert_eq!(status, b"0");
        let sent = frames(&seen.sent);
        assert_eq!(sent[0], (HEADERS, 0, 1, "request".to_owned()));
        assert_eq!(sent[1], (DATA, 0, 1, "01234".to_owned()), "the window is five at first");
        let data: Vec<_> = sent.iter().filter(|frame| frame.0 == DATA).collect();
        assert_eq!(data.iter().map(|frame| frame.3.as_str()).collect::<String>(), "0123456789");
        assert_eq!(data.iter().map(|frame| frame.1).sum::<u8>(), LAST, "one of them is the last");
        assert!(sent.contains(&(PING, ACK, 0, "p".to_owned())));
        assert_eq!(sent.iter().filter(|frame| frame.0 == WINDOW).count(), 2);
        assert!(!codec.holds_back());
    }
}

#[test]
fn a_body_waits_for_the_window() {
    let mut codec = Stub::begin(None);
    let mut out = Chain::new();
    codec.body(Chain::from(Bytes::from_static(b"0123456789")), true, &mut out);
    assert_eq!(out.len(), 4 + 5);
    assert!(codec.holds_back() && codec.window() == 0);
    out.clear();
    codec.transmit(&mut out);
    assert!(out.is_empty());
}

#[test]
fn the_connection_remembers() {
    let mut codec = Box::new(Stub::begin(None));
    let first = run(&mut *codec, b"one", b"", &answer("a: long value", "grpc-status: 0"), 7);
    let kept = codec.keep().expect("the connection serves on");
    assert!(kept.is::<Connection>() && !kept.is::<Stub>());
    let mut codec = Stub::begin(Some(kept));
    let second = run(&mut codec, b"two", b"", &answer("#0", "#1"), 7);
    assert_eq!(first.head.0.as_slice(), second.head.0.as_slice());
    assert_eq!(frames(&second.sent)[0], (HEADERS, LAST, 3, "two".to_owned()), "a stream of its own");
}

#[test]
fn faults_tell_what_may_be_repeated() {
    let fault = |input: &[u8]| run(&mut Stub::begin(None), b"x", b"", input, 100).end.expect_err("it fails").fault;
    assert_eq!(fault(&frame(RESET, 0, 1, b"")), Fault::RefusedRequest);
    assert_eq!(fault(&frame(DATA, 0, 1, b"x")), Fault::InvalidResponse);
    assert_eq!(fault(b""), Fault::ShortResponse);
}
