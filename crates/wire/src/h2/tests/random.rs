//! Any commands and any frames in any order: nothing breaks the invariants, and what is sent is well-formed.

use proptest::prelude::*;

use super::*;

/// Something that happens.
#[derive(Clone, Debug)]
enum Op {
    Get(u32),
    Post(u32),
    Data(u32, usize, bool),
    Trailers(u32),
    PeerReset(u32),
    Window(u32, u32),
    InitialWindow(u32),
    FrameSize(u32),
    TableSize(u32),
    Depends(u32, u32, u8),
    Urgency(u32, u8),
    Garbage(u8, u8, u32, Vec<u8>),
    Head(usize, bool),
    Body(usize, usize, bool),
    SendTrailers(usize),
    Reset(usize),
    ResetWhenSent(usize),
    Release(usize, u32),
    Discard(usize),
    GoAway,
    Transmit(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let id = || (0..8u32).prop_map(|n| 2 * n + 1);
    let requests = prop_oneof![id().prop_map(Op::Get), id().prop_map(Op::Post)];
    let frames = prop_oneof![
        (id(), 0..3000usize, any::<bool>()).prop_map(|(id, n, end)| Op::Data(id, n, end)),
        id().prop_map(Op::Trailers),
        id().prop_map(Op::PeerReset),
        (prop_oneof![Just(0), id()], 1..100_000u32).prop_map(|(id, n)| Op::Window(id, n)),
        prop_oneof![Just(0), 0..200_000u32].prop_map(Op::InitialWindow),
        (16_384..70_000u32).prop_map(Op::FrameSize),
        (0..5000u32).prop_map(Op::TableSize),
        (id(), id(), any::<u8>()).prop_map(|(id, on, weight)| Op::Depends(id, on, weight)),
        (id(), 0..8u8).prop_map(|(id, urgency)| Op::Urgency(id, urgency)),
    ];
    let garbage = (any::<u8>(), any::<u8>(), 0..20u32, prop::collection::vec(any::<u8>(), 0..30))
        .prop_map(|(kind, flags, stream, payload)| Op::Garbage(kind % 18, flags, stream, payload));
    let which = || 0..8usize;
    let commands = prop_oneof![
        (which(), prop::bool::weighted(0.2)).prop_map(|(i, end)| Op::Head(i, end)),
        (which(), 0..60_000usize, any::<bool>()).prop_map(|(i, n, end)| Op::Body(i, n, end)),
        which().prop_map(Op::SendTrailers),
        which().prop_map(Op::Reset),
        which().prop_map(Op::ResetWhenSent),
        (which(), any::<u32>()).prop_map(|(i, n)| Op::Release(i, n)),
        which().prop_map(Op::Discard),
        Just(Op::GoAway),
    ];
    prop_oneof![4 => requests, 6 => frames, 1 => garbage, 8 => commands, 4 => (1..50_000u64).prop_map(Op::Transmit)]
}

/// The frames of an operation of the peer's.
fn input(op: &Op) -> Vec<u8> {
    let setting =
        |id: u16, value: u32| frame(Kind::Settings, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    match op {
        Op::Get(id) => get(*id),
        Op::Post(id) => post(*id),
        Op::Data(id, n, end) => frame(Kind::Data, u8::from(*end), *id, &vec![0; *n]),
        Op::Trailers(id) => frame(Kind::Headers, 5, *id, &block(&[("x", "y")])),
        Op::PeerReset(id) => frame(Kind::Reset, 0, *id, &[0, 0, 0, 8]),
        Op::Window(id, n) => frame(Kind::WindowUpdate, 0, *id, &n.to_be_bytes()),
        Op::InitialWindow(n) => setting(4, *n),
        Op::FrameSize(n) => setting(5, *n),
        Op::TableSize(n) => setting(1, *n),
        Op::Depends(id, on, weight) => frame(Kind::Priority, 0, *id, &[&on.to_be_bytes()[..], &[*weight]].concat()),
        Op::Urgency(id, u) => frame(Kind::PriorityUpdate, 0, 0, &[&id.to_be_bytes()[..], b"u=", &[b'0' + u]].concat()),
        Op::Garbage(kind, flags, stream, payload) => frame(Kind::of(*kind), *flags, *stream, payload),
        _ => Vec::new(),
    }
}

/// Carries out a command of the owner's; refusals are fine.
fn command(c: &mut Connection, keys: &[StreamKey], op: &Op) {
    let Some(key) = keys.iter().rev().nth(which(op)).copied() else { return };
    let refused = match op {
        Op::Head(_, end) => c.send_head(key, *end, |head| head.status(200)).is_err(),
        Op::Body(_, n, end) => c.send_data(key, Chain::from(Bytes::from(vec![b'b'; *n])), *end).is_err(),
        Op::SendTrailers(_) => c.send_trailers(key, |head| head.field(b"a", b"b", Indexing::Incremental)).is_err(),
        _ => {
            match op {
                Op::Reset(_) => c.reset(key, Code::CANCEL),
                Op::ResetWhenSent(_) => c.reset_when_sent(key, Code::NO_ERROR),
                Op::Release(_, n) => c.release(key, *n),
                Op::Discard(_) => c.discard_body(key),
                Op::GoAway => c.go_away(Code::NO_ERROR),
                _ => {}
            }
            false
        }
    };
    // A command for a stream that is gone is always refused.
    assert!(refused || c.is_open(key) || !matches!(op, Op::Body(_, _, false)));
}

/// Which of the owner's streams, from the newest on.
fn which(op: &Op) -> usize {
    match op {
        Op::Head(i, _) | Op::Body(i, ..) | Op::SendTrailers(i) | Op::Reset(i) | Op::ResetWhenSent(i) => *i,
        Op::Release(i, _) | Op::Discard(i) => *i,
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_order(ops in prop::collection::vec(op(), 1..120)) {
        let mut c = server(Config { max_concurrent_streams: 4, ..Config::default() });
        let (mut keys, mut decoder, mut failed) = (Vec::new(), Decoder::new(), false);
        for op in &ops {
            if let Op::Transmit(max) = op {
                let sent = c.poll_transmit(*max).map_or(Vec::new(), |chain| bytes_of(&chain));
                frames_with(&mut decoder, &sent);
            }
            command(&mut c, &keys, op);
            c.check_invariants();
            match feed(&mut c, &input(op)) {
                Ok(events) => keys.extend(events.iter().filter_map(|event| match event {
                    Event::Request { stream, .. } => Some(*stream),
                    _ => None,
                })),
                Err(_) => failed = true,
            }
            c.check_invariants();
            prop_assert_eq!(failed, c.error().is_some());
        }
        frames_with(&mut decoder, &transmit(&mut c));
        while c.poll_drained().is_some() {}
    }
}
