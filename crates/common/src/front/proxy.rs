//! The PROXY protocol before a session.

use os::SockAddr;

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
