//! HTTP/2 on the loop: many streams on one connection, windows that close, timeouts, and how connections end.

use std::io::Write;
use std::time::{Duration, Instant};

use e2e::frames::{
    DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, request,
};
use e2e::{Setup, run};
use rustix::process::Signal;

#[test]
fn many_streams() {
    let server = Setup::http(
        "http2 on; keepalive_requests 100000; server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/www;
            location /r { return 200 ok; } }",
    )
    .file("www/big", "0123456789".repeat(100_000))
    .start();
    for (path, count) in [("/r", "5000"), ("/big", "200")] {
        let Some(out) = run("h2load", &["-n", count, "-c", "4", "-m", "50", &server.url(path)]) else { return };
        assert!(out.contains(&format!("{count} succeeded, 0 failed, 0 errored")), "{out}");
    }
    let Some(out) = run("nghttp", &["-nv", &server.url("/r"), &server.url("/big")]) else { return };
    assert_eq!(out.matches(":status: 200").count(), 2, "{out}");
}

#[test]
fn connections_end_in_an_orderly_way() {
    let server = Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; keepalive_requests 2; location / { return 200 ok; } }
         server { listen 127.0.0.1:%%PORT_idle%%; keepalive_timeout 100ms; location / { return 200 ok; } }
         server { listen 127.0.0.1:%%PORT_late%%; client_header_timeout 100ms; location / { return 200 ok; } }",
    )
    .start();
    let mut raw = Raw::on(server.port());
    raw.send(&[frame(HEADERS, 5, 1, &request(GET, "/")), frame(HEADERS, 5, 3, &request(GET, "/"))].concat());
    let goaway = raw.until(GOAWAY).pop().expect("it was found");
    assert_eq!(&goaway.3[..8], [0, 0, 0, 3, 0, 0, 0, 0], "the last stream, and no error");
    let mut raw = Raw::on(server.port_of("PORT_idle"));
    raw.send(&frame(HEADERS, 5, 1, &request(GET, "/")));
    assert_eq!(raw.go_away_code(), 0);
    let mut raw = Raw::on(server.port_of("PORT_late"));
    raw.send(&frame(HEADERS, 1, 1, &request(GET, "/")));
    assert_eq!(raw.until(RST_STREAM).last().map(|frame| frame.3[3]), Some(1), "half a head");
}

/// A request that is answered as soon as it is read is activity as any other.
#[test]
fn each_request_begins_the_idle_time_anew() {
    let server = Setup::http(
        "http2 on; keepalive_timeout 3s; server { listen 127.0.0.1:%%PORT%%; location / { return 200 ok; } }",
    )
    .start();
    let mut raw = Raw::on(server.port());
    raw.send(&frame(HEADERS, 5, 1, &request(GET, "/")));
    assert!(raw.until(DATA).pop().is_some());
    std::thread::sleep(Duration::from_millis(1500));
    let second = Instant::now();
    raw.send(&frame(HEADERS, 5, 3, &request(GET, "/")));
    assert!(raw.until(DATA).pop().is_some());
    assert_eq!(raw.go_away_code(), 0);
    assert!(second.elapsed() >= Duration::from_millis(2900), "{:?}", second.elapsed());
}

/// Its responses would fill the memory.
///
/// Differs from nginx: no more of its requests are read until it reads
#[test]
fn who_reads_nothing_is_not_listened_to_for_long() {
    const REQUESTS: u32 = 100_000;
    let server = Setup::http(
        "http2 on; keepalive_requests 1000000; server { listen 127.0.0.1:%%PORT%% sndbuf=16k rcvbuf=16k;
            location / { return 204; } location /status { stub_status; } }",
    )
    .start();
    let mut raw = Raw::on(server.port());
    let all: Vec<u8> = (0..REQUESTS).flat_map(|n| frame(HEADERS, 5, 2 * n + 1, &request(GET, "/"))).collect();
    let mut socket = raw.socket().try_clone().expect("a descriptor is free");
    socket.set_write_timeout(Some(Duration::from_millis(500))).expect("a time");
    // What the server doesn't take waits in the kernel, if there is room for it.
    let _ = socket.write_all(&all);
    let requests = || {
        let status = server.get("/status").text();
        let count = status.lines().nth(2).and_then(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok());
        count.unwrap_or_else(|| panic!("{status}"))
    };
    let mut before = 0;
    while before != requests() {
        before = requests() + 1;
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!((100..REQUESTS / 2).contains(&before), "{before}");
    // It goes on once they are read.
    assert!((0..1000).all(|_| raw.receive().is_some()));
}

#[test]
fn a_request_that_goaway_counts_is_served() {
    let server = Setup::http("http2 on; server { listen 127.0.0.1:%%PORT%%; location / { return 200 ok; } }").start();
    let mut raw = Raw::on(server.port());
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(GET, "/"));
    let (first, rest) = head.split_at(12);
    raw.send(&[&frame(PING, 0, 0, b"half way")[..], first].concat());
    raw.until(PING);
    server.signal(Signal::HUP);
    let goaway = raw.until(GOAWAY).pop().expect("it was found");
    assert_eq!(goaway.3[..4], [0, 0, 0, 1], "the stream has begun");
    raw.send(rest);
    assert_eq!(raw.until(DATA).pop().map(|frame| frame.3), Some(b"ok".to_vec()));
}

#[test]
fn a_response_that_nobody_takes_is_given_up() {
    let server = Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; send_timeout 200ms; root %%DIR%%/www;
            location /text { return 200 \"0123456789\"; } }",
    )
    .file("www/big", "0123456789".repeat(30_000))
    .start();
    let mut raw = Raw::with(server.port(), &[(4, 5)]);
    for (stream, path) in [(1, "/big"), (3, "/text")] {
        raw.send(&frame(HEADERS, 5, stream, &request(GET, path)));
        assert_eq!(raw.until(DATA).last().map(|frame| frame.3.len()), Some(5), "{path}");
        assert_eq!(raw.until(RST_STREAM).last().map(|frame| frame.2), Some(stream), "{path}");
    }
    // Nothing holds the worker up.
    assert!(server.stop().success());
}

#[test]
fn requests_that_begin_as_others_end() {
    let server = Setup::http("http2 on; server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/www; }")
        .file("www/some", "0123456789".repeat(15_000))
        .start();
    let room = frame(WINDOW_UPDATE, 0, 0, &50_000_000_u32.to_be_bytes());
    let open = [&[0, 4][..], &1_000_000_u32.to_be_bytes()].concat();
    for turn in 0..150 {
        let mut raw = Raw::with(server.port(), &[(4, 0)]);
        for n in 0..10 {
            raw.send(&frame(HEADERS, 5, 2 * n + 1, &request(GET, "/some")));
        }
        (0..10).for_each(|_| drop(raw.until(HEADERS)));
        // These responses go out in more than one turn of the server's loop, and the next request comes when the last of
        // them are on their way and their tasks don't know.
        let begun = Instant::now();
        raw.send(&[room.clone(), frame(SETTINGS, 0, 0, &open)].concat());
        while begun.elapsed() < Duration::from_micros(turn * 20) {}
        raw.send(&frame(HEADERS, 5, 21, &request(GET, "/some")));
        let mut ended = 0;
        while ended < 11 {
            let (kind, flags, ..) = raw.receive().expect("it goes on");
            ended += usize::from(kind == DATA && flags & 1 == 1);
        }
    }
    // No request is forgotten, and no connection because of it.
    assert!(server.stop().success());
}

#[test]
fn windows_that_many_responses_share() {
    let server = Setup::http(
        "http2 on; keepalive_timeout 300ms; send_timeout 300ms;
         server { listen 127.0.0.1:%%PORT%%; root %%DIR%%/www; }",
    )
    .file("www/30k", "0123456789".repeat(3000))
    .start();
    // Each alone fits into the connection's window of 64 KiB; what doesn't go out in time is given up.
    let mut raw = Raw::with(server.port(), &[(4, 1_000_000)]);
    for n in 0..20 {
        raw.send(&frame(HEADERS, 5, 2 * n + 1, &request(GET, "/30k")));
    }
    let (mut bytes, mut resets) = (0, 0);
    while let Some((kind, ..)) = raw.receive().inspect(|frame| bytes += if frame.0 == DATA { frame.3.len() } else { 0 })
    {
        resets += usize::from(kind == RST_STREAM);
    }
    assert_eq!((bytes, resets), (65_535, 18));
    // The window is taken back while responses are made that count on it. Much that means nothing comes between, so that
    // the server has to read twice.
    for n in 0..10 {
        let mut raw = Raw::with(server.port(), &[]);
        let nothing = vec![0; 300_000 + n * 20_000];
        let taken = [&[0, 4][..], &[0; 4]].concat();
        let parts =
            [frame(HEADERS, 5, 1, &request(GET, "/30k")), frame(0x42, 0, 0, &nothing), frame(SETTINGS, 0, 0, &taken)];
        raw.send(&parts.concat());
        raw.socket().set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        while raw.receive().is_some() {}
        let mut byte = [0];
        let end = std::io::Read::read(&mut raw.socket(), &mut byte);
        assert!(end.is_ok_and(|n| n == 0), "the connection ends");
    }
}

#[test]
fn a_worker_that_quits_finishes_streams() {
    let server = Setup::http(
        "http2 on; server { listen 127.0.0.1:%%PORT%%; location / { root %%DIR%%/www; limit_rate 200k; } }",
    )
    .file("www/big", "0123456789".repeat(30_000))
    .start();
    let mut raw = Raw::on(server.port());
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()));
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes()));
    let mut settings = vec![0, 4];
    settings.extend(1_000_000_u32.to_be_bytes());
    raw.send(&frame(SETTINGS, 0, 0, &settings));
    raw.send(&frame(HEADERS, 5, 1, &request(GET, "/big")));
    raw.until(DATA);
    server.signal(Signal::HUP);
    let (mut length, mut said) = (0, false);
    while let Some((kind, flags, _, payload)) = raw.receive() {
        said |= kind == GOAWAY;
        if kind == DATA {
            length += payload.len();
            if flags & 1 == 1 {
                break;
            }
        }
    }
    assert!(said, "the client was told");
    assert!(length > 200_000, "{length} bytes after the signal");
}
