//! What is to be sent, piece by piece.

use std::fs::File;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::Bytes;

/// Most responses are a head and one piece of body.
const INLINE: usize = 2;
/// How many bytes are copied rather than kept as a piece of their own.
const FEW: usize = 512;

/// Pieces in the order in which they go out.
#[derive(Default, Debug)]
pub struct Chain {
    pieces: SmallVec<[Piece; INLINE]>,
    /// The pieces before this index are used up; they go when the chain is empty.
    head: usize,
    len: u64,
}

/// One piece of a [`Chain`].
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A part of a file, which sendfile can send without reading it here.
    File(FileRange),
}

/// A part of an open file.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file; its own position is neither used nor changed.
    pub file: Rc<File>,
    /// Where the part starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

impl Piece {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(range) => range.len,
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops `n` bytes from its front; no more than it holds.
    pub fn advance(&mut self, n: u64) {
        match self {
            Piece::Bytes(bytes) => bytes.advance(n as usize),
            Piece::File(range) => {
                range.offset += n;
                range.len -= n;
            }
        }
    }
}

impl Chain {
    /// A chain of nothing.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// The bytes it holds in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a piece at the end; an empty one is left out.
    #[inline]
    pub fn push(&mut self, piece: Piece) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Adds bytes at the end.
    pub fn push_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.push(Piece::Bytes(bytes.into()));
    }

    /// Adds bytes at the end. A few are copied to the last ones, where those have room and no other user: so a chain of
    /// many small pieces takes about the memory of its bytes.
    pub fn push_joined(&mut self, bytes: Bytes) {
        if bytes.len() <= FEW
            && self.len > 0
            && let Some(Piece::Bytes(last)) = self.pieces.last_mut()
            && last.extend(&bytes)
        {
            self.len += bytes.len() as u64;
            return;
        }
        self.push(Piece::Bytes(bytes));
    }

    /// Adds bytes at the front.
    pub fn push_front(&mut self, piece: Piece) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        if self.head > 0 {
            self.head -= 1;
            self.pieces[self.head] = piece;
        } else {
            self.pieces.insert(0, piece);
        }
    }

    /// Moves all of `other` to the end of this chain.
    pub fn append(&mut self, other: &mut Chain) {
        self.len += std::mem::take(&mut other.len);
        let head = std::mem::take(&mut other.head);
        self.pieces.extend(other.pieces.drain(..).skip(head));
    }

    /// Takes the first piece out.
    pub fn pop(&mut self) -> Option<Piece> {
        let piece = std::mem::replace(self.pieces.get_mut(self.head)?, Piece::Bytes(Bytes::default()));
        self.len -= piece.len();
        self.head += 1;
        self.tidy();
        Some(piece)
    }

    /// The pieces, first one first.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces[self.head..]
    }

    /// The first piece.
    pub fn first(&self) -> Option<&Piece> {
        self.pieces.get(self.head)
    }

    /// Drops `n` bytes from the front, as after a write that took so many.
    ///
    /// # Panics
    /// If the chain holds fewer.
    pub fn advance(&mut self, mut n: u64) {
        assert!(n <= self.len, "no more is dropped than there is");
        self.len -= n;
        while n > 0 {
            let piece = &mut self.pieces[self.head];
            let len = piece.len();
            if n < len {
                piece.advance(n);
                return;
            }
            *piece = Piece::Bytes(Bytes::default());
            n -= len;
            self.head += 1;
        }
        self.tidy();
    }

    /// Takes the first `n` bytes (or all, if there are fewer) out as a chain of their own.
    pub fn split_to(&mut self, mut n: u64) -> Chain {
        let mut front = Chain::new();
        while n > 0 {
            let Some(mut piece) = self.pop() else { break };
            let len = piece.len();
            if len > n {
                let mut rest = piece.clone();
                rest.advance(n);
                match &mut piece {
                    Piece::Bytes(bytes) => *bytes = bytes.slice(0..n as usize),
                    Piece::File(range) => range.len = n,
                }
                self.push_front(rest);
                n = 0;
            } else {
                n -= len;
            }
            front.push(piece);
        }
        front
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pieces.clear();
        (self.head, self.len) = (0, 0);
    }

    fn tidy(&mut self) {
        if self.head == self.pieces.len() {
            self.pieces.clear();
            self.head = 0;
        } else if self.head >= 32 {
            self.pieces.drain(..self.head);
            self.head = 0;
        }
    }
}

impl From<Bytes> for Chain {
    #[inline]
    fn from(bytes: Bytes) -> Chain {
        let mut chain = Chain::new();
        chain.push(Piece::Bytes(bytes));
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(parts: &[&'static str]) -> Chain {
        let mut chain = Chain::new();
        for part in parts {
            chain.push_bytes(Bytes::from_static(part.as_bytes()));
        }
        chain
    }

    fn text(chain: &Chain) -> String {
        let piece = |p: &Piece| match p {
            Piece::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
            Piece::File(f) => format!("<{}+{}>", f.offset, f.len),
        };
        chain.pieces().iter().map(piece).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn advances_over_pieces() {
        for n in 0..=9 {
            let mut chain = chain(&["abc", "", "def", "ghi"]);
            chain.advance(n);
            assert_eq!(chain.len(), 9 - n);
            assert_eq!(text(&chain).replace('|', ""), "abcdefghi"[n as usize..]);
        }
    }

    #[test]
    fn splits_at_every_byte() {
        for n in 0..=12 {
            let mut rest = chain(&["abc", "def", "ghi"]);
            let front = rest.split_to(n);
            assert_eq!(front.len() + rest.len(), 9);
            assert_eq!(text(&front).replace('|', "") + &text(&rest).replace('|', ""), "abcdefghi");
        }
    }

    #[test]
    fn joins_small_pieces() {
        let mut chain = Chain::new();
        (0..3000).for_each(|n: u32| chain.push_joined(pooled(&[n as u8])));
        assert_eq!((chain.pieces().len(), chain.len()), (3, 3000), "three times 1 KiB");
        assert!((0..3000_u32).all(|n| matches!(chain.pop_byte(), Some(byte) if byte == n as u8)));
        chain.push_joined(pooled(b"a"));
        chain.push_joined(pooled(&[0; FEW + 1]));
        chain.push_joined(pooled(b"b"));
        chain.push(Piece::Bytes(Bytes::from_static(b"c")));
        chain.push_joined(pooled(b"d"));
        let lengths: Vec<_> = chain.pieces().iter().map(Piece::len).collect();
        assert_eq!((lengths, chain.len()), (vec![1, FEW as u64 + 2, 1, 1], FEW as u64 + 5));
    }

    fn pooled(bytes: &[u8]) -> Bytes {
        let mut buf = crate::Buf::with_capacity(bytes.len());
        buf.extend_from_slice(bytes);
        buf.freeze()
    }

    impl Chain {
        fn pop_byte(&mut self) -> Option<u8> {
            let Some(Piece::Bytes(bytes)) = self.split_to(1).pop() else { return None };
            bytes.first().copied()
        }
    }

    #[test]
    fn appends_and_pops() {
        let mut a = chain(&["a", "b"]);
        a.pop();
        let mut b = chain(&["c", "d"]);
        b.pop();
        b.push_front(Piece::Bytes(Bytes::from_static(b"x")));
        a.append(&mut b);
        assert_eq!((text(&a).as_str(), a.len(), b.len()), ("b|x|d", 3, 0));
    }
}
