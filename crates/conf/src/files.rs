//! Where the text of configurations comes from. This crate opens nothing itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Reads files and finds them by pattern.
pub trait Files {
    /// The contents of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The files that match a pattern with `*`, `?` and `[…]`, sorted; none is no error.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
}

/// Files in memory: for tests and for a configuration that is built in.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(pub BTreeMap<PathBuf, Vec<u8>>);

impl MemoryFiles {
    /// Files from pairs of path and text.
    pub fn new<P: Into<PathBuf>, T: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, T)>) -> MemoryFiles {
        MemoryFiles(files.into_iter().map(|(path, text)| (path.into(), text.into())).collect())
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        const ENOENT: i32 = 2;
        self.0.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(ENOENT))
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let pattern = pattern.as_os_str().as_encoded_bytes();
        let matches = |path: &&PathBuf| glob_matches(pattern, path.as_os_str().as_encoded_bytes());
        Ok(self.0.keys().filter(matches).cloned().collect())
    }
}

/// Whether a path matches a pattern as glob(3) has it: `*` and `?` stand for anything but `/`, nor for a leading dot
/// of a part; `[a-z]`, `[!a-z]`; a backslash protects the next character.
pub fn glob_matches(pattern: &[u8], path: &[u8]) -> bool {
    let mut patterns = pattern.split(|&byte| byte == b'/');
    let mut parts = path.split(|&byte| byte == b'/');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

fn part_matches(pattern: &[u8], part: &[u8]) -> bool {
    if part.first() == Some(&b'.') && pattern.first() != Some(&b'.') && !pattern.starts_with(b"\\.") {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where to go on after a mismatch: after the last star, which then takes one byte more.
    let mut retry = None;
    while n < part.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if let Some(len) = one_matches(&pattern[p..], part[n]) {
            p += len;
            n += 1;
            continue;
        }
        let Some((star, taken)) = retry else { return false };
        retry = Some((star, taken + 1));
        (p, n) = (star, taken + 1);
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// If the first element of the pattern matches the byte: the element's length.
fn one_matches(pattern: &[u8], byte: u8) -> Option<usize> {
    let (literal, len) = match *pattern {
        [] => return None,
        [b'?', ..] => return Some(1),
        [b'[', ..] => match class(pattern, byte) {
            Some((matches, len)) => return matches.then_some(len),
            None => (b'[', 1),
        },
        [b'\\', next, ..] => (next, 2),
        [first, ..] => (first, 1),
    };
    (literal == byte).then_some(len)
}

/// Whether a class like `[a-z]` has the byte, and how long the class is; nothing if it isn't closed.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = 1 + usize::from(negated);
    let (mut at, mut found) = (first, false);
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let good = [
            ("/a/*.conf", "/a/b.conf"),
            ("*", "abc"),
            ("a*b*c", "aXbXbc"),
            ("?.c", "x.c"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[", "["),
            (r"\*", "*"),
            (".*", ".a"),
            ("a*", "a"),
        ];
        for (pattern, path) in good {
            assert!(glob_matches(pattern.as_bytes(), path.as_bytes()), "{pattern} {path}");
        }
        let bad = [
            ("/a/*.conf", "/a/b/c.conf"),
            ("*", ".a"),
            ("*.conf", "a.conf~"),
            ("[a-c]", "d"),
            ("?", ""),
            ("a*b", "ac"),
            (r"\*", "a"),
            ("a", "a/b"),
        ];
        for (pattern, path) in bad {
            assert!(!glob_matches(pattern.as_bytes(), path.as_bytes()), "{pattern} {path}");
        }
    }
}
