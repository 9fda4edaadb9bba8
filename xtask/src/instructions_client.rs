//! The client of the counted requests: it sends as many as it is told to, and no byte more.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::instructions_cases::{Case, Load};
use crate::tools::Outcome;

/// How long an answer may take; the server runs under valgrind.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one case, with the connection that it keeps.
pub(crate) struct Client {
    case: Case,
    port: u16,
    kept: Option<Connection>,
    streams: Streams,
}

impl Client {
    /// It connects with the first request.
    pub(crate) fn new(case: Case, port: u16) -> Client {
        Client { case, port, kept: None, streams: Streams::default() }
    }

    /// Sends so many requests, and reads their answers.
    pub(crate) fn send(&mut self, count: usize) -> Outcome {
        self.send_all(count).map_err(|error| format!("{}: {error}", self.case.name))
    }

    fn send_all(&mut self, count: usize) -> io::Result<()> {
        let Case { path, fields, body, load, .. } = self.case;
        let request = match body {
            0 => format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"),
            _ => format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {body}\r\n{fields}\r\n{}",
                "b".repeat(body)
            ),
        };
        if load == Load::Close {
            for _ in 0..count {
                let mut connection = Connection::open(&self.case, self.port)?;
                connection.write(request.as_bytes())?;
                answer(&mut connection)?;
                connection.end()?;
            }
            return Ok(());
        }
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => Connection::open(&self.case, self.port)?,
        };
        match load {
            Load::Streams => self.streams.send(&mut connection, count)?,
            _ => {
                for _ in 0..count {
                    connection.write(request.as_bytes())?;
                    answer(&mut connection)?;
                }
            }
        }
        self.kept = Some(connection);
        Ok(())
    }
}

/// A connection: a socket, or openssl's client, which speaks TLS for us.
enum Connection {
    Plain(TcpStream),
    Tls(Child, ChildStdin, ChildStdout),
}

impl Connection {
    fn open(case: &Case, port: u16) -> io::Result<Connection> {
        if !case.tls {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            return Ok(Connection::Plain(stream));
        }
        let protocol = if case.load == Load::Streams { "h2" } else { "http/1.1" };
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-servername", "localhost", "-alpn", protocol]);
        // Not what the library likes best today: another choice is another amount of work.
        openssl.args(["-tls1_3", "-groups", "X25519", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]);
        openssl.args(["-connect", &format!("127.0.0.1:{port}")]);
        let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("openssl has no pipes"));
        };
        Ok(Connection::Tls(child, stdin, stdout))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.write_all(bytes),
            Connection::Tls(_, stdin, _) => stdin.write_all(bytes).and_then(|()| stdin.flush()),
        }
    }

    /// Appends what comes; its end is an error.
    fn read(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let mut part = vec![0; 256 << 10];
        let count = match self {
            Connection::Plain(stream) => stream.read(&mut part)?,
            Connection::Tls(_, _, stdout) => stdout.read(&mut part)?,
        };
        into.extend_from_slice(part.get(..count).unwrap_or_default());
        if count > 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Waits for the end of the connection.
    fn end(mut self) -> io::Result<()> {
        match self.read(&mut Vec::new()) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(io::Error::other("bytes after the answer")),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Connection::Tls(child, ..) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads an answer of HTTP/1, which has to be a 200.
fn answer(connection: &mut Connection) -> io::Result<()> {
    let mut data = Vec::new();
    loop {
        connection.read(&mut data)?;
        if !data.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("{}", data[..data.len().min(60)].escape_ascii())));
        }
        if is_whole(&data) {
            return Ok(());
        }
    }
}

fn is_whole(data: &[u8]) -> bool {
    let Some(end) = data.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&data[..end]).to_ascii_lowercase();
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => length.trim().parse().is_ok_and(|length: usize| data.len() >= end + 4 + length),
        None => data.ends_with(b"\r\n0\r\n\r\n"),
    }
}

/// The streams of a connection of HTTP/2.
#[derive(Default)]
struct Streams {
    opened: u32,
}

/// As many are open at a time.
const AT_ONCE: usize = 100;
/// SETTINGS without push and with large windows; and the connection's window.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x04\x3f\xff\xff\xff\
                         \x00\x00\x04\x08\x00\x00\x00\x00\x00\x3f\x00\x00\x00";
/// `:path: /1k.bin`, never indexed and in Huffman's code, as browsers send it.
const PATH: &[u8] = b"\x04\x86\x60\x3d\x57\x8c\xd5\x7f";
/// What the first request adds to the table: `:authority` and `user-agent`, which later ones name by their index.
const FIRST: &[u8] = b"\x41\x09localhost\x7a\x05xtask";
const LATER: &[u8] = b"\xbf\xbe";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

impl Streams {
    fn send(&mut self, connection: &mut Connection, count: usize) -> io::Result<()> {
        if self.opened == 0 {
            connection.write(PREFACE)?;
        }
        let mut left = count;
        while left > 0 {
            let batch = left.min(AT_ONCE);
            self.batch(connection, batch)?;
            left -= batch;
        }
        Ok(())
    }

    fn batch(&mut self, connection: &mut Connection, count: usize) -> io::Result<()> {
        let scheme = if matches!(connection, Connection::Tls(..)) { 0x87 } else { 0x86 };
        let mut out = Vec::new();
        for _ in 0..count {
            let fields = if self.opened == 0 { FIRST } else { LATER };
            let block = [&[0x82, scheme], PATH, fields].concat();
            out.extend_from_slice(&[0, 0, block.len() as u8, HEADERS, 5]);
            out.extend_from_slice(&(2 * self.opened + 1).to_be_bytes());
            out.extend_from_slice(&block);
            self.opened += 1;
        }
        connection.write(&out)?;
        let (mut data, mut left) = (Vec::new(), count);
        while left > 0 {
            connection.read(&mut data)?;
            let mut at = 0;
            while let Some((kind, flags, payload)) = frame(&data[at..]) {
                match kind {
                    HEADERS if !is_success(payload) => return Err(io::Error::other("no status 200")),
                    RST_STREAM | GOAWAY => return Err(io::Error::other(format!("a frame of kind {kind}"))),
                    SETTINGS if flags & ACK == 0 => connection.write(&[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0])?,
                    DATA | HEADERS if flags & END_STREAM != 0 => left -= 1,
                    _ => {}
                }
                at += 9 + payload.len();
            }
            data.drain(..at);
        }
        Ok(())
    }
}

/// The first frame: kind, flags and payload, if it is there.
fn frame(data: &[u8]) -> Option<(u8, u8, &[u8])> {
    let (head, rest) = data.split_first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    Some((head[3], head[4], rest.get(..length as usize)?))
}

/// Whether a block begins with `:status: 200` by its index, after changes of the table's size.
fn is_success(block: &[u8]) -> bool {
    block.iter().find(|byte| !(0x20..0x40).contains(*byte)) == Some(&0x88)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (data, expect) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"[..], false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", false),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", true),
            (b"HTTP/1.1 200 OK\r\n", false),
        ] {
            assert_eq!(is_whole(data), expect, "{}", data.escape_ascii());
        }
    }

    #[test]
    fn frames() {
        let data = b"\x00\x00\x02\x01\x04\x00\x00\x00\x01\x20\x88\x00";
        assert_eq!(frame(data), Some((1, 4, &b"\x20\x88"[..])));
        assert_eq!(frame(&data[..10]), None);
        assert!(is_success(b"\x20\x88") && !is_success(b"\x8d") && !is_success(b""));
    }
}
