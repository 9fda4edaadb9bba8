//! What a server's owner sends, and how it is framed.

use super::*;
use buf::FileRange;

fn body(length: usize) -> Chain {
    Chain::from(Bytes::from(vec![b'x'; length]))
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(Kind::Settings, 0, 0, &payload)
}

fn window(stream: u32, n: u32) -> Vec<u8> {
    frame(Kind::WindowUpdate, 0, stream, &n.to_be_bytes())
}

/// A server with requests on these streams.
fn with_requests(ids: &[u32], config: Config) -> (Connection, Vec<StreamKey>) {
    let mut connection = server(config);
    let keys = ids.iter().map(|&id| stream_of(&feed(&mut connection, &get(id)).unwrap())).collect();
    (connection, keys)
}

fn respond(connection: &mut Connection, stream: StreamKey, length: usize) {
    connection.send_head(stream, false, |head| head.status(200)).unwrap();
    connection.send_data(stream, body(length), true).unwrap();
}

#[test]
fn a_response() {
    let (mut c, keys) = with_requests(&[1, 3], Config::default());
    c.send_interim_head(keys[0], |head| head.status(103)).unwrap();
    c.send_head(keys[0], false, |head| {
        head.status(200);
        head.field(b"X-Header", b"X-Foo", Indexing::Without);
    })
    .unwrap();
    assert_eq!(c.send_head(keys[0], false, |_| ()), Err(SendError::Misuse));
    assert_eq!(c.send_data(keys[1], body(1), true), Err(SendError::Misuse));
    c.send_data(keys[0], body(4), true).unwrap();
    assert_eq!(c.send_data(keys[0], body(4), true), Err(SendError::Misuse));
    assert_eq!(c.queued(keys[0]), 4);
    assert_eq!(
        frames(&transmit(&mut c)),
        "HEADERS 1 4 :status=103; HEADERS 1 4 :status=200,x-header=X-Foo; DATA 1 4 1"
    );
    assert_eq!(c.send_data(keys[0], body(4), true), Err(SendError::Gone));
    assert_eq!((c.poll_drained(), c.poll_drained(), c.is_open(keys[0])), (Some(keys[0]), None, false));
    c.send_head(keys[1], true, |head| head.status(304)).unwrap();
    assert_eq!(frames(&transmit(&mut c)), "HEADERS 3 5 :status=304");
}

fn send_small(connection: &mut Connection, stream: StreamKey, length: usize) -> bool {
    let fill = |place: &mut [u8]| {
        place.fill(b'x');
        Ok::<(), ()>(())
    };
    connection.send_small(stream, length, fill).unwrap()
}

#[test]
fn a_small_body_follows_its_head() {
    let (mut c, keys) = with_requests(&[1, 3, 5], Config::default());
    assert!(!send_small(&mut c, keys[0], 4), "the head comes first");
    for key in &keys {
        c.send_head(*key, false, |head| head.status(200)).unwrap();
    }
    assert_eq!(c.send_small(keys[0], 4, |_| Err("not read")), Err("not read"));
    assert!(!send_small(&mut c, keys[0], 0));
    assert!(send_small(&mut c, keys[0], 4));
    assert_eq!((c.is_open(keys[0]), c.queued(keys[0]), c.poll_drained()), (false, 0, None));
    assert!(!send_small(&mut c, keys[0], 4), "it is over");
    c.check_invariants();
    c.send_data(keys[1], body(9), false).unwrap();
    assert!(!send_small(&mut c, keys[1], 4), "its own body waits");
    assert!(!send_small(&mut c, keys[2], 4), "another stream waits for its turn");
    assert_eq!(
        frames(&transmit(&mut c)),
        "HEADERS 1 4 :status=200; HEADERS 3 4 :status=200; HEADERS 5 4 :status=200; DATA 1 4 1; DATA 3 9 0"
    );
    assert!(send_small(&mut c, keys[2], 5));
    assert_eq!(frames(&transmit(&mut c)), "DATA 5 5 1");
    assert_eq!(c.capacity(keys[1]), 65_535 - 4 - 9 - 5);
}

#[test]
fn a_small_body_keeps_all_limits() {
    for (chunk, peer, windows, length, fits) in [
        (8192, &[][..], 0, 8192, true),
        (8192, &[], 0, 8193, false),
        (65_536, &[], 0, 16_384, true),
        (65_536, &[], 0, 16_385, false),
        (65_536, &[(4, 10)], 0, 10, true),
        (65_536, &[(4, 10)], 0, 11, false),
        (65_536, &[(5, 32_768)], 0, 32_768, true),
        (65_536, &[(4, 200_000), (5, 200_000)], 0, 65_536, false),
        (65_536, &[(4, 200_000), (5, 200_000)], 1, 65_536, true),
        (1 << 20, &[(4, 200_000), (5, 200_000)], 200_000, (128 << 10) - 100, true),
        (1 << 20, &[(4, 200_000), (5, 200_000)], 200_000, 128 << 10, false),
    ] {
        let (mut c, keys) = with_requests(&[1], Config::default());
        feed(&mut c, &settings(peer)).unwrap();
        if windows > 0 {
            feed(&mut c, &window(0, windows)).unwrap();
        }
        transmit(&mut c);
        c.set_chunk_size(keys[0], chunk);
        c.send_head(keys[0], false, |head| head.status(200)).unwrap();
        assert_eq!(send_small(&mut c, keys[0], length), fits, "{chunk} {peer:?} {windows} {length}");
        c.check_invariants();
    }
}

#[test]
fn streams_share_the_connections_window() {
    let (mut c, keys) = with_requests(&[1, 3], Config::default());
    assert_eq!(c.capacity(keys[1]), 65_535);
    respond(&mut c, keys[0], 65_000);
    assert_eq!((c.capacity(keys[0]), c.capacity(keys[1])), (535, 535));
    transmit(&mut c);
    assert_eq!(c.capacity(keys[1]), 535);
    feed(&mut c, &window(0, 1000)).unwrap();
    assert_eq!(c.capacity(keys[1]), 1535);
    respond(&mut c, keys[1], 1500);
    c.reset(keys[1], Code::CANCEL);
    c.check_invariants();
}

#[test]
fn trailers() {
    for (length, expected) in [
        (8, "HEADERS 1 4 :status=200; DATA 1 8 0; HEADERS 1 5 x-var=localhost"),
        (0, "HEADERS 1 4 :status=200; HEADERS 1 5 x-var=localhost"),
    ] {
        let (mut c, keys) = with_requests(&[1], Config::default());
        c.send_head(keys[0], false, |head| head.status(200)).unwrap();
        c.send_data(keys[0], body(length), false).unwrap();
        c.send_trailers(keys[0], |head| head.field(b"X-Var", b"localhost", Indexing::Incremental)).unwrap();
        assert_eq!(frames(&transmit(&mut c)), expected);
        assert!(!c.is_open(keys[0]));
    }
}

#[test]
fn long_heads_and_trailers_are_cut() {
    let (mut c, keys) = with_requests(&[1], Config::default());
    let value = vec![b'~'; 20_000];
    c.send_head(keys[0], false, |head| head.field(b"x", &value, Indexing::Without)).unwrap();
    c.send_data(keys[0], body(8), false).unwrap();
    c.send_trailers(keys[0], |head| head.field(b"x", &value, Indexing::Without)).unwrap();
    let sent = transmit(&mut c);
    let shown: Vec<String> = frames(&sent).split("; ").map(|f| f.chars().take(20).collect()).collect();
    let expected = ["HEADERS 1 0 ", "CONTINUATION 1 4 362", "DATA 1 8 0", "HEADERS 1 1 ", "CONTINUATION 1 4 362"];
    assert_eq!(shown.len(), expected.len());
    assert!(shown.iter().zip(expected).all(|(shown, expected)| shown.starts_with(expected)), "{shown:?}");
}

#[test]
fn frames_are_as_small_as_all_limits() {
    for (chunk, peer, length, expected) in [
        (8192, &[][..], 65_616, "8192 8192 8192 8192 8192 8192 8192 8191"),
        (1, &[], 4, "1 1 1 1"),
        (65_536, &[], 40_000, "16384 16384 7232"),
        (65_536, &[(5, 32_768)], 40_000, "32768 7232"),
        (65_536, &[(4, 42)], 100, "42"),
        (65_536, &[(4, 42), (4, 65_535), (5, 32_768)], 40_000, "32768 7232"),
    ] {
        let (mut c, keys) = with_requests(&[1], Config::default());
        feed(&mut c, &settings(peer)).unwrap();
        transmit(&mut c);
        c.set_chunk_size(keys[0], chunk);
        respond(&mut c, keys[0], length);
        let sent = frames(&transmit(&mut c));
        let lengths: Vec<&str> =
            sent.split("; ").filter(|f| f.starts_with("DATA")).map(|f| f.split(' ').nth(2).unwrap()).collect();
        assert_eq!(lengths.join(" "), expected);
    }
}

#[test]
fn windows_hold_back_and_let_go() {
    let (mut c, keys) = with_requests(&[1], Config { chunk_size: 65_536, ..Config::default() });
    respond(&mut c, keys[0], 65_616);
    assert!(frames(&transmit(&mut c)).ends_with("DATA 1 16383 0"));
    assert_eq!((c.queued(keys[0]), c.capacity(keys[0])), (81, 0));
    for (input, expected) in [
        (frame(Kind::Ping, 0, 0, b"SEE-THIS"), "PING 1 SEE-THIS"),
        (window(1, 1), ""),
        (window(0, 1000), "DATA 1 1 0"),
        // The window of the stream goes below zero, and up again.
        (settings(&[(4, 42)]), "SETTINGS 1 "),
        (window(1, 65_535 - 42), ""),
        (window(1, 30), "DATA 1 30 0"),
        (settings(&[(4, 52), (4, 62)]), "SETTINGS 1 ; DATA 1 20 0"),
        (window(1, 1000), "DATA 1 30 1"),
    ] {
        feed(&mut c, &input).unwrap();
        assert_eq!(frames(&transmit(&mut c)), expected);
    }
    assert_eq!(c.poll_drained(), Some(keys[0]));
}

/// Who is served in which order, as streams' numbers of DATA frames.
fn order(c: &mut Connection) -> String {
    let sent = frames(&transmit(c));
    let ids = sent.split("; ").filter(|f| f.starts_with("DATA")).map(|f| f.split(' ').nth(1).unwrap());
    ids.collect::<Vec<_>>().join("")
}

#[test]
fn streams_take_turns() {
    let (mut c, keys) = with_requests(&[1, 3, 5], Config { chunk_size: 10, ..Config::default() });
    for (key, length) in keys.iter().zip([40, 20, 30]) {
        respond(&mut c, *key, length);
    }
    assert_eq!(order(&mut c), "135135151");
}

#[test]
fn urgency_and_increments() {
    let priorities = [(1, "u=5"), (3, "u=1"), (5, "u=1, i"), (7, "u=1, i")];
    let mut c = server(Config { chunk_size: 10, ..Config::default() });
    for (id, value) in priorities {
        let head = frame(Kind::Headers, 5, id, &get_with(&[("priority", value)]));
        let stream = stream_of(&feed(&mut c, &head).unwrap());
        respond(&mut c, stream, 20);
    }
    assert_eq!(order(&mut c), "33575711");
    // PRIORITY_UPDATE before a stream begins and while it runs.
    let update = |id: u32, value: &[u8]| frame(Kind::PriorityUpdate, 0, 0, &[&id.to_be_bytes()[..], value].concat());
    // Of two before it begins the later one counts.
    feed(&mut c, &[update(11, b"u=7"), update(11, b"u=0"), get(9), get(11), get(13)].concat()).unwrap();
    for id in [9, 11, 13] {
        let key = c.streams.key(id).unwrap();
        respond(&mut c, key, 20);
    }
    feed(&mut c, &update(13, b"u=2")).unwrap();
    let order = order(&mut c);
    assert_eq!(order, "1111131399");
}

#[test]
fn dependencies_of_old() {
    let depends =
        |id: u32, on: u32, weight: u8| frame(Kind::Priority, 0, id, &[&on.to_be_bytes()[..], &[weight]].concat());
    let (mut c, keys) = with_requests(&[1, 3], Config { chunk_size: 10, ..Config::default() });
    respond(&mut c, keys[0], 20);
    respond(&mut c, keys[1], 20);
    feed(&mut c, &[depends(1, 0, 0), depends(3, 0, 255)].concat()).unwrap();
    assert_eq!(order(&mut c), "3311");
}

#[test]
fn bodies_are_not_copied() {
    let (mut c, keys) = with_requests(&[1, 3], Config { chunk_size: 1 << 20, ..Config::default() });
    feed(&mut c, &settings(&[(5, 1 << 20)])).unwrap();
    let file = std::rc::Rc::new(std::fs::File::open("/dev/null").unwrap());
    let memory = Bytes::from(vec![b'm'; 5000]);
    let address = memory.as_ptr();
    let mut mixed = Chain::from(memory);
    mixed.push(Piece::File(FileRange { file, offset: 100, len: 3000 }));
    c.send_head(keys[0], false, |head| head.status(200)).unwrap();
    c.send_data(keys[0], mixed, true).unwrap();
    respond(&mut c, keys[1], 10);
    let chain = c.poll_transmit(u64::MAX).unwrap();
    let shown: Vec<String> = chain
        .pieces()
        .iter()
        .map(|piece| match piece {
            Piece::Bytes(bytes) if bytes.as_ptr() == address => format!("memory {}", bytes.len()),
            Piece::Bytes(bytes) => format!("frames {}", bytes.len()),
            Piece::File(range) => format!("file {}+{}", range.offset, range.len),
        })
        .collect();
    // SETTINGS, two HEADERS and a header of DATA; then DATA of ten bytes with its header.
    assert_eq!(shown, ["frames 38", "memory 5000", "file 100+3000", "frames 19"]);
}

#[test]
fn transmits_no_more_than_asked() {
    let (mut c, keys) = with_requests(&[1], Config::default());
    respond(&mut c, keys[0], 60_000);
    let first = c.poll_transmit(1).unwrap();
    assert!(first.len() < 100);
    let second = c.poll_transmit(20_000).unwrap();
    assert!((20_000..30_000).contains(&second.len()), "{}", second.len());
    assert!(c.wants_transmit());
}

#[test]
fn the_rest_of_a_request_is_not_needed() {
    // The response is complete before the request is.
    let mut c = server(Config::default());
    let stream = stream_of(&feed(&mut c, &post(1)).unwrap());
    respond(&mut c, stream, 4);
    c.reset_when_sent(stream, Code::NO_ERROR);
    assert_eq!(frames(&transmit(&mut c)), "HEADERS 1 4 :status=200; DATA 1 4 1; RST 1 NO_ERROR");
    // The other way round: it was sent, then the rest turns out to be useless.
    let stream = stream_of(&feed(&mut c, &post(3)).unwrap());
    respond(&mut c, stream, 4);
    assert_eq!(frames(&transmit(&mut c)), "HEADERS 3 4 :status=200; DATA 3 4 1");
    assert!(c.is_receiving(stream));
    c.reset_when_sent(stream, Code::NO_ERROR);
    assert_eq!(frames(&transmit(&mut c)), "RST 3 NO_ERROR");
    // The request ends in time: no reset.
    let stream = stream_of(&feed(&mut c, &post(5)).unwrap());
    c.send_head(stream, false, |head| head.status(200)).unwrap();
    c.reset_when_sent(stream, Code::NO_ERROR);
    feed(&mut c, &frame(Kind::Data, 1, 5, b"x")).unwrap();
    c.send_data(stream, Chain::new(), true).unwrap();
    assert_eq!(frames(&transmit(&mut c)), "HEADERS 5 4 :status=200; DATA 5 0 1");
    assert!(c.is_idle());
}

#[test]
fn windows_towards_us() {
    let mut c = server(Config { initial_window: 100, ..Config::default() });
    feed(&mut c, &frame(Kind::Settings, flag::ACK, 0, b"")).unwrap();
    let stream = stream_of(&feed(&mut c, &post(1)).unwrap());
    feed(&mut c, &frame(Kind::Data, 0, 1, &[0; 60])).unwrap();
    assert_eq!(c.receive_window(stream), 40);
    c.release(stream, 30);
    assert_eq!(frames(&transmit(&mut c)), "");
    c.release(stream, 10);
    assert_eq!(frames(&transmit(&mut c)), "WINDOW 1 40");
    // Padding is given back without being asked.
    feed(&mut c, &frame(Kind::Data, flag::PADDED, 1, &[79; 80])).unwrap();
    assert_eq!(frames(&transmit(&mut c)), "WINDOW 1 80");
    // A window that was small at first is opened wide, and not above its limit.
    c.release(stream, u32::MAX);
    assert_eq!(c.receive_window(stream), 0x7fff_ffff);
    let events = feed(&mut c, &frame(Kind::Data, 1, 1, &[0; 200])).unwrap();
    assert_eq!(events.len(), 1);
}
