//! Runs the scenarios of `e2e::load` in their full length and prints what was lost, as a Markdown table.
//!
//! ```text
//! lossless [--only NAME[,NAME…]] [--times N] [PROGRAM…]
//! ```
//!
//! Without programs: Tidegate, and the system's nginx beside it. Ends with status 1 if Tidegate lost anything.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use e2e::load::scenarios::{FULL, by_name, migrate};
use e2e::load::{Program, Report, markdown};

fn main() -> ExitCode {
    let mut programs = Vec::new();
    let mut only: Vec<String> = Vec::new();
    let mut times = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = arguments.next().unwrap_or_default().split(',').map(str::to_string).collect(),
            "--times" => times = arguments.next().and_then(|n| n.parse().ok()),
            path => programs.push(Program::at(Path::new(path))),
        }
    }
    if programs.is_empty() {
        programs = [Program::ours()].into_iter().chain(Program::nginx()).collect();
    }
    let names: Vec<&str> = FULL.iter().map(|(name, ..)| *name).chain(["migrate"]).collect();
    if let Some(unknown) = only.iter().find(|n| !names.contains(&n.as_str())) {
        eprintln!("there is no scenario {unknown:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut reports = Vec::new();
    for name in names.iter().filter(|n| only.is_empty() || only.iter().any(|o| o == *n)) {
        if *name == "migrate" {
            if let [ours, nginx, ..] = &programs[..] {
                show(&mut reports, migrate(nginx, ours, times.unwrap_or(10)));
            }
            continue;
        }
        for program in &programs {
            if let Some(report) = by_name(name, program, times) {
                show(&mut reports, report);
            }
        }
    }
    println!("{}", markdown(&reports));
    // What nginx loses is for the table; what Tidegate loses, alone or as the one that replaces nginx, is a fault.
    let bad =
        reports.iter().any(|r| !r.good() && (!r.program.starts_with("nginx/") || r.scenario.contains(" and back")));
    ExitCode::from(u8::from(bad))
}

/// Tells on the error stream how it goes, for the whole takes many minutes.
fn show(reports: &mut Vec<Report>, report: Report) {
    eprintln!("{}", report.story());
    reports.push(report);
}
