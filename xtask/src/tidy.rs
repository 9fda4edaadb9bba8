//! The house checks: import direction, sizes and import circles with a ratchet, unsafe, banned words, temporary
//! folders, directives documented.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::circles;
use crate::tools::{self, Options, Outcome};

/// Crates and what they may import, lowest layer first (ARCHITECTURE.md draws the same).
const LAYERS: [(&str, &[&str]); 21] = [
    ("os", &[]),
    ("shm", &["os"]),
    ("buf", &[]),
    ("conf", &["buf"]),
    ("expr", &["buf"]),
    ("wire", &["buf"]),
    ("rt", &["buf", "os"]),
    ("tls", &["buf", "wire", "os", "rt"]),
    ("engine", &["buf", "conf", "expr", "os", "shm", "rt"]),
    ("cache", &["buf", "wire", "os", "shm", "rt", "engine"]),
    ("upstream", &["buf", "conf", "expr", "wire", "os", "shm", "rt", "engine"]),
    ("common", &["buf", "conf", "expr", "wire", "os", "shm", "rt", "tls", "engine", "upstream"]),
    ("mail", &["buf", "conf", "expr", "wire", "os", "rt", "tls", "engine", "upstream", "common"]),
    ("stream", &["buf", "conf", "expr", "wire", "os", "shm", "rt", "engine", "upstream", "common", "tls"]),
    ("http", &["buf", "conf", "expr", "wire", "os", "shm", "rt", "engine", "upstream", "common", "tls"]),
    (
        "http-proxy",
        &["buf", "conf", "expr", "wire", "os", "shm", "rt", "engine", "cache", "upstream", "common", "tls", "http"],
    ),
    ("http-modules", &["buf", "conf", "expr", "wire", "os", "shm", "rt", "engine", "common", "http"]),
    ("extra-zstd", &["buf", "conf", "engine", "expr", "http"]),
    ("extra-image", &["buf", "conf", "expr", "wire", "http"]),
    (
        "server",
        &[
            "buf",
            "conf",
            "expr",
            "wire",
            "os",
            "shm",
            "rt",
            "tls",
            "engine",
            "upstream",
            "common",
            "stream",
            "mail",
            "http",
            "http-proxy",
            "http-modules",
            "extra-image",
            "extra-zstd",
        ],
    ),
    ("simulate", &["buf", "wire", "os", "rt", "tls", "engine", "common", "http", "http-proxy", "http-modules"]),
];

/// Crates whose modules don't know one another: what each file at the top may name of its own crate, besides what is
/// below it.
const STRANGERS: [(&str, &[&str]); 1] = [("http-modules", &["constant_time"])];

/// Crates that may hold unsafe code.
const UNSAFE: [&str; 3] = ["os", "shm", "rt"];

/// Names that don't stand outside tests.
const BANNED: [&str; 4] = ["todo!(", "unimplemented!(", "dbg!(", ".unwrap()"];

/// Files that may ask for the system's folder of temporary files. All others, tests too, let `tempfile` make a new one below
/// it: a name of one's own choice may be there already.
const TEMPORARY: [&str; 1] = ["crates/engine/src/personality.rs"];

/// The longest function and the longest file (without its tests) that nobody needs to explain.
const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 800;
/// The most files of a crate in an import circle that nobody needs to explain: there is none.
const CIRCLE_FILES: usize = 1;
/// What is written down of a crate's circles is the crate's folder and this.
const CIRCLE: &str = ":largest import circle";

/// Where larger ones are written down: they may shrink, never grow, and no new ones come.
const RATCHET: &str = "xtask/ratchet.tsv";

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask tidy [--write]

Checks the house rules: import direction, import circles, sizes of functions and files, unsafe code, banned words, folders
for temporary files, tiers of tests.

  --write   lowers the ratchet (xtask/ratchet.tsv) to what is there
";

/// Runs the task. `--write` lowers the ratchet to what is there (and is how a first list is made).
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--write"], &[])?;
    let sources = sources()?;
    let mut faults = imports()?;
    faults.extend(acquaintances(&sources));
    faults.extend(banned(&sources));
    faults.extend(temporary(&sources));
    faults.extend(crate::compare::faults()?);
    faults.extend(crate::tiers::faults()?);
    let unsafe_sites = count_unsafe(&sources, &mut faults);
    let mut sizes = sizes(&sources);
    sizes.extend(circles(&sources));
    if options.has("--write") {
        write_ratchet(&sizes)?;
    }
    faults.extend(ratchet(&sizes)?);
    for fault in &faults {
        eprintln!("{fault}");
    }
    let lines: usize = sources.iter().map(|s| s.text.lines().count()).sum();
    println!("tidy: {} files, {lines} lines, {unsafe_sites} unsafe sites, {} faults", sources.len(), faults.len());
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults", faults.len())) }
}

/// A source file, and which of its lines are tests.
struct Source {
    path: PathBuf,
    text: String,
    /// The first line of the tests at its bottom; all lines where the whole file is tests.
    tests_from: usize,
}

impl Source {
    fn name(&self) -> String {
        tools::relative(&self.path)
    }

    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().take(self.tests_from).enumerate().map(|(n, l)| (n + 1, l))
    }
}

fn sources() -> Outcome<Vec<Source>> {
    let mut found = Vec::new();
    for folder in ["crates", "xtask", "tests", "fuzz"] {
        for path in tools::files(&tools::root().join(folder)) {
            if path.extension().is_some_and(|e| e == "rs") {
                let text = tools::read(&path)?;
                let whole = is_test_file(&path);
                let from = text.lines().position(|l| l.trim() == "#[cfg(test)]").filter(|at| tests_follow(&text, *at));
                let tests_from = if whole { 0 } else { from.unwrap_or(usize::MAX) };
                found.push(Source { path, text, tests_from });
            }
        }
    }
    Ok(found)
}

fn tests_follow(text: &str, at: usize) -> bool {
    text.lines().nth(at + 1).is_some_and(|l| l.trim_start().starts_with("mod ") && l.trim_end().ends_with('{'))
}

fn is_test_file(path: &Path) -> bool {
    let name = tools::relative(path);
    name.contains("/tests/") || name.starts_with("tests/") || name.ends_with("tests.rs") || name.starts_with("fuzz/")
}

// -- imports

fn imports() -> Outcome<Vec<String>> {
    let mut faults = Vec::new();
    let crates = tools::root().join("crates");
    for entry in std::fs::read_dir(&crates).map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((_, allowed)) = LAYERS.iter().find(|(n, _)| *n == name) else {
            faults.push(format!("crates/{name}: unknown to tidy's layers"));
            continue;
        };
        let manifest = tools::read(&entry.path().join("Cargo.toml"))?;
        faults.extend(
            dependencies(&manifest)
                .into_iter()
                .filter(|d| LAYERS.iter().any(|(n, _)| n == d) && !allowed.contains(&d.as_str()))
                .map(|d| format!("crates/{name}/Cargo.toml: {name} may not import {d}")),
        );
    }
    Ok(faults)
}

/// The names below `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line.starts_with("[target.") && line.ends_with("dependencies]");
        } else if inside && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.extend((!name.is_empty()).then(|| name.to_string()));
        }
    }
    names
}

/// Modules that know another one.
fn acquaintances(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let Some((own, shared)) = STRANGERS.iter().find_map(|(name, shared)| {
            let path = source.name();
            let file = path.strip_prefix(&format!("crates/{name}/src/"))?;
            let own = file.split('/').next()?.trim_end_matches(".rs").to_owned();
            Some((own, *shared))
        }) else {
            continue;
        };
        if own == "lib" {
            continue;
        }
        let named = source.code().flat_map(|(at, line)| named_modules(line).map(move |module| (at, module)));
        let strange = named.filter(|(_, module)| *module != own && !shared.contains(module));
        faults.extend(strange.map(|(at, module)| {
            format!(
                "{}:{}: the module {own} knows the module {module}: they meet in slots or in the core",
                source.name(),
                at
            )
        }));
    }
    faults
}

/// The modules of the own crate that a line names by `crate::…`.
fn named_modules(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter(|(at, _)| !line[..*at].ends_with('$')).map(|(at, word)| {
        let rest = &line[at + word.len()..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

// -- words

fn banned(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|s| !s.name().ends_with("xtask/src/tidy.rs")) {
        for (number, line) in source.code().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            faults.extend(
                BANNED
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{}:{number}: {word} outside tests", source.name())),
            );
        }
        for (number, line) in source.text.lines().enumerate() {
            if line.trim() == "#[ignore]" {
                faults.push(format!("{}:{}: a test ignored without a reason", source.name(), number + 1));
            }
        }
        if !source.text.trim_start().starts_with("//!") && !source.path.ends_with("tests.rs") {
            faults.push(format!("{}: no //! at its head", source.name()));
        }
    }
    faults
}

/// Names of temporary files and folders that could be there already.
fn temporary(sources: &[Source]) -> Vec<String> {
    let others =
        sources.iter().filter(|s| !TEMPORARY.contains(&&*s.name()) && !s.name().ends_with("xtask/src/tidy.rs"));
    let lines = others.flat_map(|source| source.text.lines().enumerate().map(move |(at, line)| (source, at, line)));
    let asking = lines.filter(|(_, _, line)| line.split("//").next().is_some_and(|code| code.contains("temp_dir")));
    let fault = |(source, at, _): (&Source, usize, &str)| {
        format!("{}:{}: temp_dir: tempfile::TempDir makes a folder that is new", source.name(), at + 1)
    };
    asking.map(fault).collect()
}

/// Counts `unsafe` blocks, functions and impls; those outside the crates that may have them are faults.
fn count_unsafe(sources: &[Source], faults: &mut Vec<String>) -> usize {
    let mut count = 0;
    for source in sources.iter().filter(|s| !s.name().ends_with("xtask/src/tidy.rs")) {
        let name = source.name();
        let allowed = UNSAFE.iter().any(|c| name.starts_with(&format!("crates/{c}/")));
        let root = name.ends_with("/src/lib.rs") || name.ends_with("/src/main.rs");
        if root && !allowed && !source.text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("{name}: no #![forbid(unsafe_code)]"));
        }
        for (number, line) in source.text.lines().enumerate() {
            if !is_unsafe(line) {
                continue;
            }
            count += 1;
            if !allowed {
                faults.push(format!("{name}:{}: unsafe code", number + 1));
            }
        }
    }
    count
}

fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"].iter().any(|w| code.contains(w))
}

// -- sizes

/// What is longer than it should be: files by their path, functions by path and name; with their lines.
fn sizes(sources: &[Source]) -> BTreeMap<String, usize> {
    let mut large = BTreeMap::new();
    for source in sources {
        let lines = source.code().count() - texts(source);
        if lines > FILE_LINES {
            large.insert(source.name(), lines);
        }
        for (name, lines) in functions(source) {
            if lines > FUNCTION_LINES {
                let entry = large.entry(format!("{}:{name}", source.name())).or_insert(0);
                *entry = lines.max(*entry);
            }
        }
    }
    large
}

/// The lines of a file that are texts of directives and variables: they are the manual, and as long as they have to be.
fn texts(source: &Source) -> usize {
    // The indentation of the table that is open.
    let mut open: Option<usize> = None;
    let is_text = |(_, line): &(usize, &str)| {
        let indent = line.len() - line.trim_start().len();
        if line.ends_with("table! {") || line.contains("variables! {") {
            open = Some(indent);
        } else if line.trim_start() == "}" && open == Some(indent) {
            open = None;
        }
        open.is_some() && line.trim_start().starts_with("///")
    };
    source.code().filter(is_text).count()
}

/// The functions of a formatted file: from the line with `fn` to the closing brace of the same indentation.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, usize, usize)> = Vec::new();
    for (number, line) in source.code() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if trimmed.starts_with('}')
            && let Some(at) = open.iter().rposition(|(_, i, _)| *i == indent)
        {
            let (name, _, start) = open.remove(at);
            found.push((name, number - start + 1));
        }
        if let Some(name) = function_name(trimmed)
            && !trimmed.ends_with('}')
            && !trimmed.ends_with(';')
        {
            open.push((name.to_string(), indent, number));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\"", "default"];
    let mut rest = line;
    while let Some((word, tail)) = rest.split_once(' ') {
        if word == "fn" {
            return tail.split(['(', '<']).next();
        }
        if !words.contains(&word) {
            return None;
        }
        rest = tail;
    }
    None
}

/// The files in the largest import circle of each crate that has one.
fn circles(sources: &[Source]) -> BTreeMap<String, usize> {
    let mut crates: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.tests_from > 0) {
        let name = source.name();
        if let Some((of, path)) = name.split_once("/src/").filter(|(of, _)| of.starts_with("crates/")) {
            let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
            crates.entry(format!("{of}{CIRCLE}")).or_default().push((path.to_owned(), code));
        }
    }
    let largest = crates.into_iter().map(|(what, files)| (what, circles::largest(&files)));
    largest.filter(|(_, files)| *files > CIRCLE_FILES).collect()
}

fn write_ratchet(sizes: &BTreeMap<String, usize>) -> Outcome {
    let lines: String = sizes.iter().map(|(what, most)| format!("{what}\t{most}\n")).collect();
    tools::write(&tools::root().join(RATCHET), &format!("what\tlines or files\n{lines}"))
}

fn ratchet(sizes: &BTreeMap<String, usize>) -> Outcome<Vec<String>> {
    let text = std::fs::read_to_string(tools::root().join(RATCHET)).unwrap_or_default();
    let allowed: BTreeMap<&str, usize> = text
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once('\t').and_then(|(what, n)| Some((what, n.parse().ok()?))))
        .collect();
    let over = sizes.iter().filter_map(|(what, size)| {
        let (unit, limit) = match what {
            what if what.ends_with(CIRCLE) => ("files", CIRCLE_FILES),
            what if what.ends_with(".rs") => ("lines", FILE_LINES),
            _ => ("lines", FUNCTION_LINES),
        };
        let most = allowed.get(what.as_str()).copied().unwrap_or(limit);
        (*size > most).then(|| format!("{what}: {size} {unit}, at most {most}"))
    });
    Ok(over.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_functions() {
        let cases = [
            ("fn a() {", Some("a")),
            ("pub(crate) async fn b<T>(x: T) {", Some("b")),
            ("pub const unsafe fn c() -> u8 {", Some("c")),
            ("let f = fn_name();", None),
            ("impl Fn for X {", None),
        ];
        for (line, name) in cases {
            assert_eq!(function_name(line), name, "{line}");
        }
    }

    #[test]
    fn lines_of_texts() {
        let text = "/// Else.\nconf::table! {\n    group a {\n        /// A text.\n        ///\n    }\n    /// B.\n}\n\n\
                    /// Else.\nfn a() {}\n";
        let source = Source { path: PathBuf::new(), text: text.to_string(), tests_from: usize::MAX };
        assert_eq!(texts(&source), 3);
    }

    #[test]
    fn lines_of_functions() {
        let text = "fn a() {\n    x();\n}\n\nimpl T {\n    fn b(\n        x: u8,\n    ) {\n        y();\n    }\n}\n"
            .to_string();
        let source = Source { path: PathBuf::from("x.rs"), text, tests_from: usize::MAX };
        assert_eq!(functions(&source), [("a".to_string(), 3), ("b".to_string(), 5)]);
    }

    #[test]
    fn names_of_modules() {
        let found = |line| named_modules(line).collect::<Vec<_>>();
        assert_eq!(found("use crate::proto::HttpProto; crate::map::x(crate::log)"), ["proto", "map", "log"]);
        assert_eq!(found("$crate::x use http::request::Request"), [""; 0]);
    }

    #[test]
    fn names_of_dependencies() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nbuf.workspace = true\nos = { path = \"..\" }\n[dev-dependencies]\nconf = \"1\"\n";
        assert_eq!(dependencies(manifest), ["buf", "os"]);
    }

    #[test]
    fn folders_are_new() {
        let text = "fn a() {}\n// Not env::temp_dir().\n#[cfg(test)]\nmod tests {\n    use std::env::temp_dir;\n}\n";
        let of = |path: &str| Source { path: tools::root().join(path), text: text.to_string(), tests_from: 2 };
        let faults = temporary(&[of("crates/x/src/y.rs"), of(TEMPORARY[0]), of("tests/src/x.rs")]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("crates/x/src/y.rs:5: ") && faults[1].starts_with("tests/src/x.rs:5: "));
    }

    #[test]
    fn words() {
        assert!(is_unsafe("    unsafe { x() }") && is_unsafe("pub unsafe fn x()"));
        assert!(!is_unsafe("// unsafe { }") && !is_unsafe("#![forbid(unsafe_code)]"));
    }
}
