//! Runs many seeds: `simulate [--from SEED] [--seeds N] [--twice] [--seed SEED]`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use simulate::{Ground, Report};

/// How many failures are told of before the runs end.
const MOST_FAILURES: usize = 10;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut from, mut count, mut one, mut twice) = (0, 10_000, None, false);
    while let Some(name) = arguments.next() {
        if name == "--twice" {
            twice = true;
            continue;
        }
        let number = arguments.next().and_then(|text| text.parse().ok());
        match (&*name, number) {
            ("--from", Some(number)) => from = number,
            ("--seeds", Some(number)) => count = number,
            ("--seed", Some(number)) => one = Some(number),
            _ => {
                eprintln!("usage: simulate [--from SEED] [--seeds N] [--twice] [--seed SEED]");
                return ExitCode::from(2);
            }
        }
    }
    let ground = match Ground::new() {
        Ok(ground) => ground,
        Err(error) => {
            eprintln!("simulate: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(seed) = one {
        let report = ground.run(seed);
        print_all(&report);
        return if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (begun, mut failures) = (Instant::now(), 0);
    let mut done: u64 = 0;
    for seed in from..from + count {
        let mut report = ground.run(seed);
        if twice && report.findings.is_empty() && ground.run(seed).digest != report.digest {
            report.findings.push("a second run took other steps".into());
        }
        done += 1;
        if !report.findings.is_empty() {
            failures += 1;
            print!("{report}");
            if failures == MOST_FAILURES {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{done} seeds, {failures} failed, {seconds:.1} s, {:.0} in a second", done as f64 / seconds);
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run, with all that is known of it.
fn print_all(report: &Report) {
    println!("{}\n", report.configuration);
    print!("{}", report.error_log);
    report.trace.iter().for_each(|line| println!("{line}"));
    println!("digest {:016x}", report.digest);
    print!("{report}");
}
