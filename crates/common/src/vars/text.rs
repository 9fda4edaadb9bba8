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
        Some(IpAddr::V4(ip)) => {
            let [first, rest @ ..] = ip.octets();
            number(out, first.into());
            rest.iter().all(|octet| put(out, b".") && number(out, (*octet).into()))
        }
        Some(ip) => show(out, format_args!("{ip}")),
        None => put(out, b"unix:"),
    }
}

/// Appends milliseconds as seconds with three decimals.
pub fn show_seconds(out: &mut Vec<u8>, ms: u64) -> bool {
    let [tenths, hundredths, thousandths] = [ms / 100 % 10, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8);
    number(out, ms / 1000) && put(out, &[b'.', tenths, hundredths, thousandths])
}
