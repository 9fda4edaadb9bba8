//! PEM: the sections of a file, each with its label, headers and bytes (RFC 7468; RFC 1421 for headers).

use base64::Engine as _;

use crate::error::{Error, Result};

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// What stands behind BEGIN, such as `CERTIFICATE`.
    pub label: String,
    /// Headers, as older encrypted keys have them: names and values.
    pub headers: Vec<(String, String)>,
    /// The decoded contents.
    pub bytes: Vec<u8>,
}

/// The largest file that is taken for PEM, in bytes.
pub const MAX_SIZE: usize = 16 << 20;

/// All sections of a text; what stands between them means nothing. Errors: a section without end, broken base64.
pub fn parse(text: &[u8]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    while let Some(line) = lines.next() {
        let Some(label) = label(line, b"-----BEGIN ") else { continue };
        let mut section = Section { label, ..Section::default() };
        let mut base64 = Vec::new();
        loop {
            let line = lines.next().ok_or_else(|| Error::new("error:04800066:PEM routines::bad end line"))?;
            if self::label(line, b"-----END ").is_some() {
                break;
            }
            read_line(line, &mut section, &mut base64);
        }
        section.bytes = base64::engine::general_purpose::STANDARD
            .decode(&base64)
            .map_err(|_| Error::new("error:04800064:PEM routines::bad base64 decode"))?;
        sections.push(section);
    }
    Ok(sections)
}

fn label(line: &[u8], start: &[u8]) -> Option<String> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    String::from_utf8(label.to_vec()).ok()
}

fn read_line(line: &[u8], section: &mut Section, base64: &mut Vec<u8>) {
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
    }
}
