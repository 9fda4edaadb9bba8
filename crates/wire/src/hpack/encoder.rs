//! Fields to header blocks.

use buf::Buf;
use smallvec::SmallVec;

use super::statics::{self, Found, STATIC_LEN};
use super::table::Table;
use super::traits::Traits;
use super::{DEFAULT_TABLE_SIZE, encode_integer, huffman, lately};
use crate::h1::KnownHeader;

/// Whether a field may enter the dynamic table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Indexing {
    /// It enters: for what comes again, as Server or Content-Type.
    Incremental,
    /// It doesn't: for what differs each time, as Date or Content-Length.
    #[default]
    Without,
    /// It doesn't, and nobody who forwards it may let it: for secrets (RFC 7541 §7.1.3).
    Never,
}

/// Writes header blocks, in the order in which the peer will read them.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// The smallest table size since the last block, if the peer must be told of a change.
    smallest: Option<u32>,
    /// Numbers of the entries that fields of known names had last, each at the place that its name says: most have the
    /// same value in the next block.
    last: [u32; LAST],
}

/// For how many names the last entry is remembered.
const LAST: usize = 4;

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder::new()
    }
}

impl Encoder {
    /// An encoder for a peer that allows a table of [`DEFAULT_TABLE_SIZE`].
    pub fn new() -> Encoder {
        Encoder { table: Table::new(), smallest: None, last: [0; LAST] }
    }

    /// The peer allows a table of this size (SETTINGS_HEADER_TABLE_SIZE). More than [`DEFAULT_TABLE_SIZE`] isn't used.
    pub fn set_max_size(&mut self, size: u32) {
        let size = size.min(DEFAULT_TABLE_SIZE) as usize;
        if size != self.table.max_size() {
            self.table.set_max_size(size);
            let size = size as u32;
            self.smallest = Some(self.smallest.map_or(size, |smallest| smallest.min(size)));
        }
    }

    /// Starts a block: announces changes of the table's size (RFC 7541 §4.2).
    pub fn begin(&mut self, out: &mut Buf) {
        if let Some(smallest) = self.smallest.take() {
            let size = self.table.max_size() as u32;
            if smallest < size {
                encode_integer(out, 0x20, 5, smallest);
            }
            encode_integer(out, 0x20, 5, size);
        }
    }

    /// Writes a field; capitals of its name become small letters.
    pub fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Buf) {
        if name.iter().any(u8::is_ascii_uppercase) {
            let lower: SmallVec<[u8; 64]> = name.iter().map(u8::to_ascii_lowercase).collect();
            self.lower(&lower, value, indexing, out);
        } else {
            self.lower(name, value, indexing, out);
        }
    }

    /// As [`Encoder::field`], for a known name, which isn't searched for.
    pub fn known(&mut self, known: KnownHeader, value: &[u8], indexing: Indexing, out: &mut Buf) {
        let (name, index) = (known.name().as_bytes(), statics::of_known(known));
        if index == 0 {
            return self.lower(name, value, indexing, out);
        }
        if indexing == Indexing::Incremental {
            let last = &mut self.last[known as usize % LAST];
            if let Some(at) = self.table.find_exact(name, value, *last) {
                *last = self.table.number(at);
                return encode_integer(out, 0x80, 7, (at + STATIC_LEN + 1) as u32);
            }
            self.table.insert(name, value, Traits::UNKNOWN);
            *last = self.table.number(0);
        }
        begin_literal(index, indexing, out);
        if indexing == Indexing::Never || !is_common(known) || !write_lately(value, out) {
            string(value, out);
        }
    }

    /// `:status` of a response.
    pub fn status(&mut self, status: u16, out: &mut Buf) {
        match STATUSES.iter().position(|known| *known == status) {
            Some(at) => encode_integer(out, 0x80, 7, (STATUS + at) as u32),
            None => {
                let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
                literal(STATUS, b":status", &digits, Indexing::Without, out);
            }
        }
    }

    /// What the dynamic table counts, in bytes: for tests and statistics.
    pub fn table_size(&self) -> usize {
        self.table.size()
    }

    fn lower(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Buf) {
        let index = match (statics::find(name, value), indexing) {
            // Naming an exact entry would not tell the next hop that it is a secret.
            (Found::Exact(index) | Found::Name(index), Indexing::Never) => index,
            (Found::Nothing, Indexing::Never) => 0,
            (Found::Exact(index), _) => return encode_integer(out, 0x80, 7, index as u32),
            // What doesn't enter the dynamic table isn't there.
            (Found::Name(index), Indexing::Without) => index,
            (Found::Nothing, Indexing::Without) => 0,
            (found, _) => match (self.table.find(name, value), found) {
                (Found::Exact(index), _) => return encode_integer(out, 0x80, 7, (index + STATIC_LEN + 1) as u32),
                (_, Found::Name(index)) => index,
                (Found::Name(index), _) => index + STATIC_LEN + 1,
                _ => 0,
            },
        };
        literal(index, name, value, indexing, out);
        if indexing == Indexing::Incremental {
            self.table.insert(name, value, Traits::UNKNOWN);
        }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        self.table.check_invariants();
    }
}

/// The static table's first entry for a status, and the statuses that it has from there on.
const STATUS: usize = 8;
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// Writes a field without the dynamic table and without Huffman's code: what is written so can be sent on any connection,
/// and costs a copy. Capitals of the name become small letters.
pub fn write_plain(name: &[u8], value: &[u8], out: &mut Buf) {
    let index = match statics::find(name, value) {
        Found::Exact(index) => return encode_integer(out, 0x80, 7, index as u32),
        Found::Name(index) => index,
        Found::Nothing => 0,
    };
    encode_integer(out, 0, 4, index as u32);
    if index == 0 {
        encode_integer(out, 0, 7, name.len() as u32);
        let start = out.len();
        out.extend_from_slice(name);
        out.as_mut_slice()[start..].make_ascii_lowercase();
    }
    encode_integer(out, 0, 7, value.len() as u32);
    out.extend_from_slice(value);
}

/// Whether values of a field are the same in many responses, and no secrets.
fn is_common(known: KnownHeader) -> bool {
    matches!(
        known,
        KnownHeader::Date
            | KnownHeader::LastModified
            | KnownHeader::ETag
            | KnownHeader::Expires
            | KnownHeader::CacheControl
            | KnownHeader::ContentType
            | KnownHeader::ContentRange
    )
}

/// Writes a value whose code is remembered; false if it can't be.
fn write_lately(value: &[u8], out: &mut Buf) -> bool {
    lately::with_code(value, |code| {
        encode_integer(out, if code.is_some() { 0x80 } else { 0 }, 7, code.unwrap_or(value).len() as u32);
        out.extend_from_slice(code.unwrap_or(value));
    })
}

fn begin_literal(index: usize, indexing: Indexing, out: &mut Buf) {
    let (first, prefix) = match indexing {
        Indexing::Incremental => (0x40, 6),
        Indexing::Without => (0x00, 4),
        Indexing::Never => (0x10, 4),
    };
    encode_integer(out, first, prefix, index as u32);
}

/// A literal with a name by index, or in full where that is 0.
fn literal(index: usize, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Buf) {
    begin_literal(index, indexing, out);
    if index == 0 {
        string(name, out);
    }
    string(value, out);
}

/// A string in the shorter of its two forms.
fn string(text: &[u8], out: &mut Buf) {
    let encoded = huffman::encoded_len(text);
    if encoded < text.len() {
        encode_integer(out, 0x80, 7, encoded as u32);
        huffman::encode(text, encoded, out);
    } else {
        encode_integer(out, 0, 7, text.len() as u32);
        out.extend_from_slice(text);
    }
}
