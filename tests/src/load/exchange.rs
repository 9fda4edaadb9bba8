//! One connection, and one request with its answer on it: sent whole or dribbled, read at once or slowly, checked byte by
//! byte.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv, sockopt};
use rustls::ClientConnection;

use super::content::body;
use super::secure;
use super::{Loss, Target, uri};

/// How long the client waits for bytes.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long one answer may take in all.
const DEADLINE: Duration = Duration::from_secs(60);

/// The longest head of an answer.
const HEAD: usize = 16 * 1024;

/// What is asked for, and how.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `f` for a file, `b` for the backend.
    pub folder: &'static str,
    /// Seed of the answer.
    pub seed: usize,
    /// Length of the answer.
    pub length: usize,
    /// Bytes of body that are sent (seed + 1 is their seed); none makes it a GET.
    pub upload: usize,
    /// Ask for the connection's end.
    pub close: bool,
    /// How many pieces head and body are sent in (at least one), and how many the answer is read in.
    pub pieces: usize,
    /// The pause between pieces.
    pub pause: Duration,
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let method = if self.upload > 0 { "POST" } else { "GET" };
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: a\r\n", uri(self.folder, self.seed, self.length));
        if self.upload > 0 {
            head.push_str(&format!("Content-Length: {}\r\n", self.upload));
        }
        head.push_str(if self.close { "Connection: close\r\n\r\n" } else { "\r\n" });
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body(self.seed + 1, self.upload));
        bytes
    }
}

/// A loss, and the story of it.
pub(super) type Fault = (Loss, String);

/// A client's connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    secure: Option<Box<ClientConnection>>,
    ahead: Vec<u8>,
    /// Answers that came on it.
    pub answers: usize,
}

impl Link {
    /// Connects.
    pub fn open(target: &Target) -> Result<Link, Fault> {
        let stream = connect(target).map_err(|e| match e.kind() {
            ErrorKind::TimedOut => (Loss::TimedOut, format!("connect: {e}")),
            _ => (Loss::Refused, format!("connect: {e}")),
        })?;
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let _ = stream.set_nodelay(true); // A unix socket has no such option, and needs none.
        let secure = matches!(target, Target::Secure(_)).then(|| Box::new(secure::client()));
        Ok(Link { stream, secure, ahead: Vec::new(), answers: 0 })
    }

    /// The client's port, to find the connection in logs.
    pub fn port(&self) -> u16 {
        self.stream.local_addr().map_or(0, |a| a.port())
    }

    /// Whether the server has closed the connection, or said something unasked.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0u8; 1];
        match recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok(_) => true,
            Err(e) => e != rustix::io::Errno::AGAIN,
        }
    }

    /// Makes the kernel take little at a time, so that the server has to wait for a slow reader.
    pub fn small_window(&self) {
        let _ = sockopt::set_socket_recv_buffer_size(&self.stream, 8 * 1024);
    }

    /// Sends a request and reads its answer. Returns whether the connection stays open.
    pub fn exchange(&mut self, request: &Request) -> Result<bool, Fault> {
        let fresh = self.answers == 0;
        self.send(request).map_err(|e| early(&e, fresh, "sending"))?;
        let deadline = Instant::now() + DEADLINE;
        let head = self.read_head(fresh, deadline)?;
        let length = field(&head, "content-length").and_then(|v| v.parse::<usize>().ok());
        if !head.starts_with("http/1.1 200") || length != Some(request.length) {
            return Err((Loss::Wrong, format!("{}-{}: {head:?}", request.seed, request.length)));
        }
        self.read_body(request, deadline)?;
        self.answers += 1;
        let closing = field(&head, "connection").is_some_and(|v| v == "close");
        if closing || request.close {
            self.expect_end()?;
        }
        Ok(!closing && !request.close)
    }

    /// Sends these bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.secure {
            Some(secure) => rustls::Stream::new(&mut **secure, &mut self.stream).write_all(bytes),
            None => self.stream.write_all(bytes),
        }
    }

    /// Reads a head, in lower case.
    pub fn read_head(&mut self, fresh: bool, deadline: Instant) -> Result<String, Fault> {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                let head = std::mem::replace(&mut self.ahead, rest);
                return Ok(String::from_utf8_lossy(&head).to_ascii_lowercase());
            }
            let none = self.ahead.is_empty();
            match self.fill() {
                Ok(0) if none => return Err((Loss::Unanswered, format!("closed after {} answers", self.answers))),
                Ok(0) => return Err((Loss::Truncated, "in the head".into())),
                Err(e) if none => return Err(early(&e, fresh, "waiting")),
                Err(e) => return Err(late(&e, "in the head")),
                Ok(_) if self.ahead.len() > HEAD => return Err((Loss::Wrong, "no end of the head".into())),
                Ok(_) if Instant::now() > deadline => return Err((Loss::TimedOut, "in the head".into())),
                Ok(_) => {}
            }
        }
    }

    /// Takes exactly `length` bytes of those that come.
    pub fn take(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        while self.ahead.len() < length {
            let had = self.ahead.len();
            match self.fill() {
                Ok(0) => return Err((Loss::Truncated, format!("the end after {had} of {length}"))),
                Ok(_) => {}
                Err(e) => return Err(late(&e, &format!("after {had} of {length}"))),
            }
        }
        let rest = self.ahead.split_off(length);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// The server closes, and nothing comes before.
    pub fn expect_end(&mut self) -> Result<(), Fault> {
        match self.ahead.is_empty().then(|| self.fill()) {
            Some(Ok(0)) => Ok(()),
            // All of the answer is there; how its connection ends costs nobody anything.
            Some(Err(e)) if e.kind() == ErrorKind::ConnectionReset => Ok(()),
            Some(Err(e)) => Err(late(&e, "waiting for the end")),
            _ => Err((Loss::Wrong, "more than the answer".into())),
        }
    }

    fn send(&mut self, request: &Request) -> std::io::Result<()> {
        let bytes = request.bytes();
        let piece = bytes.len().div_ceil(request.pieces.max(1));
        for (number, part) in bytes.chunks(piece.max(1)).enumerate() {
            if number > 0 {
                std::thread::sleep(request.pause);
            }
            self.write(part)?;
        }
        Ok(())
    }

    fn read_body(&mut self, request: &Request, deadline: Instant) -> Result<(), Fault> {
        let expect = body(request.seed, request.length);
        let piece = request.length.div_ceil(request.pieces.max(1)).max(1);
        let mut at = 0;
        for part in expect.chunks(piece) {
            if request.pieces > 1 {
                std::thread::sleep(request.pause);
            }
            let what = |(loss, story)| (loss, format!("{}-{} at {at}: {story}", request.seed, request.length));
            let got = self.take(part.len()).map_err(what)?;
            if got != part {
                let first = got.iter().zip(part).position(|(a, b)| a != b).unwrap_or(0);
                return Err((Loss::Wrong, format!("{}-{}: byte {}", request.seed, request.length, at + first)));
            }
            at += part.len();
            if Instant::now() > deadline {
                return Err((Loss::TimedOut, format!("{}-{} at {at}", request.seed, request.length)));
            }
        }
        if !self.ahead.is_empty() {
            return Err((Loss::Wrong, format!("{}-{}: more than the answer", request.seed, request.length)));
        }
        Ok(())
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = match &mut self.secure {
            Some(secure) => rustls::Stream::new(&mut **secure, &mut self.stream).read(&mut buffer)?,
            None => self.stream.read(&mut buffer)?,
        };
        self.ahead.extend_from_slice(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// A field of a head in lower case.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A unix socket is used as a TCP stream: reading, writing and timeouts are the same calls.
fn connect(target: &Target) -> std::io::Result<TcpStream> {
    match target {
        Target::Tcp(address) | Target::Secure(address) => TcpStream::connect_timeout(address, PATIENCE),
        Target::Unix(path) => Ok(TcpStream::from(OwnedFd::from(UnixStream::connect(path)?))),
    }
}

/// What an error before the first byte of an answer is.
fn early(error: &std::io::Error, fresh: bool, when: &str) -> Fault {
    let story = format!("{when}: {error}");
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => (Loss::TimedOut, story),
        _ if fresh => (Loss::Reset, story),
        _ => (Loss::Unanswered, story),
    }
}

/// What an error within an answer is.
fn late(error: &std::io::Error, when: &str) -> Fault {
    let loss = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Loss::TimedOut,
        _ => Loss::Reset,
    };
    (loss, format!("{when}: {error}"))
}
