//! The configurations of one level: what was set there, and what that and inheritance make of it.

use std::any::Any;
use std::rc::Rc;

use crate::{Conf, Context, Level, Loader, Result, Span};

/// The raw configurations of one level, of those tables of which something was set.
#[derive(Default)]
pub struct RawSet {
    /// By the table's index in the registry. A level sets something of a few tables only, so they are looked through.
    raws: Vec<(usize, Box<dyn Any>)>,
    /// Where the directives stand that were set here, in their order: what a check finds after inheritance is told with
    /// its place.
    places: Vec<(RowId, Span)>,
}

/// A row of a registry's tables: the table's index and the row's index in it.
pub(crate) type RowId = (usize, usize);

impl RawSet {
    /// The raw configuration of a table, made by `new` if there is none.
    pub(crate) fn of(&mut self, table: usize, new: fn() -> Box<dyn Any>) -> &mut dyn Any {
        let at = self.raws.iter().position(|(known, _)| *known == table).unwrap_or_else(|| {
            self.raws.push((table, new()));
            self.raws.len() - 1
        });
        &mut *self.raws[at].1
    }

    fn get(&mut self, table: usize) -> Option<&mut dyn Any> {
        let found = self.raws.iter_mut().find(|(known, _)| *known == table)?;
        Some(&mut *found.1)
    }

    pub(crate) fn note(&mut self, row: RowId, place: Span) {
        self.places.push((row, place));
    }

    /// Where a directive of this level stands first.
    pub(crate) fn first_place(&self, row: RowId) -> Option<Span> {
        self.places.iter().find(|(known, _)| *known == row).map(|(_, place)| *place)
    }

    /// Where the directives of that name stand at this level, in their order.
    pub fn places<'a>(&'a self, registry: &'a crate::Registry, name: &'a str) -> impl Iterator<Item = Span> + 'a {
        let rows = registry.ids(name);
        self.places.iter().filter(|(row, _)| rows.contains(row)).map(|(_, place)| *place)
    }
}

/// The resolved configurations of one level, by slot: a table's number among those of its block and level.
///
/// A configuration has thousands of locations, each of which sets something of a few of a hundred tables. So slots are
/// kept in chunks, and a set shares with its parent's the chunks in which nothing differs: a location costs the list of
/// chunks and those that it changes. Reading is two indices.
#[derive(Clone, Default)]
pub struct Set(Rc<[Rc<Chunk>]>);

/// A slot without a table holds `()`.
type Chunk = [Rc<dyn Any>; CHUNK];

/// The square root of twice the number of tables that a level is going to have, and a power of two.
const CHUNK: usize = 8;

impl Set {
    /// The configuration of type `C`.
    ///
    /// # Panics
    /// If `C` isn't of this level.
    pub fn get<C: Conf>(&self) -> &C {
        let value = self.value(C::slot()).and_then(|value| value.downcast_ref());
        value.expect("a level's set holds every configuration of that level")
    }

    /// The same, shared.
    ///
    /// # Panics
    /// If `C` isn't of this level.
    pub fn share<C: Conf>(&self) -> Rc<C> {
        let value = self.value(C::slot()).and_then(|value| value.clone().downcast().ok());
        value.expect("a level's set holds every configuration of that level")
    }

    #[inline]
    fn value(&self, slot: usize) -> Option<&Rc<dyn Any>> {
        self.0.get(slot / CHUNK).map(|chunk| &chunk[slot % CHUNK])
    }

    /// A set of that many slots, all without a value.
    fn empty(slots: usize) -> Set {
        let nothing: Rc<dyn Any> = Rc::new(());
        let chunk: Rc<Chunk> = Rc::new(std::array::from_fn(|_| nothing.clone()));
        Set(vec![chunk; slots.div_ceil(CHUNK)].into())
    }

    /// Puts a value in; chunks and lists of chunks that are shared are copied first.
    fn put(&mut self, slot: usize, value: Rc<dyn Any>) {
        let chunk = &mut Rc::make_mut(&mut self.0)[slot / CHUNK];
        Rc::make_mut(chunk)[slot % CHUNK] = value;
    }
}

/// Inheritance over whole levels.
pub struct Sets;

impl Sets {
    /// Resolves what was set at one level, with what its parent's level resolved to.
    ///
    /// A level that sets nothing of a table shares its parent's value, unless that has something which isn't inherited;
    /// one where nothing at all was set shares the whole set.
    pub fn resolve(
        block: Context,
        level: Level,
        raw: &mut RawSet,
        parent: Option<&Set>,
        loader: &mut Loader<'_>,
    ) -> Result<Set> {
        let registry = loader.registry();
        let tables = registry.of_level(block, level);
        let mut set = parent.cloned().unwrap_or_else(|| Set::empty(tables.len()));
        for (slot, &index) in tables.iter().enumerate() {
            let table = &registry.tables()[index];
            let above = parent.and_then(|parent| parent.value(slot)).map(|value| &**value);
            let own = raw.get(index);
            if own.is_some() || above.is_none_or(|above| (table.leaves)(above)) {
                set.put(slot, (table.resolve)(own, above, loader)?);
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{Args, Directive, Env, Frame, Registry};

    crate::table! {
        /// A small configuration.
        pub(super) struct SmallConf, raw SmallRaw, module "test", level HTTP Location;

        /// A number.
        "small" in Context::HTTP, Args::exactly(1), default "7",
            scalar(|_: &mut Loader<'_>, d: &Directive| Ok(d.arg(0).text.len())) small: usize = 7;
    }

    const TABLES: usize = 130;
    const LOCATIONS: usize = 1000;

    fn small(set: &Set, slot: usize) -> usize {
        set.value(slot).and_then(|value| value.downcast_ref::<SmallConf>()).expect("all tables are the same").small
    }

    /// The bytes that the sets take beside their configurations, each allocation once, with its two counts.
    fn bytes(sets: &[Set]) -> usize {
        const COUNTS: usize = 16;
        let mut seen = HashSet::new();
        let mut bytes = 0;
        for set in sets {
            if seen.insert(Rc::as_ptr(&set.0).cast::<()>()) {
                bytes += COUNTS + size_of_val(&*set.0);
            }
            for chunk in &*set.0 {
                if seen.insert(Rc::as_ptr(chunk).cast()) {
                    bytes += COUNTS + size_of_val(&**chunk);
                }
            }
        }
        bytes
    }

    /// 130 tables, whose directives are `small0`, `small1` and so on.
    fn registry() -> Registry {
        let mut registry = Registry::new();
        for number in 0..TABLES {
            let mut table = SmallConf::table();
            table.rows[0].name = format!("small{number}").into();
            registry.push(table);
        }
        registry
    }

    #[test]
    fn a_location_costs_what_it_sets() {
        let registry = registry();
        let mut loader = Loader::new(&registry, Env::default(), Default::default());
        let resolve = |text: &str, parent: Option<&Set>, loader: &mut Loader<'_>| {
            let (_, directives, _) = crate::parse::parse("x", text);
            let frame = Frame::default();
            loader.block(&directives, Context::HTTP, frame.clone());
            let raw = &mut frame.levels[Level::Location as usize].borrow_mut();
            Sets::resolve(Context::HTTP, Level::Location, raw, parent, loader).expect("nothing can fail")
        };
        let server = resolve("", None, &mut loader);
        let mut sets = vec![server.clone()];
        for location in 0..LOCATIONS {
            let (one, other) = (location % TABLES, location * 7 % TABLES);
            let mut text = format!("small{one} x;");
            if one != other && location % 2 == 1 {
                text.push_str(&format!(" small{other} xx;"));
            }
            let set = resolve(&text, Some(&server), &mut loader);
            let expect = |slot| match slot {
                _ if slot == one => 1,
                _ if slot == other && one != other && location % 2 == 1 => 2,
                _ => 7,
            };
            assert!((0..TABLES).all(|slot| small(&set, slot) == expect(slot)), "{text}");
            sets.push(set);
        }
        assert!(loader.errors.is_empty(), "{:?}", loader.errors);
        let each = bytes(&sets) / LOCATIONS;
        assert!(each <= 400, "{each} bytes a location; in one list they would be {}", 16 * TABLES);
        let same = resolve("", Some(&server), &mut loader);
        assert!(Rc::ptr_eq(&same.0, &server.0), "where nothing is set the whole set is shared");
    }
}
