//! What each byte may be: one table, one look-up per byte.

/// A letter, digit or `-`: what nginx takes in a header name without remark.
pub(crate) const NAME: u8 = 1;
/// May stand in a method: `A`–`Z`, `_`, `-`.
pub(crate) const METHOD: u8 = 2;
/// Ends the plain run of a path: space, control, `?`, `#`, `%`, `+`, `/`.
pub(crate) const PATH_STOP: u8 = 4;
/// Ends the plain run of a query: space, control, `#`.
pub(crate) const ARGS_STOP: u8 = 8;
/// Never in a header name: controls, space, DEL.
pub(crate) const NAME_BAD: u8 = 16;
/// RFC 3986 unreserved or sub-delims.
pub(crate) const REG_NAME: u8 = 32;
/// May follow the first letter of a scheme.
pub(crate) const SCHEME: u8 = 64;
/// A capital.
pub(crate) const UPPER: u8 = 128;

/// The classes of every byte.
pub(crate) static CLASS: [u8; 256] = table();

/// Whether `byte` has any class of `mask`.
#[inline(always)]
pub(crate) const fn is(byte: u8, mask: u8) -> bool {
    CLASS[byte as usize] & mask != 0
}

const fn table() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = classes(i as u8);
        i += 1;
    }
    table
}

const fn classes(b: u8) -> u8 {
    let mut c = 0;
    if b.is_ascii_alphanumeric() || b == b'-' {
        c |= NAME;
    }
    if b.is_ascii_uppercase() || b == b'_' || b == b'-' {
        c |= METHOD;
    }
    if b <= b' ' || b == 0x7f || matches!(b, b'?' | b'#' | b'%' | b'+' | b'/') {
        c |= PATH_STOP;
    }
    if b <= b' ' || b == 0x7f || b == b'#' {
        c |= ARGS_STOP;
    }
    if b <= b' ' || b == 0x7f {
        c |= NAME_BAD;
    }
    if b.is_ascii_alphanumeric()
        || matches!(b, b'-' | b'.' | b'_' | b'~')
        || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
    {
        c |= REG_NAME;
    }
    if b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.') {
        c |= SCHEME;
    }
    if b.is_ascii_uppercase() {
        c |= UPPER;
    }
    c
}
