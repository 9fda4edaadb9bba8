//! Steps of a long task: each is named, timed and counted, and the slowest are told at the end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::tools::Outcome;

/// Tests that ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    /// Those that passed.
    pub passed: u64,
    /// Those that didn't.
    pub failed: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// A step that has ended.
#[derive(Debug)]
struct Step {
    title: String,
    took: Duration,
}

/// A single test that nextest told the time of.
#[derive(Debug)]
struct Slow {
    name: String,
    step: String,
    seconds: f64,
}

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    begun: Instant,
    count: Count,
    steps: Vec<Step>,
    tests: Vec<Slow>,
}

/// How many of the slowest steps, and of the slowest tests, are told.
const SHOWN: usize = 12;

impl Steps {
    /// None yet.
    pub(crate) fn new() -> Steps {
        Steps { begun: Instant::now(), count: Count::default(), steps: Vec::new(), tests: Vec::new() }
    }

    /// Takes a step, which counts as one test. Whether it went well.
    pub(crate) fn step(&mut self, title: &str, action: impl FnOnce() -> Outcome) -> bool {
        println!("== {title}");
        let begun = Instant::now();
        let outcome = action();
        self.ended(title, begun.elapsed(), outcome)
    }

    /// Waits for what was begun beside the other steps. Whether it went well.
    pub(crate) fn join(&mut self, beside: Beside) -> bool {
        println!("== {}", beside.title);
        let (took, outcome) = beside.thread.join().unwrap_or((Duration::ZERO, Err("it panicked".to_string())));
        self.ended(&format!("{} (beside others)", beside.title), took, outcome)
    }

    fn ended(&mut self, title: &str, took: Duration, outcome: Outcome) -> bool {
        let good = outcome.is_ok();
        match outcome {
            Ok(()) => println!("   {title}: good, {:.0} s", took.as_secs_f64()),
            Err(why) => println!("   {title}: {why}, {:.0} s", took.as_secs_f64()),
        }
        self.count.add(Count { passed: u64::from(good), failed: u64::from(!good) });
        self.steps.push(Step { title: title.to_string(), took });
        good
    }

    /// Runs a command of nextest or of cargo test as a step, and counts its tests.
    pub(crate) fn tests(&mut self, title: &str, command: Command) {
        println!("== {title}");
        let begun = Instant::now();
        let mut count = Count::default();
        let good = listen(command, |line| {
            if let Some(found) = summary(line) {
                count.add(found);
            } else if let Some((name, seconds)) = passed(line) {
                self.tests.push(Slow { name, step: title.to_string(), seconds });
            } else if !is_noise(line) {
                println!("{line}");
            }
        });
        // What doesn't compile, or dies, fails even if no test says so.
        count.failed = count.failed.max(u64::from(!good));
        let took = begun.elapsed();
        println!("   {title}: {} passed, {} failed, {:.0} s", count.passed, count.failed, took.as_secs_f64());
        self.count.add(count);
        self.steps.push(Step { title: title.to_string(), took });
    }

    /// Tells what was slow, and how all of it went. The last line is the number of tests that passed and failed.
    pub(crate) fn end(mut self) -> Outcome {
        self.tests.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        if !self.tests.is_empty() {
            println!("slowest tests, in seconds:");
        }
        for Slow { name, step, seconds } in self.tests.iter().take(SHOWN) {
            println!("{seconds:8.1}  {name} ({step})");
        }
        self.steps.sort_by_key(|step| std::cmp::Reverse(step.took));
        println!("slowest steps, in seconds:");
        for Step { title, took } in self.steps.iter().take(SHOWN) {
            println!("{:8.1}  {title}", took.as_secs_f64());
        }
        let Count { passed, failed } = self.count;
        println!("in {} s{}", self.begun.elapsed().as_secs(), processors());
        println!("{passed} passed, {failed} failed");
        if failed == 0 { Ok(()) } else { Err(format!("{failed} failed")) }
    }
}

/// The processors' time that all this took, which tells more than the clock where others use them too.
fn processors() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    children_ticks(&stat).map_or(String::new(), |ticks| format!(", {} s of {count} processors' time", ticks / 100))
}

/// The time of children that have ended, in hundredths of a second: fields 16 and 17 of proc_pid_stat(5).
fn children_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?)
}

/// A step that goes on beside the others.
#[derive(Debug)]
pub(crate) struct Beside {
    title: String,
    thread: JoinHandle<(Duration, Outcome)>,
}

impl Beside {
    /// Begins it.
    pub(crate) fn begin(title: &str, action: impl FnOnce() -> Outcome + Send + 'static) -> Beside {
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let outcome = action();
            (begun.elapsed(), outcome)
        });
        Beside { title: title.to_string(), thread }
    }
}

/// Runs a command, and passes on each line that it prints; whether it ended well.
pub(crate) fn listen(mut command: Command, mut each: impl FnMut(&str)) -> bool {
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

/// A test that passed, and its seconds, in a line of nextest.
fn passed(line: &str) -> Option<(String, f64)> {
    let rest = line.trim().strip_prefix("PASS [")?;
    let (seconds, rest) = rest.split_once("s]")?;
    let name = rest.split_once(')').map_or(rest, |(_, name)| name);
    Some((name.trim().to_string(), seconds.trim().parse().ok()?))
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

    #[test]
    fn times() {
        let cases = [
            ("        PASS [   0.460s] ( 30/210) e2e::event_loop tls::a", Some(("e2e::event_loop tls::a", 0.46))),
            ("        PASS [  12.000s] buf chain::tests::b", Some(("buf chain::tests::b", 12.0))),
            ("        FAIL [   0.460s] (1/2) e2e::event_loop tls::a", None),
        ];
        for (line, expect) in cases {
            assert_eq!(passed(line), expect.map(|(name, seconds)| (name.to_string(), seconds)), "{line}");
        }
    }

    #[test]
    fn time_of_children() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 200 0 0 5 6 1200 34 20 0 1 0 100 1 1";
        assert_eq!(children_ticks(stat), Some(1234));
        assert_eq!(children_ticks(""), None);
    }

    #[test]
    fn steps_are_counted() {
        let mut steps = Steps::new();
        assert!(steps.step("one", || Ok(())));
        assert!(!steps.step("two", || Err("no".to_string())));
        assert!(steps.join(Beside::begin("three", || Ok(()))));
        assert_eq!(steps.count, Count { passed: 2, failed: 1 });
        assert_eq!(steps.end(), Err("1 failed".to_string()));
    }
}
