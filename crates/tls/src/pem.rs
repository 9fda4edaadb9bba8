//! PEM: the sections of a file, each with its label, headers and bytes (RFC 7468; RFC 1421 for headers).

use base64::Engine as _;

use crate::error::{Error, Result};

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// What stands after BEGIN, such as `CERTIFICATE`.
    pub label: String,
    /// Headers, as older encrypted keys have them: names and values.
    pub headers: Vec<(String, String)>,
    /// The decoded contents.
    pub bytes: Vec<u8>,
}

/// The largest file that is taken for PEM, in bytes.
pub const MAX_SIZE: usize = 16 << 20;

/// All sections of a text. Errors: as [`sections`].
pub fn parse(text: &[u8]) -> Result<Vec<Section>> {
    sections(text).collect()
}

/// The sections of a text, one after the other; what stands between them means nothing, nor does a byte-order mark before
/// them. Errors: a section without its end, broken base64.
pub fn sections(text: &[u8]) -> impl Iterator<Item = Result<Section>> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    std::iter::from_fn(move || {
        let label = lines.find_map(|line| label(line, b"-----BEGIN "))?;
        Some(section(label, &mut lines))
    })
}

/// What follows the first line of a section.
fn section<'a>(label: String, lines: &mut impl Iterator<Item = &'a [u8]>) -> Result<Section> {
    let no_end = || Error::new("error:04800066:PEM routines::bad end line");
    let mut section = Section { label, ..Section::default() };
    let mut base64 = Vec::new();
    loop {
        let line = lines.next().ok_or_else(no_end)?;
        match self::label(line, b"-----END ") {
            Some(end) if end == section.label => break,
            Some(_) => return Err(no_end()),
            None => read_line(line, &mut section, &mut base64),
        }
    }
    section.bytes = base64::engine::general_purpose::STANDARD
        .decode(&base64)
        .map_err(|_| Error::new("error:04800064:PEM routines::bad base64 decode"))?;
    Ok(section)
}

/// What some editors put before a text in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

fn label(line: &[u8], start: &[u8]) -> Option<String> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    String::from_utf8(label.to_vec()).ok()
}

fn read_line(line: &[u8], section: &mut Section, base64: &mut Vec<u8>) {
    let line = line.trim_ascii();
    match line.iter().position(|byte| *byte == b':') {
        Some(at) if base64.is_empty() => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
            section.headers.push((text(&line[..at]), text(&line[at + 1..])));
        }
        _ => base64.extend_from_slice(line),
    }
}

impl Section {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections() {
        let text = b"junk\n-----BEGIN A B-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\n\nAQID\nBA==\n-----END A B-----\n-----BEGIN X-----\n-----END X-----";
        let sections = parse(text).unwrap();
        assert_eq!((sections.len(), sections[0].label.as_str(), &sections[0].bytes[..]), (2, "A B", &[1, 2, 3, 4][..]));
        assert_eq!(sections[0].header("DEK-Info"), Some("AES-128-CBC,00"));
        assert!(parse(b"-----BEGIN A-----\nAQID\n").is_err());
        assert!(parse(b"-----BEGIN A-----\n%\n-----END A-----").is_err());
        assert_eq!(parse(b""), Ok(Vec::new()));
        let text = b"-----BEGIN A-----\nAQID\n-----END A-----\n";
        let one = Ok(vec![Section { label: "A".to_owned(), bytes: vec![1, 2, 3], ..Section::default() }]);
        let crlf = String::from_utf8_lossy(text).replace('\n', " \t\r\n").into_bytes();
        for text in [
            &text[..],
            &[MARK, text].concat(),
            &crlf,
            &[MARK, &crlf].concat(),
            &[text, &b"\0\xff-----BEGIN"[..]].concat(),
        ] {
            assert_eq!(parse(text), one, "{}", text.escape_ascii());
        }
        // A mark has its place, and so have labels.
        for text in [&[b"\n", MARK, text].concat()[..], &[&b" "[..], text].concat(), b"-----BEGIN A----\nx\n"] {
            assert_eq!(parse(text), Ok(Vec::new()), "{}", text.escape_ascii());
        }
        assert!(parse(b"-----BEGIN A-----\nAQID\n-----END B-----").is_err());
        // Who has found what it looks for doesn't mind what follows.
        let mut some = [&text[..], b"-----BEGIN B-----\n%"].concat();
        assert_eq!(
            super::sections(&some).next().map(|section| section.map(|section| section.label)),
            Some(Ok("A".to_owned()))
        );
        some.truncate(3);
        assert_eq!(super::sections(&some).count(), 0);
    }
}
