//! How many sessions a worker serves.

use std::cell::Cell;
use std::rc::Rc;

/// The sessions that are being served.
#[derive(Default)]
pub struct Sessions(Rc<Cell<usize>>);

/// A session counts until this is dropped.
pub struct Counted(Rc<Cell<usize>>);

impl Sessions {
    /// How many there are.
    pub fn get(&self) -> usize {
        self.0.get()
    }

    /// One more.
    pub fn count(&self) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted(self.0.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
