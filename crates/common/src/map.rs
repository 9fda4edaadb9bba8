//! `map`: a value looked up by another one.
//!
//! The order of a search is nginx's: the exact string, the longest wildcard in front, the longest one behind (both
//! with `hostnames` only), the regexes in the order of the file, the default.

use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Word};
use expr::lookup::{Names, NamesError};
use expr::vars::Template;

use crate::Proto;

/// A map's table.
pub struct Map<P: Proto> {
    source: Rc<Template>,
    hostnames: bool,
    names: Names<Rc<Template>>,
    regexes: Vec<(P::Regex, Rc<Template>)>,
    default: Option<Rc<Template>>,
}

/// What a `map` directive says.
pub struct Parsed<P: Proto> {
    /// The table.
    pub map: Map<P>,
    /// Whether the value is looked up at each use.
    pub volatile: bool,
}

impl<P: Proto> Map<P> {
    /// Reads `map SOURCE $name { … }`; the name is the caller's to define. Of several errors in the block all but the
    /// first are put into the loader.
    pub fn parse(loader: &mut Loader<'_>, d: &Directive) -> Result<Parsed<P>> {
        let source = P::template(loader, d, &d.arg(0).text)?;
        let map = Map { source, hostnames: false, names: Names::new(), regexes: Vec::new(), default: None };
        let mut parsed = Parsed { map, volatile: false };
        let mut first = None;
        for line in d.entries() {
            if let Err(error) = line.and_then(|line| parsed.line(loader, line)) {
                match first {
                    None => first = Some(error),
                    Some(_) => loader.errors.push(error),
                }
            }
        }
        parsed.map.names.shrink();
        first.map_or(Ok(parsed), Err)
    }

    /// Appends the value for a session. There always is one, though it may be empty.
    pub fn value(&self, session: &mut P::Session, out: &mut Vec<u8>) {
        let start = out.len();
        self.source.render(session, out);
        let found = self.find(session, out, start);
        out.truncate(start);
        if let Some(value) = found {
            value.render(session, out);
        }
    }

    /// Looks up what `out` holds from `start` on; `out` serves as scratch memory behind that.
    fn find(&self, session: &mut P::Session, out: &mut Vec<u8>, start: usize) -> Option<&Template> {
        let end = out.len();
        out.extend_from_within(start..end);
        out[end..].make_ascii_lowercase();
        let mut name = &out[end..];
        if self.hostnames {
            name = name.strip_suffix(b".").unwrap_or(name);
        }
        if let Some(value) = self.names.lookup(name) {
            return Some(value);
        }
        let subject = &out[start..end];
        let by_regex = self.regexes.iter().find(|(regex, _)| P::matches(regex, session, subject));
        by_regex.map(|(_, value)| value).or(self.default.as_ref()).map(|value| &**value)
    }
}

impl<P: Proto> Parsed<P> {
    /// A line of the block. Includes have been replaced by what they include.
    fn line(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        match (&line.name.text[..], line.args.len()) {
            (b"hostnames", 0) => {
                self.map.hostnames = true;
                Ok(())
            }
            (b"volatile", 0) => {
                self.volatile = true;
                Ok(())
            }
            (_, 1) if line.block.is_none() => self.entry(loader, line),
            _ => Err(Error::on(line, "invalid number of the map parameters")),
        }
    }

    fn entry(&mut self, loader: &mut Loader<'_>, line: &Directive) -> Result<()> {
        let map = &mut self.map;
        let value = P::template(loader, line, &line.arg(0).text)?;
        if line.name.text == b"default" {
            if map.default.is_some() {
                return Err(Error::on(line, "duplicate default map parameter"));
            }
            map.default = Some(value);
            return Ok(());
        }
        if let Some(pattern) = line.name.text.strip_prefix(b"~") {
            let (pattern, caseless) = pattern.strip_prefix(b"*").map_or((pattern, false), |rest| (rest, true));
            map.regexes.push((P::regex(loader, &line.name, pattern, caseless)?, value));
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
    use conf::{Env, Registry, Sources};
    use expr::regex::{Captures, Regex};
    use expr::vars::{Session, VarId};

    use super::*;

    /// A protocol whose every variable is the session's text.
    struct Test;

    #[derive(Default)]
    struct TestSession {
        text: Vec<u8>,
        captures: Captures,
    }

    impl Session for TestSession {
        fn variable(&mut self, _: VarId, out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(&self.text);
            true
        }

        fn capture(&self, n: usize) -> Option<&[u8]> {
            self.captures.slice(&self.text, n)
        }
    }

    impl Proto for Test {
        type Session = TestSession;
        type Regex = Regex;

        fn template(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>> {
            let registry = loader.store.entry::<expr::vars::Registry<()>>();
            let template = Template::parse(text, &mut |name| registry.reference(name));
            template.map(Rc::new).map_err(|error| Error::on(d, error.to_string()))
        }

        fn regex(_: &mut Loader<'_>, word: &Word, pattern: &[u8], caseless: bool) -> Result<Regex> {
            Regex::new(pattern, caseless).map_err(|error| Error::at(word, error.to_string()))
        }

        fn matches(regex: &Regex, session: &mut TestSession, subject: &[u8]) -> bool {
            regex.captures(subject, &mut session.captures).unwrap_or(false)
        }

        fn log(_: &TestSession, _: engine::log::Level, _: std::fmt::Arguments<'_>) {}
    }

    fn word(text: &str) -> Word {
        Word { text: text.into(), ..Word::default() }
    }

    fn parse(lines: &[&str]) -> (Result<Parsed<Test>>, usize) {
        let line = |line: &&str| {
            let mut words = line.split(' ').map(word);
            Directive { name: words.next().unwrap_or_default(), args: words.collect(), ..Directive::default() }
        };
        let block = Some(lines.iter().map(line).collect());
        let d = Directive { name: word("map"), args: vec![word("$a"), word("$b")], block, ..Directive::default() };
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let parsed = Map::<Test>::parse(&mut loader, &d);
        (parsed, loader.errors.len())
    }

    #[track_caller]
    fn check(lines: &[&str], pairs: &[(&str, &str)]) {
        let map = parse(lines).0.map(|parsed| parsed.map).unwrap_or_else(|error| panic!("{error:?}"));
        for (text, expect) in pairs {
            let mut session = TestSession { text: text.as_bytes().to_vec(), ..TestSession::default() };
            let mut out = b"<".to_vec();
            map.value(&mut session, &mut out);
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
            (&["a 1", "A 2"], "conflicting parameter \"A\""),
            (&["hostnames", "a*b 1"], "invalid hostname or wildcard \"a*b\""),
            (&["a $"], "invalid variable name"),
        ] {
            let error = parse(lines).0.err().map(|error| error.message);
            assert_eq!(error.as_deref(), Some(expect), "{lines:?}");
        }
        assert_eq!(parse(&["a", "b", "c"]).1, 2);
        assert!(parse(&["volatile"]).0.is_ok_and(|parsed| parsed.volatile));
    }
}
