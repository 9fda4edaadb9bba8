//! A bare proxy loop, to measure the floor of proxying by: passes each request head as it came to one backend over a
//! kept connection, and the response as it comes back to the client. Of HTTP it knows where a head and a body of known
//! length end, and nothing else.
//!
//! `cargo run --release -p rt --example proxy_loop -- [-d epoll|poll|select|uring] PORT BACKEND_PORT`

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use buf::{Buf, Bytes, Chain};
use os::SockAddr;
use os::process::{Limit, limit, set_limit};
use os::socket::{ListenOptions, listen};
use rt::{AcceptOptions, ConnectOptions, Driver, Listener, Options, Runtime, Stream, Tried};

fn main() {
    let (mut driver, mut ports) = (Driver::Epoll, Vec::new());
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
            _ => ports.push(arg.parse().expect("a port")),
        }
    }
    let [port, backend] = ports[..] else { panic!("two ports are needed") };
    let (_, hard) = limit(Limit::Files).expect("a limit");
    let _ = set_limit(Limit::Files, hard);
    let listener = listen(&local(port), &ListenOptions::default()).expect("a listener");
    let runtime = Runtime::new(Options { driver, connections: 20_000, ..Options::default() }).expect("a runtime");
    let pool = Rc::new(Pool { addr: local(backend), idle: RefCell::default() });
    runtime.block_on(async {
        let listener = Listener::new(listener, AcceptOptions::default()).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            rt::spawn(serve(stream, pool.clone()));
        }
    });
}

fn local(port: u16) -> SockAddr {
    SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The backend with its idle connections, the youngest last.
struct Pool {
    addr: SockAddr,
    idle: RefCell<Vec<Stream>>,
}

async fn serve(client: Stream, pool: Rc<Pool>) {
    let _ = client.set_nodelay(true);
    client.set_send_timeout(Some(60_000));
    loop {
        client.set_recv_timeout(Some(75_000));
        client.set_idle(true);
        let Ok(request) = client.recv(1024).await else { return };
        if request.is_empty() {
            return;
        }
        client.set_idle(false);
        if pass(&client, &pool, request).await.is_err() {
            return;
        }
    }
}

/// One request and its response.
async fn pass(client: &Stream, pool: &Pool, request: Buf) -> io::Result<()> {
    let idle = pool.idle.borrow_mut().pop();
    let backend = match idle {
        Some(backend) => backend,
        None => Stream::connect(&pool.addr, &ConnectOptions::default(), 5000).await?,
    };
    backend.set_send_timeout(Some(60_000));
    send(&backend, request).await?;
    backend.set_recv_timeout(Some(60_000));
    let mut left = None;
    while left != Some(0) {
        let part = backend.recv(16 << 10).await?;
        if part.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = part.len();
        // The head comes in one piece.
        let whole = left.unwrap_or_else(|| whole_length(&part));
        left = Some(whole.saturating_sub(length));
        send(client, part).await?;
    }
    backend.set_recv_timeout(None);
    pool.idle.borrow_mut().push(backend);
    Ok(())
}

async fn send(stream: &Stream, mut bytes: Buf) -> io::Result<()> {
    if let Tried::Sent(sent) = stream.try_send(&bytes)? {
        bytes.consume(sent);
    }
    if bytes.is_empty() {
        return Ok(());
    }
    stream.send_all(Chain::from(Bytes::from(bytes))).await
}

/// The length of a response that begins with these bytes, head and body.
fn whole_length(part: &[u8]) -> usize {
    let (mut head, mut body) = (0, 0);
    for line in part.split(|byte| *byte == b'\n') {
        head += line.len() + 1;
        if line == b"\r" {
            break;
        }
        if let Some(digits) = line.strip_prefix(b"Content-Length: ") {
            body = digits.trim_ascii_end().iter().fold(0, |n, digit| n * 10 + usize::from(digit.wrapping_sub(b'0')));
        }
    }
    head + body
}
