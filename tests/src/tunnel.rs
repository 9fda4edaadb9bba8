//! Tunnels whose other end sends everything back, under reloads.

use std::io::{Read, Write};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{Connection, Server};

/// Bytes that say where they stand.
pub fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}

/// Sends `size` bytes through each tunnel, whose first one is read slowly, while the server is reloaded again and again: all
/// of them have to come back, and in their order.
pub fn echo_over_reloads(server: &mut Server, tunnels: Vec<Connection>, size: usize) {
    let threads: Vec<_> = tunnels.into_iter().enumerate().flat_map(|(n, tunnel)| pour(tunnel, size, n == 0)).collect();
    let mut reloads = 0;
    while threads.iter().any(|thread| !thread.is_finished()) && reloads < 40 {
        server.reload();
        reloads += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("all bytes arrive"));
    assert!(reloads >= 2, "{reloads} reloads");
}

fn pour(tunnel: Connection, size: usize, slowly: bool) -> [JoinHandle<()>; 2] {
    let mut writer = tunnel.stream().try_clone().expect("a socket can be copied");
    let mut reader = tunnel.stream().try_clone().expect("a socket can be copied");
    let write = thread::spawn(move || {
        let _whole = tunnel;
        for at in (0..size).step_by(32 << 10) {
            writer.write_all(&pattern(at, 32 << 10)).expect("the tunnel stands");
        }
    });
    let read = thread::spawn(move || {
        let (mut at, mut buffer) = (0, vec![0; 48 << 10]);
        while at < size {
            let got = reader.read(&mut buffer).expect("the tunnel stands");
            assert!(got > 0, "an end after {at} bytes");
            assert!(buffer[..got] == pattern(at, got), "wrong bytes behind {at}");
            at += got;
            if slowly {
                // Much is under way all the time.
                thread::sleep(Duration::from_millis(2));
            }
        }
    });
    [write, read]
}
