//! The PROXY protocol, versions 1 and 2: who is behind the balancer in front of us.
//!
//! Unlike nginx, which reads once, the header may arrive in pieces. An address that isn't one is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::span::Span;

/// The longest header that is waited for.
pub const MAX_HEADER: usize = 4096;

/// What the header says. Spans are offsets in the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Client and server as the balancer sees them; `None` for UNKNOWN, LOCAL, and families without addresses.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Between which kind of sockets these are; version 1 knows streams only.
    pub transport: Transport,
    /// The TLVs of version 2, for [`tlvs`].
    pub tlvs: Span,
    /// Length of the header.
    pub len: usize,
}

/// What the balancer's client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    #[default]
    Stream,
    /// UDP.
    Datagram,
}

/// The header is broken; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// Neither version 1 nor 2, or not in their form.
    Broken,
    /// The signature of version 2 with this version.
    Version(u8),
    /// Longer than [`MAX_HEADER`].
    TooLarge,
}

/// Parses the header at the start of `buf`; `None` if it isn't complete.
pub fn parse(buf: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    if common(buf, SIGNATURE) {
        if buf.len() < 16 { Ok(None) } else { version_2(buf) }
    } else if common(buf, PREFIX) {
        if buf.len() < 6 { Ok(None) } else { version_1(buf) }
    } else {
        Err(ProxyError::Broken)
    }
}

/// Appends a header of version 1; UNKNOWN without addresses. Of two families, the address of IPv4 is mapped to IPv6.
pub fn write_v1(addresses: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    let Some((source, destination)) = addresses.map(alike) else {
        return out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Appends a header of version 2 with these TLVs and a checksum (CRC-32C) of the whole header, as nginx does; LOCAL without
/// addresses. Of two families, the address of IPv4 is mapped to IPv6. False: the TLVs are longer than a header can be, and
/// nothing was appended.
pub fn write_v2(
    addresses: Option<(SocketAddr, SocketAddr)>,
    transport: Transport,
    tlvs: &[(u8, &[u8])],
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    let stream = transport == Transport::Stream;
    match addresses.map(alike) {
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            out.extend_from_slice(&[VERSION_2 | PROXY, if stream { TCP4 } else { UDP4 }, 0, 0]);
            put_inet(&source.ip().octets(), &destination.ip().octets(), [source.port(), destination.port()], out);
        }
        Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
            out.extend_from_slice(&[VERSION_2 | PROXY, if stream { TCP6 } else { UDP6 }, 0, 0]);
            put_inet(&source.ip().octets(), &destination.ip().octets(), [source.port(), destination.port()], out);
        }
        _ => out.extend_from_slice(&[VERSION_2 | LOCAL, 0, 0, 0]),
    }
    let whole = tlvs.iter().all(|(kind, value)| put_tlv(*kind, value, out)) && put_tlv(TLV_CRC32C, &[0; 4], out);
    let Some(length) = u16::try_from(out.len() - start - 16).ok().filter(|_| whole) else {
        out.truncate(start);
        return false;
    };
    if let Some([high, low]) = out.get_mut(start + 14..start + 16) {
        [*high, *low] = length.to_be_bytes();
    }
    // It is computed with zeroes in its own place.
    let checksum = out.get(start..).map(crc32c).unwrap_or_default();
    out.truncate(out.len() - 4);
    out.extend_from_slice(&checksum.to_be_bytes());
    true
}

/// Two addresses of one family: a header has only one.
fn alike((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), addr.port()),
        IpAddr::V6(_) => addr,
    };
    (mapped(source), mapped(destination))
}

fn put_inet(source: &[u8], destination: &[u8], ports: [u16; 2], out: &mut Vec<u8>) {
    out.extend_from_slice(source);
    out.extend_from_slice(destination);
    ports.iter().for_each(|port| out.extend_from_slice(&port.to_be_bytes()));
}

/// Whether the value isn't too long.
fn put_tlv(kind: u8, value: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(value.len()) else { return false };
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    true
}

/// The checksum of the PROXY protocol: CRC-32 by Castagnoli's polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        let low = crc.to_le_bytes()[0] ^ byte;
        (crc >> 8) ^ CASTAGNOLI.get(usize::from(low)).copied().unwrap_or_default()
    })
}

/// The remainders of all bytes.
const fn castagnoli() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The TLVs of `bytes`, type and value each; an error, and the end, where one is cut off.
pub fn tlvs(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), ProxyError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[kind, high, low], after) = match rest.split_first_chunk() {
            Some(parts) => parts,
            None if rest.is_empty() => return None,
            None => {
                rest = &[];
                return Some(Err(ProxyError::Broken));
            }
        };
        let Some((value, after)) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low]))) else {
            rest = &[];
            return Some(Err(ProxyError::Broken));
        };
        rest = after;
        Some(Ok((kind, value)))
    })
}

/// The value of the first TLV of type `kind`.
pub fn tlv(bytes: &[u8], kind: u8) -> Result<Option<&[u8]>, ProxyError> {
    for found in tlvs(bytes) {
        let (found, value) = found?;
        if found == kind {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The type of a TLV by its name, or by its number: `0x1f`, with any number of leading zeros.
pub fn tlv_kind(name: &str) -> Option<u8> {
    match name {
        "alpn" => Some(0x01),
        "authority" => Some(0x02),
        "unique_id" => Some(0x05),
        "ssl" => Some(0x20),
        "netns" => Some(0x30),
        _ => u8::from_str_radix(name.strip_prefix("0x")?.trim_start_matches('0'), 16).ok(),
    }
}

/// Whether `buf` begins with `text`, as far as both go.
fn common(buf: &[u8], text: &[u8]) -> bool {
    buf.iter().zip(text).all(|(a, b)| a == b)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 1000 80`, at most 107 bytes.
fn version_1(buf: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let seen = buf.get(..MAX_V1).unwrap_or(buf);
    let Some(lf) = memchr::memchr(b'\n', seen) else {
        let begins = |word: &&[u8]| common(seen.get(PREFIX.len()..).unwrap_or_default(), word);
        return if seen.len() == MAX_V1 || !FAMILIES.iter().any(begins) { Err(ProxyError::Broken) } else { Ok(None) };
    };
    let line = seen.get(..lf).and_then(|l| l.strip_suffix(b"\r")).ok_or(ProxyError::Broken)?;
    let line = str::from_utf8(line).map_err(|_| ProxyError::Broken)?;
    let header = ProxyHeader { addresses: None, transport: Transport::Stream, tlvs: Span::default(), len: lf + 1 };
    let mut words = line.split(' ').skip(1);
    match words.next() {
        Some("TCP4" | "TCP6") => {}
        Some(word) if word.starts_with("UNKNOWN") => return Ok(Some(header)),
        _ => return Err(ProxyError::Broken),
    }
    let mut address = || words.next().and_then(|w| w.parse::<IpAddr>().ok()).ok_or(ProxyError::Broken);
    let (source, destination) = (address()?, address()?);
    let mut port =
        || words.next().filter(|w| !w.starts_with('+')).and_then(|w| w.parse().ok()).ok_or(ProxyError::Broken);
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(ProxyError::Broken);
    }
    let addresses = Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)));
    Ok(Some(ProxyHeader { addresses, ..header }))
}

/// Signature, version and command, family and transport, length, addresses, TLVs.
fn version_2(buf: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let Some(&[command, family, high, low]) = buf.get(12..16).and_then(|b| b.first_chunk()) else { return Ok(None) };
    if command >> 4 != 2 {
        return Err(ProxyError::Version(command >> 4));
    }
    let len = 16 + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_HEADER {
        return Err(ProxyError::TooLarge);
    }
    let Some(body) = buf.get(16..len) else { return Ok(None) };
    let transport = if family & 15 == DATAGRAM { Transport::Datagram } else { Transport::Stream };
    let none = ProxyHeader { addresses: None, transport, tlvs: Span::default(), len };
    let (addresses, used) = match (command & 15, family) {
        (PROXY, TCP4 | UDP4) => (inet(body, |b: [u8; 4]| Ipv4Addr::from(b).into())?, 12),
        (PROXY, TCP6 | UDP6) => (inet(body, |b: [u8; 16]| Ipv6Addr::from(b).into())?, 36),
        _ => return Ok(Some(none)),
    };
    Ok(Some(ProxyHeader { addresses: Some(addresses), tlvs: Span::new(16 + used, len), ..none }))
}

/// Two addresses of `N` bytes and two ports.
fn inet<const N: usize>(body: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Result<(SocketAddr, SocketAddr), ProxyError> {
    let parts = || {
        let (source, rest) = body.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (source_port, rest) = rest.split_first_chunk::<2>()?;
        let destination_port = rest.first_chunk::<2>()?;
        let source = SocketAddr::new(ip(*source), u16::from_be_bytes(*source_port));
        Some((source, SocketAddr::new(ip(*destination), u16::from_be_bytes(*destination_port))))
    };
    parts().ok_or(ProxyError::Broken)
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PREFIX: &[u8] = b"PROXY ";
/// What follows it.
const FAMILIES: [&[u8]; 3] = [b"TCP4 ", b"TCP6 ", b"UNKNOWN"];
const MAX_V1: usize = 107;
const VERSION_2: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
/// The lower half of UDP4 and UDP6.
const DATAGRAM: u8 = 2;
/// The checksum, which [`write_v2`] adds itself.
pub const TLV_CRC32C: u8 = 3;
static CASTAGNOLI: [u32; 256] = castagnoli();

#[cfg(test)]
mod tests {
    use super::*;

    fn show(input: &[u8]) -> String {
        for cut in 0..input.len() {
            let early = parse(&input[..cut]);
            assert!(early == Ok(None) || early.is_err() == parse(input).is_err(), "cut at {cut}: {early:?}");
        }
        match parse(input) {
            Err(e) => format!("{e:?}"),
            Ok(None) => "more".into(),
            Ok(Some(header)) => {
                let tlvs: Result<Vec<_>, _> = tlvs(header.tlvs.of(input)).collect();
                let addresses = header.addresses.map_or("-".into(), |(a, b)| format!("{a} {b}"));
                format!("{addresses} {} {}", header.len, tlvs.map_or("broken".into(), |t| t.len().to_string()))
            }
        }
    }

    #[test]
    fn version_1_lines() {
        for (input, expect) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1234 5678\r\n", "192.0.2.1:1234 192.0.2.2:5678 42 0"),
            ("PROXY TCP6 2001:db8::1 ::2 1 80\r\n", "[2001:db8::1]:1 [::2]:80 33 0"),
            ("PROXY UNKNOWN\r\n", "- 15 0"),
            ("PROXY UNKNOWN a b c\r\nGET", "- 21 0"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1234", "more"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 123456 5678\r\n", "Broken"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 5678\r\n", "Broken"),
            ("PROXY TCP4 192.0.2 192.0.2.2 1 5678\r\n", "Broken"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "Broken"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "Broken"),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "Broken"),
            ("GET / HTTP/1.1\r\n", "Broken"),
        ] {
            assert_eq!(show(input.as_bytes()), expect, "{input:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(100));
        assert_eq!(parse(long.as_bytes()), Err(ProxyError::Broken));
    }

    #[test]
    fn version_2_headers() {
        let header = |head: [u8; 2], body: &[u8]| [SIGNATURE, &head, &(body.len() as u16).to_be_bytes(), body].concat();
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 0, 80];
        let v6 = [[0u8; 16], [1u8; 16]].concat();
        for (input, expect) in [
            (header([0x21, 0x11], &v4), "192.0.2.1:1234 192.0.2.2:80 28 0"),
            (header([0x21, 0x11], &[&v4[..], &[4, 0, 1, 9, 2, 0, 0]].concat()), "192.0.2.1:1234 192.0.2.2:80 35 2"),
            (header([0x21, 0x11], &[&v4[..], &[4, 0, 2, 9]].concat()), "192.0.2.1:1234 192.0.2.2:80 32 broken"),
            (header([0x21, 0x11], &v4[..11]), "Broken"),
            (
                header([0x21, 0x21], &[&v6[..], &[0, 1, 0, 2]].concat()),
                "[::]:1 [101:101:101:101:101:101:101:101]:2 52 0",
            ),
            (header([0x21, 0x12], &v4), "192.0.2.1:1234 192.0.2.2:80 28 0"),
            (header([0x20, 0x00], &[]), "- 16 0"),
            (header([0x21, 0x31], &[0; 216]), "- 232 0"),
            (header([0x31, 0x11], &v4), "Version(3)"),
            (header([0x21, 0x11], &[0; 5000]), "TooLarge"),
        ] {
            assert_eq!(show(&input), expect);
        }
        assert_eq!(tlv(&[4, 0, 1, 9, 2, 0, 0], 2), Ok(Some(&[] as &[u8])));
        assert_eq!(tlv(&[4, 0, 1, 9], 2), Ok(None));
    }

    #[test]
    fn written_is_read() {
        for (a, b) in [("1.2.3.4:5", "6.7.8.9:10"), ("[::1]:2", "[::3]:4")] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            let mut out = Vec::new();
            write_v1(Some((a, b)), &mut out);
            assert_eq!(parse(&out).unwrap().unwrap().addresses, Some((a, b)));
            for transport in [Transport::Stream, Transport::Datagram] {
                let mut out = b"before".to_vec();
                assert!(write_v2(Some((a, b)), transport, &[(2, b"name"), (0xe0, b"")], &mut out));
                let header = parse(&out[6..]).unwrap().unwrap();
                assert_eq!((header.addresses, header.transport, header.len), (Some((a, b)), transport, out.len() - 6));
                let written: Vec<_> = tlvs(header.tlvs.of(&out[6..])).map(|tlv| tlv.unwrap().0).collect();
                assert_eq!(written, [2, 0xe0, TLV_CRC32C]);
            }
        }
        let (a, b) = ("[2001:db8::1]:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let mapped = Some((a, "[::ffff:127.0.0.1]:80".parse().unwrap()));
        let mut out = Vec::new();
        write_v1(Some((a, b)), &mut out);
        assert_eq!(out, b"PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 5 80\r\n");
        assert_eq!(parse(&out).unwrap().unwrap().addresses, mapped);
        out.clear();
        assert!(write_v2(Some((a, b)), Transport::Stream, &[], &mut out));
        assert_eq!(parse(&out).unwrap().unwrap().addresses, mapped);
        out.clear();
        write_v1(None, &mut out);
        assert_eq!(out, b"PROXY UNKNOWN\r\n");
        out.clear();
        assert!(!write_v2(None, Transport::Stream, &[(2, &[0; 65536])], &mut out) && out.is_empty());
        assert!(!write_v2(None, Transport::Stream, &[(2, &[0; 65000]), (2, &[0; 65000])], &mut out) && out.is_empty());
    }

    #[test]
    fn names_of_tlvs() {
        for (name, expect) in [
            ("alpn", Some(1)),
            ("netns", Some(0x30)),
            ("0xe0", Some(0xe0)),
            ("0x0004", Some(4)),
            ("0x100", None),
            ("0x", None),
            ("e0", None),
            ("", None),
        ] {
            assert_eq!(tlv_kind(name), expect, "{name}");
        }
    }

    #[test]
    fn version_2_as_nginx_writes_it() {
        let mut out = Vec::new();
        assert!(write_v2(None, Transport::Stream, &[], &mut out));
        assert_eq!(out[12..], *b"\x20\0\0\x07\x03\0\x04\xa9\xb8\x7e\x8f");
        out.clear();
        let addresses = ("127.0.0.1:54654".parse().unwrap(), "127.0.0.1:18100".parse().unwrap());
        assert!(write_v2(Some(addresses), Transport::Stream, &[], &mut out));
        let checksum = b"\x03\0\x04\x9e\x09\xee\xd3";
        assert_eq!(out[12..], *[&b"\x21\x11\0\x13\x7f\0\0\x01\x7f\0\0\x01\xd5~F\xb4"[..], checksum].concat());
    }
}
