//! Header lines: one line, or a block of them.
//!
//! nginx's reading of RFC 9112 §5: no folding, no space before the colon, a line may end in LF alone, carriage returns
//! before the LF are dropped, spaces (not tabs) around a value are dropped, NUL is refused everywhere. A line without a
//! colon is a name with an empty value.

use super::known::KnownHeader;
use crate::class::{NAME, NAME_BAD, is};
use crate::span::Span;
use crate::swar::{find_control, find_name_end, is_usual_name};

/// One header line of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderSpan {
    /// The name as sent.
    pub name: Span,
    /// The value without surrounding spaces.
    pub value: Span,
    /// The name, if it is one that has a meaning.
    pub known: KnownHeader,
    /// Whether the name has bytes other than letters, digits and `-` (and `_`, where that is allowed).
    pub invalid: bool,
}

/// Why a block of header lines was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsError {
    /// The line holds a byte that it must not hold, or is folded: its bytes before, and the byte.
    Invalid {
        /// The line up to the offending byte.
        line: Span,
        /// The offending byte.
        byte: u8,
    },
    /// There are more lines than allowed.
    TooMany,
    /// The block has no empty line at its end.
    Incomplete,
}

/// What one step over the input found.
pub(super) enum Line {
    /// The line isn't complete.
    Partial,
    /// The empty line that ends a head; offset after it.
    End(usize),
    /// A header line; offset after it.
    Field(HeaderSpan, usize),
}

/// Parses a complete block of header lines with its empty line, such as trailers or the head of a part.
///
/// Spans are offsets in `block`. `underscores` says whether `_` in a name is as good as a letter.
pub fn parse_fields(block: &[u8], underscores: bool, max: usize) -> Result<Vec<HeaderSpan>, FieldsError> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        match parse_line(block, at, underscores)? {
            Line::Partial => return Err(FieldsError::Incomplete),
            Line::End(_) => return Ok(fields),
            Line::Field(..) if fields.len() >= max => return Err(FieldsError::TooMany),
            Line::Field(field, next) => {
                fields.push(field);
                at = next;
            }
        }
    }
}

/// Parses the line of `buf` that begins at `start`. It is a part of its callers' loops: to hand on what it found would cost as
/// much as to find it.
#[inline(always)]
pub(super) fn parse_line(buf: &[u8], start: usize, underscores: bool) -> Result<Line, FieldsError> {
    if matches!(buf.get(start), Some(b'\r' | b'\n')) {
        return end_of_head(buf, start);
    }
    let Some(stop) = find_name_end(buf, start) else { return odd_name(buf, start, underscores) };
    if let Some((b':', name)) = buf.get(start..=stop).and_then(<[u8]>::split_last)
        && !name.is_empty()
    {
        let known = KnownHeader::find(name);
        // A known name has no unusual bytes.
        if known != KnownHeader::Other || is_usual_name(name) {
            return value(buf, Span::new(start, stop), known, false);
        }
    }
    odd_name(buf, start, underscores)
}

/// The part after the colon at the end of `name`.
#[inline(always)]
fn value(buf: &[u8], name: Span, known: KnownHeader, invalid: bool) -> Result<Line, FieldsError> {
    let mut from = name.end as usize + 1;
    while buf.get(from) == Some(&b' ') {
        from += 1;
    }
    let mut at = from;
    let (mut end, next) = loop {
        let Some(stop) = find_control(buf, at) else { return Ok(Line::Partial) };
        match (buf.get(stop), buf.get(stop + 1)) {
            (Some(b'\r'), Some(b'\n')) => break (stop, stop + 2),
            (Some(b'\n'), _) => break (stop, stop + 1),
            (Some(b'\r' | 0), _) => match line_end(buf, name.start as usize, stop)? {
                None => return Ok(Line::Partial),
                Some(next) => break (stop, next),
            },
            _ => at = stop + 1,
        }
    };
    while end > from && buf.get(end - 1) == Some(&b' ') {
        end -= 1;
    }
    Ok(Line::Field(HeaderSpan { name, value: Span::new(from, end), known, invalid }, next))
}

/// Steps over the carriage returns and the LF at `at`; `None` if the LF hasn't come yet.
#[inline]
fn line_end(buf: &[u8], start: usize, at: usize) -> Result<Option<usize>, FieldsError> {
    let mut p = at;
    loop {
        match buf.get(p) {
            None => return Ok(None),
            Some(b'\n') => return Ok(Some(p + 1)),
            Some(b'\r') => p += 1,
            Some(_) => return Err(invalid(buf, start, at)),
        }
    }
}

/// A name with unusual bytes, or a line without a colon.
#[cold]
fn odd_name(buf: &[u8], start: usize, underscores: bool) -> Result<Line, FieldsError> {
    let mut odd = false;
    let mut p = start;
    while let Some(&byte) = buf.get(p) {
        match byte {
            b'\n' | b'\r' => {
                let Some(next) = line_end(buf, start, p)? else { return Ok(Line::Partial) };
                let name = Span::new(start, p);
                let known = KnownHeader::of(name.of(buf));
                return Ok(Line::Field(HeaderSpan { name, value: Span::new(p, p), known, invalid: odd }, next));
            }
            b':' if p == start => return Err(invalid(buf, start, p)),
            b':' => return value(buf, Span::new(start, p), KnownHeader::of(Span::new(start, p).of(buf)), odd),
            b'_' if underscores => {}
            b if is(b, NAME_BAD) => return Err(invalid(buf, start, p)),
            b if !is(b, NAME) => odd = true,
            _ => {}
        }
        p += 1;
    }
    Ok(Line::Partial)
}

fn end_of_head(buf: &[u8], start: usize) -> Result<Line, FieldsError> {
    Ok(strict_line_end(buf, start, start)?.map_or(Line::Partial, Line::End))
}

/// LF or CRLF at `at`, nothing else.
fn strict_line_end(buf: &[u8], start: usize, at: usize) -> Result<Option<usize>, FieldsError> {
    match (buf.get(at), buf.get(at + 1)) {
        (Some(b'\n'), _) => Ok(Some(at + 1)),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r'), None) | (None, _) => Ok(None),
        _ => Err(invalid(buf, start, at)),
    }
}

fn invalid(buf: &[u8], start: usize, at: usize) -> FieldsError {
    FieldsError::Invalid { line: Span::new(start, at), byte: buf.get(at).copied().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(block: &[u8]) -> String {
        match parse_fields(block, false, 100) {
            Err(FieldsError::Invalid { line, byte }) => {
                format!("{}\\x{byte:02x}", String::from_utf8_lossy(line.of(block)))
            }
            Err(other) => format!("{other:?}"),
            Ok(fields) => fields
                .iter()
                .map(|f| {
                    let mark = if f.invalid { "!" } else { "" };
                    let text = |s: Span| String::from_utf8_lossy(s.of(block)).into_owned();
                    format!("{mark}{}=[{}]", text(f.name), text(f.value))
                })
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    #[test]
    fn lines_are_read_as_nginx_reads_them() {
        for (line, expect) in [
            ("X-Foo:b", "X-Foo=[b]"),
            ("X-Foo:   b  \t ", "X-Foo=[b  \t]"),
            ("X-Foo:\tb", "X-Foo=[\tb]"),
            ("X-Foo : b", "X-Foo\\x20"),
            ("X-Foo\t: b", "X-Foo\\x09"),
            ("X-Foo", "X-Foo=[]"),
            ("X-Foo\r\r", "X-Foo=[]"),
            ("X-Foo ", "X-Foo\\x20"),
            (" X-Foo: b", "\\x20"),
            ("X-Foo: a\r\n b", "\\x20"),
            (": b", "\\x3a"),
            ("X_Foo: b", "!X_Foo=[b]"),
            ("X.Foo: b", "!X.Foo=[b]"),
            ("X-Foo: a\0b", "X-Foo: a\\x00"),
            ("X-Foo: a\x01b\x7f", "X-Foo=[a\x01b\x7f]"),
            ("X-F\x7fo: b", "X-F\\x7f"),
            ("X-Foo: a\rb", "X-Foo: a\\x0d"),
            ("X-Foo: a\r\r\nA: b", "X-Foo=[a] A=[b]"),
            ("X-F\roo: b", "X-F\\x0d"),
            ("X-Foo:", "X-Foo=[]"),
            ("X-Foo: \r", "X-Foo=[]"),
            ("X(F: b", "!X(F=[b]"),
            ("-: b", "-=[b]"),
            ("\rX: b", "\\x0d"),
            ("A: a\nB: b", "A=[a] B=[b]"),
        ] {
            assert_eq!(show(format!("{line}\r\n\r\n").as_bytes()), expect, "{line:?}");
        }
        assert_eq!(show(b"A: b\r\n"), "Incomplete");
    }
}
