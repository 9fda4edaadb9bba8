//! The header of the PROXY protocol before what is sent to a backend (`proxy_protocol`).

use std::net::SocketAddr;

use os::SockAddr;
use wire::proxy_protocol::{Transport, write_v1, write_v2};

/// `proxy_protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// No header.
    Off,
    /// A line.
    V1,
    /// The binary one.
    V2,
}

impl Header {
    /// By the names that configurations have for them.
    pub const NAMES: &[(&str, Header)] = &[("off", Header::Off), ("on", Header::V1), ("v2", Header::V2)];

    /// The header for a client and the address that it connected to; nothing without a header. `None`: the fields (TLVs),
    /// which stand in version 2 only, are too long.
    pub fn write(
        self,
        client: &SockAddr,
        local: &SockAddr,
        transport: Transport,
        fields: &[(u8, &[u8])],
    ) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let addresses = inet(client).zip(inet(local));
        let fits = match self {
            Header::Off => true,
            Header::V1 => {
                write_v1(addresses, &mut out);
                true
            }
            Header::V2 => write_v2(addresses, transport, fields, &mut out),
        };
        fits.then_some(out)
    }
}

/// Addresses of unix sockets aren't told.
fn inet(addr: &SockAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(addr.ip()?, addr.port()))
}
