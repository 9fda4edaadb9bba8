//! One slot for each open descriptor: what is known about it, who waits for it, its deadlines.

use std::os::fd::{AsRawFd, OwnedFd};

use buf::Chain;

use crate::tasks::NONE;
use crate::timers::Tick;

/// What is known of a descriptor, as bits. Those that a driver reports have epoll's values.
pub(crate) mod flag {
    use os::epoll;

    /// Reading may yield something.
    pub(crate) const READABLE: u16 = epoll::IN as u16;
    /// Writing may take something.
    pub(crate) const WRITABLE: u16 = epoll::OUT as u16;
    /// The peer has closed its side.
    pub(crate) const RDHUP: u16 = epoll::RDHUP as u16;
    /// Both sides are closed.
    pub(crate) const HUP: u16 = epoll::HUP as u16;
    /// An error waits.
    pub(crate) const ERR: u16 = epoll::ERR as u16;
    /// Idle: asked to close when its place is needed, or when the server stops.
    pub(crate) const IDLE: u16 = 32;
    /// Told to give its place up.
    pub(crate) const EVICTED: u16 = 64;
    /// In the queue of those with more to write at once.
    pub(crate) const FLUSHING: u16 = 128;
    /// A listening socket, or one for datagrams: nobody's end is waited for.
    pub(crate) const LISTENER: u16 = 256;
    /// Counts as a connection.
    pub(crate) const COUNTED: u16 = 512;
    /// Came from a listener; or a connected datagram socket, which may be for what did.
    pub(crate) const ACCEPTED: u16 = 1024;
    /// Ended by [`crate::close_accepted`] or [`crate::UdpSocket::stop`].
    pub(crate) const ENDED: u16 = 2048;
    /// Memory waits for the file behind it, to fill its last packet.
    pub(crate) const NOPUSH: u16 = 4096;
    /// Not registered with the driver: accepted, and so far nothing had to be waited for.
    pub(crate) const UNWATCHED: u16 = 2;
    /// Its peer has said nothing yet: asked to close when its place is needed, but not when the server stops.
    pub(crate) const SILENT: u16 = 16384;
    /// No other process has the socket: closing it ends the driver's watch.
    pub(crate) const OWN: u16 = 32768;
    /// Asked to close when its place is needed.
    pub(crate) const REUSABLE: u16 = IDLE | SILENT;
    /// What a connection that isn't coming back shows.
    pub(crate) const GONE: u16 = RDHUP | HUP | ERR;
    /// The bits that a driver reports.
    pub(crate) const EVENTS: u16 = READABLE | WRITABLE | GONE;
    /// The others; no bit stands for two things.
    const OTHERS: [u16; 11] =
        [IDLE, EVICTED, FLUSHING, LISTENER, COUNTED, ACCEPTED, ENDED, NOPUSH, UNWATCHED, SILENT, OWN];

    const _: () = {
        let (mut taken, mut n) = (EVENTS, 0);
        assert!(EVENTS.count_ones() == 5);
        while n < OTHERS.len() {
            assert!(OTHERS[n].is_power_of_two() && taken & OTHERS[n] == 0);
            taken |= OTHERS[n];
            n += 1;
        }
    };
}

/// One descriptor.
pub(crate) struct Slot {
    pub(crate) fd: Option<OwnedFd>,
    /// The task that waits to read.
    pub(crate) recv_task: u32,
    /// The task that waits for its bytes to be written, or for the connection to be made.
    pub(crate) send_task: u32,
    /// The task that waits for the peer to go.
    pub(crate) hang_task: u32,
    pub(crate) flags: u16,
    /// What the driver notes for itself.
    pub(crate) driver: u16,
    /// How often it was passed on ([`crate::Stream::count_pass`]).
    pub(crate) passes: u8,
    /// TCP_NODELAY is to be set before the second write.
    pub(crate) nodelay: bool,
    pub(crate) recv_deadline: Tick,
    pub(crate) send_deadline: Tick,
    /// When its key in the heap comes up.
    pub(crate) armed: Tick,
    /// Milliseconds that may pass between two successful writes; 0: any number.
    pub(crate) send_timeout: u32,
    /// Orders reusable connections: the smaller, the longer idle or silent. Milliseconds of the loop's clock, and below
    /// them a number that keeps those of one millisecond apart.
    idle_since: u64,
    pub(crate) queues: Option<Box<Queues>>,
    pub(crate) number: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What a connection holds only while it has something to hold.
#[derive(Default)]
pub(crate) struct Queues {
    /// Accepted for sending, not yet with the kernel.
    pub(crate) out: Chain,
    /// Why sending ended.
    pub(crate) error: Option<std::io::Error>,
    /// Received, not yet read.
    pub(crate) input: std::collections::VecDeque<buf::Buf>,
    /// Why receiving ended, or 0 for the peer's end.
    pub(crate) input_end: Option<i32>,
    /// Given back by the reader, to be read again first.
    pub(crate) unread: Option<buf::Buf>,
}

impl Queues {
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty()
            && self.error.is_none()
            && self.input.is_empty()
            && self.input_end.is_none()
            && self.unread.is_none()
    }
}

impl Slot {
    fn new(fd: Option<OwnedFd>, flags: u16, number: u64) -> Slot {
        Slot {
            fd,
            recv_task: NONE,
            send_task: NONE,
            hang_task: NONE,
            flags,
            driver: 0,
            passes: 0,
            nodelay: false,
            recv_deadline: Tick::NONE,
            send_deadline: Tick::NONE,
            armed: Tick::NONE,
            send_timeout: 0,
            idle_since: 0,
            queues: None,
            number,
            sent: 0,
            received: 0,
        }
    }

    pub(crate) fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// To be called before each write.
    pub(crate) fn before_write(&mut self) {
        if self.nodelay && self.sent > 0 {
            self.set_nodelay();
        }
    }

    /// Tells the kernel of TCP_NODELAY, if that is yet to be done.
    #[cold]
    pub(crate) fn set_nodelay(&mut self) {
        if let Some(fd) = self.fd.as_ref().filter(|_| std::mem::take(&mut self.nodelay)) {
            let _ = os::socket::set_nodelay(fd.as_raw_fd(), true);
        }
    }

    /// The queues, made if there are none.
    pub(crate) fn queues(&mut self) -> &mut Queues {
        self.queues.get_or_insert_default()
    }

    /// Frees the queues' memory once they are empty.
    pub(crate) fn tidy(&mut self) {
        if self.queues.as_ref().is_some_and(|q| q.is_empty()) {
            self.queues = None;
        }
    }
}

/// All slots. Idle ones are only marked, since that happens twice per request; they are looked for when room is needed.
pub(crate) struct Slots {
    rows: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Freed while events may still name them; free from the next turn on.
    freed: Vec<u32>,
    /// The last `idle_since` that was given out.
    last_idle: u64,
    /// How many are reusable.
    pub(crate) idle: usize,
    /// How many count as connections.
    pub(crate) counted: usize,
    /// How many were told to close and haven't yet.
    pub(crate) evicted: usize,
}

impl Slots {
    /// Room for `capacity` slots is reserved, but touched only as they are used.
    pub(crate) fn new(capacity: usize) -> Slots {
        Slots {
            rows: Vec::with_capacity(capacity.min(1 << 20)),
            free: Vec::new(),
            freed: Vec::new(),
            last_idle: 0,
            idle: 0,
            counted: 0,
            evicted: 0,
        }
    }

    pub(crate) fn insert(&mut self, fd: Option<OwnedFd>, flags: u16, number: u64) -> u32 {
        self.counted += usize::from(flags & flag::COUNTED != 0);
        let slot = Some(Slot::new(fd, flags, number));
        match self.free.pop() {
            Some(n) => {
                self.rows[n as usize] = slot;
                n
            }
            None => {
                self.rows.push(slot);
                (self.rows.len() - 1) as u32
            }
        }
    }

    /// A slot that is known to be open: its handle exists.
    pub(crate) fn at(&mut self, n: u32) -> &mut Slot {
        self.rows[n as usize].as_mut().expect("a handle's slot is open")
    }

    pub(crate) fn get(&self, n: u32) -> Option<&Slot> {
        self.rows.get(n as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, n: u32) -> Option<&mut Slot> {
        self.rows.get_mut(n as usize)?.as_mut()
    }

    /// Removes a slot; its descriptor, and when its key in the heap comes up. Its number is free from the next turn on,
    /// unless `hold` keeps it until [`Slots::release`].
    pub(crate) fn remove(&mut self, n: u32, hold: bool) -> Option<(Option<OwnedFd>, Tick)> {
        self.set_busy(n);
        let row = self.rows.get_mut(n as usize)?;
        let slot = row.as_mut()?;
        self.counted -= usize::from(slot.has(flag::COUNTED));
        self.evicted -= usize::from(slot.has(flag::EVICTED));
        let left = (slot.fd.take(), slot.armed);
        *row = None;
        if !hold {
            self.freed.push(n);
        }
        Some(left)
    }

    /// Lets a held number be used again.
    pub(crate) fn release(&mut self, n: u32) {
        self.freed.push(n);
    }

    /// No event of an earlier turn is left: freed numbers may be used again.
    pub(crate) fn next_turn(&mut self) {
        if !self.freed.is_empty() {
            self.free.append(&mut self.freed);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.rows.iter().enumerate().filter_map(|(n, slot)| Some((n as u32, slot.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.rows.iter_mut().flatten()
    }

    /// Marks a slot as [`flag::IDLE`] or [`flag::SILENT`] from now on, and gives it back.
    pub(crate) fn set_reusable(&mut self, n: u32, mark: u16, now_ms: u64) -> &mut Slot {
        let slot = self.rows[n as usize].as_mut().expect("a handle's slot is open");
        if !slot.has(mark) {
            self.idle += usize::from(!slot.has(flag::REUSABLE));
            self.last_idle = (self.last_idle + 1).max(now_ms << SINCE_SHIFT);
            slot.flags = slot.flags & !flag::REUSABLE | mark;
            slot.idle_since = self.last_idle;
        }
        slot
    }

    /// Takes the mark away, if it is there, and gives the slot back. Who was asked to give the place up, and got a request first,
    /// needs it again.
    pub(crate) fn set_busy(&mut self, n: u32) -> Option<&mut Slot> {
        let slot = self.rows.get_mut(n as usize)?.as_mut()?;
        let (reusable, evicted) = (slot.has(flag::REUSABLE), slot.has(flag::EVICTED));
        slot.flags &= !(flag::REUSABLE | flag::EVICTED);
        self.idle -= usize::from(reusable);
        self.evicted -= usize::from(evicted);
        Some(slot)
    }

    /// Tells all idle slots to give their places up; the tasks to wake.
    pub(crate) fn evict_idle(&mut self) -> Vec<u32> {
        let idle = self.iter().filter(|(_, slot)| slot.has(flag::IDLE)).map(|(n, slot)| (slot.idle_since, n)).collect();
        self.evict(idle)
    }

    /// Tells reusable slots, `count` at most, to give their places up: first those that should have said something by
    /// now, then the longest idle; the tasks to wake.
    pub(crate) fn evict_oldest(&mut self, count: usize, now_ms: u64) -> Vec<u32> {
        let recent = now_ms.saturating_sub(SILENCE_MS) << SINCE_SHIFT;
        let rank = |slot: &Slot| (!slot.has(flag::SILENT) || slot.idle_since > recent, slot.idle_since);
        let reusable = self.iter().filter(|(_, slot)| slot.has(flag::REUSABLE));
        let mut ranked: Vec<_> = reusable.map(|(n, slot)| (rank(slot), n)).collect();
        if count < ranked.len() {
            ranked.select_nth_unstable(count);
            ranked.truncate(count);
        }
        self.evict(ranked)
    }

    fn evict(&mut self, mut ranked: Vec<(impl Ord, u32)>) -> Vec<u32> {
        ranked.sort_unstable();
        let tasks = ranked.into_iter().flat_map(|(_, n)| self.evict_one(n)).collect::<Vec<_>>();
        tasks.into_iter().filter(|task| *task != NONE).collect()
    }

    /// Of a connection to a backend, which is kept for later requests, the wait for its end is what is woken.
    fn evict_one(&mut self, n: u32) -> [u32; 2] {
        self.set_busy(n);
        let slot = self.at(n);
        slot.flags |= flag::EVICTED;
        let tasks = [&mut slot.recv_task, &mut slot.hang_task].map(|task| std::mem::replace(task, NONE));
        self.evicted += 1;
        tasks
    }
}

/// Beside how many bits of numbers the milliseconds stand.
const SINCE_SHIFT: u32 = 20;
/// How long a client may be under way with its first bytes before it counts as one that says nothing.
const SILENCE_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stay_small() {
        assert!(std::mem::size_of::<Option<Slot>>() <= 88, "{}", std::mem::size_of::<Option<Slot>>());
    }

    #[test]
    fn the_oldest_idle_goes_first() {
        let mut slots = Slots::new(4);
        let ids: Vec<u32> = (0..4).map(|n| slots.insert(None, flag::COUNTED, n)).collect();
        ids.iter().for_each(|n| {
            slots.set_reusable(*n, flag::IDLE, 0);
            slots.at(*n).recv_task = 10 + *n;
        });
        slots.set_busy(ids[0]);
        slots.remove(ids[2], false);
        slots.set_reusable(ids[0], flag::IDLE, 0);
        assert_eq!((slots.idle, slots.counted), (3, 3));
        assert_eq!(slots.evict_oldest(1, 0), [10 + ids[1]]);
        assert!(slots.at(ids[1]).has(flag::EVICTED) && !slots.at(ids[0]).has(flag::EVICTED));
        assert_eq!(slots.evict_idle(), [10 + ids[3], 10 + ids[0]]);
        assert_eq!((slots.evict_idle().len(), slots.idle, slots.evicted), (0, 0, 3));
        slots.set_busy(ids[0]);
        assert!(!slots.at(ids[0]).has(flag::EVICTED), "it got a request first");
        assert_eq!(slots.evicted, 2);
    }

    #[test]
    fn the_silent_go_before_the_idle() {
        let mut slots = Slots::new(5);
        let marks =
            [(flag::IDLE, 100), (flag::SILENT, 200), (flag::IDLE, 300), (flag::SILENT, 900), (flag::SILENT, 1300)];
        for (n, (mark, now)) in marks.into_iter().enumerate() {
            let id = slots.insert(None, flag::COUNTED, n as u64);
            slots.set_reusable(id, mark, now);
            slots.at(id).recv_task = n as u32;
        }
        assert_eq!(slots.idle, 5);
        // At 2000 two have been silent for more than a second; the third may be under way, and is in line with the idle.
        assert_eq!(slots.evict_oldest(4, 2000), [1, 3, 0, 2]);
        let late = slots.insert(None, flag::COUNTED, 9);
        slots.set_reusable(late, flag::IDLE, 2000);
        slots.at(late).hang_task = 7;
        assert_eq!(slots.evict_idle(), [7], "a stop leaves the silent alone");
        assert_eq!(slots.idle, 1);
        slots.set_reusable(4, flag::IDLE, 2000);
        assert_eq!((slots.idle, slots.evict_idle().len()), (1, 1), "it has spoken, and is idle");
    }

    #[test]
    fn numbers_are_reused_a_turn_later() {
        let mut slots = Slots::new(2);
        let a = slots.insert(None, 0, 1);
        slots.remove(a, false);
        assert_ne!(slots.insert(None, 0, 2), a);
        slots.next_turn();
        assert_eq!(slots.insert(None, 0, 3), a);
    }
}
