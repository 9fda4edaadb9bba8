//! What can be wrong with a configuration.

use crate::{Directive, Span, Word};

/// The result of reading a part of a configuration.
pub type Result<T> = std::result::Result<T, Error>;

/// One error: nginx's message, the place, and what may help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Error {
    /// The message without level and place, in nginx's words: `unknown directive "x"`.
    pub message: String,
    /// The place, if there is one: most errors end with ` in FILE:LINE`.
    pub span: Option<Span>,
    /// What the person could do.
    pub hint: Option<String>,
    /// The place that the hint is about, if it isn't the error's own: there the caret is drawn.
    pub caret: Option<Span>,
    /// How far nginx has read when it meets the error, in bytes from the start of the file, if not to the place: errors
    /// are told in the order in which they are met.
    pub met: Option<u32>,
    /// Whether what follows was misunderstood because of it: errors after it aren't worth telling.
    pub derails: bool,
}

impl Error {
    /// An error at no place.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), ..Error::default() }
    }

    /// An error at a place.
    pub fn place(span: Span, message: impl Into<String>) -> Error {
        Error { message: message.into(), span: Some(span), ..Error::default() }
    }

    /// An error at a word. nginx reports the line on which the directive ends: [`crate::Loader`] sees to that.
    pub fn at(word: &Word, message: impl Into<String>) -> Error {
        Error::place(word.span, message)
    }

    /// An error at a directive's name.
    pub fn on(directive: &Directive, message: impl Into<String>) -> Error {
        Error::at(&directive.name, message)
    }

    /// An error about the whole of a block, at the line of its closing brace: `no servers are inside upstream`.
    pub fn in_block(directive: &Directive, message: impl Into<String>) -> Error {
        Error::place(directive.close, message).caret(directive.name.span)
    }

    /// Whether it says that a directive stands twice where it may stand once.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.message.ends_with("directive is duplicate")
    }

    /// The same error at a place, if it has none yet.
    #[must_use]
    pub fn or_at(mut self, place: Option<Span>) -> Error {
        self.span = self.span.or(place);
        self
    }

    /// The same error with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with a hint, if it has none yet.
    #[must_use]
    pub fn or_hint(mut self, hint: impl FnOnce() -> Option<String>) -> Error {
        self.hint = self.hint.or_else(hint);
        self
    }

    /// The same error, which makes nonsense of what follows it.
    #[must_use]
    pub(crate) fn derailing(mut self) -> Error {
        self.derails = true;
        self
    }

    /// The same error with its caret elsewhere.
    #[must_use]
    pub fn caret(mut self, caret: Span) -> Error {
        self.caret = Some(caret);
        self
    }

    /// The same error with the hint that a semicolon is missing after a word.
    #[must_use]
    pub(crate) fn missing_semicolon(self, after: &Word) -> Error {
        let caret = Span { start: after.span.end, ..after.span };
        self.hint("is a \";\" missing here?").caret(caret)
    }
}
