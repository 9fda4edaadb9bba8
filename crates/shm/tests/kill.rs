//! Processes hammer a zone and are killed at random; the others go on, and the zone is always whole again.
//!
//! For `TIDEGATE_KILL_SECS` seconds, 5 if that isn't set. A program of its own (no test harness), as only a process with
//! one thread forks safely.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use os::process::{Exit, Fork};
use shm::{Counters, Map, Names, Recovery, Zone};

const WORKERS: usize = 4;
/// How long nothing at all may happen, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    static COUNTERS: RefCell<Option<Counters>> = const { RefCell::new(None) };
}

fn main() {
    // What test runners ask of a program without the usual harness.
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("processes_are_killed: test");
        }
        return;
    }
    let secs = std::env::var("TIDEGATE_KILL_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(5);
    let counters =
        Counters::new(Names { totals: &["operations", "whole", "emptied"], gauges: &[] }).expect("a mapping");
    COUNTERS.set(Some(counters.clone()));
    let zone = Zone::new("hammered", 128 * 1024, |_, recovery| {
        count(if recovery == Recovery::Whole { "whole" } else { "emptied" });
    })
    .expect("a mapping");
    let kills = kill_and_replace(&zone, &counters, Duration::from_secs(secs));
    assert!(zone.check(), "the zone is whole at the end");
    let figures: Vec<_> = counters.iter().map(|(name, n)| format!("{n} {name}")).collect();
    println!("{kills} kills in {secs} s: {}", figures.join(", "));
}

fn count(name: &str) {
    COUNTERS.with_borrow(|counters| counters.as_ref().map(|counters| counters.get(name).add(1)));
}

fn kill_and_replace(zone: &Zone, counters: &Counters, time: Duration) -> u64 {
    let mut random = Random(os::process::pid() as u32 | 1);
    let mut workers: Vec<i32> = (0..WORKERS).map(|n| start(zone, n as u32 + 1)).collect();
    let (end, operations) = (Instant::now() + time, counters.get("operations"));
    let (mut kills, mut seen, mut progress) = (0, 0, Instant::now());
    while Instant::now() < end {
        std::thread::sleep(Duration::from_micros(random.below(3000).into()));
        let at = random.below(WORKERS as u32) as usize;
        let pid = workers[at];
        os::process::kill(pid, os::signal::SIGKILL).expect("it runs");
        await_end(pid);
        kills += 1;
        // A master tells of the death; without one the others find out.
        if random.below(2) == 0 {
            zone.release_dead(pid);
        }
        workers[at] = start(zone, random.below(u32::MAX) | 1);
        if operations.load() != seen {
            (seen, progress) = (operations.load(), Instant::now());
        }
        assert!(progress.elapsed() < PATIENCE, "the workers are stuck");
    }
    for pid in workers {
        os::process::kill(pid, os::signal::SIGKILL).expect("it runs");
        await_end(pid);
    }
    kills
}

fn await_end(pid: i32) {
    let start = Instant::now();
    loop {
        match os::process::wait_any().expect("there are children") {
            Some((ended, Exit::Signal(os::signal::SIGKILL, _))) if ended == pid => return,
            Some((ended, exit)) => panic!("worker {ended} ended by itself: {exit:?}"),
            None => std::thread::yield_now(),
        }
        assert!(start.elapsed() < PATIENCE, "a killed process ends");
    }
}

fn start(zone: &Zone, seed: u32) -> i32 {
    match os::process::fork().expect("a fork") {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            let mut random = Random(seed);
            let work = std::panic::AssertUnwindSafe(|| {
                loop {
                    let several = 1 + random.below(20);
                    zone.with(|map| (0..several).for_each(|_| operate(map, &mut random)));
                    count("operations");
                }
            });
            let _: Result<(), _> = std::panic::catch_unwind(work);
            os::process::exit_now(1);
        }
    }
}

/// One operation. Values follow from keys, so that one that was only half written would be seen.
fn operate(map: &mut Map<'_>, random: &mut Random) {
    let number = random.below(500);
    let key = number.to_ne_bytes().repeat(1 + number as usize % 7);
    let value = key.repeat(number as usize % 40);
    match map.find(&key) {
        None => drop(map.insert_evicting(&key, &value, 100_000).expect("room was made")),
        Some(node) => {
            assert!(map.value(node) == value, "an entry is whole");
            match random.below(3) {
                0 => map.remove(node),
                1 => map.set_value(node, &value),
                _ => map.touch(node),
            }
        }
    }
}

/// xorshift32
struct Random(u32);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % n
    }
}
