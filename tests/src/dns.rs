//! A name server inside the test.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Answers questions for addresses over UDP; its thread ends with the test's process.
#[derive(Debug)]
pub struct NameServer {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// Starts one that says 127.0.0.1 for one name, that name for 127.0.0.1, and that there is no other.
    pub fn start(known: &str) -> NameServer {
        NameServer::late(known, Duration::ZERO)
    }

    /// The same, but each answer comes only after a while.
    pub fn late(known: &str, wait: Duration) -> NameServer {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = socket.local_addr().expect("it is bound").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, known) = (asked.clone(), known.to_owned());
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((len, peer)) = socket.recv_from(&mut question) {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&question[..len], &known);
                let Ok(socket) = socket.try_clone() else { return };
                std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    let _ = socket.send_to(&answer, peer);
                });
            }
        });
        NameServer { port, asked }
    }

    /// How many questions came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(question: &[u8], known: &str) -> Vec<u8> {
    let labels = known.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    let name: Vec<u8> = labels.chain([0]).collect();
    let is_address = question[12..].starts_with(b"\x011\x010\x010\x03127\x07in-addr\x04arpa\0");
    let is_known = question[12..].starts_with(&name);
    let kind = question[question.len() - 3];
    let mut answer = question.to_vec();
    // An answer, recursion desired and available; the code says whether there is such a name.
    answer[2..4].copy_from_slice(&[0x81, if is_known || is_address { 0x80 } else { 0x83 }]);
    if is_address && kind == 12 {
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 60, 0, name.len() as u8]);
        answer.extend_from_slice(&name);
    }
    if is_known && kind == 1 {
        answer[7] = 1;
        // The name of the question, an address of the internet, for a minute, four bytes.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&Ipv4Addr::LOCALHOST.octets());
    }
    answer
}
