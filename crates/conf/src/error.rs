//! What can be wrong with a configuration.

use crate::{Directive, Span, Word};

/// The result of reading a part of a configuration.
pub type Result<T> = std::result::Result<T, Error>;

/// One error: nginx's message, the place, and what may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The message without level and place, in nginx's words: `unknown directive "x"`.
    pub message: String,
    /// The place, if there is one: most errors end with ` in FILE:LINE`.
    pub span: Option<Span>,
    /// What the person could do.
    pub hint: Option<String>,
    /// The place that the hint is about, if it isn't the error's own: there the caret is drawn.
    pub caret: Option<Span>,
}

impl Error {
    /// An error at no place.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), span: None, hint: None, caret: None }
    }

    /// An error at a place.
    pub fn place(span: Span, message: impl Into<String>) -> Error {
        Error { message: message.into(), span: Some(span), hint: None, caret: None }
    }

    /// An error at a word. nginx reports the line on which the directive ends: [`crate::Loader`] sees to that.
    pub fn at(word: &Word, message: impl Into<String>) -> Error {
        Error { message: message.into(), span: Some(word.span), hint: None, caret: None }
    }

    /// An error at a directive's name.
    pub fn on(directive: &Directive, message: impl Into<String>) -> Error {
        Error::at(&directive.name, message)
    }

    /// An error about the whole of a block, at the line of its closing brace: `no servers are inside upstream`.
    pub fn in_block(directive: &Directive, message: impl Into<String>) -> Error {
        let span = Span { line: directive.close.line, ..directive.name.span };
        Error::place(span, message)
    }

    /// The same error with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with its caret elsewhere.
    #[must_use]
    pub fn caret(mut self, caret: Span) -> Error {
        self.caret = Some(caret);
        self
    }

    /// The same error with the hint that a semicolon is missing behind a word.
    #[must_use]
    pub(crate) fn missing_semicolon(self, after: &Word) -> Error {
        let caret = Span { start: after.span.end, ..after.span };
        self.hint("is a \";\" missing here?").caret(caret)
    }
}
