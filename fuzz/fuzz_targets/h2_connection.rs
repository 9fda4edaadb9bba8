//! A server or a client against any peer: invariants hold after every step, commands may come at any time, and what is
//! sent is made of well-formed frames.
#![cfg_attr(fuzzing, no_main)]

use std::rc::Rc;

use buf::{Bytes, Chain, Piece};
use wire::h2::{Code, Config, Connection, Event, FrameReader, HeadWriter, PREFACE, Priority, StreamKey};
use wire::hpack::Indexing;

fn config(choice: u8) -> Rc<Config> {
    Rc::new(Config {
        max_concurrent_streams: 4,
        initial_window: [0, 10, 1000, 65_536][usize::from(choice & 3)],
        connection_window: [65_535, 100_000][usize::from(choice >> 2 & 1)],
        max_frame_size: [16_384, (1 << 24) - 1][usize::from(choice >> 3 & 1)],
        max_field_size: 200,
        max_list_size: 500,
        max_fields: 10,
        max_continuations: 4,
        max_settings: 8,
        chunk_size: [1, 100, 8192, 1 << 20][usize::from(choice >> 4 & 3)],
        enable_connect_protocol: choice >> 6 & 1 != 0,
        flood_budget: 200,
        flood_refill: 100,
    })
}

fn head(head: &mut HeadWriter<'_>) {
    head.status(200);
    head.field(b"Server", b"fuzz", Indexing::Incremental);
}

fn request(head: &mut HeadWriter<'_>) {
    for (name, value) in [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a")] {
        head.field(name.as_bytes(), value.as_bytes(), Indexing::Without);
    }
}

/// One command of the owner's, chosen by a byte.
fn command(c: &mut Connection, keys: &[StreamKey], byte: u8) {
    let Some(&key) = keys.iter().rev().nth(usize::from(byte >> 5)) else { return };
    let body = || Chain::from(Bytes::from(vec![b'x'; usize::from(byte) * 40]));
    match byte & 15 {
        0 | 1 => drop(c.send_head(key, false, head)),
        2 => drop(c.send_head(key, true, head)),
        3 | 4 => drop(c.send_data(key, body(), false)),
        5 => drop(c.send_data(key, body(), true)),
        6 => drop(c.send_trailers(key, |head| head.field(b"a", b"b", Indexing::Incremental))),
        7 => c.reset(key, Code::CANCEL),
        8 => c.reset_when_sent(key, Code::NO_ERROR),
        9 => c.release(key, u32::from(byte) * 100),
        10 => c.discard_body(key),
        11 => c.set_priority(key, Priority::parse(b"u=1, i")),
        12 => drop(c.abandon_head()),
        13 => drop(c.open(byte & 16 != 0, request)),
        14 if byte == 0xfe => c.go_away(Code::NO_ERROR),
        _ => {}
    }
}

/// Sends everything; the frames must be readable for a peer of default settings, as far as sizes go.
fn transmit(c: &mut Connection, reader: &mut FrameReader, max: u64) {
    let Some(chain) = c.poll_transmit(max) else { return };
    for piece in chain.pieces() {
        let Piece::Bytes(bytes) = piece else { continue };
        let mut bytes = bytes.strip_prefix(PREFACE).map_or(bytes.clone(), Bytes::copy_from);
        while reader.next(&mut bytes).expect("well-formed").is_some() {}
    }
    while c.poll_drained().is_some() {}
}

tidegate_fuzz::target!(|data: &[u8]| {
    let Some((&[choice, step], mut rest)) = data.split_first_chunk() else { return };
    let is_server = choice & 128 == 0;
    let mut c = if is_server { Connection::server(config(choice)) } else { Connection::client(config(choice)) };
    let (mut keys, mut reader, mut now) = (Vec::new(), FrameReader::new((1 << 24) - 1), 0);
    if is_server {
        assert_eq!(c.handle(0, &mut Bytes::copy_from(PREFACE)), Ok(None));
    } else {
        keys.extend((0..3).filter_map(|i| c.open(i == 0, request).ok()));
    }
    while !rest.is_empty() {
        let n = (usize::from(step) + 1).min(rest.len());
        let (part, behind) = rest.split_at(n);
        rest = behind;
        let mut input = Bytes::copy_from(part);
        loop {
            let event = c.handle(now, &mut input);
            c.check_invariants();
            match event {
                Ok(None) => break,
                Ok(Some(Event::Request { stream, .. })) => keys.push(stream),
                Ok(Some(Event::Data { stream, bytes, .. })) => c.release(stream, bytes.len() as u32),
                Ok(Some(_)) => {}
                Err(_) => {
                    transmit(&mut c, &mut reader, u64::MAX);
                    assert!(c.streams() == 0 && c.poll_transmit(1).is_none());
                    return;
                }
            }
        }
        // The bytes that come next also say what the owner does.
        for &byte in rest.iter().take(2) {
            command(&mut c, &keys, byte);
            c.check_invariants();
        }
        now += u64::from(part[0]);
        transmit(&mut c, &mut reader, u64::from(part[0]) * 100);
        c.check_invariants();
    }
    transmit(&mut c, &mut reader, u64::MAX);
    c.check_invariants();
});
