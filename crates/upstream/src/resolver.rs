//! Looks up the addresses of names while the server runs (`resolver`): questions over UDP, or TCP where an answer
//! doesn't fit, to the name servers in turn; answers are kept as long as they say.
//!
//! Each question has a random number and comes from a port of its own, so that who can't see it can't answer it. All who
//! ask for a name while it is being looked up wait for the same answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use buf::{Bytes, Chain};
use engine::log::{self, Errno};
use os::SockAddr;
use rt::{ConnectOptions, Event, Gate, Stream, Transmit, UdpSocket};
use wire::dns::{self, Answer, Kind, Name};

/// What a directive says.
#[derive(Clone, Debug)]
pub struct ResolverSpec {
    /// The name servers, one at least.
    pub servers: Vec<SocketAddr>,
    /// For how many seconds answers are kept, whatever they say themselves.
    pub valid_s: Option<u64>,
    /// Whether addresses of IPv4 are asked for.
    pub ipv4: bool,
    /// Whether addresses of IPv6 are asked for.
    pub ipv6: bool,
}

/// Asks name servers, and remembers what they said; one for each worker.
pub struct Resolver {
    spec: ResolverSpec,
    /// The server that is asked next.
    next: Cell<usize>,
    names: RefCell<HashMap<Name, Entry>>,
    /// Questions that are under way.
    asking: Gate,
}

enum Entry {
    Known(Known),
    Asked(Rc<Lookup>),
}

struct Known {
    addresses: Addresses,
    /// By the loop's clock.
    until_ms: u64,
}

/// Addresses of a name, by family.
#[derive(Clone, Default)]
struct Addresses([Rc<[IpAddr]>; 2]);

/// A name that is being looked up.
#[derive(Default)]
struct Lookup {
    found: RefCell<Option<Result<Addresses, ResolveError>>>,
    done: Event,
}

/// Why a name has no addresses: the code of the server's answer, or 110 if there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolveError(pub u8);

impl ResolveError {
    /// There was no answer in time.
    pub const TIMED_OUT: ResolveError = ResolveError(110);
    const NOT_FOUND: ResolveError = ResolveError(dns::NO_SUCH_NAME);
}

/// As it stands in log lines: `3: Host not found`.
impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            dns::FORMAT_ERROR => "Format error",
            dns::SERVER_FAILURE => "Server failure",
            dns::NO_SUCH_NAME => "Host not found",
            4 => "Unimplemented",
            5 => "Operation refused",
            110 => "Operation timed out",
            _ => "Unknown error",
        };
        write!(f, "{}: {text}", self.0)
    }
}

/// After how long without an answer the next server is asked.
const RESEND_MS: u64 = 5000;
/// How often a question is asked.
const TRIES: usize = 6;
/// How many questions may be under way, each with a socket of its own.
const MOST_QUESTIONS: usize = 64;
/// How many names are remembered.
const MOST_NAMES: usize = 10_000;
/// How often a name may lead to another one.
const MOST_ALIASES: usize = 10;
/// How much of an answer over TCP is read at once.
const PART: usize = 4096;

impl Resolver {
    /// One that knows nothing yet.
    pub fn new(spec: ResolverSpec) -> Rc<Resolver> {
        Rc::new(Resolver { spec, next: Cell::new(0), names: RefCell::default(), asking: Gate::new(MOST_QUESTIONS) })
    }

    /// The addresses of a name, those of IPv4 first: in the order of the answer for those who have waited for it, as in
    /// nginx; which one of a family begins for those who come later is left to chance.
    pub async fn resolve(self: &Rc<Self>, name: &[u8], timeout_ms: u64) -> Result<Vec<IpAddr>, ResolveError> {
        let name = Name::parse(name).ok_or(ResolveError::NOT_FOUND)?;
        if let Some(known) = self.known(&name) {
            return Ok(known.turned());
        }
        let lookup = self.lookup(name);
        let found = async {
            loop {
                if let Some(found) = &*lookup.found.borrow() {
                    return found.clone();
                }
                lookup.done.wait().await;
            }
        };
        let found = rt::timeout(timeout_ms, found).await.unwrap_or(Err(ResolveError::TIMED_OUT))?;
        Ok(found.0.iter().flat_map(|list| list.iter().copied()).collect())
    }

    fn known(&self, name: &Name) -> Option<Addresses> {
        match self.names.borrow().get(name)? {
            Entry::Known(known) if known.until_ms > rt::now_ms() => Some(known.addresses.clone()),
            _ => None,
        }
    }

    /// The lookup of a name that is under way, or a new one.
    fn lookup(self: &Rc<Self>, name: Name) -> Rc<Lookup> {
        // One whose task has died, by a panic, is the table's alone, and would be waited for in vain.
        if let Some(Entry::Asked(lookup)) = self.names.borrow().get(&name)
            && Rc::strong_count(lookup) > 1
        {
            return lookup.clone();
        }
        let lookup = Rc::<Lookup>::default();
        self.names.borrow_mut().insert(name.clone(), Entry::Asked(lookup.clone()));
        rt::spawn(self.clone().run(name, lookup.clone()));
        lookup
    }

    async fn run(self: Rc<Self>, name: Name, lookup: Rc<Lookup>) {
        let found = self.follow(&name, &lookup).await;
        self.names.borrow_mut().remove(&name);
        let found = found.map(|(addresses, ttl)| {
            self.remember(name, &addresses, ttl);
            addresses
        });
        lookup.found.replace(Some(found));
        lookup.done.notify();
    }

    fn remember(&self, name: Name, addresses: &Addresses, ttl: u32) {
        let mut names = self.names.borrow_mut();
        let now = rt::now_ms();
        if names.len() >= MOST_NAMES {
            names.retain(|_, entry| !matches!(entry, Entry::Known(known) if known.until_ms <= now));
        }
        if names.len() < MOST_NAMES {
            let until_ms = now + self.spec.valid_s.unwrap_or(ttl.into()).saturating_mul(1000);
            names.insert(name, Entry::Known(Known { addresses: addresses.clone(), until_ms }));
        }
    }

    /// Asks for a name, and for those that it is an alias of, until there are addresses; and for how many seconds they
    /// hold.
    async fn follow(&self, name: &Name, lookup: &Rc<Lookup>) -> Result<(Addresses, u32), ResolveError> {
        let (mut name, mut ttl, mut wanted) = (name.clone(), u32::MAX, [self.spec.ipv4, self.spec.ipv6]);
        for _ in 0..MOST_ALIASES {
            let (four, six) = rt::join(
                self.exchange(&name, Kind::A, wanted[0], lookup),
                self.exchange(&name, Kind::Aaaa, wanted[1], lookup),
            )
            .await;
            let (four, six) = (four?, six?);
            ttl = ttl.min(four.ttl).min(six.ttl);
            if !four.addresses.is_empty() || !six.addresses.is_empty() {
                return Ok((Addresses([four.addresses.into(), six.addresses.into()]), ttl));
            }
            name = match (four.alias, six.alias) {
                (_, Some(alias)) => alias,
                (Some(alias), None) => {
                    // Of the other family it has no addresses, whatever its other name has.
                    wanted[1] = false;
                    alias
                }
                (None, None) => return Err(ResolveError::NOT_FOUND),
            };
        }
        Err(ResolveError::NOT_FOUND)
    }

    /// Asks for addresses of a kind; a name that doesn't exist has none.
    async fn exchange(
        &self,
        name: &Name,
        kind: Kind,
        wanted: bool,
        lookup: &Rc<Lookup>,
    ) -> Result<Answer, ResolveError> {
        if !wanted {
            return Ok(Answer::default());
        }
        let answer = self.ask_in_turn(name, kind, lookup).await?;
        match answer.code {
            0 | dns::NO_SUCH_NAME => Ok(answer),
            code => Err(ResolveError(code)),
        }
    }

    /// Asks the servers in turn until one answers, or nobody wants to know any more.
    async fn ask_in_turn(&self, name: &Name, kind: Kind, lookup: &Rc<Lookup>) -> Result<Answer, ResolveError> {
        let servers = &self.spec.servers;
        let (first, mut puzzled) = (self.next.get(), 0);
        self.next.set((first + 1) % servers.len());
        for failed in 1..=TRIES {
            let server = servers[(first + failed - 1) % servers.len()];
            match rt::timeout(RESEND_MS, self.ask(server, name, kind)).await {
                Some(Ok(answer)) if answer.code == dns::FORMAT_ERROR && puzzled + 1 < servers.len() => puzzled += 1,
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(error)) => {
                    engine::log!(
                        log::current(),
                        Error,
                        "recv() failed{} while resolving, resolver: {server}",
                        Errno(&error)
                    );
                    if failed >= servers.len() {
                        rt::sleep(RESEND_MS).await;
                    }
                }
                None => {}
            }
            // The table and the lookup's own task have it, and else those who wait.
            if Rc::strong_count(lookup) <= 2 {
                break;
            }
        }
        Err(ResolveError::TIMED_OUT)
    }

    async fn ask(&self, server: SocketAddr, name: &Name, kind: Kind) -> io::Result<Answer> {
        let _pass = self.asking.enter().await;
        let random = rt::random_bytes();
        let id = u16::from_be_bytes([random[0], random[1]]);
        let question = dns::question(id, name, kind);
        let answer = over_udp(server, &question, |message| dns::answer(message, id, name, kind)).await?;
        if !answer.truncated {
            return Ok(answer);
        }
        let message = over_tcp(server, &question).await?;
        dns::answer(&message, id, name, kind).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Addresses {
    fn turned(&self) -> Vec<IpAddr> {
        let random = usize::from(rt::random_bytes()[0]);
        let mut all = Vec::with_capacity(self.0[0].len() + self.0[1].len());
        for list in self.0.iter().filter(|list| !list.is_empty()) {
            let (before, from) = list.split_at(random % list.len());
            all.extend(from.iter().chain(before));
        }
        all
    }
}

/// Sends a question from a port of its own, and waits for a datagram that `read` takes.
async fn over_udp(server: SocketAddr, question: &[u8], read: impl Fn(&[u8]) -> Option<Answer>) -> io::Result<Answer> {
    let socket = UdpSocket::connect(&SockAddr::from(server), &ConnectOptions::default()).await?;
    socket.send(&mut [Transmit::new(question)]).await?;
    let mut received = Vec::new();
    loop {
        socket.recv(&mut received).await?;
        if let Some(answer) = received.drain(..).find_map(|datagram| read(&datagram.bytes)) {
            return Ok(answer);
        }
    }
}

/// The same over TCP, where messages have their lengths before them (RFC 1035 §4.2.2).
async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let stream = Stream::connect(&SockAddr::from(server), &ConnectOptions::default(), RESEND_MS).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let message = [&length.to_be_bytes()[..], question].concat();
    stream.send(&mut Chain::from(Bytes::from(message))).await?;
    let mut received = Vec::new();
    loop {
        if let Some((length, message)) = received.split_first_chunk::<2>()
            && let Some(message) = message.get(..usize::from(u16::from_be_bytes(*length)))
        {
            return Ok(message.to_vec());
        }
        let more = stream.recv(PART).await?;
        if more.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&more);
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
