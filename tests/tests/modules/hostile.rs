//! Backends that break the rules, whatever protocol they are spoken to in: answers that are cut anywhere, endless ones,
//! bytes after the end on a kept connection, heads that are none, answers before the request is over.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::fcgi::{self, STDERR, STDOUT};
use e2e::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, field, frame};
use e2e::{Backend, Connection, Server, Setup};

/// A protocol, as a backend speaks it.
struct Protocol {
    name: &'static str,
    /// What the names of its directives begin with.
    prefix: &'static str,
    /// Passes requests to the group `G`.
    pass: &'static str,
    /// Whether connections are kept.
    kept: bool,
    /// Reads a request, or (`head`) only its head; the number of its stream, or 0.
    read: fn(socket: &mut TcpStream, first: bool, head: bool) -> Option<u32>,
    /// A response on a stream: its head, and the rest.
    response: fn(stream: u32, body: &str) -> [Vec<u8>; 2],
    /// Heads and bodies without an end: what they begin with, and what comes again and again.
    endless_heads: fn() -> Vec<[Vec<u8>; 2]>,
    endless_body: fn() -> [Vec<u8>; 2],
    /// What begins no response.
    no_heads: fn() -> Vec<Vec<u8>>,
}

const PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "http",
        prefix: "proxy_",
        pass: "proxy_pass http://G;",
        kept: true,
        read: read_http,
        response: |_, body| plain("HTTP/1.1 200 OK\r\n", body),
        endless_heads: || vec![texts("HTTP/1.1 200 OK\r\n", "A: b\r\n"), texts("HTTP/1.1 200 ", "K")],
        endless_body: || texts("HTTP/1.1 200 OK\r\n\r\n", "x"),
        no_heads: || {
            let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(70_000));
            let heads = [
                long.as_str(),
                "HTTP/1.1 200 OK\r\nA\0: b\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
            ];
            heads.iter().map(|head| head.as_bytes().to_vec()).collect()
        },
    },
    Protocol { name: "http2", prefix: "proxy_", pass: "proxy_http_version 2; proxy_pass http://G;", ..HTTP2 },
    Protocol { name: "grpc", prefix: "grpc_", pass: "grpc_pass grpc://G;", ..HTTP2 },
    Protocol {
        name: "fastcgi",
        prefix: "fastcgi_",
        pass: "fastcgi_keep_conn on; fastcgi_pass G;",
        kept: true,
        read: read_fastcgi,
        response: |_, body| {
            let [head, rest] = plain("", body);
            [fcgi::record(STDOUT, head), [fcgi::record(STDOUT, rest), fcgi::end()].concat()]
        },
        endless_heads: || {
            let fields = fcgi::record(STDOUT, "A: b\r\n");
            vec![[Vec::new(), fields], [Vec::new(), fcgi::record(STDOUT, "")]]
        },
        endless_body: || [fcgi::record(STDOUT, "\r\n"), fcgi::record(STDOUT, "x".repeat(1000))],
        no_heads: || {
            let mut version = fcgi::whole("\r\n");
            version[0] = 9;
            let long = format!("A: {}\r\n\r\n", "b".repeat(40_000));
            vec![
                version,
                fcgi::record(99, "\r\n"),
                fcgi::end(),
                fcgi::record(STDOUT, long),
                [fcgi::record(STDERR, "wrong"), fcgi::end()].concat(),
                fcgi::whole("Status: x\r\n\r\n"),
                fcgi::whole("Content-Length: x\r\n\r\nhello"),
            ]
        },
    },
    Protocol {
        name: "uwsgi",
        prefix: "uwsgi_",
        pass: "uwsgi_pass G;",
        kept: false,
        read: read_uwsgi,
        response: |_, body| plain("HTTP/1.1 200 OK\r\n", body),
        endless_heads: || vec![texts("HTTP/1.1 200 OK\r\n", "A: b\r\n"), texts("Status: 200 ", "K")],
        endless_body: || texts("HTTP/1.1 200 OK\r\n\r\n", "x"),
        no_heads: cgi_heads,
    },
    Protocol {
        name: "scgi",
        prefix: "scgi_",
        pass: "scgi_pass G;",
        kept: false,
        read: read_scgi,
        response: |_, body| plain("Status: 200 OK\r\n", body),
        endless_heads: || vec![texts("Status: 200 OK\r\n", "A: b\r\n"), texts("Status: 200 ", "K")],
        endless_body: || texts("Status: 200 OK\r\n\r\n", "x"),
        no_heads: cgi_heads,
    },
    Protocol {
        name: "memcached",
        prefix: "memcached_",
        pass: "set $memcached_key k; memcached_pass G;",
        kept: true,
        read: |socket, _, _| read_until(socket, b"\r\n").map(|_| 0),
        response: |_, body| texts(&format!("VALUE k 0 {}\r\n", body.len()), &format!("{body}\r\nEND\r\n")),
        endless_heads: || vec![texts("VALUE k", "k"), texts("VALUE k 0 ", "1")],
        endless_body: || texts("VALUE k 0 999999999999\r\n", "x"),
        no_heads: || {
            let heads = [
                "VALUE other 0 5\r\nhello\r\nEND\r\n",
                "VALUE k 0 x\r\nhello\r\nEND\r\n",
                "VALUE k 0\r\nhello\r\nEND\r\n",
                "VALUE k 0 99999999999999999999\r\nhello\r\nEND\r\n",
                "ERROR\r\n",
                "HTTP/1.1 400 Bad Request\r\n\r\n",
                "\r\n",
            ];
            heads.iter().map(|head| head.as_bytes().to_vec()).collect()
        },
    },
];

const HTTP2: Protocol = Protocol {
    name: "",
    prefix: "",
    pass: "",
    kept: true,
    read: read_http2,
    response: |stream, body| {
        [frame(HEADERS, END_HEADERS, stream, &[OK]), frame(DATA, END_STREAM, stream, body.as_bytes())]
    },
    endless_heads: || {
        let more = frame(CONTINUATION, 0, 1, &field("a", "b"));
        vec![[frame(HEADERS, 0, 1, &[OK]), more], [Vec::new(), frame(SETTINGS, 0, 0, &[])]]
    },
    endless_body: || [frame(HEADERS, END_HEADERS, 1, &[OK]), frame(DATA, 0, 1, &[b'x'; 1000])],
    no_heads: || {
        let length = |text| frame(HEADERS, 5, 1, &[&[OK][..], &field("content-length", text)].concat());
        vec![
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            frame(HEADERS, END_HEADERS, 3, &[OK]),
            frame(DATA, END_STREAM, 1, b"hello"),
            frame(HEADERS, 5, 1, &[0xff; 20]),
            frame(HEADERS, 5, 1, &field(":status", "20")),
            length("x"),
        ]
    },
};

/// `:status: 200` in HTTP/2's static table.
const OK: u8 = 0x88;

fn texts(first: &str, second: &str) -> [Vec<u8>; 2] {
    [first.as_bytes().to_vec(), second.as_bytes().to_vec()]
}

fn plain(start: &str, body: &str) -> [Vec<u8>; 2] {
    texts(&format!("{start}Content-Length: {}\r\n\r\n", body.len()), body)
}

fn cgi_heads() -> Vec<Vec<u8>> {
    let long = format!("A: {}\r\n\r\n", "b".repeat(70_000));
    let heads = [long.as_str(), "Status: x\r\n\r\nhello", "Content-Length: x\r\n\r\nhello", "A\0: b\r\n\r\nhello"];
    heads.iter().map(|head| head.as_bytes().to_vec()).collect()
}

fn read_until(socket: &mut TcpStream, end: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(bytes)
}

fn take(socket: &mut TcpStream, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn read_http(socket: &mut TcpStream, _: bool, _: bool) -> Option<u32> {
    read_until(socket, b"\r\n\r\n").map(|_| 0)
}

fn read_http2(socket: &mut TcpStream, first: bool, head: bool) -> Option<u32> {
    if first {
        take(socket, PREFACE.len())?;
        socket.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    }
    let enough = if head { END_HEADERS } else { END_STREAM };
    loop {
        let start = take(socket, 9)?;
        take(socket, u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize)?;
        if matches!(start[3], DATA | HEADERS) && start[4] & enough != 0 {
            return Some(u32::from_be_bytes([start[5], start[6], start[7], start[8]]));
        }
    }
}

fn read_fastcgi(socket: &mut TcpStream, _: bool, head: bool) -> Option<u32> {
    let last = if head { 4 } else { 5 };
    loop {
        let start = take(socket, 8)?;
        let len = usize::from(u16::from_be_bytes([start[4], start[5]]));
        take(socket, len + usize::from(start[6]))?;
        if start[1] == last && len == 0 {
            return Some(0);
        }
    }
}

fn read_uwsgi(socket: &mut TcpStream, _: bool, _: bool) -> Option<u32> {
    let start = take(socket, 4)?;
    take(socket, usize::from(u16::from_le_bytes([start[1], start[2]]))).map(|_| 0)
}

fn read_scgi(socket: &mut TcpStream, _: bool, _: bool) -> Option<u32> {
    let mut digits = read_until(socket, b":")?;
    digits.pop();
    let len: usize = String::from_utf8(digits).ok()?.parse().ok()?;
    take(socket, len + 1).map(|_| 0)
}

/// What a backend does with a request on this stream; false: it closes the connection.
type Act = Arc<dyn Fn(&mut TcpStream, u32) -> bool + Send + Sync>;

/// A server in front of a hostile backend of each protocol, and of a good one that is asked instead.
struct Stage {
    server: Server,
    act: Arc<Mutex<(Act, bool)>>,
    backends: Vec<Backend>,
    /// The worker at the start.
    worker: String,
}

impl Stage {
    fn new() -> Stage {
        let act: Act = Arc::new(|_, _| false);
        let act = Arc::new(Mutex::new((act, false)));
        let (mut text, mut backends) = ("client_max_body_size 0;\n".to_owned(), Vec::new());
        for protocol in PROTOCOLS {
            let told = act.clone();
            let hostile = Backend::sockets(move |mut socket, _| {
                // What it writes has arrived when it has been written.
                let _ = socket.set_nodelay(true);
                let mut first = true;
                loop {
                    let head = told.lock().unwrap().1;
                    let Some(stream) = (protocol.read)(&mut socket, first, head) else { return };
                    let act = told.lock().unwrap().0.clone();
                    if !act(&mut socket, stream) {
                        return;
                    }
                    first = false;
                }
            });
            let good = Backend::sockets(move |mut socket, _| {
                let mut first = true;
                while let Some(stream) = (protocol.read)(&mut socket, first, false) {
                    first = false;
                    if socket.write_all(&(protocol.response)(stream, "good").concat()).is_err() || !protocol.kept {
                        return;
                    }
                }
            });
            let Protocol { name, prefix, pass, .. } = protocol;
            let server = format!("server 127.0.0.1:{} max_fails=0;", hostile.port);
            text += &format!(
                "upstream {name} {{ {server} server 127.0.0.1:{} backup; keepalive 4; }}
                 upstream {name}_alone {{ {server} keepalive 4; }}\n",
                good.port
            );
            let memcached = *name == "memcached";
            let invalid = if memcached { "invalid_response" } else { "invalid_header" };
            let next = format!("{prefix}next_upstream error timeout {invalid};");
            let streams = match *name {
                "grpc" | "memcached" => String::new(),
                _ => format!("{prefix}request_buffering off;"),
            };
            backends.extend([hostile, good]);
            text += &format!(
                "server {{ listen 127.0.0.1:%%PORT%%; server_name {name}; {next}
                    location / {{ {} }} location /alone {{ {} }} location /pid {{ return 200 $pid; }}
                    location /now {{ {streams} {} }} }}\n",
                pass.replace('G', name),
                pass.replace('G', &format!("{name}_alone")),
                pass.replace('G', name),
            );
        }
        let server = Setup::http(&text).start();
        let worker = server.get("/pid").text();
        Stage { server, act, backends, worker }
    }

    /// What the hostile backends do from now on, with requests of which they have read all, or (`head`) the head.
    fn act(&self, head: bool, act: impl Fn(&mut TcpStream, u32) -> bool + Send + Sync + 'static) {
        *self.act.lock().unwrap() = (Arc::new(act), head);
    }

    /// They send bytes, and leave the connection open.
    fn send(&self, bytes: Vec<u8>) {
        self.act(false, move |socket, _| socket.write_all(&bytes).is_ok());
    }

    fn ask(&self, protocol: &Protocol, path: &str) -> Outcome {
        let mut connection = self.server.connect();
        let host = protocol.name;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        Outcome::of(&connection.rest())
    }

    /// No worker was harmed, and nothing was left in the log that shouldn't be there.
    fn end(mut self) {
        assert_eq!(self.server.get("/pid").text(), self.worker, "the worker has died");
        self.server.quiet();
        drop(self.backends);
    }
}

/// What a client makes of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: u16,
    body: String,
    /// Whether the client knows it to be whole.
    whole: bool,
}

impl Outcome {
    fn of(bytes: &[u8]) -> Outcome {
        let text = String::from_utf8_lossy(bytes);
        let (head, mut rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        if !head.contains("transfer-encoding: chunked") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let whole = length.is_some_and(|length| length.parse() == Ok(rest.len()));
            return Outcome { status, body: rest.to_owned(), whole };
        }
        let (mut body, mut whole) = (String::new(), false);
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).expect("a chunk's size");
            whole = size == 0 && after == "\r\n";
            let (chunk, after) = after.split_at(size.min(after.len()));
            body += chunk;
            rest = after.strip_prefix("\r\n").unwrap_or("");
        }
        Outcome { status, body, whole }
    }

    fn whole(body: &str) -> Outcome {
        Outcome { status: 200, body: body.to_owned(), whole: true }
    }
}

#[test]
fn answers_that_are_cut_anywhere() {
    let stage = Stage::new();
    for protocol in PROTOCOLS {
        let response = (protocol.response)(1, "hello");
        let (head, bytes) = (response[0].len(), response.concat());
        for (reset, cut) in (0..bytes.len()).flat_map(|cut| [(false, cut), (true, cut)]) {
            let part = bytes[..cut].to_vec();
            stage.act(false, move |socket, _| {
                let _ = socket.write_all(&part);
                if reset {
                    let _ = rustix::net::sockopt::set_socket_linger(&*socket, Some(Duration::ZERO));
                }
                false
            });
            let outcome = stage.ask(protocol, "/");
            let label = format!("{} cut at {cut} of {}, reset: {reset}: {outcome:?}", protocol.name, bytes.len());
            let other = outcome == Outcome::whole("good");
            if cut < head && !reset {
                assert!(other, "{label}");
            } else if !other || !reset {
                // After a reset the head that was read may be lost, too.
                assert!(outcome.status == 200 || outcome.status == 0 && reset, "{label}");
                assert!("hello".starts_with(&outcome.body), "{label}");
                assert!(!outcome.whole || outcome.body == "hello", "{label}");
            }
        }
    }
    stage.end();
}

#[test]
fn bytes_after_the_end_answer_no_other_request() {
    let stage = Stage::new();
    for protocol in PROTOCOLS.iter().filter(|protocol| protocol.kept) {
        // Together with the response.
        stage.act(false, |socket, stream| {
            let bytes = [(protocol.response)(stream, "first"), (protocol.response)(stream + 2, "poison")].concat();
            socket.write_all(&bytes.concat()).is_ok()
        });
        let first = stage.ask(protocol, "/alone");
        // In HTTP/2 an answer on a stream that nobody has opened breaks the whole connection.
        let broken = protocol.name == "http2" || protocol.name == "grpc";
        assert!(first == Outcome::whole("first") || broken && !first.whole, "{}: {first:?}", protocol.name);
        stage.act(false, |socket, stream| socket.write_all(&(protocol.response)(stream, "second").concat()).is_ok());
        assert_eq!(stage.ask(protocol, "/alone"), Outcome::whole("second"), "{}", protocol.name);
        // On the idle connection.
        let (arrived, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let (written, poisoned) = channel::<()>();
        stage.act(false, move |socket, stream| {
            let _ = socket.write_all(&(protocol.response)(stream, "first").concat());
            let _ = wait.lock().unwrap().recv();
            let kept = socket.write_all(&(protocol.response)(stream + 2, "poison").concat()).is_ok();
            let _ = written.send(());
            kept
        });
        assert_eq!(stage.ask(protocol, "/alone"), Outcome::whole("first"), "{}", protocol.name);
        arrived.send(()).unwrap();
        poisoned.recv().unwrap();
        stage.act(false, |socket, stream| socket.write_all(&(protocol.response)(stream, "second").concat()).is_ok());
        for _ in 0..3 {
            assert_eq!(stage.ask(protocol, "/alone"), Outcome::whole("second"), "{}", protocol.name);
        }
    }
    stage.end();
}

/// Has the backends send without an end; tells when one can't go on.
fn endless(stage: &Stage, [first, again]: [Vec<u8>; 2]) -> Receiver<()> {
    let (over, ended): (Sender<()>, _) = channel();
    let many = again.repeat(50_000 / again.len() + 1);
    stage.act(false, move |socket, _| {
        let _ = socket.set_write_timeout(Some(Duration::from_secs(30)));
        let mut going = socket.write_all(&first).is_ok();
        while going {
            going = socket.write_all(&many).is_ok();
        }
        let _ = over.send(());
        false
    });
    ended
}

#[test]
fn answers_without_an_end() {
    let stage = Stage::new();
    let patience = Duration::from_secs(20);
    for protocol in PROTOCOLS {
        for (n, head) in (protocol.endless_heads)().into_iter().enumerate() {
            let ended = endless(&stage, head);
            assert_eq!(stage.ask(protocol, "/"), Outcome::whole("good"), "{} {n}", protocol.name);
            ended.recv_timeout(patience).unwrap_or_else(|_| panic!("{} {n}: the head goes on", protocol.name));
        }
        let ended = endless(&stage, (protocol.endless_body)());
        let mut client = stage.server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", protocol.name));
        assert!(client.take(10_000).starts_with(b"HTTP/1.1 200"), "{}", protocol.name);
        drop(client);
        ended.recv_timeout(patience).unwrap_or_else(|_| panic!("{}: the body goes on", protocol.name));
    }
    stage.end();
}

/// Differs from nginx: after 1,000 interim responses
#[test]
fn interim_answers_without_an_end() {
    let stage = Stage::new();
    let hints = || frame(HEADERS, END_HEADERS, 1, &field(":status", "103"));
    for (protocol, again) in [
        ("http", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        ("http", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".to_vec()),
        ("http2", hints()),
        ("grpc", hints()),
    ] {
        let protocol = PROTOCOLS.iter().find(|known| known.name == protocol).expect("it is one");
        let ended = endless(&stage, [Vec::new(), again]);
        assert_eq!(stage.ask(protocol, "/"), Outcome::whole("good"), "{}", protocol.name);
        ended.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("{}: it goes on", protocol.name));
    }
    stage.end();
}

#[test]
fn answers_that_are_none() {
    let stage = Stage::new();
    for protocol in PROTOCOLS {
        for bytes in (protocol.no_heads)() {
            let label = format!("{}: {:?}", protocol.name, String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
            stage.send(bytes);
            assert_eq!(stage.ask(protocol, "/alone").status, 502, "{label}");
            assert_eq!(stage.ask(protocol, "/"), Outcome::whole("good"), "{label}");
        }
    }
    stage.end();
}

#[test]
fn answers_before_the_request_is_over() {
    // More than the kernel takes for a peer that doesn't read, whose buffers may grow to 4 and 32 MiB.
    const LENGTH: usize = 40_000_000;
    let stage = Stage::new();
    for protocol in PROTOCOLS.iter().filter(|protocol| protocol.name != "memcached") {
        for (path, now) in [("/alone", false), ("/now", true)] {
            let label = format!("{} {path}", protocol.name);
            // The rest of the request isn't read, and the connection not closed before the test says so.
            let (leave, wait) = channel::<()>();
            let wait = Mutex::new(wait);
            stage.act(true, move |socket, stream| {
                let _ = socket.write_all(&(protocol.response)(stream, "early").concat());
                let _ = wait.lock().unwrap().recv();
                false
            });
            let mut client: Connection = stage.server.connect();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {LENGTH}\r\n\r\n", protocol.name));
            client.send(vec![b'b'; if now { 1000 } else { LENGTH }]);
            let response = client.response();
            assert_eq!((response.status, response.text().as_str()), (200, "early"), "{label}");
            stage.act(false, |socket, stream| {
                socket.write_all(&(protocol.response)(stream, "second").concat()).is_ok() && protocol.kept
            });
            assert_eq!(stage.ask(protocol, "/alone"), Outcome::whole("second"), "{label}");
            drop(leave);
        }
    }
    stage.end();
}
