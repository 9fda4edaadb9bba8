//! Backends and clients that speak in datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client waits for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon a backend notices that it is to end.
const PAUSE: Duration = Duration::from_millis(20);

/// A backend that answers each datagram.
#[derive(Debug)]
pub struct DatagramBackend {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DatagramBackend {
    /// Starts one. What it is asked and by whom becomes any number of answers.
    pub fn start(answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static) -> DatagramBackend {
        DatagramBackend::at(UdpSocket::bind("127.0.0.1:0").expect("a port is free"), answer)
    }

    /// The same, on a socket that is there.
    pub fn at(
        socket: UdpSocket,
        answer: impl Fn(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> DatagramBackend {
        let port = socket.local_addr().expect("it is bound").port();
        socket.set_read_timeout(Some(PAUSE)).expect("a time");
        let (asked, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            while !ended.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                for answer in answer(&bytes[..length], from) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        DatagramBackend { port, asked, over, thread: Some(thread) }
    }

    /// One that says after each datagram which port it came from: `text from 1234`.
    pub fn echo() -> DatagramBackend {
        DatagramBackend::start(|asked, from| vec![[asked, format!(" from {}", from.port()).as_bytes()].concat()])
    }

    /// How many datagrams came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Ends it: its socket is closed.
    pub fn end(mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.take().expect("it runs").join().expect("no panic");
    }
}

/// A client with a socket of its own.
#[derive(Debug)]
pub struct DatagramClient(pub UdpSocket);

impl DatagramClient {
    /// One that speaks to a port of 127.0.0.1.
    pub fn new(port: u16) -> DatagramClient {
        DatagramClient::to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// One that speaks to this address.
    pub fn to(addr: SocketAddr) -> DatagramClient {
        let own = if addr.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(own).expect("a port is free");
        socket.connect(addr).expect("an address");
        DatagramClient(socket)
    }

    /// Sends a datagram.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes.as_ref()).expect("sent");
    }

    /// The next datagram that comes within this time.
    pub fn recv_within(&self, time: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(time)).expect("a time");
        let mut bytes = vec![0; 65536];
        let length = self.0.recv(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// The next datagram, which must come.
    pub fn recv(&self) -> Vec<u8> {
        self.recv_within(PATIENCE).expect("an answer")
    }

    /// What comes in answer to a datagram.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes);
        String::from_utf8_lossy(&self.recv()).into_owned()
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.0.local_addr().expect("it is bound").port()
    }
}
