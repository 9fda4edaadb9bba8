//! The thread's store of free buffer memory, one list for each power of two.
//!
//! What a buffer gives back is kept up to [`KEEP_BYTES`] a size, so that a burst doesn't hold its memory for ever.

use std::cell::RefCell;
use std::rc::Rc;

use crate::Buf;

/// The smallest memory that is pooled; smaller requests get this much.
const MIN_SHIFT: u32 = 10;
/// The largest memory that is pooled; larger requests are allocated and freed as they come.
const MAX_SHIFT: u32 = 17;
/// How much free memory each size keeps, in bytes.
const KEEP_BYTES: usize = 1 << 20;

/// How many places for shared buffers are kept, of 48 bytes each.
const KEEP_PLACES: usize = 1 << 10;
/// How many others are kept with memory of this size: that is how most requests are read.
const KEEP_READY: usize = 1 << 5;
const READY_BYTES: usize = 4 << 10;

type Lists = [Vec<Box<[u8]>>; (MAX_SHIFT - MIN_SHIFT + 1) as usize];

thread_local! {
    static FREE: RefCell<Lists> = const { RefCell::new([const { Vec::new() }; (MAX_SHIFT - MIN_SHIFT + 1) as usize]) };
}

/// Counted places for buffers that are shared.
struct Places {
    /// Without memory.
    empty: Vec<Rc<Buf>>,
    /// With it, and nothing in it.
    ready: Vec<Rc<Buf>>,
}

thread_local! {
    static PLACES: RefCell<Places> = const { RefCell::new(Places { empty: Vec::new(), ready: Vec::new() }) };
}

#[cfg(feature = "audit")]
thread_local! {
    static LENT: std::cell::Cell<isize> = const { std::cell::Cell::new(0) };
}

/// How much memory this thread has lent out and not got back, in pieces.
#[cfg(feature = "audit")]
pub fn lent() -> isize {
    LENT.get()
}

#[cfg(feature = "audit")]
fn count(change: isize) {
    // A thread that is ending counts no more.
    let _ = LENT.try_with(|lent| lent.set(lent.get() + change));
}

/// Memory of at least `size` bytes; its contents are whatever its last user left.
pub(crate) fn take(size: usize) -> Box<[u8]> {
    #[cfg(feature = "audit")]
    count(1);
    let shift = size.max(1).next_power_of_two().trailing_zeros().max(MIN_SHIFT);
    if shift > MAX_SHIFT {
        return vec![0; size].into_boxed_slice();
    }
    FREE.try_with(|lists| lists.borrow_mut()[(shift - MIN_SHIFT) as usize].pop())
        .ok()
        .flatten()
        .unwrap_or_else(|| vec![0; 1 << shift].into_boxed_slice())
}

/// Shares a buffer.
pub(crate) fn share(buf: Buf) -> Rc<Buf> {
    let place = PLACES.try_with(|places| places.borrow_mut().empty.pop()).ok().flatten();
    let Some(mut place) = place else { return Rc::new(buf) };
    match Rc::get_mut(&mut place) {
        Some(empty) => {
            // What it held has no memory to be given back.
            std::mem::forget(std::mem::replace(empty, buf));
            place
        }
        None => Rc::new(buf),
    }
}

/// A place of nobody else's with memory of at least `size` bytes, and nothing in it.
pub(crate) fn take_shared(size: usize) -> Rc<Buf> {
    let ready = match size {
        0..=READY_BYTES => PLACES.try_with(|places| places.borrow_mut().ready.pop()).ok().flatten(),
        _ => None,
    };
    #[cfg(feature = "audit")]
    count(isize::from(ready.is_some()));
    ready.unwrap_or_else(|| share(Buf::with_capacity(size)))
}

/// Takes back what [`share`] or [`take_shared`] gave, from its last user.
pub(crate) fn give_shared(mut place: Rc<Buf>) {
    // A thread that is ending has no list any more: then the place is simply freed.
    let _ = PLACES.try_with(|places| {
        let mut places = places.borrow_mut();
        let Some(buf) = Rc::get_mut(&mut place) else { return };
        if buf.capacity() == READY_BYTES && places.ready.len() < KEEP_READY {
            #[cfg(feature = "audit")]
            count(-1);
            buf.clear();
            places.ready.push(place);
        } else if places.empty.len() < KEEP_PLACES {
            *buf = Buf::empty();
            places.empty.push(place);
        }
    });
}

/// Takes back what [`take`] gave.
pub(crate) fn give(memory: Box<[u8]>) {
    #[cfg(feature = "audit")]
    count(-isize::from(!memory.is_empty()));
    let (size, shift) = (memory.len(), memory.len().trailing_zeros());
    if !size.is_power_of_two() || !(MIN_SHIFT..=MAX_SHIFT).contains(&shift) {
        return;
    }
    // A thread that is ending has no list any more: then the memory is simply freed.
    let _ = FREE.try_with(|lists| {
        let list = &mut lists.borrow_mut()[(shift - MIN_SHIFT) as usize];
        if list.len() < KEEP_BYTES >> shift {
            list.push(memory);
        }
    });
}
