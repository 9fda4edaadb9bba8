//! Fuzzing by cargo-fuzz, with the stable toolchain of the workspace.

use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask fuzz TARGET [--seconds N] [--longest N]

Fuzzes a target of the folder fuzz, with debug assertions, checks of overflows and AddressSanitizer. It needs cargo-fuzz
(cargo install cargo-fuzz) and a C++ compiler. What it finds is in fuzz/artifacts. `cargo test -p tidegate-fuzz` replays
the corpora, and needs neither.

  --seconds N   how long (default 60)
  --longest N   bytes of the longest input (default 1024)
";

/// The release profile, built faster and with all checks. `RUSTC_BOOTSTRAP` allows the instrumentation on a stable
/// compiler.
const SETTINGS: [(&str, &str); 5] = [
    ("RUSTC_BOOTSTRAP", "1"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
];

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &[], &["--seconds", "--longest"])?;
    let [target] = options.rest.as_slice() else {
        print!("{HELP}");
        return Err("it needs one TARGET".to_string());
    };
    if !tools::root().join("fuzz/fuzz_targets").join(format!("{target}.rs")).is_file() {
        return Err(format!("no target is called {target}: see fuzz/fuzz_targets"));
    }
    let (seconds, longest) = (options.number("--seconds", 60)?, options.number("--longest", 1024)?);
    let mut command = tools::cargo(["fuzz", "run", "--release", "--codegen-units", "16", target, "--"]);
    command.args([format!("-max_total_time={seconds}"), format!("-max_len={longest}")]).envs(SETTINGS);
    tools::run(command)
}
