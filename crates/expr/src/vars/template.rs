//! Values compiled into constants, variables and captures.
//!
//! `$name` and `${name}` are variables, `$1` to `$9` captures (one digit, so `$10` is `$1` and a zero). There is no
//! way to write a dollar: nginx has none either.

use std::fmt;

use super::{Session, VarId};

/// Why a value doesn't compile; the text is nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A dollar without a name.
    InvalidName,
    /// `${name` without a brace at its end.
    Unclosed(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::InvalidName => f.write_str("invalid variable name"),
            TemplateError::Unclosed(name) => write!(f, "the closing bracket in \"{name}\" variable is missing"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Bytes as they are.
    Text(&'t [u8]),
    /// The value of a variable.
    Variable(VarId),
    /// A group of the last regex, 1 to 9.
    Capture(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Text { start: u32, end: u32 },
    Variable(VarId),
    Capture(u8),
}

/// A compiled value. A constant one has its text and no code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    text: Box<[u8]>,
    codes: Box<[Code]>,
    max_capture: u8,
}

impl Template {
    /// Compiles `text`; `resolve` gives the id of a name (see [`super::Registry::reference`]).
    pub fn parse(text: &[u8], resolve: &mut dyn FnMut(&str) -> VarId) -> Result<Template, TemplateError> {
        let mut builder = Builder::default();
        let mut rest = text;
        while let Some(dollar) = memchr::memchr(b'$', rest) {
            let (before, after) = rest.split_at(dollar);
            builder.text(before);
            rest = builder.reference(after.get(1..).unwrap_or_default(), resolve)?;
        }
        builder.text(rest);
        Ok(builder.finish())
    }

    /// A value that is `text` and nothing else, dollars included.
    pub fn constant(text: &[u8]) -> Template {
        Template { text: text.into(), codes: Box::default(), max_capture: 0 }
    }

    /// The value of one variable and nothing else, whatever its name consists of.
    pub fn variable(id: VarId) -> Template {
        Template { text: Box::default(), codes: [Code::Variable(id)].into(), max_capture: 0 }
    }

    /// The value, if it is the same for every session.
    pub fn is_const(&self) -> Option<&[u8]> {
        self.codes.is_empty().then_some(&self.text)
    }

    /// The variable, if the value is one and nothing else.
    pub fn is_variable(&self) -> Option<VarId> {
        match *self.codes {
            [Code::Variable(id)] => Some(id),
            _ => None,
        }
    }

    /// The highest capture that it reads; 0 for none: then a regex before it needn't take captures.
    pub fn max_capture(&self) -> usize {
        usize::from(self.max_capture)
    }

    /// The pieces in order. A constant has one text, or none if it is empty.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let constant = self.is_const().filter(|text| !text.is_empty()).map(Part::Text);
        constant.into_iter().chain(self.codes.iter().map(|code| match *code {
            Code::Text { start, end } => Part::Text(self.slice(start, end)),
            Code::Variable(id) => Part::Variable(id),
            Code::Capture(n) => Part::Capture(usize::from(n)),
        }))
    }

    /// Appends the value for `session` to `out`. What isn't found adds nothing.
    pub fn render<S: Session + ?Sized>(&self, session: &mut S, out: &mut Vec<u8>) {
        match *self.codes {
            [] => return out.extend_from_slice(&self.text),
            // Most values are one variable; there is nothing to be made again.
            [Code::Variable(id)] => {
                session.variable(id, out);
                return;
            }
            _ => {}
        }
        settled(self, session, out, |session, out| {
            for part in self.parts() {
                match part {
                    Part::Text(text) => out.extend_from_slice(text),
                    Part::Variable(id) => {
                        session.variable(id, out);
                    }
                    Part::Capture(n) => out.extend_from_slice(session.capture(n).unwrap_or_default()),
                }
            }
        });
    }

    /// The value for `session`: a constant is borrowed, anything else is rendered into `scratch`, whose former content
    /// is lost.
    pub fn value<'v, S: Session + ?Sized>(&'v self, session: &mut S, scratch: &'v mut Vec<u8>) -> &'v [u8] {
        if let Some(text) = self.is_const() {
            return text;
        }
        scratch.clear();
        self.render(session, scratch);
        scratch
    }

    fn slice(&self, start: u32, end: u32) -> &[u8] {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// Appends what `write` makes of `template`, all parts of it; returns what `write` does.
///
/// A variable that a regex makes (`map`) leaves that regex's captures behind. In nginx they count for the whole value, for
/// what stands before the variable too; so the value is made again, from its first part on, if a variable has changed them.
pub fn settled<S: Session + ?Sized, T>(
    template: &Template,
    session: &mut S,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut S, &mut Vec<u8>) -> T,
) -> T {
    let start = out.len();
    let serial = session.captures_serial();
    let written = write(session, out);
    if template.max_capture() == 0 || session.captures_serial() == serial {
        return written;
    }
    out.truncate(start);
    write(session, out)
}

#[derive(Default)]
struct Builder {
    text: Vec<u8>,
    codes: Vec<Code>,
    max_capture: u8,
}

impl Builder {
    fn text(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let start = self.offset();
        self.text.extend_from_slice(text);
        self.codes.push(Code::Text { start, end: self.offset() });
    }

    fn offset(&self) -> u32 {
        u32::try_from(self.text.len()).expect("a value in a configuration is shorter than 4 GiB")
    }

    /// Compiles what follows a dollar; gives back what follows the reference.
    fn reference<'t>(
        &mut self,
        after: &'t [u8],
        resolve: &mut dyn FnMut(&str) -> VarId,
    ) -> Result<&'t [u8], TemplateError> {
        if let [digit @ b'1'..=b'9', rest @ ..] = after {
            let n = digit - b'0';
            self.max_capture = self.max_capture.max(n);
            self.codes.push(Code::Capture(n));
            return Ok(rest);
        }
        let (name, rest) = match after.strip_prefix(b"{") {
            None => take_name(after)?,
            Some(inside) => {
                if inside.first().is_some_and(|c| !c.is_ascii_alphanumeric() && !matches!(c, b'_' | b'}')) {
                    return Err(TemplateError::Unclosed(String::new()));
                }
                let (name, rest) = take_name(inside)?;
                (name, rest.strip_prefix(b"}").ok_or_else(|| TemplateError::Unclosed(name.to_owned()))?)
            }
        };
        self.codes.push(Code::Variable(resolve(name)));
        Ok(rest)
    }

    fn finish(self) -> Template {
        let constant = matches!(*self.codes, [] | [Code::Text { .. }]);
        let codes = if constant { Box::default() } else { self.codes.into() };
        Template { text: self.text.into(), codes, max_capture: self.max_capture }
    }
}

/// The name at the front and what follows it; an empty one is an error.
fn take_name(text: &[u8]) -> Result<(&str, &[u8]), TemplateError> {
    let end = text.iter().position(|c| !c.is_ascii_alphanumeric() && *c != b'_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok((name, rest)),
        _ => Err(TemplateError::InvalidName),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Names(Vec<String>, u32);

    impl Session for Names {
        fn variable(&mut self, id: VarId, out: &mut Vec<u8>) -> bool {
            let name = self.0[id.index()].as_bytes();
            if name == b"missing" {
                return false;
            }
            // Its value comes of a regex.
            self.1 += u32::from(name == b"mapped");
            out.push(b'<');
            out.extend_from_slice(name);
            out.push(b'>');
            true
        }

        fn capture(&self, n: usize) -> Option<&[u8]> {
            let one = if self.1 > 0 { &b"new"[..] } else { b"one" };
            [None, Some(one), Some(b"two")].get(n).copied().flatten()
        }

        fn captures_serial(&self) -> u32 {
            self.1
        }
    }

    fn parse(text: &[u8]) -> Result<(Template, Names), TemplateError> {
        let mut names = Vec::new();
        let template = Template::parse(text, &mut |name| {
            names.push(name.to_owned());
            VarId(names.len() as u32 - 1)
        })?;
        Ok((template, Names(names, 0)))
    }

    fn render(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok((template, mut names)) => {
                let mut out = Vec::new();
                template.render(&mut names, &mut out);
                names.1 = 0;
                let mut scratch = b"old".to_vec();
                assert_eq!(template.value(&mut names, &mut scratch), out);
                String::from_utf8_lossy(&out).into_owned()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn values() {
        for (text, expect) in [
            ("", ""),
            ("plain", "plain"),
            ("$host", "<host>"),
            ("${host}", "<host>"),
            ("$host}", "<host>}"),
            ("${host}a$request_uri-$arg_x", "<host>a<request_uri>-<arg_x>"),
            ("[$missing]", "[]"),
            ("$1-$2-$3", "one-two-"),
            ("$10", "one0"),
            ("$1a", "onea"),
            ("$1-$mapped-$1$2", "new-<mapped>-newtwo"),
            ("$1-$host-$1", "one-<host>-one"),
            ("${1}", "<1>"),
            ("$0", "<0>"),
            ("$", "invalid variable name"),
            ("a$", "invalid variable name"),
            ("$-", "invalid variable name"),
            ("$é", "invalid variable name"),
            ("$$host", "invalid variable name"),
            ("${", "invalid variable name"),
            ("${}", "invalid variable name"),
            ("${a", "the closing bracket in \"a\" variable is missing"),
            ("${a-b}", "the closing bracket in \"a\" variable is missing"),
            ("\\$host", "\\<host>"),
        ] {
            assert_eq!(render(text), expect, "{text}");
        }
    }

    #[test]
    fn shapes() {
        for (text, constant, variable, max_capture, parts) in [
            ("", true, false, 0, 0),
            ("abc", true, false, 0, 1),
            ("$a", false, true, 0, 1),
            ("$a$b", false, false, 0, 2),
            ("x$2$1", false, false, 2, 3),
        ] {
            let (template, _) = parse(text.as_bytes()).expect("it parses");
            assert_eq!(template.is_const().is_some(), constant, "{text}");
            assert_eq!(template.is_variable().is_some(), variable, "{text}");
            assert_eq!(template.max_capture(), max_capture, "{text}");
            assert_eq!(template.parts().count(), parts, "{text}");
        }
        assert_eq!(Template::constant(b"$a").is_const(), Some(b"$a".as_slice()));
    }

    proptest! {
        #[test]
        fn parts_say_what_render_does(text in "[a$1{}_ ]{0,12}") {
            if let Ok((template, mut names)) = parse(text.as_bytes()) {
                let (mut rendered, mut joined) = (Vec::new(), Vec::new());
                template.render(&mut names, &mut rendered);
                for part in template.parts() {
                    match part {
                        Part::Text(bytes) => joined.extend_from_slice(bytes),
                        Part::Variable(id) => { names.variable(id, &mut joined); }
                        Part::Capture(n) => joined.extend_from_slice(names.capture(n).unwrap_or_default()),
                    }
                }
                prop_assert_eq!(rendered, joined);
            }
        }

        #[test]
        fn any_bytes_parse_or_fail(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok((template, _)) = parse(&text) {
                prop_assert_eq!(template.is_const().is_some(), !text.contains(&b'$'));
            }
        }
    }
}
