//! The manual of directives, written from the program's own tables: one page per module.

use std::collections::BTreeMap;
use std::process::Command;

use crate::tools::{self, Options, Outcome};

/// A directive as the program describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Directive {
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
    /// What it does.
    pub doc: String,
}

/// What `--help` prints.
pub const HELP: &str = "\
usage: cargo xtask docs [--check]

Writes docs/directives from the tables of the release build (or of TIDEGATE_BINARY).

  --check   writes nothing; pages that would change are an error
";

/// Runs the task. With `--check` nothing is written; pages that would change are an error.
pub fn run(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["--check"], &[])?;
    let pages = pages(&directives()?);
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
pub fn directives() -> Outcome<Vec<Directive>> {
    let mut command = Command::new(tools::server()?);
    command.arg("--dump-directives");
    Ok(parse(&tools::output(command)?))
}

fn parse(text: &str) -> Vec<Directive> {
    let row = |line: &str| {
        let mut cells = line.splitn(7, '\t').map(str::to_string);
        let mut next = || cells.next().unwrap_or_default();
        Directive {
            module: next(),
            name: next(),
            contexts: next(),
            arity: next(),
            kind: next(),
            default: next(),
            doc: next().replace("\\n", "\n").trim().to_string(),
        }
    };
    text.lines().filter(|l| l.contains('\t')).map(row).filter(|d| d.module != "module" || d.name != "name").collect()
}

fn pages(directives: &[Directive]) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<&str, Vec<&Directive>> = BTreeMap::new();
    for directive in directives {
        modules.entry(&directive.module).or_default().push(directive);
    }
    let mut pages = BTreeMap::new();
    let mut index = String::from("<!-- Written by `cargo xtask docs` from the directive tables. -->\n# Directives\n\n");
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
    format!(
        "\n## {}\n\n| arguments | value | default | context |\n|---|---|---|---|\n| {} | {} | {default} | {} |\n\n{}\n",
        directive.name,
        directive.arity.replace('|', " or "),
        directive.kind.replace('|', " or "),
        directive.contexts.replace(['|', ','], ", ").replace("  ", " "),
        if directive.doc.is_empty() { "(undocumented)" } else { &directive.doc }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let list =
            parse("http\tsendfile\thttp,server\tflag\tflag\tsendfile off;\tSends by the kernel.\\nMore.\nignored\n");
        assert_eq!(list.len(), 1);
        let pages = pages(&list);
        let page = &pages["http.md"];
        assert!(page.contains("## sendfile\n") && page.contains("`sendfile off;`"), "{page}");
        assert!(page.contains("http, server") && page.contains("Sends by the kernel.\nMore.\n"), "{page}");
        assert!(pages["README.md"].contains("[sendfile](http.md#sendfile)"));
    }
}
