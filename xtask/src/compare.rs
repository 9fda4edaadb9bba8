//! The end-to-end tests run against nginx: the same cases ask the original and ours.
//!
//! A test that nginx doesn't pass says so in the comment above it, with words of docs/COMPAT.md that say why:
//!
//! ```text
//! /// Differs from nginx: WORDS         we do something else on purpose
//! /// Not in nginx: WORDS               nginx has no such thing
//! ```
//!
//! These lines are the list. `tidy` looks whether the words are there; `compare` whether those tests, and no others, fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::steps::listen;
use crate::test::tests_command;
use crate::tiers::{self, TIERS};
use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask compare BINARY [options]

Runs the end-to-end tests against another server's binary, an nginx with all its modules. It fails if a test fails that
isn't listed, or a test that is listed passes; either is tried a second time, alone. The list are the tests whose comment
says `Differs from nginx: WORDS` or `Not in nginx: WORDS`, with words of docs/COMPAT.md.

  --test FILE      only this file of tests/tests; may be repeated
  --list           prints the list; needs no BINARY
";

/// Where decisions stand.
const COMPAT: &str = "docs/COMPAT.md";

/// What a comment says before the words, and what that means.
const MARKS: [(&str, Kind); 2] = [("/// Differs from nginx: ", Kind::Differs), ("/// Not in nginx: ", Kind::Ours)];

/// Why nginx doesn't pass a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It does something else, and we do so on purpose.
    Differs,
    /// It has nothing of the kind.
    Ours,
}

/// A test that nginx doesn't pass.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    /// `TIER FILE::NAME`.
    test: String,
    kind: Kind,
    /// Words of a decision in docs/COMPAT.md.
    words: String,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--list"], &["--test"])?;
    let listed = list()?;
    if options.has("--list") {
        listed.iter().for_each(|l| println!("{}\t{:?}\t{}", l.test, l.kind, l.words));
        println!("{}", lengths(&listed));
        return Ok(());
    }
    let [binary] = options.rest.as_slice() else {
        print!("{HELP}");
        return Err("it needs one BINARY".to_string());
    };
    let binary = std::fs::canonicalize(binary).map_err(|e| format!("{binary}: {e}"))?;
    crate::test::prepare();
    let files: Vec<&str> = options.values("--test").collect();
    let names: BTreeSet<&str> = listed.iter().map(|l| l.test.as_str()).collect();
    let prefixes: Vec<String> = files.iter().map(|file| format!("{file}::")).collect();
    let first = ask(&binary, &prefixes.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut surprises = surprises(&first, &names);
    // Chance, or the others beside it, may have been at work.
    for (test, passed) in &mut surprises {
        let (_, name) = test.split_once(' ').expect("a test's name is TIER FILE::NAME");
        *passed = ask(&binary, &["--exact", name])?.get(test).copied().unwrap_or(*passed);
    }
    surprises.retain(|test, passed| *passed == names.contains(test.as_str()));
    let mut faults: Vec<String> = surprises.iter().map(|(test, passed)| surprise(test, *passed)).collect();
    let chosen = |test: &str| prefixes.is_empty() || prefixes.iter().any(|p| test.contains(&format!(" {p}")));
    faults
        .extend(names.iter().filter(|t| chosen(t) && !first.contains_key(**t)).map(|t| format!("{t}: it didn't run")));
    faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} tests asked, {} pass; {}", first.len(), first.values().filter(|p| **p).count(), lengths(&listed));
    if faults.is_empty() { Ok(()) } else { Err(format!("{} surprises", faults.len())) }
}

/// The tests whose outcome isn't the one that the list tells, with that outcome.
fn surprises(outcomes: &BTreeMap<String, bool>, listed: &BTreeSet<&str>) -> BTreeMap<String, bool> {
    let odd = outcomes.iter().filter(|(test, passed)| **passed == listed.contains(test.as_str()));
    odd.map(|(test, passed)| (test.clone(), *passed)).collect()
}

fn surprise(test: &str, passed: bool) -> String {
    let what = if passed { "listed as different, but it passes" } else { "fails, and no decision says why" };
    format!("{test}: {what}")
}

fn lengths(listed: &[Listed]) -> String {
    let of = |kind| {
        let tests: BTreeSet<&str> = listed.iter().filter(|l| l.kind == kind).map(|l| l.test.as_str()).collect();
        tests.len()
    };
    format!("the list: {} differ on purpose, {} are of what nginx doesn't have", of(Kind::Differs), of(Kind::Ours))
}

// -- running

/// Runs the tests that these filters of names choose, all of them if there are none; which ran, and whether they passed.
fn ask(binary: &Path, filters: &[&str]) -> Outcome<BTreeMap<String, bool>> {
    let mut command: Command = tests_command(&["--status-level", "pass", "--final-status-level", "none"]);
    command.arg("--workspace").args(TIERS.iter().flat_map(|tier| ["--test", tier.name]));
    command.env("TIDEGATE_BINARY", binary).arg("--").args(filters);
    let (mut outcomes, mut file) = (BTreeMap::new(), String::new());
    let good = listen(command, |line| {
        if let Some((test, passed)) = outcome(line, &mut file) {
            outcomes.insert(test, passed);
        } else if line.starts_with("error") && line != "error: test run failed" {
            println!("{line}");
        }
    });
    if outcomes.is_empty() && !good {
        return Err("the tests didn't run".to_string());
    }
    Ok(outcomes)
}

/// The test of which a line of nextest or of cargo test says how it ended, and whether it passed. `file` is the file
/// that cargo test runs, for the next lines.
fn outcome(line: &str, file: &mut String) -> Option<(String, bool)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["Running", path, ..] => {
            *file = Path::new(path).file_stem()?.to_str()?.to_string();
            None
        }
        ["test", name, "...", end] if !file.is_empty() => Some((format!("{file} {name}"), *end == "ok")),
        [state, .., id, name] if id.starts_with("e2e::") => {
            let passed = matches!(*state, "PASS" | "LEAK");
            let failed = matches!(*state, "FAIL" | "TIMEOUT" | "ABORT" | "LEAK-FAIL") || state.starts_with("SIG");
            (passed || failed).then(|| (format!("{} {name}", &id["e2e::".len()..]), passed))
        }
        _ => None,
    }
}

// -- the list

/// What is wrong with the list: words that docs/COMPAT.md hasn't, or has more than once, and marks without a test.
pub(crate) fn faults() -> Outcome<Vec<String>> {
    let compat = plain(&tools::read(&tools::root().join(COMPAT))?);
    let mut faults = Vec::new();
    for listed in list()? {
        let times = compat.matches(&plain(&listed.words)).count();
        let Listed { test, words, .. } = listed;
        if words.is_empty() || times == 0 {
            faults.push(format!("{test}: {COMPAT} doesn't say {words:?}"));
        } else if times > 1 {
            faults.push(format!("{test}: {COMPAT} says {words:?} {times} times; more words are needed"));
        }
    }
    Ok(faults)
}

/// The tests that say that nginx doesn't pass them.
fn list() -> Outcome<Vec<Listed>> {
    let mut all = Vec::new();
    for (file, text) in tiers::files()? {
        all.extend(marks(&format!("{} {}::", file.tier, file.name), &text)?);
    }
    all.sort();
    Ok(all)
}

/// The marks in a file of tests, whose names begin so. One that stands above no test is an error.
fn marks(prefix: &str, text: &str) -> Outcome<Vec<Listed>> {
    let mut found = Vec::new();
    let (mut waiting, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        let mark = MARKS.iter().find_map(|(start, kind)| Some((line.strip_prefix(start)?, *kind)));
        if let Some((words, kind)) = mark {
            waiting.push((words.to_string(), kind));
        } else if line == "#[test]" {
            is_test = true;
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            let name = line.strip_prefix("fn ").and_then(|l| l.split('(').next());
            match name.filter(|_| is_test) {
                Some(name) => found.extend(waiting.drain(..).map(|(words, kind)| Listed {
                    test: format!("{prefix}{name}"),
                    kind,
                    words,
                })),
                None => {
                    if let Some((words, _)) = waiting.first() {
                        return Err(format!("{prefix} {words:?} stands above no test"));
                    }
                }
            }
            is_test = false;
        }
    }
    Ok(found)
}

/// Text without its line breaks.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let mut file = String::new();
        let cases = [
            ("        FAIL [   0.460s] ( 30/210) e2e::core post_action", Some(("core post_action", false))),
            ("        PASS [   0.460s] e2e::core locations", Some(("core locations", true))),
            ("     TIMEOUT [ 180.002s] (1/2) e2e::core x", Some(("core x", false))),
            ("     SIGSEGV [   1.002s] (1/2) e2e::core x", Some(("core x", false))),
            ("        SLOW [> 60.000s] (---/210) e2e::core x", None),
            ("        PASS [   0.460s] (1/2) e2e load::tests::x", None),
            // What nextest shows of a test that fails.
            ("test x ... FAILED", None),
            ("     Running tests/access.rs (target/debug/deps/access-0123)", None),
            ("test rules ... ok", Some(("access rules", true))),
            ("test rules ... FAILED", Some(("access rules", false))),
            ("test result: ok. 5 passed; 0 failed", None),
        ];
        for (line, expect) in cases {
            let expect = expect.map(|(test, passed)| (test.to_string(), passed));
            assert_eq!(outcome(line, &mut file), expect, "{line}");
        }
    }

    #[test]
    fn marks_of_tests() {
        let text = "/// Why.\n/// Differs from nginx: some words\n#[test]\nfn a() {\n}\n\n#[test]\nfn b() {\n}\n\n\
                    /// Not in nginx: sandbox\n/// Differs from nginx: more\n#[test]\nfn c() {\n";
        let listed = |test: &str, kind, words: &str| Listed { test: test.into(), kind, words: words.into() };
        let expect = [
            listed("t f::a", Kind::Differs, "some words"),
            listed("t f::c", Kind::Ours, "sandbox"),
            listed("t f::c", Kind::Differs, "more"),
        ];
        assert_eq!(marks("t f::", text).unwrap(), expect);
        assert!(marks("t f::", "/// Not in nginx: sandbox\nfn helper() {\n").is_err());
    }

    #[test]
    fn what_surprises() {
        let outcomes = [("f a", true), ("f b", true), ("f c", false), ("f d", false)];
        let outcomes = outcomes.map(|(test, passed)| (test.to_string(), passed)).into();
        let odd = surprises(&outcomes, &["f a", "f c"].into());
        assert_eq!(odd.into_iter().collect::<Vec<_>>(), [("f a".to_string(), true), ("f d".to_string(), false)]);
    }
}
