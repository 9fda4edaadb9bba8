//! State of modules for a session, by its type.

use std::any::Any;

/// Values of any type, one of each.
#[derive(Default)]
pub struct Slots(Vec<Box<dyn Any>>);

impl Slots {
    /// The value of type `T`, made by its default if there is none.
    pub fn entry<T: Any + Default>(&mut self) -> &mut T {
        let at = match self.0.iter().position(|slot| slot.is::<T>()) {
            Some(at) => at,
            None => {
                self.0.push(Box::new(T::default()));
                self.0.len() - 1
            }
        };
        self.0[at].downcast_mut().expect("the slot was found by its type")
    }

    /// The value of type `T`, if there is one.
    pub fn find<T: Any>(&self) -> Option<&T> {
        self.0.iter().find_map(|slot| slot.downcast_ref())
    }

    /// Drops all values; memory is kept.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
