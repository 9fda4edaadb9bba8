//! A FastCGI application inside the test: what it was asked, and records to answer with.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Backend;

/// Standard output.
pub const STDOUT: u8 = 6;
/// Standard error.
pub const STDERR: u8 = 7;
/// The end of the request.
pub const END: u8 = 3;

/// A request as the application got it.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Whether the connection is to stay open.
    pub keep: bool,
    /// The parameters in their order.
    pub params: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How many requests came on this connection before.
    pub number: usize,
}

impl Asked {
    /// The last parameter of that name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A record.
pub fn record(kind: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    padded(kind, content.as_ref(), 0)
}

/// A record with so much padding.
pub fn padded(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("it fits").to_be_bytes();
    let mut bytes = vec![1, kind, 0, 1, high, low, padding, 0];
    bytes.extend_from_slice(content);
    bytes.extend(std::iter::repeat_n(0x50, padding.into()));
    bytes
}

/// A whole response.
pub fn whole(text: impl AsRef<[u8]>) -> Vec<u8> {
    [record(STDOUT, text), end()].concat()
}

/// What ends a response.
pub fn end() -> Vec<u8> {
    [record(STDOUT, ""), record(END, [0; 8])].concat()
}

/// Starts an application. The closure gets each request and its socket, and says whether the connection stays open.
pub fn application(answer: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Backend {
    Backend::sockets(move |mut stream, _| {
        let mut number = 0;
        while let Some(asked) = read_request(&mut stream, number) {
            if !answer(&asked, &mut stream) {
                return;
            }
            number += 1;
        }
    })
}

/// As [`application`], for one whose answers are bytes; it keeps connections as it is asked to.
pub fn answers(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Backend {
    application(move |asked, stream| stream.write_all(&answer(asked)).is_ok() && asked.keep)
}

fn read_request(stream: &mut TcpStream, number: usize) -> Option<Asked> {
    let (mut asked, mut params) = (Asked { number, ..Asked::default() }, Vec::new());
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).ok()?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let mut content = vec![0; length + usize::from(head[6])];
        stream.read_exact(&mut content).ok()?;
        content.truncate(length);
        match head[1] {
            1 => asked.keep = content[2] == 1,
            4 => params.extend(content),
            5 if length == 0 => break,
            5 => asked.body.extend(content),
            other => panic!("a record of type {other}"),
        }
    }
    let mut rest = &params[..];
    while !rest.is_empty() {
        let (name, value) = (take_length(&mut rest), take_length(&mut rest));
        let mut text = |length| {
            let (text, after) = rest.split_at(length);
            rest = after;
            String::from_utf8_lossy(text).into_owned()
        };
        let name = text(name);
        asked.params.push((name, text(value)));
    }
    Some(asked)
}

fn take_length(rest: &mut &[u8]) -> usize {
    let size = if rest[0] < 128 { 1 } else { 4 };
    let (length, after) = rest.split_at(size);
    *rest = after;
    length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) & 0x7fff_ffff
}
