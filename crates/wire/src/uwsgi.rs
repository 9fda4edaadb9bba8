//! uwsgi: the packet with which a web server asks an application.
//!
//! A packet is a head of four bytes (a modifier, the size of the block in little endian, a second modifier) and a block of
//! variables, each a name and a value after their lengths. The request's body follows as it is. Responses are those of CGI.

use std::fmt;

use buf::Buf;

/// The largest block of variables: its size has two bytes.
const MOST: usize = 0xffff;

/// What the first and the last byte of a packet's head say: which of its plugins the application asks, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modifiers(pub u8, pub u8);

/// A block of variables is larger than a packet can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig(pub usize);

impl fmt::Display for TooBig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uwsgi request is too big: {}", self.0)
    }
}

/// Appends a variable to a block. The length of a name or value that a packet can't hold is cut, but then [`packet`] refuses
/// the block.
pub fn variable(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    for part in [name, value] {
        block.extend_from_slice(&(part.len() as u16).to_le_bytes());
        block.extend_from_slice(part);
    }
}

/// Appends a packet with this block.
pub fn packet(modifiers: Modifiers, block: &[u8], out: &mut Buf) -> Result<(), TooBig> {
    if block.len() > MOST {
        return Err(TooBig(block.len()));
    }
    let [low, high] = (block.len() as u16).to_le_bytes();
    out.extend_from_slice(&[modifiers.0, low, high, modifiers.1]);
    out.extend_from_slice(block);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets() {
        let mut block = Vec::new();
        variable(b"A", b"bc", &mut block);
        variable(b"LONG", &[b'x'; 300], &mut block);
        variable(b"E", b"", &mut block);
        let mut out = Buf::empty();
        assert_eq!(packet(Modifiers(5, 7), &block, &mut out), Ok(()));
        assert_eq!(out[..11], *b"\x05\x40\x01\x07\x01\0A\x02\0bc");
        assert_eq!(out[11..19], *b"\x04\0LONG\x2c\x01");
        assert_eq!(out[out.len() - 5..], *b"\x01\0E\0\0");
        assert_eq!(out.len(), 4 + block.len());
    }

    #[test]
    fn the_largest_packet() {
        for (len, expect) in [(MOST, Ok(())), (MOST + 1, Err(TooBig(MOST + 1)))] {
            let mut out = Buf::empty();
            assert_eq!(packet(Modifiers::default(), &vec![0; len], &mut out), expect);
            assert_eq!(out.is_empty(), expect.is_err());
        }
    }
}
