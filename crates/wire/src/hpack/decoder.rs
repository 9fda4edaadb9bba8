//! Header blocks to fields.

use buf::Buf;

use super::huffman;
use super::integer::{IntegerError, decode_integer};
use super::statics::{self, STATIC_LEN};
use super::table::Table;
use super::traits::Traits;
use crate::span::Span;

/// One field of a header block; the spans are offsets in the text that the decoder appends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as sent.
    pub name: Span,
    /// The value as sent.
    pub value: Span,
    /// The peer asks that it never be indexed (RFC 7541 §7.1.3); whoever forwards it over HTTP/2 keeps that.
    pub never_indexed: bool,
    /// What is known of it from the tables.
    pub traits: Traits,
}

/// How large fields may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLimits {
    /// The most bytes of a name, and of a value; encoded ones may not take more either.
    pub field: usize,
    /// The most bytes that the text may hold after a field.
    pub text: usize,
}

/// Why a header block can't be decoded. The tables of both sides then differ: the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// An index that neither table has.
    Index,
    /// An integer beyond every bound.
    Integer,
    /// A string's Huffman code is wrong.
    Huffman,
    /// A table size above the one that was allowed, or not at the start of the block.
    TableSize,
    /// The block ends inside a field.
    Truncated,
    /// A name or value is longer than allowed.
    FieldTooLarge,
    /// All fields together are larger than allowed.
    ListTooLarge,
}

/// Reads header blocks, in the order in which the peer wrote them.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The largest table that the peer was allowed.
    allowed: u32,
    /// No field of the block has been read: table sizes may come.
    at_start: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder with an empty table of [`super::DEFAULT_TABLE_SIZE`].
    pub fn new() -> Decoder {
        Decoder::with_table(super::DEFAULT_TABLE_SIZE)
    }

    /// A decoder for a peer that was told this SETTINGS_HEADER_TABLE_SIZE, no more than the default.
    pub fn with_table(allowed: u32) -> Decoder {
        let mut table = Table::new();
        table.set_max_size(allowed as usize);
        Decoder { table, allowed, at_start: true }
    }

    /// The next header block begins.
    pub fn begin(&mut self) {
        self.at_start = true;
    }

    /// Reads the next field of `block` and appends its name and value to `text`; moves `block` past what was read.
    ///
    /// `Ok(None)`: what is left of the block (nothing, or a part of a field) must be presented again with more bytes
    /// after it. The caller knows where the block ends, and that what is left then is [`DecodeError::Truncated`].
    pub fn next(
        &mut self,
        block: &mut &[u8],
        text: &mut Buf,
        limits: FieldLimits,
    ) -> Result<Option<Field>, DecodeError> {
        loop {
            let Some(&first) = block.first() else { return Ok(None) };
            if first & 0xe0 != 0x20 {
                break;
            }
            let Some((size, used)) = integer(block, 5)? else { return Ok(None) };
            self.resize(size)?;
            *block = &block[used..];
        }
        let before = text.len();
        match self.field(block, text, limits) {
            Ok(Some((field, used))) => {
                self.at_start = false;
                *block = &block[used..];
                Ok(Some(field))
            }
            // What was appended of a field that isn't complete is never named by a span; the next one follows it.
            Ok(None) => {
                debug_assert_eq!(text.len(), before);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the dynamic table counts, in bytes: for tests and statistics.
    pub fn table_size(&self) -> usize {
        self.table.size()
    }

    fn resize(&mut self, size: usize) -> Result<(), DecodeError> {
        if !self.at_start || size > self.allowed as usize {
            return Err(DecodeError::TableSize);
        }
        self.table.set_max_size(size);
        Ok(())
    }

    fn field(
        &mut self,
        block: &[u8],
        text: &mut Buf,
        limits: FieldLimits,
    ) -> Result<Option<(Field, usize)>, DecodeError> {
        let first = block.first().copied().unwrap_or(0);
        if first & 0x80 != 0 {
            return self.indexed(block, text, limits);
        }
        let incremental = first & 0x40 != 0;
        let Some((index, mut at)) = integer(block, if incremental { 6 } else { 4 })? else { return Ok(None) };
        let name = if index == 0 {
            let Some(name) = Text::read(block, at, limits)? else { return Ok(None) };
            at = name.end;
            Some(name)
        } else {
            None
        };
        let Some(value) = Text::read(block, at, limits)? else { return Ok(None) };
        let start = text.len();
        match &name {
            Some(name) => name.append(text, limits)?,
            None => text.extend_from_slice(self.entry(index)?.0),
        }
        let middle = text.len();
        value.append(text, limits)?;
        let mut field = Field {
            name: Span::new(start, middle),
            value: Span::new(middle, text.len()),
            never_indexed: first & 0xf0 == 0x10,
            traits: Traits::UNKNOWN,
        };
        check(text, limits)?;
        if incremental {
            let (name, value) = (field.name.of(text), field.value.of(text));
            field.traits = Traits::of(name, value);
            self.table.insert(name, value, field.traits);
        }
        Ok(Some((field, value.end)))
    }

    fn indexed(
        &self,
        block: &[u8],
        text: &mut Buf,
        limits: FieldLimits,
    ) -> Result<Option<(Field, usize)>, DecodeError> {
        let Some((index, used)) = integer(block, 7)? else { return Ok(None) };
        let (name, value) = self.entry(index)?;
        let start = text.len();
        let middle = start + name.len();
        if middle + value.len() > limits.text {
            return Err(DecodeError::ListTooLarge);
        }
        text.extend_from_slice(name);
        text.extend_from_slice(value);
        let (name, value) = (Span::new(start, middle), Span::new(middle, text.len()));
        let traits = match index.checked_sub(STATIC_LEN + 1) {
            None => statics::traits(index),
            Some(at) => self.table.traits(at),
        };
        Ok(Some((Field { name, value, never_indexed: false, traits }, used)))
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
        if index <= STATIC_LEN {
            return statics::entry(index).ok_or(DecodeError::Index);
        }
        self.table.get(index - STATIC_LEN - 1).ok_or(DecodeError::Index)
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        self.table.check_invariants();
    }
}

/// A string literal that is there as a whole.
struct Text<'a> {
    bytes: &'a [u8],
    huffman: bool,
    /// Offset after it.
    end: usize,
}

impl<'a> Text<'a> {
    #[inline]
    fn read(block: &'a [u8], at: usize, limits: FieldLimits) -> Result<Option<Text<'a>>, DecodeError> {
        let rest = block.get(at..).unwrap_or_default();
        let Some((len, used)) = integer(rest, 7)? else { return Ok(None) };
        if len > limits.field {
            return Err(DecodeError::FieldTooLarge);
        }
        let Some(bytes) = rest.get(used..used + len) else { return Ok(None) };
        Ok(Some(Text { bytes, huffman: rest[0] & 0x80 != 0, end: at + used + len }))
    }

    #[inline]
    fn append(&self, text: &mut Buf, limits: FieldLimits) -> Result<(), DecodeError> {
        if !self.huffman {
            text.extend_from_slice(self.bytes);
            return Ok(());
        }
        let before = text.len();
        huffman::decode(self.bytes, text).map_err(|_| DecodeError::Huffman)?;
        if text.len() - before > limits.field { Err(DecodeError::FieldTooLarge) } else { Ok(()) }
    }
}

/// An integer of the block; `None` where more bytes are needed.
#[inline]
fn integer(block: &[u8], prefix: u32) -> Result<Option<(usize, usize)>, DecodeError> {
    match decode_integer(block, prefix) {
        Ok((value, used)) => Ok(Some((value as usize, used))),
        Err(IntegerError::Truncated) => Ok(None),
        Err(IntegerError::TooLong) => Err(DecodeError::Integer),
    }
}

fn check(text: &Buf, limits: FieldLimits) -> Result<(), DecodeError> {
    if text.len() > limits.text { Err(DecodeError::ListTooLarge) } else { Ok(()) }
}
