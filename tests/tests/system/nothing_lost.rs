//! Nothing is lost: short versions of what `cargo xtask lossless` does at length.

use e2e::load::scenarios::{
    crowd, extra_listeners, kill_master, kill_workers, memory, migrate, reopen, storm, upgrades, wildcard,
    worker_counts,
};
use e2e::load::{Kind, Loss, Program, Report};
use e2e::tool;

/// All went as it should, and nothing was lost that need not be.
fn check(report: Report) -> Report {
    assert!(report.good(), "{}", report.story());
    report
}

/// The same where workers leave without successors of this program to hand connections to: then a client can
/// write just when its idle connection is closed, and nobody but the client can mend that.
fn check_beside_race(report: Report) {
    assert!(report.faults.is_empty() && report.totals.all().ok > 0, "{}", report.story());
    assert_eq!(report.lost_beside_race(), 0, "{}", report.story());
}

/// Every client was served, and no connection closed while it was idle: what is idle is handed over.
fn check_reload(report: Report) {
    let report = check(report);
    Kind::ALL.iter().for_each(|k| assert!(report.totals.of(*k).ok > 0, "{}: {}", k.name(), report.story()));
    assert_eq!(report.totals.all().closed_idle, 0, "{}", report.story());
}

/// Differs from nginx: both move to the new workers
#[test]
fn under_a_storm_of_reloads() {
    check_reload(storm(&Program::ours(), 40));
}

/// Differs from nginx: in an upgrade, too, old workers close idle connections
#[test]
fn under_upgrades_and_rollbacks() {
    check_reload(upgrades(&Program::ours(), 2));
}

#[test]
fn when_nginx_is_replaced_and_comes_back() {
    let Some(nginx) = tool(&["nginx"]) else { return };
    check_beside_race(migrate(&Program::at(&nginx), &Program::ours(), 1));
}

#[test]
fn when_logs_are_reopened() {
    check(reopen(&Program::ours(), 15));
}

#[test]
fn but_what_a_killed_worker_held() {
    let report = check(kill_workers(&Program::ours(), 6));
    assert_eq!(report.totals.all().of(Loss::Refused), 0, "{}", report.story());
}

/// Differs from nginx: the file of a unix socket that a crash has left
#[test]
fn while_the_master_is_dead() {
    let report = check(kill_master(&Program::ours(), 1));
    assert!(report.notes.iter().any(|n| n == "lost while the workers were orphans: 0"), "{}", report.story());
    assert!(report.notes.iter().any(|n| n.ends_with("kept it from starting 0 times")), "{}", report.story());
}

/// Differs from nginx: both move to the new workers
#[test]
fn when_the_number_of_workers_changes() {
    check_reload(worker_counts(&Program::ours(), 6, false));
    check_reload(worker_counts(&Program::ours(), 6, true));
}

/// Differs from nginx: `127.0.0.1:80` and `*:80` can't replace one another
#[test]
fn when_listeners_come_and_go() {
    check_reload(extra_listeners(&Program::ours(), 6));
    check_reload(wildcard(&Program::ours(), 4));
}

#[test]
fn of_the_masters_memory() {
    check(memory(&Program::ours(), 25));
}

/// Differs from nginx: both move to the new workers
#[test]
fn of_those_who_wait() {
    let report = check(crowd(&Program::ours(), 300, 30));
    assert_eq!((report.totals.all().ok, report.totals.all().closed_idle), (330, 0), "{}", report.story());
}
