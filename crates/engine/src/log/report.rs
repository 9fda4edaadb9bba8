//! Messages of the time before the logs are open, and of reloads: to the standard error stream, to the log, or both.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use conf::diag::Style;
use conf::{Error, Sources};

use crate::log::{self, Level, Log};
use crate::personality::personality;

/// Says what goes wrong while a configuration is loaded.
#[derive(Clone)]
pub struct Reporter {
    /// Whether a person waits at a terminal: `nginx: [emerg] …`.
    stderr: bool,
    log: Log,
    /// What somebody elsewhere is going to be told.
    heard: Option<Rc<RefCell<String>>>,
}

impl Reporter {
    /// At the start: to the standard error stream, and to the log if that is another place.
    pub fn start(log: Log) -> Reporter {
        Reporter { stderr: true, log, heard: None }
    }

    /// Later: to the log, and kept for who asked for what goes wrong ([`Reporter::heard`]).
    pub fn running(log: Log) -> Reporter {
        Reporter { stderr: false, log, heard: Some(Rc::default()) }
    }

    /// What a person would have read at a terminal; at most [`MAX_HEARD`] bytes.
    pub fn heard(&self) -> String {
        self.heard.as_ref().map_or_else(String::new, |heard| heard.borrow().clone())
    }

    /// The same with another log.
    #[must_use]
    pub fn with_log(&self, log: Log) -> Reporter {
        Reporter { log, ..self.clone() }
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// One message. Only warnings and worse go to the standard error stream.
    pub fn say(&self, level: Level, message: &str) {
        if level <= Level::Warn {
            self.speak(|_| format!("{}: [{}] {message}\n", personality().name, level.name()));
        }
        if !(self.stderr && self.log.is_stderr()) {
            self.log.write(level, None, format_args!("{message}"));
        }
    }

    /// Errors or warnings of a configuration, with the source's lines for a person.
    pub fn configuration(&self, level: Level, sources: &Sources, errors: &[Error]) {
        for error in errors {
            self.speak(|style| conf::diag::render(error, level.name(), sources, style));
            if !(self.stderr && self.log.is_stderr()) {
                self.log.write(level, None, format_args!("{}", conf::diag::message(error, sources)));
            }
        }
    }

    fn speak(&self, text: impl Fn(Style<'static>) -> String) {
        if self.stderr {
            tell(&text(style(os::io::isatty(2) && std::env::var_os("NO_COLOR").is_none())));
        }
        if let Some(heard) = &self.heard {
            let (text, mut heard) = (text(style(false)), heard.borrow_mut());
            if heard.len() + text.len() <= MAX_HEARD {
                heard.push_str(&text);
            }
        }
    }

    /// Sends what the process logs to the same place from now on.
    pub fn install(&self) {
        log::set_current(self.log.clone());
    }
}

/// Writes to the standard error stream, bytes in the text ([`buf::text::encode`]) as they are; one that is closed is no error.
pub fn tell(text: &str) {
    let _ = io::stderr().write_all(&buf::text::decode(text));
}

fn style(color: bool) -> Style<'static> {
    Style { program: personality().name, snippets: true, color }
}

/// Enough for the errors of a long night.
pub const MAX_HEARD: usize = 64 * 1024;
