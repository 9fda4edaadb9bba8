//! The registry of variables: names at configuration time, ids afterwards.
//!
//! Modules add definitions, directives refer to names, in any order; [`Registry::finish`] joins the two. A name that has
//! no definition of its own may belong to a family such as `arg_`: its entry carries the full name.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;

use super::VarId;

/// How a variable behaves; combine them with `|`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// None of them.
    pub const NONE: Flags = Flags(0);
    /// It may be defined again (`map`, `set`): the last definition holds.
    pub const CHANGEABLE: Flags = Flags(1);
    /// Its value is computed afresh on each use (nginx's nocacheable, and `volatile` of `map`).
    pub const NOCACHEABLE: Flags = Flags(2);
    /// It can't be found by name at run time.
    pub const NOHASH: Flags = Flags(4);
    /// The name is the beginning of a family of names, such as `arg_`.
    pub const PREFIX: Flags = Flags(8);
    /// The definition gives way to any other, a family's included (`set $arg_x`).
    pub const WEAK: Flags = Flags(16);

    /// Whether all of `other` are set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// A name that is taken by a variable which may not be defined again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate(pub String);

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the duplicate \"{}\" variable", self.0)
    }
}

impl std::error::Error for Duplicate {}

/// A name that was referred to and that nothing defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The name, in lower case.
    pub name: String,
    /// Its id: the caller may know from it where it met the name first.
    pub id: VarId,
    /// What [`Registry::set_place`] said when the name was met first.
    pub place: Option<u32>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown \"{}\" variable", self.name)
    }
}

impl std::error::Error for Unknown {}

/// A word that should be `$name` and isn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName(pub String);

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid variable name \"{}\"", self.0)
    }
}

impl std::error::Error for BadName {}

/// The name in a word such as `$name`, by which a directive (`map`, `set`, `geo`) defines a variable. Like nginx it
/// accepts anything after the dollar.
pub fn variable_name(word: &str) -> Result<&str, BadName> {
    match word.strip_prefix('$') {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(BadName(word.to_owned())),
    }
}

#[derive(Clone)]
struct Definition<D> {
    flags: Flags,
    payload: D,
}

struct Reference {
    name: String,
    place: Option<u32>,
}

type Names<T> = HashMap<String, T, RandomState>;

/// Definitions and references while a configuration is read. `D` is what a definition is for the protocol, usually a
/// getter and its data.
pub struct Registry<D> {
    names: Names<Definition<D>>,
    prefixes: Names<Definition<D>>,
    ids: Names<VarId>,
    references: Vec<Reference>,
    place: Option<u32>,
}

impl<D> Default for Registry<D> {
    fn default() -> Registry<D> {
        Registry {
            names: Names::default(),
            prefixes: Names::default(),
            ids: Names::default(),
            references: Vec::new(),
            place: None,
        }
    }
}

impl<D: Clone> Registry<D> {
    /// An empty registry.
    pub fn new() -> Registry<D> {
        Registry::default()
    }

    /// Defines `name` (or the family `name`, with [`Flags::PREFIX`]). Names are the same in any case of letters.
    ///
    /// A second definition needs a first one that is changeable; it replaces the first, unless it is weak.
    pub fn add(&mut self, name: &str, flags: Flags, payload: D) -> Result<(), Duplicate> {
        let table = if flags.has(Flags::PREFIX) { &mut self.prefixes } else { &mut self.names };
        let name = name.to_ascii_lowercase();
        let new = Definition { flags, payload };
        match table.get_mut(&name) {
            None => {
                table.insert(name, new);
            }
            Some(old) if !old.flags.has(Flags::CHANGEABLE) => return Err(Duplicate(name)),
            Some(_) if flags.has(Flags::WEAK) => {}
            Some(old) => *old = new,
        }
        Ok(())
    }

    /// The definition that `name` itself has so far.
    pub fn definition(&self, name: &str) -> Option<(&D, Flags)> {
        self.names.get(&name.to_ascii_lowercase()).map(|found| (&found.payload, found.flags))
    }

    /// All definitions, families among them, in order of their names.
    pub fn definitions(&self) -> impl Iterator<Item = (&str, Flags, &D)> {
        let mut all: Vec<_> = self.names.iter().chain(&self.prefixes).collect();
        all.sort_by_key(|(name, _)| *name);
        all.into_iter().map(|(name, found)| (name.as_str(), found.flags, &found.payload))
    }

    /// Where the references that follow stand, in numbers of the caller's: an unknown name is reported with it.
    pub fn set_place(&mut self, place: u32) {
        self.place = Some(place);
    }

    /// The id of `name`, which may be defined later.
    pub fn reference(&mut self, name: &str) -> VarId {
        let name = name.to_ascii_lowercase();
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = VarId(u32::try_from(self.references.len()).expect("a configuration has fewer than 2^32 names"));
        self.references.push(Reference { name: name.clone(), place: self.place });
        self.ids.insert(name, id);
        id
    }

    /// The names of all variables, for messages; families are left out.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Joins references and definitions. The error lists every unknown name, in order of first reference.
    pub fn finish(self) -> Result<Variables<D>, Vec<Unknown>> {
        let mut families: Vec<(String, Definition<D>)> = self.prefixes.into_iter().collect();
        families.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        let mut frozen = Variables { entries: Vec::new(), ids: self.ids, names: self.names, families: families.into() };
        let mut unknown = Vec::new();
        for (index, reference) in self.references.into_iter().enumerate() {
            let entry = frozen.resolve(&reference.name).map(|found| Entry {
                name: reference.name.as_str().into(),
                prefix: found.prefix,
                flags: found.flags,
                payload: found.payload.clone(),
            });
            match entry {
                Some(entry) => frozen.entries.push(entry),
                None => {
                    let id = VarId(index as u32);
                    unknown.push(Unknown { name: reference.name, id, place: reference.place });
                }
            }
        }
        if unknown.is_empty() { Ok(frozen) } else { Err(unknown) }
    }
}

/// A variable that is in use.
#[derive(Clone, Debug)]
pub struct Entry<D> {
    /// The full name, in lower case.
    pub name: Box<str>,
    /// The length of the family's prefix, 0 where the name has a definition of its own.
    pub prefix: usize,
    /// How it behaves.
    pub flags: Flags,
    /// What was given to [`Registry::add`].
    pub payload: D,
}

impl<D> Entry<D> {
    /// The name without its family's prefix: `x` of `$arg_x`.
    pub fn suffix(&self) -> &str {
        self.name.get(self.prefix..).unwrap_or_default()
    }
}

/// A variable that was found by its name.
pub struct Named<'v, D> {
    /// The name without its family's prefix.
    pub suffix: &'v str,
    /// What was given to [`Registry::add`].
    pub payload: &'v D,
    prefix: usize,
    flags: Flags,
}

/// The variables of a configuration, frozen: an [`Entry`] for each id.
pub struct Variables<D> {
    entries: Vec<Entry<D>>,
    ids: Names<VarId>,
    names: Names<Definition<D>>,
    families: Box<[(String, Definition<D>)]>,
}

impl<D: Clone> Variables<D> {
    /// How many ids there are: the size of a session's table of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the configuration uses no variable.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The variable of an id of the same registry.
    ///
    /// # Panics
    /// If the id is of another registry and too large for this one.
    pub fn entry(&self, id: VarId) -> &Entry<D> {
        &self.entries[id.index()]
    }

    /// All entries, in order of their ids.
    pub fn entries(&self) -> &[Entry<D>] {
        &self.entries
    }

    /// The id of a name that the configuration refers to.
    pub fn id(&self, name: &str) -> Option<VarId> {
        self.ids.get(name).copied()
    }

    /// The variable of a name met at run time (by SSI), in lower case; names with [`Flags::NOHASH`] aren't found.
    pub fn by_name<'v>(&'v self, name: &'v str) -> Option<Named<'v, D>> {
        self.resolve(name).filter(|found| !found.flags.has(Flags::NOHASH))
    }

    fn resolve<'v>(&'v self, name: &'v str) -> Option<Named<'v, D>> {
        let own = self.names.get(name);
        let strong = own.filter(|found| !found.flags.has(Flags::WEAK));
        let (prefix, found) = match strong {
            Some(found) => (0, found),
            None => match self.families.iter().find(|(prefix, _)| name.starts_with(prefix.as_str())) {
                Some((prefix, found)) => (prefix.len(), found),
                None => (0, own?),
            },
        };
        let suffix = name.get(prefix..).unwrap_or_default();
        Some(Named { suffix, payload: &found.payload, prefix, flags: found.flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry<&'static str> {
        let mut registry = Registry::new();
        for (name, flags) in [
            ("host", Flags::NONE),
            ("args", Flags::CHANGEABLE | Flags::NOCACHEABLE),
            ("http_host", Flags::NONE),
            ("http_", Flags::PREFIX),
            ("arg_", Flags::PREFIX | Flags::NOCACHEABLE),
            ("upstream_http_", Flags::PREFIX),
            ("sent_http_", Flags::PREFIX),
            ("secret", Flags::NOHASH),
        ] {
            registry.add(name, flags, "core").expect("the first of its name");
        }
        registry
    }

    #[test]
    fn names_resolve() {
        for (name, expect) in [
            ("host", Some(("host", 0, "host"))),
            ("HoSt", Some(("host", 0, "host"))),
            ("http_host", Some(("http_host", 0, "http_host"))),
            ("http_x", Some(("http_x", 5, "x"))),
            ("arg_", Some(("arg_", 4, ""))),
            ("upstream_http_etag", Some(("upstream_http_etag", 14, "etag"))),
            ("nosuch", None),
            ("1", None),
        ] {
            let mut registry = registry();
            let id = registry.reference(name);
            let found = registry.finish();
            let seen = found.as_ref().ok().map(|all| all.entry(id)).map(|e| (&*e.name, e.prefix, e.suffix()));
            assert_eq!(seen, expect, "{name}");
        }
    }

    #[test]
    fn duplicates() {
        for (name, flags, expect) in [
            ("host", Flags::CHANGEABLE, Some("the duplicate \"host\" variable")),
            ("Host", Flags::CHANGEABLE | Flags::WEAK, Some("the duplicate \"host\" variable")),
            ("args", Flags::CHANGEABLE, None),
            ("arg_x", Flags::CHANGEABLE, None),
            ("new", Flags::NONE, None),
            ("http_", Flags::PREFIX, Some("the duplicate \"http_\" variable")),
        ] {
            let error = registry().add(name, flags, "map").err();
            assert_eq!(error.map(|e| e.to_string()).as_deref(), expect, "{name}");
        }
    }

    #[test]
    fn the_last_strong_definition_holds() {
        let mut registry = registry();
        let weak = Flags::CHANGEABLE | Flags::WEAK;
        registry.add("a", weak, "set").expect("new");
        registry.add("a", Flags::CHANGEABLE, "map").expect("changeable");
        registry.add("a", weak, "set").expect("changeable");
        registry.add("arg_x", weak, "set").expect("new");
        registry.add("arg_y", Flags::CHANGEABLE, "map").expect("new");
        registry.add("b", weak, "set").expect("new");
        let ids = ["a", "arg_x", "arg_y", "b"].map(|name| registry.reference(name));
        let all = registry.finish().unwrap_or_else(|unknown| panic!("{unknown:?}"));
        assert_eq!(ids.map(|id| all.entry(id).payload), ["map", "core", "map", "set"]);
    }

    #[test]
    fn unknown_names_are_all_reported() {
        let mut registry = registry();
        registry.set_place(7);
        registry.reference("x");
        registry.set_place(8);
        registry.reference("host");
        registry.reference("x");
        registry.reference("y");
        let unknown = registry.finish().err().unwrap_or_default();
        let seen: Vec<_> = unknown.iter().map(|u| (u.to_string(), u.id.index(), u.place)).collect();
        let line = |name: &str| format!("unknown \"{name}\" variable");
        assert_eq!(seen, [(line("x"), 0, Some(7)), (line("y"), 2, Some(8))]);
    }

    #[test]
    fn by_name() {
        let all = registry().finish().unwrap_or_else(|unknown| panic!("{unknown:?}"));
        assert!(all.by_name("secret").is_none());
        assert_eq!(all.by_name("http_foo").map(|found| found.suffix), Some("foo"));
        assert!(all.is_empty() && all.id("host").is_none());
    }

    #[test]
    fn words() {
        for (word, expect) in [("$a", Some("a")), ("$1", Some("1")), ("${a}", Some("{a}")), ("a", None), ("$", None)] {
            assert_eq!(variable_name(word).ok(), expect, "{word}");
        }
    }
}
