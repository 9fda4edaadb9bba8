//! How much of nginx there is: directives, variables and options of the reference against what the program says it has;
//! and whether a directive may stand where it may in nginx, and takes as many arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::docs::{self, Directive};
use crate::tools::{self, Options, Outcome};
use crate::tsv::{Row, Table};

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
pub(crate) const HELP: &str = "\
usage: cargo xtask compat [--missing]
       cargo xtask compat FOLDER [--list]

Without a folder: how many of nginx's directives, variables and options there are, by module. A directive that may stand
elsewhere than in nginx or takes another number of arguments is an error, unless docs/COMPAT.md lists it.

  --missing   names those that are missing

With a folder of people's configurations: how many of its files load, and what is missing in the others, the most frequent
first. Certificates, folders, users and names that only their own machines have don't count against them. A file that
is only a part of a configuration is tested as one. As root it is the user nobody who tests them, on a copy.

  --list      also names the files that don't load, each with its first fault
";

/// Runs the task: a table by module, the totals in its last line. `--missing` names what is missing.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--missing", "--list"], &[])?;
    if let Some(folder) = options.rest.first() {
        return crate::configurations::run(Path::new(folder), options.has("--list"));
    }
    let have = docs::directives()?;
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
    let listed = listed(&tools::read(&tools::root().join("docs/COMPAT.md"))?);
    let differ = differences(&table, &have);
    let unlisted: Vec<_> = differ.iter().filter(|d| !listed.contains(&d.name)).map(|d| d.text.clone()).collect();
    let gone: Vec<_> = listed.iter().filter(|name| !differ.iter().any(|d| d.name == **name)).cloned().collect();
    if !unlisted.is_empty() || !gone.is_empty() {
        let gone = gone.iter().map(|name| format!("{name}: as in nginx, but listed in docs/COMPAT.md"));
        return Err(unlisted.into_iter().chain(gone).collect::<Vec<_>>().join("\n"));
    }
    println!("contexts and arguments: as in nginx, but for {} directives that docs/COMPAT.md lists", listed.len());
    Ok(())
}

/// A directive that isn't written as in nginx.
#[derive(Debug, PartialEq)]
struct Difference {
    name: String,
    text: String,
}

/// The names of contexts, in one spelling.
fn contexts(text: &str) -> BTreeSet<String> {
    let names = text.split([',', '|']).map(|name| name.trim().replace('-', " "));
    names.filter(|name| !name.is_empty()).map(|name| name.replace("any context", "any")).collect()
}

/// The program's directive that is the reference's: of the same name and with a context in common, of the same module if
/// there is one. `server` of http and of upstream are two directives, and so are `resolver` of both.
fn ours<'d>(reference: &Row<'_>, have: &'d [Directive]) -> Option<&'d Directive> {
    let wanted = contexts(reference.get("contexts"));
    let same = |d: &&Directive| d.name == reference.get("directive") && !contexts(&d.contexts).is_disjoint(&wanted);
    let mut found: Vec<_> = have.iter().filter(same).collect();
    found.sort_by_key(|d| d.module != reference.get("module"));
    found.first().copied()
}

/// Directives with other contexts or numbers of arguments than the reference's.
fn differences(reference: &Table, have: &[Directive]) -> Vec<Difference> {
    let mut found = Vec::new();
    for row in reference.rows() {
        let Some(own) = ours(&row, have) else { continue };
        let pairs = [("contexts", row.get("contexts"), &own.contexts), ("arguments", row.get("args"), &own.arity)];
        for (what, theirs, own_text) in pairs {
            let equal = if what == "contexts" { contexts(theirs) == contexts(own_text) } else { theirs == own_text };
            if !equal {
                let text = format!("{}: {what} {own_text}, in nginx {theirs}", own.name);
                found.push(Difference { name: own.name.clone(), text });
            }
        }
    }
    found
}

/// The directives that docs/COMPAT.md lists with a reason: the first cells of the table below its heading.
fn listed(compat: &str) -> BTreeSet<String> {
    let section = compat.split_once(HEADING).map_or("", |(_, rest)| rest.split("\n#").next().unwrap_or_default());
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_string).collect()
}

/// The heading in docs/COMPAT.md over the directives that differ in contexts or arguments.
const HEADING: &str = "### Contexts and arguments\n";

fn tally_directives(reference: &Table, have: &[Directive]) -> BTreeMap<String, Tally> {
    let mut modules: BTreeMap<String, Tally> = BTreeMap::new();
    for row in reference.rows().filter(|r| !ELSEWHERE.contains(&r.get("module"))) {
        let found = ours(&row, have).is_some();
        modules.entry(row.get("module").to_string()).or_default().count(row.get("directive"), found);
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
    have: &[Directive],
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
        covered += if have.iter().any(|d| d.name == name) { files } else { 0 };
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

    fn directive(module: &str, name: &str, contexts: &str, arity: &str) -> Directive {
        let [module, name, contexts, arity] = [module, name, contexts, arity].map(str::to_string);
        Directive {
            module,
            name,
            contexts,
            arity,
            kind: String::new(),
            default: String::new(),
            syntax: String::new(),
            doc: String::new(),
        }
    }

    #[test]
    fn contexts_and_arguments() {
        let table = Table::parse(
            "module\tdirective\tcontexts\targs\nm\ta\thttp,if-in-location\tflag\nu\ta\tupstream\t1\nm\tb\thttp,server\t1|2\n",
        );
        let check = |have: &[Directive], expect: &[&str]| {
            let found: Vec<_> = differences(&table, have).into_iter().map(|d| d.text).collect();
            assert_eq!(found, expect);
        };
        check(&[directive("m", "a", "http, if in location", "flag"), directive("m", "b", "server, http", "1|2")], &[]);
        check(&[directive("u", "a", "upstream", "1")], &[]);
        check(&[directive("m", "a", "http", "flag")], &["a: contexts http, in nginx http,if-in-location"]);
        check(&[directive("m", "b", "http, server", "1")], &["b: arguments 1, in nginx 1|2"]);
    }

    #[test]
    fn exceptions_are_listed() {
        let compat = format!(
            "### Other\n| `x` | \n\n{HEADING}\n| directive | why |\n|---|---|\n| `a` | so |\n\n## Next\n| `y` | |\n"
        );
        assert_eq!(listed(&compat), BTreeSet::from(["a".to_string()]));
        assert!(listed("").is_empty());
    }

    #[test]
    fn tallies() {
        let table = Table::parse("module\tdirective\tcontexts\nm\ta\thttp\nm\tb\thttp\nn\ta\tstream\n");
        let have = [directive("m", "a", "http", "1")];
        let tallies = tally_directives(&table, &have);
        assert_eq!((tallies["m"].have, tallies["m"].all, tallies["n"].have), (1, 2, 0));
        let variables = tally_variables(
            &Table::parse("module\tvariable\nngx_http_core_module\t$uri\nngx_stream_core_module\t$uri\n"),
            &parse_variables("http\turi\n"),
        );
        assert_eq!((variables["ngx_http_core_module"].have, variables["ngx_stream_core_module"].have), (1, 0));
    }
}
