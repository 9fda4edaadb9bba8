//! Every driver behaves alike: the same suite for each.

mod each;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::rc::Rc;

use buf::{Buf, Bytes, Chain, FileRange, Piece};
use each::{KERNEL, each_of, pin_timeout};
use os::SockAddr;
use os::socket::{ListenOptions, listen};
use rt::*;

/// Runs a test once per driver.
fn each<F: Future<Output = ()>>(test: impl Fn() -> F) {
    each_with(Options { connections: 100, ..Options::default() }, test);
}

fn each_with<F: Future<Output = ()>>(options: Options, test: impl Fn() -> F) {
    each_of(&KERNEL, &options, |_| test());
}

fn any() -> SockAddr {
    SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address"))
}

fn listener(options: AcceptOptions) -> (Listener, SockAddr) {
    let fd = listen(&any(), &ListenOptions::default()).expect("listen");
    let listener = Listener::new(fd, options).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    (listener, addr)
}

async fn connect(addr: &SockAddr) -> Stream {
    Stream::connect(addr, &ConnectOptions::default(), 1000).await.expect("connect")
}

/// Two ends of a connection.
async fn pair() -> (Stream, Stream) {
    let (listener, addr) = listener(AcceptOptions::default());
    let client = connect(&addr).await;
    let (server, from) = listener.accept().await.expect("accept");
    assert_eq!(from, client.local_addr().expect("an address"));
    assert_eq!(server.peer_addr().expect("an address"), from);
    (client, server)
}

fn chain(bytes: &[u8]) -> Chain {
    Chain::from(Bytes::copy_from(bytes))
}

async fn read_exactly(stream: &Stream, n: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < n {
        let buf = stream.recv(64 << 10).await.expect("recv");
        assert!(!buf.is_empty(), "{} of {n} bytes, then the end", all.len());
        all.extend_from_slice(&buf);
    }
    all
}

#[test]
fn echoes() {
    each(async || {
        let (client, server) = pair().await;
        spawn(async move {
            loop {
                let buf = server.recv(16).await.expect("recv");
                if buf.is_empty() {
                    return;
                }
                server.send(&mut Chain::from(buf.freeze())).await.expect("send");
            }
        });
        for n in [1, 10, 100, 5000] {
            let bytes: Vec<u8> = (0..n).map(|i| i as u8).collect();
            client.send(&mut chain(&bytes)).await.expect("send");
            assert_eq!(read_exactly(&client, n).await, bytes);
        }
        assert_eq!((client.sent(), client.received()), (5111, 5111));
    });
}

#[test]
fn sends_more_than_fits() {
    each(async || {
        let (client, server) = pair().await;
        let size = 20 << 20;
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let whole = Bytes::from(bytes.clone());
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        spawn(async move {
            let mut chain = Chain::new();
            for at in (0..size).step_by(100_000) {
                chain.push(Piece::Bytes(whole.slice(at..(at + 100_000).min(size))));
            }
            server.send(&mut chain).await.expect("send");
            assert_eq!((server.pending(), server.sent()), (0, size as u64));
            told.set(true);
        });
        sleep(20).await;
        assert!(!done.get());
        assert!(read_exactly(&client, size).await == bytes);
        sleep(5).await;
        assert!(done.get());
    });
}

#[test]
fn sends_files_between_bytes() {
    let folder = tempfile::TempDir::with_prefix("tidegate-rt-").expect("a folder");
    let path = folder.path().join("f");
    let bytes: Vec<u8> = (0..5_000_000).map(|i| (i % 253) as u8).collect();
    std::fs::write(&path, &bytes).expect("write");
    each(async || {
        let (client, server) = pair().await;
        let file = Rc::new(std::fs::File::open(&path).expect("open"));
        let range = FileRange { file: file.clone(), offset: 1000, len: 4_000_000 };
        spawn(async move {
            let mut chain = chain(b"head");
            chain.push(Piece::File(range));
            chain.push_bytes(Bytes::from_static(b"tail"));
            server.send(&mut chain).await.expect("send");
            let mut chain = Chain::from(Bytes::from_static(b"small"));
            chain.push(Piece::File(FileRange { file: file.clone(), offset: 7, len: 3000 }));
            server.send(&mut chain).await.expect("send");
            let cut = FileRange { file, offset: 4_999_990, len: 20 };
            let mut chain = Chain::new();
            chain.push(Piece::File(cut));
            assert!(server.send(&mut chain).await.is_err(), "the file is shorter than promised");
        });
        let got = read_exactly(&client, 4_003_023).await;
        assert!(got[4_000_008..].starts_with(b"small") && got[4_000_013..4_003_013] == bytes[7..3007]);
        assert_eq!((&got[..4], &got[4_000_004..4_000_008]), (&b"head"[..], &b"tail"[..]));
        assert!(got[4..4_000_004] == bytes[1000..4_001_000]);
    });
}

#[test]
fn times_out() {
    each(async || {
        let (client, server) = pair().await;
        let start = now_ms();
        client.set_recv_timeout(Some(30));
        let error = client.recv(100).await.expect_err("nothing comes");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!((30..300).contains(&(now_ms() - start)), "{}", now_ms() - start);
        // A deadline that moves on isn't met.
        client.set_recv_timeout(Some(60));
        let sender = async {
            for _ in 0..4 {
                sleep(25).await;
                server.send(&mut chain(b"x")).await.expect("send");
            }
        };
        let reader = async {
            for _ in 0..4 {
                client.set_recv_timeout(Some(60));
                client.recv(100).await.expect("in time");
            }
        };
        both(sender, reader).await;
        server.set_send_timeout(Some(40));
        let error = server.send(&mut chain(&vec![0; 30 << 20])).await.expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let refused = Stream::connect(&server.local_addr().expect("address"), &ConnectOptions::default(), 1000).await;
        let refused = refused.expect_err("the listener is gone");
        assert!(matches!(refused, ConnectError::Peer(_)) && refused.kind() == ErrorKind::ConnectionRefused);
    });
}

async fn both(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let mut done = (false, false);
    std::future::poll_fn(move |cx| {
        done.0 = done.0 || a.as_mut().poll(cx).is_ready();
        done.1 = done.1 || b.as_mut().poll(cx).is_ready();
        if done == (true, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
fn half_closes() {
    each(async || {
        let (client, server) = pair().await;
        client.send(&mut chain(b"last")).await.expect("send");
        client.shutdown_write().expect("shutdown");
        server.hangup().await;
        assert_eq!(&server.recv(100).await.expect("recv")[..], b"last");
        assert!(server.recv(100).await.expect("the end").is_empty());
        assert!(server.recv(100).await.expect("the end again").is_empty());
        server.send(&mut chain(b"answer")).await.expect("send");
        assert_eq!(read_exactly(&client, 6).await, b"answer");
        drop(server);
        assert!(client.recv(100).await.expect("the end").is_empty());
    });
}

#[test]
fn sends_at_once() {
    each(async || {
        let (client, server) = pair().await;
        let whole = vec![5; 20 << 20];
        let mut left = &whole[..];
        while let Tried::Sent(n) = server.try_send(left).expect("send") {
            left = &left[n..];
        }
        assert_eq!(server.sent(), (whole.len() - left.len()) as u64);
        let rest = chain(left);
        spawn(async move {
            let mut rest = rest;
            server.send(&mut rest).await.expect("send");
            assert_eq!(server.sent(), 20 << 20);
        });
        assert!(read_exactly(&client, 20 << 20).await == whole);
    });
}

/// Turns every bit around, in both directions.
struct Inverted;

impl Layer for Inverted {
    fn receive(&mut self, input: Buf, plain: &mut Buf, _: &mut Buf) -> std::io::Result<bool> {
        plain.extend_from_slice(&input.iter().map(|byte| !byte).collect::<Vec<_>>());
        Ok(false)
    }

    fn send(&mut self, plain: &[u8], out: &mut Buf) -> std::io::Result<()> {
        out.extend_from_slice(&plain.iter().map(|byte| !byte).collect::<Vec<_>>());
        Ok(())
    }

    fn close(&mut self, _: &mut Buf) {}

    fn record(&self) -> usize {
        16 << 10
    }

    fn can_leave(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

#[test]
fn sends_at_once_through_a_layer() {
    each(async || {
        let (client, server) = pair().await;
        server.set_layer(Box::new(Inverted), buf::Buf::empty(), false);
        let piece: Vec<u8> = (0..30_000).map(|n| (n % 251) as u8).collect();
        let mut whole = Vec::new();
        // Until the kernel takes no more: then all of a piece is taken over, and has to be waited for.
        let last = loop {
            match server.try_send(&piece).expect("send") {
                Tried::Sent(n) => assert_eq!(n, piece.len()),
                last => break last,
            }
            whole.extend_from_slice(&piece);
        };
        let mut rest = Chain::new();
        match last {
            Tried::Taken => assert_eq!(server.try_send(&piece).expect("send"), Tried::Nothing),
            _ => rest = chain(&piece),
        }
        whole.extend_from_slice(&piece);
        let sent = whole.len();
        spawn(async move {
            server.send(&mut rest).await.expect("send");
            assert_eq!(server.sent(), sent as u64);
            assert_eq!(server.pending(), 0);
        });
        let got = read_exactly(&client, whole.len()).await;
        assert!(got.iter().zip(&whole).all(|(got, sent)| *got == !sent));
    });
}

#[test]
fn sees_the_end_behind_much_unread() {
    each(async || {
        let (client, server) = pair().await;
        client.send(&mut chain(&vec![1; 60_000])).await.expect("send");
        assert!(pin_timeout(20, server.hangup()).await.is_none(), "the peer is there");
        drop(client);
        assert!(pin_timeout(500, server.hangup()).await.is_some(), "the peer is gone");
        assert_eq!(read_exactly(&server, 60_000).await.len(), 60_000);
        assert!(server.recv(100).await.expect("the end").is_empty());
    });
}

#[test]
fn slow_readers_keep_the_order() {
    each(async || {
        let (client, server) = pair().await;
        spawn(async move {
            let mut left = 0..50u8;
            std::future::poll_fn(|cx| {
                for n in left.by_ref() {
                    let _ = server.poll_send(cx, &mut chain(&vec![n; 100_000]));
                }
                server.poll_send(cx, &mut Chain::new())
            })
            .await
            .expect("send");
        });
        let mut got = Vec::new();
        while got.len() < 5_000_000 {
            got.extend_from_slice(&client.recv(64 << 10).await.expect("recv"));
            sleep(got.len() as u64 / 1000 % 2).await;
        }
        assert!(got.chunks(100_000).enumerate().all(|(n, part)| part.iter().all(|b| *b == n as u8)));
    });
}

#[test]
fn accepted_connections_end_at_once() {
    each(async || {
        let (client, server) = pair().await;
        let server = Rc::new(server);
        let results = Rc::new(RefCell::new(Vec::new()));
        let (reader, read) = (server.clone(), results.clone());
        spawn(async move {
            let closing = reader.recv(100).await.is_err_and(|e| is_closing(&e));
            read.borrow_mut().push(closing);
        });
        let (writer, wrote) = (server.clone(), results.clone());
        spawn(async move {
            let closing = writer.send(&mut chain(&vec![0; 30 << 20])).await.is_err_and(|e| is_closing(&e));
            wrote.borrow_mut().push(closing);
        });
        sleep(5).await;
        assert!(results.borrow().is_empty());
        close_accepted();
        server.hangup().await;
        sleep(5).await;
        assert_eq!(*results.borrow(), [true, true]);
        drop(client);
    });
}

#[test]
fn a_coarse_clock_goes_by_its_resolution() {
    each_with(Options { timer_resolution_ms: 40, ..Options::default() }, async || {
        let start = (std::time::Instant::now(), now_ms());
        for _ in 0..3 {
            let before = now_ms();
            sleep(5).await;
            assert!(now_ms() >= before + 5);
        }
        assert!(start.0.elapsed().as_millis() >= 80, "{:?}", start.0.elapsed());
    });
}

#[test]
fn sees_resets() {
    each(async || {
        let (client, server) = pair().await;
        client.linger_reset();
        drop(client);
        server.hangup().await;
        assert_eq!(server.recv(100).await.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn waits_for_resets_alone() {
    each(async || {
        let reset = async |server: &Stream| std::future::poll_fn(|cx| server.poll_reset(cx)).await;
        let (client, server) = pair().await;
        client.shutdown_write().expect("shutdown");
        server.hangup().await;
        assert!(pin_timeout(20, reset(&server)).await.is_none(), "the peer may still read");
        let (client, server) = pair().await;
        assert!(pin_timeout(20, reset(&server)).await.is_none(), "the peer is there");
        client.linger_reset();
        drop(client);
        reset(&server).await;
    });
}

#[test]
fn waits_unless_the_peer_is_gone() {
    each(async || {
        let (client, server) = pair().await;
        assert_eq!(unless_gone(&server, async { 1 }, || panic!("it is there")).await, Some(1));
        client.shutdown_write().expect("shutdown");
        let closed = Cell::new(0);
        let slow = async {
            while closed.get() == 0 {
                rt::yield_now().await;
            }
            sleep(20).await;
            2
        };
        // It may still read.
        assert_eq!(unless_gone(&server, slow, || closed.set(closed.get() + 1)).await, Some(2));
        assert_eq!(closed.get(), 1, "it is told once");
        let (client, server) = pair().await;
        client.linger_reset();
        drop(client);
        assert_eq!(unless_gone(&server, std::future::pending::<()>(), || ()).await, None);
        assert_eq!(unless_gone(&None::<&Stream>, async { 3 }, || ()).await, Some(3));
    });
}

#[test]
fn gives_back_what_was_read() {
    each(async || {
        let (client, server) = pair().await;
        client.send(&mut chain(b"GET GET")).await.expect("send");
        let mut buf = server.recv(100).await.expect("recv");
        buf.consume(4);
        server.unread(buf);
        server.unread(Buf::empty());
        let mut first = Buf::with_capacity(10);
        first.extend_from_slice(b"a ");
        server.unread(first);
        assert!(server.is_readable());
        assert_eq!(&server.recv(100).await.expect("recv")[..], b"a GET");
        assert!(!server.is_readable());
    });
}

#[test]
fn idle_connections_make_room() {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let hook = reports.clone();
    let hook = Rc::new(move |report: Report<'_>| hook.borrow_mut().push(format!("{report:?}")));
    each_with(Options { connections: 32, hook: Some(hook), ..Options::default() }, async || {
        let (listener, addr) = listener(AcceptOptions { multi_accept: true, ..AcceptOptions::default() });
        let closed = Rc::new(RefCell::new(Vec::new()));
        let told = closed.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let closed = told.clone();
                spawn(async move {
                    stream.set_idle(true);
                    let error = stream.recv(100).await.err();
                    closed.borrow_mut().push((stream.number(), error.is_some_and(|e| is_closing(&e))));
                });
            }
        });
        let plain: Vec<_> = (0..60)
            .map(|_| {
                let SockAddr::V4(addr) = addr else { unreachable!() };
                std::net::TcpStream::connect(addr).expect("connect")
            })
            .collect();
        sleep(50).await;
        let gone = closed.borrow().clone();
        assert!(gone.len() >= 28 && gone.iter().all(|(_, closing)| *closing), "{gone:?}");
        assert!(gone.is_sorted(), "the oldest go first");
        assert!((2..8).contains(&connections().free) && connections().idle > 20, "{:?}", connections());
        close_idle();
        sleep(5).await;
        assert_eq!((connections().idle, connections().active), (0, 1));
        drop(plain);
    });
    assert!(reports.borrow().iter().all(|r| r == "ReusingConnections(32)"), "{:?}", reports.borrow());
    assert!(!reports.borrow().is_empty(), "it is told");
}

#[test]
fn silent_connections_make_room() {
    each_with(Options { connections: 32, ..Options::default() }, async || {
        let (listener, addr) = listener(AcceptOptions { multi_accept: true, ..AcceptOptions::default() });
        let SockAddr::V4(to) = addr else { unreachable!() };
        let closed = Rc::new(RefCell::new(0));
        let told = closed.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let closed = told.clone();
                spawn(async move {
                    stream.set_silent();
                    let error = stream.recv(100).await.err();
                    *closed.borrow_mut() += usize::from(error.is_some_and(|e| is_closing(&e)));
                });
            }
        });
        let plain: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(to).expect("connect")).collect();
        sleep(50).await;
        let gone = *closed.borrow();
        assert!(gone >= 28 && connections().free > 0, "{gone} {:?}", connections());
        close_idle();
        sleep(5).await;
        assert_eq!(*closed.borrow(), gone, "a stop closes none of them");
        drop(plain);
    });
}

#[test]
fn a_kept_connection_to_a_backend_makes_room() {
    each_with(Options { connections: 8, ..Options::default() }, async || {
        let (listener, addr) = listener(AcceptOptions::default());
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_idle(true);
                spawn(async move { drop(stream.recv(100).await) });
            }
        });
        let gone = Rc::new(Cell::new(0));
        for _ in 0..12 {
            let stream = Stream::connect(&addr, &ConnectOptions::default(), 1000).await.expect("there is room");
            let gone = gone.clone();
            spawn(async move {
                // Nobody reads: only its end is waited for.
                stream.set_idle(true);
                stream.hangup().await;
                gone.set(gone.get() + 1);
            });
            yield_now().await;
        }
        assert!((5..12).contains(&gone.get()), "{}", gone.get());
    });
}

#[test]
fn a_request_that_meets_the_call_to_close_is_read() {
    each(async || {
        let (listener, addr) = listener(AcceptOptions::default());
        let SockAddr::V4(to) = addr else { unreachable!() };
        let mut plain = std::net::TcpStream::connect(to).expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        for _ in 0..3 {
            server.set_idle(true);
            let mut recv = std::pin::pin!(server.recv(100));
            assert!(poll_once(recv.as_mut()).await.is_none());
            plain.write_all(b"GET").expect("write");
            close_idle();
            assert_eq!(&recv.await.expect("what came before the close")[..], b"GET");
            // Busy now, it may wait for the rest.
            server.set_idle(false);
            let mut recv = std::pin::pin!(server.recv(100));
            assert!(poll_once(recv.as_mut()).await.is_none());
            plain.write_all(b" rest").expect("write");
            assert_eq!(&recv.await.expect("the rest")[..], b" rest");
        }
        server.set_idle(true);
        close_idle();
        assert!(server.recv(100).await.is_err_and(|e| is_closing(&e)));
    });
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[test]
fn busy_connections_are_the_limit() {
    let reports = Rc::new(RefCell::new(0));
    let count = reports.clone();
    let hook = Rc::new(move |report: Report<'_>| {
        assert!(matches!(report, Report::NotEnoughConnections(8)));
        *count.borrow_mut() += 1;
    });
    each_with(Options { connections: 8, hook: Some(hook), ..Options::default() }, async || {
        *reports.borrow_mut() = 0;
        let (listener, addr) = listener(AcceptOptions::default());
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(async move { drop(stream.recv(100).await) });
            }
        });
        let SockAddr::V4(to) = addr else { unreachable!() };
        let plain: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(to).expect("connect")).collect();
        sleep(30).await;
        assert_eq!((connections().free, *reports.borrow()), (0, 3));
        let error = Stream::connect(&addr, &ConnectOptions::default(), 100).await.expect_err("no place");
        assert!(matches!(error, ConnectError::Full));
        assert_eq!((error.kind(), *reports.borrow()), (ErrorKind::QuotaExceeded, 4));
        drop(plain);
        sleep(10).await;
        assert_eq!(connections().active, 1);
    });
}

#[test]
fn futures_may_be_dropped() {
    each(async || {
        let (client, server) = pair().await;
        assert!(pin_timeout(5, client.recv(100)).await.is_none());
        assert!(pin_timeout(5, server.send(&mut chain(&vec![7; 30 << 20]))).await.is_none());
        let got = read_exactly(&client, 1000).await;
        assert!(got.iter().all(|b| *b == 7));
        drop(server);
        drop(client);
        let (client, server) = pair().await;
        client.send(&mut chain(b"x")).await.expect("send");
        assert_eq!(&server.recv(100).await.expect("recv")[..], b"x");
    });
}

#[test]
fn a_panic_costs_one_task() {
    let said = Rc::new(RefCell::new(String::new()));
    let to = said.clone();
    let hook = Rc::new(move |report: Report<'_>| {
        if let Report::Panic(text) = report {
            *to.borrow_mut() = text.to_string();
        }
    });
    each_with(Options { hook: Some(hook), ..Options::default() }, async || {
        let (client, server) = pair().await;
        spawn(async move {
            let _ = server.recv(100).await;
            panic!("on purpose");
        });
        client.send(&mut chain(b"x")).await.expect("send");
        assert!(client.recv(100).await.expect("the end").is_empty());
        assert_eq!(*said.borrow(), "on purpose");
    });
}

#[test]
fn a_task_begins_inside_of_another() {
    each(|| async {
        let (a, b) = pair().await;
        let steps = Rc::new(RefCell::new(Vec::new()));
        let note = |steps: &Rc<RefCell<Vec<&'static str>>>, step| steps.borrow_mut().push(step);
        let inner = steps.clone();
        rt::spawn_now(async move {
            note(&inner, "begun");
            rt::spawn_now(async { panic!("on purpose") });
            // The end of those inside doesn't end its own turn: it is this task that is woken by what it waits for.
            assert_eq!(read_exactly(&b, 2).await, b"hi");
            note(&inner, "read");
        });
        note(&steps, "back");
        a.send(&mut chain(b"hi")).await.unwrap();
        while steps.borrow().len() < 3 {
            rt::yield_now().await;
        }
        assert_eq!(*steps.borrow(), ["begun", "back", "read"]);
    });
}

#[test]
fn threads_answer() {
    each(async || {
        let pool = ThreadPool::new("default", 2, 3);
        assert_eq!(pool.run(|| 6 * 7).await, Ok(42));
        let (gate, open) = (std::sync::Arc::new(std::sync::Barrier::new(3)), std::sync::mpsc::channel::<()>());
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let gate = gate.clone();
                Box::pin(pool.run(move || gate.wait().is_leader()))
            })
            .collect();
        drop(open);
        let results = Rc::new(RefCell::new(Vec::new()));
        let mut waiting = waiting;
        std::future::poll_fn(|cx| {
            waiting.iter_mut().for_each(|w| assert!(w.as_mut().poll(cx).is_pending()));
            std::task::Poll::Ready(())
        })
        .await;
        gate.wait();
        for w in waiting {
            let ok = w.await.is_ok();
            results.borrow_mut().push(ok);
        }
        assert_eq!(*results.borrow(), [true, true]);
    });
}

#[test]
fn what_nobody_waits_for_is_not_begun() {
    each(async || {
        let pool = ThreadPool::new("default", 1, 10);
        let (begun, begin) = std::sync::mpsc::channel::<()>();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = |n| {
            let count = count.clone();
            move || count.fetch_add(n, std::sync::atomic::Ordering::Relaxed)
        };
        let mut busy = Box::pin(pool.run(move || {
            begun.send(()).ok();
            gone.recv().ok();
        }));
        let mut unwanted = Box::pin(pool.run_while_wanted(Haste::default(), counted(1)));
        let mut kept = Box::pin(pool.run(counted(10)));
        std::future::poll_fn(|cx| {
            assert!(busy.as_mut().poll(cx).is_pending());
            assert!(unwanted.as_mut().poll(cx).is_pending() && kept.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        begin.recv().expect("the thread has begun");
        drop(unwanted);
        drop(kept);
        go.send(()).expect("the thread waits");
        busy.await.expect("it ran");
        assert_eq!(
            pool.run_while_wanted(Haste::default(), counted(100)).await,
            Ok(10),
            "the second one ran, the first one didn't"
        );
    });
}

#[test]
fn jobs_without_haste_come_last() {
    each(async || {
        let pool = ThreadPool::new("default", 1, 4);
        let (begun, begin) = std::sync::mpsc::channel::<()>();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let noted = |n: u32| {
            let order = order.clone();
            move || order.lock().expect("nobody panics").push(n)
        };
        let mut busy = Box::pin(pool.run(move || {
            begun.send(()).ok();
            gone.recv().ok();
        }));
        let hastes: Vec<_> = (0..4).map(|_| Haste::default()).collect();
        let job = |n: usize| Box::pin(pool.run_while_wanted(hastes[n].clone(), noted(n as u32)));
        let mut jobs: Vec<_> = (0..4).map(job).collect();
        let mut over = Box::pin(pool.run(noted(4)));
        let mut most = Box::pin(pool.run(noted(5)));
        std::future::poll_fn(|cx| {
            assert!(busy.as_mut().poll(cx).is_pending());
            begin.recv().expect("the thread has begun");
            assert!(jobs.iter_mut().all(|job| job.as_mut().poll(cx).is_pending()));
            // The queue is full: the first one without haste makes room.
            (0..3).for_each(|n| hastes[n].lose());
            assert!(over.as_mut().poll(cx).is_pending());
            assert_eq!(jobs[0].as_mut().poll(cx), std::task::Poll::Ready(Err(QueueFull)));
            (1..3).for_each(|n| assert!(jobs[n].as_mut().poll(cx).is_pending()));
            std::task::Poll::Ready(())
        })
        .await;
        go.send(()).expect("the thread waits");
        busy.await.expect("it ran");
        over.await.expect("it ran");
        for job in jobs.drain(1..) {
            job.await.expect("it ran");
        }
        most.as_mut().await.expect("there is room");
        assert_eq!(*order.lock().expect("nobody panics"), [3, 4, 1, 2, 5]);
    });
}

#[test]
fn a_full_pool_says_so() {
    each(async || {
        let pool = ThreadPool::new("small", 1, 0);
        assert_eq!(pool.run(|| ()).await, Err(QueueFull));
    });
}

#[test]
fn signals_arrive() {
    each(async || {
        let signals = Signals::new(&[os::signal::SIGUSR1]).expect("signals");
        spawn(async {
            sleep(5).await;
            // This thread alone blocks the signal, so it has to be the one that gets it.
            os::signal::raise(os::signal::SIGUSR1);
        });
        let signal = signals.recv().await.expect("a signal");
        assert_eq!(signal.number, os::signal::SIGUSR1);
    });
}

#[test]
fn a_lock_decides_who_accepts() {
    struct Lock(Cell<bool>, Cell<u32>);
    impl AcceptLock for Lock {
        fn try_lock(&self) -> bool {
            !self.0.get()
        }
        fn unlock(&self) {
            self.1.set(self.1.get() + 1);
        }
    }
    each(async || {
        let lock = Rc::new(Lock(Cell::new(true), Cell::new(0)));
        set_accept_mutex(lock.clone(), 10);
        let (listener, addr) = listener(AcceptOptions { mutex: true, ..AcceptOptions::default() });
        let client = connect(&addr).await;
        assert!(pin_timeout(30, listener.accept()).await.is_none(), "another has the lock");
        lock.0.set(false);
        let (server, _) = listener.accept().await.expect("accept");
        server.send(&mut chain(b"x")).await.expect("send");
        assert_eq!(read_exactly(&client, 1).await, b"x");
        assert!(lock.1.get() > 0);
    });
}

#[test]
fn a_paused_listener_waits() {
    each(async || {
        let (listener, addr) = listener(AcceptOptions::default());
        listener.pause(true);
        let _client = connect(&addr).await;
        assert!(pin_timeout(20, listener.accept()).await.is_none());
        listener.pause(false);
        assert!(listener.accept().await.is_ok());
    });
}

#[test]
fn unix_sockets() {
    each(async || {
        let folder = tempfile::TempDir::with_prefix("tidegate-rt-").expect("a folder");
        let path = folder.path().join("s");
        let addr = SockAddr::unix(path.as_os_str().as_encoded_bytes()).expect("short");
        let fd = listen(&addr, &ListenOptions::default()).expect("listen");
        let listener = Listener::new(fd, AcceptOptions::default()).expect("a listener");
        let client = connect(&addr).await;
        let (server, from) = listener.accept().await.expect("accept");
        assert_eq!(from.to_string(), "unix:");
        server.send(&mut chain(b"hello")).await.expect("send");
        assert_eq!(read_exactly(&client, 5).await, b"hello");
    });
}

#[test]
fn tasks_talk() {
    each(async || {
        let (queue, event) = (Rc::new(Queue::new()), Rc::new(Event::new()));
        let (to, told) = (queue.clone(), event.clone());
        spawn(async move {
            told.wait().await;
            for n in 0..3 {
                to.push(n);
                yield_now().await;
            }
            to.close();
        });
        sleep(2).await;
        event.notify();
        let mut got = Vec::new();
        while let Some(n) = queue.pop().await {
            got.push(n);
        }
        assert_eq!(got, [0, 1, 2]);
    });
}

#[test]
fn a_descriptor_lives_on() {
    each(async || {
        let (client, server) = pair().await;
        let server = Stream::from_fd(server.into_fd()).expect("a stream");
        client.send(&mut chain(b"moved")).await.expect("send");
        assert_eq!(read_exactly(&server, 5).await, b"moved");
    });
}

#[test]
fn more_may_be_given_while_sending() {
    each(async || {
        let (client, server) = pair().await;
        let folder = tempfile::TempDir::with_prefix("tidegate-rt-").expect("a folder");
        let path = folder.path().join("f");
        std::fs::write(&path, vec![9; 300_000]).expect("write");
        let file = Rc::new(std::fs::File::open(&path).expect("open"));
        spawn(async move {
            let mut given = 0u8;
            std::future::poll_fn(|cx| {
                while given < 8 {
                    given += 1;
                    let mut chain = chain(&vec![given; 500_000]);
                    chain.push(Piece::File(FileRange { file: file.clone(), offset: 0, len: 300_000 }));
                    let _ = server.poll_send(cx, &mut chain);
                    assert!(chain.is_empty(), "all is taken over");
                }
                server.poll_send(cx, &mut Chain::new())
            })
            .await
            .expect("send");
            assert_eq!((server.pending(), server.sent()), (0, 6_400_000));
        });
        let got = read_exactly(&client, 6_400_000).await;
        for (n, part) in got.chunks(800_000).enumerate() {
            assert!(part[..500_000].iter().all(|b| *b == n as u8 + 1) && part[500_000..].iter().all(|b| *b == 9));
        }
    });
}

#[test]
fn a_storm_of_connections() {
    each_with(Options { connections: 1000, ..Options::default() }, async || {
        let (listener, addr) =
            listener(AcceptOptions { multi_accept: true, exclusive: true, ..AcceptOptions::default() });
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(async move {
                    stream.set_recv_timeout(Some(3000));
                    while let Ok(buf) = stream.recv(4096).await {
                        if buf.is_empty() || stream.send_all(Chain::from(buf.freeze())).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let left = Rc::new(Cell::new(0));
        for n in 0..300u32 {
            let (addr, left) = (addr.clone(), left.clone());
            left.set(left.get() + 1);
            spawn(async move {
                storm_client(&addr, n).await;
                left.set(left.get() - 1);
            });
        }
        while left.get() > 0 {
            sleep(2).await;
        }
        // The other sides follow soon, or on a busy machine somewhat later.
        let mut rounds = 0;
        while connections().active > 1 && rounds < 250 {
            sleep(20).await;
            rounds += 1;
        }
        assert_eq!(connections().active, 1, "all have been closed");
    });
}

/// Sends, reads back a part or all, and leaves: by turns politely, with a reset, or in the middle of everything.
async fn storm_client(addr: &SockAddr, n: u32) {
    let size = 1 + (n as usize * 7919) % 60_000;
    let client = Rc::new(connect(addr).await);
    let sender = client.clone();
    spawn(async move { drop(pin_timeout(50, sender.send(&mut chain(&vec![n as u8; size]))).await) });
    let wanted = if n.is_multiple_of(3) { size } else { size / 3 };
    let mut got = 0;
    while got < wanted {
        let buf = client.recv(1 + n as usize * 10).await.expect("recv");
        assert!(!buf.is_empty() && buf.iter().all(|b| *b == n as u8));
        got += buf.len();
    }
    if n.is_multiple_of(5) {
        client.linger_reset();
    }
}

/// Detaches and attaches, as if the descriptor had gone to another process and come back.
fn moved(stream: Stream) -> Stream {
    let (number, counters) = (stream.number(), (stream.sent() + stream.pending(), stream.received()));
    let parts = stream.detach();
    let unread: u64 = parts.unread.iter().map(|buf| buf.len() as u64).sum();
    assert_eq!(parts.number, number);
    assert_eq!(parts.sent + parts.unsent.len(), counters.0);
    assert!(parts.received <= counters.1 + unread);
    Stream::attach(parts).expect("a stream")
}

#[test]
fn moves_with_all_its_bytes() {
    each(async || {
        let (client, server) = pair().await;
        // Receiving is under way, bytes are on the way, some were given back.
        client.send(&mut chain(b"abc")).await.expect("send");
        let mut first = server.recv(100).await.expect("recv");
        first.consume(1);
        server.unread(first);
        {
            let mut reading = Box::pin(async { read_exactly(&server, 3).await });
            assert!(pin_timeout(5, reading.as_mut()).await.is_none());
        }
        server.unread(Buf::from_memory(b"bc".to_vec().into(), 0, 2));
        client.send(&mut chain(b"def")).await.expect("send");
        sleep(5).await;
        let before = server.number();
        let server = moved(server);
        assert_eq!(server.number(), before);
        assert_eq!(read_exactly(&server, 5).await, b"bcdef");
        assert_eq!(server.received(), 6);
        // It serves on, and its end is told.
        server.send(&mut chain(b"answer")).await.expect("send");
        assert_eq!(read_exactly(&client, 6).await, b"answer");
        assert_eq!(server.sent(), 6);
        client.shutdown_write().expect("shutdown");
        let server = moved(server);
        assert!(server.recv(100).await.expect("the end").is_empty());
    });
}

#[test]
fn moves_again_and_again_under_load() {
    each(async || {
        let (client, mut server) = pair().await;
        let size = 3 << 20;
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let (client, sent) = (Rc::new(client), Bytes::from(bytes.clone()));
        let writer = client.clone();
        let mut to_server = Chain::from(sent.clone());
        spawn(async move { writer.send(&mut to_server).await.expect("send") });
        let reader = client.clone();
        let back = Rc::new(RefCell::new(Vec::new()));
        let into = back.clone();
        spawn(async move {
            while into.borrow().len() < size {
                let buf = reader.recv(64 << 10).await.expect("recv");
                assert!(!buf.is_empty(), "an early end");
                into.borrow_mut().extend_from_slice(&buf);
            }
        });
        // An echo that is moved while it has bytes pending both ways.
        let (mut echoed, mut rounds) = (0, 0);
        while echoed < size {
            if rounds % 3 == 0 {
                let parts = server.detach();
                server = Stream::attach(parts).expect("a stream");
            }
            rounds += 1;
            let Some(buf) = pin_timeout(20, server.recv(8 << 10)).await else { continue };
            let buf = buf.expect("recv");
            assert!(!buf.is_empty(), "an early end");
            echoed += buf.len();
            drop(server.send_all(Chain::from(buf.freeze())));
        }
        while server.pending() > 0 {
            server = moved(server);
            sleep(1).await;
        }
        while back.borrow().len() < size {
            sleep(1).await;
        }
        assert!(*back.borrow() == bytes, "bytes were lost or mixed up");
        assert_eq!((server.received(), server.sent()), (size as u64, size as u64));
    });
}

#[test]
fn news_wake_everybody() {
    each(async || {
        let (client, server) = pair().await;
        let polls = Rc::new(Cell::new(0));
        let count = polls.clone();
        spawn(async move {
            let _ = std::future::poll_fn(|cx| {
                count.set(count.get() + 1);
                server.poll_recv(cx, 10)
            })
            .await;
        });
        sleep(5).await;
        let before = polls.get();
        wake_connections();
        yield_now().await;
        assert_eq!(polls.get(), before + 1);
        client.send(&mut chain(b"x")).await.expect("send");
    });
}
