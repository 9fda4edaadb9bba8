//! A group of servers, and a request's way through it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;

use crate::balance::{self, Hints, Progress};
use crate::health::{Check, Checks};
use crate::keepalive::{Idle, Keepalive, Pool};
use crate::peer::{Peer, Peers};
use crate::queue::Queue;
use crate::roster::{Found, Plan, Ranks};
use crate::spec::{GroupSpec, Lookup, Moment, NamesSpec, Time};
use crate::sticky::{Session, Sticky};
use crate::zone::Shared;

/// An upstream, ready for requests.
pub struct Group {
    /// Its name: of the `upstream` block, or the host as written.
    pub name: Rc<str>,
    plan: Plan,
    ranks: RefCell<Rc<Ranks>>,
    pool: Option<Rc<Pool>>,
    /// Where the workers share the peers' state.
    shared: Option<Shared>,
    /// Whether this worker asks name servers and checks peers for all; without a zone each does.
    leads: Cell<bool>,
    /// Which time of responses the balancer has to know.
    time: Option<Time>,
    /// What binds sessions to peers.
    pub sticky: Option<Sticky>,
    /// Who is asked for the names of its servers.
    pub(crate) names: NamesSpec,
    pub(crate) queue: Option<Queue>,
    checks: Rc<Checks>,
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
        let checks = Rc::<Checks>::default();
        let plan = Plan::new(spec, &checks);
        let ranks = Rc::new(plan.ranks(None));
        let shared = spec.zone.as_ref().map(|zone| Shared::new(zone, &spec.name, &ranks, plan.changes(), &checks));
        Rc::new(Group {
            name: String::from_utf8_lossy(&spec.name).into(),
            ranks: RefCell::new(ranks),
            pool: pool(&spec.keepalive),
            leads: Cell::new(shared.is_none()),
            shared,
            time: spec.method.time(),
            sticky: spec.sticky.clone(),
            names: spec.names.clone(),
            queue: spec.queue.map(Queue::new),
            checks,
            active: Cell::new(0),
            plan,
        })
    }

    /// Its peers as they are now.
    pub(crate) fn ranks(&self) -> Rc<Ranks> {
        self.ranks.borrow().clone()
    }

    /// All its peers.
    pub fn peers(&self) -> Vec<Rc<Peer>> {
        self.with_peers(|ranks| ranks.all().cloned().collect())
    }

    /// Makes the peers anew from what name servers said.
    fn rebuild(&self) -> Rc<Ranks> {
        let ranks = Rc::new(self.plan.ranks(Some(&self.ranks())));
        self.ranks.replace(ranks.clone());
        ranks
    }

    /// Does something with the state of all peers, which may be shared.
    fn with_peers<R>(&self, f: impl FnOnce(&Rc<Ranks>) -> R) -> R {
        let Some(shared) = &self.shared else { return f(&self.ranks()) };
        let news = |roster| {
            self.plan.roster.replace(roster);
            self.rebuild();
        };
        shared.exchange(self.plan.changes(), news, || self.ranks(), f)
    }

    /// The same for one peer.
    pub(crate) fn with_peer<R>(&self, peer: &Peer, f: impl FnOnce() -> R) -> R {
        match &self.shared {
            None => f(),
            Some(shared) => shared.exchange_one(peer, f),
        }
    }

    /// The names whose addresses are looked up while the server runs.
    pub fn lookups(&self) -> Vec<Lookup> {
        let mut lookups: Vec<Lookup> = Vec::new();
        for lookup in self.plan.lookups() {
            if !lookups.iter().any(|other| other.name == lookup.name) {
                lookups.push(lookup.clone());
            }
        }
        lookups
    }

    /// Notes the addresses of a name, for all workers if they share the peers. False if there is no memory for it.
    pub(crate) fn learn(&self, name: &Rc<[u8]>, found: Vec<Found>) -> bool {
        let learned = match &self.shared {
            None => {
                if self.plan.roster.borrow_mut().learn(name, found) {
                    self.rebuild();
                }
                true
            }
            Some(shared) => {
                shared.publish(&self.plan.roster, |roster| roster.learn(name, found.clone()), || self.rebuild())
            }
        };
        self.tell_queue();
        learned
    }

    /// A peer may be usable that wasn't: the first request that waits looks.
    pub(crate) fn tell_queue(&self) {
        if let Some(queue) = &self.queue {
            queue.tell_first();
        }
    }

    /// Whether it has a zone, so that what one worker finds is known to all.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether this worker asks name servers and checks peers.
    pub(crate) fn leads(&self) -> bool {
        self.leads.get()
    }

    /// Tries to lead, or goes on leading.
    pub(crate) fn lead(&self) {
        if let Some(shared) = &self.shared {
            self.leads.set(shared.lead(rt::now_ms()));
        }
    }

    /// Gives the work for the group to another worker: this one is about to end, which may take long.
    pub fn resign(&self) {
        if let Some(shared) = &self.shared {
            self.leads.set(false);
            shared.resign();
        }
    }

    /// Whether requests may wait for a peer.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether checks are made of its peers.
    pub(crate) fn is_checked(&self) -> bool {
        self.checks.any()
    }

    /// Adds a check before workers run; what it is known by, or `None` if there are too many.
    pub fn add_check(&self, check: &Check) -> Option<u32> {
        let bit = self.checks.add(check)?;
        for peer in self.ranks().all() {
            peer.health.set(self.checks.of_new());
        }
        Some(bit)
    }

    /// The idle connections, if any are kept.
    pub fn pool(&self) -> Option<&Rc<Pool>> {
        self.pool.as_ref()
    }
}

/// The time by which failures of peers are counted.
fn now_secs() -> u64 {
    rt::wall().secs.max(0) as u64
}

fn pool(settings: &Keepalive) -> Option<Rc<Pool>> {
    (settings.connections > 0).then(|| Rc::new(Pool::new(settings.clone())))
}

/// A request's way through a group. Dropping it gives its peer up.
pub struct Choice {
    group: Rc<Group>,
    /// The peers among which it chose last.
    ranks: Rc<Ranks>,
    /// Its progress over the servers, and over the backups.
    progress: [Progress; 2],
    on_backup: bool,
    current: Option<Rc<Peer>>,
    /// When the current peer was chosen, in the loop's milliseconds.
    began_ms: u64,
    /// How long the peer took to the moment that the balancer wants to know of.
    took_ms: Cell<Option<u64>>,
    /// The session that is bound to the peer when the response is complete.
    session: Option<Box<Session>>,
    max_tries: u32,
    /// Attempts that are over, and count.
    attempts: u32,
    /// Attempts that are left, the current one included.
    pub tries: u32,
}

impl Choice {
    /// At the start; `max_tries` of 0 is no limit.
    pub fn new(group: Rc<Group>, max_tries: u32) -> Choice {
        group.active.set(group.active.get() + 1);
        let ranks = group.ranks();
        let mut choice = Choice {
            group,
            ranks,
            progress: Default::default(),
            on_backup: false,
            current: None,
            began_ms: 0,
            took_ms: Cell::new(None),
            session: None,
            max_tries,
            attempts: 0,
            tries: 0,
        };
        choice.count_tries();
        choice
    }

    fn count_tries(&mut self) {
        let all = self.ranks.primary.tries + self.ranks.backup.tries;
        self.tries = if self.max_tries > 0 { all.min(self.max_tries) } else { all };
    }

    /// For a request that is under way with the peer of this name already, as another process chose it; without a peer
    /// if the group has it no longer.
    pub fn resume(group: Rc<Group>, name: &str) -> Choice {
        let mut choice = Choice::new(group, 1);
        choice.current = choice.ranks.all().find(|peer| *peer.name == *name).cloned();
        if let Some(peer) = choice.current.clone() {
            choice.began_ms = rt::now_ms();
            choice.group.with_peer(&peer, || peer.begin(choice.began_ms));
        }
        choice
    }

    /// The group.
    pub fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// The peer in use.
    pub fn peer(&self) -> Option<&Peer> {
        self.current.as_deref()
    }

    /// Chooses the next peer; false if there is none that lives.
    pub fn advance(&mut self, hints: &Hints<'_>) -> bool {
        // Those that wait come first, but for requests that have had their turn.
        let is_next = self.has_begun() || self.group.queue.as_ref().is_none_or(Queue::is_empty);
        is_next && self.choose(hints)
    }

    /// Whether a peer has been asked already.
    pub(crate) fn has_begun(&self) -> bool {
        self.attempts > 0
    }

    /// The last attempt doesn't count.
    pub fn forgive(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.tries += 1;
    }

    /// Looks once more for a peer, whoever waits: among all of them if none has been asked.
    pub(crate) fn choose_again(&mut self, hints: &Hints<'_>) -> bool {
        self.on_backup = false;
        if !self.has_begun() {
            self.progress = Default::default();
        }
        self.choose(hints)
    }

    /// Whether there are peers that haven't been asked and may be some day.
    pub(crate) fn has_others(&self) -> bool {
        [false, true].into_iter().zip(&self.progress).any(|(backup, progress)| {
            let mut all = self.ranks.rank(backup).list.iter().enumerate();
            all.any(|(index, peer)| !peer.down && !progress.tried(index))
        })
    }

    /// The same, whoever waits.
    fn choose(&mut self, hints: &Hints<'_>) -> bool {
        debug_assert!(self.current.is_none(), "the last peer was released");
        let group = self.group.clone();
        group.with_peers(|ranks| self.pick(ranks, hints));
        self.current.is_some()
    }

    fn pick(&mut self, ranks: &Rc<Ranks>, hints: &Hints<'_>) {
        if !Rc::ptr_eq(ranks, &self.ranks) {
            // Other peers: of what it has done among the old ones, who was asked counts still.
            let tried = self.tried();
            self.ranks = ranks.clone();
            (self.on_backup, self.progress) = (false, Default::default());
            self.mark(&tried);
            let left = self.tries;
            self.count_tries();
            if self.began_ms > 0 {
                self.tries = self.tries.min(left);
            }
        }
        let now_ms = rt::now_ms();
        if ranks.single {
            let peer = ranks.primary.list.first().filter(|peer| peer.is_open(hints.route));
            self.current = peer.cloned();
        } else {
            if ranks.slow {
                let dice = rt::random_bytes();
                let dice = dice.first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk));
                ranks.all().for_each(|peer| peer.rest(dice, now_ms));
            }
            self.current = self.pick_in_ranks(ranks, hints, now_secs());
        }
        if let Some(peer) = &self.current {
            peer.begin(now_ms);
            self.began_ms = now_ms;
            self.took_ms.set(None);
        }
    }

    /// The numbers of the peers that were asked.
    fn tried(&self) -> Vec<usize> {
        let ranks = [&self.ranks.primary, &self.ranks.backup].into_iter().zip(&self.progress);
        let peers = ranks.flat_map(|(rank, progress)| {
            rank.list.iter().enumerate().filter(|(index, _)| progress.tried(*index)).map(|(_, peer)| peer.id)
        });
        peers.collect()
    }

    /// Notes that these peers were asked, as far as they are there.
    fn mark(&mut self, tried: &[usize]) {
        let ranks = [&self.ranks.primary, &self.ranks.backup].into_iter().zip(&mut self.progress);
        for (rank, progress) in ranks {
            let known = rank.list.iter().enumerate().filter(|(_, peer)| tried.contains(&peer.id));
            known.for_each(|(index, _)| progress.mark(index));
        }
    }

    fn pick_in_ranks(&mut self, ranks: &Ranks, hints: &Hints<'_>, now: u64) -> Option<Rc<Peer>> {
        if !self.on_backup {
            let found = self.pick_in(ranks, &ranks.primary, hints, now);
            if found.is_some() || ranks.backup.list.is_empty() {
                return found;
            }
            self.on_backup = true;
        }
        self.pick_in(ranks, &ranks.backup, hints, now)
    }

    fn pick_in(&mut self, ranks: &Ranks, rank: &Peers, hints: &Hints<'_>, now: u64) -> Option<Rc<Peer>> {
        let progress = &mut self.progress[usize::from(self.on_backup)];
        if !hints.route.is_empty()
            && let Some(index) = balance::bound(rank, progress, hints.route, now)
        {
            return rank.list.get(index).cloned();
        }
        let mut index = ranks.balancer.pick(rank, progress, hints, now);
        if index.is_none() && ranks.slow {
            // Those that were to be spared are all there is.
            rank.list.iter().for_each(|peer| peer.resting.set(false));
            index = ranks.balancer.pick(rank, progress, hints, now);
        }
        rank.list.get(index?).cloned()
    }

    /// The exchange with the peer has come so far, for the first time.
    pub fn reached(&self, moment: Moment) {
        if self.group.time.is_some_and(|time| time.moment == moment) {
            self.took_ms.set(Some(rt::now_ms().saturating_sub(self.began_ms)));
        }
    }

    /// The peer has proved that it works, though what it serves isn't over.
    pub fn works(&self) {
        if let Some(peer) = self.current.as_ref().filter(|_| !self.ranks.single) {
            self.group.with_peer(peer, || peer.succeeded(rt::now_ms()));
        }
    }

    /// Binds a session to the current peer when the response is complete.
    pub fn keep_session(&mut self, session: Session) {
        self.session = Some(Box::new(session));
    }

    /// The response is complete.
    pub fn completed(&mut self) {
        self.reached(Moment::LastByte);
        if let Some(session) = self.session.take() {
            session.keep(rt::now_ms());
        }
    }

    /// Tells how the current peer did, and lets it go; true if it is unavailable from now on.
    pub fn release(&mut self, outcome: Outcome) -> bool {
        let Some(peer) = self.current.take() else { return false };
        let disabled = self.group.with_peer(&peer, || self.judge(&peer, outcome));
        self.attempts += 1;
        self.tries = self.tries.saturating_sub(1);
        self.group.tell_queue();
        disabled
    }

    fn judge(&self, peer: &Peer, outcome: Outcome) -> bool {
        peer.end(self.began_ms);
        if let (Outcome::Good, Some(ms)) = (outcome, self.took_ms.get()) {
            peer.took(ms);
        }
        if !self.ranks.single {
            match outcome {
                Outcome::Good => peer.succeeded(rt::now_ms()),
                Outcome::Failed => return peer.failed(now_secs()),
                Outcome::Neutral => {}
            }
        }
        false
    }

    /// An idle connection to the current peer.
    pub fn take_idle(&self, cx: &mut Context<'_>, place: u32) -> Option<Box<Idle>> {
        self.group.pool.as_ref()?.take(cx, self.peer()?.id, place)
    }

    /// Keeps a connection to the current peer, if it may serve on.
    pub fn keep(&self, idle: Box<Idle>, place: u32) {
        if let (Some(pool), Some(peer)) = (&self.group.pool, self.peer()) {
            pool.put(idle, peer.id, place);
        }
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        if let Some(peer) = self.current.take() {
            self.group.with_peer(&peer, || peer.end(self.began_ms));
            self.group.tell_queue();
        }
        self.group.active.set(self.group.active.get().saturating_sub(1));
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
