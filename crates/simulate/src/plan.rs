//! What happens in a run: everything that follows from the seed before it begins.

use rt::sim::Faults;

use crate::ask::{Ask, Place};
use crate::dice::Dice;

/// A run.
#[derive(Debug)]
pub struct Plan {
    /// Nothing fails: every response must be the right one, and whole.
    pub calm: bool,
    /// What goes wrong in the network.
    pub faults: Faults,
    /// The settings of the server.
    pub settings: Settings,
    /// The clients.
    pub clients: Vec<Client>,
    /// When the worker is told to quit, in milliseconds from the start.
    pub quits_at: Option<u64>,
    /// When it is told to read its configuration again, one after the other.
    pub reloads_at: Vec<u64>,
    /// When a backend dies: which one, and when.
    pub deaths: Vec<(usize, u64)>,
    /// What the backends decide by.
    pub backend_dice: Dice,
}

/// Which directives the configuration has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `sendfile`.
    pub sendfile: bool,
    /// `gzip`.
    pub gzip: bool,
    /// `tcp_nopush`.
    pub nopush: bool,
    /// `open_file_cache`.
    pub file_cache: bool,
    /// `access_log … buffer=`.
    pub log_buffer: bool,
    /// `error_page`.
    pub error_pages: bool,
    /// `proxy_next_upstream` and the number of tries.
    pub next_upstream: (&'static str, u64),
    /// `keepalive` of the groups.
    pub keepalive: u64,
    /// `max_fails` of the servers.
    pub max_fails: u64,
    /// Whether the groups are in a zone.
    pub zone: bool,
    /// The balancer of the first group.
    pub balancer: &'static str,
    /// `proxy_buffer_size`, and the size and number of `proxy_buffers`.
    pub buffers: (u64, u64),
    /// `proxy_max_temp_file_size`.
    pub temp_file: u64,
    /// `client_body_buffer_size`.
    pub body_buffer: u64,
    /// `output_buffers` and `postpone_output`.
    pub postpone: u64,
    /// Timeouts towards clients: `client_header_timeout` and the like, in milliseconds.
    pub timeout: u64,
    /// Timeouts towards backends.
    pub proxy_timeout: u64,
    /// `keepalive_requests` of clients.
    pub requests: u64,
    /// `worker_shutdown_timeout`, in seconds.
    pub shutdown: u64,
    /// `lingering_close`.
    pub lingering: &'static str,
    /// `limit_rate` of the slow location.
    pub rate: u64,
    /// `reset_timedout_connection`.
    pub reset_timedout: bool,
    /// `proxy_ignore_client_abort`.
    pub ignore_abort: bool,
    /// `http2_chunk_size`, and `http2_body_preread_size`.
    pub http2: (u64, u64),
    /// `limit_req … nodelay`.
    pub nodelay: bool,
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    /// When it connects.
    pub starts_at: u64,
    /// What it speaks.
    pub speaks: Speaks,
    /// What it asks for.
    pub asks: Vec<Ask>,
    /// How many requests it has under way at a time.
    pub depth: usize,
    /// How it reads.
    pub reads: Pace,
    /// How it writes.
    pub writes: Pace,
    /// When and how it leaves before its end.
    pub leaves: Option<(u64, Leaving)>,
    /// Begins with bytes that are no request.
    pub nonsense: bool,
    /// What it decides later.
    pub dice: Dice,
}

/// Protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// The same over TLS.
    Https1,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/2 over TLS.
    Https2,
}

impl Speaks {
    fn is_http2(self) -> bool {
        matches!(self, Speaks::Http2 | Speaks::Https2)
    }
}

/// How fast a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it gets.
    Fast,
    /// So many bytes, then a pause of so many milliseconds.
    Slow(u64, u64),
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It closes the connection.
    Close,
    /// It resets it.
    Reset,
    /// Its cable is cut.
    Cut,
    /// It closes its side, and reads on.
    Shut,
    /// It neither reads nor writes, and stays.
    Freeze,
}

impl Plan {
    /// A run in which nothing fails but what these clients do.
    pub fn quiet(clients: Vec<Client>) -> Plan {
        let mut dice = Dice::new(0);
        let settings = Settings::roll(&mut dice, true);
        let faults = Faults::default();
        Plan {
            calm: false,
            faults,
            settings,
            clients,
            quits_at: None,
            reloads_at: Vec::new(),
            deaths: Vec::new(),
            backend_dice: dice,
        }
    }

    /// The run of this seed.
    pub fn of(seed: u64) -> Plan {
        let mut dice = Dice::new(seed);
        let calm = dice.percent(25);
        let faults = faults(&mut dice, calm);
        let settings = Settings::roll(&mut dice, calm);
        let (mut clients, mut id) = (Vec::new(), 0);
        for _ in 0..dice.between(1, 6) {
            clients.push(Client::roll(&mut dice, &mut id, calm));
        }
        let quits_at = (!calm && dice.percent(25)).then(|| moment(&mut dice));
        let reloads = if dice.percent(25) { dice.between(1, 2) } else { 0 };
        let mut reloads_at: Vec<u64> = (0..reloads).map(|_| moment(&mut dice)).collect();
        reloads_at.sort_unstable();
        let deaths = if calm { 0 } else { dice.below(6).saturating_sub(3) };
        let deaths = (0..deaths).map(|_| (dice.below(5) as usize, moment(&mut dice))).collect();
        Plan { calm, faults, settings, clients, quits_at, reloads_at, deaths, backend_dice: dice.fork() }
    }
}

/// Some time in the run: mostly soon.
fn moment(dice: &mut Dice) -> u64 {
    let longest = dice.of(&[10, 30, 100, 1000, 6000]);
    dice.below(longest)
}

fn faults(dice: &mut Dice, calm: bool) -> Faults {
    let slowest = dice.of(&[0, 1, 3, 20]);
    let window = dice.of(&[1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20]);
    let (resets, cuts) = if calm { (0, 0) } else { (dice.of(&[0, 0, 0, 2, 10, 50]), dice.of(&[0, 0, 0, 2, 10])) };
    Faults {
        latency_ms: (0, slowest),
        short_reads: dice.of(&[0, 100, 500, 900]),
        short_writes: dice.of(&[0, 100, 500, 900]),
        resets,
        cuts,
        window,
    }
}

impl Settings {
    fn roll(dice: &mut Dice, calm: bool) -> Settings {
        let conditions = [
            "off",
            "error timeout",
            "error timeout invalid_header http_500",
            "error timeout invalid_header http_500 non_idempotent",
        ];
        Settings {
            sendfile: dice.percent(50),
            gzip: dice.percent(50),
            nopush: dice.percent(50),
            file_cache: dice.percent(30),
            log_buffer: dice.percent(30),
            error_pages: dice.percent(50),
            next_upstream: (dice.of(&conditions), dice.below(4)),
            keepalive: dice.of(&[0, 1, 4, 32]),
            max_fails: if calm { 0 } else { dice.of(&[0, 1, 3]) },
            zone: dice.percent(40),
            balancer: dice.of(&["", "least_conn;", "hash $http_x_id;", "random;", "ip_hash;"]),
            buffers: (dice.of(&[1, 4, 8]), dice.of(&[2, 4, 8])),
            temp_file: dice.of(&[0, 8, 1024]),
            body_buffer: dice.of(&[1, 8, 64]),
            postpone: dice.of(&[0, 1460, 8192]),
            timeout: if calm { 60_000 } else { dice.of(&[200, 1000, 5000]) },
            proxy_timeout: if calm { 60_000 } else { dice.of(&[100, 1000, 4000]) },
            requests: if calm { 1000 } else { dice.of(&[1, 2, 1000]) },
            shutdown: dice.of(&[0, 1, 5]),
            lingering: dice.of(&["on", "off", "always"]),
            rate: dice.of(&[20, 100, 1000]),
            reset_timedout: dice.percent(30),
            ignore_abort: dice.percent(30),
            http2: (dice.of(&[1, 8, 64]), dice.of(&[1, 64, 256])),
            nodelay: dice.percent(50),
        }
    }
}

impl Client {
    /// A client that asks for these, one after the other, as fast as it gets them, and stays to the end.
    pub fn asking(speaks: Speaks, asks: Vec<Ask>) -> Client {
        Client {
            starts_at: 0,
            speaks,
            asks,
            depth: 1,
            reads: Pace::Fast,
            writes: Pace::Fast,
            leaves: None,
            nonsense: false,
            dice: Dice::new(0),
        }
    }

    fn roll(dice: &mut Dice, id: &mut u64, calm: bool) -> Client {
        let asks = (0..dice.between(1, 6)).map(|_| {
            *id += 1;
            Ask::roll(*id, dice, calm)
        });
        let mut asks: Vec<Ask> = asks.collect();
        let speaks = dice.of(&[Speaks::Http1, Speaks::Http1, Speaks::Https1, Speaks::Http2, Speaks::Https2]);
        let is_tunnel = |ask: &Ask| matches!(ask.place, Place::Tunnel(_));
        if speaks.is_http2() {
            asks.iter_mut().filter(|ask| is_tunnel(ask)).for_each(|ask| ask.place = Place::Text);
        } else {
            // What follows the last request may cost its response, and what follows a change of protocol is of that.
            let is_last = |ask: &Ask| is_tunnel(ask) || (calm && (ask.last || ask.old || ask.place == Place::Dropped));
            let last = asks.iter().position(is_last).unwrap_or(asks.len());
            asks.truncate(last + 1);
        }
        let leaving = [Leaving::Close, Leaving::Reset, Leaving::Cut, Leaving::Shut, Leaving::Freeze];
        let pace = |dice: &mut Dice| match dice.below(4) {
            0 => Pace::Slow(dice.of(&[1, 20, 500, 5000]), dice.of(&[0, 1, 20])),
            _ => Pace::Fast,
        };
        Client {
            starts_at: dice.of(&[0, 0, 5, 50, 500]),
            speaks,
            asks,
            depth: dice.of(&[1, 1, 2, 4]),
            reads: pace(dice),
            writes: pace(dice),
            leaves: (!calm && dice.percent(40)).then(|| (moment(dice), dice.of(&leaving))),
            nonsense: !calm && dice.percent(5),
            dice: dice.fork(),
        }
    }
}
