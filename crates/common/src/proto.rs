//! What a module that http and stream share asks of the protocol it works for.

use std::fmt;
use std::rc::Rc;

use conf::{Directive, Loader, Result, Word};
use engine::log::Level;
use expr::vars::{Session, Template};

/// A protocol: its sessions, and how its configuration compiles values and regexes.
pub trait Proto: 'static {
    /// What templates are rendered for.
    type Session: Session;
    /// A regex whose matches set the session's captures and the variables of its named groups.
    type Regex: 'static;

    /// Compiles a value of a directive; the variables in it are looked up once the configuration is complete.
    fn template(loader: &mut Loader<'_>, d: &Directive, text: &[u8]) -> Result<Rc<Template>>;

    /// Compiles a pattern without its `~` or `~*`; its named groups define variables.
    fn regex(loader: &mut Loader<'_>, word: &Word, pattern: &[u8], caseless: bool) -> Result<Self::Regex>;

    /// Whether `subject` matches. A search that fails (the limit on backtracking) has been logged and is no match.
    fn matches(regex: &Self::Regex, session: &mut Self::Session, subject: &[u8]) -> bool;

    /// Logs with the session's details.
    fn log(session: &Self::Session, level: Level, message: fmt::Arguments<'_>);
}
