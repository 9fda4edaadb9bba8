//! Handshakes over real sockets, with the library's own client on the other side.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use buf::{Buf, Chain};
use rt::{Options, Runtime, Stream};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tls::{
    First, HandshakeError, Identity, LocalCache, Protocols, Secured, Server, ServerLayer, ServerSettings, TicketKeys,
};

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["example.com".to_owned()]).unwrap();
    tls::identity(&format!("data:{}", made.cert.pem()), &format!("data:{}", made.signing_key.serialize_pem()), &[])
        .unwrap()
}

fn settings() -> ServerSettings {
    ServerSettings {
        identities: vec![identity()],
        named: Vec::new(),
        protocols: Protocols { tls12: true, tls13: true },
        ciphers: "HIGH:!aNULL:!MD5".to_owned(),
        ciphersuites: None,
        curves: "auto".to_owned(),
        prefer_server: false,
        buffer_size: 16384,
        alpn: vec![b"http/1.1".to_vec()],
        cache: None,
        tickets: Some(TicketKeys::random()),
        timeout_s: 300,
        early_data: false,
        compression: false,
        client_auth: None,
        key_log: None,
    }
}

/// A client that trusts the server and speaks these versions.
fn client(settings: &ServerSettings, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for identity in &settings.identities {
        roots.add(identity.chain()[0].clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A connection with the client in a thread: what the server's side makes of it, and what the client returns.
fn connect<T: Send + 'static>(
    server: &Server,
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Result<Stream, HandshakeError>, std::thread::JoinHandle<T>, Runtime) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || client(TcpStream::connect(addr).unwrap()));
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let runtime = Runtime::new(Options::default()).unwrap();
    let stream = runtime.block_on(async {
        let stream = Stream::from_fd(OwnedFd::from(socket)).unwrap();
        stream.set_recv_timeout(Some(10_000));
        match tls::first_bytes(&stream, Buf::empty()).await? {
            First::Hello(hello, input) => {
                tls::accept(&stream, server, None, *hello, input, Rc::new(())).await.map(|_| ())?
            }
            First::Plain(_) | First::Closed => return Err(HandshakeError::Closed),
        }
        Ok(stream)
    });
    (stream, thread, runtime)
}

/// What is known of a server's connection.
fn secured(layer: &dyn rt::Layer) -> &Secured {
    layer.as_any().downcast_ref::<ServerLayer>().unwrap().secured()
}

/// Sends `length` bytes, ends, and reads until the end.
fn talk(config: Arc<ClientConfig>, socket: TcpStream, length: usize) -> (Vec<u8>, rustls::HandshakeKind) {
    let name = ServerName::try_from("example.com").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket);
    let sent: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("the server ends with close_notify");
    (got, stream.conn.handshake_kind().unwrap())
}

/// Receives all, and sends it back.
fn echo(runtime: &Runtime, stream: Stream) -> usize {
    runtime.block_on(async {
        let mut all = Chain::new();
        loop {
            let buf = stream.recv(16384).await.unwrap();
            if buf.is_empty() {
                break;
            }
            all.push_bytes(buf.freeze());
        }
        let length = all.len();
        assert_eq!(stream.received(), length);
        stream.send(&mut all).await.unwrap();
        assert_eq!((stream.sent(), stream.pending()), (length, 0));
        stream.shutdown_write().unwrap();
        length as usize
    })
}

#[test]
fn bytes_go_both_ways() {
    let settings = settings();
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        for (length, buffer_size) in [(1, 16384), (20_000, 1024), (1_000_000, 16384), (3_000_000, 4096)] {
            let server = Server::new(&ServerSettings { buffer_size, ..settings.clone() }).unwrap();
            let config = client(&settings, versions);
            let (stream, thread, runtime) = connect(&server, move |socket| talk(config, socket, length));
            assert_eq!(echo(&runtime, stream.unwrap()), length);
            let (got, _) = thread.join().unwrap();
            assert!(got.len() == length && got.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
        }
    }
}

#[test]
fn sessions_are_resumed_by_tickets_and_by_the_cache() {
    let by_ticket = settings();
    let by_cache =
        ServerSettings { tickets: None, cache: Some(Arc::new(LocalCache::new(1 << 20))), ..by_ticket.clone() };
    let never = ServerSettings { tickets: None, ..by_ticket.clone() };
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        for (settings, resumed) in [(&by_ticket, true), (&by_cache, true), (&never, false)] {
            let config = client(settings, versions);
            for round in 0..3 {
                // Each time a server of its own, as other workers have.
                let server = Server::new(settings).unwrap();
                let config = config.clone();
                let (stream, thread, runtime) = connect(&server, move |socket| talk(config, socket, 10));
                let stream = stream.unwrap();
                let seen = stream.with_layer(|layer| secured(layer).is_resumed());
                echo(&runtime, stream);
                let (_, kind) = thread.join().unwrap();
                let expect = resumed && round > 0;
                assert_eq!(
                    (kind == rustls::HandshakeKind::Resumed, seen),
                    (expect, Some(expect)),
                    "{versions:?} {round}"
                );
            }
        }
    }
}

#[test]
fn facts_of_a_connection() {
    let settings = ServerSettings { curves: "prime256v1".to_owned(), ..settings() };
    let server = Server::new(&settings).unwrap();
    let config = client(&settings, &[&rustls::version::TLS12]);
    let (stream, thread, runtime) = connect(&server, move |socket| talk(config, socket, 10));
    let stream = stream.unwrap();
    stream.with_layer(|layer| {
        let layer = secured(layer);
        let facts = (layer.protocol(), layer.cipher(), layer.curve(), layer.alpn());
        assert_eq!(facts, ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "prime256v1", Some(&b"http/1.1"[..])));
        assert_eq!(layer.hello.server_name.as_deref(), Some(&b"example.com"[..]));
    });
    echo(&runtime, stream);
    thread.join().unwrap();
}

#[test]
fn what_both_do_not_know_is_refused() {
    let check = |settings: ServerSettings, versions: &[&'static rustls::SupportedProtocolVersion], expect: &str| {
        let server = Server::new(&settings).unwrap();
        let config = client(&settings, versions);
        let (stream, thread, _runtime) = connect(&server, move |mut socket| {
            let name = ServerName::try_from("example.com").unwrap();
            let mut conn = ClientConnection::new(config, name).unwrap();
            conn.complete_io(&mut socket).unwrap_err().to_string()
        });
        match stream {
            Err(HandshakeError::Tls(text)) => assert!(text.contains(expect), "{text}"),
            other => panic!("{other:?}"),
        }
        // The client is told.
        let told = thread.join().unwrap();
        assert!(told.contains("alert"), "{told}");
    };
    let only12 = Protocols { tls12: true, tls13: false };
    check(ServerSettings { protocols: only12, ..settings() }, &[&rustls::version::TLS13], "unsupported protocol");
    let only13 = Protocols { tls12: false, tls13: true };
    check(ServerSettings { protocols: only13, ..settings() }, &[&rustls::version::TLS12], "unsupported protocol");
    let rsa = ServerSettings { ciphers: "ECDHE-RSA-AES128-GCM-SHA256".to_owned(), ..settings() };
    check(rsa, &[&rustls::version::TLS12], "no shared cipher");
}

#[test]
fn broken_bytes_are_refused() {
    let server = Server::new(&settings()).unwrap();
    for (bytes, plain) in [(&b"GET / HTTP/1.0\r\n\r\n"[..], true), (b"\x16\x03\x01\x00\x05\x02\0\0\0\0", false)] {
        let (stream, thread, _runtime) = connect(&server, move |mut socket| {
            socket.write_all(bytes).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let mut got = Vec::new();
            let _ = socket.read_to_end(&mut got);
            got
        });
        match stream {
            Err(HandshakeError::Closed) => assert!(plain),
            Err(HandshakeError::Tls(_)) => assert!(!plain),
            other => panic!("{other:?}"),
        }
        drop(_runtime);
        let _ = thread.join();
    }
}
