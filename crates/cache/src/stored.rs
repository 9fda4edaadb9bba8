//! A stored response that is open, for any number of requests at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use buf::{Bytes, Chain, FileRange, Piece};

use crate::entry::Entry;
use crate::key::Key;

/// A stored response that is open.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key.
    pub key: Key,
    /// Its head.
    pub entry: Rc<Entry>,
    /// Where its body begins in the contents.
    pub start: usize,
    /// The contents of its file.
    pub contents: Contents,
    /// The device and the number of its file.
    pub identity: (u64, u64),
}

/// The contents of a stored response's file.
#[derive(Clone, Debug)]
pub enum Contents {
    /// In memory.
    Memory(Bytes),
    /// In the open file.
    File(Rc<File>),
}

/// Up to this length the contents of a file are read into memory for those who wait for it.
const SHARED: u64 = 16 << 10;

impl Stored {
    /// The body.
    pub fn body(&self) -> Chain {
        let mut chain = Chain::new();
        let len = self.entry.body_len;
        match &self.contents {
            _ if len == 0 => {}
            Contents::Memory(bytes) => chain.push(Piece::Bytes(bytes.slice(self.start..bytes.len()))),
            Contents::File(file) => {
                chain.push(Piece::File(FileRange { file: file.clone(), offset: self.start as u64, len }));
            }
        }
        chain
    }

    /// The same with short contents in memory, so that only one of those who wait reads them.
    #[must_use]
    pub fn for_many(self: Rc<Self>) -> Rc<Stored> {
        let len = self.entry.body_len.saturating_add(self.start as u64);
        if let Contents::File(file) = &self.contents
            && len <= SHARED
        {
            let mut bytes = vec![0; len as usize];
            if file.read_exact_at(&mut bytes, 0).is_ok() {
                let contents = Contents::Memory(Bytes::from(bytes));
                return Rc::new(Stored { contents, ..Rc::unwrap_or_clone(self) });
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_contents_are_read_once() {
        let folder = tempfile::TempDir::with_prefix("tidegate-stored-").expect("a folder");
        let path = folder.path().join("f");
        for (body_len, in_memory) in [(0, true), (10, true), (SHARED - 20, true), (SHARED - 19, false)] {
            std::fs::write(&path, vec![b'x'; 20 + body_len as usize]).expect("written");
            let stored = Rc::new(Stored {
                key: Key([0; 16]),
                entry: Rc::new(Entry { body_len, ..Entry::default() }),
                start: 20,
                contents: Contents::File(Rc::new(File::open(&path).expect("opened"))),
                identity: (0, 0),
            });
            let shared = stored.for_many();
            assert_eq!(matches!(shared.contents, Contents::Memory(_)), in_memory, "{body_len}");
            assert_eq!(shared.body().len(), body_len);
        }
    }
}
