//! Text to a tree of directives, with includes in place.
//!
//! After an error the parser goes on, so that one run names what is wrong in all files: nginx stops at the first.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::lexer::{Lexer, Token};
use crate::{COMMAND_LINE, CutRegex, Directive, Env, Error, FileId, Files, Source, Sources, Span, Word};

/// How deep blocks may nest; nginx has no limit.
pub(crate) const MAX_BLOCKS: usize = 256;
/// How deep includes may nest; nginx ends when it has no descriptor left.
pub(crate) const MAX_INCLUDES: usize = 64;
/// How often files may be included in all.
pub(crate) const MAX_FILES: usize = 1 << 17;

/// Reads the directives of the command line (`-g`), then the main file and all that it includes.
///
/// Relative names of included files start at [`Env::conf_prefix`]. What could be read is in the tree even if there are
/// errors, so that a [`Loader`](crate::Loader) can find more of them.
pub fn load(files: &dyn Files, main: &Path, global: Option<&str>, env: &Env) -> (Sources, Vec<Directive>, Vec<Error>) {
    let mut parser = Parser {
        files,
        conf_prefix: &env.conf_prefix,
        sources: Sources::default(),
        ids: HashMap::new(),
        open: Vec::new(),
        included: 0,
        errors: Vec::new(),
    };
    let mut directives = Vec::new();
    if let Some(text) = global {
        let id = parser.add_source(COMMAND_LINE.into(), text.as_bytes().into(), None);
        directives = parser.text(id, false);
    }
    match parser.file(main, None) {
        Ok(id) => directives.append(&mut parser.text(id, true)),
        Err(message) => parser.errors.push(Error::new(message)),
    }
    (parser.sources, directives, parser.errors)
}

/// Reads one text without includes: for tests, and where a configuration is built in.
pub fn parse(name: &str, text: &str) -> (Sources, Vec<Directive>, Vec<Error>) {
    let files = crate::MemoryFiles::new([(name, text)]);
    load(&files, Path::new(name), None, &Env::default())
}

struct Parser<'a> {
    files: &'a dyn Files,
    conf_prefix: &'a Path,
    sources: Sources,
    ids: HashMap<PathBuf, FileId>,
    /// The files that are being read, each included by the one before it.
    open: Vec<FileId>,
    included: usize,
    errors: Vec<Error>,
}

/// A block whose end has not come yet.
struct Block {
    /// Nothing for a `{` that had no name.
    head: Option<Directive>,
    body: Vec<Directive>,
}

/// What has been read of one text.
#[derive(Default)]
struct State {
    done: Vec<Directive>,
    blocks: Vec<Block>,
    words: Vec<Word>,
    /// Whether there was an error in the words: then the directive isn't worth more of them.
    spoilt: bool,
}

impl State {
    fn body(&mut self) -> &mut Vec<Directive> {
        match self.blocks.last_mut() {
            Some(block) => &mut block.body,
            None => &mut self.done,
        }
    }

    /// The words so far as a directive, unless they are spoilt.
    fn directive(&mut self, end: Span) -> Option<Directive> {
        let spoilt = std::mem::take(&mut self.spoilt);
        let mut words = self.words.drain(..);
        let name = words.next()?;
        let directive = Directive { name, args: words.collect(), block: None, end, close: Span::default() };
        (!spoilt).then_some(directive)
    }

    fn close(&mut self, close: Span) {
        let Some(mut block) = self.blocks.pop() else { return };
        block.body.shrink_to_fit();
        if let Some(mut head) = block.head {
            head.block = Some(block.body);
            head.close = close;
            self.body().push(head);
        }
    }
}

impl Parser<'_> {
    fn add_source(&mut self, path: String, text: Rc<[u8]>, included: Option<Span>) -> FileId {
        let id = FileId(self.sources.files.len() as u32);
        self.sources.files.push(Source { path, text, included });
        id
    }

    /// The file of that path, read if it wasn't yet.
    fn file(&mut self, path: &Path, included: Option<Span>) -> Result<FileId, String> {
        if let Some(&id) = self.ids.get(path) {
            return Ok(id);
        }
        let text = self.files.read(path).map_err(|error| open_error(path, &error))?;
        if u32::try_from(text.len()).is_err() {
            return Err(format!("\"{}\" is too large for a configuration", buf::text::path(path)));
        }
        let id = self.add_source(buf::text::path(path).into_owned(), text.into(), included);
        self.ids.insert(path.to_owned(), id);
        Ok(id)
    }

    /// Reads a whole text.
    fn text(&mut self, id: FileId, is_file: bool) -> Vec<Directive> {
        let text = self.sources.files[id.0 as usize].text.clone();
        let mut lexer = Lexer::new(&text, id, is_file);
        let mut state = State::default();
        self.open.push(id);
        loop {
            match lexer.next() {
                Ok(Token::Word(word)) => state.words.push(word),
                Ok(Token::End) => self.end(&mut state, lexer.last()),
                Ok(Token::Open) if !is_file => {
                    self.errors.push(Error::place(lexer.last(), "block directives are not supported in -g option"));
                    break;
                }
                Ok(Token::Open) if state.blocks.len() == MAX_BLOCKS => {
                    let message = format!("blocks are nested more than {MAX_BLOCKS} deep");
                    self.errors.push(Error::place(lexer.last(), message));
                    break;
                }
                Ok(Token::Open) => self.open_block(&mut state, lexer.last()),
                Ok(Token::Close) => self.close_block(&mut state, lexer.last()),
                Ok(Token::Eof(quote)) => {
                    self.eof(&mut state, &lexer, quote, is_file);
                    break;
                }
                Err(error) => {
                    self.errors.push(error);
                    state.spoilt = true;
                }
            }
        }
        while !state.blocks.is_empty() {
            state.close(lexer.last());
        }
        self.open.pop();
        state.done
    }

    fn end(&mut self, state: &mut State, end: Span) {
        if state.words.is_empty() && !state.spoilt {
            self.errors.push(Error::place(end, "unexpected \";\""));
            return;
        }
        if let Some(directive) = state.directive(end) {
            self.add(state, directive);
        }
    }

    fn open_block(&mut self, state: &mut State, end: Span) {
        if let Some(word) = state.words.last() {
            self.note_cut_regex(word, end);
        }
        if state.words.is_empty() && !state.spoilt {
            self.errors.push(Error::place(end, "unexpected \"{\"").hint("a block needs a name in front of its brace"));
        }
        let head = state.directive(end);
        state.blocks.push(Block { head, body: Vec::new() });
    }

    /// Whether a brace was meant as a quantifier of the word before it, such as `a{2}`: then messages say so.
    fn note_cut_regex(&mut self, word: &Word, brace: Span) {
        let text = &self.sources.files[word.span.file.0 as usize].text;
        if word.quoted || word.span.end != brace.start || !is_quantifier(&text[brace.start as usize..]) {
            return;
        }
        let rest = &text[brace.start as usize..];
        let len = rest.iter().position(|byte| b" \t\r\n;".contains(byte)).unwrap_or(rest.len());
        let span = Span { end: brace.start + len as u32, ..word.span };
        self.sources.cut_regexes.push(CutRegex { span, brace: brace.start });
    }

    fn close_block(&mut self, state: &mut State, end: Span) {
        let (spoilt, is_empty) = (state.spoilt, state.words.is_empty());
        if let (Some(last), false) = (state.words.last(), spoilt) {
            self.errors.push(Error::place(end, "unexpected \"}\"").missing_semicolon(last));
        }
        if let Some(directive) = state.directive(end) {
            self.add(state, directive);
        }
        if !state.blocks.is_empty() {
            state.close(end);
        } else if is_empty && !spoilt {
            let error = Error::place(end, "unexpected \"}\"");
            self.errors.push(error.hint("no block of this file is open here: is there a \"}\" too many above?"));
        }
    }

    fn eof(&mut self, state: &mut State, lexer: &Lexer<'_>, quote: Option<Span>, is_file: bool) {
        let place = lexer.span_from(lexer.last().end as usize);
        // Before what blocks lack that end with the file.
        let met = Some(lexer.last().start);
        if quote.is_some() || !state.words.is_empty() || state.spoilt {
            let message = match is_file {
                true => "unexpected end of file, expecting \";\" or \"}\"",
                false => "unexpected end of parameter, expecting \";\"",
            };
            let error = Error { met, ..Error::place(place, message) };
            self.errors.push(match (quote, state.words.last()) {
                (Some(quote), _) => error.hint("the quote that opens here isn't closed").caret(quote),
                (None, Some(word)) => error.missing_semicolon(word),
                (None, None) => error,
            });
            return;
        }
        let Some(block) = state.blocks.last() else { return };
        let mut error = Error { met, ..Error::place(place, "unexpected end of file, expecting \"}\"") };
        if let Some(head) = &block.head {
            error = error.hint("the block that opens here isn't closed").caret(head.name.span);
        }
        self.errors.push(error);
    }

    /// Adds a directive to the block that is open, or what it includes.
    fn add(&mut self, state: &mut State, directive: Directive) {
        if directive.name == "include" && directive.args.len() == 1 {
            self.include(state, &directive);
        } else {
            state.body().push(directive);
        }
    }

    fn include(&mut self, state: &mut State, directive: &Directive) {
        let place = Span { line: directive.end.line, ..directive.arg(0).span };
        let path = self.conf_prefix.join(path_of(&directive.arg(0).text));
        let is_pattern = directive.arg(0).text.iter().any(|byte| b"*?[".contains(byte));
        let found = if is_pattern { self.files.glob(&path) } else { Ok(vec![path.clone()]) };
        let paths = match found {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("glob() \"{}\" failed ({})", buf::text::path(&path), os_error(&error));
                self.errors.push(Error::place(place, message));
                return;
            }
        };
        for path in paths {
            match self.included_file(&path, place) {
                Ok(id) => {
                    let mut directives = self.text(id, true);
                    state.body().append(&mut directives);
                }
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn included_file(&mut self, path: &Path, place: Span) -> Result<FileId, Error> {
        self.included += 1;
        if self.open.len() > MAX_INCLUDES || self.included > MAX_FILES {
            let limit = if self.included > MAX_FILES { MAX_FILES } else { MAX_INCLUDES };
            let message =
                format!("\"{}\" is not included: the limit of {limit} includes is reached", buf::text::path(path));
            return Err(Error::place(place, message));
        }
        let id = self.file(path, Some(place)).map_err(|message| Error::place(place, message))?;
        if self.open.contains(&id) {
            return Err(Error::place(place, format!("\"{}\" includes itself", buf::text::path(path))));
        }
        Ok(id)
    }
}

/// Whether a text begins with `{2}`, `{2,}` or `{2,3}`.
fn is_quantifier(text: &[u8]) -> bool {
    let inner = text.get(1..).unwrap_or_default();
    let Some(end) = inner.iter().position(|byte| *byte == b'}') else { return false };
    let starts_with_digit = inner.first().is_some_and(u8::is_ascii_digit);
    starts_with_digit && inner[..end].iter().all(|byte| byte.is_ascii_digit() || *byte == b',')
}

#[cfg(unix)]
pub(crate) fn path_of(text: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(text))
}

/// nginx's words for a file that can't be opened; one that can't be read, as a directory, fails later.
fn open_error(path: &Path, error: &io::Error) -> String {
    const EISDIR: i32 = 21;
    let call = if error.raw_os_error() == Some(EISDIR) { "pread" } else { "open" };
    format!("{call}() \"{}\" failed ({})", buf::text::path(path), os_error(error))
}

/// An error of the system in nginx's form: `2: No such file or directory`.
pub(crate) fn os_error(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let suffix = format!(" (os error {code})");
            format!("{code}: {}", text.strip_suffix(&suffix).unwrap_or(&text))
        }
        None => text,
    }
}

#[cfg(test)]
mod tests;
