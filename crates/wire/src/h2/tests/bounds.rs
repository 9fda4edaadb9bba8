//! Each limit, at the limit and one beyond.

use super::*;

fn reason(result: Result<Vec<Event>, ConnectionError>) -> Option<Reason> {
    result.err().map(|error| error.reason)
}

#[test]
fn streams() {
    let mut c = server(Config { max_concurrent_streams: 2, ..Config::default() });
    feed(&mut c, &[get(1), get(3)].concat()).unwrap();
    // Refused, but its header block enters the table.
    let third = frame(Kind::Headers, 5, 5, b"\x40\x01x\x01y");
    assert_eq!(feed(&mut c, &third).unwrap(), []);
    assert_eq!(frames(&transmit(&mut c)), "RST 5 REFUSED_STREAM");
    let first = c.streams.key(1).unwrap();
    c.send_head(first, true, |head| head.status(200)).unwrap();
    let events = feed(&mut c, &frame(Kind::Headers, 5, 7, &[&block(GET)[..], b"\xbe"].concat())).unwrap();
    assert_eq!(words(&events), "request 7 true");
    assert_eq!(c.head_mut().fields.len(), 1);
}

#[test]
fn bodies_before_our_settings_are_known() {
    for (initial_window, acked, refused) in [(10, false, true), (10, true, false), (65_536, false, false)] {
        let mut c = server(Config { initial_window, ..Config::default() });
        if acked {
            feed(&mut c, &frame(Kind::Settings, flag::ACK, 0, b"")).unwrap();
        }
        assert_eq!(feed(&mut c, &post(1)).unwrap().is_empty(), refused);
        assert_eq!(feed(&mut c, &get(3)).unwrap().len(), 1);
        assert_eq!(frames(&transmit(&mut c)).contains("RST 1 REFUSED_STREAM"), refused);
    }
}

#[test]
fn header_lists() {
    let config = || Config { max_field_size: 512, max_list_size: 512, max_fields: 3, ..Config::default() };
    // :method GET :scheme http :path / :authority localhost are 46 bytes.
    for (name, value, expected) in [
        (8, 458, None),
        (8, 459, Some(Reason::ListTooLarge)),
        (466, 0, None),
        (513, 0, Some(Reason::FieldTooLarge)),
        (1, 513, Some(Reason::FieldTooLarge)),
    ] {
        let (name, value) = ("~".repeat(name), "~".repeat(value));
        let mut c = server(config());
        let head = frame(Kind::Headers, 5, 1, &get_with(&[(&name, &value)]));
        assert_eq!(reason(feed(&mut c, &head)), expected);
        if expected.is_some() {
            assert_eq!(frames(&transmit(&mut c)), "GOAWAY 1 ENHANCE_YOUR_CALM");
        }
    }
    for (count, error) in [(3, None), (4, Some(HeadError::TooManyFields))] {
        let mut c = server(config());
        let fields: Vec<_> = (0..count).map(|_| ("a", "b")).collect();
        feed(&mut c, &frame(Kind::Headers, 5, 1, &get_with(&fields))).unwrap();
        assert_eq!(c.head_mut().error, error);
    }
}

#[test]
fn a_small_block_that_grows_large() {
    // One entry of 4000 bytes, named again and again: "HPACK bomb".
    let mut c = server(Config::default());
    let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4000]].concat();
    feed(&mut c, &frame(Kind::Headers, 5, 1, &[block(GET), entry].concat())).unwrap();
    let bomb = [block(GET), vec![0xbe; 10_000]].concat();
    assert_eq!(reason(feed(&mut c, &frame(Kind::Headers, 5, 3, &bomb))), Some(Reason::ListTooLarge));
}

#[test]
fn continuations() {
    for (count, expected) in [(128, None), (129, Some(Reason::TooManyContinuations))] {
        let mut c = server(Config::default());
        let mut input = frame(Kind::Headers, flag::END_STREAM, 1, &block(GET));
        for i in 1..=count {
            let flags = if i == count { flag::END_HEADERS } else { 0 };
            input.extend(frame(Kind::Continuation, flags, 1, &block(&[("x", "y")])));
        }
        assert_eq!(reason(feed(&mut c, &input)), expected);
    }
    // One that never ends, of one field that never ends: what is kept is bounded by the field's limit.
    let mut c = server(Config::default());
    feed(&mut c, &frame(Kind::Headers, 0, 1, b"\x40\x7f\x80\x3f")).unwrap();
    for _ in 0..128 {
        feed(&mut c, &frame(Kind::Continuation, 0, 1, &[b'x'; 60])).unwrap();
        assert!(c.block.as_ref().unwrap().carry.len() <= 8192 + 8);
    }
}

#[test]
fn settings_parameters() {
    for (count, expected) in [(128, None), (129, Some(Reason::TooManySettings))] {
        let mut c = server(Config::default());
        assert_eq!(reason(feed(&mut c, &frame(Kind::Settings, 0, 0, &[0; 6].repeat(count)))), expected);
    }
}

#[test]
fn floods() {
    let reset = |id: u32| [get(id), frame(Kind::Reset, 0, id, &[0, 0, 0, 8])].concat();
    let overflow = |id: u32| [get(id), frame(Kind::WindowUpdate, 0, id, &[0x7f, 255, 255, 255])].concat();
    type Flood<'a> = (&'a str, u32, &'a dyn Fn(u32) -> Vec<u8>);
    let floods: [Flood<'_>; 9] = [
        ("ping", 1, &|_| frame(Kind::Ping, 0, 0, &[0; 8])),
        ("settings", 8, &|_| frame(Kind::Settings, 0, 0, &[])),
        ("window", 1, &|_| frame(Kind::WindowUpdate, 0, 0, &[0, 0, 0, 1])),
        ("unknown", 1, &|_| frame(Kind::Unknown(99), 0, 0, &[])),
        ("priority", 4, &|i| frame(Kind::Priority, 0, 2 * i + 1, &[0, 0, 0, 0, 1])),
        ("empty data", 1, &|_| frame(Kind::Data, 0, 1, &[])),
        ("rapid reset", 8, &|i| reset(2 * i + 3)),
        ("made you reset", 9, &|i| overflow(2 * i + 3)),
        ("go away", 1, &|_| frame(Kind::GoAway, 0, 0, &[0; 8])),
    ];
    for (name, cost, flood) in floods {
        let mut c = server(Config { flood_budget: 900, ..Config::default() });
        feed(&mut c, &post(1)).unwrap();
        let bearable = 900 / cost;
        for i in 0..bearable {
            assert_eq!(reason(feed(&mut c, &flood(i))), None, "{name} {i}");
            transmit(&mut c);
        }
        assert_eq!(reason(feed(&mut c, &flood(bearable))), Some(Reason::Flood), "{name}");
        assert_eq!(c.streams(), 0);
        assert!(frames(&transmit(&mut c)).ends_with("ENHANCE_YOUR_CALM"), "{name}");
        assert_eq!(reason(feed(&mut c, b"")), Some(Reason::Flood));
    }
}

fn window(id: u32, n: u32) -> Vec<u8> {
    frame(Kind::WindowUpdate, 0, id, &n.to_be_bytes())
}

/// Answers a request at once, with a small body.
fn answer(c: &mut Connection, stream: StreamKey) {
    c.send_head(stream, false, |head| head.status(200)).unwrap();
    let fill = |place: &mut [u8]| {
        place.fill(0);
        Ok::<(), ()>(())
    };
    assert_eq!(c.send_small(stream, 1000, fill), Ok(true));
}

#[test]
fn resets_of_what_was_answered_are_a_flood() {
    let reset = |id: u32| frame(Kind::Reset, 0, id, &[0, 0, 0, 8]);
    let mut c = server(Config { flood_budget: 900, ..Config::default() });
    let mut feed_one = |id: u32| {
        let stream = stream_of(&feed(&mut c, &get(id)).unwrap());
        answer(&mut c, stream);
        transmit(&mut c);
        feed(&mut c, &window(0, 1000)).unwrap();
        reason(feed(&mut c, &reset(id)))
    };
    let ended = (0..400).find_map(|i| feed_one(2 * i + 1));
    assert_eq!(ended, Some(Reason::Flood));
    // As many at once as there may be streams, of a client that leaves a page.
    let mut c = server(Config::default());
    let ids: Vec<u32> = (0..128).map(|i| 2 * i + 1).collect();
    for &id in &ids {
        let stream = stream_of(&feed(&mut c, &get(id)).unwrap());
        answer(&mut c, stream);
        transmit(&mut c);
        feed(&mut c, &window(0, 1000)).unwrap();
    }
    ids.iter().for_each(|&id| drop(feed(&mut c, &reset(id)).unwrap()));
}

#[test]
fn honest_clients_are_never_floods() {
    // A ping a second for a day.
    let mut c = server(Config::default());
    for second in 0..86_400 {
        feed_at(&mut c, second * 1000, &frame(Kind::Ping, 0, 0, &[0; 8])).unwrap();
        c.poll_transmit(1000);
    }
    // Ten thousand requests at once, each with settings' worth of updates, half of them cancelled.
    let mut c = server(Config::default());
    for i in 0..10_000 {
        let id = 2 * i + 1;
        let stream = stream_of(&feed(&mut c, &get(id)).unwrap());
        if i % 2 == 0 {
            feed(&mut c, &frame(Kind::Reset, 0, id, &[0, 0, 0, 8])).unwrap();
            continue;
        }
        c.send_head(stream, false, |head| head.status(200)).unwrap();
        c.send_data(stream, Chain::from(Bytes::from(vec![0; 1000])), true).unwrap();
        transmit(&mut c);
        while c.poll_drained().is_some() {}
        feed(&mut c, &[window(0, 1024), window(id, 1024)].concat()).unwrap();
    }
}

/// Go's client opens both windows after each 4 KiB that its reader takes; others do so more often still.
#[test]
fn updates_of_a_long_download_are_no_flood() {
    for updates in [4, 8] {
        let mut c = server(Config::default());
        feed(&mut c, &frame(Kind::Settings, 0, 0, &[0, 4, 0, 64, 0, 0])).unwrap();
        feed(&mut c, &window(0, 4 << 20)).unwrap();
        let stream = stream_of(&feed(&mut c, &get(1)).unwrap());
        c.send_head(stream, false, |head| head.status(200)).unwrap();
        let (part, mut left) = (Bytes::from(vec![0; 1 << 20]), 100 << 20);
        while left > 0 {
            c.send_data(stream, Chain::from(part.clone()), false).unwrap();
            left -= part.len();
            while let Some(chain) = c.poll_transmit(65_536) {
                let frames = chain.len() as usize / 8192;
                let opened = [window(0, 8192 * 2 / updates), window(1, 8192 * 2 / updates)].concat();
                feed(&mut c, &opened.repeat(frames * updates as usize / 2)).unwrap();
            }
            while c.poll_drained().is_some() {}
        }
        // What they have free pays for nothing else.
        let pings = frame(Kind::Ping, 0, 0, &[0; 8]);
        let ended = (0..3000).find_map(|_| {
            let ended = reason(feed(&mut c, &pings));
            transmit(&mut c);
            ended
        });
        assert_eq!(ended, Some(Reason::Flood));
    }
}

/// Bodies in small messages, as those of gRPC: a server may end many streams before their clients know of one.
#[test]
fn what_was_under_way_costs_nothing() {
    let ids: Vec<u32> = (0..100).map(|i| 2 * i + 1).collect();
    let mut c = server(Config { initial_window: 1000, flood_budget: 100, ..Config::default() });
    feed(&mut c, &frame(Kind::Settings, flag::ACK, 0, b"")).unwrap();
    for &id in &ids {
        let stream = stream_of(&feed(&mut c, &post(id)).unwrap());
        c.send_head(stream, true, |head| head.status(200)).unwrap();
        c.reset_when_sent(stream, Code::NO_ERROR);
    }
    transmit(&mut c);
    let message = |id: u32| frame(Kind::Data, 0, id, &[0; 10]);
    for _ in 0..99 {
        ids.iter().for_each(|&id| assert_eq!(feed(&mut c, &message(id)).unwrap(), []));
    }
    ids[1..].iter().for_each(|&id| drop(feed(&mut c, &frame(Kind::Data, 1, id, &[0; 10])).unwrap()));
    assert_eq!(frames(&transmit(&mut c)).matches("RST").count(), 0);
    // What no window allowed is a flood, and so are frames without bytes.
    feed(&mut c, &message(1)).unwrap();
    let ended = (0..=100).find_map(|_| reason(feed(&mut c, &message(1))));
    assert_eq!(ended, Some(Reason::Flood));
    for nothing in [frame(Kind::Data, 0, 1, b""), frame(Kind::Data, flag::PADDED, 1, &[0])] {
        let mut c = server(Config { flood_budget: 100, ..Config::default() });
        let stream = stream_of(&feed(&mut c, &post(1)).unwrap());
        c.reset(stream, Code::CANCEL);
        let ended = (0..=100).find_map(|_| reason(feed(&mut c, &nothing)));
        assert_eq!(ended, Some(Reason::Flood));
    }
    // Streams that are refused, or come after GOAWAY, have their first window.
    let mut c =
        server(Config { max_concurrent_streams: 1, initial_window: 1000, flood_budget: 20, ..Config::default() });
    feed(&mut c, &frame(Kind::Settings, flag::ACK, 0, b"")).unwrap();
    feed(&mut c, &[get(1), post(3)].concat()).unwrap();
    c.go_away(Code::NO_ERROR);
    feed(&mut c, &post(5)).unwrap();
    assert_eq!(feed(&mut c, &[message(3), message(5)].concat().repeat(100)).unwrap(), []);
    let ended = (0..=20).find_map(|_| reason(feed(&mut c, &message(5))));
    assert_eq!(ended, Some(Reason::Flood));
}

#[test]
fn answers_that_nobody_reads() {
    let mut c = server(Config { flood_budget: u32::MAX, ..Config::default() });
    let ping = frame(Kind::Ping, 0, 0, &[0; 8]);
    for _ in 0..receive::MAX_ANSWERS {
        feed(&mut c, &ping).unwrap();
    }
    assert!(c.out.len() < 64 << 10);
    assert_eq!(reason(feed(&mut c, &ping)), Some(Reason::Flood));
}

#[test]
fn flow_control() {
    let data = |id: u32, length: usize| frame(Kind::Data, 0, id, &vec![0; length]);
    let mut c = server(Config { initial_window: 100, connection_window: 65_535, ..Config::default() });
    feed(&mut c, &frame(Kind::Settings, flag::ACK, 0, b"")).unwrap();
    feed(&mut c, &[post(1), data(1, 100)].concat()).unwrap();
    let events = feed(&mut c, &data(1, 1)).unwrap();
    assert_eq!(words(&events), "reset 1 FLOW_CONTROL_ERROR ours");
    assert_eq!(frames(&transmit(&mut c)), "RST 1 FLOW_CONTROL_ERROR");
    // Half of the connection's window is given back at once; a frame larger than all of it is too much.
    feed(&mut c, &data(1, 40_000)).unwrap();
    assert_eq!(frames(&transmit(&mut c)), "WINDOW 0 40101");
    assert_eq!(reason(feed(&mut c, &data(1, 65_536))), Some(Reason::FlowControl));
    assert_eq!(frames(&transmit(&mut c)), "GOAWAY 1 FLOW_CONTROL_ERROR");
}

/// The window may be opened while a frame arrives that is larger than it was at its beginning.
#[test]
fn a_frame_counts_as_it_comes() {
    let header = |length: u32, flags: u8| FrameHeader { length, kind: Kind::Data, flags, stream: 1 }.bytes().to_vec();
    let begun = || {
        let mut c = server(Config { initial_window: 100, connection_window: 65_535, ..Config::default() });
        feed(&mut c, &frame(Kind::Settings, flag::ACK, 0, b"")).unwrap();
        let stream = stream_of(&feed(&mut c, &[post(1), header(150, 0), vec![0; 90]].concat()).unwrap());
        (c, stream)
    };
    let (mut c, stream) = begun();
    c.release(stream, 50);
    assert_eq!(words(&feed(&mut c, &[b'x'; 60]).unwrap()), format!("data 1 {} false", "x".repeat(60)));
    assert_eq!(words(&feed(&mut c, &[header(1, 0), vec![0]].concat()).unwrap()), "reset 1 FLOW_CONTROL_ERROR ours");
    let (mut c, _) = begun();
    assert_eq!(words(&feed(&mut c, b"0123456789").unwrap()), "data 1 0123456789 false");
    assert_eq!(words(&feed(&mut c, &[0; 1]).unwrap()), "reset 1 FLOW_CONTROL_ERROR ours");
    // What follows belongs to a stream that is gone.
    assert_eq!(words(&feed(&mut c, &[0; 49]).unwrap()), "");
    // Padding takes its place in the window too.
    let (mut c, stream) = begun();
    c.release(stream, 110);
    feed(&mut c, &[0; 60]).unwrap();
    assert_eq!(
        words(&feed(&mut c, &[header(61, flag::PADDED), vec![60]].concat()).unwrap()),
        "reset 1 FLOW_CONTROL_ERROR ours"
    );
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() <= 1280, "{}", size_of::<Connection>());
    let mut c = server(Config::default());
    let stream = stream_of(&feed(&mut c, &get(1)).unwrap());
    c.send_head(stream, true, |head| head.status(200)).unwrap();
    transmit(&mut c);
    std::mem::take(c.head_mut());
    assert_eq!((c.out.capacity(), c.head.text.capacity(), c.early.capacity()), (0, 0, 0));
}
