//! The simulated network: for tests of the real server without sockets, in virtual time.
//!
//! A runtime made with [`crate::Driver::Sim`] has it. Time stands still while anything can run, and jumps to what
//! happens next when nothing can. Delays, short reads and short writes follow from the seed, so that a run can be
//! repeated. [`crate::Stream::connect`] reaches the listeners of [`listen`]; other descriptors and signals don't exist.

use std::collections::VecDeque;

use os::SockAddr;

use crate::core;
use crate::{Listener, Stream, UdpSocket};

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The shortest and longest time that bytes are under way, in milliseconds.
    pub latency_ms: (u64, u64),
    /// Of 1000 reads, how many return less than there is.
    pub short_reads: u32,
    /// Of 1000 writes, how many take less than there is room for.
    pub short_writes: u32,
    /// Of 1000 writes, how many end in a reset of the connection.
    pub resets: u32,
    /// Of 1000 writes, how many cut the cable: nothing arrives any more in either direction, and nobody is told.
    pub cuts: u32,
    /// How many bytes may be under way or unread in one direction.
    pub window: usize,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { latency_ms: (0, 3), short_reads: 300, short_writes: 300, resets: 0, cuts: 0, window: 64 << 10 }
    }
}

/// What happens to datagrams, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramFaults {
    /// The shortest and longest time that one is under way, in milliseconds: later ones overtake earlier ones.
    pub latency_ms: (u64, u64),
    /// Of 1000, how many are lost.
    pub losses: u32,
    /// Of 1000, how many arrive twice.
    pub duplicates: u32,
    /// Of 1000 sends, how many have to wait for room.
    pub full_sends: u32,
    /// How many bytes may wait at a socket; what comes then is lost.
    pub queue: usize,
}

impl Default for DatagramFaults {
    fn default() -> DatagramFaults {
        DatagramFaults { latency_ms: (0, 3), losses: 0, duplicates: 0, full_sends: 100, queue: 200 << 10 }
    }
}

/// Changes what happens to datagrams from now on.
pub fn set_datagram_faults(faults: DatagramFaults) {
    core::current().sim(|sim| sim.datagrams.faults = faults);
}

/// Changes what goes wrong from now on.
pub fn set_faults(faults: Faults) {
    core::current().sim(|sim| sim.faults = faults);
}

/// A listener at this address. It takes the place of one that is there already, with who waits at it.
pub fn listen(addr: SockAddr) -> Listener {
    Listener::open_sim(addr)
}

/// A socket for datagrams at this address. Several at one address share out those who send to it, as with SO_REUSEPORT.
pub fn bind(addr: SockAddr) -> UdpSocket {
    UdpSocket::open_sim(addr, None)
}

/// Cuts the cable: nothing that either side sends arrives any more, and nobody is told.
pub fn cut(stream: &Stream) {
    let core = core::current();
    core.sim(|sim| sim.cut(stream.slot()));
}

/// Lets this address be silent: whoever connects to it hears nothing.
pub fn silence(addr: SockAddr) {
    core::current().sim(|sim| sim.silent.insert(addr));
}

/// What has happened in the network: a number that depends on every step and the length of everything sent and received,
/// and the last [`KEPT`] steps in words.
pub fn trace() -> (u64, Vec<String>) {
    core::current().sim(|sim| (sim.trace.digest, sim.trace.last.iter().map(Step::text).collect()))
}

/// How many steps [`trace`] tells of.
pub const KEPT: usize = 100;

/// The steps of the network.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    digest: u64,
    last: VecDeque<Step>,
}

#[derive(Debug)]
struct Step {
    now: u64,
    what: &'static str,
    end: u64,
    len: u64,
}

impl Trace {
    pub(crate) fn note(&mut self, now: u64, what: &'static str, end: u64, len: u64) {
        for word in [now, what.len() as u64, end, len] {
            self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Step { now, what, end, len });
    }
}

impl Step {
    fn text(&self) -> String {
        let Step { now, what, end, len } = self;
        format!("{now} end {end} {what} {len}")
    }
}
