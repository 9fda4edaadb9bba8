//! How a request reaches its client: by a socket of its own, or by a stream of an HTTP/2 connection.
//!
//! What a [`rt::Stream`] does for handlers, filters, variables and logs, [`Client`] does for both.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker};

use buf::{Bytes, Chain};
use common::pump::Side;
use os::SockAddr;
use rt::{Peer, Tried};

use super::h2::StreamHandle;
use crate::response::headers::Headers;

/// The way to a client.
pub enum Client {
    /// HTTP/1: the connection is the request's alone.
    Socket(rt::Stream),
    /// HTTP/2: a stream beside others.
    Stream(StreamHandle),
}

/// Calls the method of the same name on either kind.
macro_rules! either {
    ($client:expr, $side:ident => $call:expr) => {
        match $client {
            Client::Socket($side) => $call,
            Client::Stream($side) => $call,
        }
    };
}

impl Peer for Client {
    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        Client::poll_hangup(self, cx)
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Client::Socket(socket) => socket.poll_reset(cx),
            // A stream hangs up only if it is reset: that the request has ended is no hangup.
            Client::Stream(stream) => stream.poll_hangup(cx),
        }
    }
}

impl From<rt::Stream> for Client {
    fn from(stream: rt::Stream) -> Client {
        Client::Socket(stream)
    }
}

impl Side for Client {
    type Read = Bytes;

    fn poll_recv(&self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Bytes>> {
        self.poll_recv(cx, size)
    }

    fn try_send(&self, bytes: &[u8]) -> io::Result<Tried> {
        self.try_send(bytes)
    }

    fn poll_send(&self, cx: &mut Context<'_>, chain: &mut Chain) -> Poll<io::Result<()>> {
        self.poll_send(cx, chain)
    }
}

/// Sending and receiving.
impl Client {
    /// Reads what there is, up to about `size_hint` bytes; nothing is the end. Of an HTTP/2 stream: the request's body.
    /// Errors as those of [`rt::Stream::poll_recv`].
    pub fn poll_recv(&self, cx: &mut Context<'_>, size_hint: usize) -> Poll<io::Result<Bytes>> {
        match self {
            Client::Socket(socket) => socket.poll_recv_shared(cx, size_hint),
            Client::Stream(stream) => stream.poll_recv(cx),
        }
    }

    /// See [`Client::poll_recv`].
    pub async fn recv(&self, size_hint: usize) -> io::Result<Bytes> {
        poll_fn(|cx| self.poll_recv(cx, size_hint)).await
    }

    /// Takes all pieces of `chain` over and sends them, as [`rt::Stream::poll_send`]. On an HTTP/2 stream they are the
    /// response's body, and go as its windows allow.
    pub fn poll_send(&self, cx: &mut Context<'_>, chain: &mut Chain) -> Poll<io::Result<()>> {
        either!(self, side => side.poll_send(cx, chain))
    }

    /// See [`Client::poll_send`].
    pub async fn send(&self, chain: &mut Chain) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx, chain)).await
    }

    /// Sends bytes at once if that is possible, as [`rt::Stream::try_send`].
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<Tried> {
        match self {
            Client::Socket(socket) => socket.try_send(bytes),
            Client::Stream(_) => Ok(Tried::Nothing),
        }
    }

    /// Sends a head before the final one: 100, 103. It's short: what doesn't go out now goes out before the response.
    pub fn send_interim(&self, status_line: &str, fields: &Headers) {
        match self {
            Client::Socket(socket) => {
                let mut text = format!("HTTP/1.1 {status_line}\r\n").into_bytes();
                for field in fields {
                    for part in [&field.name[..], b": ", &field.value, b"\r\n"] {
                        text.extend_from_slice(part);
                    }
                }
                text.extend_from_slice(b"\r\n");
                let mut chain = Chain::from(Bytes::from(text));
                let _ = socket.poll_send(&mut Context::from_waker(Waker::noop()), &mut chain);
            }
            Client::Stream(stream) => stream.send_interim(status_line, fields),
        }
    }

    /// Ready once the client has closed its side, is gone, or doesn't want the response any more.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, side => side.poll_hangup(cx))
    }

    /// Lets the client send so much of a body beyond what is read; a socket has the kernel for that.
    pub(crate) fn open_window(&self, size: usize) {
        if let Client::Stream(stream) = self {
            stream.open_window(size);
        }
    }
}

/// Deadlines.
impl Client {
    /// Lets the current and the following `recv` fail `ms` from now; `None`: never.
    pub fn set_recv_timeout(&self, ms: Option<u64>) {
        either!(self, side => side.set_recv_timeout(ms));
    }

    /// Whether a deadline for `recv` is set.
    pub fn recv_timeout_set(&self) -> bool {
        either!(self, side => side.recv_timeout_set())
    }

    /// The longest time without progress while something waits to be sent; `None`: any.
    pub fn set_send_timeout(&self, ms: Option<u64>) {
        either!(self, side => side.set_send_timeout(ms));
    }
}

/// Facts.
impl Client {
    /// The connection's serial number.
    pub fn number(&self) -> u64 {
        self.socket().number()
    }

    /// Bytes sent so far: by the connection, or on the stream.
    pub fn sent(&self) -> u64 {
        either!(self, side => side.sent())
    }

    /// What frames of HTTP/2 have added to it.
    pub(crate) fn sent_framing(&self) -> u64 {
        self.stream().map_or(0, StreamHandle::sent_framing)
    }

    /// The own address.
    pub fn local_addr(&self) -> io::Result<SockAddr> {
        self.socket().local_addr()
    }

    /// What the kernel knows of the connection.
    pub fn tcp_info(&self) -> io::Result<os::socket::TcpInfo> {
        self.socket().tcp_info()
    }

    /// Whether it is a TLS connection.
    pub fn is_layered(&self) -> bool {
        self.socket().is_layered()
    }

    /// Calls `f` with what stands between the socket and the users, if there is something: TLS.
    pub fn with_layer<T>(&self, f: impl FnOnce(&dyn rt::Layer) -> T) -> Option<T> {
        self.socket().with_layer(f)
    }

    /// The stream, if it is one of HTTP/2.
    pub fn stream(&self) -> Option<&StreamHandle> {
        match self {
            Client::Socket(_) => None,
            Client::Stream(stream) => Some(stream),
        }
    }

    /// The connection's socket.
    pub fn socket(&self) -> &rt::Stream {
        match self {
            Client::Socket(socket) => socket,
            Client::Stream(stream) => stream.socket(),
        }
    }

    /// The socket, if it is the request's alone.
    pub(crate) fn into_socket(self) -> Option<rt::Stream> {
        match self {
            Client::Socket(socket) => Some(socket),
            Client::Stream(_) => None,
        }
    }
}

/// What concerns the socket alone: nothing happens to a connection for one of its streams.
impl Client {
    /// TCP_NODELAY; an HTTP/2 connection has it from its start.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self {
            Client::Socket(socket) => socket.set_nodelay(on),
            Client::Stream(_) => Ok(()),
        }
    }

    /// `tcp_nopush`.
    pub fn set_nopush(&self, on: bool) {
        if let Client::Socket(socket) = self {
            socket.set_nopush(on);
        }
    }

    /// Lets the closing reset the connection (`reset_timedout_connection`).
    pub fn linger_reset(&self) {
        if let Client::Socket(socket) = self {
            socket.linger_reset();
        }
    }

    /// Marks the connection as one whose client has said nothing yet: the first to be closed if its place is needed.
    pub fn set_silent(&self) {
        if let Client::Socket(socket) = self {
            socket.set_silent();
        }
    }

    /// Marks the connection as idle, as [`rt::Stream::rest`]; whether the running task waits for bytes now.
    pub fn rest(&self, ms: Option<u64>) -> bool {
        match self {
            Client::Socket(socket) => socket.rest(ms),
            Client::Stream(_) => false,
        }
    }

    /// Ends a [`Client::rest`]: the connection is busy, and `recv` has no deadline any more.
    pub fn wake(&self) {
        if let Client::Socket(socket) = self {
            socket.wake();
        }
    }

    /// Marks the connection as idle: free to be closed if its place is needed.
    pub fn set_idle(&self, idle: bool) {
        if let Client::Socket(socket) = self {
            socket.set_idle(idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_no_larger_than_a_socket() {
        assert_eq!(size_of::<Client>(), size_of::<rt::Stream>());
    }
}
