//! Names with values: exact ones and those with a wildcard at the beginning or the end.
//!
//! The order of a search is nginx's: the exact name, the longest wildcard at the beginning (`*.example.com`), the
//! longest wildcard at the end (`mail.*`). `.example.com` stands for `example.com` and `*.example.com` together.
//!
//! All names of a table share one string. A search for a wildcard hashes the name once, from its end or from its
//! beginning, and asks the table at each dot; it stops at the depth of the deepest wildcard that there is.

use std::fmt;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::hash::{Rolling, hash};

/// Why a name can't be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesError {
    /// The same name is there already: nginx's word is `conflicting parameter "x"`. (For `server_name` that is only a
    /// warning of the caller's, and the first one stays.)
    Conflict(String),
    /// A wildcard in the middle of a label or of a name, or an empty label.
    Invalid(String),
}

impl fmt::Display for NamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamesError::Conflict(name) => write!(f, "conflicting parameter \"{}\"", name.to_ascii_lowercase()),
            NamesError::Invalid(name) => write!(f, "invalid hostname or wildcard \"{name}\""),
        }
    }
}

impl std::error::Error for NamesError {}

/// What a name says, its wildcard taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exact,
    /// `*.x`
    Leading,
    /// `.x`: `x` and `*.x`
    Dotted,
    /// `x.*`
    Trailing,
}

#[derive(Debug)]
struct Entry<T> {
    start: u32,
    end: u32,
    kind: Kind,
    value: T,
}

/// A table of names; see the module's page for the order of a search.
pub struct Names<T> {
    text: Vec<u8>,
    entries: Vec<Entry<T>>,
    exact: HashTable<u32>,
    /// `*.x` and `.x`, by `x`.
    leading: HashTable<u32>,
    trailing: HashTable<u32>,
    /// The most dots in a wildcard's fixed part, for either table.
    leading_depth: usize,
    trailing_depth: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names {
            text: Vec::new(),
            entries: Vec::new(),
            exact: HashTable::new(),
            leading: HashTable::new(),
            trailing: HashTable::new(),
            leading_depth: 0,
            trailing_depth: 0,
        }
    }
}

impl<T> Names<T> {
    /// An empty table.
    pub fn new() -> Names<T> {
        Names::default()
    }

    /// Whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a name in which nothing is special, in any case of letters.
    pub fn add_exact(&mut self, name: &[u8], value: T) -> Result<(), NamesError> {
        let lower = name.to_ascii_lowercase();
        if self.find_exact(&lower).is_some() {
            return Err(NamesError::Conflict(shown(name)));
        }
        let index = self.push(&lower, Kind::Exact, value);
        let Names { exact, entries, text, .. } = self;
        exact.insert_unique(hash(&lower), index, |i| hash(name_of(text, entries, *i)));
        Ok(())
    }

    /// Adds a name that may have a wildcard, in any case of letters: `x`, `*.x`, `.x` or `x.*`.
    pub fn add(&mut self, name: &[u8], value: T) -> Result<(), NamesError> {
        let (kind, fixed) = classify(name).ok_or_else(|| NamesError::Invalid(shown(name)))?;
        if kind == Kind::Exact {
            // A dotted name holds the exact one as well.
            let lower = name.to_ascii_lowercase();
            return match self.find_leading(&lower).map(|entry| entry.kind) {
                Some(Kind::Dotted) => Err(NamesError::Conflict(shown(name))),
                _ => self.add_exact(name, value),
            };
        }
        let fixed = fixed.to_ascii_lowercase();
        let taken = match kind {
            Kind::Trailing => self.find_trailing(&fixed).is_some(),
            Kind::Dotted => self.find_leading(&fixed).is_some() || self.find_exact(&fixed).is_some(),
            _ => self.find_leading(&fixed).is_some(),
        };
        if taken {
            return Err(NamesError::Conflict(shown(name)));
        }
        self.insert_wildcard(&fixed, kind, value);
        Ok(())
    }

    /// The value of `name` (in lower case) among exact names and wildcards.
    pub fn lookup(&self, name: &[u8]) -> Option<&T> {
        self.lookup_exact(name).or_else(|| self.lookup_leading(name)).or_else(|| self.lookup_trailing(name))
    }

    /// Frees what building has left over.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    fn lookup_exact(&self, name: &[u8]) -> Option<&T> {
        self.find_exact(name).map(|entry| &entry.value)
    }

    fn lookup_leading(&self, name: &[u8]) -> Option<&T> {
        if self.leading.is_empty() {
            return None;
        }
        let mut tails: SmallVec<[(usize, u64); 8]> = SmallVec::new();
        let mut rolling = Rolling::new();
        let mut whole = true;
        for (at, byte) in name.iter().enumerate().rev() {
            if *byte == b'.' {
                tails.push((at + 1, rolling.value()));
                if tails.len() > self.leading_depth + 1 {
                    whole = false;
                    break;
                }
            }
            rolling.push(*byte);
        }
        let dotted = if whole && !name.is_empty() {
            self.probe(&self.leading, rolling.value(), name).filter(|entry| entry.kind == Kind::Dotted)
        } else {
            None
        };
        let longest_first = tails.iter().rev();
        let tail = |&(at, hash): &(usize, u64)| self.probe(&self.leading, hash, name.get(at..)?);
        dotted.or_else(|| longest_first.into_iter().find_map(tail)).map(|entry| &entry.value)
    }

    fn lookup_trailing(&self, name: &[u8]) -> Option<&T> {
        if self.trailing.is_empty() {
            return None;
        }
        let mut found = None;
        let mut rolling = Rolling::new();
        let mut dots = 0;
        for (at, byte) in name.iter().enumerate() {
            if *byte == b'.' {
                found = self.probe(&self.trailing, rolling.value(), name.get(..at)?).or(found);
                dots += 1;
                if dots > self.trailing_depth {
                    break;
                }
            }
            rolling.push(*byte);
        }
        found.map(|entry| &entry.value)
    }

    fn find_exact(&self, name: &[u8]) -> Option<&Entry<T>> {
        self.probe(&self.exact, hash(name), name)
    }

    fn find_leading(&self, fixed: &[u8]) -> Option<&Entry<T>> {
        self.probe(&self.leading, hash_backward(fixed), fixed)
    }

    fn find_trailing(&self, fixed: &[u8]) -> Option<&Entry<T>> {
        self.probe(&self.trailing, hash_forward(fixed), fixed)
    }

    fn probe(&self, table: &HashTable<u32>, hash: u64, name: &[u8]) -> Option<&Entry<T>> {
        let index = table.find(hash, |i| name_of(&self.text, &self.entries, *i) == name)?;
        self.entries.get(*index as usize)
    }

    fn insert_wildcard(&mut self, fixed: &[u8], kind: Kind, value: T) {
        let index = self.push(fixed, kind, value);
        let dots = fixed.iter().filter(|byte| **byte == b'.').count();
        let Names { leading, trailing, entries, text, .. } = self;
        if kind == Kind::Trailing {
            trailing.insert_unique(hash_forward(fixed), index, |i| hash_forward(name_of(text, entries, *i)));
            self.trailing_depth = self.trailing_depth.max(dots);
        } else {
            leading.insert_unique(hash_backward(fixed), index, |i| hash_backward(name_of(text, entries, *i)));
            self.leading_depth = self.leading_depth.max(dots);
        }
    }

    fn push(&mut self, name: &[u8], kind: Kind, value: T) -> u32 {
        let offset = |n: usize| u32::try_from(n).expect("the names of a configuration are shorter than 4 GiB");
        let (start, index) = (offset(self.text.len()), offset(self.entries.len()));
        self.text.extend_from_slice(name);
        self.entries.push(Entry { start, end: offset(self.text.len()), kind, value });
        index
    }
}

fn name_of<'t, T>(text: &'t [u8], entries: &[Entry<T>], index: u32) -> &'t [u8] {
    let range = entries.get(index as usize).map(|entry| entry.start as usize..entry.end as usize);
    range.and_then(|range| text.get(range)).unwrap_or_default()
}

fn hash_forward(name: &[u8]) -> u64 {
    let mut rolling = Rolling::new();
    name.iter().for_each(|byte| rolling.push(*byte));
    rolling.value()
}

fn hash_backward(name: &[u8]) -> u64 {
    let mut rolling = Rolling::new();
    name.iter().rev().for_each(|byte| rolling.push(*byte));
    rolling.value()
}

/// The kind of a name and its fixed part; `None` if it is invalid. One wildcard at most, and no empty label but the
/// first; a lone `*.` or `*` isn't a name.
fn classify(name: &[u8]) -> Option<(Kind, &[u8])> {
    let (kind, fixed) = if let Some(fixed) = name.strip_prefix(b"*.") {
        (Kind::Leading, fixed)
    } else if let Some(fixed) = name.strip_suffix(b".*") {
        (Kind::Trailing, fixed)
    } else if let Some(fixed) = name.strip_prefix(b".") {
        (Kind::Dotted, fixed)
    } else {
        (Kind::Exact, name)
    };
    let doubled = name.windows(2).any(|pair| pair == b"..");
    let hollow = kind == Kind::Leading && fixed.is_empty();
    (!doubled && !hollow && !fixed.contains(&b'*')).then_some((kind, fixed))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence() {
        let mut names = Names::new();
        for name in
            ["*.com", "mail.*", "x.y.*", "*.b.com", ".c.com", "www.c.com", "", "Exact.ORG", "*.deep.er.b.com", "_"]
        {
            names.add(name.as_bytes(), name).expect("a valid name");
        }
        for (name, expect) in [
            ("", Some("")),
            ("com", None),
            (".com", Some("*.com")),
            ("a.com", Some("*.com")),
            ("a..com", Some("*.com")),
            ("a.b.com", Some("*.b.com")),
            (".b.com", Some("*.b.com")),
            ("b.com", Some("*.com")),
            ("c.com", Some(".c.com")),
            ("x.c.com", Some(".c.com")),
            ("a.b.c.d.e.f.c.com", Some(".c.com")),
            ("www.c.com", Some("www.c.com")),
            ("1.deep.er.b.com", Some("*.deep.er.b.com")),
            ("deep.er.b.com", Some("*.b.com")),
            ("mail", None),
            ("mail.a", Some("mail.*")),
            ("mail..a", Some("mail.*")),
            ("mail.com", Some("*.com")),
            ("mail.a.com", Some("*.com")),
            ("x.y.z", Some("x.y.*")),
            ("x.y", None),
            ("exact.org", Some("Exact.ORG")),
            ("_", Some("_")),
            ("a.b.com..", None),
        ] {
            assert_eq!(names.lookup(name.as_bytes()).copied(), expect, "{name}");
        }
    }

    #[test]
    fn conflicts() {
        for (first, second, expect) in [
            ("a.b", "a.b", Some("conflicting parameter \"a.b\"")),
            ("A.b", "a.B", Some("conflicting parameter \"a.b\"")),
            ("*.a.b", "*.a.b", Some("conflicting parameter \"*.a.b\"")),
            (".a.b", "a.b", Some("conflicting parameter \"a.b\"")),
            ("a.b", ".a.b", Some("conflicting parameter \".a.b\"")),
            (".a.b", "*.a.b", Some("conflicting parameter \"*.a.b\"")),
            ("*.a.b", ".a.b", Some("conflicting parameter \".a.b\"")),
            ("a.*", "a.*", Some("conflicting parameter \"a.*\"")),
            ("", "", Some("conflicting parameter \"\"")),
            ("a.b", "*.a.b", None),
            ("a", "a.*", None),
            ("*.com", "*.com.", None),
            ("x", "a.*.b", Some("invalid hostname or wildcard \"a.*.b\"")),
            ("x", "*a.b", Some("invalid hostname or wildcard \"*a.b\"")),
            ("x", "a*", Some("invalid hostname or wildcard \"a*\"")),
            ("x", "*", Some("invalid hostname or wildcard \"*\"")),
            ("x", "*.", Some("invalid hostname or wildcard \"*.\"")),
            ("x", "*.*", Some("invalid hostname or wildcard \"*.*\"")),
            ("x", "*.*.a", Some("invalid hostname or wildcard \"*.*.a\"")),
            ("x", "**.a", Some("invalid hostname or wildcard \"**.a\"")),
            ("x", "*.a*", Some("invalid hostname or wildcard \"*.a*\"")),
            ("x", "*.a.*", Some("invalid hostname or wildcard \"*.a.*\"")),
            ("x", "a..b", Some("invalid hostname or wildcard \"a..b\"")),
            ("x", "..a", Some("invalid hostname or wildcard \"..a\"")),
            ("x", ".", None),
            ("x", ".*", None),
            ("x", ".a.*", None),
            ("x", "a.b.", None),
        ] {
            let mut names = Names::new();
            names.add(first.as_bytes(), 1).expect("a valid name");
            let error = names.add(second.as_bytes(), 2).err().map(|e| e.to_string());
            assert_eq!(error.as_deref(), expect, "{first} {second}");
            assert_eq!(names.len(), if expect.is_some() { 1 } else { 2 });
        }
    }

    #[test]
    fn exact_names_have_no_wildcards() {
        let mut names = Names::new();
        names.add_exact(b"*.a", 1).expect("new");
        assert_eq!(names.add_exact(b"*.A", 2), Err(NamesError::Conflict("*.A".into())));
        assert_eq!((names.lookup(b"*.a"), names.lookup(b"b.a")), (Some(&1), None));
    }

    #[test]
    fn a_hundred_thousand_names() {
        let mut names = Names::new();
        for i in 0..100_000u32 {
            let name = if i % 2 == 0 { format!("www{i}.example.com") } else { format!("*.host{i}.example.org") };
            names.add(name.as_bytes(), i).expect("a new name");
        }
        names.shrink();
        for i in [0, 1, 2, 4999, 77_778, 99_999] {
            let name = if i % 2 == 0 { format!("www{i}.example.com") } else { format!("a.b.host{i}.example.org") };
            assert_eq!(names.lookup(name.as_bytes()), Some(&i), "{name}");
        }
        assert_eq!(names.lookup(b"www1.example.com"), None);
    }
}
