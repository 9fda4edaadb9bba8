//! The file of a stored response: a head of our own, then the body.
//!
//! The head holds the key as text, the times, the backend's status and fields, and what decides between variants. A
//! checksum covers all of it. A file is served only if the checksum is right, the key is the one asked for, and the
//! length of the file is the one that the head announces; anything else is damaged, and fetched anew. A file is written
//! under another name and renamed when it is whole.
//!
//! All numbers are stored with the lowest byte first. After the fields there may be unused bytes, so that a head can be
//! replaced by a longer one without moving the body.

use buf::Bytes;
use wire::Span;
use wire::h1::{HeaderSpan, KnownHeader, ResponseHead};

/// The head of a stored response.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Until when the response is fresh, in seconds since 1970.
    pub valid: i64,
    /// Until when it may be served while it is being updated.
    pub while_updating: i64,
    /// Until when it may be served if the backend fails.
    pub on_error: i64,
    /// When it was stored, in nanoseconds since 1970.
    pub stored_ns: u64,
    /// When its age was 0, in seconds since 1970.
    pub born: i64,
    /// `Last-Modified`, if a client's or our own conditions may refer to it.
    pub last_modified: Option<i64>,
    /// The length of the body.
    pub body_len: u64,
    /// Which life of the main key this response belongs to: a purge ends it for all variants.
    pub generation: u64,
    /// What the request's fields that `vary` names were, digested; all zeros without `vary`.
    pub variant: [u8; 16],
    /// Bits whose meaning is the user's.
    pub flags: u16,
    /// The key.
    pub key: Bytes,
    /// The value of `Vary`; empty if there is none.
    pub vary: Bytes,
    /// `ETag`; empty if there is none that conditions may refer to.
    pub etag: Bytes,
    /// The backend's status line and fields: spans of `text`.
    pub head: ResponseHead,
    /// See `head`.
    pub text: Bytes,
}

/// What begins each file; the last byte is the format's version.
const MAGIC: [u8; 8] = *b"TGcache\x01";
/// Where the checksum stands.
const SUM: usize = 8;
/// What the checksum covers begins here.
const COVERED: usize = 12;
/// The length of the part with fixed places.
pub const FIXED: usize = 128;
/// The longest head.
const LONGEST: usize = 1 << 24;
/// Stands for a time that there is none of.
const NO_TIME: i64 = i64::MIN;
/// Heads end at a multiple of this.
const ALIGN: usize = 256;
/// Heads of long bodies end at a multiple of this, a page of memory: a file whose pages are the body's is sent with half
/// of the CPU time.
const PAGE: usize = 4096;
/// So much of a head is unused at least.
const SPARE: usize = ALIGN / 2;

/// How long a head is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// As long as it need be, with some room for a longer one to replace it.
    Short,
    /// The same up to the end of a page: for bodies that are sent from the file, or that may be.
    Page,
    /// As long as the one that it replaces.
    Kept(usize),
}

impl Room {
    /// For a body of this length, if it is known.
    pub fn of_body(len: Option<u64>) -> Room {
        /// A page more would be much of a shorter one.
        const LONG: u64 = 64 << 10;
        if len.is_none_or(|len| len >= LONG) { Room::Page } else { Room::Short }
    }
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// They aren't of our format.
    Format,
    /// They are too few: the head has this length.
    Short(usize),
    /// The checksum is wrong, or lengths are.
    Sum,
}

impl Entry {
    /// The bytes that begin the file; the body comes after them. None: they are too long, or don't fit into the room.
    pub fn encode(&self, room: Room) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.body_len.to_le_bytes());
        for time in [self.valid, self.while_updating, self.on_error, self.stored_ns as i64, self.born] {
            out.extend_from_slice(&time.to_le_bytes());
        }
        out.extend_from_slice(&self.last_modified.unwrap_or(NO_TIME).to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.variant);
        let fields = u16::try_from(self.head.headers.len()).ok()?;
        for number in [self.head.status, self.head.version, self.flags, fields] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let texts = [&self.key[..], &self.vary, &self.etag, self.head.status_line.of(&self.text)];
        for text in texts {
            out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
        }
        out.extend_from_slice(&[0; 8]);
        debug_assert_eq!(out.len(), FIXED);
        texts.iter().for_each(|text| out.extend_from_slice(text));
        for field in &self.head.headers {
            let (name, value) = (field.name.of(&self.text), field.value.of(&self.text));
            out.extend_from_slice(&u32::try_from(name.len()).ok()?.to_le_bytes());
            out.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        }
        let length = match room {
            Room::Kept(room) => Some(room).filter(|room| *room >= out.len())?,
            Room::Short => (out.len() + SPARE).next_multiple_of(ALIGN),
            Room::Page => (out.len() + SPARE).next_multiple_of(PAGE),
        };
        if length > LONGEST {
            return None;
        }
        out.resize(length, 0);
        out[COVERED..COVERED + 4].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = crc32fast::hash(&out[COVERED..]);
        out[SUM..COVERED].copy_from_slice(&sum.to_le_bytes());
        Some(out)
    }

    /// Reads a head from the bytes that begin a file; gives its length too.
    pub fn decode(bytes: &Bytes) -> Result<(Entry, usize), Damage> {
        let mut fixed = Reader { bytes, at: 0 };
        if fixed.array::<8>() != Some(MAGIC) {
            return Err(Damage::Format);
        }
        let sum = fixed.u32().ok_or(Damage::Short(FIXED))?;
        let length = fixed.u32().ok_or(Damage::Short(FIXED))? as usize;
        if !(FIXED..=LONGEST).contains(&length) {
            return Err(Damage::Sum);
        }
        let covered = bytes.get(COVERED..length).ok_or(Damage::Short(length))?;
        if crc32fast::hash(covered) != sum {
            return Err(Damage::Sum);
        }
        let head = bytes.slice(0..length);
        let entry = Reader { bytes: &head, at: fixed.at }.entry().ok_or(Damage::Sum)?;
        Ok((entry, length))
    }
}

/// Takes numbers and texts one after the other.
struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let part = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*part)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn span(&mut self, length: u32) -> Option<Span> {
        let end = self.at.checked_add(length as usize).filter(|end| *end <= self.bytes.len())?;
        let span = Span::new(self.at, end);
        self.at = end;
        Some(span)
    }

    fn text(&mut self, length: u32) -> Option<Bytes> {
        let span = self.span(length)?;
        Some(self.bytes.slice(span.start as usize..span.end as usize))
    }

    /// All that follows the head's length.
    fn entry(&mut self) -> Option<Entry> {
        let mut entry = Entry {
            body_len: self.u64()?,
            valid: self.i64()?,
            while_updating: self.i64()?,
            on_error: self.i64()?,
            stored_ns: self.u64()?,
            born: self.i64()?,
            last_modified: Some(self.i64()?).filter(|time| *time != NO_TIME),
            generation: self.u64()?,
            variant: self.array()?,
            ..Entry::default()
        };
        (entry.head.status, entry.head.version) = (self.u16()?, self.u16()?);
        entry.flags = self.u16()?;
        let fields = self.u16()?;
        let lengths = [self.u32()?, self.u32()?, self.u32()?, self.u32()?];
        self.array::<8>()?;
        entry.key = self.text(lengths[0])?;
        entry.vary = self.text(lengths[1])?;
        entry.etag = self.text(lengths[2])?;
        entry.head.status_line = self.span(lengths[3])?;
        entry.head.headers.reserve(usize::from(fields));
        for _ in 0..fields {
            let (name, value) = (self.u32()?, self.u32()?);
            let (name, value) = (self.span(name)?, self.span(value)?);
            let known = KnownHeader::of(name.of(self.bytes));
            entry.head.push(HeaderSpan { name, value, known, invalid: false });
        }
        entry.text = self.bytes.clone();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head of these fields.
    fn head(fields: &[(&str, &str)]) -> (ResponseHead, Bytes) {
        let mut text = b"206 Partial Content".to_vec();
        let status_line = Span::new(0, text.len());
        let mut head = ResponseHead::default();
        (head.version, head.status, head.status_line) = (1001, 206, status_line);
        for (name, value) in fields {
            let start = text.len();
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(value.as_bytes());
            let middle = start + name.len();
            let (name, value) = (Span::new(start, middle), Span::new(middle, text.len()));
            head.push(HeaderSpan { name, value, known: KnownHeader::of(name.of(&text)), invalid: false });
        }
        (head, Bytes::from(text))
    }

    fn entry() -> Entry {
        let (head, text) = head(&[("Content-Type", "text/html"), ("X-Empty", "")]);
        Entry {
            valid: 10,
            while_updating: -1,
            on_error: i64::MAX,
            stored_ns: u64::MAX / 3,
            born: 7,
            last_modified: Some(784_111_777),
            body_len: 5,
            generation: 99,
            variant: [7; 16],
            flags: 3,
            key: Bytes::from_static(b"http://a/b?c"),
            vary: Bytes::from_static(b"Accept-Encoding"),
            etag: Bytes::from_static(b"\"x\""),
            head,
            text,
        }
    }

    /// All that an entry says, as text.
    fn shown(entry: &Entry) -> String {
        let field = |span: Span| String::from_utf8_lossy(span.of(&entry.text)).into_owned();
        let fields = entry.head.headers.iter().map(|header| (field(header.name), field(header.value)));
        let fields: Vec<_> = fields.collect();
        let head = (entry.head.status, entry.head.version, field(entry.head.status_line));
        let rest = Entry { head: ResponseHead::default(), text: Bytes::default(), ..entry.clone() };
        format!("{head:?} {fields:?} {rest:?}")
    }

    fn check(bytes: Vec<u8>, expect: &Entry) {
        let length = bytes.len();
        let whole = Bytes::from([&bytes[..], b"the body"].concat());
        let (read, found) = Entry::decode(&whole).expect("it is whole");
        assert_eq!((shown(&read), found), (shown(expect), length));
    }

    #[test]
    fn round_trip() {
        for entry in [entry(), Entry::default(), Entry { last_modified: None, ..entry() }] {
            for (room, multiple) in [(Room::Short, ALIGN), (Room::Page, PAGE)] {
                let bytes = entry.encode(room).expect("short enough");
                assert_eq!(bytes.len() % multiple, 0);
                check(bytes, &entry);
            }
        }
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let bytes = entry().encode(Room::Short).expect("short enough");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Entry::decode(&Bytes::from(damaged)).is_err(), "byte {at}");
        }
        for len in 0..bytes.len() {
            let expect = match len {
                0..8 => Damage::Format,
                8..16 => Damage::Short(FIXED),
                _ => Damage::Short(bytes.len()),
            };
            assert_eq!(Entry::decode(&Bytes::copy_from(&bytes[..len])).err(), Some(expect), "{len} bytes");
        }
    }

    #[test]
    fn long_bodies_begin_with_a_page() {
        assert_eq!([None, Some(65_536), Some(65_535)].map(Room::of_body), [Room::Page, Room::Page, Room::Short]);
    }

    #[test]
    fn a_head_is_replaced_in_its_room() {
        let old = entry().encode(Room::Short).expect("short enough").len();
        let longer = |by: usize| {
            let (head, text) = head(&[("Content-Type", "text/html"), ("X-Empty", &"1".repeat(by))]);
            Entry { head, text, ..entry() }
        };
        check(longer(ALIGN / 2).encode(Room::Kept(old)).expect("it fits"), &longer(ALIGN / 2));
        assert_eq!(longer(2 * ALIGN).encode(Room::Kept(old)), None);
    }
}
