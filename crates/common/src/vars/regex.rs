//! Regexes of the configuration: a match sets the session's captures and the variables of its named groups.

use std::fmt;
use std::rc::Rc;

use buf::Bytes;
use engine::log::Level;
use expr::regex::{Captures, Regex as Pattern};
use expr::vars::VarId;

use super::Value;
use crate::Session;

/// A regex with the variables that its named groups set.
#[derive(Clone)]
pub struct Regex {
    /// The regex.
    pub regex: Rc<Pattern>,
    pub(super) names: Rc<[(VarId, usize)]>,
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Regex")
    }
}

/// One regex in two places is compiled once.
impl PartialEq for Regex {
    fn eq(&self, other: &Regex) -> bool {
        Rc::ptr_eq(&self.regex, &other.regex)
    }
}

impl Regex {
    /// Whether `subject` may match: a comparison that rules out most subjects.
    #[inline]
    pub fn may_match(&self, subject: &[u8]) -> bool {
        self.regex.may_match(subject)
    }

    /// Whether `subject` matches; if so, the session's captures and the variables of named groups are set.
    ///
    /// An error of the engine (its limit on backtracking) is logged.
    pub fn exec<S: Session>(&self, session: &mut S, subject: &[u8]) -> Result<bool, MatchFailed> {
        if !session.variables().captures && self.names.is_empty() {
            return self.regex.is_match(subject).map_err(|error| failed(session, subject, &error));
        }
        let store = session.store_mut();
        match self.regex.captures(subject, &mut store.captures.pairs) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => return Err(failed(session, subject, &error)),
        }
        store.captures.serial = store.captures.serial.wrapping_add(1);
        store.captures.subject.clear();
        store.captures.subject.extend_from_slice(subject);
        for &(id, group) in &*self.names {
            let value = store.captures.get(group).map(Bytes::copy_from);
            store.set(id, value.map_or(Value::Missing, Value::Set));
        }
        Ok(true)
    }
}

/// Whether a regex matches could not be found out; the log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchFailed;

fn failed<S: Session>(session: &S, subject: &[u8], error: &dyn fmt::Display) -> MatchFailed {
    session.log_at(Level::Alert, format_args!("regex on \"{}\" failed: {error}", subject.escape_ascii()));
    MatchFailed
}

/// The captures of the last regex that matched.
#[derive(Clone, Default)]
pub struct LastCaptures {
    pairs: Captures,
    /// What they are offsets of.
    subject: Vec<u8>,
    /// Another one with each match.
    serial: u32,
}

impl LastCaptures {
    /// The group with that number; 0 is the whole match.
    pub fn get(&self, group: usize) -> Option<&[u8]> {
        self.pairs.slice(&self.subject, group)
    }

    /// A number that another match changes.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// No match.
    pub fn clear(&mut self) {
        self.pairs.clear();
        self.subject.clear();
    }
}
