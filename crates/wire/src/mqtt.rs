//! MQTT's CONNECT: what a client says first (MQTT 3.1.1 §3.1, MQTT 5.0 §3.1).
//!
//! Read as far as servers are chosen by it: client identifier and user name. Version 3.1, whose protocol has another name, is
//! read too.

use crate::span::Span;

/// What a CONNECT says. Spans are offsets in the bytes that were parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0.
    pub level: u8,
    /// The client identifier; empty if the server is to choose one.
    pub client_id: Span,
    /// The user name, if there is one.
    pub username: Option<Span>,
}

/// The bytes don't begin a CONNECT, or one that is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotConnect;

/// Reads a CONNECT at the start of `input` up to its user name; `None` if that isn't complete.
pub fn parse(input: &[u8]) -> Result<Option<Connect>, NotConnect> {
    let mut reader = Reader { input, at: 0, end: usize::MAX };
    match connect(&mut reader) {
        Ok(connect) => Ok(Some(connect)),
        Err(Stop::More) => Ok(None),
        Err(Stop::Malformed) => Err(NotConnect),
    }
}

/// Why reading ends early.
enum Stop {
    /// More bytes are needed.
    More,
    /// It is malformed.
    Malformed,
}

fn connect(reader: &mut Reader<'_>) -> Result<Connect, Stop> {
    if reader.u8()? != CONNECT {
        return Err(Stop::Malformed);
    }
    let length = reader.number()?;
    reader.end = reader.at + length;
    let name = reader.string()?.of(reader.input);
    let level = reader.u8()?;
    if !matches!((name, level), (b"MQTT", 4 | 5) | (b"MQIsdp", 3)) {
        return Err(Stop::Malformed);
    }
    let flags = reader.u8()?;
    // The lowest bit is reserved (MQTT 3.1.1 §3.1.2.3).
    if flags & RESERVED != 0 {
        return Err(Stop::Malformed);
    }
    reader.skip(KEEP_ALIVE)?;
    if level == 5 {
        reader.properties()?;
    }
    let client_id = reader.string()?;
    if flags & HAS_WILL != 0 {
        if level == 5 {
            reader.properties()?;
        }
        reader.string()?; // The will's topic,
        reader.string()?; // and its message.
    }
    let username = if flags & HAS_USERNAME != 0 { Some(reader.string()?) } else { None };
    Ok(Connect { level, client_id, username })
}

/// Takes from the front of a message that ends at `end`, of which not all need be there.
struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    end: usize,
}

impl Reader<'_> {
    fn skip(&mut self, length: usize) -> Result<Span, Stop> {
        let after = self.at.checked_add(length).filter(|after| *after <= self.end).ok_or(Stop::Malformed)?;
        if after > self.input.len() {
            return Err(Stop::More);
        }
        let span = Span::new(self.at, after);
        self.at = after;
        Ok(span)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        self.skip(1)?.of(self.input).first().copied().ok_or(Stop::More)
    }

    /// A number of 1 to 4 bytes, the lowest seven bits first (MQTT 3.1.1 §2.2.3).
    fn number(&mut self) -> Result<usize, Stop> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Malformed)
    }

    /// A string, or binary data, after the two bytes of its length.
    fn string(&mut self) -> Result<Span, Stop> {
        let length = [self.u8()?, self.u8()?];
        self.skip(usize::from(u16::from_be_bytes(length)))
    }

    /// The properties of version 5, passed over.
    fn properties(&mut self) -> Result<(), Stop> {
        let length = self.number()?;
        self.skip(length).map(|_| ())
    }
}

/// The first byte: type 1, and flags that are all 0.
const CONNECT: u8 = 0x10;
/// Length of the keep-alive time.
const KEEP_ALIVE: usize = 2;
const RESERVED: u8 = 0x01;
const HAS_WILL: u8 = 0x04;
const HAS_USERNAME: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text].concat()
    }

    /// A CONNECT with this head after the length, and these parts behind it.
    fn message(name: &[u8], level: u8, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = [&string(name)[..], &[level, flags, 0, 60], &parts.concat()].concat();
        let length = [(body.len() & 0x7f) as u8 | 0x80, (body.len() >> 7) as u8];
        [&[0x10][..], &length, &body].concat()
    }

    fn show(input: &[u8]) -> String {
        match parse(input) {
            Err(NotConnect) => "none".into(),
            Ok(None) => "more".into(),
            Ok(Some(connect)) => {
                let text = |span: Span| String::from_utf8_lossy(span.of(input)).into_owned();
                format!("{} {} {:?}", connect.level, text(connect.client_id), connect.username.map(text))
            }
        }
    }

    #[test]
    fn messages() {
        let (id, user) = (string(b"sensor-7"), string(b"alice"));
        let will = [string(b"topic"), string(b"gone")].concat();
        let check = |input: &[u8], expect: &str| assert_eq!(show(input), expect, "{input:?}");
        check(&message(b"MQTT", 4, 0x02, &[&id]), "4 sensor-7 None");
        check(&message(b"MQIsdp", 3, 0x80, &[&id, &user]), "3 sensor-7 Some(\"alice\")");
        check(&message(b"MQTT", 4, 0x86, &[&string(b""), &will, &user]), "4  Some(\"alice\")");
        check(&message(b"MQTT", 5, 0xc4, &[&[2, 33, 0], &id, &[0], &will, &user]), "5 sensor-7 Some(\"alice\")");
        check(&message(b"MQTT", 6, 0x02, &[&id]), "none");
        check(&message(b"MQTX", 4, 0x02, &[&id]), "none");
        check(&message(b"MQTT", 4, 0x03, &[&id]), "none");
        check(&message(b"MQTT", 4, 0x80, &[&id]), "none"); // The user name would be after the end.
        check(&message(b"MQTT", 5, 0x02, &[&[0xff, 0xff, 0xff, 0xff], &id]), "none");
        check(b"\x10\xff\xff\xff\xff\x01", "none");
        check(b"\x10\xff\xff\xff\x7f\0\x04MQ", "more");
        check(b"\x20\x02\0\0", "none");
        check(b"GET / HTTP/1.1\r\n", "none");
    }

    #[test]
    fn splits_at_every_byte() {
        let whole =
            message(b"MQTT", 5, 0xc4, &[&[0], &string(b"id"), &[0], &string(b"t"), &string(b"m"), &string(b"u")]);
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), Ok(None), "{cut}");
        }
        let longer = [&whole[..], b"more"].concat();
        assert_eq!(parse(&longer), parse(&whole));
    }
}
