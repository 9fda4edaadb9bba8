//! The manual of directives, written from the program's own tables: one page per module.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use conf::manual::Text;

use crate::tools::{self, Options, Outcome};

/// A directive as the program describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Directive {
    /// The module it belongs to.
    pub module: String,
    /// Its name.
    pub name: String,
    /// Where it may stand.
    pub contexts: String,
    /// How many arguments it takes.
    pub arity: String,
    /// The kind of its value.
    pub kind: String,
    /// Its default, empty if there is none.
    pub default: String,
    /// How it is written.
    pub syntax: String,
    /// Its text.
    pub doc: String,
}

/// What `--help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask docs [--check]

Writes docs/directives from the tables of the release build with all modules (or of TIDEGATE_BINARY, which must have
them: cargo build --features image,zstd).

  --check   writes nothing; pages that would change are an error
";

/// Runs the task. With `--check` nothing is written; pages that would change are an error.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--check"], &[])?;
    let program = tools::server()?;
    let directives = directives_of(&program)?;
    for name in ["image_filter", "zstd"] {
        if !directives.iter().any(|directive| directive.name == name) {
            return Err(format!("the program lacks {name}: build it with --features {}", tools::ALL_MODULES));
        }
    }
    let mut pages = pages(&directives);
    pages.insert("variables.md".to_string(), variables_page(&variables(&program)?));
    let folder = tools::root().join("docs/directives");
    let mut stale = Vec::new();
    for (name, text) in &pages {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        stale.push(name.clone());
        if !options.has("--check") {
            tools::write(&path, text)?;
        }
    }
    for path in tools::files(&folder) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !pages.contains_key(&name) {
            stale.push(name);
            if !options.has("--check") {
                std::fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
    }
    if options.has("--check") && !stale.is_empty() {
        return Err(format!("docs/directives is out of date ({}); run: cargo xtask docs", stale.join(" ")));
    }
    println!("docs/directives: {} pages, {} changed", pages.len(), stale.len());
    Ok(())
}

/// The directives of the built program.
pub(crate) fn directives() -> Outcome<Vec<Directive>> {
    directives_of(&tools::server()?)
}

/// The directives of a program.
pub(crate) fn directives_of(program: &Path) -> Outcome<Vec<Directive>> {
    let mut command = Command::new(program);
    command.arg("--dump-directives");
    Ok(parse(&tools::output(command)?))
}

/// A variable as the program describes it: module, name, text.
pub(crate) type Variable = (String, String, String);

/// The variables of a program.
pub(crate) fn variables(program: &Path) -> Outcome<Vec<Variable>> {
    let mut command = Command::new(program);
    command.arg("--dump-variables");
    let text = tools::output(command)?;
    let row = |line: &str| {
        let mut cells = line.split('\t').map(str::to_string);
        Some((cells.next()?, cells.next()?, cells.next()?))
    };
    Ok(text.lines().skip(1).filter_map(row).collect())
}

/// The page of all variables, by module.
fn variables_page(variables: &[Variable]) -> String {
    let mut page = String::from(VARIABLES);
    let mut last = "";
    for (module, name, text) in variables {
        if module != last {
            page += &format!("\n## {module}\n\n| variable | what it holds |\n|---|---|\n");
            last = module;
        }
        page += &format!("| `${name}` | {} |\n", text.replace('|', "\\|"));
    }
    page
}

const VARIABLES: &str = "\
<!-- Written by `cargo xtask docs` from the modules' variables. -->
# Variables

By module. A `*` stands for the rest of a name: `$http_accept` is one of `$http_*`. A variable without a value is empty in
texts and `-` in access logs. `map`, `set` and the named captures of regexes define further ones. `tidegate --explain
'$NAME'` prints a variable's text.
";

fn parse(text: &str) -> Vec<Directive> {
    let row = |line: &str| {
        let mut cells = line.splitn(8, '\t').map(str::to_string);
        let mut next = || cells.next().unwrap_or_default();
        Directive {
            module: next(),
            name: next(),
            contexts: next(),
            arity: next(),
            kind: next(),
            default: next(),
            syntax: next(),
            doc: conf::manual::unescaped(&next()),
        }
    };
    text.lines().filter(|l| l.contains('\t')).map(row).filter(|d| d.module != "module" || d.name != "name").collect()
}

/// What the first page says before its index.
const FIRST_PAGE: &str = "\
<!-- Written by `cargo xtask docs` from the directive tables. -->
# Directives

One page for each module, written from the tables from which the program reads configurations. `tidegate --explain NAME`
prints the same for one directive. Each directive has its syntax (`arg` is any argument, what stands in brackets may be
left out), a table and a text. The columns of the table:

- **default**: what holds where the directive isn't set. A line in `code` that ends with `;` could be written as it
  stands; words describe a value that is computed at the start or depends on other directives.
- **context**: the blocks in which the directive may stand. `main` is outside of all blocks.
- **arguments**: how many it takes. `flag` is exactly one, `on` or `off`; `1 or 2` and `2+` (2 or more) are numbers;
  `block` is followed by a block in braces, and `block:1` by one argument and a block.
- **inherited**: whether blocks inside have what is set here. `yes`: a block that doesn't set the directive has the value
  of the block around it; one that sets it replaces that value, and lists as a whole. `no`: it holds for the block in
  which it stands, alone. `with the list`: it adds to a list that another directive of the module is inherited with. `–`:
  it makes something (a server, a location, a rule) where it stands.

The text says what the directive does, then its parameters; **Effect**, **Cost** and **Danger** say what changes, what
that takes and what may go wrong. Every example loads as it stands, in one of the directive's contexts.

[Variables](variables.md) have a page of their own.

";

fn pages(directives: &[Directive]) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<&str, Vec<&Directive>> = BTreeMap::new();
    for directive in directives {
        modules.entry(&directive.module).or_default().push(directive);
    }
    let mut pages = BTreeMap::new();
    let mut index = String::from(FIRST_PAGE);
    for (module, list) in modules {
        let mut page = format!("<!-- Written by `cargo xtask docs` from the directive tables. -->\n# {module}\n");
        index += &format!("## [{module}]({module}.md)\n\n");
        let links: Vec<_> = list.iter().map(|d| format!("[{0}]({module}.md#{0})", d.name)).collect();
        index += &(links.join(" · ") + "\n\n");
        list.iter().for_each(|d| page += &section(d));
        pages.insert(format!("{module}.md"), page);
    }
    pages.insert("README.md".to_string(), index.trim_end().to_string() + "\n");
    pages
}

fn section(directive: &Directive) -> String {
    let default = match &*directive.default {
        "" => "none".to_string(),
        text if text.starts_with(&format!("{} ", directive.name)) => format!("`{text}`"),
        words => words.to_string(),
    };
    let inherited = match &*directive.kind {
        "scalar" | "list" | "set" => "yes",
        "here" | "last" => "no",
        "also" => "with the list",
        _ => "–",
    };
    format!(
        "\n## {}\n\n`{}`\n\n| default | context | arguments | inherited |\n|---|---|---|---|\n| {} | {} | {} | {inherited} |\n\n{}",
        directive.name,
        directive.syntax,
        default.replace('|', "\\|"),
        directive.contexts,
        directive.arity.replace('|', " or "),
        Text::parse(&directive.doc).map_or_else(|_| directive.doc.clone() + "\n", |text| text.markdown()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_variables() {
        let own = |text: &str| text.to_string();
        let page = variables_page(&[(own("m"), own("a"), own("An a|b.")), (own("m"), own("b_*"), own("A b."))]);
        assert!(
            page.ends_with(
                "\n## m\n\n| variable | what it holds |\n|---|---|\n| `$a` | An a\\|b. |\n| `$b_*` | A b. |\n"
            )
        );
    }

    #[test]
    fn a_page() {
        let row = "http\tsendfile\thttp, server\tflag\tscalar\tsendfile off;\tsendfile on | off;\tSends by the kernel.\\nMore.\n";
        let list = parse(&format!("{row}ignored\n"));
        assert_eq!(list.len(), 1);
        let pages = pages(&list);
        let page = &pages["http.md"];
        assert!(page.contains("## sendfile\n\n`sendfile on | off;`\n"), "{page}");
        assert!(
            page.contains("| `sendfile off;` | http, server | flag | yes |\n\nSends by the kernel. More.\n"),
            "{page}"
        );
        assert!(pages["README.md"].contains("[sendfile](http.md#sendfile)"));
    }
}
