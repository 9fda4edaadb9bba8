//! HTTP/2 to backends: one exchange on a connection (RFC 9113), for `proxy_http_version 2` and `grpc_pass`.
//!
//! As in nginx, a connection has one stream at a time, and is kept for the next exchange. The request's fields are
//! encoded once for all attempts, without tables: what the connection remembers are windows, settings and numbers of
//! streams.

use std::any::Any;
use std::borrow::Cow;

use buf::{Buf, Bytes, Chain, Piece};
use http::exchange::Exchange;
use http::fault::Fault;
use http::response::Headers;
use wire::Span;
use wire::h1::KnownHeader;
use wire::h2::{Client, ClientEvent, ClientLimits, ServerFault, ServerFaultKind};
use wire::hpack::{encode_integer, write_plain};

use crate::protocol::{BodyEvent, Codec, End, Head, HeadEvent, Kept, ProtocolError};

/// The index of `:path` in HPACK's static table (RFC 7541 appendix A).
const PATH: u32 = 4;

/// Appends the pseudo-headers of a request but `:authority`; gives back where the path stands.
pub(crate) fn write_line(method: &[u8], ssl: bool, path: &[u8], out: &mut Buf) -> Span {
    write_plain(b":method", method, out);
    write_plain(b":scheme", if ssl { b"https" } else { b"http" }, out);
    // In full even where the static table has it, for log lines.
    encode_integer(out, 0, 4, PATH);
    encode_integer(out, 0, 7, path.len() as u32);
    let start = out.len();
    out.extend_from_slice(path);
    Span::new(start, out.len())
}

/// The bytes of a chain without files in one piece.
fn joined(chain: &Chain) -> Vec<u8> {
    let mut joined = Vec::with_capacity(chain.len() as usize);
    for piece in chain.pieces() {
        if let Piece::Bytes(bytes) = piece {
            joined.extend_from_slice(bytes);
        }
    }
    joined
}

/// What the configuration says of an exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The largest head, in bytes.
    pub max_head: usize,
    /// Whether clients get trailers.
    pub trailers: bool,
    /// How many bytes at the end of what was written are the body.
    pub own_body: u64,
}

/// The state machine of an exchange.
pub(crate) struct Http2 {
    rules: Rules,
    to_head: bool,
    client: Client,
}

impl Http2 {
    /// The codec of an exchange, in the memory of the one before on the same connection.
    pub(crate) fn begin(rules: Rules, exchange: &Exchange, kept: Option<Kept>) -> Box<Http2> {
        let fresh = || Box::new(Http2 { rules, to_head: false, client: Client::new() });
        let mut codec = kept.and_then(|kept| kept.downcast().ok()).unwrap_or_else(fresh);
        codec.rules = rules;
        codec.to_head = exchange.to_head.get();
        codec.client.begin(ClientLimits { head: rules.max_head }, codec.to_head);
        codec
    }

    /// Whether this was kept by an exchange of HTTP/2.
    pub(crate) fn left(kept: &dyn Any) -> bool {
        kept.is::<Http2>()
    }

    /// Moves the head that has come to `head`.
    fn take_head(&mut self, (bytes, parts): &mut Head) {
        *bytes = self.client.head_mut().to_response(parts);
    }

    /// The length of the body as clients are told it.
    fn length(&self, (bytes, parts): &Head) -> Option<u64> {
        let announced = parts.value(KnownHeader::ContentLength, bytes).and_then(buf::parse::parse_number);
        let has_none = self.client.has_ended() && !self.to_head && !matches!(parts.status, 204 | 304);
        announced.or(has_none.then_some(0))
    }

    fn trailers(&mut self) -> Headers {
        let head = self.client.head_mut();
        let fields = std::mem::take(&mut head.fields);
        let text = std::mem::replace(&mut head.text, Buf::empty()).freeze();
        let slice = |span: Span| text.slice(span.start as usize..span.end as usize);
        let mut trailers = Headers::default();
        for field in fields {
            trailers.push_known(field.known, slice(field.name), slice(field.value));
        }
        trailers
    }
}

impl From<ServerFault> for ProtocolError {
    fn from(fault: ServerFault) -> ProtocolError {
        let text = fault.text;
        let fault = match fault.kind {
            ServerFaultKind::Invalid => Fault::InvalidResponse,
            ServerFaultKind::Refused => Fault::RefusedRequest,
            ServerFaultKind::Leaving => Fault::LeavingUpstream,
        };
        ProtocolError { fault, text }
    }
}

impl Codec for Http2 {
    fn head<'r>(&mut self, request: &'r [u8], alone: bool) -> Cow<'r, [u8]> {
        let (block, body) = request.split_at(request.len().saturating_sub(self.rules.own_body as usize));
        self.client.head(block, alone && body.is_empty());
        if !alone {
            // It goes out with the beginning of the body.
            return Cow::default();
        }
        let mut chain = Chain::new();
        if body.is_empty() {
            self.client.transmit(&mut chain);
        } else {
            self.client.body(Chain::from(Bytes::copy_from(body)), true, &mut chain);
        }
        joined(&chain).into()
    }

    fn body(&mut self, part: Chain, last: bool, out: &mut Chain) {
        self.client.body(part, last, out);
    }

    fn window(&self) -> u64 {
        self.client.window()
    }

    fn transmits(&self) -> bool {
        true
    }

    fn transmit(&mut self, out: &mut Chain) {
        self.client.transmit(out);
    }

    fn holds_back(&self) -> bool {
        self.client.holds_back()
    }

    fn faults_void_body(&self) -> bool {
        true
    }

    fn receive(&mut self, input: Buf) {
        self.client.receive(input.freeze());
    }

    fn read_head(&mut self, head: &mut Head) -> Result<HeadEvent, ProtocolError> {
        Ok(match self.client.next_event()? {
            ClientEvent::More => HeadEvent::More,
            ClientEvent::Interim => {
                self.take_head(head);
                HeadEvent::Interim
            }
            ClientEvent::Head => {
                self.take_head(head);
                HeadEvent::Done(self.length(head))
            }
            ClientEvent::Data(_) | ClientEvent::Trailers | ClientEvent::End => {
                return Err(ProtocolError::invalid("upstream sent no header"));
            }
        })
    }

    fn read_body(&mut self) -> Result<BodyEvent, ProtocolError> {
        loop {
            return Ok(match self.client.next_event()? {
                ClientEvent::Data(bytes) => BodyEvent::Body(bytes),
                ClientEvent::Trailers if self.rules.trailers => BodyEvent::Trailers(self.trailers()),
                ClientEvent::End => BodyEvent::End(End { keep: self.client.serves_on(), extra: false }),
                ClientEvent::Trailers | ClientEvent::Interim | ClientEvent::Head => continue,
                ClientEvent::More => BodyEvent::More,
            });
        }
    }

    fn receive_end(&mut self) -> Result<(), ProtocolError> {
        Err(ProtocolError::closed())
    }

    fn keep(mut self: Box<Self>) -> Option<Kept> {
        self.client.rest();
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { max_head: 4096, trailers: true, own_body: 0 };

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    fn receive(codec: &mut Http2, frames: &[Vec<u8>]) {
        let mut input = Buf::empty();
        input.extend_from_slice(&frames.concat());
        codec.receive(input);
    }

    fn begin(rules: Rules, kept: Option<Kept>) -> (Box<Http2>, Vec<u8>) {
        let mut codec = Http2::begin(rules, &Exchange::default(), kept);
        let mut block = Buf::empty();
        write_line(b"GET", false, b"/", &mut block);
        block.extend_from_slice(b"own".get(..rules.own_body as usize).unwrap_or_default());
        let head = codec.head(&block, true).into_owned();
        (codec, head)
    }

    #[test]
    fn the_path_stands_in_the_request() {
        let mut out = Buf::empty();
        let at = write_line(b"POST", true, b"/a?b", &mut out);
        assert_eq!((&out[..], at.of(&out)), (&b"\x83\x87\x04\x04/a?b"[..], &b"/a?b"[..]));
    }

    #[test]
    fn a_body_of_the_configuration_is_framed() {
        let (_, sent) = begin(Rules { own_body: 3, ..RULES }, None);
        assert!(sent.ends_with(&frame(0, 1, 1, b"own")), "{}", sent.escape_ascii());
        let (_, sent) = begin(RULES, None);
        assert!(sent.ends_with(&frame(1, 5, 1, b"\x82\x86\x04\x01/")), "{}", sent.escape_ascii());
    }

    #[test]
    fn lengths_that_clients_are_told() {
        let length = |flags, more: &[u8]| {
            let (mut codec, _) = begin(RULES, None);
            receive(&mut codec, &[frame(1, flags, 1, more)]);
            match codec.read_head(&mut Head::default()) {
                Ok(HeadEvent::Done(length)) => length,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(length(4, b"\x88"), None);
        assert_eq!(length(5, b"\x88"), Some(0));
        assert_eq!(length(5, b"\x8b"), None, "304 has no body");
        assert_eq!(length(4, b"\x88\x0f\x0d\x017"), Some(7));
    }

    #[test]
    fn trailers_and_the_next_exchange() {
        for wanted in [true, false] {
            let (mut codec, _) = begin(Rules { trailers: wanted, ..RULES }, None);
            let trailers = frame(1, 5, 1, b"\x00\x01a\x01b");
            receive(&mut codec, &[frame(1, 4, 1, b"\x88"), frame(0, 0, 1, b"x"), trailers]);
            let mut head = Head::default();
            assert!(matches!(codec.read_head(&mut head), Ok(HeadEvent::Done(None))));
            assert_eq!((head.1.status, head.1.version), (200, 2000));
            assert!(matches!(codec.read_body(), Ok(BodyEvent::Body(part)) if &part[..] == b"x"));
            if wanted {
                let Ok(BodyEvent::Trailers(trailers)) = codec.read_body() else { panic!("there are some") };
                assert_eq!(trailers.iter().map(|field| field.value.to_vec()).collect::<Vec<_>>(), [b"b"]);
            }
            assert!(matches!(codec.read_body(), Ok(BodyEvent::End(End { keep: true, extra: false }))));
            let kept = codec.keep().expect("it serves on");
            assert!(Http2::left(&*kept));
            let (_, sent) = begin(RULES, Some(kept));
            assert_eq!(sent[..9], frame(1, 5, 3, b"\x82\x86\x04\x01/")[..9], "a stream of its own");
        }
    }

    #[test]
    fn faults_tell_what_may_be_repeated() {
        let fault = |input: Vec<u8>| {
            let (mut codec, _) = begin(RULES, None);
            receive(&mut codec, &[input]);
            codec.read_head(&mut Head::default()).expect_err("it fails").fault
        };
        assert_eq!(fault(frame(3, 0, 1, &[0, 0, 0, 7])), Fault::RefusedRequest);
        assert_eq!(fault(frame(3, 0, 1, &[0, 0, 0, 2])), Fault::InvalidResponse);
        assert_eq!(fault(frame(7, 0, 0, &[0; 8])), Fault::LeavingUpstream);
        assert_eq!(fault(frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])), Fault::RefusedRequest);
    }
}
