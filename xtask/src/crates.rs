//! Crates of others: their licences, versions of one beside another, and the table in ARCHITECTURE.md that says what each
//! is for. What there is comes from cargo itself, for all systems, with what only tests and builds need.

use std::collections::{BTreeMap, BTreeSet};

use crate::tools::{self, Options, Outcome};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask crates [--list]

Checks the crates of others: each has a licence that this project may be given away with, none is there in two versions
unless xtask/src/crates.rs says why, each that one of our crates names has a row in ARCHITECTURE.md's table, and each that
Cargo.toml names is used.

  --list   prints them with their licences
";

/// Licences under which code may be part of this program. Of `A OR B` one is enough.
const LICENCES: [&str; 9] =
    ["MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "NCSA"];

/// Crates that may be there in more than one version, and why.
const DOUBLE: [(&str, &str); 5] = [
    ("miniz_oxide", "png needs version 0.8 itself and 0.9 by flate2; both come with extra-image only"),
    ("syn", "macros of enumflags2, tracing and x509-cert need version 2; it runs in the compiler only"),
    ("thiserror", "loona-hpack, which only the fuzz targets use, needs version 1, landlock version 2"),
    ("thiserror-impl", "comes with thiserror"),
    ("windows-link", "in what loom needs on Windows, which is never built"),
];

/// The table of what each crate is for.
const PAGE: &str = "ARCHITECTURE.md";

/// A crate of others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Foreign {
    name: String,
    version: String,
    licence: String,
}

/// Runs the task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--list"], &[])?;
    let all = tree(&[])?;
    if options.has("--list") {
        all.iter().for_each(|c| println!("{}\t{}\t{}", c.name, c.version, c.licence));
    }
    let direct: BTreeSet<String> = tree(&["--depth", "1", "--no-dedupe"])?.into_iter().map(|c| c.name).collect();
    let root = tools::root();
    let mut faults = licences(&all);
    faults.extend(versions(&all, &DOUBLE));
    faults.extend(rows(&tools::read(&root.join(PAGE))?, &direct));
    faults.extend(unused(&tools::read(&root.join("Cargo.toml"))?, &direct));
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    println!("crates: {} of others, {} of them named by ours, {} faults", all.len(), direct.len(), faults.len());
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults", faults.len())) }
}

/// The crates of others that the workspace needs on any system.
fn tree(more: &[&str]) -> Outcome<BTreeSet<Foreign>> {
    let form = ["tree", "--workspace", "--target", "all", "--edges", "normal,build,dev", "--prefix", "none"];
    let said = tools::output(tools::cargo([&form[..], &["--format", "{p}|{l}"], more].concat()))?;
    Ok(said.lines().filter_map(foreign).collect())
}

/// Name, version and licence of the crates of others that the program with all modules contains on this system.
pub(crate) fn of_the_program() -> Outcome<Vec<(String, String, String)>> {
    let form =
        ["tree", "--package", "tidegate", "--features", tools::ALL_MODULES, "--edges", "normal", "--prefix", "none"];
    let said = tools::output(tools::cargo([&form[..], &["--format", "{p}|{l}"]].concat()))?;
    let all: BTreeSet<Foreign> = said.lines().filter_map(foreign).collect();
    Ok(all.into_iter().map(|one| (one.name, one.version, one.licence)).collect())
}

/// A line of cargo's: `NAME vVERSION|LICENCE`, with a path before the bar where the crate is ours.
fn foreign(line: &str) -> Option<Foreign> {
    let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let ours = words.any(|word| word.starts_with("(/"));
    (!ours).then(|| Foreign { name: name.into(), version: version.into(), licence: licence.into() })
}

// -- licences

fn licences(all: &BTreeSet<Foreign>) -> Vec<String> {
    let bad = all.iter().filter(|c| !allowed(&c.licence));
    bad.map(|c| format!("{} {}: the licence is {:?}", c.name, c.version, c.licence)).collect()
}

/// Whether a licence's expression (SPDX, annex D, and `A/B` as it was written before) can be met.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (good, rest) = alternatives(&words);
    good && rest.is_empty()
}

/// `A AND B OR C`: whether that can be met, and what stands after it.
fn alternatives<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut good, mut rest) = together(words);
    while let ["OR", more @ ..] = rest {
        let (other, after) = together(more);
        (good, rest) = (good | other, after);
    }
    (good, rest)
}

fn together<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut good, mut rest) = one(words);
    while let ["AND", more @ ..] = rest {
        let (other, after) = one(more);
        (good, rest) = (good & other, after);
    }
    (good, rest)
}

/// A licence, which an exception only makes wider, or an expression in brackets.
fn one<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", more @ ..] => {
            let (good, rest) = alternatives(more);
            (good && rest.first() == Some(&")"), rest.get(1..).unwrap_or_default())
        }
        [name, "WITH", _, rest @ ..] | [name, rest @ ..] => (LICENCES.contains(name), rest),
        [] => (false, words),
    }
}

// -- versions, rows

/// Crates in more than one version without a reason, and reasons for crates that no longer are.
fn versions(all: &BTreeSet<Foreign>, double: &[(&str, &str)]) -> Vec<String> {
    let mut by_name = BTreeMap::<&str, Vec<&str>>::new();
    for one in all {
        by_name.entry(&one.name).or_default().push(&one.version);
    }
    by_name.retain(|_, versions| versions.len() > 1);
    let idle = double.iter().filter(|(name, _)| !by_name.contains_key(name));
    let mut faults: Vec<String> = idle.map(|(name, _)| format!("{name}: listed as double, but isn't")).collect();
    let loud = by_name.iter().filter(|(name, _)| !double.iter().any(|(known, _)| known == *name));
    faults.extend(loud.map(|(name, versions)| format!("{name}: in versions {}", versions.join(" and "))));
    faults
}

/// Crates that ours name, and that no row of the table tells of; and rows about crates that none of ours names.
fn rows(page: &str, direct: &BTreeSet<String>) -> Vec<String> {
    let section = page.split("\n## ").find(|s| s.starts_with("Dependencies")).unwrap_or_default();
    let firsts = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let told: BTreeSet<&str> = firsts.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let silent = direct.iter().filter(|name| !told.contains(name.as_str()));
    let mut faults: Vec<String> = silent.map(|name| format!("{PAGE}: no row for {name}")).collect();
    let gone = told.iter().filter(|name| !direct.contains(**name));
    faults.extend(gone.map(|name| format!("{PAGE}: a row for {name}, which none of our crates names")));
    faults
}

/// Crates that the manifest names and none of ours uses.
fn unused(manifest: &str, direct: &BTreeSet<String>) -> Vec<String> {
    let section = manifest.split("\n[").find(|s| s.starts_with("workspace.dependencies]")).unwrap_or_default();
    let entries = section.lines().skip(1).filter(|line| !line.starts_with('#') && !line.contains("path = "));
    let named = entries.filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some(value.split_once("package = \"").and_then(|(_, v)| v.split('"').next()).unwrap_or(name.trim()))
    });
    let idle = named.filter(|name| !direct.contains(*name));
    idle.map(|name| format!("Cargo.toml: none of our crates uses {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = |name: &str, version: &str, licence: &str| {
            Some(Foreign { name: name.into(), version: version.into(), licence: licence.into() })
        };
        assert_eq!(foreign("memchr v2.8.0|Unlicense OR MIT (*)"), line("memchr", "2.8.0", "Unlicense OR MIT"));
        assert_eq!(foreign("quote v1.0.1 (proc-macro)|MIT"), line("quote", "1.0.1", "MIT"));
        assert_eq!(foreign("buf v0.1.0 (/a/crates/buf)|BSD-2-Clause"), None);
        assert_eq!(foreign(""), None);
    }

    #[test]
    fn expressions() {
        for (expression, expect) in [
            ("MIT", true),
            ("Unlicense OR MIT", true),
            ("MIT/GPL-3.0", true),
            ("GPL-3.0-only", false),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-2.0) AND Unicode-3.0", true),
            ("ISC AND (GPL-2.0 OR LGPL-2.1)", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
            ("MIT AND (ISC", false),
            ("MIT)", false),
            ("", false),
        ] {
            assert_eq!(allowed(expression), expect, "{expression:?}");
        }
    }

    #[test]
    fn two_versions() {
        let all =
            ["a v1|MIT", "a v2|MIT", "b v1|MIT", "c v1|MIT", "c v2|MIT"].into_iter().filter_map(foreign).collect();
        assert_eq!(versions(&all, &[("c", "why")]), ["a: in versions 1 and 2"]);
        assert_eq!(versions(&all, &[("a", ""), ("b", ""), ("c", "")]), ["b: listed as double, but isn't"]);
    }

    #[test]
    fn tables_and_manifests() {
        let direct: BTreeSet<String> = ["slab", "libc", "rustls-webpki"].map(String::from).into();
        let page = "# A\n\n## Dependencies\n\n| crate | for |\n|---|---|\n| `slab`, `gone` | x `y` |\n\n## End\n| `libc` | x |\n";
        let faults = rows(page, &direct);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[2].contains("a row for gone"), "{faults:?}");
        let manifest = "[workspace]\n\n[workspace.dependencies]\n# Ours\nos = { path = \"x\" }\nslab = \"1\"\nidle = \"1\"\n\
                        webpki = { package = \"rustls-webpki\" }\n\n[profile.dev]\nx = 1\n";
        assert_eq!(unused(manifest, &direct), ["Cargo.toml: none of our crates uses idle"]);
    }
}
