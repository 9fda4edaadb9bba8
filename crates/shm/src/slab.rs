//! The allocator of a zone: pages of 4 KiB, and in them slots of a power of two from 16 to 2048 bytes.
//!
//! Memory is handed out as numbers ([`Handle`]), 0 being none. All that the allocator knows of a page stands in a table
//! in front of the pages: which of its slots are taken, and its place in the list of free runs of pages or of pages with
//! free slots of one size. [`Slab::check`] compares the two.

use crate::memory::Memory;

/// A piece of a zone's memory: its place in units of 16 bytes. 0 is none.
pub type Handle = u32;

/// The page size. Of the zone, not of the processor.
pub const PAGE: usize = 4096;
/// The largest piece that shares its page with others.
pub const LARGEST_SLOT: usize = PAGE / 2;

const UNIT: usize = 16;
const SMALLEST_SHIFT: u32 = 4;
const CLASSES: usize = 8;

// The head: where everything starts.
const MAGIC: usize = 0;
const PAGES: usize = 4;
const FREE_RUNS: usize = 8;
const ROOT: usize = 12;
const PARTIAL: usize = 16;
const HEAD: usize = PARTIAL + 4 * CLASSES;
const MAGIC_VALUE: u32 = 0x7469_6465;

// A page's entry in the table.
const KIND: usize = 0;
/// Of a run: its length in pages. Of a page of slots: their class.
const SIZE: usize = 4;
/// Neighbours in its list: page numbers plus one.
const PREVIOUS: usize = 8;
const NEXT: usize = 12;
/// How many slots are taken.
const TAKEN: usize = 16;
const BITS: usize = 32;
const ENTRY: usize = 64;

// Kinds of pages.
const INSIDE: u32 = 0;
const FREE: u32 = 1;
const FREE_END: u32 = 2;
const SLOTS: u32 = 3;
const LARGE: u32 = 4;

/// The allocator over the bytes of a zone.
pub struct Slab<'a> {
    pub(crate) memory: Memory<'a>,
    pages: u32,
}

impl<'a> Slab<'a> {
    /// The allocator that is in these bytes; `None` if there is none.
    pub fn open(memory: Memory<'a>) -> Option<Slab<'a>> {
        let pages = memory.u32(PAGES);
        let fits = memory.u32(MAGIC) == MAGIC_VALUE && pages as usize == pages_of(memory.len());
        fits.then_some(Slab { memory, pages })
    }

    /// An empty allocator in these bytes, whatever was in them.
    pub fn format(memory: Memory<'a>) -> Slab<'a> {
        let pages = u32::try_from(pages_of(memory.len())).unwrap_or(u32::MAX);
        let mut slab = Slab { memory, pages };
        slab.memory.clear(0, HEAD + pages as usize * ENTRY);
        slab.memory.set_u32(PAGES, pages);
        if pages > 0 {
            slab.make_free(0, pages);
        }
        slab.memory.set_u32(MAGIC, MAGIC_VALUE);
        slab
    }

    /// A piece of at least `size` bytes, with whatever was in it before.
    pub fn alloc(&mut self, size: usize) -> Option<Handle> {
        if size > LARGEST_SLOT {
            let pages = u32::try_from(size.div_ceil(PAGE)).ok()?;
            let page = self.take_run(pages)?;
            self.set(page, KIND, LARGE);
            self.set(page, SIZE, pages);
            return Some(self.handle(page, 0));
        }
        let class = class_of(size);
        let head = PARTIAL + 4 * class as usize;
        let page = match self.memory.u32(head).checked_sub(1) {
            Some(page) => page,
            None => self.new_slots(class)?,
        };
        let slot = self.free_slot_of(page).filter(|slot| *slot < slots(class))?;
        self.set_bit(page, slot, true);
        let taken = self.get(page, TAKEN) + 1;
        self.set(page, TAKEN, taken);
        if taken == slots(class) {
            self.unlink(head, page);
        }
        Some(self.handle(page, (slot as usize) << (class + SMALLEST_SHIFT)))
    }

    /// Gives a piece back; nothing happens if it isn't one.
    pub fn free(&mut self, handle: Handle) {
        let Some((page, within)) = self.locate(handle) else { return };
        match self.get(page, KIND) {
            LARGE if within == 0 => {
                let pages = self.get(page, SIZE);
                self.free_run(page, pages);
            }
            SLOTS => self.free_slot(page, within),
            _ => {}
        }
    }

    fn free_slot(&mut self, page: u32, within: usize) {
        let class = self.get(page, SIZE).min(CLASSES as u32 - 1);
        let (slot, taken) = ((within >> (class + SMALLEST_SHIFT)) as u32, self.get(page, TAKEN));
        if !self.bit(page, slot) || taken == 0 {
            return;
        }
        self.set_bit(page, slot, false);
        self.set(page, TAKEN, taken - 1);
        let head = PARTIAL + 4 * class as usize;
        if taken == slots(class) {
            self.link(head, page);
        }
        if taken == 1 {
            self.unlink(head, page);
            self.free_run(page, 1);
        }
    }

    /// The size of the piece at `handle`; 0 if there is none.
    pub fn size(&self, handle: Handle) -> usize {
        let Some((page, within)) = self.locate(handle) else { return 0 };
        let class = self.get(page, SIZE);
        match self.get(page, KIND) {
            LARGE if within == 0 => class as usize * PAGE,
            SLOTS if class < CLASSES as u32 => {
                let size = 1 << (class + SMALLEST_SHIFT);
                let taken = within.is_multiple_of(size) && self.bit(page, (within / size) as u32);
                if taken { size } else { 0 }
            }
            _ => 0,
        }
    }

    /// The size of the piece that [`Slab::alloc`] gives for this size.
    pub fn rounded(size: usize) -> usize {
        if size > LARGEST_SLOT { size.next_multiple_of(PAGE) } else { 1 << (class_of(size) + SMALLEST_SHIFT) }
    }

    /// The piece that a user finds everything else by.
    pub fn root(&self) -> Handle {
        self.memory.u32(ROOT)
    }

    /// Sets [`Slab::root`].
    pub fn set_root(&mut self, root: Handle) {
        self.memory.set_u32(ROOT, root);
    }

    /// The place of a handle in the zone's bytes.
    pub fn offset(handle: Handle) -> usize {
        handle as usize * UNIT
    }

    /// Pages in all.
    pub fn pages(&self) -> usize {
        self.pages as usize
    }

    /// Pages of which no byte is in use.
    #[cfg(test)]
    pub(crate) fn free_pages(&self) -> usize {
        let mut free = 0;
        let mut at = self.memory.u32(FREE_RUNS);
        for _ in 0..self.pages {
            let Some(page) = at.checked_sub(1) else { break };
            free += self.get(page, SIZE) as usize;
            at = self.get(page, NEXT);
        }
        free
    }

    /// Whether table and lists agree with each other; how many pieces are in use if they do.
    pub fn check(&self) -> Option<usize> {
        let mut pieces = 0;
        let (mut runs, mut partial) = (0, [0; CLASSES]);
        let mut page = 0;
        while page < self.pages {
            let size = self.get(page, SIZE);
            let length = match self.get(page, KIND) {
                FREE => {
                    runs += 1;
                    let end = page.checked_add(size)?.checked_sub(1)?;
                    let ends = size == 1 || self.get(end, KIND) == FREE_END && self.get(end, SIZE) == size;
                    ends.then_some(size)?
                }
                LARGE => {
                    pieces += 1;
                    size
                }
                SLOTS => {
                    let taken = self.check_slots(page, size)?;
                    *partial.get_mut(size as usize)? += u32::from(taken < slots(size));
                    pieces += taken as usize;
                    1
                }
                _ => return None,
            };
            if length == 0 || length > self.pages - page {
                return None;
            }
            page += length;
        }
        let lists = self.check_list(FREE_RUNS, runs, |slab, page| slab.get(page, KIND) == FREE)
            && (0..CLASSES).all(|class| {
                let fits = |slab: &Slab<'_>, page| {
                    slab.get(page, KIND) == SLOTS
                        && slab.get(page, SIZE) == class as u32
                        && slab.get(page, TAKEN) < slots(class as u32)
                };
                self.check_list(PARTIAL + 4 * class, partial[class], fits)
            });
        lists.then_some(pieces)
    }

    fn check_slots(&self, page: u32, class: u32) -> Option<u32> {
        if class >= CLASSES as u32 {
            return None;
        }
        let bits: u32 = (0..4).map(|n| self.memory.u64(self.entry(page) + BITS + 8 * n).count_ones()).sum();
        let valid = (0..slots(class)).filter(|slot| self.bit(page, *slot)).count() as u32;
        let taken = self.get(page, TAKEN);
        (taken > 0 && taken == bits && taken == valid).then_some(taken)
    }

    /// Whether a list has so many pages, each fitting, and each pointing back at the one before.
    fn check_list(&self, head: usize, expect: u32, fits: impl Fn(&Slab<'_>, u32) -> bool) -> bool {
        let (mut at, mut previous) = (self.memory.u32(head), 0);
        for _ in 0..expect {
            let Some(page) = at.checked_sub(1) else { return false };
            if page >= self.pages || self.get(page, PREVIOUS) != previous || !fits(self, page) {
                return false;
            }
            (previous, at) = (at, self.get(page, NEXT));
        }
        at == 0
    }

    fn new_slots(&mut self, class: u32) -> Option<u32> {
        let page = self.take_run(1)?;
        self.set(page, KIND, SLOTS);
        self.set(page, SIZE, class);
        self.set(page, TAKEN, 0);
        let bits = self.entry(page) + BITS;
        self.memory.clear(bits, ENTRY - BITS);
        self.link(PARTIAL + 4 * class as usize, page);
        Some(page)
    }

    /// The first free run that is long enough gives its first pages.
    fn take_run(&mut self, pages: u32) -> Option<u32> {
        let mut at = self.memory.u32(FREE_RUNS);
        for _ in 0..self.pages {
            let page = at.checked_sub(1)?;
            let size = self.get(page, SIZE);
            if size >= pages {
                self.unlink(FREE_RUNS, page);
                self.clear_run(page, size);
                if size > pages {
                    self.make_free(page + pages, size - pages);
                }
                return Some(page);
            }
            at = self.get(page, NEXT);
        }
        None
    }

    /// Frees a run and joins it with free neighbours.
    fn free_run(&mut self, page: u32, pages: u32) {
        let (mut start, mut size) = (page, pages);
        let after = page.saturating_add(pages);
        if after < self.pages && self.get(after, KIND) == FREE {
            let more = self.get(after, SIZE);
            self.unlink(FREE_RUNS, after);
            self.clear_run(after, more);
            size = size.saturating_add(more);
        }
        if let Some(before) = page.checked_sub(1)
            && matches!(self.get(before, KIND), FREE | FREE_END)
        {
            let more = self.get(before, SIZE);
            let first = page.saturating_sub(more);
            self.unlink(FREE_RUNS, first);
            self.clear_run(first, more);
            (start, size) = (first, size.saturating_add(more));
        }
        self.clear_run(page, pages);
        self.make_free(start, size);
    }

    fn clear_run(&mut self, page: u32, pages: u32) {
        self.set(page, KIND, INSIDE);
        self.set(page.saturating_add(pages).saturating_sub(1), KIND, INSIDE);
    }

    fn make_free(&mut self, page: u32, pages: u32) {
        let last = page.saturating_add(pages).saturating_sub(1);
        self.set(last, KIND, FREE_END);
        self.set(last, SIZE, pages);
        self.set(page, KIND, FREE);
        self.set(page, SIZE, pages);
        self.link(FREE_RUNS, page);
    }

    fn link(&mut self, head: usize, page: u32) {
        let first = self.memory.u32(head);
        self.set(page, PREVIOUS, 0);
        self.set(page, NEXT, first);
        if let Some(first) = first.checked_sub(1) {
            self.set(first, PREVIOUS, page + 1);
        }
        self.memory.set_u32(head, page + 1);
    }

    fn unlink(&mut self, head: usize, page: u32) {
        let (previous, next) = (self.get(page, PREVIOUS), self.get(page, NEXT));
        match previous.checked_sub(1) {
            Some(previous) => self.set(previous, NEXT, next),
            None => self.memory.set_u32(head, next),
        }
        if let Some(next) = next.checked_sub(1) {
            self.set(next, PREVIOUS, previous);
        }
    }

    fn entry(&self, page: u32) -> usize {
        HEAD + page as usize * ENTRY
    }

    fn get(&self, page: u32, field: usize) -> u32 {
        if page < self.pages { self.memory.u32(self.entry(page) + field) } else { 0 }
    }

    fn set(&mut self, page: u32, field: usize, value: u32) {
        if page < self.pages {
            let at = self.entry(page) + field;
            self.memory.set_u32(at, value);
        }
    }

    fn free_slot_of(&self, page: u32) -> Option<u32> {
        let words = (0..4).map(|n| self.memory.u64(self.entry(page) + BITS + 8 * n));
        (0..).zip(words).find_map(|(n, word)| (word != u64::MAX).then(|| 64 * n + word.trailing_ones()))
    }

    fn bit(&self, page: u32, slot: u32) -> bool {
        let word = self.memory.u64(self.entry(page) + BITS + 8 * (slot as usize / 64 % 4));
        word & (1 << (slot % 64)) != 0
    }

    fn set_bit(&mut self, page: u32, slot: u32, value: bool) {
        let at = self.entry(page) + BITS + 8 * (slot as usize / 64 % 4);
        let word = self.memory.u64(at);
        let mask = 1 << (slot % 64);
        self.memory.set_u64(at, if value { word | mask } else { word & !mask });
    }

    /// Where the pages begin.
    fn base(&self) -> usize {
        base_of(self.pages as usize)
    }

    fn handle(&self, page: u32, within: usize) -> Handle {
        ((self.base() + page as usize * PAGE + within) / UNIT) as Handle
    }

    fn locate(&self, handle: Handle) -> Option<(u32, usize)> {
        let offset = Slab::offset(handle).checked_sub(self.base())?;
        let page = u32::try_from(offset / PAGE).ok().filter(|page| *page < self.pages)?;
        Some((page, offset % PAGE))
    }
}

fn base_of(pages: usize) -> usize {
    (HEAD + pages * ENTRY).next_multiple_of(UNIT)
}

/// How many pages these bytes hold, their table included; so many that handles reach them all.
fn pages_of(len: usize) -> usize {
    (len.saturating_sub(HEAD) / (PAGE + ENTRY)).min((u32::MAX as usize) / (PAGE + ENTRY) * UNIT)
}

fn class_of(size: usize) -> u32 {
    size.next_power_of_two().trailing_zeros().max(SMALLEST_SHIFT) - SMALLEST_SHIFT
}

/// How many slots of a class a page has.
fn slots(class: u32) -> u32 {
    (PAGE as u32) >> (class + SMALLEST_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_dont_overlap_and_come_back() {
        let mut bytes = vec![0xaa; 64 * 1024];
        let mut slab = Slab::format(Memory::of(&mut bytes));
        let all = slab.free_pages();
        let sizes = [1, 16, 17, 100, 128, 2048, 2049, 5000, 24, 40, 64];
        let mut taken: Vec<(usize, usize, Handle)> = Vec::new();
        while let Some(handle) = slab.alloc(sizes[taken.len() % sizes.len()]) {
            let (start, size) = (Slab::offset(handle), slab.size(handle));
            assert!(size >= sizes[taken.len() % sizes.len()]);
            assert!(taken.iter().all(|(other, len, _)| start + size <= *other || other + len <= start));
            taken.push((start, size, handle));
            assert_eq!(slab.check(), Some(taken.len()));
        }
        assert!(taken.len() > 20);
        while let Some((_, _, handle)) = taken.pop() {
            slab.free(handle);
            slab.free(handle);
            assert_eq!(slab.check(), Some(taken.len()));
            taken.reverse();
        }
        assert_eq!(slab.free_pages(), all);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 0x1234_5678_u32;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed
        };
        for _ in 0..300 {
            let mut bytes = vec![0; 40_000];
            let mut slab = Slab::format(Memory::of(&mut bytes));
            let mut pieces: Vec<_> = (0..20).filter_map(|n| slab.alloc(16 << (n % 10))).collect();
            for _ in 0..1 + random() % 8 {
                let at = random() as usize % (HEAD + 9 * ENTRY);
                slab.memory.set_bytes(at, &[random() as u8]);
            }
            if let Some(mut slab) = Slab::open(Memory::of(&mut bytes)) {
                let _ = slab.check();
                pieces.extend((0..20).filter_map(|n| slab.alloc(16 << (n % 10))));
                pieces.iter().for_each(|piece| slab.free(*piece));
                let _ = (slab.check(), slab.free_pages());
            }
        }
    }

    #[test]
    fn nothing_fits_where_there_is_nothing() {
        for len in [0, 10, HEAD, HEAD + PAGE] {
            let mut bytes = vec![0; len];
            let mut slab = Slab::format(Memory::of(&mut bytes));
            assert!(slab.alloc(1).is_none() && slab.alloc(PAGE).is_none() && slab.pages() == 0, "{len}");
        }
        assert!(Slab::open(Memory::of(&mut [0; 10_000])).is_none());
    }
}
