//! Everything that must hold before a change goes in: format, lints, house checks, unit tests, end-to-end tests.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::tools::{self, Options, Outcome, cargo};

/// Debian packages of the programs that tests meet: a file that shows it is there, and its package.
const NEEDS: [(&str, &str); 13] = [
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/python3", "python3"),
    ("/usr/lib/python3/dist-packages/aiohttp/__init__.py", "python3-aiohttp"),
    ("/usr/lib/python3/dist-packages/h2/__init__.py", "python3-h2"),
    ("/usr/bin/h2load", "nghttp2-client"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/gzip", "gzip"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/certbot", "certbot"),
    ("/usr/lib/python3/dist-packages/certbot_nginx/__init__.py", "python3-certbot-nginx"),
    ("/usr/bin/pebble", "pebble"),
    ("/usr/share/doc/php-fpm", "php-fpm"),
];

/// Event methods under which the end-to-end tests run, besides the default.
const METHODS: [&str; 4] = ["epoll", "poll", "select", "io_uring"];

/// End-to-end test files that don't depend on the event method: they run once.
const ONCE: [&str; 5] = ["sites", "map", "attacks", "front_door", "certbot"];

/// Tests that ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// What `--help` prints.
pub const HELP: &str = "\
usage: cargo xtask test [--fast]

All that must hold before a change goes in: format, lints, house checks, unit and property tests, a release build, the
manual, and the end-to-end tests, once more for each event method. The last line counts what passed and failed.

  --fast   leaves out the event methods and the models of the zones' lock

As root on a system with apt-get it first installs what is missing of the programs that the tests meet: curl, chromium,
python3 with aiohttp and h2, h2load, openssl, gzip, util-linux, certbot with its plugin for nginx, pebble, and
php-fpm. With
TIDEGATE_SKIP_MISSING=1 tests that miss one are left out.
";

/// Runs the task. Its last line is the number of tests that passed and failed; steps count as one test each.
pub fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--fast"], &[])?;
    let begun = Instant::now();
    install();
    let mut count = Count::default();
    count.add(step("format", || tools::run(cargo(["fmt", "--all", "--check"]))));
    count.add(step("lints", || {
        tools::run(cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    }));
    count.add(step("tidy", || crate::tidy::run(&[])));
    count.add(tests("unit and property tests", &["--workspace", "--exclude", "e2e"], None));
    if has_nextest() {
        // nextest leaves out the examples in documentation.
        count.add(listen_to("examples in documentation", cargo(["test", "--doc", "--workspace", "--no-fail-fast"])));
    }
    if !options.has("--fast") {
        count.add(step("models of the zones' lock", models));
    }
    let build = step("release build", || tools::server().map(|_| ()));
    count.add(build);
    if build.failed == 0 {
        count.add(step("docs", || crate::docs::run(&["--check".to_string()])));
        count.add(step("compat", || crate::compat::run(&[])));
        count.add(step("a program that panics when asked to", hooks));
        count.add(tests("end-to-end tests", &["-p", "e2e"], None));
        let files = end_to_end_files()?;
        let files: Vec<&str> = files.iter().flat_map(|f| ["--test", f]).collect();
        for method in METHODS.iter().filter(|_| !options.has("--fast")) {
            let arguments = [&["-p", "e2e"], files.as_slice()].concat();
            count.add(tests(&format!("end-to-end tests, use {method}"), &arguments, Some(method)));
        }
    }
    println!("in {} s", begun.elapsed().as_secs());
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed == 0 { Ok(()) } else { Err(format!("{} failed", count.failed)) }
}

/// Builds what `tests/tests/panic.rs` tests, so that no test waits for a compiler.
fn hooks() -> Outcome {
    let mut command = cargo(["build", "--quiet", "-p", "tidegate", "--features", "test-hooks", "--target-dir"]);
    command.arg(tools::target()?.join("test-hooks"));
    tools::run(command)
}

/// Every order in which a few processes can come together over the zones' lock: the tests by loom, which needs its own
/// build of them.
fn models() -> Outcome {
    let mut command = cargo(["test", "--quiet", "-p", "shm", "--lib", "models"]);
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", tools::target()?.join("loom"));
    tools::run(command)
}

/// Installs what is missing, where that is possible; tests that miss a program say so themselves.
pub fn install() {
    let missing: Vec<_> = NEEDS.iter().filter(|(f, _)| !std::path::Path::new(f).exists()).map(|(_, p)| *p).collect();
    if missing.is_empty() || tools::find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        return;
    }
    println!("== installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    };
    let install = [&["install", "-y", "-qq", "--no-install-recommends"], missing.as_slice()].concat();
    if !(apt(&install) || apt(&["update", "-qq"]) && apt(&install)) {
        println!("not all of them could be installed");
    }
}

fn step(title: &str, action: impl FnOnce() -> Outcome) -> Count {
    println!("== {title}");
    let begun = Instant::now();
    match action() {
        Ok(()) => {
            println!("   {title}: good, {:.0} s", begun.elapsed().as_secs_f64());
            Count { passed: 1, failed: 0 }
        }
        Err(why) => {
            println!("   {title}: {why}");
            Count { passed: 0, failed: 1 }
        }
    }
}

/// Runs tests by nextest where it is installed, else by cargo itself, and counts them.
fn tests(title: &str, arguments: &[&str], method: Option<&str>) -> Count {
    let mut command = tests_command(&["--status-level", "fail"]);
    command.args(arguments).envs(method.map(|m| ("TIDEGATE_USE", m)));
    listen_to(title, command)
}

/// A command that runs tests: nextest with these options, or cargo itself.
pub fn tests_command(nextest: &[&str]) -> Command {
    if has_nextest() {
        cargo([&["nextest", "run", "--no-fail-fast", "--no-tests", "pass"], nextest].concat())
    } else {
        cargo(["test", "--no-fail-fast"])
    }
}

fn has_nextest() -> bool {
    tools::find("cargo-nextest").is_some() || tools::find_in_cargo_home("cargo-nextest")
}

/// Runs a test command as a step, and counts its tests.
fn listen_to(title: &str, command: Command) -> Count {
    println!("== {title}");
    let begun = Instant::now();
    let mut count = Count::default();
    let good = listen(command, |line| {
        if let Some(found) = summary(line) {
            count.add(found);
        } else if !is_noise(line) {
            println!("{line}");
        }
    });
    println!("   {title}: {} passed, {} failed, {:.0} s", count.passed, count.failed, begun.elapsed().as_secs_f64());
    // What doesn't compile, or dies, fails even if no test says so.
    Count { failed: count.failed.max(u64::from(!good)), ..count }
}

/// Runs a command, and passes on each line that it prints; whether it ended well.
pub fn listen(mut command: Command, mut each: impl FnMut(&str)) -> bool {
    command.env("CARGO_TERM_COLOR", "never");
    // Both streams through one pipe, in their order.
    let Ok((reader, writer)) = std::io::pipe() else { return false };
    let Ok(copy) = writer.try_clone() else { return false };
    let child = command.stdin(Stdio::null()).stdout(writer).stderr(copy).spawn();
    // The command holds the pipe's writing ends; without it the pipe closes when the child ends.
    drop(command);
    let Ok(mut child) = child else { return false };
    BufReader::new(reader).lines().map_while(Result::ok).for_each(|line| each(&line));
    child.wait().is_ok_and(|s| s.success())
}

/// The counts in a closing line of cargo test or of nextest.
fn summary(line: &str) -> Option<Count> {
    let line = line.trim();
    let rest = line.strip_prefix("test result: ").or_else(|| line.strip_prefix("Summary ["))?;
    let number = |word: &[&str]| {
        let words: Vec<&str> = rest.split([' ', ',', ';', '.', ':']).filter(|w| !w.is_empty()).collect();
        let at = words.windows(word.len()).position(|w| w[1..] == word[1..])?;
        words.get(at)?.parse::<u64>().ok()
    };
    Some(Count {
        passed: number(&["", "passed"]).unwrap_or(0),
        failed: number(&["", "failed"]).unwrap_or(0) + number(&["", "timed", "out"]).unwrap_or(0),
    })
}

fn is_noise(line: &str) -> bool {
    let line = line.trim();
    line.is_empty()
        || line.starts_with("test ") && line.ends_with(" ok")
        || line.starts_with("running ")
        || line.starts_with("Compiling ")
        || line.starts_with("Running ")
        || line.starts_with("Finished ")
        || line.starts_with("Doc-tests ")
        || line.starts_with("Nextest run ")
        || line.starts_with("Starting ")
        || line.starts_with("────")
}

/// The end-to-end test files that run once per event method.
fn end_to_end_files() -> Outcome<Vec<String>> {
    let folder = tools::root().join("tests/tests");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let names = entries.flatten().filter_map(|e| e.file_name().to_str()?.strip_suffix(".rs").map(str::to_string));
    Ok(names.filter(|n| !ONCE.contains(&n.as_str())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let cases = [
            ("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out", Some((5, 0))),
            ("test result: FAILED. 5 passed; 2 failed; 0 ignored", Some((5, 2))),
            ("     Summary [   4.157s] 15 tests run: 14 passed, 1 failed, 0 skipped", Some((14, 1))),
            ("     Summary [   4.157s] 15/27 tests run: 14 passed (1 slow), 1 timed out, 0 skipped", Some((14, 1))),
            ("test a ... ok", None),
        ];
        for (line, expect) in cases {
            let found = summary(line).map(|c| (c.passed, c.failed));
            assert_eq!(found, expect, "{line}");
        }
    }
}
