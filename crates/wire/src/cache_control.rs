//! `Cache-Control` (RFC 9111 §5.2), and targeted fields such as `CDN-Cache-Control` (RFC 9213).
//!
//! What is unclear is read so that less is reused: a lifetime that isn't a number is 0, and of several the shortest counts.

/// The directives of all lines of a field. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `no-store`
    pub no_store: bool,
    /// `no-cache` without names.
    pub no_cache: bool,
    /// `private` without names.
    pub private: bool,
    /// `public`
    pub public: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `only-if-cached`, of requests.
    pub only_if_cached: bool,
    /// `max-age`
    pub max_age: Option<u64>,
    /// `s-maxage`
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate`
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error`
    pub stale_if_error: Option<u64>,
    /// `min-fresh`, of requests.
    pub min_fresh: Option<u64>,
    /// `max-stale`, of requests; the largest number if it has no value.
    pub max_stale: Option<u64>,
    /// The names that `no-cache` and `private` name, in lower case: these fields aren't to be stored.
    pub fields: Vec<Vec<u8>>,
}

/// The longest time, as RFC 9111 §1.2.2 has it.
pub const LONGEST: u64 = 1 << 31;

impl CacheControl {
    /// Adds the directives of a line of the field.
    pub fn read(&mut self, mut line: &[u8]) {
        while !line.is_empty() {
            let (name, after) = token(trim_start(line));
            let after = trim_start(after);
            let (value, rest) = match after.strip_prefix(b"=") {
                Some(rest) => value(trim_start(rest)),
                None => (Argument::None, after),
            };
            // Whatever else stands before the comma is an error of the sender.
            let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
            let value = if trim(&rest[..end]).is_empty() { value } else { Argument::Invalid };
            line = rest.get(end + 1..).unwrap_or_default();
            self.directive(&name.to_ascii_lowercase(), &value);
        }
    }

    /// Takes the directives of a targeted field, a dictionary of structured fields (RFC 8941), all of whose lines are in
    /// `line`. `None`: it can't be parsed, and doesn't count.
    pub fn of_dictionary(line: &[u8]) -> Option<CacheControl> {
        let mut control = CacheControl::default();
        let mut rest = trim(line);
        while !rest.is_empty() {
            let length = rest.iter().position(|byte| !is_key(*byte)).unwrap_or(rest.len());
            let (name, after) = rest.split_at(length);
            if !name.first().is_some_and(|first| first.is_ascii_lowercase() || *first == b'*') {
                return None;
            }
            let (value, after) = match after.strip_prefix(b"=") {
                Some(after) => item(after)?,
                None => (Item::Bool(true), after),
            };
            control.member(name, &value);
            rest = trim_start(parameters(after)?);
            if rest.is_empty() {
                break;
            }
            rest = trim_start(rest.strip_prefix(b",")?);
            if rest.is_empty() {
                return None;
            }
        }
        Some(control)
    }

    fn directive(&mut self, name: &[u8], value: &Argument) {
        let fields = match value {
            Argument::Quoted(text) => Some(text),
            _ => None,
        };
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" if fields.is_some() => self.add_fields(fields),
            b"private" if fields.is_some() => self.add_fields(fields),
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-stale" if matches!(value, Argument::None) => self.max_stale = Some(LONGEST),
            _ => self.time(name, value.seconds()),
        }
    }

    fn time(&mut self, name: &[u8], seconds: u64) {
        let place = match name {
            b"max-age" => &mut self.max_age,
            b"s-maxage" => &mut self.s_maxage,
            b"stale-while-revalidate" => &mut self.stale_while_revalidate,
            b"stale-if-error" => &mut self.stale_if_error,
            b"min-fresh" => &mut self.min_fresh,
            b"max-stale" => &mut self.max_stale,
            _ => return,
        };
        *place = Some(place.map_or(seconds, |old| old.min(seconds)));
    }

    fn member(&mut self, name: &[u8], value: &Item) {
        match value {
            // A targeted field has no names of fields: `no-cache` with a text counts as without.
            Item::Bool(true) | Item::Text => self.directive(name, &Argument::None),
            Item::Integer(n) => match name {
                // Directives without a value don't mean anything else with one.
                b"max-age" | b"s-maxage" | b"stale-while-revalidate" | b"stale-if-error" => {
                    let seconds = u64::try_from(*n).unwrap_or(0).min(LONGEST);
                    // The last one of a name counts in a dictionary.
                    match name {
                        b"max-age" => self.max_age = Some(seconds),
                        b"s-maxage" => self.s_maxage = Some(seconds),
                        b"stale-while-revalidate" => self.stale_while_revalidate = Some(seconds),
                        _ => self.stale_if_error = Some(seconds),
                    }
                }
                _ => self.directive(name, &Argument::None),
            },
            Item::Bool(false) | Item::Decimal => {}
        }
    }

    fn add_fields(&mut self, text: Option<&Vec<u8>>) {
        let names = text.into_iter().flat_map(|text| text.split(|byte| *byte == b','));
        self.fields.extend(names.map(|name| trim(name).to_ascii_lowercase()).filter(|name| !name.is_empty()));
    }
}

/// The value of `Age` (RFC 9111 §5.1): of several the first one counts; what isn't a number doesn't.
pub fn age(value: &[u8]) -> Option<u64> {
    let first = value.split(|byte| *byte == b',').next().unwrap_or_default();
    seconds(trim(first))
}

/// What follows a directive's `=`.
enum Argument {
    None,
    Token(Vec<u8>),
    Quoted(Vec<u8>),
    Invalid,
}

impl Argument {
    fn seconds(&self) -> u64 {
        match self {
            Argument::Token(text) | Argument::Quoted(text) => seconds(text).unwrap_or(0),
            Argument::None | Argument::Invalid => 0,
        }
    }
}

/// A number of seconds; what is too long is the longest.
fn seconds(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text.iter().try_fold(0_u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    Some(number.unwrap_or(LONGEST).min(LONGEST))
}

fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let end = text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |at| at + 1);
    text.get(..end).unwrap_or_default()
}

/// The token at the beginning, and what follows it.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| matches!(byte, b',' | b'=' | b'"' | b' ' | b'\t')).unwrap_or(text.len());
    text.split_at(end)
}

/// The value at the beginning, and what follows it.
fn value(text: &[u8]) -> (Argument, &[u8]) {
    let Some(inside) = text.strip_prefix(b"\"") else {
        let (token, rest) = token(text);
        return (Argument::Token(token.to_vec()), rest);
    };
    match quoted(inside) {
        Some((text, rest)) => (Argument::Quoted(text), rest),
        None => (Argument::Invalid, b""),
    }
}

/// What stands before the closing quote, and what follows that.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b'"' => return Some((out, text.get(at + 1..)?)),
            b'\\' => {
                at += 1;
                out.push(*text.get(at)?);
            }
            byte => out.push(byte),
        }
        at += 1;
    }
}

/// A value of a dictionary's member.
#[derive(Debug)]
enum Item {
    Bool(bool),
    Integer(i64),
    Decimal,
    Text,
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
}

/// The item at the beginning, and what follows it (RFC 8941 §4.2.3.1).
fn item(text: &[u8]) -> Option<(Item, &[u8])> {
    match text.first()? {
        b'?' => {
            let value = match text.get(1)? {
                b'0' => false,
                b'1' => true,
                _ => return None,
            };
            Some((Item::Bool(value), text.get(2..)?))
        }
        b'"' => quoted(text.get(1..)?).map(|(_, rest)| (Item::Text, rest)),
        b':' => {
            let end = memchr::memchr(b':', text.get(1..)?)?;
            Some((Item::Text, text.get(end + 2..)?))
        }
        b'(' => {
            let end = memchr::memchr(b')', text)?;
            Some((Item::Text, text.get(end + 1..)?))
        }
        b'-' | b'0'..=b'9' => number(text),
        byte if byte.is_ascii_alphabetic() || *byte == b'*' => {
            let end = text.iter().position(|byte| matches!(byte, b',' | b';' | b' ' | b'\t')).unwrap_or(text.len());
            Some((Item::Text, text.get(end..)?))
        }
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<(Item, &[u8])> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let length = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(length);
    if whole.is_empty() || whole.len() > 15 {
        return None;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
        return (1..=3).contains(&length).then(|| (Item::Decimal, fraction.get(length..).unwrap_or_default()));
    }
    let value = whole.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    Some((Item::Integer(if negative { -value } else { value }), rest))
}

/// What follows the parameters of an item, which mean nothing here.
fn parameters(mut text: &[u8]) -> Option<&[u8]> {
    while let Some(after) = trim_start(text).strip_prefix(b";") {
        let after = trim_start(after);
        let length = after.iter().position(|byte| !is_key(*byte)).unwrap_or(after.len());
        if length == 0 {
            return None;
        }
        let after = after.get(length..)?;
        text = match after.strip_prefix(b"=") {
            Some(value) => item(value)?.1,
            None => after,
        };
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> CacheControl {
        let mut control = CacheControl::default();
        lines.iter().for_each(|line| control.read(line.as_bytes()));
        control
    }

    #[test]
    fn times() {
        for (line, expect) in [
            ("max-age=60", Some(60)),
            ("MAX-AGE = 60 , x", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=003600", Some(3600)),
            ("max-age='60'", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age=60s", Some(0)),
            ("max-age=60 70", Some(0)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age=99999999999999999999999", Some(LONGEST)),
            ("max-age=10, max-age=5", Some(5)),
            ("x=\"max-age=60\"", None),
            ("x=\"a\\\"max-age=60\", max-age=7", Some(7)),
            ("x=\"max-age=60", None),
            ("xmax-age=60", None),
            ("", None),
            (",,", None),
        ] {
            assert_eq!(read(&[line]).max_age, expect, "{line}");
        }
        assert_eq!(read(&["max-age=10", "s-maxage=4, max-age=20"]).s_maxage, Some(4));
        assert_eq!(read(&["max-stale"]).max_stale, Some(LONGEST));
        assert_eq!(read(&["max-stale=5"]).max_stale, Some(5));
    }

    #[test]
    fn words() {
        let control = read(&["No-Store, private,public , must-revalidate", "proxy-revalidate,no-cache"]);
        assert!(control.no_store && control.private && control.public && control.must_revalidate);
        assert!(control.proxy_revalidate && control.no_cache);
        let control = read(&["no-cache=\"Set-Cookie, a\", private=\"b\""]);
        assert_eq!(control.fields, [&b"set-cookie"[..], b"a", b"b"]);
        assert!(!control.no_cache && !control.private);
        assert!(read(&["no-cache=x"]).no_cache);
    }

    #[test]
    fn dictionaries() {
        let read = |line: &str| CacheControl::of_dictionary(line.as_bytes());
        assert_eq!(read("max-age=60").and_then(|control| control.max_age), Some(60));
        assert_eq!(read("max-age=60, max-age=70").and_then(|control| control.max_age), Some(70));
        assert_eq!(read("max-age=60;a=b;c, no-store").map(|control| control.no_store), Some(true));
        assert_eq!(
            read("no-store=?0, private=?1").map(|control| (control.no_store, control.private)),
            Some((false, true))
        );
        assert_eq!(read("max-age=1.5, max-age=\"x\"").and_then(|control| control.max_age), Some(0));
        assert_eq!(read("max-age=1.5").and_then(|control| control.max_age), None);
        for wrong in
            ["Max-Age=60", "max-age=60,", "max-age=60 x", "max-age==", "max-age=", ",", "a=\"", "a;", "max-age=60;"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read(""), Some(CacheControl::default()));
    }

    #[test]
    fn ages() {
        for (value, expect) in [
            ("5", Some(5)),
            ("0, 7", Some(0)),
            ("x", None),
            ("-1", None),
            ("1.0", None),
            ("99999999999999999999", Some(LONGEST)),
            ("", None),
        ] {
            assert_eq!(age(value.as_bytes()), expect, "{value}");
        }
    }
}
