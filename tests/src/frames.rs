//! A client of HTTP/2 that writes its frames by hand: what no real client says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub const DATA: u8 = 0;
/// A head, or trailers.
pub const HEADERS: u8 = 1;
/// The end of a stream.
pub const RST_STREAM: u8 = 3;
/// Parameters.
pub const SETTINGS: u8 = 4;
/// A question.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// More room.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a header block.
pub const CONTINUATION: u8 = 9;

/// Flag: nothing follows on the stream.
pub const END_STREAM: u8 = 1;
/// Flag: the header block is whole.
pub const END_HEADERS: u8 = 4;

/// `:method: GET` in the static table.
pub const GET: u8 = 2;
/// `:method: POST` in the static table.
pub const POST: u8 = 3;

/// The header and the payload of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: a method of the static table, `http`, a path, `:authority: a`.
pub fn request(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![0x80 | method, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'a']);
    block
}

/// A field as it is, without tables and Huffman's code; both texts are shorter than 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// A frame that was received: its kind, flags, stream, payload.
pub type Frame = (u8, u8, u32, Vec<u8>);

/// A connection.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connects to a port of 127.0.0.1 and begins.
    pub fn on(port: u16) -> Raw {
        Raw::with(port, &[])
    }

    /// The same with these SETTINGS.
    pub fn with(port: u16, settings: &[(u16, u32)]) -> Raw {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).expect("it reads");
        Raw { socket }
    }

    /// Sends bytes; false if the server has closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The next frame; none when the connection has ended.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Frames up to one of this kind, which is the last.
    pub fn until(&mut self, kind: u8) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive() {
            frames.push(frame);
            if frames.last().is_some_and(|frame| frame.0 == kind) {
                return frames;
            }
        }
        let seen: Vec<_> = frames.iter().map(|frame| (frame.0, frame.1, frame.2, frame.3.len())).collect();
        panic!("no frame of kind {kind}, but these (kind, flags, stream, length): {seen:?}");
    }

    /// The code of the GOAWAY that comes.
    pub fn go_away_code(&mut self) -> u8 {
        self.until(GOAWAY).last().expect("it was found").3[7]
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}
