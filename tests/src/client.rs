//! A plain HTTP/1 client that hides nothing: what is sent is sent byte for byte, what comes back is kept whole.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long a read may last before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and header fields, without the empty line.
    pub head: String,
    /// Header fields in their order, names in their case.
    pub fields: Vec<(String, String)>,
    /// The body, with any chunked framing taken off.
    pub body: Vec<u8>,
}

impl Response {
    /// The first field of that name, whatever its case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// All fields of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as text; bytes that aren't UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The field with a name and a password, with its line end.
pub fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {pair}\r\n")
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    /// Connects to a port of 127.0.0.1.
    pub fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("connect to port {port}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Connection { stream, ahead: Vec::new() }
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Connection {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
        self
    }

    /// Sends these bytes if the server still takes them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a GET request with a Host field and any further lines (each with its line end).
    pub fn get(&mut self, target: &str, more: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"));
        self.response()
    }

    /// Closes the sending side.
    pub fn end(&mut self) -> &mut Connection {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// Reads one response to a request whose method isn't HEAD.
    pub fn response(&mut self) -> Response {
        self.try_response(false).expect("a response comes")
    }

    /// Reads one response to a HEAD request.
    pub fn head_response(&mut self) -> Response {
        self.try_response(true).expect("a response comes")
    }

    /// Reads one response; nothing if the connection ends before its first byte.
    pub fn try_response(&mut self, to_head: bool) -> Option<Response> {
        let head = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                let rest = self.ahead.split_off(end + 4);
                let head = std::mem::replace(&mut self.ahead, rest);
                break String::from_utf8_lossy(&head[..end]).into_owned();
            }
            if !self.fill() {
                assert!(self.ahead.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.ahead));
                return None;
            }
        };
        let mut response = parse_head(head);
        if !to_head && !matches!(response.status, 100..=199 | 204 | 304) {
            response.body = self.body(&response);
        }
        Some(response)
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the server closes now, without another byte.
    pub fn closed(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Whether the server has closed it, or does so within a moment, without another byte.
    pub fn closed_soon(&mut self) -> bool {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(20)));
        let closed = matches!(self.stream.peek(&mut [0]), Ok(0));
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        closed
    }

    /// Exactly so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.fill(), "the connection ended {} bytes early", count - self.ahead.len());
        }
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// The next line with its end; less, or nothing, where the connection ends.
    pub fn line_or_end(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                return self.take(end + 1);
            }
            if !self.fill() {
                return std::mem::take(&mut self.ahead);
            }
        }
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn body(&mut self, response: &Response) -> Vec<u8> {
        if response.field("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            self.chunked()
        } else if let Some(length) = response.field("Content-Length") {
            self.take(length.parse().expect("a length is a number"))
        } else {
            self.rest()
        }
    }

    fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .unwrap_or_else(|_| panic!("a chunk's size: {line:?}"));
            if size == 0 {
                while !self.line().is_empty() {}
                return body;
            }
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n", "the end of a chunk");
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line = self.take(end + 2);
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.fill(), "a line was cut off");
        }
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.ahead.extend_from_slice(&buffer[..n]);
                true
            }
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted) => false,
            Err(e) => panic!("no answer: {e}; so far {:?}", String::from_utf8_lossy(&self.ahead)),
        }
    }
}

fn parse_head(head: String) -> Response {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    assert!(status.starts_with("HTTP/1."), "a status line: {status:?}");
    let code = status.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("a status: {status:?}"));
    let fields = lines
        .map(|l| l.split_once(':').unwrap_or_else(|| panic!("a field: {l:?}")))
        .map(|(n, v)| (n.to_string(), v.trim().to_string()))
        .collect();
    Response { status: code, fields, body: Vec::new(), head: head.clone() }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
