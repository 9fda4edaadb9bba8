//! FastCGI 1.0: the records of a web server that asks an application, one request on a connection at a time.
//!
//! A request is a record that begins it, its parameters as a stream of records, and its body as another; an empty record
//! ends a stream. A response comes in records of standard output and of standard error, in any order, and ends with a
//! record of its own. [`Decoder`] takes them apart however they are cut.

use std::fmt;
use std::ops::Range;

use buf::{Buf, Bytes, Chain};

/// The only version there is.
const VERSION: u8 = 1;
/// The number of the request: there is one at a time.
const REQUEST: u8 = 1;
/// The length of a record's head.
const HEAD: usize = 8;
/// The most bytes in a record.
const MOST: usize = 65_535;
/// The most bytes of a body in a record, as nginx has it.
const MOST_BODY: u64 = 32 << 10;
/// What contents are padded to a multiple of.
const ALIGN: usize = 8;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The application answers; the other roles filter and authorize.
const RESPONDER: u8 = 1;
const KEEP_CONN: u8 = 1;

/// A stream of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output: head and body.
    Stdout,
    /// Standard error: what the application complains of.
    Stderr,
}

/// What one step over the input gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The input is used up.
    More,
    /// These bytes of the input belong to a stream; `last` with those that end their record.
    Data(Output, Range<usize>, bool),
    /// A stream has ended.
    Closed(Output),
    /// The request has ended. What follows belongs to no request.
    End,
}

/// What is wrong with a record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The version isn't 1.
    Version(u8),
    /// An application doesn't send such records.
    Type(u8),
    /// The record belongs to another request: the high byte of its number.
    IdHigh(u8),
    /// The same for the low byte.
    IdLow(u8),
}

impl fmt::Display for RecordError {
    /// nginx's words, which follow "upstream sent".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Version(byte) => write!(f, "unsupported FastCGI protocol version: {byte}"),
            RecordError::Type(byte) => write!(f, "invalid FastCGI record type: {byte}"),
            RecordError::IdHigh(byte) => write!(f, "unexpected FastCGI request id high byte: {byte}"),
            RecordError::IdLow(byte) => write!(f, "unexpected FastCGI request id low byte: {byte}"),
        }
    }
}

/// Takes the records of one connection apart.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    head: [u8; HEAD],
    /// How much of the head has come; all of it while the content is read.
    have: usize,
    content: usize,
    padding: usize,
}

impl Decoder {
    /// Takes one step over `input`: how many bytes it used, and what they were.
    ///
    /// Call it again with the rest until it answers [`Step::More`]. The bytes of [`Step::Data`] end where the used bytes
    /// end.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, Step), RecordError> {
        let mut at = 0;
        loop {
            if self.have < HEAD {
                match input.get(at..).and_then(<[u8]>::first_chunk) {
                    // As a rule it is there as a whole, and good.
                    Some(head) if self.have == 0 && is_good(head) => {
                        (self.head, self.have) = (*head, HEAD);
                        self.begin_content();
                        at += HEAD;
                    }
                    _ => {
                        let Some(&byte) = input.get(at) else { return Ok((at, Step::More)) };
                        self.head_byte(byte)?;
                        at += 1;
                    }
                }
                if self.have == HEAD && self.content == 0 && self.head[1] != END_REQUEST {
                    return Ok((at, Step::Closed(self.output())));
                }
                continue;
            }
            let there = input.len() - at;
            if self.content > 0 {
                let n = self.content.min(there);
                if n == 0 {
                    return Ok((at, Step::More));
                }
                self.content -= n;
                let range = at..at + n;
                at += n;
                if self.head[1] != END_REQUEST {
                    return Ok((at, Step::Data(self.output(), range, self.content == 0)));
                }
                continue;
            }
            let ends = self.head[1] == END_REQUEST;
            let n = self.padding.min(there);
            self.padding -= n;
            at += n;
            if self.padding > 0 {
                return Ok((at, Step::More));
            }
            self.have = 0;
            if ends {
                return Ok((at, Step::End));
            }
        }
    }

    fn output(&self) -> Output {
        if self.head[1] == STDERR { Output::Stderr } else { Output::Stdout }
    }

    fn head_byte(&mut self, byte: u8) -> Result<(), RecordError> {
        match self.have {
            0 if byte != VERSION => return Err(RecordError::Version(byte)),
            1 if !matches!(byte, END_REQUEST | STDOUT | STDERR) => return Err(RecordError::Type(byte)),
            2 if byte != 0 => return Err(RecordError::IdHigh(byte)),
            3 if byte != REQUEST => return Err(RecordError::IdLow(byte)),
            _ => {}
        }
        self.head[self.have] = byte;
        self.have += 1;
        if self.have == HEAD {
            self.begin_content();
        }
        Ok(())
    }

    fn begin_content(&mut self) {
        self.content = usize::from(u16::from_be_bytes([self.head[4], self.head[5]]));
        self.padding = usize::from(self.head[6]);
    }
}

/// Whether an application may send a record with this head.
fn is_good(head: &[u8; HEAD]) -> bool {
    matches!(head, [VERSION, END_REQUEST | STDOUT | STDERR, 0, REQUEST, ..])
}

/// Appends the record that begins a request; `keep`: the connection is to stay open after the response.
pub fn begin(keep: bool, out: &mut Buf) {
    out.extend_from_slice(&record_head(BEGIN_REQUEST, 8).0);
    out.extend_from_slice(&[0, RESPONDER, if keep { KEEP_CONN } else { 0 }, 0, 0, 0, 0, 0]);
}

/// Appends a parameter to the content of the stream of parameters; see [`params`].
pub fn param(name: &[u8], value: &[u8], content: &mut Vec<u8>) {
    for part in [name, value] {
        match u8::try_from(part.len()) {
            Ok(len) if len < 128 => content.push(len),
            _ => content.extend_from_slice(&(part.len() as u32 | 1 << 31).to_be_bytes()),
        }
    }
    content.extend_from_slice(name);
    content.extend_from_slice(value);
}

/// Appends the stream of parameters: as many records as it needs, and its end.
pub fn params(content: &[u8], out: &mut Buf) {
    for part in content.chunks(MOST) {
        let (head, padding) = record_head(PARAMS, part.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(part);
        out.extend_from_slice(&ZEROS[..padding]);
    }
    out.extend_from_slice(&record_head(PARAMS, 0).0);
}

/// Appends a part of the request's body, and the end of its stream if it is the `last` one.
pub fn stdin(mut part: Chain, last: bool, out: &mut Chain) {
    while !part.is_empty() {
        let mut content = part.split_to(MOST_BODY);
        let (head, padding) = record_head(STDIN, content.len() as usize);
        out.push_bytes(Bytes::copy_from(&head));
        out.append(&mut content);
        out.push_bytes(Bytes::from_static(&ZEROS[..padding]));
    }
    if last {
        out.push_bytes(Bytes::from_static(END_OF_STDIN));
    }
}

const ZEROS: &[u8; ALIGN] = &[0; ALIGN];
/// The end of a request's body.
pub const END_OF_STDIN: &[u8] = &[VERSION, STDIN, 0, REQUEST, 0, 0, 0, 0];

/// The head of a record with `len` bytes, [`MOST`] at most, and the padding after them.
fn record_head(kind: u8, len: usize) -> ([u8; HEAD], usize) {
    let padding = len.next_multiple_of(ALIGN) - len;
    let [high, low] = (len as u16).to_be_bytes();
    ([VERSION, kind, 0, REQUEST, high, low, padding as u8, 0], padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let [high, low] = (content.len() as u16).to_be_bytes();
        let mut bytes = vec![1, kind, 0, 1, high, low, padding, 0];
        bytes.extend_from_slice(content);
        bytes.extend(std::iter::repeat_n(b'P', padding.into()));
        bytes
    }

    /// What the pieces hold, as text: streams joined, ends marked.
    fn decode(pieces: [&[u8]; 2]) -> String {
        let (mut decoder, mut text, mut open) = (Decoder::default(), String::new(), None);
        for mut piece in pieces {
            loop {
                let (used, step) = match decoder.step(piece) {
                    Ok(found) => found,
                    Err(error) => return format!("{text} {error}"),
                };
                match step {
                    Step::More => {
                        assert_eq!(used, piece.len());
                        break;
                    }
                    Step::Data(output, range, last) => {
                        assert!(range.end == used && !range.is_empty());
                        if open != Some(output) {
                            text += if output == Output::Stdout { " out " } else { " err " };
                        }
                        open = Some(output).filter(|_| !last);
                        text += &String::from_utf8_lossy(&piece[range]);
                    }
                    Step::Closed(output) => text += &format!(" {output:?}."),
                    Step::End => text += " end",
                }
                piece = &piece[used..];
            }
        }
        text
    }

    #[test]
    fn responses_however_they_are_cut() {
        let end = record(END_REQUEST, &[0; 8], 0);
        for (input, expect) in [
            ([record(STDOUT, b"hello", 3), record(STDOUT, b"", 0), end.clone()].concat(), " out hello Stdout. end"),
            ([record(STDERR, b"oops", 0), record(STDOUT, b"a", 255), end.clone()].concat(), " err oops out a end"),
            ([record(STDOUT, b"", 8), record(STDERR, b"", 0)].concat(), " Stdout. Stderr."),
            ([end.clone(), record(END_REQUEST, b"", 7)].concat(), " end end"),
            (record(END_REQUEST, &[0; 20], 4), " end"),
            (b"HTTP/1.1".to_vec(), " unsupported FastCGI protocol version: 72"),
            (record(9, b"x", 0), " invalid FastCGI record type: 9"),
            (vec![1, STDOUT, 1, 1], " unexpected FastCGI request id high byte: 1"),
            (vec![1, STDOUT, 0, 2], " unexpected FastCGI request id low byte: 2"),
            (record(STDOUT, b"cut", 0)[..10].to_vec(), " out cu"),
        ] {
            for cut in 0..=input.len() {
                let (first, second) = input.split_at(cut);
                assert_eq!(decode([first, second]), expect, "cut at {cut}");
            }
        }
    }

    #[test]
    fn parameters() {
        let long = vec![b'x'; 200];
        let mut content = Vec::new();
        param(b"A", b"bc", &mut content);
        param(b"L", &long, &mut content);
        param(b"", &[b'y'; 127], &mut content);
        assert_eq!(content[..5], *b"\x01\x02Abc");
        assert_eq!(content[5..11], *b"\x01\x80\0\0\xc8L");
        assert_eq!(content[211..213], *b"\0\x7f");
        let mut out = Buf::empty();
        begin(true, &mut out);
        params(&content, &mut out);
        assert_eq!(out[..16], *b"\x01\x01\0\x01\0\x08\0\0\0\x01\x01\0\0\0\0\0");
        let padding = content.len().next_multiple_of(8) - content.len();
        assert_eq!(out[16..24], [1, PARAMS, 0, 1, 1, 84, padding as u8, 0]);
        assert_eq!(out[24..24 + content.len()], content);
        assert_eq!(out[out.len() - 8..], *b"\x01\x04\0\x01\0\0\0\0");
    }

    #[test]
    fn many_parameters_take_several_records() {
        let content = vec![b'x'; 2 * MOST + 1];
        let mut out = Buf::empty();
        params(&content, &mut out);
        let (mut at, mut sizes) = (0, Vec::new());
        while at < out.len() {
            let len = usize::from(u16::from_be_bytes([out[at + 4], out[at + 5]]));
            sizes.push(len);
            at += HEAD + len + usize::from(out[at + 6]);
        }
        assert_eq!((at, sizes), (out.len(), vec![MOST, MOST, 1, 0]));
    }

    #[test]
    fn bodies() {
        let mut out = Chain::new();
        stdin(Chain::from(Bytes::from(vec![b'x'; (MOST_BODY + 3) as usize])), true, &mut out);
        let pieces: Vec<_> = out.pieces().iter().map(buf::Piece::len).collect();
        assert_eq!(pieces, [8, MOST_BODY, 8, 3, 5, 8]);
        let mut out = Chain::new();
        stdin(Chain::new(), false, &mut out);
        assert!(out.is_empty());
    }
}
