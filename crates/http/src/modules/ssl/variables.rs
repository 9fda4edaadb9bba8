//! The variables `$ssl_…`.

use expr::vars::Flags;
use tls::{ServerLayer, names};

use crate::core::request::Request;
use crate::core::tls::Pending;
use crate::core::variables::{Getter, Setup, add_all, put};

/// Defines them.
pub fn define(setup: &mut Setup) {
    let none = Flags::NONE;
    add_all(
        setup,
        "ngx_http_ssl_module",
        &[
            ("ssl_protocol", none, Getter::Plain(|r, out| of(r, |tls| put(out, tls.protocol().as_bytes())))),
            ("ssl_cipher", none, Getter::Plain(|r, out| of(r, |tls| put(out, tls.cipher().as_bytes())))),
            ("ssl_curve", none, Getter::Plain(|r, out| of(r, |tls| put(out, tls.curve().as_bytes())))),
            ("ssl_ciphers", none, Getter::Plain(ciphers)),
            ("ssl_curves", none, Getter::Plain(curves)),
            ("ssl_server_name", none, Getter::Plain(server_name)),
            ("ssl_session_id", none, Getter::Plain(|r, out| of(r, |_| put(out, b"")))),
            (
                "ssl_session_reused",
                none,
                Getter::Plain(|r, out| of(r, |tls| put(out, if tls.is_resumed() { b"r" } else { b"." }))),
            ),
            ("ssl_alpn_protocol", none, Getter::Plain(|r, out| of(r, |tls| put(out, tls.alpn().unwrap_or_default())))),
        ],
    );
}

/// Asks the connection's TLS; without TLS there is no value.
fn of(r: &Request, ask: impl FnOnce(&ServerLayer) -> bool) -> bool {
    r.conn.stream.with_layer(|layer| ServerLayer::of(layer).is_some_and(ask)).unwrap_or(false)
}

fn ciphers(r: &mut Request, out: &mut Vec<u8>) -> bool {
    of(r, |tls| put(out, names::list(&tls.info().hello.suites, names::suite).as_bytes()))
}

fn curves(r: &mut Request, out: &mut Vec<u8>) -> bool {
    of(r, |tls| put(out, names::list(&tls.info().hello.groups, names::group).as_bytes()))
}

fn server_name(r: &mut Request, out: &mut Vec<u8>) -> bool {
    if let Some(pending) = r.find_slot::<Pending>() {
        return put(out, &pending.server_name);
    }
    of(r, |tls| put(out, tls.info().hello.server_name.as_deref().unwrap_or_default()))
}
