//! Keys of responses: the MD5 of the text that the configuration makes of a request.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

/// The name of a response in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key of a text.
    pub fn of(text: &[u8]) -> Key {
        Key(digest(&[text]))
    }

    /// The key of a variant of the response with this key (RFC 9111 §4.1).
    #[must_use]
    pub fn variant(&self, variant: &[u8; 16]) -> Key {
        Key(digest(&[&self.0, variant]))
    }

    /// The key that a file's name stands for.
    pub fn parse(name: &[u8]) -> Option<Key> {
        let digits: &[u8; 32] = name.try_into().ok()?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Key(bytes))
    }

    /// The name of its file.
    pub fn name(&self) -> String {
        self.digits().iter().map(|digit| char::from(*digit)).collect()
    }

    /// Its file below a folder: in subfolders with names of these lengths, made of the last digits of its own name.
    pub fn path(&self, folder: &Path, levels: &[usize]) -> PathBuf {
        let digits = self.digits();
        let folder = folder.as_os_str().as_bytes();
        let mut path = Vec::with_capacity(folder.len() + 2 * digits.len() + 8);
        path.extend_from_slice(folder);
        let mut end = digits.len();
        for level in levels {
            let start = end.saturating_sub(*level);
            path.push(b'/');
            path.extend_from_slice(digits.get(start..end).unwrap_or_default());
            end = start;
        }
        path.push(b'/');
        path.extend_from_slice(&digits);
        OsString::from_vec(path).into()
    }

    fn digits(&self) -> [u8; 32] {
        let mut digits = [0; 32];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = buf::hex::lower(byte);
        }
        digits
    }
}

/// The MD5 of some bytes after one another.
pub fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part));
    md5.finalize().into()
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        let key = Key::of(b"");
        assert_eq!(key.name(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Key::parse(key.name().as_bytes()), Some(key));
        for (levels, expect) in [
            (&[][..], "/c/d41d8cd98f00b204e9800998ecf8427e"),
            (&[1, 2], "/c/e/27/d41d8cd98f00b204e9800998ecf8427e"),
            (&[2, 2, 1], "/c/7e/42/8/d41d8cd98f00b204e9800998ecf8427e"),
        ] {
            assert_eq!(key.path(Path::new("/c"), levels), Path::new(expect));
        }
        for name in ["", "D41d8cd98f00b204e9800998ecf8427e", "0000000001", "d41d8cd98f00b204e9800998ecf8427e.1"] {
            assert_eq!(Key::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn variants_differ() {
        let key = Key::of(b"a");
        assert_ne!(key.variant(&[0; 16]), key.variant(&[1; 16]));
        assert_ne!(key.variant(&[0; 16]), key);
    }
}
