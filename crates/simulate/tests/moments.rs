//! What happens when a client says something in the very moment in which its time is over or its place is needed, and what
//! happens when it says nothing: moments that sockets of the system don't hit.

use std::rc::Rc;

use engine::Cycle;
use os::SockAddr;
use rt::sim::Faults;
use rt::{ConnectOptions, Stream};
use simulate::server;
use tempfile::TempDir;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// Runs a test against a server with this configuration, in a network without faults in which bytes are under way for a
/// millisecond.
fn run(name: &str, http: &str, test: impl AsyncFnOnce(Rc<Cycle>)) {
    let folder = TempDir::with_prefix(format!("simulate-{name}-")).expect("temporary files can be made");
    let http = http.replace("%%DIR%%", &folder.path().display().to_string());
    let text = format!("error_log memory:1m info; events {{}} http {{ access_log off; {http} }}");
    let cycle = server::load(folder.path(), text, None).expect("the configuration is valid");
    let runtime = server::runtime(&cycle, 1).expect("a simulation needs nothing");
    runtime.block_on(async {
        rt::sim::set_faults(Faults { latency_ms: (1, 1), short_reads: 0, short_writes: 0, ..Faults::default() });
        let _server = server::start(&cycle);
        rt::sleep(1).await;
        test(cycle.clone()).await;
    });
}

fn addr(text: &str) -> SockAddr {
    text.parse::<std::net::SocketAddr>().expect("an address").into()
}

async fn connect(to: &str) -> Stream {
    Stream::connect(&addr(to), &ConnectOptions::default(), 1000).await.expect("the server listens")
}

async fn send(stream: &Stream, bytes: &[u8]) {
    stream.send_all(buf::Bytes::copy_from(bytes).into()).await.expect("the server is there");
}

/// A request for a path, as HEADERS of a stream.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let block = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 1, b'a']].concat();
    [&[0, 0, block.len() as u8, 1, 5][..], &stream.to_be_bytes(), &block].concat()
}

/// The frames that come until a stream has its end or the connection ends: kind, stream, payload.
async fn frames(stream: &Stream, until: u32) -> Vec<(u8, u32, Vec<u8>)> {
    let (mut input, mut frames) = (Vec::new(), Vec::new());
    stream.set_recv_timeout(Some(5000));
    loop {
        while let [_, high, low, kind, flags, a, b, c, d, rest @ ..] = &input[..] {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if rest.len() < length {
                break;
            }
            let id = u32::from_be_bytes([*a, *b, *c, *d]);
            frames.push((*kind, id, rest[..length].to_vec()));
            let ends = id == until && (*kind == RST_STREAM || (*kind == DATA && flags & 1 == 1));
            input.drain(..9 + length);
            if ends {
                return frames;
            }
        }
        match stream.recv(16_384).await {
            Ok(more) if !more.is_empty() => input.extend_from_slice(&more),
            _ => return frames,
        }
    }
}

/// The request was reset, and no GOAWAY told the client that it could ask again.
#[test]
fn requests_of_the_last_moment_are_served_or_not_counted() {
    let http = "http2 on; keepalive_timeout 1s; client_header_timeout 2s;
        server { listen 10.0.0.1:80; location / { proxy_pass http://10.0.1.1:8000; } location /here { return 200 ok; } }";
    run("last", http, async |_| {
        let backend = rt::sim::listen(addr("10.0.1.1:8000"));
        rt::spawn(async move {
            while let Ok((stream, _)) = backend.accept().await {
                let _ = stream.recv(4096).await;
                send(&stream, b"HTTP/1.0 200 OK\r\n\r\nlate").await;
            }
        });
        // What is sent here arrives in the same turn of the loop as what is sent to the server after it, and is heard first.
        let listener = rt::sim::listen(addr("10.0.9.9:1"));
        let bell = connect("10.0.9.9:1").await;
        let hearing = listener.accept().await.expect("it was connected to").0;
        rt::spawn(async move {
            while hearing.recv(1).await.is_ok_and(|bytes| !bytes.is_empty()) {
                rt::close_idle();
            }
        });
        let mut served = [0; 4];
        for moment in 0..80 {
            let (way, offset) = (moment % 4, moment / 4);
            let stream = connect("10.0.0.1:80").await;
            // Before the first request there is the time for a head.
            let time = if way == 3 { 2000 } else { 1000 };
            let first = if way == 3 { vec![] } else { get(1, "/here") };
            send(&stream, &[PREFACE, &first].concat()).await;
            let begun = rt::now_ms();
            if way != 3 {
                assert_eq!(frames(&stream, 1).await.last().map(|frame| frame.2.clone()), Some(b"ok".to_vec()));
            }
            let request = get(3, "/");
            let (head, rest) = request.split_at(if way == 1 { 12 } else { request.len() });
            if way == 2 {
                // Its place is needed.
                rt::sleep(10).await;
                send(&bell, b"!").await;
                send(&stream, head).await;
                if offset % 2 == 1 {
                    rt::close_idle();
                }
            } else {
                rt::sleep_until(begun + time - 10 + offset).await;
                send(&stream, head).await;
            }
            if way == 1 {
                rt::sleep(500).await;
                let _ = stream.send_all(buf::Bytes::copy_from(rest).into()).await;
            }
            let frames = frames(&stream, 3).await;
            let goaway = frames.iter().find(|frame| frame.0 == GOAWAY);
            let is_counted = goaway.is_none_or(|frame| frame.2[..4] == [0, 0, 0, 3]);
            let is_served = frames.last().is_some_and(|(kind, id, _)| (*kind, *id) == (DATA, 3));
            assert_eq!(is_served, is_counted, "{way} {offset}: {frames:?}");
            served[way as usize] += u32::from(is_served);
        }
        // Some come in time, and some too late.
        assert!(served.iter().all(|&n| n > 0), "{served:?}");
        assert!(served.iter().all(|&n| n < 20), "{served:?}");
    });
}

/// Such connections stayed for ever.
#[test]
fn after_the_proxy_protocol_a_preface_is_not_waited_for_without_end() {
    let http = "http2 on; client_header_timeout 3s; server { listen 10.0.0.1:80 proxy_protocol; }";
    for said in ["", "P", "PRI * HT"] {
        run("preface", http, async |cycle| {
            let stream = connect("10.0.0.1:80").await;
            send(&stream, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await;
            rt::sleep(10).await;
            send(&stream, said.as_bytes()).await;
            rt::sleep(1000).await;
            assert_eq!(rt::inspect::endless_waits(), [], "after \"{said}\"");
            stream.set_recv_timeout(Some(5000));
            let end = stream.recv(100).await;
            assert!(end.is_ok_and(|bytes| bytes.is_empty()), "it is closed after \"{said}\"");
            let log = server::error_log(&cycle);
            assert!(log.contains("client timed out (110: Connection timed out) while waiting for request"), "{log}");
        });
    }
}

/// As long as its parts came the connection was kept.
#[test]
fn a_body_that_nobody_wants_has_its_time() {
    const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const LONG: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    // The backend answers before it has the body.
    const PASSED: &[u8] = b"POST /passed HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let http = "client_body_timeout 20s; lingering_timeout 1s; lingering_time 3s;
        server { listen 10.0.0.1:80; location / { return 200 ok; }
            location /passed { proxy_request_buffering off; proxy_pass http://10.0.1.1:8000; } }";
    run("unwanted", http, async |cycle| {
        let backend = rt::sim::listen(addr("10.0.1.1:8000"));
        rt::spawn(async move {
            while let Ok((stream, _)) = backend.accept().await {
                let _ = stream.recv(4096).await;
                send(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        });
        // Each head, the parts after it and the time between two, and when the connection ends.
        for (head, part, pause, times, end) in [
            (CHUNKED, &b"1\r\nx\r\n"[..], 5000, 1, Some(1000)),
            (LONG, b"x", 5000, 1, Some(1000)),
            (PASSED, b"", 5000, 0, Some(1000)),
            (CHUNKED, b"1\r\nx\r\n", 500, 100, Some(3000)),
            (CHUNKED, b"1;", 500, 100, Some(3000)),
            (LONG, b"x", 500, 100, Some(3000)),
            (CHUNKED, b"100\r\n", 1, 1, Some(1000)),
            (CHUNKED, &b"1\r\nx\r\n".repeat(1000), 1, 10_000, Some(3000)),
            (CHUNKED, b"1\r\nx\r\n0\r\n\r\n", 1, 1, None),
            (CHUNKED, b"1\r\nx\r\n1\r\nx\r\n1\r\nx\r\n0\r\n\r\n", 1, 1, None),
        ] {
            let stream = connect("10.0.0.1:80").await;
            let begun = rt::now_ms();
            stream.set_recv_timeout(Some(500));
            send(&stream, head).await;
            let answer = stream.recv(4096).await.expect("an answer comes");
            assert!(answer.ends_with(b"ok"), "{}", answer.escape_ascii());
            let (mut sent, mut ended) = (0, None);
            while ended.is_none() && rt::now_ms() < begun + 6000 {
                if sent < times {
                    sent += 1;
                    // Once it is over there is nobody who takes it.
                    let _ = stream.send_all(buf::Bytes::copy_from(part).into()).await;
                }
                stream.set_recv_timeout(Some(pause));
                let read = stream.recv(100).await;
                let is_open = read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut);
                ended = (!is_open).then(|| rt::now_ms() - begun);
            }
            let case = part[..part.len().min(20)].escape_ascii();
            match (end, ended) {
                (Some(end), Some(ended)) => assert!((end..end + 20).contains(&ended), "{case}: {ended}"),
                (None, None) => {
                    send(&stream, GET).await;
                    stream.set_recv_timeout(Some(500));
                    assert!(stream.recv(4096).await.expect("an answer comes").ends_with(b"ok"), "{case}");
                }
                _ => panic!("{case}: {ended:?} instead of {end:?}"),
            }
        }
        let log = server::error_log(&cycle);
        assert!(!log.contains("timed out"), "{log}");
    });
}

/// How many calls to write this thread has made: here, only those to files.
fn writes() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("syscw: ")?.parse().ok())
}

/// Each chunk was a call.
#[test]
fn small_chunks_are_written_to_a_file_together() {
    const COUNT: usize = 30_000;
    let http = "client_body_temp_path %%DIR%%/body; client_body_buffer_size 1k; client_max_body_size 0;
        server { listen 10.0.0.1:80; location / { proxy_pass http://10.0.1.1:8000; } }";
    run("chunks", http, async |_| {
        let backend = rt::sim::listen(addr("10.0.1.1:8000"));
        let whole = Rc::new(std::cell::Cell::new(false));
        let came = whole.clone();
        rt::spawn(async move {
            let stream = backend.accept().await.expect("the server connects").0;
            let mut seen = Vec::new();
            while !seen.ends_with(&[b'x'; COUNT]) {
                seen.extend_from_slice(&stream.recv(16_384).await.expect("more comes"));
            }
            came.set(true);
            send(&stream, b"HTTP/1.0 200 OK\r\n\r\nlate").await;
        });
        let stream = connect("10.0.0.1:80").await;
        stream.set_recv_timeout(Some(5000));
        let before = writes();
        send(&stream, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        send(&stream, &[&b"1\r\nx\r\n".repeat(COUNT)[..], b"0\r\n\r\n"].concat()).await;
        let answer = stream.recv(4096).await.expect("an answer comes");
        assert!(whole.get(), "{}", answer.escape_ascii());
        if let (Some(before), Some(after)) = (before, writes()) {
            assert!((1..500).contains(&(after - before)), "{} calls for {COUNT} chunks", after - before);
        }
    });
}
