//! Messages of the time before the logs are open, and of reloads: to the standard error stream, to the log, or both.

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
}

impl Reporter {
    /// At the start: to the standard error stream, and to the log if that is another place.
    pub fn start(log: Log) -> Reporter {
        Reporter { stderr: true, log }
    }

    /// Later: to the log only.
    pub fn running(log: Log) -> Reporter {
        Reporter { stderr: false, log }
    }

    /// The same with another log.
    #[must_use]
    pub fn with_log(&self, log: Log) -> Reporter {
        Reporter { stderr: self.stderr, log }
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// One message. Only warnings and worse go to the standard error stream.
    pub fn say(&self, level: Level, message: &str) {
        if self.stderr && level <= Level::Warn {
            tell(&format!("{}: [{}] {message}\n", personality().name, level.name()));
        }
        if !(self.stderr && self.log.is_stderr()) {
            self.log.write(level, None, format_args!("{message}"));
        }
    }

    /// Errors or warnings of a configuration, with the source's lines for a person.
    pub fn configuration(&self, level: Level, sources: &Sources, errors: &[Error]) {
        for error in errors {
            if self.stderr {
                tell(&conf::diag::render(error, level.name(), sources, style()));
            }
            if !(self.stderr && self.log.is_stderr()) {
                self.log.write(level, None, format_args!("{}", conf::diag::message(error, sources)));
            }
        }
    }

    /// Sends what the process logs to the same place from now on.
    pub fn install(&self) {
        log::set_current(self.log.clone());
    }
}

/// Writes to the standard error stream; one that is closed is no error.
pub fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn style() -> Style<'static> {
    let color = os::io::isatty(2) && std::env::var_os("NO_COLOR").is_none();
    Style { program: personality().name, snippets: true, color }
}

/// Makes panics leave an `[alert]` line in the log instead of nothing.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let backtrace = std::backtrace::Backtrace::capture();
        let text = match info.location() {
            Some(at) => format!("panic: {} in {}:{}", payload(info), at.file(), at.line()),
            None => format!("panic: {}", payload(info)),
        };
        let log = log::current();
        log.write(Level::Alert, None, format_args!("{text}"));
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tell(&format!("{backtrace}\n"));
        }
    }));
}

fn payload(info: &std::panic::PanicHookInfo<'_>) -> Rc<str> {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("of an unknown kind").into()
}
