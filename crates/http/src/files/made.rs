//! What is made of the contents of files that are kept in memory, such as their compressed forms, and how much of it.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

/// Something that is made of the contents of a file, and the room in which it is counted.
#[derive(Clone, Debug)]
pub struct Made {
    cell: Rc<OnceCell<Rc<dyn Any>>>,
    room: Room,
}

impl Made {
    /// Nothing so far.
    pub(crate) fn new(room: &Room) -> Made {
        Made { cell: Rc::default(), room: room.clone() }
    }

    /// What a user has made of them. `None` if there is nothing, or another user's.
    pub fn get<T: Any>(&self) -> Option<Rc<T>> {
        self.cell.get()?.clone().downcast().ok()
    }

    /// Keeps something, if there is nothing so far.
    pub fn set<T: Any>(&self, made: Rc<T>) {
        let _ = self.cell.set(made);
    }

    /// As `get`; what is missing is made.
    pub(crate) fn get_or_init<T: Any>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.cell.get_or_init(|| Rc::new(make())).downcast_ref()
    }

    /// Where what is kept of it is counted.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
}

/// How many bytes may be kept by all who have a share of it.
#[derive(Clone, Debug)]
pub struct Room {
    taken: Rc<Cell<usize>>,
    most: usize,
}

/// Counts bytes while they are kept.
#[derive(Debug)]
pub struct Share {
    bytes: usize,
    of: Rc<Cell<usize>>,
}

impl Room {
    /// For at most so many bytes.
    pub(crate) fn new(most: usize) -> Room {
        Room { taken: Rc::default(), most }
    }

    /// How many bytes are kept.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// A share of so many bytes, if there is room for them.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        let taken = self.taken.get() + bytes;
        (taken <= self.most).then(|| {
            self.taken.set(taken);
            Share { bytes, of: self.taken.clone() }
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.set(self.of.get() - self.bytes);
    }
}
