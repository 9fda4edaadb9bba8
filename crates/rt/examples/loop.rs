//! A bare loop, to measure drivers by: answers every request head alike, without looking at it, with 1 KiB from memory or
//! with a file that is open already. A request of HTTP/1.0 closes the connection.
//!
//! `cargo run --release -p rt --example loop -- [-d epoll|poll|select|uring] [-f FILE] PORT`

use std::fs::File;
use std::rc::Rc;

use buf::{Bytes, Chain, FileRange, Piece};
use os::SockAddr;
use os::process::{Limit, limit, set_limit};
use os::socket::{ListenOptions, listen};
use rt::{AcceptOptions, Driver, Listener, Options, Runtime, Stream};

fn main() {
    let (mut driver, mut file, mut port) = (Driver::Epoll, None, 9001);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-d" => {
                driver = match args.next().as_deref() {
                    Some("poll") => Driver::Poll,
                    Some("select") => Driver::Select,
                    Some("uring") => Driver::Uring,
                    _ => Driver::Epoll,
                }
            }
            "-f" => file = args.next().map(|path| File::open(path).expect("a file")),
            _ => port = arg.parse().expect("a port"),
        }
    }
    let (_, hard) = limit(Limit::Files).expect("a limit");
    let _ = set_limit(Limit::Files, hard);
    let addr = SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    let listener = listen(&addr, &ListenOptions::default()).expect("a listener");
    let runtime = Runtime::new(Options { driver, connections: 20_000, ..Options::default() }).expect("a runtime");
    let answer: &'static Answer = Box::leak(Box::new(Answer::new(file)));
    runtime.block_on(async {
        let listener = Listener::new(listener, AcceptOptions::default()).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            rt::spawn(serve(stream, answer));
        }
    });
}

struct Answer {
    memory: Bytes,
    file: Option<Rc<File>>,
    len: u64,
}

impl Answer {
    fn new(file: Option<File>) -> Answer {
        let len = file.as_ref().map_or(1024, |file| file.metadata().expect("a file").len());
        let mut memory = format!(
            "HTTP/1.1 200 OK\r\nServer: loop\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\nConnection: keep-alive\r\n\r\n"
        )
        .into_bytes();
        if file.is_none() {
            memory.extend_from_slice(&[b'x'; 1024]);
        }
        Answer { memory: Bytes::from(memory), file: file.map(Rc::new), len }
    }

    fn chain(&self) -> Chain {
        let mut chain = Chain::from(self.memory.clone());
        if let Some(file) = &self.file {
            chain.push(Piece::File(FileRange { file: file.clone(), offset: 0, len: self.len }));
        }
        chain
    }
}

async fn serve(stream: Stream, answer: &'static Answer) {
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
        let close = request.windows(8).any(|w| w == b"HTTP/1.0");
        drop(request);
        if stream.send_all(answer.chain()).await.is_err() || close {
            return;
        }
    }
}
