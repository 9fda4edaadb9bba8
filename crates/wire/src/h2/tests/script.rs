//! A client's frames, and what the server makes of them: as nginx answers, where it has an answer.

use super::*;

/// One exchange: what the client sends, the events, what the server sends without its owner's help.
struct Case {
    name: &'static str,
    input: Vec<u8>,
    events: &'static str,
    output: &'static str,
}

fn case(name: &'static str, input: &[Vec<u8>], events: &'static str, output: &'static str) -> Case {
    Case { name, input: input.concat(), events, output }
}

/// Runs a case with its input whole, and cut at every byte.
fn check(case: &Case) {
    for step in [usize::MAX, 1, 2, 3, 7, 10] {
        let mut connection = server(Config::default());
        let (mut events, mut failed) = (Vec::new(), false);
        for part in case.input.chunks(step.min(case.input.len().max(1))) {
            let mut part = Bytes::copy_from(part);
            failed |= loop {
                match connection.handle(0, &mut part) {
                    Ok(Some(event)) => events.push(event),
                    end => break end.is_err(),
                }
            };
        }
        connection.check_invariants();
        let output = frames(&transmit(&mut connection));
        // However DATA is cut, its bytes are the same.
        let events = if step == usize::MAX { words(&events) } else { words(&joined(events)) };
        assert_eq!(events, case.events, "events of {} by {step}", case.name);
        assert_eq!(output, case.output, "output of {} by {step}", case.name);
        assert_eq!(failed, case.output.contains("GOAWAY"), "{}", case.name);
    }
}

/// Joins DATA events of one stream that follow each other.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), &event) {
            (
                Some(Event::Data { stream, bytes, end_stream }),
                Event::Data { stream: next, bytes: more, end_stream: end },
            ) if stream == next => {
                *bytes = Bytes::from([&bytes[..], &more[..]].concat());
                *end_stream = *end;
            }
            _ => out.push(event),
        }
    }
    out
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn headers(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(Kind::Headers, flags, stream, payload)
}

fn raw(kind: Kind, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind, 0, stream, payload)
}

const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

#[test]
fn begins_as_nginx_does() {
    let mut connection = Connection::server(Rc::new(Config::default()));
    assert_eq!(frames(&transmit(&mut connection)), "SETTINGS 0 3=128,4=65536,5=16777215; WINDOW 0 2147418112");
    assert_eq!(feed(&mut connection, b"PRI * HTTP/2.0\r\n\r\nSN").unwrap_err().reason, Reason::Preface);
    let mut connection = Connection::server(Rc::new(Config { enable_connect_protocol: true, ..Config::default() }));
    assert!(frames(&transmit(&mut connection)).starts_with("SETTINGS 0 3=128,4=65536,5=16777215,8=1; "));
    let mut client = Connection::client(Rc::new(Config { max_frame_size: 16384, ..Config::default() }));
    let sent = transmit(&mut client);
    assert_eq!(frames(sent.strip_prefix(PREFACE).unwrap()), "SETTINGS 0 2=0,4=65536,5=16384; WINDOW 0 2147418112");
}

#[test]
fn control_frames() {
    let cases = [
        case("settings", &[raw(Kind::Settings, 0, b"")], "", "SETTINGS 1 "),
        case("ack", &[frame(Kind::Settings, flag::ACK, 0, b"")], "acked", ""),
        case("bad setting", &[raw(Kind::Settings, 0, &setting(5, 42))], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("window setting", &[raw(Kind::Settings, 0, &setting(4, 1 << 31))], "", "GOAWAY 0 FLOW_CONTROL_ERROR"),
        case("push setting", &[raw(Kind::Settings, 0, &setting(2, 2))], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("settings length", &[raw(Kind::Settings, 0, b"abc")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
        case("settings stream", &[raw(Kind::Settings, 1, b"")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("ack length", &[frame(Kind::Settings, 1, 0, &setting(3, 1))], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
        case("ping", &[raw(Kind::Ping, 0, b"SEE-THIS")], "", "PING 1 SEE-THIS"),
        case("pong", &[frame(Kind::Ping, flag::ACK, 0, b"SEE-THIS")], "pong SEE-THIS", ""),
        case("ping length", &[raw(Kind::Ping, 0, b"abc")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
        case("ping stream", &[raw(Kind::Ping, 1, b"SEE-THIS")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("go away", &[raw(Kind::GoAway, 0, b"\0\0\0\x03\0\0\0\x05foobar")], "go away 3 STREAM_CLOSED", ""),
        case("go away length", &[raw(Kind::GoAway, 0, b"\0\0\0\x03")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
        case("go away stream", &[raw(Kind::GoAway, 1, &[0; 8])], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("push promise", &[raw(Kind::PushPromise, 1, &[0; 4])], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case(
            "unknown",
            &[raw(Kind::Unknown(0xa), 0, b"payload"), raw(Kind::Ping, 0, b"SEE-THIS")],
            "",
            "PING 1 SEE-THIS",
        ),
        case("priority", &[raw(Kind::Priority, 3, b"\0\0\0\0\x01")], "", ""),
        case("priority length", &[raw(Kind::Priority, 1, b"abc")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
        case("priority stream", &[raw(Kind::Priority, 0, b"\0\0\0\0\x01")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("priority self", &[raw(Kind::Priority, 3, b"\0\0\0\x03\x01")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("priority update", &[raw(Kind::PriorityUpdate, 0, b"\0\0\0\x03u=1")], "", ""),
        case("long priority update", &[raw(Kind::PriorityUpdate, 0, &[b'x'; 200])], "", ""),
        case("priority update length", &[raw(Kind::PriorityUpdate, 0, b"\0\0\0")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
    ];
    cases.iter().for_each(check);
}

#[test]
fn windows() {
    let update = |stream, n: u32| raw(Kind::WindowUpdate, stream, &n.to_be_bytes());
    let cases = [
        case("connection", &[update(0, 1 << 20)], "", ""),
        case("zero", &[update(0, 0)], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("zero of a stream", &[post(1), update(1, 0)], "request 1 false", "GOAWAY 1 PROTOCOL_ERROR"),
        case("overflow", &[update(0, 0x7fff_ffff)], "", "GOAWAY 0 FLOW_CONTROL_ERROR"),
        case("at the limit", &[update(0, 0x7fff_0000)], "", ""),
        case("above the limit", &[update(0, 0x7fff_0000), update(0, 1)], "", "GOAWAY 0 FLOW_CONTROL_ERROR"),
        case(
            "overflow of a stream",
            &[post(1), update(1, 0x7fff_ffff)],
            "request 1 false; reset 1 FLOW_CONTROL_ERROR ours",
            "RST 1 FLOW_CONTROL_ERROR",
        ),
        case(
            "overflow by settings",
            &[post(1), update(1, 0x7fff_0000), raw(Kind::Settings, 0, &setting(4, 65_536))],
            "request 1 false",
            "GOAWAY 1 FLOW_CONTROL_ERROR",
        ),
        case("idle", &[update(5, 1)], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("length", &[raw(Kind::WindowUpdate, 0, b"abc")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
    ];
    cases.iter().for_each(check);
}

#[test]
fn header_blocks() {
    let whole = block(GET);
    let (front, back) = whole.split_at(3);
    let padded = [&[4][..], &whole, &[0; 4]].concat();
    let with_priority = [&[4, 0, 0, 0, 3, 7][..], &whole, &[0; 4]].concat();
    let cases = [
        case("one frame", &[headers(WHOLE, 1, &whole)], "request 1 true", ""),
        case("padded", &[headers(WHOLE | flag::PADDED, 1, &padded)], "request 1 true", ""),
        case("all flags", &[headers(WHOLE | flag::PADDED | flag::PRIORITY, 1, &with_priority)], "request 1 true", ""),
        case(
            "padded and continued",
            &[headers(flag::END_STREAM | flag::PADDED, 1, &padded), frame(Kind::Continuation, 4, 1, b"")],
            "request 1 true",
            "",
        ),
        case(
            "three frames",
            &[headers(1, 1, front), frame(Kind::Continuation, 0, 1, b""), frame(Kind::Continuation, 4, 1, back)],
            "request 1 true",
            "",
        ),
        case("too much padding", &[headers(WHOLE | flag::PADDED, 1, b"\x90abc")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("no room for padding", &[headers(WHOLE | flag::PADDED, 1, b"")], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
        case("depends on itself", &[headers(0x25, 1, b"\0\0\0\x01\x10")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("stream 0", &[headers(WHOLE, 0, &whole)], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("even", &[headers(WHOLE, 2, &whole)], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("backward", &[get(3), get(1)], "request 3 true", "GOAWAY 3 PROTOCOL_ERROR"),
        case("twice", &[get(1), get(1)], "request 1 true", "GOAWAY 1 PROTOCOL_ERROR"),
        case("continuation alone", &[frame(Kind::Continuation, 4, 1, &whole)], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case(
            "continuation of another",
            &[headers(1, 1, front), frame(Kind::Continuation, 4, 3, back)],
            "",
            "GOAWAY 1 PROTOCOL_ERROR",
        ),
        case(
            "something between",
            &[headers(1, 1, front), raw(Kind::Ping, 0, b"SEE-THIS")],
            "",
            "GOAWAY 1 PROTOCOL_ERROR",
        ),
        case("cut integer", &[headers(WHOLE, 1, b"\xff")], "", "GOAWAY 1 FRAME_SIZE_ERROR"),
        case("cut literal", &[headers(WHOLE, 1, b"\x42\xff")], "", "GOAWAY 1 FRAME_SIZE_ERROR"),
        case("no index", &[headers(WHOLE, 1, b"\x80")], "", "GOAWAY 1 COMPRESSION_ERROR"),
        case("table size", &[headers(WHOLE, 1, b"\x3f\xe2\x1f")], "", "GOAWAY 1 COMPRESSION_ERROR"),
        case("bad huffman", &[headers(WHOLE, 1, b"\x00\x01x\x84\xff\xff\xff\xff")], "", "GOAWAY 1 COMPRESSION_ERROR"),
        case("frame too large", &[vec![255, 255, 255, 0, 0, 0, 0, 0, 1]], "", "GOAWAY 0 PROTOCOL_ERROR"),
    ];
    cases.iter().for_each(check);
    // An index that is too long is found out before the frame is complete.
    let mut connection = server(Config::default());
    let cut = &headers(WHOLE, 1, &[255; 5])[..13];
    assert_eq!(feed(&mut connection, cut).unwrap_err().reason, Reason::Compression);
}

#[test]
fn bodies() {
    let data = |flags, stream, payload: &[u8]| frame(Kind::Data, flags, stream, payload);
    let long = headers(flag::END_HEADERS, 1, &get_with(&[("content-length", "5")]));
    let cases = [
        case("one", &[post(1), data(1, 1, b"TEST")], "request 1 false; data 1 TEST true", ""),
        case(
            "two",
            &[post(1), data(0, 1, b"TE"), data(1, 1, b"ST")],
            "request 1 false; data 1 TE false; data 1 ST true",
            "",
        ),
        case("empty end", &[post(1), data(1, 1, b"")], "request 1 false; data 1  true", ""),
        case(
            "padded",
            &[post(1), data(9, 1, b"\x03TEST\0\0\0")],
            "request 1 false; data 1 TEST false; data 1  true",
            "",
        ),
        case("only padding", &[post(1), data(9, 1, b"\x03\0\0\0")], "request 1 false; data 1  true", ""),
        case("too much padding", &[post(1), data(8, 1, b"\x04abc")], "request 1 false", "GOAWAY 1 PROTOCOL_ERROR"),
        case("no room for padding", &[post(1), data(8, 1, b"")], "request 1 false", "GOAWAY 1 FRAME_SIZE_ERROR"),
        case("stream 0", &[data(0, 0, b"abc")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("idle", &[data(0, 5, b"abc")], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case(
            "half-closed",
            &[get(1), data(0, 1, b"abc")],
            "request 1 true; reset 1 STREAM_CLOSED ours",
            "RST 1 STREAM_CLOSED",
        ),
        case(
            "after the client's end",
            &[get(1), raw(Kind::Reset, 1, &[0, 0, 0, 8]), data(0, 1, b"abc"), headers(WHOLE, 1, &block(GET))],
            "request 1 true; reset 1 CANCEL peer",
            "RST 1 STREAM_CLOSED; GOAWAY 1 PROTOCOL_ERROR",
        ),
        case(
            "after our end",
            &[get(1), data(0, 1, b"abc"), data(0, 1, b"abc"), data(1, 1, b"abc"), data(0, 1, b"abc")],
            "request 1 true; reset 1 STREAM_CLOSED ours",
            "RST 1 STREAM_CLOSED; RST 1 STREAM_CLOSED",
        ),
        case(
            "after both ends",
            &[get(1), data(0, 1, b"abc"), raw(Kind::Reset, 1, &[0, 0, 0, 8]), data(0, 1, b"abc")],
            "request 1 true; reset 1 STREAM_CLOSED ours",
            "RST 1 STREAM_CLOSED; RST 1 STREAM_CLOSED",
        ),
        case(
            "no name",
            &[headers(WHOLE, 1, &[block(GET), vec![0, 0, 1, b'v']].concat())],
            "",
            "GOAWAY 1 PROTOCOL_ERROR",
        ),
        case("as promised", &[long.clone(), data(1, 1, b"TESTS")], "request 1 false; data 1 TESTS true", ""),
        case("too short", &[long.clone(), data(1, 1, b"TEST")], "request 1 false; bad body 1 1", ""),
        case(
            "too long",
            &[long.clone(), data(0, 1, b"TESTING"), data(1, 1, b"x")],
            "request 1 false; bad body 1 0",
            "",
        ),
        case(
            "trailers",
            &[post(1), data(0, 1, b"TEST"), headers(WHOLE, 1, &block(&[("x", "y")]))],
            "request 1 false; data 1 TEST false; trailers 1",
            "",
        ),
        case(
            "trailers too early",
            &[long, headers(WHOLE, 1, &block(&[("x", "y")]))],
            "request 1 false; bad body 1 5",
            "",
        ),
        case(
            "trailers without end",
            &[post(1), headers(flag::END_HEADERS, 1, &block(&[("x", "y")])), get(3)],
            "request 1 false; reset 1 PROTOCOL_ERROR ours; request 3 true",
            "RST 1 PROTOCOL_ERROR",
        ),
        case(
            "pseudo-header in trailers",
            &[post(1), headers(WHOLE, 1, &block(&[(":path", "/")]))],
            "request 1 false; reset 1 PROTOCOL_ERROR ours",
            "RST 1 PROTOCOL_ERROR",
        ),
        case("reset", &[post(1), raw(Kind::Reset, 1, b"\0\0\0\x08")], "request 1 false; reset 1 CANCEL peer", ""),
        case("reset of an idle one", &[raw(Kind::Reset, 5, &[0; 4])], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("reset of 0", &[raw(Kind::Reset, 0, &[0; 4])], "", "GOAWAY 0 PROTOCOL_ERROR"),
        case("reset length", &[raw(Kind::Reset, 1, &[0; 3])], "", "GOAWAY 0 FRAME_SIZE_ERROR"),
    ];
    for case in &cases {
        // Cut into bytes, "two" frames are one body.
        if case.name == "two" || case.name == "padded" {
            let mut connection = server(Config::default());
            assert_eq!(words(&feed(&mut connection, &case.input).unwrap()), case.events);
        } else {
            check(case);
        }
    }
}

#[test]
fn requests_that_are_not_valid_are_handed_over() {
    for (more, expected) in [
        (&[][..], None),
        (&[("X", "y")], Some("client sent invalid header name: \"X\"")),
        (&[("connection", "close")], Some("client sent \"Connection\" header")),
        (&[(":foo", "y")], Some("client sent unknown pseudo-header \":foo\"")),
        (&[("content-length", "5")], Some("client prematurely closed stream")),
    ] {
        let mut connection = server(Config::default());
        let events = feed(&mut connection, &headers(WHOLE, 1, &get_with(more))).unwrap();
        assert_eq!(words(&events), "request 1 true");
        let head = connection.head_mut();
        assert_eq!(head.error_text().map(|text| text.to_string()).as_deref(), expected);
        assert_eq!(head.authority.unwrap().of(&head.text), b"localhost");
        assert_eq!(head.path.unwrap().of(&head.text), b"/");
    }
}

#[test]
fn extended_connect() {
    let fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/")];
    for enable_connect_protocol in [false, true] {
        let mut connection = server(Config { enable_connect_protocol, ..Config::default() });
        feed(&mut connection, &headers(flag::END_HEADERS, 1, &block(&fields))).unwrap();
        let head = connection.head_mut();
        assert_eq!(head.protocol.unwrap().of(&head.text), b"websocket");
        assert_eq!(head.error.is_none(), enable_connect_protocol);
    }
}

#[test]
fn a_head_can_be_given_up() {
    let mut connection = server(Config::default());
    let request = get(1);
    feed(&mut connection, &request[..12]).unwrap();
    assert!(connection.is_reading_head());
    assert!(connection.abandon_head() && !connection.abandon_head());
    assert_eq!(frames(&transmit(&mut connection)), "RST 1 PROTOCOL_ERROR");
    assert_eq!(feed(&mut connection, &request[12..]).unwrap(), []);
    assert!(!connection.is_reading_head() && connection.is_idle());
    assert_eq!(words(&feed(&mut connection, &get(3)).unwrap()), "request 3 true");
}

#[test]
fn what_comes_for_a_reset_stream_is_discarded() {
    let mut connection = server(Config::default());
    let stream = stream_of(&feed(&mut connection, &post(1)).unwrap());
    connection.reset(stream, Code::CANCEL);
    let late = [
        frame(Kind::Data, 0, 1, b"late"),
        frame(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]),
        headers(WHOLE, 1, &[&[0x40, 1, b'x', 1, b'y'][..]].concat()),
        frame(Kind::Reset, 0, 1, &[0, 0, 0, 8]),
        // The dynamic table has been kept up.
        headers(WHOLE, 3, &[&block(GET)[..], &[0xbe]].concat()),
    ];
    assert_eq!(words(&feed(&mut connection, &late.concat()).unwrap()), "request 3 true");
    let head = connection.head_mut();
    assert_eq!(head.fields[0].name.of(&head.text), b"x");
    assert_eq!(frames(&transmit(&mut connection)), "RST 1 CANCEL");
}

#[test]
fn going_away() {
    let mut connection = server(Config::default());
    let stream = stream_of(&feed(&mut connection, &get(1)).unwrap());
    connection.go_away(Code::NO_ERROR);
    connection.go_away(Code::NO_ERROR);
    assert_eq!(frames(&transmit(&mut connection)), "GOAWAY 1 NO_ERROR");
    // Later streams are ignored, with all that belongs to them.
    let late = [post(3), frame(Kind::Data, 1, 3, b"x"), frame(Kind::WindowUpdate, 0, 3, &[0, 0, 0, 1])].concat();
    assert_eq!(feed(&mut connection, &late).unwrap(), []);
    connection.send_head(stream, true, |head| head.status(204)).unwrap();
    assert_eq!(frames(&transmit(&mut connection)), "HEADERS 1 5 :status=204");
    assert_eq!((connection.streams(), connection.is_idle()), (0, true));
}
