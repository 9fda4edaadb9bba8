//! Hints about values: what people write who come from other languages, and how it is written here.

use crate::{Directive, Error, Word};

/// Typographic quotes, as word processors make them.
const QUOTES: [&str; 9] =
    ["\u{201c}", "\u{201d}", "\u{201e}", "\u{2018}", "\u{2019}", "\u{201a}", "\u{ab}", "\u{bb}", "\u{2033}"];

/// Words for `on` and `off`.
const SWITCHES: &[(&str, &[&str])] = &[
    ("on", &["yes", "true", "1", "enable", "enabled", "y", "t"]),
    ("off", &["no", "false", "0", "disable", "disabled", "n", "f", "none"]),
];

/// Words for units of time.
const TIMES: &[(&str, &[&str])] = &[
    ("ms", &["msec", "msecs", "milli", "millis", "millisecond", "milliseconds"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("m", &["min", "mins", "minute", "minutes"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("d", &["day", "days"]),
    ("w", &["week", "weeks"]),
    ("M", &["month", "months"]),
    ("y", &["year", "years"]),
];

/// Words for units of size.
const SIZES: &[(&str, &[&str])] = &[
    ("", &["b", "byte", "bytes"]),
    ("k", &["kb", "kib", "kbyte", "kbytes", "kilobytes"]),
    ("m", &["mb", "mib", "mbyte", "mbytes", "megabytes", "meg"]),
    ("g", &["gb", "gib", "gbyte", "gbytes", "gigabytes"]),
];

/// What is known in other languages and is no directive.
const NO_NAMES: &[(&str, &str)] = &[
    ("else", "there is no \"else\": write a second \"if\" with the opposite condition, or a \"map\""),
    ("elsif", "there is no \"elsif\": write a second \"if\", or a \"map\""),
    ("elseif", "there is no \"elseif\": write a second \"if\", or a \"map\""),
    ("elif", "there is no \"elif\": write a second \"if\", or a \"map\""),
    ("*/", "a comment begins with \"#\" and ends with its line"),
    ("--", "a comment begins with \"#\" and ends with its line"),
];

/// What may be wrong about a word that stands where a directive's name belongs.
pub(super) fn no_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some((_, hint)) = NO_NAMES.iter().find(|(known, _)| *known == name) {
        return Some((*hint).to_owned());
    }
    if name.starts_with("//") || name.starts_with("/*") {
        return Some("a comment begins with \"#\" and ends with its line".to_owned());
    }
    let (word, rest) = name.split_once([':', '='])?;
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let separator = &name[word.len()..=word.len()];
    (is_word && (rest.is_empty() || separator == "="))
        .then(|| format!("name and value are separated by white space, not by \"{separator}\""))
}

/// An error of a directive with a hint, if it has none yet and there is something to be said.
pub(crate) fn explain(error: Error, directive: &Directive) -> Error {
    if let Some(word) = words(directive).find(|word| has_typographic_quote(word)) {
        let hint = "these are typographic quotes, write \" or ' instead";
        return error.hint(hint).caret(word.span);
    }
    if let Some(word) = directive.args.first().filter(|word| word.text.starts_with(b"//") || *word == "/*")
        && directive.name != "location"
    {
        return error.or_hint(|| Some("a comment begins with \"#\" and ends with its line".into())).caret(word.span);
    }
    if let Some(word) = directive.args.first().filter(|word| matches!(&word.text[..], b"=" | b":") && !word.quoted)
        && error.message.starts_with("invalid number of arguments")
    {
        let hint = format!("name and value are separated by white space, not by \"{}\"", word.lossy());
        return error.hint(hint).caret(word.span);
    }
    match meant(&error.message, directive) {
        Some((hint, word)) => error.hint(hint).caret(word.span),
        None => error,
    }
}

fn words(directive: &Directive) -> impl Iterator<Item = &Word> {
    std::iter::once(&directive.name).chain(&directive.args)
}

fn has_typographic_quote(word: &Word) -> bool {
    QUOTES.iter().any(|quote| memchr::memmem::find(&word.text, quote.as_bytes()).is_some())
}

/// What a value was meant to be, and the value.
fn meant<'d>(message: &str, directive: &'d Directive) -> Option<(String, &'d Word)> {
    let word = directive.args.first()?;
    let text = std::str::from_utf8(&word.text).ok()?;
    if message.ends_with("it must be \"on\" or \"off\"") {
        let switch = find(SWITCHES, text)?;
        return Some((format!("write \"{switch}\""), word));
    }
    if message.ends_with("directive invalid value") {
        return Some((format!("write \"{}\"", with_unit(text)?), word));
    }
    // `10 M`: two words.
    if message.starts_with("invalid number of arguments")
        && let [number, unit] = &directive.args[..]
        && let Ok(unit_text) = std::str::from_utf8(&unit.text)
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
    {
        let joined = format!("{text}{unit_text}");
        let short = ["ms", "s", "m", "h", "d", "w", "M", "y", "k", "K", "g", "G"].contains(&unit_text);
        let written = if short { joined } else { with_unit(&joined)? };
        return Some((format!("number and unit are one word: write \"{written}\""), number));
    }
    None
}

/// A number with its unit as it is written here, for one with the unit's long name.
fn with_unit(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start_matches([' ', '_', '-']);
    if number.is_empty() || unit.is_empty() {
        return None;
    }
    find(TIMES, unit).or_else(|| find(SIZES, unit)).map(|unit| format!("{number}{unit}"))
}

fn find(table: &[(&'static str, &[&str])], word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    table.iter().find(|(_, names)| names.contains(&&*word)).map(|(written, _)| *written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, expect) in [
            ("1minute", Some("1m")),
            ("30seconds", Some("30s")),
            ("10MB", Some("10m")),
            ("5 sec", Some("5s")),
            ("10", None),
            ("x", None),
            ("3parsecs", None),
        ] {
            assert_eq!(with_unit(text).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn words_of_other_languages() {
        for (name, expect) in [
            ("else", "there is no \"else\""),
            ("//", "a comment begins"),
            ("//listen", "a comment begins"),
            ("listen:", "not by \":\""),
            ("gzip=on", "not by \"=\""),
        ] {
            assert!(no_name(name.as_bytes()).is_some_and(|hint| hint.contains(expect)), "{name}");
        }
        for name in ["listen", "map", ":80", "http://x"] {
            assert_eq!(no_name(name.as_bytes()), None, "{name}");
        }
    }
}
