//! Variables that every protocol has: of the connection, of the process, of the time.

use expr::vars::Flags;

use super::text::{address, number, put, show};
use super::{Getter, Setup, add_all};
use crate::front::proxy::ProxyHeader;
use crate::{Facts, Proto};

/// Defines them.
pub fn define<P: Proto>(setup: &mut Setup<P>) {
    let none = Flags::NONE;
    let live = Flags::NOCACHEABLE;
    add_all::<P>(
        setup,
        P::tables().core.module(),
        &[
            ("binary_remote_addr", none, Getter::Plain(binary_remote_addr)),
            ("remote_addr", none, Getter::<P>::Plain(|s, out| address(out, s.peer()))),
            ("remote_port", none, Getter::Plain(remote_port)),
            ("proxy_protocol_addr", none, Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.source.text()))),
            (
                "proxy_protocol_port",
                none,
                Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.source.port().to_string())),
            ),
            (
                "proxy_protocol_server_addr",
                none,
                Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.destination.text())),
            ),
            (
                "proxy_protocol_server_port",
                none,
                Getter::<P>::Plain(|s, out| proxied(s, out, |p| p.destination.port().to_string())),
            ),
            ("proxy_protocol_tlv_", Flags::PREFIX, Getter::Family(proxy_tlv)),
            ("server_addr", none, Getter::Plain(server_addr)),
            ("server_port", none, Getter::Plain(server_port)),
            ("connection", none, Getter::<P>::Plain(|s, out| number(out, s.number()))),
            ("nginx_version", none, Getter::<P>::Plain(|_, out| put(out, engine::NGINX_VERSION.as_bytes()))),
            ("pid", none, Getter::<P>::Plain(|_, out| number(out, std::process::id().into()))),
            (
                "msec",
                live,
                Getter::<P>::Plain(|_, out| {
                    let (secs, msec) = engine::clock::now();
                    show(out, format_args!("{secs}.{msec:03}"))
                }),
            ),
            ("time_iso8601", live, Getter::<P>::Plain(|_, out| put(out, engine::clock::times().iso8601.as_bytes()))),
            ("time_local", live, Getter::<P>::Plain(|_, out| put(out, engine::clock::times().http_log.as_bytes()))),
        ],
    );
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
    use wire::proxy_protocol::tlv;
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
            _ => tlv_number(name),
        };
        return kind.is_some_and(|kind| matches!(tlv(rest, kind), Ok(Some(value)) if put(out, value)));
    }
    let kind = match name {
        "alpn" => Some(0x01),
        "authority" => Some(0x02),
        "unique_id" => Some(0x05),
        "ssl" => Some(0x20),
        "netns" => Some(0x30),
        _ => tlv_number(name),
    };
    kind.is_some_and(|kind| matches!(tlv(&header.tlvs, kind), Ok(Some(value)) if put(out, value)))
}

/// `0x1f`, with any number of leading zeros.
fn tlv_number(name: &str) -> Option<u8> {
    u8::from_str_radix(name.strip_prefix("0x")?.trim_start_matches('0'), 16).ok()
}
