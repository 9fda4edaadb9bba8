//! Runs of the whole server: some seeds, the same seed twice, and what runs have found.

use std::sync::{Mutex, MutexGuard, PoisonError};

use simulate::ask::{Ask, How, Method, Place, Route};
use simulate::content::FILES;
use simulate::plan::{Client, Leaving, Plan, Speaks};
use simulate::{Ground, Report};

/// One run at a time: each counts the descriptors and mappings of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static RUNS: Mutex<()> = Mutex::new(());
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ground() -> Ground {
    Ground::new().expect("the folder for temporary files can be written")
}

fn is_good(report: &Report) {
    assert!(report.findings.is_empty(), "{report}\n{}", report.trace.join("\n"));
}

#[test]
fn what_must_hold_holds() {
    let _alone = alone();
    let ground = ground();
    let mut statuses = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let report = ground.run(seed);
        is_good(&report);
        statuses.extend(report.statuses.into_values());
    }
    // What isn't met isn't tested.
    let expected = [101, 200, 206, 302, 304, 404, 413, 500, 502, 503, 504];
    let missing: Vec<_> = expected.iter().filter(|status| !statuses.contains(*status)).collect();
    assert!(missing.is_empty(), "{missing:?} of {statuses:?}");
}

#[test]
fn a_seed_repeats_every_step() {
    let _alone = alone();
    let ground = ground();
    let digests = |seed| (ground.run(seed).digest, ground.run(seed).digest);
    let all: Vec<_> = (0..30).map(digests).collect();
    all.iter().for_each(|(first, second)| assert_eq!(first, second));
    let different: std::collections::BTreeSet<_> = all.iter().map(|(first, _)| first).collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn all_that_is_asked_for_comes_where_nothing_fails() {
    let _alone = alone();
    let backends = [How::Well, How::Chunked, How::ToTheEnd, How::Slowly, How::Interim, How::NotFound];
    let routes = [Route::Group, Route::Unbuffered, Route::Direct, Route::Secure];
    let mut places: Vec<Place> = (0..FILES.len()).flat_map(|n| [Place::File(n), Place::Rewritten(n)]).collect();
    places.extend(backends.iter().flat_map(|how| routes.map(|route| Place::Backend(route, *how, 20_000))));
    places.extend([Place::Text, Place::Moved, Place::Missing]);
    let ground = ground();
    for speaks in [Speaks::Http1, Speaks::Https1, Speaks::Http2, Speaks::Https2] {
        let places = places.clone();
        let report = ground.run_plan(1, move |_| {
            let asks = places.iter().zip(1..).map(|(place, id)| Ask::get(id, *place)).collect();
            Plan { calm: true, ..Plan::quiet(vec![Client::asking(speaks, asks)]) }
        });
        is_good(&report);
    }
}

/// Its connection was kept for ever once the send timeout was over.
#[test]
fn a_client_that_takes_no_more_loses_its_connection() {
    let _alone = alone();
    let ground = ground();
    for (speaks, seed) in [Speaks::Http1, Speaks::Https1, Speaks::Http2, Speaks::Https2].into_iter().zip(0..) {
        let report = ground.run_plan(seed, move |_| {
            let largest = Ask::get(1, Place::File(FILES.len() - 1));
            let client = Client { leaves: Some((60, Leaving::Cut)), ..Client::asking(speaks, vec![largest]) };
            let mut plan = Plan::quiet(vec![client]);
            plan.settings.timeout = 1000;
            plan.faults.window = 4096;
            plan.faults.latency_ms = (5, 5);
            plan
        });
        is_good(&report);
        assert!(report.error_log.contains("client timed out"), "{speaks:?}: {}", report.error_log);
    }
}

/// The client of HTTP/2 sent no more of its bodies once 100,000 bytes waited for the network, until something came.
#[test]
fn bodies_that_are_large_together_go_out_whole() {
    let _alone = alone();
    let ground = ground();
    for (speaks, seed) in [Speaks::Http2, Speaks::Https2].into_iter().zip(0..) {
        let report = ground.run_plan(seed, move |_| {
            let place = Place::Backend(Route::Unbuffered, How::Well, 300);
            let post = |id| Ask { method: Method::Post, body: Some(70_000), ..Ask::get(id, place) };
            let client = Client { depth: 3, ..Client::asking(speaks, (1..=3).map(post).collect()) };
            let mut plan = Plan { calm: true, ..Plan::quiet(vec![client]) };
            plan.faults.window = 4096;
            plan.settings.http2 = (8, 256);
            plan
        });
        is_good(&report);
    }
}
