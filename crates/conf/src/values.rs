//! Parsers for the values of directives, as the rows of the tables want them: `fn(&mut Loader, &Directive)`.
//!
//! Each reads the first argument, so the row's arity has to be at least one; messages are nginx's.
//! What other places need of a single word (parameters such as `valid=30s`) is in [`buf::parse`].

use std::path::{Path, PathBuf};

use buf::parse;

use crate::{Directive, Error, Loader, Result, Word};

/// `on` or `off`, in any case.
pub fn flag(_: &mut Loader<'_>, directive: &Directive) -> Result<bool> {
    let word = directive.arg(0);
    if word.text.eq_ignore_ascii_case(b"on") {
        return Ok(true);
    }
    if word.text.eq_ignore_ascii_case(b"off") {
        return Ok(false);
    }
    let (value, name) = (word.lossy(), directive.name.lossy());
    let message = format!("invalid value \"{value}\" in \"{name}\" directive, it must be \"on\" or \"off\"");
    Err(Error::at(word, message))
}

/// A number; what `T` can't hold is invalid.
pub fn number<T: TryFrom<u64>>(_: &mut Loader<'_>, directive: &Directive) -> Result<T> {
    let word = directive.arg(0);
    let value = parse::parse_number(&word.text).and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| Error::at(word, format!("\"{}\" directive invalid number", directive.name.lossy())))
}

/// A number; one that `T` can't hold counts as the largest of 32 or 16 bits that it can, since none means more.
pub fn clamped<T: TryFrom<u64>>(loader: &mut Loader<'_>, directive: &Directive) -> Result<T> {
    let value = number::<u64>(loader, directive)?;
    let fits =
        [u64::from(u32::MAX), u64::from(u16::MAX), 0].into_iter().find_map(|most| T::try_from(value.min(most)).ok());
    fits.ok_or_else(|| invalid(directive, directive.arg(0)))
}

/// A number from `low` to `high`: `number_between(1, 9)`.
pub fn number_between<T: TryFrom<u64>>(low: u64, high: u64) -> impl Fn(&mut Loader<'_>, &Directive) -> Result<T> {
    move |loader, directive| {
        let value = number::<u64>(loader, directive)?;
        let inside = Some(value).filter(|value| (low..=high).contains(value));
        inside
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| Error::at(directive.arg(0), format!("value must be between {low} and {high}")))
    }
}

/// A size in bytes, in KiB with `k` or MiB with `m`.
pub fn size(_: &mut Loader<'_>, directive: &Directive) -> Result<usize> {
    let word = directive.arg(0);
    let value = parse::parse_size(&word.text).and_then(|value| usize::try_from(value).ok());
    value.ok_or_else(|| {
        invalid(directive, word).hint("a size is a number of bytes, or of KiB or MiB with \"k\" or \"m\"")
    })
}

/// An offset in bytes, in KiB with `k`, MiB with `m` or GiB with `g`.
pub fn offset(_: &mut Loader<'_>, directive: &Directive) -> Result<u64> {
    let word = directive.arg(0);
    let hint = "a size is a number of bytes, or of KiB, MiB or GiB with \"k\", \"m\" or \"g\"";
    parse::parse_offset(&word.text).ok_or_else(|| invalid(directive, word).hint(hint))
}

/// A time in milliseconds; without a unit the value is in seconds.
pub fn msec(_: &mut Loader<'_>, directive: &Directive) -> Result<u64> {
    let word = directive.arg(0);
    let hint = "a time is written like \"30\" (seconds), \"500ms\" or \"1h 30m\"; units are w, d, h, m, s, ms";
    parse::parse_msec(&word.text).ok_or_else(|| invalid(directive, word).hint(hint))
}

/// A time in seconds.
pub fn sec(_: &mut Loader<'_>, directive: &Directive) -> Result<u64> {
    let word = directive.arg(0);
    let hint = "a time is written like \"30\" (seconds) or \"1d 12h\"; units are y, M, w, d, h, m, s";
    parse::parse_sec(&word.text).ok_or_else(|| invalid(directive, word).hint(hint))
}

/// The bytes of the argument.
pub fn bytes(_: &mut Loader<'_>, directive: &Directive) -> Result<Vec<u8>> {
    Ok(directive.arg(0).text.clone())
}

/// The argument as text; bytes that aren't UTF-8 are an error.
pub fn string(_: &mut Loader<'_>, directive: &Directive) -> Result<String> {
    text(directive.arg(0)).map(str::to_owned)
}

/// A word as text; bytes that aren't UTF-8 are an error.
pub fn text(word: &Word) -> Result<&str> {
    std::str::from_utf8(&word.text).map_err(|_| Error::at(word, format!("\"{}\" is not UTF-8", word.lossy())))
}

/// A path; a relative one starts at the prefix.
pub fn path(loader: &mut Loader<'_>, directive: &Directive) -> Result<PathBuf> {
    Ok(full_path(&loader.env.prefix, directive.arg(0)))
}

/// A path of a configuration-like file; a relative one starts at the folder of the main configuration file.
pub fn conf_path(loader: &mut Loader<'_>, directive: &Directive) -> Result<PathBuf> {
    Ok(full_path(&loader.env.conf_prefix, directive.arg(0)))
}

/// The path that a word means below a prefix.
pub fn full_path(prefix: &Path, word: &Word) -> PathBuf {
    prefix.join(crate::parse::path_of(&word.text))
}

/// One of some names, in any case: `one_of(&[("any", Satisfy::Any), ("all", Satisfy::All)])`.
pub fn one_of<T: Copy>(names: &'static [(&'static str, T)]) -> impl Fn(&mut Loader<'_>, &Directive) -> Result<T> {
    move |_, directive| lookup(names, directive.arg(0))
}

/// Any of some names, each a bit: the first directive of a level starts the mask, further ones add to it. For rows of
/// the kind `set`: `set(|raw, loader, d| bitmask(&mut raw.methods, METHODS, loader, d))`.
pub fn bitmask(
    mask: &mut Option<u32>,
    names: &'static [(&'static str, u32)],
    loader: &mut Loader<'_>,
    directive: &Directive,
) -> Result<()> {
    let mask = mask.get_or_insert(0);
    for word in &directive.args {
        let bit = lookup(names, word)?;
        if *mask & bit != 0 {
            loader.warn(directive, Error::at(word, format!("duplicate value \"{}\"", word.lossy())));
        }
        *mask |= bit;
    }
    Ok(())
}

/// A value that may be given again in the same level: the last one counts. For rows of the kind `set`, as [`bitmask`].
pub fn replace<T>(
    value: &mut Option<T>,
    parse: impl FnOnce(&mut Loader<'_>, &Directive) -> Result<T>,
    loader: &mut Loader<'_>,
    directive: &Directive,
) -> Result<()> {
    *value = Some(parse(loader, directive)?);
    Ok(())
}

fn lookup<T: Copy>(names: &[(&str, T)], word: &Word) -> Result<T> {
    let found = names.iter().find(|(name, _)| word.text.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|&(_, value)| value).ok_or_else(|| {
        let names = names.iter().map(|&(name, _)| name).collect::<Vec<_>>().join(", ");
        invalid_value(word).hint(format!("it may be: {names}"))
    })
}

/// A number of buffers and the size of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bufs {
    /// How many there may be.
    pub count: usize,
    /// How large each is, in bytes.
    pub size: usize,
}

/// A number of buffers and their size, neither of them 0; takes two arguments.
pub fn bufs(_: &mut Loader<'_>, directive: &Directive) -> Result<Bufs> {
    let positive = |value: Option<u64>, word| {
        let value = value.and_then(|value| usize::try_from(value).ok()).filter(|&value| value > 0);
        value.ok_or_else(|| {
            invalid(directive, word).hint("it wants a number of buffers and their size, such as \"4 8k\"")
        })
    };
    let (count, size) = (directive.arg(0), directive.arg(1));
    Ok(Bufs {
        count: positive(parse::parse_number(&count.text), count)?,
        size: positive(parse::parse_size(&size.text), size)?,
    })
}

/// `"x" directive invalid value`.
pub fn invalid(directive: &Directive, word: &Word) -> Error {
    Error::at(word, format!("\"{}\" directive invalid value", directive.name.lossy()))
}

/// `invalid value "x"`.
pub fn invalid_value(word: &Word) -> Error {
    Error::at(word, format!("invalid value \"{}\"", word.lossy()))
}

/// `invalid parameter "x"`.
pub fn invalid_parameter(word: &Word) -> Error {
    Error::at(word, format!("invalid parameter \"{}\"", word.lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Env, Registry};

    fn run<T>(text: &str, parse: impl Fn(&mut Loader<'_>, &Directive) -> Result<T>) -> std::result::Result<T, String> {
        let (sources, directives, _) = crate::parse::parse("x", text);
        let registry = Registry::new();
        let env = Env { prefix: "/p/".into(), conf_prefix: "/c/".into(), test: true };
        let mut loader = Loader::new(&registry, env, sources);
        parse(&mut loader, &directives[0]).map_err(|error| error.message)
    }

    #[test]
    fn values() {
        assert_eq!(run("d ON;", flag), Ok(true));
        assert_eq!(run("d off;", flag), Ok(false));
        assert_eq!(run("d 7;", number::<u8>), Ok(7));
        assert_eq!(run("d 9;", number_between::<u8>(1, 9)), Ok(9));
        assert_eq!(run("d 4294967296;", clamped::<u32>), Ok(u32::MAX));
        assert_eq!(run("d 65536;", clamped::<u16>), Ok(u16::MAX));
        assert_eq!(run("d 70000;", clamped::<u32>), Ok(70_000));
        assert_eq!(run("d 1k;", size), Ok(1024));
        assert_eq!(run("d 1g;", offset), Ok(1 << 30));
        assert_eq!(run("d '1m 1ms';", msec), Ok(60_001));
        assert_eq!(run("d 1M;", sec), Ok(2_592_000));
        assert_eq!(run("d x;", path), Ok("/p/x".into()));
        assert_eq!(run("d x;", conf_path), Ok("/c/x".into()));
        assert_eq!(run("d /x;", path), Ok("/x".into()));
        assert_eq!(run("d 4 8k;", bufs), Ok(Bufs { count: 4, size: 8192 }));
        assert_eq!(run("d B;", one_of(&[("a", 1), ("b", 2)])), Ok(2));
    }

    #[test]
    fn errors() {
        let flag_error = "invalid value \"x\" in \"d\" directive, it must be \"on\" or \"off\"";
        assert_eq!(run("d x;", flag), Err(flag_error.into()));
        assert_eq!(run("d 256;", number::<u8>), Err("\"d\" directive invalid number".into()));
        assert_eq!(run("d 10;", number_between::<u8>(1, 9)), Err("value must be between 1 and 9".into()));
        assert_eq!(run("d 1g;", size), Err("\"d\" directive invalid value".into()));
        assert_eq!(run("d x;", msec), Err("\"d\" directive invalid value".into()));
        assert_eq!(run("d 0 8k;", bufs), Err("\"d\" directive invalid value".into()));
        assert_eq!(run("d c;", one_of(&[("a", 1), ("b", 2)])), Err("invalid value \"c\"".into()));
    }

    #[test]
    fn masks() {
        let masked = |text: &str| {
            run(text, |loader, directive| {
                let mut mask = None;
                bitmask(&mut mask, &[("a", 1), ("b", 2)], loader, directive)?;
                Ok((mask, loader.warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>()))
            })
        };
        assert_eq!(masked("d a b;"), Ok((Some(3), vec![])));
        assert_eq!(masked("d a a;"), Ok((Some(1), vec!["duplicate value \"a\"".into()])));
        assert_eq!(masked("d a x;"), Err("invalid value \"x\"".into()));
    }
}
