//! The tree that a configuration's text becomes.

use std::borrow::Cow;

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
    /// The text for messages.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
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
}

impl Directive {
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
    /// Its path, as messages and `-T` show it.
    pub path: String,
    /// Its exact text.
    pub text: Vec<u8>,
}

/// All files of a configuration, in the order in which they were read first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Indexed by [`FileId`].
    pub files: Vec<Source>,
}
