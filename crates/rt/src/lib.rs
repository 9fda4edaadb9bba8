//! The event loop: a single-threaded executor, timers, a cached clock, drivers, connections, file threads.
//!
//! A process has one [`Runtime`]. Everything else in this crate finds it through the thread: [`spawn`], [`sleep`],
//! [`Stream::connect`] and so on work inside [`Runtime::block_on`] and after [`Runtime::new`], and panic elsewhere.
//!
//! One turn of the loop: poll the tasks that were woken, wait in the kernel, read the clocks, poll the tasks whose
//! descriptors have something (straight from the list of events), then those whose deadline is over. A future may be
//! dropped at any point: what the kernel still uses belongs to the driver.
//!
//! Futures of this crate register the *task* that polls them, not the waker they are given. So a combinator has to poll
//! them inside the task's own poll, as `select` and `join` do, and must not judge by a waker of its own which of its
//! parts to poll.

mod clock;
mod connect;
mod core;
mod detach;
mod driver;
mod fd;
pub mod inspect;
mod layer;
mod listener;
mod peer;
mod random;
mod reused;
mod send;
pub mod sim;
mod slots;
mod stream;
mod sync;
mod tasks;
mod threads;
mod timers;
mod udp;

pub use clock::Wall;
pub use connect::{ConnectError, ConnectOptions};
pub use core::{Counts, Driver, Hook, MAX_CONNECTIONS, Options, Report, Runtime};
pub use detach::{Detached, make_room};
pub use fd::{AsyncFd, Signals};
pub use layer::{DetachedLayer, Layer};
pub use listener::{AcceptLock, AcceptOptions, Listener, set_accept_mutex};
pub use os::datagram::Transmit;
pub use peer::{Peer, unless_gone};
pub use reused::Reused;
pub use stream::{Recv, Sending, Silent, Stream, Tried, is_closing};
pub use sync::{Event, Gate, Pass, Queue, YieldNow, join, yield_now};
pub use threads::{Haste, QueueFull, ThreadPool};
pub use timers::{Sleep, sleep, sleep_until, timeout};
pub use udp::{Datagram, UdpOptions, UdpSocket};

use std::future::Future;

/// Starts a task. A panic inside it is caught and reported ([`Report::Panic`]), and the task dropped.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    core::current().tasks.spawn(Box::pin(future));
}

/// As [`spawn`], but the task has its first turn at once, inside of the running one's: what can be done without waiting is
/// done when this returns, and its memory is used again by the next task.
pub fn spawn_now(future: impl Future<Output = ()> + 'static) {
    core::current().tasks.spawn_now(Box::pin(future));
}

/// 16 bytes that nobody can foresee. Under the simulated network they follow from its seed, so that a run can be repeated.
pub fn random_bytes() -> [u8; 16] {
    match core::try_current() {
        Some(core) if core.is_sim => core.sim(|sim| sim.chance.bytes()),
        Some(core) => core.random.borrow_mut().take(),
        None => os::random_bytes(),
    }
}

/// The next serial number of connections, for what is one but has no socket of its own.
pub fn next_number() -> u64 {
    core::current().next_number()
}

/// Milliseconds of the monotonic clock, as read once in this turn of the loop.
pub fn now_ms() -> u64 {
    core::current().clock.now()
}

/// The number of this turn of the loop: what tasks ask about the outside world in one turn, they may share.
pub fn turn() -> u64 {
    core::current().turn_number()
}

/// The time of day, as read once in this turn of the loop.
pub fn wall() -> Wall {
    core::current().clock.wall()
}

/// Reads the clocks again, after work that took long.
pub fn update_clock() {
    let core = core::current();
    core.clock.update();
}

/// Asks every idle connection to close: its `recv` fails with an error that [`is_closing`] knows.
pub fn close_idle() {
    core::current().close_idle();
}

/// Asks some of the connections to close whose peers say nothing or are idle, the oldest first: their descriptors are
/// needed.
pub fn close_oldest() {
    core::current().close_oldest();
}

/// Ends every connection that was accepted: its `recv` fails as with [`close_idle`], its `send` too, and its peer seems
/// gone. Connections that were made from here end with the tasks that hold them; what receives by a datagram socket that was
/// connected fails too.
pub fn close_accepted() {
    core::current().close_accepted();
}

/// Polls all tasks that wait for a connection, as if each had something: for news that concern them all.
pub fn wake_connections() {
    core::current().wake_connections();
}

/// Whether the kernel offers what the driver needs.
pub fn supports(driver: Driver) -> std::io::Result<()> {
    match driver {
        Driver::Uring => os::uring::probe(),
        _ => Ok(()),
    }
}

/// How many connections there are.
pub fn connections() -> Counts {
    core::current().counts()
}
