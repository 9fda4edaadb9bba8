//! Media types by the extension of a file's name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use buf::Bytes;
use conf::{Directive, Error, Loader, Result};

/// What `types {}` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    by_extension: HashMap<Box<[u8]>, Bytes, BuildHasherDefault<Quick>>,
}

/// FNV: quick for keys so short, and enough for a table whose keys are the configuration's, never a client's.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }

    fn write_usize(&mut self, n: usize) {
        self.0 ^= 0xcbf2_9ce4_8422_2325 ^ n as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Types {
    /// No types.
    pub fn new() -> Types {
        Types::default()
    }

    /// What holds where there is no `types {}`.
    pub(crate) fn default_types() -> Rc<Types> {
        thread_local! {
            static DEFAULT: Rc<Types> = {
                let mut types = Types::new();
                types.add(b"html", b"text/html");
                types.add(b"gif", b"image/gif");
                types.add(b"jpg", b"image/jpeg");
                Rc::new(types)
            };
        }
        DEFAULT.with(Rc::clone)
    }

    /// Adds an extension; the later one of two counts, and the earlier one's type is given back.
    pub fn add(&mut self, extension: &[u8], media_type: &[u8]) -> Option<Bytes> {
        self.by_extension.insert(extension.to_ascii_lowercase().into(), Bytes::from(media_type.to_vec()))
    }

    /// The media type of a path's extension.
    pub fn of(&self, path: &[u8]) -> Option<Bytes> {
        let (extension, has_capitals) = extension(path)?;
        let found = match has_capitals {
            true => self.by_extension.get(&*extension.to_ascii_lowercase()),
            false => self.by_extension.get(extension),
        };
        found.cloned()
    }
}

/// What follows the last dot of a path's last part, unless that begins with the dot, and whether it has capitals. It is short, so
/// it is looked through byte by byte.
fn extension(path: &[u8]) -> Option<(&[u8], bool)> {
    let (mut before, mut has_capitals) = (path, false);
    loop {
        let (byte, rest) = before.split_last()?;
        match byte {
            b'.' => break before = rest,
            b'/' => return None,
            byte => has_capitals |= byte.is_ascii_uppercase(),
        }
        before = rest;
    }
    before.last().filter(|byte| **byte != b'/')?;
    Some((path.get(before.len() + 1..)?, has_capitals))
}

/// A set of media types, as directives such as `gzip_types` name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeSet {
    types: Vec<Box<[u8]>>,
    any: bool,
}

impl TypeSet {
    /// `text/html` alone, which such sets always have.
    pub fn html() -> Rc<TypeSet> {
        TypeSet::of(&["text/html"])
    }

    /// These types, written in lower case.
    pub fn of(types: &[&str]) -> Rc<TypeSet> {
        Rc::new(TypeSet { types: types.iter().map(|name| Box::from(name.as_bytes())).collect(), any: false })
    }

    /// Adds the arguments of a directive; `*` stands for all types. One that is there already is warned of.
    fn extend(&mut self, loader: &mut Loader<'_>, d: &Directive) {
        for word in &d.args {
            if *word == "*" {
                self.any = true;
            } else if self.types.iter().any(|own| own.eq_ignore_ascii_case(&word.text)) {
                loader
                    .warn(d, Error::at(word, format!("duplicate MIME type \"{}\"", word.lossy().to_ascii_lowercase())));
            } else {
                self.types.push(word.text.to_ascii_lowercase().into());
            }
        }
    }

    /// Whether the type of a response, parameters aside, is in the set.
    pub fn has(&self, content_type: &[u8]) -> bool {
        if self.any {
            return true;
        }
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let own = content_type[..end].trim_ascii_end();
        self.types.iter().any(|known| known.eq_ignore_ascii_case(own))
    }
}

/// Adds the types that a directive names to those of its level, which begins with `text/html`.
pub fn add_types(own: &mut Option<Rc<TypeSet>>, loader: &mut Loader<'_>, d: &Directive) -> Result<()> {
    Rc::make_mut(own.get_or_insert_with(TypeSet::html)).extend(loader, d);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let set = TypeSet::html();
        assert!(set.has(b"text/html"));
        assert!(set.has(b"Text/HTML; charset=utf-8"));
        assert!(!set.has(b"text/plain"));
        assert!(TypeSet { any: true, ..TypeSet::default() }.has(b"x"));
    }

    #[test]
    fn by_extension() {
        let types = Types::default_types();
        let check = |path: &str, expect: Option<&str>| {
            let found = types.of(path.as_bytes());
            assert_eq!(found.as_deref(), expect.map(str::as_bytes), "{path}");
        };
        check("/a.html", Some("text/html"));
        check("/a.b.HTML", Some("text/html"));
        check("/a.html/b", None);
        check("/html", None);
        check("/a.", None);
        check("/.html", None);
        check("/.a.html", Some("text/html"));
    }
}
