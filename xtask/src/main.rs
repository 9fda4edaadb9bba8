//! Tasks of the workspace: `cargo xtask TASK`.
#![forbid(unsafe_code)]

mod bench;
mod bench_cases;
mod compare;
mod compat;
mod docs;
mod lossless;
mod measure;
mod nginx_tests;
mod tap;
mod test;
mod tidy;
mod tools;
mod tsv;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask TASK [options]

  test [--fast]            format, lints, house checks, unit and end-to-end tests, once per event method
  bench [options]          CPU time per request against nginx, run by run (bench --help)
  lossless [options]       what is lost under reloads, upgrades and kills, beside nginx (lossless --help)
  tidy [--write]           the house checks alone; --write lowers the ratchet
  docs [--check]           writes docs/directives from the program's own tables
  compat [--missing]       which directives, variables and options of nginx there are
  compare BINARY           the end-to-end tests against an nginx: what fails there is a decision (compare --help)
  nginx-tests DIR [names]  runs a checkout of nginx's public test suite (nginx-tests --help)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, options)) = arguments.split_first() else {
        print!("{HELP}");
        return ExitCode::from(2);
    };
    let result = match task.as_str() {
        "test" => test::run(options),
        "bench" => bench::run(options),
        "tidy" => tidy::run(options),
        "docs" => docs::run(options),
        "compat" => compat::run(options),
        "compare" => compare::run(options),
        "lossless" => lossless::run(options),
        "nginx-tests" => nginx_tests::run(options),
        _ => {
            print!("{HELP}");
            Err(format!("there is no task {task:?}"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {task}: {why}");
            ExitCode::FAILURE
        }
    }
}
