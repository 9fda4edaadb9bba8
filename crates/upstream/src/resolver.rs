//! Looks up the addresses of names while the server runs (`resolver`): questions over UDP, or TCP where an answer
//! doesn't fit, to the name servers in turn; answers are kept as long as they say.
//!
//! Without the directive the name servers of /etc/resolv.conf are asked ([`Resolver::system`]).
//!
//! Each question has a random number and comes from a port of its own, or from a random one of many if many are under
//! way (`ports.rs`), so that who can't see it can't answer it. All who ask for a name while it is being looked up
//! wait for the same answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use buf::{Bytes, Chain};
use engine::log::{self, Errno};
use os::SockAddr;
use rt::{ConnectOptions, Event, Gate, Stream};
use wire::dns::{self, Answer, Kind, Name, Service};

use crate::ports::{self, Ports};
use crate::system::{self, System};

/// What a directive says.
#[derive(Clone, Debug)]
pub struct ResolverSpec {
    /// The name servers.
    pub servers: Vec<SocketAddr>,
    /// For how many seconds answers are kept, whatever they say themselves.
    pub valid_s: Option<u64>,
    /// Whether addresses of IPv4 are asked for.
    pub ipv4: bool,
    /// Whether addresses of IPv6 are asked for.
    pub ipv6: bool,
}

impl Default for ResolverSpec {
    /// Without servers; both families.
    fn default() -> ResolverSpec {
        ResolverSpec { servers: Vec::new(), valid_s: None, ipv4: true, ipv6: true }
    }
}

/// Asks name servers, and remembers what they said; one for each worker.
pub struct Resolver {
    spec: ResolverSpec,
    /// The system's files, if they say which servers are asked.
    system: Option<System>,
    /// The server that is asked next.
    next: Cell<usize>,
    known: RefCell<Names>,
    /// Lookups that are under way.
    asked: RefCell<HashMap<Query, Weak<Asked>>>,
    ports: Rc<Ports>,
    /// Questions that are under way.
    asking: Gate,
    /// Those over TCP.
    asking_tcp: Gate,
}

/// What somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Query {
    name: Name,
    wanted: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Addresses,
    Services,
    /// The names of the address that the name stands for.
    Names,
}

/// The names that are remembered. The older half of them is forgotten where a new one finds no room.
#[derive(Default)]
struct Names {
    young: HashMap<Query, Known>,
    old: HashMap<Query, Known>,
}

/// What is known of a name.
#[derive(Clone, Default)]
struct Known {
    /// By family.
    addresses: [Rc<[IpAddr]>; 2],
    services: Rc<[Service]>,
    names: Rc<[Name]>,
    /// By the loop's clock.
    until_ms: u64,
}

/// A name that is being looked up.
#[derive(Default)]
struct Asked {
    found: RefCell<Option<Result<Known, ResolveError>>>,
    done: Event,
}

/// Why a name has no addresses: the code of the server's answer, or 110 if there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolveError(pub u8);

impl ResolveError {
    /// There was no answer in time.
    pub const TIMED_OUT: ResolveError = ResolveError(110);
    /// There is no such name, or it has no addresses.
    pub const NOT_FOUND: ResolveError = ResolveError(dns::NO_SUCH_NAME);
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
/// How many questions may be under way: so many that slow names don't hold up others. Half of the numbers that the
/// questions of one port can have, so that a free one is soon found.
const MOST_QUESTIONS: usize = 32_768;
/// How many questions over TCP may be under way, each with a connection of its own.
const MOST_TCP: usize = 64;
/// How many names are remembered.
const MOST_NAMES: usize = 10_000;
/// How often a name may lead to another one.
const MOST_ALIASES: usize = 10;
/// How much of an answer over TCP is read at once.
const PART: usize = 4096;

thread_local! {
    /// The resolver of a worker that goes by the system's files.
    static SYSTEM: Rc<Resolver> = Resolver::of(ResolverSpec::default(), Some(System::default()));
}

impl Resolver {
    /// One that knows nothing yet.
    pub fn new(spec: ResolverSpec) -> Rc<Resolver> {
        Resolver::of(spec, None)
    }

    /// The one that goes by /etc/resolv.conf and /etc/hosts, and follows their changes.
    pub fn system() -> Rc<Resolver> {
        SYSTEM.with(Rc::clone)
    }

    fn of(spec: ResolverSpec, system: Option<System>) -> Rc<Resolver> {
        Rc::new(Resolver {
            spec,
            system,
            next: Cell::new(0),
            known: RefCell::default(),
            asked: RefCell::default(),
            ports: Rc::default(),
            asking: Gate::new(MOST_QUESTIONS),
            asking_tcp: Gate::new(MOST_TCP),
        })
    }

    /// For how long a name is taken not to exist after name servers said so, in milliseconds; `None` if nothing is said.
    pub fn valid_ms(&self) -> Option<u64> {
        self.spec.valid_s.map(|seconds| seconds.saturating_mul(1000))
    }

    /// The addresses of a name, those of IPv4 first: in the order of the answer for those who have waited for it, as in
    /// nginx; which one of a family begins for those who come later is left to chance.
    pub async fn resolve(self: &Rc<Self>, name: &[u8], timeout_ms: u64) -> Result<Vec<IpAddr>, ResolveError> {
        self.addresses(name, timeout_ms).await.map(|(addresses, _)| addresses)
    }

    /// The same, and until when it holds, by the loop's clock.
    pub async fn addresses(self: &Rc<Self>, name: &[u8], timeout_ms: u64) -> Result<(Vec<IpAddr>, u64), ResolveError> {
        self.look();
        if let Some(found) = self.in_hosts(name) {
            return Ok(found);
        }
        let Some(system) = &self.system else { return self.known(Name::parse(name), timeout_ms).await };
        for candidate in system.candidates(name) {
            match self.known(Name::parse(&candidate), timeout_ms).await {
                Err(ResolveError::NOT_FOUND) => {}
                found => return found,
            }
        }
        Err(ResolveError::NOT_FOUND)
    }

    /// What /etc/hosts has for a name, and until when that holds.
    fn in_hosts(&self, name: &[u8]) -> Option<(Vec<IpAddr>, u64)> {
        let found = self.system.as_ref()?.host(name)?;
        Some((found, rt::now_ms() + system::LOOK_MS))
    }

    async fn known(self: &Rc<Self>, name: Option<Name>, timeout_ms: u64) -> Result<(Vec<IpAddr>, u64), ResolveError> {
        let name = name.ok_or(ResolveError::NOT_FOUND)?;
        let query = Query { name, wanted: Wanted::Addresses };
        if let Some(known) = self.kept(&query) {
            return Ok((known.turned(), known.until_ms));
        }
        let known = self.find(query, timeout_ms).await?;
        let in_order = known.addresses.iter().flat_map(|list| list.iter().copied());
        Ok((in_order.collect(), known.until_ms))
    }

    /// Where a service is: for each of its records the addresses of its host; and until when that holds.
    pub async fn services(
        self: &Rc<Self>,
        name: &[u8],
        timeout_ms: u64,
    ) -> Result<(Vec<(Service, Vec<IpAddr>)>, u64), ResolveError> {
        self.look();
        let name = Name::parse(name).ok_or(ResolveError::NOT_FOUND)?;
        let known = self.find(Query { name, wanted: Wanted::Services }, timeout_ms).await?;
        let (mut found, mut until_ms) = (Vec::new(), known.until_ms);
        for service in known.services.iter() {
            // The whole name of a host, which no domain completes.
            let in_hosts = service.target.host().and_then(|name| self.in_hosts(name.as_bytes()));
            let addresses = match in_hosts {
                Some(found) => Ok(found),
                None => self.known(Some(service.target.clone()), timeout_ms).await,
            };
            match addresses {
                Ok((addresses, until)) => {
                    until_ms = until_ms.min(until);
                    found.push((service.clone(), addresses));
                }
                Err(ResolveError::NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((found, until_ms))
    }

    /// The name of an address: the first that an answer has and that hosts can have.
    pub async fn name_of(self: &Rc<Self>, address: IpAddr, timeout_ms: u64) -> Result<String, ResolveError> {
        self.look();
        let query = Query { name: Name::of_address(address), wanted: Wanted::Names };
        let known = self.find(query, timeout_ms).await?;
        known.names.iter().find_map(Name::host).ok_or(ResolveError::NOT_FOUND)
    }

    /// Looks whether the system's files have changed: what other name servers said is forgotten, and so is what they are
    /// about to say.
    fn look(&self) {
        if self.system.as_ref().is_some_and(|system| system.refresh(rt::now_ms())) {
            self.known.take();
            self.asked.take();
        }
    }

    /// What is kept of an earlier answer.
    fn kept(&self, query: &Query) -> Option<Known> {
        self.known.borrow_mut().get(query).filter(|known| known.until_ms > rt::now_ms())
    }

    async fn find(self: &Rc<Self>, query: Query, timeout_ms: u64) -> Result<Known, ResolveError> {
        if let Some(known) = self.kept(&query) {
            return Ok(known);
        }
        let asked = self.ask_once(query);
        let found = async {
            loop {
                if let Some(found) = &*asked.found.borrow() {
                    return found.clone();
                }
                asked.done.wait().await;
            }
        };
        rt::timeout(timeout_ms, found).await.unwrap_or(Err(ResolveError::TIMED_OUT))
    }

    /// The lookup of a name that is under way, or a new one.
    fn ask_once(self: &Rc<Self>, query: Query) -> Rc<Asked> {
        if let Some(asked) = self.asked.borrow().get(&query).and_then(Weak::upgrade) {
            return asked;
        }
        let asked = Rc::<Asked>::default();
        self.asked.borrow_mut().insert(query.clone(), Rc::downgrade(&asked));
        rt::spawn(self.clone().run(query, asked.clone()));
        asked
    }

    async fn run(self: Rc<Self>, query: Query, asked: Rc<Asked>) {
        let found = match query.wanted {
            Wanted::Addresses => self.follow(&query.name, &asked).await,
            Wanted::Services => self.follow_one(&query.name, Kind::Srv, &asked).await,
            Wanted::Names => self.follow_one(&query.name, Kind::Ptr, &asked).await,
        };
        let found = found.map(|(mut known, ttl)| {
            let ms = self.spec.valid_s.unwrap_or(ttl.into()).saturating_mul(1000);
            known.until_ms = rt::now_ms().saturating_add(ms);
            known
        });
        // Unless the name servers have been changed meanwhile.
        let counts = |other: &Weak<Asked>| std::ptr::eq(other.as_ptr(), Rc::as_ptr(&asked));
        if self.asked.borrow().get(&query).is_some_and(counts) {
            self.asked.borrow_mut().remove(&query);
            if let Some(known) = found.as_ref().ok().filter(|known| known.until_ms > rt::now_ms()) {
                self.known.borrow_mut().add(query, known.clone());
            }
        }
        asked.found.replace(Some(found));
        asked.done.notify();
    }

    /// Asks for a name, and for those that it is an alias of, until there are addresses; and for how many seconds they
    /// hold.
    async fn follow(&self, name: &Name, asked: &Rc<Asked>) -> Result<(Known, u32), ResolveError> {
        let (mut name, mut ttl, mut wanted) = (name.clone(), u32::MAX, [self.spec.ipv4, self.spec.ipv6]);
        for _ in 0..MOST_ALIASES {
            let (four, six) = rt::join(
                self.exchange(&name, Kind::A, wanted[0], asked),
                self.exchange(&name, Kind::Aaaa, wanted[1], asked),
            )
            .await;
            let (four, six) = (four?, six?);
            ttl = ttl.min(four.ttl).min(six.ttl);
            if !four.addresses.is_empty() || !six.addresses.is_empty() {
                let addresses = [four.addresses.into(), six.addresses.into()];
                return Ok((Known { addresses, ..Known::default() }, ttl));
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

    /// The same for what one kind of question is about: services, or names.
    async fn follow_one(&self, name: &Name, kind: Kind, asked: &Rc<Asked>) -> Result<(Known, u32), ResolveError> {
        let (mut name, mut ttl) = (name.clone(), u32::MAX);
        for _ in 0..MOST_ALIASES {
            let answer = self.exchange(&name, kind, true, asked).await?;
            ttl = ttl.min(answer.ttl);
            if !answer.services.is_empty() || !answer.names.is_empty() {
                let (services, names) = (answer.services.into(), answer.names.into());
                return Ok((Known { services, names, ..Known::default() }, ttl));
            }
            name = answer.alias.ok_or(ResolveError::NOT_FOUND)?;
        }
        Err(ResolveError::NOT_FOUND)
    }

    /// Asks for addresses of a kind; a name that doesn't exist has none.
    async fn exchange(&self, name: &Name, kind: Kind, wanted: bool, asked: &Rc<Asked>) -> Result<Answer, ResolveError> {
        if !wanted {
            return Ok(Answer::default());
        }
        let answer = self.ask_in_turn(name, kind, asked).await?;
        match answer.code {
            0 | dns::NO_SUCH_NAME => Ok(answer),
            code => Err(ResolveError(code)),
        }
    }

    /// Asks the servers in turn until one answers, or nobody wants to know any more.
    async fn ask_in_turn(&self, name: &Name, kind: Kind, asked: &Rc<Asked>) -> Result<Answer, ResolveError> {
        let servers = self.system.as_ref().map_or_else(|| self.spec.servers.clone(), System::servers);
        let (first, mut puzzled) = (self.next.get(), 0);
        self.next.set((first + 1) % servers.len());
        for failed in 1..=TRIES {
            let server = servers[(first + failed - 1) % servers.len()];
            match self.ask(server, name, kind).await {
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
            // The lookup's own task has it, and else those who wait.
            if Rc::strong_count(asked) <= 1 {
                break;
            }
        }
        Err(ResolveError::TIMED_OUT)
    }

    /// Asks a server once; `None` if it doesn't answer in time. Waiting for one's turn to ask is no part of that time.
    async fn ask(&self, server: SocketAddr, name: &Name, kind: Kind) -> Option<io::Result<Answer>> {
        let asking = self.asking.enter().await;
        let answer = rt::timeout(RESEND_MS, self.ports.ask(server, name, kind)).await?;
        drop(asking);
        if !answer.as_ref().is_ok_and(|answer| answer.truncated) {
            return Some(answer);
        }
        let _asking = rt::timeout(RESEND_MS, self.asking_tcp.enter()).await?;
        rt::timeout(RESEND_MS, over_tcp(server, name, kind)).await
    }
}

impl Names {
    fn get(&mut self, query: &Query) -> Option<Known> {
        if let Some(known) = self.young.get(query) {
            return Some(known.clone());
        }
        let known = self.old.remove(query)?;
        self.add(query.clone(), known.clone());
        Some(known)
    }

    fn add(&mut self, query: Query, known: Known) {
        if self.young.len() >= MOST_NAMES / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(query, known);
    }
}

impl Known {
    fn turned(&self) -> Vec<IpAddr> {
        let random = usize::from(rt::random_bytes()[0]);
        let mut all = Vec::with_capacity(self.addresses.iter().map(|list| list.len()).sum());
        for list in self.addresses.iter().filter(|list| !list.is_empty()) {
            let (before, from) = list.split_at(random % list.len());
            all.extend(from.iter().chain(before));
        }
        all
    }
}

/// Asks over TCP, where messages have their lengths before them (RFC 1035 §4.2.2).
async fn over_tcp(server: SocketAddr, name: &Name, kind: Kind) -> io::Result<Answer> {
    let id = ports::random();
    let question = dns::question(id, name, kind);
    let stream = Stream::connect(&SockAddr::from(server), &ConnectOptions::default(), RESEND_MS).await?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let message = [&length.to_be_bytes()[..], &question].concat();
    stream.send(&mut Chain::from(Bytes::from(message))).await?;
    let mut received = Vec::new();
    loop {
        if let Some((length, message)) = received.split_first_chunk::<2>()
            && let Some(message) = message.get(..usize::from(u16::from_be_bytes(*length)))
        {
            return dns::answer(message, id, name, kind).ok_or_else(|| io::ErrorKind::InvalidData.into());
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
