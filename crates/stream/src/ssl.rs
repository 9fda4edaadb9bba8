//! The TLS handshake of sessions: what streams have beside the shared `ssl_*` directives.

use common::front::ssl::{SslConf, VerifyClient};
use conf::values::msec;
use conf::{Args, Directive, Error, Loader, Registry, Result, Word};

use crate::module::StreamModule;
use crate::proto::{EVERYWHERE, StreamProto};
use crate::session::StreamSession;

/// The module.
pub struct Handshake;

conf::table! {
    /// How the handshake is made.
    pub struct HandshakeConf, raw HandshakeRaw, module "ngx_stream_ssl_module", level STREAM Server;

    /// Limits the time of the TLS handshake.
    ///
    /// Form: `ssl_handshake_timeout time`
    ///
    /// - `time`: the time from the end of one read or write to the next, and for the first message as a whole.
    ///
    /// Effect: when the time is over, the connection is closed. The value of the address's default server holds.
    ///
    /// ```nginx
    /// ssl_handshake_timeout 10s;
    /// ```
    "ssl_handshake_timeout" in EVERYWHERE, Args::exactly(1), default "60s",
        scalar(msec) ssl_handshake_timeout: u64 = 60_000;
    /// Names the protocols that are offered to clients with ALPN, the preferred one first.
    ///
    /// Form: `ssl_alpn protocol ...`
    ///
    /// - `protocol`: a name, such as `h2`; from 1 to 255 bytes.
    ///
    /// Effect: a client that asks for protocols, and for none of these, is refused. The one that was chosen is
    /// `$ssl_alpn_protocol`.
    ///
    /// ```nginx
    /// server {
    ///     listen 127.0.0.1:8443 ssl;
    ///     ssl_certificate site.crt;
    ///     ssl_certificate_key site.key;
    ///     ssl_alpn h2 http/1.1;
    ///     proxy_pass 127.0.0.1:8080;
    /// }
    /// ```
    "ssl_alpn" in EVERYWHERE, Args::at_least(1), default none,
        set(alpn) ssl_alpn: Vec<Vec<u8>> = Vec::new();
}

fn alpn(raw: &mut HandshakeRaw, _: &mut Loader<'_>, d: &Directive) -> Result<()> {
    if raw.ssl_alpn.is_some() {
        return Err(conf::table::duplicate(d));
    }
    raw.ssl_alpn = Some(d.args.iter().map(|word| Ok(protocol(word)?.to_vec())).collect::<Result<_>>()?);
    Ok(())
}

/// The name of a protocol for ALPN.
pub(crate) fn protocol(word: &Word) -> Result<&[u8]> {
    match word.text.len() {
        0..=255 => Ok(&word.text),
        _ => Err(Error::at(word, "protocol too long")),
    }
}

impl StreamModule for Handshake {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<HandshakeConf>();
    }
}

impl StreamSession {
    /// What its server demands of the client's certificate.
    pub(crate) fn verify_client(&self) -> VerifyClient {
        self.server.set.get::<SslConf<StreamProto>>().ssl_verify_client
    }
}
