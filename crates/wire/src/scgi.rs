//! SCGI: a request is a netstring of headers, each a name and a value that NUL ends, and the body as it is. Responses are
//! those of CGI.

use buf::Buf;
use buf::number::digits;

/// Appends a header to a block. A NUL ends the name and the value: what follows it would be read as further headers, and is
/// left out.
pub fn header(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    for part in [name, value] {
        let end = memchr::memchr(0, part).unwrap_or(part.len());
        block.extend_from_slice(part.get(..end).unwrap_or_default());
        block.push(0);
    }
}

/// Appends a block of headers as a netstring. Its first header is `CONTENT_LENGTH`, which gives the length of the body.
pub fn headers(body: u64, block: &[u8], out: &mut Buf) {
    let (mut memory, mut first) = ([0; 20], Vec::with_capacity(40));
    header(b"CONTENT_LENGTH", digits(body, &mut memory), &mut first);
    out.extend_from_slice(digits((first.len() + block.len()) as u64, &mut memory));
    for part in [b":", &first[..], block, b","] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let mut block = Vec::new();
        header(b"SCGI", b"1", &mut block);
        header(b"E", b"", &mut block);
        header(b"U", b"a\0B\0c", &mut block);
        let mut out = Buf::empty();
        headers(27, &block, &mut out);
        assert_eq!(out[..], *b"32:CONTENT_LENGTH\x0027\0SCGI\x001\0E\0\0U\0a\0,");
        let mut out = Buf::empty();
        headers(0, b"", &mut out);
        assert_eq!(out[..], *b"17:CONTENT_LENGTH\x000\0,");
    }
}
