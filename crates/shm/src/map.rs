//! The table of a zone: values by keys, in the order of their last use.
//!
//! A hash table with chains, whose hash depends on a number that nobody outside can know, and a list through all
//! entries from the newest to the oldest. An entry is one piece of memory: 24 bytes, the key, the value.

use std::hash::Hasher;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::memory::Memory;
use crate::slab::{Handle, Slab};

/// An entry of a table, as long as it isn't removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(Handle);

/// An entry as it was once found: it may have been moved or removed since, and its table emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    node: Node,
    /// That of the table.
    seed: u64,
}

/// The longest key.
pub const LONGEST_KEY: usize = u16::MAX as usize;

// The table.
const SEED: usize = 0;
const BUCKETS: usize = 8;
const BUCKET_COUNT: usize = 12;
const NEWEST: usize = 16;
const OLDEST: usize = 20;
const COUNT: usize = 24;
const ANCHOR: usize = 28;
const ROOT_SIZE: usize = 32;

// An entry.
const HASH: usize = 0;
const CHAIN: usize = 4;
const NEWER: usize = 8;
const OLDER: usize = 12;
const VALUE_LEN: usize = 16;
/// The key's length, and above it [`MARK`].
const KEY_LEN: usize = 20;
const KEY: usize = 24;
const MARK: u32 = 0x4e6f_0000;

/// Bytes of a zone for each bucket: about as many buckets as there can be entries of the commonest size. A full zone of
/// smaller ones has chains of two or four, and the table takes no more than a thirtieth of it.
const BYTES_PER_BUCKET: usize = 128;

/// The table of a zone, and the allocator below it.
pub struct Map<'a> {
    slab: Slab<'a>,
    root: usize,
}

impl<'a> Map<'a> {
    /// The table that is in these bytes; `None` if there is none.
    pub fn open(memory: Memory<'a>) -> Option<Map<'a>> {
        let slab = Slab::open(memory)?;
        let root = slab.root();
        (slab.size(root) >= ROOT_SIZE).then(|| Map { root: Slab::offset(root), slab })
    }

    /// An empty table in these bytes, whatever was in them; `None` if they are too few.
    pub fn format(memory: Memory<'a>, seed: u64) -> Option<Map<'a>> {
        let len = memory.len();
        let mut slab = Slab::format(memory);
        let root = slab.alloc(ROOT_SIZE)?;
        let count = 1_usize << (len / BYTES_PER_BUCKET).max(1).ilog2();
        let buckets = slab.alloc(count * 4)?;
        slab.memory.clear(Slab::offset(buckets), count * 4);
        let mut map = Map { slab, root: Slab::offset(root) };
        map.slab.memory.clear(map.root, ROOT_SIZE);
        map.slab.memory.set_u64(map.root + SEED, seed);
        map.set_head(BUCKETS, buckets);
        map.set_head(BUCKET_COUNT, u32::try_from(count).ok()?);
        map.slab.set_root(root);
        Some(map)
    }

    /// The allocator, for figures.
    pub fn slab(&self) -> &Slab<'a> {
        &self.slab
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.head(COUNT) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a key.
    pub fn find(&self, key: &[u8]) -> Option<Node> {
        self.find_hashed(key, self.hash(key))
    }

    fn find_hashed(&self, key: &[u8], hash: u32) -> Option<Node> {
        let mut at = self.slab.memory.u32(self.bucket(hash));
        for _ in 0..=self.len() {
            if at == 0 {
                return None;
            }
            let node = Node(at);
            if self.get(node, HASH) == hash && self.has_key(node, key) {
                return Some(node);
            }
            at = self.get(node, CHAIN);
        }
        None
    }

    /// The entry of the one key of a table that its owner needs at each use: where it was found last is noted in the
    /// table, so that nobody has to search for it again.
    pub fn anchor(&mut self, key: &[u8]) -> Option<Node> {
        let noted = Node(self.head(ANCHOR));
        if noted.0 != 0 && self.is_at(noted, key) {
            return Some(noted);
        }
        let node = self.find(key)?;
        self.set_head(ANCHOR, node.0);
        Some(node)
    }

    /// How long a value for a key of this length may be in the piece of memory that an entry with a value of `len` bytes
    /// takes: at least `len`.
    pub fn room(key_len: usize, len: usize) -> usize {
        Slab::rounded(KEY + key_len + len) - KEY - key_len
    }

    /// Adds an entry as the newest. The key must not be there yet. `None` if there is no memory, or the key is longer
    /// than [`LONGEST_KEY`].
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Option<Node> {
        self.insert_hashed(key, self.hash(key), value)
    }

    /// The entry of a key; if there is none, one with this value is added, as by [`Map::insert`].
    pub fn find_or_insert(&mut self, key: &[u8], value: &[u8]) -> Option<Node> {
        let hash = self.hash(key);
        self.find_hashed(key, hash).or_else(|| self.insert_hashed(key, hash, value))
    }

    fn insert_hashed(&mut self, key: &[u8], hash: u32, value: &[u8]) -> Option<Node> {
        if key.len() > LONGEST_KEY {
            return None;
        }
        let value_len = u32::try_from(value.len()).ok()?;
        let node = Node(self.slab.alloc(KEY + key.len() + value.len())?);
        let at = Slab::offset(node.0);
        self.set(node, HASH, hash);
        self.set(node, VALUE_LEN, value_len);
        self.set(node, KEY_LEN, key.len() as u32 | MARK);
        self.slab.memory.set_bytes(at + KEY, key);
        self.slab.memory.set_bytes(at + KEY + key.len(), value);
        let bucket = self.bucket(hash);
        self.set(node, CHAIN, self.slab.memory.u32(bucket));
        self.slab.memory.set_u32(bucket, node.0);
        self.push_newest(node);
        self.recount(self.len() + 1);
        Some(node)
    }

    /// Adds an entry; where there is no memory up to `most` of the oldest ones make room.
    pub fn insert_evicting(&mut self, key: &[u8], value: &[u8], most: usize) -> Option<Node> {
        for _ in 0..most {
            if let Some(node) = self.insert(key, value) {
                return Some(node);
            }
            let oldest = self.oldest()?;
            self.remove(oldest);
        }
        self.insert(key, value)
    }

    /// Removes an entry.
    pub fn remove(&mut self, node: Node) {
        self.unlink(node);
        let mut at = self.bucket(self.get(node, HASH));
        for _ in 0..=self.len() {
            match self.slab.memory.u32(at) {
                0 => break,
                found if found == node.0 => {
                    self.slab.memory.set_u32(at, self.get(node, CHAIN));
                    break;
                }
                other => at = Slab::offset(other) + CHAIN,
            }
        }
        self.set(node, KEY_LEN, 0);
        self.slab.free(node.0);
        self.recount(self.len().saturating_sub(1));
    }

    /// Makes an entry the newest.
    pub fn touch(&mut self, node: Node) {
        if self.head(NEWEST) != node.0 {
            self.unlink(node);
            self.push_newest(node);
        }
    }

    /// Makes an entry the oldest.
    pub fn age(&mut self, node: Node) {
        if self.head(OLDEST) != node.0 {
            self.unlink(node);
            self.push_oldest(node);
        }
    }

    /// The entry that was longest not used.
    pub fn oldest(&self) -> Option<Node> {
        Some(Node(self.head(OLDEST))).filter(|node| node.0 != 0)
    }

    /// The entry used after this one.
    pub fn newer(&self, node: Node) -> Option<Node> {
        Some(Node(self.get(node, NEWER))).filter(|node| node.0 != 0)
    }

    /// Whether this is the entry of a key.
    pub fn has_key(&self, node: Node, key: &[u8]) -> bool {
        self.key_len(node) == key.len() && self.slab.memory.holds(Slab::offset(node.0) + KEY, key)
    }

    /// An entry, for those who will want it again.
    pub fn note(&self, node: Node) -> Noted {
        Noted { node, seed: self.seed() }
    }

    /// The entry of this key that was noted, wherever it is now; none if the table was emptied meanwhile.
    pub fn noted(&self, noted: Noted, key: &[u8]) -> Option<Node> {
        // An emptied table leaves the bytes of its entries where they were.
        if noted.seed != self.seed() {
            return None;
        }
        if self.is_at(noted.node, key) { Some(noted.node) } else { self.find(key) }
    }

    fn seed(&self) -> u64 {
        self.slab.memory.u64(self.root + SEED)
    }

    /// Whether an entry that was seen earlier, and may have been removed since, is that of a key.
    fn is_at(&self, node: Node, key: &[u8]) -> bool {
        self.get(node, KEY_LEN) == key.len() as u32 | MARK && self.has_key(node, key)
    }

    /// The key of an entry.
    pub fn key(&self, node: Node) -> Vec<u8> {
        self.slab.memory.bytes(Slab::offset(node.0) + KEY, self.key_len(node))
    }

    /// The value of an entry.
    pub fn value(&self, node: Node) -> Vec<u8> {
        let (at, len) = self.place(node);
        self.slab.memory.bytes(at, len)
    }

    /// The value's memory, to be changed in place.
    pub fn value_mut(&mut self, node: Node) -> Memory<'_> {
        let (at, len) = self.place(node);
        self.slab.memory.part(at, len)
    }

    /// The value, if it has this length.
    pub fn array<const N: usize>(&self, node: Node) -> Option<[u8; N]> {
        let (at, len) = self.place(node);
        if len == N { self.slab.memory.array(at) } else { None }
    }

    /// The first bytes of the value, if it has so many.
    pub fn first<const N: usize>(&self, node: Node) -> Option<[u8; N]> {
        let (at, len) = self.place(node);
        if len >= N { self.slab.memory.array(at) } else { None }
    }

    /// Replaces the first bytes of the value, if it has so many.
    pub fn set_first(&mut self, node: Node, bytes: &[u8]) {
        self.value_mut(node).set_bytes(0, bytes);
    }

    /// Replaces a value by one of the same length.
    pub fn set_value(&mut self, node: Node, value: &[u8]) {
        let mut place = self.value_mut(node);
        if place.len() == value.len() {
            place.set_bytes(0, value);
        }
    }

    /// Whether everything is as it has to be: the allocator's tables, each entry in its chain and in the list, and no
    /// piece of memory without an entry.
    pub fn check(&self) -> bool {
        let buckets = Slab::offset(self.head(BUCKETS));
        let (count, len) = (self.head(BUCKET_COUNT) as usize, self.len());
        let table = self.slab.size(self.head(BUCKETS)) >= count.saturating_mul(4) && count.is_power_of_two();
        if !table || self.slab.check() != Some(len.saturating_add(2)) {
            return false;
        }
        let mut seen = 0;
        for bucket in 0..count {
            let place = buckets + 4 * bucket;
            let mut at = self.slab.memory.u32(place);
            while at != 0 {
                seen += 1;
                let node = Node(at);
                if seen > len || !self.check_node(node) || self.bucket(self.get(node, HASH)) != place {
                    return false;
                }
                at = self.get(node, CHAIN);
            }
        }
        seen == len && self.check_order(len)
    }

    /// The count changes last: a process that dies earlier leaves one that doesn't fit, which [`Map::check`] notices.
    fn recount(&mut self, count: usize) {
        compiler_fence(Ordering::SeqCst);
        self.set_head(COUNT, u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn check_node(&self, node: Node) -> bool {
        let (key_len, value_len) = (self.key_len(node), self.get(node, VALUE_LEN) as usize);
        self.get(node, KEY_LEN) & !0xffff == MARK
            && self.slab.size(node.0) >= KEY + key_len + value_len
            && self.get(node, HASH) == self.hash(&self.key(node))
    }

    fn check_order(&self, len: usize) -> bool {
        let (mut at, mut older) = (self.head(OLDEST), 0);
        for _ in 0..len {
            let node = Node(at);
            if at == 0 || self.get(node, OLDER) != older || self.get(node, KEY_LEN) & !0xffff != MARK {
                return false;
            }
            (older, at) = (at, self.get(node, NEWER));
        }
        at == 0 && self.head(NEWEST) == older
    }

    fn push_newest(&mut self, node: Node) {
        let newest = self.head(NEWEST);
        self.set(node, OLDER, newest);
        self.set(node, NEWER, 0);
        match newest {
            0 => self.set_head(OLDEST, node.0),
            newest => self.set(Node(newest), NEWER, node.0),
        }
        self.set_head(NEWEST, node.0);
    }

    fn push_oldest(&mut self, node: Node) {
        let oldest = self.head(OLDEST);
        self.set(node, OLDER, 0);
        self.set(node, NEWER, oldest);
        match oldest {
            0 => self.set_head(NEWEST, node.0),
            oldest => self.set(Node(oldest), OLDER, node.0),
        }
        self.set_head(OLDEST, node.0);
    }

    fn unlink(&mut self, node: Node) {
        let (newer, older) = (self.get(node, NEWER), self.get(node, OLDER));
        match older {
            0 => self.set_head(OLDEST, newer),
            older => self.set(Node(older), NEWER, newer),
        }
        match newer {
            0 => self.set_head(NEWEST, older),
            newer => self.set(Node(newer), OLDER, older),
        }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        hash(self.seed(), key)
    }

    /// The place of a hash's bucket.
    fn bucket(&self, hash: u32) -> usize {
        let mask = self.head(BUCKET_COUNT).wrapping_sub(1);
        Slab::offset(self.head(BUCKETS)) + 4 * (hash & mask) as usize
    }

    fn key_len(&self, node: Node) -> usize {
        (self.get(node, KEY_LEN) & 0xffff) as usize
    }

    /// Where the value of an entry is, and how long.
    fn place(&self, node: Node) -> (usize, usize) {
        (Slab::offset(node.0) + KEY + self.key_len(node), self.get(node, VALUE_LEN) as usize)
    }

    fn get(&self, node: Node, field: usize) -> u32 {
        self.slab.memory.u32(Slab::offset(node.0) + field)
    }

    fn set(&mut self, node: Node, field: usize, value: u32) {
        self.slab.memory.set_u32(Slab::offset(node.0) + field, value);
    }

    fn head(&self, field: usize) -> u32 {
        self.slab.memory.u32(self.root + field)
    }

    fn set_head(&mut self, field: usize, value: u32) {
        self.slab.memory.set_u32(self.root + field, value);
    }
}

/// The hash of a key. SipHash: clients choose keys, and must not be able to choose them so that all fall into one chain.
pub(crate) fn hash(seed: u64, key: &[u8]) -> u32 {
    /// The seed, and keys that are hashed in one piece with it.
    const SHORT: usize = 8 + 56;
    let (mut piece, len) = ([0; SHORT], 8 + key.len());
    let (head, rest) = piece.split_at_mut(8);
    head.copy_from_slice(&seed.to_ne_bytes());
    let mut hasher = std::hash::DefaultHasher::new();
    match rest.get_mut(..key.len()) {
        Some(place) => {
            place.copy_from_slice(key);
            hasher.write(&piece[..len]);
        }
        None => {
            hasher.write(head);
            hasher.write(key);
        }
    }
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// xorshift32
    struct Random(u32);

    impl Random {
        fn below(&mut self, n: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            self.0 % n
        }
    }

    #[test]
    fn does_what_a_list_does() {
        let mut bytes = vec![0; 32 * 1024];
        let mut map = Map::format(Memory::of(&mut bytes), 7).expect("large enough");
        let mut model: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
        let mut random = Random(99);
        for step in 0..20_000_u32 {
            let key = vec![b'k'; random.below(30) as usize];
            let key = [&key[..], &random.below(300).to_le_bytes()].concat();
            let at = model.iter().position(|(other, _)| *other == key);
            match (map.find(&key), at) {
                (Some(node), Some(at)) => {
                    assert_eq!(map.value(node), model[at].1);
                    let entry = model.remove(at).expect("found");
                    assert!(map.is_at(node, &key));
                    if random.below(3) == 0 {
                        map.remove(node);
                        assert!(!map.is_at(node, &key));
                    } else if random.below(2) == 0 {
                        map.age(node);
                        model.push_front(entry);
                    } else {
                        map.touch(node);
                        model.push_back(entry);
                    }
                }
                (None, None) => {
                    if let Some(node) = map.oldest() {
                        assert!(map.is_at(node, &map.key(node)) && !map.is_at(node, &key));
                    }
                    let value = vec![step as u8; random.below(200) as usize];
                    let before = map.len();
                    map.insert_evicting(&key, &value, 100).expect("room was made");
                    for _ in 0..before + 1 - map.len() {
                        model.pop_front();
                    }
                    model.push_back((key, value));
                }
                (found, at) => panic!("{found:?} but {at:?}"),
            }
            assert_eq!(map.len(), model.len());
            if step % 64 == 0 {
                assert!(map.check(), "{step}");
                let mut at = map.oldest();
                for (key, value) in &model {
                    let node = at.expect("as many");
                    assert!(map.key(node) == *key && map.value(node) == *value);
                    at = map.newer(node);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived_and_most_are_noticed() {
        let mut random = Random(5);
        let mut noticed = 0;
        for round in 0..400 {
            let mut bytes = vec![0; 32 * 1024];
            let mut map = Map::format(Memory::of(&mut bytes), round).expect("large enough");
            for n in 0..100_u32 {
                map.insert(&n.to_le_bytes(), &[1; 8]).expect("room");
            }
            assert!(map.check());
            let pages = Slab::offset(map.head(BUCKETS));
            for _ in 0..4 {
                // The table of pages, the root, the first entries.
                let at = random.below(2 * pages as u32) as usize;
                map.slab.memory.set_bytes(at, &[random.below(256) as u8]);
            }
            let Some(mut map) = Map::open(Memory::of(&mut bytes)) else { continue };
            noticed += u32::from(!map.check());
            for n in 0..200_u32 {
                match map.find(&n.to_le_bytes()) {
                    Some(node) if n % 3 == 0 => map.remove(node),
                    Some(node) => map.touch(node),
                    None => drop(map.insert_evicting(&n.to_le_bytes(), &[2; 8], 2)),
                }
            }
        }
        assert!(noticed > 100, "{noticed}");
    }

    #[test]
    fn an_anchor_is_found_wherever_it_is() {
        let mut bytes = vec![0; 32 * 1024];
        let mut map = Map::format(Memory::of(&mut bytes), 7).expect("large enough");
        assert_eq!(map.anchor(b"sums"), None);
        for round in 0..3 {
            let node = map.insert(b"sums", &[round]).expect("room");
            assert_eq!((map.anchor(b"sums"), map.anchor(b"sums")), (Some(node), Some(node)));
            map.remove(node);
            assert_eq!(map.anchor(b"sums"), None);
            let other = map.insert(b"more", &[round]).expect("the same place");
            assert_eq!((other, map.anchor(b"sums")), (node, None));
            map.insert(&[round], b"").expect("room");
            map.remove(other);
        }
        assert!(map.check());
    }

    #[test]
    fn the_hash_is_that_of_the_format() {
        for len in 0..100 {
            let key: Vec<u8> = (0..len).collect();
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write_u64(7);
            hasher.write(&key);
            assert_eq!(hash(7, &key), hasher.finish() as u32, "{len}");
        }
    }

    #[test]
    fn room_in_an_entry() {
        for (key, value, room) in [(4, 4, 4), (4, 16, 36), (16, 16, 24), (0, 2024, 2024), (0, 2025, 4072)] {
            assert_eq!(Map::room(key, value), room, "{key} {value}");
        }
    }

    #[test]
    fn too_small_and_too_long() {
        assert!(Map::format(Memory::of(&mut [0; 4096]), 0).is_none());
        assert!(Map::open(Memory::of(&mut [0; 32 * 1024])).is_none());
        let mut bytes = vec![0; 1 << 20];
        let mut map = Map::format(Memory::of(&mut bytes), 0).expect("large enough");
        assert!(map.insert(&vec![0; LONGEST_KEY + 1], b"").is_none());
        assert!(map.insert(&vec![0; LONGEST_KEY], b"").is_some() && map.check());
    }

    #[test]
    fn a_megabyte_holds_what_nginx_says() {
        // limit_conn and limit_req by an IPv4 address: 16 thousand and 8 thousand in nginx's manual.
        for (value, least) in [(36, 15_000), (16, 8_000)] {
            let mut bytes = vec![0; 1 << 20];
            let mut map = Map::format(Memory::of(&mut bytes), 0).expect("large enough");
            let fits = (0..100_000_u32).take_while(|n| map.insert(&n.to_le_bytes(), &vec![0; value]).is_some());
            assert!(fits.count() >= least, "{value}");
        }
    }
}
