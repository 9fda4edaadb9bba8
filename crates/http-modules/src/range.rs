//! Ranges (RFC 9110 §14): a part of a body, or several as `multipart/byteranges`.
//!
//! A body that is known as a whole is cut when the head is made, so a file stays a file and sendfile still sends it. A
//! body that comes in parts is cut on its way; then only one range is served.

use std::cell::Cell;
use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use conf::Result;
use http::body::BodyFilter;
use http::body::Broken;
use http::module::HttpModule;
use http::module::LocationContext;
use http::phases::{HeaderFilter, Order, Reply};
use http::request::Request;
use http::response::Body;
use http::response::range::asked_for;
use http::server::location::Handlers;
use wire::h1::KnownHeader;
use wire::range::{ByteRange, Ranges};

/// The module.
pub struct Range;

impl HttpModule for Range {
    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.set.get::<http::config::core::CoreLocation>().max_ranges > 0 {
            out.filters.push(Rc::new(Range));
        }
        Ok(())
    }
}

impl HeaderFilter for Range {
    fn order(&self) -> Order {
        Order::Range
    }

    fn apply(&self, r: &mut Request) -> std::result::Result<(), Reply> {
        let response = &r.response;
        if !response.allow_ranges || response.status != 200 || r.line.version < 1000 {
            return Ok(());
        }
        let Some(length) = response.content_length else { return Ok(()) };
        match asked_for(r, length) {
            Ranges::Ignore => {
                // What a backend's X-Accel-Redirect brought along doesn't speak of this body.
                r.response.headers.remove(KnownHeader::AcceptRanges);
                r.response.headers.add(KnownHeader::AcceptRanges, Bytes::from_static(b"bytes"));
            }
            Ranges::Unsatisfiable => {
                let value = format!("bytes */{length}").into_bytes();
                r.response.headers.set(KnownHeader::ContentRange, value);
                return Err(Reply(416));
            }
            Ranges::Satisfiable(ranges) => match ranges[..] {
                [range] => single(r, range, length),
                _ => multipart(r, &ranges, length),
            },
        }
        Ok(())
    }
}

fn single(r: &mut Request, range: ByteRange, length: u64) {
    partial(r);
    let response = &mut r.response;
    let value = format!("bytes {}-{}/{length}", range.start, range.end - 1).into_bytes();
    response.headers.add(KnownHeader::ContentRange, value);
    response.content_length = Some(range.len());
    match &mut response.body {
        Body::Chain(chain) if response.filters.is_empty() => *chain = cut(chain, range),
        Body::Empty => {}
        _ => {
            let skip = range.start.saturating_sub(response.body_offset);
            response.filters.push(Box::new(Cut { skip, left: range.len() }));
        }
    }
}

fn partial(r: &mut Request) {
    r.response.status = 206;
    r.response.status_line = None;
    r.response.headers.remove(KnownHeader::AcceptRanges);
    // A backend may have sent one with a whole body.
    r.response.headers.remove(KnownHeader::ContentRange);
}

/// The part of a chain; files stay files.
fn cut(chain: &Chain, range: ByteRange) -> Chain {
    let (mut skip, mut left) = (range.start, range.len());
    let mut out = Chain::new();
    for piece in chain.pieces() {
        if left == 0 {
            break;
        }
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let mut piece = piece.clone();
        piece.advance(std::mem::take(&mut skip));
        truncate(&mut piece, left);
        left -= piece.len();
        out.push(piece);
    }
    out
}

fn truncate(piece: &mut Piece, len: u64) {
    if piece.len() <= len {
        return;
    }
    match piece {
        Piece::Bytes(bytes) => *bytes = bytes.slice(0..len as usize),
        Piece::File(range) => range.len = len,
    }
}

/// Several ranges: each is a part with a head of its own.
fn multipart(r: &mut Request, ranges: &[ByteRange], length: u64) {
    partial(r);
    let boundary = next_boundary();
    let response = &mut r.response;
    let mut own_type = Vec::new();
    response.content_type_text(&mut own_type);
    let parts: Vec<(Bytes, ByteRange)> =
        ranges.iter().map(|&range| (part_head(boundary, &own_type, range, length).into(), range)).collect();
    let end = Bytes::from(format!("\r\n--{boundary:020}--\r\n").into_bytes());
    let heads: u64 = parts.iter().map(|(head, range)| head.len() as u64 + range.len()).sum();
    response.content_type = Some(format!("multipart/byteranges; boundary={boundary:020}").into_bytes().into());
    response.charset = None;
    response.content_length = Some(heads + end.len() as u64);
    let mut parts = Parts { parts, end, whole: Chain::new() };
    match &mut response.body {
        Body::Empty => {}
        Body::Chain(chain) if response.filters.is_empty() => {
            parts.whole = std::mem::take(chain);
            parts.append(chain);
        }
        _ => response.filters.push(Box::new(parts)),
    }
}

/// The parts of a body: their heads, and where they stand in it.
struct Parts {
    parts: Vec<(Bytes, ByteRange)>,
    end: Bytes,
    /// What there is of the body.
    whole: Chain,
}

impl Parts {
    fn append(&self, out: &mut Chain) {
        for (head, range) in &self.parts {
            out.push_bytes(head.clone());
            out.append(&mut cut(&self.whole, *range));
        }
        out.push_bytes(self.end.clone());
    }
}

/// Ranges may come in any order, so a body that filters change is gathered first.
impl BodyFilter for Parts {
    fn apply(&mut self, mut input: Chain, end: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        self.whole.append(&mut input);
        if end {
            self.append(out);
        }
        Ok(())
    }

    fn reads(&self) -> bool {
        false
    }
}

fn part_head(boundary: u64, content_type: &[u8], range: ByteRange, length: u64) -> Vec<u8> {
    let mut head = format!("\r\n--{boundary:020}\r\n").into_bytes();
    if !content_type.is_empty() {
        head.extend_from_slice(b"Content-Type: ");
        head.extend_from_slice(content_type);
        head.extend_from_slice(b"\r\n");
    }
    let place = format!("Content-Range: bytes {}-{}/{length}\r\n\r\n", range.start, range.end - 1);
    head.extend_from_slice(place.as_bytes());
    head
}

/// A number that no other response of this worker has for its boundary; it starts anywhere, so that a file can't hold
/// the boundary on purpose.
fn next_boundary() -> u64 {
    thread_local! {
        static NEXT: Cell<Option<u64>> = const { Cell::new(None) };
    }
    let number = NEXT.get().unwrap_or_else(|| {
        let mut seed = [0; 8];
        seed.copy_from_slice(&rt::random_bytes()[..8]);
        u64::from_le_bytes(seed) >> 1
    });
    NEXT.set(Some(number.wrapping_add(1)));
    number
}

/// Lets one range of a body pass that comes in parts.
struct Cut {
    skip: u64,
    left: u64,
}

impl BodyFilter for Cut {
    fn apply(&mut self, input: Chain, _: bool, _: bool, out: &mut Chain) -> std::result::Result<(), Broken> {
        let skipped = self.skip.min(input.len());
        self.skip -= skipped;
        let len = self.left.min(input.len() - skipped);
        if len > 0 {
            self.left -= len;
            out.append(&mut cut(&input, ByteRange { start: skipped, end: skipped + len }));
        }
        Ok(())
    }

    fn reads(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chain: &Chain) -> String {
        let bytes = chain.pieces().iter().map(|piece| match piece {
            Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Piece::File(_) => String::new(),
        });
        bytes.collect()
    }

    fn pieces() -> Chain {
        let mut chain = Chain::new();
        for part in ["abc", "d", "efghij"] {
            chain.push_bytes(Bytes::from_static(part.as_bytes()));
        }
        chain
    }

    #[test]
    fn cuts_at_every_byte() {
        for start in 0..10 {
            for end in start + 1..=10 {
                let range = ByteRange { start: start as u64, end: end as u64 };
                assert_eq!(text(&cut(&pieces(), range)), &"abcdefghij"[start..end]);
                let mut filter = Cut { skip: range.start, left: range.len() };
                let mut out = Chain::new();
                for part in ["ab", "cdef", "", "g", "hij"] {
                    let input = Chain::from(Bytes::from_static(part.as_bytes()));
                    assert!(filter.apply(input, false, false, &mut out).is_ok());
                }
                assert_eq!(text(&out), &"abcdefghij"[start..end]);
            }
        }
    }

    #[test]
    fn heads_of_parts() {
        let range = ByteRange { start: 1, end: 3 };
        let head = part_head(7, b"text/html", range, 10);
        let expect = "\r\n--00000000000000000007\r\nContent-Type: text/html\r\nContent-Range: bytes 1-2/10\r\n\r\n";
        assert_eq!(head, expect.as_bytes());
    }
}
