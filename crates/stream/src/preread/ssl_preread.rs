//! `ssl_preread`: what a TLS client offers, name, protocols and version, read without ending its TLS here.
//!
//! The name chooses the server too, where several listen on one address.

use conf::values::flag;
use conf::{Args, Registry, Result};
use expr::vars::Flags;
use wire::hello::{self, ClientHello, HelloError};
use wire::tagged::{Reader, Writer};

use super::{Found, keep, kept};
use crate::module::{Examined, Handlers, Preread, ServerContext, StreamModule};
use crate::proto::{EVERYWHERE, Getter, Setup};
use crate::session::StreamSession;

/// The module.
pub struct SslPreread;

conf::table! {
    /// Whether ClientHellos are read.
    pub struct SslPrereadConf, raw SslPrereadRaw, module "ngx_stream_ssl_preread_module", level STREAM Server;

    /// Reads what a TLS client says first, without ending its TLS.
    ///
    /// Effect: `$ssl_preread_server_name`, `$ssl_preread_alpn_protocols` and `$ssl_preread_protocol` have values, by which
    /// `proxy_pass` may choose a backend. The name that the client gives chooses the server among those of one address
    /// (`server_name`). A client that doesn't speak TLS is served too; the variables are empty then. What was read goes to
    /// the backend unchanged.
    ///
    /// Cost: up to `preread_buffer_size` of memory until the session has its backend; a client that sends less than its
    /// first message is waited for (`preread_timeout`).
    ///
    /// Danger: the name isn't proven by anything. It suits for choosing a backend, not for access.
    ///
    /// ```nginx
    /// map $ssl_preread_server_name $backend {
    ///     mail.example.com 192.0.2.1:443;
    ///     default          192.0.2.2:443;
    /// }
    /// server {
    ///     listen 8443;
    ///     ssl_preread on;
    ///     proxy_pass $backend;
    /// }
    /// ```
    "ssl_preread" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) ssl_preread: bool = false;
}

/// What a client has offered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Offer {
    pub(super) name: Box<[u8]>,
    /// Separated by commas.
    pub(super) protocols: Vec<u8>,
    /// As in ClientHellos; 0 for none.
    pub(super) version: u16,
}

impl Found for Offer {
    const MODULE: &'static [u8] = b"ssl_preread";

    fn encode(&self, out: &mut Writer) {
        out.bytes(1, &self.name).bytes(2, &self.protocols).number(3, self.version.into());
    }

    fn decode(fields: Reader<'_>) -> Option<Offer> {
        let version = u16::try_from(fields.number(3)?).ok()?;
        Some(Offer { name: fields.bytes(1)?.into(), protocols: fields.bytes(2)?.into(), version })
    }
}

impl StreamModule for SslPreread {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<SslPrereadConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        common::variables! { setup, "ngx_stream_ssl_preread_module";
            /// The name that a TLS client asks for (SNI), as it was sent. Empty without `ssl_preread`, and if the client names
            /// none.
            "ssl_preread_server_name", Flags::NONE, Getter::Plain(|s, out| kept::<Offer>(s, out, |offer| Some(&offer.name)));
            /// The protocols that a TLS client offers by ALPN, separated by commas. Empty without `ssl_preread`, and if the
            /// client offers none.
            "ssl_preread_alpn_protocols", Flags::NONE, Getter::Plain(|s, out| kept::<Offer>(s, out, |offer| Some(&offer.protocols)));
            /// The highest version that a TLS client offers: `TLSv1.3`, `TLSv1.2`, `TLSv1.1`, `TLSv1`, `SSLv3` or `SSLv2`.
            /// Empty without `ssl_preread`, and if the client doesn't speak TLS.
            "ssl_preread_protocol", Flags::NONE, Getter::Plain(|s, out| kept::<Offer>(s, out, |offer| Some(version_name(offer.version).as_bytes())));
        }
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.set.get::<SslPrereadConf>().ssl_preread {
            out.preread.push(Box::new(SslPreread));
        }
        Ok(())
    }
}

impl Preread for SslPreread {
    fn examine(&self, s: &mut StreamSession, bytes: &[u8]) -> Examined {
        match hello::parse(bytes) {
            Ok(None) => return Examined::More,
            Ok(Some(hello)) => {
                keep(s, Offer::of(&hello));
                if let Some(name) = hello.host() {
                    s.choose_server(&name);
                }
            }
            Err(HelloError::OtherProtocol) => match hello::old_version(bytes) {
                Ok(None) => return Examined::More,
                Ok(Some(version)) => keep(s, Offer { version, ..Offer::default() }),
                Err(_) => {}
            },
            Err(_) => {}
        }
        Examined::Done
    }
}

impl Offer {
    fn of(hello: &ClientHello) -> Offer {
        let protocols: Vec<&[u8]> = hello.protocols().collect();
        Offer {
            name: hello.server_name.clone().unwrap_or_default(),
            protocols: protocols.join(&b","[..]),
            version: hello.highest_version(),
        }
    }
}

fn version_name(version: u16) -> &'static str {
    match version {
        0x0002 => "SSLv2",
        0x0300 => "SSLv3",
        0x0301 => "TLSv1",
        0x0302 => "TLSv1.1",
        0x0303 => "TLSv1.2",
        0x0304 => "TLSv1.3",
        _ => "",
    }
}
