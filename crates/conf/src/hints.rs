//! What may help whoever reads an error: the name that was meant, the place where a directive may stand, its form, the
//! value that was meant.

use crate::manual::INCLUDE;
use crate::{Context, Directive, Registry, Row, Word};

mod values;

pub(crate) use values::explain;

/// Directives of nginx and its relatives: name, product, modules, sorted by name.
const KNOWN: &str = include_str!("known.tsv");

/// Directives that nginx no longer has, and what to write instead.
const REMOVED: &[(&str, &str)] = &[
    ("ssl", "nginx removed it in 1.25.1: give \"listen\" the parameter \"ssl\" instead, as in \"listen 443 ssl;\""),
    ("limit_zone", "nginx removed it in 1.7.6: write \"limit_conn_zone\" instead"),
    ("spdy_headers_comp", "nginx removed it together with SPDY: HTTP/2 needs no such setting"),
];

/// Directives of well-known modules of others: name and module, sorted by name.
const THIRD_PARTY: &str = include_str!("third_party.tsv");

/// What may be wrong about a directive that no table has.
pub(crate) fn unknown(registry: &Registry, context: Context, name: &Word) -> Option<String> {
    if name.text.starts_with(b"\xef\xbb\xbf") {
        return Some("the file begins with a byte order mark, which is no part of the language: remove it".into());
    }
    if let Some(hint) = values::no_name(&name.text) {
        return Some(hint);
    }
    hint(registry, context, std::str::from_utf8(&name.text).ok()?)
}

/// Modules that programs have only if they are built so, or never will have.
const APART: &[(&str, &str)] = &[
    ("ngx_http_image_filter_module", "this program is built without the feature \"image\", which this directive needs"),
    ("zstd-nginx-module", "this program is built without the feature \"zstd\", or the directive isn't known to it"),
    ("ngx_http_xslt_filter_module", "Tidegate has no XSLT: no processor in Rust does all of XSLT 1.0"),
];

/// The same for a bare name, as the command line has it.
pub(crate) fn hint(registry: &Registry, context: Context, name: &str) -> Option<String> {
    if let Some((_, hint)) = REMOVED.iter().find(|(removed, _)| *removed == name) {
        return Some((*hint).to_owned());
    }
    let module = known(name).map(|(_, module)| module).or_else(|| third_party(name));
    if let Some((_, hint)) = APART.iter().find(|(own, _)| module == Some(own)) {
        return Some((*hint).to_owned());
    }
    if let Some((product, module)) = known(name) {
        return Some(format!("{product} has this directive (module {module}), Tidegate does not have it yet"));
    }
    if let Some(module) = third_party(name) {
        return Some(format!("a third-party module's directive ({module}), Tidegate does not have it"));
    }
    if let Some((word, _)) = name.split_once('(').filter(|(word, _)| !word.is_empty()) {
        return Some(format!("white space is missing between \"{word}\" and \"(\""));
    }
    similar(registry, context, name).map(|near| format!("did you mean \"{near}\"?"))
}

/// The product that has a directive of that name, and its modules.
fn known(name: &str) -> Option<(&'static str, &'static str)> {
    let rest = KNOWN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
    rest.split_once('\t')
}

/// The module of others that has a directive of that name.
fn third_party(name: &str) -> Option<&'static str> {
    THIRD_PARTY.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))
}

/// Whether a directive's block may hold something else than directives: Lua, for one.
pub(crate) fn is_foreign(name: &Word) -> bool {
    std::str::from_utf8(&name.text).is_ok_and(|name| third_party(name).is_some())
}

/// The one of some names that is most like this one, if one is like it: for "did you mean".
pub fn similar_name<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = (name.chars().count() / 3).clamp(1, 4);
    let near = names.filter(|other| other.len().abs_diff(name.len()) <= 2 * most);
    let near = near.map(|other| (distance(name, other), other)).filter(|(distance, _)| *distance <= most);
    near.min().map(|(_, near)| near)
}

/// The name most like this one; one that is allowed in the context is preferred.
fn similar(registry: &Registry, context: Context, name: &str) -> Option<String> {
    // A third of the letters may differ.
    let most = (name.chars().count() / 3).clamp(1, 4);
    let rows = registry.tables().iter().flat_map(|table| &table.rows);
    rows.chain([&INCLUDE])
        .filter(|row| row.name.len().abs_diff(name.len()) <= 2 * most)
        .map(|row| (distance(name, &row.name), !row.contexts.meets(context), &*row.name))
        .filter(|&(distance, elsewhere, _)| distance <= if elsewhere { most.min(2) } else { most })
        .min()
        .map(|(_, _, near)| near.to_owned())
}

/// How many letters have to be changed, added, taken away or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// Where a directive may stand, for one that stands elsewhere.
pub(crate) fn misplaced<'r>(rows: impl Iterator<Item = &'r Row>) -> String {
    let all = rows.fold(Context(0), |all, row| all | row.contexts);
    format!("it may stand in: {}", all.describe())
}

/// How a directive is written.
pub(crate) fn form(row: &Row) -> String {
    format!("its form is \"{}\"", crate::manual::syntax(row))
}

/// The last word in front of a line break in a directive: there a semicolon may be missing.
pub(crate) fn line_break(directive: &Directive) -> Option<&Word> {
    let words = [&directive.name].into_iter().chain(&directive.args);
    let next_words = &directive.args;
    words.zip(next_words).find(|(word, next)| word.span.line < next.span.line).map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expect) in [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("lisen", "listen", 1), ("ab", "", 2)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expect, expect), "{a} {b}");
        }
    }

    #[test]
    fn modules_apart() {
        for (name, part) in [("image_filter", "\"image\""), ("zstd", "\"zstd\""), ("xslt_types", "no XSLT")] {
            let hint = hint(&Registry::new(), Context::HTTP, name).unwrap_or_default();
            assert!(hint.contains(part), "{name}: {hint}");
        }
    }

    #[test]
    fn known_directives() {
        assert_eq!(known("gzip_static"), Some(("nginx", "ngx_http_gzip_static_module")));
        assert_eq!(known("gzip_stati"), None);
        assert!(KNOWN.lines().all(|line| line.split('\t').count() == 3));
    }
}
