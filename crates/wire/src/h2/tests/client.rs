//! The client of one exchange at a time: against the server's side, and against servers that break the rules.

use super::*;
use crate::hpack::write_plain;

const LIMITS: ClientLimits = ClientLimits { head: 4096 };

fn request_block(method: &str) -> Vec<u8> {
    let mut out = Buf::empty();
    for (name, value) in [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a"), ("X-A", "b")] {
        write_plain(name.as_bytes(), value.as_bytes(), &mut out);
    }
    out.to_vec()
}

/// What an exchange came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    interim: Vec<u16>,
    status: u16,
    body: Vec<u8>,
    trailers: Option<String>,
    ended: bool,
}

fn field_text(head: &Head) -> String {
    let text = |field: &crate::h1::HeaderSpan| {
        format!("{}={}", field.name.of(&head.text).escape_ascii(), field.value.of(&head.text).escape_ascii())
    };
    head.fields.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Takes all events; whether the response is complete.
fn take(client: &mut Client, seen: &mut Seen) -> Result<bool, ServerFault> {
    loop {
        match client.next_event()? {
            ClientEvent::More => return Ok(false),
            ClientEvent::Interim => seen.interim.push(client.head_mut().status),
            ClientEvent::Head => seen.status = client.head_mut().status,
            ClientEvent::Data(bytes) => seen.body.extend_from_slice(&bytes),
            ClientEvent::Trailers => seen.trailers = Some(field_text(client.head_mut())),
            ClientEvent::End => {
                seen.ended = true;
                return Ok(true);
            }
        }
    }
}

/// What a client sends now.
fn sent(client: &mut Client) -> Vec<u8> {
    let mut out = Chain::new();
    client.transmit(&mut out);
    bytes_of(&out)
}

/// A server that answers each request with its own body between a head and trailers.
struct Echo {
    connection: Connection,
    input: Vec<u8>,
}

impl Echo {
    fn new(config: Config) -> Echo {
        Echo { connection: Connection::server(Rc::new(config)), input: Vec::new() }
    }

    fn head(&mut self, stream: StreamKey) {
        let interim = self.connection.send_interim_head(stream, |head| head.status(103));
        let head = self.connection.send_head(stream, false, |head| {
            head.status(200);
            head.field(b"content-type", b"application/grpc", Indexing::Incremental);
        });
        assert_eq!((interim, head), (Ok(()), Ok(())));
    }

    fn end(&mut self, stream: StreamKey) {
        let sent = self.connection.send_trailers(stream, |head| head.field(b"grpc-status", b"0", Indexing::Without));
        assert!(sent.is_ok());
    }

    /// Takes up to `n` bytes of what came.
    fn step(&mut self, n: usize) {
        let mut input: Bytes = self.input.drain(..n.min(self.input.len())).collect::<Vec<_>>().into();
        while let Some(event) = self.connection.handle(0, &mut input).expect("the client keeps the rules") {
            self.connection.check_invariants();
            match event {
                Event::Request { stream, end_stream } => {
                    assert!(self.connection.head_mut().error.is_none());
                    self.head(stream);
                    if end_stream {
                        self.end(stream);
                    }
                }
                Event::Data { stream, bytes, end_stream } => {
                    self.connection.release(stream, bytes.len() as u32);
                    assert_eq!(self.connection.send_data(stream, Chain::from(bytes), false), Ok(()));
                    if end_stream {
                        self.end(stream);
                    }
                }
                Event::SettingsAcked | Event::Pong(_) => {}
                event => panic!("{event:?}"),
            }
        }
    }
}

/// One exchange: both sides get what the other one sends in pieces of `cut` bytes.
fn exchange(client: &mut Client, echo: &mut Echo, body: &[u8], cut: usize) -> Seen {
    client.begin(LIMITS, false);
    let mut out = Chain::new();
    client.head(&request_block("POST"), body.is_empty());
    if !body.is_empty() {
        let (first, second) = body.split_at(body.len() / 2);
        client.body(Chain::from(Bytes::copy_from(first)), false, &mut out);
        client.body(Chain::from(Bytes::copy_from(second)), true, &mut out);
    }
    let (mut seen, mut inbox) = (Seen::default(), Vec::new());
    let mut steps = 0;
    while !seen.ended {
        client.transmit(&mut out);
        echo.input.extend(bytes_of(&std::mem::take(&mut out)));
        echo.step(cut);
        inbox.extend(transmit(&mut echo.connection));
        let part: Vec<u8> = inbox.drain(..cut.min(inbox.len())).collect();
        if !part.is_empty() {
            client.receive(part.into());
            take(client, &mut seen).expect("the server keeps the rules");
        }
        steps += 1;
        assert!(steps < 1_000_000, "it goes on for ever");
    }
    // What is left of frames after the end belongs to the connection.
    while !inbox.is_empty() || !echo.input.is_empty() {
        client.receive(std::mem::take(&mut inbox).into());
        assert_eq!(client.next_event(), Ok(ClientEvent::End));
        client.transmit(&mut out);
        echo.input.extend(bytes_of(&std::mem::take(&mut out)));
        echo.step(usize::MAX);
        inbox.extend(transmit(&mut echo.connection));
    }
    seen
}

#[test]
fn exchanges_however_they_are_cut() {
    for (initial_window, cuts) in [(1_u32, vec![1, 7, 1000]), (65_536, (1..120).collect()), (1 << 20, vec![16_384])] {
        for cut in cuts {
            let config = Config { initial_window, chunk_size: 100, flood_budget: u32::MAX, ..Config::default() };
            let (mut client, mut echo) = (Client::new(), Echo::new(config));
            for size in [0, 1, 40, 3000] {
                let body: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
                let seen = exchange(&mut client, &mut echo, &body, cut);
                let trailers = Some("grpc-status=0".to_owned());
                let expect = Seen { interim: vec![103], status: 200, body, trailers, ended: true };
                assert_eq!(seen, expect, "window {initial_window}, cut {cut}");
                assert!(client.serves_on() && !client.holds_back());
                client.rest();
            }
        }
    }
}

#[test]
fn a_large_body_is_not_copied() {
    let mut client = Client::new();
    client.begin(LIMITS, false);
    let mut out = Chain::new();
    client.head(&request_block("POST"), false);
    client.transmit(&mut out);
    let head = out.len();
    client.body(Chain::from(Bytes::from(vec![b'x'; 100_000])), true, &mut out);
    assert_eq!(out.len() - head, 65_535 + 4 * 9, "as much as the windows have room for");
    assert!(client.holds_back() && client.window() == 0);
    let settings = frame(Kind::Settings, 0, 0, &[0, 4, 0, 1, 0, 0]);
    client.receive(Bytes::from([settings, frame(Kind::WindowUpdate, 0, 0, &[0, 1, 0, 0])].concat()));
    assert_eq!(client.next_event(), Ok(ClientEvent::More));
    let before = out.len();
    client.transmit(&mut out);
    assert_eq!(out.len() - before, 9 + 1 + 9, "an acknowledgement, and the one byte of the new window");
}

#[test]
fn a_small_request_is_one_piece() {
    let mut client = Client::new();
    client.begin(LIMITS, false);
    client.head(&request_block("POST"), false);
    let mut out = Chain::new();
    client.body(Chain::from(Bytes::from_static(b"small")), true, &mut out);
    assert_eq!(out.pieces().len(), 1);
}

#[test]
fn what_a_client_begins_with() {
    let mut client = Client::new();
    client.begin(LIMITS, false);
    client.head(&request_block("GET"), true);
    let sent = sent(&mut client);
    let frames = frames(sent.strip_prefix(PREFACE).expect("the preface comes first"));
    let fields = ":method=GET,:scheme=http,:path=/,:authority=a,x-a=b";
    let expect = format!("SETTINGS 0 1=0,2=0,4=2147483647; WINDOW 0 2147418112; HEADERS 1 5 {fields}");
    assert_eq!(frames, expect);
}

#[test]
fn a_smaller_table_is_acknowledged_in_the_next_block() {
    let mut client = Client::new();
    client.begin(LIMITS, false);
    client.head(&request_block("GET"), true);
    sent(&mut client);
    let settings = frame(Kind::Settings, 0, 0, &[0, 1, 0, 0, 0, 0]);
    let answer = frame(Kind::Headers, flag::END_HEADERS | flag::END_STREAM, 1, &block(&[(":status", "204")]));
    client.receive(Bytes::from([settings, answer].concat()));
    assert_eq!((client.next_event(), client.next_event()), (Ok(ClientEvent::Head), Ok(ClientEvent::End)));
    assert!(client.serves_on());
    client.begin(LIMITS, false);
    client.head(&request_block("GET"), true);
    let sent = sent(&mut client);
    let headers = sent.get(9..).expect("an acknowledgement comes first");
    assert_eq!(headers.get(9), Some(&0x20), "the table's new size");
}

/// What becomes of a response that is cut into pieces of `cut` bytes.
fn answer(input: &[u8], cut: usize, to_head: bool) -> Result<(Seen, bool), ServerFault> {
    let mut client = Client::new();
    client.begin(LIMITS, to_head);
    client.head(&request_block("GET"), true);
    let (mut seen, mut out) = (Seen::default(), Chain::new());
    for part in input.chunks(cut) {
        client.receive(Bytes::copy_from(part));
        take(&mut client, &mut seen)?;
        client.transmit(&mut out);
    }
    Ok((seen, client.serves_on()))
}

fn headers(flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(Kind::Headers, flag::END_HEADERS | flags, 1, &block(fields))
}

#[test]
fn servers_that_break_the_rules() {
    let ok = || headers(0, &[(":status", "200")]);
    let sized = |length: &str| headers(0, &[(":status", "200"), ("content-length", length)]);
    let data = |flags, text: &str| frame(Kind::Data, flags, 1, text.as_bytes());
    let reset = |code: u8| frame(Kind::Reset, 0, 1, &[0, 0, 0, code]);
    let raw = |block: &[u8]| frame(Kind::Headers, 5, 1, block);
    let go_away = |last: u8, code: u8| frame(Kind::GoAway, 0, 0, &[0, 0, 0, last, 0, 0, 0, code]);
    let window = |stream, by: u32| frame(Kind::WindowUpdate, 0, stream, &by.to_be_bytes());
    use ServerFaultKind::{Invalid, Leaving, Refused};
    for (input, kind, text) in [
        (reset(8), Invalid, "rejected request with error 8"),
        (reset(7), Refused, "rejected request with error 7"),
        (go_away(0, 2), Refused, "sent goaway with error 2"),
        (go_away(0, 0), Leaving, "sent goaway with error 0"),
        ([ok(), go_away(0, 0)].concat(), Invalid, "sent goaway with error 0"),
        (frame(Kind::PushPromise, 4, 1, b"\0\0\0\x02\x88"), Invalid, "sent unexpected push promise frame"),
        (frame(Kind::Headers, 5, 3, b"\x88"), Invalid, "sent frame for unknown stream 3"),
        (data(1, "x"), Invalid, "sent unexpected http2 frame: 0"),
        (frame(Kind::Continuation, 4, 1, b"\x88"), Invalid, "sent unexpected http2 frame: 9"),
        (
            [frame(Kind::Headers, 0, 1, b"\x88"), frame(Kind::Ping, 0, 0, b"12345678")].concat(),
            Invalid,
            "sent unexpected http2 frame: 6",
        ),
        (frame(Kind::Ping, 0, 0, b"1234567"), Invalid, "sent ping frame with invalid length: 7"),
        (frame(Kind::Settings, 0, 0, b"12345"), Invalid, "sent settings frame with invalid length: 5"),
        (
            frame(Kind::Settings, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            Invalid,
            "sent settings frame with too large initial window size: 2147483648",
        ),
        (window(0, 0), Invalid, "sent zero window update"),
        (window(0, MAX), Invalid, "sent too large window update"),
        (window(1, MAX), Invalid, "sent too large window update"),
        (headers(1, &[("a", "b")]), Invalid, "sent no :status header"),
        (headers(1, &[("a", "b"), (":status", "200")]), Invalid, "sent no :status header"),
        (headers(1, &[(":status", "2x0")]), Invalid, "sent invalid :status \"2x0\""),
        (headers(1, &[(":status", "200"), (":status", "200")]), Invalid, "sent duplicate :status header"),
        (headers(1, &[(":status", "200"), (":path", "/")]), Invalid, "sent invalid header \":path\""),
        (headers(1, &[(":status", "200"), ("Ab", "c")]), Invalid, "sent invalid header: \"Ab\""),
        (headers(1, &[(":status", "200"), ("ab", "c\nd")]), Invalid, "sent invalid header: \"ab: c\nd\""),
        (raw(b"\x88\0\0\x01c"), Invalid, "sent zero http2 header name length"),
        (raw(b"\x88\x80"), Invalid, "sent invalid http2 table index"),
        (raw(b"\x88\xbe"), Invalid, "sent invalid http2 table index"),
        (raw(b"\x21\x88"), Invalid, "sent invalid http2 dynamic table size update"),
        (raw(b"\x88\0\x05ab"), Invalid, "sent truncated http2 header"),
        (headers(1, &[(":status", "200"), ("a", &"#".repeat(5000))]), Invalid, "sent too big header"),
        (frame(Kind::Data, 0, 1, &[0; 16_385]), Invalid, "sent too large http2 frame: 16385"),
        (b"HTTP/1.1 400 Bad\r\n".to_vec(), Invalid, "sent too large http2 frame: 4740180"),
        (sized("x"), Invalid, "sent invalid \"Content-Length\" header"),
        ([sized("8"), data(1, "SEE")].concat(), Invalid, "prematurely closed stream"),
        ([sized("8"), data(0, "SEE"), headers(1, &[("a", "b")])].concat(), Invalid, "prematurely closed stream"),
        (headers(1, &[(":status", "200"), ("content-length", "8")]), Invalid, "prematurely closed stream"),
        ([sized("2"), data(1, "SEE")].concat(), Invalid, "sent response body larger than indicated content length"),
        ([ok(), reset(0)].concat(), Invalid, "rejected request with error 0"),
        ([ok(), reset(7)].concat(), Invalid, "rejected request with error 7"),
        ([ok(), data(1, "x"), reset(0), reset(0)].concat(), Invalid, "sent frame for closed stream 1"),
        ([ok(), data(1, "x"), reset(8)].concat(), Invalid, "rejected request with error 8"),
        ([ok(), data(1, "x"), data(1, "y")].concat(), Invalid, "sent frame for closed stream 1"),
        ([ok(), data(1, "x"), ok()].concat(), Invalid, "sent frame for closed stream 1"),
        ([ok(), headers(1, &[("Ab", "c")])].concat(), Invalid, "sent invalid trailer: \"Ab\""),
        ([ok(), headers(1, &[(":status", "200")])].concat(), Invalid, "sent invalid trailer \":status\""),
        ([ok(), headers(0, &[("a", "b")])].concat(), Invalid, "sent trailer without end stream flag"),
        (headers(1, &[(":status", "103")]), Invalid, "prematurely closed stream"),
        (headers(0, &[(":status", "101")]), Invalid, "sent unexpected :status \"101\""),
    ] {
        for cut in [1, 2, 10, 100_000] {
            let fault = answer(&input, cut, false).expect_err(text);
            assert_eq!((fault.kind, &fault.text), (kind, &format!("upstream {text}")), "cut {cut}");
        }
    }
}

const MAX: u32 = frame::MAX_WINDOW;

#[test]
fn what_servers_may_send() {
    let ok = || headers(0, &[(":status", "200")]);
    let end = frame(Kind::Data, 1, 1, b"x");
    for (input, serves_on) in [
        ([ok(), end.clone()].concat(), true),
        ([ok(), end.clone(), frame(Kind::Reset, 0, 1, &[0; 4])].concat(), true),
        ([ok(), end.clone(), frame(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 9])].concat(), true),
        ([ok(), end.clone(), frame(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])].concat(), false),
        ([frame(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 5]), ok(), end.clone()].concat(), false),
        ([ok(), end.clone(), frame(Kind::Ping, 0, 0, &[0; 8])].concat(), true),
        ([ok(), end.clone(), vec![0, 0, 8]].concat(), false),
        ([frame(Kind::Unknown(0x42), 0, 0, b"x"), ok(), end.clone()].concat(), true),
        ([headers(0, &[(":status", "200"), ("connection", "close"), ("te", "x")]), end.clone()].concat(), true),
        ([frame(Kind::Headers, 0, 1, b"\x88"), frame(Kind::Continuation, 4, 1, b""), end].concat(), true),
    ] {
        for cut in [1, 5, 1000] {
            let (seen, keeps) = answer(&input, cut, false).expect("it is allowed");
            assert_eq!((seen.status, &seen.body[..], keeps), (200, &b"x"[..], serves_on), "cut {cut}");
        }
    }
    let (seen, _) = answer(&headers(1, &[(":status", "200"), ("content-length", "8")]), 3, true).expect("for HEAD");
    assert!(seen.ended);
    let (seen, _) = answer(&headers(1, &[(":status", "304"), ("content-length", "8")]), 3, false).expect("of 304");
    assert!(seen.ended);
}

#[test]
fn floods_end() {
    let ping = frame(Kind::Ping, 0, 0, &[0; 8]);
    for (input, unread, text) in [
        (ping.repeat(2000), true, "ping"),
        (frame(Kind::Settings, 0, 0, &[]).repeat(2000), true, "settings"),
        (ping.repeat(70_000), false, "control"),
        (frame(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]).repeat(70_000), false, "control"),
        (headers(0, &[(":status", "103")]).repeat(2000), false, "control"),
    ] {
        let mut client = Client::new();
        client.begin(LIMITS, false);
        let (mut out, mut seen) = (Chain::new(), Seen::default());
        client.head(&request_block("GET"), true);
        client.transmit(&mut out);
        let fault = input.chunks(500).find_map(|part| {
            client.receive(Bytes::copy_from(part));
            let fault = take(&mut client, &mut seen).err();
            if !unread {
                out.clear();
            }
            client.transmit(&mut out);
            fault
        });
        assert_eq!(fault.map(|fault| fault.text), Some(format!("upstream sent too many {text} frames")));
    }
    let begun = frame(Kind::Headers, 0, 1, b"\x88");
    let endless = [begun, frame(Kind::Continuation, 0, 1, b"").repeat(300)].concat();
    assert!(answer(&endless, 9, false).is_err_and(|fault| fault.text.contains("continuation")));
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Client>() <= 800, "{} bytes", size_of::<Client>());
    let (seen, keeps) = answer(&headers(1, &[(":status", "200")]), 10, false).expect("it is allowed");
    assert!(seen.ended && keeps);
}
