//! What is lost while a server is reloaded, replaced or killed: runs the load driver of the end-to-end tests at length.

use std::process::Command;

use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask lossless [options]

Keeps connections of many kinds busy, checks every byte of every answer, and prints a table of what was lost while the
server was reloaded, replaced by another program, killed, and given other listeners. Takes half an hour.

  --binary PATH      a program to test instead of Tidegate and the system's nginx; may be given again
  --only NAME,NAME   only these scenarios (a wrong name lists them)
  --times N          so often instead of at full length
";

/// Runs the task; fails if Tidegate lost what it need not lose.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &[], &["--binary", "--only", "--times"])?;
    if let Some(extra) = options.rest.first() {
        return Err(format!("{extra:?} is no option\n{HELP}"));
    }
    let programs: Vec<&str> = options.values("--binary").collect();
    let server = if programs.is_empty() { Some(tools::server()?) } else { None };
    let mut command = Command::new(tools::build(&["--package", "e2e", "--bin", "lossless"])?);
    command.args(programs).envs(server.map(|path| ("TIDEGATE_BINARY", path)));
    for name in ["--only", "--times"] {
        command.args(options.value(name).into_iter().flat_map(|value| [name, value]));
    }
    tools::run(command)
}
