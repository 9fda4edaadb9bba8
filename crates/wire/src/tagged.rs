//! Tagged fields: the form in which processes of this program hand state to one another.
//!
//! A message is a version and then fields, each a tag (one byte), a length (four bytes, lowest first) and so many bytes.
//! A tag may come several times, which makes a list, and a field may hold a message, which makes a structure. Tags that
//! a reader doesn't know it passes over: a sender may know more. What must be there, the reader asks for.

use buf::Secret;

/// Writes a message. It may hold keys, so it leaves no traces.
#[derive(Clone, Debug)]
pub struct Writer {
    out: Secret,
}

impl Writer {
    /// A message of this version, without fields yet.
    pub fn new(version: u8) -> Writer {
        Writer { out: Secret::from(vec![version]) }
    }

    /// Adds a field.
    ///
    /// # Panics
    /// If it is longer than 4 GiB.
    pub fn bytes(&mut self, tag: u8, value: &[u8]) -> &mut Writer {
        let length = u32::try_from(value.len()).expect("fields are far shorter than that");
        let [a, b, c, d] = length.to_le_bytes();
        self.out.extend_from_slice(&[tag, a, b, c, d]);
        self.out.extend_from_slice(value);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, tag: u8, value: u64) -> &mut Writer {
        self.bytes(tag, &value.to_le_bytes())
    }

    /// Adds a number, if there is one.
    pub fn some(&mut self, tag: u8, value: Option<u64>) -> &mut Writer {
        match value {
            Some(value) => self.number(tag, value),
            None => self,
        }
    }

    /// Adds a field for each value.
    pub fn list<T: AsRef<[u8]>>(&mut self, tag: u8, values: impl IntoIterator<Item = T>) -> &mut Writer {
        for value in values {
            self.bytes(tag, value.as_ref());
        }
        self
    }

    /// Adds an empty field if `set`.
    pub fn flag(&mut self, tag: u8, set: bool) -> &mut Writer {
        if set { self.bytes(tag, b"") } else { self }
    }

    /// The message.
    pub fn finish(self) -> Secret {
        self.out
    }
}

/// Reads a message whose form has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    fields: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The message of these bytes; `None` if it is of another version or not whole.
    pub fn new(version: u8, bytes: &'a [u8]) -> Option<Reader<'a>> {
        let (first, fields) = bytes.split_first()?;
        let mut rest = fields;
        while !rest.is_empty() {
            (_, _, rest) = split_field(rest)?;
        }
        (*first == version).then_some(Reader { fields })
    }

    /// All fields, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let (tag, value, after) = split_field(rest)?;
            rest = after;
            Some((tag, value))
        })
    }

    /// The first field of this tag.
    pub fn bytes(&self, tag: u8) -> Option<&'a [u8]> {
        self.all(tag).next()
    }

    /// All fields of this tag.
    pub fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().filter(move |(own, _)| *own == tag).map(|(_, value)| value)
    }

    /// The first field of this tag, if it is a number.
    pub fn number(&self, tag: u8) -> Option<u64> {
        self.bytes(tag)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Whether there is a field of this tag.
    pub fn flag(&self, tag: u8) -> bool {
        self.bytes(tag).is_some()
    }
}

/// Tag and value of the first field, and what stands after it.
fn split_field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((*tag, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut inner = Writer::new(1);
        inner.number(7, 70_000);
        let mut writer = Writer::new(3);
        writer.bytes(1, b"one").number(2, u64::MAX).some(3, Some(9)).some(4, None).flag(5, true).flag(6, false);
        writer.bytes(1, b"").bytes(8, &inner.finish());
        let bytes = writer.finish();
        let reader = Reader::new(3, &bytes).expect("it is whole");
        assert_eq!(reader.all(1).collect::<Vec<_>>(), [&b"one"[..], b""]);
        assert_eq!((reader.number(2), reader.number(3), reader.number(4)), (Some(u64::MAX), Some(9), None));
        assert_eq!((reader.flag(5), reader.flag(6), reader.number(1)), (true, false, None));
        let inner = reader.bytes(8).and_then(|bytes| Reader::new(1, bytes)).expect("a message in a message");
        assert_eq!(inner.number(7), Some(70_000));
        assert_eq!(reader.iter().count(), 6);
    }

    #[test]
    fn refuses_what_is_not_whole() {
        let mut writer = Writer::new(3);
        writer.bytes(1, b"one").number(2, 5);
        let bytes = writer.finish();
        assert!(Reader::new(2, &bytes).is_none(), "another version");
        for cut in 0..bytes.len() {
            // Between two fields a cut can't be told from an end.
            assert_eq!(Reader::new(3, &bytes[..cut]).is_some(), matches!(cut, 1 | 9), "{cut}");
        }
        assert!(Reader::new(3, &[3, 1, 255, 255, 255, 255, 0]).is_none(), "a length beyond the end");
    }
}
