//! The tiers of the end-to-end tests: how often the files of a folder of tests/tests run. Each tier is one program,
//! whose `main.rs` lists its files, so a file in none of these folders, or missing in the list, would never run:
//! `tidy` looks for such files.

use std::path::Path;

use crate::tools::{self, Outcome};

/// A folder of tests/tests.
#[derive(Debug)]
pub(crate) struct Tier {
    /// The folder's name, which is the name of its program.
    pub name: &'static str,
    /// Event methods under which its tests run; none stands for one run with the default method.
    pub methods: &'static [&'static str],
}

/// All tiers, in the order in which they run.
pub(crate) const TIERS: [Tier; 3] = [
    Tier { name: "modules", methods: &[] },
    Tier { name: "event_loop", methods: &["epoll", "poll", "select", "io_uring"] },
    Tier { name: "system", methods: &[] },
];

/// Where the tiers stand.
const FOLDER: &str = "tests/tests";

/// A file of end-to-end tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Its tier.
    pub tier: String,
    /// Its name without the ending.
    pub name: String,
}

/// All files of end-to-end tests but the `main.rs`, and their texts.
pub(crate) fn files() -> Outcome<Vec<(File, String)>> {
    let root = tools::root().join(FOLDER);
    let rust = tools::files(&root).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let file = |path: &Path| {
        let inside = path.strip_prefix(&root).unwrap_or(path).with_extension("");
        let (tier, name) = (inside.parent().unwrap_or(Path::new("")), inside.file_name().unwrap_or_default());
        File { tier: tier.display().to_string(), name: name.to_string_lossy().into_owned() }
    };
    rust.map(|path| Ok((file(&path), tools::read(&path)?)))
        .filter(|f| f.as_ref().map_or(true, |f| f.0.name != "main"))
        .collect()
}

/// What is wrong with the tiers.
pub(crate) fn faults() -> Outcome<Vec<String>> {
    let files = files()?;
    let mut faults = Vec::new();
    for tier in &TIERS {
        let main = tools::read(&tools::root().join(FOLDER).join(tier.name).join("main.rs"))?;
        // `--test NAME` would run both.
        let same = tools::files(&tools::root().join("crates")).into_iter();
        let same = same.filter(|p| p.ends_with(Path::new("tests").join(tier.name).with_extension("rs")));
        faults.extend(same.map(|path| format!("{}: a tier has that name", tools::relative(&path))));
        let names = files.iter().filter(|(file, _)| file.tier == tier.name).map(|(file, _)| file.name.as_str());
        faults.extend(unlisted(&main, names).map(|name| format!("{FOLDER}/{}/main.rs: no `mod {name};`", tier.name)));
    }
    for (File { tier, name }, text) in &files {
        match TIERS.iter().find(|t| t.name == tier) {
            None => {
                let path = Path::new(FOLDER).join(tier).join(name);
                faults.push(format!("{}.rs: belongs to no tier", path.display()));
            }
            Some(tier) if tier.methods.is_empty() => {}
            Some(tier) => faults.extend(
                without_method(text).map(|line| format!("{FOLDER}/{}/{name}.rs:{line}: no %%USE%% in it", tier.name)),
            ),
        }
    }
    Ok(faults)
}

/// Files that a `main.rs` doesn't list.
fn unlisted<'a>(main: &str, names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    names.filter(|name| !main.lines().any(|line| line.trim() == format!("mod {name};")))
}

/// Lines with an `events` block to which the method under test wouldn't come.
fn without_method(text: &str) -> impl Iterator<Item = usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains("events {") && !line.contains("%%USE%%"));
    lines.map(|(number, _)| number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let main = "//! x\n\nmod access;\nmod proxy_heads;\n";
        assert_eq!(unlisted(main, ["access", "proxy", "proxy_heads"].into_iter()).collect::<Vec<_>>(), ["proxy"]);
    }

    #[test]
    fn methods() {
        let text = "events { %%USE%% }\nevents {{ worker_connections 10; }}\nno event\nevents { }";
        assert_eq!(without_method(text).collect::<Vec<_>>(), [2, 4]);
    }
}
