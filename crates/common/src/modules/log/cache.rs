//! `open_log_file_cache`: descriptors of logs whose names have variables, kept open while they are in use.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use conf::{Directive, Error, Loader, Result};

/// Open log files by name, the least recently used ones leaving first.
#[derive(Debug)]
pub struct LogCache {
    max: usize,
    inactive_ms: u64,
    valid_ms: u64,
    min_uses: u64,
    state: RefCell<State>,
}

/// A cache is equal to itself alone.
impl PartialEq for LogCache {
    fn eq(&self, other: &LogCache) -> bool {
        std::ptr::eq(self, other)
    }
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<Rc<[u8]>, Cached>,
    /// Names by the number of their last use.
    order: BTreeMap<u64, Rc<[u8]>>,
    uses: u64,
}

#[derive(Debug)]
struct Cached {
    /// `None` while it was used too rarely to be kept open.
    file: Option<Rc<File>>,
    uses: u64,
    checked_ms: u64,
    used_ms: u64,
    order: u64,
}

/// `open_log_file_cache off | max=N [inactive=TIME] [min_uses=N] [valid=TIME]`.
pub(super) fn parse_cache(_: &mut Loader<'_>, d: &Directive) -> Result<Option<Rc<LogCache>>> {
    let mut off = false;
    let (mut max, mut inactive, mut valid, mut min_uses) = (None, Some(10_000), Some(60_000), Some(1));
    for word in &d.args {
        if word == "off" {
            off = true;
            continue;
        }
        let number = buf::parse::parse_number;
        // In whole seconds, as nginx has it.
        let time = |text: &[u8]| buf::parse::parse_sec(text).map(|secs| secs.saturating_mul(1000));
        let text = &word.text[..];
        let slot = if let Some(value) = text.strip_prefix(b"max=") {
            (&mut max, number(value))
        } else if let Some(value) = text.strip_prefix(b"inactive=") {
            (&mut inactive, time(value))
        } else if let Some(value) = text.strip_prefix(b"min_uses=") {
            (&mut min_uses, number(value))
        } else if let Some(value) = text.strip_prefix(b"valid=") {
            (&mut valid, time(value))
        } else {
            (&mut max, None)
        };
        let invalid = || Error::at(word, format!("invalid \"open_log_file_cache\" parameter \"{}\"", word.lossy()));
        *slot.0 = Some(slot.1.ok_or_else(invalid)?);
    }
    if off {
        return Ok(None);
    }
    let Some(max) = max.filter(|max| *max > 0) else {
        return Err(Error::on(d, "\"open_log_file_cache\" must have \"max\" parameter"));
    };
    Ok(Some(Rc::new(LogCache {
        max: usize::try_from(max).unwrap_or(usize::MAX),
        inactive_ms: inactive.unwrap_or_default(),
        valid_ms: valid.unwrap_or_default(),
        min_uses: min_uses.unwrap_or(1),
        state: RefCell::default(),
    })))
}

impl LogCache {
    /// The file of that name, open for appending; it is made if there is none.
    pub fn open(&self, name: &[u8], now_ms: u64) -> io::Result<Rc<File>> {
        let mut state = self.state.borrow_mut();
        state.expire(now_ms, self.inactive_ms);
        state.uses += 1;
        let order = state.uses;
        let State { files, order: by_use, .. } = &mut *state;
        if let Some((name, cached)) = files.get_key_value(name).map(|(name, _)| name.clone()).and_then(|name| {
            let cached = files.get_mut(&name)?;
            Some((name, cached))
        }) {
            by_use.remove(&cached.order);
            by_use.insert(order, name.clone());
            cached.uses += 1;
            (cached.order, cached.used_ms) = (order, now_ms);
            return self.of_cached(&name, cached, now_ms);
        }
        let file = Rc::new(super::writer::open(name)?);
        if files.len() >= self.max
            && let Some((_, oldest)) = by_use.pop_first()
        {
            files.remove(&oldest);
        }
        let kept = (self.min_uses <= 1).then(|| file.clone());
        let name: Rc<[u8]> = name.into();
        by_use.insert(order, name.clone());
        files.insert(name, Cached { file: kept, uses: 1, checked_ms: now_ms, used_ms: now_ms, order });
        Ok(file)
    }

    fn of_cached(&self, name: &[u8], cached: &mut Cached, now_ms: u64) -> io::Result<Rc<File>> {
        if let Some(file) = &cached.file {
            if now_ms.saturating_sub(cached.checked_ms) < self.valid_ms {
                return Ok(file.clone());
            }
            cached.checked_ms = now_ms;
            if same_file(file, name) {
                return Ok(file.clone());
            }
            cached.file = None;
        }
        let file = Rc::new(super::writer::open(name)?);
        if cached.uses >= self.min_uses {
            (cached.file, cached.checked_ms) = (Some(file.clone()), now_ms);
        }
        Ok(file)
    }
}

impl State {
    /// Forgets those that weren't used lately; a few at a time are enough.
    fn expire(&mut self, now_ms: u64, inactive_ms: u64) {
        for _ in 0..2 {
            let Some(entry) = self.order.first_entry() else { return };
            let stale = |cached: &Cached| now_ms.saturating_sub(cached.used_ms) > inactive_ms;
            if !self.files.get(entry.get()).is_none_or(stale) {
                return;
            }
            let name = entry.remove();
            self.files.remove(&name);
        }
    }
}

/// Whether the name still means the open file.
fn same_file(file: &File, name: &[u8]) -> bool {
    let named = std::fs::metadata(std::ffi::OsStr::from_bytes(name));
    match (file.metadata(), named) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use conf::{Env, Registry, Sources, Word};

    use super::*;

    fn parse(text: &str) -> Result<Option<Rc<LogCache>>> {
        let registry = Registry::new();
        let mut loader = Loader::new(&registry, Env::default(), Sources::default());
        let args = text.split(' ').map(|text| Word { text: text.into(), ..Word::default() }).collect();
        parse_cache(&mut loader, &Directive { args, ..Directive::default() })
    }

    #[test]
    fn parameters() {
        let cache = parse("max=10 inactive=20s valid=1m min_uses=2").ok().flatten();
        let seen = cache.map(|c| (c.max, c.inactive_ms, c.valid_ms, c.min_uses));
        assert_eq!(seen, Some((10, 20_000, 60_000, 2)));
        for text in ["off", "off max=1", "max=1 off"] {
            assert!(parse(text).is_ok_and(|cache| cache.is_none()), "{text}");
        }
        for text in ["max=", "max=-1", "inactive=x", "min_uses=x", "max=1 foo"] {
            let wrong = text.rsplit(' ').next().unwrap_or_default();
            let error = parse(text).err().map(|error| error.message);
            assert_eq!(error, Some(format!("invalid \"open_log_file_cache\" parameter \"{wrong}\"")));
        }
        for text in ["max=0", "valid=1"] {
            let error = parse(text).err().map(|error| error.message);
            assert_eq!(error.as_deref(), Some("\"open_log_file_cache\" must have \"max\" parameter"));
        }
    }

    #[test]
    fn keeps_what_is_used() {
        let folder = tempfile::TempDir::with_prefix("tidegate-log-cache-").expect("a temporary folder");
        let folder = folder.path();
        let name = |name: &str| folder.join(name).into_os_string().into_encoded_bytes();
        let cache = parse("max=2 min_uses=2 inactive=10 valid=5").ok().flatten().expect("a cache");
        let open = |file: &str, now| cache.open(&name(file), now).expect("opens");
        let first = open("a", 0);
        let second = open("a", 1);
        assert!(!Rc::ptr_eq(&first, &second) && Rc::ptr_eq(&second, &open("a", 2)));
        std::fs::rename(folder.join("a"), folder.join("b")).expect("renames");
        assert!(Rc::ptr_eq(&second, &open("a", 3)));
        assert!(!Rc::ptr_eq(&second, &open("a", 5002)), "it is another file by now");
        open("c", 5003);
        open("d", 5004);
        let state = || cache.state.borrow().files.len();
        assert_eq!(state(), 2, "the oldest gave way");
        open("d", 16_000);
        assert_eq!(state(), 1, "what wasn't used went");
        assert!(cache.open(&name("no/such"), 16_001).is_err() && state() == 1);
    }
}
