//! A group of servers, and a request's way through it.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Context;

use engine::cycle::zones::SharedZone;

use crate::balance::{self, Balancer, Hints, Progress};
use crate::keepalive::{Idle, Keepalive, Pool};
use crate::peer::{Peer, Peers};
use crate::spec::GroupSpec;
use crate::zone;

/// An upstream, ready for requests.
pub struct Group {
    /// Its name: of the `upstream` block, or the host as written.
    pub name: Rc<str>,
    primary: Peers,
    backup: Peers,
    /// A single peer is never taken for unavailable.
    single: bool,
    balancer: Box<dyn Balancer>,
    pool: Option<Rc<Pool>>,
    /// Where the workers share the peers' state.
    zone: Option<Rc<SharedZone>>,
    /// Requests that are under way.
    pub active: Cell<usize>,
}

/// How a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Good,
    /// It failed.
    Failed,
    /// It says nothing of the peer: the request was given up.
    Neutral,
}

impl Group {
    /// Builds a group.
    pub fn new(spec: &GroupSpec) -> Rc<Group> {
        let mut primary = Peers::new(spec.servers.iter().filter(|server| !server.backup));
        let mut backup = Peers::new(spec.servers.iter().filter(|server| server.backup));
        if let Some(zone) = &spec.zone {
            zone::enter(zone, spec, [&mut primary, &mut backup]);
        }
        Rc::new(Group {
            name: String::from_utf8_lossy(&spec.name).into(),
            single: primary.list.len() == 1 && backup.list.is_empty(),
            balancer: balance::of(&spec.method, &primary),
            primary,
            backup,
            pool: pool(&spec.keepalive),
            zone: spec.zone.clone(),
            active: Cell::new(0),
        })
    }

    /// The backups.
    pub fn backup(&self) -> &Peers {
        &self.backup
    }

    /// Does something with the state of all peers, which may be shared.
    fn with_peers<R>(&self, f: impl FnOnce() -> R) -> R {
        match &self.zone {
            None => f(),
            Some(zone) => zone::exchange(zone, &[&self.primary.list, &self.backup.list], f),
        }
    }

    /// The same for one peer.
    fn with_peer<R>(&self, peer: &Peer, f: impl FnOnce() -> R) -> R {
        match &self.zone {
            None => f(),
            Some(zone) => zone::exchange(zone, &[std::slice::from_ref(peer)], f),
        }
    }

    /// The idle connections, if any are kept.
    pub fn pool(&self) -> Option<&Rc<Pool>> {
        self.pool.as_ref()
    }
}

fn pool(settings: &Keepalive) -> Option<Rc<Pool>> {
    (settings.connections > 0).then(|| Rc::new(Pool::new(settings.clone())))
}

/// A request's way through a group. Dropping it gives its peer up.
pub struct Choice {
    group: Rc<Group>,
    progress: Progress,
    on_backup: bool,
    current: Option<usize>,
    /// Attempts that are left, the current one included.
    pub tries: u32,
}

impl Choice {
    /// At the start; `max_tries` of 0 is no limit.
    pub fn new(group: Rc<Group>, max_tries: u32) -> Choice {
        let all = group.primary.tries + group.backup.tries;
        let tries = if max_tries > 0 { all.min(max_tries) } else { all };
        group.active.set(group.active.get() + 1);
        Choice { group, progress: Progress::default(), on_backup: false, current: None, tries }
    }

    /// For a request that is under way with the peer of this name already, as another process chose it; without a peer
    /// if the group has it no longer.
    pub fn resume(group: Rc<Group>, name: &str) -> Choice {
        let mut choice = Choice::new(group, 1);
        let at = |peers: &Peers| peers.list.iter().position(|peer| *peer.name == *name);
        let primary = at(&choice.group.primary);
        choice.on_backup = primary.is_none();
        choice.current = primary.or_else(|| at(&choice.group.backup));
        if let Some(peer) = choice.peer() {
            peer.conns.set(peer.conns.get() + 1);
        }
        choice
    }

    /// The group.
    pub fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// The peer in use.
    pub fn peer(&self) -> Option<&Peer> {
        self.current.and_then(|at| self.peers().list.get(at))
    }

    fn peers(&self) -> &Peers {
        if self.on_backup { &self.group.backup } else { &self.group.primary }
    }

    /// Chooses the next peer; false if there is none that lives.
    pub fn advance(&mut self, hints: &Hints<'_>) -> bool {
        debug_assert!(self.current.is_none(), "the last peer was released");
        let now = rt::wall().secs.max(0) as u64;
        let group = self.group.clone();
        group.with_peers(|| self.pick(&group, hints, now));
        self.current.is_some()
    }

    fn pick(&mut self, group: &Group, hints: &Hints<'_>, now: u64) {
        if group.single {
            let usable = group.primary.list.first().is_some_and(|peer| !peer.down && !peer.is_full());
            self.current = usable.then_some(0);
        } else {
            let rank = if self.on_backup { &group.backup } else { &group.primary };
            self.current = group.balancer.pick(rank, &mut self.progress, hints, now);
            if self.current.is_none() && !self.on_backup && !group.backup.list.is_empty() {
                (self.on_backup, self.progress) = (true, Progress::default());
                self.current = group.balancer.pick(&group.backup, &mut self.progress, hints, now);
            }
        }
        if let Some(peer) = self.peer() {
            peer.conns.set(peer.conns.get() + 1);
        }
    }

    /// Tells how the current peer did, and lets it go; true if it is unavailable from now on.
    pub fn release(&mut self, outcome: Outcome) -> bool {
        let Some(peer) = self.peer() else { return false };
        let disabled = self.group.with_peer(peer, || self.judge(peer, outcome));
        self.tries = self.tries.saturating_sub(1);
        self.current = None;
        disabled
    }

    fn judge(&self, peer: &Peer, outcome: Outcome) -> bool {
        peer.conns.set(peer.conns.get().saturating_sub(1));
        if !self.group.single {
            let now = rt::wall().secs.max(0) as u64;
            match outcome {
                Outcome::Good => peer.succeeded(),
                Outcome::Failed => return peer.failed(now),
                Outcome::Neutral => {}
            }
        }
        false
    }

    fn key(&self) -> Option<usize> {
        let backup = if self.on_backup { self.group.primary.list.len() } else { 0 };
        self.current.map(|at| at + backup)
    }

    /// An idle connection to the current peer.
    pub fn take_idle(&self, cx: &mut Context<'_>, place: u32) -> Option<Idle> {
        self.group.pool.as_ref()?.take(cx, self.key()?, place)
    }

    /// Keeps a connection to the current peer, if it may serve on.
    pub fn keep(&self, idle: Idle, place: u32) {
        if let (Some(pool), Some(key)) = (&self.group.pool, self.key()) {
            pool.put(idle, key, place);
        }
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        if let Some(peer) = self.peer() {
            self.group.with_peer(peer, || peer.conns.set(peer.conns.get().saturating_sub(1)));
        }
        self.group.active.set(self.group.active.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerSpec;

    fn group() -> Rc<Group> {
        let server = |port: u16, backup| {
            let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            ServerSpec { backup, ..ServerSpec::new(&addr.to_string(), vec![os::SockAddr::from(addr)]) }
        };
        let servers = vec![server(1, false), server(2, false), server(3, true)];
        Group::new(&GroupSpec { name: b"group".to_vec(), servers, ..GroupSpec::default() })
    }

    #[test]
    fn a_choice_of_another_process_counts() {
        let group = group();
        let counts = |group: &Group| {
            let peers = group.primary.list.iter().chain(&group.backup.list);
            (peers.map(|peer| peer.conns.get()).collect::<Vec<_>>(), group.active.get())
        };
        let second = Choice::resume(group.clone(), "127.0.0.1:2");
        let backup = Choice::resume(group.clone(), "127.0.0.1:3");
        let gone = Choice::resume(group.clone(), "127.0.0.1:9");
        assert_eq!(counts(&group), (vec![0, 1, 1], 3));
        assert!(gone.peer().is_none() && backup.peer().is_some_and(|peer| &*peer.name == "127.0.0.1:3"));
        drop((second, backup, gone));
        assert_eq!(counts(&group), (vec![0, 0, 0], 0));
    }
}
