//! How much of nginx there is: directives, variables and options of the reference against what the program says it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::docs;
use crate::tools::{self, Options, Outcome};
use crate::tsv::Table;

/// nginx's command-line options.
const OPTIONS: [&str; 12] = ["-?", "-h", "-v", "-V", "-t", "-T", "-q", "-s", "-p", "-e", "-c", "-g"];

/// Build conditions of other systems, and modules for developers: they are left out of the totals.
const ELSEWHERE: [&str; 6] = [
    "ngx_devpoll_module",
    "ngx_eventport_module",
    "ngx_iocp_module",
    "ngx_kqueue_module",
    "ngx_google_perftools_module",
    "ngx_http_degradation_module",
];

#[derive(Debug, Default, Clone)]
struct Tally {
    all: usize,
    have: usize,
    missing: Vec<String>,
}

impl Tally {
    fn count(&mut self, name: &str, have: bool) {
        self.all += 1;
        self.have += usize::from(have);
        if !have {
            self.missing.push(name.to_string());
        }
    }
}

/// What `--help` prints.
pub const HELP: &str = "\
usage: cargo xtask compat [--missing]
       cargo xtask compat FOLDER [--list]

Without a folder: how many of nginx's directives, variables and options there are, by module.

  --missing   names those that are missing

With a folder of people's configurations: how many of its files load, and what is missing in the others, the most frequent
first. Certificates, folders, users and names that only their own machines have don't count against them. A file that
is only a part of a configuration is tested as one. As root it is the user nobody who tests them, on a copy.

  --list      also names the files that don't load, each with its first fault
";

/// Runs the task: a table by module, the totals in its last line. `--missing` names what is missing.
pub fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--missing", "--list"], &[])?;
    if let Some(folder) = options.rest.first() {
        return crate::configurations::run(Path::new(folder), options.has("--list"));
    }
    let have: BTreeSet<(Area, String)> = docs::directives()?
        .into_iter()
        .flat_map(|d| areas(&d.contexts).into_iter().map(move |a| (a, d.name.clone())).collect::<Vec<_>>())
        .collect();
    let reference = tools::root().join("xtask/reference");
    let table = Table::parse(&tools::read(&reference.join("directives.tsv"))?);
    let directives = tally_directives(&table, &have);
    let variables = tally_variables(&Table::parse(&tools::read(&reference.join("variables.tsv"))?), &variables()?);
    let usage = Table::parse(&tools::read(&reference.join("directive_usage.tsv"))?);

    println!("{:40} {:>12} {:>12}", "module", "directives", "variables");
    let modules: BTreeSet<_> = directives.keys().chain(variables.keys()).collect();
    for module in modules {
        let cell = |t: Option<&Tally>| t.map_or("–".to_string(), |t| format!("{} of {}", t.have, t.all));
        println!("{module:40} {:>12} {:>12}", cell(directives.get(module)), cell(variables.get(module)));
        if options.has("--missing") {
            for tally in [directives.get(module), variables.get(module)].into_iter().flatten() {
                tally.missing.chunks(8).for_each(|names| println!("    without {}", names.join(" ")));
            }
        }
    }
    println!("{}", totals(&directives, &variables, &usage, &have, &known_options()?));
    Ok(())
}

/// The part of the configuration a directive belongs to: `server` in http, stream and mail are three directives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    Core,
    Http,
    Stream,
    Mail,
}

fn areas(contexts: &str) -> BTreeSet<Area> {
    let words = contexts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').filter(|w| !w.is_empty());
    words
        .map(|word| match word {
            "main" | "events" | "any" => Area::Core,
            _ if word.starts_with("stream") => Area::Stream,
            _ if word.starts_with("mail") => Area::Mail,
            _ => Area::Http,
        })
        .collect()
}

fn tally_directives(reference: &Table, have: &BTreeSet<(Area, String)>) -> BTreeMap<String, Tally> {
    let mut modules: BTreeMap<String, Tally> = BTreeMap::new();
    for row in reference.rows().filter(|r| !ELSEWHERE.contains(&r.get("module"))) {
        let name = row.get("directive");
        let found = areas(row.get("contexts")).into_iter().any(|area| have.contains(&(area, name.to_string())));
        modules.entry(row.get("module").to_string()).or_default().count(name, found);
    }
    modules
}

fn tally_variables(reference: &Table, have: &BTreeSet<String>) -> BTreeMap<String, Tally> {
    let mut modules: BTreeMap<String, Tally> = BTreeMap::new();
    for row in reference.rows() {
        let name = row.get("variable");
        // Families (`$arg_`) are dumped with or without what stands for the rest of the name.
        let bare = name.trim_start_matches('$').trim_end_matches(['*', '…']).to_string();
        let stream = row.get("module").starts_with("ngx_stream");
        let found = have.contains(&bare) && !stream || have.contains(&format!("stream {bare}"));
        modules.entry(row.get("module").to_string()).or_default().count(name, found);
    }
    modules
}

/// The variables the program has, without `$`; those of stream with `stream ` before them.
fn variables() -> Outcome<BTreeSet<String>> {
    let mut command = Command::new(tools::server()?);
    command.arg("--dump-variables");
    Ok(parse_variables(&tools::output(command)?))
}

fn parse_variables(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let mut cells = line.split('\t').rev();
        let name = if line.contains('\t') { line.split('\t').nth(1) } else { cells.next() };
        let name = name.unwrap_or_default().trim_start_matches('$').trim_end_matches(['*', '…']);
        let area = if line.starts_with("stream") || line.starts_with("ngx_stream") { "stream " } else { "" };
        names.insert(format!("{area}{name}"));
    }
    names
}

fn known_options() -> Outcome<Vec<&'static str>> {
    let server = tools::server()?;
    let out = Command::new(server).arg("-h").output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    let letters: BTreeSet<String> = text
        .split(|c: char| c.is_whitespace() || ",[]|".contains(c))
        .filter_map(|w| w.strip_prefix('-'))
        .flat_map(|w| w.chars().map(|c| format!("-{c}")).collect::<Vec<_>>())
        .collect();
    Ok(OPTIONS.into_iter().filter(|o| letters.contains(*o)).collect())
}

fn totals(
    directives: &BTreeMap<String, Tally>,
    variables: &BTreeMap<String, Tally>,
    usage: &Table,
    have: &BTreeSet<(Area, String)>,
    options: &[&str],
) -> String {
    let sum = |tallies: &BTreeMap<String, Tally>| {
        tallies.values().fold((0, 0), |(have, all), t| (have + t.have, all + t.all))
    };
    let ((d_have, d_all), (v_have, v_all)) = (sum(directives), sum(variables));
    let (mut used, mut covered) = (0u64, 0u64);
    for row in usage.rows() {
        let files: u64 = row.get("files").parse().unwrap_or(0);
        let name = row.get("directive");
        used += files;
        covered += if have.iter().any(|(_, n)| n == name) { files } else { 0 };
    }
    format!(
        "totals: directives {d_have} of {d_all}, variables {v_have} of {v_all}, options {} of {}; \
         of the directives in public configurations {} %, weighted by files",
        options.len(),
        OPTIONS.len(),
        100 * covered / used.max(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_contexts() {
        let cases = [
            ("main", vec![Area::Core]),
            ("http,server,location", vec![Area::Http]),
            ("stream,stream-server", vec![Area::Stream]),
            ("http | if-in-location", vec![Area::Http]),
        ];
        for (contexts, expect) in cases {
            assert_eq!(areas(contexts).into_iter().collect::<Vec<_>>(), expect, "{contexts}");
        }
    }

    #[test]
    fn tallies() {
        let table = Table::parse("module\tdirective\tcontexts\nm\ta\thttp\nm\tb\thttp\nn\ta\tstream\n");
        let have = BTreeSet::from([(Area::Http, "a".to_string())]);
        let tallies = tally_directives(&table, &have);
        assert_eq!((tallies["m"].have, tallies["m"].all, tallies["n"].have), (1, 2, 0));
        let variables = tally_variables(
            &Table::parse("module\tvariable\nngx_http_core_module\t$uri\nngx_stream_core_module\t$uri\n"),
            &parse_variables("http\turi\n"),
        );
        assert_eq!((variables["ngx_http_core_module"].have, variables["ngx_stream_core_module"].have), (1, 0));
    }
}
