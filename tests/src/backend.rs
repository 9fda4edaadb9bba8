//! A backend inside the test: a thread per connection, answered by a closure.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the backend got it.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Request line and header fields, without the empty line.
    pub head: String,
    /// The body, raw: chunked framing is left on.
    pub body: Vec<u8>,
}

impl Received {
    /// The first field of that name, whatever its case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1).filter_map(|l| l.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }

    /// The request line.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }
}

/// A server of the test's own. Its threads end with the test's process.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Backend {
    /// Starts a backend. The closure returns the bytes to answer with; an empty answer closes the connection. A
    /// response with `Connection: close` ends the connection too.
    pub fn start(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Backend {
        Backend::sockets(move |stream, backend| {
            let mut stream = stream;
            while let Some(request) = read_request(&mut stream) {
                backend.lock().expect("no test thread panics here").push(request.clone());
                let bytes = answer(&request);
                if bytes.is_empty() || stream.write_all(&bytes).is_err() || closes(&bytes) {
                    return;
                }
            }
        })
    }

    /// Starts a backend that gets the bare socket of each connection.
    pub fn sockets(serve: impl Fn(TcpStream, &Mutex<Vec<Received>>) + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (count, list, serve) = (connections.clone(), requests.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                let (serve, list) = (serve.clone(), list.clone());
                std::thread::spawn(move || serve(stream, &list));
            }
        });
        Backend { port, connections, requests }
    }

    /// A whole response with this body.
    pub fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().expect("no test thread panics here").clone()
    }
}

fn closes(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(bytes);
    head.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase().contains("\r\nconnection: close")
}

fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        read_more(stream, &mut bytes)?;
    };
    let mut body = bytes.split_off(end + 4);
    let request = Received { head: String::from_utf8_lossy(&bytes[..end]).into_owned(), body: Vec::new() };
    let length: usize = request.field("Content-Length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let chunked = request.field("Transfer-Encoding").is_some();
    while body.len() < length || (chunked && !body.ends_with(b"0\r\n\r\n")) {
        read_more(stream, &mut body)?;
    }
    Some(Received { body, ..request })
}

fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 65536];
    let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
    into.extend_from_slice(&buffer[..n]);
    Some(())
}
