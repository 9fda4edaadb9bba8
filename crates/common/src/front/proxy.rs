//! The PROXY protocol before a session.

use buf::{Buf, Bytes};
use engine::log::Level;
use os::SockAddr;
use wire::proxy_protocol::{self, MAX_HEADER, Transport};

use super::Visitor;

/// The addresses of a PROXY protocol header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client.
    pub source: SockAddr,
    /// What it connected to.
    pub destination: SockAddr,
    /// The TLVs of version 2, as they came.
    pub tlvs: Box<[u8]>,
}

impl ProxyHeader {
    /// What was read of `bytes`; `None` if it names no addresses.
    pub fn new(header: &proxy_protocol::ProxyHeader, bytes: &[u8]) -> Option<ProxyHeader> {
        let (source, destination) = header.addresses?;
        let tlvs = header.tlvs.of(bytes).into();
        Some(ProxyHeader { source: source.into(), destination: destination.into(), tlvs })
    }
}

/// Reads the header that a connection begins with; what follows it is given back. `first` was read already, and the time to
/// receive all of it is set. `None` closes the connection; the log has been told why.
pub async fn read<'v>(
    stream: &rt::Stream,
    first: &[u8],
    visitor: impl Fn() -> Visitor<'v>,
) -> Option<(Option<ProxyHeader>, Bytes)> {
    let mut buf = Buf::with_capacity(MAX_HEADER);
    buf.extend_from_slice(first);
    let header = loop {
        match proxy_protocol::parse(&buf) {
            Ok(Some(header)) => break header,
            Ok(None) => {}
            Err(_) => {
                log_broken(&visitor(), &buf);
                return None;
            }
        }
        // A proxy that says nothing is closed first if its place is needed.
        let silent = stream.silent();
        let more = stream.recv(MAX_HEADER).await;
        drop(silent);
        let more = match more {
            Err(error) if rt::is_closing(&error) => return None,
            more => more.unwrap_or_else(|_| Buf::empty()),
        };
        if more.is_empty() {
            // The client has closed the connection, or takes too long.
            log_broken(&visitor(), &buf);
            return None;
        }
        buf.extend_from_slice(&more);
    };
    stream.set_recv_timeout(None);
    // What is said of datagrams isn't about this connection.
    let proxy = if header.transport == Transport::Stream { ProxyHeader::new(&header, &buf) } else { None };
    buf.consume(header.len);
    Some((proxy, buf.freeze()))
}

/// What was sent instead of the header, or of the whole of it.
pub fn log_broken(visitor: &Visitor<'_>, header: &[u8]) {
    visitor.log(Level::Error, format_args!("{} while reading PROXY protocol", broken(header)));
}

/// What a broken header is, for the log.
pub fn broken(header: &[u8]) -> String {
    format!("broken header: \"{}\"", header[..header.len().min(64)].escape_ascii())
}
