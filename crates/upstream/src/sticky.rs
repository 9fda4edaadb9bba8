//! `sticky`: what binds the requests of a session to a peer.
//!
//! The protocol's part renders the templates: it finds the route of a request, which goes into [`crate::Hints`], and binds
//! the session when a peer has answered.

use std::rc::Rc;

use engine::cycle::zones::{Owner, SharedZone};
use expr::vars::Template;
use md5::{Digest, Md5};
use shm::{Map, Node};

/// How sessions are bound.
#[derive(Clone)]
pub enum Sticky {
    /// By a cookie that this server sets.
    Cookie(Rc<Cookie>),
    /// By the route that the first of these gives which isn't empty.
    Route(Rc<[Rc<Template>]>),
    /// By what servers and clients say of their sessions.
    Learn(Rc<Learn>),
}

/// `sticky cookie`
pub struct Cookie {
    /// Its name.
    pub name: Box<[u8]>,
    /// For how long a client keeps it; without, until it ends.
    pub expires: Option<Expires>,
    /// The domain.
    pub domain: Option<Rc<Template>>,
    /// The path, as it is written.
    pub path: Option<Box<[u8]>>,
    /// `HttpOnly`
    pub httponly: bool,
    /// `Secure`
    pub secure: bool,
    /// `SameSite`
    pub samesite: Option<Rc<Template>>,
}

/// When a cookie expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// At the end of 2037.
    Max,
    /// After so many seconds.
    After(u64),
}

/// `sticky learn`
pub struct Learn {
    /// The first of these that isn't empty names the session that a response begins.
    pub create: Vec<Rc<Template>>,
    /// The first of these that isn't empty names the session of a request.
    pub lookup: Vec<Rc<Template>>,
    /// Whether the session begins with the head of the response, not after its end.
    pub header: bool,
    /// Where the sessions are.
    pub sessions: Sessions,
}

/// A session with the route of the server that has answered it.
pub struct Session {
    /// Where it is learned.
    pub learn: Rc<Learn>,
    /// What names it.
    pub id: Vec<u8>,
    /// The route.
    pub route: Route,
    /// The response doesn't name the session: it only goes on, and not if it is over by then.
    pub goes_on: bool,
}

impl Session {
    /// Binds it to the server.
    pub fn keep(&self, now_ms: u64) {
        if self.goes_on && self.learn.sessions.find(&self.id, now_ms) != Some(self.route) {
            return;
        }
        self.learn.sessions.keep(&self.id, &self.route, now_ms);
    }
}

/// Sessions that all workers know.
#[derive(Clone)]
pub struct Sessions {
    zone: Rc<SharedZone>,
    timeout_ms: u64,
}

/// The route of a session's peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    bytes: [u8; LONGEST],
    len: u8,
}

/// The longest route: 32 bytes may be configured, and an MD5 has as many digits.
const LONGEST: usize = 32;
/// A session in the zone: when it was used last, and its route after the route's length.
const RECORD: usize = 8 + 1 + LONGEST;
/// How many sessions that are over are removed for a new one.
const MOST_EXPIRED: usize = 2;
/// How many sessions make room for a new one.
const MOST_EVICTED: usize = 16;

impl Route {
    /// The route of a peer.
    pub fn of(text: &str) -> Route {
        let mut route = Route::default();
        let len = text.len().min(LONGEST);
        for (place, byte) in route.bytes.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        route.len = len as u8;
        route
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The owner of a zone with sessions, which belongs to this module.
pub fn owner(module: &'static str) -> Owner {
    Owner { module, layout: 1 }
}

impl Sessions {
    /// Sessions in a zone; they are over when they haven't been used for `timeout_ms`.
    pub fn new(zone: Rc<SharedZone>, timeout_ms: u64) -> Sessions {
        Sessions { zone, timeout_ms }
    }

    /// Their zone.
    pub fn zone(&self) -> &Rc<SharedZone> {
        &self.zone
    }

    /// The route of a session.
    pub fn find(&self, id: &[u8], now_ms: u64) -> Option<Route> {
        let key = Md5::digest(id);
        self.zone.zone().with(|map| {
            let node = map.find(&key)?;
            self.record(map, node, now_ms).map(|(_, route)| route)
        })
    }

    /// Notes that a session was used with a peer of this route, and is in use from now on.
    pub fn keep(&self, id: &[u8], route: &Route, now_ms: u64) {
        let key = Md5::digest(id);
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&now_ms.to_ne_bytes());
        record[8] = route.len;
        record[9..].copy_from_slice(&route.bytes);
        self.zone.zone().with(|map| {
            if let Some(node) = map.find(&key) {
                map.set_value(node, &record);
                return map.touch(node);
            }
            for _ in 0..MOST_EXPIRED {
                match map.oldest().filter(|node| self.record(map, *node, now_ms).is_none()) {
                    Some(node) => map.remove(node),
                    None => break,
                }
            }
            map.insert_evicting(&key, &record, MOST_EVICTED);
        });
    }

    /// When a session was used last, and its route, if it isn't over.
    fn record(&self, map: &Map<'_>, node: Node, now_ms: u64) -> Option<(u64, Route)> {
        let record = map.first::<RECORD>(node)?;
        let (at, rest) = record.split_first_chunk()?;
        let at = u64::from_ne_bytes(*at);
        let (len, bytes) = rest.split_first()?;
        let route = Route { bytes: bytes.try_into().ok()?, len: (*len).min(LONGEST as u8) };
        (now_ms.saturating_sub(at) < self.timeout_ms).then_some((at, route))
    }
}

#[cfg(test)]
mod tests {
    use conf::{Env, Loader, Registry, Sources, Word};
    use engine::cycle::zones;

    use super::*;

    fn sessions() -> Sessions {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let zone =
            zones::declare(&mut loader, &Word::default(), b"z", zones::SMALLEST, owner("test")).expect("declared");
        zone.open(None).expect("memory");
        Sessions::new(zone, 1000)
    }

    #[test]
    fn sessions_are_over_when_nobody_uses_them() {
        let sessions = sessions();
        assert_eq!(sessions.find(b"a", 1), None);
        sessions.keep(b"a", &Route::of("one"), 1);
        sessions.keep(b"b", &Route::of("two"), 1);
        assert_eq!(sessions.find(b"a", 1000), Some(Route::of("one")));
        sessions.keep(b"a", &Route::of("three"), 1000);
        assert_eq!(sessions.find(b"a", 1999), Some(Route::of("three")));
        assert_eq!(sessions.find(b"b", 1001), None);
        assert_eq!(Route::of("three").as_bytes(), b"three");
        // Other bytes need another number of the layout: a program that was there before may read them.
        let value = sessions.zone.zone().with(|map| map.find(&Md5::digest(b"a")).map(|node| map.value(node)));
        let expect = [&1000_u64.to_ne_bytes()[..], b"\x05three", &[0; 27]].concat();
        assert_eq!((owner("test").layout, value), (1, Some(expect)));
        // The next one takes the place of the one that is over.
        sessions.keep(b"c", &Route::of(""), 1500);
        assert_eq!(sessions.zone.zone().with(|map| map.len()), 2);
    }

    #[test]
    fn a_full_zone_forgets_the_oldest() {
        let sessions = sessions();
        for n in 0..10_000_u32 {
            sessions.keep(&n.to_ne_bytes(), &Route::of("x"), 1);
        }
        assert_eq!(sessions.find(&0_u32.to_ne_bytes(), 1), None);
        assert_eq!(sessions.find(&9_999_u32.to_ne_bytes(), 1), Some(Route::of("x")));
    }
}
