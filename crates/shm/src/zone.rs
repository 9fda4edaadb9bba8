//! Zones: shared memory with a name, used under a lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use crate::lock::{FOR_EVER, Kernel, RawLock};
use crate::map::{self, Map};
use crate::mapping::Place;
use crate::{Mapping, Memory};

/// What was done about a zone whose user had died within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It was found to be whole.
    Whole,
    /// It wasn't, and is empty now.
    Emptied,
}

/// Who has a zone's lock and doesn't give it back: this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck(pub i32);

/// How often [`Zone::with_soon`] waits for 50 ms.
const SOON: u32 = 10;

/// A table in memory that processes share.
///
/// It is used under its lock ([`Zone::with`]). A process that is killed while it has the lock leaves the zone usable:
/// the next one to get the lock checks the table, and empties it if the check fails.
#[derive(Debug)]
pub struct Zone {
    name: Rc<str>,
    size: usize,
    mapping: Rc<Mapping>,
    /// What is mapped, as long as it may be handed on.
    file: RefCell<Option<Rc<OwnedFd>>>,
    state: Place<AtomicU32>,
    interrupted: Place<AtomicU32>,
    /// Whether this process has the lock.
    held: Cell<bool>,
    /// Told of recoveries.
    report: fn(&str, Recovery),
}

/// The lock's words have cache lines of their own.
const HEAD: usize = 128;

impl Zone {
    /// An empty zone, shared by the processes forked after it was made, and by those that get its [`Zone::file`]. An error
    /// of the kind `OutOfMemory` without a code of the system: the size is too small for a table.
    pub fn new(name: &str, size: usize, report: fn(&str, Recovery)) -> io::Result<Zone> {
        if size < HEAD {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let zone = Zone::of(name, size, os::memory::sealed_file(c"zone", size)?, report)?;
        let formatted = zone.locked(FOR_EVER, |memory| Map::format(memory, seed()).is_some());
        if formatted == Ok(true) { Ok(zone) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// The zone in a file that another process has made, with all that is in it; the format there has to be [`format()`]'s.
    /// An error of the kind `InvalidData`: the file isn't one of this size.
    pub fn adopt(name: &str, size: usize, file: OwnedFd, report: fn(&str, Recovery)) -> io::Result<Zone> {
        if size < HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Zone::of(name, size, file, report)
    }

    fn of(name: &str, size: usize, file: OwnedFd, report: fn(&str, Recovery)) -> io::Result<Zone> {
        let mapping = Mapping::of_file(file.as_fd(), size)?;
        Ok(Zone {
            name: name.into(),
            size,
            state: mapping.place(0),
            interrupted: mapping.place(64),
            mapping,
            file: RefCell::new(Some(Rc::new(file))),
            held: Cell::new(false),
            report,
        })
    }

    /// The file that is mapped, for another program to adopt; none after [`Zone::close_file`].
    pub fn file(&self) -> Option<Rc<OwnedFd>> {
        self.file.borrow().clone()
    }

    /// Closes the file in a process that won't hand it on; the zone stays.
    pub fn close_file(&self) {
        self.file.take();
    }

    /// Its name.
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// Its size in bytes, as asked for.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Uses the table under the lock. Don't wait in it, and don't use the same zone again.
    ///
    /// # Panics
    /// If the zone is used within its own use.
    pub fn with<R>(&self, f: impl FnOnce(&mut Map<'_>) -> R) -> R {
        match self.used(FOR_EVER, f) {
            Ok(result) => result,
            Err(Stuck(pid)) => unreachable!("{pid} has been waited for without end"),
        }
    }

    /// The same for who must not wait for long: an error if a process that is stopped has the lock.
    pub fn with_soon<R>(&self, f: impl FnOnce(&mut Map<'_>) -> R) -> Result<R, Stuck> {
        self.used(SOON, f)
    }

    fn used<R>(&self, patience: u32, f: impl FnOnce(&mut Map<'_>) -> R) -> Result<R, Stuck> {
        self.locked(patience, |mut memory| {
            let mut map = match Map::open(memory.again()) {
                Some(map) => map,
                // The format doesn't change, so a table that isn't there was destroyed.
                None => {
                    (self.report)(&self.name, Recovery::Emptied);
                    Map::format(memory, seed()).expect("a size that has once been enough is enough")
                }
            };
            f(&mut map)
        })
    }

    /// Frees the lock if the child `pid`, which has ended, had it; whether it had. Whoever uses the zone next checks it.
    pub fn release_dead(&self, pid: i32) -> bool {
        self.lock().release_dead(|identity| os::process::pid_of(identity) == pid)
    }

    /// Empties the table as after a crash that has left it damaged. For tests.
    pub fn tests_empty(&self) {
        let formatted = self.locked(FOR_EVER, |memory| Map::format(memory, seed()).is_some());
        assert!(formatted.is_ok_and(|formatted| formatted), "a size that has once been enough is enough");
    }

    /// Whether the table is as it has to be. For tests and the curious: it takes time.
    pub fn check(&self) -> bool {
        self.with(|map| map.check())
    }

    fn lock(&self) -> RawLock<'_, Kernel> {
        RawLock { state: &self.state, interrupted: &self.interrupted, system: Kernel }
    }

    fn locked<R>(&self, patience: u32, f: impl FnOnce(Memory<'_>) -> R) -> Result<R, Stuck> {
        assert!(!self.held.get(), "zone \"{}\" is used within its own use", self.name);
        let lock = self.lock();
        let Some(interrupted) = lock.lock(os::process::identity(), patience) else {
            return Err(Stuck(os::process::pid_of(lock.owner())));
        };
        self.held.set(true);
        let _held = Held(self);
        let mut memory = Memory::of_mapping(&self.mapping, HEAD);
        if interrupted {
            self.repair(memory.again());
        }
        Ok(f(memory))
    }

    fn repair(&self, mut memory: Memory<'_>) {
        let recovery = match Map::open(memory.again()).is_some_and(|map| map.check()) {
            true => Recovery::Whole,
            false => {
                Map::format(memory, seed());
                Recovery::Emptied
            }
        };
        self.lock().repaired();
        (self.report)(&self.name, recovery);
    }
}

/// The format of zones: two programs of which this is the same can use one zone. The hash of the table's keys is part of
/// it, which is the standard library's and may be another one in a later version.
pub fn format() -> u32 {
    map::hash(FORMAT, b"a key of more than two words")
}

/// Another one whenever the lock, its owners' identities, the allocator or the table change in memory.
const FORMAT: u64 = 1;

fn seed() -> u64 {
    u64::from_ne_bytes(os::random_bytes())
}

/// Gives the lock back, after a panic too: then the table may be half-changed.
struct Held<'a>(&'a Zone);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.lock().unlock(!std::thread::panicking());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(_: &str, _: Recovery) {}

    #[test]
    fn entries_are_shared() {
        let zone = Zone::new("one", 65536, ignore).expect("memory");
        zone.with(|map| map.insert(b"a", b"1")).expect("room");
        os::process::tests_fork(|| {
            zone.with(|map| map.insert(b"b", b"2")).expect("room");
        });
        let found = zone.with(|map| map.find(b"b").map(|node| map.value(node).to_vec()));
        assert_eq!(found.as_deref(), Some(&b"2"[..]));
        assert!(zone.check());
    }

    #[test]
    fn a_size_that_is_too_small() {
        for size in [0, 1, 127, 128, 4096] {
            let error = Zone::new("one", size, ignore).expect_err("too small");
            assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::OutOfMemory, None));
        }
    }

    #[test]
    fn adopted_with_all_that_is_in_it() {
        let zone = Zone::new("one", 65536, ignore).expect("memory");
        zone.with(|map| map.insert(b"a", b"1")).expect("room");
        let file = || zone.file().expect("not closed").try_clone().expect("a descriptor");
        let other = Zone::adopt("one", 65536, file(), ignore).expect("the same zone");
        other.with(|map| map.insert(b"b", b"2")).expect("room");
        assert!(zone.with(|map| map.find(b"b").is_some()) && other.with(|map| map.find(b"a").is_some()));
        for size in [0, 65535, 65537] {
            let error = Zone::adopt("one", size, file(), ignore).expect_err("another size");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let nothing = os::memory::sealed_file(c"test", 65536).expect("a file");
        let empty = Zone::adopt("one", 65536, nothing, ignore).expect("a zone without a table");
        assert!(empty.with(|map| map.is_empty()) && empty.check());
        zone.close_file();
        assert!(zone.file().is_none() && zone.with(|map| map.len()) == 2);
    }

    #[test]
    fn who_dies_in_another_mapping_is_found_too() {
        let zone = Zone::new("one", 65536, ignore).expect("memory");
        zone.with(|map| map.insert(b"a", b"1")).expect("room");
        let file = zone.file().expect("not closed").try_clone().expect("a descriptor");
        let other = Zone::adopt("one", 65536, file, ignore).expect("the same zone");
        os::process::tests_fork(|| {
            let _ = zone.locked(FOR_EVER, |mut memory| {
                memory.set_bytes(0, &[0x55; 1000]);
                os::process::exit_now(0);
            });
        });
        assert_eq!(other.with(|map| map.len()), 0, "its wait ends, and what was damaged is emptied");
        assert!(zone.check());
    }

    #[test]
    fn one_who_dies_within_leaves_it_usable() {
        for (by_master, broken) in [(true, false), (true, true), (false, false), (false, true)] {
            let zone = Zone::new("one", 65536, ignore).expect("memory");
            zone.with(|map| map.insert(b"a", b"1")).expect("room");
            let child = os::process::tests_fork(|| {
                let _ = zone.locked(FOR_EVER, |mut memory| {
                    if broken {
                        memory.set_bytes(0, &[0x55; 1000]);
                    }
                    os::process::exit_now(0);
                });
            });
            assert_eq!(by_master && zone.release_dead(child), by_master);
            assert!(!zone.release_dead(child - 1));
            assert_eq!(zone.with(|map| map.find(b"a").is_some()), !broken);
            assert!(zone.check());
        }
    }

    #[test]
    fn a_panic_within_leaves_it_usable() {
        let zone = Zone::new("one", 65536, ignore).expect("memory");
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = zone.locked(FOR_EVER, |mut memory| {
                memory.set_bytes(0, &[1; 64]);
                panic!("within");
            });
        }));
        assert!(broken.is_err() && zone.with(|map| map.is_empty()));
    }

    #[test]
    fn who_is_stopped_within_is_not_waited_for() {
        let zone = Zone::new("one", 65536, ignore).expect("memory");
        let (ready, told) = std::io::pipe().expect("a pipe");
        let child = os::process::tests_spawn(|| {
            zone.with(|_| {
                let _ = std::io::Write::write_all(&mut &told, b"x");
                os::process::kill(os::process::pid(), os::signal::SIGSTOP).expect("stopped");
            });
        });
        std::io::Read::read_exact(&mut &ready, &mut [0]).expect("it is within");
        let begin = std::time::Instant::now();
        assert_eq!(zone.with_soon(|_| ()), Err(Stuck(child)));
        assert!(begin.elapsed().as_millis() < 5000, "half a second is meant");
        os::process::kill(child, os::signal::SIGCONT).expect("it lives");
        assert_eq!(zone.with_soon(|map| map.len()), Ok(0), "it goes on");
        os::process::tests_wait(child);
    }

    #[test]
    #[should_panic(expected = "within its own use")]
    fn no_use_within_a_use() {
        let zone = Zone::new("one", 65536, ignore).expect("memory");
        zone.with(|_| zone.with(|_| ()));
    }
}
