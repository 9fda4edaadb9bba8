//! What tests ask of the loop: how many tasks there are, and whether each wait for a peer has an end.

use std::collections::HashSet;
use std::fmt;

use crate::core;
use crate::slots::{Slot, flag};
use crate::tasks::NONE;
use crate::timers::Tick;

/// A task that waits for a peer and has no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endless {
    /// The serial number of the connection.
    pub connection: u64,
    /// Whether it waits to receive; otherwise it waits to send.
    pub receives: bool,
}

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.receives { "receive" } else { "send" };
        write!(f, "a task waits without a deadline to {what} on connection {}", self.connection)
    }
}

/// How many tasks there are, the future given to `block_on` apart.
pub fn tasks() -> usize {
    core::current().tasks.live()
}

/// The tasks that wait for a peer and have no deadline, neither for that connection nor for anything else that they wait
/// for. Listeners are left out: they may wait for ever.
pub fn endless_waits() -> Vec<Endless> {
    let core = core::current();
    let slots = core.slots.borrow();
    let bounded: HashSet<u32> = {
        let timers = core.timers.borrow();
        let of_slot = |slot: &Slot| {
            let recv = if slot.recv_deadline.is_some() { slot.recv_task } else { NONE };
            let send = if slot.send_deadline.is_some() { slot.send_task } else { NONE };
            [recv, send]
        };
        timers.sleepers().chain(slots.iter().flat_map(|(_, slot)| of_slot(slot))).collect()
    };
    let ends = |task: u32| task == NONE || bounded.contains(&task) || !core.tasks.is_waiting(task);
    let connections = slots.iter().filter(|(_, slot)| slot.has(flag::COUNTED) && !slot.has(flag::LISTENER));
    connections
        .flat_map(|(_, slot)| [(slot.number, slot.recv_task, true), (slot.number, slot.send_task, false)])
        .filter(|(_, task, _)| !ends(*task))
        .map(|(connection, _, receives)| Endless { connection, receives })
        .collect()
}

/// The connections, listeners left out: a line each, with what is known of them and what waits for them.
pub fn connections() -> Vec<String> {
    let slots = core::current().slots.borrow();
    let connections = slots.iter().filter(|(_, slot)| slot.has(flag::COUNTED) && !slot.has(flag::LISTENER));
    connections.map(|(_, slot)| describe(slot)).collect()
}

fn describe(slot: &Slot) -> String {
    let origin = if slot.has(flag::ACCEPTED) { "accepted" } else { "made" };
    let marks = [(flag::IDLE, "idle"), (flag::SILENT, "silent"), (flag::RDHUP, "the peer has closed its side")];
    let marks = marks.into_iter().filter(|(bit, _)| slot.has(*bit)).map(|(_, text)| text);
    let waits = [
        (slot.recv_task, slot.recv_deadline, "receive"),
        (slot.send_task, slot.send_deadline, "send"),
        (slot.hang_task, Tick::NONE, "see its end"),
    ];
    let waits = waits.into_iter().filter(|(task, ..)| *task != NONE).map(|(task, deadline, what)| {
        let until = if deadline.is_some() { "with" } else { "without" };
        format!("task {task} waits to {what} {until} a deadline")
    });
    let facts: Vec<String> = marks.map(str::to_owned).chain(waits).collect();
    format!("connection {}, {origin}: {}", slot.number, facts.join(", "))
}
