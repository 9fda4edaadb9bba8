//! Fields of a head, each with the id of its name.

use buf::Bytes;
use wire::h1::KnownHeader;

/// Fields of a head, in the order in which they were added.
#[derive(Default, Clone, Debug)]
pub struct Headers(Vec<Header>);

/// One field.
#[derive(Clone, Debug)]
pub struct Header {
    /// Its name as sent.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The id of its name.
    pub known: KnownHeader,
    /// Where a head has it.
    pub place: Place,
}

/// Where a head has a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where every head has the field of this name, before the listed ones. There is at most one of a name.
    Fixed,
    /// In the order of the list.
    Listed,
}

impl Headers {
    /// Appends a field whose name is written as usual.
    pub fn add(&mut self, known: KnownHeader, value: impl Into<Bytes>) {
        self.push_known(known, spelled(known), value);
    }

    /// Appends a field.
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let name = name.into();
        self.push_known(KnownHeader::of(&name), name, value);
    }

    /// Appends a field with the id of its name.
    #[inline]
    pub fn push_known(&mut self, known: KnownHeader, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push(Header { name: name.into(), value: value.into(), known, place: Place::Listed });
    }

    /// Sets the field that a head has at the fixed place of its name.
    pub fn set_fixed(&mut self, known: KnownHeader, value: impl Into<Bytes>) {
        match self.fixed_mut(known) {
            Some(old) => *old = value.into(),
            None => self.0.push(Header { name: spelled(known), value: value.into(), known, place: Place::Fixed }),
        }
    }

    /// The value of the field at the fixed place of its name.
    #[inline]
    pub fn fixed(&self, known: KnownHeader) -> Option<&Bytes> {
        self.0.iter().find(|header| header.is_fixed(known)).map(|header| &header.value)
    }

    /// As [`Headers::fixed`], to be changed.
    #[inline]
    pub fn fixed_mut(&mut self, known: KnownHeader) -> Option<&mut Bytes> {
        self.0.iter_mut().find(|header| header.is_fixed(known)).map(|header| &mut header.value)
    }

    /// Removes the field at the fixed place of its name, and returns its value.
    pub(super) fn take_fixed(&mut self, known: KnownHeader) -> Option<Bytes> {
        let at = self.0.iter().position(|header| header.is_fixed(known))?;
        Some(self.0.remove(at).value)
    }

    /// Sets a field that a response has only once, where the first one of that name stands.
    pub fn set(&mut self, known: KnownHeader, value: impl Into<Bytes>) {
        let Some(at) = self.0.iter().position(|header| header.known == known) else { return self.add(known, value) };
        if let Some(header) = self.0.get_mut(at) {
            header.value = value.into();
        }
        let mut index = 0;
        self.0.retain(|header| {
            index += 1;
            index - 1 <= at || header.known != known
        });
    }

    /// The value of the first field of that name.
    #[inline]
    pub fn find(&self, known: KnownHeader) -> Option<&Bytes> {
        self.0.iter().find(|header| header.known == known).map(|header| &header.value)
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, known: KnownHeader) {
        self.retain(|header| header.known != known);
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&Header) -> bool) {
        self.0.retain(keep);
    }

    /// The fields.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// The fields, to be changed.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Header> {
        self.0.iter_mut()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes room for so many more fields.
    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// Moves the fields of `other` to the end.
    pub(crate) fn append(&mut self, mut other: Headers) {
        self.0.append(&mut other.0);
    }

    /// Removes all fields and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends the values of all fields whose name fits a variable's, joined by `, `.
    pub fn variable(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let fields = self.0.iter().filter(|header| same_name(&header.name, name));
        join(fields.map(|header| &header.value[..]), b", ", out)
    }
}

/// Appends the values of fields, joined; whether there are any.
pub(crate) fn join<'a>(values: impl Iterator<Item = &'a [u8]>, separator: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for value in values {
        if std::mem::replace(&mut found, true) {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
    }
    found
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> std::slice::Iter<'a, Header> {
        self.iter()
    }
}

impl Header {
    #[inline]
    fn is_fixed(&self, known: KnownHeader) -> bool {
        self.known == known && self.place == Place::Fixed
    }
}

fn spelled(known: KnownHeader) -> Bytes {
    Bytes::from_static(known.spelled())
}

/// Whether a field's name is that of a variable: in lower case, with underscores for dashes.
pub fn same_name(field: &[u8], variable: &str) -> bool {
    field.len() == variable.len()
        && field
            .iter()
            .zip(variable.bytes())
            .all(|(&a, b)| (if a == b'-' { b'_' } else { a.to_ascii_lowercase() }) == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(of: &[(&'static str, &'static str)]) -> Headers {
        let mut fields = Headers::default();
        for (name, value) in of {
            fields.push(Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()));
        }
        fields
    }

    fn check(fields: &Headers, expect: &[(&str, &str)]) {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let seen: Vec<_> = fields.iter().map(|field| (text(&field.name), text(&field.value))).collect();
        let seen: Vec<_> = seen.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        assert_eq!(seen, expect);
    }

    #[test]
    fn a_field_is_set_once() {
        let mut fields = fields(&[("A", "1"), ("expires", "2"), ("Expires", "3"), ("B", "4")]);
        fields.set(KnownHeader::Expires, Bytes::from_static(b"x"));
        fields.set(KnownHeader::CacheControl, Bytes::from_static(b"y"));
        check(&fields, &[("A", "1"), ("expires", "x"), ("B", "4"), ("Cache-Control", "y")]);
    }

    #[test]
    fn a_fixed_field_stands_beside_listed_ones() {
        let mut fields = fields(&[("location", "theirs")]);
        assert_eq!(fields.fixed(KnownHeader::Location), None);
        for value in ["a", "b"] {
            fields.set_fixed(KnownHeader::Location, Bytes::from_static(value.as_bytes()));
            check(&fields, &[("location", "theirs"), ("Location", value)]);
        }
        assert_eq!(fields.fixed(KnownHeader::Location).map(|value| &value[..]), Some(&b"b"[..]));
        assert_eq!(fields.find(KnownHeader::Location).map(|value| &value[..]), Some(&b"theirs"[..]));
        fields.remove(KnownHeader::Location);
        assert!(fields.is_empty());
    }

    #[test]
    fn values_of_a_name_are_joined() {
        let fields = fields(&[("Set-Cookie", "1"), ("X", "2"), ("set-cookie", "3")]);
        for (name, expect) in [("set_cookie", Some("1, 3")), ("x", Some("2")), ("y", None)] {
            let mut out = Vec::new();
            let found = fields.variable(name, &mut out);
            assert_eq!(found.then(|| String::from_utf8_lossy(&out).into_owned()).as_deref(), expect, "{name}");
        }
    }
}
