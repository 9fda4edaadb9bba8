//! Import circles: files of a crate that all need one another, directly or through others.
//!
//! What a file needs is read from its text: the paths of its `use` declarations, and those in its code that begin with
//! `crate`, `super`, `self` or a module below it. Paths that macros make are missed. That a file declares the modules below
//! it, and passes on what is theirs (`pub use`), is no need; what it names of them in its code is.

use std::collections::{BTreeMap, BTreeSet};

/// A module's path in its crate; the root's is empty.
type Module = Vec<String>;

/// The number of files in the largest circle of a crate, 1 if there is none. Its files are given by their paths below
/// `src` and their texts without tests.
pub(crate) fn largest<T: AsRef<str>>(files: &[(T, T)]) -> usize {
    let modules: BTreeSet<Module> = files.iter().map(|(path, _)| module(path.as_ref())).collect();
    let needs: BTreeMap<Module, BTreeSet<Module>> = files
        .iter()
        .map(|(path, code)| (module(path.as_ref()), needs(module(path.as_ref()), code.as_ref(), &modules)))
        .collect();
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = needs.keys().map(|from| (from, reach(from, &needs))).collect();
    let circle =
        |(from, to): (&&Module, &BTreeSet<&Module>)| to.iter().filter(|one| reached[**one].contains(*from)).count();
    reached.iter().map(circle).max().unwrap_or(0).max(1)
}

/// All modules that one needs, directly or through others.
fn reach<'a>(from: &Module, needs: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Module> = needs[from].iter().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(&needs[module]);
        }
    }
    reached
}

fn module(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut names: Module = path.split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str())) {
        names.pop();
    }
    names
}

/// The modules that a file needs, but for the crate's root.
fn needs(own: Module, code: &str, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let text = bare(code);
    let mut tokens = tokens(&text).into_iter().peekable();
    let mut found = BTreeSet::new();
    let mut before = "";
    while let Some(token) = tokens.next() {
        // (`use<…>` in a type is no declaration.)
        if token == "use" && tokens.peek().is_some_and(|next| *next != "<") {
            let declared: Vec<&str> = tokens.by_ref().take_while(|token| *token != ";").collect();
            let named = paths(&declared).into_iter().filter_map(|path| resolve(&own, &path, modules));
            found.extend(named.filter(|named| !named.starts_with(&own)));
        } else if is_word(token) && !["::", "."].contains(&before) {
            let mut path = vec![token];
            while tokens.next_if_eq(&"::").is_some() {
                match tokens.next_if(|next| is_word(next)) {
                    Some(next) => path.push(next),
                    None => break,
                }
            }
            found.extend((path.len() > 1).then(|| resolve(&own, &path, modules)).flatten());
        }
        before = token;
    }
    found.retain(|module| *module != own && !module.is_empty());
    found
}

/// The module that a path leads into, if it is one of the crate.
fn resolve(own: &Module, path: &[&str], modules: &BTreeSet<Module>) -> Option<Module> {
    let mut base = own.clone();
    let mut rest = path;
    match path.first()? {
        &"crate" => {
            base.clear();
            rest = &path[1..];
        }
        &"super" | &"self" => {
            while let Some((first, others)) = rest.split_first().filter(|(first, _)| ["super", "self"].contains(first))
            {
                if *first == "super" {
                    base.pop();
                }
                rest = others;
            }
        }
        first => {
            let below = [&base[..], &[(*first).to_owned()]].concat();
            modules.get(&below)?;
        }
    }
    let mut best = None;
    for name in std::iter::once(None).chain(rest.iter().map(Some)) {
        base.extend(name.map(|name| (*name).to_owned()));
        if modules.contains(&base) {
            best = Some(base.clone());
        }
    }
    best
}

/// The paths of a `use` declaration: those of `a::{b, c::d}` are `a::b` and `a::c::d`.
fn paths<'a>(tokens: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut found = Vec::new();
    // What stands before each open brace.
    let mut open: Vec<Vec<&str>> = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let mut renamed = false;
    for token in tokens.iter().copied() {
        match token {
            "{" => open.push(path.clone()),
            "," | "}" => {
                let outer = open.last().cloned().unwrap_or_default();
                // (Nothing stands between a comma and a brace.)
                if path.len() > outer.len() {
                    found.push(path);
                }
                path = if token == "," { outer } else { Vec::new() };
                open.truncate(open.len() - usize::from(token == "}"));
                renamed = false;
            }
            "as" => renamed = true,
            word if is_word(word) && !renamed => path.push(word),
            _ => {}
        }
    }
    if !path.is_empty() {
        found.push(path);
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and what else there is, one character each.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match () {
            () if is_word(rest) => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
            () if rest.starts_with("::") => 2,
            () => first.len_utf8(),
        };
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    found
}

/// The text without comments, strings and characters.
fn bare(code: &str) -> String {
    let mut text = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n'),
            '"' => string(rest),
            'r' if !text.ends_with(|c: char| c.is_alphanumeric() || c == '_') || text.ends_with('b') => {
                raw_string(rest)
            }
            '\'' => character(rest),
            _ => None,
        };
        match skipped {
            Some(length) => {
                text.push(' ');
                rest = &rest[length..];
            }
            None => {
                text.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    text
}

/// The length of the string that the text begins with.
fn string(text: &str) -> Option<usize> {
    let mut escaped = true;
    let end = text.find(|c: char| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    end.map(|end| end + 1)
}

fn raw_string(text: &str) -> Option<usize> {
    let marks = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let inside = text.get(1 + marks..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    inside.find(&end).map(|at| 1 + marks + 1 + at + end.len())
}

/// The length of the character (and no lifetime) that the text begins with.
fn character(text: &str) -> Option<usize> {
    let mut inside = text[1..].char_indices();
    let (_, first) = inside.next()?;
    if first != '\\' {
        let (at, end) = inside.next()?;
        return (end == '\'').then_some(1 + at + 1);
    }
    let (escaped, _) = inside.next()?;
    text[1 + escaped + 1..].find('\'').map(|at| 1 + escaped + 1 + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_circles() {
        let check = |files: &[(&str, &str)], expect: usize| {
            assert_eq!(largest(files), expect, "{files:?}");
        };
        check(&[("lib.rs", "mod a;"), ("a.rs", "use crate::x;")], 1);
        // In a row.
        check(&[("a.rs", "use crate::b::X;"), ("b.rs", "use crate::c;"), ("c.rs", "")], 1);
        // Two, by a declaration and by a path in the code; with a third one.
        check(&[("a.rs", "use crate::{b::{X, Y}, d};"), ("b.rs", "fn f() { super::a::g() }")], 2);
        check(
            &[
                ("a.rs", "use super::b;"),
                ("b.rs", "use crate::c;"),
                ("c.rs", "use crate::a::A;"),
                ("d.rs", "use crate::a;"),
            ],
            3,
        );
        // Folders: a module passes on what is below it, or needs it.
        check(&[("a/mod.rs", "mod b;\npub use self::b::B;"), ("a/b.rs", "use super::A;")], 1);
        check(&[("a/mod.rs", "mod b;\nfn f() { b::g() }"), ("a/b.rs", "use super::A;")], 2);
        check(&[("a.rs", "fn f() { self::b::g() }"), ("a/b.rs", "use crate::a::A;")], 2);
        // The root may be named by all.
        check(&[("lib.rs", "fn f() { a::g() }"), ("a.rs", "use crate::f;")], 1);
        // Neither comments nor strings count, nor the modules of other crates.
        check(
            &[
                ("a.rs", "use crate::b;"),
                ("b.rs", "// crate::a::x\nlet s = (\"crate::a::x\", '\"', r#\"crate::a::\"#);"),
            ],
            1,
        );
        check(&[("a.rs", "use crate::b;"), ("b.rs", "use wire::a::X; fn f() { x.a::<u8>(); other::a::g() }")], 1);
        check(&[], 1);
    }

    #[test]
    fn paths_of_declarations() {
        let check = |text: &str, expect: &[&str]| {
            let found: Vec<String> = paths(&tokens(text)).iter().map(|path| path.join("::")).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("crate::a::B as C", &["crate::a::B"]);
        check("crate::{a::{B, C,}, d,}", &["crate::a::B", "crate::a::C", "crate::d"]);
        check(
            "crate::a::{self, b::{C, D as E}, f::*}, g",
            &["crate::a::self", "crate::a::b::C", "crate::a::b::D", "crate::a::f", "g"],
        );
    }

    #[test]
    fn bare_texts() {
        let check = |text: &str, expect: &str| assert_eq!(tokens(&bare(text)).concat(), expect, "{text}");
        check("a // b\nc", "ac");
        check(r#"x("a\"b", y)"#, "x(,y)");
        check(r###"x(r#"a"b"#, br"\", 'c', '\'', b'\\', &'d e, '\u{1F}')"###, "x(,b,,,b,&'de,)");
    }
}
