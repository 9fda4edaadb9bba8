//! The master's table of the processes it has started: what each is, how far it has come, and its channel.
//!
//! A place in the table is a slot; workers know one another by slot and process id, since either alone is used again.
//! What is to be said of a newcomer or of a dead process waits in an outbox while a channel is full: workers must learn
//! of it some time, but the master must not wait for any of them.
//!
//! During an upgrade there is another master, whose workers the own ones learn of too, by way of [`crate::handover::link`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use crate::channel::{Channel, Message, SMALL};
use crate::handover::link::{FOREIGN, Foreign, Link};
use crate::personality::personality;

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A worker with this number, counted from 0.
    Worker(usize),
    /// Keeps caches below their limits.
    CacheManager,
    /// Fills caches from disk, once.
    CacheLoader,
    /// The master of another program file, during an upgrade: *detached*, it looks after itself.
    NewBinary,
}

impl Kind {
    /// The name in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Worker(_) => "worker process",
            Kind::CacheManager => "cache manager process",
            Kind::CacheLoader => "cache loader process",
            Kind::NewBinary => "new binary process",
        }
    }

    /// Whether one that has died is replaced.
    pub(crate) fn respawns(self) -> bool {
        matches!(self, Kind::Worker(_) | Kind::CacheManager)
    }
}

/// How far a child has come. One that has exited is in the table no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has been forked.
    JustSpawned,
    /// It has said that it works.
    Working,
    /// It was told to end.
    Exiting,
}

/// A process that runs, or whose end the master hasn't heard of yet.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// What it is for.
    pub kind: Kind,
    /// Counts cycles: those of an older one have been, or are to be, told to quit.
    pub generation: u64,
    /// How far it has come.
    pub state: State,
    /// Whether it has said that it works, whatever it was told later.
    pub ready: bool,
    /// The master's end of its channel; a detached child has none.
    channel: Option<Channel>,
    /// Whether it has closed its end.
    deaf: bool,
    /// What it has yet to be told of others.
    outbox: VecDeque<News>,
}

/// Something about another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The worker in this slot with this process id is new.
    Came(usize, i32),
    /// It is gone.
    Went(usize, i32),
}

impl Child {
    /// A child just forked.
    pub fn new(pid: i32, kind: Kind, generation: u64, channel: Option<Channel>) -> Child {
        let (state, outbox) = (State::JustSpawned, VecDeque::new());
        Child { pid, kind, generation, state, ready: false, channel, deaf: false, outbox }
    }

    /// Whether it was told to end.
    pub(crate) fn exiting(&self) -> bool {
        self.state == State::Exiting
    }

    /// Sends a command; an error if it can't be told that way and needs a signal.
    pub fn command(&self, message: &Message) -> io::Result<()> {
        let channel = self.channel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        channel.send(message, &[])
    }

    /// What the master waits for: its word that it works, and room for news.
    pub(crate) fn interest(&self) -> Option<(RawFd, bool, bool)> {
        let channel = self.channel.as_ref().filter(|_| !self.deaf)?;
        let (hear, tell) = (!self.ready, !self.outbox.is_empty());
        (hear || tell).then(|| (channel.as_fd().as_raw_fd(), hear, tell))
    }

    /// Hears whether it works by now. An error: it said something else.
    pub fn listen(&mut self) -> io::Result<()> {
        let Some(channel) = self.channel.as_ref().filter(|_| !self.ready && !self.deaf) else { return Ok(()) };
        match channel.recv(&mut [0; SMALL]).map(|received| received.message) {
            Ok(Message::Ready) => {
                self.ready = true;
                if self.state == State::JustSpawned {
                    self.state = State::Working;
                }
                Ok(())
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            Err(_) => {
                self.deaf = true;
                Ok(())
            }
        }
    }
}

/// All children, by slot.
#[derive(Debug, Default)]
pub struct ProcessTable {
    slots: Vec<Option<Child>>,
    /// Another master, and its workers.
    link: Option<Link>,
    /// Workers of another master that has ended before them.
    orphans: Vec<u32>,
}

impl ProcessTable {
    /// Whether another child has a place.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < MAX_PROCESSES || self.slots.iter().any(Option::is_none)
    }

    /// The slot of the next child.
    pub(crate) fn next_slot(&self) -> usize {
        self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len())
    }

    /// Takes a child in, and lets the workers know of it if it is one of them.
    pub fn insert(&mut self, child: Child) {
        let slot = self.next_slot();
        if let Kind::Worker(_) = child.kind {
            self.spread(News::Came(slot, child.pid));
        }
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(child),
            None => self.slots.push(Some(child)),
        }
        self.deliver();
    }

    /// A child has ended: gives it back, its channel closed, and lets the workers know.
    pub fn remove(&mut self, pid: i32) -> Option<Child> {
        let slot = self.slots.iter().position(|child| child.as_ref().is_some_and(|child| child.pid == pid))?;
        let mut child = self.slots[slot].take()?;
        child.channel = None;
        if let Kind::Worker(_) = child.kind {
            self.spread(News::Went(slot, pid));
        }
        self.deliver();
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        Some(child)
    }

    /// There is another master at the other end of this channel: it is told of the workers, and they of its own.
    pub fn join(&mut self, other: Channel) {
        self.part();
        let worker = |(slot, child): (usize, &Option<Child>)| {
            let worker = child.as_ref().filter(|child| matches!(child.kind, Kind::Worker(_)))?;
            Some(News::Came(slot, worker.pid))
        };
        let workers = self.slots.iter().enumerate().filter_map(worker).collect();
        self.link = Some(Link::new(other, workers));
        self.deliver();
    }

    /// There is no other master any more: its workers are nobody's peers from now on.
    pub fn part(&mut self) {
        for Foreign { slot, pid, .. } in self.link.take().map_or_else(Vec::new, Link::into_workers) {
            self.orphans.push(os::process::identity_of(pid));
            self.tell_workers(News::Went(slot, pid));
        }
        self.deliver();
    }

    /// The identities of workers of another master that was killed, each told of once: nobody else learns of their end.
    pub(crate) fn take_orphans(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.orphans)
    }

    /// Hears which workers the other master has, if there is one, and passes it on.
    pub fn hear(&mut self) {
        let Some(link) = &mut self.link else { return };
        let (news, stands) = link.hear();
        news.into_iter().for_each(|news| self.tell_workers(news));
        match stands {
            true => self.deliver(),
            false => self.part(),
        }
    }

    /// Where the other master is heard, and whether there is news that its channel has no room for.
    pub(crate) fn link_interest(&self) -> Option<(RawFd, bool)> {
        self.link.as_ref().map(Link::interest)
    }

    /// The children.
    pub fn iter(&self) -> impl Iterator<Item = &Child> {
        self.slots.iter().flatten()
    }

    /// The children.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.slots.iter_mut().flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// In a child just forked: its peers. All else that the master knows is dropped.
    pub(crate) fn into_peers(self) -> crate::handover::peers::Peers {
        let mut peers = crate::handover::peers::Peers::new();
        for (slot, child) in self.slots.into_iter().enumerate() {
            if let Some(Child { pid, kind: Kind::Worker(_), generation, channel: Some(channel), .. }) = child {
                peers.open(slot as u16, pid, generation, channel);
            }
        }
        for Foreign { slot, pid, generation, channel } in self.link.map_or_else(Vec::new, Link::into_workers) {
            peers.open(slot as u16, pid, generation, channel);
        }
        peers
    }

    /// Passes news on to those whose channels have room by now.
    pub fn deliver(&mut self) {
        for at in 0..self.slots.len() {
            let Some(mut outbox) = self.slots[at].as_mut().map(|child| std::mem::take(&mut child.outbox)) else {
                continue;
            };
            self.empty(&mut outbox, self.slots[at].as_ref().and_then(|child| child.channel.as_ref()));
            if let Some(child) = &mut self.slots[at] {
                child.outbox = outbox;
            }
        }
        let Some(mut outbox) = self.link.as_mut().map(|link| std::mem::take(&mut link.outbox)) else { return };
        self.empty(&mut outbox, self.link.as_ref().map(|link| &link.channel));
        if let Some(link) = &mut self.link {
            link.outbox = outbox;
        }
    }

    /// Tells over a channel, if there is one, as much as it has room for.
    fn empty(&self, outbox: &mut VecDeque<News>, to: Option<&Channel>) {
        while let Some(news) = outbox.front()
            && to.is_none_or(|to| self.told(to, *news))
        {
            outbox.pop_front();
        }
    }

    /// Says something over a channel. False: it is full. Who is gone, or whose news is out of date, needs no telling.
    fn told(&self, to: &Channel, news: News) -> bool {
        let sent = match news {
            News::Went(slot, pid) => to.send(&Message::CloseChannel { slot: slot as u16, pid }, &[]),
            News::Came(slot, pid) => {
                let Some((generation, channel)) = self.worker(slot, pid) else { return true };
                let message = Message::OpenChannel { slot: slot as u16, pid, generation };
                to.send(&message, &[channel.as_fd()])
            }
        };
        !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The generation and the channel of a worker, the own ones' or the other master's, that is still there.
    fn worker(&self, slot: usize, pid: i32) -> Option<(u64, &Channel)> {
        if slot >= FOREIGN {
            let worker = self.link.as_ref()?.worker(slot, pid)?;
            return Some((worker.generation, &worker.channel));
        }
        let child = self.slots.get(slot)?.as_ref().filter(|child| child.pid == pid)?;
        Some((child.generation, child.channel.as_ref()?))
    }

    /// Puts news of an own worker into the outboxes of all who are to know.
    fn spread(&mut self, news: News) {
        self.link.iter_mut().for_each(|link| note(&mut link.outbox, news));
        self.tell_workers(news);
    }

    /// Puts news into the outboxes of all workers.
    fn tell_workers(&mut self, news: News) {
        let workers = self.iter_mut().filter(|child| matches!(child.kind, Kind::Worker(_)));
        workers.for_each(|child| note(&mut child.outbox, news));
    }
}

/// Puts news into an outbox. Who came and went before anybody heard of it needs no mention: so the outbox of a process
/// that is stopped holds no more than there are processes, and were when it stopped.
fn note(outbox: &mut VecDeque<News>, news: News) {
    let unheard = match news {
        News::Went(slot, pid) => outbox.iter().position(|other| *other == News::Came(slot, pid)),
        News::Came(..) => None,
    };
    match unheard {
        Some(at) => drop(outbox.remove(at)),
        None => outbox.push_back(news),
    }
}

/// The title of a process of this kind: `nginx: worker process`.
pub fn title(kind: Kind) -> String {
    format!("{}: {}", personality().name, kind.name())
}

/// How many children a master may have, as in nginx.
pub(crate) const MAX_PROCESSES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pid: i32) -> (Child, Channel) {
        let (ours, theirs) = Channel::pair().expect("a pair");
        (Child::new(pid, Kind::Worker(0), 7, Some(ours)), theirs)
    }

    fn heard(channel: &Channel) -> Vec<Message> {
        std::iter::from_fn(|| channel.recv(&mut [0; SMALL]).ok()).map(|received| received.message).collect()
    }

    #[test]
    fn workers_hear_of_one_another() {
        let mut table = ProcessTable::default();
        let (a, a_end) = worker(10);
        table.insert(a);
        let (b, b_end) = worker(11);
        table.insert(b);
        table.insert(Child::new(12, Kind::NewBinary, 7, None));
        assert_eq!(heard(&a_end), [Message::OpenChannel { slot: 1, pid: 11, generation: 7 }]);
        assert!(heard(&b_end).is_empty(), "what it was born with it isn't told");
        assert_eq!(table.remove(10).map(|child| child.pid), Some(10));
        assert_eq!(heard(&b_end), [Message::CloseChannel { slot: 0, pid: 10 }]);
        assert!(table.remove(10).is_none() && table.next_slot() == 0 && !table.is_empty());
        let (c, _c_end) = worker(13);
        table.insert(c);
        assert_eq!(heard(&b_end), [Message::OpenChannel { slot: 0, pid: 13, generation: 7 }]);
        let pids: Vec<_> = table.into_peers().iter().map(|peer| (peer.slot, peer.pid)).collect();
        assert_eq!(pids, [(0, 13), (1, 11)]);
    }

    #[test]
    fn news_wait_for_room() {
        let mut table = ProcessTable::default();
        let (a, a_end) = worker(1);
        table.insert(a);
        let full = |table: &ProcessTable| table.iter().next().is_some_and(|a| a.command(&Message::Reopen).is_err());
        while !full(&table) {}
        let (mut ends, pids) = (Vec::new(), 2..32);
        for pid in pids.clone() {
            let (child, end) = worker(pid);
            table.insert(child);
            ends.push(end);
        }
        table.remove(31);
        assert!(table.iter().next().and_then(Child::interest).is_some_and(|(_, hear, tell)| hear && tell));
        let mut messages = Vec::new();
        for _ in pids.clone() {
            messages.extend(heard(&a_end).into_iter().filter(|message| *message != Message::Reopen));
            table.deliver();
        }
        assert_eq!(messages.len(), pids.len() - 1, "who came and went unheard isn't reported");
        assert_eq!(messages.last(), Some(&Message::OpenChannel { slot: 29, pid: 30, generation: 7 }));
    }

    #[test]
    fn who_is_stopped_is_not_remembered_everything_for() {
        let mut table = ProcessTable::default();
        let (a, _a_end) = worker(1);
        table.insert(a);
        for pid in 2..3000 {
            let (child, _end) = worker(pid);
            table.insert(child);
            table.remove(pid);
        }
        let waiting = table.iter().next().map(|child| child.outbox.len());
        assert!(waiting.is_some_and(|waiting| waiting < 600), "{waiting:?}");
    }

    #[test]
    fn workers_of_two_masters_know_one_another() {
        let (mut old, mut new) = (ProcessTable::default(), ProcessTable::default());
        let (ours, theirs) = Channel::pair().expect("a pair");
        let (a, a_end) = worker(10);
        old.insert(a);
        old.join(ours);
        new.join(theirs);
        new.hear();
        let (b, b_end) = worker(20);
        new.insert(b);
        assert!(heard(&b_end).is_empty(), "what it was born with it isn't told");
        old.hear();
        let slot = FOREIGN as u16;
        assert_eq!(heard(&a_end), [Message::OpenChannel { slot, pid: 20, generation: 7 }]);
        let (c, _c_end) = worker(11);
        old.insert(c);
        old.remove(10);
        new.hear();
        let came = Message::OpenChannel { slot: slot + 1, pid: 11, generation: 7 };
        assert_eq!(heard(&b_end), [came, Message::CloseChannel { slot, pid: 10 }]);
        assert_eq!(new.link_interest().map(|(_, tell)| tell), Some(false));
        drop(old);
        new.hear();
        assert_eq!(heard(&b_end), [Message::CloseChannel { slot: slot + 1, pid: 11 }], "the other master is gone");
        assert!(new.link_interest().is_none());
        new.part();
    }

    #[test]
    fn the_newborn_inherit_foreign_peers_too() {
        let (mut old, mut new) = (ProcessTable::default(), ProcessTable::default());
        let (ours, theirs) = Channel::pair().expect("a pair");
        let ((a, _a_end), (b, _b_end)) = (worker(10), worker(20));
        old.insert(a);
        old.join(ours);
        new.insert(b);
        new.join(theirs);
        [&mut old, &mut new].into_iter().for_each(ProcessTable::hear);
        let pids = |table: ProcessTable| table.into_peers().iter().map(|p| (p.pid, p.is_foreign())).collect::<Vec<_>>();
        assert_eq!(pids(old), [(10, false), (20, true)]);
        assert_eq!(pids(new), [(20, false), (10, true)]);
    }

    #[test]
    fn states() {
        let (mut child, end) = worker(1);
        child.listen().expect("nothing yet");
        assert_eq!((child.state, child.ready), (State::JustSpawned, false));
        end.send(&Message::Quit, &[]).expect("room");
        assert!(child.listen().is_err(), "not a child's word");
        end.send(&Message::Ready, &[]).expect("room");
        child.listen().expect("ready");
        assert_eq!((child.state, child.ready, child.interest()), (State::Working, true, None));
        let (mut child, end) = worker(1);
        drop(end);
        child.listen().expect("the end is no error");
        assert_eq!((child.ready, child.interest()), (false, None), "who died before isn't ready, nor waited for");
        assert!(child.command(&Message::Quit).is_err());
    }

    #[test]
    fn is_bounded() {
        let mut table = ProcessTable::default();
        for pid in 0..MAX_PROCESSES as i32 {
            assert!(table.has_room());
            table.insert(Child::new(pid + 1, Kind::NewBinary, 0, None));
        }
        assert!(!table.has_room());
        table.remove(500);
        assert!(table.has_room() && table.next_slot() == 499);
    }
}
