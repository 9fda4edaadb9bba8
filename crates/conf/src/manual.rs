//! The reference manual, out of the tables: for `--explain NAME`, `--dump-directives` and the pages in `docs`.

use std::borrow::Cow;

use crate::table::DefaultValue;
use crate::{Args, Context, Registry, Row};

mod text;

pub use text::Text;

/// The directive that the language itself has: the parser puts in its place what it includes.
pub(crate) const INCLUDE: Row = Row {
    name: Cow::Borrowed("include"),
    doc: Cow::Borrowed(
        " Reads another file, or all files that match a mask, in its place.\n\n Form: `include file | mask`\n\n - `file`: a \
          name; a relative one starts at the folder of the main configuration file.\n - `mask`: a name with `*`, `?` or \
          `[...]`; the files are read in the order of their names, and none at all is no error.\n\n Effect: the \
          directives of the file stand where `include` does; they must be allowed there.\n\n ```nginx\n http {\n     \
          include sites/*.conf;\n }\n ```\n",
    ),
    contexts: Context::ANY,
    args: Args::exactly(1),
    default: DefaultValue::None,
    kind: "also",
    part: None,
    set: |_, _, _| Ok(()),
};
const INCLUDE_MODULE: &str = "ngx_core_module";

/// Every directive with its module, in the order of the modules.
fn entries(registry: &Registry) -> impl Iterator<Item = (&'static str, Cow<'_, Row>)> {
    let rows =
        registry.tables().iter().flat_map(|table| table.rows.iter().map(|row| (table.module, Cow::Borrowed(row))));
    [(INCLUDE_MODULE, Cow::Owned(INCLUDE))].into_iter().chain(rows)
}

/// What `--explain NAME` prints, or nothing if no table has the name. A name may stand in several modules.
pub fn explain(registry: &Registry, name: &str) -> Option<String> {
    let found: Vec<String> =
        entries(registry).filter(|(_, row)| row.name == name).map(|(module, row)| entry(module, &row)).collect();
    (!found.is_empty()).then(|| found.join("\n"))
}

/// What `--explain '$NAME'` prints; the name has no `$`, and that of a family a `*` at its end.
pub fn variable(module: &str, name: &str, text: &str) -> String {
    let text = Text { what: vec![text.to_owned()], ..Text::default() };
    let lines = text.plain().lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!("Variable: ${name}\nModule:   {module}\n\n{lines}")
}

/// What may have been meant by a name that [`explain`] doesn't know.
pub fn hint(registry: &Registry, name: &str) -> Option<String> {
    crate::hints::hint(registry, Context::ANY, name)
}

fn entry(module: &str, row: &Row) -> String {
    let mut out = String::new();
    out.push_str(&format!("Syntax:   {}\n", syntax(row)));
    out.push_str(&format!("Default:  {}\n", default(row)));
    out.push_str(&format!("Context:  {}\n", row.contexts.describe()));
    out.push_str(&format!("Module:   {module}\n\n"));
    let text = Text::parse(&doc(row)).map_or_else(|_| doc(row), |text| text.plain());
    for line in text.lines() {
        out.push_str(format!("    {line}").trim_end());
        out.push('\n');
    }
    out
}

/// How a directive is written: as its text says, or by the number of its arguments.
pub(crate) fn syntax(row: &Row) -> String {
    let form = Text::parse(&doc(row)).ok().and_then(|text| text.form);
    match form {
        Some(form) if row.args.block => format!("{form} {{ ... }}"),
        Some(form) => format!("{form};"),
        None => row.args.form(&row.name),
    }
}

/// The text of a doc comment, without the blank that starts its lines. Of the examples of a row that several protocols have,
/// those that name another protocol are left out.
fn doc(row: &Row) -> String {
    let mut kept = Vec::new();
    let mut skips = false;
    for line in row.doc.trim_end().lines().map(|line| line.strip_prefix(' ').unwrap_or(line)) {
        let protocols = line.strip_prefix("```nginx ");
        let is_for = |protocols: &str| protocols.split(' ').any(|protocol| stands_in(row.contexts, protocol));
        skips |= protocols.is_some_and(|protocols| !is_for(protocols));
        if !skips {
            kept.push(if protocols.is_some() { "```nginx" } else { line });
        }
        skips &= line != "```";
    }
    kept.join("\n").trim_end().to_owned()
}

/// Whether a row of these contexts is one of the protocol.
fn stands_in(contexts: Context, protocol: &str) -> bool {
    let all = match protocol {
        "stream" => Context::STREAM | Context::STREAM_SERVER | Context::STREAM_UPSTREAM,
        "mail" => Context::MAIL | Context::MAIL_SERVER,
        _ => Context::HTTP | Context::SERVER | Context::LOCATION | Context::UPSTREAM,
    };
    contexts.meets(all)
}

fn default(row: &Row) -> String {
    match &row.default {
        DefaultValue::None => "none".to_owned(),
        DefaultValue::Text(text, _) => format!("{} {text};", row.name),
        DefaultValue::Computed(text) => text.to_string(),
    }
}

/// A heading and a line for each directive, with tabs between the fields: what `--dump-directives` prints. Texts are
/// escaped.
pub fn dump(registry: &Registry) -> String {
    let mut out = "module\tname\tcontexts\targs\ttype\tdefault\tsyntax\tdoc\n".to_owned();
    for (module, row) in entries(registry) {
        let default = match &row.default {
            DefaultValue::None => String::new(),
            _ => default(&row),
        };
        let doc = escaped(&doc(&row));
        let (contexts, arity, syntax) = (row.contexts.describe(), arity(&row.args), syntax(&row));
        let fields = [module, &row.name, &contexts, &arity, row.kind, &default, &syntax, &doc];
        out.push_str(&fields.join("\t"));
        out.push('\n');
    }
    out
}

/// A text in one line: ends of lines are written as `\n`, backslashes as `\\`.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', " ")
}

/// The text that [`dump`] has written in one line.
pub fn unescaped(line: &str) -> String {
    let mut parts = line.split("\\\\").map(|part| part.replace("\\n", "\n"));
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |text, part| text + "\\" + &part)
}

/// An arity in short: `flag`, `1`, `1|2`, `2+`, `block`, `block:1`.
fn arity(args: &Args) -> String {
    let (low, high) = (*args.count.start(), *args.count.end());
    let count = match high {
        _ if args.flag => "flag".to_owned(),
        usize::MAX => format!("{low}+"),
        _ => (low..=high).map(|n| n.to_string()).collect::<Vec<_>>().join("|"),
    };
    match (args.block, count.as_str()) {
        (true, "0") => "block".to_owned(),
        (true, count) => format!("block:{count}"),
        (false, count) => count.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Directive, Loader, Result, values};

    crate::table! {
        /// A configuration for this test.
        pub(super) struct TestConf, raw TestRaw, module "ngx_test_module", level HTTP Location;

        /// Compresses responses.
        /// Costs time.
        "gzip" in Context::HTTP | Context::LOCATION_IF, Args::FLAG, default "off",
            scalar(values::flag) gzip: bool = false;
        /// A block.
        "http" in Context::MAIN, Args::between(0, 1).block(), default none, block(nothing);
    }

    fn nothing(_: &mut Loader<'_>, _: &Directive) -> Result<()> {
        Ok(())
    }

    fn registry() -> Registry {
        let mut registry = Registry::new();
        registry.add::<TestConf>();
        registry
    }

    #[test]
    fn explains() {
        let text = "Syntax:   gzip on | off;\nDefault:  gzip off;\nContext:  http, if in location\n\
                    Module:   ngx_test_module\n\n    Compresses responses. Costs time.\n";
        assert_eq!(explain(&registry(), "gzip").as_deref(), Some(text));
        assert_eq!(explain(&registry(), "gzap"), None);
    }

    #[test]
    fn examples_of_other_protocols_are_left_out() {
        let text =
            " Does it.\n\n ```nginx http\n a;\n ```\n\n ```nginx stream mail\n b;\n ```\n\n ```nginx\n c;\n ```\n";
        let row = |contexts| Row { doc: text.into(), contexts, ..INCLUDE };
        let both = Context::HTTP | Context::STREAM;
        for (contexts, expect) in [
            (Context::LOCATION, &["a;", "c;"][..]),
            (Context::STREAM_SERVER, &["b;", "c;"]),
            (Context::MAIL, &["b;", "c;"]),
            (both, &["a;", "b;", "c;"]),
        ] {
            let text = Text::parse(&doc(&row(contexts))).expect("it is in the form");
            assert_eq!(
                (text.what.as_slice(), text.examples.as_slice()),
                (&["Does it.".to_owned()][..], &expect.iter().copied().map(str::to_owned).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn dumps() {
        let expect = [
            "module\tname\tcontexts\targs\ttype\tdefault\tsyntax\tdoc",
            "ngx_core_module\tinclude\tany context\t1\talso\t\tinclude file | mask;",
            "ngx_test_module\tgzip\thttp, if in location\tflag\tscalar\tgzip off;\tgzip on | off;\tCompresses \
             responses.\\nCosts time.",
            "ngx_test_module\thttp\tmain\tblock:0|1\tblock\t\thttp [arg] { ... }\tA block.",
        ];
        let text = dump(&registry());
        for (line, expect) in text.lines().zip(expect) {
            assert!(line.starts_with(expect), "{line}");
        }
        assert_eq!(text.lines().count(), expect.len());
    }

    #[test]
    fn texts_in_one_line() {
        for text in ["a\nb", "\\", "\\n", "a\\\nb\\", ""] {
            assert_eq!(unescaped(&escaped(text)), text);
            assert!(!escaped(text).contains('\n'));
        }
    }

    #[test]
    fn forms() {
        let check = |args: Args, form: &str, short: &str| {
            assert_eq!((args.form("x").as_str(), arity(&args).as_str()), (form, short));
        };
        check(Args::exactly(0), "x;", "0");
        check(Args::between(1, 2), "x arg [arg];", "1|2");
        check(Args::at_least(1), "x arg ...;", "1+");
        check(Args::exactly(0).block(), "x { ... }", "block");
        check(Args::exactly(2).block(), "x arg arg { ... }", "block:2");
    }
}
