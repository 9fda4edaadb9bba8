//! `map`: variables whose values are looked up by other values.
//!
//! The order of a search is nginx's: the exact string, the longest wildcard in front, the longest one behind (both
//! with `hostnames` only), the regexes in the order of the file, the default.

use std::rc::Rc;

use conf::values::number;
use conf::{Args, Directive, Error, Level, Loader, Registry, Result, Word};
use expr::lookup::{Names, NamesError};
use expr::vars::Template;

use super::{Module, define_looked_up, each_line};
use crate::vars::{self, Regex, Variable};
use crate::{Proto, Session};

/// The module.
pub struct Map;

conf::table! {
    /// Maps of the protocol's whole block.
    pub struct MapConf of P: Proto, raw MapRaw,
        at P::tables().map, block P::PLACES.block, level Level::Main;

    /// Defines a variable whose value depends on another value.
    ///
    /// Form: `map source $name`
    ///
    /// - `source`: the text with variables that is looked up.
    /// - `$name`: the variable that is defined.
    /// - `value result`: a line of the block: a string in any case, or a regex after `~` or, if case doesn't count,
    ///   `~*`; and the result, which may contain variables and captures.
    /// - `default result`: the result if nothing matches; without it that is empty.
    /// - `hostnames`: values may be host names with a wildcard (`*.example.com`, `www.example.*`, `.example.com`). It
    ///   has to stand before them.
    /// - `include file`: further lines are read from a file.
    /// - `volatile`: the variable is computed at each use, not once for a request.
    ///
    /// Effect: strings are preferred to wildcards, those to regexes, which are tried in their order, unless the value is
    /// empty. With `hostnames` a dot at the end of the value doesn't count. A value that is a keyword is written after `\`.
    ///
    /// Cost: nothing for requests that don't use the variable. Strings are looked up in a table; each regex takes its
    /// own time.
    ///
    /// ```nginx http
    /// map $http_user_agent $is_bot {
    ///     ~*(bot|crawler) 1;
    ///     default 0;
    /// }
    /// ```
    ///
    /// ```nginx stream
    /// map $ssl_preread_server_name $database {
    ///     orders.example.com 127.0.0.1:5432;
    ///     default 127.0.0.1:5433;
    /// }
    /// ```
    "map" in P::PLACES.block, Args::exactly(2).block(), default none,
        block(map::<P>);
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "map_hash_max_size" in P::PLACES.block, Args::exactly(1), default "2048",
        scalar(number) map_hash_max_size: usize = 2048;
    /// Accepted for compatibility: Tidegate's tables size themselves.
    "map_hash_bucket_size" in P::PLACES.block, Args::exactly(1), default "64",
        scalar(number) map_hash_bucket_size: usize = 64;
}

impl<P: Proto> Module<P> for Map {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<MapConf<P>>();
    }
}

fn map<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let Parsed { map, volatile } = Table::parse::<P>(loader, d)?;
    let text = "The value that `map` gives to its source. Empty if nothing fits and there is no `default`.";
    define_looked_up::<P>(loader, d.arg(1), P::tables().map.module(), text, volatile, Rc::new(map))
}

impl<P: Proto> Variable<P> for Table {
    fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) -> bool {
        self.append(session, out);
        true
    }
}

/// A map's table.
struct Table {
    source: Rc<Template>,
    hostnames: bool,
    names: Names<Rc<Template>>,
    regexes: Vec<(Regex, Rc<Template>)>,
    default: Option<Rc<Template>>,
}

/// What a `map` directive says.
struct Parsed {
    map: Table,
    /// Whether the value is looked up at each use.
    volatile: bool,
}

impl Table {
    /// Reads `map SOURCE $name { … }`; the name is the caller's to define. Of several errors in the block all but the
    /// first are put into the loader.
    fn parse<P: Proto>(loader: &mut Loader<'_>, d: &Directive) -> Result<Parsed> {
        let source = vars::template_of::<P>(loader, d, &d.arg(0).text)?;
        let map = Table { source, hostnames: false, names: Names::new(), regexes: Vec::new(), default: None };
        let mut parsed = Parsed { map, volatile: false };
        each_line(loader, d, |loader, line| parsed.line::<P>(loader, line))?;
        parsed.map.names.shrink();
        Ok(parsed)
    }

    /// Appends the value for a session. There always is one, though it may be empty.
    fn append<S: Session>(&self, session: &mut S, out: &mut Vec<u8>) {
        let start = out.len();
        self.source.render(session, out);
        let found = self.find(session, out, start);
        out.truncate(start);
        if let Some(value) = found {
            value.render(session, out);
        }
    }

    /// Looks up what `out` holds from `start` on; `out` serves as scratch memory after that.
    fn find<S: Session>(&self, session: &mut S, out: &mut Vec<u8>, start: usize) -> Option<&Template> {
        if self.hostnames && out.len() > start && out.ends_with(b".") {
            out.pop();
        }
        let end = out.len();
        out.extend_from_within(start..end);
        out[end..].make_ascii_lowercase();
        if let Some(value) = self.names.lookup(&out[end..]) {
            return Some(value);
        }
        let subject = &out[start..end];
        let by_regex = match subject {
            // An empty value is compared with strings only.
            [] => None,
            _ => self.regexes.iter().find(|(regex, _)| regex.exec(session, subject).unwrap_or(false)),
        };
        by_regex.map(|(_, value)| value).or(self.default.as_ref()).map(|value| &**value)
    }
}

impl Parsed {
    /// A line of the block. Includes have been replaced by what they include.
    fn line<P: Proto>(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        match (&line.name.text[..], line.args.len()) {
            (b"hostnames", 0) => {
                self.map.hostnames = true;
                Ok(())
            }
            (b"volatile", 0) => {
                self.volatile = true;
                Ok(())
            }
            (_, 1) if line.block.is_none() => self.entry::<P>(loader, line),
            _ => Err(Error::on(line, "invalid number of the map parameters")),
        }
    }

    fn entry<P: Proto>(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        let map = &mut self.map;
        let value = vars::template_of::<P>(loader, line, &line.arg(0).text)?;
        if line.name.text == b"default" {
            if map.default.is_some() {
                return Err(Error::on(line, "duplicate default map parameter"));
            }
            map.default = Some(value);
            return Ok(());
        }
        if let Some(pattern) = line.name.text.strip_prefix(b"~") {
            let (pattern, caseless) = pattern.strip_prefix(b"*").map_or((pattern, false), |rest| (rest, true));
            map.regexes.push((vars::regex::<P>(loader, &line.name, pattern, caseless)?, value));
            return Ok(());
        }
        let key = line.name.text.strip_prefix(b"\\").unwrap_or(&line.name.text);
        let added = if map.hostnames { map.names.add(key, value) } else { map.names.add_exact(key, value) };
        added.map_err(|error| conflict(&line.name, &error))
    }
}

fn conflict(word: &Word, error: &NamesError) -> Error {
    Error::at(word, error.to_string())
}

#[cfg(test)]
mod tests {
    use conf::{Env, Sources};

    use super::*;
    use crate::testing::{Test, TestSession};

    fn word(text: &str) -> Word {
        Word { text: text.into(), ..Word::default() }
    }

    fn parse(lines: &[&str]) -> (Result<(Parsed, TestSession)>, usize) {
        let line = |line: &&str| {
            let mut words = line.split(' ').map(word);
            Directive { name: words.next().unwrap_or_default(), args: words.collect(), ..Directive::default() }
        };
        let block = Some(lines.iter().map(line).collect());
        let d = Directive { name: word("map"), args: vec![word("$a"), word("$b")], block, ..Directive::default() };
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let parsed = Table::parse::<Test>(&mut loader, &d);
        let parsed = parsed.and_then(|parsed| Ok((parsed, TestSession::new(&mut loader)?)));
        (parsed, loader.errors.len())
    }

    #[track_caller]
    fn check(lines: &[&str], pairs: &[(&str, &str)]) {
        let (parsed, mut session) = parse(lines).0.unwrap_or_else(|error| panic!("{error:?}"));
        for (text, expect) in pairs {
            session.text = text.as_bytes().to_vec();
            let mut out = b"<".to_vec();
            parsed.map.append(&mut session, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("<{expect}"), "{text}");
        }
    }

    #[test]
    fn strings_and_regexes() {
        check(
            &["a.B 1", "*.b 2", "~^X(.)$ r$1", "~*^x i", "\\default d", "\\~x t", "default [$a]"],
            &[
                ("A.b", "1"),
                ("*.B", "2"),
                ("c.b", "[c.b]"),
                ("X7", "r7"),
                ("x7", "i"),
                ("default", "d"),
                ("~x", "t"),
                ("a.b.", "[a.b.]"),
                ("", "[]"),
            ],
        );
        check(&["a 1"], &[("b", "")]);
    }

    #[test]
    fn regexes_see_no_empty_value_and_no_final_dot_of_a_host() {
        let lines = ["~^$ empty", r"~\.$ dot", "~^A(.*)$ [$1]", "~.* any", "default none"];
        check(&lines, &[("", "none"), (".", "dot"), ("A.b.", "dot"), ("A.b", "[.b]"), ("b", "any")]);
        check(&["~.* any"], &[("", "")]);
        let hosts = [&["hostnames"][..], &lines].concat();
        check(&hosts, &[("", "none"), (".", "none"), ("..", "dot"), ("A.b.", "[.b]"), ("A.b", "[.b]"), ("b.", "any")]);
    }

    #[test]
    fn hostnames() {
        check(
            &["hostnames", "a.b 1", "*.b 2", ".c 3", "m.* 4", "default 0"],
            &[("A.B", "1"), ("a.b.", "1"), ("x.y.b", "2"), ("c", "3"), ("m.x", "4"), ("b", "0"), (".", "0")],
        );
    }

    #[test]
    fn errors() {
        for (lines, expect) in [
            (&["default 1", "default 2"][..], "duplicate default map parameter"),
            (&["a 1 2"], "invalid number of the map parameters"),
            (&["a"], "invalid number of the map parameters"),
            (&["a 1", "A 2"], "conflicting parameter \"a\""),
            (&["hostnames", "a*b 1"], "invalid hostname or wildcard \"a*b\""),
            (&["a $"], "invalid variable name"),
        ] {
            let error = parse(lines).0.err().map(|error| error.message);
            assert_eq!(error.as_deref(), Some(expect), "{lines:?}");
        }
        assert_eq!(parse(&["a", "b", "c"]).1, 2);
        assert!(parse(&["volatile"]).0.is_ok_and(|(parsed, _)| parsed.volatile));
    }
}
