//! `log_format`: what a line says, and how the values of variables are escaped in it.

use std::collections::HashMap;
use std::marker::PhantomData;
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
    values: Box<[(Box<[u8]>, Value)]>,
    /// The text after the last value.
    end: Box<[u8]>,
}

/// Where a value in a line comes from.
enum Value {
    Variable(VarId),
    Capture(usize),
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
    pub(super) fn render<S: Session>(&self, session: &mut S, out: &mut Vec<u8>) {
        for (text, value) in &self.values {
            out.extend_from_slice(text);
            let start = out.len();
            let found = match value {
                Value::Variable(id) => session.variable(*id, out),
                Value::Capture(n) => session.capture(*n).map(|text| out.extend_from_slice(text)).is_some(),
            };
            self.escape(found, out, start);
        }
        out.extend_from_slice(&self.end);
    }

    /// Escapes the value that begins at `start`.
    fn escape(&self, found: bool, out: &mut Vec<u8>, start: usize) {
        match self.escape {
            Escape::Default if !found => out.push(b'-'),
            Escape::Default => escape_with(out, start, &DEFAULT, hex),
            Escape::Json => escape_with(out, start, &JSON, json),
            Escape::None => {}
        }
    }
}

/// Gathers the parts of a format.
#[derive(Default)]
struct Builder {
    values: Vec<(Box<[u8]>, Value)>,
    text: Vec<u8>,
}

impl Builder {
    fn add<'t>(&mut self, parts: impl Iterator<Item = Part<'t>>) {
        for part in parts {
            let value = match part {
                Part::Text(text) => {
                    self.text.extend_from_slice(text);
                    continue;
                }
                Part::Variable(id) => Value::Variable(id),
                Part::Capture(n) => Value::Capture(n),
            };
            self.values.push((std::mem::take(&mut self.text).into(), value));
        }
    }

    fn format(self, escape: Escape) -> Format {
        Format { escape, values: self.values.into(), end: self.text.into() }
    }
}

/// Writes anew what follows the first byte that needs it; most values have none.
fn escape_with(out: &mut Vec<u8>, start: usize, needs: &Needs, write: fn(u8, &mut Vec<u8>)) {
    if plain(&out[start..]) {
        return;
    }
    let Some(first) = out[start..].iter().position(|c| needs[usize::from(*c)]) else { return };
    let rest = out.split_off(start + first);
    for c in rest {
        if needs[usize::from(c)] { write(c, out) } else { out.push(c) }
    }
}

/// Whether there is nothing but printable ASCII without quotes and backslashes, which no escaping touches: found out
/// sixteen bytes at a time, and of the rest eight, which may overlap those before them.
fn plain(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk::<8>() else { return !value.iter().any(|c| DEFAULT[usize::from(*c)]) };
    let (blocks, rest) = value.as_chunks::<16>();
    blocks.iter().all(plain_block) && rest.first_chunk::<8>().is_none_or(plain_block) && plain_block(last)
}

#[inline]
fn plain_block<const N: usize>(block: &[u8; N]) -> bool {
    let odd = |c: u8| !(32..=126).contains(&c) | (c == b'"') | (c == b'\\');
    !block.iter().fold(false, |any, c| any | odd(*c))
}

/// The bytes that have to be escaped.
type Needs = [bool; 256];

static DEFAULT: Needs = needs(false);
static JSON: Needs = needs(true);

const fn needs(json: bool) -> Needs {
    let mut needs = [false; 256];
    let mut c = 0;
    while c < 256 {
        needs[c] = c < 32 || c == b'"' as usize || c == b'\\' as usize || (c > 126 && !json);
        c += 1;
    }
    needs
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
        let template = Template::parse(b"a\"$v\"$1", &mut |name| registry.reference(name)).expect("a template");
        for (escape, value, expect) in [
            (Escape::Default, Some(&b"x y~"[..]), &b"a\"x y~\"-"[..]),
            (Escape::Default, Some(b"\"\\\n\x7f\xffz"), b"a\"\\x22\\x5C\\x0A\\x7F\\xFFz\"-"),
            (Escape::Default, Some(b""), b"a\"\"-"),
            (Escape::Default, None, b"a\"-\"-"),
            (Escape::Json, Some(b"\"\\\n\r\t\x08\x0c\x1b\x7f\xff"), b"a\"\\\"\\\\\\n\\r\\t\\b\\f\\u001B\x7f\xff\""),
            (Escape::Json, None, b"a\"\""),
            (Escape::None, Some(b"\"\\\n"), b"a\"\"\\\n\""),
        ] {
            let mut out = Vec::new();
            let mut format = Builder::default();
            format.add(template.parts());
            format.format(escape).render(&mut Known(value), &mut out);
            assert_eq!(out.escape_ascii().to_string(), expect.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_byte_to_be_escaped_is_found_wherever_it_is() {
        for len in 0..40 {
            assert!(plain(&vec![b'~'; len]));
            for at in 0..len {
                for c in 0..=255 {
                    let mut value = vec![b' '; len];
                    value[at] = c;
                    assert_eq!(plain(&value), !DEFAULT[usize::from(c)], "{c} at {at} of {len}");
                }
            }
        }
    }
}
