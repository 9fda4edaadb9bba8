//! A bare loop, to measure drivers by: answers every request head with the same 1 KiB, without looking at it.
//!
//! `cargo run --release -p rt --example loop -- -d epoll|poll|select|uring PORT`

use buf::{Bytes, Chain};
use os::SockAddr;
use os::socket::{ListenOptions, listen};
use rt::{AcceptOptions, Driver, Listener, Options, Runtime, Stream};

fn main() {
    let mut driver = Driver::Epoll;
    let mut port = 9001;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "-d" {
            driver = match args.next().as_deref() {
                Some("poll") => Driver::Poll,
                Some("select") => Driver::Select,
                Some("uring") => Driver::Uring,
                _ => Driver::Epoll,
            };
        } else {
            port = arg.parse().expect("a port");
        }
    }
    let (_, hard) = os::process::limit(os::process::Limit::Files).expect("a limit");
    let _ = os::process::set_limit(os::process::Limit::Files, hard);
    let addr = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let listener = listen(&addr, &ListenOptions::default()).expect("a listener");
    let runtime = Runtime::new(Options { driver, connections: 20_000, ..Options::default() }).expect("a runtime");
    runtime.block_on(async {
        let listener = Listener::new(listener, AcceptOptions::default()).expect("a listener");
        let head = "HTTP/1.1 200 OK\r\nServer: loop\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n";
        let answer = Bytes::from([head.as_bytes(), &[b'x'; 1024]].concat());
        while let Ok((stream, _)) = listener.accept().await {
            let f = serve(stream, answer.clone());
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(|| eprintln!("future: {}", std::mem::size_of_val(&f)));
            rt::spawn(f);
        }
    });
}

async fn serve(stream: Stream, answer: Bytes) {
    let _ = stream.set_nodelay(true);
    stream.set_send_timeout(Some(60_000));
    loop {
        stream.set_recv_timeout(Some(75_000));
        stream.set_idle(true);
        let Ok(request) = stream.recv(1024).await else { return };
        if request.is_empty() {
            return;
        }
        stream.set_idle(false);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        drop(request);
        if stream.send_all(Chain::from(answer.clone())).await.is_err() {
            return;
        }
    }
}
