//! `type=grpc`: what is asked and answered by gRPC's protocol for health checks (`grpc.health.v1`).

use buf::{Bytes, Piece};
use http::exchange::Exchange;
use http::request::Request;
use http::response::Headers;
use wire::h1::{Limits, Method, RequestParser};

/// What is asked for.
pub(super) const METHOD: &[u8] = b"/grpc.health.v1.Health/Check";

/// What the parameters after `type=grpc` say.
#[derive(Debug, Default)]
pub(super) struct GrpcCheck {
    /// Empty: the server as a whole.
    service: Vec<u8>,
    /// A status other than 0 that is as good.
    status: Option<u32>,
}

impl GrpcCheck {
    /// Takes a parameter in; `None` if it is wrong here.
    pub(super) fn parameter(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"grpc_service=" if !value.is_empty() => self.service = value.to_vec(),
            b"grpc_status=" => self.status = Some(u32::try_from(buf::parse::parse_number(value)?).ok()?),
            _ => return None,
        }
        Some(())
    }

    /// Makes the request of a check what such a server expects.
    pub(super) fn prepare(&self, r: &mut Request) {
        r.method = Method::Post;
        r.head = Bytes::from_static(HEAD);
        // It is a head as a client could have sent it.
        let _ = RequestParser::default().parse(HEAD, &Limits::default(), &mut r.line);
        r.body.keep(vec![Piece::Bytes(self.message().into())]);
    }

    /// The request's message: in front a byte for how it is compressed, and its length.
    fn message(&self) -> Vec<u8> {
        let mut request = Vec::new();
        if !self.service.is_empty() {
            request.push(SERVICE);
            write_number(self.service.len() as u64, &mut request);
            request.extend_from_slice(&self.service);
        }
        [&[0][..], &(request.len() as u32).to_be_bytes(), &request].concat()
    }

    /// What the response fails, if it does.
    pub(super) fn test(&self, exchange: &Exchange, body: &[u8], trailers: &Headers) -> Result<(), String> {
        let head = exchange.head.borrow();
        let (bytes, head) = &*head;
        if head.status != 200 {
            return Err("checking status".to_owned());
        }
        // A response without messages has it in its head.
        let in_head = head.headers.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(STATUS_FIELD));
        let last = trailers.iter().find(|field| field.name.eq_ignore_ascii_case(STATUS_FIELD));
        let status = last.map(|field| &field.value[..]).or(in_head.map(|field| field.value.of(bytes)));
        let status = status.and_then(buf::parse::parse_number).and_then(|status| u32::try_from(status).ok());
        match status {
            Some(status) if status != 0 && self.status == Some(status) => Ok(()),
            Some(0) if is_serving(body) => Ok(()),
            Some(0) => Err("checking serving status".to_owned()),
            _ => Err("checking gRPC status".to_owned()),
        }
    }
}

/// The field whose name begins a status of gRPC.
const STATUS_FIELD: &[u8] = b"grpc-status";
/// The fields of a request: their URI is the check's.
const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\r\n";
/// `string service = 1`: the field's number, and the type of what has a length.
const SERVICE: u8 = 1 << 3 | 2;
/// `ServingStatus status = 1`: the field's number, and the type of a number.
const STATUS: u64 = 1 << 3;
/// `SERVING`
const SERVING: u64 = 1;

/// Whether a response's message says that the service works. The last field of a number counts.
fn is_serving(body: &[u8]) -> bool {
    let Some((0, message)) = body.split_first().and_then(|(compressed, rest)| {
        let (length, message) = rest.split_first_chunk()?;
        Some((*compressed, message.get(..u32::from_be_bytes(*length) as usize)?))
    }) else {
        return false;
    };
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        match read_field(&mut rest) {
            Some((STATUS, value)) => status = value,
            Some(_) => {}
            None => return false,
        }
    }
    status == SERVING
}

/// Reads a field of a message: its number and type, and its value if that is a number.
fn read_field(rest: &mut &[u8]) -> Option<(u64, u64)> {
    let tag = read_number(rest)?;
    let skipped = match tag & 7 {
        0 => return Some((tag, read_number(rest)?)),
        1 => 8,
        2 => usize::try_from(read_number(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    *rest = rest.get(skipped..)?;
    Some((tag, 0))
}

/// Reads a number: seven bits a byte, the lowest first.
fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let message = |service: &str| GrpcCheck { service: service.into(), status: None }.message();
        assert_eq!(message(""), [0; 5]);
        assert_eq!(message("ab"), *b"\0\0\0\0\x04\x0a\x02ab");
        let long = message(&"x".repeat(300));
        assert_eq!((&long[..8], long.len()), (&b"\0\0\0\x01\x2f\x0a\xac\x02"[..], 308));
    }

    #[test]
    fn answers() {
        for (body, serving) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], true),
            (b"\0\0\0\0\x02\x08\x02", false),
            (b"\0\0\0\0\0", false),
            (b"", false),
            (b"\x01\0\0\0\x02\x08\x01", false),
            (b"\0\0\0\0\x03\x08\x01", false),
            (b"\0\0\0\0\x04\x08\x02\x08\x01", true),
            // Unknown fields of each type before it.
            (b"\0\0\0\0\x16\x12\x01x\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x28\x80\x01\x08\x01", true),
            (b"\0\0\0\0\x02\x0b\x01", false),
            (b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", false),
        ] {
            assert_eq!(is_serving(body), serving, "{body:?}");
            for len in 0..body.len() {
                assert!(!is_serving(&body[..len]), "{len} of {body:?}");
            }
        }
    }

    #[test]
    fn parameters() {
        for (name, value, good) in [
            ("grpc_service=", "a.B", true),
            ("grpc_service=", "", false),
            ("grpc_status=", "12", true),
            ("grpc_status=", "x", false),
            ("fails=", "1", false),
            ("mandatory", "", false),
        ] {
            let found = GrpcCheck::default().parameter(name.as_bytes(), value.as_bytes());
            assert_eq!(found.is_some(), good, "{name}{value}");
        }
    }
}
