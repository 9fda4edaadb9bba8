//! Bytes that may hold keys.

use std::fmt;
use std::ops::Deref;

/// Bytes that leave nothing behind: they are overwritten when they are dropped and when they outgrow their memory, and
/// aren't shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Adds bytes at the end.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // The vector itself would leave the old memory as it was.
            let mut larger = Vec::with_capacity(needed.max(2 * self.0.capacity()));
            larger.extend_from_slice(&self.0);
            drop(Secret(std::mem::replace(&mut self.0, larger)));
        }
        self.0.extend_from_slice(bytes);
    }

    /// The bytes, to be written over.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Secret {
        Secret(bytes.to_vec())
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Overwrites bytes that are not needed any more.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Somebody might look: so the compiler can't leave it out.
    std::hint::black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_shows_nothing() {
        let mut secret = Secret::default();
        for n in 0..1000u32 {
            secret.extend_from_slice(&n.to_le_bytes());
        }
        assert_eq!((secret.len(), &secret[3996..]), (4000, &999u32.to_le_bytes()[..]));
        assert_eq!(format!("{:?}", Secret::from(&b"key"[..])), "Secret(3 bytes)");
        let mut bytes = *b"key";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 3]);
    }
}
