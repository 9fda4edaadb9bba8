//! Variables that every protocol has: of the connection, of the process, of the time.

use expr::vars::Flags;

use super::text::{address, number, put, show};
use super::{Getter, Setup};
use crate::front::proxy::ProxyHeader;
use crate::{Facts, Proto};

/// Defines them.
pub fn define<P: Proto>(setup: &mut Setup<P>) {
    define_connection(setup);
    define_process(setup);
}

fn define_connection<P: Proto>(setup: &mut Setup<P>) {
    let module = P::tables().core.module();
    crate::variables! { setup, module;
        /// The client's address in binary: 4 bytes for IPv4, 16 for IPv6, `unix:` for a client on a unix
        /// socket.
        "binary_remote_addr", Flags::NONE, Getter::Plain(binary_remote_addr);
        /// The client's address; `unix:` on a unix socket.
        "remote_addr", Flags::NONE, Getter::<P>::Plain(|s, out| address(out, s.peer()));
        /// The client's port. Empty on a unix socket.
        "remote_port", Flags::NONE, Getter::Plain(remote_port);
        /// The client's address of the PROXY protocol's header. Empty without `proxy_protocol` in `listen`.
        "proxy_protocol_addr", Flags::NONE, Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.source.text()));
        /// The client's port of the PROXY protocol's header. Empty without `proxy_protocol` in `listen`.
        "proxy_protocol_port", Flags::NONE, Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.source.port().to_string()));
        /// The address that the client connected to, of the PROXY protocol's header. Empty without
        /// `proxy_protocol` in `listen`.
        "proxy_protocol_server_addr", Flags::NONE, Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.destination.text()));
        /// The port that the client connected to, of the PROXY protocol's header. Empty without
        /// `proxy_protocol` in `listen`.
        "proxy_protocol_server_port", Flags::NONE, Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.destination.port().to_string()));
        /// A field (TLV) of the PROXY protocol's header, version 2, by its name (`alpn`, `authority`,
        /// `unique_id`, `netns`; `ssl_version`, `ssl_cn`, `ssl_cipher`, `ssl_sig_alg`, `ssl_key_alg`,
        /// `ssl_verify`) or number (`0x01`, `ssl_0x21`). Empty if the header doesn't have it.
        "proxy_protocol_tlv_", Flags::PREFIX, Getter::Family(proxy_tlv);
        /// The address on which the connection was accepted; `unix:` and the path on a unix socket.
        "server_addr", Flags::NONE, Getter::Plain(server_addr);
        /// The port on which the connection was accepted. Empty on a unix socket.
        "server_port", Flags::NONE, Getter::Plain(server_port);
        /// The number of the connection; unique in its worker.
        "connection", Flags::NONE, Getter::<P>::Plain(|s, out| number(out, s.number()));
    }
}

fn define_process<P: Proto>(setup: &mut Setup<P>) {
    let module = P::tables().core.module();
    crate::variables! { setup, module;
        /// The version of nginx that this program follows.
        "nginx_version", Flags::NONE, Getter::<P>::Plain(|_, out| put(out, engine::NGINX_VERSION.as_bytes()));
        /// The process id of the worker.
        "pid", Flags::NONE, Getter::<P>::Plain(|_, out| number(out, std::process::id().into()));
        /// The current time in seconds since 1970, with milliseconds.
        "msec", Flags::NOCACHEABLE, Getter::<P>::Plain(|_, out| {
                        let (secs, msec) = engine::clock::now();
                        show(out, format_args!("{secs}.{msec:03}"))
                    });
        /// The local time in the form of ISO 8601.
        "time_iso8601", Flags::NOCACHEABLE, Getter::<P>::Plain(|_, out| put(out, engine::clock::times().iso8601.as_bytes()));
        /// The local time in the form of the common log format.
        "time_local", Flags::NOCACHEABLE, Getter::<P>::Plain(|_, out| put(out, engine::clock::times().http_log.as_bytes()));
    }
}

fn binary_remote_addr<S: Facts>(session: &mut S, out: &mut Vec<u8>) -> bool {
    let peer = session.peer();
    if peer.is_unix() { address(out, peer) } else { put(out, &peer.binary()) }
}

fn remote_port<S: Facts>(session: &mut S, out: &mut Vec<u8>) -> bool {
    match session.peer().port() {
        0 => true,
        port => number(out, port.into()),
    }
}

/// A unix socket of ours is told with its path; a client's has none.
fn server_addr<S: Facts>(session: &mut S, out: &mut Vec<u8>) -> bool {
    let local = session.local();
    address(out, local) && (!local.is_unix() || put(out, &local.binary()))
}

fn server_port<S: Facts>(session: &mut S, out: &mut Vec<u8>) -> bool {
    let local = session.local();
    if local.is_unix() { true } else { number(out, local.port().into()) }
}

fn proxied<S: Facts>(session: &S, out: &mut Vec<u8>, of: fn(&ProxyHeader) -> String) -> bool {
    match session.proxy() {
        Some(header) => put(out, of(header).as_bytes()),
        None => false,
    }
}

/// `$proxy_protocol_tlv_name`, by name or number (`0x01`).
fn proxy_tlv<S: Facts>(session: &mut S, name: &str, out: &mut Vec<u8>) -> bool {
    use wire::proxy_protocol::{tlv, tlv_kind};
    let Some(header) = session.proxy() else { return false };
    if let Some(name) = name.strip_prefix("ssl_") {
        // The TLS one begins with a byte of flags and the four of the result of the client's verification.
        let Ok(Some(value)) = tlv(&header.tlvs, 0x20) else { return false };
        let Some((verify, rest)) = value.get(1..).and_then(|value| value.split_first_chunk::<4>()) else {
            return false;
        };
        let kind = match name {
            "verify" => return show(out, format_args!("{}", u32::from_be_bytes(*verify))),
            "version" => Some(0x21),
            "cn" => Some(0x22),
            "cipher" => Some(0x23),
            "sig_alg" => Some(0x24),
            "key_alg" => Some(0x25),
            _ => tlv_kind(name),
        };
        return kind.is_some_and(|kind| matches!(tlv(rest, kind), Ok(Some(value)) if put(out, value)));
    }
    tlv_kind(name).is_some_and(|kind| matches!(tlv(&header.tlvs, kind), Ok(Some(value)) if put(out, value)))
}
