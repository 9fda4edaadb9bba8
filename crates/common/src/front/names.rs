//! `server_name`.

use std::rc::Rc;

use conf::{Error, Loader, Result, Word};

use crate::Proto;
use crate::vars::{self, Regex};

/// A word of `server_name`.
#[derive(Clone)]
pub struct ServerName {
    /// In lower case; for a regex the pattern with its `~`.
    pub text: Rc<[u8]>,
    /// Compiled, if it is one.
    pub regex: Option<Rc<Regex>>,
}

impl ServerName {
    /// `$server_name`: the first of a server's names, of which a leading dot isn't shown; empty if it has none.
    pub fn shown(names: &[ServerName]) -> Box<[u8]> {
        let first = names.first().map_or(&b""[..], |name| &name.text);
        first.strip_prefix(b".").unwrap_or(first).into()
    }
}

/// Reads a name; what a name doesn't look like is warned of.
pub fn parse<P: Proto>(loader: &mut Loader<'_>, word: &Word) -> Result<ServerName> {
    if let Some(pattern) = word.text.strip_prefix(b"~") {
        if pattern.is_empty() {
            return Err(Error::at(word, "empty regex in server name \"~\""));
        }
        let caseless = pattern.iter().any(u8::is_ascii_uppercase);
        let regex = vars::regex::<P>(loader, word, pattern, caseless)?;
        return Ok(ServerName { text: word.text.to_vec().into(), regex: Some(Rc::new(regex)) });
    }
    let text = match &word.text[..] {
        b"$hostname" => engine::log::hostname().into_bytes(),
        text => text.to_vec(),
    };
    let text = text.to_ascii_lowercase();
    if text == b"." || text.starts_with(b"*") && (text.len() < 3 || text[1] != b'.') {
        return Err(Error::at(word, format!("server name \"{}\" is invalid", word.lossy())));
    }
    if !valid_name(&text) {
        return Err(Error::at(word, format!("invalid server name or wildcard \"{}\"", word.lossy())));
    }
    if word.text.contains(&b'/') {
        let message = format!("server name \"{}\" has suspicious symbols", word.lossy());
        loader.warnings.push(Error::at(word, message));
    }
    Ok(ServerName { text: text.into(), regex: None })
}

/// A name may have its wildcard at one end only, beside a dot.
fn valid_name(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"*.").or_else(|| text.strip_suffix(b".*")).unwrap_or(text);
    !inner.contains(&b'*') && (inner.len() == text.len() || !inner.is_empty())
}
