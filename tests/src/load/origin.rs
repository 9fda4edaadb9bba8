//! The backend behind the proxy: answers what the URI names, checks what it gets, echoes WebSocket frames.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::content::{body, parse};
use super::exchange::field;
use super::websocket::{ACCEPT, echo};
use crate::Backend;

/// How long an idle connection lasts: longer than any scenario.
const PATIENCE: Duration = Duration::from_secs(300);

/// Starts the backend; its threads end with the process.
pub fn origin() -> Backend {
    Backend::sockets(|stream, _| serve(stream))
}

fn serve(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_nodelay(true);
    let mut ahead = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut ahead) {
        if field(&head, "upgrade").is_some() {
            tunnel(stream, ahead);
            return;
        }
        let Some(answer) = answer(&mut stream, &mut ahead, &head) else { return };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn answer(stream: &mut TcpStream, ahead: &mut Vec<u8>, head: &str) -> Option<Vec<u8>> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let upload = field(head, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let got = take(stream, ahead, upload)?;
    let Some((seed, length)) = parse(path).filter(|(seed, _)| got == body(seed + 1, upload)) else {
        return Some(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec());
    };
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body(seed, length));
    Some(bytes)
}

fn tunnel(mut stream: TcpStream, mut ahead: Vec<u8>) {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    loop {
        while let Some((length, back, close)) = echo(&ahead) {
            ahead.drain(..length);
            if stream.write_all(&back).is_err() || close {
                return;
            }
        }
        if fill(&mut stream, &mut ahead).is_none() {
            return;
        }
    }
}

/// The next head, in lower case.
fn read_head(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = ahead.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = take(stream, ahead, at + 4)?;
            return Some(String::from_utf8_lossy(&head).to_ascii_lowercase());
        }
        fill(stream, ahead)?;
    }
}

fn take(stream: &mut TcpStream, ahead: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while ahead.len() < length {
        fill(stream, ahead)?;
    }
    let rest = ahead.split_off(length);
    Some(std::mem::replace(ahead, rest))
}

fn fill(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
    ahead.extend_from_slice(buffer.get(..n)?);
    Some(())
}
