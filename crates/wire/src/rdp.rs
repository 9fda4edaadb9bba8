//! RDP's connection request: what a client says first (MS-RDPBCGR §2.2.1.1).
//!
//! A TPKT header and a connection request of X.224, then one line, if any, by which a balancer finds the client's session:
//! `Cookie: mstshash=NAME`, or a routing token, `Cookie: msts=TOKEN`. What follows isn't read.

use crate::span::Span;

/// What a connection request says. Spans are offsets in the bytes that were parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What stands after `Cookie: `, if there is such a line.
    pub cookie: Option<Span>,
}

/// The bytes don't begin a connection request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRequest;

/// Reads a connection request at the start of `input`; `None` if it isn't complete.
pub fn parse(input: &[u8]) -> Result<Option<Request>, NotRequest> {
    // What is there of the fixed part already tells whether it can be a request.
    for (at, byte) in input.iter().enumerate().take(FIXED) {
        let fits = match at {
            0 => *byte == TPKT_VERSION,
            1 => *byte == 0,
            4 => usize::from(*byte) >= FIXED - 5,
            5 => *byte == CONNECTION_REQUEST,
            _ => true,
        };
        if !fits {
            return Err(NotRequest);
        }
    }
    let Some(&[_, _, high, low, indicator, ..]) = input.first_chunk::<FIXED>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // The length indicator counts what follows it (X.224 §13.2.1).
    if length != usize::from(indicator) + 5 {
        return Err(NotRequest);
    }
    let Some(variable) = input.get(FIXED..length) else { return Ok(None) };
    let Some(rest) = variable.strip_prefix(COOKIE) else { return Ok(Some(Request { cookie: None })) };
    let line = memchr::memmem::find(rest, b"\r\n").ok_or(NotRequest)?;
    let start = FIXED + COOKIE.len();
    Ok(Some(Request { cookie: Some(Span::new(start, start + line)) }))
}

/// The value of the field `name` of a cookie: fields are separated by semicolons, and names compared without case.
pub fn field<'a>(cookie: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookie.split(|byte| *byte == b';').find_map(|field| {
        let equals = memchr::memchr(b'=', field)?;
        let (own, value) = field.split_at_checked(equals)?;
        own.trim_ascii().eq_ignore_ascii_case(name).then(|| value.get(1..).unwrap_or_default())
    })
}

const TPKT_VERSION: u8 = 3;
/// The code of X.224's connection request, with no credit.
const CONNECTION_REQUEST: u8 = 0xe0;
/// The TPKT header (version, reserved, length), and the fixed part of the request: length indicator, code, two references,
/// class.
const FIXED: usize = 4 + 7;
const COOKIE: &[u8] = b"Cookie: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn message(variable: &[u8]) -> Vec<u8> {
        let length = FIXED + variable.len();
        let fixed = [3, 0, (length >> 8) as u8, length as u8, (length - 5) as u8, 0xe0, 0, 0, 0, 0, 0];
        [&fixed[..], variable].concat()
    }

    fn show(input: &[u8]) -> String {
        match parse(input) {
            Err(NotRequest) => "none".into(),
            Ok(None) => "more".into(),
            Ok(Some(request)) => format!("{:?}", request.cookie.map(|span| String::from_utf8_lossy(span.of(input)))),
        }
    }

    #[test]
    fn messages() {
        let negotiation = [1, 0, 8, 0, 3, 0, 0, 0];
        let check = |input: &[u8], expect: &str| assert_eq!(show(input), expect, "{input:?}");
        let cookie = |line: &[u8]| message(&[line, &negotiation].concat());
        check(&message(b""), "None");
        check(&message(&negotiation), "None");
        check(&cookie(b"Cookie: mstshash=alice\r\n"), "Some(\"mstshash=alice\")");
        check(&cookie(b"Cookie: msts=3640205228.15629.0000\r\n"), "Some(\"msts=3640205228.15629.0000\")");
        check(&cookie(b"tsv://MS Terminal Services Plugin.1.x\r\n"), "None");
        check(&message(b"Cookie: mstshash=alice"), "none");
        check(b"\x03\0\0\x0b\x07\xe0\0\0\0\0\0", "none"); // The two lengths differ.
        check(b"\x03\0\0\x0b\x05\xe0", "none");
        check(b"\x03\0\0\x0b\x06\xd0", "none");
        check(b"\x16\x03\x01", "none");
        check(b"", "more");
    }

    #[test]
    fn splits_at_every_byte() {
        let whole = message(b"Cookie: mstshash=alice\r\n\x01\0\x08\0\x03\0\0\0");
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(parse(&[&whole[..], b"more"].concat()), parse(&whole));
    }

    #[test]
    fn fields() {
        for (cookie, name, expect) in [
            ("mstshash=alice", "mstshash", Some("alice")),
            ("mstshash=a=b", "MstsHash", Some("a=b")),
            ("one=1; two=2", "two", Some("2")),
            ("one=1; two=2", "three", None),
            ("one", "one", None),
            ("=x", "", Some("x")),
            ("", "one", None),
        ] {
            assert_eq!(field(cookie.as_bytes(), name.as_bytes()), expect.map(str::as_bytes), "{cookie} {name}");
        }
    }
}
