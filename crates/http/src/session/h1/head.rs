//! The head and the framing of HTTP/1 (RFC 9112).

use std::cell::RefCell;

use buf::{Buf, Bytes};
use engine::clock;
use wire::h1::{KnownHeader, LAST_CHUNK};

use crate::config::core::ServerTokens;
use crate::request::{Ending, Request};
use crate::response::head::{self, HeadSink, server_token};
use crate::response::{Header, Headers, Response, reason};

/// Memory for a head; most fit.
const HEAD_SIZE: usize = 1024;
/// How much memory a request keeps for the next head; that is enough for one with a small body.
const MOST_KEPT: usize = 4 << 10;

/// The head of the response, with room for so many bytes after it. It takes the request's memory for that.
pub fn write(r: &mut Request, room: usize) -> Buf {
    let mut out = std::mem::replace(&mut r.head_memory, Buf::empty());
    out.reserve(HEAD_SIZE + room);
    // HTTP/0.9 has no head.
    if r.line.version != 9 && !r.response.headless {
        head::write(r, &mut Text(&mut out));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Gives back the memory of [`write()`] for the next head, unless it is large.
pub fn keep(r: &mut Request, mut memory: Buf) {
    if memory.capacity() <= MOST_KEPT {
        memory.clear();
        r.head_memory = memory;
    }
}

/// A head as text.
struct Text<'b>(&'b mut Buf);

impl Text<'_> {
    #[inline]
    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.0.extend_from_slices([name, value, b"\r\n"]);
    }
}

impl HeadSink for Text<'_> {
    fn begin(&mut self, r: &Request) {
        let response = &r.response;
        let is_usual = response.status == 200 && response.status_line.is_none();
        if !is_usual {
            status_line(r, self.0);
        }
        fixed_fields(r, is_usual, self.0);
    }

    fn common(&mut self, known: KnownHeader, value: &[u8]) {
        self.line(known.line(), value);
    }

    fn field(&mut self, known: KnownHeader, value: &[u8]) {
        self.line(known.line(), value);
    }

    fn content_type(&mut self, value: &[u8], charset: Option<&[u8]>) {
        match charset {
            Some(charset) => {
                self.0.extend_from_slices([b"Content-Type: ", value, b"; charset=", charset, b"\r\n"]);
            }
            None => self.line(b"Content-Type: ", value),
        }
    }

    fn connection(&mut self, r: &Request) {
        if r.response.chunked {
            self.0.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if r.response.status == 101 {
            self.0.extend_from_slice(b"Connection: upgrade\r\n");
        } else if r.ending != Ending::Keep {
            self.0.extend_from_slice(b"Connection: close\r\n");
        } else {
            self.0.extend_from_slice(b"Connection: keep-alive\r\n");
            if let Some(seconds) = r.keepalive_header() {
                self.line(b"Keep-Alive: timeout=", buf::number::digits(seconds, &mut [0; 20]));
            }
        }
    }

    fn other(&mut self, field: &Header) {
        self.0.extend_from_slices([&field.name, b": ", &field.value, b"\r\n"]);
    }
}

fn status_line(r: &Request, out: &mut Buf) {
    let response = &r.response;
    if let Some(line) = &response.status_line {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    match (response.status, reason(response.status)) {
        (101, _) => out.extend_from_slice(b"101 Switching Protocols"),
        (_, Some(text)) => out.extend_from_slice(text.as_bytes()),
        (status, None) => {
            let digits =
                [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
            out.extend_from_slice(&digits);
            out.extend_from_slice(b" ");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// How most heads begin.
const USUAL: &str = "HTTP/1.1 200 OK\r\n";

/// The beginning of heads for a second: the usual status line, `Server` and `Date`.
struct Fixed {
    secs: i64,
    tokens: ServerTokens,
    text: Vec<u8>,
    server_end: usize,
}

thread_local! {
    static FIXED: RefCell<Fixed> = const {
        RefCell::new(Fixed { secs: i64::MIN, tokens: ServerTokens::Off, text: Vec::new(), server_end: 0 })
    };
}

/// The fields that every response has, after the usual status line if that `is_usual`.
fn fixed_fields(r: &Request, is_usual: bool, out: &mut Buf) {
    let tokens = r.location.core.server_tokens;
    let (secs, _) = clock::now();
    FIXED.with_borrow_mut(|fixed| {
        if fixed.secs != secs || fixed.tokens != tokens {
            (fixed.secs, fixed.tokens) = (secs, tokens);
            fixed.text = format!("{USUAL}Server: {}\r\n", server_token(tokens)).into_bytes();
            fixed.server_end = fixed.text.len();
            let date = format!("Date: {}\r\n", clock::times().http_date);
            fixed.text.extend_from_slice(date.as_bytes());
        }
        let Response { own_server, own_date, .. } = r.response;
        if is_usual && !own_server && !own_date {
            return out.extend_from_slice(&fixed.text);
        }
        let (status, fields) = fixed.text.split_at(USUAL.len());
        let (server, date) = fields.split_at(fixed.server_end - USUAL.len());
        let wanted = [(is_usual, status), (!own_server, server), (!own_date, date)];
        wanted.into_iter().filter(|(wanted, _)| *wanted).for_each(|(_, text)| out.extend_from_slice(text));
    });
}

/// The chunk that ends a body, with its trailers.
pub fn last_chunk(trailers: &Headers) -> Bytes {
    if trailers.is_empty() {
        return Bytes::from_static(LAST_CHUNK);
    }
    let mut text = b"0\r\n".to_vec();
    for trailer in trailers {
        text.extend_from_slice(&trailer.name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(&trailer.value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    Bytes::from(text)
}
