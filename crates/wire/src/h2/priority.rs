//! Whose DATA goes first: urgency (RFC 9218), or the dependencies and weights of old (RFC 7540 §5.3).
//!
//! Clients that speak neither get their streams in turn. Once a client has sent a Priority header, PRIORITY_UPDATE or
//! NO_RFC7540_PRIORITIES, dependencies are no longer looked at. Of the dependencies, depth and weight make an order:
//! a stream waits for those it depends on, and of siblings the heavier goes first, as nginx has it.

use super::reader::Dependency;

/// Priority by RFC 9218.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// 0 (first) to 7.
    pub urgency: u8,
    /// Its parts are of use before it is complete: streams of this kind take turns.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Priority {
        Priority { urgency: 3, incremental: false }
    }
}

impl Priority {
    /// Reads the value of a Priority header; what isn't understood counts as not said (RFC 9218 §4).
    pub fn parse(value: &[u8]) -> Priority {
        let mut priority = Priority::default();
        for member in value.split(|&byte| byte == b',') {
            let member = member.trim_ascii();
            let parameters = member.iter().position(|&byte| byte == b';').unwrap_or(member.len());
            match member.get(..parameters).unwrap_or_default() {
                [b'u', b'=', digit @ b'0'..=b'7'] => priority.urgency = digit - b'0',
                b"i" | b"i=?1" => priority.incremental = true,
                b"i=?0" => priority.incremental = false,
                _ => {}
            }
        }
        priority
    }
}

/// The dependencies that a client has told.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// By rising numbers.
    nodes: Vec<Node>,
    /// How many have been entered.
    entered: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    id: u32,
    parent: u32,
    weight: u16,
    /// When it was entered.
    age: u32,
}

impl Tree {
    /// Enters or moves a stream (RFC 7540 §5.3.3).
    pub(super) fn set(&mut self, id: u32, dependency: Dependency) {
        let Dependency { parent, exclusive, weight } = dependency;
        let old_parent = self.node(id).map_or(0, |node| node.parent);
        // A stream that is to depend on one of its own dependents: that one first takes the place of the stream.
        if self.depends(parent, id)
            && let Ok(at) = self.find(parent)
        {
            self.nodes[at].parent = old_parent;
        }
        if exclusive {
            self.nodes
                .iter_mut()
                .filter(|node| node.parent == parent && node.id != id)
                .for_each(|node| node.parent = id);
        }
        if let Ok(at) = self.find(id) {
            (self.nodes[at].parent, self.nodes[at].weight) = (parent, weight);
            return;
        }
        self.make_room();
        self.entered = self.entered.wrapping_add(1);
        let at = self.find(id).unwrap_or_else(|at| at);
        self.nodes.insert(at, Node { id, parent, weight, age: self.entered });
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.nodes = Vec::new();
    }

    /// The order of a stream among all, lower first: depth, then weight along the path. 48 bits.
    pub(super) fn rank(&self, id: u32) -> u64 {
        let (mut depth, mut share, mut at) = (0u64, WHOLE, id);
        while let Some(node) = self.node(at).filter(|_| depth <= MAX_NODES as u64) {
            share = share * u64::from(node.weight) / 256;
            at = node.parent;
            depth += u64::from(at != 0);
        }
        if self.node(id).is_none() {
            share = WHOLE * u64::from(DEFAULT_WEIGHT) / 256;
        }
        depth << 32 | (WHOLE - share)
    }

    fn find(&self, id: u32) -> Result<usize, usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id)
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.find(id).ok().and_then(|at| self.nodes.get(at))
    }

    /// Whether `id` depends on `on`, over however many others.
    fn depends(&self, id: u32, on: u32) -> bool {
        let mut at = id;
        for _ in 0..=self.nodes.len() {
            match self.node(at) {
                Some(node) if node.parent == on => return true,
                Some(node) => at = node.parent,
                None => return false,
            }
        }
        false
    }

    /// The oldest goes when there are too many; what depends on it moves up.
    fn make_room(&mut self) {
        if self.nodes.len() < MAX_NODES {
            return;
        }
        let oldest = self.nodes.iter().enumerate().max_by_key(|(_, node)| self.entered.wrapping_sub(node.age));
        if let Some(at) = oldest.map(|(at, _)| at) {
            let oldest = self.nodes.remove(at);
            self.nodes.iter_mut().filter(|node| node.parent == oldest.id).for_each(|node| node.parent = oldest.parent);
        }
    }
}

/// How many streams the tree remembers: those that run and some that are to come.
const MAX_NODES: usize = 256;
/// The weight of a stream of which nothing is known.
const DEFAULT_WEIGHT: u16 = 16;
const WHOLE: u64 = (1 << 32) - 1;

/// Streams that have DATA to send and a window for it, in the order in which they are served.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// The next one is the last.
    entries: Vec<Entry>,
    turns: u64,
}

/// A place in the order: rank first, then whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rank: u64,
    pub(super) turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    slot: usize,
}

impl Ready {
    /// Enters a stream; its place is what [`Ready::remove`] wants. `turn` is kept where given.
    pub(super) fn insert(&mut self, rank: u64, turn: Option<u64>, slot: usize) -> Place {
        self.turns += u64::from(turn.is_none());
        let place = Place { rank, turn: turn.unwrap_or(self.turns) };
        let at = self.entries.partition_point(|entry| entry.place > place);
        self.entries.insert(at, Entry { place, slot });
        place
    }

    /// Takes a stream out.
    pub(super) fn remove(&mut self, place: Place) {
        let at = self.entries.partition_point(|entry| entry.place > place);
        if self.entries.get(at).is_some_and(|entry| entry.place == place) {
            self.entries.remove(at);
        }
        if self.entries.is_empty() && self.entries.capacity() > 16 {
            self.entries = Vec::new();
        }
    }

    /// The next stream.
    pub(super) fn first(&self) -> Option<usize> {
        self.entries.last().map(|entry| entry.slot)
    }

    /// All streams in it.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|entry| entry.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for (value, urgency, incremental) in [
            ("", 3, false),
            ("u=0", 0, false),
            ("i", 3, true),
            ("u=5, i", 5, true),
            (" i=?1 , u=7;x=1", 7, true),
            ("i, i=?0", 3, false),
            ("u=8, i=1", 3, false),
            ("u=-1, foo, u=", 3, false),
            ("u=1, u=2", 2, false),
        ] {
            assert_eq!(Priority::parse(value.as_bytes()), Priority { urgency, incremental }, "{value}");
        }
    }

    fn tree(told: &[(u32, u32, u16, bool)]) -> Tree {
        let mut tree = Tree::default();
        for &(id, parent, weight, exclusive) in told {
            tree.set(id, Dependency { parent, exclusive, weight });
        }
        tree
    }

    fn order(told: &[(u32, u32, u16, bool)]) -> Vec<u32> {
        let tree = tree(told);
        let mut ids = vec![1, 3, 5];
        ids.sort_by_key(|&id| tree.rank(id));
        ids
    }

    #[test]
    fn dependencies() {
        assert_eq!(order(&[]), [1, 3, 5]);
        assert_eq!(order(&[(1, 0, 1, false), (3, 0, 256, false)]), [3, 5, 1]);
        assert_eq!(order(&[(3, 0, 17, false), (1, 3, 17, false)]), [3, 5, 1]);
        assert_eq!(order(&[(5, 0, 17, false), (1, 5, 256, false), (3, 5, 1, false)]), [5, 1, 3]);
        assert_eq!(order(&[(5, 0, 17, false), (1, 5, 1, false), (3, 5, 256, false)]), [5, 3, 1]);
        assert_eq!(order(&[(1, 0, 17, false), (3, 1, 17, false), (5, 1, 17, true)]), [1, 5, 3]);
        // A circle: 1 <- 3 <- 5, and then 1 on 5.
        assert_eq!(order(&[(1, 0, 17, false), (3, 1, 17, false), (5, 3, 17, false), (1, 5, 17, false)]), [5, 1, 3]);
    }

    #[test]
    fn the_tree_is_bounded() {
        let mut tree = Tree::default();
        for id in 1..=2 * MAX_NODES as u32 {
            tree.set(id, Dependency { parent: id - 1, exclusive: id % 3 == 0, weight: 256 });
        }
        assert_eq!(tree.nodes.len(), MAX_NODES);
        assert!(tree.rank(2 * MAX_NODES as u32) >> 32 <= MAX_NODES as u64 + 1);
    }

    #[test]
    fn turns() {
        let mut ready = Ready::default();
        let a = ready.insert(7, None, 1);
        ready.insert(7, None, 2);
        ready.insert(3, None, 3);
        assert_eq!(ready.first(), Some(3));
        ready.remove(Place { rank: 3, turn: 3 });
        assert_eq!(ready.first(), Some(1));
        ready.remove(a);
        ready.insert(7, None, 1);
        assert_eq!(ready.first(), Some(2), "who was served waits for the others");
        ready.remove(a);
        ready.insert(7, Some(a.turn), 9);
        assert_eq!(ready.first(), Some(9));
        assert_eq!(ready.slots().count(), 3);
    }
}
