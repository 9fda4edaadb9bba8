//! The simulated network: for tests of the real server without sockets, in virtual time.
//!
//! A runtime made with [`crate::Driver::Sim`] has it. Time stands still while anything can run, and jumps to what
//! happens next when nothing can. Delays, short reads and short writes follow from the seed, so that a run can be
//! repeated. [`crate::Stream::connect`] reaches the listeners of [`listen`]; other descriptors and signals don't exist.

use os::SockAddr;

use crate::core;
use crate::{Listener, Stream};

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
    /// How many bytes may be under way or unread in one direction.
    pub window: usize,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { latency_ms: (0, 3), short_reads: 300, short_writes: 300, resets: 0, window: 64 << 10 }
    }
}

/// Changes what goes wrong from now on.
pub fn set_faults(faults: Faults) {
    core::current().sim(|sim| sim.faults = faults);
}

/// A listener at this address.
pub fn listen(addr: SockAddr) -> Listener {
    Listener::open_sim(addr)
}

/// Cuts the cable: nothing that either side sends arrives any more, and nobody is told.
pub fn cut(stream: &Stream) {
    let core = core::current();
    core.sim(|sim| sim.cut(stream.slot()));
}
