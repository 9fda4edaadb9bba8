//! TLS for clients under load. Who the server is doesn't matter here, so its certificate isn't looked at.

use rustls::ClientConnection;

use crate::sealed;

/// A client's side, before its handshake.
pub(super) fn client() -> ClientConnection {
    sealed::client(sealed::client_config(rustls::DEFAULT_VERSIONS), "localhost")
}
