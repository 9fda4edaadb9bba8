//! What each protocol's `health_check` says of checks.

use std::rc::Rc;

use buf::parse;
use conf::values::invalid_parameter;
use conf::{Directive, Error, Result, Word};
use expr::regex::Regex;
use upstream::Group;
use upstream::health::Check;

/// A `health_check`, but for what one protocol has alone.
#[derive(Clone, Debug)]
pub struct Spec {
    /// When it is made, and what follows.
    pub check: Check,
    /// The name of the block `match` with the tests, with the word that has it.
    pub name: Option<(Vec<u8>, Word)>,
    /// The directive.
    pub directive: Directive,
}

impl Spec {
    /// One that says nothing yet.
    pub fn new(d: &Directive) -> Spec {
        Spec { check: Check::default(), name: None, directive: d.clone() }
    }

    /// Reads a parameter; false if it is none that all protocols have.
    pub fn parameter(&mut self, word: &Word) -> Result<bool> {
        let invalid = || invalid_parameter(word);
        let (name, value) = split(word);
        let time = || parse::parse_msec(value).ok_or_else(invalid);
        let number = || parse::parse_number(value).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        match name {
            b"interval=" => self.check.interval_ms = Some(time()?).filter(|ms| *ms > 0).ok_or_else(invalid)?,
            b"jitter=" => self.check.jitter_ms = time()?,
            b"fails=" => self.check.fails = number().ok_or_else(invalid)?,
            b"passes=" => self.check.passes = number().ok_or_else(invalid)?,
            b"port=" => {
                let port = number().and_then(|port| u16::try_from(port).ok());
                self.check.port = Some(port.ok_or_else(invalid)?);
            }
            b"match=" if !value.is_empty() => self.name = Some((value.to_vec(), word.clone())),
            b"mandatory" => self.check.mandatory = true,
            b"persistent" if self.check.mandatory => self.check.persistent = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds the check to a group: what it is known by there.
    pub fn add_to(&self, group: &Group) -> Result<u32> {
        let d = &self.directive;
        if !group.is_shared() {
            return Err(Error::on(d, format!("\"health_check\" requires \"zone\" in upstream \"{}\"", group.name)));
        }
        let bit = group.add_check(&self.check);
        bit.ok_or_else(|| Error::on(d, format!("too many health checks of upstream \"{}\"", group.name)))
    }

    /// Its tests, if it names some, among all that there are.
    pub fn tests<T>(&self, find: impl FnOnce(&[u8]) -> Option<Rc<T>>) -> Result<Option<Rc<T>>> {
        let Some((name, word)) = &self.name else { return Ok(None) };
        let unknown = || Error::at(word, format!("unknown match \"{}\"", String::from_utf8_lossy(name)));
        find(name).map(Some).ok_or_else(unknown)
    }
}

/// The name of a parameter with its `=`, if it has one, and the value.
pub fn split(word: &Word) -> (&[u8], &[u8]) {
    match word.text.iter().position(|byte| *byte == b'=') {
        Some(at) => word.text.split_at(at + 1),
        None => (&word.text, b""),
    }
}

/// The error about a second block of a name.
pub fn duplicate_match(name: &Word) -> Error {
    Error::at(name, format!("duplicate match \"{}\"", name.lossy()))
}

/// The error about a test with too few or too many words.
pub fn wrong_number(line: &Directive) -> Error {
    Error::on(line, format!("invalid number of arguments in \"{}\" test", line.name.lossy()))
}

/// A test by a regex: `~`, `~*`, `!~` or `!~*`, and the pattern. Whether the text isn't to match, and the regex.
pub fn regex(operator: &Word, pattern: &Word) -> Result<(bool, Regex)> {
    let (not, caseless) = match operator.text.as_slice() {
        b"~" => (false, false),
        b"~*" => (false, true),
        b"!~" => (true, false),
        b"!~*" => (true, true),
        _ => return Err(Error::at(operator, format!("unknown operator \"{}\"", operator.lossy()))),
    };
    let regex = Regex::new(&pattern.text, caseless).map_err(|error| Error::at(pattern, error.to_string()))?;
    Ok((not, regex))
}
