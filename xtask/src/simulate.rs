//! The whole server under simulation: runs many seeds, in as many processes as there are processors.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask simulate [options]

Runs the whole server, its clients and its backends in one process under a simulated network and clock. All that
happens follows from a seed: the configuration, what is asked for, and what fails.

  --seeds N     how many seeds; a million if nothing else is said
  --from SEED   the first of them, 0 if nothing else is said
  --twice       runs each seed twice: both runs must take the same steps
  --seed SEED   runs this one, and prints its configuration, its error log, and the last steps
";

/// Runs the task; fails if a seed does.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--twice"], &["--seeds", "--from", "--seed"])?;
    if let Some(extra) = options.rest.first() {
        return Err(format!("{extra:?} is no option\n{HELP}"));
    }
    let program = tools::build(&["--profile", "quick", "--package", "simulate"])?;
    if options.value("--seed").is_some() {
        let seed: u64 = options.number("--seed", 0)?;
        let mut command = Command::new(program);
        command.args(["--seed", &seed.to_string()]);
        return tools::run(command);
    }
    seeds(&program, options.number("--from", 0)?, options.number("--seeds", 1_000_000)?, options.has("--twice"))
}

/// Runs so many seeds by this program, and prints how fast that was.
pub(crate) fn seeds(program: &Path, from: u64, count: u64, twice: bool) -> Outcome {
    let begun = Instant::now();
    let jobs = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share = count.div_ceil(jobs).max(1);
    let starts = (from..from + count).step_by(share as usize);
    let children: Vec<_> = starts
        .map(|start| {
            let mut command = Command::new(program);
            command.args(["--from", &start.to_string(), "--seeds", &share.min(from + count - start).to_string()]);
            command.args(twice.then_some("--twice"));
            command.spawn().map_err(|error| format!("{}: {error}", program.display()))
        })
        .collect();
    let mut failed = Ok(());
    for child in children {
        let ended = child.and_then(|mut child| child.wait().map_err(|error| error.to_string()));
        if !ended?.success() {
            failed = Err("seeds failed; cargo xtask simulate --seed SEED shows what happens".to_string());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("   {count} seeds from {from} on: {seconds:.0} s, {:.0} in a second", count as f64 / seconds);
    failed
}
