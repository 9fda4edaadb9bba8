//! State of modules for a session, by its type.

use std::any::Any;

/// Values of any type, one of each.
#[derive(Default)]
pub struct Slots(Vec<Slot>);

/// Copies a value of a type that only its maker knows.
type Copy = fn(&dyn Any) -> Box<dyn Any>;

struct Slot {
    value: Box<dyn Any>,
    /// Copies it for a session that repeats this one.
    copy: Option<Copy>,
    /// Whether sessions that come of this one have it too.
    shared: bool,
}

impl Slots {
    /// The value of type `T`, made by its default if there is none.
    pub fn entry<T: Any + Default>(&mut self) -> &mut T {
        self.find_or_make(None, false)
    }

    /// The same, of a value that [`Slots::copy_from`] copies.
    pub fn copied_entry<T: Any + Default + Clone>(&mut self) -> &mut T {
        self.find_or_make(Some(|value| Box::new(value.downcast_ref::<T>().cloned().unwrap_or_default())), false)
    }

    /// The same, of a value that [`Slots::split_off_shared`] takes.
    pub fn shared_entry<T: Any + Default>(&mut self) -> &mut T {
        self.find_or_make(None, true)
    }

    /// Takes those values off that sessions share.
    #[must_use]
    pub fn split_off_shared(&mut self) -> Slots {
        Slots(self.0.extract_if(.., |slot| slot.shared).collect())
    }

    fn find_or_make<T: Any + Default>(&mut self, copy: Option<Copy>, shared: bool) -> &mut T {
        let at = match self.0.iter().position(|slot| slot.value.is::<T>()) {
            Some(at) => at,
            None => {
                self.0.push(Slot { value: Box::new(T::default()), copy, shared });
                self.0.len() - 1
            }
        };
        self.0[at].value.downcast_mut().expect("the slot was found by its type")
    }

    /// Takes over those values of others that are made to be copied.
    pub fn copy_from(&mut self, others: &Slots) {
        for slot in &others.0 {
            if let Some(copy) = slot.copy {
                self.0.push(Slot { value: copy(&*slot.value), copy: Some(copy), shared: false });
            }
        }
    }

    /// The value of type `T`, if there is one.
    pub fn find<T: Any>(&self) -> Option<&T> {
        self.0.iter().find_map(|slot| slot.value.downcast_ref())
    }

    /// Drops all values; memory is kept.
    #[inline]
    pub fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_values_go_and_others_stay() {
        let mut slots = Slots::default();
        *slots.entry::<u8>() = 1;
        *slots.shared_entry::<u16>() = 2;
        let shared = slots.split_off_shared();
        assert_eq!((slots.find::<u8>(), slots.find::<u16>()), (Some(&1), None));
        assert_eq!((shared.find::<u8>(), shared.find::<u16>()), (None, Some(&2)));
    }
}
