//! Hosts of request lines and Host headers: RFC 3986 §3.2.2 as nginx takes it since 1.29.4, which means that escapes and
//! what stands in brackets are looked at byte by byte alone.

use std::borrow::Cow;

use crate::class::{CLASS, REG_NAME, UPPER, is};

/// The host isn't one, or its port isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError;

/// Where the host ends in a `host[:port]`, and its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScannedHost {
    /// Length of the host, brackets included, without a trailing dot.
    pub len: usize,
    /// The port, if one was given.
    pub port: Option<u16>,
    /// Whether the host holds capitals.
    pub upper: bool,
}

/// A host as nginx uses it: in lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostParts<'a> {
    /// The host.
    pub host: Cow<'a, [u8]>,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// Checks `host[:port]` and makes the host canonical.
pub fn validate_host(text: &[u8]) -> Result<HostParts<'_>, HostError> {
    let scanned = scan_host(text)?;
    let host = text.get(..scanned.len).ok_or(HostError)?;
    let host = if scanned.upper { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) };
    Ok(HostParts { host, port: scanned.port })
}

/// Checks `host[:port]` without copying.
pub fn scan_host(text: &[u8]) -> Result<ScannedHost, HostError> {
    let (end, upper) = if text.first() == Some(&b'[') { literal(text)? } else { reg_name(text)? };
    let port = match text.get(end..) {
        None | Some([]) => None,
        Some([b':', digits @ ..]) => port(digits)?,
        Some(_) => return Err(HostError),
    };
    let dot = end > 0 && text.get(end - 1) == Some(&b'.');
    let len = end - usize::from(dot);
    if len == 0 { Err(HostError) } else { Ok(ScannedHost { len, port, upper }) }
}

/// A name or an IPv4 address; its length, and whether it has capitals.
#[inline]
fn reg_name(text: &[u8]) -> Result<(usize, bool), HostError> {
    let (mut end, mut before, mut seen) = (text.len(), 0, 0);
    for (i, &byte) in text.iter().enumerate() {
        let class = CLASS[byte as usize];
        if class & REG_NAME == 0 && byte != b'%' {
            end = i;
            break;
        }
        if byte == b'.' && before == b'.' {
            return Err(HostError);
        }
        (seen, before) = (seen | class, byte);
    }
    match text.get(end) {
        None | Some(b':') => Ok((end, seen & UPPER != 0)),
        Some(_) => Err(HostError),
    }
}

/// `[…]`, whatever address it may be; its length with brackets, and whether it has capitals.
fn literal(text: &[u8]) -> Result<(usize, bool), HostError> {
    let close = text.iter().position(|&b| b == b']').ok_or(HostError)?;
    let inner = text.get(1..close).ok_or(HostError)?;
    if !inner.iter().all(|&b| is(b, REG_NAME) || b == b':') || inner.windows(2).any(|w| w == b"..") {
        return Err(HostError);
    }
    Ok((close + 1, inner.iter().any(u8::is_ascii_uppercase)))
}

/// Whether a name may stand in a request line: there nginx takes letters, digits, `-` and `.` alone.
pub(crate) fn is_line_name(host: &[u8]) -> bool {
    host.first() == Some(&b'[') || host.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

/// Digits up to 65535, or none at all.
fn port(digits: &[u8]) -> Result<Option<u16>, HostError> {
    if digits.is_empty() {
        return Ok(None);
    }
    let mut port = 0u16;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(HostError);
        }
        port = port.checked_mul(10).and_then(|p| p.checked_add(u16::from(digit))).ok_or(HostError)?;
    }
    Ok(Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match validate_host(text.as_bytes()) {
            Err(HostError) => "error".into(),
            Ok(HostParts { host, port }) => {
                let port = port.map_or("-".into(), |p| p.to_string());
                format!("{} {port}", String::from_utf8_lossy(&host))
            }
        }
    }

    #[test]
    fn hosts() {
        for (text, expect) in [
            ("", "error"),
            (".", "error"),
            (":80", "error"),
            ("L", "l -"),
            ("abcd-ef.g02.xyz:", "abcd-ef.g02.xyz -"),
            ("123.40.56.78:987", "123.40.56.78 987"),
            ("abcd-ef.g02.xyz.:88", "abcd-ef.g02.xyz 88"),
            ("www.abcd.", "www.abcd -"),
            ("example.com.:1.2", "error"),
            ("123.49.0.78:98777", "error"),
            ("123.40.56.78:123456", "error"),
            ("123.40.56.78:9000:80", "error"),
            ("AbC-d93:88", "abc-d93 88"),
            ("[abcd::ef98:0:7654:321]:80", "[abcd::ef98:0:7654:321] 80"),
            ("[::ffff:12.30.67.89]", "[::ffff:12.30.67.89] -"),
            ("example.com/\\:552", "error"),
            ("..examp-LE.com", "error"),
            ("com.exa-m.45..:", "error"),
            ("[abcd::e\\f98:0/:7654:321]", "error"),
            ("[abcd::ef98:0:7654:321].", "error"),
            ("[abcd::ef98:0:7654:321].:98", "error"),
            ("[ab..cd::ef98:0:7654:321]", "error"),
            ("extra[abcd::ef98:0:7654:321]:98", "error"),
            ("[abcd::ef98:0:7654:321", "error"),
            ("[]", "[] -"),
            ("[]:80", "[] 80"),
            ("[zz]", "[zz] -"),
            ("[%25]", "error"),
            ("[[]]", "error"),
            ("localhost\x02", "error"),
            ("a b", "error"),
            ("u@a", "error"),
            ("a_b", "a_b -"),
            ("a%2Fb:1", "a%2fb 1"),
            ("a%2", "a%2 -"),
            ("a%zz", "a%zz -"),
            ("%", "% -"),
            ("%:", "% -"),
            ("a%20..b", "error"),
            ("[v0aB.!$&'()*+,;=-._~Az:]", "[v0ab.!$&'()*+,;=-._~az:] -"),
        ] {
            assert_eq!(show(text), expect, "{text:?}");
        }
    }
}
