//! What the pages of one client's request have in common: variables, blocks, captures.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use buf::Bytes;
use expr::regex::{Captures, Regex};
use foldhash::fast::RandomState;
use http::request::Request;
use wire::ssi::Part;

/// How many bytes the variables and blocks of a request may have in all, names included.
const MAX_KEPT: usize = 8 << 20;
/// The longest value that is made of parts.
const MAX_VALUE: usize = 1 << 20;
/// Room for most values.
const USUAL_VALUE: usize = 64;
/// How many includes of a client's request there may be at a time. Those whose turn it is, one in the other, may exceed it.
const MAX_ALIVE: u32 = 1024;
/// How many includes a client's request may have in all.
pub(super) const MAX_TOTAL: u32 = 64_535;
/// How many regexes of pages a worker keeps compiled.
const MAX_REGEXES: usize = 64;

/// Things by their names.
type Named<T> = HashMap<Vec<u8>, T, RandomState>;

/// What pages keep.
#[derive(Default)]
pub(super) struct Shared {
    variables: RefCell<Named<Bytes>>,
    blocks: RefCell<Named<Bytes>>,
    captures: RefCell<Matched>,
    /// The bytes that variables and blocks take.
    kept: Cell<usize>,
    /// The includes of these pages and of all others of the client's request.
    pub(super) includes: Rc<Includes>,
}

/// Counts the includes of all pages of one client's request.
#[derive(Default)]
pub(super) struct Includes {
    /// How many there are at the moment.
    alive: Cell<u32>,
    /// How many there have been in all, those that failed at once as well.
    total: Cell<u32>,
    /// A page is looked at before its turn.
    ahead: Cell<bool>,
}

/// Counts an include, until it is dropped.
pub(super) struct Place(Rc<Includes>);

/// One request has had as many includes as may be.
pub(super) enum TooMany {
    /// This is the first one beyond that.
    First,
    /// The log has been told.
    Further,
}

impl Includes {
    /// Whether a page that has so many may begin another one. Where there are as many as may be at a time, a page whose
    /// turn it is may have one all the same: those that have the places may wait for it.
    pub(super) fn has_room(&self, own: usize) -> bool {
        self.alive.get() < MAX_ALIVE || own == 0 && !self.ahead.get()
    }

    /// Counts one that begins.
    pub(super) fn begin(self: &Rc<Includes>) -> Result<Place, TooMany> {
        let total = self.total.get();
        self.total.set(total.saturating_add(1));
        match total {
            ..MAX_TOTAL => {
                self.alive.set(self.alive.get() + 1);
                Ok(Place(self.clone()))
            }
            MAX_TOTAL => Err(TooMany::First),
            _ => Err(TooMany::Further),
        }
    }

    /// Does what is done for a page before its turn.
    pub(super) fn ahead(&self, work: impl FnOnce()) {
        let before = self.ahead.replace(true);
        work();
        self.ahead.set(before);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

/// Where a client's request has it.
#[derive(Default)]
struct Known(Rc<Includes>);

/// The last regex that matched, by its groups.
#[derive(Default)]
struct Matched {
    subject: Vec<u8>,
    groups: Captures,
}

/// Where a request has it.
#[derive(Default)]
struct Slot(Option<Rc<Shared>>);

/// More than pages may keep.
pub(super) struct Full;

/// A regex can't be compiled, or takes too many steps: the log line.
pub(super) struct BadRegex(pub(super) String);

impl Shared {
    /// That of a request, made when it is first asked for.
    pub(super) fn of(r: &mut Request) -> Rc<Shared> {
        if let Some(shared) = r.find_lasting_slot::<Slot>().and_then(|slot| slot.0.clone()) {
            return shared;
        }
        let includes = r.with_family_slot(|Known(includes)| includes.clone());
        let shared = Rc::new(Shared { includes, ..Shared::default() });
        shared.give(r);
        shared
    }

    /// Gives it to a subrequest.
    pub(super) fn give(self: &Rc<Shared>, child: &mut Request) {
        child.lasting_slot::<Slot>().0 = Some(self.clone());
    }

    /// Sets a variable; its name is in lower case.
    pub(super) fn set(&self, name: &[u8], value: Bytes) -> Result<(), Full> {
        let mut variables = self.variables.borrow_mut();
        let known = variables.get_mut(name);
        let before = known.as_ref().map_or(0, |old| name.len() + old.len());
        let kept = self.kept.get() - before + name.len() + value.len();
        if kept > MAX_KEPT {
            return Err(Full);
        }
        self.kept.set(kept);
        match known {
            Some(known) => *known = value,
            None => drop(variables.insert(name.to_vec(), value)),
        }
        Ok(())
    }

    /// Keeps a block, unless there is one of that name.
    pub(super) fn keep_block(&self, name: Vec<u8>, text: Vec<u8>) -> Result<(), Full> {
        let mut blocks = self.blocks.borrow_mut();
        if blocks.contains_key(&name) {
            return Ok(());
        }
        let kept = self.kept.get() + name.len() + text.len();
        if kept > MAX_KEPT {
            return Err(Full);
        }
        self.kept.set(kept);
        blocks.insert(name, Bytes::from(text));
        Ok(())
    }

    /// The text of a block.
    pub(super) fn block(&self, name: &[u8]) -> Option<Bytes> {
        self.blocks.borrow().get(name).cloned()
    }

    /// Appends the value of a variable: of a capture, of what pages have set, or of the request.
    pub(super) fn variable(&self, r: &mut Request, name: &[u8], out: &mut Vec<u8>) -> bool {
        if let [digit @ b'0'..=b'9'] = name
            && let captures = self.captures.borrow()
            && let Some(group) = captures.groups.slice(&captures.subject, usize::from(digit - b'0'))
        {
            out.extend_from_slice(group);
            return true;
        }
        let lower = lower_case(name);
        if let Some(value) = self.variables.borrow().get(&*lower) {
            out.extend_from_slice(value);
            return true;
        }
        std::str::from_utf8(&lower).is_ok_and(|name| r.variable_by_name(name, out))
    }

    /// The value of parts. A variable that isn't there adds nothing.
    pub(super) fn render(&self, r: &mut Request, parts: &[Part<'_>]) -> Result<Vec<u8>, Full> {
        let mut out = Vec::with_capacity(USUAL_VALUE);
        for part in parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(name) => {
                    self.variable(r, name, &mut out);
                }
            }
            if out.len() > MAX_VALUE {
                return Err(Full);
            }
        }
        Ok(out)
    }

    /// Whether a regex matches; if so, its groups are captures from now on, and those with a name variables.
    pub(super) fn matches(&self, pattern: &[u8], subject: Vec<u8>) -> Result<bool, BadRegex> {
        let regex = compiled(pattern)?;
        let mut captures = self.captures.borrow_mut();
        let found = regex
            .captures(&subject, &mut captures.groups)
            .map_err(|error| BadRegex(format!("regex on \"{}\" failed: {error}", subject.escape_ascii())))?;
        if !found {
            return Ok(false);
        }
        captures.subject = subject;
        for (name, group) in regex.names() {
            let value = captures.groups.slice(&captures.subject, *group).map(Bytes::copy_from);
            // One that doesn't fit any more is left out, as a variable that isn't set.
            let _ = self.set(name.to_ascii_lowercase().as_bytes(), value.unwrap_or_default());
        }
        Ok(true)
    }
}

/// A name in lower case, as most are.
pub(super) fn lower_case(name: &[u8]) -> Cow<'_, [u8]> {
    match name.iter().any(u8::is_ascii_uppercase) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// A compiled regex. Pages have the same ones again and again.
fn compiled(pattern: &[u8]) -> Result<Rc<Regex>, BadRegex> {
    thread_local! {
        static REGEXES: RefCell<Named<Rc<Regex>>> = RefCell::default();
    }
    REGEXES.with_borrow_mut(|regexes| {
        if let Some(known) = regexes.get(pattern) {
            return Ok(known.clone());
        }
        let regex = Rc::new(Regex::new(pattern, false).map_err(|error| BadRegex(error.to_string()))?);
        if regexes.len() == MAX_REGEXES {
            regexes.clear();
        }
        regexes.insert(pattern.to_vec(), regex.clone());
        Ok(regex)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_counted() {
        let includes = Rc::<Includes>::default();
        let begin = || includes.begin().ok();
        let mut held: Vec<Option<Place>> = (0..MAX_ALIVE).map(|_| begin()).collect();
        assert!(!includes.has_room(1) && includes.has_room(0), "a page whose turn it is may have one");
        includes.ahead(|| {
            assert!(!includes.has_room(0), "one before its turn waits");
            includes.ahead(|| ());
            assert!(!includes.has_room(0));
        });
        assert!(includes.has_room(0));
        held.pop();
        assert!(includes.has_room(1), "one is over");
        assert_eq!((MAX_ALIVE..MAX_TOTAL).filter(|_| begin().is_none()).count(), 0);
        assert!(matches!(includes.begin(), Err(TooMany::First)));
        assert!(matches!(includes.begin(), Err(TooMany::Further)));
    }
}
