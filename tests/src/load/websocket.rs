//! A WebSocket of numbered frames: each must come back once, in its place, unchanged.

use std::time::{Duration, Instant};

use super::content::body;
use super::exchange::{Fault, Link, field};
use super::{Loss, Target};

/// The handshake's key, and the answer that belongs to it (RFC 6455 §1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What the backend has to answer to [`KEY`].
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The bytes that a client's frames are masked with.
const MASK: [u8; 4] = [0x5a, 0x11, 0xc3, 0x7e];

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

/// An open WebSocket.
#[derive(Debug)]
pub struct Tunnel {
    link: Link,
    sent: u64,
    received: u64,
}

impl Tunnel {
    /// Connects and asks for the upgrade.
    pub fn open(target: &Target) -> Result<Tunnel, Fault> {
        let mut link = Link::open(target)?;
        let head = format!(
            "GET /b/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        link.write(head.as_bytes()).map_err(|e| (Loss::Reset, format!("sending the handshake: {e}")))?;
        let head = link.read_head(true, Instant::now() + Duration::from_secs(30))?;
        if !head.starts_with("http/1.1 101")
            || field(&head, "sec-websocket-accept") != Some(&ACCEPT.to_ascii_lowercase())
        {
            return Err((Loss::Wrong, format!("the handshake: {head:?}")));
        }
        link.answers = 1;
        Ok(Tunnel { link, sent: 0, received: 0 })
    }

    /// The client's port.
    pub fn port(&self) -> u16 {
        self.link.port()
    }

    /// Whether the server has ended the tunnel.
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Sends the next frame.
    pub fn send(&mut self) -> Result<(), Fault> {
        let bytes = frame(BINARY, &payload(self.sent), Some(MASK));
        self.sent += 1;
        self.link.write(&bytes).map_err(|e| (Loss::Reset, format!("sending frame {}: {e}", self.sent - 1)))
    }

    /// Reads the echo of the next frame that is out.
    pub fn receive(&mut self) -> Result<(), Fault> {
        let number = self.received;
        let expect = frame(BINARY, &payload(number), None);
        let got = self.link.take(expect.len()).map_err(|(loss, story)| (loss, format!("frame {number}: {story}")))?;
        if got != expect {
            return Err((Loss::Wrong, format!("frame {number}")));
        }
        self.received += 1;
        Ok(())
    }

    /// Says good-bye, and waits until the other side has said so and closed.
    pub fn close(mut self) -> Result<(), Fault> {
        let reset = |e: std::io::Error| (Loss::Reset, format!("sending the close: {e}"));
        self.link.write(&frame(CLOSE, b"", Some(MASK))).map_err(reset)?;
        let got = self.link.take(2).map_err(|(loss, story)| (loss, format!("the close: {story}")))?;
        if got != [CLOSE, 0] {
            return Err((Loss::Wrong, "another frame for the close".into()));
        }
        self.link.expect_end()
    }
}

/// Frame `number`: its number, then bytes that belong to it; lengths differ.
fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend_from_slice(body(number as usize, number as usize % 100));
    bytes
}

/// A frame below 126 bytes (RFC 6455 §5.2), masked if it is a client's.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![first, payload.len() as u8 | if mask.is_some() { 0x80 } else { 0 }];
    match mask {
        Some(mask) => {
            bytes.extend_from_slice(&mask);
            bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        }
        None => bytes.extend_from_slice(payload),
    }
    bytes
}

/// The first client's frame in these bytes: how long it is, what the echo of it is, and whether it is the close.
pub(super) fn echo(bytes: &[u8]) -> Option<(usize, Vec<u8>, bool)> {
    let (&[first, length, a, b, c, d], rest) = bytes.split_first_chunk()?;
    let length = usize::from(length & 0x7f);
    let payload: Vec<u8> = rest.get(..length)?.iter().zip([a, b, c, d].iter().cycle()).map(|(b, m)| b ^ m).collect();
    Some((6 + length, frame(first, &payload, None), first == CLOSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let bytes = frame(BINARY, &payload(5), Some(MASK));
        let (length, back, close) = echo(&bytes).unwrap();
        assert_eq!((length, close), (bytes.len(), false));
        assert_eq!(back, frame(BINARY, &payload(5), None));
        (0..bytes.len()).for_each(|n| assert!(echo(&bytes[..n]).is_none()));
        assert!(echo(&frame(CLOSE, b"", Some(MASK))).unwrap().2);
    }
}
