//! Regexes.

use std::fmt;

/// A compiled pattern.
pub struct Regex {
    engine: fancy_regex::Regex,
}

/// Why a pattern doesn't compile; the text is nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError(String);

/// The groups of a match.
#[derive(Clone, Debug, Default)]
pub struct Captures;

impl Captures {
    /// No groups.
    pub fn new() -> Captures {
        Captures
    }
}

/// A search that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchError;

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Regex {
    /// Compiles.
    pub fn new(pattern: &[u8], caseless: bool) -> Result<Regex, RegexError> {
        let text = String::from_utf8_lossy(pattern).into_owned();
        fancy_regex::RegexBuilder::new(&text)
            .case_insensitive(caseless)
            .bytes_mode(fancy_regex::BytesMode::Ascii)
            .build()
            .map(|engine| Regex { engine })
            .map_err(|e| RegexError(e.to_string()))
    }

    /// Matches.
    pub fn captures(&self, text: &[u8], _: &mut Captures) -> Result<bool, MatchError> {
        self.engine.is_match(text).map_err(|_| MatchError)
    }
}
