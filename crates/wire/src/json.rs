//! JSON (RFC 8259): values at given paths of a document, in one pass without a tree of it.
//!
//! A document is valid or it isn't: what stands before a fault counts for nothing. Strings must be valid as to escapes;
//! bytes above 127 are taken as they are.

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member of an object with this name.
    Member(Vec<u8>),
    /// The element of an array with this index.
    Element(usize),
}

/// Reads a path: `a.b[0]["c.d"]`. Names without quotes end at a dot or a bracket; those in quotes are strings of JSON.
pub fn parse_path(text: &[u8]) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'[' {
            let (step, used) = bracket(&text[at + 1..])?;
            steps.push(step);
            at += 1 + used;
            continue;
        }
        match (steps.is_empty(), text[at]) {
            // A name may only begin a path, or follow a dot.
            (true, _) => {}
            (false, b'.') => at += 1,
            (false, _) => return None,
        }
        let rest = &text[at..];
        let end = rest.iter().position(|byte| matches!(byte, b'.' | b'[')).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() || name == b"$" || name.iter().any(|byte| matches!(byte, b']' | b'"')) {
            return None;
        }
        steps.push(Step::Member(name.to_vec()));
        at += end;
    }
    (!steps.is_empty()).then_some(steps)
}

/// What follows an opening bracket, with its length.
fn bracket(text: &[u8]) -> Option<(Step, usize)> {
    if text.first() == Some(&b'"') {
        let mut scanner = Scanner { text, at: 1 };
        let name = scanner.string(true)?;
        return (scanner.next() == Some(b']')).then_some((Step::Member(name), scanner.at));
    }
    let end = text.iter().position(|&byte| byte == b']')?;
    let digits =
        std::str::from_utf8(&text[..end]).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((Step::Element(digits.parse().ok()?), end + 1))
}

/// Paths to look for, as a tree.
#[derive(Debug, Default)]
pub struct Paths {
    nodes: Vec<Node>,
    count: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// The paths that end here.
    ends: Vec<usize>,
    members: Vec<(Vec<u8>, usize)>,
    elements: Vec<(usize, usize)>,
}

/// The value of each path; `None` where the document has none.
pub type Values = Vec<Option<Vec<u8>>>;

impl Paths {
    /// Adds a path; gives its number.
    pub fn add(&mut self, path: &[Step]) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let at = path.iter().fold(0, |at, step| self.child(at, step));
        let number = self.count;
        self.nodes[at].ends.push(number);
        self.count += 1;
        number
    }

    fn child(&mut self, at: usize, step: &Step) -> usize {
        let next = self.nodes.len();
        let node = &mut self.nodes[at];
        let known = match step {
            Step::Member(name) => node.member(name),
            Step::Element(index) => node.element(*index),
        };
        if let Some(known) = known {
            return known;
        }
        match step {
            Step::Member(name) => node.members.push((name.clone(), next)),
            Step::Element(index) => node.elements.push((*index, next)),
        }
        self.nodes.push(Node::default());
        next
    }

    /// The values at the paths: strings decoded, all else as it stands in the document. `None` if the document is invalid,
    /// or nested deeper than `most`. If members of one name give a path several values, the last value counts; one that has
    /// none at the path takes none away.
    pub fn extract(&self, document: &[u8], most: usize) -> Option<Values> {
        let mut walk = Walk {
            paths: self,
            values: vec![None; self.count],
            scanner: Scanner { text: document, at: 0 },
            open: Vec::new(),
            most,
        };
        walk.run()?;
        Some(walk.values)
    }
}

impl Node {
    fn member(&self, name: &[u8]) -> Option<usize> {
        self.members.iter().find(|(own, _)| own == name).map(|(_, child)| *child)
    }

    fn element(&self, index: usize) -> Option<usize> {
        self.elements.iter().find(|(own, _)| *own == index).map(|(_, child)| *child)
    }
}

/// An object or an array that hasn't ended.
struct Open {
    /// The node of the paths that it fits, if any does.
    node: Option<usize>,
    start: usize,
    /// The index of the element that is next; `None` in an object.
    index: Option<usize>,
}

struct Walk<'d> {
    paths: &'d Paths,
    values: Values,
    scanner: Scanner<'d>,
    open: Vec<Open>,
    most: usize,
}

impl<'d> Walk<'d> {
    fn run(&mut self) -> Option<()> {
        let mut node = (!self.paths.nodes.is_empty()).then_some(0);
        loop {
            self.scanner.skip_blanks();
            let opened = self.value(node)?;
            // After a value come the ends of what it is the last part of, or the next one.
            let mut first = opened;
            loop {
                self.scanner.skip_blanks();
                let Some(open) = self.open.last_mut() else {
                    return self.scanner.peek().is_none().then_some(());
                };
                let end = if open.index.is_some() { b']' } else { b'}' };
                if self.scanner.peek() == Some(end) {
                    self.scanner.at += 1;
                    let Open { node, start, .. } = self.open.pop()?;
                    self.found(node, start);
                    first = false;
                    continue;
                }
                if !first {
                    (self.scanner.next() == Some(b',')).then_some(())?;
                    self.scanner.skip_blanks();
                }
                break;
            }
            node = self.step()?;
        }
    }

    /// The node of the next member or element, up to its value.
    fn step(&mut self) -> Option<Option<usize>> {
        let open = self.open.last_mut()?;
        let node = open.node.and_then(|node| self.paths.nodes.get(node));
        if let Some(index) = &mut open.index {
            let child = node.and_then(|node| node.element(*index));
            *index += 1;
            return Some(child);
        }
        (self.scanner.next() == Some(b'"')).then_some(())?;
        let name = self.scanner.string(node.is_some_and(|node| !node.members.is_empty()))?;
        self.scanner.skip_blanks();
        (self.scanner.next() == Some(b':')).then_some(())?;
        Some(node.and_then(|node| node.member(&name)))
    }

    /// Reads a value, or opens it: true.
    fn value(&mut self, node: Option<usize>) -> Option<bool> {
        let start = self.scanner.at;
        match self.scanner.peek()? {
            bracket @ (b'{' | b'[') => {
                self.scanner.at += 1;
                let index = (bracket == b'[').then_some(0);
                self.open.push(Open { node, start, index });
                return (self.open.len() <= self.most).then_some(true);
            }
            b'"' => {
                self.scanner.at += 1;
                let ends = self.ends(node);
                let text = self.scanner.string(!ends.is_empty())?;
                ends.iter().for_each(|&end| self.values[end] = Some(text.clone()));
                return Some(false);
            }
            b't' => self.scanner.word(b"true")?,
            b'f' => self.scanner.word(b"false")?,
            b'n' => self.scanner.word(b"null")?,
            _ => self.scanner.number()?,
        }
        self.found(node, start);
        Some(false)
    }

    /// The paths that end at a node.
    fn ends(&self, node: Option<usize>) -> &'d [usize] {
        node.and_then(|node| self.paths.nodes.get(node)).map_or(&[], |node| &node.ends)
    }

    /// What stands from `start` up to here is the value of the paths that end at the node.
    fn found(&mut self, node: Option<usize>, start: usize) {
        for &end in self.ends(node) {
            self.values[end] = Some(self.scanner.text[start..self.scanner.at].to_vec());
        }
    }
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    /// RFC 8259 §6.
    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.digits();
        (self.at > start).then_some(())
    }

    /// A string after its opening quote (§7), decoded if it is wanted.
    fn string(&mut self, wanted: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            if wanted {
                out.extend_from_slice(&self.text[start..self.at]);
            }
            match self.next()? {
                b'"' => return Some(out),
                b'\\' => {
                    let character = self.escape()?;
                    if wanted {
                        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                _ => return None,
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                let mut units = vec![unit];
                if (0xd800..0xdc00).contains(&unit) {
                    self.word(b"\\u")?;
                    units.push(self.hex()?);
                }
                // A half of a pair alone is no character.
                char::decode_utf16(units).next()?.ok()?
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, &byte| Some(value << 4 | char::from(byte).to_digit(16)? as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(document: &str, paths: &[&str]) -> Option<Vec<Option<String>>> {
        let mut tree = Paths::default();
        for path in paths {
            tree.add(&parse_path(path.as_bytes()).unwrap_or_else(|| panic!("{path}")));
        }
        let values = tree.extract(document.as_bytes(), 5)?;
        Some(values.into_iter().map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned())).collect())
    }

    #[test]
    fn values() {
        for (document, path, expect) in [
            (r#"{"name":"John","age":30}"#, "name", Some("John")),
            (r#"{"name":"John","age":30}"#, "age", Some("30")),
            (r#"{"name":"John"}"#, "other", None),
            (r#"{"a":{"b":{"c":7,"d":8}}}"#, "a.b", Some(r#"{"c":7,"d":8}"#)),
            (r#"{"a":{"b":{"c":7,"d":8}}}"#, "a.b.c", Some("7")),
            (r#" [ 10 , 20 , [ 1 , 2 ] ] "#, "[2]", Some("[ 1 , 2 ]")),
            ("[[1,2],[3,4]]", "[1][0]", Some("3")),
            (r#"[{"x":[1,2,3]},{"y":"yes"}]"#, "[1].y", Some("yes")),
            (r#"{"t":true,"f":false,"n":null}"#, "n", Some("null")),
            (r#"{"n":-7.25e+10}"#, "n", Some("-7.25e+10")),
            (r#"{"o":{},"a":[]}"#, "o", Some("{}")),
            (r#"{"o":{},"a":[]}"#, "a", Some("[]")),
            (r#"{"s":"a\nb\t\"\/\\"}"#, "s", Some("a\nb\t\"/\\")),
            (r#"{"s":"\uD83D\uDE00\u8898"}"#, "s", Some("\u{1f600}\u{8898}")),
            (r#"{"a":1,"a":2}"#, "a", Some("2")),
            (r#"{"o":{"k":1},"o":{"x":2}}"#, "o.k", Some("1")),
            (r#"{"a.b":{"":"x"}}"#, r#"["a.b"][""]"#, Some("x")),
            (r#"{"o":{"x\uD83D\uDE00y":1}}"#, "o[\"x\\ud83d\\ude00y\"]", Some("1")),
            (r#"{"a]b":1}"#, r#"["a]b"]"#, Some("1")),
            ("[1]", "a", None),
            (r#"{"0":1}"#, "[0]", None),
            ("[[[[[1]]]]]", "[0][0][0][0][0]", Some("1")),
        ] {
            assert_eq!(look(document, &[path]), Some(vec![expect.map(str::to_owned)]), "{document} {path}");
        }
        let both = look(r#"{"a":"x","b":[1]}"#, &["b", "a", "a", "b[0]"]);
        assert_eq!(both, Some(["[1]", "x", "x", "1"].map(|text| Some(text.to_owned())).to_vec()));
    }

    #[test]
    fn what_is_invalid_has_no_values() {
        for document in [
            "",
            " ",
            "{bad",
            r#"{"a":1"#,
            r#"{"a":1}}"#,
            r#"{"a":1} x"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{a:1}"#,
            r#"{"a":1,"x":"\uDEAD"}"#,
            r#"{"a":1,"x":"\uD83D"}"#,
            r#"{"a":1,"x":"\uD83Dx"}"#,
            r#"{"a":1,"x":"\u12"}"#,
            r#"{"a":1,"x":"\q"}"#,
            "{\"a\":1,\"x\":\"\n\"}",
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e}"#,
            r#"{"a":tru}"#,
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "[[[[[[1]]]]]]",
        ] {
            assert_eq!(look(document, &["a"]), None, "{document}");
        }
    }

    #[test]
    fn paths() {
        for path in [
            "",
            ".foo",
            "foo.",
            "foo..bar",
            "$",
            "$.foo",
            "a[0]b",
            "a[\"x\"]y",
            "a[]",
            "a[xyz]",
            "a[1a]",
            "a[12",
            "a[-1]",
            "a[\"abc",
            "a[\"x\"",
            "a[\"x\"b",
            "a[\"x\\q\"]",
            "a[\"\\u12\"]",
            "o[\"x\\uD83D\"]",
            "a[99999999999999999999999]",
            "a]",
            "a\"b",
        ] {
            assert_eq!(parse_path(path.as_bytes()), None, "{path}");
        }
        let member = |name: &str| Step::Member(name.into());
        let expect = vec![member("foo"), member("x.y"), member("bar"), Step::Element(7), member("$id")];
        assert_eq!(parse_path(br#"foo["x.y"].bar[7].$id"#), Some(expect));
    }
}
