//! The tree that a configuration's text becomes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;

use crate::Error;

/// A file of the configuration: an index into [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId(pub u32);

/// A place in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// The line on which nginx would report an error here, counted from 1.
    pub line: u32,
    /// Where it starts, in bytes from the start of the file.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
}

impl Span {
    /// Moves its line to that of another place, if that is further down in the same file.
    pub fn reach(&mut self, other: Span) {
        if self.file == other.file {
            self.line = self.line.max(other.line);
        }
    }
}

/// One word: a directive's name or an argument, with quotes and escapes removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// What it says.
    pub text: Vec<u8>,
    /// Where it stands.
    pub span: Span,
    /// Whether it stood in quotes.
    pub quoted: bool,
}

impl Word {
    /// The text for messages: bytes that aren't UTF-8 come out as they are where it is written ([`buf::text::encode`]).
    pub fn lossy(&self) -> Cow<'_, str> {
        buf::text::encode(&self.text)
    }
}

impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        self.text == other.as_bytes()
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        self.text == other.as_bytes()
    }
}

/// A directive with its arguments and, where it has one, its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    /// Its name.
    pub name: Word,
    /// What follows the name.
    pub args: Vec<Word>,
    /// What stands between its braces.
    pub block: Option<Vec<Directive>>,
    /// Where it ends (its semicolon or opening brace): nginx reports most errors at this line.
    pub end: Span,
    /// The brace that closes its block, where it has one: nginx reports what a block lacks at this line.
    pub close: Span,
}

impl Directive {
    /// What stands in its block; nothing if it has none.
    pub fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// From its name to its last argument, at the line on which it ends.
    pub fn span(&self) -> Span {
        let end = self.args.last().unwrap_or(&self.name).span.end;
        Span { end: end.max(self.name.span.end), line: self.end.line, ..self.name.span }
    }

    /// The lines of a block that holds words rather than directives, as `map` and `types` do. There a block is an error,
    /// in nginx's words.
    pub fn entries(&self) -> impl Iterator<Item = Result<&Directive, Error>> {
        self.children().iter().map(|line| match line.block {
            Some(_) => Err(Error::place(line.end, "unexpected \"{\"")),
            None => Ok(line),
        })
    }

    /// The argument at `index`.
    ///
    /// # Panics
    /// If there is none: the row's arity has to promise it.
    pub fn arg(&self, index: usize) -> &Word {
        &self.args[index]
    }
}

/// One file as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path, as messages and `-T` show it; [`COMMAND_LINE`] for what `-g` gave.
    pub path: String,
    /// Its exact text.
    pub text: Rc<[u8]>,
    /// Where it was included first; the main file and the command line have none.
    pub included: Option<Span>,
}

/// The "path" of the directives that the option `-g` gives. Their spans have line 0.
pub const COMMAND_LINE: &str = "command line";

/// All files of a configuration, in the order in which they were read first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Indexed by [`FileId`].
    pub files: Vec<Source>,
    /// Words without quotes that end at a brace which was meant as a quantifier of a regex, such as `a{2}`.
    pub cut_regexes: Vec<CutRegex>,
}

/// A regex without quotes, cut at its brace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRegex {
    /// All of it.
    pub span: Span,
    /// Where the brace stands.
    pub brace: u32,
}

impl Sources {
    /// The file of that span.
    pub fn file(&self, span: Span) -> Option<&Source> {
        self.files.get(span.file.0 as usize)
    }

    /// How nginx ends a message about this place: ` in FILE:LINE`.
    pub fn place(&self, span: Span) -> String {
        match self.file(span) {
            Some(source) if span.line > 0 => format!(" in {}:{}", source.path, span.line),
            Some(source) => format!(" in {}", source.path),
            None => String::new(),
        }
    }

    /// What `-T` prints: each file once, under a heading.
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for source in self.files.iter().filter(|source| source.path != COMMAND_LINE) {
            let heading = format!("# configuration file {}:\n", source.path);
            out.extend_from_slice(&buf::text::decode(&heading));
            out.extend_from_slice(&source.text);
            out.push(b'\n');
        }
        out
    }

    /// Puts errors in the order in which nginx would meet them, and each once: a file that is included twice has the
    /// same error twice. Errors at no place come last; what follows one that derails is left out.
    pub fn sort(&self, errors: &mut Vec<Error>) {
        errors.sort_by_cached_key(|error| (error.span.is_none(), error.span.map(|span| self.way_to(met(error, span)))));
        let mut seen = HashSet::new();
        errors.retain(|error| seen.insert((error.span.map(|span| (span.file.0, span.start)), error.message.clone())));
        errors.iter_mut().for_each(|error| self.explain_cut_regex(error));
        if let Some(last) = errors.iter().position(|error| error.derails) {
            errors.truncate(last + 1);
        }
    }

    /// Leaves out those warnings that nginx wouldn't come to, because the errors' first one ends its reading before.
    pub(crate) fn cut_warnings(&self, warnings: &mut Vec<Error>, errors: &[Error]) {
        let way = |error: &Error| error.span.map(|span| self.way_to(met(error, span)));
        let Some(end) = errors.first().and_then(way) else { return };
        warnings.retain(|warning| way(warning).is_some_and(|way| way <= end));
    }

    /// The first error after a regex that was cut at its brace comes from that.
    fn explain_cut_regex(&self, error: &mut Error) {
        let Some(place) = error.span.map(|span| met(error, span)) else { return };
        let is_behind = |cut: &&CutRegex| cut.span.file == place.file && cut.brace <= place.start;
        let Some(cut) = self.cut_regexes.iter().find(is_behind) else { return };
        let Some(text) =
            self.file(cut.span).and_then(|file| file.text.get(cut.span.start as usize..cut.span.end as usize))
        else {
            return;
        };
        let text = String::from_utf8_lossy(text);
        error.hint = Some(format!("a \"{{\" ends a word that isn't in quotes, quote it: \"{text}\""));
        error.caret = Some(cut.span);
        error.derails = true;
    }

    /// The includes that lead to a place, each as a file and an offset in it, then the place. Files have numbers in the order
    /// in which they are read, so those of one mask come one after the other.
    fn way_to(&self, span: Span) -> Vec<u32> {
        let mut way = Vec::new();
        let mut next = Some(span);
        while let Some(span) = next {
            way.extend([span.start, span.file.0]);
            next = self.file(span).and_then(|source| source.included);
        }
        way.reverse();
        way
    }
}

/// The place up to which nginx has read when it meets an error.
fn met(error: &Error, span: Span) -> Span {
    Span { start: error.met.unwrap_or(span.start), ..span }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_errors_through_includes() {
        let span = |file, start| Span { file: FileId(file), line: 1, start, end: start };
        let source = |path: &str, included| Source { path: path.into(), text: Rc::from(*b"x"), included };
        let mut files = vec![source(COMMAND_LINE, None), source("main", None), source("part", Some(span(1, 10)))];
        files.push(source("next part of the same mask", Some(span(1, 10))));
        let sources = Sources { files, ..Sources::default() };
        let mut errors: Vec<Error> =
            [span(1, 20), span(2, 7), span(1, 5), span(2, 7), span(0, 30)].map(|span| Error::place(span, "x")).into();
        errors.insert(0, Error::new("at no place"));
        errors.insert(2, Error::place(span(2, 7), "y"));
        sources.sort(&mut errors);
        let order: Vec<_> = errors.iter().map(|error| error.span.map(|span| (span.file.0, span.start))).collect();
        assert_eq!(order, [Some((0, 30)), Some((1, 5)), Some((2, 7)), Some((2, 7)), Some((1, 20)), None]);
        let mut both: Vec<Error> = [span(3, 2), span(2, 7)].map(|span| Error::place(span, "x")).into();
        sources.sort(&mut both);
        assert_eq!(both.iter().filter_map(|error| error.span).collect::<Vec<_>>(), [span(2, 7), span(3, 2)]);
        let mut warnings: Vec<Error> = [span(1, 5), span(2, 6), span(1, 11)].map(|span| Error::place(span, "w")).into();
        sources.cut_warnings(&mut warnings, &[]);
        assert_eq!(warnings.len(), 3);
        sources.cut_warnings(&mut warnings, &errors[2..]);
        let left: Vec<_> = warnings.iter().filter_map(|warning| warning.span).collect();
        assert_eq!(left, [span(1, 5), span(2, 6)]);
        assert_eq!(sources.place(span(1, 5)), " in main:1");
        let dumped = String::from_utf8_lossy(&sources.dump()).into_owned();
        assert!(dumped.starts_with("# configuration file main:\nx\n# configuration file part:\nx\n"), "{dumped}");
    }
}
