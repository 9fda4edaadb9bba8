//! Tasks of the workspace: `cargo xtask TASK`.
#![forbid(unsafe_code)]

mod bench;
mod bench_cases;
mod bench_floor;
mod circles;
mod compare;
mod compat;
mod configurations;
mod crates;
mod dist;
mod docs;
mod fuzz;
mod growth;
mod growth_picture;
mod instructions;
mod instructions_cases;
mod instructions_client;
mod lossless;
mod measure;
mod nginx_tests;
mod simulate;
mod steps;
mod tap;
mod test;
mod tidy;
mod tiers;
mod tools;
mod tsv;

use std::process::ExitCode;

use tools::Outcome;

const HELP: &str = "\
usage: cargo xtask TASK [options]

  test [options]           format, lints, house checks, unit and end-to-end tests in their tiers
  bench [options]          CPU time per request against nginx, run by run
  instructions [options]   instructions and system calls of a request, counted by valgrind
  growth [options]         CPU time per request as connections and configuration grow, beside nginx
  lossless [options]       what is lost under reloads, upgrades and kills, beside nginx
  simulate [options]       the whole server under a simulated network, by seeds
  tidy [--write]           the house checks alone; --write lowers the ratchet
  crates [--list]          licences of crates of others, versions of one beside another
  dist [options]           the release: PGO, BOLT, Debian package, tar file
  docs [--check]           writes docs/directives from the program's own tables
  compat [--missing]       which directives, variables and options of nginx there are
  compat FOLDER            which configurations of a folder load, and what is missing in the others
  compare BINARY           the end-to-end tests against an nginx: what fails there is a decision
  nginx-tests DIR [names]  runs a checkout of nginx's public test suite
  fuzz TARGET [options]    fuzzes a parser

cargo xtask TASK --help tells more.
";

/// A task: its name, what `--help` prints of it, and what it does.
type Task = (&'static str, &'static str, fn(&[String]) -> Outcome);

const TASKS: [Task; 14] = [
    ("test", test::HELP, test::run),
    ("bench", bench::HELP, bench::run),
    ("instructions", instructions::HELP, instructions::run),
    ("growth", growth::HELP, growth::run),
    ("lossless", lossless::HELP, lossless::run),
    ("simulate", simulate::HELP, simulate::run),
    ("tidy", tidy::HELP, tidy::run),
    ("crates", crates::HELP, crates::run),
    ("dist", dist::HELP, dist::run),
    ("docs", docs::HELP, docs::run),
    ("compat", compat::HELP, compat::run),
    ("compare", compare::HELP, compare::run),
    ("nginx-tests", nginx_tests::HELP, nginx_tests::run),
    ("fuzz", fuzz::HELP, fuzz::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asks = |words: &[String]| words.iter().any(|word| word == "--help" || word == "-h");
    let Some((task, options)) = arguments.split_first() else {
        print!("{HELP}");
        return ExitCode::from(2);
    };
    if task == "help" || asks(std::slice::from_ref(task)) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let result = match TASKS.iter().find(|(name, ..)| name == task) {
        Some((_, help, _)) if asks(options) => {
            print!("{help}");
            Ok(())
        }
        Some((.., run)) => run(options),
        None => {
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
