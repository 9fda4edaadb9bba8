//! The allocator: the system's, with each thread's own store of free blocks before it.
//!
//! One request allocates and frees the same sizes as the one before it, and with many connections under way there are
//! many of a size. glibc keeps seven free blocks of a size at hand and joins and splits the others, which costs more than
//! the rest of such a call; here a block waits in a list until the next request wants it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// What a program names as its `#[global_allocator]`.
pub struct Stored;

/// Sizes of blocks are 16 n + 8, as glibc's are: nothing is lost to rounding.
const STEP: usize = 16;
/// The number of sizes; larger blocks (above 2040 bytes) come from the system each time.
const CLASSES: usize = 128;
/// How much free memory a thread keeps of each size, in bytes.
const KEEP: usize = 64 << 10;

/// The free blocks of one size, each of which holds the address of the next.
struct List {
    first: Cell<*mut u8>,
    len: Cell<usize>,
}

thread_local! {
    static LISTS: [List; CLASSES] =
        const { [const { List { first: Cell::new(ptr::null_mut()), len: Cell::new(0) } }; CLASSES] };
}

/// The list for blocks of this layout, if there is one.
#[inline(always)]
fn class(layout: Layout) -> Option<usize> {
    let class = layout.size().wrapping_add(STEP / 2 - 1) / STEP;
    (class < CLASSES && layout.align() <= STEP / 2).then_some(class)
}

/// What is asked of the system for a block of a list.
#[inline(always)]
fn whole(class: usize) -> Layout {
    // SAFETY: 8 is a power of two, and sizes of classes are far below the limit.
    unsafe { Layout::from_size_align_unchecked(class * STEP + STEP / 2, STEP / 2) }
}

impl List {
    #[inline(always)]
    fn pop(&self) -> Option<*mut u8> {
        let block = self.first.get();
        if block.is_null() {
            return None;
        }
        // SAFETY: the block is free and ours, at least eight bytes long, aligned for a pointer, and `push` wrote one.
        self.first.set(unsafe { block.cast::<*mut u8>().read() });
        self.len.set(self.len.get() - 1);
        Some(block)
    }

    /// Keeps a block that nobody uses any more; false if there are enough.
    #[inline(always)]
    fn push(&self, block: *mut u8, class: usize) -> bool {
        if self.len.get() >= KEEP / (class * STEP + STEP / 2) {
            return false;
        }
        // SAFETY: as in `pop`: whoever freed the block gave it to us whole.
        unsafe { block.cast::<*mut u8>().write(self.first.get()) };
        self.first.set(block);
        self.len.set(self.len.get() + 1);
        true
    }
}

// SAFETY: blocks come from the system's allocator with at least the size and alignment asked for, and a block is in a
// list only from its deallocation to its next allocation. Lists belong to one thread; a block may be freed on another
// one than it came from, and then stays there. Nothing here allocates or panics.
unsafe impl GlobalAlloc for Stored {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class(layout) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc(layout) };
        };
        match LISTS.with(|lists| lists[class].pop()) {
            Some(block) => block,
            // SAFETY: the size isn't zero.
            None => unsafe { System.alloc(whole(class)) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class(layout) else {
            // SAFETY: the caller's promise is passed on: such a block came from the system by this layout.
            return unsafe { System.dealloc(block, layout) };
        };
        if !LISTS.with(|lists| lists[class].push(block, class)) {
            // SAFETY: a block of this class came from the system by the layout of the whole class.
            unsafe { System.dealloc(block, whole(class)) };
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if class(layout).is_none() {
            // SAFETY: the caller's promise is passed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above; what was allocated may be written to.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size fits the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(new)) {
            (Some(old), Some(new)) if old == new => return block,
            // SAFETY: neither has to do with a list.
            (None, None) => return unsafe { System.realloc(block, layout, size) },
            _ => {}
        }
        // SAFETY: two blocks that don't overlap, both at least as long as the shorter of the two sizes.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Gives what this thread keeps back to the system: before it ends, or before a fork.
pub fn release() {
    LISTS.with(|lists| {
        for (class, list) in lists.iter().enumerate() {
            while let Some(block) = list.pop() {
                // SAFETY: as in `dealloc`.
                unsafe { System.dealloc(block, whole(class)) };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn blocks_of_every_size_are_kept_and_used_again() {
        for size in (1..3000).step_by(7) {
            let layout = layout(size);
            // SAFETY: each block is written to within its size, and freed once by its layout.
            unsafe {
                let first = Stored.alloc(layout);
                first.write_bytes(0xaa, size);
                let second = Stored.alloc(layout);
                assert_ne!(first, second);
                Stored.dealloc(first, layout);
                let again = Stored.alloc_zeroed(layout);
                assert!((0..size).all(|at| again.add(at).read() == 0), "{size}");
                assert!(size > 2040 || again == first, "{size}");
                Stored.dealloc(again, layout);
                Stored.dealloc(second, layout);
            }
        }
        release();
        LISTS.with(|lists| assert!(lists.iter().all(|list| list.len.get() == 0 && list.first.get().is_null())));
    }

    #[test]
    fn growing_keeps_what_is_there() {
        // SAFETY: as above; after a reallocation only the new block is used.
        unsafe {
            let (mut block, mut size) = (Stored.alloc(layout(1)), 1);
            block.write(0);
            for next in [2, 9, 24, 25, 2040, 2041, 5000, 2000, 3] {
                block = Stored.realloc(block, layout(size), next);
                let kept = size.min(next);
                assert!((0..kept).all(|at| block.add(at).read() == at as u8), "{next}");
                (kept..next).for_each(|at| block.add(at).write(at as u8));
                size = next;
            }
            Stored.dealloc(block, layout(size));
        }
    }

    #[test]
    fn no_more_is_kept_than_said() {
        let layout = layout(1000);
        // SAFETY: each block is freed once.
        unsafe {
            let blocks: Vec<_> = (0..100).map(|_| Stored.alloc(layout)).collect();
            blocks.into_iter().for_each(|block| Stored.dealloc(block, layout));
        }
        let class = class(layout).expect("a small size");
        LISTS.with(|lists| assert_eq!(lists[class].len.get(), KEEP / (class * STEP + 8)));
    }
}
