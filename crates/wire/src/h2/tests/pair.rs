//! A client and a server, joined by two byte streams that deliver in pieces of any size.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// A small generator, so that each seed is a case of its own.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What one side knows of one stream.
#[derive(Default)]
struct Talk {
    key: Option<StreamKey>,
    to_send: usize,
    received: usize,
    head: bool,
    ended: bool,
}

struct Side {
    connection: Connection,
    inbox: VecDeque<u8>,
    talks: BTreeMap<u32, Talk>,
}

fn pattern(id: u32, at: usize) -> u8 {
    (at * 31 + id as usize) as u8
}

impl Side {
    fn new(connection: Connection) -> Side {
        Side { connection, inbox: VecDeque::new(), talks: BTreeMap::new() }
    }

    /// Takes some of what has arrived.
    fn receive(&mut self, dice: &mut Dice) {
        let n = dice.roll(self.inbox.len() + 1).min(1 + dice.roll(5000));
        let mut input = Bytes::from(self.inbox.drain(..n).collect::<Vec<u8>>());
        while let Some(event) = self.connection.handle(0, &mut input).expect("both sides keep the rules") {
            self.connection.check_invariants();
            match event {
                Event::Request { stream, .. } => {
                    let talk = self.talks.entry(stream.id()).or_default();
                    (talk.key, talk.head) = (Some(stream), true);
                    talk.to_send = 1 + dice.roll(200_000);
                    self.connection.send_head(stream, false, head).unwrap();
                }
                Event::Response { stream, end_stream } => {
                    assert_eq!((self.connection.head_mut().status, end_stream), (200, false));
                    self.talks.get_mut(&stream.id()).unwrap().head = true;
                }
                Event::Data { stream, bytes, end_stream } => {
                    let talk = self.talks.get_mut(&stream.id()).unwrap();
                    for &byte in bytes.iter() {
                        assert_eq!(byte, pattern(stream.id(), talk.received));
                        talk.received += 1;
                    }
                    talk.ended = end_stream;
                    self.connection.release(stream, bytes.len() as u32);
                }
                Event::Trailers { stream } => self.talks.get_mut(&stream.id()).unwrap().ended = true,
                Event::SettingsAcked => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Queues a little more of each body.
    fn produce(&mut self, sent: &mut BTreeMap<(bool, u32), usize>, client: bool, dice: &mut Dice) {
        for (id, talk) in &mut self.talks {
            let Some(key) = talk.key.filter(|_| talk.to_send > 0) else { continue };
            if self.connection.queued(key) > 20_000 {
                continue;
            }
            let n = 1 + dice.roll(talk.to_send.min(30_000));
            let done = sent.entry((client, *id)).or_default();
            let bytes: Vec<u8> = (*done..*done + n).map(|at| pattern(*id, at)).collect();
            *done += n;
            talk.to_send -= n;
            let last = talk.to_send == 0;
            let trailers = last && dice.roll(2) == 0;
            self.connection.send_data(key, Chain::from(Bytes::from(bytes)), last && !trailers).unwrap();
            if trailers {
                self.connection.send_trailers(key, |head| head.field(b"x-end", b"1", Indexing::Incremental)).unwrap();
            }
        }
    }

    fn transmit(&mut self, dice: &mut Dice) -> Vec<u8> {
        let chain = self.connection.poll_transmit(1 + dice.roll(40_000) as u64);
        self.connection.check_invariants();
        while self.connection.poll_drained().is_some() {}
        chain.map_or(Vec::new(), |chain| bytes_of(&chain))
    }
}

fn head(head: &mut HeadWriter<'_>) {
    head.status(200);
    head.field(b"Server", b"tidegate", Indexing::Incremental);
    head.field(b"Content-Type", b"text/html", Indexing::Incremental);
}

fn request(head: &mut HeadWriter<'_>) {
    for (name, value) in GET {
        head.field(name.as_bytes(), value.as_bytes(), Indexing::Without);
    }
    head.field(b"user-agent", b"pair", Indexing::Incremental);
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let windows = [100, 1000, 65_535, 1 << 20];
    let mut config = || Config {
        initial_window: windows[dice.roll(4)].max(16),
        connection_window: [65_535, 100_000, 1 << 30][dice.roll(3)],
        max_frame_size: [16_384, 1 << 20][dice.roll(2)],
        chunk_size: [100, 8192, 1 << 20][dice.roll(3)],
        flood_budget: u32::MAX,
        ..Config::default()
    };
    let mut server = Side::new(Connection::server(Rc::new(config())));
    let mut client = Side::new(Connection::client(Rc::new(config())));
    let (mut to_open, mut sent, mut idle) = (1 + dice.roll(12), BTreeMap::new(), 0);
    while idle < 3 {
        // Without our settings known, a body may be refused: then the client must not have sent one.
        if to_open > 0 && server.connection.settings_acked && dice.roll(3) == 0 {
            to_open -= 1;
            let key = client.connection.open(false, request).unwrap();
            let to_send = 1 + dice.roll(100_000);
            client.talks.insert(key.id(), Talk { key: Some(key), to_send, ..Talk::default() });
        }
        server.produce(&mut sent, false, &mut dice);
        client.produce(&mut sent, true, &mut dice);
        client.inbox.extend(server.transmit(&mut dice));
        server.inbox.extend(client.transmit(&mut dice));
        server.receive(&mut dice);
        client.receive(&mut dice);
        let waiting = !server.inbox.is_empty() || !client.inbox.is_empty();
        let wants = server.connection.wants_transmit() || client.connection.wants_transmit();
        let unsent = server.talks.values().chain(client.talks.values()).any(|talk| talk.to_send > 0);
        idle = if waiting || wants || unsent || to_open > 0 { 0 } else { idle + 1 };
    }
    for (side, other) in [(&server, true), (&client, false)] {
        for (id, talk) in &side.talks {
            assert!(talk.head && talk.ended, "seed {seed} stream {id}");
            assert_eq!(Some(&talk.received), sent.get(&(other, *id)), "seed {seed} stream {id}");
        }
        assert!(side.connection.is_idle());
    }
    assert_eq!(server.talks.len(), client.talks.len());
}

#[test]
fn everything_arrives_however_it_is_cut() {
    for seed in 0..40 {
        run(seed);
    }
}

#[test]
fn a_client_keeps_the_rules() {
    let mut c = Connection::client(Rc::new(Config::default()));
    let one = c.open(true, request).unwrap();
    let three = c.open(false, request).unwrap();
    let limits = [0, 3, 0, 0, 0, 2];
    feed(&mut c, &frame(Kind::Settings, 0, 0, &limits)).unwrap();
    assert_eq!(c.open(true, request), Err(OpenError::TooMany));
    let response =
        |id, flags, fields: &[(&str, &str)]| frame(Kind::Headers, flag::END_HEADERS | flags, id, &block(fields));
    let input = [
        response(1, 0, &[(":status", "103"), ("link", "x")]),
        response(1, flag::END_STREAM, &[(":status", "304"), ("content-length", "10")]),
        response(3, 0, &[(":status", "200"), ("content-length", "2")]),
        frame(Kind::Data, 1, 3, b"x"),
    ];
    let events = feed(&mut c, &input.concat()).unwrap();
    assert_eq!(words(&events), "response 1 false; response 1 true; response 3 false; bad body 3 1");
    assert!(!c.is_open(one) && c.is_open(three) && !c.is_receiving(three));
    c.reset(three, Code::CANCEL);
    // What was under way when it was given up is discarded.
    assert_eq!(feed(&mut c, &response(3, flag::END_STREAM, &[("x", "y")])), Ok(vec![]));
    // What isn't valid ends its stream.
    for (id, bad) in [
        (5, response(5, 0, &[("x", "y")])),
        (7, response(7, flag::END_STREAM, &[(":status", "100")])),
        (9, frame(Kind::Data, 0, 9, b"x")),
    ] {
        assert_eq!(c.open(true, request).unwrap().id(), id);
        assert_eq!(words(&feed(&mut c, &bad).unwrap()), format!("reset {id} PROTOCOL_ERROR ours"));
    }
    let (eleven, thirteen) = (c.open(true, request).unwrap(), c.open(true, request).unwrap());
    let events = feed(&mut c, &frame(Kind::GoAway, 0, 0, &[0, 0, 0, 11, 0, 0, 0, 0])).unwrap();
    assert_eq!(words(&events), "go away 11 NO_ERROR");
    assert!(c.is_open(eleven) && !c.is_open(thirteen));
    assert_eq!(c.open(true, request), Err(OpenError::Closing));
    assert!(feed(&mut c, &response(2, 0, &[(":status", "200")])).is_err());
}
