//! `log_format`: what a line says, and how the values of variables are escaped in it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result, Word};
use expr::vars::{Part, Session, TemplateError, VarId};

use super::LogProto;
use crate::vars;

/// How bytes that would break a line are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `"`, `\`, control bytes and all beyond ASCII as `\xXX`; `-` for a value that isn't found.
    Default,
    /// As in JSON strings.
    Json,
    /// As they are.
    None,
}

/// A compiled format.
pub(super) struct Format {
    escape: Escape,
    /// The values, each with the text before it.
    values: Box<[(Box<[u8]>, VarId)]>,
    /// The text after the last value.
    end: Box<[u8]>,
    /// How many bytes of the texts would be escaped if they were a value's.
    odd: usize,
}

/// The name of the first variable in a text that begins with a digit: captures by number aren't known to formats.
fn number_in(text: &str) -> String {
    let digits =
        text.split('$').skip(1).find(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default();
    digits.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

impl Format {
    /// Compiles a format whose text stands in several words.
    pub(super) fn parse<P: LogProto>(
        loader: &mut Loader<'_>,
        d: &Directive,
        words: &[Word],
        escape: Escape,
    ) -> Result<Format> {
        let mut builder = Builder::default();
        for word in words {
            let template = vars::template_of::<P>(loader, d, &word.text);
            let template = template.map_err(|error| match error.message == TemplateError::InvalidName.to_string() {
                true => Error::at(word, format!("invalid parameter \"{}\"", word.lossy())),
                false => error,
            })?;
            if template.max_capture() > 0 {
                return Err(Error::at(word, format!("unknown \"{}\" variable", number_in(&word.lossy()))));
            }
            builder.add(template.parts());
        }
        Ok(builder.format(escape))
    }

    /// Appends the line of a session, without its end.
    ///
    /// Few values have anything to be escaped. The bytes of the whole line that would be are counted: if the texts of the
    /// format have as many, no value has one.
    pub(super) fn render<S: Session>(&self, session: &mut S, out: &mut Vec<u8>) {
        // Taken, not borrowed: a variable may do whatever it likes.
        let mut places = PLACES.take();
        places.clear();
        let begin = out.len();
        for (text, variable) in &self.values {
            out.extend_from_slice(text);
            let start = out.len();
            let found = session.variable(*variable, out);
            if !found && self.escape == Escape::Default {
                out.push(b'-');
            }
            places.push(start..out.len());
        }
        out.extend_from_slice(&self.end);
        if self.escape.count(&out[begin..]) != self.odd {
            let line = out.split_off(begin);
            self.escape.write(&line, begin, &places, out);
        }
        PLACES.set(places);
    }
}

thread_local! {
    /// Where the values are in the line that is being written.
    static PLACES: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
}

impl Escape {
    fn needs(self, c: u8) -> bool {
        // No branches: see `count`.
        let common = (c < b' ') | (c == b'"') | (c == b'\\');
        match self {
            Escape::Default => common | (c > b'~'),
            Escape::Json => common,
            Escape::None => false,
        }
    }

    /// How many of these bytes would be escaped in a value.
    fn count(self, text: &[u8]) -> usize {
        match self {
            Escape::Default => count(text, |c| Escape::Default.needs(c)),
            Escape::Json => count(text, |c| Escape::Json.needs(c)),
            Escape::None => 0,
        }
    }

    /// Appends a line whose values, at these places counted from `begin` before it, have bytes to be escaped.
    #[cold]
    fn write(self, line: &[u8], begin: usize, places: &[Range<usize>], out: &mut Vec<u8>) {
        let mut at = 0;
        for place in places {
            let (start, end) = (place.start - begin, place.end - begin);
            out.extend_from_slice(&line[at..start]);
            for &c in &line[start..end] {
                match self {
                    _ if !self.needs(c) => out.push(c),
                    Escape::Json => json(c, out),
                    Escape::Default | Escape::None => hex(c, out),
                }
            }
            at = end;
        }
        out.extend_from_slice(&line[at..]);
    }
}

/// How many bytes are so, blanks apart. Compilers make vector instructions of blocks, and of nothing else.
#[inline]
fn count(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    let of_block = |block: &[u8; 32]| usize::from(block.iter().fold(0, |n, c| n + u8::from(is(*c))));
    let (blocks, rest) = text.as_chunks::<32>();
    let mut last = [b' '; 32];
    last[..rest.len()].copy_from_slice(rest);
    blocks.iter().map(of_block).sum::<usize>() + of_block(&last)
}

/// Gathers the parts of a format.
#[derive(Default)]
struct Builder {
    values: Vec<(Box<[u8]>, VarId)>,
    text: Vec<u8>,
}

impl Builder {
    fn add<'t>(&mut self, parts: impl Iterator<Item = Part<'t>>) {
        for part in parts {
            match part {
                Part::Text(text) => self.text.extend_from_slice(text),
                Part::Variable(id) => self.values.push((std::mem::take(&mut self.text).into(), id)),
                // A format with captures has been refused.
                Part::Capture(_) => {}
            }
        }
    }

    fn format(self, escape: Escape) -> Format {
        let odd = self.values.iter().map(|(text, _)| escape.count(text)).sum::<usize>() + escape.count(&self.text);
        Format { escape, values: self.values.into(), end: self.text.into(), odd }
    }
}

fn hex(c: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    digits(c, out);
}

fn json(c: u8, out: &mut Vec<u8>) {
    let short = match c {
        b'"' | b'\\' => c,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            return digits(c, out);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn digits(c: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&buf::hex::upper(c));
}

/// The formats of a configuration that is being read, by name.
pub(super) struct Formats<P> {
    by_name: HashMap<Vec<u8>, Rc<Format>>,
    proto: PhantomData<fn() -> P>,
}

impl<P> Default for Formats<P> {
    fn default() -> Formats<P> {
        Formats { by_name: HashMap::new(), proto: PhantomData }
    }
}

const COMBINED: &[u8] = b"combined";

impl<P: LogProto> Formats<P> {
    /// The format of that name, if it was defined so far.
    pub(super) fn find(loader: &mut Loader<'_>, name: &[u8]) -> Result<Option<Rc<Format>>> {
        if let Some(format) = loader.store.entry::<Formats<P>>().by_name.get(name) {
            return Ok(Some(format.clone()));
        }
        let Some(text) = P::COMBINED.filter(|_| name == COMBINED) else { return Ok(None) };
        let word = Word { text: text.into(), ..Word::default() };
        let format = Rc::new(Format::parse::<P>(loader, &Directive::default(), &[word], Escape::Default)?);
        loader.store.entry::<Formats<P>>().by_name.insert(COMBINED.to_vec(), format.clone());
        Ok(Some(format))
    }
}

/// `log_format NAME [escape=…] TEXT …`.
pub(super) fn log_format<P: LogProto>(loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    let name = d.arg(0);
    let predefined = P::COMBINED.is_some() && name.text == COMBINED;
    if predefined || loader.store.entry::<Formats<P>>().by_name.contains_key(&name.text) {
        return Err(Error::at(name, format!("duplicate \"log_format\" name \"{}\"", name.lossy())));
    }
    let mut words = &d.args[1..];
    let mut escape = Escape::Default;
    if let Some((first, rest)) = words.split_first()
        && let Some(kind) = first.text.strip_prefix(b"escape=")
    {
        escape = match kind {
            b"default" => Escape::Default,
            b"json" => Escape::Json,
            b"none" => Escape::None,
            _ => {
                let message = format!("unknown log format escaping \"{}\"", String::from_utf8_lossy(kind));
                return Err(Error::at(first, message).hint("the kinds of escaping are default, json and none"));
            }
        };
        words = rest;
    }
    let format = Format::parse::<P>(loader, d, words, escape)?;
    loader.store.entry::<Formats<P>>().by_name.insert(name.text.clone(), Rc::new(format));
    Ok(())
}

#[cfg(test)]
mod tests {
    use expr::vars::{Registry, Template, VarId};

    use super::*;

    struct Known(Option<&'static [u8]>);

    impl Session for Known {
        fn variable(&mut self, _: VarId, out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(self.0.unwrap_or_default());
            self.0.is_some()
        }

        fn capture(&self, _: usize) -> Option<&[u8]> {
            None
        }
    }

    #[test]
    fn escapes() {
        let mut registry: Registry<()> = Registry::new();
        let template = Template::parse(b"a\"$v\"", &mut |name| registry.reference(name)).expect("a template");
        for (escape, value, expect) in [
            (Escape::Default, Some(&b"x y~"[..]), &b"a\"x y~\""[..]),
            (Escape::Default, Some(b"\"\\\n\x7f\xffz"), b"a\"\\x22\\x5C\\x0A\\x7F\\xFFz\""),
            (Escape::Default, Some(b""), b"a\"\""),
            (Escape::Default, None, b"a\"-\""),
            (Escape::Json, Some(b"\"\\\n\r\t\x08\x0c\x1b\x7f\xff"), b"a\"\\\"\\\\\\n\\r\\t\\b\\f\\u001B\x7f\xff\""),
            (Escape::Json, None, b"a\"\""),
            (Escape::None, Some(b"\"\\\n"), b"a\"\"\\\n\""),
        ] {
            let mut format = Builder::default();
            format.add(template.parts());
            // What stands before the line stays as it is.
            let mut out = b"\"\n".to_vec();
            format.format(escape).render(&mut Known(value), &mut out);
            assert_eq!(
                out.strip_prefix(b"\"\n").unwrap().escape_ascii().to_string(),
                expect.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn a_byte_to_be_escaped_is_found_wherever_it_is() {
        for len in (0..40).chain([16 * 255 - 1, 16 * 255, 16 * 256 + 3]) {
            for escape in [Escape::Default, Escape::Json] {
                assert_eq!(escape.count(&vec![b'~'; len]), 0);
                assert_eq!(escape.count(&vec![b'"'; len]), len);
            }
            for at in (0..len).take(40) {
                for c in 0..=255 {
                    let mut value = vec![b' '; len];
                    value[at] = c;
                    for escape in [Escape::Default, Escape::Json, Escape::None] {
                        assert_eq!(escape.count(&value), usize::from(escape.needs(c)), "{c} at {at} of {len}");
                    }
                }
            }
        }
    }
}
