//! Texts that getters append.

use std::io::Write as _;
use std::net::IpAddr;

use buf::number::digits;
use os::SockAddr;

/// Appends bytes.
pub fn put(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    out.extend_from_slice(bytes);
    true
}

/// Appends bytes; no bytes are no value.
pub fn put_some(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    !bytes.is_empty() && put(out, bytes)
}

/// Appends a number's digits.
pub fn number(out: &mut Vec<u8>, n: u64) -> bool {
    put(out, digits(n, &mut [0; 20]))
}

/// Appends formatted text.
pub fn show(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> bool {
    // Writing into a Vec can't fail.
    let _ = out.write_fmt(text);
    true
}

/// Appends an address without its port.
pub fn address(out: &mut Vec<u8>, address: &SockAddr) -> bool {
    match address.ip() {
        Some(IpAddr::V4(ip)) => put(out, dotted(ip.octets(), &mut [0; 16])),
        Some(ip) => show(out, format_args!("{ip}")),
        None => put(out, b"unix:"),
    }
}

/// The text of an IPv4 address.
fn dotted(octets: [u8; 4], text: &mut [u8; 16]) -> &[u8] {
    let mut end = 0;
    let mut push = |byte| {
        text[end] = byte;
        end += 1;
    };
    for octet in octets {
        let (hundreds, tens) = (octet / 100, octet / 10);
        if hundreds > 0 {
            push(b'0' + hundreds);
        }
        if tens > 0 {
            push(b'0' + tens % 10);
        }
        push(b'0' + octet % 10);
        push(b'.');
    }
    &text[..end - 1]
}

/// Appends milliseconds as seconds with three decimals.
pub fn show_seconds(out: &mut Vec<u8>, ms: u64) -> bool {
    let [tenths, hundredths, thousandths] = [ms / 100 % 10, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
    number(out, ms / 1000) && put(out, &[b'.', tenths, hundredths, thousandths])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for octets in [[0, 9, 10, 99], [100, 101, 199, 200], [209, 210, 250, 255], [255; 4], [127, 0, 0, 1]] {
            assert_eq!(dotted(octets, &mut [0; 16]), IpAddr::from(octets).to_string().as_bytes());
        }
    }
}
