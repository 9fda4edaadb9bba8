//! Bytes to words, semicolons and braces.
//!
//! The rules are nginx's: a word ends at white space, `;` or `{`; braces right after `$` belong to the word; `}` and
//! quotes inside a word are ordinary. A word that begins with a quote ends with the same quote, and white space, `;`,
//! `{` or `)` has to follow. A backslash protects the next character; `\"`, `\'`, `\\`, `\t`, `\r` and `\n` become that
//! character, before all others the backslash stays. nginx also refuses comments of more than 4095 bytes; we don't.

use crate::{Error, FileId, Span, Word};

/// The longest word, as nginx's buffer of 4096 bytes has it: with the bytes that end it, it has to fit in there.
const WORD_ROOM: usize = 4096;

/// What the lexer finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A name or an argument.
    Word(Word),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
    /// The end of the text; with the place of a quote that isn't closed, if there is one.
    Eof(Option<Span>),
}

/// Splits one text.
pub(crate) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    file: FileId,
    /// 0 in a text without lines: the command line.
    line: u32,
    after_quote: bool,
}

impl<'t> Lexer<'t> {
    /// A lexer at the start of `text`. Lines are counted from 1, or not at all.
    pub(crate) fn new(text: &'t [u8], file: FileId, has_lines: bool) -> Lexer<'t> {
        Lexer { text, at: 0, file, line: u32::from(has_lines), after_quote: false }
    }

    /// A span that starts at `start` and ends here, with the line of this place.
    pub(crate) fn span_from(&self, start: usize) -> Span {
        self.span(start, self.at, self.line)
    }

    /// The span of the last byte that was read: the token's, if it was `;`, `{` or `}`.
    pub(crate) fn last(&self) -> Span {
        self.span_from(self.at.saturating_sub(1))
    }

    /// The next token; after an error the lexer goes on after it.
    pub(crate) fn next(&mut self) -> Result<Token, Error> {
        if std::mem::take(&mut self.after_quote) {
            self.check_end_of_quoted()?;
        }
        self.skip_blank();
        let Some(&byte) = self.text.get(self.at) else { return Ok(Token::Eof(None)) };
        let token = match byte {
            b';' => Token::End,
            b'{' => Token::Open,
            b'}' => Token::Close,
            b'"' | b'\'' => return self.quoted(byte),
            _ => return self.bare(),
        };
        self.at += 1;
        Ok(token)
    }

    fn check_end_of_quoted(&self) -> Result<(), Error> {
        match self.text.get(self.at) {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => Ok(()),
            Some(&byte) => {
                let span = self.span(self.at, self.at + 1, self.line);
                let error = Error::place(span, format!("unexpected \"{}\"", lossy(&[byte])));
                Err(error.hint("after a closing quote there has to be white space, \";\" or \"{\""))
            }
        }
    }

    fn skip_blank(&mut self) {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\n' => self.newline(),
                b' ' | b'\t' | b'\r' => {}
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    fn newline(&mut self) {
        self.line += u32::from(self.line > 0);
    }

    fn bare(&mut self) -> Result<Token, Error> {
        let (start, line) = (self.at, self.line);
        let mut escaped = false;
        while let Some(&byte) = self.text.get(self.at) {
            if !STOPS[usize::from(byte)] {
                self.at += 1;
                continue;
            }
            match byte {
                b'\\' => {
                    escaped = true;
                    self.skip_escape();
                }
                b'$' => self.skip_dollar(),
                _ => break,
            }
        }
        let span = self.span(start, self.at, line);
        let raw = &self.text[start..self.at];
        if raw.len() + 1 > WORD_ROOM {
            return Err(too_long(raw, span));
        }
        Ok(Token::Word(Word { text: unescape(raw, escaped), span, quoted: false }))
    }

    fn quoted(&mut self, quote: u8) -> Result<Token, Error> {
        let (start, line) = (self.at, self.line);
        let mut escaped = false;
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(n) = memchr::memchr3(quote, b'\\', b'\n', rest) else {
                return self.unclosed(quote, start, line);
            };
            self.at += n;
            match rest[n] {
                b'\\' => {
                    escaped = true;
                    self.skip_escape();
                }
                b'\n' => {
                    self.newline();
                    self.at += 1;
                }
                _ => break,
            }
        }
        let raw = &self.text[start + 1..self.at];
        self.at += 1;
        self.after_quote = true;
        let span = self.span(start, self.at, line);
        match raw.len() {
            n if n >= WORD_ROOM => Err(missing_quote(quote, span)),
            n if n + 2 > WORD_ROOM => Err(too_long(raw, span)),
            _ => Ok(Token::Word(Word { text: unescape(raw, escaped), span, quoted: true })),
        }
    }

    fn unclosed(&mut self, quote: u8, start: usize, line: u32) -> Result<Token, Error> {
        self.at = self.text.len();
        let span = self.span(start, start + 1, line);
        if self.at - start > WORD_ROOM { Err(missing_quote(quote, span)) } else { Ok(Token::Eof(Some(span))) }
    }

    /// Passes a backslash and the character that it protects.
    fn skip_escape(&mut self) {
        if self.text.get(self.at + 1) == Some(&b'\n') {
            self.newline();
        }
        self.at = (self.at + 2).min(self.text.len());
    }

    /// Passes a dollar and the braces that belong to it.
    fn skip_dollar(&mut self) {
        self.at += 1;
        while self.text.get(self.at) == Some(&b'{') {
            self.at += 1;
        }
    }

    fn span(&self, start: usize, end: usize, line: u32) -> Span {
        // Texts are shorter than 4 GiB: `parse` sees to it.
        Span { file: self.file, line, start: start as u32, end: end as u32 }
    }
}

/// The bytes at which the scan of a bare word has to look.
const STOPS: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b" \t\r\n;{\\$";
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] = true;
        i += 1;
    }
    table
};

fn unescape(raw: &[u8], escaped: bool) -> Vec<u8> {
    if escaped { buf::escape::unescape_conf(raw) } else { raw.to_vec() }
}

fn too_long(raw: &[u8], span: Span) -> Error {
    Error::place(span, format!("too long parameter \"{}...\" started", lossy(&raw[..raw.len().min(10)])))
        .hint("a word has at most 4095 bytes")
}

fn missing_quote(quote: u8, span: Span) -> Error {
    let message = match quote {
        b'"' => "too long parameter, probably missing terminating \"\"\" character",
        _ => "too long parameter, probably missing terminating \"'\" character",
    };
    Error::place(span, message).hint("a quote is opened here; a word has at most 4095 bytes")
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as they are, the rest as its character, errors as `!message`.
    fn check(text: &str, expect: &[&str]) {
        let mut lexer = Lexer::new(text.as_bytes(), FileId(0), true);
        let mut found = Vec::new();
        loop {
            found.push(match lexer.next() {
                Ok(Token::Word(word)) => String::from_utf8(word.text).expect("the tests are text"),
                Ok(Token::End) => ";".into(),
                Ok(Token::Open) => "{".into(),
                Ok(Token::Close) => "}".into(),
                Ok(Token::Eof(None)) => break,
                Ok(Token::Eof(Some(_))) => "!open quote".into(),
                Err(error) => format!("!{}", error.message),
            });
            if found.last().is_some_and(|last| last == "!open quote") {
                break;
            }
        }
        assert_eq!(found, expect, "{text:?}");
    }

    #[test]
    fn words() {
        check("", &[]);
        check(" \t\r\n# x { ; }\n#", &[]);
        check("a b;c{}", &["a", "b", ";", "c", "{", "}"]);
        check("a};b}{", &["a}", ";", "b}", "{"]);
        check("a#b \"#c\" #d", &["a#b", "#c"]);
        check("a\"b'c", &["a\"b'c"]);
        check("a\u{b}b", &["a\u{b}b"]);
    }

    #[test]
    fn variables() {
        check("a${b}c;", &["a${b}c", ";"]);
        check("$${b}{", &["$${b}", "{"]);
        check("a$ {", &["a$", "{"]);
        check("$\"{b}", &["$\"", "{", "b}"]);
        check("${{b{", &["${{b", "{"]);
        check(r"$\{{", &[r"$\{", "{"]);
        check("a${b {", &["a${b", "{"]);
        check(r"\${b", &["\\$", "{", "b"]);
        check(r"a\\${b", &["a\\${b"]);
    }

    #[test]
    fn quotes_and_escapes() {
        check(r#""a\"b" 'c\'d' "e'f" "\n\t\r\\\q\$";"#, &["a\"b", "c'd", "e'f", "\n\t\r\\\\q\\$", ";"]);
        check(r#"\"a a\ b a\;b a\nb \#a"#, &["\"a", "a\\ b", "a\\;b", "a\nb", "\\#a"]);
        check("\"\" ''{", &["", "", "{"]);
        check("\"a\")b", &["a", ")b"]);
        check("\"a\"b;", &["a", "!unexpected \"b\"", "b", ";"]);
        check("\"a\"\"b\"", &["a", "!unexpected \"\"\"", "b"]);
        check("a 'b\nc", &["a", "!open quote"]);
        check("a\\", &["a\\"]);
        check("\"a\\", &["!open quote"]);
    }

    #[test]
    fn long_words() {
        let x = |n: usize| "x".repeat(n);
        check(&x(4095), &[&x(4095)]);
        check(&x(4096), &["!too long parameter \"xxxxxxxxxx...\" started"]);
        check(&format!("'{}';", x(4094)), &[&x(4094), ";"]);
        check(&format!("'{}';", x(4095)), &["!too long parameter \"xxxxxxxxxx...\" started", ";"]);
        check(&format!("'{}';", x(5000)), &["!too long parameter, probably missing terminating \"'\" character", ";"]);
        check(&format!("#{}\na", x(5000)), &["a"]);
    }

    #[test]
    fn lines() {
        let text = "a\n \"b\n\n\" c\\\nd\n;";
        let mut lexer = Lexer::new(text.as_bytes(), FileId(0), true);
        let mut lines = Vec::new();
        while let Ok(Token::Word(word)) = lexer.next() {
            lines.push(word.span.line);
        }
        assert_eq!((lines, lexer.last().line), (vec![1, 2, 4], 6));
    }
}
