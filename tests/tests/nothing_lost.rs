//! Nothing is lost: short versions of what `cargo xtask lossless` does at length.

use e2e::load::scenarios::{crowd, extra_listeners, kill_master, kill_workers, memory, reloads, reopen, worker_counts};
use e2e::load::{Kind, Loss, Program, Report};

/// Nothing went wrong, and nothing was lost but in the race of a client that writes on a connection that is being closed.
fn check(report: Report) -> Report {
    assert!(report.faults.is_empty(), "{}", report.story());
    assert!(report.lost_beside_race() <= report.allowed && report.totals.all().ok > 0, "{}", report.story());
    report
}

#[test]
fn under_reloads() {
    let report = check(reloads(&Program::ours(), 10));
    Kind::ALL.iter().for_each(|k| assert!(report.totals.of(*k).ok > 0, "{}: {}", k.name(), report.story()));
}

#[test]
fn when_logs_are_reopened() {
    let report = check(reopen(&Program::ours(), 15));
    assert!(report.good(), "{}", report.story());
}

#[test]
fn but_what_a_killed_worker_held() {
    let report = check(kill_workers(&Program::ours(), 6));
    assert!(report.good(), "{}", report.story());
    assert_eq!(report.totals.all().of(Loss::Refused), 0, "{}", report.story());
}

#[test]
fn while_the_master_is_dead() {
    let report = check(kill_master(&Program::ours(), 1));
    assert!(report.good(), "{}", report.story());
    assert!(report.notes.iter().any(|n| n == "lost while the workers were orphans: 0"), "{}", report.story());
    assert!(report.notes.iter().any(|n| n.ends_with("kept it from starting 0 times")), "{}", report.story());
}

#[test]
fn when_the_number_of_workers_changes() {
    check(worker_counts(&Program::ours(), 8, false));
}

#[test]
fn when_a_listener_comes_and_goes() {
    check(extra_listeners(&Program::ours(), 6));
}

#[test]
fn of_the_masters_memory() {
    check(memory(&Program::ours(), 25));
}

#[test]
fn of_those_who_wait() {
    let report = check(crowd(&Program::ours(), 300, 40));
    assert_eq!(report.totals.of(Kind::WebSocket).ok, 40, "{}", report.story());
}
