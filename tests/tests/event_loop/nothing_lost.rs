//! Reloads under load: no request is lost, no idle connection closed.

use e2e::load::scenarios::reloads;
use e2e::load::{Kind, Program};

/// Differs from nginx: both move to the new workers
#[test]
fn under_reloads() {
    let report = reloads(&Program::ours(), 10);
    assert!(report.good(), "{}", report.story());
    Kind::ALL.iter().for_each(|k| assert!(report.totals.of(*k).ok > 0, "{}: {}", k.name(), report.story()));
    assert_eq!(report.totals.all().closed_idle, 0, "{}", report.story());
}
