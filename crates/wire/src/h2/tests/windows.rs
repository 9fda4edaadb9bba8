//! Flow control against a model of it: windows that the peer drives below zero and beyond 2³¹ - 1 by SETTINGS and
//! WINDOW_UPDATE in any order, on the connection and on streams, before, while and after bodies wait.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The largest window there may be.
const MAX: i64 = 0x7fff_ffff;

#[derive(Clone, Debug)]
enum Op {
    /// A request on a new stream.
    Get,
    /// WINDOW_UPDATE: of the connection, or of a stream by its place, from the first on.
    Window(Option<usize>, u32),
    InitialWindow(u32),
    PeerReset(usize),
    /// A head, if there was none, and a part of a body, which may be the last.
    Body(usize, usize, bool),
    Transmit,
}

/// A stream as RFC 9113 §6.9 has it.
#[derive(Debug)]
struct Model {
    key: StreamKey,
    window: i64,
    queued: i64,
    has_head: bool,
    has_end: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let amount = || prop_oneof![1..200_000u32, Just(0x7fff_ffff), Just(0x7fff_0000), 1..=0x7fff_ffffu32];
    let initial = prop_oneof![Just(0), 0..200_000u32, Just(0x7fff_ffff), 0..=0x7fff_ffffu32];
    let which = || 0..6usize;
    prop_oneof![
        3 => Just(Op::Get),
        2 => amount().prop_map(|n| Op::Window(None, n)),
        3 => (which(), amount()).prop_map(|(at, n)| Op::Window(Some(at), n)),
        4 => initial.prop_map(Op::InitialWindow),
        1 => which().prop_map(Op::PeerReset),
        6 => (which(), 1..100_000usize, any::<bool>()).prop_map(|(at, n, end)| Op::Body(at, n, end)),
        4 => Just(Op::Transmit),
    ]
}

fn settings(initial: u32) -> Vec<u8> {
    frame(Kind::Settings, 0, 0, &[&[0, 4][..], &initial.to_be_bytes()].concat())
}

/// Something of each frame of a kind, with its stream.
type OfFrames<T> = Vec<(u32, T)>;

/// Payloads of DATA and codes of RST_STREAM and GOAWAY that were sent.
fn sent(c: &mut Connection) -> (OfFrames<i64>, OfFrames<u32>) {
    let bytes = transmit(c);
    let (mut data, mut ends, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
    while let Some((head, behind)) = rest.split_first_chunk::<9>() {
        let header = FrameHeader::parse(head);
        let (payload, next) = behind.split_at(header.length as usize);
        match header.kind {
            Kind::Data => data.push((header.stream, payload.len() as i64)),
            Kind::Reset => ends.push((header.stream, number(payload, 0))),
            Kind::GoAway => ends.push((0, number(payload, 4))),
            _ => {}
        }
        rest = next;
    }
    (data, ends)
}

/// A connection and what it should do.
struct Pair {
    c: Connection,
    connection: i64,
    initial: i64,
    next: u32,
    streams: BTreeMap<u32, Model>,
    resets: Vec<(u32, u32)>,
}

impl Pair {
    fn new() -> Pair {
        let c = server(Config { flood_budget: u32::MAX / 2, max_concurrent_streams: 1000, ..Config::default() });
        let streams = BTreeMap::new();
        Pair { c, connection: 65_535, initial: 65_535, next: 1, streams, resets: Vec::new() }
    }

    /// A stream by its place; of those that have ended it is another's number.
    fn at(&self, place: usize) -> u32 {
        self.streams.keys().nth(place).copied().unwrap_or(1)
    }

    /// Does it on both sides; false once the connection must have ended.
    fn run(&mut self, op: &Op) -> bool {
        let input = match op {
            Op::Get => return self.get(),
            Op::Body(place, n, end) => return self.body(*place, *n, *end),
            Op::Transmit => return self.transmit(),
            _ if self.next == 1 => return true,
            Op::Window(None, n) => frame(Kind::WindowUpdate, 0, 0, &n.to_be_bytes()),
            Op::Window(Some(place), n) => frame(Kind::WindowUpdate, 0, self.at(*place), &n.to_be_bytes()),
            Op::InitialWindow(n) => settings(*n),
            Op::PeerReset(place) => frame(Kind::Reset, 0, self.at(*place), &[0, 0, 0, 8]),
        };
        let goes_on = self.expect(op);
        assert_eq!(feed(&mut self.c, &input).is_ok(), goes_on, "{op:?}");
        if !goes_on {
            let (data, ends) = sent(&mut self.c);
            assert_eq!((data.len(), ends.last()), (0, Some(&(0, 3))), "FLOW_CONTROL_ERROR");
        }
        goes_on
    }

    fn expect(&mut self, op: &Op) -> bool {
        match *op {
            Op::Window(None, n) => {
                self.connection += i64::from(n);
                self.connection <= MAX
            }
            Op::Window(Some(place), n) => {
                let id = self.at(place);
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.window += i64::from(n);
                    if stream.window > MAX {
                        self.streams.remove(&id);
                        self.resets.push((id, 3));
                    }
                }
                true
            }
            Op::InitialWindow(n) => {
                let delta = i64::from(n) - self.initial;
                self.initial += delta;
                self.streams.values_mut().for_each(|stream| stream.window += delta);
                self.streams.values().all(|stream| stream.window <= MAX)
            }
            Op::PeerReset(place) => {
                let id = self.at(place);
                self.streams.remove(&id);
                true
            }
            Op::Get | Op::Body(..) | Op::Transmit => true,
        }
    }

    fn get(&mut self) -> bool {
        let key = stream_of(&feed(&mut self.c, &get(self.next)).unwrap());
        let model = Model { key, window: self.initial, queued: 0, has_head: false, has_end: false };
        self.streams.insert(self.next, model);
        self.next += 2;
        true
    }

    fn body(&mut self, place: usize, n: usize, end: bool) -> bool {
        let id = self.at(place);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.has_end) else { return true };
        if !std::mem::replace(&mut stream.has_head, true) {
            self.c.send_head(stream.key, false, |head| head.status(200)).unwrap();
        }
        self.c.send_data(stream.key, Chain::from(Bytes::from(vec![b'b'; n])), end).unwrap();
        (stream.queued, stream.has_end) = (stream.queued + n as i64, end);
        true
    }

    /// What goes out is within both windows, and nothing is held back that they have room for.
    fn transmit(&mut self) -> bool {
        let (data, ends) = sent(&mut self.c);
        for (id, n) in data {
            let stream = self.streams.get_mut(&id).expect("a stream that lives");
            (stream.window, stream.queued) = (stream.window - n, stream.queued - n);
            self.connection -= n;
            assert!(stream.window >= 0 && self.connection >= 0 && stream.queued >= 0, "{id}: {stream:?}");
        }
        assert_eq!(ends, std::mem::take(&mut self.resets));
        let can_send = |stream: &Model| stream.queued > 0 && stream.window > 0;
        assert!(self.connection == 0 || !self.streams.values().any(can_send), "something is held back");
        self.streams.retain(|_, stream| stream.queued > 0 || !stream.has_end);
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn in_every_order(ops in prop::collection::vec(op(), 1..100)) {
        let mut pair = Pair::new();
        for op in &ops {
            let goes_on = pair.run(op);
            pair.c.check_invariants();
            if !goes_on {
                break;
            }
            for (id, stream) in &pair.streams {
                prop_assert_eq!(pair.c.queued(stream.key), stream.queued as u64, "stream {}", id);
            }
        }
    }
}
