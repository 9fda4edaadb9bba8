//! The configurations of one level: what was set there, and what that and inheritance make of it.

use std::any::Any;
use std::rc::Rc;

use crate::{Conf, Context, Level, Loader, Result, Span, Table};

/// The raw configurations of one level, by slot; made when a directive first needs them.
#[derive(Default)]
pub struct RawSet {
    slots: Vec<Option<Box<dyn Any>>>,
    /// Where the directives stand that were set here, in their order: what a check finds after inheritance is told with
    /// its place.
    places: Vec<(RowId, Span)>,
}

/// A row of a registry's tables: the table's slot and the row's index in it.
pub(crate) type RowId = (usize, usize);

impl RawSet {
    /// The raw configuration in `slot`, made by `new` if there is none.
    pub fn slot(&mut self, slot: usize, new: fn() -> Box<dyn Any>) -> &mut dyn Any {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        &mut **self.slots[slot].get_or_insert_with(new)
    }

    /// Whether nothing was set.
    fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
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

    /// The raw configuration of table `C`, of type `R`.
    ///
    /// # Panics
    /// If `R` isn't the raw type of `C`.
    pub fn raw<C: Conf, R: Any>(&mut self) -> &mut R {
        self.slot(C::slot(), C::table().new_raw).downcast_mut().expect("R is the raw type of C")
    }
}

/// The resolved configurations of one level, by slot.
#[derive(Clone)]
pub struct Set(Rc<[Option<Rc<dyn Any>>]>);

impl Set {
    /// The configuration of type `C`.
    ///
    /// # Panics
    /// If `C` isn't of this level.
    pub fn get<C: Conf>(&self) -> &C {
        let slot = self.0.get(C::slot()).and_then(Option::as_deref);
        slot.and_then(|any| any.downcast_ref()).expect("a level's set holds every configuration of that level")
    }

    /// The same, shared.
    ///
    /// # Panics
    /// If `C` isn't of this level.
    pub fn share<C: Conf>(&self) -> Rc<C> {
        let slot = self.0.get(C::slot()).and_then(Clone::clone);
        slot.and_then(|any| any.downcast().ok()).expect("a level's set holds every configuration of that level")
    }
}

impl Default for Set {
    fn default() -> Set {
        Set(Rc::new([]))
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
        let tables = || registry.tables().iter().enumerate().filter(|(_, t)| t.level == level && t.block == block);
        let above = |slot: usize| parent.and_then(|set| set.0.get(slot)).and_then(Option::as_ref);
        let whole = |(slot, table): (usize, &Table)| above(slot).is_some_and(|value| !(table.leaves)(&**value));
        if let (true, Some(parent)) = (raw.is_empty() && tables().all(whole), parent) {
            return Ok(parent.clone());
        }
        let mut slots = vec![None; registry.tables().len()];
        for (slot, table) in tables() {
            let own = raw.slots.get_mut(slot).and_then(Option::as_deref_mut);
            slots[slot] = match (own, above(slot)) {
                (None, Some(above)) if whole((slot, table)) => Some(above.clone()),
                (own, above) => Some((table.resolve)(own, above.map(|rc| &**rc), loader)?),
            };
        }
        Ok(Set(slots.into()))
    }
}
