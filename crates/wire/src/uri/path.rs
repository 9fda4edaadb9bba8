//! The canonical form of a request path: escapes decoded, `.` and `..` resolved, slashes merged.

use memchr::memchr;

use crate::span::Span;
use buf::hex::value as hex;

/// The path is refused: a bad escape, an escaped NUL, or `..` above the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriError;

/// What [`normalize`] found after the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normalized {
    /// The arguments, as a span of the raw input: after the first `?`, before a `#`.
    pub args: Option<Span>,
}

/// Whether the path of `raw` is its own canonical form and nothing follows it.
pub fn is_simple(raw: &[u8]) -> bool {
    raw.first() == Some(&b'/')
        && !raw.iter().any(|b| matches!(b, b'%' | b'?' | b'#' | 0))
        && !raw.windows(2).any(|w| matches!(w, [b'/', b'/' | b'.']))
}

/// Writes the canonical form of the path of `raw` to `out`, which is emptied first.
///
/// `raw` begins with `/`, or with `?` or nothing where the path of an absolute URI is empty. Bytes decoded from escapes
/// count as the bytes they are, except that `%3F` and `%23` don't end the path.
pub fn normalize(raw: &[u8], merge_slashes: bool, out: &mut Vec<u8>) -> Result<Normalized, UriError> {
    out.clear();
    out.reserve(raw.len().max(1));
    out.push(b'/');
    let mut at = usize::from(raw.first() == Some(&b'/'));
    if at == 0 && !matches!(raw.first(), None | Some(b'?' | b'#')) {
        return Err(UriError);
    }
    let mut segment = 1;
    while let Some(&byte) = raw.get(at) {
        let (byte, width) = match byte {
            b'?' | b'#' => break,
            b'%' => (unquote(raw, at)?, 3),
            byte => (byte, 1),
        };
        at += width;
        match byte {
            0 => return Err(UriError),
            b'/' => segment = end_segment(out, segment, true, merge_slashes)?,
            byte => out.push(byte),
        }
    }
    end_segment(out, segment, false, merge_slashes)?;
    Ok(Normalized { args: args(raw, at) })
}

/// The path's last segment, from `segment` on, is complete; where the next begins.
fn end_segment(out: &mut Vec<u8>, segment: usize, slash: bool, merge_slashes: bool) -> Result<usize, UriError> {
    match out.get(segment..).unwrap_or_default() {
        b"." => out.truncate(segment),
        b".." => {
            // `segment - 1` is the slash before; the one before that ends what is left.
            let before = out.get(..segment - 1).unwrap_or_default();
            let parent = before.iter().rposition(|&b| b == b'/').ok_or(UriError)?;
            out.truncate(parent + 1);
        }
        b"" if merge_slashes => {}
        _ if slash => out.push(b'/'),
        _ => {}
    }
    Ok(out.len())
}

fn unquote(raw: &[u8], at: usize) -> Result<u8, UriError> {
    match (raw.get(at + 1).copied().and_then(hex), raw.get(at + 2).copied().and_then(hex)) {
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err(UriError),
    }
}

fn args(raw: &[u8], at: usize) -> Option<Span> {
    if raw.get(at) != Some(&b'?') {
        return None;
    }
    let rest = raw.get(at + 1..)?;
    let end = memchr(b'#', rest).unwrap_or(rest.len());
    Some(Span::new(at + 1, at + 1 + end))
}

/// Whether a path that is decoded would leave its root, or is one that no file can have.
pub fn is_unsafe(path: &[u8]) -> bool {
    path.is_empty() || path.contains(&0) || path.split(|byte| *byte == b'/').any(|segment| segment == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_paths() {
        for (path, expect) in [
            ("/index.html", false),
            ("", true),
            ("..", true),
            ("../foo", true),
            ("/foo/..", true),
            ("/foo/../bar", true),
            ("/foo..", false),
            ("/a\0", true),
        ] {
            assert_eq!(is_unsafe(path.as_bytes()), expect, "{path}");
        }
    }

    fn show(raw: &str, merge: bool) -> String {
        let mut out = b"old".to_vec();
        match normalize(raw.as_bytes(), merge, &mut out) {
            Err(UriError) => "error".into(),
            Ok(found) => {
                let args =
                    found.args.map_or(String::new(), |s| format!("?{}", String::from_utf8_lossy(s.of(raw.as_bytes()))));
                format!("{}{args}", String::from_utf8_lossy(&out))
            }
        }
    }

    #[test]
    fn paths_as_nginx_has_them() {
        for (raw, expect) in [
            ("/", "/"),
            ("", "/"),
            ("?a", "/?a"),
            ("x", "error"),
            ("/%2e%2e/x", "error"),
            ("/a/%2e%2e/x", "/x"),
            ("/../", "error"),
            ("/a/../..", "error"),
            ("/..", "error"),
            ("/a/.../b", "/a/.../b"),
            ("/a/..b", "/a/..b"),
            ("/a//b///c", "/a/b/c"),
            ("/a%2fb%2F%2Fc", "/a/b/c"),
            ("/a%3fb?c%3fd#e", "/a?b?c%3fd"),
            ("/a%23b#c?d", "/a#b"),
            ("/a+b%2bc", "/a+b+c"),
            ("/%zz", "error"),
            ("/%", "error"),
            ("/a%1", "error"),
            ("/a%?x", "error"),
            ("/%00", "error"),
            ("/a\\b", "/a\\b"),
            ("/a%25%32%30", "/a%20"),
            ("//.//", "/"),
            ("/.%2f..", "error"),
            ("/a/.#x", "/a/"),
            ("/a?b?c", "/a?b?c"),
            ("/a?", "/a?"),
            ("/a?#x", "/a?"),
            ("/a/./b", "/a/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/..%2fb", "/b"),
            ("/a/%2e", "/a/"),
            ("/foo/bar/..", "/foo/"),
            ("/foo/bar/..?args", "/foo/?args"),
            ("/foo/bar/.", "/foo/bar/"),
            ("/foo//../bar", "/bar"),
        ] {
            assert_eq!(show(raw, true), expect, "{raw:?}");
            assert!(!is_simple(raw.as_bytes()) || expect == raw, "{raw:?}");
        }
        assert_eq!(show("/foo//../bar", false), "/foo/bar");
        assert_eq!(show("/foo///../bar", false), "/foo//bar");
    }
}
