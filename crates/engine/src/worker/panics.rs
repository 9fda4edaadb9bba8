//! Panics in the log: an `[alert]` line each, up to [`MAX_TOLD`] in a second.
//!
//! A panic costs its connection and nothing else; who finds a way to cause them shall not fill the disk either. What is
//! beyond the limit is counted, and the number told.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::log::report::tell;
use crate::log::{self, Level};

/// What the log says of a connection that a panic has ended.
pub const CONNECTION_CLOSED: &str = "the connection is closed after a panic";

/// Of how many panics in a second the log tells.
pub const MAX_TOLD: u32 = 10;

const SECOND: Duration = Duration::from_secs(1);

/// The panics of a thread.
#[derive(Debug, Default)]
struct Panics {
    /// When the second began that is counted.
    since: Option<Instant>,
    /// How many were told in it.
    told: u32,
    /// How many weren't, and nobody has been told that.
    left_out: u64,
    /// Whether the last one was told.
    last_told: bool,
    /// Whether somebody is about to say how many were left out.
    waits: bool,
}

impl Panics {
    /// Whether one that happens now is told.
    fn note(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= SECOND) {
            (self.since, self.told) = (Some(now), 0);
        }
        self.last_told = self.told < MAX_TOLD;
        if self.last_told {
            self.told += 1;
        } else {
            self.left_out += 1;
        }
        self.last_told
    }
}

thread_local! {
    static PANICS: RefCell<Panics> = RefCell::default();
}

/// Makes panics leave an `[alert]` line in the log instead of nothing.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        if !PANICS.with_borrow_mut(|panics| panics.note(Instant::now())) {
            return;
        }
        let backtrace = Backtrace::capture();
        let text = match info.location() {
            Some(at) => format!("panic: {} in {}:{}", payload(info), at.file(), at.line()),
            None => format!("panic: {}", payload(info)),
        };
        log::current().write(Level::Alert, None, format_args!("{text}"));
        if backtrace.status() == BacktraceStatus::Captured {
            tell(&format!("{backtrace}\n"));
        }
    }));
}

/// Whether the log tells of the last panic: then it may tell more of it, such as whose connection it was.
pub fn is_told() -> bool {
    PANICS.with_borrow(|panics| panics.last_told)
}

/// Called in the event loop after a panic. Says how many were left out, once their second is over.
pub(crate) fn settle() {
    let first = PANICS.with_borrow_mut(|panics| panics.left_out > 0 && !std::mem::replace(&mut panics.waits, true));
    if first {
        rt::spawn(async {
            rt::sleep(u64::try_from(SECOND.as_millis()).unwrap_or(u64::MAX)).await;
            let left_out = PANICS.with_borrow_mut(|panics| {
                panics.waits = false;
                std::mem::take(&mut panics.left_out)
            });
            let what = "panics more in a second than are told of";
            log::current().write(Level::Alert, None, format_args!("{left_out} {what}"));
        });
    }
}

fn payload(info: &std::panic::PanicHookInfo<'_>) -> Rc<str> {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("of an unknown kind").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_second() {
        let (mut panics, start) = (Panics::default(), Instant::now());
        let mut told = |ms: u64, count: u32| {
            let now = start + Duration::from_millis(ms);
            let told = (0..count).filter(|_| panics.note(now)).count();
            (told as u32, panics.left_out)
        };
        assert_eq!(told(0, 1), (1, 0));
        assert_eq!(told(999, 3 * MAX_TOLD), (MAX_TOLD - 1, u64::from(2 * MAX_TOLD) + 1));
        assert_eq!(told(1000, MAX_TOLD + 1), (MAX_TOLD, u64::from(2 * MAX_TOLD) + 2));
        assert_eq!(told(5000, 1), (1, u64::from(2 * MAX_TOLD) + 2));
    }
}
