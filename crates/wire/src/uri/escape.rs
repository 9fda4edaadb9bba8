//! Percent escapes, by nginx's kinds.

use buf::hex::value as hex;

/// What is escaped, besides controls and bytes above `~`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A path: ` "#%<>?\^`{|}`.
    Uri,
    /// A query: ` "#%&+;<>?\^`{|}` — a path's, and `&`, `+`, `;`.
    Args,
    /// One component: everything but letters, digits and `-._~`.
    UriComponent,
    /// A URL in a page: ` "#%'<>\^`{|}`.
    Html,
    /// The URL in a page's Refresh: space and `"'<>\^`{|~`, neither `%` nor `#`.
    Refresh,
    /// A key for memcached, or a value for the server of `auth_http`: space and `%`.
    Memcached,
}

impl Escape {
    /// Whether this kind escapes `byte`.
    #[inline]
    pub fn escapes(self, byte: u8) -> bool {
        let row = match self {
            Escape::Uri => &URI,
            Escape::Args => &ARGS,
            Escape::UriComponent => &COMPONENT,
            Escape::Html => &HTML,
            Escape::Refresh => &REFRESH,
            Escape::Memcached => &MEMCACHED,
        };
        row[byte as usize]
    }
}

const fn kind(special: &[u8], from_7f: bool) -> [bool; 256] {
    let mut row = [false; 256];
    let mut i = 0;
    while i < 256 {
        row[i] = i < 0x20 || (from_7f && i >= 0x7f);
        i += 1;
    }
    let mut i = 0;
    while i < special.len() {
        row[special[i] as usize] = true;
        i += 1;
    }
    row
}

const fn component() -> [bool; 256] {
    let mut row = [true; 256];
    let mut i = 0;
    while i < 128 {
        let b = i as u8;
        row[i] = !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
        i += 1;
    }
    row
}

static URI: [bool; 256] = kind(b" \"#%<>?\\^`{|}", true);
static ARGS: [bool; 256] = kind(b" \"#%&+;<>?\\^`{|}", true);
static HTML: [bool; 256] = kind(b" \"#%'<>\\^`{|}", true);
static REFRESH: [bool; 256] = kind(b" \"'<>\\^`{|~", true);
static MEMCACHED: [bool; 256] = kind(b" %", false);
static COMPONENT: [bool; 256] = component();

/// Appends `text` with its escapes to `out`.
pub fn escape(kind: Escape, text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(text.len());
    for &byte in text {
        if kind.escapes(byte) {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

/// How long [`escape`] makes `text`.
pub fn escaped_len(kind: Escape, text: &[u8]) -> usize {
    text.iter().map(|&b| if kind.escapes(b) { 3 } else { 1 }).sum()
}

/// Appends `text` with its escapes decoded to `out`. Of what is no escape nginx leaves this: a `%` without a digit goes,
/// and the byte after it stays as it is; with one digit all goes, the byte after that digit too.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let Some((&first, behind)) = rest.split_first() else { return };
        rest = behind;
        let Some(high) = hex(first) else {
            out.push(first);
            continue;
        };
        let Some((&second, behind)) = rest.split_first() else { return };
        rest = behind;
        if let Some(low) = hex(second) {
            out.push(high << 4 | low);
        }
    }
}

/// Appends `text` as the target of a rewritten redirect: escapes of printable bytes above `%` are decoded, up to the
/// first `?`, decoded or not; the rest stays.
pub fn unescape_redirect(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let digits = (text.get(at + 1).copied().and_then(hex), text.get(at + 2).copied().and_then(hex));
        let (byte, width) = match (byte, digits) {
            (b'%', (Some(high), Some(low))) if (b'&'..0x7f).contains(&(high << 4 | low)) => (high << 4 | low, 3),
            _ => (byte, 1),
        };
        out.push(byte);
        at += width;
        if byte == b'?' {
            break;
        }
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

/// Appends `text` to `out` with `<`, `>`, `&` and `"` as entities.
pub fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'<' | b'>' | b'&' | b'"')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'&' => b"&amp;",
            _ => b"&quot;",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (kind, text, expect) in [
            (Escape::Uri, "/a b?c#d%e+f&g\x7f\u{e9}", "/a%20b%3Fc%23d%25e+f&g%7F%C3%A9"),
            (Escape::Args, "a=b&c+d;e f", "a=b%26c%2Bd%3Be%20f"),
            (Escape::UriComponent, "a/b-._~ :", "a%2Fb-._~%20%3A"),
            (Escape::Refresh, "/!#$%&'x}~", "/!#$%&%27x}%7E"),
            (Escape::Memcached, "a b%\u{e9}", "a%20b%25\u{e9}"),
        ] {
            let mut out = Vec::new();
            escape(kind, text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect);
            assert_eq!(escaped_len(kind, text.as_bytes()), out.len());
            let mut back = Vec::new();
            unescape(&out, &mut back);
            assert!(back == text.as_bytes() || kind == Escape::Refresh);
        }
        let mut out = Vec::new();
        for (text, expect) in [
            ("/%25%41", "/%A"),
            ("/%zzz", "/zzz"),
            ("/%4%41", "/41"),
            ("/%4z1", "/1"),
            ("/%%41", "/%41"),
            ("/a%4/b", "/ab"),
            ("/%/b", "//b"),
            ("/a%", "/a"),
            ("/a%4", "/a"),
            ("/a%%", "/a%"),
        ] {
            out.clear();
            unescape(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expect, "{text}");
        }
        out.clear();
        unescape_redirect(b"/%5C%22%41%26%3F%26%3C%7E%20%25%e9", &mut out);
        assert_eq!(out, b"/\\%22A&?%26%3C%7E%20%25%e9");
        out.clear();
        escape_html(b"<a href=\"x&y\">", &mut out);
        assert_eq!(out, b"&lt;a href=&quot;x&amp;y&quot;&gt;");
    }
}
